package storagetest

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/memcatalog"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
)

func happyPath(t *testing.T, tr *trial) {
	before := tr.contents()
	f := tr.fly(t)
	f.mustUntil(await)
	facts := f.facts()
	f.close()
	f.released()

	c := f.captured
	var planned, made []string
	for _, a := range facts.Planned {
		planned = append(planned, a.Kind+" "+a.ID)
	}
	for _, a := range c.Artifacts {
		made = append(made, a.Kind+" "+a.ID)
	}
	if len(made) == 0 || !slices.Equal(planned, made) {
		t.Errorf("planned artifacts %q, made %q: the journal must name every one before the pause", planned, made)
	}
	f.checkWitness(before)
	if after := tr.contents(); !slices.Equal(before, after) {
		t.Error("the backup changed the storage")
	}
	for _, name := range f.catalog.Names() {
		tr.said.add(name, string(f.catalog.Peek(name)))
	}
	store := tr.Artifacts(f.catalog)
	for _, a := range c.Artifacts {
		if err := store.Inspect(t.Context(), a); err != nil {
			t.Errorf("Inspect: %v", err)
		}
	}

	restoreAndCheck(t, tr, f, before)

	for range 2 {
		for _, a := range c.Artifacts {
			if err := store.Delete(t.Context(), a); err != nil {
				t.Errorf("deleting the artifact: %v", err)
			}
			if err := store.Inspect(t.Context(), a); !errors.Is(err, engine.ErrNotFound) {
				t.Errorf("Inspect of a deleted artifact: %v", err)
			}
		}
	}
	f.nothingLeft()
}

// facts expects that preflight found everything.
func (f *flight) facts() engine.Facts {
	f.t.Helper()
	facts := f.session.Facts()
	if facts.SourceID == "" || facts.Witness == "" || len(facts.ToolVersions) == 0 || len(facts.Planned) == 0 {
		f.t.Errorf("facts are missing: %+v", facts)
	}
	if (facts.Witness == "none") != f.tr.suite.Unwitnessed {
		f.t.Errorf("the witness is %q", facts.Witness)
	}
	if facts.ByTime && !facts.NeedsInstant || facts.NeedsInstant && facts.Granule <= 0 || facts.ByTime != (f.tr.suite.Instant != "") {
		f.t.Errorf("restored by time: %v, needs an instant: %v, granule %s", facts.ByTime, facts.NeedsInstant, facts.Granule)
	}
	return facts
}

// checkWitness compares what the manifest would say with the rows that were there.
func (f *flight) checkWitness(contents []string) {
	t, c := f.t, f.captured
	t.Helper()
	rows := map[string]int64{}
	var newest int64
	for _, line := range contents {
		fields := strings.Split(line, "|")
		rows[fields[0]]++
		if fields[0] == "coordinator.state" {
			var at int64
			if _, err := fmt.Sscanf(fields[len(fields)-1], "%q", new(string)); err != nil {
				t.Fatal(err)
			}
			fmt.Sscanf(strings.Trim(fields[len(fields)-1], `"`), "%d", &at) //nolint:errcheck // zero shows below
			newest = max(newest, at)
		}
	}
	if f.tr.suite.Unwitnessed {
		newest = -1 // nothing was read
	}
	if !c.HasCoordinator || c.CoordinatorNewest != newest || newest == 0 {
		t.Errorf("coordinator %v, newest %d; want %d", c.HasCoordinator, c.CoordinatorNewest, newest)
	}
	var names []string
	for _, w := range c.Tables {
		name := w.Namespace + "." + w.Table
		names = append(names, name)
		if w.Transactional != (name != "bank.notes") {
			t.Errorf("%s: transactional is %v", name, w.Transactional)
		}
		if !w.Estimated && w.Rows >= 0 && w.Rows != rows[name] {
			t.Errorf("%s: %d rows, want %d", name, w.Rows, rows[name])
		}
	}
	slices.Sort(names)
	if want := []string{"bank.accounts", "bank.audit", "bank.notes"}; !slices.Equal(names, want) {
		t.Errorf("tables %q, want %q", names, want)
	}
}

