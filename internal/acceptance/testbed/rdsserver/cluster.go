package rdsserver

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"
	"github.com/aws/smithy-go"
)

// cluster is one Aurora DB cluster. Its database runs while it has an instance.
type cluster struct {
	key      key
	d        types.DBCluster
	life     life
	data     database
	created  time.Time
	earliest time.Time
	first    func(database) error // what a new cluster's database still needs
}

// clusterSettings are the arguments that creating and both ways of restoring a cluster have in common.
type clusterSettings struct {
	BackupRetentionPeriod, Port                                                                         *int32
	CopyTagsToSnapshot, DeletionProtection, EnableIAMDatabaseAuthentication                             *bool
	DBClusterParameterGroupName, DBSubnetGroupName, KmsKeyID, NetworkType, OptionGroupName, StorageType *string
	PreferredBackupWindow, EngineMode, Engine, EngineVersion, DatabaseName                              *string
	EnableCloudwatchLogsExports, VpcSecurityGroupIDs, AvailabilityZones                                 []string
	Tags                                                                                                []types.Tag
	ServerlessV2ScalingConfiguration                                                                    *types.ServerlessV2ScalingConfiguration
	MasterUsername, MasterUserPassword, MasterUserSecretKmsKeyID, PreferredMaintenanceWindow            *string // create only
	StorageEncrypted, ManageMasterUserPassword                                                          *bool   // create only
}

func (r *request) buildCluster(id string, in *clusterSettings, origin types.DBCluster) (*cluster, error) {
	if err := checkName("DBClusterIdentifier", id, 63); err != nil {
		return nil, err
	}
	k := r.key(id)
	if _, ok := r.clusters[k]; ok {
		return nil, fault(&types.DBClusterAlreadyExistsFault{}, "DB Cluster already exists")
	}
	if err := within(r, "DBClusters", r.clusters, fault(&types.DBClusterQuotaExceededFault{}, "DB cluster quota exceeded")); err != nil {
		return nil, err
	}
	engine, version := deref(or(in.Engine, origin.Engine)), deref(or(in.EngineVersion, origin.EngineVersion))
	if !strings.HasPrefix(engine, "aurora-") || family(engine) == "" {
		return nil, invalidValue("Invalid DB engine: %s", engine)
	}
	if origin.Engine != nil && engine != *origin.Engine {
		return nil, invalidCombination("The engine %s is not compatible with the source's, %s", engine, *origin.Engine)
	}
	if version == "" {
		version = defaultVersion(engine)
	}
	subnets, err := r.subnetGroup(in.DBSubnetGroupName)
	if err != nil {
		return nil, err
	}
	groups, err := r.securityGroups(in.VpcSecurityGroupIDs, *subnets.VpcId)
	if err != nil {
		return nil, err
	}
	parameters, err := r.clusterParameterGroup(in.DBClusterParameterGroupName, engine, version)
	if err != nil {
		return nil, err
	}
	options, err := r.optionGroup(in.OptionGroupName, engine, version)
	if err != nil {
		return nil, err
	}
	if b := in.BackupRetentionPeriod; b != nil && (*b < 1 || *b > 35) {
		return nil, invalidValue("Invalid backup retention period: %d. Must be between 1 and 35", *b)
	}
	key := origin.KmsKeyId
	if in.KmsKeyID != nil || deref(in.StorageEncrypted) {
		if origin.DBClusterIdentifier != nil && origin.KmsKeyId == nil {
			return nil, invalidCombination("KmsKeyId cannot be specified when the source DB cluster is not encrypted")
		}
		if key, err = r.kmsKey(deref(or(in.KmsKeyID, new("alias/aws/rds")))); err != nil {
			return nil, err
		}
	}
	c := &cluster{key: k, created: r.now, d: types.DBCluster{
		DBClusterIdentifier: &k.id, DBClusterArn: r.arn("cluster", k.id), DbClusterResourceId: r.resourceID("cluster-"), Engine: &engine, EngineVersion: &version,
		EngineMode: or(in.EngineMode, new("provisioned")), MasterUsername: or(in.MasterUsername, origin.MasterUsername), DatabaseName: or(in.DatabaseName,
			origin.DatabaseName),
		StorageEncrypted: new(key != nil), KmsKeyId: key, StorageType: in.StorageType, AllocatedStorage: new(int32(1)), MultiAZ: new(false),
		DBSubnetGroup: subnets.DBSubnetGroupName, VpcSecurityGroups: groups, DBClusterParameterGroup: &parameters,
		DBClusterOptionGroupMemberships: []types.DBClusterOptionGroupStatus{{DBClusterOptionGroupName: &options, Status: new("in-sync")}},
		AvailabilityZones:               []string{r.region + "a", r.region + "b", r.region + "c"}, CopyTagsToSnapshot: new(deref(in.CopyTagsToSnapshot)),
		DeletionProtection: new(deref(in.DeletionProtection)), IAMDatabaseAuthenticationEnabled: new(deref(in.EnableIAMDatabaseAuthentication)),
		BackupRetentionPeriod: or(in.BackupRetentionPeriod, origin.BackupRetentionPeriod, new(int32(1))), PreferredBackupWindow: or(in.PreferredBackupWindow,
			new("05:07-05:37")),
		PreferredMaintenanceWindow: or(in.PreferredMaintenanceWindow, new("sun:06:07-sun:06:37")), NetworkType: or(in.NetworkType, new("IPV4")),
		EnabledCloudwatchLogsExports: in.EnableCloudwatchLogsExports, TagList: in.Tags, AutoMinorVersionUpgrade: new(true),
	}}
	if s := in.ServerlessV2ScalingConfiguration; s != nil {
		c.d.ServerlessV2ScalingConfiguration = &types.ServerlessV2ScalingConfigurationInfo{MinCapacity: s.MinCapacity, MaxCapacity: s.MaxCapacity,
			SecondsUntilAutoPause: s.SecondsUntilAutoPause}
	}
	return c, nil
}

