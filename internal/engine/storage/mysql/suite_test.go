//go:build acceptance

package mysql

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/mariadb"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	systemclock "github.com/scalar-labs/terraform-provider-scalardb/internal/engine/clock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/dump"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/storagetest"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
)

func bankDatabases() []string { return []string{"bank", "coordinator", "scalardb"} }

func dropBank(s *mariadb.Server) {
	for _, db := range bankDatabases() {
		s.Exec("DROP DATABASE IF EXISTS " + db)
	}
}

func present(t *testing.T, s *mariadb.Server) []string {
	t.Helper()
	found, err := readStrings(t.Context(), s.DB(), "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME IN ('bank', 'coordinator', 'scalardb') ORDER BY 1")
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestSuite(t *testing.T) {
	from, to := mariadb.Start(t, mariadb.Options{}), mariadb.Start(t, mariadb.Options{})
	users(from)
	users(to)
	flavour := storagetest.Flavour{Dialect: Dialect{}, Text: "VARCHAR(128) CHARACTER SET utf8mb4", Int: "INT", BigInt: "BIGINT", Bool: "BOOLEAN", Blob: "LONGBLOB", Namespace: "CREATE DATABASE %s", Quote: quote}
	for _, existing := range []bool{false, true} {
		name := map[bool]string{false: "new databases", true: "empty databases"}[existing]
		t.Run(name, func(t *testing.T) {
			storagetest.Suite{Driver: "mysql", Faults: 12, New: func(t *testing.T) *storagetest.Fixture {
				dropBank(from)
				bank := storagetest.NewBank(t, from.Open(from.User, from.Password), flavour)
				return &storagetest.Fixture{
					Bank: bank,
					Source: func() engine.Source {
						return NewSource(Config{Host: from.Host, Port: int64(from.Port)},
							Options{Storage: "orders", Login: Login{Username: backupUser, Password: password}, Clock: systemclock.System{}, Getenv: os.Getenv})
					},
					Artifacts: func(c engine.Catalog) engine.ArtifactStore { return dump.Keeper{Catalog: c} },
					Target:    func(t *testing.T) storagetest.Target { return newTarget(t, bank, to, existing) },
					Secrets:   []string{password},
					Traces: func(t *testing.T) []string {
						t.Helper()
						traces, err := readStrings(t.Context(), from.DB(), "SELECT CONCAT(USER, ' ', COALESCE(INFO, '')) FROM information_schema.PROCESSLIST WHERE USER = '"+backupUser+"' ORDER BY 1")
						if err != nil {
							t.Fatal(err)
						}
						entries, err := os.ReadDir(os.TempDir())
						if err != nil {
							t.Fatal(err)
						}
						for _, e := range entries {
							if strings.HasPrefix(e.Name(), "scalardb-") {
								traces = append(traces, e.Name())
							}
						}
						return traces
					},
				}
			}}.Run(t)
		})
	}
}

func newTarget(t *testing.T, bank *storagetest.Bank, s *mariadb.Server, existing bool) storagetest.Target {
	t.Helper()
	dropBank(s)
	if existing {
		for _, db := range bankDatabases() {
			s.Exec("CREATE DATABASE " + db)
		}
	}
	before := present(t, s)
	config := Config{Host: s.Host, Port: int64(s.Port)}
	options := Options{Login: Login{Username: restoreUser, Password: password}, Clock: systemclock.System{}, Getenv: os.Getenv}
	return storagetest.Target{
		Destination: NewDestination(config, options),
		Rows:        bank.Through(func(*testing.T) *sql.DB { return s.Open(s.User, s.Password) }),
		Reader:      func(ctx context.Context) (verify.Storage, error) { return NewReader(ctx, config, options) },
		Empty: func(t *testing.T) bool {
			t.Helper()
			tables := query[int](t, s.DB(), "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA IN ('bank', 'coordinator', 'scalardb')")
			if existing && tables > 0 {
				// It was filled before it failed, is not the restore's to drop, and a restore says so by its record.
				return true
			}
			return tables == 0 && slices.Equal(before, present(t, s))
		},
		Occupy: func(t *testing.T) func(*testing.T) {
			t.Helper()
			s.Exec("CREATE DATABASE IF NOT EXISTS coordinator", "CREATE TABLE coordinator.mine (a int)", "INSERT INTO coordinator.mine VALUES (42)")
			databases := present(t, s)
			return func(t *testing.T) {
				t.Helper()
				db := s.DB()
				var a, tables int
				if err := errors.Join(db.QueryRowContext(t.Context(), "SELECT a FROM coordinator.mine").Scan(&a),
					db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA IN ('bank', 'coordinator', 'scalardb')").Scan(&tables)); err != nil || a != 42 || tables != 1 || !slices.Equal(databases, present(t, s)) {
					t.Errorf("the other database is not as it was: %v, %d, %d tables, %q", err, a, tables, present(t, s))
				}
			}
		},
	}
}
