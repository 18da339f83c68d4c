// Package managementapitest is a double of K8ssandra's Management API for one node, for which no package is to be had.
//
// It follows what was recorded of version 0.1.110 with Cassandra 5.0.9 (snapshots taken, listed, cleared, refused; endpoints; probes) and, for the repair,
// the flush and their jobs, the project's OpenAPI description. Behind it is any node.Operator: nodetest.Memory, or one of a real Cassandra.
//
// Like the original it answers 500 with one text whatever Cassandra refused. It is stricter than the original: unknown paths, methods, parameters and fields are
// refused, as are a snapshot of all keyspaces and a clearing of all tags, which the original would do. It does not show how long Cassandra takes, the API's
// other calls, rights (the original has none), or what happens when the server stands while its Cassandra is down.
package managementapitest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
)

// Options of a server.
type Options struct {
	Node    node.Node     // whose it is
	Cluster []node.Node   // all nodes, Node among them; only Node when empty
	Backing node.Operator // does the work; called by one goroutine at a time
	Listen  string        // an address to listen on, "127.0.0.1:0" when empty
	// OldRelease leaves out IS_LOCAL.
	OldRelease bool
	// RepairFails is the error of every repair.
	RepairFails string
}

// Server is a running double.
type Server struct {
	URL  string
	HTTP *http.Server // not to be changed; for TLS wrap Handler

	options   Options
	work      sync.Mutex // of Backing
	mu        sync.Mutex
	jobs      map[string]int // how often each was asked for
	intercept atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]
}

// TB is the part of testing.TB that is needed.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Cleanup(func())
}

// Start runs a double until the test ends.
func Start(t TB, o Options) *Server {
	t.Helper()
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", o.Listen)
	if err != nil {
		t.Fatalf("starting a double of the Management API: %v", err)
	}
	s := New(o)
	s.URL = "http://" + l.Addr().String()
	s.HTTP = &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
	go func() { _ = s.HTTP.Serve(l) }() // ends with Close
	t.Cleanup(func() { _ = s.HTTP.Close() })
	return s
}

// New makes a double that is to be served by the caller.
func New(o Options) *Server {
	if len(o.Cluster) == 0 {
		o.Cluster = []node.Node{o.Node}
	}
	return &Server{options: o, jobs: map[string]int{}}
}

// Intercept sees every request from now on; it returns whether it answered it. Nil ends that.
func (s *Server) Intercept(f func(http.ResponseWriter, *http.Request) bool) {
	if f == nil {
		s.intercept.Store(nil)
		return
	}
	s.intercept.Store(&f)
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f := s.intercept.Load(); f != nil && (*f)(w, r) {
		return
	}
	switch r.Method + " " + r.URL.Path {
	case "GET /api/v0/probes/liveness", "GET /api/v0/probes/readiness":
		s.parameters(w, r, func(map[string][]string) { text(w, http.StatusOK, "OK") })
	case "GET /api/v0/metadata/endpoints":
		s.parameters(w, r, func(map[string][]string) { s.endpoints(w) })
	case "GET /api/v0/ops/node/snapshots":
		s.parameters(w, r, func(q map[string][]string) { s.list(w, r, q) }, "snapshotNames", "keyspaces")
	case "POST /api/v0/ops/node/snapshots":
		s.parameters(w, r, func(map[string][]string) { s.take(w, r) })
	case "DELETE /api/v0/ops/node/snapshots":
		s.parameters(w, r, func(q map[string][]string) { s.clear(w, r, q) }, "snapshotNames", "keyspaces")
	case "POST /api/v1/ops/node/repair":
		s.parameters(w, r, func(map[string][]string) { s.repair(w, r) })
	case "POST /api/v1/ops/tables/flush":
		s.parameters(w, r, func(map[string][]string) { s.flush(w, r) })
	case "GET /api/v0/ops/executor/job":
		s.parameters(w, r, func(q map[string][]string) { s.job(w, q) }, "job_id")
	default:
		text(w, http.StatusNotFound, "RESTEASY003210: Could not find resource for full path: "+r.URL.String())
	}
}

func text(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "text/plain")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body) // a client that has gone sees nothing
}

