package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

// guard ends a stream that makes no progress while somebody waits for it.
type guard struct {
	clock engine.Clock

	mu      sync.Mutex
	waiting bool
	since   time.Duration // boot clock
}

// watch returns a context that ends with errStalled, or with what it is cancelled for.
func (g *guard) watch(ctx context.Context) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		for g.clock.Sleep(ctx, stallTimeout/6) == nil {
			g.mu.Lock()
			stalled := g.waiting && g.clock.Boot()-g.since >= stallTimeout
			g.mu.Unlock()
			if stalled {
				cancel(errStalled)
				return
			}
		}
	}()
	return ctx, cancel
}

// waits says whether somebody waits from now on; each call is a sign of progress.
func (g *guard) waits(waiting bool) {
	now := g.clock.Boot()
	g.mu.Lock()
	g.waiting, g.since = waiting, now
	g.mu.Unlock()
}

// Open streams an object. A stream that breaks goes on where it was, from the same content.
func (c *Catalog) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	if err := c.check(name); err != nil {
		return nil, err
	}
	r := &reader{catalog: c, ctx: ctx, name: name, key: c.key(name)}
	err := ctx.Err()
	if err == nil {
		err = r.reopen()
	}
	if isNotFound(err) {
		err = engine.ErrNotFound
	}
	if err != nil {
		return nil, c.wrap("opening", name, err)
	}
	return r, nil
}

type reader struct {
	catalog   *Catalog
	ctx       context.Context
	name, key string

	etag   *string // of the first opening
	size   int64
	offset int64
	guard  *guard
	body   io.ReadCloser
	cancel context.CancelCauseFunc
	breaks int // in a row, without a byte between them
	failed error
}

// maxBreaks in a row end a stream.
const maxBreaks = 5

// reopen asks for what is left, again while that fails in a way that passes.
func (r *reader) reopen() error {
	all, cancel := r.catalog.clock.WithTimeout(r.ctx, callTimeout)
	defer cancel()
	api, err := r.catalog.open(all)
	if err != nil {
		return err
	}
	return r.catalog.repeat(all, r.ctx, 0, func() error {
		in := s3.GetObjectInput{Bucket: &r.catalog.settings.Bucket, Key: &r.key}
		if r.etag == nil {
			in.ChecksumMode = types.ChecksumModeEnabled
		} else {
			in.IfMatch, in.Range = r.etag, aws.String(fmt.Sprintf("bytes=%d-", r.offset))
		}
		g := &guard{clock: r.catalog.clock}
		g.waits(true)
		ctx, cancel := g.watch(r.ctx) // not all: the body is read long after
		try, done := r.catalog.clock.WithTimeout(all, tryTimeout)
		defer done()
		answered := context.AfterFunc(try, func() { cancel(context.DeadlineExceeded) })
		out, err := api.GetObject(ctx, &in, once)
		g.waits(false)
		if !answered() && err == nil {
			_ = out.Body.Close() // only read
			err = context.DeadlineExceeded
		}
		if err != nil {
			err = orCause(ctx, err)
			cancel(nil)
			return err
		}
		if r.etag == nil {
			r.etag, r.size = out.ETag, aws.ToInt64(out.ContentLength)
			if r.etag == nil || out.ContentLength == nil {
				_ = out.Body.Close() // only read
				cancel(nil)
				return errors.New("the store does not tell an object's ETag and length")
			}
		}
		r.guard, r.body, r.cancel = g, out.Body, cancel
		return nil
	})
}

// orCause is why the stream was ended, where that was for its silence.
func orCause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, errStalled) || errors.Is(cause, context.DeadlineExceeded) {
		return cause
	}
	return err
}

func (r *reader) Read(p []byte) (int, error) {
	if r.failed != nil {
		return 0, r.failed
	}
	for {
		if err := r.ctx.Err(); err != nil {
			return 0, err
		}
		if r.body == nil {
			if err := r.reopen(); err != nil {
				r.failed = r.catalog.wrap("reading", r.name, err)
				return 0, r.failed
			}
		}
		r.guard.waits(true)
		n, err := r.body.Read(p)
		r.guard.waits(false)
		r.offset += int64(n)
		switch {
		case errors.Is(err, io.EOF) && r.offset == r.size:
			r.failed = io.EOF
			return n, io.EOF
		case err == nil:
			r.breaks = 0
			return n, nil
		case r.offset >= r.size:
			// All of it came, and is not what S3 says it should be (or is longer): nothing to go on from.
			r.failed = r.catalog.wrap("reading", r.name, err)
			return n, r.failed
		}
		r.drop()
		if n > 0 {
			r.breaks = 0
			return n, nil // the rest with the next Read
		}
		if r.breaks++; r.breaks == maxBreaks {
			r.failed = r.catalog.wrap("reading", r.name, fmt.Errorf("it broke off %d times at byte %d: %w", r.breaks, r.offset, err))
			return 0, r.failed
		}
	}
}

func (r *reader) drop() {
	if r.body != nil {
		r.cancel(nil)
		_ = r.body.Close() // only read
		r.body = nil
	}
}

func (r *reader) Close() error {
	r.drop()
	if r.failed == nil {
		r.failed = errors.New("it was closed already")
	}
	return nil
}
