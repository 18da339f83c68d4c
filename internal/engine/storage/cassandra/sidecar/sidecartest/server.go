// Package sidecartest is a double of Apache Cassandra Sidecar for one node, for which no package is to be had.
//
// It follows the Sidecar's source (handlers of snapshots, settings, gossip, health; JsonErrorHandler; default configuration) and was compared with none that
// runs. Behind it is a Backing: Over makes one of any node.Operator, nodetest.Memory or one of a real Cassandra.
//
// Like the original it takes snapshots of single tables, clears a whole keyspace, finds the Cassandra by the request's host, looks at the rights before
// anything else, and keeps lists of files, also empty ones, though snapshots are taken and cleared in between. It is stricter in that it refuses unknown paths
// and parameters. It does not show two Cassandras behind one Sidecar, uploads, restore jobs, the files of secondary indexes, the expiry of a list (two
// hours), or how long Cassandra takes.
package sidecartest

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
)

// Backing does the work.
type Backing interface {
	// TakeTable returns node.ErrSnapshotExists, wrapped, when the table has that tag.
	TakeTable(ctx context.Context, tag string, table node.Table) error
	// Files lists a table's snapshot; none when there is none.
	Files(ctx context.Context, tag string, table node.Table) ([]File, error)
	Clear(ctx context.Context, tag, keyspace string) error
}

// File is one of a snapshot's.
type File struct {
	Name string
	Size int64
}

// Over makes a Backing of an Operator that takes KEYSPACE.TABLE for a keyspace, as Cassandra's own interface does; one call at a time. The files are made up:
// one SSTable of the snapshot's size, unless it is that of an empty table.
func Over(o node.Operator) Backing { return &over{operator: o} }

type over struct {
	mu       sync.Mutex
	operator node.Operator
}

func (b *over) TakeTable(ctx context.Context, tag string, table node.Table) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.operator.TakeSnapshot(ctx, tag, []string{table.String()})
}

func (b *over) Files(ctx context.Context, tag string, table node.Table) ([]File, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	all, err := node.SnapshotsOf(ctx, b.operator, tag)
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		if s.Keyspace == table.Keyspace && s.Table == table.Name {
			files := []File{{"manifest.json", 110}, {"schema.cql", 900}}
			if s.Size > 110 {
				files = append(files, File{"nb-1-big-Data.db", s.Size}, File{"nb-1-big-TOC.txt", 92})
			}
			return files, nil
		}
	}
	return nil, nil
}

func (b *over) Clear(ctx context.Context, tag, keyspace string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.operator.ClearSnapshot(ctx, tag, []string{keyspace})
}

// Rights that can be taken away.
const (
	RightCreate = "SNAPSHOT:CREATE"
	RightRead   = "SNAPSHOT:READ"
	RightDelete = "SNAPSHOT:DELETE"
	RightStream = "SNAPSHOT:STREAM"
	RightGossip = "GOSSIP:READ"
)

// Options of a server.
type Options struct {
	Node    node.Node   // whose it is
	Cluster []node.Node // all nodes, Node among them; only Node when empty
	Backing Backing
	Listen  string // an address to listen on, "127.0.0.1:0" when empty
	// Host is the one that it finds its Cassandra by; the address that it listens on when empty.
	Host string
	// Without are rights that the caller has not; Tables limits that to some tables where it is not nil.
	Without []string
	Tables  []node.Table
	// OldRelease tells no tokens.
	OldRelease bool
	// NoCache keeps no lists.
	NoCache bool
	// Joining refuses snapshots, as a Cassandra does that is not part of the ring yet.
	Joining bool
}

// Server is a running double.
type Server struct {
	URL string

	options   Options
	mu        sync.Mutex
	lists     map[string][]File
	served    map[string]int
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
		t.Fatalf("starting a double of the Sidecar: %v", err)
	}
	if o.Host == "" {
		o.Host, _, _ = net.SplitHostPort(l.Addr().String()) // a listener's address has both
	}
	s := New(o)
	s.URL = "http://" + l.Addr().String()
	server := &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(l) }() // ends with Close
	t.Cleanup(func() { _ = server.Close() })
	return s
}

// New makes a double that is to be served by the caller.
func New(o Options) *Server {
	if len(o.Cluster) == 0 {
		o.Cluster = []node.Node{o.Node}
	}
	return &Server{options: o, lists: map[string][]File{}, served: map[string]int{}}
}

// Intercept sees every request from now on; it returns whether it answered it. Nil ends that.
func (s *Server) Intercept(f func(http.ResponseWriter, *http.Request) bool) {
	if f == nil {
		s.intercept.Store(nil)
		return
	}
	s.intercept.Store(&f)
}

