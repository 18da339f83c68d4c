package upload

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"sync"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/snapshot"
)

// Source is one node with the list of its snapshot's files.
type Source struct {
	Name  string     // for messages: its address
	Files node.Files // used by several goroutines at once
	List  *snapshot.FileList
}

// Upload brings the files of all lists into the catalog, fills in File.SHA256, and returns the figures of each source, in order, also with an error. When it
// returns nil every file is there whole; Check has to follow before an index says so. What it sent before an error stays, for another try to find.
func (p *Pin) Upload(ctx context.Context, sources []Source) ([]Figures, error) {
	s := p.store
	objects, err := s.catalog.List(ctx, blobPrefix)
	if err != nil {
		return make([]Figures, len(sources)), fmt.Errorf("looking which files the catalog has: %w", err)
	}
	u := &uploader{store: s, pool: pool{blobs: make(map[sum]*blob, len(objects))}}
	for _, o := range objects {
		if b, ok := sumOfBlob(o.Name); ok {
			u.pool.blobs[b] = &blob{size: o.Size}
		}
	}
	lanes := make([]*lane, len(sources))
	numbers := make([]int, len(sources))
	for i, src := range sources {
		lanes[i], numbers[i] = s.lane(src.Name, src.Files), i
	}
	ctx, cancel := context.WithCancel(ctx)
	var reporting sync.WaitGroup
	reporting.Go(func() { s.progress(ctx, "uploading files", lanes) })
	err = each(ctx, s.Nodes, numbers, func(ctx context.Context, i int) error {
		if err := u.node(ctx, lanes[i], sources[i].List); err != nil {
			return fmt.Errorf("uploading the snapshot of node %s: %w", sources[i].Name, err)
		}
		fields := lanes[i].total().fields()
		fields["node"] = sources[i].Name
		s.report("uploaded the snapshot of a node", fields)
		return nil
	})
	cancel()
	reporting.Wait()
	figures := make([]Figures, len(lanes))
	for i, l := range lanes {
		figures[i] = l.total()
	}
	p.mu.Lock()
	maps.Copy(p.sent, u.pool.sent())
	p.mu.Unlock()
	return figures, err
}

// progress reports how far the lanes are, until ctx ends.
func (s *Store) progress(ctx context.Context, doing string, lanes []*lane) {
	for s.Clock.Sleep(ctx, reportEvery) == nil {
		var all Figures
		for _, l := range lanes {
			all.add(l.total())
		}
		s.report(doing, all.fields())
	}
}

// pool are the blobs that are there, or on their way.
type pool struct {
	mu    sync.Mutex
	blobs map[sum]*blob
}

type blob struct {
	size int64
	ours bool // sent by this upload
	// done is closed when it is there, or err says why not; nil: it was there from the start.
	done chan struct{}
	err  error
}

// claim returns the blob and whether the caller is to send it. Another's is there when claim returns, or its failure is.
func (p *pool) claim(ctx context.Context, s sum, size int64) (b *blob, mine bool, err error) {
	p.mu.Lock()
	b = p.blobs[s]
	if b == nil {
		b = &blob{size: size, done: make(chan struct{})}
		p.blobs[s] = b
		mine = true
	}
	p.mu.Unlock()
	if mine || b.done == nil {
		return b, mine, nil
	}
	select {
	case <-b.done:
		return b, false, b.err
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
}

func (p *pool) sent() map[sum]struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	sent := map[sum]struct{}{}
	for s, b := range p.blobs {
		if b.ours {
			sent[s] = struct{}{}
		}
	}
	return sent
}

type uploader struct {
	store *Store
	pool  pool
}

