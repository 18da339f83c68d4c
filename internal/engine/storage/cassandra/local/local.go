// Package local is the file system and the shell of the machine that the provider runs on, as those of a node: for clusters whose directories are mounted
// here, and for commands that reach the nodes by themselves (kubectl, docker).
package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/dump"
)

var (
	_ node.Filesystem = Machine{}
	_ node.Files      = Machine{}
)

// Machine is this machine. It is safe for concurrent use; Close does nothing.
type Machine struct {
	Clock engine.Clock
	// Getenv is os.Getenv, or a test's. Commands get those variables of it that Environment names.
	Getenv func(string) string
	// Custody is told of commands, so that none outlives the run. May be nil.
	Custody engine.Custody
}

// Environment names what a command gets of our environment: what it needs to find and to start nodetool, kubectl and the like, and no credentials of others.
func Environment() []string {
	return []string{
		"PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TMPDIR", "TZ", "JAVA_HOME", "JAVA", "JVM_OPTS", "JAVA_TOOL_OPTIONS",
		"CASSANDRA_HOME", "CASSANDRA_CONF", "CASSANDRA_INCLUDE", "CASSANDRA_HOST", "CASSANDRA_LOG_DIR", "SSH_AUTH_SOCK", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME",
		"KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "DOCKER_HOST", "DOCKER_CONFIG", "CONTAINER_HOST",
	}
}

// OpenFiles implements node.Filesystem: the same machine for every node.
func (m Machine) OpenFiles(context.Context, node.Node) (node.Files, error) { return m, nil }

// Close implements node.Files.
func (m Machine) Close() error { return nil }

func check(ctx context.Context, names ...string) error {
	for _, name := range names {
		if !filepath.IsAbs(name) || strings.ContainsRune(name, 0) {
			return fmt.Errorf("%q is not an absolute path", name)
		}
	}
	return context.Cause(ctx)
}

func entryOf(i fs.FileInfo) node.Entry {
	return node.Entry{Name: i.Name(), Size: i.Size(), Dir: i.IsDir(), Link: i.Mode()&fs.ModeSymlink != 0, Modified: i.ModTime()}
}

// ReadDir implements node.Files; the entries are sorted by name.
func (m Machine) ReadDir(ctx context.Context, directory string) ([]node.Entry, error) {
	if err := check(ctx, directory); err != nil {
		return nil, err
	}
	listed, err := os.ReadDir(directory)
	if err != nil {
		return nil, err
	}
	entries := make([]node.Entry, 0, len(listed))
	for _, e := range listed {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone meanwhile
		}
		if err != nil {
			return nil, err
		}
		entries = append(entries, entryOf(info))
	}
	return entries, nil
}

// Stat implements node.Files.
func (m Machine) Stat(ctx context.Context, name string) (node.Entry, error) {
	if err := check(ctx, name); err != nil {
		return node.Entry{}, err
	}
	info, err := os.Lstat(name)
	if err != nil {
		return node.Entry{}, err
	}
	return entryOf(info), nil
}

// stream ends with its context. (An embedded file would have methods that io.Copy prefers, and that know no context.)
type stream struct {
	ctx  context.Context //nolint:containedctx // of the Open that made it
	file *os.File
}

func (s stream) Read(b []byte) (int, error) {
	if err := context.Cause(s.ctx); err != nil {
		return 0, err
	}
	return s.file.Read(b)
}

func (s stream) Write(b []byte) (int, error) {
	if err := context.Cause(s.ctx); err != nil {
		return 0, err
	}
	return s.file.Write(b)
}

func (s stream) Close() error { return s.file.Close() }

// Open implements node.Files. The reading ends with ctx, too.
func (m Machine) Open(ctx context.Context, name string, offset int64) (io.ReadCloser, error) {
	if err := check(ctx, name); err != nil {
		return nil, err
	}
	f, err := os.Open(name) //nolint:gosec // the caller says which
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = fmt.Errorf("opening %s: it is a directory", name)
	}
	if err == nil {
		_, err = f.Seek(offset, io.SeekStart)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return stream{ctx, f}, nil
}

// Create implements node.Files.
func (m Machine) Create(ctx context.Context, name string, mode fs.FileMode) (io.WriteCloser, error) {
	if err := check(ctx, name); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode.Perm()) //nolint:gosec // the caller says which
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(mode.Perm()); err != nil { // whatever the umask, and the mode of a file that was there
		_ = f.Close()
		return nil, err
	}
	return stream{ctx, f}, nil
}

