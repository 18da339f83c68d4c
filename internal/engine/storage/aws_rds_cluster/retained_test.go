//go:build acceptance

package awsrdscluster

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/rds"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/rdsserver"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage"
	shared "github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/rds"
)

// deleteSource deletes the source and its writer, and keeps its automated backup.
func (b *bed) deleteSource(t *testing.T) {
	t.Helper()
	client := b.s.RDS()
	if _, err := client.ModifyDBCluster(t.Context(), &rds.ModifyDBClusterInput{DBClusterIdentifier: aws.String("orders"), DeletionProtection: aws.Bool(false), BackupRetentionPeriod: aws.Int32(3),
		EnableIAMDatabaseAuthentication: aws.Bool(false), ApplyImmediately: aws.Bool(true)}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.s.WaitCluster(t.Context(), "orders"); err != nil {
		t.Fatal(err)
	}
	if _, err := client.DeleteDBInstance(t.Context(), &rds.DeleteDBInstanceInput{DBInstanceIdentifier: aws.String("orders-1")}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.DeleteDBCluster(t.Context(), &rds.DeleteDBClusterInput{DBClusterIdentifier: aws.String("orders"), SkipFinalSnapshot: aws.Bool(true), DeleteAutomatedBackups: aws.Bool(false)}); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	for slices.ContainsFunc(b.s.Inventory(), func(i rdsserver.Item) bool { return i.Kind == "cluster" || i.Kind == "instance" }) {
		if time.Now().After(deadline) {
			t.Fatal("the source is not deleted")
		}
		wait(20 * time.Millisecond)
	}
}

// backedUp is a backup by time of a source that is written to afterwards, and then deleted. It returns the rows of the window.
func (b *bed) backedUp(t *testing.T) (engine.StorageRecord, []string) {
	t.Helper()
	for range 5 {
		b.bank.MustTransfer(t)
	}
	wait(1100 * time.Millisecond) // binary logs count in seconds
	want := b.contents(t, b.bank.DB)
	x, err := b.begin(t, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	b.bank.MustTransfer(t) // after the window
	record, err := finish(t.Context(), x)
	if err != nil {
		t.Fatal(err)
	}
	wait(time.Until(b.window.RestorePoint.Add(2100 * time.Millisecond))) // the backup ends after the restore point
	if got := b.contents(t, b.bank.DB); slices.Equal(got, want) {
		t.Fatal("nothing was written after the window")
	}
	b.deleteSource(t)
	return record, want
}

// TestAcceptanceRetained: the source is deleted, and its name is another's. Its retained backup restores it by time: exactly the rows of the window, and set up as
// it was when the backup was taken, of which automated backups tell little.
func TestAcceptanceRetained(t *testing.T) {
	t.Parallel() // it waits more than it works
	for _, engineName := range []string{"aurora-postgresql", "aurora-mysql"} {
		t.Run(engineName, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, engineName, rdsserver.Options{})
			record, want := b.backedUp(t)
			if _, err := b.s.RDS().CreateDBCluster(t.Context(), &rds.CreateDBClusterInput{DBClusterIdentifier: aws.String("orders"), Engine: aws.String(engineName), MasterUsername: aws.String("somebody"), MasterUserPassword: aws.String(secret)}); err != nil {
				t.Fatal(err)
			}
			if _, err := b.s.WaitCluster(t.Context(), "orders"); err != nil {
				t.Fatal(err)
			}
			before := b.inventory()
			if len(before) != 2 || !strings.HasPrefix(before[1], "retained cluster backup ") {
				t.Fatalf("there is %v: want the other cluster and the retained backup", before)
			}
			if err := (Kind{}).Artifacts(object(t, storage.SourceSide, nil), b.env).Inspect(t.Context(), record.Artifacts[0]); err != nil {
				t.Errorf("Inspect: %v", err)
			}
			d := openDestination(t, b.with(cloneSecret), map[string]any{"identifier": "staging", "set_master_password": true, "tags": map[string]string{"env": "staging"}})
			r, err := d.Restore(t.Context(), b.storageBackup(record, nil))
			if err != nil {
				t.Fatal(err)
			}
			made := b.check(t, r, record, want, cloneSecret)
			got := shapeOf(*made, shared.Place{})
			if got.SubnetGroup != "private" || !slices.Equal(got.SecurityGroups, []string{"sg-app"}) || got.ParameterGroup != "tuned" || !aws.ToBool(got.Protected) || !aws.ToBool(got.IAMAuth) || *got.Retention != 7 ||
				got.KMSKey != *b.source.KmsKeyId || got.MasterUsername != master || got.Tags["team"] != "orders" || got.Tags["env"] != "staging" {
				t.Errorf("the copy is set up as %+v; said %q", got, b.said)
			}
			if w, err := b.s.WaitInstance(t.Context(), "staging-1"); err != nil || *w.DBInstanceClass != "db.r6g.large" || len(made.DBClusterMembers) != 1 {
				t.Errorf("its writer is %+v (%v): want one of the source's class", w, err)
			}
			if id := *made.DbClusterResourceId; id == *b.source.DbClusterResourceId || r.Objects[0].Extra[shared.ExtraResourceID] != id {
				t.Errorf("objects %+v", r.Objects)
			}
			if err := d.Delete(t.Context(), r); err != nil {
				t.Errorf("Delete: %v", err)
			}
			if got := b.inventory(); !slices.Equal(got, before) {
				t.Errorf("left %v, before there were %v", got, before)
			}
		})
	}
}

// TestAcceptanceRetentionEnds: the restore point leaves the retained backup, and then that goes: the artifact is gone, and a plan says why.
func TestAcceptanceRetentionEnds(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "aurora-postgresql", rdsserver.Options{})
	record, _ := b.backedUp(t)
	id, point := *b.source.DbClusterResourceId, b.window.RestorePoint
	keeper := Kind{}.Artifacts(object(t, storage.SourceSide, nil), b.env)
	d := openDestination(t, b.env, map[string]any{"identifier": "staging"})
	earliest := func(at time.Time) {
		t.Helper()
		if err := b.s.SetEarliest(id, at); err != nil {
			t.Fatal(err)
		}
	}

	earliest(point) // its last second
	if err := keeper.Inspect(t.Context(), record.Artifacts[0]); err != nil {
		t.Errorf("Inspect at the end of the retention: %v", err)
	}
	if err := d.Preflight(t.Context(), b.storageBackup(record, nil)); err != nil {
		t.Errorf("Preflight at the end of the retention: %v", err)
	}
	later := b.storageBackup(record, nil)
	later.RestorePoint = time.Now().UTC().Truncate(time.Second)
	if err := d.Preflight(t.Context(), later); err == nil || !strings.Contains(err.Error(), "its retained backups end at") {
		t.Errorf("Preflight of a time after the deletion: %v", err)
	}

	gone := func(when, inspect, preflight string) {
		t.Helper()
		if err := keeper.Inspect(t.Context(), record.Artifacts[0]); !errors.Is(err, engine.ErrNotFound) || !strings.Contains(err.Error(), inspect) {
			t.Errorf("Inspect %s: %v", when, err)
		}
		if err := d.Preflight(t.Context(), b.storageBackup(record, nil)); err == nil || !strings.Contains(err.Error(), preflight) {
			t.Errorf("Preflight %s: %v", when, err)
		}
	}
	earliest(point.Add(granule))
	gone("after the retention", "reach back to", "has left the automated backups")
	if _, err := d.Restore(t.Context(), b.storageBackup(record, nil)); err == nil {
		t.Error("a restore after the retention succeeded")
	}
	b.s.Expire(id)
	gone("when nothing is left", "no automated backups of it are retained", "no automated backups of it are retained")
	if got := b.inventory(); len(got) != 0 {
		t.Errorf("left %v", got)
	}
}

// TestAcceptanceRetainedByWindow: of a pause window alone only the deleted source's name is known.
func TestAcceptanceRetainedByWindow(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "aurora-postgresql", rdsserver.Options{})
	record, want := b.backedUp(t)
	q := b.storageBackup(record, nil)
	q.Record = engine.StorageRecord{}
	d := openDestination(t, b.env, map[string]any{"source_identifier": "orders", "identifier": "staging", "instances": map[string]map[string]any{"1": {"instance_class": "db.r6g.large"}}})
	r, err := d.Restore(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	b.check(t, r, record, want, secret)
	if err := d.Delete(t.Context(), r); err != nil {
		t.Errorf("Delete: %v", err)
	}
}
