package awsrdscluster

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
)

// value is an argument as typed; nil is null, "?" is unknown.
func value(t *testing.T, a schema.Attribute, v any) attr.Value {
	t.Helper()
	switch a := a.(type) {
	case schema.Int64Attribute:
		if n, ok := v.(int); ok {
			return types.Int64Value(int64(n))
		}
		return types.Int64Null()
	case schema.BoolAttribute:
		if b, ok := v.(bool); ok {
			return types.BoolValue(b)
		}
		return types.BoolNull()
	case schema.ListAttribute:
		if l, ok := v.([]string); ok {
			list, _ := types.ListValueFrom(t.Context(), types.StringType, l)
			return list
		}
		return types.ListNull(types.StringType)
	case schema.MapAttribute:
		if m, ok := v.(map[string]string); ok {
			all, _ := types.MapValueFrom(t.Context(), types.StringType, m)
			return all
		}
		return types.MapNull(types.StringType)
	case schema.MapNestedAttribute:
		element := a.NestedObject.Type().(types.ObjectType) //nolint:forcetypeassert // by the schema
		m, ok := v.(map[string]map[string]any)
		if !ok {
			return types.MapNull(element)
		}
		all := map[string]attr.Value{}
		for key, fields := range m {
			nested := map[string]schema.Attribute{}
			maps.Copy(nested, a.NestedObject.Attributes)
			all[key] = build(t, nested, fields)
		}
		return types.MapValueMust(element, all)
	}
	if s, ok := v.(string); ok {
		if s == "?" {
			return types.StringUnknown()
		}
		return types.StringValue(s)
	}
	return types.StringNull()
}

func build(t *testing.T, all map[string]schema.Attribute, values map[string]any) types.Object {
	t.Helper()
	kinds, attributes := map[string]attr.Type{}, map[string]attr.Value{}
	for name, a := range all {
		kinds[name], attributes[name] = a.GetType(), value(t, a, values[name])
	}
	for name := range values {
		if _, ok := all[name]; !ok {
			t.Fatalf("there is no argument %s", name)
		}
	}
	return types.ObjectValueMust(kinds, attributes)
}

// object is a driver object as typed.
func object(t *testing.T, side storage.Side, values map[string]any) types.Object {
	t.Helper()
	if side == storage.SourceSide {
		return build(t, Kind{}.SourceAttributes(), values)
	}
	return build(t, Kind{}.DestinationAttributes(), values)
}

func openSource(t *testing.T, env storage.Env, values map[string]any) engine.Source {
	t.Helper()
	s, diags := Kind{}.NewSource(t.Context(), object(t, storage.SourceSide, values), env)
	if diags.HasError() {
		t.Fatal(diags)
	}
	return s
}

func openDestination(t *testing.T, env storage.Env, values map[string]any) engine.Destination {
	t.Helper()
	d, diags := Kind{}.NewDestination(t.Context(), object(t, storage.DestinationSide, values), env)
	if diags.HasError() {
		t.Fatal(diags)
	}
	return d
}

func openReader(ctx context.Context, t *testing.T, env storage.Env, values map[string]any) (verify.Storage, error) {
	t.Helper()
	r, diags := Kind{}.NewReader(ctx, storage.DestinationSide, object(t, storage.DestinationSide, values), env)
	if diags.HasError() {
		return nil, fmt.Errorf("%v", diags)
	}
	return r, nil
}

type setter struct {
	to        map[string]string
	attribute string
}

func (s setter) Error(summary, detail string) { s.to[s.attribute] = summary + ": " + detail }
func (s setter) Warning(_, _ string)          {}

func TestValidate(t *testing.T) {
	many := map[string]map[string]any{}
	for i := range 17 {
		many[fmt.Sprint(i)] = nil
	}
	for _, c := range []struct {
		side   storage.Side
		values map[string]any
		want   string // the attribute with an error
	}{
		{storage.SourceSide, map[string]any{"identifier": "prod-orders", "method": "snapshot", "share_with_accounts": []string{"111122223333"}}, ""},
		{storage.SourceSide, map[string]any{"identifier": "prod--orders"}, "identifier"},
		{storage.SourceSide, map[string]any{"identifier": "orders", "method": "clone"}, "method"},
		{storage.DestinationSide, map[string]any{"identifier": "staging", "instances": map[string]map[string]any{"writer": {"instance_class": "db.r6g.large"}, "reader": {"promotion_tier": 2}}}, ""},
		{storage.DestinationSide, map[string]any{"identifier": "?", "instances": map[string]map[string]any{"writer": nil}}, ""},
		{storage.DestinationSide, map[string]any{"identifier": "staging", "instances": map[string]map[string]any{}}, "instances"},
		{storage.DestinationSide, map[string]any{"identifier": "staging", "instances": many}, "instances"},
		{storage.DestinationSide, map[string]any{"identifier": "staging", "instances": map[string]map[string]any{"a b": nil}}, "instances"},
		{storage.DestinationSide, map[string]any{"identifier": strings.Repeat("x", 60), "instances": map[string]map[string]any{"reader": nil}}, "instances"},
		{storage.DestinationSide, map[string]any{"identifier": "staging", "instances": map[string]map[string]any{"a": {"promotion_tier": 16}}}, "instances"},
		{storage.DestinationSide, map[string]any{"identifier": "staging", "kms_key_id": "x"}, "kms_key_id"},
	} {
		found := map[string]string{}
		Kind{}.Validate(t.Context(), c.side, object(t, c.side, c.values), func(a string) storage.PathSetter { return setter{found, a} })
		if (c.want == "" && len(found) > 0) || (c.want != "" && found[c.want] == "") || len(found) > 1 {
			t.Errorf("%v: want an error at %q, got %v", c.values, c.want, found)
		}
	}
}

