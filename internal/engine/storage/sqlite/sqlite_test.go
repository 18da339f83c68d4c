package sqlite_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/memcatalog"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/dump"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/sqlite"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/storagetest"
)

// writerEnv makes this binary a writer: a process of its own, whose POSIX locks are its own.
const writerEnv = "SQLITE_TEST_WRITER"

func TestMain(m *testing.M) {
	if path := os.Getenv(writerEnv); path != "" {
		if err := serveWrites(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serveWrites makes one burst of writes for each line it reads, and answers with a line.
func serveWrites(path string) error {
	db := openAs(nil, path, "")
	defer db.Close() //nolint:errcheck // a test
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if err := burst(db); err != nil {
			return err
		}
		fmt.Println("done")
	}
	return lines.Err()
}

// burst rewrites every page of table bulk, and the accounts, several times, and lets each kind of checkpoint go as far as it can.
func burst(db *sql.DB) error {
	for _, mode := range []string{"PASSIVE", "FULL", "RESTART", "TRUNCATE"} {
		if _, err := db.Exec(`UPDATE "bulk" SET version = version + 1; UPDATE "bank$accounts" SET balance = balance + 1, tx_version = tx_version + 1; INSERT INTO "bulk" VALUES (NULL, 0, zeroblob(9000))`); err != nil {
			return err
		}
		var busy, log, done int
		if err := db.QueryRow("PRAGMA busy_timeout(20)").Scan(new(int)); err != nil { // a checkpoint waits for readers
			return err
		}
		if err := db.QueryRow("PRAGMA wal_checkpoint("+mode+")").Scan(&busy, &log, &done); err != nil {
			return err
		}
		if err := db.QueryRow("PRAGMA busy_timeout(10000)").Scan(new(int)); err != nil {
			return err
		}
	}
	return nil
}

// A snapshot that was fixed stays as it is, whatever other connections of this process, and other processes, write and checkpoint before and while it is read.
func TestSnapshotHolds(t *testing.T) {
	for _, who := range []string{"this process", "another process"} {
		t.Run(who, func(t *testing.T) {
			bank, path := newBank(t, "wal")
			makeBulk(t, bank.DB)
			write := func() {
				if err := burst(bank.DB); err != nil {
					t.Errorf("writing: %v", err)
				}
			}
			if who == "another process" {
				write = startWriter(t, path)
			}
			write() // it works, and the -wal has a past

			run, catalog := newRun()
			n := 0
			catalog.Fail = func(op, _ string) error {
				if op == "write" {
					if n++; n == 2 {
						write() // pages were read, and pages are still to be read
					}
				}
				return nil
			}
			s := preflight(t, sqlite.NewSource(sqlite.Config{Path: path}, "orders", false), run)
			want, digest := contents(t, bank, bank.DB)
			if err := errors.Join(s.Capture(t.Context()), s.Confirm(t.Context())); err != nil {
				t.Fatal(err)
			}
			write()
			c, err := s.Await(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if n < 3 {
				t.Fatalf("the image was written in %d pieces, too few to write between them", n)
			}
			_, restored := restore(t, c, catalog)
			got, gotDigest := contents(t, bank, restored)
			if !slices.Equal(got, want) || gotDigest != digest {
				t.Error("the image is not the snapshot")
			}
			if now, _ := contents(t, bank, bank.DB); slices.Equal(now, want) {
				t.Fatal("the writer wrote nothing")
			}
			// The snapshot is given up at the end of Await, while the session is still open.
			var busy, log, done int
			if err := bank.DB.QueryRow("PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &log, &done); err != nil || busy != 0 {
				t.Errorf("a checkpoint cannot pass after Await: busy %d, %v", busy, err)
			}
		})
	}
}

// makeBulk makes a table of a row per page, and of data that cannot be compressed: the image is stored in several pieces.
func makeBulk(t *testing.T, db *sql.DB) {
	t.Helper()
	if _, err := db.Exec(`CREATE TABLE "bulk" (id INTEGER PRIMARY KEY, version INT, data BLOB)`); err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 3000)
	random := rand.NewChaCha8([32]byte{})
	for range 400 {
		random.Read(data) //nolint:errcheck // never fails
		if _, err := db.Exec(`INSERT INTO "bulk" VALUES (NULL, 0, ?)`, data); err != nil {
			t.Fatal(err)
		}
	}
}

func contents(t *testing.T, bank *storagetest.Bank, db *sql.DB) (rows []string, digest string) {
	t.Helper()
	rows, err := bank.Contents(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.QueryRow(`SELECT count(*) || ' ' || sum(version) || ' ' || min(version) || ' ' || sum(length(data)) FROM "bulk"`).Scan(&digest); err != nil {
		t.Fatal(err)
	}
	return rows, digest
}

func startWriter(t *testing.T, path string) (write func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), writerEnv+"="+path)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the writer: %v", err)
		}
	})
	answers := bufio.NewReader(out)
	return func() {
		if _, err := io.WriteString(in, "write\n"); err != nil {
			t.Errorf("asking the writer: %v", err)
		}
		if line, err := answers.ReadString('\n'); line != "done\n" {
			t.Errorf("the writer answered %q, %v", line, err)
		}
	}
}

