//go:build acceptance

package postgresql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/postgres"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	systemclock "github.com/scalar-labs/terraform-provider-scalardb/internal/engine/clock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/memcatalog"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/dump"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/storagetest"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
)

// The users of the tests have only what the docs ask for.
const (
	backupUser  = "backup"
	restoreUser = "restorer"
	password    = `p@ss"wo'rd\ #:=1`
)

var flavour = storagetest.Flavour{
	Dialect: Dialect{}, Text: "text", Int: "integer", BigInt: "bigint", Bool: "boolean", Blob: "bytea", Namespace: "CREATE SCHEMA %s", Quote: quote,
}

func TestAcceptance(t *testing.T) {
	tmp, err := os.MkdirTemp("", "t") // short: sockets are made there
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(tmp) })
	if err := os.Chmod(tmp, 0o711); err != nil { //nolint:gosec // the server's user passes through
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", tmp)
	t.Setenv("HOME", tmp)
	s := postgres.Start(t, postgres.Options{})
	s.Exec(t, "postgres",
		"CREATE ROLE "+backupUser+" LOGIN IN ROLE pg_read_all_data PASSWORD "+literal(password),
		"CREATE ROLE "+restoreUser+" LOGIN CREATEDB PASSWORD "+literal(password))
	for _, c := range []struct {
		name string
		run  func(*testing.T, *postgres.Server)
	}{
		{"conformance", conformance},
		{"schema changes behind the dump wait", ddlBehindTheDump},
		{"a schema change under way", ddlUnderWay},
		{"transactions that wrote nothing of ScalarDB", unrelatedTransactions},
		{"writes of every kind void the window", writesOfEveryKind},
		{"a write that is not committed yet", openWrite},
		{"what preflight refuses", refusals},
		{"a pooler in transaction mode", pooler},
		{"a standby", standby},
		{"pg_dump is killed", killedDump},
		{"the disk is full", fullDisk},
		{"names that need quotes", quotedNames},
		{"no secret reaches a tool", secrets},
		{"restore into an empty database", restoreIntoEmpty},
		{"destroy while others are connected", destroyInUse},
		{"another database of the same name", sameName},
		{"what a restore refuses", restoreRefusals},
		{"what a dead restore left is found", leftover},
		{"clock", clocks},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, s) })
	}
}

