//go:build acceptance

// Package cassandra runs the provider, under real cores, against real Cassandra clusters on which the real Scalar DB server runs a bank: backups of three
// nodes under load, and restores of them into another cluster and onto the wiped nodes themselves.
package cassandra

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/emptypb"

	bed "github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/cassandra"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/cores"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/scalardb"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/admin/adminpb"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/snapshot"
)

const (
	release        = "1.0.0"
	backupAddress  = "scalardb_consistent_backup.release"
	restoreAddress = "scalardb_snapshot_restore.copy"
	storageName    = "c" // in the configurations
)

// limit of what is waited for: three nodes, a server and a core share a small machine.
const limit = 3 * time.Minute

// noted is how long after its answer the application has noted a commit at the latest. Windows that are shorter are not held against it.
const noted = time.Second

// overlooked is how short a window may be for the watch to miss its pause on a busy machine.
const overlooked = 500 * time.Millisecond

// shop is a system over a cluster of three nodes, with three copies of everything, and a cluster of one node for its clones.
type shop struct {
	*scalardb.System
	t               *testing.T // what a topic starts anew must outlive it
	cluster, clones *bed.Cluster
	ssh             *bed.SSH // to the machines of cluster
	mirror          *cores.Mirror
	admin           adminpb.AdminClient
}

// TestCassandra has one system for everything, since starting it takes longer than most of it. Each test finds the writers busy, and leaves them so.
func TestCassandra(t *testing.T) {
	s := startShop(t)
	s.Bank.StartWriters(t, 4)
	for _, topic := range []struct {
		name string
		run  func(*shop, *testing.T)
	}{{"Clone", (*shop).clone}, {"WithoutPause", (*shop).withoutPause}, {"SameTopology", (*shop).sameTopology}} {
		t.Run(topic.name, func(t *testing.T) {
			began := time.Now()
			s.Bank.WaitForCommits(t, 20, limit)
			topic.run(s, t)
			if s.isPaused(t) {
				t.Error("the server is left paused")
			}
			s.Bank.WaitForCommits(t, 20, limit)
			t.Logf("took %.1f s", time.Since(began).Seconds())
		})
	}
	s.Bank.Stop(t)
	if rows, sum := s.Bank.Sum(t); rows != s.Config.Rows() || sum != s.Config.Total() {
		t.Errorf("the live bank has %d rows with a sum of %d, want %d and %d", rows, sum, s.Config.Rows(), s.Config.Total())
	}
	t.Logf("the bank: %+v", s.Bank.Stats(t))
}

func startShop(t *testing.T) *shop {
	t.Helper()
	began := time.Now()
	s := &shop{
		t:       t,
		cluster: bed.Prepare(t, bed.Options{Name: "shop", Jolokia: true}),
		clones:  bed.Prepare(t, bed.Options{Name: "staging", Nodes: 1}),
	}
	for _, n := range slices.Concat(s.cluster.Nodes, s.clones.Nodes) {
		run(t, n.StartScript())
	}
	s.mirror = cores.NewMirror(t) // while they start
	s.ssh = s.cluster.StartSSH(t)
	s.cluster.WaitUp(t)
	s.clones.WaitUp(t)
	t.Logf("the clusters and the provider: %.1f s", time.Since(began).Seconds())
	// Two namespaces, so that a transfer may be half in a copy.
	s.System = scalardb.Start(t, scalardb.Config{
		Namespaces: []string{"bank", "bank2"}, Accounts: 10, SchemaArguments: []string{"--replication-factor", "3"},
		Storages: []scalardb.Storage{scalardb.Cassandra(storageName, s.cluster.ContactPoints(), bed.Superuser, bed.SuperuserPassword)},
	})
	s.admin = s.Admin(t)
	t.Logf("with Scalar DB: %.1f s", time.Since(began).Seconds())
	return s
}

func run(t *testing.T, command string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), command).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

func (s *shop) isPaused(t *testing.T) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	r, err := s.admin.CheckPaused(ctx, &emptypb.Empty{})
	if err != nil {
		t.Fatalf("asking the Scalar DB server whether it is paused: %v", err)
	}
	return r.GetPaused()
}

// workspace is a configuration with a catalog of its own.
type workspace struct {
	*cores.Workspace
	catalog string
}

