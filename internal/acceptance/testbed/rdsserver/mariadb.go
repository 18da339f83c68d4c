package rdsserver

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/mariadb"
)

// initMariaDB makes the template: the data folder of a new server that never ran.
func (s *store) initMariaDB(dir string) error {
	install, err := mariadb.Program("mariadb-install-db", "/usr/bin/mariadb-install-db")
	if err != nil {
		return err
	}
	me, err := user.Current()
	if err != nil {
		return err
	}
	return run(exec.Command(install, "--no-defaults", "--user="+me.Username, "--datadir="+filepath.Join(dir, "data"), "--auth-root-authentication-method=normal",
		"--skip-test-db", "--innodb-log-file-size=8M"), nil)
}

// maria is a MariaDB with binary logs. Made from an image, it replays the image's logs, without logging that again: an image of it has the image's logs first.
type maria struct {
	store    *store
	template string
	dir      string
	from     image

	mu      sync.Mutex
	made    bool
	process *process
	at      atomic.Int32 // the port; when it does not run the one that it is to have
	up      atomic.Bool
	db      *sql.DB
	last    *image // of when it was stopped
	lastTx  time.Time
}

func (m *maria) data() string    { return filepath.Join(m.dir, "data") }
func (m *maria) binlogs() string { return filepath.Join(m.dir, "binlog") }

func (m *maria) start(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.process != nil {
		return nil
	}
	if _, err := os.Stat(m.data()); err != nil {
		if err := m.prepare(ctx); err != nil {
			return fmt.Errorf("preparing MariaDB's data: %w", err)
		}
	}
	// A port that was free may be taken before the server has it: then another.
	for try := 1; ; try++ {
		err := m.launch(ctx, try)
		if err == nil {
			break
		}
		if try == 3 || ctx.Err() != nil {
			return fmt.Errorf("starting MariaDB: %w", err)
		}
	}
	m.last = nil
	if m.made {
		return nil
	}
	for _, l := range m.from.logs {
		if err := m.replay(ctx, l); err != nil {
			m.halt(syscall.SIGKILL)
			return fmt.Errorf("replaying binary logs: %w", err)
		}
	}
	m.made = true
	return nil
}

func (m *maria) prepare(ctx context.Context) error {
	if err := copyTree(ctx, filepath.Join(m.template, "data"), m.data(), nil); err != nil {
		return err
	}
	if err := os.Mkdir(m.binlogs(), 0o700); err != nil {
		return err
	}
	// The service's own user is no part of the data: no log has it.
	text := "SET SQL_LOG_BIN=0;\nCREATE OR REPLACE USER " + admin + "@'127.0.0.1' IDENTIFIED BY '" + m.store.secret + "';\n" +
		"GRANT ALL ON *.* TO " + admin + "@'127.0.0.1' WITH GRANT OPTION;\nDROP USER IF EXISTS root@localhost;\n"
	return os.WriteFile(filepath.Join(m.dir, "init.sql"), []byte(text), 0o600)
}

func (m *maria) launch(ctx context.Context, try int) error {
	daemon, err := mariadb.Program("mariadbd", "/usr/sbin/mariadbd")
	if err != nil {
		return err
	}
	me, err := user.Current()
	if err != nil {
		return err
	}
	port := m.port()
	if try > 1 {
		if port, err = freePort(); err != nil {
			return err
		}
	}
	cmd := exec.Command(daemon, "--no-defaults", "--user="+me.Username, "--datadir="+m.data(), "--socket="+filepath.Join(m.dir, "s"),
		"--pid-file="+filepath.Join(m.dir, "pid"),
		"--port="+strconv.Itoa(port), "--bind-address=127.0.0.1", "--skip-name-resolve", "--init-file="+filepath.Join(m.dir, "init.sql"),
		"--innodb-log-file-size=8M", "--innodb-buffer-pool-size=16M", "--innodb-flush-log-at-trx-commit=0", "--performance-schema=0", "--max-connections=100",
		"--log-bin="+filepath.Join(m.binlogs(), "b"), "--binlog-format=ROW", "--sync-binlog=0", "--server-id=1", "--max-binlog-size=1G", "--expire-logs-days=0")
	cmd.Dir, cmd.Env = m.dir, toolEnv()
	process, err := launch(cmd, nil, filepath.Join(m.dir, "log"))
	if err != nil {
		return err
	}
	c := mysql.NewConfig()
	c.User, c.Passwd, c.Net, c.Addr, c.Logger, c.InterpolateParams = admin, m.store.secret, "tcp", "127.0.0.1:"+strconv.Itoa(port), &mysql.NopLogger{}, true
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return err
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(2)
	if err := process.answers(ctx, func() error { return db.PingContext(ctx) }); err != nil {
		process.end(syscall.SIGKILL)
		return errors.Join(err, db.Close())
	}
	m.process, m.db = process, db
	m.at.Store(int32(port)) //nolint:gosec // a port
	m.up.Store(true)
	return nil
}

