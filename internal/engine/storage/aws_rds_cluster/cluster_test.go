package awsrdscluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	shared "github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/rds"
)

const (
	runID      = "00c0ffee00c0ffee"
	restoreRun = "00000000000beef0"
	stored     = "orders" // the storage's name in the backup
)

func (w *world) settings(method string) SourceSettings {
	return SourceSettings{Identifier: "orders", Method: method, Storage: stored, Clock: w.clock, Open: w.open}
}

// fly makes a run up to the end of its window, ten seconds from now.
func (w *world) fly(s SourceSettings) (*session, error) {
	opened := w.clock.Now()
	window := engine.PauseWindow{StartedAt: opened, EndedAt: opened.Add(10 * time.Second), RestorePoint: opened.Add(5 * time.Second).Truncate(time.Second).UTC()}
	x, err := NewSource(s).Preflight(w.t.Context(), engine.Run{ID: runID, BackupID: "before.release_42", OpenedAt: func() time.Time { return opened }, Window: func() engine.PauseWindow { return window }})
	if err != nil {
		return nil, err
	}
	err = x.Capture(w.t.Context())
	if err == nil {
		err = w.clock.Sleep(w.t.Context(), 10*time.Second)
	}
	if err == nil {
		err = x.Confirm(w.t.Context())
	}
	return x.(*session), err
}

func void(err error) bool {
	var v *engine.VoidError
	return errors.As(err, &v)
}

func TestInstant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		x, err := w.fly(w.settings(""))
		if err != nil {
			t.Fatal(err)
		}
		f := x.Facts()
		if !f.NeedsInstant || f.Granule != time.Second || !f.ByTime || f.SourceID != "cluster-0001" {
			t.Errorf("facts: %+v", f)
		}
		c, err := x.Await(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !w.clock.Now().Add(-lag).After(x.run.Window().RestorePoint) {
			t.Error("Await came back before the restore point could be restored")
		}
		a := c.Artifacts[0]
		if a.Kind != pitrKind || a.ID != f.Planned[0].ID || a.Extra[shared.ExtraRestorePoint] == "" || !strings.Contains(c.Extra[shared.ExtraSettings], "db.r6g.xlarge") {
			t.Errorf("made %+v, %v", a, c.Extra)
		}
		k := Keeper{Clock: w.clock, Open: w.open}
		if err := k.Inspect(t.Context(), a); err != nil {
			t.Errorf("Inspect: %v", err)
		}
		time.Sleep(15 * 24 * time.Hour) // virtual: the retention passes
		if err := k.Inspect(t.Context(), a); !errors.Is(err, engine.ErrNotFound) {
			t.Errorf("Inspect after the retention: %v", err)
		}
		a.Extra[shared.ExtraRestorePoint] = w.clock.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
		delete(w.clusters, "orders")
		if err := k.Inspect(t.Context(), a); !errors.Is(err, engine.ErrNotFound) {
			t.Errorf("Inspect without a source: %v", err)
		}
		w.retained = []types.DBClusterAutomatedBackup{{DbClusterResourceId: aws.String("cluster-0001"), RestoreWindow: &types.RestoreWindow{EarliestTime: aws.Time(w.clock.Now().Add(-2 * time.Hour))}}}
		if err := k.Inspect(t.Context(), a); err != nil {
			t.Errorf("Inspect with retained backups: %v", err)
		}
		if err := k.Delete(t.Context(), a); err != nil {
			t.Errorf("Delete: %v", err)
		}
	})
}

func TestPreflightRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		method string
		change func(*world, *types.DBCluster)
		want   string
	}{
		"no such cluster":    {"", func(w *world, _ *types.DBCluster) { delete(w.clusters, "orders") }, "no DB cluster orders in account 111122223333"},
		"a Multi-AZ cluster": {"", func(_ *world, c *types.DBCluster) { c.Engine = aws.String("postgres") }, "no Multi-AZ DB clusters"},
		"Neptune":            {"", func(_ *world, c *types.DBCluster) { c.Engine = aws.String("neptune") }, "neptune"},
		"Serverless v1":      {"", func(_ *world, c *types.DBCluster) { c.EngineMode = aws.String("serverless") }, "Serverless v2 is one"},
		"a replica":          {"", func(_ *world, c *types.DBCluster) { c.ReplicationSourceIdentifier = aws.String("arn:x") }, "name the source"},
		"forwarding writes":  {"", func(_ *world, c *types.DBCluster) { c.GlobalWriteForwardingStatus = types.WriteForwardingStatusEnabled }, "name the primary"},
		"stopped":            {"", func(_ *world, c *types.DBCluster) { c.Status = aws.String("stopped") }, "start it"},
		"failing over":       {"", func(_ *world, c *types.DBCluster) { c.Status = aws.String("failing-over") }, "wait until it is available"},
		"no restorable time": {"", func(w *world, c *types.DBCluster) { c.BackupRetentionPeriod = aws.Int32(0) }, "backup_retention_period"},
		"no room for snapshot": {"snapshot", func(w *world, _ *types.DBCluster) {
			w.quotas = []types.AccountQuota{{AccountQuotaName: aws.String("ManualClusterSnapshots"), Used: aws.Int64(100), Max: aws.Int64(100)}}
		}, "100 of 100 manual cluster snapshots"},
		"no room for a third": {"snapshot", func(w *world, _ *types.DBCluster) {
			w.quotas = []types.AccountQuota{{AccountQuotaName: aws.String("DBClusters"), Used: aws.Int64(40), Max: aws.Int64(40)}}
		}, "a temporary one"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				c.change(w, w.clusters["orders"])
				if _, err := w.fly(w.settings(c.method)); err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("want %q: %v", c.want, err)
				}
			})
		})
	}
}

func TestAnotherClusterVoids(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		x, err := w.fly(w.settings(""))
		if err != nil {
			t.Fatal(err)
		}
		w.put("orders").Status = aws.String("available")
		if err := x.Confirm(t.Context()); !void(err) {
			t.Errorf("Confirm: %v", err)
		}
		if _, err := x.Await(t.Context()); !void(err) {
			t.Errorf("Await: %v", err)
		}
	})
}

// TestSnapshot: of the restore point, through a temporary cluster that is gone afterwards.
func TestSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		s := w.settings("snapshot")
		s.ShareWith = []string{"444455556666"}
		x, err := w.fly(s)
		if err != nil {
			t.Fatal(err)
		}
		f := x.Facts()
		if !f.NeedsInstant || f.ByTime || len(f.Planned) != 2 || f.Planned[1].Kind != temporaryKind || f.Planned[1].Extra[shared.ExtraRunID] != runID {
			t.Errorf("facts: %+v", f)
		}
		c, err := x.Await(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		in := w.restores[0]
		if !in.RestoreToTime.Equal(x.run.Window().RestorePoint) || aws.ToString(in.SourceDbClusterResourceId) != "cluster-0001" || aws.ToBool(in.DeletionProtection) || shared.CheckIdentifier(aws.ToString(in.DBClusterIdentifier)) != "" {
			t.Errorf("restored %+v", in)
		}
		if tags := shared.TagsOf(in.Tags); tags[shared.TagRunID] != runID || tags[shared.TagBackup] == "" {
			t.Errorf("tags %v", tags)
		}
		if w.clusters[x.temporary] != nil && aws.ToString(w.clusters[x.temporary].Status) != "deleting" {
			t.Error("the temporary cluster is still there")
		}
		a := c.Artifacts[0]
		if len(c.Artifacts) != 1 || a.Kind != snapshotKind || a.ID != f.Planned[0].ID || a.Extra[extraSnapshotSource] != "cluster-0003" || w.snapshots[nameOf(a)] == nil {
			t.Errorf("made %+v", c.Artifacts)
		}
		if !slices.Contains(w.calls, "ModifyDBClusterSnapshotAttribute restore [444455556666]") {
			t.Error("it was not shared")
		}
		k := Keeper{Clock: w.clock, Open: w.open}
		if err := k.Inspect(t.Context(), a); err != nil {
			t.Errorf("Inspect: %v", err)
		}
		w.snapshots[nameOf(a)].TagList = nil // somebody removed its tags: what was recorded is enough
		for range 2 {
			if err := k.Delete(t.Context(), a); err != nil {
				t.Errorf("Delete: %v", err)
			}
		}
		if err := k.Inspect(t.Context(), a); !errors.Is(err, engine.ErrNotFound) {
			t.Errorf("Inspect after Delete: %v", err)
		}
	})
}

