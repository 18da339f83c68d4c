package dump

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

// Stored is one object of a dump as the catalog has it.
type Stored struct {
	Name    string `json:"name"`     // in the catalog
	Size    int64  `json:"size"`     // bytes, as stored
	SHA256  string `json:"sha256"`   // hex, of the bytes as stored
	RawSize int64  `json:"raw_size"` // bytes before compression
}

// Object is one object being written: what is written to it is compressed, and the compressed bytes are counted and summed.
type Object struct {
	name   string
	writer engine.ObjectWriter
	sum    *summer
	zstd   *zstd.Encoder
	raw    int64
	closed bool
}

// NewObject begins an object, which appears in the catalog only with Commit. Writes end with an error once ctx has ended.
func NewObject(ctx context.Context, catalog engine.Catalog, name string) (*Object, error) {
	w, err := catalog.NewWriter(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("writing %s to %s: %w", name, catalog.Describe(), err)
	}
	o := &Object{name: name, writer: w}
	o.sum = &summer{write: func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return w.Write(p)
	}, hash: sha256.New()}
	// One goroutine per object: a dump writes several objects at once, or is slower than the compression.
	o.zstd, err = zstd.NewWriter(o.sum, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("writing %s: %w", name, err), w.Close())
	}
	return o, nil
}

// Write compresses p.
func (o *Object) Write(p []byte) (int, error) {
	n, err := o.zstd.Write(p)
	o.raw += int64(n)
	if err != nil {
		return n, fmt.Errorf("writing %s: %w", o.name, err)
	}
	return n, nil
}

// Commit makes the object visible and durable.
func (o *Object) Commit(ctx context.Context) (Stored, error) {
	if o.closed {
		return Stored{}, fmt.Errorf("writing %s: the object is closed", o.name)
	}
	o.closed = true
	if err := o.zstd.Close(); err != nil {
		return Stored{}, errors.Join(fmt.Errorf("writing %s: %w", o.name, err), o.writer.Close())
	}
	if err := o.writer.Commit(ctx); err != nil {
		return Stored{}, errors.Join(fmt.Errorf("writing %s: %w", o.name, err), o.writer.Close())
	}
	return Stored{Name: o.name, Size: o.sum.size, SHA256: o.sum.hex(), RawSize: o.raw}, o.writer.Close()
}

// Close drops what was not committed. It may be called after Commit, and again.
func (o *Object) Close() error {
	if o.closed {
		return nil
	}
	o.closed = true
	o.zstd.Reset(nil) // what it still holds is not written
	return o.writer.Close()
}

// summer counts and sums the bytes that pass.
type summer struct {
	write func([]byte) (int, error)
	hash  hash.Hash
	size  int64
}

func (s *summer) Write(p []byte) (int, error) {
	n, err := s.write(p)
	s.add(p[:n])
	return n, err
}

func (s *summer) add(p []byte) {
	s.hash.Write(p)
	s.size += int64(len(p))
}

func (s *summer) hex() string { return hex.EncodeToString(s.hash.Sum(nil)) }

// Open streams an object, decompressed. Read returns io.EOF only when the stored bytes proved to be those that were written;
// otherwise an error that wraps ErrDamaged. So what was read may be used, but not believed, before io.EOF.
func Open(ctx context.Context, catalog engine.Catalog, s Stored) (io.ReadCloser, error) {
	r, err := catalog.Open(ctx, s.Name)
	if err != nil {
		return nil, fmt.Errorf("reading %s of %s: %w", s.Name, catalog.Describe(), err)
	}
	o := &reader{ctx: ctx, want: s, stored: r, sum: &summer{hash: sha256.New()}}
	// A stream cannot make us take more than this much memory, whatever its header says; ours use windows of 8 MiB at most.
	o.zstd, err = zstd.NewReader(readFunc(o.readStored), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(64<<20))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reading %s: %w", s.Name, err), r.Close())
	}
	return o, nil
}

type reader struct {
	ctx    context.Context
	want   Stored
	stored io.ReadCloser
	failed error // of the catalog, as opposed to what the decoder makes of the bytes
	sum    *summer
	zstd   *zstd.Decoder
	raw    int64
	done   error
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

func (r *reader) readStored(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		r.failed = err
		return 0, err
	}
	n, err := r.stored.Read(p)
	r.sum.add(p[:n])
	if err != nil && err != io.EOF {
		r.failed = err
	}
	return n, err
}

func (r *reader) Read(p []byte) (int, error) {
	if r.done != nil {
		return 0, r.done
	}
	n, err := r.zstd.Read(p)
	r.raw += int64(n)
	switch {
	case err == nil:
		return n, nil
	case errors.Is(err, io.EOF):
		// The decoder may stop before the end of the object: what follows belongs to the sum.
		_, err = io.Copy(io.Discard, readFunc(r.readStored))
	}
	switch {
	case r.failed != nil:
		r.done = fmt.Errorf("reading %s: %w", r.want.Name, r.failed)
	case r.sum.size != r.want.Size:
		r.done = fmt.Errorf("%w: %s has %d bytes, not %d", ErrDamaged, r.want.Name, r.sum.size, r.want.Size)
	case err != nil:
		r.done = fmt.Errorf("%w: decompressing %s: %w", ErrDamaged, r.want.Name, err)
	case r.sum.hex() != r.want.SHA256:
		r.done = fmt.Errorf("%w: the SHA-256 of %s is %s, not %s", ErrDamaged, r.want.Name, r.sum.hex(), r.want.SHA256)
	case r.raw != r.want.RawSize:
		r.done = fmt.Errorf("%w: %s holds %d bytes, not %d", ErrDamaged, r.want.Name, r.raw, r.want.RawSize)
	default:
		r.done = io.EOF
	}
	return n, r.done
}

func (r *reader) Close() error {
	r.zstd.Close()
	return r.stored.Close()
}
