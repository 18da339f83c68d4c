// Package watchdog is the process that ends a pause when the run that began it cannot.
//
// It is started, and has reached every target on connections of its own, before the first Pause is sent. From then on it fires when the pipe to its
// parent closes (the parent died), when max_duration has passed since the first Pause, or when the parent gives up: it unpauses every
// target that a Pause was or may have been sent to, and goes on until each is confirmed. What fired has fired for ever, and the parent asks before it claims anything.
// When the parent is gone it also ends the run's child processes, removes its secret files, and frees its lock.
//
// Run is all of its logic; Process (process.go) wraps it into a process of the operating system, Client (client.go) is the parent's side.
package watchdog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/lock"
)

// Spec is what a watchdog builds its own connections from. It holds secrets: it travels through the pipe only.
type Spec struct {
	// Groups are the settings of each target group's connections; Openers understand them.
	Groups  map[string]json.RawMessage `json:"groups,omitempty"`
	Catalog CatalogSpec                `json:"catalog"`
}

// CatalogSpec says where the catalog is. Empty: none, and nothing is logged.
type CatalogSpec struct {
	Directory string `json:"directory,omitempty"` // Process makes it absolute
	// S3 are the settings of a catalog in S3, with the secrets that it takes; Openers understand them.
	S3 json.RawMessage `json:"s3,omitempty"`
}

func (s CatalogSpec) none() bool { return s.Directory == "" && len(s.S3) == 0 }

// Openers build from a Spec. The settings that they get are those that the parent's Spec was made of.
type Openers struct {
	Dialer  func(settings json.RawMessage) (engine.Dialer, error)
	Catalog func(spec CatalogSpec) (engine.Catalog, error)
}

// Config is what Run needs.
type Config struct {
	Clock   engine.Clock
	In      io.Reader // messages of the parent; its end is the parent's death
	Out     io.Writer // answers
	Openers Openers
	System  System
}

const (
	checkTimeout = 10 * time.Second // for one target to answer when it is armed
	// tick is how often the boot clock is looked at: timers stand still while the machine is suspended.
	tick = time.Second
	// giveUp ends the work of a watchdog whose targets are gone for good, or whose catalog is.
	giveUp = 24 * time.Hour
	// logGiveUp is how long a log is tried to be written, and the lock to be freed, once there is nothing else to do.
	logGiveUp     = time.Hour
	lockTimeout   = 5 * time.Second
	retryFirst    = 500 * time.Millisecond
	retryMax      = 30 * time.Second
	removeTries   = 10
	removeBetween = 500 * time.Millisecond
)

// Run is one watchdog, from its order to its end. It returns nil when it did all that there was to do; ctx ends it at once, as its death would.
func Run(ctx context.Context, c Config) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := &watchdog{
		Config: c, ctx: ctx, messages: make(chan message), eof: make(chan error, 1),
		answers: make(chan message, 1000), due: make(chan struct{}, 1), results: make(chan liftResult), custody: map[uint64]message{},
	}
	written := make(chan struct{})
	go w.write(written)
	go w.read()
	err := w.run()
	close(w.answers)
	// The last answer must be out before the process ends; a parent that does not read must not keep it.
	wait, stop := c.Clock.WithTimeout(ctx, tick)
	defer stop()
	select {
	case <-written:
	case <-wait.Done():
	}
	return err
}

// watchdog is the state of one. All of it belongs to the goroutine of run; others talk to it through channels.
type watchdog struct {
	Config
	ctx      context.Context
	messages chan message
	eof      chan error // once: why there are no more messages
	answers  chan message
	due      chan struct{}   // max_duration has passed
	results  chan liftResult // one for each startLift

	order   order
	catalog engine.Catalog // nil without one
	dialers map[string]engine.Dialer
	targets []*watched

	sent     bool
	lifted   bool // by the parent, by its word
	closed   bool // the parent said goodbye
	orphaned bool // the parent is gone, or said goodbye with targets not lifted
	fired    bool

	goodbyeID uint64 // the goodbye that is still to be answered

	lifting    int // lifts that run
	stopLift   context.CancelFunc
	liftCtx    context.Context
	log        engine.WatchdogLog
	logger     *logger
	keeper     *keeper
	custody    map[uint64]message
	cleaned    chan error // the end of the clean-up of custody; nil before it began
	cleanError error
}

// watched is one target.
type watched struct {
	record  *engine.PauseRecord
	conn    engine.AdminConn // made when armed
	lifting bool
	// again: a Pause may have landed after we had lifted it.
	again  bool
	result *engine.LiftResult
}

type liftResult struct {
	target *watched
	result engine.LiftResult
}

