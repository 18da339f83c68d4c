package awsrdsinstance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
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
	d    *Destination
	r    engine.StorageBackup
	o    origin
	want Shape
	made engine.Restored // announced, and returned also with an error
}

// Restore makes the instance. Preflight's refusals are repeated.
func (d *Destination) Restore(ctx context.Context, r engine.StorageBackup) (engine.Restored, error) {
	if err := d.Preflight(ctx, r); err != nil {
		return engine.Restored{}, err
	}
	o, err := d.find(ctx, r)
	if err != nil {
		return engine.Restored{}, err
	}
	x := &restoring{d: d, r: r, o: o, want: d.want(o)}
	err = x.run(ctx)
	return x.made, err
}

func (x *restoring) run(ctx context.Context) error {
	if byTime(x.r) {
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

func (x *restoring) waiter() shared.Waiter {
	return shared.Waiter{Clock: x.d.s.Clock, Report: x.r.Report}
}

func (x *restoring) report(message string, fields map[string]any) {
	if x.r.Report != nil {
		x.r.Report(message, fields)
	}
}

// object returns the announced object of that kind; nil when there is none.
func (x *restoring) object(kind string) *engine.RestoredObject {
	for i := range x.made.Objects {
		if x.made.Objects[i].Kind == kind {
			return &x.made.Objects[i]
		}
	}
	return nil
}

// announce records an object that is about to be made, or what became known of it.
func (x *restoring) announce(ctx context.Context, o engine.RestoredObject) error {
	if there := x.object(o.Kind); there != nil {
		*there = o
	} else {
		x.made.Objects = append(x.made.Objects, o)
	}
	if x.r.Announce == nil {
		return nil
	}
	announced := engine.Restored{Objects: slices.Clone(x.made.Objects)}
	if err := x.r.Announce(ctx, announced); err != nil {
		return fmt.Errorf("recording what is about to be made: %w", err)
	}
	return nil
}

// forget takes an object out that surely was not made, or is gone.
func (x *restoring) forget(kind string) {
	kept := []engine.RestoredObject{}
	for _, o := range x.made.Objects {
		if o.Kind != kind {
			kept = append(kept, o)
		}
	}
	x.made.Objects = kept
}

func (x *restoring) extra(arn string) map[string]string {
	return map[string]string{shared.ExtraRunID: x.r.RunID, shared.ExtraRegion: x.o.place.Region, shared.ExtraAccount: x.o.place.Account, shared.ExtraARN: arn}
}

func (x *restoring) tags(user map[string]string) []types.Tag {
	all := map[string]string{shared.TagRestore: x.r.Name, shared.TagRunID: x.r.RunID, shared.TagStorage: x.r.Storage}
	if name := cmp.Or(x.d.s.Database, x.r.Record.Extra[shared.ExtraDatabase]); name != "" {
		all[shared.TagDatabase] = name
	}
	maps.Copy(all, user)
	return shared.Tags(all)
}

// awaitPoint waits until the source can be restored to the restore point.
func (x *restoring) awaitPoint(ctx context.Context) error {
	what := fmt.Sprintf("DB instance %s can be restored to %s", x.o.identifier, x.r.RestorePoint.UTC().Format(time.RFC3339))
	return x.waiter().Until(ctx, what, func(ctx context.Context) (bool, string, error) {
		if x.o.latest.After(x.r.RestorePoint) {
			return true, "", nil
		}
		o, err := x.d.find(ctx, x.r)
		if err == nil {
			err = checkPoint(o, x.r.RestorePoint)
		}
		if err != nil {
			return false, "", err
		}
		x.o.latest = o.latest
		return x.o.latest.After(x.r.RestorePoint), "restorable to " + x.o.latest.UTC().Format(time.RFC3339), nil
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
	name := shared.Name("scalardb-copy", x.r.Name, x.r.Storage, x.r.RunID)
	copied := engine.RestoredObject{Kind: copyKind, ID: name, Created: true, Extra: x.extra(x.o.place.ARN("snapshot", name))}
	if err := x.announce(ctx, copied); err != nil {
		return "", err
	}
	in := &rds.CopyDBSnapshotInput{SourceDBSnapshotIdentifier: s.DBSnapshotArn, TargetDBSnapshotIdentifier: aws.String(name), Tags: x.tags(nil)}
	if key := cmp.Or(x.d.s.KMSKey, x.o.shape.KMSKey); key != "" {
		in.KmsKeyId = aws.String(key)
	}
	if x.o.distant {
		in.SourceRegion = aws.String(x.r.Record.Artifacts[0].Extra[shared.ExtraRegion])
	}
	x.report("copying the snapshot", map[string]any{"from": aws.ToString(s.DBSnapshotArn), "to": name})
	if _, err := x.o.api.CopyDBSnapshot(ctx, in); err != nil && !x.copied(ctx, name) {
		if shared.Refused(err) {
			x.forget(copyKind)
		}
		return "", fmt.Errorf("copying snapshot %s: %w", aws.ToString(s.DBSnapshotArn), shared.Explain("rds:CopyDBSnapshot and rds:AddTagsToResource", err))
	}
	err := x.waiter().Until(ctx, "the copy "+name+" of the snapshot is available", func(ctx context.Context) (bool, string, error) {
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
	return err == nil && c != nil && shared.TagsOf(c.TagList)[shared.TagRunID] == x.r.RunID
}

// dropCopy deletes the copy of the snapshot, whatever happened.
func (x *restoring) dropCopy(ctx context.Context) error {
	if x.object(copyKind) == nil {
		return nil
	}
	ctx, cancel := x.d.s.Clock.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
	defer cancel()
	o := *x.object(copyKind)
	if err := deleteSnapshot(ctx, x.waiter(), x.o.api, o.ID, x.r.RunID, ""); err != nil {
		return err // it stays recorded: destroying the restore deletes it
	}
	x.forget(copyKind)
	return nil
}

// create requests the instance, and waits until it can be used.
func (x *restoring) create(ctx context.Context, snapshotID string) error {
	id := x.d.s.Identifier
	o := engine.RestoredObject{Kind: objectKind, ID: id, Created: true, Extra: x.extra(x.o.place.ARN("db", id))}
	if x.want.Protected != nil && *x.want.Protected {
		o.Extra[shared.ExtraProtected] = "true"
	}
	if err := x.announce(ctx, o); err != nil {
		return err
	}
	var i *types.DBInstance
	var err error
	if snapshotID == "" {
		x.report("restoring by time", map[string]any{"from": x.o.identifier, "to": id, "restore_point": x.r.RestorePoint.UTC().Format(time.RFC3339)})
		var out *rds.RestoreDBInstanceToPointInTimeOutput
		if out, err = x.o.api.RestoreDBInstanceToPointInTime(ctx, x.pointInput()); err == nil {
			i = out.DBInstance
		}
	} else {
		x.report("restoring a snapshot", map[string]any{"from": snapshotID, "to": id})
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
	if err == nil && there != nil && shared.TagsOf(there.TagList)[shared.TagRunID] == x.r.RunID {
		return there, nil
	}
	if err == nil && shared.Refused(cause) {
		x.forget(objectKind)
	}
	action := "rds:RestoreDBInstanceToPointInTime"
	if x.o.snapshot != nil {
		action = "rds:RestoreDBInstanceFromDBSnapshot"
	}
	return nil, errors.Join(fmt.Errorf("restoring DB instance %s: %w", x.d.s.Identifier, shared.Explain(action+" and rds:AddTagsToResource", cause)), err)
}

func (x *restoring) awaitUsable(ctx context.Context, i *types.DBInstance) error {
	known := false
	return x.waiter().Until(ctx, "DB instance "+x.d.s.Identifier+" is available", func(ctx context.Context) (bool, string, error) {
		if i != nil && !known && aws.ToString(i.DbiResourceId) != "" {
			known = true
			o := *x.object(objectKind)
			o.Extra = maps.Clone(o.Extra)
			o.Extra[shared.ExtraResourceID], o.Extra[shared.ExtraARN] = aws.ToString(i.DbiResourceId), cmp.Or(aws.ToString(i.DBInstanceArn), o.Extra[shared.ExtraARN])
			if err := x.announce(ctx, o); err != nil {
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
		TargetDBInstanceIdentifier: aws.String(x.d.s.Identifier), RestoreTime: aws.Time(x.r.RestorePoint.UTC()),
		DBInstanceClass: shared.Text(w.Class), StorageType: shared.Text(w.StorageType), Iops: shared.Positive(w.IOPS), StorageThroughput: shared.Positive(w.Throughput), MaxAllocatedStorage: shared.Positive(w.MaxAllocated),
		MultiAZ: w.MultiAZ, AvailabilityZone: shared.Text(w.Zone), DBSubnetGroupName: shared.Text(w.SubnetGroup), VpcSecurityGroupIds: w.SecurityGroups, DBParameterGroupName: shared.Text(w.ParameterGroup),
		OptionGroupName: shared.Text(w.OptionGroup), PubliclyAccessible: w.Public, NetworkType: shared.Text(w.NetworkType), LicenseModel: shared.Text(w.License), Port: shared.Positive(w.Port),
		EnableIAMDatabaseAuthentication: w.iamAuth(), DeletionProtection: w.Protected, CopyTagsToSnapshot: w.CopyTags, AutoMinorVersionUpgrade: w.AutoMinor,
		EnableCloudwatchLogsExports: w.Logs, CACertificateIdentifier: shared.Text(w.CA), Tags: x.tags(w.Tags),
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
		EnableCloudwatchLogsExports: w.Logs, CACertificateIdentifier: shared.Text(w.CA), Tags: x.tags(w.Tags),
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
		x.report("the restored instance differs from what was wanted", map[string]any{"instance": x.d.s.Identifier, "differs": strings.Join(left, ", ")})
	}
	e, ok := endpointOf(now, "")
	if !ok {
		return fmt.Errorf("DB instance %s has no endpoint", x.d.s.Identifier)
	}
	x.made.Endpoint, x.made.Port, x.made.Properties = e.Host, e.Port, e.Properties()
	return nil
}
