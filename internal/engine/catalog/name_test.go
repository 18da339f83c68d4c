package catalog_test

import (
	"path"
	"strings"
	"testing"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/catalog"
)

func TestCheckName(t *testing.T) {
	for name, ok := range map[string]bool{
		"lock.json":                     true,
		"backups/x/manifest.json":       true,
		"a b/ü":                         true,
		"":                              false,
		"/a":                            false,
		"a/":                            false,
		"a//b":                          false,
		"..":                            false,
		"a/../b":                        false,
		"a/./b":                         false,
		".hidden/a":                     false,
		"a/.hidden":                     false,
		"a\nb":                          false,
		"a\\b":                          false,
		"a\x00":                         false,
		"\xff":                          false,
		strings.Repeat("x", 201):        false,
		strings.Repeat("abcdefg/", 200): false,
	} {
		if err := catalog.CheckName(name); (err == nil) != ok {
			t.Errorf("CheckName(%q) = %v, want ok = %v", name, err, ok)
		}
	}
}

func FuzzCheckName(f *testing.F) {
	for _, s := range []string{"a", "a/b", "../a", "a/..", "/", ".", "a//b", "a\x00b", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if catalog.CheckName(name) != nil {
			return
		}
		// What passes stays below the catalog's directory, under exactly this name.
		if got := path.Join("/root", name); got != "/root/"+name {
			t.Errorf("the name %q passed and joins to %q", name, got)
		}
	})
}
