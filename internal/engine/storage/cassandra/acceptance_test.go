//go:build acceptance

package cassandra_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	gocql "github.com/apache/cassandra-gocql-driver/v2"

	bed "github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/cassandra"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/clock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/memcatalog"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/jolokia"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/local"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/rest"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/snapshot"
)

const transactional = "tx_id text, tx_state int, tx_version int, tx_prepared_at bigint, tx_committed_at bigint, before_balance int, before_tx_id text, " +
	"before_tx_state int, before_tx_version int, before_tx_prepared_at bigint, before_tx_committed_at bigint"

// ground is a real cluster with keyspaces as ScalarDB makes them.
type ground struct {
	t       *testing.T
	cluster *bed.Cluster
	session *gocql.Session
	runs    int
}

func newGround(t *testing.T, o bed.Options) *ground {
	o.Jolokia = true
	g := &ground{t: t, cluster: bed.Start(t, o)}
	g.session = g.cluster.Session(t)
	replicas := len(g.cluster.Nodes)
	for _, k := range []string{"coordinator", "scalardb", "bank"} {
		g.cql(fmt.Sprintf("CREATE KEYSPACE %s WITH replication = {'class': 'SimpleStrategy', 'replication_factor': %d}", k, replicas))
	}
	g.cql("CREATE TABLE coordinator.state (tx_id text PRIMARY KEY, tx_state int, tx_created_at bigint)")
	g.cql("CREATE TABLE scalardb.namespaces (name text PRIMARY KEY)")
	g.cql("CREATE TABLE bank.accounts (id int PRIMARY KEY, owner text, balance int, " + transactional + ")")
	g.cql("CREATE INDEX accounts_owner ON bank.accounts (owner)")
	g.cql("CREATE TABLE bank.never_written (id int PRIMARY KEY, balance int, " + transactional + ")")
	for _, name := range []string{"coordinator", "bank"} {
		g.cql("INSERT INTO scalardb.namespaces (name) VALUES (?)", name)
	}
	for i := range 200 {
		g.transfer(i)
	}
	return g
}

func (g *ground) cql(statement string, args ...any) {
	g.t.Helper()
	if err := g.session.Query(statement, args...).Consistency(gocql.Quorum).Exec(); err != nil {
		g.t.Fatalf("%s: %v", statement, err)
	}
}

// transfer writes what a transaction of ScalarDB leaves.
func (g *ground) transfer(i int) {
	g.t.Helper()
	g.cql("INSERT INTO bank.accounts (id, owner, balance, tx_id, tx_state, tx_version) VALUES (?, ?, 100, ?, 3, 1)", i, fmt.Sprint("owner", i%7), fmt.Sprint("tx", i))
	g.cql("INSERT INTO coordinator.state (tx_id, tx_state, tx_created_at) VALUES (?, 3, 1) IF NOT EXISTS", fmt.Sprint("tx", i))
}

func (g *ground) settings() cassandra.Settings {
	transport, err := jolokia.New(rest.Settings{URL: "http://{address}:8778/jolokia", Clock: clock.System{}})
	if err != nil {
		g.t.Fatal(err)
	}
	return cassandra.Settings{Storage: "orders", Clock: clock.System{}, ContactPoints: g.cluster.ContactPoints(), Transport: transport,
		Files: local.Machine{Clock: clock.System{}, Getenv: os.Getenv}, Mover: cassandra.KeepOnNodes()}
}

func (g *ground) run() engine.Run {
	g.runs++
	id := fmt.Sprintf("%016x", g.runs)
	return engine.Run{ID: id, BackupID: "nightly", Catalog: memcatalog.New(time.Now), Prefix: "backups/nightly/" + id + "/", Report: func(m string, f map[string]any) { g.t.Log(m, f) }}
}

// snapshots are those of all nodes that run, as nodetool lists them.
func (g *ground) snapshots(t *testing.T) (found []string) {
	t.Helper()
	for _, n := range g.cluster.Nodes {
		if !n.Running() {
			continue
		}
		out, err := n.Nodetool(t.Context(), "listsnapshots")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(out) {
			if strings.Contains(line, "scalardb-") {
				found = append(found, n.Address+" "+strings.TrimSpace(line))
			}
		}
	}
	return found
}

