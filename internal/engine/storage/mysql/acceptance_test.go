//go:build acceptance

package mysql

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/mariadb"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	systemclock "github.com/scalar-labs/terraform-provider-scalardb/internal/engine/clock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/memcatalog"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/relational"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/dump"
)

// The users of the tests have only what the docs ask for.
const (
	backupUser  = "backup"
	restoreUser = "restorer"
	password    = `p@ss"wo'rd\ #;=1`
)

func users(s *mariadb.Server) {
	for _, u := range []string{backupUser, restoreUser} {
		s.Exec("CREATE OR REPLACE USER " + u + "@'127.0.0.1' IDENTIFIED BY '" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(password) + "'")
	}
	s.Exec("GRANT SELECT, SHOW VIEW, TRIGGER, PROCESS, REPLICA MONITOR ON *.* TO "+backupUser+"@'127.0.0.1'",
		"GRANT SELECT, INSERT, CREATE, ALTER, DROP, LOCK TABLES, CREATE VIEW, SHOW VIEW, TRIGGER, CREATE ROUTINE, ALTER ROUTINE ON *.* TO "+restoreUser+"@'127.0.0.1'")
}

// scalarDB makes ScalarDB's tables as its JDBC adapter does, with rows that are hard to dump.
func scalarDB(s *mariadb.Server) {
	for _, db := range []string{"scalardb", "coordinator", "bank", "bank-2"} {
		s.Exec("DROP DATABASE IF EXISTS `"+db+"`", "CREATE DATABASE `"+db+"` CHARACTER SET utf8 COLLATE utf8_bin")
	}
	tx := "`tx_id` text, `tx_state` int, `tx_version` int, `tx_prepared_at` bigint, `tx_committed_at` bigint, `before_tx_id` text, `before_balance` int"
	s.Exec(
		"CREATE TABLE scalardb.metadata (full_table_name varchar(128), column_name varchar(128), data_type varchar(20) NOT NULL, key_type varchar(20), clustering_order varchar(10), indexed boolean NOT NULL, ordinal_position int NOT NULL, PRIMARY KEY (full_table_name, column_name))",
		"CREATE TABLE scalardb.namespaces (namespace_name varchar(128) PRIMARY KEY)",
		"INSERT INTO scalardb.namespaces VALUES ('bank'), ('bank-2'), ('scalardb')",
		"CREATE TABLE coordinator.state (tx_id varchar(128) PRIMARY KEY, tx_state int, tx_created_at bigint)",
		"CREATE TABLE bank.a_filler (id int PRIMARY KEY, pad mediumtext CHARACTER SET utf8mb4, data longblob)",
		"INSERT INTO bank.a_filler SELECT seq, REPEAT(CONCAT(seq, 'x'), 400), NULL FROM bank.seq_1_to_600",
		`INSERT INTO bank.a_filler VALUES (-1, CONCAT('quote '' back \\ nl ', CHAR(10), '-- Current Database: `+"`x`"+`', CHAR(10), '/*!50013 DEFINER=`+"`a`@`b`"+` SQL SECURITY DEFINER */', CHAR(10), CHAR(0), ' 🐬 end'), X'00FF0A0D1A275C')`,
		"CREATE TABLE bank.accounts (id int PRIMARY KEY, balance int, "+tx+")",
		"CREATE TABLE `bank-2`.`z-last` (id varbinary(16) PRIMARY KEY, balance int, "+tx+")",
		"CREATE DEFINER=CURRENT_USER VIEW bank.rich AS SELECT id, balance FROM bank.accounts WHERE balance > 500",
	)
	column := func(table, column, kind, key string, n int) {
		s.Exec(fmt.Sprintf("INSERT INTO scalardb.metadata VALUES ('%s', '%s', '%s', NULLIF('%s', ''), NULL, FALSE, %d)", table, column, kind, key, n))
	}
	for _, t := range []string{"bank.accounts", "bank-2.z-last"} {
		for i, c := range []string{"id", "balance", "tx_id", "tx_state", "tx_version", "tx_prepared_at", "tx_committed_at", "before_tx_id", "before_balance"} {
			key := ""
			if i == 0 {
				key = "PARTITION"
			}
			column(t, c, "INT", key, i+1)
		}
	}
	for i, c := range []string{"tx_id", "tx_state", "tx_created_at"} {
		column("coordinator.state", c, "TEXT", map[bool]string{true: "PARTITION"}[i == 0], i+1)
	}
	column("bank.a_filler", "id", "INT", "PARTITION", 1)
	column("bank.a_filler", "pad", "TEXT", "", 2)
	old := time.Now().Add(-time.Hour).UnixMilli()
	s.Exec(
		fmt.Sprintf("INSERT INTO bank.accounts SELECT seq, 1000, CONCAT('t', seq), 3, 1, %d, %d, NULL, NULL FROM bank.seq_1_to_20", old, old+1),
		fmt.Sprintf("INSERT INTO `bank-2`.`z-last` SELECT CONCAT('k', seq), 1000, CONCAT('u', seq), 3, 1, %d, %d, NULL, NULL FROM bank.seq_1_to_10", old, old+1),
		fmt.Sprintf("INSERT INTO coordinator.state SELECT CONCAT('t', seq), 3, %d FROM bank.seq_1_to_20", old),
	)
}

// commit is one transaction as ScalarDB leaves it.
func commit(s *mariadb.Server) {
	now, id := time.Now().UnixMilli(), rand.Text()
	s.Exec(
		fmt.Sprintf("UPDATE bank.accounts SET balance = balance - 1, tx_id = '%s', tx_state = 1, tx_version = tx_version + 1, tx_prepared_at = %d WHERE id = 1", id, now),
		fmt.Sprintf("INSERT INTO coordinator.state VALUES ('%s', 3, %d)", id, now),
		fmt.Sprintf("UPDATE bank.accounts SET tx_state = 3, tx_committed_at = %d WHERE id = 1", now),
	)
}

