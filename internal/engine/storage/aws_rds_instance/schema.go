package awsrdsinstance

import (
	"context"
	_ "embed"
	"maps"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage"
	shared "github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/rds"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
)

//go:embed description.md
var description string

// Kind is the driver "aws_rds_instance".
type Kind struct{}

var (
	_ storage.Kind        = Kind{}
	_ storage.LoginNeeder = Kind{}
)

// Name is "aws_rds_instance".
func (Kind) Name() string { return kindName }

// Description is description.md.
func (Kind) Description() string { return description }

// NeedsLogin is true: verification reads through SQL.
func (Kind) NeedsLogin() bool { return true }

// SourceAttributes are those of the instance to be captured.
func (Kind) SourceAttributes() map[string]schema.Attribute {
	return storage.With(map[string]schema.Attribute{
		"identifier": shared.Fixed(true, "Identifier of the DB instance. Read replicas and instances of an Aurora cluster are refused."),
		"method":     shared.Fixed(false, "`pitr` (the default) records an instant, which automated backups restore; `snapshot` takes a manual snapshot, which lives on when the automated backups are gone."),
		"region":     shared.Fixed(false, "Region of the instance. The default is the provider's."),
		"database":   shared.String("Database that holds ScalarDB's schemas (PostgreSQL): for the write witness and verification. The default is the instance's first database, or `postgres`."),
		"share_with_accounts": shared.Strings("With method `snapshot`: AWS accounts that may restore the snapshot, 20 at most. A snapshot that is encrypted with RDS's default key cannot be shared. " +
			"A change counts for the next backup."),
	})
}

// DestinationAttributes are those of the instance to be created.
func (Kind) DestinationAttributes() map[string]schema.Attribute {
	a := shared.DestinationAttributes("DB instance")
	maps.Copy(a, map[string]schema.Attribute{
		"source_automated_backup_arn": shared.Fixed(false, "ARN of automated backups that are replicated to `region`: restores by time in another region than the source's."),
		"instance_class":              shared.String("Instance class. The default is the source's."),
		"storage_type":                shared.String("Storage type (`gp3`, `io2`, …). The default is the source's."),
		"iops":                        shared.Int("Provisioned IOPS. The default is the source's, if `storage_type` is."),
		"storage_throughput":          shared.Int("Throughput of `gp3` storage, in MiB per second. The default is the source's, if `storage_type` is."),
		"allocated_storage":           shared.Int("Storage, in GiB. The default, and the least, is the source's: storage can only grow."),
		"max_allocated_storage":       shared.Int("Up to how many GiB storage grows by itself. The default is the source's."),
		"multi_az":                    shared.Bool("Whether there is a standby in another availability zone. The default is the source's setting: AWS's own default would be none."),
		"availability_zone":           shared.String("Availability zone of an instance that is not Multi-AZ. The default is AWS's choice."),
		"parameter_group_name":        shared.String("Parameter group. The default is the source's, in the same region and account: AWS's own default would be the engine's default group."),
		"option_group_name":           shared.String("Option group. The default is the source's, in the same region and account."),
		"publicly_accessible":         shared.Bool("Whether it has a public address. The default is the source's setting."),
	})
	return storage.With(a)
}

// Validate refuses what AWS could not be told.
func (Kind) Validate(_ context.Context, side storage.Side, config types.Object, at func(attribute string) storage.PathSetter) diag.Diagnostics {
	shared.Validate(config, at)
	if side == storage.SourceSide {
		shared.ValidateMethod(config, at)
		return nil
	}
	if m, zone := shared.Flag(config, "multi_az"), "availability_zone"; m != nil && *m {
		if _, ok := storage.Text(config, zone); ok {
			at(zone).Error("Availability zone of a Multi-AZ instance", "AWS chooses the zones of a Multi-AZ instance: leave availability_zone out, or set multi_az = false.")
		}
	}
	return nil
}

// opener opens the API by the provider's account.
func opener(env storage.Env) Open {
	return func(ctx context.Context, region string) (API, shared.Place, error) {
		s, err := env.AWS(ctx)
		if err != nil {
			return nil, shared.Place{}, err
		}
		if region == "" {
			region = s.Region()
		}
		return s.RDS(region), shared.Place{Account: s.Account(), Partition: s.Partition(), Region: region}, nil
	}
}

