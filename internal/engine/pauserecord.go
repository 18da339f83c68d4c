package engine

import (
	"sync"
	"time"
)

// PauseRecord is what a run knows of one target's pause. The engine, its watchdog and the unpause command each keep one per target, by the same rules.
type PauseRecord struct {
	Target Target

	mu     sync.Mutex
	owner  Ownership
	sentAt time.Duration // boot clock, of the last Pause sent
	paused time.Time     // when CheckPaused first confirmed it
}

// NewPauseRecord returns the record of a target that no Pause was sent to.
func NewPauseRecord(t Target) *PauseRecord { return &PauseRecord{Target: t, owner: Unsent} }

// Owner is the record's present value.
func (r *PauseRecord) Owner() Ownership {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.owner
}

// Sending is called right before a Pause leaves: from here on it may land, whatever else is heard.
func (r *PauseRecord) Sending(boot time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.owner, r.sentAt = Unknown, boot
}

// Settle notes the definite outcome of the Pause (or Unknown, which changes nothing).
func (r *PauseRecord) Settle(o Ownership) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.owner = o
}

// sentAfter says whether a Pause was sent after the given reading of the boot clock.
func (r *PauseRecord) sentAfter(boot time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.owner != Unsent && r.sentAt > boot
}

// confirmed notes when CheckPaused confirmed the pause.
func (r *PauseRecord) confirmed(at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.paused = at
}

// PausedAt is when CheckPaused confirmed the pause; zero if it never did.
func (r *PauseRecord) PausedAt() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.paused
}

// settled says whether a Pause of this run can still land: not when its outcome is known, nor once its drain timeout has passed.
func (r *PauseRecord) settled(boot, drain time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.owner != Unknown || boot > r.sentAt+drain+landingSlack
}

// landingSlack is added to the drain timeout before an unanswered Pause counts as one that never lands.
const landingSlack = time.Second

// outcome translates the answer to a Pause into ownership. earlierUnknown says that an earlier Pause of this run to the same
// target had no answer: then a pause that "somebody else" holds is that one.
func outcome(err *PauseError, earlierUnknown bool) Ownership {
	switch err.Outcome {
	case PauseStillPaused:
		if earlierUnknown {
			return Ours
		}
		return Foreign
	case PauseAborted, PauseNotSent:
		if earlierUnknown {
			return Unknown
		}
		return Unsent
	case PauseRefused:
		// The target reopened itself, and a second Pause that times out cancels a first: nothing of ours holds. It is unpaused
		// once all the same: servers before August 2026 could answer wrongly.
		return Ours
	default:
		return Unknown
	}
}