// left is what a run made and nobody deleted.
func (w *world) left() (names []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, c := range w.clusters {
		if id != "orders" && aws.ToString(c.Status) != "deleting" {
			names = append(names, "cluster "+id)
		}
	}
	for id, i := range w.instances {
		if id != "orders-a" && aws.ToString(i.DBInstanceStatus) != "deleting" {
			names = append(names, "instance "+id)
		}
	}
	for id := range w.snapshots {
		names = append(names, "snapshot "+id)
	}
	slices.Sort(names)
	return names
}

// TestSnapshotFails at each call, before and after its effect, is cancelled, or dies: nothing is left.
func TestSnapshotFails(t *testing.T) {
	broken := errors.New("connection reset")
	for _, call := range []string{"RestoreDBClusterToPointInTime", "CreateDBClusterSnapshot", "DescribeDBClusterSnapshots", "ModifyDBClusterSnapshotAttribute restore [444455556666]"} {
		for _, when := range []string{"fails", "is lost", "is cancelled", "dies"} {
			t.Run(call+" "+when, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					s := w.settings("snapshot")
					s.ShareWith = []string{"444455556666"}
					x, err := w.fly(s)
					if err != nil {
						t.Fatal(err)
					}
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					hook := func(c string) error {
						if c != call {
							return nil
						}
						if when == "is cancelled" || when == "dies" {
							cancel()
							return ctx.Err()
						}
						return broken
					}
					if when == "fails" {
						w.fail = hook
					} else {
						w.lose = hook
						if strings.HasPrefix(call, "Describe") || strings.HasPrefix(call, "Modify") {
							w.fail, w.lose = hook, nil
						}
					}
					_, err = x.Await(ctx)
					if came := when == "is lost" && w.lose != nil; (err == nil) != came {
						t.Errorf("Await: %v", err)
					}
					w.fail, w.lose = nil, nil
					if err == nil {
						return
					}
					if when == "dies" { // and the next run reads its journal
						for _, a := range x.Facts().Planned {
							if err := (Keeper{Clock: w.clock, Open: w.open}).Delete(t.Context(), a); err != nil {
								t.Errorf("Delete: %v", err)
							}
						}
					} else if err := x.Discard(t.Context()); err != nil {
						t.Errorf("Discard: %v", err)
					}
					if left := w.left(); len(left) > 0 {
						t.Errorf("left %v", left)
					}
				})
			})
		}
	}
}

func TestDiscardLeavesOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		x, err := w.fly(w.settings("snapshot"))
		if err != nil {
			t.Fatal(err)
		}
		w.put(x.temporary).TagList = shared.Tags(map[string]string{shared.TagRunID: "another"})
		x.requested = true
		if err := x.Discard(t.Context()); err == nil || w.clusters[x.temporary] == nil {
			t.Errorf("Discard of another's cluster: %v", err)
		}
	})
}

type order struct {
	w         *world
	s         DestinationSettings
	b         engine.StorageBackup
	announced []engine.Restored
	said      []string
}

