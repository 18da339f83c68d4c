package s3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

// partSizes say how big the parts of an upload are. S3 takes 10,000 of them, of 5 MiB or more (but the last), and how long a stream gets is not known when it
// begins: so parts begin small, for memory's sake, and grow.
type partSizes []partSize

type partSize struct {
	upTo     int32 // the last part of this size
	bytes    int
	parallel int // uploads of such parts at once
}

// defaultParts hold 4 × 8 MiB of memory for an object up to 8 GiB, 2 × 32 MiB up to 102 GiB, and 2 × 128 MiB up to 852 GiB.
var defaultParts = partSizes{{1000, 8 << 20, 3}, {4000, 32 << 20, 1}, {10000, 128 << 20, 1}}

func (p partSizes) of(part int32) (partSize, bool) {
	for _, s := range p {
		if part <= s.upTo {
			return s, true
		}
	}
	return partSize{}, false
}

// capacity is the biggest object, in bytes.
func (p partSizes) capacity() (total int64) {
	var before int32
	for _, s := range p {
		total += int64(s.upTo-before) * int64(s.bytes)
		before = s.upTo
	}
	return total
}

// firstBuffer is what a writer begins with: most objects are small.
const firstBuffer = 64 << 10

// NewWriter streams a new object: in parts once it is longer than one, else with Commit.
func (c *Catalog) NewWriter(ctx context.Context, name string) (engine.ObjectWriter, error) {
	if err := c.check(name); err != nil {
		return nil, err
	}
	// Better to know it before a long stream than after.
	_, err := c.head(ctx, c.key(name))
	if err == nil {
		err = engine.ErrExists
	}
	if !errors.Is(err, engine.ErrNotFound) {
		return nil, c.wrap("writing", name, err)
	}
	w := &writer{caller: ctx, catalog: c, name: name, key: c.key(name), stamp: random(), next: 1, buf: make([]byte, 0, firstBuffer)}
	w.ctx, w.cancel = context.WithCancel(ctx)
	return w, nil
}

// writer is used by one goroutine; its uploads run in others.
type writer struct {
	caller    context.Context
	ctx       context.Context // ends also with Close, and with the first part that fails
	cancel    context.CancelFunc
	catalog   *Catalog
	name, key string
	stamp     string

	buf      []byte
	next     int32  // number of the part that buf will be
	uploadID string // empty: not begun
	uploads  sync.WaitGroup
	closed   error // why nothing more is taken

	mu       sync.Mutex
	done     []types.CompletedPart // by number − 1
	free     [][]byte              // buffers of parts that are up
	failed   error                 // the first failure of a part
	inFlight int
	landed   chan struct{} // closed and renewed when an upload ends
}

func (w *writer) Write(p []byte) (int, error) {
	n := 0
	for {
		if err := w.broken(); err != nil {
			return n, w.catalog.wrap("writing", w.name, err)
		}
		if n == len(p) {
			return n, nil
		}
		size, ok := w.catalog.parts.of(w.next)
		if !ok {
			w.closed = fmt.Errorf("it is bigger than %d GiB, more than is taken for one object", w.catalog.parts.capacity()>>30)
			continue
		}
		if len(w.buf) == size.bytes { // and more comes
			if err := w.ship(size); err != nil {
				w.closed = err
			}
			continue
		}
		take := min(size.bytes-len(w.buf), len(p)-n)
		w.buf = append(grow(w.buf, take, size.bytes), p[n:n+take]...)
		n += take
	}
}

// grow makes room for n more bytes, by doubling, and never for more than limit.
func grow(b []byte, n, limit int) []byte {
	if len(b)+n <= cap(b) {
		return b
	}
	out := make([]byte, len(b), min(limit, max(2*cap(b), len(b)+n, firstBuffer)))
	copy(out, b)
	return out
}

// broken is why the object can not come to be any more; nil while it can. It never gets whole again: a stream with a hole must not become an object.
func (w *writer) broken() error {
	if w.closed != nil {
		return w.closed
	}
	w.mu.Lock()
	err := w.failed
	w.mu.Unlock()
	if err == nil {
		err = w.caller.Err()
	}
	return err
}

