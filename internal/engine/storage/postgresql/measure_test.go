//go:build acceptance

package postgresql

import (
	"fmt"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/postgres"
)

func TestMeasure(t *testing.T) {
	s := postgres.Start(t, postgres.Options{})
	s.Exec(t, "postgres", "CREATE ROLE "+backupUser+" LOGIN IN ROLE pg_read_all_data PASSWORD "+literal(password), "CREATE ROLE "+restoreUser+" LOGIN CREATEDB PASSWORD "+literal(password))
	b := newBed(t, s)
	b.settings.Jobs = 4
	for i := range 300 {
		if err := b.bank.CreateTable(t.Context(), fmt.Sprintf("extra%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	s.Exec(t, b.settings.Database, "INSERT INTO bank.notes SELECT g::text, md5(g::text) || repeat('x', 100) FROM generate_series(1000, 1000000) g")
	at := time.Now()
	step := func(what string) { t.Logf("%-10s %s", what, time.Since(at).Round(time.Millisecond/10)); at = time.Now() }
	x := b.preflight()
	step("preflight")
	time.Sleep(20 * time.Millisecond)
	b.opened, at = time.Now(), time.Now()
	if err := x.Capture(t.Context()); err != nil {
		t.Fatal(err)
	}
	step("capture")
	s.Exec(t, "postgres", "SELECT txid_current()")
	at = time.Now()
	if err := x.Confirm(t.Context()); err != nil {
		t.Fatal(err)
	}
	step("confirm")
	r := b.await(x)
	step("await")
	_ = x.Close()
	t.Logf("%d bytes", r.Record.Artifacts[0].Size)
	at = time.Now()
	b.restored(r)
	step("restore")
}
