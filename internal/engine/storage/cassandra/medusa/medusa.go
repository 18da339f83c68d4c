// Package medusa lets cassandra-medusa on the nodes bring their snapshots to its own storage: `medusa backup-node --use-existing-snapshot`, with the snapshot
// that the driver took.
//
// What was read in medusa's source (0.31.0) and seen of it:
//   - With --use-existing-snapshot the snapshot's tag is the backup's name, without the prefix "medusa-" that its own snapshots have. Where the snapshot is
//     gone, it exits with 1; where only some of its tables are, it says "Backup done" and exits with 0. So its manifest and its storage are compared with
//     the file lists, by its own library: the command line does not tell them.
//   - A differential backup takes a stored file for the node's when path and size agree, and writes over it when they do not. Names of SSTables start anew
//     after a wipe or a restore: then it would take over the files of an older backup, or destroy them. Before each backup the checksums that Cassandra
//     keeps beside every SSTable (Digest.crc32) are compared with the stored ones, and where one differs the backup is a full one, which shares nothing.
//   - Its delete-backup does not find a backup that was cut off early, so the same is done through its library.
//   - Its restore-node empties the commitlog, and neither hints nor saved caches; it leaves system.paxos, which is in no backup of single keyspaces, and which
//     brings later writes back. So a restore here fetches the files (Fetch, `medusa download`), and the driver does the rest as for every other place.
package medusa

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/move"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/snapshot"
)

// Mover is `medusa` as the driver calls it.
type Mover struct{ Settings Settings }

var _ move.Mover = Mover{}

// Keys of an artifact's Extra.
const (
	extraIndex = "index" // name of the index in the catalog
	extraNodes = "nodes" // "HOSTID=NAME", separated by commas: the node's name in medusa's storage
)

// Name is the key in HCL.
func (Mover) Name() string { return snapshot.DataMedusa }

// NeedsFiles is true: medusa is run on the nodes.
func (Mover) NeedsFiles() bool { return true }

// Tag is the slug, and the name of medusa's backup.
func (Mover) Tag(slug string) string { return slug }

// session is one run's backup.
type session struct {
	job   move.Job
	tools []*tool // by node of the job
	names []string
	facts move.Facts
	begun bool
}

// answers of the script.
type (
	checked struct {
		Version  string   `json:"version"`
		Provider string   `json:"provider"`
		Existing bool     `json:"existing"` // --use-existing-snapshot is known
		FQDN     string   `json:"fqdn"`
		Tokens   []string `json:"tokens"` // of the node of that name; none where medusa knows no such node
		Names    []string `json:"names"`
		Traces   []string `json:"traces"` // what there is of a backup of the name
		Purges   bool     `json:"purges"`
	}
	conflicting struct {
		Count     int      `json:"count"`
		Conflicts []string `json:"conflicts"` // some of them
	}
	purged struct {
		Traces []string `json:"traces"`
	}
)

// Preflight asks medusa on every node for its version, its storage and its connection to the node, and whether the name is free.
func (m Mover) Preflight(ctx context.Context, job move.Job) (move.Session, error) {
	s := &session{job: job, tools: make([]*tool, len(job.Nodes)), names: make([]string, len(job.Nodes))}
	found := make([]checked, len(job.Nodes))
	err := move.Each(job.Nodes, func(i int, n move.Node) error {
		t, err := m.Settings.tool(n)
		if err != nil {
			return err
		}
		s.tools[i] = t
		if err := t.ask(ctx, &found[i], "check", job.Tag, ""); err != nil {
			return fmt.Errorf("asking medusa: %w", err)
		}
		s.names[i] = found[i].FQDN
		return found[i].refuse(n, job.Tag, t.config)
	})
	if err != nil {
		return nil, err
	}
	s.fillFacts(found)
	return s, nil
}

