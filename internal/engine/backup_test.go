package engine_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/clock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
)

// calm is a healthy world with two targets and two storages.
func calm(t *testing.T, plan worldPlan) *world {
	t.Helper()
	w := newWorld(1)
	plan.targets, plan.storages, plan.drain, plan.latency = 2, 2, 2*time.Second, 10*time.Millisecond
	w.plan = plan
	w.targets, w.members = map[string]*simTarget{}, nil
	for i := range plan.targets {
		w.addTarget(address(i))
	}
	return w
}

// backUp runs one backup in a calm world, with something happening at the entry of confirm: after every capture is fixed, when nothing but
// confirm is left to notice.
func backUp(t *testing.T, plan worldPlan, prepare func(*world, *provider), atConfirm func(*world, *provider)) (*world, engine.Backup, error) {
	t.Helper()
	var w *world
	var b engine.Backup
	var err error
	synctest.Test(t, func(t *testing.T) {
		w = calm(t, plan)
		sick := &atomic.Bool{}
		sick.Store(true)
		p := w.provider("p", sick)
		if prepare != nil {
			prepare(w, p)
		}
		p.engine.Hook = func(_ context.Context, phase engine.Phase) {
			if phase == engine.PhaseConfirm && atConfirm != nil {
				atConfirm(w, p)
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
		defer cancel()
		b, err = p.engine.Backup(ctx, p.request("b"))
		p.process.kill()
		time.Sleep(time.Minute)
		w.bg.Wait()
	})
	return w, b, err
}

// TestConfirmVoids: each thing that voids a window is noticed by confirm itself.
func TestConfirmVoids(t *testing.T) {
	for _, c := range []struct {
		name, want string
		plan       worldPlan
		prepare    func(*world, *provider)
		strike     func(*world, *provider)
	}{
		{name: "unpaused", want: "came unpaused", strike: func(w *world, _ *provider) { _ = w.target(address(0)).unpause() }},
		{name: "connection broke", want: "restarted, or its connection broke", strike: func(w *world, _ *provider) {
			target := w.target(address(1))
			target.mu.Lock()
			defer target.mu.Unlock()
			target.restarts++ // and still paused: to a client whose connection broke it looks like this
		}},
		{name: "appeared", want: "appeared in target group main", strike: func(w *world, _ *provider) { w.addTarget("10.0.9.9:60051") }},
		{name: "disappeared", want: "disappeared from target group main", strike: func(w *world, _ *provider) { w.members = w.members[:1] }},
		{name: "clock stepped", want: "stepped", strike: func(w *world, _ *provider) {
			w.clockStep = append(w.clockStep, stepAt{time.Now(), 300 * time.Millisecond})
		}, prepare: func(_ *world, p *provider) { p.fixedClocks = true }},
		{name: "slept", want: "stood still", strike: func(*world, *provider) { time.Sleep(3 * time.Second) }},
		{name: "lock lost", want: "taken over", strike: func(w *world, _ *provider) { _ = w.catalog.Delete(context.Background(), "lock.json") }},
		{name: "watchdog fired", want: "it fired", strike: func(_ *world, p *provider) { p.watchdog.claimFired.Store(true) }},
		{name: "driver's verdict", want: "planned failure of confirm", plan: worldPlan{failing: map[string]string{"a/confirm": "error"}}},
		{name: "witness", want: "a write in the window", strike: func(w *world, _ *provider) { w.rogue = append(w.rogue, rogueWrite{"b", time.Now()}) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, b, err := backUp(t, c.plan, c.prepare, c.strike)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
			if b.Manifest.Status == engine.StatusAvailable || b.Recorded || len(b.Manifest.Storages) > 0 {
				t.Errorf("a window is claimed, or something is kept: %+v", b.Manifest)
			}
			if len(w.artifacts) > 0 {
				t.Errorf("not discarded: %v", w.artifacts)
			}
			for a, target := range w.targets {
				if target.closed {
					t.Errorf("%s is left paused", a)
				}
			}
		})
	}
	if _, b, err := backUp(t, worldPlan{}, nil, nil); err != nil || b.Manifest.Status != engine.StatusAvailable || !b.Recorded {
		t.Errorf("with nothing amiss there is no backup: %v", err)
	}
}

// TestSlowIsNotAsleep: a target that drains for long, and a check that takes long, are no reason to give up a window.
func TestSlowIsNotAsleep(t *testing.T) {
	for name, prepare := range map[string]func(*world, *provider){
		"drain": func(w *world, _ *provider) {
			w.plan.drain = 20 * time.Second
			w.target(address(1)).busyFor = 15 * time.Second
		},
		"confirm": func(w *world, _ *provider) { w.plan.slowConfirm = 15 * time.Second },
	} {
		t.Run(name, func(t *testing.T) {
			_, b, err := backUp(t, worldPlan{}, prepare, nil)
			if err != nil || b.Manifest.Status != engine.StatusAvailable || !b.Recorded {
				t.Errorf("there is no backup: %v", err)
			}
			if w := b.Manifest.Window; name == "drain" && w.DrainMS < 15_000 {
				t.Errorf("it drained for %d ms", w.DrainMS)
			}
		})
	}
}

// TestPauseIsConfirmed: a target that answered OK and is not paused is noticed before the window opens: nothing is captured.
func TestPauseIsConfirmed(t *testing.T) {
	w, b, err := backUp(t, worldPlan{pauseFault: map[string]string{address(1): "lie"}}, nil, func(*world, *provider) {
		t.Error("the run got to confirm")
	})
	if err == nil || !strings.Contains(err.Error(), "answered OK to Pause and is not paused") || !b.Manifest.Window.StartedAt.IsZero() {
		t.Errorf("got %v, and a window that opened at %s", err, b.Manifest.Window.StartedAt)
	}
	for a, target := range w.targets {
		if target.closed {
			t.Errorf("%s is left paused", a)
		}
	}
}

// TestForeignPauseIsRefused: a target that is paused before the run is refused before anything is sent, and stays paused.
func TestForeignPauseIsRefused(t *testing.T) {
	w, _, err := backUp(t, worldPlan{}, func(w *world, _ *provider) {
		target := w.target(address(1))
		target.busyFor = 0
		_, _ = target.pause("foreign", time.Second, "")
	}, nil)
	if err == nil || !strings.Contains(err.Error(), "paused already, by somebody else") {
		t.Errorf("got %v", err)
	}
	if w.pauses.Load() != 0 || !w.target(address(1)).closed {
		t.Errorf("%d Pauses were sent; still paused: %v", w.pauses.Load(), w.target(address(1)).closed)
	}
}

// TestAllFailuresOfPreflightAreReported, at once, and nothing is touched.
func TestAllFailuresOfPreflightAreReported(t *testing.T) {
	w, _, err := backUp(t, worldPlan{failing: map[string]string{"a/preflight": "error", "b/preflight": "error"}}, nil, nil)
	if err == nil || !strings.Contains(err.Error(), "preflight: a:") || !strings.Contains(err.Error(), "preflight: b:") {
		t.Errorf("got %v", err)
	}
	if w.pauses.Load() != 0 {
		t.Error("a Pause was sent")
	}
}

// TestUnpauseFailuresComeFirst: of several failures, the one that matters most to a running service.
func TestUnpauseFailuresComeFirst(t *testing.T) {
	_, _, err := backUp(t, worldPlan{deafLift: map[string]time.Duration{address(0): 10 * time.Hour}, failing: map[string]string{"a/capture": "error"}}, nil, nil)
	if err == nil || !strings.HasPrefix(err.Error(), "unpause: "+address(0)+": IT MAY STILL BE PAUSED") || !strings.Contains(err.Error(), "capture: a:") || !strings.Contains(err.Error(), "unpause 0000") {
		t.Errorf("got %v", err)
	}
}

// TestWindowIsShort: the pause lasts as long as captures take to be fixed, and no longer: not until they are copied.
func TestWindowIsShort(t *testing.T) {
	_, b, err := backUp(t, worldPlan{}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if d := b.Manifest.Window.DurationMS; d > 200 {
		t.Errorf("the window lasted %d ms, while every capture is fixed within 100 ms", d)
	}
}

// TestHeldForMinDurationAndRestorePoint.
func TestHeldForMinDurationAndRestorePoint(t *testing.T) {
	_, b, err := backUp(t, worldPlan{min: 3 * time.Second}, nil, nil)
	if err != nil || b.Manifest.Window.DurationMS < 3000 || b.Manifest.Window.DurationMS > 3200 {
		t.Errorf("min_duration 3s: %d ms, %v", b.Manifest.Window.DurationMS, err)
	}
	_, b, err = backUp(t, worldPlan{needsInstant: true}, nil, nil)
	w := b.Manifest.Window
	if err != nil || w.RestorePoint.IsZero() || w.RestorePoint.Before(w.SafeFrom) || w.RestorePoint.After(w.SafeUntil) {
		t.Errorf("restore point %s of %s to %s: %v", w.RestorePoint, w.SafeFrom, w.SafeUntil, err)
	}
	if w.DurationMS < 2000 {
		t.Errorf("a window of %d ms holds no whole second with a granule off each side", w.DurationMS)
	}
}

// TestDeleteSparesAnothersManifest: a backup deletes its own artifacts and manifest only.
func TestDeleteSparesAnothersManifest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := calm(t, worldPlan{})
		p := w.provider("p", &atomic.Bool{})
		b, err := p.engine.Backup(t.Context(), p.request("b"))
		if err != nil {
			t.Fatal(err)
		}
		earlier := b.Manifest
		earlier.RunID = "00000000000000ff"
		if err := p.engine.Delete(t.Context(), engine.Manifest{Version: 1, BackupID: "b", RunID: earlier.RunID}); err != nil {
			t.Fatal(err)
		}
		if _, err := engine.ReadManifest(t.Context(), w.catalog, "b"); err != nil {
			t.Errorf("another run's manifest was deleted: %v", err)
		}
		if err := p.engine.Delete(t.Context(), b.Manifest); err != nil {
			t.Fatal(err)
		}
		if _, err := engine.ReadManifest(t.Context(), w.catalog, "b"); !errors.Is(err, engine.ErrNotFound) {
			t.Errorf("its own manifest is still there: %v", err)
		}
		if len(w.artifacts) > 0 {
			t.Errorf("its artifacts are still there: %v", w.artifacts)
		}
		p.process.kill()
		w.bg.Wait()
	})
}