// MkdirAll implements node.Files; directories that it makes get the mode, whatever the umask.
func (m Machine) MkdirAll(ctx context.Context, directory string, mode fs.FileMode) error {
	if err := check(ctx, directory); err != nil {
		return err
	}
	directory = filepath.Clean(directory)
	info, err := os.Stat(directory)
	switch {
	case err == nil && info.IsDir():
		return nil
	case err == nil:
		return fmt.Errorf("making the directory %s: it is a file: %w", directory, fs.ErrExist)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if parent := filepath.Dir(directory); parent != directory {
		if err := m.MkdirAll(ctx, parent, mode); err != nil {
			return err
		}
	}
	if err := os.Mkdir(directory, mode.Perm()); err != nil {
		if info, statErr := os.Stat(directory); statErr == nil && info.IsDir() {
			return nil // another was quicker
		}
		return err
	}
	return os.Chmod(directory, mode.Perm())
}

// Rename implements node.Files; a file that has the new name is replaced, in one step.
func (m Machine) Rename(ctx context.Context, from, to string) error {
	if err := check(ctx, from, to); err != nil {
		return err
	}
	return os.Rename(from, to)
}

// RemoveAll implements node.Files.
func (m Machine) RemoveAll(ctx context.Context, name string) error {
	if err := check(ctx, name); err != nil {
		return err
	}
	if filepath.Clean(name) == "/" {
		return errors.New("refusing to remove /")
	}
	return os.RemoveAll(filepath.Clean(name))
}

// Free implements node.Files.
func (m Machine) Free(ctx context.Context, name string) (int64, error) {
	if err := check(ctx, name); err != nil {
		return 0, err
	}
	var s unix.Statfs_t
	if err := unix.Statfs(name, &s); err != nil {
		return 0, &fs.PathError{Op: "statfs", Path: name, Err: err}
	}
	size := uint64(s.Bsize) //nolint:gosec // never negative
	if size != 0 && s.Bavail > math.MaxInt64/size {
		return math.MaxInt64, nil
	}
	return int64(s.Bavail * size), nil //nolint:gosec // just compared
}

// Run implements node.Files.
func (m Machine) Run(ctx context.Context, command string, stdin io.Reader) ([]byte, error) {
	return m.Exec(ctx, []string{"/bin/sh", "-c", command}, command, stdin)
}

const (
	maxOutput = 16 << 20 // bytes of a command's output
	maxStderr = 2 << 10  // bytes of the end of its error output
)

// Exec runs a program with arguments, without a shell, as Run does otherwise; name stands for it in errors. argv[0] is looked up in the PATH.
func (m Machine) Exec(ctx context.Context, argv []string, name string, stdin io.Reader) ([]byte, error) {
	if len(argv) == 0 || argv[0] == "" {
		return nil, errors.New("the command is empty")
	}
	program, err := lookUp(argv[0], m.Getenv("PATH"))
	if err != nil {
		return nil, err
	}
	var env []string
	for _, key := range Environment() {
		if v := m.Getenv(key); v != "" {
			env = append(env, key+"="+v)
		}
	}
	out := &limited{}
	c := dump.Child{Path: program, Name: name, Args: argv[1:], Env: env, Custody: m.Custody, Clock: m.Clock, Stdout: out}
	if stdin != nil {
		c.Stdin = stdin
	}
	p, err := dump.StartChild(ctx, c)
	if err != nil {
		return nil, err
	}
	err = p.Wait()
	var exit *dump.ExitError
	switch {
	case errors.As(err, &exit):
		text := exit.Stderr
		if extra := len(text) - maxStderr; extra > 0 {
			text = strings.ToValidUTF8(text[extra:], "")
		}
		return out.buf, &node.CommandError{Command: name, Exit: exit.Status, Stderr: text}
	case err != nil:
		return nil, err
	}
	return out.buf, nil
}

// lookUp finds a program in the given PATH, which need not be that of this process.
func lookUp(program, path string) (string, error) {
	if strings.Contains(program, "/") {
		return program, nil
	}
	for _, dir := range filepath.SplitList(path) {
		candidate := filepath.Join(dir, program)
		if info, err := os.Stat(candidate); filepath.IsAbs(dir) && err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return candidate, nil
		}
	}
	return "", fmt.Errorf("there is no program %s in the PATH (%s)", program, path)
}

// limited keeps an output that is not too long.
type limited struct{ buf []byte }

func (l *limited) Write(b []byte) (int, error) {
	if len(l.buf)+len(b) > maxOutput {
		return 0, fmt.Errorf("it is longer than %d bytes", maxOutput)
	}
	l.buf = append(l.buf, b...)
	return len(b), nil
}
