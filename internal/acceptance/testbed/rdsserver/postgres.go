package rdsserver

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/postgres"
)

// admin is the superuser that the service keeps for itself, as RDS does.
const admin = "rdsadmin"

// initPostgres makes the template: a database as initdb leaves it, with WAL segments of 1 MB, since each restore archives one.
func (s *store) initPostgres(dir string) error {
	bin, err := postgres.Programs()
	if err != nil {
		return err
	}
	secret := filepath.Join(dir, "pw")
	if err := os.WriteFile(secret, []byte(s.secret+"\n"), 0o600); err != nil {
		return err
	}
	if s.as != nil {
		if err := os.Chown(secret, int(s.as.Uid), int(s.as.Gid)); err != nil {
			return err
		}
	}
	cmd := exec.Command(filepath.Join(bin, "initdb"), "--pgdata="+filepath.Join(dir, "data"), "--username="+admin, "--pwfile="+secret, "--auth=scram-sha-256",
		"--encoding=UTF8", "--locale=C.UTF-8", "--wal-segsize=1", "--no-sync", "--no-instructions")
	cmd.Dir, cmd.Env = dir, toolEnv()
	return errors.Join(run(cmd, s.as), os.Remove(secret))
}

func toolEnv() []string { return []string{"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8", "TZ=UTC"} }

// pg is a PostgreSQL whose WAL is archived. Made from an image, it recovers from the image's archive, and goes on in an archive of its own, which begins
// with the image's: so that the template and one archive are all that a later restore needs.
type pg struct {
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
	cuts    int
}

func (p *pg) data() string    { return filepath.Join(p.dir, "data") }
func (p *pg) archive() string { return filepath.Join(p.dir, "archive") }

func (p *pg) start(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.process != nil {
		return nil
	}
	if !p.made {
		if err := p.prepare(ctx); err != nil {
			return fmt.Errorf("preparing PostgreSQL's data: %w", err)
		}
		p.made = true
	}
	// A port that was free may be taken before the server has it: then another.
	for try := 1; ; try++ {
		err := p.launch(ctx, try)
		if err == nil {
			p.last = nil
			return nil
		}
		if try == 3 || ctx.Err() != nil {
			return fmt.Errorf("starting PostgreSQL: %w", err)
		}
	}
}

func (p *pg) prepare(ctx context.Context) error {
	if err := copyTree(ctx, filepath.Join(p.template, "data"), p.data(), p.store.as); err != nil {
		return err
	}
	if err := p.store.mkdir(p.archive()); err != nil {
		return err
	}
	if len(p.from.logs) == 0 {
		return nil
	}
	from := p.from.logs[0].dir
	names, err := files(from, func(string) bool { return true })
	for _, name := range names {
		if err == nil {
			err = os.Link(filepath.Join(from, name), filepath.Join(p.archive(), name))
		}
	}
	if err != nil {
		return err
	}
	signal := filepath.Join(p.data(), "recovery.signal")
	if err := os.WriteFile(signal, nil, 0o600); err != nil {
		return err
	}
	if p.store.as == nil {
		return nil
	}
	return os.Chown(signal, int(p.store.as.Uid), int(p.store.as.Gid))
}

