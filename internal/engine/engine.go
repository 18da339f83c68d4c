// Package engine takes and restores consistent backups of a system that runs ScalarDB over several databases.
//
// It knows neither Terraform nor a cloud: it talks to the small interfaces of this file and takes time only from its
// Clock, so that the whole sequence of a backup runs in a deterministic simulation. backup.go has the nine phases, in order.
package engine

import (
	"context"
	"errors"
	"io"
	"time"
)

// Phase is one step of a backup. The names are used in logs, errors, tests and fault injection.
type Phase string

// The nine phases of a backup, in order.
const (
	PhaseResolve   Phase = "resolve"   // groups to targets; nothing touched
	PhasePreflight Phase = "preflight" // the lock, and every check that can be made before the pause; nothing touched
	PhaseArm       Phase = "arm"       // journal written, watchdog answers for itself
	PhasePause     Phase = "pause"     // Pause sent to every target, confirmed by CheckPaused
	PhaseCapture   Phase = "capture"   // window open: drivers fix their captures
	PhaseConfirm   Phase = "confirm"   // everything that could void the window is looked at again
	PhaseUnpause   Phase = "unpause"   // every target that a Pause was sent to is unpaused, and confirmed
	PhaseAwait     Phase = "await"     // captures become restorable
	PhaseRecord    Phase = "record"    // the manifest goes into the catalog, the journal is closed
)

// Phases lists the nine phases in their order.
func Phases() []Phase {
	return []Phase{PhaseResolve, PhasePreflight, PhaseArm, PhasePause, PhaseCapture, PhaseConfirm, PhaseUnpause, PhaseAwait, PhaseRecord}
}

// Phases of a restore and of a consistency check, for errors and logs.
const (
	PhaseRestore Phase = "restore"
	PhaseVerify  Phase = "verify"
	PhaseDelete  Phase = "delete"
)

// Sentinels that implementations of the interfaces below return, wrapped or bare.
var (
	ErrNotFound = errors.New("not found")      // Catalog: no such object; Source and Destination: the artifact is gone
	ErrExists   = errors.New("already exists") // Catalog.Create and ObjectWriter.Commit never overwrite
	ErrChanged  = errors.New("changed since")  // Catalog.Replace: another version is there
)

// Error says which phase failed on what. Backup joins several; those of unpause come first, then those of pause, then the rest.
type Error struct {
	Phase   Phase
	Subject string // a storage's or a target's name, or empty for the whole
	Err     error
}

func (e *Error) Error() string {
	if e.Subject == "" {
		return string(e.Phase) + ": " + e.Err.Error()
	}
	return string(e.Phase) + ": " + e.Subject + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// Clock is where all time comes from.
type Clock interface {
	// Now is the wall clock of this machine.
	Now() time.Time
	// Boot is the time since boot, suspension included. Wall clock and Boot must agree in a window.
	Boot() time.Duration
	// Sleep returns ctx's error when ctx ends first.
	Sleep(ctx context.Context, d time.Duration) error
	// WithTimeout is context.WithTimeout on this clock.
	WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc)
}

// Target is one process that answers the scalar-admin API.
type Target struct {
	Group   string `json:"group"`
	Address string `json:"address"` // the pinned peer, "IP:port"; the identity of a target within its group
	Name    string `json:"name"`    // "host:port" as configured or as DNS SRV named it; used for TLS and messages
	// Incarnation changes when the target's process restarts, where the resolver can know it (Kubernetes). Empty
	// elsewhere: then the connection's stands for it.
	Incarnation string `json:"incarnation,omitempty"`
}

// Resolver turns one target group into its targets. It is called twice in a run: first to act on, then to compare.
type Resolver interface {
	Resolve(ctx context.Context) ([]Target, error)
}

// Dialer makes connections to targets. The watchdog has its own, made from the same settings.
type Dialer interface {
	Dial(ctx context.Context, t Target) (AdminConn, error)
}

