package rdsserver

import (
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"
	"github.com/aws/smithy-go"
)

// What every region of every account has.
const (
	DefaultVPC           = "vpc-0default"
	DefaultSubnetGroup   = "default"
	DefaultSecurityGroup = "sg-0default"
)

// network is what instances refer to. It is the same in all accounts and regions, but for KMS keys, whose ARNs tell where they are.
type network struct {
	subnetGroups          map[string]string // VPC by name
	securityGroups        map[string]string // VPC by ID
	parameterGroups       map[string]string // engine family by name
	clusterParameterGroup map[string]string
	optionGroups          map[string]string
	keys                  map[string]bool // by ARN: whether it can be used
}

func newNetwork() network {
	return network{
		subnetGroups:          map[string]string{DefaultSubnetGroup: DefaultVPC},
		securityGroups:        map[string]string{DefaultSecurityGroup: DefaultVPC},
		parameterGroups:       map[string]string{},
		clusterParameterGroup: map[string]string{},
		optionGroups:          map[string]string{},
		keys:                  map[string]bool{},
	}
}

// AddSubnetGroup makes a subnet group in a VPC, and the VPC's default security group, whose ID it returns.
func (s *Server) AddSubnetGroup(name, vpc string) (securityGroup string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.network.subnetGroups[strings.ToLower(name)] = vpc
	securityGroup = "sg-default-" + strings.TrimPrefix(vpc, "vpc-")
	if vpc == DefaultVPC {
		securityGroup = DefaultSecurityGroup
	}
	s.network.securityGroups[securityGroup] = vpc
	return securityGroup
}

// AddSecurityGroup makes a security group in a VPC.
func (s *Server) AddSecurityGroup(id, vpc string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.network.securityGroups[id] = vpc
}

// AddGroups makes a DB parameter group, a DB cluster parameter group and an option group, all of one name, for an engine.
func (s *Server) AddGroups(name, engine string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name = strings.ToLower(name)
	s.network.parameterGroups[name], s.network.clusterParameterGroup[name], s.network.optionGroups[name] = engine, engine, engine
}

// AddKey makes a KMS key in an account and region, or changes whether it can be used, and returns its ARN. The default key, alias/aws/rds, is always there.
func (s *Server) AddKey(account, region, id string, usable bool) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	arn := "arn:aws:kms:" + region + ":" + account + ":key/" + id
	s.network.keys[arn] = usable
	return arn
}

// defaultKey is the ARN of the key that AWS makes for RDS.
func defaultKey(account, region string) string {
	return "arn:aws:kms:" + region + ":" + account + ":key/aws-rds-default"
}

func isDefaultKey(arn string) bool { return strings.HasSuffix(arn, ":key/aws-rds-default") }

// kmsKey resolves a key as requests name it: ID, ARN or the default key's alias.
func (r *request) kmsKey(id string) (*string, error) {
	if id == "alias/aws/rds" || id == defaultKey(r.account, r.region) || strings.HasSuffix(id, ":alias/aws/rds") {
		return new(defaultKey(r.account, r.region)), nil
	}
	arn := id
	if !strings.HasPrefix(id, "arn:") {
		arn = "arn:aws:kms:" + r.region + ":" + r.account + ":key/" + id
	}
	if !r.network.keys[arn] || strings.Split(arn, ":")[3] != r.region {
		return nil, fault(&types.KMSKeyNotAccessibleFault{},
			"The specified KMS key [%s] does not exist, is not enabled or you do not have permissions to access it.", id)
	}
	return &arn, nil
}

// usable refuses what is encrypted by a key that cannot be used any more.
func (r *request) usable(arn *string) error {
	if arn == nil || isDefaultKey(*arn) || r.network.keys[*arn] {
		return nil
	}
	return fault(&types.KMSKeyNotAccessibleFault{}, "The specified KMS key [%s] does not exist, is not enabled or you do not have permissions to access it.", *arn)
}

