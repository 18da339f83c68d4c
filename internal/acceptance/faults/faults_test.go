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
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/faultrun"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/poll"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/sandbox"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/cores"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/admin/adminpb"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/adminserver"
)

// maxDuration of a pause in these tests: how long a stopped provider keeps the sandbox paused, and how long a busy machine may take over a window
// that succeeds.
const maxDuration = 4 * time.Second

// limit of a single wait.
const limit = 3 * time.Minute

// configuration is one backup under a name. It retains, so that a case leaves nothing to the next one.
const configuration = `
terraform {
  required_providers { scalardb = { source = "scalar-labs/scalardb", version = "%s" } }
}
provider "scalardb" {
  pause = {
    targets       = { main = { addresses = ["%s"] } }
    drain_timeout = "2s"
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

// address of the backup in the configuration.
const address = "scalardb_consistent_backup.b"

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
	b.configure(t, "first", maxDuration)
	b.w.Init(t)
	return b
}

func (b *bed) configure(t *testing.T, name string, longest time.Duration) {
	t.Helper()
	b.w.Write(t, "main.tf", configuration, faultrun.Version, strings.Join(b.Addresses(), `", "`), longest, b.catalog, name, b.Orders, b.Events)
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
				longest := faultrun.MaxDuration(phase, fault, maxDuration)
				b.configure(t, name, longest)
				foreign := b.plant(t, name)
				o := faultrun.Strike(t, b.w, phase, fault, longest, b.paused)

				if want := faultrun.PausedAt(phase); o.WasPaused != want {
					t.Errorf("paused when it struck: %v, want %v", o.WasPaused, want)
				}
				if o.WasPaused {
					worst[fault] = max(worst[fault], o.Unpaused)
				}
				allowed := faultrun.Slack
				if fault == faultrun.Stop {
					allowed += longest
				}
				if o.WasPaused && o.Unpaused > allowed {
					t.Errorf("paused for %s after the fault", o.Unpaused)
				}
				b.checkClaims(t, name, phase, fault, o)
				b.store(t, name, phase, fault)
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

// afterWindow says that a fault at the entry of this phase may leave a whole backup.
func afterWindow(phase engine.Phase) bool {
	return phase == engine.PhaseUnpause || phase == engine.PhaseAwait || phase == engine.PhaseRecord
}

// checkClaims: a window is claimed only where the fault came after it was confirmed, in time to be whole.
func (b *bed) checkClaims(t *testing.T, name string, phase engine.Phase, fault faultrun.Fault, o faultrun.Outcome) {
	t.Helper()
	values := b.w.Values(t, address)
	manifest := filepath.Join(b.catalog, "backups", name, "manifest.json")
	_, err := os.Stat(manifest)
	after := afterWindow(phase)
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

// store imports a backup that is whole, and that Terraform did not live to store: a second Ctrl-C may come between the last that the provider does and its
// answer.
func (b *bed) store(t *testing.T, name string, phase engine.Phase, fault faultrun.Fault) {
	t.Helper()
	if !afterWindow(phase) || fault != faultrun.CtrlCTwice || b.w.Values(t, address) != nil {
		return
	}
	// Where it was not whole, this apply has made it.
	if r := b.w.Apply(t); r.ExitCode != 0 {
		b.refusedAndImported(t, name, r)
	}
}

// refusedAndImported: a backup of that name is there and is not made again, and can be had as the message says.
func (b *bed) refusedAndImported(t *testing.T, name string, r cores.Result) {
	t.Helper()
	if hint := "import it (terraform import ADDRESS " + name + ")"; r.ExitCode == 0 || !strings.Contains(oneLine(r.All()), hint) {
		t.Fatalf("exit code %d, and it must say %q:\n%s", r.ExitCode, hint, r.All())
	}
	b.w.Must(t, "import", "-input=false", "-no-color", address, name)
}

// TestTerraformDiesBeforeItStores: the provider has done all, and whoever would store the answer is gone. The backup is whole, and is not lost.
func TestTerraformDiesBeforeItStores(t *testing.T) {
	b := newBed(t, cores.Oldest(t))
	for _, name := range []string{"recorded", "cancelled"} {
		t.Run(name, func(t *testing.T) {
			b.configure(t, name, maxDuration)
			apply, release := faultrun.Hold(t, b.w, engine.PhaseRecord)
			done := func() bool {
				_, recorded := os.Stat(filepath.Join(b.catalog, "backups", name, "manifest.json"))
				open, err := filepath.Glob(filepath.Join(b.catalog, "journal", "*.json"))
				return recorded == nil && err == nil && len(open) == 0
			}
			if name == "cancelled" {
				apply.Interrupt(t)
				apply.WaitFor(t, "Interrupt received", limit)
				// The manifest was not written, and is to be.
				done = func() bool {
					open, err := filepath.Glob(filepath.Join(b.catalog, "journal", "*.json"))
					if err != nil || len(open) != 1 {
						return false
					}
					data, err := os.ReadFile(open[0])
					var j engine.Journal
					return err == nil && json.Unmarshal(data, &j) == nil && j.Kept
				}
			}
			apply.SignalCore(t, syscall.SIGSTOP)
			release()
			poll.Until(t, limit, "the provider is not done", done, apply.Output)
			// With its machine: a provider that is done would stay, and wait for calls.
			providers := apply.SignalProvider(t, syscall.SIGSTOP, limit)
			apply.SignalCore(t, syscall.SIGKILL)
			for _, pid := range providers {
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
			faultrun.Ended(t, b.w, apply, limit)

			if values := b.w.Values(t, address); values != nil {
				t.Fatalf("the state has %v", values)
			}
			b.refusedAndImported(t, name, b.w.Apply(t))
			b.next(t, name)
		})
	}
}

// next is the next apply: it cleans up and succeeds, and a plan after it is empty.
func (b *bed) next(t *testing.T, name string) {
	t.Helper()
	b.w.Must(t, "apply", "-auto-approve", "-input=false", "-no-color")
	values := b.w.Values(t, address)
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
			b.configure(t, name, maxDuration)
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
					if until := i.Until; until.IsZero() || until.Sub(i.From) > maxDuration+faultrun.Slack {
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
	b.configure(t, "second", maxDuration)
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
