package storagetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

// attempt is one restore, and what it announced.
type attempt struct {
	f *flight
	b engine.StorageBackup

	mu        sync.Mutex
	announced engine.Restored // the last
	dead      bool            // nothing is recorded any more
}

func (f *flight) attempt(b engine.StorageBackup) *attempt {
	a := &attempt{f: f, b: b}
	a.b.Announce = func(_ context.Context, r engine.Restored) error {
		f.tr.said.add(r)
		a.mu.Lock()
		defer a.mu.Unlock()
		if !a.dead {
			a.announced = r
		}
		return nil
	}
	return a
}

// foreseen expects that everything that came to be since the traces were taken had been announced.
func (a *attempt) foreseen(before []string, call string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var names []string
	for _, o := range a.announced.Objects {
		names = append(names, o.ID)
	}
	a.f.known("Announce", before, names, call)
}

// planned expects that everything that the run made was named by preflight.
func (f *flight) planned(call string) {
	var names []string
	if f.session != nil {
		for _, a := range f.session.Facts().Planned {
			names = append(names, a.ID[strings.LastIndexByte(a.ID, ':')+1:])
		}
	}
	f.known("Facts.Planned", f.traces, names, call)
}

func (f *flight) known(by string, before, names []string, call string) {
	for _, trace := range f.tr.Traces(f.t) {
		if !slices.Contains(before, trace) && !slices.ContainsFunc(names, func(n string) bool { return strings.Contains(trace, n) }) {
			f.t.Errorf("after a call of %s there is %s, which %s had not named (%q)", call, trace, by, names)
		}
	}
}

// checkArtifacts expects that the store finds everything, and says what is there.
func (f *flight) checkArtifacts() {
	f.t.Helper()
	store := f.tr.Artifacts(f.catalog)
	instants := 0
	for _, a := range f.captured.Artifacts {
		if a.Kind == f.tr.suite.Instant {
			instants++
		}
		if err := store.Inspect(f.t.Context(), a); err != nil {
			f.t.Errorf("Inspect: %v", err)
		}
	}
	if len(f.captured.Artifacts) == 0 || f.tr.suite.Instant != "" && instants == 0 {
		f.t.Errorf("the artifacts are %+v", f.captured.Artifacts)
	}
}

// moment is one call of a run or a restore: which of those of that name, from 1 on.
type moment struct {
	call string
	nth  int
}

func (m moment) String() string { return fmt.Sprintf("%s %d", m.call, m.nth) }

// at calls f at the moment, and breaks that call as it says.
func (w *Wire) at(m moment, f func() Break) {
	var mu sync.Mutex
	seen := 0
	w.listen(func(_ int, call string) Break {
		mu.Lock()
		defer mu.Unlock()
		if call != m.call {
			return ""
		}
		if seen++; seen != m.nth {
			return ""
		}
		return f()
	})
}

// moments are n of the calls, or all for 0, spread evenly.
func moments(calls []string, n int) (out []moment) {
	if n <= 0 || n > len(calls) {
		n = len(calls)
	}
	for i := range n {
		at := (2*i + 1) * len(calls) / (2 * n)
		out = append(out, moment{calls[at], count(calls[:at+1], calls[at])})
	}
	return out
}

// changing are the first and the last of each kind of call that changes something.
func changing(calls []string) (first, last []moment) {
	seen := map[string]bool{}
	for _, call := range calls {
		if reads(call) || seen[call] {
			continue
		}
		seen[call] = true
		first = append(first, moment{call, 1})
		if n := count(calls, call); n > 1 {
			last = append(last, moment{call, n})
		}
	}
	return first, last
}

func reads(call string) bool {
	return slices.ContainsFunc([]string{"Describe", "List", "Get", "BatchGet", "Scan", "Query"}, func(p string) bool { return strings.HasPrefix(call, p) })
}

// undeletable refuses every call that deletes something.
func (w *Wire) undeletable() {
	w.listen(func(_ int, call string) Break {
		if strings.HasPrefix(call, "Delete") {
			return Denied
		}
		return ""
	})
}

func count(calls []string, call string) (n int) {
	for _, c := range calls {
		if c == call {
			n++
		}
	}
	return n
}

// fault is one call that breaks.
type fault struct {
	moment
	kind Break
}

func (f fault) String() string { return fmt.Sprintf("%s: %s", f.moment, f.kind) }

