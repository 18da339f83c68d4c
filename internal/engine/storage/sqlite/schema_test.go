package sqlite_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/sqlite"
)

// object is a driver object as typed; nil is null, "?" is unknown.
func object(t *testing.T, values map[string]any) types.Object {
	t.Helper()
	kinds, attributes := map[string]attr.Type{}, map[string]attr.Value{}
	for name := range (sqlite.Kind{}).SourceAttributes() {
		kinds[name] = types.StringType
		switch v := values[name]; v {
		case nil:
			attributes[name] = types.StringNull()
		case "?":
			attributes[name] = types.StringUnknown()
		default:
			attributes[name] = types.StringValue(v.(string))
		}
	}
	return types.ObjectValueMust(kinds, attributes)
}

// findings collects diagnostics by attribute.
type findings map[string][]string

type setter struct {
	to        findings
	attribute string
}

func (s setter) Error(summary, _ string) { s.to[s.attribute] = append(s.to[s.attribute], summary) }
func (s setter) Warning(_, _ string)     {}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		values map[string]any
		want   string // the attribute with an error
	}{
		{map[string]any{"path": "/var/lib/a.db"}, ""},
		{map[string]any{"path": "a.db", "coordinator_namespace": "c", "metadata_namespace": "m"}, ""},
		{map[string]any{"path": "?", "coordinator_namespace": "?"}, ""},
		{map[string]any{"path": ""}, "path"},
		{map[string]any{"path": "a/"}, "path"},
		{map[string]any{"path": "a\x00b"}, "path"},
		{map[string]any{"path": "jdbc:sqlite:/a.db?busy_timeout=1"}, "path"},
		{map[string]any{"path": "file:a.db"}, "path"},
		{map[string]any{"path": ":memory:"}, "path"},
		{map[string]any{"path": "a.db", "coordinator_namespace": ""}, "coordinator_namespace"},
		{map[string]any{"path": "a.db", "metadata_namespace": "a$b"}, "metadata_namespace"},
	} {
		for _, side := range []storage.Side{storage.SourceSide, storage.DestinationSide} {
			got := findings{}
			diags := sqlite.Kind{}.Validate(t.Context(), side, object(t, c.values), func(a string) storage.PathSetter { return setter{got, a} })
			if diags.HasError() || len(got) > 1 || (c.want == "") != (len(got) == 0) || c.want != "" && len(got[c.want]) != 1 {
				t.Errorf("%v: %v, %v", c.values, got, diags)
			}
		}
	}
}

func TestSchema(t *testing.T) {
	k := sqlite.Kind{}
	for _, attributes := range []map[string]schema.Attribute{k.SourceAttributes(), k.DestinationAttributes()} {
		for name, a := range attributes {
			if a.GetMarkdownDescription() == "" || a.IsRequired() == a.IsOptional() || a.IsComputed() || a.IsSensitive() {
				t.Errorf("%s: %+v", name, a)
			}
			// What is captured is the file, whatever its namespaces are called.
			if modifiers := len(a.(schema.StringAttribute).PlanModifiers); modifiers > 0 != (name == "path") {
				t.Errorf("%s has %d plan modifiers", name, modifiers)
			}
		}
	}
	if !strings.Contains(k.Description(), "WAL") {
		t.Error("the description is missing")
	}
	example, err := os.ReadFile("example.tf")
	if err != nil || !strings.Contains(string(example), k.Name()+" = {") {
		t.Errorf("example.tf: %v", err)
	}
}

// The arguments reach the database: other namespaces, and the credentials' absence.
func TestKindOpens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db := openAs(t, path, "")
	if _, err := db.Exec(`CREATE TABLE "meta$metadata" (full_table_name TEXT, column_name TEXT, data_type TEXT, key_type TEXT, ordinal_position INT);
		INSERT INTO "meta$metadata" VALUES ('shop.items', 'id', 'INT', 'PARTITION', 1);
		CREATE TABLE "shop$items" (id INT PRIMARY KEY);
		CREATE TABLE "coord$state" (tx_id TEXT PRIMARY KEY, tx_state INT, tx_created_at BIGINT)`); err != nil {
		t.Fatal(err)
	}
	_ = db.Close()
	config := object(t, map[string]any{"path": path, "metadata_namespace": "meta", "coordinator_namespace": "coord"})
	env := storage.Env{StorageName: "orders", CatalogIsDefault: true}
	r, diags := sqlite.Kind{}.NewReader(t.Context(), storage.SourceSide, config, env)
	if diags.HasError() {
		t.Fatal(diags)
	}
	defer r.Close() //nolint:errcheck // a test
	tables, _, err := r.Tables(t.Context())
	has, err2 := r.HasCoordinator(t.Context())
	if len(tables) != 1 || tables[0].Name != "items" || !has || err != nil || err2 != nil {
		t.Errorf("%v, %v, %v, %v", tables, has, err, err2)
	}
	source, diags := sqlite.Kind{}.NewSource(t.Context(), config, env)
	if diags.HasError() {
		t.Fatal(diags)
	}
	run, _ := newRun()
	if _, err := source.Preflight(t.Context(), run); err == nil || !strings.Contains(err.Error(), "`catalog`") {
		t.Errorf("the default catalog was not refused: %v", err)
	}
	clock, err := source.OpenClock(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if b, err := clock.MeasureClock(t.Context()); err != nil || b.Offset != 0 || b.Uncertainty <= 0 {
		t.Errorf("clock bound %v, %v", b, err)
	}
	if err := clock.Close(); err != nil {
		t.Error(err)
	}
	if _, diags := (sqlite.Kind{}).NewReader(t.Context(), storage.DestinationSide, object(t, map[string]any{"path": path + ".none"}), env); !diags.HasError() {
		t.Error("a file that is not there was opened")
	}
}
