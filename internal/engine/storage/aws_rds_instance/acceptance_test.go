//go:build acceptance

package awsrdsinstance

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/rdsserver"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/awsapi"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	systemclock "github.com/scalar-labs/terraform-provider-scalardb/internal/engine/clock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage"
	shared "github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/rds"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/storagetest"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
)

const (
	master      = "master"
	secret      = "pass'word #1=2" // of the source's master user
	cloneSecret = "another secret 2"
	database    = "app"
)

// bed is the stand-in with one instance "orders", in which a bank is.
type bed struct {
	s      *rdsserver.Server
	bank   *storagetest.Bank
	source *types.DBInstance
	engine string
	env    storage.Env
	opened time.Time
	window engine.PauseWindow
	said   []string
}

// flavour is how the bank's tables are made.
func flavour(engineName string) storagetest.Flavour {
	e := shared.Endpoint{Engine: engineName}
	if family, _ := shared.Family(e.Engine); family == shared.FamilyPostgreSQL {
		return storagetest.Flavour{Dialect: postgresDialect, Text: "text", Int: "integer", BigInt: "bigint", Bool: "boolean", Blob: "bytea", Namespace: "CREATE SCHEMA %s", Quote: func(n string) string { return `"` + n + `"` }}
	}
	return storagetest.Flavour{Dialect: mysqlDialect, Text: "VARCHAR(128) CHARACTER SET utf8mb4", Int: "INT", BigInt: "BIGINT", Bool: "BOOLEAN", Blob: "LONGBLOB", Namespace: "CREATE DATABASE %s", Quote: func(n string) string { return "`" + n + "`" }}
}

