package relational

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"slices"
	"strconv"
	"strings"
)

// Names of ScalarDB's own tables and columns (the JDBC storage's).
const (
	metadataTable      = "metadata"
	namespacesTable    = "namespaces"
	virtualTablesTable = "virtual_tables" // 3.17 and later, with decoupled transaction metadata
	coordinatorTable   = "state"

	colTxID        = "tx_id"
	colState       = "tx_state"
	colVersion     = "tx_version"
	colPreparedAt  = "tx_prepared_at"
	colCommittedAt = "tx_committed_at"
	colCreatedAt   = "tx_created_at"
	colChildIDs    = "tx_child_ids"
)

var (
	metadataColumns    = []string{"full_table_name", "column_name", "data_type", "key_type", "ordinal_position"}
	virtualColumns     = []string{"full_table_name", "left_source_table_full_table_name", "right_source_table_full_table_name"}
	transactionColumns = []string{colTxID, colState, colVersion, colPreparedAt, colCommittedAt}
	coordinatorColumns = []string{colTxID, colState, colCreatedAt}
)

// metadataRow is one row of ScalarDB's metadata table: one column of one table.
type metadataRow struct {
	table, column, dataType, keyType string
	ordinal                          int64
}

// virtualRow is one row of ScalarDB's virtual_tables.
type virtualRow struct{ table, left, right string }

// name is a table's name, taken apart.
type name struct{ namespace, table string }

func (n name) String() string { return n.namespace + "." + n.table }

// parseFullName takes ScalarDB's "namespace.table" apart. A namespace holds no dot; a table's name may.
func parseFullName(s string) (name, error) {
	namespace, table, ok := strings.Cut(s, ".")
	if !ok || namespace == "" || table == "" {
		return name{}, fmt.Errorf("parsing the table name %q of ScalarDB's metadata: it is not of the form namespace.table", s)
	}
	return name{namespace, table}, nil
}

// ReadInventory reads what ScalarDB's metadata says of this database, and compares it with what is there.
func ReadInventory(ctx context.Context, q Querier, d Dialect, l Layout) (Inventory, error) {
	var inv Inventory
	system, err := d.Relations(ctx, q, []string{l.Metadata()})
	if err != nil {
		return inv, fmt.Errorf("listing the tables of namespace %q: %w", l.Metadata(), err)
	}
	metadata := find(system, name{l.Metadata(), metadataTable})
	if metadata == nil || !metadata.Has(metadataColumns...) {
		return inv, fmt.Errorf("reading ScalarDB's metadata: namespace %q has no metadata table of ScalarDB; create ScalarDB's tables first (Schema Loader), check that this is the right database, "+
			"or set metadata_namespace where ScalarDB runs with another scalar.db.system_namespace_name", l.Metadata())
	}
	rows, err := readMetadata(ctx, q, d, *metadata)
	if err != nil {
		return inv, err
	}
	var virtual []virtualRow
	if v := find(system, name{l.Metadata(), virtualTablesTable}); v != nil && v.Has(virtualColumns...) {
		if virtual, err = readVirtual(ctx, q, d, *v); err != nil {
			return inv, err
		}
	}
	declared, err := declare(rows, virtual, name{l.Coordinator(), coordinatorTable})
	if err != nil {
		return inv, err
	}

	namespaces := map[string]bool{l.Metadata(): true, l.Coordinator(): true}
	for _, t := range declared {
		for _, n := range []name{t.name, t.data, t.meta} {
			namespaces[n.namespace] = true
		}
	}
	// Namespaces without tables belong to ScalarDB too; they are listed from 3.9 on.
	if n := find(system, name{l.Metadata(), namespacesTable}); n != nil && n.Has("namespace_name") {
		listed, err := readStrings(ctx, q, "SELECT "+d.Column("namespace_name")+" FROM "+d.Table(n.Namespace, n.Name))
		if err != nil {
			return inv, fmt.Errorf("reading ScalarDB's namespaces: %w", err)
		}
		for _, s := range listed {
			namespaces[s] = true
		}
	}
	all := sortedKeys(namespaces)
	if inv.Relations, err = d.Relations(ctx, q, all); err != nil {
		return inv, fmt.Errorf("listing the tables of ScalarDB's namespaces: %w", err)
	}
	slices.SortFunc(inv.Relations, compareRelations)
	inv.resolve(declared, l)
	// A coordinator namespace that is not in this database is not to be backed up from it.
	for _, n := range all {
		if n != l.Coordinator() || slices.ContainsFunc(inv.Relations, func(r Relation) bool { return r.Namespace == n }) {
			inv.Namespaces = append(inv.Namespaces, n)
		}
	}
	return inv, nil
}

