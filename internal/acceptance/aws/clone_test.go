//go:build acceptance

package aws

import (
	"strings"
	"testing"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/cores"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/dynamo"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/scalardb"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/adminserver"
)

const (
	backupAddress  = "scalardb_consistent_backup.release"
	windowAddress  = "scalardb_pause_window.release"
	restoreAddress = "scalardb_pitr_restore.staging"
)

// shop is a system over PostgreSQL in RDS and DynamoDB, with the coordinator in the latter, as real ScalarDB makes and uses it.
type shop struct {
	*cloud
	*scalardb.System
}

func startShop(t *testing.T) *shop {
	t.Helper()
	c := startCloud(t, dynamo.Options{})
	host, port := c.instance(t, "prod-orders")
	return &shop{c, scalardb.Start(t, scalardb.Config{Namespaces: []string{"bank", "bank2"}, Accounts: 10, Storages: []scalardb.Storage{
		scalardb.PostgreSQL("orders", host, port, databaseName, masterUser, masterPassword, "bank"),
		scalardb.DynamoDB("events", region, c.dynamo.Endpoint(), c.s3.AccessKey, c.s3.SecretKey, "prod.", "bank2", "coordinator"),
	}})}
}

func logins() map[string][2]string {
	return map[string][2]string{"orders": {masterUser, masterPassword}}
}

const sources = `
    orders = { aws_rds_instance = { identifier = "prod-orders", database = "shop" } }
    events = { aws_dynamodb = { prefix = "prod." } }
`

// clone is a restore by time under a name, which is the prefix of all that it makes.
func clone(t *testing.T, w *cores.Workspace, name, window, more string) {
	t.Helper()
	w.Write(t, "restore.tf", `resource "scalardb_pitr_restore" "staging" {
  name         = %q
  %s
  storages = {
    orders = { aws_rds_instance = { source_identifier = "prod-orders", identifier = "%s-orders", database = "shop" } }
    # At ScalarDB's ten units of capacity, verification would read the coordinator table at 20 KB a second.
    events = { aws_dynamodb = { source_prefix = "prod.", prefix = "%s.", billing_mode = "PAY_PER_REQUEST" } }
  }
  %s
}
output "properties" {
  value = scalardb_pitr_restore.staging.scalardb_properties
}
`, name, window, name, name, more)
}

// read reads a clone as an application would, by the properties that the restore hands out.
func (s *shop) read(t *testing.T, w *cores.Workspace, restore string) (rows int, sum int64) {
	t.Helper()
	properties := map[string]string{}
	handed, _ := w.Values(t, restore)["scalardb_properties"].(map[string]any)
	for name, v := range handed {
		properties[name], _ = v.(string)
	}
	const prefix = "scalar.db.multi_storage.storages."
	for name, v := range map[string]string{
		"orders.username": masterUser, "orders.password": masterPassword,
		"events.username": s.s3.AccessKey, "events.password": s.s3.SecretKey, "events.dynamo.endpoint_override": s.dynamo.Endpoint(),
	} {
		if properties[prefix+name] != "" {
			t.Errorf("scalardb_properties has a credential: %s", name)
		}
		properties[prefix+name] = v
	}
	return scalardb.ReadBy(t, s.Config, properties)
}

