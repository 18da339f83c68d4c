//go:build acceptance

package jolokia_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	gocql "github.com/apache/cassandra-gocql-driver/v2"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/cassandra"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/clock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/jolokia"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/managementapi"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/managementapi/managementapitest"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/rest"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/sidecar"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/sidecar/sidecartest"
)

var keyspaces = []string{"app", "coordinator"}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// bed is a real cluster with the Jolokia agent in each node, some tables, and an Operator for each node.
type bed struct {
	cluster   *cassandra.Cluster
	session   *gocql.Session
	nodes     []node.Node
	operators []node.Operator
	transport *jolokia.Transport
}

func start(t *testing.T, version string, nodes int) *bed {
	t.Helper()
	b := &bed{cluster: cassandra.Start(t, cassandra.Options{Version: version, Nodes: nodes, Jolokia: true})}
	b.session = b.cluster.Session(t)
	for _, keyspace := range keyspaces {
		b.cql(t, fmt.Sprintf("CREATE KEYSPACE %s WITH replication = {'class': 'NetworkTopologyStrategy', 'dc1': %d}", keyspace, nodes))
	}
	b.cql(t, "CREATE TABLE app.items (id int PRIMARY KEY, v text)")
	b.cql(t, "CREATE TABLE app.empty (id int PRIMARY KEY)")
	b.cql(t, "CREATE TABLE coordinator.state (tx_id text PRIMARY KEY, tx_state int)")
	b.write(t, 0, 20)
	var err error
	b.transport, err = jolokia.New(rest.Settings{URL: "http://{address}:8778/jolokia", Clock: clock.System{}})
	must(t, err)
	for _, n := range b.cluster.Nodes {
		var id gocql.UUID
		must(t, n.Session(t).Query("SELECT host_id FROM system.local").Scan(&id))
		is := node.Node{HostID: id.String(), Address: n.Address, Datacenter: "dc1", Rack: n.Rack, Tokens: n.Tokens}
		b.nodes = append(b.nodes, is)
		b.operators = append(b.operators, open(t, b.transport, is))
	}
	return b
}

func open(t *testing.T, transport node.Transport, n node.Node) node.Operator {
	t.Helper()
	o, err := transport.Open(t.Context(), n)
	must(t, err)
	t.Cleanup(func() { must(t, o.Close()) })
	return o
}

func (b *bed) cql(t *testing.T, statement string, values ...any) {
	t.Helper()
	if err := b.session.Query(statement, values...).Consistency(gocql.All).Exec(); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func (b *bed) write(t *testing.T, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		b.cql(t, "INSERT INTO app.items (id, v) VALUES (?, ?)", i, "x")
		b.cql(t, "INSERT INTO coordinator.state (tx_id, tx_state) VALUES (?, 3)", strconv.Itoa(i))
	}
}

func (b *bed) tables(_ context.Context, of []string) ([]node.Table, error) {
	if len(of) == 0 {
		of = keyspaces
	}
	all := map[string][]node.Table{
		"app": {{Keyspace: "app", Name: "empty"}, {Keyspace: "app", Name: "items"}}, "coordinator": {{Keyspace: "coordinator", Name: "state"}},
	}
	var found []node.Table
	for _, keyspace := range of {
		found = append(found, all[keyspace]...)
	}
	return found, nil
}

// onDisk are the tables that have files of data in a snapshot.
func onDisk(t *testing.T, n *cassandra.Node, tag string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(n.DataDir(), "*", "*", "snapshots", tag, "*-Data.db"))
	must(t, err)
	var tables []string
	for _, file := range files {
		table, _, _ := strings.Cut(filepath.Base(filepath.Dir(filepath.Dir(filepath.Dir(file)))), "-")
		tables = append(tables, filepath.Base(filepath.Dir(filepath.Dir(filepath.Dir(filepath.Dir(file)))))+"."+table)
	}
	slices.Sort(tables)
	return slices.Compact(tables)
}

