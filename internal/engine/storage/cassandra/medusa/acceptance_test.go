//go:build acceptance

package medusa_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gocql "github.com/apache/cassandra-gocql-driver/v2"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed"
	bed "github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/cassandra"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/clock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/memcatalog"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/jolokia"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/local"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/medusa"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/move"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/rest"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/snapshot"
)

// world is one real node, and a real medusa with its storage in a directory.
type world struct {
	t       *testing.T
	cluster *bed.Cluster
	session *gocql.Session
	begun   time.Time
	files   local.Machine
	mover   medusa.Mover
	storage string
	catalog engine.Catalog
	runs    int
	reports []string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	python := testbed.Cached(t, "medusa", "venv", "bin", "python")
	w := &world{t: t, cluster: bed.Start(t, bed.Options{Nodes: 1, Jolokia: true, Settings: map[string]string{"auto_snapshot": "false"}}), catalog: memcatalog.New(time.Now)}
	n, dir := w.cluster.Nodes[0], t.TempDir()
	w.storage = filepath.Join(dir, "storage", "bucket")
	command := filepath.Join(dir, "medusa")
	// What pip writes as bin/medusa, but for a machine that is busy with other tests: a backup keeps its priority, the lowest of which medusa gives itself, and
	// Cassandra may take longer than two seconds to answer before medusa sleeps for ten and more. medusacli comes first, which patches the threads before
	// the driver of CQL chooses a loop by them; else that loop never lets another thread run.
	write(t, command, 0o700, "#!"+python+"\nimport functools, sys\nfrom medusa.medusacli import cli\nimport medusa.backup_node, medusa.cassandra_utils as utils\nmedusa.backup_node.throttle_backup = lambda: None\n"+
		"utils.Cluster = functools.partial(utils.Cluster, connect_timeout=60, control_connection_timeout=60)\n"+
		"if __name__ == \"__main__\":\n    sys.exit(cli())\n")
	write(t, filepath.Join(dir, "medusa-"+n.Address+".ini"), 0o600, strings.Join([]string{
		"[cassandra]", "stop_cmd = " + n.StopScript(), "start_cmd = " + n.StartScript(), "config_file = " + n.ConfigPath(), "nodetool_executable = " + w.cluster.NodetoolPath(),
		"nodetool_host = " + n.Address, "resolve_ip_addresses = False", "use_sudo = False",
		"[storage]", "storage_provider = local", "base_path = " + filepath.Dir(w.storage), "bucket_name = bucket", "fqdn = " + n.Address, "use_sudo_for_restore = False", "",
	}, "\n"))
	w.files = local.Machine{Clock: clock.System{}, Getenv: os.Getenv}
	w.mover = medusa.Mover{Settings: medusa.Settings{Clock: clock.System{}, Command: command, ConfigFile: filepath.Join(dir, "medusa-{address}.ini")}}
	w.session = w.cluster.Session(t)
	w.begun = time.Now()
	return w
}

