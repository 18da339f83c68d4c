//go:build acceptance

package mysql

import (
	"testing"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/mariadb"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

// TestLeftover: what a restore left that died before it was recorded is found by its run id, and by no other.
func TestLeftover(t *testing.T) {
	from, to := mariadb.Start(t, mariadb.Options{}), mariadb.Start(t, mariadb.Options{})
	users(from)
	users(to)
	scalarDB(from)
	b := newBed(t, from)
	record, source := b.backup(t)
	if err := source.Close(); err != nil {
		t.Fatal(err)
	}
	d := b.destination(t, to)
	if _, err := d.Restore(t.Context(), b.storageBackup(record)); err != nil {
		t.Fatal(err)
	}
	finder, ok := d.(engine.LeftoverFinder)
	if !ok {
		t.Fatal("the destination cannot look for what a dead restore left")
	}
	if r, err := finder.Leftover(t.Context(), "00000000000000bb"); err != nil || len(r.Objects) != 0 {
		t.Errorf("another run's: %+v, %v", r, err)
	}
	r, err := finder.Leftover(t.Context(), b.storageBackup(record).RunID)
	if err != nil || len(r.Objects) == 0 {
		t.Fatalf("its own: %+v, %v", r, err)
	}
	if err := d.Delete(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if r, err := finder.Leftover(t.Context(), b.storageBackup(record).RunID); err != nil || len(r.Objects) != 0 {
		t.Errorf("after Delete: %+v, %v", r, err)
	}
}
