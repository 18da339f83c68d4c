//go:build acceptance

package jmxnode_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	gocql "github.com/apache/cassandra-gocql-driver/v2"

	testbed "github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/cassandra"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/testclock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/jmxnode"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/local"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/nodetool"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/remote"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/jmx"
)

// bed is one real node, an SSH server on its machine, and a few rows.
type bed struct {
	cluster *testbed.Cluster
	real    *testbed.Node
	node    node.Node
	session *gocql.Session
	ssh     *testbed.SSH
	clock   *testclock.Clock
}

func start(t *testing.T, o testbed.Options) *bed {
	t.Helper()
	o.Nodes = 1
	b := &bed{cluster: testbed.Start(t, o), clock: testclock.New()}
	b.real = b.cluster.Nodes[0]
	b.session = b.real.Session(t)
	b.ssh = b.cluster.StartSSH(t)
	b.node = node.Node{Address: b.real.Address}
	if err := b.session.Query("SELECT host_id, release_version FROM system.local").Scan(&b.node.HostID, &b.node.Version); err != nil {
		t.Fatal(err)
	}
	b.cql(t, "CREATE KEYSPACE shop WITH replication = {'class': 'NetworkTopologyStrategy', 'dc1': 1}")
	b.cql(t, "CREATE TABLE shop.t (id int PRIMARY KEY, v text)")
	b.cql(t, "CREATE TABLE shop.empty (id int PRIMARY KEY, v text)")
	for i := range 10 {
		b.cql(t, "INSERT INTO shop.t (id, v) VALUES (?, 'x')", i)
	}
	return b
}

