package watchdog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/memcatalog"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/testclock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/lock"
)

const (
	runID = "0123456789abcdef"
	drain = 30 * time.Second
	limit = 90 * time.Second
)

// server is one target as it is.
type server struct {
	target engine.Target

	mu       sync.Mutex
	paused   bool
	down     bool
	unpauses int
}

func (s *server) set(paused bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paused = paused
}

func (s *server) setDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

func (s *server) isPaused() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.paused
}

func (s *server) call(f func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return errors.New("unreachable")
	}
	f()
	return nil
}

// conn is one connection to a server.
type conn struct{ *server }

func (c conn) Pause(context.Context, time.Duration) error {
	return c.call(func() { c.paused = true })
}

func (c conn) CheckPaused(context.Context) (paused bool, err error) {
	err = c.call(func() { paused = c.paused })
	return paused, err
}

func (c conn) Unpause(context.Context) error {
	return c.call(func() { c.paused, c.unpauses = false, c.unpauses+1 })
}

func (conn) Incarnation() string { return "" }
func (conn) Close() error        { return nil }

// system notes what is ended.
type system struct {
	mu     sync.Mutex
	events []string
	stuck  int // so many Removes fail
}

func (s *system) Kill(_ context.Context, pid int, start uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, fmt.Sprintf("kill %d started %d", pid, start))
	return nil
}

func (s *system) Remove(path string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stuck > 0 {
		s.stuck--
		return errors.New("directory not empty")
	}
	s.events = append(s.events, "remove "+path)
	return nil
}

func (s *system) done() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events)
}

// world is all that a watchdog acts on; it is made in a bubble.
type world struct {
	t       *testing.T
	clock   engine.Clock
	catalog *memcatalog.Catalog
	servers []*server
	system  *system
	lock    *lock.Lock
	inmate  *Inmate
}

