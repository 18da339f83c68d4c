package cassandra

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/move"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/snapshot"
)

// session is a Source that passed preflight.
type session struct {
	clocks
	s       Settings
	run     engine.Run
	prefix  string // of the storage's objects in the catalog
	tag     string
	inv     inventory
	nodes   []*captured // sorted by host id
	mover   move.Session
	witness *witness
	facts   engine.Facts

	baseline   counts
	started    bool           // snapshots may be on the nodes
	takes      sync.WaitGroup // the calls that take them
	failed     []bool         // by node: its call failed, so it may still carry it out
	slowest    time.Duration  // of the calls that took them
	capturedAt time.Time
	closed     bool
}

// Preflight looks at the cluster, and opens every node.
func (o *Source) Preflight(ctx context.Context, run engine.Run) (engine.Session, error) {
	x := &session{s: o.s, run: run, prefix: strings.TrimSuffix(run.Prefix, "/") + "/" + o.s.Storage + "/"}
	if x.run.Report == nil {
		x.run.Report = o.s.report
	}
	if err := x.preflight(ctx); err != nil {
		return nil, errors.Join(err, x.Close())
	}
	return x, nil
}

func (x *session) preflight(ctx context.Context) error {
	var err error
	if x.s, err = x.s.reach(x.run.Custody); err != nil {
		return err
	}
	s := x.s
	if s.Transport == nil || s.Mover == nil {
		return errors.New("the cassandra storage has no transport, or no data")
	}
	if s.CatalogIsDefault && s.Mover.Name() == snapshot.DataUpload {
		return errors.New("data = { upload } puts the data into the catalog, and the provider has none configured: set catalog (a directory or s3), so that it does not end up in the working directory")
	}
	t, err := s.readTopology(ctx)
	if err != nil {
		return err
	}
	x.clocks = clocks{t: t, clock: s.Clock}
	if err := t.check(ctx, s); err != nil {
		return fmt.Errorf("cluster %s: %w", t.cluster, err)
	}
	if x.inv, err = readInventory(ctx, t.up()[0].conn, s); err != nil {
		return err
	}
	// The inventory is that of one schema: the version was read before it, and is read again.
	if err := t.compare(ctx); err != nil {
		return fmt.Errorf("reading the schema: %w", err)
	}
	if len(t.downs()) > 0 {
		if err := t.checkQuorums(x.inv.keyspaces); err != nil {
			return err
		}
	}
	if _, err := x.inv.documents(); err != nil {
		return err
	}
	if x.tag = s.Mover.Tag(tagOf(x.run)); !snapshot.ValidTag(x.tag) {
		return fmt.Errorf("the snapshot's tag would be %q, which has other characters than letters, digits, '-' and '_'", x.tag)
	}
	if err := x.openNodes(ctx); err != nil {
		return err
	}
	warnings := x.readSettings(ctx)
	if x.mover, err = s.Mover.Preflight(ctx, x.job()); err != nil {
		return err
	}
	if x.witness, err = newWitness(s, t, x.inv); err != nil {
		return err
	}
	if x.witness != nil {
		switch ok, err := x.witness.choose(ctx, x.nodes); {
		case err != nil:
			return err
		case !ok:
			x.witness = nil
			warnings = append(warnings, fmt.Sprintf(noWitness, s.Transport.Name()))
		}
	}
	x.fillFacts(warnings)
	return x.flush(ctx)
}

// flushLimit is how long a node may take to empty its memtables before the pause.
const flushLimit = 15 * time.Minute

// flush empties the nodes' memtables while everybody still writes, so that in the pause there is no more to write than what came since. Memtables may have
// gigabytes.
func (x *session) flush(ctx context.Context) error {
	names := x.inv.names()
	return each(ctx, x.nodes, func(ctx context.Context, n *captured) error {
		f, ok := n.op.(node.Flusher)
		if !ok {
			return nil
		}
		ctx, cancel := x.s.Clock.WithTimeout(ctx, flushLimit)
		defer cancel()
		for _, k := range names {
			if err := f.Flush(ctx, k); err != nil {
				return fmt.Errorf("emptying its memtables before the pause: %w", err)
			}
		}
		return nil
	})
}

