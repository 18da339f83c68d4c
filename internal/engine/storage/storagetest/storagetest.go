// Package storagetest is the conformance suite that every storage runs against a live one: what Source, Session, Destination and
// ArtifactStore promise, with faults injected at every step.
package storagetest

import (
	"context"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
)

// Suite is run by each storage's tests.
type Suite struct {
	// Driver is StorageRecord.Driver.
	Driver string
	// New makes a live storage with a new bank in it. It is called once per case; cases run one after the other, and those that change the schema come last, so that
	// a storage that takes long to make can be the same one each time.
	New func(t *testing.T) *Fixture
	// Faults is how many places of a run the catalog, or the service's API, fails at, spread over all of its operations; 0 means all.
	Faults int
	// Service says that the storage is a service's, behind an API: Fixture.Wire is set, and artifacts need not lie in the catalog.
	Service bool
	// CoordinatorOnly says that the write witness reads no table but the coordinator's, and so does not see one-phase commits.
	CoordinatorOnly bool
	// Unwitnessed says that nothing tells of a write in the window (Facts.Witness is "none").
	Unwitnessed bool
	// Instant is the kind of artifact that is nothing but an instant: Delete leaves it, since nothing was made. Empty where there is none.
	Instant string
	// SecondMethod says that another Suite runs with the driver's default method on the same storage: what has nothing to do with the method is left out.
	SecondMethod bool
}

// Storage is the name of the storage in the suite's backups.
const Storage = "orders"

// System is a small system of ScalarDB in the storage under test, which a Bank is in a SQL database: the transactional tables bank.accounts and bank.audit,
// bank.notes without transaction columns, coordinator.state and scalardb.metadata. It writes like ScalarDB's server, and the provider does not know of it.
type System interface {
	// Transfer commits one transaction. at is its writer's clock in milliseconds since the epoch; 0 is now.
	Transfer(ctx context.Context, at int64) error
	// OnePhaseCommit is a Transfer that leaves no coordinator entry. It is not called with Suite.CoordinatorOnly or Unwitnessed.
	OnePhaseCommit(ctx context.Context, at int64) error
	// CreateTable makes one more table in the namespace "bank", as the Schema Loader would.
	CreateTable(ctx context.Context, name string) error
	// AddColumn adds a column to one of the tables.
	AddColumn(ctx context.Context) error
	// Rows are all rows of the live tables, sorted: a Line each, whose columns begin with account_id and balance in bank.accounts, and end with tx_created_at in
	// coordinator.state.
	Rows(ctx context.Context) ([]string, error)
}

// Fixture is one live storage and places to restore into.
type Fixture struct {
	Bank   System
	Source func() engine.Source
	// Artifacts is the driver's store over a catalog.
	Artifacts func(engine.Catalog) engine.ArtifactStore
	// Target names a new place. Each one is deleted, or no longer used, before the next is asked for.
	Target func(t *testing.T) Target
	// Secrets must never show: the password, a key.
	Secrets []string
	// Traces lists what a run could leave behind outside of the catalog (files, sessions of the server, processes, what the account has), sorted; nil where nothing
	// can. It is compared before and after a run, and polled for a while if it differs: a server needs time to see that a session ended.
	Traces func(t *testing.T) []string
	// Wire is what Source, Artifacts and Target reach their service through, with Suite.Service. Then Traces is the account's inventory, and its lines hold the names
	// of what they are about.
	Wire *Wire
	// Expire lets the retention of the storage's continuous backups end now; nil where there is none. Nothing is asked of the fixture afterwards.
	Expire func(t *testing.T)

	born time.Time // when the suite saw it first
	kept *kept     // for the cases of a restore
}

// Target is a place to restore into: a database that does not exist, or one that is empty.
type Target struct {
	Destination engine.Destination
	// Rows is System.Rows of the restored storage, read by somebody else. Where the copy has other names (a prefix), they are the source's in it.
	Rows   func(t *testing.T) ([]string, error)
	Reader func(context.Context) (verify.Storage, error)
	// Empty says whether nothing of a backup is at the place.
	Empty func(t *testing.T) bool
	// Occupy puts a database with something of its own there. untouched fails the test when that is not as it was.
	Occupy func(t *testing.T) (untouched func(t *testing.T))
}

// kindOf says which storages a case is for.
type kindOf int

const (
	every  kindOf = iota
	dumped        // the storage is a server, and its artifacts lie in the catalog
	wired         // the storage is a service's, behind an API
)

// Run runs all cases.
func (s Suite) Run(t *testing.T) {
	for _, c := range []struct {
		name   string
		run    func(*testing.T, *trial)
		of     kindOf
		method bool // it depends on the method
	}{
		{"happy path", happyPath, dumped, true},
		{"under load", underLoad, every, true},
		{"a write after the window is not in the backup", writeAfterWindow, dumped, true},
		{"a write in the window voids it", writeInWindow, every, false},
		{"discard at every step", discardAtEveryStep, every, true},
		{"cancel at every step", cancelAtEveryStep, every, true},
		{"the catalog fails", catalogFails, every, false},
		{"the catalog fails while discarding", discardFails, every, false},
		{"the API fails", apiFails, wired, true},
		{"a run dies", runDies, wired, true},
		{"restore into a place that is not empty", restoreOccupied, every, true},
		{"restore of a damaged record", restoreDamaged, every, false},
		{"restore is cut short", restoreCut, every, false},
		{"the API fails in a restore", apiFailsRestore, wired, true},
		{"a restore dies", restoreDies, wired, true},
		{"deleting artifacts", deleteArtifacts, wired, true},
		{"a change of the schema voids the window", schemaChange, every, false},
		{"the instant is too old", expires, wired, false},
	} {
		if s.SecondMethod && !c.method || s.Service && c.of == dumped || !s.Service && c.of == wired {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			tr := newTrial(t, s)
			c.run(t, tr)
			tr.checkSecrets()
		})
	}
}
