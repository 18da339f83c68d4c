package rdsserver

import (
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// Fault befalls one call. In this order: wait (Delay), act (unless Code), wait (ReplyDelay), answer (unless Lost).
type Fault struct {
	Delay      time.Duration // before acting
	Code       string        // an error to answer with instead of acting
	Status     int           // of HTTP, with Code; zero: 500
	ReplyDelay time.Duration // after acting
	Lost       bool          // it acts, and the connection is closed without an answer
}

// Rates befall calls at random, by a fixed seed. The shares are between 0 and 1.
type Rates struct {
	Throttle  float64 // share that is answered with Throttling
	Error     float64 // share that is answered with InternalFailure (HTTP 500), without acting
	Lost      float64 // share that acts without an answer
	PerSecond int     // calls beyond so many in a second, of one account, are answered with RequestLimitExceeded; zero: no limit
}

// Call is the record of one call.
type Call struct {
	Action          string
	Account, Region string
	Params          url.Values // passwords are in it, as sent
	At              time.Time  // real
	Code            string     // of the error that was answered; empty: success
	Status          int        // of HTTP; zero: no answer
}

// chance is what decides on injected failures.
type chance struct {
	queued map[string][]Fault // by action
	denied map[string]bool
	rates  Rates
	random *rand.Rand
	window map[string][]time.Time // of the last second's calls, by account
}

// Inject queues faults for the next calls of an action, one for each. It goes before Rates.
func (s *Server) Inject(action string, faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.chance.queued[action] = append(s.chance.queued[action], faults...)
}

// SetRates replaces the random faults.
func (s *Server) SetRates(r Rates) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.chance.rates = r
}

// Deny makes actions be answered with AccessDenied, as for a principal that has no such permission; Deny() allows all again.
func (s *Server) Deny(actions ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.chance.denied = map[string]bool{}
	for _, a := range actions {
		s.chance.denied[a] = true
	}
}

// fate decides on one call.
func (c *chance) fate(action, account string, now time.Time) Fault {
	if q := c.queued[action]; len(q) > 0 {
		c.queued[action] = q[1:]
		return q[0]
	}
	if c.denied[action] {
		return Fault{Code: "AccessDenied", Status: http.StatusForbidden}
	}
	if c.rates.PerSecond > 0 {
		recent := slices.DeleteFunc(c.window[account], func(t time.Time) bool { return now.Sub(t) >= time.Second })
		c.window[account] = recent
		if len(recent) >= c.rates.PerSecond {
			return Fault{Code: "RequestLimitExceeded", Status: http.StatusBadRequest}
		}
		c.window[account] = append(recent, now)
	}
	switch at := c.random.Float64(); {
	case at < c.rates.Throttle:
		return Fault{Code: "Throttling", Status: http.StatusBadRequest}
	case at < c.rates.Throttle+c.rates.Error:
		return Fault{Code: "InternalFailure", Status: http.StatusInternalServerError}
	case at < c.rates.Throttle+c.rates.Error+c.rates.Lost:
		return Fault{Lost: true}
	}
	return Fault{}
}

// Calls are all calls so far, in the order in which they were answered.
func (s *Server) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

// Count is how often each action was called.
func (s *Server) Count() map[string]int {
	n := map[string]int{}
	for _, c := range s.Calls() {
		n[c.Action]++
	}
	return n
}

// Errors are what went wrong within the server itself, such as a database that did not start. A test that sees none of its own should see none here.
func (s *Server) Errors() []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.problems)
}

func (s *Server) problem(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.problems = append(s.problems, err)
}

// SetQuotas changes the account's quotas, by the names that DescribeAccountAttributes has: DBInstances, DBClusters, ManualSnapshots, ManualClusterSnapshots.
func (s *Server) SetQuotas(q map[string]int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.Copy(s.quotas, q)
}

// SetSnapshotDelay replaces Options.SnapshotDelay.
func (s *Server) SetSnapshotDelay(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.options.SnapshotDelay = d
}
