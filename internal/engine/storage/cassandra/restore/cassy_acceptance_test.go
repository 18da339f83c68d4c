//go:build acceptance

package restore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gocql "github.com/apache/cassandra-gocql-driver/v2"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/clock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/memcatalog"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/cassy"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/cassy/cassytest"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/move"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/snapshot"
)

// byCassy has a server that follows Cassy's API take the snapshots of the real nodes, copy them elsewhere and bring them back. What it does not show is
// Cassy itself: its storage, its SSH, and how it places files.
func (g *ground) byCassy(t *testing.T) {
	s := g.settings()
	registered := cassytest.Cluster{ID: "one", Name: g.cluster.Options.Name, Keyspaces: keyspaces, Nodes: map[string]node.Operator{}}
	dirs := map[string]string{}
	for _, n := range g.cluster.Nodes {
		var id gocql.UUID
		ok(t, n.Session(t).Query("SELECT host_id FROM system.local").Scan(&id))
		op, err := s.Transport.Open(t.Context(), node.Node{Address: n.Address, HostID: id.String()})
		ok(t, err)
		defer op.Close() //nolint:errcheck // the node is stopped in the meantime
		registered.Nodes[n.Address], dirs[n.Address] = op, n.DataDir()
	}
	server := cassytest.Start(t, registered)
	stored := t.TempDir()
	// KEYSPACE/TABLE-ID of every snapshot goes to a directory of the node's.
	server.Upload = func(ip, tag string) error {
		found, err := filepath.Glob(filepath.Join(dirs[ip], "*", "*", "snapshots", tag))
		for _, from := range found {
			table := filepath.Dir(filepath.Dir(from))
			err = errors.Join(err, os.CopyFS(filepath.Join(stored, tag, ip, filepath.Base(filepath.Dir(table)), filepath.Base(table)), os.DirFS(from)))
		}
		return err
	}
	server.Placed = func(ip, tag string) error {
		if len(g.running()) > 0 {
			return fmt.Errorf("nodes %v are running", g.running())
		}
		return os.CopyFS(dirs[ip], os.DirFS(filepath.Join(stored, tag, ip)))
	}
	mover := cassy.Mover{Settings: cassy.Settings{Clock: clock.System{}, Address: server.Address, ClearOtherSnapshots: true}}
	s.Mover = mover
	b := g.captureWith(t, s, memcatalog.New(time.Now), "0000000000000003")
	server.Idle()
	g.later(t)
	g.cql(t, "DELETE FROM bank.accounts WHERE id IN (30, 31, 32)")
	into := func(inPlace bool) cassandra.DestinationSettings {
		d := g.stopped(inPlace)
		d.Mover = func(kind string) (move.Mover, error) {
			if kind != snapshot.KindCassy {
				t.Errorf("a mover for %s", kind)
			}
			return mover, nil
		}
		return d
	}
	if err := cassandra.NewDestination(into(false)).Preflight(t.Context(), b.restore(t, "x")); err == nil || !strings.Contains(err.Error(), "only in_place") {
		t.Errorf("same_topology: %v", err)
	}
	g.restoreStopped(t, into(true), b, "0000000000000026")
	g.same(t, b)
	if n := g.serial(t); n != 0 {
		t.Errorf("%d of %d rows are not those of the backup", n, lwtRows)
	}
	// It says COMPLETED, and one node has lost a table: found out while the nodes are stopped, and they are started again.
	server.Placed = nil
	var announced engine.Restored
	r := b.restore(t, "0000000000000027")
	r.Announce = func(_ context.Context, made engine.Restored) error { announced = made; return nil }
	if _, err := cassandra.NewDestination(into(true)).Restore(t.Context(), r); err == nil || !strings.Contains(err.Error(), "said that it restored all") {
		t.Errorf("a restore without files: %v", err)
	}
	ok(t, cassandra.NewDestination(into(true)).Delete(t.Context(), announced))
	if n := len(g.running()); n != len(g.cluster.Nodes) {
		t.Errorf("%d nodes are running", n)
	}
}

// running are the addresses of the nodes that run.
func (g *ground) running() (out []string) {
	for _, n := range g.cluster.Nodes {
		if n.Running() {
			out = append(out, n.Address)
		}
	}
	return out
}
