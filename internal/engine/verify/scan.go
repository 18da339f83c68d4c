package verify

import (
	"math"
	"slices"
	"strings"
)

// What a Storage needs whose database cannot aggregate, and which scans: the rules' view of one record.

// Uncommitted says that the record is PREPARED or DELETED.
func (r Record) Uncommitted() bool { return r.State == StatePrepared || r.State == StateDeleted }

// Invalid says that the record has a tx_id, and a state that no record has.
func (r Record) Invalid() bool {
	return r.TxID != "" && !r.Uncommitted() && r.State != StateCommitted
}

// Count adds one record.
func (t *Tally) Count(r Record, q TallyQuery) {
	t.Rows++
	switch {
	case r.Uncommitted() && q.InFlightSince != math.MaxInt64 && (r.PreparedAt >= q.InFlightSince || r.PreparedAt == 0):
		t.InFlight++
	case r.Uncommitted():
		t.Leftovers++
	case r.Invalid():
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

// Matches says whether the filter selects the record. A record that is PREPARED at no known time passes PreparedSince.
func (f RecordFilter) Matches(r Record) bool {
	switch {
	case f.Invalid && !r.Invalid(),
		!f.Invalid && len(f.States) > 0 && !slices.Contains(f.States, r.State),
		f.PreparedSince != 0 && r.PreparedAt != 0 && r.PreparedAt < f.PreparedSince,
		f.CommittedSince != 0 && r.CommittedAt < f.CommittedSince,
		f.CommittedAfter != 0 && r.CommittedAt <= f.CommittedAfter:
		return false
	}
	return true
}

// Selection passes on what a scan found and the filter matched: at once, or, with a limit, the records with the least keys when the scan has ended, so that two looks name
// the same ones.
type Selection struct {
	limit int
	each  func(Record) error
	least []Record
}

// Select begins a scan.
func (f RecordFilter) Select(each func(Record) error) *Selection {
	return &Selection{limit: f.Limit, each: each}
}

// Add takes the scan's next match; its error is each's.
func (s *Selection) Add(r Record) error {
	if s.limit <= 0 {
		return s.each(r)
	}
	at, _ := slices.BinarySearchFunc(s.least, r, func(a, b Record) int { return strings.Compare(a.Key, b.Key) })
	if at < s.limit {
		s.least = slices.Insert(s.least, at, r)
		s.least = s.least[:min(len(s.least), s.limit)]
	}
	return nil
}

// End passes on what a limit held back.
func (s *Selection) End() error {
	for _, r := range s.least {
		if err := s.each(r); err != nil {
			return err
		}
	}
	return nil
}