func (w *watchdog) read() {
	err := lines(w.In, func(m message) bool {
		select {
		case w.messages <- m:
			return true
		case <-w.ctx.Done():
			return false
		}
	})
	w.eof <- err
}

// write sends the answers. A parent that is gone is no error.
func (w *watchdog) write(done chan<- struct{}) {
	defer close(done)
	for m := range w.answers {
		data, err := encode(m)
		if err != nil {
			continue // an answer is always encodable
		}
		if _, err := w.Out.Write(data); err != nil {
			for range w.answers { // nobody listens any more
			}
		}
	}
}

// answer never waits: a parent that stopped reading must not keep us from unpausing.
func (w *watchdog) answer(m message) {
	select {
	case w.answers <- m:
	default:
	}
}

func (w *watchdog) run() error {
	defer w.closeConns()
	if ok, err := w.awaitOrder(); !ok {
		return err
	}
	eof := w.eof
	for !w.finished() {
		select {
		case <-w.ctx.Done():
			return w.ctx.Err()
		case m := <-w.messages:
			w.handle(m)
		case err := <-eof:
			eof = nil
			w.parentGone(err)
		case <-w.due:
			w.fire(fmt.Sprintf("max_duration (%s) had passed since the first Pause", w.order.Max))
		case l := <-w.results:
			w.liftDone(l)
		case err := <-w.cleaned:
			w.cleaned, w.cleanError = nil, err
			w.noteCleaning()
		}
	}
	return w.finish()
}

// awaitOrder arms. ok is false when it ends here.
func (w *watchdog) awaitOrder() (ok bool, err error) {
	select {
	case <-w.ctx.Done():
		return false, w.ctx.Err()
	case err := <-w.eof:
		return false, err
	case m := <-w.messages:
		if m.Type != typeArm {
			return false, errors.New("the watchdog's first message is no order")
		}
		if err := w.arm(*m.Order); err != nil {
			w.answer(message{Type: typeRefused, ID: m.ID, Error: err.Error()})
			return false, err
		}
		w.answer(message{Type: typeArmed, ID: m.ID})
		return true, nil
	}
}