// refuse says why a backup on the node would be none.
func (c checked) refuse(n move.Node, name, config string) error {
	switch {
	case !c.Existing:
		return fmt.Errorf("medusa %s cannot back up a snapshot that is there already (--use-existing-snapshot): install a newer release", c.Version)
	case len(c.Traces) > 0:
		return fmt.Errorf("medusa's storage has something of a backup %s already (%s): remove it, or choose another name", name, strings.Join(c.Traces[:min(3, len(c.Traces))], ", "))
	case c.FQDN == "" || strings.ContainsAny(c.FQDN, ",= "):
		return fmt.Errorf("medusa's name of the node is %q, which cannot be: set fqdn in the section [storage] of %s", c.FQDN, config)
	case len(c.Tokens) == 0:
		return fmt.Errorf("medusa calls the node %s, and the nodes of the cluster %s; its restore would fail: set fqdn in the section [storage] or resolve_ip_addresses in [cassandra] of %s",
			c.FQDN, strings.Join(c.Names, ", "), config)
	case !sameTokens(c.Tokens, n.Tokens):
		return fmt.Errorf("medusa's configuration %s is that of another node: the tokens of %s are not this node's", config, c.FQDN)
	}
	return nil
}

func sameTokens(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(a, b)
}

func (s *session) fillFacts(found []checked) {
	versions := map[string]bool{}
	purging := false
	for _, c := range found {
		versions[c.Version] = true
		purging = purging || c.Purges
	}
	var all []string
	for v := range versions {
		all = append(all, v)
	}
	slices.Sort(all)
	s.facts.ToolVersions = map[string]string{"medusa": strings.Join(all, ", ")}
	if purging {
		s.facts.Warnings = append(s.facts.Warnings, "medusa's configuration has max_backup_age or max_backup_count: `medusa purge` removes this backup as well, without the provider's knowledge.")
	}
}

func (s *session) Facts() move.Facts { return s.facts }

func (s *session) artifact() engine.Artifact {
	var names []string
	for i, n := range s.job.Nodes {
		names = append(names, n.HostID+"="+s.names[i])
	}
	return engine.Artifact{Kind: snapshot.KindMedusa, ID: s.job.Tag, Extra: map[string]string{extraIndex: s.job.IndexName(), extraNodes: strings.Join(names, ",")}}
}

func (s *session) Planned() []engine.Artifact { return []engine.Artifact{s.artifact()} }

// Move runs medusa on all nodes at once, and compares what it stored with the lists.
func (s *session) Move(ctx context.Context, _ *snapshot.Index, files map[string]*snapshot.FileList) ([]engine.Artifact, error) {
	s.begun = true
	sizes := make([]int64, len(s.job.Nodes))
	err := move.Each(s.job.Nodes, func(i int, n move.Node) error {
		list := files[n.HostID]
		if list == nil {
			return errors.New("its files were not listed")
		}
		mode, err := s.mode(ctx, i)
		if err != nil {
			return err
		}
		s.report("medusa backs up a node", map[string]any{"node": n.Address, "backup": s.job.Tag, "mode": mode})
		if err := s.tools[i].run(ctx, "", "backup-node", "--backup-name", s.job.Tag, "--mode", mode, "--use-existing-snapshot", "--keep-snapshot"); err != nil {
			return fmt.Errorf("running medusa backup-node: %w", err)
		}
		// Whatever it said.
		var found stored
		if err := s.tools[i].ask(ctx, &found, "manifest", s.job.Tag, ""); err != nil {
			return fmt.Errorf("reading medusa's manifest: %w", err)
		}
		if sizes[i], err = found.compare(list, s.digests(ctx, i)); err != nil {
			return fmt.Errorf("medusa said that its backup %s is done, and it is not: %w", s.job.Tag, err)
		}
		s.report("medusa backed up a node", map[string]any{"node": n.Address, "backup": s.job.Tag, "bytes": sizes[i]})
		return nil
	})
	if err != nil {
		return nil, err
	}
	a := s.artifact()
	for _, size := range sizes {
		a.Size += size
	}
	return []engine.Artifact{a}, nil
}

// mode is differential, or full where that would mix the files of two backups up.
func (s *session) mode(ctx context.Context, i int) (string, error) {
	var c conflicting
	if err := s.tools[i].ask(ctx, &c, "conflicts", s.job.Tag, ""); err != nil {
		return "", fmt.Errorf("comparing the snapshot with what medusa has stored: %w", err)
	}
	if c.Count == 0 {
		return "differential", nil
	}
	s.report("medusa has other files of the same names in its storage, as after a wipe or a restore of the node: a differential backup would mix them up, so this one is full",
		map[string]any{"node": s.job.Nodes[i].Address, "count": c.Count, "files": strings.Join(c.Conflicts, ", ")})
	return "full", nil
}

