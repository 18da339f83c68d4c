package rdsserver

import (
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"
	"github.com/aws/smithy-go"
)

// retained is the automated backup of an instance that was deleted.
type retained struct {
	key              key
	d                types.DBInstance
	image            image
	created          time.Time
	earliest, latest time.Time
}

// retain keeps an instance's automated backup when the instance goes.
func (r *request) retain(i *instance) error {
	from, _, err := i.data.cut(r.ctx)
	if err != nil {
		return err
	}
	k := i.key
	k.id = *i.d.DbiResourceId
	// Up to its end: the last logs are uploaded when it is deleted.
	r.backups[k] = &retained{key: k, d: i.d, image: from, created: i.created, earliest: i.earliest, latest: r.now.Truncate(time.Second)}
	return nil
}

func (r *request) backupARN(d types.DBInstance) string {
	return *r.arn("auto-backup", "ab-"+strings.ToLower(strings.TrimPrefix(*d.DbiResourceId, "db-")))
}

func (r *request) describeBackup(d types.DBInstance, status string, created, earliest, latest time.Time) types.DBInstanceAutomatedBackup {
	b := types.DBInstanceAutomatedBackup{
		DBInstanceArn: d.DBInstanceArn, DBInstanceAutomatedBackupsArn: new(r.backupARN(d)), DBInstanceIdentifier: d.DBInstanceIdentifier,
		DbiResourceId: d.DbiResourceId, Region: &r.region,
		Status: &status, AllocatedStorage: d.AllocatedStorage, AvailabilityZone: d.AvailabilityZone, BackupRetentionPeriod: d.BackupRetentionPeriod,
		BackupTarget: d.BackupTarget,
		Encrypted:    d.StorageEncrypted, KmsKeyId: d.KmsKeyId, Engine: d.Engine, EngineVersion: d.EngineVersion,
		IAMDatabaseAuthenticationEnabled: d.IAMDatabaseAuthenticationEnabled,
		InstanceCreateTime:               r.stamp(created), Iops: d.Iops, LicenseModel: d.LicenseModel, MasterUsername: d.MasterUsername,
		Port: new(defaultPort(*d.Engine)), StorageType: d.StorageType,
		StorageThroughput: d.StorageThroughput, VpcId: d.DBSubnetGroup.VpcId, TagList: d.TagList,
		RestoreWindow: &types.RestoreWindow{EarliestTime: r.stamp(earliest), LatestTime: r.stamp(latest)}}
	if status != "retained" { // parameter and option groups are not kept
		b.OptionGroupName = d.OptionGroupMemberships[0].OptionGroupName
	}
	return b
}

func (r *request) describeBackups(in *rds.DescribeDBInstanceAutomatedBackupsInput) (smithy.Serializable, error) {
	filters, err := filtersOf(in.Filters, "status", "db-instance-id", "dbi-resource-id")
	if err != nil {
		return nil, err
	}
	var all []types.DBInstanceAutomatedBackup
	add := func(b types.DBInstanceAutomatedBackup) {
		match := func(want, have *string) bool { return want == nil || strings.EqualFold(*want, *have) }
		if match(in.DBInstanceAutomatedBackupsArn, b.DBInstanceAutomatedBackupsArn) && match(in.DBInstanceIdentifier, b.DBInstanceIdentifier) &&
			match(in.DbiResourceId, b.DbiResourceId) &&
			filters.let(map[string][]string{"status": {*b.Status}, "db-instance-id": {*b.DBInstanceIdentifier, *b.DBInstanceArn},
				"dbi-resource-id": {*b.DbiResourceId}}) {
			all = append(all, b)
		}
	}
	for k, i := range r.instances {
		if k.account != r.account || k.region != r.region || i.cluster != nil || *i.d.BackupRetentionPeriod == 0 {
			continue
		}
		if s, _ := r.status(&i.life, r.now); s == deleting {
			continue
		}
		status := "active"
		if i.earliest.IsZero() {
			status = creating
		}
		add(r.describeBackup(i.d, status, i.created, i.earliest, r.latest(i.earliest, r.now)))
	}
	for k, b := range r.backups {
		if k.account == r.account && k.region == r.region {
			add(r.describeBackup(b.d, "retained", b.created, b.earliest, b.latest))
		}
	}
	if all == nil && (in.DbiResourceId != nil || in.DBInstanceAutomatedBackupsArn != nil) {
		return nil, fault(&types.DBInstanceAutomatedBackupNotFoundFault{}, "No automated backup for this DB instance was found: %s",
			deref(or(in.DbiResourceId, in.DBInstanceAutomatedBackupsArn)))
	}
	slices.SortFunc(all, func(a, b types.DBInstanceAutomatedBackup) int {
		return strings.Compare(*a.DbiResourceId, *b.DbiResourceId)
	})
	all, marker, err := page(r, all, in.MaxRecords, in.Marker)
	return &rds.DescribeDBInstanceAutomatedBackupsOutput{DBInstanceAutomatedBackups: all, Marker: marker}, err
}
