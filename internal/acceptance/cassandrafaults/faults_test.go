//go:build acceptance

package cassandrafaults

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/faultrun"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/poll"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/cores"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

// TestFaults has one cluster for all. Whatever strikes, nothing stays paused, no backup is claimed, and after the next apply there is no snapshot of the run that
// failed on any node, and nothing of it in the catalog but files that the next upload finds again.
func TestFaults(t *testing.T) {
	began := time.Now()
	b := newBed(t, cores.Oldest(t))
	t.Logf("the cluster and the provider: %.1f s", time.Since(began).Seconds())
	for _, p := range engine.Phases() {
		b.run(t, "killed-in-"+string(p), func(t *testing.T, name string) { b.killed(t, name, p) })
	}
	b.run(t, "killed-uploading", b.killedUploading)
	b.run(t, "ssh-gone", b.sshGone)
	b.run(t, "disk-full", b.diskFull)
	b.run(t, "node-killed", b.nodeKilled)
	b.run(t, "destroyed", b.destroyed)
}

func (b *bed) run(t *testing.T, name string, f func(*testing.T, string)) {
	t.Run(name, func(t *testing.T) {
		began := time.Now()
		f(t, name)
		t.Logf("took %.1f s", time.Since(began).Seconds())
	})
}

// killed kills the provider at the entry of a phase.
func (b *bed) killed(t *testing.T, name string, phase engine.Phase) {
	b.configure(t, name, 0)
	if phase == engine.PhaseArm { // it has the lock, and no watchdog yet that would release it
		b.pausing(t, name, 0, shortest)
	}
	o := faultrun.Strike(t, b.w, phase, faultrun.KillProvider, longest, b.server.Paused)
	if want := faultrun.PausedAt(phase); o.WasPaused != want {
		t.Errorf("paused when it struck: %v, want %v", o.WasPaused, want)
	}
	if o.WasPaused && o.Unpaused > faultrun.Slack {
		t.Errorf("paused for %s after the fault", o.Unpaused)
	}
	b.claimsNothing(t, name, o.Result)
	// At the entry of record the upload is done, and the snapshot cleared.
	taken := phase == engine.PhaseConfirm || phase == engine.PhaseUnpause || phase == engine.PhaseAwait
	if left := b.snapshots(t); taken != (len(left) > 0) {
		t.Errorf("the snapshots that the dead run left: %v, want some: %v", left, taken)
	}
	b.configure(t, name, 0)
	b.next(t, name)
}

// killedUploading kills the provider with half of the files in the catalog.
func (b *bed) killedUploading(t *testing.T, name string) {
	apply := b.uploading(t, name)
	apply.SignalProvider(t, syscall.SIGKILL, limit)
	r := faultrun.Ended(t, b.w, apply, limit)
	b.claimsNothing(t, name, r)
	if len(b.files(t, "cassandra/pins")) != 1 || len(b.snapshots(t)) == 0 {
		t.Error("the dead run left no pin, or no snapshot: the test shows nothing")
	}
	b.configure(t, name, 0)
	b.next(t, name)
}

// sshGone takes the nodes' SSH server away during the upload. The nodes are still there over JMX, so nothing is left even before the next apply. That one loses
// its connections in the middle, and goes on with new ones.
func (b *bed) sshGone(t *testing.T, name string) {
	apply := b.uploading(t, name)
	b.ssh.Stop(t)
	r := faultrun.Ended(t, b.w, apply, limit)
	b.claimsNothing(t, name, r)
	if !slices.ContainsFunc(b.cluster.ContactPoints(), func(a string) bool { return strings.Contains(oneLine(r.All()), "uploading the snapshot of node "+a) }) {
		t.Errorf("the error does not name a node:\n%s", r.All())
	}
	if left := b.snapshots(t); len(left) > 0 {
		t.Errorf("snapshots are left:\n%s", strings.Join(left, "\n"))
	}
	if pins := b.files(t, "cassandra/pins"); len(pins) > 0 {
		t.Errorf("pins are left: %v", pins)
	}
	b.ssh.Start(t)
	apply = b.uploading(t, name)
	b.ssh.CutConnections(t)
	if r := faultrun.Ended(t, b.w, apply, limit); r.ExitCode != 0 {
		t.Errorf("the upload did not survive the loss of its connections:\n%s", r.All())
	}
	b.onlyWhole(t, name)
}

