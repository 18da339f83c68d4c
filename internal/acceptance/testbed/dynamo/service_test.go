//go:build acceptance

package dynamo_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/applicationautoscaling"
	scalingtypes "github.com/aws/aws-sdk-go-v2/service/applicationautoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/dynamo"
)

const region = "ap-northeast-1"

var scope = dynamo.Scope{Account: "111111111111", Region: region}

func credentials(key string) aws.CredentialsProvider {
	return aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: key, SecretAccessKey: "secret"}, nil
	})
}

// client is an unmodified SDK's; it tries again tries times.
func client(s *dynamo.Service, key, region string, tries int) *dynamodb.Client {
	return dynamodb.New(dynamodb.Options{
		Region: region, BaseEndpoint: aws.String(s.Endpoint()), Credentials: credentials(key),
		Retryer: retry.NewStandard(func(o *retry.StandardOptions) {
			o.MaxAttempts, o.MaxBackoff, o.RateLimiter = tries, 200*time.Millisecond, unlimited{}
		}),
	})
}

type unlimited struct{}

func (unlimited) GetToken(context.Context, uint) (func() error, error) {
	return func() error { return nil }, nil
}
func (unlimited) AddTokens(uint) error { return nil }

// eventually polls until f holds.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: not within three minutes", what)
		}
	}
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func keyed(name string) *dynamodb.CreateTableInput {
	return &dynamodb.CreateTableInput{
		TableName: &name, BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("k"), AttributeType: types.ScalarAttributeTypeN}},
		KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("k"), KeyType: types.KeyTypeHash}},
	}
}

func active(t *testing.T, c *dynamodb.Client, name string) *types.TableDescription {
	t.Helper()
	var d *dynamodb.DescribeTableOutput
	eventually(t, name+" is ACTIVE", func() bool {
		d = must[*dynamodb.DescribeTableOutput](t)(c.DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: &name}))
		return d.Table.TableStatus == types.TableStatusActive
	})
	return d.Table
}

// create makes a table with PITR.
func create(t *testing.T, c *dynamodb.Client, in *dynamodb.CreateTableInput) {
	t.Helper()
	must[*dynamodb.CreateTableOutput](t)(c.CreateTable(t.Context(), in))
	active(t, c, *in.TableName)
	enable(t, c, *in.TableName)
}

func enable(t *testing.T, c *dynamodb.Client, name string) {
	t.Helper()
	eventually(t, name+" has PITR", func() bool {
		_, err := c.UpdateContinuousBackups(t.Context(), &dynamodb.UpdateContinuousBackupsInput{
			TableName: &name, PointInTimeRecoverySpecification: &types.PointInTimeRecoverySpecification{PointInTimeRecoveryEnabled: aws.Bool(true)},
		})
		if _, early := errors.AsType[*types.ContinuousBackupsUnavailableException](err); early {
			return false
		}
		if err != nil {
			t.Fatal(err)
		}
		return true
	})
}

func put(t *testing.T, c *dynamodb.Client, table string, k, v int) {
	t.Helper()
	must[*dynamodb.PutItemOutput](t)(c.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &table, Item: item(k, v)}))
}

func item(k, v int) map[string]types.AttributeValue {
	return map[string]types.AttributeValue{"k": number(k), "v": number(v)}
}

func number(n int) types.AttributeValue { return &types.AttributeValueMemberN{Value: strconv.Itoa(n)} }

func numberOf(t *testing.T, v types.AttributeValue) int {
	t.Helper()
	n, ok := v.(*types.AttributeValueMemberN)
	if !ok {
		t.Fatalf("%v is no number", v)
	}
	return must[int](t)(strconv.Atoi(n.Value))
}

// scan reads a table in two segments.
func scan(t *testing.T, c *dynamodb.Client, table string) map[int]int {
	t.Helper()
	all := map[int]int{}
	for segment := range int32(2) {
		p := dynamodb.NewScanPaginator(c, &dynamodb.ScanInput{TableName: &table, ConsistentRead: aws.Bool(true), Segment: &segment, TotalSegments: aws.Int32(2)})
		for p.HasMorePages() {
			for _, i := range must[*dynamodb.ScanOutput](t)(p.NextPage(t.Context())).Items {
				all[numberOf(t, i["k"])] = numberOf(t, i["v"])
			}
		}
	}
	return all
}

// restorable waits until a table can be restored to a time.
func restorable(t *testing.T, c *dynamodb.Client, table string, at time.Time) {
	t.Helper()
	eventually(t, "the latest restorable time of "+table, func() bool {
		d := must[*dynamodb.DescribeContinuousBackupsOutput](t)(c.DescribeContinuousBackups(t.Context(), &dynamodb.DescribeContinuousBackupsInput{TableName: &table}))
		return !d.ContinuousBackupsDescription.PointInTimeRecoveryDescription.LatestRestorableDateTime.Before(at)
	})
}

func restoreTo(source, target string, at time.Time) *dynamodb.RestoreTableToPointInTimeInput {
	return &dynamodb.RestoreTableToPointInTimeInput{SourceTableName: &source, TargetTableName: &target, RestoreDateTime: &at}
}

func restore(t *testing.T, c *dynamodb.Client, in *dynamodb.RestoreTableToPointInTimeInput) *types.TableDescription {
	t.Helper()
	must[*dynamodb.RestoreTableToPointInTimeOutput](t)(c.RestoreTableToPointInTime(t.Context(), in))
	return active(t, c, *in.TargetTableName)
}

// nextSecond waits for the first whole second from now on, by the machine's clock.
func nextSecond(t *testing.T) time.Time {
	t.Helper()
	at := time.Now().Truncate(time.Second).Add(time.Second)
	eventually(t, "the next second", func() bool { return time.Now().After(at) })
	return at
}

// refused checks the type of an error and a part of its message, and that it is decoded to the SDK's type.
func refused[E error](t *testing.T, err error, part string) {
	t.Helper()
	e, ok := errors.AsType[E](err)
	if !ok {
		t.Errorf("got %v, want %T", err, *new(E))
		return
	}
	if !strings.Contains(e.Error(), part) {
		t.Errorf("got %v, want one with %q", e, part)
	}
}

// code checks an error that the SDK has no type for.
func code(t *testing.T, err error, want, part string) {
	t.Helper()
	e, ok := errors.AsType[smithy.APIError](err)
	if !ok || e.ErrorCode() != want || !strings.Contains(e.ErrorMessage(), part) {
		t.Errorf("got %v, want %s with %q", err, want, part)
	}
}

