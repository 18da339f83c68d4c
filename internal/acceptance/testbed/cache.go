// Package testbed finds what setup/setup.sh made.
package testbed

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// Hint says how to get what a test misses.
const Hint = "run `make testbed`, which fetches everything that the tests need"

// Root is the folder of the repository.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	for err == nil {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			err = errors.New("no go.mod in this folder and above it")
			break
		}
		dir = filepath.Dir(dir)
	}
	t.Fatalf("finding the repository: %v", err)
	return ""
}

// Cached is the path of a file or folder that setup.sh made, named by its parts below the cache. The test fails when it isn't there.
func Cached(t testing.TB, parts ...string) string {
	t.Helper()
	cache := os.Getenv("TESTBED_CACHE")
	if cache == "" {
		cache = filepath.Join(Root(t), ".cache")
	}
	path := filepath.Join(append([]string{cache}, parts...)...)
	if _, err := os.Stat(path); err != nil {
		t.Fatal(fmt.Errorf("looking for a part of the test bed: %w: %s", err, Hint))
	}
	return path
}
