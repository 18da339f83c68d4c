package rdsserver

import (
	"crypto/rand"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"
	"github.com/aws/smithy-go"
)

// Statuses.
const (
	available = "available"
	backingUp = "backing-up"
	creating  = "creating"
	deleting  = "deleting"
	modifying = "modifying"
	optimizes = "storage-optimization"
)

// instance is one DB instance.
type instance struct {
	key      key
	d        types.DBInstance // what does not change by itself: describe adds status, endpoint and times
	life     life
	data     database // nil: its cluster's
	cluster  *cluster
	created  time.Time
	earliest time.Time // that it can be restored to; zero: no backup yet
	pending  *types.PendingModifiedValues
}

// settings are the arguments that creating and both ways of restoring have in common, by the names of the API.
type settings struct {
	AllocatedStorage, BackupRetentionPeriod, Iops, MaxAllocatedStorage, Port, StorageThroughput                *int32
	AutoMinorVersionUpgrade, CopyTagsToSnapshot, DedicatedLogVolume, DeletionProtection                        *bool
	EnableIAMDatabaseAuthentication, ManageMasterUserPassword, MultiAZ, PubliclyAccessible                     *bool
	AvailabilityZone, CACertificateIdentifier, DBInstanceClass, DBName, DBParameterGroupName                   *string
	DBSubnetGroupName, Engine, LicenseModel, MasterUserSecretKmsKeyID, NetworkType, OptionGroupName            *string
	PreferredBackupWindow, StorageType                                                                         *string
	EnableCloudwatchLogsExports, VpcSecurityGroupIDs                                                           []string
	Tags                                                                                                       []types.Tag
	KmsKeyID, EngineVersion, MasterUsername, MasterUserPassword, PreferredMaintenanceWindow, MonitoringRoleArn *string // create only
	MonitoringInterval, PromotionTier                                                                          *int32  // create only
	EnablePerformanceInsights, StorageEncrypted                                                                *bool   // create only
}

const allInstances = "DBInstances"

