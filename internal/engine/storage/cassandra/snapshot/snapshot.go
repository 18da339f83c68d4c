// Package snapshot has the documents in the catalog that describe a captured Cassandra cluster: one Index per storage and run, and one FileList per node.
// A restore needs nothing else than these and the files.
package snapshot

import (
	"strings"
	"time"
)

// Version is the version of the documents that this code writes. It reads this one and older ones.
const Version = 1

// IndexName is the last element of an index's name in the catalog; it lies at PREFIX/STORAGE/index.json. Node lists lie at PREFIX/STORAGE/nodes/HOSTID.json.
const IndexName = "index.json"

// Kinds of artifacts.
const (
	KindIndex  = "cassandra_index"    // the Index; its ID is the object's name in the catalog, its SHA256 the object's
	KindNodes  = "cassandra_snapshot" // the snapshot of one tag on all nodes: the ID is the tag
	KindUpload = "cassandra_upload"   // the files in the catalog: the ID is the index's name; blobs are shared between backups
	KindMedusa = "cassandra_medusa"   // medusa's backup of that name on all nodes
	KindCassy  = "cassandra_cassy"    // Cassy's: the ID is its snapshot id
)

// Where the data is.
const (
	DataNodes  = "keep_on_nodes"
	DataUpload = "upload"
	DataMedusa = "medusa"
	DataCassy  = "cassy"
)

// Index describes one captured cluster.
type Index struct {
	Version     int        `json:"version"`
	Cluster     string     `json:"cluster"`     // its name
	Partitioner string     `json:"partitioner"` // class name
	Tag         string     `json:"tag"`         // of the snapshot on the nodes
	Data        string     `json:"data"`        // DataNodes, ...
	CapturedAt  time.Time  `json:"captured_at"` // when the last node confirmed, by our clock
	Keyspaces   []Keyspace `json:"keyspaces"`   // sorted by name
	Nodes       []Node     `json:"nodes"`       // sorted by host id
}

// Keyspace is the schema of one keyspace, as DESCRIBE KEYSPACE WITH INTERNALS gives it.
type Keyspace struct {
	Name        string            `json:"name"`
	Replication map[string]string `json:"replication"` // as system_schema has it, class included
	CQL         []string          `json:"cql"`         // one statement each, in order; tables WITH ID
	Tables      []Table           `json:"tables"`      // sorted by name
}

// TableDirectory is the name of a table's directory in that of its keyspace: NAME-ID, the ID without dashes.
func TableDirectory(name, id string) string { return name + "-" + strings.ReplaceAll(id, "-", "") }

// Table is one table of a keyspace.
type Table struct {
	Name           string `json:"name"`
	ID             string `json:"id"` // UUID
	GCGraceSeconds int64  `json:"gc_grace_seconds"`
}

// Node is one node of the captured cluster.
type Node struct {
	HostID     string   `json:"host_id"`
	Address    string   `json:"address"`
	Datacenter string   `json:"datacenter"`
	Rack       string   `json:"rack"`
	Version    string   `json:"version"` // release
	Tokens     []string `json:"tokens"`
	// Files is the object that lists the node's files; empty where they were not listed (no access to the node's file system).
	Files       string `json:"files,omitempty"`
	FilesSHA256 string `json:"files_sha256,omitempty"` // hex, of that object
	FileCount   int64  `json:"file_count,omitempty"`
	Bytes       int64  `json:"bytes,omitempty"` // of all its files
}

// FileList lists the snapshot's files on one node.
type FileList struct {
	Version int     `json:"version"`
	HostID  string  `json:"host_id"`
	Tables  []Files `json:"tables"` // sorted by keyspace, then table
}

// Files are those of one table on one node.
type Files struct {
	Keyspace string `json:"keyspace"`
	Table    string `json:"table"`
	ID       string `json:"id"`
	// Directory is the snapshot's directory on the node, absolute.
	Directory string `json:"directory"`
	Files     []File `json:"files"` // sorted by path
}

// File is one file of a snapshot.
type File struct {
	Path   string `json:"path"` // below Directory: "nb-1-big-Data.db", ".index_name/nb-1-big-Data.db"
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256,omitempty"` // hex, of the file's content; empty until it was read
}
