package engine_test

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/memcatalog"
)

// world is a seeded random world for one simulation: targets that drain, restart, lag, lie and disappear, storages that fail or hang at any step,
// writers behind everybody's back, clocks that step, and a provider that is stopped or killed. It runs in virtual time (testing/synctest).
//
// What it is not: the targets are a model of the observed behaviour of a Scalar DB server (acceptance tests have the real one), and the
// witness of its storages is perfect.
type world struct {
	seed  uint64
	plan  worldPlan
	start time.Time

	catalog *memcatalog.Catalog

	mu        sync.Mutex
	targets   map[string]*simTarget
	members   []string // addresses that resolve now
	artifacts map[string]string
	rogue     []rogueWrite
	trace     []string
	captures  []captureAt
	clockStep []stepAt
	opened    map[string]time.Time // by provider: when its window really opened
	closed    map[string]time.Time
	runs      atomic.Int64
	pauses    atomic.Int64
	background
}

// background counts what goes on behind the provider, so that a simulation ends only when all of it has.
type background struct{ bg sync.WaitGroup }

type rogueWrite struct {
	storage string
	at      time.Time
}

type captureAt struct {
	run, storage string
	at           time.Time
}

type stepAt struct {
	at time.Time
	by time.Duration
}

// worldPlan is what goes wrong, drawn from the seed before anything runs.
type worldPlan struct {
	targets, storages int
	kubernetes        bool // incarnations are known to the resolver
	needsInstant      bool
	windowOnly        bool
	min, drain        time.Duration
	// Everything below happens to the first run only; the second finds a healthy world.
	latency     time.Duration      // of every call, at most
	trouble     []trouble          // at points of time after the first run begins
	failing     map[string]string  // storage/step to "error", "hang", "effect" (an error after it took effect)
	pauseFault  map[string]string  // target to "lose", "delay", "lie", "refuse", "abort"
	slowDrain   map[string]bool    // never drains in time
	slowConfirm time.Duration      // of a storage
	foreign     string             // target that somebody else paused before the run
	catalogFail map[string]float64 // operation to probability
	deafLift    map[string]time.Duration
	killPhase   engine.Phase // kill the provider on entry, after killDelay
	killDelay   time.Duration
	machine     bool // the watchdog dies with it
	cancelPhase engine.Phase
	cancelDelay time.Duration
	stopPhase   engine.Phase // SIGSTOP
	stopDelay   time.Duration
	stopFor     time.Duration
}

type trouble struct {
	after  time.Duration
	kind   string // "restart", "appear", "disappear", "rogue", "step", "unpause", "break", "foreign"
	target int
	by     time.Duration
}

// chance is a number in [0, n) that depends on the seed, on who asks for what, and on when: not on the order in which
// goroutines that run at the same instant ask, so that a seed always gives the same story.
func (w *world) chance(n int64, who ...string) int64 {
	h := fnv.New64a()
	fmt.Fprint(h, w.seed, time.Since(w.start), who)
	return int64(rand.New(rand.NewPCG(w.seed, h.Sum64())).Uint64N(uint64(n)))
}

func (w *world) log(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trace = append(w.trace, fmt.Sprintf("%12s ", time.Since(w.start))+fmt.Sprintf(format, args...))
}

