package cassandra

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/memcatalog"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/testclock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/local"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/move"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node/nodetest"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/snapshot"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/upload"
)

// importing is a transport whose Operators can import, and no more where it is poor.
type importing struct {
	worldTransport
	poor bool
}

type importer struct{ node.Operator }

func (importer) Import(context.Context, string, string, []string) error { return nil }

type rich struct{ importer }

func (rich) Load(context.Context, string, string, []string) error { return nil }
func (rich) Cleanup(context.Context, string) error                { return nil }
func (rich) Repair(context.Context, string) error                 { return nil }

func (t importing) Open(ctx context.Context, n node.Node) (node.Operator, error) {
	o, err := t.worldTransport.Open(ctx, n)
	if err != nil {
		return nil, err
	}
	if t.poor {
		return importer{o}, nil
	}
	return rich{importer{o}}, nil
}

// target is an empty cluster, and a backup without rows of another of three nodes.
type target struct {
	w       *world
	s       DestinationSettings
	r       engine.StorageBackup
	ix      snapshot.Index
	extra   map[string]string // of the record
	more    []engine.Artifact // likewise
	catalog *memcatalog.Catalog
}

func newTarget(t *testing.T, nodes int) *target {
	t.Helper()
	w := newWorld(nodes)
	w.keyspaces, w.tables = map[string]map[string]string{}, nil
	catalog := memcatalog.New(time.Now)
	s := w.settings()
	s.Transport, s.Files = importing{worldTransport: worldTransport{w}}, local.Machine{Clock: testclock.New()}
	x := &target{w: w, catalog: catalog, s: DestinationSettings{Settings: s, Upload: upload.Settings{Clock: testclock.New()}, Load: &LoadSettings{Directory: t.TempDir()}}}
	x.ix = snapshot.Index{Version: snapshot.Version, Cluster: "prod", Partitioner: murmur3, Tag: "t", Data: snapshot.DataUpload, CapturedAt: time.Now().UTC(), Keyspaces: []snapshot.Keyspace{{
		Name: "bank", Replication: map[string]string{"class": "NetworkTopologyStrategy", "dc1": "3"}, CQL: []string{
			"CREATE KEYSPACE bank WITH replication = {'class': 'x'}", "CREATE TABLE bank.accounts (id int PRIMARY KEY) WITH ID = " + hostID(7) + " AND gc_grace_seconds = 864000"},
		Tables: []snapshot.Table{{Name: "accounts", ID: hostID(7), GCGraceSeconds: 864000}},
	}}}
	for i := range 3 {
		x.ix.Nodes = append(x.ix.Nodes, snapshot.Node{HostID: hostID(i + 11), Address: fmt.Sprint("10.1.0.", i), Datacenter: "dc1", Rack: "r", Version: "5.0.2", Tokens: []string{fmt.Sprint(i * 7)}})
	}
	return x
}

// preflight puts the backup into the catalog and looks whether it can be restored.
func (x *target) preflight(t *testing.T) error {
	t.Helper()
	for i := range x.ix.Nodes {
		n := &x.ix.Nodes[i]
		must(t, snapshot.WriteFiles(t.Context(), x.catalog, "backups/b/r/orders/", &snapshot.FileList{Version: snapshot.Version, HostID: n.HostID}, n))
	}
	a, err := snapshot.WriteIndex(t.Context(), x.catalog, "backups/b/r/orders/", &x.ix)
	must(t, err)
	x.r = engine.StorageBackup{Storage: "orders", RunID: "0123456789abcdef", Catalog: x.catalog, Record: engine.StorageRecord{Driver: "cassandra", Artifacts: append(x.more, a), Extra: x.extra}}
	return NewDestination(x.s).Preflight(t.Context(), x.r)
}

// fetching is a tool that fetches, and restoring one that restores by itself.
type (
	fetching struct {
		move.Mover
		move.Fetcher
		inspect error
	}
	restoring struct {
		move.Mover
		move.Restorer
	}
)

func (fetching) Name() string { return snapshot.DataMedusa }
func (f fetching) Inspect(context.Context, move.Place, engine.Artifact) error {
	return f.inspect
}

// of gives the data of the backup to a tool.
func (x *target) of(data, kind string, m move.Mover) {
	x.ix.Data, x.more = data, []engine.Artifact{{Kind: kind, ID: "t"}}
	x.s.Mover = func(got string) (move.Mover, error) {
		if got != kind {
			return nil, fmt.Errorf("a mover for %s", got)
		}
		return m, nil
	}
}

