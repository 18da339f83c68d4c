package postgresql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sys/unix"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/relational"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/dump"
)

const (
	oldestServer = 110000 // LOCK TABLE of views, hashtextextended
	// lockTimeout bounds what a schema change under way can cost the window.
	lockTimeout = 3 * time.Second
	// probeTimeout: a session that does not answer while others hold transactions has no backend of its own.
	probeTimeout = 10 * time.Second
)

// Source is one database to be captured.
type Source struct{ s Settings }

// NewSource opens nothing yet.
func NewSource(s Settings) *Source { return &Source{s} }

// OpenClock opens one connection.
func (o *Source) OpenClock(ctx context.Context) (engine.ClockSession, error) {
	c, err := o.s.config(o.s.Database)
	if err != nil {
		return nil, err
	}
	db := open(c, 1)
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, errors.Join(explain(c, err), db.Close())
	}
	return &clockSession{db: db, conn: conn, clock: o.s.Clock}, nil
}

// relation is what preflight asks about a relation beside what the inventory has.
type relation struct {
	name       string // quoted
	kind       string // pg_class.relkind
	size       int64
	oid        int64
	persistent bool
}

// session is a Source that passed preflight.
type session struct {
	s      Settings
	run    engine.Run
	prefix string
	facts  engine.Facts
	config *pgx.ConnConfig
	pgDump tool
	extra  map[string]string

	inventory   relational.Inventory
	schemas     []string // the inventory's namespaces that are schemas here
	relations   []relation
	fingerprint string

	db *sql.DB
	// control locks, exports the snapshot, and holds it until the dump is done; the window's first reading is its.
	control *sql.Conn
	// late locks with the others, and takes its own snapshot at Confirm: the last reading.
	late *sql.Conn
	// warm are for pg_dump: its leader and its workers.
	warm []*pgconn.PgConn

	mu       sync.Mutex // one statement at a time on control
	id       string     // of the exported snapshot
	first    string     // control's snapshot, as txid_current_snapshot shows it
	last     string     // late's
	warmNext int
}

// Preflight opens every session that the capture and the dump will use, and checks all they will need.
func (o *Source) Preflight(ctx context.Context, run engine.Run) (engine.Session, error) {
	x := &session{s: o.s, run: run, prefix: dump.Prefix(run, o.s.Storage), extra: map[string]string{}}
	if err := x.preflight(ctx); err != nil {
		_ = x.Close()
		return nil, err
	}
	return x, nil
}

