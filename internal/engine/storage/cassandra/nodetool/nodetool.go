// Package nodetool reaches nodes by Cassandra's own nodetool: on the nodes over SSH, or on this machine. It needs nothing else of a node, and it is slow:
// every call starts a JVM, which takes a second or more.
//
// What nodetool exits with is not believed alone: what it says has to be what it says when it did what was asked.
package nodetool

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
)

const (
	callTimeout   = 2 * time.Minute // of what a node does at once; on a busy machine a JVM alone may take ten seconds to start
	importTimeout = 2 * time.Hour   // data is copied, and indexes are built
	repairTimeout = 24 * time.Hour
	// cleanupTimeout is for a node's data to be rewritten.
	cleanupTimeout = 12 * time.Hour
	drainTimeout   = 10 * time.Minute
	flushTimeout   = 10 * time.Minute
	// batch is how many bytes of arguments one command gets: a shell's whole command line may have 128 KiB on Linux.
	batch = 48 << 10
)

// Clock is where time comes from; engine.Clock is one.
type Clock interface {
	// WithTimeout is context.WithTimeout on this clock.
	WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc)
}

// Runner runs nodetool: SSH or Exec.
type Runner interface {
	// Name is the transport's.
	Name() string
	// Open makes ready what one node's commands need.
	Open(ctx context.Context, n node.Node) (Command, error)
}

// Command is one node's nodetool.
type Command interface {
	// Run runs it with the arguments and returns its standard output and its error output, mixed. Where it exits with another status than 0 the error is
	// a *node.CommandError, and the output is there all the same.
	Run(ctx context.Context, args []string) ([]byte, error)
	Close() error
}

// Transport implements node.Transport.
type Transport struct {
	Runner Runner
	Clock  Clock
}

var (
	_ node.Transport       = (*Transport)(nil)
	_ node.Operator        = (*Operator)(nil)
	_ node.Importer        = (*Operator)(nil)
	_ node.Loader          = (*Operator)(nil)
	_ node.Cleaner         = (*Operator)(nil)
	_ node.Drainer         = (*Operator)(nil)
	_ node.Flusher         = (*Operator)(nil)
	_ node.DirectoryLister = (*Operator)(nil)
	_ node.Repairer        = (*Operator)(nil)
)

// Name implements node.Transport.
func (t *Transport) Name() string { return t.Runner.Name() }

// Open implements node.Transport. The result is an *Operator.
func (t *Transport) Open(ctx context.Context, n node.Node) (node.Operator, error) {
	command, err := t.Runner.Open(ctx, n)
	if err != nil {
		return nil, err
	}
	o := &Operator{node: n, command: command, clock: t.Clock}
	if err := o.prove(ctx); err != nil {
		return nil, errors.Join(err, command.Close())
	}
	return o, nil
}

// Operator works on one node.
type Operator struct {
	node    node.Node
	command Command
	clock   Clock
}

// Close implements node.Operator.
func (o *Operator) Close() error { return o.command.Close() }

// prove asks the node for its host id.
func (o *Operator) prove(ctx context.Context) error {
	out, err := o.run(ctx, callTimeout, "info")
	if err != nil {
		return err
	}
	id, err := parseHostID(out)
	if err != nil {
		return o.failed(err)
	}
	if !strings.EqualFold(id, o.node.HostID) {
		return o.failed(fmt.Errorf("nodetool reaches the node %s, not %s: its command has to name the node, for instance by -h {address}", id, o.node.HostID))
	}
	return nil
}

func (o *Operator) failed(err error) error { return fmt.Errorf("node %s: %w", o.node.Address, err) }

// run runs one command. Its error has what nodetool said of the reason.
func (o *Operator) run(ctx context.Context, limit time.Duration, args ...string) (string, error) {
	ctx, cancel := o.clock.WithTimeout(ctx, limit)
	defer cancel()
	out, err := o.command.Run(ctx, args)
	if err == nil {
		return string(out), nil
	}
	var exit *node.CommandError
	if errors.As(err, &exit) {
		said := *exit
		if text := reason(string(out)); text != "" {
			said.Stderr = text
		}
		said.Stderr += hint(said.Stderr)
		err = &said
	}
	return string(out), o.failed(err)
}

// reason finds in an output what nodetool says is wrong: "error: ..." before a stack trace, or "nodetool: ..." for what it does not take.
func reason(out string) string {
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		for _, prefix := range []string{"error: ", "nodetool: "} {
			if text, ok := strings.CutPrefix(line, prefix); ok && text != "" {
				return cut(text)
			}
		}
	}
	return cut(strings.TrimSpace(out))
}

