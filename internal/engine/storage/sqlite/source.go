package sqlite

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/relational"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/dump"
)

type source struct {
	config           Config
	storage          string
	catalogIsDefault bool
	maxRollback      int64 // bytes
}

// NewSource is the source of one database file; storage is its name in the backup.
func NewSource(c Config, storage string, catalogIsDefault bool) engine.Source {
	return &source{config: c, storage: storage, catalogIsDefault: catalogIsDefault, maxRollback: maxRollback}
}

// clock of a file is this machine's: what is stored is stamped by ScalarDB's servers, for which the engine has a bound of its own.
type clock struct{}

func (clock) MeasureClock(context.Context) (engine.ClockBound, error) {
	return engine.ClockBound{Uncertainty: time.Millisecond}, nil
}

func (clock) Close() error { return nil }

// OpenClock needs nothing.
func (s *source) OpenClock(context.Context) (engine.ClockSession, error) { return clock{}, nil }

// session is one run. The two connections are opened in preflight, so that the window waits for no open and no lock of another kind.
type session struct {
	clock
	source
	run    engine.Run
	path   string // absolute
	prefix string // of this storage's objects in the catalog
	facts  engine.Facts
	born   map[string]string // identity of the file

	db      *sql.DB
	reader  *sql.Conn // begins its transaction in Capture: the snapshot
	watcher *sql.Conn // looks at what came after it

	wal       bool
	spool     string // rollback-journal modes: the folder of the copy
	unspool   func()
	inventory relational.Inventory
	schema    string // as preflight found it
	version   int64  // PRAGMA data_version of the watcher, read before the snapshot

	last        *relational.Reading // of the end of the window, once it was taken
	lookPending bool                // the watcher holds the snapshot of the end of the window
	closed      bool
}

