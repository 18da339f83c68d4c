package mysql

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"

	driver "github.com/go-sql-driver/mysql"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/relational"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/dump"
)

type source struct {
	config  Config
	options Options
}

// NewSource is the source of one server.
func NewSource(c Config, o Options) engine.Source { return &source{c, o} }

// OpenClock opens one connection.
func (s *source) OpenClock(ctx context.Context) (engine.ClockSession, error) {
	db, err := connect(s.config, s.options.Login, 1)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", s.config.address(), err)
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", s.config.address(), errors.Join(explain(err), db.Close()))
	}
	return &clock{conn: conn, ours: s.options.Clock, close: func() error { return errors.Join(conn.Close(), db.Close()) }}, nil
}

// namespace is one database of a dump, in Captured.Extra: a restore creates it with its mark on it, before the dump is read.
type namespace struct {
	Name      string `json:"name"`
	Charset   string `json:"charset"`
	Collation string `json:"collation"`
}

// Keys of Captured.Extra.
const (
	extraNamespaces = "namespaces" // JSON, []namespace
	extraFlavour    = "flavour"
	extraVersion    = "server_version" // major.minor.patch
	extraLowerCase  = "lower_case_table_names"
)

// session is one run.
type session struct {
	clock
	config  Config
	options Options
	run     engine.Run
	prefix  string
	facts   engine.Facts

	db     *sql.DB
	server server
	// Connections of the window: control looks at the schema and at InnoDB's counter, first and last hold the two snapshots.
	control, first, last *sql.Conn
	dialect              Dialect
	inventory            relational.Inventory
	namespaces           []namespace // the metadata's first
	schema               string      // as preflight found it

	tool    tool
	args    []string
	secrets func() // removes them

	// ctx is that of the dump, which outlives Capture.
	ctx    context.Context
	cancel context.CancelCauseFunc

	counter string // InnoDB's, before the first snapshot; empty: not known
	moved   bool   // it was another one after the last
	cut     *cut
	object  *dump.Object
	ended   chan struct{} // closed when the dump ended; nil: never started
	err     error         // of the dump; valid when ended is closed
	close   sync.Once
}

// Preflight connects and makes every check, the dump itself without data among them.
func (s *source) Preflight(ctx context.Context, run engine.Run) (_ engine.Session, err error) {
	n := &session{config: s.config, options: s.options, run: run, prefix: dump.Prefix(run, s.options.Storage), secrets: func() {}}
	n.ctx, n.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("checking the server %s: %w", s.config.address(), explain(err)), n.Close())
		}
	}()
	var errs []error
	if s.options.CatalogIsDefault {
		errs = append(errs, errors.New("a dump needs a catalog that outlives the run: set `catalog` in the provider block"))
	}
	if err := n.connect(ctx); err != nil {
		return nil, errors.Join(append(errs, err)...) // what follows needs the server
	}
	for _, check := range []func(context.Context) error{n.checkTopology, n.checkTables, n.checkTool} {
		errs = append(errs, check(ctx))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	// These need all of the above.
	if err := errors.Join(n.checkRoom(ctx), n.dryRun(ctx)); err != nil {
		return nil, err
	}
	n.facts.SourceID = n.server.id
	n.facts.ToolVersions = map[string]string{"server": n.server.text, n.tool.name(): n.tool.text}
	n.facts.Planned = []engine.Artifact{{Kind: artifactKind, ID: n.prefix + dump.IndexName}}
	n.facts.Witness = "InnoDB transaction counter, newest coordinator entry, transaction columns of all tables"
	if n.tool.flavour != n.server.flavour {
		n.warn("the server is %s and the client tool %s is %s's: it passed a dry run, but a client of the server's own kind is the safer choice", n.server, n.tool.path, n.tool.flavour)
	}
	if n.config.tlsMode(n.options.Login) == tlsPreferred && !n.server.encrypted {
		n.warn("the connection to %s is not encrypted", n.config.address())
	}
	return n, nil
}

// sessionConnections are control, first, last and the clock's.
const sessionConnections = 4

