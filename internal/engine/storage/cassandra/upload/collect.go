package upload

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/snapshot"
)

// spare is how long blobs stay that no index refers to and that are not known to be of the backup that is being deleted: those of an upload that was killed, which the next one uses.
const spare = 24 * time.Hour

// removeParallel is how many blobs are removed at once.
const removeParallel = 8

// Collected says what a collection did.
type Collected struct {
	Blobs, Bytes int64 // removed
	// Kept says why blobs that no index refers to may still be there, for the user; empty where none is. A later deletion removes them.
	Kept string
}

// Delete removes the backup whose index has this name: the index, the blobs that no other index refers to, and the file lists. What is gone is no error, and a
// deletion that was cut short is taken up by the next. Where blobs have to stay for now Collected.Kept says so, and that is no error.
func (s *Store) Delete(ctx context.Context, index string) (Collected, error) {
	return s.remove(ctx, index, nil)
}

// remove is Delete; more are blobs to be removed like those of the lists.
func (s *Store) remove(ctx context.Context, index string, more map[sum]struct{}) (Collected, error) {
	if !isIndex(index) {
		return Collected{}, fmt.Errorf("refusing to delete %q: it is not the index of a backup", index)
	}
	lists, err := s.catalog.List(ctx, nodesPrefix(index))
	if err != nil {
		return Collected{}, err
	}
	own := maps.Clone(more)
	if own == nil {
		own = map[sum]struct{}{}
	}
	for _, l := range lists {
		list, err := snapshot.FindFiles(ctx, s.catalog, l.Name, strings.TrimSuffix(path.Base(l.Name), ".json"))
		if err != nil {
			continue //nolint:nilerr // its blobs are removed a day later
		}
		_ = eachBlob(list, func(b sum, _ int64) error { own[b] = struct{}{}; return nil }) //nolint:errcheck // as above
	}
	// The index first: from here on the backup is gone. The lists last: they say what a deletion that is cut short has to go on with.
	if err := s.catalog.Delete(ctx, index); err != nil {
		return Collected{}, err
	}
	done, err := s.collect(ctx, own)
	if err != nil {
		return done, err
	}
	for _, l := range lists {
		if err := s.catalog.Delete(ctx, l.Name); err != nil {
			return done, err
		}
	}
	return done, nil
}

// isIndex says whether a name is that of an index: backups/BACKUP/RUN/STORAGE/index.json.
func isIndex(name string) bool {
	parts := strings.Split(name, "/")
	return len(parts) == 5 && parts[0]+"/" == backupsPrefix && parts[4] == snapshot.IndexName && !slices.Contains(parts, "") && !slices.Contains(parts, "..")
}

// nodesPrefix is where the lists of an index lie.
func nodesPrefix(index string) string { return path.Dir(index) + "/nodes/" }

// eachBlob calls f with the blob of every file of a list.
func eachBlob(list *snapshot.FileList, f func(b sum, size int64) error) error {
	for _, t := range list.Tables {
		for _, file := range t.Files {
			b, err := parseSum(file.SHA256)
			if err != nil {
				return fmt.Errorf("the file %s of %s.%s: %w", file.Path, t.Keyspace, t.Table, err)
			}
			if err := f(b, file.Size); err != nil {
				return err
			}
		}
	}
	return nil
}

// collect removes the blobs that no index refers to: those of own, and others that are old enough.
func (s *Store) collect(ctx context.Context, own map[sum]struct{}) (done Collected, err error) {
	began, wall := s.Clock.Boot(), s.Clock.Now()
	marker := collectingPrefix + random(6) + ".json"
	if err := s.catalog.Create(ctx, marker, note{Version: noteVersion, Holder: s.Holder, StartedAt: wall.UTC()}.encode()); err != nil {
		return done, fmt.Errorf("marking that files are removed from the catalog: %w", err)
	}
	defer func() {
		ctx, cancel := s.Clock.WithTimeout(context.WithoutCancel(ctx), cleanUpTimeout)
		defer cancel()
		if e := s.catalog.Delete(ctx, marker); e != nil {
			err = errors.Join(err, fmt.Errorf("removing the mark that files are removed from the catalog (uploads wait for it): %w", e))
		}
	}()
	stat, err := s.catalog.Stat(ctx, marker)
	if err != nil {
		return done, err
	}
	now := stat.Modified // by the catalog's clock
	if pinned, err := s.pinned(ctx, now); pinned != "" || err != nil {
		done.Kept = pinned
		return done, err
	}
	used, err := s.used(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return done, ctx.Err()
		}
		done.Kept = fmt.Sprintf("which files other backups need could not be found out: %v", err)
		return done, nil
	}
	blobs, err := s.catalog.List(ctx, blobPrefix)
	if err != nil {
		return done, err
	}
	blobs = slices.DeleteFunc(blobs, func(o engine.ObjectInfo) bool {
		b, ok := sumOfBlob(o.Name)
		if !ok {
			return true // not ours
		}
		if _, ok := used[b]; ok {
			return true
		}
		if _, ok := own[b]; !ok && now.Sub(o.Modified) < spare {
			done.Kept = "files of an upload that was cut short stay for a day: the next one need not send them again"
			return true
		}
		return false
	})
	var count, bytes atomic.Int64
	err = each(ctx, removeParallel, blobs, func(ctx context.Context, o engine.ObjectInfo) error {
		if s.Clock.Boot()-began > collectFor || s.Clock.Now().Sub(wall) > collectFor {
			return errTooLong
		}
		if err := s.catalog.Delete(ctx, o.Name); err != nil {
			return err
		}
		count.Add(1)
		bytes.Add(o.Size)
		return nil
	})
	done.Blobs, done.Bytes = count.Load(), bytes.Load()
	if errors.Is(err, errTooLong) {
		done.Kept, err = fmt.Sprintf("removing files took longer than %s: uploads may not be kept waiting for longer", collectFor), nil
	}
	return done, err
}

