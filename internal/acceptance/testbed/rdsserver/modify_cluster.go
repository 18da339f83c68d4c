package rdsserver

import (
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"
	"github.com/aws/smithy-go"
)

func (r *request) modifyCluster(in *rds.ModifyDBClusterInput) (smithy.Serializable, error) {
	c, err := r.cluster(*in.DBClusterIdentifier)
	if err != nil {
		return nil, err
	}
	if status, _ := r.status(&c.life, r.now); status != available {
		return nil, fault(&types.InvalidDBClusterStateFault{}, "DB cluster is not in available state.")
	}
	var unused struct{}
	if err := take(&unused, in, "DBClusterIdentifier", "ApplyImmediately", "DeletionProtection", "CopyTagsToSnapshot", "BackupRetentionPeriod",
		"PreferredBackupWindow", "MasterUserPassword",
		"ManageMasterUserPassword", "MasterUserSecretKmsKeyId", "VpcSecurityGroupIds", "DBClusterParameterGroupName", "EnableIAMDatabaseAuthentication",
		"PreferredMaintenanceWindow",
		"ServerlessV2ScalingConfiguration", "CloudwatchLogsExportConfiguration"); err != nil {
		return nil, err
	}
	if err := checkPassword(in.MasterUserPassword); err != nil {
		return nil, err
	}
	if b := in.BackupRetentionPeriod; b != nil && (*b < 1 || *b > 35) {
		return nil, invalidValue("Invalid backup retention period: %d. Must be between 1 and 35", *b)
	}
	next := c.d
	if in.VpcSecurityGroupIds != nil {
		subnets, err := r.subnetGroup(c.d.DBSubnetGroup)
		if err != nil {
			return nil, err
		}
		if next.VpcSecurityGroups, err = r.securityGroups(in.VpcSecurityGroupIds, *subnets.VpcId); err != nil {
			return nil, err
		}
	}
	if in.DBClusterParameterGroupName != nil {
		g, err := r.clusterParameterGroup(in.DBClusterParameterGroupName, *c.d.Engine, *c.d.EngineVersion)
		if err != nil {
			return nil, err
		}
		next.DBClusterParameterGroup = &g
	}
	password := in.MasterUserPassword
	switch managed := in.ManageMasterUserPassword; {
	case deref(managed) && password != nil:
		return nil, invalidCombination("You can't specify MasterUserPassword when ManageMasterUserPassword is on")
	case password != nil && c.d.MasterUserSecret != nil && (managed == nil || *managed):
		return nil, invalidCombination("You can't specify MasterUserPassword for a cluster whose master user password is managed")
	case deref(managed) && c.d.MasterUserSecret == nil:
		if next.MasterUserSecret, err = r.newSecret(in.MasterUserSecretKmsKeyId); err != nil {
			return nil, err
		}
		password = new(r.secrets[*next.MasterUserSecret.SecretArn])
	case managed != nil && !*managed:
		next.MasterUserSecret = nil
	}
	if e := in.EnableIAMDatabaseAuthentication; e != nil && deref(in.ApplyImmediately) {
		next.IAMDatabaseAuthenticationEnabled = e
	}
	next.DeletionProtection, next.CopyTagsToSnapshot = or(in.DeletionProtection, next.DeletionProtection), or(in.CopyTagsToSnapshot, next.CopyTagsToSnapshot)
	next.BackupRetentionPeriod, next.PreferredBackupWindow = or(in.BackupRetentionPeriod, next.BackupRetentionPeriod), or(in.PreferredBackupWindow,
		next.PreferredBackupWindow)
	next.PreferredMaintenanceWindow = or(in.PreferredMaintenanceWindow, next.PreferredMaintenanceWindow)
	if s := in.ServerlessV2ScalingConfiguration; s != nil {
		next.ServerlessV2ScalingConfiguration = &types.ServerlessV2ScalingConfigurationInfo{MinCapacity: s.MinCapacity, MaxCapacity: s.MaxCapacity,
			SecondsUntilAutoPause: s.SecondsUntilAutoPause}
	}
	if x := in.CloudwatchLogsExportConfiguration; x != nil {
		next.EnabledCloudwatchLogsExports = slices.DeleteFunc(append(slices.Clone(next.EnabledCloudwatchLogsExports), x.EnableLogTypes...), func(t string) bool {
			return slices.Contains(x.DisableLogTypes, t)
		})
	}
	status := modifying
	var apply *work
	if password != nil {
		status = "resetting-master-credentials"
		user, set := *c.d.MasterUsername, func(d database) error { return d.password(r.ctx, *c.d.MasterUsername, *password) }
		if c.data.running() {
			apply = r.do(func() error { return c.data.password(r.ctx, user, *password) })
		} else if before := c.first; before != nil { // it takes effect when it starts
			c.first = func(d database) error {
				if err := before(d); err != nil {
					return err
				}
				return set(d)
			}
		} else {
			c.first = set
		}
	}
	c.life.add(r.now, step{status: status, last: r.real(r.options.Modifying), work: apply, then: func(time.Time) {
		next.TagList = c.d.TagList // tags may have changed meanwhile
		c.d = next
	}})
	return &rds.ModifyDBClusterOutput{DBCluster: new(r.describeCluster(c))}, nil
}
