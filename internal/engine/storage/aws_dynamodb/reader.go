package awsdynamodb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
)

const (
	// lookups is BatchGetItem's limit.
	lookups = 100
	// abortedBatch is how many aborted ids are looked for in one scan of every table: a scan costs the same for one and for many.
	abortedBatch = 100_000
)

// reader implements verify.Storage. Everything is read by scans, consistently, in parallel segments, with the transaction columns and the key only; no
// faster than a share of each table's read capacity.
type reader struct {
	s      Settings
	r      reach
	report func(string, map[string]any)

	mu        sync.Mutex
	inventory *inventory
	budgets   map[string]*budget
}

// NewReader reads what verification asks for. report may be nil.
func NewReader(ctx context.Context, s Settings, report func(string, map[string]any)) (verify.Storage, error) {
	r, err := s.reach(ctx, s.Region)
	if err != nil {
		return nil, err
	}
	if report == nil {
		report = func(string, map[string]any) {}
	}
	return &reader{s: s, r: r, report: report, budgets: map[string]*budget{}}, nil
}

// Close has nothing to release.
func (r *reader) Close() error { return nil }

func (r *reader) inv(ctx context.Context) (inventory, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.inventory != nil {
		return *r.inventory, nil
	}
	inv, err := readInventory(ctx, r.s, r.r)
	if err != nil {
		return inv, err
	}
	r.inventory = &inv
	return inv, nil
}

// Tables implements verify.Storage.
func (r *reader) Tables(ctx context.Context) (present, missing []verify.Table, err error) {
	inv, err := r.inv(ctx)
	if err != nil {
		return nil, nil, err
	}
	convert := func(in []table) (out []verify.Table) {
		for _, t := range in {
			namespace, name, ok := splitName(t.name)
			if ok && t.inMetadata && t.name != r.s.coordinator() {
				out = append(out, verify.Table{Namespace: namespace, Name: name, Transactional: t.transactional, Key: t.key})
			}
		}
		return out
	}
	return convert(inv.tables), convert(inv.missing), nil
}

// HasCoordinator implements verify.Storage.
func (r *reader) HasCoordinator(ctx context.Context) (bool, error) {
	inv, err := r.inv(ctx)
	return inv.coordinator, err
}

func (r *reader) full(t verify.Table) string { return r.s.full(t.Namespace + "." + t.Name) }

// Count implements verify.Storage.
func (r *reader) Count(ctx context.Context, t verify.Table) (n int64, err error) {
	err = r.scan(ctx, r.full(t), scanQuery{count: true}, func(p page) error { n += int64(p.count); return nil })
	return n, err
}

// record reads an item's transaction columns.
func record(it item, key []string) (verify.Record, error) {
	var rec verify.Record
	var err error
	if rec.TxID, err = text(it, colTxID); err != nil {
		return rec, err
	}
	state, err := number(it, colState)
	if err != nil {
		return rec, err
	}
	if state < math.MinInt32 || state > math.MaxInt32 {
		state = -1 // no state of any record: invalid, whatever it is
	}
	rec.State = int(state)
	if rec.PreparedAt, err = number(it, colPreparedAt); err != nil {
		return rec, err
	}
	if rec.CommittedAt, err = number(it, colCommittedAt); err != nil {
		return rec, err
	}
	parts := make([]string, len(key))
	for i, k := range key {
		parts[i] = k + "=" + readable(it[k])
	}
	rec.Key = strings.Join(parts, ",")
	return rec, nil
}

// text is a string column; empty where it is null or absent.
func text(it item, column string) (string, error) {
	switch v := it[column].(type) {
	case nil, *types.AttributeValueMemberNULL:
		return "", nil
	case *types.AttributeValueMemberS:
		return v.Value, nil
	default:
		return "", fmt.Errorf("column %s is no string", column)
	}
}

// maxDigits is more than an int64 has; DynamoDB's numbers have up to 38 digits, and exponents.
const maxDigits = 20

// number is an integer column; 0 where it is null or absent.
func number(it item, column string) (int64, error) {
	switch v := it[column].(type) {
	case nil, *types.AttributeValueMemberNULL:
		return 0, nil
	case *types.AttributeValueMemberN:
		if len(v.Value) > maxDigits {
			return 0, fmt.Errorf("column %s is %.40q, which is no 64-bit integer", column, v.Value)
		}
		n, err := strconv.ParseInt(v.Value, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("column %s is %q, which is no 64-bit integer", column, v.Value)
		}
		return n, nil
	default:
		return 0, fmt.Errorf("column %s is no number", column)
	}
}

// maxReadable bounds a key's value in messages.
const maxReadable = 100