func (x *session) preflight(ctx context.Context) error {
	var errs []error
	if x.s.CatalogIsDefault {
		errs = append(errs, errors.New("a dump goes into the catalog, and none is configured: set `catalog` in the provider block, so that it is not left in the working directory"))
	}
	var err error
	if x.config, err = x.s.config(x.s.Database); err != nil {
		return errors.Join(append(errs, err)...)
	}
	if err := x.connect(ctx); err != nil {
		return errors.Join(append(errs, err)...)
	}
	number, version, err := serverVersion(ctx, x.control)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	if number < oldestServer {
		return errors.Join(append(errs, fmt.Errorf("checking the server's version: PostgreSQL %s is older than 11", version))...)
	}
	for _, check := range []func(context.Context) error{x.checkPrimary, x.checkSessions, x.readIdentity, x.readSchema} {
		if err := check(ctx); err != nil {
			errs = append(errs, err)
		}
	}
	if x.pgDump, err = x.s.findTool(ctx, x.run.Custody, "pg_dump", number/10000); err != nil {
		errs = append(errs, err)
	}
	if err := x.checkRoom(ctx); err != nil {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	x.facts.ToolVersions = map[string]string{"postgresql": version, "pg_dump": x.pgDump.version}
	x.facts.Planned = []engine.Artifact{{Kind: artifactKind, ID: x.prefix + dump.IndexName}}
	x.facts.Witness = "two snapshots (transaction ids), row versions of every table, open writes, the coordinator's newest entry"
	x.extra["server_version_num"] = strconv.Itoa(number)
	x.extra["pg_dump_major"] = strconv.Itoa(x.pgDump.major)
	x.extra["format"] = "pg_dump directory, zstd"
	return nil
}

// connect opens all sessions at once: that they open is the proof that they may.
func (x *session) connect(ctx context.Context) error {
	x.db = open(x.config, 2)
	var err error
	if x.control, err = x.db.Conn(ctx); err != nil {
		return explain(x.config, err)
	}
	if x.late, err = x.db.Conn(ctx); err != nil {
		return explain(x.config, err)
	}
	// Whatever the role or the database has for defaults: the sessions wait through the drain, and the dump takes its time.
	const patience = `SELECT set_config(name, '0', false) FROM pg_settings WHERE name IN
		('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'idle_session_timeout', 'transaction_timeout')`
	for range x.s.jobs() + 1 {
		c, err := pgconn.ConnectConfig(ctx, &x.config.Config)
		if err != nil {
			return fmt.Errorf("opening %d sessions for the dump (jobs + 3): %w", x.s.jobs()+3, explain(x.config, err))
		}
		x.warm = append(x.warm, c)
		if err := c.Exec(ctx, patience).Close(); err != nil {
			return fmt.Errorf("preparing a session: %w", err)
		}
	}
	for _, c := range []*sql.Conn{x.control, x.late} {
		if err := exec(ctx, c, patience); err != nil {
			return fmt.Errorf("preparing a session: %w", err)
		}
	}
	return nil
}

func (x *session) checkPrimary(ctx context.Context) error {
	var standby bool
	if err := x.control.QueryRowContext(ctx, `SELECT pg_is_in_recovery()`).Scan(&standby); err != nil {
		return fmt.Errorf("asking whether the server is a standby: %w", err)
	}
	if standby {
		return fmt.Errorf("the server at %s is a standby, which cannot export a snapshot and may be behind: give the primary's address", address(x.config))
	}
	return nil
}

// checkSessions proves that each session keeps a backend of its own. A transaction pooler hands the backend of an idle session to another
// one that begins a transaction: so one session is marked, all others begin one, and then the first must be what it was.
func (x *session) checkSessions(ctx context.Context) error {
	ctx, cancel := x.s.Clock.WithTimeout(ctx, probeTimeout)
	defer cancel()
	refuse := func(what string) error {
		return fmt.Errorf("%s is no PostgreSQL server but a pooler: %s; connect to PostgreSQL itself, not through PgBouncer (or the like) in transaction mode", address(x.config), what)
	}
	const mark = "scalardb.session"
	var pid int64
	if err := x.control.QueryRowContext(ctx, `SELECT pg_backend_pid(), set_config($1, $2, false) IS NULL`, mark, x.run.ID).Scan(&pid, new(bool)); err != nil {
		return fmt.Errorf("checking the sessions: %w", err)
	}
	seen := map[int64]bool{pid: true}
	proxied := false
	defer func() {
		for _, c := range x.warm {
			_ = c.Exec(ctx, "ROLLBACK").Close()
		}
	}()
	for _, c := range x.warm {
		results, err := c.Exec(ctx, "BEGIN READ ONLY; SELECT pg_backend_pid()").ReadAll()
		if ctx.Err() != nil {
			return refuse(fmt.Sprintf("a session got no backend within %s while others were in a transaction", probeTimeout))
		}
		if err != nil || len(results) != 2 || len(results[1].Rows) != 1 {
			return fmt.Errorf("checking the sessions: %w", errors.Join(err, errors.New("no answer to BEGIN")))
		}
		p, err := strconv.ParseInt(string(results[1].Rows[0][0]), 10, 64)
		if err != nil {
			return fmt.Errorf("checking the sessions: %w", err)
		}
		if seen[p] {
			return refuse(fmt.Sprintf("two of its sessions have the same backend (process %d)", p))
		}
		seen[p] = true
		proxied = proxied || p != int64(c.PID())
	}
	var again int64
	var value sql.NullString
	err := x.control.QueryRowContext(ctx, `SELECT pg_backend_pid(), current_setting($1, true)`, mark).Scan(&again, &value)
	switch {
	case ctx.Err() != nil:
		return refuse(fmt.Sprintf("a session got no backend within %s while others were in a transaction", probeTimeout))
	case err != nil:
		return fmt.Errorf("checking the sessions: %w", err)
	case again != pid || value.String != x.run.ID:
		return refuse("a session does not keep its backend and its settings")
	}
	if proxied {
		x.facts.Warnings = append(x.facts.Warnings, fmt.Sprintf("Something stands between this machine and PostgreSQL at %s (a pooler or proxy): it keeps sessions, but the dump is safer and faster without it.", address(x.config)))
	}
	return nil
}

func (x *session) readIdentity(ctx context.Context) error {
	id, err := systemIdentifier(ctx, x.control)
	if err != nil {
		return err
	}
	x.facts.SourceID = id + "/" + x.s.Database
	var encoding, collate, ctype, provider, locale string
	err = x.control.QueryRowContext(ctx, `SELECT pg_encoding_to_char(d.encoding), d.datcollate, d.datctype, COALESCE(to_jsonb(d) ->> 'datlocprovider', 'c'),
		COALESCE(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale', '') FROM pg_database d WHERE d.datname = current_database()`).
		Scan(&encoding, &collate, &ctype, &provider, &locale)
	if err != nil {
		return fmt.Errorf("reading the database's encoding: %w", err)
	}
	x.extra["encoding"], x.extra["collate"], x.extra["ctype"], x.extra["locale_provider"], x.extra["locale"] = encoding, collate, ctype, provider, locale
	return nil
}

// readSchema reads what there is to be dumped, and whether it may be.
func (x *session) readSchema(ctx context.Context) error {
	// Sizes take a lock each: a schema change under way must not hold preflight up for long.
	if err := exec(ctx, x.control, fmt.Sprintf("SET lock_timeout = %d", probeTimeout.Milliseconds())); err != nil {
		return fmt.Errorf("preparing a session: %w", err)
	}
	var err error
	if x.inventory, err = relational.ReadInventory(ctx, x.control, Dialect{}, x.s.Layout); err != nil {
		return err
	}
	if x.fingerprint, err = relational.Fingerprint(ctx, x.control, Dialect{}, x.inventory.Namespaces); err != nil {
		return err
	}
	for _, t := range x.inventory.Missing {
		x.facts.Warnings = append(x.facts.Warnings, fmt.Sprintf("ScalarDB's metadata names table %s.%s, which is not in the database (or lacks columns): it cannot be backed up.", t.Namespace, t.Name))
	}
	rows, err := x.control.QueryContext(ctx, `SELECT n.nspname, COALESCE(c.relname, ''), COALESCE(c.relkind::text, ''), COALESCE(c.oid::int8, 0), COALESCE(c.relpersistence = 'p', true),
		has_schema_privilege(n.oid, 'USAGE'), COALESCE(has_table_privilege(c.oid, 'SELECT'), true), COALESCE(row_security_active(c.oid), false),
		CASE WHEN c.relkind IN ('r', 'm') THEN pg_table_size(c.oid) ELSE 0 END
		FROM pg_namespace n LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
		WHERE n.nspname = ANY($1) ORDER BY 1, 2`, x.inventory.Namespaces)
	if err != nil {
		return fmt.Errorf("reading privileges and sizes of ScalarDB's tables: %w", err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err says it
	var errs []error
	denied := map[string]bool{}
	for rows.Next() {
		var namespace, name string
		var r relation
		var usage, readable, filtered bool
		if err := rows.Scan(&namespace, &name, &r.kind, &r.oid, &r.persistent, &usage, &readable, &filtered, &r.size); err != nil {
			return fmt.Errorf("reading privileges and sizes of ScalarDB's tables: %w", err)
		}
		if len(x.schemas) == 0 || x.schemas[len(x.schemas)-1] != namespace {
			x.schemas = append(x.schemas, namespace)
		}
		if !usage && !denied[namespace] {
			denied[namespace] = true
			errs = append(errs, fmt.Errorf("user %s may not use schema %s: GRANT USAGE ON SCHEMA %s TO %s", x.config.User, namespace, quote(namespace), quote(x.config.User)))
		}
		if name == "" {
			continue
		}
		r.name = Dialect{}.Table(namespace, name)
		x.relations = append(x.relations, r)
		switch {
		case !readable:
			errs = append(errs, fmt.Errorf("user %s may not read %s: GRANT SELECT ON %s TO %s (pg_read_all_data, from PostgreSQL 14 on, has it for all)", x.config.User, r.name, r.name, quote(x.config.User)))
		case filtered:
			errs = append(errs, fmt.Errorf("row-level security hides rows of %s from user %s: use a role with BYPASSRLS, or the table's owner", r.name, x.config.User))
		}
		switch {
		case r.kind == "f":
			x.facts.Warnings = append(x.facts.Warnings, fmt.Sprintf("%s is a foreign table: its definition is dumped, its data is not.", r.name))
		case !r.persistent && r.kind == "r":
			x.facts.Warnings = append(x.facts.Warnings, fmt.Sprintf("%s is an unlogged table: it is dumped, but PostgreSQL empties it after a crash.", r.name))
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("reading privileges and sizes of ScalarDB's tables: %w", err)
	}
	if err := x.checkLocks(ctx); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// checkLocks: every session locks every table, and the server's table of locks has a fixed size.
func (x *session) checkLocks(ctx context.Context) error {
	var room int64
	err := x.control.QueryRowContext(ctx, `SELECT current_setting('max_locks_per_transaction')::int8 * (current_setting('max_connections')::int8 + current_setting('max_prepared_transactions')::int8)`).Scan(&room)
	if err != nil {
		return fmt.Errorf("reading the size of the lock table: %w", err)
	}
	// The server has room for that many locked tables and twice as many holders; half of each is left to the others.
	tables, sessions := int64(len(x.lockable())), int64(x.s.jobs()+3)
	if tables > room/2 || tables*sessions > room {
		return fmt.Errorf("%d tables locked by %d sessions could exhaust the server's lock table: lower jobs, or raise max_locks_per_transaction", tables, sessions)
	}
	return nil
}

func (x *session) lockable() (names []string) {
	for _, r := range x.relations {
		switch r.kind {
		case "r", "p", "v":
			names = append(names, r.name)
		}
	}
	return names
}

// checkRoom compares the tables' size with what is free: the spool takes it whole, the catalog about a third of it. Both are estimates:
// text may be longer or shorter than the server's own form.
func (x *session) checkRoom(ctx context.Context) error {
	var raw int64
	for _, r := range x.relations {
		raw += r.size
	}
	_, local := x.run.Catalog.(engine.LocalDirectory)
	var errs []error
	if reporter, ok := x.run.Catalog.(engine.SpaceReporter); ok {
		need := raw / 3
		if local {
			need += raw
		}
		free, err := reporter.Free(ctx)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("asking for the room in %s: %w", x.run.Catalog.Describe(), err))
		case free < need:
			errs = append(errs, fmt.Errorf("%s has %d MiB free, and the dump needs about %d MiB", x.run.Catalog.Describe(), free>>20, need>>20))
		}
	}
	if !local {
		var fs unix.Statfs_t
		if err := unix.Statfs(os.TempDir(), &fs); err != nil {
			errs = append(errs, fmt.Errorf("asking for the room in %s: %w", os.TempDir(), err))
		} else if free := int64(fs.Bavail) * fs.Bsize; free < raw { //nolint:gosec,unconvert // no file system is that big; the types differ by system
			errs = append(errs, fmt.Errorf("%s has %d MiB free, and the dump needs about %d MiB there on its way to the catalog: set TMPDIR", os.TempDir(), free>>20, raw>>20))
		}
	}
	return errors.Join(errs...)
}

// Facts are preflight's.
func (x *session) Facts() engine.Facts { return x.facts }

// MeasureClock uses the session whose snapshot is not moved by it.
func (x *session) MeasureClock(ctx context.Context) (engine.ClockBound, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return measureClock(ctx, x.s.Clock, x.control)
}

// Capture locks first and takes the snapshot then. LOCK TABLE itself takes no snapshot, so the one that follows is later than the locks: what
// it sees was not truncated or rewritten by a transaction that had the table before us, and cannot be by one after us. The other way round
// there would be a gap, in which a TRUNCATE or a rewriting ALTER TABLE (neither is versioned) takes the rows that the snapshot should see.
func (x *session) Capture(ctx context.Context) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	lock := fmt.Sprintf("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL lock_timeout = %d; LOCK TABLE %s IN ACCESS SHARE MODE; SET LOCAL lock_timeout = 0",
		lockTimeout.Milliseconds(), strings.Join(x.lockable(), ", "))
	steps := []func() error{
		func() error { return exec(ctx, x.control, lock) },
		func() error { return exec(ctx, x.late, lock) },
	}
	for _, c := range x.warm {
		steps = append(steps, func() error { return c.Exec(ctx, lock).Close() })
	}
	if err := together(steps); err != nil {
		var pg *pgconn.PgError
		if errors.As(err, &pg) && (pg.Code == "55P03" || pg.Code == "40P01") {
			return fmt.Errorf("locking ScalarDB's tables against schema changes: one is under way in this window (%w); let it finish, then take the backup again", err)
		}
		return fmt.Errorf("locking ScalarDB's tables against schema changes: %w", err)
	}
	if err := x.control.QueryRowContext(ctx, `SELECT pg_export_snapshot(), txid_current_snapshot()::text`).Scan(&x.id, &x.first); err != nil {
		return fmt.Errorf("exporting the snapshot: %w", err)
	}
	steps = nil
	for _, c := range x.warm {
		steps = append(steps, func() error { return c.Exec(ctx, "SET TRANSACTION SNAPSHOT "+literal(x.id)).Close() })
	}
	if err := together(steps); err != nil {
		return fmt.Errorf("adopting the snapshot: %w", err)
	}
	return nil
}

// together runs all at once, and returns all errors.
func together(steps []func() error) error {
	errs := make([]error, len(steps))
	var wg sync.WaitGroup
	for i, f := range steps {
		wg.Go(func() { errs[i] = f() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Await runs pg_dump and compresses what it wrote; meanwhile the witness finishes its look, and a write that it finds ends the dump.
func (x *session) Await(ctx context.Context) (engine.Captured, error) {
	var out engine.Captured
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var seen witness
	var looked error
	var wg sync.WaitGroup
	wg.Go(func() {
		if seen, looked = x.look(ctx); looked != nil {
			cancel(looked)
		}
	})
	artifact, err := x.dump(ctx)
	if err != nil {
		cancel(err) // no use in looking on
	}
	wg.Wait()
	var void *engine.VoidError
	switch {
	case errors.As(looked, &void):
		return out, looked
	case err != nil:
		return out, err
	case looked != nil:
		return out, looked
	}
	out.Artifacts = []engine.Artifact{artifact}
	out.Tables = seen.tables
	out.HasCoordinator = x.inventory.Coordinator != nil
	out.CoordinatorNewest = seen.newest
	namespaces, err := json.Marshal(x.schemas)
	if err != nil {
		return out, fmt.Errorf("recording the namespaces: %w", err)
	}
	out.Extra = x.extra
	out.Extra["namespaces"] = string(namespaces)
	return out, nil
}

// dump returns the artifact, complete in the catalog; whatever happens, no child and no spool is left.
func (x *session) dump(ctx context.Context) (engine.Artifact, error) {
	spool, remove, err := dump.Spool(x.run.Custody, x.run.Catalog, x.run.ID, x.s.Storage)
	if err != nil {
		return engine.Artifact{}, err
	}
	defer remove()
	target := filepath.Join(spool, "dump")
	if err := x.runDump(ctx, target); err != nil {
		return engine.Artifact{}, err
	}
	objects, err := x.store(ctx, target)
	if err != nil {
		return engine.Artifact{}, err
	}
	return dump.WriteIndex(ctx, x.run.Catalog, artifactKind, x.prefix, objects)
}

func (x *session) runDump(ctx context.Context, target string) error {
	r, err := startRelay(ctx, x.run.Custody, x.nextSession, inSnapshot)
	if err != nil {
		return err
	}
	defer r.close()
	args := append(r.args(), "--format=directory", "--jobs="+strconv.Itoa(x.s.jobs()), "--snapshot="+x.id, "--compress=0", "--no-sync", "--strict-names", "--file="+target)
	for _, n := range x.schemas {
		args = append(args, "--schema="+quote(n)) // a pattern, but not within quotes
	}
	p, err := dump.StartChild(ctx, dump.Child{
		Path: x.pgDump.path, Name: "pg_dump", Args: append(args, "postgres"), Env: toolEnv, Custody: x.run.Custody, Clock: x.s.Clock,
		OnStderr: func(line string) { x.report("pg_dump says", map[string]any{"line": line}) },
	})
	if err != nil {
		return err
	}
	if err := p.Wait(); err != nil {
		return errors.Join(r.err(), err)
	}
	return r.err()
}

// nextSession gives a warm session away.
func (x *session) nextSession(context.Context) (*pgconn.HijackedConn, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.warmNext >= len(x.warm) {
		return nil, fmt.Errorf("pg_dump asked for more than %d sessions, which is not how it works in the versions this provider knows", len(x.warm))
	}
	c := x.warm[x.warmNext]
	x.warmNext++
	return handOver(c)
}

// store compresses the files of the spool into the catalog, and removes each when it is there.
func (x *session) store(ctx context.Context, folder string) ([]dump.Stored, error) {
	files, err := os.ReadDir(folder)
	if err != nil {
		return nil, fmt.Errorf("reading the spool folder: %w", err)
	}
	stored := make([]dump.Stored, len(files))
	next := make(chan int)
	var steps []func() error
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for range min(x.s.jobs(), len(files)) {
		steps = append(steps, func() error {
			for i := range next {
				var err error
				if stored[i], err = x.storeFile(ctx, filepath.Join(folder, files[i].Name()), x.prefix+files[i].Name()+".zst"); err != nil {
					cancel(err)
					return err
				}
			}
			return nil
		})
	}
	go func() {
		defer close(next)
		for i := range files {
			select {
			case next <- i:
			case <-ctx.Done():
				return
			}
		}
	}()
	if err := together(steps); err != nil {
		return nil, err
	}
	return stored, ctx.Err()
}

func (x *session) storeFile(ctx context.Context, file, name string) (dump.Stored, error) {
	f, err := os.Open(file)
	if err != nil {
		return dump.Stored{}, fmt.Errorf("reading the spool folder: %w", err)
	}
	defer f.Close() //nolint:errcheck // read only
	o, err := dump.NewObject(ctx, x.run.Catalog, name)
	if err != nil {
		return dump.Stored{}, err
	}
	defer o.Close() //nolint:errcheck // Commit said it
	if _, err := io.Copy(o, f); err != nil {
		return dump.Stored{}, err
	}
	s, err := o.Commit(ctx)
	if err != nil {
		return dump.Stored{}, err
	}
	return s, os.Remove(file)
}

func (x *session) report(message string, fields map[string]any) {
	if x.run.Report != nil {
		x.run.Report(message, fields)
	}
}

// Discard removes this run's objects of this storage.
func (x *session) Discard(ctx context.Context) error {
	return dump.Discard(ctx, x.run.Catalog, x.prefix)
}

// Close ends all sessions, and so releases snapshot and locks.
func (x *session) Close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, c := range x.warm[x.warmNext:] {
		abandon(c)
	}
	x.warm, x.warmNext = nil, 0
	for _, c := range []*sql.Conn{x.control, x.late} {
		if c != nil {
			_ = c.Raw(func(any) error { return errDrop })
			_ = c.Close()
		}
	}
	x.control, x.late = nil, nil
	if x.db == nil {
		return nil
	}
	err := x.db.Close()
	x.db = nil
	return err
}

// errDrop makes database/sql forget a connection instead of keeping it: its transaction must end, and nobody waits for that.
var errDrop = driver.ErrBadConn

// abandon ends a session without waiting for the server.
func abandon(c *pgconn.PgConn) {
	if h, err := c.Hijack(); err == nil {
		_ = h.Conn.Close()
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = c.Close(ctx)
}
