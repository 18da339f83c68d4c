package engine

import (
	"fmt"
	"time"
)

// RestorePoint returns the instant for point-in-time recovery in [from, until]: the whole granule nearest below the midpoint, or the first
// one after it where that lies outside. ok is false when the interval holds none.
func RestorePoint(from, until time.Time, granule time.Duration) (at time.Time, ok bool) {
	if until.Before(from) {
		return time.Time{}, false
	}
	mid := from.Add(until.Sub(from) / 2).UTC()
	if granule <= 0 {
		return mid, true
	}
	at = mid.Truncate(granule)
	if at.Before(from) {
		at = at.Add(granule)
	}
	if at.After(until) {
		return time.Time{}, false
	}
	return at, true
}

// safeInterval is what remains of the window for every storage's clock. A restore point is a time by the storage's clock, which
// reads offset ± uncertainty more than ours: it lies in the window for sure only between start + offset + uncertainty and
// end + offset − uncertainty. The window by our own clock is one of the limits. granules (zero for storages that are
// not restored by time) are taken off on each side: whether a restore is to ≤ T or < T, and where T is cut off, differs.
func safeInterval(start, end time.Time, bounds map[string]ClockBound, granules map[string]time.Duration) (from, until time.Time) {
	from, until = start, end
	for name, b := range bounds {
		g := granules[name]
		if f := start.Add(b.Offset + b.Uncertainty + g); f.After(from) {
			from = f
		}
		if u := end.Add(b.Offset - b.Uncertainty - g); u.Before(until) {
			until = u
		}
	}
	return from.UTC(), until.UTC()
}

// hull is the smallest bound that covers both.
func hull(a, b ClockBound) ClockBound {
	low := min(a.Offset-a.Uncertainty, b.Offset-b.Uncertainty)
	high := max(a.Offset+a.Uncertainty, b.Offset+b.Uncertainty)
	return ClockBound{Offset: low + (high-low)/2, Uncertainty: high - low - (high-low)/2}
}

// maxDrift is how fast two healthy clocks may drift apart: 500 ppm is the most that NTP slews.
const maxDrift = 0.0005

// stepped says whether a storage's clock jumped between two measurements that lie elapsed apart: then their bounds, widened by what drift explains, do not meet.
func stepped(a, b ClockBound, elapsed time.Duration) error {
	gap := max(a.Offset-a.Uncertainty-(b.Offset+b.Uncertainty), b.Offset-b.Uncertainty-(a.Offset+a.Uncertainty))
	if gap > time.Duration(maxDrift*float64(elapsed))+time.Millisecond {
		return fmt.Errorf("its clock (or this machine's) stepped: it was %s ± %s off ours before the window and %s ± %s after it",
			a.Offset, a.Uncertainty, b.Offset, b.Uncertainty)
	}
	return nil
}

// boundMS is a ClockBound as it is recorded: whole milliseconds that still cover it.
func boundMS(b ClockBound) ClockBoundMS {
	offset := b.Offset.Round(time.Millisecond)
	u := b.Uncertainty + (b.Offset - offset).Abs()
	return ClockBoundMS{OffsetMS: offset.Milliseconds(), UncertaintyMS: int64((u + time.Millisecond - 1) / time.Millisecond)}
}

// Watching this process's own time during the pause.
const (
	pulseInterval = 100 * time.Millisecond
	// maxGap is the longest time between two pulses that still counts as awake: a process that was stopped (SIGSTOP), or a machine that was suspended, shows a longer one.
	maxGap = 2 * time.Second
	// maxClockDisagreement is how far the wall clock may move against the boot-time clock in a window. Slewing explains far less.
	maxClockDisagreement = 250 * time.Millisecond
)

// timekeeper notices that the run slept, or that the wall clock stepped.
type timekeeper struct {
	clock     Clock
	wall      time.Time
	boot      time.Duration
	lastPulse time.Duration
	slept     time.Duration // the longest gap seen
}

func newTimekeeper(c Clock) *timekeeper {
	boot := c.Boot()
	return &timekeeper{clock: c, wall: c.Now(), boot: boot, lastPulse: boot}
}

// pulse is called every pulseInterval by the one goroutine that waits for everybody else, from the first Pause to the end of confirm.
func (k *timekeeper) pulse() error {
	boot := k.clock.Boot()
	k.slept = max(k.slept, boot-k.lastPulse)
	k.lastPulse = boot
	if k.slept > maxGap {
		return fmt.Errorf("this process stood still for %s (stopped, or the machine was suspended): what happened meanwhile is not known", k.slept.Round(time.Millisecond))
	}
	if d := (k.clock.Now().Sub(k.wall) - (boot - k.boot)).Abs(); d > maxClockDisagreement {
		return fmt.Errorf("this machine's wall clock stepped by %s: the window's times would be wrong", d.Round(time.Millisecond))
	}
	return nil
}
