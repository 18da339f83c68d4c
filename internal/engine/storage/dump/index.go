package dump

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path"
	"strings"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

// IndexName is the last element of an index's name, behind Prefix.
const IndexName = "index.json"

// indexVersion is the version of the index's format that this code writes. It reads this one and older ones.
const indexVersion = 1

// Index lists the objects of one dump: all under the index's own prefix, none twice.
type Index struct {
	Version int      `json:"version"`
	Objects []Stored `json:"objects"`
}

// maxIndex is what Catalog.Read returns at most.
const maxIndex = 16 << 20

// WriteIndex writes the index of a dump, which completes it, and returns the dump's artifact: its ID is the index's name, its Size
// that of all objects together, its SHA256 the index's. prefix is Prefix's.
func WriteIndex(ctx context.Context, catalog engine.Catalog, kind, prefix string, objects []Stored) (engine.Artifact, error) {
	name := prefix + IndexName
	data, err := json.MarshalIndent(Index{Version: indexVersion, Objects: objects}, "", " ")
	if err != nil {
		return engine.Artifact{}, fmt.Errorf("writing %s: %w", name, err)
	}
	if len(data) > maxIndex {
		return engine.Artifact{}, fmt.Errorf("writing %s: %d objects are too many for one dump", name, len(objects))
	}
	if _, err := parseIndex(data, name); err != nil {
		return engine.Artifact{}, err // never write what cannot be read
	}
	if err := catalog.Create(ctx, name, data); err != nil {
		return engine.Artifact{}, fmt.Errorf("writing %s to %s: %w", name, catalog.Describe(), err)
	}
	a := engine.Artifact{Kind: kind, ID: name, Size: int64(len(data)), SHA256: sum(data)}
	for _, o := range objects {
		a.Size += o.Size
	}
	return a, nil
}

// ReadIndex reads the index of an artifact. Its error wraps engine.ErrNotFound when it is gone, ErrDamaged when it is another than
// the one that was written.
func ReadIndex(ctx context.Context, catalog engine.Catalog, a engine.Artifact) (Index, error) {
	data, _, err := catalog.Read(ctx, a.ID)
	if err != nil {
		return Index{}, fmt.Errorf("reading %s of %s: %w", a.ID, catalog.Describe(), err)
	}
	if got := sum(data); got != a.SHA256 {
		return Index{}, fmt.Errorf("%w: the SHA-256 of %s is %s, not %s", ErrDamaged, a.ID, got, a.SHA256)
	}
	return parseIndex(data, a.ID)
}

func sum(data []byte) string {
	h := sha256.Sum256(data)
	return hex.EncodeToString(h[:])
}

func parseIndex(data []byte, name string) (Index, error) {
	var ix Index
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(&ix); err != nil {
		return Index{}, fmt.Errorf("%w: reading %s: %w", ErrDamaged, name, err)
	}
	if ix.Version < 1 {
		return Index{}, fmt.Errorf("%w: %s has no version", ErrDamaged, name)
	}
	if ix.Version > indexVersion {
		return Index{}, fmt.Errorf("reading %s: its format is version %d, and this provider knows %d; use a newer release", name, ix.Version, indexVersion)
	}
	prefix := path.Dir(name) + "/"
	seen := make(map[string]bool, len(ix.Objects))
	for _, o := range ix.Objects {
		raw, err := hex.DecodeString(o.SHA256)
		if !strings.HasPrefix(o.Name, prefix) || path.Clean(o.Name) != o.Name || o.Name == name || seen[o.Name] ||
			o.Size < 0 || o.RawSize < 0 || err != nil || len(raw) != sha256.Size {
			return Index{}, fmt.Errorf("%w: %s has a wrong entry for %q", ErrDamaged, name, o.Name)
		}
		seen[o.Name] = true
	}
	return ix, nil
}

// Keeper is the engine.ArtifactStore of dumps.
type Keeper struct{ Catalog engine.Catalog }

// Inspect reads the index and compares the list of objects with it; it reads no object. The error wraps engine.ErrNotFound when
// the index or an object is gone.
func (k Keeper) Inspect(ctx context.Context, a engine.Artifact) error {
	ix, err := ReadIndex(ctx, k.Catalog, a)
	if err != nil {
		return err
	}
	objects, err := k.Catalog.List(ctx, path.Dir(a.ID)+"/")
	if err != nil {
		return fmt.Errorf("listing %s of %s: %w", path.Dir(a.ID), k.Catalog.Describe(), err)
	}
	sizes := make(map[string]int64, len(objects))
	for _, o := range objects {
		sizes[o.Name] = o.Size
	}
	for _, o := range ix.Objects {
		switch size, ok := sizes[o.Name]; {
		case !ok:
			return fmt.Errorf("%s of %s: %w", o.Name, k.Catalog.Describe(), engine.ErrNotFound)
		case size != o.Size:
			return fmt.Errorf("%w: %s has %d bytes, not %d", ErrDamaged, o.Name, size, o.Size)
		}
	}
	return nil
}

// Delete removes every object under the artifact's prefix, the index last: so a deletion that was cut short can be taken up by it.
// It needs neither the index nor anything else to be there, and refuses an ID that is not one of WriteIndex's.
func (k Keeper) Delete(ctx context.Context, a engine.Artifact) error {
	dir, base := path.Split(a.ID)
	if base != IndexName {
		return fmt.Errorf("refusing to delete %q: it is not the index of a dump", a.ID)
	}
	if err := checkPrefix(dir, 4); err != nil {
		return err
	}
	return deleteAll(ctx, k.Catalog, dir, a.ID)
}
