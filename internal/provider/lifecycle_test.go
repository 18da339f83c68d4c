package provider

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/terraform-plugin-go/tftypes"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

func wantNoErrors(t *testing.T, what string, d diagnostics) {
	t.Helper()
	if e := d.errors(); len(e) > 0 {
		t.Fatalf("%s: %s", what, strings.Join(e, "\n"))
	}
}

func wantAction(t *testing.T, p planned, action string) {
	t.Helper()
	if p.action != action {
		t.Fatalf("planned %q, want %q; errors: %v", p.action, action, p.diags.errors())
	}
}

func TestBackupLifecycle(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c := s.core()
	b := c.manage("scalardb_consistent_backup").create(backupConfig())
	if b.get("status") != "available" || b.get("id") != "b1" || b.get("server_clock_bound") != "1s" {
		t.Errorf("status %v, id %v, server_clock_bound %v", b.get("status"), b.get("id"), b.get("server_clock_bound"))
	}
	if b.get("pause_window.targets.main.0.address") != "127.0.0.1:60051" || b.get("pause_window.targets.main.0.unpaused_at") == nil {
		t.Errorf("target %v, unpaused %v", b.get("pause_window.targets.main.0.address"), b.get("pause_window.targets.main.0.unpaused_at"))
	}
	if b.get("artifacts.orders.objects.0.size") != len("orders") || b.get("artifacts.orders.driver") != "memory" {
		t.Errorf("artifacts: %v", b.get("artifacts"))
	}
	if s.paused {
		t.Error("the target is still paused")
	}

	created := b.state
	wantNoErrors(t, "refresh", b.refresh())
	if !b.state.Equal(created) {
		t.Error("refresh changed the state of a backup that nothing happened to")
	}
	wantAction(t, b.plan(backupConfig()), "no-op")

	// What says nothing of what is captured updates in place, without a pause.
	changed := backupConfig()
	for path, v := range map[string]any{
		"storages.orders.memory.jobs": 4, "storages.events.memory.credentials": nil, "deletion_policy": "retain", "timeouts": object{"create": "1h"},
		"pause":              object{"targets": object{"other": object{"addresses": []any{"127.0.0.2:60051"}, "tls": object{"cert_pem": "c", "key_pem": "k"}}}},
		"server_clock_bound": "3s",
	} {
		changed = with(changed, path, v)
	}
	wantNoErrors(t, "validate", b.validate(changed))
	p := b.plan(changed)
	wantAction(t, p, "update")
	wantNoErrors(t, "update", b.apply(p))
	if s.pauses != 1 {
		t.Errorf("%d pauses, want 1", s.pauses)
	}
	if b.get("status") != "available" || b.get("storages.orders.memory.jobs") != 4 || b.get("pause.targets.other.tls.key_pem") != nil {
		t.Errorf("after the update: status %v, jobs %v, key_pem %v", b.get("status"), b.get("storages.orders.memory.jobs"), b.get("pause.targets.other.tls.key_pem"))
	}

	// Retained: the artifacts stay.
	before := s.catalog.Names()
	wantNoErrors(t, "destroy", b.apply(b.plan(nil)))
	if !slices.Equal(before, s.catalog.Names()) {
		t.Errorf("a retained backup was touched: %v, had %v", s.catalog.Names(), before)
	}

	// Imported again, the plan is empty, and destroy deletes everything.
	b, d := c.importID("scalardb_consistent_backup", "b1")
	wantNoErrors(t, "import", d)
	wantAction(t, b.plan(backupConfig()), "no-op")
	wantNoErrors(t, "destroy", b.apply(b.plan(nil)))
	if left := s.catalog.Names(); len(left) > 0 {
		t.Errorf("left in the catalog: %v", left)
	}
	if s.pauses != 1 {
		t.Errorf("%d pauses, want 1", s.pauses)
	}
}

