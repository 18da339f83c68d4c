package cassy_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/clock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/cassy"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/cassy/cassytest"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/move"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node/nodetest"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/snapshot"
)

// hasty waits a moment where it is asked to wait for seconds.
type hasty struct{ clock.System }

func (h hasty) Sleep(ctx context.Context, _ time.Duration) error {
	return h.System.Sleep(ctx, time.Millisecond)
}

func (h hasty) WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, d)
}

// picky is a node of memory that fails when it is told to.
type picky struct {
	*nodetest.Memory
	mu     sync.Mutex
	broken bool
}

func (p *picky) TakeSnapshot(ctx context.Context, tag string, keyspaces []string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken {
		return errors.New("disk full")
	}
	return p.Memory.TakeSnapshot(ctx, tag, keyspaces)
}

func (p *picky) tags(t *testing.T) (found []string) {
	t.Helper()
	all, err := p.Snapshots(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		found = append(found, s.Tag)
	}
	slices.Sort(found)
	return slices.Compact(found)
}

type world struct {
	nodes   []*picky
	server  *cassytest.Server
	mover   cassy.Mover
	job     move.Job
	reports []string
	mu      sync.Mutex
}

func newWorld(t *testing.T) *world {
	w := &world{}
	c := cassytest.Cluster{ID: "prod-1234", Name: "prod", Keyspaces: []string{"coordinator", "shop", "other"}, Nodes: map[string]node.Operator{}}
	w.job = move.Job{Run: engine.Run{Report: w.report}, Cluster: "prod", Tag: "scalardb-nightly-1", Keyspaces: []string{"coordinator", "shop"}}
	for i := range 3 {
		n := &picky{Memory: nodetest.NewMemory(node.Table{Keyspace: "coordinator", Name: "state"}, node.Table{Keyspace: "shop", Name: "items"}, node.Table{Keyspace: "shop", Name: "orders"},
			node.Table{Keyspace: "other", Name: "x"})}
		m := move.Node{Operator: n}
		m.HostID, m.Address = fmt.Sprint("host", i), fmt.Sprint("10.0.0.", i+1)
		w.nodes, w.job.Nodes, c.Nodes[m.Address] = append(w.nodes, n), append(w.job.Nodes, m), n
	}
	w.server = cassytest.Start(t, c, cassytest.Cluster{ID: "test-1", Name: "test"})
	w.mover = cassy.Mover{Settings: cassy.Settings{Clock: hasty{}, Address: w.server.Address}}
	return w
}

func (w *world) report(message string, fields map[string]any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reports = append(w.reports, fmt.Sprint(message, fields))
}

func (w *world) place() move.Place {
	return move.Place{Report: w.report, Nodes: func(context.Context) ([]move.Node, error) { return w.job.Nodes, nil }}
}

func (w *world) preflight(t *testing.T) move.Session {
	t.Helper()
	s, err := w.mover.Preflight(t.Context(), w.job)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func take(ctx context.Context, s move.Session) (string, error) {
	return s.(move.Snapshotter).TakeSnapshots(ctx)
}

func has(t *testing.T, what string, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%s: %v, want an error with %q", what, err, want)
	}
}