// draw makes the plan.
func draw(seed uint64) worldPlan {
	r := rand.New(rand.NewPCG(seed, 17))
	chance := func(p float64) bool { return r.Float64() < p }
	upTo := func(d time.Duration) time.Duration { return time.Duration(r.Int64N(int64(d) + 1)) }
	p := worldPlan{
		targets: 1 + r.IntN(4), storages: 1 + r.IntN(3), kubernetes: chance(0.5), needsInstant: chance(0.4), windowOnly: chance(0.1),
		min: upTo(3 * time.Second), drain: time.Second + upTo(9*time.Second), latency: time.Millisecond + upTo(20*time.Millisecond),
		failing: map[string]string{}, pauseFault: map[string]string{}, slowDrain: map[string]bool{}, catalogFail: map[string]float64{}, deafLift: map[string]time.Duration{},
	}
	if chance(0.1) {
		p.slowConfirm = upTo(10 * time.Second)
	}
	if chance(0.15) {
		return p // a healthy world must give a backup
	}
	phase := func() engine.Phase { return engine.Phases()[r.IntN(9)] }
	if chance(0.25) {
		p.killPhase, p.killDelay, p.machine = phase(), upTo(400*time.Millisecond), chance(0.3)
		if chance(0.3) {
			p.killDelay = 0
		}
	}
	if chance(0.2) {
		p.cancelPhase, p.cancelDelay = phase(), upTo(400*time.Millisecond)
	}
	if chance(0.15) {
		p.stopPhase, p.stopDelay, p.stopFor = phase(), upTo(400*time.Millisecond), upTo(40*time.Second)
	}
	for i := range p.targets {
		a := address(i)
		if chance(0.12) {
			p.pauseFault[a] = []string{"lose", "delay", "lie", "refuse", "abort"}[r.IntN(5)]
		}
		if chance(0.05) {
			p.slowDrain[a] = true
		}
		if chance(0.05) {
			p.deafLift[a] = upTo(20 * time.Second)
		}
	}
	for i := range p.storages {
		for _, s := range []string{"preflight", "capture", "confirm", "await", "discard", "clock"} {
			if chance(0.03) {
				p.failing[storageName(i)+"/"+s] = []string{"error", "hang", "effect"}[r.IntN(3)]
			}
		}
	}
	for n := r.IntN(3); n > 0; n-- {
		p.trouble = append(p.trouble, trouble{
			after: upTo(6 * time.Second), kind: []string{"restart", "appear", "disappear", "rogue", "step", "unpause", "break", "foreign"}[r.IntN(8)],
			target: r.IntN(p.targets), by: upTo(20*time.Second) - 10*time.Second,
		})
	}
	if chance(0.1) {
		p.foreign = address(r.IntN(p.targets))
	}
	if chance(0.1) {
		p.catalogFail[[]string{"create", "replace", "read", "list", "stat", "delete"}[r.IntN(6)]] = 0.3
	}
	return p
}

func address(i int) string     { return fmt.Sprintf("10.0.0.%d:60051", i+1) }
func storageName(i int) string { return string(rune('a' + i)) }

// --- targets ---------------------------------------------------------------

// simTarget is one Scalar DB server: a gate with transactions in flight.
type simTarget struct {
	w       *world
	address string

	mu          sync.Mutex
	restarts    int
	down        bool
	closed      bool   // the gate: what CheckPaused says
	drained     bool   // nothing in flight
	owner       string // of the pause: a run id, or "foreign"
	reopened    chan struct{}
	busyFor     time.Duration
	history     []quiet
	foreignHeld bool // somebody else paused it while nobody else had
}

// quiet is a change of whether the target can admit a write.
type quiet struct {
	at    time.Time
	quiet bool
}

func (t *simTarget) note() { // with mu
	q := t.closed && t.drained && !t.down
	if n := len(t.history); n == 0 || t.history[n-1].quiet != q {
		t.history = append(t.history, quiet{time.Now(), q})
	}
}

var errDown = errors.New("connection refused")

