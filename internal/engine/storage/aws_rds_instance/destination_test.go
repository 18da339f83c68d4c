package awsrdsinstance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	shared "github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/rds"
)

const restoreRun = "00000000000beef0"

// order is one restore over a world.
type order struct {
	w         *world
	s         DestinationSettings
	b         engine.StorageBackup
	announced []engine.Restored
	said      []string
}

// byTimeOrder restores the instance orders, as a backup recorded it, to five minutes ago.
func (w *world) byTimeOrder() *order {
	i := w.instances["orders"]
	settings, err := shapeOf(*i, w.place).encode()
	if err != nil {
		w.t.Fatal(err)
	}
	extra := map[string]string{shared.ExtraIdentifier: "orders", shared.ExtraAccount: w.place.Account, shared.ExtraRegion: w.place.Region, shared.ExtraSettings: settings}
	o := &order{w: w, s: DestinationSettings{Identifier: "staging", Storage: stored, Clock: w.clock, Open: w.open}}
	o.b = engine.StorageBackup{
		Storage: stored, RunID: restoreRun, Name: "staging", RestorePoint: w.clock.Now().Add(-2 * time.Minute).Truncate(time.Second),
		Record: engine.StorageRecord{Driver: kindName, SourceID: aws.ToString(i.DbiResourceId), ByTime: true, Extra: extra},
		Report: func(m string, fields map[string]any) { o.said = append(o.said, fmt.Sprintf("%s %v", m, fields)) },
		Announce: func(_ context.Context, r engine.Restored) error {
			data, err := json.Marshal(r)
			var c engine.Restored
			if err == nil {
				err = json.Unmarshal(data, &c)
			}
			o.announced = append(o.announced, c)
			return err
		},
	}
	return o
}

// fromSnapshot restores a snapshot of the instance orders.
func (w *world) fromSnapshot() *order {
	o := w.byTimeOrder()
	i := w.instances["orders"]
	w.snapshots["snap"] = &types.DBSnapshot{DBSnapshotIdentifier: aws.String("snap"), DBSnapshotArn: aws.String(w.place.ARN("snapshot", "snap")), Status: aws.String("available"), DbiResourceId: i.DbiResourceId,
		Engine: i.Engine, Encrypted: i.StorageEncrypted, KmsKeyId: i.KmsKeyId, AllocatedStorage: i.AllocatedStorage, MasterUsername: i.MasterUsername}
	o.b.RestorePoint, o.b.Record.ByTime = time.Time{}, false
	o.b.Record.Artifacts = []engine.Artifact{{Kind: snapshotKind, ID: w.place.ARN("snapshot", "snap"), Extra: map[string]string{shared.ExtraAccount: w.place.Account, shared.ExtraRegion: w.place.Region}}}
	return o
}

func (o *order) destination() *Destination { return NewDestination(o.s) }

func TestRestoreByTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.byTimeOrder()
		o.s.Tags = map[string]string{"env": "staging"}
		o.s.Shape.Class = "db.t4g.medium"
		w.lose = func(call string) error {
			if call == "RestoreDBInstanceToPointInTime" && len(o.announced) == 0 {
				t.Error("the instance was requested before it was announced")
			}
			return nil
		}
		d := o.destination()
		if err := d.Preflight(t.Context(), o.b); err != nil {
			t.Fatalf("what only time brings was refused: %v", err)
		}
		r, err := d.Restore(t.Context(), o.b)
		if err != nil {
			t.Fatal(err)
		}
		in := w.restores[0]
		if !in.RestoreTime.Equal(o.b.RestorePoint) || aws.ToString(in.SourceDbiResourceId) != "db-0001" || aws.ToString(in.DBInstanceClass) != "db.t4g.medium" {
			t.Errorf("restored %+v", in)
		}
		if aws.ToString(in.DBSubnetGroupName) != "prod" || len(in.VpcSecurityGroupIds) != 1 || in.VpcSecurityGroupIds[0] != "sg-prod" || aws.ToString(in.DBParameterGroupName) != "orders-pg15" ||
			!aws.ToBool(in.MultiAZ) || !aws.ToBool(in.DeletionProtection) || !aws.ToBool(in.EnableIAMDatabaseAuthentication) || aws.ToInt32(in.Iops) != 4000 || aws.ToString(in.StorageType) != "io2" || aws.ToInt32(in.Port) != 5432 {
			t.Errorf("the source's settings are not those of the copy: %+v", in)
		}
		tags := shared.TagsOf(in.Tags)
		if tags["team"] != "orders" || tags["env"] != "staging" || tags["aws:cloudformation:stack-name"] != "" || tags[shared.TagRestore] != "staging" || tags[shared.TagRunID] != restoreRun {
			t.Errorf("tags %v", tags)
		}
		made := w.instances["staging"]
		if aws.ToInt32(made.BackupRetentionPeriod) != 14 || aws.ToInt32(made.MonitoringInterval) != 60 || aws.ToString(made.PreferredBackupWindow) != "02:00-03:00" || aws.ToString(made.VpcSecurityGroups[0].VpcSecurityGroupId) != "sg-prod" {
			t.Errorf("what the restore dropped was not put back: %+v", w.modifies)
		}
		if len(r.Objects) != 1 || r.Objects[0].Extra[shared.ExtraResourceID] != aws.ToString(made.DbiResourceId) || r.Objects[0].Extra[shared.ExtraARN] != aws.ToString(made.DBInstanceArn) || !r.Objects[0].Created {
			t.Errorf("restored %+v", r)
		}
		if first := o.announced[0].Objects[0]; first.Extra[shared.ExtraRunID] != restoreRun || first.Extra[shared.ExtraResourceID] != "" {
			t.Errorf("announced first %+v", first)
		}
		if last := o.announced[len(o.announced)-1].Objects[0]; last.Extra[shared.ExtraResourceID] == "" {
			t.Errorf("announced last %+v", last)
		}
		if r.Endpoint != "staging.example.com" || r.Port != 5432 || r.Properties["contact_points"] != "jdbc:postgresql://staging.example.com:5432/shop" || r.Properties["storage"] != "jdbc" {
			t.Errorf("restored %+v", r)
		}
		if err := d.Inspect(t.Context(), r); err != nil {
			t.Errorf("Inspect: %v", err)
		}
		// Deletion protection came from the source by way of the restore: it is the restore's to lift.
		for range 2 {
			if err := d.Delete(t.Context(), r); err != nil {
				t.Errorf("Delete: %v", err)
			}
		}
		if err := d.Inspect(t.Context(), r); !errors.Is(err, engine.ErrNotFound) || w.instances["staging"] != nil || w.instances["orders"] == nil {
			t.Errorf("after Delete: %v", err)
		}
	})
}

