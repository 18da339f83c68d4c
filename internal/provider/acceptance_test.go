//go:build acceptance

package provider_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/hashicorp/terraform-plugin-framework/providerserver"
	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-testing/helper/resource"
	"github.com/hashicorp/terraform-plugin-testing/knownvalue"
	"github.com/hashicorp/terraform-plugin-testing/plancheck"
	"github.com/hashicorp/terraform-plugin-testing/statecheck"
	"github.com/hashicorp/terraform-plugin-testing/tfjsonpath"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/sandbox"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/versitygw"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/watchdog"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/provider"
)

// TestMain lets this test binary be its own watchdog, as the provider's binary is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == watchdog.Subcommand {
		os.Exit(provider.RunWatchdog())
	}
	if os.Getenv("TF_ACC_TERRAFORM_PATH") == "" {
		if _, err := exec.LookPath("terraform"); err != nil {
			fmt.Fprintln(os.Stderr, "these tests need a core: put terraform (1.11 or newer) on the PATH, or name one in TF_ACC_TERRAFORM_PATH (make testbed fetches some)")
			os.Exit(1)
		}
		path, _ := exec.LookPath("terraform")
		_ = os.Setenv("TF_ACC_TERRAFORM_PATH", path)
	}
	_ = os.Unsetenv("TF_CLI_CONFIG_FILE")
	os.Exit(m.Run())
}

func factories() map[string]func() (tfprotov6.ProviderServer, error) {
	return map[string]func() (tfprotov6.ProviderServer, error){
		"scalardb": func() (tfprotov6.ProviderServer, error) {
			return providerserver.NewProtocol6WithError(provider.New(provider.Production("acceptance"))())()
		},
	}
}

// bench is a sandbox with a directory for a catalog and clones.
type bench struct {
	*sandbox.Sandbox
	dir string
}

func newBench(t *testing.T) bench {
	t.Helper()
	dir := t.TempDir()
	s, err := sandbox.Start(dir, sandbox.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := s.Err(); err != nil {
			t.Error(err)
		}
	})
	return bench{Sandbox: s, dir: dir}
}

func (b bench) provider(extra string) string {
	return fmt.Sprintf(`
provider "scalardb" {
  pause = {
    targets      = { main = { addresses = ["%s"] } }
    min_duration = "200ms"
    %s
  }
  catalog = { directory = "%s" }
}
`, strings.Join(b.Addresses(), `", "`), extra, filepath.Join(b.dir, "catalog"))
}

func (b bench) backup(name, more string) string {
	return fmt.Sprintf(`
resource "scalardb_consistent_backup" "b" {
  name = "%s"
  storages = {
    orders = { sqlite = { path = "%s" } }
    events = { sqlite = { path = "%s" } }
  }
  %s
}
`, name, b.Orders, b.Events, more)
}

func (b bench) restore(name, more string) string {
	return fmt.Sprintf(`
resource "scalardb_snapshot_restore" "r" {
  name      = "%[1]s"
  backup_id = scalardb_consistent_backup.b.id
  storages = {
    orders = { sqlite = { path = "%[2]s/%[1]s-orders.db" } }
    events = { sqlite = { path = "%[2]s/%[1]s-events.db" } }
  }
  %[3]s
}
`, name, b.dir, more)
}

func (b bench) pauses() (n int) {
	for _, s := range b.Servers {
		n += s.Count("Pause")
	}
	return n
}

func (b bench) check(t *testing.T, restore string) func(*testing.T) {
	return func(*testing.T) {
		sum, want, err := sandbox.Sum(t.Context(), filepath.Join(b.dir, restore+"-orders.db"), filepath.Join(b.dir, restore+"-events.db"))
		if err != nil || sum != want {
			t.Errorf("the bank of restore %s holds %d, should hold %d: %v", restore, sum, want, err)
		}
		for _, s := range b.Servers {
			if s.Paused() {
				t.Errorf("%s is paused", s.Address())
			}
		}
	}
}

const (
	backupAddress  = "scalardb_consistent_backup.b"
	restoreAddress = "scalardb_snapshot_restore.r"
)

func expect(address string, action plancheck.ResourceActionType) resource.ConfigPlanChecks {
	return resource.ConfigPlanChecks{PreApply: []plancheck.PlanCheck{plancheck.ExpectResourceAction(address, action)}}
}