func (b *bed) open(t *testing.T, i *types.DBInstance, password string) *sql.DB {
	t.Helper()
	e, ok := endpointOf(*i, database)
	if !ok {
		t.Fatalf("instance %s has no endpoint", *i.DBInstanceIdentifier)
	}
	db, _, err := e.Open(t.Context(), shared.Login{Username: master, Password: password}, systemclock.System{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func newBed(t *testing.T, engineName string, o rdsserver.Options) *bed {
	t.Helper()
	o.Factor = 400
	b := &bed{s: rdsserver.Start(t, o), engine: engineName}
	b.s.AddSubnetGroup("private", "vpc-1")
	b.s.AddSecurityGroup("sg-app", "vpc-1")
	b.s.AddGroups("tuned", engineName)
	key := b.s.AddKey(rdsserver.Account, rdsserver.Region, "prod", true)
	var err error
	b.source, err = b.s.Seed(t.Context(), &rds.CreateDBInstanceInput{
		DBInstanceIdentifier: aws.String("orders"), Engine: aws.String(engineName), DBInstanceClass: aws.String("db.r6g.large"), AllocatedStorage: aws.Int32(100), MasterUsername: aws.String(master),
		MasterUserPassword: aws.String(secret), DBName: aws.String(database), DBSubnetGroupName: aws.String("private"), VpcSecurityGroupIds: []string{"sg-app"}, DBParameterGroupName: aws.String("tuned"),
		OptionGroupName: aws.String("tuned"), MultiAZ: aws.Bool(true), DeletionProtection: aws.Bool(true), CopyTagsToSnapshot: aws.Bool(true), EnableIAMDatabaseAuthentication: aws.Bool(true),
		BackupRetentionPeriod: aws.Int32(7), StorageType: aws.String("io1"), Iops: aws.Int32(1000), StorageEncrypted: aws.Bool(true), KmsKeyId: aws.String(key), AutoMinorVersionUpgrade: aws.Bool(false),
		PreferredBackupWindow: aws.String("02:00-03:00"), Tags: []types.Tag{{Key: aws.String("team"), Value: aws.String("orders")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); b.source.LatestRestorableTime == nil; wait(20 * time.Millisecond) {
		if b.source, err = b.s.WaitInstance(t.Context(), "orders"); err != nil || time.Now().After(deadline) {
			t.Fatalf("the source has no restorable time: %v", err)
		}
	}
	b.bank = storagetest.NewBank(t, b.open(t, b.source, secret), flavour(engineName))
	b.env = b.account(rdsserver.AccessKey)
	return b
}

// account is the provider's environment with another access key.
func (b *bed) account(accessKey string) storage.Env {
	return storage.Env{
		StorageName: stored, Clock: systemclock.System{}, Getenv: os.Getenv, Credentials: &storage.Credentials{Username: master, Password: secret},
		AWS: func(ctx context.Context) (*awsapi.Session, error) {
			return awsapi.Open(ctx, awsapi.Settings{AccessKey: accessKey, SecretKey: "anything", Region: rdsserver.Region, SkipMetadataAPICheck: true, Endpoints: map[string]string{"rds": b.s.URL, "sts": b.s.URL}})
		},
	}
}

// clone is env with the credentials of a restored instance.
func (b *bed) clone(password string) storage.Env {
	e := b.env
	e.Credentials = &storage.Credentials{Username: master, Password: password}
	return e
}

// run is one run of the engine, as far as a driver sees it.
func (b *bed) run(report func(string, map[string]any)) engine.Run {
	return engine.Run{ID: runID, BackupID: "before.release_42", OpenedAt: func() time.Time { return b.opened }, Window: func() engine.PauseWindow { return b.window }, ServerClockBound: time.Millisecond, Report: report}
}

// take makes the phases of a backup. inWindow runs between capture and confirm, afterwards after the window closed.
func (b *bed) take(t *testing.T, method string, inWindow, afterwards func()) (engine.StorageRecord, error) {
	t.Helper()
	values := map[string]any{"identifier": "orders"}
	if method != "" {
		values["method"] = method
	}
	x, err := openSource(t, b.env, values).Preflight(t.Context(), b.run(func(m string, f map[string]any) { b.said = append(b.said, fmt.Sprint(m, f)) }))
	if err != nil {
		return engine.StorageRecord{}, err
	}
	defer func() {
		if err := x.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}()
	facts := x.Facts()
	bound, err := x.MeasureClock(t.Context())
	if err != nil {
		return engine.StorageRecord{}, err
	}
	wait(10 * time.Millisecond) // time stamps of the bank are in milliseconds
	b.opened = time.Now().Round(0)
	err = x.Capture(t.Context())
	if err != nil {
		return engine.StorageRecord{}, errors.Join(err, x.Discard(t.Context()))
	}
	if inWindow != nil {
		inWindow()
	}
	if facts.NeedsInstant && inWindow == nil { // what inWindow does voids it, which shows before a restore point is needed
		wait(time.Until(b.opened.Add(2*bound.Uncertainty + 2*facts.Granule + 1500*time.Millisecond)))
	}
	end := time.Now().Round(0)
	if _, err := x.MeasureClock(t.Context()); err != nil {
		return engine.StorageRecord{}, err
	}
	if err := x.Confirm(t.Context()); err != nil {
		return engine.StorageRecord{}, errors.Join(err, x.Discard(t.Context()))
	}
	ms := engine.ClockBoundMS{OffsetMS: bound.Offset.Milliseconds(), UncertaintyMS: bound.Uncertainty.Milliseconds() + 1}
	from, until := shared.Span(b.opened, end, ms, facts.Granule)
	b.window = engine.PauseWindow{StartedAt: b.opened, EndedAt: end, SafeFrom: from, SafeUntil: until, ClockBounds: map[string]engine.ClockBoundMS{stored: ms}}
	if facts.NeedsInstant && inWindow == nil {
		var ok bool
		if b.window.RestorePoint, ok = engine.RestorePoint(from, until, facts.Granule); !ok {
			t.Fatalf("no restore point between %s and %s", from, until)
		}
	}
	if afterwards != nil {
		afterwards()
	}
	c, err := x.Await(t.Context())
	if err != nil {
		return engine.StorageRecord{}, errors.Join(err, x.Discard(t.Context()))
	}
	return engine.StorageRecord{Driver: kindName, SourceID: facts.SourceID, ByTime: facts.ByTime, Witness: facts.Witness, Artifacts: c.Artifacts, Tables: c.Tables, HasCoordinator: c.HasCoordinator, CoordinatorNewest: c.CoordinatorNewest, Extra: c.Extra}, nil
}

// wait lets real time pass: the servers' clocks are real.
func wait(d time.Duration) { <-time.After(d) }

func (b *bed) storageBackup(record engine.StorageRecord, announce func(engine.Restored)) engine.StorageBackup {
	r := engine.StorageBackup{Storage: stored, RunID: restoreRun, Name: "staging", Record: record,
		Report: func(m string, f map[string]any) { b.said = append(b.said, fmt.Sprint(m, f)) },
		Announce: func(_ context.Context, r engine.Restored) error {
			if announce != nil {
				announce(r)
			}
			return nil
		}}
	if record.ByTime {
		r.RestorePoint = b.window.RestorePoint
	}
	return r
}

// inventory is what there is, but for what AWS is already deleting.
func (b *bed) inventory() (names []string) {
	for _, i := range b.s.Inventory() {
		if i.Status != "deleting" {
			names = append(names, i.Kind+" "+i.Account+" "+i.Region+" "+i.Identifier)
		}
	}
	slices.Sort(names)
	return names
}

// load writes all the time, until the returned func is called. The gate is held while the pause lasts.
func (b *bed) load(t *testing.T, gate chan struct{}) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			case <-gate:
			}
			if err := b.bank.Transfer(t.Context(), 0); err != nil && t.Context().Err() == nil {
				t.Errorf("writing beside the backup: %v", err)
			}
			gate <- struct{}{}
			wait(2 * time.Millisecond)
		}
	}()
	return sync.OnceFunc(func() { close(done); <-ended })
}

func (b *bed) contents(t *testing.T, db *sql.DB) []string {
	t.Helper()
	rows, err := b.bank.Contents(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// check compares the restored rows with those of the window, and verifies.
func (b *bed) check(t *testing.T, r engine.Restored, record engine.StorageRecord, want []string, password string) {
	t.Helper()
	id := r.Objects[0].ID
	i, err := b.s.WaitInstance(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if got := b.contents(t, b.open(t, i, password)); !slices.Equal(got, want) {
		t.Errorf("the restored rows are not those of the window: %d, want %d", len(got), len(want))
	}
	reader, err := openReader(t.Context(), t, b.clone(password), map[string]any{"identifier": id})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close() //nolint:errcheck // read only
	expected := verify.Expected{HasCoordinator: record.HasCoordinator, CoordinatorNewest: record.CoordinatorNewest}
	for _, w := range record.Tables {
		expected.Tables = append(expected.Tables, verify.ExpectedTable{Namespace: w.Namespace, Name: w.Table, Rows: w.Rows, Estimated: w.Estimated, NewestCommitted: w.NewestCommitted})
	}
	report, err := verify.Run(t.Context(), verify.Request{Storages: map[string]verify.Storage{stored: reader}, Window: &verify.Window{From: b.window.StartedAt, Until: b.window.EndedAt},
		Drain: 30 * time.Second, ServerClockBound: time.Millisecond, Expected: map[string]verify.Expected{stored: expected}, Now: time.Now(), Clock: systemclock.System{}})
	if err != nil {
		t.Fatal(err)
	}
	if !report.Passed || report.Records == 0 {
		t.Errorf("verification: %+v", report)
	}
	if want := net.JoinHostPort(r.Endpoint, strconv.FormatInt(r.Port, 10)); !strings.Contains(r.Properties["contact_points"], want) {
		t.Errorf("properties %v do not lead to %s", r.Properties, want)
	}
}

// TestAcceptanceByTime: under load, paused, restored by time into a new instance with the source's settings, exactly the rows of the window; and removed again.
func TestAcceptanceByTime(t *testing.T) {
	t.Parallel() // it waits more than it works
	for _, engineName := range []string{"postgres", "mariadb"} {
		t.Run(engineName, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, engineName, rdsserver.Options{})
			for range 20 {
				b.bank.MustTransfer(t)
			}
			before := b.inventory()
			gate := make(chan struct{}, 1)
			gate <- struct{}{}
			stop := b.load(t, gate)
			defer stop()
			wait(300 * time.Millisecond)
			<-gate // the pause
			want := b.contents(t, b.bank.DB)
			record, err := b.take(t, "", nil, func() { gate <- struct{}{} })
			if err != nil {
				t.Fatal(err)
			}
			if !record.HasCoordinator || record.CoordinatorNewest == 0 || len(record.Tables) != 3 || record.Witness != shared.WitnessName {
				t.Errorf("the witness says %+v", record)
			}
			if got := b.inventory(); !slices.Equal(got, before) {
				t.Errorf("a backup by time made something: %v", got)
			}
			keeper := Kind{}.Artifacts(object(t, storage.SourceSide, nil), b.env)
			if err := keeper.Inspect(t.Context(), record.Artifacts[0]); err != nil {
				t.Errorf("Inspect: %v", err)
			}

			d := openDestination(t, b.clone(cloneSecret), map[string]any{"identifier": "staging", "source_identifier": "orders", "set_master_password": true, "instance_class": "db.t4g.medium", "tags": map[string]string{"env": "staging"}})
			var announced []engine.Restored
			r, err := d.Restore(t.Context(), b.storageBackup(record, func(r engine.Restored) { announced = append(announced, r) }))
			if err != nil {
				t.Fatal(err)
			}
			b.check(t, r, record, want, cloneSecret)
			made, err := b.s.WaitInstance(t.Context(), "staging")
			if err != nil {
				t.Fatal(err)
			}
			got := shapeOf(*made, shared.Place{})
			if got.SubnetGroup != "private" || !slices.Equal(got.SecurityGroups, []string{"sg-app"}) || got.ParameterGroup != "tuned" || got.OptionGroup != "tuned" || !aws.ToBool(got.MultiAZ) || !aws.ToBool(got.Protected) || !aws.ToBool(got.IAMAuth) ||
				got.IOPS != 1000 || got.StorageType != "io1" || *got.Retention != 7 || got.BackupWindow != "02:00-03:00" || aws.ToBool(got.AutoMinor) || got.Class != "db.t4g.medium" || got.Tags["team"] != "orders" || got.Tags["env"] != "staging" {
				t.Errorf("the copy is set up as %+v; said %q", got, b.said)
			}
			if *made.DbiResourceId == *b.source.DbiResourceId || r.Objects[0].Extra[shared.ExtraResourceID] != *made.DbiResourceId || len(announced) < 2 {
				t.Errorf("objects %+v, announced %+v", r.Objects, announced)
			}
			if err := d.Inspect(t.Context(), r); err != nil {
				t.Errorf("Inspect: %v", err)
			}
			for range 2 {
				if err := d.Delete(t.Context(), r); err != nil {
					t.Errorf("Delete: %v", err)
				}
			}
			if err := d.Inspect(t.Context(), r); !errors.Is(err, engine.ErrNotFound) {
				t.Errorf("Inspect after Delete: %v", err)
			}
			if got := b.inventory(); !slices.Equal(got, before) {
				t.Errorf("left %v, before there were %v", got, before)
			}
			for _, text := range append(b.said, fmt.Sprintf("%+v %+v %+v", r, announced, record)) {
				if strings.Contains(text, secret) || strings.Contains(text, cloneSecret) {
					t.Error("a password shows")
				}
			}

			// The source is deleted: its retained backups restore it, until they expire; then the artifact is gone.
			stop()
			b.deleteSource(t)
			if err := keeper.Inspect(t.Context(), record.Artifacts[0]); err != nil {
				t.Errorf("Inspect with retained backups: %v", err)
			}
			d = openDestination(t, b.clone(cloneSecret), map[string]any{"identifier": "after", "set_master_password": true})
			r, err = d.Restore(t.Context(), b.storageBackup(record, nil))
			if err != nil {
				t.Fatal(err)
			}
			b.check(t, r, record, want, cloneSecret)
			b.s.Expire(*b.source.DbiResourceId)
			if err := keeper.Inspect(t.Context(), record.Artifacts[0]); !errors.Is(err, engine.ErrNotFound) {
				t.Errorf("Inspect when nothing is left: %v", err)
			}
			if err := openDestination(t, b.env, map[string]any{"identifier": "never"}).Preflight(t.Context(), b.storageBackup(record, nil)); err == nil || !strings.Contains(err.Error(), "no automated backups of it are retained") {
				t.Errorf("Preflight when nothing is left: %v", err)
			}
		})
	}
}

func (b *bed) deleteSource(t *testing.T) {
	t.Helper()
	client := b.s.RDS()
	if _, err := client.ModifyDBInstance(t.Context(), &rds.ModifyDBInstanceInput{DBInstanceIdentifier: aws.String("orders"), DeletionProtection: aws.Bool(false), ApplyImmediately: aws.Bool(true)}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.s.WaitInstance(t.Context(), "orders"); err != nil {
		t.Fatal(err)
	}
	if _, err := client.DeleteDBInstance(t.Context(), &rds.DeleteDBInstanceInput{DBInstanceIdentifier: aws.String("orders"), SkipFinalSnapshot: aws.Bool(true), DeleteAutomatedBackups: aws.Bool(false)}); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	for slices.ContainsFunc(b.s.Inventory(), func(i rdsserver.Item) bool { return i.Kind == "instance" && i.Identifier == "orders" }) {
		if time.Now().After(deadline) {
			t.Fatal("the source is not deleted")
		}
		wait(20 * time.Millisecond)
	}
}

// TestAcceptanceWitness: what is written in the window voids it, and nothing is left: with MariaDB here, with PostgreSQL in the suite.
func TestAcceptanceWitness(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "mariadb", rdsserver.Options{})
	b.bank.MustTransfer(t)
	before := b.inventory()
	slow := time.Now().Add(-time.Hour).UnixMilli()
	for what, write := range map[string]func() error{
		"a transfer":                    func() error { return b.bank.Transfer(t.Context(), 0) },
		"by a writer with a slow clock": func() error { return b.bank.Transfer(t.Context(), slow) },
		"a change of the schema":        func() error { return b.bank.CreateTable(t.Context(), "extra") },
	} {
		_, err := b.take(t, "", func() {
			if err := write(); err != nil {
				t.Fatal(err)
			}
		}, nil)
		if !void(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if got := b.inventory(); !slices.Equal(got, before) {
		t.Errorf("left %v", got)
	}
	b.env.Credentials = nil // nothing is read, so nothing is known
	record, err := b.take(t, "", nil, nil)
	if err != nil || record.Witness != "none" || len(record.Tables) != 0 || record.HasCoordinator {
		t.Errorf("without credentials: %+v, %v", record, err)
	}
}

// TestAcceptanceLateSnapshot: one that was taken later than it was asked for shows what came after the window, which voids it.
func TestAcceptanceLateSnapshot(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "postgres", rdsserver.Options{})
	before := b.inventory()
	b.s.SetSnapshotDelay(3 * time.Second)
	_, err := b.take(t, "snapshot", nil, func() { b.bank.MustTransfer(t) })
	if !void(err) || !strings.Contains(err.Error(), "holds a transaction of") {
		t.Errorf("a snapshot that was taken after the window: %v", err)
	}
	if got := b.inventory(); !slices.Equal(got, before) {
		t.Errorf("left %v", got)
	}
}

// TestAcceptanceSnapshot: a snapshot in the window, shared, restored with another key, in another region and in another account.
func TestAcceptanceSnapshot(t *testing.T) {
	t.Parallel() // it waits more than it works
	const other, otherKey = "210987654321", "AKIAOTHER"
	b := newBed(t, "postgres", rdsserver.Options{Accounts: map[string]string{rdsserver.AccessKey: rdsserver.Account, otherKey: other}})
	for range 5 {
		b.bank.MustTransfer(t)
	}
	before := b.inventory()
	want := b.contents(t, b.bank.DB)
	record, err := b.take(t, "snapshot", nil, func() { b.bank.MustTransfer(t) })
	if err != nil {
		t.Fatal(err)
	}
	a := record.Artifacts[0]
	if _, err := b.s.RDS().ModifyDBSnapshotAttribute(t.Context(), &rds.ModifyDBSnapshotAttributeInput{DBSnapshotIdentifier: aws.String(snapshotName(a)), AttributeName: aws.String("restore"), ValuesToAdd: []string{other}}); err != nil {
		t.Fatal(err)
	}
	withSnapshot := b.inventory()
	b.s.AddKey(rdsserver.Account, rdsserver.Region, "staging", true)
	elsewhere := b.s.AddKey(rdsserver.Account, "eu-west-1", "staging", true)
	theirs := b.s.AddKey(other, rdsserver.Region, "theirs", true)
	for name, c := range map[string]struct {
		env    storage.Env
		values map[string]any
	}{
		"another key":     {b.env, map[string]any{"identifier": "rekeyed", "kms_key_id": "arn:aws:kms:us-east-1:" + rdsserver.Account + ":key/staging"}},
		"another region":  {b.env, map[string]any{"identifier": "distant", "region": "eu-west-1", "kms_key_id": elsewhere}},
		"another account": {b.account(otherKey), map[string]any{"identifier": "foreign", "kms_key_id": theirs}},
	} {
		t.Run(name, func(t *testing.T) {
			d := openDestination(t, c.env, c.values)
			r, err := d.Restore(t.Context(), b.storageBackup(record, nil))
			if err != nil {
				t.Fatal(err)
			}
			api, _, err := opener(c.env)(t.Context(), r.Objects[0].Extra[shared.ExtraRegion])
			if err != nil {
				t.Fatal(err)
			}
			i, err := describe(t.Context(), api, r.Objects[0].ID)
			if err != nil || i == nil {
				t.Fatalf("the restored instance: %v", err)
			}
			if got := b.contents(t, b.open(t, i, secret)); !slices.Equal(got, want) {
				t.Errorf("the restored rows are not those of the window: %d, want %d", len(got), len(want))
			}
			if err := d.Delete(t.Context(), r); err != nil {
				t.Errorf("Delete: %v", err)
			}
		})
	}
	if got := b.inventory(); !slices.Equal(got, withSnapshot) {
		t.Errorf("left %v", got)
	}
	if err := (Kind{}).Artifacts(object(t, storage.SourceSide, nil), b.env).Delete(t.Context(), a); err != nil {
		t.Errorf("Delete: %v", err)
	}
	if got := b.inventory(); !slices.Equal(got, before) {
		t.Errorf("left %v", got)
	}
}

// TestAcceptanceClock: AWS's clock is off, and the bound covers it.
func TestAcceptanceClock(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "postgres", rdsserver.Options{})
	for _, off := range []time.Duration{0, 3300 * time.Millisecond, -2 * time.Minute} {
		b.s.SetClockOffset(off)
		c, err := openSource(t, b.env, map[string]any{"identifier": "orders"}).OpenClock(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			bound, err := c.MeasureClock(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if d := (bound.Offset - off).Abs(); d > bound.Uncertainty || bound.Uncertainty < time.Second {
				t.Errorf("the clock is %s off, and was measured as %s ± %s", off, bound.Offset, bound.Uncertainty)
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestAcceptancePermissions: a permission that is missing is named, before anything is touched.
func TestAcceptancePermissions(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "postgres", rdsserver.Options{})
	for _, action := range []string{"DescribeDBInstances", "DescribeDBInstanceAutomatedBackups"} {
		b.s.Deny(action)
		if _, err := openSource(t, b.env, map[string]any{"identifier": "orders"}).Preflight(t.Context(), b.run(nil)); err == nil || !strings.Contains(err.Error(), "allow rds:"+action) {
			t.Errorf("without %s: %v", action, err)
		}
	}
	for _, action := range []string{"DescribeAccountAttributes", "DescribeDBSnapshots"} {
		b.s.Deny(action)
		if _, err := openSource(t, b.env, map[string]any{"identifier": "orders", "method": "snapshot"}).Preflight(t.Context(), b.run(nil)); err == nil || !strings.Contains(err.Error(), "allow rds:"+action) {
			t.Errorf("without %s: %v", action, err)
		}
	}
	b.s.Deny()
	b.s.SetQuotas(map[string]int64{"ManualSnapshots": 0})
	if _, err := openSource(t, b.env, map[string]any{"identifier": "orders", "method": "snapshot"}).Preflight(t.Context(), b.run(nil)); err == nil || !strings.Contains(err.Error(), "0 of 0 manual snapshots") {
		t.Errorf("without room for snapshots: %v", err)
	}
}
