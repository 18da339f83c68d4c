// Package directory is a catalog in a directory of this machine, or of a file server.
package directory

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/catalog"
)

// Catalog keeps each object as one file below a directory. The directory is made with the first write.
//
// An object is written into the hidden folder ".tmp", synced, and then linked under its name, so that a reader sees all of it or none and
// nothing is ever overwritten by Create or Commit. Replace and Delete take turns by flock on the hidden file ".guard".
//
// The file system must have hard links (or renameat2 with RENAME_NOREPLACE), exclusive creation, and flock, which for a
// directory that several machines share must reach across them: local file systems, NFS 4, and NFS 3 with its lock manager do. Probe finds out whether
// the calls work; that locks reach other machines it cannot see.
type Catalog struct {
	root  string
	clock engine.Clock
	// write stands in for (*os.File).Write in tests of a full disk.
	write func(f *os.File, p []byte) (int, error)
}

var (
	_ engine.Catalog        = (*Catalog)(nil)
	_ engine.SpaceReporter  = (*Catalog)(nil)
	_ engine.LocalDirectory = (*Catalog)(nil)
)

const (
	tempDir   = ".tmp"   // temporary files and spool folders
	guardFile = ".guard" // what Replace and Delete lock

	spoolPrefix = "spool-"

	guardFirstDelay = 2 * time.Millisecond
	guardMaxDelay   = 50 * time.Millisecond

	// maxTries bounds how often a folder is made again that others prune at the same time.
	maxTries = 1000
)

// New returns the catalog in dir, which need not exist. A relative dir is taken from the working directory of now.
func New(dir string, clock engine.Clock) (*Catalog, error) {
	if dir == "" {
		return nil, errors.New("opening the catalog: no directory is given")
	}
	root, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the catalog in directory %s: %w", dir, err)
	}
	return &Catalog{root: root, clock: clock, write: (*os.File).Write}, nil
}

// Directory is the absolute path of the catalog.
func (c *Catalog) Directory() string { return c.root }

// Describe names the catalog in messages.
func (c *Catalog) Describe() string { return "directory " + c.root }

// Create writes a new object.
func (c *Catalog) Create(ctx context.Context, name string, data []byte) error {
	if err := catalog.CheckName(name); err != nil {
		return err
	}
	if err := c.create(ctx, name, data); err != nil {
		return c.wrap("writing", name, err)
	}
	return nil
}

func (c *Catalog) create(ctx context.Context, name string, data []byte) error {
	t, err := c.newTemp(ctx, name)
	if err != nil {
		return err
	}
	defer func() { _ = t.discard() }() // at worst a hidden file stays, that Sweep may find
	if err := t.put(ctx, data); err != nil {
		return err
	}
	if err := t.seal(); err != nil {
		return err
	}
	return c.publish(ctx, t, name)
}

// Replace writes over the given version. A version is a hash of the content, so content that came back after a change has its old version again.
func (c *Catalog) Replace(ctx context.Context, name string, data []byte, old engine.Version) (engine.Version, error) {
	if err := catalog.CheckName(name); err != nil {
		return "", err
	}
	if err := c.replace(ctx, name, data, old); err != nil {
		return "", c.wrap("replacing", name, err)
	}
	return version(data), nil
}

func (c *Catalog) replace(ctx context.Context, name string, data []byte, old engine.Version) error {
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	present, err := c.read(name)
	if err != nil {
		return err
	}
	if version(present) != old {
		return engine.ErrChanged
	}
	t, err := c.newTemp(ctx, name)
	if err != nil {
		return err
	}
	defer func() { _ = t.discard() }() // at worst a hidden file stays, that Sweep may find
	if err := t.put(ctx, data); err != nil {
		return err
	}
	if err := t.seal(); err != nil {
		return err
	}
	if err := os.Rename(t.path, c.path(name)); err != nil {
		return err
	}
	t.gone = true
	return c.syncUp(filepath.Dir(c.path(name)))
}

