package dump

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/memcatalog"
)

const testPrefix = "backups/b/0123456789abcdef/orders/"

// custody records what it is told.
type custody struct {
	mu    sync.Mutex
	files map[string]bool // path to "is there"
	procs map[int]uint64
	told  []string
}

func newCustody() *custody { return &custody{files: map[string]bool{}, procs: map[int]uint64{}} }

func (c *custody) Process(pid int, start uint64, name string) func() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.procs[pid] = start
	c.told = append(c.told, name)
	return func() { c.mu.Lock(); delete(c.procs, pid); c.mu.Unlock() }
}

func (c *custody) SecretFile(path string) func() {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := os.Stat(path)
	c.files[path] = err == nil
	return func() { c.mu.Lock(); delete(c.files, path); c.mu.Unlock() }
}

func put(t *testing.T, c engine.Catalog, name string, data []byte) Stored {
	t.Helper()
	o, err := NewObject(t.Context(), c, name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.Write(data); err != nil {
		t.Fatal(err)
	}
	s, err := o.Commit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func get(c engine.Catalog, s Stored) ([]byte, error) {
	r, err := Open(context.Background(), c, s)
	if err != nil {
		return nil, err
	}
	defer r.Close() //nolint:errcheck // read only
	return io.ReadAll(r)
}

// testData compresses by about half.
func testData(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, n)
	for i := range b {
		b[i] = "0123456789abcdef"[r.Uint32()&15]
	}
	return b
}

func TestObjectRoundTrip(t *testing.T) {
	for _, size := range []int{0, 1, 100, 1 << 20} {
		c := memcatalog.New(time.Now)
		data := testData(size)
		s := put(t, c, testPrefix+"x.zst", data)
		if s.RawSize != int64(size) || s.Size != int64(len(c.Peek(s.Name))) {
			t.Errorf("size %d: stored %+v, catalog has %d bytes", size, s, len(c.Peek(s.Name)))
		}
		got, err := get(c, s)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("size %d: read %d bytes, %v", size, len(got), err)
		}
	}
}

// Every damage of the stored bytes must be an error before io.EOF.
func TestOpenNoticesDamage(t *testing.T) {
	c := memcatalog.New(time.Now)
	data := testData(300 << 10)
	good := put(t, c, testPrefix+"x.zst", data)
	bytesOf := c.Peek(good.Name)
	other := put(t, c, testPrefix+"y.zst", append(data[:len(data)-1:len(data)-1], '!'))

	for name, damage := range map[string]func([]byte) []byte{
		"cut off":          func(b []byte) []byte { return b[:len(b)-1] },
		"half":             func(b []byte) []byte { return b[:len(b)/2] },
		"empty":            func([]byte) []byte { return nil },
		"bit flipped":      func(b []byte) []byte { b[len(b)/2] ^= 4; return b },
		"last bit flipped": func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
		"appended":         func(b []byte) []byte { return append(b, 0) },
		"doubled":          func(b []byte) []byte { return append(b, b...) },
		"exchanged":        func([]byte) []byte { return c.Peek(other.Name) },
		"not zstd":         func([]byte) []byte { return []byte("hello, world") },
	} {
		d := memcatalog.New(time.Now)
		if err := d.Create(t.Context(), good.Name, damage(slices.Clone(bytesOf))); err != nil {
			t.Fatal(err)
		}
		if _, err := get(d, good); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: got %v, want an error that wraps ErrDamaged", name, err)
		}
	}
	// Whole and of the same sizes, but another: only the sum tells.
	one, two := make([]byte, 1000), make([]byte, 1000)
	for i := range one {
		one[i] = byte(rand.Uint32())
		two[i] = one[i] ^ 0xff
	}
	a, b := put(t, c, testPrefix+"a.zst", one), put(t, c, testPrefix+"b.zst", two)
	if a.Size != b.Size {
		t.Fatalf("sizes %d and %d: the test does not test", a.Size, b.Size)
	}
	a.Name = b.Name
	if _, err := get(c, a); !errors.Is(err, ErrDamaged) {
		t.Errorf("another of the same size: got %v", err)
	}

	wrong := good
	wrong.RawSize++
	if _, err := get(c, wrong); !errors.Is(err, ErrDamaged) {
		t.Errorf("another raw size: got %v", err)
	}
	if _, err := get(c, Stored{Name: testPrefix + "none"}); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("no object: got %v", err)
	}
}

func TestOpenKeepsTheCatalogsError(t *testing.T) {
	c := memcatalog.New(time.Now)
	s := put(t, c, testPrefix+"x.zst", testData(100<<10))
	ctx, cancel := context.WithCancel(t.Context())
	r, err := Open(ctx, c, s)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.ReadAll(r); !errors.Is(err, context.Canceled) || errors.Is(err, ErrDamaged) {
		t.Errorf("got %v, want the cancel", err)
	}
}

