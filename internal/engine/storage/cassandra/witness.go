package cassandra

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
)

const (
	// watched is how many tables the witness reads at most; with more it reads the coordinator table alone.
	watched = 64
	// quiet is how long the counters must stand still before the snapshots are taken.
	quiet = 10 * time.Millisecond
	// settling is how long they may take to: Cassandra's default of write_request_timeout, after which a replica drops a write that waits, and a little.
	settling = 2500 * time.Millisecond
)

// witness tells whether somebody writes in the window, by the nodes' own counters of the writes to each table (the write latency's count).
//
// What it has to tell apart. When all targets are paused, every transaction has been answered, so every write of theirs is on a quorum of its replicas. The
// other replicas may still be about to apply it; later come hints for a node that was down, read repairs, and Paxos commits to a replica that missed one. All of
// these are writes to the counters, and none of them is new. But each of them goes to replicas that are not needed for the quorum; a write that somebody
// makes in the window is applied by a quorum of its replicas at least, or it has not succeeded.
//
// So growth counts only where the nodes that grew have, for some range, a quorum of its replicas among them. On a busy system many writes lag right
// when the pause begins, one on this replica and one on that, and they look like a quorum together: so the baseline is taken when the counters stood still
// for a moment, before the first snapshot is asked for. What came before the baseline is in every snapshot whole, since a snapshot flushes what the node
// has: it can tear nothing in this storage, and others watch for themselves. From the baseline to the end of the window nothing may grow on a quorum.
type witness struct {
	tables []node.Table
	sets   map[string][][]*member // by keyspace: the sets of replicas; nil where they are not known
	quorum map[string]int
	clock  engine.Clock
	by     map[*captured]counter // how each node's counters are read: choose
}

// counter reads one node's counters.
type counter func(ctx context.Context) (map[node.Table]int64, error)

// counts is what one look found: the writes by table, of each node by host id.
type counts map[string]map[node.Table]int64

// newWitness chooses the tables. It returns nil where there are none.
func newWitness(s Settings, t *topology, inv inventory) (*witness, error) {
	r, err := t.ring()
	if err != nil {
		return nil, err
	}
	w := &witness{sets: map[string][][]*member{}, quorum: map[string]int{}, clock: s.Clock, by: map[*captured]counter{}}
	coordinator := node.Table{Keyspace: s.Layout.Coordinator(), Name: coordinatorTable}
	var others []node.Table
	for _, k := range inv.keyspaces {
		for _, tb := range k.tables {
			switch at := (node.Table{Keyspace: k.name, Name: tb.name}); {
			case at == coordinator:
				w.tables = append(w.tables, at)
			case tb.transactional:
				others = append(others, at)
			}
		}
		// Where the placement is not known, growth on any node counts.
		if p, err := parseReplication(k.replication); err == nil {
			w.sets[k.name], w.quorum[k.name] = r.replicaSets(p), p.quorum()
		}
	}
	if len(others)+len(w.tables) <= watched {
		w.tables = append(w.tables, others...)
	}
	if len(w.tables) == 0 {
		return nil, nil //nolint:nilnil // no witness is no error
	}
	return w, nil
}

func (w *witness) String() string {
	if w == nil {
		return "none"
	}
	if len(w.tables) == 1 {
		return "the nodes' counters of writes to " + w.tables[0].String()
	}
	return fmt.Sprintf("the nodes' counters of writes to %d tables", len(w.tables))
}

// trials is how often each way of reading is timed.
const trials = 3

// choose finds out how each node's counters are read, all nodes at once: by the transport, where that has them, or over CQL, whichever is the faster, since the
// window waits for three readings. A transport may need a call for each table, which is slow from afar; the virtual table that CQL has computes a lot for every
// table of the node. ok is false where a node allows neither.
func (w *witness) choose(ctx context.Context, nodes []*captured) (ok bool, err error) {
	var mu sync.Mutex
	ok = true
	err = each(ctx, nodes, func(ctx context.Context, n *captured) error {
		var fastest counter
		best := time.Duration(math.MaxInt64)
		var failed []error
		for _, c := range w.counters(n) {
			// The first reading proves that it may be read, and warms it.
			_, err := c(ctx)
			took := time.Duration(math.MaxInt64)
			for i := 0; i < trials && err == nil; i++ {
				began := w.clock.Boot()
				_, err = c(ctx)
				took = min(took, w.clock.Boot()-began)
			}
			switch {
			case isUnauthorized(err), isUnknownTable(err):
			case err != nil:
				failed = append(failed, err)
			case took < best:
				fastest, best = c, took
			}
		}
		mu.Lock()
		defer mu.Unlock()
		if fastest == nil {
			ok = false
			return errors.Join(failed...)
		}
		w.by[n] = fastest
		return nil
	})
	return ok, err
}

