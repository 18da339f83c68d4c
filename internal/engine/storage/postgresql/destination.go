package postgresql

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sys/unix"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/dump"
)

// Destination is a database to be restored into: a new one, or one without tables.
type Destination struct{ s Settings }

// NewDestination opens nothing yet.
func NewDestination(s Settings) *Destination { return &Destination{s} }

// Close has nothing to release: every call closes what it opened.
func (d *Destination) Close() error { return nil }

// artifact is the dump of a record.
func artifact(r engine.StorageBackup) (engine.Artifact, error) {
	if len(r.Record.Artifacts) != 1 || r.Record.Artifacts[0].Kind != artifactKind {
		return engine.Artifact{}, fmt.Errorf("storage %s of the backup has no %s: it was taken by driver %q", r.Storage, artifactKind, r.Record.Driver)
	}
	return r.Record.Artifacts[0], nil
}

// number is a whole number of a record's Extra; 0 when it is not there.
func number(r engine.StorageBackup, key string) int {
	n, _ := strconv.Atoi(r.Record.Extra[key])
	return n
}

// with runs f on one connection to a database of the server.
func (d *Destination) with(ctx context.Context, database string, f func(*sql.Conn) error) error {
	c, err := d.s.config(database)
	if err != nil {
		return err
	}
	db := open(c, 1)
	defer db.Close() //nolint:errcheck // nothing was left to be written
	conn, err := db.Conn(ctx)
	if err != nil {
		return explain(c, err)
	}
	defer conn.Close() //nolint:errcheck // see above
	return f(conn)
}

// databaseOID is 0 when there is no such database.
func databaseOID(ctx context.Context, conn *sql.Conn, name string) (oid int64, err error) {
	err = conn.QueryRowContext(ctx, `SELECT oid::int8 FROM pg_database WHERE datname = $1`, name).Scan(&oid)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("looking for database %s: %w", name, err)
	}
	return oid, nil
}

// target is what preflight finds, and Restore looks at again before it writes.
type target struct {
	exists  bool
	oid     int64
	version int
	system  string
}

