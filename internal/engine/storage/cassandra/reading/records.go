package reading

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
)

// Count implements verify.Storage: the cluster counts.
func (r *Reader) Count(ctx context.Context, t verify.Table) (int64, error) {
	have, err := r.find(ctx, t)
	if err != nil {
		return 0, err
	}
	return r.count(ctx, have)
}

// markColumns are what the rules ask of a record.
var markColumns = []string{colTxID, colState, colPreparedAt, colCommittedAt}

// Tally implements verify.Storage, in one scan of the four columns.
func (r *Reader) Tally(ctx context.Context, t verify.Table, q verify.TallyQuery) (out verify.Tally, err error) {
	have, err := r.find(ctx, t)
	if err != nil {
		return out, err
	}
	err = scanRecords(ctx, r, have, false, func(*verify.Record) bool { return true }, func(page []verify.Record) error {
		for i := range page {
			out.Count(page[i], q)
		}
		return nil
	})
	return out, err
}

// scanRecords reads the records of a transactional table that keep says; their keys too where named.
func scanRecords(ctx context.Context, r *Reader, t *table, named bool, keep func(*verify.Record) bool, each func([]verify.Record) error) error {
	columns := slices.Clone(markColumns)
	lonely := -1
	if named {
		columns = append(columns, t.key...)
		if t.lonely() != "" {
			lonely = t.partition
		}
	} else if c := t.lonely(); c != "" {
		columns, lonely = append(columns, c), 0
	}
	width := len(columns) - len(markColumns)
	return scan(ctx, r, t, columns, func(scan func(...any) error) (rec verify.Record, ok bool, err error) {
		// A null is the zero value.
		cells := make([]cell, width)
		dest := make([]any, 0, len(columns))
		dest = append(dest, &rec.TxID, &rec.State, &rec.PreparedAt, &rec.CommittedAt)
		for i := range cells {
			dest = append(dest, &cells[i])
		}
		if err = scan(dest...); err != nil {
			return rec, false, err
		}
		if lonely >= 0 && cells[lonely].data == nil || !keep(&rec) {
			return rec, false, nil
		}
		if named {
			var b strings.Builder
			for i := range cells {
				if i > 0 {
					b.WriteByte(',')
				}
				b.WriteString(t.key[i])
				b.WriteByte('=')
				b.WriteString(cells[i].String())
			}
			rec.Key = b.String()
		}
		return rec, true, nil
	}, each)
}

// Records implements verify.Storage. The cluster filters nothing: ALLOW FILTERING at QUORUM makes replicas compare what only one of them
// has found, and gives up on many.
func (r *Reader) Records(ctx context.Context, t verify.Table, f verify.RecordFilter, each func(verify.Record) error) error {
	have, err := r.find(ctx, t)
	if err != nil {
		return err
	}
	selection := f.Select(each)
	err = scanRecords(ctx, r, have, true, func(rec *verify.Record) bool { return f.Matches(*rec) }, func(page []verify.Record) error {
		for _, rec := range page {
			if err := selection.Add(rec); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return selection.End()
}

// CommittedAmong implements verify.Storage, in one scan.
func (r *Reader) CommittedAmong(ctx context.Context, t verify.Table, txIDs []string) (out []verify.Record, err error) {
	have, err := r.find(ctx, t)
	if err != nil {
		return nil, err
	}
	want := make(map[string]bool, len(txIDs))
	for _, id := range txIDs {
		want[id] = true
	}
	keep := func(rec *verify.Record) bool { return rec.State == verify.StateCommitted && want[rec.TxID] }
	err = scanRecords(ctx, r, have, true, keep, func(page []verify.Record) error {
		out = append(out, page...)
		return nil
	})
	slices.SortFunc(out, func(a, b verify.Record) int {
		return cmp.Or(strings.Compare(a.Key, b.Key), strings.Compare(a.TxID, b.TxID))
	})
	return out, err
}
