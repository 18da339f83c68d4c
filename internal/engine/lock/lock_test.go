package lock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/memcatalog"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/testclock"
)

var errBoom = errors.New("boom")

// world is one catalog and one clock; it is made in a bubble.
type world struct {
	catalog *memcatalog.Catalog
	clock   *testclock.Clock
}

func newWorld() world { return world{memcatalog.New(time.Now), testclock.New()} }

func (w world) options(run string) Options {
	return Options{Catalog: w.catalog, Clock: w.clock, RunID: run, Holder: "host/pid of " + run, Lease: time.Minute}
}

func (w world) acquire(t *testing.T, run string) *Lock {
	t.Helper()
	l, err := Acquire(t.Context(), w.options(run))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (w world) document(t *testing.T) document {
	t.Helper()
	d, err := decode(w.catalog.Peek(DefaultName))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// dead writes the lock of a holder that is not there any more.
func (w world) dead(t *testing.T, lease time.Duration) {
	t.Helper()
	d := document{Version: 1, State: held, RunID: "dead", Holder: "host/pid 1", Generation: 7, Heartbeat: 3, LeaseMS: lease.Milliseconds(), Since: time.Now().UTC()}
	data, err := d.encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.catalog.Create(t.Context(), DefaultName, data); err != nil {
		t.Fatal(err)
	}
}

func isLost(l *Lock) bool {
	select {
	case <-l.Lost():
		return true
	default:
		return false
	}
}

func TestAcquireAndRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		for i := range 3 {
			run := fmt.Sprintf("run%d", i)
			start := time.Now()
			l := w.acquire(t, run)
			if waited := time.Since(start); waited != 0 {
				t.Errorf("a free lock was waited for %s", waited)
			}
			if want := (engine.LockRef{Name: DefaultName, RunID: run, Generation: int64(i + 1)}); l.Ref() != want {
				t.Errorf("Ref = %+v, want %+v", l.Ref(), want)
			}
			if p, ok := l.TakenOver(); ok {
				t.Errorf("a free lock was taken over from %+v", p)
			}
			if err := l.Check(t.Context()); err != nil {
				t.Errorf("Check = %v", err)
			}
			for range 2 {
				if err := l.Release(t.Context()); err != nil {
					t.Errorf("Release = %v", err)
				}
			}
			if err := l.Check(t.Context()); !errors.Is(err, engine.ErrLockLost) {
				t.Errorf("Check after Release = %v, want ErrLockLost", err)
			}
			if isLost(l) {
				t.Error("a released lock counts as lost")
			}
			if d := w.document(t); d.State != free {
				t.Errorf("after Release the lock is %q", d.State)
			}
		}
	})
}

