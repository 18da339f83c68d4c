package awsrdsinstance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	shared "github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/rds"
)

// cleanTimeout bounds what is cleaned up after a failure.
const cleanTimeout = 2 * time.Minute

// restoring is one Restore.
type restoring struct {
	shared.Making
	d    *Destination
	o    origin
	want Shape
}

// Restore makes the instance. Preflight's refusals are repeated.
func (d *Destination) Restore(ctx context.Context, r engine.StorageBackup) (engine.Restored, error) {
	o, err := d.look(ctx, r)
	if err != nil {
		return engine.Restored{}, err
	}
	x := &restoring{Making: shared.Making{Backup: r, Clock: d.s.Clock}, d: d, o: o, want: d.want(o)}
	err = x.run(ctx)
	return x.Made, err
}

func (x *restoring) run(ctx context.Context) error {
	if x.Backup.ByTime() {
		if err := x.awaitPoint(ctx); err != nil {
			return err
		}
	}
	source := ""
	if x.o.snapshot != nil {
		var err error
		if source, err = x.source(ctx); err != nil {
			return errors.Join(err, x.dropCopy(ctx))
		}
	}
	err := x.create(ctx, source)
	if err == nil {
		err = x.finish(ctx)
	}
	return errors.Join(err, x.dropCopy(ctx))
}

// awaitPoint waits until the source can be restored to the restore point.
func (x *restoring) awaitPoint(ctx context.Context) error {
	what := fmt.Sprintf("DB instance %s can be restored to %s", x.o.identifier, x.Backup.RestorePoint.UTC().Format(time.RFC3339))
	return x.Waiter().Until(ctx, what, func(ctx context.Context) (bool, string, error) {
		if x.o.latest.After(x.Backup.RestorePoint) {
			return true, "", nil
		}
		o, err := x.d.find(ctx, x.Backup)
		if err == nil {
			err = checkPoint(o, x.Backup.RestorePoint)
		}
		if err != nil {
			return false, "", err
		}
		x.o.latest = o.latest
		return x.o.latest.After(x.Backup.RestorePoint), "restorable to " + x.o.latest.UTC().Format(time.RFC3339), nil
	})
}

// source is the snapshot to restore from: the backup's, or a copy of it.
func (x *restoring) source(ctx context.Context) (string, error) {
	s := x.o.snapshot
	if !x.d.copies(x.o) {
		if x.o.foreign {
			return aws.ToString(s.DBSnapshotArn), nil
		}
		return aws.ToString(s.DBSnapshotIdentifier), nil
	}
	name := shared.Name("scalardb-copy", x.Backup.Name, x.Backup.Storage, x.Backup.RunID)
	if err := x.Announce(ctx, x.New(copyKind, name, x.o.place, "snapshot")); err != nil {
		return "", err
	}
	in := &rds.CopyDBSnapshotInput{SourceDBSnapshotIdentifier: s.DBSnapshotArn, TargetDBSnapshotIdentifier: aws.String(name), Tags: x.Tags(x.d.s.Database, nil)}
	if key := cmp.Or(x.d.s.KMSKey, x.o.shape.KMSKey); key != "" {
		in.KmsKeyId = aws.String(key)
	}
	if x.o.distant {
		in.SourceRegion = aws.String(x.Backup.Record.Artifacts[0].Extra[shared.ExtraRegion])
	}
	x.Report("copying the snapshot", map[string]any{"from": aws.ToString(s.DBSnapshotArn), "to": name})
	if _, err := x.o.api.CopyDBSnapshot(ctx, in); err != nil && !x.copied(ctx, name) {
		if shared.Refused(err) {
			x.Forget(copyKind, name)
		}
		return "", fmt.Errorf("copying snapshot %s: %w", aws.ToString(s.DBSnapshotArn), shared.Explain("rds:CopyDBSnapshot and rds:AddTagsToResource", err))
	}
	err := x.Waiter().Until(ctx, "the copy "+name+" of the snapshot is available", func(ctx context.Context) (bool, string, error) {
		c, err := snapshot(ctx, x.o.api, name)
		switch {
		case err != nil:
			return false, "", err
		case c == nil:
			return false, "", fmt.Errorf("the copy %s of the snapshot is gone: somebody deleted it", name)
		case aws.ToString(c.Status) == "failed":
			return false, "", fmt.Errorf("copying snapshot %s failed: the RDS console says why", aws.ToString(s.DBSnapshotArn))
		}
		return aws.ToString(c.Status) == "available", fmt.Sprintf("%s, %d %%", aws.ToString(c.Status), aws.ToInt32(c.PercentProgress)), nil
	})
	return name, err
}

