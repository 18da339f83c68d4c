package scalardb

import (
	"context"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/admin/adminpb"
)

// Interval is a span of time on this machine's wall clock.
type Interval struct{ From, To time.Time }

// Duration is its length.
func (i Interval) Duration() time.Duration { return i.To.Sub(i.From) }

// Watch asks a server every few milliseconds whether it is paused.
type Watch struct {
	cancel context.CancelFunc
	done   chan struct{}

	mu     sync.Mutex
	spans  []Interval // the last one is still open while paused is set
	paused bool
	denied []Interval // the questions that were answered with no, from asking to answer
}

// WatchPauses starts watching, until Stop or the end of the test.
func (s *System) WatchPauses(t testing.TB) *Watch {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &Watch{cancel: cancel, done: make(chan struct{})}
	conn := dial(t, s.Addr)
	go w.run(ctx, conn)
	t.Cleanup(func() { w.Stop() })
	return w
}

func (w *Watch) run(ctx context.Context, conn *grpc.ClientConn) {
	defer close(w.done)
	defer conn.Close()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	client := adminpb.NewAdminClient(conn)
	for {
		call, cancel := context.WithTimeout(ctx, 10*time.Second)
		asked := time.Now()
		r, err := client.CheckPaused(call, &emptypb.Empty{})
		cancel()
		if ctx.Err() != nil {
			return
		}
		w.saw(Interval{From: asked, To: time.Now()}, err == nil && r.GetPaused(), err != nil)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// saw notes an answer. A server that doesn't answer may be either: it ends no pause, unless it comes back unpaused.
func (w *Watch) saw(asked Interval, paused, silent bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	at := asked.To
	if !paused && !silent {
		w.denied = append(w.denied, asked)
	}
	switch {
	case silent:
	case paused && !w.paused:
		w.spans = append(w.spans, Interval{From: at, To: at})
		w.paused = true
	case w.paused:
		w.spans[len(w.spans)-1].To = at
		w.paused = paused
	}
}

// Pauses are the pauses seen so far, each from the first answer that said so to the first that did not; the last may not be over.
func (w *Watch) Pauses() []Interval {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]Interval(nil), w.spans...)
}

// Denied counts the questions that were asked and answered within a span, and answered with no: the server was not paused all the time. That holds
// however late a busy machine lets anybody ask, or notice an answer.
func (w *Watch) Denied(from, to time.Time) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, d := range w.denied {
		if !d.From.Before(from) && !d.To.After(to) {
			n++
		}
	}
	return n
}

// Stop ends the watching and returns the pauses.
func (w *Watch) Stop() []Interval {
	w.cancel()
	<-w.done
	return w.Pauses()
}
