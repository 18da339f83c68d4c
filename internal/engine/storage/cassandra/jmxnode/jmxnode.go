// Package jmxnode reaches nodes by Cassandra's MBeans over JMX, directly or through SSH. No JVM is started for it, and nothing needs to be installed on a node.
//
// A connection that was lost is made anew by the next call. A call whose answer was lost with it is made again only where that does no harm: whether a
// snapshot was taken, and whether it was complete by then, nobody can tell afterwards, so that is an error that says what the node has.
package jmxnode

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/remote"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/jmx"
)

const (
	// DefaultPort is Cassandra's.
	DefaultPort = 7199

	storageService = "org.apache.cassandra.db:type=StorageService"

	importTimeout  = 2 * time.Hour // data is copied, and indexes are built
	repairTimeout  = 24 * time.Hour
	cleanupTimeout = 12 * time.Hour // the node's data is rewritten
	drainTimeout   = 10 * time.Minute
	flushTimeout   = 10 * time.Minute
	repairInterval = 2 * time.Second
	// startLimit is how often a repair may be unknown to its node after it was asked for.
	startLimit = 15
)

// Settings say how the nodes' JMX is reached. When they are printed, the password is left out.
type Settings struct {
	Host string // may hold {address} and the like (node.Node.Expand); default "{address}". Through SSH it is what the node's own machine calls it
	Port int    // of the RMI registry; default DefaultPort
	// Username and Password; empty: none.
	Username, Password string
	TLS                *tls.Config   // nil: without
	RegistryTLS        bool          // the registry speaks TLS, too
	SSH                *remote.Hosts // nil: directly
	Clock              jmx.Clock
}

// Format implements fmt.Formatter: no verb prints the password.
func (s Settings) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "jmxnode.Settings("+s.Host+")")
}

// client is a *jmx.Client, or a test's.
type client interface {
	GetAttribute(ctx context.Context, objectName, attribute string) (jmx.Value, error)
	Invoke(ctx context.Context, objectName, operation string, args []any, signature []string) (jmx.Value, error)
	Err() error
	Close() error
}

// Transport implements node.Transport.
type Transport struct {
	settings Settings
	connect  func(ctx context.Context, c jmx.Config) (client, error)
}

var (
	_ node.Transport       = (*Transport)(nil)
	_ node.Operator        = (*Operator)(nil)
	_ node.Importer        = (*Operator)(nil)
	_ node.Loader          = (*Operator)(nil)
	_ node.Cleaner         = (*Operator)(nil)
	_ node.Drainer         = (*Operator)(nil)
	_ node.Flusher         = (*Operator)(nil)
	_ node.WriteCounter    = (*Operator)(nil)
	_ node.DirectoryLister = (*Operator)(nil)
	_ node.Repairer        = (*Operator)(nil)
)

// New connects to nothing yet.
func New(s Settings) *Transport {
	return &Transport{settings: s, connect: func(ctx context.Context, c jmx.Config) (client, error) {
		connected, err := jmx.Connect(ctx, c)
		if err != nil {
			return nil, err // not an interface that holds a nil pointer
		}
		return connected, nil
	}}
}

// Name implements node.Transport.
func (t *Transport) Name() string { return "jmx" }

// Open implements node.Transport. The result is an *Operator; the connection is kept alive.
func (t *Transport) Open(ctx context.Context, n node.Node) (node.Operator, error) {
	s := t.settings
	o := &Operator{node: n, clock: s.Clock, connect: t.connect, config: jmx.Config{
		Host: s.Host, Port: s.Port, Username: s.Username, Password: s.Password, Clock: s.Clock, TLS: s.TLS, RegistryTLS: s.RegistryTLS,
	}}
	if o.config.Host == "" {
		o.config.Host = "{address}"
	}
	o.config.Host = strings.Trim(n.Expand(o.config.Host), "[]")
	if o.config.Port == 0 {
		o.config.Port = DefaultPort
	}
	if s.SSH != nil {
		host, err := s.SSH.Open(ctx, n)
		if err != nil {
			return nil, err
		}
		o.ssh, o.config.Dial = host, host.DialContext
	}
	if err := o.dial(ctx); err != nil {
		return nil, errors.Join(o.failed("connecting", err), o.Close())
	}
	return o, nil
}

