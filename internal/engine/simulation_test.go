package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/memcatalog"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/lock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/watchdog"
)

// defaultSeeds is how many worlds a plain `go test` runs; SIM_SEEDS asks for more (make sim).
const defaultSeeds = 400

// TestSimulation runs the whole sequence in seeded random worlds and holds every one against the promises.
// SIM_SEED=N runs one world and prints what happened in it.
func TestSimulation(t *testing.T) {
	if s := os.Getenv("SIM_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		trace, broken := simulate(t, seed)
		t.Log("\n" + strings.Join(trace, "\n"))
		for _, b := range broken {
			t.Error(b)
		}
		return
	}
	seeds := defaultSeeds
	if s := os.Getenv("SIM_SEEDS"); s != "" {
		var err error
		if seeds, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	var good, voided, killed atomic.Int64
	var failed int
	for seed := range uint64(seeds) {
		trace, broken := simulate(t, seed)
		for _, b := range broken {
			t.Errorf("seed %d: %s", seed, b)
		}
		if len(broken) > 0 {
			if failed++; failed >= 5 {
				t.Fatalf("too many broken promises; see one with SIM_SEED=%d", seed)
			}
		}
		switch last := trace[len(trace)-1]; {
		case strings.Contains(last, "first run killed"):
			killed.Add(1)
		case strings.Contains(last, "first run available"):
			good.Add(1)
		default:
			voided.Add(1)
		}
	}
	t.Logf("%d worlds: the first run was available in %d, refused or voided in %d, killed in %d", seeds, good.Load(), voided.Load(), killed.Load())
	if good.Load() < int64(seeds)/5 || voided.Load() < int64(seeds)/10 || killed.Load() < int64(seeds)/20 {
		t.Error("the worlds are too kind or too cruel to show anything")
	}
}

// TestSimulationIsDeterministic: the same seed gives the same trace, so that a broken promise can be looked at again.
func TestSimulationIsDeterministic(t *testing.T) {
	for seed := range uint64(40) {
		a, _ := simulate(t, seed)
		b, _ := simulate(t, seed)
		slices.Sort(a)
		slices.Sort(b)
		if !slices.Equal(a, b) {
			t.Fatalf("seed %d: two traces differ:\n%s\n---\n%s", seed, strings.Join(a, "\n"), strings.Join(b, "\n"))
		}
	}
}

func simulate(t *testing.T, seed uint64) (trace, broken []string) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(seed)
		broken = w.live(t)
		w.bg.Wait()
		trace = w.trace
	})
	return trace, broken
}

func newWorld(seed uint64) *world {
	w := &world{seed: seed, plan: draw(seed), start: time.Now(), targets: map[string]*simTarget{}, artifacts: map[string]string{}, opened: map[string]time.Time{}, closed: map[string]time.Time{}}
	w.catalog = memcatalog.New(time.Now)
	for i := range w.plan.targets {
		w.addTarget(address(i))
	}
	return w
}

func (w *world) addTarget(a string) {
	t := &simTarget{w: w, address: a}
	if w.chance(2, "busy", a) == 0 {
		t.busyFor = time.Duration(w.chance(int64(200*time.Millisecond), "busy for", a))
	}
	if w.chance(8, "long", a) == 0 {
		t.busyFor = time.Duration(w.chance(int64(w.plan.drain), "busy for long", a))
	}
	if w.plan.slowDrain[a] {
		t.busyFor = w.plan.drain + time.Second
	}
	t.note()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.targets[a] = t
	w.members = append(w.members, a)
}

