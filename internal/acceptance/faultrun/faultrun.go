// Package faultrun strikes at an apply in a chosen phase: the acceptance tests of what happens to a backup that is killed, cancelled or
// stopped. It needs a provider built with the tag `faults`, which waits at the entry of a phase as long as a file is there.
package faultrun

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/poll"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/cores"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

// Fault is what strikes.
type Fault string

// The faults.
const (
	KillProvider Fault = "provider killed"
	KillCore     Fault = "core killed"
	CtrlC        Fault = "Ctrl-C"
	CtrlCTwice   Fault = "Ctrl-C twice"
	Stop         Fault = "stopped until the watchdog fired"
)

// All lists them.
func All() []Fault { return []Fault{KillProvider, KillCore, CtrlC, CtrlCTwice, Stop} }

// limit of every single wait: generous, since a busy machine is no fault.
const limit = 3 * time.Minute

// Slack is what a busy machine may add to a pause after a fault: milliseconds on one that is not.
const Slack = 5 * time.Second

// PausedAt says whether targets are paused at the entry of a phase: pause is entered before anything is paused, unpause while everything is.
func PausedAt(p engine.Phase) bool {
	return p == engine.PhaseCapture || p == engine.PhaseConfirm || p == engine.PhaseUnpause
}

// MaxDuration of the pause that a fault strikes. It is far away where something else has to end the pause, long before; otherwise it is short.
func MaxDuration(p engine.Phase, f Fault, short time.Duration) time.Duration {
	if PausedAt(p) && f != Stop {
		return 5 * Slack
	}
	return short
}

// Version of the provider with fault injection.
const Version = "1.0.1"

// AddTo builds the provider with fault injection and puts it into the mirror.
func AddTo(t testing.TB, m *cores.Mirror) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "terraform-provider-scalardb")
	build := exec.CommandContext(t.Context(), "go", "build", "-tags", "faults", "-ldflags", "-X main.version="+Version, "-o", path, ".")
	build.Dir = testbed.Root(t)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the provider with fault injection: %v\n%s", err, out)
	}
	m.Add(t, Version, path)
}

// Outcome of a strike.
type Outcome struct {
	WasPaused bool          // when it struck
	Unpaused  time.Duration // from the strike until no target was paused
	Result    cores.Result
}

// Strike applies, lets the fault strike at the entry of a phase, and waits until it is all over. paused asks every target; it is polled.
// longest is the configuration's max_duration.
func Strike(t testing.TB, w *cores.Workspace, p engine.Phase, f Fault, longest time.Duration, paused func() bool) Outcome {
	t.Helper()
	apply, release := Hold(t, w, p)
	o := Outcome{WasPaused: paused()}
	struck := time.Now()
	switch f {
	case KillProvider:
		apply.SignalProvider(t, syscall.SIGKILL, limit)
	case KillCore:
		apply.SignalCore(t, syscall.SIGKILL)
		apply.Wait(t, limit) // dead for good before the provider goes on
		release()
	case CtrlC:
		apply.Interrupt(t)
		apply.WaitFor(t, "Interrupt received", limit)
		release()
	case CtrlCTwice:
		apply.Interrupt(t)
		apply.WaitFor(t, "Interrupt received", limit)
		apply.Interrupt(t)
		release()
	case Stop:
		pids := apply.SignalProvider(t, syscall.SIGSTOP, limit)
		release()
		if o.WasPaused {
			poll.Until(t, longest+10*time.Second, "the watchdog did not unpause", func() bool { return !paused() }, apply.Output)
		} else {
			poll.Until(t, limit, "nothing", func() bool { return time.Since(struck) > longest }, apply.Output)
		}
		o.Unpaused = time.Since(struck)
		for _, pid := range pids {
			if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
				t.Fatalf("letting the provider go on: %v", err)
			}
		}
	}
	poll.Until(t, limit, "still paused", func() bool { return !paused() }, apply.Output)
	if f != Stop {
		o.Unpaused = time.Since(struck)
	}
	o.Result = Ended(t, w, apply, limit)
	return o
}

// Hold applies until the entry of a phase, where the run waits for release.
func Hold(t testing.TB, w *cores.Workspace, p engine.Phase) (apply *cores.Process, release func()) {
	t.Helper()
	dir := t.TempDir()
	hold := filepath.Join(dir, string(p)+".hold")
	if err := os.WriteFile(hold, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	env := w.Env
	w.Env = append(append([]string{}, env...), "SCALARDB_FAULT_DIR="+dir)
	defer func() { w.Env = env }()

	apply = w.Start(t, "apply", "-auto-approve", "-input=false", "-no-color")
	poll.Until(t, limit, "the apply did not reach the phase "+string(p), func() bool {
		_, err := os.Stat(filepath.Join(dir, string(p)+".reached"))
		return err == nil
	}, apply.Output)
	return apply, func() {
		if err := os.Remove(hold); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

// Ended waits until an apply is over, and all that it started.
func Ended(t testing.TB, w *cores.Workspace, apply *cores.Process, limit time.Duration) cores.Result {
	t.Helper()
	r := apply.Wait(t, limit)
	// What goes on without the core, a provider that cleans up or a watchdog, has its time too.
	poll.Until(t, limit, "processes of the provider are left", func() bool { return len(Processes(w.Dir)) == 0 }, func() string { return strings.Join(Processes(w.Dir), "\n") })
	return r
}

// Processes lists what still runs of a workspace's provider: providers, watchdogs, by their executable below the workspace or its mirror.
func Processes(string) []string {
	var found []string
	exes, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, exe := range exes {
		path, err := os.Readlink(exe)
		if err != nil || !strings.Contains(filepath.Base(path), "terraform-provider-scalardb_v"+Version) {
			continue
		}
		cmdline, err := os.ReadFile(filepath.Join(filepath.Dir(exe), "cmdline"))
		if err != nil || len(cmdline) == 0 {
			continue // a zombie
		}
		found = append(found, filepath.Base(filepath.Dir(exe))+" "+strings.ReplaceAll(string(cmdline), "\x00", " "))
	}
	return found
}
