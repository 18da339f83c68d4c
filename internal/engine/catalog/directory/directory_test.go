package directory

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/catalog/catalogtest"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/testclock"
)

func open(t *testing.T, dir string) *Catalog {
	t.Helper()
	c, err := New(dir, testclock.New())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestConformance(t *testing.T) {
	catalogtest.Suite{
		New: func(t *testing.T) engine.Catalog {
			return open(t, filepath.Join(t.TempDir(), "made", "by the catalog"))
		},
		Again: func(t *testing.T, c engine.Catalog) engine.Catalog {
			return open(t, c.(*Catalog).Directory())
		},
	}.Run(t)
}

// leftovers lists the paths below the catalog that are not objects, without the guard and the folder of temporary files.
func leftovers(t *testing.T, c *Catalog) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(c.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := strings.TrimPrefix(path, c.root+"/"); path != c.root && name != tempDir && name != guardFile {
			found = append(found, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestPrivateAndClean(t *testing.T) {
	c := open(t, filepath.Join(t.TempDir(), "catalog"))
	if err := c.Create(t.Context(), "a/b/c", []byte("x")); err != nil {
		t.Fatal(err)
	}
	_, v, err := c.Read(t.Context(), "a/b/c")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Replace(t.Context(), "a/b/c", []byte("y"), v); err != nil {
		t.Fatal(err)
	}
	spool, err := c.Spool("0123456789abcdef", "orders/../x")
	if err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]fs.FileMode{
		c.root: 0o700, c.path("a"): 0o700, c.path("a/b"): 0o700, c.path("a/b/c"): 0o600, c.path(guardFile): 0o600, c.path(tempDir): 0o700, spool: 0o700,
	} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s has the mode %v, %v; want %v", path, info.Mode(), err, mode)
		}
	}
	if filepath.Dir(spool) != c.path(tempDir) {
		t.Errorf("the spool folder %s is not in the folder of temporary files", spool)
	}
	if err := os.Remove(spool); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(t.Context(), "a/b/c"); err != nil {
		t.Fatal(err)
	}
	if left := leftovers(t, c); len(left) != 0 {
		t.Errorf("an object that was made, replaced and deleted left %q", left)
	}
}

func TestFullDisk(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT} {
		c := open(t, filepath.Join(t.TempDir(), "catalog"))
		if err := c.Create(t.Context(), "a", []byte("first")); err != nil {
			t.Fatal(err)
		}
		_, v, err := c.Read(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		c.write = func(f *os.File, p []byte) (int, error) {
			n, _ := f.Write(p[:len(p)/2])
			return n, &fs.PathError{Op: "write", Path: f.Name(), Err: errno}
		}
		check := func(what string, err error) {
			t.Helper()
			if !errors.Is(err, errno) || !strings.Contains(err.Error(), "the catalog directory "+c.root+" is full") {
				t.Errorf("%s on a full disk = %v", what, err)
			}
			if left := leftovers(t, c); len(left) != 1 || left[0] != "a" {
				t.Errorf("%s on a full disk left %q", what, left)
			}
		}
		check("Create", c.Create(t.Context(), "x/b", []byte("second")))
		_, err = c.Replace(t.Context(), "a", []byte("second"), v)
		check("Replace", err)
		w, err := c.NewWriter(t.Context(), "x/c")
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.Write([]byte("half of this fits"))
		if cerr := w.Commit(t.Context()); cerr == nil {
			t.Error("Commit after a Write that failed = nil")
		}
		if cerr := w.Close(); cerr != nil {
			t.Error(cerr)
		}
		check("Write", err)
		check("Probe", c.Probe(t.Context()))
		if data, _, err := c.Read(t.Context(), "a"); err != nil || string(data) != "first" {
			t.Errorf("the object that was there reads %q, %v", data, err)
		}
	}
}

func TestSweep(t *testing.T) {
	c := open(t, t.TempDir())
	const dead, live = "0123456789abcdef", "fedcba9876543210"
	for _, run := range []string{dead, live} {
		w, err := c.NewWriter(t.Context(), "backups/nightly/"+run+"/orders/dump.zst")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("half")); err != nil {
			t.Fatal(err)
		}
		spool, err := c.Spool(run, "orders")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(spool, "toc.dat"), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := c.Create(t.Context(), "backups/nightly/"+run+"/events/dump.zst", []byte("whole")); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Sweep(t.Context(), dead); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(c.path(tempDir))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.Contains(e.Name(), dead) || !strings.Contains(e.Name(), live) {
			t.Errorf("after the sweep of %s there is %s", dead, e.Name())
		}
	}
	if len(entries) != 2 {
		t.Errorf("of the live run %d things are left, want its unfinished object and its spool folder", len(entries))
	}
	if list, err := c.List(t.Context(), ""); err != nil || len(list) != 2 {
		t.Errorf("after the sweep the catalog has the objects %v, %v; want both finished ones", list, err)
	}
	for _, bad := range []string{"", "a", "../../x", "0123/4567"} {
		if err := c.Sweep(t.Context(), bad); err == nil {
			t.Errorf("Sweep(%q) = nil, want a refusal", bad)
		}
		if _, err := c.Spool(bad, "orders"); err == nil {
			t.Errorf("Spool(%q) = nil, want a refusal", bad)
		}
	}
}