// live is one story: a first run in trouble, then a second in a healthy world.
func (w *world) live(t *testing.T) (broken []string) {
	p := w.plan
	promise := func(kept bool, format string, args ...any) {
		if !kept {
			broken = append(broken, fmt.Sprintf(format, args...))
		}
	}
	if p.foreign != "" {
		target := w.target(p.foreign)
		target.mu.Lock()
		target.busyFor = 0
		target.mu.Unlock()
		_, _ = target.pause("foreign", time.Minute, "")
	}
	var sick atomic.Bool
	sick.Store(true)
	w.catalog.Fail = func(op, name string) error {
		if !sick.Load() {
			return nil
		}
		if float64(w.chance(1000, "catalog", op, name))/1000 < p.catalogFail[op] {
			return errors.New("planned failure of the catalog")
		}
		return nil
	}

	first := w.provider("first", &sick)
	w.schedule()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	first.engine.Hook = func(_ context.Context, phase engine.Phase) {
		if phase == p.killPhase {
			w.later(p.killDelay, func() {
				w.log("kill at %s", phase)
				first.process.kill()
				if p.machine {
					first.watchdog.process.kill()
				}
			})
		}
		if phase == p.cancelPhase {
			w.later(p.cancelDelay, func() { w.log("cancel at %s", phase); cancel() })
		}
		if phase == p.stopPhase {
			w.later(p.stopDelay, func() {
				w.log("stop at %s for %s", phase, p.stopFor)
				first.process.suspend(p.stopFor)
				w.log("goes on")
			})
		}
	}
	b, err := first.engine.Backup(ctx, first.request("b1"))
	survived := first.process.alive()
	available := survived && err == nil && b.Manifest.Status == engine.StatusAvailable
	w.log("first run ends: %v", err)

	var phased *engine.Error
	if survived && errors.As(err, &phased) {
		switch phased.Phase {
		case engine.PhaseResolve, engine.PhasePreflight, engine.PhaseArm:
			promise(w.pauses.Load() == 0, "a run that failed in %s sent a Pause", phased.Phase)
		}
	}

	// The process is over; its watchdog has its time.
	first.process.kill()
	time.Sleep(3 * time.Minute)
	sick.Store(false)

	if available && !p.windowOnly {
		promise(b.Recorded, "a backup is called available and is not recorded")
	}
	if available {
		w.checkWindow("first", b, promise)
	}
	if len(p.failing) == 0 && len(p.trouble) == 0 && len(p.pauseFault) == 0 && len(p.slowDrain) == 0 && len(p.catalogFail) == 0 && len(p.deafLift) == 0 &&
		p.killPhase == "" && p.cancelPhase == "" && p.stopPhase == "" && p.foreign == "" {
		promise(available, "a healthy world gave no backup: %v", err)
	}
	for a, target := range w.all() {
		target.mu.Lock()
		target.busyFor = min(target.busyFor, 200*time.Millisecond) // what was in flight for long has ended
		left, held := target.closed && target.owner != "foreign", target.closed && target.foreignHeld
		target.mu.Unlock()
		promise(!left || p.machine && !survived, "%s was left paused", a)
		if p.foreign == a && !w.hadTrouble("restart", "unpause") {
			promise(held, "somebody else's pause of %s was lifted", a)
		}
	}
	if !survived && p.machine {
		// The journal must name what is paused, and unpausing by it must work without Terraform.
		w.healByJournal(promise)
	}

	second := w.provider("second", &atomic.Bool{})
	q := second.request("b2")
	foreign := w.foreignPaused()
	ctx2, cancel2 := context.WithTimeout(context.Background(), time.Hour)
	defer cancel2()
	b2, err := second.engine.Backup(ctx2, q)
	if foreign {
		promise(err != nil && strings.Contains(err.Error(), "paused already"), "a run over somebody else's pause was not refused: %v", err)
		promise(w.foreignPaused(), "the second run lifted somebody else's pause")
		w.liftForeign()
		second.process.kill()
		second = w.provider("third", &atomic.Bool{})
		b2, err = second.engine.Backup(ctx2, second.request("b2"))
	}
	for _, warning := range b2.Warnings {
		w.log("second run warns: %s", warning)
	}
	promise(err == nil && b2.Manifest.Status == engine.StatusAvailable, "the next run in a healthy world failed: %v", err)
	if err == nil {
		w.checkWindow(second.process.name, b2, promise)
	}
	w.checkCatalog(available && !p.windowOnly, promise)
	switch {
	case !survived:
		w.log("first run killed")
	case available:
		w.log("first run available")
	default:
		w.log("first run voided")
	}
	return broken
}