func names(all []node.Snapshot) []string {
	var tables []string
	for _, s := range all {
		tables = append(tables, s.Keyspace+"."+s.Table)
	}
	slices.Sort(tables)
	return tables
}

// snapshots takes, lists and clears one on a real node, through whatever transport, and looks at the disk.
func snapshots(t *testing.T, n *cassandra.Node, o node.Operator, tag string) {
	t.Helper()
	must(t, o.CheckRights(t.Context(), tag, keyspaces))
	if got := onDisk(t, n, "*rights*"); len(got) > 0 {
		t.Fatalf("checking rights left snapshots of %v", got)
	}
	begin := time.Now()
	must(t, o.TakeSnapshot(t.Context(), tag, keyspaces))
	t.Logf("taking snapshot %s took %s", tag, time.Since(begin))
	if got := onDisk(t, n, tag); !slices.Equal(got, []string{"app.items", "coordinator.state"}) {
		t.Errorf("files of %v in snapshot %s", got, tag)
	}
	if err := o.TakeSnapshot(t.Context(), tag, keyspaces); !errors.Is(err, node.ErrSnapshotExists) {
		t.Errorf("a second one of the same tag: %v", err)
	}
	all, err := node.SnapshotsOf(t.Context(), o, tag)
	must(t, err)
	if got := names(all); !slices.Equal(got, []string{"app.empty", "app.items", "coordinator.state"}) {
		t.Errorf("listed %v", got)
	}
	for _, s := range all {
		if s.Tag != tag || s.Size <= 0 {
			t.Errorf("listed %+v", s)
		}
	}
	everything, err := o.Snapshots(t.Context())
	must(t, err)
	if len(everything) < len(all) {
		t.Errorf("listed %v among all", everything)
	}
	must(t, o.ClearSnapshot(t.Context(), tag, []string{"app"}))
	if got := onDisk(t, n, tag); !slices.Equal(got, []string{"coordinator.state"}) {
		t.Errorf("files of %v after clearing app", got)
	}
	must(t, o.ClearSnapshot(t.Context(), tag, keyspaces))
	all, err = node.SnapshotsOf(t.Context(), o, tag)
	must(t, err)
	if got := onDisk(t, n, tag); len(got)+len(all) > 0 {
		t.Errorf("files of %v, and %v listed, after clearing", got, all)
	}
}