// NewSource opens nothing yet.
func (Kind) NewSource(_ context.Context, config types.Object, env storage.Env) (engine.Source, diag.Diagnostics) {
	return NewSource(source(config, env)), nil
}

func source(config types.Object, env storage.Env) SourceSettings {
	s := SourceSettings{Storage: env.StorageName, Clock: env.Clock, Open: opener(env), Login: shared.LoginOf(env), Layout: storage.Namespaces(config), ShareWith: shared.Words(config, "share_with_accounts")}
	s.Identifier, _ = storage.Text(config, "identifier")
	s.Method, _ = storage.Text(config, "method")
	s.Region, _ = storage.Text(config, "region")
	s.Database, _ = storage.Text(config, "database")
	return s
}

// NewDestination opens nothing yet.
func (Kind) NewDestination(_ context.Context, config types.Object, env storage.Env) (engine.Destination, diag.Diagnostics) {
	return NewDestination(destination(config, env)), nil
}

func destination(config types.Object, env storage.Env) DestinationSettings {
	word := func(name string) string { s, _ := storage.Text(config, name); return s }
	whole := func(name string) int32 { n, _ := storage.Whole(config, name); return int32(n) } //nolint:gosec // Validate has seen it
	is := func(name string) bool { b := shared.Flag(config, name); return b != nil && *b }
	return DestinationSettings{
		Identifier: word("identifier"), Region: word("region"), SourceIdentifier: word("source_identifier"), AutomatedBackupARN: word("source_automated_backup_arn"),
		KMSKey: word("kms_key_id"), SnapshotCopy: is("snapshot_copy"), Database: word("database"), CopyTags: shared.Flag(config, "copy_tags"), Tags: shared.Labels(config, "tags"),
		ManageMasterSecret: is("manage_master_user_password"), MasterSecretKey: word("master_user_secret_kms_key_id"), SetMasterPassword: is("set_master_password"),
		DeletionProtection: shared.Flag(config, "deletion_protection"), Storage: env.StorageName, Clock: env.Clock, Open: opener(env), Login: shared.LoginOf(env),
		Shape: Shape{
			Class: word("instance_class"), StorageType: word("storage_type"), IOPS: whole("iops"), Throughput: whole("storage_throughput"), Allocated: whole("allocated_storage"),
			MaxAllocated: whole("max_allocated_storage"), MultiAZ: shared.Flag(config, "multi_az"), Zone: word("availability_zone"), SubnetGroup: word("db_subnet_group_name"),
			SecurityGroups: shared.Words(config, "vpc_security_group_ids"), ParameterGroup: word("parameter_group_name"), OptionGroup: word("option_group_name"),
			Public: shared.Flag(config, "publicly_accessible"), Port: whole("port"), IAMAuth: shared.Flag(config, "iam_database_authentication_enabled"),
			AutoMinor: shared.Flag(config, "auto_minor_version_upgrade"), Logs: shared.Words(config, "enabled_cloudwatch_logs_exports"), CA: word("ca_certificate_identifier"),
			Retention: shared.Number(config, "backup_retention_period"), Insights: shared.Flag(config, "performance_insights_enabled"), InsightsKey: word("performance_insights_kms_key_id"),
			InsightsRetention: whole("performance_insights_retention_period"), MonitoringInterval: shared.Number(config, "monitoring_interval"), MonitoringRole: word("monitoring_role_arn"),
		},
	}
}

// NewReader connects to the instance, live or restored.
func (Kind) NewReader(ctx context.Context, _ storage.Side, config types.Object, env storage.Env) (verify.Storage, diag.Diagnostics) {
	identifier, _ := storage.Text(config, "identifier")
	region, _ := storage.Text(config, "region")
	database, _ := storage.Text(config, "database")
	r, err := NewReader(ctx, opener(env), region, identifier, database, shared.LoginOf(env), storage.Namespaces(config), env.Clock)
	if err != nil {
		return nil, diag.Diagnostics{diag.NewErrorDiagnostic("Opening a DB instance of RDS", err.Error())}
	}
	return r, nil
}

// Artifacts is RDS itself: a record says region and account.
func (Kind) Artifacts(_ types.Object, env storage.Env) engine.ArtifactStore {
	return Keeper{Clock: env.Clock, Open: opener(env), Report: env.Report}
}

// Restores says that an instant is restored by time, a snapshot as an artifact.
func (Kind) Restores() storage.Restores { return storage.Restores{FromArtifacts: true, ByTime: true} }
