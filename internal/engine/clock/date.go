package clock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

// What a service's HTTP Date header is worth (RFC 9110, section 6.6.1: whole seconds).
const (
	dateStep = time.Second
	// dateFloor is the least uncertainty that is claimed: the machine that stamps writes may be another than the one that answered.
	dateFloor = time.Second
	datePause = 60 * time.Millisecond // between two samples
	dateLimit = 3 * time.Second       // for sampling
)

// Dated is a service of which only the Date header of its answers is known. Its sample makes one cheap request and returns that header.
type Dated struct {
	Clock  engine.Clock
	Sample func(ctx context.Context) (time.Time, error)

	measured bool
	first    engine.ClockBound
}

// Measure returns the bound of the service's clock against ours. The first call takes up to a second, since it samples until a new second
// begins. Later ones, which a pause waits for, take one sample, and return the first bound again as long as the sample agrees with it.
func (d *Dated) Measure(ctx context.Context) (engine.ClockBound, error) {
	if !d.measured {
		b, err := d.tick(ctx)
		if err == nil {
			d.first, d.measured = b, true
		}
		return b, err
	}
	low, high, err := d.sample(ctx)
	if err != nil {
		return engine.ClockBound{}, err
	}
	if low <= d.first.Offset+d.first.Uncertainty && high >= d.first.Offset-d.first.Uncertainty {
		return d.first, nil
	}
	return bound(low, high), nil
}

// sample returns the limits of storage − ours that one answer leaves: the header's second began before it was made, and had not ended.
func (d *Dated) sample(ctx context.Context) (low, high time.Duration, err error) {
	sent := d.Clock.Now()
	date, err := d.Sample(ctx)
	received := d.Clock.Now()
	if err != nil {
		return 0, 0, err
	}
	if date.IsZero() {
		return 0, 0, errors.New("the answer has no Date header")
	}
	return date.Sub(received), date.Add(dateStep).Sub(sent), nil
}

// tick intersects the limits of samples until one of them began a new second: then they are narrow.
func (d *Dated) tick(ctx context.Context) (engine.ClockBound, error) {
	low, high, err := d.sample(ctx)
	if err != nil {
		return engine.ClockBound{}, err
	}
	for began := d.Clock.Boot(); high-low > dateStep/4; {
		if d.Clock.Boot()-began > dateLimit {
			break // answers take longer than the second that they would show: what is known is enough
		}
		if err := d.Clock.Sleep(ctx, datePause); err != nil {
			return engine.ClockBound{}, err
		}
		l, h, err := d.sample(ctx)
		if err != nil {
			return engine.ClockBound{}, err
		}
		low, high = max(low, l), min(high, h)
		if low-high > dateFloor {
			return engine.ClockBound{}, fmt.Errorf("its answers contradict each other by %s: several machines answer, whose clocks differ", (low - high).Round(time.Millisecond))
		}
		if low > high { // several machines too, within what is claimed anyway
			return bound(high, low), nil
		}
	}
	return bound(low, high), nil
}

func bound(low, high time.Duration) engine.ClockBound {
	half := (high - low + 1) / 2
	return engine.ClockBound{Offset: low + half, Uncertainty: max(half, dateFloor)}
}
