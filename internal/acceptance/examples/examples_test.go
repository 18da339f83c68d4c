//go:build acceptance

package examples

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/cores"
)

// with are what examples refer to, which other examples have.
var with = map[string]string{
	"examples/resources/scalardb_consistency_check/resource.tf": "examples/resources/scalardb_pause_window/resource.tf",
	"examples/resources/scalardb_snapshot_restore/resource.tf":  "examples/resources/scalardb_consistent_backup/resource.tf",
}

// TestExamples: what the documentation shows is valid, together with the provider's own example. It shows no more than validate does: nothing is connected to.
func TestExamples(t *testing.T) {
	root := testbed.Root(t)
	var files []string
	for _, pattern := range []string{"examples/resources/*/*.tf", "examples/data-sources/*/*.tf", "examples/functions/*/*.tf", "internal/engine/storage/*/example.tf"} {
		found, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(pattern)))
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %v, %v", pattern, found, err)
		}
		files = append(files, found...)
	}
	kinds, err := filepath.Glob(filepath.Join(root, "internal", "engine", "storage", "*", "description.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range kinds {
		if example := filepath.Join(filepath.Dir(k), "example.tf"); !slices.Contains(files, example) {
			t.Errorf("there is no %s", example)
		}
	}
	w := cores.Newest(t).Workspace(t, cores.NewMirror(t))
	w.Write(t, "ca.pem", "a certificate")
	w.Write(t, "database.properties", "scalar.db.storage=jdbc")
	w.Write(t, "provider.tf", "%s", read(t, filepath.Join(root, "examples", "provider", "provider.tf")))
	w.Init(t)
	for _, f := range files {
		name, err := filepath.Rel(root, f)
		if err != nil {
			t.Fatal(err)
		}
		name = filepath.ToSlash(name)
		t.Run(name, func(t *testing.T) {
			w.Write(t, "example.tf", "%s", read(t, f))
			w.Write(t, "more.tf", "")
			if other := with[name]; other != "" {
				w.Write(t, "more.tf", "%s", read(t, filepath.Join(root, filepath.FromSlash(other))))
			}
			if r := w.Run(t, "validate", "-no-color"); r.ExitCode != 0 {
				t.Error(r.All())
			}
		})
	}
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
