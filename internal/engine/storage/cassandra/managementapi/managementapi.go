// Package managementapi works on Cassandra nodes through K8ssandra's Management API, a server beside each node, as K8ssandra's pods have it.
//
// It says HTTP 500 and "Failed to execute method NodeOps.takeSnapshot" whatever the reason, which is only in the log of the node; so a tag that exists has to be
// found by listing. It has no rights of its own: who may connect (by a client certificate) may do everything. Import and the data directories it does not offer.
//
// Identity, snapshots and their errors are as recorded with version 0.1.110 and Cassandra 5.0.9; the repair follows its OpenAPI description and was not run.
package managementapi

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/rest"
)

// How often a job is looked at.
const (
	repairInterval = time.Second
	flushInterval  = 100 * time.Millisecond
)

// Transport opens Operators. It implements node.Transport.
type Transport struct{ settings rest.Settings }

var (
	_ node.Transport = (*Transport)(nil)
	_ node.Operator  = (*Operator)(nil)
	_ node.TagLister = (*Operator)(nil)
	_ node.Flusher   = (*Operator)(nil)
	_ node.Repairer  = (*Operator)(nil)
)

// New makes a transport. The URL is that of the server without the API's own path, usually http://{address}:8080.
func New(s rest.Settings) (*Transport, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	return &Transport{settings: s}, nil
}

// Name is its key in HCL.
func (*Transport) Name() string { return "management_api" }

// Open connects to a node's server and proves that it is that node's: by the server's word (IS_LOCAL), or, where its release does not say, by the address
// that was connected to.
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
	free     string // the tag that CheckRights found no snapshot of; used up by TakeSnapshot
}

func (o *Operator) do(ctx context.Context, call rest.Call) (rest.Answer, error) {
	a, err := o.client.Do(ctx, call)
	if err != nil {
		return rest.Answer{}, err
	}
	if err := a.OK(); err != nil {
		if a.Status == http.StatusInternalServerError {
			return rest.Answer{}, fmt.Errorf("%w: the reason is in the log of the node's Cassandra", err)
		}
		return rest.Answer{}, err
	}
	return a, nil
}

// path is one of the API.
func path(version string, elements ...string) []string {
	return append([]string{"api", version}, elements...)
}

// endpoint is one node as the asked one sees it. All its values are texts.
type endpoint struct {
	HostID        string `json:"HOST_ID"`
	Local         string `json:"IS_LOCAL"` // absent in old releases
	Address       string `json:"ENDPOINT_IP"`
	NativeAddress string `json:"NATIVE_ADDRESS_AND_PORT"`
	RPCAddress    string `json:"RPC_ADDRESS"`
}

func (e endpoint) at(peer netip.Addr) bool {
	native := e.NativeAddress
	if host, _, err := net.SplitHostPort(native); err == nil {
		native = host
	}
	return slices.ContainsFunc([]string{e.Address, native, e.RPCAddress}, func(text string) bool {
		address, err := netip.ParseAddr(text)
		return err == nil && !address.IsUnspecified() && address.Unmap() == peer
	})
}

// local finds the node that the server belongs to.
func local(a rest.Answer) (endpoint, error) {
	var states struct {
		Entity []endpoint `json:"entity"`
	}
	if err := a.JSON(&states); err != nil {
		return endpoint{}, err
	}
	mine := func(e endpoint) bool { return e.Local == "true" }
	if !slices.ContainsFunc(states.Entity, func(e endpoint) bool { return e.Local != "" }) {
		mine = func(e endpoint) bool { return e.at(a.Peer) }
	}
	found := slices.DeleteFunc(slices.Clone(states.Entity), func(e endpoint) bool { return !mine(e) })
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return endpoint{}, fmt.Errorf("it does not say which of its %d nodes it belongs to, and none has the address %s: use a url with {address}, "+
			"or a release of the Management API that tells (IS_LOCAL)", len(states.Entity), a.Peer)
	}
	return endpoint{}, fmt.Errorf("it says that %d nodes are its own", len(found))
}

