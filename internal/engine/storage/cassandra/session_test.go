package cassandra

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gocql "github.com/apache/cassandra-gocql-driver/v2"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/move"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/snapshot"
)

func preflight(t *testing.T, s Settings) (*session, engine.Run) {
	t.Helper()
	r := run()
	x, err := NewSource(s).Preflight(t.Context(), r)
	if err != nil {
		t.Fatalf("preflight: %v", err)
	}
	return x.(*session), r //nolint:forcetypeassert // it makes no other
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func isVoid(err error, text string) bool {
	var void *engine.VoidError
	return errors.As(err, &void) && strings.Contains(void.Reason, text)
}

func TestBackup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(3)
		x, r := preflight(t, w.settings())
		f := x.Facts()
		if !strings.HasPrefix(f.SourceID, "prod/") || f.ToolVersions["cassandra"] != "5.0.9" || f.Witness == "none" || f.NeedsInstant || f.ByTime || len(f.Warnings) > 0 {
			t.Errorf("facts %+v", f)
		}
		if len(f.Planned) != 2 || f.Planned[0].Kind != snapshot.KindNodes || f.Planned[0].ID != "scalardb-before-2-0-rc-1-0123456789abcdef" || f.Planned[0].Extra["keyspaces"] != "bank,coordinator,scalardb" {
			t.Errorf("planned %+v", f.Planned)
		}
		opened := w.opened
		must(t, x.Capture(t.Context()))
		must(t, x.Confirm(t.Context()))
		if w.opened != opened {
			t.Errorf("%d connections were made in the window", w.opened-opened)
		}
		c, err := x.Await(t.Context())
		must(t, err)
		if len(c.Artifacts) != 2 || c.Artifacts[0].ID != f.Planned[0].ID || c.Artifacts[1].ID != f.Planned[1].ID || !c.HasCoordinator || c.CoordinatorNewest != -1 {
			t.Errorf("captured %+v", c)
		}
		if len(c.Tables) != 2 || c.Tables[0] != (engine.TableWitness{Namespace: "bank", Table: "accounts", Transactional: true, Rows: -1, Estimated: true}) || c.Tables[1].Transactional {
			t.Errorf("tables %+v", c.Tables)
		}
		must(t, x.Close())
		must(t, x.Close())

		ix, err := snapshot.ReadIndex(t.Context(), r.Catalog, c.Artifacts[1])
		must(t, err)
		if len(ix.Nodes) != 3 || len(ix.Keyspaces) != 3 || ix.Tag != c.Artifacts[0].ID || ix.Nodes[0].Tokens[0] != "-1000" || ix.Keyspaces[0].CQL[0] == "" {
			t.Errorf("index %+v", ix)
		}
		if n := len(w.left(t)); n != 12 {
			t.Errorf("%d snapshots are on the nodes", n)
		}

		s := w.settings()
		s.Catalog = r.Catalog
		k := NewKeeper(s, true, nil)
		for _, a := range c.Artifacts {
			must(t, k.Inspect(t.Context(), a))
		}
		// One table's snapshot on one node is gone.
		must(t, w.nodes[1].op.ClearSnapshot(t.Context(), ix.Tag, []string{"coordinator"}))
		if err := k.Inspect(t.Context(), c.Artifacts[0]); !errors.Is(err, engine.ErrNotFound) || !strings.Contains(err.Error(), "10.0.0.2") {
			t.Errorf("inspecting half a snapshot: %v", err)
		}
		must(t, w.nodes[0].op.TakeSnapshot(t.Context(), "PRECIOUS", []string{"bank"}))
		for range 2 {
			for _, a := range c.Artifacts {
				must(t, k.Delete(t.Context(), a))
				if err := k.Inspect(t.Context(), a); !errors.Is(err, engine.ErrNotFound) {
					t.Errorf("inspecting a deleted %s: %v", a.Kind, err)
				}
			}
		}
		if left := w.left(t); len(left) != 2 || !strings.Contains(left[0], "PRECIOUS") {
			t.Errorf("after the deletion there is %v", left)
		}
		if objects, err := r.Catalog.List(t.Context(), ""); err != nil || len(objects) > 0 {
			t.Errorf("in the catalog is %v, %v", objects, err)
		}
	})
}

