package upload

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/snapshot"
)

// Target is one node that files are brought to.
type Target struct {
	Name  string     // for messages: its address
	Files node.Files // used by several goroutines at once
	// Directory says where the files of one table of one captured node go, absolute; false: not to this node.
	Directory func(captured snapshot.Node, t snapshot.Files) (string, bool)
	// Roots are directories that exist, one per file system, above what Directory returns: their room is checked before anything is written. None: it is not.
	Roots []string
	// Overwrite replaces files of other content; else they are an error, and stay.
	Overwrite bool
}

// Modes of what Place makes; whoever is to own it is the caller's concern.
const (
	fileMode fs.FileMode = 0o640
	dirMode  fs.FileMode = 0o750
)

// partPrefix begins the name of a file that is not whole yet. The next Place of the same file takes the place of one that was left.
const partPrefix = ".scalardb-part-"

// roomMargin is what stays free on a target, in bytes.
const roomMargin = 64 << 20

// Place brings the files of a backup to directories of nodes. A file appears under its name when it is whole and has the right sum; one that is there with the
// right sum already is left, so that what was cut short is taken up. It returns the figures of each target, in order, also with an error.
func (s *Store) Place(ctx context.Context, index *snapshot.Index, targets []Target) ([]Figures, error) {
	lanes := make([]*lane, len(targets))
	for i, t := range targets {
		lanes[i] = s.lane(t.Name, t.Files)
	}
	err := s.place(ctx, index, targets, lanes)
	figures := make([]Figures, len(lanes))
	for i, l := range lanes {
		figures[i] = l.total()
	}
	return figures, err
}

