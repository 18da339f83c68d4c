// Package catalogtest is the conformance suite that every catalog passes.
package catalogtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/catalog"
)

// Suite tests one kind of catalog.
type Suite struct {
	// New returns an empty catalog.
	New func(t *testing.T) engine.Catalog
	// Again opens the same catalog once more, as another process would. Nil: the same value serves.
	Again func(t *testing.T, c engine.Catalog) engine.Catalog
	// Workers is how many race in the tests of concurrency; 0 means 20. A count that all of them raise costs the square of it.
	Workers int
}

// Run runs all of it.
func (s Suite) Run(t *testing.T) {
	if s.Workers == 0 {
		s.Workers = 20
	}
	for _, test := range []struct {
		name string
		run  func(t *testing.T, s Suite, c engine.Catalog)
	}{
		{"Empty", testEmpty},
		{"Create", testCreate},
		{"CreateNeverOverwrites", testCreateNeverOverwrites},
		{"Replace", testReplace},
		{"Delete", testDelete},
		{"List", testList},
		{"Names", testNames},
		{"Writer", testWriter},
		{"WriterNeverOverwrites", testWriterNeverOverwrites},
		{"WriterDropped", testWriterDropped},
		{"WriterCancelled", testWriterCancelled},
		{"ReadIsBounded", testReadIsBounded},
		{"Cancelled", testCancelled},
		{"ConcurrentCreate", testConcurrentCreate},
		{"ConcurrentCommit", testConcurrentCommit},
		{"ConcurrentReplace", testConcurrentReplace},
		{"ConcurrentCreateAndDelete", testConcurrentCreateAndDelete},
		{"ReaderSeesAllOrNothing", testReaderSeesAllOrNothing},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := s.New(t)
			if c.Describe() == "" {
				t.Error("the catalog does not describe itself")
			}
			test.run(t, s, c)
		})
	}
}

func (s Suite) again(t *testing.T, c engine.Catalog) engine.Catalog {
	if s.Again == nil {
		return c
	}
	return s.Again(t, c)
}

func testEmpty(t *testing.T, _ Suite, c engine.Catalog) {
	ctx := t.Context()
	if _, _, err := c.Read(ctx, "a/b"); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("Read = %v, want ErrNotFound", err)
	}
	if _, err := c.Stat(ctx, "a/b"); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("Stat = %v, want ErrNotFound", err)
	}
	if _, err := c.Open(ctx, "a/b"); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("Open = %v, want ErrNotFound", err)
	}
	if _, err := c.Replace(ctx, "a/b", []byte("x"), "y"); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("Replace = %v, want ErrNotFound", err)
	}
	if err := c.Delete(ctx, "a/b"); err != nil {
		t.Errorf("Delete = %v, want nil", err)
	}
	wantNames(t, c, "")
}

func testCreate(t *testing.T, s Suite, c engine.Catalog) {
	ctx := t.Context()
	for name, data := range map[string]string{"a": "top", "backups/x/manifest.json": "{}", "backups/x/empty": "", "backups/ü v/data": "\x00\xff"} {
		if err := c.Create(ctx, name, []byte(data)); err != nil {
			t.Fatalf("Create(%q) = %v", name, err)
		}
		for _, view := range []engine.Catalog{c, s.again(t, c)} {
			wantContent(t, view, name, data)
			info, err := view.Stat(ctx, name)
			if err != nil || info.Name != name || info.Size != int64(len(data)) || info.Modified.IsZero() {
				t.Errorf("Stat(%q) = %+v, %v", name, info, err)
			}
		}
	}
}

func testCreateNeverOverwrites(t *testing.T, s Suite, c engine.Catalog) {
	mustCreate(t, c, "x/a", "first")
	if err := s.again(t, c).Create(t.Context(), "x/a", []byte("second")); !errors.Is(err, engine.ErrExists) {
		t.Errorf("the second Create = %v, want ErrExists", err)
	}
	wantContent(t, c, "x/a", "first")
	wantNames(t, c, "", "x/a")
}

func testReplace(t *testing.T, s Suite, c engine.Catalog) {
	ctx := t.Context()
	mustCreate(t, c, "x/a", "one")
	_, v1, err := c.Read(ctx, "x/a")
	if err != nil {
		t.Fatal(err)
	}
	v2, err := s.again(t, c).Replace(ctx, "x/a", []byte("two"), v1)
	if err != nil {
		t.Fatalf("Replace = %v", err)
	}
	if _, v, err := c.Read(ctx, "x/a"); err != nil || v != v2 || v == v1 {
		t.Errorf("Read after Replace gives the version %q, %v; Replace said %q, and it was %q", v, err, v2, v1)
	}
	if _, err := c.Replace(ctx, "x/a", []byte("late"), v1); !errors.Is(err, engine.ErrChanged) {
		t.Errorf("Replace of an old version = %v, want ErrChanged", err)
	}
	wantContent(t, c, "x/a", "two")
	if _, err := c.Replace(ctx, "x/a", []byte("three"), v2); err != nil {
		t.Errorf("Replace with the version that Replace returned = %v", err)
	}
	if err := c.Delete(ctx, "x/a"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Replace(ctx, "x/a", []byte("four"), v2); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("Replace of what is deleted = %v, want ErrNotFound", err)
	}
	wantNames(t, c, "")
}

