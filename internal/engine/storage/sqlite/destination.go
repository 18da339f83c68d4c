package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	driver "modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/relational"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/dump"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
)

type destination struct{ config Config }

// NewDestination restores into one file: a new one, or a database without tables.
func NewDestination(c Config) engine.Destination { return &destination{config: c} }

// target is what stands where the restored database goes.
type target struct {
	path   string // absolute
	exists bool   // and is a database without tables
}

// Preflight writes nothing.
func (d *destination) Preflight(ctx context.Context, r engine.StorageBackup) error {
	var errs []error
	stored, err := backedUp(ctx, r)
	errs = append(errs, err)
	t, err := d.look(ctx)
	if errs = append(errs, err); errors.Join(errs...) == nil {
		errs = append(errs, checkRoom(t, stored.RawSize))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("checking the restore of storage %s into %s: %w", r.Storage, d.config.Path, explain(err))
	}
	return nil
}

// backedUp finds the image in the catalog.
func backedUp(ctx context.Context, r engine.StorageBackup) (dump.Stored, error) {
	if r.Record.Driver != name || len(r.Record.Artifacts) != 1 || r.Record.Artifacts[0].Kind != artifactKind {
		return dump.Stored{}, fmt.Errorf("the backup's storage %s is not a dump of an SQLite database, but of %s: restore it with that driver", r.Storage, r.Record.Driver)
	}
	a := r.Record.Artifacts[0]
	if err := (dump.Keeper{Catalog: r.Catalog}).Inspect(ctx, a); err != nil {
		return dump.Stored{}, err
	}
	ix, err := dump.ReadIndex(ctx, r.Catalog, a)
	if err != nil {
		return dump.Stored{}, err
	}
	if len(ix.Objects) != 1 || filepath.Base(ix.Objects[0].Name) != objectName {
		return dump.Stored{}, fmt.Errorf("%w: %s does not list the one object %s", dump.ErrDamaged, a.ID, objectName)
	}
	return ix.Objects[0], nil
}

// look refuses a target that holds, or may hold, anything.
func (d *destination) look(ctx context.Context) (target, error) {
	path, err := filepath.Abs(d.config.Path)
	if err != nil {
		return target{}, err
	}
	t := target{path: path}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		for _, side := range sideFiles(path) {
			if _, err := os.Lstat(side); !errors.Is(err, fs.ErrNotExist) {
				return t, fmt.Errorf("%s is left of another database, and SQLite would apply it to the restored one: move it away", side)
			}
		}
		return t, checkFolder(filepath.Dir(path))
	case err != nil:
		return t, err
	case !info.Mode().IsRegular():
		return t, fmt.Errorf("%s is not a regular file", path)
	}
	t.exists = true
	if info.Size() == 0 {
		return t, checkFolder(filepath.Dir(path))
	}
	db, err := open(path, true)
	if err != nil {
		return t, err
	}
	defer db.Close() //nolint:errcheck // read only
	if err := checkEmpty(ctx, db); err != nil {
		return t, err
	}
	return t, checkFolder(filepath.Dir(path))
}

var errNotEmpty = errors.New("it is not empty, and a restore never overwrites: name a path that does not exist, or an empty database")

func checkEmpty(ctx context.Context, q relational.Querier) error {
	n, err := scalar[int64](ctx, q, "SELECT count(*) FROM sqlite_schema")
	if err == nil && n > 0 {
		return fmt.Errorf("the database has %d tables, views and indexes: %w", n, errNotEmpty)
	}
	return err
}

func checkFolder(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("%w; make the folder first", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a folder", dir)
	}
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return fmt.Errorf("writing to the folder %s: %w", dir, err)
	}
	return nil
}

// checkRoom counts the image twice where it is copied into an existing database.
func checkRoom(t target, size int64) error {
	if t.exists {
		size *= 2
	}
	var st unix.Statfs_t
	dir := filepath.Dir(t.path)
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("asking for the room in %s: %w", dir, err)
	}
	if free := int64(st.Bavail) * int64(st.Bsize); free < size { //nolint:unconvert // differs between architectures
		return fmt.Errorf("the database needs %d MiB, and %s has room for %d MiB", (size+1<<20-1)>>20, dir, free>>20)
	}
	return nil
}

// Restore proves the image beside its place, and only then puts it there: what is at the path is whole, or not touched.
func (d *destination) Restore(ctx context.Context, r engine.StorageBackup) (engine.Restored, error) {
	restored, err := d.restore(ctx, r)
	if err != nil {
		return restored, fmt.Errorf("restoring storage %s into %s: %w", r.Storage, d.config.Path, explain(err))
	}
	return restored, nil
}

func (d *destination) restore(ctx context.Context, r engine.StorageBackup) (engine.Restored, error) {
	stored, err := backedUp(ctx, r)
	if err != nil {
		return engine.Restored{}, err
	}
	t, err := d.look(ctx)
	if err != nil {
		return engine.Restored{}, err
	}
	dir, base := filepath.Split(t.path)
	image, remove, err := dump.SecretFile(r.Custody, dir, "."+base+"."+r.RunID+".*", nil)
	if err != nil {
		return engine.Restored{}, err
	}
	defer remove()
	if err := fetch(ctx, r.Catalog, stored, image); err != nil {
		return engine.Restored{}, err
	}
	restored := engine.Restored{
		Objects:    []engine.RestoredObject{{Kind: objectKind, ID: t.path}},
		Properties: map[string]string{"storage": "jdbc", "contact_points": "jdbc:sqlite:" + t.path},
	}
	if t.exists {
		if err := fill(ctx, t.path, image); err != nil {
			return engine.Restored{}, err
		}
		return restored, nil
	}
	object := &restored.Objects[0]
	if object.Extra, err = identity(image); err != nil {
		return engine.Restored{}, err
	}
	object.Created = true
	// The identity is the image's already: whoever finds this record knows the file by it, and one that was never linked is not there.
	if err := r.Announce(ctx, restored); err != nil {
		return engine.Restored{}, err
	}
	// A link never overwrites, whoever came first.
	if err := os.Link(image, t.path); errors.Is(err, fs.ErrExist) {
		return engine.Restored{}, errNotEmpty
	} else if err != nil {
		return engine.Restored{}, err
	}
	return restored, syncFolder(dir)
}

