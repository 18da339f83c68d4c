package storagetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/clock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/memcatalog"
)

const (
	backupID    = "nightly"
	storageName = Storage
	// prompt is how long anything may take that was cancelled.
	prompt = time.Minute
)

// now is the real time: the databases under test have no other.
func now() time.Time { return clock.System{}.Now() }

// trial is one case over one fixture.
type trial struct {
	*Fixture
	suite Suite
	t     *testing.T
	said  said
}

// said is everything that went out where a user, a log or the state could see it.
type said struct {
	mu   sync.Mutex
	text []string
}

func (s *said) add(v ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range v {
		if err, ok := v.(error); ok {
			s.text = append(s.text, err.Error())
			continue
		}
		data, _ := json.Marshal(v)
		s.text = append(s.text, fmt.Sprintf("%+v", v), string(data))
	}
}

func newTrial(t *testing.T, s Suite) *trial {
	tr := &trial{Fixture: s.New(t), suite: s, t: t}
	if tr.born.IsZero() {
		tr.born = now()
	}
	return tr
}

// leaks returns what shows a secret, with the secret cut out.
func (s *said) leaks(secrets []string) (found []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, secret := range secrets {
		for _, text := range s.text {
			if strings.Contains(text, secret) {
				found = append(found, strings.ReplaceAll(text, secret, "(SECRET)"))
			}
		}
	}
	return found
}

func (tr *trial) checkSecrets() {
	tr.t.Helper()
	for _, text := range tr.said.leaks(tr.Secrets) {
		tr.t.Errorf("a secret shows in: %s", text)
	}
}

func (tr *trial) contents() []string {
	tr.t.Helper()
	c, err := tr.Bank.Rows(tr.t.Context())
	if err != nil {
		tr.t.Fatalf("reading the bank: %v", err)
	}
	return c
}

// transfer writes one transaction of now.
func (tr *trial) transfer() {
	tr.t.Helper()
	if err := tr.Bank.Transfer(tr.t.Context(), 0); err != nil {
		tr.t.Fatalf("writing a transaction: %v", err)
	}
}

// step is one call of a Session.
type step string

const (
	preflight step = "preflight"
	capture   step = "capture"
	confirm   step = "confirm"
	await     step = "await"
)

var steps = []step{preflight, capture, confirm, await}

// flight is one run.
type flight struct {
	tr       *trial
	t        *testing.T
	catalog  *memcatalog.Catalog
	run      engine.Run
	custody  *custody
	opened   time.Time
	closed   time.Time
	bound    engine.ClockBound
	window   engine.PauseWindow
	session  engine.Session
	captured engine.Captured
	// short says that nobody restores what the run captures: see dash.
	short bool
	// restoreCalls are the calls that its restore made, behind an API.
	restoreCalls []string

	names  []string // in the catalog, before the run
	traces []string
}

// fly prepares a run over a catalog of its own, which holds the objects of other runs.
func (tr *trial) fly(t *testing.T) *flight {
	t.Helper()
	f := &flight{tr: tr, t: t, catalog: memcatalog.New(now), custody: &custody{open: map[string]int{}}}
	id := fmt.Sprintf("%016x", rand.Uint64()) //nolint:gosec // it is no secret
	for _, other := range []string{
		"backups/" + backupID + "/" + strings.Repeat("0", 16) + "/" + storageName + "/index.json",
		"backups/" + backupID + "/" + strings.Repeat("0", 16) + "/" + storageName + "/data",
		"backups/" + backupID + "/" + id + "/" + storageName + "2/index.json",
		"backups/" + backupID + "/manifest.json",
		"backups/" + backupID + "2/" + id + "/" + storageName + "/index.json",
	} {
		if err := f.catalog.Create(t.Context(), other, []byte("somebody else's")); err != nil {
			t.Fatal(err)
		}
	}
	f.names = f.catalog.Names()
	if tr.Traces != nil {
		f.traces = tr.Traces(t)
	}
	f.run = engine.Run{
		ID: id, BackupID: backupID, Catalog: f.catalog, Prefix: "backups/" + backupID + "/" + id + "/", Custody: f.custody,
		OpenedAt: func() time.Time { return f.opened }, Window: func() engine.PauseWindow { return f.window },
		// The test's clock and the bank's are one; the bank's stamps are cut to milliseconds.
		ServerClockBound: time.Millisecond,
		Report:           func(m string, fields map[string]any) { tr.said.add(m, fields) },
	}
	// Whatever a failing test leaves: a session must not outlive the fixture.
	t.Cleanup(func() {
		if f.session != nil {
			_ = f.session.Close()
		}
	})
	return f
}

