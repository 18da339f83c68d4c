//go:build acceptance

// Package realserver runs the provider, under real cores, against the real Scalar DB server over real databases, while a bank writes through it.
package realserver

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/faultrun"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/cores"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/mariadb"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/postgres"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/scalardb"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/admin/adminpb"
)

// release is the provider's version under test; faultrun.Version is the next one, with fault injection.
const release = "1.0.0"

// limit of what is waited for: a Java client that was refused for some seconds backs off for as long again.
const limit = 2 * time.Minute

// TestRealServer has one server for each kind of databases, and all topics that concern it one after the other: a test finds the server
// unpaused and its writers busy, and leaves it so.
func TestRealServer(t *testing.T) {
	mirror := cores.NewMirror(t)
	faultrun.AddTo(t, mirror)
	type topic struct {
		name string
		run  func(*testing.T, *bed)
	}
	for _, system := range []struct {
		name   string
		start  func(*testing.T) *bed
		whole  func(testing.TB) cores.Core
		topics []topic
	}{
		{"sqlite", startSQLite, cores.Oldest, []topic{
			{"BackupAndRestore", testBackupAndRestore}, {"ForeignWriter", testForeignWriter}, {"Upgrade", testUpgrade},
			{"OpenTransaction", testOpenTransaction}, {"UnpauseCommand", testUnpauseCommand}, {"Faults", testFaults}, {"RestartInWindow", testRestartInWindow},
		}},
		{"postgresql", startPostgreSQL, cores.Newest, []topic{{"BackupAndRestore", testBackupAndRestore}, {"ForeignWriter", testForeignWriter}, {"PauseWindow", testPauseWindow}}},
		{"mariadb", startMariaDB, cores.OpenTofu, []topic{{"BackupAndRestore", testBackupAndRestore}, {"ForeignWriter", testForeignWriter}}},
		{"multi-storage", startMulti, cores.Newest, []topic{{"BackupAndRestore", testBackupAndRestore}, {"Bank", testBank}, {"BankWithoutPause", testBankWithoutPause}}},
	} {
		t.Run(system.name, func(t *testing.T) {
			b := system.start(t)
			b.owner, b.mirror, b.whole = t, mirror, system.whole(t)
			b.admin = b.Admin(t)
			b.Bank.StartWriters(t, 4)
			for _, topic := range system.topics {
				t.Run(topic.name, func(t *testing.T) {
					b.Bank.WaitForCommits(t, 20, limit)
					topic.run(t, b)
					b.wellAgain(t)
				})
			}
			b.Bank.Stop(t)
			if rows, sum := b.Bank.Sum(t); rows != b.Config.Rows() || sum != b.Config.Total() {
				t.Errorf("the live bank has %d rows with a sum of %d, want %d and %d", rows, sum, b.Config.Rows(), b.Config.Total())
			}
			t.Logf("the bank: %+v", b.Bank.Stats(t))
		})
	}
}

// bed is one system.
type bed struct {
	*scalardb.System
	owner  testing.TB // the test that the server lives as long as
	mirror *cores.Mirror
	whole  cores.Core // that the whole life of a backup is tested with; the others do without imports and changes
	admin  adminpb.AdminClient
	stores []store

	// Of the multi-storage bed: the file of orders, and where events is.
	file     string
	postgres *postgres.Server
	database string
}

// store is one storage of the system, as a configuration names it.
type store struct {
	name, driver string
	source       string                                        // the arguments of the driver object
	jobs         bool                                          // it has an argument jobs
	clone        func(label string) string                     // those of a new database
	logins       map[string]login                              // by key of the provider's credentials
	cloneLogin   string                                        // the key that the clone's are under; empty: none
	exists       func(t *testing.T, label string) (found bool) // whether the clone is there
}

type login struct{ username, password string }

func startSQLite(t *testing.T) *bed {
	s, file := sqliteStore(t, "main")
	return &bed{System: scalardb.Start(t, scalardb.Config{Storages: []scalardb.Storage{scalardb.SQLite(s.name, file)}}), stores: []store{s}}
}

func startPostgreSQL(t *testing.T) *bed {
	server := postgres.Start(t, postgres.Options{})
	database := server.CreateDatabase(t)
	return &bed{
		System: scalardb.Start(t, scalardb.Config{Storages: []scalardb.Storage{
			scalardb.PostgreSQL("main", server.Host, server.Port, database, server.User, server.Password),
		}}),
		stores: []store{postgresStore("main", server, database)},
	}
}

