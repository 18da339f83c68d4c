package storagetest

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/clock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/relational"
)

// Flavour is what differs between databases when a Bank is made.
type Flavour struct {
	Dialect relational.Dialect
	Text    string // a type for strings up to 128 characters that can be a key
	Int     string // 32 bits
	BigInt  string // 64 bits
	Bool    string
	Blob    string
	// Namespace is the statement that makes a namespace, given its quoted name ("CREATE SCHEMA %s"); empty where there are none.
	Namespace string
	// Quote quotes a namespace's name for it.
	Quote func(namespace string) string
}

// Bank is a small system of ScalarDB in one database, in the on-disk format of ScalarDB 3.x: the transactional tables bank.accounts and
// bank.audit, bank.notes without transaction columns, coordinator.state and scalardb.metadata. It writes like ScalarDB's
// server, through a connection of its own: the provider does not know of it.
type Bank struct {
	DB *sql.DB
	Flavour

	mu       sync.Mutex // one transaction at a time
	sequence int
}

// relation is one table of the bank.
type relation struct {
	namespace, name string
	columns         []column
}

type column struct {
	name, kind string // a name of Flavour's types
	key        bool
}

// record has the transaction columns beside its own, like ScalarDB's Consensus Commit makes them.
func record(namespace, name string, own ...column) relation {
	columns := slices.Clone(own)
	for _, before := range []string{"", "before_"} {
		for _, c := range []column{{name: "tx_id", kind: "TEXT"}, {name: "tx_state", kind: "INT"}, {name: "tx_version", kind: "INT"},
			{name: "tx_prepared_at", kind: "BIGINT"}, {name: "tx_committed_at", kind: "BIGINT"}} {
			columns = append(columns, column{name: before + c.name, kind: c.kind})
		}
	}
	for _, c := range own {
		if !c.key {
			columns = append(columns, column{name: "before_" + c.name, kind: c.kind})
		}
	}
	return relation{namespace, name, columns}
}

func schema() []relation {
	return []relation{
		record("bank", "accounts", column{"account_id", "INT", true}, column{"balance", "INT", false}),
		record("bank", "audit", column{"entry_id", "TEXT", true}, column{"amount", "INT", false}, column{"receipt", "BLOB", false}),
		{"bank", "notes", []column{{"id", "TEXT", true}, {"body", "TEXT", false}}},
		{"coordinator", "state", []column{{"tx_id", "TEXT", true}, {"tx_state", "INT", false}, {"tx_created_at", "BIGINT", false}}},
	}
}

func metadata() relation {
	return relation{"scalardb", "metadata", []column{{"full_table_name", "TEXT", true}, {"column_name", "TEXT", true}, {"data_type", "TEXT", false},
		{"key_type", "TEXT", false}, {"clustering_order", "TEXT", false}, {"indexed", "BOOLEAN", false}, {"ordinal_position", "INT", false}}}
}

// NewBank makes and fills a bank in an empty database, and closes db when the test ends.
func NewBank(t testing.TB, db *sql.DB, f Flavour) *Bank {
	t.Helper()
	t.Cleanup(func() { _ = db.Close() })
	b := &Bank{DB: db, Flavour: f}
	if err := b.create(t.Context()); err != nil {
		t.Fatalf("making the bank: %v", err)
	}
	for range 5 {
		b.MustTransfer(t)
	}
	return b
}

func (b *Bank) create(ctx context.Context) error {
	if b.Namespace != "" {
		for _, n := range []string{"bank", "coordinator", "scalardb"} {
			if _, err := b.DB.ExecContext(ctx, fmt.Sprintf(b.Namespace, b.Quote(n))); err != nil {
				return err
			}
		}
	}
	tables := schema()
	for _, r := range append(tables, metadata()) {
		if err := b.createTable(ctx, r); err != nil {
			return err
		}
	}
	for _, r := range tables {
		if err := b.declare(ctx, r); err != nil {
			return err
		}
	}
	old := clock.System{}.Now().UnixMilli() - 3_600_000
	for i := range Accounts {
		if err := b.exec(ctx, b.DB, "INSERT INTO "+b.table("bank", "accounts")+" ("+b.names("account_id", "balance", "tx_id", "tx_state", "tx_version", "tx_prepared_at", "tx_committed_at")+") VALUES (?, ?, ?, 3, 1, ?, ?)",
			i, Balance, "initial", old, old); err != nil {
			return err
		}
	}
	if err := b.entry(ctx, b.DB, "initial", old); err != nil {
		return err
	}
	return b.exec(ctx, b.DB, "INSERT INTO "+b.table("bank", "notes")+" ("+b.names("id", "body")+") VALUES (?, ?)", "1", "naïve 'quotes' \"and\" \\ Ω\n\ttabs")
}

