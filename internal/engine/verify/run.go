package verify

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// lifetime is ScalarDB's own: a PREPARED record that is older, and has no coordinator entry, is a dead client's, and anybody aborts it.
	lifetime = 15 * time.Second
	// batch is how many ids are looked up in the coordinator at once.
	batch = 1000
	// maxUncounted bounds the lookups that are made for the count of unverifiable records alone.
	maxUncounted = 100_000
	// maxSuspects bounds what a live check holds of one table to look at it again; so many are not in flight.
	maxSuspects = 50_000

	defaultSamples  = 5
	defaultParallel = 4
)

// settle is how long a live check waits before it looks again at what seems wrong; together ScalarDB's lifetime of a transaction.
var settle = [...]time.Duration{time.Second, 4 * time.Second, 10 * time.Second}

// Run verifies storages that were captured or restored in one pause window by four rules, or live ones (no Window) by the third alone:
//
//  1. in flight: no record is PREPARED or DELETED since "recent", which is Drain + 15 s + ServerClockBound before the window, unless its transaction was decided before
//     the window. Older ones are leftovers of crashed clients, the others are leftovers of transactions whose records could not be marked.
//  2. late: no record was committed, and no coordinator entry created, later than ServerClockBound after the window opened.
//  3. atomic: no record is COMMITTED by a transaction that the coordinator says is ABORTED; none is PREPARED by one that is COMMITTED, if either happened since "recent" and the
//     transaction was not decided before the window;
//     none was committed since "recent" without a coordinator entry (unless one-phase commit is declared for its storage); none has a state that no record has.
//  4. complete: every table of the manifest is there with its witnesses.
//
// In a live check "recent" counts back from now, and a violation counts only if it is still there when looked at again, up to 15 seconds later.
// A Report with violations is no error; an error says that the verification could not be made.
func Run(ctx context.Context, q Request) (Report, error) {
	r, err := prepare(ctx, q)
	if err != nil {
		return Report{}, err
	}
	defer r.cancel()
	if err := r.tables(r.ctx); err != nil {
		return Report{}, r.cause(err)
	}
	if err := r.aborted(r.ctx); err != nil {
		return Report{}, r.cause(err)
	}
	if r.Window == nil {
		if err := r.lookAgain(r.ctx); err != nil {
			return Report{}, r.cause(err)
		}
	}
	return r.report(), nil
}

// run is one Run.
type run struct {
	Request
	ctx    context.Context
	cancel context.CancelFunc

	since     int64 // "recent", ms
	lateAfter int64
	jobs      []*job
	missing   []TableReport
	uncovered []string
	coord     *TableReport

	mu   sync.Mutex // serializes Progress and done
	done int
}

// job is one table.
type job struct {
	storage string
	store   Storage
	table   Table
	want    *ExpectedTable
	report  TableReport
	samples map[string]*samples // by rule
	max     int

	suspects []suspect // of a live check: violations until they are looked at again
}

// suspect is a violation of rule 3 that a live check will look at again.
type suspect struct {
	rec  Record
	text string
}

func prepare(ctx context.Context, q Request) (*run, error) {
	if len(q.Storages) == 0 {
		return nil, errors.New("verifying: there is no storage to verify")
	}
	if q.MaxSamples <= 0 {
		q.MaxSamples = defaultSamples
	}
	if q.Parallel <= 0 {
		q.Parallel = defaultParallel
	}
	for _, named := range []map[string]bool{q.OnePhaseCommit, q.AsyncCommit} {
		for _, s := range slices.Sorted(maps.Keys(named)) {
			if q.Storages[s] == nil {
				return nil, fmt.Errorf("verifying: the options name storage %q, which is not among the storages to verify", s)
			}
		}
	}
	r := &run{Request: q}
	recent := q.Drain + lifetime + q.ServerClockBound
	if q.Window != nil {
		r.since = q.Window.From.Add(-recent).UnixMilli()
		r.lateAfter = q.Window.From.Add(q.ServerClockBound).UnixMilli()
	} else {
		if q.Clock == nil {
			return nil, errors.New("verifying live storages needs a clock")
		}
		if q.Now.IsZero() {
			r.Now = q.Clock.Now()
		}
		r.since = r.Now.Add(-recent).UnixMilli()
		r.lateAfter = math.MaxInt64
	}
	for _, s := range slices.Sorted(maps.Keys(q.Expected)) {
		if q.Storages[s] == nil {
			return nil, fmt.Errorf("verifying: the backup holds storage %q, which is not among the storages to verify", s)
		}
	}
	r.ctx, r.cancel = context.WithCancel(ctx)
	if err := r.findCoordinator(r.ctx); err != nil {
		r.cancel()
		return nil, err
	}
	if err := r.listTables(r.ctx); err != nil {
		r.cancel()
		return nil, err
	}
	return r, nil
}