// leftover: a restore that died right after it created its database is found by its run id, and by no other.
func leftover(t *testing.T, s *postgres.Server) {
	b := newBed(t, s)
	settings := b.target(fmt.Sprintf("left_%d", time.Now().UnixNano()))
	d := NewDestination(settings)
	const run = "00000000000000aa"
	if _, err := d.create(t.Context(), engine.StorageBackup{RunID: run}); err != nil {
		t.Fatal(err)
	}
	if r, err := d.Leftover(t.Context(), "00000000000000bb"); err != nil || len(r.Objects) != 0 {
		t.Errorf("another run's: %+v, %v", r, err)
	}
	r, err := d.Leftover(t.Context(), run)
	if err != nil || len(r.Objects) != 1 {
		t.Fatalf("its own: %+v, %v", r, err)
	}
	if err := d.Delete(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	var n int
	scan(t, s.DB(t, "postgres", "", ""), &n, "SELECT count(*) FROM pg_database WHERE datname = $1", settings.Database)
	if n != 0 {
		t.Error("the database is still there")
	}
}

func conformance(t *testing.T, s *postgres.Server) {
	storagetest.Suite{Driver: kindName, Faults: 6, New: func(t *testing.T) *storagetest.Fixture {
		b := newBed(t, s)
		return &storagetest.Fixture{
			Bank:      b.bank,
			Source:    func() engine.Source { return NewSource(b.settings) },
			Artifacts: func(c engine.Catalog) engine.ArtifactStore { return dump.Keeper{Catalog: c} },
			Secrets:   []string{password},
			Traces: func(t *testing.T) []string {
				return append(files(t), sessions(t, s)...)
			},
			Target: func(t *testing.T) storagetest.Target {
				settings := b.target(fmt.Sprintf("restored_%d", time.Now().UnixNano()))
				name := settings.Database
				t.Cleanup(func() { s.Exec(t, "postgres", "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)") })
				return storagetest.Target{
					Destination: NewDestination(settings),
					Rows:        b.bank.Through(func(t *testing.T) *sql.DB { return s.DB(t, name, "", "") }),
					Reader:      func(ctx context.Context) (verify.Storage, error) { return NewReader(ctx, settings) },
					Empty: func(t *testing.T) bool {
						var n int
						scan(t, s.DB(t, "postgres", "", ""), &n, "SELECT count(*) FROM pg_database WHERE datname = $1", name)
						return n == 0
					},
					Occupy: func(t *testing.T) func(*testing.T) {
						s.Exec(t, "postgres", "CREATE DATABASE "+name)
						s.Exec(t, name, "CREATE TABLE own (x int)", "INSERT INTO own VALUES (42)")
						return func(t *testing.T) {
							var x, n int
							db := s.DB(t, name, "", "")
							scan(t, db, &x, "SELECT x FROM own")
							scan(t, db, &n, "SELECT count(*) FROM pg_namespace WHERE nspname IN ('bank', 'scalardb', 'coordinator')")
							if x != 42 || n != 0 {
								t.Errorf("the database was touched: %d, %d schemas", x, n)
							}
							_ = db.Close()
						}
					},
				}
			},
		}
	}}.Run(t)
}

// files are what our code leaves among the temporary files.
func files(t *testing.T) (found []string) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(os.TempDir(), "scalardb-*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// sessions are those of our users.
func sessions(t *testing.T, s *postgres.Server) (found []string) {
	t.Helper()
	db := s.DB(t, "postgres", "", "")
	defer db.Close() //nolint:errcheck // read only
	rows, err := db.QueryContext(t.Context(), "SELECT usename || ' ' || coalesce(state, '') || ' ' || query FROM pg_stat_activity WHERE usename IN ($1, $2)", backupUser, restoreUser)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close() //nolint:errcheck // see below
	for rows.Next() {
		var x string
		if err := rows.Scan(&x); err != nil {
			t.Fatal(err)
		}
		found = append(found, x)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return found
}

func scan(t *testing.T, db *sql.DB, to any, query string, args ...any) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), query, args...).Scan(to); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// custody calls started for every child, and remembers what is not gone.
type custody struct {
	mu      sync.Mutex
	started func(pid int, name string)
	open    map[string]bool
}

func (c *custody) Process(pid int, _ uint64, name string) func() {
	if c.started != nil {
		c.started(pid, name)
	}
	return c.SecretFile(fmt.Sprintf("%s %d", name, pid))
}

func (c *custody) SecretFile(path string) func() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open[path] = true
	return func() { c.mu.Lock(); delete(c.open, path); c.mu.Unlock() }
}

// bed is a database with a bank in it, and a run over it.
type bed struct {
	t        *testing.T
	s        *postgres.Server
	bank     *storagetest.Bank
	settings Settings
	catalog  *memcatalog.Catalog
	custody  *custody
	run      engine.Run
	opened   time.Time
}

func newBed(t *testing.T, s *postgres.Server) *bed {
	t.Helper()
	b := &bed{t: t, s: s, custody: &custody{open: map[string]bool{}}, catalog: memcatalog.New(time.Now)}
	name := s.CreateDatabase(t)
	b.bank = storagetest.NewBank(t, s.DB(t, name, "", ""), flavour)
	b.settings = Settings{
		Host: s.Host, Port: int64(s.Port), Database: name, Jobs: 2, Storage: "orders", Clock: systemclock.System{}, Getenv: func(string) string { return "" },
		Username: backupUser, Password: password,
	}
	b.run = engine.Run{
		ID: "0123456789abcdef", BackupID: "b", Catalog: b.catalog, Prefix: "backups/b/0123456789abcdef/", Custody: b.custody,
		OpenedAt: func() time.Time { return b.opened }, ServerClockBound: time.Millisecond, Report: func(string, map[string]any) {},
	}
	return b
}

// target is where to restore.
func (b *bed) target(name string) Settings {
	s := b.settings
	s.Database, s.Username = name, restoreUser
	return s
}