func TestPreflightOfLoad(t *testing.T) {
	for _, c := range []struct {
		name, says string
		nodes      int
		change     func(x *target)
	}{
		{"", "", 3, func(*target) {}},
		{"empty keyspace", "", 3, func(x *target) {
			x.w.keyspaces["bank"] = map[string]string{"class": "a.NetworkTopologyStrategy", "dc1": "3"}
		}},
		{"more nodes", "", 5, func(*target) {}},
		{"replication", "", 1, func(x *target) { x.s.Load.Replication = map[string]string{"dc1": "1"} }},
		{"replication for all", "", 1, func(x *target) {
			x.s.Load.Replication = map[string]string{"class": "NetworkTopologyStrategy", "replication_factor": "1"}
		}},
		{"old", "", 3, func(x *target) { x.ix.CapturedAt = x.ix.CapturedAt.AddDate(0, 0, -30) }},

		{"too few nodes", "1 nodes in datacenter dc1", 1, func(*target) {}},
		{"no such datacenter", "datacenter dc9", 3, func(x *target) { x.s.Load.Replication = map[string]string{"dc9": "1"} }},
		{"no replicas", "no replicas", 3, func(x *target) { x.s.Load.Replication = map[string]string{"dc1": "0"} }},
		{"tables", "has tables", 3, func(x *target) {
			x.w.keyspaces["bank"], x.w.tables = map[string]string{"class": "NetworkTopologyStrategy", "dc1": "3"}, []node.Table{accounts}
		}},
		{"other replication", "its replication is", 3, func(x *target) {
			x.w.keyspaces["bank"] = map[string]string{"class": "SimpleStrategy", "replication_factor": "1"}
		}},
		{"renamed to one with tables", "bank2: it is in cluster prod already", 3, func(x *target) {
			x.s.Load.Keyspaces = map[string]string{"bank": "bank2"}
			x.w.keyspaces["bank2"], x.w.tables = map[string]string{"class": "SimpleStrategy", "replication_factor": "1"}, []node.Table{{Keyspace: "bank2", Name: "t"}}
		}},
		{"unknown keyspace", "no keyspace shop that could be renamed", 3, func(x *target) { x.s.Load.Keyspaces = map[string]string{"shop": "x"} }},
		{"newer", "runs 5.0.9", 3, func(x *target) { x.ix.Nodes[1].Version = "6.0.0" }},
		{"a view", "MATERIALIZED VIEW", 3, func(x *target) {
			x.ix.Keyspaces[0].CQL = append(x.ix.Keyspaces[0].CQL, "CREATE MATERIALIZED VIEW bank.v AS SELECT * FROM bank.accounts")
		}},
		{"kept on nodes", "in_place", 3, func(x *target) { x.ix.Data = snapshot.DataNodes }},
		{"medusa", "", 3, func(x *target) { x.of(snapshot.DataMedusa, snapshot.KindMedusa, fetching{}) }},
		{"medusa has lost it", "in medusa's storage: not found", 3, func(x *target) {
			x.of(snapshot.DataMedusa, snapshot.KindMedusa, fetching{inspect: engine.ErrNotFound})
		}},
		{"medusa, and nothing that calls it", "no such tool", 3, func(x *target) {
			x.of(snapshot.DataMedusa, snapshot.KindMedusa, fetching{})
			x.s.Mover = nil
		}},
		{"medusa, and no record", "has no cassandra_medusa", 3, func(x *target) { x.ix.Data = snapshot.DataMedusa }},
		{"Cassy, into a running cluster", "only in_place", 3, func(x *target) { x.of(snapshot.DataCassy, snapshot.KindCassy, restoring{}) }},
		{"a node is down", "is down", 3, func(x *target) { x.w.nodes[1].down = true; x.s.AllowDownNodes = true }},
		{"no files", "nothing gives access", 3, func(x *target) { x.s.Files = nil }},
		{"no importer", "cannot import", 3, func(x *target) { x.s.Transport = worldTransport{x.w} }},
		{"no cleaner", "cannot clean up", 5, func(x *target) { x.s.Transport = importing{worldTransport{x.w}, true} }},
		{"no repairer", "cannot repair", 3, func(x *target) {
			x.ix.CapturedAt = x.ix.CapturedAt.AddDate(0, 0, -30)
			x.s.Transport = importing{worldTransport{x.w}, true}
		}},
		{"a file for a directory", "not a directory", 3, func(x *target) { x.s.Load.Directory = "/dev/null" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := newTarget(t, c.nodes)
				c.change(x)
				err := x.preflight(t)
				if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
					t.Errorf("%v, want %q", err, c.says)
				}
			})
		})
	}
}