func (n *session) connect(ctx context.Context) (err error) {
	if n.db, err = connect(n.config, n.options.Login, sessionConnections); err != nil {
		return err
	}
	n.clock.ours = n.options.Clock
	for _, c := range []**sql.Conn{&n.control, &n.first, &n.last, &n.clock.conn} {
		if *c, err = n.db.Conn(ctx); err != nil {
			return fmt.Errorf("connecting: %w", err)
		}
	}
	if n.server, err = readServer(ctx, n.control); err != nil {
		return err
	}
	n.dialect = Dialect{ids: idTable(n.server.product)}
	for _, c := range []*sql.Conn{n.control, n.first, n.last} {
		if err := noTimeLimits(ctx, c, n.server); err != nil {
			return err
		}
	}
	return nil
}

// checkTopology refuses servers whose data is not, or not yet, what ScalarDB was told is committed.
func (n *session) checkTopology(ctx context.Context) error {
	return errors.Join(n.server.writable(), n.server.alone(), n.checkReplica(ctx))
}

func (n *session) checkReplica(ctx context.Context) error {
	replicating, err := hasRows(ctx, n.control, "SHOW REPLICA STATUS")
	if isMySQL(err, 1064) { // servers before MySQL 8.0.22 and MariaDB 10.5
		replicating, err = hasRows(ctx, n.control, "SHOW SLAVE STATUS")
	}
	if isMySQL(err, 1227) {
		if n.server.on("slave_running") {
			replicating, err = true, nil
		} else {
			n.warn("user %s may not see whether %s is a replica (REPLICATION CLIENT, in MariaDB REPLICA MONITOR): make sure that it is the primary", n.options.Login.Username, n.config.address())
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("asking whether the server is a replica: %w", err)
	}
	if replicating {
		return errors.New("the server replicates from another one: name the primary, a replica may lag behind it")
	}
	return nil
}

func isMySQL(err error, number uint16) bool {
	var e *driver.MySQLError
	return errors.As(err, &e) && e.Number == number
}

func hasRows(ctx context.Context, q relational.Querier, query string) (bool, error) {
	rows, err := q.QueryContext(ctx, query)
	if err != nil {
		return false, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err says it
	return rows.Next(), rows.Err()
}

// checkTables reads which namespaces are ScalarDB's, and whether the user may read them and InnoDB holds them.
func (n *session) checkTables(ctx context.Context) error {
	if _, err := hasRows(ctx, n.control, "SELECT 1 FROM "+n.dialect.ids+" LIMIT 1"); isMySQL(err, 1227) {
		return fmt.Errorf("user %s needs the privilege PROCESS, by which DDL during the dump is noticed: GRANT PROCESS ON *.* TO ...: %w", n.options.Login.Username, err)
	} else if err != nil {
		return fmt.Errorf("reading InnoDB's table ids: %w", err)
	}
	var err error
	if n.inventory, err = relational.ReadInventory(ctx, n.control, n.dialect, n.config.Layout); err != nil {
		return err
	}
	var errs []error
	for _, t := range n.inventory.Missing {
		errs = append(errs, fmt.Errorf("ScalarDB's metadata names table %s.%s, which is not there, lacks ScalarDB's columns, or may not be read by user %s", t.Namespace, t.Name, n.options.Login.Username))
	}
	if err := n.readNamespaces(ctx); err != nil {
		return err
	}
	for _, r := range n.inventory.Relations {
		// No row is read, but every privilege that a dump of it needs, and a view's tables, are looked at.
		if _, err := hasRows(ctx, n.control, "SELECT 1 FROM "+n.dialect.Table(r.Namespace, r.Name)+" LIMIT 0"); err != nil {
			errs = append(errs, fmt.Errorf("reading table %s.%s: %w", r.Namespace, r.Name, err))
		}
		if strings.HasPrefix(r.ID, " ") && !r.View && len(errs) == 0 {
			n.warn("InnoDB's id of table %s.%s is not known: of DDL on it during the dump only what changes its CREATE_TIME or columns is noticed", r.Namespace, r.Name)
		}
	}
	errs = append(errs, n.checkEngines(ctx))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := n.checkTriggers(ctx); err != nil {
		return err
	}
	n.schema, err = n.fingerprint(ctx)
	return err
}

func (n *session) readNamespaces(ctx context.Context) error {
	metadata := n.config.Layout.Metadata()
	for _, ns := range n.inventory.Namespaces {
		var x namespace
		err := n.control.QueryRowContext(ctx, "SELECT SCHEMA_NAME, DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = ?", ns).
			Scan(&x.Name, &x.Charset, &x.Collation)
		if errors.Is(err, sql.ErrNoRows) {
			continue // an empty namespace that somebody dropped: tables would have been missing
		}
		if err != nil {
			return fmt.Errorf("reading database %s: %w", ns, err)
		}
		if x.Name == metadata {
			// It always has enough rows to make the tool write at once, also if all other tables are empty.
			n.namespaces = append([]namespace{x}, n.namespaces...)
		} else {
			n.namespaces = append(n.namespaces, x)
		}
	}
	return nil
}

func (n *session) names() []string {
	var out []string
	for _, ns := range n.namespaces {
		out = append(out, ns.Name)
	}
	return out
}

// in is "IN (?, ?)" with its arguments, for the namespaces.
func (n *session) in() (string, []any) {
	var args []any
	for _, ns := range n.names() {
		args = append(args, ns)
	}
	return " IN (?" + strings.Repeat(", ?", len(args)-1) + ")", args
}

func (n *session) checkEngines(ctx context.Context) error {
	in, args := n.in()
	found, err := readStrings(ctx, n.control, "SELECT CONCAT(TABLE_SCHEMA, '.', TABLE_NAME, ' (', COALESCE(ENGINE, 'none'), ')') FROM information_schema.TABLES WHERE TABLE_SCHEMA"+in+
		" AND TABLE_TYPE NOT LIKE '%VIEW' AND COALESCE(ENGINE, '') <> 'InnoDB' ORDER BY 1", args...)
	if err != nil {
		return fmt.Errorf("reading the tables' storage engines: %w", err)
	}
	if len(found) > 0 {
		return fmt.Errorf("these tables are not InnoDB's, so no snapshot covers them: %s; convert them (ALTER TABLE ... ENGINE=InnoDB) or move them out of ScalarDB's namespaces", strings.Join(found, ", "))
	}
	return nil
}

// checkTriggers warns: without the privilege the tool leaves triggers out in silence.
func (n *session) checkTriggers(ctx context.Context) error {
	grants, err := readStrings(ctx, n.control, "SHOW GRANTS")
	if err != nil {
		return fmt.Errorf("reading the user's privileges: %w", err)
	}
	var lacking []string
	for _, ns := range n.names() {
		if !granted(grants, "TRIGGER", ns) {
			lacking = append(lacking, ns)
		}
	}
	if len(lacking) > 0 {
		n.warn("user %s seems to lack the privilege TRIGGER on %s: triggers there (ScalarDB makes none) would not be in the dump", n.options.Login.Username, strings.Join(lacking, ", "))
	}
	return nil
}

var grantLine = regexp.MustCompile("^GRANT (.+?) ON (\\*|`(?:[^`]|``)*`)\\.\\* TO ")

// granted reads SHOW GRANTS. It does not know what roles bring that the server does not list.
func granted(grants []string, privilege, namespace string) bool {
	return slices.ContainsFunc(grants, func(g string) bool {
		m := grantLine.FindStringSubmatch(g)
		if m == nil || m[2] != "*" && strings.ReplaceAll(m[2], `\_`, "_") != quote(namespace) && m[2] != quote("%") {
			return false
		}
		return strings.HasPrefix(m[1], "ALL PRIVILEGES") || slices.Contains(strings.Split(m[1], ", "), privilege)
	})
}

func (n *session) fingerprint(ctx context.Context) (string, error) {
	return relational.Fingerprint(ctx, n.control, n.dialect, n.names())
}

func (n *session) checkTool(ctx context.Context) (err error) {
	n.tool, err = dumping().find(ctx, n.options.Getenv, n.run.Custody, n.options.Clock, n.server.product)
	return err
}

// checkRoom compares the room of a catalog with the tables' size: a dump has neither indexes nor free space and is compressed, so half
// of it is enough for all but data that is compressed already.
func (n *session) checkRoom(ctx context.Context) error {
	catalog, ok := n.run.Catalog.(engine.SpaceReporter)
	if !ok {
		return nil
	}
	free, err := catalog.Free(ctx)
	if err != nil {
		return fmt.Errorf("asking for the room in %s: %w", n.run.Catalog.Describe(), err)
	}
	in, args := n.in()
	var size int64
	if err := n.control.QueryRowContext(ctx, "SELECT CAST(COALESCE(SUM(DATA_LENGTH), 0) AS SIGNED) FROM information_schema.TABLES WHERE TABLE_SCHEMA"+in, args...).Scan(&size); err != nil {
		return fmt.Errorf("reading the tables' size: %w", err)
	}
	const mib = 1 << 20
	if free < size/2 {
		return fmt.Errorf("the tables have %d MiB, and %s has room for %d MiB: free some, or use another catalog", size/mib, n.run.Catalog.Describe(), free/mib)
	}
	if free < size {
		n.warn("the tables have %d MiB, and %s has room for %d MiB: enough only if they compress well", size/mib, n.run.Catalog.Describe(), free/mib)
	}
	return nil
}

// dryRun runs the dump's very command without the rows: it proves the program, its options, the login, and the right to every table and view.
func (n *session) dryRun(ctx context.Context) (err error) {
	var file string
	if file, n.secrets, err = secrets(n.run.Custody, n.config, n.options.Login, n.tool.product, n.server); err != nil {
		return err
	}
	n.args = dumpArgs(n.tool.product, file, n.config, n.options.Login, n.names())
	out := newCut(func() (io.Writer, error) { return io.Discard, nil })
	i := slices.Index(n.args, "--databases")
	p, err := dump.StartChild(ctx, n.child(slices.Insert(slices.Clone(n.args), i, "--no-data"), out))
	if err == nil {
		err = p.Wait()
	}
	if err == nil && !out.complete() {
		err = errNoDump
	}
	if err != nil {
		return fmt.Errorf("trying the dump without data: %w", err)
	}
	return nil
}

func (n *session) child(args []string, out io.Writer) dump.Child {
	return dump.Child{Path: n.tool.path, Args: args, Env: toolEnv(), Name: n.tool.name(), Custody: n.run.Custody, Clock: n.options.Clock, Stdout: out}
}

func (n *session) warn(format string, args ...any) {
	n.facts.Warnings = append(n.facts.Warnings, fmt.Sprintf(format, args...))
}

// Facts are known since Preflight.
func (n *session) Facts() engine.Facts { return n.facts }

// Capture opens the witness's first snapshot, starts the dump, and returns when its snapshot is proved.
func (n *session) Capture(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("capturing %s: %w", n.config.address(), explain(err))
		}
	}()
	if n.counter, err = transactionCounter(ctx, n.control); err != nil {
		return err
	}
	if err := openSnapshot(ctx, n.first); err != nil {
		return err
	}
	n.cut = newCut(func() (io.Writer, error) {
		var err error
		n.object, err = dump.NewObject(n.ctx, n.run.Catalog, n.prefix+objectName)
		return n.object, err
	})
	p, err := dump.StartChild(n.ctx, n.child(n.args, n.cut))
	if err != nil {
		return err
	}
	n.ended = make(chan struct{})
	go func() {
		n.err = p.Wait()
		close(n.ended)
	}()
	select {
	case <-n.cut.proved:
		return nil
	case <-n.ended:
		// A small dump may have come and ended at once.
		if n.err == nil && !n.cut.complete() {
			return errNoDump
		}
		return n.err
	case <-ctx.Done():
		n.cancel(ctx.Err())
		return fmt.Errorf("waiting for the dump's snapshot: %w", ctx.Err())
	}
}

