// Package awsrdscluster is the driver aws_rds_cluster: one cluster of Amazon Aurora, restored by time, or from a snapshot.
//
// # How a capture is fixed
//
// Both methods capture nothing in the window: the restore point in the safe interval says all, and Aurora's continuous backups have it.
//
// Method snapshot cannot take its snapshot in the window: AWS does not say which moment a cluster snapshot shows, and a cluster snapshot has no database time that
// could prove it. So await restores the cluster to the restore point under a temporary name (no instances, nobody can write there), takes the
// snapshot of that, and deletes the temporary cluster. It is named in the journal before the pause, and carries the run id: whatever dies, it is found and deleted.
//
// # Restores
//
// A restored Aurora cluster has no instances: they are created here, in the order of their keys, the first of which becomes the writer. Settings that AWS would replace by
// its defaults are the source's, as far as they are known; what the restore cannot take is put back by ModifyDBCluster.
package awsrdscluster

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/awsapi"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/relational"
	shared "github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/rds"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
)

const (
	kindName      = "aws_rds_cluster"
	pitrKind      = "aws_rds_cluster_pitr"
	snapshotKind  = "aws_rds_cluster_snapshot"
	temporaryKind = "aws_rds_cluster_temporary"
	objectKind    = "aws_rds_cluster"
	instanceKind  = "aws_rds_cluster_instance"
	copyKind      = "aws_rds_cluster_snapshot_copy"

	// granule is the granularity of restore times.
	granule = time.Second
	// shortRetention is how many days of automated backups are worth a warning.
	shortRetention = 7
)

// extraSnapshotSource is the resource id of what a snapshot was taken of: the temporary cluster.
const extraSnapshotSource = "snapshot_of"

// API is what the driver calls of RDS.
type API interface {
	DescribeDBClusters(context.Context, *rds.DescribeDBClustersInput, ...func(*rds.Options)) (*rds.DescribeDBClustersOutput, error)
	DescribeDBInstances(context.Context, *rds.DescribeDBInstancesInput, ...func(*rds.Options)) (*rds.DescribeDBInstancesOutput, error)
	DescribeDBClusterAutomatedBackups(context.Context, *rds.DescribeDBClusterAutomatedBackupsInput, ...func(*rds.Options)) (*rds.DescribeDBClusterAutomatedBackupsOutput, error)
	DescribeDBClusterSnapshots(context.Context, *rds.DescribeDBClusterSnapshotsInput, ...func(*rds.Options)) (*rds.DescribeDBClusterSnapshotsOutput, error)
	DescribeDBSubnetGroups(context.Context, *rds.DescribeDBSubnetGroupsInput, ...func(*rds.Options)) (*rds.DescribeDBSubnetGroupsOutput, error)
	DescribeAccountAttributes(context.Context, *rds.DescribeAccountAttributesInput, ...func(*rds.Options)) (*rds.DescribeAccountAttributesOutput, error)
	CreateDBClusterSnapshot(context.Context, *rds.CreateDBClusterSnapshotInput, ...func(*rds.Options)) (*rds.CreateDBClusterSnapshotOutput, error)
	CopyDBClusterSnapshot(context.Context, *rds.CopyDBClusterSnapshotInput, ...func(*rds.Options)) (*rds.CopyDBClusterSnapshotOutput, error)
	ModifyDBClusterSnapshotAttribute(context.Context, *rds.ModifyDBClusterSnapshotAttributeInput, ...func(*rds.Options)) (*rds.ModifyDBClusterSnapshotAttributeOutput, error)
	DeleteDBClusterSnapshot(context.Context, *rds.DeleteDBClusterSnapshotInput, ...func(*rds.Options)) (*rds.DeleteDBClusterSnapshotOutput, error)
	RestoreDBClusterToPointInTime(context.Context, *rds.RestoreDBClusterToPointInTimeInput, ...func(*rds.Options)) (*rds.RestoreDBClusterToPointInTimeOutput, error)
	RestoreDBClusterFromSnapshot(context.Context, *rds.RestoreDBClusterFromSnapshotInput, ...func(*rds.Options)) (*rds.RestoreDBClusterFromSnapshotOutput, error)
	ModifyDBCluster(context.Context, *rds.ModifyDBClusterInput, ...func(*rds.Options)) (*rds.ModifyDBClusterOutput, error)
	DeleteDBCluster(context.Context, *rds.DeleteDBClusterInput, ...func(*rds.Options)) (*rds.DeleteDBClusterOutput, error)
	CreateDBInstance(context.Context, *rds.CreateDBInstanceInput, ...func(*rds.Options)) (*rds.CreateDBInstanceOutput, error)
	DeleteDBInstance(context.Context, *rds.DeleteDBInstanceInput, ...func(*rds.Options)) (*rds.DeleteDBInstanceOutput, error)
}