// TestOnePauseAtATime: runs of several processes over one catalog take turns, and each gives a backup.
func TestOnePauseAtATime(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(seed)
			w.plan = worldPlan{targets: 2, storages: 2, min: time.Second, drain: time.Second, latency: 10 * time.Millisecond}
			w.targets, w.members = map[string]*simTarget{}, nil
			for i := range w.plan.targets {
				w.addTarget(address(i))
			}
			var done sync.WaitGroup
			for i := range 3 {
				p := w.provider(fmt.Sprintf("run%d", i), &atomic.Bool{})
				done.Go(func() {
					ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
					defer cancel()
					if b, err := p.engine.Backup(ctx, p.request(fmt.Sprintf("b%d", i))); err != nil || b.Manifest.Status != engine.StatusAvailable {
						t.Errorf("seed %d, run %d: %v", seed, i, err)
					}
					p.process.kill()
				})
			}
			done.Wait()
			w.bg.Wait()
			type span struct {
				from, until time.Time
				run         string
			}
			var spans []span
			for run, from := range w.opened {
				spans = append(spans, span{from, w.closed[run], run})
			}
			for i, a := range spans {
				for _, b := range spans[:i] {
					if a.from.Before(b.until) && b.from.Before(a.until) {
						t.Errorf("seed %d: the windows of %s and %s overlap", seed, a.run, b.run)
					}
				}
			}
			if len(spans) != 3 {
				t.Errorf("seed %d: %d windows of 3", seed, len(spans))
			}
		})
	}
}

// all is every target there ever was.
func (w *world) all() map[string]*simTarget {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.targets)
}

func (w *world) hadTrouble(kinds ...string) bool {
	return slices.ContainsFunc(w.plan.trouble, func(x trouble) bool { return slices.Contains(kinds, x.kind) })
}

func (w *world) later(d time.Duration, f func()) {
	if d == 0 {
		f()
		return
	}
	w.bg.Go(func() { time.Sleep(d); f() })
}

// schedule starts what goes wrong at times of its own.
func (w *world) schedule() {
	for i, x := range w.plan.trouble {
		w.bg.Go(func() {
			time.Sleep(x.after)
			a := address(x.target)
			target := w.target(a)
			w.log("trouble: %s %s", x.kind, a)
			switch x.kind {
			case "restart":
				target.restart(x.by.Abs() / 4)
			case "break": // the connection only: to a client it looks the same
				target.mu.Lock()
				target.restarts++
				target.mu.Unlock()
			case "appear":
				w.addTarget(fmt.Sprintf("10.0.1.%d:60051", i+1))
			case "disappear":
				w.mu.Lock()
				if len(w.members) > 1 {
					w.members = slices.DeleteFunc(w.members, func(m string) bool { return m == a })
				}
				w.mu.Unlock()
			case "rogue":
				w.mu.Lock()
				w.rogue = append(w.rogue, rogueWrite{storageName(x.target % w.plan.storages), time.Now()})
				w.mu.Unlock()
			case "step":
				w.mu.Lock()
				w.clockStep = append(w.clockStep, stepAt{time.Now(), x.by})
				w.mu.Unlock()
			case "unpause":
				_ = target.unpause()
			case "foreign":
				_, _ = target.pause("foreign", 5*time.Second, "")
			}
		})
	}
}

func (w *world) foreignPaused() bool {
	w.mu.Lock()
	members := slices.Clone(w.members)
	w.mu.Unlock()
	return slices.ContainsFunc(members, func(a string) bool {
		t := w.target(a)
		t.mu.Lock()
		defer t.mu.Unlock()
		return t.closed && t.owner == "foreign"
	})
}