func TestRefusals(t *testing.T) {
	password := &shared.Login{Username: "admin", Password: "a secret of some length"}
	for name, c := range map[string]struct {
		change func(*world, *order)
		want   string
	}{
		"the identifier is taken": {func(w *world, _ *order) { w.put("staging", "postgres") }, "choose another identifier"},
		"the source was replaced": {func(w *world, _ *order) { w.put("orders", "postgres") }, "was deleted, and no automated backups of it are retained"},
		"the source is gone":      {func(w *world, _ *order) { delete(w.instances, "orders") }, "was deleted, and no automated backups of it are retained"},
		"backups are off":         {func(w *world, _ *order) { w.instances["orders"].BackupRetentionPeriod = aws.Int32(0) }, "switched off"},
		"retention is over":       {func(_ *world, o *order) { o.b.RestorePoint = o.b.RestorePoint.Add(-15 * 24 * time.Hour) }, "reach back to"},
		"retained backups ended before": {func(w *world, o *order) {
			w.retained = []types.DBInstanceAutomatedBackup{{DbiResourceId: aws.String("db-0001"), RestoreWindow: &types.RestoreWindow{EarliestTime: aws.Time(o.b.RestorePoint.Add(-time.Hour)), LatestTime: aws.Time(o.b.RestorePoint)}}}
			delete(w.instances, "orders")
		}, "its retained backups end at"},
		"another source":       {func(_ *world, o *order) { o.s.SourceIdentifier = "payments" }, "the backup is of DB instance orders"},
		"no source at all":     {func(_ *world, o *order) { o.b.Record = engine.StorageRecord{} }, "set source_identifier"},
		"another region":       {func(_ *world, o *order) { o.s.Region = "us-east-1" }, "source_automated_backup_arn"},
		"another account":      {func(w *world, _ *order) { w.place.Account = "999999999999" }, "credentials of that account"},
		"another key":          {func(_ *world, o *order) { o.s.KMSKey = "alias/other" }, `method = "snapshot"`},
		"no such subnet group": {func(_ *world, o *order) { o.s.Shape.SubnetGroup = "nowhere" }, "set db_subnet_group_name"},
		"less storage":         {func(_ *world, o *order) { o.s.Shape.Allocated = 100 }, "storage can only grow"},
		"a zone for two":       {func(_ *world, o *order) { o.s.Shape.Zone, o.s.Shape.MultiAZ = "eu-central-1a", aws.Bool(true) }, "Multi-AZ"},
		"quota": {func(w *world, _ *order) {
			w.quotas = []types.AccountQuota{{AccountQuotaName: aws.String("DBInstances"), Used: aws.Int64(40), Max: aws.Int64(40)}}
		}, "40 of 40 DB instances"},
		"no password": {func(_ *world, o *order) { o.s.SetMasterPassword = true }, "credentials"},
		"password of another": {func(_ *world, o *order) {
			o.s.SetMasterPassword, o.s.Login = true, &shared.Login{Username: "reader", Password: "long enough"}
		}, "master user admin"},
		"a short password": {func(_ *world, o *order) {
			o.s.SetMasterPassword, o.s.Login = true, &shared.Login{Username: "admin", Password: "short"}
		}, "8 characters"},
		"a snapshot by time": {func(_ *world, o *order) { o.b.Record.ByTime = false }, "scalardb_snapshot_restore"},
		"not by time":        {func(_ *world, o *order) { o.b.RestorePoint = time.Time{} }, "no " + snapshotKind},
		"two things at once": {func(w *world, o *order) {
			o.s.Login, o.s.SetMasterPassword = password, true
			w.put("staging", "x")
			o.s.KMSKey = "alias/other"
		}, "choose another identifier"},
		"one more, of two things": {func(w *world, o *order) {
			o.s.Login, o.s.SetMasterPassword = password, true
			w.put("staging", "x")
			o.s.KMSKey = "alias/other"
		}, "alias/other"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				o := w.byTimeOrder()
				c.change(w, o)
				there := len(w.instances)
				err := o.destination().Preflight(t.Context(), o.b)
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("Preflight does not say %q: %v", c.want, err)
				}
				r, err := o.destination().Restore(t.Context(), o.b)
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("Restore does not repeat %q: %v", c.want, err)
				}
				if len(w.instances) != there || len(r.Objects) != 0 || len(o.announced) != 0 {
					t.Errorf("something was made: %+v", r)
				}
			})
		})
	}
}

// TestPlanOverItself: at plan, what a restore made is no obstacle (it may be what is replaced); what nobody restored is.
func TestPlanOverItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.byTimeOrder()
		w.put("staging", "postgres").TagList = shared.Tags(map[string]string{shared.TagRestore: "staging"})
		o.b.RunID = ""
		if err := o.destination().Preflight(t.Context(), o.b); err != nil {
			t.Errorf("at plan: %v", err)
		}
		o.b.RunID = restoreRun
		if err := o.destination().Preflight(t.Context(), o.b); err == nil {
			t.Error("at apply it would be overwritten")
		}
	})
}

// TestDeletedSource: retained automated backups restore an instance that is gone, with the settings that the backup recorded.
func TestDeletedSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.byTimeOrder()
		w.retained = []types.DBInstanceAutomatedBackup{{DbiResourceId: aws.String("db-0001"), DBInstanceIdentifier: aws.String("orders"), Engine: aws.String("postgres"),
			RestoreWindow: &types.RestoreWindow{EarliestTime: aws.Time(o.b.RestorePoint.Add(-time.Hour)), LatestTime: aws.Time(o.b.RestorePoint.Add(time.Minute))}}}
		w.put("orders", "mysql") // another one has its name by now
		if _, err := o.destination().Restore(t.Context(), o.b); err != nil {
			t.Fatal(err)
		}
		in := w.restores[0]
		if aws.ToString(in.SourceDbiResourceId) != "db-0001" || aws.ToString(in.DBInstanceClass) != "db.r6g.large" || aws.ToString(in.DBParameterGroupName) != "orders-pg15" {
			t.Errorf("restored %+v", in)
		}
	})
}