// build makes an instance's settings. What in does not say is what the service takes by default, which is not what the origin has, but for a few.
func (r *request) build(id string, in *settings, origin types.DBInstance) (*instance, error) {
	if err := checkName("DBInstanceIdentifier", id, 63); err != nil {
		return nil, err
	}
	k := r.key(id)
	if _, ok := r.instances[k]; ok {
		return nil, fault(&types.DBInstanceAlreadyExistsFault{}, "DB instance already exists")
	}
	if err := within(r, allInstances, r.instances, fault(&types.InstanceQuotaExceededFault{}, "DB instance quota exceeded")); err != nil {
		return nil, err
	}
	engine, version := deref(or(in.Engine, origin.Engine)), deref(or(in.EngineVersion, origin.EngineVersion))
	if origin.Engine != nil && engine != *origin.Engine {
		return nil, invalidCombination("The engine %s is not compatible with the source's, %s", engine, *origin.Engine)
	}
	if version == "" {
		version = defaultVersion(engine)
	}
	class := or(in.DBInstanceClass, origin.DBInstanceClass)
	if err := checkClass(class); err != nil {
		return nil, err
	}
	subnets, err := r.subnetGroup(in.DBSubnetGroupName)
	if err != nil {
		return nil, err
	}
	groups, err := r.securityGroups(in.VpcSecurityGroupIDs, *subnets.VpcId)
	if err != nil {
		return nil, err
	}
	parameters, err := r.parameterGroup(in.DBParameterGroupName, engine, version)
	if err != nil {
		return nil, err
	}
	options, err := r.optionGroup(in.OptionGroupName, engine, version)
	if err != nil {
		return nil, err
	}
	if b := in.BackupRetentionPeriod; b != nil && (*b < 0 || *b > 35) {
		return nil, invalidValue("Invalid backup retention period: %d. Must be between 0 and 35", *b)
	}
	if deref(in.MultiAZ) && in.AvailabilityZone != nil {
		return nil, invalidCombination("Requesting a specific availability zone is not valid for Multi-AZ instances.")
	}
	if in.AvailabilityZone != nil && (*in.AvailabilityZone != r.region+"a" && *in.AvailabilityZone != r.region+"b") {
		return nil, invalidValue("Invalid availability zone: %s", *in.AvailabilityZone)
	}
	size, had := or(in.AllocatedStorage, origin.AllocatedStorage), deref(origin.AllocatedStorage)
	if size == nil {
		size = new(int32(20))
	}
	if *size < had {
		return nil, invalidValue("Invalid storage size: %d. A restored instance's cannot be less than the source's, %d", *size, had)
	}
	storage := new("gp3")
	if in.Iops != nil {
		storage = new("io1")
	}
	storage = or(in.StorageType, storage)
	if strings.HasPrefix(*storage, "io") && in.Iops == nil {
		return nil, invalidCombination("You must specify both the storage type and iops when specifying %s", *storage)
	}
	var key *string
	if in.KmsKeyID != nil || deref(in.StorageEncrypted) {
		if key, err = r.kmsKey(deref(or(in.KmsKeyID, new("alias/aws/rds")))); err != nil {
			return nil, err
		}
	}
	key = or(key, origin.KmsKeyId)
	retention := or(in.BackupRetentionPeriod, origin.BackupRetentionPeriod, new(int32(1)))
	i := &instance{key: k, created: r.now, d: types.DBInstance{
		DBInstanceIdentifier: &k.id, DBInstanceArn: r.arn("db", k.id), DbiResourceId: r.resourceID("db-"),
		Engine: &engine, EngineVersion: &version, DBInstanceClass: class, LicenseModel: or(in.LicenseModel, origin.LicenseModel, new("general-public-license")),
		MasterUsername: or(in.MasterUsername, origin.MasterUsername), DBName: or(in.DBName, origin.DBName),
		AllocatedStorage: size, MaxAllocatedStorage: in.MaxAllocatedStorage, StorageType: storage, Iops: in.Iops, StorageThroughput: in.StorageThroughput,
		StorageEncrypted: new(key != nil), KmsKeyId: key, DedicatedLogVolume: new(deref(in.DedicatedLogVolume)),
		DBSubnetGroup: subnets, VpcSecurityGroups: groups, PubliclyAccessible: or(in.PubliclyAccessible, new(*subnets.VpcId == DefaultVPC)),
		DBParameterGroups:      []types.DBParameterGroupStatus{{DBParameterGroupName: &parameters, ParameterApplyStatus: new("in-sync")}},
		OptionGroupMemberships: []types.OptionGroupMembership{{OptionGroupName: &options, Status: new("in-sync")}},
		MultiAZ:                new(deref(in.MultiAZ)), AvailabilityZone: or(in.AvailabilityZone, new(r.region+"a")),
		AutoMinorVersionUpgrade: or(in.AutoMinorVersionUpgrade, new(true)), CopyTagsToSnapshot: new(deref(in.CopyTagsToSnapshot)),
		DeletionProtection: new(deref(in.DeletionProtection)), IAMDatabaseAuthenticationEnabled: new(deref(in.EnableIAMDatabaseAuthentication)),
		BackupRetentionPeriod: retention, PreferredBackupWindow: or(in.PreferredBackupWindow, new("05:07-05:37")),
		PreferredMaintenanceWindow: or(in.PreferredMaintenanceWindow, new("sun:06:07-sun:06:37")),
		CACertificateIdentifier:    or(in.CACertificateIdentifier, new("rds-ca-rsa2048-g1")), NetworkType: or(in.NetworkType, new("IPV4")),
		EnabledCloudwatchLogsExports: in.EnableCloudwatchLogsExports, MonitoringInterval: or(in.MonitoringInterval, new(int32(0))),
		MonitoringRoleArn:          in.MonitoringRoleArn,
		PerformanceInsightsEnabled: new(deref(in.EnablePerformanceInsights)), DbInstancePort: or(in.Port, new(int32(0))), TagList: in.Tags,
		BackupTarget: new("region"),
	}}
	if deref(in.ManageMasterUserPassword) {
		if in.MasterUserPassword != nil {
			return nil, invalidCombination("You can't specify MasterUserPassword when ManageMasterUserPassword is on")
		}
		if i.d.MasterUserSecret, err = r.newSecret(in.MasterUserSecretKmsKeyID); err != nil {
			return nil, err
		}
	}
	return i, nil
}

// newSecret makes the secret of a managed master password.
func (r *request) newSecret(key *string) (*types.MasterUserSecret, error) {
	kms := new("arn:aws:kms:" + r.region + ":" + r.account + ":key/aws-secretsmanager-default")
	if key != nil {
		var err error
		if kms, err = r.kmsKey(*key); err != nil {
			return nil, err
		}
	}
	arn := "arn:aws:secretsmanager:" + r.region + ":" + r.account + ":secret:rds!" + strings.ToLower(rand.Text())
	r.secrets[arn] = rand.Text()
	return &types.MasterUserSecret{SecretArn: &arn, KmsKeyId: kms, SecretStatus: new("active")}, nil
}

