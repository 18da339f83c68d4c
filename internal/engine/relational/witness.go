package relational

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

// Reading is one look of the write witness: what any transaction of ScalarDB that commits must change.
type Reading struct {
	// Coordinator is nil where the coordinator table lies in another storage.
	Coordinator *CoordinatorReading
	// Tables are the transactional tables' marks, sorted by name; read where there is no coordinator table, or when asked for.
	Tables []TableReading
}

// CoordinatorReading is the coordinator table's part of a Reading.
type CoordinatorReading struct {
	Newest int64 // the newest tx_created_at in milliseconds since the epoch; 0 when there is none
	Rows   int64
}

// TableReading is one transactional table's part of a Reading. Versions is the sum of tx_version, which each update raises whatever the
// writer's clock says; Committed the number of records in state COMMITTED, which the second half of a commit raises.
type TableReading struct {
	Namespace, Name                   string
	Rows, Versions, Committed         int64
	NewestPreparedAt, NewestCommitted int64 // milliseconds since the epoch; 0 when there is none
}

// ReadingOptions narrow or widen a Reading. Both readings that Compare gets must have been taken with the same ones.
type ReadingOptions struct {
	// Since limits the reading to what is stamped at or after it, zero: everything. The database still scans (ScalarDB has no index on these columns),
	// but old rows are left out, so that a clean-up of old coordinator entries is not taken for a write. For tables without coordinator it is ignored.
	Since time.Time
	// Tables reads the tables also where the coordinator is here: one-phase commits leave no coordinator entry.
	Tables bool
}

// TakeReading reads the witness through q: give it a transaction to read one snapshot, also long after the window.
// It is one scan of the coordinator table, or of each transactional table where there is no coordinator.
func TakeReading(ctx context.Context, q Querier, d Dialect, inv Inventory) (Reading, error) {
	return TakeReadingWith(ctx, q, d, inv, ReadingOptions{})
}

// TakeReadingWith is TakeReading with options.
func TakeReadingWith(ctx context.Context, q Querier, d Dialect, inv Inventory, o ReadingOptions) (Reading, error) {
	var r Reading
	if inv.Coordinator != nil {
		query := "SELECT MAX(" + d.Column(colCreatedAt) + "), COUNT(*) FROM " + d.Table(inv.Coordinator.Namespace, inv.Coordinator.Name)
		if !o.Since.IsZero() {
			query += fmt.Sprintf(" WHERE %s >= %d", d.Column(colCreatedAt), o.Since.UnixMilli())
		}
		var newest sql.NullInt64
		r.Coordinator = &CoordinatorReading{}
		if err := q.QueryRowContext(ctx, query).Scan(&newest, &r.Coordinator.Rows); err != nil {
			return Reading{}, fmt.Errorf("reading the write witness of the coordinator table: %w", err)
		}
		r.Coordinator.Newest = newest.Int64
		if !o.Tables {
			return r, nil
		}
	}
	for _, t := range inv.Tables {
		if !t.Transactional {
			continue
		}
		query := fmt.Sprintf("SELECT COUNT(*), SUM(%s), COUNT(CASE WHEN %s = 3 THEN 1 END), MAX(%s), MAX(%s) FROM %s",
			d.Column(colVersion), d.Column(colState), d.Column(colPreparedAt), d.Column(colCommittedAt), d.Table(t.TxMetadata.Namespace, t.TxMetadata.Name))
		var versions, prepared, committed sql.NullInt64
		m := TableReading{Namespace: t.Namespace, Name: t.Name}
		if err := q.QueryRowContext(ctx, query).Scan(&m.Rows, &versions, &m.Committed, &prepared, &committed); err != nil {
			return Reading{}, fmt.Errorf("reading the write witness of table %s.%s: %w", t.Namespace, t.Name, err)
		}
		m.Versions, m.NewestPreparedAt, m.NewestCommitted = versions.Int64, prepared.Int64, committed.Int64
		r.Tables = append(r.Tables, m)
	}
	slices.SortFunc(r.Tables, func(a, b TableReading) int {
		return strings.Compare(a.Namespace+"."+a.Name, b.Namespace+"."+b.Name)
	})
	return r, nil
}

const culprit = "while every target was paused; likely by a ScalarDB server, or an application that embeds ScalarDB, that is not among the targets (pause.targets): add it or stop it, then take the backup again"

// Compare judges two readings taken in the window. It returns a *engine.VoidError when something was written between them, which no clock can hide, or when
// something is stamped later than openedAt + bound (how far the clocks of ScalarDB's servers may be ahead of ours): written after the window opened, but before the first reading.
func Compare(first, last Reading, openedAt time.Time, bound time.Duration) error {
	limit := openedAt.Add(bound).UnixMilli()
	if (first.Coordinator == nil) != (last.Coordinator == nil) {
		return void("the coordinator table appeared or disappeared in the pause window")
	}
	if a, b := first.Coordinator, last.Coordinator; a != nil {
		if *a != *b {
			return void("the coordinator table was written in the pause window: it had %s at its start and %s at its end, %s", describe(a.Rows, a.Newest), describe(b.Rows, b.Newest), culprit)
		}
		if b.Newest > limit {
			return void("the coordinator table was written in the pause window: its newest entry is of %s, the window opened at %s; %s",
				stamp(b.Newest), openedAt.UTC().Format(time.RFC3339Nano), culprit)
		}
	}
	if len(first.Tables) != len(last.Tables) {
		return void("ScalarDB's tables changed in the pause window: %d at its start, %d at its end", len(first.Tables), len(last.Tables))
	}
	for i, a := range first.Tables {
		b := last.Tables[i]
		if a.Namespace != b.Namespace || a.Name != b.Name {
			return void("ScalarDB's tables changed in the pause window: %s.%s at its start is %s.%s at its end", a.Namespace, a.Name, b.Namespace, b.Name)
		}
		newest := max(b.NewestPreparedAt, b.NewestCommitted)
		if a != b {
			return void("table %s.%s was written in the pause window: it had %s at its start and %s at its end, %s", a.Namespace, a.Name,
				describe(a.Rows, max(a.NewestPreparedAt, a.NewestCommitted)), describe(b.Rows, newest), culprit)
		}
		if newest > limit {
			return void("table %s.%s was written in the pause window: its newest record is of %s, the window opened at %s; %s",
				b.Namespace, b.Name, stamp(newest), openedAt.UTC().Format(time.RFC3339Nano), culprit)
		}
	}
	return nil
}

func void(format string, args ...any) error {
	return &engine.VoidError{Reason: fmt.Sprintf(format, args...)}
}

func describe(rows, newest int64) string {
	if newest == 0 {
		return fmt.Sprintf("%d rows", rows)
	}
	return fmt.Sprintf("%d rows, the newest of %s", rows, stamp(newest))
}

func stamp(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339Nano) }