// Served is how many requests of a method came for snapshots.
func (s *Server) Served(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.served[method]
}

func refuse(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// A client that has gone sees nothing.
	_ = json.NewEncoder(w).Encode(map[string]any{"status": http.StatusText(status), "code": status, "message": message})
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // a client that has gone sees nothing
}

// route is the path of a table's snapshot, as it was sent: a name may have an escaped slash.
var route = regexp.MustCompile(`^/api/v1/keyspaces/([^/]+)/tables/([^/]+)/snapshots/([^/]+)(?:/components/([^/]+))?$`)

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f := s.intercept.Load(); f != nil && (*f)(w, r) {
		return
	}
	if r.URL.Path == "/api/v1/__health" {
		answer(w, map[string]string{"status": "OK"})
		return
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	known := host == s.options.Host
	if match := route.FindStringSubmatch(r.URL.EscapedPath()); match != nil {
		s.snapshot(w, r, match, known)
		return
	}
	switch {
	case r.Method != http.MethodGet || len(r.URL.Query()) > 0:
		refuse(w, http.StatusNotFound, "no such route")
	case !known:
		refuse(w, http.StatusMisdirectedRequest, "No instance found for host "+host)
	case r.URL.Path == "/api/v1/cassandra/settings":
		s.settings(w)
	case r.URL.Path == "/api/v1/cassandra/gossip":
		if slices.Contains(s.options.Without, RightGossip) {
			refuse(w, http.StatusForbidden, "Not Authorized")
			return
		}
		s.gossip(w)
	default:
		refuse(w, http.StatusNotFound, "no such route")
	}
}

func (s *Server) settings(w http.ResponseWriter) {
	n := s.options.Node
	settings := map[string]any{
		"releaseVersion": n.Version, "partitioner": "org.apache.cassandra.dht.Murmur3Partitioner", "datacenter": n.Datacenter,
		"rpcAddress": n.Address, "rpcPort": 9042, "sidecar": map[string]string{"version": "0.3.0"},
	}
	if !s.options.OldRelease {
		settings["tokens"] = n.Tokens
	}
	answer(w, settings)
}

func (s *Server) gossip(w http.ResponseWriter) {
	states := map[string]map[string]string{}
	for _, n := range s.options.Cluster {
		states["/"+net.JoinHostPort(n.Address, "7000")] = map[string]string{
			"hostId": n.HostID, "dc": n.Datacenter, "rack": n.Rack, "releaseVersion": n.Version, "nativeAddressAndPort": net.JoinHostPort(n.Address, "9042"),
			"rpcReady": "true", "generation": "1", "heartbeat": "1",
		}
	}
	answer(w, states)
}