// TestPointInTime restores while writers write, to seconds between their writes, and compares with what each writer knows of its own keys: a
// write that was answered by then is there, one that was sent later is not. Two accounts' sums of transfers in one transaction always agree.
func TestPointInTime(t *testing.T) {
	t.Parallel()
	s := dynamo.Start(t, dynamo.Options{Factor: 200})
	c := client(s, "AKIAONE", region, 3)
	for _, name := range []string{"shop.events", "shop.other"} {
		create(t, c, keyed(name))
	}
	const writers, pairs = 6, 5
	for k := range pairs {
		put(t, c, "shop.events", 1000+k, 100)
		put(t, c, "shop.other", 1000+k, 100)
	}

	type done struct {
		from, to time.Time
		value    int // -1: deleted
	}
	var mu sync.Mutex
	wrote := map[int][]done{}
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				k := w*10 + n%3
				d := done{from: time.Now(), value: n}
				var err error
				switch n % 5 {
				case 0:
					_, err = c.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String("shop.events"), Item: item(k, n)})
				case 1, 2:
					values := []types.ReturnValue{"", types.ReturnValueAllNew, types.ReturnValueUpdatedOld}
					_, err = c.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{
						TableName: aws.String("shop.events"), Key: map[string]types.AttributeValue{"k": number(k)}, UpdateExpression: aws.String("SET v = :v"),
						ExpressionAttributeValues: map[string]types.AttributeValue{":v": number(n)}, ReturnValues: values[n%3],
					})
				case 3:
					d.value = -1
					_, err = c.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{TableName: aws.String("shop.events"), Key: map[string]types.AttributeValue{"k": number(k)}})
				case 4:
					_, err = c.BatchWriteItem(t.Context(), &dynamodb.BatchWriteItemInput{RequestItems: map[string][]types.WriteRequest{
						"shop.events": {{PutRequest: &types.PutRequest{Item: item(k, n)}}},
					}})
				}
				if err != nil {
					t.Error(err)
					return
				}
				d.to = time.Now()
				mu.Lock()
				wrote[k] = append(wrote[k], d)
				mu.Unlock()
				// One that fails its condition leaves no trace.
				_, err = c.PutItem(t.Context(), &dynamodb.PutItemInput{
					TableName: aws.String("shop.events"), Item: item(1000, 7), ConditionExpression: aws.String("attribute_not_exists(k)"),
				})
				refused[*types.ConditionalCheckFailedException](t, err, "")
			}
		})
	}
	for w := range 2 {
		group.Go(func() { // transfers from one table to the other
			for n := 0; ctx.Err() == nil; n++ {
				amount := strconv.Itoa(n%7 + 1)
				add := func(table, sign string) types.TransactWriteItem {
					return types.TransactWriteItem{Update: &types.Update{
						TableName: &table, Key: map[string]types.AttributeValue{"k": number(1000 + (w*2+n)%pairs)}, UpdateExpression: aws.String("ADD v :a"),
						ExpressionAttributeValues: map[string]types.AttributeValue{":a": &types.AttributeValueMemberN{Value: sign + amount}},
					}}
				}
				_, err := c.TransactWriteItems(t.Context(), &dynamodb.TransactWriteItemsInput{TransactItems: []types.TransactWriteItem{add("shop.events", "-"), add("shop.other", "")}})
				if _, cancelled := errors.AsType[*types.TransactionCanceledException](err); err != nil && !cancelled {
					t.Error(err)
					return
				}
			}
		})
	}
	var points []time.Time
	for range 3 {
		points = append(points, nextSecond(t))
	}
	nextSecond(t)
	stop()
	group.Wait()
	if t.Failed() {
		return
	}

	moved := map[int]bool{}
	for i, at := range points {
		restorable(t, c, "shop.events", at)
		restorable(t, c, "shop.other", at)
		target, other := fmt.Sprintf("events-%d", i), fmt.Sprintf("other-%d", i)
		restore(t, c, restoreTo("shop.other", other, at))
		if d := restore(t, c, restoreTo("shop.events", target, at)); !d.RestoreSummary.RestoreDateTime.Equal(at) || *d.RestoreSummary.RestoreInProgress ||
			*d.RestoreSummary.SourceTableArn != "arn:aws:dynamodb:ap-northeast-1:111111111111:table/shop.events" {
			t.Errorf("restore summary: %+v", d.RestoreSummary)
		}
		got, others := scan(t, c, target), scan(t, c, other)
		sum := 0
		for k := range pairs {
			sum += got[1000+k] + others[1000+k]
		}
		moved[got[1000]] = true
		if sum != 200*pairs {
			t.Errorf("at %s the accounts of both tables have %d together, want %d: a transaction is torn", at, sum, 200*pairs)
		}
		checked := 0
		for k, all := range wrote {
			var possible []int
			for n, d := range all {
				if !d.from.After(at) && (n == len(all)-1 || all[n+1].to.After(at)) {
					possible = append(possible, d.value)
				}
			}
			value, there := got[k]
			if !there {
				value = -1
			}
			if all[0].to.After(at) { // it may not have been there yet
				possible = append(possible, -1)
			}
			if !slices.Contains(possible, value) {
				t.Errorf("at %s the item %d is %d, want one of %v", at, k, value, possible)
			}
			if len(possible) == 1 {
				checked++
			}
		}
		t.Logf("restored to %s: %d items, %d of %d keys with one possible value", at.Format(time.TimeOnly), len(got), checked, len(wrote))
		if checked == 0 {
			t.Error("no key was certain: the check shows nothing")
		}
	}
	if len(moved) < 2 {
		t.Error("no transfer happened between the restore points")
	}
	commits := s.Commits(scope, "shop.events")
	if !slices.IsSortedFunc(commits, func(a, b dynamo.Commit) int { return a.At.Compare(b.At) }) || len(commits) < 20 { // how many depends on the machine
		t.Errorf("the log has %d commits, or they are not in the order of their times", len(commits))
	}
	// A restore to the latest time has everything: nothing was written for longer than the lag.
	restorable(t, c, "shop.events", time.Now())
	in := restoreTo("shop.events", "latest", time.Time{})
	in.RestoreDateTime, in.UseLatestRestorableTime = nil, aws.Bool(true)
	restore(t, c, in)
	if got, want := scan(t, c, "latest"), scan(t, c, "shop.events"); !maps.Equal(got, want) {
		t.Errorf("the latest restore has %v, the table %v", got, want)
	}
}

// TestTransactionToken repeats a transaction with its token after another write: the repetition succeeds, writes nothing, and is no commit of
// what it once wrote. Nor is one number two keys, however it is written.
func TestTransactionToken(t *testing.T) {
	t.Parallel()
	s := dynamo.Start(t, dynamo.Options{Factor: 1000})
	c := client(s, "AKIAONE", region, 1)
	create(t, c, keyed("tokens"))
	in := &dynamodb.TransactWriteItemsInput{ClientRequestToken: aws.String("once"), TransactItems: []types.TransactWriteItem{
		{Put: &types.Put{TableName: aws.String("tokens"), Item: item(1, 1)}},
	}}
	must[*dynamodb.TransactWriteItemsOutput](t)(c.TransactWriteItems(t.Context(), in))
	put(t, c, "tokens", 1, 2)
	must[*dynamodb.TransactWriteItemsOutput](t)(c.TransactWriteItems(t.Context(), in))
	put(t, c, "tokens", 7, 7)
	must[*dynamodb.DeleteItemOutput](t)(c.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{
		TableName: aws.String("tokens"), Key: map[string]types.AttributeValue{"k": &types.AttributeValueMemberN{Value: "0.70e1"}},
	}))
	at := nextSecond(t)
	restorable(t, c, "tokens", at)
	restore(t, c, restoreTo("tokens", "restored", at))
	if got, want := scan(t, c, "restored"), scan(t, c, "tokens"); !maps.Equal(got, want) {
		t.Errorf("restored: %v, the table has %v", got, want)
	}
}

