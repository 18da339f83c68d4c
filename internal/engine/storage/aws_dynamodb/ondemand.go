package awsdynamodb

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

const (
	tagPrefix  = "scalardb:"
	tagRunID   = "scalardb:run-id"
	tagBackup  = "scalardb:backup"
	tagRestore = "scalardb:restore"
)

// defaultSettle is more than the minute that CreateBackup may be off: a backup holds for sure only what was in its table a minute before it was
// requested. Nothing promises that a table's restored content counts as older than the table.
const defaultSettle = 65 * time.Second

// temporaryName is the name of the table that one table is restored to for its backup, and the backup's own. It holds the run id, which is random:
// nobody else has a table of that name.
func temporaryName(runID, full string) string { return "scalardb-" + runID + "-" + digest(full)[:16] }

// planned is what a dead run's cleaning-up finds a table's backup by.
func (x *session) planned(l look) engine.Artifact {
	return engine.Artifact{Kind: kindBackup, ID: plannedPrefix + temporaryName(x.run.ID, l.features.Table), Extra: map[string]string{
		extraTable: l.table.name, extraSource: l.features.ARN, extraRegion: x.r.region,
	}}
}

func (x *session) checkTemporary(ctx context.Context) error {
	names, _, err := listTables(ctx, x.r.api)
	if err != nil {
		return err
	}
	taken := map[string]bool{}
	for _, n := range names {
		taken[n] = true
	}
	for _, l := range x.looks {
		if n := temporaryName(x.run.ID, l.features.Table); taken[n] {
			return fmt.Errorf("there is a table %s already, whose name this run would use", n)
		}
	}
	return nil
}

// backUp restores every table to the instant under a temporary name, and backs that up. The temporary tables go in every case.
func (x *session) backUp(ctx context.Context, at time.Time) ([]engine.Artifact, error) {
	made := make([]engine.Artifact, len(x.looks))
	indexes := make([]int, len(x.looks))
	for i := range indexes {
		indexes[i] = i
	}
	err := parallel(ctx, x.s.restores(), indexes, true, func(ctx context.Context, i int) (err error) {
		l := x.looks[i]
		if made[i], err = x.backUpOne(ctx, l, at); err != nil {
			return fmt.Errorf("backing up table %s: %w", l.features.Table, err)
		}
		x.run.Report("table backed up", map[string]any{"table": l.features.Table, "backup": made[i].ID})
		return nil
	})
	return made, err
}

func (x *session) backUpOne(ctx context.Context, l look, at time.Time) (engine.Artifact, error) {
	name := temporaryName(x.run.ID, l.features.Table)
	c := creator{clock: x.s.Clock, api: x.r.api, target: name, ours: func(d types.TableDescription) bool {
		return d.RestoreSummary != nil && aws.ToString(d.RestoreSummary.SourceTableArn) == l.features.ARN
	}, report: x.run.Report}
	_, err := c.create(ctx, func(ctx context.Context, once option) (*types.TableDescription, error) {
		out, err := x.r.api.RestoreTableToPointInTime(ctx, &dynamodb.RestoreTableToPointInTimeInput{
			SourceTableName: aws.String(l.features.Table), TargetTableName: &name, RestoreDateTime: aws.Time(at),
		}, once)
		if err != nil {
			return nil, err
		}
		return out.TableDescription, nil
	})
	if err != nil {
		return engine.Artifact{}, err
	}
	// From here on the table goes, also when ctx has ended: but then whoever discards the run does it, with time of its own.
	d, err := waitActive(ctx, x.s.Clock, x.r.api, name)
	if err != nil {
		return engine.Artifact{}, err
	}
	tags := []types.Tag{{Key: aws.String(tagRunID), Value: aws.String(x.run.ID)}, {Key: aws.String(tagBackup), Value: aws.String(x.run.BackupID)}}
	if _, err := x.r.api.TagResource(ctx, &dynamodb.TagResourceInput{ResourceArn: d.TableArn, Tags: tags}); err != nil {
		return engine.Artifact{}, fmt.Errorf("tagging table %s: %w", name, err)
	}
	x.run.Report("the restored copy rests before it is backed up", map[string]any{"table": l.features.Table, "for": x.s.settle().String()})
	if err := x.s.Clock.Sleep(ctx, x.s.settle()); err != nil {
		return engine.Artifact{}, err
	}
	a, err := x.createBackup(ctx, l, name)
	if err != nil {
		return engine.Artifact{}, err
	}
	if err := deleteTable(ctx, x.s.Clock, x.r, name, aws.ToString(d.TableId)); err != nil {
		return engine.Artifact{}, fmt.Errorf("removing the temporary table %s: %w", name, err)
	}
	return a, nil
}

