package awsrdscluster

import (
	"context"
	"fmt"
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

// world is a small Aurora of one region, on the virtual time of a bubble. What it does not check, the acceptance tests' stand-in does.
type world struct {
	mu        sync.Mutex
	t         *testing.T
	clock     *testclock.Clock
	place     shared.Place
	clusters  map[string]*types.DBCluster
	instances map[string]*types.DBInstance
	snapshots map[string]*types.DBClusterSnapshot
	retained  []types.DBClusterAutomatedBackup
	ready     map[string]time.Time
	quotas    []types.AccountQuota
	calls     []string
	restores  []rds.RestoreDBClusterToPointInTimeInput
	created   []rds.CreateDBInstanceInput
	next      int
	fail      func(call string) error // before the call takes effect
	lose      func(call string) error // after it did
}

const lag = 5 * time.Minute

func newWorld(t *testing.T) *world {
	w := &world{t: t, clock: testclock.New(), place: shared.Place{Account: "111122223333", Partition: "aws", Region: "eu-central-1"},
		clusters: map[string]*types.DBCluster{}, instances: map[string]*types.DBInstance{}, snapshots: map[string]*types.DBClusterSnapshot{}, ready: map[string]time.Time{}}
	c := w.put("orders")
	c.Status = aws.String("available")
	c.DBSubnetGroup, c.DBClusterParameterGroup, c.DeletionProtection, c.BackupRetentionPeriod = aws.String("prod"), aws.String("orders-cluster"), aws.Bool(true), aws.Int32(14)
	c.VpcSecurityGroups = []types.VpcSecurityGroupMembership{{VpcSecurityGroupId: aws.String("sg-prod")}}
	c.StorageEncrypted, c.KmsKeyId, c.EnabledCloudwatchLogsExports = aws.Bool(true), aws.String("arn:aws:kms:eu-central-1:111122223333:key/prod"), []string{"postgresql"}
	c.TagList = shared.Tags(map[string]string{"team": "orders"})
	c.ServerlessV2ScalingConfiguration = &types.ServerlessV2ScalingConfigurationInfo{MinCapacity: aws.Float64(1), MaxCapacity: aws.Float64(8)}
	w.join("orders", "orders-a", "db.r6g.xlarge")
	return w
}

func (w *world) open(_ context.Context, region string) (API, shared.Place, error) {
	p := w.place
	if region != "" {
		p.Region = region
	}
	return w, p, nil
}

func (w *world) put(id string) *types.DBCluster {
	w.next++
	c := &types.DBCluster{
		DBClusterIdentifier: aws.String(id), DBClusterArn: aws.String(w.place.ARN("cluster", id)), DbClusterResourceId: aws.String(fmt.Sprintf("cluster-%04d", w.next)), Status: aws.String("creating"),
		Engine: aws.String("aurora-postgresql"), EngineMode: aws.String("provisioned"), EngineVersion: aws.String("15.8"), MasterUsername: aws.String("admin"), DatabaseName: aws.String("shop"), BackupRetentionPeriod: aws.Int32(1),
		Endpoint: aws.String(id + ".cluster.example.com"), ReaderEndpoint: aws.String(id + ".cluster-ro.example.com"), Port: aws.Int32(5432), LatestRestorableTime: aws.Time(w.clock.Now()),
		VpcSecurityGroups: []types.VpcSecurityGroupMembership{{VpcSecurityGroupId: aws.String("sg-default")}},
	}
	w.clusters[id] = c
	w.ready["cluster/"+id] = w.clock.Now().Add(6 * time.Minute)
	return c
}

func (w *world) join(cluster, id, class string) *types.DBInstance {
	w.next++
	i := &types.DBInstance{DBInstanceIdentifier: aws.String(id), DbiResourceId: aws.String(fmt.Sprintf("db-%04d", w.next)), DBInstanceArn: aws.String(w.place.ARN("db", id)), DBInstanceClass: aws.String(class), DBInstanceStatus: aws.String("creating"),
		DBClusterIdentifier: aws.String(cluster), Endpoint: &types.Endpoint{Address: aws.String(id + ".example.com"), Port: aws.Int32(5432)}, DBParameterGroups: []types.DBParameterGroupStatus{{DBParameterGroupName: aws.String("orders-instance")}}}
	c := w.clusters[cluster]
	c.DBClusterMembers = append(c.DBClusterMembers, types.DBClusterMember{DBInstanceIdentifier: aws.String(id), IsClusterWriter: aws.Bool(len(c.DBClusterMembers) == 0)})
	w.instances[id] = i
	w.ready["db/"+id] = w.clock.Now().Add(8 * time.Minute)
	return i
}

func fault(code, message string) error {
	return &smithy.GenericAPIError{Code: code, Message: message, Fault: smithy.FaultClient}
}

func (w *world) begin(ctx context.Context, call string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w.calls = append(w.calls, call)
	if w.fail != nil {
		return w.fail(call)
	}
	return nil
}

func (w *world) end(call string) error {
	if w.lose != nil {
		return w.lose(call)
	}
	return nil
}

func (w *world) advance() {
	now := w.clock.Now()
	for id, c := range w.clusters {
		if !now.Before(w.ready["cluster/"+id]) {
			switch aws.ToString(c.Status) {
			case "creating":
				c.Status = aws.String("available")
			case "deleting":
				delete(w.clusters, id)
			}
		}
		c.LatestRestorableTime, c.EarliestRestorableTime = aws.Time(now.Add(-lag)), aws.Time(now.Add(-time.Duration(aws.ToInt32(c.BackupRetentionPeriod))*24*time.Hour))
	}
	for id, i := range w.instances {
		if now.Before(w.ready["db/"+id]) {
			continue
		}
		switch aws.ToString(i.DBInstanceStatus) {
		case "creating":
			i.DBInstanceStatus = aws.String("available")
		case "deleting":
			delete(w.instances, id)
			c := w.clusters[aws.ToString(i.DBClusterIdentifier)]
			for n, m := range c.DBClusterMembers {
				if aws.ToString(m.DBInstanceIdentifier) == id {
					c.DBClusterMembers = append(c.DBClusterMembers[:n:n], c.DBClusterMembers[n+1:]...)
					break
				}
			}
		}
	}
	for id, s := range w.snapshots {
		if aws.ToString(s.Status) == "creating" && !now.Before(w.ready["snapshot/"+id]) {
			s.Status = aws.String("available")
		}
	}
}

func (w *world) DescribeDBClusters(ctx context.Context, in *rds.DescribeDBClustersInput, _ ...func(*rds.Options)) (*rds.DescribeDBClustersOutput, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.begin(ctx, "DescribeDBClusters"); err != nil {
		return nil, err
	}
	w.advance()
	c := w.clusters[aws.ToString(in.DBClusterIdentifier)]
	if c == nil {
		return nil, fault("DBClusterNotFoundFault", "no such cluster")
	}
	return &rds.DescribeDBClustersOutput{DBClusters: []types.DBCluster{*c}}, nil
}

func (w *world) DescribeDBInstances(ctx context.Context, in *rds.DescribeDBInstancesInput, _ ...func(*rds.Options)) (*rds.DescribeDBInstancesOutput, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.begin(ctx, "DescribeDBInstances"); err != nil {
		return nil, err
	}
	w.advance()
	i := w.instances[aws.ToString(in.DBInstanceIdentifier)]
	if i == nil {
		return nil, fault("DBInstanceNotFound", "no such instance")
	}
	return &rds.DescribeDBInstancesOutput{DBInstances: []types.DBInstance{*i}}, nil
}

func (w *world) DescribeDBClusterAutomatedBackups(_ context.Context, in *rds.DescribeDBClusterAutomatedBackupsInput, _ ...func(*rds.Options)) (*rds.DescribeDBClusterAutomatedBackupsOutput, error) {
	out := &rds.DescribeDBClusterAutomatedBackupsOutput{}
	named := "" // by filter, as for clusters that are gone
	for _, f := range in.Filters {
		if aws.ToString(f.Name) == "db-cluster-id" {
			named = f.Values[0]
		}
	}
	for _, b := range w.retained {
		if in.DbClusterResourceId != nil && aws.ToString(b.DbClusterResourceId) == *in.DbClusterResourceId || named != "" && aws.ToString(b.DBClusterIdentifier) == named {
			out.DBClusterAutomatedBackups = append(out.DBClusterAutomatedBackups, b)
		}
	}
	return out, nil
}

func (w *world) DescribeDBClusterSnapshots(ctx context.Context, in *rds.DescribeDBClusterSnapshotsInput, _ ...func(*rds.Options)) (*rds.DescribeDBClusterSnapshotsOutput, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.begin(ctx, "DescribeDBClusterSnapshots"); err != nil {
		return nil, err
	}
	w.advance()
	for id, s := range w.snapshots {
		if id == aws.ToString(in.DBClusterSnapshotIdentifier) || aws.ToString(s.DBClusterSnapshotArn) == aws.ToString(in.DBClusterSnapshotIdentifier) {
			return &rds.DescribeDBClusterSnapshotsOutput{DBClusterSnapshots: []types.DBClusterSnapshot{*s}}, nil
		}
	}
	return nil, fault("DBClusterSnapshotNotFoundFault", "no such snapshot")
}

func (w *world) DescribeDBSubnetGroups(_ context.Context, in *rds.DescribeDBSubnetGroupsInput, _ ...func(*rds.Options)) (*rds.DescribeDBSubnetGroupsOutput, error) {
	if aws.ToString(in.DBSubnetGroupName) != "prod" {
		return nil, fault("DBSubnetGroupNotFoundFault", "no such group")
	}
	return &rds.DescribeDBSubnetGroupsOutput{DBSubnetGroups: []types.DBSubnetGroup{{DBSubnetGroupName: in.DBSubnetGroupName}}}, nil
}

func (w *world) DescribeAccountAttributes(context.Context, *rds.DescribeAccountAttributesInput, ...func(*rds.Options)) (*rds.DescribeAccountAttributesOutput, error) {
	return &rds.DescribeAccountAttributesOutput{AccountQuotas: w.quotas}, nil
}

func (w *world) snap(id string, c types.DBClusterSnapshot, after time.Duration) *types.DBClusterSnapshot {
	c.DBClusterSnapshotIdentifier, c.DBClusterSnapshotArn, c.Status = aws.String(id), aws.String(w.place.ARN("cluster-snapshot", id)), aws.String("creating")
	w.snapshots[id] = &c
	w.ready["snapshot/"+id] = w.clock.Now().Add(after)
	return &c
}

func (w *world) CreateDBClusterSnapshot(ctx context.Context, in *rds.CreateDBClusterSnapshotInput, _ ...func(*rds.Options)) (*rds.CreateDBClusterSnapshotOutput, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.begin(ctx, "CreateDBClusterSnapshot"); err != nil {
		return nil, err
	}
	c := w.clusters[aws.ToString(in.DBClusterIdentifier)]
	if aws.ToString(c.Status) != "available" {
		return nil, fault("InvalidDBClusterStateFault", "not available")
	}
	s := w.snap(aws.ToString(in.DBClusterSnapshotIdentifier), types.DBClusterSnapshot{TagList: in.Tags, DbClusterResourceId: c.DbClusterResourceId, Engine: c.Engine, StorageEncrypted: c.StorageEncrypted, KmsKeyId: c.KmsKeyId, MasterUsername: c.MasterUsername, AllocatedStorage: aws.Int32(1)}, 3*time.Minute)
	return &rds.CreateDBClusterSnapshotOutput{DBClusterSnapshot: s}, w.end("CreateDBClusterSnapshot")
}

func (w *world) CopyDBClusterSnapshot(ctx context.Context, in *rds.CopyDBClusterSnapshotInput, _ ...func(*rds.Options)) (*rds.CopyDBClusterSnapshotOutput, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.begin(ctx, "CopyDBClusterSnapshot "+aws.ToString(in.SourceRegion)+" "+aws.ToString(in.KmsKeyId)); err != nil {
		return nil, err
	}
	for _, s := range w.snapshots {
		if aws.ToString(s.DBClusterSnapshotArn) == aws.ToString(in.SourceDBClusterSnapshotIdentifier) {
			c := *s
			c.TagList, c.KmsKeyId = in.Tags, in.KmsKeyId
			return &rds.CopyDBClusterSnapshotOutput{DBClusterSnapshot: w.snap(aws.ToString(in.TargetDBClusterSnapshotIdentifier), c, time.Minute)}, nil
		}
	}
	return nil, fault("DBClusterSnapshotNotFoundFault", "no such snapshot")
}

func (w *world) ModifyDBClusterSnapshotAttribute(ctx context.Context, in *rds.ModifyDBClusterSnapshotAttributeInput, _ ...func(*rds.Options)) (*rds.ModifyDBClusterSnapshotAttributeOutput, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return &rds.ModifyDBClusterSnapshotAttributeOutput{}, w.begin(ctx, fmt.Sprintf("ModifyDBClusterSnapshotAttribute %s %v", aws.ToString(in.AttributeName), in.ValuesToAdd))
}

func (w *world) DeleteDBClusterSnapshot(ctx context.Context, in *rds.DeleteDBClusterSnapshotInput, _ ...func(*rds.Options)) (*rds.DeleteDBClusterSnapshotOutput, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.begin(ctx, "DeleteDBClusterSnapshot"); err != nil {
		return nil, err
	}
	w.advance()
	id := aws.ToString(in.DBClusterSnapshotIdentifier)
	switch s := w.snapshots[id]; {
	case s == nil:
		return nil, fault("DBClusterSnapshotNotFoundFault", "no such snapshot")
	case aws.ToString(s.Status) == "creating":
		return nil, fault("InvalidDBClusterSnapshotStateFault", "it is being created")
	}
	delete(w.snapshots, id)
	return &rds.DeleteDBClusterSnapshotOutput{}, nil
}

func (w *world) RestoreDBClusterToPointInTime(ctx context.Context, in *rds.RestoreDBClusterToPointInTimeInput, _ ...func(*rds.Options)) (*rds.RestoreDBClusterToPointInTimeOutput, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.begin(ctx, "RestoreDBClusterToPointInTime"); err != nil {
		return nil, err
	}
	w.advance()
	id, found := aws.ToString(in.DBClusterIdentifier), false
	if w.clusters[id] != nil {
		return nil, fault("DBClusterAlreadyExistsFault", "it exists")
	}
	for _, c := range w.clusters {
		if aws.ToString(c.DbClusterResourceId) == aws.ToString(in.SourceDbClusterResourceId) {
			found = true
			if !in.RestoreToTime.Before(aws.ToTime(c.LatestRestorableTime)) {
				return nil, fault("InvalidRestoreFault", "not yet")
			}
		}
	}
	for _, b := range w.retained {
		found = found || aws.ToString(b.DbClusterResourceId) == aws.ToString(in.SourceDbClusterResourceId)
	}
	if !found {
		return nil, fault("DBClusterNotFoundFault", "no such source")
	}
	w.restores = append(w.restores, *in)
	c := w.put(id)
	c.TagList, c.DeletionProtection, c.DBSubnetGroup = in.Tags, in.DeletionProtection, in.DBSubnetGroupName
	copied := *c
	return &rds.RestoreDBClusterToPointInTimeOutput{DBCluster: &copied}, w.end("RestoreDBClusterToPointInTime")
}

func (w *world) RestoreDBClusterFromSnapshot(ctx context.Context, in *rds.RestoreDBClusterFromSnapshotInput, _ ...func(*rds.Options)) (*rds.RestoreDBClusterFromSnapshotOutput, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.begin(ctx, "RestoreDBClusterFromSnapshot "+aws.ToString(in.KmsKeyId)); err != nil {
		return nil, err
	}
	found := false
	for id, s := range w.snapshots {
		found = found || id == aws.ToString(in.SnapshotIdentifier) || aws.ToString(s.DBClusterSnapshotArn) == aws.ToString(in.SnapshotIdentifier)
	}
	if !found || aws.ToString(in.Engine) == "" {
		return nil, fault("DBClusterSnapshotNotFoundFault", "no such snapshot")
	}
	c := w.put(aws.ToString(in.DBClusterIdentifier))
	c.TagList, c.DeletionProtection = in.Tags, in.DeletionProtection
	copied := *c
	return &rds.RestoreDBClusterFromSnapshotOutput{DBCluster: &copied}, nil
}

func (w *world) ModifyDBCluster(ctx context.Context, in *rds.ModifyDBClusterInput, _ ...func(*rds.Options)) (*rds.ModifyDBClusterOutput, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	call := "ModifyDBCluster"
	if in.MasterUserPassword != nil {
		call += " password"
	}
	if err := w.begin(ctx, call); err != nil {
		return nil, err
	}
	c := w.clusters[aws.ToString(in.DBClusterIdentifier)]
	if in.DeletionProtection != nil {
		c.DeletionProtection = in.DeletionProtection
	}
	if in.BackupRetentionPeriod != nil {
		c.BackupRetentionPeriod = in.BackupRetentionPeriod
	}
	if in.CloudwatchLogsExportConfiguration != nil {
		c.EnabledCloudwatchLogsExports = in.CloudwatchLogsExportConfiguration.EnableLogTypes
	}
	if in.VpcSecurityGroupIds != nil {
		c.VpcSecurityGroups = []types.VpcSecurityGroupMembership{{VpcSecurityGroupId: aws.String(in.VpcSecurityGroupIds[0])}}
	}
	return &rds.ModifyDBClusterOutput{DBCluster: c}, nil
}

func (w *world) DeleteDBCluster(ctx context.Context, in *rds.DeleteDBClusterInput, _ ...func(*rds.Options)) (*rds.DeleteDBClusterOutput, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.begin(ctx, "DeleteDBCluster "+aws.ToString(in.DBClusterIdentifier)); err != nil {
		return nil, err
	}
	w.advance()
	id := aws.ToString(in.DBClusterIdentifier)
	c := w.clusters[id]
	switch {
	case c == nil:
		return nil, fault("DBClusterNotFoundFault", "no such cluster")
	case aws.ToBool(c.DeletionProtection):
		return nil, fault("InvalidParameterCombination", "deletion protection is on")
	case aws.ToString(c.Status) == "creating" || len(c.DBClusterMembers) > 0:
		return nil, fault("InvalidDBClusterStateFault", "it is being created, or has instances")
	}
	c.Status = aws.String("deleting")
	w.ready["cluster/"+id] = w.clock.Now().Add(time.Minute)
	return &rds.DeleteDBClusterOutput{}, nil
}

func (w *world) CreateDBInstance(ctx context.Context, in *rds.CreateDBInstanceInput, _ ...func(*rds.Options)) (*rds.CreateDBInstanceOutput, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.begin(ctx, "CreateDBInstance "+aws.ToString(in.DBInstanceIdentifier)); err != nil {
		return nil, err
	}
	w.advance()
	if aws.ToString(w.clusters[aws.ToString(in.DBClusterIdentifier)].Status) != "available" {
		return nil, fault("InvalidDBClusterStateFault", "not available")
	}
	w.created = append(w.created, *in)
	i := w.join(aws.ToString(in.DBClusterIdentifier), aws.ToString(in.DBInstanceIdentifier), aws.ToString(in.DBInstanceClass))
	i.TagList = in.Tags
	copied := *i
	return &rds.CreateDBInstanceOutput{DBInstance: &copied}, w.end("CreateDBInstance " + aws.ToString(in.DBInstanceIdentifier))
}

func (w *world) DeleteDBInstance(ctx context.Context, in *rds.DeleteDBInstanceInput, _ ...func(*rds.Options)) (*rds.DeleteDBInstanceOutput, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	id := aws.ToString(in.DBInstanceIdentifier)
	if err := w.begin(ctx, "DeleteDBInstance "+id); err != nil {
		return nil, err
	}
	w.advance()
	i := w.instances[id]
	switch {
	case i == nil:
		return nil, fault("DBInstanceNotFound", "no such instance")
	case aws.ToString(i.DBInstanceStatus) == "creating":
		return nil, fault("InvalidDBInstanceState", "it is being created")
	}
	i.DBInstanceStatus = aws.String("deleting")
	w.ready["db/"+id] = w.clock.Now().Add(4 * time.Minute)
	return &rds.DeleteDBInstanceOutput{}, nil
}
