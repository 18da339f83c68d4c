package awsrdsinstance

import (
	"context"
	"fmt"
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

// object is a driver object as typed; what is not given is null, "?" is unknown.
func object(t *testing.T, side storage.Side, values map[string]any) types.Object {
	t.Helper()
	all := (Kind{}).SourceAttributes()
	if side == storage.DestinationSide {
		all = (Kind{}).DestinationAttributes()
	}
	kinds, attributes := map[string]attr.Type{}, map[string]attr.Value{}
	for name, a := range all {
		kinds[name] = a.GetType()
		v, given := values[name]
		switch a.(type) {
		case schema.Int64Attribute:
			attributes[name] = types.Int64Null()
		case schema.BoolAttribute:
			attributes[name] = types.BoolNull()
		case schema.ListAttribute:
			attributes[name] = types.ListNull(types.StringType)
		case schema.MapAttribute:
			attributes[name] = types.MapNull(types.StringType)
		default:
			attributes[name] = types.StringNull()
		}
		if !given {
			continue
		}
		switch v := v.(type) {
		case int:
			attributes[name] = types.Int64Value(int64(v))
		case bool:
			attributes[name] = types.BoolValue(v)
		case []string:
			attributes[name], _ = types.ListValueFrom(t.Context(), types.StringType, v)
		case map[string]string:
			attributes[name], _ = types.MapValueFrom(t.Context(), types.StringType, v)
		case string:
			attributes[name] = types.StringValue(v)
			if v == "?" {
				attributes[name] = types.StringUnknown()
			}
		}
		delete(values, name)
	}
	for name := range values {
		t.Fatalf("there is no argument %s", name)
	}
	return types.ObjectValueMust(kinds, attributes)
}

// open makes what the provider would, of arguments as typed.
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
	for _, c := range []struct {
		side   storage.Side
		values map[string]any
		want   string // the attribute with an error
	}{
		{storage.SourceSide, map[string]any{"identifier": "prod-orders"}, ""},
		{storage.SourceSide, map[string]any{"identifier": "?", "method": "?", "region": "?", "share_with_accounts": []string{"111122223333"}}, ""},
		{storage.SourceSide, map[string]any{"identifier": "prod--orders"}, "identifier"},
		{storage.SourceSide, map[string]any{"identifier": "1orders"}, "identifier"},
		{storage.SourceSide, map[string]any{"identifier": "orders-"}, "identifier"},
		{storage.SourceSide, map[string]any{"identifier": "arn:aws:rds:x"}, "identifier"},
		{storage.SourceSide, map[string]any{"identifier": "orders", "method": "dump"}, "method"},
		{storage.SourceSide, map[string]any{"identifier": "orders", "region": "Frankfurt"}, "region"},
		{storage.SourceSide, map[string]any{"identifier": "orders", "database": ""}, "database"},
		{storage.SourceSide, map[string]any{"identifier": "orders", "coordinator_namespace": ""}, "coordinator_namespace"},
		{storage.SourceSide, map[string]any{"identifier": "orders", "share_with_accounts": []string{"111122223333"}}, "share_with_accounts"},
		{storage.SourceSide, map[string]any{"identifier": "orders", "method": "snapshot", "share_with_accounts": []string{"111122223333"}}, ""},
		{storage.SourceSide, map[string]any{"identifier": "orders", "method": "snapshot", "share_with_accounts": []string{"1"}}, "share_with_accounts"},
		{storage.SourceSide, map[string]any{"identifier": "orders", "method": "snapshot", "share_with_accounts": slices.Repeat([]string{"111122223333"}, 21)}, "share_with_accounts"},
		{storage.DestinationSide, map[string]any{"identifier": "staging"}, ""},
		{storage.DestinationSide, map[string]any{"identifier": "staging", "kms_key_id": "alias/staging", "port": 5432, "multi_az": false, "availability_zone": "eu-central-1a"}, ""},
		{storage.DestinationSide, map[string]any{"identifier": "staging", "kms_key_id": "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"}, ""},
		{storage.DestinationSide, map[string]any{"identifier": "staging", "kms_key_id": "staging"}, "kms_key_id"},
		{storage.DestinationSide, map[string]any{"identifier": "staging", "port": 80}, "port"},
		{storage.DestinationSide, map[string]any{"identifier": "staging", "backup_retention_period": 36}, "backup_retention_period"},
		{storage.DestinationSide, map[string]any{"identifier": "staging", "multi_az": true, "availability_zone": "eu-central-1a"}, "availability_zone"},
		{storage.DestinationSide, map[string]any{"identifier": "staging", "set_master_password": true, "manage_master_user_password": true}, "set_master_password"},
		{storage.DestinationSide, map[string]any{"identifier": "staging", "tags": map[string]string{"scalardb:run-id": "x"}}, "tags"},
		{storage.DestinationSide, map[string]any{"identifier": "staging", "tags": map[string]string{"aws:x": "x"}}, "tags"},
		{storage.DestinationSide, map[string]any{"identifier": "staging", "tags": map[string]string{"env": ""}}, ""},
	} {
		found := map[string]string{}
		said := fmt.Sprint(c.values)
		Kind{}.Validate(t.Context(), c.side, object(t, c.side, c.values), func(a string) storage.PathSetter { return setter{found, a} })
		if (c.want == "" && len(found) > 0) || (c.want != "" && found[c.want] == "") || len(found) > 1 {
			t.Errorf("%s: want an error at %q, got %v", said, c.want, found)
		}
	}
}

