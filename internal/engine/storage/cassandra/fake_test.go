package cassandra

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/memcatalog"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/testclock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node/nodetest"
)

// world is a cluster as its nodes' own tables tell it, and Operators of memory. What is changed in it shows in the next answer.
type world struct {
	mu        sync.Mutex
	cluster   string
	nodes     []*worldNode
	keyspaces map[string]map[string]string // replication
	tables    []node.Table
	plain     map[node.Table]bool // without transaction columns
	listed    []string            // ScalarDB's namespaces; nil: there is no such table
	gossip    map[string]string   // status by address; nil: no such table
	denied    string              // statements that contain it are not allowed
	opened    int
	queries   int
	// unanswered is how many reads of other nodes' tables go to one that died, with what the driver says then.
	unanswered    int
	unansweredErr error
}

type worldNode struct {
	w        *world
	id       string
	address  string
	dc, rack string
	version  string
	tokens   []string
	schema   string
	stranger string // answers with this host id
	hidden   bool   // unknown to the others
	down     bool
	ahead    time.Duration
	periodic bool

	op     *nodetest.Memory
	broken error // of every call
	take   func(ctx context.Context) error
	after  func() // once a snapshot was taken
	writes map[node.Table]int64
	blind  bool // its transport counts no writes
	// How long its transport and CQL take to tell the counters of writes, and how often they were asked to.
	counting, countingCQL time.Duration
	counted, countedCQL   int
	noFlush               error
	flushed               []string
	deaf                  bool // says that it cleared a snapshot, and does not
}

func hostID(i int) string { return fmt.Sprintf("%08d-0000-4000-8000-000000000000", i) }

var (
	state      = node.Table{Keyspace: "coordinator", Name: "state"}
	namespaces = node.Table{Keyspace: "scalardb", Name: "namespaces"}
	accounts   = node.Table{Keyspace: "bank", Name: "accounts"}
	notes      = node.Table{Keyspace: "bank", Name: "notes"}
)

// newWorld has n nodes with two tokens each, all keyspaces with three replicas.
func newWorld(n int) *world {
	w := &world{cluster: "prod", keyspaces: map[string]map[string]string{}, plain: map[node.Table]bool{notes: true, namespaces: true}, listed: []string{"bank", "coordinator"},
		tables: []node.Table{state, namespaces, accounts, notes}, gossip: map[string]string{}}
	for _, k := range []string{"coordinator", "scalardb", "bank"} {
		w.keyspaces[k] = map[string]string{"class": "org.apache.cassandra.locator.NetworkTopologyStrategy", "dc1": "3"}
	}
	for i := range n {
		m := &worldNode{w: w, id: hostID(i + 1), address: fmt.Sprintf("10.0.0.%d", i+1), dc: "dc1", rack: fmt.Sprintf("r%d", i+1), version: "5.0.9", schema: "v1",
			tokens: []string{fmt.Sprint(i * 100), fmt.Sprint(-1000 - i*100)}, op: nodetest.NewMemory(w.tables...), writes: map[node.Table]int64{}}
		w.nodes = append(w.nodes, m)
		w.gossip[m.address] = "NORMAL,1"
	}
	return w
}

func (w *world) settings() Settings {
	return Settings{Storage: "orders", Clock: testclock.New(), ContactPoints: []string{"10.0.0.1", "10.0.0.2"}, connect: w, Transport: worldTransport{w}, Mover: KeepOnNodes()}
}

func (w *world) resolve(_ context.Context, point string) ([]string, error) {
	return []string{point}, nil
}

func (w *world) at(address string) *worldNode {
	for _, n := range w.nodes {
		if n.address == address {
			return n
		}
	}
	return nil
}

func (w *world) connect(_ context.Context, address string) (conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.opened++
	n := w.at(address)
	if n == nil || n.down {
		return nil, fmt.Errorf("dial tcp %s: connection refused", address)
	}
	return worldConn{n}, nil
}

type worldConn struct{ n *worldNode }

func (worldConn) Close() {}

// requestError is an error of a node's, as the driver tells it.
type requestError struct {
	code int
	text string
}

func (e requestError) Error() string   { return e.text }
func (e requestError) Code() int       { return e.code }
func (e requestError) Message() string { return e.text }

