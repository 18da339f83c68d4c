package cassandra

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/move"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/snapshot"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/upload"
)

const (
	// schemaTimeout bounds one change of the schema; agreement the wait until all nodes have it.
	schemaTimeout = 2 * time.Minute
	agreement     = 3 * time.Minute
	agreePeriod   = 500 * time.Millisecond
	// graceMargin is how long before the end of gc_grace_seconds a backup counts as old, and longer a raised value lasts than it must.
	graceMargin = 24 * time.Hour
	graceExtra  = 30 * 24 * time.Hour
)

// Kinds of restored objects.
const (
	objectKeyspace = "cassandra_keyspace" // the ID is its name
	objectTable    = "cassandra_table"    // the ID is KEYSPACE.TABLE
	objectStaging  = "cassandra_staging"  // files on the nodes; the ID is a directory, which may hold {address} and the like, or one of a single node
)

// Keys of a restored object's Extra.
const (
	extraTableID   = "table_id"
	extraAnnounced = "announced_ms" // since 1970, by our clock
	extraNode      = "node"         // the host id, where files are on one node only
)

// DestinationSettings say which cluster is restored into, and how. Mover and SnapshotTimeout of Settings mean nothing here.
type DestinationSettings struct {
	Settings
	// Exactly one of Load and Stopped is set.
	Load    *LoadSettings
	Stopped *StoppedSettings
	// Upload is how files are brought to the nodes from the catalog.
	Upload upload.Settings
	// Mover makes what restores data that lies with a tool, by the kind of its artifact; nil where none can be had.
	Mover func(kind string) (move.Mover, error)

	// KeepGrace is for tests: it shows what happens where gc_grace_seconds is not raised.
	KeepGrace bool
	// Step is for tests: it is called before each step, and may fail it.
	Step func(ctx context.Context, name string) error
}

// LoadSettings load a backup into a running cluster.
type LoadSettings struct {
	Keyspaces map[string]string // new names by old
	// Replication of all keyspaces: replicas by datacenter, or Cassandra's own options with "class". Empty: as captured.
	Replication map[string]string
	// Directory for the files before they are imported, on the nodes; DefaultDirectory when empty. It may hold {address} and the like.
	Directory string
	// Owner of these files, "USER:GROUP"; as they were written when empty.
	Owner string
}

// DefaultDirectory is where files lie before they are imported.
const DefaultDirectory = "/var/lib/cassandra/scalardb-restore"

// Destination is a cluster to be restored into.
type Destination struct{ s DestinationSettings }

// NewDestination opens nothing yet.
func NewDestination(s DestinationSettings) *Destination {
	s.patience = schemaTimeout
	return &Destination{s}
}

// Close has nothing to release: every call closes what it opened.
func (d *Destination) Close() error { return nil }

// Preflight makes every check, and changes nothing.
func (d *Destination) Preflight(ctx context.Context, r engine.StorageBackup) error {
	a, err := d.open(ctx, r)
	if err != nil {
		return err
	}
	defer a.close()
	if d.s.Stopped != nil {
		_, err = a.planStopped(ctx)
		return err
	}
	_, err = a.planLoad(ctx)
	return err
}

// Restore makes the checks again, and restores.
func (d *Destination) Restore(ctx context.Context, r engine.StorageBackup) (engine.Restored, error) {
	a, err := d.open(ctx, r)
	if err != nil {
		return engine.Restored{}, err
	}
	defer a.close()
	if d.s.Stopped != nil {
		p, err := a.planStopped(ctx)
		if err != nil {
			return engine.Restored{}, err
		}
		return a.restoreStopped(ctx, p)
	}
	p, err := a.planLoad(ctx)
	if err != nil {
		return engine.Restored{}, err
	}
	return a.load(ctx, p)
}

// attempt is one look at, or change of, the target.
type attempt struct {
	d     *Destination
	s     Settings // with what this attempt reaches nodes by
	r     engine.StorageBackup
	ix    *snapshot.Index
	mu    sync.Mutex                    // of lists
	lists map[string]*snapshot.FileList // by host id
	store *upload.Store
	tool  *tooled // the tool that has the data; nil where the catalog or the nodes have it
	t     *topology
	nodes []*captured // all nodes of the target, with their files
}

func (a *attempt) close() {
	for _, n := range a.nodes {
		_ = n.close() //nolint:errcheck // nothing is lost
	}
	if a.t != nil {
		a.t.close()
	}
}