// --- restore ---------------------------------------------------------------

// fakeDestination is a destination that counts.
type fakeDestination struct {
	restored, deleted int
	fail              error
	announced         *engine.Restored               // recorded before it "makes" anything
	during            func(ctx context.Context) bool // in the middle; false: the process dies there
	removed           []engine.Restored
}

func (d *fakeDestination) Preflight(context.Context, engine.StorageBackup) error { return nil }
func (d *fakeDestination) Restore(ctx context.Context, r engine.StorageBackup) (engine.Restored, error) {
	if d.announced != nil {
		if err := r.Announce(ctx, *d.announced); err != nil {
			return engine.Restored{}, err
		}
	}
	if d.during != nil && !d.during(ctx) {
		<-ctx.Done()
		return engine.Restored{}, ctx.Err()
	}
	d.restored++
	return engine.Restored{Objects: []engine.RestoredObject{{Kind: "fake", ID: "x", Created: true}}}, d.fail
}
func (d *fakeDestination) Inspect(context.Context, engine.Restored) error { return nil }
func (d *fakeDestination) Delete(_ context.Context, r engine.Restored) error {
	d.deleted++
	d.removed = append(d.removed, r)
	return nil
}
func (d *fakeDestination) Close() error { return nil }

// fakeReader is a storage with one table, whose only record is PREPARED at a given time.
type fakeReader struct {
	verify.Storage
	preparedAt int64
}

