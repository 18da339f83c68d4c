package awsrdsinstance

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"
	"github.com/aws/smithy-go"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/testclock"
	shared "github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/rds"
)

// world is a small RDS of one region, on the virtual time of a bubble. What it does not check, the acceptance tests' stand-in does.
type world struct {
	mu        sync.Mutex
	t         *testing.T
	clock     *testclock.Clock
	place     shared.Place
	instances map[string]*types.DBInstance
	ready     map[string]time.Time // when an instance, or a snapshot, is done with what it does
	snapshots map[string]*types.DBSnapshot
	retained  []types.DBInstanceAutomatedBackup
	groups    map[string]bool
	quotas    []types.AccountQuota
	calls     []string
	restores  []rds.RestoreDBInstanceToPointInTimeInput
	modifies  []rds.ModifyDBInstanceInput
	next      int
	lag       time.Duration // of the latest restorable time
	dbTime    func(requested time.Time) *time.Time
	fail      func(call string) error // before the call takes effect
	lose      func(call string) error // after it did
}

func newWorld(t *testing.T) *world {
	w := &world{
		t: t, clock: testclock.New(), place: shared.Place{Account: "111122223333", Partition: "aws", Region: "eu-central-1"}, instances: map[string]*types.DBInstance{}, ready: map[string]time.Time{},
		snapshots: map[string]*types.DBSnapshot{}, groups: map[string]bool{"prod": true}, lag: 5 * time.Minute,
		dbTime: func(at time.Time) *time.Time { return aws.Time(at.Add(-time.Minute)) },
	}
	i := w.put("orders", "postgres")
	i.DBInstanceClass, i.StorageType, i.Iops, i.AllocatedStorage = aws.String("db.r6g.large"), aws.String("io2"), aws.Int32(4000), aws.Int32(200)
	i.DBSubnetGroup = &types.DBSubnetGroup{DBSubnetGroupName: aws.String("prod")}
	i.VpcSecurityGroups = []types.VpcSecurityGroupMembership{{VpcSecurityGroupId: aws.String("sg-prod")}}
	i.DBParameterGroups = []types.DBParameterGroupStatus{{DBParameterGroupName: aws.String("orders-pg15")}}
	i.MultiAZ, i.IAMDatabaseAuthenticationEnabled, i.DeletionProtection = aws.Bool(true), aws.Bool(true), aws.Bool(true)
	i.MonitoringInterval, i.MonitoringRoleArn = aws.Int32(60), aws.String("arn:aws:iam::111122223333:role/monitoring")
	i.PreferredBackupWindow, i.BackupRetentionPeriod = aws.String("02:00-03:00"), aws.Int32(14)
	i.StorageEncrypted, i.KmsKeyId = aws.Bool(true), aws.String("arn:aws:kms:eu-central-1:111122223333:key/prod")
	i.TagList = shared.Tags(map[string]string{"team": "orders", "aws:cloudformation:stack-name": "x"})
	return w
}

func (w *world) open(_ context.Context, region string) (API, shared.Place, error) {
	p := w.place
	if region != "" {
		p.Region = region
	}
	return w, p, nil
}

// put makes an instance that is available at once.
func (w *world) put(id, engineName string) *types.DBInstance {
	w.next++
	i := &types.DBInstance{
		DBInstanceIdentifier: aws.String(id), DBInstanceArn: aws.String(w.place.ARN("db", id)), DbiResourceId: aws.String(fmt.Sprintf("db-%04d", w.next)), DBInstanceStatus: aws.String("available"),
		Engine: aws.String(engineName), EngineVersion: aws.String("15.8"), MasterUsername: aws.String("admin"), DBName: aws.String("shop"), BackupRetentionPeriod: aws.Int32(7), InstanceCreateTime: aws.Time(w.clock.Now()),
		Endpoint: &types.Endpoint{Address: aws.String(id + ".example.com"), Port: aws.Int32(5432)}, LatestRestorableTime: aws.Time(w.clock.Now()),
	}
	w.instances[id] = i
	return i
}