func (w *world) byTimeOrder() *order {
	c := w.clusters["orders"]
	shape, err := shapeWith(w.t.Context(), w, *c, w.place)
	if err != nil {
		w.t.Fatal(err)
	}
	settings, err := shape.encode()
	if err != nil {
		w.t.Fatal(err)
	}
	o := &order{w: w, s: DestinationSettings{Identifier: "staging", Storage: stored, Clock: w.clock, Open: w.open}}
	o.b = engine.StorageBackup{
		Storage: stored, RunID: restoreRun, Name: "staging", RestorePoint: w.clock.Now().Add(-2 * time.Minute).Truncate(time.Second),
		Record: engine.StorageRecord{Driver: kindName, SourceID: aws.ToString(c.DbClusterResourceId), ByTime: true,
			Extra: map[string]string{shared.ExtraIdentifier: "orders", shared.ExtraAccount: w.place.Account, shared.ExtraRegion: w.place.Region, shared.ExtraSettings: settings}},
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

func (w *world) fromSnapshot() *order {
	o := w.byTimeOrder()
	c := w.clusters["orders"]
	s := w.snap("snap", types.DBClusterSnapshot{DbClusterResourceId: aws.String("cluster-temp"), Engine: c.Engine, StorageEncrypted: c.StorageEncrypted, KmsKeyId: c.KmsKeyId, MasterUsername: c.MasterUsername}, 0)
	s.Status = aws.String("available")
	o.b.RestorePoint, o.b.Record.ByTime = time.Time{}, false
	o.b.Record.Artifacts = []engine.Artifact{{Kind: snapshotKind, ID: w.place.ARN("cluster-snapshot", "snap"), Extra: map[string]string{shared.ExtraAccount: w.place.Account, shared.ExtraRegion: w.place.Region, extraSnapshotSource: "cluster-temp"}}}
	return o
}

func TestRestoreByTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.byTimeOrder()
		o.s.Instances = map[string]Member{"b": {Tier: aws.Int32(2)}, "a": {Class: "db.r6g.large"}}
		o.s.SetMasterPassword, o.s.Login = true, &shared.Login{Username: "admin", Password: "a secret of some length"}
		w.lose = func(call string) error {
			last := engine.Restored{}
			if len(o.announced) > 0 {
				last = o.announced[len(o.announced)-1]
			}
			for prefix, n := range map[string]int{"RestoreDBCluster": 1, "CreateDBInstance": 3} {
				if strings.HasPrefix(call, prefix) && len(last.Objects) != n {
					t.Errorf("%s was requested when %d objects were announced, not %d", call, len(last.Objects), n)
				}
			}
			return nil
		}
		d := NewDestination(o.s)
		if err := d.Preflight(t.Context(), o.b); err != nil {
			t.Fatal(err)
		}
		r, err := d.Restore(t.Context(), o.b)
		if err != nil {
			t.Fatal(err)
		}
		in := w.restores[0]
		if aws.ToString(in.DBSubnetGroupName) != "prod" || !slices.Equal(in.VpcSecurityGroupIds, []string{"sg-prod"}) || aws.ToString(in.DBClusterParameterGroupName) != "orders-cluster" || !aws.ToBool(in.DeletionProtection) ||
			aws.ToFloat64(in.ServerlessV2ScalingConfiguration.MaxCapacity) != 8 || aws.ToString(in.RestoreType) != "full-copy" {
			t.Errorf("the source's settings are not those of the copy: %+v", in)
		}
		if len(w.created) != 2 || aws.ToString(w.created[0].DBInstanceIdentifier) != "staging-a" || aws.ToString(w.created[0].DBInstanceClass) != "db.r6g.large" ||
			aws.ToString(w.created[1].DBInstanceClass) != "db.r6g.xlarge" || aws.ToInt32(w.created[1].PromotionTier) != 2 || aws.ToString(w.created[1].DBParameterGroupName) != "orders-instance" {
			t.Errorf("instances %+v", w.created)
		}
		c := w.clusters["staging"]
		if aws.ToInt32(c.BackupRetentionPeriod) != 14 || !slices.Equal(c.EnabledCloudwatchLogsExports, []string{"postgresql"}) || !slices.Contains(w.calls, "ModifyDBCluster password") {
			t.Errorf("what the restore dropped was not put back: %+v, %v", c, w.calls)
		}
		if len(r.Objects) != 3 || r.Endpoint != "staging.cluster.example.com" || r.Properties["contact_points"] != "jdbc:postgresql://staging.cluster.example.com:5432/shop" {
			t.Errorf("restored %+v", r)
		}
		for _, x := range r.Objects {
			if x.Extra[shared.ExtraResourceID] == "" || x.Extra[shared.ExtraARN] == "" || !x.Created {
				t.Errorf("object %+v", x)
			}
		}
		first := o.announced[0].Objects
		if len(first) != 1 || first[0].Kind != objectKind || first[0].Extra[shared.ExtraResourceID] != "" {
			t.Errorf("announced first %+v", first)
		}
		if err := d.Inspect(t.Context(), r); err != nil {
			t.Errorf("Inspect: %v", err)
		}
		// An instance that somebody added keeps the cluster.
		w.join("staging", "staging-foreign", "db.r6g.large").DBInstanceStatus = aws.String("available")
		if err := d.Delete(t.Context(), r); err == nil || !strings.Contains(err.Error(), "staging-foreign") || w.clusters["staging"] == nil {
			t.Errorf("Delete with another's instance: %v", err)
		}
		w.instances["staging-foreign"].DBInstanceStatus = aws.String("deleting")
		for range 2 {
			if err := d.Delete(t.Context(), r); err != nil {
				t.Errorf("Delete: %v", err)
			}
		}
		if left := w.left(); len(left) > 0 || w.clusters["orders"] == nil || w.clusters["staging"] != nil {
			t.Errorf("left %v", left)
		}
		if err := d.Inspect(t.Context(), r); !errors.Is(err, engine.ErrNotFound) {
			t.Errorf("Inspect after Delete: %v", err)
		}
	})
}

func TestRestoreRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*world, *order)
		want   string
	}{
		"the cluster's name is taken": {func(w *world, _ *order) { w.put("staging") }, "choose another identifier"},
		"an instance's name is taken": {func(w *world, _ *order) { w.join("orders", "staging-1", "db.r6g.large") }, "DB instance staging-1"},
		"the source was replaced":     {func(w *world, _ *order) { w.put("orders") }, "no automated backups of it are retained"},
		"retention is over":           {func(_ *world, o *order) { o.b.RestorePoint = o.b.RestorePoint.Add(-15 * 24 * time.Hour) }, "reach back to"},
		"another region":              {func(_ *world, o *order) { o.s.Region = "us-east-1" }, `method = "snapshot"`},
		"another source":              {func(_ *world, o *order) { o.s.SourceIdentifier = "payments" }, "the backup is of DB cluster orders"},
		"no source at all":            {func(_ *world, o *order) { o.b.Record = engine.StorageRecord{} }, "set source_identifier"},
		"no subnet group":             {func(_ *world, o *order) { o.s.Shape.SubnetGroup = "nowhere" }, "set db_subnet_group_name"},
		"a key for plain data": {func(w *world, o *order) {
			w.clusters["orders"].StorageEncrypted = aws.Bool(false)
			o.s.KMSKey = "alias/x"
		}, "not encrypted"},
		"quota of instances": {func(w *world, o *order) {
			o.s.Instances = map[string]Member{"1": {}, "2": {}}
			w.quotas = []types.AccountQuota{{AccountQuotaName: aws.String("DBInstances"), Used: aws.Int64(39), Max: aws.Int64(40)}}
		}, "39 of 40 DB instances"},
		"no class known": {func(w *world, o *order) {
			w.clusters["orders"].DBClusterMembers = nil
			delete(o.b.Record.Extra, shared.ExtraSettings)
		}, "instance_class"},
		"password of another": {func(_ *world, o *order) {
			o.s.SetMasterPassword, o.s.Login = true, &shared.Login{Username: "reader", Password: "long enough"}
		}, "master user admin"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				o := w.byTimeOrder()
				c.change(w, o)
				r, err := NewDestination(o.s).Restore(t.Context(), o.b)
				if err == nil || !strings.Contains(err.Error(), c.want) || len(r.Objects) != 0 || len(o.announced) != 0 {
					t.Errorf("want %q: %+v, %v", c.want, r, err)
				}
			})
		})
	}
}

// TestRestoreFails at each call: what is returned is enough to remove all of it.
func TestRestoreFails(t *testing.T) {
	broken := errors.New("connection reset")
	for _, call := range []string{"RestoreDBClusterToPointInTime", "CreateDBInstance staging-1", "CreateDBInstance staging-2"} {
		for when, err := range map[string]error{"refused": fault("InsufficientDBInstanceCapacity", "none"), "unanswered": broken, "lost": broken} {
			t.Run(call+" "+when, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					o := w.byTimeOrder()
					o.s.Instances = map[string]Member{"1": {}, "2": {}}
					hook := func(c string) error {
						if c == call {
							return err
						}
						return nil
					}
					if when == "lost" {
						w.lose = hook
					} else {
						w.fail = hook
					}
					d := NewDestination(o.s)
					r, err := d.Restore(t.Context(), o.b)
					if (err == nil) != (when == "lost") {
						t.Errorf("Restore: %v", err)
					}
					w.fail, w.lose = nil, nil
					if err := d.Delete(t.Context(), r); err != nil {
						t.Errorf("Delete: %v", err)
					}
					if left := w.left(); len(left) > 0 {
						t.Errorf("%+v\nleft %v", r, left)
					}
					if n := len(w.restores); n > 1 {
						t.Errorf("%d copies", n)
					}
				})
			})
		}
	}
}

