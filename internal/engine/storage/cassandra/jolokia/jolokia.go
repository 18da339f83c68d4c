// Package jolokia works on Cassandra nodes through the Jolokia agent in each node's Java process, which offers JMX over HTTP.
//
// Seen with Jolokia 2.6.0 in Cassandra 5.0.9. Jolokia answers HTTP 200 also for what failed: the answer's own status counts; only requests that it does not
// understand are refused with HTTP 400 and a text. The agent has either all of JMX's rights, or those that its policy file names, by operation.
package jolokia

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/rest"
)

const (
	storageService = "org.apache.cassandra.db:type=StorageService"
	takeSnapshot   = "takeSnapshot(java.lang.String,java.util.Map,[Ljava.lang.String;)"
	clearSnapshot  = "clearSnapshot(java.lang.String,[Ljava.lang.String;)"
	repairAsync    = "repairAsync(java.lang.String,java.util.Map)"
	repairStatus   = "getParentRepairStatus(int)"
	// The set of directories, then resetLevel, clearRepaired, verifySSTables, verifyTokens, invalidateCaches, extendedVerify, copyData.
	importSSTables = "importNewSSTables(java.util.Set,boolean,boolean,boolean,boolean,boolean,boolean,boolean)"

	cleanup = "forceKeyspaceCleanup(int,java.lang.String,[Ljava.lang.String;)"
	// cleanupLimit ends a cleanup, which rewrites what the node has of the keyspace.
	cleanupLimit = 12 * time.Hour

	drainLimit = 10 * time.Minute

	flush = "forceKeyspaceFlush(java.lang.String,[Ljava.lang.String;)"
	// flushLimit ends a flush: memtables have some gigabytes at most.
	flushLimit = 10 * time.Minute

	// importLimit ends an import: copying a node's files takes as long as they are large.
	importLimit = 6 * time.Hour
	// repairInterval is how often a repair is looked at.
	repairInterval = time.Second
)

// Transport opens Operators. It implements node.Transport.
type Transport struct{ settings rest.Settings }

var (
	_ node.Transport       = (*Transport)(nil)
	_ node.Operator        = (*Operator)(nil)
	_ node.TagLister       = (*Operator)(nil)
	_ node.Importer        = (*Operator)(nil)
	_ node.Loader          = (*Operator)(nil)
	_ node.Cleaner         = (*Operator)(nil)
	_ node.Drainer         = (*Operator)(nil)
	_ node.Flusher         = (*Operator)(nil)
	_ node.WriteCounter    = (*Operator)(nil)
	_ node.DirectoryLister = (*Operator)(nil)
	_ node.Repairer        = (*Operator)(nil)
)

// New makes a transport. The URL is that of the agent, usually http://{address}:8778/jolokia.
func New(s rest.Settings) (*Transport, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	return &Transport{settings: s}, nil
}

// Name is its key in HCL.
func (*Transport) Name() string { return "jolokia" }

// Open connects to a node's agent and proves that it is in that node, by the host id that the node says it has.
func (t *Transport) Open(ctx context.Context, n node.Node) (node.Operator, error) {
	client, err := rest.New(t.settings, n, 1)
	if err != nil {
		return nil, err
	}
	o := &Operator{client: client, settings: t.settings}
	if err := o.prove(ctx, n); err != nil {
		client.Close()
		return nil, err
	}
	return o, nil
}

// Operator works on one node.
type Operator struct {
	client   *rest.Client
	settings rest.Settings
}

// request is one operation of Jolokia's protocol.
type request struct {
	Type      string            `json:"type"`
	MBean     string            `json:"mbean,omitempty"`
	Attribute string            `json:"attribute,omitempty"`
	Operation string            `json:"operation,omitempty"`
	Arguments []any             `json:"arguments,omitempty"`
	Path      string            `json:"path,omitempty"`
	Config    map[string]string `json:"config,omitempty"`
}

// answer is what comes back for one.
type answer struct {
	Status int             `json:"status"`
	Value  json.RawMessage `json:"value"`
	Error  string          `json:"error"`
	Type   string          `json:"error_type"`
}

// Failure is what Jolokia, or the node, refused.
type Failure struct {
	Status int
	Type   string // Java class
	Text   string
}

