package awsrdscluster

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

// stateTimeout is how long a change is tried again that RDS does not take in the present status.
const stateTimeout = time.Hour

// restoring is one Restore.
type restoring struct {
	shared.Making
	d    *Destination
	o    origin
	want Shape
}

// Restore makes the cluster and its instances. Preflight's refusals are repeated.
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
	source, err := "", error(nil)
	if x.o.snapshot != nil {
		source, err = x.source(ctx)
	}
	for _, step := range []func(context.Context) error{
		func(ctx context.Context) error { return x.create(ctx, source) }, x.createInstances, x.finish,
	} {
		if err == nil {
			err = step(ctx)
		}
	}
	return errors.Join(err, x.dropCopy(ctx))
}

// awaitPoint waits until the source can be restored to the restore point.
func (x *restoring) awaitPoint(ctx context.Context) error {
	what := fmt.Sprintf("DB cluster %s can be restored to %s", x.o.identifier, x.Backup.RestorePoint.UTC().Format(time.RFC3339))
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
			return aws.ToString(s.DBClusterSnapshotArn), nil
		}
		return aws.ToString(s.DBClusterSnapshotIdentifier), nil
	}
	name := shared.Name("scalardb-copy", x.Backup.Name, x.Backup.Storage, x.Backup.RunID)
	if err := x.Announce(ctx, x.New(copyKind, name, x.o.place, "cluster-snapshot")); err != nil {
		return "", err
	}
	in := &rds.CopyDBClusterSnapshotInput{SourceDBClusterSnapshotIdentifier: s.DBClusterSnapshotArn, TargetDBClusterSnapshotIdentifier: aws.String(name), Tags: x.Tags(x.d.s.Database, nil)}
	if x.o.shape.Encrypted {
		in.KmsKeyId = shared.Text(cmp.Or(x.d.s.KMSKey, x.o.shape.KMSKey))
	}
	if x.o.distant {
		in.SourceRegion = aws.String(x.Backup.Record.Artifacts[0].Extra[shared.ExtraRegion])
	}
	x.Report("copying the cluster snapshot", map[string]any{"from": aws.ToString(s.DBClusterSnapshotArn), "to": name})
	if _, err := x.o.api.CopyDBClusterSnapshot(ctx, in); err != nil {
		c, lookErr := snapshot(ctx, x.o.api, name)
		if lookErr != nil || c == nil || !shared.OfRun(c.TagList, x.Backup.RunID) {
			if lookErr == nil && shared.Refused(err) {
				x.Forget(copyKind, name)
			}
			return "", errors.Join(fmt.Errorf("copying cluster snapshot %s: %w", aws.ToString(s.DBClusterSnapshotArn), shared.Explain("rds:CopyDBClusterSnapshot and rds:AddTagsToResource", err)), lookErr)
		}
	}
	_, err := awaitSnapshot(ctx, x.Waiter(), x.o.api, name)
	return name, err
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

// create requests the cluster, and waits until it is available.
func (x *restoring) create(ctx context.Context, snapshotID string) error {
	id := x.d.s.Identifier
	o := x.New(objectKind, id, x.o.place, "cluster")
	if aws.ToBool(x.want.Protected) {
		o.Extra[shared.ExtraProtected] = "true"
	}
	if err := x.Announce(ctx, o); err != nil {
		return err
	}
	var c *types.DBCluster
	var err error
	if snapshotID == "" {
		x.Report("restoring by time", map[string]any{"from": x.o.identifier, "to": id, "restore_point": x.Backup.RestorePoint.UTC().Format(time.RFC3339)})
		var out *rds.RestoreDBClusterToPointInTimeOutput
		if out, err = x.o.api.RestoreDBClusterToPointInTime(ctx, x.pointInput()); err == nil {
			c = out.DBCluster
		}
	} else {
		x.Report("restoring a cluster snapshot", map[string]any{"from": snapshotID, "to": id})
		var out *rds.RestoreDBClusterFromSnapshotOutput
		if out, err = x.o.api.RestoreDBClusterFromSnapshot(ctx, x.snapshotInput(snapshotID)); err == nil {
			c = out.DBCluster
		}
	}
	if err != nil {
		if c, err = x.settle(ctx, err); err != nil {
			return err
		}
	}
	if c != nil {
		if err := x.Identified(ctx, objectKind, id, aws.ToString(c.DbClusterResourceId), aws.ToString(c.DBClusterArn)); err != nil {
			return err
		}
	}
	now, err := awaitCluster(ctx, x.Waiter(), x.o.api, id)
	if err != nil {
		return err
	}
	return x.Identified(ctx, objectKind, id, aws.ToString(now.DbClusterResourceId), aws.ToString(now.DBClusterArn))
}