func TestRestoreOfASnapshot(t *testing.T) {
	other := "arn:aws:kms:us-east-1:111122223333:key/staging"
	for name, c := range map[string]struct {
		change     func(*world, *order)
		call, want string
	}{
		"as it is":                {func(*world, *order) {}, "RestoreDBClusterFromSnapshot ", ""},
		"its source is gone":      {func(w *world, _ *order) { delete(w.clusters, "orders") }, "RestoreDBClusterFromSnapshot ", ""},
		"another key":             {func(_ *world, o *order) { o.s.KMSKey = other }, "RestoreDBClusterFromSnapshot " + other, ""},
		"another region":          {func(_ *world, o *order) { o.s.Region, o.s.KMSKey = "us-east-1", other }, "CopyDBClusterSnapshot eu-central-1 " + other, ""},
		"another region, no key":  {func(_ *world, o *order) { o.s.Region = "us-east-1" }, "", "set kms_key_id"},
		"another account":         {func(w *world, o *order) { w.place.Account, o.s.KMSKey = "444455556666", other }, "CopyDBClusterSnapshot  " + other, ""},
		"another account, no key": {func(w *world, _ *order) { w.place.Account = "444455556666" }, "", "set kms_key_id"},
		"not shared":              {func(w *world, _ *order) { w.place.Account = "444455556666"; clear(w.snapshots) }, "", "share_with_accounts"},
		"gone":                    {func(w *world, _ *order) { clear(w.snapshots) }, "", "is gone"},
		"of another":              {func(w *world, _ *order) { w.snapshots["snap"].DbClusterResourceId = aws.String("cluster-0404") }, "", "cluster-0404"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				o := w.fromSnapshot()
				c.change(w, o)
				r, err := NewDestination(o.s).Restore(t.Context(), o.b)
				if c.want != "" {
					if err == nil || !strings.Contains(err.Error(), c.want) || len(o.announced) != 0 {
						t.Errorf("want %q: %v", c.want, err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if len(r.Objects) != 2 || len(w.snapshots) != 1 {
					t.Errorf("left %+v, snapshots %d", r.Objects, len(w.snapshots))
				}
				if !slices.Contains(w.calls, c.call) {
					t.Errorf("%q is not in %v", c.call, w.calls)
				}
			})
		})
	}
}

// TestDeadRestore: an instance whose creation was not recorded goes with its cluster, by the run id.
func TestDeadRestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.byTimeOrder()
		d := NewDestination(o.s)
		r, err := d.Restore(t.Context(), o.b)
		if err != nil {
			t.Fatal(err)
		}
		announced := engine.Restored{Objects: r.Objects[:1]}
		if err := d.Delete(t.Context(), announced); err != nil {
			t.Errorf("Delete: %v", err)
		}
		if left := w.left(); len(left) > 0 {
			t.Errorf("left %v", left)
		}
	})
}

// TestDeleteOnlyOurs: by the recorded resource id, or, as long as that is not known, by the run id; a cluster and an instance that only have the identifiers stay.
func TestDeleteOnlyOurs(t *testing.T) {
	for name, c := range map[string]struct {
		tag, cluster, instance string // the run id of what is there; recorded resource ids
		deleted, refused       bool
	}{
		"by their resource ids":     {"another", "cluster-0003", "db-0004", true, false},
		"other resource ids":        {restoreRun, "cluster-0404", "db-0404", false, false},
		"announced, by their tags":  {restoreRun, "", "", true, false},
		"announced, and another's":  {"another", "", "", false, false},
		"announced, without a tag":  {"", "", "", false, false},
		"another's instance in it":  {"another", "cluster-0003", "db-0404", false, true},
		"only the instance is ours": {"another", "cluster-0404", "db-0004", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				tags := shared.Tags(map[string]string{shared.TagRunID: c.tag})
				w.put("staging").TagList = tags
				w.join("staging", "staging-1", "db.r6g.large").TagList = tags
				object := func(kind, id, resource string) engine.RestoredObject {
					return engine.RestoredObject{Kind: kind, ID: id, Created: true, Extra: map[string]string{shared.ExtraResourceID: resource, shared.ExtraRunID: restoreRun}}
				}
				r := engine.Restored{Objects: []engine.RestoredObject{object(objectKind, "staging", c.cluster), object(instanceKind, "staging-1", c.instance)}}
				err := NewDestination(DestinationSettings{Identifier: "staging", Clock: w.clock, Open: w.open}).Delete(t.Context(), r)
				if (err != nil) != c.refused {
					t.Errorf("Delete: %v", err)
				}
				if gone := w.clusters["staging"] == nil; gone != c.deleted {
					t.Errorf("gone: %v", gone)
				}
			})
		})
	}
}