var (
	plainName  = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_]{0,47}$`)
	quotedName = regexp.MustCompile(`^"([a-zA-Z_0-9]{1,48})"$`)
	tableID    = regexp.MustCompile(`-[0-9a-f]{32}$`)
	component  = regexp.MustCompile(`^[a-zA-Z0-9_-]+(\.db|TOC\.txt)$`)
)

// unquote reads a keyspace's or table's name of a path.
func unquote(text string) (string, bool) {
	if match := quotedName.FindStringSubmatch(text); match != nil {
		return match[1], true
	}
	return text, plainName.MatchString(text)
}

func (s *Server) snapshot(w http.ResponseWriter, r *http.Request, match []string, host bool) {
	s.mu.Lock()
	s.served[r.Method]++
	s.mu.Unlock()
	var parts []string
	for _, raw := range match[1:] {
		part, err := url.PathUnescape(raw)
		if err != nil {
			refuse(w, http.StatusBadRequest, "malformed path")
			return
		}
		parts = append(parts, part)
	}
	file := parts[3]
	if file != "" {
		parts[1] = tableID.ReplaceAllString(parts[1], "")
	}
	keyspace, goodKeyspace := unquote(parts[0])
	name, goodTable := unquote(parts[1])
	table := node.Table{Keyspace: keyspace, Name: name}
	right := map[string]string{http.MethodPut: RightCreate, http.MethodGet: RightRead, http.MethodDelete: RightDelete}[r.Method]
	if file != "" {
		right = RightStream
	}
	limited := s.options.Tables == nil || slices.Contains(s.options.Tables, table)
	for parameter := range r.URL.Query() {
		if parameter != "includeSecondaryIndexFiles" && parameter != "dataDirectoryIndex" {
			refuse(w, http.StatusBadRequest, "unknown parameter "+parameter)
			return
		}
	}
	tag := parts[2]
	switch {
	case slices.Contains(s.options.Without, right) && limited:
		refuse(w, http.StatusForbidden, "Not Authorized")
	case !host:
		refuse(w, http.StatusMisdirectedRequest, "No instance found for host "+r.Host)
	case !goodKeyspace || !goodTable:
		refuse(w, http.StatusBadRequest, "Invalid characters in keyspace or table name")
	case keyspace == "system" || strings.HasPrefix(keyspace, "system_"):
		refuse(w, http.StatusForbidden, "Forbidden keyspace: "+keyspace)
	case strings.ContainsAny(tag, "/\x00") || tag == "." || tag == "..":
		refuse(w, http.StatusBadRequest, "Invalid characters in snapshot name: "+tag)
	case r.Method == http.MethodPut && file == "":
		s.take(w, r, tag, table)
	case r.Method == http.MethodDelete && file == "":
		if err := s.options.Backing.Clear(r.Context(), tag, keyspace); err != nil {
			refuse(w, http.StatusInternalServerError, "Internal Server Error")
		}
	case r.Method == http.MethodGet && file == "":
		s.list(w, r, tag, table)
	case r.Method == http.MethodGet:
		s.stream(w, r, tag, table, file)
	default:
		refuse(w, http.StatusMethodNotAllowed, "Method Not Allowed")
	}
}

func (s *Server) take(w http.ResponseWriter, r *http.Request, tag string, table node.Table) {
	if s.options.Joining {
		refuse(w, http.StatusServiceUnavailable, "The Cassandra instance "+s.options.Host+" is not available")
		return
	}
	err := s.options.Backing.TakeTable(r.Context(), tag, table)
	switch {
	case errors.Is(err, node.ErrSnapshotExists):
		refuse(w, http.StatusConflict, "Snapshot "+tag+" already exists.")
	case err != nil && strings.Contains(err.Error(), "nknown keyspace/cf pair"), err != nil && strings.Contains(err.Error(), "does not exist"):
		refuse(w, http.StatusNotFound, err.Error())
	case err != nil:
		refuse(w, http.StatusBadRequest, "Invalid request for SnapshotRequest{}")
	default:
		answer(w, map[string]string{"result": "Success"})
	}
}

// files are what was listed first for a request of that form.
func (s *Server) files(ctx context.Context, key, tag string, table node.Table) ([]File, error) {
	s.mu.Lock()
	kept, ok := s.lists[key]
	s.mu.Unlock()
	if ok && !s.options.NoCache {
		return kept, nil
	}
	files, err := s.options.Backing.Files(ctx, tag, table)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lists[key] = files
	return files, nil
}

func (s *Server) list(w http.ResponseWriter, r *http.Request, tag string, table node.Table) {
	files, err := s.files(r.Context(), r.URL.RequestURI(), tag, table)
	switch {
	case err != nil:
		refuse(w, http.StatusInternalServerError, "Internal Server Error")
		return
	case len(files) == 0:
		refuse(w, http.StatusNotFound, "Snapshot '"+tag+"' not found")
		return
	}
	infos := make([]map[string]any, len(files))
	for i, f := range files {
		infos[i] = map[string]any{
			"size": f.Size, "host": s.options.Host, "port": 9043, "dataDirIndex": 0, "snapshotName": tag, "keySpaceName": table.Keyspace,
			"tableName": table.Name + "-" + strings.Repeat("0", 32), "fileName": f.Name,
		}
	}
	answer(w, map[string]any{"snapshotFilesInfo": infos})
}

func (s *Server) stream(w http.ResponseWriter, r *http.Request, tag string, table node.Table, name string) {
	if !component.MatchString(name) {
		refuse(w, http.StatusBadRequest, "Invalid component name: "+name)
		return
	}
	files, err := s.options.Backing.Files(r.Context(), tag, table)
	if err != nil {
		refuse(w, http.StatusInternalServerError, "Internal Server Error")
		return
	}
	i := slices.IndexFunc(files, func(f File) bool { return f.Name == name })
	if i < 0 {
		refuse(w, http.StatusNotFound, "not found")
		return
	}
	if index, err := strconv.Atoi(r.URL.Query().Get("dataDirectoryIndex")); err != nil || index != 0 {
		refuse(w, http.StatusBadRequest, "Invalid data directory index")
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = io.WriteString(w, strings.Repeat("x", int(min(files[i].Size, 1<<10)))) // a client that has gone sees nothing
}