func testDelete(t *testing.T, s Suite, c engine.Catalog) {
	ctx := t.Context()
	mustCreate(t, c, "a/b/c", "1")
	mustCreate(t, c, "a/d", "2")
	if err := c.Delete(ctx, "a/b"); err != nil { // no object, though others begin so
		t.Errorf("Delete of what is no object = %v", err)
	}
	wantNames(t, c, "", "a/b/c", "a/d")
	for range 2 {
		if err := s.again(t, c).Delete(ctx, "a/b/c"); err != nil {
			t.Errorf("Delete = %v", err)
		}
	}
	wantNames(t, c, "", "a/d")
	mustCreate(t, c, "a/b/c", "again")
	wantContent(t, c, "a/b/c", "again")
}

func testList(t *testing.T, _ Suite, c engine.Catalog) {
	for _, n := range []string{"b/x/1", "b/x/2", "b/x-y/1", "b/xy", "b", "c", "journal/1.json"} {
		if n == "b" {
			continue // a directory cannot hold both b and b/x
		}
		mustCreate(t, c, n, n)
	}
	w, err := c.NewWriter(t.Context(), "b/x/unfinished")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.Write([]byte("half")); err != nil {
		t.Fatal(err)
	}
	wantNames(t, c, "", "b/x-y/1", "b/x/1", "b/x/2", "b/xy", "c", "journal/1.json")
	wantNames(t, c, "b/x", "b/x-y/1", "b/x/1", "b/x/2", "b/xy")
	wantNames(t, c, "b/x/", "b/x/1", "b/x/2")
	wantNames(t, c, "b/x/1", "b/x/1")
	wantNames(t, c, "b/x/1/")
	wantNames(t, c, "j", "journal/1.json")
	wantNames(t, c, "nothing/here")
}

func testNames(t *testing.T, _ Suite, c engine.Catalog) {
	ctx := t.Context()
	for _, name := range []string{"", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../../b", "a/./b", ".hidden", "a/.hidden/b", "a\\b", "a\nb", "a\x00", "\xff", strings.Repeat("x", 300)} {
		calls := map[string]error{"Create": c.Create(ctx, name, nil), "Delete": c.Delete(ctx, name)}
		_, calls["Replace"] = c.Replace(ctx, name, nil, "")
		_, _, calls["Read"] = c.Read(ctx, name)
		_, calls["Stat"] = c.Stat(ctx, name)
		_, calls["Open"] = c.Open(ctx, name)
		_, calls["NewWriter"] = c.NewWriter(ctx, name)
		for call, err := range calls {
			if err == nil || errors.Is(err, engine.ErrNotFound) {
				t.Errorf("%s(%q) = %v, want a refusal of the name", call, name, err)
			}
		}
	}
	for _, prefix := range []string{"/", "../", "a/..", "a//", ".tmp", "a\x00"} {
		if _, err := c.List(ctx, prefix); err == nil {
			t.Errorf("List(%q) = nil, want a refusal of the prefix", prefix)
		}
	}
}

func testWriter(t *testing.T, s Suite, c engine.Catalog) {
	ctx := t.Context()
	w, err := c.NewWriter(ctx, "x/stream")
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	for i := range 100 {
		part := bytes.Repeat([]byte{byte(i)}, 10_000)
		want.Write(part)
		if n, err := w.Write(part); n != len(part) || err != nil {
			t.Fatalf("Write = %d, %v", n, err)
		}
		if i == 50 {
			wantAbsent(t, s.again(t, c), "x/stream")
		}
	}
	if err := w.Commit(ctx); err != nil {
		t.Fatalf("Commit = %v", err)
	}
	if _, err := w.Write([]byte("more")); err == nil {
		t.Error("Write after Commit = nil, want an error")
	}
	for range 2 {
		if err := w.Close(); err != nil {
			t.Errorf("Close after Commit = %v", err)
		}
	}
	wantContent(t, s.again(t, c), "x/stream", want.String())
	r, err := c.Open(ctx, "x/stream")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, want.Bytes()) {
		t.Errorf("Open gives %d bytes, %v; want the %d that were written", len(got), err, want.Len())
	}
}

