package verifytest

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"strings"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/relational"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
)

// Layout is where and how Write puts ScalarDB's tables.
type Layout struct {
	relational.Layout
	Decoupled bool // transaction metadata in a table of its own (3.17 and later)
	Groups    bool // tx_child_ids in the coordinator table
}

// Write makes ScalarDB's tables in an empty database, named as the dialect names them, and fills them with the copy. Schemas must be there: Namespaces.
func (s *Store) Write(ctx context.Context, db *sql.DB, d relational.Dialect, l Layout) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	exec := func(query string, args ...any) {
		if err == nil {
			if _, err = tx.ExecContext(ctx, query, args...); err != nil {
				err = fmt.Errorf("%s: %w", query, err)
			}
		}
	}
	marksFor := func(n int) string {
		marks := make([]string, n)
		for i := range marks {
			marks[i] = d.Placeholder(i + 1)
		}
		return strings.Join(marks, ", ")
	}
	table := func(name string) string { return d.Table(s.Namespace, name) }
	metadata := d.Table(l.Metadata(), "metadata")
	exec("CREATE TABLE " + metadata + " (full_table_name VARCHAR(128), column_name VARCHAR(128), data_type VARCHAR(20) NOT NULL, key_type VARCHAR(20), clustering_order VARCHAR(10), indexed BOOLEAN NOT NULL, " +
		"ordinal_position INTEGER NOT NULL, PRIMARY KEY (full_table_name, column_name))")
	describe := func(namespace, name string, columns ...string) {
		for i, c := range columns {
			var key any
			if i == 0 {
				key = "PARTITION"
			}
			exec("INSERT INTO "+metadata+" (full_table_name, column_name, data_type, key_type, indexed, ordinal_position) VALUES ("+marksFor(6)+")", namespace+"."+name, c, "BIGINT", key, false, i+1)
		}
	}
	own, marks := []string{"id", "balance"}, []string{"tx_id", "tx_state", "tx_version", "tx_prepared_at", "tx_committed_at", "before_tx_id", "before_tx_state", "before_tx_version",
		"before_tx_prepared_at", "before_tx_committed_at", "before_balance"}
	const ddl = "tx_id VARCHAR(128), tx_state INT, tx_version INT, tx_prepared_at BIGINT, tx_committed_at BIGINT, before_tx_id VARCHAR(128), before_tx_state INT, before_tx_version INT, " +
		"before_tx_prepared_at BIGINT, before_tx_committed_at BIGINT, before_balance BIGINT, PRIMARY KEY (id))"
	if l.Decoupled {
		exec("CREATE TABLE " + table("accounts_data") + " (id INT, balance BIGINT, PRIMARY KEY (id))")
		exec("CREATE TABLE " + table("accounts_tx_metadata") + " (id INT, " + ddl)
		exec("CREATE VIEW " + table("accounts") + " AS SELECT d.id, d.balance, m.tx_id, m.tx_state FROM " + table("accounts_data") + " d LEFT JOIN " + table("accounts_tx_metadata") + " m ON d.id = m.id")
		virtual := d.Table(l.Metadata(), "virtual_tables")
		exec("CREATE TABLE " + virtual + " (full_table_name VARCHAR(128), left_source_table_full_table_name VARCHAR(128), right_source_table_full_table_name VARCHAR(128), join_type VARCHAR(20), attributes TEXT, PRIMARY KEY (full_table_name))")
		exec("INSERT INTO "+virtual+" VALUES ("+marksFor(5)+")", s.Namespace+".accounts", s.Namespace+".accounts_data", s.Namespace+".accounts_tx_metadata", "LEFT_OUTER", nil)
		describe(s.Namespace, "accounts_data", own...)
		describe(s.Namespace, "accounts_tx_metadata", append([]string{"id"}, marks...)...)
	} else {
		exec("CREATE TABLE " + table("accounts") + " (id INT, balance BIGINT, " + ddl)
		describe(s.Namespace, "accounts", append(slices.Clone(own), marks...)...)
	}
	for _, k := range slices.Sorted(maps.Keys(s.Rows)) {
		r := s.Rows[k]
		values := []any{null(r.TxID), null(r.State), null(r.Version), null(r.PreparedAt), null(r.CommittedAt)}
		if b := r.Before; b != nil {
			values = append(values, null(b.TxID), null(b.State), b.Version, null(b.PreparedAt), null(b.CommittedAt), b.Balance)
		} else {
			values = append(values, nil, nil, nil, nil, nil, nil)
		}
		if l.Decoupled {
			exec("INSERT INTO "+table("accounts_data")+" VALUES ("+marksFor(2)+")", k, r.Balance)
			if r.TxID != "" { // an imported row has none
				exec("INSERT INTO "+table("accounts_tx_metadata")+" VALUES ("+marksFor(12)+")", append([]any{k}, values...)...)
			}
		} else {
			exec("INSERT INTO "+table("accounts")+" VALUES ("+marksFor(13)+")", append([]any{k, r.Balance}, values...)...)
		}
	}
	if s.Entries != nil {
		coordinator := d.Table(l.Coordinator(), "state")
		columns := []string{"tx_id", "tx_state", "tx_created_at"}
		children := ""
		if l.Groups {
			columns, children = append(columns, "tx_child_ids"), ", tx_child_ids TEXT"
		}
		exec("CREATE TABLE " + coordinator + " (tx_id VARCHAR(128), tx_state INT, tx_created_at BIGINT" + children + ", PRIMARY KEY (tx_id))")
		describe(l.Coordinator(), "state", columns...)
		for _, id := range slices.Sorted(maps.Keys(s.Entries)) {
			e := s.Entries[id]
			values := []any{id, e.State, e.CreatedAt}
			if l.Groups {
				values = append(values, null(e.ChildIDs))
			}
			exec("INSERT INTO "+coordinator+" VALUES ("+marksFor(len(values))+")", values...)
		}
	}
	if err != nil {
		return err
	}
	return tx.Commit()
}

