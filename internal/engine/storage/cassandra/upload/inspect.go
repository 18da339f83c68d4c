package upload

import (
	"context"
	"fmt"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/snapshot"
)

// wholePool is from how many of the 256 parts of the pool on all blobs are listed at once.
const wholePool = 64

// Inspect returns nil where the index, all file lists and all blobs of a backup are there, with the sums and sizes that they must have. Its error wraps
// engine.ErrNotFound when one of them is gone. It reads no blob. Whether the
// index is the one that was written is the driver's to say, which has its sum.
func (s *Store) Inspect(ctx context.Context, index string) error {
	ix, err := snapshot.FindIndex(ctx, s.catalog, index)
	if err != nil {
		return err
	}
	need, err := s.needs(ctx, ix)
	if err != nil {
		return err
	}
	there, err := s.sizes(ctx, need)
	if err != nil {
		return err
	}
	for b, size := range need {
		switch got, ok := there[b]; {
		case !ok:
			return fmt.Errorf("%s of %s, which holds a file of the backup: %w", b.blob(), s.catalog.Describe(), engine.ErrNotFound)
		case got != size:
			return fmt.Errorf("%s of %s is damaged: it has %d bytes, not %d", b.blob(), s.catalog.Describe(), got, size)
		}
	}
	return nil
}

// needs are the blobs of a backup, and their sizes.
func (s *Store) needs(ctx context.Context, index *snapshot.Index) (map[sum]int64, error) {
	need := map[sum]int64{}
	for _, n := range index.Nodes {
		if n.Files == "" {
			continue // it was down
		}
		list, err := snapshot.ReadFiles(ctx, s.catalog, n)
		if err != nil {
			return nil, err
		}
		err = eachBlob(list, func(b sum, size int64) error {
			if old, ok := need[b]; ok && old != size {
				return fmt.Errorf("two sizes of the content %s: %d and %d", b, old, size)
			}
			need[b] = size
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", n.Files, err)
		}
	}
	return need, nil
}

// sizes lists the parts of the pool in which wanted blobs would be.
func (s *Store) sizes(ctx context.Context, want map[sum]int64) (map[sum]int64, error) {
	parts := map[string]bool{}
	for b := range want {
		parts[b.blob()[:len(blobPrefix)+3]] = true
	}
	if len(parts) >= wholePool {
		parts = map[string]bool{blobPrefix: true}
	}
	there := map[sum]int64{}
	for part := range parts {
		objects, err := s.catalog.List(ctx, part)
		if err != nil {
			return nil, err
		}
		for _, o := range objects {
			if b, ok := sumOfBlob(o.Name); ok {
				there[b] = o.Size
			}
		}
	}
	return there, nil
}