// ship begins to upload the part in buf, as soon as there is room for another upload.
func (w *writer) ship(size partSize) error {
	if w.uploadID == "" {
		if err := w.begin(); err != nil {
			return err
		}
	}
	if err := w.room(size.parallel); err != nil {
		return err
	}
	number, part := w.next, w.buf
	w.next++
	w.mu.Lock()
	w.inFlight++
	w.done = append(w.done, types.CompletedPart{})
	w.buf = nil
	if n := len(w.free); n > 0 {
		w.buf, w.free = w.free[n-1][:0], w.free[:n-1]
	}
	w.mu.Unlock()
	w.uploads.Go(func() { w.upload(number, part) })
	return nil
}

// room waits until fewer than n uploads run.
func (w *writer) room(n int) error {
	for {
		w.mu.Lock()
		running, failed := w.inFlight, w.failed
		if w.landed == nil {
			w.landed = make(chan struct{})
		}
		landed := w.landed
		w.mu.Unlock()
		if failed != nil || running < n {
			return failed
		}
		select {
		case <-landed:
		case <-w.ctx.Done():
			return w.ctx.Err()
		}
	}
}

func (w *writer) begin() error {
	in := s3.CreateMultipartUploadInput{Bucket: &w.catalog.settings.Bucket, Key: &w.key, Metadata: map[string]string{stampKey: w.stamp}, ChecksumAlgorithm: types.ChecksumAlgorithmSha256}
	in.ServerSideEncryption, in.SSEKMSKeyId = w.catalog.encryption()
	return w.catalog.call(w.ctx, func(ctx context.Context, api *s3.Client) error {
		out, err := api.CreateMultipartUpload(ctx, &in, once)
		if err == nil {
			w.uploadID = aws.ToString(out.UploadId)
		}
		return err
	})
}

func (w *writer) upload(number int32, part []byte) {
	done, err := w.catalog.uploadPart(w.ctx, w.key, w.uploadID, number, part)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.inFlight--
	if w.landed != nil {
		close(w.landed)
		w.landed = nil
	}
	if err != nil {
		if w.failed == nil {
			w.failed = fmt.Errorf("uploading part %d: %w", number, err)
		}
		w.cancel()
		return
	}
	w.done[number-1] = done
	if size, ok := w.catalog.parts.of(number + 1); ok && cap(part) <= 2*size.bytes {
		w.free = append(w.free, part)
	}
}

// uploadPart sends one part, again while that fails in a way that passes. A try lasts for as long as it makes progress.
func (c *Catalog) uploadPart(ctx context.Context, key, uploadID string, number int32, part []byte) (done types.CompletedPart, err error) {
	api, err := c.open(ctx)
	if err != nil {
		return done, err
	}
	sum := sha256.Sum256(part)
	checksum := base64.StdEncoding.EncodeToString(sum[:])
	g := &guard{clock: c.clock}
	err = c.repeat(ctx, ctx, partTries, func() error {
		watched, stop := g.watch(ctx)
		defer stop(nil)
		g.waits(true)
		out, err := api.UploadPart(watched, &s3.UploadPartInput{
			Bucket: &c.settings.Bucket, Key: &key, UploadId: &uploadID, PartNumber: &number, Body: &body{bytes.NewReader(part), g}, ContentLength: aws.Int64(int64(len(part))),
			ChecksumAlgorithm: types.ChecksumAlgorithmSha256, ChecksumSHA256: &checksum,
		}, once)
		if err != nil {
			return orCause(watched, err)
		}
		done = types.CompletedPart{ETag: out.ETag, PartNumber: &number, ChecksumSHA256: &checksum}
		return nil
	})
	return done, err
}

// body tells the guard of what is sent. It has no WriteTo, by which it would be sent all at once.
type body struct {
	r *bytes.Reader
	g *guard
}

func (b *body) Read(p []byte) (int, error) {
	b.g.waits(true)
	return b.r.Read(p)
}

// Seek is for the SDK, which asks for the length so.
func (b *body) Seek(offset int64, whence int) (int64, error) { return b.r.Seek(offset, whence) }

