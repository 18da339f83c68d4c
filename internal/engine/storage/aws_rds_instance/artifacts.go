package awsrdsinstance

import (
	"context"
	"fmt"
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
		s, err := snapshot(ctx, api, snapshotName(a))
		switch {
		case err != nil:
			return err
		case s == nil:
			return fmt.Errorf("snapshot %s was deleted: %w", a.ID, engine.ErrNotFound)
		case aws.ToString(s.Status) != "available":
			return fmt.Errorf("snapshot %s is %s", a.ID, aws.ToString(s.Status))
		}
		return nil
	}
	return fmt.Errorf("%s is a %s, which driver %s does not know", a.ID, a.Kind, kindName)
}

// snapshotName is the identifier in an artifact's ARN (arn:aws:rds:REGION:ACCOUNT:snapshot:NAME).
func snapshotName(a engine.Artifact) string {
	for i := len(a.ID) - 1; i >= 0; i-- {
		if a.ID[i] == ':' {
			return a.ID[i+1:]
		}
	}
	return a.ID
}

func inspectPoint(ctx context.Context, api API, a engine.Artifact) error {
	id, name := a.Extra[shared.ExtraResourceID], a.Extra[shared.ExtraIdentifier]
	backups, err := automated(ctx, api, rds.DescribeDBInstanceAutomatedBackupsInput{DbiResourceId: aws.String(id)})
	if err != nil {
		return err
	}
	if len(backups) == 0 {
		return fmt.Errorf("DB instance %s (%s) has no automated backups any more, neither live nor retained: %w", name, id, engine.ErrNotFound)
	}
	text := a.Extra[shared.ExtraRestorePoint]
	if text == "" {
		return nil // planned only
	}
	point, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return fmt.Errorf("reading the restore point of %s: %w", a.ID, err)
	}
	for _, b := range backups {
		if b.RestoreWindow == nil || b.RestoreWindow.EarliestTime == nil || !b.RestoreWindow.EarliestTime.After(point) {
			return nil
		}
	}
	return fmt.Errorf("the automated backups of DB instance %s reach back to %s only, and the restore point was %s: %w", name,
		backups[0].RestoreWindow.EarliestTime.UTC().Format(time.RFC3339), text, engine.ErrNotFound)
}

// Delete removes a snapshot. An instant is nothing that could be deleted: automated backups are RDS's own.
func (k Keeper) Delete(ctx context.Context, a engine.Artifact) error {
	if a.Kind != snapshotKind {
		return nil
	}
	api, err := k.open(ctx, a)
	if err != nil {
		return err
	}
	return deleteSnapshot(ctx, shared.Waiter{Clock: k.Clock, Report: k.Report}, api, snapshotName(a), a.Extra[shared.ExtraRunID], a.Extra[shared.ExtraResourceID])
}