func (a *attempt) report(message string, fields map[string]any) {
	if a.r.Report != nil {
		a.r.Report(message, fields)
	}
}

func (a *attempt) step(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("before %s: %w", name, err)
	}
	if a.d.s.Step != nil {
		return a.d.s.Step(ctx, name)
	}
	return nil
}

// open reads what the catalog has of the backup, and opens every node of the target.
func (d *Destination) open(ctx context.Context, r engine.StorageBackup) (*attempt, error) {
	a := &attempt{d: d, r: r, lists: map[string]*snapshot.FileList{}}
	if err := a.readBackup(ctx); err != nil {
		return nil, err
	}
	err := a.openTarget(ctx)
	if err == nil && a.tool != nil {
		err = a.tool.inspect(ctx, a)
	}
	if err != nil {
		a.close()
		return nil, err
	}
	return a, nil
}

func (a *attempt) readBackup(ctx context.Context) error {
	r := a.r
	i := slices.IndexFunc(r.Record.Artifacts, func(x engine.Artifact) bool { return x.Kind == snapshot.KindIndex })
	if i < 0 {
		return fmt.Errorf("storage %s of the backup has no %s: it was taken by driver %q", r.Storage, snapshot.KindIndex, r.Record.Driver)
	}
	var err error
	if a.ix, err = snapshot.ReadIndex(ctx, r.Catalog, r.Record.Artifacts[i]); err != nil {
		return err
	}
	if a.ix.Partitioner != murmur3 {
		return fmt.Errorf("the backup's partitioner is %s; only Murmur3Partitioner is known", a.ix.Partitioner)
	}
	inPlace := a.d.s.Stopped != nil && a.d.s.Stopped.InPlace
	switch a.ix.Data {
	case snapshot.DataUpload:
		a.store = upload.Open(r.Catalog, a.d.s.Upload, r.Report)
		if err := a.store.Inspect(ctx, r.Record.Artifacts[i].ID); err != nil {
			return fmt.Errorf("the backup's files in the catalog: %w", err)
		}
	case snapshot.DataNodes:
		if !inPlace {
			return fmt.Errorf("the data of this backup lies on the nodes that it was taken of (data = keep_on_nodes, snapshot %s): only in_place restores it, onto these nodes", a.ix.Tag)
		}
		return nil // the nodes are asked for the files
	case snapshot.DataMedusa, snapshot.DataCassy:
		if a.tool, err = a.newTool(); err != nil {
			return fmt.Errorf("the data of this backup is %s's (data = %s): %w", a.ix.Data, a.ix.Data, err)
		}
		if a.tool.restorer != nil && !inPlace {
			return errors.New("the data of this backup is Cassy's, which restores it onto the nodes that it was taken of: only in_place restores it, onto these nodes")
		}
	default:
		return fmt.Errorf("this release knows no data = %s, where the data of this backup lies", a.ix.Data)
	}
	for _, n := range a.ix.Nodes {
		if n.Files == "" {
			continue // Cassy tells of no files, and a node that was down has none
		}
		if a.lists[n.HostID], err = snapshot.ReadFiles(ctx, r.Catalog, n); err != nil {
			return err
		}
	}
	return nil
}

// whole says that no node was left out of the backup.
func (a *attempt) whole() bool { return a.r.Record.Extra["down_nodes"] == "" }

func (a *attempt) openTarget(ctx context.Context) error {
	var err error
	if a.s, err = a.d.s.reach(a.r.Custody); err != nil {
		return err
	}
	if a.s.Transport == nil {
		return errors.New("the cassandra storage has no transport")
	}
	if a.t, err = a.s.readTopology(ctx); err != nil {
		return err
	}
	a.s.AllowDownNodes = false
	if err := a.t.check(ctx, a.s); err != nil {
		return fmt.Errorf("cluster %s: %w", a.t.cluster, err)
	}
	for _, w := range a.t.warnings {
		a.report(w, nil)
	}
	if err := a.compareVersions(); err != nil {
		return err
	}
	a.nodes, err = openAll(ctx, a.t.members, a.s.openTarget)
	return err
}

// openTarget opens a node's Operator and its files.
func (s Settings) openTarget(ctx context.Context, m *member) (*captured, error) {
	n, err := s.open(ctx, m, false)
	if err != nil {
		return nil, err
	}
	ctx, cancel := s.Clock.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := n.openFiles(ctx, s.Files); err != nil {
		return nil, errors.Join(err, n.close())
	}
	return n, nil
}