// entity answers as the original does: the list within the wrapping of its REST library.
func entity(w http.ResponseWriter, list any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"entity": list, "variant": map[string]any{"language": nil, "mediaType": map[string]any{"type": "application", "subtype": "json"}, "encoding": nil},
		"annotations": []any{}, "language": nil, "encoding": nil,
	}) // a client that has gone sees nothing
}

func (*Server) parameters(w http.ResponseWriter, r *http.Request, serve func(map[string][]string), known ...string) {
	for name := range r.URL.Query() {
		if !slices.Contains(known, name) {
			text(w, http.StatusBadRequest, "unknown parameter "+name)
			return
		}
	}
	serve(r.URL.Query())
}

// body reads a JSON object without unknown fields.
func body(w http.ResponseWriter, r *http.Request, into any) bool {
	if r.Header.Get("Content-Type") != "application/json" {
		text(w, http.StatusUnsupportedMediaType, "RESTEASY003065: Cannot consume content type")
		return false
	}
	decoder := json.NewDecoder(io.LimitReader(r.Body, 1<<20))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		text(w, http.StatusBadRequest, err.Error())
		return false
	}
	return true
}

func (s *Server) endpoints(w http.ResponseWriter) {
	all := make([]map[string]string, len(s.options.Cluster))
	for i, n := range s.options.Cluster {
		all[i] = map[string]string{
			"HOST_ID": n.HostID, "DC": n.Datacenter, "RACK": n.Rack, "TOKENS": strings.Join(n.Tokens, ","), "RELEASE_VERSION": n.Version,
			"ENDPOINT_IP": n.Address, "RPC_ADDRESS": n.Address, "NATIVE_ADDRESS_AND_PORT": net.JoinHostPort(n.Address, "9042"),
			"IS_ALIVE": "true", "SCHEMA": "2207c2a9-f598-3971-986b-2926e09e239d", "STATUS": "NORMAL", "PARTITIONER": "org.apache.cassandra.dht.Murmur3Partitioner",
		}
		if !s.options.OldRelease {
			all[i]["IS_LOCAL"] = strconv.FormatBool(n.HostID == s.options.Node.HostID)
		}
	}
	entity(w, all)
}

// operate calls the operator. What it refuses is answered as by the original, without a reason.
func (s *Server) operate(ctx context.Context, w http.ResponseWriter, method string, f func(context.Context) error) bool {
	s.work.Lock()
	defer s.work.Unlock()
	if err := f(ctx); err != nil {
		text(w, http.StatusInternalServerError, "Failed to execute method NodeOps."+method)
		return false
	}
	return true
}

func (s *Server) list(w http.ResponseWriter, r *http.Request, query map[string][]string) {
	rows := []map[string]string{}
	s.work.Lock()
	found, err := s.options.Backing.Snapshots(r.Context())
	s.work.Unlock()
	if err != nil {
		text(w, http.StatusInternalServerError, "Failed to execute method NodeOps.getSnapshotDetails")
		return
	}
	wanted := func(parameter, value string) bool {
		return len(query[parameter]) == 0 || slices.Contains(query[parameter], value)
	}
	for _, f := range found {
		if wanted("snapshotNames", f.Tag) && wanted("keyspaces", f.Keyspace) {
			rows = append(rows, map[string]string{
				"Snapshot name": f.Tag, "Keyspace name": f.Keyspace, "Column family name": f.Table, "True size": size(f.TrueSize), "Size on disk": size(f.Size),
				"Creation time": "2026-01-01T00:00:00.000Z", "Expiration time": "null", "Ephemeral": "false",
			})
		}
	}
	entity(w, rows)
}

func size(bytes int64) string {
	if bytes >= 1<<10 {
		return strconv.FormatFloat(float64(bytes)/(1<<10), 'f', 2, 64) + " KiB"
	}
	return fmt.Sprintf("%d bytes", bytes)
}