func newRun() (engine.Run, *memcatalog.Catalog) {
	catalog := memcatalog.New(time.Now)
	opened := time.Now()
	return engine.Run{
		ID: "0123456789abcdef", BackupID: "nightly", Catalog: catalog, Prefix: "backups/nightly/0123456789abcdef/",
		OpenedAt: func() time.Time { return opened }, ServerClockBound: time.Second, Report: func(string, map[string]any) {},
	}, catalog
}

func preflight(t *testing.T, s engine.Source, run engine.Run) engine.Session {
	t.Helper()
	session, err := s.Preflight(t.Context(), run)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := session.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return session
}

func storageBackup(c engine.Captured, catalog engine.Catalog) engine.StorageBackup {
	return engine.StorageBackup{Storage: "orders", RunID: "fedcba9876543210", Record: engine.StorageRecord{Driver: "sqlite", Artifacts: c.Artifacts}, Catalog: catalog,
		Announce: func(context.Context, engine.Restored) error { return nil }}
}

// restore restores into a new file and opens it.
func restore(t *testing.T, c engine.Captured, catalog engine.Catalog) (path string, db *sql.DB) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "restored.db")
	if _, err := sqlite.NewDestination(sqlite.Config{Path: path}).Restore(t.Context(), storageBackup(c, catalog)); err != nil {
		t.Fatal(err)
	}
	db = openAs(t, path, "")
	t.Cleanup(func() { _ = db.Close() })
	return path, db
}