// pause is the server's side: it goes on whatever the client does.
func (t *simTarget) pause(owner string, drain time.Duration, fault string) (engine.PauseOutcome, error) {
	t.mu.Lock()
	if t.down {
		t.mu.Unlock()
		return engine.PauseNotSent, errDown
	}
	switch fault {
	case "refuse":
		t.mu.Unlock()
		return engine.PauseRefused, errors.New("FAILED_PRECONDITION")
	case "lie":
		t.mu.Unlock()
		return "", nil
	case "abort":
		if t.w.chance(3, "abort", t.address) > 0 {
			t.mu.Unlock()
			return engine.PauseAborted, errors.New("ABORTED")
		}
	}
	if !t.closed {
		t.closed, t.drained, t.owner = true, t.busyFor == 0, owner
		t.reopened = make(chan struct{})
		t.foreignHeld = owner == "foreign"
	} else if t.owner != owner {
		t.foreignHeld = false // two pauses on one gate: whose Unpause comes first lifts both
	}
	t.note()
	reopened, restarts, busy := t.reopened, t.restarts, t.busyFor
	t.mu.Unlock()
	if busy > 0 {
		select {
		case <-reopened:
			return "", nil // unpaused while it drained: OK, and not paused
		case <-time.After(min(busy, drain)):
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.restarts != restarts || t.reopened != reopened {
		return "", nil
	}
	if busy > drain {
		t.open()
		return engine.PauseRefused, errors.New("FAILED_PRECONDITION: transactions in flight")
	}
	t.drained = true
	t.note()
	return "", nil
}

func (t *simTarget) open() { // with mu
	if t.closed {
		close(t.reopened)
		t.reopened = nil
	}
	t.closed, t.drained, t.owner, t.foreignHeld = false, false, "", false
	t.note()
}

func (t *simTarget) unpause() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.down {
		return errDown
	}
	t.open()
	return nil
}

func (t *simTarget) restart(downFor time.Duration) {
	t.mu.Lock()
	t.restarts++
	t.down = true
	t.open()
	t.mu.Unlock()
	time.Sleep(downFor)
	t.mu.Lock()
	t.down = false
	t.note()
	t.mu.Unlock()
}

// simConn is a client's connection, of a provider or of a watchdog.
type simConn struct {
	t       *simTarget
	by      *process
	owner   string
	latency time.Duration
	fault   string
	deaf    time.Time // no Unpause gets through before
	mu      sync.Mutex
	seen    int // restarts of the target when connected
	n       int
}

func (c *simConn) travel(ctx context.Context, way string) error {
	return sleep(ctx, time.Duration(1+c.t.w.chance(int64(c.latency), "travel", c.by.name, c.t.address, way)))
}

func (c *simConn) reconnect() error {
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	if c.t.down {
		return errDown
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen != c.t.restarts {
		c.seen = c.t.restarts
		c.n++
	}
	return nil
}

func (c *simConn) Pause(ctx context.Context, drain time.Duration) error {
	if err := c.by.gate(ctx); err != nil {
		return &engine.PauseError{Outcome: engine.PauseNotSent, Err: err}
	}
	if err := c.reconnect(); err != nil {
		return &engine.PauseError{Outcome: engine.PauseNotSent, Err: err}
	}
	there, back := time.Duration(1+c.t.w.chance(int64(c.latency), "there", c.t.address)), time.Duration(1+c.t.w.chance(int64(c.latency), "back", c.t.address))
	if c.fault == "delay" {
		there += time.Duration(c.t.w.chance(int64(drain), "delay", c.t.address))
	}
	c.t.w.log("%s Pause to %s", c.by.name, c.t.address)
	c.t.w.pauses.Add(1)
	type answer struct {
		err error
		o   engine.PauseOutcome
	}
	answers := make(chan answer, 1)
	c.t.w.bg.Go(func() { // the request is on its way, whatever becomes of the client
		time.Sleep(there)
		o, err := c.t.pause(c.owner, drain, c.fault)
		c.t.w.log("%s answers %s: %v", c.t.address, c.by.name, err)
		time.Sleep(back)
		if c.fault != "lose" {
			answers <- answer{err, o}
		}
	})
	deadline, cancel := context.WithTimeout(ctx, drain+10*time.Second)
	defer cancel()
	select {
	case a := <-answers:
		if err := c.by.gate(ctx); err != nil {
			return &engine.PauseError{Outcome: engine.PauseUnknown, Err: err}
		}
		if a.err != nil {
			return &engine.PauseError{Outcome: a.o, Err: a.err}
		}
		return nil
	case <-deadline.Done():
		return &engine.PauseError{Outcome: engine.PauseUnknown, Err: deadline.Err()}
	}
}

func (c *simConn) call(ctx context.Context, what string, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := c.by.gate(ctx); err != nil {
		return err
	}
	if err := c.travel(ctx, what); err != nil {
		return err
	}
	if err := c.reconnect(); err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	if err := c.travel(ctx, what); err != nil {
		return err
	}
	return c.by.gate(ctx)
}

func (c *simConn) CheckPaused(ctx context.Context) (paused bool, err error) {
	err = c.call(ctx, "check", func() error {
		c.t.mu.Lock()
		defer c.t.mu.Unlock()
		paused = c.t.closed
		return nil
	})
	return paused, err
}

func (c *simConn) Unpause(ctx context.Context) error {
	return c.call(ctx, "unpause", func() error {
		if time.Now().Before(c.deaf) {
			return errors.New("UNAVAILABLE: lost")
		}
		c.t.w.log("%s Unpause to %s", c.by.name, c.t.address)
		return c.t.unpause()
	})
}

func (c *simConn) Incarnation() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprintf("connection #%d", c.n)
}

func (c *simConn) Close() error { return nil }

// --- processes -------------------------------------------------------------

// process is a provider or a watchdog: it can be stopped and killed. What a killed one does has no effect any more.
type process struct {
	name string
	mu   sync.Mutex
	dead bool
	stop chan struct{} // closed when it goes on
	died chan struct{}
}

func newProcess(name string) *process { return &process{name: name, died: make(chan struct{})} }

var errKilled = errors.New("killed")

// gate is passed on the way out and on the way back of everything that a process does.
func (p *process) gate(ctx context.Context) error {
	for {
		p.mu.Lock()
		dead, stop := p.dead, p.stop
		p.mu.Unlock()
		if dead {
			return errKilled
		}
		if stop == nil {
			return ctx.Err()
		}
		select {
		case <-stop:
		case <-p.died:
		}
	}
}

func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.dead {
		p.dead = true
		close(p.died)
	}
}