// Read returns a small object.
func (c *Catalog) Read(ctx context.Context, name string) ([]byte, engine.Version, error) {
	if err := catalog.CheckName(name); err != nil {
		return nil, "", err
	}
	if err := ctx.Err(); err != nil {
		return nil, "", c.wrap("reading", name, err)
	}
	data, err := c.read(name)
	if err != nil {
		return nil, "", c.wrap("reading", name, err)
	}
	return data, version(data), nil
}

func (c *Catalog) read(name string) ([]byte, error) {
	f, err := c.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// One byte more than allowed shows an object that is too big, also one that grew since it was opened.
	data, err := io.ReadAll(io.LimitReader(f, catalog.MaxObject+1))
	if err != nil {
		return nil, err
	}
	if len(data) > catalog.MaxObject {
		return nil, fmt.Errorf("it is bigger than %d MiB, which no object of this kind is", catalog.MaxObject>>20)
	}
	return data, nil
}

// Open streams an object.
func (c *Catalog) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	if err := catalog.CheckName(name); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, c.wrap("opening", name, err)
	}
	f, err := c.open(name)
	if err != nil {
		return nil, c.wrap("opening", name, err)
	}
	return &reader{ctx: ctx, f: f}, nil
}

// open opens a regular file. O_NONBLOCK: a pipe that somebody put there must not hang us.
func (c *Catalog) open(name string) (*os.File, error) {
	f, err := os.OpenFile(c.path(name), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, missing(err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = engine.ErrNotFound
	}
	if err != nil {
		_ = f.Close() // only read
		return nil, err
	}
	return f, nil
}

type reader struct {
	ctx context.Context
	f   *os.File
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.f.Read(p)
}

func (r *reader) Close() error { return r.f.Close() }

// List returns the objects whose names begin with prefix.
func (c *Catalog) List(ctx context.Context, prefix string) ([]engine.ObjectInfo, error) {
	if err := catalog.CheckPrefix(prefix); err != nil {
		return nil, err
	}
	dir := ""
	if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
		dir = prefix[:i]
	}
	var found []engine.ObjectInfo
	err := filepath.WalkDir(c.path(dir), func(path string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if gone(err) {
			return nil // deleted while we looked, or never there
		}
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(filepath.ToSlash(strings.TrimPrefix(path, c.root)), "/")
		if name != "" && d.Name()[0] == '.' {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if d.IsDir() {
			// Only on the way to the prefix, or below it.
			if name != dir && name != "" && !strings.HasPrefix(name+"/", prefix) {
				return fs.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() || !strings.HasPrefix(name, prefix) || catalog.CheckName(name) != nil {
			return nil //nolint:nilerr // no object of ours
		}
		info, err := d.Info()
		if gone(err) {
			return nil //nolint:nilerr // deleted meanwhile
		}
		if err != nil {
			return err
		}
		found = append(found, engine.ObjectInfo{Name: name, Size: info.Size(), Modified: info.ModTime()})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing the objects %s* of the catalog in %s: %w", prefix, c.Describe(), err)
	}
	// The walk goes folder by folder, where "a/b" comes before "a-b".
	slices.SortFunc(found, func(a, b engine.ObjectInfo) int { return strings.Compare(a.Name, b.Name) })
	return found, nil
}

// Stat describes one object.
func (c *Catalog) Stat(ctx context.Context, name string) (engine.ObjectInfo, error) {
	if err := catalog.CheckName(name); err != nil {
		return engine.ObjectInfo{}, err
	}
	if err := ctx.Err(); err != nil {
		return engine.ObjectInfo{}, c.wrap("looking at", name, err)
	}
	info, err := os.Lstat(c.path(name))
	if err == nil && !info.Mode().IsRegular() {
		err = engine.ErrNotFound
	}
	if err != nil {
		return engine.ObjectInfo{}, c.wrap("looking at", name, missing(err))
	}
	return engine.ObjectInfo{Name: name, Size: info.Size(), Modified: info.ModTime()}, nil
}

// Delete removes one object, and the folders that it leaves empty.
func (c *Catalog) Delete(ctx context.Context, name string) error {
	if err := catalog.CheckName(name); err != nil {
		return err
	}
	if err := c.delete(ctx, name); err != nil {
		return c.wrap("deleting", name, err)
	}
	return nil
}

func (c *Catalog) delete(ctx context.Context, name string) error {
	if _, err := os.Lstat(c.path(name)); gone(err) {
		return ctx.Err() // also where there is no directory: it is not made for this
	}
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	// Not os.Remove, which would remove a folder too.
	err = unix.Unlink(c.path(name))
	if gone(err) || errors.Is(err, unix.EISDIR) {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "unlink", Path: c.path(name), Err: err}
	}
	dir := filepath.Dir(c.path(name))
	for ; dir != c.root; dir = filepath.Dir(dir) {
		if syncDir(dir) != nil || unix.Rmdir(dir) != nil {
			break // it holds something else, or is gone
		}
	}
	return c.syncUp(dir)
}

// NewWriter streams a new object.
func (c *Catalog) NewWriter(ctx context.Context, name string) (engine.ObjectWriter, error) {
	if err := catalog.CheckName(name); err != nil {
		return nil, err
	}
	// Better to know it before a long stream than after.
	if _, err := os.Lstat(c.path(name)); err == nil {
		return nil, c.wrap("writing", name, engine.ErrExists)
	}
	t, err := c.newTemp(ctx, name)
	if err != nil {
		return nil, c.wrap("writing", name, err)
	}
	return &writer{ctx: ctx, catalog: c, temp: t, name: name}, nil
}

type writer struct {
	ctx     context.Context
	catalog *Catalog
	temp    *temp
	name    string
	failed  error
}

func (w *writer) Write(p []byte) (int, error) {
	if w.failed == nil {
		w.failed = w.ctx.Err()
	}
	if w.failed != nil {
		return 0, w.catalog.wrap("writing", w.name, w.failed)
	}
	n, err := w.temp.write(p)
	if err != nil {
		w.failed = err
		return n, w.catalog.wrap("writing", w.name, err)
	}
	return n, nil
}

func (w *writer) Commit(ctx context.Context) error {
	err := w.failed // a stream with a hole must never become an object
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = w.temp.seal()
	}
	if err == nil {
		err = w.catalog.publish(ctx, w.temp, w.name)
	}
	if err != nil {
		w.failed = err
		return w.catalog.wrap("writing", w.name, err)
	}
	w.failed = errors.New("it was committed already")
	_ = w.temp.discard() // the object is there; at worst its temporary name stays, that Sweep finds
	return nil
}

func (w *writer) Close() error {
	if w.failed == nil {
		w.failed = errors.New("it was closed already")
	}
	if err := w.temp.discard(); err != nil {
		return w.catalog.wrap("dropping the unfinished", w.name, err)
	}
	return nil
}

// Free is the room that is left for this user, in bytes.
func (c *Catalog) Free(ctx context.Context) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	for dir := c.root; ; dir = filepath.Dir(dir) {
		var s unix.Statfs_t
		err := unix.Statfs(dir, &s)
		if errors.Is(err, unix.ENOENT) && dir != "/" {
			continue // not made yet: it will be on its parent's file system
		}
		if err != nil {
			return 0, fmt.Errorf("asking for the room in the catalog in %s: %w", c.Describe(), err)
		}
		size := uint64(s.Bsize)                                     //nolint:gosec,unconvert // the types differ by system
		return int64(min(uint64(s.Bavail), 1<<62/size) * size), nil //nolint:gosec,unconvert // bounded
	}
}

// Spool makes a private folder for the files of a tool. Sweep finds it by the run id.
func (c *Catalog) Spool(runID, storage string) (string, error) {
	if err := checkRunID(runID); err != nil {
		return "", err
	}
	if err := c.makeDirs(filepath.Join(c.root, tempDir)); err != nil {
		return "", c.full(fmt.Errorf("making a folder in the catalog in %s: %w", c.Describe(), err))
	}
	path := filepath.Join(c.root, tempDir, spoolPrefix+runID+"-"+shorten(url.PathEscape(storage))+"-"+random())
	if err := os.Mkdir(path, 0o700); err != nil {
		return "", c.full(fmt.Errorf("making a folder in the catalog in %s: %w", c.Describe(), err))
	}
	return path, nil
}

// Sweep removes what a dead run left: unfinished streams of objects that have its run id in their names, and its spool folders. Finished objects stay.
func (c *Catalog) Sweep(ctx context.Context, runID string) error {
	if err := checkRunID(runID); err != nil {
		return err
	}
	err := c.sweep(ctx, func(temp, path string) error {
		if !ofRun(temp, runID) {
			return nil
		}
		return os.RemoveAll(path)
	})
	if err != nil {
		return fmt.Errorf("sweeping what run %s left in the catalog in %s: %w", runID, c.Describe(), err)
	}
	return nil
}

// sweep looks at everything temporary, and joins what went wrong.
func (c *Catalog) sweep(ctx context.Context, look func(temp, path string) error) error {
	dir := filepath.Join(c.root, tempDir)
	entries, err := os.ReadDir(dir)
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	var failed []error
	for _, e := range entries {
		if ctx.Err() != nil {
			failed = append(failed, ctx.Err())
			break
		}
		if err := look(e.Name(), filepath.Join(dir, e.Name())); err != nil {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// ofRun says whether a temporary name belongs to a run: a spool folder of it, or an object one of whose components is the run id ("backups/x/RUNID/a") or
// begins with it and a dot ("journal/RUNID.json").
func ofRun(temp, runID string) bool {
	if strings.HasPrefix(temp, spoolPrefix+runID+"-") {
		return true
	}
	if strings.HasPrefix(temp, spoolPrefix) {
		return false
	}
	for c := range strings.SplitSeq(temp, "%2F") {
		if c == runID || strings.HasPrefix(c, runID+".") {
			return true
		}
	}
	return false
}

// runIDSize is how long the run ids are that the provider makes.
const runIDSize = 16

// ofNoRun says whether a temporary name is that of an object which names no run: no component of it could be a run id, up to a dot.
func ofNoRun(temp string) bool {
	object := strings.TrimSuffix(temp, filepath.Ext(temp)) // without what newTemp added
	if strings.HasPrefix(temp, spoolPrefix) || object == temp || len(object) >= shortened {
		return false
	}
	for c := range strings.SplitSeq(object, "%2F") {
		stem, _, _ := strings.Cut(c, ".")
		if _, err := hex.DecodeString(stem); err == nil && len(stem) == runIDSize {
			return false
		}
	}
	return true
}

// removeAbandoned removes a temporary file whose writer is dead: one alive holds it locked. (Opened for writing: NFS locks exclusively only what is.)
func removeAbandoned(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil //nolint:nilerr // somebody is writing it
	}
	if err := os.Remove(path); err != nil && !gone(err) {
		return err
	}
	return nil
}

// checkRunID keeps a run id from being part of another's, or of a path.
func checkRunID(runID string) error {
	if len(runID) < 8 || strings.Trim(runID, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
		return fmt.Errorf("checking a run id: %q is none (8 or more letters and digits)", runID)
	}
	return nil
}

// Probe checks, by writing and removing a hidden object, that the directory can be written and its file system does what a catalog needs. On the
// way it removes the temporary files of objects that name no run (the lock, a manifest), where their writers are dead: no Sweep would.
func (c *Catalog) Probe(ctx context.Context) error {
	err := c.probe(ctx)
	if err == nil {
		err = c.sweep(ctx, func(temp, path string) error {
			if !ofNoRun(temp) {
				return nil
			}
			return removeAbandoned(path)
		})
	}
	if err != nil {
		return c.full(fmt.Errorf("probing the catalog in %s: %w", c.Describe(), err))
	}
	return nil
}

func (c *Catalog) probe(ctx context.Context) error {
	name := tempDir + "/probe-" + random()
	if err := c.create(ctx, name, []byte("1")); err != nil {
		return fmt.Errorf("writing a new file: %w", err)
	}
	// Whatever comes below, nothing stays.
	defer func() { _ = os.Remove(c.path(name)) }()
	if err := c.create(ctx, name, []byte("2")); !errors.Is(err, engine.ErrExists) {
		return fmt.Errorf("the file system let a new file overwrite another, or said something else than that it exists (%v): it cannot hold a catalog", err) //nolint:errorlint // it may be nil, and is not what went wrong
	}
	if err := c.replace(ctx, name, []byte("3"), version([]byte("1"))); err != nil {
		return fmt.Errorf("replacing a file: %w", err)
	}
	if err := c.replace(ctx, name, []byte("4"), version([]byte("1"))); !errors.Is(err, engine.ErrChanged) {
		return fmt.Errorf("a file that was just replaced still shows its old content (%v): the file system cannot hold a catalog", err) //nolint:errorlint // it may be nil, and is not what went wrong
	}
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	again, err := c.openGuard()
	if err != nil {
		return err
	}
	defer again.Close()
	if err := unix.Flock(int(again.Fd()), unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("a file that is locked (flock) could be locked once more (%v): the file system cannot hold a catalog", err) //nolint:errorlint // it may be nil, and is not what went wrong
	}
	if err := os.Remove(c.path(name)); err != nil {
		return fmt.Errorf("deleting a file: %w", err)
	}
	return nil
}

// lock takes the guard; it waits as long as ctx allows.
func (c *Catalog) lock(ctx context.Context) (unlock func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := c.makeDirs(c.root); err != nil {
		return nil, err
	}
	f, err := c.openGuard()
	if err != nil {
		return nil, err
	}
	for delay := guardFirstDelay; ; delay = min(2*delay, guardMaxDelay) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil // closing unlocks, for no other file shares this opening
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			_ = f.Close()
			return nil, fmt.Errorf("locking (flock) %s, which the file system must be able to: %w", f.Name(), err)
		}
		if err := c.clock.Sleep(ctx, delay); err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("waiting for another process that is writing into it: %w", err)
		}
	}
}

