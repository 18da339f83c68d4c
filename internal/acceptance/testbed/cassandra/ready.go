package cassandra

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"strconv"
	"testing"
	"time"

	gocql "github.com/apache/cassandra-gocql-driver/v2"
)

// startLimit is generous: three nodes take 18 s on an idle machine with two processors.
const startLimit = 4 * time.Minute

// retryEvery is the time between two attempts of what is waited for.
const retryEvery = 100 * time.Millisecond

// config is that of a client which talks to the given nodes.
func (c *Cluster) config(addresses ...string) *gocql.ClusterConfig {
	cfg := gocql.NewCluster(addresses...)
	cfg.Port = cqlPort
	cfg.Timeout, cfg.ConnectTimeout = 30*time.Second, 30*time.Second
	cfg.Consistency = gocql.Quorum
	cfg.ReconnectInterval = time.Second // nodes are stopped and started
	cfg.Logger = gocql.NewLogger(gocql.LogLevelNone)
	if c.Options.Password {
		cfg.Authenticator = gocql.PasswordAuthenticator{Username: Superuser, Password: SuperuserPassword}
	}
	if c.Options.TLS {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(c.TLS.CAPEM)
		cfg.SslOpts = &gocql.SslOptions{Config: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, EnableHostVerification: true}
	}
	return cfg
}

// Session is a session with the whole cluster, as Superuser where there are passwords, with consistency QUORUM. It is closed when the test ends.
func (c *Cluster) Session(t testing.TB) *gocql.Session {
	t.Helper()
	s, err := c.config(c.ContactPoints()...).CreateSession()
	if err != nil {
		t.Fatalf("connecting to the Cassandra cluster: %v", err)
	}
	t.Cleanup(s.Close)
	return s
}

// Session is a session that asks this node only, with consistency ONE: for its own tables, such as system_views. It is closed when the test ends.
func (n *Node) Session(t testing.TB) *gocql.Session {
	t.Helper()
	s, err := n.session()
	if err != nil {
		t.Fatalf("connecting to node %s: %v", n.Address, err)
	}
	t.Cleanup(s.Close)
	return s
}

func (n *Node) session() (*gocql.Session, error) {
	cfg := n.cluster.config(n.Address)
	cfg.Consistency = gocql.One
	cfg.NumConns = 1
	cfg.DisableInitialHostLookup = true
	cfg.HostFilter = gocql.WhiteListHostFilter(n.Address)
	return cfg.CreateSession()
}

// answers waits until it answers over CQL.
func (n *Node) answers(deadline time.Time) error {
	// Without a driver first, which is a lot of work to be told that nobody listens.
	address := net.JoinHostPort(n.Address, strconv.Itoa(n.CQLPort))
	err := n.retry(deadline, func() error {
		ctx, cancel := context.WithDeadline(context.Background(), deadline)
		defer cancel()
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	if err != nil {
		return err
	}
	return n.retry(deadline, func() error {
		s, err := n.session()
		if err != nil {
			return err
		}
		defer s.Close()
		return s.Query("SELECT release_version FROM system.local").Exec()
	})
}

// waitUp waits until each of the nodes answers and sees all the others.
func waitUp(nodes []*Node) error {
	deadline := time.Now().Add(startLimit)
	// A read from all replicas: a coordinator that holds one for down refuses it at once. These keyspaces have as many replicas.
	table := "system_distributed.view_build_status"
	switch len(nodes) {
	case 1:
		return nodes[0].answers(deadline)
	case 2:
		table = "system_traces.events"
	}
	return each(nodes, func(n *Node) error {
		if err := n.answers(deadline); err != nil {
			return err
		}
		return n.retry(deadline, func() error {
			s, err := n.session() // a new one each time: one whose connection was lost on a busy machine stays useless for long
			if err != nil {
				return err
			}
			defer s.Close()
			peers := s.Query("SELECT peer FROM system.peers").Iter().NumRows()
			if peers < len(nodes)-1 {
				return fmt.Errorf("it knows %d other nodes, there are %d", peers, len(nodes)-1)
			}
			return s.Query("SELECT * FROM " + table + " LIMIT 1").Consistency(gocql.All).Exec()
		})
	})
}

// retry calls f until it succeeds, or the node ends.
func (n *Node) retry(deadline time.Time, f func() error) error {
	for {
		err := f()
		if err == nil {
			return nil
		}
		if !n.Running() {
			return fmt.Errorf("node %s has ended; the end of its log:\n%s", n.Address, n.LogTail(40))
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("node %s is not up after %s: %w; the end of its log:\n%s", n.Address, startLimit, err, n.LogTail(40))
		}
		<-time.After(retryEvery)
	}
}