// TestBackupReplacedByWhatIsCaptured has a case per leaf, and one per leaf that must not replace.
func TestBackupReplacedByWhatIsCaptured(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	b := s.core().manage("scalardb_consistent_backup").create(backupConfig())
	for path, v := range map[string]any{
		"name": "b2", "storages.orders.memory.path": "/db/events", "storages.orders.memory.size": 2, "storages.orders.memory.tables": []any{"a"},
		"storages.orders": object{"other": object{"path": "/db/orders"}}, "storages.third": object{"memory": object{"path": "/db/events"}}, "storages.events.memory.path": unknown,
	} {
		wantAction(t, b.plan(with(backupConfig(), path, v)), "replace")
	}
	without := backupConfig()
	delete(without["storages"].(object), "events")
	wantAction(t, b.plan(without), "replace")
	for path, v := range map[string]any{"storages.orders.memory.jobs": 3, "pause": providerConfig()["pause"], "deletion_policy": "retain", "timeouts": object{"delete": "1m"}, "server_clock_bound": "2s"} {
		wantAction(t, b.plan(with(backupConfig(), path, v)), "update")
	}
	// Null in the state (of an import) forces nothing.
	bare := with(backupConfig(), "storages.orders.memory", object{"path": "/db/orders"})
	b = s.core().manage("scalardb_consistent_backup").create(with(bare, "name", "bare"))
	wantAction(t, b.plan(with(bare, "name", "bare")), "no-op")
	full := with(backupConfig(), "name", "bare")
	wantAction(t, b.plan(full), "update")
}

func TestBackupReadNeverDropsAndNeverPauses(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	b := s.core().manage("scalardb_consistent_backup").create(backupConfig())
	ctx := context.Background()
	orders, events := b.get("artifacts.orders.objects.0.id").(string), b.get("artifacts.events.objects.0.id").(string)

	// One artifact gone: incomplete, with a warning, and nothing planned.
	_ = s.catalog.Delete(ctx, orders)
	d := b.refresh()
	if b.get("status") != "incomplete" || !d.has(orders) {
		t.Errorf("status %v, %v", b.get("status"), d.warnings())
	}
	wantAction(t, b.plan(backupConfig()), "no-op")

	// It cannot be restored: refused at plan.
	r := s.core().manage("scalardb_snapshot_restore")
	if p := r.plan(restoreConfig()); !strings.Contains(strings.Join(p.diags.errors(), ""), "incomplete") {
		t.Errorf("restore of an incomplete backup planned: %v", p.diags.errors())
	}

	// Back again: available.
	_ = s.catalog.Create(ctx, orders, []byte("orders"))
	wantNoErrors(t, "refresh", b.refresh())
	if b.get("status") != "available" {
		t.Errorf("status %v", b.get("status"))
	}

	// An artifact that cannot be asked for changes nothing.
	s.failInspect = errInjected
	if d := b.refresh(); b.get("status") != "available" || !d.has("injected") {
		t.Errorf("status %v, %v", b.get("status"), d.warnings())
	}
	s.failInspect = nil

	// The manifest lost, everything else there: written again.
	_ = s.catalog.Delete(ctx, engine.ManifestName("b1"))
	wantNoErrors(t, "refresh", b.refresh())
	if _, err := engine.ReadManifest(ctx, s.catalog, "b1"); err != nil || b.get("status") != "available" {
		t.Errorf("the manifest was not recorded again: %v, status %v", err, b.get("status"))
	}

	// All gone: expired, still there, nothing planned.
	for _, name := range []string{orders, events, engine.ManifestName("b1")} {
		_ = s.catalog.Delete(ctx, name)
	}
	wantNoErrors(t, "refresh", b.refresh())
	if b.state.IsNull() || b.get("status") != "expired" {
		t.Errorf("status %v", b.get("status"))
	}
	wantAction(t, b.plan(backupConfig()), "no-op")
	wantNoErrors(t, "destroy", b.apply(b.plan(nil)))
	if s.pauses != 1 {
		t.Errorf("%d pauses, want 1", s.pauses)
	}
}

