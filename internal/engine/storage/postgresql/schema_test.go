package postgresql

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage"
)

// object is a driver object as typed; what is not given is null, "?" is unknown.
func object(values map[string]any) types.Object {
	kinds, attributes := map[string]attr.Type{}, map[string]attr.Value{}
	for name, a := range (Kind{}).DestinationAttributes() {
		kinds[name] = a.GetType()
		_, isNumber := a.(schema.Int64Attribute)
		switch v := values[name].(type) {
		case int:
			attributes[name] = types.Int64Value(int64(v))
		case string:
			attributes[name] = types.StringValue(v)
			if v == "?" {
				attributes[name] = types.StringUnknown()
			}
		default:
			attributes[name] = types.StringNull()
			if isNumber {
				attributes[name] = types.Int64Null()
			}
		}
	}
	return types.ObjectValueMust(kinds, attributes)
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
		{map[string]any{"host": "db.internal", "database": "orders"}, ""},
		{map[string]any{"host": "/var/run/postgresql", "database": "orders", "port": 5432, "jobs": 64, "ssl_mode": "verify-full"}, ""},
		{map[string]any{"host": "?", "database": "?", "ssl_mode": "?", "coordinator_namespace": "?"}, ""},
		{map[string]any{"host": ""}, "host"},
		{map[string]any{"host": "a,b"}, "host"},
		{map[string]any{"host": "jdbc:postgresql://db/orders"}, "host"},
		{map[string]any{"host": "h", "port": 0}, "port"},
		{map[string]any{"host": "h", "port": 65536}, "port"},
		{map[string]any{"host": "h", "jobs": 0}, "jobs"},
		{map[string]any{"host": "h", "jobs": 65}, "jobs"},
		{map[string]any{"host": "h", "ssl_mode": "required"}, "ssl_mode"},
		{map[string]any{"host": "h", "database": ""}, "database"},
		{map[string]any{"host": "h", "maintenance_database": strings.Repeat("x", 64)}, "maintenance_database"},
		{map[string]any{"host": "h", "metadata_namespace": ""}, "metadata_namespace"},
		{map[string]any{"host": "h", "coordinator_namespace": "a\x00"}, "coordinator_namespace"},
	} {
		got := map[string]string{}
		diags := Kind{}.Validate(t.Context(), storage.SourceSide, object(c.values), func(a string) storage.PathSetter { return setter{got, a} })
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
		}
		t.Errorf("an attribute is a %T", a)
		return false
	}
	for _, c := range []struct {
		attributes map[string]schema.Attribute
		replace    []string
	}{
		{Kind{}.SourceAttributes(), []string{"coordinator_namespace", "database", "host", "metadata_namespace", "port"}},
		{Kind{}.DestinationAttributes(), []string{"database", "host", "port"}},
	} {
		var got []string
		for name, a := range c.attributes {
			if a.GetMarkdownDescription() == "" || a.IsRequired() == a.IsOptional() || a.IsComputed() || a.IsSensitive() {
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
	if err != nil || !strings.Contains(string(example), Kind{}.Name()+" = {") || !strings.Contains(Kind{}.Description(), "pg_dump") {
		t.Errorf("example or description is missing: %v", err)
	}
}

func TestDecode(t *testing.T) {
	env := storage.Env{StorageName: "orders", CatalogIsDefault: true, Credentials: &storage.Credentials{Username: "u", Password: "p", CAPEM: "ca", CertPEM: "cert", KeyPEM: "key"}}
	s := decode(object(map[string]any{"host": "h", "port": 6, "database": "d", "ssl_mode": "require", "jobs": 7, "maintenance_database": "m", "coordinator_namespace": "c", "metadata_namespace": "s"}), env)
	if s.Host != "h" || s.Port != 6 || s.Database != "d" || s.SSLMode != "require" || s.jobs() != 7 || s.maintenance() != "m" || s.Layout.Coordinator() != "c" || s.Layout.Metadata() != "s" ||
		s.Storage != "orders" || !s.CatalogIsDefault || s.Username != "u" || s.Password != "p" || s.CAPEM != "ca" || s.CertPEM != "cert" || s.KeyPEM != "key" {
		t.Error("an argument was lost")
	}
	if s := decode(object(map[string]any{"host": "h", "database": "d"}), storage.Env{}); s.jobs() != defaultJobs || s.maintenance() != "postgres" || s.Layout.Coordinator() != "coordinator" {
		t.Error("the defaults are not those of the docs")
	}
}