func (w *world) liftForeign() {
	for _, t := range w.all() {
		t.mu.Lock()
		if t.owner == "foreign" {
			t.open()
		}
		t.mu.Unlock()
	}
}

// checkWindow: in a window that is claimed, no target admitted a write, nobody wrote past them, and every capture was fixed in it.
func (w *world) checkWindow(by string, b engine.Backup, promise func(bool, string, ...any)) {
	from, until := w.opened[by], w.closed[by] // not the recorded times, whose clock may have stepped long before
	for address, t := range w.all() {
		t.mu.Lock()
		member := slices.ContainsFunc(b.Manifest.Window.Targets["main"], func(r engine.TargetRecord) bool { return r.Address == address })
		for i, q := range t.history {
			end := time.Now()
			if i+1 < len(t.history) {
				end = t.history[i+1].at
			}
			if w.hadTrouble("unpause") && w.hadTrouble("foreign") && end.Sub(q.at) < 350*time.Millisecond {
				continue // unpaused and paused again by others between two looks: only a write tells, and the docs say so
			}
			if member && !q.quiet && q.at.Before(until) && end.After(from) {
				promise(false, "%s admitted writes at %s, in a window that is called available", address, q.at.Sub(w.start))
			}
		}
		t.mu.Unlock()
	}
	if !b.Manifest.Window.StartedAt.Before(b.Manifest.Window.EndedAt) {
		promise(false, "an empty window is called available")
	}
	if w.plan.needsInstant || w.plan.windowOnly {
		at := b.Manifest.Window.RestorePoint
		promise(!at.IsZero() && !at.Before(b.Manifest.Window.SafeFrom) && !at.After(b.Manifest.Window.SafeUntil) && at.Equal(at.Truncate(time.Second)), "no restore point in the safe interval: %s", at)
	}
	if w.plan.windowOnly {
		return
	}
	for _, c := range w.captures {
		if c.run != b.Manifest.RunID {
			continue
		}
		promise(!c.at.Before(from) && !c.at.After(until), "storage %s was captured outside the window", c.storage)
	}
	for _, x := range w.rogue {
		promise(x.at.Before(from) || x.at.After(until.Add(-time.Millisecond)) || !w.captured(b, x.storage), "a write to %s at %s, in the window, was not seen", x.storage, x.at.Sub(w.start))
	}
	// Nobody may be missing: who was a member at the window's end was paused.
}

func (w *world) captured(b engine.Backup, storage string) bool {
	_, ok := b.Manifest.Storages[storage]
	if !ok {
		return false
	}
	for _, c := range w.captures {
		if c.run == b.Manifest.RunID && c.storage == storage {
			return true
		}
	}
	return false
}

func (w *world) healByJournal(promise func(bool, string, ...any)) {
	hand := newProcess("by hand")
	journals, err := engine.OpenJournals(context.Background(), w.catalog)
	promise(err == nil, "reading the journals: %v", err)
	for _, j := range journals {
		promise(j.Broken == nil, "journal of %s: %v", j.RunID, j.Broken)
		results := engine.LiftJournal(context.Background(), simClock{w, hand}, j, func(ctx context.Context, t engine.Target) (engine.AdminConn, error) {
			return simDialer{w: w, by: hand, owner: "hand"}.Dial(ctx, t)
		}, nil)
		err := engine.NoteLifted(context.Background(), simClock{w, hand}, w.catalog, j, results)
		promise(err == nil, "noting what was lifted by hand: %v", err)
	}
	for a, t := range w.all() {
		t.mu.Lock()
		promise(!t.closed || t.owner == "foreign", "%s is paused, and no journal names it", a)
		t.mu.Unlock()
	}
}