// TestDecode: every argument of a restore reaches the driver.
func TestDecode(t *testing.T) {
	values := map[string]any{
		"identifier": "staging", "region": "eu-west-1", "source_identifier": "orders", "source_automated_backup_arn": "arn:x", "kms_key_id": "alias/x", "database": "shop", "port": 5433,
		"db_subnet_group_name": "s", "vpc_security_group_ids": []string{"sg-1"}, "iam_database_authentication_enabled": true, "deletion_protection": false, "backup_retention_period": 0,
		"tags": map[string]string{"a": "b"}, "copy_tags": false, "enabled_cloudwatch_logs_exports": []string{"postgresql"}, "performance_insights_enabled": true, "performance_insights_kms_key_id": "k",
		"performance_insights_retention_period": 7, "monitoring_interval": 0, "monitoring_role_arn": "r", "ca_certificate_identifier": "ca", "auto_minor_version_upgrade": false,
		"manage_master_user_password": true, "master_user_secret_kms_key_id": "k2", "set_master_password": true, "snapshot_copy": true, "instance_class": "c", "storage_type": "gp3", "iops": 1, "storage_throughput": 2,
		"allocated_storage": 3, "max_allocated_storage": 4, "multi_az": true, "availability_zone": "z", "parameter_group_name": "p", "option_group_name": "o", "publicly_accessible": false,
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
	zero(s.Shape, "Account", "Region", "Engine", "EngineVersion", "MasterUsername", "Database", "Encrypted", "KMSKey", "NetworkType", "License", "Protected", "CopyTags", "BackupWindow", "MaintenanceWindow", "Tags")
	if text := fmt.Sprintf("%v %+v %#v", s, s, s); strings.Contains(text, "secret of admin") {
		t.Error("the password shows")
	}
	if *s.Shape.Retention != 0 || *s.Shape.MonitoringInterval != 0 || s.Login.Username != "admin" {
		t.Errorf("%+v", s.Shape)
	}
	if text := fmt.Sprintf("%v %+v %#v", *s.Login, *s.Login, s.Login); strings.Contains(text, "secret of admin") {
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
		storage.DestinationSide: {Kind{}.DestinationAttributes(), []string{"identifier", "kms_key_id", "region", "source_automated_backup_arn", "source_identifier"}},
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
