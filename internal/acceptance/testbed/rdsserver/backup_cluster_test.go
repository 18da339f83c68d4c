//go:build acceptance

package rdsserver

import (
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"
)

// A cluster that is deleted without its automated backup can be restored from that, by its resource ID, until it expires.
func TestClusterRetained(t *testing.T) {
	t.Parallel()
	for name, engine := range map[string]string{"PostgreSQL": "aurora-postgresql", "MySQL": "aurora-mysql"} {
		t.Run(name, func(t *testing.T) { testClusterRetained(t, engine) })
	}
}

func filter(name, value string) types.Filter {
	return types.Filter{Name: &name, Values: []string{value}}
}

func testClusterRetained(t *testing.T, engine string) {
	t.Parallel()
	ctx := t.Context()
	s := Start(t, Options{Factor: 400})
	client := s.RDS()
	s.AddSubnetGroup("private", "vpc-1")
	s.AddSecurityGroup("sg-app", "vpc-1")
	key := s.AddKey(Account, Region, "mine", true)
	create := &rds.CreateDBClusterInput{DBClusterIdentifier: new("source"), Engine: &engine, MasterUsername: new(master), MasterUserPassword: new(secret),
		DatabaseName: new("app"), BackupRetentionPeriod: new(int32(7)), KmsKeyId: &key, StorageEncrypted: new(true), DBSubnetGroupName: new("private"),
		EnableIAMDatabaseAuthentication: new(true), Tags: []types.Tag{{Key: new("team"), Value: new("a")}}}
	source, err := s.SeedCluster(ctx, create)
	if err != nil {
		t.Fatal(err)
	}
	id := *source.DbClusterResourceId
	list := func(in *rds.DescribeDBClusterAutomatedBackupsInput) []types.DBClusterAutomatedBackup {
		t.Helper()
		out, err := client.DescribeDBClusterAutomatedBackups(ctx, in)
		if err != nil {
			t.Fatal(err)
		}
		return out.DBClusterAutomatedBackups
	}
	retained := &rds.DescribeDBClusterAutomatedBackupsInput{Filters: []types.Filter{filter("status", "retained")}}
	db := connect(t, engine, int(*source.Port), secret)
	execute(t, db, "CREATE TABLE r (id int primary key)", "INSERT INTO r VALUES (1)")
	point := time.Now().Truncate(time.Second).Add(2 * time.Second)

	// Of what exists there is an automated backup, but not a retained one.
	if all := list(&rds.DescribeDBClusterAutomatedBackupsInput{DBClusterIdentifier: new("SOURCE")}); len(all) != 1 || *all[0].Status != "active" ||
		all[0].RestoreWindow.EarliestTime == nil {
		t.Errorf("the automated backups are %+v: want an active one", all)
	}
	if all := list(retained); len(all) != 0 {
		t.Errorf("retained are %+v: want none", all)
	}
	for what, c := range map[string]struct {
		in   rds.DescribeDBClusterAutomatedBackupsInput
		code string
	}{
		"an unknown filter":  {rds.DescribeDBClusterAutomatedBackupsInput{Filters: []types.Filter{filter("engine", engine)}}, "InvalidParameterValue"},
		"an unknown status":  {rds.DescribeDBClusterAutomatedBackupsInput{Filters: []types.Filter{filter("status", "active")}}, "InvalidParameterValue"},
		"an unknown cluster": {rds.DescribeDBClusterAutomatedBackupsInput{DBClusterIdentifier: new("none")}, "DBClusterAutomatedBackupNotFoundFault"},
		"an unknown id":      {rds.DescribeDBClusterAutomatedBackupsInput{DbClusterResourceId: new("cluster-NONE")}, "DBClusterAutomatedBackupNotFoundFault"},
		"a page too small":   {rds.DescribeDBClusterAutomatedBackupsInput{MaxRecords: new(int32(5))}, "InvalidParameterValue"},
	} {
		_, err := client.DescribeDBClusterAutomatedBackups(ctx, &c.in)
		refused(t, what, err, c.code)
	}

	// It goes, first its instance.
	<-time.After(time.Until(point.Add(100 * time.Millisecond)))
	execute(t, db, "INSERT INTO r VALUES (2)")
	<-time.After(time.Until(time.Now().Truncate(time.Second).Add(1100 * time.Millisecond))) // binary logs have whole seconds
	remove := func(id string) {
		t.Helper()
		if _, err := client.DeleteDBInstance(ctx, &rds.DeleteDBInstanceInput{DBInstanceIdentifier: new(id + "-1")}); err != nil {
			t.Fatal(err)
		}
		waiter := rds.NewDBInstanceDeletedWaiter(client, func(o *rds.DBInstanceDeletedWaiterOptions) { o.MinDelay, o.MaxDelay = poll, poll })
		if err := waiter.Wait(ctx, &rds.DescribeDBInstancesInput{DBInstanceIdentifier: new(id + "-1")}, 2*time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	remove("source")
	// The end of the restore window is later than that of the database.
	<-time.After(time.Until(time.Now().Truncate(time.Second).Add(2100 * time.Millisecond)))
	drop := func(id string) error {
		_, err := client.DeleteDBCluster(ctx, &rds.DeleteDBClusterInput{DBClusterIdentifier: &id, SkipFinalSnapshot: new(true), DeleteAutomatedBackups: new(false)})
		return err
	}
	gone := func(id string) {
		t.Helper()
		waiter := rds.NewDBClusterDeletedWaiter(client, func(o *rds.DBClusterDeletedWaiterOptions) { o.MinDelay, o.MaxDelay = poll, poll })
		if err := waiter.Wait(ctx, &rds.DescribeDBClustersInput{DBClusterIdentifier: &id}, 2*time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	s.Hold()
	deleted := time.Now()
	if err := drop("source"); err != nil {
		t.Fatal(err)
	}
	refused(t, "a second deletion", drop("source"), "InvalidDBClusterStateFault")
	_, err = client.RestoreDBClusterToPointInTime(ctx, &rds.RestoreDBClusterToPointInTimeInput{DBClusterIdentifier: new("x"), SourceDbClusterResourceId: &id,
		RestoreToTime: &point})
	refused(t, "a source that is being deleted", err, "InvalidDBClusterStateFault")
	s.Release()
	gone("source")
	if all := s.Inventory(); len(all) != 1 || all[0].Kind != "retained cluster backup" || all[0].ResourceID != id || all[0].Status != "retained" ||
		all[0].Tags["team"] != "a" {
		t.Errorf("there is %+v: want the retained backup", all)
	}
	all := list(&rds.DescribeDBClusterAutomatedBackupsInput{DbClusterResourceId: new(strings.ToLower(id))})
	if len(all) != 1 {
		t.Fatalf("the automated backups are %+v: want one", all)
	}
	b := all[0]
	if *b.Status != "retained" || *b.DBClusterIdentifier != "source" || *b.DbClusterResourceId != id || *b.DBClusterArn != *source.DBClusterArn ||
		!strings.HasPrefix(*b.DBClusterAutomatedBackupsArn, "arn:aws:rds:"+Region+":"+Account+":cluster-auto-backup:ab-") || *b.KmsKeyId != key ||
		b.StorageEncryptionType != types.StorageEncryptionTypeCmk || *b.VpcId != "vpc-1" || *b.BackupRetentionPeriod != 7 || *b.Engine != engine ||
		*b.EngineVersion != *source.EngineVersion || *b.MasterUsername != master || *b.AllocatedStorage != 1 || !*b.IAMDatabaseAuthenticationEnabled ||
		!b.ClusterCreateTime.Equal(*source.ClusterCreateTime) || b.StorageType != nil {
		t.Errorf("the backup is %+v", b)
	}
	if w := b.RestoreWindow; !w.EarliestTime.Equal(*source.EarliestRestorableTime) || !w.LatestTime.Equal(deleted.Truncate(time.Second)) &&
		!w.LatestTime.Equal(deleted.Truncate(time.Second).Add(time.Second)) {
		t.Errorf("the restore window is from %s to %s: want from %s to the deletion at %s", w.EarliestTime, w.LatestTime, source.EarliestRestorableTime, deleted)
	}
	for _, f := range []types.Filter{filter("status", "retained"), filter("db-cluster-id", "source"), filter("db-cluster-id", *source.DBClusterArn),
		filter("db-cluster-resource-id", id)} {
		if all := list(&rds.DescribeDBClusterAutomatedBackupsInput{Filters: []types.Filter{f}}); len(all) != 1 || *all[0].DbClusterResourceId != id {
			t.Errorf("by %s there are %+v: want the retained one", *f.Name, all)
		}
	}
	_, err = client.DescribeDBClusterAutomatedBackups(ctx, &rds.DescribeDBClusterAutomatedBackupsInput{DBClusterIdentifier: new("source")})
	refused(t, "the name of a cluster that is gone", err, "DBClusterAutomatedBackupNotFoundFault")
	west := rds.NewFromConfig(s.Config("", "us-west-2"))
	_, err = west.DescribeDBClusterAutomatedBackups(ctx, &rds.DescribeDBClusterAutomatedBackupsInput{DbClusterResourceId: &id})
	refused(t, "another region", err, "DBClusterAutomatedBackupNotFoundFault")

	// Its name is another's by now; a second retained backup is one more than the quota.
	create.KmsKeyId, create.StorageEncrypted = nil, nil
	if _, err := client.CreateDBCluster(ctx, create); err != nil {
		t.Fatal(err)
	}
	other, err := s.WaitCluster(ctx, "source")
	if err != nil {
		t.Fatal(err)
	}
	if all := list(&rds.DescribeDBClusterAutomatedBackupsInput{DBClusterIdentifier: new("source")}); len(all) != 1 ||
		*all[0].DbClusterResourceId != *other.DbClusterResourceId {
		t.Errorf("the automated backups of the new cluster are %+v", all)
	}
	if all := list(&rds.DescribeDBClusterAutomatedBackupsInput{Filters: []types.Filter{filter("db-cluster-id", "source")}}); len(all) != 2 {
		t.Errorf("of that name there are %+v: want two", all)
	}
	s.SetQuotas(map[string]int64{"DBClusters": 1})
	refused(t, "one more than the quota", drop("source"), "DBClusterAutomatedBackupQuotaExceededFault")
	s.SetQuotas(map[string]int64{"DBClusters": 40})
	if got, err := s.WaitCluster(ctx, "source"); err != nil || *got.DbClusterResourceId != *other.DbClusterResourceId {
		t.Errorf("the cluster whose deletion was refused is %+v (%v)", got, err)
	}

	for what, c := range map[string]struct {
		change func(*rds.RestoreDBClusterToPointInTimeInput)
		code   string
	}{
		"two sources":            {func(i *rds.RestoreDBClusterToPointInTimeInput) { i.SourceDBClusterIdentifier = new("source") }, "InvalidParameterCombination"},
		"an unknown id":          {func(i *rds.RestoreDBClusterToPointInTimeInput) { i.SourceDbClusterResourceId = new("cluster-NONE") }, "DBClusterNotFoundFault"},
		"the end of the window":  {func(i *rds.RestoreDBClusterToPointInTimeInput) { i.RestoreToTime = b.RestoreWindow.LatestTime }, "InvalidParameterValue"},
		"before the window":      {func(i *rds.RestoreDBClusterToPointInTimeInput) { i.RestoreToTime = new(point.Add(-time.Hour)) }, "InvalidParameterValue"},
		"a fraction of a second": {func(i *rds.RestoreDBClusterToPointInTimeInput) { i.RestoreToTime = new(point.Add(time.Millisecond)) }, "InvalidParameterValue"},
		"no time":                {func(i *rds.RestoreDBClusterToPointInTimeInput) { i.RestoreToTime = nil }, "InvalidParameterCombination"},
		"a clone": {func(i *rds.RestoreDBClusterToPointInTimeInput) {
			i.RestoreToTime, i.UseLatestRestorableTime, i.RestoreType = nil, new(true), new("copy-on-write")
		}, "InvalidParameterCombination"},
		"a name that is taken": {func(i *rds.RestoreDBClusterToPointInTimeInput) { i.DBClusterIdentifier = new("source") }, "DBClusterAlreadyExistsFault"},
		"another VPC's group":  {func(i *rds.RestoreDBClusterToPointInTimeInput) { i.VpcSecurityGroupIds = []string{"sg-app"} }, "InvalidVPCNetworkStateFault"},
	} {
		in := rds.RestoreDBClusterToPointInTimeInput{SourceDbClusterResourceId: &id, DBClusterIdentifier: new("third"), RestoreToTime: &point}
		c.change(&in)
		_, err := client.RestoreDBClusterToPointInTime(ctx, &in)
		refused(t, what, err, c.code)
	}

	// To a time, to its end, and to one when the database did not run any more.
	late := b.RestoreWindow.LatestTime.Add(-time.Second)
	for name, in := range map[string]*rds.RestoreDBClusterToPointInTimeInput{
		"one":    {RestoreToTime: &point},
		"latest": {UseLatestRestorableTime: new(true)},
		"late":   {RestoreToTime: &late, DBSubnetGroupName: new("private"), VpcSecurityGroupIds: []string{"sg-app"}, EnableIAMDatabaseAuthentication: new(true)},
	} {
		in.DBClusterIdentifier, in.SourceDbClusterResourceId = &name, &id
		if _, err := client.RestoreDBClusterToPointInTime(ctx, in); err != nil {
			t.Fatalf("restoring %s: %v", name, err)
		}
		if _, err := s.WaitCluster(ctx, name); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Seed(ctx, &rds.CreateDBInstanceInput{DBInstanceIdentifier: new(name + "-1"), DBClusterIdentifier: &name, Engine: &engine,
			DBInstanceClass: new("db.r6g.large")}); err != nil {
			t.Fatal(err)
		}
		c, err := s.WaitCluster(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		want := 2
		if name == "one" {
			want = 1
		}
		if got := ids(t, connect(t, engine, int(*c.Port), secret)); len(got) != want {
			t.Errorf("%s has the rows %v: want %d", name, got, want)
		}
		group := DefaultSecurityGroup
		if name == "late" {
			group = "sg-app"
		}
		if *c.DbClusterResourceId == id || *c.KmsKeyId != key || *c.BackupRetentionPeriod != 7 || *c.MasterUsername != master || len(c.TagList) != 0 ||
			*c.VpcSecurityGroups[0].VpcSecurityGroupId != group || *c.IAMDatabaseAuthenticationEnabled != (name == "late") || *c.DBClusterParameterGroup == "" {
			t.Errorf("%s is %+v", name, c)
		}
	}

	// The window moves on, and then it is gone.
	if err := s.SetEarliest(id, point.Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if all := list(retained); len(all) != 1 || !all[0].RestoreWindow.EarliestTime.Equal(point.Add(time.Second)) {
		t.Errorf("the retained backups are %+v: want one from %s on", all, point.Add(time.Second))
	}
	again := &rds.RestoreDBClusterToPointInTimeInput{SourceDbClusterResourceId: &id, DBClusterIdentifier: new("third"), RestoreToTime: &point}
	_, err = client.RestoreDBClusterToPointInTime(ctx, again)
	refused(t, "a time that the retention period is past", err, "InvalidParameterValue", "cannot be restored to a time earlier than")
	s.Expire(id)
	_, err = client.RestoreDBClusterToPointInTime(ctx, again)
	refused(t, "an expired backup", err, "DBClusterNotFoundFault")
	_, err = client.DescribeDBClusterAutomatedBackups(ctx, &rds.DescribeDBClusterAutomatedBackupsInput{DbClusterResourceId: &id})
	refused(t, "the description of an expired backup", err, "DBClusterAutomatedBackupNotFoundFault")
	if all := list(retained); len(all) != 0 {
		t.Errorf("retained are %+v: want none", all)
	}
	if err := s.SetEarliest(id, point); err == nil {
		t.Error("the window of an expired backup was moved")
	}
	// By default nothing is kept.
	if _, err := client.DeleteDBCluster(ctx, &rds.DeleteDBClusterInput{DBClusterIdentifier: new("source"), SkipFinalSnapshot: new(true)}); err != nil {
		t.Fatal(err)
	}
	gone("source")
	for _, i := range s.Inventory() {
		if i.Kind == "retained cluster backup" {
			t.Errorf("there is %+v: want nothing retained", i)
		}
	}
}