// node uploads one node's files: some goroutines have them summed, batch by batch, and others send what is new. (One sha256sum does some 200 MB/s, which a node
// that was uploaded before would wait for.)
func (u *uploader) node(ctx context.Context, l *lane, list *snapshot.FileList) error {
	byPath := map[string]*snapshot.File{}
	var items []item
	for i := range list.Tables {
		t := &list.Tables[i]
		for j := range t.Files {
			f := &t.Files[j]
			if err := checkPath(f.Path); err != nil {
				return err
			}
			full := path.Join(t.Directory, f.Path)
			if f.Size < 0 || byPath[full] != nil {
				return fmt.Errorf("the file %s is listed twice, or with a negative size", full)
			}
			byPath[full] = f
			items = append(items, item{full, f.Size})
		}
	}
	if len(items) == 0 {
		return nil
	}
	sums, err := l.newSummer(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	type summed struct {
		item
		sum sum
	}
	todo := make(chan summed)
	var workers sync.WaitGroup
	for range u.store.Parallel {
		workers.Go(func() {
			for f := range todo {
				if err := u.file(ctx, l, f.item, f.sum); err != nil {
					cancel(fmt.Errorf("%s: %w", f.path, err)) // the first one counts
				}
			}
		})
	}
	err = each(ctx, max(1, u.store.Parallel/2), batches(items), func(ctx context.Context, batch []item) error {
		got, err := sums.sum(ctx, batch)
		if err != nil {
			return err
		}
		for _, f := range batch {
			byPath[f.path].SHA256 = got[f.path].String()
			select {
			case todo <- summed{f, got[f.path]}:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	if err != nil {
		cancel(err)
	}
	close(todo)
	workers.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// file sees that a file's content is in the catalog.
func (u *uploader) file(ctx context.Context, l *lane, f item, s sum) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	b, mine, err := u.pool.claim(ctx, s, f.size)
	if err != nil {
		return err
	}
	if !mine {
		if b.size != f.size {
			return u.wrongSize(s, b.size, f.size)
		}
		l.count(Figures{FilesReused: 1, BytesReused: f.size})
		return nil
	}
	ours, err := u.send(ctx, l, f, s)
	b.err = err
	u.pool.mu.Lock()
	b.ours = ours && err == nil
	u.pool.mu.Unlock()
	close(b.done)
	if err != nil {
		return err
	}
	if ours {
		l.count(Figures{FilesSent: 1, BytesSent: f.size})
	} else {
		l.count(Figures{FilesReused: 1, BytesReused: f.size})
	}
	return nil
}

func (u *uploader) wrongSize(s sum, got, want int64) error {
	return fmt.Errorf("%s of %s is damaged, and backups that need it cannot be restored: it has %d bytes, not %d; delete it and apply again", s.blob(), u.store.catalog.Describe(), got, want)
}

// send makes a blob of a file, again while that fails in a way that passes. It returns false when another upload was first.
func (u *uploader) send(ctx context.Context, l *lane, f item, s sum) (ours bool, err error) {
	for failures := 1; ; failures++ {
		err := u.try(ctx, l, f, s)
		if errors.Is(err, engine.ErrExists) {
			there, err := u.store.catalog.Stat(ctx, s.blob())
			if err == nil && there.Size != f.size {
				err = u.wrongSize(s, there.Size, f.size)
			}
			return false, err
		}
		// pull has tried often enough by itself: what is tried again here is a content that was not the right one.
		if err == nil || !errors.Is(err, errContent) || ctx.Err() != nil || failures == maxTries {
			return true, err
		}
		if err := l.rest(ctx, "sending "+f.path, failures, err); err != nil {
			return true, err
		}
	}
}

var errContent = errors.New("what came is not what was summed: the file changed, or the connection garbles data")

func (u *uploader) try(ctx context.Context, l *lane, f item, s sum) (err error) {
	w, err := u.store.catalog.NewWriter(ctx, s.blob())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	h := sha256.New()
	if err := l.pull(ctx, f.path, f.size, io.MultiWriter(h, w)); err != nil {
		return err
	}
	if got := sum(h.Sum(nil)); got != s {
		return fmt.Errorf("%w (SHA-256 %s and %s)", errContent, got, s)
	}
	return w.Commit(ctx)
}
