package upload

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/memcatalog"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/testclock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/local"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/snapshot"
)

func someFiles(seed uint64) map[string][]byte {
	return map[string][]byte{
		"nb-1-big-Data.db": noise(seed, 700<<10), "nb-1-big-Index.db": noise(seed+1, 5000), "nb-1-big-TOC.txt": []byte("Data.db\n"), "nb-1-big-Digest.crc32": {},
		".by_customer/nb-1-big-Data.db": noise(seed+2, 100), "nb-2-big-TOC.txt": []byte("Data.db\n"), "manifest.json": []byte("{}"), "it's a name": []byte("x"),
	}
}

// trip takes a backup there and back, over any catalog.
func trip(t *testing.T, c engine.Catalog) {
	ctx := t.Context()
	s := Open(c, Settings{Clock: testclock.New()}, nil)
	one, two := someFiles(100), someFiles(200)
	a, b := newBox(t, 1, one), newBox(t, 2, two)
	f, ix, err := backUp(ctx, s, "first", a, b)
	if err != nil {
		t.Fatal(err)
	}
	// The TOCs, the empty digest, the manifest and the odd name are shared.
	if f.FilesSent != 10 || f.FilesReused != 6 || f.BytesSent != 2*(700<<10+5000+100)+8+2+1 {
		t.Errorf("the first upload: %+v", f)
	}
	if err := s.Inspect(ctx, prefixOf("first")+"index.json"); err != nil {
		t.Error(err)
	}
	if n := sound(t, c); n != 10 {
		t.Errorf("%d blobs", n)
	}
	// Unchanged data is not sent again.
	before := a.bytes + b.bytes
	f, _, err = backUp(ctx, s, "second", a, b)
	if err != nil || f.BytesSent != 0 || f.FilesSent != 0 || f.FilesReused != 16 || a.bytes+b.bytes != before {
		t.Errorf("the second upload: %+v, %v", f, err)
	}
	// After a wipe, files of the same names, sizes and times have other content.
	third := newBox(t, 1, nil)
	third.fill(t, map[string][]byte{"nb-1-big-Data.db": noise(300, 700<<10)})
	if f, _, err = backUp(ctx, s, "third", third); err != nil || f.BytesSent != 700<<10 {
		t.Errorf("the third upload: %+v, %v", f, err)
	}

	to := t.TempDir()
	target := Target{Name: "new", Files: &disk{}, Roots: []string{to}, Directory: func(n snapshot.Node, files snapshot.Files) (string, bool) {
		return path.Join(to, n.HostID, files.Keyspace, files.Table), true
	}}
	dirs := map[string]map[string][]byte{filepath.Join(to, a.host, "shop/orders"): one, filepath.Join(to, b.host, "shop/orders"): two}
	placed, err := s.Place(ctx, ix, []Target{target})
	if err != nil || placed[0].FilesSent != 16 {
		t.Fatalf("%+v, %v", placed, err)
	}
	for dir, files := range dirs {
		same(t, dir, files)
	}
	// What is there is not placed again, what is missing is, and what is half there too.
	first := filepath.Join(to, a.host, "shop/orders")
	if err := errors.Join(os.Remove(filepath.Join(first, "nb-1-big-Index.db")), os.WriteFile(filepath.Join(first, partPrefix+"nb-1-big-Index.db"), []byte("half"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if placed, err = s.Place(ctx, ix, []Target{target}); err != nil || placed[0].FilesSent != 1 || placed[0].FilesReused != 15 {
		t.Errorf("%+v, %v", placed, err)
	}
	same(t, first, one)
	// Somebody else's file of the same size stays, unless it is to be overwritten.
	other := maps.Clone(one)
	other["nb-1-big-Index.db"] = noise(999, 5000)
	if err := os.WriteFile(filepath.Join(first, "nb-1-big-Index.db"), other["nb-1-big-Index.db"], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err = s.Place(ctx, ix, []Target{target}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a foreign file: %v", err)
	}
	same(t, first, other)
	target.Overwrite = true
	if placed, err = s.Place(ctx, ix, []Target{target}); err != nil || placed[0].FilesSent != 1 {
		t.Errorf("%+v, %v", placed, err)
	}
	same(t, first, one)

	// Only what no other backup needs is removed.
	for i, want := range []int{11, 10, 0} {
		backup := []string{"first", "third", "second"}[i]
		done, err := s.Delete(ctx, prefixOf(backup)+"index.json")
		if err != nil || done.Kept != "" {
			t.Errorf("deleting %s: %+v, %v", backup, done, err)
		}
		if got := sound(t, c); got != want {
			t.Errorf("after deleting %s: %d blobs, not %d", backup, got, want)
		}
		if err := s.Inspect(ctx, prefixOf(backup)+"index.json"); !errors.Is(err, engine.ErrNotFound) {
			t.Errorf("%s after it was deleted: %v", backup, err)
		}
		if i < 2 {
			if err := s.Inspect(ctx, prefixOf("second")+"index.json"); err != nil {
				t.Errorf("after deleting %s: %v", backup, err)
			}
		}
	}
	if left := names(t, c, ""); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// TestLocal goes the same way by the files of this machine as the driver has them.
func TestLocal(t *testing.T) {
	c := newDirectory(t)
	s := Open(c, Settings{Clock: testclock.New()}, nil)
	files := someFiles(1)
	b := newBox(t, 1, files)
	m := local.Machine{Clock: testclock.New(), Getenv: os.Getenv}
	p, err := s.Pin(t.Context(), "0123456789abcdef")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Release(t.Context())
	if !hasSums(t.Context(), m) {
		t.Error("this machine has no sha256sum")
	}
	f, err := p.Upload(t.Context(), []Source{{Name: "here", Files: m, List: b.list}})
	if err != nil || f[0].FilesSent != 7 {
		t.Fatalf("%+v, %v", f, err)
	}
	sound(t, c)
	ix, err := record(t.Context(), c, "b", []*box{b})
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	to := filepath.Join(root, "to")
	target := Target{Files: m, Roots: []string{root}, Directory: func(snapshot.Node, snapshot.Files) (string, bool) { return to, true }}
	for _, sent := range []int64{8, 0} {
		f, err := s.Place(t.Context(), ix, []Target{target})
		if err != nil || f[0].FilesSent != sent {
			t.Errorf("%+v, %v", f, err)
		}
		same(t, to, files)
	}
}

func TestRoundTrip(t *testing.T) { trip(t, newDirectory(t)) }

// TestNoSumsOnNode is an upload from a node without sha256sum.
func TestNoSumsOnNode(t *testing.T) {
	c := newDirectory(t)
	var said []string
	s := Open(c, Settings{Clock: testclock.New()}, func(m string, _ map[string]any) { said = append(said, m) })
	b := newBox(t, 1, someFiles(1))
	b.noSums = true
	for i, want := range []int64{700<<10 + 5000 + 100 + 8 + 2 + 1, 0} {
		f, _, err := backUp(t.Context(), s, fmt.Sprint(i), b)
		if err != nil || f.BytesSent != want {
			t.Errorf("%+v, %v", f, err)
		}
	}
	sound(t, c)
	if !strings.Contains(strings.Join(said, "\n"), "no sha256sum") {
		t.Errorf("said: %q", said)
	}
}

// TestFaults lets transfers go wrong in ways that pass, and in ways that do not.
func TestFaults(t *testing.T) {
	const data = "nb-1-big-Data.db"
	for name, c := range map[string]struct {
		set  func(b *box)
		fail func(op, name string) error
		want string // part of the error; empty: it succeeds
	}{
		"cut and taken up":     {set: func(b *box) { b.set(data, "cut", 300<<10, 2) }},
		"cut at once":          {set: func(b *box) { b.set(data, "cut", 0, 4) }},
		"short":                {set: func(b *box) { b.set(data, "short", 1000, 1) }},
		"hanging":              {set: func(b *box) { b.set(data, "hang", 400<<10, 1) }},
		"garbled once":         {set: func(b *box) { b.set(data, "garble", 5000, 1) }},
		"summing cut":          {set: func(b *box) { b.set("sha256sum", "cut", 0, 1) }, want: ""},
		"always cut":           {set: func(b *box) { b.set(data, "cut", 0, 1000) }, want: "connection reset"},
		"always short":         {set: func(b *box) { b.set(data, "short", 1000, 1000) }, want: "it ended after 1000 of 716800 bytes"},
		"always garbled":       {set: func(b *box) { b.set(data, "garble", 0, 1000) }, want: "what came is not what was summed"},
		"shorter than listed":  {set: func(b *box) { _ = os.Truncate(filepath.Join(b.root, data), 7) }, want: "it ended after 7 of"},
		"longer than listed":   {set: func(b *box) { appendTo(filepath.Join(b.root, data)) }, want: "it is longer than the 716800 bytes"},
		"cleared on the node":  {set: func(b *box) { _ = os.RemoveAll(b.root) }, want: "No such file"},
		"cleared, without sum": {set: func(b *box) { _ = os.RemoveAll(b.root); b.noSums = true }, want: "no such file"},
		"catalog full": {fail: func(op, name string) error {
			if op == "write" && name == sum(sha(noise(1, 700<<10))).blob() {
				return syscall.ENOSPC
			}
			return nil
		}, want: "no space left"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := memcatalog.New(time.Now)
				m.Fail = c.fail
				s := Open(m, Settings{Clock: testclock.New(), Parallel: 2}, nil)
				b := newBox(t, 1, someFiles(1))
				if c.set != nil {
					c.set(b)
				}
				_, _, err := backUp(t.Context(), s, "b", b)
				if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
					t.Errorf("got %v, want %q", err, c.want)
				}
				if err != nil && !strings.Contains(err.Error(), b.host) {
					t.Errorf("the error does not name the node: %v", err)
				}
				sound(t, m)
				index := prefixOf("b") + "index.json"
				if err == nil {
					err = s.Inspect(t.Context(), index)
				} else if m.Peek(index) != nil {
					t.Error("there is an index")
				}
				if c.want == "" && err != nil {
					t.Error(err)
				}
				if left := names(t, m, pinPrefix); len(left) > 0 {
					t.Errorf("left: %q", left)
				}
			})
		})
	}
}

func appendTo(name string) {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString("more")
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		panic(err)
	}
}

