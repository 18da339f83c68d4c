package cassandra

import (
	"context"
	"errors"
	"time"

	gocql "github.com/apache/cassandra-gocql-driver/v2"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/reading"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
)

// readTimeout is how long one page may take.
const readTimeout = time.Minute

// newReader opens what verification reads, over a session that knows the whole cluster.
func newReader(ctx context.Context, s Settings, what reading.Settings) (verify.Storage, error) {
	var hosts []string
	var errs []error
	for _, point := range s.ContactPoints {
		addresses, err := s.connector().resolve(ctx, point)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		hosts = append(hosts, addresses...)
	}
	if len(hosts) == 0 {
		return nil, errors.Join(append(errs, errors.New("no contact point has an address"))...)
	}
	c, err := s.driverConfig(hosts...)
	if err != nil {
		return nil, err
	}
	c.Timeout = readTimeout
	c.Metadata.CacheMode = gocql.KeyspaceOnly // tokens and replication, for the choice of nodes
	fallback := gocql.RoundRobinHostPolicy()
	if s.Datacenter != "" {
		fallback = gocql.DCAwareRoundRobinPolicy(s.Datacenter)
	}
	c.PoolConfig.HostSelectionPolicy = gocql.TokenAwareHostPolicy(fallback)
	session, err := gocql.NewSession(*c)
	if err != nil {
		return nil, driver{s}.explain(err)
	}
	return reading.New(ctx, reading.Over(session), what, s.Clock, s.Report)
}
