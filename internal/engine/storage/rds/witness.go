package rds

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/relational"
)

// errDrop makes database/sql forget a connection instead of keeping it: its transaction must end, and nobody waits for that.
var errDrop = driver.ErrBadConn

// WitnessName is Facts.Witness with a Witness.
const WitnessName = "two snapshots through SQL: the coordinator table (or, without one, the transaction columns of every table), the schema"

// Witness reads ScalarDB's tables through SQL in two snapshots, one at the start of the window and one at its end: what differs was written in the window.
// The snapshots are taken in the window, which costs a few round trips; they are compared after the unpause.
type Witness struct {
	endpoint    Endpoint
	db          *sql.DB
	dialect     relational.Dialect
	inventory   relational.Inventory
	fingerprint string
	first, last *sql.Conn
	mariaDB     bool // of MySQL's two servers: what SQL says, whatever RDS calls the engine
}

// NewWitness connects and reads the schema.
func NewWitness(ctx context.Context, e Endpoint, l Login, layout relational.Layout, clock engine.Clock) (*Witness, error) {
	db, d, err := e.Open(ctx, l, clock)
	if err != nil {
		return nil, err
	}
	w := &Witness{endpoint: e, db: db, dialect: d}
	if err := w.prepare(ctx, layout); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

func (w *Witness) prepare(ctx context.Context, layout relational.Layout) (err error) {
	var version string
	if err := w.db.QueryRowContext(ctx, "SELECT VERSION()").Scan(&version); err != nil {
		return fmt.Errorf("asking for the server's version: %w", err)
	}
	w.mariaDB = strings.Contains(version, "MariaDB")
	if w.inventory, err = relational.ReadInventory(ctx, w.db, w.dialect, layout); err != nil {
		return err
	}
	if w.fingerprint, err = relational.Fingerprint(ctx, w.db, w.dialect, w.inventory.Namespaces); err != nil {
		return err
	}
	for _, c := range []**sql.Conn{&w.first, &w.last} {
		if *c, err = w.db.Conn(ctx); err != nil {
			return fmt.Errorf("opening a session for the write witness: %w", err)
		}
		for _, s := range w.statements().patience {
			if _, err := (*c).ExecContext(ctx, s); err != nil {
				return fmt.Errorf("preparing a session for the write witness: %w", err)
			}
		}
	}
	return nil
}

// Missing names tables that ScalarDB's metadata have and the database has not.
func (w *Witness) Missing() (names []string) {
	for _, t := range w.inventory.Missing {
		names = append(names, t.Namespace+"."+t.Name)
	}
	return names
}

// statements are what differs between servers.
type statements struct {
	patience  []string // no limits on long statements
	begin     []string // a read-only transaction whose snapshot is there when they return
	estimates string   // (namespace, table, rows) of everything
}

func (w *Witness) statements() statements {
	family, _ := Family(w.endpoint.Engine)
	if family == FamilyPostgreSQL {
		return statements{
			patience: []string{"SET statement_timeout = 0", "SET idle_in_transaction_session_timeout = 0", "SET lock_timeout = '3s'"},
			// The first statement that reads takes the snapshot.
			begin: []string{"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "SELECT txid_current_snapshot()"},
			// A table that was never analysed says -1, or 0 before PostgreSQL 14.
			estimates: `SELECT n.nspname, c.relname, CASE WHEN c.reltuples > 0 THEN c.reltuples::int8 ELSE -1 END FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'm')`,
		}
	}
	limit := "SET SESSION max_execution_time = 0"
	if w.mariaDB {
		limit = "SET SESSION max_statement_time = 0"
	}
	return statements{
		patience:  []string{limit, "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ"},
		begin:     []string{"START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"},
		estimates: `SELECT TABLE_SCHEMA, TABLE_NAME, CASE WHEN TABLE_ROWS > 0 THEN CAST(TABLE_ROWS AS SIGNED) ELSE -1 END FROM information_schema.TABLES WHERE TABLE_TYPE = 'BASE TABLE'`,
	}
}

func (w *Witness) begin(ctx context.Context, c *sql.Conn) error {
	for _, s := range w.statements().begin {
		if _, err := c.ExecContext(ctx, s); err != nil {
			return fmt.Errorf("taking a snapshot for the write witness at %s: %w", w.endpoint.Address(), err)
		}
	}
	return nil
}

// First takes the snapshot at the start of the window.
func (w *Witness) First(ctx context.Context) error { return w.begin(ctx, w.first) }

// Last takes the one at its end, and compares the schema. It returns a *engine.VoidError when the schema changed.
func (w *Witness) Last(ctx context.Context) error {
	if err := w.first.PingContext(ctx); err != nil {
		return fmt.Errorf("the session that holds the first snapshot of the write witness is gone: %w", err)
	}
	if err := w.begin(ctx, w.last); err != nil {
		return err
	}
	now, err := relational.Fingerprint(ctx, w.last, w.dialect, w.inventory.Namespaces)
	if err != nil {
		return err
	}
	if now != w.fingerprint {
		return &engine.VoidError{Reason: "the schema of ScalarDB's namespaces (tables, columns, ScalarDB's metadata) changed between preflight and the end of the pause window; a pause does not stop schema changes: let them finish, then take the backup again"}
	}
	return nil
}

// Judge compares the snapshots, and says what the later one holds. It returns a *engine.VoidError when something was written.
func (w *Witness) Judge(ctx context.Context, openedAt time.Time, serverClockBound time.Duration) (engine.Captured, error) {
	var out engine.Captured
	first, err := relational.TakeReading(ctx, w.first, w.dialect, w.inventory)
	if err != nil {
		return out, err
	}
	last, err := relational.TakeReading(ctx, w.last, w.dialect, w.inventory)
	if err != nil {
		return out, err
	}
	if err := relational.Compare(first, last, openedAt, serverClockBound); err != nil {
		return out, err
	}
	estimates, err := w.estimates(ctx)
	if err != nil {
		return out, err
	}
	read := map[[2]string]relational.TableReading{}
	for _, t := range last.Tables {
		read[[2]string{t.Namespace, t.Name}] = t
	}
	for _, t := range w.inventory.Tables {
		x := engine.TableWitness{Namespace: t.Namespace, Table: t.Name, Transactional: t.Transactional}
		if r, ok := read[[2]string{t.Namespace, t.Name}]; ok {
			x.Rows, x.NewestCommitted = r.Rows, r.NewestCommitted
		} else if empty, err := w.empty(ctx, t.Data); err != nil {
			return out, err
		} else if !empty {
			// An estimate may be of long ago: that there are rows is known by now, how many is not.
			x.Rows, x.Estimated = max(1, estimates[[2]string{t.Data.Namespace, t.Data.Name}]), true
		}
		out.Tables = append(out.Tables, x)
	}
	if last.Coordinator != nil {
		out.HasCoordinator, out.CoordinatorNewest = true, last.Coordinator.Newest
	}
	return out, nil
}

func (w *Witness) empty(ctx context.Context, r relational.Relation) (bool, error) {
	err := w.last.QueryRowContext(ctx, "SELECT 1 FROM "+w.dialect.Table(r.Namespace, r.Name)+" LIMIT 1").Scan(new(int))
	if errors.Is(err, sql.ErrNoRows) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking into table %s.%s: %w", r.Namespace, r.Name, err)
	}
	return false, nil
}

func (w *Witness) estimates(ctx context.Context) (map[[2]string]int64, error) {
	rows, err := w.last.QueryContext(ctx, w.statements().estimates)
	if err != nil {
		return nil, fmt.Errorf("estimating the tables' rows: %w", err)
	}
	defer rows.Close()
	out := map[[2]string]int64{}
	for rows.Next() {
		var namespace, table string
		var n int64
		if err := rows.Scan(&namespace, &table, &n); err != nil {
			return nil, fmt.Errorf("estimating the tables' rows: %w", err)
		}
		out[[2]string{namespace, table}] = n
	}
	return out, rows.Err()
}

// Close ends the sessions; idempotent.
func (w *Witness) Close() error {
	if w.db == nil {
		return nil
	}
	for _, c := range []*sql.Conn{w.first, w.last} {
		if c != nil {
			_ = c.Raw(func(any) error { return errDrop })
			_ = c.Close()
		}
	}
	err := w.db.Close()
	w.db, w.first, w.last = nil, nil, nil
	return err
}