func newWorld(t *testing.T, targets int) *world {
	w := &world{t: t, clock: testclock.New(), catalog: memcatalog.New(time.Now), system: &system{}}
	for i := range targets {
		w.servers = append(w.servers, &server{target: engine.Target{Group: "main", Address: fmt.Sprintf("10.0.0.%d:60051", i+1), Name: "db"}})
	}
	l, err := lock.Acquire(t.Context(), lock.Options{Catalog: w.catalog, Clock: w.clock, RunID: runID, Holder: "the run", Lease: 3 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	w.lock = l
	return w
}

// Dial makes world the Dialer of all groups.
func (w *world) Dial(_ context.Context, t engine.Target) (engine.AdminConn, error) {
	for _, s := range w.servers {
		if s.target.Address == t.Address {
			return conn{s}, s.call(func() {})
		}
	}
	return nil, errors.New("no such target")
}

func (w *world) openers() Openers {
	return Openers{
		Dialer: func(settings json.RawMessage) (engine.Dialer, error) {
			if string(settings) != `{"secret":"s"}` {
				return nil, fmt.Errorf("the settings are %q", settings)
			}
			return w, nil
		},
		Catalog: func(spec CatalogSpec) (engine.Catalog, error) {
			if spec.Directory != "/catalog" {
				return nil, fmt.Errorf("the catalog is %+v", spec)
			}
			return w.catalog, nil
		},
	}
}

func (w *world) order() engine.WatchdogOrder {
	o := engine.WatchdogOrder{
		RunID: runID, BackupID: "nightly", Pause: engine.PauseSettings{Drain: drain, Max: limit},
		Journal: engine.WatchdogLogName(runID), Lock: w.lock.Ref(),
	}
	for _, s := range w.servers {
		o.Targets = append(o.Targets, s.target)
	}
	return o
}

func (w *world) tryArm() (engine.Armed, error) {
	return InProcess{
		Clock: w.clock, Openers: w.openers(), System: w.system, Started: func(i *Inmate) { w.inmate = i },
		Spec: Spec{Groups: map[string]json.RawMessage{"main": json.RawMessage(`{"secret":"s"}`)}, Catalog: CatalogSpec{Directory: "/catalog"}},
	}.Arm(w.t.Context(), w.order())
}

func (w *world) arm() engine.Armed {
	w.t.Helper()
	a, err := w.tryArm()
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

// pause is what a run does once the watchdog is armed.
func (w *world) pause(a engine.Armed, outcome engine.Ownership) {
	w.t.Helper()
	if err := a.Sending(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	for _, s := range w.servers {
		s.set(true)
		a.Record(s.target, outcome)
	}
}

// die is the death of the run's process.
func (w *world) die() {
	w.lock.Leave()
	w.inmate.Sever()
}

func (w *world) wantPaused(want ...bool) {
	w.t.Helper()
	for i, s := range w.servers {
		if s.isPaused() != want[i] {
			w.t.Errorf("after %s: %s is paused = %v, want %v", w.since(), s.target.Address, !want[i], want[i])
		}
	}
}

func (w *world) since() time.Duration { return w.clock.Boot() - time.Hour }

// wantEnded waits for the end of the watchdog.
func (w *world) wantEnded(within time.Duration) {
	w.t.Helper()
	for until := time.Now().Add(within); ; time.Sleep(100 * time.Millisecond) {
		synctest.Wait()
		select {
		case <-w.inmate.Ended():
			return
		default:
		}
		if !time.Now().Before(until) {
			w.t.Errorf("after %s the watchdog has not ended", w.since())
			return
		}
	}
}

func (w *world) wantAlive() {
	w.t.Helper()
	synctest.Wait()
	select {
	case <-w.inmate.Ended():
		w.t.Errorf("after %s the watchdog has ended: %v", w.since(), w.inmate.Err())
	default:
	}
}

func (w *world) wantLock(want bool) {
	w.t.Helper()
	holder, held, err := lock.HeldBy(w.t.Context(), w.catalog, lock.DefaultName)
	if err != nil || (held && holder == runID) != want {
		w.t.Errorf("after %s the lock is held = %v by %s, %v; want held by the run = %v", w.since(), held, holder, err, want)
	}
}

func (w *world) log() *engine.WatchdogLog {
	w.t.Helper()
	data := w.catalog.Peek(engine.WatchdogLogName(runID))
	if data == nil {
		return nil
	}
	l, err := engine.DecodeWatchdogLog(data)
	if err != nil {
		w.t.Fatal(err)
	}
	if l.RunID != runID || l.FiredAt.IsZero() {
		w.t.Errorf("the log is %+v", l)
	}
	return &l
}

func (w *world) wantLog(done bool, reason string) engine.WatchdogLog {
	w.t.Helper()
	l := w.log()
	if l == nil {
		w.t.Fatalf("after %s there is no log", w.since())
	}
	if l.Done != done || !strings.Contains(l.Reason, reason) || len(l.Targets) != len(w.servers) {
		w.t.Errorf("the log is %+v; want done = %v, the reason %q and %d targets", *l, done, reason, len(w.servers))
	}
	return *l
}

func isGone(a engine.Armed) bool {
	select {
	case <-a.Gone():
		return true
	default:
		return false
	}
}

func wantFired(t *testing.T, a engine.Armed, want bool) {
	t.Helper()
	if fired, err := a.Fired(t.Context()); err != nil || fired != want {
		t.Errorf("Fired = %v, %v; want %v", fired, err, want)
	}
}

func TestOrderlyRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		a := w.arm()
		wantFired(t, a, false)
		done := a.Process(100, 1, "pg_dump")
		a.Process(101, 2, "left over")
		w.pause(a, engine.Ours)
		time.Sleep(limit - time.Second)
		w.wantPaused(true, true)
		wantFired(t, a, false)
		for _, s := range w.servers {
			s.set(false)
		}
		if err := a.Lifted(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.servers[0].set(true) // somebody else's
		time.Sleep(time.Hour)  // past max_duration: the watchdog only has custody now
		done()
		wantFired(t, a, false)
		w.wantLock(true)
		if isGone(a) {
			t.Error("the watchdog counts as gone")
		}
		if err := a.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.wantEnded(0)
		if err := w.inmate.Err(); err != nil {
			t.Errorf("the watchdog ended with %v", err)
		}
		w.wantPaused(true, false)
		if w.servers[0].unpauses+w.servers[1].unpauses != 0 {
			t.Error("the watchdog unpaused something")
		}
		w.wantLock(true) // the run's own business
		if w.log() != nil {
			t.Error("the watchdog logged something")
		}
		if got := w.system.done(); !slices.Equal(got, []string{"kill 101 started 2"}) {
			t.Errorf("it ended %q", got)
		}
		w.lock.Leave()
	})
}

func TestArmRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(w *world)
		want  string
	}{
		"a paused target":          {func(w *world) { w.servers[1].set(true) }, "10.0.0.2:60051 whether it is paused: it is, by somebody else"},
		"a target out of reach":    {func(w *world) { w.servers[1].setDown(true) }, "unreachable"},
		"a catalog out of reach":   {func(w *world) { w.catalog.Fail = func(string, string) error { return errors.New("no route") } }, "no route"},
		"a target named twice":     {func(w *world) { w.servers[1].target = w.servers[0].target }, "it ended"},
		"a group without settings": {func(w *world) { w.servers[1].target.Group = "other" }, "target group other"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 2)
				w.lock.Leave()
				c.spoil(w)
				if _, err := w.tryArm(); err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("Arm = %v, want %q", err, c.want)
				}
				w.wantEnded(0)
			})
		})
	}
}