// TestBackupFailedCreate returns what it could not discard, and the next apply cleans up, also with deletion_policy = "retain".
func TestBackupFailedCreate(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.failAwait, s.failDiscard = errInjected, errInjected
	config := with(backupConfig(), "deletion_policy", "retain")
	b := s.core().manage("scalardb_consistent_backup")
	d := b.apply(b.plan(config))
	if !b.tainted || b.get("status") != "incomplete" || !d.has("Capture did not become restorable") || !d.has("No target is paused any more") {
		t.Fatalf("tainted %v, status %v: %v", b.tainted, b.get("status"), d.errors())
	}
	if !strings.Contains(strings.Join(d.errors(), "\n"), `ElementKeyString("orders")`) {
		t.Errorf("no error points at the storage: %v", d.errors())
	}
	s.failAwait, s.failDiscard = nil, nil
	wantNoErrors(t, "refresh", b.refresh())
	p := b.plan(config)
	wantAction(t, p, "replace")
	wantNoErrors(t, "apply", b.apply(p))
	if b.get("status") != "available" {
		t.Errorf("status %v", b.get("status"))
	}
	if left := s.catalog.Names(); len(left) != 3 { // manifest and two dumps
		t.Errorf("in the catalog: %v", left)
	}
}

// TestBackupFailedCreateDestroyed: leftovers are no backup that could be retained.
func TestBackupFailedCreateDestroyed(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.failAwait, s.failDiscard = errInjected, errInjected
	b := s.core().manage("scalardb_consistent_backup")
	b.apply(b.plan(with(backupConfig(), "deletion_policy", "retain")))
	if len(s.catalog.Names()) == 0 {
		t.Fatal("the failed run left nothing")
	}
	wantNoErrors(t, "destroy", b.apply(b.plan(nil)))
	if left := s.catalog.Names(); len(left) > 0 {
		t.Errorf("left in the catalog: %v", left)
	}
}

// TestBackupNothingMade leaves no state behind: the next plan creates, and the name stays free.
func TestBackupNothingMade(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	delete(s.stores, "/db/events")
	b := s.core().manage("scalardb_consistent_backup")
	d := b.apply(b.plan(backupConfig()))
	if !b.state.IsNull() || !d.has("Nothing was paused") || s.pauses != 0 {
		t.Errorf("state %v, pauses %d: %v", b.state, s.pauses, d.errors())
	}
}

func TestBackupUnpauseFailureComesFirst(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.failUnpause = errInjected
	c := s.core()
	b := c.manage("scalardb_consistent_backup")
	// Lift goes on for a minute of the clock; time passes a thousand times as fast here.
	b.core.server = nil
	deps := s.deps()
	deps.Clock = fastClock{deps.Clock}
	c, _ = newCore(t, deps, providerConfig())
	b = c.manage("scalardb_consistent_backup")
	d := b.apply(b.plan(backupConfig()))
	if len(d.errors()) == 0 || !strings.HasPrefix(d.errors()[0], "Targets may still be paused") {
		t.Fatalf("first error: %v", d.errors())
	}
	if !d.has("terraform-provider-scalardb unpause --catalog /catalog --run ") {
		t.Errorf("no break-glass line: %v", d.errors())
	}
	// The next plan reports it.
	_, configured := newCore(t, s.deps(), providerConfig())
	if w := diagnostics(configured); !w.has("A run may have left targets paused") || !w.has("unpause --catalog /catalog --run") {
		t.Errorf("the next plan does not report it: %v", w.warnings())
	}
}

// fastClock is a clock whose sleeps and timeouts are a thousandth as long.
type fastClock struct{ engine.Clock }

func (f fastClock) Sleep(ctx context.Context, d time.Duration) error {
	return f.Clock.Sleep(ctx, d/1000)
}

func (f fastClock) WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if d == time.Minute {
		d /= 100
	}
	return f.Clock.WithTimeout(ctx, d)
}

