package reading

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	gocql "github.com/apache/cassandra-gocql-driver/v2"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/ddl"
)

// ScalarDB's names.
const (
	coordinatorTable = "state"
	namespacesTable  = "namespaces"

	colTxID        = "tx_id"
	colState       = "tx_state"
	colVersion     = "tx_version"
	colPreparedAt  = "tx_prepared_at"
	colCommittedAt = "tx_committed_at"
	colCreatedAt   = "tx_created_at"
	colChildIDs    = "tx_child_ids"
)

// schema is what ScalarDB has in the cluster.
type schema struct {
	tables      []*table // without the coordinator's, sorted
	coordinator *table   // nil: not in this cluster
	missing     []string // namespaces whose keyspace is not there; original names, sorted
}

// table is one table of the cluster.
type table struct {
	namespace string // original
	keyspace  string // in this cluster
	name      string
	key       []string          // partition key, then clustering columns
	partition int               // how many of key are the partition key
	regular   map[string]string // types of the regular columns
	static    bool              // has static columns, which ScalarDB's tables don't
}

// String is for messages: its name in this cluster.
func (t *table) String() string { return t.keyspace + "." + t.name }

func (t *table) cql() string { return ddl.Quote(t.keyspace) + "." + ddl.Quote(t.name) }

func (t *table) transactional() bool {
	return t.regular[colTxID] == "text" && t.regular[colState] == "int" && t.regular[colVersion] == "int" &&
		t.regular[colPreparedAt] == "bigint" && t.regular[colCommittedAt] == "bigint"
}

func (t *table) isCoordinator() bool {
	return slices.Equal(t.key, []string{colTxID}) && t.regular[colState] == "int" && t.regular[colCreatedAt] == "bigint"
}

// lonely is a clustering column that is null in what a query returns of a partition that has nothing but static columns: that is no
// row. Empty where there can be none.
func (t *table) lonely() string {
	if t.static && t.partition < len(t.key) {
		return t.key[t.partition]
	}
	return ""
}

// system says that a keyspace is Cassandra's own.
func system(keyspace string) bool {
	return keyspace == "system" || strings.HasPrefix(keyspace, "system_")
}

// load reads the schema once.
func (r *Reader) load(ctx context.Context) (*schema, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.schema != nil {
		return r.schema, nil
	}
	keyspaces, err := r.readTables(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the schema: %w", err)
	}
	names, err := r.namespaces(ctx, keyspaces)
	if err != nil {
		return nil, err
	}
	sc := &schema{}
	coordinator, metadata := r.s.Layout.Coordinator(), r.s.Layout.Metadata()
	for _, name := range slices.Sorted(maps.Keys(names)) {
		tables, there := keyspaces[r.s.present(name)]
		if !there {
			if names[name] {
				sc.missing = append(sc.missing, name)
			}
			continue
		}
		for _, n := range slices.Sorted(maps.Keys(tables)) {
			t := tables[n]
			t.namespace = name
			switch {
			case name == coordinator && n == coordinatorTable && t.isCoordinator():
				sc.coordinator = t
			case name == metadata && n == namespacesTable:
			default:
				sc.tables = append(sc.tables, t)
			}
		}
	}
	r.schema = sc
	return sc, nil
}

// namespaces are ScalarDB's, by their original names; false: one that may as well not be there.
func (r *Reader) namespaces(ctx context.Context, keyspaces map[string]map[string]*table) (map[string]bool, error) {
	coordinator, metadata := r.s.Layout.Coordinator(), r.s.Layout.Metadata()
	names := map[string]bool{coordinator: false, metadata: false}
	if len(r.s.Keyspaces) > 0 {
		for _, k := range r.s.Keyspaces {
			names[k] = true
		}
		return names, nil
	}
	// A clone's list may have the names of its source still, or its own.
	renamed := map[string]bool{}
	for _, present := range r.s.Rename {
		renamed[present] = true
	}
	if list := keyspaces[r.s.present(metadata)][namespacesTable]; list != nil && slices.Equal(list.key, []string{"name"}) {
		err := r.small(ctx, Query{Statement: "SELECT name FROM " + list.cql(), Consistency: r.s.Consistency}, func(scan func(...any) error) error {
			var name string
			if err := scan(&name); err != nil {
				return err
			}
			if renamed[name] {
				name = r.s.original(name)
			}
			names[name] = true
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("reading ScalarDB's list of namespaces, table %s: %w", list, err)
		}
		return names, nil
	}
	// The keyspace that a clone's was made from may be here too: it goes by the same name as the clone's, which is read.
	for k, tables := range keyspaces {
		if system(k) {
			continue
		}
		for _, t := range tables {
			if t.transactional() {
				names[r.s.original(k)] = true
				break
			}
		}
	}
	return names, nil
}

// readTables reads all keyspaces and their tables. Materialized views, virtual tables and what indexes are made of are none.
func (r *Reader) readTables(ctx context.Context) (map[string]map[string]*table, error) {
	out := map[string]map[string]*table{}
	err := r.small(ctx, Query{Statement: "SELECT keyspace_name FROM system_schema.keyspaces"}, func(scan func(...any) error) error {
		var k string
		err := scan(&k)
		out[k] = map[string]*table{}
		return err
	})
	if err != nil {
		return nil, err
	}
	err = r.small(ctx, Query{Statement: "SELECT keyspace_name, table_name FROM system_schema.tables"}, func(scan func(...any) error) error {
		var k, n string
		if err := scan(&k, &n); err != nil {
			return err
		}
		if out[k] != nil {
			out[k][n] = &table{keyspace: k, name: n, regular: map[string]string{}}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	type column struct {
		name     string
		position int
	}
	partition, clustering := map[*table][]column{}, map[*table][]column{}
	columns := Query{Statement: "SELECT keyspace_name, table_name, column_name, kind, position, type FROM system_schema.columns"}
	err = r.small(ctx, columns, func(scan func(...any) error) error {
		var k, n, name, kind, typ string
		var position int
		if err := scan(&k, &n, &name, &kind, &position, &typ); err != nil {
			return err
		}
		t := out[k][n]
		if t == nil {
			return nil
		}
		switch kind {
		case "partition_key":
			partition[t] = append(partition[t], column{name, position})
		case "clustering":
			clustering[t] = append(clustering[t], column{name, position})
		case "static":
			t.static = true
		default:
			t.regular[name] = typ
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, tables := range out {
		for _, t := range tables {
			t.partition = len(partition[t])
			for _, part := range [][]column{partition[t], clustering[t]} {
				slices.SortFunc(part, func(a, b column) int { return a.position - b.position })
				for _, c := range part {
					t.key = append(t.key, c.name)
				}
			}
		}
	}
	return out, nil
}

// small reads all pages of a short answer.
func (r *Reader) small(ctx context.Context, q Query, row func(scan func(...any) error) error) error {
	if q.Consistency == 0 {
		q.Consistency = gocql.One // of the node's own tables
	}
	q.PageSize = r.s.PageSize
	for {
		next, err := r.page(ctx, nil, q, nil, row)
		if err != nil || next == nil {
			return err
		}
		q.State = next
	}
}

// once is small without another try.
func (r *Reader) once(ctx context.Context, q Query, row func(scan func(...any) error) error) error {
	q.Consistency, q.PageSize = gocql.One, r.s.PageSize
	for {
		next, err := r.conn.Page(ctx, q, row)
		if err != nil || next == nil {
			return err
		}
		q.State = next
	}
}
