//go:build acceptance

package awsrdscluster

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
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

// bed is the stand-in with one cluster "orders", in which a bank is.
type bed struct {
	s      *rdsserver.Server
	bank   *storagetest.Bank
	source *types.DBCluster
	env    storage.Env
	opened time.Time
	window engine.PauseWindow
	said   []string
	runs   int
}

// flavour is how the bank's tables are made.
func flavour(engineName string) storagetest.Flavour {
	if family, _ := shared.Family(engineName); family == shared.FamilyPostgreSQL {
		return storagetest.Flavour{Dialect: postgresDialect, Text: "text", Int: "integer", BigInt: "bigint", Bool: "boolean", Blob: "bytea", Namespace: "CREATE SCHEMA %s", Quote: func(n string) string { return `"` + n + `"` }}
	}
	return storagetest.Flavour{Dialect: mysqlDialect, Text: "VARCHAR(128) CHARACTER SET utf8mb4", Int: "INT", BigInt: "BIGINT", Bool: "BOOLEAN", Blob: "LONGBLOB", Namespace: "CREATE DATABASE %s", Quote: func(n string) string { return "`" + n + "`" }}
}

func open(t *testing.T, c *types.DBCluster, password string) *sql.DB {
	t.Helper()
	e, ok := endpointOf(*c, database)
	if !ok {
		t.Fatalf("cluster %s has no endpoint", *c.DBClusterIdentifier)
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
	b := &bed{s: rdsserver.Start(t, o)}
	b.s.AddSubnetGroup("private", "vpc-1")
	b.s.AddSecurityGroup("sg-app", "vpc-1")
	b.s.AddGroups("tuned", engineName)
	key := b.s.AddKey(rdsserver.Account, rdsserver.Region, "prod", true)
	var err error
	b.source, err = b.s.SeedCluster(t.Context(), &rds.CreateDBClusterInput{
		DBClusterIdentifier: aws.String("orders"), Engine: aws.String(engineName), MasterUsername: aws.String(master), MasterUserPassword: aws.String(secret), DatabaseName: aws.String(database),
		DBSubnetGroupName: aws.String("private"), VpcSecurityGroupIds: []string{"sg-app"}, DBClusterParameterGroupName: aws.String("tuned"), DeletionProtection: aws.Bool(true), BackupRetentionPeriod: aws.Int32(7),
		EnableIAMDatabaseAuthentication: aws.Bool(true), StorageEncrypted: aws.Bool(true), KmsKeyId: aws.String(key), Tags: []types.Tag{{Key: aws.String("team"), Value: aws.String("orders")}},
	})
	for deadline := time.Now().Add(time.Minute); err == nil && b.source.LatestRestorableTime == nil && time.Now().Before(deadline); wait(20 * time.Millisecond) {
		b.source, err = b.s.WaitCluster(t.Context(), "orders")
	}
	if err != nil || b.source.LatestRestorableTime == nil {
		t.Fatalf("making the source: %v", err)
	}
	b.bank = storagetest.NewBank(t, open(t, b.source, secret), flavour(engineName))
	b.env = b.with(secret)
	return b
}

// with is the provider's environment, with the master user's password.
func (b *bed) with(password string) storage.Env {
	return storage.Env{
		StorageName: stored, Clock: systemclock.System{}, Getenv: os.Getenv, Credentials: &storage.Credentials{Username: master, Password: password},
		AWS: func(ctx context.Context) (*awsapi.Session, error) {
			return awsapi.Open(ctx, awsapi.Settings{AccessKey: rdsserver.AccessKey, SecretKey: "anything", Region: rdsserver.Region, SkipMetadataAPICheck: true, Endpoints: map[string]string{"rds": b.s.URL, "sts": b.s.URL}})
		},
	}
}

func (b *bed) report(m string, f map[string]any) { b.said = append(b.said, fmt.Sprint(m, f)) }

// begin makes the phases of a backup up to the end of its window. inWindow runs between capture and confirm.
func (b *bed) begin(t *testing.T, method string, inWindow func()) (engine.Session, error) {
	t.Helper()
	values := map[string]any{"identifier": "orders"}
	if method != "" {
		values["method"] = method
	}
	b.runs++
	x, err := openSource(t, b.env, values).Preflight(t.Context(), engine.Run{ID: fmt.Sprintf("%016x", b.runs), BackupID: "before.release_42", OpenedAt: func() time.Time { return b.opened }, Window: func() engine.PauseWindow { return b.window },
		ServerClockBound: time.Millisecond, Report: b.report})
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		if err := x.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	bound, err := x.MeasureClock(t.Context())
	if err != nil {
		return nil, err
	}
	wait(10 * time.Millisecond) // time stamps of the bank are in milliseconds
	b.opened = time.Now().Round(0)
	if err := x.Capture(t.Context()); err != nil {
		return nil, err
	}
	if inWindow != nil {
		inWindow()
	} else {
		wait(time.Until(b.opened.Add(2*bound.Uncertainty + 2*granule + 1500*time.Millisecond)))
	}
	end := time.Now().Round(0)
	if err := x.Confirm(t.Context()); err != nil {
		return nil, err
	}
	ms := engine.ClockBoundMS{OffsetMS: bound.Offset.Milliseconds(), UncertaintyMS: bound.Uncertainty.Milliseconds() + 1}
	from, until := shared.Span(b.opened, end, ms, granule)
	b.window = engine.PauseWindow{StartedAt: b.opened, EndedAt: end, SafeFrom: from, SafeUntil: until, ClockBounds: map[string]engine.ClockBoundMS{stored: ms}}
	b.window.RestorePoint, _ = engine.RestorePoint(from, until, granule)
	return x, nil
}

func finish(ctx context.Context, x engine.Session) (engine.StorageRecord, error) {
	c, err := x.Await(ctx)
	facts := x.Facts()
	return engine.StorageRecord{Driver: kindName, SourceID: facts.SourceID, ByTime: facts.ByTime, Witness: facts.Witness, Artifacts: c.Artifacts, Tables: c.Tables, HasCoordinator: c.HasCoordinator, CoordinatorNewest: c.CoordinatorNewest, Extra: c.Extra}, err
}

// wait lets real time pass: the servers' clocks are real.
func wait(d time.Duration) { <-time.After(d) }

func (b *bed) storageBackup(record engine.StorageRecord, announce func(engine.Restored)) engine.StorageBackup {
	r := engine.StorageBackup{Storage: stored, RunID: restoreRun, Name: "staging", Record: record, Report: b.report, Announce: func(_ context.Context, r engine.Restored) error {
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

func (b *bed) contents(t *testing.T, db *sql.DB) []string {
	t.Helper()
	rows, err := b.bank.Contents(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// check compares the restored rows with those of the window, and verifies.
func (b *bed) check(t *testing.T, r engine.Restored, record engine.StorageRecord, want []string, password string) *types.DBCluster {
	t.Helper()
	id := r.Objects[0].ID
	c, err := b.s.WaitCluster(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if got := b.contents(t, open(t, c, password)); !slices.Equal(got, want) {
		t.Errorf("the restored rows are not those of the window: %d, want %d", len(got), len(want))
	}
	reader, err := openReader(t.Context(), t, b.with(password), map[string]any{"identifier": id})
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
	return c
}

// TestAcceptanceByTime: restored by time into a new cluster with instances and the source's settings, exactly the rows of the window; and removed again.
func TestAcceptanceByTime(t *testing.T) {
	t.Parallel() // it waits more than it works
	for _, engineName := range []string{"aurora-postgresql", "aurora-mysql"} {
		t.Run(engineName, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, engineName, rdsserver.Options{})
			for range 5 {
				b.bank.MustTransfer(t)
			}
			wait(1100 * time.Millisecond) // binary logs count in seconds
			before := b.inventory()
			if engineName == "aurora-mysql" { // the suite does it with aurora-postgresql
				x, err := b.begin(t, "", func() { b.bank.MustTransfer(t) })
				if err == nil {
					_, err = finish(t.Context(), x)
				}
				if !void(err) {
					t.Errorf("a write in the window: %v", err)
				}
			}
			wait(1100 * time.Millisecond)
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
			if got := b.inventory(); !slices.Equal(got, before) {
				t.Errorf("a backup by time made something: %v", got)
			}
			keeper := Kind{}.Artifacts(object(t, storage.SourceSide, nil), b.env)
			if err := keeper.Inspect(t.Context(), record.Artifacts[0]); err != nil {
				t.Errorf("Inspect: %v", err)
			}
			d := openDestination(t, b.with(cloneSecret), map[string]any{"identifier": "staging", "set_master_password": true, "tags": map[string]string{"env": "staging"},
				"instances": map[string]map[string]any{"writer": nil, "reader": {"instance_class": "db.t4g.medium"}}})
			r, err := d.Restore(t.Context(), b.storageBackup(record, nil))
			if err != nil {
				t.Fatal(err)
			}
			made := b.check(t, r, record, want, cloneSecret)
			got := shapeOf(*made, shared.Place{})
			if got.SubnetGroup != "private" || !slices.Equal(got.SecurityGroups, []string{"sg-app"}) || got.ParameterGroup != "tuned" || !aws.ToBool(got.Protected) || !aws.ToBool(got.IAMAuth) || *got.Retention != 7 ||
				got.Tags["team"] != "orders" || got.Tags["env"] != "staging" || len(made.DBClusterMembers) != 2 {
				t.Errorf("the copy is set up as %+v; said %q", got, b.said)
			}
			if len(r.Objects) != 3 || r.Objects[0].Extra[shared.ExtraResourceID] != *made.DbClusterResourceId {
				t.Errorf("objects %+v", r.Objects)
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
			for _, text := range append(b.said, fmt.Sprintf("%+v %+v", r, record)) {
				if strings.Contains(text, secret) || strings.Contains(text, cloneSecret) {
					t.Error("a password shows")
				}
			}
			if err := b.s.SetEarliest(*b.source.DbClusterResourceId, time.Now()); err != nil {
				t.Fatal(err)
			}
			if err := keeper.Inspect(t.Context(), record.Artifacts[0]); !errors.Is(err, engine.ErrNotFound) {
				t.Errorf("Inspect after the retention: %v", err)
			}
			if err := d.Preflight(t.Context(), b.storageBackup(record, nil)); err == nil || !strings.Contains(err.Error(), "has left the automated backups") {
				t.Errorf("Preflight after the retention: %v", err)
			}
		})
	}
}

// TestAcceptanceSnapshot: the restore point as a snapshot, with faults at random on the way, restored in another region with another key.
func TestAcceptanceSnapshot(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "aurora-postgresql", rdsserver.Options{Seed: 3})
	b.bank.MustTransfer(t)
	wait(1100 * time.Millisecond)
	before := b.inventory()
	want := b.contents(t, b.bank.DB)
	x, err := b.begin(t, "snapshot", nil)
	if err != nil {
		t.Fatal(err)
	}
	b.bank.MustTransfer(t)
	b.s.SetRates(rdsserver.Rates{Throttle: 0.05, Error: 0.05})
	record, err := finish(t.Context(), x)
	if err != nil {
		t.Fatal(err)
	}
	b.s.SetRates(rdsserver.Rates{})
	a := record.Artifacts[0]
	withSnapshot := append(slices.Clone(before), "cluster snapshot "+rdsserver.Account+" "+rdsserver.Region+" "+nameOf(a))
	slices.Sort(withSnapshot)
	if got := b.inventory(); !slices.Equal(got, withSnapshot) {
		t.Errorf("the backup left %v, want %v", got, withSnapshot)
	}
	elsewhere := b.s.AddKey(rdsserver.Account, "eu-west-1", "staging", true)
	d := openDestination(t, b.env, map[string]any{"identifier": "distant", "region": "eu-west-1", "kms_key_id": elsewhere})
	r, err := d.Restore(t.Context(), b.storageBackup(record, nil))
	if err != nil {
		t.Fatal(err)
	}
	api, _, err := opener(b.env)(t.Context(), r.Objects[0].Extra[shared.ExtraRegion])
	if err != nil {
		t.Fatal(err)
	}
	c, err := describe(t.Context(), api, r.Objects[0].ID)
	if err != nil || c == nil {
		t.Fatalf("the restored cluster: %v", err)
	}
	if got := b.contents(t, open(t, c, secret)); !slices.Equal(got, want) {
		t.Errorf("the restored rows are not those of the window: %d, want %d", len(got), len(want))
	}
	if err := d.Delete(t.Context(), r); err != nil {
		t.Errorf("Delete: %v", err)
	}
	if got := b.inventory(); !slices.Equal(got, withSnapshot) {
		t.Errorf("left %v", got)
	}
	keeper := Kind{}.Artifacts(object(t, storage.SourceSide, nil), b.env)
	if err := keeper.Delete(t.Context(), a); err != nil {
		t.Errorf("Delete: %v", err)
	}
	if got := b.inventory(); !slices.Equal(got, before) {
		t.Errorf("left %v", got)
	}
}

// TestAcceptanceClock: AWS's clock is off, and the bound covers it.
func TestAcceptanceClock(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "aurora-postgresql", rdsserver.Options{})
	const off = 3300 * time.Millisecond
	b.s.SetClockOffset(off)
	c, err := openSource(t, b.env, map[string]any{"identifier": "orders"}).OpenClock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	bound, err := c.MeasureClock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d := (bound.Offset - off).Abs(); d > bound.Uncertainty || bound.Uncertainty < time.Second {
		t.Errorf("the clock is %s off, and was measured as %s ± %s", off, bound.Offset, bound.Uncertainty)
	}
}
