package engine

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
)

// Engine runs backups, restores and checks. All fields but Hook are required.
type Engine struct {
	Clock    Clock
	Catalog  Catalog
	Locker   Locker
	Watchdog Watchdog
	Reporter Reporter
	// Artifacts finds what reads and deletes the artifacts of one storage of a dead run.
	Artifacts func(ctx context.Context, storage string, s JournalStorage) (ArtifactStore, error)
	// Alive says whether the process that Holder named is still there; known is false where that cannot be told from here (another machine).
	Alive func(holder string) (alive, known bool)
	// Orphaned, if set, says that whoever waits for this run's result is gone: the result will be stored nowhere.
	Orphaned func() bool
	// NewRunID makes a random run id: 16 lower-case hex digits.
	NewRunID func() string
	// Holder names this process in the lock and the journal ("host/pid 123"), for messages.
	Holder  string
	Version string // of the provider, for the manifest
	// Hook, if set, is called at the entry of each phase: fault injection in tests.
	Hook func(ctx context.Context, p Phase)
}

// Group is one target group.
type Group struct {
	Resolver Resolver
	Dialer   Dialer
}

// BackupRequest is one backup, or one pause window (WindowOnly).
type BackupRequest struct {
	Name     string
	Groups   map[string]Group
	Pause    PauseSettings
	Storages map[string]StorageRequest
	// WindowOnly: storages give their clocks only; nothing is captured or recorded in the catalog, and the window holds a restore point.
	WindowOnly bool
	// ClockUncertainty bounds the safe interval of a WindowOnly run without storages.
	ClockUncertainty time.Duration
	// Unpauser is the break-glass command line for messages ("terraform-provider-scalardb unpause --catalog ... --run ..."), given a run id.
	Unpauser func(runID string) string
}

// StorageRequest is one storage of a BackupRequest.
type StorageRequest struct {
	Driver    string
	Arguments json.RawMessage // as typed
	Source    Source
}

// Backup is the record of a run. Engine.Backup returns it also with an error: what exists so far.
type Backup struct {
	Manifest Manifest
	// Recorded says that the manifest is in the catalog.
	Recorded bool
	Warnings []string
}

// RestoreRequest is one scalardb_snapshot_restore, or one scalardb_pitr_restore.
type RestoreRequest struct {
	Name string
	// Manifest is the backup's, or WindowManifest of a pause window.
	Manifest Manifest
	// RestorePoint restores by time, to this instant in the window's safe interval; zero: from the backup's artifacts.
	RestorePoint time.Time
	Storages     map[string]RestoreStorage // by the storage's name in the backup
	Verify       *VerifySettings           // nil: not verified
}

// RestoreStorage is one storage of a RestoreRequest.
type RestoreStorage struct {
	Driver      string
	Arguments   json.RawMessage // of the destination, as typed
	Destination Destination
	// OpenReader opens what verification reads, once the storage is restored.
	OpenReader func(ctx context.Context) (verify.Storage, error)
}

// VerifySettings are the user's words about a verification.
type VerifySettings struct {
	ServerClockBound time.Duration
	OnePhaseCommit   map[string]bool
	AsyncCommit      map[string]bool
	Coordinator      string
}

// RestoreRecord is what a restore made. Engine.Restore returns it also with an error.
type RestoreRecord struct {
	Name      string      `json:"name"`
	RunID     string      `json:"run_id"`
	BackupID  string      `json:"backup_id"`
	Status    string      `json:"status"` // StatusAvailable or StatusIncomplete
	CreatedAt time.Time   `json:"created_at"`
	Window    PauseWindow `json:"pause_window"`
	// RestorePoint is zero for a restore from artifacts.
	RestorePoint time.Time           `json:"restore_point"`
	Storages     map[string]Restored `json:"storages"`
	Drivers      map[string]string   `json:"drivers"`
	// Arguments are those of the destinations as typed (no secrets), so that an import knows them.
	Arguments    map[string]json.RawMessage `json:"arguments,omitempty"`
	Verification *verify.Report             `json:"verification,omitempty"`
}

// Locker takes the lock of the catalog that two runs share.
type Locker interface {
	// Acquire waits until the lock is free, or its holder stopped renewing it for a whole lease of its own. It ends with ctx.
	Acquire(ctx context.Context, runID string, lease time.Duration) (HeldLock, error)
}

// HeldLock is one holding of the lock. It renews itself until Release.
type HeldLock interface {
	// Check reads the lock again: nil while it is ours, ErrLockLost once it is another's.
	Check(ctx context.Context) error
	Ref() LockRef
	// Release frees the lock if it is still ours.
	Release(ctx context.Context) error
	// Leave stops renewing and leaves the lock as it is: to the watchdog, which renews it while it unpauses, or to the end of its lease.
	Leave()
}

// ErrLockLost is what HeldLock.Check wraps when the lock is surely another's by now.
var ErrLockLost = errors.New("the lock of the catalog was taken over by another run")

// Ownership says whose a target's pause is, as far as this run knows. Engine, watchdog, journal and unpause command share it.
type Ownership string

// The four values of Ownership.
const (
	Unsent  Ownership = "unsent"  // no Pause of this run was sent
	Unknown Ownership = "unknown" // sent, no definite outcome: it may have landed, or land yet
	Ours    Ownership = "ours"    // this run's Pause holds, or held
	Foreign Ownership = "foreign" // somebody else's pause: never lifted
)

// Watchdog starts watchdog processes.
type Watchdog interface {
	// Arm returns once the process has answered for itself that it reaches every target (CheckPaused on its own connections).
	Arm(ctx context.Context, o WatchdogOrder) (Armed, error)
}

// WatchdogOrder is what a watchdog is told before the first pause.
type WatchdogOrder struct {
	RunID    string
	BackupID string
	Targets  []Target
	Pause    PauseSettings
	Journal  string // catalog object that it logs into when it fires: WatchdogLogName
	Lock     LockRef
}

// LockRef identifies one holding of the lock.
type LockRef struct {
	Name       string `json:"name"`
	RunID      string `json:"run_id"`
	Generation int64  `json:"generation"`
}

// Armed is one armed watchdog. Its methods may be called from several goroutines.
type Armed interface {
	Custody
	// Sending is called right before the first Pause is sent, and returns when the watchdog acknowledged it: from here on it counts
	// max_duration, and treats every target as Unknown.
	Sending(ctx context.Context) error
	// Record tells the outcome of one target's Pause.
	Record(t Target, o Ownership)
	// Fired asks the process whether it ever fired (began to unpause by itself). An error means that it did not answer, which counts like true.
	Fired(ctx context.Context) (bool, error)
	// Gone is closed when the process died or fired.
	Gone() <-chan struct{}
	// Lifted says that the engine unpaused every target: from here on the watchdog has only custody of children and files.
	Lifted(ctx context.Context) error
	// Close ends the watchdog. With targets not Lifted it goes on to unpause them by itself, detached.
	Close(ctx context.Context) error
}