// custody remembers what it was told.
type custody struct {
	mu    sync.Mutex
	pids  []int
	files map[string]bool // false: removed
}

func (c *custody) Process(pid int, _ uint64, _ string) func() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pids = append(c.pids, pid)
	return func() {}
}

func (c *custody) SecretFile(path string) func() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.files == nil {
		c.files = map[string]bool{}
	}
	c.files[path] = true
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.files[path] = false
	}
}

// last is the child that was started last.
func (c *custody) last() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pids[len(c.pids)-1]
}

// left fails the test for every secret that is still there.
func (c *custody) left(t *testing.T) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.files) == 0 {
		t.Error("custody was told of no secret file")
	}
	for f, there := range c.files {
		if _, err := os.Stat(f); there || !os.IsNotExist(err) {
			t.Errorf("the secret file %s is left (custody: %v, stat: %v)", f, there, err)
		}
	}
	for _, pid := range c.pids {
		if syscall.Kill(pid, 0) == nil {
			t.Errorf("process %d is left", pid)
		}
	}
}

// bed is one run against one server.
type bed struct {
	server  *mariadb.Server
	catalog *memcatalog.Catalog
	custody *custody
	config  Config
	options Options
	run     engine.Run
	opened  time.Time
}

func newBed(t *testing.T, s *mariadb.Server) *bed {
	t.Helper()
	b := &bed{server: s, catalog: memcatalog.New(time.Now), custody: &custody{}}
	b.config = Config{Host: s.Host, Port: int64(s.Port)}
	b.options = Options{Storage: "my/store", Login: Login{Username: backupUser, Password: password}, Clock: systemclock.System{}, Getenv: os.Getenv}
	b.run = engine.Run{ID: "0123456789abcdef", BackupID: "b", Catalog: b.catalog, Prefix: "backups/b/0123456789abcdef/", Custody: b.custody,
		OpenedAt: func() time.Time { return b.opened }, ServerClockBound: time.Second}
	return b
}

func (b *bed) preflight(t *testing.T) *session {
	t.Helper()
	n, err := NewSource(b.config, b.options).Preflight(t.Context(), b.run)
	if err != nil {
		t.Fatalf("preflight: %v", err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
		b.custody.left(t)
	})
	// Well after what scalarDB wrote, and far enough back for the clock bound not to matter.
	b.opened = time.Now()
	return n.(*session)
}

func (b *bed) capture(t *testing.T) *session {
	t.Helper()
	n := b.preflight(t)
	if err := n.Capture(t.Context()); err != nil {
		t.Fatalf("capturing: %v", err)
	}
	return n
}

func (b *bed) backup(t *testing.T) (engine.StorageRecord, *session) {
	t.Helper()
	n := b.capture(t)
	if err := n.Confirm(t.Context()); err != nil {
		t.Fatalf("confirming: %v", err)
	}
	c, err := n.Await(t.Context())
	if err != nil {
		t.Fatalf("awaiting: %v", err)
	}
	f := n.Facts()
	return engine.StorageRecord{Driver: name, SourceID: f.SourceID, ToolVersions: f.ToolVersions, Witness: f.Witness, Artifacts: c.Artifacts,
		Tables: c.Tables, HasCoordinator: c.HasCoordinator, CoordinatorNewest: c.CoordinatorNewest, Extra: c.Extra}, n
}

func (b *bed) storageBackup(record engine.StorageRecord) engine.StorageBackup {
	return engine.StorageBackup{Storage: "my/store", RunID: "fedcba9876543210", Record: record, Catalog: b.catalog, Custody: b.custody}
}

func (b *bed) destination(t *testing.T, s *mariadb.Server) engine.Destination {
	t.Helper()
	d := NewDestination(Config{Host: s.Host, Port: int64(s.Port)}, Options{Login: Login{Username: restoreUser, Password: password}, Clock: systemclock.System{}, Getenv: os.Getenv})
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// text is the stored dump.
func (b *bed) text(t *testing.T, record engine.StorageRecord) string {
	t.Helper()
	ix, err := dump.ReadIndex(t.Context(), b.catalog, record.Artifacts[0])
	if err != nil {
		t.Fatal(err)
	}
	r, err := dump.Open(t.Context(), b.catalog, ix.Objects[0])
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close() //nolint:errcheck // memory
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func query[T any](t *testing.T, db *sql.DB, q string) (v T) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), q).Scan(&v); err != nil {
		t.Fatalf("%s: %v", q, err)
	}
	return v
}