// Secret is the password that a managed master user has, by the ARN of its secret; empty: there is no such secret.
func (s *Server) Secret(arn string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.secrets[arn]
}

// birth starts an instance's database, made from an image. first, which may be nil, is done before it is available.
func (r *request) birth(i *instance, from image, first func(database) error) error {
	data, err := r.store.open(*i.d.Engine, from)
	if err != nil {
		return err
	}
	i.data = data
	managed := ""
	if m := i.d.MasterUserSecret; m != nil {
		managed = r.secrets[*m.SecretArn]
	}
	start := r.do(func() error {
		err := data.start(r.ctx)
		if err == nil && first != nil {
			err = first(data)
		}
		if err == nil && managed != "" {
			err = data.password(r.ctx, *i.d.MasterUsername, managed)
		}
		if err != nil && r.ctx.Err() == nil {
			return fmt.Errorf("making the database of %s: %w", *i.d.DBInstanceArn, err)
		}
		return nil
	})
	i.life.end(r.now, available, step{status: creating, last: r.real(r.options.Creating), work: start})
	if *i.d.BackupRetentionPeriod > 0 {
		i.life.add(r.now, r.firstBackup(i))
	}
	r.instances[i.key] = i
	return nil
}

// firstBackup is what a restore needs: it can go back to the second after it.
func (r *request) firstBackup(i *instance) step {
	return step{status: backingUp, last: r.real(r.options.BackingUp), then: func(at time.Time) { i.earliest = wholeSecond(at) }}
}

func (r *request) createInstance(in *rds.CreateDBInstanceInput) (smithy.Serializable, error) {
	var set settings
	if err := take(&set, in, "DBInstanceIdentifier", "DBClusterIdentifier"); err != nil {
		return nil, err
	}
	if in.DBClusterIdentifier != nil {
		return r.createMember(in, &set)
	}
	if family(*in.Engine) == "" || strings.HasPrefix(*in.Engine, "aurora") {
		return nil, invalidValue("Invalid DB engine: %s. An Aurora instance needs a DBClusterIdentifier, and of others there is no real database", *in.Engine)
	}
	if in.MasterUsername == nil || in.AllocatedStorage == nil || (in.MasterUserPassword == nil && !deref(in.ManageMasterUserPassword)) {
		return nil, errorf("MissingParameter", 400,
			"The request must contain MasterUsername, AllocatedStorage, and MasterUserPassword unless ManageMasterUserPassword is on")
	}
	if err := checkPassword(in.MasterUserPassword); err != nil {
		return nil, err
	}
	i, err := r.build(*in.DBInstanceIdentifier, &set, types.DBInstance{})
	if err != nil {
		return nil, err
	}
	err = r.birth(i, image{}, r.firstUser(in.MasterUsername, in.MasterUserPassword, in.DBName))
	return &rds.CreateDBInstanceOutput{DBInstance: new(r.describe(i))}, err
}

// firstUser makes the master user, and the database if there is to be one, in a new server.
func (s *Server) firstUser(user, password, name *string) func(database) error {
	return func(d database) error {
		err := d.password(s.ctx, *user, deref(or(password, new(rand.Text()))))
		if err == nil && name != nil {
			err = d.create(s.ctx, *name, *user)
		}
		return err
	}
}

// describe is what the API tells about an instance.
func (r *request) describe(i *instance) types.DBInstance {
	d := i.d
	status, _ := r.status(&i.life, r.now)
	d.DBInstanceStatus, d.PendingModifiedValues = &status, i.pending
	d.InstanceCreateTime = r.stamp(i.created)
	if status == creating {
		d.InstanceCreateTime = nil
		return d
	}
	data := i.data
	if i.cluster != nil {
		data = i.cluster.data
	}
	d.Endpoint = &types.Endpoint{Address: new("127.0.0.1"), Port: new(int32(data.port())), HostedZoneId: new("Z2R2ITUGPM61AM")} //nolint:gosec // a port
	if i.cluster == nil && *d.BackupRetentionPeriod > 0 {
		d.LatestRestorableTime = r.stamp(r.latest(i.earliest, r.now))
	}
	return d
}

func (r *request) instance(id string) (*instance, error) {
	if arn, ok := strings.CutPrefix(id, "arn:aws:rds:"+r.region+":"+r.account+":db:"); ok {
		id = arn
	}
	if i, ok := r.instances[r.key(id)]; ok {
		return i, nil
	}
	return nil, fault(&types.DBInstanceNotFoundFault{}, "DBInstance %s not found.", id)
}

