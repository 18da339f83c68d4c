//go:build acceptance

package awsdynamodb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/dynamo"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/storagetest"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
)

const bankPrefix = "prod."

// TestAcceptanceSuite is the conformance suite, over DynamoDB Local behind the proxy: for on_demand what differs, then for pitr all of it.
func TestAcceptanceSuite(t *testing.T) {
	t.Parallel()
	b := newBed(t, dynamo.Options{Factor: 300})
	bank := newBank(t, b)
	for _, c := range []struct {
		method, instant string
		faults          int
	}{{MethodOnDemand, "", 2}, {MethodPITR, kindPITR, 8}} {
		t.Run(c.method, func(t *testing.T) {
			f := b.fixture(t, bank, c.method)
			storagetest.Suite{Driver: kindName, Service: true, Unwitnessed: true, Faults: c.faults, Instant: c.instant, SecondMethod: c.method == MethodOnDemand,
				New: func(*testing.T) *storagetest.Fixture { return f }}.Run(t)
		})
	}
}

// fixture reaches the stand-in through a wire.
func (b *bed) fixture(t *testing.T, bank *bank, method string) *storagetest.Fixture {
	wire := storagetest.NewWire(t, b.service.Endpoint())
	account, _ := connect(t, wire.URL)
	source := b.settings()
	source.Storage, source.Prefix, source.Method = storagetest.Storage, bankPrefix, method
	source.Open = func(context.Context) (Account, error) { return account, nil }
	hasty := source
	hasty.Clock = storagetest.Hasty{}
	targets := 0
	return &storagetest.Fixture{
		Bank: bank, Wire: wire, Secrets: []string{bedSecret}, Traces: func(*testing.T) []string { return b.traces() },
		Source:    func() engine.Source { return NewSource(source) },
		Artifacts: func(c engine.Catalog) engine.ArtifactStore { return NewKeeper(hasty, c) },
		Expire: func(*testing.T) {
			for _, name := range bank.names {
				b.service.AgePITR(dynamo.Scope{Account: bedAccount, Region: bedRegion}, name, time.Now())
			}
		},
		Target: func(*testing.T) storagetest.Target {
			targets++
			d := hasty
			d.Method, d.Prefix, d.HasPrefix = "", "copy"+strconv.Itoa(targets)+".", true
			return storagetest.Target{
				Destination: NewDestination(d),
				Rows:        func(t *testing.T) ([]string, error) { return bank.rows(t.Context(), d.Prefix) },
				Reader:      func(ctx context.Context) (verify.Storage, error) { return NewReader(ctx, d, nil) },
				Empty: func(*testing.T) bool {
					return !slices.ContainsFunc(b.traces(), func(s string) bool { return strings.Contains(s, d.Prefix) })
				},
				Occupy: func(t *testing.T) func(*testing.T) {
					name := d.Prefix + "bank.notes"
					b.table(name, partitionAttribute, true)
					b.ready(name)
					own := item{partitionAttribute: &types.AttributeValueMemberB{Value: []byte("mine")}}
					b.put(name, own)
					there := b.traces()
					t.Cleanup(func() {
						ctx := context.WithoutCancel(t.Context())
						if _, err := b.api.DeleteTable(ctx, &dynamodb.DeleteTableInput{TableName: &name}); err != nil {
							t.Errorf("deleting the other table: %v", err)
						}
						for _, err := describeTable(ctx, b.api, name); !errors.Is(err, engine.ErrNotFound); _, err = describeTable(ctx, b.api, name) {
							b.sleepUntil(time.Now().Add(20 * time.Millisecond))
						}
					})
					return func(t *testing.T) {
						if items, _, err := readItems(t.Context(), b.api, name); err != nil || fingerprint(items) != fingerprint([]item{own}) || !slices.Equal(there, b.traces()) {
							t.Errorf("the other table is not as it was: %v, %v, %q", items, err, b.traces())
						}
					}
				},
			}
		},
	}
}

// traces is the inventory as text.
func (b *bed) traces() (out []string) {
	for name, o := range b.inventory() {
		out = append(out, name+" "+o.ID)
	}
	slices.Sort(out)
	return out
}

// bank is storagetest's bank in DynamoDB, as ScalarDB's adapter stores it.
type bank struct {
	b        *bed
	names    []string // of the tables
	sequence int
}

// column is one column of a table; the first is the key.
type column struct{ name, kind string }

var transaction = []column{{colTxID, "text"}, {colState, "int"}, {colVersion, "int"}, {colPreparedAt, "bigint"}, {colCommittedAt, "bigint"}}

func bankColumns(name string) []column {
	switch name {
	case "bank.accounts":
		return append([]column{{"account_id", "int"}, {"balance", "int"}}, transaction...)
	case "bank.audit":
		return append([]column{{"entry_id", "text"}, {"amount", "int"}}, transaction...)
	case "bank.notes":
		return []column{{"id", "text"}, {"body", "text"}}
	case "coordinator.state":
		return []column{{colTxID, "text"}, {colState, "int"}, {colCreatedAt, "bigint"}}
	}
	return append([]column{{"id", "int"}, {"value", "int"}}, transaction...)
}

