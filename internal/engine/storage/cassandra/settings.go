// Package cassandra is the driver of Apache Cassandra clusters: one snapshot of all nodes, taken in the window, and restored into a running cluster or the same nodes.
package cassandra

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/relational"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
)

const kindName = "cassandra"

const (
	defaultPort            = 9042
	defaultSnapshotTimeout = 30 * time.Second
	// queryTimeout bounds one query to one node: all of them are small and read the node's own tables.
	queryTimeout = 10 * time.Second
	// connectTimeout bounds the connection to one node.
	connectTimeout = 10 * time.Second
	// callTimeout bounds a call of an Operator outside of the pause. Transports have limits of their own, for each thing they ask; nodetool takes up to three
	// starts of Java for one call.
	callTimeout = 5 * time.Minute
)

// Settings say which cluster is captured and how. Storage, Clock and ContactPoints are required; Transport and Mover for everything but the clock.
type Settings struct {
	Storage          string
	Clock            engine.Clock
	Catalog          engine.Catalog // for artifacts; a run brings its own
	CatalogIsDefault bool
	Report           func(message string, fields map[string]any) // may be nil

	ContactPoints []string // names or addresses, without ports
	Port          int      // 9042 when 0; that of every node
	Datacenter    string   // whose nodes are asked first; any when empty
	Keyspaces     []string // empty: ScalarDB's
	Layout        relational.Layout
	// AllowDownNodes goes on without nodes that are down, where every range keeps a quorum of captured replicas.
	AllowDownNodes bool
	// SnapshotTimeout bounds the snapshot of one node, flush included; 30 s when 0.
	SnapshotTimeout time.Duration

	// TLS encrypts CQL. The nodes' certificates must be of one of the authorities in CAPEM (the system's when empty), and name TLSServerName, or the
	// address that is connected to when that is empty.
	TLS           bool
	TLSServerName string
	// Username and Password are CQL's; empty where the cluster asks for none.
	Username, Password     string
	CAPEM, CertPEM, KeyPEM string

	// Reach makes Transport and Files for one run, or for one look at an artifact: what they start is in the run's custody. Where it is nil they are used as they are.
	Reach func(r Reaching) (node.Transport, node.Filesystem, error)

	Transport node.Transport
	// Files opens the nodes' file systems; nil where nothing gives access to them.
	Files node.Filesystem
	// DataDirectories of the nodes; asked from the Operator when empty.
	DataDirectories []string
	Mover           mover

	connect connector // over CQL; a test's
	// patience bounds one statement; queryTimeout when 0. A change of the schema takes longer than a query.
	patience time.Duration
}

// Reaching is what a run gives to its transport.
type Reaching struct {
	Custody engine.Custody
	// Tables lists the tables of keyspaces, as they are now; of all but Cassandra's own when none is named. A keyspace that is not there has none.
	Tables func(ctx context.Context, keyspaces []string) ([]node.Table, error)
}

// reach makes what nodes are reached by. custody may be nil.
func (s Settings) reach(custody engine.Custody) (Settings, error) {
	if s.Reach == nil {
		return s, nil
	}
	if custody == nil {
		custody = nobody{}
	}
	var err error
	s.Transport, s.Files, err = s.Reach(Reaching{Custody: custody, Tables: s.tables})
	return s, err
}

// nobody takes care of nothing: outside of a run there is no watchdog.
type nobody struct{}

func (nobody) Process(int, uint64, string) func() { return func() {} }
func (nobody) SecretFile(string) func()           { return func() {} }

// tables lists tables over a connection of its own.
func (s Settings) tables(ctx context.Context, keyspaces []string) ([]node.Table, error) {
	c, err := s.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	all, err := readKeyspaces(ctx, c)
	if err != nil {
		return nil, err
	}
	var out []node.Table
	for name, k := range all {
		if len(keyspaces) > 0 && !slices.Contains(keyspaces, name) {
			continue
		}
		for _, t := range slices.Concat(k.tables, k.views) {
			out = append(out, node.Table{Keyspace: name, Name: t.name})
		}
	}
	slices.SortFunc(out, func(a, b node.Table) int { return cmp.Compare(a.String(), b.String()) })
	return out, nil
}

func (s Settings) port() int { return cmp.Or(s.Port, defaultPort) }

func (s Settings) snapshotTimeout() time.Duration {
	return cmp.Or(s.SnapshotTimeout, defaultSnapshotTimeout)
}

func (s Settings) report(message string, fields map[string]any) {
	if s.Report != nil {
		s.Report(message, fields)
	}
}