func TestGrace(t *testing.T) {
	now := time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC)
	const day = 86400
	for _, c := range []struct {
		seconds int64
		days    int
		raised  bool
	}{{10 * day, 0, false}, {10 * day, 8, false}, {10 * day, 9, true}, {10 * day, 30, true}, {10 * day, -1, false}, {0, 0, true}, {5, 0, true}, {1<<31 - 1, 30, false}} {
		during, raised := grace(c.seconds, now.AddDate(0, 0, -c.days), now)
		if raised != c.raised || !raised && during != c.seconds {
			t.Errorf("%+v: %d, %v", c, during, raised)
		}
		// What was no older than gc_grace_seconds when the backup was taken stays.
		if raised && during < min(c.seconds+int64(c.days)*day+20*day, 1<<31-1) {
			t.Errorf("%+v: %d is too short", c, during)
		}
	}
	if during, _ := grace(1<<31-1, now.AddDate(-80, 0, 0), now); during != 1<<31-1 {
		t.Errorf("%d is more than Cassandra takes", during)
	}
}

func TestTableID(t *testing.T) {
	a := tableID("0123456789abcdef", "bank", "accounts")
	if !snapshot.ValidHostID(a) || a != tableID("0123456789abcdef", "bank", "accounts") {
		t.Errorf("%s is no id, or another the second time", a)
	}
	for _, b := range []string{tableID("1123456789abcdef", "bank", "accounts"), tableID("0123456789abcdef", "bank", "account"), tableID("0123456789abcdef", "bank2", "accounts")} {
		if a == b {
			t.Errorf("%s twice", a)
		}
	}
}

func TestDroppedSince(t *testing.T) {
	for tag, want := range map[string]bool{"dropped-1000-t": true, "dropped-2000-t": true, "dropped-999-t": false, "dropped-2000-u": false, "truncated-2000-t": false, "dropped-x-t": false, "backup": false} {
		if got := droppedSince(node.Snapshot{Tag: tag, Keyspace: "k", Table: "t"}, 1000); got != want {
			t.Errorf("%s: %v", tag, got)
		}
	}
}

// clearing remembers what it was told to clear.
type clearing struct {
	*nodetest.Memory
	cleared []string
}

func (c *clearing) ClearSnapshot(ctx context.Context, tag string, keyspaces []string) error {
	c.cleared = append(c.cleared, fmt.Sprint(tag, keyspaces))
	return c.Memory.ClearSnapshot(ctx, tag, keyspaces)
}

// Before 4.1 no call lists the snapshots of a table that was dropped: its directory does.
func TestDroppedBefore41(t *testing.T) {
	data := t.TempDir()
	for _, dir := range []string{
		"bank/" + snapshot.TableDirectory("accounts", hostID(7)) + "/snapshots/dropped-2000-accounts", "bank/" + snapshot.TableDirectory("accounts", hostID(7)) + "/snapshots/backup",
		"bank/" + snapshot.TableDirectory("accounts", hostID(8)) + "/snapshots/dropped-3000-accounts", // another's of the same name
	} {
		must(t, os.MkdirAll(filepath.Join(data, filepath.FromSlash(dir)), 0o700))
	}
	tables := []engine.RestoredObject{
		{Kind: objectTable, ID: "bank.accounts", Extra: map[string]string{extraTableID: hostID(7), extraAnnounced: "1000"}},
		{Kind: objectTable, ID: "bank.never", Extra: map[string]string{extraTableID: hostID(9), extraAnnounced: "1000"}},
	}
	for version, want := range map[string][]string{"4.0.18": {"dropped-2000-accounts[bank]"}, "4.1.10": nil} {
		op := &clearing{Memory: nodetest.NewMemory()}
		a := &attempt{d: NewDestination(DestinationSettings{}), s: Settings{Clock: testclock.New(), DataDirectories: []string{data}}, nodes: []*captured{{
			member: &member{Node: node.Node{HostID: hostID(1), Address: "10.0.0.1", Version: version}}, op: op, files: local.Machine{Clock: testclock.New()}, clock: testclock.New(),
		}}}
		must(t, a.clearDropped(t.Context(), tables))
		if !slices.Equal(op.cleared, want) {
			t.Errorf("%s: cleared %v, want %v", version, op.cleared, want)
		}
	}
}

func TestDataRoots(t *testing.T) {
	l := &snapshot.FileList{Tables: []snapshot.Files{{Directory: "/d2/bank/t-1/snapshots/tag"}, {Directory: "/d1/bank/t-1/snapshots/tag"}, {Directory: "/d1/bank/u-1/snapshots/tag"}}}
	if got := strings.Join(dataRoots(l), " "); got != "/d1 /d2" {
		t.Error(got)
	}
}
