package cassandra

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/ddl"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/snapshot"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/upload"
)

// StoppedSettings restore onto nodes that have the tokens of those of the backup: all are stopped, cleaned, filled and started.
type StoppedSettings struct {
	// InPlace replaces the data of the backup's tables; else these must be empty.
	InPlace bool
	// Shell commands on a node; they may hold {address} and the like. StopCommand returns when Cassandra is gone, and both do nothing where it is so already.
	StopCommand, StartCommand string
	// Directories of the nodes, with {address} and the like. The defaults are those of Cassandra's packages.
	CommitlogDirectory, HintsDirectory, SavedCachesDirectory, CDCRawDirectory string
	// Owner of the files that are placed, "USER:GROUP"; as they were written when empty.
	Owner string

	// KeepPaxos is for tests: it shows what happens where system.paxos stays.
	KeepPaxos bool
}

// objectNodes are nodes that were stopped, or are about to be; its ID is the cluster's name.
const objectNodes = "cassandra_nodes"

// extraStopped has the nodes, as JSON.
const extraStopped = "nodes"

const (
	commandTimeout = 10 * time.Minute
	// stopping and starting are how long all nodes may take.
	stopping  = 10 * time.Minute
	starting  = 20 * time.Minute
	lookAgain = time.Second
	dialLimit = 3 * time.Second
)

// stoppedPlan is all that such a restore will do.
type stoppedPlan struct {
	keyspaces  []stoppedKeyspace
	from       map[string]string                  // the captured node's host id, by the target's
	dirs       map[string]map[node.Table][]string // by the target's host id: a table's directories, once its schema is there
	statements []string                           // that make what is missing
}

type stoppedKeyspace struct {
	name   string
	ids    map[string]string
	own    map[string]int64 // gc_grace_seconds that were captured, by table
	raised map[string]int64 // those that are higher until the repair
	exists map[string]bool  // tables that are there
}