// findCoordinator settles which storage's coordinator table counts.
func (r *run) findCoordinator(ctx context.Context) error {
	var have []string
	for _, s := range slices.Sorted(maps.Keys(r.Storages)) {
		has, err := r.Storages[s].HasCoordinator(ctx)
		if err != nil {
			return fmt.Errorf("verifying storage %s: %w", s, err)
		}
		if has {
			have = append(have, s)
		}
	}
	switch {
	case r.Request.Coordinator != "":
		if r.Storages[r.Request.Coordinator] == nil {
			return fmt.Errorf("verifying: the coordinator's storage %q is not among the storages to verify", r.Request.Coordinator)
		}
		if !slices.Contains(have, r.Request.Coordinator) {
			return fmt.Errorf("verifying: storage %q has no coordinator table; set its coordinator_namespace if the table has another", r.Request.Coordinator)
		}
	case len(have) == 0:
		return errors.New("verifying: none of the storages has ScalarDB's coordinator table, without which nothing can be proved; add the storage that has it, or set its coordinator_namespace")
	case len(have) > 1:
		return fmt.Errorf("verifying: the storages %s have a coordinator table each; say which one ScalarDB uses (coordinator)", strings.Join(have, ", "))
	default:
		r.Request.Coordinator = have[0]
	}
	return nil
}

func (r *run) coordinator() Storage { return r.Storages[r.Request.Coordinator] }

// listTables makes the jobs, and finds what is missing.
func (r *run) listTables(ctx context.Context) error {
	for _, s := range slices.Sorted(maps.Keys(r.Storages)) {
		present, missing, err := r.Storages[s].Tables(ctx)
		if err != nil {
			return fmt.Errorf("verifying storage %s: %w", s, err)
		}
		have := map[string]*job{}
		for _, t := range present {
			j := &job{storage: s, store: r.Storages[s], table: t, max: r.MaxSamples, report: TableReport{Storage: s, Table: t.Namespace + "." + t.Name}}
			have[j.report.Table] = j
			r.jobs = append(r.jobs, j)
			if !t.Transactional {
				r.uncovered = append(r.uncovered, s+"/"+j.report.Table)
			}
		}
		lost := map[string]string{}
		for _, t := range missing {
			lost[t.Namespace+"."+t.Name] = "ScalarDB's metadata names this table, but it is not there"
		}
		for _, w := range r.Expected[s].Tables {
			full := w.Namespace + "." + w.Name
			if j := have[full]; j != nil {
				j.want = &w
			} else if lost[full] == "" {
				lost[full] = "the backup holds this table, but it is not there"
			}
		}
		for _, full := range slices.Sorted(maps.Keys(lost)) {
			if r.Window == nil {
				r.uncovered = append(r.uncovered, s+"/"+full+" (missing)")
				continue
			}
			r.missing = append(r.missing, TableReport{Storage: s, Table: full, ByRule: map[string]int64{RuleComplete: 1},
				Samples: []string{RuleComplete + ": " + lost[full]}})
		}
	}
	return nil
}

// tables runs what concerns one table at a time.
func (r *run) tables(ctx context.Context) error {
	work := []func(context.Context) error{r.coordinatorTable}
	for _, j := range r.jobs {
		work = append(work, func(ctx context.Context) error {
			if err := r.table(ctx, j); err != nil {
				return fmt.Errorf("verifying table %s of storage %s: %w", j.report.Table, j.storage, err)
			}
			r.progress("table read", map[string]any{"storage": j.storage, "table": j.report.Table, "rows": j.report.Rows}, len(r.jobs))
			return nil
		})
	}
	return parallel(ctx, r.Parallel, work)
}

