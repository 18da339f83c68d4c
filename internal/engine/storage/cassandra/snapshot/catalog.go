package snapshot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

// ErrDamaged says that a document in the catalog is not what was written.
var ErrDamaged = errors.New("damaged")

const (
	// maxIndex is what Catalog.Read returns at most.
	maxIndex = 16 << 20
	// maxFiles bounds the list of one node's files: about two million of them.
	maxFiles = 256 << 20
	// maxName is Cassandra's own limit on names of keyspaces and tables, with room for later releases.
	maxName = 222
)

var (
	uuidText = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	nameText = regexp.MustCompile(`^\w+$`)
	tagText  = regexp.MustCompile(`^[A-Za-z0-9_-]{1,200}$`)
)

// ValidTag says that Cassandra and all tools around it take the text for a snapshot's tag, as it is.
func ValidTag(tag string) bool { return tagText.MatchString(tag) }

// ValidHostID says that the text is a UUID in its usual, lower-case form.
func ValidHostID(id string) bool { return uuidText.MatchString(id) }

// FilesName is the name of a node's FileList in the catalog; prefix is that of the storage's objects, with a slash at its end.
func FilesName(prefix, hostID string) string { return prefix + "nodes/" + hostID + ".json" }

// WriteIndex writes the index below prefix ("backups/BACKUP/RUN/STORAGE/") and returns its artifact. It refuses what ReadIndex would not take.
func WriteIndex(ctx context.Context, catalog engine.Catalog, prefix string, ix *Index) (engine.Artifact, error) {
	name := prefix + IndexName
	data, err := json.MarshalIndent(ix, "", " ")
	if err != nil {
		return engine.Artifact{}, fmt.Errorf("writing %s: %w", name, err)
	}
	if len(data) > maxIndex {
		return engine.Artifact{}, fmt.Errorf("writing %s: it has %d bytes, and at most %d can be read back", name, len(data), maxIndex)
	}
	if _, err := parseIndex(data, name); err != nil {
		return engine.Artifact{}, err
	}
	if err := catalog.Create(ctx, name, data); err != nil {
		return engine.Artifact{}, fmt.Errorf("writing %s to %s: %w", name, catalog.Describe(), err)
	}
	return engine.Artifact{Kind: KindIndex, ID: name, Size: int64(len(data)), SHA256: sum(data)}, nil
}

// ReadIndex reads the index of an artifact of KindIndex. Its error wraps engine.ErrNotFound when it is gone, ErrDamaged when it is another than the
// one that was written.
func ReadIndex(ctx context.Context, catalog engine.Catalog, a engine.Artifact) (*Index, error) {
	data, _, err := catalog.Read(ctx, a.ID)
	if err != nil {
		return nil, fmt.Errorf("reading %s of %s: %w", a.ID, catalog.Describe(), err)
	}
	if got := sum(data); got != a.SHA256 {
		return nil, fmt.Errorf("%w: the SHA-256 of %s is %s, not %s", ErrDamaged, a.ID, got, a.SHA256)
	}
	return parseIndex(data, a.ID)
}

// WriteFiles writes the list of one node's files below prefix, and fills in what the index says of it: n.Files, FilesSHA256, FileCount and Bytes.
// n.HostID must be the list's.
func WriteFiles(ctx context.Context, catalog engine.Catalog, prefix string, l *FileList, n *Node) error {
	name := FilesName(prefix, n.HostID)
	data, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	if len(data) > maxFiles {
		return fmt.Errorf("writing %s: it has %d bytes, and at most %d can be read back", name, len(data), maxFiles)
	}
	if _, err := parseFiles(data, name, n.HostID); err != nil {
		return err
	}
	w, err := catalog.NewWriter(ctx, name)
	if err != nil {
		return fmt.Errorf("writing %s to %s: %w", name, catalog.Describe(), err)
	}
	_, err = w.Write(data)
	if err == nil {
		err = w.Commit(ctx)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		return fmt.Errorf("writing %s to %s: %w", name, catalog.Describe(), err)
	}
	n.Files, n.FilesSHA256 = name, sum(data)
	n.FileCount, n.Bytes = l.Total()
	return nil
}

// Total counts the files and their bytes.
func (l *FileList) Total() (files, size int64) {
	for _, t := range l.Tables {
		for _, f := range t.Files {
			files++
			size += f.Size
		}
	}
	return files, size
}