var counterLine = regexp.MustCompile(`(?m)^Trx id counter (\d+)`)

// transactionCounter is the number of InnoDB's next transaction: each one that writes takes a number when it first writes and another when it commits.
// Empty: the server did not say, and the witness has to look.
func transactionCounter(ctx context.Context, q relational.Querier) (string, error) {
	var kind, what, text string
	if err := q.QueryRowContext(ctx, "SHOW ENGINE INNODB STATUS").Scan(&kind, &what, &text); err != nil {
		return "", fmt.Errorf("reading InnoDB's transaction counter: %w", err)
	}
	if m := counterLine.FindStringSubmatch(text); m != nil {
		return m[1], nil
	}
	return "", nil
}

// openSnapshot begins a transaction that sees what is committed now. It locks nothing.
func openSnapshot(ctx context.Context, c *sql.Conn) error {
	for _, q := range []string{"START TRANSACTION WITH CONSISTENT SNAPSHOT", "SAVEPOINT look"} {
		if _, err := c.ExecContext(ctx, q); err != nil {
			return fmt.Errorf("opening a snapshot: %w", err)
		}
	}
	return nil
}

// snapshot reads through an open snapshot, and gives the metadata lock of the table it read last back before it reads the next: see the package's comment.
type snapshot struct{ conn *sql.Conn }