func (r *run) table(ctx context.Context, j *job) error {
	if !j.table.Transactional {
		n, err := j.store.Count(ctx, j.table)
		if err != nil {
			return err
		}
		j.report.Rows = n
		r.complete(j, 0)
		return nil
	}
	tally, err := j.store.Tally(ctx, j.table, TallyQuery{InFlightSince: r.since, LateAfter: r.lateAfter})
	if err != nil {
		return err
	}
	j.report.Rows, j.report.Leftovers, j.report.Unverifiable = tally.Rows, tally.Leftovers, tally.Imported
	r.complete(j, tally.NewestCommitted)
	if err := r.late(ctx, j, tally.Late); err != nil {
		return err
	}
	if err := r.invalid(ctx, j, tally.Invalid); err != nil {
		return err
	}
	if tally.InFlight+tally.Leftovers > 0 {
		if err := r.uncommitted(ctx, j, tally.InFlight); err != nil {
			return err
		}
	}
	if err := r.committed(ctx, j); err != nil {
		return err
	}
	return r.unverifiable(ctx, j, tally)
}

// complete is rule 4 for a table that is there.
func (r *run) complete(j *job, newest int64) {
	if r.Window == nil || j.want == nil {
		return
	}
	w, rows := *j.want, j.report.Rows
	switch {
	case w.Rows > 0 && rows == 0:
		j.violate(RuleComplete, 1, fmt.Sprintf("the table is empty, the backup had %s rows", approximately(w)))
	case w.Rows >= 0 && !w.Estimated && rows != w.Rows:
		j.violate(RuleComplete, 1, fmt.Sprintf("the table has %d rows, the backup had %d", rows, w.Rows))
	}
	if w.NewestCommitted != 0 && newest != w.NewestCommitted {
		j.violate(RuleComplete, 1, fmt.Sprintf("the newest record was committed at %s, in the backup at %s", stamp(newest), stamp(w.NewestCommitted)))
	}
}

// late is rule 2 for a table.
func (r *run) late(ctx context.Context, j *job, n int64) error {
	if n == 0 || r.Window == nil {
		return nil
	}
	j.count(RuleLate, n)
	return j.store.Records(ctx, j.table, RecordFilter{CommittedAfter: r.lateAfter, Limit: r.MaxSamples}, func(rec Record) error {
		j.sample(RuleLate, fmt.Sprintf("%s: committed at %s by transaction %s, after the window opened", rec.Key, stamp(rec.CommittedAt), rec.TxID))
		return nil
	})
}

// invalid is the part of rule 3 that needs no coordinator.
func (r *run) invalid(ctx context.Context, j *job, n int64) error {
	if n == 0 {
		return nil
	}
	j.count(RuleAtomic, n)
	return j.store.Records(ctx, j.table, RecordFilter{Invalid: true, Limit: r.MaxSamples}, func(rec Record) error {
		j.sample(RuleAtomic, fmt.Sprintf("%s: state %d, which no record of ScalarDB has", rec.Key, rec.State))
		return nil
	})
}

// decidedBefore says that the transaction had its entry before anything was captured. All its records were prepared by then, and so are in every copy: ScalarDB rolls
// them forward or back as one, whenever they are read next. Such records are there after a perfect pause: ScalarDB answers its client once the entry is written, and
// only tries to mark the records. On Cassandra, where two conditional updates of one row may end with neither knowing its outcome, that fails every day.
func (r *run) decidedBefore(e Entry) bool {
	if r.Window == nil {
		return false
	}
	opened, measured := r.Window.Opened[r.Request.Coordinator]
	return e.CreatedAt != 0 && e.CreatedAt < r.Window.From.Add(-r.ServerClockBound).UnixMilli() ||
		measured && e.WrittenAt != 0 && e.WrittenAt < opened.UnixMicro()
}

// uncommitted looks at every PREPARED and DELETED record: rule 1, and rule 3's half about them.
func (r *run) uncommitted(ctx context.Context, j *job, inFlight int64) error {
	async := r.AsyncCommit[j.storage]
	err := r.lookUp(ctx, j, RecordFilter{States: []int{StatePrepared, StateDeleted}}, func(rec Record, e Entry, found bool) {
		recent := rec.PreparedAt >= r.since || rec.PreparedAt == 0
		if found && (async || r.decidedBefore(e)) {
			// Only its marks are missing.
			if recent {
				inFlight--
				j.report.Leftovers++
			}
			return
		}
		what := fmt.Sprintf("%s: %s since %s by transaction %s", rec.Key, stateName(rec.State), stamp(rec.PreparedAt), orNone(rec.TxID))
		if recent && r.Window != nil {
			j.sample(RuleInFlight, what)
		}
		if found && e.State == StateCommitted && (recent || e.CreatedAt >= r.since) {
			r.suspect(j, rec, what+", which the coordinator says is COMMITTED")
		}
	})
	if r.Window != nil && inFlight > 0 {
		j.count(RuleInFlight, inFlight)
	}
	return err
}

