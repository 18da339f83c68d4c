//go:build acceptance

package aws

import (
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/faultrun"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/cores"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

// TestKilledRestore: a provider that is killed in a restore, in each of its phases and in the middle of making things, leaves nothing that the
// next apply does not find: there is one copy in the end, and none after the destroy.
func TestKilledRestore(t *testing.T) {
	t.Parallel()
	s := startShop(t)
	mirror := cores.NewMirror(t)
	faultrun.AddTo(t, mirror)
	before := s.inventory()
	w := s.workspace(t, cores.Newest(t), mirror, s.Addr, logins())
	s.provider(t, w, faultrun.Version, s.Addr, logins())
	w.Init(t)
	w.Write(t, "backup.tf", "resource \"scalardb_consistent_backup\" \"release\" {\n  name = \"release\"\n  storages = {%s  }\n}\n", sources)
	w.Must(t, "apply", "-auto-approve", "-input=false", "-no-color")

	whole := func(t *testing.T) {
		t.Helper()
		w.Must(t, "apply", "-auto-approve", "-input=false", "-no-color")
		if status := w.Values(t, restoreAddress)["status"]; status != "available" {
			t.Errorf("after the next apply the restore is %v", status)
		}
		made := slices.DeleteFunc(s.inventory(), func(i string) bool { return slices.Contains(before, i) })
		instances := 0
		for _, i := range made {
			if strings.HasPrefix(i, "rds ") {
				instances++
			}
		}
		if instances != 1 || len(made) < 4 {
			t.Errorf("after the next apply there is, besides the sources:\n%s", strings.Join(made, "\n"))
		}
		if rows, sum := s.read(t, w, restoreAddress); rows != s.Config.Rows() || sum != s.Config.Total() {
			t.Errorf("the clone has %d rows with a sum of %d, want %d and %d", rows, sum, s.Config.Rows(), s.Config.Total())
		}
		w.Must(t, "destroy", "-target="+restoreAddress, "-auto-approve", "-input=false", "-no-color")
		s.unchanged(t, before)
	}
	for _, phase := range []engine.Phase{engine.PhaseArm, engine.PhasePreflight, engine.PhaseRestore, engine.PhaseVerify, engine.PhaseRecord} {
		t.Run(string(phase), func(t *testing.T) {
			clone(t, w, "killed", "pause_window = "+backupAddress+".pause_window", "deletion_protection = false")
			faultrun.Strike(t, w, phase, faultrun.KillProvider, 0, func() bool { return false })
			whole(t)
		})
	}
	t.Run("while it makes things", func(t *testing.T) {
		clone(t, w, "killed", "pause_window = "+backupAddress+".pause_window", "deletion_protection = false")
		apply := w.Start(t, "apply", "-auto-approve", "-input=false", "-no-color")
		until(t, "nothing was made", func() bool { return len(s.inventory()) > len(before) })
		apply.SignalProvider(t, syscall.SIGKILL, limit)
		apply.Wait(t, limit)
		whole(t)
	})
}
