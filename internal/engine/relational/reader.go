package relational

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"strings"
	"sync"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
)

const (
	lookupBatch  = 500  // ids of one primary-key lookup in the coordinator table
	abortedBatch = 5000 // aborted ids at once: CommittedAmong scans its table for each batch (there is no index on tx_id)
	// pooled is how many connections a *sql.DB must allow for records to be streamed while the callback asks on: fewer, and they are collected first.
	pooled = 8
)

// reader implements verify.Storage (and verify.Joiner) over SQL.
type reader struct {
	q       Querier
	d       Dialect
	l       Layout
	closeFn func() error

	// one serializes statements where q is a single connection; nil where it is a pool.
	one *sync.Mutex

	mu        sync.Mutex // guards what follows
	inventory *Inventory
	closed    bool
}

// NewReader reads what verification asks for. q is a *sql.DB, or a *sql.Conn or *sql.Tx to look at one snapshot: then statements run one
// after the other, and the records that Records streams are held in memory. closeFn may be nil.
func NewReader(q Querier, d Dialect, l Layout, closeFn func() error) verify.Storage {
	r := &reader{q: q, d: d, l: l, closeFn: closeFn}
	if db, ok := q.(*sql.DB); !ok || (db.Stats().MaxOpenConnections > 0 && db.Stats().MaxOpenConnections < pooled) {
		r.one = &sync.Mutex{}
	}
	return r
}

// Close calls closeFn once.
func (r *reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.closeFn == nil {
		return nil
	}
	r.closed = true
	return r.closeFn()
}

// inv reads the inventory once.
func (r *reader) inv(ctx context.Context) (Inventory, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.inventory != nil {
		return *r.inventory, nil
	}
	defer r.alone()()
	inv, err := ReadInventory(ctx, r.q, r.d, r.l)
	if err != nil {
		return inv, err
	}
	r.inventory = &inv
	return inv, nil
}

// alone takes the only connection, where there is only one.
func (r *reader) alone() (release func()) {
	if r.one == nil {
		return func() {}
	}
	r.one.Lock()
	return r.one.Unlock
}

// Tables implements verify.Storage.
func (r *reader) Tables(ctx context.Context) (present, missing []verify.Table, err error) {
	inv, err := r.inv(ctx)
	if err != nil {
		return nil, nil, err
	}
	convert := func(in []Table) []verify.Table {
		out := make([]verify.Table, len(in))
		for i, t := range in {
			out[i] = verify.Table{Namespace: t.Namespace, Name: t.Name, Transactional: t.Transactional, Key: t.Key}
		}
		return out
	}
	return convert(inv.Tables), convert(inv.Missing), nil
}

// HasCoordinator implements verify.Storage.
func (r *reader) HasCoordinator(ctx context.Context) (bool, error) {
	inv, err := r.inv(ctx)
	return inv.Coordinator != nil, err
}

func (r *reader) table(ctx context.Context, t verify.Table) (Table, error) {
	inv, err := r.inv(ctx)
	if err != nil {
		return Table{}, err
	}
	for _, have := range inv.Tables {
		if have.Namespace == t.Namespace && have.Name == t.Name {
			return have, nil
		}
	}
	return Table{}, fmt.Errorf("reading table %s.%s: ScalarDB's metadata does not name it", t.Namespace, t.Name)
}

// from is the FROM clause of a table: its transaction columns are m's, its key columns d's.
func (r *reader) from(t Table) string {
	data := r.d.Table(t.Data.Namespace, t.Data.Name) + " AS d"
	if t.Data.Namespace == t.TxMetadata.Namespace && t.Data.Name == t.TxMetadata.Name {
		return strings.TrimSuffix(data, " AS d") + " AS m"
	}
	on := make([]string, len(t.Key))
	for i, k := range t.Key {
		on[i] = "d." + r.d.Column(k) + " = m." + r.d.Column(k)
	}
	// Rows without transaction columns (an imported table's) count, as ScalarDB reads them.
	return data + " LEFT JOIN " + r.d.Table(t.TxMetadata.Namespace, t.TxMetadata.Name) + " AS m ON " + strings.Join(on, " AND ")
}

func (r *reader) m(column string) string { return "m." + r.d.Column(column) }

// Count implements verify.Storage.
func (r *reader) Count(ctx context.Context, vt verify.Table) (n int64, err error) {
	t, err := r.table(ctx, vt)
	if err != nil {
		return 0, err
	}
	defer r.alone()()
	if err := r.q.QueryRowContext(ctx, "SELECT COUNT(*) FROM "+r.d.Table(t.Data.Namespace, t.Data.Name)).Scan(&n); err != nil {
		return 0, fmt.Errorf("counting the rows of table %s.%s: %w", t.Namespace, t.Name, err)
	}
	return n, nil
}