// ReadFiles reads the list of one node's files, as the index names it. Its error wraps engine.ErrNotFound when it is gone, ErrDamaged when it is another
// than the one that was written. A node whose files were not listed is an error.
func ReadFiles(ctx context.Context, catalog engine.Catalog, n Node) (*FileList, error) {
	if n.Files == "" {
		return nil, fmt.Errorf("the files of node %s (%s) were not listed when the backup was taken", n.Address, n.HostID)
	}
	r, err := catalog.Open(ctx, n.Files)
	if err != nil {
		return nil, fmt.Errorf("reading %s of %s: %w", n.Files, catalog.Describe(), err)
	}
	defer r.Close() //nolint:errcheck // nothing is lost: the checksum says whether all was read
	data, err := io.ReadAll(io.LimitReader(r, maxFiles+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s of %s: %w", n.Files, catalog.Describe(), err)
	}
	if len(data) > maxFiles {
		return nil, fmt.Errorf("%w: %s has more than %d bytes", ErrDamaged, n.Files, maxFiles)
	}
	if got := sum(data); got != n.FilesSHA256 {
		return nil, fmt.Errorf("%w: the SHA-256 of %s is %s, not %s", ErrDamaged, n.Files, got, n.FilesSHA256)
	}
	return parseFiles(data, n.Files, n.HostID)
}

func sum(data []byte) string {
	h := sha256.Sum256(data)
	return hex.EncodeToString(h[:])
}

// decode reads one JSON document and nothing after it.
func decode(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the document")
	}
	return nil
}

func checkVersion(version int, name string) error {
	switch {
	case version < 1:
		return fmt.Errorf("%w: %s has no version", ErrDamaged, name)
	case version > Version:
		return fmt.Errorf("reading %s: its format is version %d, and this provider knows %d; use a newer release", name, version, Version)
	}
	return nil
}

func parseIndex(data []byte, name string) (*Index, error) {
	var ix Index
	if err := decode(data, &ix); err != nil {
		return nil, fmt.Errorf("%w: reading %s: %w", ErrDamaged, name, err)
	}
	if err := checkVersion(ix.Version, name); err != nil {
		return nil, err
	}
	if err := ix.check(strings.TrimSuffix(name, IndexName)); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, name, err)
	}
	return &ix, nil
}

func (ix *Index) check(prefix string) error {
	switch {
	case !strings.HasSuffix(prefix, "/") || path.Clean(prefix)+"/" != prefix || path.IsAbs(prefix) || strings.HasPrefix(prefix, "../"):
		return fmt.Errorf("%q is no prefix of a storage's objects", prefix)
	case ix.Cluster == "" || ix.Partitioner == "":
		return errors.New("the cluster's name or its partitioner is missing")
	case !ValidTag(ix.Tag):
		return fmt.Errorf("wrong tag %q", ix.Tag)
	case !slices.Contains([]string{DataNodes, DataUpload, DataMedusa, DataCassy}, ix.Data):
		return fmt.Errorf("unknown place of the data %q", ix.Data)
	case ix.CapturedAt.IsZero():
		return errors.New("the time of the capture is missing")
	case len(ix.Keyspaces) == 0 || len(ix.Nodes) == 0:
		return errors.New("it has no keyspaces or no nodes")
	}
	for i, k := range ix.Keyspaces {
		if i > 0 && ix.Keyspaces[i-1].Name >= k.Name {
			return fmt.Errorf("keyspace %q is out of order", k.Name)
		}
		if err := k.check(); err != nil {
			return fmt.Errorf("keyspace %q: %w", k.Name, err)
		}
	}
	for i, n := range ix.Nodes {
		if i > 0 && ix.Nodes[i-1].HostID >= n.HostID {
			return fmt.Errorf("node %q is out of order", n.HostID)
		}
		if err := n.check(prefix); err != nil {
			return fmt.Errorf("node %q: %w", n.HostID, err)
		}
	}
	return nil
}

func validName(s string) bool { return len(s) <= maxName && nameText.MatchString(s) }

func (k Keyspace) check() error {
	switch {
	case !validName(k.Name):
		return errors.New("no name of a keyspace")
	case k.Replication["class"] == "":
		return errors.New("its replication is missing")
	case len(k.CQL) == 0 || slices.Contains(k.CQL, ""):
		return errors.New("its schema is missing")
	}
	for i, t := range k.Tables {
		switch {
		case i > 0 && k.Tables[i-1].Name >= t.Name:
			return fmt.Errorf("table %q is out of order", t.Name)
		case !validName(t.Name) || !ValidHostID(t.ID) || t.GCGraceSeconds < 0:
			return fmt.Errorf("wrong entry for table %q", t.Name)
		}
	}
	return nil
}

