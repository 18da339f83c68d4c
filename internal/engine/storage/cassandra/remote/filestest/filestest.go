// Package filestest has the behaviour that every node.Files must show, as one table of cases.
package filestest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
)

// Run runs the cases. open opens the files of a machine that shares this one's file system, so that the cases can look for themselves.
func Run(t *testing.T, open func(t *testing.T) node.Files) {
	t.Helper()
	for _, c := range []struct {
		name string
		run  func(t *testing.T, f node.Files, dir string)
	}{
		{"write and read", writeAndRead},
		{"a big file, from an offset", bigFile},
		{"truncates", truncates},
		{"modes", modes},
		{"list", list},
		{"what is not there", missing},
		{"make directories", directories},
		{"rename", rename},
		{"remove without following links", remove},
		{"free", free},
		{"run", run},
		{"run with input", runWithInput},
		{"run that fails", runThatFails},
		{"run that is killed", runThatIsKilled},
		{"run that says too much", runThatSaysTooMuch},
		{"run that is cancelled", runThatIsCancelled},
		{"relative paths", relative},
		{"cancelled", cancelled},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := open(t)
			t.Cleanup(func() {
				if err := f.Close(); err != nil {
					t.Errorf("closing: %v", err)
				}
			})
			c.run(t, f, t.TempDir())
		})
	}
}

func write(t *testing.T, f node.Files, path string, content []byte, mode fs.FileMode) {
	t.Helper()
	w, err := f.Create(t.Context(), path, mode)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := w.Write(content); err != nil || n != len(content) {
		t.Fatalf("wrote %d of %d bytes: %v", n, len(content), err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, f node.Files, path string, offset int64) []byte {
	t.Helper()
	r, err := f.Open(t.Context(), path, offset)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	content, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func writeAndRead(t *testing.T, f node.Files, dir string) {
	path := filepath.Join(dir, "a name with 'quotes' and ümlauts")
	for _, content := range []string{"", "hello"} {
		write(t, f, path, []byte(content), 0o644)
		if got := read(t, f, path, 0); string(got) != content {
			t.Errorf("read %q, want %q", got, content)
		}
		if e, err := f.Stat(t.Context(), path); err != nil || e.Size != int64(len(content)) || e.Dir || e.Link || e.Name != filepath.Base(path) || time.Since(e.Modified) > time.Hour {
			t.Errorf("Stat: %+v, %v", e, err)
		}
	}
}

func bigFile(t *testing.T, f node.Files, dir string) {
	content := make([]byte, 5<<20+4321)
	_, _ = rand.Read(content)
	path := filepath.Join(dir, "big")
	write(t, f, path, content, 0o644)
	if onDisk, err := os.ReadFile(path); err != nil || !bytes.Equal(onDisk, content) {
		t.Fatalf("what is on the disk is not what was written (%d bytes, %v)", len(onDisk), err)
	}
	for _, offset := range []int64{0, 1, 1 << 20, 5<<20 + 4320, 5<<20 + 4321, 6 << 20} {
		want := content[min(offset, int64(len(content))):]
		if got := read(t, f, path, offset); !bytes.Equal(got, want) {
			t.Errorf("from %d: %d bytes, want %d", offset, len(got), len(want))
		}
	}
}

func truncates(t *testing.T, f node.Files, dir string) {
	path := filepath.Join(dir, "f")
	write(t, f, path, []byte("something long"), 0o644)
	write(t, f, path, []byte("short"), 0o644)
	if got := read(t, f, path, 0); string(got) != "short" {
		t.Errorf("read %q", got)
	}
}

func modes(t *testing.T, f node.Files, dir string) {
	defer syscall.Umask(syscall.Umask(0o077))
	for _, mode := range []fs.FileMode{0o600, 0o640, 0o666} {
		path := filepath.Join(dir, mode.String())
		write(t, f, path, nil, mode)
		sub := filepath.Join(dir, "d"+mode.String())
		if err := f.MkdirAll(t.Context(), sub, mode|0o111); err != nil {
			t.Fatal(err)
		}
		for p, want := range map[string]fs.FileMode{path: mode, sub: mode | 0o111} {
			if info, err := os.Stat(p); err != nil || info.Mode().Perm() != want {
				t.Errorf("%s has the mode %v, want %v (%v)", p, info.Mode().Perm(), want, err)
			}
		}
	}
}

func list(t *testing.T, f node.Files, dir string) {
	for _, name := range []string{"b", "a", ".hidden"} {
		write(t, f, filepath.Join(dir, name), []byte("x"), 0o644)
	}
	must(t, os.Mkdir(filepath.Join(dir, "d"), 0o755))
	must(t, os.Symlink("d", filepath.Join(dir, "l")))
	entries, err := f.ReadDir(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		name := e.Name
		if e.Dir {
			name += "/"
		}
		if e.Link {
			name += "@"
		}
		got = append(got, name)
	}
	if want := ".hidden a b d/ l@"; strings.Join(got, " ") != want {
		t.Errorf("listed %v, want %s", got, want)
	}
	if e, err := f.Stat(t.Context(), filepath.Join(dir, "l")); err != nil || !e.Link || e.Dir {
		t.Errorf("Stat of a link: %+v, %v", e, err)
	}
}

func missing(t *testing.T, f node.Files, dir string) {
	path := filepath.Join(dir, "missing")
	_, readDir := f.ReadDir(t.Context(), path)
	_, stat := f.Stat(t.Context(), path)
	_, open := f.Open(t.Context(), path, 0)
	_, create := f.Create(t.Context(), filepath.Join(path, "x"), 0o644)
	_, free := f.Free(t.Context(), path)
	for what, err := range map[string]error{"ReadDir": readDir, "Stat": stat, "Open": open, "Create": create, "Free": free, "Rename": f.Rename(t.Context(), path, path+"2")} {
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want an error that is fs.ErrNotExist and has the path", what, err)
		}
	}
	if err := f.RemoveAll(t.Context(), path); err != nil {
		t.Errorf("removing what is not there: %v", err)
	}
	if _, err := f.Open(t.Context(), dir, 0); err == nil {
		t.Error("a directory was opened as a file")
	}
}

func directories(t *testing.T, f node.Files, dir string) {
	deep := filepath.Join(dir, "a", "b", "c")
	for range 2 {
		if err := f.MkdirAll(t.Context(), deep, 0o750); err != nil {
			t.Fatal(err)
		}
	}
	write(t, f, filepath.Join(dir, "file"), nil, 0o644)
	if err := f.MkdirAll(t.Context(), filepath.Join(dir, "file"), 0o750); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a directory over a file: %v, want fs.ErrExist", err)
	}
	if err := f.MkdirAll(t.Context(), filepath.Join(dir, "file", "below"), 0o750); err == nil {
		t.Error("a directory was made in a file")
	}
}

func rename(t *testing.T, f node.Files, dir string) {
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	write(t, f, from, []byte("new"), 0o644)
	write(t, f, to, []byte("old"), 0o644)
	if err := f.Rename(t.Context(), from, to); err != nil {
		t.Fatal(err)
	}
	if got := read(t, f, to, 0); string(got) != "new" {
		t.Errorf("read %q", got)
	}
	if _, err := os.Lstat(from); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the old name is still there: %v", err)
	}
}