// TestBackupUnrecorded: the record phase failed, the artifacts are kept, and the next refresh records.
func TestBackupUnrecorded(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	refuse := true
	s.catalog.Fail = func(op, name string) error {
		if refuse && op == "create" && name == engine.ManifestName("b1") {
			return errInjected
		}
		return nil
	}
	b := s.core().manage("scalardb_consistent_backup")
	p := b.plan(with(backupConfig(), "timeouts", object{"create": "3s"}))
	d := b.apply(p)
	wantNoErrors(t, "apply", d)
	if b.get("status") != "incomplete" || b.tainted {
		t.Fatalf("status %v, tainted %v: %v", b.get("status"), b.tainted, d.warnings())
	}
	if d := b.refresh(); b.get("status") != "incomplete" || !d.has("cannot be written") {
		t.Errorf("status %v: %v", b.get("status"), d.warnings())
	}
	refuse = false
	wantNoErrors(t, "refresh", b.refresh())
	if b.get("status") != "available" {
		t.Errorf("status %v", b.get("status"))
	}
	if _, err := engine.ReadManifest(context.Background(), s.catalog, "b1"); err != nil {
		t.Error(err)
	}
	if s.pauses != 1 {
		t.Errorf("%d pauses, want 1", s.pauses)
	}
}

func TestRestoreLifecycle(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c := s.core()
	b := c.manage("scalardb_consistent_backup").create(backupConfig())
	r := c.manage("scalardb_snapshot_restore").create(restoreConfig())
	if r.get("status") != "available" || r.get("restored.orders.endpoint") != "/clone/orders" || r.get("verification.passed") != true || r.get("deletion_protection") != true {
		t.Errorf("status %v, restored %v, verification %v", r.get("status"), r.get("restored"), r.get("verification.passed"))
	}
	if s.stores["/clone/orders"] != "orders" {
		t.Errorf("restored %q", s.stores["/clone/orders"])
	}
	slices.Sort(s.readOf)
	if !slices.Equal(s.readOf, []string{"events: [events]", "orders: [orders]"}) {
		t.Errorf("verified were %v", s.readOf)
	}
	var properties map[string]tftypes.Value
	_ = at(t, r.state, "scalardb_properties").As(&properties)
	for key, want := range map[string]string{"scalar.db.storage": "multi-storage", "scalar.db.multi_storage.storages": "events,orders", "scalar.db.multi_storage.storages.orders.contact_points": "/clone/orders",
		"scalar.db.multi_storage.default_storage": "orders", "scalar.db.multi_storage.namespace_mapping": "events:events,orders:orders"} {
		if got := goValue(t, properties[key]); got != want {
			t.Errorf("%s = %v, want %s", key, got, want)
		}
	}
	created := r.state
	wantNoErrors(t, "refresh", r.refresh())
	if !r.state.Equal(created) {
		t.Error("refresh changed the state of a restore that nothing happened to")
	}
	wantAction(t, r.plan(restoreConfig()), "no-op")
	// The same backup, named by its manifest.
	byManifest := with(with(restoreConfig(), "backup_id", nil), "manifest_json", b.get("manifest_json"))
	wantAction(t, r.plan(byManifest), "update")

	// Imported, the plan is empty.
	imported, d := c.importID("scalardb_snapshot_restore", "r1")
	wantNoErrors(t, "import", d)
	wantAction(t, imported.plan(restoreConfig()), "no-op")

	// Protected: neither destroyed nor replaced, at plan and in Delete.
	for what, p := range map[string]planned{"destroy": r.plan(nil), "replace by name": r.plan(with(restoreConfig(), "name", "r2")), "replace by path": r.plan(with(restoreConfig(), "storages.orders.memory.path", "/clone/x"))} {
		if !p.diags.has("Restore is protected") {
			t.Errorf("%s was planned as %q", what, p.action)
		}
	}
	r.tainted = true // -replace: the plan cannot see it
	if d := r.apply(r.plan(with(restoreConfig(), "deletion_protection", false))); !d.has("Restore is protected") || s.stores["/clone/orders"] == "" {
		t.Errorf("a protected restore was deleted: %v", d.errors())
	}
	r.tainted = false

	// It outlives its backup.
	wantNoErrors(t, "destroy the backup", b.apply(b.plan(nil)))
	wantNoErrors(t, "refresh", r.refresh())
	if r.get("status") != "available" {
		t.Errorf("status %v after the backup is gone", r.get("status"))
	}
	wantAction(t, r.plan(restoreConfig()), "no-op")

	// A restored storage that is gone shows, and plans nothing.
	content := s.stores["/clone/events"]
	delete(s.stores, "/clone/events")
	if d := r.refresh(); r.get("status") != "incomplete" || !d.has("events") {
		t.Errorf("status %v: %v", r.get("status"), d.warnings())
	}
	wantAction(t, r.plan(restoreConfig()), "no-op")
	s.stores["/clone/events"] = content
	wantNoErrors(t, "refresh", r.refresh())

	// Unprotected first, then destroyed.
	open := with(restoreConfig(), "deletion_protection", false)
	p := r.plan(open)
	wantAction(t, p, "update")
	wantNoErrors(t, "update", r.apply(p))
	wantNoErrors(t, "destroy", r.apply(r.plan(nil)))
	if len(s.stores) != 2 {
		t.Errorf("databases left: %v", s.stores)
	}
	if left := s.catalog.Names(); len(left) > 0 {
		t.Errorf("left in the catalog: %v", left)
	}
}