func TestReplicatedBackups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.byTimeOrder()
		o.s.Region, o.s.AutomatedBackupARN = "us-east-1", "arn:aws:rds:us-east-1:111122223333:auto-backup:ab-1"
		w.retained = []types.DBInstanceAutomatedBackup{{DbiResourceId: aws.String("db-0001"), DBInstanceAutomatedBackupsArn: aws.String(o.s.AutomatedBackupARN), Engine: aws.String("postgres"),
			RestoreWindow: &types.RestoreWindow{EarliestTime: aws.Time(o.b.RestorePoint.Add(-time.Hour)), LatestTime: aws.Time(o.b.RestorePoint.Add(time.Minute))}}}
		if _, err := o.destination().Restore(t.Context(), o.b); err != nil {
			t.Fatal(err)
		}
		in := w.restores[0]
		if aws.ToString(in.SourceDBInstanceAutomatedBackupsArn) != o.s.AutomatedBackupARN || in.SourceDbiResourceId != nil {
			t.Errorf("restored %+v", in)
		}
		if in.DBSubnetGroupName != nil || in.VpcSecurityGroupIds != nil || in.DBParameterGroupName != nil {
			t.Errorf("names of another region were used: %+v", in)
		}
		o.b.Record.SourceID = "db-0002"
		if err := o.destination().Preflight(t.Context(), o.b); err == nil {
			t.Error("backups of another instance would be restored")
		}
	})
}

func TestStatuses(t *testing.T) {
	for status, good := range map[string]bool{"configuring-log-exports": true, "storage-optimization": true, "failed": false, "incompatible-network": false, "storage-full": false} {
		t.Run(status, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				o := w.byTimeOrder()
				go func() {
					time.Sleep(6 * time.Minute) // virtual: while it is created
					w.mu.Lock()
					w.instances["staging"].DBInstanceStatus = aws.String("something-new") // tolerated
					w.mu.Unlock()
					time.Sleep(time.Minute)
					w.mu.Lock()
					w.instances["staging"].DBInstanceStatus = aws.String(status)
					w.instances["staging"].Endpoint = &types.Endpoint{Address: aws.String("h"), Port: aws.Int32(1)}
					w.mu.Unlock()
				}()
				r, err := o.destination().Restore(t.Context(), o.b)
				if (err == nil) != good {
					t.Errorf("%s: %v", status, err)
				}
				if len(r.Objects) != 1 {
					t.Error("what exists was not returned")
				}
			})
		})
	}
}

func TestRestoreWhoseAnswerIsLost(t *testing.T) {
	lost := errors.New("connection reset")
	for name, c := range map[string]struct {
		fail, lose error
		good       bool
		objects    int
	}{
		"it came through":   {nil, lost, true, 1},
		"nobody knows":      {lost, nil, false, 1}, // it may still land: what is announced stays
		"it was refused":    {fault("KMSKeyNotAccessibleFault", "no"), nil, false, 0},
		"a retry was early": {nil, fault("DBInstanceAlreadyExists", "your first try got through"), true, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				o := w.byTimeOrder()
				only := func(err error) func(string) error {
					return func(call string) error {
						if call == "RestoreDBInstanceToPointInTime" {
							return err
						}
						return nil
					}
				}
				w.fail, w.lose = only(c.fail), only(c.lose)
				r, err := o.destination().Restore(t.Context(), o.b)
				if (err == nil) != c.good || len(r.Objects) != c.objects {
					t.Errorf("%+v, %v", r, err)
				}
				if n := w.count("RestoreDBInstanceToPointInTime"); n != 1 {
					t.Errorf("requested %d times", n)
				}
			})
		})
	}
}

