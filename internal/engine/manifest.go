package engine

import (
	"encoding/json"
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