// Preflight opens the database, and keeps it open.
func (s *source) Preflight(ctx context.Context, run engine.Run) (_ engine.Session, err error) {
	path, err := filepath.Abs(s.config.Path)
	if err != nil {
		return nil, fmt.Errorf("finding %s: %w", s.config.Path, err)
	}
	n := &session{source: *s, run: run, path: path, prefix: dump.Prefix(run, s.storage), unspool: func() {}}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	var errs []error
	if s.catalogIsDefault {
		errs = append(errs, errors.New("a dump needs a catalog that outlives the run: set `catalog` in the provider block"))
	}
	if err := n.openDatabase(ctx); err != nil {
		// What follows needs the database.
		return nil, errors.Join(append(errs, fmt.Errorf("checking the SQLite database %s: %w", path, explain(err)))...)
	}
	for _, check := range []func(context.Context) error{n.checkSchema, n.checkSize} {
		if err := check(ctx); err != nil {
			errs = append(errs, fmt.Errorf("checking the SQLite database %s: %w", path, explain(err)))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if !n.wal {
		if n.spool, n.unspool, err = dump.Spool(run.Custody, run.Catalog, run.ID, s.storage); err != nil {
			return nil, err
		}
	}
	return n, nil
}

func (n *session) openDatabase(ctx context.Context) error {
	info, err := os.Stat(n.path)
	switch {
	case err != nil:
		return fmt.Errorf("%w; the provider has to run on the machine that holds the file", err)
	case !info.Mode().IsRegular():
		return errors.New("it is not a file")
	case info.Size() == 0:
		return errors.New("it is empty: create ScalarDB's tables first, or check the path")
	}
	if n.born, err = identity(n.path); err != nil {
		return err
	}
	if n.db, err = open(n.path, true); err != nil {
		return err
	}
	for _, c := range []**sql.Conn{&n.reader, &n.watcher} {
		if *c, err = n.db.Conn(ctx); err != nil {
			return err
		}
		// SQLite opens lazily, and does not know the journal mode before it has read the file.
		if err := touch(ctx, *c); err != nil {
			return err
		}
	}
	if err := n.sameFile(); err != nil {
		return err
	}
	mode, err := scalar[string](ctx, n.reader, "PRAGMA journal_mode")
	if err != nil {
		return err
	}
	n.wal = strings.EqualFold(mode, "wal")
	version, err := scalar[string](ctx, n.reader, "SELECT sqlite_version()")
	if err != nil {
		return err
	}
	n.facts = engine.Facts{
		SourceID:     sourceID(n.path, n.born),
		ToolVersions: map[string]string{"sqlite": version},
		Planned:      []engine.Artifact{{Kind: artifactKind, ID: n.prefix + dump.IndexName}},
		Witness:      "newest coordinator entry, transaction columns of all tables, data_version",
	}
	if fs := networkFileSystem(n.path); fs != "" {
		text := "locks on it may not reach other machines: run every writer, and the provider, on one machine"
		if n.wal {
			text = "WAL mode works on one machine only: run every writer, and the provider, there"
		}
		n.warn("%s lies on a network file system (%s); %s", n.path, fs, text)
	}
	return nil
}

func (n *session) checkSchema(ctx context.Context) (err error) {
	if n.inventory, err = relational.ReadInventory(ctx, n.reader, Dialect{}, n.config.Layout); err != nil {
		return err
	}
	for _, t := range n.inventory.Missing {
		n.warn("%s: ScalarDB's metadata names the table %s.%s, which is not there", n.path, t.Namespace, t.Name)
	}
	n.schema, err = fingerprint(ctx, n.reader)
	return err
}

// checkSize asks for room for the worst case, data that cannot be compressed, and a second time for the copy of a rollback-journal mode.
func (n *session) checkSize(ctx context.Context) error {
	size, err := scalar[int64](ctx, n.reader, "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")
	if err != nil {
		return err
	}
	need := map[string]int64{n.run.Catalog.Describe(): size}
	free := map[string]int64{}
	if r, ok := n.run.Catalog.(engine.SpaceReporter); ok {
		if free[n.run.Catalog.Describe()], err = r.Free(ctx); err != nil {
			return fmt.Errorf("asking for the room in %s: %w", n.run.Catalog.Describe(), err)
		}
	}
	if !n.wal {
		if size > n.maxRollback {
			return fmt.Errorf("it has %d MiB and is not in WAL mode, so it would have to be copied while everything is paused, for which %d MiB are the limit: "+
				"switch it with \"PRAGMA journal_mode=WAL\" (once; it stays)", size>>20, n.maxRollback>>20)
		}
		n.warn("%s is not in WAL mode: its %d MiB are copied inside the pause window; \"PRAGMA journal_mode=WAL\" (once; it stays) avoids that", n.path, (size+1<<20-1)>>20)
		if _, local := n.run.Catalog.(engine.LocalDirectory); local {
			need[n.run.Catalog.Describe()] += size
		} else {
			dir := os.TempDir()
			need[dir] = size
			var st unix.Statfs_t
			if unix.Statfs(dir, &st) == nil {
				free[dir] = int64(st.Bavail) * int64(st.Bsize) //nolint:unconvert // differs between architectures
			}
		}
	}
	for place, bytes := range need {
		if have, known := free[place]; known && have < bytes {
			return fmt.Errorf("its dump may need %d MiB, and %s has room for %d MiB: free some, or use another catalog", (bytes+1<<20-1)>>20, place, have>>20)
		}
	}
	return nil
}

func (n *session) warn(format string, args ...any) {
	n.facts.Warnings = append(n.facts.Warnings, fmt.Sprintf(format, args...))
}

func (n *session) Facts() engine.Facts { return n.facts }

// Capture begins the snapshot; in a rollback-journal mode it also copies it, since the transaction keeps writers from committing.
func (n *session) Capture(ctx context.Context) error { return n.told("capturing", n.capture(ctx)) }

func (n *session) capture(ctx context.Context) (err error) {
	// Before the snapshot: what commits between the two shows at the end.
	if n.version, err = dataVersion(ctx, n.watcher); err != nil {
		return err
	}
	if n.wal {
		return begin(ctx, n.reader)
	}
	if err := begin(ctx, n.reader); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rollback(ctx, n.reader)) }()
	if err := n.copyTo(ctx, n.image()); err != nil {
		return fmt.Errorf("copying it to %s: %w", n.image(), err)
	}
	return n.sameSchema(ctx, n.reader)
}

// told wraps an error, unless it is a VoidError, whose reason says it all.
func (n *session) told(doing string, err error) error {
	var void *engine.VoidError
	if err == nil || errors.As(err, &void) {
		return err
	}
	return fmt.Errorf("%s the SQLite database %s: %w", doing, n.path, explain(err))
}

// sameSchema voids the window when the schema is not the one of preflight, which the inventory is of.
func (n *session) sameSchema(ctx context.Context, q relational.Querier) error {
	schema, err := fingerprint(ctx, q)
	if err == nil && schema != n.schema {
		return &engine.VoidError{Reason: "the schema of " + n.path + " changed between the checks and the end of the pause window: a pause does not hold back DDL " +
			"(Schema Loader, ALTER TABLE, VACUUM); take the backup again when it is done"}
	}
	return err
}

func (n *session) image() string { return filepath.Join(n.spool, "image.db") }

