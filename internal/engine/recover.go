package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// staleBeats is how long a journal without a lock must have been silent before a run on another machine takes its run for dead.
const staleBeats = 10 * beatInterval

// Sweeper is what a Catalog may also be: it removes temporary files that a dead run left on it.
type Sweeper interface {
	Sweep(ctx context.Context, runID string) error
}

// recover cleans up after dead runs, under the lock: what they left paused is unpaused, what they made and nobody recorded is deleted.
// A target of ours that cannot be unpaused is an error; everything else that does not work stays in its journal, with a warning.
func (r *run) recover(ctx context.Context) error {
	journals, err := OpenJournals(ctx, r.Catalog)
	if err != nil {
		return &Error{PhasePreflight, "journal", err}
	}
	for _, j := range journals {
		if j.RunID == r.id {
			continue
		}
		if j.Broken != nil {
			r.warn(fmt.Sprintf("the journal of run %s in %s cannot be read, and is left alone: %v", j.RunID, r.Catalog.Describe(), j.Broken))
			continue
		}
		dead, err := r.dead(ctx, j)
		if err != nil {
			return &Error{PhasePreflight, "journal", err}
		}
		if !dead {
			continue
		}
		r.report(ctx, PhasePreflight, "journal", "cleaning up after a dead run", map[string]any{"run_id": j.RunID, "backup_id": j.BackupID, "phase": string(j.Phase)}, nil)
		if err := r.liftDead(ctx, j); err != nil {
			return err
		}
		if err := r.discardDead(ctx, j); err != nil {
			r.warn(fmt.Sprintf("cleaning up after run %s of backup %s, which died: %v", j.RunID, j.BackupID, err))
		}
	}
	return nil
}

// dead says whether a journal's run is gone. Up to its unpause a run holds the lock, which is ours now; afterwards it renews its journal.
func (r *run) dead(ctx context.Context, j OpenJournal) (bool, error) {
	if alive, known := r.Alive(j.Holder); known {
		return !alive, nil
	}
	if j.Phase != PhaseAwait && j.Phase != PhaseRecord {
		return true, nil
	}
	// Compared by the catalog's own clock, of which our lock document has just had a stamp.
	now, err := r.Catalog.Stat(ctx, r.lock.Ref().Name)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading the time of %s: %w", r.Catalog.Describe(), err)
	}
	return now.Modified.Sub(j.Modified) > staleBeats, nil
}

// liftDead unpauses what a dead run left paused among this run's targets.
func (r *run) liftDead(ctx context.Context, j OpenJournal) error {
	mine := map[string]*runTarget{}
	for _, t := range r.targets {
		mine[t.Address] = t
	}
	left := j
	left.Targets = nil
	for _, t := range j.Paused() {
		if mine[t.Address] == nil {
			r.warn(fmt.Sprintf("run %s of backup %s died and may have left %s paused, which is not among this run's targets: %s", j.RunID, j.BackupID, t.Address, r.q.Unpauser(j.RunID)))
			continue
		}
		left.Targets = append(left.Targets, JournalTarget{Target: t, Ownership: Ours})
	}
	ctx, cancel := r.Clock.WithTimeout(ctx, unpauseTimeout)
	defer cancel()
	var failures []error
	for _, l := range LiftJournal(ctx, r.Clock, left, func(ctx context.Context, t Target) (AdminConn, error) {
		return mine[t.Address].group.Dialer.Dial(ctx, t)
	}, nil) {
		switch {
		case l.Err != nil:
			failures = append(failures, &Error{PhasePreflight, l.Target.Address, fmt.Errorf("unpausing it after run %s, which died (unpause by hand: %s): %w", j.RunID, r.q.Unpauser(j.RunID), l.Err)})
		case l.Lifted:
			r.warn(fmt.Sprintf("%s was still paused by run %s of backup %s, which died; it was unpaused", l.Target.Address, j.RunID, j.BackupID))
		}
	}
	return errors.Join(failures...)
}

