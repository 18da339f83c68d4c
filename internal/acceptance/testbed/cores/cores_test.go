//go:build acceptance

package cores

import (
	"strings"
	"syscall"
	"testing"
	"time"
)

// Every core is the version it is listed as, applies, plans empty, and obeys signals.
func TestCores(t *testing.T) {
	for _, core := range All(t) {
		t.Run(core.String(), func(t *testing.T) {
			w := core.Workspace(t, &Mirror{dir: t.TempDir()})
			if r := w.Must(t, "version"); !strings.Contains(r.Stdout, "v"+core.Version) || r.Stderr != "" {
				t.Fatalf("got %q, want version %s and no warning", r.All(), core.Version)
			}
			w.Write(t, "main.tf", `resource "terraform_data" "x" { input = %q }`, "hello")
			w.Init(t)
			if r := w.Apply(t); r.ExitCode != 0 {
				t.Fatal(r.All())
			}
			w.PlanIsEmpty(t)
			if got := w.Values(t, "terraform_data.x")["output"]; got != "hello" {
				t.Errorf("got %v", got)
			}
			w.Write(t, "main.tf", `resource "terraform_data" "x" { input = "other" }`)
			if r := w.Run(t, "plan", "-detailed-exitcode"); r.ExitCode != 2 {
				t.Errorf("a plan with changes: exit code %d, want 2", r.ExitCode)
			}
		})
		t.Run(core.String()+"/signals", func(t *testing.T) {
			w := core.Workspace(t, &Mirror{dir: t.TempDir()})
			w.Write(t, "main.tf", `resource "terraform_data" "x" {
  provisioner "local-exec" { command = "echo now running; exec sleep 60" }
}`)
			w.Init(t)
			p := w.Start(t, "apply", "-no-color", "-auto-approve")
			p.WaitFor(t, "now running", time.Minute)
			p.Interrupt(t)
			if r := p.Wait(t, time.Minute); r.ExitCode != 1 || !strings.Contains(r.All(), "Interrupt received") {
				t.Errorf("after Ctrl-C: %+v", r)
			}
			p = w.Start(t, "apply", "-no-color", "-auto-approve")
			p.WaitFor(t, "now running", time.Minute)
			p.SignalCore(t, syscall.SIGKILL)
			if r := p.Wait(t, time.Minute); r.ExitCode != -1 {
				t.Errorf("after SIGKILL: %+v", r)
			}
		})
	}
}