func (s *session) report(message string, fields map[string]any) {
	if s.job.Run.Report != nil {
		s.job.Run.Report(message, fields)
	}
}

// Discard ends the backup where it still runs, and removes it.
func (s *session) Discard(ctx context.Context) error {
	if !s.begun {
		return nil
	}
	return move.Each(s.job.Nodes, func(i int, _ move.Node) error { return s.tools[i].purge(ctx, s.job.Tag, "") })
}

// Close has nothing to release: the nodes are the driver's.
func (s *session) Close() error { return nil }

func (t *tool) purge(ctx context.Context, name, fqdn string) error {
	var p purged
	if err := t.ask(ctx, &p, "purge", name, fqdn); err != nil {
		return fmt.Errorf("removing medusa's backup %s: %w", name, err)
	}
	if len(p.Traces) > 0 {
		return fmt.Errorf("removing medusa's backup %s: it is still there (%s)", name, p.Traces[0])
	}
	return nil
}

// lane is a backed up node, and where it can be asked for.
type lane struct {
	hostID, fqdn string // fqdn is empty where the node is asked itself
	node         move.Node
	tool         *tool
}

// lanes finds who to ask for each node of the artifact: itself, or any other where it is not in the cluster any more.
func (m Mover) lanes(ctx context.Context, p move.Place, a engine.Artifact) ([]lane, error) {
	if a.Kind != snapshot.KindMedusa {
		return nil, fmt.Errorf("%s %s is no backup of medusa", a.Kind, a.ID)
	}
	nodes, err := p.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	if len(nodes) == 0 || a.Extra[extraNodes] == "" {
		return nil, fmt.Errorf("medusa's backup %s: no node to ask", a.ID)
	}
	var out []lane
	for pair := range strings.SplitSeq(a.Extra[extraNodes], ",") {
		id, fqdn, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, fmt.Errorf("medusa's backup %s: wrong entry %q for a node", a.ID, pair)
		}
		l := lane{hostID: id, node: nodes[0], fqdn: fqdn}
		if i := slices.IndexFunc(nodes, func(n move.Node) bool { return n.HostID == id }); i >= 0 {
			l.node, l.fqdn = nodes[i], ""
		}
		if l.tool, err = m.Settings.tool(l.node); err != nil {
			return nil, fmt.Errorf("node %s: %w", l.node.Address, err)
		}
		out = append(out, l)
	}
	return out, nil
}

// Inspect compares medusa's manifests with its storage and, where they are still there, with the lists of the catalog.
func (m Mover) Inspect(ctx context.Context, p move.Place, a engine.Artifact) error {
	lanes, err := m.lanes(ctx, p, a)
	if err != nil {
		return err
	}
	var errs []error
	gone := 0
	for _, l := range lanes {
		var found stored
		if err := l.tool.ask(ctx, &found, "manifest", a.ID, l.fqdn); err != nil {
			errs = append(errs, fmt.Errorf("node %s: asking for medusa's backup %s: %w", l.node.Address, a.ID, err))
			continue
		}
		if !found.Complete {
			gone++
			continue
		}
		list, err := snapshot.FindFiles(ctx, p.Catalog, snapshot.FilesName(strings.TrimSuffix(a.Extra[extraIndex], snapshot.IndexName), l.hostID), l.hostID)
		switch {
		case errors.Is(err, engine.ErrNotFound):
			err = found.check()
		case err == nil:
			_, err = found.compare(list, known(list))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("medusa's backup %s of node %s: %w", a.ID, l.hostID, err))
		}
	}
	if gone > 0 {
		errs = append(errs, fmt.Errorf("medusa's backup %s is not in its storage for %s of %d nodes: %w", a.ID, strconv.Itoa(gone), len(lanes), engine.ErrNotFound))
	}
	return errors.Join(errs...)
}

// Delete removes the backup on all nodes. Files that other backups share stay, and files that no backup needs any more for as long as
// medusa's backup_grace_period_in_days says.
func (m Mover) Delete(ctx context.Context, p move.Place, a engine.Artifact) error {
	lanes, err := m.lanes(ctx, p, a)
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range lanes { // one after the other: the storage may be one for all
		if err := l.tool.purge(ctx, a.ID, l.fqdn); err != nil {
			errs = append(errs, fmt.Errorf("node %s: %w", l.node.Address, err))
		}
	}
	return errors.Join(errs...)
}
