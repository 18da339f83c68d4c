package cassy

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/cassy/cassypb"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/move"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/snapshot"
)

// with calls f with a connection.
func (m Mover) with(a engine.Artifact, f func(c *client, cluster string, targets []string) error) error {
	if a.Kind != snapshot.KindCassy || a.Extra[extraCluster] == "" {
		return fmt.Errorf("%s %s is no backup of Cassy", a.Kind, a.ID)
	}
	c, err := m.Settings.dial()
	if err != nil {
		return err
	}
	return errors.Join(f(c, a.Extra[extraCluster], strings.Split(a.Extra[extraTargets], ",")), c.close())
}

// Inspect asks Cassy whether it has the backup of all nodes.
func (m Mover) Inspect(ctx context.Context, _ move.Place, a engine.Artifact) error {
	return m.with(a, func(c *client, cluster string, targets []string) error {
		if a.Extra[extraAfter] != "" {
			return fmt.Errorf("the backup of Cassy was only planned: %w", engine.ErrNotFound)
		}
		entries, err := c.backups(ctx, cluster, a.ID)
		if err != nil {
			return err
		}
		if len(entries) == 0 {
			return fmt.Errorf("the Cassy server knows no backup %s of cluster %s: %w", a.ID, cluster, engine.ErrNotFound)
		}
		p := progressOf(entries, targets)
		if err := p.bad(); err != nil {
			return fmt.Errorf("backup %s of Cassy: %w", a.ID, err)
		}
		if len(p.pending) > 0 {
			return fmt.Errorf("backup %s of Cassy is still running for %s", a.ID, strings.Join(p.pending, ", "))
		}
		return nil
	})
}

// Delete forgets the backup: Cassy cannot delete. Of one that was only planned, it clears the snapshots on the nodes, whose tag the driver does not know.
func (m Mover) Delete(ctx context.Context, p move.Place, a engine.Artifact) error {
	if a.Kind == snapshot.KindCassy && a.Extra[extraAfter] == "" {
		p.Report("the backup stays in Cassy's storage, since Cassy cannot delete: remove it there by hand, below node-backup/CLUSTER_ID/SNAPSHOT",
			map[string]any{"cluster_id": a.Extra[extraCluster], "snapshot": a.ID})
		return nil
	}
	return m.with(a, func(c *client, cluster string, _ []string) error {
		after, err := strconv.ParseUint(a.Extra[extraAfter], 10, 64)
		if err != nil {
			return fmt.Errorf("planned backup %s of Cassy: %w", a.ID, err)
		}
		nodes, err := p.Nodes(ctx)
		if err != nil {
			return err
		}
		return c.clearAfter(ctx, cluster, after, nodes, p.Report)
	})
}

// Restore lets Cassy put the files of all nodes back, without incremental backups, and waits for it.
func (m Mover) Restore(ctx context.Context, p move.Place, a engine.Artifact) error {
	return m.with(a, func(c *client, cluster string, targets []string) error {
		before, err := c.restores(ctx, cluster, a.ID)
		if err != nil {
			return err
		}
		var after uint64
		for _, e := range before {
			after = max(after, e.GetCreatedAt())
		}
		if err := c.restore(ctx, cluster, a.ID, targets); err != nil {
			return err
		}
		err = c.poll(ctx, func(ctx context.Context) (progress, error) {
			all, err := c.restores(ctx, cluster, a.ID)
			var now []*cassypb.RestoreStatusListingResponse_Entry
			for _, e := range all {
				if e.GetCreatedAt() > after {
					now = append(now, e)
				}
			}
			return progressOf(now, targets), err
		}, func(now progress) {
			p.Report("Cassy restores the nodes", map[string]any{"snapshot": a.ID, "nodes_done": len(now.done), "nodes": len(targets)})
		})
		if err != nil {
			return fmt.Errorf("restore of %s by Cassy: %w", a.ID, err)
		}
		return nil
	})
}

func (c *client) restore(ctx context.Context, cluster, snapshot string, targets []string) error {
	ctx, cancel := c.clock.WithTimeout(ctx, takeTimeout)
	defer cancel()
	_, err := c.api.RestoreBackup(ctx, &cassypb.RestoreRequest{ClusterId: cluster, SnapshotId: snapshot, TargetIps: targets, RestoreType: nodeRestore, SnapshotOnly: true})
	if err != nil {
		return c.failed("restoring a backup", err)
	}
	return nil
}

func (c *client) restores(ctx context.Context, cluster, snapshot string) ([]*cassypb.RestoreStatusListingResponse_Entry, error) {
	ctx, cancel := c.clock.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := c.api.ListRestoreStatuses(ctx, &cassypb.RestoreStatusListingRequest{ClusterId: cluster, SnapshotId: snapshot})
	if err != nil {
		return nil, c.failed("listing restores", err)
	}
	return r.GetEntries(), nil
}
