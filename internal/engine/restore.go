package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
)

// restoreVersion is the version of the record of a restore.
const restoreVersion = 1

// RestoreName is the catalog object that records a restore.
func RestoreName(name string) string { return "restores/" + name + ".json" }

// LeftoverFinder is what a Destination may also be whose storage keeps the run id with what is made: it finds what a restore of that run id, which
// died, made. Others Announce.
type LeftoverFinder interface {
	Leftover(ctx context.Context, runID string) (Restored, error) // no objects: nothing was left
}

// storedRestore is a RestoreRecord as the catalog keeps it.
type storedRestore struct {
	Version int    `json:"version"`
	Holder  string `json:"holder"`
	RestoreRecord
}

// ReadRestore reads the record of a restore from the catalog; ErrNotFound.
func ReadRestore(ctx context.Context, c Catalog, name string) (RestoreRecord, error) {
	s, _, err := readRestore(ctx, c, name)
	return s.RestoreRecord, err
}

func readRestore(ctx context.Context, c Catalog, name string) (storedRestore, Version, error) {
	data, v, err := c.Read(ctx, RestoreName(name))
	if err != nil {
		return storedRestore{}, "", fmt.Errorf("reading the record of restore %s in %s: %w", name, c.Describe(), err)
	}
	s, err := decodeRestore(data)
	if err != nil {
		return storedRestore{}, "", fmt.Errorf("restore %s in %s: %w", name, c.Describe(), err)
	}
	return s, v, nil
}

// decodeRestore reads the record of a restore.
func decodeRestore(data []byte) (storedRestore, error) {
	var s storedRestore
	if err := json.Unmarshal(data, &s); err != nil {
		return storedRestore{}, fmt.Errorf("decoding the record of a restore: %w", err)
	}
	if s.Version != restoreVersion {
		return storedRestore{}, fmt.Errorf("decoding the record of a restore: version %d is not known to this release", s.Version)
	}
	return s, nil
}

// WindowManifest is what there is of a backup of which only the pause window is known: no storages, no witnesses.
func WindowManifest(w PauseWindow, s PauseSettings) Manifest {
	return Manifest{Version: ManifestVersion, BackupID: w.BackupID, Status: w.Status, Window: w, Pause: s}
}

// Restorable says why a backup cannot be restored from its artifacts into the given storages (drivers by storage name); nil when it can. It is
// asked at plan, and again before anything is created.
func Restorable(m Manifest, drivers map[string]string) error {
	refusals := mismatches(m, drivers, func(s StorageRecord) bool { return !s.ByTime })
	for _, name := range slices.Sorted(maps.Keys(drivers)) {
		if s, ok := m.Storages[name]; ok && s.ByTime {
			refusals = append(refusals, fmt.Errorf("storage %s of backup %s is restored by time, and has no artifacts: use scalardb_pitr_restore for it", name, m.BackupID))
		}
	}
	return errors.Join(refusals...)
}

// RestorableByTime is Restorable for a restore to the instant at, which is the window's restore point unless the user chose another. m may be
// WindowManifest's: then nothing is known of the storages.
func RestorableByTime(m Manifest, at time.Time, drivers map[string]string) error {
	var refusals []error
	if m.Storages != nil {
		refusals = mismatches(m, drivers, func(s StorageRecord) bool { return s.ByTime })
	} else if m.Status != StatusAvailable {
		refusals = append(refusals, fmt.Errorf("the pause window is %s: only one that is available can be restored to", m.Status))
	}
	w := m.Window
	switch {
	case w.SafeFrom.IsZero() || w.SafeUntil.IsZero():
		refusals = append(refusals, errors.New("the pause window has no safe interval: nothing in it was to be restored by time"))
	case at.IsZero():
		refusals = append(refusals, errors.New("the pause window has no restore point"))
	case at.Before(w.SafeFrom) || at.After(w.SafeUntil):
		refusals = append(refusals, fmt.Errorf("the restore point %s lies outside the safe interval of the pause window (%s to %s): a transaction may have been half done then",
			at.UTC().Format(time.RFC3339Nano), w.SafeFrom.Format(time.RFC3339Nano), w.SafeUntil.Format(time.RFC3339Nano)))
	}
	return errors.Join(refusals...)
}

