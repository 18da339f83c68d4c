//go:build acceptance

package realserver

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/faultrun"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/poll"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/cores"
)

// refused fails unless the apply failed with all of these texts, nothing is left of it, and the server is unpaused.
func (w *workspace) refused(t *testing.T, r cores.Result, texts ...string) {
	t.Helper()
	said := oneLine(r.All())
	if r.ExitCode == 0 {
		t.Errorf("the apply succeeded:\n%s", said)
	}
	for _, text := range texts {
		if !strings.Contains(said, text) {
			t.Errorf("the apply does not say %q:\n%s", text, said)
		}
	}
	if w.b.isPaused(t) {
		t.Error("the server is paused")
	}
	if left := files(t, w.catalog); len(left) > 0 {
		t.Errorf("left in the catalog: %v", left)
	}
	if values := w.Values(t, backupAddress); values != nil && values["status"] == "available" {
		t.Error("the state claims a backup")
	}
}

// succeeds applies, and fails unless that gives a backup.
func (w *workspace) succeeds(t *testing.T) {
	t.Helper()
	w.Must(t, "apply", "-no-color", "-auto-approve")
	if values := w.Values(t, backupAddress); values["status"] != "available" {
		t.Errorf("the next apply left status %v", values["status"])
	}
}

// testForeignWriter: an application that embeds ScalarDB, which no pause stops, writes in the window.
func testForeignWriter(t *testing.T, b *bed) {
	w := b.workspace(t, cores.Oldest(t), settings{least: "3s"})
	w.backup(t, "b", 0, "")
	w.Init(t)
	rogue := b.Past(t)
	defer rogue.Close()
	rogue.StartWriters(t, 1)
	rogue.WaitForCommits(t, 5, limit)
	began := time.Now()
	r := w.Apply(t)
	if n := rogue.Commits(t, began, time.Now()); n == 0 {
		t.Fatal("the foreign writer did not commit during the apply: the test shows nothing")
	}
	// Also a write that is still under way at the window's end is one.
	w.refused(t, r, "written", "the pause window", "likely by a ScalarDB server, or an application that embeds ScalarDB, that is not among the targets")
	if len(b.stores) == 1 && !strings.Contains(oneLine(r.All()), "On: "+b.stores[0].name+".") {
		t.Errorf("the apply does not name the storage:\n%s", r.All())
	}
	rogue.Stop(t)
	w.provider(t, settings{})
	w.succeeds(t)
}

// testOpenTransaction: a transaction that does not end within drain_timeout, and one that does.
func testOpenTransaction(t *testing.T, b *bed) {
	w := b.workspace(t, cores.Oldest(t), settings{drain: "1s"})
	w.backup(t, "b", 0, "")
	w.Init(t)
	b.Bank.Hold(t)
	w.refused(t, w.Apply(t), b.Addr, "did not finish what is in flight within drain_timeout (1s)")
	// It may have lost against the writers by now, which is an end too.
	if err := b.Bank.Release(t); err != nil {
		t.Logf("the open transaction: %v", err)
	}

	// One that ends within it, after longer than a process may stand still.
	w.provider(t, settings{drain: "60s", longest: "90s"})
	b.Bank.Hold(t)
	apply := w.Start(t, "apply", "-no-color", "-auto-approve")
	poll.Until(t, limit, "the server is not paused", func() bool { return b.isPaused(t) }, apply.Output)
	draining := time.Now()
	poll.Until(t, limit, "no time passes", func() bool { return time.Since(draining) > 5*time.Second }, apply.Output)
	if err := b.Bank.Release(t); err != nil {
		t.Logf("the open transaction: %v", err)
	}
	if r := apply.Wait(t, limit); r.ExitCode != 0 {
		t.Fatalf("the apply failed, exit code %d:\n%s", r.ExitCode, r.All())
	}
	if got := windowOf(t, w.Values(t, backupAddress)["pause_window"]); got.DrainMS < 5000 {
		t.Errorf("the window %+v did not wait for the open transaction", got)
	}
}

// testRestartInWindow: the server crashes in the window and is back, unpaused, before its end.
func testRestartInWindow(t *testing.T, b *bed) {
	w := b.workspace(t, cores.Oldest(t), settings{version: faultrun.Version, least: "20s", longest: "60s"})
	w.backup(t, "b", 0, "")
	w.Init(t)
	apply := w.applyUntilCapture(t, false)
	b.Kill(t)
	b.Restart(b.owner) // not t: the server has to outlive this test
	r := apply.Wait(t, limit)
	w.refused(t, r, b.Addr)
	if said := oneLine(r.All()); !strings.Contains(said, "restarted") && !strings.Contains(said, "came unpaused") {
		t.Errorf("the apply does not say what happened:\n%s", said)
	}
	w.provider(t, settings{version: faultrun.Version})
	w.succeeds(t)
}

