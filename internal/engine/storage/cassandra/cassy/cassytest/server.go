// Package cassytest has a server that follows Cassy's gRPC API, for tests: no package of Cassy is to be had.
//
// It follows cassy.proto as Scalar published it and what the source of its server does: which requests it refuses and with what status, that TakeBackup
// removes every snapshot of the registered keyspaces before it takes new ones, that it does not notice when that fails on a node, that it answers STARTED
// always, and which of a listing's conditions count. It works on node.Operators, so on nodes of memory or on real ones.
//
// It does not show Cassy's storage (an upload is a function of the test), its SSH connections, its restore of files, its pauses (backup type 1 is refused), nor
// its incremental backups (type 3 likewise), nor the HTTP gateway.
package cassytest

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/cassy/cassypb"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
)

// Cluster is one registered cluster.
type Cluster struct {
	ID, Name  string
	Keyspaces []string
	Nodes     map[string]node.Operator // by address
}

// Server is a running Cassy. The functions may be set before it is called; they are called without locks held.
type Server struct {
	Address string // 127.0.0.1:PORT
	// Upload stands for the copying of a node's snapshot; nil: it succeeds at once.
	Upload func(ip, snapshot string) error
	// Placed stands for a node's restore; nil: it succeeds at once.
	Placed func(ip, snapshot string) error
	// Answer may replace TakeBackup's answer by an error, after the backup was begun: a connection that broke. May be nil.
	Answer func() error
	// Reject makes calls of a method fail before they do anything. May be nil.
	Reject func(method string) error

	cassypb.UnimplementedCassyServer
	mu        sync.Mutex
	clusters  []Cluster
	backups   []*cassypb.BackupListingResponse_Entry
	restores  []*cassypb.RestoreStatusListingResponse_Entry
	clusterOf map[*cassypb.RestoreStatusListingResponse_Entry]string
	now       uint64
	work      sync.WaitGroup
}

// Idle waits until the server copies nothing any more. What stands for its work may be changed then.
func (s *Server) Idle() { s.work.Wait() }

// Start starts a server on a free port, which is gone when the test ends.
func Start(t testing.TB, clusters ...Cluster) *Server {
	t.Helper()
	s := &Server{clusters: clusters, now: 1_700_000_000_000, clusterOf: map[*cassypb.RestoreStatusListingResponse_Entry]string{}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Address = l.Addr().String()
	g := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
		if s.Reject != nil {
			if err := s.Reject(info.FullMethod); err != nil {
				return nil, err
			}
		}
		return h(ctx, req)
	}))
	cassypb.RegisterCassyServer(g, s)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := g.Serve(l); err != nil {
			t.Errorf("serving Cassy's API: %v", err)
		}
	})
	t.Cleanup(func() {
		g.Stop()
		serving.Wait()
		s.work.Wait()
	})
	return s
}

// Backups are the entries of all backups.
func (s *Server) Backups() []*cassypb.BackupListingResponse_Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.backups)
}

func (s *Server) cluster(id string) (Cluster, error) {
	for _, c := range s.clusters {
		if c.ID == id {
			return c, nil
		}
	}
	return Cluster{}, status.Error(codes.NotFound, "The specified cluster cannot be found.")
}

func (c Cluster) ips() (all []string) {
	for ip := range c.Nodes {
		all = append(all, ip)
	}
	slices.Sort(all)
	return all
}

// ListClusters lists one cluster, or all; an unknown one is an empty list.
func (s *Server) ListClusters(_ context.Context, r *cassypb.ClusterListingRequest) (*cassypb.ClusterListingResponse, error) {
	out := &cassypb.ClusterListingResponse{}
	for _, c := range s.clusters {
		if r.GetClusterId() == "" || r.GetClusterId() == c.ID {
			out.Entries = append(out.Entries, &cassypb.ClusterListingResponse_Entry{ClusterId: c.ID, ClusterName: c.Name, TargetIps: c.ips(), Keyspaces: c.Keyspaces, DataDir: "/data", CreatedAt: 1, UpdatedAt: 1})
		}
	}
	return out, nil
}

// wanted is which condition of a listing counts.
func wanted(cluster, ip, snapshot string) (func(c, i, s string) bool, bool) {
	switch {
	case ip != "" && cluster != "":
		return func(c, i, _ string) bool { return c == cluster && i == ip }, true
	case snapshot != "":
		return func(_, _, s string) bool { return s == snapshot }, true
	case cluster != "":
		return func(c, _, _ string) bool { return c == cluster }, true
	}
	return nil, false
}

const notSet = "Parameters are not set properly."

