//go:build acceptance

package realserver

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/faultrun"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/cores"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

// testFaults kills the provider in every phase, and strikes a window in the other ways: everything is unpaused within seconds, no window is
// claimed, and the next apply cleans up and succeeds. internal/acceptance/faults has every fault in every phase, on the sandbox.
func testFaults(t *testing.T, b *bed) {
	w := b.workspace(t, cores.Oldest(t), settings{version: faultrun.Version})
	w.backup(t, "first", 0, `deletion_policy = "retain"`)
	w.Init(t)
	type strike struct {
		phase engine.Phase
		fault faultrun.Fault
	}
	var strikes []strike
	for _, p := range engine.Phases() {
		strikes = append(strikes, strike{p, faultrun.KillProvider})
	}
	strikes = append(strikes, strike{engine.PhaseCapture, faultrun.CtrlC}, strike{engine.PhaseCapture, faultrun.KillCore}, strike{engine.PhaseCapture, faultrun.Stop})
	worst := map[faultrun.Fault]time.Duration{}
	for _, s := range strikes {
		name := strings.ReplaceAll(string(s.phase)+"-"+string(s.fault), " ", "-")
		t.Run(name, func(t *testing.T) {
			longest := faultrun.MaxDuration(s.phase, s.fault, 6*time.Second)
			w.provider(t, settings{version: faultrun.Version, drain: "4s", longest: longest.String()})
			w.backup(t, name, 0, `deletion_policy = "retain"`)
			o := faultrun.Strike(t, w.Workspace, s.phase, s.fault, longest, func() bool { return b.isPaused(t) })

			if want := faultrun.PausedAt(s.phase); o.WasPaused != want {
				t.Errorf("paused when it struck: %v, want %v", o.WasPaused, want)
			}
			allowed := faultrun.Slack
			if s.fault == faultrun.Stop {
				allowed += longest
			}
			if o.WasPaused {
				worst[s.fault] = max(worst[s.fault], o.Unpaused)
				if o.Unpaused > allowed {
					t.Errorf("paused for %s after the fault, want at most %s", o.Unpaused, allowed)
				}
			}
			if o.Result.ExitCode == 0 {
				t.Errorf("the apply succeeded:\n%s", o.Result.All())
			}
			if values := w.Values(t, backupAddress); values != nil && values["id"] == name && values["status"] == "available" {
				t.Error("the state claims a backup")
			}
			w.Must(t, "apply", "-no-color", "-auto-approve")
			if values := w.Values(t, backupAddress); values["id"] != name || values["status"] != "available" {
				t.Errorf("the next apply left backup %v with status %v", values["id"], values["status"])
			}
			w.onlyWhole(t)
		})
	}
	w.PlanIsEmpty(t)
	for fault, d := range worst {
		t.Logf("%s: unpaused %s later at worst", fault, d.Round(time.Millisecond))
	}
}

// onlyWhole fails when the catalog holds anything but backups that are recorded.
func (w *workspace) onlyWhole(t *testing.T) {
	t.Helper()
	left := files(t, w.catalog)
	for _, f := range left {
		parts := strings.Split(f, "/")
		if len(parts) < 3 || parts[0] != "backups" {
			t.Errorf("%s is left in the catalog", f)
			continue
		}
		manifest, err := os.ReadFile(w.catalog + "/backups/" + parts[1] + "/manifest.json")
		if err != nil {
			t.Errorf("%s is left of a backup that is not recorded: %v", f, err)
			continue
		}
		if len(parts) > 3 && !strings.Contains(string(manifest), `"`+parts[2]+`"`) {
			t.Errorf("%s is left of a run that failed", f)
		}
	}
}