func TestRestoreReplacedByWhatIsRestored(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c := s.core()
	c.manage("scalardb_consistent_backup").create(backupConfig())
	c.manage("scalardb_consistent_backup").create(with(backupConfig(), "name", "b2"))
	config := with(restoreConfig(), "deletion_protection", false)
	r := c.manage("scalardb_snapshot_restore").create(config)
	for path, v := range map[string]any{"name": "r2", "backup_id": "b2", "storages.orders.memory.path": "/clone/o", "storages.orders.memory.size": 9} {
		want := "replace"
		if strings.HasSuffix(path, "size") {
			want = "update" // null in the state
		}
		wantAction(t, r.plan(with(config, path, v)), want)
	}
	// The backup is made in the same run: its id is not known yet.
	wantAction(t, r.plan(with(config, "backup_id", unknown)), "replace")
	for path, v := range map[string]any{"storages.orders.memory.jobs": 2, "verify": object{"server_clock_bound": "5s"}, "deletion_protection": true, "timeouts": object{"create": "1h"}} {
		wantAction(t, r.plan(with(config, path, v)), "update")
	}
}

func TestRestoreRefusals(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c := s.core()
	b := c.manage("scalardb_consistent_backup").create(backupConfig())
	var m map[string]any
	if err := json.Unmarshal([]byte(b.get("manifest_json").(string)), &m); err != nil {
		t.Fatal(err)
	}
	m["status"] = "incomplete"
	incomplete, _ := json.Marshal(m)
	partial := restoreConfig()
	delete(partial["storages"].(object), "events")
	for name, tt := range map[string]struct {
		config object
		want   string
	}{
		"no such backup":    {with(restoreConfig(), "backup_id", "nope"), "named by the id attribute"},
		"a storage missing": {partial, "storage events, which has no destination"},
		"one too many":      {with(restoreConfig(), "storages.third", object{"memory": object{"path": "/x"}}), "holds no storage third"},
		"another driver":    {with(restoreConfig(), "storages.orders", object{"other": object{"path": "/x"}}), "is memory, not other"},
		"incomplete":        {with(with(restoreConfig(), "backup_id", nil), "manifest_json", string(incomplete)), "only one that is available"},
		"arguments unknown": {with(with(restoreConfig(), "storages.orders", object{"other": object{"path": unknown}}), "name", "x"), "is memory, not other"},
	} {
		r := c.manage("scalardb_snapshot_restore")
		if p := r.plan(tt.config); len(p.diags.errors()) == 0 || !p.diags.has(tt.want) {
			t.Errorf("%s: planned %q: %v", name, p.action, p.diags.errors())
		}
	}
	// What was unknown at plan is refused at apply, before anything is made.
	r := c.manage("scalardb_snapshot_restore")
	p := r.plan(with(restoreConfig(), "backup_id", unknown))
	wantAction(t, p, "create")
	late := value(t, r.schemaType(), with(restoreConfig(), "backup_id", "nope"))
	p.config = late
	p.value = setAttribute(t, p.value, "backup_id", tftypes.NewValue(tftypes.String, "nope"))
	if d := r.apply(p); len(d.errors()) == 0 || len(s.stores) != 2 {
		t.Errorf("applied: %v, %v", d.errors(), s.stores)
	}
	// A half-known map plans.
	wantAction(t, c.manage("scalardb_snapshot_restore").plan(with(restoreConfig(), "storages", unknown)), "create")
	wantAction(t, c.manage("scalardb_snapshot_restore").plan(with(restoreConfig(), "storages.orders.memory.path", unknown)), "create")
}