// Operator works on one node.
type Operator struct {
	node    node.Node
	clock   jmx.Clock
	config  jmx.Config
	connect func(ctx context.Context, c jmx.Config) (client, error)
	client  client    // nil: none
	ssh     io.Closer // nil: directly
}

// Close implements node.Operator.
func (o *Operator) Close() error {
	var errs []error
	if o.client != nil {
		errs = append(errs, o.client.Close())
		o.client = nil
	}
	if o.ssh != nil {
		errs = append(errs, o.ssh.Close())
		o.ssh = nil
	}
	return errors.Join(errs...)
}

// dial connects and proves that it is that node.
func (o *Operator) dial(ctx context.Context) error {
	if o.client != nil {
		_ = o.client.Close() // spent
		o.client = nil
	}
	c, err := o.connect(ctx, o.config)
	if err != nil {
		return err
	}
	v, err := c.GetAttribute(ctx, storageService, "LocalHostId")
	id, ok := v.(string)
	switch {
	case err != nil:
		err = fmt.Errorf("asking for its host id: %w", err)
	case !ok || id == "":
		err = fmt.Errorf("it tells %T as its host id: has it started?", v)
	case !strings.EqualFold(id, o.node.HostID):
		err = fmt.Errorf("jmx %s reaches the node %s, not %s: host and port have to lead to each node's own JMX", o.config.Address(), id, o.node.HostID)
	}
	if err != nil {
		_ = c.Close()
		return err
	}
	o.client = c
	return nil
}

func (o *Operator) failed(what string, err error) error {
	hint := ""
	switch {
	case errors.Is(err, jmx.ErrAccess):
		hint = " (the JMX user has to have the role readwrite)"
	case errors.Is(err, jmx.ErrAuthentication):
		hint = " (user and password are those of credentials.jmx)"
	}
	return fmt.Errorf("node %s: %s: %w%s", o.node.Address, what, err, hint)
}

// do makes a call. It is made again, once, after a new connection: always when it was not sent, and when its outcome is unknown only if again.
func (o *Operator) do(ctx context.Context, again bool, call func(client) (jmx.Value, error)) (jmx.Value, error) {
	dialled := false
	for {
		if o.client == nil || o.client.Err() != nil {
			if err := o.dial(ctx); err != nil {
				return nil, fmt.Errorf("the connection was lost; connecting anew: %w", err)
			}
			dialled = true
		}
		v, err := call(o.client)
		if err == nil || dialled || ctx.Err() != nil || !errors.Is(err, jmx.ErrConnectionSpent) || errors.Is(err, jmx.ErrOutcomeUnknown) && !again {
			return v, err
		}
	}
}

func (o *Operator) read(ctx context.Context, bean, attribute string) (jmx.Value, error) {
	return o.do(ctx, true, func(c client) (jmx.Value, error) { return c.GetAttribute(ctx, bean, attribute) })
}

func (o *Operator) invoke(ctx context.Context, again bool, bean, operation string, args []any, signature ...string) (jmx.Value, error) {
	return o.do(ctx, again, func(c client) (jmx.Value, error) { return c.Invoke(ctx, bean, operation, args, signature) })
}

// The types of parameters.
const (
	typeString  = "java.lang.String"
	typeStrings = "[Ljava.lang.String;"
	typeMap     = "java.util.Map"
	typeSet     = "java.util.Set"
	typeInt     = "int"
	typeBool    = "boolean"
)

func (o *Operator) take(ctx context.Context, tag string, keyspaces []string) error {
	_, err := o.invoke(ctx, false, storageService, "takeSnapshot", []any{tag, map[string]string{"skipFlush": "false"}, keyspaces}, typeString, typeMap, typeStrings)
	return err
}

func (o *Operator) clear(ctx context.Context, tag string, keyspaces []string) error {
	if keyspaces == nil {
		keyspaces = []string{}
	}
	_, err := o.invoke(ctx, true, storageService, "clearSnapshot", []any{tag, keyspaces}, typeString, typeStrings)
	return err
}

var (
	legalTag  = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)
	legalName = regexp.MustCompile(`^[A-Za-z0-9_]+$`)
)