var (
	noReplica    = requestError{0x1200, "Operation timed out - received only 1 responses."}
	unauthorized = requestError{0x2100, "User backup has no SELECT permission"}
	unknownTable = requestError{0x2200, "table does not exist"}
)

// Query knows the statements of the driver, and no others.
func (c worldConn) Query(_ context.Context, statement string, args ...any) ([]row, error) {
	w, n := c.n.w, c.n
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queries++
	if n.down {
		return nil, errors.New("gocql: no hosts available in the pool")
	}
	if w.denied != "" && strings.Contains(statement, w.denied) {
		return nil, unauthorized
	}
	self := func(m *worldNode) row {
		id := m.id
		if m == n && m.stranger != "" {
			id = m.stranger
		}
		return row{"cluster_name": w.cluster, "partitioner": murmur3, "host_id": id, "data_center": m.dc, "rack": m.rack, "release_version": m.version, "schema_version": m.schema,
			"tokens": slices.Clone(m.tokens), "rpc_address": m.address, "native_address": m.address, "peer": m.address, "bootstrapped": "COMPLETED"}
	}
	switch {
	case statement == localQuery, statement == nearQuery:
		return []row{self(n)}, nil
	case statement == peersQuery, statement == farQuery:
		var rows []row
		for _, m := range w.nodes {
			if m != n && !m.hidden {
				rows = append(rows, self(m))
			}
		}
		return rows, nil
	case statement == gossipQuery:
		if w.gossip == nil {
			return nil, unknownTable
		}
		var rows []row
		for _, a := range slices.Sorted(maps.Keys(w.gossip)) {
			rows = append(rows, row{"address": a, "status_with_port": w.gossip[a]})
		}
		return rows, nil
	case statement == clockQuery:
		return []row{{"now": time.Now().Add(n.ahead).Truncate(time.Millisecond)}}, nil
	case strings.HasPrefix(statement, "SELECT keyspace_name, replication"):
		rows := []row{{"keyspace_name": "system_auth", "replication": map[string]string{"class": "SimpleStrategy", "replication_factor": "1"}}}
		for k, r := range w.keyspaces {
			rows = append(rows, row{"keyspace_name": k, "replication": r})
		}
		return rows, nil
	case strings.HasPrefix(statement, "SELECT keyspace_name, table_name, column_name"):
		var rows []row
		for _, t := range w.tables {
			if !w.plain[t] {
				for _, column := range transactionColumns {
					if t != state || column == "tx_id" || column == "tx_state" {
						rows = append(rows, row{"keyspace_name": t.Keyspace, "table_name": t.Name, "column_name": column})
					}
				}
			}
		}
		return rows, nil
	case strings.HasPrefix(statement, "SELECT keyspace_name, table_name, id"):
		var rows []row
		for i, t := range w.tables {
			rows = append(rows, row{"keyspace_name": t.Keyspace, "table_name": t.Name, "id": hostID(1000 + i), "gc_grace_seconds": 864000})
		}
		return rows, nil
	case strings.HasPrefix(statement, "SELECT keyspace_name, view_name"):
		return nil, nil
	case statement == `SELECT name FROM "scalardb"."namespaces"` && w.unanswered > 0:
		w.unanswered--
		return nil, w.unansweredErr
	case statement == `SELECT name FROM "scalardb"."namespaces"`:
		var rows []row
		for _, name := range w.listed {
			rows = append(rows, row{"name": name})
		}
		return rows, nil
	case strings.HasPrefix(statement, "DESCRIBE KEYSPACE"):
		return []row{{"create_statement": "CREATE " + statement}}, nil
	case strings.HasPrefix(statement, "SELECT keyspace_name, mebibytes"):
		return []row{{"keyspace_name": "bank", "mebibytes": int64(3)}, {"keyspace_name": "other", "mebibytes": int64(9)}}, nil
	case strings.HasPrefix(statement, "SELECT keyspace_name, table_name, count FROM system_views.local_write_latency"):
		n.countedCQL++
		w.mu.Unlock()
		time.Sleep(n.countingCQL)
		w.mu.Lock()
		var rows []row
		for _, t := range w.tables {
			if len(args) == 0 || args[0] == t.Keyspace && args[1] == t.Name {
				rows = append(rows, row{"keyspace_name": t.Keyspace, "table_name": t.Name, "count": n.writes[t]})
			}
		}
		return rows, nil
	case strings.HasPrefix(statement, "SELECT name, value FROM system_views.settings"):
		v := "batch"
		if n.periodic {
			v = "periodic"
		}
		return []row{{"name": "commitlog_sync", "value": v}}, nil
	}
	return nil, fmt.Errorf("unknown statement %s", statement)
}