func (s snapshot) forget(ctx context.Context) error {
	_, err := s.conn.ExecContext(ctx, "ROLLBACK TO SAVEPOINT look")
	return err
}

func (s snapshot) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if err := s.forget(ctx); err != nil {
		return nil, err
	}
	return s.conn.QueryContext(ctx, query, args...)
}

func (s snapshot) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	// An error here (a connection that is gone) is the query's too.
	_ = s.forget(ctx)
	return s.conn.QueryRowContext(ctx, query, args...)
}

// Confirm opens the witness's last snapshot and compares the schema: a few small queries.
func (n *session) Confirm(ctx context.Context) (err error) {
	defer func() {
		var void *engine.VoidError
		if err != nil && !errors.As(err, &void) {
			err = fmt.Errorf("looking at %s again: %w", n.config.address(), explain(err))
		}
	}()
	if err := openSnapshot(ctx, n.last); err != nil {
		return err
	}
	counter, err := transactionCounter(ctx, n.control)
	if err != nil {
		return err
	}
	n.moved = counter == "" || counter != n.counter
	schema, err := n.fingerprint(ctx)
	if err != nil {
		return err
	}
	if schema != n.schema {
		return &engine.VoidError{Reason: "the schema changed between the checks and the end of the pause window: a pause does not hold DDL (Schema Loader, ALTER TABLE, TRUNCATE) back; take the backup again when it is done"}
	}
	// After the schema: DDL in the window may have ended the dump.
	select {
	case <-n.ended:
		return n.err
	default:
		return nil
	}
}