// dash is fly for a run of which nothing is restored. Behind an API such a run does not measure the clock, which would take a second, and does not hold its window
// until it has a restore point, which would take five: its bound is zero, and its restore point is one of right before the window.
func (tr *trial) dash(t *testing.T) *flight {
	t.Helper()
	f := tr.fly(t)
	if f.short = tr.Wire != nil; f.short {
		time.Sleep(time.Until(tr.born.Add(5 * time.Second))) // the storage has to be as old as the restore point
	}
	return f
}

// do makes one step. The window opens before capture and closes after confirm.
func (f *flight) do(ctx context.Context, s step) (err error) {
	switch s {
	case preflight:
		f.session, err = f.tr.Source().Preflight(ctx, f.run)
		if err != nil {
			f.session = nil
			break
		}
		f.tr.said.add(f.session.Facts())
		err = f.measure(ctx)
	case capture:
		if f.opened.IsZero() {
			f.open()
		}
		err = f.session.Capture(ctx)
	case confirm:
		if err = f.hold(ctx); err == nil {
			err = f.measure(ctx)
		}
		if err == nil {
			err = f.session.Confirm(ctx)
		}
		f.shut()
	case await:
		f.captured, err = f.session.Await(ctx)
		f.tr.said.add(f.captured)
	}
	if err != nil {
		f.tr.said.add(err)
	}
	return err
}

// open opens the pause window: a moment after the last write, so that the clocks' milliseconds tell them apart.
func (f *flight) open() {
	time.Sleep(5 * time.Millisecond) // no condition to poll for: it is time itself that has to pass
	f.opened = now()
}

func (f *flight) measure(ctx context.Context) (err error) {
	if !f.short {
		f.bound, err = f.session.MeasureClock(ctx)
	}
	return err
}

// hold keeps the window open until it surely holds a restore point, as the engine does.
func (f *flight) hold(ctx context.Context) error {
	facts := f.session.Facts()
	if !facts.NeedsInstant || f.short {
		return nil
	}
	return clock.System{}.Sleep(ctx, time.Until(f.opened.Add(2*f.bound.Uncertainty+3*facts.Granule+50*time.Millisecond)))
}

// shut closes the window, and finds its restore point.
func (f *flight) shut() {
	f.closed = now()
	facts := f.session.Facts()
	recorded := engine.ClockBoundMS{OffsetMS: f.bound.Offset.Milliseconds(), UncertaintyMS: f.bound.Uncertainty.Milliseconds()}
	if !f.short {
		recorded.UncertaintyMS++ // what was cut off
	}
	b := recorded.Bound()
	f.window = engine.PauseWindow{
		StartedAt: f.opened, EndedAt: f.closed, SafeFrom: f.opened.Add(b.Offset + b.Uncertainty + facts.Granule).UTC(), SafeUntil: f.closed.Add(b.Offset - b.Uncertainty - facts.Granule).UTC(),
		ClockBounds: map[string]engine.ClockBoundMS{storageName: recorded},
	}
	switch {
	case !facts.NeedsInstant:
	case f.short:
		f.window.RestorePoint = f.opened.Add(-3 * facts.Granule).UTC().Truncate(facts.Granule)
	default:
		// Without one Await says so: a step that failed before has none.
		f.window.RestorePoint, _ = engine.RestorePoint(f.window.SafeFrom, f.window.SafeUntil, facts.Granule)
	}
}