// birthCluster prepares a cluster's database: it is made when it gets its first instance.
func (r *request) birthCluster(c *cluster, from image) error {
	data, err := r.store.open(*c.d.Engine, from)
	if err != nil {
		return err
	}
	c.data = data
	c.life.end(r.now, available, step{status: creating, last: r.real(r.options.Creating), then: func(at time.Time) { c.earliest = wholeSecond(at) }})
	r.clusters[c.key] = c
	return nil
}

func (r *request) createCluster(in *rds.CreateDBClusterInput) (smithy.Serializable, error) {
	var set clusterSettings
	if err := take(&set, in, "DBClusterIdentifier"); err != nil {
		return nil, err
	}
	if in.MasterUsername == nil || (in.MasterUserPassword == nil && !deref(in.ManageMasterUserPassword)) {
		return nil, errorf("MissingParameter", 400, "The request must contain MasterUsername, and MasterUserPassword unless ManageMasterUserPassword is on")
	}
	if err := checkPassword(in.MasterUserPassword); err != nil {
		return nil, err
	}
	c, err := r.buildCluster(*in.DBClusterIdentifier, &set, types.DBCluster{})
	if err != nil {
		return nil, err
	}
	password := in.MasterUserPassword
	if deref(in.ManageMasterUserPassword) {
		if password != nil {
			return nil, invalidCombination("You can't specify MasterUserPassword when ManageMasterUserPassword is on")
		}
		if c.d.MasterUserSecret, err = r.newSecret(in.MasterUserSecretKmsKeyId); err != nil {
			return nil, err
		}
		password = new(r.secrets[*c.d.MasterUserSecret.SecretArn])
	}
	c.first = r.firstUser(in.MasterUsername, password, in.DatabaseName)
	err = r.birthCluster(c, image{})
	return &rds.CreateDBClusterOutput{DBCluster: new(r.describeCluster(c))}, err
}