// TestOrder writes one item from many sides at once: what is recorded last is what the table has.
func TestOrder(t *testing.T) {
	t.Parallel()
	s := dynamo.Start(t, dynamo.Options{Factor: 1000})
	c := client(s, "AKIAONE", region, 1)
	create(t, c, keyed("contended"))
	for round := range 60 {
		var group sync.WaitGroup
		for w := range 16 {
			group.Go(func() {
				if _, err := c.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String("contended"), Item: item(1, round*100+w)}); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		out := must[*dynamodb.GetItemOutput](t)(c.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: aws.String("contended"), Key: map[string]types.AttributeValue{"k": number(1)}}))
		commits := s.Commits(scope, "contended")
		var last struct{ V struct{ N string } }
		if err := json.Unmarshal(commits[len(commits)-1].Item, &last); err != nil {
			t.Fatal(err)
		}
		if want := strconv.Itoa(numberOf(t, out.Item["v"])); last.V.N != want {
			t.Fatalf("the table has %s, the last commit is %s", want, last.V.N)
		}
	}
}

// TestBackup shows that an on-demand backup is accurate to a minute (accelerated) only, and restored as it is.
func TestBackup(t *testing.T) {
	t.Parallel()
	s := dynamo.Start(t, dynamo.Options{Factor: 20}) // three seconds before, three after
	c := client(s, "AKIAONE", region, 1)
	create(t, c, keyed("quiet"))
	for k := range 10 {
		put(t, c, "quiet", k, 1)
	}
	before := nextSecond(t)
	eventually(t, "more than a minute, accelerated", func() bool { return time.Since(before) > s.Scaled(61*time.Second) })
	for k := range 40 { // each may or may not be in it
		put(t, c, "quiet", 100+k, 1)
	}
	s.Hold()
	b := must[*dynamodb.CreateBackupOutput](t)(c.CreateBackup(t.Context(), &dynamodb.CreateBackupInput{TableName: aws.String("quiet"), BackupName: aws.String("first")})).BackupDetails
	if b.BackupStatus != types.BackupStatusCreating || b.BackupType != types.BackupTypeUser {
		t.Errorf("a new backup: %+v", b)
	}
	_, err := c.DeleteBackup(t.Context(), &dynamodb.DeleteBackupInput{BackupArn: b.BackupArn})
	refused[*types.BackupInUseException](t, err, "")
	_, err = c.RestoreTableFromBackup(t.Context(), &dynamodb.RestoreTableFromBackupInput{BackupArn: b.BackupArn, TargetTableName: aws.String("early")})
	refused[*types.BackupInUseException](t, err, "")
	_, err = c.DeleteTable(t.Context(), &dynamodb.DeleteTableInput{TableName: aws.String("quiet")})
	refused[*types.ResourceInUseException](t, err, "backup")
	s.Release()
	for k := range 40 {
		put(t, c, "quiet", 200+k, 1)
	}
	eventually(t, "after the minute", func() bool { return time.Now().After(b.BackupCreationDateTime.Add(s.Scaled(61 * time.Second))) })
	for k := range 40 {
		put(t, c, "quiet", 300+k, 1)
	}
	eventually(t, "the backup is AVAILABLE", func() bool {
		d := must[*dynamodb.DescribeBackupOutput](t)(c.DescribeBackup(t.Context(), &dynamodb.DescribeBackupInput{BackupArn: b.BackupArn}))
		return d.BackupDescription.BackupDetails.BackupStatus == types.BackupStatusAvailable
	})
	s.Hold()
	must[*dynamodb.RestoreTableFromBackupOutput](t)(c.RestoreTableFromBackup(t.Context(), &dynamodb.RestoreTableFromBackupInput{BackupArn: b.BackupArn, TargetTableName: aws.String("again")}))
	_, err = c.DeleteBackup(t.Context(), &dynamodb.DeleteBackupInput{BackupArn: b.BackupArn})
	refused[*types.BackupInUseException](t, err, "")
	s.Release()
	if d := active(t, c, "again"); *d.RestoreSummary.SourceBackupArn != *b.BackupArn {
		t.Errorf("restore summary: %+v", d.RestoreSummary)
	}
	count := map[int]int{}
	for k := range scan(t, c, "again") {
		count[k/100]++
	}
	if count[0] != 10 || count[1] == 0 || count[1] == 40 || count[2] == 0 || count[2] == 40 || count[3] != 0 {
		t.Errorf("the backup has %d of 10 items of more than a minute before, %d and %d of 40 of the minutes around it, and %d of 40 of later", count[0], count[1], count[2], count[3])
	}

	// On-demand backups need neither PITR nor the table; nor do they leave the region or the account.
	for name, other := range map[string]*dynamodb.Client{"region": client(s, "AKIAONE", "us-east-1", 1), "account": client(s, "AKIATWO", region, 1)} {
		_, err := other.RestoreTableFromBackup(t.Context(), &dynamodb.RestoreTableFromBackupInput{BackupArn: b.BackupArn, TargetTableName: aws.String("elsewhere")})
		if _, ok := errors.AsType[*types.BackupNotFoundException](err); !ok {
			t.Errorf("restoring in another %s: %v", name, err)
		}
	}
	must[*dynamodb.DeleteTableOutput](t)(c.DeleteTable(t.Context(), &dynamodb.DeleteTableInput{TableName: aws.String("quiet")}))
	list := func(kind types.BackupTypeFilter) []string {
		var all []string
		for _, b := range must[*dynamodb.ListBackupsOutput](t)(c.ListBackups(t.Context(), &dynamodb.ListBackupsInput{BackupType: kind, TableName: aws.String("quiet")})).BackupSummaries {
			all = append(all, *b.BackupName)
		}
		return all
	}
	if user, all := list(""), list(types.BackupTypeFilterAll); !slices.Equal(user, []string{"first"}) || !slices.Equal(all, []string{"first", "quiet$DeletedTableBackup"}) {
		t.Errorf("the user's backups are %v, all are %v", user, all)
	}
	system := must[*dynamodb.ListBackupsOutput](t)(c.ListBackups(t.Context(), &dynamodb.ListBackupsInput{BackupType: types.BackupTypeFilterSystem})).BackupSummaries[0]
	must[*dynamodb.RestoreTableFromBackupOutput](t)(c.RestoreTableFromBackup(t.Context(), &dynamodb.RestoreTableFromBackupInput{BackupArn: system.BackupArn, TargetTableName: aws.String("deleted")}))
	active(t, c, "deleted")
	if n := len(scan(t, c, "deleted")); n != 130 {
		t.Errorf("the deleted table's backup has %d items, want 130", n)
	}
	deleted := must[*dynamodb.DeleteBackupOutput](t)(c.DeleteBackup(t.Context(), &dynamodb.DeleteBackupInput{BackupArn: b.BackupArn}))
	if deleted.BackupDescription.BackupDetails.BackupStatus != types.BackupStatusDeleted {
		t.Errorf("a deleted backup: %+v", deleted.BackupDescription.BackupDetails)
	}
	_, err = c.DescribeBackup(t.Context(), &dynamodb.DescribeBackupInput{BackupArn: b.BackupArn})
	refused[*types.BackupNotFoundException](t, err, "")
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	s := dynamo.Start(t, dynamo.Options{Factor: 60, MaxRestores: 2, MaxOperations: 5})
	c := client(s, "AKIAONE", region, 1)
	ctx := t.Context()
	name := aws.String("shop.events")
	s.Hold()
	must[*dynamodb.CreateTableOutput](t)(c.CreateTable(ctx, keyed(*name)))

	// While it is being created.
	_, err := c.PutItem(ctx, &dynamodb.PutItemInput{TableName: name, Item: item(1, 1)})
	refused[*types.ResourceNotFoundException](t, err, "")
	_, err = c.DeleteTable(ctx, &dynamodb.DeleteTableInput{TableName: name})
	refused[*types.ResourceInUseException](t, err, "being created")
	_, err = c.CreateTable(ctx, keyed(*name))
	refused[*types.ResourceInUseException](t, err, "already exists")
	_, err = c.TagResource(ctx, &dynamodb.TagResourceInput{ResourceArn: aws.String("arn:aws:dynamodb:ap-northeast-1:111111111111:table/shop.events"), Tags: []types.Tag{{Key: aws.String("a"), Value: aws.String("b")}}})
	refused[*types.ResourceInUseException](t, err, "CREATING")
	pitr := func(on bool, days *int32) error {
		_, err := c.UpdateContinuousBackups(ctx, &dynamodb.UpdateContinuousBackupsInput{TableName: name, PointInTimeRecoverySpecification: &types.PointInTimeRecoverySpecification{
			PointInTimeRecoveryEnabled: &on, RecoveryPeriodInDays: days,
		}})
		return err
	}
	refused[*types.ContinuousBackupsUnavailableException](t, pitr(true, nil), "retry later")
	s.Pass(10 * time.Second)
	active(t, c, *name)
	refused[*types.ContinuousBackupsUnavailableException](t, pitr(true, nil), "retry later")
	_, err = c.CreateBackup(ctx, &dynamodb.CreateBackupInput{TableName: name, BackupName: aws.String("one")})
	refused[*types.ContinuousBackupsUnavailableException](t, err, "")
	s.Release()

	// Without PITR, and outside of its window.
	put(t, c, *name, 1, 1)
	_, err = c.RestoreTableToPointInTime(ctx, restoreTo(*name, "target", time.Now()))
	refused[*types.PointInTimeRecoveryUnavailableException](t, err, "")
	enabling := time.Now()
	enable(t, c, *name)
	code(t, pitr(true, aws.Int32(36)), "ValidationException", "between 1 and 35")
	if err := pitr(true, aws.Int32(7)); err != nil {
		t.Error(err)
	}
	window := func() *types.PointInTimeRecoveryDescription {
		return must[*dynamodb.DescribeContinuousBackupsOutput](t)(c.DescribeContinuousBackups(ctx, &dynamodb.DescribeContinuousBackupsInput{TableName: name})).ContinuousBackupsDescription.PointInTimeRecoveryDescription
	}
	w := window()
	if *w.RecoveryPeriodInDays != 7 || w.EarliestRestorableDateTime.Before(enabling.Truncate(time.Millisecond)) || w.LatestRestorableDateTime.After(time.Now()) {
		t.Errorf("the window is %+v", w)
	}
	for _, at := range []time.Time{enabling.Add(-time.Hour), time.Now(), time.Now().Add(time.Hour)} {
		_, err = c.RestoreTableToPointInTime(ctx, restoreTo(*name, "target", at))
		refused[*types.InvalidRestoreTimeException](t, err, "not between")
	}
	at := nextSecond(t)
	restorable(t, c, *name, at)
	if d := time.Since(at); d < s.Scaled(5*time.Minute) {
		t.Errorf("restorable after %s already, want five minutes, which are %s here", d, s.Scaled(5*time.Minute))
	}
	_, err = c.RestoreTableToPointInTime(ctx, restoreTo(*name, *name, at))
	refused[*types.TableAlreadyExistsException](t, err, "")
	_, err = c.RestoreTableToPointInTime(ctx, restoreTo("nothing", "target", at))
	refused[*types.TableNotFoundException](t, err, "")
	both := restoreTo(*name, "target", at)
	both.UseLatestRestorableTime = aws.Bool(true)
	_, err = c.RestoreTableToPointInTime(ctx, both)
	code(t, err, "ValidationException", "exactly one of")
	index := restoreTo(*name, "target", at)
	index.GlobalSecondaryIndexOverride = []types.GlobalSecondaryIndex{{
		IndexName: aws.String("none"), KeySchema: keyed("x").KeySchema, Projection: &types.Projection{ProjectionType: types.ProjectionTypeAll},
	}}
	_, err = c.RestoreTableToPointInTime(ctx, index)
	code(t, err, "ValidationException", "does not match")
	provisioned := restoreTo(*name, "target", at)
	provisioned.BillingModeOverride = types.BillingModeProvisioned
	_, err = c.RestoreTableToPointInTime(ctx, provisioned)
	code(t, err, "ValidationException", "ProvisionedThroughputOverride")
	key := restoreTo(*name, "target", at)
	key.SSESpecificationOverride = &types.SSESpecification{Enabled: aws.Bool(true), SSEType: types.SSETypeKms, KMSMasterKeyId: aws.String("arn:aws:kms:ap-northeast-1:111111111111:key/none")}
	_, err = c.RestoreTableToPointInTime(ctx, key)
	code(t, err, "ValidationException", "does not exist")
	vectors := restoreTo(*name, "target", at)
	vectors.VectorIndexOverride = []types.VectorIndex{}
	_, err = c.RestoreTableToPointInTime(ctx, vectors)
	code(t, err, "SerializationException", "VectorIndexOverride")

	// At once no more than the limits.
	s.Hold()
	for i := range 2 {
		must[*dynamodb.RestoreTableToPointInTimeOutput](t)(c.RestoreTableToPointInTime(ctx, restoreTo(*name, fmt.Sprintf("target-%d", i), at)))
	}
	_, err = c.RestoreTableToPointInTime(ctx, restoreTo(*name, "target-2", at))
	refused[*types.LimitExceededException](t, err, "2 simultaneous restores")
	_, err = c.RestoreTableToPointInTime(ctx, restoreTo("nothing", "target-0", at))
	refused[*types.TableNotFoundException](t, err, "")
	_, err = client(s, "AKIAONE", "us-east-1", 1).RestoreTableToPointInTime(ctx, &dynamodb.RestoreTableToPointInTimeInput{
		SourceTableArn: aws.String("arn:aws:dynamodb:ap-northeast-1:111111111111:table/shop.events"), TargetTableName: aws.String("far"), RestoreDateTime: &at,
	})
	refused[*types.LimitExceededException](t, err, "2 simultaneous restores") // the account's, not the region's
	s.Release()
	active(t, c, "target-0")
	active(t, c, "target-1")
	s.Hold()
	for i := range 5 {
		must[*dynamodb.CreateTableOutput](t)(c.CreateTable(ctx, keyed(fmt.Sprintf("table-%d", i))))
	}
	_, err = c.CreateTable(ctx, keyed("table-5"))
	refused[*types.LimitExceededException](t, err, "Only 5")
	s.Release()
	for i := range 5 {
		active(t, c, fmt.Sprintf("table-%d", i))
	}
	_, err = client(s, "AKIATWO", region, 1).RestoreTableToPointInTime(ctx, &dynamodb.RestoreTableToPointInTimeInput{
		SourceTableArn: aws.String("arn:aws:dynamodb:ap-northeast-1:111111111111:table/shop.events"), TargetTableName: aws.String("far"), RestoreDateTime: &at,
	})
	code(t, err, "AccessDeniedException", "")
	must[*dynamodb.RestoreTableToPointInTimeOutput](t)(client(s, "AKIAONE", "us-east-1", 1).RestoreTableToPointInTime(ctx, &dynamodb.RestoreTableToPointInTimeInput{
		SourceTableArn: aws.String("arn:aws:dynamodb:ap-northeast-1:111111111111:table/shop.events"), TargetTableName: aws.String("far"), RestoreDateTime: &at,
	}))
	active(t, client(s, "AKIAONE", "us-east-1", 1), "far")
	if got := scan(t, client(s, "AKIAONE", "us-east-1", 1), "far"); !maps.Equal(got, map[int]int{1: 1}) {
		t.Errorf("the restore in another region has %v", got)
	}

	// Disabling forgets, and the recovery period passes.
	if err := errors.Join(pitr(false, nil), pitr(true, nil)); err != nil {
		t.Error(err)
	}
	if w := window(); w.EarliestRestorableDateTime.Before(at) || *w.RecoveryPeriodInDays != 35 {
		t.Errorf("after disabling and enabling the window is %+v", w)
	}
	_, err = c.RestoreTableToPointInTime(ctx, restoreTo(*name, "target", at))
	refused[*types.InvalidRestoreTimeException](t, err, "not between")
	aged := time.Now()
	s.AgePITR(scope, *name, aged)
	if w := window(); w.EarliestRestorableDateTime.Before(aged.Truncate(time.Millisecond)) {
		t.Errorf("the earliest restorable time is %s, want %s", w.EarliestRestorableDateTime, aged)
	}

	// Deletion protection, and the life after.
	protect := func(on bool) {
		s.Hold()
		must[*dynamodb.UpdateTableOutput](t)(c.UpdateTable(ctx, &dynamodb.UpdateTableInput{TableName: name, DeletionProtectionEnabled: &on}))
		_, err := c.UpdateTable(ctx, &dynamodb.UpdateTableInput{TableName: name, DeletionProtectionEnabled: &on})
		refused[*types.ResourceInUseException](t, err, "")
		s.Release()
		active(t, c, *name)
	}
	protect(true)
	_, err = c.DeleteTable(ctx, &dynamodb.DeleteTableInput{TableName: name})
	code(t, err, "ValidationException", "protected against deletion")
	protect(false)
	id := *active(t, c, *name).TableId
	s.Hold()
	must[*dynamodb.DeleteTableOutput](t)(c.DeleteTable(ctx, &dynamodb.DeleteTableInput{TableName: name}))
	must[*dynamodb.DeleteTableOutput](t)(c.DeleteTable(ctx, &dynamodb.DeleteTableInput{TableName: name})) // once more is no error
	_, err = c.CreateTable(ctx, keyed(*name))
	refused[*types.ResourceInUseException](t, err, "")
	_, err = c.RestoreTableToPointInTime(ctx, restoreTo("target-0", *name, at))
	refused[*types.PointInTimeRecoveryUnavailableException](t, err, "")
	s.Release()
	eventually(t, "it is gone", func() bool {
		_, err := c.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: name})
		_, gone := errors.AsType[*types.ResourceNotFoundException](err)
		return gone
	})
	_, err = c.RestoreTableToPointInTime(ctx, restoreTo(*name, "target", at))
	refused[*types.TableNotFoundException](t, err, "")
	must[*dynamodb.CreateTableOutput](t)(c.CreateTable(ctx, keyed(*name)))
	if again := active(t, c, *name); *again.TableId == id {
		t.Error("a table of the same name has the id of the deleted one")
	}
	if n := len(scan(t, c, *name)); n != 0 {
		t.Errorf("a new table has %d items", n)
	}

	// Callers.
	_, err = client(s, "AKIANONE", region, 1).ListTables(ctx, &dynamodb.ListTablesInput{})
	code(t, err, "UnrecognizedClientException", "")
	_, err = c.ExecuteStatement(ctx, &dynamodb.ExecuteStatementInput{Statement: aws.String("DELETE FROM x")})
	code(t, err, "UnknownOperationException", "ExecuteStatement")
	if n := len(must[*dynamodb.ListTablesOutput](t)(client(s, "AKIATWO", region, 1).ListTables(ctx, &dynamodb.ListTablesInput{})).TableNames); n != 0 {
		t.Errorf("the other account sees %d tables", n)
	}
}