func (s *shop) workspace(t *testing.T, core cores.Core, target, least string) *workspace {
	t.Helper()
	w := &workspace{core.Workspace(t, s.mirror), filepath.Join(t.TempDir(), "catalog")}
	s.provider(t, w, target, least)
	w.Init(t)
	return w
}

func (s *shop) provider(t *testing.T, w *workspace, target, least string) {
	t.Helper()
	w.Write(t, "provider.tf", `terraform {
  required_providers {
    scalardb = { source = "scalar-labs/scalardb", version = %q }
  }
}
provider "scalardb" {
  pause = {
    targets       = { main = { addresses = [%q] } }
    drain_timeout = "30s"
    min_duration  = %q
    max_duration  = "90s"
  }
  catalog     = { directory = %q }
  credentials = { %s = { ssh = { private_key_pem = file(%q) } } }
}
`, release, target, least, w.catalog, storageName, s.ssh.PrivateKeyPath)
}

func (w *workspace) apply(t *testing.T) {
	t.Helper()
	w.Must(t, "apply", "-auto-approve", "-input=false", "-no-color")
}

// take applies a configuration with one backup more, and holds its window against what the server's clients saw.
func (s *shop) take(t *testing.T, w *workspace, what, address string) {
	t.Helper()
	watch := s.WatchPauses(t)
	r, tried := w.patiently(t)
	pauses := watch.Stop()
	if r.ExitCode != 0 {
		t.Fatalf("%s: exit code %d\n%s", what, r.ExitCode, r.All())
	}
	m := w.manifest(t, address)
	if missed := tried - len(pauses); missed == 1 && m.Window.DurationMS < overlooked.Milliseconds() {
		t.Logf("%s: the watch did not get to run within the pause", what)
		pauses = append(pauses, scalardb.Interval{From: m.Window.StartedAt, To: m.Window.EndedAt})
	} else if missed != 0 {
		t.Fatalf("%s: %d pauses of the server for %d attempts", what, len(pauses), tried)
	}
	s.checkWindow(t, what, m, watch, pauses[tried-1])
}

// patiently applies anew when the provider gives up a window in which it was not scheduled for seconds, as it has to, on a machine that is much too busy.
func (w *workspace) patiently(t *testing.T) (r cores.Result, tried int) {
	t.Helper()
	for tried = 1; ; tried++ {
		if r = w.Apply(t); tried == attempts || !strings.Contains(oneLine(r.All()), "this process stood still") {
			return r, tried
		}
		t.Logf("attempt %d was given up: the provider's process stood still", tried)
	}
}

// attempts at a backup.
const attempts = 8

// oneLine undoes how a core breaks the lines of its messages.
func oneLine(s string) string {
	return strings.Join(strings.Fields(strings.NewReplacer("│", " ", "╷", " ", "╵", " ").Replace(s)), " ")
}

// importAgain drops a resource from the state and imports it: the plan is empty then.
func (w *workspace) importAgain(t *testing.T, address, name string) {
	t.Helper()
	w.Must(t, "state", "rm", address)
	w.Must(t, "import", "-input=false", "-no-color", address, name)
	w.PlanIsEmpty(t)
}

func points(c *bed.Cluster) string {
	var quoted []string
	for _, p := range c.ContactPoints() {
		quoted = append(quoted, fmt.Sprintf("%q", p))
	}
	return strings.Join(quoted, ", ")
}

// direct is how all nodes are reached from the machine that they are on.
const direct = `transport = { jmx = {} }
      data      = { upload = { via = "local" } }`

// overSSH is how they are reached on machines of their own, where JMX is closed to others.
func (s *shop) overSSH() string {
	return fmt.Sprintf(`ssh       = { port = %d, user = %q, known_hosts_path = %q }
      transport = { jmx = { host = "{address}", ssh = true } }
      data      = { upload = { via = "ssh" } }`, s.ssh.Port, s.ssh.User, s.ssh.KnownHostsPath)
}

// backup writes a backup's resource into a file of its own; how says how the nodes are reached.
func (s *shop) backup(t *testing.T, w *workspace, label, name, how string) {
	t.Helper()
	w.Write(t, label+".tf", `resource "scalardb_consistent_backup" %q {
  name = %q
  storages = {
    %s = { cassandra = {
      contact_points = [%s]
      %s
    } }
  }
}
`, label, name, storageName, points(s.cluster), how)
}