// TestAccBackupAndRestore is the main job on a real core: a backup under load, its verified restore in the same apply, changes in place, import, destroy.
func TestAccBackupAndRestore(t *testing.T) {
	b := newBench(t)
	unprotected := b.restore("r1", "deletion_protection = false")
	resource.UnitTest(t, resource.TestCase{
		ProtoV6ProviderFactories: factories(),
		Steps: []resource.TestStep{
			{
				Config: b.provider("") + b.backup("b1", "") + b.restore("r1", ""),
				ConfigPlanChecks: resource.ConfigPlanChecks{
					PreApply:             []plancheck.PlanCheck{plancheck.ExpectResourceAction(backupAddress, plancheck.ResourceActionCreate), plancheck.ExpectUnknownValue(backupAddress, tfjsonpath.New("id"))},
					PostApplyPostRefresh: []plancheck.PlanCheck{plancheck.ExpectEmptyPlan()},
				},
				ConfigStateChecks: []statecheck.StateCheck{
					statecheck.ExpectKnownValue(backupAddress, tfjsonpath.New("status"), knownvalue.StringExact("available")),
					statecheck.ExpectKnownValue(restoreAddress, tfjsonpath.New("status"), knownvalue.StringExact("available")),
					statecheck.ExpectKnownValue(restoreAddress, tfjsonpath.New("verification").AtMapKey("passed"), knownvalue.Bool(true)),
					statecheck.ExpectKnownValue(restoreAddress, tfjsonpath.New("scalardb_properties").AtMapKey("scalar.db.multi_storage.default_storage"), knownvalue.StringExact("events")),
				},
			},
			{ // in place, without a pause
				PreConfig:        func() { b.check(t, "r1")(t) },
				Config:           b.provider(`drain_timeout = "10s"`) + b.backup("b1", `deletion_policy = "retain"`) + unprotected,
				ConfigPlanChecks: expect(backupAddress, plancheck.ResourceActionUpdate),
			},
			{ResourceName: backupAddress, ImportState: true, ImportStateId: "b1", ImportStateVerify: true, ImportStateVerifyIgnore: []string{"deletion_policy"}},
			{ResourceName: restoreAddress, ImportState: true, ImportStateId: "r1", ImportStateVerify: true, ImportStateVerifyIgnore: []string{"deletion_protection"}},
			{ // a new name is a new backup, and restores anew
				Config: b.provider("") + b.backup("b2", "") + unprotected,
				ConfigPlanChecks: resource.ConfigPlanChecks{PreApply: []plancheck.PlanCheck{
					plancheck.ExpectResourceAction(backupAddress, plancheck.ResourceActionDestroyBeforeCreate), plancheck.ExpectResourceAction(restoreAddress, plancheck.ResourceActionDestroyBeforeCreate)}},
			},
		},
	})
	b.check(t, "r1") // gone by now; only the targets count
	if n := b.pauses(); n != 2*len(b.Servers) {
		t.Errorf("%d Pause calls, want %d", n, 2*len(b.Servers))
	}
	for _, name := range []string{"r1-orders.db", "r1-events.db"} {
		if _, err := os.Stat(filepath.Join(b.dir, name)); !os.IsNotExist(err) {
			t.Errorf("%s was left by destroy: %v", name, err)
		}
	}
	if _, err := os.Stat(filepath.Join(b.dir, "catalog", "backups", "b1", "manifest.json")); err != nil {
		t.Errorf("the retained backup is gone: %v", err)
	}
}

// TestAccS3Catalog is the main job with the catalog in a bucket, whose name only the apply knows at first.
func TestAccS3Catalog(t *testing.T) {
	b := newBench(t)
	server := versitygw.Start(t)
	bucket := server.Bucket(t, false)
	config := strings.Replace(b.provider(""), fmt.Sprintf("{ directory = %q }", filepath.Join(b.dir, "catalog")), `{ s3 = { bucket = terraform_data.bucket.output, prefix = "team/prod" } }`, 1) +
		fmt.Sprintf("resource \"terraform_data\" \"bucket\" {\n  input = %q\n}\n", bucket)
	config = strings.Replace(config, "  pause = {", fmt.Sprintf(`  aws = {
    region                      = %q
    access_key                  = %q
    secret_key                  = %q
    s3_use_path_style           = true
    skip_credentials_validation = true
    endpoints                   = { s3 = %q }
  }
  pause = {`, versitygw.Region, server.AccessKey, server.SecretKey, server.URL), 1)
	resource.UnitTest(t, resource.TestCase{
		ProtoV6ProviderFactories: factories(),
		Steps: []resource.TestStep{
			{
				Config: config + b.backup("b1", "") + b.restore("r1", "deletion_protection = false"),
				ConfigStateChecks: []statecheck.StateCheck{
					statecheck.ExpectKnownValue(backupAddress, tfjsonpath.New("status"), knownvalue.StringExact("available")),
					statecheck.ExpectKnownValue(restoreAddress, tfjsonpath.New("verification").AtMapKey("passed"), knownvalue.Bool(true)),
				},
				ConfigPlanChecks: resource.ConfigPlanChecks{PostApplyPostRefresh: []plancheck.PlanCheck{plancheck.ExpectEmptyPlan()}},
			},
		},
	})
	b.check(t, "r1") // gone by now; only the targets count
	left, err := server.Client().ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: &bucket})
	if err != nil || len(left.Contents) != 1 || *left.Contents[0].Key != "team/prod/lock.json" {
		t.Errorf("after the destroy the bucket holds %v, %v", left.Contents, err)
	}
}

