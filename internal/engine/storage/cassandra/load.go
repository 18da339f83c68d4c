package cassandra

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/ddl"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/snapshot"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/upload"
)

// loadPlan is all that a load will do.
type loadPlan struct {
	keyspaces []loadKeyspace
	room      map[string]string // by the target's host id: the directory that exists, above those for the files
	bytes     map[string]int64  // likewise: of the files that go there
}

// loadKeyspace is one keyspace of the backup, as it will be.
type loadKeyspace struct {
	from, to    string
	exists      bool // and is empty
	replication map[string]string
	statements  []ddl.Statement
	ids         map[string]string // new ones, by table
	own         map[string]int64  // gc_grace_seconds to be put back after a repair, by table
	shares      shares
}

func (k loadKeyspace) table(name string) string { return ddl.Quote(k.to) + "." + ddl.Quote(name) }

// tableID is the id that a restore gives to a table. Nobody else's table has it, so it proves whose a table is; and what system.paxos has of another table
// does not count for it.
func tableID(runID, keyspace, table string) string {
	h := sha256.Sum256([]byte("scalardb restore\x00" + runID + "\x00" + keyspace + "\x00" + table))
	h[6], h[8] = h[6]&0x0f|0x40, h[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[0:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

// planLoad makes all checks of a load.
func (a *attempt) planLoad(ctx context.Context) (*loadPlan, error) {
	l := a.d.s.Load
	if l == nil {
		return nil, errors.New("the restore has no load")
	}
	there, err := readKeyspaces(ctx, a.t.members[0].conn)
	if err != nil {
		return nil, err
	}
	p := &loadPlan{}
	var errs []error
	targets := map[string]string{}
	for _, k := range a.ix.Keyspaces {
		one := loadKeyspace{from: k.Name, to: k.Name}
		if to, ok := l.Keyspaces[k.Name]; ok {
			one.to = to
		}
		if other, ok := targets[one.to]; ok {
			errs = append(errs, fmt.Errorf("keyspaces %s and %s would both be %s", other, k.Name, one.to))
		}
		targets[one.to] = k.Name
		if err := a.planKeyspace(k, &one, there[one.to]); err != nil {
			errs = append(errs, fmt.Errorf("keyspace %s: %w", one.to, err))
		}
		p.keyspaces = append(p.keyspaces, one)
	}
	for _, from := range slices.Sorted(maps.Keys(l.Keyspaces)) {
		if !slices.ContainsFunc(a.ix.Keyspaces, func(k snapshot.Keyspace) bool { return k.Name == from }) {
			errs = append(errs, fmt.Errorf("the backup has no keyspace %s that could be renamed", from))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if err := a.checkOperators(p); err != nil {
		return nil, err
	}
	return p, a.checkRoom(ctx, p)
}

func (a *attempt) planKeyspace(k snapshot.Keyspace, one *loadKeyspace, there *keyspace) error {
	if there != nil && len(there.tables)+len(there.views) > 0 {
		return fmt.Errorf("it is in cluster %s already, and has tables: drop it, or give the restored one another name (load.keyspaces)", a.t.cluster)
	}
	replicated := k.Replication
	if len(a.d.s.Load.Replication) > 0 {
		replicated = replicationOptions(a.d.s.Load.Replication, a.t.members)
	}
	after, err := parseReplication(replicated)
	if err != nil {
		return fmt.Errorf("%w: set load.replication", err)
	}
	if err := possible(after, a.t.members); err != nil {
		return fmt.Errorf("it cannot be replicated here as %s: %w; set load.replication", describeReplication(replicated), err)
	}
	one.replication = replicated
	if there != nil {
		one.exists = true
		have, err := parseReplication(there.replication)
		if err != nil || !have.equal(after) {
			return fmt.Errorf("it is in cluster %s already, and its replication is %s, not %s: drop it, or set load.replication", a.t.cluster, describeReplication(there.replication), describeReplication(replicated))
		}
	}
	before, err := parseReplication(k.Replication)
	if err != nil {
		return err
	}
	_, from, err := capturedRing(a.ix)
	if err != nil {
		return err
	}
	to, err := a.t.ring()
	if err != nil {
		return err
	}
	one.shares = divide(from, to, before, after, a.whole())
	one.ids, one.own = map[string]string{}, map[string]int64{}
	raised := map[string]int64{}
	for _, t := range k.Tables {
		one.ids[t.Name] = tableID(a.r.RunID, one.to, t.Name)
		if during, ok := a.grace(t); ok {
			one.own[t.Name], raised[t.Name] = t.GCGraceSeconds, during
		}
	}
	change := ddl.Change{From: one.from, To: one.to, Replication: replicated, IDs: one.ids, GCGrace: raised}
	one.statements, err = change.Apply(k.CQL)
	return err
}

// replicationOptions are what a user wrote, as Cassandra has it.
func replicationOptions(given map[string]string, members []*member) map[string]string {
	out := maps.Clone(given)
	if out["class"] == "" {
		out["class"] = "NetworkTopologyStrategy"
	}
	// Cassandra would give so many replicas to every datacenter.
	if n, ok := out["replication_factor"]; ok && strings.HasSuffix(out["class"], "NetworkTopologyStrategy") {
		delete(out, "replication_factor")
		for _, m := range members {
			if _, ok := out[m.Datacenter]; !ok {
				out[m.Datacenter] = n
			}
		}
	}
	return out
}

func describeReplication(options map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(options)) {
		parts = append(parts, k+"="+options[k])
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// possible says why the nodes cannot have that many replicas.
func possible(p replication, members []*member) error {
	nodes := map[string]int{}
	for _, m := range members {
		nodes[m.Datacenter]++
	}
	if p.total() == 0 {
		return errors.New("it has no replicas")
	}
	if p.factors == nil {
		if len(members) < p.simple {
			return fmt.Errorf("the cluster has %d nodes", len(members))
		}
		return nil
	}
	for _, dc := range slices.Sorted(maps.Keys(p.factors)) {
		if n := p.factors[dc]; n > nodes[dc] {
			return fmt.Errorf("the cluster has %d nodes in datacenter %s (it has %s)", nodes[dc], dc, strings.Join(slices.Sorted(maps.Keys(nodes)), ", "))
		}
	}
	return nil
}

// checkOperators refuses a transport that cannot do what the plan needs.
func (a *attempt) checkOperators(p *loadPlan) error {
	name := a.s.Transport.Name()
	for _, n := range a.nodes {
		if _, ok := n.op.(node.Importer); !ok {
			return fmt.Errorf("transport %s cannot import SSTables: use jmx, jolokia, ssh or exec", name)
		}
		_, loads := n.op.(node.Loader)
		_, cleans := n.op.(node.Cleaner)
		_, repairs := n.op.(node.Repairer)
		for _, k := range p.keyspaces {
			if k.loadsParts(n.HostID) && !(loads && cleans) {
				return fmt.Errorf("keyspace %s: the nodes own other ranges than those of the backup, and transport %s cannot clean up after an import: use jmx, jolokia, ssh or exec", k.to, name)
			}
			if len(k.own) > 0 && !repairs {
				return fmt.Errorf("keyspace %s: the backup is about as old as gc_grace_seconds, and transport %s cannot repair: use jmx, jolokia, ssh or exec", k.to, name)
			}
		}
	}
	return nil
}

// loadsParts says that the node gets files of which it owns a part only.
func (k loadKeyspace) loadsParts(target string) bool {
	for _, to := range k.shares {
		if to[target] == sharePart {
			return true
		}
	}
	return false
}

// staging is the directory of one run's files on a node.
func (a *attempt) staging(n *captured) string {
	return path.Join(stagingOf(a.d.s.Load, a.r.RunID, n.Node), n.HostID)
}

func stagingOf(l *LoadSettings, runID string, n node.Node) string {
	dir := l.Directory
	if dir == "" {
		dir = DefaultDirectory
	}
	return path.Join(n.Expand(dir), runID)
}

// hasData says that a table has SSTables of its own (not only an index's, which an import builds anew).
func hasData(t snapshot.Files) bool {
	return slices.ContainsFunc(t.Files, func(f snapshot.File) bool {
		return !strings.Contains(f.Path, "/") && strings.HasSuffix(f.Path, dataEnd)
	})
}

// goes says where one captured node's files of a table go on a target node.
func (a *attempt) goes(p *loadPlan, n *captured, hostID string, t snapshot.Files) (dir string, s share, k *loadKeyspace) {
	i := slices.IndexFunc(p.keyspaces, func(k loadKeyspace) bool { return k.from == t.Keyspace })
	if i < 0 || !hasData(t) {
		return "", shareNone, nil
	}
	k = &p.keyspaces[i]
	if _, ok := k.ids[t.Table]; !ok {
		return "", shareNone, nil // a materialized view would have been refused
	}
	// Cassandra takes keyspace and table from the directories' names. A table may have SSTables in several data directories.
	from := t.Directory
	if a.tool != nil {
		from = "" // where they were fetched into one
	}
	d := sha256.Sum256([]byte(from))
	return path.Join(a.staging(n), hostID, fmt.Sprintf("%x", d[:4]), k.to, t.Table), k.shares[hostID][n.HostID], k
}

// sends says that some of a captured node's files go to a target node.
func (a *attempt) sends(p *loadPlan, n *captured, hostID string) bool {
	return slices.ContainsFunc(a.lists[hostID].Tables, func(t snapshot.Files) bool {
		_, s, _ := a.goes(p, n, hostID, t)
		return s != shareNone
	})
}

// checkRoom looks for the directories for the files, and whether they have room.
func (a *attempt) checkRoom(ctx context.Context, p *loadPlan) error {
	p.room, p.bytes = map[string]string{}, map[string]int64{}
	for _, n := range a.nodes {
		for _, hostID := range slices.Sorted(maps.Keys(a.lists)) {
			if a.tool != nil && a.sends(p, n, hostID) {
				_, size := a.lists[hostID].Total() // it fetches all tables
				p.bytes[n.HostID] += size
				continue
			}
			for _, t := range a.lists[hostID].Tables {
				if _, s, _ := a.goes(p, n, hostID, t); s != shareNone {
					for _, f := range t.Files {
						p.bytes[n.HostID] += f.Size
					}
				}
			}
		}
	}
	roots := make([]string, len(a.nodes))
	err := eachAt(ctx, a.nodes, func(ctx context.Context, i int, n *captured) error {
		dir := a.staging(n)
		for {
			e, err := n.files.Stat(ctx, dir)
			if err == nil && (e.Dir || e.Link) {
				break
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) || err == nil {
				return fmt.Errorf("looking at %s, for load.directory: %w", dir, errors.Join(err, notDirectory(err)))
			}
			dir = path.Dir(dir)
		}
		roots[i] = dir
		free, err := n.files.Free(ctx, dir)
		if err != nil {
			return fmt.Errorf("asking for the room in %s: %w", dir, err)
		}
		if need := p.bytes[n.HostID]; free < need {
			return fmt.Errorf("%s has %d MiB left, and the files that go there have %d MiB: make room, or set load.directory", dir, free>>20, need>>20)
		}
		return nil
	})
	for i, n := range a.nodes {
		p.room[n.HostID] = roots[i]
	}
	return err
}

func notDirectory(err error) error {
	if err == nil {
		return errors.New("it is no directory")
	}
	return nil
}

// load does it.
func (a *attempt) load(ctx context.Context, p *loadPlan) (engine.Restored, error) {
	rename := map[string]string{}
	for _, k := range p.keyspaces {
		if k.from != k.to {
			rename[k.from] = k.to
		}
	}
	out := a.properties(rename)
	ms := strconv.FormatInt(a.s.Clock.Now().UnixMilli(), 10)
	dir := a.d.s.Load.Directory
	if dir == "" {
		dir = DefaultDirectory
	}
	staging := engine.RestoredObject{Kind: objectStaging, ID: path.Join(dir, a.r.RunID), Created: true}
	out.Objects = append(out.Objects, staging)
	for _, k := range p.keyspaces {
		out.Objects = append(out.Objects, engine.RestoredObject{Kind: objectKeyspace, ID: k.to, Created: !k.exists})
		for _, t := range slices.Sorted(maps.Keys(k.ids)) {
			out.Objects = append(out.Objects, engine.RestoredObject{Kind: objectTable, ID: k.to + "." + t, Created: true, Extra: map[string]string{extraTableID: k.ids[t], extraAnnounced: ms}})
		}
	}
	if err := a.step(ctx, "announce"); err != nil {
		return engine.Restored{}, err
	}
	if a.r.Announce != nil {
		if err := a.r.Announce(ctx, out); err != nil {
			return engine.Restored{}, fmt.Errorf("recording what will be made: %w", err)
		}
	}
	for _, s := range []struct {
		name string
		run  func(context.Context, *loadPlan) error
	}{{"schema", a.makeSchema}, {"place", a.place}, {"import", a.importAll}, {"repair", a.lowerGrace}, {"namespaces", a.renameNamespaces}, {"unstage", a.unstage}} {
		err := a.step(ctx, s.name)
		if err == nil {
			err = s.run(ctx, p)
		}
		if err != nil {
			return out, err
		}
	}
	// The files are gone, and with them what would have to be removed.
	out.Objects = slices.DeleteFunc(out.Objects, func(o engine.RestoredObject) bool { return o.Kind == objectStaging })
	return out, nil
}

func (a *attempt) makeSchema(ctx context.Context, p *loadPlan) error {
	for _, k := range p.keyspaces {
		a.report("creating keyspace", map[string]any{"keyspace": k.to, "tables": len(k.ids), "exists": k.exists})
		for i, s := range k.statements {
			if s.Kind == ddl.Keyspace && k.exists {
				continue
			}
			if err := a.step(ctx, "statement "+strconv.Itoa(i)); err != nil {
				return err
			}
			if err := a.statement(ctx, s.CQL); err != nil {
				return err
			}
		}
	}
	if err := a.agree(ctx); err != nil {
		return err
	}
	there, err := readKeyspaces(ctx, a.t.members[0].conn)
	if err != nil {
		return err
	}
	for _, k := range p.keyspaces {
		have := map[string]string{}
		if there[k.to] != nil {
			for _, t := range there[k.to].tables {
				have[t.name] = t.id
			}
		}
		if !maps.Equal(have, k.ids) {
			return fmt.Errorf("keyspace %s has other tables than were created: somebody else changes it; leave it alone, and try again", k.to)
		}
	}
	return nil
}

// place brings the files to the nodes.
func (a *attempt) place(ctx context.Context, p *loadPlan) error {
	targets := make([]upload.Target, 0, len(a.nodes))
	for _, n := range a.nodes {
		targets = append(targets, upload.Target{Name: n.Address, Files: n.files, Roots: []string{p.room[n.HostID]}, Directory: func(c snapshot.Node, t snapshot.Files) (string, bool) {
			dir, s, _ := a.goes(p, n, c.HostID, t)
			return dir, s != shareNone
		}})
	}
	var err error
	if a.tool != nil {
		err = a.placeFetched(ctx, p)
	} else {
		_, err = a.store.Place(ctx, a.ix, targets)
	}
	if err != nil {
		return err
	}
	if a.d.s.Load.Owner == "" {
		return nil
	}
	return each(ctx, a.nodes, func(ctx context.Context, n *captured) error {
		if p.bytes[n.HostID] == 0 {
			return nil
		}
		if _, err := n.files.Run(ctx, "chown -R "+node.Quote(a.d.s.Load.Owner)+" "+node.Quote(a.staging(n)), nil); err != nil {
			return fmt.Errorf("giving the files to %s: %w", a.d.s.Load.Owner, err)
		}
		return nil
	})
}

// placeFetched has a tool fetch the files, and places them.
func (a *attempt) placeFetched(ctx context.Context, p *loadPlan) error {
	err := a.tool.fetch(ctx, a, a.staging, func(n *captured, from snapshot.Node) bool { return a.sends(p, n, from.HostID) })
	if err != nil {
		return err
	}
	return each(ctx, a.nodes, func(ctx context.Context, n *captured) error {
		for _, from := range a.ix.Nodes {
			list := a.lists[from.HostID]
			if list == nil || !a.sends(p, n, from.HostID) {
				continue
			}
			err := deliver(ctx, n, fetched(a.staging(n), from.HostID), list, func(t snapshot.Files) (string, bool) {
				dir, s, _ := a.goes(p, n, from.HostID, t)
				return dir, s != shareNone
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// importAll has every node import what lies on it, and clean up what it does not own.
func (a *attempt) importAll(ctx context.Context, p *loadPlan) error {
	return each(ctx, a.nodes, func(ctx context.Context, n *captured) error {
		dirs := map[share]map[node.Table][]string{shareAll: {}, sharePart: {}}
		for _, hostID := range slices.Sorted(maps.Keys(a.lists)) {
			for _, t := range a.lists[hostID].Tables {
				if dir, s, k := a.goes(p, n, hostID, t); s != shareNone {
					at := node.Table{Keyspace: k.to, Name: t.Table}
					if !slices.Contains(dirs[s][at], dir) {
						dirs[s][at] = append(dirs[s][at], dir)
					}
				}
			}
		}
		for _, k := range p.keyspaces {
			for _, name := range slices.Sorted(maps.Keys(k.ids)) {
				t := node.Table{Keyspace: k.to, Name: name}
				if d := dirs[shareAll][t]; len(d) > 0 {
					if err := n.op.(node.Importer).Import(ctx, t.Keyspace, t.Name, d); err != nil { //nolint:forcetypeassert // checkOperators has looked
						return fmt.Errorf("%w; tokens that a node does not own are in a backup whose nodes were not cleaned up (nodetool cleanup) after the ring had changed", err)
					}
				}
				if d := dirs[sharePart][t]; len(d) > 0 {
					if err := n.op.(node.Loader).Load(ctx, t.Keyspace, t.Name, d); err != nil { //nolint:forcetypeassert // likewise
						return err
					}
				}
			}
			if k.loadsParts(n.HostID) {
				if err := n.op.(node.Cleaner).Cleanup(ctx, k.to); err != nil { //nolint:forcetypeassert // likewise
					return err
				}
			}
		}
		a.report("a node has imported its files", map[string]any{"node": n.Address, "bytes": p.bytes[n.HostID]})
		return nil
	})
}

// lowerGrace repairs the keyspaces whose gc_grace_seconds were raised, and puts these back.
func (a *attempt) lowerGrace(ctx context.Context, p *loadPlan) error {
	var names []string
	for _, k := range p.keyspaces {
		if len(k.own) > 0 {
			names = append(names, k.to)
		}
	}
	if len(names) == 0 {
		return nil
	}
	a.report("the backup is about as old as gc_grace_seconds: repairing", map[string]any{"keyspaces": list(names)})
	if err := a.repair(ctx, names); err != nil {
		return err
	}
	for _, k := range p.keyspaces {
		for _, t := range slices.Sorted(maps.Keys(k.own)) {
			if err := a.statement(ctx, fmt.Sprintf("ALTER TABLE %s WITH gc_grace_seconds = %d", k.table(t), k.own[t])); err != nil {
				return err
			}
		}
	}
	return a.agree(ctx)
}

// renameNamespaces has ScalarDB's list of namespaces name the new keyspaces.
func (a *attempt) renameNamespaces(ctx context.Context, p *loadPlan) error {
	rename := map[string]string{}
	metadata := ""
	for _, k := range p.keyspaces {
		if k.from != k.to {
			rename[k.from] = k.to
		}
		if _, ok := k.ids[namespacesTable]; ok && k.from == a.r.Record.Extra["metadata_namespace"] {
			metadata = k.table(namespacesTable)
		}
	}
	if metadata == "" || len(rename) == 0 {
		return nil
	}
	c := a.t.members[0].conn
	rows, err := c.Query(ctx, "SELECT name FROM "+metadata)
	if err != nil {
		return fmt.Errorf("reading the namespaces in %s: %w", metadata, err)
	}
	listed := map[string]bool{}
	for _, r := range rows {
		listed[r.text("name")] = true
	}
	// A name may go from one keyspace to another: what is removed is removed first.
	after := map[string]bool{}
	for name := range listed {
		if to, ok := rename[name]; ok {
			after[to] = true
		} else {
			after[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(listed)) {
		if !after[name] {
			if _, err := c.Query(ctx, "DELETE FROM "+metadata+" WHERE name = ?", name); err != nil {
				return fmt.Errorf("removing namespace %s from %s: %w", name, metadata, err)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if !listed[name] {
			if _, err := c.Query(ctx, "INSERT INTO "+metadata+" (name) VALUES (?)", name); err != nil {
				return fmt.Errorf("adding namespace %s to %s: %w", name, metadata, err)
			}
		}
	}
	return nil
}

// unstage removes the files that were imported.
func (a *attempt) unstage(ctx context.Context, _ *loadPlan) error {
	return each(ctx, a.nodes, func(ctx context.Context, n *captured) error {
		if err := n.files.RemoveAll(ctx, stagingOf(a.d.s.Load, a.r.RunID, n.Node)); err != nil {
			return fmt.Errorf("removing the files that were imported: %w", err)
		}
		return nil
	})
}

// Inspect returns ErrNotFound when none of the restored tables is left.
func (d *Destination) Inspect(ctx context.Context, r engine.Restored) error {
	s, err := d.s.reach(nil)
	if err != nil {
		return err
	}
	c, err := s.enter(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	there, err := readKeyspaces(ctx, c)
	if err != nil {
		return err
	}
	tables := 0
	for _, o := range r.Objects {
		switch o.Kind {
		case objectTable:
			tables++
			if ours(there, o) {
				return nil
			}
		case objectKeyspace:
			if there[o.ID] == nil {
				return fmt.Errorf("keyspace %s: %w", o.ID, engine.ErrNotFound)
			}
		}
	}
	if tables > 0 {
		return fmt.Errorf("none of the %d restored tables is there any more: %w", tables, engine.ErrNotFound)
	}
	return nil
}

// ours says that a restored table is there: one of its name with its id.
func ours(there map[string]*keyspace, o engine.RestoredObject) bool {
	ks, name, _ := strings.Cut(o.ID, ".")
	k := there[ks]
	return k != nil && slices.ContainsFunc(k.tables, func(t table) bool { return t.name == name && t.id == o.Extra[extraTableID] })
}

// Delete removes what Restore made: tables by their ids, keyspaces that it made and that are empty then, and files on the nodes. Another's table of the same name,
// and a keyspace with one, stays.
func (d *Destination) Delete(ctx context.Context, r engine.Restored) error {
	mine := false
	for _, o := range r.Objects {
		if o.Kind == objectNodes {
			if err := d.startAgain(ctx, o); err != nil {
				return err
			}
		}
		mine = mine || o.Created
	}
	if !mine {
		return nil
	}
	a := &attempt{d: d}
	defer a.close()
	if err := a.openBare(ctx); err != nil {
		return err
	}
	there, err := readKeyspaces(ctx, a.t.members[0].conn)
	if err != nil {
		return err
	}
	var tables []engine.RestoredObject
	for _, o := range r.Objects {
		if o.Kind != objectTable || !o.Created {
			continue
		}
		tables = append(tables, o)
		if !ours(there, o) {
			continue
		}
		ks, name, _ := strings.Cut(o.ID, ".")
		if err := a.statement(ctx, "DROP TABLE IF EXISTS "+ddl.Quote(ks)+"."+ddl.Quote(name)); err != nil {
			return err
		}
	}
	if err := a.agree(ctx); err != nil {
		return err
	}
	if err := a.clearDropped(ctx, tables); err != nil {
		return err
	}
	if there, err = readKeyspaces(ctx, a.t.members[0].conn); err != nil {
		return err
	}
	for _, o := range r.Objects {
		if k := there[o.ID]; o.Kind == objectKeyspace && o.Created && k != nil && len(k.tables)+len(k.views) == 0 {
			if err := a.statement(ctx, "DROP KEYSPACE IF EXISTS "+ddl.Quote(o.ID)); err != nil {
				return err
			}
		}
	}
	if err := a.agree(ctx); err != nil {
		return err
	}
	for _, o := range r.Objects {
		if o.Kind != objectStaging || !o.Created {
			continue
		}
		err := each(ctx, a.nodes, func(ctx context.Context, n *captured) error {
			if only := o.Extra[extraNode]; only != "" && only != n.HostID {
				return nil
			}
			return n.files.RemoveAll(ctx, n.Expand(o.ID))
		})
		if err != nil {
			return fmt.Errorf("removing the files that were to be imported: %w", err)
		}
	}
	return nil
}

// openBare opens the target without a backup.
func (a *attempt) openBare(ctx context.Context) error {
	a.ix = &snapshot.Index{}
	return a.openTarget(ctx)
}

// clearDropped clears the snapshots that Cassandra takes of a table that is dropped (auto_snapshot).
func (a *attempt) clearDropped(ctx context.Context, tables []engine.RestoredObject) error {
	since := map[node.Table]int64{}
	for _, o := range tables {
		ks, name, _ := strings.Cut(o.ID, ".")
		if ms, err := strconv.ParseInt(o.Extra[extraAnnounced], 10, 64); err == nil {
			since[node.Table{Keyspace: ks, Name: name}] = ms
		}
	}
	return each(ctx, a.nodes, func(ctx context.Context, n *captured) error {
		var all []node.Snapshot
		err := n.call(ctx, func(ctx context.Context, op node.Operator) (err error) {
			all, err = op.Snapshots(ctx)
			return err
		})
		if isUnsupported(err) {
			a.report("snapshots that Cassandra took of dropped tables cannot be listed by this transport, and may be left", map[string]any{"node": n.Address})
			return nil
		}
		if err != nil {
			return fmt.Errorf("listing its snapshots: %w", err)
		}
		if release(n.Version) < release("4.1") {
			unlisted, err := a.droppedOn(ctx, n, tables)
			if err != nil {
				a.report("snapshots that Cassandra took of dropped tables could not be looked for, and may be left: before 4.1 it does not list them", map[string]any{"node": n.Address, "error": err.Error()})
			}
			all = append(all, unlisted...)
		}
		for _, s := range all {
			from, ok := since[node.Table{Keyspace: s.Keyspace, Name: s.Table}]
			if !ok || !droppedSince(s, from) {
				continue
			}
			if err := n.clear(ctx, s.Tag, []string{s.Keyspace}); err != nil {
				return err
			}
		}
		return nil
	})
}

// droppedOn looks for such snapshots in the tables' own directories: before 4.1 Cassandra lists those of tables that are there, and clears others all the same.
func (a *attempt) droppedOn(ctx context.Context, n *captured, tables []engine.RestoredObject) (out []node.Snapshot, err error) {
	directories, err := a.s.directories(ctx, n)
	if err != nil {
		return nil, err
	}
	for _, data := range directories {
		for _, o := range tables {
			ks, name, _ := strings.Cut(o.ID, ".")
			entries, err := n.files.ReadDir(ctx, path.Join(data, ks, snapshot.TableDirectory(name, o.Extra[extraTableID]), "snapshots"))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return out, err
			}
			for _, e := range entries {
				out = append(out, node.Snapshot{Tag: e.Name, Keyspace: ks, Table: name})
			}
		}
	}
	return out, nil
}

// droppedSince says that a snapshot is the one of a table that was dropped then or later: dropped-MILLISECONDS-TABLE.
func droppedSince(s node.Snapshot, ms int64) bool {
	rest, ok := strings.CutPrefix(s.Tag, "dropped-")
	at, name, _ := strings.Cut(rest, "-")
	n, err := strconv.ParseInt(at, 10, 64)
	return ok && err == nil && name == s.Table && n >= ms
}