// checkNames refuses what is never made here; an empty tag above all, which means all snapshots.
func checkNames(tag string, names ...string) error {
	if !legalTag.MatchString(tag) {
		return fmt.Errorf("internal error: %q is not a tag of a snapshot", tag)
	}
	for _, n := range names {
		if !legalName.MatchString(n) {
			return fmt.Errorf("internal error: %q is not the name of a keyspace or of a table", n)
		}
	}
	return nil
}

// thrown is the message of what Cassandra threw; empty where it threw nothing.
func thrown(err error) string {
	var t *jmx.Throwable
	if !errors.As(err, &t) {
		return ""
	}
	return t.Root().Error()
}

// CheckRights implements node.Operator. It asks for a snapshot without a name, which every release refuses, and clears a tag that no snapshot has.
func (o *Operator) CheckRights(ctx context.Context, tag string, keyspaces []string) error {
	if err := checkNames(tag, keyspaces...); err != nil {
		return o.failed("checking the rights", err)
	}
	found, err := o.having(ctx, tag)
	if err != nil {
		return err
	}
	if found > 0 {
		return o.failed("snapshot "+tag, node.ErrSnapshotExists)
	}
	err = o.take(ctx, "", keyspaces)
	switch {
	case err == nil:
		return o.failed("trying whether a snapshot may be taken", errors.New("it took one without a name instead of refusing it: look at its snapshots, and clear it"))
	case !strings.Contains(thrown(err), "must supply a snapshot name"):
		return o.failed("trying whether a snapshot may be taken", err)
	}
	if err := o.clear(ctx, "scalardb-rights-"+strings.ToLower(rand.Text()), keyspaces); err != nil {
		return o.failed("trying whether a snapshot may be cleared", err)
	}
	return nil
}

// having counts the tables of which there is a snapshot of that tag.
func (o *Operator) having(ctx context.Context, tag string) (int, error) {
	all, err := o.Snapshots(ctx)
	n := 0
	for _, s := range all {
		if s.Tag == tag {
			n++
		}
	}
	return n, err
}

// TakeSnapshot implements node.Operator.
func (o *Operator) TakeSnapshot(ctx context.Context, tag string, keyspaces []string) error {
	what := "taking the snapshot " + tag
	if err := checkNames(tag, keyspaces...); err != nil {
		return o.failed(what, err)
	}
	if len(keyspaces) == 0 {
		return o.failed(what, errors.New("internal error: without keyspaces it would be one of all"))
	}
	err := o.take(ctx, tag, keyspaces)
	switch {
	case err == nil:
		return nil
	case strings.Contains(thrown(err), "already exists"):
		return o.failed(what, node.ErrSnapshotExists)
	case errors.Is(err, jmx.ErrOutcomeUnknown) && ctx.Err() == nil:
		// That the node has it now does not say that it is whole, nor when it was taken.
		if n, lookErr := o.having(ctx, tag); lookErr != nil {
			err = fmt.Errorf("%w; looking whether the node has it: %w", err, lookErr)
		} else {
			err = fmt.Errorf("%w; the node has it of %d tables by now, which does not show that it is whole", err, n)
		}
	}
	return o.failed(what, err)
}

// Snapshots implements node.Operator. The sizes are as exact as Cassandra tells them to people: three digits.
func (o *Operator) Snapshots(ctx context.Context) ([]node.Snapshot, error) {
	const what = "listing the snapshots"
	v, err := o.read(ctx, storageService, "SnapshotDetails")
	if err != nil {
		return nil, o.failed(what, err)
	}
	all, err := snapshotsOf(v)
	if err != nil {
		return nil, o.failed(what, err)
	}
	return all, nil
}

// snapshotsOf reads a map of tags to tables with a row for each table. The rows have more columns in later releases.
func snapshotsOf(v jmx.Value) ([]node.Snapshot, error) {
	tags, ok := v.(jmx.Map)
	if !ok {
		return nil, fmt.Errorf("a map of tags was expected, not %T", v)
	}
	var all []node.Snapshot
	for _, e := range tags {
		rows, ok := e.Value.([]map[string]any)
		if !ok {
			return nil, fmt.Errorf("a table for each tag was expected, not %T", e.Value)
		}
		for _, row := range rows {
			var columns [5]string
			for i, name := range []string{"Snapshot name", "Keyspace name", "Column family name", "True size", "Size on disk"} {
				text, ok := row[name].(string)
				if !ok {
					return nil, fmt.Errorf("a row has %T in the column %q", row[name], name)
				}
				columns[i] = text
			}
			all = append(all, node.Snapshot{
				Tag: columns[0], Keyspace: columns[1], Table: columns[2], TrueSize: node.ParseSize(columns[3]), Size: node.ParseSize(columns[4]),
			})
		}
	}
	return all, nil
}

