package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// run is one attempt.
type run struct {
	*Engine
	q       BackupRequest
	id      string
	names   []string // of storages, sorted
	current atomic.Value

	targets  []*runTarget
	sessions map[string]Session
	clocks   map[string]ClockSession // of a WindowOnly run
	facts    map[string]Facts
	bounds   map[string]ClockBound
	measured time.Duration // boot clock, when bounds were measured

	custody *custodyRelay
	lock    HeldLock
	armed   Armed
	journal journalWriter
	lifted  bool
	pausing sync.WaitGroup // Pause calls under way
	strays  sync.WaitGroup // work of the window that may outlast it: a driver that does not heed its context must not delay an Unpause
	lifting atomic.Bool    // the unpause phase began: no Pause is sent any more

	openedAt  atomic.Pointer[time.Time]
	firstSent time.Time
	firstBoot time.Duration
	keeper    *timekeeper
	result    PauseWindow
	closed    PauseWindow // what confirm made of it: for drivers, who read it in await only
	captured  map[string]Captured
	kept      map[string][]Artifact // what could not be discarded
	recorded  bool
	createdAt time.Time // of the manifest: the same in the catalog and in what is returned
	status    string
	mu        sync.Mutex
	warnings  []string
}

// runTarget is one target of a run.
type runTarget struct {
	Target
	group       Group
	record      *PauseRecord
	conn        AdminConn
	incarnation string // the resolver's and the connection's, before the Pause
	unpausedAt  time.Time
}

func newRun(e *Engine, q BackupRequest) *run {
	r := &run{
		Engine: e, q: q, id: e.NewRunID(), names: slices.Sorted(maps.Keys(q.Storages)),
		sessions: map[string]Session{}, clocks: map[string]ClockSession{}, facts: map[string]Facts{}, bounds: map[string]ClockBound{},
		captured: map[string]Captured{}, kept: map[string][]Artifact{}, custody: &custodyRelay{}, status: StatusIncomplete,
	}
	r.current.Store("")
	return r
}

// prefix is where the run's objects lie in the catalog.
func (r *run) prefix() string { return BackupPrefix(r.q.Name) + r.id + "/" }

// BackupPrefix is where everything of one backup lies in the catalog.
func BackupPrefix(name string) string { return "backups/" + name + "/" }

// ManifestName is the catalog object of a backup's manifest.
func ManifestName(name string) string { return BackupPrefix(name) + "manifest.json" }

func (r *run) warn(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.warnings = append(r.warnings, text)
}

func (r *run) report(ctx context.Context, p Phase, subject, message string, fields map[string]any, err error) {
	r.Reporter.Report(ctx, Event{At: r.Clock.Now().UTC(), Phase: p, Subject: subject, Message: message, Fields: fields, Err: err})
}

// promptly runs checks of the window at once. The first failure ends them all, and nothing is waited for then: targets are paused.
func (r *run) promptly(ctx context.Context, p Phase, checks []func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan error, len(checks))
	for _, check := range checks {
		r.strays.Go(func() { answers <- check(ctx) })
	}
	for range checks {
		if err := r.answer(ctx, p, answers, nil); err != nil {
			return err
		}
	}
	return nil
}

// answer waits for the next answer to calls that were made while targets are paused, or about to be. All the while it looks whether this process
// is awake: a call that takes long, to a server that drains or a slow database, must not look like a process that stood still.
func (r *run) answer(ctx context.Context, p Phase, answers <-chan error, gone <-chan struct{}) error {
	for {
		if err := r.awake(p); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return &Error{p, "", fmt.Errorf("waiting for answers: %w", ctx.Err())}
		}
		pulse, stop := r.Clock.WithTimeout(ctx, pulseInterval)
		select {
		case err := <-answers:
			stop()
			return err
		case <-gone:
			stop()
			return &Error{p, "watchdog", errWatchdogGone}
		case <-pulse.Done():
			stop()
		}
	}
}

// awake fails when this process stood still since it was last asked, or the wall clock stepped. Whoever waits while targets are paused asks
// every pulseInterval.
func (r *run) awake(p Phase) error {
	if err := r.keeper.pulse(); err != nil {
		return &Error{p, "", &VoidError{err.Error()}}
	}
	return nil
}

// checksOf makes a check of each item.
func checksOf[T any](items []T, f func(context.Context, T) error) []func(context.Context) error {
	checks := make([]func(context.Context) error, len(items))
	for i, item := range items {
		checks[i] = func(ctx context.Context) error { return f(ctx, item) }
	}
	return checks
}

// settle waits until nothing of the window runs any more, so that drivers may be told to discard and close.
func (r *run) settle(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		r.strays.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// each runs f on all items at once and joins their errors in the items' order.
func each[T any](items []T, f func(T) error) error {
	errs := make([]error, len(items))
	var wg sync.WaitGroup
	for i, item := range items {
		wg.Go(func() { errs[i] = f(item) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