func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		change func(w *world, s *Settings)
		want   []string
	}{
		"no contact point answers": {func(w *world, s *Settings) { w.nodes[0].down, w.nodes[1].down = true, true }, []string{"no contact point answers", "10.0.0.1", "10.0.0.2"}},
		"a node is down":           {func(w *world, _ *Settings) { w.nodes[2].down = true }, []string{"node 10.0.0.3", "is down", "allow_down_nodes"}},
		"two things at once":       {func(w *world, _ *Settings) { w.nodes[2].down, w.gossip["10.0.0.2"] = true, "LEAVING,5" }, []string{"10.0.0.3", "is down", "10.0.0.2 is leaving"}},
		"a node joins":             {func(w *world, _ *Settings) { w.gossip["10.0.0.9"] = "BOOT,5" }, []string{"10.0.0.9 is joining"}},
		"a node moves":             {func(w *world, _ *Settings) { w.gossip["10.0.0.1"] = "MOVING,5" }, []string{"10.0.0.1 is moving"}},
		"a node is being removed":  {func(w *world, _ *Settings) { w.gossip["10.0.0.1"] = "removing,5" }, []string{"10.0.0.1 is being removed"}},
		"a node is replaced":       {func(w *world, _ *Settings) { w.gossip["10.0.0.1"] = "BOOT_REPLACE,5" }, []string{"10.0.0.1 is joining"}},
		"no tokens":                {func(w *world, _ *Settings) { w.nodes[1].tokens = nil }, []string{"10.0.0.2", "has no tokens"}},
		"an old release":           {func(w *world, _ *Settings) { w.nodes[1].version = "3.11.4" }, []string{"10.0.0.2", "3.11.4"}},
		"a new release":            {func(w *world, _ *Settings) { w.nodes[1].version = "6.0-alpha2" }, []string{"10.0.0.2", "6.0-alpha2"}},
		"schemas differ":           {func(w *world, _ *Settings) { w.nodes[1].schema = "v2" }, []string{"do not agree on the schema", "v2"}},
		"another node answers":     {func(w *world, _ *Settings) { w.nodes[1].stranger = hostID(77) }, []string{"10.0.0.2", "is down"}},
		"no such datacenter":       {func(_ *world, s *Settings) { s.Datacenter = "dc9" }, []string{`no datacenter "dc9"`}},
		"no such keyspace":         {func(_ *world, s *Settings) { s.Keyspaces = []string{"bank", "typo"} }, []string{"no keyspaces typo"}},
		"nothing of ScalarDB": {func(w *world, _ *Settings) {
			w.keyspaces, w.tables, w.listed = map[string]map[string]string{"x": {"class": "SimpleStrategy", "replication_factor": "1"}}, nil, nil
		}, []string{"no keyspace of ScalarDB"}},
		"no transport there": {func(w *world, _ *Settings) { w.nodes[1].broken = errors.New("access denied to takeSnapshot") }, []string{"10.0.0.2", "access denied"}},
		"the tag is there": {func(w *world, _ *Settings) {
			mustly(w.nodes[1].op.TakeSnapshot(context.Background(), tagOf(run()), []string{"bank"}))
		}, []string{"10.0.0.2", "is there already"}},
		"no right to namespaces":   {func(w *world, _ *Settings) { w.denied = "namespaces" }, []string{"GRANT SELECT", "scalardb"}},
		"upload without a catalog": {func(_ *world, s *Settings) { s.CatalogIsDefault, s.Mover = true, calledSo{kept{}, snapshot.DataUpload} }, []string{"catalog"}},
		"files are not reached":    {func(_ *world, s *Settings) { s.Mover = wantsFiles{kept{}} }, []string{"opening its files"}},
		"a view of its own":        {func(w *world, _ *Settings) { w.nodes[2].hidden = true; w.nodes[2].dc = "dc1" }, []string{"does not know node " + hostID(3), "10.0.0.1"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(3)
				s := w.settings()
				if name == "a view of its own" {
					s.ContactPoints = []string{"10.0.0.3"} // which knows the others, that do not know it
				}
				c.change(w, &s)
				x, err := NewSource(s).Preflight(t.Context(), run())
				if err == nil {
					must(t, x.Close())
					t.Fatal("it was not refused")
				}
				for _, want := range c.want {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("%q is not in: %v", want, err)
					}
				}
			})
		})
	}
}

