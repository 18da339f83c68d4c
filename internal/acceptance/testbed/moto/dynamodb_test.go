//go:build acceptance

package moto

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/applicationautoscaling"
	scaling "github.com/aws/aws-sdk-go-v2/service/applicationautoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	dynamo "github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/aws_dynamodb"
)

type item = map[string]types.AttributeValue

func str(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }
func bin(s string) types.AttributeValue { return &types.AttributeValueMemberB{Value: []byte(s)} }

// hash is ScalarDB's hash key.
const hash = "concatenatedPartitionKey"

// table makes a table as ScalarDB does, with point-in-time recovery, and puts items into it.
func (b *bed) table(t *testing.T, in dynamodb.CreateTableInput, name, key string, kind types.ScalarAttributeType, items ...item) {
	t.Helper()
	in.TableName, in.KeySchema = &name, []types.KeySchemaElement{{AttributeName: &key, KeyType: types.KeyTypeHash}}
	in.AttributeDefinitions = append(in.AttributeDefinitions, types.AttributeDefinition{AttributeName: &key, AttributeType: kind})
	if in.ProvisionedThroughput == nil {
		in.BillingMode = types.BillingModePayPerRequest
	}
	_, err := b.direct.dynamo.CreateTable(t.Context(), &in)
	must(t, err)
	_, err = b.direct.dynamo.UpdateContinuousBackups(t.Context(), &dynamodb.UpdateContinuousBackupsInput{TableName: &name,
		PointInTimeRecoverySpecification: &types.PointInTimeRecoverySpecification{PointInTimeRecoveryEnabled: aws.Bool(true), RecoveryPeriodInDays: aws.Int32(20)}})
	must(t, err)
	for _, it := range items {
		_, err := b.direct.dynamo.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &name, Item: it})
		must(t, err)
	}
}

// tables are ScalarDB's own and one, with all the settings that a restore loses.
func (b *bed) tables(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	columns := item{"id": str("text"), "balance": str("int")}
	row := func(table string) item {
		return item{"table": str(table), "columns": &types.AttributeValueMemberM{Value: columns}, "partitionKey": &types.AttributeValueMemberL{Value: []types.AttributeValue{str("id")}}}
	}
	b.table(t, dynamodb.CreateTableInput{}, "scalardb.metadata", "table", types.ScalarAttributeTypeS, row(sourceEvents))
	b.table(t, dynamodb.CreateTableInput{}, "coordinator.state", hash, types.ScalarAttributeTypeB,
		item{hash: bin("tx1\x00"), "tx_id": str("tx1"), "tx_state": &types.AttributeValueMemberN{Value: "3"}, "tx_created_at": &types.AttributeValueMemberN{Value: "1700000000000"}})
	capacity := &types.ProvisionedThroughput{ReadCapacityUnits: aws.Int64(20), WriteCapacityUnits: aws.Int64(10)}
	b.table(t, dynamodb.CreateTableInput{
		ProvisionedThroughput: capacity, DeletionProtectionEnabled: aws.Bool(true), Tags: []types.Tag{{Key: aws.String("team"), Value: aws.String("shop")}},
		StreamSpecification:  &types.StreamSpecification{StreamEnabled: aws.Bool(true), StreamViewType: types.StreamViewTypeNewImage},
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("balance"), AttributeType: types.ScalarAttributeTypeN}},
		GlobalSecondaryIndexes: []types.GlobalSecondaryIndex{{IndexName: aws.String(sourceEvents + ".global_index.balance"), ProvisionedThroughput: capacity,
			KeySchema: []types.KeySchemaElement{{AttributeName: aws.String("balance"), KeyType: types.KeyTypeHash}}, Projection: &types.Projection{ProjectionType: types.ProjectionTypeAll}}},
	}, sourceEvents, hash, types.ScalarAttributeTypeB, item{hash: bin("1\x00"), "id": str("1"), "balance": &types.AttributeValueMemberN{Value: "5"}})
	_, err := b.direct.dynamo.UpdateTimeToLive(ctx, &dynamodb.UpdateTimeToLiveInput{TableName: aws.String(sourceEvents), TimeToLiveSpecification: &types.TimeToLiveSpecification{AttributeName: aws.String("expires"), Enabled: aws.Bool(true)}})
	must(t, err)
	id, dimension := aws.String("table/"+sourceEvents), scaling.ScalableDimensionDynamoDBTableReadCapacityUnits
	_, err = b.direct.scaling.RegisterScalableTarget(ctx, &applicationautoscaling.RegisterScalableTargetInput{ServiceNamespace: scaling.ServiceNamespaceDynamodb, ResourceId: id, ScalableDimension: dimension,
		MinCapacity: aws.Int32(20), MaxCapacity: aws.Int32(40)})
	must(t, err)
	_, err = b.direct.scaling.PutScalingPolicy(ctx, &applicationautoscaling.PutScalingPolicyInput{ServiceNamespace: scaling.ServiceNamespaceDynamodb, ResourceId: id, ScalableDimension: dimension,
		PolicyName: aws.String(sourceEvents + "-read"), PolicyType: scaling.PolicyTypeTargetTrackingScaling, TargetTrackingScalingPolicyConfiguration: &scaling.TargetTrackingScalingPolicyConfiguration{
			TargetValue: aws.Float64(70), PredefinedMetricSpecification: &scaling.PredefinedMetricSpecification{PredefinedMetricType: scaling.MetricTypeDynamoDBReadCapacityUtilization}}})
	must(t, err)
	_, err = b.direct.scaling.PutScheduledAction(ctx, &applicationautoscaling.PutScheduledActionInput{ServiceNamespace: scaling.ServiceNamespaceDynamodb, ResourceId: id, ScalableDimension: dimension,
		ScheduledActionName: aws.String(sourceEvents + "-night"), Schedule: aws.String("cron(0 22 * * ? *)"), Timezone: aws.String("Europe/Paris"),
		ScalableTargetAction: &scaling.ScalableTargetAction{MinCapacity: aws.Int32(20), MaxCapacity: aws.Int32(20)}})
	must(t, err)
}