func (b *Bank) createTable(ctx context.Context, r relation) error {
	kinds := map[string]string{"TEXT": b.Text, "INT": b.Int, "BIGINT": b.BigInt, "BOOLEAN": b.Bool, "BLOB": b.Blob}
	var parts, key []string
	for _, c := range r.columns {
		parts = append(parts, b.Dialect.Column(c.name)+" "+kinds[c.kind])
		if c.key {
			key = append(key, b.Dialect.Column(c.name))
		}
	}
	_, err := b.DB.ExecContext(ctx, "CREATE TABLE "+b.table(r.namespace, r.name)+" ("+strings.Join(parts, ", ")+", PRIMARY KEY ("+strings.Join(key, ", ")+"))")
	return err
}

// declare writes a table's rows of ScalarDB's metadata.
func (b *Bank) declare(ctx context.Context, r relation) error {
	for i, c := range r.columns {
		var key any
		if c.key {
			key = "PARTITION"
		}
		if err := b.exec(ctx, b.DB, "INSERT INTO "+b.table("scalardb", "metadata")+" ("+b.names("full_table_name", "column_name", "data_type", "key_type", "indexed", "ordinal_position")+") VALUES (?, ?, ?, ?, ?, ?)",
			r.namespace+"."+r.name, c.name, c.kind, key, false, i+1); err != nil {
			return err
		}
	}
	return nil
}

func (b *Bank) table(namespace, name string) string { return b.Dialect.Table(namespace, name) }

func (b *Bank) names(columns ...string) string {
	for i, c := range columns {
		columns[i] = b.Dialect.Column(c)
	}
	return strings.Join(columns, ", ")
}

type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// exec replaces each "?" by the dialect's placeholder.
func (b *Bank) exec(ctx context.Context, q execer, query string, args ...any) error {
	parts := strings.Split(query, "?")
	for i := range len(parts) - 1 {
		parts[i] += b.Dialect.Placeholder(i + 1)
	}
	_, err := q.ExecContext(ctx, strings.Join(parts, ""), args...)
	return err
}

func (b *Bank) entry(ctx context.Context, q execer, id string, at int64) error {
	return b.exec(ctx, q, "INSERT INTO "+b.table("coordinator", "state")+" ("+b.names("tx_id", "tx_state", "tx_created_at")+") VALUES (?, 3, ?)", id, at)
}

// Transfer commits one transaction as ScalarDB would leave it: two accounts, a new record, the coordinator's entry. at is its writer's clock in
// milliseconds since the epoch; 0 is now.
func (b *Bank) Transfer(ctx context.Context, at int64) (err error) {
	if at == 0 {
		at = clock.System{}.Now().UnixMilli()
	}
	return b.write(ctx, func(tx *sql.Tx, id string) error {
		if err := b.change(ctx, tx, id, at); err != nil {
			return err
		}
		return b.entry(ctx, tx, id, at)
	})
}

// OnePhaseCommit is a Transfer that leaves no coordinator entry.
func (b *Bank) OnePhaseCommit(ctx context.Context, at int64) error {
	return b.write(ctx, func(tx *sql.Tx, id string) error { return b.change(ctx, tx, id, at) })
}

func (b *Bank) write(ctx context.Context, do func(tx *sql.Tx, id string) error) (err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	tx, err := b.DB.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
	b.sequence++
	if err := do(tx, fmt.Sprintf("transaction-%06d", b.sequence)); err != nil {
		return err
	}
	return tx.Commit()
}

