// Package lock is the lock of a catalog: of all runs that share the catalog, one at a time pauses targets.
//
// The lock is one object. Who creates it, or replaces a free one, holds it; a holder renews it by counting up a heartbeat. Nobody compares
// clocks: a waiter watches the heartbeat on its own boot clock, and takes the lock over once it has seen no change for a whole lease (the
// one in the document). A take-over counts up the generation, so that the former holder's next renewal, check or release finds out (fencing).
package lock

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

// DefaultName is the lock's object in a catalog.
const DefaultName = "lock.json"

// DefaultLease is how long a holder may be silent before others take the lock over.
const DefaultLease = time.Minute

const (
	maxPoll = 2 * time.Second // between two looks of a waiter
	minPoll = time.Millisecond
	// maxFailures in a row of the catalog end a wait: one of them may be a hiccup.
	maxFailures = 5
	// cleanupTimeout bounds what is done after ctx has ended.
	cleanupTimeout = 10 * time.Second
)

// Options are the settings of one acquisition.
type Options struct {
	Catalog engine.Catalog
	Clock   engine.Clock
	Name    string // of the object; empty: DefaultName
	RunID   string // random: no other run has it
	Holder  string // for messages ("host/pid 123")
	// Lease is from 1 ms to 1 h; 0: DefaultLease.
	Lease time.Duration
	// Report, if set, is told of every change that a waiter sees, and of failed renewals.
	Report func(message string, fields map[string]any)
}

func (o Options) withDefaults() (Options, error) {
	if o.Name == "" {
		o.Name = DefaultName
	}
	if o.Lease == 0 {
		o.Lease = DefaultLease
	}
	if o.Report == nil {
		o.Report = func(string, map[string]any) {}
	}
	if o.Lease < time.Millisecond || o.Lease > maxLease {
		return o, fmt.Errorf("taking the lock %s: a lease of %s is not between 1ms and %s", o.Name, o.Lease, maxLease)
	}
	if o.RunID == "" || len(o.RunID) > 100 || len(o.Holder) > 500 {
		return o, fmt.Errorf("taking the lock %s: the run id (%d bytes) or the holder's name (%d bytes) is missing or too long", o.Name, len(o.RunID), len(o.Holder))
	}
	return o, nil
}

// Previous is a holder that the lock was taken over from, because it seemed dead.
type Previous struct {
	RunID      string
	Holder     string
	Generation int64
	Since      time.Time // by its own clock
}

// Lock is one holding. It renews itself, also after the context of Acquire ended (unpausing goes on then), until Release or until it is lost.
type Lock struct {
	o          Options
	generation int64
	since      time.Time
	previous   *Previous

	stop    context.CancelFunc
	stopped chan struct{} // closed when the renewal has ended
	lost    chan struct{}

	mu   sync.Mutex
	why  error // why it is lost; nil while it is not
	done bool  // released
}

var _ engine.HeldLock = (*Lock)(nil)

// Locker takes the lock of one catalog; it is what the engine knows of this package.
type Locker struct {
	Catalog engine.Catalog
	Clock   engine.Clock
	Name    string // empty: DefaultName
	Holder  string
	Report  func(message string, fields map[string]any)
}

var _ engine.Locker = Locker{}

// Acquire waits for the lock.
func (l Locker) Acquire(ctx context.Context, runID string, lease time.Duration) (engine.HeldLock, error) {
	held, err := Acquire(ctx, Options{Catalog: l.Catalog, Clock: l.Clock, Name: l.Name, RunID: runID, Holder: l.Holder, Lease: lease, Report: l.Report})
	if err != nil {
		return nil, err // not held in it: a nil *Lock is no nil HeldLock
	}
	return held, nil
}

// Acquire waits until the lock is free, or its holder was silent for a whole lease, and takes it. When ctx ends first, the error names the holder.
func Acquire(ctx context.Context, o Options) (*Lock, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	a := acquisition{o: o}
	l, err := a.run(ctx)
	if err != nil {
		a.abandon(ctx)
		return nil, err
	}
	return l, nil
}