// checkCatalog: what exists is what the manifests name, and no journal is left.
func (w *world) checkCatalog(firstAvailable bool, promise func(bool, string, ...any)) {
	named := map[string]bool{}
	for _, name := range w.catalog.Names() {
		switch {
		case strings.HasPrefix(name, "journal/"):
			promise(false, "%s is left", name)
		case strings.HasSuffix(name, "/manifest.json"):
			m, err := engine.DecodeManifest(w.catalog.Peek(name))
			promise(err == nil, "%s: %v", name, err)
			for _, s := range m.Storages {
				for _, a := range s.Artifacts {
					named[a.ID] = true
				}
			}
		}
	}
	if firstAvailable {
		promise(slices.Contains(w.catalog.Names(), engine.ManifestName("b1")), "the manifest of an available backup is gone")
	}
	for id := range w.artifacts {
		promise(named[id], "artifact %s is left, and no manifest names it", id)
	}
	for id := range named {
		_, there := w.artifacts[id]
		promise(there, "a manifest names artifact %s, which is gone", id)
	}
}

// --- a provider with its watchdog --------------------------------------------

type provider struct {
	w        *world
	process  *process
	watchdog *simWatchdog
	engine   *engine.Engine
	sick     *atomic.Bool
	// fixedClocks: the storages' clocks show no step of ours.
	fixedClocks bool
}

func (w *world) provider(name string, sick *atomic.Bool) *provider {
	n := w.runs.Add(1)
	p := &provider{w: w, process: newProcess(name), sick: sick}
	p.watchdog = &simWatchdog{w: w, parent: p.process, process: newProcess(name + "'s watchdog")}
	clock := simClock{w, p.process}
	catalog := gatedCatalog{w.catalog, p.process}
	runs := 0
	p.engine = &engine.Engine{
		Clock: clock, Catalog: catalog, Watchdog: p.watchdog,
		Locker:   lock.Locker{Catalog: catalog, Clock: clock, Name: "lock.json", Holder: name},
		Reporter: reporter{w, name},
		NewRunID: func() string { runs++; return fmt.Sprintf("%014d%02d", n, runs) },
		Holder:   name, Version: "sim",
		Artifacts: func(context.Context, string, engine.JournalStorage) (engine.ArtifactStore, error) {
			return simStore{w, p.process}, nil
		},
		Alive: func(holder string) (bool, bool) { return holder == name, true },
	}
	return p
}

func (p *provider) request(name string) engine.BackupRequest {
	w := p.w
	owner := p.process.name
	q := engine.BackupRequest{
		Name: name, WindowOnly: w.plan.windowOnly, Unpauser: func(id string) string { return "unpause " + id },
		Pause: engine.PauseSettings{Drain: w.plan.drain, Min: w.plan.min, Max: 30 * time.Second},
		Groups: map[string]engine.Group{"main": {
			Resolver: simResolver{w, p.process}, Dialer: simDialer{w: w, by: p.process, owner: owner, sick: p.sick.Load()},
		}},
		Storages: map[string]engine.StorageRequest{},
	}
	for i := range w.plan.storages {
		q.Storages[storageName(i)] = engine.StorageRequest{Driver: "sim", Source: simSource{w: w, by: p.process, name: storageName(i), sick: p.sick.Load(), fixed: p.fixedClocks}}
	}
	return q
}

type reporter struct {
	w    *world
	name string
}

func (r reporter) Report(_ context.Context, e engine.Event) {
	if e.Message == "phase begins" {
		r.w.mu.Lock()
		switch e.Phase {
		case engine.PhaseCapture:
			r.w.opened[r.name] = time.Now()
		case engine.PhaseConfirm:
			r.w.closed[r.name] = time.Now()
		}
		r.w.mu.Unlock()
	}
	r.w.log("%s: %s %s %s %v", r.name, e.Phase, e.Subject, e.Message, e.Err)
}

// gatedCatalog is the catalog as one process reaches it.
type gatedCatalog struct {
	engine.Catalog
	by *process
}

func (c gatedCatalog) Create(ctx context.Context, name string, data []byte) error {
	if err := c.by.gate(ctx); err != nil {
		return err
	}
	return c.Catalog.Create(ctx, name, data)
}