// replay runs what the logs hold.
func (m *maria) replay(ctx context.Context, l logs) error {
	reader, err1 := mariadb.Program("mariadb-binlog", "/usr/bin/mariadb-binlog")
	client, err2 := mariadb.Program("mariadb", "/usr/bin/mariadb")
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	names, err := files(l.dir, func(string) bool { return true })
	if err != nil || len(names) == 0 {
		return err
	}
	args := []string{"--no-defaults", "--disable-log-bin"}
	if !l.until.IsZero() {
		args = append(args, "--stop-datetime="+l.until.UTC().Format(time.DateTime))
	}
	for _, n := range names {
		args = append(args, filepath.Join(l.dir, n))
	}
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	from := exec.CommandContext(ctx, reader, args...)
	from.Env, from.Stdout = toolEnv(), write
	to := exec.CommandContext(ctx, client, "--no-defaults", "--host=127.0.0.1", "--port="+strconv.Itoa(m.port()), "--user="+admin, "--binary-mode")
	to.Env, to.Stdin = append(toolEnv(), "MYSQL_PWD="+m.store.secret), read
	replayed := make(chan error, 1)
	go func() {
		err := run(to, nil)
		replayed <- errors.Join(err, read.Close())
	}()
	err = run(from, nil)
	return errors.Join(err, write.Close(), <-replayed)
}

func (m *maria) running() bool { return m.up.Load() }
func (m *maria) port() int     { return int(m.at.Load()) }

func (m *maria) stop(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.process == nil {
		return nil
	}
	i, tx, err := m.fix(ctx)
	if err != nil {
		return err
	}
	m.last, m.lastTx = &i, tx
	m.halt(syscall.SIGTERM)
	return nil
}

func (m *maria) halt(signal syscall.Signal) {
	if m.process == nil {
		return
	}
	_ = m.db.Close()
	m.process.end(signal)
	m.process, m.db = nil, nil
	m.up.Store(false)
}

func (m *maria) destroy() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.halt(syscall.SIGKILL)
	_ = os.RemoveAll(m.dir)
}

func (m *maria) cut(ctx context.Context) (image, time.Time, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.process != nil:
		return m.fix(ctx)
	case m.last != nil:
		return *m.last, m.lastTx, nil
	}
	last, err := lastEvent(m.from.logs)
	return m.from, last, err
}

// fix closes the current binary log, and returns an image of all that are closed.
func (m *maria) fix(ctx context.Context) (image, time.Time, error) {
	if _, err := m.db.ExecContext(ctx, "FLUSH BINARY LOGS"); err != nil {
		return image{}, time.Time{}, fmt.Errorf("closing the binary log: %w", err)
	}
	names, err := files(m.binlogs(), func(name string) bool {
		_, err := strconv.Atoi(strings.TrimPrefix(name, "b."))
		return err == nil
	})
	if err != nil {
		return image{}, time.Time{}, err
	}
	dir, err := m.store.link(m.binlogs(), names[:len(names)-1])
	if err != nil {
		return image{}, time.Time{}, err
	}
	all := append(append([]logs(nil), m.from.logs...), logs{dir: dir})
	last, err := lastEvent(all)
	return image{logs: all}, last, err
}

// lastEvent is the time of the last transaction in binary logs; zero: there is none.
func lastEvent(all []logs) (time.Time, error) {
	var last time.Time
	for _, l := range all {
		names, err := files(l.dir, func(string) bool { return true })
		if err != nil {
			return last, err
		}
		for _, n := range names {
			b, err := os.ReadFile(filepath.Join(l.dir, n))
			if err != nil {
				return last, err
			}
			// After four bytes of magic: events, each with its time, type and length in a header of 19 bytes.
			for at := 4; at+19 <= len(b); {
				when, kind := time.Unix(int64(binary.LittleEndian.Uint32(b[at:])), 0), b[at+4]
				length := int(binary.LittleEndian.Uint32(b[at+9:]))
				if length < 19 {
					return last, fmt.Errorf("binary log %s has an event of %d bytes at %d", n, length, at)
				}
				if !l.until.IsZero() && !when.Before(l.until) {
					break
				}
				if (kind == queryEvent || kind == xidEvent) && when.After(last) {
					last = when
				}
				at += length
			}
		}
	}
	return last, nil
}

// Types of events that end a transaction.
const (
	queryEvent = 2
	xidEvent   = 16
)

func (m *maria) password(ctx context.Context, user, password string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.process == nil {
		return errors.New("it does not run")
	}
	for _, q := range []string{"CREATE USER IF NOT EXISTS ?@'%' IDENTIFIED BY ?", "ALTER USER ?@'%' IDENTIFIED BY ?"} {
		if _, err := m.db.ExecContext(ctx, q, user, password); err != nil {
			return fmt.Errorf("setting the password of %s: %w", user, err)
		}
	}
	// What RDS grants its master user: not SUPER.
	_, err := m.db.ExecContext(ctx,
		"GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, RELOAD, PROCESS, REFERENCES, INDEX, ALTER, SHOW DATABASES, CREATE TEMPORARY TABLES, LOCK TABLES, "+
			"EXECUTE, REPLICATION SLAVE, REPLICATION CLIENT, CREATE VIEW, SHOW VIEW, CREATE ROUTINE, ALTER ROUTINE, CREATE USER, EVENT, TRIGGER ON *.* TO ?@'%' WITH GRANT OPTION", user)
	return err
}

func (m *maria) create(ctx context.Context, name, _ string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, err := m.db.ExecContext(ctx, "CREATE DATABASE `"+strings.ReplaceAll(name, "`", "``")+"`")
	return err
}