// A live holder is never robbed, however long it holds, also when the context of its Acquire has ended.
func TestLiveHolderKeepsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		ctx, cancel := context.WithCancel(t.Context())
		l, err := Acquire(ctx, w.options("long"))
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		wait, stop := context.WithTimeout(t.Context(), 30*time.Minute)
		defer stop()
		_, err = Acquire(wait, w.options("waiter"))
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("the waiter got %v", err)
		}
		for _, part := range []string{"host/pid of long", "run long", "since 2000-01-01T00:00:00Z", "1m0s", "timeouts"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("the error %q does not say %q", err, part)
			}
		}
		if err := l.Check(t.Context()); err != nil {
			t.Errorf("Check = %v", err)
		}
		if err := l.Release(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestWaiterGetsItAfterRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		first := w.acquire(t, "first")
		start := time.Now()
		time.AfterFunc(10*time.Minute, func() {
			if err := first.Release(context.Background()); err != nil {
				t.Error(err)
			}
		})
		second := w.acquire(t, "second")
		if waited := time.Since(start); waited < 10*time.Minute || waited > 10*time.Minute+maxPoll {
			t.Errorf("the waiter got it after %s, want right after 10 min", waited)
		}
		if _, ok := second.TakenOver(); ok {
			t.Error("a released lock was taken over")
		}
		if err := second.Release(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// The lease that counts is the holder's, and it counts from when the waiter first looked.
func TestTakeOver(t *testing.T) {
	for _, lease := range []time.Duration{10 * time.Second, 5 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			w.dead(t, lease)
			time.Sleep(time.Hour) // how long it is dead already does not count: nobody watched
			start := time.Now()
			l := w.acquire(t, "heir")
			if waited := time.Since(start); waited < lease || waited > lease+2*maxPoll {
				t.Errorf("taken over after %s, want one lease of %s", waited, lease)
			}
			p, ok := l.TakenOver()
			if !ok || p.RunID != "dead" || p.Generation != 7 || p.Holder != "host/pid 1" {
				t.Errorf("TakenOver = %+v, %v", p, ok)
			}
			if l.Ref().Generation != 8 {
				t.Errorf("the generation is %d, want 8", l.Ref().Generation)
			}
			if err := l.Release(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// A heartbeat that arrives just before the end of the lease starts the watch anew.
func TestHeartbeatPostponesTakeOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.dead(t, time.Minute)
		time.AfterFunc(55*time.Second, func() {
			d := w.document(t)
			d.Heartbeat++
			data, _ := d.encode()
			_, v, _ := w.catalog.Read(context.Background(), DefaultName)
			if _, err := w.catalog.Replace(context.Background(), DefaultName, data, v); err != nil {
				t.Error(err)
			}
		})
		start := time.Now()
		l := w.acquire(t, "heir")
		if waited := time.Since(start); waited < 115*time.Second {
			t.Errorf("taken over %s after a heartbeat at 55 s, want a whole minute after it", waited)
		}
		if err := l.Release(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A holder that cannot write loses the lock before anybody can take it, and does nothing to the next one's.
func TestFencing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		var cut atomic.Bool // the first holder's way to the catalog
		broken := memcatalog.New(time.Now)
		broken.Fail = func(string, string) error { return errBoom }
		o := w.options("first")
		o.Catalog = switched{w.catalog, func() engine.Catalog {
			if cut.Load() {
				return broken
			}
			return w.catalog
		}}
		first, err := Acquire(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		cut.Store(true)
		start := time.Now()
		lost := make(chan time.Duration, 1)
		go func() {
			<-first.Lost()
			lost <- time.Since(start)
		}()
		second := w.acquire(t, "second")
		taken := time.Since(start)
		if at := <-lost; at > taken || at > time.Minute {
			t.Errorf("the first holder lost the lock after %s, the second had it after %s", at, taken)
		}
		if p, ok := second.TakenOver(); !ok || p.RunID != "first" {
			t.Errorf("TakenOver = %+v, %v", p, ok)
		}
		cut.Store(false)
		if err := first.Check(t.Context()); !errors.Is(err, engine.ErrLockLost) {
			t.Errorf("Check of the first = %v, want ErrLockLost", err)
		}
		if err := first.Release(t.Context()); err != nil {
			t.Errorf("Release of the first = %v", err)
		}
		if err := ReleaseRef(t.Context(), w.catalog, first.Ref()); err != nil {
			t.Errorf("ReleaseRef of the first = %v", err)
		}
		if err := second.Check(t.Context()); err != nil {
			t.Errorf("Check of the second = %v", err)
		}
		if err := second.Release(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

type switched struct {
	*memcatalog.Catalog
	to func() engine.Catalog
}

func (s switched) Read(ctx context.Context, name string) ([]byte, engine.Version, error) {
	return s.to().Read(ctx, name)
}

func (s switched) Replace(ctx context.Context, name string, data []byte, v engine.Version) (engine.Version, error) {
	return s.to().Replace(ctx, name, data, v)
}

// A holder that was asleep finds out by Check, before its own renewal does.
func TestCheckSeesTheThief(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		l := w.acquire(t, "mine")
		d := w.document(t)
		d.RunID, d.Holder, d.Generation, d.Heartbeat = "other", "host/pid of other", d.Generation+1, 0
		data, _ := d.encode()
		_, v, _ := w.catalog.Read(t.Context(), DefaultName)
		if _, err := w.catalog.Replace(t.Context(), DefaultName, data, v); err != nil {
			t.Fatal(err)
		}
		err := l.Check(t.Context())
		if !errors.Is(err, engine.ErrLockLost) || !strings.Contains(err.Error(), "host/pid of other") {
			t.Errorf("Check = %v", err)
		}
		if !isLost(l) {
			t.Error("the lock does not count as lost")
		}
		if err := l.Release(t.Context()); err != nil {
			t.Error(err)
		}
		if w.document(t).State != held {
			t.Error("Release freed another's lock")
		}
	})
}

func TestRemovedLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		l := w.acquire(t, "mine")
		if err := w.catalog.Delete(t.Context(), DefaultName); err != nil {
			t.Fatal(err)
		}
		time.Sleep(16 * time.Second) // past a renewal
		if !isLost(l) {
			t.Error("a lock that somebody removed is not lost")
		}
		if err := l.Check(t.Context()); !errors.Is(err, engine.ErrLockLost) {
			t.Errorf("Check = %v", err)
		}
		if err := l.Release(t.Context()); err != nil {
			t.Errorf("Release = %v", err)
		}
	})
}

// Answers that are lost must not make a run wait for itself, or leave a lock behind.
func TestLostAnswers(t *testing.T) {
	for _, ops := range []string{"create", "replace", "create replace"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			left := 3
			w.catalog.After = func(op, _ string) error {
				if strings.Contains(ops, op) && left > 0 {
					left--
					return errBoom
				}
				return nil
			}
			start := time.Now()
			for _, run := range []string{"a", "b"} {
				l := w.acquire(t, run)
				if _, ok := l.TakenOver(); ok {
					t.Errorf("losing the answers to %s: %s took the lock over from somebody", ops, run)
				}
				if err := l.Release(t.Context()); err != nil {
					t.Errorf("losing the answers to %s: Release = %v", ops, err)
				}
			}
			if waited := time.Since(start); waited >= time.Minute {
				t.Errorf("losing the answers to %s took %s", ops, waited)
			}
		})
	}
}

func TestAbandonedAcquireLeavesNoLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		ctx, cancel := context.WithCancel(t.Context())
		w.catalog.After = func(op, _ string) error {
			if op == "create" {
				cancel()
				return errBoom
			}
			return nil
		}
		if _, err := Acquire(ctx, w.options("a")); !errors.Is(err, context.Canceled) {
			t.Errorf("Acquire = %v", err)
		}
		if d := w.document(t); d.State != free {
			t.Errorf("the lock is %s", d.State)
		}
	})
}

