package provider

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/all"
)

//go:generate go test -run TestStorageGuide -update-guide .

var updateGuide = flag.Bool("update-guide", false, "write templates/guides/storages.md")

const guide = "../../templates/guides/storages.md"

// TestStorageGuide: the guide says of every driver what its folder says.
func TestStorageGuide(t *testing.T) {
	var b strings.Builder
	b.WriteString("---\npage_title: \"Storages\"\ndescription: |-\n  What each driver captures and restores, what it needs, and its limits.\n---\n\n# Storages\n\n" +
		"<!-- Written by go generate from the drivers' description.md. -->\n")
	kinds := all.Kinds()
	slices.SortFunc(kinds, func(a, b storage.Kind) int { return strings.Compare(a.Name(), b.Name()) })
	for _, k := range kinds {
		fmt.Fprintf(&b, "\n## `%s`\n\n%s\n", k.Name(), strings.TrimSpace(k.Description()))
	}
	if *updateGuide {
		if err := os.WriteFile(guide, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(guide)
	if err != nil || string(got) != b.String() {
		t.Errorf("%s is not what the drivers' descriptions say (%v): go generate ./internal/provider", guide, err)
	}
}
