package provider

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-go/tftypes"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage"
)

// timedKind is memoryKind for a storage that is restored by time. What is "restored" names its source, the first of `tables`, and the instant.
type timedKind struct{ memoryKind }

func (k timedKind) Restores() storage.Restores { return storage.Restores{ByTime: true} }

func (k timedKind) NewSource(_ context.Context, config types.Object, env storage.Env) (engine.Source, diag.Diagnostics) {
	return timedSource{memorySource{k.s, env.StorageName, pathOf(config)}}, nil
}

func (k timedKind) NewDestination(_ context.Context, config types.Object, _ storage.Env) (engine.Destination, diag.Diagnostics) {
	var tables []string
	diags := config.Attributes()["tables"].(types.List).ElementsAs(context.Background(), &tables, false)
	return timedDestination{memoryDestination{k.s, pathOf(config)}, tables[0]}, diags
}

func (k timedKind) Artifacts(types.Object, storage.Env) engine.ArtifactStore {
	return timedArtifacts{k.s}
}

type timedArtifacts struct{ s *system }

func (a timedArtifacts) Inspect(context.Context, engine.Artifact) error { return a.s.failInspect }
func (timedArtifacts) Delete(context.Context, engine.Artifact) error    { return nil }

type timedSource struct{ memorySource }

func (m timedSource) Preflight(_ context.Context, run engine.Run) (engine.Session, error) {
	return &timedSession{memorySession{memorySource: m.memorySource, run: run}}, nil
}

type timedSession struct{ memorySession }

func (m *timedSession) Facts() engine.Facts {
	return engine.Facts{SourceID: "id of " + m.path, Witness: "none", NeedsInstant: true, ByTime: true, Granule: time.Millisecond}
}

func (m *timedSession) Await(context.Context) (engine.Captured, error) {
	at := m.run.Window().RestorePoint
	if at.IsZero() {
		return engine.Captured{}, errors.New("await has no restore point")
	}
	return engine.Captured{Artifacts: []engine.Artifact{{Kind: "timed_pitr", ID: m.path}}, HasCoordinator: m.name == "orders"}, nil
}

func (m *timedSession) Discard(context.Context) error { return nil }

type timedDestination struct {
	memoryDestination
	source string
}

func (m timedDestination) Restore(_ context.Context, b engine.StorageBackup) (engine.Restored, error) {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	m.s.stores[m.path] = fmt.Sprintf("%s at %s", m.source, b.RestorePoint.Format(time.RFC3339Nano))
	return engine.Restored{Objects: []engine.RestoredObject{{Kind: "timed", ID: m.path, Created: true}}, Endpoint: m.path, Properties: map[string]string{"storage": "timed"}}, nil
}

func timedBackup() object {
	return object{"name": "t1", "storages": object{
		"orders": object{"timed": object{"path": "/db/orders"}},
		"events": object{"timed": object{"path": "/db/events"}},
		"dumped": object{"memory": object{"path": "/db/events"}},
	}, "pause": with(providerConfig()["pause"].(object), "min_duration", "50ms")}
}

func timedRestore(window any) object {
	return object{"name": "p1", "pause_window": window, "storages": object{
		"orders": object{"timed": object{"path": "/clone/orders", "tables": []any{"/db/orders"}}},
		"events": object{"timed": object{"path": "/clone/events", "tables": []any{"/db/events"}}},
	}}
}

