package verify

import (
	"context"
	"time"
)

// States of a ScalarDB record or transaction.
const (
	StatePrepared  = 1
	StateDeleted   = 2
	StateCommitted = 3
	StateAborted   = 4
)

// Table is one table that ScalarDB's metadata names.
type Table struct {
	Namespace     string
	Name          string
	Transactional bool     // has the transaction columns (its own, or those of its decoupled metadata table)
	Key           []string // primary key columns, for naming a violating record
}

// Storage is one storage as the rules read it. All methods are read-only and may be called from several goroutines; the callbacks of
// Records and Aborted call other methods of the same Storage.
type Storage interface {
	// Tables reads ScalarDB's metadata, and whether each table it names is there at all (MissingTables). The coordinator table is not among them.
	Tables(ctx context.Context) (present []Table, missing []Table, err error)
	// HasCoordinator says whether the coordinator table is in this storage.
	HasCoordinator(ctx context.Context) (bool, error)
	// Count returns the exact number of rows.
	Count(ctx context.Context, t Table) (int64, error)
	// Tally counts a transactional table's records by what the rules ask, in one pass.
	Tally(ctx context.Context, t Table, q TallyQuery) (Tally, error)
	// Records streams the records that match; the callback's error ends it.
	Records(ctx context.Context, t Table, f RecordFilter, each func(Record) error) error
	// Coordinator returns what the coordinator table of this storage says of the given transactions (ids absent from the result have no entry).
	// A record's id "parent:child" is looked up whole, then by parent with child among tx_child_ids (group commit).
	Coordinator(ctx context.Context, txIDs []string) (map[string]Entry, error)
	// CoordinatorTally is Tally for the coordinator table.
	CoordinatorTally(ctx context.Context, lateAfter int64) (CoordinatorTally, error)
	// Aborted streams the ids of ABORTED transactions in the coordinator table, in batches.
	Aborted(ctx context.Context, each func(txIDs []string) error) error
	// CommittedAmong returns the records of a table that are COMMITTED by one of the given transactions (rule 3's other half).
	CommittedAmong(ctx context.Context, t Table, txIDs []string) ([]Record, error)
	Close() error
}

// Joiner is what a Storage may also be: where the coordinator table lies in the same database, that joins, and no id is pulled to the client.
// Run uses it when the storage has the coordinator of the verification.
type Joiner interface {
	// AbortedCommits streams the COMMITTED records for which the coordinator table has an ABORTED entry under the record's whole id or its group's.
	// It may name too many: Run looks each of them up with Coordinator.
	AbortedCommits(ctx context.Context, t Table, each func(Record) error) error
	// CommitsWithoutEntry counts the COMMITTED records with tx_committed_at < before that have no coordinator entry. Imported rows are not among them.
	CommitsWithoutEntry(ctx context.Context, t Table, before int64) (int64, error)
}

// TallyQuery has the two instants of rules 1 and 2, in milliseconds since the epoch; math.MaxInt64 switches a rule off.
type TallyQuery struct {
	InFlightSince int64 // tx_prepared_at >= this and state PREPARED or DELETED: in flight
	LateAfter     int64 // tx_committed_at > this: late
}

// Tally is the counts of one table.
type Tally struct {
	Rows      int64
	InFlight  int64
	Leftovers int64 // PREPARED or DELETED, older than InFlightSince
	Late      int64
	Imported  int64 // null tx_id
	Invalid   int64 // a tx_id, but a state that no record has (ABORTED, none, unknown)

	NewestCommitted int64 // the newest tx_committed_at, ms; 0 when there is none
}

// CoordinatorTally is the counts of the coordinator table.
type CoordinatorTally struct {
	Rows, Late int64
	Newest     int64 // tx_created_at, ms; 0 when empty
}

// RecordFilter selects records of a transactional table. Zero Limit means no limit.
type RecordFilter struct {
	States         []int
	PreparedSince  int64 // tx_prepared_at >= this; 0: any
	CommittedSince int64 // tx_committed_at >= this; 0: any
	CommittedAfter int64 // tx_committed_at > this; 0: any
	Invalid        bool  // instead of States: a tx_id with a state that no record has
	Limit          int
}

// Record is one record's transaction metadata.
type Record struct {
	Key         string // readable: `account_id=3`
	TxID        string // empty when null
	State       int
	PreparedAt  int64
	CommittedAt int64
}

// Entry is one coordinator entry.
type Entry struct {
	State     int
	CreatedAt int64 // ms, by the clock of a ScalarDB server
	WrittenAt int64 // µs, by the clock of the storage itself; 0 where it does not tell
}

// Expected is what the manifest says a storage must hold (rule 4).
type Expected struct {
	Tables            []ExpectedTable
	HasCoordinator    bool
	CoordinatorNewest int64 // ms; 0: none; -1: unknown
}

// ExpectedTable is one table of Expected.
type ExpectedTable struct {
	Namespace, Name string
	// Rows is -1 when unknown. An exact number must be met exactly; of an estimated one only "some" or "none" counts: a table that had rows and is empty fails.
	Rows      int64
	Estimated bool
	// NewestCommitted is the newest tx_committed_at that the capture held, ms; 0 when unknown. It must be met: a storage without coordinator that was
	// restored to another time shows by it.
	NewestCommitted int64
}

// Clock is where Run takes time from in a live check; engine.Clock is one.
type Clock interface {
	Now() time.Time
	Sleep(ctx context.Context, d time.Duration) error
}

// Request is one verification. A nil Window makes it a check of live storages: rule 3 only.
type Request struct {
	Storages map[string]Storage
	// Coordinator names the storage that holds the coordinator table; empty: the one among Storages that has it.
	Coordinator string
	Window      *Window
	Drain       time.Duration
	// ServerClockBound is how far the clocks of ScalarDB's servers may be from the window's.
	ServerClockBound time.Duration
	// OnePhaseCommit names storages whose transactions may leave no coordinator entry, or where finished transactions are removed from it.
	OnePhaseCommit map[string]bool
	// AsyncCommit names storages that ScalarDB writes with scalar.db.consensus_commit.async_commit.enabled (or async_rollback): the client is answered, and the
	// pause drained, before the records are marked. A correct backup of such a storage may hold recent PREPARED records whose transaction has its coordinator
	// entry; ScalarDB finishes them lazily, so they count as leftovers. Without the declaration they are violations.
	AsyncCommit map[string]bool
	Expected    map[string]Expected // by storage; nil for none
	Now         time.Time           // of a live check; zero: the Clock's
	Clock       Clock               // required for live checks: what looks wrong is looked at again after a while
	MaxSamples  int                 // violations named per table and rule; 0: 5
	Parallel    int                 // tables at once; 0: 4
	// Progress may be nil. It is never called twice at once.
	Progress func(message string, fields map[string]any)
}

// Window is the pause window that the copies were taken in.
type Window struct {
	From, Until time.Time
	// Opened is From by the clock of each storage whose clock was measured: the earliest that it may have shown. Nothing was captured before. May be nil.
	Opened map[string]time.Time
}