// readable is a key column's value for messages.
func readable(v types.AttributeValue) string {
	cut := func(s string) string {
		if len(s) > maxReadable {
			return strings.ToValidUTF8(s[:maxReadable], "") + "..."
		}
		return s
	}
	switch v := v.(type) {
	case *types.AttributeValueMemberS:
		return cut(v.Value)
	case *types.AttributeValueMemberN:
		return cut(v.Value)
	case *types.AttributeValueMemberB:
		return cut(fmt.Sprintf("%x", v.Value[:min(len(v.Value), maxReadable)]))
	case *types.AttributeValueMemberBOOL:
		return strconv.FormatBool(v.Value)
	}
	return ""
}

// columnsOf are what is read of a transactional table.
func columnsOf(t verify.Table) []string {
	columns := []string{colTxID, colState, colPreparedAt, colCommittedAt}
	for _, k := range t.Key {
		if !slices.Contains(columns, k) {
			columns = append(columns, k)
		}
	}
	return columns
}

// Tally implements verify.Storage.
func (r *reader) Tally(ctx context.Context, t verify.Table, q verify.TallyQuery) (out verify.Tally, err error) {
	err = r.records(ctx, t, scanQuery{columns: columnsOf(t), progress: true}, func(rec verify.Record) error {
		out.Count(rec, q)
		return nil
	})
	return out, err
}

// records scans a transactional table. each is never called twice at once.
func (r *reader) records(ctx context.Context, t verify.Table, q scanQuery, each func(verify.Record) error) error {
	full := r.full(t)
	return r.scan(ctx, full, q, func(p page) error {
		for _, it := range p.items {
			rec, err := record(it, t.Key)
			if err != nil {
				return fmt.Errorf("reading table %s: a record's %w", full, err)
			}
			if err := each(rec); err != nil {
				return err
			}
		}
		return nil
	})
}

// Records implements verify.Storage.
func (r *reader) Records(ctx context.Context, t verify.Table, f verify.RecordFilter, each func(verify.Record) error) error {
	q := scanQuery{columns: columnsOf(t)}
	q.filterBy(f)
	selection := f.Select(each)
	err := r.records(ctx, t, q, func(rec verify.Record) error {
		if !f.Matches(rec) {
			return nil
		}
		return selection.Add(rec)
	})
	if err != nil {
		return err
	}
	return selection.End()
}

// CommittedAmong implements verify.Storage.
func (r *reader) CommittedAmong(ctx context.Context, t verify.Table, txIDs []string) (out []verify.Record, err error) {
	want := make(map[string]bool, len(txIDs))
	for _, id := range txIDs {
		want[id] = true
	}
	f := verify.RecordFilter{States: []int{verify.StateCommitted}}
	q := scanQuery{columns: columnsOf(t)}
	q.filterBy(f)
	err = r.records(ctx, t, q, func(rec verify.Record) error {
		if want[rec.TxID] && f.Matches(rec) {
			out = append(out, rec)
		}
		return nil
	})
	slices.SortFunc(out, func(a, b verify.Record) int {
		return cmp.Or(strings.Compare(a.Key, b.Key), strings.Compare(a.TxID, b.TxID))
	})
	return out, err
}

// coordinatorKey encodes a transaction's id as ScalarDB does a partition key of one text column: its UTF-8, and a zero.
func coordinatorKey(txID string) []byte { return append([]byte(txID), 0) }

var coordinatorColumns = []string{colTxID, colState, colCreatedAt, colChildIDs}

func entry(it item) (verify.StoredEntry, error) {
	var e verify.StoredEntry
	var err error
	if e.TxID, err = text(it, colTxID); err != nil {
		return e, err
	}
	if e.ChildIDs, err = text(it, colChildIDs); err != nil {
		return e, err
	}
	state, err := number(it, colState)
	if err != nil {
		return e, err
	}
	if state < 0 || state > math.MaxInt32 {
		return e, fmt.Errorf("column %s is %d, which is no state", colState, state)
	}
	e.State = int(state)
	e.CreatedAt, err = number(it, colCreatedAt)
	return e, err
}