func (c *Catalog) openGuard() (*os.File, error) {
	return os.OpenFile(filepath.Join(c.root, guardFile), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
}

// temp is a file that is no object yet.
type temp struct {
	catalog *Catalog
	path    string
	f       *os.File
	held    *os.File // locked for as long as the file is in use: an unlocked one is taken for abandoned
	gone    bool     // renamed or removed
}

func (c *Catalog) newTemp(ctx context.Context, name string) (*temp, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	dir := filepath.Join(c.root, tempDir)
	if err := c.makeDirs(dir); err != nil {
		return nil, err
	}
	// The object's name is in it, so that Sweep can tell whose it is.
	for tries := 0; ; tries++ {
		path := filepath.Join(dir, shorten(url.PathEscape(name))+"."+random())
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		held, err := hold(path)
		if err == nil {
			return &temp{catalog: c, path: path, f: f, held: held}, nil
		}
		_ = f.Close() // empty
		_ = os.Remove(path)
		if tries == maxTries {
			return nil, err
		}
	}
}

// hold locks a new temporary file, through an opening of its own: the one that writes is closed before the object is published, since file
// servers report a full disk only then. It fails when a Probe came first.
func hold(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if err == nil {
		if _, e := os.Lstat(path); e == nil {
			return f, nil
		}
		err = errors.New("it was swept away")
	}
	_ = f.Close() // only read
	return nil, fmt.Errorf("holding the temporary file %s: %w", path, err)
}

func (t *temp) write(p []byte) (int, error) { return t.catalog.write(t.f, p) }

func (t *temp) put(ctx context.Context, data []byte) error {
	const chunk = 1 << 20
	for part := range slices.Chunk(data, chunk) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := t.write(part); err != nil {
			return err
		}
	}
	return nil
}

