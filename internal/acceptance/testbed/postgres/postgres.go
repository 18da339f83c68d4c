// Package postgres starts private PostgreSQL servers for tests, from the programs of the system's packages.
package postgres

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/child"
)

// Options of a server; the zero value is a plain one.
type Options struct {
	// Settings are further settings of postgresql.conf.
	Settings map[string]string
	WALLevel string // empty: the server's default
	// Standby makes a server in recovery that answers queries.
	Standby bool
	// LogStatements makes the server log every statement to Log.
	LogStatements bool
}

// Server is one running server. It is gone, with its data, when the test ends.
type Server struct {
	Host     string // 127.0.0.1
	Port     int
	User     string // a superuser; by password (SCRAM) only
	Password string
	Dir      string // of the data, the socket and the log
	Log      string // its log file
	Bin      string // the folder of the programs

	t    testing.TB
	as   *syscall.Credential
	cmd  *exec.Cmd
	done <-chan struct{}
}

// startTimeout is generous: several servers may start at once on a small machine.
const startTimeout = 120 * time.Second

// Bin finds the folder of the newest server's programs.
func Bin(t testing.TB) string {
	t.Helper()
	dir, err := Programs()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// Programs is Bin for who has no test.
func Programs() (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	slices.SortFunc(found, func(a, b string) int { return major(a) - major(b) })
	if len(found) == 0 {
		return "", errors.New("no PostgreSQL server in /usr/lib/postgresql/*/bin: `make testbed` installs it (Debian's package postgresql)")
	}
	return filepath.Dir(found[len(found)-1]), nil
}

func major(path string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
	return n
}

// Start makes a cluster and starts a server on a free port of the loopback interface.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	// Not t.TempDir: the path of a socket must be short, and another user must reach it.
	dir, err := os.MkdirTemp("", "pgt")
	if err != nil {
		t.Fatalf("making a folder for PostgreSQL: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &Server{Host: "127.0.0.1", User: "admin", Dir: dir, Log: filepath.Join(dir, "log"), Bin: Bin(t), t: t}
	// Characters that connection strings, password files and shells trip over; and no other server's: should another one get our port
	// first, it does not answer for ours.
	s.Password = `p:w"'\ $%` + rand.Text()
	s.as = unprivileged(t)
	secret := filepath.Join(dir, "pw")
	if err := os.WriteFile(secret, []byte(s.Password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s.as != nil {
		for _, p := range []string{dir, secret} {
			if err := os.Chown(p, int(s.as.Uid), int(s.as.Gid)); err != nil {
				t.Fatalf("giving %s to the user that runs PostgreSQL: %v", p, err)
			}
		}
	}
	s.runTool("initdb", "--pgdata="+s.data(), "--username="+s.User, "--pwfile="+secret, "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions")
	_ = os.Remove(secret)
	if o.Standby {
		if err := os.WriteFile(filepath.Join(s.data(), "standby.signal"), nil, 0o644); err != nil { //nolint:gosec // another user reads it
			t.Fatal(err)
		}
	}
	// A port that was free may be taken before the server has it: then another.
	for try := 1; ; try++ {
		err := s.start(o)
		if err == nil {
			return s
		}
		if try == 3 {
			t.Fatalf("starting PostgreSQL: %v", err)
		}
	}
}

func (s *Server) data() string { return filepath.Join(s.Dir, "data") }

func unprivileged(t testing.TB) *syscall.Credential {
	t.Helper()
	as, err := Unprivileged()
	if err != nil {
		t.Fatal(err)
	}
	return as
}

// Unprivileged is the user to run as, since PostgreSQL refuses root; nil where we are not root.
func Unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("asking for the user %s: %w", name, err)
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("PostgreSQL cannot run as root, and there is neither a user postgres nor nobody: `make testbed` installs Debian's package postgresql, which has one")
}

func (s *Server) tool(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.Bin, name), args...)
	cmd.Dir = s.Dir
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Credential: s.as}
	return cmd
}