type calledSo struct {
	move.Mover
	name string
}

func (n calledSo) Name() string { return n.name }

type wantsFiles struct{ move.Mover }

func (wantsFiles) NeedsFiles() bool { return true }

func TestWarnings(t *testing.T) {
	for name, c := range map[string]struct {
		change func(w *world, s *Settings)
		want   string
	}{
		"periodic":             {func(w *world, _ *Settings) { w.nodes[1].periodic = true }, "commitlog_sync is periodic on 10.0.0.2"},
		"no settings":          {func(w *world, _ *Settings) { w.denied = "system_views" }, "settings could not be read"},
		"no gossip":            {func(w *world, _ *Settings) { w.gossip = nil }, "joins, leaves or moves could not be asked"},
		"mixed releases":       {func(w *world, _ *Settings) { w.nodes[1].version = "4.1.10" }, "4.1.10, 5.0.9"},
		"a namespace left out": {func(_ *world, s *Settings) { s.Keyspaces = []string{"scalardb"} }, "namespaces bank are not among"},
		"an unlisted one":      {func(w *world, _ *Settings) { w.listed = []string{"coordinator"} }, "Keyspace bank has transactional tables"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(3)
				s := w.settings()
				c.change(w, &s)
				x, _ := preflight(t, s)
				defer x.Close() //nolint:errcheck // a fake
				if all := strings.Join(x.Facts().Warnings, "\n"); !strings.Contains(all, c.want) {
					t.Errorf("%q is not in %q", c.want, all)
				}
			})
		})
	}
}

func TestDownNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(5)
		w.nodes[4].down = true
		s := w.settings()
		s.AllowDownNodes = true
		x, _ := preflight(t, s)
		if all := strings.Join(x.Facts().Warnings, " "); !strings.Contains(all, "10.0.0.5") || !strings.Contains(all, "repair") {
			t.Errorf("warnings %q", all)
		}
		must(t, x.Capture(t.Context()))
		must(t, x.Confirm(t.Context()))
		c, err := x.Await(t.Context())
		must(t, err)
		if c.Extra["down_nodes"] != hostID(5) || strings.Contains(c.Artifacts[0].Extra["nodes"], hostID(5)) {
			t.Errorf("captured %+v", c)
		}
		must(t, x.Close())
		// Two nodes that have a range in common.
		w.nodes[3].down = true
		if _, err := NewSource(s).Preflight(t.Context(), run()); err == nil || !strings.Contains(err.Error(), "needed for a quorum") || !strings.Contains(err.Error(), "keyspace bank") {
			t.Errorf("without a quorum: %v", err)
		}
		// The deletion needs those that have a part of it, and no others.
		w.nodes[3].down = false
		s.Catalog = run().Catalog
		must(t, NewKeeper(s, true, nil).Delete(t.Context(), c.Artifacts[0]))
		if left := w.left(t); len(left) > 0 {
			t.Errorf("there is %v", left)
		}
	})
}

// TestReplicaDiedAMomentAgo: until the others have noticed, what is asked of it is not answered. Preflight has the time to ask again.
func TestReplicaDiedAMomentAgo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, says := range []error{gocql.ErrTimeoutNoResponse, noReplica} {
			w := newWorld(3)
			w.unanswered, w.unansweredErr = 2, says
			x, _ := preflight(t, w.settings())
			must(t, x.Close())
			w.unanswered = 3
			if _, err := NewSource(w.settings()).Preflight(t.Context(), run()); !errors.Is(err, says) {
				t.Errorf("never answered: %v, want %v", err, says)
			}
		}
	})
}

