package upload

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/catalog/directory"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/testclock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/snapshot"
)

// disk is node.Files over this machine's file system, with faults. Those of a file are by its base name.
type disk struct {
	noSums bool  // sha256sum is not installed
	free   int64 // 0: a lot

	mu     sync.Mutex
	faults map[string]*fault
	opens  int
	bytes  int64 // read through Open
	runs   int
	made   []string // by Create

	hanging int // reads that hung
}

// fault befalls the first `times` openings of a file.
type fault struct {
	times int
	at    int64 // offset in the file
	kind  string
}

func (d *disk) set(base, kind string, at int64, times int) *disk {
	if d.faults == nil {
		d.faults = map[string]*fault{}
	}
	d.faults[base] = &fault{times, at, kind}
	return d
}

func (d *disk) take(path string) *fault {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.faults[strings.TrimPrefix(filepath.Base(path), partPrefix)]
	if f == nil || f.times == 0 {
		return nil
	}
	f.times--
	c := *f
	return &c
}

func entry(i fs.FileInfo) node.Entry {
	return node.Entry{Name: i.Name(), Size: i.Size(), Dir: i.IsDir(), Link: i.Mode()&fs.ModeSymlink != 0, Modified: i.ModTime()}
}

func (d *disk) ReadDir(_ context.Context, dir string) ([]node.Entry, error) {
	all, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []node.Entry
	for _, e := range all {
		i, err := e.Info()
		if err != nil {
			return nil, err
		}
		out = append(out, entry(i))
	}
	return out, nil
}

func (d *disk) Stat(_ context.Context, path string) (node.Entry, error) {
	i, err := os.Lstat(path)
	if err != nil {
		return node.Entry{}, err
	}
	return entry(i), nil
}

var errCut = errors.New("connection reset")

func (d *disk) Open(ctx context.Context, path string, offset int64) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.opens++
	d.mu.Unlock()
	return &reader{ctx: ctx, f: f, d: d, fault: d.take(path), offset: offset}, nil
}

type reader struct {
	f      *os.File
	d      *disk
	fault  *fault
	offset int64
	ctx    context.Context
}

func (r *reader) Read(p []byte) (int, error) {
	if r.fault != nil {
		if left := r.fault.at - r.offset; left > 0 {
			p = p[:min(int64(len(p)), left)]
		} else {
			switch r.fault.kind {
			case "cut":
				return 0, errCut
			case "short":
				return 0, io.EOF
			case "hang":
				r.d.mu.Lock()
				r.d.hanging++
				r.d.mu.Unlock()
				<-r.ctx.Done()
				return 0, context.Cause(r.ctx)
			case "garble":
				n, err := r.f.Read(p)
				if n > 0 {
					p[0] ^= 1
					r.fault = nil
				}
				return n, err
			}
		}
	}
	n, err := r.f.Read(p)
	r.offset += int64(n)
	r.d.mu.Lock()
	r.d.bytes += int64(n)
	r.d.mu.Unlock()
	return n, err
}

func (r *reader) Close() error {
	return r.f.Close()
}

func (d *disk) Create(ctx context.Context, path string, mode fs.FileMode) (io.WriteCloser, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.made = append(d.made, path)
	d.mu.Unlock()
	return &writer{File: f, ctx: ctx, fault: d.take(path)}, nil
}

type writer struct {
	*os.File
	ctx   context.Context
	fault *fault
}

func (w *writer) Write(p []byte) (int, error) {
	if w.fault != nil {
		switch w.fault.kind {
		case "full":
			return 0, &fs.PathError{Op: "write", Path: w.Name(), Err: syscall.ENOSPC}
		case "cut":
			return 0, errCut
		case "hang":
			<-w.ctx.Done()
			return 0, context.Cause(w.ctx)
		case "lose":
			n, err := w.File.Write(p[1:])
			return n + 1, err
		}
	}
	return w.File.Write(p)
}

func (d *disk) MkdirAll(_ context.Context, dir string, mode fs.FileMode) error {
	return os.MkdirAll(dir, mode)
}
func (d *disk) Rename(_ context.Context, from, to string) error { return os.Rename(from, to) }
func (d *disk) RemoveAll(_ context.Context, path string) error  { return os.RemoveAll(path) }
func (d *disk) Free(_ context.Context, path string) (int64, error) {
	if _, err := os.Stat(path); err != nil {
		return 0, err
	}
	if d.free != 0 {
		return d.free, nil
	}
	return 1 << 40, nil
}

func (d *disk) Run(ctx context.Context, command string, stdin io.Reader) ([]byte, error) {
	d.mu.Lock()
	d.runs++
	d.mu.Unlock()
	if d.noSums {
		return nil, &node.CommandError{Command: command, Exit: 127, Stderr: "sha256sum: not found"}
	}
	if f := d.take("sha256sum"); f != nil && f.kind == "cut" {
		return nil, errCut
	}
	c := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	c.Stdin = stdin
	var errs bytes.Buffer
	c.Stderr = &errs
	out, err := c.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return out, &node.CommandError{Command: command, Exit: exit.ExitCode(), Stderr: errs.String()}
	}
	return out, err
}

func (d *disk) Close() error { return nil }

// box is one captured node.
type box struct {
	*disk
	host string
	root string // of its snapshot
	list *snapshot.FileList
}

const tableID = "5bc52802-de25-35ed-aeab-188eecebb090"