// planStopped makes all checks.
func (a *attempt) planStopped(ctx context.Context) (*stoppedPlan, error) {
	if !a.whole() {
		return nil, fmt.Errorf("nodes %s were down when the backup was taken, and their files are not in it: use load, which needs no such files", a.r.Record.Extra["down_nodes"])
	}
	p := &stoppedPlan{from: map[string]string{}}
	if err := a.pair(p); err != nil {
		return nil, err
	}
	there, err := readKeyspaces(ctx, a.t.members[0].conn)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, k := range a.ix.Keyspaces {
		one, err := a.planTables(ctx, p, k, there[k.Name])
		if err != nil {
			errs = append(errs, fmt.Errorf("keyspace %s: %w", k.Name, err))
			continue
		}
		p.keyspaces = append(p.keyspaces, one)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return p, each(ctx, a.nodes, func(ctx context.Context, n *captured) error { return a.checkNode(ctx, p, n) })
}

// pair matches the nodes by their tokens.
func (a *attempt) pair(p *stoppedPlan) error {
	captured, from, err := capturedRing(a.ix)
	if err != nil {
		return err
	}
	to, err := a.t.ring()
	if err != nil {
		return err
	}
	pairs := counterparts(from, to)
	if pairs == nil {
		return fmt.Errorf("the nodes are not those of the backup: tokens, datacenters and racks must be the same; the backup has %s, and cluster %s has %s: use load",
			describeRing(from), a.t.cluster, describeRing(to))
	}
	for c, t := range pairs {
		p.from[t] = c
		if a.ix.Data == snapshot.DataNodes && c != t {
			return fmt.Errorf("the data lies on the nodes that the backup was taken of, and the node with the tokens of node %s is node %s now: it was replaced, or wiped", c, t)
		}
		if a.tool != nil && a.tool.restorer != nil {
			if before, now := addressOf(captured, c), addressOf(a.t.members, t); before != now {
				return fmt.Errorf("the tool knows nodes by their addresses, and the node with the tokens of node %s has the address %s now", before, now)
			}
		}
	}
	return nil
}

func addressOf(members []*member, hostID string) string {
	for _, m := range members {
		if m.HostID == hostID {
			return m.Address
		}
	}
	return ""
}

// kept lists the snapshot's files on a node, where that is where the data is, and compares them with what was listed when the backup was taken.
func (a *attempt) kept(ctx context.Context, n *captured) (*snapshot.FileList, error) {
	expected := map[node.Table]string{}
	for _, k := range a.ix.Keyspaces {
		for _, t := range k.Tables {
			expected[node.Table{Keyspace: k.Name, Name: t.Name}] = t.ID
		}
	}
	l, err := listFiles(ctx, n, a.ix.Tag, expected)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(a.ix.Nodes, func(c snapshot.Node) bool { return c.HostID == n.HostID })
	if i < 0 || a.ix.Nodes[i].Files == "" {
		return l, nil // its manifests were compared
	}
	recorded, err := snapshot.ReadFiles(ctx, a.r.Catalog, a.ix.Nodes[i])
	if err != nil {
		return nil, err
	}
	sizes := map[string]int64{}
	for _, t := range l.Tables {
		for _, f := range t.Files {
			sizes[path.Join(t.Directory, f.Path)] = f.Size
		}
	}
	for _, t := range recorded.Tables {
		for _, f := range t.Files {
			if size, ok := sizes[path.Join(t.Directory, f.Path)]; !ok || size != f.Size {
				return nil, fmt.Errorf("snapshot %s is not whole any more: %s is gone or has another size", a.ix.Tag, path.Join(t.Directory, f.Path))
			}
		}
	}
	return l, nil
}

// link gives each table the files of its snapshot, as hard links: SSTables are never changed, only replaced.
func (a *attempt) link(ctx context.Context) error {
	return each(ctx, a.nodes, func(ctx context.Context, n *captured) error {
		for _, t := range a.lists[n.HostID].Tables {
			// The same directory of the same table: its snapshots lie below it.
			to := path.Dir(path.Dir(t.Directory))
			if _, err := n.files.Run(ctx, "cp -Rlp "+node.Quote(t.Directory+"/.")+" "+node.Quote(to+"/"), nil); err != nil {
				return fmt.Errorf("linking the files of table %s.%s out of snapshot %s: %w", t.Keyspace, t.Table, a.ix.Tag, err)
			}
		}
		return nil
	})
}

// describeRing names nodes by what they are matched by.
func describeRing(r ring) string {
	var parts []string
	for _, m := range r.members() {
		tokens := m.Tokens
		more := ""
		if len(tokens) > 3 {
			more = fmt.Sprintf(" and %d more", len(tokens)-3)
			tokens = tokens[:3]
		}
		parts = append(parts, fmt.Sprintf("%s (%s, %s, tokens %s%s)", m.Address, m.Datacenter, m.Rack, strings.Join(tokens, " "), more))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

// planTables compares one keyspace with what is there.
func (a *attempt) planTables(ctx context.Context, p *stoppedPlan, k snapshot.Keyspace, there *keyspace) (stoppedKeyspace, error) {
	one := stoppedKeyspace{name: k.Name, ids: map[string]string{}, own: map[string]int64{}, raised: map[string]int64{}, exists: map[string]bool{}}
	for _, t := range k.Tables {
		one.ids[t.Name], one.own[t.Name] = t.ID, t.GCGraceSeconds
		if during, ok := a.grace(t); ok {
			one.raised[t.Name] = during
		}
	}
	statements, err := ddl.Change{From: k.Name, To: k.Name, Replication: k.Replication, IDs: one.ids, GCGrace: one.raised}.Apply(k.CQL)
	if err != nil {
		return one, err
	}
	have := ddl.Shape{}
	if there != nil {
		if len(there.views) > 0 {
			return one, errors.New("it has materialized views, which are not restored: drop them")
		}
		before, err := parseReplication(k.Replication)
		if err != nil {
			return one, err
		}
		if after, err := parseReplication(there.replication); err != nil || !before.equal(after) {
			return one, fmt.Errorf("its replication is %s, and was %s when the backup was taken: change it back first", describeReplication(there.replication), describeReplication(k.Replication))
		}
		texts, err := describe(ctx, a.t.members[0].conn, k.Name)
		if err != nil {
			return one, err
		}
		if have, err = ddl.ShapeOf(k.Name, texts); err != nil {
			return one, err
		}
	}
	want, err := ddl.ShapeOf(k.Name, k.CQL)
	if err != nil {
		return one, err
	}
	if err := a.compareTables(ctx, &one, there, want, have); err != nil {
		return one, err
	}
	for _, s := range statements {
		missing := false
		switch s.Kind {
		case ddl.Keyspace:
			missing = there == nil
		case ddl.Table, ddl.Alter:
			missing = !one.exists[s.Table]
		case ddl.Index:
			shape, err := ddl.ShapeOf(k.Name, []string{s.CQL})
			if err != nil {
				return one, err
			}
			for key := range shape.Indexes {
				_, ok := have.Indexes[key]
				missing = !ok
			}
		case ddl.Type:
			missing = there == nil
		}
		if missing {
			p.statements = append(p.statements, s.CQL)
		}
	}
	for _, t := range slices.Sorted(maps.Keys(one.raised)) {
		if one.exists[t] {
			p.statements = append(p.statements, fmt.Sprintf("ALTER TABLE %s.%s WITH gc_grace_seconds = %d", ddl.Quote(k.Name), ddl.Quote(t), one.raised[t]))
		}
	}
	return one, nil
}

// compareTables refuses tables that the files would not fit, or that are not to be touched.
func (a *attempt) compareTables(ctx context.Context, one *stoppedKeyspace, there *keyspace, want, have ddl.Shape) error {
	if there == nil {
		return nil
	}
	var errs []error
	for _, t := range there.tables {
		id, ok := one.ids[t.name]
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("table %s is not in the backup, and would not fit the others: drop it", t.name))
		case id != t.id:
			errs = append(errs, fmt.Errorf("table %s was made anew since: its id is %s, and was %s: drop it (the restore makes it as it was), or use load", t.name, t.id, id))
		case want.Columns[t.name] != have.Columns[t.name]:
			errs = append(errs, fmt.Errorf("table %s has other columns than in the backup: drop it (the restore makes it as it was), or use load", t.name))
		default:
			one.exists[t.name] = true
			if !a.d.s.Stopped.InPlace {
				rows, err := a.t.members[0].conn.Query(ctx, "SELECT * FROM "+ddl.Quote(one.name)+"."+ddl.Quote(t.name)+" LIMIT 1")
				if err != nil {
					errs = append(errs, fmt.Errorf("looking for data in table %s: %w", t.name, err))
				}
				if len(rows) > 0 {
					errs = append(errs, fmt.Errorf("table %s has data: use in_place, which replaces it, or truncate it", t.name))
				}
			}
		}
	}
	for key, statement := range have.Indexes {
		if _, ok := want.Indexes[key]; !ok {
			errs = append(errs, fmt.Errorf("the backup has no such index: %s: drop it", statement))
		}
	}
	return errors.Join(errs...)
}

// cleared are the directories whose content is removed; those that need not exist are optional.
func (s StoppedSettings) cleared(n node.Node) (must, may []string) {
	or := func(given, standard string) string {
		if given == "" {
			given = standard
		}
		return n.Expand(given)
	}
	const base = "/var/lib/cassandra/"
	return []string{or(s.CommitlogDirectory, base+"commitlog"), or(s.HintsDirectory, base+"hints"), or(s.SavedCachesDirectory, base+"saved_caches")},
		[]string{or(s.CDCRawDirectory, base+"cdc_raw")}
}

// checkNode looks for a node's directories and what its Operator can do.
func (a *attempt) checkNode(ctx context.Context, p *stoppedPlan, n *captured) error {
	name := a.s.Transport.Name()
	if _, ok := n.op.(node.Drainer); !ok {
		return fmt.Errorf("transport %s cannot drain a node before it is stopped: use jmx, jolokia, ssh or exec", name)
	}
	if _, ok := n.op.(node.Repairer); !ok && slices.ContainsFunc(p.keyspaces, func(k stoppedKeyspace) bool { return len(k.raised) > 0 }) {
		return fmt.Errorf("the backup is about as old as gc_grace_seconds, and transport %s cannot repair: use jmx, jolokia, ssh or exec", name)
	}
	var err error
	if n.directories, err = a.s.directories(ctx, n); err != nil {
		return err
	}
	must, _ := a.d.s.Stopped.cleared(n.Node)
	for _, dir := range must {
		if e, err := n.files.Stat(ctx, dir); err != nil || !e.Dir && !e.Link {
			return fmt.Errorf("directory %s: %w; set the directories as the node's cassandra.yaml has them", dir, errors.Join(err, notDirectory(err)))
		}
	}
	paxos, err := a.paxos(ctx, n)
	if err != nil {
		return err
	}
	if len(paxos) == 0 {
		return fmt.Errorf("system.paxos is in none of its data directories %s: set data_directories to all of them", strings.Join(n.directories, ", "))
	}
	if a.ix.Data == snapshot.DataNodes {
		l, err := a.kept(ctx, n)
		if err != nil {
			return err
		}
		a.mu.Lock()
		a.lists[n.HostID] = l
		a.mu.Unlock()
		return nil
	}
	if a.d.s.Stopped.InPlace && !a.fetches() {
		return nil // the room of what is replaced comes to what is free; placing looks
	}
	_, need := a.lists[p.from[n.HostID]].Total()
	if a.fetches() {
		// Before anything is removed.
		free, err := n.files.Free(ctx, n.directories[0])
		if err != nil {
			return err
		}
		if free < need {
			return fmt.Errorf("%s has %d MiB left, and the backup has %d MiB for it, which are fetched before anything is removed: make room", n.directories[0], free>>20, need>>20)
		}
		return nil
	}
	free := int64(0)
	for _, dir := range n.directories {
		room, err := n.files.Free(ctx, dir)
		if err != nil {
			return err
		}
		free = max(free, room)
	}
	if free < need {
		return fmt.Errorf("its data directories have %d MiB left at most, and the backup has %d MiB for it: make room", free>>20, need>>20)
	}
	return nil
}

// paxos are the directories with the state of lightweight transactions. It is of all keyspaces.
func (a *attempt) paxos(ctx context.Context, n *captured) (out []string, err error) {
	for _, data := range n.directories {
		dir := path.Join(data, "system")
		entries, err := n.files.ReadDir(ctx, dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			// paxos, and paxos_repair_history and the tracker's files since 4.1.
			if e.Dir && (strings.HasPrefix(e.Name, "paxos-") || strings.HasPrefix(e.Name, "paxos_repair_history-") || e.Name == "_paxos_repair_state") {
				out = append(out, path.Join(dir, e.Name))
			}
		}
	}
	return out, nil
}

// restoreStopped does it.
func (a *attempt) restoreStopped(ctx context.Context, p *stoppedPlan) (engine.Restored, error) {
	out := a.properties(nil)
	stopped, err := a.stoppedNodes()
	if err != nil {
		return engine.Restored{}, err
	}
	out.Objects = append(out.Objects, stopped)
	if a.fetches() {
		for _, n := range a.nodes {
			out.Objects = append(out.Objects, engine.RestoredObject{Kind: objectStaging, ID: a.fetchedInto(n), Created: true, Extra: map[string]string{extraNode: n.HostID}})
		}
	}
	for _, k := range p.keyspaces {
		out.Objects = append(out.Objects, engine.RestoredObject{Kind: objectKeyspace, ID: k.name})
		for _, t := range slices.Sorted(maps.Keys(k.ids)) {
			out.Objects = append(out.Objects, engine.RestoredObject{Kind: objectTable, ID: k.name + "." + t, Extra: map[string]string{extraTableID: k.ids[t]}})
		}
	}
	if err := a.step(ctx, "announce"); err != nil {
		return engine.Restored{}, err
	}
	if a.r.Announce != nil {
		if err := a.r.Announce(ctx, out); err != nil {
			return engine.Restored{}, fmt.Errorf("recording which nodes will be stopped: %w", err)
		}
	}
	for _, s := range []struct {
		name string
		run  func(context.Context, *stoppedPlan) error
	}{{"schema", a.completeSchema}, {"probe", a.probe}, {"fetch", a.fetchStopped}, {"stop", a.stopAll}, {"clean", a.clean}, {"place", a.placeStopped}, {"start", a.startAll},
		{"repair", a.lowerStopped}} {
		err := a.step(ctx, s.name)
		if err == nil {
			a.report("restoring onto stopped nodes", map[string]any{"step": s.name})
			err = s.run(ctx, p)
		}
		if err != nil {
			return out, err
		}
	}
	out.Objects = slices.DeleteFunc(out.Objects, func(o engine.RestoredObject) bool { return o.Kind == objectNodes || o.Kind == objectStaging })
	return out, nil
}

// stoppedNodes records what starts the nodes again, when the cluster cannot be asked.
func (a *attempt) stoppedNodes() (engine.RestoredObject, error) {
	var nodes []node.Node
	for _, m := range a.t.members {
		n := m.Node
		n.Tokens = nil
		nodes = append(nodes, n)
	}
	data, err := json.Marshal(nodes)
	return engine.RestoredObject{Kind: objectNodes, ID: a.t.cluster, Extra: map[string]string{extraStopped: string(data)}}, err
}

// fetches says that a tool brings the files.
func (a *attempt) fetches() bool { return a.tool != nil && a.tool.fetcher != nil }

// fetchedInto is the directory for what a tool fetches: on the file system of the data, so that it need not be copied once more while the nodes are stopped.
func (a *attempt) fetchedInto(n *captured) string {
	return path.Join(n.directories[0], ".scalardb-restore-"+a.r.RunID)
}

// fetchStopped has a tool fetch what it has, while the nodes still serve.
func (a *attempt) fetchStopped(ctx context.Context, p *stoppedPlan) error {
	if !a.fetches() {
		return nil
	}
	return a.tool.fetch(ctx, a, a.fetchedInto, func(n *captured, from snapshot.Node) bool { return from.HostID == p.from[n.HostID] })
}

// completeSchema makes what is missing, with the ids that it had.
func (a *attempt) completeSchema(ctx context.Context, p *stoppedPlan) error {
	for _, s := range p.statements {
		if err := a.statement(ctx, s); err != nil {
			return err
		}
	}
	if err := a.agree(ctx); err != nil {
		return err
	}
	p.dirs = map[string]map[node.Table][]string{}
	for _, n := range a.nodes {
		p.dirs[n.HostID] = map[node.Table][]string{}
		for _, k := range p.keyspaces {
			for t, id := range k.ids {
				at := node.Table{Keyspace: k.name, Name: t}
				for _, data := range n.directories {
					dir := path.Join(data, k.name, snapshot.TableDirectory(t, id))
					_, err := n.files.Stat(ctx, dir)
					if err == nil {
						p.dirs[n.HostID][at] = append(p.dirs[n.HostID][at], dir)
					} else if !errors.Is(err, fs.ErrNotExist) {
						return fmt.Errorf("%s: %w", n, err)
					}
				}
				if len(p.dirs[n.HostID][at]) == 0 {
					return fmt.Errorf("%s: table %s has no directory in %s: set data_directories to all of them", n, at, strings.Join(n.directories, ", "))
				}
			}
		}
	}
	return nil
}

// probe proves, before anything is stopped, that files can be made, given away and removed.
func (a *attempt) probe(ctx context.Context, p *stoppedPlan) error {
	return each(ctx, a.nodes, func(ctx context.Context, n *captured) error {
		must, may := a.d.s.Stopped.cleared(n.Node)
		dirs := slices.Clone(must)
		for _, dir := range may {
			if _, err := n.files.Stat(ctx, dir); err == nil {
				dirs = append(dirs, dir)
			}
		}
		for _, ds := range p.dirs[n.HostID] {
			dirs = append(dirs, ds...)
		}
		if !a.d.s.Stopped.KeepPaxos {
			paxos, err := a.paxos(ctx, n)
			if err != nil {
				return err
			}
			dirs = append(dirs, paxos...)
		}
		for _, dir := range dirs {
			name := path.Join(dir, ".scalardb-probe")
			w, err := n.files.Create(ctx, name, 0o640)
			if err == nil {
				err = w.Close()
			}
			if err == nil {
				err = a.giveAway(ctx, n, name)
			}
			if err := errors.Join(err, n.files.RemoveAll(ctx, name)); err != nil {
				return fmt.Errorf("files cannot be made and removed in %s: log in as Cassandra's own user, or as one that may: %w", dir, err)
			}
		}
		return nil
	})
}

func (a *attempt) giveAway(ctx context.Context, n *captured, names ...string) error {
	if a.d.s.Stopped.Owner == "" || len(names) == 0 {
		return nil
	}
	words := []string{"chown", "-R", node.Quote(a.d.s.Stopped.Owner)}
	for _, name := range names {
		words = append(words, node.Quote(name))
	}
	if _, err := n.files.Run(ctx, strings.Join(words, " "), nil); err != nil {
		return fmt.Errorf("giving files to %s: %w", a.d.s.Stopped.Owner, err)
	}
	return nil
}

// command runs a user's command on a node.
func (s Settings) command(ctx context.Context, n node.Node, files node.Files, command string) error {
	ctx, cancel := s.Clock.WithTimeout(ctx, commandTimeout)
	defer cancel()
	_, err := files.Run(ctx, n.Expand(command), nil)
	return err
}

// stopAll drains the nodes, so that nothing of other keyspaces is in the commit logs only, stops them, and sees that they are gone.
func (a *attempt) stopAll(ctx context.Context, _ *stoppedPlan) error {
	for _, m := range a.t.members {
		m.conn.Close()
		m.conn = nil
	}
	err := each(ctx, a.nodes, func(ctx context.Context, n *captured) error {
		if err := n.op.(node.Drainer).Drain(ctx); err != nil { //nolint:forcetypeassert // checkNode has looked
			return err
		}
		if err := n.op.Close(); err != nil {
			a.report("closing the connection to a node that is to be stopped", map[string]any{"node": n.Address, "error": err.Error()})
		}
		n.op = nil
		return nil
	})
	if err != nil {
		return err
	}
	return each(ctx, a.nodes, func(ctx context.Context, n *captured) error {
		if err := a.s.command(ctx, n.Node, n.files, a.d.s.Stopped.StopCommand); err != nil {
			return fmt.Errorf("stopping it: %w", err)
		}
		return a.s.gone(ctx, n.Node)
	})
}

// gone waits until a node answers neither over CQL nor by its transport. A process that was drained speaks no CQL, and is there all the same.
func (s Settings) gone(ctx context.Context, n node.Node) error {
	ctx, cancel := s.Clock.WithTimeout(ctx, stopping)
	defer cancel()
	for {
		what := ""
		one, done := s.Clock.WithTimeout(ctx, dialLimit)
		c, err := s.connector().connect(one, n.Address)
		if err == nil {
			c.Close()
			what = "over CQL"
		}
		done()
		one, done = s.Clock.WithTimeout(ctx, callTimeout)
		op, err := s.Transport.Open(one, n)
		if err == nil {
			_ = op.Close() //nolint:errcheck // it answers, which is all that matters
			what = "by " + s.Transport.Name()
		}
		done()
		if what == "" {
			return ctx.Err()
		}
		if s.Clock.Sleep(ctx, lookAgain) != nil {
			return fmt.Errorf("it still answers %s after stop_command: that must return when Cassandra is gone", what)
		}
	}
}

// empty removes what is in a directory, but for what is named.
func empty(ctx context.Context, files node.Files, dir string, keep ...string) error {
	entries, err := files.ReadDir(ctx, dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if slices.Contains(keep, e.Name) {
			continue
		}
		if err := files.RemoveAll(ctx, path.Join(dir, e.Name)); err != nil {
			return err
		}
	}
	return nil
}

// clean removes what the nodes have of the backup's tables, and everything from which writes could come back: commit logs, hints, and the state of lightweight
// transactions. Snapshots and incremental backups stay.
func (a *attempt) clean(ctx context.Context, p *stoppedPlan) error {
	return each(ctx, a.nodes, func(ctx context.Context, n *captured) error {
		must, may := a.d.s.Stopped.cleared(n.Node)
		if !a.d.s.Stopped.KeepPaxos {
			paxos, err := a.paxos(ctx, n)
			if err != nil {
				return err
			}
			must = append(must, paxos...)
		}
		for _, dir := range must {
			if err := empty(ctx, n.files, dir, "snapshots", "backups"); err != nil {
				return fmt.Errorf("emptying %s: %w", dir, err)
			}
		}
		for _, dir := range may {
			if err := empty(ctx, n.files, dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("emptying %s: %w", dir, err)
			}
		}
		for t, dirs := range p.dirs[n.HostID] {
			for _, dir := range dirs {
				if err := empty(ctx, n.files, dir, "snapshots", "backups"); err != nil {
					return fmt.Errorf("removing the data of table %s: %w", t, err)
				}
			}
		}
		return nil
	})
}

// placeStopped puts each node's files where it had them.
func (a *attempt) placeStopped(ctx context.Context, p *stoppedPlan) error {
	var err error
	switch {
	case a.fetches():
		err = each(ctx, a.nodes, func(ctx context.Context, n *captured) error {
			from := p.from[n.HostID]
			err := deliver(ctx, n, fetched(a.fetchedInto(n), from), a.lists[from], func(t snapshot.Files) (string, bool) {
				dirs := p.dirs[n.HostID][node.Table{Keyspace: t.Keyspace, Name: t.Table}]
				if len(dirs) == 0 || !hasData(t) {
					return "", false
				}
				return dirs[0], true
			})
			return errors.Join(err, n.files.RemoveAll(ctx, a.fetchedInto(n)))
		})
	case a.tool != nil:
		err = a.tool.restore(ctx, a, p)
	case a.ix.Data == snapshot.DataNodes:
		err = a.link(ctx)
	default:
		_, err = a.store.Place(ctx, a.ix, a.stoppedTargets(p))
	}
	if err != nil {
		return err
	}
	return a.settleFiles(ctx, p)
}

// stoppedTargets say where files of the catalog go.
func (a *attempt) stoppedTargets(p *stoppedPlan) []upload.Target {
	targets := make([]upload.Target, 0, len(a.nodes))
	for _, n := range a.nodes {
		roots := dataRoots(a.lists[p.from[n.HostID]])
		targets = append(targets, upload.Target{Name: n.Address, Files: n.files, Roots: n.directories, Directory: func(c snapshot.Node, t snapshot.Files) (string, bool) {
			if c.HostID != p.from[n.HostID] {
				return "", false
			}
			dirs := p.dirs[n.HostID][node.Table{Keyspace: t.Keyspace, Name: t.Table}]
			if len(dirs) == 0 || !slices.ContainsFunc(t.Files, func(f snapshot.File) bool { return strings.HasSuffix(f.Path, dataEnd) }) {
				return "", false
			}
			return dirs[min(slices.Index(roots, dataRoot(t.Directory)), len(dirs)-1)], true
		}})
	}
	return targets
}

// settleFiles gives what was placed to Cassandra's user, and has it written to the disks.
func (a *attempt) settleFiles(ctx context.Context, p *stoppedPlan) error {
	return each(ctx, a.nodes, func(ctx context.Context, n *captured) error {
		var placed []string
		for _, dirs := range p.dirs[n.HostID] {
			for _, dir := range dirs {
				placed = append(placed, dir)
				// They are the snapshot's, and no SSTables.
				for _, name := range []string{"manifest.json", "schema.cql"} {
					if err := n.files.RemoveAll(ctx, path.Join(dir, name)); err != nil {
						return err
					}
				}
			}
		}
		slices.Sort(placed)
		if err := a.giveAway(ctx, n, placed...); err != nil {
			return err
		}
		if _, err := n.files.Run(ctx, "sync", nil); err != nil {
			return fmt.Errorf("writing the files to its disks: %w", err)
		}
		return nil
	})
}

// dataRoot is the data directory of a snapshot's directory: KEYSPACE/TABLE-ID/snapshots/TAG lies below it.
func dataRoot(dir string) string {
	return path.Dir(path.Dir(path.Dir(path.Dir(dir))))
}

// dataRoots are a captured node's data directories.
func dataRoots(l *snapshot.FileList) (out []string) {
	for _, t := range l.Tables {
		out = append(out, dataRoot(t.Directory))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// startAll starts the nodes, waits until they are one cluster again, and opens it anew.
func (a *attempt) startAll(ctx context.Context, _ *stoppedPlan) error {
	err := each(ctx, a.nodes, func(ctx context.Context, n *captured) error {
		if err := a.s.command(ctx, n.Node, n.files, a.d.s.Stopped.StartCommand); err != nil {
			return fmt.Errorf("starting it: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, n := range a.nodes {
		_ = n.close() //nolint:errcheck // it is opened anew
	}
	want := len(a.nodes)
	a.nodes = nil
	return a.comeBack(ctx, want)
}

// comeBack waits until a cluster of so many nodes is up and agrees, and opens it.
func (a *attempt) comeBack(ctx context.Context, want int) error {
	ctx, cancel := a.s.Clock.WithTimeout(ctx, starting)
	defer cancel()
	for {
		if a.t != nil {
			a.t.close()
			a.t = nil
		}
		for _, n := range a.nodes {
			_ = n.close() //nolint:errcheck // it is opened anew
		}
		a.nodes = nil
		err := a.openTarget(ctx)
		if err == nil && len(a.nodes) == want {
			return nil
		}
		if err == nil {
			err = fmt.Errorf("%d of %d nodes are there", len(a.nodes), want)
		}
		if a.s.Clock.Sleep(ctx, lookAgain) != nil {
			return fmt.Errorf("waiting for the nodes to come back after start_command: %w", err)
		}
	}
}

// lowerStopped repairs what has a raised gc_grace_seconds, and puts it back.
func (a *attempt) lowerStopped(ctx context.Context, p *stoppedPlan) error {
	var names []string
	for _, k := range p.keyspaces {
		if len(k.raised) > 0 {
			names = append(names, k.name)
		}
	}
	if len(names) > 0 {
		a.report("the backup is about as old as gc_grace_seconds: repairing", map[string]any{"keyspaces": list(names)})
		if err := a.repair(ctx, names); err != nil {
			return err
		}
	}
	there, err := readKeyspaces(ctx, a.t.members[0].conn)
	if err != nil {
		return err
	}
	for _, k := range p.keyspaces {
		if there[k.name] == nil {
			return fmt.Errorf("keyspace %s is gone after the start", k.name)
		}
		for _, t := range there[k.name].tables {
			// Also one that an attempt which died had raised.
			if own, ok := k.own[t.name]; ok && own != t.gcGrace {
				if err := a.statement(ctx, fmt.Sprintf("ALTER TABLE %s.%s WITH gc_grace_seconds = %d", ddl.Quote(k.name), ddl.Quote(t.name), own)); err != nil {
					return err
				}
			}
		}
	}
	return a.agree(ctx)
}

// startAgain starts the nodes that a restore which died has stopped.
func (d *Destination) startAgain(ctx context.Context, o engine.RestoredObject) error {
	if d.s.Stopped == nil {
		return fmt.Errorf("nodes of cluster %s may be stopped, and the restore has neither in_place nor same_topology any more, which say how they are started: start them, and see that all are up", o.ID)
	}
	var nodes []node.Node
	if err := json.Unmarshal([]byte(o.Extra[extraStopped]), &nodes); err != nil {
		return fmt.Errorf("the record of the nodes of cluster %s: %w", o.ID, err)
	}
	s, err := d.s.reach(nil)
	if err != nil {
		return err
	}
	err = each(ctx, nodesOf(nodes), func(ctx context.Context, n recordedNode) error {
		one, done := s.Clock.WithTimeout(ctx, callTimeout)
		c, err := s.connector().connect(one, n.Address)
		done()
		if err == nil {
			c.Close()
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if s.Files == nil {
			return errors.New("it is down, and nothing gives access to its machine (ssh, or via = \"local\")")
		}
		files, err := s.Files.OpenFiles(ctx, n.Node)
		if err != nil {
			return fmt.Errorf("it is down, and has to be started: %w", err)
		}
		defer files.Close() //nolint:errcheck // nothing is lost
		// It may run, and be drained.
		if err := s.command(ctx, n.Node, files, d.s.Stopped.StopCommand); err != nil {
			return fmt.Errorf("stopping it, to start it anew: %w", err)
		}
		if err := s.command(ctx, n.Node, files, d.s.Stopped.StartCommand); err != nil {
			return fmt.Errorf("starting it: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	a := &attempt{d: d, s: s, ix: &snapshot.Index{}}
	defer a.close()
	return a.comeBack(ctx, len(nodes))
}

// recordedNode is a node with a name for messages.
type recordedNode struct{ node.Node }

func (n recordedNode) String() string {
	return fmt.Sprintf("node %s (%s, %s)", n.Address, n.HostID, n.Datacenter)
}

func nodesOf(nodes []node.Node) []recordedNode {
	out := make([]recordedNode, len(nodes))
	for i, n := range nodes {
		out[i] = recordedNode{n}
	}
	return out
}
