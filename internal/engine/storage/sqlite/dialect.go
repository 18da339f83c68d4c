package sqlite

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/relational"
)

// separator stands between namespace and table: SQLite has no schemas, so ScalarDB names a table "bank$accounts".
// ScalarDB allows it in neither of the two names.
const separator = "$"

// Dialect is how ScalarDB names and quotes its tables in SQLite.
type Dialect struct{}

var _ relational.Dialect = Dialect{}

func quote(identifier string) string {
	return `"` + strings.ReplaceAll(identifier, `"`, `""`) + `"`
}

// Table is `"bank$accounts"`.
func (Dialect) Table(namespace, name string) string { return quote(namespace + separator + name) }

// Column quotes a column.
func (Dialect) Column(name string) string { return quote(name) }

// Placeholder is "?".
func (Dialect) Placeholder(int) string { return "?" }

// TextCast shows a BLOB in hex: cast to text it would end at its first zero byte.
func (Dialect) TextCast(expr string) string {
	return "CASE typeof(" + expr + ") WHEN 'blob' THEN hex(" + expr + ") ELSE CAST(" + expr + " AS TEXT) END"
}

// Relations lists the tables and views whose names have a namespace. A relation's ID is its definition: SQLite has no other identity
// that a VACUUM leaves as it is.
func (Dialect) Relations(ctx context.Context, q relational.Querier, namespaces []string) ([]relational.Relation, error) {
	found, err := list(ctx, q, namespaces)
	if err != nil {
		return nil, fmt.Errorf("listing the tables: %w", err)
	}
	for i := range found {
		r := &found[i]
		// One query each: a single view that is broken must not hide all tables.
		if err := readColumns(ctx, q, r); err != nil && (!r.View || ctx.Err() != nil) {
			return nil, fmt.Errorf("listing the columns of %s.%s: %w", r.Namespace, r.Name, err)
		}
	}
	return found, nil
}

func list(ctx context.Context, q relational.Querier, namespaces []string) (found []relational.Relation, err error) {
	rows, err := q.QueryContext(ctx, `SELECT name, type = 'view', sql FROM sqlite_schema WHERE type IN ('table', 'view') ORDER BY name`)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err says it
	for rows.Next() {
		var full string
		var r relational.Relation
		if err := rows.Scan(&full, &r.View, &r.ID); err != nil {
			return nil, err
		}
		var ok bool
		if r.Namespace, r.Name, ok = strings.Cut(full, separator); ok && (namespaces == nil || slices.Contains(namespaces, r.Namespace)) {
			found = append(found, r)
		}
	}
	return found, rows.Err()
}

func readColumns(ctx context.Context, q relational.Querier, r *relational.Relation) error {
	rows, err := q.QueryContext(ctx, `SELECT name, type FROM pragma_table_info(?) ORDER BY cid`, r.Namespace+separator+r.Name)
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // rows.Err says it
	for rows.Next() {
		var column, kind string
		if err := rows.Scan(&column, &kind); err != nil {
			return err
		}
		r.Columns, r.Types = append(r.Columns, column), append(r.Types, kind)
	}
	return rows.Err()
}