func (p *process) suspend(d time.Duration) {
	p.mu.Lock()
	stop := make(chan struct{})
	p.stop = stop
	p.mu.Unlock()
	time.Sleep(d)
	p.mu.Lock()
	p.stop = nil
	p.mu.Unlock()
	close(stop)
}

func (p *process) alive() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.dead
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// simClock is a process's clock: it stands still for one that is stopped, and its wall clock may step.
type simClock struct {
	w  *world
	by *process
}

func (c simClock) Now() time.Time {
	_ = c.by.gate(context.Background())
	now := time.Now().Round(0)
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	for _, s := range c.w.clockStep {
		now = now.Add(s.by)
	}
	return now
}

func (c simClock) Boot() time.Duration {
	_ = c.by.gate(context.Background())
	return time.Hour + time.Since(c.w.start)
}

func (c simClock) Sleep(ctx context.Context, d time.Duration) error {
	if err := sleep(ctx, d); err != nil {
		return err
	}
	return c.by.gate(ctx)
}

func (c simClock) WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, d)
}

// --- storages --------------------------------------------------------------

type simSource struct {
	w     *world
	by    *process
	name  string
	sick  bool // the plan's faults apply
	fixed bool // its clock shows no step of ours
}

type simSession struct {
	simSource
	run    engine.Run
	opened time.Time
	ended  time.Time
}

// step is one step of a driver: it takes a while, and fails as planned, before or after its effect.
func (s simSource) step(ctx context.Context, name string, effect func()) error {
	if err := s.by.gate(ctx); err != nil {
		return err
	}
	fault := ""
	if s.sick {
		fault = s.w.plan.failing[s.name+"/"+name]
	}
	if fault == "error" {
		return errors.New("planned failure of " + name)
	}
	if fault == "hang" {
		// A driver that does not heed its context.
		time.Sleep(90 * time.Second)
	}
	if err := sleep(ctx, time.Duration(1+s.w.chance(int64(100*time.Millisecond), s.name, name))); err != nil {
		return err
	}
	if err := s.by.gate(ctx); err != nil {
		return err
	}
	effect()
	if fault == "effect" {
		return errors.New("planned failure of " + name + ", which took effect")
	}
	return s.by.gate(ctx)
}

func (s simSource) Preflight(ctx context.Context, run engine.Run) (engine.Session, error) {
	if err := s.step(ctx, "preflight", func() {}); err != nil {
		return nil, err
	}
	return &simSession{simSource: s, run: run}, nil
}

func (s simSource) OpenClock(context.Context) (engine.ClockSession, error) {
	return &simSession{simSource: s}, nil
}

func (s *simSession) artifact() engine.Artifact {
	return engine.Artifact{Kind: "sim", ID: s.name + "/" + s.run.ID}
}

func (s *simSession) Facts() engine.Facts {
	return engine.Facts{SourceID: s.name, Planned: []engine.Artifact{s.artifact()}, Witness: "perfect", NeedsInstant: s.w.plan.needsInstant, Granule: time.Second}
}

func (s *simSession) MeasureClock(ctx context.Context) (b engine.ClockBound, err error) {
	err = s.step(ctx, "clock", func() {
		b.Uncertainty = 10 * time.Millisecond
		s.w.mu.Lock()
		defer s.w.mu.Unlock()
		for _, c := range s.w.clockStep { // it is our clock that steps
			if !s.fixed {
				b.Offset -= c.by
			}
		}
	})
	return b, err
}