// until makes all steps up to and including last.
func (f *flight) until(last step) error {
	for _, s := range steps {
		if err := f.do(f.t.Context(), s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
		if s == last {
			break
		}
	}
	return nil
}

func (f *flight) mustUntil(last step) {
	f.t.Helper()
	if err := f.until(last); err != nil {
		f.t.Fatal(err)
	}
}

// discard discards and closes twice, and expects that nothing is left.
func (f *flight) discard() {
	f.t.Helper()
	if f.session != nil {
		for range 2 {
			if err := f.session.Discard(f.t.Context()); err != nil {
				f.t.Errorf("Discard: %v", err)
			}
		}
		f.close()
	}
	f.nothingLeft()
}

func (f *flight) close() {
	f.t.Helper()
	for range 2 {
		if err := f.session.Close(); err != nil {
			f.t.Errorf("Close: %v", err)
		}
	}
}

// judge says what a run that something befell may have become: good and whole, or an error. Then it discards it.
func (f *flight) judge(what string, err error) {
	f.t.Helper()
	if err == nil {
		store := f.tr.Artifacts(f.catalog)
		for _, a := range f.captured.Artifacts {
			if err := store.Inspect(f.t.Context(), a); err != nil {
				f.t.Errorf("%s, and the backup was called good: %v", what, err)
			}
		}
	}
	f.discard()
	if f.t.Failed() {
		f.t.Logf("at: %s; the run's error was: %v", what, err)
	}
}

// nothingLeft compares the catalog and the traces with what there was before the run.
func (f *flight) nothingLeft() {
	f.t.Helper()
	if got := f.catalog.Names(); !slices.Equal(got, f.names) {
		f.t.Errorf("the catalog holds\n  %s\nbefore the run it held\n  %s", strings.Join(got, "\n  "), strings.Join(f.names, "\n  "))
	}
	f.released()
}

// released expects that custody got back everything, and that the traces are as they were.
func (f *flight) released() {
	f.t.Helper()
	f.custody.check(f.t)
	f.tr.traceless(f.t, "the run", f.traces)
}

// traceless expects that the traces are as they were.
func (tr *trial) traceless(t *testing.T, who string, before []string) {
	t.Helper()
	if tr.Traces == nil {
		return
	}
	var got []string
	for end := now().Add(5 * time.Second); now().Before(end); time.Sleep(20 * time.Millisecond) {
		if got = tr.Traces(t); slices.Equal(got, before) {
			return
		}
	}
	t.Errorf("%s left traces: %q, before it there were %q", who, got, before)
}

// record is what the manifest would hold of the storage.
func (f *flight) record() engine.StorageRecord {
	facts := f.session.Facts()
	return engine.StorageRecord{
		Driver: f.tr.suite.Driver, SourceID: facts.SourceID, ByTime: facts.ByTime, ToolVersions: facts.ToolVersions, Witness: facts.Witness, Artifacts: f.captured.Artifacts,
		Tables: f.captured.Tables, HasCoordinator: f.captured.HasCoordinator, CoordinatorNewest: f.captured.CoordinatorNewest, Extra: f.captured.Extra,
	}
}

// backup is a complete run: its record is as restored from the manifest's JSON.
func (tr *trial) backup(t *testing.T) (*flight, engine.StorageBackup) {
	t.Helper()
	f := tr.fly(t)
	f.mustUntil(await)
	f.close()
	f.custody.check(t)
	return f, f.storageBackup()
}

func (f *flight) storageBackup() engine.StorageBackup {
	f.t.Helper()
	data, err := json.Marshal(f.record())
	if err != nil {
		f.t.Fatal(err)
	}
	var record engine.StorageRecord
	if err := json.Unmarshal(data, &record); err != nil {
		f.t.Fatal(err)
	}
	b := engine.StorageBackup{
		Storage: storageName, RunID: "00000000000beef0", Name: "staging", Record: record, Catalog: f.catalog, Custody: f.custody,
		Report:   func(m string, fields map[string]any) { f.tr.said.add(m, fields) },
		Announce: func(context.Context, engine.Restored) error { return nil },
	}
	if record.ByTime {
		b.RestorePoint = f.window.RestorePoint
	}
	return b
}

// kept is one backup, with the rows that it has to hold, that several cases restore.
type kept struct {
	flight *flight
	want   []string
}

// backedUp is a backup for the cases of a restore. Behind an API, where each takes long, they share one.
func (tr *trial) backedUp(t *testing.T) (*kept, engine.StorageBackup) {
	t.Helper()
	k := tr.kept
	if k == nil || tr.Wire == nil {
		k = &kept{want: tr.contents()}
		k.flight, _ = tr.backup(t)
		tr.kept = k
	}
	k.flight.t, k.flight.tr = t, tr // this case's
	return k, k.flight.storageBackup()
}

// within calls do, which must come back promptly.
func within(t *testing.T, what string, do func() error) error {
	t.Helper()
	return ends(t, prompt, what, do)
}

// ends calls do, which must come back in time.
func ends(t *testing.T, in time.Duration, what string, do func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-time.After(in):
		t.Fatalf("%s did not return within %s", what, in)
		return nil
	}
}

func isVoid(err error) bool {
	var void *engine.VoidError
	return errors.As(err, &void)
}

// custody records what must not outlive the run.
type custody struct {
	mu   sync.Mutex
	open map[string]int
	seen []string // secret files
}

func (c *custody) take(name string) (done func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open[name]++
	return sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.open[name]--; c.open[name] == 0 {
			delete(c.open, name)
		}
	})
}

// Process implements engine.Custody.
func (c *custody) Process(pid int, _ uint64, name string) func() {
	return c.take(fmt.Sprintf("process %d %s", pid, name))
}

// SecretFile implements engine.Custody.
func (c *custody) SecretFile(path string) func() {
	c.mu.Lock()
	c.seen = append(c.seen, path)
	c.mu.Unlock()
	return c.take("file " + path)
}

// check expects that nothing is left in custody, and that the files are gone.
func (c *custody) check(t *testing.T) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for name := range c.open {
		t.Errorf("still in custody: %s", name)
	}
	for _, path := range c.seen {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there (%v)", path, err)
		}
	}
}
