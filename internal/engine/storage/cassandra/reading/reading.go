// Package reading reads what verification asks of a Cassandra cluster, over CQL: it implements verify.Storage.
//
// # How a table is read
//
// A table is read by token ranges, several at once. The ring is cut at the nodes' tokens, so that one node can coordinate what it has itself, and further
// into ranges of at most so many partitions as the nodes' estimates say (system.size_estimates; a table that was just restored has none). Every range
// is read page by page. A page is one answer: it comes whole or not at all, and a page that failed is asked for again, of any node, smaller after a timeout,
// from the state that the page before it ended with. So a row counts exactly once, whatever fails between.
//
// Rows are counted by the cluster (SELECT count) where that is all that is asked; a count that takes the cluster too long is made in two halves.
// For the rules, the transaction columns alone are fetched, and the key where records are named.
//
// # What the reads see
//
// They are ordinary reads at QUORUM, unless told otherwise. Those see everything that a quiet cluster has: a restored one that nobody writes to and whose
// system.paxos is empty, as this provider's restores leave it. They don't finish a lightweight transaction that another client left half done, as SERIAL
// reads would (which exist for single partitions only, and write). In a live cluster such a write may be missed or seen early; verify looks again at
// what seems wrong there.
package reading

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	gocql "github.com/apache/cassandra-gocql-driver/v2"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/relational"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/ddl"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
)

// The defaults of Settings.
const (
	DefaultPageSize           = 1000
	DefaultAttempts           = 10
	DefaultPartitionsPerRange = 50_000
	// MaxParallel bounds the parallelism that the number of nodes gives.
	MaxParallel = 16
)

// Settings say what is read, and how. All names of keyspaces are ScalarDB's original ones, as the manifest of a backup has them.
type Settings struct {
	// Keyspaces are read: exactly these, the coordinator's and the metadata's. Without any, they are what ScalarDB's table of namespaces lists, or, where there is
	// no such table (before ScalarDB 3.13 or so), every keyspace that has a transactional table. Name them where a clone shares its cluster with others.
	Keyspaces []string
	// Layout names the keyspaces of the coordinator and of the metadata.
	Layout relational.Layout
	// Rename has the keyspaces' names in this cluster where they differ: original to present. Tables are reported, and asked for, by the original names.
	Rename map[string]string

	// Consistency of the reads; gocql.Quorum when zero. ONE is accepted, and proves nothing where a node missed a write.
	Consistency gocql.Consistency
	// Datacenter has the nodes that are preferred; all when empty. It changes who answers, not what is read: say LOCAL_QUORUM for that.
	Datacenter string
	PageSize   int // rows; DefaultPageSize when zero
	// Parallel is how many ranges are read at once, over all tables; twice the number of nodes when zero, at most MaxParallel.
	Parallel int
	// Attempts is how often one page is asked for, with growing pauses, before the verification fails: some 40 seconds with DefaultAttempts, which is the default.
	Attempts int
	// PartitionsPerRange is the size that ranges are made for; DefaultPartitionsPerRange when zero.
	PartitionsPerRange int64
}

func (s Settings) withDefaults() Settings {
	s.Consistency = cmp.Or(s.Consistency, gocql.Quorum)
	s.PageSize = cmp.Or(s.PageSize, DefaultPageSize)
	s.Attempts = cmp.Or(s.Attempts, DefaultAttempts)
	s.PartitionsPerRange = cmp.Or(s.PartitionsPerRange, DefaultPartitionsPerRange)
	return s
}

func (s Settings) validate() error {
	switch s.Consistency {
	case gocql.One, gocql.Two, gocql.Three, gocql.Quorum, gocql.All, gocql.LocalQuorum, gocql.LocalOne:
	default:
		return fmt.Errorf("reading Cassandra: tables cannot be read at consistency %s; QUORUM and LOCAL_QUORUM are meant for it", s.Consistency)
	}
	if s.PageSize < 0 || s.Parallel < 0 || s.Attempts < 0 || s.PartitionsPerRange < 0 {
		return errors.New("reading Cassandra: page size, parallelism, attempts and partitions per range cannot be negative")
	}
	seen := map[string]string{}
	for _, original := range s.Keyspaces {
		present := s.present(original)
		if other, ok := seen[present]; ok && other != original {
			return fmt.Errorf("reading Cassandra: keyspaces %q and %q would both be %q in this cluster", other, original, present)
		}
		seen[present] = original
	}
	targets := map[string]string{}
	for original, present := range s.Rename {
		if other, ok := targets[present]; ok {
			return fmt.Errorf("reading Cassandra: keyspaces %q and %q are both renamed to %q", min(other, original), max(other, original), present)
		}
		targets[present] = original
	}
	return nil
}