// Namespaces are the schemas that Write needs.
func (s *Store) Namespaces(l Layout) []string {
	return []string{s.Namespace, l.Coordinator(), l.Metadata()}
}

func null[T comparable](v T) any {
	var zero T
	if v == zero {
		return nil
	}
	return v
}

// Dialect names tables as ScalarDB does in SQLite. It is the least that a test needs; the product's is the storage's own.
type Dialect struct{}

// Table is `"bank$accounts"`.
func (Dialect) Table(namespace, name string) string { return `"` + namespace + "$" + name + `"` }

// Column quotes a column.
func (Dialect) Column(name string) string { return `"` + name + `"` }

// Placeholder is "?".
func (Dialect) Placeholder(int) string { return "?" }

// TextCast casts.
func (Dialect) TextCast(expr string) string { return "CAST(" + expr + " AS TEXT)" }

// Relations implements relational.Dialect. SQLite has no identity of tables but where they are rooted.
func (Dialect) Relations(ctx context.Context, q relational.Querier, namespaces []string) ([]relational.Relation, error) {
	rows, err := q.QueryContext(ctx, "SELECT s.name, s.type = 'view', s.rootpage, p.name, p.type FROM sqlite_schema s, pragma_table_info(s.name) p WHERE s.type IN ('table', 'view') ORDER BY s.name, p.cid")
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var out []relational.Relation
	for rows.Next() {
		var full, id, column, kind string
		var view bool
		if err := rows.Scan(&full, &view, &id, &column, &kind); err != nil {
			return nil, err
		}
		namespace, name, ok := strings.Cut(full, "$")
		if !ok || namespaces != nil && !slices.Contains(namespaces, namespace) {
			continue
		}
		if n := len(out); n == 0 || out[n-1].Namespace != namespace || out[n-1].Name != name {
			out = append(out, relational.Relation{Namespace: namespace, Name: name, View: view, ID: id})
		}
		last := &out[len(out)-1]
		last.Columns, last.Types = append(last.Columns, column), append(last.Types, kind)
	}
	return out, rows.Err()
}

// Entry makes a coordinator entry.
func Entry(txID string, state int, createdAt int64) verify.StoredEntry {
	return verify.StoredEntry{TxID: txID, Entry: verify.Entry{State: state, CreatedAt: createdAt}}
}
