package dynamo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// seedLimit bounds the wait for a new table.
const seedLimit = 2 * time.Minute

// Seed makes ScalarDB's own tables and n others (shop.t000, ...) of one record each, as ScalarDB does, with point-in-time recovery.
func (s *Service) Seed(t testing.TB, region, accessKey, secretKey, prefix string, n int) {
	t.Helper()
	api := dynamodb.New(dynamodb.Options{
		BaseEndpoint: aws.String(s.Endpoint()), Region: region, Retryer: retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts = 25 }),
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: accessKey, SecretAccessKey: secretKey}, nil
		}),
	})
	str := func(v string) types.AttributeValue { return &types.AttributeValueMemberS{Value: v} }
	const partition = "concatenatedPartitionKey"
	type table struct {
		name, hash string
		kind       types.ScalarAttributeType
		items      []map[string]types.AttributeValue
	}
	metadata := table{name: prefix + "scalardb.metadata", hash: "table", kind: types.ScalarAttributeTypeS}
	all := []table{{name: prefix + "coordinator.state", hash: partition, kind: types.ScalarAttributeTypeB}}
	for i := range n {
		all = append(all, table{fmt.Sprintf("%sshop.t%03d", prefix, i), partition, types.ScalarAttributeTypeB, []map[string]types.AttributeValue{
			{partition: &types.AttributeValueMemberB{Value: []byte("1")}, "id": str("1")},
		}})
	}
	for _, x := range all {
		columns := map[string]types.AttributeValue{}
		for name, kind := range map[string]string{
			"id": "text", "tx_id": "text", "tx_state": "int", "tx_version": "int", "tx_prepared_at": "bigint", "tx_committed_at": "bigint",
			"before_tx_id": "text", "before_tx_state": "int", "before_tx_version": "int", "before_tx_prepared_at": "bigint", "before_tx_committed_at": "bigint",
		} {
			columns[name] = str(kind)
		}
		if strings.HasSuffix(x.name, "coordinator.state") {
			columns = map[string]types.AttributeValue{"tx_id": str("text"), "tx_state": str("int"), "tx_created_at": str("bigint")}
		}
		key := "id"
		if columns["id"] == nil {
			key = "tx_id"
		}
		metadata.items = append(metadata.items, map[string]types.AttributeValue{
			"table": str(x.name), "columns": &types.AttributeValueMemberM{Value: columns}, "partitionKey": &types.AttributeValueMemberL{Value: []types.AttributeValue{str(key)}},
		})
	}
	all = append(all, metadata)

	ctx := t.Context()
	fill := func(x table) error {
		_, err := api.CreateTable(ctx, &dynamodb.CreateTableInput{
			TableName: &x.name, BillingMode: types.BillingModePayPerRequest, KeySchema: []types.KeySchemaElement{{AttributeName: &x.hash, KeyType: types.KeyTypeHash}},
			AttributeDefinitions: []types.AttributeDefinition{{AttributeName: &x.hash, AttributeType: x.kind}},
		})
		if err != nil {
			return err
		}
		for deadline := time.Now().Add(seedLimit); ; time.Sleep(20 * time.Millisecond) {
			_, err := api.UpdateContinuousBackups(ctx, &dynamodb.UpdateContinuousBackupsInput{TableName: &x.name,
				PointInTimeRecoverySpecification: &types.PointInTimeRecoverySpecification{PointInTimeRecoveryEnabled: aws.Bool(true)}})
			if err == nil {
				break
			}
			var busy *types.ContinuousBackupsUnavailableException
			var creating *types.TableNotFoundException
			if !errors.As(err, &busy) && !errors.As(err, &creating) || time.Now().After(deadline) {
				return err
			}
		}
		for _, item := range x.items {
			if _, err := api.PutItem(ctx, &dynamodb.PutItemInput{TableName: &x.name, Item: item}); err != nil {
				return err
			}
		}
		return nil
	}
	var wg sync.WaitGroup
	turns := make(chan struct{}, 16)
	failed := make(chan error, len(all))
	for _, x := range all {
		wg.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			if err := fill(x); err != nil {
				failed <- fmt.Errorf("%s: %w", x.name, err)
			}
		})
	}
	wg.Wait()
	close(failed)
	for err := range failed {
		t.Fatal(err)
	}
}