func (b *bed) preflight() engine.Session {
	b.t.Helper()
	x, err := NewSource(b.settings).Preflight(b.t.Context(), b.run)
	if err != nil {
		b.t.Fatalf("preflight: %v", err)
	}
	b.t.Cleanup(func() { _ = x.Close() })
	return x
}

// capture opens the window, a moment after the last write, and fixes the capture.
func (b *bed) capture() engine.Session {
	b.t.Helper()
	x := b.preflight()
	time.Sleep(5 * time.Millisecond) // time itself has to pass: stamps are in milliseconds
	b.opened = time.Now()
	if err := x.Capture(b.t.Context()); err != nil {
		b.t.Fatalf("capture: %v", err)
	}
	return x
}

func (b *bed) backup() (engine.Session, engine.StorageBackup) {
	b.t.Helper()
	x := b.capture()
	if err := x.Confirm(b.t.Context()); err != nil {
		b.t.Fatalf("confirm: %v", err)
	}
	return x, b.await(x)
}

func (b *bed) await(x engine.Session) engine.StorageBackup {
	b.t.Helper()
	c, err := x.Await(b.t.Context())
	if err != nil {
		b.t.Fatalf("await: %v", err)
	}
	return engine.StorageBackup{Storage: "orders", RunID: "beef", Catalog: b.catalog, Custody: b.custody, Record: engine.StorageRecord{
		Driver: kindName, Artifacts: c.Artifacts, Tables: c.Tables, Extra: c.Extra,
	}}
}

func (b *bed) contents(db *sql.DB) []string {
	b.t.Helper()
	c, err := b.bank.Contents(b.t.Context(), db)
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

// restored restores and returns the contents.
func (b *bed) restored(r engine.StorageBackup) []string {
	b.t.Helper()
	settings := b.target(fmt.Sprintf("again_%d", time.Now().UnixNano()))
	d := NewDestination(settings)
	done, err := d.Restore(b.t.Context(), r)
	b.t.Cleanup(func() {
		if err := d.Delete(context.WithoutCancel(b.t.Context()), done); err != nil {
			b.t.Errorf("deleting the restored database: %v", err)
		}
	})
	if err != nil {
		b.t.Fatalf("restoring: %v", err)
	}
	db := b.s.DB(b.t, settings.Database, "", "")
	defer db.Close() //nolint:errcheck // read only
	return b.contents(db)
}

func (b *bed) same(want, got []string) {
	b.t.Helper()
	if !slices.Equal(want, got) {
		b.t.Errorf("the restored rows differ: %d, want %d", len(got), len(want))
	}
}

// clean discards, and expects nothing of the run to be anywhere.
func (b *bed) clean(x engine.Session) {
	b.t.Helper()
	if err := errors.Join(x.Discard(b.t.Context()), x.Close(), x.Discard(b.t.Context()), x.Close()); err != nil {
		b.t.Errorf("discarding: %v", err)
	}
	if n := b.catalog.Names(); len(n) > 0 {
		b.t.Errorf("the catalog has %q", n)
	}
	b.released()
}

func (b *bed) released() {
	b.t.Helper()
	b.custody.mu.Lock()
	defer b.custody.mu.Unlock()
	if len(b.custody.open) > 0 {
		b.t.Errorf("custody has %v", b.custody.open)
	}
	if f := files(b.t); len(f) > 0 {
		b.t.Errorf("left files: %q", f)
	}
	b.poll("no session of the run is left", func() bool { return len(sessions(b.t, b.s)) == 0 })
}

func (b *bed) poll(what string, done func() bool) {
	b.t.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("waited in vain until %s", what)
		}
	}
}

func wantVoid(t *testing.T, err error) {
	t.Helper()
	var void *engine.VoidError
	if !errors.As(err, &void) {
		t.Errorf("the window is not void: %v", err)
	}
}

func wantError(t *testing.T, err error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one with %q", texts)
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("the error does not say %q: %v", text, err)
		}
	}
	if strings.Contains(err.Error(), password) {
		t.Errorf("the error has the password: %v", err)
	}
}