// Coordinator implements verify.Storage.
func (r *reader) Coordinator(ctx context.Context, txIDs []string) (map[string]verify.Entry, error) {
	var rows []verify.StoredEntry
	full := r.s.full(r.s.coordinator())
	b, err := r.budget(ctx, full)
	if err != nil {
		return nil, err
	}
	// An id with a zero byte is none of ScalarDB's: no key can be made of it.
	ids := slices.DeleteFunc(verify.LookupIDs(txIDs), func(id string) bool { return id == "" || strings.ContainsRune(id, 0) || len(id) > 2000 })
	names, projection := projected(coordinatorColumns)
	for len(ids) > 0 {
		some := ids[:min(lookups, len(ids))]
		ids = ids[len(some):]
		keys := make([]item, len(some))
		for i, id := range some {
			keys[i] = item{partitionAttribute: &types.AttributeValueMemberB{Value: coordinatorKey(id)}}
		}
		w := waiter{clock: r.s.Clock}
		for len(keys) > 0 {
			if err := b.wait(ctx); err != nil {
				return nil, err
			}
			out, err := r.r.api.BatchGetItem(ctx, &dynamodb.BatchGetItemInput{ReturnConsumedCapacity: types.ReturnConsumedCapacityTotal,
				RequestItems: map[string]types.KeysAndAttributes{
					full: {Keys: keys, ConsistentRead: aws.Bool(true), ExpressionAttributeNames: names, ProjectionExpression: &projection},
				}})
			if err != nil {
				return nil, fmt.Errorf("looking up transactions in table %s: %w", full, err)
			}
			for _, c := range out.ConsumedCapacity {
				b.spent(aws.ToFloat64(c.CapacityUnits))
			}
			for _, it := range out.Responses[full] {
				e, err := entry(it)
				if err != nil {
					return nil, fmt.Errorf("reading table %s: an entry's %w", full, err)
				}
				rows = append(rows, e)
			}
			if keys = out.UnprocessedKeys[full].Keys; len(keys) > 0 {
				if err := w.wait(ctx); err != nil {
					return nil, err
				}
			}
		}
	}
	return verify.Match(txIDs, rows), nil
}

// entries scans the coordinator table.
func (r *reader) entries(ctx context.Context, q scanQuery, each func(verify.StoredEntry) error) error {
	full := r.s.full(r.s.coordinator())
	q.columns = coordinatorColumns
	return r.scan(ctx, full, q, func(p page) error {
		for _, it := range p.items {
			e, err := entry(it)
			if err != nil {
				return fmt.Errorf("reading table %s: an entry's %w", full, err)
			}
			if err := each(e); err != nil {
				return err
			}
		}
		return nil
	})
}

// CoordinatorTally implements verify.Storage.
func (r *reader) CoordinatorTally(ctx context.Context, lateAfter int64) (out verify.CoordinatorTally, err error) {
	err = r.entries(ctx, scanQuery{progress: true}, func(e verify.StoredEntry) error {
		out.Rows++
		out.Newest = max(out.Newest, e.CreatedAt)
		if e.CreatedAt > lateAfter {
			out.Late++
		}
		return nil
	})
	return out, err
}

// Aborted implements verify.Storage.
func (r *reader) Aborted(ctx context.Context, each func(txIDs []string) error) error {
	q := scanQuery{}
	q.filterBy(verify.RecordFilter{States: []int{verify.StateAborted}})
	var batch []string
	err := r.entries(ctx, q, func(e verify.StoredEntry) error {
		if e.State != verify.StateAborted {
			return nil
		}
		if batch = append(batch, e.RecordIDs()...); len(batch) < abortedBatch {
			return nil
		}
		ids := batch
		batch = nil
		return each(ids)
	})
	if err != nil || len(batch) == 0 {
		return err
	}
	return each(batch)
}

// budget spreads reads of one table over time: a share of its read capacity, in units a second.
type budget struct {
	clock engine.Clock
	rate  float64
	// width is how many segments a scan has.
	width int32

	mu   sync.Mutex
	next float64 // seconds by clock.Boot; when the units spent so far are earned
}

// onDemandRate is the read units a second of an on-demand table without limit: what a new one serves at least (AWS: 12,000 units).
const onDemandRate = 12_000

const (
	maxWidth = 4
	// narrow is the rate below which segments would only compete.
	narrow = 200
)

func (r *reader) budget(ctx context.Context, full string) (*budget, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b := r.budgets[full]; b != nil {
		return b, nil
	}
	d, err := describeTable(ctx, r.r.api, full)
	if errors.Is(err, engine.ErrNotFound) {
		return nil, fmt.Errorf("reading table %s: %w", full, err)
	}
	if err != nil {
		return nil, err
	}
	f := featuresOf(d)
	capacity := float64(onDemandRate)
	switch {
	case f.provisioned():
		capacity = float64(max(f.Read, 1))
	case f.MaxRead > 0:
		capacity = float64(f.MaxRead)
	}
	b := &budget{clock: r.s.Clock, rate: capacity * float64(cmp.Or(r.s.ReadShare, defaultShare)) / 100, width: 1}
	if b.rate >= narrow {
		b.width = maxWidth
	}
	r.budgets[full] = b
	return b, nil
}

func (b *budget) now() float64 { return b.clock.Boot().Seconds() }

// wait until what was spent is earned.
func (b *budget) wait(ctx context.Context) error {
	b.mu.Lock()
	d := b.next - b.now()
	b.mu.Unlock()
	if d <= 0 {
		return ctx.Err()
	}
	return b.clock.Sleep(ctx, seconds(d))
}

func (b *budget) spent(units float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.next = max(b.next, b.now()) + units/b.rate
}

