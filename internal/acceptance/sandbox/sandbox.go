// Package sandbox is a small ScalarDB system in one process, for `make demo` and for tests that kill providers: servers that answer the
// scalar-admin API, a bank whose writers go through their gates, and two SQLite databases in ScalarDB's on-disk format.
//
// It is a stand-in. It writes what ScalarDB 3.13 writes (consensus commit over tables with transaction columns, a coordinator
// table, metadata), in the order in which ScalarDB writes it, and its servers do what the real ones were seen to do
// (enginetest/adminserver). It does not show: conflicts between transactions (its writers take turns on an account), recovery, a real
// server's timing or its clients' back-off. The acceptance tests under realserver have the real thing.
package sandbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	_ "modernc.org/sqlite" // the driver

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/adminserver"
)

// Options of a Sandbox; zero values are the defaults.
type Options struct {
	Servers  int           // 2
	Writers  int           // 4
	Accounts int           // 20 in each database
	Pace     time.Duration // pause of a writer between two transfers; 1 ms
	Listen   []string      // addresses of the servers; free ports
}

// InitialBalance of each account.
const InitialBalance = 1000

// Sandbox is a running system.
type Sandbox struct {
	Servers []*adminserver.Server
	// Orders holds namespace bank; Events holds bank2, and the coordinator.
	Orders, Events string

	options Options
	orders  *sql.DB
	events  *sql.DB
	locks   []sync.Mutex
	stop    context.CancelFunc
	done    sync.WaitGroup
	commits atomic.Int64
	failure atomic.Pointer[error]
	ids     atomic.Int64
}

// Start makes the databases in dir, or goes on with those that are there, and starts servers and writers.
func Start(dir string, o Options) (*Sandbox, error) {
	if o.Servers == 0 {
		o.Servers = 2
	}
	if o.Writers == 0 {
		o.Writers = 4
	}
	if o.Accounts == 0 {
		o.Accounts = 20
	}
	if o.Pace == 0 {
		o.Pace = time.Millisecond
	}
	s := &Sandbox{options: o, Orders: filepath.Join(dir, "orders.db"), Events: filepath.Join(dir, "events.db"), locks: make([]sync.Mutex, 2*o.Accounts)}
	s.ids.Store(time.Now().UnixNano())
	var err error
	if s.orders, err = open(s.Orders); err == nil {
		if s.events, err = open(s.Events); err == nil {
			err = s.create()
		}
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	for i := range o.Servers {
		var opts adminserver.Options
		if i < len(o.Listen) {
			opts.Listen = o.Listen[i]
		}
		server, err := adminserver.Start(opts)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("starting a server: %w", err), s.Close())
		}
		s.Servers = append(s.Servers, server)
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	for i := range o.Writers {
		s.done.Go(func() { s.write(ctx, s.Servers[i%len(s.Servers)]) })
	}
	return s, nil
}

