// Package mysql is the storage of ScalarDB's JDBC adapter over one MySQL or MariaDB server. Its capture method is dump: one run of
// mysqldump or mariadb-dump with --single-transaction over all of ScalarDB's namespaces (databases, in the server's words).
//
// # How a capture is fixed
//
// The tool begins a transaction WITH CONSISTENT SNAPSHOT and reads everything through it: writers go on, and nobody is locked out
// (FLUSH TABLES WITH READ LOCK is never run: no option that asks for it is given, and --set-gtid-purged=OFF keeps MySQL's tool from it).
// The tool writes its header before that transaction, and the first "-- Current Database" line after it: when that line has
// arrived, the snapshot is there and the capture is fixed (TestTheProofIsNotTheHeader holds the transaction back and looks).
// What the tool writes is buffered by the C library in blocks of 4 KiB; ScalarDB's metadata come first, which fill one at once.
// The rest streams into the catalog after the unpause.
//
// The tool is started inside the window. Every check was made before with the very same command and --no-data, so program,
// libraries and name lookups are warm. From start to proof takes 11 to 20 ms here, and the look at the end of the window 14 to 60 ms,
// with 0.5 MB and with 100 MB of data (TestPauseTime, with the race detector; MariaDB 10.11, 2 busy cores). A process that is started before the window would
// save some milliseconds of it, and need a relay that speaks the server's protocol to hold its transaction back.
//
// # DDL
//
// A pause holds no DDL back, and the dump's snapshot does not cover it. InnoDB refuses to read a table that was altered or made anew since the snapshot
// (error 1412), MariaDB 10.11 also after a TRUNCATE; but a dropped table is silently not in the dump, an added column is, and other
// versions may dump a truncated table as an empty one, all with exit status 0. So tables, their identities and their columns are compared before the window, at its
// end and after the dump: any difference fails the backup.
//
// PostgreSQL's way, to hold a lock on every table until the dump is done, is no way here: a DDL statement that waits for such a lock
// makes every later reader of that table wait behind it, the dump too, which the lock waits for. Neither server's deadlock
// detector sees that circle, since we do not wait in the server: TestLocksWouldHangTheDump shows it hang. So our own
// transactions give their metadata locks back after each table, as the tools do.
//
// # The witness
//
// Two snapshots of our own, one before the dump's and one at the end of the window, and InnoDB's transaction counter read before
// the first and after the second. Every commit of a writing transaction, whenever it began, raises that counter: if it
// did not move, nothing was written. If it moved (another database of the server will do), the coordinator entries and the
// transaction columns of all tables are compared in the two snapshots, after the unpause.
//
// # Limits
//
// Refused: replicas and read-only servers (they lag), Galera clusters and multi-primary groups with more than one node (a commit that another node
// acknowledged may not be here yet), tables that are not InnoDB's, TiDB. Stored routines and events are not dumped: ScalarDB has none.
// A namespace keeps its name in a restore. MySQL 8 could not be run where this was written: what differs there (flags, version strings, table
// names) rests on its documentation and is tested with recorded strings only.
package mysql

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	driver "github.com/go-sql-driver/mysql"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/relational"
)

const (
	name         = "mysql"
	artifactKind = "mysql_dump"     // an Artifact's kind
	objectKind   = "mysql_database" // a RestoredObject's kind
	objectName   = "dump.sql.zst"   // behind the storage's prefix in the catalog

	defaultPort = 3306
	defaultJobs = 8

	connectTimeout = 15 * time.Second
	// lockWaitSeconds is how long a statement of ours waits behind DDL (the servers' default is a day, or a year).
	lockWaitSeconds = 20
)

// The values of Config.TLS, as MySQL's ssl-mode has them. VERIFY_CA is left out: MariaDB's tools have no such mode.
const (
	tlsDisabled  = "disabled"
	tlsPreferred = "preferred"
	tlsRequired  = "required"
	tlsVerify    = "verify_identity"
)

// Config is one driver object.
type Config struct {
	Host   string
	Port   int64  // 0: 3306
	TLS    string // empty: tlsVerify where the login has a CA, else tlsPreferred
	Jobs   int64  // connections of a reader; 0: 8
	Layout relational.Layout
}

func (c Config) port() int64 {
	if c.Port == 0 {
		return defaultPort
	}
	return c.Port
}

func (c Config) address() string { return net.JoinHostPort(c.Host, strconv.FormatInt(c.port(), 10)) }

func (c Config) tlsMode(l Login) string {
	switch {
	case c.TLS != "":
		return c.TLS
	case l.CAPEM != "":
		return tlsVerify
	default:
		return tlsPreferred
	}
}