// committed looks up the recently committed records: none of them may lack its entry. An ABORTED entry is found by aborted.
func (r *run) committed(ctx context.Context, j *job) error {
	return r.lookUp(ctx, j, RecordFilter{States: []int{StateCommitted}, CommittedSince: r.since}, func(rec Record, _ Entry, found bool) {
		switch {
		case found || rec.TxID == "":
		case r.OnePhaseCommit[j.storage]:
			j.report.Unverifiable++
		default:
			r.suspect(j, rec, fmt.Sprintf("%s: committed at %s by transaction %s, which the coordinator does not know", rec.Key, stamp(rec.CommittedAt), rec.TxID))
		}
	})
}

// unverifiable counts the old committed records without an entry. It finds no violation, so it may give up.
func (r *run) unverifiable(ctx context.Context, j *job, tally Tally) error {
	if joiner, ok := j.store.(Joiner); ok && j.storage == r.Request.Coordinator {
		n, err := joiner.CommitsWithoutEntry(ctx, j.table, r.since)
		j.report.Unverifiable += n
		return err
	}
	if tally.Rows-tally.Imported > maxUncounted {
		j.report.Uncounted = true
		return nil
	}
	return r.lookUp(ctx, j, RecordFilter{States: []int{StateCommitted}}, func(rec Record, _ Entry, found bool) {
		if !found && rec.TxID != "" && rec.CommittedAt < r.since {
			j.report.Unverifiable++
		}
	})
}

// lookUp streams records together with what the coordinator says of their transactions, in batches.
func (r *run) lookUp(ctx context.Context, j *job, f RecordFilter, each func(rec Record, e Entry, found bool)) error {
	var held []Record
	flush := func() error {
		ids := make([]string, 0, len(held))
		seen := make(map[string]bool, len(held))
		for _, rec := range held {
			if rec.TxID != "" && !seen[rec.TxID] {
				seen[rec.TxID] = true
				ids = append(ids, rec.TxID)
			}
		}
		entries := map[string]Entry{}
		if len(ids) > 0 {
			var err error
			if entries, err = r.coordinator().Coordinator(ctx, ids); err != nil {
				return err
			}
		}
		for _, rec := range held {
			e, found := entries[rec.TxID]
			each(rec, e, found)
		}
		held = held[:0]
		return nil
	}
	err := j.store.Records(ctx, j.table, f, func(rec Record) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if held = append(held, rec); len(held) >= batch {
			return flush()
		}
		return nil
	})
	if err != nil {
		return err
	}
	return flush()
}

// coordinatorTable is rules 2 and 4 for the coordinator table.
func (r *run) coordinatorTable(ctx context.Context) error {
	s := r.Request.Coordinator
	tally, err := r.coordinator().CoordinatorTally(ctx, r.lateAfter)
	if err != nil {
		return fmt.Errorf("verifying the coordinator table of storage %s: %w", s, err)
	}
	t := &TableReport{Storage: s, Table: "coordinator", Coordinator: true, Rows: tally.Rows, ByRule: map[string]int64{}}
	r.coord = t
	if r.Window == nil {
		return nil
	}
	if tally.Late > 0 {
		t.ByRule[RuleLate] = tally.Late
		t.Samples = append(t.Samples, fmt.Sprintf("%s: %d entries after the window opened, the newest of %s", RuleLate, tally.Late, stamp(tally.Newest)))
	}
	for _, name := range slices.Sorted(maps.Keys(r.Expected)) {
		w := r.Expected[name]
		if !w.HasCoordinator {
			continue
		}
		if name != s {
			t.ByRule[RuleComplete]++
			t.Samples = append(t.Samples, fmt.Sprintf("%s: in the backup the coordinator table was in storage %s", RuleComplete, name))
		} else if w.CoordinatorNewest >= 0 && w.CoordinatorNewest != tally.Newest {
			t.ByRule[RuleComplete]++
			t.Samples = append(t.Samples, fmt.Sprintf("%s: the newest entry is of %s, in the backup of %s", RuleComplete, stamp(tally.Newest), stamp(w.CoordinatorNewest)))
		}
	}
	return nil
}