// declared is one table as the metadata has it: data and meta are where its rows and their transaction columns are.
type declared struct {
	name, data, meta name
	key              []string
	transactional    bool
	coordinator      bool
}

// declare turns the rows of the metadata into tables, sorted by name. The two halves of a decoupled table are not tables of their own.
func declare(rows []metadataRow, virtual []virtualRow, coordinator name) ([]declared, error) {
	type columns struct {
		key, all []string
	}
	slices.SortStableFunc(rows, func(a, b metadataRow) int {
		if c := strings.Compare(a.table, b.table); c != 0 {
			return c
		}
		return cmp.Compare(a.ordinal, b.ordinal)
	})
	byTable := map[name]*columns{}
	for _, r := range rows {
		n, err := parseFullName(r.table)
		if err != nil {
			return nil, err
		}
		c := byTable[n]
		if c == nil {
			c = &columns{}
			byTable[n] = c
		}
		c.all = append(c.all, r.column)
		switch r.keyType {
		case "":
		case "PARTITION", "CLUSTERING":
			c.key = append(c.key, r.column)
		default:
			return nil, fmt.Errorf("reading the metadata of table %s: column %s has key type %q, which this version does not know", r.table, r.column, r.keyType)
		}
	}
	var out []declared
	halves := map[name]bool{}
	for _, v := range virtual {
		t, err := parseFullName(v.table)
		if err != nil {
			return nil, err
		}
		left, err := parseFullName(v.left)
		if err != nil {
			return nil, err
		}
		right, err := parseFullName(v.right)
		if err != nil {
			return nil, err
		}
		halves[left], halves[right] = true, true
		out = append(out, declared{name: t, data: left, meta: right, transactional: true})
		if c := byTable[left]; c != nil {
			out[len(out)-1].key = c.key
		}
		delete(byTable, t) // should a version list the view's columns too
	}
	for n, c := range byTable {
		if halves[n] {
			continue
		}
		has := Relation{Columns: c.all}
		out = append(out, declared{name: n, data: n, meta: n, key: c.key, transactional: has.Has(transactionColumns...), coordinator: n == coordinator})
	}
	slices.SortFunc(out, func(a, b declared) int { return strings.Compare(a.name.String(), b.name.String()) })
	return out, nil
}

// resolve compares the declared tables with the relations that are there.
func (inv *Inventory) resolve(tables []declared, l Layout) {
	for _, r := range inv.Relations {
		if r.Namespace == l.Metadata() {
			inv.Metadata = append(inv.Metadata, r)
		}
	}
	// The coordinator table is found by its place alone: its metadata may lie in another database's metadata table.
	if c := find(inv.Relations, name{l.Coordinator(), coordinatorTable}); c != nil && c.Has(coordinatorColumns...) {
		inv.Coordinator = c
	}
	for _, t := range tables {
		table := Table{Namespace: t.name.namespace, Name: t.name.table, Transactional: t.transactional, Key: t.key}
		if t.coordinator {
			if inv.Coordinator == nil {
				inv.Missing = append(inv.Missing, table)
			}
			continue
		}
		visible, data, meta := find(inv.Relations, t.name), find(inv.Relations, t.data), find(inv.Relations, t.meta)
		if visible == nil || data == nil || meta == nil || !data.Has(t.key...) {
			inv.Missing = append(inv.Missing, table)
			continue
		}
		if t.data != t.meta && !meta.Has(transactionColumns...) && data.Has(transactionColumns...) {
			data, meta = meta, data // the order of a view's two halves is no promise
		}
		if t.transactional && (!meta.Has(transactionColumns...) || !meta.Has(t.key...)) {
			inv.Missing = append(inv.Missing, table)
			continue
		}
		table.Data, table.TxMetadata = *data, *meta
		inv.Tables = append(inv.Tables, table)
	}
}