// AdminConn is one connection to one target; its peer address stays the same for its life.
// Every call ends by a deadline of its own, also when ctx has none.
type AdminConn interface {
	// Pause asks for wait_outstanding=true with the given drain timeout; the RPC's own deadline lies beyond it. It makes one attempt.
	// A nil error says only that the target answered OK: CheckPaused must confirm it. A non-nil error is a *PauseError.
	Pause(ctx context.Context, drain time.Duration) error
	CheckPaused(ctx context.Context) (bool, error)
	Unpause(ctx context.Context) error
	// Incarnation names the connection as it is now, "connection LOCAL->PEER #N"; a reconnect changes it.
	Incarnation() string
	Close() error
}

// PauseOutcome says what a failed Pause may have done.
type PauseOutcome string

// Outcomes of a failed Pause.
const (
	PauseAborted     PauseOutcome = "aborted"      // lost a race on the server (ABORTED): nothing was done, the only one to retry
	PauseRefused     PauseOutcome = "refused"      // a definite failure; the target is not paused by this call
	PauseStillPaused PauseOutcome = "still paused" // TIMED_OUT_STILL_PAUSED: somebody else's pause (or an earlier unknown one of ours) holds
	PauseUnknown     PauseOutcome = "unknown"      // sent, no answer: it may still land
	PauseNotSent     PauseOutcome = "not sent"     // the request provably never left
)

// PauseError is the error of AdminConn.Pause.
type PauseError struct {
	Outcome PauseOutcome
	Err     error
}

func (e *PauseError) Error() string { return "pausing (" + string(e.Outcome) + "): " + e.Err.Error() }
func (e *PauseError) Unwrap() error { return e.Err }

// Version identifies one content of a catalog object, for Replace.
type Version string

// ObjectInfo describes one object of the catalog.
type ObjectInfo struct {
	Name     string
	Size     int64
	Modified time.Time // by the catalog's clock
}

// Catalog is the place where manifests, dumps, the journal and the lock live. Names are slash-separated, relative, and
// clean ("backups/x/manifest.json"). Writes are atomic and durable when they return: a reader sees all of an object or none.
type Catalog interface {
	// Create writes a new object; ErrExists if there is one, which is left as it is.
	Create(ctx context.Context, name string, data []byte) error
	// Replace writes only over the given version; ErrChanged if the object has another by now, ErrNotFound if it is gone.
	Replace(ctx context.Context, name string, data []byte, old Version) (Version, error)
	// Read returns the whole of a small object (at most 16 MiB); ErrNotFound.
	Read(ctx context.Context, name string) ([]byte, Version, error)
	// List returns the objects whose names begin with prefix, sorted by name; half-written ones are not among them.
	List(ctx context.Context, prefix string) ([]ObjectInfo, error)
	// Stat is List for one object; ErrNotFound.
	Stat(ctx context.Context, name string) (ObjectInfo, error)
	// Delete removes one object; removing what is not there is no error.
	Delete(ctx context.Context, name string) error
	// NewWriter streams an object that appears only with Commit. Close without Commit leaves nothing behind.
	NewWriter(ctx context.Context, name string) (ObjectWriter, error)
	// Open streams an object; ErrNotFound.
	Open(ctx context.Context, name string) (io.ReadCloser, error)
	// Describe names the catalog in messages ("directory ./scalardb-backups").
	Describe() string
}

// ObjectWriter is one streamed object.
type ObjectWriter interface {
	io.Writer
	// Commit makes the object durable and visible; ErrExists if one of that name came to be meanwhile.
	Commit(ctx context.Context) error
	// Close drops what was not committed. It may be called after Commit.
	Close() error
}

// SpaceReporter is what a Catalog may also be: it knows how much room is left, in bytes.
type SpaceReporter interface {
	Free(ctx context.Context) (int64, error)
}

// LocalDirectory is what a Catalog may also be: a directory of this machine, for tools that write files themselves.
// What is put into the folder that Spool makes is not part of the catalog, and List never shows it.
type LocalDirectory interface {
	// Spool makes a private (0700) temporary folder on the catalog's file system. The caller removes it.
	// Folders of dead runs are found by their run id.
	Spool(runID, storage string) (string, error)
}