func TestAccNodes(t *testing.T) {
	b := start(t, cassandra.Version50, 2)

	t.Run("identity", func(t *testing.T) {
		wrong := b.nodes[0]
		wrong.HostID = b.nodes[1].HostID
		if _, err := b.transport.Open(t.Context(), wrong); err == nil || !strings.Contains(err.Error(), "leads to node "+b.nodes[0].HostID) {
			t.Errorf("opening the wrong node: %v", err)
		}
	})
	t.Run("jolokia", func(t *testing.T) {
		for i, o := range b.operators {
			b.write(t, 20+i, 21+i) // so that there is something to flush
			snapshots(t, b.cluster.Nodes[i], o, "jolokia_"+strconv.Itoa(i))
		}
	})
	t.Run("management_api", func(t *testing.T) {
		// The double answers for the real node, by Jolokia.
		n := b.nodes[0]
		for _, old := range []bool{false, true} {
			double := managementapitest.Start(t, managementapitest.Options{
				Node: n, Cluster: b.nodes, Backing: b.operators[0], OldRelease: old, Listen: net.JoinHostPort(n.Address, "0"),
			})
			transport, err := managementapi.New(rest.Settings{URL: double.URL, Clock: clock.System{}})
			must(t, err)
			snapshots(t, b.cluster.Nodes[0], open(t, transport, n), "management_api_"+strconv.FormatBool(old))
		}
	})
	t.Run("sidecar", func(t *testing.T) {
		double := sidecartest.Start(t, sidecartest.Options{Node: b.nodes[1], Cluster: b.nodes, Backing: sidecartest.Over(b.operators[1])})
		transport, err := sidecar.New(rest.Settings{URL: double.URL, Clock: clock.System{}}, b.tables)
		must(t, err)
		snapshots(t, b.cluster.Nodes[1], open(t, transport, b.nodes[1]), "sidecar")
	})
	t.Run("writes", func(t *testing.T) {
		table := node.Table{Keyspace: "coordinator", Name: "state"}
		count := func(o node.Operator) int64 {
			counts, err := o.(node.WriteCounter).Writes(t.Context(), []node.Table{table, {Keyspace: "app", Name: "empty"}})
			must(t, err)
			return counts[table]
		}
		before := count(b.operators[0])
		b.write(t, 100, 107)
		if got := count(b.operators[0]) - before; got != 7 {
			t.Errorf("counted %d writes, want 7", got)
		}
	})
	t.Run("flush", func(t *testing.T) {
		b.write(t, 200, 203)
		before := b.cluster.Nodes[0].SSTables(t, "coordinator", "state")
		must(t, b.operators[0].(node.Flusher).Flush(t.Context(), "coordinator"))
		if after := b.cluster.Nodes[0].SSTables(t, "coordinator", "state"); !slices.ContainsFunc(after, func(f string) bool { return !slices.Contains(before, f) }) {
			t.Errorf("after a flush there are the SSTables %v, before it %v", after, before)
		}
	})
	t.Run("directories", func(t *testing.T) {
		got, err := b.operators[0].(node.DirectoryLister).DataDirectories(t.Context())
		must(t, err)
		if want := b.cluster.Nodes[0].DataDirs(); !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	})
	t.Run("import", func(t *testing.T) {
		var rows int
		must(t, b.session.Query("SELECT count(*) FROM app.items").Scan(&rows))
		staged := map[node.Operator]string{}
		for i, o := range b.operators {
			must(t, o.TakeSnapshot(t.Context(), "before", keyspaces))
			found, err := filepath.Glob(filepath.Join(b.cluster.Nodes[i].DataDir(), "app", "items-*", "snapshots", "before"))
			must(t, err)
			staged[o] = filepath.Join(t.TempDir(), "app", "items")
			must(t, os.CopyFS(staged[o], os.DirFS(found[0])))
		}
		b.cql(t, "TRUNCATE app.items")
		for o, directory := range staged {
			before, err := os.ReadDir(directory)
			must(t, err)
			must(t, o.(node.Importer).Import(t.Context(), "app", "items", []string{directory}))
			after, err := os.ReadDir(directory)
			must(t, err)
			if len(after) != len(before) {
				t.Errorf("%d of %d files are left after the import", len(after), len(before))
			}
			if err := o.(node.Importer).Import(t.Context(), "app", "items", []string{filepath.Join(t.TempDir(), "app", "items")}); err == nil {
				t.Error("importing a directory that is not there is no error")
			}
		}
		var got int
		must(t, b.session.Query("SELECT count(*) FROM app.items").Scan(&got))
		if got != rows {
			t.Errorf("%d of %d rows after the import", got, rows)
		}
	})
	t.Run("repair", func(t *testing.T) {
		must(t, b.operators[0].(node.Repairer).Repair(t.Context(), "app"))
		if !strings.Contains(b.cluster.Nodes[0].LogTail(200), "Repair command #") {
			t.Error("the node's log knows of no repair")
		}
		if err := b.operators[0].(node.Repairer).Repair(t.Context(), "nope"); err == nil {
			t.Error("repairing a keyspace that is not there is no error")
		}
	})
}

// An older release lists snapshots in another form.
func TestAccNode41(t *testing.T) {
	b := start(t, cassandra.Version41, 1)
	snapshots(t, b.cluster.Nodes[0], b.operators[0], "jolokia")
	must(t, b.operators[0].(node.Repairer).Repair(t.Context(), "app"))
}