func cut(text string) string {
	const most = 2 << 10
	if len(text) > most {
		text = text[:most]
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}

func hint(said string) string {
	switch {
	case strings.Contains(said, "Access denied"), strings.Contains(said, "Invalid access level"):
		return " (the JMX user may read only: it needs the role readwrite)"
	case strings.Contains(said, "Authentication failed"), strings.Contains(said, "Credentials required"):
		return " (the JMX user and its password come from credentials.jmx)"
	}
	return ""
}

// The names that are passed on. Other tags would be legal, but none is made here that needs them, and an empty one means all snapshots.
var (
	legalTag  = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)
	legalName = regexp.MustCompile(`^[A-Za-z0-9_]+$`)
)

func (o *Operator) checkNames(tag string, names ...string) error {
	if !legalTag.MatchString(tag) {
		return o.failed(fmt.Errorf("internal error: %q is not a tag of a snapshot", tag))
	}
	for _, n := range names {
		if !legalName.MatchString(n) {
			return o.failed(fmt.Errorf("internal error: %q is not the name of a keyspace or of a table", n))
		}
	}
	return nil
}

// CheckRights implements node.Operator: it lists, and clears a tag that no snapshot has. (Over JMX who may clear snapshots may take them.)
func (o *Operator) CheckRights(ctx context.Context, tag string, keyspaces []string) error {
	if err := o.checkNames(tag, keyspaces...); err != nil {
		return err
	}
	all, err := o.Snapshots(ctx)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(all, func(s node.Snapshot) bool { return s.Tag == tag }) {
		return o.failed(fmt.Errorf("%s: %w", tag, node.ErrSnapshotExists))
	}
	return o.clear(ctx, "scalardb-rights-"+strings.ToLower(rand.Text()), keyspaces)
}

// TakeSnapshot implements node.Operator.
func (o *Operator) TakeSnapshot(ctx context.Context, tag string, keyspaces []string) error {
	if err := o.checkNames(tag, keyspaces...); err != nil {
		return err
	}
	if len(keyspaces) == 0 {
		return o.failed(errors.New("internal error: a snapshot without keyspaces would be one of all"))
	}
	out, err := o.run(ctx, callTimeout, append([]string{"snapshot", "-t", tag, "--"}, keyspaces...)...)
	var exit *node.CommandError
	switch {
	case errors.As(err, &exit) && strings.Contains(exit.Stderr, tag) && strings.Contains(exit.Stderr, "already exists"):
		return o.failed(fmt.Errorf("%s: %w", tag, node.ErrSnapshotExists))
	case err != nil:
		return err
	case hasLine(out, "Snapshot directory: "+tag):
		return nil
	}
	// A wrapper may keep what nodetool says to itself, and a broken one may do nothing: then the list decides.
	all, err := o.Snapshots(ctx)
	if err != nil {
		return fmt.Errorf("nodetool took no notice of the snapshot %s, and: %w", tag, err)
	}
	for _, k := range keyspaces {
		if !slices.ContainsFunc(all, func(s node.Snapshot) bool { return s.Tag == tag && s.Keyspace == k }) {
			return o.failed(fmt.Errorf("nodetool exited with status 0, and there is no snapshot %s of keyspace %s; it said: %s", tag, k, reason(out)))
		}
	}
	return nil
}

func hasLine(out, line string) bool {
	for l := range strings.Lines(out) {
		if strings.TrimSpace(l) == line {
			return true
		}
	}
	return false
}

// Snapshots implements node.Operator. The sizes are as exact as nodetool's: three digits.
func (o *Operator) Snapshots(ctx context.Context) ([]node.Snapshot, error) {
	out, err := o.run(ctx, callTimeout, "listsnapshots")
	if err != nil {
		return nil, err
	}
	all, err := parseSnapshots(out)
	if err != nil {
		return nil, o.failed(fmt.Errorf("reading the output of nodetool listsnapshots: %w", err))
	}
	return all, nil
}

// ClearSnapshot implements node.Operator. It looks whether they are gone.
func (o *Operator) ClearSnapshot(ctx context.Context, tag string, keyspaces []string) error {
	if err := o.checkNames(tag, keyspaces...); err != nil {
		return err
	}
	if err := o.clear(ctx, tag, keyspaces); err != nil {
		return err
	}
	all, err := o.Snapshots(ctx)
	if err != nil {
		return err
	}
	for _, s := range all {
		if s.Tag == tag && (len(keyspaces) == 0 || slices.Contains(keyspaces, s.Keyspace)) {
			return o.failed(fmt.Errorf("nodetool clearsnapshot exited with status 0, and the snapshot %s of %s.%s is still there", tag, s.Keyspace, s.Table))
		}
	}
	return nil
}