// Run identifies one attempt; it is handed to every driver.
type Run struct {
	ID       string // random; part of the name or the tags of everything the run makes
	BackupID string // the user's name of the backup
	Catalog  Catalog
	// Prefix is where the run's objects go in the catalog: "backups/BACKUPID/RUNID/". A driver adds "STORAGE/...".
	Prefix string
	// Custody is told of child processes and secret files, before they come to be, so that the watchdog can end them when this process dies.
	Custody Custody
	// OpenedAt is the start of the pause window; zero until it opened.
	OpenedAt func() time.Time
	// Window is the window as confirm closed it, for Await; zero before.
	Window func() PauseWindow
	// ServerClockBound is how far the clocks of ScalarDB's servers may be from ours: what stamps tx_created_at.
	ServerClockBound time.Duration
	Report           func(message string, fields map[string]any)
}

// Custody keeps account of what must not outlive the run.
type Custody interface {
	// Process is told of a child that was started; start is its start time in clock ticks since boot (/proc/PID/stat, field 22), so that
	// a recycled PID is never killed. The returned func says that the child is gone.
	Process(pid int, start uint64, name string) (done func())
	// SecretFile is told of a file or directory that will hold secrets or scratch data, before it is made. The returned func says that it was removed.
	SecretFile(path string) (done func())
}

// Source is one storage to be captured in one run.
type Source interface {
	// Preflight makes every check that can be made before the pause, read-only, and returns all its failures joined. The Session it
	// returns has its connections open and its tools ready. On an error it has released everything itself.
	Preflight(ctx context.Context, run Run) (Session, error)
	// OpenClock opens only what is needed to measure the storage's clock (a pause window on its own captures nothing).
	OpenClock(ctx context.Context) (ClockSession, error)
}

// ClockSession measures a storage's clock.
type ClockSession interface {
	MeasureClock(ctx context.Context) (ClockBound, error)
	Close() error
}

// Session is a Source that passed preflight. The engine calls Facts, MeasureClock, Capture, Confirm, Await in this order,
// MeasureClock once more at confirm; Discard instead of, or after, any of them; Close always, last.
type Session interface {
	// Facts are known since preflight.
	Facts() Facts
	// MeasureClock returns one bound of the storage's clock against ours: offset = storage − ours.
	MeasureClock(ctx context.Context) (ClockBound, error)
	// Capture runs in the window and returns as soon as the capture is fixed: later writes can no longer change what it holds.
	// It also takes the witness's first reading in the window. It must not wait for data to be copied.
	Capture(ctx context.Context) error
	// Confirm runs at the end of the window, before Unpause: the schema is as it was, and the witness's last reading is taken (a long look may be
	// finished in Await on a snapshot opened here). A *VoidError says that the window does not count. Cheap: the pause waits for it.
	Confirm(ctx context.Context) error
	// Await runs after the unpause, until the capture is restorable. It returns a *VoidError when the witness found a write in the window.
	Await(ctx context.Context) (Captured, error)
	// Discard removes whatever this run made for this storage, also half of it; idempotent. Its ctx outlives a cancel.
	Discard(ctx context.Context) error
	// Close releases connections, child processes and secret files; idempotent.
	Close() error
}

// VoidError says that the window does not count, and why.
type VoidError struct{ Reason string }

func (e *VoidError) Error() string { return e.Reason }

// Facts are what a storage's preflight found.
type Facts struct {
	SourceID     string            // immutable identity of what is captured (system identifier, server UUID, file)
	ToolVersions map[string]string // server and client tools, for the manifest
	Planned      []Artifact        // every artifact to come, named before the first pause, for the journal
	Witness      string            // which write witness is used, or "none"
	// NeedsInstant: the window must hold a restore point. Granule is the granularity of restore times.
	NeedsInstant bool
	Granule      time.Duration
	// ByTime: nothing is captured but the instant. Such a storage is restored by scalardb_pitr_restore, not from artifacts.
	ByTime   bool
	Warnings []string // for the user, none of them a reason to refuse
}

// ClockBound is the measured offset of a storage's clock (storage − ours) and its uncertainty.
type ClockBound struct {
	Offset      time.Duration
	Uncertainty time.Duration
}

// Artifact is what a capture leaves behind. Plain data: it goes into the manifest and into state, and is all that
// a later run has to find, check or delete it by.
type Artifact struct {
	Kind   string            `json:"kind"`             // "postgresql_dump", ...
	ID     string            `json:"id"`               // catalog object name, ARN, ...
	Size   int64             `json:"size,omitempty"`   // bytes, as stored
	SHA256 string            `json:"sha256,omitempty"` // hex, of the bytes as stored
	Extra  map[string]string `json:"extra,omitempty"`
}