// openNodes opens every node that is up, and proves what will be done there.
func (x *session) openNodes(ctx context.Context) error {
	// Where the data stays on the nodes the files are listed if they can be reached.
	files := x.s.Mover.NeedsFiles() || x.s.Mover.Name() == snapshot.DataNodes && x.s.Files != nil
	nodes, err := openAll(ctx, x.t.up(), func(ctx context.Context, m *member) (*captured, error) {
		n, err := x.s.open(ctx, m, files)
		if err != nil {
			return nil, err
		}
		n.bytes = x.diskUsage(ctx, n)
		return n, n.once(ctx, func(ctx context.Context, op node.Operator) error {
			switch err := op.CheckRights(ctx, x.tag, x.inv.names()); {
			case errors.Is(err, node.ErrSnapshotExists):
				return fmt.Errorf("a snapshot %s is there already: %w", x.tag, err)
			case err != nil:
				return fmt.Errorf("checking what %s may do there: %w", x.s.Transport.Name(), err)
			}
			return nil
		})
	})
	x.nodes = nodes
	return err
}

// diskUsage is about how much the captured keyspaces have on the node.
func (x *session) diskUsage(ctx context.Context, n *captured) int64 {
	rows, err := n.conn.Query(ctx, "SELECT keyspace_name, mebibytes FROM system_views.disk_usage")
	if err != nil {
		return -1
	}
	names := x.inv.names()
	var sum int64
	for _, r := range rows {
		if slices.Contains(names, r.text("keyspace_name")) {
			sum += r.number("mebibytes") << 20
		}
	}
	return sum
}

// readSettings looks for settings of the nodes that a user should know of. It needs SELECT on system_views, and does without.
func (x *session) readSettings(ctx context.Context) (warnings []string) {
	var mu sync.Mutex
	periodic, blind := map[string]bool{}, false
	_ = each(ctx, x.nodes, func(ctx context.Context, n *captured) error { //nolint:errcheck // settings are no condition
		rows, err := n.conn.Query(ctx, "SELECT name, value FROM system_views.settings WHERE name = 'commitlog_sync'")
		mu.Lock()
		defer mu.Unlock()
		if err != nil || len(rows) == 0 {
			blind = true
			return nil
		}
		if v := rows[0].text("value"); v != "batch" && v != "group" {
			periodic[n.Address] = true
		}
		return nil
	})
	if names := slices.Sorted(maps.Keys(periodic)); len(names) > 0 {
		warnings = append(warnings, fmt.Sprintf("commitlog_sync is periodic on %s. ScalarDB demands batch or group: with periodic a node that crashes loses writes that were acknowledged. The backup flushes what the nodes have, and is not affected.", list(names)))
	}
	if blind {
		warnings = append(warnings, "The nodes' settings could not be read (SELECT on system_views): whether commitlog_sync is batch or group, as ScalarDB demands, is not known.")
	}
	return warnings
}

func (x *session) job() move.Job {
	j := move.Job{Run: x.run, Storage: x.s.Storage, Prefix: x.prefix, Cluster: x.t.cluster, Tag: x.tag, Keyspaces: x.inv.names()}
	for _, n := range x.nodes {
		j.Nodes = append(j.Nodes, n.forMover())
	}
	return j
}

