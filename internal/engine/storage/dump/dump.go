// Package dump is what the storages that are backed up by a dump tool share: the child process, the compressed and checksummed
// objects of the catalog it writes to, the index that makes many of them one artifact, and the secret files and folders it needs.
//
// # Layout
//
// The objects of one storage lie under one prefix, Prefix(run, storage) = "backups/BACKUPID/RUNID/STORAGE/". One of them is
// "index.json", written last: it lists all others with their sizes and SHA-256 sums, and its own sum is in the manifest. So a
// damaged, lost or exchanged object is always noticed. All objects but the index are zstd streams.
package dump

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

// ErrDamaged is wrapped by every error that says that stored bytes are not those that were written.
var ErrDamaged = errors.New("the dump is damaged")

// Prefix is where the objects of one storage of a run go, with a slash at its end. The storage's name is the user's and may hold
// anything: what is not a letter, a digit, '_', '-' or an inner '.' becomes ~XX, so that two names never share a prefix.
func Prefix(run engine.Run, storage string) string { return run.Prefix + escape(storage) + "/" }

func escape(name string) string {
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '-', c == '.' && i > 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "~%02X", c)
		}
	}
	return b.String()
}

// Discard deletes every object under a run's prefix (or under one storage's, see Prefix). It is idempotent, goes on after an
// error, and refuses a prefix that is wider than one run.
func Discard(ctx context.Context, catalog engine.Catalog, prefix string) error {
	if err := checkPrefix(prefix, 3); err != nil {
		return err
	}
	return deleteAll(ctx, catalog, prefix, "")
}

// deleteAll deletes what is under prefix, the object named last after all others.
func deleteAll(ctx context.Context, catalog engine.Catalog, prefix, last string) error {
	objects, err := catalog.List(ctx, prefix)
	if err != nil {
		return fmt.Errorf("listing %s of %s: %w", prefix, catalog.Describe(), err)
	}
	var errs []error
	found := false
	remove := func(name string) {
		if err := catalog.Delete(ctx, name); err != nil && !errors.Is(err, engine.ErrNotFound) {
			errs = append(errs, fmt.Errorf("deleting %s of %s: %w", name, catalog.Describe(), err))
		}
	}
	for _, o := range objects {
		if !strings.HasPrefix(o.Name, prefix) {
			continue // a catalog that lists too much must not make us delete too much
		}
		if o.Name == last {
			found = true
			continue
		}
		remove(o.Name)
	}
	if found && len(errs) == 0 {
		remove(last)
	}
	return errors.Join(errs...)
}

// checkPrefix refuses what could reach beyond one run: "backups/BACKUPID/RUNID/" has three elements, one storage's prefix four.
func checkPrefix(prefix string, elements int) error {
	bare, ok := strings.CutSuffix(prefix, "/")
	if !ok || path.Clean(bare) != bare || !strings.HasPrefix(bare, "backups/") || strings.Count(bare, "/")+1 < elements {
		return fmt.Errorf("refusing to delete %q: it is not the prefix of one run's objects", prefix)
	}
	return nil
}

// SecretFile makes a file that only this user can read (0600), told to custody before it exists. The pattern's last "*" becomes
// random. remove deletes it; it is idempotent, and never nil.
func SecretFile(custody engine.Custody, dir, pattern string, content []byte) (name string, remove func(), err error) {
	name, done := announce(custody, dir, pattern)
	remove = func() { removeAll(name, done) }
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		done()
		return "", func() {}, fmt.Errorf("making a private file: %w", err)
	}
	_, err = f.Write(content)
	if err := errors.Join(err, f.Close()); err != nil {
		remove()
		return "", func() {}, fmt.Errorf("writing a private file: %w", err)
	}
	return name, remove, nil
}

// Spool makes a private folder (0700) for a tool that writes files itself: on the catalog's file system where it is a directory of
// this machine, else among the temporary files. remove deletes it with all it holds; it is idempotent, and never nil.
func Spool(custody engine.Custody, catalog engine.Catalog, runID, storage string) (dir string, remove func(), err error) {
	if local, ok := catalog.(engine.LocalDirectory); ok {
		dir, err = local.Spool(runID, storage)
		if err != nil {
			return "", func() {}, fmt.Errorf("making a spool folder in %s: %w", catalog.Describe(), err)
		}
		done := tell(custody, dir)
		return dir, func() { removeAll(dir, done) }, nil
	}
	return Folder(custody, os.TempDir(), "scalardb-"+escape(runID)+"-*")
}

// Folder is SecretFile for a folder (0700).
func Folder(custody engine.Custody, parent, pattern string) (dir string, remove func(), err error) {
	dir, done := announce(custody, parent, pattern)
	if err := os.Mkdir(dir, 0o700); err != nil {
		done()
		return "", func() {}, fmt.Errorf("making a private folder: %w", err)
	}
	return dir, func() { removeAll(dir, done) }, nil
}

// announce chooses a name nobody else can know or use, and tells custody of it before anything is made there.
func announce(custody engine.Custody, dir, pattern string) (name string, done func()) {
	random := make([]byte, 8)
	rand.Read(random) //nolint:errcheck // crypto/rand never fails
	i := strings.LastIndexByte(pattern, '*')
	if i < 0 {
		i = len(pattern)
		pattern += "*"
	}
	name = filepath.Join(dir, pattern[:i]+hex.EncodeToString(random)+pattern[i+1:])
	return name, tell(custody, name)
}

func tell(custody engine.Custody, name string) (done func()) {
	if custody == nil {
		return func() {}
	}
	return custody.SecretFile(name)
}

// removeAll says "removed" to custody only when it is true: what this process cannot remove, the watchdog tries again.
func removeAll(name string, done func()) {
	if os.RemoveAll(name) == nil {
		done()
	}
}