// Tally implements verify.Storage.
func (r *reader) Tally(ctx context.Context, vt verify.Table, q verify.TallyQuery) (verify.Tally, error) {
	var out verify.Tally
	t, err := r.table(ctx, vt)
	if err != nil {
		return out, err
	}
	uncommitted := r.m(colState) + " IN (1, 2)"
	// A PREPARED record without a time is none that ScalarDB wrote: never taken for an old one.
	inFlight := fmt.Sprintf("%s AND (%s >= %d OR %s IS NULL)", uncommitted, r.m(colPreparedAt), q.InFlightSince, r.m(colPreparedAt))
	if q.InFlightSince == math.MaxInt64 {
		inFlight = "1 = 0"
	}
	count := func(condition string) string { return "COUNT(CASE WHEN " + condition + " THEN 1 END)" }
	query := "SELECT COUNT(*), " + strings.Join([]string{
		count(uncommitted), count(inFlight), count(fmt.Sprintf("%s > %d", r.m(colCommittedAt), q.LateAfter)),
		count(r.m(colTxID) + " IS NULL"), count(r.invalid()), "MAX(" + r.m(colCommittedAt) + ")",
	}, ", ") + " FROM " + r.from(t)
	var uncommittedRows int64
	var newest sql.NullInt64
	defer r.alone()()
	if err := r.q.QueryRowContext(ctx, query).Scan(&out.Rows, &uncommittedRows, &out.InFlight, &out.Late, &out.Imported, &out.Invalid, &newest); err != nil {
		return out, fmt.Errorf("reading the transaction states of table %s.%s: %w", t.Namespace, t.Name, err)
	}
	out.NewestCommitted = newest.Int64
	out.Leftovers = uncommittedRows - out.InFlight
	return out, nil
}

func (r *reader) invalid() string {
	return fmt.Sprintf("%s IS NOT NULL AND (%s IS NULL OR %s NOT IN (1, 2, 3))", r.m(colTxID), r.m(colState), r.m(colState))
}

// Records implements verify.Storage.
func (r *reader) Records(ctx context.Context, vt verify.Table, f verify.RecordFilter, each func(verify.Record) error) error {
	t, err := r.table(ctx, vt)
	if err != nil {
		return err
	}
	var where []string
	if f.Invalid {
		where = append(where, r.invalid())
	} else if len(f.States) > 0 {
		states := make([]string, len(f.States))
		for i, s := range f.States {
			states[i] = fmt.Sprint(s)
		}
		where = append(where, r.m(colState)+" IN ("+strings.Join(states, ", ")+")")
	}
	if f.PreparedSince != 0 {
		where = append(where, fmt.Sprintf("(%s >= %d OR %s IS NULL)", r.m(colPreparedAt), f.PreparedSince, r.m(colPreparedAt)))
	}
	if f.CommittedSince != 0 {
		where = append(where, fmt.Sprintf("%s >= %d", r.m(colCommittedAt), f.CommittedSince))
	}
	if f.CommittedAfter != 0 {
		where = append(where, fmt.Sprintf("%s > %d", r.m(colCommittedAt), f.CommittedAfter))
	}
	tail := ""
	if f.Limit > 0 {
		// Which ones a limited look names is then the same every time.
		tail = r.orderByKey(t) + fmt.Sprintf(" LIMIT %d", f.Limit)
	}
	return r.stream(ctx, t, where, tail, nil, each)
}

func (r *reader) orderByKey(t Table) string {
	if len(t.Key) == 0 {
		return ""
	}
	cols := make([]string, len(t.Key))
	for i, k := range t.Key {
		cols[i] = r.keyColumn(t, k)
	}
	return " ORDER BY " + strings.Join(cols, ", ")
}

func (r *reader) keyColumn(t Table, column string) string {
	if t.Data.Namespace == t.TxMetadata.Namespace && t.Data.Name == t.TxMetadata.Name {
		return r.m(column)
	}
	return "d." + r.d.Column(column)
}