// acquisition is one wait for the lock.
type acquisition struct {
	o        Options
	seen     *document     // the holder's document, as last seen
	seenAt   time.Duration // boot clock, when the read that first showed it had ended
	tried    int64         // the generation that we last tried to write, or 0; it may have been written without our hearing of it
	previous *Previous     // whom tried takes it over from
	failures int
}

func (a *acquisition) run(ctx context.Context) (*Lock, error) {
	for first := true; ; first = false {
		l, err := a.try(ctx)
		switch {
		case l != nil:
			return l, nil
		case err == nil:
			a.failures = 0
		case ctx.Err() != nil:
			return nil, a.gaveUp(ctx.Err())
		case errors.As(err, new(*documentError)):
			return nil, err
		default:
			a.failures++
			// What fails at once is more likely a wrong setting than a hiccup.
			if (first && a.tried == 0) || a.failures >= maxFailures {
				return nil, err
			}
			a.o.Report("the lock could not be read or written; trying again", map[string]any{"error": err.Error()})
		}
		if err := a.o.Clock.Sleep(ctx, a.poll()); err != nil {
			return nil, a.gaveUp(err)
		}
	}
}

func (a *acquisition) poll() time.Duration {
	lease := a.o.Lease
	if a.seen != nil {
		lease = min(lease, a.seen.lease())
	}
	return max(min(lease/8, maxPoll), minPoll)
}

// try looks once, and takes the lock if it may. It returns nil and nil when there is reason to look again.
func (a *acquisition) try(ctx context.Context) (*Lock, error) {
	started := a.o.Clock.Boot()
	d, v, err := read(ctx, a.o.Catalog, a.o.Name)
	if errors.Is(err, engine.ErrNotFound) {
		return a.write(ctx, 1, nil, func(data []byte) error { return a.o.Catalog.Create(ctx, a.o.Name, data) })
	}
	if err != nil {
		return nil, err
	}
	replace := func(data []byte) error {
		_, err := a.o.Catalog.Replace(ctx, a.o.Name, data, v)
		return err
	}
	switch {
	case d.State == held && d.RunID == a.o.RunID:
		// It was written after all; the answer was lost. Written anew, so that the lease begins at a moment we know.
		d.Heartbeat++
		return a.put(ctx, d, replace)
	case d.State == free:
		return a.write(ctx, d.Generation+1, nil, replace)
	case a.seen == nil || a.seen.RunID != d.RunID || a.seen.Generation != d.Generation || a.seen.Heartbeat != d.Heartbeat:
		if a.seen == nil || a.seen.Generation != d.Generation {
			a.o.Report("waiting for the lock", map[string]any{"lock": a.o.Name, "holder": d.Holder, "run_id": d.RunID, "since": d.Since})
		}
		a.seen, a.seenAt = &d, a.o.Clock.Boot()
		return nil, nil
	case started-a.seenAt < d.lease():
		return nil, nil
	default:
		a.o.Report("taking the lock over: its holder shows no sign of life", map[string]any{"lock": a.o.Name, "holder": d.Holder, "run_id": d.RunID, "since": d.Since, "lease": d.lease().String()})
		return a.write(ctx, d.Generation+1, &Previous{RunID: d.RunID, Holder: d.Holder, Generation: d.Generation, Since: d.Since}, replace)
	}
}

func (a *acquisition) write(ctx context.Context, generation int64, previous *Previous, write func([]byte) error) (*Lock, error) {
	a.previous = previous
	return a.put(ctx, document{
		Version: formatVersion, State: held, RunID: a.o.RunID, Holder: a.o.Holder, Generation: generation,
		LeaseMS: a.o.Lease.Milliseconds(), Since: a.o.Clock.Now().UTC().Round(0),
	}, write)
}

