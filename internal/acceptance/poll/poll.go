// Package poll waits for what another process does, and for no longer than a limit.
package poll

import (
	"testing"
	"time"
)

// Until asks every few milliseconds whether it holds, and fails the test after the limit with what is missing and what say says then.
func Until(t testing.TB, limit time.Duration, missing string, holds func() bool, say func() string) {
	t.Helper()
	for deadline := time.Now().Add(limit); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s after %s:\n%s", missing, limit, say())
		}
	}
}