func (r fakeReader) Tables(context.Context) (present, missing []verify.Table, err error) {
	return []verify.Table{{Namespace: "bank", Name: "accounts", Transactional: true, Key: []string{"id"}}}, nil, nil
}
func (fakeReader) HasCoordinator(context.Context) (bool, error)        { return true, nil }
func (fakeReader) Count(context.Context, verify.Table) (int64, error)  { return 1, nil }
func (fakeReader) Aborted(context.Context, func([]string) error) error { return nil }
func (fakeReader) Close() error                                        { return nil }
func (fakeReader) Coordinator(context.Context, []string) (map[string]verify.Entry, error) {
	return map[string]verify.Entry{}, nil
}
func (fakeReader) CoordinatorTally(context.Context, int64) (verify.CoordinatorTally, error) {
	return verify.CoordinatorTally{}, nil
}
func (fakeReader) CommittedAmong(context.Context, verify.Table, []string) ([]verify.Record, error) {
	return nil, nil
}
func (r fakeReader) Tally(_ context.Context, _ verify.Table, q verify.TallyQuery) (verify.Tally, error) {
	if r.preparedAt >= q.InFlightSince {
		return verify.Tally{Rows: 1, InFlight: 1}, nil
	}
	return verify.Tally{Rows: 1, Leftovers: 1}, nil
}
func (r fakeReader) Records(_ context.Context, _ verify.Table, f verify.RecordFilter, each func(verify.Record) error) error {
	if f.PreparedSince > r.preparedAt || len(f.States) > 0 && f.States[0] != verify.StatePrepared {
		return nil
	}
	return each(verify.Record{Key: "id=1", TxID: "t", State: verify.StatePrepared, PreparedAt: r.preparedAt})
}