func TestBrokenCatalog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.catalog.Fail = func(string, string) error { return errBoom }
		start := time.Now()
		if _, err := Acquire(t.Context(), w.options("a")); !errors.Is(err, errBoom) || time.Since(start) > time.Second {
			t.Errorf("Acquire on a broken catalog = %v after %s, want its error at once", err, time.Since(start))
		}
		// A hiccup in a long wait does no harm.
		w.catalog.Fail = nil
		w.dead(t, time.Minute)
		n := 0
		w.catalog.Fail = func(string, string) error {
			if n++; n == 5 || n == 10 {
				return errBoom
			}
			return nil
		}
		l := w.acquire(t, "a")
		if err := l.Release(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestDocumentsNotUnderstood(t *testing.T) {
	good := `{"version":1,"state":"free","run_id":"x","holder":"h","generation":1,"heartbeat":0,"lease_ms":1000,"since":"2000-01-01T00:00:00Z"}`
	if _, err := decode([]byte(good)); err != nil {
		t.Fatalf("the good document: %v", err)
	}
	for name, text := range map[string]string{
		"empty":             "",
		"no JSON":           "held by me",
		"an empty object":   "{}",
		"null":              "null",
		"another version":   strings.Replace(good, `"version":1`, `"version":2`, 1),
		"another state":     strings.Replace(good, "free", "shared", 1),
		"a field too many":  strings.Replace(good, `"heartbeat":0`, `"heartbeat":0,"priority":1`, 1),
		"no generation":     strings.Replace(good, `"generation":1`, `"generation":0`, 1),
		"a huge generation": strings.Replace(good, `"generation":1`, `"generation":9007199254740992`, 1),
		"no lease":          strings.Replace(good, `"lease_ms":1000`, `"lease_ms":0`, 1),
		"a huge lease":      strings.Replace(good, `"lease_ms":1000`, `"lease_ms":9223372036854775807`, 1),
		"no run":            strings.Replace(good, `"run_id":"x"`, `"run_id":""`, 1),
		"two documents":     good + good,
		"too long":          strings.Replace(good, `"h"`, `"`+strings.Repeat("h", 5000)+`"`, 1),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				if err := w.catalog.Create(t.Context(), DefaultName, []byte(text)); err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				l, err := Acquire(t.Context(), w.options("a"))
				if err == nil {
					_ = l.Release(t.Context())
					t.Fatal("it was taken over")
				}
				if !strings.Contains(err.Error(), "remove this object") || time.Since(start) > time.Second {
					t.Errorf("Acquire = %v after %s", err, time.Since(start))
				}
				if err := ReleaseRef(t.Context(), w.catalog, engine.LockRef{Name: DefaultName, RunID: "x", Generation: 1}); err == nil {
					t.Error("ReleaseRef = nil")
				}
				if got := string(w.catalog.Peek(DefaultName)); got != text {
					t.Errorf("the document was changed to %q", got)
				}
			})
		})
	}
}

func TestOptions(t *testing.T) {
	for _, change := range []func(*Options){
		func(o *Options) { o.RunID = "" },
		func(o *Options) { o.Lease = -1 },
		func(o *Options) { o.Lease = 2 * maxLease },
		func(o *Options) { o.Holder = strings.Repeat("h", 1000) },
	} {
		w := newWorld()
		o := w.options("a")
		change(&o)
		if _, err := Acquire(t.Context(), o); err == nil {
			t.Errorf("Acquire with %+v = nil", o)
		}
		if len(w.catalog.Names()) != 0 {
			t.Error("it wrote something")
		}
	}
}