// copied says whether a copy that was requested came to be although the answer was an error.
func (x *restoring) copied(ctx context.Context, name string) bool {
	c, err := snapshot(ctx, x.o.api, name)
	return err == nil && c != nil && shared.OfRun(c.TagList, x.Backup.RunID)
}

// dropCopy deletes the copy of the snapshot, whatever happened.
func (x *restoring) dropCopy(ctx context.Context) error {
	at := slices.IndexFunc(x.Made.Objects, func(o engine.RestoredObject) bool { return o.Kind == copyKind })
	if at < 0 {
		return nil
	}
	ctx, cancel := x.d.s.Clock.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
	defer cancel()
	name := x.Made.Objects[at].ID
	if err := deleteSnapshot(ctx, x.Waiter(), x.o.api, name, x.Backup.RunID, ""); err != nil {
		return err // it stays recorded: destroying the restore deletes it
	}
	x.Forget(copyKind, name)
	return nil
}

// create requests the instance, and waits until it can be used.
func (x *restoring) create(ctx context.Context, snapshotID string) error {
	id := x.d.s.Identifier
	o := x.New(objectKind, id, x.o.place, "db")
	if x.want.Protected != nil && *x.want.Protected {
		o.Extra[shared.ExtraProtected] = "true"
	}
	if err := x.Announce(ctx, o); err != nil {
		return err
	}
	var i *types.DBInstance
	var err error
	if snapshotID == "" {
		x.Report("restoring by time", map[string]any{"from": x.o.identifier, "to": id, "restore_point": x.Backup.RestorePoint.UTC().Format(time.RFC3339)})
		var out *rds.RestoreDBInstanceToPointInTimeOutput
		if out, err = x.o.api.RestoreDBInstanceToPointInTime(ctx, x.pointInput()); err == nil {
			i = out.DBInstance
		}
	} else {
		x.Report("restoring a snapshot", map[string]any{"from": snapshotID, "to": id})
		var out *rds.RestoreDBInstanceFromDBSnapshotOutput
		if out, err = x.o.api.RestoreDBInstanceFromDBSnapshot(ctx, x.snapshotInput(snapshotID)); err == nil {
			i = out.DBInstance
		}
	}
	if err != nil {
		if i, err = x.settle(ctx, err); err != nil {
			return err
		}
	}
	return x.awaitUsable(ctx, i)
}

// settle finds out what a request did whose answer is an error: an earlier try may have come through.
func (x *restoring) settle(ctx context.Context, cause error) (*types.DBInstance, error) {
	there, err := describe(ctx, x.o.api, x.d.s.Identifier)
	if err == nil && there != nil && shared.OfRun(there.TagList, x.Backup.RunID) {
		return there, nil
	}
	if err == nil && shared.Refused(cause) {
		x.Forget(objectKind, x.d.s.Identifier)
	}
	action := "rds:RestoreDBInstanceToPointInTime"
	if x.o.snapshot != nil {
		action = "rds:RestoreDBInstanceFromDBSnapshot"
	}
	return nil, errors.Join(fmt.Errorf("restoring DB instance %s: %w", x.d.s.Identifier, shared.Explain(action+" and rds:AddTagsToResource", cause)), err)
}

func (x *restoring) awaitUsable(ctx context.Context, i *types.DBInstance) error {
	known := false
	return x.Waiter().Until(ctx, "DB instance "+x.d.s.Identifier+" is available", func(ctx context.Context) (bool, string, error) {
		if i != nil && !known && aws.ToString(i.DbiResourceId) != "" {
			known = true
			if err := x.Identified(ctx, objectKind, x.d.s.Identifier, aws.ToString(i.DbiResourceId), aws.ToString(i.DBInstanceArn)); err != nil {
				return false, "", err
			}
		}
		now, err := describe(ctx, x.o.api, x.d.s.Identifier)
		switch {
		case err != nil:
			return false, "", err
		case now == nil && known:
			return false, "", fmt.Errorf("DB instance %s is gone while it was restored: somebody deleted it", x.d.s.Identifier)
		case now == nil:
			return false, "not there yet", nil
		}
		status := aws.ToString(now.DBInstanceStatus)
		if shared.Broken(status) {
			return false, "", fmt.Errorf("DB instance %s became %s while it was restored: %s", x.d.s.Identifier, status, shared.Remedy(status))
		}
		i = now
		_, reachable := endpointOf(*now, "")
		return known && reachable && shared.Usable(status), status, nil
	})
}

// iamAuth is set for engines that have it only.
func (w Shape) iamAuth() *bool {
	if strings.HasPrefix(w.Engine, "oracle-") || strings.HasPrefix(w.Engine, "sqlserver-") || strings.HasPrefix(w.Engine, "db2-") {
		return nil
	}
	return w.IAMAuth
}