// ClearSnapshot implements node.Operator.
func (o *Operator) ClearSnapshot(ctx context.Context, tag string, keyspaces []string) error {
	what := "clearing the snapshot " + tag
	if err := checkNames(tag, keyspaces...); err != nil {
		return o.failed(what, err)
	}
	if err := o.clear(ctx, tag, keyspaces); err != nil {
		return o.failed(what, err)
	}
	all, err := o.Snapshots(ctx)
	if err != nil {
		return err
	}
	for _, s := range all {
		if s.Tag == tag && (len(keyspaces) == 0 || slices.Contains(keyspaces, s.Keyspace)) {
			return o.failed(what, fmt.Errorf("the node says that it did, and still has that of %s.%s", s.Keyspace, s.Table))
		}
	}
	return nil
}

// Import implements node.Importer.
func (o *Operator) Import(ctx context.Context, keyspace, table string, directories []string) error {
	return o.load(ctx, keyspace, table, directories, true)
}

// Load implements node.Loader.
func (o *Operator) Load(ctx context.Context, keyspace, table string, directories []string) error {
	return o.load(ctx, keyspace, table, directories, false)
}

func (o *Operator) load(ctx context.Context, keyspace, table string, directories []string, verifyTokens bool) error {
	what := "importing into " + keyspace + "." + table
	if err := checkNames("import", keyspace, table); err != nil {
		return o.failed(what, err)
	}
	if err := node.CheckImport(keyspace, table, directories); err != nil {
		return o.failed(what, err)
	}
	if len(directories) == 0 {
		return nil // an empty set would mean the table's own directories
	}
	ctx, cancel := o.clock.WithTimeout(ctx, importTimeout)
	defer cancel()
	const (
		resetLevel, clearRepaired, verifySSTables  = true, true, true
		invalidateCaches, extendedVerify, copyData = true, false, true
	)
	v, err := o.invoke(ctx, false, "org.apache.cassandra.db:type=Tables,keyspace="+keyspace+",table="+table, "importNewSSTables",
		[]any{jmx.Set(directories), resetLevel, clearRepaired, verifySSTables, verifyTokens, invalidateCaches, extendedVerify, copyData},
		typeSet, typeBool, typeBool, typeBool, typeBool, typeBool, typeBool, typeBool)
	if err != nil {
		if text := thrown(err); strings.Contains(text, "NoSuchMethodException") || strings.Contains(text, "No such operation") {
			err = fmt.Errorf("this release cannot import copies (%w): %w", err, node.ErrUnsupported)
		}
		return o.failed(what, err)
	}
	failed, err := jmx.Strings(v)
	if err != nil {
		return o.failed(what, err)
	}
	if len(failed) > 0 {
		return o.failed(what, fmt.Errorf("the node refused %s: its log says why (tokens that it does not own, or damage)", strings.Join(failed, ", ")))
	}
	return nil
}

// Cleanup implements node.Cleaner. When ctx ends the node goes on with it.
func (o *Operator) Cleanup(ctx context.Context, keyspace string) error {
	what := "cleaning up keyspace " + keyspace
	if err := checkNames("cleanup", keyspace); err != nil {
		return o.failed(what, err)
	}
	ctx, cancel := o.clock.WithTimeout(ctx, cleanupTimeout)
	defer cancel()
	v, err := o.invoke(ctx, true, storageService, "forceKeyspaceCleanup", []any{int32(0), keyspace, []string{}}, typeInt, typeString, typeStrings)
	if err != nil {
		return o.failed(what, err)
	}
	if status, ok := v.(int32); !ok || status != 0 {
		return o.failed(what, fmt.Errorf("the node says %v, and 0 is done: its log says why", v))
	}
	return nil
}