func TestParentDies(t *testing.T) {
	for _, outcome := range []engine.Ownership{engine.Ours, engine.Unknown} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 2)
			a := w.arm()
			a.SecretFile("/var/tmp/secret")
			a.SecretFile("/var/tmp/removed")()
			a.Process(100, 7, "pg_dump")
			w.system.stuck = 3
			w.pause(a, outcome)
			time.Sleep(10 * time.Second)
			w.wantPaused(true, true)
			w.die()
			time.Sleep(time.Second)
			w.wantPaused(false, false)
			if !isGone(a) {
				t.Error("Gone is not closed")
			}
			w.wantEnded(2*drain + 10*time.Second)
			l := w.wantLog(true, "the run's process died")
			for _, e := range l.Targets {
				if !e.Lifted || e.Foreign || e.UnpausedAt.IsZero() || e.Error != "" {
					t.Errorf("the log says %+v", e)
				}
			}
			w.wantLock(false)
			if got := w.system.done(); !slices.Equal(got, []string{"kill 100 started 7", "remove /var/tmp/secret"}) {
				t.Errorf("it ended %q", got)
			}
		})
	}
}

func TestParentDiesBeforeThePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		a := w.arm()
		a.SecretFile("/var/tmp/secret")
		w.servers[0].set(true) // somebody else's
		w.die()
		w.wantEnded(time.Second)
		w.wantPaused(true)
		w.wantLock(false)
		if w.log() != nil {
			t.Error("the watchdog logged that it fired")
		}
		if len(w.system.done()) != 1 {
			t.Errorf("it ended %q", w.system.done())
		}
	})
}

func TestParentDiesAfterTheUnpause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		a := w.arm()
		w.pause(a, engine.Ours)
		a.Process(100, 7, "pg_dump")
		w.servers[0].set(false)
		if err := a.Lifted(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.servers[0].set(true) // somebody else's
		w.die()
		w.wantEnded(time.Second)
		w.wantPaused(true)
		w.wantLock(false)
		if len(w.system.done()) != 1 {
			t.Errorf("it ended %q", w.system.done())
		}
	})
}

// A Pause that got no answer may land after the Unpause, at most two drain timeouts after Sending (it may have been sent again).
func TestDelayedPauseIsLiftedToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		a := w.arm()
		if err := a.Sending(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.die()
		for range 2 {
			time.Sleep(drain - time.Second)
			w.servers[0].set(true)
			time.Sleep(time.Second)
			w.wantPaused(false)
		}
		w.wantEnded(10 * time.Second)
		w.wantLog(true, "died")
	})
}

func TestForeignPauseStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		a := w.arm()
		w.pause(a, engine.Ours)
		a.Record(w.servers[1].target, engine.Foreign)
		a.Record(w.servers[2].target, engine.Unsent)
		w.die()
		w.wantEnded(5 * time.Second)
		w.wantPaused(false, true, true)
		l := w.wantLog(true, "died")
		if !l.Targets[0].Lifted || !l.Targets[1].Foreign || l.Targets[2].Lifted || l.Targets[2].Foreign {
			t.Errorf("the log says %+v", l.Targets)
		}
	})
}

func TestMaxDuration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		a := w.arm()
		time.Sleep(time.Hour) // before the first Pause nothing counts
		a.Process(100, 7, "pg_dump")
		start := time.Now()
		w.pause(a, engine.Ours)
		<-a.Gone()
		if after := time.Since(start); after < limit || after > limit+tick {
			t.Errorf("it fired after %s, want %s", after, limit)
		}
		time.Sleep(time.Second)
		w.wantPaused(false, false)
		w.wantLog(true, "max_duration (1m30s)")
		time.Sleep(time.Hour)
		// The parent lives: its children and its lock are its own, and it is told the truth for ever.
		w.wantAlive()
		wantFired(t, a, true)
		w.wantLock(true)
		if len(w.system.done()) != 0 {
			t.Errorf("it ended %q", w.system.done())
		}
		if err := a.Sending(t.Context()); err == nil {
			t.Error("Sending to a watchdog that fired = nil")
		}
		if err := a.Lifted(t.Context()); err != nil {
			t.Error(err)
		}
		wantFired(t, a, true)
		w.servers[0].set(true) // somebody else's
		if err := a.Close(t.Context()); err != nil {
			t.Error(err)
		}
		w.wantEnded(0)
		w.wantPaused(true, false)
		w.lock.Leave()
	})
}

