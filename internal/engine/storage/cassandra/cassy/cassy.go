// Package cassy lets an existing Cassy server take and upload the snapshots of all nodes, over its gRPC API.
//
// What was read in Cassy's source, and seen of it: TakeBackup removes every snapshot of the nodes' keyspaces, takes new ones on all nodes, starts their uploads
// and answers. It answers STARTED also when the snapshot of a node failed: so before the window closes the nodes themselves are asked whether they all have
// it. The uploads go on after the answer, and their end is waited for after the window (Move); Cassy tells nothing of the files. It cannot delete a
// backup either.
package cassy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/cassy/cassypb"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/move"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/snapshot"
)

// Mover is `cassy` as the driver calls it.
type Mover struct{ Settings Settings }

var (
	_ move.Mover       = Mover{}
	_ move.Restorer    = Mover{}
	_ move.Snapshotter = (*session)(nil)
)

// Keys of an artifact's Extra.
const (
	extraCluster = "cluster_id"
	extraTargets = "target_ips" // separated by commas
	// extraAfter is only in a planned artifact, whose snapshot Cassy has not named yet: when the newest backup before it was made, in Cassy's milliseconds.
	extraAfter = "after"
)

// Name is the key in HCL.
func (Mover) Name() string { return snapshot.DataCassy }

// NeedsFiles is false: Cassy reaches the nodes by itself.
func (Mover) NeedsFiles() bool { return false }

// Tag is the slug, though Cassy chooses another tag.
func (Mover) Tag(slug string) string { return slug }

type session struct {
	settings Settings
	job      move.Job
	client   *client
	cluster  string
	after    uint64
	warnings []string

	taking bool   // TakeBackup was sent
	id     string // of the snapshot, once known
	tables []node.Table
}