// The watchdog keeps a dead run's lock while it unpauses, also when that run wakes up again.
func TestAdopt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		run := w.acquire(t, "run")
		adopted, err := Adopt(t.Context(), Options{Catalog: w.catalog, Clock: w.clock}, run.Ref())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute) // both beat
		for _, l := range []*Lock{run, adopted} {
			if err := l.Check(t.Context()); err != nil || isLost(l) {
				t.Errorf("Check = %v", err)
			}
		}
		run.stop() // it dies
		wait, stop := context.WithTimeout(t.Context(), 10*time.Minute)
		defer stop()
		if _, err := Acquire(wait, w.options("waiter")); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("the waiter got %v", err)
		}
		if err := adopted.Release(t.Context()); err != nil {
			t.Error(err)
		}
		if d := w.document(t); d.State != free {
			t.Errorf("the lock is %s", d.State)
		}
		if _, err := Adopt(t.Context(), Options{Catalog: w.catalog, Clock: w.clock}, run.Ref()); !errors.Is(err, engine.ErrLockLost) {
			t.Errorf("Adopt of a freed lock = %v, want ErrLockLost", err)
		}
	})
}

func TestLocker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		var locker engine.Locker = Locker{Catalog: w.catalog, Clock: w.clock, Holder: "me"}
		l, err := locker.Acquire(t.Context(), "a", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if l, err := locker.Acquire(ctx, "b", time.Minute); err == nil || l != nil {
			t.Errorf("a second Acquire = %v, %v; want a nil interface and an error", l, err)
		}
		if err := l.Release(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestOneAtATime lets runs fight for the lock on a catalog that fails, hangs, and loses answers: two of them must never believe to hold it.
func TestOneAtATime(t *testing.T) {
	for seed := range uint64(12) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			var mu sync.Mutex
			rnd := rand.New(rand.NewPCG(seed, 1))
			chance := func(percent int) bool {
				mu.Lock()
				defer mu.Unlock()
				return rnd.IntN(100) < percent
			}
			span := func(limit time.Duration) time.Duration {
				mu.Lock()
				defer mu.Unlock()
				return time.Duration(rnd.Int64N(int64(limit)))
			}
			trouble := true
			fault := func(string, string) error {
				switch {
				case !trouble:
				case chance(5):
					time.Sleep(span(90 * time.Second)) // it takes effect late, when nobody waits for it any more
				case chance(10):
					return errBoom
				case chance(50):
					time.Sleep(span(100 * time.Millisecond))
				}
				return nil
			}
			w.catalog.Fail, w.catalog.After = fault, fault

			var holder string
			var got, tookOver int
			var wg sync.WaitGroup
			for i := range 5 {
				wg.Go(func() {
					for round := range 3 {
						time.Sleep(span(time.Minute))
						run := fmt.Sprintf("run-%d-%d", i, round)
						o := w.options(run)
						o.Lease = 20*time.Second + span(40*time.Second)
						l, err := Acquire(t.Context(), o)
						if err != nil {
							continue
						}
						mu.Lock()
						if holder != "" {
							t.Errorf("seed %d: %s got the lock while %s believes to hold it", seed, run, holder)
						}
						holder = run
						got++
						if _, ok := l.TakenOver(); ok {
							tookOver++
						}
						mu.Unlock()
						over := time.NewTimer(span(5 * time.Minute))
						select {
						case <-over.C:
						case <-l.Lost():
						}
						mu.Lock()
						holder = ""
						mu.Unlock()
						if chance(30) { // it dies
							l.stop()
							<-l.stopped
						} else {
							_ = l.Release(t.Context()) // may fail on this catalog; then others wait for the lease
						}
					}
				})
			}
			wg.Wait()
			trouble = false
			last, err := Acquire(t.Context(), w.options("last"))
			if err != nil {
				t.Fatalf("seed %d: when all are gone the lock cannot be taken: %v", seed, err)
			}
			if err := last.Release(t.Context()); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Hour) // whatever still hangs in the catalog ends
			if got == 0 {
				t.Errorf("seed %d: nobody ever got the lock", seed)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		`{"version":1,"state":"held","run_id":"x","holder":"h","generation":1,"heartbeat":0,"lease_ms":1000,"since":"2000-01-01T00:00:00Z"}`,
		`{"version":2}`, `{}`, ``, `null`, `[]`, `{"version":1,"state":"free"}`, `{"version":1e0}`, `{"VERSION":1,"version":2}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := decode(data)
		if err != nil {
			return
		}
		if d.Version != formatVersion || d.RunID == "" || d.Generation < 1 || d.Generation >= maxGeneration || d.lease() <= 0 || d.lease() > maxLease || (d.State != held && d.State != free) {
			t.Fatalf("decode let through %+v", d)
		}
		again, err := d.encode()
		if err != nil {
			t.Fatal(err)
		}
		if !json.Valid(again) {
			t.Fatalf("encoded as %q", again)
		}
	})
}
