package awsdynamodb

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/applicationautoscaling"
	scaling "github.com/aws/aws-sdk-go-v2/service/applicationautoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	smithymiddleware "github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/memcatalog"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/testclock"
)

const (
	fakeAccount = "123456789012"
	fakeRegion  = "eu-west-1"
	fakeLag     = 5 * time.Minute
	fakeRestore = 3 * time.Minute
)

// fakeTable is one table of the fake. versions are its items as they were from a time on.
type fakeTable struct {
	desc     types.TableDescription
	hash     string
	versions []fakeVersion
	pitr     time.Time // since when; zero: off
	days     int32
	ttl      string
	tags     map[string]string
	active   time.Time // until then it is CREATING or UPDATING
	state    types.TableStatus
}

type fakeVersion struct {
	at    time.Time
	items map[string]item
}

func (t *fakeTable) items() map[string]item { return t.versions[len(t.versions)-1].items }

type fakeBackup struct {
	details types.BackupDetails
	table   types.TableDescription
	hash    string
	items   map[string]item
}

// fake is DynamoDB in memory, as far as the driver uses it: restores take time, honour the instant, lose settings, are limited in number, and give new
// ids. The acceptance tests run against DynamoDB Local behind a strict proxy; this is for what needs a virtual clock or broken answers.
type fake struct {
	API
	mu      sync.Mutex
	tables  map[string]*fakeTable
	backups map[string]*fakeBackup
	ids     int
	limit   int // restores at once; 0: none
	most    int // restores that were under way at once
	calls   map[string]int
	// broken may refuse a call (before it does anything), or lose its answer (lost).
	broken func(op, table string, n int) (before, lost error)

	targets  map[string]scaling.ScalableTarget
	policies map[string]scaling.ScalingPolicy
}

func newFake() *fake {
	return &fake{tables: map[string]*fakeTable{}, backups: map[string]*fakeBackup{}, calls: map[string]int{}, targets: map[string]scaling.ScalableTarget{}, policies: map[string]scaling.ScalingPolicy{}}
}

// answer gives an error the form that the SDK's have.
func answer(status int, err error) error {
	return &smithyhttp.ResponseError{Response: &smithyhttp.Response{Response: &http.Response{StatusCode: status}}, Err: err}
}

func noTable(name string) error {
	return answer(400, &types.ResourceNotFoundException{Message: aws.String("no table " + name)})
}

func (f *fake) begin(op, table string) (lost, before error) {
	f.calls[op]++
	if f.broken == nil {
		return nil, nil
	}
	before, lost = f.broken(op, table, f.calls[op])
	return lost, before
}

func (f *fake) create(name, hash string, onDemand bool) *fakeTable {
	f.ids++
	t := &fakeTable{hash: hash, tags: map[string]string{}, state: types.TableStatusActive, pitr: time.Now(), days: 35, versions: []fakeVersion{{at: time.Now(), items: map[string]item{}}}}
	kind := types.ScalarAttributeTypeB
	if hash != partitionAttribute {
		kind = types.ScalarAttributeTypeS
	}
	t.desc = types.TableDescription{
		TableName: &name, TableArn: aws.String("arn:aws:dynamodb:" + fakeRegion + ":" + fakeAccount + ":table/" + name), TableId: aws.String(fmt.Sprintf("id-%d", f.ids)), CreationDateTime: aws.Time(time.Now()),
		AttributeDefinitions:  []types.AttributeDefinition{{AttributeName: &hash, AttributeType: kind}},
		ProvisionedThroughput: &types.ProvisionedThroughputDescription{ReadCapacityUnits: aws.Int64(10), WriteCapacityUnits: aws.Int64(10)},
	}
	if onDemand {
		t.desc.BillingModeSummary = &types.BillingModeSummary{BillingMode: types.BillingModePayPerRequest}
		t.desc.ProvisionedThroughput = &types.ProvisionedThroughputDescription{ReadCapacityUnits: aws.Int64(0), WriteCapacityUnits: aws.Int64(0)}
	}
	f.tables[name] = t
	return t
}