// Open opens the API of a region (empty: the provider's) and says where that is.
type Open func(ctx context.Context, region string) (API, shared.Place, error)

// SourceSettings are the arguments of a backup.
type SourceSettings struct {
	Identifier, Method, Region, Database string
	ShareWith                            []string // accounts
	Layout                               relational.Layout

	Storage string // its name in the backup
	Clock   engine.Clock
	Open    Open
	Login   *shared.Login // nil: nothing is read through SQL
}

func (s SourceSettings) snapshots() bool { return s.Method == shared.MethodSnapshot }

// String keeps secrets out of logs and errors.
func (SourceSettings) String() string { return "(settings of an Aurora cluster)" }

// GoString is String.
func (SourceSettings) GoString() string { return "(settings of an Aurora cluster)" }

// describe finds a cluster by its identifier; nil when there is none.
func describe(ctx context.Context, api API, identifier string) (*types.DBCluster, error) {
	out, err := api.DescribeDBClusters(ctx, &rds.DescribeDBClustersInput{DBClusterIdentifier: aws.String(identifier)})
	if shared.Code(err, "DBClusterNotFound") {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("asking for DB cluster %s: %w", identifier, shared.Explain("rds:DescribeDBClusters", err))
	}
	for _, c := range out.DBClusters {
		return &c, nil
	}
	return nil, nil
}

// find is describe, for a cluster that must be there.
func find(ctx context.Context, api API, place shared.Place, identifier string) (types.DBCluster, error) {
	c, err := describe(ctx, api, identifier)
	switch {
	case err != nil:
		return types.DBCluster{}, err
	case c == nil:
		return types.DBCluster{}, fmt.Errorf("there is no DB cluster %s in %s: check identifier, region and credentials", identifier, place)
	}
	return *c, nil
}

// member finds an instance of a cluster; nil when there is none.
func member(ctx context.Context, api API, identifier string) (*types.DBInstance, error) {
	out, err := api.DescribeDBInstances(ctx, &rds.DescribeDBInstancesInput{DBInstanceIdentifier: aws.String(identifier)})
	if shared.Code(err, "DBInstanceNotFound") {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("asking for DB instance %s: %w", identifier, shared.Explain("rds:DescribeDBInstances", err))
	}
	for _, i := range out.DBInstances {
		return &i, nil
	}
	return nil, nil
}

// automated finds the automated backups of a cluster, live or retained.
func automated(ctx context.Context, api API, in rds.DescribeDBClusterAutomatedBackupsInput) ([]types.DBClusterAutomatedBackup, error) {
	out, err := api.DescribeDBClusterAutomatedBackups(ctx, &in)
	if shared.Code(err, "DBClusterAutomatedBackupNotFound", "DBClusterNotFound") {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("asking for automated backups of clusters: %w", shared.Explain("rds:DescribeDBClusterAutomatedBackups", err))
	}
	return out.DBClusterAutomatedBackups, nil
}

// snapshot finds a cluster snapshot by its identifier or ARN; nil when there is none.
func snapshot(ctx context.Context, api API, identifier string) (*types.DBClusterSnapshot, error) {
	out, err := api.DescribeDBClusterSnapshots(ctx, &rds.DescribeDBClusterSnapshotsInput{DBClusterSnapshotIdentifier: aws.String(identifier)})
	if shared.Code(err, "DBClusterSnapshotNotFound") {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("asking for cluster snapshot %s: %w", identifier, shared.Explain("rds:DescribeDBClusterSnapshots", err))
	}
	for _, s := range out.DBClusterSnapshots {
		return &s, nil
	}
	return nil, nil
}

// quotas are the account's.
func quotas(ctx context.Context, api API) ([]types.AccountQuota, error) {
	out, err := api.DescribeAccountAttributes(ctx, &rds.DescribeAccountAttributesInput{})
	if err != nil {
		return nil, fmt.Errorf("asking for the account's quotas: %w", shared.Explain("rds:DescribeAccountAttributes", err))
	}
	return out.AccountQuotas, nil
}