// subnetGroup resolves a subnet group's name; the default one's if it is nil.
func (r *request) subnetGroup(name *string) (*types.DBSubnetGroup, error) {
	id := strings.ToLower(deref(or(name, new(DefaultSubnetGroup))))
	vpc, ok := r.network.subnetGroups[id]
	if !ok {
		return nil, fault(&types.DBSubnetGroupNotFoundFault{}, "DB subnet group '%s' does not exist.", id)
	}
	subnet := func(zone string) types.Subnet {
		return types.Subnet{SubnetIdentifier: new("subnet-" + id + zone), SubnetStatus: new("Active"),
			SubnetAvailabilityZone: &types.AvailabilityZone{Name: new(r.region + zone)}}
	}
	return &types.DBSubnetGroup{DBSubnetGroupName: &id, DBSubnetGroupArn: r.arn("subgrp", id), DBSubnetGroupDescription: new("made by a test"), VpcId: &vpc,
		SubnetGroupStatus: new("Complete"), SupportedNetworkTypes: []string{"IPV4"}, Subnets: []types.Subnet{subnet("a"), subnet("b")}}, nil
}

// securityGroups resolves security groups, which must be in a VPC; that VPC's default one if there are none.
func (r *request) securityGroups(ids []string, vpc string) ([]types.VpcSecurityGroupMembership, error) {
	if len(ids) == 0 {
		for id, of := range r.network.securityGroups {
			if of == vpc && strings.Contains(id, "default") {
				ids = append(ids, id)
			}
		}
	}
	var all []types.VpcSecurityGroupMembership
	for _, id := range ids {
		of, ok := r.network.securityGroups[id]
		if !ok {
			return nil, invalidValue("Invalid security group , groupId= %s, groupName=.", id)
		}
		if of != vpc {
			return nil, fault(&types.InvalidVPCNetworkStateFault{},
				"The DB instance and EC2 security group are in different VPCs. The DB instance is in %s and the EC2 security group is in %s", vpc, of)
		}
		all = append(all, types.VpcSecurityGroupMembership{VpcSecurityGroupId: new(id), Status: new("active")})
	}
	return all, nil
}

// major is the part of an engine's version that its default groups are called by.
func major(engine, version string) string {
	parts := strings.Split(version, ".")
	if strings.Contains(engine, "postgres") {
		return parts[0]
	}
	return strings.Join(parts[:min(2, len(parts))], ".")
}

func defaultVersion(engine string) string {
	switch engine {
	case "postgres", "aurora-postgresql":
		return "15.10"
	case "mariadb":
		return "10.11.9"
	case "aurora-mysql":
		return "8.0.mysql_aurora.3.08.0"
	}
	return "8.0.40"
}

func defaultPort(engine string) int32 {
	if family(engine) == familyPostgres {
		return 5432
	}
	return 3306
}

// group resolves the name of a parameter or option group among groups; standard if it is nil.
func group(groups map[string]string, name *string, standard, engine string, unknown func(string) error) (string, error) {
	id := strings.ToLower(deref(or(name, &standard)))
	if id == standard {
		return id, nil
	}
	of, ok := groups[id]
	if !ok {
		return "", unknown(id)
	}
	if of != engine {
		return "", invalidCombination("The group %s is for the engine %s, and cannot be used for %s", id, of, engine)
	}
	return id, nil
}

func (r *request) parameterGroup(name *string, engine, version string) (string, error) {
	return group(r.network.parameterGroups, name, "default."+engine+major(engine, version), engine, func(id string) error {
		return fault(&types.DBParameterGroupNotFoundFault{}, "DBParameterGroup not found: %s", id)
	})
}

func (r *request) clusterParameterGroup(name *string, engine, version string) (string, error) {
	return group(r.network.clusterParameterGroup, name, "default."+engine+major(engine, version), engine, func(id string) error {
		return fault(&types.DBClusterParameterGroupNotFoundFault{}, "DBClusterParameterGroup not found: %s", id)
	})
}

func (r *request) optionGroup(name *string, engine, version string) (string, error) {
	return group(r.network.optionGroups, name, "default:"+engine+"-"+strings.ReplaceAll(major(engine, version), ".", "-"), engine, func(id string) error {
		return fault(&types.OptionGroupNotFoundFault{}, "Specified OptionGroupName: %s not found.", id)
	})
}

func (r *request) describeSubnetGroups(in *rds.DescribeDBSubnetGroupsInput) (smithy.Serializable, error) {
	var all []types.DBSubnetGroup
	if in.DBSubnetGroupName != nil {
		g, err := r.subnetGroup(in.DBSubnetGroupName)
		if err != nil {
			return nil, err
		}
		return &rds.DescribeDBSubnetGroupsOutput{DBSubnetGroups: append(all, *g)}, nil
	}
	for name := range r.network.subnetGroups {
		g, err := r.subnetGroup(&name)
		if err != nil {
			return nil, err
		}
		all = append(all, *g)
	}
	slices.SortFunc(all, func(a, b types.DBSubnetGroup) int { return strings.Compare(*a.DBSubnetGroupName, *b.DBSubnetGroupName) })
	all, marker, err := page(r, all, in.MaxRecords, in.Marker)
	return &rds.DescribeDBSubnetGroupsOutput{DBSubnetGroups: all, Marker: marker}, err
}