// settle finds out what a request did whose answer is an error: an earlier try may have come through.
func (x *restoring) settle(ctx context.Context, cause error) (*types.DBCluster, error) {
	id := x.d.s.Identifier
	there, err := describe(ctx, x.o.api, id)
	if err == nil && there != nil && shared.OfRun(there.TagList, x.Backup.RunID) {
		return there, nil
	}
	if err == nil && shared.Refused(cause) {
		x.Forget(objectKind, id)
	}
	action := "rds:RestoreDBClusterToPointInTime"
	if x.o.snapshot != nil {
		action = "rds:RestoreDBClusterFromSnapshot"
	}
	return nil, errors.Join(fmt.Errorf("restoring DB cluster %s: %w", id, shared.Explain(action+" and rds:AddTagsToResource", cause)), err)
}

// scaling is Serverless v2's, for clusters that have it.
func (w Shape) scaling() *types.ServerlessV2ScalingConfiguration {
	if w.MinCapacity == nil && w.MaxCapacity == nil {
		return nil
	}
	return &types.ServerlessV2ScalingConfiguration{MinCapacity: w.MinCapacity, MaxCapacity: w.MaxCapacity, SecondsUntilAutoPause: w.AutoPause}
}

func (w Shape) backtrack() *int64 {
	if w.Backtrack == 0 {
		return nil
	}
	return aws.Int64(w.Backtrack)
}

// storage is passed on only where it is not Aurora's standard, which has an empty name in some answers.
func (w Shape) storage() *string {
	if w.StorageType == "aurora" {
		return nil
	}
	return shared.Text(w.StorageType)
}

func (x *restoring) pointInput() *rds.RestoreDBClusterToPointInTimeInput {
	w := x.want
	return &rds.RestoreDBClusterToPointInTimeInput{
		DBClusterIdentifier: aws.String(x.d.s.Identifier), SourceDbClusterResourceId: aws.String(x.o.resourceID), // an identifier may be another's by now
		RestoreToTime: aws.Time(x.Backup.RestorePoint.UTC()), RestoreType: aws.String("full-copy"), // copy-on-write cannot restore by time
		DBSubnetGroupName: shared.Text(w.SubnetGroup), VpcSecurityGroupIds: w.SecurityGroups, DBClusterParameterGroupName: shared.Text(w.ParameterGroup), Port: shared.Positive(w.Port),
		EnableIAMDatabaseAuthentication: w.IAMAuth, DeletionProtection: w.Protected, CopyTagsToSnapshot: w.CopyTags, EnableCloudwatchLogsExports: w.Logs, NetworkType: shared.Text(w.NetworkType),
		StorageType: w.storage(), BacktrackWindow: w.backtrack(), ServerlessV2ScalingConfiguration: w.scaling(), KmsKeyId: shared.Text(x.d.s.KMSKey), Tags: x.Tags(x.d.s.Database, w.Tags),
	}
}

func (x *restoring) snapshotInput(snapshotID string) *rds.RestoreDBClusterFromSnapshotInput {
	w := x.want
	in := &rds.RestoreDBClusterFromSnapshotInput{
		DBClusterIdentifier: aws.String(x.d.s.Identifier), SnapshotIdentifier: aws.String(snapshotID), Engine: aws.String(w.Engine),
		DBSubnetGroupName: shared.Text(w.SubnetGroup), VpcSecurityGroupIds: w.SecurityGroups, DBClusterParameterGroupName: shared.Text(w.ParameterGroup), Port: shared.Positive(w.Port),
		EnableIAMDatabaseAuthentication: w.IAMAuth, DeletionProtection: w.Protected, CopyTagsToSnapshot: w.CopyTags, EnableCloudwatchLogsExports: w.Logs, NetworkType: shared.Text(w.NetworkType),
		StorageType: w.storage(), BacktrackWindow: w.backtrack(), ServerlessV2ScalingConfiguration: w.scaling(), Tags: x.Tags(x.d.s.Database, w.Tags),
	}
	if !x.d.copies(x.o) || !x.o.shape.Encrypted {
		in.KmsKeyId = shared.Text(x.d.s.KMSKey) // a copy has it already
	}
	return in
}