func setAttribute(t *testing.T, v tftypes.Value, name string, to tftypes.Value) tftypes.Value {
	t.Helper()
	var m map[string]tftypes.Value
	if err := v.As(&m); err != nil {
		t.Fatal(err)
	}
	m[name] = to
	return tftypes.NewValue(v.Type(), m)
}

// TestRestoreFailedVerification hands out no endpoint, is tainted, and cleans up with the next apply although it is protected.
func TestRestoreFailedVerification(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c := s.core()
	c.manage("scalardb_consistent_backup").create(backupConfig())
	s.failVerify = true
	r := c.manage("scalardb_snapshot_restore")
	d := r.apply(r.plan(restoreConfig()))
	if !d.has("Verification failed") || !r.tainted || r.get("status") != "incomplete" {
		t.Fatalf("tainted %v: %v", r.tainted, d.errors())
	}
	if r.get("restored") != nil || r.get("scalardb_properties") != nil || r.get("verification.passed") != false {
		t.Errorf("restored %v, properties %v, verification %v", r.get("restored"), r.get("scalardb_properties"), r.get("verification.passed"))
	}
	s.failVerify = false
	wantNoErrors(t, "refresh", r.refresh())
	if r.get("status") != "incomplete" {
		t.Errorf("status %v", r.get("status"))
	}
	wantNoErrors(t, "apply", r.apply(r.plan(restoreConfig())))
	if r.get("status") != "available" || len(s.stores) != 4 {
		t.Errorf("status %v, databases %v", r.get("status"), s.stores)
	}
	// Switched off, nothing is looked at.
	s.failVerify = true
	off := with(with(with(restoreConfig(), "name", "r2"), "storages", object{"orders": object{"memory": object{"path": "/c2/orders"}}, "events": object{"memory": object{"path": "/c2/events"}}}), "verify", object{"enabled": false})
	r = c.manage("scalardb_snapshot_restore").create(off)
	if r.get("verification") != nil || r.get("restored.orders.endpoint") != "/c2/orders" {
		t.Errorf("verification %v", r.get("verification"))
	}
}

func TestRestoreFailedHalfway(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c := s.core()
	c.manage("scalardb_consistent_backup").create(backupConfig())
	s.failRestore = errInjected
	r := c.manage("scalardb_snapshot_restore")
	d := r.apply(r.plan(restoreConfig()))
	if !r.tainted || !d.has("Restore failed") {
		t.Fatalf("tainted %v: %v", r.tainted, d.errors())
	}
	s.failRestore = nil
	wantNoErrors(t, "apply", r.apply(r.plan(restoreConfig())))
	if r.get("status") != "available" {
		t.Errorf("status %v", r.get("status"))
	}
}

func TestPauseWindow(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c := s.core()
	config := object{"name": "w1", "clock_uncertainty": "100ms"}
	w := c.manage("scalardb_pause_window").create(config)
	if w.get("status") != "available" || w.get("restore_point") == nil || w.get("safe_from") == nil || w.get("id") != "w1" {
		t.Errorf("status %v, restore point %v", w.get("status"), w.get("restore_point"))
	}
	wantNoErrors(t, "refresh", w.refresh())
	wantAction(t, w.plan(config), "no-op")
	for path, v := range map[string]any{"pause": providerConfig()["pause"], "clock_uncertainty": "1s", "timeouts": object{"create": "5m"}} {
		wantAction(t, w.plan(with(config, path, v)), "update")
	}
	// Storages come and go in place, too: only the name pauses anew.
	withStorages := object{"name": "w1", "storages": object{"orders": object{"memory": object{"path": "/db/orders"}}}}
	p := w.plan(withStorages)
	wantAction(t, p, "update")
	wantNoErrors(t, "update", w.apply(p))
	wantAction(t, w.plan(with(withStorages, "storages.orders.memory.path", "/db/events")), "update")
	wantAction(t, w.plan(with(withStorages, "name", "w2")), "replace")
	if s.pauses != 1 {
		t.Errorf("%d pauses, want 1", s.pauses)
	}
	wantNoErrors(t, "destroy", w.apply(w.plan(nil)))
	if s.pauses != 1 {
		t.Errorf("%d pauses after destroy, want 1", s.pauses)
	}
	w = c.manage("scalardb_pause_window").create(with(withStorages, "name", "w3"))
	if w.get("clock_bounds.orders.uncertainty_ms") == nil {
		t.Error("no clock bound")
	}
}