// seal makes the content durable. Closing counts: file servers report a full disk only then.
func (t *temp) seal() error {
	if t.f == nil {
		return os.ErrClosed
	}
	err := t.f.Sync()
	if e := t.f.Close(); err == nil {
		err = e
	}
	t.f = nil
	return err
}

// discard removes the file unless it became the object.
func (t *temp) discard() error {
	if t.f != nil {
		_ = t.f.Close() // its content is dropped
		t.f = nil
	}
	if t.held != nil {
		defer func() {
			_ = t.held.Close() // only read
			t.held = nil
		}()
	}
	if t.gone {
		return nil
	}
	err := os.Remove(t.path)
	if err == nil || gone(err) {
		t.gone = true
		return nil
	}
	return err
}

// publish gives a sealed file its name, unless there is one of that name.
func (c *Catalog) publish(ctx context.Context, t *temp, name string) error {
	path := c.path(name)
	for tries := 0; ; tries++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := c.makeDirs(filepath.Dir(path))
		if err == nil {
			err = link(t, path)
		}
		if errors.Is(err, unix.ENOENT) && tries < maxTries {
			if _, e := os.Lstat(t.path); gone(e) {
				return fmt.Errorf("its unfinished file %s is gone: another run removed it", t.path)
			}
			continue // a Delete next door pruned the folder that we had just made
		}
		if errors.Is(err, unix.EEXIST) {
			if info, e := os.Lstat(path); e == nil && !info.Mode().IsRegular() {
				return fmt.Errorf("something that is no object is in its place: %s", path)
			}
			return engine.ErrExists
		}
		if err != nil {
			return err
		}
		return c.syncUp(filepath.Dir(path))
	}
}