func (b *bed) cql(t *testing.T, statement string, values ...any) {
	t.Helper()
	if err := b.session.Query(statement, values...).Exec(); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func (b *bed) hosts(t *testing.T) *remote.Hosts {
	t.Helper()
	h, err := remote.New(remote.Settings{Port: b.ssh.Port, User: b.ssh.User, KnownHosts: b.ssh.KnownHosts, PrivateKeyPEM: string(b.ssh.PrivateKeyPEM)},
		remote.Options{Clock: b.clock, Getenv: os.Getenv})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// TestSecured: a node of 5.0 whose JMX has passwords and TLS with client certificates.
func TestSecured(t *testing.T) {
	b := start(t, testbed.Options{JMX: testbed.JMX{Password: true, TLS: true, ClientCert: true}, DataDirs: 2})
	certificate, err := tls.X509KeyPair(b.cluster.TLS.ClientCertPEM, b.cluster.TLS.ClientKeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(b.cluster.TLS.CAPEM)
	over := jmxnode.Settings{
		Username: testbed.JMXUser, Password: b.cluster.JMXPassword, RegistryTLS: true, Clock: b.clock,
		TLS: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{certificate}},
	}
	tunnelled := over
	tunnelled.SSH = b.hosts(t)
	command := []string{b.cluster.NodetoolPath(), "--ssl"}
	for store, path := range map[string]string{"trust": b.cluster.TLS.TrustStore, "key": b.cluster.TLS.ClientStore} {
		command = append(command, "-Djavax.net.ssl."+store+"Store="+path, "-Djavax.net.ssl."+store+"StorePassword="+b.cluster.TLS.StorePassword)
	}
	command = append(command, "-h", "{address}")
	login := nodetool.Login{Username: testbed.JMXUser, Password: b.cluster.JMXPassword}
	b.run(t, map[string]node.Transport{
		"jmx":             jmxnode.New(over),
		"jmx through SSH": jmxnode.New(tunnelled),
		"exec":            &nodetool.Transport{Clock: b.clock, Runner: nodetool.Exec{Machine: local.Machine{Clock: b.clock, Getenv: os.Getenv}, Command: command, Login: login}},
		"ssh":             &nodetool.Transport{Clock: b.clock, Runner: nodetool.SSH{Hosts: b.hosts(t), Command: strings.Join(command, " "), Login: login}},
	})
	left, _ := filepath.Glob(filepath.Join(os.TempDir(), "scalardb-jmx*"))
	for _, path := range left {
		if text, err := os.ReadFile(path); err == nil && strings.Contains(string(text), b.cluster.JMXPassword) { // others' tests may have theirs there
			t.Errorf("a password file is left: %s", path)
		}
	}
	if log := b.ssh.Log(); strings.Contains(log, b.cluster.JMXPassword) {
		t.Error("the SSH server saw the password in a command")
	}

	reader := over
	reader.Username = testbed.JMXReader
	o, err := jmxnode.New(reader).Open(t.Context(), b.node)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if err := o.CheckRights(t.Context(), "rights", []string{"shop"}); !errors.Is(err, jmx.ErrAccess) || !strings.Contains(err.Error(), "role readwrite") {
		t.Errorf("CheckRights of who may only read, over JMX: %v", err)
	}
	n, err := (&nodetool.Transport{Clock: b.clock, Runner: nodetool.Exec{
		Machine: local.Machine{Clock: b.clock, Getenv: os.Getenv}, Command: command, Login: nodetool.Login{Username: testbed.JMXReader, Password: b.cluster.JMXPassword},
	}}).Open(t.Context(), b.node)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.CheckRights(t.Context(), "rights", []string{"shop"}); err == nil || !strings.Contains(err.Error(), "role readwrite") {
		t.Errorf("CheckRights of who may only read, by nodetool: %v", err)
	}
	wrong := over
	wrong.Password = "wr0ng"
	if _, err := jmxnode.New(wrong).Open(t.Context(), b.node); !errors.Is(err, jmx.ErrAuthentication) || strings.Contains(err.Error(), "wr0ng") {
		t.Errorf("a wrong password: %v", err)
	}
	plain := over
	plain.TLS, plain.RegistryTLS = nil, false
	if _, err := jmxnode.New(plain).Open(t.Context(), b.node); err == nil {
		t.Error("it connects without TLS")
	}
}

// TestLocal: a node of 4.1 whose JMX is as the packages have it, for local clients only and at a second, random port.
func TestLocal(t *testing.T) {
	b := start(t, testbed.Options{Version: testbed.Version41, JMX: testbed.JMX{Local: true}})
	b.run(t, map[string]node.Transport{
		"jmx through SSH": jmxnode.New(jmxnode.Settings{Host: "127.0.0.1", Port: b.real.JMXPort, SSH: b.hosts(t), Clock: b.clock}),
		"ssh": &nodetool.Transport{Clock: b.clock, Runner: nodetool.SSH{
			Hosts: b.hosts(t), Command: "nodetool -h 127.0.0.1 -p " + strconv.Itoa(b.real.JMXPort),
		}},
	})
}

func (b *bed) run(t *testing.T, transports map[string]node.Transport) {
	t.Helper()
	// A snapshot of somebody else's: it has to be there in the end.
	if _, err := b.real.Nodetool(t.Context(), "snapshot", "-t", "an operators own", "--", "shop"); err != nil {
		t.Fatal(err)
	}
	names := make([]string, 0, len(transports))
	for name := range transports {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		t.Run(name, func(t *testing.T) { b.life(t, transports[name], "tag-"+strings.ReplaceAll(name, " ", "-")) })
	}
	out, err := b.real.Nodetool(t.Context(), "listsnapshots")
	if err != nil || strings.Count(out, "an operators own") < 2 || strings.Contains(out, "tag-") {
		t.Errorf("what is left: %v\n%s", err, out)
	}
}

func (b *bed) life(t *testing.T, transport node.Transport, tag string) {
	ctx, shop := t.Context(), []string{"shop"}
	wrong := b.node
	wrong.HostID = "00000000-0000-0000-0000-000000000000"
	if _, err := transport.Open(ctx, wrong); err == nil || !strings.Contains(err.Error(), b.node.HostID) {
		t.Errorf("Open of another node: %v", err)
	}
	o, err := transport.Open(ctx, b.node)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := o.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}()
	for i := range 10 {
		b.cql(t, "INSERT INTO shop.t (id, v) VALUES (?, 'x')", i)
	}
	if err := o.CheckRights(ctx, tag, shop); err != nil {
		t.Fatal(err)
	}
	before := time.Now()
	if err := o.TakeSnapshot(ctx, tag, shop); err != nil {
		t.Fatal(err)
	}
	t.Logf("the snapshot took %s", time.Since(before).Round(time.Millisecond))
	for what, err := range map[string]error{"CheckRights": o.CheckRights(ctx, tag, shop), "TakeSnapshot": o.TakeSnapshot(ctx, tag, shop)} {
		if !errors.Is(err, node.ErrSnapshotExists) {
			t.Errorf("%s of a tag that is there: %v", what, err)
		}
	}
	if err := o.TakeSnapshot(ctx, tag+"2", []string{"nope"}); err == nil || !strings.Contains(err.Error(), "nope does not exist") {
		t.Errorf("an unknown keyspace: %v", err)
	}
	// What the list says is what is on the disk.
	all, err := o.Snapshots(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var listed, others []string
	for _, s := range all {
		if s.Tag == tag {
			listed = append(listed, s.Keyspace+"."+s.Table)
			if s.Table == "t" && (s.Size <= 0 || s.TrueSize < 0) {
				t.Errorf("its sizes: %+v", s)
			}
		} else {
			others = append(others, s.Tag)
		}
	}
	slices.Sort(listed)
	t.Logf("listed: %v", listed)
	if !slices.Contains(listed, "shop.t") || !slices.Contains(others, "an operators own") {
		t.Errorf("listed: %v and %v", listed, others)
	}
	dirs := b.snapshotDirs(t, tag)

	if got, err := o.(node.DirectoryLister).DataDirectories(ctx); err != nil || !slices.Equal(got, b.real.DataDirs()) {
		t.Errorf("DataDirectories: %v, %v; want %v", got, err, b.real.DataDirs())
	}
	write := func() {
		for i := range 3 {
			b.cql(t, "INSERT INTO shop.t (id, v) VALUES (?, ?)", i, tag)
		}
	}
	if counter, ok := o.(node.WriteCounter); ok { // JMX; nodetool's is none
		table := node.Table{Keyspace: "shop", Name: "t"}
		tables := []node.Table{table, {Keyspace: "shop", Name: "empty"}}
		first, err := counter.Writes(ctx, tables)
		if err != nil {
			t.Fatal(err)
		}
		write()
		second, err := counter.Writes(ctx, tables)
		if err != nil || second[table] != first[table]+3 || second[tables[1]] != 0 {
			t.Errorf("Writes: %v, then %v, %v; want 3 more", first, second, err)
		}
	} else {
		write()
	}
	// A flush leaves nothing in memory: there is an SSTable of what was just written. (A compaction may take others away.)
	unflushed := b.real.SSTables(t, "shop", "t")
	if err := o.(node.Flusher).Flush(ctx, "shop"); err != nil {
		t.Errorf("a flush: %v", err)
	}
	if flushed := b.real.SSTables(t, "shop", "t"); !slices.ContainsFunc(flushed, func(f string) bool { return !slices.Contains(unflushed, f) }) {
		t.Errorf("after a flush there are the SSTables %v, before it %v", flushed, unflushed)
	}

	// Import: the rows are back, the files stay.
	var stages []string
	files := 0
	for i, dir := range dirs {
		stage := filepath.Join(b.cluster.Dir, tag, strconv.Itoa(i), "shop", "t")
		copyDir(t, stage, dir)
		files += count(t, stage)
		stages = append(stages, stage)
	}
	b.cql(t, "TRUNCATE shop.t")
	if err := o.(node.Importer).Import(ctx, "shop", "t", stages); err != nil {
		t.Errorf("Import: %v", err)
	}
	var rows, left int
	for _, stage := range stages {
		left += count(t, stage)
	}
	if err := b.session.Query("SELECT count(*) FROM shop.t").Scan(&rows); err != nil || rows != 10 || left != files {
		t.Errorf("after the import %d rows, %d of %d files, %v", rows, left, files, err)
	}
	bad := filepath.Join(b.cluster.Dir, tag, "bad", "shop", "t")
	copyDir(t, bad, stages[0])
	data, _ := filepath.Glob(filepath.Join(bad, "*-Data.db"))
	if len(data) == 0 {
		t.Fatalf("no SSTables in %s", bad)
	}
	if err := os.WriteFile(data[0], []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := o.(node.Importer).Import(ctx, "shop", "t", []string{bad}); err == nil || !strings.Contains(err.Error(), bad) {
		t.Errorf("Import of damaged files: %v", err)
	}
	if err := o.(node.Repairer).Repair(ctx, "shop"); err != nil {
		t.Errorf("Repair: %v", err)
	}

	for range 2 {
		if err := o.ClearSnapshot(ctx, tag, shop); err != nil {
			t.Errorf("ClearSnapshot: %v", err)
		}
	}
	for _, dir := range dirs {
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", dir, err)
		}
	}
}

// snapshotDirs are where the SSTables of shop.t are: those of one table are spread over the data directories.
func (b *bed) snapshotDirs(t *testing.T, tag string) []string {
	t.Helper()
	var all []string
	for _, d := range b.real.DataDirs() {
		if found, _ := filepath.Glob(filepath.Join(d, "shop", "t-*", "snapshots", tag, "*-Data.db")); len(found) > 0 {
			all = append(all, filepath.Dir(found[0]))
		}
	}
	if len(all) == 0 {
		t.Fatalf("there is no snapshot %s on the disk", tag)
	}
	return all
}

func copyDir(t *testing.T, to, from string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

func count(t *testing.T, dir string) int {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