var errTooLong = errors.New("it takes too long")

// pinned says which upload is at work; empty: none. It takes the pins of the dead away.
func (s *Store) pinned(ctx context.Context, now time.Time) (string, error) {
	pins, err := s.notes(ctx, pinPrefix, "")
	if err != nil {
		return "", fmt.Errorf("looking for uploads into the catalog: %w", err)
	}
	for _, p := range pins {
		if !s.dead(p, now, pinStale) {
			return "an upload is under way that may need the same files: " + p.note.String(), nil
		}
		taken := p.note
		taken.Taken = true
		_, err := s.catalog.Replace(ctx, p.name, taken.encode(), p.version)
		switch {
		case errors.Is(err, engine.ErrNotFound):
			continue
		case errors.Is(err, engine.ErrChanged):
			return "an upload is under way that may need the same files: " + p.note.String(), nil
		case err != nil:
			return "", fmt.Errorf("taking away the pin of a dead upload: %w", err)
		}
		if err := s.catalog.Delete(ctx, p.name); err != nil {
			return "", fmt.Errorf("taking away the pin of a dead upload: %w", err)
		}
	}
	return "", nil
}

// used are the blobs that indexes refer to. Whatever looks like an index and cannot be read is an error.
func (s *Store) used(ctx context.Context) (map[sum]struct{}, error) {
	objects, err := s.catalog.List(ctx, backupsPrefix)
	if err != nil {
		return nil, err
	}
	// Other drivers have an index of that name too, but no lists of nodes. An index without lists refers to nothing that could be restored.
	withLists := map[string]bool{}
	for _, o := range objects {
		if dir, _ := path.Split(o.Name); strings.HasSuffix(dir, "/nodes/") {
			withLists[path.Dir(path.Clean(dir))+"/"+snapshot.IndexName] = true
		}
	}
	var indexes []string
	for _, o := range objects {
		if isIndex(o.Name) && withLists[o.Name] {
			indexes = append(indexes, o.Name)
		}
	}
	var mu sync.Mutex
	used := map[sum]struct{}{}
	err = each(ctx, s.Parallel, indexes, func(ctx context.Context, name string) error {
		index, err := snapshot.FindIndex(ctx, s.catalog, name)
		if errors.Is(err, engine.ErrNotFound) {
			return nil // deleted meanwhile
		}
		if err != nil {
			return err
		}
		if index.Data != snapshot.DataUpload {
			return nil
		}
		for _, n := range index.Nodes {
			if n.Files == "" {
				continue // it was down
			}
			list, err := snapshot.ReadFiles(ctx, s.catalog, n)
			if errors.Is(err, engine.ErrNotFound) {
				if _, e := s.catalog.Stat(ctx, name); errors.Is(e, engine.ErrNotFound) {
					return nil // deleted meanwhile
				}
			}
			if err != nil {
				return err
			}
			mu.Lock()
			err = eachBlob(list, func(b sum, _ int64) error { used[b] = struct{}{}; return nil })
			mu.Unlock()
			if err != nil {
				return fmt.Errorf("%s: %w", n.Files, err)
			}
		}
		return nil
	})
	return used, err
}

// each calls f for all items, parallel at once, until the first error, which it returns.
func each[T any](ctx context.Context, parallel int, items []T, f func(ctx context.Context, item T) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(parallel, len(items)) {
		workers.Go(func() {
			for ctx.Err() == nil {
				i := next.Add(1) - 1
				if i >= int64(len(items)) {
					return
				}
				if err := f(ctx, items[i]); err != nil {
					cancel(err) // the first one counts
					return
				}
			}
		})
	}
	workers.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}