func startMariaDB(t *testing.T) *bed {
	server, other := mariadb.Start(t, mariadb.Options{}), mariadb.Start(t, mariadb.Options{})
	arguments := func(s *mariadb.Server) string {
		return fmt.Sprintf(`host = %q, port = %d, tls = "disabled"`, s.Host, s.Port)
	}
	return &bed{
		System: scalardb.Start(t, scalardb.Config{Storages: []scalardb.Storage{scalardb.MySQL("main", server.Host, server.Port, server.User, server.Password)}}),
		stores: []store{{
			name: "main", driver: "mysql", source: arguments(server), jobs: true,
			clone:      func(string) string { return arguments(other) + `, credentials = "clone"` },
			logins:     map[string]login{"main": {server.User, server.Password}, "clone": {other.User, other.Password}},
			cloneLogin: "clone",
			exists: func(t *testing.T, _ string) bool {
				return found(t, other.DB(), "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name IN ('bank', 'coordinator', 'scalardb')")
			},
		}},
	}
}

// startMulti has every second transfer write both storages, and the coordinator table in one of them.
func startMulti(t *testing.T) *bed {
	server := postgres.Start(t, postgres.Options{})
	database := server.CreateDatabase(t)
	orders, file := sqliteStore(t, "orders")
	return &bed{
		System: scalardb.Start(t, scalardb.Config{Namespaces: []string{"bank", "bank2"}, Accounts: 10, Storages: []scalardb.Storage{
			scalardb.SQLite("orders", file, "bank"),
			scalardb.PostgreSQL("events", server.Host, server.Port, database, server.User, server.Password, "bank2", "coordinator"),
		}}),
		stores: []store{orders, postgresStore("events", server, database)},
		file:   file, postgres: server, database: database,
	}
}

func sqliteStore(t *testing.T, name string) (s store, file string) {
	dir := t.TempDir()
	file = filepath.Join(dir, "bank.db")
	clone := func(label string) string { return filepath.Join(dir, label+".db") }
	return store{
		name: name, driver: "sqlite", source: fmt.Sprintf("path = %q", file),
		clone: func(label string) string { return fmt.Sprintf("path = %q", clone(label)) },
		exists: func(t *testing.T, label string) bool {
			_, err := os.Stat(clone(label))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			return err == nil
		},
	}, file
}

func postgresStore(name string, s *postgres.Server, database string) store {
	arguments := func(database string) string {
		return fmt.Sprintf(`host = %q, port = %d, database = %q, ssl_mode = "disable"`, s.Host, s.Port, database)
	}
	return store{
		name: name, driver: "postgresql", source: arguments(database), jobs: true, clone: arguments, cloneLogin: name,
		logins: map[string]login{name: {s.User, s.Password}},
		exists: func(t *testing.T, label string) bool {
			return found(t, s.DB(t, "postgres", "", ""), "SELECT COUNT(*) FROM pg_database WHERE datname = '"+label+"'")
		},
	}
}

