// Package clock is the real time, the only place of the engine that asks for it.
package clock

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
)

// System is the machine's clock.
type System struct{}

// Now is the wall clock, without Go's monotonic reading: a step of the clock must show.
func (System) Now() time.Time { return time.Now().Round(0) }

// Boot is CLOCK_BOOTTIME, which goes on while the machine is suspended.
func (System) Boot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("reading CLOCK_BOOTTIME: " + err.Error()) // cannot fail on a kernel that Go runs on
	}
	return time.Duration(ts.Nano())
}

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