// compareVersions refuses a target that is older than the backup: it need not understand its SSTables and its schema.
func (a *attempt) compareVersions() error {
	newest, oldest := "", ""
	for _, n := range a.ix.Nodes {
		if newest == "" || release(n.Version) > release(newest) {
			newest = n.Version
		}
	}
	for _, m := range a.t.members {
		if oldest == "" || release(m.Version) < release(oldest) {
			oldest = m.Version
		}
	}
	if release(oldest) < release(newest) {
		return fmt.Errorf("the backup is of Cassandra %s, and a node of cluster %s runs %s, which need not understand it: upgrade the cluster first", newest, a.t.cluster, oldest)
	}
	return nil
}

// release is a version's order, without its patch.
func release(version string) int {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return 0
	}
	x, _ := strconv.Atoi(parts[0])
	y, _ := strconv.Atoi(parts[1])
	return x*1000 + y
}

// agree waits until all nodes have one schema, which may be a new one.
func (a *attempt) agree(ctx context.Context) error {
	ctx, cancel := a.s.Clock.WithTimeout(ctx, agreement)
	defer cancel()
	for {
		a.t.schema = ""
		err := a.t.compare(ctx)
		if err == nil {
			return nil
		}
		if a.s.Clock.Sleep(ctx, agreePeriod) != nil {
			return fmt.Errorf("waiting for all nodes to have the new schema: %w", err)
		}
	}
}

// statement changes the schema.
func (a *attempt) statement(ctx context.Context, cql string) error {
	_, err := a.t.members[0].conn.Query(ctx, cql)
	if err == nil {
		return nil
	}
	if isUnauthorized(err) {
		err = fmt.Errorf("%w; the user needs CREATE, ALTER, DROP, SELECT and MODIFY on ALL KEYSPACES of the cluster to restore into", err)
	}
	if line, _, more := strings.Cut(cql, "\n"); more {
		cql = line + " ..."
	}
	return fmt.Errorf("%s: %w", cql, err)
}

// grace is what gc_grace_seconds of a table has to be while it is restored.
func (a *attempt) grace(t snapshot.Table) (during int64, raised bool) {
	if a.d.s.KeepGrace {
		return t.GCGraceSeconds, false
	}
	return grace(t.GCGraceSeconds, a.ix.CapturedAt, a.s.Clock.Now())
}

// grace is what gc_grace_seconds has to be while a table is restored. raised is false where its own will do.
//
// A tombstone that was within gc_grace_seconds when the backup was taken must not be purged before every replica of the restored table has it: a replica that
// missed the deletion would bring the row back. So a backup that is about as old as that gets a longer time, until a repair is done.
func grace(seconds int64, capturedAt, now time.Time) (during int64, raised bool) {
	age := max(now.Sub(capturedAt), 0)
	own := time.Duration(min(seconds, 1<<31)) * time.Second
	if age+graceMargin < own {
		return seconds, false
	}
	during = seconds + int64((age+graceExtra)/time.Second)
	return min(during, 1<<31-1), true
}

// repair repairs keyspaces on every node, one after the other.
func (a *attempt) repair(ctx context.Context, keyspaces []string) error {
	for _, n := range a.nodes {
		r, ok := n.op.(node.Repairer)
		if !ok {
			return fmt.Errorf("%s: transport %s cannot repair: %w", n, a.s.Transport.Name(), node.ErrUnsupported)
		}
		for _, k := range keyspaces {
			if err := r.Repair(ctx, k); err != nil {
				return fmt.Errorf("%s: repairing keyspace %s, whose backup is about as old as gc_grace_seconds: %w", n, k, err)
			}
		}
	}
	return nil
}

// properties are what ScalarDB needs to reach the restored storage.
func (a *attempt) properties(rename map[string]string) engine.Restored {
	out := engine.Restored{Endpoint: a.s.ContactPoints[0], Port: int64(a.s.port()), Properties: map[string]string{
		"storage": "cassandra", "contact_points": strings.Join(a.s.ContactPoints, ","), "contact_port": strconv.Itoa(a.s.port()),
	}}
	for key, own := range map[string]struct{ name, standard string }{
		"consensus_commit.coordinator.namespace": {a.r.Record.Extra["coordinator_namespace"], "coordinator"},
		"system_namespace_name":                  {a.r.Record.Extra["metadata_namespace"], "scalardb"},
	} {
		now := own.name
		if to, ok := rename[own.name]; ok {
			now = to
		}
		if now != "" && now != own.standard {
			out.Properties[key] = now
		}
	}
	return out
}
