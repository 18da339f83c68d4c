// Package postgresql backs up ScalarDB's tables in a PostgreSQL database by pg_dump, and restores them by pg_restore.
//
// # How the capture is fixed
//
// In the window one session locks every table of ScalarDB's namespaces in ACCESS SHARE mode and exports its snapshot; jobs+1 more
// sessions lock the same tables and adopt that snapshot. From here on no write can change what they see, and no TRUNCATE, DROP or ALTER
// can run before they end. That takes a few round trips, whatever the size of the data. The pause ends, and pg_dump runs on these very
// sessions (relay.go says why, and how).
//
// # Limits
//
//   - One database, its primary, reached directly: a standby cannot export a snapshot, a transaction pooler keeps no session.
//   - What is dumped are the schemas of ScalarDB's namespaces, with everything in them. Roles, privileges, owners, extensions, large
//     objects and other schemas are not: a restore must not carry the privileges of one environment into another.
//   - While the dump runs, DDL on these tables waits, and what comes after that DDL waits behind it, as with every pg_dump.
//   - Raw table data passes through a spool folder, and is compressed into the catalog from there: both need room.
package postgresql

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/relational"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
)

const (
	kindName     = "postgresql"
	artifactKind = "postgresql_dump"
	objectKind   = "postgresql_database"

	defaultJobs        = 4
	defaultMaintenance = "postgres"
	connectTimeout     = 20 * time.Second
)

// Settings are the arguments of one side of the driver, and where to log in. They are never printed.
type Settings struct {
	Host        string
	Port        int64 // 0: PGPORT, or 5432
	Database    string
	SSLMode     string // empty: PGSSLMODE, or prefer; verify-full with a CAPEM
	Jobs        int64  // 0: defaultJobs
	Maintenance string // destination only; empty: "postgres"
	Layout      relational.Layout

	Storage          string // its name in the backup
	Clock            engine.Clock
	CatalogIsDefault bool
	Getenv           func(string) string

	// Empty: the usual places (PGUSER, PGPASSWORD, PGPASSFILE, ...).
	Username, Password, CAPEM, CertPEM, KeyPEM string

	toolDirs []string // of tests; nil: where packages put their programs
}

// String keeps secrets out of logs and errors.
func (Settings) String() string { return "(settings of a PostgreSQL storage)" }

// GoString is String.
func (Settings) GoString() string { return "(settings of a PostgreSQL storage)" }

func (s Settings) jobs() int           { return int(cmp.Or(s.Jobs, defaultJobs)) }
func (s Settings) maintenance() string { return cmp.Or(s.Maintenance, defaultMaintenance) }

// config is how to connect to one database of the server.
func (s Settings) config(database string) (*pgx.ConnConfig, error) {
	var b strings.Builder
	put := func(key, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s='%s' ", key, strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value))
		}
	}
	env := func(name string) string {
		if s.Getenv == nil {
			return ""
		}
		return s.Getenv(name)
	}
	put("host", s.Host)
	if s.Port != 0 {
		put("port", strconv.FormatInt(s.Port, 10))
	} else {
		put("port", cmp.Or(env("PGPORT"), "5432"))
	}
	put("database", database)
	put("user", cmp.Or(s.Username, env("PGUSER")))
	put("passfile", env("PGPASSFILE"))
	mode := cmp.Or(s.SSLMode, env("PGSSLMODE"))
	if s.CAPEM != "" {
		// As libpq does with a root certificate: "require" verifies the chain. And who gives a CA and no mode wants all of it.
		if mode == "" {
			mode = "verify-full"
		} else if mode == "require" {
			mode = "verify-ca"
		}
	}
	put("sslmode", mode)
	c, err := pgx.ParseConfig(b.String())
	if err != nil {
		return nil, fmt.Errorf("reading the connection settings of PostgreSQL %s: %w", s.Host, err)
	}
	if p := cmp.Or(s.Password, env("PGPASSWORD")); p != "" {
		c.Password = p
	}
	if err := s.trust(c); err != nil {
		return nil, err
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = connectTimeout
	}
	if c.RuntimeParams["application_name"] == "" {
		c.RuntimeParams["application_name"] = "terraform-provider-scalardb"
	}
	// Names are always qualified; and a policy that hides rows must be an error, not a short backup.
	c.RuntimeParams["search_path"] = "pg_catalog"
	c.RuntimeParams["row_security"] = "off"
	// No prepared statements: a schema that changes must not surprise us as a stale plan.
	c.DefaultQueryExecMode = pgx.QueryExecModeExec
	return c, nil
}