// TestPITRRestoreLifecycle: one window, restored to its restore point; it outlives its backup; import and another name of the same window plan nothing new.
func TestPITRRestoreLifecycle(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c := s.core()
	b := c.manage("scalardb_consistent_backup").create(timedBackup())
	window := plainOf(t, b.get("pause_window")).(object)
	point, _ := window["restore_point"].(string)
	if point == "" || timeOf(t, point).Before(timeOf(t, window["safe_from"])) || timeOf(t, point).After(timeOf(t, window["safe_until"])) {
		t.Fatalf("the window has the restore point %q: %v", point, window)
	}

	config := timedRestore(window)
	r := c.manage("scalardb_pitr_restore")
	p := r.plan(config)
	wantAction(t, p, "create")
	if got := at(t, p.value, "restore_point"); goValue(t, got) != point {
		t.Errorf("planned restore point %v, want %s", goValue(t, got), point)
	}
	wantNoErrors(t, "create", r.apply(p))
	if got, want := s.stores["/clone/orders"], "/db/orders at "+point; got != want || s.stores["/clone/events"] == "" {
		t.Errorf("restored %q, want %q", got, want)
	}
	if r.get("status") != "available" || r.get("restore_point") != point || r.get("restored.orders.endpoint") != "/clone/orders" {
		t.Errorf("state: %v, %v", r.get("status"), r.get("restored"))
	}
	wantNoErrors(t, "refresh", r.refresh())
	wantAction(t, r.plan(config), "no-op")
	// The same window, named in other ways.
	wantAction(t, r.plan(with(with(config, "pause_window", nil), "backup_id", "t1")), "update")
	wantAction(t, r.plan(with(config, "restore_point", point)), "no-op")

	imported, d := c.importID("scalardb_pitr_restore", "p1")
	wantNoErrors(t, "import", d)
	wantAction(t, imported.plan(config), "no-op")
	if _, d := c.importID("scalardb_snapshot_restore", "p1"); !d.has("import it into a resource of that type") {
		t.Errorf("imported into the wrong type: %v", d.errors())
	}

	// A name that is taken is told at plan, which cannot know whether a tainted one is meant, and refused at apply.
	another := c.manage("scalardb_pitr_restore")
	p = another.plan(with(config, "storages.orders.timed.path", "/clone/elsewhere"))
	if !p.diags.has("A restore of that name exists") {
		t.Errorf("planned %q: %v", p.action, p.diags.warnings())
	}
	if d := another.apply(p); !d.has("there is a restore named p1") {
		t.Errorf("applied: %v", d.errors())
	}
	// Tainted, or with -replace: the plan is that of a new one, while the old one still has its names.
	if p := c.manage("scalardb_pitr_restore").plan(config); len(p.diags.errors()) > 0 {
		t.Errorf("a replacement was refused at plan: %v", p.diags.errors())
	}
	for what, p := range map[string]planned{"destroy": r.plan(nil), "replace": r.plan(with(config, "storages.orders.timed.path", "/clone/x"))} {
		if !p.diags.has("Restore is protected") {
			t.Errorf("%s was planned as %q", what, p.action)
		}
	}

	// It outlives its backup: the window is in the configuration, and the manifest is not asked for.
	wantNoErrors(t, "destroy the backup", b.apply(b.plan(nil)))
	wantNoErrors(t, "refresh", r.refresh())
	wantAction(t, r.plan(config), "no-op")

	open := with(config, "deletion_protection", false)
	wantNoErrors(t, "update", r.apply(r.plan(open)))
	// Another instant replaces.
	other := with(window, "backup_id", "t2")
	other["started_at"], other["restore_point"] = window["safe_from"], window["safe_from"]
	wantAction(t, r.plan(with(open, "pause_window", other)), "replace")
	wantAction(t, r.plan(with(open, "pause_window", unknown)), "replace")
	for path, v := range map[string]any{"storages.orders.timed.jobs": 2, "verify": object{"enabled": false}} {
		wantAction(t, r.plan(with(open, path, v)), "update")
	}
	wantNoErrors(t, "destroy", r.apply(r.plan(nil)))
	if len(s.stores) != 2 || len(s.catalog.Names()) > 0 {
		t.Errorf("left: %v, %v", s.stores, s.catalog.Names())
	}
}