// content is every row of ScalarDB's tables and views, in one string.
func content(t *testing.T, s *mariadb.Server) string {
	t.Helper()
	db := s.DB()
	var b strings.Builder
	for _, table := range []string{"scalardb.metadata", "scalardb.namespaces", "coordinator.state", "bank.a_filler", "bank.accounts", "bank.rich", "`bank-2`.`z-last`"} {
		rows, err := db.QueryContext(t.Context(), "SELECT * FROM "+table+" ORDER BY 1"+map[bool]string{true: ", 2"}[table == "scalardb.metadata"])
		if err != nil {
			t.Fatalf("reading %s: %v", table, err)
		}
		columns, _ := rows.Columns()
		fmt.Fprintln(&b, table, columns)
		for rows.Next() {
			values := make([]sql.RawBytes, len(columns))
			dest := make([]any, len(columns))
			for i := range values {
				dest[i] = &values[i]
			}
			if err := rows.Scan(dest...); err != nil {
				t.Fatal(err)
			}
			for _, v := range values {
				fmt.Fprintf(&b, "%v %q|", v == nil, v)
			}
			fmt.Fprintln(&b)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

func wantVoid(t *testing.T, err error, words ...string) {
	t.Helper()
	var void *engine.VoidError
	if !errors.As(err, &void) {
		t.Fatalf("the error is %v, want a VoidError", err)
	}
	wantError(t, err, words...)
}

func wantError(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("there is no error")
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error lacks %q: %v", w, err)
		}
	}
	if strings.Contains(err.Error(), password) {
		t.Errorf("the error has the password: %v", err)
	}
}

func TestSource(t *testing.T) {
	s := mariadb.Start(t, mariadb.Options{GeneralLog: true})
	users(s)
	s.Exec("CREATE DATABASE other", "CREATE TABLE other.t (id int PRIMARY KEY AUTO_INCREMENT, v int)")
	test := func(name string, f func(t *testing.T, b *bed)) {
		t.Run(name, func(t *testing.T) {
			scalarDB(s)
			f(t, newBed(t, s))
		})
	}

	test("preflight", func(t *testing.T, b *bed) {
		n := b.preflight(t)
		f := n.Facts()
		if len(f.Warnings) != 1 || !strings.Contains(f.Warnings[0], "not encrypted") {
			t.Errorf("warnings: %q", f.Warnings)
		}
		if f.SourceID == "" || f.ToolVersions["server"] == "" || f.ToolVersions["mariadb-dump"] == "" || len(f.Planned) != 1 || f.NeedsInstant {
			t.Errorf("facts: %+v", f)
		}
		if names := n.names(); !slices.Equal(names, []string{"scalardb", "bank", "bank-2", "coordinator"}) {
			t.Errorf("namespaces: %q", names)
		}
		bound, err := n.MeasureClock(t.Context())
		if err != nil || bound.Offset.Abs() > bound.Uncertainty+5*time.Millisecond || bound.Uncertainty > 10*time.Second {
			t.Errorf("clock of this very machine: %+v, %v", bound, err)
		}
		// What everybody on the machine can read has no password.
		for _, a := range n.args {
			if strings.Contains(a, password) {
				t.Errorf("the password is on the command line: %q", a)
			}
		}
	})

	// The header comes before the snapshot, the proof after it: by the server's own log, and by what the dump holds.
	test("the proof follows the snapshot", func(t *testing.T, b *bed) {
		n := b.preflight(t)
		mark := rand.Text()
		s.Exec("SELECT '" + mark + "'")
		for _, q := range []string{"UPDATE bank.accounts SET balance = 1 WHERE id = 20"} {
			s.Exec(q)
		}
		if err := n.Capture(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.Exec("UPDATE bank.accounts SET balance = 424242 WHERE id = 20", "DELETE FROM `bank-2`.`z-last`")
		log, err := os.ReadFile(s.GeneralLog)
		if err != nil {
			t.Fatal(err)
		}
		_, after, _ := strings.Cut(string(log), mark)
		begin := strings.Index(after, "START TRANSACTION /*!40100 WITH CONSISTENT SNAPSHOT */")
		first := strings.Index(after, "SHOW CREATE DATABASE IF NOT EXISTS `scalardb`")
		if begin < 0 || first < begin {
			t.Errorf("when the proof had come, the server had not both begun the snapshot (%d) and, later, been asked for the first database (%d)", begin, first)
		}
		<-n.ended
		if n.err != nil {
			t.Fatal(n.err)
		}
		stored, err := n.object.Commit(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		r, err := dump.Open(t.Context(), b.catalog, stored)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(text, []byte("424242")) || bytes.Count(text, []byte("\n(0x6B")) != 10 {
			t.Error("the dump holds what was written after the capture")
		}
	})

	test("writer in the window", func(t *testing.T, b *bed) {
		n := b.capture(t)
		commit(s)
		if err := n.Confirm(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, err := n.Await(t.Context())
		wantVoid(t, err, "written in the pause window", "not among the targets")
		if err := n.Discard(t.Context()); err != nil {
			t.Error(err)
		}
		if names := b.catalog.Names(); len(names) != 0 {
			t.Errorf("left in the catalog: %q", names)
		}
	})

	// Its row operations are over when the window opens: InnoDB's row counters do not move, its transaction counter does.
	test("a transaction that only commits in the window", func(t *testing.T, b *bed) {
		conn, err := s.DB().Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		n := b.preflight(t)
		for _, q := range []string{"BEGIN", "INSERT INTO coordinator.state VALUES ('late', 3, 1)"} {
			if _, err := conn.ExecContext(t.Context(), q); err != nil {
				t.Fatal(err)
			}
		}
		if err := n.Capture(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.ExecContext(t.Context(), "COMMIT"); err != nil {
			t.Fatal(err)
		}
		if err := n.Confirm(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, err = n.Await(t.Context())
		wantVoid(t, err, "coordinator")
	})

	test("a write between the opening and the capture", func(t *testing.T, b *bed) {
		n := b.preflight(t)
		commit(s)
		b.opened = time.Now().Add(-time.Minute) // long before the commit
		if err := n.Capture(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := n.Confirm(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, err := n.Await(t.Context())
		wantVoid(t, err, "coordinator", "opened")
	})

	test("nothing moves the counter", func(t *testing.T, b *bed) {
		_, n := b.backup(t)
		if n.moved {
			t.Error("InnoDB's transaction counter moved although nobody wrote")
		}
	})

	test("unrelated writes", func(t *testing.T, b *bed) {
		n := b.capture(t)
		s.Exec("INSERT INTO other.t (v) SELECT seq FROM bank.seq_1_to_1000", "CREATE TABLE other.made (i int)", "TRUNCATE other.made", "DROP TABLE other.made")
		if err := n.Confirm(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !n.moved {
			t.Error("the counter did not move: the test shows nothing")
		}
		if _, err := n.Await(t.Context()); err != nil {
			t.Fatalf("writes to another database void the window: %v", err)
		}
	})

	test("DDL in the window", func(t *testing.T, b *bed) {
		n := b.capture(t)
		s.Exec("CREATE TABLE bank.surprise (i int)")
		wantVoid(t, n.Confirm(t.Context()), "schema changed")
	})

	// The dump may end of it before the window does: still the window's fault, and not the dump's.
	test("DDL in the window that ends the dump", func(t *testing.T, b *bed) {
		held := make(chan struct{})
		b.catalog.Fail = func(op, _ string) error {
			if op == "writer" {
				<-held
			}
			return nil
		}
		n := b.capture(t)
		s.Exec("TRUNCATE `bank-2`.`z-last`")
		close(held)
		<-n.ended
		if n.err == nil {
			t.Error("the dump did not end of it: the test shows nothing")
		}
		wantVoid(t, n.Confirm(t.Context()), "schema changed")
	})

	// What the dump itself would not always notice. All within the second in which the tables were made: CREATE_TIME alone would not do.
	test("fingerprint", func(t *testing.T, b *bed) {
		s.Exec("CREATE TABLE bank.parts (i int PRIMARY KEY) PARTITION BY HASH (i) PARTITIONS 3")
		n := b.preflight(t)
		last := n.schema
		for _, ddl := range []string{
			"TRUNCATE `bank-2`.`z-last`", "TRUNCATE bank.accounts", "ALTER TABLE bank.parts TRUNCATE PARTITION p1", "ALTER TABLE bank.accounts ADD COLUMN x int", "ALTER TABLE bank.accounts FORCE",
			"ALTER TABLE bank.accounts MODIFY COLUMN x bigint", "CREATE OR REPLACE VIEW bank.rich AS SELECT id, balance FROM bank.accounts", "RENAME TABLE bank.parts TO bank.pieces", "DROP TABLE bank.pieces",
		} {
			s.Exec(ddl)
			now, err := n.fingerprint(t.Context())
			if err != nil || now == last {
				t.Errorf("%s does not show (%v)", ddl, err)
			}
			last = now
		}
		commit(s)
		s.Exec("INSERT INTO bank.a_filler SELECT seq + 5000, 'x', NULL FROM bank.seq_1_to_1000", "ANALYZE TABLE bank.a_filler")
		if now, err := n.fingerprint(t.Context()); err != nil || now != last {
			t.Errorf("rows change the fingerprint (%v)", err)
		}
	})

	// The dump is held back at the first of its tables until the DDL is done.
	for name, ddl := range map[string][]string{
		"TRUNCATE":      {"TRUNCATE `bank-2`.`z-last`"},
		"DROP":          {"DROP TABLE `bank-2`.`z-last`"},
		"re-creation":   {"CREATE TABLE `bank-2`.x LIKE `bank-2`.`z-last`", "DROP TABLE `bank-2`.`z-last`", "RENAME TABLE `bank-2`.x TO `bank-2`.`z-last`"},
		"ADD COLUMN":    {"ALTER TABLE `bank-2`.`z-last` ADD COLUMN extra int"},
		"view":          {"CREATE OR REPLACE VIEW bank.rich AS SELECT id, balance FROM bank.accounts WHERE balance > 600"},
		"DROP DATABASE": {"DROP DATABASE `bank-2`"},
		"new namespace": {"INSERT INTO scalardb.metadata VALUES ('new.t', 'id', 'INT', 'PARTITION', NULL, FALSE, 1)"},
	} {
		test("DDL after the window/"+name, func(t *testing.T, b *bed) {
			done := make(chan struct{})
			b.catalog.Fail = func(op, _ string) error {
				if op == "writer" {
					<-done
				}
				return nil
			}
			n := b.capture(t)
			if err := n.Confirm(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.Exec(ddl...)
			close(done)
			_, err := n.Await(t.Context())
			if err == nil {
				t.Fatal("the backup succeeded")
			}
			wantError(t, err, "schema changed while the dump ran")
			if err := n.Discard(t.Context()); err != nil {
				t.Error(err)
			}
			if names := b.catalog.Names(); len(names) != 0 {
				t.Errorf("left in the catalog: %q", names)
			}
		})
	}

	// The same once the witness has looked at every table: only the comparison of the schema is left to notice.
	for name, ddl := range map[string][]string{
		"DROP":        {"DROP TABLE `bank-2`.`z-last`"},
		"TRUNCATE":    {"TRUNCATE `bank-2`.`z-last`"},
		"ADD COLUMN":  {"ALTER TABLE `bank-2`.`z-last` ADD COLUMN extra int"},
		"after dump":  nil, // control: nothing happens, and the backup is good
		"other place": {"CREATE TABLE other.x (i int)", "DROP TABLE other.x"},
	} {
		test("DDL after the look/"+name, func(t *testing.T, b *bed) {
			done := make(chan struct{})
			b.catalog.Fail = func(op, _ string) error {
				if op == "writer" {
					<-done
				}
				return nil
			}
			n := b.capture(t)
			if err := n.Confirm(t.Context()); err != nil {
				t.Fatal(err)
			}
			result := make(chan error, 1)
			go func() {
				_, err := n.Await(t.Context())
				result <- err
			}()
			db := s.DB()
			// Of three snapshots (the dump's, two of the witness) one is left. InnoDB refreshes this list only when nobody asked for 100 ms.
			for deadline := time.Now().Add(time.Minute); query[int](t, db, "SELECT COUNT(*) FROM information_schema.INNODB_TRX") != 1; time.Sleep(150 * time.Millisecond) {
				if time.Now().After(deadline) {
					close(done)
					t.Fatal("the witness does not end its look")
				}
			}
			s.Exec(ddl...)
			close(done)
			err := <-result
			if err != nil {
				wantError(t, err, "schema changed while the dump ran")
			}
			if want := strings.Contains(strings.Join(ddl, ""), "bank"); (err != nil) != want {
				t.Errorf("the backup fails: %v, want %v", err != nil, want)
			}
		})
	}

	test("killed dump", func(t *testing.T, b *bed) {
		held := make(chan struct{})
		b.catalog.Fail = func(op, _ string) error {
			if op == "writer" {
				<-held
			}
			return nil
		}
		n := b.capture(t)
		if err := syscall.Kill(b.custody.last(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		close(held)
		if err := n.Confirm(t.Context()); err != nil {
			wantError(t, err, "mariadb-dump", "killed")
		}
		_, err := n.Await(t.Context())
		wantError(t, err, "mariadb-dump", "killed")
		if err := errors.Join(n.Discard(t.Context()), n.Discard(t.Context())); err != nil {
			t.Error(err)
		}
		if names := b.catalog.Names(); len(names) != 0 {
			t.Errorf("left in the catalog: %q", names)
		}
	})

	test("full catalog", func(t *testing.T, b *bed) {
		b.catalog.Fail = func(op, _ string) error {
			if op == "write" || op == "commit" {
				return fmt.Errorf("writing: %w", syscall.ENOSPC)
			}
			return nil
		}
		n := b.capture(t)
		if err := n.Confirm(t.Context()); err != nil && !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		_, err := n.Await(t.Context())
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("the error is %v", err)
		}
		if err := n.Discard(t.Context()); err != nil {
			t.Error(err)
		}
	})

	test("cancelled", func(t *testing.T, b *bed) {
		n := b.preflight(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := n.Capture(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("the error is %v", err)
		}
		if err := n.Discard(t.Context()); err != nil {
			t.Error(err)
		}
	})

	test("cancelled while awaiting", func(t *testing.T, b *bed) {
		ctx, cancel := context.WithCancel(t.Context())
		b.catalog.Fail = func(op, _ string) error {
			if op == "writer" {
				<-ctx.Done()
			}
			return nil
		}
		n := b.capture(t)
		if err := n.Confirm(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(10*time.Millisecond, cancel)
		if _, err := n.Await(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("the error is %v", err)
		}
	})

	refused := func(name string, change func(b *bed), words ...string) {
		test("refused/"+name, func(t *testing.T, b *bed) {
			change(b)
			_, err := NewSource(b.config, b.options).Preflight(t.Context(), b.run)
			wantError(t, err, words...)
			if names := b.catalog.Names(); len(names) != 0 {
				t.Errorf("written to the catalog: %q", names)
			}
		})
	}
	refused("wrong password", func(b *bed) { b.options.Login.Password = "wrong" }, "1045", "credentials")
	refused("no user", func(b *bed) { b.options.Login = Login{} }, "MYSQL_USER")
	refused("default catalog", func(b *bed) { b.options.CatalogIsDefault = true }, "catalog")
	refused("no tool", func(b *bed) {
		empty := t.TempDir()
		b.options.Getenv = func(string) string { return empty }
	}, "mariadb-dump", "mariadb-client", "10.11")
	refused("two things at once", func(b *bed) {
		b.options.Getenv = func(string) string { return "" }
		s.Exec("CREATE TABLE bank.old (i int) ENGINE=MyISAM")
	}, "PATH", "bank.old (MyISAM)")
	refused("other engines", func(*bed) {
		s.Exec("CREATE TABLE bank.old (i int) ENGINE=MyISAM", "CREATE TABLE coordinator.older (i int) ENGINE=Aria")
	}, "bank.old (MyISAM)", "coordinator.older (Aria)", "ENGINE=InnoDB")
	refused("missing table", func(*bed) { s.Exec("DROP VIEW bank.rich", "DROP TABLE bank.accounts") }, "bank.accounts")
	refused("broken view", func(*bed) {
		s.Exec("DROP TABLE `bank-2`.`z-last`", "CREATE VIEW `bank-2`.`z-last` AS SELECT * FROM bank.a_filler", "DROP TABLE bank.a_filler")
	}, "z-last")
	refused("no ScalarDB", func(b *bed) { b.config.Layout = relational.Layout{MetadataNamespace: "other"} }, "metadata_namespace")
	refused("no PROCESS", func(b *bed) {
		s.Exec("CREATE OR REPLACE USER weak@'127.0.0.1' IDENTIFIED BY 'weak'", "GRANT SELECT, SHOW VIEW ON *.* TO weak@'127.0.0.1'")
		b.options.Login = Login{Username: "weak", Password: "weak"}
	}, "PROCESS")
	refused("no SELECT", func(b *bed) {
		s.Exec("CREATE OR REPLACE USER weak@'127.0.0.1' IDENTIFIED BY 'weak'", "GRANT PROCESS ON *.* TO weak@'127.0.0.1'", "GRANT SELECT ON scalardb.* TO weak@'127.0.0.1'")
		b.options.Login = Login{Username: "weak", Password: "weak"}
	}, "bank.accounts", "coordinator.state")
	refused("TLS that the server does not have", func(b *bed) { b.config.TLS = tlsRequired }, "TLS")
	refused("read-only", func(b *bed) {
		s.Exec("SET GLOBAL read_only = 1")
		t.Cleanup(func() { s.Exec("SET GLOBAL read_only = 0") })
	}, "read-only", "primary")
	s.Exec("SET GLOBAL read_only = 0")
	refused("replica", func(*bed) { s.Exec("CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = 1, MASTER_USER = 'x'") }, "replicates", "primary")
	s.Exec("RESET SLAVE ALL")
}

// What a dump is for: the same rows, in a server that did not have them.
func TestRestore(t *testing.T) {
	from, to := mariadb.Start(t, mariadb.Options{}), mariadb.Start(t, mariadb.Options{Args: []string{"--log-bin=bin"}})
	users(from)
	users(to)
	scalarDB(from)
	b := newBed(t, from)
	record, source := b.backup(t)
	if err := source.Close(); err != nil {
		t.Fatal(err)
	}
	want := content(t, from)
	if text := b.text(t, record); strings.Contains(text, password) || !strings.Contains(text, "-- Dump completed") {
		t.Error("the dump has the password, or no end")
	}
	for _, w := range record.Tables {
		if n := query[int64](t, from.DB(), "SELECT COUNT(*) FROM "+Dialect{}.Table(w.Namespace, w.Table)); w.Rows != n || w.Estimated {
			t.Errorf("the witness of %s.%s is %+v, the table has %d rows", w.Namespace, w.Table, w, n)
		}
	}
	if len(record.Tables) != 3 || !record.HasCoordinator || record.CoordinatorNewest == 0 {
		t.Errorf("the record is %+v", record)
	}
	keeper := dump.Keeper{Catalog: b.catalog}
	if err := keeper.Inspect(t.Context(), record.Artifacts[0]); err != nil {
		t.Error(err)
	}
	databases := func() (out []string) {
		out, err := readStrings(t.Context(), to.DB(), "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME IN ('scalardb', 'coordinator', 'bank', 'bank-2') ORDER BY 1")
		if err != nil {
			t.Fatal(err)
		}
		return out
	}

	t.Run("refuses what is not empty", func(t *testing.T) {
		to.Exec("CREATE DATABASE bank", "CREATE TABLE bank.somebodys (i int)")
		d := b.destination(t, to)
		wantError(t, d.Preflight(t.Context(), b.storageBackup(record)), "not empty", "bank")
		r, err := d.Restore(t.Context(), b.storageBackup(record))
		wantError(t, err, "not empty")
		if len(r.Objects) != 0 || !slices.Equal(databases(), []string{"bank"}) {
			t.Errorf("something was made: %+v, %q", r, databases())
		}
		to.Exec("DROP DATABASE bank")
	})

	t.Run("refuses a damaged dump before it makes anything", func(t *testing.T) {
		ix, err := dump.ReadIndex(t.Context(), b.catalog, record.Artifacts[0])
		if err != nil {
			t.Fatal(err)
		}
		name := ix.Objects[0].Name
		good := b.catalog.Peek(name)
		bad := bytes.Clone(good)
		bad[len(bad)/2] ^= 1
		put := func(data []byte) {
			if err := errors.Join(b.catalog.Delete(t.Context(), name), b.catalog.Create(t.Context(), name, data)); err != nil {
				t.Fatal(err)
			}
		}
		put(bad)
		defer put(good)
		d := b.destination(t, to)
		r, err := d.Restore(t.Context(), b.storageBackup(record))
		if !errors.Is(err, dump.ErrDamaged) || len(r.Objects) != 0 || len(databases()) != 0 {
			t.Errorf("made %+v of a damaged dump, %q, %v", r, databases(), err)
		}
	})

	t.Run("refuses another kind of server", func(t *testing.T) {
		other := record
		other.Extra = map[string]string{extraNamespaces: record.Extra[extraNamespaces], extraFlavour: "MySQL", extraVersion: "8.0.36", extraLowerCase: "1"}
		wantError(t, b.destination(t, to).Preflight(t.Context(), b.storageBackup(other)), "MySQL server", "lower_case_table_names")
		other.Extra = map[string]string{extraNamespaces: record.Extra[extraNamespaces], extraFlavour: "MariaDB", extraVersion: "12.3.1", extraLowerCase: "0"}
		wantError(t, b.destination(t, to).Preflight(t.Context(), b.storageBackup(other)), "older")
	})

	t.Run("the same rows", func(t *testing.T) {
		to.Exec("CREATE DATABASE bank") // empty: filled, but not ours
		d := b.destination(t, to)
		if err := d.Preflight(t.Context(), b.storageBackup(record)); err != nil {
			t.Fatal(err)
		}
		r, err := d.Restore(t.Context(), b.storageBackup(record))
		if err != nil {
			t.Fatal(err)
		}
		if got := content(t, to); got != want {
			t.Errorf("the restored rows differ:\n%.2000s\nwant\n%.2000s", got, want)
		}
		if got := query[string](t, to.DB(), "SELECT DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = 'bank-2'"); !strings.HasSuffix(got, "utf8mb3_bin") && got != "utf8_bin" {
			t.Errorf("the collation of bank-2 is %s", got)
		}
		if got := query[string](t, to.DB(), "SELECT DEFINER FROM information_schema.VIEWS WHERE TABLE_SCHEMA = 'bank'"); got != restoreUser+"@127.0.0.1" {
			t.Errorf("the view belongs to %s, who may not exist", got)
		}
		if err := d.Inspect(t.Context(), r); err != nil {
			t.Error(err)
		}
		b.custody.left(t)
		if p := r.Properties; p["storage"] != "jdbc" || p["contact_points"] != "jdbc:mysql://"+to.Address()+"/" {
			t.Errorf("properties: %q", p)
		}

		reader, err := NewReader(t.Context(), Config{Host: to.Host, Port: int64(to.Port)}, Options{Login: Login{Username: restoreUser, Password: password}})
		if err != nil {
			t.Fatal(err)
		}
		defer reader.Close() //nolint:errcheck // nothing to lose
		present, missing, err := reader.Tables(t.Context())
		if err != nil || len(present) != 3 || len(missing) != 0 {
			t.Errorf("the reader sees %v, misses %v, %v", present, missing, err)
		}

		// Somebody replaces one database; destroy must leave it, and the one that was there before.
		to.Exec("DROP DATABASE coordinator", "CREATE DATABASE coordinator", "CREATE TABLE coordinator.precious (i int)")
		if err := d.Inspect(t.Context(), r); !errors.Is(err, engine.ErrNotFound) {
			t.Errorf("inspecting a replaced database: %v", err)
		}
		wantError(t, d.Delete(t.Context(), r), "coordinator", "left as it is")
		if got := databases(); !slices.Equal(got, []string{"bank", "coordinator"}) {
			t.Errorf("after destroy there are %q", got)
		}
		to.Exec("DROP DATABASE coordinator", "DROP DATABASE bank")
		if err := d.Delete(t.Context(), r); err != nil {
			t.Errorf("deleting again: %v", err)
		}
	})

	t.Run("a failure says what exists", func(t *testing.T) {
		to.Exec("CREATE DATABASE other", "REVOKE CREATE VIEW ON *.* FROM "+restoreUser+"@'127.0.0.1'")
		defer to.Exec("GRANT CREATE VIEW ON *.* TO " + restoreUser + "@'127.0.0.1'")
		d := b.destination(t, to)
		r, err := d.Restore(t.Context(), b.storageBackup(record))
		wantError(t, err, "mariadb")
		if len(r.Objects) != 4 {
			t.Fatalf("the record of a failed restore is %+v", r)
		}
		if err := d.Delete(t.Context(), r); err != nil || len(databases()) != 0 {
			t.Errorf("cleaning up: %v, left %q", err, databases())
		}
	})

	t.Run("without the right to mark", func(t *testing.T) {
		to.Exec("REVOKE CREATE ROUTINE ON *.* FROM " + restoreUser + "@'127.0.0.1'")
		defer to.Exec("GRANT CREATE ROUTINE ON *.* TO " + restoreUser + "@'127.0.0.1'")
		_, err := b.destination(t, to).Restore(t.Context(), b.storageBackup(record))
		wantError(t, err, "CREATE ROUTINE")
		if got := databases(); len(got) != 0 {
			t.Errorf("left %q", got)
		}
	})
}

// The tool writes its header before its snapshot and the proof after it, and we tell them apart: a relay holds its START TRANSACTION back.
// The tool's output is unbuffered here, so that the header arrives by itself.
func TestTheProofIsNotTheHeader(t *testing.T) {
	stdbuf, err := exec.LookPath("stdbuf")
	if err != nil {
		t.Fatalf("stdbuf (Debian's package coreutils) is needed: %v", err)
	}
	s := mariadb.Start(t, mariadb.Options{})
	users(s)
	scalarDB(s)
	b := newBed(t, s)
	n := b.preflight(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	asked, release := make(chan struct{}), make(chan struct{})
	go func() {
		client, err := l.Accept()
		if err != nil {
			return
		}
		defer client.Close() //nolint:errcheck // test
		upstream, err := net.Dial("tcp", s.Address())
		if err != nil {
			return
		}
		defer upstream.Close() //nolint:errcheck // test
		go func() { _, _ = io.Copy(client, upstream) }()
		for packet := make([]byte, 1<<16); ; {
			size, err := client.Read(packet)
			if err != nil {
				return
			}
			if bytes.Contains(packet[:size], []byte("START TRANSACTION")) {
				close(asked)
				<-release
			}
			if _, err := upstream.Write(packet[:size]); err != nil {
				return
			}
		}
	}()
	config := n.config
	config.Port = int64(l.Addr().(*net.TCPAddr).Port)
	out := newCut(func() (io.Writer, error) { return io.Discard, nil })
	written := &tee{to: out}
	args := dumpArgs(n.tool.product, n.file(), config, n.options.Login, n.names())
	p, err := dump.StartChild(t.Context(), dump.Child{Path: stdbuf, Args: append([]string{"-o0", n.tool.path}, args...), Env: toolEnv(), Name: "mariadb-dump", Stdout: written})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-asked:
	case <-time.After(2 * time.Minute):
		t.Fatal("the tool asks for no snapshot")
	}
	for deadline := time.Now().Add(time.Minute); !strings.Contains(written.String(), "SQL_NOTES=0"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the header has not come: %q", written.String())
		}
	}
	select {
	case <-out.proved:
		t.Errorf("proved before there was a snapshot, by %q", written.String())
	default:
	}
	close(release)
	if err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	<-out.proved
}

// tee remembers what passes.
type tee struct {
	mu sync.Mutex
	b  strings.Builder
	to io.Writer
}

func (t *tee) Write(p []byte) (int, error) {
	t.mu.Lock()
	t.b.Write(p)
	t.mu.Unlock()
	return t.to.Write(p)
}

func (t *tee) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}

// file is the option file of the session's tool.
func (n *session) file() string { return strings.TrimPrefix(n.args[0], "--defaults-file=") }

// Why no lock is held on the tables until the dump is done: DDL waits for it, the dump waits for the DDL, and we for the dump.
func TestLocksWouldHangTheDump(t *testing.T) {
	s := mariadb.Start(t, mariadb.Options{})
	s.Exec("CREATE DATABASE x", "CREATE TABLE x.t (i int PRIMARY KEY)")
	db := s.DB()
	conn := func() *sql.Conn {
		c, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	holder, ddl, reader := conn(), conn(), conn()
	do := func(c *sql.Conn, q string) error { _, err := c.ExecContext(t.Context(), q); return err }
	if err := errors.Join(do(holder, "START TRANSACTION WITH CONSISTENT SNAPSHOT"), do(holder, "SELECT * FROM x.t LIMIT 0"),
		do(reader, "SET lock_wait_timeout = 1"), do(ddl, "SET lock_wait_timeout = 30")); err != nil {
		t.Fatal(err)
	}
	altered := make(chan error, 1)
	go func() { altered <- do(ddl, "TRUNCATE x.t") }()
	waiting := func() bool {
		return query[int](t, db, "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE STATE LIKE 'Waiting for table metadata lock'") > 0
	}
	for deadline := time.Now().Add(time.Minute); !waiting(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the DDL does not wait for the lock")
		}
	}
	if err := do(reader, "SELECT * FROM x.t"); !isMySQL(err, 1205) {
		t.Errorf("a reader behind the waiting DDL got %v: a lock might be held after all", err)
	}
	// A snapshot that gives its locks back, as ours do, stops nobody.
	if err := do(holder, "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if err := <-altered; err != nil {
		t.Fatal(err)
	}
	if err := openSnapshot(t.Context(), holder); err != nil {
		t.Fatal(err)
	}
	snap := snapshot{holder}
	var n int
	if err := snap.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM x.t").Scan(&n); err != nil {
		t.Fatal(err)
	}
	if err := snap.forget(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(do(ddl, "SET lock_wait_timeout = 1"), do(ddl, "TRUNCATE x.t")); err != nil {
		t.Errorf("DDL behind a snapshot that gave its locks back: %v", err)
	}
}

// The pause does not grow with the data.
func TestPauseTime(t *testing.T) {
	s := mariadb.Start(t, mariadb.Options{})
	users(s)
	scalarDB(s)
	measure := func(what string) time.Duration {
		best := time.Hour
		for range 5 {
			b := newBed(t, s)
			n := b.preflight(t)
			begin := time.Now()
			if err := n.Capture(t.Context()); err != nil {
				t.Fatal(err)
			}
			captured := time.Since(begin)
			if err := n.Confirm(t.Context()); err != nil {
				t.Fatal(err)
			}
			confirmed := time.Since(begin) - captured
			if _, err := n.Await(t.Context()); err != nil {
				t.Fatal(err)
			}
			t.Logf("%s: capture %s, confirm %s, await %s", what, captured, confirmed, time.Since(begin)-captured-confirmed)
			best = min(best, captured+confirmed)
		}
		return best
	}
	small := measure("0.5 MB")
	s.Exec("INSERT INTO bank.a_filler SELECT seq + 10000, REPEAT(MD5(seq), 300), NULL FROM bank.seq_1_to_10000")
	large := measure("100 MB")
	if large > 10*small+100*time.Millisecond {
		t.Errorf("the pause takes %s with 100 MB and %s with 0.5 MB", large, small)
	}
}

// Every mode of tls, for our own connections and for both tools.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	ca := certificates(t, dir)
	from := mariadb.Start(t, mariadb.Options{Args: []string{"--ssl-ca=" + dir + "/ca.pem", "--ssl-cert=" + dir + "/server.pem", "--ssl-key=" + dir + "/server-key.pem"}})
	users(from)
	scalarDB(from)
	from.Exec("ALTER USER "+backupUser+"@'127.0.0.1' REQUIRE SSL", "CREATE USER strict@'127.0.0.1' IDENTIFIED BY 'strict' REQUIRE X509", "GRANT SELECT, SHOW VIEW, TRIGGER, PROCESS, REPLICA MONITOR ON *.* TO strict@'127.0.0.1'")
	read := func(name string) string {
		data, err := os.ReadFile(dir + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	for _, c := range []struct {
		name, mode string
		login      Login
		fails      string
	}{
		{name: "preferred is encrypted"},
		{name: "required", mode: tlsRequired},
		{name: "required, another CA is not looked at", mode: tlsRequired, login: Login{CAPEM: certificates(t, t.TempDir())}},
		{name: "a CA is verified by default", login: Login{CAPEM: ca}},
		{name: "client certificate", mode: tlsVerify, login: Login{Username: "strict", Password: "strict", CAPEM: ca, CertPEM: read("client.pem"), KeyPEM: read("client-key.pem")}},
		{name: "no client certificate", mode: tlsVerify, login: Login{Username: "strict", Password: "strict", CAPEM: ca}, fails: "1045"},
		{name: "disabled", mode: tlsDisabled, fails: "1045"},
		{name: "another CA", mode: tlsVerify, login: Login{CAPEM: certificates(t, t.TempDir())}, fails: "certificate"},
		{name: "no CA", mode: tlsVerify, fails: "ca_pem"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBed(t, from)
			b.config.TLS = c.mode
			if c.login.Username == "" {
				c.login.Username, c.login.Password = backupUser, password
			}
			b.options.Login = c.login
			n, err := NewSource(b.config, b.options).Preflight(t.Context(), b.run)
			if c.fails != "" {
				wantError(t, err, c.fails)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer n.Close() //nolint:errcheck // nothing to lose
			if !n.(*session).server.encrypted {
				t.Error("the connection is not encrypted")
			}
			n.Close() //nolint:errcheck,gosec // nothing to lose
			b.custody.left(t)
		})
	}
	// The tool by itself: the driver's refusal must not be the only one.
	b := newBed(t, from)
	n := b.preflight(t)
	for _, c := range []struct {
		name, ca, host string
		fails          bool
	}{{"good", ca, "127.0.0.1", false}, {"another CA", certificates(t, t.TempDir()), "127.0.0.1", true}, {"another host's certificate", ca, "localhost", true}} {
		l := Login{Username: backupUser, Password: password, CAPEM: c.ca}
		config := n.config
		config.Host = c.host
		file, remove, err := secrets(b.custody, config, l, n.tool.product, n.server)
		if err != nil {
			t.Fatal(err)
		}
		p, err := dump.StartChild(t.Context(), n.child(dumpArgs(n.tool.product, file, config, l, []string{"bank"}), io.Discard))
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Wait(); (err != nil) != c.fails {
			t.Errorf("%s: the dump says %v", c.name, err)
		}
		remove()
	}
}

// certificates makes a CA, and a server's and a client's certificate by it, in dir.
func certificates(t *testing.T, dir string) (caPEM string) {
	t.Helper()
	serial := int64(0)
	issue := func(file string, template, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		serial++
		template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(serial), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		template.Subject = pkix.Name{CommonName: file}
		if parent == nil {
			parent, parentKey = template, key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
		if err != nil {
			t.Fatal(err)
		}
		keyDER, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		for name, block := range map[string]*pem.Block{file + ".pem": {Type: "CERTIFICATE", Bytes: der}, file + "-key.pem": {Type: "PRIVATE KEY", Bytes: keyDER}} {
			if err := os.WriteFile(dir+"/"+name, pem.EncodeToMemory(block), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert, key
	}
	ca, key := issue("ca", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, nil)
	issue("server", &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}, ca, key)
	issue("client", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, ca, key)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw}))
}