// trust puts the certificates into every TLS configuration that may be tried (sslmode=prefer has two).
func (s Settings) trust(c *pgx.ConnConfig) error {
	configs := []*tls.Config{c.TLSConfig}
	for _, f := range c.Fallbacks {
		configs = append(configs, f.TLSConfig)
	}
	for _, t := range configs {
		if t == nil {
			continue
		}
		if s.CAPEM != "" {
			pool := x509.NewCertPool()
			if !pool.AppendCertsFromPEM([]byte(s.CAPEM)) {
				return errors.New("reading ca_pem of the credentials: it holds no certificate in PEM")
			}
			t.RootCAs = pool
		}
		if s.CertPEM != "" || s.KeyPEM != "" {
			pair, err := tls.X509KeyPair([]byte(s.CertPEM), []byte(s.KeyPEM))
			if err != nil {
				// The standard library's errors name no content, but which of the two it was helps more.
				if b, _ := pem.Decode([]byte(s.CertPEM)); b == nil {
					err = errors.New("cert_pem holds no certificate in PEM")
				}
				return fmt.Errorf("reading cert_pem and key_pem of the credentials: %w", err)
			}
			t.Certificates = []tls.Certificate{pair}
		}
	}
	return nil
}

// address names the server in messages.
func address(c *pgx.ConnConfig) string {
	if strings.HasPrefix(c.Host, "/") {
		return c.Host
	}
	return net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port)))
}

// explain says what a failed connection means to the user.
func explain(c *pgx.ConnConfig, err error) error {
	hint := ""
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch pg.Code {
		case "28P01", "28000":
			hint = "; check the storage's entry in the provider's credentials (or PGUSER, PGPASSWORD, the password file)"
		case "53300":
			hint = "; the server, or the role, allows no more connections: lower jobs, or raise max_connections"
		case "3D000":
			hint = "; check the argument database"
		}
	}
	return fmt.Errorf("connecting to database %s of PostgreSQL at %s as user %s: %w%s", c.Database, address(c), c.User, err, hint)
}

// open makes a pool of at most n connections.
func open(c *pgx.ConnConfig, n int) *sql.DB {
	db := stdlib.OpenDB(*c)
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	return db
}

// exec runs statements that take no parameters, in one round trip of the simple protocol.
func exec(ctx context.Context, c *sql.Conn, statements string) error {
	return c.Raw(func(driver any) error {
		conn, ok := driver.(*stdlib.Conn)
		if !ok {
			return fmt.Errorf("running a statement: the connection is a %T", driver)
		}
		return conn.Conn().PgConn().Exec(ctx, statements).Close()
	})
}

// systemIdentifier is made by initdb: it outlives renames of hosts, and no other cluster has it but copies of this one.
func systemIdentifier(ctx context.Context, q relational.Querier) (string, error) {
	var id string
	if err := q.QueryRowContext(ctx, `SELECT system_identifier::text FROM pg_control_system()`).Scan(&id); err != nil {
		return "", fmt.Errorf("reading the system identifier: %w", err)
	}
	return id, nil
}

func serverVersion(ctx context.Context, q relational.Querier) (number int, text string, err error) {
	if err := q.QueryRowContext(ctx, `SELECT current_setting('server_version_num')::int, current_setting('server_version')`).Scan(&number, &text); err != nil {
		return 0, "", fmt.Errorf("reading the server's version: %w", err)
	}
	return number, text, nil
}

// Open opens a pool for readers and makes sure that it connects.
func Open(ctx context.Context, s Settings) (*sql.DB, error) {
	c, err := s.config(s.Database)
	if err != nil {
		return nil, err
	}
	db := open(c, 8)
	if err := db.PingContext(ctx); err != nil {
		return nil, errors.Join(explain(c, err), db.Close())
	}
	return db, nil
}

// NewReader opens what verification reads.
func NewReader(ctx context.Context, s Settings) (verify.Storage, error) {
	db, err := Open(ctx, s)
	if err != nil {
		return nil, err
	}
	return relational.NewReader(db, Dialect{}, s.Layout, db.Close), nil
}

// quote quotes an identifier.
func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// literal quotes a string constant; standard_conforming_strings is on since 9.1.
func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

const clockSamples = 7

// measureClock keeps the best of several round trips: the server's time was read at some moment of it, so the offset to its middle is
// wrong by half of it at most (Cristian).
func measureClock(ctx context.Context, clock engine.Clock, q relational.Querier) (engine.ClockBound, error) {
	var best engine.ClockBound
	for i := range clockSamples {
		before, boot := clock.Now(), clock.Boot()
		var micros int64
		if err := q.QueryRowContext(ctx, `SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8`).Scan(&micros); err != nil {
			return engine.ClockBound{}, fmt.Errorf("reading the server's clock: %w", err)
		}
		half := (clock.Boot() - boot + 1) / 2
		// A microsecond for the rounding of the server's time.
		b := engine.ClockBound{Offset: time.UnixMicro(micros).Sub(before.Add(half)), Uncertainty: half + time.Microsecond}
		if i == 0 || b.Uncertainty < best.Uncertainty {
			best = b
		}
	}
	return best, nil
}

// clockSession is an open connection for a clock.
type clockSession struct {
	db    *sql.DB
	conn  *sql.Conn
	clock engine.Clock
}

func (c *clockSession) MeasureClock(ctx context.Context) (engine.ClockBound, error) {
	return measureClock(ctx, c.clock, c.conn)
}

func (c *clockSession) Close() error {
	_ = c.conn.Close() // again after the first time: sql.ErrConnDone
	return c.db.Close()
}
