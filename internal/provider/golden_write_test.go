//go:build acceptance

package provider

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/terraform-plugin-go/tftypes"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/sandbox"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/dynamo"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/awsapi/ststest"
)

var record = flag.String("record-states", "", "write the states of this build into testdata/states/`RELEASE`, which must not exist")

// TestRecordStates writes the states that later builds must plan empty on. Without -record-states it only goes through the motions.
func TestRecordStates(t *testing.T) {
	dir := t.TempDir()
	s, err := sandbox.Start(dir, sandbox.Options{Accounts: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	addresses := []any{}
	for _, a := range s.Addresses() {
		addresses = append(addresses, a)
	}
	catalog := filepath.Join(dir, "catalog")
	config := with(with(providerConfig(), "pause.targets.main.addresses", addresses), "catalog.directory", catalog)
	tables := dynamo.Start(t, dynamo.Options{})
	const region, key, secret = "eu-central-1", "AKIAONE", "secret"
	tables.Seed(t, region, key, secret, "prod.", 1)
	identity := ststest.Start(t, "111111111111")
	identity.User("recorder", key, secret)
	config = with(config, "aws", object{
		"region": region, "access_key": key, "secret_key": secret,
		"endpoints": object{"dynamodb": tables.Endpoint(), "applicationautoscaling": tables.Endpoint(), "sts": identity.URL},
	})
	c, d := newCore(t, Production("test"), config)
	wantNoErrors(t, "configure", d)

	storages := object{"orders": object{"sqlite": object{"path": s.Orders}}, "events": object{"sqlite": object{"path": s.Events, "coordinator_namespace": "coordinator"}}}
	clones := object{"orders": object{"sqlite": object{"path": filepath.Join(dir, "o.db")}}, "events": object{"sqlite": object{"path": filepath.Join(dir, "e.db")}}}
	// A key_pem is write-only, and of no use in plaintext: left out.
	pause := config["pause"]
	byTime := object{"events": object{"aws_dynamodb": object{"prefix": "prod."}}}
	copies := object{"events": object{"aws_dynamodb": object{"source_prefix": "prod.", "prefix": "staging."}}}
	instances := []golden{
		{Type: "scalardb_consistent_backup", Config: object{"name": "b1", "storages": storages, "pause": pause, "deletion_policy": "retain", "timeouts": object{"create": "30m"}}},
		{Type: "scalardb_snapshot_restore", Config: object{"name": "r1", "backup_id": "b1", "storages": clones, "verify": object{"server_clock_bound": "2s"}}},
		{Type: "scalardb_pause_window", Config: object{"name": "w1", "clock_uncertainty": "100ms"}},
		{Type: "scalardb_consistency_check", Config: object{"storages": storages, "triggers": object{"a": "1"}}},
		{Type: "scalardb_consistent_backup", Config: object{"name": "b2", "storages": byTime}},
		{Type: "scalardb_pitr_restore", Config: object{"name": "r2", "backup_id": "b2", "storages": copies, "verify": object{"server_clock_bound": "2s"}}},
	}
	for n, g := range instances {
		i := c.manage(g.Type).create(g.Config)
		plain, err := statePlain(i.state)
		if err != nil {
			t.Fatal(err)
		}
		if instances[n].Attributes, err = json.Marshal(plain); err != nil {
			t.Fatal(err)
		}
		instances[n].Private = i.private
	}
	if *record == "" {
		return
	}
	to := filepath.Join(goldenDir, *record)
	if _, err := os.Stat(to); err == nil {
		t.Fatalf("%s exists: what was recorded is never changed", to)
	}
	data, err := json.MarshalIndent(instances, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(to, "state.json"), append(data, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(filepath.Join(catalog, "backups"), func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(catalog, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, "catalog", rel)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		return os.WriteFile(target, content, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// statePlain is toPlain with the nulls, as a state file has them.
func statePlain(v tftypes.Value) (any, error) {
	if v.IsNull() {
		return nil, nil
	}
	switch t := v.Type(); {
	case t.Is(tftypes.Map{}), t.Is(tftypes.Object{}):
		var elements map[string]tftypes.Value
		if err := v.As(&elements); err != nil {
			return nil, err
		}
		out := map[string]any{}
		for name, e := range elements {
			p, err := statePlain(e)
			if err != nil {
				return nil, err
			}
			out[name] = p
		}
		return out, nil
	case t.Is(tftypes.List{}):
		var elements []tftypes.Value
		if err := v.As(&elements); err != nil {
			return nil, err
		}
		out := []any{}
		for _, e := range elements {
			p, err := statePlain(e)
			if err != nil {
				return nil, err
			}
			out = append(out, p)
		}
		return out, nil
	}
	return toPlain(v)
}
