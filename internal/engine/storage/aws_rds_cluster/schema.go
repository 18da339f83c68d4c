package awsrdscluster

import (
	"context"
	_ "embed"
	"fmt"
	"maps"
	"slices"

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

// Kind is the driver "aws_rds_cluster".
type Kind struct{}

var (
	_ storage.Kind        = Kind{}
	_ storage.LoginNeeder = Kind{}
)

// Name is "aws_rds_cluster".
func (Kind) Name() string { return kindName }

// Description is description.md.
func (Kind) Description() string { return description }

// NeedsLogin is true: verification reads through SQL.
func (Kind) NeedsLogin() bool { return true }

// SourceAttributes are those of the cluster to be captured.
func (Kind) SourceAttributes() map[string]schema.Attribute {
	return storage.With(map[string]schema.Attribute{
		"identifier": shared.Fixed(true, "Identifier of the Aurora cluster, the primary where it is one of a global database."),
		"method":     shared.Fixed(false, "`pitr` (the default) records an instant, which continuous backups restore; `snapshot` makes a cluster snapshot of that instant (through a temporary cluster, after the pause), which lives on when the continuous backups are gone."),
		"region":     shared.Fixed(false, "Region of the cluster. The default is the provider's."),
		"database":   shared.String("Database that holds ScalarDB's schemas (PostgreSQL): for the write witness and verification. The default is the cluster's first database, or `postgres`."),
		"share_with_accounts": shared.Strings("With method `snapshot`: AWS accounts that may restore the snapshot, 20 at most. A snapshot that is encrypted with RDS's default key cannot be shared. " +
			"A change counts for the next backup."),
	})
}

// DestinationAttributes are those of the cluster to be created.
func (Kind) DestinationAttributes() map[string]schema.Attribute {
	a := shared.DestinationAttributes("DB cluster")
	maps.Copy(a, map[string]schema.Attribute{
		"instances": schema.MapNestedAttribute{
			Optional: true,
			MarkdownDescription: "Instances of the cluster, by the end of their identifier (`IDENTIFIER-KEY`). They are created in the order of their keys, and the first becomes the writer. The default is one, `\"1\"`, of the source writer's class. " +
				"A change after the restore does nothing: the instances are yours then.",
			NestedObject: schema.NestedAttributeObject{Attributes: map[string]schema.Attribute{
				"instance_class":          shared.String("Instance class. The default is `instance_class` of the cluster, or the source writer's."),
				"availability_zone":       shared.String("Availability zone. The default is AWS's choice."),
				"promotion_tier":          shared.Int("Order of failover, 0 to 15. The default is 1."),
				"db_parameter_group_name": shared.String("Parameter group of the instance. The default is the source writer's, in the same region and account."),
				"publicly_accessible":     shared.Bool("Whether it has a public address. The default is the source writer's setting."),
			}},
		},
		"instance_class":                  shared.String("Class of the instances that name none. The default is the source writer's."),
		"storage_type":                    shared.String("`aurora` or `aurora-iopt1`. The default is the source's."),
		"db_cluster_parameter_group_name": shared.String("Parameter group of the cluster. The default is the source's, in the same region and account: AWS's own default would be the engine's default group."),
		"db_parameter_group_name":         shared.String("Parameter group of the instances that name none. The default is the source writer's, in the same region and account."),
		"publicly_accessible":             shared.Bool("Whether instances have a public address. The default is the source writer's setting."),
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
	cluster, _ := storage.Text(config, "identifier")
	instances, known := config.Attributes()["instances"].(types.Map)
	if !known || instances.IsNull() || instances.IsUnknown() {
		return nil
	}
	if len(instances.Elements()) == 0 {
		at("instances").Error("Cluster without instances", "A restored Aurora cluster without instances cannot be reached: give at least one, or leave instances out for one of the source writer's class.")
	}
	if n := len(instances.Elements()); n > 16 {
		at("instances").Error("Too many instances", fmt.Sprintf("An Aurora cluster has 16 instances at most, not %d.", n))
	}
	for _, key := range slices.Sorted(maps.Keys(instances.Elements())) {
		if cluster == "" {
			cluster = "a" // unknown yet
		}
		if wrong := shared.CheckIdentifier(cluster + "-" + key); wrong != "" {
			at("instances").Error("Invalid instance", fmt.Sprintf("%q makes no identifier: %s", key, wrong))
		}
		if o, ok := instances.Elements()[key].(types.Object); ok {
			if tier, set := storage.Whole(o, "promotion_tier"); set && (tier < 0 || tier > 15) {
				at("instances").Error("Invalid promotion_tier", fmt.Sprintf("Instance %q: a promotion tier is from 0 to 15.", key))
			}
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
	s := DestinationSettings{
		Identifier: word("identifier"), Region: word("region"), SourceIdentifier: word("source_identifier"),
		KMSKey: word("kms_key_id"), SnapshotCopy: is("snapshot_copy"), Database: word("database"), CopyTags: shared.Flag(config, "copy_tags"), Tags: shared.Labels(config, "tags"),
		ManageMasterSecret: is("manage_master_user_password"), MasterSecretKey: word("master_user_secret_kms_key_id"), SetMasterPassword: is("set_master_password"),
		Storage: env.StorageName, Clock: env.Clock, Open: opener(env), Login: shared.LoginOf(env),
		Shape: Shape{
			StorageType: word("storage_type"), SubnetGroup: word("db_subnet_group_name"), SecurityGroups: shared.Words(config, "vpc_security_group_ids"),
			ParameterGroup: word("db_cluster_parameter_group_name"), Port: whole("port"), IAMAuth: shared.Flag(config, "iam_database_authentication_enabled"),
			Protected: shared.Flag(config, "deletion_protection"), Logs: shared.Words(config, "enabled_cloudwatch_logs_exports"), Retention: shared.Number(config, "backup_retention_period"),
			Writer: Member{
				Class: word("instance_class"), ParameterGroup: word("db_parameter_group_name"), Public: shared.Flag(config, "publicly_accessible"),
				AutoMinor: shared.Flag(config, "auto_minor_version_upgrade"), CA: word("ca_certificate_identifier"), Insights: shared.Flag(config, "performance_insights_enabled"),
				InsightsKey: word("performance_insights_kms_key_id"), InsightsRetention: whole("performance_insights_retention_period"),
				MonitoringInterval: shared.Number(config, "monitoring_interval"), MonitoringRole: word("monitoring_role_arn"),
			},
		},
	}
	instances, ok := config.Attributes()["instances"].(types.Map)
	if !ok {
		return s
	}
	s.Instances = map[string]Member{}
	for key, v := range instances.Elements() {
		o, ok := v.(types.Object)
		if !ok {
			continue
		}
		m := Member{Public: shared.Flag(o, "publicly_accessible"), Tier: shared.Number(o, "promotion_tier")}
		m.Class, _ = storage.Text(o, "instance_class")
		m.Zone, _ = storage.Text(o, "availability_zone")
		m.ParameterGroup, _ = storage.Text(o, "db_parameter_group_name")
		s.Instances[key] = m
	}
	return s
}

// NewReader connects to the cluster, live or restored.
func (Kind) NewReader(ctx context.Context, _ storage.Side, config types.Object, env storage.Env) (verify.Storage, diag.Diagnostics) {
	identifier, _ := storage.Text(config, "identifier")
	region, _ := storage.Text(config, "region")
	database, _ := storage.Text(config, "database")
	r, err := NewReader(ctx, opener(env), region, identifier, database, shared.LoginOf(env), storage.Namespaces(config), env.Clock)
	if err != nil {
		return nil, diag.Diagnostics{diag.NewErrorDiagnostic("Opening an Aurora cluster", err.Error())}
	}
	return r, nil
}

// Artifacts is RDS itself: a record says region and account.
func (Kind) Artifacts(_ types.Object, env storage.Env) engine.ArtifactStore {
	return Keeper{Clock: env.Clock, Open: opener(env), Report: env.Report}
}

// Restores says that an instant is restored by time, a snapshot as an artifact.
func (Kind) Restores() storage.Restores { return storage.Restores{FromArtifacts: true, ByTime: true} }
