// Package testclock is a clock for tests: package time, with a boot clock that follows it. In a testing/synctest bubble it is virtual.
package testclock

import (
	"context"
	"time"
)

// Clock implements engine.Clock.
type Clock struct{ start time.Time }

// New starts a clock. In a bubble it has to be made there.
func New() *Clock { return &Clock{start: time.Now()} }

// Now is the wall clock.
func (c *Clock) Now() time.Time { return time.Now().Round(0) }

// Boot is the time since New, and an hour.
func (c *Clock) Boot() time.Duration { return time.Hour + time.Since(c.start) }

// Sleep waits for d or for ctx.
func (c *Clock) Sleep(ctx context.Context, d time.Duration) error {
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
func (c *Clock) WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, d)
}