// dateOf makes one cheap call and returns the Date header of its answer.
func dateOf(api API, identifier string) func(context.Context) (time.Time, error) {
	return func(ctx context.Context) (time.Time, error) {
		out, err := api.DescribeDBClusters(ctx, &rds.DescribeDBClustersInput{DBClusterIdentifier: aws.String(identifier)})
		if err != nil {
			return time.Time{}, fmt.Errorf("asking for DB cluster %s: %w", identifier, shared.Explain("rds:DescribeDBClusters", err))
		}
		return awsapi.Date(out.ResultMetadata), nil
	}
}

// endpointOf is how writers reach a cluster; ok is false while RDS names no endpoint.
func endpointOf(c types.DBCluster, database string) (shared.Endpoint, bool) {
	database = cmp.Or(database, shared.TagsOf(c.TagList)[shared.TagDatabase], aws.ToString(c.DatabaseName))
	e := shared.Endpoint{Engine: aws.ToString(c.Engine), Host: aws.ToString(c.Endpoint), Port: int64(aws.ToInt32(c.Port)), Database: database}
	return e, e.Host != "" && e.Port != 0
}

// aurora says whether an engine is Aurora's.
func aurora(engineName string) bool { return strings.HasPrefix(engineName, "aurora-") }

// Shape is how a cluster and its writer are set up: what a restored one should have as its source has it. Zero values are unknown.
type Shape struct {
	Account string `json:"account,omitempty"`
	Region  string `json:"region,omitempty"`

	Engine         string   `json:"engine,omitempty"`
	EngineVersion  string   `json:"engine_version,omitempty"`
	MasterUsername string   `json:"master_username,omitempty"`
	Database       string   `json:"database,omitempty"`
	StorageType    string   `json:"storage_type,omitempty"`
	Encrypted      bool     `json:"encrypted,omitempty"`
	KMSKey         string   `json:"kms_key_id,omitempty"`
	SubnetGroup    string   `json:"subnet_group,omitempty"`
	SecurityGroups []string `json:"security_groups,omitempty"`
	ParameterGroup string   `json:"parameter_group,omitempty"` // of the cluster
	NetworkType    string   `json:"network_type,omitempty"`
	Port           int32    `json:"port,omitempty"`
	IAMAuth        *bool    `json:"iam_authentication,omitempty"`
	Protected      *bool    `json:"deletion_protection,omitempty"`
	CopyTags       *bool    `json:"copy_tags_to_snapshot,omitempty"`
	Logs           []string `json:"logs_exports,omitempty"`
	Backtrack      int64    `json:"backtrack_window,omitempty"` // seconds
	MinCapacity    *float64 `json:"min_capacity,omitempty"`     // of Serverless v2
	MaxCapacity    *float64 `json:"max_capacity,omitempty"`
	AutoPause      *int32   `json:"seconds_until_auto_pause,omitempty"`

	Retention         *int32 `json:"backup_retention_period,omitempty"` // days
	BackupWindow      string `json:"backup_window,omitempty"`
	MaintenanceWindow string `json:"maintenance_window,omitempty"`

	Writer Member            `json:"writer"`
	Tags   map[string]string `json:"tags,omitempty"`
}

// Member is how one instance of a cluster is set up.
type Member struct {
	Class              string `json:"class,omitempty"`
	Zone               string `json:"-"`
	Tier               *int32 `json:"-"`
	ParameterGroup     string `json:"parameter_group,omitempty"`
	Public             *bool  `json:"publicly_accessible,omitempty"`
	AutoMinor          *bool  `json:"auto_minor_version_upgrade,omitempty"`
	CA                 string `json:"ca,omitempty"`
	Insights           *bool  `json:"performance_insights,omitempty"`
	InsightsKey        string `json:"performance_insights_kms_key_id,omitempty"`
	InsightsRetention  int32  `json:"performance_insights_retention,omitempty"` // days
	MonitoringInterval *int32 `json:"monitoring_interval,omitempty"`            // seconds
	MonitoringRole     string `json:"monitoring_role,omitempty"`
}