// aborted is rule 3's half about aborted transactions: none of their records is COMMITTED, however old.
func (r *run) aborted(ctx context.Context) error {
	var joined, others []*job
	for _, j := range r.jobs {
		if !j.table.Transactional {
			continue
		}
		if _, ok := j.store.(Joiner); ok && j.storage == r.Request.Coordinator {
			joined = append(joined, j)
		} else {
			others = append(others, j)
		}
	}
	var work []func(context.Context) error
	for _, j := range joined {
		work = append(work, func(ctx context.Context) error {
			var held []Record
			confirm := func() error {
				err := r.confirmAborted(ctx, j, held)
				held = held[:0]
				return err
			}
			err := j.store.(Joiner).AbortedCommits( //nolint:forcetypeassert // asked above
				ctx, j.table, func(rec Record) error {
					if held = append(held, rec); len(held) >= batch {
						return confirm()
					}
					return nil
				})
			if err == nil {
				err = confirm()
			}
			return wrapTable(j, err)
		})
	}
	if err := parallel(ctx, r.Parallel, work); err != nil {
		return err
	}
	if len(others) == 0 {
		return nil
	}
	return r.coordinator().Aborted(ctx, func(txIDs []string) error {
		work := make([]func(context.Context) error, 0, len(others))
		for _, j := range others {
			work = append(work, func(ctx context.Context) error {
				found, err := j.store.CommittedAmong(ctx, j.table, txIDs)
				if err == nil {
					err = r.confirmAborted(ctx, j, found)
				}
				return wrapTable(j, err)
			})
		}
		return parallel(ctx, r.Parallel, work)
	})
}

// confirmAborted looks candidates up one by one: a group's entry may overrule a child's own.
func (r *run) confirmAborted(ctx context.Context, j *job, records []Record) error {
	if len(records) == 0 {
		return nil
	}
	ids := make([]string, len(records))
	for i, rec := range records {
		ids[i] = rec.TxID
	}
	entries, err := r.coordinator().Coordinator(ctx, ids)
	if err != nil {
		return err
	}
	for _, rec := range records {
		if e, ok := entries[rec.TxID]; ok && e.State == StateAborted {
			r.suspect(j, rec, fmt.Sprintf("%s: COMMITTED at %s by transaction %s, which the coordinator says is ABORTED", rec.Key, stamp(rec.CommittedAt), rec.TxID))
		}
	}
	return nil
}

// suspect is a violation of rule 3; in a live check only until it is looked at again.
func (r *run) suspect(j *job, rec Record, text string) {
	if r.Window != nil || len(j.suspects) >= maxSuspects {
		j.violate(RuleAtomic, 1, text)
		return
	}
	j.suspects = append(j.suspects, suspect{rec, text})
}

// lookAgain waits, reads the suspects of a live check once more, and drops those that ScalarDB has settled meanwhile.
func (r *run) lookAgain(ctx context.Context) error {
	for _, d := range settle {
		n := 0
		for _, j := range r.jobs {
			n += len(j.suspects)
		}
		if n == 0 {
			return nil
		}
		r.progress("looking again at what may only be in flight", map[string]any{"records": n}, 0)
		if err := r.Clock.Sleep(ctx, d); err != nil {
			return err
		}
		var work []func(context.Context) error
		for _, j := range r.jobs {
			if len(j.suspects) > 0 {
				work = append(work, func(ctx context.Context) error { return wrapTable(j, r.stillThere(ctx, j)) })
			}
		}
		if err := parallel(ctx, r.Parallel, work); err != nil {
			return err
		}
	}
	for _, j := range r.jobs {
		for _, s := range j.suspects {
			j.violate(RuleAtomic, 1, s.text)
		}
	}
	return nil
}

// stillThere keeps those suspects of a table that are as they were, with a coordinator that still contradicts them.
func (r *run) stillThere(ctx context.Context, j *job) error {
	type identity struct {
		key, txID string
		state     int
	}
	now := map[identity]bool{}
	var committed []string
	uncommitted := false
	for _, s := range j.suspects {
		now[identity{s.rec.Key, s.rec.TxID, s.rec.State}] = false
		if s.rec.State == StateCommitted {
			committed = append(committed, s.rec.TxID)
		} else {
			uncommitted = true
		}
	}
	note := func(rec Record) error {
		id := identity{rec.Key, rec.TxID, rec.State}
		if _, asked := now[id]; asked {
			now[id] = true
		}
		return nil
	}
	if uncommitted {
		if err := j.store.Records(ctx, j.table, RecordFilter{States: []int{StatePrepared, StateDeleted}}, note); err != nil {
			return err
		}
	}
	if len(committed) > 0 {
		records, err := j.store.CommittedAmong(ctx, j.table, committed)
		if err != nil {
			return err
		}
		for _, rec := range records {
			_ = note(rec)
		}
	}
	ids := make([]string, len(j.suspects))
	for i, s := range j.suspects {
		ids[i] = s.rec.TxID
	}
	entries, err := r.coordinator().Coordinator(ctx, ids)
	if err != nil {
		return err
	}
	j.suspects = slices.DeleteFunc(j.suspects, func(s suspect) bool {
		if !now[identity{s.rec.Key, s.rec.TxID, s.rec.State}] {
			return true
		}
		e, found := entries[s.rec.TxID]
		if s.rec.State == StateCommitted {
			return found && e.State == StateCommitted
		}
		return !found || e.State != StateCommitted
	})
	return nil
}

