package remote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/pkg/sftp"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
)

var (
	_ node.Filesystem = (*Hosts)(nil)
	_ node.Files      = (*Files)(nil)
)

// OpenFiles implements node.Filesystem. The result is a *Files, safe for concurrent use.
func (h *Hosts) OpenFiles(ctx context.Context, n node.Node) (node.Files, error) {
	host, err := h.Open(ctx, n)
	if err != nil {
		return nil, err
	}
	f := &Files{Host: host, turn: make(chan struct{}, 1)}
	f.turn <- struct{}{}
	if _, err := f.session(ctx); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// Files are a machine's files over SFTP, and its shell.
//
// SFTP has no way to open a name relative to a directory that was opened, so RemoveAll checks each name for a link right before it goes into it; who can
// write to that directory at the same time could exchange it in between.
type Files struct {
	*Host
	turn   chan struct{} // holds one token; who has it may use client and link
	client *sftp.Client
	link   *link
}

// session returns the SFTP session, opened anew if its connection ended.
func (f *Files) session(ctx context.Context) (*session, error) {
	l, err := f.connected(ctx)
	if err != nil {
		return nil, err
	}
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: %w", f.target, context.Cause(ctx))
	case <-f.turn:
	}
	defer func() { f.turn <- struct{}{} }()
	if f.client != nil && f.link == l {
		return &session{Client: f.client, link: l}, nil
	}
	client, err := await(ctx, l, func() (*sftp.Client, error) { return sftp.NewClient(l.client, sftp.UseConcurrentWrites(true)) }, func(c *sftp.Client) { _ = c.Close() })
	if err != nil {
		return nil, fmt.Errorf("%s: opening SFTP (does its sshd have `Subsystem sftp`?): %w", f.target, err)
	}
	f.client, f.link = client, l
	return &session{Client: client, link: l}, nil
}

type session struct {
	*sftp.Client
	link *link
}

// Close ends the SFTP session, and the connection when nobody else uses it.
func (f *Files) Close() error {
	<-f.turn
	if client := f.client; client != nil {
		f.client = nil
		go func() { _ = client.Close() }()
	}
	f.turn <- struct{}{}
	return f.Host.Close()
}

// on makes one call on a path.
func on[T any](ctx context.Context, f *Files, what, name string, call func(c *session) (T, error), undo func(T)) (T, error) {
	var none T
	if err := checkPath(name); err != nil {
		return none, fmt.Errorf("%s: %w", f.target, err)
	}
	s, err := f.session(ctx)
	if err != nil {
		return none, err
	}
	v, err := await(ctx, s.link, func() (T, error) { return call(s) }, undo)
	if errors.Is(err, sftp.ErrSSHFxConnectionLost) || errors.Is(err, io.EOF) {
		s.link.end(fmt.Errorf("the SSH connection ended: %w", err)) // the next call connects anew
	}
	if err != nil {
		return none, f.failed(what, name, err)
	}
	return v, nil
}

func (f *Files) failed(what, name string, err error) error {
	var inner *fs.PathError // some calls have the path in their error, and some do not
	if errors.As(err, &inner) {
		err = inner.Err
	}
	return fmt.Errorf("%s: %s %s: %w", f.target, what, name, err)
}

func checkPath(name string) error {
	if !path.IsAbs(name) || strings.ContainsRune(name, 0) {
		return fmt.Errorf("%q is not an absolute path", name)
	}
	return nil
}

func entryOf(i fs.FileInfo) node.Entry {
	return node.Entry{Name: i.Name(), Size: i.Size(), Dir: i.IsDir(), Link: i.Mode()&fs.ModeSymlink != 0, Modified: i.ModTime()}
}

// ReadDir implements node.Files; the entries are sorted by name.
func (f *Files) ReadDir(ctx context.Context, directory string) ([]node.Entry, error) {
	infos, err := on(ctx, f, "listing", directory, func(c *session) ([]fs.FileInfo, error) { return c.ReadDirContext(ctx, directory) }, nil)
	if err != nil {
		return nil, err
	}
	entries := make([]node.Entry, 0, len(infos))
	for _, i := range infos {
		if i.Name() != "." && i.Name() != ".." {
			if strings.ContainsAny(i.Name(), "/\x00") {
				return nil, fmt.Errorf("%s: listing %s: the server names an entry %q", f.target, directory, i.Name())
			}
			entries = append(entries, entryOf(i))
		}
	}
	slices.SortFunc(entries, func(a, b node.Entry) int { return cmp.Compare(a.Name, b.Name) })
	return entries, nil
}

// Stat implements node.Files.
func (f *Files) Stat(ctx context.Context, name string) (node.Entry, error) {
	info, err := on(ctx, f, "looking at", name, func(c *session) (fs.FileInfo, error) { return c.Lstat(name) }, nil)
	if err != nil {
		return node.Entry{}, err
	}
	e := entryOf(info)
	e.Name = path.Base(name)
	return e, nil
}

// Open implements node.Files. The reading ends with ctx, too.
func (f *Files) Open(ctx context.Context, name string, offset int64) (io.ReadCloser, error) {
	if offset < 0 {
		return nil, fmt.Errorf("%s: opening %s: a negative offset", f.target, name)
	}
	s, err := on(ctx, f, "opening", name, func(c *session) (*stream, error) {
		file, err := c.Open(name)
		if err != nil {
			return nil, err
		}
		if info, err := file.Stat(); err == nil && info.IsDir() { // some servers open directories
			_ = file.Close()
			return nil, errors.New("it is a directory")
		}
		if _, err := file.Seek(offset, io.SeekStart); err != nil {
			_ = file.Close()
			return nil, err
		}
		return &stream{ctx: ctx, files: f, link: c.link, file: file, name: name}, nil
	}, closeFile)
	if err != nil {
		return nil, err
	}
	return s, nil
}