// stream selects records of a table.
func (r *reader) stream(ctx context.Context, t Table, where []string, tail string, args []any, each func(verify.Record) error) error {
	fail := func(err error) error {
		return fmt.Errorf("reading records of table %s.%s: %w", t.Namespace, t.Name, err)
	}
	cols := []string{r.m(colTxID), r.m(colState), r.m(colPreparedAt), r.m(colCommittedAt)}
	for _, k := range t.Key {
		cols = append(cols, r.d.TextCast(r.keyColumn(t, k)))
	}
	query := "SELECT " + strings.Join(cols, ", ") + " FROM " + r.from(t)
	if len(where) > 0 {
		query += " WHERE " + strings.Join(where, " AND ")
	}
	var held []verify.Record
	emit := each
	if r.one != nil {
		emit = func(rec verify.Record) error { held = append(held, rec); return nil }
	}
	err := func() error {
		defer r.alone()()
		rows, err := r.q.QueryContext(ctx, query+tail, args...)
		if err != nil {
			return fail(err)
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			var txID sql.NullString
			var state, prepared, committed sql.NullInt64
			key := make([]sql.NullString, len(t.Key))
			dest := []any{&txID, &state, &prepared, &committed}
			for i := range key {
				dest = append(dest, &key[i])
			}
			if err := rows.Scan(dest...); err != nil {
				return fail(err)
			}
			rec := verify.Record{TxID: txID.String, State: int(state.Int64), PreparedAt: prepared.Int64, CommittedAt: committed.Int64}
			parts := make([]string, len(key))
			for i, k := range key {
				parts[i] = t.Key[i] + "=" + k.String
			}
			rec.Key = strings.Join(parts, ",")
			if err := emit(rec); err != nil {
				return err
			}
		}
		if err := rows.Err(); err != nil {
			return fail(err)
		}
		return nil
	}()
	if err != nil {
		return err
	}
	for _, rec := range held {
		if err := each(rec); err != nil {
			return err
		}
	}
	return nil
}

// coordinator returns the coordinator table, quoted, and whether it has tx_child_ids.
func (r *reader) coordinator(ctx context.Context) (table string, groups bool, err error) {
	inv, err := r.inv(ctx)
	if err != nil {
		return "", false, err
	}
	if inv.Coordinator == nil {
		return "", false, fmt.Errorf("reading the coordinator table: namespace %q has none; set coordinator_namespace where ScalarDB runs with another scalar.db.consensus_commit.coordinator.namespace", r.l.Coordinator())
	}
	return r.d.Table(inv.Coordinator.Namespace, inv.Coordinator.Name), inv.Coordinator.Has(colChildIDs), nil
}

// Coordinator implements verify.Storage.
func (r *reader) Coordinator(ctx context.Context, txIDs []string) (map[string]verify.Entry, error) {
	table, groups, err := r.coordinator(ctx)
	if err != nil {
		return nil, err
	}
	out := make(map[string]verify.Entry, len(txIDs))
	for len(txIDs) > 0 {
		batch := txIDs[:min(lookupBatch, len(txIDs))]
		txIDs = txIDs[len(batch):]
		ids := batch
		if groups {
			ids = verify.LookupIDs(batch)
		}
		var rows []verify.StoredEntry
		in, args := r.in(ids)
		if err := r.entries(ctx, table, groups, r.d.Column(colTxID)+in, args, func(e verify.StoredEntry) error { rows = append(rows, e); return nil }); err != nil {
			return nil, err
		}
		for id, e := range verify.Match(batch, rows) {
			out[id] = e
		}
	}
	return out, nil
}

// in is an IN list over strings.
func (r *reader) in(values []string) (clause string, args []any) {
	var b strings.Builder
	b.WriteString(" IN (")
	for i, v := range values {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(r.d.Placeholder(i + 1))
		args = append(args, v)
	}
	b.WriteString(")")
	return b.String(), args
}