// TestPITRRestoreRefusals: what cannot be restored is refused at plan, and again at apply.
func TestPITRRestoreRefusals(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c := s.core()
	b := c.manage("scalardb_consistent_backup").create(timedBackup())
	window := plainOf(t, b.get("pause_window")).(object)
	config := timedRestore(window)
	partial := timedRestore(window)
	delete(partial["storages"].(object), "events")
	for name, tt := range map[string]struct {
		config object
		want   string
	}{
		"outside of the safe interval": {with(config, "restore_point", "2020-01-01T00:00:00Z"), "outside the safe interval"},
		"a fraction of a second":       {with(config, "restore_point", "2020-01-01T00:00:00.5Z"), "whole seconds"},
		"a storage missing":            {partial, "storage events, which has no destination"},
		"one too many":                 {with(config, "storages.third", object{"timed": object{"path": "/x", "tables": []any{"a"}}}), "holds no storage third"},
		"incomplete":                   {with(config, "pause_window", with(with(window, "status", "incomplete"), "backup_id", "elsewhere")), "only one that is available"},
		"another window of that name":  {with(config, "pause_window", with(window, "started_at", window["ended_at"])), "with another pause window"},
		"no window":                    {with(config, "pause_window", object{"backup_id": "elsewhere"}), "it is no pause window"},
		"both":                         {with(config, "backup_id", "t1"), "Exactly one of"},
		"none":                         {with(config, "pause_window", nil), "Exactly one of"},
		"no such backup":               {with(with(config, "pause_window", nil), "backup_id", "nope"), "named by the id attribute"},
		"name taken in the storage":    {with(config, "storages.orders.timed.path", "/db/events"), "/db/events exists"},
	} {
		r := c.manage("scalardb_pitr_restore")
		d := r.validate(tt.config)
		if len(d.errors()) == 0 {
			d = r.plan(tt.config).diags
		}
		if tt.want == "Exactly one of" {
			tt.want = "Set exactly one of"
		}
		if len(d.errors()) == 0 || !d.has(tt.want) {
			t.Errorf("%s: %v", name, d.errors())
		}
	}
	s.failInspect = fmt.Errorf("the restore point has left the retention: %w", engine.ErrNotFound)
	if p := c.manage("scalardb_pitr_restore").plan(config); !p.diags.has("is expired") {
		t.Errorf("a window that left the retention was planned as %q: %v", p.action, p.diags.errors())
	}
	s.failInspect = nil

	// A storage that is restored by time has no artifacts, and the other way round.
	snapshot := object{"name": "s1", "backup_id": "t1", "storages": object{"dumped": object{"memory": object{"path": "/clone/dumped"}}}}
	wantAction(t, c.manage("scalardb_snapshot_restore").plan(snapshot), "create")
	for _, typ := range []string{"scalardb_snapshot_restore", "scalardb_pitr_restore"} {
		driver := map[string]string{"scalardb_snapshot_restore": "timed", "scalardb_pitr_restore": "memory"}[typ]
		for _, attribute := range c.schema.ResourceSchemas[typ].Block.Attributes {
			if attribute.Name != "storages" {
				continue
			}
			for _, d := range attribute.NestedType.Attributes {
				if d.Name == driver {
					t.Errorf("%s offers the driver %s", typ, driver)
				}
			}
		}
	}

	// A window of which the catalog knows nothing: the storages are the user's word.
	lone := with(config, "pause_window", with(window, "backup_id", "elsewhere"))
	wantAction(t, c.manage("scalardb_pitr_restore").plan(lone), "create")
	// What is not known yet plans.
	for _, path := range []string{"pause_window", "storages", "storages.orders.timed.path", "restore_point"} {
		wantAction(t, c.manage("scalardb_pitr_restore").plan(with(config, path, unknown)), "create")
	}
	if len(s.stores) != 2 {
		t.Errorf("something was made: %v", s.stores)
	}
}

// plainOf turns a composite of a state into what a configuration is written in.
func plainOf(t *testing.T, v any) any {
	t.Helper()
	typed, ok := v.(tftypes.Value)
	if !ok {
		return v
	}
	var members map[string]tftypes.Value
	if err := typed.As(&members); err == nil {
		out := object{}
		for name, m := range members {
			out[name] = plainOf(t, goValue(t, m))
		}
		return out
	}
	var elements []tftypes.Value
	if err := typed.As(&elements); err != nil {
		t.Fatal(err)
	}
	out := []any{}
	for _, e := range elements {
		out = append(out, plainOf(t, goValue(t, e)))
	}
	return out
}

// timeOf reads an instant of a state. (As text they do not sort: fractions have as many digits as they need.)
func timeOf(t *testing.T, v any) time.Time {
	t.Helper()
	text, _ := v.(string)
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}