// TestWaitsForTheRestorePoint ends when the caller's context does, with what was waited for in the message.
func TestWaitsForTheRestorePoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.lag = time.Hour
		o := w.byTimeOrder()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		r, err := o.destination().Restore(ctx, o.b)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "can be restored to") || len(r.Objects) != 0 || len(w.restores) != 0 {
			t.Errorf("%+v, %v", r, err)
		}
		if len(o.said) < 2 {
			t.Errorf("a wait of ten minutes said %q", o.said)
		}
	})
}

func TestDeleteOnlyOurs(t *testing.T) {
	object := func(extra map[string]string) engine.Restored {
		return engine.Restored{Objects: []engine.RestoredObject{{Kind: objectKind, ID: "staging", Created: true, Extra: extra}}}
	}
	for name, c := range map[string]struct {
		there   func(*types.DBInstance)
		r       engine.Restored
		deleted bool
		refused bool
	}{
		"by its resource id":            {nil, object(map[string]string{shared.ExtraResourceID: "db-0002", shared.ExtraRunID: "other"}), true, false},
		"another resource id":           {func(i *types.DBInstance) { i.TagList = shared.Tags(map[string]string{shared.TagRunID: restoreRun}) }, object(map[string]string{shared.ExtraResourceID: "db-0009", shared.ExtraRunID: restoreRun}), false, false},
		"announced, by its tag":         {func(i *types.DBInstance) { i.TagList = shared.Tags(map[string]string{shared.TagRunID: restoreRun}) }, object(map[string]string{shared.ExtraRunID: restoreRun}), true, false},
		"announced, and another's":      {func(i *types.DBInstance) { i.TagList = shared.Tags(map[string]string{shared.TagRunID: "another"}) }, object(map[string]string{shared.ExtraRunID: restoreRun}), false, false},
		"announced, and nobody's":       {nil, object(map[string]string{}), false, false},
		"protected by somebody":         {func(i *types.DBInstance) { i.DeletionProtection = aws.Bool(true) }, object(map[string]string{shared.ExtraResourceID: "db-0002"}), false, true},
		"protected by the restore":      {func(i *types.DBInstance) { i.DeletionProtection = aws.Bool(true) }, object(map[string]string{shared.ExtraResourceID: "db-0002", shared.ExtraProtected: "true"}), true, false},
		"of another account":            {nil, object(map[string]string{shared.ExtraResourceID: "db-0002", shared.ExtraAccount: "999999999999"}), false, true},
		"there before (not Created)":    {nil, engine.Restored{Objects: []engine.RestoredObject{{Kind: objectKind, ID: "staging", Extra: map[string]string{shared.ExtraResourceID: "db-0002"}}}}, false, false},
		"still being created":           {func(i *types.DBInstance) { i.DBInstanceStatus = aws.String("creating") }, object(map[string]string{shared.ExtraResourceID: "db-0002"}), true, false},
		"being deleted by somebody now": {func(i *types.DBInstance) { i.DBInstanceStatus = aws.String("deleting") }, object(map[string]string{shared.ExtraResourceID: "db-0002"}), true, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.put("staging", "postgres")
				w.ready["db/staging"] = w.clock.Now().Add(time.Minute)
				if c.there != nil {
					c.there(w.instances["staging"])
				}
				time.Sleep(3 * time.Minute) // virtual: ModifyDBInstance refuses earlier
				err := NewDestination(DestinationSettings{Identifier: "staging", Clock: w.clock, Open: w.open}).Delete(t.Context(), c.r)
				if (err != nil) != c.refused {
					t.Errorf("Delete: %v", err)
				}
				if gone := w.instances["staging"] == nil; gone != c.deleted {
					t.Errorf("gone: %v", gone)
				}
			})
		})
	}
}