func (r *reader) entries(ctx context.Context, table string, groups bool, where string, args []any, each func(verify.StoredEntry) error) error {
	children := "NULL"
	if groups {
		children = r.d.Column(colChildIDs)
	}
	defer r.alone()()
	rows, err := r.q.QueryContext(ctx, fmt.Sprintf("SELECT %s, %s, %s, %s FROM %s WHERE %s",
		r.d.Column(colTxID), r.d.Column(colState), r.d.Column(colCreatedAt), children, table, where), args...)
	if err != nil {
		return fmt.Errorf("reading the coordinator table: %w", err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var e verify.StoredEntry
		var state, created sql.NullInt64
		var childIDs sql.NullString
		if err := rows.Scan(&e.TxID, &state, &created, &childIDs); err != nil {
			return fmt.Errorf("reading the coordinator table: %w", err)
		}
		e.State, e.CreatedAt, e.ChildIDs = int(state.Int64), created.Int64, childIDs.String
		if err := each(e); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("reading the coordinator table: %w", err)
	}
	return nil
}

// CoordinatorTally implements verify.Storage.
func (r *reader) CoordinatorTally(ctx context.Context, lateAfter int64) (verify.CoordinatorTally, error) {
	var out verify.CoordinatorTally
	table, _, err := r.coordinator(ctx)
	if err != nil {
		return out, err
	}
	var newest sql.NullInt64
	created := r.d.Column(colCreatedAt)
	defer r.alone()()
	if err := r.q.QueryRowContext(ctx, fmt.Sprintf("SELECT COUNT(*), COUNT(CASE WHEN %s > %d THEN 1 END), MAX(%s) FROM %s", created, lateAfter, created, table)).
		Scan(&out.Rows, &out.Late, &newest); err != nil {
		return out, fmt.Errorf("reading the coordinator table: %w", err)
	}
	out.Newest = newest.Int64
	return out, nil
}

// Aborted implements verify.Storage.
func (r *reader) Aborted(ctx context.Context, each func(txIDs []string) error) error {
	table, groups, err := r.coordinator(ctx)
	if err != nil {
		return err
	}
	var batch []string
	var held [][]string
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		ids := batch
		batch = nil
		if r.one != nil {
			held = append(held, ids)
			return nil
		}
		return each(ids)
	}
	err = r.entries(ctx, table, groups, fmt.Sprintf("%s = %d", r.d.Column(colState), verify.StateAborted), nil, func(e verify.StoredEntry) error {
		batch = append(batch, e.RecordIDs()...)
		if len(batch) >= abortedBatch {
			return flush()
		}
		return nil
	})
	if err == nil {
		err = flush()
	}
	for _, ids := range held {
		if err == nil {
			err = each(ids)
		}
	}
	return err
}

// CommittedAmong implements verify.Storage.
func (r *reader) CommittedAmong(ctx context.Context, vt verify.Table, txIDs []string) ([]verify.Record, error) {
	t, err := r.table(ctx, vt)
	if err != nil {
		return nil, err
	}
	var out []verify.Record
	for len(txIDs) > 0 {
		batch := txIDs[:min(abortedBatch, len(txIDs))]
		txIDs = txIDs[len(batch):]
		in, args := r.in(batch)
		where := []string{fmt.Sprintf("%s = %d", r.m(colState), verify.StateCommitted), r.m(colTxID) + in}
		if err := r.stream(ctx, t, where, "", args, func(rec verify.Record) error { out = append(out, rec); return nil }); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// AbortedCommits implements verify.Joiner.
func (r *reader) AbortedCommits(ctx context.Context, vt verify.Table, each func(verify.Record) error) error {
	t, err := r.table(ctx, vt)
	if err != nil {
		return err
	}
	table, groups, err := r.coordinator(ctx)
	if err != nil {
		return err
	}
	aborted := fmt.Sprintf("SELECT %s FROM %s WHERE %s = %d", r.d.Column(colTxID), table, r.d.Column(colState), verify.StateAborted)
	match := r.m(colTxID) + " IN (" + aborted + ")"
	if groups {
		match = "(" + match + " OR SUBSTR(" + r.m(colTxID) + ", 1, 24) IN (" + aborted + " AND " + r.d.Column(colChildIDs) + " IS NOT NULL))"
	}
	return r.stream(ctx, t, []string{fmt.Sprintf("%s = %d", r.m(colState), verify.StateCommitted), match}, "", nil, each)
}

// CommitsWithoutEntry implements verify.Joiner.
func (r *reader) CommitsWithoutEntry(ctx context.Context, vt verify.Table, before int64) (n int64, err error) {
	t, err := r.table(ctx, vt)
	if err != nil {
		return 0, err
	}
	table, groups, err := r.coordinator(ctx)
	if err != nil {
		return 0, err
	}
	id := r.m(colTxID)
	query := fmt.Sprintf("SELECT COUNT(*) FROM %s WHERE %s = %d AND %s < %d AND %s IS NOT NULL AND NOT EXISTS (SELECT 1 FROM %s AS c WHERE c.%s = %s)",
		r.from(t), r.m(colState), verify.StateCommitted, r.m(colCommittedAt), before, id, table, r.d.Column(colTxID), id)
	if groups {
		// A child's id holds no comma. LIKE's wildcards can only make the count, which is information, too low.
		query += fmt.Sprintf(" AND NOT EXISTS (SELECT 1 FROM %s AS c WHERE c.%s = SUBSTR(%s, 1, 24) AND SUBSTR(%s, 25, 1) = ':' AND CONCAT(',', c.%s, ',') LIKE CONCAT('%%,', SUBSTR(%s, 26), ',%%'))",
			table, r.d.Column(colTxID), id, id, r.d.Column(colChildIDs), id)
	}
	defer r.alone()()
	if err := r.q.QueryRowContext(ctx, query).Scan(&n); err != nil {
		return 0, fmt.Errorf("looking up the transactions of table %s.%s: %w", t.Namespace, t.Name, err)
	}
	return n, nil
}
