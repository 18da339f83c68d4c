package cassandra

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/move"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/snapshot"
)

// sourceID is the cluster's name and a digest of its nodes' identities, which outlive their addresses and releases.
func sourceID(cluster string, hostIDs []string) string {
	ids := slices.Clone(hostIDs)
	slices.Sort(ids)
	h := sha256.Sum256([]byte(strings.Join(ids, "\n")))
	return cluster + "/" + hex.EncodeToString(h[:8])
}

// Keeper is the engine.ArtifactStore of the driver. Settings need the catalog; what lies on the nodes or with a tool needs the rest as well.
type Keeper struct {
	s     Settings
	known bool // the settings say where the cluster is
	// movers by kind of artifact; one is made even where the settings are not known.
	movers func(kind string) (move.Mover, error)
}

// NewKeeper opens nothing. known says that the settings name a cluster; movers gives what knows the artifacts of a kind, or says why there is none.
func NewKeeper(s Settings, known bool, movers func(kind string) (move.Mover, error)) *Keeper {
	return &Keeper{s, known, movers}
}

// Inspect returns engine.ErrNotFound when an artifact is gone.
func (k *Keeper) Inspect(ctx context.Context, a engine.Artifact) error {
	switch a.Kind {
	case snapshot.KindIndex:
		return k.inspectIndex(ctx, a)
	case snapshot.KindNodes:
		return k.inspectNodes(ctx, a)
	}
	m, err := k.movers(a.Kind)
	if err != nil {
		return err
	}
	p := k.place(m)
	return errors.Join(m.Inspect(ctx, p.place, a), p.close())
}

// Delete removes an artifact; what is gone is no error.
func (k *Keeper) Delete(ctx context.Context, a engine.Artifact) error {
	switch a.Kind {
	case snapshot.KindIndex:
		if path.Base(a.ID) != snapshot.IndexName {
			return fmt.Errorf("refusing to delete %q: it is no index of a Cassandra storage", a.ID)
		}
		return deleteObjects(ctx, k.s.Catalog, strings.TrimSuffix(a.ID, snapshot.IndexName))
	case snapshot.KindNodes:
		return k.deleteNodes(ctx, a)
	}
	m, err := k.movers(a.Kind)
	if err != nil {
		return err
	}
	p := k.place(m)
	return errors.Join(m.Delete(ctx, p.place, a), p.close())
}

// deleteObjects removes what the driver has below a storage's prefix: the lists of files first, so that a deletion that was cut short finds the rest.
func deleteObjects(ctx context.Context, catalog engine.Catalog, prefix string) error {
	bare, ok := strings.CutSuffix(prefix, "/")
	// "backups/BACKUP/RUN/STORAGE"
	if !ok || path.Clean(bare) != bare || !strings.HasPrefix(bare, "backups/") || strings.Count(bare, "/") != 3 {
		return fmt.Errorf("refusing to delete below %q: it is not the prefix of one storage's objects", prefix)
	}
	lists, err := catalog.List(ctx, prefix+"nodes/")
	if err != nil {
		return fmt.Errorf("listing %snodes/ of %s: %w", prefix, catalog.Describe(), err)
	}
	for _, o := range lists {
		if err := catalog.Delete(ctx, o.Name); err != nil {
			return fmt.Errorf("deleting %s of %s: %w", o.Name, catalog.Describe(), err)
		}
	}
	if err := catalog.Delete(ctx, prefix+snapshot.IndexName); err != nil {
		return fmt.Errorf("deleting %s of %s: %w", prefix+snapshot.IndexName, catalog.Describe(), err)
	}
	return nil
}

func (k *Keeper) inspectIndex(ctx context.Context, a engine.Artifact) error {
	ix, err := snapshot.ReadIndex(ctx, k.s.Catalog, a)
	if err != nil {
		return err
	}
	for _, n := range ix.Nodes {
		if n.Files == "" {
			continue
		}
		if _, err := k.s.Catalog.Stat(ctx, n.Files); err != nil {
			return fmt.Errorf("%s of %s: %w", n.Files, k.s.Catalog.Describe(), err)
		}
	}
	return nil
}

// reached is a cluster that artifacts lie on, opened when somebody asks.
type reached struct {
	s      Settings
	files  bool
	hosts  []string // only these; all when empty
	t      *topology
	nodes  []*captured
	absent []string // of hosts: no longer in the cluster
}

// open connects to the nodes. One that is down is an error that names it.
func (r *reached) open(ctx context.Context) error {
	var err error
	if r.s, err = r.s.reach(nil); err != nil {
		return err
	}
	if r.s.Transport == nil {
		return errors.New("the cassandra storage has no transport")
	}
	t, err := r.s.readTopology(ctx)
	if err != nil {
		return err
	}
	r.t = t
	members := t.members
	if len(r.hosts) > 0 {
		members = slices.DeleteFunc(slices.Clone(members), func(m *member) bool { return !slices.Contains(r.hosts, m.HostID) })
		for _, h := range r.hosts {
			if !slices.ContainsFunc(members, func(m *member) bool { return m.HostID == h }) {
				r.absent = append(r.absent, h)
			}
		}
	}
	// Whether a node answers over CQL does not matter: its Operator must.
	r.nodes, err = openAll(ctx, members, func(ctx context.Context, m *member) (*captured, error) { return r.s.open(ctx, m, r.files) })
	return err
}