func link(t *temp, path string) error {
	err := unix.Link(t.path, path)
	if err == nil {
		return nil // the temporary name goes with discard
	}
	if errors.Is(err, unix.EEXIST) && sameFile(t.path, path) {
		return nil // a file server did it, lost the answer, and was asked again
	}
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EMLINK):
	default:
		return &os.LinkError{Op: "link", Old: t.path, New: path, Err: err}
	}
	e := unix.Renameat2(unix.AT_FDCWD, t.path, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
	if e == nil {
		t.gone = true
		return nil
	}
	if errors.Is(e, unix.EINVAL) || errors.Is(e, unix.ENOSYS) {
		return fmt.Errorf("the file system has neither hard links (%w) nor a rename that never overwrites (%w): it cannot hold a catalog", err, e)
	}
	return &os.LinkError{Op: "renameat2", Old: t.path, New: path, Err: e}
}

func sameFile(a, b string) bool {
	x, err := os.Lstat(a)
	if err != nil {
		return false
	}
	y, err := os.Lstat(b)
	return err == nil && os.SameFile(x, y)
}

func (c *Catalog) path(name string) string { return filepath.Join(c.root, filepath.FromSlash(name)) }

// makeDirs makes dir and its parents, private. The catalog's root is durable then; what is below it, syncUp makes so.
func (c *Catalog) makeDirs(dir string) error {
	if info, err := os.Stat(dir); err == nil {
		if !info.IsDir() {
			return fmt.Errorf("%s is not a directory", dir)
		}
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(dir)
	if err := c.makeDirs(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil // made by another meanwhile
		}
		return err
	}
	if len(dir) > len(c.root) {
		return nil // below the root: nothing may come between a folder and what is linked into it, or it is pruned
	}
	return syncDir(parent)
}

