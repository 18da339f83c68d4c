package postgresql

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/relational"
)

// Dialect is how ScalarDB names and quotes its tables in PostgreSQL: a namespace is a schema.
type Dialect struct{}

var _ relational.Dialect = Dialect{}

// Table is `"bank"."accounts"`.
func (Dialect) Table(namespace, name string) string { return quote(namespace) + "." + quote(name) }

// Column quotes a column.
func (Dialect) Column(name string) string { return quote(name) }

// Placeholder is "$1".
func (Dialect) Placeholder(n int) string { return "$" + strconv.Itoa(n) }

// TextCast shows a bytea in hex, as the server does.
func (Dialect) TextCast(expr string) string { return "(" + expr + ")::text" }

// separator of column names in one string; no identifier can hold it.
const separator = "\x01"

// Relations lists tables and views with their columns. The ID is the OID and the file: TRUNCATE and a rewrite change the file.
func (Dialect) Relations(ctx context.Context, q relational.Querier, namespaces []string) (found []relational.Relation, err error) {
	query := `SELECT n.nspname, c.relname, c.relkind IN ('v', 'm'), c.oid::text || '/' || c.relfilenode::text,
		COALESCE((SELECT string_agg(a.attname, chr(1) ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), ''),
		COALESCE((SELECT string_agg(format_type(a.atttypid, a.atttypmod), chr(1) ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '')
	FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
	WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')`
	var args []any
	if namespaces != nil {
		query += ` AND n.nspname = ANY($1)`
		args = append(args, namespaces)
	} else {
		query += ` AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'`
	}
	rows, err := q.QueryContext(ctx, query+` ORDER BY 1, 2`, args...)
	if err != nil {
		return nil, fmt.Errorf("listing the tables: %w", err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err says it
	for rows.Next() {
		var r relational.Relation
		var columns, types string
		if err := rows.Scan(&r.Namespace, &r.Name, &r.View, &r.ID, &columns, &types); err != nil {
			return nil, fmt.Errorf("listing the tables: %w", err)
		}
		if columns != "" {
			r.Columns, r.Types = strings.Split(columns, separator), strings.Split(types, separator)
		}
		found = append(found, r)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("listing the tables: %w", err)
	}
	return found, nil
}