// createInstances creates the instances, in the order of their keys, and waits for all.
func (x *restoring) createInstances(ctx context.Context) error {
	keys := x.d.s.keys()
	var objects []engine.RestoredObject
	for _, k := range keys {
		objects = append(objects, x.New(instanceKind, x.d.s.instance(k), x.o.place, "db"))
	}
	if err := x.Announce(ctx, objects...); err != nil {
		return err
	}
	for n, k := range keys {
		if err := x.createInstance(ctx, k); err != nil {
			for _, later := range keys[n+1:] {
				x.Forget(instanceKind, x.d.s.instance(later))
			}
			return err
		}
	}
	for _, k := range keys {
		if err := x.awaitInstance(ctx, x.d.s.instance(k)); err != nil {
			return err
		}
	}
	return nil
}

func (x *restoring) createInstance(ctx context.Context, key string) error {
	id, m := x.d.s.instance(key), x.d.member(x.o, key)
	in := &rds.CreateDBInstanceInput{
		DBInstanceIdentifier: aws.String(id), DBClusterIdentifier: aws.String(x.d.s.Identifier), Engine: aws.String(x.want.Engine), DBInstanceClass: aws.String(m.Class),
		AvailabilityZone: shared.Text(m.Zone), PromotionTier: m.Tier, DBParameterGroupName: shared.Text(m.ParameterGroup), PubliclyAccessible: m.Public, AutoMinorVersionUpgrade: m.AutoMinor,
		CACertificateIdentifier: shared.Text(m.CA), Tags: x.Tags(x.d.s.Database, x.want.Tags),
	}
	if aws.ToBool(m.Insights) {
		in.EnablePerformanceInsights, in.PerformanceInsightsKMSKeyId, in.PerformanceInsightsRetentionPeriod = m.Insights, shared.Text(m.InsightsKey), shared.Positive(m.InsightsRetention)
	}
	if aws.ToInt32(m.MonitoringInterval) > 0 {
		in.MonitoringInterval, in.MonitoringRoleArn = m.MonitoringInterval, shared.Text(m.MonitoringRole)
	}
	x.Report("creating an instance of the restored cluster", map[string]any{"instance": id, "class": m.Class})
	out, err := x.o.api.CreateDBInstance(ctx, in)
	var i *types.DBInstance
	if err == nil {
		i = out.DBInstance
	} else {
		var lookErr error
		i, lookErr = member(ctx, x.o.api, id)
		if lookErr != nil || i == nil || !shared.OfRun(i.TagList, x.Backup.RunID) {
			if lookErr == nil && shared.Refused(err) {
				x.Forget(instanceKind, id)
			}
			return errors.Join(fmt.Errorf("creating DB instance %s: %w", id, shared.Explain("rds:CreateDBInstance and rds:AddTagsToResource", err)), lookErr)
		}
	}
	if i == nil {
		return nil
	}
	return x.Identified(ctx, instanceKind, id, aws.ToString(i.DbiResourceId), aws.ToString(i.DBInstanceArn))
}

func (x *restoring) awaitInstance(ctx context.Context, id string) error {
	seen := false
	return x.Waiter().Until(ctx, "DB instance "+id+" is available", func(ctx context.Context) (bool, string, error) {
		i, err := member(ctx, x.o.api, id)
		switch {
		case err != nil:
			return false, "", err
		case i == nil && seen:
			return false, "", fmt.Errorf("DB instance %s is gone while it was created: somebody deleted it", id)
		case i == nil:
			return false, "not there yet", nil
		}
		seen = true
		status := aws.ToString(i.DBInstanceStatus)
		if shared.Broken(status) {
			return false, "", fmt.Errorf("DB instance %s became %s while it was created: %s", id, status, shared.Remedy(status))
		}
		if err := x.Identified(ctx, instanceKind, id, aws.ToString(i.DbiResourceId), aws.ToString(i.DBInstanceArn)); err != nil {
			return false, "", err
		}
		return shared.Usable(status) && i.Endpoint != nil, status, nil
	})
}