func (a *acquisition) put(ctx context.Context, d document, write func([]byte) error) (*Lock, error) {
	data, err := d.encode()
	if err != nil {
		return nil, err
	}
	started := a.o.Clock.Boot()
	a.tried = d.Generation
	err = write(data)
	if lostRace(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("taking the lock %s in %s: %w", a.o.Name, a.o.Catalog.Describe(), err)
	}
	if a.o.Clock.Boot()-started >= d.lease()/2 {
		return nil, nil // the answer took so long that it may be another's by now: look again
	}
	return a.o.start(ctx, d, started, a.previous), nil
}

// abandon gives back what a failed acquisition may hold without knowing.
func (a *acquisition) abandon(ctx context.Context) {
	if a.tried == 0 {
		return
	}
	ctx, cancel := a.o.Clock.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	if err := ReleaseRef(ctx, a.o.Catalog, engine.LockRef{Name: a.o.Name, RunID: a.o.RunID, Generation: a.tried}); err != nil {
		a.o.Report("a lock that may be held could not be given back; others will take it over after its lease", map[string]any{"error": err.Error()})
	}
}

func (a *acquisition) gaveUp(err error) error {
	if a.seen == nil {
		return fmt.Errorf("waiting for the lock %s in %s: %w", a.o.Name, a.o.Catalog.Describe(), err)
	}
	d := a.seen
	return fmt.Errorf("waiting for the lock %s in %s: %s (run %s) holds it since %s: %w; it is free when that run ends, or, if it is dead, "+
		"after %s without a sign of life: apply again then, or allow more time in timeouts",
		a.o.Name, a.o.Catalog.Describe(), d.Holder, d.RunID, d.Since.Format(time.RFC3339), err, d.lease())
}

// Adopt goes on renewing a holding of a process that died, as its watchdog does while it unpauses. It fails with engine.ErrLockLost when
// the holding is not there any more. Options need neither RunID nor Holder nor Lease.
func Adopt(ctx context.Context, o Options, ref engine.LockRef) (*Lock, error) {
	o.Name, o.RunID = ref.Name, ref.RunID
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	for {
		started := o.Clock.Boot()
		d, v, err := read(ctx, o.Catalog, o.Name)
		if err == nil && !d.ours(ref.RunID, ref.Generation) {
			err = lostTo(o, d)
		}
		if err != nil {
			return nil, fmt.Errorf("adopting the lock of run %s: %w", ref.RunID, err)
		}
		o.Holder, o.Lease = d.Holder, d.lease()
		d.Heartbeat++
		data, err := d.encode()
		if err != nil {
			return nil, err
		}
		_, err = o.Catalog.Replace(ctx, o.Name, data, v)
		if err == nil && o.Clock.Boot()-started < d.lease()/2 {
			return o.start(ctx, d, started, nil), nil
		}
		if err != nil && !lostRace(err) {
			return nil, fmt.Errorf("adopting the lock of run %s: %w", ref.RunID, err)
		}
	}
}

// start begins to renew a lock that was just written.
func (o Options) start(ctx context.Context, d document, written time.Duration, previous *Previous) *Lock {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	l := &Lock{
		o: o, generation: d.Generation, since: d.Since, previous: previous,
		stop: stop, stopped: make(chan struct{}), lost: make(chan struct{}),
	}
	go l.renew(ctx, written)
	return l
}

// Ref identifies this holding.
func (l *Lock) Ref() engine.LockRef {
	return engine.LockRef{Name: l.o.Name, RunID: l.o.RunID, Generation: l.generation}
}

// TakenOver returns the dead holder that the lock was taken over from; ok is false when it was free.
func (l *Lock) TakenOver() (p Previous, ok bool) {
	if l.previous == nil {
		return Previous{}, false
	}
	return *l.previous, true
}

