//go:build acceptance

package aws

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/cores"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/dynamo"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/adminserver"
)

// many makes ScalarDB's own tables and n others, as ScalarDB does, with point-in-time recovery.
func (c *cloud) many(t *testing.T, prefix string, n int) {
	t.Helper()
	api := dynamodb.New(dynamodb.Options{
		BaseEndpoint: aws.String(c.dynamo.Endpoint()), Region: region, Retryer: retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts = 25 }),
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: c.s3.AccessKey, SecretAccessKey: c.s3.SecretKey}, nil
		}),
	})
	str := func(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }
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
		for deadline := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
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

// TestManyTables: 300 tables under a core, throttled, with 5 % of all calls failing in one way or another, and fewer restores at once than asked
// for. The state stays small, nothing is lost, and nothing is left.
func TestManyTables(t *testing.T) {
	t.Parallel()
	c := startCloud(t, dynamo.Options{Factor: 300, MaxRestores: 30})
	const tables = 298
	c.many(t, "prod.", tables)
	before := c.inventory()
	target, err := adminserver.Start(adminserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(target.Close)
	w := c.workspace(t, cores.Newest(t), cores.NewMirror(t), target.Address(), nil)
	w.Init(t)
	for _, kind := range []dynamo.FaultKind{dynamo.ServerError, dynamo.ServerErrorAfter, dynamo.LostRequest, dynamo.LostAnswer, dynamo.Throttled} {
		c.dynamo.Inject(dynamo.Fault{Kind: kind, Rate: 0.01})
	}
	began := time.Now()
	w.Write(t, "backup.tf", "resource \"scalardb_consistent_backup\" \"release\" {\n  name = \"release\"\n  storages = { events = { aws_dynamodb = { prefix = \"prod.\" } } }\n}\n")
	w.Must(t, "apply", "-auto-approve", "-input=false", "-no-color")
	t.Logf("backup: %s", time.Since(began))
	restore := `resource "scalardb_pitr_restore" "staging" {
  name         = "staging"
  pause_window = scalardb_consistent_backup.release.pause_window
  storages     = { events = { aws_dynamodb = { source_prefix = "prod.", prefix = "staging." } } }
  %s
}
`
	w.Write(t, "restore.tf", restore, "")
	w.Must(t, "apply", "-auto-approve", "-input=false", "-no-color")
	t.Logf("restored and verified: %s", time.Since(began))
	w.PlanIsEmpty(t)
	t.Logf("planned: %s", time.Since(began))
	c.dynamo.ClearFaults()

	made := slices.DeleteFunc(c.inventory(), func(i string) bool { return slices.Contains(before, i) })
	if len(made) != tables+2 {
		t.Errorf("%d tables were made, want %d", len(made), tables+2)
	}
	if v, _ := w.Values(t, restoreAddress)["verification"].(map[string]any); v["passed"] != true {
		t.Errorf("the verification: %v", v)
	}
	info, err := os.Stat(filepath.Join(w.Dir, "terraform.tfstate"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the state has %d KiB", info.Size()>>10)
	if info.Size() > 2<<20 {
		t.Errorf("the state has %d KiB for %d tables", info.Size()>>10, tables)
	}

	w.Write(t, "restore.tf", restore, "deletion_protection = false")
	w.Must(t, "apply", "-auto-approve", "-input=false", "-no-color")
	c.dynamo.Inject(dynamo.Fault{Kind: dynamo.LostAnswer, Rate: 0.02}, dynamo.Fault{Kind: dynamo.Throttled, Rate: 0.02})
	if r := w.Destroy(t); r.ExitCode != 0 {
		t.Fatalf("destroying:\n%s", r.All())
	}
	c.dynamo.ClearFaults()
	t.Logf("destroyed: %s", time.Since(began))
	c.unchanged(t, before)
}
