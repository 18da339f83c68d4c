//go:build acceptance

package aws

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/cores"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/dynamo"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/adminserver"
)

// TestManyTables: 300 tables under a core, throttled, with 5 % of all calls failing in one way or another, and fewer restores at once than asked
// for. The state stays small, nothing is lost, and nothing is left.
func TestManyTables(t *testing.T) {
	t.Parallel()
	c := startCloud(t, dynamo.Options{Factor: 300, MaxRestores: 30})
	const tables = 298
	c.dynamo.Seed(t, region, c.s3.AccessKey, c.s3.SecretKey, "prod.", tables)
	before := c.inventory()
	target, err := adminserver.Start(adminserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(target.Close)
	w := c.workspace(t, cores.Newest(t), cores.NewMirror(t), target.Address(), nil)
	w.Init(t)
	for _, kind := range []dynamo.FaultKind{dynamo.ServerError, dynamo.ServerErrorAfter, dynamo.LostRequest, dynamo.LostAnswer, dynamo.Throttled} {
		c.dynamo.Inject(dynamo.Fault{Kind: kind, Rate: 0.01})
	}
	began := time.Now()
	w.Write(t, "backup.tf", "resource \"scalardb_consistent_backup\" \"release\" {\n  name = \"release\"\n  storages = { events = { aws_dynamodb = { prefix = \"prod.\" } } }\n}\n")
	w.Must(t, "apply", "-auto-approve", "-input=false", "-no-color")
	t.Logf("backup: %s", time.Since(began))
	restore := `resource "scalardb_pitr_restore" "staging" {
  name         = "staging"
  pause_window = scalardb_consistent_backup.release.pause_window
  storages     = { events = { aws_dynamodb = { source_prefix = "prod.", prefix = "staging." } } }
  %s
}
`
	w.Write(t, "restore.tf", restore, "")
	w.Must(t, "apply", "-auto-approve", "-input=false", "-no-color")
	t.Logf("restored and verified: %s", time.Since(began))
	w.PlanIsEmpty(t)
	t.Logf("planned: %s", time.Since(began))
	c.dynamo.ClearFaults()

	made := slices.DeleteFunc(c.inventory(), func(i string) bool { return slices.Contains(before, i) })
	if len(made) != tables+2 {
		t.Errorf("%d tables were made, want %d", len(made), tables+2)
	}
	if v, _ := w.Values(t, restoreAddress)["verification"].(map[string]any); v["passed"] != true {
		t.Errorf("the verification: %v", v)
	}
	info, err := os.Stat(filepath.Join(w.Dir, "terraform.tfstate"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the state has %d KiB", info.Size()>>10)
	if info.Size() > 2<<20 {
		t.Errorf("the state has %d KiB for %d tables", info.Size()>>10, tables)
	}

	w.Write(t, "restore.tf", restore, "deletion_protection = false")
	w.Must(t, "apply", "-auto-approve", "-input=false", "-no-color")
	c.dynamo.Inject(dynamo.Fault{Kind: dynamo.LostAnswer, Rate: 0.02}, dynamo.Fault{Kind: dynamo.Throttled, Rate: 0.02})
	if r := w.Destroy(t); r.ExitCode != 0 {
		t.Fatalf("destroying:\n%s", r.All())
	}
	c.dynamo.ClearFaults()
	t.Logf("destroyed: %s", time.Since(began))
	c.unchanged(t, before)
}
