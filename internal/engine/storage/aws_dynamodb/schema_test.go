package awsdynamodb

import (
	"context"
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	tftypes "github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/awsapi"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage"
)

// object is a driver object with all attributes of both sides; what is not given is null, "?" is unknown.
func object(t *testing.T, values map[string]any) tftypes.Object {
	t.Helper()
	kinds, attributes := map[string]attr.Type{}, map[string]attr.Value{}
	all := Kind{}.DestinationAttributes()
	for name, a := range (Kind{}).SourceAttributes() {
		all[name] = a
	}
	for name := range values {
		if all[name] == nil {
			t.Fatalf("there is no attribute %s", name)
		}
	}
	for name, a := range all {
		kinds[name] = a.GetType()
		value := values[name]
		unknown := value == "?"
		switch a.(type) {
		case schema.Int64Attribute:
			attributes[name] = tftypes.Int64Null()
			if n, ok := value.(int); ok {
				attributes[name] = tftypes.Int64Value(int64(n))
			} else if unknown {
				attributes[name] = tftypes.Int64Unknown()
			}
		case schema.ListAttribute:
			attributes[name] = tftypes.ListNull(tftypes.StringType)
			if l, ok := value.([]string); ok {
				var of []attr.Value
				for _, s := range l {
					of = append(of, tftypes.StringValue(s))
				}
				attributes[name] = tftypes.ListValueMust(tftypes.StringType, of)
			} else if unknown {
				attributes[name] = tftypes.ListUnknown(tftypes.StringType)
			}
		case schema.MapAttribute:
			attributes[name] = tftypes.MapNull(tftypes.StringType)
			if m, ok := value.(map[string]string); ok {
				of := map[string]attr.Value{}
				for k, v := range m {
					of[k] = tftypes.StringValue(v)
				}
				attributes[name] = tftypes.MapValueMust(tftypes.StringType, of)
			}
		default:
			attributes[name] = tftypes.StringNull()
			if s, ok := value.(string); ok {
				attributes[name] = tftypes.StringValue(s)
			}
			if unknown {
				attributes[name] = tftypes.StringUnknown()
			}
		}
	}
	return tftypes.ObjectValueMust(kinds, attributes)
}

type setter struct {
	to        map[string]string
	attribute string
}

func (s setter) Error(summary, detail string) { s.to[s.attribute] = summary + ": " + detail }
func (s setter) Warning(_, _ string)          {}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		values map[string]any
		want   string // the attribute with an error
	}{
		{map[string]any{}, ""},
		{map[string]any{"tables": []string{"coordinator.state", "shop.events", "scalardb.metadata"}, "prefix": "staging.", "region": "eu-west-1", "method": "on_demand"}, ""},
		{map[string]any{"namespaces": []string{"shop"}, "prefix": "", "source_prefix": "p-", "source_region": "us-gov-west-1", "billing_mode": "PAY_PER_REQUEST", "restore_settings": []string{},
			"kms_key_arn": "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab", "tags": map[string]string{"a": "b"}, "max_concurrent_restores": 50, "verify_read_capacity_share": 100}, ""},
		{map[string]any{"tables": "?", "prefix": "?", "region": "?", "method": "?", "billing_mode": "?", "max_concurrent_restores": "?", "restore_settings": "?"}, ""},
		{map[string]any{"tables": []string{"events"}}, "tables"},
		{map[string]any{"tables": []string{"a.b.c"}}, "tables"},
		{map[string]any{"tables": []string{}}, "tables"},
		{map[string]any{"namespaces": []string{}}, "namespaces"},
		{map[string]any{"namespaces": []string{"shop.events"}}, "namespaces"},
		{map[string]any{"namespaces": []string{"shop"}, "tables": []string{"a.b"}}, "namespaces"},
		{map[string]any{"region": "Ireland"}, "region"},
		{map[string]any{"source_region": "eu"}, "source_region"},
		{map[string]any{"prefix": "a b"}, "prefix"},
		{map[string]any{"source_prefix": "a/"}, "source_prefix"},
		{map[string]any{"coordinator_namespace": "a.b"}, "coordinator_namespace"},
		{map[string]any{"metadata_namespace": ""}, "metadata_namespace"},
		{map[string]any{"method": "snapshot"}, "method"},
		{map[string]any{"billing_mode": "ON_DEMAND"}, "billing_mode"},
		{map[string]any{"kms_key_arn": "alias/x"}, "kms_key_arn"},
		{map[string]any{"tags": map[string]string{"aws:x": "y"}}, "tags"},
		{map[string]any{"tags": map[string]string{"scalardb:run-id": "y"}}, "tags"},
		{map[string]any{"restore_settings": []string{"alarms"}}, "restore_settings"},
		{map[string]any{"max_concurrent_restores": 0}, "max_concurrent_restores"},
		{map[string]any{"verify_read_capacity_share": 101}, "verify_read_capacity_share"},
	} {
		got := map[string]string{}
		diags := Kind{}.Validate(t.Context(), storage.SourceSide, object(t, c.values), func(a string) storage.PathSetter { return setter{got, a} })
		if diags.HasError() || (c.want == "") != (len(got) == 0) || c.want != "" && (len(got) != 1 || got[c.want] == "") {
			t.Errorf("%v: %v, %v", c.values, got, diags)
		}
	}
}