// Close stops writers and servers; the databases stay.
func (s *Sandbox) Close() error {
	if s.stop != nil {
		s.stop()
	}
	s.done.Wait()
	for _, server := range s.Servers {
		server.Close()
	}
	var errs []error
	for _, db := range []*sql.DB{s.orders, s.events} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

// Commits is the number of transfers committed so far.
func (s *Sandbox) Commits() int64 { return s.commits.Load() }

// Err is the first unexpected failure of a writer.
func (s *Sandbox) Err() error {
	if e := s.failure.Load(); e != nil {
		return *e
	}
	return nil
}

// Addresses of the servers.
func (s *Sandbox) Addresses() []string {
	var all []string
	for _, server := range s.Servers {
		all = append(all, server.Address())
	}
	return all
}

func open(path string) (*sql.DB, error) {
	q := url.Values{"_pragma": {"journal_mode(WAL)", "busy_timeout(20000)", "synchronous(NORMAL)"}, "_txlock": {"immediate"}}
	db, err := sql.Open("sqlite", "file:"+path+"?"+q.Encode())
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	db.SetMaxOpenConns(4)
	return db, nil
}

const accountsTable = `CREATE TABLE "%[1]s$accounts" (
	account_id INT PRIMARY KEY, balance INT, tx_id TEXT, tx_state INT, tx_version INT, tx_prepared_at BIGINT, tx_committed_at BIGINT,
	before_tx_id TEXT, before_tx_state INT, before_tx_version INT, before_tx_prepared_at BIGINT, before_tx_committed_at BIGINT, before_balance INT)`

const metadataTable = `CREATE TABLE "scalardb$metadata" (
	full_table_name TEXT, column_name TEXT, data_type TEXT NOT NULL, key_type TEXT, clustering_order TEXT, indexed BOOLEAN NOT NULL, ordinal_position INTEGER NOT NULL,
	PRIMARY KEY (full_table_name, column_name))`

// create makes ScalarDB's tables as Schema Loader does.
func (s *Sandbox) create() error {
	var n int
	if err := s.events.QueryRow(`SELECT count(*) FROM sqlite_schema WHERE name = 'coordinator$state'`).Scan(&n); err != nil {
		return fmt.Errorf("reading %s: %w", s.Events, err)
	}
	if n > 0 {
		return nil
	}
	for _, x := range []struct {
		db        *sql.DB
		namespace string
	}{{s.orders, "bank"}, {s.events, "bank2"}} {
		statements := []string{fmt.Sprintf(accountsTable, x.namespace), metadataTable}
		for i, c := range []string{"account_id INT PARTITION", "balance INT", "tx_id TEXT", "tx_state INT", "tx_version INT", "tx_prepared_at BIGINT", "tx_committed_at BIGINT",
			"before_tx_id TEXT", "before_tx_state INT", "before_tx_version INT", "before_tx_prepared_at BIGINT", "before_tx_committed_at BIGINT", "before_balance INT"} {
			var name, kind, key string
			_, _ = fmt.Sscan(c, &name, &kind, &key) // the key is there for one only
			keyType := "NULL"
			if key != "" {
				keyType = "'" + key + "'"
			}
			statements = append(statements, fmt.Sprintf(`INSERT INTO "scalardb$metadata" VALUES ('%s.accounts', '%s', '%s', %s, NULL, 0, %d)`, x.namespace, name, kind, keyType, i+1))
		}
		if x.namespace == "bank2" {
			statements = append(statements, `CREATE TABLE "coordinator$state" (tx_id TEXT PRIMARY KEY, tx_state INT, tx_created_at BIGINT)`)
			for i, c := range []string{"tx_id TEXT PARTITION", "tx_state INT", "tx_created_at BIGINT"} {
				var name, kind, key string
				_, _ = fmt.Sscan(c, &name, &kind, &key)
				keyType := "NULL"
				if key != "" {
					keyType = "'" + key + "'"
				}
				statements = append(statements, fmt.Sprintf(`INSERT INTO "scalardb$metadata" VALUES ('coordinator.state', '%s', '%s', %s, NULL, 0, %d)`, name, kind, keyType, i+1))
			}
		}
		now := time.Now().UnixMilli()
		for i := range s.options.Accounts {
			id := fmt.Sprintf("load-%s-%d", x.namespace, i)
			statements = append(statements, fmt.Sprintf(`INSERT INTO "%s$accounts" (account_id, balance, tx_id, tx_state, tx_version, tx_prepared_at, tx_committed_at) VALUES (%d, %d, '%s', 3, 1, %d, %d)`,
				x.namespace, i, InitialBalance, id, now, now))
		}
		for _, statement := range statements {
			if _, err := x.db.Exec(statement); err != nil {
				return fmt.Errorf("creating ScalarDB's tables: %w", err)
			}
		}
	}
	for _, namespace := range []string{"bank", "bank2"} {
		for i := range s.options.Accounts {
			if _, err := s.events.Exec(`INSERT INTO "coordinator$state" VALUES (?, 3, ?)`, fmt.Sprintf("load-%s-%d", namespace, i), time.Now().UnixMilli()); err != nil {
				return fmt.Errorf("creating the coordinator's entries: %w", err)
			}
		}
	}
	return nil
}

// write is one writer: transfers between an account of bank and one of bank2, one after another.
func (s *Sandbox) write(ctx context.Context, server *adminserver.Server) {
	for ctx.Err() == nil {
		from, to := rand.IntN(s.options.Accounts), rand.IntN(s.options.Accounts)
		done, err := server.Begin()
		if err == nil { // refused while paused: tried again
			err = s.Transfer(ctx, from, to, 1+rand.IntN(10))
			done()
			if err != nil && ctx.Err() == nil {
				err = fmt.Errorf("transferring: %w", err)
				s.failure.CompareAndSwap(nil, &err)
				return
			}
			s.commits.Add(1)
		}
		select {
		case <-ctx.Done():
		case <-time.After(s.options.Pace):
		}
	}
}

// Transfer is one transaction: prepare both records, write the coordinator's entry, commit both records. Called directly it is a
// writer that no server's gate stops. A transfer that was begun is ended, also when ctx has.
func (s *Sandbox) Transfer(ctx context.Context, from, to, amount int) error {
	s.locks[from].Lock()
	defer s.locks[from].Unlock()
	s.locks[s.options.Accounts+to].Lock()
	defer s.locks[s.options.Accounts+to].Unlock()
	ctx = context.WithoutCancel(ctx)
	id := fmt.Sprintf("tx-%d", s.ids.Add(1))
	if err := prepare(ctx, s.orders, "bank", from, -amount, id); err != nil {
		return err
	}
	if err := prepare(ctx, s.events, "bank2", to, amount, id); err != nil {
		return err
	}
	if _, err := s.events.ExecContext(ctx, `INSERT INTO "coordinator$state" VALUES (?, 3, ?)`, id, time.Now().UnixMilli()); err != nil {
		return fmt.Errorf("writing the coordinator's entry: %w", err)
	}
	if err := commit(ctx, s.orders, "bank", from, id); err != nil {
		return err
	}
	return commit(ctx, s.events, "bank2", to, id)
}

func prepare(ctx context.Context, db *sql.DB, namespace string, account, by int, id string) error {
	_, err := db.ExecContext(ctx, fmt.Sprintf(`UPDATE "%s$accounts" SET
		before_balance = balance, before_tx_id = tx_id, before_tx_state = tx_state, before_tx_version = tx_version, before_tx_prepared_at = tx_prepared_at, before_tx_committed_at = tx_committed_at,
		balance = balance + ?, tx_id = ?, tx_state = 1, tx_version = tx_version + 1, tx_prepared_at = ? WHERE account_id = ?`, namespace), by, id, time.Now().UnixMilli(), account)
	if err != nil {
		return fmt.Errorf("preparing %s.accounts %d: %w", namespace, account, err)
	}
	return nil
}

func commit(ctx context.Context, db *sql.DB, namespace string, account int, id string) error {
	_, err := db.ExecContext(ctx, fmt.Sprintf(`UPDATE "%s$accounts" SET tx_state = 3, tx_committed_at = ? WHERE account_id = ? AND tx_id = ?`, namespace), time.Now().UnixMilli(), account, id)
	if err != nil {
		return fmt.Errorf("committing %s.accounts %d: %w", namespace, account, err)
	}
	return nil
}

// Sum adds all balances of two restored databases up as a ScalarDB client would read them: a record that is not committed counts
// with its transaction's outcome. expected is what it must be.
func Sum(ctx context.Context, orders, events string) (sum, expected int64, err error) {
	var e *sql.DB
	if e, err = sql.Open("sqlite", "file:"+events+"?mode=ro"); err != nil {
		return 0, 0, err
	}
	defer e.Close()
	for _, x := range []struct{ path, namespace string }{{orders, "bank"}, {events, "bank2"}} {
		db, err := sql.Open("sqlite", "file:"+x.path+"?mode=ro")
		if err != nil {
			return 0, 0, err
		}
		defer db.Close()
		rows, err := db.QueryContext(ctx, fmt.Sprintf(`SELECT balance, before_balance, tx_state, tx_id FROM "%s$accounts"`, x.namespace))
		if err != nil {
			return 0, 0, fmt.Errorf("reading %s: %w", x.path, err)
		}
		defer rows.Close()
		for rows.Next() {
			var balance int64
			var before sql.NullInt64
			var state int
			var id string
			if err := rows.Scan(&balance, &before, &state, &id); err != nil {
				return 0, 0, fmt.Errorf("reading %s: %w", x.path, err)
			}
			if state != 3 {
				var committed int
				if err := e.QueryRowContext(ctx, `SELECT count(*) FROM "coordinator$state" WHERE tx_id = ? AND tx_state = 3`, id).Scan(&committed); err != nil {
					return 0, 0, fmt.Errorf("reading %s: %w", events, err)
				}
				if committed == 0 {
					balance = before.Int64
				}
			}
			sum += balance
			expected += InitialBalance
		}
		if err := rows.Err(); err != nil {
			return 0, 0, fmt.Errorf("reading %s: %w", x.path, err)
		}
	}
	return sum, expected, nil
}