// mismatches compares a backup with the storages that it is to be restored into. needed says which of its storages must have a destination.
func mismatches(m Manifest, drivers map[string]string, needed func(StorageRecord) bool) []error {
	var refusals []error
	if m.Status != StatusAvailable {
		refusals = append(refusals, fmt.Errorf("backup %s is %s: only one that is available can be restored", m.BackupID, m.Status))
	}
	for _, name := range slices.Sorted(maps.Keys(m.Storages)) {
		switch driver, ok := drivers[name]; {
		case !ok && needed(m.Storages[name]):
			refusals = append(refusals, fmt.Errorf("backup %s holds storage %s, which has no destination: a system restored in part is not consistent", m.BackupID, name))
		case ok && driver != m.Storages[name].Driver:
			refusals = append(refusals, fmt.Errorf("storage %s of backup %s is %s, not %s", name, m.BackupID, m.Storages[name].Driver, driver))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(drivers)) {
		if _, ok := m.Storages[name]; !ok {
			refusals = append(refusals, fmt.Errorf("backup %s holds no storage %s (it holds %s)", m.BackupID, name, strings.Join(slices.Sorted(maps.Keys(m.Storages)), ", ")))
		}
	}
	return refusals
}

// restore is one attempt.
type restore struct {
	*Engine
	q       RestoreRequest
	record  storedRestore
	version Version
	armed   Armed
	mu      sync.Mutex
}

// Restore restores one backup into new or empty storages and verifies it. The record it returns says what exists, also with an error;
// its Status is available only when everything was restored, and passed verification where that was asked for.
func (e *Engine) Restore(ctx context.Context, q RestoreRequest) (RestoreRecord, error) {
	r := &restore{Engine: e, q: q, record: storedRestore{Version: restoreVersion, Holder: e.Holder, RestoreRecord: RestoreRecord{
		Name: q.Name, RunID: e.NewRunID(), BackupID: q.Manifest.BackupID, Status: StatusIncomplete, CreatedAt: e.Clock.Now().UTC(), Window: q.Manifest.Window, RestorePoint: q.RestorePoint,
		Storages: map[string]Restored{}, Drivers: map[string]string{}, Arguments: map[string]json.RawMessage{},
	}}}
	defer r.release(ctx)
	err := r.run(ctx)
	return r.record.RestoreRecord, err
}

// CheckRestore makes every check of a restore that reads only, as a plan does; Restore makes them again.
func (e *Engine) CheckRestore(ctx context.Context, q RestoreRequest) error {
	r := &restore{Engine: e, q: q, record: storedRestore{RestoreRecord: RestoreRecord{Name: q.Name, Drivers: map[string]string{}}}}
	for name, s := range q.Storages {
		r.record.Drivers[name] = s.Driver
	}
	if err := r.restorable(); err != nil {
		return &Error{PhasePreflight, "", err}
	}
	if _, _, err := readRestore(ctx, e.Catalog, q.Name); err == nil {
		return ErrRestoreExists
	}
	return r.preflight(ctx)
}

// ErrRestoreExists is what CheckRestore returns for a name that the catalog knows. A plan cannot tell a restore that is to be replaced (it is tainted, or
// -replace was given: then what was restored still has the names) from another workspace's, which Restore refuses.
var ErrRestoreExists = errors.New("the catalog has a restore of that name")

func (r *restore) nameTaken() error {
	return &Error{PhasePreflight, "catalog", fmt.Errorf("there is a restore named %s in %s already: choose a new name, or import it (terraform import ADDRESS %s)", r.q.Name, r.Catalog.Describe(), r.q.Name)}
}

// guard starts a watchdog without targets: it ends the tools, and removes the secret files, of a restore whose process dies.
func (r *restore) guard(ctx context.Context) error {
	armed, err := r.Watchdog.Arm(ctx, WatchdogOrder{RunID: r.record.RunID, BackupID: r.q.Manifest.BackupID})
	if err != nil {
		return &Error{PhaseArm, "watchdog", err}
	}
	r.armed = armed
	if err := armed.Lifted(ctx); err != nil {
		return &Error{PhaseArm, "watchdog", err}
	}
	return nil
}

func (r *restore) release(ctx context.Context) {
	if r.armed == nil {
		return
	}
	ctx, cancel := r.Clock.WithTimeout(context.WithoutCancel(ctx), noteTimeout)
	defer cancel()
	if err := r.armed.Close(ctx); err != nil {
		r.Reporter.Report(ctx, Event{At: r.Clock.Now().UTC(), Phase: PhaseRestore, Subject: "watchdog", Message: "ending it", Err: err})
	}
}

// run goes through the phases of a restore. What is made before an error is in the record.
func (r *restore) run(ctx context.Context) error {
	for name, s := range r.q.Storages {
		r.record.Drivers[name], r.record.Arguments[name] = s.Driver, s.Arguments
	}
	if err := r.restorable(); err != nil {
		return &Error{PhasePreflight, "", err}
	}
	for _, s := range []step{{PhaseArm, r.guard}, {PhasePreflight, r.check}, {PhaseRestore, r.restore}, {PhaseVerify, r.verify}, {PhaseRecord, r.finish}} {
		r.Reporter.Report(ctx, Event{At: r.Clock.Now().UTC(), Phase: s.phase, Message: "phase begins"})
		if r.Hook != nil {
			r.Hook(ctx, s.phase)
		}
		if err := s.run(ctx); err != nil {
			return err
		}
	}
	return nil
}

// check makes room after an earlier attempt that died, and looks at everything before anything is made.
func (r *restore) check(ctx context.Context) error {
	if err := r.cleanUpDead(ctx); err != nil {
		return err
	}
	return r.preflight(ctx)
}

// restore fills every storage, all at once.
func (r *restore) restore(ctx context.Context) error {
	// Recorded before anything is made: a run that is killed is found by it.
	if err := r.create(ctx); err != nil {
		return err
	}
	err := each(slices.Sorted(maps.Keys(r.q.Storages)), func(name string) error {
		restored, err := r.q.Storages[name].Destination.Restore(ctx, r.storage(ctx, name))
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.record.Storages, name) // what was announced only
		if len(restored.Objects) > 0 {
			r.record.Storages[name] = restored
		}
		if err != nil {
			err = &Error{PhaseRestore, name, err}
		}
		// Also when it failed, and also when ctx has ended: what exists must be found.
		if saveErr := r.save(ctx); saveErr != nil && err == nil {
			err = &Error{PhaseRecord, name, saveErr}
		}
		return err
	})
	if err != nil {
		return r.giveUpEmpty(ctx, err)
	}
	return nil
}

