//go:build acceptance

package awsdynamodb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/applicationautoscaling"
	scaling "github.com/aws/aws-sdk-go-v2/service/applicationautoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/dynamo"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/scalardb"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/awsapi"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/admin/adminpb"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/clock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/memcatalog"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
)

const (
	bedAccount = "111111111111"
	bedKey     = "AKIAONE"
	bedSecret  = "very-secret-key-1"
	bedRegion  = "eu-west-1"
	bedOther   = "eu-central-1"
)

// bed is DynamoDB Local behind the strict proxy, and the driver over the unmodified SDK.
type bed struct {
	t       *testing.T
	service *dynamo.Service
	api     *dynamodb.Client
	account Account
	catalog engine.Catalog
}

func newBed(t *testing.T, o dynamo.Options) *bed {
	t.Helper()
	s := dynamo.Start(t, o)
	account, session := connect(t, s.Endpoint())
	return &bed{t: t, service: s, api: session.DynamoDB(bedRegion), account: account, catalog: memcatalog.New(time.Now)}
}

// connect opens the account at an address.
func connect(t *testing.T, url string) (Account, *awsapi.Session) {
	t.Helper()
	session, err := awsapi.Open(t.Context(), awsapi.Settings{
		Region: bedRegion, AccessKey: bedKey, SecretKey: bedSecret, SkipCredentialsCheck: true, SkipMetadataAPICheck: true,
		Endpoints: map[string]string{"dynamodb": url, "applicationautoscaling": url},
	})
	if err != nil {
		t.Fatal(err)
	}
	account := FromSession(session)
	account.ID = bedAccount // STS would say so
	return account, session
}

func (b *bed) settings() Settings {
	return Settings{Storage: "events", Clock: clock.System{}, Settle: b.service.Scaled(defaultSettle), Open: func(context.Context) (Account, error) { return b.account, nil }}
}

func (b *bed) report(message string, fields map[string]any) { b.t.Log(message, fields) }

// table makes a table as ScalarDB does.
func (b *bed) table(name, hash string, onDemand bool, indexes ...string) {
	b.t.Helper()
	kind := types.ScalarAttributeTypeB
	if hash != partitionAttribute {
		kind = types.ScalarAttributeTypeS
	}
	in := &dynamodb.CreateTableInput{TableName: &name, KeySchema: []types.KeySchemaElement{{AttributeName: &hash, KeyType: types.KeyTypeHash}},
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: &hash, AttributeType: kind}}, BillingMode: types.BillingModePayPerRequest}
	var capacity *types.ProvisionedThroughput
	if !onDemand {
		capacity = &types.ProvisionedThroughput{ReadCapacityUnits: aws.Int64(20), WriteCapacityUnits: aws.Int64(10)}
		in.BillingMode, in.ProvisionedThroughput = types.BillingModeProvisioned, capacity
	}
	for _, column := range indexes {
		in.AttributeDefinitions = append(in.AttributeDefinitions, types.AttributeDefinition{AttributeName: aws.String(column), AttributeType: types.ScalarAttributeTypeN})
		in.GlobalSecondaryIndexes = append(in.GlobalSecondaryIndexes, types.GlobalSecondaryIndex{
			IndexName: aws.String(name + indexInfix + column), KeySchema: []types.KeySchemaElement{{AttributeName: aws.String(column), KeyType: types.KeyTypeHash}},
			Projection: &types.Projection{ProjectionType: types.ProjectionTypeAll}, ProvisionedThroughput: capacity,
		})
	}
	if _, err := b.api.CreateTable(b.t.Context(), in); err != nil {
		b.t.Fatal(err)
	}
}

