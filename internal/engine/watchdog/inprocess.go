package watchdog

import (
	"context"
	"io"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

// InProcess runs watchdogs in this process, for tests and simulations. It implements engine.Watchdog.
type InProcess struct {
	Clock   engine.Clock // of the parent
	Own     engine.Clock // of the watchdog; nil: the parent's
	Spec    Spec
	Openers Openers
	System  System // nil: custody is kept, and nothing ended
	// Started, if set, is told of each watchdog before it is armed.
	Started func(*Inmate)
}

var _ engine.Watchdog = InProcess{}

// Inmate is one watchdog of InProcess.
type Inmate struct {
	in    *io.PipeReader
	inW   *io.PipeWriter
	out   *io.PipeWriter
	outR  *io.PipeReader
	kill  context.CancelFunc
	ended chan struct{}
	err   error
}

// Sever is the parent's death, as the watchdog sees it: its pipes end.
func (i *Inmate) Sever() {
	_ = i.inW.Close()
	_ = i.outR.Close()
}

// Kill is the watchdog's death.
func (i *Inmate) Kill() {
	i.kill()
	<-i.ended
}

// Ended is closed when the watchdog is no more.
func (i *Inmate) Ended() <-chan struct{} { return i.ended }

// Err is what Run returned. It is read after Ended.
func (i *Inmate) Err() error { return i.err }

// Arm starts and arms one.
func (p InProcess) Arm(ctx context.Context, o engine.WatchdogOrder) (engine.Armed, error) {
	own := p.Own
	if own == nil {
		own = p.Clock
	}
	run, kill := context.WithCancel(context.WithoutCancel(ctx))
	i := &Inmate{kill: kill, ended: make(chan struct{})}
	i.in, i.inW = io.Pipe()
	i.outR, i.out = io.Pipe()
	go func() {
		defer close(i.ended)
		defer kill()
		i.err = Run(run, Config{Clock: own, In: i.in, Out: i.out, Openers: p.Openers, System: p.System})
		// As the end of a process would.
		_ = i.in.Close()
		_ = i.out.Close()
	}()
	if p.Started != nil {
		p.Started(i)
	}
	c, err := newClient(ctx, p.Clock, i.inW, i.outR, i.ended, orderOf(o, p.Spec))
	if err != nil {
		i.Kill()
		return nil, err // not c: a nil *Client is no nil engine.Armed
	}
	return c, nil
}