// ddlBehindTheDump: what would take rows from under a snapshot waits, and the dump does not wait behind it.
func ddlBehindTheDump(t *testing.T, s *postgres.Server) {
	b := newBed(t, s)
	want := b.contents(b.bank.DB)
	x := b.capture()
	var ddl sync.WaitGroup
	statements := []string{
		"TRUNCATE bank.accounts", "ALTER TABLE bank.audit ALTER amount TYPE bigint USING amount * 2", "DROP TABLE bank.notes", "VACUUM FULL coordinator.state",
		"ALTER TABLE scalardb.metadata ADD extra text",
	}
	for _, q := range statements {
		ddl.Go(func() {
			if _, err := b.bank.DB.ExecContext(t.Context(), q); err != nil {
				t.Errorf("%s: %v", q, err)
			}
		})
	}
	b.poll("all schema changes wait", func() bool {
		var n int
		scan(t, s.DB(t, b.settings.Database, "", ""), &n, "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'")
		return n == len(statements)
	})
	if err := x.Confirm(t.Context()); err != nil {
		t.Fatalf("a schema change that waits has changed nothing: %v", err)
	}
	r := b.await(x)
	if err := x.Close(); err != nil {
		t.Error(err)
	}
	ddl.Wait() // they come through once the sessions are gone
	var n int
	scan(t, b.bank.DB, &n, "SELECT count(*) FROM bank.accounts")
	if n != 0 {
		t.Errorf("bank.accounts has %d rows: the test did not test", n)
	}
	b.same(want, b.restored(r))
	b.released()
}

func ddlUnderWay(t *testing.T, s *postgres.Server) {
	b := newBed(t, s)
	x := b.preflight()
	tx, err := b.bank.DB.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // the end of the test
	if _, err := tx.ExecContext(t.Context(), "ALTER TABLE bank.accounts ADD extra int"); err != nil {
		t.Fatal(err)
	}
	b.opened = time.Now()
	err = x.Capture(t.Context())
	wantError(t, err, "one is under way")
	if d := time.Since(b.opened); d > lockTimeout+5*time.Second {
		t.Errorf("the window was held for %s", d)
	}
	b.clean(x)
}

func unrelatedTransactions(t *testing.T, s *postgres.Server) {
	b := newBed(t, s)
	other := s.CreateDatabase(t)
	want := b.contents(b.bank.DB)
	x := b.capture()
	s.Exec(t, other, "CREATE TABLE t (x int)", "INSERT INTO t SELECT generate_series(1, 100)")
	s.Exec(t, b.settings.Database, "CREATE SCHEMA unrelated", "CREATE TABLE unrelated.t (x int)", "INSERT INTO unrelated.t VALUES (1)", "ANALYZE", "VACUUM (FREEZE) bank.accounts", "SELECT txid_current()")
	if err := x.Confirm(t.Context()); err != nil {
		t.Fatal(err)
	}
	if y := x.(*session); y.first == y.last {
		t.Errorf("the snapshots are the same (%s): the test did not test", y.first)
	}
	r := b.await(x)
	_ = x.Close()
	b.same(want, b.restored(r))
}

func writesOfEveryKind(t *testing.T, s *postgres.Server) {
	for _, q := range []string{
		"INSERT INTO bank.notes VALUES ('9', 'new')", "UPDATE bank.notes SET body = body", "DELETE FROM bank.notes", "WITH d AS (DELETE FROM bank.notes RETURNING body) INSERT INTO bank.notes SELECT '2', body FROM d",
		"UPDATE bank.accounts SET balance = balance WHERE account_id = 3", "DELETE FROM coordinator.state WHERE tx_id = 'initial'",
		"DO $$ BEGIN BEGIN UPDATE bank.notes SET body = 'in a subtransaction'; EXCEPTION WHEN division_by_zero THEN NULL; END; END $$",
	} {
		t.Run(q[:20], func(t *testing.T) {
			b := newBed(t, s)
			x := b.capture()
			s.Exec(t, b.settings.Database, q)
			err := x.Confirm(t.Context())
			if err == nil {
				_, err = x.Await(t.Context())
			}
			wantVoid(t, err)
			b.clean(x)
		})
	}
}