func testWriterNeverOverwrites(t *testing.T, s Suite, c engine.Catalog) {
	ctx := t.Context()
	w, err := c.NewWriter(ctx, "x/a")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.Write([]byte("late")); err != nil {
		t.Fatal(err)
	}
	mustCreate(t, s.again(t, c), "x/a", "first")
	if err := w.Commit(ctx); !errors.Is(err, engine.ErrExists) {
		t.Errorf("Commit = %v, want ErrExists", err)
	}
	if err := w.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
	wantContent(t, c, "x/a", "first")
	if w, err := c.NewWriter(ctx, "x/a"); err == nil {
		// It may find out late, but it must find out.
		if err := w.Commit(ctx); !errors.Is(err, engine.ErrExists) {
			t.Errorf("Commit over an object that was there before = %v, want ErrExists", err)
		}
		_ = w.Close()
	} else if !errors.Is(err, engine.ErrExists) {
		t.Errorf("NewWriter = %v, want ErrExists", err)
	}
	wantContent(t, c, "x/a", "first")
}

func testWriterDropped(t *testing.T, _ Suite, c engine.Catalog) {
	ctx := t.Context()
	w, err := c.NewWriter(ctx, "x/half")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("half")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := w.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
	}
	if err := w.Commit(ctx); err == nil {
		t.Error("Commit after Close = nil, want an error")
	}
	wantAbsent(t, c, "x/half")
	wantNames(t, c, "")
	mustCreate(t, c, "x/half", "whole") // the name is still free
}

func testWriterCancelled(t *testing.T, _ Suite, c engine.Catalog) {
	ctx, cancel := context.WithCancel(t.Context())
	w, err := c.NewWriter(ctx, "x/half")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.Write([]byte("half")); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := w.Write([]byte("more")); !errors.Is(err, context.Canceled) {
		t.Errorf("Write after a cancel = %v, want context.Canceled", err)
	}
	// A write failed, so there is a hole: a live context must not make an object of it.
	if err := w.Commit(t.Context()); err == nil {
		t.Error("Commit after a failed Write = nil, want an error")
	}
	if err := w.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
	wantAbsent(t, c, "x/half")
}

func testReadIsBounded(t *testing.T, _ Suite, c engine.Catalog) {
	ctx := t.Context()
	w, err := c.NewWriter(ctx, "x/big")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.Write(make([]byte, catalog.MaxObject+1)); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if data, _, err := c.Read(ctx, "x/big"); err == nil || errors.Is(err, engine.ErrNotFound) {
		t.Errorf("Read of %d bytes = %d bytes, %v; want a refusal", catalog.MaxObject+1, len(data), err)
	}
}

func testCancelled(t *testing.T, _ Suite, c engine.Catalog) {
	mustCreate(t, c, "x/a", "1")
	_, v, err := c.Read(t.Context(), "x/a")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	calls := map[string]error{"Create": c.Create(ctx, "x/b", nil), "Delete": c.Delete(ctx, "x/a")}
	_, calls["Replace"] = c.Replace(ctx, "x/a", []byte("2"), v)
	_, _, calls["Read"] = c.Read(ctx, "x/a")
	_, calls["List"] = c.List(ctx, "")
	for call, err := range calls {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a cancelled context = %v, want context.Canceled", call, err)
		}
	}
	wantContent(t, c, "x/a", "1")
	wantNames(t, c, "", "x/a")
}

func testConcurrentCreate(t *testing.T, s Suite, c engine.Catalog) {
	var won atomic.Int64
	winner := make(chan string, s.Workers)
	race(t, s.Workers, func(i int) {
		data := fmt.Sprintf("content of %d", i)
		switch err := s.again(t, c).Create(t.Context(), "deep/folder/a", []byte(data)); {
		case err == nil:
			won.Add(1)
			winner <- data
		case !errors.Is(err, engine.ErrExists):
			t.Errorf("Create = %v, want nil or ErrExists", err)
		}
	})
	if won.Load() != 1 {
		t.Fatalf("%d of %d Creates won, want exactly one", won.Load(), s.Workers)
	}
	wantContent(t, c, "deep/folder/a", <-winner)
	wantNames(t, c, "", "deep/folder/a")
}

func testConcurrentCommit(t *testing.T, s Suite, c engine.Catalog) {
	var won atomic.Int64
	winner := make(chan string, s.Workers)
	race(t, s.Workers, func(i int) {
		data := fmt.Sprintf("content of %d", i)
		w, err := s.again(t, c).NewWriter(t.Context(), "deep/folder/a")
		if err == nil {
			defer w.Close()
			if _, err = w.Write([]byte(data)); err == nil {
				err = w.Commit(t.Context())
			}
		}
		switch {
		case err == nil:
			won.Add(1)
			winner <- data
		case !errors.Is(err, engine.ErrExists):
			t.Errorf("streaming = %v, want nil or ErrExists", err)
		}
	})
	if won.Load() != 1 {
		t.Fatalf("%d of %d Commits won, want exactly one", won.Load(), s.Workers)
	}
	wantContent(t, c, "deep/folder/a", <-winner)
}

