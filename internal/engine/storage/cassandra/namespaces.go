package cassandra

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/ddl"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/reading"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/snapshot"
)

const (
	coordinatorTable = "state"
	namespacesTable  = "namespaces"
)

// transactionColumns are those that ScalarDB gives each transactional table; before_* columns follow from the table's own.
var transactionColumns = []string{"tx_id", "tx_state", "tx_version", "tx_prepared_at", "tx_committed_at"}

// keyspace is one keyspace that is captured.
type keyspace struct {
	name        string
	replication map[string]string
	tables      []table // sorted
	views       []table // materialized views: snapshots have them too
	cql         []string
}

type table struct {
	name          string
	id            string
	gcGrace       int64
	transactional bool
}

// inventory is what is captured.
type inventory struct {
	keyspaces   []keyspace // sorted
	coordinator bool       // the coordinator table is among them
	warnings    []string
}

func (inv inventory) names() []string {
	var names []string
	for _, k := range inv.keyspaces {
		names = append(names, k.name)
	}
	return names
}

// expected are the tables that each node must have a snapshot of.
func (inv inventory) expected() map[node.Table]string {
	out := map[node.Table]string{}
	for _, k := range inv.keyspaces {
		for _, t := range slices.Concat(k.tables, k.views) {
			out[node.Table{Keyspace: k.name, Name: t.name}] = t.id
		}
	}
	return out
}

// systemKeyspace: Cassandra's own, which no backup of ScalarDB takes by name.
func systemKeyspace(name string) bool { return strings.HasPrefix(name, "system") }

// readInventory reads which keyspaces there are, and chooses.
func readInventory(ctx context.Context, c conn, s Settings) (inventory, error) {
	all, err := readKeyspaces(ctx, c)
	if err != nil {
		return inventory{}, err
	}
	listed, known, err := readNamespaces(ctx, c, s, all)
	if err != nil {
		return inventory{}, err
	}
	inv, err := choose(s, all, listed, known)
	if err != nil {
		return inventory{}, err
	}
	for i := range inv.keyspaces {
		if inv.keyspaces[i].cql, err = describe(ctx, c, inv.keyspaces[i].name); err != nil {
			return inventory{}, err
		}
	}
	return inv, nil
}

// readKeyspaces reads all keyspaces but Cassandra's own.
func readKeyspaces(ctx context.Context, c conn) (map[string]*keyspace, error) {
	all := map[string]*keyspace{}
	rows, err := c.Query(ctx, "SELECT keyspace_name, replication FROM system_schema.keyspaces")
	if err != nil {
		return nil, fmt.Errorf("reading the keyspaces: %w", err)
	}
	for _, r := range rows {
		if name := r.text("keyspace_name"); !systemKeyspace(name) {
			all[name] = &keyspace{name: name, replication: r.textMap("replication")}
		}
	}
	columns := map[node.Table]map[string]bool{}
	rows, err = c.Query(ctx, "SELECT keyspace_name, table_name, column_name FROM system_schema.columns")
	if err != nil {
		return nil, fmt.Errorf("reading the tables' columns: %w", err)
	}
	for _, r := range rows {
		t := node.Table{Keyspace: r.text("keyspace_name"), Name: r.text("table_name")}
		if columns[t] == nil {
			columns[t] = map[string]bool{}
		}
		columns[t][r.text("column_name")] = true
	}
	rows, err = c.Query(ctx, "SELECT keyspace_name, table_name, id, gc_grace_seconds FROM system_schema.tables")
	if err != nil {
		return nil, fmt.Errorf("reading the tables: %w", err)
	}
	for _, r := range rows {
		k := all[r.text("keyspace_name")]
		if k == nil {
			continue
		}
		t := table{name: r.text("table_name"), id: r.text("id"), gcGrace: r.number("gc_grace_seconds"), transactional: true}
		for _, column := range transactionColumns {
			t.transactional = t.transactional && columns[node.Table{Keyspace: k.name, Name: t.name}][column]
		}
		k.tables = append(k.tables, t)
	}
	rows, err = c.Query(ctx, "SELECT keyspace_name, view_name, id FROM system_schema.views")
	if err != nil {
		return nil, fmt.Errorf("reading the materialized views: %w", err)
	}
	for _, r := range rows {
		if k := all[r.text("keyspace_name")]; k != nil {
			k.views = append(k.views, table{name: r.text("view_name"), id: r.text("id")})
		}
	}
	for _, k := range all {
		byName := func(a, b table) int { return cmp.Compare(a.name, b.name) }
		slices.SortFunc(k.tables, byName)
		slices.SortFunc(k.views, byName)
	}
	return all, nil
}

func (k *keyspace) has(name string) bool {
	return k != nil && slices.ContainsFunc(k.tables, func(t table) bool { return t.name == name })
}

func (k *keyspace) transactional() bool {
	return slices.ContainsFunc(k.tables, func(t table) bool { return t.transactional })
}

// readQuorum reads a table that other nodes hold. One that died a moment ago may be asked in vain, until those that live have noticed, which takes them ten seconds and
// more: it is asked again. Not for the pause.
func readQuorum(ctx context.Context, c conn, clock engine.Clock, statement string) (rows []row, err error) {
	for i := range tries {
		if i > 0 && clock.Sleep(ctx, tryDelay<<i) != nil {
			return nil, err
		}
		if rows, err = c.Query(ctx, statement); err == nil || !reading.Unanswered(err) {
			return rows, err
		}
	}
	return nil, err
}