// finish makes the restore available.
func (r *restore) finish(ctx context.Context) error {
	r.record.Status = StatusAvailable
	if err := r.save(ctx); err != nil {
		r.record.Status = StatusIncomplete
		return &Error{PhaseRecord, "catalog", err}
	}
	return nil
}

func (r *restore) preflight(ctx context.Context) error {
	return each(slices.Sorted(maps.Keys(r.q.Storages)), func(name string) error {
		if err := r.q.Storages[name].Destination.Preflight(ctx, r.storage(ctx, name)); err != nil {
			return &Error{PhasePreflight, name, err}
		}
		return nil
	})
}

func (r *restore) restorable() error {
	if r.q.RestorePoint.IsZero() {
		return Restorable(r.q.Manifest, r.record.Drivers)
	}
	return RestorableByTime(r.q.Manifest, r.q.RestorePoint, r.record.Drivers)
}

func (r *restore) storage(ctx context.Context, name string) StorageBackup {
	return StorageBackup{
		Storage: name, RunID: r.record.RunID, Name: r.q.Name, Record: r.q.Manifest.Storages[name], RestorePoint: r.q.RestorePoint, Catalog: r.Catalog, Custody: r.armed,
		Report: func(message string, fields map[string]any) {
			r.Reporter.Report(ctx, Event{At: r.Clock.Now().UTC(), Phase: PhaseRestore, Subject: name, Message: message, Fields: fields})
		},
		Announce: func(ctx context.Context, announced Restored) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.record.Storages[name] = announced
			return r.save(ctx)
		},
	}
}

