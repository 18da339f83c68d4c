package upload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
)

// lane is the way to one node and back.
type lane struct {
	name   string // for messages
	files  node.Files
	clock  engine.Clock
	limit  limiter
	report func(message string, fields map[string]any)

	mu      sync.Mutex
	figures Figures
}

func (s *Store) lane(name string, files node.Files) *lane {
	return &lane{name: name, files: files, clock: s.Clock, report: s.report, limit: limiter{clock: s.Clock, rate: s.BytesPerSecond}}
}

func (l *lane) count(f Figures) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.figures.add(f)
}

func (l *lane) total() Figures {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.figures
}

// rest waits before another try.
func (l *lane) rest(ctx context.Context, doing string, failures int, err error) error {
	delay := backOff(failures)
	l.report(doing+" failed; trying again", map[string]any{"node": l.name, "error": err.Error(), "delay": delay.String()})
	return l.clock.Sleep(ctx, delay)
}

// pull reads a file of the node, which must have exactly size bytes. A transfer that breaks goes on from where it was, for as long as there is progress.
func (l *lane) pull(ctx context.Context, path string, size int64, to io.Writer) error {
	var offset int64
	for failures := 0; ; {
		n, err := l.stretch(ctx, path, offset, size, to)
		offset += n
		if err == nil || !isBroken(err) || ctx.Err() != nil {
			return err
		}
		if n > 0 {
			failures = 0
		}
		if failures++; failures == maxTries {
			return err
		}
		if err := l.rest(ctx, "reading "+path, failures, err); err != nil {
			return err
		}
	}
}

// guard ends what is opened under its context, with it, and when one call takes too long.
type guard struct {
	lane   *lane
	ctx    context.Context
	cancel context.CancelCauseFunc
}

var errStalled = fmt.Errorf("it did not move for %s", stallAfter)

func (l *lane) guard(ctx context.Context) *guard {
	g := &guard{lane: l}
	g.ctx, g.cancel = context.WithCancelCause(ctx)
	return g
}

// do makes one call.
func (g *guard) do(f func() (int, error)) (int, error) {
	timer, stop := g.lane.clock.WithTimeout(g.ctx, stallAfter)
	defer stop()
	defer context.AfterFunc(timer, func() {
		if errors.Is(timer.Err(), context.DeadlineExceeded) {
			g.cancel(errStalled)
		}
	})()
	n, err := f()
	if err == nil || errors.Is(err, io.EOF) {
		return n, err
	}
	if cause := context.Cause(g.ctx); errors.Is(cause, errStalled) {
		err = &brokenError{errStalled}
	} else if cause != nil {
		err = cause
	}
	return n, broken(err)
}

// stretch reads from offset on until the end or a failure, and says how much of it was written.
func (l *lane) stretch(ctx context.Context, path string, offset, size int64, to io.Writer) (done int64, err error) {
	g := l.guard(ctx)
	defer g.cancel(nil)
	from, err := l.files.Open(g.ctx, path, offset)
	if err != nil {
		return 0, broken(err)
	}
	defer func() { _ = from.Close() }() // only read
	buf := make([]byte, min(int64(l.limit.chunk()), size-offset+1))
	for {
		n, err := g.do(func() (int, error) { return from.Read(buf) })
		left := size - offset - done
		if int64(n) > left {
			return done, fmt.Errorf("it is longer than the %d bytes that it had: it changed, which a file of a snapshot never does", size)
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return done, err
			}
			done += int64(n)
			if err := l.limit.wait(ctx, n); err != nil {
				return done, err
			}
		}
		switch {
		case errors.Is(err, io.EOF) && offset+done == size:
			return done, nil
		case errors.Is(err, io.EOF):
			return done, &brokenError{fmt.Errorf("it ended after %d of %d bytes: it was cut short, or the transfer was", offset+done, size)}
		case err != nil:
			return done, err
		}
	}
}

// push writes all of from to a file of the node that was created under g, and to h.
func (g *guard) push(from io.Reader, to, h io.Writer) (done int64, err error) {
	buf := make([]byte, g.lane.limit.chunk())
	for {
		n, err := from.Read(buf)
		if n > 0 {
			_, _ = h.Write(buf[:n]) // never fails
			if _, err := g.do(func() (int, error) { return to.Write(buf[:n]) }); err != nil {
				return done, err
			}
			done += int64(n)
			if err := g.lane.limit.wait(g.ctx, n); err != nil {
				return done, err
			}
		}
		if errors.Is(err, io.EOF) {
			return done, nil
		}
		if err != nil {
			return done, broken(err)
		}
	}
}