func (g *ground) nothingLeft(t *testing.T) {
	t.Helper()
	if left := g.snapshots(t); len(left) > 0 {
		t.Errorf("these snapshots are left:\n%s", strings.Join(left, "\n"))
	}
}

func (g *ground) preflight(t *testing.T) (engine.Session, engine.Run) {
	t.Helper()
	r := g.run()
	x, err := cassandra.NewSource(g.settings()).Preflight(t.Context(), r)
	if err != nil {
		t.Fatalf("preflight: %v", err)
	}
	return x, r
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (g *ground) happyPath(t *testing.T) {
	x, r := g.preflight(t)
	defer x.Close() //nolint:errcheck // closed below
	f := x.Facts()
	t.Logf("facts: %+v", f)
	if f.Witness == "none" || f.ToolVersions["cassandra"] != g.cluster.Options.Version {
		t.Errorf("facts %+v", f)
	}
	b, err := x.MeasureClock(t.Context())
	ok(t, err)
	if b.Offset.Abs() > b.Uncertainty+time.Millisecond || b.Uncertainty > 20*time.Second {
		t.Errorf("this machine's clock is %s ± %s from itself", b.Offset, b.Uncertainty)
	}
	began := time.Now()
	ok(t, x.Capture(t.Context()))
	captured := time.Since(began)
	ok(t, x.Confirm(t.Context()))
	t.Logf("the capture took %s, with its confirmation %s", captured, time.Since(began))
	g.transfer(5000) // after the window
	c, err := x.Await(t.Context())
	ok(t, err)
	ok(t, x.Close())
	if len(c.Artifacts) != len(f.Planned) || !c.HasCoordinator {
		t.Errorf("captured %+v", c)
	}
	ix, err := snapshot.ReadIndex(t.Context(), r.Catalog, c.Artifacts[1])
	ok(t, err)
	if len(ix.Nodes) != len(g.cluster.Nodes) || len(ix.Keyspaces) != 3 || !strings.Contains(strings.Join(ix.Keyspaces[0].CQL, "\n"), "ID = "+ix.Keyspaces[0].Tables[0].ID) {
		t.Errorf("index %+v", ix)
	}
	for i, n := range ix.Nodes {
		l, err := snapshot.ReadFiles(t.Context(), r.Catalog, n)
		ok(t, err)
		index := false
		for _, table := range l.Tables {
			data := 0
			for _, file := range table.Files {
				if strings.HasSuffix(file.Path, "-Data.db") {
					data++
				}
				index = index || strings.HasPrefix(file.Path, ".accounts_owner/")
			}
			if want := table.Table != "never_written"; want != (data > 0) {
				t.Errorf("node %d: table %s has %d data files: %+v", i, table.Table, data, table.Files)
			}
		}
		if len(l.Tables) != 4 || !index || n.Bytes == 0 {
			t.Errorf("node %d: list %+v", i, l)
		}
	}
	s := g.settings()
	s.Catalog = r.Catalog
	k := cassandra.NewKeeper(s, true, nil)
	for _, a := range c.Artifacts {
		ok(t, k.Inspect(t.Context(), a))
	}
	// Somebody else's stays.
	_, err = g.cluster.Nodes[0].Nodetool(t.Context(), "snapshot", "-t", "PRECIOUS", "--", "bank")
	ok(t, err)
	for range 2 {
		for _, a := range c.Artifacts {
			ok(t, k.Delete(t.Context(), a))
			if err := k.Inspect(t.Context(), a); !errors.Is(err, engine.ErrNotFound) {
				t.Errorf("inspecting a deleted %s: %v", a.Kind, err)
			}
		}
	}
	g.nothingLeft(t)
	out, err := g.cluster.Nodes[0].Nodetool(t.Context(), "listsnapshots")
	ok(t, err)
	if !strings.Contains(out, "PRECIOUS") {
		t.Error("another's snapshot was cleared")
	}
}

func (g *ground) voided(t *testing.T, during func(), want string) {
	x, _ := g.preflight(t)
	defer x.Close() //nolint:errcheck // nothing to lose
	ok(t, x.Capture(t.Context()))
	during()
	var void *engine.VoidError
	if err := x.Confirm(t.Context()); !errors.As(err, &void) || !strings.Contains(void.Reason, want) {
		t.Errorf("confirm: %v, want it void because of %q", err, want)
	}
	ok(t, x.Discard(t.Context()))
	g.nothingLeft(t)
}

// steps discards after each of them.
func (g *ground) steps(t *testing.T) {
	for last := range 4 {
		x, r := g.preflight(t)
		steps := []func() error{func() error { return x.Capture(t.Context()) }, func() error { return x.Confirm(t.Context()) }, func() error { _, err := x.Await(t.Context()); return err }}
		for _, step := range steps[:last] {
			ok(t, step())
		}
		if last == 3 && len(g.snapshots(t)) == 0 {
			t.Error("after await nothing is on the nodes: the test shows nothing")
		}
		ok(t, x.Discard(t.Context()))
		ok(t, x.Discard(t.Context()))
		ok(t, x.Close())
		if objects, err := r.Catalog.List(t.Context(), ""); err != nil || len(objects) > 0 {
			t.Errorf("discarded after step %d: in the catalog is %v, %v", last, objects, err)
		}
	}
	g.nothingLeft(t)
}

// killed: a run dies with its snapshot taken; the journal's record is enough for the next one.
func (g *ground) killed(t *testing.T) {
	x, r := g.preflight(t)
	ok(t, x.Capture(t.Context()))
	planned := x.Facts().Planned
	ok(t, x.Close()) // nothing else
	if len(g.snapshots(t)) == 0 {
		t.Fatal("there is no snapshot: the test shows nothing")
	}
	s := g.settings()
	s.Catalog = r.Catalog
	for _, a := range planned {
		ok(t, cassandra.NewKeeper(s, true, nil).Delete(t.Context(), a))
	}
	g.nothingLeft(t)
}

// nodeDies in the window: the backup fails, what the others have goes, and what it has goes when it is back.
func (g *ground) nodeDies(t *testing.T) {
	x, r := g.preflight(t)
	defer x.Close() //nolint:errcheck // closed below
	ok(t, x.Capture(t.Context()))
	victim := g.cluster.Nodes[2]
	victim.Kill(t)
	if err := x.Confirm(t.Context()); err == nil || !strings.Contains(err.Error(), victim.Address) {
		t.Errorf("confirm: %v", err)
	}
	if err := x.Discard(t.Context()); err == nil || !strings.Contains(err.Error(), victim.Address) {
		t.Errorf("discard: %v", err)
	}
	g.nothingLeft(t) // on those that run
	ok(t, x.Close())
	if _, err := cassandra.NewSource(g.settings()).Preflight(t.Context(), g.run()); err == nil || !strings.Contains(err.Error(), victim.Address) || !strings.Contains(err.Error(), "is down") {
		t.Errorf("the next preflight, with the node down: %v", err)
	}
	// Two of three replicas are a quorum.
	s := g.settings()
	s.AllowDownNodes = true
	y, err := cassandra.NewSource(s).Preflight(t.Context(), g.run())
	ok(t, err)
	ok(t, y.Capture(t.Context()))
	ok(t, y.Confirm(t.Context()))
	ok(t, y.Discard(t.Context()))
	ok(t, y.Close())

	victim.Start(t)
	g.cluster.WaitUp(t)
	if len(g.snapshots(t)) == 0 {
		t.Error("the node that died has no snapshot: the test shows nothing")
	}
	s = g.settings()
	s.Catalog = r.Catalog
	for _, a := range x.Facts().Planned {
		ok(t, cassandra.NewKeeper(s, true, nil).Delete(t.Context(), a))
	}
	g.nothingLeft(t)
}

func TestAcceptance(t *testing.T) {
	g := newGround(t, bed.Options{})
	t.Run("happy path", g.happyPath)
	t.Run("a write in the window", func(t *testing.T) { g.voided(t, func() { g.transfer(6000) }, "was written") })
	t.Run("a new table in the window", func(t *testing.T) {
		g.voided(t, func() { g.cql("CREATE TABLE bank.late (id int PRIMARY KEY)") }, "schema")
		g.cql("DROP TABLE bank.late")
	})
	t.Run("discard at every step", g.steps)
	t.Run("a killed run", g.killed)
	t.Run("a node dies in the window", g.nodeDies)
}

// TestAcceptance41 has one node of the release before.
func TestAcceptance41(t *testing.T) {
	g := newGround(t, bed.Options{Version: bed.Version41, Nodes: 1})
	t.Run("happy path", g.happyPath)
}