// createMember makes an instance of a cluster; with the first one the cluster's database starts.
func (r *request) createMember(in *rds.CreateDBInstanceInput, set *settings) (smithy.Serializable, error) {
	c, err := r.cluster(*in.DBClusterIdentifier)
	if err != nil {
		return nil, err
	}
	if status, _ := r.status(&c.life, r.now); status != available {
		return nil, fault(&types.InvalidDBClusterStateFault{}, "DB cluster %s is not in available state", c.key.id)
	}
	if *in.Engine != *c.d.Engine {
		return nil, invalidCombination("The engine name requested for your DB instance (%s) doesn't match the engine name of your DB cluster (%s).",
			*in.Engine, *c.d.Engine)
	}
	for what, set := range map[string]bool{"MasterUsername": in.MasterUsername != nil, "MasterUserPassword": in.MasterUserPassword != nil,
		"BackupRetentionPeriod": in.BackupRetentionPeriod != nil,
		"AllocatedStorage":      in.AllocatedStorage != nil, "DBName": in.DBName != nil, "VpcSecurityGroupIds": in.VpcSecurityGroupIds != nil,
		"KmsKeyId":         in.KmsKeyId != nil,
		"StorageEncrypted": in.StorageEncrypted != nil, "Port": in.Port != nil, "DeletionProtection": in.DeletionProtection != nil, "MultiAZ": in.MultiAZ != nil,
		"ManageMasterUserPassword": in.ManageMasterUserPassword != nil} {
		if set {
			return nil, invalidCombination("The requested DB Instance will be a member of a DB Cluster. Set %s for the DB Cluster.", what)
		}
	}
	if g := in.DBSubnetGroupName; g != nil && !strings.EqualFold(*g, *c.d.DBSubnetGroup) {
		return nil, invalidCombination("The DBSubnetGroupName %s is not the DB cluster's, %s", *g, *c.d.DBSubnetGroup)
	}
	set.DBSubnetGroupName, set.EngineVersion = c.d.DBSubnetGroup, c.d.EngineVersion
	for _, g := range c.d.VpcSecurityGroups {
		set.VpcSecurityGroupIDs = append(set.VpcSecurityGroupIDs, *g.VpcSecurityGroupId)
	}
	i, err := r.build(*in.DBInstanceIdentifier, set, types.DBInstance{})
	if err != nil {
		return nil, err
	}
	i.cluster = c
	i.d.DBClusterIdentifier, i.d.StorageType, i.d.KmsKeyId, i.d.StorageEncrypted = &c.key.id, new("aurora"), c.d.KmsKeyId, c.d.StorageEncrypted
	i.d.MasterUsername, i.d.DBName, i.d.AllocatedStorage, i.d.PromotionTier = c.d.MasterUsername, c.d.DatabaseName, new(int32(1)), or(in.PromotionTier, new(int32(1)))
	i.d.BackupRetentionPeriod = c.d.BackupRetentionPeriod
	first := c.first
	c.first = nil
	i.life.end(r.now, available, step{status: creating, last: r.real(r.options.Creating), work: r.do(func() error {
		err := c.data.start(r.ctx)
		if err == nil && first != nil {
			err = first(c.data)
		}
		if err != nil && r.ctx.Err() == nil {
			return fmt.Errorf("making the database of %s: %w", *c.d.DBClusterArn, err)
		}
		return nil
	})})
	r.instances[i.key] = i
	return &rds.CreateDBInstanceOutput{DBInstance: new(r.describe(i))}, nil
}

// members are the instances of a cluster, by name: the first one is the writer.
func (r *request) members(c *cluster) []*instance {
	var all []*instance
	for _, i := range r.instances {
		if i.cluster == c {
			all = append(all, i)
		}
	}
	slices.SortFunc(all, func(a, b *instance) int { return a.created.Compare(b.created) })
	return all
}

// lastMember says whether an instance is the only one of its cluster that is not about to go.
func (r *request) lastMember(i *instance) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.members(i.cluster) {
		if status, _ := r.status(&m.life, r.options.Now()); m != i && status != deleting && status != gone {
			return false
		}
	}
	return true
}

func (r *request) cluster(id string) (*cluster, error) {
	if arn, ok := strings.CutPrefix(id, "arn:aws:rds:"+r.region+":"+r.account+":cluster:"); ok {
		id = arn
	}
	if c, ok := r.clusters[r.key(id)]; ok {
		return c, nil
	}
	return nil, fault(&types.DBClusterNotFoundFault{}, "DBCluster %s not found.", id)
}