func openWrite(t *testing.T, s *postgres.Server) {
	b := newBed(t, s)
	x := b.capture()
	tx, err := b.bank.DB.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // the end of the test
	if _, err := tx.ExecContext(t.Context(), "UPDATE bank.accounts SET balance = 0 WHERE account_id = 1"); err != nil {
		t.Fatal(err)
	}
	err = x.Confirm(t.Context())
	wantVoid(t, err)
	wantError(t, err, "bank.accounts", "pause.targets")
	b.clean(x)
}

func script(t *testing.T, name, text string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil { //nolint:gosec // it has to run
		t.Fatal(err)
	}
	return dir
}

func refusals(t *testing.T, s *postgres.Server) {
	for _, c := range []struct {
		name  string
		with  func(*bed)
		texts []string
	}{
		{"wrong password", func(b *bed) { b.settings.Password = "wrong" }, []string{"password authentication failed", "credentials"}},
		{"no such user", func(b *bed) { b.settings.Username = "nobody" }, []string{"user nobody", "credentials"}},
		{"no such database", func(b *bed) { b.settings.Database = "nowhere" }, []string{"nowhere", "argument database"}},
		{"nobody listens", func(b *bed) { b.settings.Port = 1 }, []string{"connecting to database", "refused"}},
		{"no pg_dump", func(b *bed) { b.settings.toolDirs = []string{} }, []string{"looking for pg_dump", "postgresql-client-"}},
		{"pg_dump is too old", func(b *bed) {
			b.settings.toolDirs = []string{script(b.t, "pg_dump", "echo 'pg_dump (PostgreSQL) 9.6.24'")}
		}, []string{"is 9.6.24", "postgresql-client-"}},
		{"the catalog is the default", func(b *bed) { b.settings.CatalogIsDefault = true }, []string{"catalog"}},
		{"no metadata", func(b *bed) { b.settings.Layout.MetadataNamespace = "elsewhere" }, []string{"elsewhere"}},
		{"no privileges", func(b *bed) {
			s.Exec(t, "postgres", "DROP ROLE IF EXISTS narrow", "CREATE ROLE narrow LOGIN PASSWORD "+literal(password))
			s.Exec(t, b.settings.Database, "GRANT USAGE ON SCHEMA scalardb, bank TO narrow", "GRANT SELECT ON scalardb.metadata, bank.notes TO narrow")
			b.settings.Username = "narrow"
		}, []string{"GRANT USAGE ON SCHEMA \"coordinator\"", "GRANT SELECT ON \"bank\".\"accounts\""}},
		{"row-level security", func(b *bed) {
			s.Exec(t, b.settings.Database, "ALTER TABLE bank.notes ENABLE ROW LEVEL SECURITY")
		}, []string{"row-level security", "bank"}},
		{"connection limit", func(b *bed) {
			s.Exec(t, "postgres", "DROP ROLE IF EXISTS limited", "CREATE ROLE limited LOGIN IN ROLE pg_read_all_data CONNECTION LIMIT 3 PASSWORD "+literal(password))
			b.settings.Username = "limited"
		}, []string{"too many connections", "lower jobs"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBed(t, s)
			c.with(b)
			x, err := NewSource(b.settings).Preflight(t.Context(), b.run)
			wantError(t, err, c.texts...)
			if x != nil {
				_ = x.Close()
			}
			b.released()
		})
	}
	t.Run("all at once", func(t *testing.T) {
		b := newBed(t, s)
		b.settings.CatalogIsDefault = true
		b.settings.toolDirs = []string{}
		s.Exec(t, b.settings.Database, "ALTER TABLE bank.notes ENABLE ROW LEVEL SECURITY")
		_, err := NewSource(b.settings).Preflight(t.Context(), b.run)
		wantError(t, err, "catalog", "pg_dump", "row-level security")
	})
}

func standby(t *testing.T, _ *postgres.Server) {
	s := postgres.Start(t, postgres.Options{Standby: true})
	settings := Settings{Host: s.Host, Port: int64(s.Port), Database: "postgres", Clock: systemclock.System{}, Username: s.User, Password: s.Password, Jobs: 1}
	_, err := NewSource(settings).Preflight(t.Context(), engine.Run{ID: "x", Prefix: "backups/b/x/", Catalog: memcatalog.New(time.Now)})
	wantError(t, err, "standby", "primary")
}