// ListBackups lists the newest first.
func (s *Server) ListBackups(_ context.Context, r *cassypb.BackupListingRequest) (*cassypb.BackupListingResponse, error) {
	match, ok := wanted(r.GetClusterId(), r.GetTargetIp(), r.GetSnapshotId())
	if !ok {
		return nil, status.Error(codes.Internal, notSet)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := &cassypb.BackupListingResponse{}
	for _, e := range slices.Backward(s.backups) {
		if match(e.GetClusterId(), e.GetTargetIp(), e.GetSnapshotId()) && (r.GetLimit() == 0 || len(out.Entries) < int(r.GetLimit())) {
			out.Entries = append(out.Entries, &cassypb.BackupListingResponse_Entry{ClusterId: e.GetClusterId(), TargetIp: e.GetTargetIp(), SnapshotId: e.GetSnapshotId(),
				CreatedAt: e.GetCreatedAt(), UpdatedAt: e.GetUpdatedAt(), BackupType: e.GetBackupType(), Status: e.GetStatus()})
		}
	}
	return out, nil
}

// TakeBackup takes a snapshot of nodes and starts their uploads.
func (s *Server) TakeBackup(ctx context.Context, r *cassypb.BackupRequest) (*cassypb.BackupResponse, error) {
	switch {
	case r.GetBackupType() != 3 && r.GetSnapshotId() != "":
		return nil, status.Error(codes.InvalidArgument, "snapshot_id must be empty when taking snapshots.")
	case r.GetBackupType() == 3 && r.GetSnapshotId() == "":
		return nil, status.Error(codes.InvalidArgument, "snapshot_id must be specified when taking incremental backups.")
	case r.GetBackupType() != 2:
		return nil, status.Error(codes.Unimplemented, "this double has node snapshots only")
	}
	c, err := s.cluster(r.GetClusterId())
	if err != nil {
		return nil, err
	}
	ips := r.GetTargetIps()
	if len(ips) == 0 {
		ips = c.ips()
	}
	s.mu.Lock()
	s.now += 1000
	created, id := s.now, fmt.Sprintf("%08d-aaaa-4bbb-8ccc-000000000000", len(s.backups)+1)
	s.mu.Unlock()
	var taking sync.WaitGroup
	for _, ip := range ips {
		taking.Go(func() { take(ctx, c, ip, id) })
	}
	taking.Wait()
	for _, ip := range ips {
		e := &cassypb.BackupListingResponse_Entry{ClusterId: c.ID, TargetIp: ip, SnapshotId: id, CreatedAt: created, UpdatedAt: created, BackupType: 2, Status: cassypb.OperationStatus_STARTED}
		s.mu.Lock()
		s.backups = append(s.backups, e)
		s.mu.Unlock()
		s.work.Go(func() {
			result := s.do(s.Upload, ip, id)
			s.mu.Lock()
			defer s.mu.Unlock()
			s.now++
			e.Status, e.UpdatedAt = result, s.now
		})
	}
	if s.Answer != nil {
		if err := s.Answer(); err != nil {
			return nil, err
		}
	}
	return &cassypb.BackupResponse{Status: cassypb.OperationStatus_STARTED, ClusterId: c.ID, TargetIps: ips, SnapshotId: id, CreatedAt: created, BackupType: 2}, nil
}

// take does on one node what Cassy does, and like it drops the error.
func take(ctx context.Context, c Cluster, ip, id string) {
	n := c.Nodes[ip]
	if n == nil {
		return
	}
	all, err := n.Snapshots(ctx)
	if err != nil {
		return
	}
	for _, old := range all {
		if err := n.ClearSnapshot(ctx, old.Tag, c.Keyspaces); err != nil {
			return
		}
	}
	_ = n.TakeSnapshot(ctx, id, c.Keyspaces) //nolint:errcheck // as Cassy does
}

func (s *Server) do(f func(ip, snapshot string) error, ip, snapshot string) cassypb.OperationStatus {
	if f != nil && f(ip, snapshot) != nil {
		return cassypb.OperationStatus_FAILED
	}
	return cassypb.OperationStatus_COMPLETED
}

// RestoreBackup restores nodes.
func (s *Server) RestoreBackup(_ context.Context, r *cassypb.RestoreRequest) (*cassypb.RestoreResponse, error) {
	if r.GetRestoreType() == 1 {
		return nil, status.Error(codes.InvalidArgument, "The specified backup is not a cluster-wide backup.")
	}
	if r.GetRestoreType() != 2 {
		return nil, status.Error(codes.Unknown, "")
	}
	c, err := s.cluster(r.GetClusterId())
	if err != nil {
		return nil, err
	}
	ips := r.GetTargetIps()
	if len(ips) == 0 {
		ips = c.ips()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now += 1000
	for _, ip := range ips {
		e := &cassypb.RestoreStatusListingResponse_Entry{TargetIp: ip, SnapshotId: r.GetSnapshotId(), CreatedAt: s.now, UpdatedAt: s.now, RestoreType: 2, Status: cassypb.OperationStatus_STARTED}
		s.restores, s.clusterOf[e] = append(s.restores, e), c.ID
		s.work.Go(func() {
			result := s.do(s.Placed, ip, r.GetSnapshotId())
			s.mu.Lock()
			defer s.mu.Unlock()
			s.now++
			e.Status, e.UpdatedAt = result, s.now
		})
	}
	return &cassypb.RestoreResponse{Status: cassypb.OperationStatus_STARTED, ClusterId: c.ID, TargetIps: ips, SnapshotId: r.GetSnapshotId(), RestoreType: 2, SnapshotOnly: r.GetSnapshotOnly()}, nil
}

// ListRestoreStatuses lists the newest first.
func (s *Server) ListRestoreStatuses(_ context.Context, r *cassypb.RestoreStatusListingRequest) (*cassypb.RestoreStatusListingResponse, error) {
	match, ok := wanted(r.GetClusterId(), r.GetTargetIp(), r.GetSnapshotId())
	if !ok {
		return nil, status.Error(codes.InvalidArgument, notSet)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := &cassypb.RestoreStatusListingResponse{ClusterId: r.GetClusterId()}
	for _, e := range slices.Backward(s.restores) {
		if match(s.clusterOf[e], e.GetTargetIp(), e.GetSnapshotId()) && (r.GetLimit() == 0 || len(out.Entries) < int(r.GetLimit())) {
			out.Entries = append(out.Entries, &cassypb.RestoreStatusListingResponse_Entry{TargetIp: e.GetTargetIp(), SnapshotId: e.GetSnapshotId(),
				CreatedAt: e.GetCreatedAt(), UpdatedAt: e.GetUpdatedAt(), RestoreType: e.GetRestoreType(), Status: e.GetStatus()})
		}
	}
	return out, nil
}
