package medusa

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/snapshot"
)

// stored is what medusa has of one node's backup: its manifest, and beside each entry what lies in the storage.
type stored struct {
	Complete     bool          `json:"complete"` // there is a manifest, which is written last
	FQDN         string        `json:"fqdn"`
	Differential bool          `json:"differential"`
	Tables       []storedTable `json:"tables"`
}

type storedTable struct {
	Keyspace string   `json:"keyspace"`
	Table    string   `json:"table"` // with its id, as its directory is called
	Objects  []object `json:"objects"`
}

type object struct {
	Path   string `json:"path"` // below the table
	Size   int64  `json:"size"`
	Stored int64  `json:"stored"` // bytes in the storage, -1 when it is not there
	Digest string `json:"digest"` // content of a file Digest.crc32
}

// Endings of names of files.
const (
	digestEnd     = "-Digest.crc32"
	statisticsEnd = "-Statistics.db"
	summaryEnd    = "-Summary.db"
)

// notStored are the files of a snapshot's directory that medusa leaves out: Cassandra's own list, and the table's schema, which the index has.
func notStored(name string) bool { return name == "manifest.json" || name == "schema.cql" }

// check compares the manifest with the storage. A later backup may have stored other statistics and summaries of the same SSTable: Cassandra rewrites
// them in place, and medusa's own verify overlooks it too.
func (s stored) check() error {
	if !s.Complete {
		return errors.New("it has no manifest")
	}
	for _, t := range s.Tables {
		for _, o := range t.Objects {
			changing := strings.HasSuffix(o.Path, statisticsEnd) || strings.HasSuffix(o.Path, summaryEnd)
			switch {
			case o.Stored < 0:
				return fmt.Errorf("%s of table %s.%s is in medusa's manifest, and not in its storage", o.Path, t.Keyspace, t.Table)
			case o.Stored != o.Size && !changing:
				return fmt.Errorf("%s of table %s.%s has %d bytes in medusa's storage, not %d", o.Path, t.Keyspace, t.Table, o.Stored, o.Size)
			}
		}
	}
	return nil
}

// compare finds every file of the list in the manifest and in the storage, and fills in the SHA-256 of the checksum files. digest gives the
// content that such a file must have, as its SHA-256; empty where it is not known. It returns the size of all files.
func (s stored) compare(list *snapshot.FileList, digest func(t snapshot.Files, f snapshot.File) (string, error)) (size int64, err error) {
	if err := s.check(); err != nil {
		return 0, err
	}
	have := map[string]object{}
	for _, t := range s.Tables {
		for _, o := range t.Objects {
			have[path.Join(t.Keyspace, t.Table, o.Path)] = o
		}
	}
	for _, t := range list.Tables {
		for i, f := range t.Files {
			if notStored(f.Path) {
				continue
			}
			name := path.Join(t.Keyspace, snapshot.TableDirectory(t.Table, t.ID), f.Path)
			o, ok := have[name]
			switch {
			case !ok:
				return 0, fmt.Errorf("%s is in the snapshot, and not in medusa's manifest", name)
			case o.Size != f.Size:
				return 0, fmt.Errorf("%s has %d bytes in medusa's manifest, and %d in the snapshot", name, o.Size, f.Size)
			}
			size += o.Size
			if !strings.HasSuffix(f.Path, digestEnd) {
				continue
			}
			want, err := digest(t, f)
			if err != nil {
				return 0, fmt.Errorf("reading %s: %w", name, err)
			}
			got := sum([]byte(o.Digest))
			if want != "" && got != want {
				return 0, fmt.Errorf("%s is another SSTable of the same name in medusa's storage", strings.TrimSuffix(name, digestEnd))
			}
			t.Files[i].SHA256 = got
		}
	}
	return size, nil
}

func sum(data []byte) string {
	h := sha256.Sum256(data)
	return hex.EncodeToString(h[:])
}

// known gives the sums that a list has.
func known(*snapshot.FileList) func(snapshot.Files, snapshot.File) (string, error) {
	return func(_ snapshot.Files, f snapshot.File) (string, error) { return f.SHA256, nil }
}

// maxDigest bounds a checksum file, which is a number.
const maxDigest = 1 << 10

// digests gives the sums of a node's own checksum files.
func (s *session) digests(ctx context.Context, i int) func(snapshot.Files, snapshot.File) (string, error) {
	files := s.job.Nodes[i].Files
	return func(t snapshot.Files, f snapshot.File) (string, error) {
		r, err := files.Open(ctx, path.Join(t.Directory, f.Path), 0)
		if err != nil {
			return "", err
		}
		data, err := io.ReadAll(io.LimitReader(r, maxDigest))
		return sum(data), errors.Join(err, r.Close())
	}
}