// cleanUpDead removes what an earlier attempt under the same name left, if it died. One that Terraform knows of is not touched.
func (r *restore) cleanUpDead(ctx context.Context) error {
	old, _, err := readRestore(ctx, r.Catalog, r.q.Name)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return &Error{PhasePreflight, "catalog", err}
	}
	if old.Status == StatusAvailable {
		return r.nameTaken()
	}
	if alive, known := r.Alive(old.Holder); !known || alive {
		return &Error{PhasePreflight, "catalog", fmt.Errorf("a restore named %s is under way by %s, or died on a machine that cannot be asked from here: choose a new name, or remove %s from %s once it is surely dead",
			r.q.Name, old.Holder, RestoreName(r.q.Name), r.Catalog.Describe())}
	}
	err = each(slices.Sorted(maps.Keys(r.q.Storages)), func(name string) error {
		d := r.q.Storages[name].Destination
		left, recorded := old.Storages[name]
		if f, ok := d.(LeftoverFinder); ok && !recorded {
			var err error
			if left, err = f.Leftover(ctx, old.RunID); err != nil {
				return &Error{PhasePreflight, name, fmt.Errorf("looking for what run %s left, which died: %w", old.RunID, err)}
			}
		}
		if len(left.Objects) == 0 {
			return nil
		}
		if err := d.Delete(ctx, left); err != nil {
			return &Error{PhasePreflight, name, fmt.Errorf("removing what run %s left, which died: %w", old.RunID, err)}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := r.Catalog.Delete(ctx, RestoreName(r.q.Name)); err != nil {
		return &Error{PhasePreflight, "catalog", err}
	}
	return nil
}

func (r *restore) create(ctx context.Context) error {
	data, err := json.MarshalIndent(r.record, "", "  ")
	if err != nil {
		return &Error{PhaseRecord, "catalog", err}
	}
	name := RestoreName(r.q.Name)
	if err := r.Catalog.Create(ctx, name, data); err != nil {
		return &Error{PhasePreflight, "catalog", fmt.Errorf("writing the record %s: %w", name, err)}
	}
	_, r.version, err = r.Catalog.Read(ctx, name)
	if err != nil {
		return &Error{PhasePreflight, "catalog", fmt.Errorf("reading the record %s back: %w", name, err)}
	}
	return nil
}

// save writes the record, detached from a cancel: it is what finds the restored storages again. Callers hold mu or are alone.
func (r *restore) save(ctx context.Context) error {
	ctx, cancel := r.Clock.WithTimeout(context.WithoutCancel(ctx), noteTimeout)
	defer cancel()
	data, err := json.MarshalIndent(r.record, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the record of restore %s: %w", r.q.Name, err)
	}
	v, err := r.Catalog.Replace(ctx, RestoreName(r.q.Name), data, r.version)
	if err != nil {
		return fmt.Errorf("writing the record of restore %s into %s: %w", r.q.Name, r.Catalog.Describe(), err)
	}
	r.version = v
	return nil
}

// giveUpEmpty removes the record of a restore that made nothing, so that the name is free again.
func (r *restore) giveUpEmpty(ctx context.Context, cause error) error {
	if len(r.record.Storages) > 0 {
		return cause
	}
	ctx, cancel := r.Clock.WithTimeout(context.WithoutCancel(ctx), noteTimeout)
	defer cancel()
	return errors.Join(cause, r.Catalog.Delete(ctx, RestoreName(r.q.Name)))
}

func (r *restore) verify(ctx context.Context) error {
	if r.q.Verify == nil {
		return nil
	}
	readers := map[string]verify.Storage{}
	defer func() {
		for _, s := range readers {
			_ = s.Close() // read-only
		}
	}()
	for name, s := range r.q.Storages {
		reader, err := s.OpenReader(ctx)
		if err != nil {
			return &Error{PhaseVerify, name, err}
		}
		readers[name] = reader
	}
	report, err := verify.Run(ctx, VerifyRequest(r.q.Manifest, *r.q.Verify, readers, r.Clock, func(message string, fields map[string]any) {
		r.Reporter.Report(ctx, Event{At: r.Clock.Now().UTC(), Phase: PhaseVerify, Message: message, Fields: fields})
	}))
	if err != nil {
		return &Error{PhaseVerify, "", err}
	}
	r.record.Verification = &report
	if !report.Passed {
		return errors.Join(&Error{PhaseVerify, "", errors.New(Violations(report))}, r.save(ctx))
	}
	return nil
}

// VerifyRequest is what verification needs to know of a backup whose copies readers read.
func VerifyRequest(m Manifest, s VerifySettings, readers map[string]verify.Storage, clock Clock, progress func(string, map[string]any)) verify.Request {
	q := verify.Request{
		Storages: readers, Coordinator: s.Coordinator, Window: &verify.Window{From: m.Window.StartedAt, Until: m.Window.EndedAt, Opened: map[string]time.Time{}},
		Drain: m.Pause.Drain, ServerClockBound: s.ServerClockBound, OnePhaseCommit: s.OnePhaseCommit, AsyncCommit: s.AsyncCommit,
		Expected: map[string]verify.Expected{}, Now: clock.Now(), Clock: clock, Progress: progress,
	}
	for name, recorded := range m.Window.ClockBounds {
		b := recorded.Bound()
		// The clocks that stamp writes may go in steps of a millisecond.
		q.Window.Opened[name] = m.Window.StartedAt.Add(b.Offset - b.Uncertainty - time.Millisecond)
	}
	for name, record := range m.Storages {
		if _, ok := readers[name]; !ok {
			continue
		}
		x := verify.Expected{HasCoordinator: record.HasCoordinator, CoordinatorNewest: record.CoordinatorNewest}
		for _, t := range record.Tables {
			x.Tables = append(x.Tables, verify.ExpectedTable{Namespace: t.Namespace, Name: t.Table, Rows: t.Rows, Estimated: t.Estimated, NewestCommitted: t.NewestCommitted})
		}
		q.Expected[name] = x
	}
	return q
}

// Violations is the text of a failed verification: counts by table and rule, and the first few keys.
func Violations(r verify.Report) string {
	var b strings.Builder
	fmt.Fprintf(&b, "the data is not transactionally consistent: %d violations", r.Violations)
	for _, t := range r.Tables {
		for _, rule := range slices.Sorted(maps.Keys(t.ByRule)) {
			fmt.Fprintf(&b, "\n  storage %s, table %s, rule %q: %d", t.Storage, t.Table, rule, t.ByRule[rule])
		}
		for _, sample := range t.Samples {
			fmt.Fprintf(&b, "\n    %s", sample)
		}
	}
	return b.String()
}

// DeleteRestore removes what a restore created, and its record. What existed before is left; what is gone is no error.
func (e *Engine) DeleteRestore(ctx context.Context, record RestoreRecord, destinations map[string]Destination) error {
	err := each(slices.Sorted(maps.Keys(record.Storages)), func(name string) error {
		d, ok := destinations[name]
		if !ok {
			return &Error{PhaseDelete, name, errors.New("its arguments are not known any more")}
		}
		if err := d.Delete(ctx, record.Storages[name]); err != nil {
			return &Error{PhaseDelete, name, err}
		}
		return nil
	})
	if err != nil {
		return err
	}
	there, _, err := readRestore(ctx, e.Catalog, record.Name)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil
	case err != nil:
		return &Error{PhaseDelete, "catalog", err}
	case there.RunID != record.RunID:
		return nil
	}
	if err := e.Catalog.Delete(ctx, RestoreName(record.Name)); err != nil {
		return &Error{PhaseDelete, "catalog", fmt.Errorf("deleting the record of restore %s: %w", record.Name, err)}
	}
	return nil
}
