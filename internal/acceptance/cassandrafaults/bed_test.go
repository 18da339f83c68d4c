//go:build acceptance

// Package cassandrafaults strikes at backups of a real Cassandra cluster under a real core: the provider is killed in every phase and in the middle of an
// upload, a node dies in the window, the SSH server goes, the catalog's disk is full. In front of the cluster is a stand-in of a ScalarDB server, whose pauses
// are watched; the tables are as ScalarDB makes them.
package cassandrafaults

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gocql "github.com/apache/cassandra-gocql-driver/v2"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/faultrun"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/poll"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/cassandra"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/cores"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/adminserver"
)

const (
	address = "scalardb_consistent_backup.b"
	// longest is max_duration: longer than any fault is held in the window, so that it is not the watchdog's clock which unpauses.
	longest = 30 * time.Second
	// shortest is that of a run which pauses nothing: the lock that it leaves can be taken over after that and 15 s.
	shortest = 2 * time.Second
	// limit of what is waited for: three nodes and a core share a small machine.
	limit = 3 * time.Minute
)

const configuration = `
terraform {
  required_providers { scalardb = { source = "scalar-labs/scalardb", version = "%s" } }
}
provider "scalardb" {
  pause = {
    targets       = { main = { addresses = ["%s"] } }
    drain_timeout = "1s"
    min_duration  = "0s"
    max_duration  = "%s"
  }
  catalog     = { directory = "%s" }
  credentials = { c = { ssh = { private_key_pem = file("%s") } } }
}
resource "scalardb_consistent_backup" "b" {
  name = "%s"
  storages = {
    c = { cassandra = {
      contact_points   = ["%s"]
      ssh              = { port = %d, user = "%s", known_hosts_path = "%s" }
      transport        = { jmx = {} }
      snapshot_timeout = "%s"
      data             = { upload = { via = "ssh", bandwidth_limit = %d } }
    } }
  }
}
`

// bed is a cluster of three nodes, each of which has all the data, with a workspace.
type bed struct {
	cluster *cassandra.Cluster
	ssh     *cassandra.SSH
	server  *adminserver.Server
	session *gocql.Session
	w       *cores.Workspace
	catalog string
	rows    int
}

const transactional = "tx_id text, tx_state int, tx_version int, tx_prepared_at bigint, tx_committed_at bigint, before_body blob, before_tx_id text, " +
	"before_tx_state int, before_tx_version int, before_tx_prepared_at bigint, before_tx_committed_at bigint"

func newBed(t *testing.T, core cores.Core) *bed {
	t.Helper()
	b := &bed{cluster: cassandra.Prepare(t, cassandra.Options{}), catalog: filepath.Join(t.TempDir(), "catalog")}
	for _, n := range b.cluster.Nodes {
		if out, err := exec.CommandContext(t.Context(), n.StartScript()).CombinedOutput(); err != nil {
			t.Fatalf("starting node %s: %v\n%s", n.Address, err, out)
		}
	}
	m := cores.NewMirror(t) // while they start
	faultrun.AddTo(t, m)
	b.ssh = b.cluster.StartSSH(t)
	var err error
	if b.server, err = adminserver.Start(adminserver.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.server.Close)
	b.w = core.Workspace(t, m)
	b.cluster.WaitUp(t)

	b.session = b.cluster.Session(t)
	for _, k := range []string{"coordinator", "scalardb", "shop"} {
		b.cql(t, "CREATE KEYSPACE "+k+" WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 3}")
	}
	// No compaction makes other files of the same data: what an upload sends is what was written since the last one.
	for _, table := range []string{
		"coordinator.state (tx_id text PRIMARY KEY, tx_state int, tx_created_at bigint)", "scalardb.namespaces (name text PRIMARY KEY)",
		"shop.documents (id int PRIMARY KEY, body blob, " + transactional + ")",
	} {
		b.cql(t, "CREATE TABLE "+table+" WITH compaction = {'class': 'SizeTieredCompactionStrategy', 'enabled': 'false'}")
	}
	for _, name := range []string{"coordinator", "shop"} {
		b.cql(t, "INSERT INTO scalardb.namespaces (name) VALUES (?)", name)
	}
	b.cql(t, "INSERT INTO coordinator.state (tx_id, tx_state, tx_created_at) VALUES ('t', 3, 1)")
	b.write(t, 1)
	b.configure(t, "first", 0)
	b.w.Init(t)
	// What is somebody else's stays.
	if _, err := b.cluster.Nodes[0].Nodetool(t.Context(), "snapshot", "-t", precious, "--", "shop"); err != nil {
		t.Fatal(err)
	}
	return b
}

const precious = "precious"

func (b *bed) configure(t *testing.T, name string, megabytesPerSecond int) {
	t.Helper()
	b.pausing(t, name, megabytesPerSecond, longest)
}

func (b *bed) pausing(t *testing.T, name string, megabytesPerSecond int, atMost time.Duration) {
	t.Helper()
	b.w.Write(t, "main.tf", configuration, faultrun.Version, b.server.Address(), atMost, b.catalog, b.ssh.PrivateKeyPath, name,
		strings.Join(b.cluster.ContactPoints(), `", "`), b.ssh.Port, b.ssh.User, b.ssh.KnownHostsPath, atMost, megabytesPerSecond)
}

