// Package upload takes a snapshot's files from the nodes into the catalog, and reads them back for a restore.
//
// A file becomes a blob, an object that is named by the SHA-256 of its content: cassandra/blobs/AB/ABCDEF.... All backups of a catalog share one pool of
// blobs, so an SSTable that an earlier backup (or another replica) has sent is not sent again. Nothing is ever recognized by its path: the names of SSTables
// begin anew after a wipe. Blobs are stored as they are: Cassandra compresses SSTables itself, and what it does not compress (indexes, filters) is small.
//
// The sum of a file comes from `sha256sum` on its node, so that what is known need not be sent. What is sent is summed again on its way, and becomes a
// blob only where both agree: a blob is whole and right, or not there.
//
// Which blobs are in use is said by the indexes of the backups and nothing else. What keeps a deletion from removing what an upload relies on is in pin.go.
package upload

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
)

// Where things lie in the catalog.
const (
	blobPrefix       = "cassandra/blobs/"
	pinPrefix        = "cassandra/pins/"
	collectingPrefix = "cassandra/collecting/"
	backupsPrefix    = "backups/" // of all indexes
)

// Settings say how files are moved. Clock is required.
type Settings struct {
	Clock engine.Clock
	// Holder names this process and Alive says whether the one that a Holder named is still there, as in engine.Engine. Without Alive, and for processes of other
	// machines, an upload that shows no sign of life for a day is taken for dead, and a deletion after two hours.
	Holder string
	Alive  func(holder string) (alive, known bool)
	// Parallel is how many files of one node are moved at once; 0: 4. Half as many runs of sha256sum are on the node meanwhile.
	Parallel int
	// Nodes is how many nodes are worked on at once; 0: 4. A catalog in S3 holds 16 to 64 MiB of memory for each file that is being moved.
	Nodes int
	// BytesPerSecond bounds what is sent from or to one node; 0: no bound.
	BytesPerSecond int64
}

const (
	defaultParallel = 4
	defaultNodes    = 4
)

// Store is the part of a catalog that holds files of Cassandra. It may be used by several goroutines at once.
type Store struct {
	Settings
	catalog engine.Catalog
	report  func(message string, fields map[string]any)
}

// Open returns the store of a catalog; it reads nothing. report may be nil.
func Open(catalog engine.Catalog, s Settings, report func(message string, fields map[string]any)) *Store {
	if s.Parallel <= 0 {
		s.Parallel = defaultParallel
	}
	if s.Nodes <= 0 {
		s.Nodes = defaultNodes
	}
	if report == nil {
		report = func(string, map[string]any) {}
	}
	return &Store{Settings: s, catalog: catalog, report: report}
}

// Figures say what was moved from or to one node. Reused is what was there already.
type Figures struct {
	FilesSent, FilesReused int64
	BytesSent, BytesReused int64
}

func (f *Figures) add(o Figures) {
	f.FilesSent += o.FilesSent
	f.FilesReused += o.FilesReused
	f.BytesSent += o.BytesSent
	f.BytesReused += o.BytesReused
}

func (f Figures) fields() map[string]any {
	return map[string]any{"files_sent": f.FilesSent, "files_reused": f.FilesReused, "bytes_sent": f.BytesSent, "bytes_reused": f.BytesReused}
}

// sum is a SHA-256.
type sum [32]byte

func (s sum) String() string { return hex.EncodeToString(s[:]) }

// blob is the name of the object that holds the content with this sum.
func (s sum) blob() string {
	h := s.String()
	return blobPrefix + h[:2] + "/" + h
}

// parseSum reads a sum as documents have it: 64 lower-case hex digits.
func parseSum(text string) (s sum, err error) {
	if len(text) != hex.EncodedLen(len(s)) || text != strings.ToLower(text) {
		return sum{}, fmt.Errorf("%q is no SHA-256", text)
	}
	if _, err := hex.Decode(s[:], []byte(text)); err != nil {
		return sum{}, fmt.Errorf("%q is no SHA-256: %w", text, err)
	}
	return s, nil
}

// sumOfBlob is the inverse of blob; false for what is no blob.
func sumOfBlob(name string) (sum, bool) {
	s, err := parseSum(path.Base(name))
	return s, err == nil && s.blob() == name
}

// checkPath refuses what would lead out of a file's directory.
func checkPath(p string) error {
	if !fs.ValidPath(p) || p == "." || strings.ContainsRune(p, 0) {
		return fmt.Errorf("%q is no path below a snapshot's directory", p)
	}
	return nil
}

// Retries of one file. A failure after progress counts as the first.
const (
	maxTries   = 5
	firstDelay = time.Second
	maxDelay   = 30 * time.Second
	// stallAfter is how long a transfer may rest before it counts as broken.
	stallAfter = 2 * time.Minute
	// reportEvery is between two reports of progress.
	reportEvery = 30 * time.Second
	// cleanUpTimeout bounds what is removed after a failure, when the caller's context has ended already.
	cleanUpTimeout = time.Minute
)

func backOff(failures int) time.Duration {
	return min(firstDelay<<min(failures-1, 10), maxDelay)
}

// brokenError is a failure that may pass: of a connection, or of what came through it.
type brokenError struct{ err error }

func (e *brokenError) Error() string { return e.err.Error() }
func (e *brokenError) Unwrap() error { return e.err }

// broken marks a node's error as one that may pass, unless it is plain that it will not.
func broken(err error) error {
	var b *brokenError
	if err == nil || errors.As(err, &b) {
		return err
	}
	for _, plain := range []error{fs.ErrNotExist, fs.ErrPermission, syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, node.ErrUnsupported} {
		if errors.Is(err, plain) {
			return err
		}
	}
	return &brokenError{err}
}

func isBroken(err error) bool {
	var b *brokenError
	return errors.As(err, &b)
}
