package rdsserver

import (
	"sync"
	"time"
)

// work is something real that a status waits for: a database that starts, a snapshot that is taken.
type work struct {
	done  chan struct{}
	mu    sync.Mutex
	ended time.Time
	err   error
}

// step is one status on the way to the last one: it lasts for a time, and until its work is done.
type step struct {
	status string
	last   time.Duration // real
	work   *work
	then   func(at time.Time) // when it is over
}

// life is the status of a resource. It advances when it is looked at.
type life struct {
	since time.Time
	steps []step
	rest  string // the status when all steps are over; gone: there is no such resource any more
}

const gone = "gone"

// Hold lets nothing come to its end that takes time at AWS, until Release: what a test says of what is being made, changed or deleted is then true however
// slow the machine is. What really happens meanwhile, as a database that starts, is not held, nor is the time to which one can restore.
func (s *Server) Hold() { s.held.Store(new(s.options.Now())) }

// Release ends Hold: what would have come to its end in the meantime has.
func (s *Server) Release() { s.held.Store(nil) }

// status is a resource's status at a time; progress is the share of the current step that is over, in percent.
func (s *Server) status(l *life, now time.Time) (status string, progress int) {
	if held := s.held.Load(); held != nil && held.Before(now) {
		now = *held
	}
	for len(l.steps) > 0 {
		at := l.steps[0]
		end := l.since.Add(at.last)
		if at.work != nil {
			select {
			case <-at.work.done:
			default:
				return at.status, l.percent(now, at)
			}
			at.work.mu.Lock()
			ended, err := at.work.ended, at.work.err
			at.work.mu.Unlock()
			if err != nil {
				l.steps, l.rest = nil, "failed"
				break
			}
			if ended.After(end) {
				end = ended
			}
		}
		if now.Before(end) {
			return at.status, l.percent(now, at)
		}
		l.since, l.steps = end, l.steps[1:]
		if at.then != nil {
			at.then(end)
		}
	}
	return l.rest, 100
}

func (l *life) percent(now time.Time, s step) int {
	if s.last <= 0 {
		return 0
	}
	return min(99, max(0, int(100*now.Sub(l.since)/s.last)))
}

// go on with these steps from now, after those that are under way.
func (l *life) add(now time.Time, steps ...step) {
	if len(l.steps) == 0 {
		l.since = now
	}
	l.steps = append(l.steps, steps...)
}

// end replaces what was under way.
func (l *life) end(now time.Time, rest string, steps ...step) {
	l.since, l.steps, l.rest = now, steps, rest
}

// do starts work that the end of the server waits for. What it returns as an error makes the resource fail, and is in Server.Errors.
func (s *Server) do(f func() error) *work {
	w := &work{done: make(chan struct{})}
	s.wg.Go(func() {
		err := f()
		if err != nil {
			s.problem(err)
		}
		w.mu.Lock()
		w.err, w.ended = err, s.options.Now()
		w.mu.Unlock()
		close(w.done)
	})
	return w
}