// load writes a restore into the cluster for clones, with every keyspace's name between prefix and suffix.
func (s *shop) load(t *testing.T, w *workspace, name string, renamed func(string) string, more string) {
	t.Helper()
	var keyspaces strings.Builder
	for _, k := range s.keyspaces(t) {
		fmt.Fprintf(&keyspaces, "%s = %q, ", k, renamed(k))
	}
	w.Write(t, "restore.tf", `resource "scalardb_snapshot_restore" "copy" {
  name      = %q
  backup_id = %s.id
  storages = {
    %s = { cassandra = {
      contact_points = [%s]
      transport      = { jmx = {} }
      load = {
        keyspaces   = { %s }
        replication = { dc1 = 1 }
        directory   = "%s/{address}/restore"
        via         = "local"
      }
    } }
  }
  %s
}
`, name, backupAddress, storageName, points(s.clones), keyspaces.String(), s.clones.Dir, more)
}

// keyspaces are ScalarDB's in the cluster.
func (s *shop) keyspaces(t *testing.T) []string {
	t.Helper()
	all := []string{"bank", "bank2", "coordinator"}
	if slices.Contains(keyspacesOf(t, s.cluster), "scalardb") { // newer releases list their namespaces there
		all = append(all, "scalardb")
	}
	return all
}

func keyspacesOf(t *testing.T, c *bed.Cluster) (all []string) {
	t.Helper()
	var name string
	rows := c.Nodes[0].Session(t).Query("SELECT keyspace_name FROM system_schema.keyspaces").Iter()
	for rows.Scan(&name) {
		if !strings.HasPrefix(name, "system") {
			all = append(all, name)
		}
	}
	if err := rows.Close(); err != nil {
		t.Fatal(err)
	}
	return all
}

// renamedConfig is the bank under other namespaces.
func (s *shop) renamedConfig(renamed func(string) string) scalardb.Config {
	c := s.Config
	c.Namespaces = nil
	for _, n := range s.Config.Namespaces {
		c.Namespaces = append(c.Namespaces, renamed(n))
	}
	return c
}

// properties are those that the restore hands out, with the login that Scalar DB demands.
func (s *shop) properties(t *testing.T, w *workspace) map[string]string {
	t.Helper()
	handed, _ := w.Values(t, restoreAddress)["scalardb_properties"].(map[string]any)
	properties := map[string]string{}
	for name, v := range handed {
		properties[name], _ = v.(string)
	}
	if len(properties) == 0 || properties["scalar.db.username"]+properties["scalar.db.password"] != "" {
		t.Errorf("scalardb_properties: %v", handed)
	}
	properties["scalar.db.username"], properties["scalar.db.password"] = bed.Superuser, bed.SuperuserPassword
	return properties
}

// read reads a copy as an application would.
func (s *shop) read(t *testing.T, w *workspace, renamed func(string) string) (rows int, sum int64) {
	t.Helper()
	return scalardb.ReadBy(t, s.renamedConfig(renamed), s.properties(t, w))
}

