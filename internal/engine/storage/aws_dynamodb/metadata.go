package awsdynamodb

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// How ScalarDB's DynamoDB adapter (DynamoAdmin) stores its own data: one item for each table, keyed by the table's full name, and one for each namespace.
const (
	metadataTable    = "metadata"
	namespacesTable  = "namespaces"
	coordinatorTable = "state"

	attrTable         = "table"
	attrColumns       = "columns"
	attrPartitionKey  = "partitionKey"
	attrClusteringKey = "clusteringKey"
	attrNamespace     = "namespace_name"

	// partitionAttribute is the hash key of every table: the partition key's columns, encoded.
	partitionAttribute = "concatenatedPartitionKey"
	// indexInfix follows the full name of the table in the names of ScalarDB's indexes.
	indexInfix = ".global_index."
)

// The transaction columns of Consensus Commit.
const (
	colTxID        = "tx_id"
	colState       = "tx_state"
	colVersion     = "tx_version"
	colPreparedAt  = "tx_prepared_at"
	colCommittedAt = "tx_committed_at"
	colCreatedAt   = "tx_created_at"
	colChildIDs    = "tx_child_ids"
)

var transactionColumns = []string{colTxID, colState, colVersion, colPreparedAt, colCommittedAt}

type item = map[string]types.AttributeValue

// row is one item of ScalarDB's metadata table.
type row struct {
	table   string            // full name
	columns map[string]string // type by name
	key     []string          // partition key, then clustering key
}

// maxColumns bounds what is read of one item; DynamoDB's items end at 400 KB anyway.
const maxColumns = 50_000

// decodeRow reads an item of the metadata table. What ScalarDB could not read either is an error.
func decodeRow(it item) (row, error) {
	var r row
	name, ok := it[attrTable].(*types.AttributeValueMemberS)
	if !ok || name.Value == "" {
		return r, fmt.Errorf("reading ScalarDB's metadata: an item has no string %q", attrTable)
	}
	r.table = name.Value
	fail := func(what string) (row, error) {
		return row{}, fmt.Errorf("reading ScalarDB's metadata of table %.255q: %s", r.table, what)
	}
	columns, ok := it[attrColumns].(*types.AttributeValueMemberM)
	if !ok || len(columns.Value) == 0 || len(columns.Value) > maxColumns {
		return fail("it has no columns")
	}
	r.columns = make(map[string]string, len(columns.Value))
	for column, v := range columns.Value {
		kind, ok := v.(*types.AttributeValueMemberS)
		if !ok {
			return fail(fmt.Sprintf("the type of column %.100q is no string", column))
		}
		r.columns[column] = kind.Value
	}
	for _, attribute := range []string{attrPartitionKey, attrClusteringKey} {
		v, there := it[attribute]
		if !there && attribute == attrClusteringKey {
			continue
		}
		l, ok := v.(*types.AttributeValueMemberL)
		if !ok || len(l.Value) > maxColumns {
			return fail(attribute + " is no list")
		}
		for _, e := range l.Value {
			s, ok := e.(*types.AttributeValueMemberS)
			if !ok {
				return fail(attribute + " names a column that is no string")
			}
			if _, known := r.columns[s.Value]; !known {
				return fail(fmt.Sprintf("%s names %.100q, which is no column", attribute, s.Value))
			}
			r.key = append(r.key, s.Value)
		}
	}
	if len(r.key) == 0 {
		return fail("it has no partition key")
	}
	return r, nil
}

func (r row) transactional() bool {
	for _, c := range transactionColumns {
		if _, ok := r.columns[c]; !ok {
			return false
		}
	}
	return true
}

// readItems reads a small table whole, consistently. units is what that cost.
func readItems(ctx context.Context, api API, name string) (items []item, units float64, err error) {
	var start item
	for {
		out, err := api.Scan(ctx, &dynamodb.ScanInput{TableName: &name, ConsistentRead: aws.Bool(true), ExclusiveStartKey: start,
			ReturnConsumedCapacity: types.ReturnConsumedCapacityTotal})
		if err != nil {
			return nil, 0, fmt.Errorf("reading table %s: %w", name, err)
		}
		items = append(items, out.Items...)
		if out.ConsumedCapacity != nil {
			units += aws.ToFloat64(out.ConsumedCapacity.CapacityUnits)
		}
		if start = out.LastEvaluatedKey; len(start) == 0 {
			return items, units, nil
		}
	}
}

// fingerprint is the same for equal items only, in whatever order they were read.
func fingerprint(items []item) string {
	lines := make([]string, len(items))
	for i, it := range items {
		var b strings.Builder
		writeValue(&b, &types.AttributeValueMemberM{Value: it})
		lines[i] = b.String()
	}
	slices.Sort(lines)
	return digest(lines...)
}

func writeValue(b *strings.Builder, v types.AttributeValue) {
	text := func(kind, s string) { fmt.Fprintf(b, "%s%d:%s", kind, len(s), s) }
	set := func(kind string, of []string) {
		fmt.Fprintf(b, "%s%d;", kind, len(of))
		for _, s := range slices.Sorted(slices.Values(of)) {
			text("", s)
		}
	}
	switch v := v.(type) {
	case *types.AttributeValueMemberS:
		text("S", v.Value)
	case *types.AttributeValueMemberN:
		text("N", v.Value)
	case *types.AttributeValueMemberB:
		text("B", string(v.Value))
	case *types.AttributeValueMemberBOOL:
		fmt.Fprintf(b, "T%v", v.Value)
	case *types.AttributeValueMemberNULL:
		b.WriteString("0")
	case *types.AttributeValueMemberSS:
		set("SS", v.Value)
	case *types.AttributeValueMemberNS:
		set("NS", v.Value)
	case *types.AttributeValueMemberBS:
		all := make([]string, len(v.Value))
		for i, e := range v.Value {
			all[i] = string(e)
		}
		set("BS", all)
	case *types.AttributeValueMemberL:
		fmt.Fprintf(b, "L%d;", len(v.Value))
		for _, e := range v.Value {
			writeValue(b, e)
		}
	case *types.AttributeValueMemberM:
		fmt.Fprintf(b, "M%d;", len(v.Value))
		for _, name := range slices.Sorted(maps.Keys(v.Value)) {
			text("", name)
			writeValue(b, v.Value[name])
		}
	default:
		fmt.Fprintf(b, "?%T", v)
	}
}