// ready waits for tables, and enables their point-in-time recovery.
func (b *bed) ready(names ...string) {
	b.t.Helper()
	err := parallel(b.t.Context(), 20, names, true, func(ctx context.Context, name string) error {
		for {
			d, err := describeTable(ctx, b.api, name)
			if err != nil {
				return err
			}
			if d.TableStatus == types.TableStatusActive {
				_, err = b.api.UpdateContinuousBackups(ctx, &dynamodb.UpdateContinuousBackupsInput{TableName: &name, PointInTimeRecoverySpecification: &types.PointInTimeRecoverySpecification{
					PointInTimeRecoveryEnabled: aws.Bool(true), RecoveryPeriodInDays: aws.Int32(20)}})
				if err == nil || !isBusy(err) {
					return err
				}
			}
			if err := (clock.System{}).Sleep(ctx, 20*time.Millisecond); err != nil {
				return err
			}
		}
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) put(table string, items ...item) {
	b.t.Helper()
	for _, it := range items {
		if _, err := b.api.PutItem(b.t.Context(), &dynamodb.PutItemInput{TableName: &table, Item: it}); err != nil {
			b.t.Fatal(err)
		}
	}
}

// scalardb makes ScalarDB's tables and n others, each with one record.
func (b *bed) scalardb(prefix string, n int) (names []string) {
	b.t.Helper()
	b.table(prefix+"scalardb.metadata", attrTable, false)
	b.table(prefix+"scalardb.namespaces", attrNamespace, true)
	b.table(prefix+"coordinator.state", partitionAttribute, true)
	names = []string{prefix + "scalardb.metadata", prefix + "scalardb.namespaces", prefix + "coordinator.state"}
	for i := range n {
		full := fmt.Sprintf("%sshop.t%03d", prefix, i)
		if i == 0 {
			b.table(full, partitionAttribute, false, "balance")
		} else {
			b.table(full, partitionAttribute, true)
		}
		names = append(names, full)
	}
	b.ready(names...)
	b.put(prefix+"scalardb.namespaces", item{attrNamespace: str(prefix + "coordinator")}, item{attrNamespace: str(prefix + "shop")})
	for _, full := range names[2:] {
		b.put(prefix+"scalardb.metadata", metadataRow(full))
	}
	for _, full := range names[3:] {
		b.put(full, item{partitionAttribute: &types.AttributeValueMemberB{Value: []byte("1")}, "id": str("1"), "balance": num(1)})
	}
	return names
}

// window runs preflight, and a window without load.
func (b *bed) window(s Settings, during func()) (engine.Session, *engine.PauseWindow) {
	b.t.Helper()
	w := &engine.PauseWindow{}
	run := engine.Run{ID: testRun, BackupID: "release", Catalog: b.catalog, Prefix: "backups/release/" + testRun + "/", Report: b.report, Window: func() engine.PauseWindow { return *w }}
	session, err := NewSource(s).Preflight(b.t.Context(), run)
	if err != nil {
		b.t.Fatal(err)
	}
	bound, err := session.MeasureClock(b.t.Context())
	if err != nil || bound.Offset.Abs() > bound.Uncertainty+time.Second {
		b.t.Fatalf("clock %+v, %v", bound, err)
	}
	w.StartedAt = time.Now()
	if err := session.Capture(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	w.RestorePoint = time.Now().UTC().Truncate(time.Second).Add(2 * time.Second)
	b.sleepUntil(w.RestorePoint.Add(1100 * time.Millisecond))
	if during != nil {
		during()
	}
	w.EndedAt = time.Now()
	if err := session.Confirm(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	return session, w
}

func (b *bed) sleepUntil(at time.Time) {
	if err := (clock.System{}).Sleep(b.t.Context(), time.Until(at)); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) record(session engine.Session) engine.StorageRecord {
	b.t.Helper()
	c, err := session.Await(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	return engine.StorageRecord{Driver: kindName, ByTime: session.Facts().ByTime, Artifacts: c.Artifacts, Tables: c.Tables, HasCoordinator: c.HasCoordinator, CoordinatorNewest: c.CoordinatorNewest, Extra: c.Extra}
}

func (b *bed) restore(ctx context.Context, s Settings, record engine.StorageRecord, at time.Time) (made, announced engine.Restored, err error) {
	q := engine.StorageBackup{Storage: "events", RunID: "fedcba9876543210", Name: "staging", Record: record, RestorePoint: at, Catalog: b.catalog, Report: b.report, Announce: func(_ context.Context, x engine.Restored) error {
		announced = x
		return nil
	}}
	d := NewDestination(s)
	if err := d.Preflight(ctx, q); err != nil {
		return made, announced, err
	}
	made, err = d.Restore(ctx, q)
	return made, announced, err
}

// inventory is what the account has and pays for, by name. System backups are AWS's own.
func (b *bed) inventory() map[string]dynamo.Object {
	out := map[string]dynamo.Object{}
	for _, o := range b.service.Inventory() {
		if o.Kind != "backup" || o.Settings["type"] != "SYSTEM" {
			out[o.Kind+" "+o.Scope.Region+" "+o.Name] = o
		}
	}
	return out
}

func (b *bed) same(when string, want map[string]dynamo.Object) {
	b.t.Helper()
	got := b.inventory()
	for _, k := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[k]; !ok {
			b.t.Errorf("%s: left over: %s", when, got[k])
		}
	}
	for k := range want {
		if got[k].ID != want[k].ID {
			b.t.Errorf("%s: %s was touched: %s", when, k, got[k])
		}
	}
}

func (b *bed) scan(region, table string) []item {
	b.t.Helper()
	items, _, err := readItems(b.t.Context(), b.account.Dynamo(region), table)
	if err != nil {
		b.t.Fatal(err)
	}
	return items
}

func (b *bed) keys(region, table, attribute string) (out []string) {
	for _, it := range b.scan(region, table) {
		out = append(out, keyText(it[attribute]))
	}
	slices.Sort(out)
	return out
}

// TestAcceptanceClone: what DynamoDB leaves behind is back, for another prefix and for another region; the data is of the restore point; its destruction leaves nothing.
func TestAcceptanceClone(t *testing.T) {
	t.Parallel()
	b := newBed(t, dynamo.Options{Factor: 300})
	names := b.scalardb("p.", 3)
	ctx, events := t.Context(), "p.shop.t000"
	scale := b.account.Scaling(bedRegion)
	for _, id := range []string{resource(events, ""), resource(events, events+indexInfix+"balance")} {
		dimension := scaling.ScalableDimensionDynamoDBTableReadCapacityUnits
		if strings.Contains(id, "/index/") {
			dimension = scaling.ScalableDimensionDynamoDBIndexReadCapacityUnits
		}
		_, err := scale.RegisterScalableTarget(ctx, &applicationautoscaling.RegisterScalableTargetInput{ServiceNamespace: scaling.ServiceNamespaceDynamodb, ResourceId: &id,
			ScalableDimension: dimension, MinCapacity: aws.Int32(20), MaxCapacity: aws.Int32(40)})
		if err != nil {
			t.Fatal(err)
		}
		_, err = scale.PutScalingPolicy(ctx, &applicationautoscaling.PutScalingPolicyInput{ServiceNamespace: scaling.ServiceNamespaceDynamodb, ResourceId: &id, ScalableDimension: dimension,
			PolicyName: aws.String(id + "-read"), PolicyType: scaling.PolicyTypeTargetTrackingScaling, TargetTrackingScalingPolicyConfiguration: &scaling.TargetTrackingScalingPolicyConfiguration{
				TargetValue: aws.Float64(70), PredefinedMetricSpecification: &scaling.PredefinedMetricSpecification{PredefinedMetricType: scaling.MetricTypeDynamoDBReadCapacityUtilization}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	table := resource(events, "")
	_, err := scale.PutScheduledAction(ctx, &applicationautoscaling.PutScheduledActionInput{ServiceNamespace: scaling.ServiceNamespaceDynamodb, ResourceId: &table,
		ScalableDimension: scaling.ScalableDimensionDynamoDBTableReadCapacityUnits, ScheduledActionName: aws.String("nightly"), Schedule: aws.String("cron(0 3 * * ? *)"),
		ScalableTargetAction: &scaling.ScalableTargetAction{MinCapacity: aws.Int32(30)}})
	if err != nil {
		t.Fatal(err)
	}
	update := func(in *dynamodb.UpdateTableInput) {
		t.Helper()
		in.TableName = &events
		if _, err := b.api.UpdateTable(ctx, in); err != nil {
			t.Fatal(err)
		}
		if _, err := waitActive(ctx, clock.System{}, b.api, events); err != nil {
			t.Fatal(err)
		}
	}
	update(&dynamodb.UpdateTableInput{StreamSpecification: &types.StreamSpecification{StreamEnabled: aws.Bool(true), StreamViewType: types.StreamViewTypeNewImage}})
	update(&dynamodb.UpdateTableInput{DeletionProtectionEnabled: aws.Bool(true)})
	if _, err := b.api.UpdateTimeToLive(ctx, &dynamodb.UpdateTimeToLiveInput{TableName: &events, TimeToLiveSpecification: &types.TimeToLiveSpecification{AttributeName: aws.String("expires"), Enabled: aws.Bool(true)}}); err != nil {
		t.Fatal(err)
	}
	d, err := describeTable(ctx, b.api, events)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.api.TagResource(ctx, &dynamodb.TagResourceInput{ResourceArn: d.TableArn, Tags: []types.Tag{{Key: aws.String("team"), Value: aws.String("shop")}}}); err != nil {
		t.Fatal(err)
	}
	b.sleepUntil(time.Now().Add(b.service.Scaled(5 * time.Second))) // tags are read late
	s := b.settings()
	s.Prefix = "p."
	before := b.inventory()
	session, w := b.window(s, func() {
		b.put(events, item{partitionAttribute: &types.AttributeValueMemberB{Value: []byte("late")}, "id": str("2"), "balance": num(9)})
	})
	record := b.record(session)
	b.same("after the backup", before)

	near := b.settings()
	near.Prefix, near.HasPrefix = "staging.", true
	far := b.settings()
	far.Prefix, far.HasPrefix, far.Region = "p.", true, bedOther
	for region, s := range map[string]Settings{bedRegion: near, bedOther: far} {
		made, _, err := b.restore(ctx, s, record, w.RestorePoint)
		if err != nil {
			t.Fatal(err)
		}
		if len(made.Objects) != len(names) {
			t.Errorf("%d objects", len(made.Objects))
		}
		for _, o := range made.Objects {
			if o.Extra[extraNotPutBack] != "" || o.Extra[extraMadeID] == "" {
				t.Errorf("%+v", o)
			}
		}
		if got := b.keys(region, s.Prefix+"shop.t000", partitionAttribute); !slices.Equal(got, []string{"1"}) {
			t.Errorf("the copy holds %q", got)
		}
		if got, want := b.keys(region, s.Prefix+"scalardb.metadata", attrTable), []string{s.Prefix + "coordinator.state", s.Prefix + "shop.t000", s.Prefix + "shop.t001", s.Prefix + "shop.t002"}; !slices.Equal(got, want) {
			t.Errorf("metadata %q", got)
		}
		if got, want := b.keys(region, s.Prefix+"scalardb.namespaces", attrNamespace), []string{s.Prefix + "coordinator", s.Prefix + "shop"}; !slices.Equal(got, want) {
			t.Errorf("namespaces %q", got)
		}
		b.sleepUntil(time.Now().Add(b.service.Scaled(5 * time.Second)))
		all := b.inventory()
		for _, name := range names {
			source, copied := all["table "+bedRegion+" "+name], all["table "+region+" "+s.Prefix+strings.TrimPrefix(name, "p.")]
			if !maps.Equal(source.Settings, copied.Settings) {
				t.Errorf("%s: %v, its source has %v", copied.Name, copied.Settings, source.Settings)
			}
			if copied.Tags["team"] != source.Tags["team"] || copied.Tags[tagRunID] != "fedcba9876543210" {
				t.Errorf("%s: tags %v", copied.Name, copied.Tags)
			}
		}
		scaled := 0
		for _, o := range all {
			if o.Scope.Region == region && (strings.Contains(o.Kind, "scal") || o.Kind == "scheduled action") && strings.Contains(o.Name, "table/"+s.Prefix+"shop.t000") {
				scaled++
			}
		}
		if scaled != 5 {
			t.Errorf("%d of 2 targets, 2 policies and a scheduled action", scaled)
		}
		copied, err := describeTable(ctx, b.account.Dynamo(region), s.Prefix+"shop.t000")
		if err != nil || len(copied.GlobalSecondaryIndexes) != 1 || aws.ToString(copied.GlobalSecondaryIndexes[0].IndexName) != s.Prefix+"shop.t000"+indexInfix+"balance" {
			t.Errorf("indexes %+v, %v", copied.GlobalSecondaryIndexes, err)
		}
		if err := NewDestination(s).Inspect(ctx, made); err != nil {
			t.Error(err)
		}
		if err := NewDestination(s).Delete(ctx, made); err != nil {
			t.Fatal(err)
		}
		b.same("after the destruction in "+region, before)
		if err := NewDestination(s).Inspect(ctx, made); !errors.Is(err, engine.ErrNotFound) {
			t.Error(err)
		}
	}
	for _, a := range record.Artifacts {
		if err := NewKeeper(s, b.catalog).Inspect(ctx, a); err != nil {
			t.Error(err)
		}
	}
	b.service.AgePITR(dynamo.Scope{Account: bedAccount, Region: bedRegion}, events, time.Now())
	if err := NewKeeper(s, b.catalog).Inspect(ctx, record.Artifacts[slices.IndexFunc(record.Artifacts, func(a engine.Artifact) bool { return a.Extra[extraTable] == "shop.t000" })]); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("its retention has passed: %v", err)
	}
	if _, _, err := b.restore(ctx, near, record, w.RestorePoint); err == nil || !strings.Contains(err.Error(), "only to times from") {
		t.Error(err)
	}
}

// TestAcceptanceMany: 300 tables, throttled, with 5 % of all calls failing in every way: nothing is lost, nothing orphaned.
func TestAcceptanceMany(t *testing.T) {
	b := newBed(t, dynamo.Options{Factor: 300, MaxRestores: 30})
	names := b.scalardb("", 297)
	before := b.inventory()
	b.service.Inject(dynamo.Fault{Kind: dynamo.ServerError, Rate: 0.01}, dynamo.Fault{Kind: dynamo.ServerErrorAfter, Rate: 0.01}, dynamo.Fault{Kind: dynamo.LostRequest, Rate: 0.01},
		dynamo.Fault{Kind: dynamo.LostAnswer, Rate: 0.01}, dynamo.Fault{Kind: dynamo.Throttled, Rate: 0.01})
	s := b.settings()
	began := time.Now()
	session, w := b.window(s, nil)
	t.Logf("preflight and window: %s", time.Since(began))
	record := b.record(session)
	t.Logf("backup: %s", time.Since(began))
	d := b.settings()
	d.Prefix, d.HasPrefix = "staging.", true
	made, _, err := b.restore(t.Context(), d, record, w.RestorePoint)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("restored: %s", time.Since(began))
	b.service.ClearFaults()
	now := b.inventory()
	for _, o := range made.Objects {
		k := "table " + bedRegion + " " + o.ID
		if now[k].ID != o.Extra[extraMadeID] || o.Extra[extraNotPutBack] != "" {
			t.Errorf("%+v is %s", o, now[k])
		}
		delete(now, k)
	}
	if len(made.Objects) != len(names) || len(now) != len(before) {
		t.Errorf("%d restored; beside them %d things, there were %d", len(made.Objects), len(now), len(before))
	}
	if got := b.keys(bedRegion, "staging.scalardb.metadata", attrTable); len(got) != 298 || !strings.HasPrefix(got[0], "staging.") {
		t.Errorf("%d rows: %q", len(got), got[0])
	}
	b.service.Inject(dynamo.Fault{Kind: dynamo.LostAnswer, Rate: 0.02}, dynamo.Fault{Kind: dynamo.Throttled, Rate: 0.02})
	if err := NewDestination(d).Delete(t.Context(), made); err != nil {
		t.Fatal(err)
	}
	b.same("after the destruction", before)
	t.Logf("all: %s", time.Since(began))
}

// halfDone waits until a whole second has passed at which a record was PREPARED: an instant that no backup may be of.
func (b *bed) halfDone(table string) time.Time {
	b.t.Helper()
	type state struct {
		at       time.Time
		prepared bool
	}
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); b.sleepUntil(time.Now().Add(100 * time.Millisecond)) {
		last := map[string]state{}
		for _, c := range b.service.Commits(dynamo.Scope{Account: bedAccount, Region: bedRegion}, table) {
			var it struct {
				ID    struct{ N string } `json:"id"`
				State struct{ N string } `json:"tx_state"`
			}
			if c.Item == nil || json.Unmarshal(c.Item, &it) != nil {
				continue
			}
			before := last[it.ID.N]
			if at := before.at.Truncate(time.Second).Add(time.Second); before.prepared && at.Before(c.At) {
				return at.UTC()
			}
			last[it.ID.N] = state{c.At, it.State.N == "1"}
		}
	}
	b.t.Fatal("no record was PREPARED at a whole second for two minutes: is there any load?")
	return time.Time{}
}

// TestAcceptanceScalarDB: the real server under load. A restore to an instant of a pause has the right sum, through ScalarDB itself, with another prefix, and verifies;
// one to an instant without a pause is caught.
func TestAcceptanceScalarDB(t *testing.T) {
	b := newBed(t, dynamo.Options{Factor: 300})
	source := scalardb.DynamoDB("events", bedRegion, b.service.Endpoint(), bedKey, bedSecret, "prod.")
	system := scalardb.Start(t, scalardb.Config{Storages: []scalardb.Storage{source}, Accounts: 40})
	system.Bank.StartWriters(t, 6)
	system.Bank.WaitForCommits(t, 40, 2*time.Minute)
	s := b.settings()
	s.Prefix = "prod."
	w := engine.PauseWindow{}
	run := engine.Run{ID: testRun, BackupID: "release", Catalog: b.catalog, Prefix: "backups/release/" + testRun + "/", Report: b.report, Window: func() engine.PauseWindow { return w }}
	session, err := NewSource(s).Preflight(t.Context(), run)
	if err != nil {
		t.Fatal(err)
	}
	running := b.halfDone("prod.bank.accounts")
	admin := system.Admin(t)
	if _, err := admin.Pause(t.Context(), &adminpb.PauseRequest{WaitOutstanding: true}); err != nil {
		t.Fatal(err)
	}
	w.StartedAt = time.Now()
	w.RestorePoint = w.StartedAt.UTC().Truncate(time.Second).Add(2 * time.Second)
	b.sleepUntil(w.RestorePoint.Add(1100 * time.Millisecond))
	if err := session.Confirm(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.EndedAt = time.Now()
	if _, err := admin.Unpause(t.Context(), &emptypb.Empty{}); err != nil {
		t.Fatal(err)
	}
	system.Bank.WaitForCommits(t, 20, 2*time.Minute) // what came later is not in the copy
	record := b.record(session)
	system.Bank.Stop(t)

	for _, c := range []struct {
		prefix string
		at     time.Time
		passes bool
	}{{"good.", w.RestorePoint, true}, {"bad.", running, false}} {
		d := b.settings()
		d.Prefix, d.HasPrefix, d.BillingMode = c.prefix, true, string(types.BillingModePayPerRequest)
		made, _, err := b.restore(t.Context(), d, record, c.at)
		if err != nil {
			t.Fatal(err)
		}
		reader, err := NewReader(t.Context(), d, b.report)
		if err != nil {
			t.Fatal(err)
		}
		m := engine.Manifest{Window: w, Pause: engine.PauseSettings{Drain: 10 * time.Second}, Storages: map[string]engine.StorageRecord{"events": record}}
		if !c.passes {
			m.Window.StartedAt, m.Window.EndedAt = c.at, c.at.Add(time.Second)
		}
		// The provider's default: a transaction that was decided within it before the window is not known to be whole, though a copy of one instant is.
		settings := engine.VerifySettings{ServerClockBound: time.Second}
		report, err := verify.Run(t.Context(), engine.VerifyRequest(m, settings, map[string]verify.Storage{"events": reader}, clock.System{}, nil))
		if err != nil {
			t.Fatal(err)
		}
		if report.Passed != c.passes || len(report.Tables) != 2 || report.Records == 0 {
			t.Errorf("%s: %+v", c.prefix, report)
		}
		if !c.passes {
			continue
		}
		if made.Properties["dynamo.namespace.prefix"] != "good." || made.Properties["contact_points"] != bedRegion {
			t.Errorf("properties %v", made.Properties)
		}
		rows, sum := scalardb.Read(t, system.Config, scalardb.DynamoDB("events", made.Properties["contact_points"], b.service.Endpoint(), bedKey, bedSecret, made.Properties["dynamo.namespace.prefix"]))
		if rows != system.Config.Rows() || sum != system.Config.Total() {
			t.Errorf("the copy has %d rows with a sum of %d, want %d and %d", rows, sum, system.Config.Rows(), system.Config.Total())
		}
	}
}
