// Package awsrdsinstance is the driver aws_rds_instance: one DB instance of Amazon RDS (not Aurora), restored by time, or from a snapshot.
//
// # How a capture is fixed
//
// Method pitr captures nothing: the restore point in the safe interval says all, and RDS's automated backups have it. Await waits until the latest restorable
// time has passed it, and makes sure that the instance is still the one that preflight saw (its DbiResourceId).
//
// Method snapshot requests a manual snapshot inside the safe interval. AWS does not document which moment a snapshot shows, so two facts must prove it afterwards:
// the request was sent and answered inside the safe interval (so it shows no earlier moment), and its database time, which is that of the last transaction
// in it, is not after the interval (so it holds nothing that came later). A snapshot without a database time proves nothing, and is refused.
//
// # Restores
//
// A restore makes a new instance. AWS gives it default networking, parameters and options; this driver gives it the source's, as far as they are known: the live
// instance's, else what the backup recorded. What the API of the restore cannot take is put back by ModifyDBInstance afterwards, and what could not be put
// back is reported.
package awsrdsinstance

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
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
	kindName     = "aws_rds_instance"
	pitrKind     = "aws_rds_instance_pitr"
	snapshotKind = "aws_rds_instance_snapshot"
	objectKind   = "aws_rds_instance"
	copyKind     = "aws_rds_instance_snapshot_copy"

	// granule is the granularity of restore times.
	granule = time.Second
	// shortRetention is how many days of automated backups are worth a warning.
	shortRetention = 7
)

