package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// ManifestVersion is the version of the manifest's format that this code writes. It reads this one and older ones.
const ManifestVersion = 1

// Manifest is the versioned JSON document of one backup. It holds no secret.
type Manifest struct {
	Version         int                      `json:"version"`
	BackupID        string                   `json:"backup_id"`
	RunID           string                   `json:"run_id"`
	ProviderVersion string                   `json:"provider_version"`
	Status          string                   `json:"status"` // StatusAvailable or StatusIncomplete
	CreatedAt       time.Time                `json:"created_at"`
	Window          PauseWindow              `json:"pause_window"`
	Pause           PauseSettings            `json:"pause"`
	Storages        map[string]StorageRecord `json:"storages"`
}

// Statuses of a backup.
const (
	StatusAvailable  = "available"  // complete; the only one that can be restored
	StatusIncomplete = "incomplete" // something is missing: a failed run's partial record, or an artifact that is gone
	StatusExpired    = "expired"    // every artifact is gone
)

// StorageRecord is one storage of a backup.
type StorageRecord struct {
	Driver string `json:"driver"`
	// Arguments are the driver object's arguments as typed (no secrets), so that import then plan is empty.
	Arguments         json.RawMessage   `json:"arguments,omitempty"`
	SourceID          string            `json:"source_id"`
	ToolVersions      map[string]string `json:"tool_versions,omitempty"`
	Witness           string            `json:"witness"`
	ByTime            bool              `json:"by_time,omitempty"` // restored by scalardb_pitr_restore, not from artifacts
	Artifacts         []Artifact        `json:"artifacts"`
	Tables            []TableWitness    `json:"tables,omitempty"`
	HasCoordinator    bool              `json:"has_coordinator,omitempty"`
	CoordinatorNewest int64             `json:"coordinator_newest,omitempty"`
	Extra             map[string]string `json:"extra,omitempty"`
}

// PauseSettings are the durations of a pause.
type PauseSettings struct {
	Drain            time.Duration `json:"drain_timeout"`
	Min              time.Duration `json:"min_duration"`
	Max              time.Duration `json:"max_duration"` // from the first Pause sent; ended here by the engine and by the watchdog
	ServerClockBound time.Duration `json:"server_clock_bound"`
}

// PauseWindow is the record of one window. Times are UTC; those that do not exist (no restore point needed) are zero.
type PauseWindow struct {
	BackupID     string                    `json:"backup_id"`
	Status       string                    `json:"status"`
	StartedAt    time.Time                 `json:"started_at"`
	EndedAt      time.Time                 `json:"ended_at"`
	RestorePoint time.Time                 `json:"restore_point"`
	SafeFrom     time.Time                 `json:"safe_from"`
	SafeUntil    time.Time                 `json:"safe_until"`
	DurationMS   int64                     `json:"duration_ms"` // EndedAt − StartedAt
	DrainMS      int64                     `json:"drain_ms"`    // first Pause sent to StartedAt
	Targets      map[string][]TargetRecord `json:"targets"`     // by group
	ClockBounds  map[string]ClockBoundMS   `json:"clock_bounds"`
}

// TargetRecord is what happened to one target.
type TargetRecord struct {
	Address     string    `json:"address"`
	Incarnation string    `json:"incarnation"`
	PausedAt    time.Time `json:"paused_at"`   // confirmed by CheckPaused; zero if never
	UnpausedAt  time.Time `json:"unpaused_at"` // confirmed by CheckPaused; zero if never
}

// ClockBoundMS is a ClockBound in milliseconds, rounded away from zero for the uncertainty.
type ClockBoundMS struct {
	OffsetMS      int64 `json:"offset_ms"`
	UncertaintyMS int64 `json:"uncertainty_ms"`
}

// Bound is the recorded bound to reckon with.
func (b ClockBoundMS) Bound() ClockBound {
	return ClockBound{Offset: time.Duration(b.OffsetMS) * time.Millisecond, Uncertainty: time.Duration(b.UncertaintyMS) * time.Millisecond}
}

// DecodeManifest reads a manifest; a version that this release does not know is an error.
func DecodeManifest(data []byte) (Manifest, error) {
	var m Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return Manifest{}, fmt.Errorf("decoding a manifest: %w", err)
	}
	if m.Version < 1 || m.Version > ManifestVersion {
		return Manifest{}, fmt.Errorf("decoding a manifest: version %d is not known to this release (it knows 1 to %d): use a newer provider", m.Version, ManifestVersion)
	}
	if m.BackupID == "" || !ValidRunID(m.RunID) {
		return Manifest{}, errors.New("decoding a manifest: it names no backup or no run")
	}
	return m, nil
}

// ReadManifest reads a backup's manifest from the catalog; ErrNotFound.
func ReadManifest(ctx context.Context, c Catalog, backupID string) (Manifest, error) {
	data, _, err := c.Read(ctx, ManifestName(backupID))
	if err != nil {
		return Manifest{}, fmt.Errorf("reading the manifest of backup %s in %s: %w", backupID, c.Describe(), err)
	}
	m, err := DecodeManifest(data)
	if err != nil {
		return Manifest{}, fmt.Errorf("backup %s in %s: %w", backupID, c.Describe(), err)
	}
	if m.BackupID != backupID {
		return Manifest{}, fmt.Errorf("backup %s in %s: its manifest is that of %s", backupID, c.Describe(), m.BackupID)
	}
	return m, nil
}

// Delete deletes a backup's artifacts and then its manifest, so that a deletion cut short can be found and finished. What is gone is no error.
// Only what the manifest's own run made is deleted: the manifest in the catalog stays if it is another run's.
func (e *Engine) Delete(ctx context.Context, m Manifest) error {
	err := each(slices.Sorted(maps.Keys(m.Storages)), func(name string) error {
		s := m.Storages[name]
		store, err := e.Artifacts(ctx, name, JournalStorage{Driver: s.Driver, Arguments: s.Arguments, Artifacts: s.Artifacts})
		if err != nil {
			return &Error{PhaseDelete, name, err}
		}
		for _, a := range s.Artifacts {
			if err := store.Delete(ctx, a); err != nil {
				return &Error{PhaseDelete, name, fmt.Errorf("deleting %s: %w", a.ID, err)}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	there, err := ReadManifest(ctx, e.Catalog, m.BackupID)
	switch {
	case errors.Is(err, ErrNotFound):
	case err != nil:
		return &Error{PhaseDelete, "catalog", err}
	case there.RunID == m.RunID:
		if err := e.Catalog.Delete(ctx, ManifestName(m.BackupID)); err != nil {
			return &Error{PhaseDelete, "catalog", fmt.Errorf("deleting the manifest of backup %s: %w", m.BackupID, err)}
		}
	}
	// A run that could not clean up after itself left a journal: its artifacts are gone now.
	if w, err := reopenJournal(ctx, e.Catalog, m.RunID); err == nil && len((OpenJournal{Journal: w.doc}).Paused()) == 0 {
		return w.close(ctx)
	}
	return nil
}