func (p *pg) launch(ctx context.Context, try int) error {
	bin, err := postgres.Programs()
	if err != nil {
		return err
	}
	port := p.port()
	if try > 1 {
		if port, err = freePort(); err != nil {
			return err
		}
	}
	archive := filepath.Join(p.archive(), "%f")
	settings := map[string]string{
		"shared_buffers": "16MB", "max_connections": "50", "synchronous_commit": "off", "full_page_writes": "off", "jit": "off", "autovacuum": "off",
		"wal_level": "replica", "max_wal_senders": "0", "track_commit_timestamp": "on", "archive_mode": "on", "max_wal_size": "64MB", "timezone": "UTC",
		// Under another name until it is complete: whoever copies the archive takes complete files only.
		"archive_command": fmt.Sprintf(`cp "%%p" "%[1]s.part" && mv "%[1]s.part" "%[1]s"`, archive),
		"restore_command": fmt.Sprintf(`cp "%s" "%%p"`, archive),
		"hot_standby":     "off", "recovery_target_action": "promote", "logging_collector": "off",
		"dynamic_shared_memory_type": "mmap", // in the data's folder, which goes with it
	}
	if len(p.from.logs) > 0 { // without a recovery.signal the targets mean nothing
		l := p.from.logs[0]
		switch {
		case !l.until.IsZero():
			settings["recovery_target_time"] = l.until.UTC().Format("2006-01-02 15:04:05.999999+00")
		case l.mark != "":
			settings["recovery_target_name"] = l.mark
		}
	}
	args := []string{"-D", p.data(), "-p", strconv.Itoa(port), "-k", p.dir, "-h", "127.0.0.1", "-F"}
	for k, v := range settings {
		args = append(args, "-c", k+"="+v)
	}
	cmd := exec.Command(filepath.Join(bin, "postgres"), args...)
	cmd.Dir, cmd.Env = p.dir, toolEnv()
	process, err := launch(cmd, p.store.as, filepath.Join(p.dir, "log"))
	if err != nil {
		return err
	}
	c, err := pgx.ParseConfig("sslmode=disable host=127.0.0.1 port=" + strconv.Itoa(port))
	if err != nil {
		return err
	}
	c.Database, c.User, c.Password = "postgres", admin, p.store.secret
	db := stdlib.OpenDB(*c)
	db.SetMaxOpenConns(2)
	if err := process.answers(ctx, func() error { return db.PingContext(ctx) }); err != nil {
		process.end(syscall.SIGQUIT)
		return errors.Join(err, db.Close())
	}
	p.process, p.db = process, db
	p.at.Store(int32(port)) //nolint:gosec // a port
	p.up.Store(true)
	return nil
}

func (p *pg) running() bool { return p.up.Load() }
func (p *pg) port() int     { return int(p.at.Load()) }

func (p *pg) stop(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.process == nil {
		return nil
	}
	i, tx, err := p.fix(ctx)
	if err != nil {
		return err
	}
	p.last, p.lastTx = &i, tx
	p.halt(syscall.SIGINT)
	return nil
}

func (p *pg) halt(signal syscall.Signal) {
	if p.process == nil {
		return
	}
	_ = p.db.Close()
	p.process.end(signal)
	p.process, p.db = nil, nil
	p.up.Store(false)
}

func (p *pg) destroy() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.halt(syscall.SIGQUIT)
	_ = os.RemoveAll(p.dir)
}

func (p *pg) cut(ctx context.Context) (image, time.Time, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.process != nil:
		return p.fix(ctx)
	case p.last != nil:
		return *p.last, p.lastTx, nil
	}
	return p.from, time.Time{}, nil // as it will be when it starts
}

// fix archives everything up to a restore point, and returns an image that ends there.
func (p *pg) fix(ctx context.Context) (image, time.Time, error) {
	p.cuts++
	mark := "cut_" + filepath.Base(p.dir) + "_" + strconv.Itoa(p.cuts)
	before, err := p.lastCommit(ctx)
	if err != nil {
		return image{}, before, err
	}
	var segment string
	cut := time.Now()
	err = p.transact(ctx, func(tx *sql.Tx) error {
		// Recovery to a time goes on until it finds the end of a transaction after it: it needs one, but one that changes nothing, not even the time of the
		// last commit.
		var id string
		return tx.QueryRowContext(ctx, "SELECT pg_current_xact_id()::text").Scan(&id)
	})
	if err == nil {
		err = p.db.QueryRowContext(ctx, "SELECT pg_create_restore_point($1)::text", mark).Scan(&segment)
	}
	if err == nil {
		err = p.db.QueryRowContext(ctx, "SELECT pg_walfile_name(pg_switch_wal())").Scan(&segment)
	}
	if err != nil {
		return image{}, before, fmt.Errorf("switching to a new WAL segment: %w", err)
	}
	deadline := time.Now().Add(startTimeout)
	for {
		_, err := os.Stat(filepath.Join(p.archive(), segment))
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			return image{}, before, fmt.Errorf("waiting for WAL segment %s in the archive: %w: %s", segment, err, p.process.tail())
		}
		select {
		case <-ctx.Done():
			return image{}, before, ctx.Err()
		case <-time.After(3 * time.Millisecond):
		}
	}
	names, err := files(p.archive(), func(name string) bool { return !strings.HasSuffix(name, ".part") })
	if err != nil {
		return image{}, before, err
	}
	dir, err := p.store.link(p.archive(), names)
	if err != nil {
		return image{}, before, err
	}
	i := image{logs: []logs{{dir: dir, mark: mark, cut: cut}}}
	after, err := p.lastCommit(ctx)
	if err != nil || after.Equal(before) {
		return i, before, err
	}
	// Something was committed meanwhile; the WAL tells on which side of the restore point.
	read, err := p.readCommits(ctx, dir, segment, mark)
	if read.IsZero() {
		read = before
	}
	return i, read, err
}