// restoreAndCheck restores a backup, compares it, verifies it, and deletes it.
func restoreAndCheck(t *testing.T, tr *trial, f *flight, want []string) {
	t.Helper()
	target := tr.Target(t)
	b := f.storageBackup()
	var traces []string
	if tr.Traces != nil {
		traces = tr.Traces(t)
	}
	defer target.Destination.Close() //nolint:errcheck // closed twice below
	if err := target.Destination.Preflight(t.Context(), b); err != nil {
		t.Fatalf("checking the restore: %v", err)
	}
	a := f.attempt(b)
	if tr.Wire != nil {
		tr.Wire.look(func(call string) { a.foreseen(traces, call) })
	}
	restored, err := target.Destination.Restore(t.Context(), a.b)
	if tr.Wire != nil {
		f.restoreCalls = tr.Wire.heard()
		tr.Wire.listen(nil)
	}
	if err != nil {
		t.Fatalf("restoring: %v", err)
	}
	tr.said.add(restored)
	f.custody.check(t)
	if restored.Properties["storage"] == "" || restored.Properties["contact_points"] == "" {
		t.Errorf("properties %v do not say how ScalarDB reaches the storage", restored.Properties)
	}
	if err := target.Destination.Inspect(t.Context(), restored); err != nil {
		t.Errorf("Inspect: %v", err)
	}
	checkRows(t, target, want)
	checkVerified(t, target, f)

	created := false
	for _, o := range restored.Objects {
		created = created || o.Created
	}
	if tr.Wire != nil {
		tr.Wire.undeletable()
		if err := target.Destination.Delete(t.Context(), restored); err == nil {
			t.Error("what was restored was called deleted, and the API had refused it")
		} else {
			tr.said.add(err)
		}
		tr.Wire.listen(nil)
	}
	for range 2 {
		if err := target.Destination.Delete(t.Context(), restored); err != nil {
			t.Fatalf("deleting what was restored: %v", err)
		}
		if err := target.Destination.Inspect(t.Context(), restored); created && !errors.Is(err, engine.ErrNotFound) {
			t.Errorf("Inspect of what was deleted: %v", err)
		}
		if created && !target.Empty(t) {
			t.Error("Delete left something")
		}
	}
	if tr.Wire != nil {
		tr.traceless(t, "the deleted restore", traces)
	}
	for range 2 {
		if err := target.Destination.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
}

// checkRows expects a restored storage to hold the rows.
func checkRows(t *testing.T, target Target, want []string) {
	t.Helper()
	got, err := target.Rows(t)
	if err != nil {
		t.Fatalf("reading the restored bank: %v", err)
	}
	if n, err := sum(got); err != nil || n != Total {
		t.Errorf("the sum is %d (%v), want %d", n, err, Total)
	}
	if !slices.Equal(got, want) {
		t.Errorf("the restored rows differ:\n%s", diff(want, got))
	}
}

func checkVerified(t *testing.T, target Target, f *flight) {
	t.Helper()
	reader, err := target.Reader(t.Context())
	if err != nil {
		t.Fatalf("opening the restored storage: %v", err)
	}
	defer reader.Close() //nolint:errcheck // read only
	expected := verify.Expected{HasCoordinator: f.captured.HasCoordinator, CoordinatorNewest: f.captured.CoordinatorNewest}
	for _, w := range f.captured.Tables {
		expected.Tables = append(expected.Tables, verify.ExpectedTable{Namespace: w.Namespace, Name: w.Table, Rows: w.Rows, Estimated: w.Estimated, NewestCommitted: w.NewestCommitted})
	}
	report, err := verify.Run(t.Context(), verify.Request{
		Storages: map[string]verify.Storage{storageName: reader}, Window: &verify.Window{From: f.opened, Until: f.closed},
		Drain: 30 * time.Second, ServerClockBound: time.Millisecond, Expected: map[string]verify.Expected{storageName: expected}, Now: now(),
	})
	if err != nil {
		t.Fatalf("verifying: %v", err)
	}
	if !report.Passed || report.Records == 0 {
		t.Errorf("the restored storage is not consistent: %+v", report)
	}
}

// diff names a few lines that only one of the two has.
func diff(want, got []string) string {
	var out []string
	for _, l := range want {
		if !slices.Contains(got, l) {
			out = append(out, "- "+l)
		}
	}
	for _, l := range got {
		if !slices.Contains(want, l) {
			out = append(out, "+ "+l)
		}
	}
	return strings.Join(out[:min(len(out), 10)], "\n")
}

// writesLater is how long writes go on after the window before anything is restored. By then the latest instant that a stand-in restores to, which is some (accelerated) minutes
// behind, lies after the window: so a driver that restores to that shows.
const writesLater = 3 * time.Second

// underLoad takes backups while somebody writes all the time but in the window. Behind an API it is also the happy path, and the last backup is kept.
func underLoad(t *testing.T, tr *trial) {
	var gate sync.Mutex
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			gate.Lock()
			err := tr.Bank.Transfer(t.Context(), 0)
			gate.Unlock()
			if err != nil && t.Context().Err() == nil {
				t.Errorf("writing beside the backup: %v", err)
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
	defer writer.Wait()
	defer close(stop)
	rounds := 2
	if tr.Wire != nil {
		rounds = 1 // they take their time
	}
	for range rounds {
		f := tr.fly(t)
		if tr.Wire != nil {
			tr.Wire.look(f.planned)
		}
		if err := f.do(t.Context(), preflight); err != nil {
			t.Fatal(err)
		}
		f.facts()
		gate.Lock() // the pause
		f.open()
		want := tr.contents()
		err := errors.Join(f.do(t.Context(), capture), f.do(t.Context(), confirm))
		gate.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		if tr.Wire != nil {
			time.Sleep(time.Until(f.closed.Add(writesLater))) // it is time that has to pass, and writes
		}
		if err := f.do(t.Context(), await); err != nil {
			t.Fatal(err)
		}
		f.checkWitness(want)
		f.close()
		if tr.Wire != nil {
			tr.Wire.listen(nil)
			f.checkArtifacts()
		}
		restoreAndCheck(t, tr, f, want)
		if tr.Wire != nil {
			tr.kept = &kept{f, want}
		}
	}
}

func writeAfterWindow(t *testing.T, tr *trial) {
	f := tr.fly(t)
	f.mustUntil(confirm)
	want := tr.contents()
	for range 30 {
		tr.transfer()
	}
	if err := f.do(t.Context(), await); err != nil {
		t.Fatalf("a write after the window is nobody's fault: %v", err)
	}
	f.checkWitness(want)
	f.close()
	restoreAndCheck(t, tr, f, want)
}

func writeInWindow(t *testing.T, tr *trial) {
	slow := func() int64 { return now().Add(-time.Hour).UnixMilli() }
	writes := map[string]func(context.Context) error{
		"by a writer whose clock is right": func(ctx context.Context) error { return tr.Bank.Transfer(ctx, 0) },
		"by a writer whose clock is slow":  func(ctx context.Context) error { return tr.Bank.Transfer(ctx, slow()) },
	}
	if tr.suite.Unwitnessed {
		f := tr.dash(t)
		f.mustUntil(capture)
		if err := tr.Bank.Transfer(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		// Nobody can tell: what was written by the restore point is in the backup, and verification of a restore has to find it.
		if err := errors.Join(f.do(t.Context(), confirm), f.do(t.Context(), await)); err != nil {
			t.Error(err)
		}
		f.facts()
		f.discard()
		return
	}
	if !tr.suite.CoordinatorOnly {
		writes["without a coordinator entry"] = func(ctx context.Context) error { return tr.Bank.OnePhaseCommit(ctx, slow()) }
	}
	for name, write := range writes {
		t.Run("after the capture "+name, func(t *testing.T) {
			f := tr.dash(t)
			f.mustUntil(capture)
			if err := write(t.Context()); err != nil {
				t.Fatal(err)
			}
			f.mustBeVoid(confirm, await)
		})
	}
	t.Run("before the capture", func(t *testing.T) {
		f := tr.dash(t)
		f.mustUntil(preflight)
		f.open()
		time.Sleep(5 * time.Millisecond) // stamps count in milliseconds, and the bound is one
		tr.transfer()
		f.mustBeVoid(capture, confirm, await)
	})
	t.Run("and then not", func(t *testing.T) {
		f := tr.dash(t)
		f.mustUntil(await)
		f.discard()
	})
}

// mustBeVoid makes the given steps, one of which has to return a VoidError, and discards.
func (f *flight) mustBeVoid(steps ...step) {
	f.t.Helper()
	var err error
	for _, s := range steps {
		if err = f.do(f.t.Context(), s); err != nil {
			break
		}
	}
	if !isVoid(err) {
		f.t.Errorf("the window was not void: %v", err)
	}
	f.discard()
}

func schemaChange(t *testing.T, tr *trial) {
	n := 0
	create := func(ctx context.Context) error { n++; return tr.Bank.CreateTable(ctx, fmt.Sprintf("extra%d", n)) }
	for _, c := range []struct {
		name   string
		after  step
		change func(context.Context) error
		then   []step
	}{
		{"a new table before the capture", preflight, create, []step{capture, confirm, await}},
		{"a new column before the capture", preflight, tr.Bank.AddColumn, []step{capture, confirm, await}},
		{"a new table after the capture", capture, create, []step{confirm, await}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := tr.dash(t)
			f.mustUntil(c.after)
			if err := c.change(t.Context()); err != nil {
				t.Fatal(err)
			}
			if tr.Wire != nil {
				f.traces = tr.Traces(t) // a table is one
			}
			f.mustBeVoid(c.then...)
		})
	}
}

func discardAtEveryStep(t *testing.T, tr *trial) {
	before := tr.contents()
	for _, s := range steps {
		t.Run(string(s), func(t *testing.T) {
			f := tr.dash(t)
			f.mustUntil(s)
			f.discard()
			if after := tr.contents(); !slices.Equal(before, after) {
				t.Error("the storage changed")
			}
		})
	}
	t.Run("after close", func(t *testing.T) {
		f := tr.dash(t)
		f.mustUntil(await)
		f.close()
		f.discard()
	})
	t.Run("without discard", func(t *testing.T) {
		f := tr.dash(t)
		f.mustUntil(confirm)
		f.close()
		if tr.Wire != nil { // what was asked for comes to be, and is the journal's
			f.deletePlanned()
			f.nothingLeft()
		}
		f.released()
	})
}

func cancelAtEveryStep(t *testing.T, tr *trial) {
	before := tr.contents()
	for i, s := range steps {
		t.Run("before "+string(s), func(t *testing.T) {
			f := tr.dash(t)
			if i > 0 {
				f.mustUntil(steps[i-1])
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := within(t, string(s), func() error { return f.do(ctx, s) }); err == nil {
				t.Errorf("%s succeeded although it was cancelled", s)
			}
			within(t, "Discard", func() error { f.discard(); return nil }) //nolint:errcheck // it returns none
		})
	}
	if after := tr.contents(); !slices.Equal(before, after) {
		t.Error("the storage changed")
	}
	if tr.Wire != nil {
		return // a run that dies at any call says more
	}
	t.Run("in await", func(t *testing.T) {
		for _, op := range []string{"writer", "write", "commit", "create"} {
			f := tr.dash(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			met, armed := false, false
			var mu sync.Mutex
			// Set before the flight: some storages write into the catalog from the capture on.
			f.catalog.Fail = func(o, _ string) error {
				mu.Lock()
				defer mu.Unlock()
				if armed && o == op && !met {
					met = true
					cancel()
					return ctx.Err()
				}
				return nil
			}
			f.mustUntil(confirm)
			mu.Lock()
			armed = true
			mu.Unlock()
			err := within(t, "await", func() error { return f.do(ctx, await) })
			f.catalog.Fail = nil
			if met && !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled at %q: %v", op, err)
			}
			f.discard()
		}
	})
	if after := tr.contents(); !slices.Equal(before, after) {
		t.Error("the storage changed")
	}
}

var errInjected = errors.New("injected fault")

// catalogFails lets the catalog fail at one operation after the other: once before it takes effect, once after.
func catalogFails(t *testing.T, tr *trial) {
	for _, kind := range []string{"before", "after"} {
		total := 0
		f := tr.dash(t)
		var counting sync.Mutex // a storage may write several objects at once
		inject(f.catalog, kind, func(string) error { counting.Lock(); total++; counting.Unlock(); return nil })
		f.mustUntil(await)
		inject(f.catalog, kind, nil)
		f.discard()
		if total == 0 && tr.Wire != nil {
			return // artifacts are the service's
		}
		if total == 0 {
			t.Fatalf("a backup made no operation in the catalog that could fail %s it took effect", kind)
		}
		points := tr.suite.Faults
		if points == 0 || points > total {
			points = total
		}
		for p := range points {
			at := p * total / points
			f := tr.dash(t)
			var mu sync.Mutex
			n, failed := 0, ""
			inject(f.catalog, kind, func(op string) error {
				mu.Lock()
				defer mu.Unlock()
				n++
				if n-1 == at {
					failed = op
					return errInjected
				}
				return nil
			})
			err := within(t, "a backup whose catalog fails", func() error { return f.until(await) })
			inject(f.catalog, kind, nil)
			if failed != "" && !errors.Is(err, errInjected) {
				// It may have been overcome; then everything has to be there.
				if err != nil {
					t.Errorf("operation %d (%s) failed %s its effect, and the error does not say why: %v", at, failed, kind, err)
				}
				for _, a := range f.captured.Artifacts {
					if err := tr.Artifacts(f.catalog).Inspect(t.Context(), a); err != nil {
						t.Errorf("operation %d (%s) failed %s its effect, and the backup was called good: %v", at, failed, kind, err)
					}
				}
			}
			f.discard()
		}
	}
}

func inject(c *memcatalog.Catalog, kind string, fail func(op string) error) {
	c.Fail, c.After = nil, nil
	if fail == nil {
		return
	}
	hook := func(op, _ string) error { return fail(op) }
	if kind == "before" {
		c.Fail = hook
	} else {
		c.After = hook
	}
}

func discardFails(t *testing.T, tr *trial) {
	for _, op := range []string{"list", "delete"} {
		f := tr.dash(t)
		f.mustUntil(await)
		met := false
		f.catalog.Fail = func(o, _ string) error {
			if o == op {
				met = true
				return errInjected
			}
			return nil
		}
		if err := f.session.Discard(t.Context()); !errors.Is(err, errInjected) && (met || tr.Wire == nil) {
			t.Errorf("Discard with a catalog that cannot %s: %v", op, err)
		}
		f.catalog.Fail = nil
		f.discard()
	}
}

func restoreOccupied(t *testing.T, tr *trial) {
	_, b := tr.backedUp(t)
	target := tr.Target(t)
	defer target.Destination.Close() //nolint:errcheck // nothing hangs on it
	untouched := target.Occupy(t)
	if err := target.Destination.Preflight(t.Context(), b); err == nil {
		t.Error("the check of a restore over another database found nothing")
	} else if errors.Is(err, engine.ErrNotFound) {
		t.Errorf("there was nothing to restore: %v", err)
	} else {
		tr.said.add(err)
	}
	restored, err := target.Destination.Restore(t.Context(), b)
	if err == nil {
		t.Error("a restore overwrote another database")
	} else {
		tr.said.add(err)
	}
	untouched(t)
	if err := target.Destination.Delete(t.Context(), restored); err != nil {
		t.Errorf("deleting what the refused restore made: %v", err)
	}
	untouched(t)
}

// restoreDamaged restores from copies of the catalog in which one object is damaged.
func restoreDamaged(t *testing.T, tr *trial) {
	k, b := tr.backedUp(t)
	f := k.flight
	var objects []string
	var index string
	for _, a := range b.Record.Artifacts {
		if f.catalog.Peek(a.ID) == nil {
			continue // it is the service's
		}
		for _, name := range f.catalog.Names() {
			if strings.HasPrefix(name, path.Dir(a.ID)+"/") {
				objects, index = append(objects, name), a.ID
			}
		}
	}
	if len(objects) == 0 && tr.Wire != nil {
		return // nothing of it lies in the catalog
	}
	// The index, the largest and the smallest of the rest.
	slices.SortFunc(objects, func(a, b string) int { return len(f.catalog.Peek(a)) - len(f.catalog.Peek(b)) })
	chosen := []string{objects[0], objects[len(objects)-1], index}
	slices.Sort(chosen)
	for _, victim := range slices.Compact(chosen) {
		data := f.catalog.Peek(victim)
		flipped := slices.Clone(data)
		flipped[len(data)/2] ^= 0x10
		for name, with := range map[string][]byte{"one bit": flipped, "cut": data[:len(data)-1], "longer": append(slices.Clone(data), 0), "empty": {}, "gone": nil} {
			t.Run(path.Base(victim)+" "+name, func(t *testing.T) {
				b := b
				b.Catalog = altered(t, f.catalog, victim, with)
				target := tr.Target(t)
				defer target.Destination.Close() //nolint:errcheck // nothing hangs on it
				restored, err := target.Destination.Restore(t.Context(), b)
				if err == nil {
					t.Error("a damaged dump was restored")
				} else {
					tr.said.add(err)
				}
				f.cleanedUp(t, target, restored)
			})
		}
	}
}

// altered is a copy of a catalog with one object's content replaced; nil removes it.
func altered(t *testing.T, from *memcatalog.Catalog, victim string, with []byte) *memcatalog.Catalog {
	t.Helper()
	c := memcatalog.New(now)
	for _, name := range from.Names() {
		data := from.Peek(name)
		if name == victim {
			if data = with; data == nil {
				continue
			}
		}
		if err := c.Create(t.Context(), name, data); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// cleanedUp deletes what a failed restore says it made, and expects that nothing of it is left.
func (f *flight) cleanedUp(t *testing.T, target Target, restored engine.Restored) {
	t.Helper()
	if err := target.Destination.Delete(t.Context(), restored); err != nil {
		t.Errorf("deleting what a failed restore made: %v", err)
	}
	if !target.Empty(t) {
		t.Error("a failed restore left something that its record does not name")
	}
	f.custody.check(t)
}

func restoreCut(t *testing.T, tr *trial) {
	k, b := tr.backedUp(t)
	f := k.flight
	t.Run("cancelled before", func(t *testing.T) {
		target := tr.Target(t)
		defer target.Destination.Close() //nolint:errcheck // nothing hangs on it
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		var restored engine.Restored
		if err := within(t, "restore", func() (err error) { restored, err = target.Destination.Restore(ctx, b); return err }); err == nil {
			t.Error("a cancelled restore succeeded")
		}
		f.cleanedUp(t, target, restored)
	})
	if tr.Wire != nil {
		return // a restore that dies at any call says more
	}
	for _, mode := range []string{"cancelled", "failed"} {
		t.Run(mode+" in the middle", func(t *testing.T) {
			target := tr.Target(t)
			defer target.Destination.Close() //nolint:errcheck // nothing hangs on it
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var mu sync.Mutex
			met := false
			f.catalog.Fail = func(op, _ string) error {
				mu.Lock()
				defer mu.Unlock()
				if op != "open" || met {
					return nil
				}
				met = true
				if mode == "cancelled" {
					cancel()
					return nil
				}
				return errInjected
			}
			var restored engine.Restored
			err := within(t, "restore", func() (err error) { restored, err = target.Destination.Restore(ctx, b); return err })
			f.catalog.Fail = nil
			if !met {
				t.Fatal("the restore opened no object")
			}
			if err == nil {
				t.Error("the restore succeeded")
			} else {
				tr.said.add(err)
			}
			f.cleanedUp(t, target, restored)
		})
	}
}