func (n Node) check(prefix string) error {
	switch {
	case !ValidHostID(n.HostID):
		return errors.New("no host id")
	case n.Address == "" || n.Datacenter == "" || n.Version == "":
		return errors.New("its address, datacenter or version is missing")
	case len(n.Tokens) == 0:
		return errors.New("it has no tokens")
	case n.FileCount < 0 || n.Bytes < 0:
		return errors.New("negative sizes")
	case n.Files == "" && (n.FilesSHA256 != "" || n.FileCount != 0 || n.Bytes != 0):
		return errors.New("it has files, and no list of them")
	case n.Files != "" && (n.Files != FilesName(prefix, n.HostID) || !isSHA256(n.FilesSHA256)):
		return fmt.Errorf("wrong list of files %q", n.Files)
	}
	var last *big.Int
	for _, t := range n.Tokens {
		// Murmur3 and Random partitioners: whole numbers.
		v, ok := new(big.Int).SetString(t, 10)
		if !ok || len(t) > 40 || v.String() != t {
			return fmt.Errorf("wrong token %.60q", t)
		}
		if last != nil && last.Cmp(v) >= 0 {
			return fmt.Errorf("token %s is out of order", t)
		}
		last = v
	}
	return nil
}

func isSHA256(s string) bool {
	return len(s) == 2*sha256.Size && strings.Trim(s, "0123456789abcdef") == ""
}

func parseFiles(data []byte, name, hostID string) (*FileList, error) {
	var l FileList
	if err := decode(data, &l); err != nil {
		return nil, fmt.Errorf("%w: reading %s: %w", ErrDamaged, name, err)
	}
	if err := checkVersion(l.Version, name); err != nil {
		return nil, err
	}
	if err := l.check(hostID); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, name, err)
	}
	return &l, nil
}

func (l *FileList) check(hostID string) error {
	if l.HostID != hostID || !ValidHostID(hostID) {
		return fmt.Errorf("it is the list of node %q, not of %q", l.HostID, hostID)
	}
	for i, t := range l.Tables {
		if i > 0 && compareFiles(l.Tables[i-1], t) >= 0 {
			return fmt.Errorf("table %s.%s is out of order", t.Keyspace, t.Table)
		}
		if err := t.check(); err != nil {
			return fmt.Errorf("table %q.%q: %w", t.Keyspace, t.Table, err)
		}
	}
	return nil
}

// compareFiles orders by keyspace, table and directory: a table has a directory in each of the node's data directories that it has files in.
func compareFiles(a, b Files) int {
	if c := strings.Compare(a.Keyspace, b.Keyspace); c != 0 {
		return c
	}
	if c := strings.Compare(a.Table, b.Table); c != 0 {
		return c
	}
	return strings.Compare(a.Directory, b.Directory)
}

// Sort brings a list into the order that it is written in.
func (l *FileList) Sort() {
	slices.SortFunc(l.Tables, compareFiles)
	for _, t := range l.Tables {
		slices.SortFunc(t.Files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	}
}

func (t Files) check() error {
	switch {
	case !validName(t.Keyspace) || !validName(t.Table) || !ValidHostID(t.ID):
		return errors.New("wrong name or id")
	case !path.IsAbs(t.Directory) || path.Clean(t.Directory) != t.Directory || strings.ContainsRune(t.Directory, 0):
		return fmt.Errorf("%q is no directory", t.Directory)
	}
	for i, f := range t.Files {
		switch {
		case i > 0 && t.Files[i-1].Path >= f.Path:
			return fmt.Errorf("file %q is out of order", f.Path)
		case !validPath(f.Path):
			return fmt.Errorf("%q is no file of a snapshot", f.Path)
		case f.Size < 0 || f.SHA256 != "" && !isSHA256(f.SHA256):
			return fmt.Errorf("wrong size or checksum of file %q", f.Path)
		}
	}
	return nil
}

// validPath: a file of the table, or one of an index, which lies in a folder ".NAME". Nothing that leaves the directory.
func validPath(p string) bool {
	dir, base := path.Split(p)
	if base == "" || base == "." || base == ".." || len(p) > 1024 || strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r == '\\' || r == 0x7f || r == 0xfffd }) {
		return false
	}
	if dir == "" {
		return true
	}
	folder := strings.TrimSuffix(dir, "/")
	return path.Clean(p) == p && len(folder) > 1 && folder[0] == '.' && folder != ".." && !strings.Contains(folder, "/")
}