func (r *request) describeInstances(in *rds.DescribeDBInstancesInput) (smithy.Serializable, error) {
	var all []types.DBInstance
	if in.DBInstanceIdentifier != nil {
		i, err := r.instance(*in.DBInstanceIdentifier)
		if err != nil {
			return nil, err
		}
		return &rds.DescribeDBInstancesOutput{DBInstances: append(all, r.describe(i))}, nil
	}
	filters, err := filtersOf(in.Filters, "db-cluster-id", "db-instance-id", "dbi-resource-id", "engine")
	if err != nil {
		return nil, err
	}
	for k, i := range r.instances {
		cluster := ""
		if i.cluster != nil {
			cluster = i.cluster.key.id
		}
		if k.account == r.account && k.region == r.region && filters.let(map[string][]string{
			"db-cluster-id": {cluster, "arn:aws:rds:" + r.region + ":" + r.account + ":cluster:" + cluster}, "db-instance-id": {k.id, *i.d.DBInstanceArn},
			"dbi-resource-id": {*i.d.DbiResourceId}, "engine": {*i.d.Engine},
		}) {
			all = append(all, r.describe(i))
		}
	}
	slices.SortFunc(all, func(a, b types.DBInstance) int {
		return strings.Compare(*a.DBInstanceIdentifier, *b.DBInstanceIdentifier)
	})
	all, marker, err := page(r, all, in.MaxRecords, in.Marker)
	return &rds.DescribeDBInstancesOutput{DBInstances: all, Marker: marker}, err
}

// filters are a request's, by name.
type filters map[string][]string

func filtersOf(in []types.Filter, known ...string) (filters, error) {
	f := filters{}
	for _, x := range in {
		if x.Name == nil || !slices.Contains(known, *x.Name) {
			return nil, invalidValue("Unrecognized filter name: %s", deref(x.Name))
		}
		if len(x.Values) == 0 {
			return nil, invalidCombination("The filter %s has no values", *x.Name)
		}
		f[*x.Name] = x.Values
	}
	return f, nil
}

// let says whether each filter has one of the values of its name.
func (f filters) let(values map[string][]string) bool {
	for name, wanted := range f {
		if !slices.ContainsFunc(wanted, func(w string) bool {
			return slices.ContainsFunc(values[name], func(v string) bool { return strings.EqualFold(v, w) })
		}) {
			return false
		}
	}
	return true
}

func (r *request) deleteInstance(in *rds.DeleteDBInstanceInput) (smithy.Serializable, error) {
	i, err := r.instance(*in.DBInstanceIdentifier)
	if err != nil {
		return nil, err
	}
	status, _ := r.status(&i.life, r.now)
	final := in.FinalDBSnapshotIdentifier
	switch {
	case status == deleting:
		return nil, fault(&types.InvalidDBInstanceStateFault{}, "Instance %s is already being deleted.", i.key.id)
	case deref(i.d.DeletionProtection):
		return nil, invalidCombination("Cannot delete protected DB Instance, please disable deletion protection and try again.")
	case i.cluster != nil && final != nil:
		return nil, invalidCombination("FinalDBSnapshotIdentifier cannot be specified when deleting a cluster instance")
	case deref(in.SkipFinalSnapshot) && final != nil:
		return nil, invalidCombination("FinalDBSnapshotIdentifier can not be specified when SkipFinalSnapshot is on")
	case !deref(in.SkipFinalSnapshot) && final == nil && i.cluster == nil:
		return nil, invalidCombination("FinalDBSnapshotIdentifier is required unless SkipFinalSnapshot is specified.")
	}
	if final != nil {
		if _, err := r.snapshotOf(i, *final, nil); err != nil {
			return nil, err
		}
	}
	if in.DeleteAutomatedBackups != nil && !*in.DeleteAutomatedBackups && i.cluster == nil && !i.earliest.IsZero() {
		if err := r.retain(i); err != nil {
			return nil, err
		}
	}
	i.life.end(r.now, gone, step{status: deleting, last: r.real(r.options.Deleting), work: r.do(func() error {
		if i.cluster == nil {
			i.data.destroy()
			return nil
		}
		if r.lastMember(i) {
			return i.cluster.data.stop(r.ctx)
		}
		return nil
	})})
	return &rds.DeleteDBInstanceOutput{DBInstance: new(r.describe(i))}, nil
}

func itoa(n int) string { return strconv.Itoa(n) }
