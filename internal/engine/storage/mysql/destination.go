package mysql

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/relational"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/dump"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
)

// mark is the procedure that a database made by a restore holds, with the restore's run id in its comment: databases have no
// identity of their own, so nothing else tells it from one that somebody made in its place. A procedure, and not a table: ScalarDB refuses to
// drop a namespace that holds tables it does not know. It does nothing, and dumps do not carry it on.
const mark = "scalardb_restore"

func markComment(run string) string {
	return "made by a restore of the ScalarDB Terraform provider, run " + run
}

// runID goes into a statement.
var runID = regexp.MustCompile(`^[0-9A-Za-z-]+$`)

// extraRunID is in RestoredObject.Extra.
const extraRunID = "run_id"

type destination struct {
	config  Config
	options Options
	db      *sql.DB
}

// NewDestination restores into one server.
func NewDestination(c Config, o Options) engine.Destination {
	return &destination{config: c, options: o}
}

// Open opens a pool for readers and makes sure that it connects.
func Open(ctx context.Context, c Config, o Options) (*sql.DB, error) {
	jobs := c.Jobs
	if jobs == 0 {
		jobs = defaultJobs
	}
	db, err := connect(c, o.Login, int(jobs))
	if err == nil {
		err = db.PingContext(ctx)
	}
	if err != nil {
		if db != nil {
			_ = db.Close()
		}
		return nil, fmt.Errorf("connecting to %s: %w", c.address(), explain(err))
	}
	return db, nil
}

// NewReader opens a pool for a verification.
func NewReader(ctx context.Context, c Config, o Options) (verify.Storage, error) {
	db, err := Open(ctx, c, o)
	if err != nil {
		return nil, err
	}
	return relational.NewReader(db, Dialect{}, c.Layout, db.Close), nil
}

// destinationConnections suffice: statements come one after the other.
const destinationConnections = 2

func (d *destination) connect(ctx context.Context) (*sql.DB, server, error) {
	if d.db == nil {
		db, err := connect(d.config, d.options.Login, destinationConnections)
		if err != nil {
			return nil, server{}, err
		}
		d.db = db
	}
	s, err := readServer(ctx, d.db)
	return d.db, s, err
}

// Close releases the connections.
func (d *destination) Close() error {
	if d.db == nil {
		return nil
	}
	db := d.db
	d.db = nil
	return db.Close()
}

// plan is what a restore is about to do.
type plan struct {
	stored     dump.Stored
	namespaces []namespace
	exists     map[string]bool // databases that are there, and empty
	tool       tool
	server     server
}

// Preflight writes nothing.
func (d *destination) Preflight(ctx context.Context, r engine.StorageBackup) error {
	_, err := d.plan(ctx, r)
	return d.wrap("checking the restore of storage "+r.Storage+" into", err)
}

func (d *destination) wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", doing, d.config.address(), explain(err))
}

func (d *destination) plan(ctx context.Context, r engine.StorageBackup) (plan, error) {
	var p plan
	var errs []error
	var err error
	if p.stored, p.namespaces, err = backedUp(ctx, r); err != nil {
		errs = append(errs, err)
	}
	db, s, err := d.connect(ctx)
	if err != nil {
		return p, errors.Join(append(errs, err)...)
	}
	p.server = s
	errs = append(errs, s.writable())
	if len(p.namespaces) > 0 {
		errs = append(errs, compatible(s, r.Record.Extra))
		p.exists, err = d.occupied(ctx, db, p.namespaces)
		errs = append(errs, err)
	}
	p.tool, err = loading().find(ctx, d.options.Getenv, r.Custody, d.options.Clock, s.product)
	return p, errors.Join(append(errs, err)...)
}