func (s *simSession) Capture(ctx context.Context) error {
	s.opened = time.Now()
	return s.step(ctx, "capture", func() {
		s.w.mu.Lock()
		s.w.artifacts[s.artifact().ID] = s.run.ID
		s.w.captures = append(s.w.captures, captureAt{s.run.ID, s.name, time.Now()})
		s.w.mu.Unlock()
		s.w.log("%s captures %s", s.by.name, s.name)
	})
}

func (s *simSession) witness() error {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	for _, x := range s.w.rogue {
		if x.storage == s.name && !x.at.Before(s.opened) && !x.at.After(s.ended) {
			return &engine.VoidError{Reason: "a write in the window"}
		}
	}
	return nil
}

func (s *simSession) Confirm(ctx context.Context) error {
	if err := sleep(ctx, s.w.plan.slowConfirm); err != nil {
		return err
	}
	return s.step(ctx, "confirm", func() { s.ended = time.Now() })
}

func (s *simSession) Await(ctx context.Context) (engine.Captured, error) {
	if err := s.witness(); err != nil {
		return engine.Captured{}, err
	}
	if err := sleep(ctx, time.Duration(s.w.chance(int64(30*time.Second), s.name, "copy"))); err != nil {
		return engine.Captured{}, err
	}
	err := s.step(ctx, "await", func() {})
	return engine.Captured{Artifacts: []engine.Artifact{s.artifact()}}, err
}

func (s *simSession) Discard(ctx context.Context) error {
	return s.step(ctx, "discard", func() {
		s.w.mu.Lock()
		delete(s.w.artifacts, s.artifact().ID)
		s.w.mu.Unlock()
		s.w.log("%s discards %s", s.by.name, s.name)
	})
}

func (s *simSession) Close() error { return nil }

// simStore deletes artifacts by their record.
type simStore struct {
	w  *world
	by *process
}

func (s simStore) Inspect(_ context.Context, a engine.Artifact) error {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	if _, ok := s.w.artifacts[a.ID]; !ok {
		return engine.ErrNotFound
	}
	return nil
}

func (s simStore) Delete(ctx context.Context, a engine.Artifact) error {
	if err := s.by.gate(ctx); err != nil {
		return err
	}
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	delete(s.w.artifacts, a.ID)
	return nil
}

// --- resolver, dialer ------------------------------------------------------

type simResolver struct {
	w  *world
	by *process
}

func (r simResolver) Resolve(ctx context.Context) ([]engine.Target, error) {
	if err := r.by.gate(ctx); err != nil {
		return nil, err
	}
	// It takes a while, like everything: two things at one instant would make a seed's story a matter of luck.
	if err := sleep(ctx, time.Duration(1+r.w.chance(int64(5*time.Millisecond), "resolve", r.by.name))); err != nil {
		return nil, err
	}
	r.w.mu.Lock()
	members := slices.Clone(r.w.members)
	r.w.mu.Unlock()
	var found []engine.Target
	for _, a := range members {
		t := r.w.target(a)
		x := engine.Target{Address: a, Name: a}
		if r.w.plan.kubernetes {
			t.mu.Lock()
			x.Incarnation = fmt.Sprintf("uid-%s/%d", strings.TrimSuffix(a, ":60051"), t.restarts)
			t.mu.Unlock()
		}
		found = append(found, x)
	}
	return found, nil
}

func (w *world) target(a string) *simTarget {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.targets[a]
}

type simDialer struct {
	w     *world
	by    *process
	owner string
	sick  bool
}

func (d simDialer) Dial(ctx context.Context, t engine.Target) (engine.AdminConn, error) {
	if err := d.by.gate(ctx); err != nil {
		return nil, err
	}
	target := d.w.target(t.Address)
	c := &simConn{t: target, by: d.by, owner: d.owner, latency: d.w.plan.latency}
	if d.sick {
		c.fault = d.w.plan.pauseFault[t.Address]
	}
	if deaf := d.w.plan.deafLift[t.Address]; deaf > 0 {
		c.deaf = d.w.start.Add(deaf)
	}
	target.mu.Lock()
	c.seen = target.restarts
	down := target.down
	target.mu.Unlock()
	if down {
		return nil, errDown
	}
	return c, nil
}