func (x *session) fillFacts(warnings []string) {
	var ids []string
	versions := map[string]bool{}
	for _, m := range x.t.members {
		ids = append(ids, m.HostID)
		if m.down == nil {
			versions[m.Version] = true
		}
	}
	moved := x.mover.Facts()
	x.facts = engine.Facts{
		SourceID:     sourceID(x.t.cluster, ids),
		ToolVersions: map[string]string{"cassandra": strings.Join(slices.Sorted(maps.Keys(versions)), ", "), "transport": x.s.Transport.Name()},
		Witness:      x.witness.String(),
		Planned: append(slices.Clone(x.mover.Planned()), nodesArtifact(x.t.cluster, x.tag, x.inv.names(), x.nodes, nil),
			engine.Artifact{Kind: snapshot.KindIndex, ID: x.prefix + snapshot.IndexName}),
		Warnings: slices.Concat(x.t.warnings, x.inv.warnings, warnings, moved.Warnings),
	}
	for tool, version := range moved.ToolVersions {
		x.facts.ToolVersions[tool] = version
	}
	if down := x.t.downs(); len(down) > 0 {
		var names []string
		for _, m := range down {
			names = append(names, m.Address)
		}
		x.facts.Warnings = append(x.facts.Warnings, fmt.Sprintf("Nodes that are down are not captured (allow_down_nodes): %s. Every range keeps a quorum of captured replicas, so nothing that was acknowledged is missing; "+
			"but the copies of these nodes are. After a restore to the same nodes repair every keyspace before the cluster serves.", list(names)))
	}
}

// Facts are preflight's.
func (x *session) Facts() engine.Facts { return x.facts }

// Capture takes the witness's baseline, and then the snapshot of all nodes at once. No connection is made here.
func (x *session) Capture(ctx context.Context) error {
	if x.witness != nil {
		var err error
		if x.baseline, err = x.witness.settle(ctx, x.nodes); err != nil {
			return err
		}
	}
	x.started = true
	if own, ok := x.mover.(move.Snapshotter); ok {
		tag, err := own.TakeSnapshots(ctx)
		if tag != "" {
			x.tag = tag
		}
		if err != nil {
			return err
		}
		if !snapshot.ValidTag(x.tag) {
			return fmt.Errorf("the snapshot has the tag %q, which has other characters than letters, digits, '-' and '_'", x.tag)
		}
	} else if err := x.take(ctx); err != nil {
		return err
	}
	x.capturedAt = x.s.Clock.Now()
	return nil
}

// take asks all nodes at once, and returns when the last one confirmed, or the first one failed: then the pause is not held up by the others. Their calls are
// not cut off, since a call that was may still be carried out: Discard waits for their ends, and then knows what there is to clear.
func (x *session) take(ctx context.Context) error {
	type outcome struct {
		n    *captured
		took time.Duration
		err  error
	}
	x.failed = make([]bool, len(x.nodes))
	outcomes := make(chan outcome, len(x.nodes))
	names := x.inv.names()
	start := make(chan struct{})
	var ready sync.WaitGroup
	for i, n := range x.nodes {
		ready.Add(1)
		x.takes.Go(func() {
			call, cancel := x.s.Clock.WithTimeout(context.WithoutCancel(ctx), x.s.snapshotTimeout())
			defer cancel()
			ready.Done()
			<-start
			began := x.s.Clock.Boot()
			err := n.op.TakeSnapshot(call, x.tag, names)
			took := x.s.Clock.Boot() - began
			if call.Err() != nil && err != nil {
				err = fmt.Errorf("it did not confirm within snapshot_timeout (%s): %w", x.s.snapshotTimeout(), err)
			}
			x.failed[i] = err != nil
			outcomes <- outcome{n, took, err}
		})
	}
	ready.Wait()
	close(start)
	waiting := map[*captured]bool{}
	for _, n := range x.nodes {
		waiting[n] = true
	}
	for len(waiting) > 0 {
		select {
		case o := <-outcomes:
			delete(waiting, o.n)
			x.slowest = max(x.slowest, o.took)
			if o.err != nil {
				return fmt.Errorf("taking the snapshot on %s: %w", o.n, o.err)
			}
		case <-ctx.Done():
			var late []string
			for _, n := range x.nodes {
				if waiting[n] {
					late = append(late, n.Address)
				}
			}
			return fmt.Errorf("taking the snapshot: no confirmation yet by %s: %w", list(late), ctx.Err())
		}
	}
	return nil
}