func fault(code, message string) error {
	return &smithy.GenericAPIError{Code: code, Message: message, Fault: smithy.FaultClient}
}

func (w *world) begin(call string) error {
	w.calls = append(w.calls, call)
	if w.fail != nil {
		if err := w.fail(call); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) end(call string) error {
	if w.lose != nil {
		return w.lose(call)
	}
	return nil
}

func (w *world) count(call string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, c := range w.calls {
		if c == call {
			n++
		}
	}
	return n
}

// advance lets time pass for everything.
func (w *world) advance() {
	now := w.clock.Now()
	for id, i := range w.instances {
		switch done := !now.Before(w.ready["db/"+id]); {
		case !done:
		case aws.ToString(i.DBInstanceStatus) == "deleting":
			delete(w.instances, id)
		case aws.ToString(i.DBInstanceStatus) == "creating":
			i.DBInstanceStatus = aws.String("backing-up") // usable, and not to be waited for
			i.Endpoint = &types.Endpoint{Address: aws.String(id + ".example.com"), Port: aws.Int32(5432)}
		}
		i.LatestRestorableTime = aws.Time(now.Add(-w.lag))
		if aws.ToInt32(i.BackupRetentionPeriod) == 0 {
			i.LatestRestorableTime = nil
		}
	}
	for id, s := range w.snapshots {
		if aws.ToString(s.Status) == "creating" && !now.Before(w.ready["snapshot/"+id]) {
			s.Status, s.PercentProgress = aws.String("available"), aws.Int32(100)
		}
	}
}

func (w *world) DescribeDBInstances(ctx context.Context, in *rds.DescribeDBInstancesInput, _ ...func(*rds.Options)) (*rds.DescribeDBInstancesOutput, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := w.begin("DescribeDBInstances"); err != nil {
		return nil, err
	}
	w.advance()
	i := w.instances[aws.ToString(in.DBInstanceIdentifier)]
	if i == nil {
		return nil, fault("DBInstanceNotFound", "no such instance")
	}
	return &rds.DescribeDBInstancesOutput{DBInstances: []types.DBInstance{*i}}, nil
}

func (w *world) DescribeDBInstanceAutomatedBackups(_ context.Context, in *rds.DescribeDBInstanceAutomatedBackupsInput, _ ...func(*rds.Options)) (*rds.DescribeDBInstanceAutomatedBackupsOutput, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.advance()
	out := &rds.DescribeDBInstanceAutomatedBackupsOutput{}
	named := aws.ToString(in.DBInstanceIdentifier)
	for _, f := range in.Filters {
		if aws.ToString(f.Name) == "db-instance-id" {
			named = f.Values[0]
		}
	}
	for id, i := range w.instances {
		if aws.ToInt32(i.BackupRetentionPeriod) > 0 && (aws.ToString(i.DbiResourceId) == aws.ToString(in.DbiResourceId) || named != "" && id == named) {
			out.DBInstanceAutomatedBackups = append(out.DBInstanceAutomatedBackups, types.DBInstanceAutomatedBackup{DBInstanceIdentifier: i.DBInstanceIdentifier, DbiResourceId: i.DbiResourceId, Engine: i.Engine,
				RestoreWindow: &types.RestoreWindow{EarliestTime: aws.Time(w.clock.Now().Add(-time.Duration(aws.ToInt32(i.BackupRetentionPeriod)) * 24 * time.Hour)), LatestTime: i.LatestRestorableTime}})
		}
	}
	for _, b := range w.retained {
		if aws.ToString(b.DbiResourceId) == aws.ToString(in.DbiResourceId) || named != "" && aws.ToString(b.DBInstanceIdentifier) == named ||
			(in.DBInstanceAutomatedBackupsArn != nil && aws.ToString(b.DBInstanceAutomatedBackupsArn) == aws.ToString(in.DBInstanceAutomatedBackupsArn)) {
			out.DBInstanceAutomatedBackups = append(out.DBInstanceAutomatedBackups, b)
		}
	}
	return out, nil
}

func (w *world) DescribeDBSnapshots(ctx context.Context, in *rds.DescribeDBSnapshotsInput, _ ...func(*rds.Options)) (*rds.DescribeDBSnapshotsOutput, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	w.advance()
	for id, s := range w.snapshots {
		if id == aws.ToString(in.DBSnapshotIdentifier) || aws.ToString(s.DBSnapshotArn) == aws.ToString(in.DBSnapshotIdentifier) {
			return &rds.DescribeDBSnapshotsOutput{DBSnapshots: []types.DBSnapshot{*s}}, nil
		}
	}
	return nil, fault("DBSnapshotNotFound", "no such snapshot")
}

func (w *world) DescribeDBSubnetGroups(_ context.Context, in *rds.DescribeDBSubnetGroupsInput, _ ...func(*rds.Options)) (*rds.DescribeDBSubnetGroupsOutput, error) {
	if !w.groups[aws.ToString(in.DBSubnetGroupName)] {
		return nil, fault("DBSubnetGroupNotFoundFault", "no such group")
	}
	return &rds.DescribeDBSubnetGroupsOutput{DBSubnetGroups: []types.DBSubnetGroup{{DBSubnetGroupName: in.DBSubnetGroupName}}}, nil
}

func (w *world) DescribeAccountAttributes(context.Context, *rds.DescribeAccountAttributesInput, ...func(*rds.Options)) (*rds.DescribeAccountAttributesOutput, error) {
	return &rds.DescribeAccountAttributesOutput{AccountQuotas: w.quotas}, nil
}

func (w *world) CreateDBSnapshot(_ context.Context, in *rds.CreateDBSnapshotInput, _ ...func(*rds.Options)) (*rds.CreateDBSnapshotOutput, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.begin("CreateDBSnapshot"); err != nil {
		return nil, err
	}
	id := aws.ToString(in.DBSnapshotIdentifier)
	if w.snapshots[id] != nil {
		return nil, fault("DBSnapshotAlreadyExists", "it exists")
	}
	i := w.instances[aws.ToString(in.DBInstanceIdentifier)]
	w.snapshots[id] = &types.DBSnapshot{DBSnapshotIdentifier: in.DBSnapshotIdentifier, DBSnapshotArn: aws.String(w.place.ARN("snapshot", id)), Status: aws.String("creating"), TagList: in.Tags,
		DbiResourceId: i.DbiResourceId, AllocatedStorage: i.AllocatedStorage, Engine: i.Engine, Encrypted: i.StorageEncrypted, KmsKeyId: i.KmsKeyId, SnapshotDatabaseTime: w.dbTime(w.clock.Now()), MasterUsername: i.MasterUsername}
	w.ready["snapshot/"+id] = w.clock.Now().Add(3 * time.Minute)
	return &rds.CreateDBSnapshotOutput{DBSnapshot: w.snapshots[id]}, w.end("CreateDBSnapshot")
}

func (w *world) CopyDBSnapshot(_ context.Context, in *rds.CopyDBSnapshotInput, _ ...func(*rds.Options)) (*rds.CopyDBSnapshotOutput, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.begin("CopyDBSnapshot " + aws.ToString(in.SourceRegion) + " " + aws.ToString(in.KmsKeyId)); err != nil {
		return nil, err
	}
	id := aws.ToString(in.TargetDBSnapshotIdentifier)
	for _, s := range w.snapshots {
		if aws.ToString(s.DBSnapshotArn) == aws.ToString(in.SourceDBSnapshotIdentifier) {
			c := *s
			c.DBSnapshotIdentifier, c.DBSnapshotArn, c.Status, c.TagList, c.KmsKeyId = in.TargetDBSnapshotIdentifier, aws.String(w.place.ARN("snapshot", id)), aws.String("creating"), in.Tags, in.KmsKeyId
			w.snapshots[id] = &c
			w.ready["snapshot/"+id] = w.clock.Now().Add(time.Minute)
			return &rds.CopyDBSnapshotOutput{DBSnapshot: &c}, w.end("CopyDBSnapshot")
		}
	}
	return nil, fault("DBSnapshotNotFound", "no such snapshot")
}

func (w *world) ModifyDBSnapshotAttribute(_ context.Context, in *rds.ModifyDBSnapshotAttributeInput, _ ...func(*rds.Options)) (*rds.ModifyDBSnapshotAttributeOutput, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return &rds.ModifyDBSnapshotAttributeOutput{}, w.begin(fmt.Sprintf("ModifyDBSnapshotAttribute %s %v", aws.ToString(in.AttributeName), in.ValuesToAdd))
}

func (w *world) DeleteDBSnapshot(_ context.Context, in *rds.DeleteDBSnapshotInput, _ ...func(*rds.Options)) (*rds.DeleteDBSnapshotOutput, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.advance()
	id := aws.ToString(in.DBSnapshotIdentifier)
	switch s := w.snapshots[id]; {
	case s == nil:
		return nil, fault("DBSnapshotNotFound", "no such snapshot")
	case aws.ToString(s.Status) == "creating":
		return nil, fault("InvalidDBSnapshotState", "it is being created")
	}
	delete(w.snapshots, id)
	return &rds.DeleteDBSnapshotOutput{}, nil
}

// restored makes an instance as AWS does: with its own defaults where it is not told.
func (w *world) restored(id string, from *types.DBInstance, tags []types.Tag) *types.DBInstance {
	i := w.put(id, aws.ToString(from.Engine))
	i.DBInstanceStatus, i.Endpoint, i.TagList = aws.String("creating"), nil, tags
	i.VpcSecurityGroups = []types.VpcSecurityGroupMembership{{VpcSecurityGroupId: aws.String("sg-default")}}
	i.MonitoringInterval, i.PreferredBackupWindow = aws.Int32(0), aws.String("05:00-06:00")
	w.ready["db/"+id] = w.clock.Now().Add(7 * time.Minute)
	return i
}

func (w *world) RestoreDBInstanceToPointInTime(_ context.Context, in *rds.RestoreDBInstanceToPointInTimeInput, _ ...func(*rds.Options)) (*rds.RestoreDBInstanceToPointInTimeOutput, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.begin("RestoreDBInstanceToPointInTime"); err != nil {
		return nil, err
	}
	w.advance()
	id := aws.ToString(in.TargetDBInstanceIdentifier)
	if w.instances[id] != nil {
		return nil, fault("DBInstanceAlreadyExists", "it exists")
	}
	var from *types.DBInstance
	for _, i := range w.instances {
		if aws.ToString(i.DbiResourceId) == aws.ToString(in.SourceDbiResourceId) {
			from = i
			if !in.RestoreTime.Before(aws.ToTime(i.LatestRestorableTime)) {
				return nil, fault("InvalidRestoreFault", "not yet")
			}
		}
	}
	for _, b := range w.retained {
		if aws.ToString(b.DbiResourceId) == aws.ToString(in.SourceDbiResourceId) || (in.SourceDBInstanceAutomatedBackupsArn != nil && aws.ToString(b.DBInstanceAutomatedBackupsArn) == aws.ToString(in.SourceDBInstanceAutomatedBackupsArn)) {
			from = &types.DBInstance{Engine: b.Engine}
		}
	}
	if from == nil {
		return nil, fault("DBInstanceNotFound", "no such source")
	}
	w.restores = append(w.restores, *in)
	i := w.restored(id, from, in.Tags)
	i.MultiAZ, i.DeletionProtection, i.IAMDatabaseAuthenticationEnabled, i.DBInstanceClass = in.MultiAZ, in.DeletionProtection, in.EnableIAMDatabaseAuthentication, in.DBInstanceClass
	copied := *i
	return &rds.RestoreDBInstanceToPointInTimeOutput{DBInstance: &copied}, w.end("RestoreDBInstanceToPointInTime")
}

func (w *world) RestoreDBInstanceFromDBSnapshot(_ context.Context, in *rds.RestoreDBInstanceFromDBSnapshotInput, _ ...func(*rds.Options)) (*rds.RestoreDBInstanceFromDBSnapshotOutput, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.begin("RestoreDBInstanceFromDBSnapshot " + aws.ToString(in.DBSnapshotIdentifier)); err != nil {
		return nil, err
	}
	s := w.snapshots[aws.ToString(in.DBSnapshotIdentifier)]
	if s == nil || aws.ToString(s.Status) != "available" {
		return nil, fault("DBSnapshotNotFound", "no such snapshot")
	}
	i := w.restored(aws.ToString(in.DBInstanceIdentifier), &types.DBInstance{Engine: s.Engine}, in.Tags)
	copied := *i
	return &rds.RestoreDBInstanceFromDBSnapshotOutput{DBInstance: &copied}, nil
}

func (w *world) ModifyDBInstance(_ context.Context, in *rds.ModifyDBInstanceInput, _ ...func(*rds.Options)) (*rds.ModifyDBInstanceOutput, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.begin("ModifyDBInstance"); err != nil {
		return nil, err
	}
	w.advance()
	i := w.instances[aws.ToString(in.DBInstanceIdentifier)]
	if i == nil {
		return nil, fault("DBInstanceNotFound", "no such instance")
	}
	if w.clock.Now().Before(w.ready["db/"+aws.ToString(in.DBInstanceIdentifier)].Add(2 * time.Minute)) {
		return nil, fault("InvalidDBInstanceState", "it is backing up")
	}
	if aws.ToInt32(in.MonitoringInterval) > 0 && slices.Contains(w.calls, "refuse monitoring") {
		return nil, fault("InvalidParameterCombination", "no monitoring here")
	}
	w.modifies = append(w.modifies, *in)
	if in.DeletionProtection != nil {
		i.DeletionProtection = in.DeletionProtection
	}
	if in.BackupRetentionPeriod != nil {
		i.BackupRetentionPeriod = in.BackupRetentionPeriod
	}
	if in.MonitoringInterval != nil {
		i.MonitoringInterval = in.MonitoringInterval
	}
	if in.PreferredBackupWindow != nil {
		i.PreferredBackupWindow = in.PreferredBackupWindow
	}
	if in.VpcSecurityGroupIds != nil {
		i.VpcSecurityGroups = nil
		for _, g := range in.VpcSecurityGroupIds {
			i.VpcSecurityGroups = append(i.VpcSecurityGroups, types.VpcSecurityGroupMembership{VpcSecurityGroupId: aws.String(g)})
		}
	}
	return &rds.ModifyDBInstanceOutput{DBInstance: i}, nil
}

func (w *world) DeleteDBInstance(_ context.Context, in *rds.DeleteDBInstanceInput, _ ...func(*rds.Options)) (*rds.DeleteDBInstanceOutput, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.begin("DeleteDBInstance"); err != nil {
		return nil, err
	}
	w.advance()
	id := aws.ToString(in.DBInstanceIdentifier)
	i := w.instances[id]
	switch {
	case i == nil:
		return nil, fault("DBInstanceNotFound", "no such instance")
	case aws.ToBool(i.DeletionProtection):
		return nil, fault("InvalidParameterCombination", "deletion protection is on")
	case aws.ToString(i.DBInstanceStatus) == "creating":
		return nil, fault("InvalidDBInstanceState", "it is being created")
	case !aws.ToBool(in.SkipFinalSnapshot):
		return nil, fault("InvalidParameterCombination", "FinalDBSnapshotIdentifier is required")
	}
	i.DBInstanceStatus = aws.String("deleting")
	w.ready["db/"+id] = w.clock.Now().Add(4 * time.Minute)
	return &rds.DeleteDBInstanceOutput{}, nil
}

// late is the request of a session, as a network would deliver it late.
func late(x *session) *rds.CreateDBSnapshotInput {
	return &rds.CreateDBSnapshotInput{DBInstanceIdentifier: aws.String(x.s.Identifier), DBSnapshotIdentifier: aws.String(x.snapshot), Tags: shared.Tags(map[string]string{shared.TagRunID: x.run.ID})}
}