// inventory is all that backups and restores may leave: snapshots on all nodes, the clones' keyspaces and files, the catalog.
func (s *shop) inventory(t *testing.T, w *workspace) (all []string) {
	t.Helper()
	for _, c := range []*bed.Cluster{s.cluster, s.clones} {
		for _, n := range c.Nodes {
			rows := n.Session(t).Query("SELECT name, keyspace_name, table_name FROM system_views.snapshots").Iter()
			var name, keyspace, table string
			for rows.Scan(&name, &keyspace, &table) {
				if !strings.HasPrefix(name, "dropped-") { // Cassandra itself keeps what is dropped, as auto_snapshot has it
					all = append(all, fmt.Sprintf("snapshot %s of %s.%s on %s", name, keyspace, table, n.Address))
				}
			}
			if err := rows.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, k := range keyspacesOf(t, s.clones) {
		all = append(all, "keyspace "+k+" of the clones")
	}
	for _, n := range s.clones.Nodes {
		all = append(all, below(t, filepath.Join(n.Dir, "restore"))...)
	}
	all = append(all, below(t, w.catalog)...)
	slices.Sort(all)
	return all
}

// below are the files in a folder, but for a catalog's locks.
func below(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil || d.IsDir() || d.Name() == "lock.json" || d.Name() == ".guard":
			return err
		}
		all = append(all, "file "+path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// unchanged fails the test when something was left, or is gone.
func (s *shop) unchanged(t *testing.T, w *workspace, before []string) {
	t.Helper()
	now := s.inventory(t, w)
	for _, i := range now {
		if !slices.Contains(before, i) {
			t.Errorf("left: %s", i)
		}
	}
	for _, i := range before {
		if !slices.Contains(now, i) {
			t.Errorf("gone: %s", i)
		}
	}
}

// destroy destroys everything.
func (w *workspace) destroy(t *testing.T) {
	t.Helper()
	if r := w.Destroy(t); r.ExitCode != 0 {
		t.Fatalf("destroying: exit code %d\n%s", r.ExitCode, r.All())
	}
}

// manifest is a backup's, from the state.
func (w *workspace) manifest(t *testing.T, address string) engine.Manifest {
	t.Helper()
	text, _ := w.Values(t, address)["manifest_json"].(string)
	var m engine.Manifest
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatalf("reading the manifest of %s: %v", address, err)
	}
	return m
}

// figures are those of a backup's upload, in the words of the manifest.
func figures(m engine.Manifest) map[string]string {
	for _, a := range m.Storages[storageName].Artifacts {
		if a.Kind == snapshot.KindUpload {
			return a.Extra
		}
	}
	return nil
}

// checkWindow holds the window against what the server's clients saw, and logs it.
func (s *shop) checkWindow(t *testing.T, what string, m engine.Manifest, watch *scalardb.Watch, seen scalardb.Interval) {
	t.Helper()
	window := m.Window
	if window.Status != engine.StatusAvailable || window.StartedAt.IsZero() || window.DurationMS != window.EndedAt.Sub(window.StartedAt).Milliseconds() {
		t.Errorf("%s: window %+v", what, window)
	}
	if n := watch.Denied(window.StartedAt, window.EndedAt); n > 0 || seen.To.Before(window.EndedAt) {
		t.Errorf("%s: the server said %d times within the window %s to %s that it is not paused; it was seen paused from %s to %s",
			what, n, window.StartedAt, window.EndedAt, seen.From, seen.To)
	}
	// An application notes a commit when it gets to run after the answer, which on a busy machine is later than the server gave it.
	if n := s.Bank.Commits(t, window.StartedAt.Add(noted), window.EndedAt); n > 0 {
		t.Errorf("%s: %d commits in the window", what, n)
	}
	r := m.Storages[storageName]
	if r.Witness == "" || r.Witness == "none" || !r.HasCoordinator {
		t.Errorf("%s: the witness is %q, the coordinator was seen: %v", what, r.Witness, r.HasCoordinator)
	}
	t.Logf("%s: window %d ms after draining for %d ms; the server was paused for %d ms; upload %v; witness: %s",
		what, window.DurationMS, window.DrainMS, seen.Duration().Milliseconds(), figures(m), r.Witness)
}

// checkAvailable fails the test when a restore is not what it should be.
func (w *workspace) checkAvailable(t *testing.T, records int) (verification map[string]any) {
	t.Helper()
	values := w.Values(t, restoreAddress)
	verification, _ = values["verification"].(map[string]any)
	if n, _ := verification["records"].(float64); values["status"] != engine.StatusAvailable || verification["passed"] != true || n < float64(records) {
		t.Fatalf("the restore is %v, its verification %v", values["status"], verification)
	}
	return verification
}

// owner is who the nodes run as.
func owner(t *testing.T) string {
	t.Helper()
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	g, err := user.LookupGroupId(u.Gid)
	if err != nil {
		t.Fatal(err)
	}
	return u.Username + ":" + g.Name
}

// bytesIn is the size of the catalog's files of Cassandra.
func bytesIn(t *testing.T, w *workspace) (files int, size int64) {
	t.Helper()
	for _, f := range below(t, filepath.Join(w.catalog, "cassandra", "blobs")) {
		i, err := os.Stat(strings.TrimPrefix(f, "file "))
		if err != nil {
			t.Fatal(err)
		}
		files, size = files+1, size+i.Size()
	}
	return files, size
}