// faults are all that are possible, or as many as the suite wants, of all kinds and spread over the calls; and what changes something loses its answer once.
func (tr *trial) faults(calls []string) (out []fault) {
	for i, m := range moments(calls, tr.suite.Faults) {
		if tr.suite.Faults > 0 {
			out = append(out, fault{m, breaks[i%len(breaks)]})
			continue
		}
		for _, k := range breaks[:len(breaks)-1] {
			out = append(out, fault{m, k})
		}
	}
	first, _ := changing(calls)
	for _, m := range first {
		out = append(out, fault{m, LostAnswer})
	}
	return out
}

// deaths are the calls at which somebody dies: every one, or some, and the first and the last of each kind of call that changes something.
func (tr *trial) deaths(calls []string) []moment {
	first, last := changing(calls)
	if tr.suite.SecondMethod {
		last = nil // the first method died there
	}
	n := 0
	if tr.suite.Faults > 0 {
		n = max(1, tr.suite.Faults/3)
	}
	out := append(moments(calls, n), append(first, last...)...)
	slices.SortFunc(out, func(a, b moment) int { return cmp.Or(strings.Compare(a.call, b.call), a.nth-b.nth) })
	return slices.Compact(out)
}

// runCalls are the calls of a run of which nothing is restored.
func (tr *trial) runCalls(t *testing.T) []string {
	t.Helper()
	f := tr.dash(t)
	tr.Wire.listen(nil)
	f.mustUntil(await)
	calls := tr.Wire.heard()
	f.discard()
	if len(calls) == 0 {
		t.Fatal("a backup made no call")
	}
	return calls
}

// apiFails breaks one call of a run after the other: it succeeds, or leaves nothing.
func apiFails(t *testing.T, tr *trial) {
	good := 0
	for _, fault := range tr.faults(tr.runCalls(t)) {
		f := tr.dash(t)
		tr.Wire.at(fault.moment, func() Break { return fault.kind })
		err := f.until(await)
		tr.Wire.listen(nil)
		if err == nil {
			good++
		}
		f.judge(fault.String(), err)
	}
	if good == 0 {
		t.Error("no fault was overcome")
	}
}

// die makes do die at a moment: that call is still done, but nobody hears of it, and nothing is recorded any more.
func (tr *trial) die(t *testing.T, at moment, last func(), do func(ctx context.Context) error) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	tr.Wire.at(at, func() Break {
		last()
		cancel()
		return LostAnswer
	})
	err := ends(t, time.Minute, "what was cancelled", func() error { return do(ctx) })
	tr.Wire.settle()
	return err
}

// deletePlanned removes what preflight planned, as whoever finds the journal of a dead run does.
func (f *flight) deletePlanned() {
	f.t.Helper()
	store := f.tr.Artifacts(f.catalog)
	for range 2 {
		for _, a := range f.session.Facts().Planned {
			if err := store.Delete(f.t.Context(), a); err != nil {
				f.t.Errorf("deleting what was planned: %v", err)
			}
		}
	}
}

// runDies ends runs at one call after the other. What preflight planned is enough to remove what they left.
func runDies(t *testing.T, tr *trial) {
	for _, at := range tr.deaths(tr.runCalls(t)) {
		f := tr.dash(t)
		died := tr.die(t, at, func() {}, func(ctx context.Context) error {
			for _, s := range steps {
				if err := f.do(ctx, s); err != nil {
					return err
				}
			}
			return nil
		})
		if f.session != nil {
			f.close()
			f.deletePlanned()
		}
		f.nothingLeft()
		if t.Failed() {
			t.Fatalf("died at %s: %v", at, died)
		}
	}
}

// restores is what the cases of a restore that does not go well have in common.
func restores(t *testing.T, tr *trial) (k *kept, b engine.StorageBackup) {
	t.Helper()
	k, b = tr.backedUp(t)
	if len(k.flight.restoreCalls) == 0 {
		restoreAndCheck(t, tr, k.flight, k.want)
	}
	return k, b
}