// finish puts back what the restore did not take, and says how the cluster is reached.
func (x *restoring) finish(ctx context.Context) error {
	if err := x.putBack(ctx); err != nil {
		return err
	}
	now, err := find(ctx, x.o.api, x.o.place, x.d.s.Identifier)
	if err != nil {
		return err
	}
	if left := differences(x.want, shapeOf(now, x.o.place)); len(left) > 0 {
		x.Report("the restored cluster differs from what was wanted", map[string]any{"cluster": x.d.s.Identifier, "differs": strings.Join(left, ", ")})
	}
	e, ok := endpointOf(now, "")
	if !ok {
		return fmt.Errorf("DB cluster %s has no endpoint", x.d.s.Identifier)
	}
	x.Made.Endpoint, x.Made.Port, x.Made.Properties = e.Host, e.Port, e.Properties()
	if reader := aws.ToString(now.ReaderEndpoint); reader != "" {
		o := x.Made.Objects[x.Find(objectKind, x.d.s.Identifier)]
		o.Extra = maps.Clone(o.Extra)
		o.Extra["reader_endpoint"] = reader
		return x.Announce(ctx, o)
	}
	return nil
}

type setting = shared.Setting[rds.ModifyDBClusterInput]

// settings compares a cluster with what is wanted. given is what arguments say.
func settings(given, w, got Shape) []setting {
	enable, disable := shared.Without(w.Logs, got.Logs), shared.Without(got.Logs, w.Logs)
	return []setting{
		shared.NewSetting("backup_retention_period", given.Retention != nil, w.Retention != nil && *w.Retention != aws.ToInt32(got.Retention), func(in *rds.ModifyDBClusterInput) { in.BackupRetentionPeriod = w.Retention }),
		shared.NewSetting("preferred_backup_window", false, w.BackupWindow != "" && w.BackupWindow != got.BackupWindow, func(in *rds.ModifyDBClusterInput) { in.PreferredBackupWindow = aws.String(w.BackupWindow) }),
		shared.NewSetting("preferred_maintenance_window", false, w.MaintenanceWindow != "" && w.MaintenanceWindow != got.MaintenanceWindow, func(in *rds.ModifyDBClusterInput) { in.PreferredMaintenanceWindow = aws.String(w.MaintenanceWindow) }),
		shared.NewSetting("vpc_security_group_ids", given.SecurityGroups != nil, len(w.SecurityGroups) > 0 && !shared.SameSet(w.SecurityGroups, got.SecurityGroups), func(in *rds.ModifyDBClusterInput) { in.VpcSecurityGroupIds = w.SecurityGroups }),
		shared.NewSetting("db_cluster_parameter_group_name", given.ParameterGroup != "", w.ParameterGroup != "" && w.ParameterGroup != got.ParameterGroup, func(in *rds.ModifyDBClusterInput) { in.DBClusterParameterGroupName = aws.String(w.ParameterGroup) }),
		shared.NewSetting("iam_database_authentication_enabled", given.IAMAuth != nil, shared.FlagDiffers(w.IAMAuth, got.IAMAuth), func(in *rds.ModifyDBClusterInput) { in.EnableIAMDatabaseAuthentication = w.IAMAuth }),
		shared.NewSetting("deletion_protection", given.Protected != nil, shared.FlagDiffers(w.Protected, got.Protected), func(in *rds.ModifyDBClusterInput) { in.DeletionProtection = w.Protected }),
		shared.NewSetting("copy_tags_to_snapshot", false, shared.FlagDiffers(w.CopyTags, got.CopyTags), func(in *rds.ModifyDBClusterInput) { in.CopyTagsToSnapshot = w.CopyTags }),
		shared.NewSetting("enabled_cloudwatch_logs_exports", given.Logs != nil, len(enable)+len(disable) > 0, func(in *rds.ModifyDBClusterInput) {
			in.CloudwatchLogsExportConfiguration = &types.CloudwatchLogsExportConfiguration{EnableLogTypes: enable, DisableLogTypes: disable}
		}),
	}
}

