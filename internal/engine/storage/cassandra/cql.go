package cassandra

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	gocql "github.com/apache/cassandra-gocql-driver/v2"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/reading"
)

// conn is a CQL connection to one node, which answers every query itself. It is made before the pause, keeps itself alive, and may be used by
// several goroutines.
type conn interface {
	// Query returns all rows. Names of columns are keys.
	Query(ctx context.Context, statement string, args ...any) ([]row, error)
	Close()
}

// connector connects to the node at one address.
type connector interface {
	connect(ctx context.Context, address string) (conn, error)
	// resolve gives the addresses of a contact point.
	resolve(ctx context.Context, contactPoint string) ([]string, error)
}

// row is one row of an answer.
type row map[string]any

// text is a column as text: UUIDs and addresses too; empty for null.
func (r row) text(column string) string {
	switch v := r[column].(type) {
	case nil:
		return ""
	case string:
		return v
	case gocql.UUID:
		if v == (gocql.UUID{}) {
			return ""
		}
		return v.String()
	case net.IP:
		if len(v) == 0 {
			return ""
		}
		return v.String()
	default:
		return fmt.Sprint(v)
	}
}

func (r row) texts(column string) []string {
	v, _ := r[column].([]string)
	return v
}

func (r row) textMap(column string) map[string]string {
	v, _ := r[column].(map[string]string)
	return v
}

func (r row) number(column string) int64 {
	switch v := r[column].(type) {
	case int:
		return int64(v)
	case int64:
		return v
	}
	return 0
}

func (r row) instant(column string) time.Time {
	v, _ := r[column].(time.Time)
	return v
}

// driverConfig is what every connection of the driver has in common; hosts are addresses.
func (s Settings) driverConfig(hosts ...string) (*gocql.ClusterConfig, error) {
	c := gocql.NewCluster(hosts...)
	c.Port = s.port()
	c.ProtoVersion = 4 // Cassandra 4.0 and 5.0 speak it; else each connection would find out anew
	patience := cmp.Or(s.patience, queryTimeout)
	c.ConnectTimeout, c.Timeout, c.WriteTimeout = connectTimeout, patience, patience
	c.Metadata.CacheMode = gocql.Disabled
	c.Events.DisableSchemaEvents, c.Events.DisableNodeStatusEvents, c.Events.DisableTopologyEvents = true, true, true
	c.SocketKeepalive = 15 * time.Second
	if s.Username != "" {
		c.Authenticator = gocql.PasswordAuthenticator{Username: s.Username, Password: s.Password}
	}
	t, err := s.tlsConfig()
	if err != nil {
		return nil, err
	}
	if t != nil {
		c.SslOpts = &gocql.SslOptions{Config: t, EnableHostVerification: true}
	}
	return c, nil
}

func (s Settings) tlsConfig() (*tls.Config, error) {
	if !s.TLS {
		return nil, nil //nolint:nilnil // no TLS is no error
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: s.TLSServerName}
	if s.CAPEM != "" {
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM([]byte(s.CAPEM)) {
			return nil, errors.New("ca_pem of the credentials has no certificate")
		}
	}
	if s.CertPEM != "" {
		pair, err := tls.X509KeyPair([]byte(s.CertPEM), []byte(s.KeyPEM))
		if err != nil {
			return nil, fmt.Errorf("cert_pem and key_pem of the credentials: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

func (s Settings) connector() connector {
	if s.connect != nil {
		return s.connect
	}
	return driver{s}
}

// driver is the connector over gocql.
type driver struct{ s Settings }

func (d driver) resolve(ctx context.Context, contactPoint string) ([]string, error) {
	if net.ParseIP(contactPoint) != nil {
		return []string{contactPoint}, nil
	}
	addresses, err := net.DefaultResolver.LookupHost(ctx, contactPoint)
	slices.Sort(addresses)
	return addresses, err
}

func (d driver) connect(ctx context.Context, address string) (conn, error) {
	c, err := d.s.driverConfig(address)
	if err != nil {
		return nil, err
	}
	// Only this node, whatever it says of others: no query may go elsewhere.
	ip := net.ParseIP(address)
	c.DisableInitialHostLookup = true
	c.HostFilter = gocql.HostFilterFunc(func(h *gocql.HostInfo) bool { return h.ConnectAddress().Equal(ip) })
	c.NumConns = 1
	// The driver takes no context, but bounds every step.
	type result struct {
		s   *gocql.Session
		err error
	}
	done := make(chan result, 1)
	go func() {
		s, err := gocql.NewSession(*c)
		done <- result{s, err}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			return nil, d.explain(r.err)
		}
		return &pinned{r.s}, nil
	case <-ctx.Done():
		go func() {
			if r := <-done; r.s != nil {
				r.s.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

// explain adds what a user can do.
func (d driver) explain(err error) error {
	text := err.Error()
	switch {
	case strings.Contains(text, "authenticat") || strings.Contains(text, "redentials") || strings.Contains(text, "username"):
		return fmt.Errorf("%w; the user and password are those of the provider's credentials for this storage", err)
	case !d.s.TLS && (strings.Contains(text, "EOF") || strings.Contains(text, "reset by peer")):
		return fmt.Errorf("%w; does the port want TLS (tls = true)?", err)
	case d.s.TLS && strings.Contains(text, "x509"):
		return fmt.Errorf("%w; ca_pem of the credentials must have the authority, and the certificate must name the address (or tls_server_name)", err)
	}
	return err
}

// pinned is a session with one node.
type pinned struct{ s *gocql.Session }

// Query reads at QUORUM, which only counts where a table of ScalarDB is read: all others are the node's own.
func (p *pinned) Query(ctx context.Context, statement string, args ...any) ([]row, error) {
	iter := p.s.Query(statement, args...).Consistency(gocql.Quorum).IterContext(ctx)
	var rows []row
	for {
		m := map[string]any{}
		if !iter.MapScan(m) {
			break
		}
		rows = append(rows, m)
	}
	if err := iter.Close(); err != nil {
		return nil, err
	}
	return rows, nil
}

func (p *pinned) Close() { p.s.Close() }

// isUnauthorized says that the user may not do it.
func isUnauthorized(err error) bool {
	return reading.HasCode(err, gocql.ErrCodeUnauthorized)
}

// isUnknownTable says that there is no such table or keyspace: an older release lacks it.
func isUnknownTable(err error) bool {
	return reading.HasCode(err, gocql.ErrCodeInvalid)
}
