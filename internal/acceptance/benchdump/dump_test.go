//go:build bench

// Package benchdump shows that a dump of any size holds the pause only until its snapshot is fixed.
package benchdump

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/postgres"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/admin"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/catalog/directory"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/clock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/adminserver"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/lock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/dump"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/postgresql"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/target"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/watchdog"
)

const rounds = 5

// TestBenchDump takes backups of a database with 1 MB and one with 1 GB in turns, and in the same run does what people do by hand: pause,
// pg_dump, unpause. The figures are medians of what the server saw: from the first refusal to the unpause.
func TestBenchDump(t *testing.T) {
	s := postgres.Start(t, postgres.Options{})
	small, large := filled(t, s, 1<<20), filled(t, s, 1<<30)
	figures := map[string][]time.Duration{}
	windows := map[string][]time.Duration{}
	for round := range rounds {
		for name, database := range map[string]string{"1 MB": small, "1 GB": large} {
			paused, window := backup(t, s, database, fmt.Sprintf("%s-%d", database, round))
			figures["provider, "+name] = append(figures["provider, "+name], paused)
			windows[name] = append(windows[name], window)
			figures["pause; pg_dump; unpause, "+name] = append(figures["pause; pg_dump; unpause, "+name], byHand(t, s, database))
		}
	}
	for name, all := range figures {
		t.Logf("%-32s paused for %8.1f ms (median of %d: %v)", name, milliseconds(median(all)), len(all), all)
	}
	for name, all := range windows {
		t.Logf("window %s: %.1f ms (median)", name, milliseconds(median(all)))
	}
	t.Logf("provider, 1 GB against 1 MB: %.2f times; by hand: %.1f times; by hand against the provider at 1 GB: %.0f times",
		ratio(figures["provider, 1 GB"], figures["provider, 1 MB"]), ratio(figures["pause; pg_dump; unpause, 1 GB"], figures["pause; pg_dump; unpause, 1 MB"]),
		ratio(figures["pause; pg_dump; unpause, 1 GB"], figures["provider, 1 GB"]))
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }

func median(all []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}

func ratio(a, b []time.Duration) float64 { return median(a).Seconds() / median(b).Seconds() }

// filled makes a database in ScalarDB's form with about so many bytes of rows.
func filled(t *testing.T, s *postgres.Server, bytes int) string {
	t.Helper()
	database := s.CreateDatabase(t)
	s.Exec(t, database,
		`CREATE SCHEMA scalardb`, `CREATE SCHEMA coordinator`, `CREATE SCHEMA bank`,
		`CREATE TABLE scalardb.metadata (full_table_name text, column_name text, data_type text NOT NULL, key_type text, clustering_order text, indexed boolean NOT NULL, ordinal_position int NOT NULL, PRIMARY KEY (full_table_name, column_name))`,
		`CREATE TABLE coordinator.state (tx_id text PRIMARY KEY, tx_state int, tx_created_at bigint)`,
		`INSERT INTO coordinator.state VALUES ('t', 3, 1)`,
		`CREATE TABLE bank.accounts (id int PRIMARY KEY, body text, tx_id text, tx_state int, tx_version int, tx_prepared_at bigint, tx_committed_at bigint, before_tx_id text, before_tx_state int, before_tx_version int, before_tx_prepared_at bigint, before_tx_committed_at bigint, before_body text)`,
		`INSERT INTO scalardb.metadata SELECT 'bank.accounts', column_name, CASE data_type WHEN 'integer' THEN 'INT' WHEN 'bigint' THEN 'BIGINT' ELSE 'TEXT' END, CASE column_name WHEN 'id' THEN 'PARTITION' END, NULL, false, ordinal_position FROM information_schema.columns WHERE table_schema = 'bank'`,
		// md5 does not compress: the dump is as big as it looks.
		fmt.Sprintf(`INSERT INTO bank.accounts (id, body, tx_id, tx_state, tx_version, tx_prepared_at, tx_committed_at) SELECT i, (SELECT string_agg(md5(i::text || j::text), '') FROM generate_series(1, 32) j), 't', 3, 1, 1, 1 FROM generate_series(1, %d) i`, bytes/1024),
		`VACUUM ANALYZE`)
	return database
}

