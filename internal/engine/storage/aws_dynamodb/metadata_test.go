package awsdynamodb

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

func TestDecodeRow(t *testing.T) {
	good := metadataRow("p.shop.events")
	good[attrClusteringKey] = &types.AttributeValueMemberL{Value: []types.AttributeValue{str("balance")}}
	r, err := decodeRow(good)
	if err != nil || r.table != "p.shop.events" || !r.transactional() || !slices.Equal(r.key, []string{"id", "balance"}) {
		t.Errorf("%+v, %v", r, err)
	}
	for _, c := range []struct {
		change func(item)
		want   string
	}{
		{func(it item) { delete(it, attrTable) }, `no string "table"`},
		{func(it item) { it[attrTable] = num(1) }, `no string "table"`},
		{func(it item) { it[attrColumns] = str("x") }, "no columns"},
		{func(it item) { it[attrColumns] = &types.AttributeValueMemberM{} }, "no columns"},
		{func(it item) { it[attrColumns].(*types.AttributeValueMemberM).Value["id"] = num(1) }, "is no string"},
		{func(it item) { delete(it, attrPartitionKey) }, "partitionKey is no list"},
		{func(it item) { it[attrPartitionKey] = &types.AttributeValueMemberL{} }, "no partition key"},
		{func(it item) {
			it[attrPartitionKey] = &types.AttributeValueMemberL{Value: []types.AttributeValue{str("zz")}}
		}, "which is no column"},
		{func(it item) {
			it[attrClusteringKey] = &types.AttributeValueMemberL{Value: []types.AttributeValue{num(1)}}
		}, "no string"},
	} {
		it := metadataRow("shop.events")
		c.change(it)
		if _, err := decodeRow(it); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}

// value makes an attribute value of JSON: DynamoDB's own form, as far as the metadata uses it.
func value(v any) types.AttributeValue {
	switch v := v.(type) {
	case string:
		return str(v)
	case float64:
		return num(int64(v))
	case bool:
		return &types.AttributeValueMemberBOOL{Value: v}
	case []any:
		l := &types.AttributeValueMemberL{}
		for _, e := range v {
			l.Value = append(l.Value, value(e))
		}
		return l
	case map[string]any:
		m := &types.AttributeValueMemberM{Value: item{}}
		for k, e := range v {
			m.Value[k] = value(e)
		}
		return m
	}
	return &types.AttributeValueMemberNULL{Value: true}
}

func FuzzDecodeRow(f *testing.F) {
	f.Add([]byte(`{"table":"a.b","columns":{"id":"int","tx_id":"text"},"partitionKey":["id"],"clusteringKey":[]}`))
	f.Add([]byte(`{"table":"","columns":{},"partitionKey":[null]}`))
	f.Add([]byte(`{"table":"a.b","columns":{"c":1},"partitionKey":"c","secondaryIndex":["x"]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var plain map[string]any
		if json.Unmarshal(data, &plain) != nil {
			return
		}
		it := value(plain).(*types.AttributeValueMemberM).Value
		r, err := decodeRow(it)
		if err != nil {
			if len(err.Error()) > 4000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		if r.table == "" || len(r.key) == 0 {
			t.Errorf("%+v", r)
		}
		for _, k := range r.key {
			if _, ok := r.columns[k]; !ok {
				t.Errorf("%q is no column of %+v", k, r)
			}
		}
		if fingerprint([]item{it, it}) == fingerprint([]item{it}) {
			t.Error("two items have the fingerprint of one")
		}
	})
}

func FuzzDecodeSettings(f *testing.F) {
	f.Add([]byte(`{"version":1,"tables":[{"table":"a.b","billing_mode":"PROVISIONED"}]}`))
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		tables, err := decodeSettings(data, "x")
		for name, f := range tables {
			if name != f.Table || err != nil {
				t.Errorf("%q: %+v, %v", name, f, err)
			}
		}
	})
}

func TestFingerprint(t *testing.T) {
	a := item{"k": str("1"), "m": &types.AttributeValueMemberM{Value: item{"x": num(1), "y": &types.AttributeValueMemberSS{Value: []string{"p", "q"}}}}}
	b := item{"k": str("2"), "l": &types.AttributeValueMemberL{Value: []types.AttributeValue{str("a"), str("b")}}}
	same := item{"k": str("1"), "m": &types.AttributeValueMemberM{Value: item{"x": num(1), "y": &types.AttributeValueMemberSS{Value: []string{"q", "p"}}}}}
	if fingerprint([]item{a, b}) != fingerprint([]item{b, same}) {
		t.Error("the order of items or of a set counts")
	}
	for _, other := range []item{{"k": str("1")}, {"k": num(1), "m": a["m"]}, {"k": str("1"), "m": &types.AttributeValueMemberM{Value: item{"x": num(2), "y": a["m"].(*types.AttributeValueMemberM).Value["y"]}}}} {
		if fingerprint([]item{a, b}) == fingerprint([]item{other, b}) {
			t.Errorf("%v counts as the same", other)
		}
	}
}

func TestNames(t *testing.T) {
	if region, account, name, ok := splitARN("arn:aws-cn:dynamodb:cn-north-1:123456789012:table/a.b/backup/0123"); !ok || region != "cn-north-1" || account != "123456789012" || name != "a.b" {
		t.Error(region, account, name, ok)
	}
	for _, bad := range []string{"", "planned:scalardb-x", "arn:aws:s3:::bucket", "arn:aws:dynamodb:x:y:table/"} {
		if _, _, _, ok := splitARN(bad); ok {
			t.Errorf("%q was taken for a table's ARN", bad)
		}
	}
	if n := temporaryName(testRun, strings.Repeat("x", 255)); !tableName.MatchString(n) {
		t.Error(n)
	}
	task := task{source: "p.shop.events", target: "s.shop.events"}
	for name, want := range map[string]string{"p.shop.events.global_index.c": "s.shop.events.global_index.c", "by-hand": "by-hand", "p.shop.events2.global_index.c": "p.shop.events2.global_index.c"} {
		if got := renamed(name, task); got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
}