func readMetadata(ctx context.Context, q Querier, d Dialect, r Relation) (out []metadataRow, err error) {
	cols := make([]string, len(metadataColumns))
	for i, c := range metadataColumns {
		cols[i] = d.Column(c)
	}
	rows, err := q.QueryContext(ctx, "SELECT "+strings.Join(cols, ", ")+" FROM "+d.Table(r.Namespace, r.Name)+" ORDER BY "+cols[0]+", "+cols[4]+", "+cols[1])
	if err != nil {
		return nil, fmt.Errorf("reading ScalarDB's metadata: %w", err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var m metadataRow
		var dataType, keyType *string
		if err := rows.Scan(&m.table, &m.column, &dataType, &keyType, &m.ordinal); err != nil {
			return nil, fmt.Errorf("reading ScalarDB's metadata: %w", err)
		}
		m.dataType, m.keyType = deref(dataType), deref(keyType)
		out = append(out, m)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading ScalarDB's metadata: %w", err)
	}
	return out, nil
}

func readVirtual(ctx context.Context, q Querier, d Dialect, r Relation) (out []virtualRow, err error) {
	cols := make([]string, len(virtualColumns))
	for i, c := range virtualColumns {
		cols[i] = d.Column(c)
	}
	rows, err := q.QueryContext(ctx, "SELECT "+strings.Join(cols, ", ")+" FROM "+d.Table(r.Namespace, r.Name)+" ORDER BY "+cols[0])
	if err != nil {
		return nil, fmt.Errorf("reading ScalarDB's virtual tables: %w", err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var v virtualRow
		if err := rows.Scan(&v.table, &v.left, &v.right); err != nil {
			return nil, fmt.Errorf("reading ScalarDB's virtual tables: %w", err)
		}
		out = append(out, v)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading ScalarDB's virtual tables: %w", err)
	}
	return out, nil
}

func readStrings(ctx context.Context, q Querier, query string) (out []string, err error) {
	rows, err := q.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, rows.Err()
}

// Fingerprint is a hash of the schema of the given namespaces (nil: every one): tables and views with their identities, columns and types,
// and what ScalarDB's metadata says of them. Two fingerprints of one database are equal if and only if none of that changed, so that a CREATE,
// DROP, ALTER, TRUNCATE (where it changes the identity) or re-creation between them shows. It costs one catalog query and up to two small reads.
func Fingerprint(ctx context.Context, q Querier, d Dialect, namespaces []string) (string, error) {
	relations, err := d.Relations(ctx, q, namespaces)
	if err != nil {
		return "", fmt.Errorf("reading the schema for its fingerprint: %w", err)
	}
	relations = slices.Clone(relations)
	slices.SortFunc(relations, compareRelations)
	h := sha256.New()
	for _, r := range relations {
		write(h, "relation", r.Namespace, r.Name, strconv.FormatBool(r.View), r.ID)
		write(h, append([]string{"columns"}, r.Columns...)...)
		write(h, append([]string{"types"}, r.Types...)...)
		switch {
		case r.Name == metadataTable && r.Has(metadataColumns...):
			rows, err := readMetadata(ctx, q, d, r)
			if err != nil {
				return "", err
			}
			for _, m := range rows {
				write(h, "metadata", m.table, m.column, m.dataType, m.keyType, strconv.FormatInt(m.ordinal, 10))
			}
		case r.Name == virtualTablesTable && r.Has(virtualColumns...):
			rows, err := readVirtual(ctx, q, d, r)
			if err != nil {
				return "", err
			}
			for _, v := range rows {
				write(h, "virtual", v.table, v.left, v.right)
			}
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// write hashes strings so that no two lists of them read alike.
func write(h hash.Hash, parts ...string) {
	fmt.Fprintf(h, "%d;", len(parts))
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
}

func find(relations []Relation, n name) *Relation {
	for i := range relations {
		if relations[i].Namespace == n.namespace && relations[i].Name == n.table {
			return &relations[i]
		}
	}
	return nil
}

func compareRelations(a, b Relation) int {
	if c := strings.Compare(a.Namespace, b.Namespace); c != 0 {
		return c
	}
	return strings.Compare(a.Name, b.Name)
}

func sortedKeys(m map[string]bool) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
