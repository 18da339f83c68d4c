package verify_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/relational"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify/verifytest"
)

const start = 1_700_000_000_000 // ms

// How many copies TestUnpausedCopiesAreCaught takes in each case.
var copies = flag.Int("copies", 10, "unpaused copies per case")

// bank is a history of 90 seconds, slow enough to be small: crashes in its first part, so that old leftovers stay; a pause near its end.
func bank(seed uint64) verifytest.Options {
	return verifytest.Options{Seed: seed, Start: start, Duration: 90_000, Storages: []string{"a", "b"}, Coordinator: "b", Accounts: 200, Threads: 4, Think: 800,
		PauseAt: start + 80_000, Crash: 0.05, CrashUntil: start + 25_000}
}

// busy is a history of 2 seconds under load, for copies that are taken without a pause.
func busy(seed uint64) verifytest.Options {
	return verifytest.Options{Seed: seed, Start: start, Duration: 2_000, Storages: []string{"a", "b"}, Coordinator: "b", Accounts: 20, Threads: 4, Think: 10}
}

func request(stores map[string]*verifytest.Store, from int64) verify.Request {
	q := verify.Request{Storages: map[string]verify.Storage{}, Drain: 30 * time.Second, Window: &verify.Window{From: time.UnixMilli(from), Until: time.UnixMilli(from + 5000)},
		Expected: map[string]verify.Expected{}}
	for name, s := range stores {
		q.Storages[name] = s
		q.Expected[name] = s.Expected()
	}
	return q
}

// paused copies both storages in the pause's window, at different instants of it.
func paused(h *verifytest.History, rng *rand.Rand) (stores map[string]*verifytest.Store, from int64) {
	from = max(h.PauseAt, h.Drained)
	return map[string]*verifytest.Store{"a": h.Cut("a", from+rng.Int64N(5000)), "b": h.Cut("b", from+rng.Int64N(5000))}, from
}

// mustBeWhole says that the generator is wrong, not verification, when a copy that should be right has another sum.
func mustBeWhole(t *testing.T, o verifytest.Options, stores map[string]*verifytest.Store) {
	t.Helper()
	if got, want := sum(stores), int64(2*o.Accounts*verifytest.Initial); got != want {
		t.Fatalf("seed %d: the generator is wrong: the bank's sum is %d, want %d", o.Seed, got, want)
	}
}