func TestObjectFailures(t *testing.T) {
	for _, op := range []string{"writer", "write", "commit"} {
		c := memcatalog.New(time.Now)
		c.Fail = func(o, _ string) error {
			if o == op {
				return syscall.ENOSPC
			}
			return nil
		}
		err := func() error {
			o, err := NewObject(t.Context(), c, testPrefix+"x.zst")
			if err != nil {
				return err
			}
			defer o.Close() //nolint:errcheck // the point is what is left
			if _, err := o.Write(testData(1 << 20)); err != nil {
				return err
			}
			_, err = o.Commit(t.Context())
			return err
		}()
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s: got %v", op, err)
		}
		if n := c.Names(); len(n) != 0 {
			t.Errorf("%s: left %v", op, n)
		}
	}
}

func TestObjectCloseLeavesNothing(t *testing.T) {
	c := memcatalog.New(time.Now)
	o, err := NewObject(t.Context(), c, testPrefix+"x.zst")
	if err != nil {
		t.Fatal(err)
	}
	_, err = o.Write(testData(1 << 20))
	if err := errors.Join(err, o.Close(), o.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Commit(t.Context()); err == nil {
		t.Error("a closed object was committed")
	}
	if n := c.Names(); len(n) != 0 {
		t.Errorf("left %v", n)
	}
}

func TestIndexAndKeeper(t *testing.T) {
	ctx := t.Context()
	c := memcatalog.New(time.Now)
	objects := []Stored{put(t, c, testPrefix+"toc.dat.zst", testData(10)), put(t, c, testPrefix+"1.dat.zst", testData(1000))}
	neighbour := put(t, c, strings.TrimSuffix(testPrefix, "/")+"2/toc.dat.zst", testData(10)).Name
	a, err := WriteIndex(ctx, c, "postgresql_dump", testPrefix, objects)
	if err != nil {
		t.Fatal(err)
	}
	ix, err := ReadIndex(ctx, c, a)
	if err != nil || !slices.Equal(ix.Objects, objects) {
		t.Fatalf("read %+v, %v", ix, err)
	}
	k := Keeper{Catalog: c}
	if err := k.Inspect(ctx, a); err != nil {
		t.Errorf("inspecting what is whole: %v", err)
	}
	if want := objects[0].Size + objects[1].Size + int64(len(c.Peek(a.ID))); a.Size != want {
		t.Errorf("size %d, want %d", a.Size, want)
	}
	other := a
	other.SHA256 = strings.Repeat("0", 64)
	if err := k.Inspect(ctx, other); !errors.Is(err, ErrDamaged) {
		t.Errorf("another sum: %v", err)
	}
	if err := c.Delete(ctx, objects[1].Name); err != nil {
		t.Fatal(err)
	}
	if err := k.Inspect(ctx, a); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("an object is gone: %v", err)
	}
	if err := c.Create(ctx, objects[1].Name, []byte("short")); err != nil {
		t.Fatal(err)
	}
	if err := k.Inspect(ctx, a); !errors.Is(err, ErrDamaged) {
		t.Errorf("an object has another size: %v", err)
	}

	// A deletion that is cut short leaves the index, so that the next one has a reason to go on.
	c.Fail = func(op, name string) error {
		if op == "delete" && name == objects[0].Name {
			return syscall.EIO
		}
		return nil
	}
	if err := k.Delete(ctx, a); !errors.Is(err, syscall.EIO) {
		t.Errorf("got %v", err)
	}
	if c.Peek(a.ID) == nil {
		t.Error("the index is gone before the objects")
	}
	c.Fail = nil
	for range 2 {
		if err := k.Delete(ctx, a); err != nil {
			t.Error(err)
		}
	}
	if n := c.Names(); !slices.Equal(n, []string{neighbour}) {
		t.Errorf("left %v, want the neighbour only", n)
	}
	if err := k.Inspect(ctx, a); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("inspecting what is gone: %v", err)
	}
}

func TestDeletionStaysInsideOneRun(t *testing.T) {
	ctx := t.Context()
	c := memcatalog.New(time.Now)
	c.Fail = func(op, name string) error { t.Errorf("%s %s", op, name); return nil }
	for _, id := range []string{
		"", "index.json", "/index.json", "backups/index.json", "backups/b/index.json", "backups/b/r/index.json", "backups/b/../../x/y/index.json",
		"backups/b/r/s/manifest.json", "backups/b/r/s/", "locks/b/r/s/index.json", "backups//r/s/index.json",
	} {
		if err := (Keeper{Catalog: c}).Delete(ctx, engine.Artifact{ID: id}); err == nil {
			t.Errorf("artifact %q was deleted", id)
		}
	}
	for _, p := range []string{"", "/", "backups/", "backups/b/", "backups/b", "backups/b/r", "backups/b/../c/", "locks/b/r/"} {
		if err := Discard(ctx, c, p); err == nil {
			t.Errorf("prefix %q was discarded", p)
		}
	}
}

