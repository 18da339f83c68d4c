package mysql

import (
	"context"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/relational"
)

// Dialect is how ScalarDB names and quotes its tables in MySQL and MariaDB: a namespace is a database.
type Dialect struct {
	// ids is the table of information_schema that has InnoDB's table ids, which needs the privilege PROCESS; empty: relations get no ID.
	ids string
}

var _ relational.Dialect = Dialect{}

func quote(identifier string) string { return "`" + strings.ReplaceAll(identifier, "`", "``") + "`" }

// Table is "`bank`.`accounts`".
func (Dialect) Table(namespace, name string) string { return quote(namespace) + "." + quote(name) }

// Column quotes a column.
func (Dialect) Column(name string) string { return quote(name) }

// Placeholder is "?".
func (Dialect) Placeholder(int) string { return "?" }

// TextCast shows bytes that are no text in hex.
func (Dialect) TextCast(expr string) string {
	text := "CONVERT(" + expr + " USING utf8mb4)"
	return "IF(CAST(" + text + " AS BINARY) = CAST(" + expr + " AS BINARY), " + text + ", HEX(" + expr + "))"
}

// idTable is where a server has InnoDB's table ids.
func idTable(p product) string {
	if p.flavour == mySQL && p.version[0] >= 8 {
		return "information_schema.INNODB_TABLES"
	}
	return "information_schema.INNODB_SYS_TABLES"
}

// Relations lists the tables and views of the given namespaces. A table's ID is InnoDB's id of it (of its partitions), which a TRUNCATE, a
// re-creation and a rebuild change, and its CREATE_TIME, which in MariaDB every ALTER changes; a view's is its definition.
// One query per namespace: for a single one the servers do not look into the others.
func (d Dialect) Relations(ctx context.Context, q relational.Querier, namespaces []string) ([]relational.Relation, error) {
	if namespaces == nil {
		var err error
		if namespaces, err = readStrings(ctx, q, "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')"); err != nil {
			return nil, fmt.Errorf("listing the databases: %w", err)
		}
	}
	var ids map[string]string
	if d.ids != "" {
		var err error
		if ids, err = d.tableIDs(ctx, q, namespaces); err != nil {
			return nil, fmt.Errorf("reading InnoDB's table ids: %w", err)
		}
	}
	var out []relational.Relation
	for _, ns := range namespaces {
		found, err := relations(ctx, q, ns, d.ids != "")
		if err != nil {
			return nil, fmt.Errorf("listing the tables of %s: %w", ns, err)
		}
		for i := range found {
			if r := &found[i]; !r.View && d.ids != "" {
				r.ID = ids[fileName(ns)+"/"+fileName(r.Name)] + " " + r.ID
			}
		}
		out = append(out, found...)
	}
	return out, nil
}

func relations(ctx context.Context, q relational.Querier, ns string, identities bool) (found []relational.Relation, err error) {
	// Not one query with a join: MariaDB answers that a hundred times slower.
	definitions := map[string]string{}
	if identities {
		if err := readPairs(ctx, q, "SELECT TABLE_NAME, COALESCE(SHA1(VIEW_DEFINITION), '') FROM information_schema.VIEWS WHERE TABLE_SCHEMA = ?", definitions, ns); err != nil {
			return nil, err
		}
	}
	rows, err := q.QueryContext(ctx, "SELECT TABLE_NAME, TABLE_TYPE LIKE '%VIEW', COALESCE(CAST(CREATE_TIME AS CHAR), '') FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? ORDER BY TABLE_NAME", ns)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err says it
	for rows.Next() {
		r := relational.Relation{Namespace: ns}
		if err := rows.Scan(&r.Name, &r.View, &r.ID); err != nil {
			return nil, err
		}
		if r.View {
			r.ID = definitions[r.Name]
		}
		if !identities {
			r.ID = ""
		}
		found = append(found, r)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	return found, readColumns(ctx, q, ns, found)
}

func readColumns(ctx context.Context, q relational.Querier, ns string, found []relational.Relation) error {
	rows, err := q.QueryContext(ctx, "SELECT TABLE_NAME, COLUMN_NAME, CONCAT(COLUMN_TYPE, ' ', IS_NULLABLE, ' ', COALESCE(COLLATION_NAME, '')) "+
		"FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = ? ORDER BY TABLE_NAME, ORDINAL_POSITION", ns)
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // rows.Err says it
	byName := make(map[string]*relational.Relation, len(found))
	for i := range found {
		byName[found[i].Name] = &found[i]
	}
	for rows.Next() {
		var table, column, kind string
		if err := rows.Scan(&table, &column, &kind); err != nil {
			return err
		}
		if r := byName[table]; r != nil {
			r.Columns, r.Types = append(r.Columns, column), append(r.Types, kind)
		}
	}
	return rows.Err()
}

// tableIDs has InnoDB's ids by "database/table", as its files are named and in lower case; those of a table's partitions together.
func (d Dialect) tableIDs(ctx context.Context, q relational.Querier, namespaces []string) (map[string]string, error) {
	wanted := map[string]bool{}
	for _, ns := range namespaces {
		wanted[fileName(ns)] = true
	}
	rows, err := q.QueryContext(ctx, "SELECT TABLE_ID, NAME FROM "+d.ids+" ORDER BY TABLE_ID")
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err says it
	out := map[string]string{}
	for rows.Next() {
		var id, file string
		if err := rows.Scan(&id, &file); err != nil {
			return nil, err
		}
		file, _, _ = strings.Cut(strings.ToLower(file), "#p#")
		if ns, _, _ := strings.Cut(file, "/"); wanted[ns] {
			out[file] += id + ","
		}
	}
	return out, rows.Err()
}

// fileName is how the servers write a name in file names, in lower case: what is not a letter, a digit or "_" is "@" and its code in hex. Some letters beyond
// ASCII have shorter codes; a table with one in its name is not found, and is known by its CREATE_TIME alone.
func fileName(name string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(name) {
		if r == '_' || 'a' <= r && r <= 'z' || '0' <= r && r <= '9' {
			b.WriteRune(r)
		} else if r != utf8.RuneError {
			fmt.Fprintf(&b, "@%04x", r)
		}
	}
	return b.String()
}

func readStrings(ctx context.Context, q relational.Querier, query string, args ...any) (out []string, err error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err says it
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, rows.Err()
}