// TestReadsOnce: one content is read once, in however many files of however many nodes it is; what the catalog has is not even asked for.
func TestReadsOnce(t *testing.T) {
	m := memcatalog.New(time.Now)
	s := Open(m, Settings{Clock: testclock.New()}, nil)
	files := map[string][]byte{}
	for i := range 8 {
		files[fmt.Sprint(i)] = noise(1, 1<<20)
	}
	a, b := newBox(t, 1, files), newBox(t, 2, files)
	if f, _, err := backUp(t.Context(), s, "b", a, b); err != nil || f.FilesSent != 1 || f.FilesReused != 15 || a.bytes+b.bytes != 1<<20 {
		t.Errorf("%+v, %v, and %d bytes were read", f, err, a.bytes+b.bytes)
	}
	m.Fail = func(op, name string) error {
		if strings.HasPrefix(name, blobPrefix) && op != "list" {
			t.Errorf("%s of %s", op, name)
		}
		return nil
	}
	if f, _, err := backUp(t.Context(), s, "c", a, b); err != nil || f.FilesReused != 16 {
		t.Errorf("%+v, %v", f, err)
	}
}

// TestResumesWithinFile: a file that is cut goes on from where it was.
func TestResumesWithinFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memcatalog.New(time.Now)
		s := Open(m, Settings{Clock: testclock.New()}, nil)
		const size = 3 << 20
		b := newBox(t, 1, map[string][]byte{"nb-1-big-Data.db": noise(1, size)})
		b.set("nb-1-big-Data.db", "cut", size-1, 1)
		if _, _, err := backUp(t.Context(), s, "b", b); err != nil {
			t.Fatal(err)
		}
		if b.bytes != size || b.opens != 2 {
			t.Errorf("%d bytes were read in %d openings, of a file of %d", b.bytes, b.opens, size)
		}
	})
}

