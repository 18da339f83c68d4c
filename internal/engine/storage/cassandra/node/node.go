// Package node says how one node of a Cassandra cluster is reached: what a transport must do on it (Operator), and how its files are read and
// written (Files). Both are opened before a pause, so that no connection is made within the window.
package node

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"
)

// Node is one node as the cluster's topology has it.
type Node struct {
	HostID     string // UUID; the node's identity for as long as its data lives
	Address    string // where it speaks CQL, without a port
	Datacenter string
	Rack       string
	Version    string   // release, "5.0.9"
	Tokens     []string // sorted as numbers; Murmur3: decimal
}

// Expand puts the node into a user's text: {address}, {host_id}, {datacenter} and {rack} stand for its properties.
func (n Node) Expand(text string) string {
	return strings.NewReplacer("{address}", n.Address, "{host_id}", n.HostID, "{datacenter}", n.Datacenter, "{rack}", n.Rack).Replace(text)
}

// Sentinels that Operators return, wrapped.
var (
	// ErrSnapshotExists: the node has a snapshot of that tag.
	ErrSnapshotExists = errors.New("a snapshot of that tag exists")
	// ErrUnsupported: the transport cannot do that.
	ErrUnsupported = errors.New("not supported by this transport")
)

// Transport opens connections to nodes. One transport is chosen per storage.
type Transport interface {
	// Name is its key in HCL: "jmx", "management_api", "sidecar", "jolokia", "ssh", "exec".
	Name() string
	// Open connects to one node and proves that it is that node (by its host id). The Operator stays usable without calls for as long as a pause may last.
	Open(ctx context.Context, n Node) (Operator, error)
}

// Operator works on one node. Every call ends by ctx, or by a deadline of its own; a call that was cut off may still be carried out by the node:
// Snapshots tells. An Operator is used by one goroutine at a time.
type Operator interface {
	// CheckRights proves that the calls below will be allowed, without changing anything (clearing a tag that does not exist changes nothing), and warms
	// what the first call would have to load. tag is the tag to come; ErrSnapshotExists when the node has it already.
	CheckRights(ctx context.Context, tag string, keyspaces []string) error
	// TakeSnapshot flushes the keyspaces' memtables and hard-links their SSTables under the tag. It returns when the node confirmed it: later writes
	// can no longer change what it holds. ErrSnapshotExists when the node has that tag: nothing is done then.
	TakeSnapshot(ctx context.Context, tag string, keyspaces []string) error
	// Snapshots lists the node's snapshots of all tags, one entry per table.
	Snapshots(ctx context.Context) ([]Snapshot, error)
	// ClearSnapshot removes the tag's snapshots of the keyspaces (all keyspaces when none is named), and no others; what is gone is no error.
	ClearSnapshot(ctx context.Context, tag string, keyspaces []string) error
	Close() error
}

// Snapshot is one table's snapshot on one node.
type Snapshot struct {
	Tag      string
	Keyspace string
	Table    string
	// TrueSize is the bytes that the snapshot alone keeps, -1 where the transport does not say; Size is those of all its files.
	TrueSize, Size int64
}

// Importer is what an Operator may also be: it loads SSTables that lie in directories of the node.
type Importer interface {
	// Import loads every SSTable of the directories into the table, as `nodetool import --copy-data` does: the files stay. It fails when the node does not own
	// their tokens. The error names directories that failed.
	Import(ctx context.Context, keyspace, table string, directories []string) error
}

// Flusher is what an Operator may also be: it writes a keyspace's memtables to SSTables, and returns when that is done.
type Flusher interface {
	Flush(ctx context.Context, keyspace string) error
}

// WriteCounter is what an Operator may also be: it reads how many writes each table has had on this node since the node started.
type WriteCounter interface {
	Writes(ctx context.Context, tables []Table) (map[Table]int64, error)
}

// DirectoryLister is what an Operator may also be: it tells the node's data directories, absolute.
type DirectoryLister interface {
	DataDirectories(ctx context.Context) ([]string, error)
}

// Repairer is what an Operator may also be: it runs a full repair of one keyspace's ranges of this node, and returns when it is done.
type Repairer interface {
	Repair(ctx context.Context, keyspace string) error
}

// Table names one table.
type Table struct{ Keyspace, Name string }

func (t Table) String() string { return t.Keyspace + "." + t.Name }

// Files is the file system of one node, and its shell. Paths are absolute. Implementations return errors that wrap fs.ErrNotExist and fs.ErrExist.
type Files interface {
	ReadDir(ctx context.Context, directory string) ([]Entry, error)
	Stat(ctx context.Context, path string) (Entry, error)
	// Open reads a file from offset on.
	Open(ctx context.Context, path string, offset int64) (io.ReadCloser, error)
	// Create writes a new file, truncating one that is there; Close reports what was not written.
	Create(ctx context.Context, path string, mode fs.FileMode) (io.WriteCloser, error)
	MkdirAll(ctx context.Context, directory string, mode fs.FileMode) error
	Rename(ctx context.Context, from, to string) error
	// RemoveAll removes a file or a directory with all that is in it; what is gone is no error. It never follows symbolic links.
	RemoveAll(ctx context.Context, path string) error
	// Free is the room left on the path's file system, in bytes.
	Free(ctx context.Context, path string) (int64, error)
	// Run runs a shell command line on the node, with stdin empty where it is nil, and returns its standard output (at most 16 MiB). A non-zero exit is a
	// *CommandError, which has the end of its standard error.
	Run(ctx context.Context, command string, stdin io.Reader) ([]byte, error)
	Close() error
}

// Entry is one file or directory.
type Entry struct {
	Name     string // last element
	Size     int64
	Dir      bool
	Link     bool // a symbolic link; not followed
	Modified time.Time
}

// Filesystem opens a node's Files.
type Filesystem interface {
	OpenFiles(ctx context.Context, n Node) (Files, error)
}

// CommandError is a command of a node that ended badly.
type CommandError struct {
	Command string // as run, without secrets
	Exit    int    // -1 when it was ended by a signal or never ended
	Stderr  string // its end, at most 2 KiB
}

func (e *CommandError) Error() string {
	text := strings.TrimSpace(e.Stderr)
	if text == "" {
		text = "no message"
	}
	return e.Command + ": " + text
}

// Quote makes one word of a shell command line of s.
func Quote(s string) string {
	if s != "" && !slices.ContainsFunc([]byte(s), func(b byte) bool {
		return (b < '0' || b > '9') && (b < 'A' || b > 'Z') && (b < 'a' || b > 'z') && !strings.ContainsRune("_-./:=,@%+", rune(b))
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
