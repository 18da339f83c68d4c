package provider

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/awsapi"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/clock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/memcatalog"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
)

// system is the world that a test's provider works on: one target, one kind of storage, one catalog.
type system struct {
	t       *testing.T
	mu      sync.Mutex
	pauses  int // Pause calls
	paused  bool
	stores  map[string]string // the databases' contents, by path
	catalog *memcatalog.Catalog
	env     map[string]string
	runs    int
	seenKey []string // key_pem of every group made
	readOf  []string // STORAGE: NAMESPACES of every reader of a clone

	failAwait, failDiscard, failRestore, failInspect error
	failUnpause                                      error
	failVerify                                       bool
}

func newSystem(t *testing.T) *system {
	return &system{t: t, stores: map[string]string{"/db/orders": "orders", "/db/events": "events"}, catalog: memcatalog.New(time.Now), env: map[string]string{}}
}

func (s *system) deps() Dependencies {
	return Dependencies{
		Version: "test", Clock: clock.System{}, Kinds: []storage.Kind{memoryKind{"memory", s}, memoryKind{"other", s}, timedKind{memoryKind{"timed", s}}},
		OpenCatalog: func(CatalogSettings, func(context.Context) (*awsapi.Session, error)) (engine.Catalog, error) {
			return s.catalog, nil
		},
		NewGroup: func(_ string, g GroupSettings) (engine.Group, error) {
			if g.TLS != nil {
				s.seenKey = append(s.seenKey, g.TLS.KeyPEM)
			}
			return engine.Group{Resolver: s, Dialer: s}, nil
		},
		NewWatchdog: func(CatalogSettings, map[string]GroupSettings) (engine.Watchdog, error) { return fakeWatchdog{}, nil },
		NewLocker:   func(context.Context, engine.Catalog) engine.Locker { return fakeLocker{} },
		Alive:       func(string) (bool, bool) { return false, true },
		NewRunID:    s.newRunID, Holder: "test/pid 1", Getenv: func(k string) string { return s.env[k] },
	}
}

func (s *system) newRunID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runs++
	return fmt.Sprintf("%016x", s.runs)
}

// core is a provider on this system, configured with a short pause.
func (s *system) core() *core {
	s.t.Helper()
	c, diags := newCore(s.t, s.deps(), providerConfig())
	if len(diags) > 0 {
		s.t.Fatalf("configuring: %s: %s", diags[0].Summary, diags[0].Detail)
	}
	return c
}

func providerConfig() object {
	return object{
		"pause":   object{"targets": object{"main": object{"addresses": []any{"127.0.0.1:60051"}}}, "drain_timeout": "1s", "min_duration": "0s", "max_duration": "20s"},
		"catalog": object{"directory": "/catalog"},
	}
}

func backupConfig() object {
	return object{"name": "b1", "storages": object{
		"orders": object{"memory": object{"path": "/db/orders", "size": 1, "tables": []any{"a", "b"}}},
		"events": object{"memory": object{"path": "/db/events"}},
	}}
}

func restoreConfig() object {
	return object{"name": "r1", "backup_id": "b1", "storages": object{
		"orders": object{"memory": object{"path": "/clone/orders"}},
		"events": object{"memory": object{"path": "/clone/events"}},
	}}
}

// with returns a copy of an object with one value changed: with(c, "storages.orders.memory.path", "x").
func with(o object, path string, v any) object {
	out := object{}
	for k, e := range o {
		out[k] = e
	}
	name, rest, nested := strings.Cut(path, ".")
	if !nested {
		out[name] = v
		return out
	}
	inner, _ := o[name].(object)
	out[name] = with(inner, rest, v)
	return out
}

// --- the target ------------------------------------------------------------

func (s *system) Resolve(context.Context) ([]engine.Target, error) {
	return []engine.Target{{Address: "127.0.0.1:60051", Name: "127.0.0.1:60051"}}, nil
}

func (s *system) Dial(context.Context, engine.Target) (engine.AdminConn, error) { return conn{s}, nil }

type conn struct{ *system }

func (c conn) Pause(context.Context, time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pauses++
	c.paused = true
	return nil
}

func (c conn) CheckPaused(context.Context) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.paused, nil
}

func (c conn) Unpause(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failUnpause != nil {
		return c.failUnpause
	}
	c.paused = false
	return nil
}

func (c conn) Incarnation() string { return "connection #1" }
func (c conn) Close() error        { return nil }

type fakeWatchdog struct{}

func (fakeWatchdog) Arm(context.Context, engine.WatchdogOrder) (engine.Armed, error) {
	return fakeArmed{}, nil
}

type fakeArmed struct{}

