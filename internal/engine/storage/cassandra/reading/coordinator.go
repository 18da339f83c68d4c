package reading

import (
	"context"
	"fmt"
	"slices"

	gocql "github.com/apache/cassandra-gocql-driver/v2"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/ddl"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
)

// abortedBatch is how many aborted ids are looked for in one scan of every table: a scan costs the same for one and for many.
const abortedBatch = 100_000

// maxKey is the longest partition key that Cassandra has, in bytes.
const maxKey = 65535

// entryColumns are those of the coordinator table that it has: only one for group commit has child ids.
func entryColumns(t *table) []string {
	columns := []string{colTxID, colState, colCreatedAt}
	if t.regular[colChildIDs] == "text" {
		columns = append(columns, colChildIDs)
	}
	return columns
}

// decodeEntry decodes rows of the given columns; what more is selected goes into more.
func decodeEntry(columns []string) func(scan func(...any) error, more ...any) (verify.StoredEntry, error) {
	return func(scan func(...any) error, more ...any) (e verify.StoredEntry, err error) {
		dest := []any{&e.TxID, &e.State, &e.CreatedAt, &e.ChildIDs}
		err = scan(append(dest[:len(columns)], more...)...)
		return e, err
	}
}

// lookupBatch is how many ids one request looks up. A request costs a node more than the reading of a row: with some, look-ups are several times as fast as
// one by one (see the benchmark); with too many, one node would gather partitions from everywhere, and one slow replica would fail them all.
const lookupBatch = 25

// Coordinator implements verify.Storage. Ids are looked up in small batches, several at a time; one by one where a guardrail of the cluster
// (partition_keys_in_select) forbids batches.
func (r *Reader) Coordinator(ctx context.Context, txIDs []string) (map[string]verify.Entry, error) {
	t, err := r.findCoordinator(ctx)
	if err != nil {
		return nil, err
	}
	// No entry can have such an id.
	ids := slices.DeleteFunc(verify.LookupIDs(txIDs), func(id string) bool { return id == "" || len(id) > maxKey })
	size := lookupBatch
	if r.singly.Load() {
		size = 1
	}
	batches := slices.Collect(slices.Chunk(ids, size))
	found := make([][]verify.StoredEntry, len(batches))
	err = parallel(ctx, cap(r.points), len(batches), func(i int) int { return i }, func(ctx context.Context, i int) (err error) {
		found[i], err = r.lookUp(ctx, t, batches[i])
		if len(batches[i]) == 1 || !HasCode(err, gocql.ErrCodeInvalid) {
			return err
		}
		r.singly.Store(true)
		for _, id := range batches[i] {
			one, err := r.lookUp(ctx, t, []string{id})
			if err != nil {
				return err
			}
			found[i] = append(found[i], one...)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("looking up transactions in table %s: %w", t, err)
	}
	return verify.Match(txIDs, slices.Concat(found...)), nil
}

// lookUp reads the entries of some ids.
func (r *Reader) lookUp(ctx context.Context, t *table, ids []string) (out []verify.StoredEntry, err error) {
	columns := entryColumns(t)
	decode := decodeEntry(columns)
	// In µs. ScalarDB writes an entry on a condition: so it is a node that stamps it, not the client, when the write begins.
	statement := fmt.Sprintf("SELECT %s, WRITETIME(%s) FROM %s WHERE %s IN ?", quoted(columns), ddl.Quote(colState), t.cql(), ddl.Quote(colTxID))
	q := Query{Statement: statement, Args: []any{ids}, Consistency: r.s.Consistency, PageSize: len(ids)}
	for {
		next, err := r.page(ctx, r.points, q, nil, func(scan func(...any) error) error {
			var written int64
			e, err := decode(scan, &written)
			e.WrittenAt = written
			out = append(out, e)
			return err
		})
		if err != nil {
			return nil, err
		}
		if next == nil {
			return out, nil
		}
		q.State = next
	}
}

// scanEntries reads the coordinator table.
func (r *Reader) scanEntries(ctx context.Context, keep func(*verify.StoredEntry) bool, each func([]verify.StoredEntry) error) error {
	t, err := r.findCoordinator(ctx)
	if err != nil {
		return err
	}
	columns := entryColumns(t)
	decode := decodeEntry(columns)
	return scan(ctx, r, t, columns, func(scan func(...any) error) (verify.StoredEntry, bool, error) {
		e, err := decode(scan)
		return e, err == nil && keep(&e), err
	}, each)
}

// CoordinatorTally implements verify.Storage.
func (r *Reader) CoordinatorTally(ctx context.Context, lateAfter int64) (out verify.CoordinatorTally, err error) {
	err = r.scanEntries(ctx, func(*verify.StoredEntry) bool { return true }, func(page []verify.StoredEntry) error {
		for i := range page {
			out.Rows++
			out.Newest = max(out.Newest, page[i].CreatedAt)
			if page[i].CreatedAt > lateAfter {
				out.Late++
			}
		}
		return nil
	})
	return out, err
}

// Aborted implements verify.Storage.
func (r *Reader) Aborted(ctx context.Context, each func(txIDs []string) error) error {
	var batch []string
	err := r.scanEntries(ctx, func(e *verify.StoredEntry) bool { return e.State == verify.StateAborted }, func(page []verify.StoredEntry) error {
		for i := range page {
			batch = append(batch, page[i].RecordIDs()...)
		}
		if len(batch) < abortedBatch {
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