func (f *fake) get(name *string) (*fakeTable, error) {
	if t := f.tables[aws.ToString(name)]; t != nil {
		if !time.Now().Before(t.active) {
			switch t.state {
			case types.TableStatusDeleting:
				delete(f.tables, aws.ToString(name))
				return nil, noTable(aws.ToString(name))
			case types.TableStatusCreating, types.TableStatusUpdating:
				t.state = types.TableStatusActive
				if t.desc.RestoreSummary != nil {
					t.desc.RestoreSummary.RestoreInProgress = aws.Bool(false)
				}
			}
		}
		return t, nil
	}
	return nil, noTable(aws.ToString(name))
}

func (t *fakeTable) describe() *types.TableDescription {
	d := t.desc
	d.TableStatus = t.state
	if d.RestoreSummary != nil {
		s := *d.RestoreSummary
		d.RestoreSummary = &s
	}
	d.GlobalSecondaryIndexes = slices.Clone(d.GlobalSecondaryIndexes)
	return &d
}

// put writes items, keyed by the table's hash key.
func (f *fake) put(name string, items ...item) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.tables[name]
	now := maps.Clone(t.items())
	for _, it := range items {
		now[keyText(it[t.hash])] = it
	}
	t.versions = append(t.versions, fakeVersion{time.Now(), now})
}

func keyText(v types.AttributeValue) string {
	switch v := v.(type) {
	case *types.AttributeValueMemberS:
		return v.Value
	case *types.AttributeValueMemberB:
		return string(v.Value)
	}
	return ""
}

func (f *fake) ListTables(_ context.Context, in *dynamodb.ListTablesInput, _ ...func(*dynamodb.Options)) (*dynamodb.ListTablesOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	names := slices.Sorted(maps.Keys(f.tables))
	if s := aws.ToString(in.ExclusiveStartTableName); s != "" {
		names = slices.DeleteFunc(names, func(n string) bool { return n <= s })
	}
	out := &dynamodb.ListTablesOutput{ResultMetadata: dated400(time.Now())}
	if limit := int(cmp.Or(aws.ToInt32(in.Limit), 100)); len(names) > limit {
		names = names[:limit]
		out.LastEvaluatedTableName = &names[limit-1]
	}
	for _, n := range names {
		if _, err := f.get(&n); err == nil {
			out.TableNames = append(out.TableNames, n)
		}
	}
	return out, nil
}