func TestWindow(t *testing.T) {
	for name, c := range map[string]struct {
		during func(w *world) // between capture and confirm
		want   string         // empty: the window holds
	}{
		"nothing":                      {func(*world) {}, ""},
		"a write on all replicas":      {func(w *world) { w.write(accounts, 0, 1, 2) }, "table bank.accounts was written"},
		"a write on a quorum":          {func(w *world) { w.write(state, 0, 2) }, "table coordinator.state was written"},
		"a late copy":                  {func(w *world) { w.write(accounts, 1) }, ""},
		"many late copies to one node": {func(w *world) { w.write(accounts, 1); w.write(state, 1); w.write(accounts, 1) }, ""},
		"a table that is not watched":  {func(w *world) { w.write(notes, 0, 1, 2) }, ""},
		"the schema": {func(w *world) {
			w.change(func() { w.nodes[0].schema, w.nodes[1].schema, w.nodes[2].schema = "v2", "v2", "v2" })
		}, "the schema changed"},
		"the schema of one node": {func(w *world) { w.change(func() { w.nodes[2].schema = "v2" }) }, "do not agree"},
		"a new node": {func(w *world) {
			w.change(func() {
				w.nodes = append(w.nodes, &worldNode{w: w, id: hostID(9), address: "10.0.0.9", schema: "v1", tokens: []string{"9"}})
			})
		}, "it knows a node"},
		"a token moved": {func(w *world) { w.change(func() { w.nodes[2].tokens = []string{"5"} }) }, "its tokens"},
		"a node restarted": {func(w *world) {
			w.write(state, 0, 1, 2)
			w.change(func() { w.nodes[1].writes = map[node.Table]int64{} })
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(3)
				w.write(state, 0, 1, 2)
				w.write(accounts, 0, 1, 2)
				x, _ := preflight(t, w.settings())
				defer x.Close() //nolint:errcheck // a fake
				must(t, x.Capture(t.Context()))
				c.during(w)
				err := x.Confirm(t.Context())
				if name == "a node restarted" {
					c.want = "10.0.0.2"
				}
				switch {
				case c.want == "" && err != nil:
					t.Errorf("the window was voided: %v", err)
				case c.want != "" && !isVoid(err, c.want):
					t.Errorf("%v, want it void because %q", err, c.want)
				}
			})
		})
	}
}

// Writes that lag when the pause begins are in the baseline, and those that never end void.
func TestSettling(t *testing.T) {
	for name, c := range map[string]struct {
		until time.Duration
		void  bool
	}{"they end": {500 * time.Millisecond, false}, "they go on": {time.Hour, true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(3)
				x, _ := preflight(t, w.settings())
				defer x.Close() //nolint:errcheck // a fake
				began := time.Now()
				ctx, stop := context.WithCancel(t.Context())
				var writer sync.WaitGroup
				defer writer.Wait()
				defer stop()
				writer.Go(func() {
					for i := 0; time.Since(began) < c.until && ctx.Err() == nil; i++ {
						w.write(accounts, i%3, (i+1)%3)
						time.Sleep(3 * time.Millisecond)
					}
				})
				err := x.Capture(t.Context())
				took := time.Since(began)
				if c.void {
					if !isVoid(err, "bank.accounts") || took > settling+time.Second || len(w.left(t)) > 0 {
						t.Errorf("%v after %s", err, took)
					}
					return
				}
				must(t, err)
				if took < c.until || took > c.until+time.Second {
					t.Errorf("it took %s", took)
				}
				must(t, x.Confirm(t.Context()))
			})
		})
	}
}

// A write between the baseline and the last snapshot is what tears a backup. It is seen by the transport's counters, and over CQL where it has none: also where
// there are so many tables that the coordinator's alone is watched.
func TestWriteWhileSnapshotsAreTaken(t *testing.T) {
	for name, c := range map[string]struct {
		blind  bool
		more   int // tables
		writes node.Table
	}{"transport": {writes: accounts}, "CQL": {blind: true, writes: accounts}, "transport, many tables": {more: watched, writes: state}, "CQL, many tables": {true, watched, state}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(3)
				for i := range c.more {
					w.tables = append(w.tables, node.Table{Keyspace: "bank", Name: fmt.Sprint("more", i)})
				}
				w.nodes[0].blind, w.nodes[1].blind, w.nodes[2].blind = c.blind, c.blind, c.blind
				x, _ := preflight(t, w.settings())
				defer x.Close() //nolint:errcheck // a fake
				w.nodes[0].take = func(context.Context) error { w.write(c.writes, 0, 1, 2); return nil }
				must(t, x.Capture(t.Context()))
				if err := x.Confirm(t.Context()); !isVoid(err, c.writes.String()) {
					t.Errorf("%v", err)
				}
			})
		})
	}
}