// TestCancelled: a cancel in the middle of a file leaves no part of it, and what was whole is used again.
func TestCancelled(t *testing.T) {
	c := newDirectory(t)
	s := Open(c, Settings{Clock: testclock.New(), Parallel: 1}, nil)
	b := newBox(t, 1, map[string][]byte{"a": noise(1, 1000), "b": noise(2, 1000), "c": noise(3, 1000)})
	ctx, cancel := context.WithCancel(t.Context())
	b.set("b", "hang", 500, 1)
	done := make(chan error)
	go func() { _, _, err := backUp(ctx, s, "b", b); done <- err }()
	for end := time.Now().Add(30 * time.Second); len(names(t, c, blobPrefix)) == 0 || b.hung() == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it never got there")
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if n := sound(t, c); n != 1 {
		t.Errorf("%d blobs", n)
	}
	if f, _, err := backUp(t.Context(), s, "b", b); err != nil || f.BytesSent != 2000 || f.BytesReused != 1000 {
		t.Errorf("%+v, %v", f, err)
	}
}

func (d *disk) hung() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.hanging
}

// TestCutAnywhere ends an upload at each of its operations on the catalog, with their effect and without. The next one is whole.
func TestCutAnywhere(t *testing.T) {
	for _, after := range []bool{false, true} {
		for at := 1; ; at++ {
			cut := false
			synctest.Test(t, func(t *testing.T) {
				m := memcatalog.New(time.Now)
				s := Open(m, Settings{Clock: testclock.New(), Parallel: 1}, nil)
				b := newBox(t, 1, map[string][]byte{"a": noise(1, 1000), "b": noise(2, 1000)})
				b.noSums = true // faster
				n := 0
				hook := func(string, string) error {
					if n++; n >= at {
						cut = true
						return errors.New("killed")
					}
					return nil
				}
				if after {
					m.After = hook
				} else {
					m.Fail = hook
				}
				if _, _, err := backUp(t.Context(), s, "b", b); (err == nil) == cut {
					t.Errorf("at operation %d: %v", at, err)
				}
				m.Fail, m.After = nil, nil
				sound(t, m)
				s.Alive = func(string) (bool, bool) { return false, true }
				s.Holder = "second"
				if _, err := s.Delete(t.Context(), prefixOf("b")+"index.json"); err != nil {
					t.Errorf("at operation %d: %v", at, err)
				}
				if _, _, err := backUp(t.Context(), s, "c", b); err != nil {
					t.Errorf("at operation %d: %v", at, err)
				}
				if err := s.Inspect(t.Context(), prefixOf("c")+"index.json"); err != nil {
					t.Errorf("at operation %d: %v", at, err)
				}
			})
			if !cut {
				t.Logf("%d operations", at-1)
				break
			}
		}
	}
}