func (r *run) report() Report {
	var out Report
	add := func(t TableReport) {
		if len(t.ByRule) == 0 {
			t.ByRule = nil
		}
		for _, n := range t.ByRule {
			out.Violations += n
		}
		out.Leftovers += t.Leftovers
		out.Unverif += t.Unverifiable
		out.Tables = append(out.Tables, t)
	}
	add(*r.coord)
	for _, t := range r.missing {
		add(t)
	}
	for _, j := range r.jobs {
		if !j.table.Transactional && len(j.report.ByRule) == 0 {
			continue // it is in NotCovered
		}
		if j.table.Transactional {
			out.Records += j.report.Rows
		}
		for _, rule := range slices.Sorted(maps.Keys(j.samples)) {
			j.report.Samples = append(j.report.Samples, j.samples[rule].texts...)
		}
		add(j.report)
	}
	slices.SortFunc(out.Tables, func(a, b TableReport) int {
		if c := strings.Compare(a.Storage, b.Storage); c != 0 {
			return c
		}
		if a.Coordinator != b.Coordinator {
			if a.Coordinator {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Table, b.Table)
	})
	slices.Sort(r.uncovered)
	out.NotCovered = append([]string{}, r.uncovered...)
	out.Passed = out.Violations == 0
	return out
}

func (r *run) progress(message string, fields map[string]any, of int) {
	if r.Progress == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if of > 0 {
		r.done++
		fields["done"], fields["of"] = r.done, of
	}
	r.Progress(message, fields)
}

// cause prefers the caller's own cancellation over what it broke.
func (r *run) cause(err error) error {
	if c := context.Cause(r.ctx); c != nil && !errors.Is(err, c) {
		return fmt.Errorf("verifying: %w", c)
	}
	return err
}

func (j *job) count(rule string, n int64) {
	if j.report.ByRule == nil {
		j.report.ByRule = map[string]int64{}
	}
	j.report.ByRule[rule] += n
}

func (j *job) sample(rule, text string) {
	if j.samples == nil {
		j.samples = map[string]*samples{}
	}
	if j.samples[rule] == nil {
		j.samples[rule] = &samples{max: j.max}
	}
	j.samples[rule].add(rule + ": " + text)
}

func (j *job) violate(rule string, n int64, text string) {
	j.count(rule, n)
	j.sample(rule, text)
}

// samples keeps the first few texts in their order, whatever order they come in, so that a report does not depend on the database's.
type samples struct {
	max   int
	texts []string
}

func (s *samples) add(text string) {
	i, _ := slices.BinarySearch(s.texts, text)
	if i >= s.max {
		return
	}
	s.texts = slices.Insert(s.texts, i, text)
	s.texts = s.texts[:min(len(s.texts), s.max)]
}

// parallel runs work, n at a time; the first error ends the rest.
func parallel(ctx context.Context, n int, work []func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	var once sync.Once
	var first error
	slots := make(chan struct{}, n)
	for _, w := range work {
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := w(ctx); err != nil {
				once.Do(func() { first = err; cancel() })
			}
		})
	}
	wg.Wait()
	if first == nil {
		return ctx.Err()
	}
	return first
}

func wrapTable(j *job, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("verifying table %s of storage %s: %w", j.report.Table, j.storage, err)
}

func approximately(w ExpectedTable) string {
	if w.Estimated {
		return fmt.Sprintf("about %d", w.Rows)
	}
	return fmt.Sprint(w.Rows)
}

func stateName(s int) string {
	switch s {
	case StatePrepared:
		return "PREPARED"
	case StateDeleted:
		return "DELETED"
	case StateCommitted:
		return "COMMITTED"
	case StateAborted:
		return "ABORTED"
	}
	return fmt.Sprintf("state %d", s)
}

func orNone(txID string) string {
	if txID == "" {
		return "(none)"
	}
	return txID
}

func stamp(ms int64) string {
	if ms == 0 {
		return "(never)"
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z")
}