// worldTransport opens Operators.
type worldTransport struct{ w *world }

func (worldTransport) Name() string { return "jmx" }

func (t worldTransport) Open(_ context.Context, n node.Node) (node.Operator, error) {
	t.w.mu.Lock()
	defer t.w.mu.Unlock()
	t.w.opened++
	m := t.w.at(n.Address)
	if m == nil || m.down {
		return nil, fmt.Errorf("dial tcp %s:7199: connection refused", n.Address)
	}
	if m.blind {
		return struct{ node.Operator }{worldOperator{m.op, m}}, nil
	}
	return worldOperator{m.op, m}, nil
}

type worldOperator struct {
	*nodetest.Memory
	n *worldNode
}

func (o worldOperator) fault() error {
	o.n.w.mu.Lock()
	defer o.n.w.mu.Unlock()
	if o.n.down {
		return errors.New("connection reset by peer")
	}
	return o.n.broken
}

func (o worldOperator) CheckRights(ctx context.Context, tag string, keyspaces []string) error {
	return errors.Join(o.fault(), o.Memory.CheckRights(ctx, tag, keyspaces))
}

func (o worldOperator) TakeSnapshot(ctx context.Context, tag string, keyspaces []string) error {
	if err := o.fault(); err != nil {
		return err
	}
	if o.n.take != nil {
		if err := o.n.take(ctx); err != nil {
			return err
		}
	}
	if err := o.Memory.TakeSnapshot(ctx, tag, keyspaces); err != nil {
		return err
	}
	if o.n.after != nil {
		o.n.after()
	}
	return nil
}

func (o worldOperator) Snapshots(ctx context.Context) ([]node.Snapshot, error) {
	if err := o.fault(); err != nil {
		return nil, err
	}
	return o.Memory.Snapshots(ctx)
}

func (o worldOperator) ClearSnapshot(ctx context.Context, tag string, keyspaces []string) error {
	if err := o.fault(); err != nil {
		return err
	}
	if o.n.deaf {
		return nil
	}
	return o.Memory.ClearSnapshot(ctx, tag, keyspaces)
}

func (o worldOperator) Flush(_ context.Context, keyspace string) error {
	o.n.w.mu.Lock()
	defer o.n.w.mu.Unlock()
	o.n.flushed = append(o.n.flushed, keyspace)
	return o.n.noFlush
}

func (o worldOperator) Writes(_ context.Context, tables []node.Table) (map[node.Table]int64, error) {
	if err := o.fault(); err != nil {
		return nil, err
	}
	time.Sleep(o.n.counting)
	o.n.w.mu.Lock()
	defer o.n.w.mu.Unlock()
	o.n.counted++
	out := map[node.Table]int64{}
	for _, t := range tables {
		out[t] = o.n.writes[t]
	}
	return out, nil
}

// write counts a write on some nodes.
func (w *world) write(t node.Table, nodes ...int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, i := range nodes {
		w.nodes[i].writes[t]++
	}
}

func (w *world) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// left are all snapshots on all nodes.
func (w *world) left(t *testing.T) (out []string) {
	t.Helper()
	for _, n := range w.nodes {
		all, err := n.op.Snapshots(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range all {
			out = append(out, n.address+" "+s.Tag+" "+s.Keyspace+"."+s.Table)
		}
	}
	return out
}

func run() engine.Run {
	return engine.Run{ID: "0123456789abcdef", BackupID: "before 2.0/rc.1", Catalog: memcatalog.New(time.Now), Prefix: "backups/nightly/0123456789abcdef/",
		Report: func(string, map[string]any) {}}
}