func TestSchema(t *testing.T) {
	replaced := func(a schema.Attribute) bool {
		switch a := a.(type) {
		case schema.StringAttribute:
			return len(a.PlanModifiers) > 0
		case schema.Int64Attribute:
			return len(a.PlanModifiers) > 0
		case schema.ListAttribute:
			return len(a.PlanModifiers) > 0
		case schema.MapAttribute:
			return len(a.PlanModifiers) > 0
		}
		t.Errorf("an attribute is a %T", a)
		return false
	}
	for _, c := range []struct {
		attributes map[string]schema.Attribute
		replace    []string
	}{
		{Kind{}.SourceAttributes(), []string{"coordinator_namespace", "metadata_namespace", "method", "namespaces", "prefix", "region", "tables"}},
		{Kind{}.DestinationAttributes(), []string{"billing_mode", "kms_key_arn", "namespaces", "prefix", "region", "source_prefix", "source_region", "tables"}},
	} {
		var got []string
		for name, a := range c.attributes {
			if a.GetMarkdownDescription() == "" || !a.IsOptional() || a.IsRequired() || a.IsComputed() || a.IsSensitive() {
				t.Errorf("%s: %+v", name, a)
			}
			if replaced(a) {
				got = append(got, name)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, c.replace) {
			t.Errorf("replaced by %q, want %q", got, c.replace)
		}
	}
	example, err := os.ReadFile("example.tf")
	if err != nil || !strings.Contains(string(example), Kind{}.Name()+" = {") || !strings.Contains(Kind{}.Description(), "RestoreTableToPointInTime") {
		t.Errorf("example or description is missing: %v", err)
	}
	if r := (Kind{}).Restores(); !r.ByTime || !r.FromArtifacts {
		t.Errorf("%+v", r)
	}
}

func TestDecode(t *testing.T) {
	env := storage.Env{StorageName: "events", AWS: func(context.Context) (*awsapi.Session, error) { return nil, errors.New("no session") }}
	s := decode(object(t, map[string]any{
		"tables": []string{"a.b"}, "namespaces": []string{"n"}, "prefix": "p", "region": "r", "method": "on_demand", "source_prefix": "sp", "source_region": "sr", "billing_mode": "PAY_PER_REQUEST", "kms_key_arn": "k",
		"tags": map[string]string{"x": "y"}, "restore_settings": []string{}, "max_concurrent_restores": 3, "verify_read_capacity_share": 4, "coordinator_namespace": "c", "metadata_namespace": "m",
	}), env)
	if _, err := s.Open(t.Context()); err == nil {
		t.Error("the session's error was lost")
	}
	s.Open = nil
	want := Settings{Storage: "events", Tables: []string{"a.b"}, Namespaces: []string{"n"}, Prefix: "p", HasPrefix: true, Region: "r", Method: "on_demand", SourcePrefix: "sp", HasSourcePrefix: true, SourceRegion: "sr",
		BillingMode: "PAY_PER_REQUEST", KMSKeyARN: "k", Tags: map[string]string{"x": "y"}, PutBack: []string{}, MaxRestores: 3, ReadShare: 4, Layout: s.Layout}
	if !reflect.DeepEqual(s, want) || s.coordinator() != "c.state" || s.metadata() != "m.metadata" || s.namespaces() != "m.namespaces" {
		t.Errorf("%+v", s)
	}
	if s := decode(object(t, map[string]any{"source_prefix": "sp"}), env); s.Prefix != "sp" || s.HasPrefix || s.PutBack != nil || s.restores() != defaultRestores || s.method() != MethodPITR {
		t.Errorf("%+v", s)
	}
}