// The memtables are emptied while everybody still writes; where that fails, nothing is paused.
func TestFlushedBeforeThePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(3)
		w.nodes[1].blind = true // it cannot
		x, _ := preflight(t, w.settings())
		must(t, x.Close())
		for i, want := range [][]string{{"bank", "coordinator", "scalardb"}, nil, {"bank", "coordinator", "scalardb"}} {
			if got := w.nodes[i].flushed; !slices.Equal(got, want) {
				t.Errorf("node %d flushed %v, want %v", i, got, want)
			}
		}
		w.nodes[2].noFlush = errors.New("no space left on device")
		if _, err := NewSource(w.settings()).Preflight(t.Context(), run()); err == nil || !strings.Contains(err.Error(), "10.0.0.3") || !strings.Contains(err.Error(), "before the pause: no space left") {
			t.Errorf("%v", err)
		}
	})
}

// The manifest says how long the slowest node took: what the pause could not have been shorter than.
func TestSlowestSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(3)
		x, _ := preflight(t, w.settings())
		defer x.Close() //nolint:errcheck // a fake
		w.nodes[1].take = func(context.Context) error { time.Sleep(1234567 * time.Microsecond); return nil }
		must(t, x.Capture(t.Context()))
		must(t, x.Confirm(t.Context()))
		c, err := x.Await(t.Context())
		must(t, err)
		if got := c.Extra["slowest_snapshot_ms"]; got != "1234.6" {
			t.Errorf("the slowest took %q", got)
		}
	})
}

// The counters are read in the faster way that a node allows, which need not be another node's.
func TestFasterWitness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(3)
		w.nodes[0].counting = 40 * time.Millisecond // a call for each table, from afar
		w.nodes[1].countingCQL = 40 * time.Millisecond
		x, _ := preflight(t, w.settings())
		defer x.Close() //nolint:errcheck // a fake
		for _, n := range w.nodes {
			n.counted, n.countedCQL = 0, 0
		}
		began := time.Now()
		must(t, x.Capture(t.Context()))
		must(t, x.Confirm(t.Context()))
		for i, want := range [][2]int{{0, 3}, {3, 0}, {3, 0}} {
			if got := [2]int{w.nodes[i].counted, w.nodes[i].countedCQL}; got != want {
				t.Errorf("node %d: the transport was asked %d times, CQL %d times, want %v", i, got[0], got[1], want)
			}
		}
		if took := time.Since(began); took > 2*quiet {
			t.Errorf("the window took %s", took)
		}

		must(t, x.Discard(t.Context()))
		w.denied = "local_write_latency"
		x, _ = preflight(t, w.settings())
		defer x.Close() //nolint:errcheck // a fake
		if f := x.Facts(); f.Witness == "none" {
			t.Error("there is no witness, though the transport has one")
		}
		w.nodes[0].counted = 0
		must(t, x.Capture(t.Context()))
		if got := w.nodes[0].counted; got != 2 {
			t.Errorf("the transport was asked %d times, want 2", got)
		}
	})
}

func TestNoWitness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(3)
		w.nodes[1].blind, w.denied = true, "local_write_latency"
		x, _ := preflight(t, w.settings())
		defer x.Close() //nolint:errcheck // a fake
		if f := x.Facts(); f.Witness != "none" || !slices.ContainsFunc(f.Warnings, func(s string) bool { return strings.Contains(s, "SELECT on system_views") }) {
			t.Errorf("witness %q, warnings %q", f.Witness, f.Warnings)
		}
		must(t, x.Capture(t.Context()))
		must(t, x.Confirm(t.Context()))
	})
}

