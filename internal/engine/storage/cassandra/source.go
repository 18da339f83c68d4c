package cassandra

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

// Source is one cluster to be captured.
type Source struct{ s Settings }

// NewSource opens nothing yet.
func NewSource(s Settings) *Source { return &Source{s} }

// OpenClock connects to every node over CQL.
func (o *Source) OpenClock(ctx context.Context) (engine.ClockSession, error) {
	t, err := o.s.readTopology(ctx)
	if err != nil {
		return nil, err
	}
	var errs []error
	if !o.s.AllowDownNodes {
		for _, m := range t.downs() {
			errs = append(errs, fmt.Errorf("%s is down: %w", m, m.down))
		}
	}
	if len(t.up()) == 0 {
		errs = append(errs, errors.New("no node is up"))
	}
	if err := errors.Join(errs...); err != nil {
		t.close()
		return nil, err
	}
	return &clocks{t: t, clock: o.s.Clock}, nil
}

// clocks measures those of all nodes: each stamps the writes that it coordinates.
type clocks struct {
	t        *topology
	clock    engine.Clock
	measured bool // at least once
}

// samples is how many answers the first measurement takes of each node. The second one, in the pause, takes one: its bound is as true, if wider.
const samples = 3

// MeasureClock returns the hull of all nodes' bounds.
func (c *clocks) MeasureClock(ctx context.Context) (engine.ClockBound, error) {
	up := c.t.up()
	lows, highs := make([]time.Duration, len(up)), make([]time.Duration, len(up))
	looks := samples
	if c.measured {
		looks = 1
	}
	err := eachAt(ctx, up, func(ctx context.Context, i int, m *member) (err error) {
		lows[i], highs[i], err = c.measure(ctx, m.conn, looks)
		return err
	})
	if err != nil {
		return engine.ClockBound{}, err
	}
	c.measured = true
	low, high := lows[0], highs[0]
	for i := range up {
		low, high = min(low, lows[i]), max(high, highs[i])
	}
	return engine.ClockBound{Offset: low + (high-low)/2, Uncertainty: (high-low)/2 + 1}, nil
}

// measure returns the limits of the node's clock − ours that the quickest of some answers leaves: the node read its clock, whose step is a millisecond,
// after the query was sent and before the answer came. All are asked for at once: the pause waits for them.
func (c *clocks) measure(ctx context.Context, n conn, looks int) (low, high time.Duration, err error) {
	type sample struct {
		sent, received, at time.Time
		err                error
	}
	all := make(chan sample, looks)
	for range looks {
		go func() {
			s := sample{sent: c.clock.Now()}
			r, err := one(ctx, n, clockQuery)
			s.received, s.err = c.clock.Now(), err
			if err == nil {
				s.at = r.instant("now")
			}
			all <- s
		}()
	}
	best := time.Duration(-1)
	for range looks {
		s := <-all
		switch trip := s.received.Sub(s.sent); {
		case s.err != nil:
			err = fmt.Errorf("asking for its time: %w", s.err)
		case s.at.IsZero():
			err = errors.New("asking for its time: it tells none")
		case trip >= 0 && (best < 0 || trip < best):
			best, low, high = trip, s.at.Sub(s.received), s.at.Add(time.Millisecond).Sub(s.sent)
		}
	}
	if best < 0 && err == nil {
		err = errors.New("asking for its time: our own clock went back meanwhile")
	}
	return low, high, err
}

// Close closes the connections.
func (c *clocks) Close() error {
	c.t.close()
	return nil
}