func run(t *testing.T, q verify.Request) verify.Report {
	t.Helper()
	r, err := verify.Run(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func sum(stores map[string]*verifytest.Store) int64 {
	return verifytest.Sum(stores["b"], stores["a"], stores["b"])
}

func dump(r verify.Report) string {
	b, _ := json.MarshalIndent(r, "", " ")
	return string(b)
}

func TestPausedCopiesPass(t *testing.T) {
	for _, c := range []struct {
		name  string
		shape func(*verifytest.Options)
	}{
		{"plain", func(*verifytest.Options) {}},
		{"group commit", func(o *verifytest.Options) { o.GroupCommit = true }},
		{"one-phase", func(o *verifytest.Options) { o.OnePhase = true }},
		{"skewed clocks", func(o *verifytest.Options) { o.Skew = 1000 }},
		{"group commit, skewed", func(o *verifytest.Options) { o.GroupCommit, o.Skew = true, 1000 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			var leftovers int64
			for seed := range uint64(3) {
				o := bank(seed)
				c.shape(&o)
				h := verifytest.Make(o)
				stores, from := paused(h, rand.New(rand.NewPCG(seed, 1)))
				mustBeWhole(t, o, stores)
				q := request(stores, from)
				q.ServerClockBound = time.Duration(o.Skew) * time.Millisecond
				if o.OnePhase {
					q.OnePhaseCommit = map[string]bool{"a": true, "b": true}
				}
				r := run(t, q)
				if !r.Passed {
					t.Fatalf("seed %d: a correct copy fails: %s", seed, dump(r))
				}
				leftovers += r.Leftovers
			}
			if leftovers == 0 {
				t.Error("no history left a crashed client's record: the generator tests too little")
			}
		})
	}
}

// TestAsyncCommit: where records are marked after the client was answered, a correct copy holds PREPARED ones. Only the declaration lets them pass.
func TestAsyncCommit(t *testing.T) {
	undeclaredFailed := 0
	for seed := range uint64(20) {
		o := busy(seed)
		o.Async, o.PauseAt = true, start+400
		h := verifytest.Make(o)
		from := max(h.PauseAt, h.Drained)
		stores := map[string]*verifytest.Store{"a": h.Cut("a", from+int64(seed)*10), "b": h.Cut("b", from+100)}
		mustBeWhole(t, o, stores)
		q := request(stores, from)
		if !run(t, q).Passed {
			undeclaredFailed++
		}
		q.AsyncCommit = map[string]bool{"a": true, "b": true}
		if r := run(t, q); !r.Passed {
			t.Fatalf("seed %d: a correct copy fails: %s", seed, dump(r))
		}
	}
	if undeclaredFailed == 0 {
		t.Error("no copy held a record to be marked: the generator tests too little")
	}
	// The declaration does not hide a copy that is cut in two before the record was prepared in one of them, or that is undecided.
	wrong, caught := 0, 0
	for seed := range uint64(20) {
		o := busy(seed)
		o.Async = true
		h := verifytest.Make(o)
		stores := map[string]*verifytest.Store{"a": h.Cut("a", start+700), "b": h.Cut("b", start+1000)}
		q := request(stores, start+700)
		q.Expected, q.AsyncCommit = nil, map[string]bool{"a": true, "b": true}
		passed := run(t, q).Passed
		if sum(stores) != int64(2*o.Accounts*verifytest.Initial) {
			wrong++
			if !passed {
				caught++
			}
		}
	}
	if wrong == 0 || caught < wrong {
		t.Errorf("caught %d of %d wrong copies", caught, wrong)
	}
}

// TestUnmarkedRecords: ScalarDB may fail to mark a record after its commit, and tells nobody. A perfect copy holds such records. Those of transactions that were decided
// before the window pass: as far as the servers' clocks can tell, or that of the coordinator's storage.
func TestUnmarkedRecords(t *testing.T) {
	for _, c := range []struct {
		name   string
		skew   int64
		stamps bool
		all    bool // pass
	}{
		{"exact clocks", 0, false, true},
		{"server clocks within 1 s", 1000, false, false},
		{"server clocks within 1 s, entries stamped by their storage", 1000, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			const seeds, ahead, uncertain = 40, -3_600_000, 3
			failed, unmarked, leftovers := 0, 0, int64(0)
			for seed := range uint64(seeds) {
				o := busy(seed)
				o.Unmarked, o.PauseAt, o.Skew, o.Stamps, o.Ahead = 0.02, start+1500, c.skew, c.stamps, ahead
				h := verifytest.Make(o)
				// The last client's answer still has its way to go.
				from := max(h.PauseAt, h.Drained) + 1 + uncertain
				stores := map[string]*verifytest.Store{"a": h.Cut("a", from+int64(seed)), "b": h.Cut("b", from+100)}
				mustBeWhole(t, o, stores)
				q := request(stores, from)
				q.ServerClockBound = time.Duration(c.skew) * time.Millisecond
				if c.stamps {
					q.Window.Opened = map[string]time.Time{"b": time.UnixMilli(from + ahead - uncertain), "a": {}}
				}
				r := run(t, q)
				if !r.Passed {
					failed++
				}
				leftovers += r.Leftovers
				for _, s := range stores {
					for _, row := range s.Rows {
						if row.State == verify.StatePrepared {
							unmarked++
						}
					}
				}
			}
			t.Logf("%d unmarked records, %d leftovers, %d of %d copies failed", unmarked, leftovers, failed, seeds)
			if unmarked == 0 || c.all && (failed > 0 || leftovers != int64(unmarked)) {
				t.Errorf("%d unmarked records, %d leftovers, %d of %d correct copies failed", unmarked, leftovers, failed, seeds)
			}
			if !c.all && failed == 0 {
				t.Error("no copy failed: here the storage's stamps tell nothing new")
			}
		})
	}
}

// TestUnpausedCopiesAreCaught cuts the two storages of a busy bank at different times, as two dumps without a pause would, and claims the first cut as the window.
func TestUnpausedCopiesAreCaught(t *testing.T) {
	for _, c := range []struct {
		name     string
		skew     int64
		minWrong float64 // of the copies whose sum is wrong
		apart    bool
		witness  string
		unmarked float64
	}{
		{"exact clocks", 0, 1, false, "none", 0},
		{"exact clocks, all witnesses", 0, 1, false, "all", 0},
		{"exact clocks, unmarked records", 0, 1, false, "none", 0.1},
		{"server clocks within 1 s", 1000, 0.9, false, "none", 0},
		{"server clocks within 1 s, coordinator and row counts", 1000, 0.9, false, "some", 0},
		{"server clocks within 1 s, all witnesses", 1000, 1, false, "all", 0},
		{"server clocks within 1 s, 1.2 to 1.8 s apart", 1000, 1, true, "none", 0},
		{"server clocks within 1 s, unmarked records", 1000, 0.9, false, "none", 0.1},
	} {
		t.Run(c.name, func(t *testing.T) {
			caught, wrong, wrongCaught := 0, 0, 0
			for seed := range uint64(*copies) {
				o := busy(seed)
				o.Skew, o.Unmarked, o.Stamps = c.skew, c.unmarked, c.unmarked > 0
				h := verifytest.Make(o)
				rng := rand.New(rand.NewPCG(seed, 2))
				first := start + 100 + rng.Int64N(1000)
				second := first + 1 + rng.Int64N(600)
				if c.apart {
					first = start + 100
					second = first + 1200 + rng.Int64N(600)
				}
				at := map[string]int64{"a": first, "b": second}
				if seed%2 == 1 {
					at = map[string]int64{"a": second, "b": first}
				}
				stores := map[string]*verifytest.Store{"a": h.Cut("a", at["a"]), "b": h.Cut("b", at["b"])}
				q := request(stores, first)
				q.ServerClockBound = time.Duration(c.skew) * time.Millisecond
				if o.Stamps {
					q.Window.Opened = map[string]time.Time{"a": time.UnixMilli(first), "b": time.UnixMilli(first)}
				}
				// The witnesses are of the window's start, as a driver would have read them.
				q.Expected = map[string]verify.Expected{"a": h.Cut("a", first).Expected(), "b": h.Cut("b", first).Expected()}
				switch c.witness {
				case "none":
					q.Expected = nil
				case "some":
					for _, e := range q.Expected {
						e.Tables[0].NewestCommitted = 0
					}
				}
				passed := run(t, q).Passed
				if !passed {
					caught++
				}
				if sum(stores) != int64(2*o.Accounts*verifytest.Initial) {
					wrong++
					if !passed {
						wrongCaught++
					}
				}
			}
			t.Logf("caught %d of %d copies; %d of the %d whose sum is wrong", caught, *copies, wrongCaught, wrong)
			if wrong < *copies/10 {
				t.Errorf("only %d of %d copies are wrong: the generator tests too little", wrong, *copies)
			}
			if float64(wrongCaught) < c.minWrong*float64(wrong) {
				t.Errorf("caught %d of %d wrong copies, want at least %.0f %%", wrongCaught, wrong, 100*c.minWrong)
			}
		})
	}
}

// small is a correct copy of two storages, to be broken by tests. Its window opens at from.
func small(t *testing.T) (stores map[string]*verifytest.Store, from int64) {
	t.Helper()
	o := bank(3)
	o.Crash, o.Accounts, o.Think = 0, 20, 8000
	h := verifytest.Make(o)
	stores, from = paused(h, rand.New(rand.NewPCG(3, 3)))
	for _, s := range stores { // to be changed at will
		s.Rows, s.Entries = maps.Clone(s.Rows), maps.Clone(s.Entries)
	}
	return stores, from
}

// TestOldThingsPass: what a healthy old system holds is no violation.
func TestOldThingsPass(t *testing.T) {
	stores, from := small(t)
	month := from - 30*24*3_600_000
	a := stores["a"]
	a.Rows[100] = &verifytest.Row{Balance: 1, TxID: "crashed", State: verify.StatePrepared, Version: 2, PreparedAt: month, CommittedAt: month - 1}
	a.Rows[101] = &verifytest.Row{Balance: 1, TxID: "crashed-after-commit", State: verify.StateDeleted, Version: 2, PreparedAt: month}
	a.Rows[102] = &verifytest.Row{Balance: 1}                                                                                                     // imported
	a.Rows[103] = &verifytest.Row{Balance: 1, TxID: "forgotten", State: verify.StateCommitted, Version: 1, PreparedAt: month, CommittedAt: month} // entry removed
	stores["b"].Entries["crashed-after-commit"] = verifytest.Entry("crashed-after-commit", verify.StateCommitted, month)
	clean := run(t, request(map[string]*verifytest.Store{"a": func() *verifytest.Store { s, _ := small(t); return s["a"] }(), "b": stores["b"]}, from))
	r := run(t, request(stores, from))
	if !r.Passed || r.Leftovers != 2 || r.Unverif != clean.Unverif+2 {
		t.Errorf("got passed %v, %d leftovers, %d unverifiable (want true, 2, %d): %s", r.Passed, r.Leftovers, r.Unverif, clean.Unverif+2, dump(r))
	}
}

// TestRules breaks a correct copy in one way each.
func TestRules(t *testing.T) {
	type world struct {
		stores map[string]*verifytest.Store
		from   int64
		q      *verify.Request
	}
	committed := func(w world, ago int64) *verifytest.Row {
		return &verifytest.Row{Balance: 1, TxID: "t", State: verify.StateCommitted, Version: 1, PreparedAt: w.from - ago, CommittedAt: w.from - ago}
	}
	prepared := func(w world, ago int64) *verifytest.Row {
		return &verifytest.Row{Balance: 1, TxID: "t", State: verify.StatePrepared, Version: 1, PreparedAt: w.from - ago}
	}
	entry := func(w world, state int, ago int64) {
		w.stores["b"].Entries["t"] = verifytest.Entry("t", state, w.from-ago)
	}
	const recent, old = 45_000, 45_001 // drain 30 s + 15 s
	for _, c := range []struct {
		name string
		do   func(w world)
		want map[string]int64
	}{
		{"nothing", func(world) {}, nil},
		{"prepared", func(w world) { w.stores["a"].Rows[1] = prepared(w, recent) }, map[string]int64{verify.RuleInFlight: 1}},
		{"deleted, after the window", func(w world) {
			w.stores["a"].Rows[1] = prepared(w, -100_000)
			w.stores["a"].Rows[1].State = verify.StateDeleted
		}, map[string]int64{verify.RuleInFlight: 1}},
		{"prepared without time", func(w world) {
			w.stores["a"].Rows[1] = prepared(w, 0)
			w.stores["a"].Rows[1].PreparedAt = 0
		}, map[string]int64{verify.RuleInFlight: 1}},
		{"prepared before", func(w world) { w.stores["a"].Rows[1] = prepared(w, old) }, nil},
		{"prepared, aborted long ago", func(w world) { w.stores["a"].Rows[1] = prepared(w, old); entry(w, verify.StateAborted, old) }, nil},
		{"prepared, committed long ago", func(w world) { w.stores["a"].Rows[1] = prepared(w, old); entry(w, verify.StateCommitted, old) }, nil},
		{"prepared before, committed just now", func(w world) { w.stores["a"].Rows[1] = prepared(w, old); entry(w, verify.StateCommitted, 0) },
			map[string]int64{verify.RuleAtomic: 1}},
		{"prepared and committed just now", func(w world) { w.stores["a"].Rows[1] = prepared(w, 0); entry(w, verify.StateCommitted, 0) },
			map[string]int64{verify.RuleAtomic: 1, verify.RuleInFlight: 1}},
		{"prepared and aborted just now", func(w world) { w.stores["a"].Rows[1] = prepared(w, 0); entry(w, verify.StateAborted, 0) },
			map[string]int64{verify.RuleInFlight: 1}},
		{"the same where commits are asynchronous", func(w world) {
			w.stores["a"].Rows[1] = prepared(w, 0)
			entry(w, verify.StateCommitted, 0)
			w.q.AsyncCommit = map[string]bool{"a": true}
		}, nil},
		{"prepared, committed before the window", func(w world) { w.stores["a"].Rows[1] = prepared(w, 5); entry(w, verify.StateCommitted, 1) }, nil},
		{"prepared, aborted before the window", func(w world) { w.stores["a"].Rows[1] = prepared(w, 5); entry(w, verify.StateAborted, 1) }, nil},
		{"deleted, committed before the window", func(w world) {
			w.stores["a"].Rows[1] = prepared(w, 5)
			w.stores["a"].Rows[1].State = verify.StateDeleted
			entry(w, verify.StateCommitted, 1)
		}, nil},
		{"prepared, committed before the window by a clock that may be wrong", func(w world) {
			w.stores["a"].Rows[1] = prepared(w, 5)
			entry(w, verify.StateCommitted, 1000)
			w.q.ServerClockBound = time.Second
		}, map[string]int64{verify.RuleAtomic: 1, verify.RuleInFlight: 1}},
		{"prepared, committed at no known time", func(w world) {
			w.stores["a"].Rows[1] = prepared(w, 5)
			w.stores["b"].Entries["t"] = verifytest.Entry("t", verify.StateCommitted, 0)
		}, map[string]int64{verify.RuleAtomic: 1, verify.RuleInFlight: 1}},
		{"asynchronous, undecided", func(w world) {
			w.stores["a"].Rows[1] = prepared(w, recent)
			w.q.AsyncCommit = map[string]bool{"a": true}
		}, map[string]int64{verify.RuleInFlight: 1}},
		{"committed late", func(w world) { w.stores["a"].Rows[1] = committed(w, -1); entry(w, verify.StateCommitted, 0) }, map[string]int64{verify.RuleLate: 1}},
		{"committed at the start", func(w world) { w.stores["a"].Rows[1] = committed(w, 0); entry(w, verify.StateCommitted, 0) }, nil},
		{"entry late", func(w world) { entry(w, verify.StateAborted, -1) }, map[string]int64{verify.RuleLate: 1}},
		{"entry late within the bound", func(w world) { entry(w, verify.StateAborted, -1000); w.q.ServerClockBound = time.Second }, nil},
		{"committed, aborted", func(w world) { w.stores["a"].Rows[1] = committed(w, old); entry(w, verify.StateAborted, old) }, map[string]int64{verify.RuleAtomic: 1}},
		{"committed, aborted, beside the coordinator", func(w world) { w.stores["b"].Rows[1] = committed(w, recent); entry(w, verify.StateAborted, recent) },
			map[string]int64{verify.RuleAtomic: 1}},
		{"committed without entry", func(w world) { w.stores["a"].Rows[1] = committed(w, recent) }, map[string]int64{verify.RuleAtomic: 1}},
		{"committed without entry long ago", func(w world) { w.stores["a"].Rows[1] = committed(w, old) }, nil},
		{"committed in one phase", func(w world) {
			w.stores["a"].Rows[1] = committed(w, recent)
			w.q.OnePhaseCommit = map[string]bool{"a": true}
		}, nil},
		{"one phase elsewhere", func(w world) {
			w.stores["a"].Rows[1] = committed(w, recent)
			w.q.OnePhaseCommit = map[string]bool{"b": true}
		}, map[string]int64{verify.RuleAtomic: 1}},
		{"a state that no record has", func(w world) {
			w.stores["a"].Rows[1] = committed(w, old)
			w.stores["a"].Rows[1].State = verify.StateAborted
		}, map[string]int64{verify.RuleAtomic: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			stores, from := small(t)
			q := request(nil, from)
			q.Expected = nil
			w := world{stores, from, &q}
			c.do(w)
			for n, s := range stores {
				q.Storages[n] = s
			}
			check := func(t *testing.T, r verify.Report) {
				t.Helper()
				got := map[string]int64{}
				for _, tr := range r.Tables {
					for rule, n := range tr.ByRule {
						got[rule] += n
					}
					if len(tr.ByRule) > 0 && len(tr.Samples) == 0 {
						t.Errorf("the violations of %s have no sample", tr.Table)
					}
				}
				if c.want == nil {
					c.want = map[string]int64{}
				}
				if !reflect.DeepEqual(got, c.want) || r.Passed != (len(c.want) == 0) {
					t.Errorf("got %v, want %v: %s", got, c.want, dump(r))
				}
			}
			r := run(t, q)
			check(t, r)
			// The same over SQL.
			viaSQL := q
			viaSQL.Storages = map[string]verify.Storage{}
			for n, s := range stores {
				viaSQL.Storages[n] = open(t, s, verifytest.Layout{}, false)
			}
			if s := run(t, viaSQL); dump(s) != dump(r) {
				t.Errorf("SQL: %s\nmemory: %s", dump(s), dump(r))
			}
		})
	}
}

// TestComplete breaks what rule 4 looks at.
func TestComplete(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(stores map[string]*verifytest.Store, q *verify.Request)
		want int64
	}{
		{"nothing", func(map[string]*verifytest.Store, *verify.Request) {}, 0},
		{"emptied", func(s map[string]*verifytest.Store, q *verify.Request) { clear(s["a"].Rows) }, 2}, // rows, and the newest commit
		{"emptied, estimated", func(s map[string]*verifytest.Store, q *verify.Request) {
			clear(s["a"].Rows)
			q.Expected["a"].Tables[0].Estimated, q.Expected["a"].Tables[0].NewestCommitted = true, 0
		}, 1},
		{"other number, estimated", func(s map[string]*verifytest.Store, q *verify.Request) {
			q.Expected["a"].Tables[0].Estimated = true
			q.Expected["a"].Tables[0].Rows = 7
		}, 0},
		{"estimated as empty", func(s map[string]*verifytest.Store, q *verify.Request) {
			q.Expected["a"].Tables[0].Estimated = true
			q.Expected["a"].Tables[0].Rows = 0
		}, 0},
		{"unknown number", func(s map[string]*verifytest.Store, q *verify.Request) { q.Expected["a"].Tables[0].Rows = -1 }, 0},
		{"one row less", func(s map[string]*verifytest.Store, q *verify.Request) { q.Expected["a"].Tables[0].Rows++ }, 1},
		{"missing", func(s map[string]*verifytest.Store, q *verify.Request) {
			e := q.Expected["a"]
			e.Tables = append(e.Tables, verify.ExpectedTable{Namespace: "bank_a", Name: "gone", Rows: -1})
			q.Expected["a"] = e
		}, 1},
		{"coordinator restored too early", func(s map[string]*verifytest.Store, q *verify.Request) {
			e := q.Expected["b"]
			e.CoordinatorNewest++
			q.Expected["b"] = e
		}, 1},
		{"coordinator emptied", func(s map[string]*verifytest.Store, q *verify.Request) {
			clear(s["b"].Entries)
			q.OnePhaseCommit = map[string]bool{"a": true, "b": true}
		}, 1},
		{"coordinator elsewhere", func(s map[string]*verifytest.Store, q *verify.Request) {
			q.Expected["a"] = verify.Expected{HasCoordinator: true}
		}, 1},
		{"other storage restored too early", func(s map[string]*verifytest.Store, q *verify.Request) {
			q.Expected["a"].Tables[0].NewestCommitted++
		}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			stores, from := small(t)
			q := request(stores, from)
			c.do(stores, &q)
			r := run(t, q)
			var got int64
			for _, tr := range r.Tables {
				got += tr.ByRule[verify.RuleComplete]
			}
			if got != c.want || r.Violations != c.want || r.Passed != (c.want == 0) {
				t.Errorf("got %d violations of this rule, %d in all, want %d: %s", got, r.Violations, c.want, dump(r))
			}
		})
	}
}

