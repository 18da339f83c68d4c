//go:build acceptance

package moto

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	cluster "github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/aws_rds_cluster"
	instance "github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/aws_rds_instance"
	shared "github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/rds"
)

const (
	subnetGroup  = "private"
	otherAccount = "210987654321"
	master       = "master"
)

// groups are what both databases lie in.
func (b *bed) groups(t *testing.T) {
	t.Helper()
	_, err := b.direct.rds.CreateDBSubnetGroup(t.Context(), &rds.CreateDBSubnetGroupInput{DBSubnetGroupName: aws.String(subnetGroup), DBSubnetGroupDescription: aws.String("x"), SubnetIds: b.subnets(t)})
	must(t, err)
	_, err = b.direct.rds.CreateDBParameterGroup(t.Context(), &rds.CreateDBParameterGroupInput{DBParameterGroupName: aws.String("tuned"), DBParameterGroupFamily: aws.String("mysql8.0"), Description: aws.String("x")})
	must(t, err)
	_, err = b.direct.rds.CreateOptionGroup(t.Context(), &rds.CreateOptionGroupInput{OptionGroupName: aws.String("tuned"), EngineName: aws.String("mysql"), MajorEngineVersion: aws.String("8.0"), OptionGroupDescription: aws.String("x")})
	must(t, err)
	_, err = b.direct.rds.CreateDBClusterParameterGroup(t.Context(), &rds.CreateDBClusterParameterGroupInput{DBClusterParameterGroupName: aws.String("tuned"), DBParameterGroupFamily: aws.String("aurora-postgresql16"), Description: aws.String("x")})
	must(t, err)
}

func (b *bed) openInstance(ctx context.Context, in string) (instance.API, shared.Place, error) {
	return b.rds(ctx, in)
}

func (b *bed) openCluster(ctx context.Context, in string) (cluster.API, shared.Place, error) {
	return b.rds(ctx, in)
}

// rdsInventory is what can be left over.
func (b *bed) rdsInventory(t *testing.T) (names []string) {
	t.Helper()
	instances, err := b.direct.rds.DescribeDBInstances(t.Context(), &rds.DescribeDBInstancesInput{})
	must(t, err)
	for _, i := range instances.DBInstances {
		names = append(names, "instance "+*i.DBInstanceIdentifier)
	}
	clusters, err := b.direct.rds.DescribeDBClusters(t.Context(), &rds.DescribeDBClustersInput{})
	must(t, err)
	for _, c := range clusters.DBClusters {
		names = append(names, "cluster "+*c.DBClusterIdentifier)
	}
	snapshots, err := b.direct.rds.DescribeDBSnapshots(t.Context(), &rds.DescribeDBSnapshotsInput{SnapshotType: aws.String("manual")})
	must(t, err)
	for _, s := range snapshots.DBSnapshots {
		names = append(names, "snapshot "+*s.DBSnapshotIdentifier)
	}
	ofClusters, err := b.direct.rds.DescribeDBClusterSnapshots(t.Context(), &rds.DescribeDBClusterSnapshotsInput{SnapshotType: aws.String("manual")})
	must(t, err)
	for _, s := range ofClusters.DBClusterSnapshots {
		names = append(names, "cluster snapshot "+*s.DBClusterSnapshotIdentifier)
	}
	return names
}