// arm proves that the watchdog could do its duty: it reaches the catalog and every target, and nobody has paused one.
func (w *watchdog) arm(o order) error {
	w.order, w.dialers = o, map[string]engine.Dialer{}
	w.log = engine.WatchdogLog{Version: 1, RunID: o.RunID}
	ctx, cancel := w.Clock.WithTimeout(w.ctx, checkTimeout)
	defer cancel()
	if !o.Spec.Catalog.none() {
		c, err := w.Openers.Catalog(o.Spec.Catalog)
		if err != nil {
			return err
		}
		if o.Log != "" {
			if _, err := c.Stat(ctx, o.Log); err != nil && !errors.Is(err, engine.ErrNotFound) {
				return fmt.Errorf("reaching the catalog: %w", err)
			}
		}
		w.catalog = c
	}
	for _, t := range o.Targets {
		if w.dialers[t.Group] == nil {
			d, err := w.Openers.Dialer(o.Spec.Groups[t.Group])
			if err != nil {
				return fmt.Errorf("preparing connections to the target group %s: %w", t.Group, err)
			}
			w.dialers[t.Group] = d
		}
		w.targets = append(w.targets, &watched{record: engine.NewPauseRecord(t)})
	}
	errs := make([]error, len(w.targets))
	var wg sync.WaitGroup
	for i, t := range w.targets {
		wg.Go(func() { errs[i] = w.armTarget(ctx, t) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (w *watchdog) armTarget(ctx context.Context, t *watched) error {
	conn, err := w.dial(ctx, t.record.Target)
	if err != nil {
		return err
	}
	t.conn = conn
	paused, err := conn.CheckPaused(ctx)
	if err != nil {
		return fmt.Errorf("asking %s whether it is paused: %w", t.record.Target.Address, err)
	}
	if paused {
		return fmt.Errorf("asking %s whether it is paused: it is, by somebody else", t.record.Target.Address)
	}
	return nil
}

func (w *watchdog) dial(ctx context.Context, t engine.Target) (engine.AdminConn, error) {
	return w.dialers[t.Group].Dial(ctx, t)
}

func (w *watchdog) closeConns() {
	for _, t := range w.targets {
		if t.conn != nil {
			_ = t.conn.Close() // nothing more is asked of it
		}
	}
}

func (w *watchdog) handle(m message) {
	switch m.Type {
	case typeSending:
		w.sending()
	case typeRecord:
		w.settle(*m.Target, engine.Ownership(m.Owner))
	case typeProcess, typeSecret:
		w.custody[m.Key] = m
	case typeDone:
		delete(w.custody, m.Key)
	case typeAsk:
	case typeLifted:
		w.parentLifted()
	case typeClose:
		w.goodbye()
	default:
		w.parentGone(fmt.Errorf("a message of type %s came from the parent", m.Type))
	}
	if m.Type == typeClose && !w.orphaned {
		w.goodbyeID = m.ID // answered when all is done
		return
	}
	if m.ID != 0 {
		w.answer(message{Type: typeAck, ID: m.ID, Fired: w.fired, Detached: w.orphaned})
	}
}

// sending starts the count of max_duration: from here on any target may be paused.
func (w *watchdog) sending() {
	boot := w.Clock.Boot()
	for _, t := range w.targets {
		t.record.Sending(boot)
	}
	if w.sent {
		return
	}
	w.sent = true
	go func() {
		for {
			left := boot + w.order.Max - w.Clock.Boot()
			if left <= 0 {
				w.due <- struct{}{}
				return
			}
			if w.Clock.Sleep(w.ctx, min(left, tick)) != nil {
				return
			}
		}
	}()
}

func (w *watchdog) settle(a address, o engine.Ownership) {
	for _, t := range w.targets {
		if addressOf(t.record.Target) == a {
			t.record.Settle(o)
			t.again = t.again || (t.result != nil && o == engine.Ours)
		}
	}
}

// parentLifted: whatever a lift of ours does from here on could only be to somebody else's pause.
func (w *watchdog) parentLifted() {
	w.lifted = true
	w.endLifts()
	if w.logger != nil {
		w.logger.stop() // the parent closes the journal, and the log with it
	}
}

func (w *watchdog) endLifts() {
	if w.stopLift != nil {
		w.stopLift()
	}
}

// goodbye is the end of the run in order, but for targets that it could not unpause.
func (w *watchdog) goodbye() {
	w.closed = true
	if w.sent && !w.lifted {
		w.orphaned = true
		w.fire("the run ended without having unpaused every target")
		w.liftAgain()
	}
	w.clean()
}

// parentGone is the parent's death, or what is no better.
func (w *watchdog) parentGone(err error) {
	if w.closed || w.orphaned {
		return
	}
	w.orphaned = true
	reason := "the run's process died"
	if err != nil {
		reason = "the run's process sent something unreadable: " + err.Error()
	}
	if w.sent && !w.lifted {
		w.fire(reason)
		w.liftAgain()
	}
	w.clean()
}

// fire begins to unpause. There is no way back.
func (w *watchdog) fire(reason string) {
	if w.fired || w.lifted || !w.sent {
		return
	}
	w.fired = true
	w.answer(message{Type: typeFired})
	w.log.FiredAt, w.log.Reason = w.Clock.Now().UTC(), reason
	w.liftCtx, w.stopLift = w.Clock.WithTimeout(w.ctx, giveUp)
	for _, t := range w.targets {
		w.startLift(t)
	}
	w.keepLock()
	if w.catalog != nil && w.order.Log != "" {
		w.logger = newLogger(w.ctx, w.Clock, w.catalog, w.order.Log)
		w.writeLog()
	}
}

// liftAgain is for a parent that went on after we fired (it was stopped for a while) and died or gave up only now: a Pause that it sent meanwhile
// may have landed after our Unpause. Once another run has the lock that is no longer our business.
func (w *watchdog) liftAgain() {
	boot := w.Clock.Boot()
	var again []*watched
	for _, t := range w.targets {
		if t.record.Owner() == engine.Unknown {
			t.record.Sending(boot) // a lift that runs goes on for as long
			t.again = t.again || t.result != nil
		}
		if t.again && !t.lifting {
			t.again = false
			again = append(again, t)
		}
	}
	if len(again) == 0 || w.anothersTurn() {
		return
	}
	w.keepLock()
	for _, t := range again {
		w.startLift(t)
	}
}

// anothersTurn says whether another run surely holds the lock.
func (w *watchdog) anothersTurn() bool {
	if w.catalog == nil || w.order.Lock.Name == "" {
		return false
	}
	ctx, cancel := w.Clock.WithTimeout(w.ctx, lockTimeout)
	defer cancel()
	runID, held, err := lock.HeldBy(ctx, w.catalog, w.order.Lock.Name)
	return err == nil && held && runID != w.order.RunID
}

// keepLock keeps other runs from pausing these targets before we are done with them.
func (w *watchdog) keepLock() {
	if w.catalog != nil && w.order.Lock.Name != "" && w.keeper == nil {
		w.keeper = newKeeper(w.ctx, w.Clock, w.catalog, w.order.Lock)
	}
}

func (w *watchdog) leaveLock() {
	if w.keeper != nil {
		w.keeper.leave()
		w.keeper = nil
	}
}

func (w *watchdog) startLift(t *watched) {
	t.lifting = true
	w.lifting++
	go func() {
		l := engine.Lift(w.liftCtx, w.Clock, []*engine.PauseRecord{t.record}, engine.LiftOptions{
			Dial: w.dial,
			Conn: func(engine.Target) engine.AdminConn { return t.conn },
			// Twice: the parent does not tell of a Pause that it sends again after ABORTED, at most one drain timeout after the first.
			Drain: 2 * w.order.Drain,
		})
		select {
		case w.results <- liftResult{t, l[0]}:
		case <-w.ctx.Done():
		}
	}()
}

func (w *watchdog) liftDone(l liftResult) {
	l.target.lifting = false
	w.lifting--
	l.target.result = &l.result
	if l.target.again && w.orphaned && !w.lifted {
		w.liftAgain()
	}
	w.writeLog()
	if w.lifting == 0 && !w.orphaned {
		w.leaveLock() // the parent lives, so the lock is its own again; if it is stopped for good, the lease passes
	}
}

// writeLog hands what is known by now to the logger.
func (w *watchdog) writeLog() {
	if w.logger == nil || w.lifted {
		return
	}
	log := w.log
	log.Done = true
	for _, t := range w.targets {
		entry := engine.WatchdogLogTarget{Target: t.record.Target}
		switch {
		case t.lifting || t.result == nil:
			log.Done = false
			entry.Error = "not unpaused yet"
		default:
			entry.Lifted, entry.Foreign, entry.UnpausedAt = t.result.Lifted, t.result.Foreign, t.result.UnpausedAt
			if t.result.Err != nil {
				log.Done = false
				entry.Error = t.result.Err.Error()
			}
		}
		log.Targets = append(log.Targets, entry)
	}
	w.logger.write(log)
}

// clean ends the run's child processes and removes its secret files.
func (w *watchdog) clean() {
	if w.cleaned != nil || w.System == nil || len(w.custody) == 0 {
		return
	}
	w.cleaned = make(chan error, 1)
	held := make([]message, 0, len(w.custody))
	for _, m := range w.custody {
		held = append(held, m)
	}
	clear(w.custody)
	go func() { w.cleaned <- w.cleanUp(held) }()
}

func (w *watchdog) cleanUp(held []message) error {
	slices.SortFunc(held, func(a, b message) int { return int(a.Key) - int(b.Key) })
	errs := make([]error, len(held))
	var wg sync.WaitGroup
	for i, m := range held {
		if m.Type == typeProcess {
			wg.Go(func() { errs[i] = w.System.Kill(w.ctx, m.PID, m.Start) })
		}
	}
	wg.Wait()
	// After the processes: they could write into a directory that is being removed.
	for i, m := range held {
		if m.Type != typeSecret {
			continue
		}
		for range removeTries {
			if errs[i] = w.System.Remove(m.Path); errs[i] == nil || w.Clock.Sleep(w.ctx, removeBetween) != nil {
				break
			}
		}
	}
	return errors.Join(errs...)
}

func (w *watchdog) noteCleaning() {
	if w.cleanError != nil && w.logger != nil {
		w.log.Reason += "; what the run left could not all be removed: " + w.cleanError.Error()
		w.writeLog()
	}
}

// finished says that there is nothing left to watch.
func (w *watchdog) finished() bool {
	return (w.closed || w.orphaned) && w.lifting == 0 && w.cleaned == nil
}

// finish is the last of it: the log first, so that whoever gets the lock next finds it.
func (w *watchdog) finish() error {
	ctx, cancel := w.Clock.WithTimeout(w.ctx, logGiveUp)
	defer cancel()
	errs := []error{w.cleanError}
	if w.logger != nil {
		errs = append(errs, w.logger.close(ctx))
	}
	w.leaveLock()
	if w.orphaned && w.catalog != nil && w.order.Lock.Name != "" {
		errs = append(errs, retry(ctx, w.Clock, func() error { return lock.ReleaseRef(ctx, w.catalog, w.order.Lock) }))
	}
	w.endLifts()
	if w.goodbyeID != 0 {
		w.answer(message{Type: typeAck, ID: w.goodbyeID, Fired: w.fired})
	}
	for _, t := range w.targets {
		if t.result != nil && t.result.Err != nil && !w.lifted {
			errs = append(errs, t.result.Err)
		}
	}
	return errors.Join(errs...)
}