func (r *reached) close() error {
	for _, n := range r.nodes {
		_ = n.close() //nolint:errcheck // nothing is lost
	}
	if r.t != nil {
		r.t.close()
	}
	return nil
}

// opener is a Place with what it opened.
type opener struct {
	place move.Place
	close func() error
}

func (k *Keeper) place(m move.Mover) opener {
	r := &reached{s: k.s, files: m.NeedsFiles()}
	var once sync.Once
	var nodes []move.Node
	var err error
	return opener{move.Place{Catalog: k.s.Catalog, Report: k.s.report, Nodes: func(ctx context.Context) ([]move.Node, error) {
		once.Do(func() {
			if err = k.needCluster(); err == nil {
				err = r.open(ctx)
			}
			for _, n := range r.nodes {
				nodes = append(nodes, n.forMover())
			}
		})
		return nodes, err
	}}, r.close}
}

func (k *Keeper) needCluster() error {
	if !k.known {
		return errors.New("the snapshot lies on the nodes of a Cassandra cluster, and the arguments of its storage, which say how they are reached, are not known")
	}
	return nil
}

// onNodes opens the nodes that an artifact names.
func (k *Keeper) onNodes(ctx context.Context, a engine.Artifact) (r *reached, keyspaces []string, counts map[string]int, err error) {
	if !snapshot.ValidTag(a.ID) {
		return nil, nil, nil, fmt.Errorf("%q is no tag of a snapshot", a.ID)
	}
	if err := k.needCluster(); err != nil {
		return nil, nil, nil, err
	}
	r = &reached{s: k.s}
	counts = map[string]int{}
	for _, part := range fields(a.Extra[extraNodes]) {
		host, count, counted := strings.Cut(part, "=")
		r.hosts = append(r.hosts, host)
		if counted {
			if counts[host], err = strconv.Atoi(count); err != nil {
				return nil, nil, nil, fmt.Errorf("the record of snapshot %s is damaged: %q", a.ID, part)
			}
		}
	}
	if err := r.open(ctx); err != nil {
		return r, nil, nil, fmt.Errorf("snapshot %s: %w", a.ID, err)
	}
	if want := a.Extra[extraCluster]; want != "" && want != r.t.cluster {
		return r, nil, nil, fmt.Errorf("snapshot %s lies on cluster %q, and the contact points lead to %q", a.ID, want, r.t.cluster)
	}
	return r, fields(a.Extra[extraKeyspaces]), counts, nil
}

func fields(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' })
}

func (k *Keeper) inspectNodes(ctx context.Context, a engine.Artifact) error {
	if a.Extra[extraLeftover] != "" {
		return nil // the data is elsewhere; nothing is missed where this is gone
	}
	r, keyspaces, counts, err := k.onNodes(ctx, a)
	if r != nil {
		defer r.close() //nolint:errcheck // it returns none
	}
	if err != nil {
		return err
	}
	if len(r.absent) > 0 {
		return fmt.Errorf("snapshot %s: node %s, which has a part of it, is no longer in cluster %s: %w", a.ID, list(r.absent), r.t.cluster, engine.ErrNotFound)
	}
	return each(ctx, r.nodes, func(ctx context.Context, n *captured) error {
		there, err := n.snapshots(ctx, a.ID, keyspaces)
		if err != nil {
			return err
		}
		if len(there) == 0 || len(there) < counts[n.HostID] {
			return fmt.Errorf("snapshot %s has %d of %d tables: %w", a.ID, len(there), counts[n.HostID], engine.ErrNotFound)
		}
		return nil
	})
}

// deleteNodes clears exactly the tag, on every node that has it. What a node took with it that left the cluster is no longer there to be cleared.
func (k *Keeper) deleteNodes(ctx context.Context, a engine.Artifact) error {
	r, keyspaces, _, err := k.onNodes(ctx, a)
	if r != nil {
		defer r.close() //nolint:errcheck // it returns none
	}
	if err != nil {
		return err
	}
	if len(r.absent) > 0 {
		k.s.report("nodes that left the cluster are not cleared of the snapshot", map[string]any{"tag": a.ID, "nodes": list(r.absent)})
	}
	return each(ctx, r.nodes, func(ctx context.Context, n *captured) error { return n.clear(ctx, a.ID, keyspaces) })
}

// kept is the mover of data = { keep_on_nodes }: the snapshot stays where it is.
type kept struct{}

var (
	_ move.Mover         = kept{}
	_ move.KeepsSnapshot = keptSession{}
)

// KeepOnNodes leaves the data on the nodes.
func KeepOnNodes() move.Mover { return kept{} }

func (kept) Name() string           { return snapshot.DataNodes }
func (kept) NeedsFiles() bool       { return false }
func (kept) Tag(slug string) string { return slug }

func (kept) Preflight(context.Context, move.Job) (move.Session, error) { return keptSession{}, nil }

func (kept) Inspect(context.Context, move.Place, engine.Artifact) error { return nil }
func (kept) Delete(context.Context, move.Place, engine.Artifact) error  { return nil }

type keptSession struct{}

func (keptSession) Planned() []engine.Artifact { return nil }
func (keptSession) Facts() move.Facts          { return move.Facts{} }
func (keptSession) KeepsSnapshot() bool        { return true }

func (keptSession) Move(context.Context, *snapshot.Index, map[string]*snapshot.FileList) ([]engine.Artifact, error) {
	return nil, nil
}
func (keptSession) Discard(context.Context) error { return nil }
func (keptSession) Close() error                  { return nil }