// backedUp finds the dump in the catalog.
func backedUp(ctx context.Context, r engine.StorageBackup) (dump.Stored, []namespace, error) {
	if r.Record.Driver != name || len(r.Record.Artifacts) != 1 || r.Record.Artifacts[0].Kind != artifactKind {
		return dump.Stored{}, nil, fmt.Errorf("the backup's storage %s is not a dump of a MySQL or MariaDB server, but of %s: restore it with that driver", r.Storage, r.Record.Driver)
	}
	a := r.Record.Artifacts[0]
	if err := (dump.Keeper{Catalog: r.Catalog}).Inspect(ctx, a); err != nil {
		return dump.Stored{}, nil, err
	}
	ix, err := dump.ReadIndex(ctx, r.Catalog, a)
	if err != nil {
		return dump.Stored{}, nil, err
	}
	if len(ix.Objects) != 1 || path.Base(ix.Objects[0].Name) != objectName {
		return dump.Stored{}, nil, fmt.Errorf("%w: %s does not list the one object %s", dump.ErrDamaged, a.ID, objectName)
	}
	namespaces, err := parseNamespaces(r.Record.Extra[extraNamespaces])
	return ix.Objects[0], namespaces, err
}

var charsetName = regexp.MustCompile(`^[0-9a-z_]+$`)

// parseNamespaces reads what a manifest says; a manifest can be somebody's input.
func parseNamespaces(text string) ([]namespace, error) {
	var out []namespace
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		return nil, fmt.Errorf("reading the backup's namespaces: %w", err)
	}
	if len(out) == 0 {
		return nil, errors.New("reading the backup's namespaces: there is none")
	}
	for _, ns := range out {
		if ns.Name == "" || strings.ContainsRune(ns.Name, 0) || !charsetName.MatchString(ns.Charset) || !charsetName.MatchString(ns.Collation) {
			return nil, fmt.Errorf("reading the backup's namespaces: %q is none", ns)
		}
	}
	return out, nil
}

// compatible compares the server with the one that was dumped.
func compatible(s server, extra map[string]string) error {
	var errs []error
	if f := extra[extraFlavour]; f != string(s.flavour) {
		errs = append(errs, fmt.Errorf("the dump is of a %s server and this one is %s: restore into the same kind", f, s))
	} else if v, ok := numbers(strings.Split(extra[extraVersion], ".")); ok && s.version.older(v) {
		errs = append(errs, fmt.Errorf("the dump is of %s %s and this server is older (%s)", f, v, s))
	}
	if l := extra[extraLowerCase]; l != s.lowerCase {
		errs = append(errs, fmt.Errorf("the dumped server had lower_case_table_names=%s and this one has %s: names would not match ScalarDB's metadata", l, s.lowerCase))
	}
	return errors.Join(errs...)
}

// occupied says which of the databases are there, and refuses those that hold anything.
func (d *destination) occupied(ctx context.Context, db *sql.DB, namespaces []namespace) (map[string]bool, error) {
	exists := map[string]bool{}
	var full []string
	for _, ns := range namespaces {
		var there, objects int
		if err := db.QueryRowContext(ctx, "SELECT (SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = ?), "+
			"(SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = ?) + (SELECT COUNT(*) FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = ?)",
			ns.Name, ns.Name, ns.Name).Scan(&there, &objects); err != nil {
			return nil, fmt.Errorf("looking for database %s: %w", ns.Name, err)
		}
		exists[ns.Name] = there > 0
		if objects > 0 {
			full = append(full, ns.Name)
		}
	}
	if len(full) > 0 {
		return nil, fmt.Errorf("these databases are not empty, and a restore never overwrites: %s; name a server that does not have them, or drop them first", strings.Join(full, ", "))
	}
	return exists, nil
}

// Restore reads the whole dump once to prove its checksum, and only then begins: the client gets it as a stream, and what it was given cannot be taken back. (A
// second proof comes with the second reading: should the catalog have changed meanwhile, the client is killed before it sees the end.)
func (d *destination) Restore(ctx context.Context, r engine.StorageBackup) (engine.Restored, error) {
	out, err := d.restore(ctx, r)
	return out, d.wrap("restoring storage "+r.Storage+" into", err)
}

