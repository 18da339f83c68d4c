// Package storagetest is the conformance suite that every storage runs against a live one: what Source, Session, Destination and
// ArtifactStore promise, with faults injected at every step.
package storagetest

import (
	"context"
	"database/sql"
	"testing"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
)

// Suite is run by each storage's tests.
type Suite struct {
	// Driver is StorageRecord.Driver.
	Driver string
	// New makes a live storage with a new bank in it. It is called once per case; cases run one after the other.
	New func(t *testing.T) *Fixture
	// Faults is how many places of a run the catalog fails at, spread over all of its operations; 0 means all.
	Faults int
	// CoordinatorOnly says that the write witness reads no table but the coordinator's, and so does not see one-phase commits.
	CoordinatorOnly bool
}

// Fixture is one live storage and places to restore into.
type Fixture struct {
	Bank   *Bank
	Source func() engine.Source
	// Artifacts is the driver's store over a catalog.
	Artifacts func(engine.Catalog) engine.ArtifactStore
	// Target names a new place. Each one is deleted, or no longer used, before the next is asked for.
	Target func(t *testing.T) Target
	// Secrets must never show: the password, a key.
	Secrets []string
	// Traces lists what a run could leave behind outside of the catalog (files, sessions of the server, processes), sorted; nil where nothing can.
	// It is compared before and after a run, and polled for a while if it differs: a server needs time to see that a session ended.
	Traces func(t *testing.T) []string
}

// Target is a place to restore into: a database that does not exist, or one that is empty.
type Target struct {
	Destination engine.Destination
	// Open connects to the restored database as somebody else; the caller closes it.
	Open   func(t *testing.T) *sql.DB
	Reader func(context.Context) (verify.Storage, error)
	// Empty says whether nothing of a backup is at the place.
	Empty func(t *testing.T) bool
	// Occupy puts a database with something of its own there. untouched fails the test when that is not as it was.
	Occupy func(t *testing.T) (untouched func(t *testing.T))
}

// Run runs all cases.
func (s Suite) Run(t *testing.T) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, *trial)
	}{
		{"happy path", happyPath},
		{"under load", underLoad},
		{"a write after the window is not in the backup", writeAfterWindow},
		{"a write in the window voids it", writeInWindow},
		{"a change of the schema voids the window", schemaChange},
		{"discard at every step", discardAtEveryStep},
		{"cancel at every step", cancelAtEveryStep},
		{"the catalog fails", catalogFails},
		{"the catalog fails while discarding", discardFails},
		{"restore into a place that is not empty", restoreOccupied},
		{"restore of a damaged dump", restoreDamaged},
		{"restore is cut short", restoreCut},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := newTrial(t, s)
			c.run(t, tr)
			tr.checkSecrets()
		})
	}
}