func (f *Failure) Error() string {
	switch f.Status {
	case http.StatusForbidden:
		return "jolokia's policy forbids it: " + f.Text
	case http.StatusNotFound:
		return "the node has no such thing: " + f.Text
	}
	class := f.Type[strings.LastIndexByte(f.Type, '.')+1:]
	if class == "" {
		return f.Text
	}
	return f.Text + " (" + class + ")"
}

func (a answer) err() error {
	switch {
	case a.Status == http.StatusOK:
		return nil
	case a.Status == 0:
		return errors.New("its answer has no status: is it another service's port?")
	}
	return &Failure{Status: a.Status, Type: rest.Excerpt([]byte(a.Type)), Text: rest.Excerpt([]byte(a.Error))}
}

func (a answer) into(v any) error {
	if err := a.err(); err != nil {
		return err
	}
	if err := json.Unmarshal(a.Value, v); err != nil {
		return fmt.Errorf("its answer is not of the form that was expected: %s", rest.Excerpt(a.Value))
	}
	return nil
}

// decode reads the answer to one request, or to as many as were sent at once.
func decode(a rest.Answer, bulk bool, sent int) ([]answer, error) {
	if err := a.OK(); err != nil {
		return nil, err
	}
	if !bulk {
		var one answer
		if err := a.JSON(&one); err != nil {
			return nil, err
		}
		return []answer{one}, nil
	}
	var all []answer
	if err := a.JSON(&all); err != nil {
		// A refusal as a whole is no list.
		var one answer
		if a.JSON(&one) == nil && one.err() != nil {
			return nil, one.err()
		}
		return nil, err
	}
	if len(all) != sent {
		return nil, fmt.Errorf("it answered %d of %d requests", len(all), sent)
	}
	return all, nil
}

func (o *Operator) do(ctx context.Context, r request, limit time.Duration) (answer, error) {
	a, err := o.client.Do(ctx, rest.Call{Method: http.MethodPost, Path: []string{""}, JSON: r, Limit: limit})
	if err != nil {
		return answer{}, err
	}
	all, err := decode(a, false, 1)
	if err != nil {
		return answer{}, err
	}
	return all[0], all[0].err()
}

func exec(operation string, arguments ...any) request {
	return request{Type: "exec", MBean: storageService, Operation: operation, Arguments: arguments, Config: map[string]string{"includeStackTrace": "false"}}
}

// read reads an attribute of the StorageService.
func (o *Operator) read(ctx context.Context, attribute string, v any) error {
	a, err := o.do(ctx, request{Type: "read", MBean: storageService, Attribute: attribute}, 0)
	if err != nil {
		return err
	}
	return a.into(v)
}

func (o *Operator) prove(ctx context.Context, n node.Node) error {
	var id string
	if err := o.read(ctx, "LocalHostId", &id); err != nil {
		return fmt.Errorf("reading the node's host id: %w", err)
	}
	if !strings.EqualFold(id, n.HostID) {
		return fmt.Errorf("the url leads to node %s, not to %s (%s): put {address} into it, or what else tells the nodes apart",
			rest.Excerpt([]byte(id)), n.HostID, n.Address)
	}
	return o.client.Keep(ctx, 1, rest.Call{Method: http.MethodPost, Path: []string{""}, JSON: request{Type: "version"}})
}

// CheckRights asks for a snapshot without a name, which every release refuses after Jolokia's policy has let it pass, and clears a tag that no snapshot has.
func (o *Operator) CheckRights(ctx context.Context, tag string, keyspaces []string) error {
	found, err := o.SnapshotsOf(ctx, tag)
	if err != nil {
		return err
	}
	if len(found) > 0 {
		return fmt.Errorf("snapshot %s: %w", tag, node.ErrSnapshotExists)
	}
	_, err = o.do(ctx, exec(takeSnapshot, "", map[string]string{"skipFlush": "true"}, keyspaces), 0)
	var failure *Failure
	switch {
	case err == nil:
		return errors.New("the node took a snapshot without a name instead of refusing it: look at its snapshots, and clear it")
	case !errors.As(err, &failure), failure.Type != "java.io.IOException", !strings.Contains(failure.Text, "must supply a snapshot name"):
		return fmt.Errorf("trying whether a snapshot may be taken: %w", err)
	}
	if _, err := o.do(ctx, exec(clearSnapshot, "scalardb-rights-"+rand.Text(), keyspaces), 0); err != nil {
		return fmt.Errorf("trying whether a snapshot may be cleared: %w", err)
	}
	return nil
}