func (d *destination) restore(ctx context.Context, r engine.StorageBackup) (engine.Restored, error) {
	out := engine.Restored{Endpoint: d.config.Host, Port: d.config.port(), Properties: map[string]string{
		"storage": "jdbc", "contact_points": "jdbc:mysql://" + d.config.address() + "/",
	}}
	p, err := d.plan(ctx, r)
	if err != nil {
		return out, err
	}
	if !runID.MatchString(r.RunID) {
		return out, fmt.Errorf("%q is no run id", r.RunID)
	}
	if err := d.prove(ctx, r, p.stored); err != nil {
		return out, err
	}
	file, remove, err := secrets(r.Custody, d.config, d.options.Login, p.tool.product, p.server)
	if err != nil {
		return out, err
	}
	defer remove()
	for _, ns := range p.namespaces {
		o := engine.RestoredObject{Kind: objectKind, ID: ns.Name, Created: !p.exists[ns.Name]}
		if o.Created {
			o.Extra = map[string]string{extraRunID: r.RunID}
			// Before it exists: a lost answer must not lose the record. The mark decides whether Delete drops it.
			out.Objects = append(out.Objects, o)
			if err := d.create(ctx, ns, r.RunID); err != nil {
				return out, err
			}
			continue
		}
		out.Objects = append(out.Objects, o)
	}
	report(r, "loading the dump", map[string]any{"bytes": p.stored.RawSize})
	if err := d.load(ctx, r, p, file); err != nil {
		return out, err
	}
	return out, d.complete(ctx, r.Record)
}

func report(r engine.StorageBackup, message string, fields map[string]any) {
	if r.Report != nil {
		r.Report(message, fields)
	}
}

func (d *destination) prove(ctx context.Context, r engine.StorageBackup, s dump.Stored) error {
	in, err := dump.Open(ctx, r.Catalog, s)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, in)
	return errors.Join(err, in.Close())
}

// create makes one database and puts the mark into it.
func (d *destination) create(ctx context.Context, ns namespace, run string) error {
	if _, err := d.db.ExecContext(ctx, "CREATE DATABASE "+quote(ns.Name)+" CHARACTER SET "+ns.Charset+" COLLATE "+ns.Collation); err != nil {
		return fmt.Errorf("creating database %s: %w", ns.Name, err)
	}
	_, err := d.db.ExecContext(ctx, "CREATE PROCEDURE "+quote(ns.Name)+"."+quote(mark)+"() SQL SECURITY INVOKER COMMENT '"+markComment(run)+"' DO 0")
	if err == nil {
		return nil
	}
	err = fmt.Errorf("marking database %s as made by this restore (which needs the privilege CREATE ROUTINE): %w", ns.Name, err)
	// CREATE DATABASE succeeded a moment ago, so it is ours, and without its mark nobody would know later.
	if _, dropErr := d.db.ExecContext(context.WithoutCancel(ctx), "DROP DATABASE "+quote(ns.Name)); dropErr != nil {
		err = errors.Join(err, fmt.Errorf("dropping database %s again: %w", ns.Name, dropErr))
	}
	return err
}

func (d *destination) load(ctx context.Context, r engine.StorageBackup, p plan, file string) error {
	in, err := dump.Open(ctx, r.Catalog, p.stored)
	if err != nil {
		return err
	}
	child, err := dump.StartChild(ctx, dump.Child{
		Path: p.tool.path, Args: loadArgs(file, d.config, d.options.Login), Env: toolEnv(), Name: p.tool.name(), Custody: r.Custody, Clock: d.options.Clock, Stdin: newPortable(in),
	})
	if err == nil {
		err = child.Wait()
	}
	return errors.Join(err, in.Close())
}

