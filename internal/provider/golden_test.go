package provider

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
)

// goldenDir has what builds of the provider wrote: states with their configurations, and the catalog they belong to. A folder is written once, at a release
// (golden_write_test.go), and never changed: every later build must plan empty on it.
const goldenDir = "testdata/states"

// golden is one resource instance of a state file.
type golden struct {
	Type          string          `json:"type"`
	SchemaVersion int64           `json:"schema_version"`
	Config        object          `json:"config"`
	Attributes    json.RawMessage `json:"attributes"`
	Private       []byte          `json:"private"`
}

// TestUpgrade: this build plans empty on the states of earlier ones, and refresh changes nothing.
func TestUpgrade(t *testing.T) {
	releases, err := os.ReadDir(goldenDir)
	if err != nil || len(releases) == 0 {
		t.Fatalf("there are no recorded states: %v", err)
	}
	recorded := map[string]bool{}
	for _, release := range releases {
		t.Run(release.Name(), func(t *testing.T) {
			dir := filepath.Join(goldenDir, release.Name())
			catalog := filepath.Join(t.TempDir(), "catalog")
			if err := os.CopyFS(catalog, os.DirFS(filepath.Join(dir, "catalog"))); err != nil {
				t.Fatal(err)
			}
			config := with(providerConfig(), "catalog.directory", catalog)
			c, d := newCore(t, Production("test"), config)
			wantNoErrors(t, "configure", diagnostics(d))
			data, err := os.ReadFile(filepath.Join(dir, "state.json"))
			if err != nil {
				t.Fatal(err)
			}
			var instances []golden
			if err := json.Unmarshal(data, &instances); err != nil {
				t.Fatal(err)
			}
			for _, g := range instances {
				recorded[g.Type] = true
				resp, err := c.server.UpgradeResourceState(context.Background(), &tfprotov6.UpgradeResourceStateRequest{TypeName: g.Type, Version: g.SchemaVersion, RawState: &tfprotov6.RawState{JSON: g.Attributes}})
				if err != nil {
					t.Fatal(err)
				}
				wantNoErrors(t, g.Type, diagnostics(resp.Diagnostics))
				i := c.manage(g.Type)
				i.state, i.private = c.value(i.schemaType(), resp.UpgradedState), g.Private
				wantNoErrors(t, g.Type, i.validate(g.Config))
				wantAction(t, i.plan(g.Config), "no-op")
				config, err := json.Marshal(g.Config)
				if err != nil {
					t.Fatal(err)
				}
				if g.Type != "scalardb_consistent_backup" || bytes.Contains(config, []byte(`"aws_`)) {
					continue // neither the databases of a restore nor an account of AWS are here any more
				}
				before := i.state
				wantNoErrors(t, g.Type+": refresh", i.refresh())
				if !i.state.Equal(before) {
					diffs, _ := before.Diff(i.state)
					t.Errorf("%s: refresh changed the state: %v", g.Type, diffs)
				}
				wantAction(t, i.plan(g.Config), "no-op")
			}
		})
	}
	for _, typ := range wantResources {
		if !recorded[typ] {
			t.Errorf("no release recorded a state of %s", typ)
		}
	}
}