// Await reads the witness while the dump streams into the catalog, and believes the dump only if it is whole and the schema is still the one it began with.
func (n *session) Await(ctx context.Context) (_ engine.Captured, err error) {
	defer func() {
		var void *engine.VoidError
		if err != nil && !errors.As(err, &void) {
			err = fmt.Errorf("dumping %s: %w", n.config.address(), explain(err))
		}
	}()
	stop := context.AfterFunc(ctx, func() { n.cancel(context.Cause(ctx)) })
	defer stop()
	lookCtx, stopLook := context.WithCancel(ctx)
	defer stopLook()
	type looked struct {
		captured engine.Captured
		err      error
	}
	looks := make(chan looked, 1)
	go func() {
		c, err := n.look(lookCtx)
		if err != nil {
			n.cancel(errUnusable)
		}
		looks <- looked{c, err}
	}()
	<-n.ended
	failed := n.err != nil && !errors.Is(context.Cause(n.ctx), errUnusable)
	if failed {
		stopLook()
	}
	look := <-looks
	var void *engine.VoidError
	switch {
	case errors.As(look.err, &void):
		return engine.Captured{}, look.err
	case failed:
		return engine.Captured{}, n.blame(ctx, n.err)
	case look.err != nil:
		return engine.Captured{}, n.blame(ctx, look.err)
	case !n.cut.complete():
		return engine.Captured{}, fmt.Errorf("the dump is cut short: %s ended well, but its output does not end with %q", n.tool.name(), trailerLine)
	}
	if schema, err := n.fingerprint(ctx); err != nil {
		return engine.Captured{}, err
	} else if schema != n.schema {
		return engine.Captured{}, errSchema
	}
	stored, err := n.object.Commit(ctx)
	if err != nil {
		return engine.Captured{}, err
	}
	artifact, err := dump.WriteIndex(ctx, n.run.Catalog, artifactKind, n.prefix, []dump.Stored{stored})
	if err != nil {
		return engine.Captured{}, err
	}
	look.captured.Artifacts = []engine.Artifact{artifact}
	return look.captured, nil
}

var errSchema = errors.New("the schema changed while the dump ran (a table was created, dropped, truncated or altered), so it may lack rows or whole tables: take the backup again when that is done, " +
	"and let no DDL (Schema Loader, TRUNCATE) run before a backup is complete")

// blame says it when DDL is behind another error: a table that is gone, or that InnoDB does not show to an old snapshot.
func (n *session) blame(ctx context.Context, err error) error {
	if schema, e := n.fingerprint(ctx); e == nil && schema != n.schema {
		return fmt.Errorf("%w: %w", errSchema, err)
	}
	return err
}

