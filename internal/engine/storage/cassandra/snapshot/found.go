package snapshot

import (
	"context"
	"fmt"
	"io"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

// FindIndex reads an index whose checksum is not at hand: to find out which files a backup of somebody else's needs. A restore uses ReadIndex.
func FindIndex(ctx context.Context, catalog engine.Catalog, name string) (*Index, error) {
	data, _, err := catalog.Read(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("reading %s of %s: %w", name, catalog.Describe(), err)
	}
	return parseIndex(data, name)
}

// FindFiles reads the list of a node's files whose checksum is not at hand: what a deletion goes on with when the index is gone already.
func FindFiles(ctx context.Context, catalog engine.Catalog, name, hostID string) (*FileList, error) {
	r, err := catalog.Open(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("reading %s of %s: %w", name, catalog.Describe(), err)
	}
	defer r.Close() //nolint:errcheck // only read, and it is parsed whole
	data, err := io.ReadAll(io.LimitReader(r, maxFiles+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s of %s: %w", name, catalog.Describe(), err)
	}
	if len(data) > maxFiles {
		return nil, fmt.Errorf("%w: %s has more than %d bytes", ErrDamaged, name, maxFiles)
	}
	return parseFiles(data, name, hostID)
}