// readNamespaces reads ScalarDB's own list, where there is one.
func readNamespaces(ctx context.Context, c conn, s Settings, all map[string]*keyspace) (listed []string, known bool, err error) {
	metadata := s.Layout.Metadata()
	if !all[metadata].has(namespacesTable) {
		return nil, false, nil
	}
	rows, err := readQuorum(ctx, c, s.Clock, fmt.Sprintf("SELECT name FROM %s.%s", ddl.Quote(metadata), ddl.Quote(namespacesTable)))
	if err != nil {
		if isUnauthorized(err) {
			err = fmt.Errorf("%w; GRANT SELECT ON KEYSPACE %s TO the user", err, ddl.Quote(metadata))
		}
		return nil, false, fmt.Errorf("reading ScalarDB's namespaces from %s.%s: %w", metadata, namespacesTable, err)
	}
	for _, r := range rows {
		listed = append(listed, r.text("name"))
	}
	slices.Sort(listed)
	return listed, true, nil
}

// choose says which keyspaces are captured.
func choose(s Settings, all map[string]*keyspace, listed []string, known bool) (inventory, error) {
	var inv inventory
	own := []string{s.Layout.Coordinator(), s.Layout.Metadata()}
	scalar := map[string]bool{} // ScalarDB's namespaces
	for _, name := range listed {
		if !slices.Contains(own, name) && all[name] != nil {
			scalar[name] = true
		}
	}
	for name, k := range all {
		if slices.Contains(own, name) || scalar[name] || !k.transactional() {
			continue
		}
		scalar[name] = true
		if known && len(s.Keyspaces) == 0 {
			// ScalarDB lists namespaces since 3.13; one that was made earlier may be missing there, and must not be missing in a backup.
			inv.warnings = append(inv.warnings, fmt.Sprintf("Keyspace %s has transactional tables, and %s.%s does not list it: it is captured too. Name the keyspaces if that is not wanted.",
				name, s.Layout.Metadata(), namespacesTable))
		}
	}
	chosen := map[string]bool{}
	if len(s.Keyspaces) > 0 {
		var missing, out []string
		for _, name := range s.Keyspaces {
			chosen[name] = true
			if all[name] == nil {
				missing = append(missing, name)
			}
		}
		if len(missing) > 0 {
			return inventory{}, fmt.Errorf("the cluster has no keyspaces %s", list(missing))
		}
		for _, name := range slices.Sorted(maps.Keys(scalar)) {
			if !chosen[name] {
				out = append(out, name)
			}
		}
		if len(out) > 0 {
			inv.warnings = append(inv.warnings, fmt.Sprintf("ScalarDB's namespaces %s are not among the keyspaces, and not in the backup: transactions that span them cannot be restored whole.", list(out)))
		}
	} else {
		chosen = scalar
	}
	if len(chosen) == 0 && all[own[0]] == nil {
		return inventory{}, fmt.Errorf("no keyspace of ScalarDB was found: none has transactional tables, and there is no coordinator %q; name the keyspaces, or set coordinator_namespace and metadata_namespace", own[0])
	}
	for _, name := range own {
		if all[name] != nil {
			chosen[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(chosen)) {
		k := all[name]
		inv.keyspaces = append(inv.keyspaces, *k)
		if len(k.views) > 0 {
			inv.warnings = append(inv.warnings, fmt.Sprintf("Keyspace %s has materialized views, which ScalarDB does not make: this provider does not restore such a keyspace.", name))
		}
	}
	inv.coordinator = all[own[0]].has(coordinatorTable)
	slices.Sort(inv.warnings)
	return inv, nil
}

// describe reads a keyspace's schema with the ids of its tables, as statements in order.
func describe(ctx context.Context, c conn, name string) ([]string, error) {
	rows, err := c.Query(ctx, "DESCRIBE KEYSPACE "+ddl.Quote(name)+" WITH INTERNALS")
	if err != nil {
		return nil, fmt.Errorf("reading the schema of keyspace %s: %w", name, err)
	}
	var statements []string
	for _, r := range rows {
		if text := strings.TrimSpace(r.text("create_statement")); text != "" {
			statements = append(statements, text)
		}
	}
	if len(statements) == 0 {
		return nil, fmt.Errorf("reading the schema of keyspace %s: Cassandra describes nothing", name)
	}
	return statements, nil
}

// documents are the keyspaces for the index.
func (inv inventory) documents() ([]snapshot.Keyspace, error) {
	var out []snapshot.Keyspace
	for _, k := range inv.keyspaces {
		if len(k.replication) == 0 {
			return nil, errors.New("keyspace " + k.name + " has no replication")
		}
		d := snapshot.Keyspace{Name: k.name, Replication: k.replication, CQL: k.cql}
		for _, t := range k.tables {
			d.Tables = append(d.Tables, snapshot.Table{Name: t.name, ID: t.id, GCGraceSeconds: t.gcGrace})
		}
		out = append(out, d)
	}
	return out, nil
}