// Login is who connects. It is never printed.
type Login struct {
	Username, Password     string
	CAPEM, CertPEM, KeyPEM string
}

// String keeps secrets out of logs and errors.
func (Login) String() string { return "(login)" }

// GoString does so for %#v.
func (Login) GoString() string { return "(login)" }

// Options are what a source, a destination or a reader needs beside its Config.
type Options struct {
	Storage          string // its name in the backup
	Login            Login
	Clock            engine.Clock
	Getenv           func(string) string // for PATH, where the client tools are looked for
	CatalogIsDefault bool
}

func (l Login) tlsConfig(host, mode string) (c *tls.Config, fallback bool, err error) {
	if mode == tlsDisabled {
		return nil, false, nil
	}
	c = &tls.Config{MinVersion: tls.VersionTLS12}
	if l.CertPEM != "" || l.KeyPEM != "" {
		pair, err := tls.X509KeyPair([]byte(l.CertPEM), []byte(l.KeyPEM))
		if err != nil {
			return nil, false, fmt.Errorf("reading the client certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	if mode != tlsVerify {
		c.InsecureSkipVerify = true //nolint:gosec // that is what these two modes mean
		return c, mode == tlsPreferred, nil
	}
	if l.CAPEM == "" {
		return nil, false, fmt.Errorf("tls = %q needs the CA's certificate: set ca_pem in the provider's credentials", tlsVerify)
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM([]byte(l.CAPEM)) {
		return nil, false, errors.New("reading ca_pem: it holds no certificate")
	}
	c.ServerName = host
	return c, false, nil
}

// connect opens a pool. Nothing is sent before the first statement.
func connect(c Config, l Login, connections int) (*sql.DB, error) {
	if l.Username == "" {
		return nil, errors.New("no user: set `credentials` in the provider block, MYSQL_USER and MYSQL_PWD, or the [client] section of ~/.my.cnf")
	}
	config := driver.NewConfig()
	config.User, config.Passwd, config.Net, config.Addr = l.Username, l.Password, "tcp", c.address()
	config.Timeout, config.Logger = connectTimeout, &driver.NopLogger{}
	config.Params = map[string]string{"lock_wait_timeout": strconv.Itoa(lockWaitSeconds), "wait_timeout": "604800", "net_write_timeout": "3600"}
	var err error
	if config.TLS, config.AllowFallbackToPlaintext, err = l.tlsConfig(c.Host, c.tlsMode(l)); err != nil {
		return nil, err
	}
	connector, err := driver.NewConnector(config)
	if err != nil {
		return nil, fmt.Errorf("preparing the connection: %w", err)
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db, nil
}

// explain adds what to do to errors that users meet.
func explain(err error) error {
	var e *driver.MySQLError
	if !errors.As(err, &e) {
		return err
	}
	switch e.Number {
	case 1044, 1142, 1227:
		return fmt.Errorf("%w; grant it (SELECT, SHOW VIEW, TRIGGER and PROCESS are what a backup needs)", err)
	case 1045:
		return fmt.Errorf("%w; check the username and the password in the provider's credentials, or in MYSQL_USER, MYSQL_PWD and ~/.my.cnf", err)
	case 1205:
		return fmt.Errorf("%w; a DDL statement holds, or waits for, a table", err)
	case 1412:
		return fmt.Errorf("%w; a DDL statement changed the table: take the backup again when it is done", err)
	}
	return err
}

// server is what is asked of a server once.
type server struct {
	product
	text string // as it says it
	id   string // immutable
	// lowerCase is lower_case_table_names.
	lowerCase string
	encrypted bool
	vars      map[string]string
}

func readServer(ctx context.Context, q relational.Querier) (server, error) {
	var s server
	var comment string
	if err := q.QueryRowContext(ctx, "SELECT VERSION(), @@version_comment, @@lower_case_table_names").Scan(&s.text, &comment, &s.lowerCase); err != nil {
		return s, fmt.Errorf("asking for the server's version: %w", err)
	}
	var err error
	if s.product, err = parseServer(s.text, comment); err != nil {
		return s, err
	}
	asked := map[string]string{}
	for _, query := range []string{
		"SHOW GLOBAL VARIABLES WHERE Variable_name IN ('server_uuid', 'server_uid', 'hostname', 'port', 'datadir', 'read_only', 'super_read_only', 'innodb_read_only', 'group_replication_single_primary_mode', 'wsrep_on')",
		"SHOW GLOBAL STATUS WHERE Variable_name IN ('Slave_running', 'wsrep_cluster_size')",
		"SHOW SESSION STATUS LIKE 'Ssl_cipher'",
	} {
		if err := readPairs(ctx, q, query, asked); err != nil {
			return s, fmt.Errorf("asking for the server's settings: %w", err)
		}
	}
	s.vars = make(map[string]string, len(asked))
	for k, v := range asked {
		s.vars[strings.ToLower(k)] = v
	}
	s.encrypted = s.vars["ssl_cipher"] != ""
	// MariaDB's server_uid is of 10.10 and later, and only a hash of the machine's address, the port and the host's name.
	switch {
	case s.vars["server_uuid"] != "":
		s.id = s.vars["server_uuid"]
	case s.vars["server_uid"] != "":
		s.id = s.vars["server_uid"]
	default:
		s.id = s.vars["hostname"] + ":" + s.vars["port"] + ":" + s.vars["datadir"]
	}
	return s, nil
}

// readPairs reads rows of a name and a value.
func readPairs(ctx context.Context, q relational.Querier, query string, into map[string]string, args ...any) error {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // rows.Err says it
	for rows.Next() {
		var k, v string
		if err := rows.Scan(&k, &v); err != nil {
			return err
		}
		into[k] = v
	}
	return rows.Err()
}

// on says whether a variable is on.
func (s server) on(variable string) bool {
	v := strings.ToUpper(s.vars[variable])
	return v == "ON" || v == "1" || v == "YES"
}

// writable refuses servers that do not take ScalarDB's writes themselves.
func (s server) writable() error {
	for _, v := range []string{"super_read_only", "innodb_read_only", "read_only"} {
		// MariaDB 12 has more values than ON.
		if off := s.vars[v]; off != "" && off != "0" && !strings.EqualFold(off, "OFF") {
			return fmt.Errorf("the server is read-only (%s=%s): name the primary, a replica may lag behind it", v, s.vars[v])
		}
	}
	return nil
}

// alone refuses servers to which commits come from others.
func (s server) alone() error {
	if size := s.vars["wsrep_cluster_size"]; s.on("wsrep_on") && size != "" && size != "0" && size != "1" {
		return fmt.Errorf("the server is one of %s nodes of a Galera cluster: what another node committed may not be here yet, which this driver cannot rule out", size)
	}
	if s.vars["group_replication_single_primary_mode"] != "" && !s.on("group_replication_single_primary_mode") {
		return errors.New("the server is one of several primaries of a replication group: what another one committed may not be here yet, which this driver cannot rule out")
	}
	return nil
}

// noTimeLimits lifts the server's limits on long statements and idle transactions for one connection.
func noTimeLimits(ctx context.Context, c *sql.Conn, s server) error {
	settings := "max_execution_time = 0"
	if s.flavour == mariaDB {
		settings = "max_statement_time = 0, idle_transaction_timeout = 0"
	}
	if _, err := c.ExecContext(ctx, "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ"); err != nil {
		return fmt.Errorf("preparing a connection: %w", err)
	}
	if _, err := c.ExecContext(ctx, "SET SESSION "+settings); err != nil {
		return fmt.Errorf("preparing a connection: %w", err)
	}
	return nil
}

// clock is one connection that measures the server's clock.
type clock struct {
	conn  *sql.Conn
	ours  engine.Clock
	close func() error
}

// samples of one measurement: the best counts.
const samples = 8

// MeasureClock asks for UTC_TIMESTAMP, the time at which the statement began: it lies between request and answer.
func (c *clock) MeasureClock(ctx context.Context) (engine.ClockBound, error) {
	best := engine.ClockBound{Uncertainty: -1}
	for range samples {
		before, from := c.ours.Now(), c.ours.Boot()
		var text string
		if err := c.conn.QueryRowContext(ctx, "SELECT CAST(UTC_TIMESTAMP(6) AS CHAR)").Scan(&text); err != nil {
			return engine.ClockBound{}, fmt.Errorf("asking for the server's time: %w", err)
		}
		trip := c.ours.Boot() - from
		theirs, err := time.Parse("2006-01-02 15:04:05.000000", text)
		if err != nil {
			return engine.ClockBound{}, fmt.Errorf("asking for the server's time: %w", err)
		}
		// A microsecond for the rounding of their time.
		if u := trip/2 + time.Microsecond; best.Uncertainty < 0 || u < best.Uncertainty {
			best = engine.ClockBound{Offset: theirs.Sub(before) - trip/2, Uncertainty: u}
		}
	}
	return best, nil
}

// Close returns the connection.
func (c *clock) Close() error {
	if c.close == nil {
		return nil
	}
	return c.close()
}