// Drain implements node.Drainer.
func (o *Operator) Drain(ctx context.Context) error {
	ctx, cancel := o.clock.WithTimeout(ctx, drainTimeout)
	defer cancel()
	if _, err := o.invoke(ctx, true, storageService, "drain", nil); err != nil {
		return o.failed("draining", err)
	}
	return nil
}

// Flush implements node.Flusher.
func (o *Operator) Flush(ctx context.Context, keyspace string) error {
	ctx, cancel := o.clock.WithTimeout(ctx, flushTimeout)
	defer cancel()
	what := "flushing keyspace " + keyspace
	if err := checkNames("flush", keyspace); err != nil {
		return o.failed(what, err)
	}
	if _, err := o.invoke(ctx, true, storageService, "forceKeyspaceFlush", []any{keyspace, []string{}}, typeString, typeStrings); err != nil {
		return o.failed(what, err)
	}
	return nil
}

// Writes implements node.WriteCounter, with one call for each table.
func (o *Operator) Writes(ctx context.Context, tables []node.Table) (map[node.Table]int64, error) {
	counts := make(map[node.Table]int64, len(tables))
	for _, t := range tables {
		what := "reading the write count of " + t.String()
		if err := checkNames("writes", t.Keyspace, t.Name); err != nil {
			return nil, o.failed(what, err)
		}
		v, err := o.read(ctx, "org.apache.cassandra.metrics:type=Table,keyspace="+t.Keyspace+",scope="+t.Name+",name=WriteLatency", "Count")
		if err != nil {
			return nil, o.failed(what, err)
		}
		n, ok := v.(int64)
		if !ok || n < 0 {
			return nil, o.failed(what, fmt.Errorf("it is %v (%T)", v, v))
		}
		counts[t] = n
	}
	return counts, nil
}

// DataDirectories implements node.DirectoryLister.
func (o *Operator) DataDirectories(ctx context.Context) ([]string, error) {
	const what = "asking for the data directories"
	v, err := o.read(ctx, storageService, "AllDataFileLocations")
	if err != nil {
		return nil, o.failed(what, err)
	}
	dirs, err := jmx.Strings(v)
	if err == nil && len(dirs) == 0 {
		err = errors.New("it names none")
	}
	if err != nil {
		return nil, o.failed(what, err)
	}
	slices.Sort(dirs)
	return slices.Compact(dirs), nil
}

// Repair implements node.Repairer. When ctx ends the repair goes on.
func (o *Operator) Repair(ctx context.Context, keyspace string) error {
	what := "repairing keyspace " + keyspace
	if err := checkNames("repair", keyspace); err != nil {
		return o.failed(what, err)
	}
	ctx, cancel := o.clock.WithTimeout(ctx, repairTimeout)
	defer cancel()
	v, err := o.invoke(ctx, false, storageService, "repairAsync", []any{keyspace, map[string]string{"incremental": "false", "parallelism": "parallel"}}, typeString, typeMap)
	if err != nil {
		return o.failed(what, err)
	}
	number, ok := v.(int32)
	if !ok {
		return o.failed(what, fmt.Errorf("a number was expected, not %T", v))
	}
	if number == 0 {
		return nil // there is only one replica
	}
	for unknown := 0; ; {
		v, err := o.invoke(ctx, true, storageService, "getParentRepairStatus", []any{number}, typeInt)
		if err != nil {
			return o.failed(what, err)
		}
		status, err := jmx.Strings(v)
		if err != nil {
			return o.failed(what, err)
		}
		switch {
		case len(status) == 0:
			if unknown++; unknown > startLimit {
				return o.failed(what, fmt.Errorf("the node knows nothing of its repair %d: was it restarted?", number))
			}
		case status[0] == "COMPLETED":
			return nil
		case status[0] == "FAILED":
			reason := strings.Join(status[1:], "; ")
			if strings.Contains(reason, "Nothing to repair") {
				return nil
			}
			return o.failed(what, fmt.Errorf("repair %d failed: %s", number, reason))
		case status[0] != "IN_PROGRESS":
			return o.failed(what, fmt.Errorf("repair %d is in the unknown state %s", number, status[0]))
		}
		if err := o.clock.Sleep(ctx, repairInterval); err != nil {
			return o.failed(what, fmt.Errorf("waiting for repair %d, which goes on: %w", number, err))
		}
	}
}
