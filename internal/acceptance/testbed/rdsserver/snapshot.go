package rdsserver

import (
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"
	"github.com/aws/smithy-go"
)

// snapshot is one manual snapshot, of an instance or of a cluster.
type snapshot struct {
	key       key
	d         types.DBSnapshot        // of an instance
	c         types.DBClusterSnapshot // of a cluster
	instance  types.DBInstance        // the source's settings
	cluster   types.DBCluster
	life      life
	image     image
	taken     time.Time // when this one was; zero: not yet
	original  time.Time // when the one was that it is a copy of, in however many steps
	lastTx    time.Time
	restorers []string // accounts that it is shared with; "all": public
}

func (x *snapshot) ofCluster() bool { return x.c.DBClusterSnapshotIdentifier != nil }

func (x *snapshot) arn() string { return deref(or(x.d.DBSnapshotArn, x.c.DBClusterSnapshotArn)) }

func (x *snapshot) kmsKey() *string { return or(x.d.KmsKeyId, x.c.KmsKeyId) }

// tags is where its tags are.
func (x *snapshot) tags() *[]types.Tag {
	if x.ofCluster() {
		return &x.c.TagList
	}
	return &x.d.TagList
}

func checkSnapshotName(parameter, id string) error {
	if strings.HasPrefix(id, "rds:") {
		return invalidValue("Invalid snapshot identifier: %s", id)
	}
	return checkName(parameter, id, 255)
}

// snapshotOf begins a snapshot of an instance.
func (r *request) snapshotOf(i *instance, id string, tags []types.Tag) (*snapshot, error) {
	if err := checkSnapshotName("DBSnapshotIdentifier", id); err != nil {
		return nil, err
	}
	if status, _ := r.status(&i.life, r.now); status != available && status != optimizes {
		return nil, fault(&types.InvalidDBInstanceStateFault{},
			"Cannot create a snapshot because the database instance %s is not currently in the available state.", i.key.id)
	}
	if i.cluster != nil {
		return nil, fault(&types.InvalidDBInstanceStateFault{}, "The instance %s is a member of a DB cluster: make a snapshot of the cluster", i.key.id)
	}
	k := r.key(id)
	if _, ok := r.snapshots[k]; ok {
		return nil, fault(&types.DBSnapshotAlreadyExistsFault{}, "Cannot create the snapshot because a snapshot with the identifier %s already exists.", id)
	}
	if err := within(r, "ManualSnapshots", r.snapshots, fault(&types.SnapshotQuotaExceededFault{}, "Cannot create more than %d manual snapshots",
		r.quotas["ManualSnapshots"])); err != nil {
		return nil, err
	}
	if err := r.usable(i.d.KmsKeyId); err != nil {
		return nil, err
	}
	if deref(i.d.CopyTagsToSnapshot) {
		tags = merge(i.d.TagList, tags)
	}
	d := i.d
	x := &snapshot{key: k, instance: d, d: types.DBSnapshot{
		DBSnapshotIdentifier: &k.id, DBSnapshotArn: r.arn("snapshot", k.id), DBInstanceIdentifier: d.DBInstanceIdentifier, DbiResourceId: d.DbiResourceId,
		SnapshotType:     new("manual"),
		AllocatedStorage: d.AllocatedStorage, AvailabilityZone: d.AvailabilityZone, Encrypted: d.StorageEncrypted, KmsKeyId: d.KmsKeyId, Engine: d.Engine,
		EngineVersion:                    d.EngineVersion,
		IAMDatabaseAuthenticationEnabled: d.IAMDatabaseAuthenticationEnabled, InstanceCreateTime: r.stamp(i.created), Iops: d.Iops,
		LicenseModel: d.LicenseModel, MasterUsername: d.MasterUsername,
		OptionGroupName: d.OptionGroupMemberships[0].OptionGroupName, Port: new(defaultPort(*d.Engine)), StorageType: d.StorageType,
		StorageThroughput: d.StorageThroughput,
		VpcId:             d.DBSubnetGroup.VpcId, TagList: tags, SnapshotTarget: new("region"), DedicatedLogVolume: d.DedicatedLogVolume}}
	if err := r.takeSnapshot(x, i.data); err != nil {
		return nil, err
	}
	i.life.add(r.now, step{status: backingUp, last: r.real(r.options.Snapshotting)})
	r.snapshots[k] = x
	return x, nil
}

