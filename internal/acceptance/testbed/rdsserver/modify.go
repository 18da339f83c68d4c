package rdsserver

import (
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"
	"github.com/aws/smithy-go"
)

func checkPassword(p *string) error {
	if p != nil && (len(*p) < 8 || len(*p) > 128 || strings.ContainsAny(*p, `/"@`)) {
		return invalidValue(`The parameter MasterUserPassword is not a valid password. Only printable ASCII characters besides '/', '@', '"' may be used, 8 to 128 of them.`)
	}
	return nil
}

func (r *request) modifyInstance(in *rds.ModifyDBInstanceInput) (smithy.Serializable, error) {
	i, err := r.instance(*in.DBInstanceIdentifier)
	if err != nil {
		return nil, err
	}
	if status, _ := r.status(&i.life, r.now); status != available && status != optimizes {
		return nil, fault(&types.InvalidDBInstanceStateFault{}, "Database instance is not in available state.")
	}
	var now struct { // at once, whatever ApplyImmediately says
		DeletionProtection, CopyTagsToSnapshot, AutoMinorVersionUpgrade, PubliclyAccessible *bool
		PreferredBackupWindow, PreferredMaintenanceWindow                                   *string
		MaxAllocatedStorage                                                                 *int32
	}
	// These wait for the maintenance window without ApplyImmediately.
	later := []string{"AllocatedStorage", "CACertificateIdentifier", "DBInstanceClass", "MultiAZ", "EnableIAMDatabaseAuthentication", "StorageType", "Iops",
		"StorageThroughput",
		"BackupRetentionPeriod"}
	others := []string{"DBInstanceIdentifier", "ApplyImmediately", "MasterUserPassword", "ManageMasterUserPassword", "RotateMasterUserPassword",
		"MasterUserSecretKmsKeyId",
		"VpcSecurityGroupIds", "DBParameterGroupName", "OptionGroupName", "CertificateRotationRestart", "CloudwatchLogsExportConfiguration",
		"EnablePerformanceInsights", "MonitoringInterval", "MonitoringRoleArn"}
	if err := take(&now, in, append(later, others...)...); err != nil {
		return nil, err
	}
	if i.cluster != nil && (in.MasterUserPassword != nil || in.ManageMasterUserPassword != nil || in.BackupRetentionPeriod != nil ||
		in.AllocatedStorage != nil || in.DeletionProtection != nil) {
		return nil, invalidCombination("The requested DB Instance will be a member of a DB Cluster. Set this for the DB Cluster.")
	}
	if err := checkPassword(in.MasterUserPassword); err != nil {
		return nil, err
	}
	next, status := i.d, modifying
	if in.VpcSecurityGroupIds != nil {
		if next.VpcSecurityGroups, err = r.securityGroups(in.VpcSecurityGroupIds, *i.d.DBSubnetGroup.VpcId); err != nil {
			return nil, err
		}
	}
	if in.DBParameterGroupName != nil {
		g, err := r.parameterGroup(in.DBParameterGroupName, *i.d.Engine, *i.d.EngineVersion)
		if err != nil {
			return nil, err
		}
		next.DBParameterGroups = []types.DBParameterGroupStatus{{DBParameterGroupName: &g, ParameterApplyStatus: new("pending-reboot")}}
	}
	if in.OptionGroupName != nil {
		g, err := r.optionGroup(in.OptionGroupName, *i.d.Engine, *i.d.EngineVersion)
		if err != nil {
			return nil, err
		}
		next.OptionGroupMemberships = []types.OptionGroupMembership{{OptionGroupName: &g, Status: new("in-sync")}}
	}
	if in.DBInstanceClass != nil {
		if err := checkClass(in.DBInstanceClass); err != nil {
			return nil, err
		}
	}
	if a := in.AllocatedStorage; a != nil && *a < *i.d.AllocatedStorage {
		return nil, invalidCombination("Invalid storage size: storage can not be reduced, from %d to %d", *i.d.AllocatedStorage, *a)
	}
	if b := in.BackupRetentionPeriod; b != nil && (*b < 0 || *b > 35) {
		return nil, invalidValue("Invalid backup retention period: %d. Must be between 0 and 35", *b)
	}
	password := in.MasterUserPassword
	switch managed := in.ManageMasterUserPassword; {
	case deref(managed) && password != nil, deref(in.RotateMasterUserPassword) && password != nil:
		return nil, invalidCombination("You can't specify MasterUserPassword when the master user password is managed")
	case managed != nil && !*managed && password == nil:
		return nil, invalidCombination("You must specify MasterUserPassword when you turn ManageMasterUserPassword off")
	case password != nil && i.d.MasterUserSecret != nil && (managed == nil || *managed):
		return nil, invalidCombination("You can't specify MasterUserPassword for an instance whose master user password is managed")
	case deref(managed) && i.d.MasterUserSecret == nil:
		if next.MasterUserSecret, err = r.newSecret(in.MasterUserSecretKmsKeyId); err != nil {
			return nil, err
		}
		password = new(r.secrets[*next.MasterUserSecret.SecretArn])
	case managed != nil && !*managed:
		next.MasterUserSecret = nil
	}
	next.DeletionProtection, next.CopyTagsToSnapshot = or(now.DeletionProtection, next.DeletionProtection), or(now.CopyTagsToSnapshot, next.CopyTagsToSnapshot)
	next.AutoMinorVersionUpgrade, next.PubliclyAccessible = or(now.AutoMinorVersionUpgrade, next.AutoMinorVersionUpgrade), or(now.PubliclyAccessible,
		next.PubliclyAccessible)
	next.PreferredBackupWindow, next.PreferredMaintenanceWindow = or(now.PreferredBackupWindow, next.PreferredBackupWindow),
		or(now.PreferredMaintenanceWindow, next.PreferredMaintenanceWindow)
	next.MaxAllocatedStorage = or(now.MaxAllocatedStorage, next.MaxAllocatedStorage)
	next.MonitoringInterval, next.MonitoringRoleArn = or(in.MonitoringInterval, next.MonitoringInterval), or(in.MonitoringRoleArn, next.MonitoringRoleArn)
	next.PerformanceInsightsEnabled = or(in.EnablePerformanceInsights, next.PerformanceInsightsEnabled)
	if c := in.CloudwatchLogsExportConfiguration; c != nil {
		next.EnabledCloudwatchLogsExports = slices.DeleteFunc(append(slices.Clone(next.EnabledCloudwatchLogsExports), c.EnableLogTypes...), func(t string) bool {
			return slices.Contains(c.DisableLogTypes, t)
		})
	}
	// One non-zero retention to another is applied as soon as possible.
	soon := in.BackupRetentionPeriod != nil && *in.BackupRetentionPeriod > 0 && *i.d.BackupRetentionPeriod > 0
	if soon {
		next.BackupRetentionPeriod = in.BackupRetentionPeriod
	}
	p := types.PendingModifiedValues{AllocatedStorage: in.AllocatedStorage, CACertificateIdentifier: in.CACertificateIdentifier,
		DBInstanceClass: in.DBInstanceClass, MultiAZ: in.MultiAZ,
		IAMDatabaseAuthenticationEnabled: in.EnableIAMDatabaseAuthentication, StorageType: in.StorageType, Iops: in.Iops, StorageThroughput: in.StorageThroughput}
	if !soon {
		p.BackupRetentionPeriod = in.BackupRetentionPeriod
	}
	immediate := p
	if !deref(in.ApplyImmediately) {
		immediate = types.PendingModifiedValues{}
	} else {
		p = types.PendingModifiedValues{}
		next.AllocatedStorage, next.CACertificateIdentifier = or(immediate.AllocatedStorage, next.AllocatedStorage), or(immediate.CACertificateIdentifier,
			next.CACertificateIdentifier)
		next.DBInstanceClass, next.MultiAZ = or(immediate.DBInstanceClass, next.DBInstanceClass), or(immediate.MultiAZ, next.MultiAZ)
		next.IAMDatabaseAuthenticationEnabled = or(immediate.IAMDatabaseAuthenticationEnabled, next.IAMDatabaseAuthenticationEnabled)
		next.StorageType, next.Iops = or(immediate.StorageType, next.StorageType), or(immediate.Iops, next.Iops)
		next.StorageThroughput, next.BackupRetentionPeriod = or(immediate.StorageThroughput, next.StorageThroughput), or(immediate.BackupRetentionPeriod,
			next.BackupRetentionPeriod)
	}
	// Until they are applied they are pending; the password's value is never shown.
	shown := immediate
	if password != nil {
		status = "resetting-master-credentials"
		shown.MasterUserPassword = new("****")
	}
	if i.pending = pendingOrNil(shown); i.pending == nil {
		i.pending = pendingOrNil(p)
	}
	var apply *work
	if password != nil {
		user := *i.d.MasterUsername
		apply = r.do(func() error { return i.data.password(r.ctx, user, *password) })
	}
	i.life.add(r.now, step{status: status, last: r.real(r.options.Modifying), work: apply, then: func(time.Time) {
		next.TagList = i.d.TagList // tags may have changed meanwhile
		i.d, i.pending = next, pendingOrNil(p)
		if *next.BackupRetentionPeriod == 0 {
			i.earliest = time.Time{}
		}
	}})
	if b := immediate.BackupRetentionPeriod; b != nil && *b > 0 {
		i.life.add(r.now, r.firstBackup(i))
	}
	return &rds.ModifyDBInstanceOutput{DBInstance: new(r.describe(i))}, nil
}

func pendingOrNil(p types.PendingModifiedValues) *types.PendingModifiedValues {
	if p.AllocatedStorage == nil && p.CACertificateIdentifier == nil && p.DBInstanceClass == nil && p.MultiAZ == nil && p.IAMDatabaseAuthenticationEnabled == nil &&
		p.StorageType == nil && p.Iops == nil && p.StorageThroughput == nil && p.BackupRetentionPeriod == nil && p.MasterUserPassword == nil {
		return nil
	}
	return &p
}