// Commit makes the object visible, unless there is one of its name.
func (w *writer) Commit(ctx context.Context) error {
	err := w.broken()
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = w.commit(ctx)
	}
	if err != nil {
		w.closed = err
		return w.catalog.wrap("writing", w.name, err)
	}
	w.closed = errors.New("it was committed already")
	w.uploadID, w.buf, w.free = "", nil, nil
	w.cancel()
	return nil
}

func (w *writer) commit(ctx context.Context) error {
	if w.uploadID == "" {
		_, err := w.catalog.put(ctx, w.key, w.buf, "", time.Time{})
		return err
	}
	defer context.AfterFunc(ctx, w.cancel)()
	if len(w.buf) > 0 {
		size, _ := w.catalog.parts.of(w.next) // Write made sure that there is one
		if err := w.ship(size); err != nil {
			return err
		}
	}
	w.uploads.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := w.broken(); err != nil {
		return err
	}
	return w.complete(ctx)
}

func (w *writer) complete(ctx context.Context) error {
	in := s3.CompleteMultipartUploadInput{
		Bucket: &w.catalog.settings.Bucket, Key: &w.key, UploadId: &w.uploadID, MultipartUpload: &types.CompletedMultipartUpload{Parts: w.done}, IfNoneMatch: aws.String("*"),
	}
	err := w.catalog.call(ctx, func(ctx context.Context, api *s3.Client) error {
		_, err := api.CompleteMultipartUpload(ctx, &in, once)
		return err
	})
	// An upload that is gone, and an object that is there, may both be an earlier try's doing.
	if gone := code(err) == "NoSuchUpload"; !gone && !isRefusedByCondition(err) {
		return err
	}
	head, headErr := w.catalog.head(ctx, w.key)
	switch {
	case errors.Is(headErr, engine.ErrNotFound) && isRefusedByCondition(err):
		return engine.ErrExists // it was there, and is not any more
	case errors.Is(headErr, engine.ErrNotFound):
		return fmt.Errorf("somebody aborted its upload (a rule of the bucket's lifecycle, or the clean-up after this run): %w", err)
	case headErr != nil:
		return fmt.Errorf("whether an earlier try completed it is not known: %w", headErr)
	case head.Metadata[stampKey] == w.stamp:
		return nil
	}
	return engine.ErrExists
}

// Close aborts what was not committed, and sees that no part of it is left.
func (w *writer) Close() error {
	if w.closed == nil {
		w.closed = errors.New("it was closed already")
	}
	w.cancel()
	w.uploads.Wait()
	w.buf, w.free = nil, nil
	if w.uploadID == "" {
		return nil
	}
	if err := w.catalog.abort(context.WithoutCancel(w.caller), w.key, w.uploadID); err != nil {
		return w.catalog.wrap("dropping the unfinished", w.name, err)
	}
	w.uploadID = ""
	return nil
}

// maxAborts bounds how often an upload is aborted whose parts keep coming.
const maxAborts = 5

// abort ends an upload. A part that was on its way may land after that, and would be paid for: so it looks, and aborts again.
func (c *Catalog) abort(ctx context.Context, key, uploadID string) error {
	for n := 1; ; n++ {
		err := c.call(ctx, func(ctx context.Context, api *s3.Client) error {
			_, err := api.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &c.settings.Bucket, Key: &key, UploadId: &uploadID}, once)
			return err
		})
		if err != nil && code(err) != "NoSuchUpload" {
			return fmt.Errorf("aborting the upload %s of %s: %w", uploadID, key, err)
		}
		err = c.call(ctx, func(ctx context.Context, api *s3.Client) error {
			_, err := api.ListParts(ctx, &s3.ListPartsInput{Bucket: &c.settings.Bucket, Key: &key, UploadId: &uploadID}, once)
			return err
		})
		switch {
		case code(err) == "NoSuchUpload":
			return nil
		case err != nil:
			return fmt.Errorf("looking whether the upload %s of %s is gone: %w", uploadID, key, err)
		case n == maxAborts:
			return fmt.Errorf("the upload %s of %s is still there after %d aborts: the lifecycle of the bucket should have a rule for incomplete uploads", uploadID, key, n)
		}
	}
}