// instanceFlow is every way of the driver aws_rds_instance.
func (b *bed) instanceFlow(t *testing.T) {
	_, err := b.direct.rds.CreateDBInstance(t.Context(), &rds.CreateDBInstanceInput{
		DBInstanceIdentifier: aws.String(sourceInstance), Engine: aws.String("mysql"), EngineVersion: aws.String("8.0.39"), DBInstanceClass: aws.String("db.m6g.large"), AllocatedStorage: aws.Int32(100), StorageType: aws.String("gp3"),
		MasterUsername: aws.String(master), MasterUserPassword: aws.String(password), DBName: aws.String("shop"), BackupRetentionPeriod: aws.Int32(7), DBSubnetGroupName: aws.String(subnetGroup),
		DBParameterGroupName: aws.String("tuned"), VpcSecurityGroupIds: []string{"sg-1"}, MultiAZ: aws.Bool(true), DeletionProtection: aws.Bool(true), CopyTagsToSnapshot: aws.Bool(true),
		EnableIAMDatabaseAuthentication: aws.Bool(true), EnableCloudwatchLogsExports: []string{"error"}, OptionGroupName: aws.String("tuned"), PreferredBackupWindow: aws.String("02:00-03:00"), Port: aws.Int32(5433),
		Tags: []types.Tag{{Key: aws.String("team"), Value: aws.String("orders & more")}},
	})
	must(t, err)
	source := func(method string, share ...string) engine.Source {
		return instance.NewSource(instance.SourceSettings{Identifier: sourceInstance, Method: method, ShareWith: share, Storage: stored, Clock: system, Open: b.openInstance})
	}
	destination := func(identifier string, change func(*instance.DestinationSettings)) engine.Destination {
		s := instance.DestinationSettings{Identifier: identifier, Storage: stored, Clock: system, Open: b.openInstance, Tags: map[string]string{"env": "staging"}}
		change(&s)
		return instance.NewDestination(s)
	}
	store := instance.Keeper{Clock: system, Open: b.openInstance, Report: report(t)}
	look := func(class string) func(engine.Restored) {
		return func(made engine.Restored) {
			out, err := b.direct.rds.DescribeDBInstances(t.Context(), &rds.DescribeDBInstancesInput{DBInstanceIdentifier: aws.String(made.Objects[0].ID)})
			must(t, err)
			i := out.DBInstances[0]
			tags := shared.TagsOf(i.TagList)
			same(t, "the clone", fmt.Sprint(made.Endpoint != "", made.Port, *i.DBInstanceClass, *i.DBSubnetGroup.DBSubnetGroupName, *i.DBParameterGroups[0].DBParameterGroupName, *i.OptionGroupMemberships[0].OptionGroupName,
				*i.VpcSecurityGroups[0].VpcSecurityGroupId, *i.MultiAZ, *i.DeletionProtection, *i.CopyTagsToSnapshot, *i.IAMDatabaseAuthenticationEnabled, *i.BackupRetentionPeriod, i.EnabledCloudwatchLogsExports,
				tags["team"], tags["env"], tags[shared.TagRunID]),
				fmt.Sprint(true, 5433, class, subnetGroup, "tuned", "tuned", "sg-1", true, true, true, true, 7, []string{"error"}, "orders & more", "staging", restoreRun))
		}
	}

	record, w := b.backUp(t, "aws_rds_instance", source("pitr"))
	b.restore(t, destination("clone-1", func(s *instance.DestinationSettings) {
		s.Shape.Class, s.SetMasterPassword, s.Login = "db.t4g.medium", true, &shared.Login{Username: master, Password: password}
	}), record, w.RestorePoint, look("db.t4g.medium"))
	discard(t, store, record)

	record, _ = b.backUp(t, "aws_rds_instance", source("snapshot", otherAccount))
	attributes, err := b.direct.rds.DescribeDBSnapshotAttributes(t.Context(), &rds.DescribeDBSnapshotAttributesInput{DBSnapshotIdentifier: aws.String(nameIn(record.Artifacts[0].ID))})
	must(t, err)
	if a := attributes.DBSnapshotAttributesResult.DBSnapshotAttributes; len(a) != 1 || *a[0].AttributeName != "restore" || !slices.Equal(a[0].AttributeValues, []string{otherAccount}) {
		t.Errorf("the snapshot is shared by %+v", a)
	}
	b.restore(t, destination("clone-2", func(*instance.DestinationSettings) {}), record, noTime, look("db.m6g.large"))
	b.restore(t, destination("clone-3", func(s *instance.DestinationSettings) { s.SnapshotCopy = true }), record, noTime, look("db.m6g.large"))
	discard(t, store, record)
}