// Lost is closed when the lock is another's, or could not be renewed for a whole lease, so that it may be another's any moment.
func (l *Lock) Lost() <-chan struct{} { return l.lost }

// Check reads the lock again: nil means that it was ours when it was read. It wraps engine.ErrLockLost when it is lost; other errors do not say.
func (l *Lock) Check(ctx context.Context) error {
	if err := l.whyLost(); err != nil {
		return err
	}
	d, _, err := read(ctx, l.o.Catalog, l.o.Name)
	if errors.Is(err, engine.ErrNotFound) {
		err = fmt.Errorf("%w: the lock %s in %s was removed", engine.ErrLockLost, l.o.Name, l.o.Catalog.Describe())
		l.lose(err)
		return err
	}
	if err != nil {
		return fmt.Errorf("checking that the lock is still ours: %w", err)
	}
	if !d.ours(l.o.RunID, l.generation) {
		err := lostTo(l.o, d)
		l.lose(err)
		return err
	}
	return l.whyLost()
}

// renew writes the heartbeat four times in a lease. written is when (boot clock) the last write that succeeded was begun: others may take the lock
// over no earlier than one lease after it. We count it as lost a little before that, since no two clocks run at quite the same speed.
func (l *Lock) renew(ctx context.Context, written time.Duration) {
	defer close(l.stopped)
	interval, keep := l.o.Lease/4, l.o.Lease-l.o.Lease/16
	pause := written + interval - l.o.Clock.Boot()
	var failed error // of the last try
	for {
		if l.o.Clock.Sleep(ctx, pause) != nil {
			return
		}
		started := l.o.Clock.Boot()
		left := written + keep - started
		if left <= 0 {
			if failed != nil {
				l.lose(fmt.Errorf("%w, or may be any moment: it could not be renewed for %s: %w", engine.ErrLockLost, l.o.Lease, failed))
				return
			}
			// A long sleep (a suspended machine). A write that succeeds now proves that nobody used it.
			left = interval
		}
		failed = l.beatWithin(ctx, min(interval, left), left)
		switch {
		case ctx.Err() != nil:
			return
		case failed == nil:
			written = started
			pause = written + interval - l.o.Clock.Boot()
		case errors.Is(failed, engine.ErrLockLost):
			l.lose(failed)
			return
		default:
			left = max(0, written+keep-l.o.Clock.Boot())
			l.o.Report("the lock could not be renewed; trying again", map[string]any{"error": failed.Error(), "left": left.String()})
			pause = min(l.o.Lease/16, left)
		}
	}
}

// beatWithin writes one heartbeat, for which it has soft. A catalog that does not heed that (a file server that hangs) is waited for until hard, and then left to itself.
func (l *Lock) beatWithin(ctx context.Context, soft, hard time.Duration) error {
	wait, stop := l.o.Clock.WithTimeout(ctx, hard)
	defer stop()
	result := make(chan error, 1)
	go func() {
		once, cancel := l.o.Clock.WithTimeout(ctx, soft)
		defer cancel()
		result <- l.beat(once)
	}()
	select {
	case err := <-result:
		return err
	case <-wait.Done():
		return wait.Err()
	}
}

// beat writes one heartbeat. Another process may beat for the same holding (the watchdog of a run that it takes for dead).
func (l *Lock) beat(ctx context.Context) error {
	for {
		d, v, err := read(ctx, l.o.Catalog, l.o.Name)
		if errors.Is(err, engine.ErrNotFound) {
			return fmt.Errorf("%w: the lock %s in %s was removed", engine.ErrLockLost, l.o.Name, l.o.Catalog.Describe())
		}
		if err != nil {
			return err
		}
		if !d.ours(l.o.RunID, l.generation) {
			return lostTo(l.o, d)
		}
		d.Heartbeat++
		data, err := d.encode()
		if err != nil {
			return err
		}
		if _, err = l.o.Catalog.Replace(ctx, l.o.Name, data, v); err == nil {
			return nil
		}
		if !lostRace(err) {
			return fmt.Errorf("renewing the lock %s in %s: %w", l.o.Name, l.o.Catalog.Describe(), err)
		}
	}
}