func hostID(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", n) }

// newBox makes a node with files, by their paths in a snapshot of shop.orders.
func newBox(t *testing.T, n int, files map[string][]byte) *box {
	t.Helper()
	b := &box{disk: &disk{}, host: hostID(n), root: filepath.Join(t.TempDir(), "shop", "orders-5bc52802de2535edaeab188eecebb090", "snapshots", "tag")}
	b.fill(t, files)
	return b
}

func (b *box) fill(t *testing.T, files map[string][]byte) {
	t.Helper()
	_ = os.RemoveAll(b.root)
	f := snapshot.Files{Keyspace: "shop", Table: "orders", ID: tableID, Directory: b.root}
	for name, data := range files {
		full := filepath.Join(b.root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(full), 0o755), os.WriteFile(full, data, 0o644)); err != nil {
			t.Fatal(err)
		}
		f.Files = append(f.Files, snapshot.File{Path: name, Size: int64(len(data))})
	}
	b.list = &snapshot.FileList{Version: snapshot.Version, HostID: b.host, Tables: []snapshot.Files{f}}
	b.list.Sort()
}

func (b *box) source() Source { return Source{Name: b.host, Files: b.disk, List: b.list} }

func sources(boxes []*box) (out []Source) {
	for _, b := range boxes {
		out = append(out, b.source())
	}
	return out
}

func noise(seed uint64, size int) []byte {
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)}).Read(data)
	return data
}

func indexOf(boxes []*box) *snapshot.Index {
	ix := &snapshot.Index{
		Version: snapshot.Version, Cluster: "test", Partitioner: "org.apache.cassandra.dht.Murmur3Partitioner", Tag: "tag", Data: snapshot.DataUpload, CapturedAt: time.Unix(1e9, 0).UTC(),
		Keyspaces: []snapshot.Keyspace{{
			Name: "shop", Replication: map[string]string{"class": "SimpleStrategy", "replication_factor": "1"}, CQL: []string{"CREATE KEYSPACE shop"},
			Tables: []snapshot.Table{{Name: "orders", ID: tableID}},
		}},
	}
	for i, b := range boxes {
		ix.Nodes = append(ix.Nodes, snapshot.Node{HostID: b.host, Address: "127.0.0.1", Datacenter: "dc1", Rack: "r1", Version: "5.0.9", Tokens: []string{fmt.Sprint(i)}})
	}
	slices.SortFunc(ix.Nodes, func(a, b snapshot.Node) int { return strings.Compare(a.HostID, b.HostID) })
	return ix
}

func prefixOf(backup string) string { return "backups/" + backup + "/0123456789abcdef/orders/" }

// record writes lists and index, as the driver does after an upload.
func record(ctx context.Context, c engine.Catalog, backup string, boxes []*box) (*snapshot.Index, error) {
	ix := indexOf(boxes)
	for i := range ix.Nodes {
		for _, b := range boxes {
			if b.host == ix.Nodes[i].HostID {
				if err := snapshot.WriteFiles(ctx, c, prefixOf(backup), b.list, &ix.Nodes[i]); err != nil {
					return nil, err
				}
			}
		}
	}
	_, err := snapshot.WriteIndex(ctx, c, prefixOf(backup), ix)
	return ix, err
}

// backUp is a whole upload.
func backUp(ctx context.Context, s *Store, backup string, boxes ...*box) (figures Figures, ix *snapshot.Index, err error) {
	p, err := s.Pin(ctx, "0123456789abcdef")
	if err != nil {
		return figures, nil, err
	}
	defer func() { err = errors.Join(err, p.Release(ctx)) }()
	all, err := p.Upload(ctx, sources(boxes))
	for _, f := range all {
		figures.add(f)
	}
	if err == nil {
		err = p.Check(ctx)
	}
	if err == nil {
		ix, err = record(ctx, s.catalog, backup, boxes)
	}
	return figures, ix, err
}

func newDirectory(t testing.TB) *directory.Catalog {
	t.Helper()
	c, err := directory.New(filepath.Join(t.TempDir(), "catalog"), testclock.New())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func names(t testing.TB, c engine.Catalog, prefix string) (out []string) {
	t.Helper()
	objects, err := c.List(context.WithoutCancel(t.Context()), prefix)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		out = append(out, o.Name)
	}
	return out
}

// sound checks that every blob is what its name says, and that nothing half-written lies about.
func sound(t testing.TB, c engine.Catalog) (blobs int) {
	t.Helper()
	for _, name := range names(t, c, blobPrefix) {
		r, err := c.Open(context.WithoutCancel(t.Context()), name)
		if err != nil {
			t.Fatal(err)
		}
		h := sha256.New()
		_, err = io.Copy(h, r)
		_ = r.Close()
		if err != nil || sum(h.Sum(nil)).blob() != name {
			t.Errorf("the blob %s has other content: %v", name, err)
		}
		blobs++
	}
	if d, ok := c.(*directory.Catalog); ok {
		if left, _ := os.ReadDir(filepath.Join(d.Directory(), ".tmp")); len(left) > 0 {
			t.Errorf("%d half-written objects are left", len(left))
		}
	}
	return blobs
}

func same(t testing.TB, dir string, files map[string][]byte) {
	t.Helper()
	var got []string
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !d.IsDir() {
			got = append(got, strings.TrimPrefix(p, dir+"/"))
		}
		return nil
	})
	var want []string
	for name, data := range files {
		want = append(want, name)
		if there, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(there, data) {
			t.Errorf("%s has other content, or is not there: %v", name, err)
		}
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s holds %q, want %q", dir, got, want)
	}
}
