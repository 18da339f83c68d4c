//go:build acceptance

package realserver

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/cores"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/scalardb"
)

// testBackupAndRestore is the life of a backup and its restore under every core; imports and changes under one, another one for each kind of database.
func testBackupAndRestore(t *testing.T, b *bed) {
	for _, core := range cores.All(t) {
		t.Run(core.String(), func(t *testing.T) { b.life(t, core) })
	}
}

func (b *bed) life(t *testing.T, core cores.Core) {
	name := "before-" + core.String()
	label := strings.NewReplacer("-", "_", ".", "_").Replace("clone_" + core.String())
	// Long enough for the watch to see it, also on a busy machine.
	w := b.workspace(t, core, settings{least: "500ms"})
	w.backup(t, name, 2, "")
	w.Init(t)
	w.Must(t, "validate", "-no-color")
	if r := w.Run(t, "plan", "-no-color", "-detailed-exitcode", "-out=plan"); r.ExitCode != 2 {
		t.Fatalf("the plan of a new backup: exit code %d\n%s", r.ExitCode, r.All())
	}
	watch := b.WatchPauses(t)
	w.Must(t, "apply", "-no-color", "plan")
	b.Bank.WaitForCommits(t, 20, limit)
	b.checkWindow(t, w, watch)
	w.PlanIsEmpty(t)

	w.restore(t, backupAddress+".id", label, 2, "")
	b.writeOthers(t, w, label)
	w.Must(t, "apply", "-no-color", "-auto-approve")
	w.PlanIsEmpty(t)
	b.checkRestored(t, w, label)
	b.checkOthers(t, w, name)
	b.checkSecrets(t, w)

	if core == b.whole {
		b.importThenPlan(t, core, w, name, label)
		b.changeInPlace(t, w, name, label)
	}
	if n := len(watch.Stop()); n != 1 {
		t.Errorf("%d pauses of the server, want one", n)
	}
	b.destroy(t, w, label)
}

// checkWindow holds what was recorded against what the server's clients saw.
func (b *bed) checkWindow(t *testing.T, w *workspace, watch *scalardb.Watch) {
	t.Helper()
	values := w.Values(t, backupAddress)
	got := windowOf(t, values["pause_window"])
	if values["status"] != "available" || got.Status != "available" || got.StartedAt.IsZero() || got.EndedAt.Before(got.StartedAt) ||
		got.EndedAt.Sub(got.StartedAt).Milliseconds() != got.DurationMS || got.DrainMS < 0 {
		t.Errorf("status %v, window %+v", values["status"], got)
	}
	pauses := watch.Pauses()
	if len(pauses) != 1 {
		t.Fatalf("%d pauses of the server, want one", len(pauses))
	}
	if n := watch.Denied(got.StartedAt, got.EndedAt); n > 0 || pauses[0].To.Before(got.EndedAt) {
		t.Errorf("the server said %d times within the window %s to %s that it is not paused; it was seen paused from %s to %s",
			n, got.StartedAt, got.EndedAt, pauses[0].From, pauses[0].To)
	}
	gap := b.Bank.Gap(t, got.StartedAt.Add(-time.Second), time.Now())
	t.Logf("window %d ms after draining for %d ms; the server was paused for %d ms, its clients saw %d ms",
		got.DurationMS, got.DrainMS, pauses[0].Duration().Milliseconds(), gap.Duration().Milliseconds())
}

// checkRestored reads the restored copy as an application would, by what the restore hands out, and the credentials.
func (b *bed) checkRestored(t *testing.T, w *workspace, label string) {
	t.Helper()
	values := w.Values(t, restoreAddress)
	verification, _ := values["verification"].(map[string]any)
	if values["status"] != "available" || verification["passed"] != true {
		t.Fatalf("status %v, verification %v", values["status"], verification)
	}
	// Every account, at the least.
	if n, _ := verification["records"].(float64); n < float64(b.Config.Rows()) {
		t.Errorf("%v records were verified, there are %d accounts", n, b.Config.Rows())
	}
	for _, s := range b.stores {
		if !s.exists(t, label) {
			t.Errorf("the restored storage %s is not there", s.name)
		}
	}
	c := b.Config
	c.Properties = maps.Clone(c.Properties)
	if c.Properties == nil {
		c.Properties = map[string]string{}
	}
	handed, _ := values["scalardb_properties"].(map[string]any)
	for key, value := range handed {
		c.Properties[key], _ = value.(string)
	}
	for _, s := range b.stores {
		if s.cloneLogin == "" {
			continue
		}
		prefix := "scalar.db."
		if len(b.stores) > 1 {
			prefix += "multi_storage.storages." + s.name + "."
		}
		l := s.logins[s.cloneLogin]
		c.Properties[prefix+"username"], c.Properties[prefix+"password"] = l.username, l.password
	}
	// The storage without a name is there for the properties above to replace.
	if rows, sum := scalardb.Read(t, c, scalardb.Storage{}); rows != b.Config.Rows() || sum != b.Config.Total() {
		t.Errorf("the restored bank has %d rows with a sum of %d, want %d and %d", rows, sum, b.Config.Rows(), b.Config.Total())
	}
}