// dynamoInventory is what can be left over.
func (b *bed) dynamoInventory(t *testing.T) (names []string) {
	t.Helper()
	tables, err := b.direct.dynamo.ListTables(t.Context(), &dynamodb.ListTablesInput{})
	must(t, err)
	for _, name := range tables.TableNames {
		names = append(names, "table "+name)
	}
	backups, err := b.direct.dynamo.ListBackups(t.Context(), &dynamodb.ListBackupsInput{})
	must(t, err)
	for _, s := range backups.BackupSummaries {
		names = append(names, "backup "+*s.BackupName)
	}
	targets, err := b.direct.scaling.DescribeScalableTargets(t.Context(), &applicationautoscaling.DescribeScalableTargetsInput{ServiceNamespace: scaling.ServiceNamespaceDynamodb})
	must(t, err)
	for _, s := range targets.ScalableTargets {
		names = append(names, "scaling of "+*s.ResourceId)
	}
	return names
}

// dynamoFlow is every way of the driver aws_dynamodb.
func (b *bed) dynamoFlow(t *testing.T) {
	b.tables(t)
	before := b.dynamoInventory(t)
	settings := func(change func(*dynamo.Settings)) dynamo.Settings {
		s := dynamo.Settings{Storage: stored, Clock: system, Open: func(context.Context) (dynamo.Account, error) { return dynamo.FromSession(b.session), nil }}
		change(&s)
		return s
	}
	staging := func(s *dynamo.Settings) { s.Prefix, s.HasPrefix = "staging.", true }
	look := func(made engine.Restored) {
		ctx, name := t.Context(), aws.String("staging."+sourceEvents)
		if len(made.Objects) != 3 || made.Properties["dynamo.namespace.prefix"] != "staging." {
			t.Errorf("made %+v", made)
		}
		for _, o := range made.Objects {
			if o.Extra["not_put_back"] != "" {
				t.Errorf("%s: not put back: %s", o.ID, o.Extra["not_put_back"])
			}
		}
		d, err := b.direct.dynamo.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: name})
		must(t, err)
		renamed := func(g types.GlobalSecondaryIndexDescription) bool {
			return *g.IndexName == *name+".global_index.balance"
		}
		if x := d.Table; !slices.ContainsFunc(x.GlobalSecondaryIndexes, renamed) || x.StreamSpecification == nil ||
			x.StreamSpecification.StreamViewType != types.StreamViewTypeNewImage || !*x.DeletionProtectionEnabled {
			t.Errorf("the clone is %+v", x)
		}
		ttl, err := b.direct.dynamo.DescribeTimeToLive(ctx, &dynamodb.DescribeTimeToLiveInput{TableName: name})
		must(t, err)
		if aws.ToString(ttl.TimeToLiveDescription.AttributeName) != "expires" {
			t.Errorf("time to live: %+v", ttl.TimeToLiveDescription)
		}
		for _, kind := range []string{"targets", "policies", "actions"} {
			if n := b.scaled(t, kind, "table/"+*name); n != 1 {
				t.Errorf("%d scaling %s", n, kind)
			}
		}
		reader, err := dynamo.NewReader(ctx, settings(staging), nil)
		must(t, err)
		present, missing, err := reader.Tables(ctx)
		if err != nil || len(present) != 1 || len(missing) > 0 || present[0].Namespace+"."+present[0].Name != sourceEvents {
			t.Fatalf("tables %v, missing %v, %v", present, missing, err)
		}
		if n, err := reader.Count(ctx, present[0]); n != 1 || err != nil {
			t.Errorf("%d rows, %v", n, err)
		}
		if found, err := reader.Coordinator(ctx, []string{"tx1", "tx2"}); len(found) != 1 || err != nil {
			t.Errorf("the coordinator says %v, %v", found, err)
		}
		must(t, reader.Close())
	}

	record, w := b.backUp(t, "aws_dynamodb", dynamo.NewSource(settings(func(*dynamo.Settings) {})))
	b.restore(t, dynamo.NewDestination(settings(staging)), record, w.RestorePoint, look)
	discard(t, dynamo.NewKeeper(settings(func(*dynamo.Settings) {}), b.catalog), record)

	onDemand := settings(func(s *dynamo.Settings) { s.Method, s.Settle = dynamo.MethodOnDemand, time.Millisecond })
	record, _ = b.backUp(t, "aws_dynamodb", dynamo.NewSource(onDemand))
	b.restore(t, dynamo.NewDestination(settings(staging)), record, noTime, look)
	discard(t, dynamo.NewKeeper(onDemand, b.catalog), record)
	// What a dead run left is looked for by its name.
	must(t, dynamo.NewKeeper(onDemand, b.catalog).Delete(t.Context(), engine.Artifact{Kind: "aws_dynamodb_backup", ID: "planned:scalardb-" + backupRun + "-0123456789abcdef",
		Extra: map[string]string{"region": region}}))

	if after := b.dynamoInventory(t); !slices.Equal(after, before) {
		t.Errorf("there were %q, and now there are %q", before, after)
	}
}

// scaled counts what Application Auto Scaling has of one resource.
func (b *bed) scaled(t *testing.T, kind, id string) int {
	t.Helper()
	const service = scaling.ServiceNamespaceDynamodb
	switch kind {
	case "targets":
		out, err := b.direct.scaling.DescribeScalableTargets(t.Context(), &applicationautoscaling.DescribeScalableTargetsInput{ServiceNamespace: service, ResourceIds: []string{id}})
		must(t, err)
		return len(out.ScalableTargets)
	case "policies":
		out, err := b.direct.scaling.DescribeScalingPolicies(t.Context(), &applicationautoscaling.DescribeScalingPoliciesInput{ServiceNamespace: service, ResourceId: &id})
		must(t, err)
		return len(out.ScalingPolicies)
	default:
		out, err := b.direct.scaling.DescribeScheduledActions(t.Context(), &applicationautoscaling.DescribeScheduledActionsInput{ServiceNamespace: service, ResourceId: &id})
		must(t, err)
		return len(out.ScheduledActions)
	}
}