func backup(t *testing.T, s *postgres.Server, database, name string) (paused, window time.Duration) {
	t.Helper()
	server, err := adminserver.Start(adminserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	system := clock.System{}
	catalog, err := directory.New(t.TempDir(), system)
	if err != nil {
		t.Fatal(err)
	}
	dialer, err := admin.NewDialer(admin.Settings{}, system)
	if err != nil {
		t.Fatal(err)
	}
	e := &engine.Engine{
		Clock: system, Catalog: catalog, Locker: lock.Locker{Catalog: catalog, Clock: system, Holder: "bench"}, Reporter: silent{},
		Watchdog: inProcess(system, dialer),
		NewRunID: func() string { return fmt.Sprintf("%016x", time.Now().UnixNano()) }, Holder: "bench", Version: "bench",
		Artifacts: func(context.Context, string, engine.JournalStorage) (engine.ArtifactStore, error) {
			return dump.Keeper{Catalog: catalog}, nil
		},
		Alive: func(string) (bool, bool) { return false, true },
	}
	b, err := e.Backup(t.Context(), engine.BackupRequest{
		Name: name, Unpauser: func(string) string { return "" },
		Pause:  engine.PauseSettings{Drain: 10 * time.Second, Max: time.Minute, ServerClockBound: time.Second},
		Groups: map[string]engine.Group{"main": {Resolver: target.Static{Addresses: []string{server.Address()}, DNS: target.DNS()}, Dialer: dialer}},
		Storages: map[string]engine.StorageRequest{"s": {Driver: "postgresql", Source: postgresql.NewSource(postgresql.Settings{
			Host: s.Host, Port: int64(s.Port), Database: database, SSLMode: "disable", Jobs: 2, Username: s.User, Password: s.Password, Storage: "s", Clock: system, Getenv: os.Getenv,
		})}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return onlyPause(t, server), b.Manifest.Window.EndedAt.Sub(b.Manifest.Window.StartedAt)
}

// byHand is what a script does: the dump as a whole lies in the pause. It dumps uncompressed, as the provider's does in its first step.
func byHand(t *testing.T, s *postgres.Server, database string) time.Duration {
	t.Helper()
	server, err := adminserver.Start(adminserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	dialer, err := admin.NewDialer(admin.Settings{}, clock.System{})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := dialer.Dial(t.Context(), engine.Target{Address: server.Address(), Name: server.Address()})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	pass := filepath.Join(t.TempDir(), "pgpass")
	escaped := strings.NewReplacer(`\`, `\\`, `:`, `\:`).Replace(s.Password)
	if err := os.WriteFile(pass, fmt.Appendf(nil, "*:*:*:*:%s\n", escaped), 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), filepath.Join(s.Bin, "pg_dump"), "-Fd", "-j2", "-Z0", "-h", s.Host, "-p", fmt.Sprint(s.Port), "-U", s.User, "-f", filepath.Join(t.TempDir(), "dump"), database)
	c.Env = append(os.Environ(), "PGPASSFILE="+pass)

	if err := conn.Pause(t.Context(), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("pg_dump: %v\n%s", err, out)
	}
	if err := conn.Unpause(t.Context()); err != nil {
		t.Fatal(err)
	}
	return onlyPause(t, server)
}

// onlyPause is how long the one pause of a server lasted.
func onlyPause(t *testing.T, server *adminserver.Server) time.Duration {
	t.Helper()
	intervals := server.Intervals()
	if len(intervals) != 1 {
		t.Fatalf("%d pauses", len(intervals))
	}
	return intervals[0].Until.Sub(intervals[0].From)
}

type silent struct{}

func (silent) Report(context.Context, engine.Event) {}

func inProcess(c engine.Clock, d engine.Dialer) engine.Watchdog {
	return watchdog.InProcess{Clock: c, Spec: watchdog.Spec{Groups: map[string]json.RawMessage{"main": json.RawMessage("{}")}}, Openers: watchdog.Openers{
		Dialer: func(json.RawMessage) (engine.Dialer, error) { return d, nil },
	}}
}