// clear always has a tag: without one nodetool would clear all snapshots.
func (o *Operator) clear(ctx context.Context, tag string, keyspaces []string) error {
	_, err := o.run(ctx, callTimeout, append([]string{"clearsnapshot", "-t", tag, "--"}, keyspaces...)...)
	return err
}

// Import implements node.Importer.
func (o *Operator) Import(ctx context.Context, keyspace, table string, directories []string) error {
	return o.load(ctx, keyspace, table, directories, "--copy-data")
}

// Load implements node.Loader.
func (o *Operator) Load(ctx context.Context, keyspace, table string, directories []string) error {
	return o.load(ctx, keyspace, table, directories, "--copy-data", "--no-tokens")
}

func (o *Operator) load(ctx context.Context, keyspace, table string, directories []string, options ...string) error {
	if err := o.checkNames("import", keyspace, table); err != nil {
		return err
	}
	if err := node.CheckImport(keyspace, table, directories); err != nil {
		return o.failed(err)
	}
	for part := range batches(directories) {
		out, err := o.run(ctx, importTimeout, slices.Concat([]string{"import"}, options, []string{"--", keyspace, table}, part)...)
		if err == nil {
			continue
		}
		if failed := parseFailedImports(out); len(failed) > 0 {
			return o.failed(fmt.Errorf("importing into %s.%s: the node refused %s: its log says why (tokens that it does not own, or damage)",
				keyspace, table, strings.Join(failed, ", ")))
		}
		return fmt.Errorf("importing into %s.%s: %w", keyspace, table, err)
	}
	return nil
}

// Cleanup implements node.Cleaner. nodetool says nothing when it is done, and exits with another status where it is not.
func (o *Operator) Cleanup(ctx context.Context, keyspace string) error {
	if err := o.checkNames("cleanup", keyspace); err != nil {
		return err
	}
	out, err := o.run(ctx, cleanupTimeout, "cleanup", "--", keyspace)
	if err != nil {
		return err
	}
	if strings.Contains(out, "Aborted cleaning up") || strings.Contains(out, "Unable to cancel") {
		return o.failed(fmt.Errorf("cleaning up keyspace %s: nodetool exited with status 0 and said: %s", keyspace, reason(out)))
	}
	return nil
}

// Drain implements node.Drainer.
func (o *Operator) Drain(ctx context.Context) error {
	_, err := o.run(ctx, drainTimeout, "drain")
	return err
}

// Flush implements node.Flusher.
func (o *Operator) Flush(ctx context.Context, keyspace string) error {
	if err := o.checkNames("flush", keyspace); err != nil {
		return err
	}
	if _, err := o.run(ctx, flushTimeout, "flush", "--", keyspace); err != nil {
		return fmt.Errorf("flushing keyspace %s: %w", keyspace, err)
	}
	return nil
}

// batches splits arguments such that no command line gets too long.
func batches(all []string) func(yield func([]string) bool) {
	return func(yield func([]string) bool) {
		for len(all) > 0 {
			n, size := 0, 0
			for n < len(all) && (n == 0 || size+len(all[n]) < batch) {
				size += len(all[n]) + 3
				n++
			}
			if !yield(all[:n]) {
				return
			}
			all = all[n:]
		}
	}
}

// DataDirectories implements node.DirectoryLister. Releases before 4.1 cannot: node.ErrUnsupported.
func (o *Operator) DataDirectories(ctx context.Context) ([]string, error) {
	out, err := o.run(ctx, callTimeout, "datapaths", "-F", "json")
	if err != nil {
		var exit *node.CommandError
		if errors.As(err, &exit) && exit.Exit == 1 && strings.Contains(exit.Stderr, "unexpected parameters") {
			return nil, o.failed(fmt.Errorf("this release's nodetool does not tell the data directories: %w", node.ErrUnsupported))
		}
		return nil, err
	}
	dirs, err := parseDataPaths(out)
	if err != nil {
		return nil, o.failed(fmt.Errorf("reading the output of nodetool datapaths: %w", err))
	}
	return dirs, nil
}

// repaired are the things that nodetool says when a repair was done, or when there was nothing to be done.
var repaired = regexp.MustCompile(`(?m)Repair completed successfully|Repair command #[0-9]+ finished in |No repair is needed|Nothing to repair`)

// Repair implements node.Repairer.
func (o *Operator) Repair(ctx context.Context, keyspace string) error {
	if err := o.checkNames("repair", keyspace); err != nil {
		return err
	}
	out, err := o.run(ctx, repairTimeout, "repair", "--full", "--", keyspace)
	if err != nil {
		return err
	}
	if !repaired.MatchString(out) {
		return o.failed(fmt.Errorf("nodetool repair exited with status 0 and did not say that the repair of %s is done; it said: %s", keyspace, reason(out)))
	}
	return nil
}