// dated400 is the metadata of an answer with a Date header.
func dated400(at time.Time) smithymiddleware.Metadata {
	var m smithymiddleware.Metadata
	stack := smithymiddleware.NewStack("fake", smithyhttp.NewStackRequest)
	_ = middleware.AddRawResponseToMetadata(stack)
	_, m, _ = smithymiddleware.DecorateHandler(smithymiddleware.HandlerFunc(func(context.Context, any) (any, smithymiddleware.Metadata, error) {
		return &smithyhttp.Response{Response: &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Date": {at.UTC().Format(http.TimeFormat)}}, Body: http.NoBody}}, smithymiddleware.Metadata{}, nil
	}), stack).Handle(context.Background(), nil)
	return m
}

func (f *fake) DescribeLimits(context.Context, *dynamodb.DescribeLimitsInput, ...func(*dynamodb.Options)) (*dynamodb.DescribeLimitsOutput, error) {
	return &dynamodb.DescribeLimitsOutput{}, nil
}

func (f *fake) DescribeTable(_ context.Context, in *dynamodb.DescribeTableInput, _ ...func(*dynamodb.Options)) (*dynamodb.DescribeTableOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t, err := f.get(in.TableName)
	if err != nil {
		return nil, err
	}
	return &dynamodb.DescribeTableOutput{Table: t.describe()}, nil
}

func (f *fake) DescribeContinuousBackups(_ context.Context, in *dynamodb.DescribeContinuousBackupsInput, _ ...func(*dynamodb.Options)) (*dynamodb.DescribeContinuousBackupsOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t, err := f.get(in.TableName)
	if err != nil {
		return nil, err
	}
	p := &types.PointInTimeRecoveryDescription{PointInTimeRecoveryStatus: types.PointInTimeRecoveryStatusDisabled}
	if !t.pitr.IsZero() {
		p.PointInTimeRecoveryStatus, p.RecoveryPeriodInDays = types.PointInTimeRecoveryStatusEnabled, &t.days
		p.EarliestRestorableDateTime, p.LatestRestorableDateTime = aws.Time(t.pitr), aws.Time(time.Now().Add(-fakeLag))
	}
	return &dynamodb.DescribeContinuousBackupsOutput{ContinuousBackupsDescription: &types.ContinuousBackupsDescription{PointInTimeRecoveryDescription: p}}, nil
}

func (f *fake) UpdateContinuousBackups(_ context.Context, in *dynamodb.UpdateContinuousBackupsInput, _ ...func(*dynamodb.Options)) (*dynamodb.UpdateContinuousBackupsOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t, err := f.get(in.TableName)
	if err != nil {
		return nil, err
	}
	t.pitr, t.days = time.Now(), cmp.Or(aws.ToInt32(in.PointInTimeRecoverySpecification.RecoveryPeriodInDays), 35)
	return &dynamodb.UpdateContinuousBackupsOutput{}, nil
}

func (f *fake) DescribeTimeToLive(_ context.Context, in *dynamodb.DescribeTimeToLiveInput, _ ...func(*dynamodb.Options)) (*dynamodb.DescribeTimeToLiveOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t, err := f.get(in.TableName)
	if err != nil {
		return nil, err
	}
	d := &types.TimeToLiveDescription{TimeToLiveStatus: types.TimeToLiveStatusDisabled}
	if t.ttl != "" {
		d.TimeToLiveStatus, d.AttributeName = types.TimeToLiveStatusEnabled, &t.ttl
	}
	return &dynamodb.DescribeTimeToLiveOutput{TimeToLiveDescription: d}, nil
}

func (f *fake) UpdateTimeToLive(_ context.Context, in *dynamodb.UpdateTimeToLiveInput, _ ...func(*dynamodb.Options)) (*dynamodb.UpdateTimeToLiveOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t, err := f.get(in.TableName)
	if err != nil {
		return nil, err
	}
	t.ttl = aws.ToString(in.TimeToLiveSpecification.AttributeName)
	return &dynamodb.UpdateTimeToLiveOutput{}, nil
}

func (f *fake) byARN(arn *string) (*fakeTable, error) {
	_, _, name, _ := splitARN(aws.ToString(arn))
	return f.get(&name)
}

func (f *fake) ListTagsOfResource(_ context.Context, in *dynamodb.ListTagsOfResourceInput, _ ...func(*dynamodb.Options)) (*dynamodb.ListTagsOfResourceOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t, err := f.byARN(in.ResourceArn)
	if err != nil {
		return nil, err
	}
	out := &dynamodb.ListTagsOfResourceOutput{}
	for k, v := range t.tags {
		out.Tags = append(out.Tags, types.Tag{Key: aws.String(k), Value: aws.String(v)})
	}
	return out, nil
}

func (f *fake) TagResource(_ context.Context, in *dynamodb.TagResourceInput, _ ...func(*dynamodb.Options)) (*dynamodb.TagResourceOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t, err := f.byARN(in.ResourceArn)
	if err != nil {
		return nil, err
	}
	for _, g := range in.Tags {
		t.tags[aws.ToString(g.Key)] = aws.ToString(g.Value)
	}
	return &dynamodb.TagResourceOutput{}, nil
}

func (f *fake) underWay() (n int) {
	for name := range f.tables {
		if t, err := f.get(&name); err == nil && t.state == types.TableStatusCreating {
			n++
		}
	}
	return n
}

// restored makes a table of another's, without what DynamoDB leaves behind.
func (f *fake) restored(target string, from types.TableDescription, hash string, items map[string]item, s types.RestoreSummary, billing types.BillingMode, indexes []types.GlobalSecondaryIndex) (*types.TableDescription, error) {
	if _, err := f.get(&target); err == nil {
		return nil, answer(400, &types.TableAlreadyExistsException{Message: aws.String(target)})
	}
	n := f.underWay()
	if f.limit > 0 && n >= f.limit {
		return nil, answer(400, &types.LimitExceededException{Message: aws.String("too many restores")})
	}
	f.most = max(f.most, n+1)
	t := f.create(target, hash, cmp.Or(billing, billingOf(from)) == types.BillingModePayPerRequest)
	t.pitr, t.versions, t.state, t.active = time.Time{}, []fakeVersion{{time.Now(), items}}, types.TableStatusCreating, time.Now().Add(fakeRestore)
	t.desc.AttributeDefinitions, t.desc.GlobalSecondaryIndexes, t.desc.RestoreSummary = from.AttributeDefinitions, from.GlobalSecondaryIndexes, &s
	if billing == "" {
		t.desc.ProvisionedThroughput = from.ProvisionedThroughput
	}
	if indexes != nil {
		t.desc.GlobalSecondaryIndexes = nil
		for _, g := range from.GlobalSecondaryIndexes {
			if slices.ContainsFunc(indexes, func(i types.GlobalSecondaryIndex) bool { return *i.IndexName == *g.IndexName }) {
				t.desc.GlobalSecondaryIndexes = append(t.desc.GlobalSecondaryIndexes, g)
			}
		}
	}
	s.RestoreInProgress = aws.Bool(true)
	return t.describe(), nil
}

func billingOf(d types.TableDescription) types.BillingMode {
	if d.BillingModeSummary != nil {
		return d.BillingModeSummary.BillingMode
	}
	return types.BillingModeProvisioned
}

func (f *fake) RestoreTableToPointInTime(_ context.Context, in *dynamodb.RestoreTableToPointInTimeInput, _ ...func(*dynamodb.Options)) (*dynamodb.RestoreTableToPointInTimeOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	lost, before := f.begin("RestoreTableToPointInTime", *in.TargetTableName)
	if before != nil {
		return nil, before
	}
	t, err := f.get(in.SourceTableName)
	if err != nil {
		return nil, answer(400, &types.TableNotFoundException{})
	}
	if t.pitr.IsZero() {
		return nil, answer(400, &types.PointInTimeRecoveryUnavailableException{})
	}
	if in.RestoreDateTime.Before(t.pitr) || in.RestoreDateTime.After(time.Now().Add(-fakeLag)) {
		return nil, answer(400, &types.InvalidRestoreTimeException{})
	}
	var items map[string]item
	for _, v := range t.versions {
		if !v.at.After(*in.RestoreDateTime) {
			items = v.items
		}
	}
	d, err := f.restored(*in.TargetTableName, t.desc, t.hash, items, types.RestoreSummary{RestoreDateTime: in.RestoreDateTime, SourceTableArn: t.desc.TableArn}, in.BillingModeOverride, in.GlobalSecondaryIndexOverride)
	if err == nil {
		err = lost
	}
	if err != nil {
		return nil, err
	}
	return &dynamodb.RestoreTableToPointInTimeOutput{TableDescription: d}, nil
}

func (f *fake) RestoreTableFromBackup(_ context.Context, in *dynamodb.RestoreTableFromBackupInput, _ ...func(*dynamodb.Options)) (*dynamodb.RestoreTableFromBackupOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.backups[*in.BackupArn]
	if b == nil {
		return nil, answer(400, &types.BackupNotFoundException{})
	}
	d, err := f.restored(*in.TargetTableName, b.table, b.hash, b.items, types.RestoreSummary{RestoreDateTime: b.details.BackupCreationDateTime, SourceBackupArn: in.BackupArn}, in.BillingModeOverride, in.GlobalSecondaryIndexOverride)
	if err != nil {
		return nil, err
	}
	return &dynamodb.RestoreTableFromBackupOutput{TableDescription: d}, nil
}

func (f *fake) CreateBackup(_ context.Context, in *dynamodb.CreateBackupInput, _ ...func(*dynamodb.Options)) (*dynamodb.CreateBackupOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	lost, before := f.begin("CreateBackup", *in.TableName)
	if before != nil {
		return nil, before
	}
	t, err := f.get(in.TableName)
	if err != nil {
		return nil, err
	}
	if t.state != types.TableStatusActive {
		return nil, answer(400, &types.TableInUseException{})
	}
	arn := fmt.Sprintf("%s/backup/%d", *t.desc.TableArn, len(f.backups)+1)
	items := t.items()
	if time.Since(t.active) <= time.Minute {
		items = nil // what is no older than a minute, a backup may hold or not
	}
	f.backups[arn] = &fakeBackup{hash: t.hash, items: items, table: t.desc, details: types.BackupDetails{
		BackupArn: &arn, BackupName: in.BackupName, BackupStatus: types.BackupStatusCreating, BackupCreationDateTime: aws.Time(time.Now()), BackupSizeBytes: aws.Int64(42)}}
	if lost != nil {
		return nil, lost
	}
	return &dynamodb.CreateBackupOutput{BackupDetails: &types.BackupDetails{BackupArn: &arn}}, nil
}

func (b *fakeBackup) now() types.BackupDetails {
	d := b.details
	if time.Since(*d.BackupCreationDateTime) > 20*time.Second {
		d.BackupStatus = types.BackupStatusAvailable
	}
	return d
}

func (f *fake) DescribeBackup(_ context.Context, in *dynamodb.DescribeBackupInput, _ ...func(*dynamodb.Options)) (*dynamodb.DescribeBackupOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.backups[*in.BackupArn]
	if b == nil {
		return nil, answer(400, &types.BackupNotFoundException{})
	}
	d := b.now()
	return &dynamodb.DescribeBackupOutput{BackupDescription: &types.BackupDescription{BackupDetails: &d}}, nil
}

func (f *fake) DeleteBackup(_ context.Context, in *dynamodb.DeleteBackupInput, _ ...func(*dynamodb.Options)) (*dynamodb.DeleteBackupOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.backups[*in.BackupArn]
	switch {
	case b == nil:
		return nil, answer(400, &types.BackupNotFoundException{})
	case b.now().BackupStatus != types.BackupStatusAvailable:
		return nil, answer(400, &types.BackupInUseException{})
	}
	delete(f.backups, *in.BackupArn)
	return &dynamodb.DeleteBackupOutput{}, nil
}

func (f *fake) ListBackups(_ context.Context, in *dynamodb.ListBackupsInput, _ ...func(*dynamodb.Options)) (*dynamodb.ListBackupsOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &dynamodb.ListBackupsOutput{}
	for arn, b := range f.backups {
		if *b.table.TableName == *in.TableName {
			out.BackupSummaries = append(out.BackupSummaries, types.BackupSummary{BackupArn: aws.String(arn), BackupName: b.details.BackupName, BackupStatus: b.now().BackupStatus})
		}
	}
	return out, nil
}

func (f *fake) UpdateTable(_ context.Context, in *dynamodb.UpdateTableInput, _ ...func(*dynamodb.Options)) (*dynamodb.UpdateTableOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t, err := f.get(in.TableName)
	if err != nil {
		return nil, err
	}
	if t.state != types.TableStatusActive {
		return nil, answer(400, &types.ResourceInUseException{})
	}
	t.state, t.active = types.TableStatusUpdating, time.Now().Add(10*time.Second)
	if in.BillingMode != "" {
		t.desc.BillingModeSummary = &types.BillingModeSummary{BillingMode: in.BillingMode}
	}
	if p := in.ProvisionedThroughput; p != nil {
		t.desc.ProvisionedThroughput = &types.ProvisionedThroughputDescription{ReadCapacityUnits: p.ReadCapacityUnits, WriteCapacityUnits: p.WriteCapacityUnits}
	}
	if in.DeletionProtectionEnabled != nil {
		t.desc.DeletionProtectionEnabled = in.DeletionProtectionEnabled
	}
	if in.StreamSpecification != nil {
		t.desc.StreamSpecification = in.StreamSpecification
	}
	if in.TableClass != "" {
		t.desc.TableClassSummary = &types.TableClassSummary{TableClass: in.TableClass}
	}
	if len(in.GlobalSecondaryIndexUpdates) > 1 {
		return nil, answer(400, &types.LimitExceededException{})
	}
	for _, u := range in.GlobalSecondaryIndexUpdates {
		if c := u.Create; c != nil {
			g := types.GlobalSecondaryIndexDescription{IndexName: c.IndexName, KeySchema: c.KeySchema, Projection: c.Projection, IndexStatus: types.IndexStatusActive}
			if p := c.ProvisionedThroughput; p != nil {
				g.ProvisionedThroughput = &types.ProvisionedThroughputDescription{ReadCapacityUnits: p.ReadCapacityUnits, WriteCapacityUnits: p.WriteCapacityUnits}
			}
			t.desc.GlobalSecondaryIndexes = append(slices.Clone(t.desc.GlobalSecondaryIndexes), g)
		}
	}
	return &dynamodb.UpdateTableOutput{}, nil
}

func (f *fake) DeleteTable(_ context.Context, in *dynamodb.DeleteTableInput, _ ...func(*dynamodb.Options)) (*dynamodb.DeleteTableOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t, err := f.get(in.TableName)
	if err != nil {
		return nil, err
	}
	if t.state != types.TableStatusActive {
		return nil, answer(400, &types.ResourceInUseException{})
	}
	if aws.ToBool(t.desc.DeletionProtectionEnabled) {
		return nil, answer(400, errors.New("deletion protection"))
	}
	t.state, t.active = types.TableStatusDeleting, time.Now().Add(10*time.Second)
	return &dynamodb.DeleteTableOutput{}, nil
}

// Scan pages by Limit, deals items to segments, and applies projections, but no filters: the driver must not rely on them.
func (f *fake) Scan(_ context.Context, in *dynamodb.ScanInput, _ ...func(*dynamodb.Options)) (*dynamodb.ScanOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls["Scan"]++
	t, err := f.get(in.TableName)
	if err != nil {
		return nil, err
	}
	if !aws.ToBool(in.ConsistentRead) {
		return nil, answer(400, errors.New("the driver reads consistently"))
	}
	var keys []string
	for i, k := range slices.Sorted(maps.Keys(t.items())) {
		if in.TotalSegments == nil || int32(i)%*in.TotalSegments == *in.Segment {
			keys = append(keys, k)
		}
	}
	if s := in.ExclusiveStartKey; s != nil {
		from := keyText(s[t.hash])
		keys = slices.DeleteFunc(keys, func(k string) bool { return k <= from })
	}
	out := &dynamodb.ScanOutput{}
	if limit := int(cmp.Or(aws.ToInt32(in.Limit), 50)); len(keys) > limit {
		keys = keys[:limit]
		out.LastEvaluatedKey = item{t.hash: t.items()[keys[limit-1]][t.hash]}
	}
	out.Count, out.ScannedCount = int32(len(keys)), int32(len(keys))
	out.ConsumedCapacity = &types.ConsumedCapacity{CapacityUnits: aws.Float64(float64(len(keys)))}
	if in.Select == types.SelectCount {
		return out, nil
	}
	for _, k := range keys {
		it := t.items()[k]
		if in.ProjectionExpression != nil {
			some := item{}
			for _, column := range in.ExpressionAttributeNames {
				if v, ok := it[column]; ok {
					some[column] = v
				}
			}
			it = some
		}
		out.Items = append(out.Items, maps.Clone(it))
	}
	return out, nil
}

func (f *fake) BatchGetItem(_ context.Context, in *dynamodb.BatchGetItemInput, _ ...func(*dynamodb.Options)) (*dynamodb.BatchGetItemOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &dynamodb.BatchGetItemOutput{Responses: map[string][]item{}}
	for name, q := range in.RequestItems {
		t, err := f.get(&name)
		if err != nil {
			return nil, err
		}
		if len(q.Keys) > 100 {
			return nil, answer(400, errors.New("too many keys"))
		}
		// Half of a large request is left for later, as DynamoDB may.
		keys := q.Keys
		if len(keys) > 10 {
			keys = keys[:len(keys)/2]
			out.UnprocessedKeys = map[string]types.KeysAndAttributes{name: {Keys: q.Keys[len(keys):]}}
		}
		for _, k := range keys {
			if it, ok := t.items()[keyText(k[t.hash])]; ok {
				out.Responses[name] = append(out.Responses[name], it)
			}
		}
	}
	return out, nil
}

func (f *fake) PutItem(_ context.Context, in *dynamodb.PutItemInput, _ ...func(*dynamodb.Options)) (*dynamodb.PutItemOutput, error) {
	f.put(*in.TableName, in.Item)
	return &dynamodb.PutItemOutput{}, nil
}

func (f *fake) DeleteItem(_ context.Context, in *dynamodb.DeleteItemInput, _ ...func(*dynamodb.Options)) (*dynamodb.DeleteItemOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.tables[*in.TableName]
	now := maps.Clone(t.items())
	delete(now, keyText(in.Key[t.hash]))
	t.versions = append(t.versions, fakeVersion{time.Now(), now})
	return &dynamodb.DeleteItemOutput{}, nil
}

// fakeScaling is Application Auto Scaling over the same state.
type fakeScaling struct {
	ScalingAPI
	*fake
}

func (f fakeScaling) DescribeScalableTargets(_ context.Context, in *applicationautoscaling.DescribeScalableTargetsInput, _ ...func(*applicationautoscaling.Options)) (*applicationautoscaling.DescribeScalableTargetsOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &applicationautoscaling.DescribeScalableTargetsOutput{}
	for _, k := range slices.Sorted(maps.Keys(f.targets)) {
		if t := f.targets[k]; in.ResourceIds == nil || slices.Contains(in.ResourceIds, *t.ResourceId) {
			out.ScalableTargets = append(out.ScalableTargets, t)
		}
	}
	return out, nil
}

func (f fakeScaling) DescribeScalingPolicies(context.Context, *applicationautoscaling.DescribeScalingPoliciesInput, ...func(*applicationautoscaling.Options)) (*applicationautoscaling.DescribeScalingPoliciesOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &applicationautoscaling.DescribeScalingPoliciesOutput{ScalingPolicies: slices.Collect(maps.Values(f.policies))}, nil
}

func (f fakeScaling) DescribeScheduledActions(context.Context, *applicationautoscaling.DescribeScheduledActionsInput, ...func(*applicationautoscaling.Options)) (*applicationautoscaling.DescribeScheduledActionsOutput, error) {
	return &applicationautoscaling.DescribeScheduledActionsOutput{}, nil
}

func (f fakeScaling) RegisterScalableTarget(_ context.Context, in *applicationautoscaling.RegisterScalableTargetInput, _ ...func(*applicationautoscaling.Options)) (*applicationautoscaling.RegisterScalableTargetOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.targets[*in.ResourceId+" "+string(in.ScalableDimension)] = scaling.ScalableTarget{ServiceNamespace: in.ServiceNamespace, ResourceId: in.ResourceId, ScalableDimension: in.ScalableDimension,
		MinCapacity: in.MinCapacity, MaxCapacity: in.MaxCapacity}
	return &applicationautoscaling.RegisterScalableTargetOutput{}, nil
}

func (f fakeScaling) PutScalingPolicy(_ context.Context, in *applicationautoscaling.PutScalingPolicyInput, _ ...func(*applicationautoscaling.Options)) (*applicationautoscaling.PutScalingPolicyOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.policies[*in.ResourceId+" "+*in.PolicyName] = scaling.ScalingPolicy{ResourceId: in.ResourceId, PolicyName: in.PolicyName, ScalableDimension: in.ScalableDimension,
		TargetTrackingScalingPolicyConfiguration: in.TargetTrackingScalingPolicyConfiguration}
	return &applicationautoscaling.PutScalingPolicyOutput{}, nil
}

func (f fakeScaling) DeregisterScalableTarget(_ context.Context, in *applicationautoscaling.DeregisterScalableTargetInput, _ ...func(*applicationautoscaling.Options)) (*applicationautoscaling.DeregisterScalableTargetOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.targets, *in.ResourceId+" "+string(in.ScalableDimension))
	maps.DeleteFunc(f.policies, func(_ string, p scaling.ScalingPolicy) bool { return *p.ResourceId == *in.ResourceId })
	return &applicationautoscaling.DeregisterScalableTargetOutput{}, nil
}

