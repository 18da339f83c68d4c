package rdsserver

import (
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"
	"github.com/aws/smithy-go"
)

// retainedCluster is the automated backup of a cluster that was deleted.
type retainedCluster struct {
	key              key
	d                types.DBCluster
	image            image
	created          time.Time
	earliest, latest time.Time
}

// retainCluster keeps a cluster's automated backup when the cluster goes.
func (r *request) retainCluster(c *cluster) error {
	from, _, err := c.data.cut(r.ctx)
	if err != nil {
		return err
	}
	k := c.key
	k.id = *c.d.DbClusterResourceId
	// Up to its end: what is in the volume then is in the backup.
	r.clusterKept[k] = &retainedCluster{key: k, d: c.d, image: from, created: c.created, earliest: c.earliest, latest: r.now.Truncate(time.Second)}
	return nil
}

func (r *request) describeClusterBackup(d types.DBCluster, status string, created, earliest, latest time.Time) (types.DBClusterAutomatedBackup, error) {
	subnets, err := r.subnetGroup(d.DBSubnetGroup)
	if err != nil {
		return types.DBClusterAutomatedBackup{}, err
	}
	encryption := types.StorageEncryptionTypeUnencrypted
	if d.KmsKeyId != nil {
		encryption = types.StorageEncryptionTypeCmk
	}
	// Iops, StorageThroughput and StorageType are of Multi-AZ DB clusters. Parameter groups and deletion protection are in none.
	return types.DBClusterAutomatedBackup{
		DBClusterArn: d.DBClusterArn, DBClusterIdentifier: d.DBClusterIdentifier, DbClusterResourceId: d.DbClusterResourceId, Region: &r.region, Status: &status,
		DBClusterAutomatedBackupsArn: r.arn("cluster-auto-backup", "ab-"+strings.ToLower(strings.TrimPrefix(*d.DbClusterResourceId, "cluster-"))),
		AllocatedStorage:             d.AllocatedStorage, AvailabilityZones: d.AvailabilityZones, BackupRetentionPeriod: d.BackupRetentionPeriod,
		PreferredBackupWindow: d.PreferredBackupWindow, ClusterCreateTime: r.stamp(created), Engine: d.Engine, EngineMode: d.EngineMode,
		EngineVersion: d.EngineVersion, IAMDatabaseAuthenticationEnabled: d.IAMDatabaseAuthenticationEnabled, KmsKeyId: d.KmsKeyId,
		StorageEncrypted: d.StorageEncrypted, StorageEncryptionType: encryption, MasterUsername: d.MasterUsername, Port: new(defaultPort(*d.Engine)),
		VpcId: subnets.VpcId, TagList: d.TagList, RestoreWindow: &types.RestoreWindow{EarliestTime: r.stamp(earliest), LatestTime: r.stamp(latest)},
	}, nil
}

func (r *request) describeClusterBackups(in *rds.DescribeDBClusterAutomatedBackupsInput) (smithy.Serializable, error) {
	filters, err := filtersOf(in.Filters, "status", "db-cluster-id", "db-cluster-resource-id")
	if err != nil {
		return nil, err
	}
	for _, s := range filters["status"] {
		if s != "retained" {
			return nil, invalidValue("Unrecognized value of the filter status: %s. Valid values: retained", s)
		}
	}
	var all []types.DBClusterAutomatedBackup
	add := func(c types.DBCluster, status string, created, earliest, latest time.Time) error {
		match := func(want, have *string) bool { return want == nil || strings.EqualFold(*want, *have) }
		// A name is that of an existing cluster.
		if !match(in.DbClusterResourceId, c.DbClusterResourceId) || !match(in.DBClusterIdentifier, c.DBClusterIdentifier) ||
			(in.DBClusterIdentifier != nil && status == "retained") ||
			!filters.let(map[string][]string{"status": {status}, "db-cluster-id": {*c.DBClusterIdentifier, *c.DBClusterArn},
				"db-cluster-resource-id": {*c.DbClusterResourceId, *c.DBClusterArn}}) {
			return nil
		}
		b, err := r.describeClusterBackup(c, status, created, earliest, latest)
		all = append(all, b)
		return err
	}
	for k, c := range r.clusters {
		if k.account != r.account || k.region != r.region {
			continue
		}
		s, _ := r.status(&c.life, r.now)
		if s == deleting {
			continue
		}
		status := "active"
		if c.earliest.IsZero() {
			status = creating
		}
		if err := add(c.d, status, c.created, c.earliest, r.latest(c.earliest, r.now)); err != nil {
			return nil, err
		}
	}
	for k, b := range r.clusterKept {
		if k.account != r.account || k.region != r.region {
			continue
		}
		if err := add(b.d, "retained", b.created, b.earliest, b.latest); err != nil {
			return nil, err
		}
	}
	if all == nil && (in.DbClusterResourceId != nil || in.DBClusterIdentifier != nil) {
		return nil, fault(&types.DBClusterAutomatedBackupNotFoundFault{}, "No automated backup for this DB cluster was found: %s",
			deref(or(in.DbClusterResourceId, in.DBClusterIdentifier)))
	}
	slices.SortFunc(all, func(a, b types.DBClusterAutomatedBackup) int {
		return strings.Compare(*a.DbClusterResourceId, *b.DbClusterResourceId)
	})
	all, marker, err := page(r, all, in.MaxRecords, in.Marker)
	return &rds.DescribeDBClusterAutomatedBackupsOutput{DBClusterAutomatedBackups: all, Marker: marker}, err
}