// TestDecode: every argument of a restore reaches the driver.
func TestDecode(t *testing.T) {
	values := map[string]any{
		"identifier": "staging", "region": "eu-west-1", "source_identifier": "orders", "kms_key_id": "alias/x", "database": "shop", "port": 5433,
		"db_subnet_group_name": "s", "vpc_security_group_ids": []string{"sg-1"}, "iam_database_authentication_enabled": true, "deletion_protection": false, "backup_retention_period": 3,
		"tags": map[string]string{"a": "b"}, "copy_tags": false, "enabled_cloudwatch_logs_exports": []string{"postgresql"}, "performance_insights_enabled": true, "performance_insights_kms_key_id": "k",
		"performance_insights_retention_period": 7, "monitoring_interval": 0, "monitoring_role_arn": "r", "ca_certificate_identifier": "ca", "auto_minor_version_upgrade": false,
		"manage_master_user_password": true, "master_user_secret_kms_key_id": "k2", "set_master_password": true, "snapshot_copy": true, "instance_class": "c", "storage_type": "aurora-iopt1",
		"db_cluster_parameter_group_name": "p", "db_parameter_group_name": "q", "publicly_accessible": false,
		"instances": map[string]map[string]any{"a": {"instance_class": "c", "availability_zone": "z", "promotion_tier": 0, "db_parameter_group_name": "q", "publicly_accessible": true}},
	}
	for name := range (Kind{}).DestinationAttributes() {
		if _, ok := values[name]; !ok && !slices.Contains([]string{"credentials", "coordinator_namespace", "metadata_namespace"}, name) {
			t.Errorf("the test does not know the argument %s", name)
		}
	}
	s := destination(object(t, storage.DestinationSide, values), storage.Env{StorageName: "orders", Credentials: &storage.Credentials{Username: "admin", Password: "secret of admin"}})
	zero := func(v any, except ...string) {
		r := reflect.ValueOf(v)
		for i := range r.NumField() {
			if name := r.Type().Field(i).Name; r.Field(i).IsZero() && !slices.Contains(except, name) {
				t.Errorf("%T.%s was not set", v, name)
			}
		}
	}
	zero(s, "Clock")
	// What no argument sets, only a source.
	zero(s.Shape, "Account", "Region", "Engine", "EngineVersion", "MasterUsername", "Database", "Encrypted", "KMSKey", "NetworkType", "CopyTags", "Backtrack", "MinCapacity", "MaxCapacity", "AutoPause", "BackupWindow", "MaintenanceWindow", "Tags")
	zero(s.Shape.Writer, "Zone", "Tier")
	zero(s.Instances["a"], "AutoMinor", "CA", "Insights", "InsightsKey", "InsightsRetention", "MonitoringInterval", "MonitoringRole")
	if text := fmt.Sprintf("%v %+v %#v", s, s, s); strings.Contains(text, "secret of admin") {
		t.Error("the password shows")
	}
}

// TestReplacing: what says what is captured or restored replaces, the rest does not.
func TestReplacing(t *testing.T) {
	for side, c := range map[storage.Side]struct {
		all  map[string]schema.Attribute
		want []string
	}{
		storage.SourceSide:      {Kind{}.SourceAttributes(), []string{"identifier", "method", "region"}},
		storage.DestinationSide: {Kind{}.DestinationAttributes(), []string{"identifier", "kms_key_id", "region", "source_identifier"}},
	} {
		var replacing []string
		for name, a := range c.all {
			if s, ok := a.(schema.StringAttribute); ok && len(s.PlanModifiers) > 0 {
				replacing = append(replacing, name)
			}
			if a.IsRequired() == a.IsOptional() || a.IsComputed() || a.GetMarkdownDescription() == "" {
				t.Errorf("%s is neither required nor optional, computed, or not described", name)
			}
		}
		slices.Sort(replacing)
		if !slices.Equal(replacing, c.want) {
			t.Errorf("side %d: %v replace, want %v", side, replacing, c.want)
		}
	}
}
