package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Time limits of steps that run detached from the caller's context, or that the pause waits for.
const (
	unpauseTimeout   = time.Minute      // then the watchdog goes on alone
	cleanUpTimeout   = 2 * time.Minute  // discarding what a failed run made
	noteTimeout      = 10 * time.Second // writing the journal after the pause
	lockCheckTimeout = 2 * time.Second  // asking whose the lock is, before an Unpause
	pollInterval     = 250 * time.Millisecond
	beatInterval     = 30 * time.Second
	abortedDelay     = 50 * time.Millisecond
	recordRetry      = 2 * time.Second
	// leaseBeyondMax is how much longer than the longest pause the lock's lease is: before a lock can be taken over, the dead run's watchdog has unpaused.
	leaseBeyondMax = 15 * time.Second
)

// Backup takes one backup (or holds one window), through the nine phases. The record it returns says what exists, also with an error.
//
// Whatever happens from PhasePause on, PhaseUnpause runs, on a context that no cancellation reaches.
func (e *Engine) Backup(ctx context.Context, q BackupRequest) (Backup, error) {
	r := newRun(e, q)
	defer r.release(ctx)

	// Nothing is touched.
	for _, s := range []step{{PhaseResolve, r.resolve}, {PhasePreflight, r.preflight}, {PhaseArm, r.arm}} {
		if err := r.do(ctx, s); err != nil {
			return r.abandon(ctx, err)
		}
	}

	// Targets are paused from here ...
	windowErr := r.window(ctx)
	// ... to here, on every path.
	unpauseErr := r.do(context.WithoutCancel(ctx), step{PhaseUnpause, r.unpause})

	if err := errors.Join(unpauseErr, windowErr); err != nil {
		return r.abandon(ctx, err)
	}
	for _, s := range []step{{PhaseAwait, r.await}, {PhaseRecord, r.record}} {
		if err := r.do(ctx, s); err != nil {
			return r.abandon(ctx, err)
		}
	}
	return r.backup(), nil
}

// window is the three phases in which targets are paused. It ends at max_duration, counted from the first Pause sent.
func (r *run) window(ctx context.Context) error {
	ctx, cancel := r.Clock.WithTimeout(ctx, r.q.Pause.Max)
	defer cancel()
	for _, s := range []step{{PhasePause, r.pause}, {PhaseCapture, r.capture}, {PhaseConfirm, r.confirm}} {
		if err := r.do(ctx, s); err != nil {
			if ctx.Err() == context.DeadlineExceeded {
				err = errors.Join(err, &Error{s.phase, "", fmt.Errorf("the pause reached max_duration (%s) and was ended", r.q.Pause.Max)})
			}
			return err
		}
	}
	return nil
}

type step struct {
	phase Phase
	run   func(ctx context.Context) error
}

// do runs one phase.
func (r *run) do(ctx context.Context, s step) error {
	r.current.Store(string(s.phase))
	r.report(ctx, s.phase, "", "phase begins", nil, nil)
	if r.Hook != nil {
		r.Hook(ctx, s.phase)
	}
	err := s.run(ctx)
	// A cancel counts at the end of a phase too: unless nothing is left to be cancelled.
	if err == nil && s.phase != PhaseUnpause && s.phase != PhaseRecord && ctx.Err() != nil {
		err = &Error{s.phase, "", fmt.Errorf("cancelled: %w", ctx.Err())}
	}
	if err != nil {
		r.report(ctx, s.phase, "", "phase ends with an error", nil, err)
		return err
	}
	r.report(ctx, s.phase, "", "phase ends", nil, nil)
	return nil
}

// --- resolve ---------------------------------------------------------------

func (r *run) resolve(ctx context.Context) error {
	found, err := r.resolveGroups(ctx, PhaseResolve)
	if err != nil {
		return err
	}
	for _, t := range found {
		r.targets = append(r.targets, &runTarget{Target: t, group: r.q.Groups[t.Group], record: NewPauseRecord(t)})
		r.report(ctx, PhaseResolve, t.Address, "target", map[string]any{"group": t.Group, "name": t.Name, "incarnation": t.Incarnation}, nil)
	}
	return nil
}

