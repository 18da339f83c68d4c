package verifytest

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
)

// Store is a copy of one storage, as it was at one instant. It implements verify.Storage in memory, in the plainest way.
type Store struct {
	Namespace string // of the accounts table
	Rows      map[int]*Row
	Entries   map[string]verify.StoredEntry // nil: no coordinator table here
}

// Cut copies one storage at one instant of true time: what was written at it is in.
func (h *History) Cut(storage string, at int64) *Store {
	s := &Store{Namespace: "bank_" + storage, Rows: map[int]*Row{}}
	if storage == h.Coordinator {
		s.Entries = map[string]verify.StoredEntry{}
	}
	for _, c := range h.changes {
		if c.at > at {
			break
		}
		switch {
		case c.storage != storage:
		case c.key < 0:
			s.Entries[c.entry.TxID] = c.entry
		default:
			s.Rows[c.key] = c.row
		}
	}
	return s
}

// Sum is the bank's sum after ScalarDB has recovered every record of the given copies lazily: Initial × accounts when they are consistent.
func Sum(coordinator *Store, stores ...*Store) int64 {
	var sum int64
	for _, s := range stores {
		for _, r := range s.Rows {
			if r.State == verify.StatePrepared {
				if e, _ := coordinator.lookUp(r.TxID); e.State != verify.StateCommitted {
					r = r.Before
				}
			}
			if r != nil {
				sum += r.Balance
			}
		}
	}
	return sum
}

func (s *Store) lookUp(txID string) (verify.Entry, bool) {
	e, ok := verify.Match([]string{txID}, s.rowsFor([]string{txID}))[txID]
	return e, ok
}

func (s *Store) rowsFor(txIDs []string) (rows []verify.StoredEntry) {
	for _, id := range verify.LookupIDs(txIDs) {
		if e, ok := s.Entries[id]; ok {
			rows = append(rows, e)
		}
	}
	return rows
}

// Expected is what a manifest would say of this copy.
func (s *Store) Expected() verify.Expected {
	t, _ := s.Tally(context.Background(), verify.Table{}, verify.TallyQuery{})
	e := verify.Expected{HasCoordinator: s.Entries != nil, Tables: []verify.ExpectedTable{
		{Namespace: s.Namespace, Name: "accounts", Rows: int64(len(s.Rows)), NewestCommitted: t.NewestCommitted}}}
	for _, c := range s.Entries {
		e.CoordinatorNewest = max(e.CoordinatorNewest, c.CreatedAt)
	}
	return e
}

// Tables implements verify.Storage.
func (s *Store) Tables(context.Context) (present, missing []verify.Table, err error) {
	return []verify.Table{{Namespace: s.Namespace, Name: "accounts", Transactional: true, Key: []string{"id"}}}, nil, nil
}

// HasCoordinator implements verify.Storage.
func (s *Store) HasCoordinator(context.Context) (bool, error) { return s.Entries != nil, nil }

// Count implements verify.Storage.
func (s *Store) Count(context.Context, verify.Table) (int64, error) { return int64(len(s.Rows)), nil }

func uncommitted(r *Row) bool {
	return r.State == verify.StatePrepared || r.State == verify.StateDeleted
}

func invalid(r *Row) bool {
	return r.TxID != "" && !uncommitted(r) && r.State != verify.StateCommitted
}

// Tally implements verify.Storage.
func (s *Store) Tally(_ context.Context, _ verify.Table, q verify.TallyQuery) (t verify.Tally, _ error) {
	for _, r := range s.Rows {
		t.Rows++
		switch {
		case uncommitted(r) && (r.PreparedAt >= q.InFlightSince || r.PreparedAt == 0):
			t.InFlight++
		case uncommitted(r):
			t.Leftovers++
		case invalid(r):
			t.Invalid++
		}
		if r.TxID == "" {
			t.Imported++
		}
		if r.CommittedAt > q.LateAfter {
			t.Late++
		}
		t.NewestCommitted = max(t.NewestCommitted, r.CommittedAt)
	}
	return t, nil
}

// Records implements verify.Storage.
func (s *Store) Records(_ context.Context, _ verify.Table, f verify.RecordFilter, each func(verify.Record) error) error {
	n := 0
	for _, k := range slices.Sorted(maps.Keys(s.Rows)) {
		r := s.Rows[k]
		if f.Invalid && !invalid(r) || !f.Invalid && len(f.States) > 0 && !slices.Contains(f.States, r.State) ||
			f.PreparedSince != 0 && r.PreparedAt != 0 && r.PreparedAt < f.PreparedSince ||
			f.CommittedSince != 0 && r.CommittedAt < f.CommittedSince || f.CommittedAfter != 0 && r.CommittedAt <= f.CommittedAfter {
			continue
		}
		if n++; f.Limit > 0 && n > f.Limit {
			return nil
		}
		if err := each(s.record(k)); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) record(k int) verify.Record {
	r := s.Rows[k]
	return verify.Record{Key: fmt.Sprintf("id=%d", k), TxID: r.TxID, State: r.State, PreparedAt: r.PreparedAt, CommittedAt: r.CommittedAt}
}

// Coordinator implements verify.Storage.
func (s *Store) Coordinator(_ context.Context, txIDs []string) (map[string]verify.Entry, error) {
	return verify.Match(txIDs, s.rowsFor(txIDs)), nil
}

// CoordinatorTally implements verify.Storage.
func (s *Store) CoordinatorTally(_ context.Context, lateAfter int64) (t verify.CoordinatorTally, _ error) {
	for _, e := range s.Entries {
		t.Rows++
		t.Newest = max(t.Newest, e.CreatedAt)
		if e.CreatedAt > lateAfter {
			t.Late++
		}
	}
	return t, nil
}

// Aborted implements verify.Storage.
func (s *Store) Aborted(_ context.Context, each func([]string) error) error {
	for _, id := range slices.Sorted(maps.Keys(s.Entries)) {
		if e := s.Entries[id]; e.State == verify.StateAborted {
			if err := each(e.RecordIDs()); err != nil {
				return err
			}
		}
	}
	return nil
}

// CommittedAmong implements verify.Storage.
func (s *Store) CommittedAmong(_ context.Context, _ verify.Table, txIDs []string) (out []verify.Record, _ error) {
	for _, k := range slices.Sorted(maps.Keys(s.Rows)) {
		if r := s.Rows[k]; r.State == verify.StateCommitted && slices.Contains(txIDs, r.TxID) {
			out = append(out, s.record(k))
		}
	}
	return out, nil
}

// Close implements verify.Storage.
func (s *Store) Close() error { return nil }
