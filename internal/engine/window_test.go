package engine

import (
	"testing"
	"time"
)

var t0 = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

func TestRestorePoint(t *testing.T) {
	for _, c := range []struct {
		name        string
		from, until time.Duration
		granule     time.Duration
		want        time.Duration
		ok          bool
	}{
		{"midpoint", 0, 10 * time.Second, time.Second, 5 * time.Second, true},
		{"midpoint is cut down", 0, 11 * time.Second, time.Second, 5 * time.Second, true},
		{"first second after a late start", 900 * time.Millisecond, 1100 * time.Millisecond, time.Second, time.Second, true},
		{"no whole second inside", 100 * time.Millisecond, 900 * time.Millisecond, time.Second, 0, false},
		{"empty", time.Second, 0, time.Second, 0, false},
		{"one instant", time.Second, time.Second, time.Second, time.Second, true},
		{"any instant", 100 * time.Millisecond, 300 * time.Millisecond, 0, 200 * time.Millisecond, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			at, ok := RestorePoint(t0.Add(c.from), t0.Add(c.until), c.granule)
			if ok != c.ok || ok && !at.Equal(t0.Add(c.want)) {
				t.Errorf("got %v %v, want %v %v", at.Sub(t0), ok, c.want, c.ok)
			}
		})
	}
}

func TestSafeInterval(t *testing.T) {
	ms := time.Millisecond
	for _, c := range []struct {
		name        string
		bounds      map[string]ClockBound
		granules    map[string]time.Duration
		from, until time.Duration
	}{
		{"no storage", nil, nil, 0, 10000 * ms},
		{"uncertain", map[string]ClockBound{"a": {0, 50 * ms}}, nil, 50 * ms, 9950 * ms},
		{"ahead: its times are later, and ours limits the end", map[string]ClockBound{"a": {2000 * ms, 50 * ms}}, nil, 2050 * ms, 10000 * ms},
		{"behind", map[string]ClockBound{"a": {-2000 * ms, 50 * ms}}, nil, 0, 7950 * ms},
		{"both", map[string]ClockBound{"a": {-2000 * ms, 50 * ms}, "b": {3000 * ms, 100 * ms}}, nil, 3100 * ms, 7950 * ms},
		{"restored by time: a granule off each side", map[string]ClockBound{"a": {0, 50 * ms}}, map[string]time.Duration{"a": time.Second}, 1050 * ms, 8950 * ms},
		{"too uncertain", map[string]ClockBound{"a": {0, 6000 * ms}}, nil, 6000 * ms, 4000 * ms},
	} {
		t.Run(c.name, func(t *testing.T) {
			from, until := safeInterval(t0, t0.Add(10*time.Second), c.bounds, c.granules)
			if !from.Equal(t0.Add(c.from)) || !until.Equal(t0.Add(c.until)) {
				t.Errorf("got %v to %v, want %v to %v", from.Sub(t0), until.Sub(t0), c.from, c.until)
			}
		})
	}
}

func TestHullAndStep(t *testing.T) {
	ms := time.Millisecond
	h := hull(ClockBound{0, 10 * ms}, ClockBound{15 * ms, 10 * ms})
	if h.Offset-h.Uncertainty > -10*ms || h.Offset+h.Uncertainty < 25*ms {
		t.Errorf("the hull %+v does not cover both", h)
	}
	if err := stepped(ClockBound{0, 10 * ms}, ClockBound{15 * ms, 10 * ms}, 10*time.Second); err != nil {
		t.Errorf("overlapping bounds are no step: %v", err)
	}
	if err := stepped(ClockBound{0, 10 * ms}, ClockBound{time.Second, 10 * ms}, 10*time.Second); err == nil {
		t.Error("a step of a second was not seen")
	}
	if err := stepped(ClockBound{time.Second, 10 * ms}, ClockBound{0, 10 * ms}, 10*time.Second); err == nil {
		t.Error("a step back of a second was not seen")
	}
}

func TestBoundMSCovers(t *testing.T) {
	for _, b := range []ClockBound{{1499 * time.Microsecond, 100}, {-1500 * time.Microsecond, 999 * time.Microsecond}, {0, 1}, {0, 0}} {
		m := boundMS(b)
		low, high := time.Duration(m.OffsetMS-m.UncertaintyMS)*time.Millisecond, time.Duration(m.OffsetMS+m.UncertaintyMS)*time.Millisecond
		if low > b.Offset-b.Uncertainty || high < b.Offset+b.Uncertainty {
			t.Errorf("%+v does not cover %+v", m, b)
		}
	}
}

func TestOutcome(t *testing.T) {
	for _, c := range []struct {
		o       PauseOutcome
		earlier bool
		want    Ownership
	}{
		{PauseStillPaused, false, Foreign}, {PauseStillPaused, true, Ours}, {PauseAborted, false, Unsent}, {PauseAborted, true, Unknown},
		{PauseNotSent, false, Unsent}, {PauseRefused, false, Ours}, {PauseUnknown, false, Unknown},
	} {
		if got := outcome(&PauseError{Outcome: c.o}, c.earlier); got != c.want {
			t.Errorf("%s (earlier unknown: %v): %s, want %s", c.o, c.earlier, got, c.want)
		}
	}
}

func FuzzDecodeJournal(f *testing.F) {
	f.Add([]byte(`{"version":1,"run_id":"0123456789abcdef","targets":[{"address":"a:1","ownership":"ours"}]}`))
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		j, err := DecodeJournal(data)
		if err == nil && !ValidRunID(j.RunID) {
			t.Errorf("accepted the run id %q", j.RunID)
		}
		_ = OpenJournal{Journal: j}.Paused()
	})
}

func FuzzDecodeManifest(f *testing.F) {
	f.Add([]byte(`{"version":1,"backup_id":"b","run_id":"0123456789abcdef"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := DecodeManifest(data); err == nil && (m.BackupID == "" || m.Version != 1) {
			t.Errorf("accepted %+v", m)
		}
	})
}

func FuzzDecodeRestore(f *testing.F) {
	f.Add([]byte(`{"version":1,"name":"r","run_id":"0123456789abcdef"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if s, err := decodeRestore(data); err == nil && s.Version != restoreVersion {
			t.Errorf("accepted version %d", s.Version)
		}
	})
}
