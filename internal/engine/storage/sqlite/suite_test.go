package sqlite_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/dump"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/sqlite"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/storagetest"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
)

// oddName has everything in it that a URI would take for something else.
const oddName = "b ä?nk%20#1;&mode=rw.db"

// openAs is somebody else's connection.
func openAs(t testing.TB, path, pragmas string) *sql.DB {
	escaped := strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(path)
	db, err := sql.Open("sqlite", "file:"+escaped+"?_pragma=busy_timeout(10000)&_pragma=synchronous(off)"+pragmas)
	if err != nil {
		t.Fatal(err) // never: nothing is opened yet
	}
	db.SetMaxOpenConns(1)
	return db
}

var flavour = storagetest.Flavour{Dialect: sqlite.Dialect{}, Text: "TEXT", Int: "INT", BigInt: "BIGINT", Bool: "BOOLEAN", Blob: "BLOB"}

// newBank makes a bank in a new file.
func newBank(t testing.TB, mode string) (*storagetest.Bank, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), oddName)
	return storagetest.NewBank(t, openAs(t, path, "&_pragma=journal_mode("+mode+")"), flavour), path
}

func list(t testing.TB, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestSuite(t *testing.T) {
	for _, c := range []struct {
		mode     string
		existing bool // restore into databases that exist, and are empty
	}{{"wal", false}, {"delete", true}} {
		t.Run(fmt.Sprintf("%s existing=%v", c.mode, c.existing), func(t *testing.T) {
			storagetest.Suite{Driver: "sqlite", New: func(t *testing.T) *storagetest.Fixture {
				bank, path := newBank(t, c.mode)
				return &storagetest.Fixture{
					Bank:      bank,
					Source:    func() engine.Source { return sqlite.NewSource(sqlite.Config{Path: path}, "orders", false) },
					Artifacts: func(c engine.Catalog) engine.ArtifactStore { return dump.Keeper{Catalog: c} },
					Target:    func(t *testing.T) storagetest.Target { return newTarget(t, bank, c.existing) },
					Traces:    func(t *testing.T) []string { return list(t, filepath.Dir(path)) },
				}
			}}.Run(t)
		})
	}
}

func newTarget(t *testing.T, bank *storagetest.Bank, existing bool) storagetest.Target {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "restored "+oddName)
	if existing {
		if err := os.WriteFile(path, nil, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	before := list(t, dir)
	open := func(t *testing.T) *sql.DB { return openAs(t, path, "") }
	return storagetest.Target{
		Destination: sqlite.NewDestination(sqlite.Config{Path: path}),
		Rows:        bank.Through(open),
		Reader: func(ctx context.Context) (verify.Storage, error) {
			return sqlite.NewReader(ctx, sqlite.Config{Path: path})
		},
		Empty: func(t *testing.T) bool {
			t.Helper()
			if !slices.Equal(before, list(t, dir)) {
				t.Logf("the folder holds %q", list(t, dir))
				return false
			}
			info, err := os.Stat(path)
			return !existing || err == nil && info.Size() == 0
		},
		Occupy: func(t *testing.T) func(*testing.T) {
			t.Helper()
			db := open(t)
			if _, err := db.Exec("CREATE TABLE mine (a); INSERT INTO mine VALUES (42)"); err != nil {
				t.Fatal(err)
			}
			_ = db.Close()
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			files := list(t, dir)
			return func(t *testing.T) {
				t.Helper()
				after, err := os.ReadFile(path)
				if err != nil || string(after) != string(before) || !slices.Equal(files, list(t, dir)) {
					t.Errorf("the other database is not as it was (%v, %q)", err, list(t, dir))
				}
			}
		},
	}
}
