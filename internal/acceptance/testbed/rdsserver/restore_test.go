//go:build acceptance

package rdsserver

import (
	"net"
	"os"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"
)

func seed(t *testing.T, s *Server, id, engine string, also func(*rds.CreateDBInstanceInput)) *types.DBInstance {
	t.Helper()
	in := &rds.CreateDBInstanceInput{DBInstanceIdentifier: &id, Engine: &engine, DBInstanceClass: new("db.t3.medium"), AllocatedStorage: new(int32(20)),
		MasterUsername:     new(master),
		MasterUserPassword: new(secret), DBName: new("app")}
	if also != nil {
		also(in)
	}
	i, err := s.Seed(t.Context(), in)
	if err != nil {
		t.Fatalf("making the instance %s: %v", id, err)
	}
	return i
}

func dial(i *types.DBInstance) bool {
	c, err := net.DialTimeout("tcp", net.JoinHostPort(*i.Endpoint.Address, strconv.Itoa(int(*i.Endpoint.Port))), time.Second)
	if err == nil {
		_ = c.Close()
	}
	return err == nil
}

// restorable waits until an instance's latest restorable time is after a time.
func restorable(t *testing.T, s *Server, id string, point time.Time) {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		out, err := s.RDS().DescribeDBInstances(t.Context(), &rds.DescribeDBInstancesInput{DBInstanceIdentifier: &id})
		if err != nil {
			t.Fatal(err)
		}
		if l := out.DBInstances[0].LatestRestorableTime; l != nil && l.After(point) {
			s.mu.Lock()
			age := time.Since(l.Add(-s.offset))
			s.mu.Unlock()
			if age < s.real(s.options.Lag) {
				t.Errorf("the latest restorable time is %s ago: it is to lag %s", age, s.real(s.options.Lag))
			}
			return
		}
		select {
		case <-deadline:
			t.Fatalf("%s is not restorable to %s", id, point)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// A restored instance has exactly what was committed by the restore time, a new identity, and the settings that the service takes by default.
func TestRestoreToTime(t *testing.T) {
	t.Parallel()
	for name, engine := range families {
		t.Run(name, func(t *testing.T) { testRestoreToTime(t, engine) })
	}
}

func testRestoreToTime(t *testing.T, engine string) {
	t.Parallel()
	ctx := t.Context()
	s := Start(t, Options{Factor: 400})
	client := s.RDS()
	group := s.AddSubnetGroup("private", "vpc-1")
	s.AddSecurityGroup("sg-app", "vpc-1")
	s.AddGroups("tuned", engine)
	source := seed(t, s, "source", engine, func(in *rds.CreateDBInstanceInput) {
		in.DBSubnetGroupName, in.VpcSecurityGroupIds, in.DBParameterGroupName, in.OptionGroupName = new("private"), []string{"sg-app"}, new("tuned"), new("tuned")
		in.MultiAZ, in.DeletionProtection, in.CopyTagsToSnapshot, in.EnableIAMDatabaseAuthentication, in.BackupRetentionPeriod = new(true), new(true),
			new(true), new(true), new(int32(7))
		in.StorageType, in.Iops, in.StorageEncrypted, in.MaxAllocatedStorage, in.AutoMinorVersionUpgrade = new("io1"), new(int32(1000)), new(true),
			new(int32(100)), new(false)
		in.Tags = []types.Tag{{Key: new("team"), Value: new("a")}}
	})
	db := connect(t, engine, int(*source.Endpoint.Port), secret)
	execute(t, db, "CREATE TABLE r (id int primary key)")
	w := write(ctx, db, 1)
	point := time.Now().Truncate(time.Second).Add(time.Second)
	<-time.After(time.Until(point.Add(300 * time.Millisecond)))
	w.end(t)

	in := &rds.RestoreDBInstanceToPointInTimeInput{SourceDBInstanceIdentifier: new("source"), TargetDBInstanceIdentifier: new("Clone"), RestoreTime: &point}
	_, err := client.RestoreDBInstanceToPointInTime(ctx, in)
	refused(t, "a restore before its time", err, "InvalidParameterValue", "cannot be restored to a time later than")
	restorable(t, s, "source", point)
	began := time.Now()
	s.Hold()
	out, err := client.RestoreDBInstanceToPointInTime(ctx, in)
	if err != nil {
		t.Fatalf("restoring: %v", err)
	}
	if got := *out.DBInstance.DBInstanceStatus; got != creating || out.DBInstance.Endpoint != nil {
		t.Errorf("the status is %s, the endpoint %v: want creating, without one", got, out.DBInstance.Endpoint)
	}
	_, err = client.CreateDBSnapshot(ctx, &rds.CreateDBSnapshotInput{DBInstanceIdentifier: new("clone"), DBSnapshotIdentifier: new("early")})
	refused(t, "a snapshot of what is being created", err, "InvalidDBInstanceState")
	_, err = client.RestoreDBInstanceToPointInTime(ctx, in)
	refused(t, "a second restore to the name", err, "DBInstanceAlreadyExists")
	s.Release()
	clone, err := s.WaitInstance(ctx, "clone")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("available %s after the request", time.Since(began).Round(time.Millisecond))
	w.check(t, len(ids(t, connect(t, engine, int(*clone.Endpoint.Port), secret))), by(engine, point))

	if *clone.DbiResourceId == *source.DbiResourceId || *clone.DBInstanceIdentifier != "clone" {
		t.Errorf("the clone is %s (%s): want a new identity", *clone.DBInstanceIdentifier, *clone.DbiResourceId)
	}
	type silent struct {
		subnets, group, parameters, storage                   string
		multiAZ, protected, copyTags, iam, encrypted, upgrade bool
		retention                                             int32
		tags                                                  int
		autoscaling                                           *int32
	}
	of := func(d *types.DBInstance) silent {
		return silent{*d.DBSubnetGroup.DBSubnetGroupName, *d.VpcSecurityGroups[0].VpcSecurityGroupId, *d.DBParameterGroups[0].DBParameterGroupName, *d.StorageType,
			*d.MultiAZ, *d.DeletionProtection, *d.CopyTagsToSnapshot, *d.IAMDatabaseAuthenticationEnabled, *d.StorageEncrypted, *d.AutoMinorVersionUpgrade,
			*d.BackupRetentionPeriod, len(d.TagList), d.MaxAllocatedStorage}
	}
	standard := "default." + engine + major(engine, defaultVersion(engine))
	if got, want := of(clone), (silent{DefaultSubnetGroup, DefaultSecurityGroup, standard, "gp3", false, false, false, false, true, true, 7, 0, nil}); got != want {
		t.Errorf("the clone has %+v: want %+v", got, want)
	}
	// To a time after which nothing was committed, with the source's settings.
	restorable(t, s, "source", time.Now().Truncate(time.Second))
	if _, err := client.RestoreDBInstanceToPointInTime(ctx, &rds.RestoreDBInstanceToPointInTimeInput{SourceDbiResourceId: source.DbiResourceId,
		TargetDBInstanceIdentifier: new("same"),
		UseLatestRestorableTime:    new(true), DBSubnetGroupName: new("private"), DBParameterGroupName: new("TUNED"), MultiAZ: new(true), Tags: source.TagList,
		EnableIAMDatabaseAuthentication: new(true),
		DeletionProtection:              new(true), CopyTagsToSnapshot: new(true), StorageType: new("io1"), Iops: new(int32(1000)),
		MaxAllocatedStorage:     new(int32(100)),
		AutoMinorVersionUpgrade: new(false)}); err != nil {
		t.Fatalf("restoring with settings: %v", err)
	}
	same, err := s.WaitInstance(ctx, "same")
	if err != nil {
		t.Fatal(err)
	}
	if n := len(ids(t, connect(t, engine, int(*same.Endpoint.Port), secret))); n != len(w.from) {
		t.Errorf("the second clone has %d rows: want all %d", n, len(w.from))
	}
	got, want := of(same), of(source)
	want.group = group // the VPC's own default
	if *got.autoscaling != *want.autoscaling {
		t.Errorf("storage may grow to %d: want %d", *got.autoscaling, *want.autoscaling)
	}
	if got.autoscaling, want.autoscaling = nil, nil; got != want {
		t.Errorf("the second clone has %+v: want %+v", got, want)
	}

	// Every refusal leaves nothing behind.
	before := s.Inventory()
	for what, c := range map[string]struct {
		change func(*rds.RestoreDBInstanceToPointInTimeInput)
		code   string
	}{
		"a source that there is not": {func(i *rds.RestoreDBInstanceToPointInTimeInput) { i.SourceDBInstanceIdentifier = new("none") }, "DBInstanceNotFound"},
		"two sources": {func(i *rds.RestoreDBInstanceToPointInTimeInput) { i.SourceDbiResourceId = source.DbiResourceId },
			"InvalidParameterCombination"},
		"too early":                  {func(i *rds.RestoreDBInstanceToPointInTimeInput) { i.RestoreTime = new(point.Add(-time.Hour)) }, "InvalidParameterValue"},
		"in the future":              {func(i *rds.RestoreDBInstanceToPointInTimeInput) { i.RestoreTime = new(point.Add(time.Hour)) }, "InvalidParameterValue"},
		"a fraction of a second":     {func(i *rds.RestoreDBInstanceToPointInTimeInput) { i.RestoreTime = new(point.Add(time.Millisecond)) }, "InvalidParameterValue"},
		"two times":                  {func(i *rds.RestoreDBInstanceToPointInTimeInput) { i.UseLatestRestorableTime = new(true) }, "InvalidParameterCombination"},
		"no time":                    {func(i *rds.RestoreDBInstanceToPointInTimeInput) { i.RestoreTime = nil }, "InvalidParameterCombination"},
		"an unknown subnet group":    {func(i *rds.RestoreDBInstanceToPointInTimeInput) { i.DBSubnetGroupName = new("none") }, "DBSubnetGroupNotFoundFault"},
		"another VPC's group":        {func(i *rds.RestoreDBInstanceToPointInTimeInput) { i.VpcSecurityGroupIds = []string{"sg-app"} }, "InvalidVPCNetworkStateFault"},
		"an unknown parameter group": {func(i *rds.RestoreDBInstanceToPointInTimeInput) { i.DBParameterGroupName = new("none") }, "DBParameterGroupNotFound"},
		"an unknown option group":    {func(i *rds.RestoreDBInstanceToPointInTimeInput) { i.OptionGroupName = new("none") }, "OptionGroupNotFoundFault"},
		"an unknown class":           {func(i *rds.RestoreDBInstanceToPointInTimeInput) { i.DBInstanceClass = new("db.none") }, "InvalidParameterValue"},
		"less storage":               {func(i *rds.RestoreDBInstanceToPointInTimeInput) { i.AllocatedStorage = new(int32(5)) }, "InvalidParameterValue"},
		"a name that is none":        {func(i *rds.RestoreDBInstanceToPointInTimeInput) { i.TargetDBInstanceIdentifier = new("a--b") }, "InvalidParameterValue"},
	} {
		in := rds.RestoreDBInstanceToPointInTimeInput{SourceDBInstanceIdentifier: new("source"), TargetDBInstanceIdentifier: new("third"), RestoreTime: &point}
		c.change(&in)
		_, err := client.RestoreDBInstanceToPointInTime(ctx, &in)
		refused(t, what, err, c.code)
	}
	if err := s.SetEarliest(*source.DbiResourceId, point.Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	_, err = client.RestoreDBInstanceToPointInTime(ctx, &rds.RestoreDBInstanceToPointInTimeInput{SourceDBInstanceIdentifier: new("source"),
		TargetDBInstanceIdentifier: new("third"), RestoreTime: &point})
	refused(t, "a time that the retention period is past", err, "InvalidParameterValue", "cannot be restored to a time earlier than")
	s.SetQuotas(map[string]int64{"DBInstances": 3})
	_, err = client.RestoreDBInstanceToPointInTime(ctx, &rds.RestoreDBInstanceToPointInTimeInput{SourceDBInstanceIdentifier: new("source"),
		TargetDBInstanceIdentifier: new("third"), UseLatestRestorableTime: new(true)})
	refused(t, "one more than the quota", err, "InstanceQuotaExceeded")
	if after := s.Inventory(); !reflect.DeepEqual(before, after) {
		t.Errorf("there is %v: want %v", after, before)
	}
}

// An instance's way from deletion protection to a retained backup, and back from that.
func TestInstance(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := Start(t, Options{Factor: 400})
	client := s.RDS()
	source := seed(t, s, "source", "postgres", nil)
	db := connect(t, "postgres", int(*source.Endpoint.Port), secret)
	execute(t, db, "CREATE TABLE r (id int primary key)", "INSERT INTO r VALUES (1)")
	point := time.Now().Truncate(time.Second).Add(2 * time.Second)
	// Its tags and its automated backup.
	if _, err := client.AddTagsToResource(ctx, &rds.AddTagsToResourceInput{ResourceName: source.DBInstanceArn, Tags: []types.Tag{{Key: new("a"),
		Value: new("1")}, {Key: new("b"), Value: new("2")}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.RemoveTagsFromResource(ctx, &rds.RemoveTagsFromResourceInput{ResourceName: source.DBInstanceArn, TagKeys: []string{"a"}}); err != nil {
		t.Fatal(err)
	}
	tags, err := client.ListTagsForResource(ctx, &rds.ListTagsForResourceInput{ResourceName: source.DBInstanceArn})
	if err != nil || !reflect.DeepEqual(tagMap(tags.TagList), map[string]string{"b": "2"}) {
		t.Errorf("the tags are %v (%v): want b alone", tags, err)
	}
	if got := s.Inventory(); len(got) != 1 || got[0].ResourceID != *source.DbiResourceId || got[0].Tags["b"] != "2" {
		t.Errorf("there is %+v: want the source", got)
	}
	active, err := client.DescribeDBInstanceAutomatedBackups(ctx, &rds.DescribeDBInstanceAutomatedBackupsInput{Filters: []types.Filter{{Name: new("status"),
		Values: []string{"active"}}}})
	if err != nil || len(active.DBInstanceAutomatedBackups) != 1 || active.DBInstanceAutomatedBackups[0].RestoreWindow.EarliestTime == nil {
		t.Errorf("the automated backups are %v (%v): want one", active, err)
	}
	// A change: pending until it is applied, and the instance protected then.
	s.Hold()
	out, err := client.ModifyDBInstance(ctx, &rds.ModifyDBInstanceInput{DBInstanceIdentifier: new("source"), MasterUserPassword: new("another-password"),
		DeletionProtection: new(true),
		DBInstanceClass:    new("db.m6g.large")})
	if err != nil {
		t.Fatal(err)
	}
	if p := out.DBInstance.PendingModifiedValues; p == nil || deref(p.MasterUserPassword) != "****" ||
		*out.DBInstance.DBInstanceStatus != "resetting-master-credentials" {
		t.Errorf("the status is %s, pending %+v: want the password", *out.DBInstance.DBInstanceStatus, p)
	}
	_, err = client.ModifyDBInstance(ctx, &rds.ModifyDBInstanceInput{DBInstanceIdentifier: new("source"), DeletionProtection: new(false)})
	refused(t, "a change during a change", err, "InvalidDBInstanceState")
	s.Release()
	i, err := s.WaitInstance(ctx, "source")
	if err != nil {
		t.Fatal(err)
	}
	if p := i.PendingModifiedValues; p == nil || deref(p.DBInstanceClass) != "db.m6g.large" || *i.DBInstanceClass != "db.t3.medium" {
		t.Errorf("the class is %s, pending %+v: want it to wait for the maintenance window", *i.DBInstanceClass, p)
	}
	if n := ids(t, connect(t, "postgres", int(*source.Endpoint.Port), "another-password")); len(n) != 1 {
		t.Errorf("with the new password there are the rows %v", n)
	}
	if err := connect(t, "postgres", int(*source.Endpoint.Port), secret).PingContext(ctx); err == nil {
		t.Error("the old password still works")
	}
	remove := &rds.DeleteDBInstanceInput{DBInstanceIdentifier: new("source"), SkipFinalSnapshot: new(true), DeleteAutomatedBackups: new(false)}
	_, err = client.DeleteDBInstance(ctx, remove)
	refused(t, "a protected instance", err, "InvalidParameterCombination", "protected")
	if _, err := client.ModifyDBInstance(ctx, &rds.ModifyDBInstanceInput{DBInstanceIdentifier: new("source"), DeletionProtection: new(false),
		ManageMasterUserPassword: new(true)}); err != nil {
		t.Fatal(err)
	}
	if i, err = s.WaitInstance(ctx, "source"); err != nil {
		t.Fatal(err)
	}
	managed := s.Secret(*i.MasterUserSecret.SecretArn)
	if n := ids(t, connect(t, "postgres", int(*source.Endpoint.Port), managed)); len(n) != 1 {
		t.Errorf("with the managed password there are the rows %v", n)
	}
	_, err = client.DeleteDBInstance(ctx, &rds.DeleteDBInstanceInput{DBInstanceIdentifier: new("source")})
	refused(t, "no word on a final snapshot", err, "InvalidParameterCombination", "FinalDBSnapshotIdentifier")
	<-time.After(time.Until(point.Add(time.Second)))
	execute(t, connect(t, "postgres", int(*source.Endpoint.Port), managed), "INSERT INTO r VALUES (2)")
	<-time.After(time.Until(time.Now().Truncate(time.Second).Add(time.Second)))
	s.Hold()
	if _, err := client.DeleteDBInstance(ctx, remove); err != nil {
		t.Fatal(err)
	}
	if dial(i) {
		deadline := time.Now().Add(time.Minute)
		for dial(i) && time.Now().Before(deadline) {
			<-time.After(10 * time.Millisecond)
		}
	}
	_, err = client.DeleteDBInstance(ctx, remove)
	refused(t, "a second deletion", err, "InvalidDBInstanceState")
	s.Release()
	waiter := rds.NewDBInstanceDeletedWaiter(client, func(o *rds.DBInstanceDeletedWaiterOptions) { o.MinDelay, o.MaxDelay = poll, poll })
	if err := waiter.Wait(ctx, &rds.DescribeDBInstancesInput{DBInstanceIdentifier: new("source")}, 2*time.Minute); err != nil {
		t.Fatal(err)
	}
	backups, err := client.DescribeDBInstanceAutomatedBackups(ctx, &rds.DescribeDBInstanceAutomatedBackupsInput{DbiResourceId: source.DbiResourceId})
	if err != nil {
		t.Fatal(err)
	}
	b := backups.DBInstanceAutomatedBackups[0]
	if *b.Status != "retained" || b.OptionGroupName != nil || b.RestoreWindow.EarliestTime.After(point) || b.RestoreWindow.LatestTime.Before(point) {
		t.Fatalf("the backup is %s, %+v", *b.Status, b.RestoreWindow)
	}
	for id, want := range map[string]int{"by-arn": 1, "latest": 2} {
		in := &rds.RestoreDBInstanceToPointInTimeInput{SourceDBInstanceAutomatedBackupsArn: b.DBInstanceAutomatedBackupsArn, TargetDBInstanceIdentifier: &id,
			RestoreTime: &point}
		if want == 2 {
			in.RestoreTime, in.UseLatestRestorableTime = nil, new(true)
		}
		if _, err := client.RestoreDBInstanceToPointInTime(ctx, in); err != nil {
			t.Fatal(err)
		}
		clone, err := s.WaitInstance(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		if n := ids(t, connect(t, "postgres", int(*clone.Endpoint.Port), managed)); len(n) != want {
			t.Errorf("%s has the rows %v: want %d", id, n, want)
		}
		if clone.MasterUserSecret != nil {
			t.Errorf("%s has a managed password: want it not to", id)
		}
	}
	s.Expire(*source.DbiResourceId)
	_, err = client.RestoreDBInstanceToPointInTime(ctx,
		&rds.RestoreDBInstanceToPointInTimeInput{SourceDBInstanceAutomatedBackupsArn: b.DBInstanceAutomatedBackupsArn,
			TargetDBInstanceIdentifier: new("gone"), RestoreTime: &point})
	refused(t, "an expired backup", err, "DBInstanceAutomatedBackupNotFound")
	seed(t, s, "unkept", "postgres", func(in *rds.CreateDBInstanceInput) { in.BackupRetentionPeriod = new(int32(0)) })
	_, err = client.RestoreDBInstanceToPointInTime(ctx, &rds.RestoreDBInstanceToPointInTimeInput{SourceDBInstanceIdentifier: new("unkept"),
		TargetDBInstanceIdentifier: new("x"), UseLatestRestorableTime: new(true)})
	refused(t, "a source without backups", err, "PointInTimeRestoreNotEnabled")
}

// A snapshot holds what was committed when it was taken, and says so.
func TestSnapshot(t *testing.T) {
	t.Parallel()
	for name, engine := range families {
		t.Run(name, func(t *testing.T) { testSnapshot(t, engine) })
	}
}

const other = "210987654321"

func testSnapshot(t *testing.T, engine string) {
	t.Parallel()
	ctx := t.Context()
	s := Start(t, Options{Factor: 400, Accounts: map[string]string{AccessKey: Account, "AKIAOTHER": other}})
	client := s.RDS()
	key := s.AddKey(Account, Region, "mine", true)
	source := seed(t, s, "source", engine, func(in *rds.CreateDBInstanceInput) {
		in.KmsKeyId, in.Tags, in.CopyTagsToSnapshot = &key, []types.Tag{{Key: new("team"), Value: new("a")}}, new(true)
	})
	db := connect(t, engine, int(*source.Endpoint.Port), secret)
	execute(t, db, "CREATE TABLE r (id int primary key)")
	w := write(ctx, db, 1)
	w.more(t, 10)
	rest := func() {
		t.Helper()
		if _, err := s.WaitInstance(ctx, "source"); err != nil {
			t.Fatal(err)
		}
	}
	take := func(id string) (*types.DBSnapshot, error) {
		out, err := client.CreateDBSnapshot(ctx, &rds.CreateDBSnapshotInput{DBInstanceIdentifier: new("source"), DBSnapshotIdentifier: &id,
			Tags: []types.Tag{{Key: new("run"), Value: new("1")}}})
		if err != nil {
			return nil, err
		}
		return out.DBSnapshot, nil
	}
	rest()
	s.Hold()
	requested := time.Now()
	begun, err := take("first")
	if err != nil {
		t.Fatal(err)
	}
	answered := time.Now()
	if *begun.Status != creating || begun.SnapshotDatabaseTime != nil {
		t.Errorf("the snapshot is %s, as of %v: want it to be creating", *begun.Status, begun.SnapshotDatabaseTime)
	}
	_, err = client.DeleteDBSnapshot(ctx, &rds.DeleteDBSnapshotInput{DBSnapshotIdentifier: new("first")})
	refused(t, "the deletion of what is being created", err, "InvalidDBSnapshotState")
	_, err = client.CreateDBSnapshot(ctx, &rds.CreateDBSnapshotInput{DBInstanceIdentifier: new("source"), DBSnapshotIdentifier: new("second")})
	refused(t, "a snapshot while there is one under way", err, "InvalidDBInstanceState")
	s.Release()
	w.more(t, 10)
	w.end(t)
	snap := waitSnapshot(t, client, "first")
	last := *snap.SnapshotDatabaseTime
	committed := 0 // before it was requested
	for committed < len(w.to) && w.to[committed].Before(requested) {
		committed++
	}
	if last.Before(w.from[committed-1].Truncate(time.Second)) || last.After(answered) {
		t.Errorf("the last transaction in it was at %s, it was requested at %s, and answered by %s", last, requested, answered)
	}
	if _, err := client.RestoreDBInstanceFromDBSnapshot(ctx, &rds.RestoreDBInstanceFromDBSnapshotInput{DBInstanceIdentifier: new("clone"),
		DBSnapshotIdentifier: new("first")}); err != nil {
		t.Fatal(err)
	}
	clone, err := s.WaitInstance(ctx, "clone")
	if err != nil {
		t.Fatal(err)
	}
	have := ids(t, connect(t, engine, int(*clone.Endpoint.Port), secret))
	if n := len(have); n < 10 || n < committed || n >= len(w.from) {
		t.Errorf("the clone has %d rows of %d", n, len(w.from))
	} else if at := w.from[n-1]; last.Before(at.Truncate(time.Second)) || (engine == "postgres" && last.Before(at.Truncate(time.Millisecond))) ||
		(engine == "postgres" && last.After(w.to[n-1])) {
		t.Errorf("the last row was committed from %s to %s, the snapshot says %s", at, w.to[n-1], last)
	}
	if got := tagMap(snap.TagList); got["team"] != "a" || got["run"] != "1" {
		t.Errorf("the snapshot has the tags %v", got)
	}

	// Shared with another account, it has to be copied there, with a key of theirs.
	theirs := rds.NewFromConfig(s.Config("AKIAOTHER", ""))
	describe := &rds.DescribeDBSnapshotsInput{DBSnapshotIdentifier: snap.DBSnapshotArn}
	_, err = theirs.DescribeDBSnapshots(ctx, describe)
	refused(t, "another account's snapshot", err, "DBSnapshotNotFound")
	if _, err := client.ModifyDBSnapshotAttribute(ctx, &rds.ModifyDBSnapshotAttributeInput{DBSnapshotIdentifier: new("first"), AttributeName: new("restore"),
		ValuesToAdd: []string{other}}); err != nil {
		t.Fatal(err)
	}
	attributes, err := client.DescribeDBSnapshotAttributes(ctx, &rds.DescribeDBSnapshotAttributesInput{DBSnapshotIdentifier: new("first")})
	if err != nil || !slices.Equal(attributes.DBSnapshotAttributesResult.DBSnapshotAttributes[0].AttributeValues, []string{other}) {
		t.Errorf("it is shared with %v (%v)", attributes, err)
	}
	if _, err = theirs.DescribeDBSnapshots(ctx, describe); err != nil {
		t.Errorf("looking at a shared snapshot: %v", err)
	}
	_, err = theirs.RestoreDBInstanceFromDBSnapshot(ctx, &rds.RestoreDBInstanceFromDBSnapshotInput{DBInstanceIdentifier: new("clone"),
		DBSnapshotIdentifier: snap.DBSnapshotArn})
	refused(t, "a restore from a shared encrypted snapshot", err, "KMSKeyNotAccessibleFault")
	_, err = theirs.CopyDBSnapshot(ctx, &rds.CopyDBSnapshotInput{SourceDBSnapshotIdentifier: snap.DBSnapshotArn, TargetDBSnapshotIdentifier: new("copy")})
	refused(t, "a copy without a key", err, "InvalidParameterCombination", "KmsKeyId")
	_, err = theirs.CopyDBSnapshot(ctx, &rds.CopyDBSnapshotInput{SourceDBSnapshotIdentifier: snap.DBSnapshotArn, TargetDBSnapshotIdentifier: new("copy"),
		KmsKeyId: new("none")})
	refused(t, "a copy with an unknown key", err, "KMSKeyNotAccessibleFault")
	ours := s.AddKey(other, Region, "theirs", true)
	if _, err := theirs.CopyDBSnapshot(ctx, &rds.CopyDBSnapshotInput{SourceDBSnapshotIdentifier: snap.DBSnapshotArn, TargetDBSnapshotIdentifier: new("copy"),
		KmsKeyId: &ours}); err != nil {
		t.Fatal(err)
	}
	copied := waitSnapshot(t, theirs, "copy")
	if *copied.KmsKeyId != ours || !copied.OriginalSnapshotCreateTime.Equal(*snap.OriginalSnapshotCreateTime) ||
		!copied.SnapshotCreateTime.After(*snap.SnapshotCreateTime) || !copied.SnapshotDatabaseTime.Equal(last) {
		t.Errorf("the copy is %+v", copied)
	}
	// To another region, the SDK signs a URL for the source region.
	west := rds.NewFromConfig(s.Config("", "us-west-2"))
	there := s.AddKey(Account, "us-west-2", "west", true)
	if _, err := west.CopyDBSnapshot(ctx, &rds.CopyDBSnapshotInput{SourceDBSnapshotIdentifier: snap.DBSnapshotArn, TargetDBSnapshotIdentifier: new("copy"),
		KmsKeyId: &there, SourceRegion: new(Region)}); err != nil {
		t.Fatalf("copying to another region: %v", err)
	}
	waitSnapshot(t, west, "copy")

	// One that is taken later than it was asked for has later writes, and tells so.
	rest()
	s.SetSnapshotDelay(300 * time.Millisecond)
	requested = time.Now()
	if _, err := take("late"); err != nil {
		t.Fatal(err)
	}
	// The clock of a binary log has whole seconds.
	<-time.After(10 * time.Millisecond)
	execute(t, db, "INSERT INTO r VALUES (100000)")
	if late := waitSnapshot(t, client, "late"); late.SnapshotDatabaseTime.Before(requested.Truncate(time.Second)) || (engine == "postgres" &&
		late.SnapshotDatabaseTime.Before(requested.Truncate(time.Millisecond))) {
		t.Errorf("the last transaction in the late snapshot was at %s, before %s", late.SnapshotDatabaseTime, requested)
	}
	rest()
	s.SetQuotas(map[string]int64{"ManualSnapshots": 2})
	_, err = take("third")
	refused(t, "one more than the quota", err, "SnapshotQuotaExceeded")
	if _, err := client.DeleteDBSnapshot(ctx, &rds.DeleteDBSnapshotInput{DBSnapshotIdentifier: new("late")}); err != nil {
		t.Fatal(err)
	}
	s.AddKey(Account, Region, "mine", false)
	_, err = take("third")
	refused(t, "a key that is disabled", err, "KMSKeyNotAccessibleFault")
}

func waitSnapshot(t *testing.T, client *rds.Client, id string) types.DBSnapshot {
	t.Helper()
	w := rds.NewDBSnapshotAvailableWaiter(client, func(o *rds.DBSnapshotAvailableWaiterOptions) { o.MinDelay, o.MaxDelay = poll, poll })
	out, err := w.WaitForOutput(t.Context(), &rds.DescribeDBSnapshotsInput{DBSnapshotIdentifier: &id}, 2*time.Minute)
	if err != nil {
		t.Fatalf("waiting for the snapshot %s: %v", id, err)
	}
	return out.DBSnapshots[0]
}

// A restored cluster has no instances, and nothing answers until it has one.
func TestCluster(t *testing.T) {
	t.Parallel()
	for name, engine := range map[string]string{"PostgreSQL": "aurora-postgresql", "MySQL": "aurora-mysql"} {
		t.Run(name, func(t *testing.T) { testCluster(t, engine) })
	}
}

func testCluster(t *testing.T, engine string) {
	t.Parallel()
	ctx := t.Context()
	s := Start(t, Options{Factor: 400})
	client := s.RDS()
	source, err := s.SeedCluster(ctx, &rds.CreateDBClusterInput{DBClusterIdentifier: new("source"), Engine: &engine, MasterUsername: new(master),
		MasterUserPassword: new(secret), DatabaseName: new("app"),
		DeletionProtection: new(true), EnableIAMDatabaseAuthentication: new(true)})
	if err != nil {
		t.Fatal(err)
	}
	db := connect(t, engine, int(*source.Port), secret)
	execute(t, db, "CREATE TABLE r (id int primary key)", "INSERT INTO r VALUES (1)")
	point := time.Now().Truncate(time.Second).Add(2 * time.Second)
	<-time.After(time.Until(point.Add(100 * time.Millisecond)))
	execute(t, db, "INSERT INTO r VALUES (2)")
	if _, err := client.CreateDBClusterSnapshot(ctx, &rds.CreateDBClusterSnapshotInput{DBClusterIdentifier: new("source"),
		DBClusterSnapshotIdentifier: new("two")}); err != nil {
		t.Fatal(err)
	}
	execute(t, db, "INSERT INTO r VALUES (3)")
	_, err = client.RestoreDBClusterToPointInTime(ctx, &rds.RestoreDBClusterToPointInTimeInput{DBClusterIdentifier: new("x"),
		SourceDBClusterIdentifier: new("source"), RestoreToTime: &point, RestoreType: new("copy-on-write")})
	refused(t, "a clone to a time", err, "InvalidParameterCombination", "copy-on-write")
	deadline := time.After(time.Minute)
	for {
		out, err := client.DescribeDBClusters(ctx, &rds.DescribeDBClustersInput{DBClusterIdentifier: new("source")})
		if err != nil {
			t.Fatal(err)
		}
		if l := out.DBClusters[0].LatestRestorableTime; l != nil && l.After(point) {
			break
		}
		select {
		case <-deadline:
			t.Fatalf("the cluster is not restorable to %s", point)
		case <-time.After(20 * time.Millisecond):
		}
	}
	snapshot := func() bool {
		out, err := client.DescribeDBClusterSnapshots(ctx, &rds.DescribeDBClusterSnapshotsInput{DBClusterSnapshotIdentifier: new("two")})
		return err == nil && *out.DBClusterSnapshots[0].Status == available
	}
	for !snapshot() {
		<-time.After(poll)
	}
	if _, err := client.RestoreDBClusterToPointInTime(ctx, &rds.RestoreDBClusterToPointInTimeInput{DBClusterIdentifier: new("one"),
		SourceDBClusterIdentifier: new("source"), RestoreToTime: &point}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.RestoreDBClusterFromSnapshot(ctx, &rds.RestoreDBClusterFromSnapshotInput{DBClusterIdentifier: new("two"),
		SnapshotIdentifier: new("two"), Engine: &engine}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.RestoreDBClusterToPointInTime(ctx, &rds.RestoreDBClusterToPointInTimeInput{DBClusterIdentifier: new("three"),
		SourceDBClusterIdentifier: new("source"), UseLatestRestorableTime: new(true), RestoreType: new("copy-on-write")}); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]int{"one": 1, "two": 2, "three": 3} {
		c, err := s.WaitCluster(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		if *c.DbClusterResourceId == *source.DbClusterResourceId || *c.DeletionProtection || *c.IAMDatabaseAuthenticationEnabled || len(c.DBClusterMembers) != 0 {
			t.Errorf("the restored cluster is %+v", c)
		}
		if err := connect(t, engine, int(*c.Port), secret).PingContext(ctx); err == nil {
			t.Errorf("the cluster %s answers without an instance", id)
		}
		began := time.Now()
		i, err := s.Seed(ctx, &rds.CreateDBInstanceInput{DBInstanceIdentifier: new(id + "-1"), DBClusterIdentifier: &id, Engine: &engine,
			DBInstanceClass: new("db.r6g.large")})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("the instance is available after %s", time.Since(began).Round(time.Millisecond))
		if *i.Endpoint.Port != *c.Port {
			t.Errorf("the instance has the port %d, the cluster %d", *i.Endpoint.Port, *c.Port)
		}
		if got := ids(t, connect(t, engine, int(*c.Port), secret)); len(got) != want {
			t.Errorf("the cluster %s has the rows %v: want %d", id, got, want)
		}
	}
	// Snapshots are shared and copied as an instance's are.
	if _, err := client.ModifyDBClusterSnapshotAttribute(ctx, &rds.ModifyDBClusterSnapshotAttributeInput{DBClusterSnapshotIdentifier: new("two"),
		AttributeName: new("restore"), ValuesToAdd: []string{other}}); err != nil {
		t.Fatal(err)
	}
	s.Hold()
	copied, err := client.CopyDBClusterSnapshot(ctx, &rds.CopyDBClusterSnapshotInput{SourceDBClusterSnapshotIdentifier: new("two"),
		TargetDBClusterSnapshotIdentifier: new("copy")})
	if err != nil || *copied.DBClusterSnapshot.DbClusterResourceId != *source.DbClusterResourceId {
		t.Errorf("copying the snapshot: %v, %v", copied, err)
	}
	_, err = client.DeleteDBClusterSnapshot(ctx, &rds.DeleteDBClusterSnapshotInput{DBClusterSnapshotIdentifier: new("copy")})
	refused(t, "the deletion of a copy that is under way", err, "InvalidDBClusterSnapshotStateFault")
	s.Release()
	if _, err = client.DeleteDBClusterSnapshot(ctx, &rds.DeleteDBClusterSnapshotInput{DBClusterSnapshotIdentifier: new("two")}); err != nil {
		t.Errorf("deleting the snapshot: %v", err)
	}
	_, err = client.DeleteDBCluster(ctx, &rds.DeleteDBClusterInput{DBClusterIdentifier: new("source"), SkipFinalSnapshot: new(true)})
	refused(t, "a protected cluster", err, "InvalidParameterCombination")
	_, err = client.DeleteDBCluster(ctx, &rds.DeleteDBClusterInput{DBClusterIdentifier: new("one"), SkipFinalSnapshot: new(true)})
	refused(t, "a cluster with an instance", err, "InvalidDBClusterStateFault")
	// Without its instance nothing answers; with a new one the data is there again.
	c, err := s.WaitCluster(ctx, "one")
	if err != nil {
		t.Fatal(err)
	}
	execute(t, connect(t, engine, int(*c.Port), secret), "INSERT INTO r VALUES (10)")
	if _, err := client.DeleteDBInstance(ctx, &rds.DeleteDBInstanceInput{DBInstanceIdentifier: new("one-1")}); err != nil {
		t.Fatal(err)
	}
	waiter := rds.NewDBInstanceDeletedWaiter(client, func(o *rds.DBInstanceDeletedWaiterOptions) { o.MinDelay, o.MaxDelay = poll, poll })
	if err := waiter.Wait(ctx, &rds.DescribeDBInstancesInput{DBInstanceIdentifier: new("one-1")}, 2*time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := connect(t, engine, int(*c.Port), secret).PingContext(ctx); err == nil {
		t.Error("the cluster answers without its instance")
	}
	if _, err := s.Seed(ctx, &rds.CreateDBInstanceInput{DBInstanceIdentifier: new("one-2"), DBClusterIdentifier: new("one"), Engine: &engine,
		DBInstanceClass: new("db.r6g.large")}); err != nil {
		t.Fatal(err)
	}
	if c, err = s.WaitCluster(ctx, "one"); err != nil {
		t.Fatal(err)
	}
	if got := ids(t, connect(t, engine, int(*c.Port), secret)); len(got) != 2 {
		t.Errorf("the cluster has the rows %v: want 1 and 10", got)
	}
}

// The service's clock is off as a whole: a restore time is one of its clock.
func TestClockOffset(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := Start(t, Options{Factor: 400})
	source := seed(t, s, "source", "mariadb", nil)
	db := connect(t, "mariadb", int(*source.Endpoint.Port), secret)
	execute(t, db, "CREATE TABLE r (id int primary key)", "INSERT INTO r VALUES (1)")
	point := time.Now().Truncate(time.Second).Add(2 * time.Second)
	<-time.After(time.Until(point.Add(time.Millisecond)))
	execute(t, db, "INSERT INTO r VALUES (2)")
	const off = 10 * time.Second
	s.SetClockOffset(off)
	restorable(t, s, "source", point.Add(off)) // by its own clock, which is ahead
	if _, err := s.RDS().RestoreDBInstanceToPointInTime(ctx, &rds.RestoreDBInstanceToPointInTimeInput{SourceDBInstanceIdentifier: new("source"),
		TargetDBInstanceIdentifier: new("clone"),
		RestoreTime:                new(point.Add(off))}); err != nil {
		t.Fatal(err)
	}
	clone, err := s.WaitInstance(ctx, "clone")
	if err != nil {
		t.Fatal(err)
	}
	if got := ids(t, connect(t, "mariadb", int(*clone.Endpoint.Port), secret)); len(got) != 1 {
		t.Errorf("the clone has the rows %v: want 1", got)
	}
}

// Close leaves no database, also of what is being made.
func TestClose(t *testing.T) {
	s, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	var up []*types.DBInstance
	for name, engine := range families {
		up = append(up, seed(t, s, name, engine, nil))
	}
	if _, err := s.RDS().CreateDBInstance(t.Context(), &rds.CreateDBInstanceInput{DBInstanceIdentifier: new("making"), Engine: new("postgres"),
		DBInstanceClass:  new("db.t3.micro"),
		AllocatedStorage: new(int32(20)), MasterUsername: new(master), MasterUserPassword: new(secret)}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, i := range up {
		if dial(i) {
			t.Errorf("%s still answers", *i.DBInstanceIdentifier)
		}
	}
	if _, err := os.Stat(s.store.dir); !os.IsNotExist(err) {
		t.Errorf("the databases' folder is still there: %v", err)
	}
	if errs := s.Errors(); errs != nil {
		t.Errorf("closing was an error: %v", errs)
	}
}