// syncUp makes what happened in dir durable, up to the catalog's root: a folder on the way may be another process's, not synced yet.
func (c *Catalog) syncUp(dir string) error {
	for {
		// A folder that is gone by now was pruned, because what we did in it was undone since.
		if err := syncDir(dir); err != nil && !gone(err) {
			return err
		}
		if dir == c.root || dir == "/" {
			return nil
		}
		dir = filepath.Dir(dir)
	}
}

// syncDir syncs a directory, where the file system knows what that is.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	return nil
}

// wrap says what was done to which object, and puts a full disk into plain words.
func (c *Catalog) wrap(doing, name string, err error) error {
	return c.full(fmt.Errorf("%s the object %s of the catalog in %s: %w", doing, name, c.Describe(), err))
}

func (c *Catalog) full(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("the catalog directory %s is full: make room there and try again: %w", c.root, err)
	}
	return err
}

// missing turns "no such file" into the catalog's word for it.
func missing(err error) error {
	if gone(err) || errors.Is(err, unix.ELOOP) {
		return engine.ErrNotFound
	}
	return err
}

func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

func version(data []byte) engine.Version {
	sum := sha256.Sum256(data)
	return engine.Version(hex.EncodeToString(sum[:]))
}

func random() string {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// shorten leaves room for what is added to a file's name. The run id is always in what stays.
func shorten(s string) string { return s[:min(len(s), shortened)] }

const shortened = 200 // characters