// TestBandwidth: the limit holds for all files of a node together.
func TestBandwidth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memcatalog.New(time.Now)
		s := Open(m, Settings{Clock: testclock.New(), Parallel: 4, BytesPerSecond: 1 << 20}, nil)
		files := map[string][]byte{}
		for i := range 8 {
			files[fmt.Sprint(i)] = noise(uint64(i), 512<<10)
		}
		b := newBox(t, 1, files)
		began := time.Now()
		_, ix, err := backUp(t.Context(), s, "b", b)
		if took := time.Since(began); err != nil || took < 3700*time.Millisecond || took > 4200*time.Millisecond {
			t.Errorf("4 MiB took %s, %v", took, err)
		}
		began = time.Now()
		to := t.TempDir()
		_, err = s.Place(t.Context(), ix, []Target{{Files: &disk{}, Directory: func(snapshot.Node, snapshot.Files) (string, bool) { return to, true }}})
		if took := time.Since(began); err != nil || took < 3700*time.Millisecond || took > 4200*time.Millisecond {
			t.Errorf("4 MiB back took %s, %v", took, err)
		}
	})
}

// TestPlaceFaults: a file is whole under its name, or not there.
func TestPlaceFaults(t *testing.T) {
	const data = "nb-1-big-Data.db"
	for name, c := range map[string]struct {
		set  func(d *disk)
		want string
	}{
		"cut":           {set: func(d *disk) { d.set(data, "cut", 0, 2) }},
		"not all taken": {set: func(d *disk) { d.set(data, "lose", 0, 2) }},
		"hanging":       {set: func(d *disk) { d.set(data, "hang", 0, 1) }},
		"always cut":    {set: func(d *disk) { d.set(data, "cut", 0, 1000) }, want: "connection reset"},
		"disk full":     {set: func(d *disk) { d.set(data, "full", 0, 1000) }, want: "no space left"},
		"known as full": {set: func(d *disk) { d.free = 1 << 20 }, want: "make room"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := Open(memcatalog.New(time.Now), Settings{Clock: testclock.New(), Parallel: 2}, nil)
				files := someFiles(1)
				_, ix, err := backUp(t.Context(), s, "b", newBox(t, 1, files))
				if err != nil {
					t.Fatal(err)
				}
				root, d := t.TempDir(), &disk{}
				c.set(d)
				to := filepath.Join(root, "to")
				defer func() {
					for _, p := range d.made {
						if !strings.HasPrefix(filepath.Base(p), partPrefix) {
							t.Errorf("%s was written under its own name, where a dead process would leave half of it", p)
						}
					}
				}()
				target := Target{Name: "n", Files: d, Roots: []string{root}, Directory: func(snapshot.Node, snapshot.Files) (string, bool) { return to, true }}
				_, err = s.Place(t.Context(), ix, []Target{target})
				if c.want == "" {
					if err != nil {
						t.Error(err)
					}
					same(t, to, files)
					return
				}
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want %q", err, c.want)
				}
				delete(files, data)
				entries, _ := os.ReadDir(to)
				for _, e := range entries {
					if strings.HasPrefix(e.Name(), partPrefix) || e.Name() == data {
						t.Errorf("%s is there", e.Name())
					}
				}
				if d.faults[data] != nil && d.faults[data].kind == "full" && d.faults[data].times < 998 {
					t.Error("a full disk was tried again")
				}
			})
		})
	}
	t.Run("damaged blob", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := memcatalog.New(time.Now)
			s := Open(m, Settings{Clock: testclock.New()}, nil)
			b := newBox(t, 1, map[string][]byte{"a": noise(1, 1000)})
			_, ix, err := backUp(t.Context(), s, "b", b)
			if err != nil {
				t.Fatal(err)
			}
			name := names(t, m, blobPrefix)[0]
			_, v, _ := m.Read(t.Context(), name)
			if _, err := m.Replace(t.Context(), name, noise(2, 1000), v); err != nil {
				t.Fatal(err)
			}
			to := filepath.Join(t.TempDir(), "to")
			target := Target{Files: &disk{}, Directory: func(snapshot.Node, snapshot.Files) (string, bool) { return to, true }}
			if _, err := s.Place(t.Context(), ix, []Target{target}); err == nil || !strings.Contains(err.Error(), "damaged") {
				t.Errorf("got %v", err)
			}
			same(t, to, nil)
			// Sizes are seen without reading.
			_, v, _ = m.Read(t.Context(), name)
			if _, err := m.Replace(t.Context(), name, noise(2, 10), v); err != nil {
				t.Fatal(err)
			}
			if err := s.Inspect(t.Context(), prefixOf("b")+"index.json"); err == nil || !strings.Contains(err.Error(), "damaged") {
				t.Errorf("Inspect: %v", err)
			}
			if _, _, err := backUp(t.Context(), s, "c", b); err == nil || !strings.Contains(err.Error(), "damaged") {
				t.Errorf("an upload that needs it: %v", err)
			}
			if err := m.Delete(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			if err := s.Inspect(t.Context(), prefixOf("b")+"index.json"); !errors.Is(err, engine.ErrNotFound) {
				t.Errorf("Inspect: %v", err)
			}
		})
	})
}