// present is a keyspace's name in the cluster.
func (s Settings) present(original string) string {
	if name, ok := s.Rename[original]; ok {
		return name
	}
	return original
}

// original is the name that a keyspace of the cluster is reported by.
func (s Settings) original(present string) string {
	for original, name := range s.Rename {
		if name == present {
			return original
		}
	}
	return present
}

// Reader implements verify.Storage.
type Reader struct {
	conn   Conn
	s      Settings
	clock  engine.Clock
	report func(string, map[string]any)
	slots  slots       // of ranges
	points slots       // of look-ups
	singly atomic.Bool // look-ups cannot be batched
	ring   []Token
	hosts  []string

	mu     sync.Mutex // held while the schema is read
	schema *schema
	ranges map[string][]Range // by table

	nodes sync.Mutex
	avoid map[string]time.Duration // nodes that failed, and until when by clock.Boot they are not preferred
}

var _ verify.Storage = (*Reader)(nil)

// slots bound how many requests are under way.
type slots chan struct{}

// New makes a reader of the cluster that conn speaks to; it closes conn in the end, also when it fails. report may be nil.
func New(ctx context.Context, conn Conn, s Settings, clock engine.Clock, report func(message string, fields map[string]any)) (*Reader, error) {
	s = s.withDefaults()
	r := &Reader{conn: conn, s: s, clock: clock, report: report, ranges: map[string][]Range{}, avoid: map[string]time.Duration{}}
	if report == nil {
		r.report = func(string, map[string]any) {}
	}
	err := s.validate()
	if err == nil {
		err = r.readRing(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	parallel := cmp.Or(s.Parallel, min(2*len(r.hosts), MaxParallel))
	r.slots, r.points = make(slots, parallel), make(slots, parallel)
	return r, nil
}

// Close implements verify.Storage.
func (r *Reader) Close() error { return r.conn.Close() }

// Tables implements verify.Storage. A keyspace that ought to be there and is not counts as a missing table "*".
func (r *Reader) Tables(ctx context.Context) (present, missing []verify.Table, err error) {
	sc, err := r.load(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, t := range sc.tables {
		present = append(present, verify.Table{Namespace: t.namespace, Name: t.name, Transactional: t.transactional(), Key: slices.Clone(t.key)})
	}
	for _, namespace := range sc.missing {
		missing = append(missing, verify.Table{Namespace: namespace, Name: "*"})
	}
	return present, missing, nil
}

// HasCoordinator implements verify.Storage.
func (r *Reader) HasCoordinator(ctx context.Context) (bool, error) {
	sc, err := r.load(ctx)
	return err == nil && sc.coordinator != nil, err
}

// find is one of the tables that Tables returned.
func (r *Reader) find(ctx context.Context, t verify.Table) (*table, error) {
	sc, err := r.load(ctx)
	if err != nil {
		return nil, err
	}
	for _, have := range sc.tables {
		if have.namespace == t.Namespace && have.name == t.Name {
			return have, nil
		}
	}
	return nil, fmt.Errorf("reading table %s.%s: it is none of ScalarDB's tables in this cluster", t.Namespace, t.Name)
}

// findCoordinator is the coordinator table.
func (r *Reader) findCoordinator(ctx context.Context) (*table, error) {
	sc, err := r.load(ctx)
	if err != nil {
		return nil, err
	}
	if sc.coordinator == nil {
		return nil, fmt.Errorf("reading the coordinator table: there is no %s.%s in this cluster", ddl.Quote(r.s.present(r.s.Layout.Coordinator())), coordinatorTable)
	}
	return sc.coordinator, nil
}

func quoted(names []string) string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = ddl.Quote(n)
	}
	return strings.Join(out, ", ")
}

// progressEvery is the time between two reports of one table.
const progressEvery = 10 * time.Second
