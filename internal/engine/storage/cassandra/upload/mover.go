package upload

import (
	"context"
	"fmt"
	"strconv"
	"sync"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/move"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/snapshot"
)

// Mover is `upload` as the driver calls it.
type Mover struct{ Settings Settings }

var _ move.Mover = Mover{}

// Name is the key in HCL.
func (Mover) Name() string { return snapshot.DataUpload }

// NeedsFiles is true: the files are read from the nodes.
func (Mover) NeedsFiles() bool { return true }

// Tag is the slug.
func (Mover) Tag(slug string) string { return slug }

// Preflight looks whether the nodes can sum their files, and whether the catalog has room.
func (m Mover) Preflight(ctx context.Context, job move.Job) (move.Session, error) {
	s := &session{job: job, store: Open(job.Run.Catalog, m.Settings, job.Run.Report)}
	var mu sync.Mutex
	err := each(ctx, s.store.Nodes, job.Nodes, func(ctx context.Context, n move.Node) error {
		if n.Files == nil {
			return fmt.Errorf("node %s: its files cannot be reached, which data = { upload = ... } needs", n.Address)
		}
		if hasSums(ctx, n.Files) {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		s.facts.Warnings = append(s.facts.Warnings, fmt.Sprintf("node %s cannot run sha256sum: its files are read through this machine to find out which are new, and those are read twice", n.Address))
		return ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	if err := s.room(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// session is one run's upload.
type session struct {
	job   move.Job
	store *Store
	facts move.Facts
	pin   *Pin
}

// room refuses what cannot fit even if every blob that is there is used again.
func (s *session) room(ctx context.Context) error {
	reporter, ok := s.job.Run.Catalog.(engine.SpaceReporter)
	if !ok {
		return nil
	}
	var need int64
	for _, n := range s.job.Nodes {
		need += max(n.Bytes, 0)
	}
	free, err := reporter.Free(ctx)
	if err != nil {
		return fmt.Errorf("asking %s for its room: %w", s.job.Run.Catalog.Describe(), err)
	}
	if need <= free {
		return nil
	}
	objects, err := s.job.Run.Catalog.List(ctx, blobPrefix)
	if err != nil {
		return err
	}
	var pool int64
	for _, o := range objects {
		pool += o.Size
	}
	if need > free+pool {
		return fmt.Errorf("the nodes have about %d MiB of data, and %s has room for %d MiB beside %d MiB that may be used again: make room", need>>20, s.job.Run.Catalog.Describe(), free>>20, pool>>20)
	}
	s.facts.Warnings = append(s.facts.Warnings, fmt.Sprintf("the nodes have about %d MiB of data, and %s has room for %d MiB: it is enough only if most of it was uploaded before", need>>20, s.job.Run.Catalog.Describe(), free>>20))
	return nil
}

func (s *session) Planned() []engine.Artifact {
	return []engine.Artifact{{Kind: snapshot.KindUpload, ID: s.job.IndexName()}}
}

func (s *session) Facts() move.Facts { return s.facts }

// Move uploads the files of all nodes. The pin stays until Close: by then the driver has written the index.
func (s *session) Move(ctx context.Context, index *snapshot.Index, files map[string]*snapshot.FileList) ([]engine.Artifact, error) {
	pin, err := s.store.Pin(ctx, s.job.Run.ID)
	if err != nil {
		return nil, err
	}
	s.pin = pin
	var sources []Source
	for _, n := range s.job.Nodes {
		list := files[n.HostID]
		if list == nil {
			return nil, fmt.Errorf("the files of node %s were not listed", n.Address)
		}
		sources = append(sources, Source{Name: n.Address, Files: n.Files, List: list})
	}
	figures, err := pin.Upload(ctx, sources)
	var all Figures
	for _, f := range figures {
		all.add(f)
	}
	s.store.report("uploaded the snapshots of all nodes", all.fields())
	if err != nil {
		return nil, err
	}
	a := engine.Artifact{Kind: snapshot.KindUpload, ID: s.job.IndexName(), Extra: map[string]string{
		"bytes_sent": strconv.FormatInt(all.BytesSent, 10), "bytes_reused": strconv.FormatInt(all.BytesReused, 10),
		"files_sent": strconv.FormatInt(all.FilesSent, 10), "files_reused": strconv.FormatInt(all.FilesReused, 10),
	}}
	distinct := map[sum]int64{}
	for _, src := range sources {
		if err := eachBlob(src.List, func(b sum, size int64) error { distinct[b] = size; return nil }); err != nil {
			return nil, err
		}
	}
	for _, size := range distinct {
		a.Size += size
	}
	// Proved by looking at it, at the end and not file by file: what was found there at the beginning is still there, as big as it must be.
	there, err := s.store.sizes(ctx, distinct)
	if err != nil {
		return nil, err
	}
	for b, size := range distinct {
		if got, ok := there[b]; !ok || got != size {
			return nil, fmt.Errorf("%s is not in %s any more, or not whole (%d bytes, not %d): somebody removes its objects", b.blob(), s.job.Run.Catalog.Describe(), got, size)
		}
	}
	if err := pin.Check(ctx); err != nil {
		return nil, err
	}
	return []engine.Artifact{a}, nil
}

// Discard removes what Move sent, and the index and lists where the driver wrote them.
func (s *session) Discard(ctx context.Context) error {
	if s.pin == nil {
		return nil
	}
	if err := s.pin.Release(ctx); err != nil {
		return err
	}
	done, err := s.store.remove(ctx, s.job.IndexName(), s.pin.sent)
	tell(s.store.report, s.job.IndexName(), done)
	return err
}

func (s *session) Close() error {
	if s.pin == nil {
		return nil
	}
	return s.pin.Release(context.Background())
}

func tell(report func(string, map[string]any), index string, done Collected) {
	fields := map[string]any{"index": index, "blobs": done.Blobs, "bytes": done.Bytes}
	if done.Kept != "" {
		report("files that no backup needs stay in the catalog until the next deletion: "+done.Kept, fields)
		return
	}
	report("files that no backup needs any more were removed from the catalog", fields)
}

// Inspect looks whether all that the index lists is there.
func (m Mover) Inspect(ctx context.Context, p move.Place, a engine.Artifact) error {
	if a.Kind != snapshot.KindUpload {
		return fmt.Errorf("inspecting %s %s: it is no upload", a.Kind, a.ID)
	}
	return Open(p.Catalog, m.Settings, p.Report).Inspect(ctx, a.ID)
}

// Delete removes the index, the lists, and the files that no other backup needs.
func (m Mover) Delete(ctx context.Context, p move.Place, a engine.Artifact) error {
	if a.Kind != snapshot.KindUpload {
		return fmt.Errorf("deleting %s %s: it is no upload", a.Kind, a.ID)
	}
	s := Open(p.Catalog, m.Settings, p.Report)
	done, err := s.Delete(ctx, a.ID)
	tell(s.report, a.ID, done)
	return err
}
