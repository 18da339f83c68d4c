package rds

import (
	"context"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/clock"
)

// Clock is AWS's clock, as the Date header of one cheap call shows it. It implements engine.ClockSession.
type Clock struct{ dated clock.Dated }

// NewClock measures by sample, which makes the call and returns the header.
func NewClock(c engine.Clock, sample func(ctx context.Context) (time.Time, error)) *Clock {
	return &Clock{clock.Dated{Clock: c, Sample: sample}}
}

// MeasureClock takes up to a second the first time, one call later.
func (c *Clock) MeasureClock(ctx context.Context) (engine.ClockBound, error) {
	return c.dated.Measure(ctx)
}

// Close has nothing to release.
func (c *Clock) Close() error { return nil }

// Span is the time that a window surely covers by a storage's clock: from opened + offset + uncertainty to closed + offset − uncertainty, a granule less on each side.
func Span(opened, closed time.Time, recorded engine.ClockBoundMS, granule time.Duration) (from, until time.Time) {
	b := recorded.Bound()
	return opened.Add(b.Offset + b.Uncertainty + granule), closed.Add(b.Offset - b.Uncertainty - granule)
}