// complete asks for every table that the manifest names.
func (d *destination) complete(ctx context.Context, record engine.StorageRecord) error {
	var missing []string
	for _, t := range record.Tables {
		found, err := readStrings(ctx, d.db, "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?", t.Namespace, t.Table)
		if err != nil {
			return fmt.Errorf("looking for the restored tables: %w", err)
		}
		if len(found) == 0 {
			missing = append(missing, t.Namespace+"."+t.Table)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("the dump was loaded, but these tables of the backup are missing: %s", strings.Join(missing, ", "))
	}
	return nil
}

// ours says whether a database is there, and whether it is the one that the restore made.
func (d *destination) ours(ctx context.Context, o engine.RestoredObject) (there, ours bool, err error) {
	found, err := readStrings(ctx, d.db, "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = ?", o.ID)
	if err != nil || len(found) == 0 {
		return false, false, err
	}
	marks, err := readStrings(ctx, d.db, "SELECT ROUTINE_COMMENT FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = ? AND ROUTINE_NAME = ?", o.ID, mark)
	return true, len(marks) == 1 && o.Extra[extraRunID] != "" && marks[0] == markComment(o.Extra[extraRunID]), err
}

// Leftover implements engine.LeftoverFinder: the databases that hold the mark of that run id.
func (d *destination) Leftover(ctx context.Context, runID string) (engine.Restored, error) {
	if _, _, err := d.connect(ctx); err != nil {
		return engine.Restored{}, err
	}
	names, err := readStrings(ctx, d.db, "SELECT ROUTINE_SCHEMA FROM information_schema.ROUTINES WHERE ROUTINE_NAME = ? AND ROUTINE_COMMENT = ? ORDER BY 1", mark, markComment(runID))
	if err != nil {
		return engine.Restored{}, fmt.Errorf("looking for what run %s left: %w", runID, err)
	}
	var out engine.Restored
	for _, name := range names {
		out.Objects = append(out.Objects, engine.RestoredObject{Kind: objectKind, ID: name, Created: true, Extra: map[string]string{extraRunID: runID}})
	}
	return out, nil
}

// Inspect looks for every database.
func (d *destination) Inspect(ctx context.Context, r engine.Restored) error {
	return d.wrap("looking at what was restored into", d.inspect(ctx, r))
}

func (d *destination) inspect(ctx context.Context, r engine.Restored) error {
	if _, _, err := d.connect(ctx); err != nil {
		return err
	}
	for _, o := range r.Objects {
		there, ours, err := d.ours(ctx, o)
		switch {
		case err != nil:
			return fmt.Errorf("looking for database %s: %w", o.ID, err)
		case !there:
			return fmt.Errorf("database %s: %w", o.ID, engine.ErrNotFound)
		case o.Created && !ours:
			return fmt.Errorf("database %s is not the one that was restored, somebody replaced it: %w", o.ID, engine.ErrNotFound)
		}
	}
	return nil
}

// Delete drops the databases that this restore made. One whose mark is another's, or gone, is left: it holds somebody's data.
func (d *destination) Delete(ctx context.Context, r engine.Restored) error {
	return d.wrap("deleting what was restored into", d.delete(ctx, r))
}

func (d *destination) delete(ctx context.Context, r engine.Restored) error {
	if _, _, err := d.connect(ctx); err != nil {
		return err
	}
	var errs []error
	for _, o := range r.Objects {
		if !o.Created || o.Kind != objectKind {
			continue
		}
		there, ours, err := d.ours(ctx, o)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("looking for database %s: %w", o.ID, err))
		case !there:
		case !ours:
			errs = append(errs, fmt.Errorf("database %s was not made by this restore (it lacks the procedure %s with run %s), so it is left as it is: drop it by hand if it may go, and apply again", o.ID, mark, strconv.Quote(o.Extra[extraRunID])))
		default:
			if _, err := d.db.ExecContext(ctx, "DROP DATABASE "+quote(o.ID)); err != nil {
				errs = append(errs, fmt.Errorf("dropping database %s: %w", o.ID, err))
			}
		}
	}
	return errors.Join(errs...)
}
