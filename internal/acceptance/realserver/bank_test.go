//go:build acceptance

package realserver

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/scalardb"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/admin"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/catalog/directory"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/clock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/adminserver"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/lock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/dump"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/postgresql"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/sqlite"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/target"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/watchdog"
)

// testBank takes backup after backup of the busy bank: each of them has the right sum.
func testBank(t *testing.T, b *bed) {
	p := b.newPlant(t, b.Addr)
	var copies []*copied
	for i := range 6 {
		b.Bank.WaitForCommits(t, 20, limit)
		c := p.take(t, fmt.Sprintf("paused%d", i), p.sources)
		p.restore(t, c)
		if c.violations != nil {
			t.Errorf("copy %d: %v", i, c.violations)
		}
		copies = append(copies, c)
	}
	p.read(t, copies)
	for i, c := range copies {
		if rows, sum := c.rows, c.sum; rows != b.Config.Rows() || sum != b.Config.Total() {
			t.Errorf("copy %d has %d rows with a sum of %d, want %d and %d", i, rows, sum, b.Config.Rows(), b.Config.Total())
		}
		t.Logf("copy %d: window %d ms after draining for %d ms", i, c.window.DurationMS, c.window.DrainMS)
	}
}

// testBankWithoutPause takes the same copies of a bank that goes on, one storage a little later than the other: the engine is made to
// believe in a pause, and the write witness is not heeded. Whatever is wrong with a copy, verification has to find.
func testBankWithoutPause(t *testing.T, b *bed) {
	deaf, err := adminserver.Start(adminserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(deaf.Close)
	p := b.newPlant(t, deaf.Address())
	const rounds = 10
	var copies []*copied
	witnessed := 0
	for i := range rounds {
		b.Bank.WaitForCommits(t, 20, limit)
		var saw verdict
		c := p.take(t, fmt.Sprintf("busy%d", i), map[string]engine.Source{
			"orders": unheeded{Source: p.sources["orders"], quietly: p.quietOrders, saw: &saw, before: func(ctx context.Context) error { return b.Bank.AwaitCommits(ctx, 40) }},
			"events": unheeded{Source: p.sources["events"], quietly: p.quietEvents, saw: &saw},
		})
		if saw.any() {
			witnessed++
		}
		p.restore(t, c)
		copies = append(copies, c)
	}
	wrong, caught, missed := 0, 0, 0
	p.read(t, copies)
	for i, c := range copies {
		bad := c.rows != b.Config.Rows() || c.sum != b.Config.Total()
		if bad {
			wrong++
		}
		if c.violations != nil {
			caught++
		}
		if bad && c.violations == nil {
			missed++
			t.Errorf("copy %d has %d rows with a sum of %d, and verification passed it", i, c.rows, c.sum)
		}
	}
	t.Logf("%d of %d had a wrong sum, verification caught %d of %d, the write witness saw %d of %d", wrong, rounds, caught, rounds, witnessed, rounds)
	if wrong == 0 {
		t.Error("no copy without a pause had a wrong sum: the test shows nothing")
	}
	if witnessed < rounds {
		t.Errorf("the write witness saw %d of %d copies of a bank that never stopped", witnessed, rounds)
	}
}

// plant takes and restores copies of the multi-storage bed in this process, by the product's engine.
type plant struct {
	b       *bed
	e       *engine.Engine
	group   engine.Group
	dir     string
	sources map[string]engine.Source
	pg      postgresql.Settings

	ordersDB, eventsDB *sql.DB
}

// copied is one copy.
type copied struct {
	name       string
	manifest   engine.Manifest
	window     engine.PauseWindow
	violations error // of the verification
	rows       int   // what an application finds in it
	sum        int64
}

func (b *bed) newPlant(t *testing.T, address string) *plant {
	t.Helper()
	system := clock.System{}
	p := &plant{b: b, dir: t.TempDir()}
	catalog, err := directory.New(filepath.Join(p.dir, "catalog"), system)
	if err != nil {
		t.Fatal(err)
	}
	dialer, err := admin.NewDialer(admin.Settings{}, system)
	if err != nil {
		t.Fatal(err)
	}
	p.group = engine.Group{Resolver: target.Static{Group: "main", Addresses: []string{address}, DNS: target.DNS()}, Dialer: dialer}
	p.e = &engine.Engine{
		Clock: system, Catalog: catalog, Locker: lock.Locker{Catalog: catalog, Clock: system, Holder: t.Name()}, Reporter: silent{},
		Watchdog: watchdog.InProcess{Clock: system, Spec: watchdog.Spec{Groups: map[string]json.RawMessage{"main": json.RawMessage("{}")}}, Openers: watchdog.Openers{
			Dialer:  func(json.RawMessage) (engine.Dialer, error) { return admin.NewDialer(admin.Settings{}, system) },
			Catalog: func(watchdog.CatalogSpec) (engine.Catalog, error) { return catalog, nil },
		}},
		Artifacts: func(context.Context, string, engine.JournalStorage) (engine.ArtifactStore, error) {
			return dump.Keeper{Catalog: catalog}, nil
		},
		Alive: func(string) (alive, known bool) { return true, true },
		NewRunID: func() string {
			var id [8]byte
			_, _ = rand.Read(id[:])
			return hex.EncodeToString(id[:])
		},
		Holder: t.Name(), Version: release,
	}
	p.pg = postgresql.Settings{
		Host: b.postgres.Host, Port: int64(b.postgres.Port), Database: b.database, SSLMode: "disable", Storage: "events", Clock: system,
		Getenv: func(string) string { return "" }, Username: b.postgres.User, Password: b.postgres.Password,
	}
	p.sources = map[string]engine.Source{"orders": sqlite.NewSource(sqlite.Config{Path: b.file}, "orders", false), "events": postgresql.NewSource(p.pg)}
	if p.ordersDB, err = sql.Open("sqlite", "file:"+b.file+"?_pragma=busy_timeout(10000)"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.ordersDB.Close() })
	p.eventsDB = b.postgres.DB(t, b.database, "", "")
	return p
}

