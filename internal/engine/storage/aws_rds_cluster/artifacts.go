package awsrdscluster

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/rds"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	shared "github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/rds"
)

// Keeper reads and deletes artifacts by their record.
type Keeper struct {
	Clock  engine.Clock
	Open   Open
	Report func(message string, fields map[string]any)
}

func (k Keeper) open(ctx context.Context, a engine.Artifact) (API, error) {
	api, place, err := k.Open(ctx, a.Extra[shared.ExtraRegion])
	if err != nil {
		return nil, err
	}
	if err := place.Same(a.Extra); err != nil {
		return nil, fmt.Errorf("looking at %s: %w", a.ID, err)
	}
	return api, nil
}

// nameOf is the identifier at the end of an artifact's ARN.
func nameOf(a engine.Artifact) string { return a.ID[strings.LastIndexByte(a.ID, ':')+1:] }

// Inspect asks whether a snapshot is available, or whether automated backups still reach back to a restore point.
func (k Keeper) Inspect(ctx context.Context, a engine.Artifact) error {
	api, err := k.open(ctx, a)
	if err != nil {
		return err
	}
	switch a.Kind {
	case pitrKind:
		return inspectPoint(ctx, api, a)
	case snapshotKind:
		s, err := snapshot(ctx, api, nameOf(a))
		switch {
		case err != nil:
			return err
		case s == nil:
			return fmt.Errorf("cluster snapshot %s was deleted: %w", a.ID, engine.ErrNotFound)
		case aws.ToString(s.Status) != "available":
			return fmt.Errorf("cluster snapshot %s is %s", a.ID, aws.ToString(s.Status))
		}
		return nil
	}
	return fmt.Errorf("%s is a %s, which driver %s does not know", a.ID, a.Kind, kindName)
}

func inspectPoint(ctx context.Context, api API, a engine.Artifact) error {
	id, name := a.Extra[shared.ExtraResourceID], a.Extra[shared.ExtraIdentifier]
	var earliest []time.Time
	live, err := describe(ctx, api, name)
	switch {
	case err != nil:
		return err
	case live != nil && aws.ToString(live.DbClusterResourceId) == id:
		earliest = append(earliest, aws.ToTime(live.EarliestRestorableTime))
	default:
		backups, err := automated(ctx, api, rds.DescribeDBClusterAutomatedBackupsInput{DbClusterResourceId: aws.String(id)})
		if err != nil {
			return err
		}
		for _, b := range backups {
			at := time.Time{}
			if b.RestoreWindow != nil {
				at = aws.ToTime(b.RestoreWindow.EarliestTime)
			}
			earliest = append(earliest, at)
		}
	}
	if len(earliest) == 0 {
		return fmt.Errorf("DB cluster %s (%s) is gone, and no automated backups of it are retained: %w", name, id, engine.ErrNotFound)
	}
	text := a.Extra[shared.ExtraRestorePoint]
	if text == "" {
		return nil // planned only
	}
	point, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return fmt.Errorf("reading the restore point of %s: %w", a.ID, err)
	}
	for _, at := range earliest {
		if !at.After(point) {
			return nil
		}
	}
	return fmt.Errorf("the automated backups of DB cluster %s reach back to %s only, and the restore point was %s: %w", name, earliest[0].UTC().Format(time.RFC3339), text, engine.ErrNotFound)
}

// Delete removes a snapshot, or the temporary cluster that a dead run left. An instant is nothing that could be deleted: automated backups are Aurora's own.
func (k Keeper) Delete(ctx context.Context, a engine.Artifact) error {
	if a.Kind == pitrKind {
		return nil
	}
	api, err := k.open(ctx, a)
	if err != nil {
		return err
	}
	w := shared.Waiter{Clock: k.Clock, Report: k.Report}
	switch a.Kind {
	case snapshotKind:
		return deleteSnapshot(ctx, w, api, nameOf(a), a.Extra[shared.ExtraRunID], a.Extra[extraSnapshotSource])
	case temporaryKind:
		return deleteTemporary(ctx, w, api, nameOf(a), a.Extra[shared.ExtraRunID])
	}
	return fmt.Errorf("%s is a %s, which driver %s does not know", a.ID, a.Kind, kindName)
}

// deleteSnapshot deletes a snapshot that carries the run's id, or whose tags were removed and which is of the recorded cluster. One that is still being made is
// waited for: AWS deletes no other.
func deleteSnapshot(ctx context.Context, w shared.Waiter, api API, name, runID, sourceID string) error {
	return w.Until(ctx, "cluster snapshot "+name+" can be deleted", func(ctx context.Context) (bool, string, error) {
		there, err := snapshot(ctx, api, name)
		if err != nil || there == nil {
			return err == nil, "", err
		}
		tag, tagged := shared.TagsOf(there.TagList)[shared.TagRunID]
		if runID == "" || (tagged && tag != runID) || (!tagged && (sourceID == "" || aws.ToString(there.DbClusterResourceId) != sourceID)) {
			return false, "", fmt.Errorf("cluster snapshot %s was not made by this run (its tag %s is %q, not %q), so it is left: delete it by hand if it may go", name, shared.TagRunID, tag, runID)
		}
		status := aws.ToString(there.Status)
		if status == "deleting" {
			return true, "", nil
		}
		_, err = api.DeleteDBClusterSnapshot(ctx, &rds.DeleteDBClusterSnapshotInput{DBClusterSnapshotIdentifier: aws.String(name)})
		switch {
		case shared.Code(err, "DBClusterSnapshotNotFound"):
			return true, "", nil
		case shared.Code(err, "InvalidDBClusterSnapshotState"):
			return false, status, nil
		case err != nil:
			return false, "", fmt.Errorf("deleting cluster snapshot %s: %w", name, shared.Explain("rds:DeleteDBClusterSnapshot", err))
		}
		return true, "", nil
	})
}

// deleteTemporary deletes a temporary cluster that carries the run's id. It returns when AWS has taken the request.
func deleteTemporary(ctx context.Context, w shared.Waiter, api API, name, runID string) error {
	return w.Until(ctx, "the temporary DB cluster "+name+" can be deleted", func(ctx context.Context) (bool, string, error) {
		there, err := describe(ctx, api, name)
		if err != nil || there == nil {
			return err == nil, "", err
		}
		if tag := shared.TagsOf(there.TagList)[shared.TagRunID]; runID == "" || tag != runID {
			return false, "", fmt.Errorf("DB cluster %s was not made by this run (its tag %s is %q, not %q), so it is left: delete it by hand if it may go", name, shared.TagRunID, tag, runID)
		}
		status := aws.ToString(there.Status)
		if status == "deleting" {
			return true, "", nil
		}
		_, err = api.DeleteDBCluster(ctx, &rds.DeleteDBClusterInput{DBClusterIdentifier: aws.String(name), SkipFinalSnapshot: aws.Bool(true)})
		switch {
		case shared.Code(err, "DBClusterNotFound"):
			return true, "", nil
		case shared.Code(err, "InvalidDBClusterState"):
			return false, status, nil // it is still being made, or the snapshot is
		case err != nil:
			return false, "", fmt.Errorf("deleting the temporary DB cluster %s: %w", name, shared.Explain("rds:DeleteDBCluster", err))
		}
		return true, "", nil
	})
}