// Preflight looks whether Cassy knows the cluster as it is, and whether nodes have snapshots that it would remove.
func (m Mover) Preflight(ctx context.Context, job move.Job) (move.Session, error) {
	c, err := m.Settings.dial()
	if err != nil {
		return nil, err
	}
	s := &session{settings: m.Settings, job: job, client: c}
	if err := s.preflight(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *session) preflight(ctx context.Context) error {
	registered, err := s.client.cluster(ctx, s.settings.ClusterID, s.job.Cluster)
	if err != nil {
		return err
	}
	s.cluster = registered.GetClusterId()
	var errs []error
	if want, got := s.addresses(), registered.GetTargetIps(); !sameWords(want, got) {
		errs = append(errs, fmt.Errorf("the Cassy server has registered cluster %s with the nodes %s, and it has %s: register it again", s.cluster, strings.Join(got, ", "), strings.Join(want, ", ")))
	}
	for _, k := range s.job.Keyspaces {
		if !slices.Contains(registered.GetKeyspaces(), k) {
			errs = append(errs, fmt.Errorf("the Cassy server has registered cluster %s without keyspace %s, and would not capture it: register it again", s.cluster, k))
		}
	}
	before, err := s.client.backups(ctx, s.cluster, "")
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, e := range before {
		s.after = max(s.after, e.GetCreatedAt())
		if !finished(e) {
			errs = append(errs, fmt.Errorf("backup %s of Cassy, of node %s is still running: wait for it", e.GetSnapshotId(), e.GetTargetIp()))
		}
	}
	s.warnings = append(s.warnings, "Cassy does not tell which files it uploaded: that it says COMPLETED for every node is all that is known of them. It cannot delete a backup: a destroy leaves it in Cassy's storage.")
	return errors.Join(append(errs, s.others(ctx, registered.GetKeyspaces()))...)
}

func finished(e *cassypb.BackupListingResponse_Entry) bool {
	return e.GetStatus() == cassypb.OperationStatus_COMPLETED || e.GetStatus() == cassypb.OperationStatus_FAILED
}

// others looks for snapshots that Cassy would remove.
func (s *session) others(ctx context.Context, keyspaces []string) error {
	var mu sync.Mutex
	found := map[string]bool{}
	err := move.Each(s.job.Nodes, func(_ int, n move.Node) error {
		all, err := s.snapshots(ctx, n, "")
		if err != nil {
			if s.settings.ClearOtherSnapshots && errors.Is(err, node.ErrUnsupported) {
				return nil
			}
			return fmt.Errorf("looking for snapshots that Cassy would remove (clear_other_snapshots): %w", err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, one := range all {
			if slices.Contains(keyspaces, one.Keyspace) {
				found[one.Tag+" on "+n.Address] = true
			}
		}
		return nil
	})
	if err != nil || len(found) == 0 {
		return err
	}
	names := make([]string, 0, len(found))
	for f := range found {
		names = append(names, f)
	}
	slices.Sort(names)
	if !s.settings.ClearOtherSnapshots {
		return fmt.Errorf("the Cassy server removes all snapshots of the nodes before it takes one, and there are %s: clear them, or set clear_other_snapshots = true", strings.Join(names, ", "))
	}
	s.warnings = append(s.warnings, "Cassy removes these snapshots (clear_other_snapshots): "+strings.Join(names, ", "))
	return nil
}

// snapshots lists a node's snapshots of one tag, or all of them.
func (s *session) snapshots(ctx context.Context, n move.Node, tag string) ([]node.Snapshot, error) {
	ctx, cancel := s.settings.Clock.WithTimeout(ctx, callTimeout)
	defer cancel()
	if tag == "" {
		return n.Operator.Snapshots(ctx)
	}
	return node.SnapshotsOf(ctx, n.Operator, tag)
}

func (s *session) addresses() []string {
	var out []string
	for _, n := range s.job.Nodes {
		out = append(out, n.Address)
	}
	return out
}

func sameWords(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

func (s *session) artifact(id string) engine.Artifact {
	return engine.Artifact{Kind: snapshot.KindCassy, ID: id, Extra: map[string]string{extraCluster: s.cluster, extraTargets: strings.Join(s.addresses(), ",")}}
}

// Planned stands for a snapshot that Cassy will name.
func (s *session) Planned() []engine.Artifact {
	a := s.artifact(s.job.Tag)
	a.Extra[extraAfter] = strconv.FormatUint(s.after, 10)
	return []engine.Artifact{a}
}

func (s *session) Facts() move.Facts {
	return move.Facts{ToolVersions: map[string]string{"cassy": "cluster " + s.cluster}, Warnings: s.warnings}
}

// TakeSnapshots returns when Cassy has answered, and all nodes have the snapshot of the same tables.
func (s *session) TakeSnapshots(ctx context.Context) (string, error) {
	s.taking = true
	r, err := s.client.take(ctx, s.cluster)
	if err != nil {
		return "", err
	}
	s.id = r.GetSnapshotId()
	if got, want := r.GetTargetIps(), s.addresses(); !sameWords(got, want) {
		return s.id, fmt.Errorf("the Cassy server took snapshot %s on %s, and the cluster has %s", s.id, strings.Join(got, ", "), strings.Join(want, ", "))
	}
	if s.tables, err = s.everywhere(ctx); err != nil {
		return s.id, fmt.Errorf("the Cassy server said that snapshot %s is taken: %w", s.id, err)
	}
	return s.id, nil
}

// everywhere lists the snapshot's tables, which must be the same on all nodes, with all keyspaces among them.
func (s *session) everywhere(ctx context.Context) ([]node.Table, error) {
	lists := make([][]node.Table, len(s.job.Nodes))
	index := map[string]int{}
	for i, n := range s.job.Nodes {
		index[n.HostID] = i
	}
	err := move.Each(s.job.Nodes, func(_ int, n move.Node) error {
		all, err := s.snapshots(ctx, n, s.id)
		if err != nil {
			return fmt.Errorf("listing its snapshots: %w", err)
		}
		var tables []node.Table
		for _, one := range all {
			if one.Tag == s.id && slices.Contains(s.job.Keyspaces, one.Keyspace) {
				tables = append(tables, node.Table{Keyspace: one.Keyspace, Name: one.Table})
			}
		}
		for _, k := range s.job.Keyspaces {
			if !slices.ContainsFunc(tables, func(t node.Table) bool { return t.Keyspace == k }) {
				return fmt.Errorf("it has no snapshot of keyspace %s", k)
			}
		}
		slices.SortFunc(tables, func(a, b node.Table) int { return strings.Compare(a.String(), b.String()) })
		lists[index[n.HostID]] = slices.Compact(tables)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i, l := range lists {
		if !slices.Equal(l, lists[0]) {
			return nil, fmt.Errorf("node %s has a snapshot of %d tables, and node %s of %d others", s.job.Nodes[i].Address, len(l), s.job.Nodes[0].Address, len(lists[0]))
		}
	}
	return lists[0], nil
}

// Move waits for the uploads, and looks whether the nodes still have what was to be uploaded.
func (s *session) Move(ctx context.Context, _ *snapshot.Index, _ map[string]*snapshot.FileList) ([]engine.Artifact, error) {
	if s.id == "" {
		return nil, errors.New("no snapshot was taken")
	}
	err := s.client.poll(ctx, func(ctx context.Context) (progress, error) {
		entries, err := s.client.backups(ctx, s.cluster, s.id)
		return progressOf(entries, s.addresses()), err
	}, func(p progress) {
		s.job.Run.Report("Cassy uploads the snapshots", map[string]any{"snapshot": s.id, "nodes_done": len(p.done), "nodes": len(s.job.Nodes)})
	})
	if err != nil {
		return nil, fmt.Errorf("backup %s of Cassy: %w", s.id, err)
	}
	tables, err := s.everywhere(ctx)
	if err == nil && !slices.Equal(tables, s.tables) {
		err = errors.New("its tables are others than when it was taken")
	}
	if err != nil {
		return nil, fmt.Errorf("the Cassy server said that snapshot %s is uploaded, and it is not whole on the nodes any more: %w", s.id, err)
	}
	return []engine.Artifact{s.artifact(s.id)}, nil
}

// Discard clears the snapshots of a TakeBackup whose answer was lost; the others the driver clears.
func (s *session) Discard(ctx context.Context) error {
	if !s.taking || s.id != "" {
		return nil
	}
	return s.client.clearAfter(ctx, s.cluster, s.after, s.job.Nodes, s.job.Run.Report)
}

func (s *session) Close() error { return s.client.close() }

// clearAfter clears, on the nodes, the snapshots of Cassy's backups that are newer than a time. Which of them is ours is not known; but Cassy itself removes
// all older ones with each, and one whose upload has ended is of no use to it.
func (c *client) clearAfter(ctx context.Context, cluster string, after uint64, nodes []move.Node, report func(string, map[string]any)) error {
	entries, err := c.backups(ctx, cluster, "")
	if err != nil {
		return err
	}
	ids := map[string]bool{}
	for _, e := range entries {
		if e.GetCreatedAt() <= after || e.GetBackupType() != nodeSnapshot {
			continue
		}
		if !finished(e) {
			return fmt.Errorf("backup %s of Cassy, which may be of the run that was cut off, is still running on %s: try again when it has ended", e.GetSnapshotId(), e.GetTargetIp())
		}
		ids[e.GetSnapshotId()] = true
	}
	var errs []error
	for id := range ids {
		report("a backup that was begun stays in Cassy's storage, since Cassy cannot delete; its snapshots on the nodes are cleared", map[string]any{"cluster_id": cluster, "snapshot": id})
		errs = append(errs, move.Each(nodes, func(_ int, n move.Node) error {
			ctx, cancel := c.clock.WithTimeout(ctx, callTimeout)
			defer cancel()
			if err := n.Operator.ClearSnapshot(ctx, id, nil); err != nil {
				return fmt.Errorf("clearing snapshot %s: %w", id, err)
			}
			return nil
		}))
	}
	return errors.Join(errs...)
}
