package upload

import (
	"context"
	"sync"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

// limiter is a token bucket that all transfers of one node share. Its zero rate lets everything pass.
type limiter struct {
	clock engine.Clock
	rate  int64 // bytes per second

	mu sync.Mutex
	// paid is when what was let through so far is paid for, by Clock.Boot. It never lies further back than burst.
	paid    time.Duration
	started bool
}

// burst is how much of a rest can be made up for.
const burst = 200 * time.Millisecond

// wait returns when n more bytes may pass.
func (l *limiter) wait(ctx context.Context, n int) error {
	if l.rate <= 0 || n <= 0 {
		return nil
	}
	l.mu.Lock()
	now := l.clock.Boot()
	if !l.started || l.paid < now-burst {
		l.paid, l.started = now-burst, true
	}
	l.paid += time.Duration(float64(n) / float64(l.rate) * float64(time.Second))
	ahead := l.paid - now
	l.mu.Unlock()
	if ahead <= 0 {
		return nil
	}
	return l.clock.Sleep(ctx, ahead)
}

// Chunks in which files are read.
const (
	maxChunk = 256 << 10
	minChunk = 4 << 10
)

// chunk is how much to read at once: at most a tenth of a second's worth.
func (l *limiter) chunk() int {
	if l.rate <= 0 {
		return maxChunk
	}
	return int(min(max(l.rate/10, minChunk), maxChunk))
}