// fetch writes the image to a file, and believes it only when its sum, its size and SQLite say so.
func fetch(ctx context.Context, catalog engine.Catalog, stored dump.Stored, image string) error {
	in, err := dump.Open(ctx, catalog, stored)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // read only
	out, err := os.OpenFile(image, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{out}, in, make([]byte, 1<<20))
	if err == nil {
		err = out.Sync()
	}
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	db, err := openImage(image)
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // read only
	return quickCheck(ctx, db)
}

// fill copies the image into an existing database without tables, as one transaction of SQLite: it keeps its inode, owner and mode,
// and a crash in the middle leaves it empty again.
func fill(ctx context.Context, path, image string) error {
	// The exclusive lock outlives the transaction that looks, so nobody can write between the look and the copy.
	db, err := open(path, false, "locking_mode(exclusive)")
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // the copy is committed by Finish
	c, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // see above
	if _, err := c.ExecContext(ctx, "BEGIN EXCLUSIVE"); err != nil {
		return err
	}
	if err := checkEmpty(ctx, c); err != nil {
		return err
	}
	if _, err := c.ExecContext(ctx, "COMMIT"); err != nil {
		return err
	}
	return c.Raw(func(raw any) error {
		target, ok := raw.(interface {
			NewRestore(string) (*driver.Backup, error)
		})
		if !ok {
			return fmt.Errorf("restoring: the SQLite driver's connection is a %T, which cannot", raw)
		}
		b, err := target.NewRestore(uri(image, url.Values{"mode": {"ro"}, "immutable": {"1"}}))
		if err != nil {
			return err
		}
		for more := true; more && err == nil; {
			if err = ctx.Err(); err == nil {
				more, err = b.Step(256)
			}
		}
		return errors.Join(err, b.Finish()) // unfinished, it is rolled back
	})
}

func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Inspect returns ErrNotFound also when another file took the place of the one that was made.
func (d *destination) Inspect(_ context.Context, r engine.Restored) error {
	for _, o := range r.Objects {
		now, err := identity(o.ID)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("the SQLite database %s: %w", o.ID, engine.ErrNotFound)
		case err != nil:
			return fmt.Errorf("looking at the SQLite database %s: %w", o.ID, err)
		case o.Created && !sameIdentity(o.Extra, now):
			return fmt.Errorf("the restored SQLite database %s, whose place another file took: %w", o.ID, engine.ErrNotFound)
		}
	}
	return nil
}

// Delete removes the file that Restore made, by its identity, and what SQLite keeps beside it.
func (d *destination) Delete(_ context.Context, r engine.Restored) error {
	var errs []error
	for _, o := range r.Objects {
		if o.Kind == objectKind && o.Created {
			if err := remove(o); err != nil {
				errs = append(errs, fmt.Errorf("deleting the SQLite database %s: %w", o.ID, err))
			}
		}
	}
	return errors.Join(errs...)
}

func remove(o engine.RestoredObject) error {
	now, err := identity(o.ID)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !sameIdentity(o.Extra, now):
		return errors.New("it is not the file that the restore made, so it is left as it is: move or delete it by hand")
	}
	// The database last: as long as it is there, a deletion that was cut short can be taken up again.
	for _, f := range append(sideFiles(o.ID), o.ID) {
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return syncFolder(filepath.Dir(o.ID))
}

// Close has nothing to release.
func (d *destination) Close() error { return nil }

// readers is how many tables a verification may read at once.
const readers = 8

// NewReader opens a live or restored database for verification, read-only.
func NewReader(ctx context.Context, c Config) (verify.Storage, error) {
	db, err := openForReading(ctx, c.Path)
	if err != nil {
		return nil, fmt.Errorf("opening the SQLite database %s: %w", c.Path, explain(err))
	}
	db.SetMaxOpenConns(readers)
	db.SetMaxIdleConns(readers)
	return relational.NewReader(db, Dialect{}, c.Layout, db.Close), nil
}

func openForReading(ctx context.Context, path string) (*sql.DB, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	db, err := open(path, true)
	if err != nil {
		return nil, err
	}
	err = touch(ctx, db)
	if err == nil {
		return db, nil
	}
	err = errors.Join(err, db.Close())
	// Where the -shm file cannot be made (a folder that we may not write to) SQLite opens no database in WAL mode. If there is none,
	// nobody else has it open either, and it can be read as it is.
	var cause *driver.Error
	if !errors.As(err, &cause) || cause.Code() != lib.SQLITE_CANTOPEN && cause.Code() != lib.SQLITE_READONLY_CANTINIT {
		return nil, err
	}
	for _, side := range sideFiles(path) {
		if _, e := os.Stat(side); e == nil {
			return nil, err
		}
	}
	db, e := openImage(path)
	if e != nil {
		return nil, errors.Join(err, e)
	}
	if e := touch(ctx, db); e != nil {
		return nil, errors.Join(err, e, db.Close())
	}
	return db, nil
}