type silent struct{}

func (silent) Report(context.Context, engine.Event) {}

// take takes one copy.
func (p *plant) take(t *testing.T, name string, sources map[string]engine.Source) *copied {
	t.Helper()
	q := engine.BackupRequest{
		Name: name, Groups: map[string]engine.Group{"main": p.group},
		Pause:    engine.PauseSettings{Drain: 10 * time.Second, Max: 30 * time.Second, ServerClockBound: time.Second},
		Storages: map[string]engine.StorageRequest{"orders": {Driver: "sqlite", Source: sources["orders"]}, "events": {Driver: "postgresql", Source: sources["events"]}},
		Unpauser: func(string) string { return "unpause" },
	}
	r, err := p.e.Backup(t.Context(), q)
	if err != nil {
		t.Fatalf("taking copy %s: %v", name, err)
	}
	return &copied{name: name, manifest: r.Manifest, window: r.Manifest.Window}
}

// restore restores and verifies it.
func (p *plant) restore(t *testing.T, c *copied) {
	t.Helper()
	file, clone := sqlite.Config{Path: p.file(c)}, p.pg
	clone.Database = c.name
	record, err := p.e.Restore(t.Context(), engine.RestoreRequest{
		Name: c.name, Manifest: c.manifest, Verify: &engine.VerifySettings{ServerClockBound: time.Second},
		Storages: map[string]engine.RestoreStorage{
			"orders": {Driver: "sqlite", Destination: sqlite.NewDestination(file), OpenReader: func(ctx context.Context) (verify.Storage, error) { return sqlite.NewReader(ctx, file) }},
			"events": {Driver: "postgresql", Destination: postgresql.NewDestination(clone), OpenReader: func(ctx context.Context) (verify.Storage, error) { return postgresql.NewReader(ctx, clone) }},
		},
	})
	switch {
	case record.Verification == nil:
		t.Fatalf("copy %s was not verified: %v", c.name, err)
	case err != nil && record.Verification.Passed, err == nil && !record.Verification.Passed:
		t.Fatalf("copy %s: the verification says %+v, the restore %v", c.name, record.Verification, err)
	}
	c.violations = err
}