func TestDiscard(t *testing.T) {
	ctx := t.Context()
	c := memcatalog.New(time.Now)
	run := engine.Run{ID: "r1", BackupID: "b", Prefix: "backups/b/r1/"}
	for _, n := range []string{Prefix(run, "a") + "x", Prefix(run, "a.b") + "x", "backups/b/r12/a/x", "backups/b/manifest.json"} {
		if err := c.Create(ctx, n, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(Discard(ctx, c, Prefix(run, "a")), Discard(ctx, c, Prefix(run, "a"))); err != nil {
		t.Fatal(err)
	}
	if n := c.Names(); len(n) != 3 {
		t.Errorf("after one storage: %v", n)
	}
	if err := Discard(ctx, c, run.Prefix); err != nil {
		t.Fatal(err)
	}
	if n := c.Names(); !slices.Equal(n, []string{"backups/b/manifest.json", "backups/b/r12/a/x"}) {
		t.Errorf("after the run: %v", n)
	}
}

func TestPrefixIsLegalAndUnique(t *testing.T) {
	seen := map[string]string{}
	for _, name := range []string{"a", "A", "a.b", ".a", "..", "a/b", "a~2Fb", "a b", "é", "a\x00", "a_b", "a-b", ""} {
		p := Prefix(engine.Run{Prefix: "backups/b/r/"}, name)
		if other, ok := seen[p]; ok {
			t.Errorf("%q and %q share %s", name, other, p)
		}
		seen[p] = name
		if name != "" {
			if err := checkPrefix(p, 4); err != nil {
				t.Errorf("%q: %v", name, err)
			}
		}
	}
}

func FuzzParseIndex(f *testing.F) {
	sha := strings.Repeat("ab", 32)
	f.Add([]byte(`{"version":1,"objects":[{"name":"` + testPrefix + `toc.dat.zst","size":1,"sha256":"` + sha + `","raw_size":2}]}`))
	f.Add([]byte(`{"version":2}`))
	f.Add([]byte(`{"version":1,"objects":[{"name":"` + testPrefix + `../x","size":1,"sha256":"` + sha + `"}]}`))
	f.Add([]byte(`{"version":1,"objects":null}`))
	f.Add([]byte(``))
	f.Fuzz(func(t *testing.T, data []byte) {
		ix, err := parseIndex(data, testPrefix+IndexName)
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, o := range ix.Objects {
			if !strings.HasPrefix(o.Name, testPrefix) || strings.Contains(o.Name, "..") && filepath.Clean(o.Name) != o.Name || seen[o.Name] || o.Size < 0 || len(o.SHA256) != 64 {
				t.Errorf("accepted %+v", o)
			}
			seen[o.Name] = true
		}
	})
}

func FuzzOpen(f *testing.F) {
	c := memcatalog.New(time.Now)
	o, err := NewObject(context.Background(), c, testPrefix+"x.zst")
	if err != nil {
		f.Fatal(err)
	}
	_, _ = o.Write([]byte("some text, some text"))
	s, err := o.Commit(context.Background())
	if err != nil {
		f.Fatal(err)
	}
	good := c.Peek(s.Name)
	f.Add(good)
	f.Add([]byte{})
	f.Add(append(slices.Clone(good), good...))
	f.Fuzz(func(t *testing.T, data []byte) {
		d := memcatalog.New(time.Now)
		if err := d.Create(t.Context(), s.Name, data); err != nil {
			t.Fatal(err)
		}
		got, err := get(d, s)
		if (err == nil) != bytes.Equal(data, good) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
}

func TestSecretFile(t *testing.T) {
	dir, c := t.TempDir(), newCustody()
	path, remove, err := SecretFile(c, dir, "pgpass-*.conf", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if was, ok := c.files[path]; !ok || was {
		t.Errorf("custody was told too late, or not at all: %v", c.files)
	}
	if b := filepath.Base(path); !strings.HasPrefix(b, "pgpass-") || !strings.HasSuffix(b, ".conf") || len(b) < 20 {
		t.Errorf("name %s", b)
	}
	remove()
	remove()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) || len(c.files) != 0 {
		t.Errorf("after remove: %v, custody %v", err, c.files)
	}
	if _, remove, err = SecretFile(c, filepath.Join(dir, "none"), "x", nil); err == nil || len(c.files) != 0 {
		t.Errorf("in no folder: %v, custody %v", err, c.files)
	}
	remove()
}

// spooling is a catalog that is a directory.
type spooling struct {
	engine.Catalog
	dir string
}

func (s spooling) Spool(runID, storage string) (string, error) {
	d := filepath.Join(s.dir, runID+"-"+storage)
	return d, os.Mkdir(d, 0o700)
}

func TestSpool(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	c := newCustody()
	mem := memcatalog.New(time.Now)
	home := t.TempDir()
	for want, catalog := range map[string]engine.Catalog{os.TempDir(): mem, home: spooling{mem, home}} {
		dir, remove, err := Spool(c, catalog, "r1", "orders")
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm() != 0o700 || filepath.Dir(dir) != want {
			t.Errorf("%s: %v %v", dir, info, err)
		}
		if _, ok := c.files[dir]; !ok {
			t.Errorf("custody was not told of %s", dir)
		}
		if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		remove()
		remove()
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) || len(c.files) != 0 {
			t.Errorf("after remove: %v, custody %v", err, c.files)
		}
	}
}