func (s *Server) take(w http.ResponseWriter, r *http.Request) {
	var request struct {
		Name      string   `json:"snapshot_name"`
		Keyspaces []string `json:"keyspaces"`
		Table     *string  `json:"table_name"`
		Tables    []string `json:"keyspace_tables"`
		SkipFlush *bool    `json:"skip_flush"`
	}
	if !body(w, r, &request) {
		return
	}
	what := request.Keyspaces
	switch {
	case len(request.Keyspaces) > 0 && len(request.Tables) > 0:
		text(w, http.StatusBadRequest, "When specifying keyspace_tables, specifying keyspaces is not allowed")
		return
	case request.Table != nil && len(request.Keyspaces) != 1:
		text(w, http.StatusBadRequest, "Exactly 1 keyspace must be specified when specifying table_name")
		return
	case request.SkipFlush != nil && *request.SkipFlush:
		text(w, http.StatusBadRequest, "the double always flushes")
		return
	case request.Table != nil:
		what = []string{request.Keyspaces[0] + "." + *request.Table}
	case len(request.Tables) > 0:
		what = request.Tables
	}
	if len(what) == 0 || request.Name == "" {
		text(w, http.StatusBadRequest, "the double takes no snapshot of everything, and none without a name")
		return
	}
	if s.operate(r.Context(), w, "takeSnapshot", func(ctx context.Context) error { return s.options.Backing.TakeSnapshot(ctx, request.Name, what) }) {
		text(w, http.StatusOK, "OK")
	}
}

func (s *Server) clear(w http.ResponseWriter, r *http.Request, query map[string][]string) {
	tags := query["snapshotNames"]
	if len(tags) == 0 || slices.Contains(tags, "") {
		text(w, http.StatusBadRequest, "the double does not clear all snapshots")
		return
	}
	for _, tag := range tags {
		work := func(ctx context.Context) error { return s.options.Backing.ClearSnapshot(ctx, tag, query["keyspaces"]) }
		if !s.operate(r.Context(), w, "clearSnapshots", work) {
			return
		}
	}
	text(w, http.StatusOK, "OK")
}

func (s *Server) repair(w http.ResponseWriter, r *http.Request) {
	var request struct {
		Keyspace string   `json:"keyspace_name"`
		Tables   []string `json:"tables"`
		Full     bool     `json:"full"`
	}
	if !body(w, r, &request) {
		return
	}
	if request.Keyspace == "" {
		text(w, http.StatusBadRequest, "keyspaceName must be specified")
		return
	}
	s.begin(w, "repair")
}

// flush flushes where what is behind it can, before it answers.
func (s *Server) flush(w http.ResponseWriter, r *http.Request) {
	var request struct {
		Jobs     int      `json:"jobs"`
		Keyspace string   `json:"keyspace_name"`
		Tables   []string `json:"tables"`
	}
	if !body(w, r, &request) {
		return
	}
	if request.Keyspace == "" || len(request.Tables) > 0 {
		text(w, http.StatusBadRequest, "keyspaceName must be specified, and this double flushes whole keyspaces")
		return
	}
	s.work.Lock()
	defer s.work.Unlock()
	if f, ok := s.options.Backing.(node.Flusher); ok {
		if err := f.Flush(r.Context(), request.Keyspace); err != nil {
			text(w, http.StatusInternalServerError, "Failed to execute method NodeOps.forceKeyspaceFlush")
			return
		}
	}
	s.begin(w, "flush")
}

// begin answers with a new job.
func (s *Server) begin(w http.ResponseWriter, what string) {
	s.mu.Lock()
	id := what + "-" + strconv.Itoa(len(s.jobs)+1)
	s.jobs[id] = 0
	s.mu.Unlock()
	text(w, http.StatusAccepted, id)
}

// job waits when it is asked for first, and has ended then.
func (s *Server) job(w http.ResponseWriter, query map[string][]string) {
	if len(query["job_id"]) != 1 {
		text(w, http.StatusBadRequest, "job_id must be specified")
		return
	}
	id := query["job_id"][0]
	s.mu.Lock()
	asked, known := s.jobs[id]
	if known {
		s.jobs[id]++
	}
	s.mu.Unlock()
	job := map[string]any{"id": id, "type": strings.Split(id, "-")[0], "status": "WAITING", "submit_time": 1, "end_time": 0, "error": nil, "status_changes": []any{}}
	w.Header().Set("Content-Type", "application/json")
	switch {
	case !known:
		w.WriteHeader(http.StatusNotFound)
	case asked > 0:
		job["status"] = "COMPLETED"
		if s.options.RepairFails != "" && strings.HasPrefix(id, "repair") {
			job["error"] = s.options.RepairFails
		}
	}
	_ = json.NewEncoder(w).Encode(job) // a client that has gone sees nothing
}