func TestConsistencyCheck(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c := s.core()
	b := c.manage("scalardb_consistent_backup").create(backupConfig())
	config := object{"backup_id": "b1", "storages": backupConfig()["storages"], "triggers": object{"at": "1"}}
	k := c.manage("scalardb_consistency_check").create(config)
	if k.get("verification.passed") != true || k.get("checked_at") == nil {
		t.Errorf("verification %v", k.get("verification.passed"))
	}
	wantAction(t, k.plan(config), "no-op")
	wantAction(t, k.plan(with(config, "storages.orders.memory.path", "/db/events")), "update")
	wantAction(t, k.plan(with(config, "triggers.at", "2")), "replace")

	window := map[string]any{}
	for _, name := range []string{"started_at", "ended_at"} {
		window[name] = b.get("pause_window." + name)
	}
	k = c.manage("scalardb_consistency_check").create(object{"pause_window": window, "storages": backupConfig()["storages"]})
	if k.get("verification.passed") != true {
		t.Errorf("verification %v", k.get("verification.passed"))
	}

	s.failVerify = true
	k = c.manage("scalardb_consistency_check")
	d := k.apply(k.plan(config))
	if !d.has("Consistency check failed") || !d.has("complete") || !k.state.IsNull() {
		t.Errorf("state %v: %v", k.state, d.errors())
	}
}

// TestUnknownProviderValues: a provider block that is not known yet plans, and changes nothing that is there.
func TestUnknownProviderValues(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c := s.core()
	b := c.manage("scalardb_consistent_backup").create(backupConfig())
	r := c.manage("scalardb_snapshot_restore").create(restoreConfig())
	for name, config := range map[string]object{
		"pause":       {"pause": unknown, "catalog": object{"directory": "/catalog"}},
		"address":     with(providerConfig(), "pause.targets.main.addresses", []any{unknown}),
		"catalog":     with(providerConfig(), "catalog", unknown),
		"directory":   with(providerConfig(), "catalog.directory", unknown),
		"credentials": with(providerConfig(), "credentials", unknown),
		"password":    with(providerConfig(), "credentials", object{"orders": object{"password": unknown}}),
	} {
		later, d := newCore(t, s.deps(), config)
		wantNoErrors(t, name, diagnostics(d))
		for _, i := range []*instance{b, r} {
			i.core = later
			wantNoErrors(t, name+": refresh", i.refresh())
		}
		wantAction(t, b.plan(backupConfig()), "no-op")
		wantAction(t, r.plan(restoreConfig()), "no-op")
		wantAction(t, later.manage("scalardb_consistent_backup").plan(with(backupConfig(), "name", "x")), "create")
		wantAction(t, later.manage("scalardb_snapshot_restore").plan(with(restoreConfig(), "name", "x")), "create")
		wantAction(t, later.manage("scalardb_pause_window").plan(object{"name": "x"}), "create")
		wantAction(t, later.manage("scalardb_consistency_check").plan(object{"storages": backupConfig()["storages"]}), "create")
	}
	if s.pauses != 1 {
		t.Errorf("%d pauses, want 1", s.pauses)
	}
}