// counters are the ways in which a node's counters may be read.
func (w *witness) counters(n *captured) []counter {
	overCQL := func(ctx context.Context) (map[node.Table]int64, error) {
		statement, args := "SELECT keyspace_name, table_name, count FROM system_views.local_write_latency", []any(nil)
		if len(w.tables) == 1 {
			statement, args = statement+" WHERE keyspace_name = ? AND table_name = ?", []any{w.tables[0].Keyspace, w.tables[0].Name}
		}
		rows, err := n.conn.Query(ctx, statement, args...)
		if err != nil {
			return nil, err
		}
		out := map[node.Table]int64{}
		for _, r := range rows {
			out[node.Table{Keyspace: r.text("keyspace_name"), Name: r.text("table_name")}] = r.number("count")
		}
		return out, nil
	}
	ways := []counter{overCQL}
	if c, ok := n.op.(node.WriteCounter); ok {
		ways = []counter{func(ctx context.Context) (map[node.Table]int64, error) { return c.Writes(ctx, w.tables) }, overCQL}
	}
	for i, read := range ways {
		ways[i] = func(ctx context.Context) (map[node.Table]int64, error) {
			got, err := read(ctx)
			if err != nil {
				return nil, fmt.Errorf("reading the counters of writes: %w", err)
			}
			for _, t := range w.tables {
				if _, ok := got[t]; !ok {
					return nil, fmt.Errorf("reading the counters of writes: there is none of table %s", t)
				}
			}
			return got, nil
		}
	}
	return ways
}

// read reads all nodes at once.
func (w *witness) read(ctx context.Context, nodes []*captured) (counts, error) {
	var mu sync.Mutex
	out := counts{}
	err := each(ctx, nodes, func(ctx context.Context, n *captured) error {
		got, err := w.by[n](ctx)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		out[n.HostID] = got
		return nil
	})
	return out, err
}

// settle takes the baseline: the first reading that shows no growth over the one before it. Growth that no quorum explains is not waited for.
func (w *witness) settle(ctx context.Context, nodes []*captured) (counts, error) {
	begin := w.clock.Boot()
	at := begin
	last, err := w.read(ctx, nodes)
	if err != nil {
		return nil, err
	}
	for {
		if left := quiet - (w.clock.Boot() - at); left > 0 {
			if err := w.clock.Sleep(ctx, left); err != nil {
				return nil, err
			}
		}
		at = w.clock.Boot()
		next, err := w.read(ctx, nodes)
		if err != nil {
			return nil, err
		}
		_, grew := w.growth(last, next, nodes)
		if grew == nil {
			return next, nil
		}
		if w.clock.Boot()-begin > settling {
			return nil, &engine.VoidError{Reason: fmt.Sprintf("%s %s after the window opened: something that is not paused writes", grew.Reason, (w.clock.Boot() - begin).Round(time.Millisecond))}
		}
		last = next
	}
}

// growth compares two readings. lagging says what grew on too few replicas to be a new write.
func (w *witness) growth(before, after counts, nodes []*captured) (lagging []string, void *engine.VoidError) {
	for _, t := range w.tables {
		grown := map[*member]int64{}
		for _, n := range nodes {
			switch d := after[n.HostID][t] - before[n.HostID][t]; {
			case d < 0:
				return lagging, &engine.VoidError{Reason: fmt.Sprintf("%s counts its writes anew: it restarted", n)}
			case d > 0:
				grown[n.member] = d
			}
		}
		if len(grown) == 0 {
			continue
		}
		text := w.describe(t, grown)
		if w.onQuorum(t.Keyspace, grown) {
			return lagging, &engine.VoidError{Reason: text}
		}
		lagging = append(lagging, text)
	}
	return lagging, nil
}

func (w *witness) describe(t node.Table, grown map[*member]int64) string {
	var parts []string
	for m, d := range grown {
		parts = append(parts, fmt.Sprintf("%d on node %s", d, m.Address))
	}
	slices.Sort(parts)
	return fmt.Sprintf("table %s was written (%s)", t, strings.Join(parts[:min(len(parts), named)], ", "))
}

func (w *witness) onQuorum(keyspace string, grown map[*member]int64) bool {
	sets, known := w.sets[keyspace]
	if !known {
		return true
	}
	for _, set := range sets {
		n := 0
		for _, m := range set {
			if grown[m] > 0 {
				n++
			}
		}
		if n > 0 && n >= min(w.quorum[keyspace], len(set)) {
			return true
		}
	}
	return false
}

const noWitness = "Whether somebody writes in the pause cannot be seen: transport %s does not tell the nodes' counters of writes, and the user lacks SELECT on system_views, which has them."
