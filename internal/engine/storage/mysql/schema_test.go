package mysql

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage"
)

// complaints collects what Validate says.
type complaints struct {
	at  string
	all *[]string
}

func (c complaints) Error(string, string)   { *c.all = append(*c.all, c.at) }
func (c complaints) Warning(string, string) { *c.all = append(*c.all, c.at+" (warning)") }

func object(values map[string]attr.Value) types.Object {
	kinds := map[string]attr.Type{}
	all := map[string]attr.Value{}
	for name, a := range (Kind{}).SourceAttributes() {
		kinds[name] = a.GetType()
		switch a.(type) {
		case schema.Int64Attribute:
			all[name] = types.Int64Null()
		default:
			all[name] = types.StringNull()
		}
		if v, ok := values[name]; ok {
			all[name] = v
		}
	}
	return types.ObjectValueMust(kinds, all)
}

func TestValidate(t *testing.T) {
	s := func(v string) attr.Value { return types.StringValue(v) }
	for _, c := range []struct {
		name   string
		values map[string]attr.Value
		want   string
	}{
		{"plain", map[string]attr.Value{"host": s("db.example")}, ""},
		{"all", map[string]attr.Value{"host": s("::1"), "port": types.Int64Value(3307), "tls": s("verify_identity"), "jobs": types.Int64Value(4), "coordinator_namespace": s("c")}, ""},
		{"unknown", map[string]attr.Value{"host": types.StringUnknown(), "port": types.Int64Unknown(), "tls": types.StringUnknown(), "jobs": types.Int64Unknown()}, ""},
		{"empty", map[string]attr.Value{"host": s("")}, "host"},
		{"URL", map[string]attr.Value{"host": s("jdbc:mysql://db:3306/")}, "host"},
		{"socket", map[string]attr.Value{"host": s("/run/mysqld.sock")}, "host"},
		{"port in host", map[string]attr.Value{"host": s("db:3306")}, "host"},
		{"an option", map[string]attr.Value{"host": s("--execute=x")}, "host"},
		{"line break", map[string]attr.Value{"host": s("db\n-- Current Database: `x`")}, "host"},
		{"others", map[string]attr.Value{"host": s("db"), "port": types.Int64Value(0), "tls": s("VERIFY_CA"), "jobs": types.Int64Value(0), "metadata_namespace": s("")}, "port tls jobs metadata_namespace"},
	} {
		var got []string
		diags := Kind{}.Validate(t.Context(), storage.SourceSide, object(c.values), func(a string) storage.PathSetter { return complaints{a, &got} })
		if strings.Join(got, " ") != c.want || diags.HasError() {
			t.Errorf("%s: %q, %v; want %q", c.name, got, diags, c.want)
		}
	}
}

// What says what is captured replaces; the rest does not. Nothing has a default.
func TestSchema(t *testing.T) {
	for _, attributes := range []map[string]schema.Attribute{Kind{}.SourceAttributes(), Kind{}.DestinationAttributes()} {
		for name, a := range attributes {
			replaces := false
			switch a := a.(type) {
			case schema.StringAttribute:
				replaces = len(a.PlanModifiers) > 0
			case schema.Int64Attribute:
				replaces = len(a.PlanModifiers) > 0
			}
			if want := name == "host" || name == "port"; replaces != want {
				t.Errorf("%s replaces: %v", name, replaces)
			}
			if a.IsComputed() || a.GetMarkdownDescription() == "" || a.IsSensitive() {
				t.Errorf("%s: %+v", name, a)
			}
		}
	}
	if Kind.Name(Kind{}) != "mysql" || len(description) < 500 {
		t.Error("the driver has no name or no description")
	}
}

func TestCredentials(t *testing.T) {
	home := t.TempDir()
	if err := os.WriteFile(filepath.Join(home, ".my.cnf"), []byte("[client]\nuser=u\npassword='p w'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := storage.Env{StorageName: "s", Getenv: func(k string) string { return map[string]string{"HOME": home}[k] }}
	o, diags := options(env)
	if o.Login != (Login{Username: "u", Password: "p w"}) || len(diags) != 0 {
		t.Errorf("from ~/.my.cnf: %q %v", o.Login.Username, diags)
	}
	env.Credentials = &storage.Credentials{Username: "x", Password: "y", CAPEM: "ca"}
	if o, _ = options(env); o.Login != (Login{Username: "x", Password: "y", CAPEM: "ca"}) {
		t.Errorf("the provider's entry comes first: %q", o.Login.Username)
	}
	if mode := (Config{}).tlsMode(o.Login); mode != tlsVerify {
		t.Errorf("with a CA the mode is %s", mode)
	}
	// A source that cannot work says so at preflight, not before.
	if _, diags := (Kind{}).NewSource(t.Context(), object(map[string]attr.Value{"host": types.StringValue("db")}), env); diags.HasError() {
		t.Error(diags)
	}
}
