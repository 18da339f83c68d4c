// Package relational reads ScalarDB's tables in a relational database: which there are, what their transaction columns say, and what
// the write witness needs. It is shared by the storages postgresql, mysql and sqlite, which give it a Dialect.
package relational

import (
	"cmp"
	"context"
	"database/sql"
	"slices"
)

// Dialect is how one database names and quotes ScalarDB's tables.
type Dialect interface {
	// Table is the quoted name of a table: `"bank"."accounts"` (PostgreSQL), "`bank`.`accounts`" (MySQL), `"bank$accounts"` (SQLite).
	Table(namespace, name string) string
	// Column quotes a column.
	Column(name string) string
	// Placeholder is the n-th (from 1) parameter of a statement: "$1" or "?".
	Placeholder(n int) string
	// TextCast is an SQL expression that turns a (quoted) column into readable text.
	TextCast(expr string) string
	// Relations lists all tables and views of the given namespaces with their columns; nil means every namespace.
	Relations(ctx context.Context, q Querier, namespaces []string) ([]Relation, error)
}

// Querier is *sql.DB, *sql.Conn or *sql.Tx. Everything that this package asks is a SELECT, so it also runs in a read-only snapshot.
type Querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Relation is one table or view as the database has it.
type Relation struct {
	Namespace, Name string
	View            bool
	Columns         []string
	// Types are the columns' types as the database words them, in the order of Columns; nil where Relations does not know them.
	Types []string
	// ID is an identity that a drop and re-creation changes (an OID, a table id); empty where the database has none.
	ID string
}

// Has says whether the relation has all of the given columns.
func (r Relation) Has(columns ...string) bool {
	for _, c := range columns {
		if !slices.Contains(r.Columns, c) {
			return false
		}
	}
	return true
}

// Layout says where ScalarDB's own tables are; the zero value means the defaults.
type Layout struct {
	CoordinatorNamespace string // default "coordinator"
	MetadataNamespace    string // default "scalardb"
}

// Coordinator is the coordinator table's namespace.
func (l Layout) Coordinator() string { return cmp.Or(l.CoordinatorNamespace, "coordinator") }

// Metadata is the namespace of ScalarDB's own tables.
func (l Layout) Metadata() string { return cmp.Or(l.MetadataNamespace, "scalardb") }

// Inventory is what ScalarDB's metadata and the database say together.
type Inventory struct {
	Tables      []Table
	Missing     []Table    // in the metadata, not in the database (or there without the columns that the metadata names)
	Coordinator *Relation  // nil: not in this database
	Metadata    []Relation // the metadata namespace's relations (metadata, namespaces, virtual_tables, users, ...)
	Namespaces  []string   // every namespace that a backup must hold: those of the tables, the coordinator's, the metadata's; sorted
	Relations   []Relation // every relation in Namespaces: what a dump holds
}

// Table is one table of ScalarDB.
type Table struct {
	Namespace, Name string
	Transactional   bool
	Key             []string // primary key columns
	// Data is where the rows are; TxMetadata where the transaction columns are: the same relation, unless decoupled
	// (t or t_data beside t_tx_metadata).
	Data, TxMetadata Relation
}