func newBank(t *testing.T, b *bed) *bank {
	t.Helper()
	k := &bank{b: b}
	b.table(bankPrefix+"scalardb.metadata", attrTable, true)
	b.table(bankPrefix+"scalardb.namespaces", attrNamespace, true)
	k.names = []string{bankPrefix + "scalardb.metadata", bankPrefix + "scalardb.namespaces"}
	for _, name := range []string{"coordinator.state", "bank.accounts", "bank.audit", "bank.notes"} {
		b.table(bankPrefix+name, partitionAttribute, name != "bank.audit")
		k.names = append(k.names, bankPrefix+name)
	}
	b.ready(k.names...)
	b.put(k.names[1], item{attrNamespace: str(bankPrefix + "coordinator")}, item{attrNamespace: str(bankPrefix + "bank")})
	for _, full := range k.names[2:] {
		b.put(k.names[0], declaration(full))
	}
	old := time.Now().Add(-time.Hour).UnixMilli()
	for i := range int64(storagetest.Accounts) {
		b.put(bankPrefix+"bank.accounts", stored("bank.accounts", i, int64(storagetest.Balance), "initial", int64(3), int64(1), old, old))
	}
	b.put(bankPrefix+"coordinator.state", stored("coordinator.state", "initial", int64(3), old))
	b.put(bankPrefix+"bank.notes", stored("bank.notes", "1", "naïve 'quotes' \"and\" \\ Ω"))
	return k
}

// declaration is a table's item of ScalarDB's metadata.
func declaration(full string) item {
	columns := item{}
	all := bankColumns(strings.TrimPrefix(full, bankPrefix))
	for _, c := range all {
		columns[c.name] = str(c.kind)
	}
	return item{attrTable: str(full), attrColumns: &types.AttributeValueMemberM{Value: columns}, attrPartitionKey: &types.AttributeValueMemberL{Value: []types.AttributeValue{str(all[0].name)}}}
}

// stored is one record; the key is the first value.
func stored(table string, values ...any) item {
	it := item{partitionAttribute: &types.AttributeValueMemberB{Value: coordinatorKey(fmt.Sprint(values[0]))}}
	for i, c := range bankColumns(table)[:len(values)] {
		switch v := values[i].(type) {
		case string:
			it[c.name] = str(v)
		case int64:
			it[c.name] = num(v)
		}
	}
	return it
}

// Transfer implements storagetest.System.
func (k *bank) Transfer(ctx context.Context, at int64) error {
	if at == 0 {
		at = time.Now().UnixMilli()
	}
	k.sequence++
	id := fmt.Sprintf("transaction-%06d", k.sequence)
	from := k.sequence % storagetest.Accounts
	in := &dynamodb.TransactWriteItemsInput{TransactItems: []types.TransactWriteItem{
		{Put: &types.Put{TableName: aws.String(bankPrefix + "bank.audit"), Item: stored("bank.audit", id, int64(1), id, int64(3), int64(1), at, at)}},
		{Put: &types.Put{TableName: aws.String(bankPrefix + "coordinator.state"), Item: stored("coordinator.state", id, int64(3), at)}},
	}}
	for account, amount := range map[int]int64{from: -1, (from + 7) % storagetest.Accounts: 1} {
		in.TransactItems = append(in.TransactItems, types.TransactWriteItem{Update: &types.Update{
			TableName: aws.String(bankPrefix + "bank.accounts"), Key: item{partitionAttribute: &types.AttributeValueMemberB{Value: coordinatorKey(strconv.Itoa(account))}},
			UpdateExpression:          aws.String("SET balance = balance + :amount, tx_id = :id, tx_version = tx_version + :one, tx_prepared_at = :at, tx_committed_at = :at"),
			ExpressionAttributeValues: item{":amount": num(amount), ":id": str(id), ":one": num(1), ":at": num(at)},
		}})
	}
	_, err := k.b.api.TransactWriteItems(ctx, in)
	return err
}

// OnePhaseCommit implements storagetest.System.
func (k *bank) OnePhaseCommit(context.Context, int64) error {
	return errors.New("nobody is to ask for it")
}

// CreateTable implements storagetest.System.
func (k *bank) CreateTable(_ context.Context, name string) error {
	full := bankPrefix + "bank." + name
	k.b.table(full, partitionAttribute, true)
	k.b.ready(full)
	k.b.put(k.names[0], declaration(full))
	k.names = append(k.names, full)
	return nil
}

// AddColumn implements storagetest.System.
func (k *bank) AddColumn(context.Context) error {
	it := declaration(bankPrefix + "bank.notes")
	it[attrColumns].(*types.AttributeValueMemberM).Value["extra"] = str("int") //nolint:forcetypeassert // declaration made it
	k.b.put(k.names[0], it)
	return nil
}

// Rows implements storagetest.System.
func (k *bank) Rows(ctx context.Context) ([]string, error) { return k.rows(ctx, bankPrefix) }

// rows reads the tables below a prefix.
func (k *bank) rows(ctx context.Context, prefix string) (out []string, err error) {
	for _, full := range k.names {
		name := strings.TrimPrefix(full, bankPrefix)
		items, _, err := readItems(ctx, k.b.api, prefix+name)
		if err != nil {
			return nil, err
		}
		namespace, table, _ := splitName(name)
		for _, it := range items {
			var values []any
			switch table {
			case metadataTable:
				values = []any{strings.TrimPrefix(keyText(it[attrTable]), prefix), fingerprint([]item{{attrColumns: it[attrColumns], attrPartitionKey: it[attrPartitionKey]}})}
			case namespacesTable:
				values = []any{strings.TrimPrefix(keyText(it[attrNamespace]), prefix)}
			default:
				for _, c := range bankColumns(name) {
					values = append(values, plain(it[c.name]))
				}
			}
			out = append(out, storagetest.Line(namespace, table, values...))
		}
	}
	slices.Sort(out)
	return out, nil
}

// plain is a column as storagetest.Line has it.
func plain(v types.AttributeValue) any {
	switch v := v.(type) {
	case *types.AttributeValueMemberS:
		return v.Value
	case *types.AttributeValueMemberN:
		return v.Value
	}
	return nil
}