func (fakeArmed) Process(int, uint64, string) func()     { return func() {} }
func (fakeArmed) SecretFile(string) func()               { return func() {} }
func (fakeArmed) Sending(context.Context) error          { return nil }
func (fakeArmed) Record(engine.Target, engine.Ownership) {}
func (fakeArmed) Fired(context.Context) (bool, error)    { return false, nil }
func (fakeArmed) Gone() <-chan struct{}                  { return nil }
func (fakeArmed) Lifted(context.Context) error           { return nil }
func (fakeArmed) Close(context.Context) error            { return nil }

type fakeLocker struct{}

func (fakeLocker) Acquire(_ context.Context, runID string, _ time.Duration) (engine.HeldLock, error) {
	return fakeLock{runID}, nil
}

type fakeLock struct{ runID string }

func (fakeLock) Check(context.Context) error { return nil }
func (l fakeLock) Ref() engine.LockRef {
	return engine.LockRef{Name: "lock", RunID: l.runID, Generation: 1}
}
func (fakeLock) Leave() {}

func (fakeLock) Release(context.Context) error { return nil }

// --- the storage -----------------------------------------------------------

// memoryKind captures a string. `path` and `tables` say what is captured; `jobs` does not.
type memoryKind struct {
	name string
	s    *system
}

func (k memoryKind) Name() string        { return k.name }
func (k memoryKind) Description() string { return "A string in memory." }

func (k memoryKind) SourceAttributes() map[string]schema.Attribute {
	return map[string]schema.Attribute{
		"path":   schema.StringAttribute{Required: true, MarkdownDescription: "Where it is.", PlanModifiers: []planmodifier.String{storage.ReplaceString()}},
		"size":   schema.Int64Attribute{Optional: true, MarkdownDescription: "Its size.", PlanModifiers: []planmodifier.Int64{storage.ReplaceInt64()}},
		"tables": schema.ListAttribute{Optional: true, ElementType: types.StringType, MarkdownDescription: "Its tables.", PlanModifiers: []planmodifier.List{storage.ReplaceList()}},
		"jobs":   schema.Int64Attribute{Optional: true, MarkdownDescription: "Jobs at once."},
	}
}

func (k memoryKind) DestinationAttributes() map[string]schema.Attribute { return k.SourceAttributes() }

func (k memoryKind) Validate(_ context.Context, _ storage.Side, config types.Object, at func(string) storage.PathSetter) diag.Diagnostics {
	if p, ok := config.Attributes()["path"].(types.String); ok && p.ValueString() == "bad" {
		at("path").Error("Bad path", "The path is bad.")
	}
	return nil
}

func pathOf(config types.Object) string {
	return config.Attributes()["path"].(types.String).ValueString()
}

func (k memoryKind) NewSource(_ context.Context, config types.Object, env storage.Env) (engine.Source, diag.Diagnostics) {
	return memorySource{k.s, env.StorageName, pathOf(config)}, nil
}

func (k memoryKind) NewDestination(_ context.Context, config types.Object, env storage.Env) (engine.Destination, diag.Diagnostics) {
	return memoryDestination{k.s, pathOf(config)}, nil
}

func (k memoryKind) NewReader(_ context.Context, side storage.Side, config types.Object, env storage.Env) (verify.Storage, diag.Diagnostics) {
	k.s.mu.Lock()
	defer k.s.mu.Unlock()
	if side == storage.DestinationSide {
		k.s.readOf = append(k.s.readOf, fmt.Sprintf("%s: %v", env.StorageName, env.Namespaces))
	}
	if _, ok := k.s.stores[pathOf(config)]; !ok {
		return nil, diag.Diagnostics{diag.NewErrorDiagnostic("Opening", "there is no "+pathOf(config))}
	}
	return memoryReader{s: k.s, path: pathOf(config)}, nil
}

func (k memoryKind) Artifacts(_ types.Object, env storage.Env) engine.ArtifactStore {
	return memoryArtifacts{k.s, env.Catalog}
}

func (memoryKind) Restores() storage.Restores { return storage.Restores{FromArtifacts: true} }

type memorySource struct {
	s          *system
	name, path string
}

func (m memorySource) Preflight(_ context.Context, run engine.Run) (engine.Session, error) {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	if _, ok := m.s.stores[m.path]; !ok {
		return nil, fmt.Errorf("there is no database %s", m.path)
	}
	return &memorySession{memorySource: m, run: run}, nil
}

func (m memorySource) OpenClock(context.Context) (engine.ClockSession, error) {
	return &memorySession{memorySource: m}, nil
}

type memorySession struct {
	memorySource
	run  engine.Run
	held string
}