// apiFailsRestore breaks one call of a restore after the other: it succeeds, or Delete leaves nothing.
func apiFailsRestore(t *testing.T, tr *trial) {
	k, b := restores(t, tr)
	live := tr.contents()
	good := 0
	for _, fault := range tr.faults(k.flight.restoreCalls) {
		before := tr.Traces(t)
		target := tr.Target(t)
		a := k.flight.attempt(b)
		tr.Wire.at(fault.moment, func() Break { return fault.kind })
		restored, err := target.Destination.Restore(t.Context(), a.b)
		tr.Wire.listen(nil)
		tr.said.add(restored)
		if err == nil {
			good++
			checkRows(t, target, k.want)
			err = target.Destination.Inspect(t.Context(), restored)
		} else {
			tr.said.add(err)
		}
		if err := target.Destination.Delete(t.Context(), restored); err != nil {
			t.Errorf("%s: deleting what was restored: %v", fault, err)
		}
		if !target.Empty(t) {
			t.Errorf("%s: something is left at the place", fault)
		}
		tr.traceless(t, "a restore", before)
		_ = target.Destination.Close()
		if t.Failed() {
			t.Fatalf("%s: the restore's error was: %v", fault, err)
		}
	}
	if good == 0 {
		t.Error("no fault was overcome")
	}
	if !slices.Equal(live, tr.contents()) {
		t.Error("the source changed")
	}
}

// restoreDies ends restores at one call after the other. What they announced last is enough to remove what they left.
func restoreDies(t *testing.T, tr *trial) {
	k, b := restores(t, tr)
	live := tr.contents()
	for _, at := range tr.deaths(k.flight.restoreCalls) {
		before := tr.Traces(t)
		target := tr.Target(t)
		a := k.flight.attempt(b)
		err := tr.die(t, at, func() { a.mu.Lock(); a.dead = true; a.mu.Unlock() }, func(ctx context.Context) error {
			_, err := target.Destination.Restore(ctx, a.b)
			return err
		})
		for range 2 {
			if err := target.Destination.Delete(t.Context(), a.announced); err != nil {
				t.Errorf("died at %s: deleting what was announced: %v", at, err)
			}
		}
		tr.traceless(t, "a dead restore", before)
		_ = target.Destination.Close()
		if t.Failed() {
			t.Fatalf("died at %s: %v", at, err)
		}
	}
	if !slices.Equal(live, tr.contents()) {
		t.Error("the source changed")
	}
}

// deleteArtifacts deletes what a run left, twice: what was made is gone, and an instant is still one.
func deleteArtifacts(t *testing.T, tr *trial) {
	f := tr.dash(t)
	f.mustUntil(await)
	f.close()
	store := tr.Artifacts(f.catalog)
	for _, a := range f.captured.Artifacts {
		if f.catalog.Peek(a.ID) != nil || a.Kind == tr.suite.Instant {
			continue
		}
		tr.Wire.undeletable()
		if err := store.Delete(t.Context(), a); err == nil {
			t.Errorf("%s was called deleted, and the API had refused it", a.ID)
		}
		if err := store.Inspect(t.Context(), a); err != nil {
			t.Errorf("Inspect of what could not be deleted: %v", err)
		}
		tr.Wire.listen(nil)
	}
	for range 2 {
		for _, a := range f.captured.Artifacts {
			if err := store.Delete(t.Context(), a); err != nil {
				t.Errorf("deleting the artifact: %v", err)
			}
			err := store.Inspect(t.Context(), a)
			if instant := a.Kind == tr.suite.Instant; instant && err != nil || !instant && !errors.Is(err, engine.ErrNotFound) {
				t.Errorf("Inspect of a deleted artifact (an instant: %v): %v", instant, err)
			}
		}
	}
	f.nothingLeft()
}

// expires lets the instant leave what the service keeps: its artifact is gone, and a restore is refused before anything is made.
func expires(t *testing.T, tr *trial) {
	if tr.Expire == nil {
		return
	}
	k, b := tr.backedUp(t)
	before := tr.Traces(t)
	tr.Expire(t)
	store := tr.Artifacts(k.flight.catalog)
	for _, a := range k.flight.captured.Artifacts {
		if err := store.Inspect(t.Context(), a); a.Kind == tr.suite.Instant && !errors.Is(err, engine.ErrNotFound) {
			t.Errorf("Inspect of an instant that is too old: %v", err)
		}
	}
	target := tr.Target(t)
	defer target.Destination.Close() //nolint:errcheck // nothing hangs on it
	if err := target.Destination.Preflight(t.Context(), b); err == nil {
		t.Error("the check of a restore to an instant that is too old found nothing")
	}
	restored, err := target.Destination.Restore(t.Context(), b)
	if err == nil {
		t.Error("a restore to an instant that is too old succeeded")
	}
	if err := errors.Join(target.Destination.Delete(t.Context(), restored)); err != nil {
		t.Errorf("deleting what the refused restore made: %v", err)
	}
	tr.traceless(t, "a refused restore", before)
}