// createBackup makes the backup once, also when an answer is lost: its name is unique.
func (x *session) createBackup(ctx context.Context, l look, name string) (engine.Artifact, error) {
	w := waiter{clock: x.s.Clock}
	var arn string
	for arn == "" {
		out, err := x.r.api.CreateBackup(ctx, &dynamodb.CreateBackupInput{TableName: &name, BackupName: &name}, once)
		switch {
		case err == nil:
			arn = aws.ToString(out.BackupDetails.BackupArn)
			continue
		case definite(err) && !isThrottled(err) && !isBusy(err):
			return engine.Artifact{}, fmt.Errorf("backing up table %s: %w", name, err)
		}
		if err := w.wait(ctx); err != nil {
			return engine.Artifact{}, err
		}
		found, err := backupsOf(ctx, x.r.api, name)
		if err != nil {
			return engine.Artifact{}, err
		}
		if len(found) > 0 {
			arn = found[0]
		}
	}
	for {
		out, err := x.r.api.DescribeBackup(ctx, &dynamodb.DescribeBackupInput{BackupArn: &arn})
		if err != nil {
			return engine.Artifact{}, fmt.Errorf("looking at backup %s: %w", arn, err)
		}
		details := out.BackupDescription.BackupDetails
		switch details.BackupStatus {
		case types.BackupStatusAvailable:
			return engine.Artifact{Kind: kindBackup, ID: arn, Size: aws.ToInt64(details.BackupSizeBytes), Extra: map[string]string{
				extraTable: l.table.name, extraTableID: l.features.ID, extraSource: l.features.ARN, extraTemporary: name,
			}}, nil
		case types.BackupStatusDeleted:
			return engine.Artifact{}, fmt.Errorf("backup %s was deleted by somebody", arn)
		}
		if err := w.wait(ctx); err != nil {
			return engine.Artifact{}, fmt.Errorf("waiting for backup %s: %w", arn, err)
		}
	}
}

// backupsOf lists the ARNs of the backups that a run made of its temporary table; they outlive the table.
func backupsOf(ctx context.Context, api API, name string) ([]string, error) {
	var arns []string
	var start *string
	for {
		out, err := api.ListBackups(ctx, &dynamodb.ListBackupsInput{TableName: &name, BackupType: types.BackupTypeFilterUser, ExclusiveStartBackupArn: start})
		if isNotFound(err) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("listing the backups of table %s: %w", name, err)
		}
		for _, b := range out.BackupSummaries {
			if aws.ToString(b.BackupName) == name && b.BackupStatus != types.BackupStatusDeleted {
				arns = append(arns, aws.ToString(b.BackupArn))
			}
		}
		if start = out.LastEvaluatedBackupArn; aws.ToString(start) == "" {
			return arns, nil
		}
	}
}

func deleteBackup(ctx context.Context, clock engine.Clock, api API, arn string) error {
	w := waiter{clock: clock}
	for {
		_, err := api.DeleteBackup(ctx, &dynamodb.DeleteBackupInput{BackupArn: &arn})
		var gone *types.BackupNotFoundException
		switch {
		case err == nil, errors.As(err, &gone):
			return nil
		case !isBusy(err):
			return fmt.Errorf("deleting backup %s: %w", arn, err)
		}
		if err := w.wait(ctx); err != nil {
			return fmt.Errorf("deleting backup %s, which is in use: %w", arn, err)
		}
	}
}