// errUnusable ends a dump that the witness condemned.
var errUnusable = errors.New("the backup cannot be used")

// look reads both snapshots, the last one only if anything was committed between them.
func (n *session) look(ctx context.Context) (c engine.Captured, err error) {
	first, err := n.reading(ctx, n.first)
	if err != nil {
		return c, err
	}
	last := first
	if n.moved {
		if last, err = n.reading(ctx, n.last); err != nil {
			return c, err
		}
	}
	if err := relational.Compare(first, last, n.run.OpenedAt(), n.run.ServerClockBound); err != nil {
		return c, err
	}
	if c, err = n.describe(ctx, first); err != nil {
		return c, err
	}
	// The server keeps old versions of rows for as long as the snapshots are open.
	for _, conn := range []*sql.Conn{n.first, n.last} {
		if _, err := conn.ExecContext(ctx, "ROLLBACK"); err != nil {
			return c, fmt.Errorf("closing a snapshot: %w", err)
		}
	}
	return c, nil
}

// reading includes the tables: a one-phase commit leaves no coordinator entry.
func (n *session) reading(ctx context.Context, conn *sql.Conn) (relational.Reading, error) {
	return relational.TakeReadingWith(ctx, snapshot{conn}, n.dialect, n.inventory, relational.ReadingOptions{Tables: true})
}

// describe says what the dump holds.
func (n *session) describe(ctx context.Context, r relational.Reading) (engine.Captured, error) {
	namespaces, err := json.Marshal(n.namespaces)
	if err != nil {
		return engine.Captured{}, fmt.Errorf("describing the dump: %w", err)
	}
	c := engine.Captured{Extra: map[string]string{
		extraNamespaces: string(namespaces), extraFlavour: string(n.server.flavour), extraVersion: n.server.version.String(), extraLowerCase: n.server.lowerCase,
	}}
	if r.Coordinator != nil {
		c.HasCoordinator, c.CoordinatorNewest = true, r.Coordinator.Newest
	}
	for _, t := range n.inventory.Tables {
		w := engine.TableWitness{Namespace: t.Namespace, Table: t.Name, Transactional: t.Transactional}
		i := slices.IndexFunc(r.Tables, func(x relational.TableReading) bool { return x.Namespace == t.Namespace && x.Name == t.Name })
		if i >= 0 {
			w.NewestCommitted = r.Tables[i].NewestCommitted
		}
		if i >= 0 && t.Data.Namespace == t.TxMetadata.Namespace && t.Data.Name == t.TxMetadata.Name {
			w.Rows = r.Tables[i].Rows
		} else if err := (snapshot{n.first}).QueryRowContext(ctx, "SELECT COUNT(*) FROM "+n.dialect.Table(t.Data.Namespace, t.Data.Name)).Scan(&w.Rows); err != nil {
			return c, fmt.Errorf("counting the rows of table %s.%s: %w", t.Namespace, t.Name, err)
		}
		// Nothing tells whether a table without transaction columns was written between this snapshot and the dump's, unless nothing was.
		w.Estimated = !t.Transactional && n.moved
		c.Tables = append(c.Tables, w)
	}
	return c, nil
}

// stop ends the dump and waits for its end.
func (n *session) stop(cause error) error {
	n.cancel(cause)
	if n.ended != nil {
		<-n.ended
	}
	if n.object == nil {
		return nil
	}
	return n.object.Close()
}

// Discard ends the dump and deletes what it wrote.
func (n *session) Discard(ctx context.Context) error {
	err := errors.Join(n.stop(errors.New("the backup is discarded")), dump.Discard(ctx, n.run.Catalog, n.prefix))
	if err != nil {
		return fmt.Errorf("discarding the dump of %s: %w", n.config.address(), err)
	}
	return nil
}

// Close releases everything.
func (n *session) Close() (err error) {
	n.close.Do(func() {
		err = n.stop(errors.New("the run is over"))
		n.secrets()
		for _, c := range []*sql.Conn{n.control, n.first, n.last, n.clock.conn} {
			if c != nil {
				_ = c.Close() // open transactions end with the connection
			}
		}
		if n.db != nil {
			err = errors.Join(err, n.db.Close())
		}
	})
	return err
}
