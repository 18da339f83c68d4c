package rds

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

// How often a state is asked for while it is waited for.
const (
	firstWait = 500 * time.Millisecond
	longest   = 15 * time.Second
	// quiet is how long a wait says nothing when nothing changes.
	quiet = time.Minute
)

// Waiter waits for what takes AWS its time.
type Waiter struct {
	Clock  engine.Clock
	Report func(message string, fields map[string]any)
}

// Until asks look, with growing pauses, until it is done; its error ends the wait. state is what is shown meanwhile, and when ctx ends first.
func (w Waiter) Until(ctx context.Context, what string, look func(ctx context.Context) (done bool, state string, err error)) error {
	said, shown := w.Clock.Boot(), ""
	for wait := firstWait; ; wait = min(wait*3/2, longest) {
		done, state, err := look(ctx)
		if err != nil || done {
			return err
		}
		if now := w.Clock.Boot(); state != shown || now-said >= quiet {
			shown, said = state, now
			if w.Report != nil {
				w.Report("waiting until "+what, map[string]any{"now": state})
			}
		}
		if err := w.Clock.Sleep(ctx, wait); err != nil {
			return fmt.Errorf("waiting until %s: %w (it was %s)", what, err, state)
		}
	}
}

// Usable says whether an instance or a cluster of that status answers clients, and can be backed up.
func Usable(status string) bool {
	switch status {
	case "available", "backing-up", "storage-optimization", "storage-initialization", "storage-config-upgrade":
		return true
	}
	return strings.HasPrefix(status, "configuring-")
}

// Broken says whether a status will not get better by waiting.
func Broken(status string) bool {
	switch status {
	case "failed", "restore-error", "storage-full", "insufficient-capacity", "deleting", "deleted", "delete-precheck", "stopping", "stopped",
		"migration-failed", "cloning-failed", "encryption-error":
		return true
	}
	return strings.HasPrefix(status, "incompatible-") || strings.HasPrefix(status, "inaccessible-encryption-credentials")
}

// Remedy says what to do about a broken status.
func Remedy(status string) string {
	switch {
	case strings.HasPrefix(status, "inaccessible-encryption-credentials"):
		return "RDS cannot use its KMS key: enable the key and let RDS use it"
	case status == "stopped" || status == "stopping":
		return "start it"
	case status == "storage-full":
		return "give it more storage"
	case strings.HasPrefix(status, "incompatible-"):
		return "the events of the instance in the RDS console say what does not fit"
	}
	return "look at its events in the RDS console"
}