// The window lasts as long as the snapshots: the uploads end afterwards.
func TestBackup(t *testing.T) {
	w := newWorld(t)
	release := make(chan struct{})
	w.server.Upload = func(string, string) error { <-release; return nil }
	s := w.preflight(t)
	tag, err := take(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range w.nodes {
		if got := n.tags(t); !slices.Equal(got, []string{tag}) {
			t.Errorf("node %d has %v", i, got)
		}
	}
	go close(release)
	got, err := s.Move(t.Context(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0].Kind != snapshot.KindCassy || got[0].ID != tag || got[0].Extra["cluster_id"] != "prod-1234" {
		t.Errorf("artifacts %+v", got)
	}
	if err := w.mover.Inspect(t.Context(), w.place(), got[0]); err != nil {
		t.Errorf("inspect: %v", err)
	}
	gone := got[0]
	gone.ID = "no-such"
	if err := w.mover.Inspect(t.Context(), w.place(), gone); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("inspecting an unknown one: %v", err)
	}
	if err := w.mover.Delete(t.Context(), w.place(), got[0]); err != nil || !strings.Contains(strings.Join(w.reports, "\n"), "stays in Cassy's storage") {
		t.Errorf("delete: %v, %q", err, w.reports)
	}
	if err := w.mover.Restore(t.Context(), w.place(), got[0]); err != nil {
		t.Errorf("restore: %v", err)
	}
	// A second one counts its own statuses, not the first one's.
	w.server.Idle()
	w.server.Placed = func(ip, _ string) error {
		if ip == "10.0.0.2" {
			return errors.New("no room")
		}
		return nil
	}
	has(t, "a restore that fails on one node", w.mover.Restore(t.Context(), w.place(), got[0]), "failed for 10.0.0.2")
}

// Cassy answers STARTED when a node has no snapshot.
func TestSnapshotThatFailed(t *testing.T) {
	w := newWorld(t)
	s := w.preflight(t)
	w.nodes[1].broken = true
	tag, err := take(t.Context(), s)
	has(t, "take", err, "node 10.0.0.2: it has no snapshot of keyspace coordinator")
	if tag == "" {
		t.Error("the tag is unknown: the driver cannot clear the other nodes")
	}
}

func TestNodesThatDiffer(t *testing.T) {
	w := newWorld(t)
	w.nodes[2].Memory = nodetest.NewMemory(node.Table{Keyspace: "coordinator", Name: "state"}, node.Table{Keyspace: "shop", Name: "items"}, node.Table{Keyspace: "other", Name: "x"})
	_, err := take(t.Context(), w.preflight(t))
	has(t, "take", err, "node 10.0.0.3 has a snapshot of 2 tables")
}

func TestUploadThatFailed(t *testing.T) {
	w := newWorld(t)
	w.server.Upload = func(ip, _ string) error {
		if ip == "10.0.0.3" {
			return errors.New("access denied")
		}
		return nil
	}
	s := w.preflight(t)
	if _, err := take(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	_, err := s.Move(t.Context(), nil, nil)
	has(t, "move", err, "failed for 10.0.0.3")
}

// Somebody's other backup removes the snapshot before it is uploaded: COMPLETED is not believed.
func TestSnapshotThatIsGoneAfterTheUpload(t *testing.T) {
	w := newWorld(t)
	w.server.Upload = func(ip, id string) error {
		if ip != "10.0.0.2" {
			return nil
		}
		return w.nodes[1].ClearSnapshot(context.Background(), id, []string{"shop"})
	}
	s := w.preflight(t)
	// The upload may be over before the nodes are asked: then the window finds it.
	_, err := take(t.Context(), s)
	if err == nil {
		_, err = s.Move(t.Context(), nil, nil)
	}
	has(t, "move", err, "node 10.0.0.2: it has no snapshot of keyspace shop")
}

func TestServerThatIsAwayForAMoment(t *testing.T) {
	w := newWorld(t)
	s := w.preflight(t)
	if _, err := take(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	calls := 0
	w.server.Reject = func(string) error {
		mu.Lock()
		defer mu.Unlock()
		if calls++; calls <= 3 {
			return status.Error(codes.Unavailable, "starting")
		}
		return nil
	}
	if _, err := s.Move(t.Context(), nil, nil); err != nil {
		t.Error(err)
	}
	w.server.Reject = func(string) error { return status.Error(codes.Unavailable, "gone") }
	_, err := s.Move(t.Context(), nil, nil)
	has(t, "a server that stays away", err, "gone")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	release := make(chan struct{})
	defer close(release)
	w.server.Reject = func(string) error { <-release; return nil }
	_, err = s.Move(ctx, nil, nil)
	has(t, "a server that hangs", err, "eadline") // by the call, or before it
}

// The snapshot of a TakeBackup whose answer was lost is found and cleared, by the session or by a later process.
func TestAnswerThatWasLost(t *testing.T) {
	w := newWorld(t)
	if _, err := take(t.Context(), w.preflight(t)); err != nil { // an older backup
		t.Fatal(err)
	}
	w.mover.Settings.ClearOtherSnapshots = true
	release := make(chan struct{})
	w.server.Idle()
	w.server.Upload = func(string, string) error { <-release; return nil }
	w.server.Answer = func() error { return status.Error(codes.Unavailable, "connection reset") }
	s := w.preflightWhenIdle(t)
	tag, err := take(t.Context(), s)
	has(t, "take", err, "connection reset")
	if tag != "" {
		t.Errorf("tag %q", tag)
	}
	has(t, "discard while it runs", s.Discard(t.Context()), "still running")
	planned := s.Planned()[0]
	close(release)
	for range 1000 {
		if err = w.mover.Delete(t.Context(), w.place(), planned); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range w.nodes {
		if left := n.tags(t); len(left) > 0 {
			t.Errorf("node %d still has %v", i, left)
		}
	}
	if err := s.Discard(t.Context()); err != nil {
		t.Error(err)
	}
	if err := w.mover.Inspect(t.Context(), w.place(), planned); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("inspecting a planned one: %v", err)
	}
}

func (w *world) preflightWhenIdle(t *testing.T) move.Session {
	t.Helper()
	for range 1000 {
		s, err := w.mover.Preflight(t.Context(), w.job)
		if err == nil {
			t.Cleanup(func() { _ = s.Close() })
			return s
		}
		if !strings.Contains(err.Error(), "still running") {
			t.Fatal(err)
		}
	}
	t.Fatal("a backup does not end")
	return nil
}

func TestPreflightRefuses(t *testing.T) {
	refused := func(want string, spoil func(*world)) {
		t.Helper()
		w := newWorld(t)
		spoil(w)
		s, err := w.mover.Preflight(t.Context(), w.job)
		has(t, "preflight", err, want)
		if s != nil {
			t.Error("a session, with an error")
		}
	}
	refused("no cluster of the name", func(w *world) { w.job.Cluster = "elsewhere" })
	refused("no cluster of cluster_id", func(w *world) { w.mover.Settings.ClusterID = "nope" })
	refused(`is the cluster "test", and this one is "prod"`, func(w *world) { w.mover.Settings.ClusterID = "test-1" })
	refused("register it again", func(w *world) { w.job.Nodes = w.job.Nodes[:2] })
	refused("without keyspace new", func(w *world) { w.job.Keyspaces = append(w.job.Keyspaces, "new") })
	refused("PRECIOUS on 10.0.0.1", func(w *world) {
		if err := w.nodes[0].TakeSnapshot(t.Context(), "PRECIOUS", []string{"other"}); err != nil {
			t.Fatal(err)
		}
	})
	refused("connection refused", func(w *world) { w.mover.Settings.Address = "127.0.0.1:1" })
	refused("is registered several times: set cluster_id to one of a, b", func(w *world) {
		again := cassytest.Start(t, cassytest.Cluster{ID: "a", Name: "prod"}, cassytest.Cluster{ID: "b", Name: "prod"})
		w.mover.Settings.Address = again.Address
	})
	w := newWorld(t)
	if err := w.nodes[0].TakeSnapshot(t.Context(), "OLD", []string{"other"}); err != nil {
		t.Fatal(err)
	}
	w.mover.Settings.ClearOtherSnapshots = true
	s := w.preflight(t)
	if !strings.Contains(strings.Join(s.Facts().Warnings, "\n"), "OLD on 10.0.0.1") {
		t.Errorf("warnings %q", s.Facts().Warnings)
	}
}