// resolveGroups asks every group's resolver, all at once; the targets come back sorted by group and address.
func (r *run) resolveGroups(ctx context.Context, p Phase) ([]Target, error) {
	groups := slices.Sorted(maps.Keys(r.q.Groups))
	var mu sync.Mutex
	var all []Target
	err := each(groups, func(name string) error {
		found, err := r.q.Groups[name].Resolver.Resolve(ctx)
		if err == nil && len(found) == 0 {
			err = errors.New("it has no target: a backup of a system whose servers are not known proves nothing")
		}
		if err != nil {
			return &Error{p, "target group " + name, err}
		}
		mu.Lock()
		defer mu.Unlock()
		for _, t := range found {
			t.Group = name
			all = append(all, t)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(groups) == 0 {
		return nil, &Error{p, "", errors.New("there is no target group: nothing could be paused")}
	}
	slices.SortFunc(all, func(a, b Target) int {
		return strings.Compare(a.Group+"\x00"+a.Address, b.Group+"\x00"+b.Address)
	})
	for i := 1; i < len(all); i++ {
		for _, earlier := range all[:i] {
			if earlier.Address == all[i].Address {
				return nil, &Error{p, all[i].Address, fmt.Errorf("it is in the target groups %s and %s (or twice in one); a target belongs to one", earlier.Group, all[i].Group)}
			}
		}
	}
	return all, nil
}

// --- preflight -------------------------------------------------------------

func (r *run) preflight(ctx context.Context) error {
	lock, err := r.Locker.Acquire(ctx, r.id, r.q.Pause.Max+leaseBeyondMax)
	if err != nil {
		return &Error{PhasePreflight, "lock", err}
	}
	r.lock = lock
	if err := r.recover(ctx); err != nil {
		return err
	}

	checks := []func() error{func() error { return r.nameFree(ctx) }, func() error { return r.probe(ctx) }}
	for _, t := range r.targets {
		checks = append(checks, func() error { return r.reach(ctx, t) })
	}
	for _, name := range r.names {
		checks = append(checks, func() error { return r.prepare(ctx, name) })
	}
	if err := each(checks, func(check func() error) error { return check() }); err != nil {
		return err
	}
	return r.measureClocks(ctx, PhasePreflight)
}

// Prober is what a Catalog may also be: it proves that it can be written, and does what a catalog must.
type Prober interface {
	Probe(ctx context.Context) error
}

func (r *run) probe(ctx context.Context) error {
	p, ok := r.Catalog.(Prober)
	if !ok {
		return nil
	}
	if err := p.Probe(ctx); err != nil {
		return &Error{PhasePreflight, "catalog", err}
	}
	return nil
}

func (r *run) nameFree(ctx context.Context) error {
	if r.q.WindowOnly {
		return nil
	}
	_, err := r.Catalog.Stat(ctx, ManifestName(r.q.Name))
	switch {
	case errors.Is(err, ErrNotFound):
		return nil
	case err != nil:
		return &Error{PhasePreflight, "catalog", fmt.Errorf("looking for a backup named %s in %s: %w", r.q.Name, r.Catalog.Describe(), err)}
	}
	return &Error{PhasePreflight, "catalog", fmt.Errorf("there is a backup named %s in %s already, and a backup is never overwritten: choose a new name, or import it (terraform import ADDRESS %s)",
		r.q.Name, r.Catalog.Describe(), r.q.Name)}
}

// reach connects to a target and asks whether it is paused.
func (r *run) reach(ctx context.Context, t *runTarget) error {
	conn, err := t.group.Dialer.Dial(ctx, t.Target)
	if err != nil {
		return &Error{PhasePreflight, t.Address, err}
	}
	r.mu.Lock()
	t.conn = conn
	r.mu.Unlock()
	paused, err := conn.CheckPaused(ctx)
	if err != nil {
		return &Error{PhasePreflight, t.Address, err}
	}
	if paused {
		return &Error{PhasePreflight, t.Address, errors.New("it is paused already, by somebody else: nothing was touched. If nobody knows of that pause, lift it with `terraform-provider-scalardb unpause --address " + t.Name + "`")}
	}
	t.incarnation = incarnation(t)
	return nil
}

// incarnation is what must stay the same from before the Pause to the end of the window.
func incarnation(t *runTarget) string {
	if t.Incarnation != "" {
		return t.Incarnation + ", " + t.conn.Incarnation()
	}
	return t.conn.Incarnation()
}

// prepare runs one storage's preflight.
func (r *run) prepare(ctx context.Context, name string) error {
	q := r.q.Storages[name]
	if r.q.WindowOnly {
		c, err := q.Source.OpenClock(ctx)
		if err != nil {
			return &Error{PhasePreflight, name, err}
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.clocks[name] = c
		r.facts[name] = Facts{NeedsInstant: true, Granule: time.Second}
		return nil
	}
	s, err := q.Source.Preflight(ctx, Run{
		ID: r.id, BackupID: r.q.Name, Catalog: r.Catalog, Prefix: r.prefix(), Custody: r.custody, ServerClockBound: r.q.Pause.ServerClockBound,
		OpenedAt: func() time.Time {
			if at := r.openedAt.Load(); at != nil {
				return *at
			}
			return time.Time{}
		},
		Window: func() PauseWindow { return r.closed },
		Report: func(message string, fields map[string]any) {
			p, _ := r.current.Load().(string)
			r.report(ctx, Phase(p), name, message, fields, nil)
		},
	})
	if err != nil {
		return &Error{PhasePreflight, name, err}
	}
	f := s.Facts()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sessions[name], r.facts[name] = s, f
	r.clocks[name] = s
	for _, w := range f.Warnings {
		r.warnings = append(r.warnings, "storage "+name+": "+w)
	}
	return nil
}

// measureClocks measures every storage's clock. The second time, the hull of both bounds counts, and a step voids.
func (r *run) measureClocks(ctx context.Context, p Phase) error {
	boot := r.Clock.Boot()
	again := p == PhaseConfirm
	err := each(slices.Sorted(maps.Keys(r.clocks)), func(name string) error {
		b, err := r.clocks[name].MeasureClock(ctx)
		if err != nil {
			return &Error{p, name, fmt.Errorf("measuring its clock: %w", err)}
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if again {
			if err := stepped(r.bounds[name], b, boot-r.measured); err != nil {
				return &Error{p, name, &VoidError{err.Error()}}
			}
			b = hull(r.bounds[name], b)
		}
		r.bounds[name] = b
		return nil
	})
	if !again {
		r.measured = boot
	}
	return err
}

// --- arm -------------------------------------------------------------------

func (r *run) arm(ctx context.Context) error {
	r.journal = journalWriter{catalog: r.Catalog, doc: Journal{
		Version: journalVersion, RunID: r.id, BackupID: r.q.Name, Holder: r.Holder, StartedAt: r.Clock.Now().UTC(), Phase: PhaseArm, Pause: r.q.Pause,
		Storages: map[string]JournalStorage{},
	}}
	for _, name := range r.names {
		if !r.q.WindowOnly {
			r.journal.doc.Storages[name] = JournalStorage{Driver: r.q.Storages[name].Driver, Arguments: r.q.Storages[name].Arguments, Artifacts: r.facts[name].Planned}
		}
	}
	r.noteTargets()
	if err := r.journal.write(ctx); err != nil {
		return &Error{PhaseArm, "journal", err}
	}
	order := WatchdogOrder{RunID: r.id, BackupID: r.q.Name, Pause: r.q.Pause, Journal: WatchdogLogName(r.id), Lock: r.lock.Ref()}
	for _, t := range r.targets {
		order.Targets = append(order.Targets, t.Target)
	}
	armed, err := r.Watchdog.Arm(ctx, order)
	if err != nil {
		return &Error{PhaseArm, "watchdog", err}
	}
	r.armed = armed
	r.custody.forward(armed)
	return nil
}

// noteTargets puts what is known of every target into the journal.
func (r *run) noteTargets() {
	r.journal.doc.Targets = nil
	for _, t := range r.targets {
		r.journal.doc.Targets = append(r.journal.doc.Targets, JournalTarget{Target: t.Target, Ownership: t.record.Owner(), UnpausedAt: t.unpausedAt})
	}
}

// --- pause -----------------------------------------------------------------

func (r *run) pause(ctx context.Context) error {
	// From here on a reader of the journal must take every target for paused by this run.
	r.noteTargets()
	for i := range r.journal.doc.Targets {
		r.journal.doc.Targets[i].Ownership = Unknown
	}
	r.journal.doc.Phase = PhasePause
	if err := r.journal.write(ctx); err != nil {
		return &Error{PhasePause, "journal", err}
	}
	if err := r.lock.Check(ctx); err != nil {
		return &Error{PhasePause, "lock", err}
	}
	if err := r.armed.Sending(ctx); err != nil {
		return &Error{PhasePause, "watchdog", err}
	}
	r.firstBoot = r.Clock.Boot()
	r.keeper = newTimekeeper(r.Clock)
	r.firstSent = r.Clock.Now().UTC()

	// The calls are not cancelled with ctx, nor when one of them fails: a call cut off leaves its outcome unknown, while an
	// Unpause that overtakes it gives it a definite one. The connection's end ends them at the latest.
	answers := make(chan error, len(r.targets))
	detached := context.WithoutCancel(ctx)
	for _, t := range r.targets {
		t.record.Sending(r.Clock.Boot())
		r.pausing.Add(1)
		go func() {
			defer r.pausing.Done()
			answers <- r.pauseTarget(detached, t)
		}()
	}
	for range r.targets {
		if err := r.answer(ctx, PhasePause, answers, r.armed.Gone()); err != nil {
			return err
		}
	}

	// A target may have answered OK and not be paused: another's Unpause while it drained, or a server older than August 2026.
	err := r.promptly(ctx, PhasePause, checksOf(r.targets, func(ctx context.Context, t *runTarget) error {
		paused, err := t.conn.CheckPaused(ctx)
		if err == nil && !paused {
			err = errors.New("it answered OK to Pause and is not paused: somebody unpaused it meanwhile, or it is a ScalarDB Cluster older than 3.15.9, 3.16.6, 3.17.4 or 3.18.1")
		}
		if err != nil {
			return &Error{PhasePause, t.Address, err}
		}
		at := r.Clock.Now().UTC()
		t.record.confirmed(at)
		return nil
	}))
	if err != nil {
		return err
	}
	now := r.Clock.Now().UTC()
	r.result.StartedAt = now
	r.openedAt.Store(&now)
	return nil
}

var errWatchdogGone = errors.New("the watchdog fired or died: the pause may have been ended")

// pauseTarget pauses one target. Only ABORTED is tried again: a second Pause that times out would cancel the first.
func (r *run) pauseTarget(ctx context.Context, t *runTarget) error {
	until := r.Clock.Boot() + r.q.Pause.Drain
	for {
		// A run that was stopped here, and wakes when its watchdog has ended the pause, must not begin another.
		if r.pauseIsOver() {
			t.record.Settle(Unsent)
			return &Error{PhasePause, "watchdog", errWatchdogGone}
		}
		err := t.conn.Pause(ctx, r.q.Pause.Drain)
		if err == nil {
			t.record.Settle(Ours)
			r.armed.Record(t.Target, Ours)
			return nil
		}
		var p *PauseError
		if !errors.As(err, &p) {
			p = &PauseError{PauseUnknown, err}
		}
		if p.Outcome == PauseAborted && r.Clock.Boot() < until && r.Clock.Sleep(ctx, abortedDelay) == nil && !r.pauseIsOver() {
			t.record.Sending(r.Clock.Boot())
			continue
		}
		o := outcome(p, false)
		t.record.Settle(o)
		r.armed.Record(t.Target, o)
		switch p.Outcome {
		case PauseRefused:
			err = fmt.Errorf("it did not finish what is in flight within drain_timeout (%s), or refused: %w", r.q.Pause.Drain, err)
		case PauseStillPaused:
			err = fmt.Errorf("somebody else holds a pause on it, which is left alone: %w", err)
		}
		return &Error{PhasePause, t.Address, err}
	}
}

// pauseIsOver says that no Pause may be sent any more: the unpause phase began, or the watchdog fired.
func (r *run) pauseIsOver() bool {
	select {
	case <-r.armed.Gone():
		return true
	default:
		return r.lifting.Load()
	}
}

// --- capture ---------------------------------------------------------------

func (r *run) capture(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	fail := func(subject string, err error) { cancel(&Error{PhaseCapture, subject, err}) }

	for _, t := range r.targets {
		r.strays.Go(func() { r.watch(ctx, t, fail) })
	}
	fixed := make(chan error, len(r.sessions))
	for name, s := range r.sessions {
		r.strays.Go(func() {
			err := s.Capture(ctx)
			if err != nil {
				err = &Error{PhaseCapture, name, err}
			}
			fixed <- err
		})
	}

	left := len(r.sessions)
	for {
		if err := r.awake(PhaseCapture); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		wait := pulseInterval
		if left == 0 {
			if wait = r.held(); wait <= 0 {
				r.result.EndedAt = r.Clock.Now().UTC()
				return nil
			}
			wait = min(wait, pulseInterval)
		}
		pulse, stop := r.Clock.WithTimeout(ctx, wait)
		select {
		case err := <-fixed: // at once: the pause waits for it
			stop()
			if err != nil {
				return err
			}
			left--
		case <-r.armed.Gone():
			stop()
			return &Error{PhaseCapture, "watchdog", &VoidError{errWatchdogGone.Error()}}
		case <-pulse.Done():
			stop()
		}
	}
}

// held says how much longer the window must stay open; zero or less when it need not.
func (r *run) held() time.Duration {
	now := r.Clock.Now()
	if rest := r.q.Pause.Min - now.Sub(r.result.StartedAt); rest > 0 {
		return rest
	}
	if granule, needed := r.needsInstant(); needed {
		from, until := r.safe(now)
		if _, ok := RestorePoint(from, until, granule); !ok {
			return pulseInterval
		}
	}
	return 0
}

// needsInstant says whether the window must hold a restore point, and on which granularity.
func (r *run) needsInstant() (time.Duration, bool) {
	needed := r.q.WindowOnly
	granule := time.Duration(0)
	if needed {
		granule = time.Second
	}
	for _, f := range r.facts {
		if f.NeedsInstant {
			needed, granule = true, max(granule, f.Granule)
		}
	}
	return granule, needed
}

// safe is the safe interval of a window that ends at end.
func (r *run) safe(end time.Time) (from, until time.Time) {
	granules := map[string]time.Duration{}
	r.mu.Lock()
	bounds := maps.Clone(r.bounds)
	r.mu.Unlock()
	for name, f := range r.facts {
		if f.NeedsInstant {
			granules[name] = f.Granule
		}
	}
	if r.q.WindowOnly && len(bounds) == 0 {
		bounds = map[string]ClockBound{"": {Uncertainty: r.q.ClockUncertainty}}
		granules[""] = time.Second
	}
	return safeInterval(r.result.StartedAt, end, bounds, granules)
}

// watch polls one target while the window is open. A poll without an answer decides nothing (confirm does); one that says "not paused" ends the window.
func (r *run) watch(ctx context.Context, t *runTarget, fail func(string, error)) {
	for r.Clock.Sleep(ctx, pollInterval) == nil {
		paused, err := t.conn.CheckPaused(ctx)
		if err == nil && !paused {
			fail(t.Address, &VoidError{"it came unpaused in the window"})
			return
		}
		if now := incarnation(t); now != t.incarnation {
			fail(t.Address, &VoidError{fmt.Sprintf("it restarted, or its connection broke, in the window (%s, before: %s)", now, t.incarnation)})
			return
		}
	}
}

// --- confirm ---------------------------------------------------------------

func (r *run) confirm(ctx context.Context) error {
	checks := []func(context.Context) error{
		r.sameMembers,
		func(ctx context.Context) error { return r.measureClocks(ctx, PhaseConfirm) },
		func(ctx context.Context) error {
			if err := r.lock.Check(ctx); err != nil {
				return &Error{PhaseConfirm, "lock", err}
			}
			return nil
		},
		r.notFired,
	}
	checks = append(checks, checksOf(r.targets, r.stillPaused)...)
	checks = append(checks, checksOf(slices.Sorted(maps.Keys(r.sessions)), func(ctx context.Context, name string) error {
		if err := r.sessions[name].Confirm(ctx); err != nil {
			return &Error{PhaseConfirm, name, err}
		}
		return nil
	})...)
	if err := r.promptly(ctx, PhaseConfirm, checks); err != nil {
		return err
	}
	// Last: whatever else was answered, this run must have been awake for it, and the watchdog must not have fired between.
	if err := r.awake(PhaseConfirm); err != nil {
		return err
	}
	if err := r.notFired(ctx); err != nil {
		return err
	}
	return r.closeWindow()
}

func (r *run) notFired(ctx context.Context) error {
	fired, err := r.armed.Fired(ctx)
	if err != nil {
		return &Error{PhaseConfirm, "watchdog", fmt.Errorf("asking it whether it fired: %w", err)}
	}
	if fired {
		return &Error{PhaseConfirm, "watchdog", &VoidError{"it fired: the pause may have been ended"}}
	}
	return nil
}

func (r *run) stillPaused(ctx context.Context, t *runTarget) error {
	paused, err := t.conn.CheckPaused(ctx)
	switch {
	case err != nil:
		return &Error{PhaseConfirm, t.Address, fmt.Errorf("asking whether it is still paused: %w", err)}
	case !paused:
		return &Error{PhaseConfirm, t.Address, &VoidError{"it came unpaused in the window"}}
	}
	if now := incarnation(t); now != t.incarnation {
		return &Error{PhaseConfirm, t.Address, &VoidError{fmt.Sprintf("it restarted, or its connection broke, in the window (%s, before: %s)", now, t.incarnation)}}
	}
	return nil
}

// sameMembers resolves again: who appeared or disappeared in the window?
func (r *run) sameMembers(ctx context.Context) error {
	found, err := r.resolveGroups(ctx, PhaseConfirm)
	if err != nil {
		return err
	}
	before := map[string]string{}
	for _, t := range r.targets {
		before[t.Group+" "+t.Address] = t.Incarnation
	}
	var changes []error
	for _, t := range found {
		key := t.Group + " " + t.Address
		was, known := before[key]
		delete(before, key)
		switch {
		case !known:
			changes = append(changes, &Error{PhaseConfirm, t.Address, &VoidError{"it appeared in target group " + t.Group + " during the window, and was never paused"}})
		case was != t.Incarnation:
			changes = append(changes, &Error{PhaseConfirm, t.Address, &VoidError{fmt.Sprintf("it restarted in the window (%s, before: %s)", t.Incarnation, was)}})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(before)) {
		group, address, _ := strings.Cut(key, " ")
		changes = append(changes, &Error{PhaseConfirm, address, &VoidError{"it disappeared from target group " + group + " during the window"}})
	}
	return errors.Join(changes...)
}

// closeWindow computes what the window is worth, once everything about it holds.
func (r *run) closeWindow() error {
	w := &r.result
	w.SafeFrom, w.SafeUntil = r.safe(w.EndedAt)
	if granule, needed := r.needsInstant(); needed {
		at, ok := RestorePoint(w.SafeFrom, w.SafeUntil, granule)
		if !ok {
			return &Error{PhaseConfirm, "", &VoidError{fmt.Sprintf("no restore point lies safely inside the window (%s to %s): the clocks, measured again, are less certain. Raise min_duration", w.StartedAt.Format(time.RFC3339Nano), w.EndedAt.Format(time.RFC3339Nano))}}
		}
		w.RestorePoint = at
	} else if w.SafeUntil.Before(w.SafeFrom) {
		w.SafeFrom, w.SafeUntil = time.Time{}, time.Time{} // no storage is restored by time: nothing needs an instant
	}
	w.BackupID = r.q.Name
	w.DurationMS = w.EndedAt.Sub(w.StartedAt).Milliseconds()
	w.DrainMS = w.StartedAt.Sub(r.firstSent).Milliseconds()
	w.ClockBounds = map[string]ClockBoundMS{}
	for name, b := range r.bounds {
		w.ClockBounds[name] = boundMS(b)
	}
	w.Status = StatusAvailable
	r.closed = *w
	return nil
}

// --- unpause ---------------------------------------------------------------

// unpause lifts what was paused. Its ctx cannot be cancelled by the caller.
func (r *run) unpause(ctx context.Context) error {
	r.lifting.Store(true)
	ctx, cancel := r.Clock.WithTimeout(ctx, max(unpauseTimeout, r.q.Pause.Drain+unpauseTimeout/2))
	defer cancel()
	defer r.afterUnpause(ctx)
	anothers := r.anothersTurn(ctx)
	var records []*PauseRecord
	byAddress := map[string]*runTarget{}
	for _, t := range r.targets {
		byAddress[t.Address] = t
		// A pause that holds now may be the other run's; ours, sent before max_duration, was lifted by our watchdog.
		if !anothers || t.record.sentAfter(r.firstBoot+r.q.Pause.Max) {
			records = append(records, t.record)
		}
	}
	results := Lift(ctx, r.Clock, records, LiftOptions{
		Drain: r.q.Pause.Drain,
		Conn:  func(t Target) AdminConn { return byAddress[t.Address].conn },
		Dial: func(ctx context.Context, t Target) (AdminConn, error) {
			return byAddress[t.Address].group.Dialer.Dial(ctx, t)
		},
		Progress: func(t Target, message string, err error) {
			r.report(ctx, PhaseUnpause, t.Address, message, nil, err)
		},
	})
	var failures []error
	for _, l := range results {
		t := byAddress[l.Target.Address]
		t.unpausedAt = l.UnpausedAt
		switch {
		case l.Err != nil:
			failures = append(failures, &Error{PhaseUnpause, t.Address, fmt.Errorf("IT MAY STILL BE PAUSED, and the watchdog goes on trying: %w", l.Err)})
		case l.Foreign:
			r.warn(fmt.Sprintf("%s is paused by somebody else, whose pause was left alone", t.Address))
		}
	}
	if len(failures) > 0 {
		return errors.Join(append(failures, &Error{PhaseUnpause, "", errors.New("unpause by hand with: " + r.q.Unpauser(r.id))})...)
	}
	r.lifted = true
	return nil
}

// anothersTurn says that the lock is surely not ours any more and that our watchdog fired: our pause is over, and one that holds now may be another run's.
func (r *run) anothersTurn(ctx context.Context) bool {
	ctx, cancel := r.Clock.WithTimeout(ctx, lockCheckTimeout)
	defer cancel()
	if !errors.Is(r.lock.Check(ctx), ErrLockLost) {
		return false // also when it cannot be told: unpausing comes first
	}
	fired, err := r.armed.Fired(ctx)
	return err == nil && fired
}

// afterUnpause notes what was lifted and lets others have their turn. None of it may fail a backup: the targets are unpaused.
func (r *run) afterUnpause(ctx context.Context) {
	ctx, cancel := r.Clock.WithTimeout(context.WithoutCancel(ctx), noteTimeout)
	defer cancel()
	if r.lifted {
		if err := r.armed.Lifted(ctx); err != nil {
			r.report(ctx, PhaseUnpause, "watchdog", "telling it that every target is unpaused", nil, err)
		}
	}
	// Before the lock is released: whoever has it next may trust the journal.
	r.journal.doc.Phase, r.journal.doc.Lifted = PhaseAwait, r.lifted
	r.noteTargets()
	if err := r.journal.write(ctx); err != nil {
		r.report(ctx, PhaseUnpause, "journal", "noting that every target is unpaused", nil, err)
	}
	if !r.lifted && r.paused() {
		// Nobody may pause what our watchdog is still to unpause: the lock is its to free.
		r.lock.Leave()
		r.lock = nil
		return
	}
	r.releaseLock(ctx)
}

// --- await -----------------------------------------------------------------

func (r *run) await(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var beating sync.WaitGroup
	beating.Go(func() { r.beat(ctx) })
	defer beating.Wait()
	defer cancel()
	names := slices.Sorted(maps.Keys(r.sessions))
	failed := map[string]error{}
	_ = each(names, func(name string) error { // each failure is in failed
		c, err := r.sessions[name].Await(ctx)
		r.mu.Lock()
		defer r.mu.Unlock()
		if err != nil {
			failed[name] = &Error{PhaseAwait, name, err}
			cancel() // what the others still copy would be discarded anyway
			return nil
		}
		r.captured[name] = c
		return nil
	})
	// What was ended by the failure of another storage does not say why.
	var why, ended []error
	for _, name := range names {
		switch err := failed[name]; {
		case errors.Is(err, context.Canceled):
			ended = append(ended, err)
		case err != nil:
			why = append(why, err)
		}
	}
	if len(why) == 0 {
		why = ended
	}
	return errors.Join(why...)
}

// beat renews the journal while captures are awaited, so that another machine's run does not take this one for dead.
func (r *run) beat(ctx context.Context) {
	for r.Clock.Sleep(ctx, beatInterval) == nil {
		r.journal.doc.Beats++
		if err := r.journal.write(ctx); err != nil && ctx.Err() == nil {
			r.report(ctx, PhaseAwait, "journal", "renewing the journal", nil, err)
		}
	}
}

// --- record ----------------------------------------------------------------

// record puts the manifest into the catalog. If that cannot be done in time, the artifacts are kept: the backup is incomplete until it is recorded.
func (r *run) record(ctx context.Context) error {
	r.status = StatusAvailable
	if r.q.WindowOnly {
		return r.closeJournal(ctx)
	}
	m := r.manifest()
	r.journal.doc.Phase, r.journal.doc.Manifest = PhaseRecord, &m
	if err := r.journal.write(ctx); err != nil {
		r.report(ctx, PhaseRecord, "journal", "noting that every capture is complete", nil, err)
	}
	for {
		err := r.Record(ctx, m)
		if err == nil {
			break
		}
		if errors.Is(err, ErrExists) {
			r.status = StatusIncomplete
			return &Error{PhaseRecord, "catalog", fmt.Errorf("another run recorded a backup named %s meanwhile: %w", r.q.Name, err)}
		}
		r.report(ctx, PhaseRecord, "catalog", "recording the manifest; trying again", nil, err)
		if r.Clock.Sleep(ctx, recordRetry) != nil {
			r.status = StatusIncomplete
			if r.orphaned() {
				return nil
			}
			r.keepJournal(ctx)
			r.warn(fmt.Sprintf("the backup is complete but its manifest could not be written into %s; its artifacts are kept, and the next refresh or apply records it: %v", r.Catalog.Describe(), err))
			return nil //nolint:nilerr // the backup is whole: an error would taint it, and so discard it
		}
	}
	r.recorded = true
	if r.orphaned() {
		return nil
	}
	return r.closeJournal(ctx)
}

// orphaned says that Terraform will never know of this backup. With its journal open as it is, the next run under this name takes its place.
func (r *run) orphaned() bool {
	if r.Orphaned == nil || !r.Orphaned() {
		return false
	}
	r.warn("Terraform is gone: nobody stores this backup")
	return true
}

// Record writes a manifest of a complete backup into the catalog, as available. It never overwrites: ErrExists, unless what is there is this very run's.
func (e *Engine) Record(ctx context.Context, m Manifest) error {
	m.Status, m.Window.Status = StatusAvailable, StatusAvailable
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the manifest: %w", err)
	}
	err = e.Catalog.Create(ctx, ManifestName(m.BackupID), data)
	if errors.Is(err, ErrExists) {
		if there, readErr := ReadManifest(ctx, e.Catalog, m.BackupID); readErr == nil && there.RunID == m.RunID {
			return nil // an earlier try got through without its answer
		}
	}
	if err != nil {
		return fmt.Errorf("writing the manifest of %s into %s: %w", m.BackupID, e.Catalog.Describe(), err)
	}
	return nil
}