// Preflight looks at the backup, the target and the tools.
func (d *Destination) Preflight(ctx context.Context, r engine.StorageBackup) error {
	var errs []error
	a, err := artifact(r)
	if err != nil {
		return err
	}
	if err := (dump.Keeper{Catalog: r.Catalog}).Inspect(ctx, a); err != nil {
		errs = append(errs, fmt.Errorf("looking at the dump: %w", err))
	} else if err := d.checkRoom(ctx, r, a); err != nil {
		errs = append(errs, err)
	}
	t, err := d.look(ctx)
	if err != nil {
		errs = append(errs, err)
	}
	if err == nil && t.version/10000 < number(r, "server_version_num")/10000 {
		errs = append(errs, fmt.Errorf("the dump is from PostgreSQL %d, and the server to restore into is of version %d: an older server may not understand it", number(r, "server_version_num")/10000, t.version/10000))
	}
	if _, err := d.s.findTool(ctx, r.Custody, "pg_restore", number(r, "pg_dump_major")); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (d *Destination) checkRoom(ctx context.Context, r engine.StorageBackup, a engine.Artifact) error {
	ix, err := dump.ReadIndex(ctx, r.Catalog, a)
	if err != nil {
		return err
	}
	var need int64
	for _, o := range ix.Objects {
		need += o.RawSize
	}
	where := os.TempDir()
	var free int64
	if _, local := r.Catalog.(engine.LocalDirectory); local {
		reporter, ok := r.Catalog.(engine.SpaceReporter)
		if !ok {
			return nil
		}
		where = r.Catalog.Describe()
		if free, err = reporter.Free(ctx); err != nil {
			return fmt.Errorf("asking for the room in %s: %w", where, err)
		}
	} else {
		var fs unix.Statfs_t
		if err := unix.Statfs(where, &fs); err != nil {
			return fmt.Errorf("asking for the room in %s: %w", where, err)
		}
		free = int64(fs.Bavail) * fs.Bsize //nolint:gosec,unconvert // no file system is that big; the types differ by system
	}
	if free < need {
		return fmt.Errorf("%s has %d MiB free, and the dump needs %d MiB there on its way to the server", where, free>>20, need>>20)
	}
	return nil
}

// look refuses a target that is no place to restore into.
func (d *Destination) look(ctx context.Context) (t target, err error) {
	var mayCreate bool
	err = d.with(ctx, d.s.maintenance(), func(conn *sql.Conn) error {
		var standby bool
		if err := conn.QueryRowContext(ctx, `SELECT pg_is_in_recovery(), (SELECT rolsuper OR rolcreatedb FROM pg_roles WHERE rolname = current_user)`).Scan(&standby, &mayCreate); err != nil {
			return fmt.Errorf("asking the server: %w", err)
		}
		if standby {
			return errors.New("the server is a standby: give the primary's address")
		}
		if t.version, _, err = serverVersion(ctx, conn); err != nil {
			return err
		}
		if t.system, err = systemIdentifier(ctx, conn); err != nil {
			return err
		}
		t.oid, err = databaseOID(ctx, conn, d.s.Database)
		return err
	})
	if err != nil {
		return t, err
	}
	t.exists = t.oid != 0
	if !t.exists {
		if !mayCreate {
			return t, fmt.Errorf("database %s does not exist, and the user may not create it: ALTER ROLE ... CREATEDB, or create an empty database", d.s.Database)
		}
		return t, nil
	}
	return t, d.with(ctx, d.s.Database, func(conn *sql.Conn) error { return d.checkEmpty(ctx, conn) })
}

// checkEmpty refuses a database that somebody uses: what extensions brought along does not count.
func (d *Destination) checkEmpty(ctx context.Context, conn *sql.Conn) error {
	var n int
	var example sql.NullString
	err := conn.QueryRowContext(ctx, `SELECT count(*), min(n.nspname || '.' || c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
			AND NOT EXISTS (SELECT 1 FROM pg_depend p WHERE p.classid = 'pg_class'::regclass AND p.objid = c.oid AND p.deptype = 'e')`).Scan(&n, &example)
	if err != nil {
		return fmt.Errorf("looking for tables in database %s: %w", d.s.Database, err)
	}
	if n > 0 {
		return fmt.Errorf("database %s is not empty (%d tables, sequences and views, among them %s): a restore goes into a new or an empty database; give another name", d.s.Database, n, example.String)
	}
	var may bool
	if err := conn.QueryRowContext(ctx, `SELECT has_database_privilege(current_database(), 'CREATE')`).Scan(&may); err != nil {
		return fmt.Errorf("asking for the privileges on database %s: %w", d.s.Database, err)
	}
	if !may {
		return fmt.Errorf("the user may not create schemas in database %s: GRANT CREATE ON DATABASE %s", d.s.Database, quote(d.s.Database))
	}
	return nil
}

// Restore fetches the dump, proves it, and only then writes.
func (d *Destination) Restore(ctx context.Context, r engine.StorageBackup) (engine.Restored, error) {
	var out engine.Restored
	a, err := artifact(r)
	if err != nil {
		return out, err
	}
	t, err := d.look(ctx)
	if err != nil {
		return out, err
	}
	pgRestore, err := d.s.findTool(ctx, r.Custody, "pg_restore", number(r, "pg_dump_major"))
	if err != nil {
		return out, err
	}
	c, err := d.s.config(d.s.Database)
	if err != nil {
		return out, err
	}
	spool, remove, err := dump.Spool(r.Custody, r.Catalog, r.RunID, r.Storage)
	if err != nil {
		return out, err
	}
	defer remove()
	d.report(r, "fetching the dump", map[string]any{"bytes": a.Size})
	folder := filepath.Join(spool, "dump")
	if err := d.fetch(ctx, r.Catalog, a, folder); err != nil {
		return out, err
	}
	object := engine.RestoredObject{Kind: objectKind, ID: d.s.Database, Created: !t.exists, Extra: map[string]string{"system_identifier": t.system}}
	if !t.exists {
		if t.oid, err = d.create(ctx, r); err != nil {
			return out, err
		}
	}
	object.Extra["oid"] = strconv.FormatInt(t.oid, 10)
	out.Objects = []engine.RestoredObject{object}
	out.Endpoint, out.Port = c.Host, int64(c.Port)
	if !strings.HasPrefix(c.Host, "/") {
		out.Properties = map[string]string{"storage": "jdbc", "contact_points": "jdbc:postgresql://" + address(c) + "/" + d.s.Database}
	}
	d.report(r, "restoring", map[string]any{"database": d.s.Database, "pg_restore": pgRestore.version})
	if err := d.fill(ctx, r, c, pgRestore, folder); err != nil {
		what := "it was empty before: empty it, and try again"
		if object.Created {
			what = "it was created by this restore, which deletes it when it is destroyed or replaced"
		}
		return out, fmt.Errorf("database %s at %s is only partly filled (%s): %w", d.s.Database, address(c), what, err)
	}
	return out, nil
}

// fetch decompresses all objects into a folder. Each proves itself to its last byte.
func (d *Destination) fetch(ctx context.Context, catalog engine.Catalog, a engine.Artifact, folder string) error {
	ix, err := dump.ReadIndex(ctx, catalog, a)
	if err != nil {
		return err
	}
	if err := os.Mkdir(folder, 0o700); err != nil {
		return fmt.Errorf("making a spool folder: %w", err)
	}
	for _, o := range ix.Objects {
		name, ok := strings.CutSuffix(path.Base(o.Name), ".zst")
		if !ok || name == "" || path.Dir(o.Name) != path.Dir(a.ID) {
			return fmt.Errorf("fetching the dump: %s is no object of a PostgreSQL dump", o.Name)
		}
		if err := fetchOne(ctx, catalog, o, filepath.Join(folder, name)); err != nil {
			return fmt.Errorf("fetching the dump: %w", err)
		}
	}
	return nil
}

func fetchOne(ctx context.Context, catalog engine.Catalog, o dump.Stored, file string) error {
	in, err := dump.Open(ctx, catalog, o)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // read only
	out, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// create makes the database as the source was: text sorts as it did there.
func (d *Destination) create(ctx context.Context, r engine.StorageBackup) (oid int64, err error) {
	statement := "CREATE DATABASE " + quote(d.s.Database) + " TEMPLATE template0"
	extra := r.Record.Extra
	if e := extra["encoding"]; e != "" {
		statement += " ENCODING " + literal(e)
	}
	if e := extra["collate"]; e != "" {
		statement += " LC_COLLATE " + literal(e)
	}
	if e := extra["ctype"]; e != "" {
		statement += " LC_CTYPE " + literal(e)
	}
	switch extra["locale_provider"] {
	case "i":
		statement += " LOCALE_PROVIDER icu ICU_LOCALE " + literal(extra["locale"])
	case "b":
		statement += " LOCALE_PROVIDER builtin BUILTIN_LOCALE " + literal(extra["locale"])
	}
	err = d.with(ctx, d.s.maintenance(), func(conn *sql.Conn) error {
		// Once it is sent, the answer is waited for: a database that came to be without our knowing is nobody's to delete.
		if err := exec(context.WithoutCancel(ctx), conn, statement); err != nil {
			return fmt.Errorf("creating database %s: %w (where the server lacks the source's locale, create an empty database yourself)", d.s.Database, err)
		}
		if err := exec(context.WithoutCancel(ctx), conn, "COMMENT ON DATABASE "+quote(d.s.Database)+" IS "+literal(markComment(r.RunID))); err != nil {
			return fmt.Errorf("marking database %s as made by this restore: %w", d.s.Database, err)
		}
		oid, err = databaseOID(context.WithoutCancel(ctx), conn, d.s.Database)
		return err
	})
	return oid, err
}

// markComment tells which restore made a database, should it die before anything is recorded.
func markComment(runID string) string { return "made by scalardb_snapshot_restore, run " + runID }

// Leftover implements engine.LeftoverFinder: the database, if a restore of that run id made it.
func (d *Destination) Leftover(ctx context.Context, runID string) (out engine.Restored, err error) {
	err = d.with(ctx, d.s.maintenance(), func(conn *sql.Conn) error {
		var oid int64
		err := conn.QueryRowContext(ctx, `SELECT oid::int8 FROM pg_database WHERE datname = $1 AND shobj_description(oid, 'pg_database') = $2`, d.s.Database, markComment(runID)).Scan(&oid)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("looking for what run %s left: %w", runID, err)
		}
		system, err := systemIdentifier(ctx, conn)
		if err != nil {
			return err
		}
		out.Objects = []engine.RestoredObject{{Kind: objectKind, ID: d.s.Database, Created: true, Extra: map[string]string{"system_identifier": system, "oid": strconv.FormatInt(oid, 10)}}}
		return nil
	})
	return out, err
}

func (d *Destination) fill(ctx context.Context, r engine.StorageBackup, c *pgx.ConnConfig, pgRestore tool, folder string) error {
	relay, err := startRelay(ctx, r.Custody, func(ctx context.Context) (*pgconn.HijackedConn, error) {
		conn, err := pgconn.ConnectConfig(ctx, &c.Config)
		if err != nil {
			return nil, explain(c, err)
		}
		return handOver(conn)
	}, nil)
	if err != nil {
		return err
	}
	defer relay.close()
	args := append(relay.args(), "--format=directory", "--jobs="+strconv.Itoa(d.s.jobs()), "--no-owner", "--no-privileges", "--exit-on-error", "--dbname=postgres", folder)
	p, err := dump.StartChild(ctx, dump.Child{
		Path: pgRestore.path, Name: "pg_restore", Args: args, Env: toolEnv, Custody: r.Custody, Clock: d.s.Clock,
		OnStderr: func(line string) { d.report(r, "pg_restore says", map[string]any{"line": line}) },
	})
	if err != nil {
		return err
	}
	if err := p.Wait(); err != nil {
		return errors.Join(relay.err(), err)
	}
	if err := relay.err(); err != nil {
		return err
	}
	return d.with(ctx, d.s.Database, func(conn *sql.Conn) error { return d.settle(ctx, conn, r) })
}

// settle makes sure of what pg_restore's good end means, and gathers statistics: a new database has none, and would answer slowly at first.
func (d *Destination) settle(ctx context.Context, conn *sql.Conn, r engine.StorageBackup) error {
	var namespaces []string
	if err := json.Unmarshal([]byte(cmp.Or(r.Record.Extra["namespaces"], "[]")), &namespaces); err != nil {
		return fmt.Errorf("reading the backup's namespaces: %w", err)
	}
	var found int
	if err := conn.QueryRowContext(ctx, `SELECT count(*) FROM pg_namespace WHERE nspname = ANY($1)`, namespaces).Scan(&found); err != nil {
		return fmt.Errorf("looking for the restored schemas: %w", err)
	}
	if found != len(namespaces) {
		return fmt.Errorf("pg_restore ended well, but of the schemas %s only %d are there", strings.Join(namespaces, ", "), found)
	}
	if err := exec(ctx, conn, "ANALYZE"); err != nil {
		d.report(r, "gathering statistics", map[string]any{"error": err.Error()})
	}
	return ctx.Err()
}

func (d *Destination) report(r engine.StorageBackup, message string, fields map[string]any) {
	if r.Report != nil {
		r.Report(message, fields)
	}
}

// Inspect looks for the database by the identity that a drop and re-creation changes.
func (d *Destination) Inspect(ctx context.Context, r engine.Restored) error {
	return d.with(ctx, d.s.maintenance(), func(conn *sql.Conn) error {
		for _, o := range r.Objects {
			same, err := isSame(ctx, conn, o)
			if err != nil {
				return err
			}
			if !same {
				return fmt.Errorf("database %s: %w", o.ID, engine.ErrNotFound)
			}
		}
		return nil
	})
}

// isSame says whether the recorded database is still there: its OID in its cluster.
func isSame(ctx context.Context, conn *sql.Conn, o engine.RestoredObject) (bool, error) {
	system, err := systemIdentifier(ctx, conn)
	if err != nil {
		return false, err
	}
	oid, err := databaseOID(ctx, conn, o.ID)
	if err != nil {
		return false, err
	}
	return oid != 0 && strconv.FormatInt(oid, 10) == o.Extra["oid"] && system == o.Extra["system_identifier"], nil
}

// Delete drops the databases that a restore created, and no other of the same name.
func (d *Destination) Delete(ctx context.Context, r engine.Restored) error {
	return d.with(ctx, d.s.maintenance(), func(conn *sql.Conn) error {
		for _, o := range r.Objects {
			if !o.Created || o.Kind != objectKind {
				continue
			}
			same, err := isSame(ctx, conn, o)
			if err != nil {
				return err
			}
			if !same {
				continue
			}
			if err := drop(ctx, conn, o.ID); err != nil {
				return fmt.Errorf("dropping database %s: %w", o.ID, err)
			}
		}
		return nil
	})
}

// drop ends this user's own sessions first: a backend of a killed pg_restore may still build an index. A plain DROP DATABASE waits a few seconds for
// others, and ends autovacuum; FORCE, which may end others, fails for a user who is no superuser when autovacuum is one of them. So FORCE comes last.
func drop(ctx context.Context, conn *sql.Conn, database string) error {
	if _, err := conn.ExecContext(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND usename = current_user`, database); err != nil {
		return fmt.Errorf("ending its sessions: %w", err)
	}
	err := exec(ctx, conn, "DROP DATABASE "+quote(database))
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Code != "55006" {
		return err
	}
	if version, _, err := serverVersion(ctx, conn); err != nil || version < 130000 {
		return errors.Join(pg, err)
	}
	return exec(ctx, conn, "DROP DATABASE "+quote(database)+" WITH (FORCE)")
}