func (b *bed) cql(t *testing.T, statement string, args ...any) {
	t.Helper()
	// All replicas have it when it returns, so that none comes late, into a window.
	if err := b.session.Query(statement, args...).Consistency(gocql.All).ExecContext(t.Context()); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// write makes so many megabytes of records that no upload has seen yet, and that do not compress.
func (b *bed) write(t *testing.T, megabytes int) {
	t.Helper()
	for range megabytes * 8 {
		body := make([]byte, 1<<17)
		_, _ = rand.Read(body) // never fails
		b.rows++
		b.cql(t, "INSERT INTO shop.documents (id, body, tx_id, tx_state, tx_version) VALUES (?, ?, 't', 3, 1)", b.rows, body)
	}
}

// snapshots lists those of all nodes, but for the one that is somebody else's.
func (b *bed) snapshots(t *testing.T) (all []string) {
	t.Helper()
	others := 0
	for _, n := range b.cluster.Nodes {
		rows := n.Session(t).Query("SELECT name, keyspace_name, table_name FROM system_views.snapshots").IterContext(t.Context())
		var name, keyspace, table string
		for rows.Scan(&name, &keyspace, &table) {
			if name == precious {
				others++
				continue
			}
			all = append(all, fmt.Sprintf("%s of %s.%s on %s", name, keyspace, table, n.Address))
		}
		if err := rows.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if others != 1 {
		t.Errorf("somebody else's snapshot is there %d times", others)
	}
	return all
}

// files are those in the catalog, by their path in it.
func (b *bed) files(t *testing.T, below string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(b.catalog, below), func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // gone meanwhile, or never there
		case err != nil || d.IsDir() || d.Name() == ".guard" || d.Name() == "lock.json":
			return err
		}
		rel, err := filepath.Rel(b.catalog, path)
		all = append(all, rel)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func (b *bed) manifest(t *testing.T, name string) (m engine.Manifest, found bool) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(b.catalog, "backups", name, "manifest.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return m, false
	}
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	if err != nil {
		t.Fatal(err)
	}
	return m, true
}

// claimsNothing: after a fault there is no backup of the name, neither in the state nor in the catalog, nothing is paused, and the pause ended soon.
func (b *bed) claimsNothing(t *testing.T, name string, r cores.Result) {
	t.Helper()
	if r.ExitCode == 0 {
		t.Errorf("the apply succeeded:\n%s", r.All())
	}
	if b.server.Paused() {
		t.Error("the server is left paused")
	}
	if values := b.w.Values(t, address); values != nil && values["id"] == name && values["status"] == engine.StatusAvailable {
		t.Error("the state claims a backup")
	}
	if _, found := b.manifest(t, name); found {
		t.Error("the catalog claims a backup")
	}
}

// next is the next apply: it makes the backup whole, and leaves nothing of the run that failed, on no node and not in the catalog.
func (b *bed) next(t *testing.T, name string) {
	t.Helper()
	r := b.w.Apply(t)
	if r.ExitCode != 0 {
		t.Fatalf("the next apply: exit code %d\n%s", r.ExitCode, r.All())
	}
	if values := b.w.Values(t, address); values["id"] != name || values["status"] != engine.StatusAvailable {
		t.Errorf("the next apply left backup %v with status %v", values["id"], values["status"])
	}
	b.onlyWhole(t, name)
}

func (b *bed) onlyWhole(t *testing.T, name string) {
	t.Helper()
	if b.server.Paused() {
		t.Error("the server is left paused")
	}
	if left := b.snapshots(t); len(left) > 0 {
		t.Errorf("snapshots are left:\n%s", strings.Join(left, "\n"))
	}
	if left := faultrun.Processes(b.w.Dir); len(left) > 0 {
		t.Errorf("processes are left: %v", left)
	}
	m, found := b.manifest(t, name)
	if !found {
		t.Error("the catalog has no manifest")
	}
	for _, f := range b.files(t, "") {
		own := strings.HasPrefix(f, "backups/"+name+"/"+m.RunID+"/") || f == "backups/"+name+"/manifest.json"
		if !own && !strings.HasPrefix(f, "cassandra/blobs/") {
			t.Errorf("%s is left in the catalog", f)
		}
	}
}

// uploading starts an apply and returns in the middle of its upload: some files are in the catalog, and a big one is on its way for seconds.
func (b *bed) uploading(t *testing.T, name string) *cores.Process {
	t.Helper()
	const megabytes = 4
	b.write(t, megabytes)
	before := b.files(t, "cassandra/blobs")
	b.configure(t, name, 1)
	apply := b.w.Start(t, "apply", "-auto-approve", "-input=false", "-no-color")
	ended := func() bool {
		return strings.Contains(apply.Output(), "Apply complete") || strings.Contains(apply.Output(), "Error:")
	}
	poll.Until(t, limit, "no upload", func() bool {
		if ended() {
			t.Fatalf("the apply is over before it was seen uploading:\n%s", apply.Output())
		}
		return slices.ContainsFunc(b.files(t, "cassandra/blobs"), func(f string) bool { return !slices.Contains(before, f) })
	}, apply.Output)
	if pins := b.files(t, "cassandra/pins"); len(pins) != 1 {
		t.Errorf("pins during the upload: %v", pins)
	}
	if len(b.snapshots(t)) == 0 {
		t.Error("there is no snapshot on any node: the test shows nothing")
	}
	if ended() {
		t.Fatalf("the upload is over already: the test shows nothing:\n%s", apply.Output())
	}
	return apply
}