func (l *Lock) lose(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.why == nil && !l.done {
		l.why = err
		close(l.lost)
	}
}

func (l *Lock) whyLost() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.why
}

// Leave stops the renewal and leaves the lock as it is: to another process that renews the same holding, or to the end of the lease.
func (l *Lock) Leave() {
	l.stop()
	<-l.stopped
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done = true
}

// HeldBy tells which run holds a lock, if one does.
func HeldBy(ctx context.Context, c engine.Catalog, name string) (runID string, isHeld bool, err error) {
	d, _, err := read(ctx, c, name)
	if errors.Is(err, engine.ErrNotFound) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	return d.RunID, d.State == held, nil
}

// Release stops the renewal and frees the lock if it is still ours. A lock that is another's by now is left alone, without an error. A catalog that
// fails is tried again for as long as the lease holds. Idempotent.
func (l *Lock) Release(ctx context.Context) error {
	l.Leave()
	until := l.o.Clock.Boot() + l.o.Lease
	for {
		err := ReleaseRef(ctx, l.o.Catalog, l.Ref())
		if err == nil || ctx.Err() != nil || l.o.Clock.Boot() >= until || errors.As(err, new(*documentError)) {
			return err
		}
		if l.o.Clock.Sleep(ctx, max(min(l.o.Lease/16, maxPoll), minPoll)) != nil {
			return err
		}
	}
}

// ReleaseRef frees one holding, if it still is what holds the lock. It tries once; only a race with a renewal is tried again.
func ReleaseRef(ctx context.Context, c engine.Catalog, ref engine.LockRef) error {
	for {
		d, v, err := read(ctx, c, ref.Name)
		if errors.Is(err, engine.ErrNotFound) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("releasing the lock of run %s: %w", ref.RunID, err)
		}
		if !d.ours(ref.RunID, ref.Generation) {
			return nil
		}
		d.State = free
		data, err := d.encode()
		if err != nil {
			return err
		}
		if _, err = c.Replace(ctx, ref.Name, data, v); err == nil {
			return nil
		}
		if !lostRace(err) {
			return fmt.Errorf("releasing the lock of run %s: %w; others can take it over after %s without a sign of life", ref.RunID, err, d.lease())
		}
	}
}

// documentError is a lock that is there and not understood: never taken over, never waited for.
type documentError struct{ err error }

func (e *documentError) Error() string { return e.err.Error() }
func (e *documentError) Unwrap() error { return e.err }

func read(ctx context.Context, c engine.Catalog, name string) (document, engine.Version, error) {
	data, v, err := c.Read(ctx, name)
	if err != nil {
		return document{}, "", fmt.Errorf("reading the lock %s in %s: %w", name, c.Describe(), err)
	}
	d, err := decode(data)
	if err != nil {
		return document{}, "", &documentError{fmt.Errorf("reading the lock %s in %s: %w; if you are sure that no run uses the catalog, remove this object", name, c.Describe(), err)}
	}
	return d, v, nil
}

// lostRace says that somebody else wrote between our look and our write.
func lostRace(err error) bool {
	return errors.Is(err, engine.ErrExists) || errors.Is(err, engine.ErrChanged) || errors.Is(err, engine.ErrNotFound)
}

func lostTo(o Options, d document) error {
	if d.State == free {
		return fmt.Errorf("%w: the lock %s in %s is free, last held by %s (run %s)", engine.ErrLockLost, o.Name, o.Catalog.Describe(), d.Holder, d.RunID)
	}
	return fmt.Errorf("%w: the lock %s in %s is held by %s (run %s) since %s", engine.ErrLockLost, o.Name, o.Catalog.Describe(), d.Holder, d.RunID, d.Since.Format(time.RFC3339))
}