// All nodes are asked before the first one answers, and one that fails ends the capture at once; nothing is left on any node, also of calls that end late.
func TestFailedSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(3)
		x, _ := preflight(t, w.settings())
		w.nodes[0].take = func(context.Context) error { time.Sleep(20 * time.Second); return nil } // confirms late, and has it
		w.nodes[1].take = func(context.Context) error { time.Sleep(time.Second); return errors.New("no space left on device") }
		began := time.Now()
		err := x.Capture(t.Context())
		if err == nil || !strings.Contains(err.Error(), "10.0.0.2") || !strings.Contains(err.Error(), "no space left") {
			t.Errorf("%v", err)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("the pause was held up for %s", took)
		}
		must(t, x.Discard(t.Context()))
		if left := w.left(t); len(left) > 0 {
			t.Errorf("there is %v", left)
		}
		must(t, x.Discard(t.Context()))
		must(t, x.Close())
		synctest.Wait()
		if left := w.left(t); len(left) > 0 {
			t.Errorf("afterwards there is %v", left)
		}
	})
}

// A call that was cut off may be carried out later: the discard waits for a while, and clears it.
func TestSnapshotThatComesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(3)
		s := w.settings()
		s.SnapshotTimeout = 2 * time.Second
		x, _ := preflight(t, s)
		w.nodes[1].take = func(ctx context.Context) error {
			<-ctx.Done()
			go func() {
				time.Sleep(time.Second)
				_ = w.nodes[1].op.TakeSnapshot(context.Background(), x.tag, []string{"bank"}) //nolint:errcheck // a fake
			}()
			return ctx.Err()
		}
		if err := x.Capture(t.Context()); err == nil || !strings.Contains(err.Error(), "snapshot_timeout (2s)") || !strings.Contains(err.Error(), "10.0.0.2") {
			t.Errorf("%v", err)
		}
		must(t, x.Discard(t.Context()))
		if left := w.left(t); len(left) > 0 {
			t.Errorf("there is %v", left)
		}
		must(t, x.Close())
	})
}

func TestCancelledCapture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(3)
		x, _ := preflight(t, w.settings())
		w.nodes[2].take = func(context.Context) error { time.Sleep(10 * time.Second); return nil }
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := x.Capture(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "10.0.0.3") {
			t.Errorf("%v", err)
		}
		must(t, x.Discard(t.Context()))
		if left := w.left(t); len(left) > 0 {
			t.Errorf("there is %v", left)
		}
		must(t, x.Close())
	})
}

// A node that dies in the window: no backup, the discard names it, and the next run clears what it has when it is back.
func TestNodeDiesInTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(3)
		s := w.settings()
		x, r := preflight(t, s)
		must(t, x.Capture(t.Context()))
		w.change(func() { w.nodes[1].down = true })
		if err := x.Confirm(t.Context()); err == nil || !strings.Contains(err.Error(), "10.0.0.2") {
			t.Errorf("confirm: %v", err)
		}
		if err := x.Discard(t.Context()); err == nil || !strings.Contains(err.Error(), "10.0.0.2") {
			t.Errorf("discard: %v", err)
		}
		if left := w.left(t); len(left) != 4 {
			t.Errorf("the other nodes are not cleared: %v", left)
		}
		planned := x.Facts().Planned
		must(t, x.Close())
		s.Catalog = r.Catalog
		k := NewKeeper(s, true, nil)
		if err := k.Delete(t.Context(), planned[0]); err == nil || !strings.Contains(err.Error(), "10.0.0.2") {
			t.Errorf("deleting while it is down: %v", err)
		}
		w.change(func() { w.nodes[1].down = false })
		for _, a := range planned {
			must(t, k.Delete(t.Context(), a))
		}
		if left := w.left(t); len(left) > 0 {
			t.Errorf("there is %v", left)
		}
	})
}

func TestClearingIsNotBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(3)
		x, _ := preflight(t, w.settings())
		defer x.Close() //nolint:errcheck // a fake
		must(t, x.Capture(t.Context()))
		w.nodes[1].deaf = true
		if err := x.Discard(t.Context()); err == nil || !strings.Contains(err.Error(), "10.0.0.2") || !strings.Contains(err.Error(), "still there") {
			t.Errorf("%v", err)
		}
	})
}