func (s *Store) place(ctx context.Context, index *snapshot.Index, targets []Target, lanes []*lane) error {
	plans := make([]plan, len(targets))
	numbers := make([]int, len(targets))
	for i := range targets {
		plans[i], numbers[i] = plan{}, i
	}
	for _, n := range index.Nodes {
		if n.Files == "" {
			continue // it was down
		}
		list, err := snapshot.ReadFiles(ctx, s.catalog, n)
		if err != nil {
			return err
		}
		for i, t := range targets {
			if err := plans[i].add(n, list, t.Directory); err != nil {
				return fmt.Errorf("planning where the files of node %s (%s) go on %s: %w", n.Address, n.HostID, t.Name, err)
			}
		}
	}
	// All blobs are there, before the first file is written.
	need := map[sum]int64{}
	for _, p := range plans {
		for _, f := range p {
			need[f.sum] = f.size
		}
	}
	there, err := s.sizes(ctx, need)
	if err != nil {
		return err
	}
	for b, size := range need {
		if got, ok := there[b]; !ok || got != size {
			return fmt.Errorf("%s of %s, which holds a file of the backup, is gone or damaged (%d bytes, not %d): %w", b.blob(), s.catalog.Describe(), got, size, engine.ErrNotFound)
		}
	}
	// What is missing fits on every target, before the first file is written.
	err = each(ctx, s.Nodes, numbers, func(ctx context.Context, i int) error {
		if err := plans[i].skip(ctx, lanes[i], targets[i]); err != nil {
			return fmt.Errorf("looking at what node %s has already: %w", targets[i].Name, err)
		}
		if err := plans[i].fits(ctx, targets[i]); err != nil {
			return fmt.Errorf("looking for room on node %s: %w", targets[i].Name, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var reporting sync.WaitGroup
	reporting.Go(func() { s.progress(ctx, "placing files", lanes) })
	defer reporting.Wait()
	defer cancel()
	return each(ctx, s.Nodes, numbers, func(ctx context.Context, i int) error {
		paths := slices.Sorted(maps.Keys(plans[i]))
		made := ""
		for _, p := range paths {
			if dir := path.Dir(p); dir != made {
				if err := targets[i].Files.MkdirAll(ctx, dir, dirMode); err != nil {
					return fmt.Errorf("making directories on node %s: %w", targets[i].Name, err)
				}
				made = dir
			}
		}
		err := each(ctx, s.Parallel, paths, func(ctx context.Context, p string) error { return s.put(ctx, lanes[i], p, plans[i][p]) })
		if err != nil {
			return fmt.Errorf("placing files on node %s: %w", targets[i].Name, err)
		}
		fields := lanes[i].total().fields()
		fields["node"] = targets[i].Name
		s.report("placed the files of a node", fields)
		return nil
	})
}

// plan says what goes where on one node, by absolute path.
type plan map[string]content

type content struct {
	sum  sum
	size int64
}

func (p plan) add(n snapshot.Node, list *snapshot.FileList, directory func(snapshot.Node, snapshot.Files) (string, bool)) error {
	for _, t := range list.Tables {
		dir, ok := directory(n, t)
		if !ok {
			continue
		}
		if !path.IsAbs(dir) || path.Clean(dir) != dir || dir == "/" {
			return fmt.Errorf("%q is no directory for files", dir)
		}
		for _, f := range t.Files {
			if err := checkPath(f.Path); err != nil {
				return err
			}
			b, err := parseSum(f.SHA256)
			if err != nil {
				return fmt.Errorf("the file %s of %s.%s: %w", f.Path, t.Keyspace, t.Table, err)
			}
			full := path.Join(dir, f.Path)
			if _, ok := p[full]; ok {
				return fmt.Errorf("two files would become %s", full)
			}
			p[full] = content{b, f.Size}
		}
	}
	return nil
}

// skip takes out of the plan what is there already.
func (p plan) skip(ctx context.Context, l *lane, t Target) error {
	dirs := map[string][]string{}
	for full := range p {
		dirs[path.Dir(full)] = append(dirs[path.Dir(full)], full)
	}
	var same []item
	for _, dir := range slices.Sorted(maps.Keys(dirs)) {
		entries, err := t.Files.ReadDir(ctx, dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for _, e := range entries {
			full := path.Join(dir, e.Name)
			want, ok := p[full]
			switch {
			case !ok:
			case !e.Dir && !e.Link && e.Size == want.size:
				same = append(same, item{full, e.Size})
			case e.Dir, e.Link, !t.Overwrite:
				return p.foreign(full)
			}
		}
	}
	if len(same) == 0 {
		return nil
	}
	sums, err := l.newSummer(ctx)
	if err != nil {
		return err
	}
	for _, batch := range batches(same) {
		got, err := sums.sum(ctx, batch)
		if err != nil {
			return err
		}
		for _, f := range batch {
			switch {
			case got[f.path] == p[f.path].sum:
				delete(p, f.path)
				l.count(Figures{FilesReused: 1, BytesReused: f.size})
			case !t.Overwrite:
				return p.foreign(f.path)
			}
		}
	}
	return nil
}

func (p plan) foreign(full string) error {
	return fmt.Errorf("%s is there and is not the backup's: it is left alone; remove it, and try again: %w", full, fs.ErrExist)
}

// fits compares what is missing with the room on the target.
func (p plan) fits(ctx context.Context, t Target) error {
	need := map[string]int64{}
	for full, c := range p {
		under := ""
		for _, r := range t.Roots {
			if r = path.Clean(r); (r == "/" || strings.HasPrefix(full, r+"/")) && len(r) > len(under) {
				under = r
			}
		}
		if under == "" && len(t.Roots) > 0 {
			return fmt.Errorf("%s lies in none of the directories %q", full, t.Roots)
		}
		need[under] += c.size
	}
	delete(need, "")
	for _, r := range slices.Sorted(maps.Keys(need)) {
		free, err := t.Files.Free(ctx, r)
		if err != nil {
			return err
		}
		if free < need[r]+roomMargin {
			return fmt.Errorf("%s has %d MiB left, and the files that go there have %d MiB: make room", r, free>>20, need[r]>>20)
		}
	}
	return nil
}

// put brings one file, again while that fails in a way that passes.
func (s *Store) put(ctx context.Context, l *lane, full string, c content) error {
	for failures := 1; ; failures++ {
		err := s.tryPut(ctx, l, full, c)
		if err == nil {
			l.count(Figures{FilesSent: 1, BytesSent: c.size})
			return nil
		}
		err = fmt.Errorf("%s: %w", full, err)
		if !isBroken(err) || ctx.Err() != nil || failures == maxTries {
			return err
		}
		if err := l.rest(ctx, "writing "+full, failures, err); err != nil {
			return err
		}
	}
}

func (s *Store) tryPut(ctx context.Context, l *lane, full string, c content) (err error) {
	dir, base := path.Split(full)
	from, err := s.catalog.Open(ctx, c.sum.blob())
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }() // only read
	part := dir + partPrefix + base
	g := l.guard(ctx)
	defer g.cancel(nil)
	to, err := l.files.Create(g.ctx, part, fileMode)
	if err != nil {
		return broken(err)
	}
	defer func() {
		if err == nil {
			return
		}
		_ = to.Close() // it may be closed, and is removed
		ctx, cancel := s.Clock.WithTimeout(context.WithoutCancel(ctx), cleanUpTimeout)
		defer cancel()
		if e := l.files.RemoveAll(ctx, part); e != nil {
			err = errors.Join(err, fmt.Errorf("removing the half-written %s: %w", part, e))
		}
	}()
	h := sha256.New()
	n, err := g.push(from, to, h)
	if err != nil {
		return err
	}
	if n != c.size || sum(h.Sum(nil)) != c.sum {
		return &brokenError{fmt.Errorf("%s of %s gave %d bytes with another sum than its name says: it is damaged, or what reads it garbles data", c.sum.blob(), s.catalog.Describe(), n)}
	}
	if _, err := g.do(func() (int, error) { return 0, to.Close() }); err != nil {
		return err
	}
	// What a connection garbles is its own affair to find (SSH does); what a disk silently did not take shows here.
	if e, err := l.files.Stat(ctx, part); err != nil || e.Size != c.size {
		return &brokenError{errors.Join(fmt.Errorf("it has %d bytes after it was written, not %d", e.Size, c.size), err)}
	}
	return broken(l.files.Rename(ctx, part, full))
}
