//go:build faults

package provider

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

// phaseHook lets a test stop a run at the entry of a phase, to kill it there: with SCALARDB_FAULT_DIR set, the file DIR/PHASE.reached is made, and while
// DIR/PHASE.hold exists the run waits. It waits for nothing else, not even for a cancel: the test says when.
func phaseHook(getenv func(string) string) func(context.Context, engine.Phase) {
	dir := getenv("SCALARDB_FAULT_DIR")
	if dir == "" {
		return nil
	}
	return func(_ context.Context, p engine.Phase) {
		if err := os.WriteFile(filepath.Join(dir, string(p)+".reached"), nil, 0o600); err != nil {
			panic("fault injection: " + err.Error())
		}
		for {
			if _, err := os.Stat(filepath.Join(dir, string(p)+".hold")); err != nil {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}
