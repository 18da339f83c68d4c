//go:build acceptance

// Package restore_test restores backups of real clusters into real clusters.
package restore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gocql "github.com/apache/cassandra-gocql-driver/v2"

	bed "github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/cassandra"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/catalog/directory"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/clock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/jmxnode"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/local"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/upload"
)

const transactional = "tx_id text, tx_state int, tx_version int, tx_prepared_at bigint, tx_committed_at bigint, before_balance int"

// keyspaces are those of ground, and tables theirs.
var (
	keyspaces = []string{"bank", "coordinator", "scalardb"}
	tables    = []string{"bank.accounts", "bank.notes", "coordinator.state", "scalardb.namespaces"}
)

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ground is a real cluster.
type ground struct {
	t       *testing.T
	cluster *bed.Cluster
	session *gocql.Session
}

func newGround(t *testing.T, o bed.Options) *ground {
	t.Helper()
	g := &ground{t: t, cluster: bed.Start(t, o)}
	g.session = g.cluster.Session(t)
	return g
}

func (g *ground) cql(t testing.TB, statement string, args ...any) {
	t.Helper()
	if err := g.session.Query(statement, args...).Consistency(gocql.Quorum).Exec(); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// fill makes keyspaces as ScalarDB makes them.
func (g *ground) fill() {
	for _, k := range keyspaces {
		g.cql(g.t, fmt.Sprintf("CREATE KEYSPACE %s WITH replication = {'class': 'NetworkTopologyStrategy', 'dc1': %d}", k, len(g.cluster.Nodes)))
	}
	g.cql(g.t, "CREATE TABLE coordinator.state (tx_id text PRIMARY KEY, tx_state int, tx_created_at bigint)")
	g.cql(g.t, "CREATE TABLE scalardb.namespaces (name text PRIMARY KEY)")
	g.cql(g.t, "CREATE TABLE bank.accounts (id int PRIMARY KEY, owner text, balance int, old int, "+transactional+")")
	g.cql(g.t, "CREATE INDEX accounts_owner ON bank.accounts (owner)")
	g.cql(g.t, "CREATE TABLE bank.notes (id int, at int, text text, PRIMARY KEY (id, at))")
	for _, name := range []string{"coordinator", "bank"} {
		g.cql(g.t, "INSERT INTO scalardb.namespaces (name) VALUES (?)", name)
	}
	for i := range 60 {
		g.write(i)
	}
	g.cql(g.t, "ALTER TABLE bank.accounts DROP old")
	g.cql(g.t, "DELETE FROM bank.accounts WHERE id = 7")
}

// missDelete makes a table whose deletions one node has not heard of, and whose tombstones are past gc_grace_seconds. It is not read before it is restored: a
// read at ALL would bring the rows back in the cluster itself.
func (g *ground) missDelete() {
	g.cql(g.t, "CREATE TABLE bank.graced (id int PRIMARY KEY, v int) WITH gc_grace_seconds = 1 AND compaction = {'class': 'SizeTieredCompactionStrategy', 'enabled': 'false'} AND read_repair = 'NONE'")
	for i := range 10 {
		ok(g.t, g.session.Query("INSERT INTO bank.graced (id, v) VALUES (?, 1)", i).Consistency(gocql.All).Exec())
	}
	g.cluster.Nodes[2].Stop(g.t)
	for i := range 10 {
		g.cql(g.t, "DELETE FROM bank.graced WHERE id = ?", i)
	}
	g.cluster.Nodes[2].Start(g.t)
	g.cluster.WaitUp(g.t)
}

// noHints keeps nodes from telling each other what one missed.
func noHints() bed.Options {
	return bed.Options{Settings: map[string]string{"hinted_handoff_enabled": "false"}}
}

// graced counts the rows that came back, and looks whether the table has its own gc_grace_seconds.
func (g *ground) graced(t *testing.T, keyspace string) (rows int) {
	t.Helper()
	ok(t, g.session.Query("SELECT count(*) FROM "+keyspace+".graced").Consistency(gocql.All).Scan(&rows))
	var seconds int
	ok(t, g.session.Query("SELECT gc_grace_seconds FROM system_schema.tables WHERE keyspace_name = ? AND table_name = 'graced'", keyspace).Scan(&seconds))
	if seconds != 1 {
		t.Errorf("gc_grace_seconds is %d now", seconds)
	}
	return rows
}

// write writes what a transaction leaves.
func (g *ground) write(i int) {
	g.t.Helper()
	g.cql(g.t, "INSERT INTO bank.accounts (id, owner, balance, tx_id, tx_state, tx_version) VALUES (?, ?, 100, ?, 3, 1) IF NOT EXISTS", i, fmt.Sprint("owner", i%7), fmt.Sprint("tx", i))
	g.cql(g.t, "INSERT INTO bank.notes (id, at, text) VALUES (?, ?, ?)", i%5, i, strings.Repeat("x", i))
	g.cql(g.t, "INSERT INTO coordinator.state (tx_id, tx_state, tx_created_at) VALUES (?, 3, 1) IF NOT EXISTS", fmt.Sprint("tx", i))
}

// rows are all rows of a table, read from every replica.
func (g *ground) rows(t testing.TB, table string) string {
	t.Helper()
	var out []string
	iter := g.session.Query("SELECT * FROM " + table).Consistency(gocql.All).PageSize(50).Iter()
	for {
		m := map[string]any{}
		if !iter.MapScan(m) {
			break
		}
		out = append(out, fmt.Sprint(m))
	}
	ok(t, iter.Close())
	slices.Sort(out)
	return strings.Join(out, "\n")
}

func (g *ground) all(t testing.TB, rename map[string]string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, name := range tables {
		ks, table, _ := strings.Cut(name, ".")
		if to, ok := rename[ks]; ok {
			ks = to
		}
		out[name] = g.rows(t, ks+"."+table)
	}
	return out
}

func (g *ground) settings() cassandra.Settings {
	return cassandra.Settings{Storage: "orders", Clock: clock.System{}, ContactPoints: g.cluster.ContactPoints(), Transport: jmxnode.New(jmxnode.Settings{Clock: clock.System{}}),
		Files: local.Machine{Clock: clock.System{}, Getenv: os.Getenv}, Mover: upload.Mover{Settings: upload.Settings{Clock: clock.System{}}}}
}

// backup is what is known of one.
type backup struct {
	catalog engine.Catalog
	record  engine.StorageRecord
	rows    map[string]string
}

func (g *ground) capture(t *testing.T, catalog engine.Catalog, id string) backup {
	t.Helper()
	return g.captureWith(t, g.settings(), catalog, id)
}

func (g *ground) captureWith(t *testing.T, s cassandra.Settings, catalog engine.Catalog, id string) backup {
	t.Helper()
	b := backup{catalog: catalog, rows: g.all(t, nil)}
	run := engine.Run{ID: id, BackupID: "nightly", Catalog: catalog, Prefix: "backups/nightly/" + id + "/", Report: func(string, map[string]any) {}}
	x, err := cassandra.NewSource(s).Preflight(t.Context(), run)
	ok(t, err)
	defer x.Close() //nolint:errcheck // closed below
	ok(t, x.Capture(t.Context()))
	ok(t, x.Confirm(t.Context()))
	c, err := x.Await(t.Context())
	ok(t, err)
	ok(t, x.Close())
	b.record = engine.StorageRecord{Driver: "cassandra", Artifacts: c.Artifacts, Tables: c.Tables, HasCoordinator: c.HasCoordinator, Extra: c.Extra}
	return b
}

// restore is one restore of a backup.
func (b backup) restore(t *testing.T, runID string) engine.StorageBackup {
	return engine.StorageBackup{Storage: "orders", RunID: runID, Name: "clone", Record: b.record, Catalog: b.catalog, Report: func(m string, f map[string]any) { t.Log(m, f) }}
}

var rename = map[string]string{"bank": "bank_stage", "coordinator": "coordinator_stage", "scalardb": "scalardb_stage"}

func (g *ground) loading(replication map[string]string) cassandra.DestinationSettings {
	return cassandra.DestinationSettings{Settings: g.settings(), Upload: upload.Settings{Clock: clock.System{}},
		Load: &cassandra.LoadSettings{Keyspaces: rename, Replication: replication, Directory: filepath.Join(g.cluster.Dir, "{address}", "staging")}}
}

// compare compares what was restored with what was captured.
func (g *ground) compare(t *testing.T, b backup) {
	t.Helper()
	for name, got := range g.all(t, rename) {
		want := b.rows[name]
		if name == "scalardb.namespaces" {
			want = "map[name:bank_stage]\nmap[name:coordinator_stage]"
		}
		if got != want {
			t.Errorf("%s was\n%s\nand is\n%s", name, want, got)
		}
	}
	if rows := g.graced(t, "bank_stage"); rows != 0 {
		t.Errorf("%d rows that were deleted came back", rows)
	}
	var n int
	ok(t, g.session.Query("SELECT count(*) FROM bank_stage.accounts WHERE owner = 'owner3'").Scan(&n))
	if n != 9 {
		t.Errorf("by its index the table has %d rows of owner3", n)
	}
}

// nothingLeft proves that no trace of a restore is left.
func (g *ground) nothingLeft(t *testing.T) {
	t.Helper()
	var names []string
	iter := g.session.Query("SELECT keyspace_name FROM system_schema.keyspaces").Iter()
	var name string
	for iter.Scan(&name) {
		if strings.HasSuffix(name, "_stage") {
			names = append(names, name)
		}
	}
	ok(t, iter.Close())
	if len(names) > 0 {
		t.Errorf("keyspaces %v are left", names)
	}
	for _, n := range g.cluster.Nodes {
		left, err := filepath.Glob(filepath.Join(g.cluster.Dir, n.Address, "staging", "*"))
		ok(t, err)
		snapshots, err := filepath.Glob(filepath.Join(n.DataDir(), "*_stage", "*", "snapshots", "*"))
		ok(t, err)
		if len(left)+len(snapshots) > 0 {
			t.Errorf("on node %s are left: %v %v", n.Address, left, snapshots)
		}
	}
}

func (g *ground) load(t *testing.T, b backup, replication map[string]string, runID string) {
	t.Helper()
	d := cassandra.NewDestination(g.loading(replication))
	r := b.restore(t, runID)
	ok(t, d.Preflight(t.Context(), r))
	began := time.Now()
	made, err := d.Restore(t.Context(), r)
	ok(t, err)
	t.Logf("loaded in %s: %+v", time.Since(began), made.Properties)
	if made.Properties["consensus_commit.coordinator.namespace"] != "coordinator_stage" || made.Properties["system_namespace_name"] != "scalardb_stage" || made.Properties["storage"] != "cassandra" {
		t.Errorf("properties %v", made.Properties)
	}
	g.compare(t, b)
	ok(t, d.Inspect(t.Context(), made))
	if err := d.Preflight(t.Context(), b.restore(t, "other")); err == nil || !strings.Contains(err.Error(), "has tables") {
		t.Errorf("a second restore to the same names: %v", err)
	}
	for range 2 {
		ok(t, d.Delete(t.Context(), made))
		if err := d.Inspect(t.Context(), made); !errors.Is(err, engine.ErrNotFound) {
			t.Errorf("inspecting what was deleted: %v", err)
		}
	}
	g.nothingLeft(t)
}

// comeBack shows what the raised gc_grace_seconds is for.
func (g *ground) comeBack(t *testing.T, b backup) {
	s := g.loading(nil)
	s.KeepGrace = true
	d := cassandra.NewDestination(s)
	made, err := d.Restore(t.Context(), b.restore(t, "0000000000000010"))
	ok(t, err)
	if rows := g.graced(t, "bank_stage"); rows == 0 {
		t.Error("no row came back: the tests below show nothing")
	}
	ok(t, d.Delete(t.Context(), made))
	g.nothingLeft(t)
}

var errKilled = errors.New("killed")

// kill ends a load before each of its steps, and has the next attempt clean up by the record.
func (g *ground) kill(t *testing.T, b backup) {
	for i, at := range []string{"announce", "schema", "statement 1", "place", "import", "namespaces", "unstage"} {
		s := g.loading(map[string]string{"dc1": "1"})
		ctx, cancel := context.WithCancel(t.Context())
		reached := false
		s.Step = func(_ context.Context, name string) error {
			if name != at {
				return nil
			}
			reached = true
			cancel()
			return errKilled
		}
		r := b.restore(t, fmt.Sprintf("%016x", 100+i))
		var announced engine.Restored
		r.Announce = func(_ context.Context, made engine.Restored) error { announced = made; return nil }
		if _, err := cassandra.NewDestination(s).Restore(ctx, r); !errors.Is(err, errKilled) || !reached {
			t.Errorf("killed at %s: %v", at, err)
		}
		cancel()
		ok(t, cassandra.NewDestination(g.loading(nil)).Delete(t.Context(), announced))
		g.nothingLeft(t)
	}
}

func TestLoad(t *testing.T) {
	catalog, err := directory.New(t.TempDir(), clock.System{})
	ok(t, err)
	g := newGround(t, noHints())
	g.fill()
	g.missDelete()
	b := g.capture(t, catalog, "0000000000000001")
	g.write(1000) // after the window
	t.Run("gc_grace_seconds that is not raised brings rows back", func(t *testing.T) { g.comeBack(t, b) })
	t.Run("same ring", func(t *testing.T) { g.load(t, b, nil, "0000000000000011") })
	t.Run("fewer replicas", func(t *testing.T) { g.load(t, b, map[string]string{"dc1": "1"}, "0000000000000012") })
	g.cluster.StopAll(t)
	one := newGround(t, bed.Options{Nodes: 1, Name: "other"})
	t.Run("one node is too few", func(t *testing.T) {
		if err := cassandra.NewDestination(one.loading(nil)).Preflight(t.Context(), b.restore(t, "x")); err == nil || !strings.Contains(err.Error(), "load.replication") {
			t.Errorf("three replicas on one node: %v", err)
		}
	})
	t.Run("one node", func(t *testing.T) { one.load(t, b, map[string]string{"dc1": "1"}, "0000000000000013") })
	t.Run("killed", func(t *testing.T) { one.kill(t, b) })
}

// TestOldRelease: the oldest release that is supported, loaded and restored in place.
func TestOldRelease(t *testing.T) {
	catalog, err := directory.New(t.TempDir(), clock.System{})
	ok(t, err)
	o := noHints()
	o.Version = bed.Version40
	g := newGround(t, o)
	g.fill()
	g.missDelete()
	b := g.capture(t, catalog, "0000000000000001")
	g.write(1000) // after the window
	t.Run("load", func(t *testing.T) { g.load(t, b, nil, "0000000000000041") })
	t.Run("in place", func(t *testing.T) {
		g.cql(t, "DELETE FROM bank.accounts WHERE id IN (30, 31, 32)")
		g.restoreStopped(t, g.stopped(true), b, "0000000000000042")
		g.same(t, b)
	})
}