// writeOthers adds the data sources, the functions, and a consistency check of the restored databases.
func (b *bed) writeOthers(t *testing.T, w *workspace, label string) {
	t.Helper()
	w.Write(t, "server.properties", "scalar.db.storage=jdbc\nscalar.db.contact_points=jdbc:postgresql://db.internal/shop\nscalar.db.password=never-to-be-seen\n")
	w.Write(t, "others.tf", `
data "scalardb_targets" "now" {}
data "scalardb_backup" "b" { id = scalardb_consistent_backup.b.id }
data "scalardb_backups" "all" { depends_on = [scalardb_consistent_backup.b] }
data "scalardb_configuration" "server" { path = "${path.module}/server.properties" }

resource "scalardb_consistency_check" "clone" {
  backup_id = scalardb_consistent_backup.b.id
  storages = {
%s  }
  depends_on = [scalardb_snapshot_restore.clone]
}

output "others" {
  value = {
    paused     = data.scalardb_targets.now.paused
    target     = data.scalardb_targets.now.targets[0].address
    status     = data.scalardb_backup.b.status
    manifest   = data.scalardb_backup.b.manifest_json
    all        = [for x in data.scalardb_backups.all.backups : x.id]
    required   = data.scalardb_configuration.server.pause_required
    checked    = scalardb_consistency_check.clone.verification.passed
    point      = provider::scalardb::restore_point("2026-11-25T10:00:00.2Z", "2026-11-25T10:00:06.8Z")
    round_trip = provider::scalardb::parse_properties(provider::scalardb::render_properties(scalardb_snapshot_restore.clone.scalardb_properties)) == tomap(scalardb_snapshot_restore.clone.scalardb_properties)
  }
}
`, b.clones(label, 0))
}

func (b *bed) checkOthers(t *testing.T, w *workspace, name string) {
	t.Helper()
	var got struct {
		Paused    bool
		Target    string
		Status    string
		Manifest  string
		All       []string
		Required  *bool
		Checked   bool
		Point     string
		RoundTrip bool `json:"round_trip"`
	}
	if err := json.Unmarshal([]byte(w.Must(t, "output", "-json", "others").Stdout), &got); err != nil {
		t.Fatalf("reading the outputs: %v", err)
	}
	if got.Paused || got.Target != b.Addr || got.Status != "available" || !slices.Equal(got.All, []string{name}) || got.Required == nil ||
		!got.Checked || got.Point != "2026-11-25T10:00:03Z" || !got.RoundTrip || !strings.Contains(got.Manifest, `"`+name+`"`) {
		t.Errorf("the data sources, the check and the functions say %+v", got)
	}
}

// checkSecrets looks for passwords in the state and in the catalog.
func (b *bed) checkSecrets(t *testing.T, w *workspace) {
	t.Helper()
	secrets := []string{"never-to-be-seen"}
	for _, s := range b.stores {
		for _, l := range s.logins {
			quoted, _ := json.Marshal(l.password)
			secrets = append(secrets, l.password, strings.Trim(string(quoted), `"`))
		}
	}
	paths := []string{filepath.Join(w.Dir, "terraform.tfstate"), filepath.Join(w.Dir, "terraform.tfstate.backup")}
	for _, f := range files(t, w.catalog) {
		paths = append(paths, filepath.Join(w.catalog, f))
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range secrets {
			if strings.Contains(string(data), s) {
				t.Errorf("%s holds a password", path)
			}
		}
	}
}

// importThenPlan imports backup and restore into an empty state; a plan then has nothing to do.
func (b *bed) importThenPlan(t *testing.T, core cores.Core, w *workspace, name, label string) {
	t.Helper()
	other := &workspace{Workspace: core.Workspace(t, b.mirror), b: b, catalog: w.catalog}
	other.provider(t, settings{})
	other.backup(t, name, 2, "")
	other.Init(t)
	other.Must(t, "import", "-no-color", backupAddress, name)
	other.PlanIsEmpty(t)
	other.restore(t, backupAddress+".id", label, 2, "")
	other.Must(t, "import", "-no-color", restoreAddress, label)
	if actions := other.planned(t); actions[restoreAddress] != "no-op" && actions[restoreAddress] != "update" || actions[backupAddress] != "no-op" {
		t.Errorf("after the imports the plan is %v", actions)
	}
}

