package cassy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/cassy/cassypb"
)

// Settings are what the user says of the Cassy server.
type Settings struct {
	Clock   engine.Clock
	Address string // "HOST:PORT"
	// ClusterID is the cluster's id in Cassy. When empty, Cassy is asked for the one cluster of the Cassandra cluster's name.
	ClusterID string
	// ClearOtherSnapshots says that Cassy may remove all snapshots that the nodes have of its keyspaces, as it does before it takes one.
	ClearOtherSnapshots bool
	TLS                 *tls.Config // nil: no TLS, as Cassy's own server has none
}

// Deadlines of calls.
const (
	callTimeout = 30 * time.Second
	// takeTimeout bounds TakeBackup, which answers when all nodes have taken their snapshots. Within the window, the pause's own limit ends it earlier.
	takeTimeout = 10 * time.Minute
)

// Types of backups and restores.
const (
	nodeSnapshot = 2
	nodeRestore  = 2
)

type client struct {
	clock   engine.Clock
	address string
	conn    *grpc.ClientConn
	api     cassypb.CassyClient
}

func (s Settings) dial() (*client, error) {
	creds := insecure.NewCredentials()
	if s.TLS != nil {
		creds = credentials.NewTLS(s.TLS)
	}
	// Nothing is sent twice: a second TakeBackup would remove the first one's snapshots.
	conn, err := grpc.NewClient("passthrough:///"+s.Address, grpc.WithTransportCredentials(creds), grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(),
		grpc.WithIdleTimeout(0), grpc.WithNoProxy(), grpc.WithUserAgent("terraform-provider-scalardb"))
	if err != nil {
		return nil, fmt.Errorf("connecting to Cassy at %s: %w", s.Address, err)
	}
	return &client{clock: s.Clock, address: s.Address, conn: conn, api: cassypb.NewCassyClient(conn)}, nil
}

func (c *client) close() error { return c.conn.Close() }

func (c *client) failed(what string, err error) error {
	return fmt.Errorf("%s at Cassy (%s): %w", what, c.address, err)
}

// cluster finds the cluster as it is registered.
func (c *client) cluster(ctx context.Context, id, name string) (*cassypb.ClusterListingResponse_Entry, error) {
	ctx, cancel := c.clock.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := c.api.ListClusters(ctx, &cassypb.ClusterListingRequest{ClusterId: id})
	if err != nil {
		return nil, c.failed("listing clusters", err)
	}
	var found []*cassypb.ClusterListingResponse_Entry
	var ids []string
	for _, e := range r.GetEntries() {
		if id == "" && e.GetClusterName() == name || id != "" && e.GetClusterId() == id {
			found, ids = append(found, e), append(ids, e.GetClusterId())
		}
	}
	switch {
	case len(found) == 1 && found[0].GetClusterName() != name:
		return nil, c.failed("listing clusters", fmt.Errorf("cluster_id %s is the cluster %q, and this one is %q", id, found[0].GetClusterName(), name))
	case len(found) == 1:
		return found[0], nil
	case id != "":
		return nil, c.failed("listing clusters", fmt.Errorf("there is no cluster of cluster_id %s: register it, or set the right one", id))
	case len(found) == 0:
		return nil, c.failed("listing clusters", fmt.Errorf("no cluster of the name %q is registered: register it", name))
	}
	return nil, c.failed("listing clusters", fmt.Errorf("the cluster %q is registered several times: set cluster_id to one of %s", name, strings.Join(ids, ", ")))
}

// backups are the entries of one snapshot, or of all where it is empty; of this cluster.
func (c *client) backups(ctx context.Context, cluster, snapshot string) (found []*cassypb.BackupListingResponse_Entry, err error) {
	ctx, cancel := c.clock.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := c.api.ListBackups(ctx, &cassypb.BackupListingRequest{ClusterId: cluster, SnapshotId: snapshot})
	if err != nil {
		return nil, c.failed("listing backups", err)
	}
	for _, e := range r.GetEntries() {
		if e.GetClusterId() == cluster && (snapshot == "" || e.GetSnapshotId() == snapshot) {
			found = append(found, e)
		}
	}
	return found, nil
}

// take takes a snapshot of all nodes and starts its upload.
func (c *client) take(ctx context.Context, cluster string) (*cassypb.BackupResponse, error) {
	ctx, cancel := c.clock.WithTimeout(ctx, takeTimeout)
	defer cancel()
	r, err := c.api.TakeBackup(ctx, &cassypb.BackupRequest{ClusterId: cluster, BackupType: nodeSnapshot})
	if err != nil {
		return nil, c.failed("taking a backup", err)
	}
	if r.GetSnapshotId() == "" {
		return nil, c.failed("taking a backup", errors.New("the answer has no snapshot_id"))
	}
	return r, nil
}

// progress is what entries of a backup, or of a restore, say of the nodes.
type progress struct {
	done, failed, pending []string // addresses
	missing               []string
}

type entry interface {
	GetTargetIp() string
	GetStatus() cassypb.OperationStatus
}

func progressOf[E entry](entries []E, nodes []string) progress {
	status := map[string]cassypb.OperationStatus{}
	for _, e := range entries {
		status[e.GetTargetIp()] = e.GetStatus()
	}
	var p progress
	for _, n := range nodes {
		switch s, ok := status[n]; {
		case !ok:
			p.missing = append(p.missing, n)
		case s == cassypb.OperationStatus_COMPLETED:
			p.done = append(p.done, n)
		case s == cassypb.OperationStatus_FAILED:
			p.failed = append(p.failed, n)
		default:
			p.pending = append(p.pending, n)
		}
	}
	return p
}

// bad is an error where the operation cannot succeed any more.
func (p progress) bad() error {
	switch {
	case len(p.failed) > 0:
		return fmt.Errorf("it failed for %s: see the log of Cassy's server", strings.Join(p.failed, ", "))
	case len(p.missing) > 0:
		return fmt.Errorf("it has nothing of %s", strings.Join(p.missing, ", "))
	}
	return nil
}

// How often is asked, and how many failures in a row are borne: the server may be started anew.
const (
	pollEvery   = 2 * time.Second
	maxFailures = 30
)

// poll asks until every node is done.
func (c *client) poll(ctx context.Context, ask func(context.Context) (progress, error), report func(progress)) error {
	failures, last := 0, -1
	for {
		p, err := ask(ctx)
		switch {
		case err != nil:
			if failures++; failures > maxFailures || ctx.Err() != nil {
				return err
			}
		case p.bad() != nil:
			return p.bad()
		case len(p.pending) == 0:
			return nil
		default:
			failures = 0
			if len(p.done) != last {
				last = len(p.done)
				report(p)
			}
		}
		if err := c.clock.Sleep(ctx, pollEvery); err != nil {
			return err
		}
	}
}
