//go:build acceptance

// Package faults kills, cancels and stops backups of the sandbox in every phase, under a real core. The real server's turn is in realserver.
package faults

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/faultrun"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/sandbox"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/cores"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/admin/adminpb"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/adminserver"
)

// maxDuration of a pause in these tests: how long a stopped provider keeps the sandbox paused.
const maxDuration = 2 * time.Second

// configuration is one backup under a name. It retains, so that a case leaves nothing to the next one.
const configuration = `
terraform {
  required_providers { scalardb = { source = "scalar-labs/scalardb", version = "%s" } }
}
provider "scalardb" {
  pause = {
    targets       = { main = { addresses = ["%s"] } }
    drain_timeout = "1s"
    min_duration  = "0s"
    max_duration  = "%s"
  }
  catalog = { directory = "%s" }
}
resource "scalardb_consistent_backup" "b" {
  name = "%s"
  storages = {
    orders = { sqlite = { path = "%s" } }
    events = { sqlite = { path = "%s" } }
  }
}
`

// bed is a sandbox with a workspace.
type bed struct {
	*sandbox.Sandbox
	w       *cores.Workspace
	catalog string
}

func newBed(t *testing.T, core cores.Core) *bed {
	t.Helper()
	m := cores.NewMirror(t)
	faultrun.AddTo(t, m)
	s, err := sandbox.Start(t.TempDir(), sandbox.Options{Pace: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{Sandbox: s, w: core.Workspace(t, m), catalog: filepath.Join(t.TempDir(), "catalog")}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := s.Err(); err != nil {
			t.Error(err)
		}
	})
	b.configure(t, "first")
	b.w.Init(t)
	return b
}

func (b *bed) configure(t *testing.T, name string) {
	t.Helper()
	b.w.Write(t, "main.tf", configuration, faultrun.Version, strings.Join(b.Addresses(), `", "`), maxDuration, b.catalog, name, b.Orders, b.Events)
}

func (b *bed) paused() bool {
	return slices.ContainsFunc(b.Servers, (*adminserver.Server).Paused)
}

// TestFaultsInEveryPhase: whatever strikes in whatever phase, everything is unpaused within seconds, no window is claimed, and the next
// apply cleans up and succeeds, and leaves alone what it did not make.
func TestFaultsInEveryPhase(t *testing.T) {
	b := newBed(t, cores.Oldest(t))
	worst := map[faultrun.Fault]time.Duration{}
	for _, fault := range faultrun.All() {
		for _, phase := range engine.Phases() {
			name := strings.ReplaceAll(fmt.Sprintf("%s-%s", phase, fault), " ", "-")
			t.Run(name, func(t *testing.T) {
				b.configure(t, name)
				foreign := b.plant(t, name)
				o := faultrun.Strike(t, b.w, phase, fault, maxDuration, b.paused)

				// pause is entered before anything is paused, unpause while everything is.
				wasPaused := phase == engine.PhaseCapture || phase == engine.PhaseConfirm || phase == engine.PhaseUnpause
				if o.WasPaused != wasPaused {
					t.Errorf("paused when it struck: %v, want %v", o.WasPaused, wasPaused)
				}
				if o.WasPaused {
					worst[fault] = max(worst[fault], o.Unpaused)
				}
				allowed := 2 * time.Second
				if fault == faultrun.Stop {
					allowed += maxDuration
				}
				if o.WasPaused && o.Unpaused > allowed {
					t.Errorf("paused for %s after the fault", o.Unpaused)
				}
				b.checkClaims(t, name, phase, fault, o)
				b.next(t, name)
				for _, path := range foreign {
					if _, err := os.Stat(path); err != nil {
						t.Errorf("what somebody else made is gone: %v", err)
					}
				}
			})
		}
	}
	for fault, d := range worst {
		t.Logf("%s: unpaused %s later at worst", fault, d.Round(time.Millisecond))
	}
}