// The machine is suspended: timers stand still, the boot clock does not.
func TestSuspendedMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		c := &suspended{Clock: w.clock}
		w.clock = c
		a := w.arm()
		w.pause(a, engine.Ours)
		time.Sleep(time.Second)
		c.mu.Lock()
		c.missed = time.Hour
		c.mu.Unlock()
		time.Sleep(2 * time.Second)
		w.wantPaused(false)
		wantFired(t, a, true)
		w.die()
		w.wantEnded(time.Minute)
	})
}

type suspended struct {
	engine.Clock
	mu     sync.Mutex
	missed time.Duration
}

func (c *suspended) Boot() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.Clock.Boot() + c.missed
}

// One target is out of reach for long: the other is unpaused at once, and no other run gets the lock before both are.
func TestUnreachableTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		a := w.arm()
		w.pause(a, engine.Ours)
		w.servers[1].setDown(true)
		w.die()
		time.Sleep(time.Second)
		w.wantPaused(false, true)
		l := w.wantLog(false, "died")
		if !l.Targets[0].Lifted || l.Targets[1].Lifted || l.Targets[1].Error == "" {
			t.Errorf("the log says %+v", l.Targets)
		}
		other, stop := context.WithTimeout(t.Context(), time.Hour)
		defer stop()
		if _, err := lock.Acquire(other, lock.Options{Catalog: w.catalog, Clock: w.clock, RunID: "other", Holder: "other"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("another run's Acquire = %v", err)
		}
		w.wantAlive()
		w.servers[1].setDown(false)
		time.Sleep(5 * time.Second)
		w.wantPaused(false, false)
		w.wantEnded(time.Second)
		w.wantLog(true, "died")
		w.wantLock(false)
	})
}

// The catalog is out of reach: unpausing does not wait for it, the log and the lock come later.
func TestUnreachableCatalog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		a := w.arm()
		w.pause(a, engine.Ours)
		back := time.Now().Add(10 * time.Minute)
		w.catalog.Fail = func(string, string) error {
			if time.Now().Before(back) {
				time.Sleep(20 * time.Second) // it hangs, too
				return errors.New("no route")
			}
			return nil
		}
		w.die()
		time.Sleep(time.Second)
		w.wantPaused(false)
		if w.log() != nil {
			t.Error("there is a log")
		}
		w.wantEnded(11 * time.Minute)
		w.wantLog(true, "died")
		w.wantLock(false)
	})
}

// A catalog that is gone for good does not keep the process for ever.
func TestGoneCatalog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		a := w.arm()
		w.pause(a, engine.Ours)
		w.catalog.Fail = func(string, string) error { return errors.New("no route") }
		w.die()
		w.wantEnded(logGiveUp + time.Minute)
		w.wantPaused(false)
		if w.inmate.Err() == nil {
			t.Error("it ended as if all were well")
		}
	})
}

func TestCloseWithoutLifted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		a := w.arm()
		a.Process(100, 7, "pg_dump")
		w.pause(a, engine.Ours)
		w.servers[1].setDown(true)
		start := time.Now()
		if err := a.Close(t.Context()); err != nil || time.Since(start) > time.Second {
			t.Errorf("Close = %v after %s, want at once", err, time.Since(start))
		}
		w.lock.Leave()
		time.Sleep(time.Second)
		w.wantPaused(false, true)
		w.wantAlive()
		w.wantLock(true)
		if len(w.system.done()) != 1 {
			t.Errorf("it ended %q", w.system.done())
		}
		w.servers[1].setDown(false)
		w.wantEnded(5 * time.Second)
		w.wantPaused(false, false)
		w.wantLog(true, "without having unpaused")
		w.wantLock(false)
	})
}

func TestCloseBeforeThePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		a := w.arm()
		w.servers[0].set(true) // somebody else's
		if err := a.Close(t.Context()); err != nil {
			t.Error(err)
		}
		w.wantEnded(0)
		w.wantPaused(true)
		w.wantLock(true)
		w.lock.Leave()
	})
}