func (s *Server) runTool(name string, args ...string) {
	s.t.Helper()
	runtime.LockOSThread() // Pdeathsig is about the thread
	defer runtime.UnlockOSThread()
	if out, err := s.tool(name, args...).CombinedOutput(); err != nil {
		s.t.Fatalf("running %s: %v\n%s", name, err, out)
	}
}

func (s *Server) start(o Options) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	args := []string{"-D", s.data(), "-p", strconv.Itoa(port), "-k", s.Dir, "-h", s.Host, "-F"}
	for k, v := range map[string]string{"shared_buffers": "32MB", "max_connections": "100", "synchronous_commit": "off", "full_page_writes": "off", "max_wal_size": "256MB",
		"logging_collector": "off", "jit": "off"} {
		args = append(args, "-c", k+"="+v)
	}
	if o.LogStatements {
		args = append(args, "-c", "log_statement=all", "-c", "log_line_prefix=%p ")
	}
	if o.WALLevel != "" {
		args = append(args, "-c", "wal_level="+o.WALLevel)
	}
	for k, v := range o.Settings {
		args = append(args, "-c", k+"="+v)
	}
	log, err := os.Create(s.Log)
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // the server has its own
	cmd := s.tool("postgres", args...)
	cmd.Stdout, cmd.Stderr = log, log
	done, err := child.Start(cmd)
	if err != nil {
		return err
	}
	s.Port, s.cmd, s.done = port, cmd, done
	deadline := time.Now().Add(startTimeout)
	for {
		err := s.ping()
		if err == nil {
			s.t.Cleanup(s.Stop)
			return nil
		}
		select {
		case <-done:
			text, _ := os.ReadFile(s.Log)
			return fmt.Errorf("it ended at once:\n%s", text)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			s.Stop()
			text, _ := os.ReadFile(s.Log)
			return fmt.Errorf("no answer within %s (%w):\n%s", startTimeout, err, text)
		}
	}
}

func (s *Server) ping() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	db := s.open("postgres", s.User, s.Password)
	return errors.Join(db.PingContext(ctx), db.Close())
}

// Stop ends the server; the test's end does so too. Its backends follow their parent by themselves.
func (s *Server) Stop() {
	select {
	case <-s.done:
		return
	default:
	}
	// SIGQUIT: at once. Its data is thrown away.
	_ = syscall.Kill(s.cmd.Process.Pid, syscall.SIGQUIT)
	select {
	case <-s.done:
	case <-time.After(10 * time.Second):
		_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
		<-s.done
	}
}

func (s *Server) open(database, username, password string) *sql.DB {
	c, err := pgx.ParseConfig("sslmode=disable host=" + s.Host + " port=" + strconv.Itoa(s.Port))
	if err != nil {
		s.t.Fatalf("opening PostgreSQL: %v", err)
	}
	c.Database, c.User, c.Password = database, username, password
	return stdlib.OpenDB(*c)
}

// DB opens a pool on a database as the given user, closed when t ends. An empty user means the server's own.
func (s *Server) DB(t testing.TB, database, username, password string) *sql.DB {
	t.Helper()
	if username == "" {
		username, password = s.User, s.Password
	}
	db := s.open(database, username, password)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// Exec runs statements, one by one, as the server's own user.
func (s *Server) Exec(t testing.TB, database string, statements ...string) {
	t.Helper()
	db := s.open(database, s.User, s.Password)
	defer db.Close() //nolint:errcheck // nothing to lose
	for _, q := range statements {
		if _, err := db.ExecContext(context.WithoutCancel(t.Context()), q); err != nil {
			t.Fatalf("running %q: %v", q, err)
		}
	}
}

// CreateDatabase makes a database of a random name, which is gone with the server.
func (s *Server) CreateDatabase(t testing.TB) string {
	t.Helper()
	name := "db_" + strings.ToLower(rand.Text()[:10])
	s.Exec(t, "postgres", `CREATE DATABASE "`+name+`"`)
	return name
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}