// discardDead deletes what a dead run made, and closes its journal. A backup that it completed is kept, and recorded where it was not, unless it has the name of
// the one that is asked for now: with its journal open it was never returned to Terraform, and would only be in the way.
func (r *run) discardDead(ctx context.Context, j OpenJournal) error {
	m, err := ReadManifest(ctx, r.Catalog, j.BackupID)
	recorded := err == nil && m.RunID == j.RunID
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	complete := recorded || j.Manifest != nil
	switch {
	case complete && (j.Kept || j.BackupID != r.q.Name || r.q.WindowOnly):
		if !recorded {
			if err := r.Record(ctx, *j.Manifest); err != nil {
				return err
			}
		}
		r.warn(fmt.Sprintf("backup %s was completed by run %s, which died before Terraform could store it: import it (terraform import ADDRESS %s), or remove it with its directory in the catalog", j.BackupID, j.RunID, j.BackupID))
	default:
		if recorded {
			if err := r.Catalog.Delete(ctx, ManifestName(j.BackupID)); err != nil {
				return fmt.Errorf("deleting its manifest: %w", err)
			}
		}
		var failures []error
		for name, s := range j.Storages {
			store, err := r.Artifacts(ctx, name, s)
			if err != nil {
				failures = append(failures, fmt.Errorf("storage %s: deleting its artifacts: %w", name, err))
				continue
			}
			for _, a := range s.Artifacts {
				if err := store.Delete(ctx, a); err != nil {
					failures = append(failures, fmt.Errorf("storage %s: deleting %s: %w", name, a.ID, err))
				}
			}
		}
		if err := errors.Join(failures...); err != nil {
			return err
		}
	}
	if s, ok := r.Catalog.(Sweeper); ok {
		if err := s.Sweep(ctx, j.RunID); err != nil {
			return fmt.Errorf("removing its temporary files: %w", err)
		}
	}
	if !r.coversPaused(j) {
		// Still paused elsewhere: all that the journal goes on to say, to whoever has those targets.
		return r.nothingLeftBut(ctx, j)
	}
	return CloseJournal(ctx, r.Catalog, j.RunID)
}

// nothingLeftBut takes what is cleaned up out of a dead run's journal, and leaves the targets that are not ours.
func (r *run) nothingLeftBut(ctx context.Context, j OpenJournal) error {
	w, err := reopenJournal(ctx, r.Catalog, j.RunID)
	if err != nil {
		return err
	}
	w.doc.Storages, w.doc.Manifest = nil, nil
	for i, t := range w.doc.Targets {
		for _, mine := range r.targets {
			if mine.Address == t.Address {
				w.doc.Targets[i].UnpausedAt = r.Clock.Now().UTC()
			}
		}
	}
	return w.write(ctx)
}

// coversPaused says whether every target that a dead run may have left paused is one of ours, and so was looked after.
func (r *run) coversPaused(j OpenJournal) bool {
	mine := map[string]bool{}
	for _, t := range r.targets {
		mine[t.Address] = true
	}
	for _, t := range j.Paused() {
		if !mine[t.Address] {
			return false
		}
	}
	return true
}

// CloseJournal removes a run's journal and its watchdog's log.
func CloseJournal(ctx context.Context, c Catalog, runID string) error {
	w := journalWriter{catalog: c, doc: Journal{RunID: runID}, created: true}
	return w.close(ctx)
}

// custodyRelay keeps what drivers hand into custody before the watchdog is armed, and passes it on from then on.
type custodyRelay struct {
	mu      sync.Mutex
	to      Custody
	next    int
	waiting map[int]func(Custody) func()
	done    map[int]func()
}

func (c *custodyRelay) hold(register func(Custody) func()) func() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting == nil {
		c.waiting, c.done = map[int]func(Custody) func(){}, map[int]func(){}
	}
	id := c.next
	c.next++
	if c.to == nil {
		c.waiting[id] = register
	} else {
		c.done[id] = register(c.to)
	}
	return func() {
		c.mu.Lock()
		done := c.done[id]
		delete(c.waiting, id)
		delete(c.done, id)
		c.mu.Unlock()
		if done != nil {
			done()
		}
	}
}

// Process implements Custody.
func (c *custodyRelay) Process(pid int, start uint64, name string) func() {
	return c.hold(func(to Custody) func() { return to.Process(pid, start, name) })
}

// SecretFile implements Custody.
func (c *custodyRelay) SecretFile(path string) func() {
	return c.hold(func(to Custody) func() { return to.SecretFile(path) })
}

// forward hands over what is held, and everything that comes.
func (c *custodyRelay) forward(to Custody) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.to = to
	for id, register := range c.waiting {
		c.done[id] = register(to)
	}
	c.waiting = map[int]func(Custody) func(){}
	if c.done == nil {
		c.done = map[int]func(){}
	}
}