// restoreTest is a backup of one storage and a request to restore it.
func restoreTest(t *testing.T, w *world, preparedAt func(started time.Time) time.Time) (*provider, *fakeDestination, engine.RestoreRequest) {
	t.Helper()
	p := w.provider("p", &atomic.Bool{})
	q := p.request("b")
	delete(q.Storages, "b")
	b, err := p.engine.Backup(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	d := &fakeDestination{}
	return p, d, engine.RestoreRequest{
		Name: "r", Manifest: b.Manifest, Verify: &engine.VerifySettings{},
		Storages: map[string]engine.RestoreStorage{"a": {Driver: "sim", Destination: d, OpenReader: func(context.Context) (verify.Storage, error) {
			return fakeReader{preparedAt: preparedAt(b.Manifest.Window.StartedAt).UnixMilli()}, nil
		}}},
	}
}

func monthOld(started time.Time) time.Time { return started.Add(-30 * 24 * time.Hour) }

// TestVerificationKnowsTheClocks: verification has the window's start by the clock of each storage that was measured, and never too late.
func TestVerificationKnowsTheClocks(t *testing.T) {
	started := time.UnixMilli(1_700_000_000_000)
	m := engine.Manifest{Window: engine.PauseWindow{StartedAt: started, ClockBounds: map[string]engine.ClockBoundMS{"behind": {-2000, 7}, "ahead": {500, 0}}}}
	q := engine.VerifyRequest(m, engine.VerifySettings{}, nil, clock.System{}, nil)
	want := map[string]time.Time{"behind": started.Add(-2008 * time.Millisecond), "ahead": started.Add(499 * time.Millisecond)}
	if !maps.EqualFunc(q.Window.Opened, want, time.Time.Equal) {
		t.Errorf("%v, want %v", q.Window.Opened, want)
	}
}

// TestRestoreProvesItself: available only when verification passed; the record tells what exists either way.
func TestRestoreProvesItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := calm(t, worldPlan{})
		p, d, q := restoreTest(t, w, monthOld)
		record, err := p.engine.Restore(t.Context(), q)
		if err != nil || record.Status != engine.StatusAvailable || record.Verification == nil || record.Verification.Leftovers != 1 || d.restored != 1 {
			t.Errorf("a correct copy: %+v, %v", record, err)
		}
		if again, err := p.engine.Restore(t.Context(), q); err == nil || !strings.Contains(err.Error(), "there is a restore named r") || d.restored != 1 {
			t.Errorf("the name is taken: %+v, %v", again, err)
		}
		if err := p.engine.DeleteRestore(t.Context(), record, map[string]engine.Destination{"a": d}); err != nil || d.deleted != 1 {
			t.Errorf("deleting: %v", err)
		}

		q.Storages["a"] = engine.RestoreStorage{Driver: "sim", Destination: d, OpenReader: func(context.Context) (verify.Storage, error) {
			return fakeReader{preparedAt: q.Manifest.Window.StartedAt.UnixMilli()}, nil
		}}
		record, err = p.engine.Restore(t.Context(), q)
		if err == nil || !strings.Contains(err.Error(), "not transactionally consistent") || record.Status == engine.StatusAvailable {
			t.Errorf("a copy with a record in flight: %+v, %v", record.Status, err)
		}
		if len(record.Storages["a"].Objects) != 1 {
			t.Error("the record does not tell what exists")
		}
		p.process.kill()
		w.bg.Wait()
	})
}

// TestRestoreRefusals: nothing is created for a backup that is not available, or for a part of one.
func TestRestoreRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := calm(t, worldPlan{})
		p, d, q := restoreTest(t, w, monthOld)
		for want, change := range map[string]func(*engine.RestoreRequest){
			"is incomplete":            func(q *engine.RestoreRequest) { q.Manifest.Status = engine.StatusIncomplete },
			"which has no destination": func(q *engine.RestoreRequest) { q.Storages = map[string]engine.RestoreStorage{} },
			"holds no storage z": func(q *engine.RestoreRequest) {
				q.Storages = map[string]engine.RestoreStorage{"a": q.Storages["a"], "z": q.Storages["a"]}
			},
			"is sim, not other": func(q *engine.RestoreRequest) {
				q.Storages = map[string]engine.RestoreStorage{"a": {Driver: "other", Destination: d}}
			},
		} {
			r := q
			change(&r)
			if _, err := p.engine.Restore(t.Context(), r); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
		}
		if d.restored != 0 {
			t.Error("something was restored")
		}
		p.process.kill()
		w.bg.Wait()
	})
}

