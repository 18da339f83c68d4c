// Package clock is the real time, the only place of the engine that asks for it.
package clock

import (
	"context"
	"time"
)

// System is the machine's clock.
type System struct{}

// Now is the wall clock, without Go's monotonic reading: a step of the clock must show.
func (System) Now() time.Time { return time.Now().Round(0) }

// Boot is the time since boot, suspension included.
func (System) Boot() time.Duration { return boot() }

// Sleep waits for d or for ctx.
func (System) Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// WithTimeout is context.WithTimeout.
func (System) WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, d)
}
