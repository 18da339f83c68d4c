package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// LiftOptions are what Lift needs beside the records.
type LiftOptions struct {
	// Dial connects to a target anew.
	Dial func(ctx context.Context, t Target) (AdminConn, error)
	// Conn returns a connection that is open already, or nil. Lift does not close it.
	Conn func(t Target) AdminConn
	// Drain is the drain timeout that the Pauses were sent with: so long may an unanswered one still land.
	Drain time.Duration
	// LookFirst leaves a target alone that is not paused when it is first looked at (for the pause of a run long dead).
	LookFirst bool
	// Progress, if set, is told of every failed try and of every target that is done.
	Progress func(t Target, message string, err error)
}

// LiftResult is what became of one target.
type LiftResult struct {
	Target     Target
	Lifted     bool      // confirmed unpaused by CheckPaused after an Unpause of ours
	UnpausedAt time.Time // the first such confirmation
	Foreign    bool      // paused by somebody else; not lifted
	Err        error     // why it is not known to be unpaused
}

// Back-off of Lift between tries on one target.
const (
	liftFirstDelay = 50 * time.Millisecond
	liftMaxDelay   = 2 * time.Second
)

// Lift unpauses every target that a Pause of this run was sent to, answered or not, all at once. It goes on, with back-off,
// until each one was confirmed unpaused and no Pause of ours can land any more, or until ctx ends. Targets that no Pause was
// sent to, and those that somebody else paused, are left as they are.
//
// A target that is found paused after it was unpaused, with every Pause of ours settled, is somebody else's: reported, not lifted.
func Lift(ctx context.Context, clock Clock, records []*PauseRecord, o LiftOptions) []LiftResult {
	results := make([]LiftResult, len(records))
	var wg sync.WaitGroup
	for i, r := range records {
		results[i].Target = r.Target
		switch r.Owner() {
		case Unsent:
			continue
		case Foreign:
			results[i].Foreign = true
			continue
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			l := lifter{clock: clock, record: r, options: o, result: &results[i]}
			l.run(ctx)
		}()
	}
	wg.Wait()
	return results
}

// lifter unpauses one target.
type lifter struct {
	clock   Clock
	record  *PauseRecord
	options LiftOptions
	result  *LiftResult
	cleared bool      // an Unpause that began with every Pause of ours settled was confirmed
	dialled AdminConn // made by us, closed by us
	conn    AdminConn
}

func (l *lifter) run(ctx context.Context) {
	defer func() {
		if l.dialled != nil {
			_ = l.dialled.Close() // nothing more is asked of it
		}
	}()
	if l.options.Conn != nil {
		l.conn = l.options.Conn(l.record.Target)
	}
	delay := liftFirstDelay
	for {
		done, err := l.try(ctx)
		if done {
			l.result.Err = nil
			l.progress("unpaused", nil)
			return
		}
		if err != nil {
			l.result.Err = err
			l.progress("unpausing; trying again", err)
			l.drop()
			delay = min(2*delay, liftMaxDelay)
		} else {
			delay = liftFirstDelay // unpaused, waiting for an unanswered Pause to be past
		}
		if l.clock.Sleep(ctx, delay) != nil {
			if err == nil && l.result.Lifted {
				l.result.Err = fmt.Errorf("%s was unpaused, but a Pause that got no answer may still land", l.record.Target.Address)
			}
			return
		}
	}
}

// try is one round: unpause unless it is known to be unpaused, and look. done is true when nothing is left to do.
func (l *lifter) try(ctx context.Context) (done bool, err error) {
	if l.conn == nil {
		c, err := l.options.Dial(ctx, l.record.Target)
		if err != nil {
			return false, err
		}
		l.conn, l.dialled = c, c
	}
	// Asked before the look: what settles in between is looked at once more.
	settled := l.record.settled(l.clock.Boot(), l.options.Drain)
	if l.result.Lifted {
		paused, err := l.conn.CheckPaused(ctx)
		if err != nil {
			return false, err
		}
		if !paused {
			return settled, nil
		}
		// Settled since our last Unpause, it may be our own Pause that landed late.
		if l.cleared {
			l.result.Foreign = true
			return true, nil
		}
	}
	if l.options.LookFirst && !l.result.Lifted {
		paused, err := l.conn.CheckPaused(ctx)
		if err != nil {
			return false, err
		}
		if !paused {
			return true, nil
		}
	}
	if err := l.conn.Unpause(ctx); err != nil {
		return false, err
	}
	paused, err := l.conn.CheckPaused(ctx)
	if err != nil {
		return false, err
	}
	if paused {
		if settled {
			// It took our Unpause and is paused again at once, which no Pause of ours can have done. Seen twice, it is somebody else's.
			if l.result.Foreign {
				return true, nil
			}
			l.result.Foreign = true
		}
		return false, errors.New("the target answered OK to Unpause and is still paused")
	}
	l.result.Foreign, l.cleared = false, settled
	if !l.result.Lifted {
		l.result.Lifted, l.result.UnpausedAt = true, l.clock.Now().UTC()
	}
	return settled, nil
}

// drop gives up a connection that failed. One that was lent to us is only forgotten.
func (l *lifter) drop() {
	if l.dialled != nil {
		_ = l.dialled.Close() // it failed already
		l.dialled = nil
	}
	l.conn = nil
}

func (l *lifter) progress(message string, err error) {
	if l.options.Progress != nil {
		l.options.Progress(l.record.Target, message, err)
	}
}