func TestTargetsMustBeGiven(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c, d := newCore(t, s.deps(), object{"catalog": object{"directory": "/catalog"}})
	wantNoErrors(t, "configure", diagnostics(d))
	b := c.manage("scalardb_consistent_backup")
	if p := b.plan(backupConfig()); !p.diags.has("No targets to pause") {
		t.Errorf("planned %q", p.action)
	}
	wantAction(t, b.plan(with(backupConfig(), "pause", providerConfig()["pause"])), "create")
}

// TestWriteOnlyKey: a key in a resource's pause reaches the dialer and no state.
func TestWriteOnlyKey(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	config := with(backupConfig(), "pause", with(providerConfig()["pause"].(object), "targets.main.tls", object{"cert_pem": "CERT", "key_pem": "SECRET"}))
	b := s.core().manage("scalardb_consistent_backup").create(config)
	if !slices.Contains(s.seenKey, "SECRET") {
		t.Errorf("the dialer got %q", s.seenKey)
	}
	if strings.Contains(b.state.String(), "SECRET") || b.get("pause.targets.main.tls.cert_pem") != "CERT" {
		t.Error("the key is in the state, or the certificate is not")
	}
	wantAction(t, b.plan(config), "no-op")
}

// TestSecretsStayOut: credentials are in no state and in no diagnostic.
func TestSecretsStayOut(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c, d := newCore(t, s.deps(), with(providerConfig(), "credentials", object{"orders": object{"username": "u", "password": "TOPSECRET"}}))
	wantNoErrors(t, "configure", diagnostics(d))
	b := c.manage("scalardb_consistent_backup").create(backupConfig())
	r := c.manage("scalardb_snapshot_restore").create(restoreConfig())
	for _, i := range []*instance{b, r} {
		if strings.Contains(i.state.String()+string(i.private), "TOPSECRET") {
			t.Errorf("%s: the password is in the state", i.typ)
		}
	}
	for _, name := range s.catalog.Names() {
		if strings.Contains(string(s.catalog.Peek(name)), "TOPSECRET") {
			t.Errorf("the password is in %s", name)
		}
	}
	p := c.manage("scalardb_consistent_backup").plan(with(with(backupConfig(), "name", "b2"), "storages.orders.memory.credentials", "nobody"))
	if !p.diags.has(`credentials = "nobody"`) {
		t.Errorf("an unknown credentials key was planned as %q", p.action)
	}
}

func TestImportRefusals(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c := s.core()
	for _, typ := range []string{"scalardb_consistent_backup", "scalardb_snapshot_restore"} {
		for _, id := range []string{"nope", "../x", "", ".hidden"} {
			if _, d := c.importID(typ, id); len(d.errors()) == 0 {
				t.Errorf("%s %q was imported", typ, id)
			}
		}
	}
}

func TestCatalogWarnings(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.env["CI"] = "true"
	config := providerConfig()
	delete(config, "catalog")
	if _, d := newCore(t, s.deps(), config); !diagnostics(d).has("The catalog may not outlive this run") {
		t.Errorf("no warning: %v", diagnostics(d).warnings())
	}
	if _, d := newCore(t, s.deps(), providerConfig()); len(d) > 0 {
		t.Errorf("warned although a catalog is set: %v", diagnostics(d).warnings())
	}
	delete(s.env, "CI")
	if _, d := newCore(t, s.deps(), config); len(d) > 0 {
		t.Errorf("warned on a workstation: %v", diagnostics(d).warnings())
	}
}

func TestDiagnoseOrderAndPaths(t *testing.T) {
	t.Parallel()
	err := errors.Join(&engine.Error{Phase: engine.PhaseUnpause, Subject: "10.0.0.1:60051", Err: errInjected}, errors.Join(&engine.Error{Phase: engine.PhaseCapture, Subject: "orders", Err: errInjected}, errors.New("bare")))
	d := diagnose(err, subject{storages: map[string]bool{"orders": true}, targets: true})
	if len(d) != 3 || d[0].Summary() != "Targets may still be paused" || d[1].Summary() != "Capture failed" || !strings.Contains(d[1].Detail(), "may still be paused") {
		t.Errorf("%v", d)
	}
	for _, p := range engine.Phases() {
		if summaries[p] == "" {
			t.Errorf("phase %s has no summary", p)
		}
	}
}