// takeSnapshot fixes what a snapshot holds: now, or later, as Options have it.
func (r *request) takeSnapshot(x *snapshot, data database) error {
	delay := r.options.SnapshotDelay
	if delay == 0 {
		var err error
		if x.image, x.lastTx, err = data.cut(r.ctx); err != nil {
			return err
		}
		x.taken, x.original = r.now, r.now
		x.life.end(r.now, available, step{status: creating, last: r.real(r.options.Snapshotting)})
		return nil
	}
	x.life.end(r.now, available, step{status: creating, last: r.real(r.options.Snapshotting), work: r.do(func() error {
		wait(r.ctx, delay)
		from, last, err := data.cut(r.ctx)
		if r.ctx.Err() != nil {
			return nil
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		x.image, x.lastTx, x.taken = from, last, r.options.Now()
		x.original = x.taken
		return err
	})})
	return nil
}

// merge adds tags to others; of two with one key the later counts.
func merge(tags, more []types.Tag) []types.Tag {
	all := slices.Clone(tags)
	for _, t := range more {
		all = slices.DeleteFunc(all, func(o types.Tag) bool { return *o.Key == *t.Key })
		all = append(all, t)
	}
	return all
}

func (r *request) createSnapshot(in *rds.CreateDBSnapshotInput) (smithy.Serializable, error) {
	i, err := r.instance(*in.DBInstanceIdentifier)
	if err != nil {
		return nil, err
	}
	x, err := r.snapshotOf(i, *in.DBSnapshotIdentifier, in.Tags)
	if err != nil {
		return nil, err
	}
	return &rds.CreateDBSnapshotOutput{DBSnapshot: new(r.describeSnapshot(x))}, nil
}

func (r *request) describeSnapshot(x *snapshot) types.DBSnapshot {
	d := x.d
	status, percent := r.status(&x.life, r.now)
	d.Status, d.PercentProgress = &status, new(int32(percent)) //nolint:gosec // up to 100
	if status == available {
		d.SnapshotCreateTime, d.OriginalSnapshotCreateTime, d.SnapshotDatabaseTime = r.stamp(x.taken), r.stamp(x.original), r.stamp(x.lastTx)
	}
	return d
}

func (r *request) describeClusterSnapshot(x *snapshot) types.DBClusterSnapshot {
	c := x.c
	status, percent := r.status(&x.life, r.now)
	c.Status, c.PercentProgress = &status, new(int32(percent)) //nolint:gosec // up to 100
	if status == available {
		c.SnapshotCreateTime = r.stamp(x.taken)
	}
	return c
}

// find finds a snapshot by its name, or, of any account that shares it with this one and of any region, by its ARN.
func (r *request) find(all map[key]*snapshot, kind, id string) *snapshot {
	if x, ok := all[r.key(id)]; ok {
		return x
	}
	parts := strings.SplitN(id, ":", 7)
	if len(parts) != 7 || parts[0] != "arn" || parts[5] != kind {
		return nil
	}
	x := all[key{account: parts[4], region: parts[3], id: strings.ToLower(parts[6])}]
	if x == nil || (parts[4] != r.account && !slices.Contains(x.restorers, r.account) && !slices.Contains(x.restorers, "all")) {
		return nil
	}
	return x
}

func (r *request) snapshot(id string) (*snapshot, error) {
	if x := r.find(r.snapshots, "snapshot", id); x != nil {
		return x, nil
	}
	return nil, fault(&types.DBSnapshotNotFoundFault{}, "DBSnapshot not found: %s", id)
}

func (r *request) clusterSnapshot(id string) (*snapshot, error) {
	if x := r.find(r.clusterSnap, "cluster-snapshot", id); x != nil {
		return x, nil
	}
	return nil, fault(&types.DBClusterSnapshotNotFoundFault{}, "DBClusterSnapshot not found: %s", id)
}

// own is a snapshot that this account has in this region.
func (r *request) own(x *snapshot, err error, notFound func() error) (*snapshot, error) {
	if err == nil && (x.key.account != r.account || x.key.region != r.region) {
		return nil, notFound()
	}
	return x, err
}

// listed says whether a snapshot is in the list that is asked for.
func (r *request) listed(x *snapshot, kind *string, shared, public *bool) (bool, error) {
	mine := x.key.account == r.account
	theirs := !mine && slices.Contains(x.restorers, r.account)
	all := !mine && slices.Contains(x.restorers, "all")
	if x.key.region != r.region {
		return false, nil
	}
	switch deref(kind) {
	case "":
		return mine || (theirs && deref(shared)) || (all && deref(public)), nil
	case "manual":
		return mine, nil
	case "shared":
		return theirs, nil
	case "public":
		return all, nil
	case "automated", "awsbackup":
		return false, nil // this server lists none
	}
	return false, invalidValue("Invalid snapshot type: %s", *kind)
}

func (r *request) describeSnapshots(in *rds.DescribeDBSnapshotsInput) (smithy.Serializable, error) {
	filters, err := filtersOf(in.Filters, "db-instance-id", "db-snapshot-id", "dbi-resource-id", "snapshot-type", "engine")
	if err != nil {
		return nil, err
	}
	var all []types.DBSnapshot
	if in.DBSnapshotIdentifier != nil {
		x, err := r.snapshot(*in.DBSnapshotIdentifier)
		if err != nil {
			return nil, err
		}
		return &rds.DescribeDBSnapshotsOutput{DBSnapshots: append(all, r.describeSnapshot(x))}, nil
	}
	for _, x := range r.snapshots {
		ok, err := r.listed(x, in.SnapshotType, in.IncludeShared, in.IncludePublic)
		if err != nil {
			return nil, err
		}
		if ok && (in.DBInstanceIdentifier == nil || strings.EqualFold(*in.DBInstanceIdentifier, *x.d.DBInstanceIdentifier)) && (in.DbiResourceId == nil ||
			*in.DbiResourceId == *x.d.DbiResourceId) &&
			filters.let(map[string][]string{"db-instance-id": {*x.d.DBInstanceIdentifier}, "db-snapshot-id": {x.key.id, x.arn()},
				"dbi-resource-id": {*x.d.DbiResourceId},
				"snapshot-type":   {"manual"}, "engine": {*x.d.Engine}}) {
			all = append(all, r.describeSnapshot(x))
		}
	}
	slices.SortFunc(all, func(a, b types.DBSnapshot) int { return strings.Compare(*a.DBSnapshotArn, *b.DBSnapshotArn) })
	all, marker, err := page(r, all, in.MaxRecords, in.Marker)
	return &rds.DescribeDBSnapshotsOutput{DBSnapshots: all, Marker: marker}, err
}

func (r *request) describeClusterSnapshots(in *rds.DescribeDBClusterSnapshotsInput) (smithy.Serializable, error) {
	filters, err := filtersOf(in.Filters, "db-cluster-id", "db-cluster-snapshot-id", "snapshot-type", "engine")
	if err != nil {
		return nil, err
	}
	var all []types.DBClusterSnapshot
	if in.DBClusterSnapshotIdentifier != nil {
		x, err := r.clusterSnapshot(*in.DBClusterSnapshotIdentifier)
		if err != nil {
			return nil, err
		}
		return &rds.DescribeDBClusterSnapshotsOutput{DBClusterSnapshots: append(all, r.describeClusterSnapshot(x))}, nil
	}
	for _, x := range r.clusterSnap {
		ok, err := r.listed(x, in.SnapshotType, in.IncludeShared, in.IncludePublic)
		if err != nil {
			return nil, err
		}
		if ok && (in.DBClusterIdentifier == nil || strings.EqualFold(*in.DBClusterIdentifier, *x.c.DBClusterIdentifier)) && (in.DbClusterResourceId == nil ||
			*in.DbClusterResourceId == *x.c.DbClusterResourceId) &&
			filters.let(map[string][]string{"db-cluster-id": {*x.c.DBClusterIdentifier}, "db-cluster-snapshot-id": {x.key.id, x.arn()},
				"snapshot-type": {"manual"}, "engine": {*x.c.Engine}}) {
			all = append(all, r.describeClusterSnapshot(x))
		}
	}
	slices.SortFunc(all, func(a, b types.DBClusterSnapshot) int {
		return strings.Compare(*a.DBClusterSnapshotArn, *b.DBClusterSnapshotArn)
	})
	all, marker, err := page(r, all, in.MaxRecords, in.Marker)
	return &rds.DescribeDBClusterSnapshotsOutput{DBClusterSnapshots: all, Marker: marker}, err
}

func (r *request) deleteSnapshot(in *rds.DeleteDBSnapshotInput) (smithy.Serializable, error) {
	missing := func() error {
		return fault(&types.DBSnapshotNotFoundFault{}, "DBSnapshot not found: %s", *in.DBSnapshotIdentifier)
	}
	x, err := r.snapshot(*in.DBSnapshotIdentifier)
	if x, err = r.own(x, err, missing); err != nil {
		return nil, err
	}
	if status, _ := r.status(&x.life, r.now); status != available && status != "failed" {
		return nil, fault(&types.InvalidDBSnapshotStateFault{}, "Cannot delete the snapshot because it is not currently in the available or failed state.")
	}
	delete(r.snapshots, x.key)
	d := r.describeSnapshot(x)
	d.Status = new("deleted")
	return &rds.DeleteDBSnapshotOutput{DBSnapshot: &d}, nil
}

func (r *request) deleteClusterSnapshot(in *rds.DeleteDBClusterSnapshotInput) (smithy.Serializable, error) {
	missing := func() error {
		return fault(&types.DBClusterSnapshotNotFoundFault{}, "DBClusterSnapshot not found: %s", *in.DBClusterSnapshotIdentifier)
	}
	x, err := r.clusterSnapshot(*in.DBClusterSnapshotIdentifier)
	if x, err = r.own(x, err, missing); err != nil {
		return nil, err
	}
	if status, _ := r.status(&x.life, r.now); status != available && status != "failed" {
		return nil, fault(&types.InvalidDBClusterSnapshotStateFault{}, "Cannot delete the cluster snapshot because it is not currently in the available state.")
	}
	delete(r.clusterSnap, x.key)
	c := r.describeClusterSnapshot(x)
	c.Status = new("deleted")
	return &rds.DeleteDBClusterSnapshotOutput{DBClusterSnapshot: &c}, nil
}

// clusterSnapshotOf begins a snapshot of a cluster.
func (r *request) clusterSnapshotOf(c *cluster, id string, tags []types.Tag) (*snapshot, error) {
	if err := checkSnapshotName("DBClusterSnapshotIdentifier", id); err != nil {
		return nil, err
	}
	if status, _ := r.status(&c.life, r.now); status != available {
		return nil, fault(&types.InvalidDBClusterStateFault{}, "Cannot create a snapshot because the DB cluster %s is not currently in the available state.", c.key.id)
	}
	k := r.key(id)
	if _, ok := r.clusterSnap[k]; ok {
		return nil, fault(&types.DBClusterSnapshotAlreadyExistsFault{}, "Cannot create the snapshot because a snapshot with the identifier %s already exists.", id)
	}
	if err := within(r, "ManualClusterSnapshots", r.clusterSnap, fault(&types.SnapshotQuotaExceededFault{},
		"Cannot create more than %d manual cluster snapshots", r.quotas["ManualClusterSnapshots"])); err != nil {
		return nil, err
	}
	if err := r.usable(c.d.KmsKeyId); err != nil {
		return nil, err
	}
	if deref(c.d.CopyTagsToSnapshot) {
		tags = merge(c.d.TagList, tags)
	}
	d := c.d
	subnets, err := r.subnetGroup(d.DBSubnetGroup)
	if err != nil {
		return nil, err
	}
	x := &snapshot{key: k, cluster: d, c: types.DBClusterSnapshot{
		DBClusterSnapshotIdentifier: &k.id, DBClusterSnapshotArn: r.arn("cluster-snapshot", k.id), DBClusterIdentifier: d.DBClusterIdentifier,
		DbClusterResourceId: d.DbClusterResourceId,
		SnapshotType:        new("manual"), AllocatedStorage: d.AllocatedStorage, AvailabilityZones: d.AvailabilityZones, ClusterCreateTime: r.stamp(c.created),
		Engine:     d.Engine,
		EngineMode: d.EngineMode, EngineVersion: d.EngineVersion, IAMDatabaseAuthenticationEnabled: d.IAMDatabaseAuthenticationEnabled, KmsKeyId: d.KmsKeyId,
		StorageEncrypted: d.StorageEncrypted,
		MasterUsername:   d.MasterUsername, Port: new(defaultPort(*d.Engine)), StorageType: d.StorageType, TagList: tags, VpcId: subnets.VpcId}}
	if err := r.takeSnapshot(x, c.data); err != nil {
		return nil, err
	}
	r.clusterSnap[k] = x
	return x, nil
}

func (r *request) createClusterSnapshot(in *rds.CreateDBClusterSnapshotInput) (smithy.Serializable, error) {
	c, err := r.cluster(*in.DBClusterIdentifier)
	if err != nil {
		return nil, err
	}
	x, err := r.clusterSnapshotOf(c, *in.DBClusterSnapshotIdentifier, in.Tags)
	if err != nil {
		return nil, err
	}
	return &rds.CreateDBClusterSnapshotOutput{DBClusterSnapshot: new(r.describeClusterSnapshot(x))}, nil
}