// backup takes a backup of a new bank.
func backup(t *testing.T) (engine.Captured, *memcatalog.Catalog) {
	t.Helper()
	_, path := newBank(t, "wal")
	run, catalog := newRun()
	s := preflight(t, sqlite.NewSource(sqlite.Config{Path: path}, "orders", false), run)
	if err := errors.Join(s.Capture(t.Context()), s.Confirm(t.Context())); err != nil {
		t.Fatal(err)
	}
	c, err := s.Await(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c, catalog
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// tight is a catalog with little room.
type tight struct {
	*memcatalog.Catalog
	free int64
}

func (c tight) Free(context.Context) (int64, error) { return c.free, nil }

func TestPreflightRefuses(t *testing.T) {
	for _, c := range []struct {
		name  string
		path  func(t *testing.T) string
		tweak func(engine.Source, *engine.Run)
		want  []string
	}{
		{"no file", func(t *testing.T) string { return filepath.Join(t.TempDir(), "none.db") }, nil, []string{"no such file", "on the machine that holds the file"}},
		{"a folder", func(t *testing.T) string { return t.TempDir() }, nil, []string{"not a file"}},
		{"an empty file", func(t *testing.T) string { p := filepath.Join(t.TempDir(), "x"); write(t, p, ""); return p }, nil, []string{"it is empty"}},
		{"another file", func(t *testing.T) string {
			p := filepath.Join(t.TempDir(), "x")
			write(t, p, strings.Repeat("no database. ", 1000))
			return p
		}, nil, []string{"not an SQLite database"}},
		{"no tables of ScalarDB", func(t *testing.T) string {
			p := filepath.Join(t.TempDir(), "x")
			db := openAs(t, p, "")
			if _, err := db.Exec("CREATE TABLE mine (a)"); err != nil {
				t.Fatal(err)
			}
			_ = db.Close()
			return p
		}, nil, []string{"metadata_namespace"}},
		{"no room", walBank, func(_ engine.Source, r *engine.Run) {
			r.Catalog = tight{r.Catalog.(*memcatalog.Catalog), 4096}
		}, []string{"room for 0 MiB"}},
		{"too large for a rollback journal", func(t *testing.T) string { _, p := newBank(t, "delete"); return p }, func(s engine.Source, _ *engine.Run) { sqlite.SetMaxRollback(s, 8192) }, []string{"PRAGMA journal_mode=WAL"}},
		{"a hot journal", hotJournal, nil, []string{"a writer crashed"}},
		{"a lock", func(t *testing.T) string {
			bank, p := newBank(t, "delete")
			if _, err := bank.DB.Exec("BEGIN EXCLUSIVE"); err != nil {
				t.Fatal(err)
			}
			return p
		}, nil, []string{"another process holds a lock"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			run, catalog := newRun()
			s := sqlite.NewSource(sqlite.Config{Path: c.path(t)}, "orders", false)
			if c.tweak != nil {
				c.tweak(s, &run)
			}
			session, err := s.Preflight(t.Context(), run)
			if err == nil {
				_ = session.Close()
				t.Fatal("preflight passed")
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not say %q", err, w)
				}
			}
			if names := catalog.Names(); len(names) > 0 {
				t.Errorf("it wrote %q", names)
			}
		})
	}
}

func walBank(t *testing.T) string {
	_, p := newBank(t, "wal")
	return p
}

// hotJournal is what a writer leaves that died in the middle of a transaction.
func hotJournal(t *testing.T) string {
	bank, p := newBank(t, "delete")
	bank.DB.SetMaxOpenConns(1)
	if _, err := bank.DB.Exec(`PRAGMA cache_size=1; BEGIN; UPDATE "bank$accounts" SET balance = 0; CREATE TABLE spilled AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) SELECT zeroblob(3000) FROM n`); err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(t.TempDir(), "dead.db")
	for _, suffix := range []string{"", "-journal"} {
		data, err := os.ReadFile(p + suffix)
		if err != nil {
			t.Fatal(err)
		}
		write(t, dead+suffix, string(data))
	}
	return dead
}

// All failures of preflight are reported at once.
func TestPreflightJoins(t *testing.T) {
	run, _ := newRun()
	_, err := sqlite.NewSource(sqlite.Config{Path: filepath.Join(t.TempDir(), "none.db")}, "orders", true).Preflight(t.Context(), run)
	for _, want := range []string{"no such file", "set `catalog` in the provider block"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

func TestWarnings(t *testing.T) {
	for mode, want := range map[string]string{"wal": "", "delete": "copied inside the pause window", "truncate": "copied inside the pause window", "persist": "copied inside the pause window"} {
		_, path := newBank(t, mode)
		run, _ := newRun()
		s := preflight(t, sqlite.NewSource(sqlite.Config{Path: path}, "orders", false), run)
		if got := strings.Join(s.Facts().Warnings, "\n"); (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%s: warnings %q, want %q", mode, got, want)
		}
	}
}

// While a rollback-journal database is copied, and only then, writers wait.
func TestRollbackJournalFreesWriters(t *testing.T) {
	bank, path := newBank(t, "delete")
	run, _ := newRun()
	s := preflight(t, sqlite.NewSource(sqlite.Config{Path: path}, "orders", false), run)
	bank.DB.SetMaxOpenConns(1)
	if _, err := bank.DB.Exec("PRAGMA busy_timeout(0)"); err != nil {
		t.Fatal(err)
	}
	bank.MustTransfer(t)
	if err := s.Capture(t.Context()); err != nil {
		t.Fatal(err)
	}
	bank.MustTransfer(t)
	if err := s.Confirm(t.Context()); err != nil {
		t.Fatal(err)
	}
	bank.MustTransfer(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Capture(ctx); err == nil {
		t.Error("a cancelled capture succeeded")
	}
	bank.MustTransfer(t)
}

// DDL that touches no table of ScalarDB is DDL.
func TestIndexInWindow(t *testing.T) {
	for _, mode := range []string{"wal", "delete"} {
		bank, path := newBank(t, mode)
		run, _ := newRun()
		s := preflight(t, sqlite.NewSource(sqlite.Config{Path: path}, "orders", false), run)
		if err := s.Capture(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := bank.DB.Exec(`CREATE INDEX mine ON "bank$accounts" (balance)`); err != nil {
			t.Fatal(err)
		}
		var void *engine.VoidError
		if err := s.Confirm(t.Context()); !errors.As(err, &void) {
			t.Errorf("%s: Confirm: %v", mode, err)
		}
	}
}

func TestFileReplacedInWindow(t *testing.T) {
	bank, path := newBank(t, "delete")
	run, _ := newRun()
	s := preflight(t, sqlite.NewSource(sqlite.Config{Path: path}, "orders", false), run)
	if err := s.Capture(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := bank.DB.Exec("VACUUM INTO '" + path + ".new'"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	err := s.Confirm(t.Context())
	var void *engine.VoidError
	if !errors.As(err, &void) || !strings.Contains(void.Reason, "took the place") {
		t.Errorf("Confirm: %v", err)
	}
}

// A database that was damaged before is not called a backup.
func TestDamagedSource(t *testing.T) {
	bank, path := newBank(t, "delete")
	var page, size int64
	if err := bank.DB.QueryRow(`SELECT rootpage, page_size FROM sqlite_schema, pragma_page_size WHERE name = 'bank$notes'`).Scan(&page, &size); err != nil {
		t.Fatal(err)
	}
	_ = bank.DB.Close()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	// The number of free bytes of the page: reading its rows goes well.
	if _, err := f.WriteAt([]byte{0x7f}, (page-1)*size+7); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	run, catalog := newRun()
	s := preflight(t, sqlite.NewSource(sqlite.Config{Path: path}, "orders", false), run)
	if err := errors.Join(s.Capture(t.Context()), s.Confirm(t.Context())); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Await(t.Context()); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("Await: %v", err)
	}
	if names := catalog.Names(); len(names) > 0 {
		t.Errorf("it stored %q", names)
	}
}

// Without another process that has the database open, a backup leaves its bytes as they are.
func TestSourceIsNotWritten(t *testing.T) {
	for _, mode := range []string{"wal", "delete"} {
		bank, path := newBank(t, mode)
		_ = bank.DB.Close()
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		run, _ := newRun()
		s := preflight(t, sqlite.NewSource(sqlite.Config{Path: path}, "orders", false), run)
		if err := errors.Join(s.Capture(t.Context()), s.Confirm(t.Context())); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Await(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
			t.Errorf("%s: the database changed (%v)", mode, err)
		}
		t.Logf("%s: %q", mode, list(t, filepath.Dir(path)))
	}
}

func TestRestoredFile(t *testing.T) {
	c, catalog := backup(t)
	path, db := restore(t, c, catalog)
	var mode string
	if err := db.QueryRow("PRAGMA journal_mode").Scan(&mode); err != nil || mode != "wal" {
		t.Errorf("journal mode %s, %v: want the source's", mode, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestRestoreIntoExisting(t *testing.T) {
	c, catalog := backup(t)
	path := filepath.Join(t.TempDir(), "db")
	write(t, path, "")
	if err := os.Chmod(path, 0o664); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	d := sqlite.NewDestination(sqlite.Config{Path: path})
	r, err := d.Restore(t.Context(), storageBackup(c, catalog))
	if err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(path)
	if err != nil || !os.SameFile(before, after) || after.Mode().Perm() != 0o664 {
		t.Errorf("it is another file: %v, %v", after, err)
	}
	if len(r.Objects) != 1 || r.Objects[0].Created {
		t.Errorf("objects %+v: the file was there before", r.Objects)
	}
	if err := d.Delete(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("Delete removed what existed before: %v", err)
	}
}

func TestRestoreRefuses(t *testing.T) {
	c, catalog := backup(t)
	for name, prepare := range map[string]func(t *testing.T, path string){
		"a -wal of another database":     func(t *testing.T, path string) { write(t, path+"-wal", "x") },
		"a -journal of another database": func(t *testing.T, path string) { write(t, path+"-journal", "x") },
		"a dangling link":                func(t *testing.T, path string) { _ = os.Symlink(path+".none", path) },
		"a folder":                       func(t *testing.T, path string) { _ = os.Mkdir(path, 0o700) },
		"no folder":                      func(t *testing.T, path string) { _ = os.Remove(filepath.Dir(path)) },
		"a file that is no database":     func(t *testing.T, path string) { write(t, path, "hello") },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "d")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "db")
			prepare(t, path)
			d := sqlite.NewDestination(sqlite.Config{Path: path})
			if err := d.Preflight(t.Context(), storageBackup(c, catalog)); err == nil {
				t.Error("Preflight passed")
			}
			r, err := d.Restore(t.Context(), storageBackup(c, catalog))
			if err == nil {
				t.Error("Restore passed")
			}
			if len(r.Objects) > 0 {
				t.Errorf("it says that it made %+v", r.Objects)
			}
		})
	}
	t.Run("a dump of another driver", func(t *testing.T) {
		b := storageBackup(c, catalog)
		b.Record.Driver = "mysql"
		if err := sqlite.NewDestination(sqlite.Config{Path: filepath.Join(t.TempDir(), "db")}).Preflight(t.Context(), b); err == nil {
			t.Error("Preflight passed")
		}
	})
}

// What comes to be at the path while the dump is fetched is not overwritten.
func TestRestoreRace(t *testing.T) {
	c, catalog := backup(t)
	for name, existing := range map[string]bool{"a new file": false, "tables in the empty database": true} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "db")
			if existing {
				write(t, path, "")
			}
			catalog.Fail = func(op, _ string) error {
				if op == "open" {
					db := openAs(t, path, "")
					if _, err := db.Exec("CREATE TABLE mine (a)"); err != nil {
						t.Error(err)
					}
					_ = db.Close()
				}
				return nil
			}
			d := sqlite.NewDestination(sqlite.Config{Path: path})
			r, err := d.Restore(t.Context(), storageBackup(c, catalog))
			catalog.Fail = nil
			if err == nil || !strings.Contains(err.Error(), "not empty") {
				t.Errorf("Restore: %v", err)
			}
			if err := d.Delete(t.Context(), r); err != nil {
				t.Error(err)
			}
			db := openAs(t, path, "")
			defer db.Close() //nolint:errcheck // a test
			var names string
			if err := db.QueryRow("SELECT group_concat(name) FROM sqlite_schema").Scan(&names); err != nil || names != "mine" {
				t.Errorf("the other's database holds %q, %v", names, err)
			}
			if files := list(t, filepath.Dir(path)); len(files) != 1 {
				t.Errorf("left: %q", files)
			}
		})
	}
}

func TestDelete(t *testing.T) {
	c, catalog := backup(t)
	path := filepath.Join(t.TempDir(), "db")
	d := sqlite.NewDestination(sqlite.Config{Path: path})
	r, err := d.Restore(t.Context(), storageBackup(c, catalog))
	if err != nil {
		t.Fatal(err)
	}
	// Used since, in place.
	db := openAs(t, path, "")
	if _, err := db.Exec("CREATE TABLE more (a); VACUUM"); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// Another file takes its place; the first one's inode stays in use, so that it is not given to the second.
	if err := os.Rename(path, path+".moved"); err != nil {
		t.Fatal(err)
	}
	write(t, path, string(data))
	if err := d.Inspect(t.Context(), r); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("Inspect of another file: %v", err)
	}
	if err := d.Delete(t.Context(), r); err == nil {
		t.Error("Delete removed another file")
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".moved", path); err != nil {
		t.Fatal(err)
	}
	if err := d.Inspect(t.Context(), r); err != nil {
		t.Errorf("Inspect: %v", err)
	}
	if files := list(t, filepath.Dir(path)); len(files) != 3 {
		t.Fatalf("want the database with its -wal and -shm, have %q", files)
	}
	for range 2 {
		if err := d.Delete(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if files := list(t, filepath.Dir(path)); len(files) != 0 {
		t.Errorf("left: %q", files)
	}
	_ = db.Close()
}

// A database in WAL mode in a folder that cannot take its -shm file can still be verified.
func TestReaderWithoutShm(t *testing.T) {
	bank, path := newBank(t, "wal")
	if err := bank.DB.Close(); err != nil {
		t.Fatal(err)
	}
	// A name so long that there is no room for "-shm": that stops root, too.
	long := filepath.Join(t.TempDir(), strings.Repeat("x", 253))
	if err := os.Rename(path, long); err != nil {
		t.Fatal(err)
	}
	r, err := sqlite.NewReader(t.Context(), sqlite.Config{Path: long})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close() //nolint:errcheck // a test
	tables, _, err := r.Tables(t.Context())
	if err != nil || len(tables) != 3 {
		t.Fatalf("%v, %v", tables, err)
	}
}

func TestReaderRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.db")
	if _, err := sqlite.NewReader(t.Context(), sqlite.Config{Path: path}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	write(t, path, strings.Repeat("no database. ", 1000))
	if _, err := sqlite.NewReader(t.Context(), sqlite.Config{Path: path}); err == nil {
		t.Error("a file that is no database was opened")
	}
}

// The manifest's artifact is all that a later run needs.
func TestArtifact(t *testing.T) {
	c, catalog := backup(t)
	a := c.Artifacts[0]
	if a.Kind != "sqlite_dump" || a.ID != "backups/nightly/0123456789abcdef/orders/index.json" || a.SHA256 == "" || a.Size == 0 {
		t.Errorf("artifact %+v", a)
	}
	if err := (dump.Keeper{Catalog: catalog}).Inspect(t.Context(), a); err != nil {
		t.Error(err)
	}
}

// Whatever a file is called, it and no other is opened, and its name sets no parameter.
func FuzzName(f *testing.F) {
	for _, s := range []string{"a", "a b", "a?mode=rwc", "%41", "a#b", "a;b", "ä", "\xff", "a&immutable=1", ":memory:", "file:x", "..x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") || len(name) > 200 {
			return
		}
		dir := t.TempDir()
		path := filepath.Join(dir, name)
		write(t, path, "")
		db, err := sqlite.Open(path, true)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close() //nolint:errcheck // a test
		var file string
		if err := db.QueryRow("SELECT file FROM pragma_database_list").Scan(&file); err != nil {
			t.Fatal(err)
		}
		if _, err := db.Exec("SELECT count(*) FROM sqlite_schema"); err != nil {
			t.Fatalf("opening %q: %v", name, err)
		}
		if _, err := db.Exec("CREATE TABLE t (a)"); err == nil {
			t.Fatalf("%q was opened for writing", name)
		}
		if filepath.Base(file) != name || len(list(t, dir)) != 1 {
			t.Fatalf("%q opened %q; the folder holds %q", name, file, list(t, dir))
		}
	})
}

