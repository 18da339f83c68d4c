// Package verifytest makes histories of a bank that runs on ScalarDB over several storages, and cuts copies out of them, for tests of whatever judges
// such copies. It follows ScalarDB's Consensus Commit: prepare, coordinator entry, commit of the records, conflicts, crashes and lazy recovery.
package verifytest

import (
	"cmp"
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
)

// Row is one account: a record with its transaction columns and its before image.
type Row struct {
	Balance     int64
	TxID        string // empty: null
	State       int    // 0: null
	Version     int64
	PreparedAt  int64 // 0: null
	CommittedAt int64 // 0: null
	Before      *Row
}

// Options shape a history. Times are milliseconds.
type Options struct {
	Seed        uint64
	Start       int64 // true time of the first transaction
	Duration    int64 // no transaction starts later
	Storages    []string
	Coordinator string // which of them has the coordinator table
	Accounts    int    // per storage
	Threads     int
	Think       int64 // longest time between two transactions of a thread
	// Skew is the largest clock error of a thread's server.
	Skew int64
	// PauseAt stops new transactions; the window opens when the last one is finished. 0: never.
	PauseAt int64
	// Crash is the share of transactions whose client dies on the way.
	Crash       float64
	CrashUntil  int64 // true time
	GroupCommit bool
	OnePhase    bool // transactions within one storage leave no coordinator entry
	Async       bool // records are marked only after the client was answered
	// Unmarked is the share of records whose mark fails after a commit, of which nobody is told.
	Unmarked float64
	// Stamps lets the coordinator's storage tell when entries were written, by a clock that is Ahead of the true time.
	Stamps bool
	Ahead  int64
}

// change is one atomic write to one storage.
type change struct {
	at      int64
	storage string
	key     int  // account; -1: the coordinator table
	row     *Row // nil: deleted
	entry   verify.StoredEntry
}

// History is all changes in the order of true time.
type History struct {
	Options
	changes []change
	// Drained is when the last transaction before the pause was answered; 0 without pause. With Async, records may be marked later.
	Drained int64
	// End is the time of the last change.
	End       int64
	Committed int // transactions
}

// Initial is every account's first balance.
const Initial = 1000

type world struct {
	Options
	rng     *rand.Rand
	rows    map[string][]*Row
	entries map[string]verify.StoredEntry
	h       *History
	queue   steps
	ids     int
}

type step struct {
	at  int64
	seq int // orders steps of one instant
	do  func(now int64)
}

type steps []step

func (s steps) Len() int { return len(s) }
func (s steps) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(s[i].at, s[j].at), cmp.Compare(s[i].seq, s[j].seq)) < 0
}
func (s steps) Swap(i, j int) { s[i], s[j] = s[j], s[i] }
func (s *steps) Push(x any)   { *s = append(*s, x.(step)) }
func (s *steps) Pop() any     { x := (*s)[len(*s)-1]; *s = (*s)[:len(*s)-1]; return x }

// Make runs the bank.
func Make(o Options) *History {
	w := &world{Options: o, rng: rand.New(rand.NewPCG(o.Seed, 7)), rows: map[string][]*Row{}, entries: map[string]verify.StoredEntry{}, h: &History{Options: o}}
	for _, s := range o.Storages {
		for k := range o.Accounts {
			// Half of the accounts were imported: they have no transaction columns yet.
			r := &Row{Balance: Initial}
			if k%2 == 0 {
				r.TxID, r.State, r.Version = fmt.Sprintf("load-%s-%d", s, k), verify.StateCommitted, 1
				r.PreparedAt, r.CommittedAt = o.Start-3_600_000, o.Start-3_600_000+5
			}
			w.rows[s] = append(w.rows[s], r)
			w.h.changes = append(w.h.changes, change{at: o.Start - 3_600_000, storage: s, key: k, row: r})
		}
	}
	for range o.Threads {
		skew := int64(0)
		if o.Skew > 0 {
			skew = w.rng.Int64N(2*o.Skew+1) - o.Skew
		}
		w.after(o.Start, w.rng.Int64N(o.Think+1), func(now int64) { w.begin(now, skew) })
	}
	for w.queue.Len() > 0 {
		s := heap.Pop(&w.queue).(step)
		s.do(s.at)
	}
	slices.SortStableFunc(w.h.changes, func(a, b change) int { return cmp.Compare(a.at, b.at) })
	w.h.End = w.h.changes[len(w.h.changes)-1].at
	return w.h
}