func (r *request) describeCluster(c *cluster) types.DBCluster {
	d := c.d
	status, _ := r.status(&c.life, r.now)
	d.Status, d.ClusterCreateTime = &status, r.stamp(c.created)
	// The endpoints are there, but nothing answers until there is an instance.
	d.Endpoint, d.ReaderEndpoint, d.Port = new("127.0.0.1"), new("127.0.0.1"), new(int32(c.data.port())) //nolint:gosec // a port
	for n, m := range r.members(c) {
		d.DBClusterMembers = append(d.DBClusterMembers, types.DBClusterMember{DBInstanceIdentifier: &m.key.id, IsClusterWriter: new(n == 0),
			DBClusterParameterGroupStatus: new("in-sync"), PromotionTier: m.d.PromotionTier})
	}
	if status != creating {
		d.EarliestRestorableTime, d.LatestRestorableTime = r.stamp(c.earliest), r.stamp(r.latest(c.earliest, r.now))
	}
	return d
}

func (r *request) describeClusters(in *rds.DescribeDBClustersInput) (smithy.Serializable, error) {
	var all []types.DBCluster
	if in.DBClusterIdentifier != nil {
		c, err := r.cluster(*in.DBClusterIdentifier)
		if err != nil {
			return nil, err
		}
		return &rds.DescribeDBClustersOutput{DBClusters: append(all, r.describeCluster(c))}, nil
	}
	filters, err := filtersOf(in.Filters, "db-cluster-id", "db-cluster-resource-id", "engine")
	if err != nil {
		return nil, err
	}
	for k, c := range r.clusters {
		if k.account == r.account && k.region == r.region && filters.let(map[string][]string{
			"db-cluster-id": {k.id, *c.d.DBClusterArn}, "db-cluster-resource-id": {*c.d.DbClusterResourceId}, "engine": {*c.d.Engine},
		}) {
			all = append(all, r.describeCluster(c))
		}
	}
	slices.SortFunc(all, func(a, b types.DBCluster) int { return strings.Compare(*a.DBClusterIdentifier, *b.DBClusterIdentifier) })
	all, marker, err := page(r, all, in.MaxRecords, in.Marker)
	return &rds.DescribeDBClustersOutput{DBClusters: all, Marker: marker}, err
}

func (r *request) deleteCluster(in *rds.DeleteDBClusterInput) (smithy.Serializable, error) {
	c, err := r.cluster(*in.DBClusterIdentifier)
	if err != nil {
		return nil, err
	}
	status, _ := r.status(&c.life, r.now)
	final := in.FinalDBSnapshotIdentifier
	keep := in.DeleteAutomatedBackups != nil && !*in.DeleteAutomatedBackups && !c.earliest.IsZero()
	switch {
	case deref(c.d.DeletionProtection):
		return nil, invalidCombination("Cannot delete protected Cluster, please disable deletion protection and try again.")
	case status == deleting:
		return nil, fault(&types.InvalidDBClusterStateFault{}, "Cluster %s is already being deleted.", c.key.id)
	case deref(in.SkipFinalSnapshot) && final != nil:
		return nil, invalidCombination("FinalDBSnapshotIdentifier can not be specified when SkipFinalSnapshot is on")
	case !deref(in.SkipFinalSnapshot) && final == nil:
		return nil, invalidCombination("FinalDBSnapshotIdentifier is required unless SkipFinalSnapshot is specified.")
	}
	for _, m := range r.members(c) {
		if s, _ := r.status(&m.life, r.now); s != deleting {
			return nil, fault(&types.InvalidDBClusterStateFault{}, "Cluster cannot be deleted, it still contains DB instances in non-deleting state.")
		}
	}
	if keep {
		// The quota of retained backups is that of clusters.
		if err := within(r, "DBClusters", r.clusterKept, fault(&types.DBClusterAutomatedBackupQuotaExceededFault{},
			"The quota for retained automated backups was exceeded")); err != nil {
			return nil, err
		}
	}
	if final != nil {
		if _, err := r.clusterSnapshotOf(c, *final, nil); err != nil {
			return nil, err
		}
	}
	if keep {
		if err := r.retainCluster(c); err != nil {
			return nil, err
		}
	}
	c.life.end(r.now, gone, step{status: deleting, last: r.real(r.options.Deleting), work: r.do(func() error {
		c.data.destroy()
		return nil
	})})
	return &rds.DeleteDBClusterOutput{DBCluster: new(r.describeCluster(c))}, nil
}