// Confirm looks whether the cluster is still the one that preflight saw, with the same schema, and whether somebody wrote.
func (x *session) Confirm(ctx context.Context) error {
	var wg sync.WaitGroup
	var changed, wrote error
	wg.Go(func() {
		changed = x.t.compare(ctx)
		var definite changedError
		if errors.As(changed, &definite) {
			changed = &engine.VoidError{Reason: "the cluster or its schema changed in the window: " + changed.Error()}
		}
	})
	if x.witness != nil {
		wg.Go(func() {
			last, err := x.witness.read(ctx, x.nodes)
			if err != nil {
				wrote = err
				return
			}
			lagging, void := x.witness.growth(x.baseline, last, x.nodes)
			if void != nil {
				wrote = &engine.VoidError{Reason: void.Reason + " in the window: something that is not paused writes"}
				return
			}
			if len(lagging) > 0 {
				x.run.Report("late copies of earlier writes came to single replicas in the window (hints, repairs); no quorum was written", map[string]any{"tables": list(lagging)})
			}
		})
	}
	wg.Wait()
	return errors.Join(changed, wrote)
}

// Await compares what the nodes have with what must be there, describes it in the catalog, and has the data moved.
func (x *session) Await(ctx context.Context) (engine.Captured, error) {
	x.takes.Wait()
	tables, err := x.compareListing(ctx)
	if err != nil {
		return engine.Captured{}, err
	}
	files, err := x.listFiles(ctx)
	if err != nil {
		return engine.Captured{}, err
	}
	ix, err := x.index()
	if err != nil {
		return engine.Captured{}, err
	}
	artifacts, err := x.mover.Move(ctx, ix, files)
	if err != nil {
		return engine.Captured{}, err
	}
	for i := range ix.Nodes {
		if l := files[ix.Nodes[i].HostID]; l != nil {
			if err := snapshot.WriteFiles(ctx, x.run.Catalog, x.prefix, l, &ix.Nodes[i]); err != nil {
				return engine.Captured{}, err
			}
		}
	}
	written, err := snapshot.WriteIndex(ctx, x.run.Catalog, x.prefix, ix)
	if err != nil {
		return engine.Captured{}, err
	}
	onNodes := nodesArtifact(x.t.cluster, x.tag, x.inv.names(), x.nodes, tables)
	if k, ok := x.mover.(move.KeepsSnapshot); ok && k.KeepsSnapshot() {
		artifacts = append(artifacts, onNodes)
	} else if err := x.clearAll(ctx); err != nil {
		if ctx.Err() != nil {
			return engine.Captured{}, err
		}
		// The data is safe; what is left on a node goes with the backup.
		onNodes.Extra[extraLeftover] = "true"
		artifacts = append(artifacts, onNodes)
		x.run.Report("the snapshot could not be cleared on every node; it goes when the backup is deleted", map[string]any{"tag": x.tag, "error": err.Error()})
	}
	return x.captured(append(artifacts, written)), nil
}

// compareListing asks every node for its snapshots: each table must have one. It returns how many each node has.
func (x *session) compareListing(ctx context.Context) (map[string]int, error) {
	expected := x.inv.expected()
	var mu sync.Mutex
	counts := map[string]int{}
	err := each(ctx, x.nodes, func(ctx context.Context, n *captured) error {
		there, err := n.snapshots(ctx, x.tag, x.inv.names())
		if err != nil {
			return err
		}
		var missing []string
		for _, t := range sortedTables(expected) {
			if !there[t] {
				missing = append(missing, t.String())
			}
		}
		if len(missing) > 0 {
			return fmt.Errorf("it confirmed snapshot %s, and has none of these tables: %s", x.tag, list(missing))
		}
		mu.Lock()
		defer mu.Unlock()
		counts[n.HostID] = len(there)
		return nil
	})
	return counts, err
}

// listFiles lists the files of the nodes whose file systems are open.
func (x *session) listFiles(ctx context.Context) (map[string]*snapshot.FileList, error) {
	expected := x.inv.expected()
	var mu sync.Mutex
	out := map[string]*snapshot.FileList{}
	err := each(ctx, x.nodes, func(ctx context.Context, n *captured) error {
		if n.files == nil {
			return nil
		}
		l, err := listFiles(ctx, n, x.tag, expected)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		out[n.HostID] = l
		return nil
	})
	return out, err
}

