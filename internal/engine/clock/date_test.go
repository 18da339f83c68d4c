package clock_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/clock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/testclock"
)

// service is a server that is offset ahead of ours, and whose answers take trip, half of it each way.
type service struct {
	offset, trip time.Duration
	calls        int
	ahead        func(call int) time.Duration // of one of its machines
}

func (s *service) sample(ctx context.Context) (time.Time, error) {
	time.Sleep(s.trip / 2)
	s.calls++
	at := time.Now().Add(s.offset)
	if s.ahead != nil {
		at = at.Add(s.ahead(s.calls))
	}
	time.Sleep(s.trip - s.trip/2)
	return at.Truncate(time.Second), ctx.Err()
}

// TestDate: the true offset always lies within the bound, whatever the phase of the second, and the floor of one second is kept.
func TestDate(t *testing.T) {
	for _, offset := range []time.Duration{0, 300 * time.Millisecond, -700 * time.Millisecond, 4 * time.Second, -90 * time.Second, 999 * time.Millisecond} {
		for _, trip := range []time.Duration{2 * time.Millisecond, 80 * time.Millisecond, 900 * time.Millisecond, 1700 * time.Millisecond} {
			for phase := time.Duration(0); phase < time.Second; phase += 130 * time.Millisecond {
				synctest.Test(t, func(t *testing.T) {
					time.Sleep(phase)
					s := &service{offset: offset, trip: trip}
					d := clock.Dated{Clock: testclock.New(), Sample: s.sample}
					first, err := d.Measure(t.Context())
					if err != nil {
						t.Fatalf("offset %s, trip %s: %v", offset, trip, err)
					}
					covers(t, first, offset)
					if first.Uncertainty > time.Second+trip {
						t.Errorf("offset %s, trip %s: uncertainty %s", offset, trip, first.Uncertainty)
					}
					if trip < 100*time.Millisecond && (first.Offset-offset).Abs() > 150*time.Millisecond {
						t.Errorf("offset %s, trip %s: measured %s", offset, trip, first.Offset)
					}
					before := s.calls
					again, err := d.Measure(t.Context())
					if err != nil || again != first || s.calls != before+1 {
						t.Errorf("in the window: %v, %v after %d calls; want %v after one", again, err, s.calls-before, first)
					}
					s.offset += 5 * time.Second
					stepped, err := d.Measure(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					covers(t, stepped, s.offset)
				})
			}
		}
	}
}

func covers(t *testing.T, b engine.ClockBound, offset time.Duration) {
	t.Helper()
	if (b.Offset-offset).Abs() > b.Uncertainty || b.Uncertainty < time.Second {
		t.Errorf("bound %s ± %s for an offset of %s", b.Offset, b.Uncertainty, offset)
	}
}

// TestDateOfSeveralMachines: what differs within the floor is covered by it; what differs by more is an error.
func TestDateOfSeveralMachines(t *testing.T) {
	for _, c := range []struct {
		apart time.Duration
		fails bool
	}{{40 * time.Millisecond, false}, {400 * time.Millisecond, false}, {6 * time.Second, true}} {
		synctest.Test(t, func(t *testing.T) {
			s := &service{trip: 10 * time.Millisecond, ahead: func(call int) time.Duration { return c.apart * time.Duration(call%2) }}
			d := clock.Dated{Clock: testclock.New(), Sample: s.sample}
			b, err := d.Measure(t.Context())
			if (err != nil) != c.fails {
				t.Fatalf("%s apart: %v, %v", c.apart, b, err)
			}
			if err == nil {
				covers(t, b, 0)
				covers(t, b, c.apart)
			}
		})
	}
}

func TestDateFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := errors.New("refused")
		d := clock.Dated{Clock: testclock.New(), Sample: func(context.Context) (time.Time, error) { return time.Time{}, refused }}
		if _, err := d.Measure(t.Context()); !errors.Is(err, refused) {
			t.Errorf("got %v", err)
		}
		d.Sample = func(context.Context) (time.Time, error) { return time.Time{}, nil }
		if _, err := d.Measure(t.Context()); err == nil {
			t.Error("an answer without a Date header has a clock")
		}
	})
}