func (p *plant) file(c *copied) string { return filepath.Join(p.dir, c.name+".db") }

// read reads copies as applications would, two at a time: each is a Java program of its own.
func (p *plant) read(t *testing.T, copies []*copied) {
	t.Helper()
	turns := make(chan struct{}, 2)
	ok := t.Run("read", func(t *testing.T) {
		for _, c := range copies {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				turns <- struct{}{}
				defer func() { <-turns }()
				c.rows, c.sum = scalardb.Read(t, p.b.Config, scalardb.SQLite("orders", p.file(c), "bank"),
					scalardb.PostgreSQL("events", p.pg.Host, int(p.pg.Port), c.name, p.pg.Username, p.pg.Password, "bank2", "coordinator"))
			})
		}
	})
	if !ok {
		t.FailNow()
	}
}

// quietOrders and quietEvents keep others from writing to one database for the few milliseconds that f takes. That is no pause: no
// transaction of ScalarDB is whole because of it.
func (p *plant) quietOrders(ctx context.Context, f func() error) error {
	c, err := p.ordersDB.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if _, err := c.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	err = f()
	_, end := c.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
	return errors.Join(err, end)
}

func (p *plant) quietEvents(ctx context.Context, f func() error) error {
	tx, err := p.eventsDB.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(ctx, "LOCK TABLE bank2.accounts, coordinator.state IN SHARE MODE"); err != nil {
		return err
	}
	return f()
}

// verdict is what the write witnesses of one run said.
type verdict struct {
	mu    sync.Mutex
	voids []error
}

func (v *verdict) note(err error) (other error) {
	var void *engine.VoidError
	if !errors.As(err, &void) {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.voids = append(v.voids, err)
	return nil
}

func (v *verdict) any() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.voids) > 0
}

// unheeded is a source whose witness is noted, but not obeyed. A driver that saw a write keeps nothing, so there are two sessions: one that
// witnesses the run as always; and one that captures, with its witness blinded: nobody writes between its two readings (quietly), and
// no stamp is too late for it.
type unheeded struct {
	engine.Source
	before  func(context.Context) error // the fault: one storage is captured only after the bank has gone on
	quietly func(context.Context, func() error) error
	saw     *verdict
}

type unheededSession struct {
	engine.Session // captures
	unheeded
	witness engine.Session
}

func (u unheeded) Preflight(ctx context.Context, run engine.Run) (engine.Session, error) {
	blind := run
	blind.ServerClockBound = time.Hour
	capturing, err := u.Source.Preflight(ctx, blind)
	if err != nil {
		return nil, err
	}
	run.Prefix += "witness/"
	witness, err := u.Source.Preflight(ctx, run)
	if err != nil {
		return nil, errors.Join(err, capturing.Close())
	}
	return &unheededSession{Session: capturing, unheeded: u, witness: witness}, nil
}

func (s *unheededSession) Capture(ctx context.Context) error {
	if err := s.witness.Capture(ctx); err != nil {
		return err
	}
	if s.before != nil {
		if err := s.before(ctx); err != nil {
			return err
		}
	}
	return s.quietly(ctx, func() error {
		if err := s.Session.Capture(ctx); err != nil {
			return err
		}
		return s.Session.Confirm(ctx)
	})
}

func (s *unheededSession) Confirm(ctx context.Context) error {
	return s.saw.note(s.witness.Confirm(ctx))
}

func (s *unheededSession) Await(ctx context.Context) (engine.Captured, error) {
	_, err := s.witness.Await(ctx)
	if err := s.saw.note(err); err != nil {
		return engine.Captured{}, fmt.Errorf("the witness's session: %w", err)
	}
	if err := s.witness.Discard(ctx); err != nil {
		return engine.Captured{}, fmt.Errorf("the witness's session: %w", err)
	}
	return s.Session.Await(ctx)
}

func (s *unheededSession) Discard(ctx context.Context) error {
	return errors.Join(s.witness.Discard(ctx), s.Session.Discard(ctx))
}

func (s *unheededSession) Close() error { return errors.Join(s.witness.Close(), s.Session.Close()) }