// diskFull puts the catalog onto a small disk of its own, and fills that during the upload.
func (b *bed) diskFull(t *testing.T, name string) {
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=96m"); err != nil {
		t.Fatalf("mounting a small disk (tmpfs), which needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmounting the small disk: %v", err)
		}
	})
	b.w.Must(t, "destroy", "-auto-approve", "-no-color") // from the catalog that it is in
	before := b.catalog
	b.catalog = filepath.Join(disk, "catalog")

	apply := b.uploading(t, name)
	ballast := filepath.Join(disk, "ballast")
	fill(t, ballast)
	r := faultrun.Ended(t, b.w, apply, limit)
	b.claimsNothing(t, name, r)
	if !strings.Contains(oneLine(r.All()), "no space left on device") {
		t.Errorf("the error does not say that the disk is full:\n%s", r.All())
	}
	if left := b.snapshots(t); len(left) > 0 {
		t.Errorf("snapshots are left:\n%s", strings.Join(left, "\n"))
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	b.configure(t, name, 0)
	b.next(t, name)
	b.w.Must(t, "destroy", "-auto-approve", "-no-color")
	b.catalog = before
}

// fill writes until there is no room.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// Smaller and smaller, so that nothing is left.
	for size := 1 << 20; size > 0; size /= 4 {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
}

// nodeKilled: a node dies in the window, with its snapshot taken. What the others have goes at once, what it has when it is back.
func (b *bed) nodeKilled(t *testing.T, name string) {
	b.configure(t, name, 0)
	apply, release := faultrun.Hold(t, b.w, engine.PhaseConfirm)
	if !b.server.Paused() {
		t.Error("nothing is paused in the window")
	}
	victim := b.cluster.Nodes[2]
	victim.Kill(t)
	release()
	poll.Until(t, limit, "still paused", func() bool { return !b.server.Paused() }, apply.Output)
	r := faultrun.Ended(t, b.w, apply, limit)
	b.claimsNothing(t, name, r)
	if !strings.Contains(r.All(), victim.Address) {
		t.Errorf("the error does not name the node:\n%s", r.All())
	}
	victim.Start(t)
	b.cluster.WaitUp(t)
	left := b.snapshots(t)
	if len(left) == 0 || slices.ContainsFunc(left, func(s string) bool { return !strings.HasSuffix(s, " on "+victim.Address) }) {
		t.Errorf("the snapshots after the node came back, of which only it should have some: %v", left)
	}
	b.next(t, name)
}

// destroyed: with the last backup go all SSTables, also those that only uploads sent which were cut short: the next ones shared them. What belongs to such a run's
// snapshot alone (its own small manifest.json, and so on) stays for a day, as files do that nobody is known to need.
func (b *bed) destroyed(t *testing.T, _ string) {
	b.w.PlanIsEmpty(t)
	b.w.Must(t, "destroy", "-auto-approve", "-no-color")
	for _, f := range b.files(t, "") {
		info, err := os.Stat(filepath.Join(b.catalog, f))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(f, "cassandra/blobs/") || info.Size() > 16<<10 {
			t.Errorf("left in the catalog: %s with %d bytes", f, info.Size())
		}
	}
	if left := b.snapshots(t); len(left) > 0 {
		t.Errorf("snapshots are left:\n%s", strings.Join(left, "\n"))
	}
}

func oneLine(s string) string {
	return strings.Join(strings.Fields(strings.NewReplacer("│", " ", "╷", " ", "╵", " ").Replace(s)), " ")
}