func found(t *testing.T, db *sql.DB, query string) bool {
	t.Helper()
	var n int
	if err := db.QueryRowContext(t.Context(), query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n > 0
}

// settings of a configuration; the zero values are those that most tests want.
type settings struct {
	version      string // of the provider
	addresses    string // of the targets, as HCL
	drain, least string // drain_timeout and min_duration
	longest      string // max_duration
}

func (b *bed) pause(s settings) string {
	or := func(v, otherwise string) string {
		if v == "" {
			return otherwise
		}
		return v
	}
	return fmt.Sprintf("pause = {\n    targets = { main = { addresses = [%s] } }\n    drain_timeout = %q\n    min_duration = %q\n    max_duration = %q\n  }",
		or(s.addresses, `"`+b.Addr+`"`), or(s.drain, "10s"), or(s.least, "0s"), or(s.longest, "30s"))
}

// workspace is one with a provider block, whose catalog is in the workspace.
func (b *bed) workspace(t *testing.T, core cores.Core, s settings) *workspace {
	t.Helper()
	w := &workspace{Workspace: core.Workspace(t, b.mirror), b: b, catalog: filepath.Join(t.TempDir(), "catalog")}
	w.provider(t, s)
	return w
}

// workspace is a configuration of one bed.
type workspace struct {
	*cores.Workspace
	b       *bed
	catalog string
}

// provider writes the provider block. Passwords come by ephemeral variables from a file, so that they are in no state and no plan.
func (w *workspace) provider(t *testing.T, s settings) {
	t.Helper()
	if s.version == "" {
		s.version = release
	}
	var entries, variables strings.Builder
	values := map[string]string{}
	for _, store := range w.b.stores {
		for key, login := range store.logins {
			fmt.Fprintf(&entries, "    %s = { username = %q, password = var.%s }\n", key, login.username, "password_"+key)
			fmt.Fprintf(&variables, "variable %q {\n  type      = string\n  ephemeral = true\n}\n", "password_"+key)
			values["password_"+key] = login.password
		}
	}
	file, err := json.Marshal(values)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(t, "passwords.auto.tfvars.json", "%s", file)
	w.Write(t, "provider.tf", `terraform {
  required_providers {
    scalardb = { source = "scalar-labs/scalardb", version = %q }
  }
}
%s
provider "scalardb" {
  %s
  catalog = { directory = %q }
  credentials = {
%s  }
}
`, s.version, variables.String(), w.b.pause(s), w.catalog, entries.String())
}

// storages is the map of a resource, with each storage's arguments.
func (b *bed) storages(arguments func(store) string) string {
	var out strings.Builder
	for _, s := range b.stores {
		fmt.Fprintf(&out, "    %s = { %s = { %s } }\n", s.name, s.driver, arguments(s))
	}
	return out.String()
}

func (b *bed) sources(jobs int) string {
	return b.storages(func(s store) string { return s.source + s.withJobs(jobs) })
}

func (b *bed) clones(label string, jobs int) string {
	return b.storages(func(s store) string { return s.clone(label) + s.withJobs(jobs) })
}

func (s store) withJobs(n int) string {
	if !s.jobs || n == 0 {
		return ""
	}
	return fmt.Sprintf(", jobs = %d", n)
}

const backupAddress, restoreAddress = "scalardb_consistent_backup.b", "scalardb_snapshot_restore.clone"

// backup writes the backup, with further arguments.
func (w *workspace) backup(t *testing.T, name string, jobs int, more string) {
	t.Helper()
	w.Write(t, "backup.tf", "resource \"scalardb_consistent_backup\" \"b\" {\n  name = %q\n  storages = {\n%s  }\n  %s\n}\n", name, w.b.sources(jobs), more)
}

// restore writes the restore into new databases.
func (w *workspace) restore(t *testing.T, backupID, label string, jobs int, more string) {
	t.Helper()
	w.Write(t, "restore.tf", "resource \"scalardb_snapshot_restore\" \"clone\" {\n  name = %q\n  backup_id = %s\n  storages = {\n%s  }\n  verify = {}\n  %s\n}\n",
		label, backupID, w.b.clones(label, jobs), more)
}

// isPaused asks the server.
func (b *bed) isPaused(t *testing.T) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second)
	defer cancel()
	r, err := b.admin.CheckPaused(ctx, &emptypb.Empty{})
	if err != nil {
		t.Fatalf("asking the Scalar DB server whether it is paused: %v", err)
	}
	return r.GetPaused()
}

// wellAgain fails when the server is left paused, and lifts that so that the next test has its chance; and when the bank does not go on.
func (b *bed) wellAgain(t *testing.T) {
	t.Helper()
	if b.isPaused(t) {
		t.Error("the server is left paused")
		if _, err := b.admin.Unpause(t.Context(), &emptypb.Empty{}); err != nil {
			t.Fatal(err)
		}
	}
	b.Bank.WaitForCommits(t, 20, limit)
}

// files are those below a catalog's folder, but for its locks.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "lock.json" || d.Name() == ".guard" {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		out = append(out, filepath.ToSlash(rel))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// window is pause_window in a state.
type window struct {
	Status     string    `json:"status"`
	StartedAt  time.Time `json:"started_at"`
	EndedAt    time.Time `json:"ended_at"`
	DurationMS int64     `json:"duration_ms"`
	DrainMS    int64     `json:"drain_ms"`
}

// windowOf decodes it.
func windowOf(t *testing.T, v any) window {
	t.Helper()
	var w window
	data, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(data, &w)
	}
	if err != nil {
		t.Fatalf("reading the pause window: %v", err)
	}
	return w
}

// oneLine undoes how a core breaks the lines of its messages.
func oneLine(s string) string {
	return strings.Join(strings.Fields(strings.NewReplacer("│", " ", "╷", " ", "╵", " ").Replace(s)), " ")
}
