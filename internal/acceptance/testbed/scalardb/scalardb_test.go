//go:build acceptance

package scalardb

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/admin/adminpb"
)

func pause(t *testing.T, admin adminpb.AdminClient) {
	t.Helper()
	wait := int64(10_000)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := admin.Pause(ctx, &adminpb.PauseRequest{WaitOutstanding: true, MaxPauseWaitTime: &wait}); err != nil {
		t.Fatalf("pausing: %v", err)
	}
}

func unpause(t *testing.T, admin adminpb.AdminClient) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := admin.Unpause(ctx, &emptypb.Empty{}); err != nil {
		t.Fatalf("unpausing: %v", err)
	}
}

// The bed itself: the bank writes, a pause stops it and nobody else, the sum stays, a restarted server is unpaused.
func TestBed(t *testing.T) {
	s := Start(t, Config{Storages: []Storage{SQLite("main", filepath.Join(t.TempDir(), "bank.db"))}})
	admin := s.Admin(t)
	watch := s.WatchPauses(t)

	s.Bank.StartWriters(t, 4)
	s.Bank.WaitForCommits(t, 50, time.Minute)

	asked := time.Now()
	pause(t, admin)
	paused := time.Now()
	if !s.Paused(t) {
		t.Error("the server says that it isn't paused")
	}
	before := s.Bank.Stats(t).Commits
	past := s.Past(t)
	past.StartWriters(t, 1)
	past.WaitForCommits(t, 5, time.Minute)
	past.Stop(t)
	past.Close()
	if after := s.Bank.Stats(t).Commits; after > before {
		t.Errorf("%d commits through the paused server", after-before)
	}
	unpausing := time.Now()
	unpause(t, admin)
	unpaused := time.Now()

	s.Bank.WaitForCommits(t, 50, 2*time.Minute)
	// Among busy writers a transaction meets records that are just being committed: it has to be tried again.
	lost := 0
	for range 30 {
		s.Bank.Hold(t)
		if s.Bank.Release(t) != nil {
			lost++
		}
	}
	t.Logf("%d of 30 transactions lost against the writers after they had read", lost)
	s.Bank.Stop(t)
	if gap := s.Bank.Gap(t, paused.Add(-time.Second), time.Now()); gap.Duration() < unpaused.Sub(paused)-100*time.Millisecond {
		t.Errorf("the writers saw a gap of %s, the pause lasted %s", gap.Duration(), unpaused.Sub(paused))
	}
	pauses := watch.Stop()
	if len(pauses) != 1 || pauses[0].From.Before(asked) || pauses[0].From.After(unpaused) || pauses[0].To.Before(unpausing) {
		t.Errorf("watched %v, want one pause from between %s and %s to after %s", pauses, asked, unpaused, unpausing)
	}
	if n := watch.Denied(paused, unpausing); n > 0 {
		t.Errorf("%d answers of the paused server that it is not", n)
	}
	if watch.Denied(asked.Add(-time.Minute), asked) == 0 || watch.Denied(unpaused, time.Now()) == 0 {
		t.Error("the watch did not see the server unpaused before and after")
	}
	stats := s.Bank.Stats(t)
	t.Logf("%+v; paused for %s", stats, unpaused.Sub(paused))

	// An open transaction holds up a pause.
	s.Bank.Hold(t)
	short := int64(300)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := admin.Pause(ctx, &adminpb.PauseRequest{WaitOutstanding: true, MaxPauseWaitTime: &short}); err == nil {
		t.Error("a pause did not wait for an open transaction")
	}
	if err := s.Bank.Release(t); err != nil {
		t.Errorf("committing the open transaction: %v", err)
	}

	pause(t, admin)
	s.Kill(t)
	s.Restart(t)
	if s.Paused(t) {
		t.Error("paused after a restart")
	}
	for name, sum := range map[string]func() (int, int64){
		"through the server": func() (int, int64) { return s.Bank.Sum(t) },
		"embedded":           func() (int, int64) { return Read(t, s.Config, s.Config.Storages...) },
	} {
		if rows, sum := sum(); rows != s.Config.Rows() || sum != s.Config.Total() {
			t.Errorf("%s: %d rows with a sum of %d, want %d and %d", name, rows, sum, s.Config.Rows(), s.Config.Total())
		}
	}
}