func (r *request) describeAccount(*rds.DescribeAccountAttributesInput) (smithy.Serializable, error) {
	used := map[string]int64{
		"DBInstances": r.count(r.instances), "DBClusters": countOf(r, r.clusters), "ManualSnapshots": countOf(r, r.snapshots),
		"ManualClusterSnapshots": countOf(r, r.clusterSnap),
	}
	out := &rds.DescribeAccountAttributesOutput{}
	for name, most := range r.quotas {
		out.AccountQuotas = append(out.AccountQuotas, types.AccountQuota{AccountQuotaName: new(name), Max: new(most), Used: new(used[name])})
	}
	slices.SortFunc(out.AccountQuotas, func(a, b types.AccountQuota) int { return strings.Compare(*a.AccountQuotaName, *b.AccountQuotaName) })
	return out, nil
}

func (r *request) count(m map[key]*instance) int64 { return countOf(r, m) }

// countOf is how many of some resources the account has in the region.
func countOf[V any](r *request, m map[key]V) (n int64) {
	for k := range m {
		if k.account == r.account && k.region == r.region {
			n++
		}
	}
	return n
}

// within refuses one more than a quota.
func within[V any](r *request, quota string, m map[key]V, exceeded error) error {
	if countOf(r, m) >= r.quotas[quota] {
		return exceeded
	}
	return nil
}

func (r *request) describeOrderable(in *rds.DescribeOrderableDBInstanceOptionsInput) (smithy.Serializable, error) {
	var unused struct{ Engine, DBInstanceClass, EngineVersion, LicenseModel, Marker *string }
	if err := take(&unused, in, "MaxRecords", "Vpc"); err != nil {
		return nil, err
	}
	if family(*in.Engine) == "" {
		return nil, invalidValue("Invalid DB engine: %s", *in.Engine)
	}
	out := &rds.DescribeOrderableDBInstanceOptionsOutput{}
	for _, class := range classes {
		if in.DBInstanceClass != nil && *in.DBInstanceClass != class {
			continue
		}
		out.OrderableDBInstanceOptions = append(out.OrderableDBInstanceOptions, types.OrderableDBInstanceOption{
			Engine: in.Engine, EngineVersion: or(in.EngineVersion, new(defaultVersion(*in.Engine))), DBInstanceClass: new(class),
			LicenseModel:      new("general-public-license"),
			AvailabilityZones: []types.AvailabilityZone{{Name: new(r.region + "a")}, {Name: new(r.region + "b")}}, MultiAZCapable: new(true), StorageType: new("gp3"),
			SupportsStorageEncryption: new(class != "db.t2.micro"), SupportsIAMDatabaseAuthentication: new(true), Vpc: new(true), SupportsClusters: new(true)})
	}
	return out, nil
}

// classes are the instance classes that there are.
var classes = []string{"db.t2.micro", "db.t3.micro", "db.t3.medium", "db.t4g.medium", "db.m6g.large", "db.r6g.large", "db.r6g.xlarge"}

func checkClass(class *string) error {
	if class == nil || !slices.Contains(classes, *class) {
		return invalidValue("Invalid DB Instance class: %s", deref(class))
	}
	return nil
}

// page cuts a list to one page.
func page[T any](r *request, all []T, maximum *int32, marker *string) ([]T, *string, error) {
	size := min(r.options.PageSize, 100)
	if maximum != nil {
		if *maximum < 20 || *maximum > 100 {
			return nil, nil, invalidValue("Invalid value %d for MaxRecords. Must be between 20 and 100", *maximum)
		}
		size = min(size, int(*maximum))
	}
	from := 0
	if marker != nil {
		n, ok := strings.CutPrefix(*marker, "at-")
		for _, c := range n {
			ok = ok && c >= '0' && c <= '9'
			from = from*10 + int(c-'0')
		}
		if !ok || from > len(all) {
			return nil, nil, invalidValue("The marker %q is none of this server's", *marker)
		}
	}
	all = all[from:]
	if len(all) <= size {
		return all, nil, nil
	}
	return all[:size], new("at-" + itoa(from+size)), nil
}