// A node that confirmed a snapshot which it has not, or not of every table.
func TestListingIsCompared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(3)
		x, _ := preflight(t, w.settings())
		defer x.Close() //nolint:errcheck // a fake
		must(t, x.Capture(t.Context()))
		must(t, w.nodes[2].op.ClearSnapshot(t.Context(), x.tag, []string{"coordinator"}))
		if _, err := x.Await(t.Context()); err == nil || !strings.Contains(err.Error(), "10.0.0.3") || !strings.Contains(err.Error(), "coordinator.state") {
			t.Errorf("%v", err)
		}
	})
}

func TestConnectionThatBreaksBeforeAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(3)
		x, _ := preflight(t, w.settings())
		defer x.Close() //nolint:errcheck // a fake
		must(t, x.Capture(t.Context()))
		w.change(func() { w.nodes[2].broken = errors.New("connection reset") })
		go func() {
			time.Sleep(3 * time.Second)
			w.change(func() { w.nodes[2].broken = nil })
		}()
		if _, err := x.Await(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(3)
		w.nodes[0].ahead, w.nodes[2].ahead = -300*time.Millisecond, 500*time.Millisecond
		c, err := NewSource(w.settings()).OpenClock(t.Context())
		must(t, err)
		b, err := c.MeasureClock(t.Context())
		must(t, err)
		if b.Offset-b.Uncertainty > -300*time.Millisecond || b.Offset+b.Uncertainty < 500*time.Millisecond || b.Uncertainty > 410*time.Millisecond {
			t.Errorf("bound %+v does not hold all nodes, or too much", b)
		}
		must(t, c.Close())
		w.nodes[1].down = true
		if _, err := NewSource(w.settings()).OpenClock(t.Context()); err == nil || !strings.Contains(err.Error(), "10.0.0.2") {
			t.Errorf("with a node down: %v", err)
		}
	})
}

func TestKeeperRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(3)
		s := w.settings()
		s.Catalog = run().Catalog
		k := NewKeeper(s, true, func(kind string) (move.Mover, error) { return nil, fmt.Errorf("no %s", kind) })
		ctx := t.Context()
		tag := engine.Artifact{Kind: snapshot.KindNodes, ID: "t", Extra: map[string]string{"cluster": "another"}}
		if err := k.Delete(ctx, tag); err == nil || !strings.Contains(err.Error(), "another") {
			t.Errorf("another cluster: %v", err)
		}
		if err := NewKeeper(Settings{Clock: s.Clock}, false, nil).Delete(ctx, engine.Artifact{Kind: snapshot.KindNodes, ID: "t"}); err == nil || !strings.Contains(err.Error(), "not known") {
			t.Errorf("without arguments: %v", err)
		}
		if err := k.Delete(ctx, engine.Artifact{Kind: snapshot.KindNodes, ID: ""}); err == nil {
			t.Error("no tag, which clears all snapshots, was taken")
		}
		for _, id := range []string{"backups/x/index.json", "index.json", "backups/a/b/c/d/index.json", "backups/a/../b/index.json", "backups/a/b/c/other.json", "locks/a/b/c/index.json"} {
			if err := k.Delete(ctx, engine.Artifact{Kind: snapshot.KindIndex, ID: id}); err == nil {
				t.Errorf("%s was deleted", id)
			}
		}
		if err := k.Delete(ctx, engine.Artifact{Kind: "x", ID: "y"}); err == nil {
			t.Error("an unknown kind was deleted")
		}
		// A captured node that left the cluster takes its part with it.
		gone := engine.Artifact{Kind: snapshot.KindNodes, ID: "t", Extra: map[string]string{"nodes": hostID(1) + "=4," + hostID(8) + "=4", "cluster": "prod"}}
		must(t, k.Delete(ctx, gone))
		if err := k.Inspect(ctx, gone); !errors.Is(err, engine.ErrNotFound) || !strings.Contains(err.Error(), hostID(8)) {
			t.Errorf("inspecting it: %v", err)
		}
	})
}

func mustly(err error) {
	if err != nil {
		panic(err)
	}
}