// TakeSnapshot implements node.Operator.
func (o *Operator) TakeSnapshot(ctx context.Context, tag string, keyspaces []string) error {
	if tag == "" || len(keyspaces) == 0 {
		return errors.New("internal error: a snapshot needs a tag and keyspaces")
	}
	_, err := o.do(ctx, exec(takeSnapshot, tag, map[string]string{"skipFlush": "false"}, keyspaces), 0)
	var failure *Failure
	if errors.As(err, &failure) && strings.Contains(failure.Text, "already exists") {
		err = node.ErrSnapshotExists
	}
	if err != nil {
		return fmt.Errorf("taking snapshot %s: %w", tag, err)
	}
	return nil
}

// ClearSnapshot implements node.Operator.
func (o *Operator) ClearSnapshot(ctx context.Context, tag string, keyspaces []string) error {
	if tag == "" {
		return errors.New("internal error: clearing snapshots without a tag would clear them all")
	}
	if keyspaces == nil {
		keyspaces = []string{} // null is no array
	}
	if _, err := o.do(ctx, exec(clearSnapshot, tag, keyspaces), 0); err != nil {
		return fmt.Errorf("clearing snapshot %s: %w", tag, err)
	}
	return nil
}

// Import implements node.Importer. It is not supported before the release that can copy instead of move (4.1).
func (o *Operator) Import(ctx context.Context, keyspace, table string, directories []string) error {
	return o.load(ctx, keyspace, table, directories, true)
}

// Load implements node.Loader.
func (o *Operator) Load(ctx context.Context, keyspace, table string, directories []string) error {
	return o.load(ctx, keyspace, table, directories, false)
}

func (o *Operator) load(ctx context.Context, keyspace, table string, directories []string, verifyTokens bool) error {
	if len(directories) == 0 {
		return nil
	}
	if err := node.CheckImport(keyspace, table, directories); err != nil {
		return err
	}
	bean, err := tableBean("org.apache.cassandra.db:type=Tables,keyspace=%s,table=%s", keyspace, table)
	if err != nil {
		return err
	}
	r := exec(importSSTables, directories, true, true, true, verifyTokens, true, false, true)
	r.MBean = bean
	a, err := o.do(ctx, r, importLimit)
	var refused *rest.StatusError
	if errors.As(err, &refused) && refused.Status == http.StatusBadRequest && strings.Contains(refused.Text, "No operation") {
		return fmt.Errorf("importing into %s.%s: this release of Cassandra cannot import copies: %w", keyspace, table, node.ErrUnsupported)
	}
	if err != nil {
		return fmt.Errorf("importing into %s.%s: %w", keyspace, table, err)
	}
	var failed []string
	if err := a.into(&failed); err != nil {
		return fmt.Errorf("importing into %s.%s: %w", keyspace, table, err)
	}
	if len(failed) > 0 {
		return fmt.Errorf("importing into %s.%s: the node refused %s (its log has the reason; SSTables whose tokens it does not own are one)",
			keyspace, table, strings.Join(failed, ", "))
	}
	return nil
}

// Cleanup implements node.Cleaner. The node goes on with it when ctx ends.
func (o *Operator) Cleanup(ctx context.Context, keyspace string) error {
	a, err := o.do(ctx, exec(cleanup, 0, keyspace, []string{}), cleanupLimit)
	if err != nil {
		return fmt.Errorf("cleaning up keyspace %s: %w", keyspace, err)
	}
	var status int
	if err := a.into(&status); err != nil {
		return fmt.Errorf("cleaning up keyspace %s: %w", keyspace, err)
	}
	if status != 0 {
		return fmt.Errorf("cleaning up keyspace %s: the node says %d, and 0 is done: its log says why", keyspace, status)
	}
	return nil
}