// TestPlaceRefuses: nothing is written out of the directories that were given, and no two files under one name.
func TestPlaceRefuses(t *testing.T) {
	s := Open(newDirectory(t), Settings{Clock: testclock.New()}, nil)
	_, ix, err := backUp(t.Context(), s, "b", newBox(t, 1, someFiles(1)), newBox(t, 2, someFiles(2)))
	if err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{filepath.Join(t.TempDir(), "x"): "two files would become", "relative": "is no directory", "/": "is no directory", "/a/../b": "is no directory"} {
		_, err := s.Place(t.Context(), ix, []Target{{Files: &disk{}, Directory: func(snapshot.Node, snapshot.Files) (string, bool) { return dir, true }}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", dir, err)
		}
	}
	for _, p := range []string{"", ".", "..", "../x", "/x", "a/../b", "a//b", "a/", "x\x00"} {
		if checkPath(p) == nil {
			t.Errorf("%q is taken", p)
		}
	}
}

// TestDeleteCutAnywhere ends a deletion at each of its operations. The next one removes everything, and nothing that another backup needs.
func TestDeleteCutAnywhere(t *testing.T) {
	for at := 1; ; at++ {
		cut := false
		synctest.Test(t, func(t *testing.T) {
			m := memcatalog.New(time.Now)
			s := Open(m, Settings{Clock: testclock.New(), Alive: func(string) (bool, bool) { return false, true }, Holder: "h"}, nil)
			shared := noise(1, 1000)
			one, two, three := newBox(t, 1, map[string][]byte{"a": shared}), newBox(t, 1, map[string][]byte{"a": shared, "b": noise(2, 1000)}), newBox(t, 2, map[string][]byte{"a": noise(3, 1000)})
			one.noSums, two.noSums, three.noSums = true, true, true // faster
			if _, _, err := backUp(t.Context(), s, "other", one); err != nil {
				t.Fatal(err)
			}
			before := m.Names()
			if _, _, err := backUp(t.Context(), s, "b", two, three); err != nil {
				t.Fatal(err)
			}
			n := 0
			var mu sync.Mutex // several blobs are removed at once
			m.Fail = func(string, string) error {
				mu.Lock()
				defer mu.Unlock()
				if n++; n >= at {
					cut = true
					return errors.New("killed")
				}
				return nil
			}
			index := prefixOf("b") + "index.json"
			done, err := s.Delete(t.Context(), index)
			if (err == nil && done.Kept == "") == cut {
				t.Errorf("at operation %d: %+v, %v", at, done, err)
			}
			m.Fail = nil
			_ = m.Delete(t.Context(), collectingName(t, m))
			if err := s.Inspect(t.Context(), prefixOf("other")+"index.json"); err != nil {
				t.Errorf("at operation %d: %v", at, err)
			}
			if _, err := s.Delete(t.Context(), index); err != nil {
				t.Errorf("at operation %d: %v", at, err)
			}
			if got := m.Names(); !slices.Equal(got, before) {
				t.Errorf("at operation %d: left %q, want %q", at, got, before)
			}
		})
		if !cut {
			t.Logf("%d operations", at-1)
			return
		}
	}
}

// collectingName is the marker that a dead collector left: an upload would take it away.
func collectingName(t *testing.T, m *memcatalog.Catalog) string {
	if left := names(t, m, collectingPrefix); len(left) > 0 {
		return left[0]
	}
	return collectingPrefix + "none"
}

// TestDeleteWithUnreadableIndex: where it is not known what another backup needs, all stays.
func TestDeleteWithUnreadableIndex(t *testing.T) {
	m := memcatalog.New(time.Now)
	s := Open(m, Settings{Clock: testclock.New()}, nil)
	b := newBox(t, 1, map[string][]byte{"a": noise(1, 1000)})
	if _, _, err := backUp(t.Context(), s, "other", b); err != nil {
		t.Fatal(err)
	}
	if _, _, err := backUp(t.Context(), s, "b", b); err != nil {
		t.Fatal(err)
	}
	list := prefixOf("other") + "nodes/" + b.host + ".json"
	_, v, _ := m.Read(t.Context(), list)
	if _, err := m.Replace(t.Context(), list, []byte("{"), v); err != nil {
		t.Fatal(err)
	}
	done, err := s.Delete(t.Context(), prefixOf("b")+"index.json")
	if err != nil || done.Blobs != 0 || !strings.Contains(done.Kept, list) {
		t.Errorf("%+v, %v", done, err)
	}
	if n := sound(t, m); n != 1 {
		t.Errorf("%d blobs", n)
	}
	for _, bad := range []string{"", "index.json", "backups/a/b/index.json", "x/a/b/c/index.json", "backups/a/b/../index.json", "backups/a/b/c/manifest.json"} {
		if _, err := s.Delete(t.Context(), bad); err == nil {
			t.Errorf("deleted %q", bad)
		}
	}
}

// TestYoungOrphans: what a killed upload sent is used by the next, and removed when nobody came for it.
func TestYoungOrphans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memcatalog.New(time.Now)
		s := Open(m, Settings{Clock: testclock.New()}, nil)
		b := newBox(t, 1, map[string][]byte{"a": noise(1, 1000)})
		p, err := s.Pin(t.Context(), "0123456789abcdef")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Upload(t.Context(), []Source{b.source()}); err != nil {
			t.Fatal(err)
		}
		if err := p.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		index := prefixOf("b") + "index.json"
		if done, err := s.Delete(t.Context(), index); err != nil || done.Blobs != 0 || done.Kept == "" {
			t.Errorf("%+v, %v", done, err)
		}
		time.Sleep(spare + time.Second)
		if done, err := s.Delete(t.Context(), index); err != nil || done.Blobs != 1 || done.Kept != "" {
			t.Errorf("%+v, %v", done, err)
		}
		if left := m.Names(); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
	})
}

