package cassandra

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/move"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/snapshot"
)

// captured is one node that takes part, with what is open to it.
type captured struct {
	*member
	op          node.Operator
	files       node.Files
	directories []string
	bytes       int64 // about what the captured keyspaces have; -1 when unknown
	transport   node.Transport
	clock       engine.Clock
}

// open opens a node's Operator, and its files where they are needed.
func (s Settings) open(ctx context.Context, m *member, files bool) (*captured, error) {
	n := &captured{member: m, bytes: -1, transport: s.Transport, clock: s.Clock}
	ctx, cancel := s.Clock.WithTimeout(ctx, callTimeout)
	defer cancel()
	var err error
	if n.op, err = s.Transport.Open(ctx, m.Node); err != nil {
		return nil, fmt.Errorf("opening %s: %w", s.Transport.Name(), err)
	}
	if !files {
		return n, nil
	}
	if err = n.openFiles(ctx, s.Files); err == nil {
		n.directories, err = s.directories(ctx, n)
	}
	if err != nil {
		return nil, errors.Join(err, n.close())
	}
	return n, nil
}

func (n *captured) openFiles(ctx context.Context, from node.Filesystem) (err error) {
	if from == nil {
		return errors.New("opening its files: nothing gives access to them (ssh, or via = \"local\")")
	}
	if n.files, err = from.OpenFiles(ctx, n.Node); err != nil {
		return fmt.Errorf("opening its files: %w", err)
	}
	return nil
}

// openAll opens all nodes at once. It returns those that open gave also with an error, for whoever closes them.
func openAll(ctx context.Context, members []*member, open func(context.Context, *member) (*captured, error)) ([]*captured, error) {
	nodes := make([]*captured, len(members))
	err := eachAt(ctx, members, func(ctx context.Context, i int, m *member) (err error) {
		nodes[i], err = open(ctx, m)
		return err
	})
	return slices.DeleteFunc(nodes, func(n *captured) bool { return n == nil }), err
}

// directories are the node's data directories.
func (s Settings) directories(ctx context.Context, n *captured) ([]string, error) {
	var out []string
	for _, d := range s.DataDirectories {
		out = append(out, n.Expand(d))
	}
	if len(out) == 0 {
		lister, ok := n.op.(node.DirectoryLister)
		if !ok {
			return nil, fmt.Errorf("its data directories are not known: transport %s does not tell them; set data_directories", s.Transport.Name())
		}
		var err error
		if out, err = lister.DataDirectories(ctx); err != nil {
			return nil, fmt.Errorf("asking for its data directories: %w", err)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("it has no data directories")
	}
	for _, d := range out {
		e, err := n.files.Stat(ctx, d)
		if err != nil {
			return nil, fmt.Errorf("data directory %s: %w", d, err)
		}
		if !e.Dir && !e.Link {
			return nil, fmt.Errorf("data directory %s is no directory", d)
		}
	}
	return out, nil
}

func (n *captured) close() error {
	var errs []error
	if n.op != nil {
		errs = append(errs, n.op.Close())
	}
	if n.files != nil {
		errs = append(errs, n.files.Close())
	}
	return errors.Join(errs...)
}

// forMover is the node as movers see it.
func (n *captured) forMover() move.Node {
	return move.Node{Node: n.Node, Operator: n.op, Files: n.files, Bytes: n.bytes}
}

const (
	tries    = 3
	tryDelay = time.Second
)

// call makes a call outside of the pause, which may be repeated: where one fails, the connection is made anew.
func (n *captured) call(ctx context.Context, f func(context.Context, node.Operator) error) error {
	var err error
	for i := range tries {
		if i > 0 {
			if n.clock.Sleep(ctx, tryDelay<<i) != nil {
				return err
			}
			fresh, openErr := n.reopen(ctx)
			if openErr != nil {
				err = errors.Join(err, openErr)
				continue
			}
			_ = n.op.Close() //nolint:errcheck // it failed
			n.op = fresh
		}
		if err = n.once(ctx, f); err == nil || ctx.Err() != nil || isUnsupported(err) {
			return err
		}
	}
	return err
}

func (n *captured) reopen(ctx context.Context) (node.Operator, error) {
	ctx, cancel := n.clock.WithTimeout(ctx, callTimeout)
	defer cancel()
	return n.transport.Open(ctx, n.Node)
}

func (n *captured) once(ctx context.Context, f func(context.Context, node.Operator) error) error {
	ctx, cancel := n.clock.WithTimeout(ctx, callTimeout)
	defer cancel()
	return f(ctx, n.op)
}

// isUnsupported says that a transport cannot do it, whatever the node.
func isUnsupported(err error) bool { return errors.Is(err, node.ErrUnsupported) }

// snapshots lists the tables that have a snapshot of the tag, among the keyspaces (all, where none is named).
func (n *captured) snapshots(ctx context.Context, tag string, keyspaces []string) (map[node.Table]bool, error) {
	var all []node.Snapshot
	err := n.call(ctx, func(ctx context.Context, op node.Operator) (err error) {
		all, err = node.SnapshotsOf(ctx, op, tag)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listing its snapshots: %w", err)
	}
	out := map[node.Table]bool{}
	for _, s := range all {
		if s.Tag == tag && (len(keyspaces) == 0 || slices.Contains(keyspaces, s.Keyspace)) {
			out[node.Table{Keyspace: s.Keyspace, Name: s.Table}] = true
		}
	}
	return out, nil
}

// clear removes the tag's snapshots and makes sure that they are gone.
func (n *captured) clear(ctx context.Context, tag string, keyspaces []string) error {
	err := n.call(ctx, func(ctx context.Context, op node.Operator) error { return op.ClearSnapshot(ctx, tag, keyspaces) })
	if err != nil {
		return fmt.Errorf("clearing snapshot %s: %w", tag, err)
	}
	left, err := n.snapshots(ctx, tag, keyspaces)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("clearing snapshot %s: it is still there for %d tables", tag, len(left))
	}
	return nil
}

// maxTag is what move.Mover.Tag is promised.
const maxTag = 100

// tagOf makes a legal tag of the backup's name and the run.
func tagOf(run engine.Run) string {
	var b strings.Builder
	for _, r := range run.BackupID {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_', r == '-':
			b.WriteRune(r)
		default:
			b.WriteByte('-')
		}
	}
	name := b.String()
	room := maxTag - len(tagPrefix) - len(run.ID) - 1
	return tagPrefix + name[:min(len(name), room)] + "-" + run.ID
}

const tagPrefix = "scalardb-"

// Keys of an artifact's Extra.
const (
	extraKeyspaces = "keyspaces" // separated by commas
	extraNodes     = "nodes"     // "HOSTID=TABLES", separated by commas: on how many tables each node has a snapshot; "HOSTID" where only planned
	extraCluster   = "cluster"
	extraLeftover  = "leftover" // the data is elsewhere; this could not be cleared
)

// nodesArtifact names the snapshot on the nodes. tables is nil while it is planned.
func nodesArtifact(cluster, tag string, keyspaces []string, nodes []*captured, tables map[string]int) engine.Artifact {
	parts := make([]string, 0, len(nodes))
	for _, n := range nodes {
		p := n.HostID
		if tables != nil {
			p += fmt.Sprintf("=%d", tables[n.HostID])
		}
		parts = append(parts, p)
	}
	return engine.Artifact{Kind: snapshot.KindNodes, ID: tag, Extra: map[string]string{
		extraKeyspaces: strings.Join(keyspaces, ","), extraNodes: strings.Join(parts, ","), extraCluster: cluster,
	}}
}