func (w *world) after(now, delay int64, do func(now int64)) {
	w.ids++
	heap.Push(&w.queue, step{now + delay, w.ids, do})
}

func (w *world) write(now int64, storage string, key int, r *Row) {
	w.rows[storage][key] = r
	w.h.changes = append(w.h.changes, change{at: now, storage: storage, key: key, row: r})
}

// put is the coordinator's put-if-absent.
func (w *world) put(now int64, e verify.StoredEntry) bool {
	if _, ok := w.entries[e.TxID]; ok {
		return false
	}
	if w.Stamps {
		e.WrittenAt = (now + w.Ahead) * 1000
	}
	w.entries[e.TxID] = e
	w.h.changes = append(w.h.changes, change{at: now, storage: w.Coordinator, key: -1, entry: e})
	return true
}

func (w *world) state(txID string) (verify.Entry, bool) {
	var rows []verify.StoredEntry
	for _, id := range verify.LookupIDs([]string{txID}) {
		if e, ok := w.entries[id]; ok {
			rows = append(rows, e)
		}
	}
	e, ok := verify.Match([]string{txID}, rows)[txID]
	return e, ok
}

// abort writes ABORTED as lazy recovery and a failed prepare do.
func (w *world) abort(now, clock int64, txID string, lazy bool) bool {
	if parent, child, ok := verify.SplitTxID(txID); ok && lazy {
		if !w.put(now, verify.StoredEntry{TxID: parent, Entry: verify.Entry{State: verify.StateAborted, CreatedAt: clock}}) {
			if group := w.entries[parent]; slices.Contains(verify.ChildIDs(group.ChildIDs), child) {
				return group.State == verify.StateAborted
			}
		}
	}
	return w.put(now, verify.StoredEntry{TxID: txID, Entry: verify.Entry{State: verify.StateAborted, CreatedAt: clock}})
}

type account struct {
	storage string
	key     int
}

// tx is one transfer on its way.
type tx struct {
	id      string
	skew    int64
	moves   []account
	amounts []int64
	crashAt int // step after which the client dies; -1: never
}

func (w *world) newID() string {
	const letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	id := func(n int) string {
		var b strings.Builder
		for range n {
			b.WriteByte(letters[w.rng.IntN(len(letters))])
		}
		return b.String()
	}
	if w.GroupCommit {
		return id(24) + ":" + id(8) + "-" + id(4)
	}
	return id(8) + "-" + id(4) + "-" + id(12)
}

func (w *world) begin(now, skew int64) {
	if now > w.Start+w.Duration || (w.PauseAt > 0 && now >= w.PauseAt) {
		return
	}
	t := &tx{id: w.newID(), skew: skew, crashAt: -1}
	for len(t.moves) < 2 {
		a := account{w.Storages[w.rng.IntN(len(w.Storages))], w.rng.IntN(w.Accounts)}
		if !slices.Contains(t.moves, a) {
			t.moves = append(t.moves, a)
		}
	}
	amount := w.rng.Int64N(50) + 1
	t.amounts = []int64{-amount, amount}
	if now < w.CrashUntil && w.rng.Float64() < w.Crash {
		t.crashAt = w.rng.IntN(4)
	}
	if w.OnePhase && t.moves[0].storage == t.moves[1].storage {
		w.after(now, 1+w.rng.Int64N(8), func(now int64) { w.onePhase(now, t) })
		return
	}
	w.after(now, 1+w.rng.Int64N(8), func(now int64) { w.prepare(now, t, 0) })
}

func (w *world) next(now int64, t *tx) {
	if w.PauseAt > 0 {
		w.h.Drained = max(w.h.Drained, now)
	}
	w.after(now, w.rng.Int64N(w.Think+1), func(now int64) { w.begin(now, t.skew) })
}

func (w *world) onePhase(now int64, t *tx) {
	for _, a := range t.moves {
		if s := w.rows[a.storage][a.key].State; s == verify.StatePrepared {
			w.next(now, t)
			return
		}
	}
	for i, a := range t.moves {
		r := *w.rows[a.storage][a.key]
		w.write(now, a.storage, a.key, &Row{Balance: r.Balance + t.amounts[i], TxID: t.id, State: verify.StateCommitted, Version: r.Version + 1,
			PreparedAt: now + t.skew, CommittedAt: now + t.skew})
	}
	w.h.Committed++
	w.next(now, t)
}