// planned are the actions of a plan, by address, joined with commas.
func (w *workspace) planned(t *testing.T) map[string]string {
	t.Helper()
	w.Must(t, "plan", "-no-color", "-out=plan")
	var plan struct {
		ResourceChanges []struct {
			Address string
			Change  struct{ Actions []string }
		} `json:"resource_changes"`
	}
	if err := json.Unmarshal([]byte(w.Must(t, "show", "-json", "plan").Stdout), &plan); err != nil {
		t.Fatalf("reading the plan: %v", err)
	}
	out := map[string]string{}
	for _, c := range plan.ResourceChanges {
		out[c.Address] = strings.Join(c.Change.Actions, ",")
	}
	return out
}

// changeInPlace changes everything that does not say what is captured or restored, the target's address among it.
func (b *bed) changeInPlace(t *testing.T, w *workspace, name, label string) {
	t.Helper()
	_, port, _ := strings.Cut(b.Addr, ":")
	w.provider(t, settings{drain: "11s", longest: "31s"})
	w.backup(t, name, 3, b.pause(settings{addresses: `"localhost:` + port + `"`, drain: "9s", least: "1s"}))
	w.restore(t, backupAddress+".id", label, 3, "timeouts = { create = \"1h\" }")
	want := map[string]string{backupAddress: "update", restoreAddress: "update"}
	got := w.planned(t)
	for address, actions := range want {
		if got[address] != actions {
			t.Errorf("the plan for %s is %q, want %q", address, got[address], actions)
		}
	}
	before := windowOf(t, w.Values(t, backupAddress)["pause_window"])
	w.Must(t, "apply", "-no-color", "plan")
	if after := windowOf(t, w.Values(t, backupAddress)["pause_window"]); after != before {
		t.Errorf("an update in place changed the window from %+v to %+v", before, after)
	}
}

// destroy is refused at first, and then leaves nothing.
func (b *bed) destroy(t *testing.T, w *workspace, label string) {
	t.Helper()
	if r := w.Destroy(t); r.ExitCode == 0 || !strings.Contains(r.All(), "deletion_protection") {
		t.Fatalf("the destroy of a protected restore: exit code %d\n%s", r.ExitCode, r.All())
	}
	for _, s := range b.stores {
		if !s.exists(t, label) {
			t.Errorf("the destroy was refused, and the restored storage %s is gone", s.name)
		}
	}
	w.restore(t, backupAddress+".id", label, 2, "deletion_protection = false")
	w.Must(t, "apply", "-no-color", "-auto-approve")
	if r := w.Destroy(t); r.ExitCode != 0 {
		t.Fatalf("the destroy: exit code %d\n%s", r.ExitCode, r.All())
	}
	for _, s := range b.stores {
		if s.exists(t, label) {
			t.Errorf("the restored storage %s is still there", s.name)
		}
	}
	if left := files(t, w.catalog); len(left) > 0 {
		t.Errorf("left in the catalog: %v", left)
	}
}

// testPauseWindow holds a window alone, with the clocks of the storages, so that it has a restore point.
func testPauseWindow(t *testing.T, b *bed) {
	w := b.workspace(t, cores.Newest(t), settings{least: "1s"})
	w.Write(t, "window.tf", "resource \"scalardb_pause_window\" \"w\" {\n  name = \"w\"\n  storages = {\n%s  }\n}\n", b.sources(0))
	w.Init(t)
	watch := b.WatchPauses(t)
	w.Must(t, "apply", "-no-color", "-auto-approve")
	w.PlanIsEmpty(t)
	values := w.Values(t, "scalardb_pause_window.w")
	got := windowOf(t, values)
	text, _ := values["restore_point"].(string)
	point, err := time.Parse(time.RFC3339, text)
	if err != nil || !point.After(got.StartedAt.Add(time.Second)) || !point.Before(got.EndedAt.Add(-time.Second)) {
		t.Errorf("the restore point %v is not a second inside the window %s to %s", values["restore_point"], got.StartedAt, got.EndedAt)
	}
	if r := w.Destroy(t); r.ExitCode != 0 {
		t.Errorf("the destroy: exit code %d\n%s", r.ExitCode, r.All())
	}
	if n := len(watch.Stop()); n != 1 {
		t.Errorf("%d pauses of the server, want one", n)
	}
	if left := files(t, w.catalog); len(left) > 0 {
		t.Errorf("left in the catalog: %v", left)
	}
	t.Logf("window %d ms", got.DurationMS)
}