// pooler hands a backend to whoever begins a transaction, as PgBouncer does with pool_mode=transaction, and takes it back at its end.
func pooler(t *testing.T, s *postgres.Server) {
	for _, size := range []int{1, 20} {
		t.Run(fmt.Sprintf("%d backends", size), func(t *testing.T) {
			b := newBed(t, s)
			c, err := b.settings.config(b.settings.Database)
			if err != nil {
				t.Fatal(err)
			}
			idle := make(chan *pgconn.HijackedConn, size)
			for range size {
				conn, err := pgconn.ConnectConfig(t.Context(), &c.Config)
				if err != nil {
					t.Fatal(err)
				}
				h, err := conn.Hijack()
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = h.Conn.Close() })
				idle <- h
			}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = l.Close() })
			var pool lifo
			for range size {
				pool.put(<-idle)
			}
			go func() {
				for {
					client, err := l.Accept()
					if err != nil {
						return
					}
					go pooled(client, &pool)
				}
			}()
			b.settings.Port = int64(l.Addr().(*net.TCPAddr).Port)
			b.settings.SSLMode = "disable"
			_, err = NewSource(b.settings).Preflight(t.Context(), b.run)
			wantError(t, err, "pooler", "not through PgBouncer")
		})
	}
}

type lifo struct {
	mu   sync.Mutex
	free []*pgconn.HijackedConn
}

func (p *lifo) put(h *pgconn.HijackedConn) { p.mu.Lock(); p.free = append(p.free, h); p.mu.Unlock() }

func (p *lifo) get() *pgconn.HijackedConn {
	for {
		p.mu.Lock()
		if n := len(p.free); n > 0 {
			h := p.free[n-1]
			p.free = p.free[:n-1]
			p.mu.Unlock()
			return h
		}
		p.mu.Unlock()
		time.Sleep(5 * time.Millisecond)
	}
}

func pooled(client net.Conn, pool *lifo) {
	defer client.Close() //nolint:errcheck // a test's
	if ok, err := greet(client); !ok || err != nil {
		return
	}
	first := pool.get()
	welcome := []pgproto3.BackendMessage{&pgproto3.AuthenticationOk{}}
	for k, v := range first.ParameterStatuses {
		welcome = append(welcome, &pgproto3.ParameterStatus{Name: k, Value: v})
	}
	pool.put(first)
	if send(client, append(welcome, &pgproto3.BackendKeyData{ProcessID: 1, SecretKey: []byte{1, 2, 3, 4}}, &pgproto3.ReadyForQuery{TxStatus: 'I'})...) != nil {
		return
	}
	var h *pgconn.HijackedConn
	for {
		m, err := message(client)
		if err != nil || m[0] == 'X' {
			return
		}
		if h == nil {
			h = pool.get()
		}
		if _, err := h.Conn.Write(m); err != nil {
			return
		}
		if m[0] != 'Q' && m[0] != 'S' {
			continue
		}
		for {
			m, err := message(h.Conn)
			if err != nil {
				return
			}
			if _, err := client.Write(m); err != nil {
				return
			}
			if m[0] == 'Z' {
				if m[5] == 'I' {
					pool.put(h)
					h = nil
				}
				break
			}
		}
	}
}

