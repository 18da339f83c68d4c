package rdsserver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/postgres"
)

// image is what a database can be made of: a new database, and the logs of all that happened in it since. It is what a snapshot and an automated
// backup consist of. Its files do not change any more.
type image struct {
	logs []logs // oldest first
}

// logs are the WAL or the binary logs of one database, and how far they count.
type logs struct {
	dir   string
	until time.Time // zero: to their end, or to mark
	mark  string    // PostgreSQL: the name of a restore point
	cut   time.Time // PostgreSQL: when that was made
}

// at is the image as of a time in its last logs. Of a database that did not run any more at that time it is all there is.
func (i image) at(t time.Time) image {
	all := append([]logs(nil), i.logs...)
	if len(all) > 0 {
		last := &all[len(all)-1]
		after := !last.until.IsZero() && !t.Before(last.until) || last.mark != "" && !t.Before(last.cut)
		if !after {
			last.until, last.mark = t, ""
		}
	}
	return image{logs: all}
}

// database is one real database. Its methods may be called one at a time.
type database interface {
	// start makes it from its image at the first time, and runs it.
	start(ctx context.Context) error
	// stop ends it; start runs it again, with the same data.
	stop(ctx context.Context) error
	// cut fixes everything that is committed now, also if it does not run, and tells the time of the last transaction in it (zero: none).
	cut(ctx context.Context) (image, time.Time, error)
	// password sets a user's, and makes the user if there is none.
	password(ctx context.Context, user, password string) error
	// create makes an (SQL) database that the user owns.
	create(ctx context.Context, name, user string) error
	running() bool
	// port is where it listens, or will when it runs. Neither waits for what is under way.
	port() int
	// destroy ends it and removes its data, but no image.
	destroy()
}

// store makes databases, all in one folder. A new database of an engine is a copy of that engine's template.
type store struct {
	dir string
	as  *syscall.Credential // who PostgreSQL runs as; nil: us

	mu        sync.Mutex
	templates map[string]string // folders of new databases, by engine family
	secret    string            // the password of rdsadmin, everywhere
	n         int
}

func newStore() (*store, error) {
	parent := roomy()
	sweepDead(parent)
	// The paths of sockets must be short.
	dir, err := os.MkdirTemp(parent, prefix+strconv.Itoa(os.Getpid())+"-")
	if err != nil {
		return nil, fmt.Errorf("making a folder for the databases: %w", err)
	}
	as, err := postgres.Unprivileged()
	s := &store{dir: dir, as: as, templates: map[string]string{}, secret: rand.Text()}
	if err == nil {
		err = os.Chmod(dir, 0o711) //nolint:gosec // another user passes through it
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return s, nil
}

// prefix begins the names of the folders; the number of the process that made it follows.
const prefix = "rds-"

// roomy is where databases are: in memory where there is enough, since none of them has to outlive the test, and copying and syncing their many small
// files takes longer than all else.
func roomy() string {
	const shared, enough = "/dev/shm", 4 << 30
	var fs syscall.Statfs_t
	if err := syscall.Statfs(shared, &fs); err != nil || fs.Bavail*uint64(fs.Bsize) < enough { //nolint:gosec // a size is not negative
		return os.TempDir()
	}
	return shared
}

// sweepDead removes what processes left behind that were killed.
func sweepDead(parent string) {
	found, _ := filepath.Glob(filepath.Join(parent, prefix+"*"))
	for _, dir := range found {
		number, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), prefix), "-")
		if _, err := strconv.Atoi(number); err != nil {
			continue
		}
		// A process that is dead, but not yet waited for, has no command line.
		if line, err := os.ReadFile(filepath.Join("/proc", number, "cmdline")); err != nil || len(line) == 0 {
			_ = os.RemoveAll(dir)
		}
	}
}

const (
	familyPostgres = "postgres"
	familyMariaDB  = "mariadb"
)

// family is which server stands for an engine; empty: none.
func family(engine string) string {
	switch engine {
	case "postgres", "aurora-postgresql":
		return familyPostgres
	case "mysql", "mariadb", "aurora-mysql":
		return familyMariaDB
	}
	return ""
}

// open prepares a database that is to be made from an image; the zero image is a new one.
func (s *store) open(engine string, from image) (database, error) {
	template, err := s.template(family(engine))
	if err != nil {
		return nil, fmt.Errorf("making a new database: %w", err)
	}
	dir, err := s.folder()
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	switch family(engine) {
	case familyPostgres:
		p := &pg{store: s, template: template, dir: dir, from: from}
		p.at.Store(int32(port)) //nolint:gosec // a port
		return p, nil
	case familyMariaDB:
		m := &maria{store: s, template: template, dir: dir, from: from}
		m.at.Store(int32(port)) //nolint:gosec // a port
		return m, nil
	}
	return nil, fmt.Errorf("there is no real database for the engine %q", engine)
}

func (s *store) template(family string) (string, error) {
	s.mu.Lock()
	dir, ok := s.templates[family]
	s.mu.Unlock()
	if ok {
		return dir, nil
	}
	dir, err := s.folder()
	if err != nil {
		return "", err
	}
	switch family {
	case familyPostgres:
		err = s.initPostgres(dir)
	case familyMariaDB:
		err = s.initMariaDB(dir)
	}
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.templates[family] = dir
	return dir, nil
}

// folder makes a folder of its own, which PostgreSQL's user owns.
func (s *store) folder() (string, error) {
	s.mu.Lock()
	s.n++
	dir := filepath.Join(s.dir, fmt.Sprint(s.n))
	s.mu.Unlock()
	return dir, s.mkdir(dir)
}

func (s *store) mkdir(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if s.as == nil {
		return nil
	}
	return os.Chown(dir, int(s.as.Uid), int(s.as.Gid))
}

// link makes a folder that has the files of another one, which are never written again.
func (s *store) link(from string, names []string) (string, error) {
	dir, err := s.folder()
	if err != nil {
		return "", err
	}
	for _, name := range names {
		if err := os.Link(filepath.Join(from, name), filepath.Join(dir, name)); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// copyTree copies a folder, as its owner.
func copyTree(ctx context.Context, from, to string, as *syscall.Credential) error {
	return run(exec.CommandContext(ctx, "/bin/cp", "-a", "--reflink=auto", from, to), as)
}

func files(dir string, take func(name string) bool) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() && take(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// escape quotes a text for either kind of SQL: the text has no backslashes that matter to PostgreSQL, and MariaDB is told not to heed them.
func escape(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

func (s *store) close() error { return os.RemoveAll(s.dir) }