// TestMasterPassword: it goes to AWS and nowhere else.
func TestMasterPassword(t *testing.T) {
	const secret = "correct horse battery staple"
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.byTimeOrder()
		o.s.SetMasterPassword, o.s.Login = true, &shared.Login{Username: "admin", Password: secret}
		r, err := o.destination().Restore(t.Context(), o.b)
		if err != nil {
			t.Fatal(err)
		}
		set := false
		for _, m := range w.modifies {
			set = set || aws.ToString(m.MasterUserPassword) == secret
		}
		if !set {
			t.Error("the password was not set")
		}
		delete(w.instances, "staging")
		w.fail = func(call string) error {
			if call == "ModifyDBInstance" {
				return fault("InvalidParameterValue", "The parameter MasterUserPassword is not valid")
			}
			return nil
		}
		failed, err := o.destination().Restore(t.Context(), o.b)
		if err == nil || !strings.Contains(err.Error(), "set_master_password") || len(failed.Objects) != 1 {
			t.Errorf("what an argument asks for was not done, and the restore says %v", err)
		}
		everything := fmt.Sprintf("%v %+v %#v %v %v %+v %#v %v", r, r, o.s, o.s, o.said, o.announced, o.s.Login, err)
		if strings.Contains(everything, secret) {
			t.Errorf("the password shows in %s", everything)
		}
	})
}

// TestSettingThatIsRefused: of the source's settings, one that AWS refuses is reported, and the others are put back.
func TestSettingThatIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.byTimeOrder()
		w.calls = append(w.calls, "refuse monitoring")
		if _, err := o.destination().Restore(t.Context(), o.b); err != nil {
			t.Fatal(err)
		}
		made := w.instances["staging"]
		if aws.ToInt32(made.MonitoringInterval) != 0 || aws.ToInt32(made.BackupRetentionPeriod) != 14 {
			t.Errorf("monitoring %d, retention %d", aws.ToInt32(made.MonitoringInterval), aws.ToInt32(made.BackupRetentionPeriod))
		}
		said := strings.Join(o.said, "\n")
		if !strings.Contains(said, "could not be put back") || !strings.Contains(said, "monitoring_interval") {
			t.Errorf("it was not reported: %s", said)
		}
		// An argument is no mere wish.
		o = w.byTimeOrder()
		o.s.Identifier, o.s.Shape.MonitoringInterval = "staging2", aws.Int32(30)
		if _, err := o.destination().Restore(t.Context(), o.b); err == nil || !strings.Contains(err.Error(), "monitoring_interval") {
			t.Errorf("an argument was not followed, and the restore says %v", err)
		}
	})
}

func TestRestoreOfASnapshot(t *testing.T) {
	other := "arn:aws:kms:us-east-1:111122223333:key/staging"
	for name, c := range map[string]struct {
		change func(*world, *order)
		copied string // the call that copies, if one does
		want   string // refusal
	}{
		"as it is":                {func(*world, *order) {}, "", ""},
		"its source is gone":      {func(w *world, _ *order) { delete(w.instances, "orders") }, "", ""},
		"another key":             {func(_ *world, o *order) { o.s.KMSKey = other }, "CopyDBSnapshot  " + other, ""},
		"another region":          {func(_ *world, o *order) { o.s.Region, o.s.KMSKey = "us-east-1", other }, "CopyDBSnapshot eu-central-1 " + other, ""},
		"another region, no key":  {func(_ *world, o *order) { o.s.Region = "us-east-1" }, "", "set kms_key_id"},
		"a copy is asked for":     {func(_ *world, o *order) { o.s.SnapshotCopy = true }, "CopyDBSnapshot  arn:aws:kms:eu-central-1:111122223333:key/prod", ""},
		"another account":         {func(w *world, o *order) { w.place.Account, o.s.KMSKey = "444455556666", other }, "CopyDBSnapshot  " + other, ""},
		"another account, no key": {func(w *world, _ *order) { w.place.Account = "444455556666" }, "", "set kms_key_id"},
		"not shared":              {func(w *world, _ *order) { w.place.Account = "444455556666"; clear(w.snapshots) }, "", "share_with_accounts"},
		"gone":                    {func(w *world, _ *order) { clear(w.snapshots) }, "", "is gone"},
		"not whole":               {func(w *world, _ *order) { w.snapshots["snap"].Status = aws.String("failed") }, "", "is failed"},
		"of another":              {func(w *world, _ *order) { w.snapshots["snap"].DbiResourceId = aws.String("db-0404") }, "", "db-0404"},
		"no class, and none is due": {func(w *world, o *order) {
			delete(w.instances, "orders")
			delete(o.b.Record.Extra, shared.ExtraSettings)
		}, "", "set instance_class"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				o := w.fromSnapshot()
				c.change(w, o)
				r, err := o.destination().Restore(t.Context(), o.b)
				if c.want != "" {
					if err == nil || !strings.Contains(err.Error(), c.want) || len(o.announced) != 0 {
						t.Errorf("want %q: %v, announced %v", c.want, err, o.announced)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if len(r.Objects) != 1 || r.Objects[0].Kind != objectKind || len(w.snapshots) != 1 {
					t.Errorf("left %+v, snapshots %d", r.Objects, len(w.snapshots))
				}
				copied := ""
				for _, call := range w.calls {
					if strings.HasPrefix(call, "CopyDBSnapshot") {
						copied = call
					}
				}
				if copied != c.copied {
					t.Errorf("copied by %q, want %q", copied, c.copied)
				}
			})
		})
	}
}