// API is what the driver calls of RDS.
type API interface {
	DescribeDBInstances(context.Context, *rds.DescribeDBInstancesInput, ...func(*rds.Options)) (*rds.DescribeDBInstancesOutput, error)
	DescribeDBInstanceAutomatedBackups(context.Context, *rds.DescribeDBInstanceAutomatedBackupsInput, ...func(*rds.Options)) (*rds.DescribeDBInstanceAutomatedBackupsOutput, error)
	DescribeDBSnapshots(context.Context, *rds.DescribeDBSnapshotsInput, ...func(*rds.Options)) (*rds.DescribeDBSnapshotsOutput, error)
	DescribeDBSubnetGroups(context.Context, *rds.DescribeDBSubnetGroupsInput, ...func(*rds.Options)) (*rds.DescribeDBSubnetGroupsOutput, error)
	DescribeAccountAttributes(context.Context, *rds.DescribeAccountAttributesInput, ...func(*rds.Options)) (*rds.DescribeAccountAttributesOutput, error)
	CreateDBSnapshot(context.Context, *rds.CreateDBSnapshotInput, ...func(*rds.Options)) (*rds.CreateDBSnapshotOutput, error)
	CopyDBSnapshot(context.Context, *rds.CopyDBSnapshotInput, ...func(*rds.Options)) (*rds.CopyDBSnapshotOutput, error)
	ModifyDBSnapshotAttribute(context.Context, *rds.ModifyDBSnapshotAttributeInput, ...func(*rds.Options)) (*rds.ModifyDBSnapshotAttributeOutput, error)
	DeleteDBSnapshot(context.Context, *rds.DeleteDBSnapshotInput, ...func(*rds.Options)) (*rds.DeleteDBSnapshotOutput, error)
	RestoreDBInstanceToPointInTime(context.Context, *rds.RestoreDBInstanceToPointInTimeInput, ...func(*rds.Options)) (*rds.RestoreDBInstanceToPointInTimeOutput, error)
	RestoreDBInstanceFromDBSnapshot(context.Context, *rds.RestoreDBInstanceFromDBSnapshotInput, ...func(*rds.Options)) (*rds.RestoreDBInstanceFromDBSnapshotOutput, error)
	ModifyDBInstance(context.Context, *rds.ModifyDBInstanceInput, ...func(*rds.Options)) (*rds.ModifyDBInstanceOutput, error)
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
func (SourceSettings) String() string { return "(settings of an RDS instance)" }

// GoString is String.
func (SourceSettings) GoString() string { return "(settings of an RDS instance)" }

// describe finds an instance by its identifier; nil when there is none.
func describe(ctx context.Context, api API, identifier string) (*types.DBInstance, error) {
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

// automated finds the automated backups of an instance by its immutable id; nil when there are none.
func automated(ctx context.Context, api API, in rds.DescribeDBInstanceAutomatedBackupsInput) ([]types.DBInstanceAutomatedBackup, error) {
	out, err := api.DescribeDBInstanceAutomatedBackups(ctx, &in)
	if shared.Code(err, "DBInstanceAutomatedBackupNotFound", "DBInstanceNotFound") {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("asking for automated backups: %w", shared.Explain("rds:DescribeDBInstanceAutomatedBackups", err))
	}
	return out.DBInstanceAutomatedBackups, nil
}

// snapshot finds a snapshot by its identifier or ARN; nil when there is none.
func snapshot(ctx context.Context, api API, identifier string) (*types.DBSnapshot, error) {
	in := &rds.DescribeDBSnapshotsInput{DBSnapshotIdentifier: aws.String(identifier)}
	out, err := api.DescribeDBSnapshots(ctx, in)
	if shared.Code(err, "DBSnapshotNotFound") {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("asking for snapshot %s: %w", identifier, shared.Explain("rds:DescribeDBSnapshots", err))
	}
	for _, s := range out.DBSnapshots {
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
		out, err := api.DescribeDBInstances(ctx, &rds.DescribeDBInstancesInput{DBInstanceIdentifier: aws.String(identifier)})
		if err != nil {
			return time.Time{}, fmt.Errorf("asking for DB instance %s: %w", identifier, shared.Explain("rds:DescribeDBInstances", err))
		}
		return awsapi.Date(out.ResultMetadata), nil
	}
}

// endpointOf is how clients reach an instance; ok is false while RDS names none.
func endpointOf(i types.DBInstance, database string) (shared.Endpoint, bool) {
	if i.Endpoint == nil || aws.ToString(i.Endpoint.Address) == "" {
		return shared.Endpoint{}, false
	}
	database = cmp.Or(database, shared.TagsOf(i.TagList)[shared.TagDatabase], aws.ToString(i.DBName))
	return shared.Endpoint{Engine: aws.ToString(i.Engine), Host: aws.ToString(i.Endpoint.Address), Port: int64(aws.ToInt32(i.Endpoint.Port)), Database: database}, true
}

// Shape is how an instance is set up: what a restored one should have as its source has it. Zero values are unknown.
type Shape struct {
	Account string `json:"account,omitempty"`
	Region  string `json:"region,omitempty"`

	Engine         string   `json:"engine,omitempty"`
	EngineVersion  string   `json:"engine_version,omitempty"`
	MasterUsername string   `json:"master_username,omitempty"`
	Database       string   `json:"database,omitempty"`
	Class          string   `json:"class,omitempty"`
	StorageType    string   `json:"storage_type,omitempty"`
	IOPS           int32    `json:"iops,omitempty"`
	Throughput     int32    `json:"storage_throughput,omitempty"`
	Allocated      int32    `json:"allocated_storage,omitempty"` // GiB
	MaxAllocated   int32    `json:"max_allocated_storage,omitempty"`
	Encrypted      bool     `json:"encrypted,omitempty"`
	KMSKey         string   `json:"kms_key_id,omitempty"`
	Zone           string   `json:"-"`
	MultiAZ        *bool    `json:"multi_az,omitempty"`
	SubnetGroup    string   `json:"subnet_group,omitempty"`
	SecurityGroups []string `json:"security_groups,omitempty"`
	ParameterGroup string   `json:"parameter_group,omitempty"`
	OptionGroup    string   `json:"option_group,omitempty"`
	Public         *bool    `json:"publicly_accessible,omitempty"`
	NetworkType    string   `json:"network_type,omitempty"`
	License        string   `json:"license_model,omitempty"`
	Port           int32    `json:"port,omitempty"`
	IAMAuth        *bool    `json:"iam_authentication,omitempty"`
	Protected      *bool    `json:"deletion_protection,omitempty"`
	CopyTags       *bool    `json:"copy_tags_to_snapshot,omitempty"`
	AutoMinor      *bool    `json:"auto_minor_version_upgrade,omitempty"`
	Logs           []string `json:"logs_exports,omitempty"`
	CA             string   `json:"ca,omitempty"`

	Retention         *int32 `json:"backup_retention_period,omitempty"` // days
	BackupWindow      string `json:"backup_window,omitempty"`
	MaintenanceWindow string `json:"maintenance_window,omitempty"`

	Insights           *bool  `json:"performance_insights,omitempty"`
	InsightsKey        string `json:"performance_insights_kms_key_id,omitempty"`
	InsightsRetention  int32  `json:"performance_insights_retention,omitempty"` // days
	MonitoringInterval *int32 `json:"monitoring_interval,omitempty"`            // seconds
	MonitoringRole     string `json:"monitoring_role,omitempty"`

	Tags map[string]string `json:"tags,omitempty"`
}

// shapeOf reads an instance.
func shapeOf(i types.DBInstance, p shared.Place) Shape {
	s := Shape{
		Account: p.Account, Region: p.Region,
		Engine: aws.ToString(i.Engine), EngineVersion: aws.ToString(i.EngineVersion), MasterUsername: aws.ToString(i.MasterUsername), Database: aws.ToString(i.DBName),
		Class: aws.ToString(i.DBInstanceClass), StorageType: aws.ToString(i.StorageType), IOPS: aws.ToInt32(i.Iops), Throughput: aws.ToInt32(i.StorageThroughput),
		Allocated: aws.ToInt32(i.AllocatedStorage), MaxAllocated: aws.ToInt32(i.MaxAllocatedStorage),
		Encrypted: aws.ToBool(i.StorageEncrypted), KMSKey: aws.ToString(i.KmsKeyId), MultiAZ: i.MultiAZ, Public: i.PubliclyAccessible,
		NetworkType: aws.ToString(i.NetworkType), License: aws.ToString(i.LicenseModel), IAMAuth: i.IAMDatabaseAuthenticationEnabled, Protected: i.DeletionProtection,
		CopyTags: i.CopyTagsToSnapshot, AutoMinor: i.AutoMinorVersionUpgrade, Logs: i.EnabledCloudwatchLogsExports, CA: aws.ToString(i.CACertificateIdentifier),
		Retention: i.BackupRetentionPeriod, BackupWindow: aws.ToString(i.PreferredBackupWindow), MaintenanceWindow: aws.ToString(i.PreferredMaintenanceWindow),
		Insights: i.PerformanceInsightsEnabled, InsightsKey: aws.ToString(i.PerformanceInsightsKMSKeyId), InsightsRetention: aws.ToInt32(i.PerformanceInsightsRetentionPeriod),
		MonitoringInterval: i.MonitoringInterval, MonitoringRole: aws.ToString(i.MonitoringRoleArn), Tags: shared.UserTags(shared.TagsOf(i.TagList)),
	}
	if i.Endpoint != nil {
		s.Port = aws.ToInt32(i.Endpoint.Port)
	}
	if i.DBSubnetGroup != nil {
		s.SubnetGroup = aws.ToString(i.DBSubnetGroup.DBSubnetGroupName)
	}
	for _, g := range i.VpcSecurityGroups {
		s.SecurityGroups = append(s.SecurityGroups, aws.ToString(g.VpcSecurityGroupId))
	}
	for _, g := range i.DBParameterGroups {
		s.ParameterGroup = aws.ToString(g.DBParameterGroupName)
	}
	for _, g := range i.OptionGroupMemberships {
		s.OptionGroup = aws.ToString(g.OptionGroupName)
	}
	return s
}

// encode is for StorageRecord.Extra.
func (s Shape) encode() (string, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return "", fmt.Errorf("recording the settings of the instance: %w", err)
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
		return s, fmt.Errorf("reading the settings of the instance in the backup's record: %w", err)
	}
	return s, nil
}

// at leaves out what another account or region does not have.
func (s Shape) at(p shared.Place) Shape {
	if s.Account == p.Account && s.Region == p.Region {
		return s
	}
	s.SubnetGroup, s.SecurityGroups, s.ParameterGroup, s.OptionGroup, s.KMSKey, s.InsightsKey, s.CA = "", nil, "", "", "", "", ""
	if s.Account != p.Account {
		s.MonitoringRole, s.MonitoringInterval = "", nil
	}
	return s
}

// NewReader opens what verification reads of an instance.
func NewReader(ctx context.Context, open Open, region, identifier, database string, login *shared.Login, layout relational.Layout, clock engine.Clock) (verify.Storage, error) {
	api, place, err := open(ctx, region)
	if err != nil {
		return nil, err
	}
	i, err := find(ctx, api, place, identifier)
	if err != nil {
		return nil, err
	}
	e, ok := endpointOf(i, database)
	if !ok {
		return nil, fmt.Errorf("DB instance %s is %s and has no endpoint yet", identifier, aws.ToString(i.DBInstanceStatus))
	}
	return e.Reader(ctx, login, layout, clock)
}
