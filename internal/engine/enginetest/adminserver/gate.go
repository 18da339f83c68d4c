package adminserver

import (
	"context"
	"sync"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

// gateChange is what a gate tells its server. Those that open it are the words of Interval.Ended.
type gateChange string

const (
	gateClosed      gateChange = "closed"
	gateDrained     gateChange = "drained"
	openedByUnpause gateChange = "unpause"
	openedByTimeout gateChange = "timeout"
	openedByRestart gateChange = "restart"
)

// outcome is the result of a Modern Pause, and the reason of its ErrorInfo.
type outcome string

const (
	paused              outcome = "PAUSED"
	timedOut            outcome = "TIMED_OUT"
	timedOutStillPaused outcome = "TIMED_OUT_STILL_PAUSED"
	gateOpen            outcome = "GATE_OPEN"
	pauseInProgress     outcome = "PAUSE_IN_PROGRESS"
)

// gate is what transactions pass through in one life of a server.
type gate struct {
	ctx    context.Context // of the life
	clock  engine.Clock
	record func(gateChange)

	mu       sync.Mutex
	open     bool
	dead     bool
	inFlight int
	pausing  bool          // a Modern Pause has its turn
	changed  chan struct{} // closed, and replaced, at every change
}

// notify wakes those who wait. The caller holds mu.
func (g *gate) notify() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// await waits until done() holds, at most for d, and says whether it does. The caller holds mu, which is free while it waits.
func (g *gate) await(d time.Duration, done func() bool) bool {
	if done() || d <= 0 {
		return done()
	}
	ctx, cancel := g.clock.WithTimeout(g.ctx, d)
	defer cancel()
	return g.awaitContext(ctx, done)
}

func (g *gate) awaitContext(ctx context.Context, done func() bool) bool {
	for !done() {
		if ctx.Err() != nil {
			return false
		}
		changed := g.changed
		g.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		g.mu.Lock()
	}
	return true
}

func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.open || g.dead {
		return false
	}
	g.inFlight++
	return true
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inFlight--
	if g.inFlight == 0 && !g.open {
		g.record(gateDrained)
	}
	g.notify()
}

func (g *gate) closed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.open
}

func (g *gate) outstanding() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.inFlight
}

// shut closes the gate and says whether it was open. The caller holds mu.
func (g *gate) shut() bool {
	if !g.open || g.dead {
		return false
	}
	g.open = false
	g.record(gateClosed)
	if g.inFlight == 0 {
		g.record(gateDrained)
	}
	g.notify()
	return true
}

// unshut opens the gate. The caller holds mu.
func (g *gate) unshut(by gateChange) {
	if g.open || g.dead {
		return
	}
	g.open = true
	g.record(by)
	g.notify()
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut()
}

func (g *gate) reopen(by gateChange) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.unshut(by)
}

// die ends the life: nothing changes any more.
func (g *gate) die() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.unshut(openedByRestart)
	g.dead, g.inFlight = true, 0
}

// closeAndDrain is the Classic Pause.
func (g *gate) closeAndDrain(wait time.Duration) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut()
	// It does not look whether the gate still is closed, nor whose closure it undoes.
	if g.await(wait, func() bool { return g.inFlight == 0 }) {
		return true
	}
	g.unshut(openedByTimeout)
	return false
}

// tryClose is the Modern Pause that does not wait.
func (g *gate) tryClose() outcome {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.pausing {
		return pauseInProgress
	}
	g.shut()
	return paused
}

// pauseInTurn is the Modern Pause that waits; wait covers both its turn and the drain.
func (g *gate) pauseInTurn(wait time.Duration) outcome {
	ctx, cancel := g.clock.WithTimeout(g.ctx, wait)
	defer cancel()
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.awaitContext(ctx, func() bool { return !g.pausing }) {
		return pauseInProgress
	}
	g.pausing = true
	defer func() {
		g.pausing = false
		g.notify()
	}()
	mine := g.shut()
	g.awaitContext(ctx, func() bool { return g.open || g.inFlight == 0 })
	switch {
	case g.open:
		return gateOpen
	case g.inFlight == 0:
		return paused
	case mine:
		g.unshut(openedByTimeout)
		return timedOut
	default:
		return timedOutStillPaused
	}
}