// TestCopyIsRemoved in every case, and recorded as long as it is there.
func TestCopyIsRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.fromSnapshot()
		o.s.SnapshotCopy = true
		w.fail = func(call string) error {
			if strings.HasPrefix(call, "RestoreDBInstanceFromDBSnapshot scalardb-copy") {
				return fault("InsufficientDBInstanceCapacity", "none here")
			}
			return nil
		}
		r, err := o.destination().Restore(t.Context(), o.b)
		if err == nil || len(r.Objects) != 0 || len(w.snapshots) != 1 {
			t.Errorf("%+v, %v, snapshots %d", r, err, len(w.snapshots))
		}
		if o.announced[0].Objects[0].Kind != copyKind {
			t.Errorf("announced %+v", o.announced)
		}
		// One that a killed attempt left is deleted by what it announced.
		_, _ = w.CopyDBSnapshot(t.Context(), copyOf(w, o.announced[0].Objects[0].ID))
		if err := o.destination().Delete(t.Context(), o.announced[0]); err != nil || len(w.snapshots) != 1 {
			t.Errorf("Delete: %v, snapshots %d", err, len(w.snapshots))
		}
	})
}

func copyOf(w *world, name string) *rds.CopyDBSnapshotInput {
	return &rds.CopyDBSnapshotInput{SourceDBSnapshotIdentifier: w.snapshots["snap"].DBSnapshotArn, TargetDBSnapshotIdentifier: aws.String(name), Tags: shared.Tags(map[string]string{shared.TagRunID: restoreRun})}
}

// TestStorageIsNotOverTold: gp3 below its threshold has IOPS that RDS shows and refuses to be told.
func TestStorageIsNotOverTold(t *testing.T) {
	for _, c := range []struct {
		source, given    Shape
		iops, throughput int32
	}{
		{Shape{StorageType: "gp3", IOPS: 3000, Throughput: 125, Allocated: 100}, Shape{}, 0, 0},
		{Shape{StorageType: "gp3", IOPS: 12000, Throughput: 500, Allocated: 400}, Shape{}, 12000, 500},
		{Shape{StorageType: "io1", IOPS: 5000, Allocated: 100}, Shape{}, 5000, 0},
		{Shape{StorageType: "io1", IOPS: 5000, Allocated: 100}, Shape{StorageType: "gp3"}, 0, 0},
		{Shape{StorageType: "gp2", IOPS: 300, Allocated: 100}, Shape{}, 0, 0},
		{Shape{StorageType: "gp3", IOPS: 3000, Throughput: 125, Allocated: 100}, Shape{IOPS: 4000, Throughput: 250, Allocated: 500}, 4000, 250},
	} {
		c.source.Engine = "postgres"
		w := NewDestination(DestinationSettings{Shape: c.given}).want(origin{shape: c.source})
		if w.IOPS != c.iops || w.Throughput != c.throughput {
			t.Errorf("%+v with %+v: %d IOPS, %d MiB/s; want %d, %d", c.source, c.given, w.IOPS, w.Throughput, c.iops, c.throughput)
		}
	}
}