// shapeOf reads a cluster; its writer is left out.
func shapeOf(c types.DBCluster, p shared.Place) Shape {
	s := Shape{
		Account: p.Account, Region: p.Region,
		Engine: aws.ToString(c.Engine), EngineVersion: aws.ToString(c.EngineVersion), MasterUsername: aws.ToString(c.MasterUsername), Database: aws.ToString(c.DatabaseName),
		StorageType: aws.ToString(c.StorageType), Encrypted: aws.ToBool(c.StorageEncrypted), KMSKey: aws.ToString(c.KmsKeyId), SubnetGroup: aws.ToString(c.DBSubnetGroup),
		ParameterGroup: aws.ToString(c.DBClusterParameterGroup), NetworkType: aws.ToString(c.NetworkType), Port: aws.ToInt32(c.Port), IAMAuth: c.IAMDatabaseAuthenticationEnabled,
		Protected: c.DeletionProtection, CopyTags: c.CopyTagsToSnapshot, Logs: c.EnabledCloudwatchLogsExports, Backtrack: aws.ToInt64(c.BacktrackWindow),
		Retention: c.BackupRetentionPeriod, BackupWindow: aws.ToString(c.PreferredBackupWindow), MaintenanceWindow: aws.ToString(c.PreferredMaintenanceWindow),
		Tags: shared.UserTags(shared.TagsOf(c.TagList)),
	}
	for _, g := range c.VpcSecurityGroups {
		s.SecurityGroups = append(s.SecurityGroups, aws.ToString(g.VpcSecurityGroupId))
	}
	if v := c.ServerlessV2ScalingConfiguration; v != nil {
		s.MinCapacity, s.MaxCapacity, s.AutoPause = v.MinCapacity, v.MaxCapacity, v.SecondsUntilAutoPause
	}
	return s
}

// memberOf reads an instance.
func memberOf(i types.DBInstance) Member {
	m := Member{
		Class: aws.ToString(i.DBInstanceClass), Public: i.PubliclyAccessible, AutoMinor: i.AutoMinorVersionUpgrade, CA: aws.ToString(i.CACertificateIdentifier),
		Insights: i.PerformanceInsightsEnabled, InsightsKey: aws.ToString(i.PerformanceInsightsKMSKeyId), InsightsRetention: aws.ToInt32(i.PerformanceInsightsRetentionPeriod),
		MonitoringInterval: i.MonitoringInterval, MonitoringRole: aws.ToString(i.MonitoringRoleArn),
	}
	for _, g := range i.DBParameterGroups {
		m.ParameterGroup = aws.ToString(g.DBParameterGroupName)
	}
	return m
}

// writerOf is the identifier of a cluster's writer; empty when it has no instances.
func writerOf(c types.DBCluster) string {
	for _, m := range c.DBClusterMembers {
		if aws.ToBool(m.IsClusterWriter) {
			return aws.ToString(m.DBInstanceIdentifier)
		}
	}
	return ""
}

// shapeWith is shapeOf with the writer's.
func shapeWith(ctx context.Context, api API, c types.DBCluster, p shared.Place) (Shape, error) {
	s := shapeOf(c, p)
	w := writerOf(c)
	if w == "" {
		return s, nil
	}
	i, err := member(ctx, api, w)
	if err != nil || i == nil {
		return s, err
	}
	s.Writer = memberOf(*i)
	return s, nil
}

// encode is for StorageRecord.Extra.
func (s Shape) encode() (string, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return "", fmt.Errorf("recording the settings of the cluster: %w", err)
	}
	return string(data), nil
}

// recorded reads what encode wrote; a zero Shape when there is nothing.
func recorded(extra map[string]string) (Shape, error) {
	var s Shape
	text := extra[shared.ExtraSettings]
	if text == "" {
		return s, nil
	}
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return s, fmt.Errorf("reading the settings of the cluster in the backup's record: %w", err)
	}
	return s, nil
}

// at leaves out what another account or region does not have.
func (s Shape) at(p shared.Place) Shape {
	if s.Account == p.Account && s.Region == p.Region {
		return s
	}
	s.SubnetGroup, s.SecurityGroups, s.ParameterGroup, s.KMSKey = "", nil, "", ""
	s.Writer.ParameterGroup, s.Writer.InsightsKey, s.Writer.CA = "", "", ""
	if s.Account != p.Account {
		s.Writer.MonitoringRole, s.Writer.MonitoringInterval = "", nil
	}
	return s
}

// NewReader opens what verification reads of a cluster, by its writer.
func NewReader(ctx context.Context, open Open, region, identifier, database string, login *shared.Login, layout relational.Layout, clock engine.Clock) (verify.Storage, error) {
	api, place, err := open(ctx, region)
	if err != nil {
		return nil, err
	}
	c, err := find(ctx, api, place, identifier)
	if err != nil {
		return nil, err
	}
	e, ok := endpointOf(c, database)
	if !ok || len(c.DBClusterMembers) == 0 {
		return nil, fmt.Errorf("DB cluster %s is %s and has no endpoint or no instances yet", identifier, aws.ToString(c.Status))
	}
	return e.Reader(ctx, login, layout, clock)
}