// TableWitness is what a later verification compares a restored table with.
type TableWitness struct {
	Namespace     string `json:"namespace"`
	Table         string `json:"table"`
	Transactional bool   `json:"transactional"`
	// Rows is the number of rows in the capture, exact where Estimated is false; -1 when unknown.
	Rows      int64 `json:"rows"`
	Estimated bool  `json:"estimated,omitempty"`
	// NewestCommitted is the newest tx_committed_at (ms) in the capture; 0 where there is none, or it was not read.
	NewestCommitted int64 `json:"newest_committed,omitempty"`
}

// Captured is the result of Await.
type Captured struct {
	Artifacts []Artifact
	Tables    []TableWitness
	// CoordinatorNewest is the newest tx_created_at (ms) of the coordinator table in the capture; 0 where this storage has none or it is empty, -1 where it
	// was not read.
	CoordinatorNewest int64
	// HasCoordinator says that the coordinator table lies in this storage.
	HasCoordinator bool
	Extra          map[string]string // what a restore needs to know (versions, namespaces)
}

// ArtifactStore reads and deletes artifacts by their record alone, long after the run that made them.
type ArtifactStore interface {
	// Inspect returns ErrNotFound when the artifact is gone, nil when it is there and whole.
	Inspect(ctx context.Context, a Artifact) error
	// Delete removes it; what is gone is no error.
	Delete(ctx context.Context, a Artifact) error
}

// Destination is where one storage of a backup goes: a new database, or one that is empty.
type Destination interface {
	// Preflight makes every check that can be made before anything is written; all failures joined.
	Preflight(ctx context.Context, r StorageBackup) error
	// Restore fills it. On an error Restored still says what exists, so that Delete can clean up.
	Restore(ctx context.Context, r StorageBackup) (Restored, error)
	// Inspect returns ErrNotFound when the restored storage is gone.
	Inspect(ctx context.Context, r Restored) error
	// Delete removes what Restore created; what existed before is left as it is.
	Delete(ctx context.Context, r Restored) error
	// Close releases everything; idempotent.
	Close() error
}

// StorageBackup is one storage of a manifest as a Destination sees it.
type StorageBackup struct {
	Storage string        // its name in the backup
	RunID   string        // of the restore
	Name    string        // of the restore
	Record  StorageRecord // zero where only a pause window is known
	// RestorePoint is the instant to restore to, by the storage's clock; zero: from Record's artifacts.
	RestorePoint time.Time
	Catalog      Catalog
	Report       func(message string, fields map[string]any)
	Custody      Custody
	// Announce records durably what Restore is about to make (what Delete needs, to tell it from another's), before it is made: so the next
	// attempt finds what a killed one left. Each call replaces the last; what Restore returns replaces them all.
	Announce func(ctx context.Context, r Restored) error
}

// ByTime says that the restore goes to an instant, not from artifacts.
func (r StorageBackup) ByTime() bool { return !r.RestorePoint.IsZero() }

// Restored is what a restore made.
type Restored struct {
	Objects  []RestoredObject `json:"objects"`
	Endpoint string           `json:"endpoint,omitempty"`
	Port     int64            `json:"port,omitempty"`
	// Properties is what a ScalarDB configuration needs to reach the storage, without the storage's prefix and without credentials
	// ("storage" = "jdbc", "contact_points" = ...).
	Properties map[string]string `json:"properties,omitempty"`
}

// RestoredObject is one thing that a restore filled. Created says that the restore made it (so destroy deletes it).
type RestoredObject struct {
	Kind    string            `json:"kind"` // "postgresql_database", "mysql_database", "sqlite_file"
	ID      string            `json:"id"`
	Created bool              `json:"created"`
	Extra   map[string]string `json:"extra,omitempty"`
}

// Reporter receives the progress of a run: the provider's log, a test's slice.
type Reporter interface {
	Report(ctx context.Context, e Event)
}

// Event is one step of a run.
type Event struct {
	At      time.Time
	Phase   Phase
	Subject string
	Message string
	Fields  map[string]any
	Err     error
}
