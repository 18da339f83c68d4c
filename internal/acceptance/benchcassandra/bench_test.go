//go:build bench

// Package benchcassandra compares how long a pause lasts for the snapshot of a Cassandra cluster, by each transport and by a script as people write them.
package benchcassandra

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	gocql "github.com/apache/cassandra-gocql-driver/v2"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed"
	bed "github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/cassandra"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/admin"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/catalog/directory"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/clock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/adminserver"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/lock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/jmxnode"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/jolokia"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/local"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/managementapi"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/managementapi/managementapitest"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/nodetool"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/remote"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/rest"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/sidecar"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/sidecar/sidecartest"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/target"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/watchdog"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/jmx"
)

const (
	rounds  = 3
	warming = 30  // snapshots of all nodes before the first round
	rows    = 20  // written to each table before each snapshot, so that every snapshot has as much to flush
	reads   = 200 // after that
)

// The rows of the result.
const (
	alone    = "takeSnapshot, slowest node, each alone"
	together = "takeSnapshot, all nodes at once"
	script   = "scalar-admin; nodetool over ssh; scalar-admin"
	quicker  = "scalar-admin; a nodetool tuned to start fast, over ssh; scalar-admin"
)

// Targets: what the pause may take of the slowest node's own takeSnapshot within it, and how much less than the script's.
const (
	mostOfOwn   = 1.3
	leastScript = 20
)

// figure is of one backup: how long the window was open, how long it lasted from the confirmed pause until the server was unpaused, how long the server was
// paused, from its first refusal on, and how long the slowest node took for its snapshot in it.
type figure struct{ window, pause, refused, own time.Duration }

// memory is a file system without a disk.
const memory = "/dev/shm"