// die ends the client if it is its time; a pause does not wait for a dead one.
func (w *world) die(now int64, t *tx, at int) bool {
	if t.crashAt != at {
		return false
	}
	w.next(now, t)
	return true
}

func (w *world) prepare(now int64, t *tx, i int) {
	a := t.moves[i]
	r := w.rows[a.storage][a.key]
	if r.State == verify.StatePrepared {
		if !w.recover(now, t.skew, a) {
			w.abort(now, now+t.skew, t.id, false)
			w.after(now, 1+w.rng.Int64N(5), func(now int64) { w.rollback(now, t, i) })
			return
		}
		r = w.rows[a.storage][a.key]
	}
	before := *r
	before.Before = nil
	w.write(now, a.storage, a.key, &Row{Balance: r.Balance + t.amounts[i], TxID: t.id, State: verify.StatePrepared, Version: r.Version + 1,
		PreparedAt: now + t.skew, CommittedAt: r.CommittedAt, Before: &before})
	if w.die(now, t, i) {
		return
	}
	if i+1 < len(t.moves) {
		w.after(now, 1+w.rng.Int64N(6), func(now int64) { w.prepare(now, t, i+1) })
		return
	}
	w.after(now, 1+w.rng.Int64N(6), func(now int64) { w.commit(now, t) })
}

// recover is ScalarDB's lazy recovery; false: the record's transaction may still be in flight.
func (w *world) recover(now, skew int64, a account) bool {
	r := w.rows[a.storage][a.key]
	e, found := w.state(r.TxID)
	if !found {
		if now+skew-r.PreparedAt < 15_000 {
			return false
		}
		w.abort(now, now+skew, r.TxID, true)
		e, _ = w.state(r.TxID)
	}
	if e.State == verify.StateCommitted {
		w.mark(now, now+skew, a, r.TxID)
	} else {
		w.undo(now, a, r.TxID)
	}
	return true
}

func (w *world) mark(now, clock int64, a account, txID string) {
	r := w.rows[a.storage][a.key]
	if r.TxID == txID && r.State == verify.StatePrepared {
		done := *r
		done.State, done.CommittedAt = verify.StateCommitted, clock
		w.write(now, a.storage, a.key, &done)
	}
}

func (w *world) undo(now int64, a account, txID string) {
	r := w.rows[a.storage][a.key]
	if r.TxID == txID && r.State == verify.StatePrepared {
		back := *r.Before
		w.write(now, a.storage, a.key, &back)
	}
}

func (w *world) rollback(now int64, t *tx, prepared int) {
	for _, a := range t.moves[:prepared] {
		w.undo(now, a, t.id)
	}
	w.next(now, t)
}

func (w *world) commit(now int64, t *tx) {
	clock := now + t.skew
	e := verify.StoredEntry{TxID: t.id, Entry: verify.Entry{State: verify.StateCommitted, CreatedAt: clock}}
	if parent, child, ok := verify.SplitTxID(t.id); ok && w.rng.IntN(3) > 0 { // the others were late for their group
		e.TxID, e.ChildIDs = parent, "another-child,"+child
	}
	if !w.put(now, e) {
		w.after(now, 1, func(now int64) { w.rollback(now, t, len(t.moves)) })
		return
	}
	w.h.Committed++
	if w.die(now, t, 2) {
		return
	}
	if w.Async {
		w.next(now, t)
	}
	for i, a := range t.moves {
		delay := int64(i+1) * (1 + w.rng.Int64N(4))
		if w.Async {
			delay = 1 + w.rng.Int64N(300)
		}
		if t.crashAt == 3 && i > 0 {
			if !w.Async {
				w.next(now, t)
			}
			return
		}
		w.after(now, delay, func(now int64) {
			if w.Unmarked == 0 || w.rng.Float64() >= w.Unmarked {
				w.mark(now, clock, a, t.id)
			}
			if i+1 == len(t.moves) && !w.Async {
				w.next(now, t)
			}
		})
	}
}
