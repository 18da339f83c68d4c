// Package memcatalog is a catalog in memory, for tests, with hooks for faults.
package memcatalog

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/catalog"
)

// Catalog implements engine.Catalog. The hooks are called without its mutex held and may block; they are set before it is used.
type Catalog struct {
	// Fail, if set, is asked at the start of every operation ("create", "replace", "read", "list", "stat", "delete", "writer", "write", "commit",
	// "open"); its error is returned instead of doing anything.
	Fail func(op, name string) error
	// After, if set, is asked once an operation that changes something took effect ("create", "replace", "delete", "commit"): its error
	// is returned although it is done, like an answer that was lost.
	After func(op, name string) error

	now func() time.Time

	mu      sync.Mutex
	objects map[string]object
}

type object struct {
	data     []byte
	modified time.Time
}

var _ engine.Catalog = (*Catalog)(nil)

// New returns an empty catalog; now is its clock.
func New(now func() time.Time) *Catalog {
	return &Catalog{now: now, objects: map[string]object{}}
}

// Describe names the catalog in messages.
func (c *Catalog) Describe() string { return "memory" }

// Names lists the objects, sorted, without asking the hooks.
func (c *Catalog) Names() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for n := range c.objects {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// Peek returns an object's content, or nil, without asking the hooks.
func (c *Catalog) Peek(name string) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Clone(c.objects[name].data)
}

// Create writes a new object.
func (c *Catalog) Create(ctx context.Context, name string, data []byte) error {
	return c.do(ctx, "create", "writing", name, func() error { return c.add(name, data) })
}

// add is called with the mutex held.
func (c *Catalog) add(name string, data []byte) error {
	if _, ok := c.objects[name]; ok {
		return engine.ErrExists
	}
	c.objects[name] = object{bytes.Clone(data), c.now()}
	return nil
}

// Replace writes over the given version, a hash of the content.
func (c *Catalog) Replace(ctx context.Context, name string, data []byte, old engine.Version) (engine.Version, error) {
	err := c.do(ctx, "replace", "replacing", name, func() error {
		o, ok := c.objects[name]
		if !ok {
			return engine.ErrNotFound
		}
		if version(o.data) != old {
			return engine.ErrChanged
		}
		c.objects[name] = object{bytes.Clone(data), c.now()}
		return nil
	})
	if err != nil {
		return "", err
	}
	return version(data), nil
}

// Read returns a small object.
func (c *Catalog) Read(ctx context.Context, name string) (data []byte, v engine.Version, err error) {
	err = c.do(ctx, "read", "reading", name, func() error {
		o, ok := c.objects[name]
		if !ok {
			return engine.ErrNotFound
		}
		if len(o.data) > catalog.MaxObject {
			return fmt.Errorf("it is bigger than %d MiB", catalog.MaxObject>>20)
		}
		data, v = bytes.Clone(o.data), version(o.data)
		return nil
	})
	return data, v, err
}

// List returns the objects whose names begin with prefix.
func (c *Catalog) List(ctx context.Context, prefix string) ([]engine.ObjectInfo, error) {
	if err := catalog.CheckPrefix(prefix); err != nil {
		return nil, err
	}
	if err := c.before(ctx, "list", prefix); err != nil {
		return nil, wrap("listing", prefix, err)
	}
	var found []engine.ObjectInfo
	c.mu.Lock()
	defer c.mu.Unlock()
	for n, o := range c.objects {
		if strings.HasPrefix(n, prefix) {
			found = append(found, engine.ObjectInfo{Name: n, Size: int64(len(o.data)), Modified: o.modified})
		}
	}
	slices.SortFunc(found, func(a, b engine.ObjectInfo) int { return strings.Compare(a.Name, b.Name) })
	return found, nil
}

// Stat describes one object.
func (c *Catalog) Stat(ctx context.Context, name string) (info engine.ObjectInfo, err error) {
	err = c.do(ctx, "stat", "looking at", name, func() error {
		o, ok := c.objects[name]
		if !ok {
			return engine.ErrNotFound
		}
		info = engine.ObjectInfo{Name: name, Size: int64(len(o.data)), Modified: o.modified}
		return nil
	})
	return info, err
}

// Delete removes one object.
func (c *Catalog) Delete(ctx context.Context, name string) error {
	return c.do(ctx, "delete", "deleting", name, func() error {
		delete(c.objects, name)
		return nil
	})
}

// Open streams an object, as it is now.
func (c *Catalog) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	var r io.ReadCloser
	err := c.do(ctx, "open", "opening", name, func() error {
		o, ok := c.objects[name]
		if !ok {
			return engine.ErrNotFound
		}
		r = io.NopCloser(bytes.NewReader(o.data)) // never written to again
		return nil
	})
	return r, err
}

// NewWriter streams a new object.
func (c *Catalog) NewWriter(ctx context.Context, name string) (engine.ObjectWriter, error) {
	err := c.do(ctx, "writer", "writing", name, func() error {
		if _, ok := c.objects[name]; ok {
			return engine.ErrExists
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &writer{ctx: ctx, catalog: c, name: name}, nil
}

type writer struct {
	ctx     context.Context
	catalog *Catalog
	name    string
	buf     bytes.Buffer
	failed  error
}

func (w *writer) Write(p []byte) (int, error) {
	if w.failed == nil {
		w.failed = w.catalog.before(w.ctx, "write", w.name)
	}
	if w.failed != nil {
		return 0, wrap("writing", w.name, w.failed)
	}
	return w.buf.Write(p)
}

func (w *writer) Commit(ctx context.Context) error {
	if w.failed != nil {
		return wrap("writing", w.name, w.failed)
	}
	err := w.catalog.do(ctx, "commit", "writing", w.name, func() error { return w.catalog.add(w.name, w.buf.Bytes()) })
	w.failed = err
	if err == nil {
		w.failed = errors.New("it was committed already")
	}
	return err
}

func (w *writer) Close() error {
	if w.failed == nil {
		w.failed = errors.New("it was closed already")
	}
	return nil
}

// do runs one operation between its hooks.
func (c *Catalog) do(ctx context.Context, op, doing, name string, f func() error) error {
	if err := catalog.CheckName(name); err != nil {
		return err
	}
	if err := c.before(ctx, op, name); err != nil {
		return wrap(doing, name, err)
	}
	c.mu.Lock()
	err := f()
	c.mu.Unlock()
	if err == nil && c.After != nil {
		switch op {
		case "create", "replace", "delete", "commit":
			err = c.After(op, name)
		}
	}
	if err != nil {
		return wrap(doing, name, err)
	}
	return nil
}

func (c *Catalog) before(ctx context.Context, op, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.Fail != nil {
		return c.Fail(op, name)
	}
	return nil
}

func wrap(doing, name string, err error) error {
	return fmt.Errorf("%s the object %s of the catalog in memory: %w", doing, name, err)
}

func version(data []byte) engine.Version {
	sum := sha256.Sum256(data)
	return engine.Version(hex.EncodeToString(sum[:]))
}
