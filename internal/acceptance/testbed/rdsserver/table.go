package rdsserver

import (
	rdsschemas "github.com/aws/aws-sdk-go-v2/service/rds/schemas"
	stsschemas "github.com/aws/aws-sdk-go-v2/service/sts/schemas"
)

// table is every action that the server knows, with the parameters that the reference requires; any other one is an InvalidAction.
func (s *Server) table() map[string]action {
	all := map[string]action{
		stsVersion + " GetCallerIdentity": on(stsschemas.GetCallerIdentityRequest, (*request).callerIdentity),
		stsVersion + " AssumeRole":        on(stsschemas.AssumeRoleRequest, (*request).assumeRole, "RoleArn", "RoleSessionName"),
	}
	for name, a := range map[string]action{
		"CreateDBInstance":               on(rdsschemas.CreateDBInstanceMessage, (*request).createInstance, "DBInstanceIdentifier", "DBInstanceClass", "Engine"),
		"DescribeDBInstances":            on(rdsschemas.DescribeDBInstancesMessage, (*request).describeInstances),
		"ModifyDBInstance":               on(rdsschemas.ModifyDBInstanceMessage, (*request).modifyInstance, "DBInstanceIdentifier"),
		"DeleteDBInstance":               on(rdsschemas.DeleteDBInstanceMessage, (*request).deleteInstance, "DBInstanceIdentifier"),
		"RestoreDBInstanceToPointInTime": on(rdsschemas.RestoreDBInstanceToPointInTimeMessage, (*request).restoreToTime, "TargetDBInstanceIdentifier"),
		"RestoreDBInstanceFromDBSnapshot": on(rdsschemas.RestoreDBInstanceFromDBSnapshotMessage, (*request).restoreFromSnapshot,
			"DBInstanceIdentifier"),
		"DescribeDBInstanceAutomatedBackups": on(rdsschemas.DescribeDBInstanceAutomatedBackupsMessage, (*request).describeBackups),

		"CreateDBSnapshot":             on(rdsschemas.CreateDBSnapshotMessage, (*request).createSnapshot, "DBInstanceIdentifier", "DBSnapshotIdentifier"),
		"DescribeDBSnapshots":          on(rdsschemas.DescribeDBSnapshotsMessage, (*request).describeSnapshots),
		"DeleteDBSnapshot":             on(rdsschemas.DeleteDBSnapshotMessage, (*request).deleteSnapshot, "DBSnapshotIdentifier"),
		"CopyDBSnapshot":               on(rdsschemas.CopyDBSnapshotMessage, (*request).copySnapshot, "SourceDBSnapshotIdentifier", "TargetDBSnapshotIdentifier"),
		"ModifyDBSnapshotAttribute":    on(rdsschemas.ModifyDBSnapshotAttributeMessage, (*request).modifySnapshotAttribute, "DBSnapshotIdentifier", "AttributeName"),
		"DescribeDBSnapshotAttributes": on(rdsschemas.DescribeDBSnapshotAttributesMessage, (*request).describeSnapshotAttributes, "DBSnapshotIdentifier"),

		"CreateDBCluster":               on(rdsschemas.CreateDBClusterMessage, (*request).createCluster, "DBClusterIdentifier", "Engine"),
		"DescribeDBClusters":            on(rdsschemas.DescribeDBClustersMessage, (*request).describeClusters),
		"ModifyDBCluster":               on(rdsschemas.ModifyDBClusterMessage, (*request).modifyCluster, "DBClusterIdentifier"),
		"DeleteDBCluster":               on(rdsschemas.DeleteDBClusterMessage, (*request).deleteCluster, "DBClusterIdentifier"),
		"RestoreDBClusterToPointInTime": on(rdsschemas.RestoreDBClusterToPointInTimeMessage, (*request).restoreClusterToTime, "DBClusterIdentifier"),
		"RestoreDBClusterFromSnapshot": on(rdsschemas.RestoreDBClusterFromSnapshotMessage, (*request).restoreClusterFromSnapshot,
			"DBClusterIdentifier", "SnapshotIdentifier", "Engine"),
		"DescribeDBClusterAutomatedBackups": on(rdsschemas.DescribeDBClusterAutomatedBackupsMessage, (*request).describeClusterBackups),

		"CreateDBClusterSnapshot": on(rdsschemas.CreateDBClusterSnapshotMessage, (*request).createClusterSnapshot, "DBClusterIdentifier",
			"DBClusterSnapshotIdentifier"),
		"DescribeDBClusterSnapshots": on(rdsschemas.DescribeDBClusterSnapshotsMessage, (*request).describeClusterSnapshots),
		"DeleteDBClusterSnapshot":    on(rdsschemas.DeleteDBClusterSnapshotMessage, (*request).deleteClusterSnapshot, "DBClusterSnapshotIdentifier"),
		"CopyDBClusterSnapshot": on(rdsschemas.CopyDBClusterSnapshotMessage, (*request).copyClusterSnapshot, "SourceDBClusterSnapshotIdentifier",
			"TargetDBClusterSnapshotIdentifier"),
		"ModifyDBClusterSnapshotAttribute": on(rdsschemas.ModifyDBClusterSnapshotAttributeMessage, (*request).modifyClusterSnapshotAttribute,
			"DBClusterSnapshotIdentifier", "AttributeName"),

		"DescribeDBSubnetGroups":             on(rdsschemas.DescribeDBSubnetGroupsMessage, (*request).describeSubnetGroups),
		"DescribeAccountAttributes":          on(rdsschemas.DescribeAccountAttributesMessage, (*request).describeAccount),
		"DescribeOrderableDBInstanceOptions": on(rdsschemas.DescribeOrderableDBInstanceOptionsMessage, (*request).describeOrderable, "Engine"),
		"AddTagsToResource":                  on(rdsschemas.AddTagsToResourceMessage, (*request).addTags, "ResourceName", "Tags"),
		"RemoveTagsFromResource":             on(rdsschemas.RemoveTagsFromResourceMessage, (*request).removeTags, "ResourceName", "TagKeys"),
		"ListTagsForResource":                on(rdsschemas.ListTagsForResourceMessage, (*request).listTags, "ResourceName"),
	} {
		all[rdsVersion+" "+name] = a
	}
	return all
}