func (x *session) index() (*snapshot.Index, error) {
	keyspaces, err := x.inv.documents()
	if err != nil {
		return nil, err
	}
	ix := &snapshot.Index{Version: snapshot.Version, Cluster: x.t.cluster, Partitioner: murmur3, Tag: x.tag, Data: x.s.Mover.Name(), CapturedAt: x.capturedAt.UTC(), Keyspaces: keyspaces}
	for _, n := range x.nodes {
		ix.Nodes = append(ix.Nodes, snapshot.Node{HostID: n.HostID, Address: n.Address, Datacenter: n.Datacenter, Rack: n.Rack, Version: n.Version, Tokens: n.Tokens})
	}
	return ix, nil
}

func (x *session) captured(artifacts []engine.Artifact) engine.Captured {
	c := engine.Captured{Artifacts: artifacts, HasCoordinator: x.inv.coordinator, Extra: map[string]string{
		"cluster": x.t.cluster, "data": x.s.Mover.Name(), "tag": x.tag, "keyspaces": strings.Join(x.inv.names(), ","),
		"coordinator_namespace": x.s.Layout.Coordinator(), "metadata_namespace": x.s.Layout.Metadata(),
	}}
	if x.inv.coordinator {
		c.CoordinatorNewest = -1 // not read: it would take a scan
	}
	if x.slowest > 0 {
		c.Extra["slowest_snapshot_ms"] = strconv.FormatFloat(x.slowest.Seconds()*1000, 'f', 1, 64)
	}
	for _, m := range x.t.downs() {
		c.Extra["down_nodes"] = strings.TrimPrefix(c.Extra["down_nodes"]+","+m.HostID, ",")
	}
	for _, k := range x.inv.keyspaces {
		if k.name == x.s.Layout.Coordinator() || k.name == x.s.Layout.Metadata() {
			continue
		}
		for _, t := range k.tables {
			c.Tables = append(c.Tables, engine.TableWitness{Namespace: k.name, Table: t.name, Transactional: t.transactional, Rows: -1, Estimated: true})
		}
	}
	return c
}

func (x *session) clearAll(ctx context.Context) error {
	names := x.inv.names()
	return each(ctx, x.nodes, func(ctx context.Context, n *captured) error { return n.clear(ctx, x.tag, names) })
}

const (
	// lingering is how long Discard watches a node whose call failed: it may still carry it out.
	lingering    = 5 * time.Second
	lingerPeriod = 500 * time.Millisecond
)

// Discard removes the snapshots from the nodes, and what is in the catalog.
func (x *session) Discard(ctx context.Context) error {
	x.takes.Wait() // bounded by snapshot_timeout
	var errs []error
	if x.mover != nil {
		errs = append(errs, x.mover.Discard(ctx))
	}
	if x.started {
		errs = append(errs, x.discardSnapshots(ctx))
	}
	return errors.Join(append(errs, deleteObjects(ctx, x.run.Catalog, x.prefix))...)
}

func (x *session) discardSnapshots(ctx context.Context) error {
	names := x.inv.names()
	indexes := map[*captured]int{}
	for i, n := range x.nodes {
		indexes[n] = i
	}
	return each(ctx, x.nodes, func(ctx context.Context, n *captured) error {
		if err := n.clear(ctx, x.tag, names); err != nil {
			return err
		}
		if i := indexes[n]; i >= len(x.failed) || !x.failed[i] {
			return nil
		}
		for waited := time.Duration(0); waited < lingering; waited += lingerPeriod {
			if err := x.s.Clock.Sleep(ctx, lingerPeriod); err != nil {
				return err
			}
			there, err := n.snapshots(ctx, x.tag, names)
			if err != nil {
				return err
			}
			if len(there) > 0 {
				if err := n.clear(ctx, x.tag, names); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// Close closes everything; idempotent.
func (x *session) Close() error {
	if x.closed {
		return nil
	}
	x.closed = true
	x.takes.Wait()
	var errs []error
	if x.mover != nil {
		errs = append(errs, x.mover.Close())
	}
	for _, n := range x.nodes {
		_ = n.close() //nolint:errcheck // nothing is lost: what mattered was confirmed
	}
	if x.t != nil {
		x.t.close()
	}
	return errors.Join(errs...)
}