func (o *Operator) prove(ctx context.Context, n node.Node) error {
	a, err := o.do(ctx, rest.Call{Method: http.MethodGet, Path: path("v0", "metadata", "endpoints")})
	if err != nil {
		return fmt.Errorf("reading the node's host id: %w", err)
	}
	is, err := local(a)
	if err != nil {
		return fmt.Errorf("reading the node's host id: %w", err)
	}
	if !strings.EqualFold(is.HostID, n.HostID) {
		return fmt.Errorf("the url leads to node %s (%s), not to %s (%s): put {address} into it, or what else tells the nodes apart",
			rest.Excerpt([]byte(is.HostID)), rest.Excerpt([]byte(is.Address)), n.HostID, n.Address)
	}
	return o.client.Keep(ctx, 1, rest.Call{Method: http.MethodGet, Path: path("v0", "probes", "liveness")})
}

func snapshots() []string { return path("v0", "ops", "node", "snapshots") }

// CheckRights clears a tag that no snapshot has.
func (o *Operator) CheckRights(ctx context.Context, tag string, keyspaces []string) error {
	if err := o.unused(ctx, tag); err != nil {
		return err
	}
	if err := o.clear(ctx, "scalardb-rights-"+rand.Text(), keyspaces); err != nil {
		return fmt.Errorf("trying whether a snapshot may be cleared: %w", err)
	}
	o.free = tag
	return nil
}

func (o *Operator) unused(ctx context.Context, tag string) error {
	found, err := o.SnapshotsOf(ctx, tag)
	if err == nil && len(found) > 0 {
		err = fmt.Errorf("snapshot %s: %w", tag, node.ErrSnapshotExists)
	}
	return err
}

// TakeSnapshot implements node.Operator. Without a CheckRights for the tag just before, it lists the node's snapshots first.
func (o *Operator) TakeSnapshot(ctx context.Context, tag string, keyspaces []string) error {
	if tag == "" || len(keyspaces) == 0 {
		return errors.New("internal error: a snapshot needs a tag and keyspaces")
	}
	if o.free != tag {
		if err := o.unused(ctx, tag); err != nil {
			return err
		}
	}
	o.free = ""
	body := map[string]any{"snapshot_name": tag, "keyspaces": keyspaces, "skip_flush": false}
	if _, err := o.do(ctx, rest.Call{Method: http.MethodPost, Path: snapshots(), JSON: body}); err != nil {
		return fmt.Errorf("taking snapshot %s: %w", tag, err)
	}
	return nil
}

// Snapshots implements node.Operator. Sizes are rounded, to three digits, and -1 where they cannot be read.
func (o *Operator) Snapshots(ctx context.Context) ([]node.Snapshot, error) {
	all, err := o.list(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("listing snapshots: %w", err)
	}
	return all, nil
}

// SnapshotsOf implements node.TagLister.
func (o *Operator) SnapshotsOf(ctx context.Context, tag string) ([]node.Snapshot, error) {
	all, err := o.list(ctx, url.Values{"snapshotNames": {tag}})
	if err != nil {
		return nil, fmt.Errorf("listing snapshot %s: %w", tag, err)
	}
	return slices.DeleteFunc(all, func(s node.Snapshot) bool { return s.Tag != tag }), nil
}

func (o *Operator) list(ctx context.Context, query url.Values) ([]node.Snapshot, error) {
	a, err := o.do(ctx, rest.Call{Method: http.MethodGet, Path: snapshots(), Query: query})
	if err != nil {
		return nil, err
	}
	return readSnapshots(a)
}

func readSnapshots(a rest.Answer) ([]node.Snapshot, error) {
	var list struct {
		Entity json.RawMessage `json:"entity"`
	}
	if err := a.JSON(&list); err != nil {
		return nil, err
	}
	if list.Entity == nil {
		// Taken for an empty list it would hide what is there.
		return nil, errors.New("its answer has no list: is it another service's port?")
	}
	var rows []struct {
		Tag      string `json:"Snapshot name"`
		Keyspace string `json:"Keyspace name"`
		Table    string `json:"Column family name"`
		TrueSize string `json:"True size"`
		Size     string `json:"Size on disk"`
	}
	if err := json.Unmarshal(list.Entity, &rows); err != nil {
		return nil, fmt.Errorf("its list of snapshots is not of the form that was expected: %s", rest.Excerpt(list.Entity))
	}
	all := make([]node.Snapshot, len(rows))
	for i, r := range rows {
		if r.Tag == "" || r.Keyspace == "" || r.Table == "" {
			return nil, errors.New("its list of snapshots has one without a name, a keyspace or a table")
		}
		all[i] = node.Snapshot{Tag: r.Tag, Keyspace: r.Keyspace, Table: r.Table, Size: node.ParseSize(r.Size), TrueSize: node.ParseSize(r.TrueSize)}
	}
	return all, nil
}

