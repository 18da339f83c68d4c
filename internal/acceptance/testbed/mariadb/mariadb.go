// Package mariadb starts private MariaDB servers for tests, from the programs of the system's packages. A MySQL 8 server cannot be had
// from them: what is particular to it is tested by its recorded version strings and flags only.
package mariadb

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
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/child"
)

// Options of a server; the zero value is a plain one.
type Options struct {
	// Args are further options of mariadbd ("--log-bin", "--read-only=1").
	Args []string
	// GeneralLog makes the server write every statement to Server.GeneralLog.
	GeneralLog bool
}

// Server is one running server. It is gone, with its data, when the test ends.
type Server struct {
	Host     string // 127.0.0.1
	Port     int
	User     string // has all privileges; by password, from this machine only
	Password string
	Dir      string // of the data, the socket and the logs
	// GeneralLog is the file with every statement, if Options asked for it.
	GeneralLog string

	t    testing.TB
	own  *sql.DB
	pid  int
	done <-chan struct{}
}

// startTimeout is generous: several servers may start at once on a small machine.
const startTimeout = 2 * time.Minute

// Start installs and starts a server on a free port of the loopback interface.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	daemon, install := find(t, "mariadbd", "/usr/sbin/mariadbd"), find(t, "mariadb-install-db", "/usr/bin/mariadb-install-db")
	// Not t.TempDir: the path of a socket must be short.
	dir, err := os.MkdirTemp("", "mdb")
	if err != nil {
		t.Fatalf("making a folder for MariaDB: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	// The password has the characters that option files, SQL and shells trip over, and is no other server's: should another one get our
	// port first, it does not answer for ours.
	s := &Server{Host: "127.0.0.1", User: "admin", Password: `p#w"'\ ;=%x` + rand.Text(), Dir: dir, t: t}

	me, err := user.Current()
	if err != nil {
		t.Fatalf("asking for the current user: %v", err)
	}
	data := filepath.Join(dir, "data")
	out, err := exec.CommandContext(t.Context(), install, "--no-defaults", "--user="+me.Username, "--datadir="+data,
		"--auth-root-authentication-method=normal", "--skip-test-db", "--innodb-log-file-size=16M").CombinedOutput()
	if err != nil {
		t.Fatalf("installing MariaDB's data: %v\n%s", err, out)
	}
	init := filepath.Join(dir, "init.sql")
	sqlText := "CREATE OR REPLACE USER admin@'127.0.0.1' IDENTIFIED BY '" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s.Password) + "';\n" +
		"GRANT ALL ON *.* TO admin@'127.0.0.1' WITH GRANT OPTION;\nDROP USER IF EXISTS root@localhost;\n"
	if err := os.WriteFile(init, []byte(sqlText), 0o600); err != nil {
		t.Fatalf("writing %s: %v", init, err)
	}
	// A port that was free may be taken before the server has it: then another.
	for try := 1; ; try++ {
		err := s.run(daemon, me.Username, data, init, o)
		if err == nil {
			return s
		}
		if try == 3 {
			t.Fatalf("starting MariaDB: %v", err)
		}
	}
}

func (s *Server) run(daemon, username, data, init string, o Options) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	logFile := filepath.Join(s.Dir, "error.log")
	args := []string{
		"--no-defaults", "--user=" + username, "--datadir=" + data, "--socket=" + filepath.Join(s.Dir, "s"), "--pid-file=" + filepath.Join(s.Dir, "pid"),
		"--port=" + strconv.Itoa(port), "--bind-address=127.0.0.1", "--skip-name-resolve", "--init-file=" + init, "--log-error=" + logFile,
		"--innodb-log-file-size=16M", "--innodb-buffer-pool-size=32M", "--innodb-flush-log-at-trx-commit=0", "--performance-schema=0", "--max-connections=200",
	}
	if o.GeneralLog {
		s.GeneralLog = filepath.Join(s.Dir, "general.log")
		args = append(args, "--general-log=1", "--general-log-file="+s.GeneralLog)
	}
	cmd := exec.Command(daemon, append(args, o.Args...)...)
	cmd.Dir = s.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	done, err := child.Start(cmd)
	if err != nil {
		return err
	}
	s.Port, s.pid, s.done = port, cmd.Process.Pid, done
	deadline := time.Now().Add(startTimeout)
	for {
		err := s.ping()
		if err == nil {
			s.own = s.open(s.User, s.Password)
			s.t.Cleanup(func() { _ = s.own.Close(); s.Stop() })
			return nil
		}
		select {
		case <-done:
			text, _ := os.ReadFile(logFile)
			return fmt.Errorf("it ended at once:\n%s", text)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			s.Stop()
			text, _ := os.ReadFile(logFile)
			return fmt.Errorf("no answer within %s (%w):\n%s", startTimeout, err, text)
		}
	}
}

func (s *Server) ping() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	db := s.open(s.User, s.Password)
	return errors.Join(db.PingContext(ctx), db.Close())
}

// Stop ends the server; the test's end does so too.
func (s *Server) Stop() {
	select {
	case <-s.done:
		return
	default:
	}
	// Its data is thrown away: there is nothing to shut down in order.
	_ = syscall.Kill(s.pid, syscall.SIGKILL)
	<-s.done
}

// DB is the pool of the server's own user, one for all callers. It is closed when the test ends.
func (s *Server) DB() *sql.DB { return s.own }

// Open opens a pool as somebody; the caller closes it.
func (s *Server) Open(username, password string) *sql.DB { return s.open(username, password) }

// Exec runs statements, one by one, as the server's own user.
func (s *Server) Exec(statements ...string) {
	s.t.Helper()
	for _, q := range statements {
		// The cleanup of a test, when its context has ended, may need them too.
		if _, err := s.own.ExecContext(context.WithoutCancel(s.t.Context()), q); err != nil {
			s.t.Fatalf("running %q: %v", q, err)
		}
	}
}

func (s *Server) open(username, password string) *sql.DB {
	c := mysql.NewConfig()
	c.User, c.Passwd, c.Net, c.Addr, c.Logger = username, password, "tcp", s.Address(), &mysql.NopLogger{}
	connector, err := mysql.NewConnector(c)
	if err != nil {
		s.t.Fatalf("preparing a connection to MariaDB: %v", err) // never: the settings are ours
	}
	return sql.OpenDB(connector)
}

// Address is host:port.
func (s *Server) Address() string { return net.JoinHostPort(s.Host, strconv.Itoa(s.Port)) }

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

func find(t testing.TB, program, usual string) string {
	t.Helper()
	path, err := Program(program, usual)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Program finds one of MariaDB's programs, in PATH or at its usual place.
func Program(name, usual string) (string, error) {
	if p, err := exec.LookPath(name); err == nil {
		return p, nil
	}
	if _, err := os.Stat(usual); err != nil {
		return "", fmt.Errorf("%s is not installed: `make testbed` installs it (Debian's package mariadb-server)", name)
	}
	return usual, nil
}
