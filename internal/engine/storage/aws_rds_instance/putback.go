package awsrdsinstance

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"

	shared "github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/rds"
)

// stateTimeout is how long a change is tried again that RDS does not take in the instance's present status (it may be backing up).
const stateTimeout = time.Hour

type setting = shared.Setting[rds.ModifyDBInstanceInput]

// settings compares an instance with what is wanted. given is what arguments say.
func settings(given, w, got Shape, protection *bool) []setting {
	list := []setting{
		shared.NewSetting("backup_retention_period", given.Retention != nil, w.Retention != nil && *w.Retention != aws.ToInt32(got.Retention), func(in *rds.ModifyDBInstanceInput) { in.BackupRetentionPeriod = w.Retention }),
		shared.NewSetting("preferred_backup_window", false, w.BackupWindow != "" && w.BackupWindow != got.BackupWindow, func(in *rds.ModifyDBInstanceInput) { in.PreferredBackupWindow = aws.String(w.BackupWindow) }),
		shared.NewSetting("preferred_maintenance_window", false, w.MaintenanceWindow != "" && w.MaintenanceWindow != got.MaintenanceWindow, func(in *rds.ModifyDBInstanceInput) { in.PreferredMaintenanceWindow = aws.String(w.MaintenanceWindow) }),
		shared.NewSetting("max_allocated_storage", given.MaxAllocated != 0, w.MaxAllocated != 0 && w.MaxAllocated != got.MaxAllocated, func(in *rds.ModifyDBInstanceInput) { in.MaxAllocatedStorage = aws.Int32(w.MaxAllocated) }),
		shared.NewSetting("vpc_security_group_ids", given.SecurityGroups != nil, len(w.SecurityGroups) > 0 && !shared.SameSet(w.SecurityGroups, got.SecurityGroups), func(in *rds.ModifyDBInstanceInput) { in.VpcSecurityGroupIds = w.SecurityGroups }),
		shared.NewSetting("parameter_group_name", given.ParameterGroup != "", w.ParameterGroup != "" && w.ParameterGroup != got.ParameterGroup, func(in *rds.ModifyDBInstanceInput) { in.DBParameterGroupName = aws.String(w.ParameterGroup) }),
		shared.NewSetting("iam_database_authentication_enabled", given.IAMAuth != nil, shared.FlagDiffers(w.iamAuth(), got.IAMAuth), func(in *rds.ModifyDBInstanceInput) { in.EnableIAMDatabaseAuthentication = w.IAMAuth }),
		shared.NewSetting("deletion_protection", protection != nil, shared.FlagDiffers(w.Protected, got.Protected), func(in *rds.ModifyDBInstanceInput) { in.DeletionProtection = w.Protected }),
		shared.NewSetting("copy_tags_to_snapshot", false, shared.FlagDiffers(w.CopyTags, got.CopyTags), func(in *rds.ModifyDBInstanceInput) { in.CopyTagsToSnapshot = w.CopyTags }),
		shared.NewSetting("auto_minor_version_upgrade", given.AutoMinor != nil, shared.FlagDiffers(w.AutoMinor, got.AutoMinor), func(in *rds.ModifyDBInstanceInput) { in.AutoMinorVersionUpgrade = w.AutoMinor }),
		shared.NewSetting("ca_certificate_identifier", given.CA != "", w.CA != "" && w.CA != got.CA, func(in *rds.ModifyDBInstanceInput) { in.CACertificateIdentifier = aws.String(w.CA) }),
		shared.NewSetting("publicly_accessible", given.Public != nil, shared.FlagDiffers(w.Public, got.Public), func(in *rds.ModifyDBInstanceInput) { in.PubliclyAccessible = w.Public }),
		shared.NewSetting("multi_az", given.MultiAZ != nil, shared.FlagDiffers(w.MultiAZ, got.MultiAZ), func(in *rds.ModifyDBInstanceInput) { in.MultiAZ = w.MultiAZ }),
		shared.NewSetting("performance_insights_enabled", given.Insights != nil, shared.FlagDiffers(w.Insights, got.Insights), func(in *rds.ModifyDBInstanceInput) {
			in.EnablePerformanceInsights = w.Insights
			if aws.ToBool(w.Insights) {
				in.PerformanceInsightsKMSKeyId, in.PerformanceInsightsRetentionPeriod = shared.Text(w.InsightsKey), shared.Positive(w.InsightsRetention)
			}
		}),
		shared.NewSetting("monitoring_interval", given.MonitoringInterval != nil, w.MonitoringInterval != nil && *w.MonitoringInterval != aws.ToInt32(got.MonitoringInterval), func(in *rds.ModifyDBInstanceInput) {
			in.MonitoringInterval, in.MonitoringRoleArn = w.MonitoringInterval, shared.Text(w.MonitoringRole)
		}),
	}
	enable, disable := shared.Without(w.Logs, got.Logs), shared.Without(got.Logs, w.Logs)
	return append(list, shared.NewSetting("enabled_cloudwatch_logs_exports", given.Logs != nil, len(enable)+len(disable) > 0, func(in *rds.ModifyDBInstanceInput) {
		in.CloudwatchLogsExportConfiguration = &types.CloudwatchLogsExportConfiguration{EnableLogTypes: enable, DisableLogTypes: disable}
	}))
}