// TestBenchCassandra takes backups of one cluster of three nodes by every transport in turns, and in the same run does what people do by hand. What a node's disk needs
// to have the last writes on it is in all of these pauses alike: in memory one sees what else is in them, on a disk with many tables what a snapshot costs.
func TestBenchCassandra(t *testing.T) {
	t.Run("memory, 2 tables", func(t *testing.T) {
		dir, err := os.MkdirTemp(memory, "bench")
		if err != nil {
			t.Fatalf("making a directory in memory (tmpfs): %v", err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		t.Setenv("TMPDIR", dir)
		compare(t, 2, 0, 4)
	})
	t.Run("disk, 2 tables", func(t *testing.T) { compare(t, 2, 0, 4) })
	t.Run("disk, 20 tables", func(t *testing.T) { compare(t, 20, 0, 1) })
	t.Run("disk, nodetool", func(t *testing.T) { compare(t, 2, 4, 6) })
}

// compare measures some of the transports.
func compare(t *testing.T, tables, from, to int) {
	b := newBench(t, tables)
	ways := b.transports(t)[from:to]
	var names []string
	for _, w := range ways {
		names = append(names, w.name)
	}
	names = append(names, script, quicker)
	// Nodes that serve are warm; these were just started.
	for i := range warming {
		b.together(t, -1-i)
	}
	figures := map[string][]figure{}
	for round := range rounds + 1 {
		b.compact(t)
		own := map[string]figure{alone: {pause: b.alone(t, round)}, together: {pause: b.together(t, round)}}
		// The later in a round, the more files there are to link: everybody comes first sometimes.
		for i := range names {
			name := names[(i+round)%len(names)]
			b.write(t)
			switch name {
			case script:
				own[name] = b.byHand(t, b.shipped, fmt.Sprintf("byhand-%d", round))
				continue
			case quicker:
				own[name] = b.byHand(t, "nodetool", fmt.Sprintf("quicker-%d", round))
				continue
			}
			own[name] = b.backup(t, ways[slices.Index(names, name)].settings, fmt.Sprintf("%s-%d", strings.Trim(strings.Fields(name)[0], ","), round))
		}
		if round == 0 {
			continue // what makes the calls warms up as well
		}
		t.Logf("round %d: %v", round, own)
		for name, f := range own {
			figures[name] = append(figures[name], f)
		}
	}
	b.report(t, append([]string{alone, together}, names...), figures)
}

func (b *bench) report(t *testing.T, names []string, figures map[string][]figure) {
	t.Helper()
	load, _ := os.ReadFile("/proc/loadavg")
	hand := median(figures[script]).pause
	var out strings.Builder
	fmt.Fprintf(&out, "Cassandra %s, %d nodes, %d tables, %d processors, load %s, medians of %d\n\n", b.cluster.Options.Version, len(b.cluster.Nodes), b.tables, runtime.NumCPU(), strings.TrimSpace(string(load)), rounds)
	fmt.Fprintf(&out, "| | slowest takeSnapshot in it | window | confirmed pause to unpause | of the slowest takeSnapshot | server paused | script's pause is longer by |\n|---|---|---|---|---|---|---|\n")
	var meet []string
	for _, name := range names {
		m := median(figures[name])
		ofOwn, times := 0.0, hand.Seconds()/m.pause.Seconds()
		if m.own > 0 {
			ofOwn = m.pause.Seconds() / m.own.Seconds()
		}
		fmt.Fprintf(&out, "| %s | %s | %s | %s | %.2f | %s | %.1f |\n", name, milliseconds(m.own), milliseconds(m.window), milliseconds(m.pause), ofOwn, milliseconds(m.refused), times)
		if m.own > 0 && ofOwn <= mostOfOwn && times >= leastScript {
			meet = append(meet, name)
		}
	}
	for _, name := range names {
		var all []string
		for _, f := range figures[name] {
			all = append(all, milliseconds(f.pause))
		}
		fmt.Fprintf(&out, "\n%s: %s", name, strings.Join(all, ", "))
	}
	fmt.Fprintf(&out, "\n\nat most %.1f times the slowest takeSnapshot, and at least %d times less than the script: %s", mostOfOwn, leastScript, cmp.Or(strings.Join(meet, ", "), "none"))
	t.Log(out.String())
}

func milliseconds(d time.Duration) string {
	if d == 0 {
		return "–"
	}
	return fmt.Sprintf("%.1f ms", d.Seconds()*1000)
}

// median takes each of the times by itself.
func median(all []figure) figure {
	of := func(time func(figure) time.Duration) time.Duration {
		slices.SortFunc(all, func(a, b figure) int { return int(time(a) - time(b)) })
		return time(all[len(all)/2])
	}
	all = slices.Clone(all)
	return figure{of(func(f figure) time.Duration { return f.window }), of(func(f figure) time.Duration { return f.pause }), of(func(f figure) time.Duration { return f.refused }),
		of(func(f figure) time.Duration { return f.own })}
}

// bench is a cluster with tables as ScalarDB makes them.
type bench struct {
	cluster *bed.Cluster
	ssh     *bed.SSH
	shipped string // nodetool as Cassandra ships it
	session *gocql.Session
	nodes   []node.Node
	jmx     []node.Operator // of the nodes
	clients []*jmx.Client   // of the nodes, for what an Operator does not do
	tables  int             // of the application
	written int
}

var keyspaces = []string{"coordinator", "scalardb", "shop"}

const transactional = "tx_id text, tx_state int, tx_version int, tx_prepared_at bigint, tx_committed_at bigint, before_body text, before_tx_id text, " +
	"before_tx_state int, before_tx_version int, before_tx_prepared_at bigint, before_tx_committed_at bigint"

func newBench(t *testing.T, tables int) *bench {
	t.Helper()
	b := &bench{tables: tables, cluster: bed.Start(t, bed.Options{Jolokia: true})}
	b.ssh, b.shipped = b.cluster.StartSSH(t), b.cluster.ShippedNodetool(t)
	b.session = b.cluster.Session(t)
	for _, k := range keyspaces {
		b.cql(t, "CREATE KEYSPACE "+k+" WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 3}")
	}
	create := []string{"coordinator.state (tx_id text PRIMARY KEY, tx_state int, tx_created_at bigint)", "scalardb.namespaces (name text PRIMARY KEY)"}
	for i := range tables {
		create = append(create, fmt.Sprintf("shop.t%d (id int PRIMARY KEY, body text, %s)", i, transactional))
	}
	for _, c := range create {
		// A compaction in the one or the other window would be a matter of chance: they are compacted before each round (compact).
		b.cql(t, "CREATE TABLE "+c+" WITH compaction = {'class': 'SizeTieredCompactionStrategy', 'enabled': 'false'}")
	}
	for _, k := range []string{"coordinator", "shop"} {
		b.cql(t, "INSERT INTO scalardb.namespaces (name) VALUES (?)", k)
	}
	transport := b.overJMX()
	for _, n := range b.cluster.Nodes {
		var id, dc, rack, version string
		var tokens []string
		if err := n.Session(t).Query("SELECT host_id, data_center, rack, release_version, tokens FROM system.local").Scan(&id, &dc, &rack, &version, &tokens); err != nil {
			t.Fatal(err)
		}
		b.nodes = append(b.nodes, node.Node{HostID: id, Address: n.Address, Datacenter: dc, Rack: rack, Version: version, Tokens: tokens})
	}
	for _, n := range b.nodes {
		op, err := transport.Open(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = op.Close() })
		b.jmx = append(b.jmx, op)
		client, err := jmx.Connect(t.Context(), jmx.Config{Host: n.Address, Port: jmxnode.DefaultPort, Clock: clock.System{}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = client.Close() })
		b.clients = append(b.clients, client)
	}
	return b
}

func (b *bench) overJMX() *jmxnode.Transport {
	return jmxnode.New(jmxnode.Settings{Clock: clock.System{}})
}

func (b *bench) cql(t *testing.T, statement string, args ...any) {
	t.Helper()
	if err := b.session.Query(statement, args...).Consistency(gocql.All).ExecContext(t.Context()); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// compact leaves one SSTable of each table on each node. Each capture adds one or two: by the end of a round a table has some fifteen, as tables have that are
// written to all the time.
func (b *bench) compact(t *testing.T) {
	t.Helper()
	for _, c := range b.clients {
		for _, k := range keyspaces {
			_, err := c.Invoke(t.Context(), "org.apache.cassandra.db:type=StorageService", "forceKeyspaceCompaction", []any{false, k, []string{}},
				[]string{"boolean", "java.lang.String", "[Ljava.lang.String;"})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// write changes every table, in all replicas.
func (b *bench) write(t *testing.T) {
	t.Helper()
	for i := range b.tables {
		batch := b.session.Batch(gocql.UnloggedBatch).Consistency(gocql.All)
		for range rows {
			b.written++
			batch.Query(fmt.Sprintf("INSERT INTO shop.t%d (id, body, tx_id, tx_state, tx_version) VALUES (?, ?, ?, 3, 1)", i), b.written, strings.Repeat("text", 100), fmt.Sprint(b.written))
		}
		if err := batch.ExecContext(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	b.cql(t, "INSERT INTO coordinator.state (tx_id, tx_state, tx_created_at) VALUES (?, 3, 1)", fmt.Sprint(b.written))
	// A transaction reads what it writes, and a node that never did would be cold for every query in the pause.
	for i := range reads {
		if err := b.session.Query(fmt.Sprintf("SELECT id, body, tx_id, tx_state, tx_version FROM shop.t%d WHERE id = ?", i%b.tables), b.written-i).Consistency(gocql.Quorum).ExecContext(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// application writes through a server until that is paused, as every application does: what it wrote last is in the memtables when the pause begins. wait returns when it
// has stopped.
func (b *bench) application(t *testing.T, server *adminserver.Server) (wait func()) {
	t.Helper()
	var writing sync.WaitGroup
	var failed error
	for w := range 2 {
		writing.Go(func() {
			for i := 0; t.Context().Err() == nil; i++ {
				done, err := server.Begin()
				if err != nil {
					return // paused
				}
				id := fmt.Sprintf("%s-%d-%d", server.Address(), w, i)
				for _, q := range []struct {
					cql  string
					args []any
				}{
					{fmt.Sprintf("INSERT INTO shop.t%d (id, body, tx_id, tx_state, tx_version) VALUES (?, ?, ?, 3, 1)", i%b.tables), []any{w, "later", id}},
					{"INSERT INTO coordinator.state (tx_id, tx_state, tx_created_at) VALUES (?, 3, 1)", []any{id}},
				} {
					if err := b.session.Query(q.cql, q.args...).Consistency(gocql.Quorum).ExecContext(t.Context()); err != nil && t.Context().Err() == nil {
						failed = err
					}
				}
				done()
			}
		})
	}
	return func() {
		t.Helper()
		writing.Wait()
		if failed != nil {
			t.Fatalf("the application: %v", failed)
		}
	}
}

// way is one transport.
type way struct {
	name     string
	settings cassandra.Settings
}

func (b *bench) transports(t *testing.T) []way {
	t.Helper()
	transport := func(name string, open func(cassandra.Reaching) (node.Transport, error)) way {
		return way{name, cassandra.Settings{
			Storage: "c", Clock: clock.System{}, ContactPoints: b.cluster.ContactPoints(), Mover: cassandra.KeepOnNodes(),
			Reach: func(r cassandra.Reaching) (node.Transport, node.Filesystem, error) {
				t, err := open(r)
				return t, nil, err
			},
		}}
	}
	api := func(url string) rest.Settings { return rest.Settings{URL: url, Clock: clock.System{}} }
	// Each double works on its node over a connection of its own. That of the Sidecar takes single tables, which our JMX client does not.
	overHTTP, err := jolokia.New(api("http://{address}:8778/jolokia"))
	if err != nil {
		t.Fatal(err)
	}
	backing := func(tr node.Transport, n node.Node) node.Operator {
		op, err := tr.Open(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = op.Close() })
		return op
	}
	for _, n := range b.nodes {
		managementapitest.Start(t, managementapitest.Options{Node: n, Cluster: b.nodes, Backing: backing(b.overJMX(), n), Listen: n.Address + ":8080"})
		sidecartest.Start(t, sidecartest.Options{Node: n, Cluster: b.nodes, Backing: sidecartest.Over(backing(overHTTP, n)), Listen: n.Address + ":9043"})
	}
	hosts, err := remote.New(remote.Settings{Port: b.ssh.Port, User: b.ssh.User, KnownHosts: b.ssh.KnownHosts, PrivateKeyPEM: string(b.ssh.PrivateKeyPEM)},
		remote.Options{Clock: clock.System{}, Getenv: os.Getenv})
	if err != nil {
		t.Fatal(err)
	}
	return []way{
		transport("jmx", func(cassandra.Reaching) (node.Transport, error) { return b.overJMX(), nil }),
		transport("jolokia", func(cassandra.Reaching) (node.Transport, error) {
			return jolokia.New(api("http://{address}:8778/jolokia"))
		}),
		transport("management_api (double)", func(cassandra.Reaching) (node.Transport, error) {
			return managementapi.New(api("http://{address}:8080"))
		}),
		transport("sidecar (double)", func(r cassandra.Reaching) (node.Transport, error) {
			return sidecar.New(api("http://{address}:9043"), r.Tables)
		}),
		transport("ssh, nodetool", func(cassandra.Reaching) (node.Transport, error) {
			return &nodetool.Transport{Runner: nodetool.SSH{Hosts: hosts, Command: b.shipped}, Clock: clock.System{}}, nil
		}),
		transport("exec, nodetool", func(r cassandra.Reaching) (node.Transport, error) {
			m := local.Machine{Clock: clock.System{}, Getenv: os.Getenv, Custody: r.Custody}
			return &nodetool.Transport{Runner: nodetool.Exec{Machine: m, Command: []string{b.shipped, "-h", "{address}"}}, Clock: clock.System{}}, nil
		}),
	}
}

// alone is how long takeSnapshot takes on the slowest node, while the others have nothing to do.
func (b *bench) alone(t *testing.T, round int) (slowest time.Duration) {
	t.Helper()
	b.write(t)
	tag := fmt.Sprintf("alone-%d", round)
	for _, op := range b.jmx {
		began := time.Now()
		if err := op.TakeSnapshot(t.Context(), tag, keyspaces); err != nil {
			t.Fatal(err)
		}
		slowest = max(slowest, time.Since(began))
	}
	b.clear(t, tag)
	return slowest
}

// together is how long it takes on all nodes at once, which here share the processors.
func (b *bench) together(t *testing.T, round int) time.Duration {
	t.Helper()
	b.write(t)
	tag := fmt.Sprintf("together-%d", round)
	errs := make([]error, len(b.jmx))
	var wg sync.WaitGroup
	began := time.Now()
	for i, op := range b.jmx {
		wg.Go(func() { errs[i] = op.TakeSnapshot(t.Context(), tag, keyspaces) })
	}
	wg.Wait()
	took := time.Since(began)
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	b.clear(t, tag)
	return took
}

func (b *bench) clear(t *testing.T, tag string) {
	t.Helper()
	for _, op := range b.jmx {
		if err := op.ClearSnapshot(t.Context(), tag, keyspaces); err != nil {
			t.Fatal(err)
		}
	}
}

func (b *bench) backup(t *testing.T, s cassandra.Settings, name string) figure {
	t.Helper()
	server, err := adminserver.Start(adminserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	stopped := b.application(t, server)
	system := clock.System{}
	catalog, err := directory.New(t.TempDir(), system)
	if err != nil {
		t.Fatal(err)
	}
	s.Catalog = catalog
	dialer, err := admin.NewDialer(admin.Settings{}, system)
	if err != nil {
		t.Fatal(err)
	}
	keeper := cassandra.NewKeeper(s, true, nil)
	e := &engine.Engine{
		Clock: system, Catalog: catalog, Locker: lock.Locker{Catalog: catalog, Clock: system, Holder: "bench"}, Reporter: silent{},
		Watchdog: inProcess(system, dialer),
		NewRunID: func() string { return fmt.Sprintf("%016x", time.Now().UnixNano()) }, Holder: "bench", Version: "bench",
		Artifacts: func(context.Context, string, engine.JournalStorage) (engine.ArtifactStore, error) { return keeper, nil },
		Alive:     func(string) (bool, bool) { return false, true },
	}
	made, err := e.Backup(t.Context(), engine.BackupRequest{
		Name: name, Unpauser: func(string) string { return "" },
		Pause:    engine.PauseSettings{Drain: 10 * time.Second, Max: 5 * time.Minute, ServerClockBound: time.Second},
		Groups:   map[string]engine.Group{"main": {Resolver: target.Static{Addresses: []string{server.Address()}, DNS: target.DNS()}, Dialer: dialer}},
		Storages: map[string]engine.StorageRequest{"c": {Driver: "cassandra", Source: cassandra.NewSource(s)}},
	})
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	stopped()
	w, p, extra := made.Manifest.Window, onlyPause(t, server), made.Manifest.Storages["c"].Extra
	b.clear(t, extra["tag"])
	own, err := strconv.ParseFloat(extra["slowest_snapshot_ms"], 64)
	if err != nil {
		t.Fatal(err)
	}
	return figure{window: w.EndedAt.Sub(w.StartedAt), pause: p.Until.Sub(w.StartedAt), refused: p.Until.Sub(p.From), own: time.Duration(own * float64(time.Millisecond))}
}

// byHand is what a script does: the official command-line tool pauses, nodetool takes the snapshot on all nodes at once, the tool unpauses.
func (b *bench) byHand(t *testing.T, nodetool, tag string) figure {
	t.Helper()
	server, err := adminserver.Start(adminserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	stopped := b.application(t, server)
	jars := filepath.Join(testbed.Cached(t, "scalardb", "jars"), "*")
	pause := exec.CommandContext(t.Context(), "java", "-cp", jars, "com.scalar.admin.AdminCommand", "-c", "PAUSE", "-a", server.Address())
	unpause := exec.CommandContext(t.Context(), "java", "-cp", jars, "com.scalar.admin.AdminCommand", "-c", "UNPAUSE", "-a", server.Address())
	var nodetools []*exec.Cmd
	for _, n := range b.nodes {
		args := append(b.ssh.ClientArguments(), n.Address, nodetool+" snapshot -t "+tag+" -- "+strings.Join(keyspaces, " "))
		nodetools = append(nodetools, exec.CommandContext(t.Context(), "ssh", args...))
	}
	run := func(c *exec.Cmd) error {
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w\n%s", c.Args, err, out)
		}
		return nil
	}

	if err := run(pause); err != nil {
		t.Fatal(err)
	}
	if !server.Paused() {
		t.Fatal("the tool did not pause")
	}
	confirmed := time.Now() // when the script goes on
	errs := make([]error, len(nodetools))
	var wg sync.WaitGroup
	for i, c := range nodetools {
		wg.Go(func() { errs[i] = run(c) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := run(unpause); err != nil {
		t.Fatal(err)
	}
	stopped()
	p := onlyPause(t, server)
	b.clear(t, tag)
	return figure{pause: p.Until.Sub(confirmed), refused: p.Until.Sub(p.From)}
}

func onlyPause(t *testing.T, server *adminserver.Server) adminserver.Interval {
	t.Helper()
	intervals := server.Intervals()
	if len(intervals) != 1 || intervals[0].Until.IsZero() {
		t.Fatalf("pauses: %v", intervals)
	}
	return intervals[0]
}

type silent struct{}

func (silent) Report(context.Context, engine.Event) {}

func inProcess(c engine.Clock, d engine.Dialer) engine.Watchdog {
	return watchdog.InProcess{Clock: c, Spec: watchdog.Spec{Groups: map[string]json.RawMessage{"main": json.RawMessage("{}")}}, Openers: watchdog.Openers{
		Dialer: func(json.RawMessage) (engine.Dialer, error) { return d, nil },
	}}
}