func (c gatedCatalog) Replace(ctx context.Context, name string, data []byte, old engine.Version) (engine.Version, error) {
	if err := c.by.gate(ctx); err != nil {
		return "", err
	}
	return c.Catalog.Replace(ctx, name, data, old)
}

func (c gatedCatalog) Read(ctx context.Context, name string) ([]byte, engine.Version, error) {
	if err := c.by.gate(ctx); err != nil {
		return nil, "", err
	}
	return c.Catalog.Read(ctx, name)
}

func (c gatedCatalog) List(ctx context.Context, prefix string) ([]engine.ObjectInfo, error) {
	if err := c.by.gate(ctx); err != nil {
		return nil, err
	}
	return c.Catalog.List(ctx, prefix)
}

func (c gatedCatalog) Delete(ctx context.Context, name string) error {
	if err := c.by.gate(ctx); err != nil {
		return err
	}
	return c.Catalog.Delete(ctx, name)
}

// simWatchdog starts the product's own watchdog, in the same virtual time. Its process lives on when the provider is killed; the end of
// the provider is the end of its pipes.
type simWatchdog struct {
	w       *world
	parent  *process
	process *process
	// claimFired makes it say that it fired.
	claimFired atomic.Bool
}

// Arm implements engine.Watchdog.
func (d *simWatchdog) Arm(ctx context.Context, o engine.WatchdogOrder) (engine.Armed, error) {
	if err := d.parent.gate(ctx); err != nil {
		return nil, err
	}
	in := watchdog.InProcess{
		Clock: simClock{d.w, d.parent}, Own: simClock{d.w, d.process},
		Spec: watchdog.Spec{Groups: map[string]json.RawMessage{"main": json.RawMessage("{}")}, Catalog: watchdog.CatalogSpec{Directory: "/sim"}},
		Openers: watchdog.Openers{
			Dialer: func(json.RawMessage) (engine.Dialer, error) {
				return simDialer{w: d.w, by: d.process, owner: d.parent.name}, nil
			},
			Catalog: func(watchdog.CatalogSpec) (engine.Catalog, error) { return gatedCatalog{d.w.catalog, d.process}, nil },
		},
		Started: func(i *watchdog.Inmate) {
			d.w.bg.Go(func() {
				select {
				case <-d.parent.died:
					d.w.log("%s: the pipe ends", d.process.name)
					i.Sever()
				case <-i.Ended():
				}
			})
			d.w.bg.Go(func() {
				select {
				case <-d.process.died:
					i.Kill()
				case <-i.Ended():
				}
			})
		},
	}
	armed, err := in.Arm(ctx, o)
	if err != nil {
		return nil, err
	}
	return gatedArmed{armed, d.parent, &d.claimFired}, nil
}

// gatedArmed is a watchdog as its parent reaches it: not at all while that one is stopped or dead.
type gatedArmed struct {
	engine.Armed
	by         *process
	claimFired *atomic.Bool
}

func (a gatedArmed) Sending(ctx context.Context) error {
	if err := a.by.gate(ctx); err != nil {
		return err
	}
	return a.Armed.Sending(ctx)
}

func (a gatedArmed) Record(t engine.Target, o engine.Ownership) {
	if a.by.gate(context.Background()) == nil {
		a.Armed.Record(t, o)
	}
}

func (a gatedArmed) Fired(ctx context.Context) (bool, error) {
	if err := a.by.gate(ctx); err != nil {
		return true, err
	}
	if a.claimFired.Load() {
		return true, nil
	}
	return a.Armed.Fired(ctx)
}

func (a gatedArmed) Lifted(ctx context.Context) error {
	if err := a.by.gate(ctx); err != nil {
		return err
	}
	return a.Armed.Lifted(ctx)
}

func (a gatedArmed) Close(ctx context.Context) error {
	if err := a.by.gate(ctx); err != nil {
		return err
	}
	return a.Armed.Close(ctx)
}