// TestAbandoned: a temporary file of an object that names no run goes when its writer is dead, and only then.
func TestAbandoned(t *testing.T) {
	c := open(t, t.TempDir())
	const other = "fedcba9876543210"
	live, err := c.newTemp(t.Context(), "lock.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := live.seal(); err != nil { // written, about to be published
		t.Fatal(err)
	}
	var abandoned []string
	for _, name := range []string{"lock.json", "backups/nightly/manifest.json", "restores/clone.json", "journal/" + other + ".json", "backups/nightly/" + other + "/dump.zst"} {
		x, err := c.newTemp(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		// A SIGKILL closes what was open, and removes nothing.
		if err := errors.Join(x.f.Close(), x.held.Close()); err != nil {
			t.Fatal(err)
		}
		abandoned = append(abandoned, x.path)
	}
	if err := c.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, path := range abandoned {
		_, err := os.Lstat(path)
		if ofAnother := i >= 3; ofAnother != (err == nil) {
			t.Errorf("after the probe: %s: %v", filepath.Base(path), err)
		}
	}
	if err := c.publish(t.Context(), live, "lock.json"); err != nil {
		t.Errorf("the file of a live writer was swept away: %v", err)
	}
	if err := live.discard(); err != nil {
		t.Error(err)
	}
}

func TestSweptUnderAWriter(t *testing.T) {
	c := open(t, t.TempDir())
	w, err := c.NewWriter(t.Context(), "backups/b/0123456789abcdef/dump")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := c.Sweep(t.Context(), "0123456789abcdef"); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(t.Context()); err == nil || !strings.Contains(err.Error(), "another run removed it") {
		t.Errorf("Commit of a swept stream = %v", err)
	}
}

// Folders that another's Delete prunes under a Create's hands are made again.
func TestCreateWhileFoldersArePruned(t *testing.T) {
	c := open(t, t.TempDir())
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_, _ = os.Remove(c.path("a/b")), os.Remove(c.path("a")) // only when they are empty
				}
			}
		})
	}
	for i := range 50 {
		name := fmt.Sprintf("a/b/%d", i)
		tmp, err := c.newTemp(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.publish(t.Context(), tmp, name); err != nil {
			t.Errorf("publishing = %v", err)
			break
		}
		_, _ = tmp.discard(), os.Remove(c.path(name))
	}
	close(stop)
	wg.Wait()
}

func TestProbe(t *testing.T) {
	c := open(t, filepath.Join(t.TempDir(), "catalog"))
	if err := c.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := leftovers(t, c); len(left) != 0 {
		t.Errorf("the probe left %q", left)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := open(t, file).Probe(t.Context()); err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("Probe of a file = %v", err)
	}
	if err := open(t, "/proc/catalog").Probe(t.Context()); err == nil {
		t.Error("Probe in /proc = nil, want an error")
	}
}

func TestReplaceWaitsForTheGuard(t *testing.T) {
	c := open(t, t.TempDir())
	if err := c.Create(t.Context(), "a", []byte("1")); err != nil {
		t.Fatal(err)
	}
	_, v, err := c.Read(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	unlock, err := open(t, c.root).lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Replace(ctx, "a", []byte("2"), v); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "waiting for another process") {
		t.Errorf("Replace while another process holds the guard = %v, want to have waited", err)
	}
	unlock()
	if _, err := c.Replace(t.Context(), "a", []byte("2"), v); err != nil {
		t.Errorf("Replace once the guard is free = %v", err)
	}
}

func TestWhatIsNoObject(t *testing.T) {
	c := open(t, t.TempDir())
	if err := os.Symlink("/etc/passwd", c.path("link")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(c.path("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(c.path("folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"link", "pipe", "folder"} {
		if _, _, err := c.Read(t.Context(), name); !errors.Is(err, engine.ErrNotFound) {
			t.Errorf("Read(%s) = %v, want ErrNotFound", name, err)
		}
		if _, err := c.Stat(t.Context(), name); !errors.Is(err, engine.ErrNotFound) {
			t.Errorf("Stat(%s) = %v, want ErrNotFound", name, err)
		}
		if err := c.Create(t.Context(), name, nil); err == nil {
			t.Errorf("Create(%s) = nil, want an error", name)
		}
	}
	if list, err := c.List(t.Context(), ""); err != nil || len(list) != 0 {
		t.Errorf("List = %v, %v; want none of them", list, err)
	}
	if err := c.Delete(t.Context(), "folder"); err != nil {
		t.Errorf("Delete(folder) = %v", err)
	}
	if _, err := os.Stat(c.path("folder")); err != nil {
		t.Errorf("Delete removed a folder that is no object: %v", err)
	}
}

func TestReadingMakesNothing(t *testing.T) {
	c := open(t, filepath.Join(t.TempDir(), "catalog"))
	if _, err := c.List(t.Context(), ""); err != nil {
		t.Error(err)
	}
	if _, _, err := c.Read(t.Context(), "a"); !errors.Is(err, engine.ErrNotFound) {
		t.Error(err)
	}
	if err := c.Delete(t.Context(), "a"); err != nil {
		t.Error(err)
	}
	if free, err := c.Free(t.Context()); err != nil || free <= 0 {
		t.Errorf("Free = %d, %v", free, err)
	}
	if _, err := os.Stat(c.root); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("looking at a catalog made its directory: %v", err)
	}
}

func TestOfRun(t *testing.T) {
	const run = "0123456789abcdef"
	for temp, want := range map[string]bool{
		"backups%2Fx%2F" + run + "%2Fa.zst.11": true,
		"journal%2F" + run + ".json.11":        true,
		"journal%2F" + run + ".watchdog.json":  true,
		"spool-" + run + "-orders-11":          true,
		"spool-fedcba9876543210-" + run + "-1": false,
		"backups%2Fx" + run + "%2Fa.11":        false,
		"lock.json.0123456789abcdef":           false,
	} {
		if got := ofRun(temp, run); got != want {
			t.Errorf("ofRun(%q) = %v, want %v", temp, got, want)
		}
	}
}