// world is a fake account with ScalarDB's tables in it.
type world struct {
	*fake
	t       *testing.T
	clock   *testclock.Clock
	catalog engine.Catalog
	reports bytes.Buffer
	mu      sync.Mutex
	// announced are the names of the tables that restores announced.
	announced sync.Map
}

func newWorld(t *testing.T) *world {
	return &world{fake: newFake(), t: t, clock: testclock.New(), catalog: memcatalog.New(time.Now)}
}

func (w *world) settings() Settings {
	return Settings{Storage: "events", Clock: w.clock, Open: func(context.Context) (Account, error) {
		return Account{ID: fakeAccount, Partition: "aws", Region: fakeRegion, Dynamo: func(string) API { return w.fake }, Scaling: func(string) ScalingAPI { return fakeScaling{fake: w.fake} }}, nil
	}}
}

func (w *world) report(message string, fields map[string]any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fmt.Fprintln(&w.reports, message, fields)
}

func str(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }
func num(n int64) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: fmt.Sprint(n)}
}

// metadataRow is what ScalarDB writes of a table with a text key "id" and the transaction columns.
func metadataRow(full string) item {
	columns := item{"id": str("text"), "balance": str("int"), colTxID: str("text"), colState: str("int"), colVersion: str("int"), colPreparedAt: str("bigint"), colCommittedAt: str("bigint")}
	return item{attrTable: str(full), attrColumns: &types.AttributeValueMemberM{Value: columns}, attrPartitionKey: &types.AttributeValueMemberL{Value: []types.AttributeValue{str("id")}}}
}

// scalardb makes ScalarDB's own tables, and the given ones.
func (w *world) scalardb(prefix string, names ...string) {
	w.create(prefix+"scalardb.metadata", attrTable, false)
	w.create(prefix+"scalardb.namespaces", attrNamespace, false)
	w.create(prefix+"coordinator.state", partitionAttribute, false)
	w.put(prefix+"scalardb.namespaces", item{attrNamespace: str(prefix + "coordinator")})
	w.put(prefix+"scalardb.metadata", metadataRow(prefix+"coordinator.state"))
	for _, n := range names {
		w.create(prefix+n, partitionAttribute, false)
		w.put(prefix+"scalardb.metadata", metadataRow(prefix+n))
		namespace, _, _ := splitName(n)
		w.put(prefix+"scalardb.namespaces", item{attrNamespace: str(prefix + namespace)})
	}
}

func (w *world) names() []string {
	var names []string
	for n := range w.tables {
		if _, err := w.get(&n); err == nil {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return names
}

func (w *world) values(tableName string) []string {
	return slices.Sorted(maps.Keys(w.tables[tableName].items()))
}