// open writes a copy to SQLite and opens it: in a file for a pool of connections, or in memory over a single one.
func open(t *testing.T, s *verifytest.Store, l verifytest.Layout, pool bool) verify.Storage {
	t.Helper()
	name := ":memory:"
	if pool {
		name = "file:" + filepath.Join(t.TempDir(), "db") + "?_pragma=synchronous(0)&_pragma=journal_mode(memory)"
	}
	db, err := sql.Open("sqlite", name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if !pool {
		db.SetMaxOpenConns(1)
	}
	if err := s.Write(t.Context(), db, verifytest.Dialect{}, l); err != nil {
		t.Fatal(err)
	}
	return relational.NewReader(db, verifytest.Dialect{}, l.Layout, nil)
}

// TestSQLReadsTheSame: the same copies, right and wrong ones, give the same report over SQL, whatever the layout, as the plain reading in memory does.
func TestSQLReadsTheSame(t *testing.T) {
	seeds, failed := uint64(3), 0
	for _, c := range []struct {
		name  string
		group bool
		l     verifytest.Layout
	}{
		{"plain", false, verifytest.Layout{}},
		{"decoupled", false, verifytest.Layout{Decoupled: true}},
		{"groups, names of their own", true, verifytest.Layout{Groups: true, Layout: relational.Layout{CoordinatorNamespace: "my_coordinator", MetadataNamespace: "my_meta"}}},
		{"groups, decoupled", true, verifytest.Layout{Groups: true, Decoupled: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for seed := range seeds {
				o := busy(seed)
				o.GroupCommit, o.Threads, o.Accounts, o.Think = c.group, 2, 40, 60
				if seed%3 == 0 {
					o.PauseAt = start + 1000
				}
				h := verifytest.Make(o)
				stores := map[string]*verifytest.Store{"a": h.Cut("a", start+1200), "b": h.Cut("b", start+1200+int64(seed%3)*100)}
				q := request(stores, start+1150)
				want := run(t, q)
				for n, s := range stores {
					q.Storages[n] = open(t, s, c.l, seed > 0)
				}
				got := run(t, q)
				if dump(got) != dump(want) {
					t.Fatalf("seed %d: SQL: %s\nmemory: %s", seed, dump(got), dump(want))
				}
				if !got.Passed {
					failed++
				}
			}
		})
	}
	if failed == 0 || failed == int(4*seeds) {
		t.Errorf("%d of %d copies fail: the generator tests too little", failed, 4*seeds)
	}
}

// backwards streams records in the opposite order.
type backwards struct{ *verifytest.Store }

func (b backwards) Records(ctx context.Context, t verify.Table, f verify.RecordFilter, each func(verify.Record) error) error {
	if f.Limit > 0 {
		return b.Store.Records(ctx, t, f, each)
	}
	var all []verify.Record
	if err := b.Store.Records(ctx, t, f, func(r verify.Record) error { all = append(all, r); return nil }); err != nil {
		return err
	}
	for _, r := range slices.Backward(all) {
		if err := each(r); err != nil {
			return err
		}
	}
	return nil
}

func TestReportIsStable(t *testing.T) {
	stores, from := small(t)
	for k := range 9 {
		stores["a"].Rows[k] = &verifytest.Row{TxID: fmt.Sprint("t", k), State: verify.StatePrepared, PreparedAt: from, CommittedAt: from}
		stores["a"].Rows[10+k] = &verifytest.Row{TxID: fmt.Sprint("u", k), State: verify.StateCommitted, PreparedAt: from, CommittedAt: from}
	}
	q := request(stores, from)
	q.Expected, q.MaxSamples = nil, 3
	want := run(t, q)
	q.Storages["a"] = backwards{stores["a"]}
	if got := run(t, q); dump(got) != dump(want) {
		t.Fatalf("two reports of the same data: %s\n%s", dump(got), dump(want))
	}
	a := want.Tables[0]
	if a.ByRule[verify.RuleInFlight] != 9 || a.ByRule[verify.RuleAtomic] != 9 || len(a.Samples) != 6 || !strings.HasPrefix(a.Samples[0], "atomic: id=10: ") ||
		!strings.HasPrefix(a.Samples[3], "in flight: id=0: ") {
		t.Error(dump(want))
	}
}

// TestGroups: what a group's entry says counts for the children that it names, and for no other.
func TestGroups(t *testing.T) {
	const parent = "ABCDEFGHIJKLMNOPQRSTUVWX"
	for _, c := range []struct {
		name       string
		group, own int // states of the entries; 0: none
		children   string
		ago        int64
		violations int64
		unverif    int64
	}{
		{"committed with its group", verify.StateCommitted, 0, "x,child", 0, 0, 0},
		{"committed with its group long ago", verify.StateCommitted, 0, "child", 100_000, 0, 0},
		{"not of this group", verify.StateCommitted, 0, "x,chil", 0, 1, 0},
		{"not of this group, long ago", verify.StateCommitted, 0, "x,chil", 100_000, 0, 1},
		{"late for its group", verify.StateCommitted, verify.StateCommitted, "x", 0, 0, 0},
		{"late, and aborted", verify.StateCommitted, verify.StateAborted, "x", 0, 1, 0},
		{"the group's word is the first", verify.StateCommitted, verify.StateAborted, "child", 0, 0, 0},
		{"a group aborted by lazy recovery", verify.StateAborted, verify.StateCommitted, "", 0, 0, 0},
		{"aborted with its group", verify.StateAborted, 0, "x,child", 0, 1, 0},
		{"aborted with its group long ago", verify.StateAborted, 0, "x,child", 100_000, 1, 0},
		{"alone", 0, verify.StateCommitted, "", 0, 0, 0},
	} {
		for _, storage := range []string{"a", "b"} {
			t.Run(c.name+" in "+storage, func(t *testing.T) {
				stores, from := small(t)
				for _, s := range stores {
					clear(s.Rows)
					clear(s.Entries)
				}
				stores[storage].Rows[1] = &verifytest.Row{TxID: parent + ":child", State: verify.StateCommitted, PreparedAt: from - c.ago, CommittedAt: from - c.ago}
				b := stores["b"].Entries
				if c.group != 0 {
					e := verifytest.Entry(parent, c.group, from-c.ago)
					e.ChildIDs = c.children
					b[parent] = e
				}
				if c.own != 0 {
					b[parent+":child"] = verifytest.Entry(parent+":child", c.own, from-c.ago)
				}
				q := request(stores, from)
				for range 2 {
					if r := run(t, q); r.Violations != c.violations || r.Unverif != c.unverif {
						t.Errorf("got %d violations, %d unverifiable, want %d and %d: %s", r.Violations, r.Unverif, c.violations, c.unverif, dump(r))
					}
					for n, s := range stores {
						q.Storages[n] = open(t, s, verifytest.Layout{Groups: true}, false)
					}
				}
			})
		}
	}
}

// fakeClock runs what is due when somebody sleeps.
type fakeClock struct {
	now   time.Time
	slept time.Duration
	at    func(slept time.Duration)
}

func (c *fakeClock) Now() time.Time { return c.now }
func (c *fakeClock) Sleep(ctx context.Context, d time.Duration) error {
	c.slept += d
	c.now = c.now.Add(d)
	if c.at != nil {
		c.at(c.slept)
	}
	return ctx.Err()
}

func TestLive(t *testing.T) {
	live := func(t *testing.T) (map[string]*verifytest.Store, verify.Request, *fakeClock) {
		stores, from := small(t)
		clock := &fakeClock{now: time.UnixMilli(from + 100)}
		q := request(stores, from)
		q.Window, q.Expected, q.Clock = nil, nil, clock
		return stores, q, clock
	}
	half := func(stores map[string]*verifytest.Store, now int64) {
		stores["a"].Rows[1] = &verifytest.Row{TxID: "t", State: verify.StatePrepared, Version: 1, PreparedAt: now}
		stores["b"].Entries["t"] = verifytest.Entry("t", verify.StateCommitted, now)
	}
	t.Run("quiet", func(t *testing.T) {
		_, q, clock := live(t)
		if r := run(t, q); !r.Passed || clock.slept != 0 {
			t.Errorf("slept %s: %s", clock.slept, dump(r))
		}
	})
	t.Run("in flight, then done", func(t *testing.T) {
		stores, q, clock := live(t)
		half(stores, clock.now.UnixMilli())
		clock.at = func(slept time.Duration) {
			if slept >= 5*time.Second {
				done := *stores["a"].Rows[1]
				done.State = verify.StateCommitted
				stores["a"].Rows[1] = &done
			}
		}
		if r := run(t, q); !r.Passed || clock.slept != 5*time.Second {
			t.Errorf("slept %s: %s", clock.slept, dump(r))
		}
	})
	t.Run("stays", func(t *testing.T) {
		stores, q, clock := live(t)
		half(stores, clock.now.UnixMilli())
		if r := run(t, q); r.Violations != 1 || clock.slept != 15*time.Second {
			t.Errorf("slept %s: %s", clock.slept, dump(r))
		}
	})
	t.Run("undecided", func(t *testing.T) {
		stores, q, clock := live(t)
		half(stores, clock.now.UnixMilli())
		delete(stores["b"].Entries, "t")
		if r := run(t, q); !r.Passed || clock.slept != 0 {
			t.Errorf("slept %s: %s", clock.slept, dump(r))
		}
	})
	t.Run("committed and aborted", func(t *testing.T) {
		stores, q, clock := live(t)
		half(stores, clock.now.UnixMilli())
		stores["a"].Rows[1].State = verify.StateCommitted
		stores["b"].Entries["t"] = verifytest.Entry("t", verify.StateAborted, 1)
		if r := run(t, q); r.Violations != 1 {
			t.Error(dump(r))
		}
	})
	t.Run("no clock", func(t *testing.T) {
		_, q, _ := live(t)
		q.Clock = nil
		if _, err := verify.Run(t.Context(), q); err == nil {
			t.Error("a live check without a clock was made")
		}
	})
}

func TestRefusals(t *testing.T) {
	stores, from := small(t)
	for _, c := range []struct {
		name, want string
		do         func(q *verify.Request)
	}{
		{"no storage", "no storage", func(q *verify.Request) { q.Storages = nil }},
		{"no coordinator", "none of the storages", func(q *verify.Request) { delete(q.Storages, "b"); delete(q.Expected, "b") }},
		{"two coordinators", "a, b", func(q *verify.Request) { q.Storages["a"] = stores["b"] }},
		{"coordinator unknown", `"c"`, func(q *verify.Request) { q.Coordinator = "c" }},
		{"coordinator absent", `"a"`, func(q *verify.Request) { q.Coordinator = "a" }},
		{"storage of the backup absent", `"c"`, func(q *verify.Request) { q.Expected["c"] = verify.Expected{} }},
		{"option for an unknown storage", `"c"`, func(q *verify.Request) { q.AsyncCommit = map[string]bool{"c": true} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := request(stores, from)
			c.do(&q)
			if _, err := verify.Run(t.Context(), q); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %s", err, c.want)
			}
		})
	}
}

