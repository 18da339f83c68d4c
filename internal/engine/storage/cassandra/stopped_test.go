package cassandra

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/local"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/snapshot"
)

type draining struct{ importing }

type drainer struct{ rich }

func (drainer) Drain(context.Context) error { return nil }

func (t draining) Open(ctx context.Context, n node.Node) (node.Operator, error) {
	o, err := t.worldTransport.Open(ctx, n)
	if err != nil {
		return nil, err
	}
	return drainer{rich{importer{o}}}, nil
}

// newStopped is a target whose nodes have the tokens of the backup's.
func newStopped(t *testing.T) *target {
	t.Helper()
	x := newTarget(t, 3)
	base := t.TempDir()
	for _, dir := range []string{"data/system/paxos-1", "data/bank", "commitlog", "hints", "saved_caches"} {
		must(t, os.MkdirAll(filepath.Join(base, dir), 0o700))
	}
	x.s.Load, x.s.Transport, x.s.DataDirectories = nil, draining{importing{worldTransport: worldTransport{x.w}}}, []string{filepath.Join(base, "data")}
	x.s.Stopped = &StoppedSettings{CommitlogDirectory: filepath.Join(base, "commitlog"), HintsDirectory: filepath.Join(base, "hints"), SavedCachesDirectory: filepath.Join(base, "saved_caches")}
	for i, n := range x.w.nodes {
		slices.Reverse(n.tokens) // sorted
		x.ix.Nodes[i].Tokens, x.ix.Nodes[i].Rack = n.tokens, n.rack
	}
	return x
}

func TestPreflightOfStopped(t *testing.T) {
	for _, c := range []struct {
		name, says string
		change     func(x *target)
	}{
		{"", "", func(*target) {}},
		{"other order", "", func(x *target) {
			x.ix.Nodes[0].Tokens, x.ix.Nodes[1].Tokens = x.ix.Nodes[1].Tokens, x.ix.Nodes[0].Tokens
			x.ix.Nodes[0].Rack, x.ix.Nodes[1].Rack = "r2", "r1"
		}},
		{"other tokens", "tokens, datacenters and racks must be the same", func(x *target) { x.ix.Nodes[0].Tokens = []string{"7"} }},
		{"other rack", "tokens, datacenters and racks must be the same", func(x *target) { x.ix.Nodes[0].Rack = "r9" }},
		{"a node less", "10.1.0.1", func(x *target) { x.ix.Nodes = x.ix.Nodes[:2] }},
		{"a node was down", "use load", func(x *target) { x.extra = map[string]string{"down_nodes": hostID(99)} }},
		{"no drainer", "cannot drain", func(x *target) { x.s.Transport = importing{worldTransport: worldTransport{x.w}} }},
		{"no commit log", "directory /nowhere", func(x *target) { x.s.Stopped.CommitlogDirectory = "/nowhere" }},
		{"not all data directories", "system.paxos is in none", func(x *target) { x.s.DataDirectories = []string{x.s.Stopped.HintsDirectory} }},
		{"kept, not in place", "only in_place", func(x *target) { x.ix.Data = snapshot.DataNodes }},
		{"kept, other host ids", "it was replaced, or wiped", func(x *target) { x.ix.Data, x.s.Stopped.InPlace = snapshot.DataNodes, true }},
		{"kept, and gone", "has no snapshot t", func(x *target) {
			x.ix.Data, x.s.Stopped.InPlace = snapshot.DataNodes, true
			for i := range x.ix.Nodes {
				x.ix.Nodes[i].HostID = x.w.nodes[i].id
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := newStopped(t)
				c.change(x)
				err := x.preflight(t)
				if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
					t.Errorf("%v, want %q", err, c.says)
				}
			})
		})
	}
}

// What stays is what is named, whatever there is.
func TestEmpty(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"snapshots/tag/nb-1-big-Data.db", "backups/nb-1-big-Data.db", ".index/nb-1-big-Data.db", "nb-1-big-Data.db"} {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700))
		must(t, os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600))
	}
	must(t, empty(t.Context(), local.Machine{}, dir, "snapshots", "backups"))
	entries, err := os.ReadDir(dir)
	must(t, err)
	if len(entries) != 2 || entries[0].Name() != "backups" || entries[1].Name() != "snapshots" {
		t.Errorf("left are %v", entries)
	}
}
