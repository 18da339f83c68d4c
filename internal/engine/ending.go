package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// How a run ends: its record, and the ways out.

// manifest is the record of what was captured.
func (r *run) manifest() Manifest {
	w := r.result
	w.BackupID, w.Status = r.q.Name, r.status
	w.Targets = map[string][]TargetRecord{}
	for _, t := range r.targets {
		w.Targets[t.Group] = append(w.Targets[t.Group], TargetRecord{Address: t.Address, Incarnation: t.incarnation, PausedAt: t.record.PausedAt(), UnpausedAt: t.unpausedAt})
	}
	if r.createdAt.IsZero() {
		r.createdAt = r.Clock.Now().UTC()
	}
	m := Manifest{
		Version: ManifestVersion, BackupID: r.q.Name, RunID: r.id, ProviderVersion: r.Version, Status: r.status, CreatedAt: r.createdAt,
		Window: w, Pause: r.q.Pause, Storages: map[string]StorageRecord{},
	}
	for name, c := range r.captured {
		f := r.facts[name]
		m.Storages[name] = StorageRecord{
			Driver: r.q.Storages[name].Driver, Arguments: r.q.Storages[name].Arguments, SourceID: f.SourceID, ToolVersions: f.ToolVersions, Witness: f.Witness, ByTime: f.ByTime,
			Artifacts: c.Artifacts, Tables: c.Tables, HasCoordinator: c.HasCoordinator, CoordinatorNewest: c.CoordinatorNewest, Extra: c.Extra,
		}
	}
	for name, artifacts := range r.kept {
		f := r.facts[name]
		m.Storages[name] = StorageRecord{
			Driver: r.q.Storages[name].Driver, Arguments: r.q.Storages[name].Arguments, SourceID: f.SourceID, Witness: f.Witness, ByTime: f.ByTime, Artifacts: artifacts,
		}
	}
	return m
}

func (r *run) backup() Backup {
	return Backup{Manifest: r.manifest(), Recorded: r.recorded, Warnings: r.warnings}
}

// abandon discards what the run made, after everything is unpaused, and returns what is left with the run's error.
func (r *run) abandon(ctx context.Context, cause error) (Backup, error) {
	ctx, cancel := r.Clock.WithTimeout(context.WithoutCancel(ctx), cleanUpTimeout)
	defer cancel()
	r.status, r.captured = StatusIncomplete, map[string]Captured{}
	r.releaseLock(ctx)
	keep := func() {
		for name, f := range r.facts {
			r.kept[name] = f.Planned
		}
	}
	if r.journal.doc.Manifest != nil {
		// Before anything is deleted: whoever reads the journal must not record what is not whole any more.
		r.journal.doc.Manifest = nil
		if err := r.journal.write(ctx); err != nil {
			keep()
			return r.backup(), errors.Join(cause, &Error{PhaseDelete, "journal", err})
		}
	}
	if err := r.settle(ctx); err != nil {
		keep()
		return r.backup(), errors.Join(cause, &Error{PhaseDelete, "", fmt.Errorf("waiting for the drivers to stop, so that what they made can be discarded (the next apply does it): %w", err)})
	}
	err := each(slices.Sorted(maps.Keys(r.sessions)), func(name string) error {
		if err := r.sessions[name].Discard(ctx); err != nil {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.kept[name] = r.facts[name].Planned
			return &Error{PhaseDelete, name, fmt.Errorf("discarding what this run captured (the next apply tries again): %w", err)}
		}
		return nil
	})
	// An unpause that failed, and what could not be discarded, stay in the journal for whoever comes next.
	if err == nil && (r.lifted || !r.paused()) {
		if closeErr := r.journal.close(ctx); closeErr != nil {
			err = &Error{PhaseDelete, "journal", closeErr}
		}
	}
	return r.backup(), errors.Join(cause, err)
}

// paused says whether a Pause was sent to any target.
func (r *run) paused() bool {
	return slices.ContainsFunc(r.targets, func(t *runTarget) bool { return t.record.Owner() != Unsent })
}

// release lets go of everything that a run holds in this process, and of the watchdog. One that was not told of an unpause goes on alone.
func (r *run) release(ctx context.Context) {
	ctx, cancel := r.Clock.WithTimeout(context.WithoutCancel(ctx), noteTimeout)
	defer cancel()
	if err := r.settle(ctx); err != nil {
		r.report(ctx, PhaseRecord, "", "waiting for the drivers to stop", nil, err)
	}
	for name, c := range r.clocks {
		if err := c.Close(); err != nil {
			r.report(ctx, PhaseRecord, name, "closing its connections", nil, err)
		}
	}
	if r.armed != nil {
		if err := r.armed.Close(ctx); err != nil {
			r.report(ctx, PhaseRecord, "watchdog", "ending it", nil, err)
		}
	}
	r.releaseLock(ctx)
	for _, t := range r.targets {
		if t.conn != nil {
			_ = t.conn.Close() // nothing more is asked of it
		}
	}
	r.pausing.Wait() // ended by the end of their connections
}

func (r *run) releaseLock(ctx context.Context) {
	if r.lock == nil {
		return
	}
	if err := r.lock.Release(ctx); err != nil {
		r.report(ctx, PhaseUnpause, "lock", "releasing the lock; the next run waits for its lease to pass", nil, err)
	}
	r.lock = nil
}

// keepJournal notes that the artifacts of a backup that could not be recorded are to be kept.
func (r *run) keepJournal(ctx context.Context) {
	ctx, cancel := r.Clock.WithTimeout(context.WithoutCancel(ctx), noteTimeout)
	defer cancel()
	r.journal.doc.Kept = true
	for {
		err := r.journal.write(ctx)
		if err == nil {
			return
		}
		r.report(ctx, PhaseRecord, "journal", "noting that the backup is kept", nil, err)
		if r.Clock.Sleep(ctx, recordRetry) != nil {
			return
		}
	}
}

// closeJournal closes it; a failure is a warning, because the backup is whole.
func (r *run) closeJournal(ctx context.Context) error {
	ctx, cancel := r.Clock.WithTimeout(context.WithoutCancel(ctx), noteTimeout)
	defer cancel()
	if err := r.journal.close(ctx); err != nil {
		r.warn(err.Error())
	}
	return nil
}