// ClearSnapshot implements node.Operator.
func (o *Operator) ClearSnapshot(ctx context.Context, tag string, keyspaces []string) error {
	if err := o.clear(ctx, tag, keyspaces); err != nil {
		return fmt.Errorf("clearing snapshot %s: %w", tag, err)
	}
	return nil
}

func (o *Operator) clear(ctx context.Context, tag string, keyspaces []string) error {
	if tag == "" {
		return errors.New("internal error: clearing snapshots without a tag would clear them all")
	}
	query := url.Values{"snapshotNames": {tag}}
	if len(keyspaces) > 0 {
		query["keyspaces"] = keyspaces
	}
	_, err := o.do(ctx, rest.Call{Method: http.MethodDelete, Path: snapshots(), Query: query})
	return err
}

// Repair implements node.Repairer. It is looked at every second until ctx ends; the repair itself goes on then.
func (o *Operator) Repair(ctx context.Context, keyspace string) error {
	if err := o.repair(ctx, keyspace); err != nil {
		return fmt.Errorf("repairing keyspace %s: %w", keyspace, err)
	}
	return nil
}

func (o *Operator) repair(ctx context.Context, keyspace string) error {
	return o.job(ctx, repairInterval, path("v1", "ops", "node", "repair"), map[string]any{"keyspace_name": keyspace, "full": true})
}

// Flush implements node.Flusher, with a job for each keyspace.
func (o *Operator) Flush(ctx context.Context, keyspace string) error {
	if err := o.job(ctx, flushInterval, path("v1", "ops", "tables", "flush"), map[string]any{"jobs": 1, "keyspace_name": keyspace, "tables": []string{}}); err != nil {
		return fmt.Errorf("flushing keyspace %s: %w", keyspace, err)
	}
	return nil
}

// job starts a job, and looks at it until it has ended.
func (o *Operator) job(ctx context.Context, interval time.Duration, where []string, request map[string]any) error {
	a, err := o.do(ctx, rest.Call{Method: http.MethodPost, Path: where, JSON: request})
	if err != nil {
		return err
	}
	id := strings.Trim(strings.TrimSpace(string(a.Body)), `"`)
	if id == "" || len(id) > 100 {
		return fmt.Errorf("it gave no job id: %s", rest.Excerpt(a.Body))
	}
	for {
		a, err := o.do(ctx, rest.Call{Method: http.MethodGet, Path: path("v0", "ops", "executor", "job"), Query: url.Values{"job_id": {id}}})
		if err != nil {
			return fmt.Errorf("looking at job %s: %w", id, err)
		}
		if done, err := readJob(a); done || err != nil {
			return err
		}
		if err := o.settings.Clock.Sleep(ctx, interval); err != nil {
			return err
		}
	}
}

// readJob tells whether a job has ended well. One that failed may say COMPLETED in the end, with the error beside it.
func readJob(a rest.Answer) (done bool, err error) {
	var job struct {
		Status string `json:"status"`
		Error  string `json:"error"`
	}
	if err := a.JSON(&job); err != nil {
		return false, err
	}
	switch {
	case job.Error != "" && strings.Contains(job.Error, "Nothing to repair"):
		return true, nil
	case job.Error != "", job.Status == "ERROR":
		return false, fmt.Errorf("it failed: %s", rest.Excerpt([]byte(job.Error)))
	case job.Status == "COMPLETED":
		return true, nil
	case job.Status == "WAITING":
		return false, nil
	}
	return false, fmt.Errorf("its job is in the unknown state %q", rest.Excerpt([]byte(job.Status)))
}

// Close closes the connection.
func (o *Operator) Close() error {
	o.client.Close()
	return nil
}
