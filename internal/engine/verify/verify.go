// Package verify proves from its data that a system of ScalarDB storages is transactionally consistent, by the four rules of Run.
// It knows no database: a Storage does the work, with aggregate queries where it can.
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

// Storage is one storage as the rules read it. All methods are read-only.
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
	CreatedAt int64
}

// Expected is what the manifest says a storage must hold (rule 4).
type Expected struct {
	Tables            []ExpectedTable
	HasCoordinator    bool
	CoordinatorNewest int64 // ms; 0: none
}

// ExpectedTable is one table of Expected. Rows is -1 when unknown.
type ExpectedTable struct {
	Namespace, Name string
	Rows            int64
	Estimated       bool
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
	OnePhaseCommit   map[string]bool     // storages whose transactions may leave no coordinator entry
	Expected         map[string]Expected // by storage; nil for none
	Now              time.Time           // for live checks
	MaxSamples       int                 // violations named per table and rule; 0: 5
	Parallel         int                 // tables at once; 0: 4
	Progress         func(message string, fields map[string]any)
}

// Window is the pause window that the copies were taken in.
type Window struct{ From, Until time.Time }