func (n *session) copyTo(ctx context.Context, image string) (err error) {
	f, err := os.OpenFile(image, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	_, err = writeImage(ctx, n.reader, w)
	return errors.Join(err, w.Flush(), f.Close())
}

// Confirm costs one read of a counter when nothing was committed since Capture.
func (n *session) Confirm(ctx context.Context) error {
	return n.told("looking again at", n.confirm(ctx))
}

func (n *session) confirm(ctx context.Context) (err error) {
	if err := n.sameFile(); err != nil {
		return &engine.VoidError{Reason: err.Error() + " in the pause window"}
	}
	if n.wal { // otherwise Capture did it
		if err := n.sameSchema(ctx, n.reader); err != nil {
			return err
		}
	}
	version, err := dataVersion(ctx, n.watcher)
	if err != nil || version == n.version {
		return err
	}
	// A commit, or a checkpoint that began the -wal anew.
	if err := begin(ctx, n.watcher); err != nil {
		return err
	}
	if !n.wal {
		// Nobody can commit while this transaction is open: the look is finished now.
		defer func() { err = errors.Join(err, rollback(ctx, n.watcher)) }()
	}
	if err := n.sameSchema(ctx, n.watcher); err != nil {
		return err
	}
	if n.wal {
		n.lookPending = true
		return nil
	}
	return n.look(ctx)
}

// look takes the witness's reading of the end of the window.
func (n *session) look(ctx context.Context) error {
	r, err := n.reading(ctx, n.watcher)
	n.last = &r
	return err
}

// reading includes the tables: a one-phase commit leaves no coordinator entry.
func (n *session) reading(ctx context.Context, q relational.Querier) (relational.Reading, error) {
	return relational.TakeReadingWith(ctx, q, Dialect{}, n.inventory, relational.ReadingOptions{Tables: true})
}

// sameFile fails when another file took the place of the one that was opened.
func (n *session) sameFile() error {
	now, err := identity(n.path)
	if err != nil {
		return fmt.Errorf("the file is gone: %w", err)
	}
	if !sameIdentity(n.born, now) {
		return fmt.Errorf("another file took the place of %s", n.path)
	}
	return nil
}

// Await streams the image of the snapshot into the catalog.
func (n *session) Await(ctx context.Context) (engine.Captured, error) {
	c, err := n.await(ctx)
	return c, n.told("dumping", err)
}

func (n *session) await(ctx context.Context) (engine.Captured, error) {
	snapshot, release, err := n.snapshot(ctx)
	if err != nil {
		return engine.Captured{}, err
	}
	defer release()
	first, err := n.reading(ctx, snapshot)
	if err != nil {
		return engine.Captured{}, err
	}
	if err := n.judge(ctx, first); err != nil {
		return engine.Captured{}, err
	}
	captured, err := n.describe(ctx, snapshot, first)
	if err != nil {
		return engine.Captured{}, err
	}
	stored, err := n.store(ctx, snapshot)
	if err != nil {
		return engine.Captured{}, err
	}
	if n.wal {
		if err := rollback(ctx, n.reader); err != nil { // lets checkpoints pass again
			return engine.Captured{}, err
		}
	}
	artifact, err := dump.WriteIndex(ctx, n.run.Catalog, artifactKind, n.prefix, []dump.Stored{stored})
	if err != nil {
		return engine.Captured{}, err
	}
	captured.Artifacts = []engine.Artifact{artifact}
	return captured, nil
}

// snapshot is what Capture fixed: the reader's transaction, or the copy.
func (n *session) snapshot(ctx context.Context) (_ *sql.Conn, release func(), err error) {
	if n.wal {
		return n.reader, func() {}, nil
	}
	db, err := openImage(n.image())
	if err != nil {
		return nil, nil, err
	}
	c, err := db.Conn(ctx)
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	return c, func() { _ = errors.Join(c.Close(), db.Close()) }, nil // read only: there is nothing to lose
}

// judge compares the two readings of the window. Where nothing was committed after the first, it is also the last.
func (n *session) judge(ctx context.Context, first relational.Reading) error {
	if n.lookPending {
		if err := n.look(ctx); err != nil {
			return err
		}
		if err := rollback(ctx, n.watcher); err != nil {
			return err
		}
		n.lookPending = false
	}
	last := first
	if n.last != nil {
		last = *n.last
	}
	return relational.Compare(first, last, n.run.OpenedAt(), n.run.ServerClockBound)
}

// describe checks the snapshot and counts what is in it.
func (n *session) describe(ctx context.Context, snapshot *sql.Conn, first relational.Reading) (engine.Captured, error) {
	if err := quickCheck(ctx, snapshot); err != nil {
		return engine.Captured{}, err
	}
	c := engine.Captured{Extra: map[string]string{"journal_mode": "rollback"}}
	if n.wal {
		c.Extra["journal_mode"] = "wal"
	}
	if first.Coordinator != nil {
		c.HasCoordinator, c.CoordinatorNewest = true, first.Coordinator.Newest
	}
	counter := relational.NewReader(snapshot, Dialect{}, n.config.Layout, nil)
	tables, _, err := counter.Tables(ctx)
	if err != nil {
		return c, err
	}
	for _, t := range tables {
		rows, err := counter.Count(ctx, t)
		if err != nil {
			return c, err
		}
		w := engine.TableWitness{Namespace: t.Namespace, Table: t.Name, Transactional: t.Transactional, Rows: rows}
		for _, r := range first.Tables {
			if r.Namespace == t.Namespace && r.Name == t.Name {
				w.NewestCommitted = r.NewestCommitted
			}
		}
		c.Tables = append(c.Tables, w)
	}
	return c, nil
}

func (n *session) store(ctx context.Context, snapshot *sql.Conn) (_ dump.Stored, err error) {
	o, err := dump.NewObject(ctx, n.run.Catalog, n.prefix+objectName)
	if err != nil {
		return dump.Stored{}, err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	if _, err := writeImage(ctx, snapshot, o); err != nil {
		return dump.Stored{}, err
	}
	return o.Commit(ctx)
}

// writeImage writes the database as the connection's transaction sees it, page by page: the very bytes that a checkpoint of that
// snapshot would leave in the file.
func writeImage(ctx context.Context, c *sql.Conn, w io.Writer) (size int64, err error) {
	want, err := scalar[int64](ctx, c, "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")
	if err != nil {
		return 0, err
	}
	rows, err := c.QueryContext(ctx, "SELECT data FROM sqlite_dbpage ORDER BY pgno")
	if err != nil {
		return 0, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err says it
	var page sql.RawBytes
	for rows.Next() {
		if err := rows.Scan(&page); err != nil {
			return size, err
		}
		m, err := w.Write(page)
		size += int64(m)
		if err != nil {
			return size, err
		}
	}
	if err := rows.Err(); err != nil {
		return size, err
	}
	if size != want {
		return size, fmt.Errorf("internal error: read %d bytes of a database of %d", size, want)
	}
	return size, nil
}

// quickCheck is PRAGMA quick_check: all of integrity_check but that every index has an entry for every row.
func quickCheck(ctx context.Context, q relational.Querier) error {
	result, err := scalar[string](ctx, q, "PRAGMA quick_check(1)")
	if err != nil {
		return err
	}
	if result != "ok" {
		return fmt.Errorf("the database is damaged: %s", result)
	}
	return nil
}

// Discard ends the snapshot and deletes what this run wrote for this storage.
func (n *session) Discard(ctx context.Context) error {
	return errors.Join(n.Close(), dump.Discard(ctx, n.run.Catalog, n.prefix))
}

// Close ends the transactions with their connections.
func (n *session) Close() error {
	if n.closed {
		return nil
	}
	n.closed = true
	var errs []error
	for _, c := range []*sql.Conn{n.reader, n.watcher} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	if n.db != nil {
		errs = append(errs, n.db.Close())
	}
	n.unspool()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("closing %s: %w", n.path, err)
	}
	return nil
}

// begin starts a read transaction and its snapshot: BEGIN alone is lazy.
func begin(ctx context.Context, c *sql.Conn) error {
	if _, err := c.ExecContext(ctx, "BEGIN"); err != nil {
		return err
	}
	if err := touch(ctx, c); err != nil {
		return errors.Join(err, rollback(ctx, c))
	}
	return nil
}

func touch(ctx context.Context, q relational.Querier) error {
	_, err := scalar[int64](ctx, q, "SELECT count(*) FROM sqlite_schema")
	return err
}

// rollback ends a read transaction, also when ctx was cancelled: in a rollback-journal mode writers wait for it.
func rollback(ctx context.Context, c *sql.Conn) error {
	_, err := c.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
	return err
}

// dataVersion changes when another connection, of this or another process, commits. A checkpoint may change it, too.
func dataVersion(ctx context.Context, q relational.Querier) (int64, error) {
	return scalar[int64](ctx, q, "PRAGMA data_version")
}

// fingerprint covers all DDL: SQLite counts it in schema_version, whatever it touches.
func fingerprint(ctx context.Context, q relational.Querier) (string, error) {
	cookie, err := scalar[int64](ctx, q, "PRAGMA schema_version")
	if err != nil {
		return "", err
	}
	tables, err := relational.Fingerprint(ctx, q, Dialect{}, nil)
	return fmt.Sprintf("%d %s", cookie, tables), err
}

func scalar[T any](ctx context.Context, q relational.Querier, query string) (v T, err error) {
	err = q.QueryRowContext(ctx, query).Scan(&v)
	return v, err
}