// TestClone: a busy system over RDS and DynamoDB is paused for one window, and restored to it under new names: every sum is right, and a
// plan after it is empty. Without the pause, verification refuses to hand the clone out.
func TestClone(t *testing.T) {
	t.Parallel()
	s := startShop(t)
	s.Bank.StartWriters(t, 4)
	s.Bank.WaitForCommits(t, 20, limit)
	mirror := cores.NewMirror(t)
	before := s.inventory()
	w := s.workspace(t, cores.Newest(t), mirror, s.Addr, logins())
	w.Init(t)

	w.Write(t, "backup.tf", "resource \"scalardb_consistent_backup\" \"release\" {\n  name = \"release\"\n  storages = {%s  }\n}\n", sources)
	w.Must(t, "apply", "-auto-approve", "-input=false", "-no-color")
	window, _ := w.Values(t, backupAddress)["pause_window"].(map[string]any)
	if window["status"] != "available" || window["restore_point"] == nil {
		t.Fatalf("the window: %v", window)
	}
	t.Logf("the window: %v to %v, safe %v to %v, restore point %v; drained in %v ms", window["started_at"], window["ended_at"], window["safe_from"], window["safe_until"], window["restore_point"], window["drain_ms"])
	if s.Paused(t) {
		t.Fatal("the server is left paused")
	}
	w.PlanIsEmpty(t)
	w.Must(t, "state", "rm", backupAddress)
	w.Must(t, "import", "-input=false", "-no-color", backupAddress, "release")
	w.PlanIsEmpty(t)
	s.Bank.WaitForCommits(t, 20, limit) // what the clone must not have

	clone(t, w, "staging", "pause_window = "+backupAddress+".pause_window", "")
	w.Must(t, "apply", "-auto-approve", "-input=false", "-no-color")
	w.PlanIsEmpty(t)
	values := w.Values(t, restoreAddress)
	if values["status"] != "available" {
		t.Errorf("the restore is %v", values["status"])
	}
	if v, _ := values["verification"].(map[string]any); v["passed"] != true {
		t.Errorf("the verification: %v", values["verification"])
	}
	if rows, sum := s.read(t, w, restoreAddress); rows != s.Config.Rows() || sum != s.Config.Total() {
		t.Errorf("the clone has %d rows with a sum of %d, want %d and %d", rows, sum, s.Config.Rows(), s.Config.Total())
	}

	// Imported by its name, it plans empty.
	w.Must(t, "state", "rm", restoreAddress)
	w.Must(t, "import", "-input=false", "-no-color", restoreAddress, "staging")
	w.PlanIsEmpty(t)

	// Everything that was made goes with it, and nothing else.
	clone(t, w, "staging", "pause_window = "+backupAddress+".pause_window", "deletion_protection = false")
	w.Must(t, "apply", "-auto-approve", "-input=false", "-no-color")
	if r := w.Destroy(t); r.ExitCode != 0 {
		t.Fatalf("destroying:\n%s", r.All())
	}
	s.unchanged(t, before)

	t.Run("Snapshots", func(t *testing.T) { s.snapshots(t, mirror) })
	t.Run("WithoutPause", func(t *testing.T) { s.withoutPause(t, mirror) })
}

// snapshots does the same with a snapshot of RDS and on-demand backups of DynamoDB, which outlive what recovery by time keeps.
func (s *shop) snapshots(t *testing.T, mirror *cores.Mirror) {
	s.Bank.WaitForCommits(t, 20, limit)
	before := s.inventory()
	w := s.workspace(t, cores.OpenTofu(t), mirror, s.Addr, logins())
	w.Init(t)
	w.Write(t, "main.tf", `resource "scalardb_consistent_backup" "kept" {
  name = "kept"
  storages = {
    orders = { aws_rds_instance = { identifier = "prod-orders", database = "shop", method = "snapshot" } }
    events = { aws_dynamodb = { prefix = "prod.", method = "on_demand" } }
  }
}
resource "scalardb_snapshot_restore" "kept" {
  name      = "kept"
  backup_id = scalardb_consistent_backup.kept.id
  storages = {
    orders = { aws_rds_instance = { identifier = "kept-orders", database = "shop" } }
    events = { aws_dynamodb = { prefix = "kept.", billing_mode = "PAY_PER_REQUEST" } }
  }
  deletion_protection = false
}
`)
	w.Must(t, "apply", "-auto-approve", "-input=false", "-no-color")
	w.PlanIsEmpty(t)
	if rows, sum := s.read(t, w, "scalardb_snapshot_restore.kept"); rows != s.Config.Rows() || sum != s.Config.Total() {
		t.Errorf("the copy has %d rows with a sum of %d, want %d and %d", rows, sum, s.Config.Rows(), s.Config.Total())
	}
	if r := w.Destroy(t); r.ExitCode != 0 {
		t.Fatalf("destroying:\n%s", r.All())
	}
	s.unchanged(t, before)
}

// withoutPause lets the provider pause a target that is none, while the bank goes on: a window like any other, only that it proves nothing.
func (s *shop) withoutPause(t *testing.T, mirror *cores.Mirror) {
	deaf, err := adminserver.Start(adminserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(deaf.Close)
	const rounds = 3
	caught := 0
	for range rounds {
		s.Bank.WaitForCommits(t, 20, limit)
		before := s.inventory()
		w := s.workspace(t, cores.Oldest(t), mirror, deaf.Address(), logins())
		w.Init(t)
		w.Write(t, "window.tf", "resource \"scalardb_pause_window\" \"release\" {\n  name = \"nothing\"\n  storages = {%s  }\n}\n", sources)
		clone(t, w, "busy", "pause_window = "+windowAddress, "")
		r := w.Apply(t)
		if r.ExitCode != 0 && strings.Contains(r.All(), "not transactionally consistent") {
			caught++
		} else {
			t.Errorf("verification did not refuse a copy of a bank that never stopped:\n%s", r.All())
		}
		if w.Values(t, restoreAddress)["scalardb_properties"] != nil {
			t.Error("what was not verified is handed out")
		}
		if r := w.Destroy(t); r.ExitCode != 0 {
			t.Fatalf("destroying:\n%s", r.All())
		}
		s.unchanged(t, before)
	}
	t.Logf("verification caught %d of %d copies without a pause", caught, rounds)
}