func (x *restoring) pointInput() *rds.RestoreDBInstanceToPointInTimeInput {
	w := x.want
	in := &rds.RestoreDBInstanceToPointInTimeInput{
		TargetDBInstanceIdentifier: aws.String(x.d.s.Identifier), RestoreTime: aws.Time(x.Backup.RestorePoint.UTC()),
		DBInstanceClass: shared.Text(w.Class), StorageType: shared.Text(w.StorageType), Iops: shared.Positive(w.IOPS), StorageThroughput: shared.Positive(w.Throughput), MaxAllocatedStorage: shared.Positive(w.MaxAllocated),
		MultiAZ: w.MultiAZ, AvailabilityZone: shared.Text(w.Zone), DBSubnetGroupName: shared.Text(w.SubnetGroup), VpcSecurityGroupIds: w.SecurityGroups, DBParameterGroupName: shared.Text(w.ParameterGroup),
		OptionGroupName: shared.Text(w.OptionGroup), PubliclyAccessible: w.Public, NetworkType: shared.Text(w.NetworkType), LicenseModel: shared.Text(w.License), Port: shared.Positive(w.Port),
		EnableIAMDatabaseAuthentication: w.iamAuth(), DeletionProtection: w.Protected, CopyTagsToSnapshot: w.CopyTags, AutoMinorVersionUpgrade: w.AutoMinor,
		EnableCloudwatchLogsExports: w.Logs, CACertificateIdentifier: shared.Text(w.CA), Tags: x.Tags(x.d.s.Database, w.Tags),
	}
	if x.d.s.Shape.Allocated > x.o.shape.Allocated {
		in.AllocatedStorage = aws.Int32(x.d.s.Shape.Allocated)
	}
	if x.o.backupARN != "" {
		in.SourceDBInstanceAutomatedBackupsArn = aws.String(x.o.backupARN)
	} else {
		in.SourceDbiResourceId = aws.String(x.o.resourceID) // an identifier may be another's by now
	}
	return in
}

func (x *restoring) snapshotInput(snapshotID string) *rds.RestoreDBInstanceFromDBSnapshotInput {
	w := x.want
	in := &rds.RestoreDBInstanceFromDBSnapshotInput{
		DBInstanceIdentifier: aws.String(x.d.s.Identifier), DBSnapshotIdentifier: aws.String(snapshotID),
		DBInstanceClass: shared.Text(w.Class), StorageType: shared.Text(w.StorageType), Iops: shared.Positive(w.IOPS), StorageThroughput: shared.Positive(w.Throughput),
		MultiAZ: w.MultiAZ, AvailabilityZone: shared.Text(w.Zone), DBSubnetGroupName: shared.Text(w.SubnetGroup), VpcSecurityGroupIds: w.SecurityGroups, DBParameterGroupName: shared.Text(w.ParameterGroup),
		OptionGroupName: shared.Text(w.OptionGroup), PubliclyAccessible: w.Public, NetworkType: shared.Text(w.NetworkType), LicenseModel: shared.Text(w.License), Port: shared.Positive(w.Port),
		EnableIAMDatabaseAuthentication: w.iamAuth(), DeletionProtection: w.Protected, CopyTagsToSnapshot: w.CopyTags, AutoMinorVersionUpgrade: w.AutoMinor,
		EnableCloudwatchLogsExports: w.Logs, CACertificateIdentifier: shared.Text(w.CA), Tags: x.Tags(x.d.s.Database, w.Tags),
	}
	if x.d.s.Shape.Allocated > x.o.shape.Allocated {
		in.AllocatedStorage = aws.Int32(x.d.s.Shape.Allocated)
	}
	return in
}

// finish puts back what the restore did not take, and says how the instance is reached.
func (x *restoring) finish(ctx context.Context) error {
	if err := x.putBack(ctx); err != nil {
		return err
	}
	now, err := find(ctx, x.o.api, x.o.place, x.d.s.Identifier)
	if err != nil {
		return err
	}
	if left := differences(x.want, shapeOf(now, x.o.place)); len(left) > 0 {
		x.Report("the restored instance differs from what was wanted", map[string]any{"instance": x.d.s.Identifier, "differs": strings.Join(left, ", ")})
	}
	e, ok := endpointOf(now, "")
	if !ok {
		return fmt.Errorf("DB instance %s has no endpoint", x.d.s.Identifier)
	}
	x.Made.Endpoint, x.Made.Port, x.Made.Properties = e.Host, e.Port, e.Properties()
	return nil
}