// TestAnnounced: a restore that dies right after the file got its name is found by what it announced before, and only that file is deleted.
func TestAnnounced(t *testing.T) {
	c, catalog := backup(t)
	target := filepath.Join(t.TempDir(), "restored.db")
	d := sqlite.NewDestination(sqlite.Config{Path: target})
	b := storageBackup(c, catalog)
	var announced engine.Restored
	b.Announce = func(_ context.Context, r engine.Restored) error {
		if _, err := os.Stat(target); err == nil {
			t.Error("it was announced after it was made")
		}
		announced = r
		return nil
	}
	if _, err := d.Restore(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if err := d.Inspect(t.Context(), announced); err != nil {
		t.Errorf("what was announced is not what was made: %v", err)
	}
	if err := d.Delete(t.Context(), announced); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(target); err == nil {
		t.Error("the file is left")
	}

	// Announced, and never made: another's file of that name stays.
	b.Announce = func(_ context.Context, r engine.Restored) error {
		announced = r
		return errors.New("the catalog is gone")
	}
	if _, err := d.Restore(t.Context(), b); err == nil {
		t.Error("a restore that could not be announced went on")
	}
	if err := os.WriteFile(target, []byte("theirs"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.Delete(t.Context(), announced); err == nil {
		t.Error("another's file was taken for the announced one")
	}
	if _, err := os.Stat(target); err != nil {
		t.Error("another's file was deleted")
	}
}