func (m *memorySession) object() string { return m.run.Prefix + m.name + "/dump" }

func (m *memorySession) Facts() engine.Facts {
	return engine.Facts{SourceID: "id of " + m.path, Witness: "none", ToolVersions: map[string]string{"server": "1"},
		Planned: []engine.Artifact{{Kind: "memory_dump", ID: m.object()}}}
}

func (m *memorySession) MeasureClock(context.Context) (engine.ClockBound, error) {
	return engine.ClockBound{Uncertainty: time.Millisecond}, nil
}

func (m *memorySession) Capture(context.Context) error {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	m.held = m.s.stores[m.path]
	return nil
}

func (m *memorySession) Confirm(context.Context) error { return nil }

func (m *memorySession) Await(ctx context.Context) (engine.Captured, error) {
	if err := m.run.Catalog.Create(ctx, m.object(), []byte(m.held)); err != nil {
		return engine.Captured{}, err
	}
	if m.s.failAwait != nil && m.name == "orders" {
		return engine.Captured{}, m.s.failAwait
	}
	return engine.Captured{Artifacts: []engine.Artifact{{Kind: "memory_dump", ID: m.object(), Size: int64(len(m.held)), SHA256: "abc"}},
		Tables: []engine.TableWitness{{Namespace: m.name, Table: "t", Rows: 1}}, HasCoordinator: m.name == "orders"}, nil
}

func (m *memorySession) Discard(ctx context.Context) error {
	if m.s.failDiscard != nil {
		return m.s.failDiscard
	}
	return m.run.Catalog.Delete(ctx, m.object())
}

func (m *memorySession) Close() error { return nil }

type memoryArtifacts struct {
	s *system
	c engine.Catalog
}

func (m memoryArtifacts) Inspect(ctx context.Context, a engine.Artifact) error {
	if m.s.failInspect != nil {
		return m.s.failInspect
	}
	_, err := m.c.Stat(ctx, a.ID)
	return err
}

func (m memoryArtifacts) Delete(ctx context.Context, a engine.Artifact) error {
	return m.c.Delete(ctx, a.ID)
}

type memoryDestination struct {
	s    *system
	path string
}

func (m memoryDestination) Preflight(context.Context, engine.StorageBackup) error {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	if _, ok := m.s.stores[m.path]; ok {
		return fmt.Errorf("%s exists", m.path)
	}
	return nil
}

func (m memoryDestination) Restore(ctx context.Context, b engine.StorageBackup) (engine.Restored, error) {
	data, _, err := b.Catalog.Read(ctx, b.Record.Artifacts[0].ID)
	if err != nil {
		return engine.Restored{}, err
	}
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	m.s.stores[m.path] = string(data)
	r := engine.Restored{Objects: []engine.RestoredObject{{Kind: "memory", ID: m.path, Created: true}}, Endpoint: m.path,
		Properties: map[string]string{"storage": "memory", "contact_points": m.path}}
	if b.Storage == "orders" {
		return r, m.s.failRestore
	}
	return r, nil
}

func (m memoryDestination) Inspect(_ context.Context, r engine.Restored) error {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	if _, ok := m.s.stores[r.Objects[0].ID]; !ok {
		return engine.ErrNotFound
	}
	return nil
}

func (m memoryDestination) Delete(_ context.Context, r engine.Restored) error {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	delete(m.s.stores, r.Objects[0].ID)
	return nil
}

func (m memoryDestination) Close() error { return nil }

// memoryReader shows one table without transaction columns per storage, or a table with a record in flight.
type memoryReader struct {
	verify.Storage // calls of what is not expected panic
	s              *system
	path           string
}

func (m memoryReader) table() verify.Table {
	name := m.path[strings.LastIndexByte(m.path, '/')+1:]
	return verify.Table{Namespace: name, Name: "t", Key: []string{"id"}}
}

func (m memoryReader) Tables(context.Context) (present, missing []verify.Table, err error) {
	if m.s.failVerify {
		return nil, []verify.Table{m.table()}, nil
	}
	return []verify.Table{m.table()}, nil, nil
}

func (m memoryReader) HasCoordinator(context.Context) (bool, error) {
	return strings.HasSuffix(m.path, "orders"), nil
}

func (m memoryReader) Count(context.Context, verify.Table) (int64, error) { return 1, nil }

func (m memoryReader) CoordinatorTally(context.Context, int64) (verify.CoordinatorTally, error) {
	return verify.CoordinatorTally{}, nil
}

func (m memoryReader) Aborted(context.Context, func([]string) error) error { return nil }

func (m memoryReader) Close() error { return nil }

var errInjected = errors.New("injected failure")
