// Package sqlite is the storage of ScalarDB's JDBC adapter over one SQLite file. Its capture method is dump: a compressed image of
// the database as of one read transaction.
//
// # How a capture is fixed
//
// In WAL mode a read transaction sees one snapshot for as long as it is open: writers go on, and no checkpoint passes it. Capture
// only begins one; the pages are read after the unpause, through that transaction (the sqlite_dbpage table), and streamed into the
// catalog. There is no scratch copy. Until Await ends the -wal file can grow, as with any long reader.
//
// In the rollback-journal modes a reader keeps writers from committing. So the image is read inside the window, into memory and
// compressed, and larger files than 256 MiB are refused by preflight: such a database should be switched to WAL
// ("PRAGMA journal_mode=WAL", once; it is persistent).
//
// # Limits
//
// POSIX locks belong to a process and a file: closing any descriptor of the database file would drop all locks that this process
// holds on it. So nothing here, or anywhere in the provider, opens a database file or its -wal and -shm but through SQLite, which
// shares its descriptors between the connections of a process; os.Stat, link and unlink are harmless. Several resources and readers
// of one provider process may thus use one file at the same time.
//
// Over a network file system SQLite's locks may not reach the other machines, and WAL mode cannot work there: preflight warns.
// A database that has a hot journal (its writer crashed) is refused, since only a writer can roll it back.
package sqlite

import (
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	driver "modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/relational"
)

const (
	name         = "sqlite"
	artifactKind = "sqlite_dump"    // an Artifact's kind
	objectKind   = "sqlite_file"    // a RestoredObject's kind
	objectName   = "database.zst"   // behind the storage's prefix in the catalog
	busyMillis   = 3000             // how long SQLite waits for another process's lock
	maxRollback  = int64(256 << 20) // bytes that are copied inside the window at most, see the package's comment
)

// Config is one driver object. Path is absolute or relative to the working directory.
type Config struct {
	Path   string
	Layout relational.Layout
}

// open opens a database file that exists. readOnly connections change nothing, not even by a checkpoint at the end; extra are pragmas
// ("locking_mode(exclusive)"). Nothing is read before the first query.
func open(path string, readOnly bool, extra ...string) (*sql.DB, error) {
	values := url.Values{"mode": {"rw"}, "_pragma": append([]string{fmt.Sprintf("busy_timeout(%d)", busyMillis)}, extra...)}
	if readOnly {
		values.Set("mode", "ro")
		values.Add("_pragma", "query_only(1)")
	}
	return openURI(path, values)
}

// openImage opens an image that nobody else uses: without locks, and without a -wal or -shm beside it.
func openImage(path string) (*sql.DB, error) {
	return openURI(path, url.Values{"mode": {"ro"}, "immutable": {"1"}})
}

func openURI(path string, values url.Values) (*sql.DB, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("finding %s: %w", path, err)
	}
	return sql.Open(name, uri(absolute, values))
}

// uri escapes the path, so that nothing in it can be taken for a parameter.
func uri(absolute string, values url.Values) string {
	return "file:" + (&url.URL{Path: absolute}).EscapedPath() + "?" + values.Encode()
}

// sideFiles are what SQLite keeps beside a database.
func sideFiles(path string) []string {
	return []string{path + "-wal", path + "-shm", path + "-journal"}
}

// sameIdentity compares two results of identity.
func sameIdentity(a, b map[string]string) bool {
	return a["inode"] != "" && a["inode"] == b["inode"] && a["born"] == b["born"] && a["device"] == b["device"]
}

// sourceID is the identity of a database file as one string.
func sourceID(absolute string, id map[string]string) string {
	parts := []string{"inode " + id["inode"]}
	for _, k := range []string{"born", "device"} {
		if id[k] != "" {
			parts = append(parts, k+" "+id[k])
		}
	}
	return absolute + " (" + strings.Join(parts, ", ") + ")"
}

// explain adds to a failure of SQLite what the user can do about it.
func explain(err error) error {
	var e *driver.Error
	if !errors.As(err, &e) {
		return err
	}
	var text string
	switch e.Code() {
	case lib.SQLITE_BUSY, lib.SQLITE_BUSY_RECOVERY, lib.SQLITE_BUSY_SNAPSHOT:
		text = "another process holds a lock on it (a long write, or PRAGMA locking_mode=EXCLUSIVE): end that, then try again"
	case lib.SQLITE_NOTADB:
		text = "it is not an SQLite database (or an encrypted one): check the path"
	case lib.SQLITE_READONLY_ROLLBACK, lib.SQLITE_READONLY_RECOVERY:
		text = "a writer crashed in the middle of a transaction: let an application that may write open the database once, which repairs it"
	case lib.SQLITE_READONLY_CANTINIT, lib.SQLITE_READONLY_CANTLOCK, lib.SQLITE_CANTOPEN:
		text = "its file, or the -wal and -shm files beside it, cannot be opened: a database in WAL mode needs a folder that this user may write to"
	case lib.SQLITE_CORRUPT:
		text = "the database is damaged: repair it, or restore it from an older backup, before anything else"
	default:
		return err
	}
	return fmt.Errorf("%w; %s", err, text)
}