// clusterFlow is every way of the driver aws_rds_cluster.
func (b *bed) clusterFlow(t *testing.T) {
	_, err := b.direct.rds.CreateDBCluster(t.Context(), &rds.CreateDBClusterInput{
		DBClusterIdentifier: aws.String(sourceCluster), Engine: aws.String("aurora-postgresql"), EngineVersion: aws.String("16.4"), MasterUsername: aws.String(master), MasterUserPassword: aws.String(password),
		DatabaseName: aws.String("shop"), BackupRetentionPeriod: aws.Int32(7), DBSubnetGroupName: aws.String(subnetGroup), DBClusterParameterGroupName: aws.String("tuned"), VpcSecurityGroupIds: []string{"sg-1"},
		DeletionProtection: aws.Bool(true), CopyTagsToSnapshot: aws.Bool(true), EnableIAMDatabaseAuthentication: aws.Bool(true), Port: aws.Int32(5433),
		Tags: []types.Tag{{Key: aws.String("team"), Value: aws.String("orders & more")}},
	})
	must(t, err)
	_, err = b.direct.rds.CreateDBInstance(t.Context(), &rds.CreateDBInstanceInput{DBInstanceIdentifier: aws.String(sourceCluster + "-1"), DBClusterIdentifier: aws.String(sourceCluster),
		Engine: aws.String("aurora-postgresql"), DBInstanceClass: aws.String("db.r6g.large")})
	must(t, err)
	// A cluster is "creating" until it was looked at once.
	_, err = b.direct.rds.DescribeDBClusters(t.Context(), &rds.DescribeDBClustersInput{DBClusterIdentifier: aws.String(sourceCluster)})
	must(t, err)
	source := func(method string, share ...string) engine.Source {
		return cluster.NewSource(cluster.SourceSettings{Identifier: sourceCluster, Method: method, ShareWith: share, Storage: stored, Clock: system, Open: b.openCluster})
	}
	// Other names each time: moto keeps the automated snapshots of deleted clusters, which it names by minutes, and fails to make those of the next one.
	destination := func(identifier string, change func(*cluster.DestinationSettings)) engine.Destination {
		s := cluster.DestinationSettings{Identifier: identifier, Storage: stored, Clock: system, Open: b.openCluster, Tags: map[string]string{"env": "staging"}}
		change(&s)
		return cluster.NewDestination(s)
	}
	store := cluster.Keeper{Clock: system, Open: b.openCluster, Report: report(t)}
	look := func(instances int) func(engine.Restored) {
		return func(made engine.Restored) {
			out, err := b.direct.rds.DescribeDBClusters(t.Context(), &rds.DescribeDBClustersInput{DBClusterIdentifier: aws.String(made.Objects[0].ID)})
			must(t, err)
			c := out.DBClusters[0]
			tags := shared.TagsOf(c.TagList)
			same(t, "the clone", fmt.Sprint(made.Endpoint != "", made.Port, len(c.DBClusterMembers), *c.DBSubnetGroup, *c.DBClusterParameterGroup, *c.VpcSecurityGroups[0].VpcSecurityGroupId, *c.DeletionProtection,
				*c.CopyTagsToSnapshot, *c.IAMDatabaseAuthenticationEnabled, *c.BackupRetentionPeriod, tags["team"], tags["env"], tags[shared.TagRunID]),
				fmt.Sprint(true, 5433, instances, subnetGroup, "tuned", "sg-1", true, true, true, 7, "orders & more", "staging", restoreRun))
		}
	}

	record, w := b.backUp(t, "aws_rds_cluster", source("pitr"))
	b.restore(t, destination("clone-4", func(s *cluster.DestinationSettings) {
		s.Instances = map[string]cluster.Member{"a": {}, "b": {Class: "db.t4g.medium"}}
		s.SetMasterPassword, s.Login = true, &shared.Login{Username: master, Password: password}
	}), record, w.RestorePoint, look(2))
	discard(t, store, record)

	record, _ = b.backUp(t, "aws_rds_cluster", source("snapshot", otherAccount))
	attributes, err := b.direct.rds.DescribeDBClusterSnapshotAttributes(t.Context(), &rds.DescribeDBClusterSnapshotAttributesInput{DBClusterSnapshotIdentifier: aws.String(nameIn(record.Artifacts[0].ID))})
	must(t, err)
	if a := attributes.DBClusterSnapshotAttributesResult.DBClusterSnapshotAttributes; len(a) != 1 || *a[0].AttributeName != "restore" || !slices.Equal(a[0].AttributeValues, []string{otherAccount}) {
		t.Errorf("the snapshot is shared by %+v", a)
	}
	b.restore(t, destination("clone-5", func(*cluster.DestinationSettings) {}), record, noTime, look(1))
	b.restore(t, destination("clone-6", func(s *cluster.DestinationSettings) { s.SnapshotCopy = true }), record, noTime, look(1))
	discard(t, store, record)

	// Of a deleted source, its retained backups are looked for.
	gone := record
	gone.ByTime, gone.SourceID, gone.Extra = true, "cluster-GONE", map[string]string{shared.ExtraIdentifier: "deleted"}
	err = destination("clone-7", func(*cluster.DestinationSettings) {}).Preflight(t.Context(), engine.StorageBackup{Storage: stored, RunID: restoreRun, Name: "staging", Record: gone, RestorePoint: w.RestorePoint})
	if err == nil || !strings.Contains(err.Error(), "no automated backups of it are retained") {
		t.Errorf("a restore of a deleted source: %v", err)
	}
}

const (
	sourceInstance = "prod-orders"
	sourceCluster  = "prod-aurora"
)

// nameIn is the last part of an ARN.
func nameIn(arn string) string { return arn[strings.LastIndexByte(arn, ':')+1:] }