func (p *pg) transact(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := p.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	return errors.Join(f(tx), tx.Rollback())
}

func (p *pg) lastCommit(ctx context.Context) (time.Time, error) {
	var at sql.NullTime
	err := p.db.QueryRowContext(ctx, "SELECT timestamp FROM pg_last_committed_xact()").Scan(&at)
	if err != nil {
		return time.Time{}, fmt.Errorf("asking for the last commit: %w", err)
	}
	return at.Time, nil
}

// readCommits returns the time of the last commit before a restore point, as the WAL of its timeline has it; zero: none.
func (p *pg) readCommits(ctx context.Context, dir, segment, mark string) (time.Time, error) {
	bin, err := postgres.Programs()
	if err != nil {
		return time.Time{}, err
	}
	// The names of segments begin with eight digits for the timeline.
	names, err := files(dir, func(name string) bool { return len(name) == len(segment) && name[:8] == segment[:8] })
	if err != nil || len(names) == 0 {
		return time.Time{}, err
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "pg_waldump"), "--path="+dir, "--rmgr=Transaction", "--rmgr=XLOG", filepath.Join(dir, names[0]),
		filepath.Join(dir, segment))
	cmd.Dir, cmd.Env, cmd.Stdout = dir, toolEnv(), &out
	if err := run(cmd, p.store.as); err != nil {
		return time.Time{}, err
	}
	var last time.Time
	for line := range strings.SplitSeq(out.String(), "\n") {
		if strings.Contains(line, "desc: RESTORE_POINT "+mark) {
			return last, nil
		}
		_, text, ok := strings.Cut(line, "desc: COMMIT ")
		if !ok || len(text) < len(waldumpTime) {
			continue
		}
		if at, err := time.Parse(waldumpTime, text[:len(waldumpTime)]); err == nil {
			last = at
		}
	}
	return last, fmt.Errorf("the WAL has no restore point %s", mark)
}

const waldumpTime = "2006-01-02 15:04:05.000000"

func (p *pg) password(ctx context.Context, user, password string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.process == nil {
		return errors.New("it does not run")
	}
	var n int
	if err := p.db.QueryRowContext(ctx, "SELECT count(*) FROM pg_roles WHERE rolname = $1", user).Scan(&n); err != nil {
		return err
	}
	name := pgx.Identifier{user}.Sanitize()
	statement := "ALTER ROLE " + name + " PASSWORD " + escape(password)
	if n == 0 {
		// As RDS has it: no superuser.
		statement = "CREATE ROLE " + name + " LOGIN CREATEDB CREATEROLE IN ROLE pg_monitor, pg_signal_backend PASSWORD " + escape(password)
	}
	if _, err := p.db.ExecContext(ctx, statement); err != nil {
		return fmt.Errorf("setting the password of %s: %w", user, err)
	}
	return nil
}

func (p *pg) create(ctx context.Context, name, user string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, err := p.db.ExecContext(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()+" OWNER "+pgx.Identifier{user}.Sanitize())
	return err
}
