package awsdynamodb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/applicationautoscaling"
	scaling "github.com/aws/aws-sdk-go-v2/service/applicationautoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

// keeper is the engine.ArtifactStore of the driver.
type keeper struct {
	s       Settings
	catalog engine.Catalog
}

// NewKeeper reads and deletes artifacts by their record.
func NewKeeper(s Settings, c engine.Catalog) engine.ArtifactStore { return keeper{s, c} }

// Inspect returns ErrNotFound also when the restore point left the table's retention, and when another table has the name by now.
func (k keeper) Inspect(ctx context.Context, a engine.Artifact) error {
	switch a.Kind {
	case kindSettings:
		_, err := readSettings(ctx, k.catalog, a)
		return err
	case kindPITR:
		return k.inspectPITR(ctx, a)
	case kindBackup:
		return k.inspectBackup(ctx, a)
	}
	return fmt.Errorf("an artifact of kind %s is not one of %s", a.Kind, kindName)
}

func (k keeper) inspectPITR(ctx context.Context, a engine.Artifact) error {
	region, _, name, ok := splitARN(a.ID)
	at, err := time.Parse(time.RFC3339, a.Extra[extraRestorePoint])
	if !ok || err != nil {
		return fmt.Errorf("the record of %q names no table and restore point", a.ID)
	}
	r, err := k.s.reach(ctx, region)
	if err != nil {
		return err
	}
	d, err := describeTable(ctx, r.api, name)
	if err != nil {
		return err
	}
	if id := aws.ToString(d.TableId); id != a.Extra[extraTableID] {
		return fmt.Errorf("table %s is another one of that name by now (its id is %s, not %s): %w", name, id, a.Extra[extraTableID], engine.ErrNotFound)
	}
	earliest, _, _, err := newLooker(r, k.s.Clock).continuous(ctx, name)
	switch {
	case err != nil:
		return err
	case earliest.IsZero():
		return fmt.Errorf("point-in-time recovery of table %s was disabled, which ends what it kept: %w", name, engine.ErrNotFound)
	case earliest.After(at):
		return fmt.Errorf("table %s can be restored only to times from %s on, not to %s any more: %w",
			name, earliest.UTC().Format(time.RFC3339), a.Extra[extraRestorePoint], engine.ErrNotFound)
	}
	return nil
}

func (k keeper) inspectBackup(ctx context.Context, a engine.Artifact) error {
	region, _, _, ok := splitARN(a.ID)
	if !ok {
		return fmt.Errorf("%s was planned, and never made: %w", a.ID, engine.ErrNotFound)
	}
	r, err := k.s.reach(ctx, region)
	if err != nil {
		return err
	}
	out, err := r.api.DescribeBackup(ctx, &dynamodb.DescribeBackupInput{BackupArn: &a.ID})
	var gone *types.BackupNotFoundException
	switch {
	case errors.As(err, &gone):
		return fmt.Errorf("backup %s: %w", a.ID, engine.ErrNotFound)
	case err != nil:
		return fmt.Errorf("looking at backup %s: %w", a.ID, err)
	case out.BackupDescription == nil || out.BackupDescription.BackupDetails == nil:
		return fmt.Errorf("looking at backup %s: the answer holds no backup", a.ID)
	}
	switch status := out.BackupDescription.BackupDetails.BackupStatus; status {
	case types.BackupStatusAvailable:
		return nil
	case types.BackupStatusDeleted:
		return fmt.Errorf("backup %s is deleted: %w", a.ID, engine.ErrNotFound)
	default:
		return fmt.Errorf("backup %s is %s", a.ID, status)
	}
}

// Delete removes what a run made: never a source table, nor its point-in-time recovery.
func (k keeper) Delete(ctx context.Context, a engine.Artifact) error {
	switch a.Kind {
	case kindPITR:
		return nil // nothing was made
	case kindSettings:
		if !strings.HasSuffix(a.ID, "/"+settingsName) || !strings.HasPrefix(a.ID, "backups/") {
			return fmt.Errorf("refusing to delete %q: it is not the settings of a backup", a.ID)
		}
		if err := k.catalog.Delete(ctx, a.ID); err != nil {
			return fmt.Errorf("deleting %s of %s: %w", a.ID, k.catalog.Describe(), err)
		}
		return nil
	case kindBackup:
		return k.deleteBackup(ctx, a)
	}
	return fmt.Errorf("an artifact of kind %s is not one of %s", a.Kind, kindName)
}

func (k keeper) deleteBackup(ctx context.Context, a engine.Artifact) error {
	if region, _, _, ok := splitARN(a.ID); ok {
		r, err := k.s.reach(ctx, region)
		if err != nil {
			return err
		}
		return deleteBackup(ctx, k.s.Clock, r.api, a.ID)
	}
	name, planned := strings.CutPrefix(a.ID, plannedPrefix)
	if !planned || !strings.HasPrefix(name, "scalardb-") {
		return fmt.Errorf("refusing to delete %q: it is neither a backup nor a planned one", a.ID)
	}
	r, err := k.s.reach(ctx, cmp.Or(a.Extra[extraRegion], k.s.Region))
	if err != nil {
		return err
	}
	// The table first: while it is being restored, no backup of it can begin.
	d, err := describeTable(ctx, r.api, name)
	switch {
	case errors.Is(err, engine.ErrNotFound):
	case err != nil:
		return err
	case d.RestoreSummary == nil || aws.ToString(d.RestoreSummary.SourceTableArn) != a.Extra[extraSource]:
		return fmt.Errorf("table %s was not restored from %s, so it is left as it is: delete it by hand", name, a.Extra[extraSource])
	default:
		if err := deleteTable(ctx, k.s.Clock, r, name, aws.ToString(d.TableId)); err != nil {
			return err
		}
	}
	arns, err := backupsOf(ctx, r.api, name)
	if err != nil {
		return err
	}
	for _, arn := range arns {
		if err := deleteBackup(ctx, k.s.Clock, r.api, arn); err != nil {
			return err
		}
	}
	return nil
}

// deregister ends the scaling of a table and its indexes, which AWS keeps when the table goes.
func deregister(ctx context.Context, r reach, d types.TableDescription) error {
	name := aws.ToString(d.TableName)
	ids := []string{resource(name, "")}
	for _, g := range d.GlobalSecondaryIndexes {
		ids = append(ids, resource(name, aws.ToString(g.IndexName)))
	}
	const most = 50 // ResourceIds
	for len(ids) > 0 {
		some := ids[:min(most, len(ids))]
		ids = ids[len(some):]
		var token *string
		for first := true; first || aws.ToString(token) != ""; first = false {
			out, err := r.scale.DescribeScalableTargets(ctx, &applicationautoscaling.DescribeScalableTargetsInput{ServiceNamespace: scaling.ServiceNamespaceDynamodb,
				ResourceIds: some, NextToken: token})
			if isDenied(err) || isUnknown(err) {
				return nil // whoever may not see scaling made none
			}
			if err != nil {
				return fmt.Errorf("looking for the auto scaling of table %s: %w", name, err)
			}
			for _, t := range out.ScalableTargets {
				_, err := r.scale.DeregisterScalableTarget(ctx, &applicationautoscaling.DeregisterScalableTargetInput{
					ServiceNamespace: t.ServiceNamespace, ResourceId: t.ResourceId, ScalableDimension: t.ScalableDimension,
				})
				var gone *scaling.ObjectNotFoundException
				if err != nil && !errors.As(err, &gone) {
					return fmt.Errorf("ending the auto scaling of %s: %w", aws.ToString(t.ResourceId), err)
				}
			}
			token = out.NextToken
		}
	}
	return nil
}