// applyUntilCapture starts an apply, by the version with fault injection, and waits until its window is open; there it is held for ever, or not.
func (w *workspace) applyUntilCapture(t *testing.T, hold bool) *cores.Process {
	t.Helper()
	dir := t.TempDir()
	if hold {
		if err := os.WriteFile(filepath.Join(dir, "capture.hold"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.Env = []string{"SCALARDB_FAULT_DIR=" + dir}
	apply := w.Start(t, "apply", "-no-color", "-auto-approve")
	w.Env = nil
	poll.Until(t, limit, "the window did not open", func() bool {
		_, err := os.Stat(filepath.Join(dir, "capture.reached"))
		return err == nil
	}, apply.Output)
	return apply
}

// testUpgrade: the next version of the provider has nothing to do on the state of this one.
func testUpgrade(t *testing.T, b *bed) {
	core := cores.Oldest(t)
	w := b.workspace(t, core, settings{})
	w.backup(t, "b", 0, "")
	w.restore(t, backupAddress+".id", "upgraded", 0, "deletion_protection = false")
	w.Init(t)
	w.Must(t, "apply", "-no-color", "-auto-approve")
	watch := b.WatchPauses(t)
	w.provider(t, settings{version: faultrun.Version})
	w.Must(t, "init", "-no-color", "-upgrade")
	if r := w.Must(t, "version"); !strings.Contains(r.All(), "scalardb v"+faultrun.Version) {
		t.Fatalf("not upgraded:\n%s", r.All())
	}
	w.PlanIsEmpty(t)
	if r := w.Destroy(t); r.ExitCode != 0 {
		t.Errorf("the destroy by the next version: exit code %d\n%s", r.ExitCode, r.All())
	}
	if left := files(t, w.catalog); len(left) > 0 {
		t.Errorf("left in the catalog: %v", left)
	}
	if n := len(watch.Stop()); n != 0 {
		t.Errorf("%d pauses by an upgrade and a destroy", n)
	}
}

// testUnpauseCommand: provider and watchdog are both killed in the window. Nothing is left that could unpause: the next plan says so, and
// the command does it.
func testUnpauseCommand(t *testing.T, b *bed) {
	w := b.workspace(t, cores.Oldest(t), settings{version: faultrun.Version, drain: "5s", longest: "8s"})
	w.backup(t, "b", 0, "")
	w.Init(t)
	apply := w.applyUntilCapture(t, true)
	watchdogs := 0
	for _, p := range faultrun.Processes(w.Dir) {
		// The watchdog first: it would notice the other's death.
		if strings.HasSuffix(strings.TrimSpace(p), " watchdog") {
			watchdogs++
			kill(t, p)
		}
	}
	if watchdogs != 1 {
		t.Fatalf("%d watchdogs, want one: %q", watchdogs, faultrun.Processes(w.Dir))
	}
	for _, p := range faultrun.Processes(w.Dir) {
		kill(t, p)
	}
	if r := apply.Wait(t, limit); r.ExitCode == 0 {
		t.Errorf("the apply succeeded:\n%s", r.All())
	}
	poll.Until(t, limit, "processes are left", func() bool { return len(faultrun.Processes(w.Dir)) == 0 }, apply.Output)
	if !b.isPaused(t) {
		t.Fatal("the server is not paused: the test shows nothing")
	}

	const warning = "A run may have left targets paused"
	if r := w.Must(t, "plan", "-no-color"); !strings.Contains(r.All(), "Warning: "+warning) || !strings.Contains(oneLine(r.All()), b.Addr) || !strings.Contains(r.All(), "unpause --catalog") {
		t.Errorf("the plan does not warn:\n%s", r.All())
	}
	if !b.isPaused(t) {
		t.Error("a plan lifted the pause")
	}
	out, err := exec.CommandContext(t.Context(), b.mirror.Binary(), "unpause", "--catalog", w.catalog).CombinedOutput()
	if err != nil {
		t.Errorf("unpause: %v\n%s", err, out)
	}
	if b.isPaused(t) {
		t.Errorf("still paused after the command:\n%s", out)
	}
	if r := w.Must(t, "plan", "-no-color"); strings.Contains(r.All(), warning) {
		t.Errorf("the plan still warns:\n%s", r.All())
	}
	w.succeeds(t)
	w.onlyWhole(t)
}

// kill ends a process of faultrun.Processes.
func kill(t *testing.T, process string) {
	t.Helper()
	number, _, _ := strings.Cut(process, " ")
	pid, err := strconv.Atoi(number)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatalf("killing %q: %v", process, err)
	}
}