func (b *Bank) change(ctx context.Context, tx *sql.Tx, id string, at int64) error {
	from, to := b.sequence%Accounts, (b.sequence*7+1)%Accounts
	if from == to {
		to = (to + 1) % Accounts
	}
	for account, amount := range map[int]int{from: -1, to: 1} {
		set := func(columns ...string) string {
			for i, c := range columns {
				columns[i] = b.Dialect.Column("before_"+c) + " = " + b.Dialect.Column(c)
			}
			return strings.Join(columns, ", ")
		}
		col := b.Dialect.Column
		// The before image first: MySQL assigns from left to right.
		if err := b.exec(ctx, tx, "UPDATE "+b.table("bank", "accounts")+" SET "+set("balance", "tx_id", "tx_state", "tx_version", "tx_prepared_at", "tx_committed_at")+
			", "+col("balance")+" = "+col("balance")+" + ?, "+col("tx_id")+" = ?, "+col("tx_version")+" = "+col("tx_version")+" + 1, "+col("tx_prepared_at")+" = ?, "+col("tx_committed_at")+" = ? WHERE "+col("account_id")+" = ?",
			amount, id, at, at, account); err != nil {
			return err
		}
	}
	return b.exec(ctx, tx, "INSERT INTO "+b.table("bank", "audit")+" ("+b.names("entry_id", "amount", "receipt", "tx_id", "tx_state", "tx_version", "tx_prepared_at", "tx_committed_at")+") VALUES (?, ?, ?, ?, 3, 1, ?, ?)",
		id, 1, []byte{0, 1, 0xff, byte(b.sequence)}, id, at, at)
}

// MustTransfer is a Transfer of now.
func (b *Bank) MustTransfer(t testing.TB) {
	t.Helper()
	if err := b.Transfer(t.Context(), 0); err != nil {
		t.Fatalf("writing a transaction: %v", err)
	}
}

// CreateTable makes one more table in a namespace of the bank, as the Schema Loader would.
func (b *Bank) CreateTable(ctx context.Context, name string) error {
	r := record("bank", name, column{"id", "INT", true}, column{"value", "INT", false})
	if err := b.createTable(ctx, r); err != nil {
		return err
	}
	return b.declare(ctx, r)
}

// AddColumn alters a table of the bank.
func (b *Bank) AddColumn(ctx context.Context) error {
	_, err := b.DB.ExecContext(ctx, "ALTER TABLE "+b.table("bank", "notes")+" ADD COLUMN "+b.Dialect.Column("extra")+" "+b.Int)
	return err
}

// Contents are all rows of the bank in a database, live or restored: sorted, as text.
func (b *Bank) Contents(ctx context.Context, db *sql.DB) ([]string, error) {
	var out []string
	for _, r := range append(schema(), metadata()) {
		var exprs []string
		for _, c := range r.columns {
			exprs = append(exprs, b.Dialect.TextCast(b.Dialect.Column(c.name)))
		}
		rows, err := db.QueryContext(ctx, "SELECT "+strings.Join(exprs, ", ")+" FROM "+b.table(r.namespace, r.name))
		if err != nil {
			return nil, err
		}
		for rows.Next() {
			values := make([]sql.NullString, len(r.columns))
			pointers := make([]any, len(values))
			for i := range values {
				pointers[i] = &values[i]
			}
			if err := rows.Scan(pointers...); err != nil {
				return nil, err
			}
			texts := make([]any, len(values))
			for i, v := range values {
				if v.Valid {
					texts[i] = v.String
				}
			}
			out = append(out, Line(r.namespace, r.name, texts...))
		}
		if err := rows.Err(); err != nil {
			return nil, err
		}
		_ = rows.Close()
	}
	slices.Sort(out)
	return out, nil
}

// Rows implements System.
func (b *Bank) Rows(ctx context.Context) ([]string, error) { return b.Contents(ctx, b.DB) }

// Through reads a copy of the bank by a connection that open makes for it, as Target.Rows.
func (b *Bank) Through(open func(t *testing.T) *sql.DB) func(t *testing.T) ([]string, error) {
	return func(t *testing.T) ([]string, error) {
		db := open(t)
		defer db.Close() //nolint:errcheck // read only
		return b.Contents(t.Context(), db)
	}
}

// Line is one row as System.Rows has it. A nil value is null.
func Line(namespace, table string, values ...any) string {
	line := namespace + "." + table
	for _, v := range values {
		if v == nil {
			line += "|null"
		} else {
			line += fmt.Sprintf("|%q", fmt.Sprint(v))
		}
	}
	return line
}

// sum is the sum of all balances among the rows of a bank; it is always Total.
func sum(rows []string) (sum int64, err error) {
	for _, row := range rows {
		if fields := strings.Split(row, "|"); fields[0] == "bank.accounts" {
			n, err := strconv.ParseInt(strings.Trim(fields[2], `"`), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("reading the balance in %s: %w", row, err)
			}
			sum += n
		}
	}
	return sum, nil
}

// Accounts is how many accounts a bank has, and Balance what each begins with; transfers keep the sum, which is Total.
const (
	Accounts = 20
	Balance  = 1000
	Total    = Accounts * Balance
)