func remove(t *testing.T, f node.Files, dir string) {
	outside := filepath.Join(dir, "outside")
	must(t, os.Mkdir(outside, 0o755))
	write(t, f, filepath.Join(outside, "precious"), []byte("x"), 0o644)
	tree := filepath.Join(dir, "tree")
	must(t, os.MkdirAll(filepath.Join(tree, "a", ".hidden", "empty"), 0o755))
	write(t, f, filepath.Join(tree, "a", "file"), []byte("x"), 0o644)
	must(t, os.Symlink(outside, filepath.Join(tree, "a", "link")))
	must(t, os.Symlink("nowhere", filepath.Join(tree, "dangling")))
	must(t, os.Symlink(outside, filepath.Join(dir, "link")))
	for _, path := range []string{tree, filepath.Join(dir, "link"), filepath.Join(dir, "link") + "/", tree + "/"} {
		if err := f.RemoveAll(t.Context(), path); err != nil {
			t.Errorf("removing %s: %v", path, err)
		}
	}
	for _, path := range []string{tree, filepath.Join(dir, "link")} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
	if _, err := os.Stat(filepath.Join(outside, "precious")); err != nil {
		t.Errorf("a link was followed: %v", err)
	}
	if err := f.RemoveAll(t.Context(), "/"); err == nil {
		t.Fatal("it would remove /")
	}
}

func free(t *testing.T, f node.Files, dir string) {
	var s syscall.Statfs_t
	must(t, syscall.Statfs(dir, &s))
	want := int64(s.Bavail) * s.Bsize
	got, err := f.Free(t.Context(), dir)
	if err != nil || got < want/2 || got > want+want/2 {
		t.Errorf("Free: %d, %v; want about %d", got, err, want)
	}
}

func run(t *testing.T, f node.Files, dir string) {
	out, err := f.Run(t.Context(), "cd "+node.Quote(dir)+" && echo \"it's $((6*7))\" 'and\n more'; echo no >&2; test -t 0 || cat", nil)
	if err != nil || string(out) != "it's 42 and\n more\n" {
		t.Errorf("Run: %q, %v", out, err)
	}
}