// TestRestoreCleansUpAfterADeadOne: a restore that was killed is found by its record, and what it made is removed before the next one.
func TestRestoreCleansUpAfterADeadOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := calm(t, worldPlan{})
		p, d, q := restoreTest(t, w, monthOld)
		d.fail = errors.New("cut short")
		record, err := p.engine.Restore(t.Context(), q)
		if err == nil || len(record.Storages["a"].Objects) != 1 {
			t.Fatalf("%+v, %v", record, err)
		}
		d.fail = nil
		// The same process is still there: it might be at it.
		if _, err := p.engine.Restore(t.Context(), q); err == nil || !strings.Contains(err.Error(), "under way") {
			t.Errorf("a restore under way was not respected: %v", err)
		}
		p.process.kill()
		next := w.provider("next", &atomic.Bool{})
		if record, err := next.engine.Restore(t.Context(), q); err != nil || record.Status != engine.StatusAvailable || d.deleted != 1 {
			t.Errorf("after a dead one: %+v, %v; deleted %d times", record.Status, err, d.deleted)
		}
		next.process.kill()
		w.bg.Wait()
	})
}

// TestRestoreAnnounces: what a storage announced before it made it is found by the next restore when the process died in between.
func TestRestoreAnnounces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := calm(t, worldPlan{})
		p, d, q := restoreTest(t, w, monthOld)
		d.announced = &engine.Restored{Objects: []engine.RestoredObject{{Kind: "fake", ID: "announced", Created: true}}}
		d.during = func(ctx context.Context) bool {
			p.process.kill() // with the announcement in the catalog, and nothing after it
			return false
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := p.engine.Restore(ctx, q); err == nil {
			t.Fatal("a killed restore succeeded")
		}
		d.during = nil
		next := w.provider("next", &atomic.Bool{})
		if _, err := next.engine.Restore(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		if len(d.removed) != 1 || d.removed[0].Objects[0].ID != "announced" {
			t.Errorf("the next restore removed %+v, want what was announced", d.removed)
		}
		next.process.kill()
		w.bg.Wait()
	})
}

// TestCancelledRunUnpausesItself: the run does it, at once; it does not take its watchdog.
func TestCancelledRunUnpausesItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := calm(t, worldPlan{min: 10 * time.Second})
		p := w.provider("p", &atomic.Bool{})
		ctx, cancel := context.WithCancel(t.Context())
		p.engine.Hook = func(_ context.Context, phase engine.Phase) {
			if phase == engine.PhaseCapture {
				w.later(time.Second, cancel)
			}
		}
		begin := time.Now()
		_, err := p.engine.Backup(ctx, p.request("b"))
		if err == nil || strings.Contains(err.Error(), "unpause:") {
			t.Errorf("got %v, want an error of capture alone", err)
		}
		for a, target := range w.targets {
			last := target.history[len(target.history)-1]
			if target.closed || last.at.Sub(begin) > 2*time.Second {
				t.Errorf("%s was unpaused %s after the run began, a second after which it was cancelled", a, last.at.Sub(begin))
			}
		}
		p.process.kill()
		w.bg.Wait()
	})
}

// TestOrphanedBackupIsReplaced: a backup that was recorded, or about to be, when nobody was left to store it does not stand in the way of the next one of its name.
func TestOrphanedBackupIsReplaced(t *testing.T) {
	for _, cancelled := range []bool{false, true} {
		t.Run(fmt.Sprintf("cancelled=%t", cancelled), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := calm(t, worldPlan{})
				p := w.provider("p", &atomic.Bool{})
				p.engine.Orphaned = func() bool { return true }
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				p.engine.Hook = func(_ context.Context, phase engine.Phase) {
					if cancelled && phase == engine.PhaseRecord {
						cancel()
					}
				}
				first, err := p.engine.Backup(ctx, p.request("b"))
				if err != nil || first.Recorded == cancelled {
					t.Fatalf("recorded %v, %v", first.Recorded, err)
				}
				p.process.kill()
				next := w.provider("next", &atomic.Bool{})
				second, err := next.engine.Backup(t.Context(), next.request("b"))
				if err != nil || second.Manifest.Status != engine.StatusAvailable {
					t.Errorf("the next backup of that name: %v", err)
				}
				for id, run := range w.artifacts {
					if run == first.Manifest.RunID {
						t.Errorf("artifact %s of the backup that nobody knows is left", id)
					}
				}
				next.process.kill()
				w.bg.Wait()
			})
		})
	}
}