// testConcurrentReplace counts up in one object from many sides: no step may be lost.
func testConcurrentReplace(t *testing.T, s Suite, c engine.Catalog) {
	const steps = 5
	mustCreate(t, c, "x/count", "")
	var lost atomic.Int64
	race(t, s.Workers, func(i int) {
		c := s.again(t, c)
		for done := 0; done < steps; {
			data, v, err := c.Read(t.Context(), "x/count")
			if err != nil {
				t.Errorf("Read = %v", err)
				return
			}
			// Each content is new, so that a version never comes back.
			switch _, err := c.Replace(t.Context(), "x/count", fmt.Appendf(data, "%c", 'a'+i), v); {
			case err == nil:
				done++
			case errors.Is(err, engine.ErrChanged):
				lost.Add(1)
			default:
				t.Errorf("Replace = %v, want nil or ErrChanged", err)
				return
			}
		}
	})
	data, _, err := c.Read(t.Context(), "x/count")
	if err != nil || len(data) != s.Workers*steps {
		t.Errorf("after %d Replaces the object has %d steps, %v", s.Workers*steps, len(data), err)
	}
	t.Logf("%d Replaces lost their race", lost.Load())
}

// testConcurrentCreateAndDelete: folders that are pruned under a Create's hands must not make it fail.
func testConcurrentCreateAndDelete(t *testing.T, s Suite, c engine.Catalog) {
	race(t, 3, func(i int) { // few: the more there are, the less often a folder is empty
		c := s.again(t, c)
		name := fmt.Sprintf("a/b/c/%d", i)
		for range 10 {
			if err := c.Create(t.Context(), name, []byte("x")); err != nil {
				t.Errorf("Create = %v", err)
				return
			}
			if err := c.Delete(t.Context(), name); err != nil {
				t.Errorf("Delete = %v", err)
				return
			}
		}
	})
	wantNames(t, c, "")
}

func testReaderSeesAllOrNothing(t *testing.T, s Suite, c engine.Catalog) {
	const size = 100_000
	versions := [][]byte{bytes.Repeat([]byte("a"), size), bytes.Repeat([]byte("b"), size)}
	mustCreate(t, c, "x/a", string(versions[0]))
	_, v, err := c.Read(t.Context(), "x/a")
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			c := s.again(t, c)
			for {
				select {
				case <-stop:
					return
				default:
				}
				data, _, err := c.Read(t.Context(), "x/a")
				if err != nil || (!bytes.Equal(data, versions[0]) && !bytes.Equal(data, versions[1])) {
					t.Errorf("a reader saw %d bytes, %v: neither the old content nor the new one", len(data), err)
					return
				}
			}
		})
	}
	for i := range 20 {
		if v, err = c.Replace(t.Context(), "x/a", versions[(i+1)%2], v); err != nil {
			t.Errorf("Replace = %v", err)
			break
		}
	}
	close(stop)
	wg.Wait()
}

// race runs f n times at once.
func race(t *testing.T, n int, f func(i int)) {
	t.Helper()
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			f(i)
		})
	}
	close(start)
	wg.Wait()
}

func mustCreate(t *testing.T, c engine.Catalog, name, data string) {
	t.Helper()
	if err := c.Create(t.Context(), name, []byte(data)); err != nil {
		t.Fatalf("Create(%q) = %v", name, err)
	}
}

func wantContent(t *testing.T, c engine.Catalog, name, want string) {
	t.Helper()
	data, _, err := c.Read(t.Context(), name)
	if err != nil || string(data) != want {
		t.Errorf("Read(%q) = %.40q (%d bytes), %v; want %.40q", name, data, len(data), err, want)
	}
}

func wantAbsent(t *testing.T, c engine.Catalog, name string) {
	t.Helper()
	if _, err := c.Stat(t.Context(), name); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("Stat(%q) = %v, want ErrNotFound", name, err)
	}
}

func wantNames(t *testing.T, c engine.Catalog, prefix string, want ...string) {
	t.Helper()
	list, err := c.List(t.Context(), prefix)
	if err != nil {
		t.Errorf("List(%q) = %v", prefix, err)
		return
	}
	var got []string
	for _, o := range list {
		got = append(got, o.Name)
	}
	if !slices.Equal(got, want) {
		t.Errorf("List(%q) = %q, want %q", prefix, got, want)
	}
}