// TestLosses shows that a restore brings back what AWS's brings back, and nothing else.
func TestLosses(t *testing.T) {
	t.Parallel()
	const ours = "arn:aws:kms:ap-northeast-1:111111111111:key/ours"
	s := dynamo.Start(t, dynamo.Options{Factor: 600, KMSKeys: []string{ours}})
	c := client(s, "AKIAONE", region, 1)
	scaling := applicationautoscaling.New(applicationautoscaling.Options{Region: region, BaseEndpoint: aws.String(s.Endpoint()), Credentials: credentials("AKIAONE")})
	ctx := t.Context()
	name := aws.String("shop.events")
	in := keyed(*name)
	capacity := func(n int64) *types.ProvisionedThroughput {
		return &types.ProvisionedThroughput{ReadCapacityUnits: &n, WriteCapacityUnits: &n}
	}
	in.BillingMode, in.ProvisionedThroughput = types.BillingModeProvisioned, capacity(3)
	in.AttributeDefinitions = append(in.AttributeDefinitions, types.AttributeDefinition{AttributeName: aws.String("v"), AttributeType: types.ScalarAttributeTypeN})
	in.GlobalSecondaryIndexes = []types.GlobalSecondaryIndex{{
		IndexName: aws.String("by-v"), KeySchema: []types.KeySchemaElement{{AttributeName: aws.String("v"), KeyType: types.KeyTypeHash}},
		Projection: &types.Projection{ProjectionType: types.ProjectionTypeAll}, ProvisionedThroughput: capacity(4),
	}}
	in.DeletionProtectionEnabled = aws.Bool(true)
	in.SSESpecification = &types.SSESpecification{Enabled: aws.Bool(true), SSEType: types.SSETypeKms, KMSMasterKeyId: aws.String(ours)}
	for i := range 12 { // more than one page
		in.Tags = append(in.Tags, types.Tag{Key: aws.String(fmt.Sprintf("key-%02d", i)), Value: aws.String("value")})
	}
	create(t, c, in)
	put(t, c, *name, 1, 5)
	must[*dynamodb.UpdateTimeToLiveOutput](t)(c.UpdateTimeToLive(ctx, &dynamodb.UpdateTimeToLiveInput{TableName: name, TimeToLiveSpecification: &types.TimeToLiveSpecification{
		AttributeName: aws.String("expires"), Enabled: aws.Bool(true),
	}}))
	_, err := c.UpdateTimeToLive(ctx, &dynamodb.UpdateTimeToLiveInput{TableName: name, TimeToLiveSpecification: &types.TimeToLiveSpecification{
		AttributeName: aws.String("expires"), Enabled: aws.Bool(false),
	}})
	code(t, err, "ValidationException", "multiple times")
	must[*dynamodb.UpdateTableOutput](t)(c.UpdateTable(ctx, &dynamodb.UpdateTableInput{TableName: name, StreamSpecification: &types.StreamSpecification{
		StreamEnabled: aws.Bool(true), StreamViewType: types.StreamViewTypeNewImage,
	}}))
	must[*dynamodb.UpdateContributorInsightsOutput](t)(func() (*dynamodb.UpdateContributorInsightsOutput, error) {
		active(t, c, *name)
		return c.UpdateContributorInsights(ctx, &dynamodb.UpdateContributorInsightsInput{TableName: name, ContributorInsightsAction: types.ContributorInsightsActionEnable})
	}())
	target := &applicationautoscaling.RegisterScalableTargetInput{
		ServiceNamespace: scalingtypes.ServiceNamespaceDynamodb, ResourceId: aws.String("table/shop.events"), ScalableDimension: scalingtypes.ScalableDimensionDynamoDBTableReadCapacityUnits,
		MinCapacity: aws.Int32(2), MaxCapacity: aws.Int32(50), Tags: map[string]string{"team": "shop"},
	}
	policy := &applicationautoscaling.PutScalingPolicyInput{
		ServiceNamespace: target.ServiceNamespace, ResourceId: target.ResourceId, ScalableDimension: target.ScalableDimension, PolicyName: aws.String("read"),
		PolicyType: scalingtypes.PolicyTypeTargetTrackingScaling, TargetTrackingScalingPolicyConfiguration: &scalingtypes.TargetTrackingScalingPolicyConfiguration{
			TargetValue: aws.Float64(70), PredefinedMetricSpecification: &scalingtypes.PredefinedMetricSpecification{PredefinedMetricType: scalingtypes.MetricTypeDynamoDBReadCapacityUtilization},
		},
	}
	_, err = scaling.PutScalingPolicy(ctx, policy)
	refused[*scalingtypes.ObjectNotFoundException](t, err, "")
	arn := must[*applicationautoscaling.RegisterScalableTargetOutput](t)(scaling.RegisterScalableTarget(ctx, target)).ScalableTargetARN
	must[*applicationautoscaling.PutScalingPolicyOutput](t)(scaling.PutScalingPolicy(ctx, policy))
	if tags := must[*applicationautoscaling.ListTagsForResourceOutput](t)(scaling.ListTagsForResource(ctx, &applicationautoscaling.ListTagsForResourceInput{ResourceARN: arn})).Tags; tags["team"] != "shop" {
		t.Errorf("the target's tags are %v", tags)
	}
	missing := *target
	missing.ResourceId, missing.Tags = aws.String("table/none"), nil
	_, err = scaling.RegisterScalableTarget(ctx, &missing)
	refused[*scalingtypes.ValidationException](t, err, "does not exist")

	at := nextSecond(t)
	restorable(t, c, *name, at)
	restored := restore(t, c, restoreTo(*name, "restored", at))
	source := active(t, c, *name)
	if *source.LatestStreamArn == "" || !*source.DeletionProtectionEnabled || *source.ProvisionedThroughput.ReadCapacityUnits != 3 {
		t.Errorf("the source: %+v", source)
	}
	if restored.LatestStreamArn != nil || restored.StreamSpecification != nil || *restored.DeletionProtectionEnabled || *restored.TableId == *source.TableId {
		t.Errorf("the restored table has a stream, is protected or has the source's id: %+v", restored)
	}
	if *restored.ProvisionedThroughput.WriteCapacityUnits != 3 || *restored.GlobalSecondaryIndexes[0].ProvisionedThroughput.ReadCapacityUnits != 4 || *restored.SSEDescription.KMSMasterKeyArn != ours {
		t.Errorf("the restored table lacks capacity, indexes or key: %+v", restored)
	}
	if d := must[*dynamodb.DescribeTimeToLiveOutput](t)(c.DescribeTimeToLive(ctx, &dynamodb.DescribeTimeToLiveInput{TableName: aws.String("restored")})); d.TimeToLiveDescription.TimeToLiveStatus != types.TimeToLiveStatusDisabled {
		t.Errorf("TTL: %+v", d.TimeToLiveDescription)
	}
	if d := must[*dynamodb.DescribeContinuousBackupsOutput](t)(c.DescribeContinuousBackups(ctx, &dynamodb.DescribeContinuousBackupsInput{TableName: aws.String("restored")})); d.ContinuousBackupsDescription.PointInTimeRecoveryDescription.PointInTimeRecoveryStatus != types.PointInTimeRecoveryStatusDisabled {
		t.Errorf("PITR: %+v", d.ContinuousBackupsDescription.PointInTimeRecoveryDescription)
	}
	if d := must[*dynamodb.DescribeContributorInsightsOutput](t)(c.DescribeContributorInsights(ctx, &dynamodb.DescribeContributorInsightsInput{TableName: aws.String("restored")})); d.ContributorInsightsStatus != types.ContributorInsightsStatusDisabled {
		t.Errorf("contributor insights: %v", d.ContributorInsightsStatus)
	}
	tags := func(arn *string) (n int) {
		for token := (*string)(nil); ; {
			out := must[*dynamodb.ListTagsOfResourceOutput](t)(c.ListTagsOfResource(ctx, &dynamodb.ListTagsOfResourceInput{ResourceArn: arn, NextToken: token}))
			n += len(out.Tags)
			if token = out.NextToken; token == nil {
				return n
			}
		}
	}
	if a, b := tags(source.TableArn), tags(restored.TableArn); a != 12 || b != 0 {
		t.Errorf("the source has %d tags, the restored table %d", a, b)
	}
	targets := must[*applicationautoscaling.DescribeScalableTargetsOutput](t)(scaling.DescribeScalableTargets(ctx, &applicationautoscaling.DescribeScalableTargetsInput{ServiceNamespace: target.ServiceNamespace})).ScalableTargets
	policies := must[*applicationautoscaling.DescribeScalingPoliciesOutput](t)(scaling.DescribeScalingPolicies(ctx, &applicationautoscaling.DescribeScalingPoliciesInput{ServiceNamespace: target.ServiceNamespace})).ScalingPolicies
	if len(targets) != 1 || *targets[0].ResourceId != "table/shop.events" || len(policies) != 1 || *policies[0].TargetTrackingScalingPolicyConfiguration.TargetValue != 70 {
		t.Errorf("targets %v, policies %v", targets, policies)
	}
	items := must[*dynamodb.QueryOutput](t)(c.Query(ctx, &dynamodb.QueryInput{
		TableName: aws.String("restored"), IndexName: aws.String("by-v"), KeyConditionExpression: aws.String("v = :v"), ExpressionAttributeValues: map[string]types.AttributeValue{":v": number(5)},
	})).Items
	if len(items) != 1 {
		t.Errorf("the restored index has %d items, want 1", len(items))
	}

	// Put back, and with overrides.
	must[*dynamodb.TagResourceOutput](t)(c.TagResource(ctx, &dynamodb.TagResourceInput{ResourceArn: restored.TableArn, Tags: in.Tags}))
	eventually(t, "the tags are shown", func() bool { return tags(restored.TableArn) == 12 })
	other := restoreTo(*name, "cheap", at)
	other.BillingModeOverride, other.GlobalSecondaryIndexOverride = types.BillingModePayPerRequest, []types.GlobalSecondaryIndex{}
	other.SSESpecificationOverride = &types.SSESpecification{Enabled: aws.Bool(false)}
	if d := restore(t, c, other); d.BillingModeSummary.BillingMode != types.BillingModePayPerRequest || len(d.GlobalSecondaryIndexes) != 0 || d.SSEDescription != nil {
		t.Errorf("with overrides: %+v", d)
	}
	must[*dynamodb.UpdateTableOutput](t)(c.UpdateTable(ctx, &dynamodb.UpdateTableInput{TableName: aws.String("cheap"), BillingMode: types.BillingModeProvisioned, ProvisionedThroughput: capacity(7)}))
	if d := active(t, c, "cheap"); *d.ProvisionedThroughput.WriteCapacityUnits != 7 || d.BillingModeSummary != nil {
		t.Errorf("updated: %+v", d)
	}

	// The inventory names it all, once.
	kinds := map[string]int{}
	for _, o := range s.Inventory() {
		kinds[o.Kind]++
		if o.Name == *name && (o.Settings["ttl"] != "expires" || o.Settings["stream"] != "NEW_IMAGE" || o.Settings["pitr"] != "35" || len(o.Tags) != 12) {
			t.Errorf("the inventory has %s", o)
		}
	}
	if !maps.Equal(kinds, map[string]int{"table": 3, "scalable target": 1, "scaling policy": 1}) {
		t.Errorf("the inventory has %v", kinds)
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	s := dynamo.Start(t, dynamo.Options{Factor: 600, Rates: map[string]float64{"DescribeContinuousBackups": 0.01}}) // six a second
	once, patient := client(s, "AKIAONE", region, 1), client(s, "AKIAONE", region, 25)
	ctx := t.Context()
	create(t, patient, keyed("shop.events"))

	// An answer is lost when the table is made already: the SDK's own repetition meets it.
	s.Inject(dynamo.Fault{Operations: []string{"CreateTable"}, Kind: dynamo.LostAnswer, Count: 1})
	_, err := patient.CreateTable(ctx, keyed("lost"))
	refused[*types.ResourceInUseException](t, err, "")
	active(t, patient, "lost")
	s.Inject(dynamo.Fault{Operations: []string{"CreateTable"}, Kind: dynamo.LostRequest, Count: 1}, dynamo.Fault{Operations: []string{"CreateTable"}, Resource: "late", Kind: dynamo.ServerErrorAfter, Count: 1})
	must[*dynamodb.CreateTableOutput](t)(patient.CreateTable(ctx, keyed("in-time")))
	_, err = once.CreateTable(ctx, keyed("late"))
	refused[*types.InternalServerError](t, err, "")
	active(t, once, "late")
	lost := 0
	for _, c := range s.Calls() {
		if c.Lost {
			lost++
		}
	}
	if lost != 2 || s.Count("CreateTable") != 3 { // the fourth is answered 500
		t.Errorf("the log has %d lost calls and %d tables made, of %v", lost, s.Count("CreateTable"), s.Calls())
	}

	s.Inject(dynamo.Fault{Operations: []string{"PutItem"}, Kind: dynamo.ServerError, Count: 1}, dynamo.Fault{Operations: []string{"PutItem"}, Kind: dynamo.Throttled, Count: 1},
		dynamo.Fault{Operations: []string{"ListTables"}, Kind: dynamo.Throttled, Count: 1})
	_, err = once.PutItem(ctx, &dynamodb.PutItemInput{TableName: aws.String("late"), Item: item(1, 1)})
	refused[*types.InternalServerError](t, err, "")
	_, err = once.PutItem(ctx, &dynamodb.PutItemInput{TableName: aws.String("late"), Item: item(1, 1)})
	refused[*types.ProvisionedThroughputExceededException](t, err, "")
	_, err = once.ListTables(ctx, &dynamodb.ListTablesInput{})
	refused[*types.ThrottlingException](t, err, "")
	if n := len(scan(t, once, "late")); n != 0 {
		t.Errorf("%d items were written by calls that failed", n)
	}

	// Half of a batch.
	s.Inject(dynamo.Fault{Kind: dynamo.Unprocessed, Operations: []string{"BatchWriteItem", "BatchGetItem"}, Count: 2})
	var puts []types.WriteRequest
	var keys []map[string]types.AttributeValue
	for k := range 5 {
		puts = append(puts, types.WriteRequest{PutRequest: &types.PutRequest{Item: item(k, k)}})
		keys = append(keys, map[string]types.AttributeValue{"k": number(k)})
	}
	out := must[*dynamodb.BatchWriteItemOutput](t)(once.BatchWriteItem(ctx, &dynamodb.BatchWriteItemInput{RequestItems: map[string][]types.WriteRequest{"late": puts}}))
	if n := len(scan(t, once, "late")); n != 3 || len(out.UnprocessedItems["late"]) != 2 {
		t.Errorf("%d of 5 items are written, %d are said not to be", n, len(out.UnprocessedItems["late"]))
	}
	got := must[*dynamodb.BatchGetItemOutput](t)(once.BatchGetItem(ctx, &dynamodb.BatchGetItemInput{RequestItems: map[string]types.KeysAndAttributes{"late": {Keys: keys}}}))
	if len(got.Responses["late"]) != 3 || len(got.UnprocessedKeys["late"].Keys) != 2 {
		t.Errorf("%d of 5 items are read, %d are said not to be", len(got.Responses["late"]), len(got.UnprocessedKeys["late"].Keys))
	}
	s.ClearFaults()
	s.Inject(dynamo.Fault{Kind: dynamo.Denied, Operations: []string{"DescribeBackup"}})
	_, err = patient.DescribeBackup(ctx, &dynamodb.DescribeBackupInput{BackupArn: aws.String("arn")})
	code(t, err, "AccessDeniedException", "dynamodb:DescribeBackup")

	// A call can be held.
	held, release := make(chan dynamo.Call), make(chan struct{})
	s.OnCall(func(c dynamo.Call) {
		if c.Operation == "DeleteTable" {
			held <- c
			<-release
		}
	})
	deleted := make(chan error, 1)
	go func() {
		_, err := once.DeleteTable(ctx, &dynamodb.DeleteTableInput{TableName: aws.String("lost")})
		deleted <- err
	}()
	if c := <-held; c.Resource != "lost" || c.Scope != scope {
		t.Errorf("the held call is %+v", c)
	}
	active(t, once, "lost")
	close(release)
	if err := <-deleted; err != nil {
		t.Error(err)
	}
	s.OnCall(nil)

	// Rates: more than six at once are refused.
	throttled := 0
	for range 12 {
		_, err := once.DescribeContinuousBackups(ctx, &dynamodb.DescribeContinuousBackupsInput{TableName: aws.String("late")})
		if err != nil {
			refused[*types.ThrottlingException](t, err, "Rate exceeded")
			throttled++
		}
	}
	if throttled == 0 {
		t.Error("no call of twelve was throttled")
	}

	// The service's clock is that of its answers, and of its times.
	s.SetClockOffset(40 * time.Second)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.Endpoint(), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	date := must[time.Time](t)(http.ParseTime(resp.Header.Get("Date")))
	if d := time.Until(date); d < 20*time.Second || d > 40*time.Second {
		t.Errorf("the Date header is %s ahead of ours, want 40 s, cut to a second", d)
	}
	put(t, once, "late", 9, 9)
	commits := s.Commits(scope, "late")
	if d := time.Until(commits[len(commits)-1].At); d < 20*time.Second || d > 40*time.Second {
		t.Errorf("the commit is %s ahead of our clock, want 40 s less what passed since", d)
	}
}

// TestManyTables makes 300 tables and restores them under throttling and failures, and reports how long it takes.
func TestManyTables(t *testing.T) {
	t.Parallel()
	s := dynamo.Start(t, dynamo.Options{Factor: 600})
	c := client(s, "AKIAONE", region, 25)
	const tables, items = 300, 25
	parallel := func(n int, f func(i int)) {
		var group sync.WaitGroup
		next := make(chan int)
		for range 16 {
			group.Go(func() {
				for i := range next {
					f(i)
				}
			})
		}
		for i := range n {
			next <- i
		}
		close(next)
		group.Wait()
	}
	began := time.Now()
	step := func(what string) {
		t.Logf("%s: %s", what, time.Since(began).Round(10*time.Millisecond))
		began = time.Now()
	}
	s.Inject(dynamo.Fault{Kind: dynamo.ServerError, Rate: 0.05})
	source := func(i int) string { return fmt.Sprintf("prod.t%03d", i) }
	parallel(tables, func(i int) {
		name := source(i)
		if _, err := c.CreateTable(t.Context(), keyed(name)); err != nil {
			t.Error(err)
			return
		}
		active(t, c, name)
		enable(t, c, name)
	})
	step("300 tables made, with PITR")
	parallel(tables, func(i int) {
		var puts []types.WriteRequest
		for k := range items {
			puts = append(puts, types.WriteRequest{PutRequest: &types.PutRequest{Item: item(k, i)}})
		}
		if _, err := c.BatchWriteItem(t.Context(), &dynamodb.BatchWriteItemInput{RequestItems: map[string][]types.WriteRequest{source(i): puts}}); err != nil {
			t.Error(err)
		}
	})
	step("25 items put into each")
	at := nextSecond(t)
	restorable(t, c, source(0), at)
	step("the restore point is restorable")
	if t.Failed() {
		return
	}
	parallel(tables, func(i int) {
		name := fmt.Sprintf("staging.t%03d", i)
		for {
			_, err := c.RestoreTableToPointInTime(t.Context(), restoreTo(source(i), name, at))
			if _, full := errors.AsType[*types.LimitExceededException](err); full {
				continue
			}
			if err != nil {
				t.Error(err)
				return
			}
			break
		}
		active(t, c, name)
		enable(t, c, name)
	})
	step("300 tables restored, with PITR")
	s.ClearFaults()
	parallel(tables, func(i int) {
		got := scan(t, c, fmt.Sprintf("staging.t%03d", i))
		if len(got) != items || got[items-1] != i {
			t.Errorf("the restored table %d has %v", i, got)
		}
	})
	step("and read")
	if n := len(s.Inventory()); n != 2*tables {
		t.Errorf("the inventory has %d objects, want %d", n, 2*tables)
	}

	// One table of many items.
	parallel(400, func(i int) {
		var puts []types.WriteRequest
		for k := range 25 {
			puts = append(puts, types.WriteRequest{PutRequest: &types.PutRequest{Item: item(1000+i*25+k, i)}})
		}
		if _, err := c.BatchWriteItem(t.Context(), &dynamodb.BatchWriteItemInput{RequestItems: map[string][]types.WriteRequest{source(0): puts}}); err != nil {
			t.Error(err)
		}
	})
	step("10000 items put into one table")
	at = nextSecond(t)
	restorable(t, c, source(0), at)
	step("restorable")
	restore(t, c, restoreTo(source(0), "big", at))
	step("and restored")
	if n := len(scan(t, c, "big")); n != 10000+items {
		t.Errorf("the big table has %d items", n)
	}
}