func write(t *testing.T, name string, mode fs.FileMode, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// at logs how long a part took.
func (w *world) at(what string) {
	w.t.Logf("%s: %.1f s", what, time.Since(w.begun).Seconds())
	w.begun = time.Now()
}

func (w *world) cql(statement string, args ...any) {
	w.t.Helper()
	if err := w.session.Query(statement, args...).Exec(); err != nil {
		w.t.Fatalf("%s: %v", statement, err)
	}
}

func (w *world) rowsOf(keyspace string) string {
	w.t.Helper()
	var out []string
	var id int
	var owner string
	it := w.session.Query("SELECT id, owner FROM " + keyspace + ".accounts").Iter()
	for it.Scan(&id, &owner) {
		out = append(out, fmt.Sprint(id, owner))
	}
	if err := it.Close(); err != nil {
		w.t.Fatal(err)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// backUp makes all phases of a backup, and discards it where one fails.
func (w *world) backUp(mover move.Mover) (engine.Run, engine.Captured, error) {
	w.t.Helper()
	w.runs++
	id := fmt.Sprintf("%016x", w.runs)
	run := engine.Run{ID: id, BackupID: "nightly", Catalog: w.catalog, Prefix: "backups/nightly/" + id + "/",
		Report: func(m string, f map[string]any) { w.t.Log(m, f); w.reports = append(w.reports, fmt.Sprint(m, f)) }}
	ctx := w.t.Context()
	settings := w.settings()
	settings.Mover = mover
	x, err := cassandra.NewSource(settings).Preflight(ctx, run)
	if err != nil {
		w.t.Fatalf("preflight: %v", err)
	}
	defer func() {
		if err := x.Close(); err != nil {
			w.t.Error(err)
		}
	}()
	w.t.Log(x.Facts().ToolVersions, x.Facts().Warnings)
	for _, phase := range []func(context.Context) error{x.Capture, x.Confirm} {
		if err := phase(ctx); err != nil {
			w.t.Fatal(err)
		}
	}
	captured, err := x.Await(ctx)
	if err != nil {
		if err := x.Discard(ctx); err != nil {
			w.t.Errorf("discard: %v", err)
		}
	}
	return run, captured, err
}

func (w *world) place() move.Place {
	n := w.cluster.Nodes[0]
	return move.Place{Catalog: w.catalog, Report: func(m string, f map[string]any) { w.t.Log(m, f) }, Nodes: func(context.Context) ([]move.Node, error) {
		one := move.Node{Files: w.files}
		one.Address, one.HostID = n.Address, w.hostID()
		return []move.Node{one}, nil
	}}
}

func (w *world) hostID() string {
	var id gocql.UUID
	if err := w.session.Query("SELECT host_id FROM system.local").Scan(&id); err != nil {
		w.t.Fatal(err)
	}
	return id.String()
}

func artifact(t *testing.T, c engine.Captured, kind string) engine.Artifact {
	t.Helper()
	i := slices.IndexFunc(c.Artifacts, func(a engine.Artifact) bool { return a.Kind == kind })
	if i < 0 {
		t.Fatalf("no artifact %s in %+v", kind, c.Artifacts)
	}
	return c.Artifacts[i]
}

// spoiled loses a part of the snapshot, after the driver has listed it.
type spoiled struct {
	medusa.Mover
	spoil func(tag string)
}

type spoiledSession struct {
	move.Session
	spoil func()
}

func (s spoiled) Preflight(ctx context.Context, job move.Job) (move.Session, error) {
	x, err := s.Mover.Preflight(ctx, job)
	return spoiledSession{x, func() { s.spoil(job.Tag) }}, err
}

func (s spoiledSession) Move(ctx context.Context, ix *snapshot.Index, l map[string]*snapshot.FileList) ([]engine.Artifact, error) {
	s.spoil()
	return s.Session.Move(ctx, ix, l)
}

// traces are the names of what lies in medusa's storage for a backup.
func (w *world) traces(name string) (found []string) {
	w.t.Helper()
	err := filepath.WalkDir(w.storage, func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.Contains(p, name) {
			found = append(found, p)
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return found
}

func (w *world) fill(owner string) {
	for i := range 50 {
		w.cql("INSERT INTO bank.accounts (id, owner) VALUES (?, ?)", i, owner)
	}
}

func (w *world) settings() cassandra.Settings {
	w.t.Helper()
	transport, err := jolokia.New(rest.Settings{URL: "http://{address}:8778/jolokia", Clock: clock.System{}})
	if err != nil {
		w.t.Fatal(err)
	}
	return cassandra.Settings{Storage: "orders", Clock: clock.System{}, ContactPoints: w.cluster.ContactPoints(), Transport: transport, Files: w.files}
}

// restore restores a backup, and looks that nothing but the restored data is left.
func (w *world) restore(d cassandra.DestinationSettings, c engine.Captured, runID string) {
	t := w.t
	t.Helper()
	d.Settings, d.Mover = w.settings(), func(kind string) (move.Mover, error) {
		if kind != snapshot.KindMedusa {
			t.Errorf("a mover for %s", kind)
		}
		return w.mover, nil
	}
	r := engine.StorageBackup{Storage: "orders", RunID: runID, Name: "again", Catalog: w.catalog, Report: func(m string, f map[string]any) { t.Log(m, f) },
		Record: engine.StorageRecord{Driver: "cassandra", Artifacts: c.Artifacts, Tables: c.Tables, HasCoordinator: c.HasCoordinator, Extra: c.Extra}}
	x := cassandra.NewDestination(d)
	// Less than the driver gives nodes to come back.
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if err := x.Preflight(ctx, r); err != nil {
		t.Fatal(err)
	}
	made, err := x.Restore(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range made.Objects {
		if o.Kind != "cassandra_keyspace" && o.Kind != "cassandra_table" {
			t.Errorf("an object is left: %+v", o)
		}
	}
	for _, pattern := range []string{filepath.Join(w.cluster.Dir, "staging", "*"), filepath.Join(w.cluster.Nodes[0].DataDir(), ".scalardb*")} {
		if left, err := filepath.Glob(pattern); err != nil || len(left) > 0 {
			t.Errorf("left on the node: %v, %v", left, err)
		}
	}
}

func (w *world) load(c engine.Captured, rows string) {
	w.t.Helper()
	w.restore(cassandra.DestinationSettings{Load: &cassandra.LoadSettings{
		Keyspaces: map[string]string{"bank": "bank_stage", "coordinator": "coordinator_stage"}, Directory: filepath.Join(w.cluster.Dir, "staging"),
	}}, c, "00000000000000a1")
	if after := w.rowsOf("bank_stage"); after != rows {
		w.t.Errorf("the loaded rows are\n%s\nnot\n%s", after, rows)
	}
}

func (w *world) inPlace(c engine.Captured, rows string) {
	w.t.Helper()
	n := w.cluster.Nodes[0]
	w.session.Close()
	w.restore(cassandra.DestinationSettings{Stopped: &cassandra.StoppedSettings{InPlace: true, StopCommand: n.StopScript(), StartCommand: n.StartScript(),
		CommitlogDirectory: n.CommitlogDir(), HintsDirectory: n.HintsDir(), SavedCachesDirectory: n.SavedCachesDir()}}, c, "00000000000000a2")
	w.session = w.cluster.Session(w.t)
	if after := w.rowsOf("bank"); after != rows {
		w.t.Errorf("the rows in place are\n%s\nnot\n%s", after, rows)
	}
	var promised int
	if err := w.session.Query("SELECT count(*) FROM system.paxos").Scan(&promised); err != nil || promised != 0 {
		w.t.Errorf("system.paxos has %d rows, %v", promised, err)
	}
}

// TestAccMedusa: a real medusa stores what the driver captured, is found out when it leaves something away, does not mix up SSTables of the same names, and gives
// the captured rows back after a wipe.
func TestAccMedusa(t *testing.T) {
	w := newWorld(t)
	const transactional = "tx_id text, tx_state int, tx_version int, tx_prepared_at bigint, tx_committed_at bigint, before_owner text, before_tx_id text, " +
		"before_tx_state int, before_tx_version int, before_tx_prepared_at bigint, before_tx_committed_at bigint"
	for _, k := range []string{"coordinator", "bank"} {
		w.cql("CREATE KEYSPACE " + k + " WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}")
	}
	w.cql("CREATE TABLE coordinator.state (tx_id text PRIMARY KEY, tx_state int, tx_created_at bigint)")
	w.cql("CREATE TABLE bank.accounts (id int PRIMARY KEY, owner text, " + transactional + ")")
	w.cql("CREATE INDEX accounts_owner ON bank.accounts (owner)")
	w.cql("CREATE TABLE bank.never_written (id int PRIMARY KEY, balance int, " + transactional + ")")
	w.cql("INSERT INTO coordinator.state (tx_id, tx_state, tx_created_at) VALUES ('a', 3, 1) IF NOT EXISTS")
	w.fill("ann")
	before := w.rowsOf("bank")
	w.at("schema and rows")

	_, first, err := w.backUp(w.mover)
	if err != nil {
		t.Fatal(err)
	}
	kept := artifact(t, first, snapshot.KindMedusa)
	if kept.Size == 0 || len(w.traces(kept.ID)) == 0 {
		t.Errorf("artifact %+v", kept)
	}
	w.at("backup")
	index, err := snapshot.ReadIndex(t.Context(), w.catalog, artifact(t, first, snapshot.KindIndex))
	if err != nil {
		t.Fatal(err)
	}

	// medusa says "Backup done" and exits with 0: its word does not count.
	var tag string
	_, _, err = w.backUp(spoiled{w.mover, func(name string) {
		tag = name
		lost, err := filepath.Glob(filepath.Join(w.cluster.Nodes[0].DataDir(), "bank", "accounts-*", "snapshots", name))
		if err != nil || len(lost) != 1 {
			t.Fatalf("snapshots %v, %v", lost, err)
		}
		if err := os.RemoveAll(lost[0]); err != nil {
			t.Fatal(err)
		}
	}})
	if err == nil || !strings.Contains(err.Error(), "is in the snapshot, and not in medusa's manifest") || !strings.Contains(err.Error(), "medusa said that its backup") {
		t.Errorf("a backup without one table's files: %v", err)
	}
	w.at("backup of a spoiled snapshot")
	if left := w.traces(tag); len(left) > 0 {
		t.Errorf("left in medusa's storage after a discard: %v", left)
	}

	// The node loses everything, and gets the schema back with the same ids: its SSTables have the names and sizes of those in medusa's storage.
	w.session.Close()
	w.cluster.StopAll(t)
	w.cluster.WipeAll(t)
	w.cluster.StartAll(t)
	w.at("wipe")
	w.session = w.cluster.Session(t)
	for _, k := range index.Keyspaces {
		for _, statement := range k.CQL {
			w.cql(statement)
		}
	}
	w.cql("INSERT INTO coordinator.state (tx_id, tx_state, tx_created_at) VALUES ('a', 3, 1) IF NOT EXISTS")
	w.fill("bob")
	w.reports = nil
	_, second, err := w.backUp(w.mover)
	if err != nil {
		t.Fatal(err)
	}
	if all := strings.Join(w.reports, "\n"); !strings.Contains(all, "so this one is full") {
		t.Errorf("the backup of other SSTables with the same names is no full one:\n%s", all)
	}
	if err := w.mover.Inspect(t.Context(), w.place(), kept); err != nil {
		t.Errorf("the first backup, after the second: %v", err)
	}

	w.at("full backup")
	// The first one comes back: under other names beside the rows of now, and in their place.
	w.load(first, before)
	w.at("loaded")
	w.inPlace(first, before)
	w.at("restored in place")
	gone := artifact(t, second, snapshot.KindMedusa)
	if err := w.mover.Delete(t.Context(), w.place(), gone); err != nil {
		t.Fatal(err)
	}
	if err := w.mover.Inspect(t.Context(), w.place(), gone); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("inspecting a backup that was deleted: %v", err)
	}
	if err := w.mover.Inspect(t.Context(), w.place(), kept); err != nil {
		t.Errorf("the first backup, after the second was deleted: %v", err)
	}
}