// plant puts into the catalog what others made under the same name: it must still be there at the end.
func (b *bed) plant(t *testing.T, name string) []string {
	t.Helper()
	var paths []string
	for _, p := range []string{"backups/" + name + "/aaaaaaaaaaaaaaaa/orders/theirs.zst", "backups/" + name + "-2/manifest.note"} {
		path := filepath.Join(b.catalog, filepath.FromSlash(p))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("theirs"), 0o600); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

// checkClaims: a window is claimed only where the fault came after it was confirmed, in time to be whole.
func (b *bed) checkClaims(t *testing.T, name string, phase engine.Phase, fault faultrun.Fault, o faultrun.Outcome) {
	t.Helper()
	values := b.w.Values(t, "scalardb_consistent_backup.b")
	manifest := filepath.Join(b.catalog, "backups", name, "manifest.json")
	_, err := os.Stat(manifest)
	after := phase == engine.PhaseUnpause || phase == engine.PhaseAwait || phase == engine.PhaseRecord
	// A run that was stopped before it paused anything goes on, and its window is a good one.
	before := fault == faultrun.Stop && (phase == engine.PhaseResolve || phase == engine.PhasePreflight || phase == engine.PhaseArm)
	if !after && !before {
		if o.Result.ExitCode == 0 {
			t.Errorf("the apply succeeded:\n%s", o.Result.All())
		}
		if values != nil && values["status"] == "available" || err == nil {
			t.Errorf("a window is claimed: state %v, manifest %v", values["status"], err)
		}
	}
	if fault == faultrun.CtrlC && phase != engine.PhaseRecord && !strings.Contains(o.Result.All(), "Interrupt received") {
		t.Errorf("the core did not say that it was interrupted:\n%s", o.Result.All())
	}
}

// next is the next apply: it cleans up and succeeds, and a plan after it is empty.
func (b *bed) next(t *testing.T, name string) {
	t.Helper()
	b.w.Must(t, "apply", "-auto-approve", "-input=false", "-no-color")
	values := b.w.Values(t, "scalardb_consistent_backup.b")
	if values["status"] != "available" || values["id"] != name {
		t.Errorf("the next apply left status %v of %v", values["status"], values["id"])
	}
	b.w.PlanIsEmpty(t)
	run := b.runOf(t, name)
	err := filepath.WalkDir(b.catalog, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(b.catalog, path)
		switch {
		case strings.HasPrefix(rel, "journal/"), strings.Contains(rel, "spool"), strings.Contains(rel, "tmp"):
			t.Errorf("%s is left", rel)
		case strings.HasPrefix(rel, "backups/"+name+"/"):
			if rel != "backups/"+name+"/manifest.json" && !strings.HasPrefix(rel, "backups/"+name+"/"+run+"/") && filepath.Base(rel) != "theirs.zst" {
				t.Errorf("%s is left of a run that failed", rel)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if b.paused() {
		t.Error("something is paused")
	}
	if left := faultrun.Processes(b.w.Dir); len(left) > 0 {
		t.Errorf("processes are left: %v", left)
	}
}

func (b *bed) runOf(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(b.catalog, "backups", name, "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	var m struct {
		RunID string `json:"run_id"`
	}
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	return m.RunID
}

// TestRepliesLostAndDelayed: a Pause whose answer is lost, late, or that is late itself, gives no window and leaves nothing paused.
func TestRepliesLostAndDelayed(t *testing.T) {
	b := newBed(t, cores.Oldest(t))
	for name, fault := range map[string]adminserver.Fault{
		"lost":         {Reply: adminserver.Lost},
		"dropped":      {Reply: adminserver.Dropped},
		"late":         {ReplyDelay: 3 * maxDuration},
		"late-request": {Delay: 800 * time.Millisecond},
		"lie":          {NoAct: true},
	} {
		t.Run(name, func(t *testing.T) {
			b.configure(t, name)
			b.Servers[0].Inject(adminserver.Pause, fault)
			started := time.Now()
			r := b.w.Run(t, "apply", "-auto-approve", "-input=false", "-no-color")
			if name != "late-request" && r.ExitCode == 0 {
				t.Errorf("the apply succeeded:\n%s", r.All())
			}
			for _, s := range b.Servers {
				for _, i := range s.Intervals() {
					if i.From.Before(started) {
						continue
					}
					if until := i.Until; until.IsZero() || until.Sub(i.From) > maxDuration+2*time.Second {
						t.Errorf("paused from %s to %s", i.From, until)
					}
				}
			}
			b.Servers[0].ClearFaults()
			b.next(t, name)
		})
	}
}

// TestSomebodyElsesPauseIsLeftAlone: a target that others paused is refused, and stays paused.
func TestSomebodyElsesPauseIsLeftAlone(t *testing.T) {
	b := newBed(t, cores.Oldest(t))
	if r := b.w.Run(t, "apply", "-auto-approve", "-input=false", "-no-color"); r.ExitCode != 0 {
		t.Fatalf("the first apply failed:\n%s", r.All())
	}
	foreignPause(t, b.Servers[1])
	b.configure(t, "second")
	r := b.w.Run(t, "apply", "-auto-approve", "-input=false", "-no-color")
	if r.ExitCode == 0 || !strings.Contains(oneLine(r.All()), "paused already, by somebody else") {
		t.Errorf("not refused:\n%s", r.All())
	}
	if !b.Servers[1].Paused() || b.Servers[0].Paused() {
		t.Error("somebody else's pause was lifted, or the other server paused")
	}
}

func oneLine(s string) string {
	return strings.Join(strings.Fields(strings.NewReplacer("│", " ", "╷", " ", "╵", " ").Replace(s)), " ")
}

// foreignPause is another operator's: a Pause by plain gRPC.
func foreignPause(t *testing.T, s *adminserver.Server) {
	t.Helper()
	c, err := grpc.NewClient(s.Address(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := adminpb.NewAdminClient(c).Pause(t.Context(), &adminpb.PauseRequest{WaitOutstanding: true}); err != nil {
		t.Fatal(err)
	}
}