// TestAccImportPlansEmpty imports by a block, which plans against the configuration.
func TestAccImportPlansEmpty(t *testing.T) {
	b := newBench(t)
	resource.UnitTest(t, resource.TestCase{
		ProtoV6ProviderFactories: factories(),
		Steps: []resource.TestStep{
			{Config: b.provider("") + b.backup("b1", "")},
			{ResourceName: backupAddress, ImportState: true, ImportStateId: "b1", ImportStateKind: resource.ImportBlockWithID,
				ImportPlanChecks: resource.ImportPlanChecks{PreApply: []plancheck.PlanCheck{plancheck.ExpectResourceAction(backupAddress, plancheck.ResourceActionNoop)}}},
		},
	})
}

// TestAccUnknownProvider plans with values of the provider block that only the apply knows.
func TestAccUnknownProvider(t *testing.T) {
	b := newBench(t)
	config := strings.Replace(b.provider(""), fmt.Sprintf("%q", filepath.Join(b.dir, "catalog")), "terraform_data.directory.output", 1) +
		fmt.Sprintf("resource \"terraform_data\" \"directory\" {\n  input = %q\n}\n", filepath.Join(b.dir, "catalog")) + b.backup("b1", "") + b.restore("r1", "deletion_protection = false")
	resource.UnitTest(t, resource.TestCase{
		ProtoV6ProviderFactories: factories(),
		Steps:                    []resource.TestStep{{Config: config, ConfigPlanChecks: resource.ConfigPlanChecks{PostApplyPostRefresh: []plancheck.PlanCheck{plancheck.ExpectEmptyPlan()}}}},
	})
	b.check(t, "r1")
}

// TestAccWindowCheckAndSources: the other resources, data sources and functions, on a real core.
func TestAccWindowCheckAndSources(t *testing.T) {
	b := newBench(t)
	properties := filepath.Join(b.dir, "database.properties")
	if err := os.WriteFile(properties, []byte("scalar.db.storage=jdbc\nscalar.db.contact_points=jdbc:sqlite:"+b.Orders+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	config := b.provider("") + b.backup("b1", "") + fmt.Sprintf(`
resource "scalardb_pause_window" "w" {
  name              = "w1"
  clock_uncertainty = "100ms"
}
resource "scalardb_consistency_check" "live" {
  storages = scalardb_consistent_backup.b.storages
}
data "scalardb_targets" "t" {}
data "scalardb_backup" "b" { id = scalardb_consistent_backup.b.id }
data "scalardb_backups" "all" { depends_on = [scalardb_consistent_backup.b] }
data "scalardb_configuration" "c" { path = %q }
output "paused" { value = data.scalardb_targets.t.paused }
output "status" { value = data.scalardb_backup.b.status }
output "count" { value = length(data.scalardb_backups.all.backups) }
output "required" { value = data.scalardb_configuration.c.pause_required }
output "point" { value = provider::scalardb::restore_point("2026-11-25T10:00:00.2Z", "2026-11-25T10:00:06.8Z") }
output "text" { value = provider::scalardb::render_properties(provider::scalardb::parse_properties("b: 2\na 1")) }
`, properties)
	resource.UnitTest(t, resource.TestCase{
		ProtoV6ProviderFactories: factories(),
		Steps: []resource.TestStep{{
			Config:           config,
			ConfigPlanChecks: resource.ConfigPlanChecks{PostApplyPostRefresh: []plancheck.PlanCheck{plancheck.ExpectEmptyPlan()}},
			ConfigStateChecks: []statecheck.StateCheck{
				statecheck.ExpectKnownValue("scalardb_pause_window.w", tfjsonpath.New("restore_point"), knownvalue.NotNull()),
				statecheck.ExpectKnownValue("scalardb_consistency_check.live", tfjsonpath.New("verification").AtMapKey("passed"), knownvalue.Bool(true)),
				statecheck.ExpectKnownOutputValue("paused", knownvalue.Bool(false)),
				statecheck.ExpectKnownOutputValue("status", knownvalue.StringExact("available")),
				statecheck.ExpectKnownOutputValue("count", knownvalue.Int64Exact(1)),
				statecheck.ExpectKnownOutputValue("required", knownvalue.Bool(false)),
				statecheck.ExpectKnownOutputValue("point", knownvalue.StringExact("2026-11-25T10:00:03Z")),
				statecheck.ExpectKnownOutputValue("text", knownvalue.StringExact("a=1\nb=2\n")),
			},
		}},
	})
}