func BenchmarkUpload(b *testing.B) {
	dir := b.TempDir()
	const files, size = 16, 8 << 20
	list := snapshot.Files{Keyspace: "shop", Table: "orders", ID: tableID, Directory: dir}
	for i := range files {
		name := fmt.Sprintf("nb-%d-big-Data.db", i)
		if err := os.WriteFile(filepath.Join(dir, name), noise(uint64(i), size), 0o600); err != nil {
			b.Fatal(err)
		}
		list.Files = append(list.Files, snapshot.File{Path: name, Size: size})
	}
	for _, parallel := range []int{1, 4} {
		for _, again := range []bool{false, true} {
			b.Run(fmt.Sprintf("parallel=%d/again=%t", parallel, again), func(b *testing.B) {
				b.SetBytes(files * size)
				c := newDirectory(b)
				for b.Loop() {
					if !again {
						b.StopTimer()
						c = newDirectory(b)
						b.StartTimer()
					}
					p, err := Open(c, Settings{Clock: testclock.New(), Parallel: parallel}, nil).Pin(b.Context(), "0123456789abcdef")
					if err != nil {
						b.Fatal(err)
					}
					l := &snapshot.FileList{Version: 1, HostID: hostID(1), Tables: []snapshot.Files{list}}
					if _, err := p.Upload(b.Context(), []Source{{Name: "n", Files: &disk{}, List: l}}); err != nil {
						b.Fatal(err)
					}
					_ = p.Release(b.Context())
				}
			})
		}
	}
}