// differences names what is not as wanted, also what ModifyDBCluster cannot change at once.
func differences(w, got Shape) []string {
	names := shared.Differing(settings(Shape{}, w, got))
	for _, p := range []struct{ name, want, got string }{
		{"db_subnet_group_name", w.SubnetGroup, got.SubnetGroup}, {"network_type", w.NetworkType, got.NetworkType}, {"storage_type", aws.ToString(w.storage()), aws.ToString(got.storage())},
	} {
		if p.want != "" && p.want != p.got {
			names = append(names, p.name)
		}
	}
	if w.Port != 0 && w.Port != got.Port {
		names = append(names, "port")
	}
	return names
}

// putBack sets what the restore lost, and the master user's password.
func (x *restoring) putBack(ctx context.Context) error {
	now, err := find(ctx, x.o.api, x.o.place, x.d.s.Identifier)
	if err != nil {
		return err
	}
	list := settings(x.d.s.Shape, x.want, shapeOf(now, x.o.place))
	switch {
	case x.d.s.ManageMasterSecret && now.MasterUserSecret == nil:
		list = append(list, shared.NewSetting("manage_master_user_password", true, true, func(in *rds.ModifyDBClusterInput) {
			in.ManageMasterUserPassword, in.MasterUserSecretKmsKeyId = aws.Bool(true), shared.Text(x.d.s.MasterSecretKey)
		}))
	case x.d.s.SetMasterPassword:
		list = append(list, shared.NewSetting("set_master_password", true, true, func(in *rds.ModifyDBClusterInput) { in.MasterUserPassword = aws.String(x.d.s.Login.Password) }))
	}
	return shared.PutBack(ctx, list, x.modify, func(name string, err error) {
		x.Report("a setting of the source could not be put back", map[string]any{"cluster": x.d.s.Identifier, "setting": name, "error": err.Error()})
	})
}

// modify sets several at once, and waits until they are in force.
func (x *restoring) modify(ctx context.Context, list []setting) error {
	id := x.d.s.Identifier
	in := &rds.ModifyDBClusterInput{DBClusterIdentifier: aws.String(id), ApplyImmediately: aws.Bool(true)}
	var names []string
	for _, s := range list {
		s.Set(in)
		names = append(names, s.Name)
	}
	what := strings.Join(names, ", ")
	trying, cancel := x.d.s.Clock.WithTimeout(ctx, stateTimeout)
	defer cancel()
	err := x.Waiter().Until(trying, "DB cluster "+id+" takes changes", func(ctx context.Context) (bool, string, error) {
		_, err := x.o.api.ModifyDBCluster(ctx, in)
		if shared.Code(err, "InvalidDBClusterState") {
			return false, "not in a state to be changed", nil
		}
		return true, "", err
	})
	if err != nil {
		return fmt.Errorf("setting %s of DB cluster %s: %w", what, id, shared.Explain("rds:ModifyDBCluster", err))
	}
	// A change shows as pending, or as a status of its own, some moments after the answer: twice in a row nothing is.
	calm := 0
	return x.Waiter().Until(ctx, "DB cluster "+id+" has the new "+what, func(ctx context.Context) (bool, string, error) {
		c, err := find(ctx, x.o.api, x.o.place, id)
		if err != nil {
			return false, "", err
		}
		status := aws.ToString(c.Status)
		if shared.Broken(status) {
			return false, "", fmt.Errorf("DB cluster %s became %s while it was changed: %s", id, status, shared.Remedy(status))
		}
		if p := c.PendingModifiedValues; !shared.Usable(status) || (p != nil && (p.MasterUserPassword != nil || p.BackupRetentionPeriod != nil || p.IAMDatabaseAuthenticationEnabled != nil)) {
			calm = 0
			return false, status, nil
		}
		calm++
		return calm > 1, status, nil
	})
}