// The parent was stopped, the watchdog fired, and the parent goes on and sends a Pause before it dies: that one is lifted too, unless
// the lock is another run's by now.
func TestParentWakesUpAndDies(t *testing.T) {
	for _, another := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 1)
			a := w.arm()
			if err := a.Sending(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.lock.Leave() // stopped: it renews nothing
			time.Sleep(limit + 5*time.Minute)
			w.wantAlive()
			wantFired(t, a, true)
			if another {
				l, err := lock.Acquire(t.Context(), lock.Options{Catalog: w.catalog, Clock: w.clock, RunID: "other", Holder: "other"})
				if err != nil {
					t.Fatal(err)
				}
				defer l.Leave()
			}
			w.servers[0].set(true)
			w.die()
			w.wantEnded(2*drain + 10*time.Second)
			w.wantPaused(another)
		})
	}
}

// The same, but its Pause was even answered before it died.
func TestParentWakesUpPausesAndDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		a := w.arm()
		if err := a.Sending(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(limit + 5*time.Minute)
		w.servers[0].set(true)
		a.Record(w.servers[0].target, engine.Ours)
		w.die()
		w.wantEnded(10 * time.Second)
		w.wantPaused(false)
	})
}

// After Lifted a lift of the watchdog's own stops: what it would find paused is another's.
func TestLiftedStopsTheLift(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		a := w.arm()
		w.pause(a, engine.Ours)
		w.servers[0].setDown(true)
		time.Sleep(limit + time.Minute) // it fires, and gets nowhere
		if err := a.Lifted(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.servers[0].setDown(false)
		w.servers[0].set(true) // somebody else's
		time.Sleep(time.Hour)
		w.wantPaused(true)
		wantFired(t, a, true)
		if err := a.Close(t.Context()); err != nil {
			t.Error(err)
		}
		w.wantEnded(0)
		w.wantPaused(true)
		w.lock.Leave()
	})
}

func TestWatchdogDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		a := w.arm()
		w.pause(a, engine.Ours)
		if isGone(a) {
			t.Error("it is gone already")
		}
		w.inmate.Kill()
		synctest.Wait()
		if !isGone(a) {
			t.Error("Gone is not closed")
		}
		if fired, err := a.Fired(t.Context()); err == nil || !fired {
			t.Errorf("Fired = %v, %v; want an error that counts like true", fired, err)
		}
		if err := a.Lifted(t.Context()); err == nil {
			t.Error("Lifted = nil")
		}
		a.Process(100, 7, "pg_dump")()
		if err := a.Close(t.Context()); err == nil {
			t.Error("Close = nil")
		}
		w.lock.Leave()
	})
}

// A watchdog that is stopped does not block the run, and finds out what it missed when it wakes up.
func TestStoppedWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inR, inW := io.Pipe()
		outR, outW := io.Pipe()
		go func() { // it arms, and reads nothing after that
			line := make([]byte, 1<<16)
			if _, err := inR.Read(line); err != nil {
				t.Error(err)
			}
			data, _ := encode(message{Type: typeArmed, ID: 1})
			if _, err := outW.Write(data); err != nil {
				t.Error(err)
			}
		}()
		c, err := newClient(t.Context(), testclock.New(), inW, outR, make(chan struct{}), order{})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		c.Process(100, 7, "pg_dump")
		c.Record(engine.Target{}, engine.Ours)
		if took := time.Since(start); took > writeTimeout {
			t.Errorf("a watchdog that does not read held the run up for %s", took)
		}
		if !isGone(c) {
			t.Error("Gone is not closed")
		}
		if fired, err := c.Fired(t.Context()); err == nil || !fired {
			t.Errorf("Fired = %v, %v", fired, err)
		}
		go func() { _ = c.Close(t.Context()) }()
		var got []string
		err = lines(inR, func(m message) bool { // it wakes up
			got = append(got, m.Type)
			return true
		})
		if want := []string{typeProcess, typeRecord, typeAsk, typeClose}; err != nil || !slices.Equal(got, want) {
			t.Errorf("when it woke up it read %q, %v; want %q", got, err, want)
		}
	})
}

// A Sending without an answer is followed by no Pause: what is found paused is another's, though the watchdog heard of it.
func TestSendingWithoutAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		a := w.arm()
		for _, s := range w.servers {
			s.set(true) // somebody else's
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := a.Sending(ctx); err == nil {
			t.Error("Sending = nil")
		}
		synctest.Wait()
		w.die()
		w.wantEnded(5 * time.Second)
		w.wantPaused(true, true)
	})
}