// scanQuery is what a scan asks for.
type scanQuery struct {
	columns  []string
	count    bool
	progress bool
	filter   string
	values   item
	extra    map[string]string // names that the filter uses
}

// filterBy lets DynamoDB leave out what matches would: that saves the way, not the capacity.
func (q *scanQuery) filterBy(f verify.RecordFilter) {
	var where []string
	q.values, q.extra = item{}, map[string]string{}
	value := func(n int64) string {
		name := fmt.Sprintf(":v%d", len(q.values))
		q.values[name] = &types.AttributeValueMemberN{Value: strconv.FormatInt(n, 10)}
		return name
	}
	if !f.Invalid && len(f.States) > 0 {
		var in []string
		for _, s := range f.States {
			in = append(in, value(int64(s)))
		}
		q.extra["#fs"] = colState
		where = append(where, "#fs IN ("+strings.Join(in, ", ")+")")
	}
	if since := max(f.CommittedSince, 0); since != 0 {
		q.extra["#fc"] = colCommittedAt
		where = append(where, "#fc >= "+value(since))
	}
	if f.CommittedAfter > 0 {
		q.extra["#fc"] = colCommittedAt
		where = append(where, "#fc > "+value(f.CommittedAfter))
	}
	q.filter = strings.Join(where, " AND ")
}

// page is one answer.
type page struct {
	items []item
	count int32
}

func projected(columns []string) (names map[string]string, expression string) {
	names = make(map[string]string, len(columns))
	aliases := make([]string, len(columns))
	for i, c := range columns {
		aliases[i] = fmt.Sprintf("#c%d", i)
		names[aliases[i]] = c
	}
	return names, strings.Join(aliases, ", ")
}

const (
	firstPage = 100
	// maxPage keeps a page's items in memory small; DynamoDB ends a page at 1 MB anyway.
	maxPage = 20_000
	// pagesPerSecond is how many pages a segment aims at: so none takes more capacity than a moment gives.
	pagesPerSecond = 2
	// progressEvery is how many rows lie between two reports.
	progressEvery = 1_000_000
)

// scan reads a whole table in parallel segments. each is never called twice at once.
func (r *reader) scan(ctx context.Context, full string, q scanQuery, each func(page) error) error {
	b, err := r.budget(ctx, full)
	if err != nil {
		return err
	}
	segments := make([]int32, b.width)
	for i := range segments {
		segments[i] = int32(i) //nolint:gosec // below maxWidth
	}
	var mu sync.Mutex
	var rows, reported int64
	return parallel(ctx, len(segments), segments, true, func(ctx context.Context, segment int32) error {
		limit := int32(firstPage)
		var start item
		for {
			if err := b.wait(ctx); err != nil {
				return err
			}
			in := &dynamodb.ScanInput{TableName: &full, ConsistentRead: aws.Bool(true), ReturnConsumedCapacity: types.ReturnConsumedCapacityTotal,
				ExclusiveStartKey: start, Limit: aws.Int32(limit)}
			if b.width > 1 {
				in.Segment, in.TotalSegments = aws.Int32(segment), aws.Int32(b.width)
			}
			q.apply(in)
			out, err := r.r.api.Scan(ctx, in)
			if err != nil {
				return fmt.Errorf("scanning table %s: %w", full, err)
			}
			if c := out.ConsumedCapacity; c != nil {
				units := aws.ToFloat64(c.CapacityUnits)
				b.spent(units)
				limit = nextLimit(units, out.ScannedCount, b.rate/float64(b.width)/pagesPerSecond, limit)
			}
			mu.Lock()
			err = ctx.Err()
			if err == nil {
				err = each(page{items: out.Items, count: out.Count})
			}
			if rows += int64(out.ScannedCount); q.progress && rows-reported >= progressEvery {
				reported = rows
				r.report("scanning a table", map[string]any{"table": full, "rows": rows})
			}
			mu.Unlock()
			if err != nil {
				return err
			}
			if start = out.LastEvaluatedKey; len(start) == 0 {
				return nil
			}
		}
	})
}

// nextLimit is the number of items that a page of the wanted cost holds.
func nextLimit(units float64, scanned int32, want float64, limit int32) int32 {
	if units <= 0 || scanned <= 0 {
		return limit
	}
	n := want / (units / float64(scanned))
	return int32(min(max(n, 1), maxPage, 4*float64(limit))) // grows gradually: the next items may be larger
}

func (q scanQuery) apply(in *dynamodb.ScanInput) {
	if q.count {
		in.Select = types.SelectCount
		return
	}
	names, projection := projected(q.columns)
	in.ProjectionExpression = &projection
	if q.filter != "" {
		maps.Copy(names, q.extra)
		in.FilterExpression, in.ExpressionAttributeValues = aws.String(q.filter), q.values
	}
	in.ExpressionAttributeNames = names
}