func closeFile(s *stream) { _ = s.file.Close() }

// Create implements node.Files. The writing ends with ctx, too; what is written by then stays.
func (f *Files) Create(ctx context.Context, name string, mode fs.FileMode) (io.WriteCloser, error) {
	s, err := on(ctx, f, "creating", name, func(c *session) (*stream, error) {
		file, err := c.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
		if err != nil {
			return nil, err
		}
		if err := file.Chmod(mode.Perm()); err != nil { // before there is anything in it
			_ = file.Close()
			return nil, fmt.Errorf("setting its mode: %w", err)
		}
		return &stream{ctx: ctx, files: f, link: c.link, file: file, name: name, writes: true}, nil
	}, closeFile)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// MkdirAll implements node.Files; directories that it makes get the mode, whatever the server's umask.
func (f *Files) MkdirAll(ctx context.Context, directory string, mode fs.FileMode) error {
	if err := checkPath(directory); err != nil {
		return fmt.Errorf("%s: %w", f.target, err)
	}
	directory = path.Clean(directory)
	info, err := on(ctx, f, "looking at", directory, func(c *session) (fs.FileInfo, error) { return c.Stat(directory) }, nil)
	switch {
	case err == nil && info.IsDir():
		return nil
	case err == nil:
		return fmt.Errorf("%s: making the directory %s: it is a file: %w", f.target, directory, fs.ErrExist)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if parent := path.Dir(directory); parent != directory {
		if err := f.MkdirAll(ctx, parent, mode); err != nil {
			return err
		}
	}
	_, err = on(ctx, f, "making the directory", directory, func(c *session) (struct{}, error) {
		if err := c.Mkdir(directory); err != nil {
			if info, statErr := c.Stat(directory); statErr == nil && info.IsDir() {
				return struct{}{}, nil // another was quicker
			}
			return struct{}{}, err
		}
		return struct{}{}, c.Chmod(directory, mode.Perm())
	}, nil)
	return err
}

// Rename implements node.Files; a file that has the new name is replaced, in one step.
func (f *Files) Rename(ctx context.Context, from, to string) error {
	if err := checkPath(to); err != nil {
		return fmt.Errorf("%s: %w", f.target, err)
	}
	_, err := on(ctx, f, "renaming to "+to, from, func(c *session) (struct{}, error) {
		if _, ok := c.HasExtension("posix-rename@openssh.com"); ok {
			return struct{}{}, c.PosixRename(from, to)
		}
		return struct{}{}, c.Rename(from, to) // fails where something has the name
	}, nil)
	return err
}

// RemoveAll implements node.Files.
func (f *Files) RemoveAll(ctx context.Context, name string) error {
	if err := checkPath(name); err != nil {
		return fmt.Errorf("%s: %w", f.target, err)
	}
	name = path.Clean(name)
	if name == "/" {
		return fmt.Errorf("%s: refusing to remove /", f.target)
	}
	return f.removeAll(ctx, name)
}

func (f *Files) removeAll(ctx context.Context, name string) error {
	e, err := f.Stat(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	remove := func(c *session) (struct{}, error) { return struct{}{}, c.Remove(name) }
	if e.Dir {
		entries, err := f.ReadDir(ctx, name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, child := range entries {
			if err := f.removeAll(ctx, path.Join(name, child.Name)); err != nil {
				return err
			}
		}
		remove = func(c *session) (struct{}, error) { return struct{}{}, c.RemoveDirectory(name) }
	}
	if _, err := on(ctx, f, "removing", name, remove, nil); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Free implements node.Files: by SFTP where the server has OpenSSH's extension for it, else by `df`.
func (f *Files) Free(ctx context.Context, name string) (int64, error) {
	s, err := f.session(ctx)
	if err != nil {
		return 0, err
	}
	if _, ok := s.HasExtension("statvfs@openssh.com"); ok {
		v, err := on(ctx, f, "asking for the room at", name, func(c *session) (*sftp.StatVFS, error) { return c.StatVFS(name) }, nil)
		if err != nil {
			return 0, err
		}
		if v.Frsize != 0 && v.Bavail > math.MaxInt64/v.Frsize {
			return math.MaxInt64, nil
		}
		return int64(v.Bavail * v.Frsize), nil //nolint:gosec // just compared
	}
	if _, err := f.Stat(ctx, name); err != nil {
		return 0, err
	}
	out, err := f.Run(ctx, "LC_ALL=C df -Pk -- "+node.Quote(name), nil)
	if err != nil {
		return 0, err
	}
	free, err := parseDF(string(out))
	if err != nil {
		return 0, fmt.Errorf("%s: asking for the room at %s: %w", f.target, name, err)
	}
	return free, nil
}

// parseDF reads the fourth column of `df -Pk`, in KiB.
func parseDF(out string) (int64, error) {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	last := lines[len(lines)-1]
	// A file system's name may have blanks in it, so does where it is mounted; the numbers are what comes before NN%.
	fields := strings.Fields(last)
	for i := 3; i < len(fields); i++ {
		if !strings.HasSuffix(fields[i], "%") {
			continue
		}
		kib, err := strconv.ParseInt(fields[i-1], 10, 64)
		if err != nil || kib > math.MaxInt64/1024 {
			continue
		}
		return max(kib, 0) * 1024, nil
	}
	return 0, fmt.Errorf("df says %q", last)
}