// differences names what is not as wanted, also what ModifyDBInstance cannot change at once.
func differences(w, got Shape) (names []string) {
	names = shared.Differing(settings(Shape{}, w, got, nil))
	for _, p := range []struct{ name, want, got string }{
		{"instance_class", w.Class, got.Class}, {"storage_type", w.StorageType, got.StorageType}, {"db_subnet_group_name", w.SubnetGroup, got.SubnetGroup},
		{"option_group_name", w.OptionGroup, got.OptionGroup}, {"network_type", w.NetworkType, got.NetworkType}, {"license_model", w.License, got.License},
	} {
		if p.want != "" && p.want != p.got {
			names = append(names, p.name)
		}
	}
	if w.Port != 0 && w.Port != got.Port {
		names = append(names, "port")
	}
	if w.IOPS != 0 && w.IOPS != got.IOPS {
		names = append(names, "iops")
	}
	if w.Throughput != 0 && w.Throughput != got.Throughput {
		names = append(names, "storage_throughput")
	}
	return names
}

// putBack sets what the restore lost, and the master user's password.
func (x *restoring) putBack(ctx context.Context) error {
	now, err := find(ctx, x.o.api, x.o.place, x.d.s.Identifier)
	if err != nil {
		return err
	}
	list := settings(x.d.s.Shape, x.want, shapeOf(now, x.o.place), x.d.s.DeletionProtection)
	switch {
	case x.d.s.ManageMasterSecret && now.MasterUserSecret == nil:
		list = append(list, shared.NewSetting("manage_master_user_password", true, true, func(in *rds.ModifyDBInstanceInput) {
			in.ManageMasterUserPassword, in.MasterUserSecretKmsKeyId = aws.Bool(true), shared.Text(x.d.s.MasterSecretKey)
		}))
	case x.d.s.SetMasterPassword:
		list = append(list, shared.NewSetting("set_master_password", true, true, func(in *rds.ModifyDBInstanceInput) { in.MasterUserPassword = aws.String(x.d.s.Login.Password) }))
	}
	return shared.PutBack(ctx, list, x.modify, func(name string, err error) {
		x.Report("a setting of the source could not be put back", map[string]any{"instance": x.d.s.Identifier, "setting": name, "error": err.Error()})
	})
}

// modify sets several at once, and waits until they are in force. RDS refuses changes while it backs up: they are tried again.
func (x *restoring) modify(ctx context.Context, list []setting) error {
	id := x.d.s.Identifier
	in := &rds.ModifyDBInstanceInput{DBInstanceIdentifier: aws.String(id), ApplyImmediately: aws.Bool(true)}
	var names []string
	for _, s := range list {
		s.Set(in)
		names = append(names, s.Name)
	}
	what := strings.Join(names, ", ")
	trying, cancel := x.d.s.Clock.WithTimeout(ctx, stateTimeout)
	defer cancel()
	err := x.Waiter().Until(trying, "DB instance "+id+" takes changes", func(ctx context.Context) (bool, string, error) {
		_, err := x.o.api.ModifyDBInstance(ctx, in)
		if shared.Code(err, "InvalidDBInstanceState") {
			return false, "not in a state to be changed", nil
		}
		return true, "", err
	})
	if err != nil {
		return fmt.Errorf("setting %s of DB instance %s: %w", what, id, shared.Explain("rds:ModifyDBInstance", err))
	}
	// A change shows as pending, or as a status of its own, some moments after the answer: twice in a row nothing is.
	calm := 0
	return x.Waiter().Until(ctx, "DB instance "+id+" has the new "+what, func(ctx context.Context) (bool, string, error) {
		i, err := find(ctx, x.o.api, x.o.place, id)
		if err != nil {
			return false, "", err
		}
		status := aws.ToString(i.DBInstanceStatus)
		if shared.Broken(status) {
			return false, "", fmt.Errorf("DB instance %s became %s while it was changed: %s", id, status, shared.Remedy(status))
		}
		if !shared.Usable(status) || pending(i.PendingModifiedValues) {
			calm = 0
			return false, status, nil
		}
		calm++
		return calm > 1, status, nil
	})
}

// pending says whether changes are under way that modify may have asked for.
func pending(p *types.PendingModifiedValues) bool {
	return p != nil && (p.MasterUserPassword != nil || p.BackupRetentionPeriod != nil || p.CACertificateIdentifier != nil || p.IAMDatabaseAuthenticationEnabled != nil || p.MultiAZ != nil || p.PendingCloudwatchLogsExports != nil)
}