// Drain implements node.Drainer.
func (o *Operator) Drain(ctx context.Context) error {
	if _, err := o.do(ctx, exec("drain"), drainLimit); err != nil {
		return fmt.Errorf("draining: %w", err)
	}
	return nil
}

// Flush implements node.Flusher.
func (o *Operator) Flush(ctx context.Context, keyspace string) error {
	if _, err := o.do(ctx, exec(flush, keyspace, []string{}), flushLimit); err != nil {
		return fmt.Errorf("flushing keyspace %s: %w", keyspace, err)
	}
	return nil
}

// Writes implements node.WriteCounter, with one request for all tables.
func (o *Operator) Writes(ctx context.Context, tables []node.Table) (map[node.Table]int64, error) {
	if len(tables) == 0 {
		return map[node.Table]int64{}, nil
	}
	requests := make([]request, len(tables))
	for i, table := range tables {
		bean, err := tableBean("org.apache.cassandra.metrics:type=Table,keyspace=%s,scope=%s,name=WriteLatency", table.Keyspace, table.Name)
		if err != nil {
			return nil, err
		}
		requests[i] = request{Type: "read", MBean: bean, Attribute: "Count"}
	}
	a, err := o.client.Do(ctx, rest.Call{Method: http.MethodPost, Path: []string{""}, JSON: requests})
	if err != nil {
		return nil, fmt.Errorf("reading write counts: %w", err)
	}
	answers, err := decode(a, true, len(requests))
	if err != nil {
		return nil, fmt.Errorf("reading write counts: %w", err)
	}
	counts := make(map[node.Table]int64, len(tables))
	for i, table := range tables {
		var count int64
		if err := answers[i].into(&count); err != nil {
			return nil, fmt.Errorf("reading the write count of %s: %w", table, err)
		}
		counts[table] = count
	}
	return counts, nil
}

// DataDirectories implements node.DirectoryLister.
func (o *Operator) DataDirectories(ctx context.Context) ([]string, error) {
	var directories []string
	if err := o.read(ctx, "AllDataFileLocations", &directories); err != nil {
		return nil, fmt.Errorf("reading the data directories: %w", err)
	}
	return directories, nil
}

// Repair implements node.Repairer. It is looked at every second until ctx ends; the repair itself goes on then.
func (o *Operator) Repair(ctx context.Context, keyspace string) error {
	if err := o.repair(ctx, keyspace); err != nil {
		return fmt.Errorf("repairing keyspace %s: %w", keyspace, err)
	}
	return nil
}

func (o *Operator) repair(ctx context.Context, keyspace string) error {
	a, err := o.do(ctx, exec(repairAsync, keyspace, map[string]string{"incremental": "false", "parallelism": "parallel"}), 0)
	if err != nil {
		return err
	}
	var number int
	if err := a.into(&number); err != nil {
		return err
	}
	if number == 0 {
		return nil // there is one replica only
	}
	for {
		a, err := o.do(ctx, exec(repairStatus, number), 0)
		if err != nil {
			return err
		}
		var status []string // the state, then messages; null when the node does not know it
		if err := a.into(&status); err != nil {
			return err
		}
		switch {
		case len(status) == 0:
			return fmt.Errorf("the node knows nothing of its repair %d any more: was it restarted?", number)
		case status[0] == "COMPLETED":
			return nil
		case status[0] == "FAILED":
			reason := strings.Join(status[1:], "; ")
			if strings.Contains(reason, "Nothing to repair") {
				return nil
			}
			return errors.New(rest.Excerpt([]byte(reason)))
		case status[0] != "IN_PROGRESS":
			return fmt.Errorf("its repair %d is in the unknown state %s", number, rest.Excerpt([]byte(status[0])))
		}
		if err := o.settings.Clock.Sleep(ctx, repairInterval); err != nil {
			return err
		}
	}
}

// Close closes the connection.
func (o *Operator) Close() error {
	o.client.Close()
	return nil
}

var name = regexp.MustCompile(`^\w+$`)

func tableBean(format, keyspace, table string) (string, error) {
	if !name.MatchString(keyspace) || !name.MatchString(table) {
		return "", fmt.Errorf("%q.%q is no table's name", keyspace, table)
	}
	return fmt.Sprintf(format, keyspace, table), nil
}