// A parent that does not read does not keep the watchdog from its work, and what it cannot understand counts as its death.
func TestDeafAndGarbledParent(t *testing.T) {
	for _, garbage := range []string{"", "not a message\n", `{"type":"sing"}` + "\n", strings.Repeat("x", maxLine+10)} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 1)
			w.lock.Leave()
			inR, inW := io.Pipe()
			_, outW := io.Pipe()
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				_ = Run(t.Context(), Config{Clock: w.clock, In: inR, Out: outW, Openers: w.openers()})
				_, _ = inR.Close(), outW.Close()
			}()
			o := orderOf(w.order(), Spec{Groups: map[string]json.RawMessage{"main": json.RawMessage(`{"secret":"s"}`)}, Catalog: CatalogSpec{Directory: "/catalog"}})
			for _, m := range []message{{Type: typeArm, ID: 1, Version: protocolVersion, Order: &o}, {Type: typeSending, ID: 2}} {
				data, err := encode(m)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := inW.Write(data); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
			}
			w.servers[0].set(true)
			if garbage == "" {
				_ = inW.Close()
			} else if _, err := io.WriteString(inW, garbage); err != nil && len(garbage) < maxLine {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Second)
			w.wantPaused(false)
			<-ended
			if l := w.log(); l == nil || strings.Contains(l.Reason, "xxxx") {
				t.Errorf("the log is %+v", l)
			}
		})
	}
}

// The guard of a restore: no targets, no lock, only custody.
func TestCustodyOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0)
		w.lock.Leave()
		a, err := InProcess{Clock: w.clock, System: w.system, Started: func(i *Inmate) { w.inmate = i }}.Arm(t.Context(), engine.WatchdogOrder{RunID: runID})
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Lifted(t.Context()); err != nil {
			t.Fatal(err)
		}
		a.SecretFile("/var/tmp/secret")
		a.SecretFile("/var")     // never
		a.SecretFile("relative") // never
		a.Process(1, 1, "init")  // never
		wantFired(t, a, false)
		w.inmate.Sever()
		w.wantEnded(time.Second)
		if got := w.system.done(); !slices.Equal(got, []string{"remove /var/tmp/secret"}) {
			t.Errorf("it ended %q", got)
		}
	})
}

// The log of a journal that the run closed does not come back, and what is not ours is not overwritten.
func TestLogOverwritesOnlyItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		if err := w.catalog.Create(t.Context(), engine.WatchdogLogName(runID), []byte(`{"version":1,"run_id":"another"}`)); err != nil {
			t.Fatal(err)
		}
		a := w.arm()
		w.pause(a, engine.Ours)
		w.die()
		w.wantEnded(logGiveUp + time.Minute)
		w.wantPaused(false)
		if got := string(w.catalog.Peek(engine.WatchdogLogName(runID))); got != `{"version":1,"run_id":"another"}` {
			t.Errorf("the other log is %q now", got)
		}
	})
}

func FuzzDecode(f *testing.F) {
	o := order{RunID: runID, Max: limit, Targets: []engine.Target{{Group: "main", Address: "10.0.0.1:60051"}}}
	for _, m := range []message{
		{Type: typeArm, ID: 1, Version: protocolVersion, Order: &o}, {Type: typeSending, ID: 2},
		{Type: typeRecord, Target: &address{"main", "a"}, Owner: "ours"}, {Type: typeProcess, Key: 1, PID: 100, Start: 7, Name: "pg_dump"},
		{Type: typeSecret, Key: 2, Path: "/tmp/x/y"}, {Type: typeDone, Key: 1}, {Type: typeAck, ID: 3, Fired: true}, {Type: typeFired},
	} {
		data, err := encode(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, s := range []string{``, `{}`, `null`, `{"type":"secret","key":1,"path":"/"}`, `{"type":"process","key":1,"pid":-1,"start":1}`, `{"type":"sing"}`, `{"type":"done","key":1}{}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		m, err := decode(line)
		if err != nil {
			return
		}
		if m.Type == typeProcess && (m.PID <= 1 || m.Start == 0) {
			t.Fatalf("process %d would be killed", m.PID)
		}
		if m.Type == typeSecret && checkPath(m.Path) != nil {
			t.Fatalf("%q would be removed", m.Path)
		}
		data, err := encode(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decode(data); err != nil {
			t.Fatalf("what was decoded and encoded again is not decoded: %v", err)
		}
	})
}