func runWithInput(t *testing.T, f node.Files, _ string) {
	input := strings.Repeat("0123456789abcdef", 1<<16)
	out, err := f.Run(t.Context(), "cat", strings.NewReader(input))
	if err != nil || string(out) != input {
		t.Errorf("Run: %d bytes, %v; want %d", len(out), err, len(input))
	}
}

func runThatFails(t *testing.T, f node.Files, _ string) {
	out, err := f.Run(t.Context(), "echo said; (seq 5000; echo the end) >&2; exit 7", nil)
	var failed *node.CommandError
	if !errors.As(err, &failed) || failed.Exit != 7 || !strings.HasSuffix(failed.Stderr, "the end") || len(failed.Stderr) > 2<<10 {
		t.Fatalf("Run: %v, want a *node.CommandError with the exit 7 and the end of what it said", err)
	}
	if string(out) != "said\n" {
		t.Errorf("its output: %q", out)
	}
	if _, err := f.Run(t.Context(), "/no/such/program", nil); !errors.As(err, &failed) || failed.Exit != 127 {
		t.Errorf("a program that is not there: %v", err)
	}
}

func runThatIsKilled(t *testing.T, f node.Files, _ string) {
	if _, err := f.Run(t.Context(), "kill -9 $$", nil); err == nil || !strings.Contains(strings.ToLower(err.Error()), "kill") {
		t.Errorf("Run: %v, want an error that says that it was killed", err)
	}
}

func runThatSaysTooMuch(t *testing.T, f node.Files, _ string) {
	if _, err := f.Run(t.Context(), "exec head -c 20000000 /dev/zero", nil); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("Run: %v, want an error about the length of the output", err)
	}
}

func runThatIsCancelled(t *testing.T, f node.Files, dir string) {
	CancelRun(t, f.Run, dir)
	Appears(t, filepath.Join(dir, "ended"))
}

// CancelRun cancels a command that has begun. It makes the file "ended" in dir when it gets SIGTERM.
func CancelRun(t *testing.T, run func(context.Context, string, io.Reader) ([]byte, error), dir string) {
	t.Helper()
	started := filepath.Join(dir, "started")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		defer cancel()
		Appears(t, started)
	}()
	command := "trap 'touch " + filepath.Join(dir, "ended") + "; exit 1' TERM; touch " + started + "; for i in $(seq 2000); do sleep 0.05; done"
	if _, err := run(ctx, command, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v, want context.Canceled", err)
	}
}

// Appears waits for a file.
func Appears(t *testing.T, name string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; <-time.After(5 * time.Millisecond) {
		if _, err := os.Stat(name); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("%s does not appear", name)
			return
		}
	}
}

func relative(t *testing.T, f node.Files, dir string) {
	for _, path := range []string{"", "x", "./x", "../x", dir + "/a\x00b"} {
		_, readDir := f.ReadDir(t.Context(), path)
		_, stat := f.Stat(t.Context(), path)
		_, open := f.Open(t.Context(), path, 0)
		_, create := f.Create(t.Context(), path, 0o644)
		_, free := f.Free(t.Context(), path)
		for what, err := range map[string]error{
			"ReadDir": readDir, "Stat": stat, "Open": open, "Create": create, "Free": free, "MkdirAll": f.MkdirAll(t.Context(), path, 0o755),
			"RemoveAll": f.RemoveAll(t.Context(), path), "Rename": f.Rename(t.Context(), path, dir+"/x"), "Rename to": f.Rename(t.Context(), dir+"/x", path),
		} {
			if err == nil || !strings.Contains(err.Error(), "absolute") {
				t.Errorf("%s %q: %v, want a refusal", what, path, err)
			}
		}
	}
}

func cancelled(t *testing.T, f node.Files, dir string) {
	path := filepath.Join(dir, "f")
	write(t, f, path, make([]byte, 3<<20), 0o644)
	ctx, cancel := context.WithCancel(t.Context())
	r, err := f.Open(ctx, path, 0)
	must(t, err)
	defer r.Close()
	w, err := f.Create(ctx, path+"2", 0o644)
	must(t, err)
	defer w.Close()
	cancel()
	_, readErr := io.Copy(io.Discard, r)
	_, writeErr := w.Write(make([]byte, 3<<20))
	_, stat := f.Stat(ctx, path)
	_, runErr := f.Run(ctx, "true", nil)
	for what, err := range map[string]error{"reading": readErr, "writing": writeErr, "Stat": stat, "Run": runErr, "RemoveAll": f.RemoveAll(ctx, path)} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want context.Canceled", what, err)
		}
	}
	if got := read(t, f, path, 0); len(got) != 3<<20 {
		t.Errorf("after that %d bytes are read", len(got))
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