func killedDump(t *testing.T, s *postgres.Server) {
	b := newBed(t, s)
	// Enough rows that it cannot end before it is killed.
	s.Exec(t, b.settings.Database, "INSERT INTO bank.notes SELECT g::text, repeat('x', 2000) FROM generate_series(1000, 30000) g")
	x := b.capture()
	if err := x.Confirm(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.custody.started = func(pid int, name string) {
		if name == "pg_dump" {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	_, err := x.Await(t.Context())
	wantError(t, err, "pg_dump", "was killed")
	b.clean(x)
}

func fullDisk(t *testing.T, s *postgres.Server) {
	b := newBed(t, s)
	x := b.capture()
	if err := x.Confirm(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.catalog.Fail = func(op, _ string) error {
		if op == "write" {
			return syscall.ENOSPC
		}
		return nil
	}
	_, err := x.Await(t.Context())
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
	b.catalog.Fail = nil
	b.clean(x)
}

func quotedNames(t *testing.T, s *postgres.Server) {
	b := newBed(t, s)
	s.Exec(t, b.settings.Database, `CREATE SCHEMA "Sp ace*"`, `CREATE TABLE "Sp ace*"."we""ird $1" ("K ey" text PRIMARY KEY, v text)`, `INSERT INTO "Sp ace*"."we""ird $1" VALUES ('a', E'tab\t\\.\n\\N')`,
		`CREATE VIEW "Sp ace*".v AS SELECT * FROM "Sp ace*"."we""ird $1"`, `CREATE SCHEMA "Sp ace"`, `CREATE TABLE "Sp ace".not_ours (x int)`,
		`INSERT INTO scalardb.metadata (full_table_name, column_name, data_type, key_type, indexed, ordinal_position) VALUES ('Sp ace*.we"ird $1', 'K ey', 'TEXT', 'PARTITION', false, 1), ('Sp ace*.we"ird $1', 'v', 'TEXT', NULL, false, 2)`)
	x, r := b.backup()
	_ = x.Close()
	settings := b.target("Quoted 'one\"")
	d := NewDestination(settings)
	done, err := d.Restore(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	var v string
	db := s.DB(t, settings.Database, "", "")
	scan(t, db, &v, `SELECT v FROM "Sp ace*".v`)
	if v != "tab\t\\.\n\\N" {
		t.Errorf("got %q", v)
	}
	var n int
	scan(t, db, &n, `SELECT count(*) FROM pg_namespace WHERE nspname = 'Sp ace'`)
	if n != 0 {
		t.Error("a schema that is not ScalarDB's was dumped: its name was taken for a pattern")
	}
	_ = db.Close()
	if err := d.Delete(t.Context(), done); err != nil {
		t.Error(err)
	}
}

func secrets(t *testing.T, s *postgres.Server) {
	t.Setenv("PGPASSWORD", "of the process")
	b := newBed(t, s)
	seen := 0
	b.custody.started = func(pid int, name string) {
		for _, f := range []string{"cmdline", "environ"} {
			data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), f))
			if err != nil {
				continue // gone already
			}
			seen++
			if strings.Contains(string(data), password) || strings.Contains(string(data), "of the process") {
				t.Errorf("%s of %s has a secret", f, name)
			}
		}
		for _, f := range files(t) {
			info, err := os.Stat(f)
			if err == nil && info.Mode().Perm() != 0o700 {
				t.Errorf("%s is %s", f, info.Mode())
			}
		}
	}
	x, r := b.backup()
	_ = x.Close()
	b.restored(r)
	if seen < 4 {
		t.Errorf("looked at %d files only", seen)
	}
	b.released()
}

func restoreIntoEmpty(t *testing.T, s *postgres.Server) {
	b := newBed(t, s)
	want := b.contents(b.bank.DB)
	x, r := b.backup()
	_ = x.Close()
	name := s.CreateDatabase(t)
	s.Exec(t, "postgres", "GRANT CREATE ON DATABASE "+quote(name)+" TO "+restoreUser)
	d := NewDestination(b.target(name))
	if err := d.Preflight(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	done, err := d.Restore(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if len(done.Objects) != 1 || done.Objects[0].Created {
		t.Errorf("restored %+v, want one object that was there before", done)
	}
	db := s.DB(t, name, "", "")
	b.same(want, b.contents(db))
	if err := errors.Join(d.Inspect(t.Context(), done), d.Delete(t.Context(), done)); err != nil {
		t.Error(err)
	}
	b.same(want, b.contents(db)) // it was there before: it stays
	_ = db.Close()
	if _, err := d.Restore(t.Context(), r); err == nil {
		t.Error("restored over what is there")
	}
}

// destroyInUse: sessions of the user's own are ended, those of roles it may end too; those of others make it fail, and it can be tried again.
func destroyInUse(t *testing.T, s *postgres.Server) {
	b := newBed(t, s)
	x, r := b.backup()
	_ = x.Close()
	settings := b.target("in_use")
	d := NewDestination(settings)
	done, err := d.Restore(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	own, super := s.DB(t, settings.Database, restoreUser, password), s.DB(t, settings.Database, "", "")
	for _, db := range []*sql.DB{own, super} {
		if err := db.PingContext(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	wantError(t, d.Delete(t.Context(), done), "in_use")
	_ = super.Close()
	if err := d.Delete(t.Context(), done); err != nil {
		t.Error(err)
	}
	if err := d.Inspect(t.Context(), done); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("after the destroy: %v", err)
	}
}

func sameName(t *testing.T, s *postgres.Server) {
	b := newBed(t, s)
	x, r := b.backup()
	_ = x.Close()
	settings := b.target("same_name")
	d := NewDestination(settings)
	done, err := d.Restore(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	s.Exec(t, "postgres", "DROP DATABASE same_name", "CREATE DATABASE same_name")
	if err := d.Inspect(t.Context(), done); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("another database is taken for the restored one: %v", err)
	}
	if err := d.Delete(t.Context(), done); err != nil {
		t.Error(err)
	}
	var n int
	scan(t, s.DB(t, "postgres", "", ""), &n, "SELECT count(*) FROM pg_database WHERE datname = 'same_name'")
	if n != 1 {
		t.Error("somebody else's database was dropped")
	}
	// The same OID in another cluster is another database too.
	scan(t, s.DB(t, "postgres", "", ""), &n, "SELECT oid::int8 FROM pg_database WHERE datname = 'same_name'")
	done.Objects[0].Extra["oid"], done.Objects[0].Extra["system_identifier"] = strconv.Itoa(n), "1"
	if err := d.Delete(t.Context(), done); err != nil {
		t.Error(err)
	}
	scan(t, s.DB(t, "postgres", "", ""), &n, "SELECT count(*) FROM pg_database WHERE datname = 'same_name'")
	if n != 1 {
		t.Error("a database of another cluster was dropped")
	}
}

func restoreRefusals(t *testing.T, s *postgres.Server) {
	b := newBed(t, s)
	x, r := b.backup()
	_ = x.Close()
	for _, c := range []struct {
		name  string
		with  func(*Settings, *engine.StorageBackup)
		texts []string
	}{
		{"wrong password", func(s *Settings, _ *engine.StorageBackup) { s.Password = "wrong" }, []string{"password authentication failed"}},
		{"may not create", func(s *Settings, _ *engine.StorageBackup) { s.Username = backupUser }, []string{"may not create"}},
		{"no pg_restore", func(s *Settings, _ *engine.StorageBackup) { s.toolDirs = []string{} }, []string{"pg_restore"}},
		{"pg_restore is too old", func(s *Settings, _ *engine.StorageBackup) {
			s.toolDirs = []string{script(t, "pg_restore", "echo 'pg_restore (PostgreSQL) 11.2'")}
		}, []string{"is 11.2"}},
		{"older server", func(_ *Settings, r *engine.StorageBackup) {
			r.Record.Extra = map[string]string{"server_version_num": "990000"}
		}, []string{"older server"}},
		{"no dump", func(_ *Settings, r *engine.StorageBackup) { r.Catalog = memcatalog.New(time.Now) }, []string{"not found"}},
		{"another driver's", func(_ *Settings, r *engine.StorageBackup) { r.Record.Artifacts = nil }, []string{"no postgresql_dump"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			settings, r := b.target("never_made"), r
			c.with(&settings, &r)
			wantError(t, NewDestination(settings).Preflight(t.Context(), r), c.texts...)
			var n int
			scan(t, s.DB(t, "postgres", "", ""), &n, "SELECT count(*) FROM pg_database WHERE datname = 'never_made'")
			if n != 0 {
				t.Error("preflight made a database")
			}
		})
	}
}

func clocks(t *testing.T, s *postgres.Server) {
	b := newBed(t, s)
	c, err := NewSource(b.settings).OpenClock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	bound, err := c.MeasureClock(t.Context())
	if err := errors.Join(err, c.Close(), c.Close()); err != nil {
		t.Fatal(err)
	}
	// It is the same machine's clock.
	if bound.Uncertainty <= 0 || bound.Uncertainty > 20*time.Second || bound.Offset.Abs() > bound.Uncertainty {
		t.Errorf("bound %+v does not hold zero", bound)
	}
}