func TestCancel(t *testing.T) {
	stores, from := small(t)
	ctx, cancel := context.WithCancel(t.Context())
	q := request(stores, from)
	q.Progress = func(string, map[string]any) { cancel() }
	if _, err := verify.Run(ctx, q); err == nil || !strings.Contains(err.Error(), context.Canceled.Error()) {
		t.Errorf("got %v, want the cancellation", err)
	}
}

func FuzzSplitTxID(f *testing.F) {
	f.Add("0123456789ABCDEFGHIJKLMN:child", "x,child")
	f.Add("0123456789ABCDEFGHIJKLMN:", ",,")
	f.Add("a:b", "")
	f.Fuzz(func(t *testing.T, id, column string) {
		parent, child, ok := verify.SplitTxID(id)
		if ok && (parent+":"+child != id || len(parent) != 24) || !ok && parent+child != "" {
			t.Errorf("%q: %q, %q, %v", id, parent, child, ok)
		}
		children := verify.ChildIDs(column)
		if slices.Contains(children, "") || strings.Contains(strings.Join(children, ""), ",") {
			t.Errorf("%q: %q", column, children)
		}
		// A group's entry counts for exactly the children that it names.
		if ok {
			_, found := verify.Match([]string{id}, []verify.StoredEntry{{TxID: parent, ChildIDs: column, Entry: verify.Entry{State: 3}}})[id]
			if found != (child != "" && slices.Contains(children, child)) {
				t.Errorf("%q among %q: %v", child, column, found)
			}
		}
	})
}

func ExampleRun() {
	h := verifytest.Make(verifytest.Options{Seed: 1, Start: start, Duration: 100, Storages: []string{"a", "b"}, Coordinator: "b", Accounts: 4, Threads: 1, Think: 5, PauseAt: start + 50})
	from := max(h.PauseAt, h.Drained)
	r, err := verify.Run(context.Background(), verify.Request{
		Storages: map[string]verify.Storage{"a": h.Cut("a", from), "b": h.Cut("b", from+1000)},
		Window:   &verify.Window{From: time.UnixMilli(from), Until: time.UnixMilli(from + 5000)},
		Drain:    30 * time.Second,
	})
	fmt.Println(err, r.Passed, r.Records)
	// Output: <nil> true 8
}
