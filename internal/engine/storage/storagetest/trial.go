package storagetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
	storageName = "orders"
	// prompt is how long anything may take that was cancelled.
	prompt = 15 * time.Second
)

// now is the real time: the databases under test have no other.
func now() time.Time { return clock.System{}.Now() }

// trial is one case over one fixture.
type trial struct {
	*Fixture
	suite Suite
	t     *testing.T
	said  said
	runs  int
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
	return &trial{Fixture: s.New(t), suite: s, t: t}
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
	c, err := tr.Bank.Contents(tr.t.Context(), tr.Bank.DB)
	if err != nil {
		tr.t.Fatalf("reading the bank: %v", err)
	}
	return c
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
	session  engine.Session
	captured engine.Captured

	names  []string // in the catalog, before the run
	traces []string
}

// fly prepares a run over a catalog of its own, which holds the objects of other runs.
func (tr *trial) fly(t *testing.T) *flight {
	t.Helper()
	tr.runs++
	f := &flight{tr: tr, t: t, catalog: memcatalog.New(now), custody: &custody{open: map[string]int{}}}
	id := fmt.Sprintf("%016x", 0xabc0+tr.runs)
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
		OpenedAt: func() time.Time { return f.opened },
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
		_, err = f.session.MeasureClock(ctx)
	case capture:
		if f.opened.IsZero() {
			f.open()
		}
		err = f.session.Capture(ctx)
	case confirm:
		if _, err = f.session.MeasureClock(ctx); err == nil {
			err = f.session.Confirm(ctx)
		}
		f.closed = now()
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
	if f.tr.Traces == nil {
		return
	}
	var got []string
	for end := now().Add(5 * time.Second); now().Before(end); time.Sleep(20 * time.Millisecond) {
		if got = f.tr.Traces(f.t); slices.Equal(got, f.traces) {
			return
		}
	}
	f.t.Errorf("the run left traces: %q, before it there were %q", got, f.traces)
}

// record is what the manifest would hold of the storage.
func (f *flight) record() engine.StorageRecord {
	facts := f.session.Facts()
	return engine.StorageRecord{
		Driver: f.tr.suite.Driver, SourceID: facts.SourceID, ToolVersions: facts.ToolVersions, Witness: facts.Witness, Artifacts: f.captured.Artifacts,
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
	return engine.StorageBackup{
		Storage: storageName, RunID: "00000000000beef0", Record: record, Catalog: f.catalog, Custody: f.custody,
		Report:   func(m string, fields map[string]any) { f.tr.said.add(m, fields) },
		Announce: func(context.Context, engine.Restored) error { return nil },
	}
}

// within calls do, which must come back promptly.
func within(t *testing.T, what string, do func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-time.After(prompt):
		t.Fatalf("%s did not return within %s", what, prompt)
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
