//go:build acceptance

package reading_test

import (
	"context"
	"fmt"
	"maps"
	"math"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gocql "github.com/apache/cassandra-gocql-driver/v2"

	testbed "github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/cassandra"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/testclock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/reading"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify/verifytest"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).UnixMilli()

// bed is one node and a session to write with.
type bed struct {
	*testbed.Cluster
	s *gocql.Session
}

func startBed(t testing.TB) *bed {
	t.Helper()
	// What is written needs not survive the node.
	c := testbed.Start(t, testbed.Options{Nodes: 1, CommitlogSync: "periodic"})
	return &bed{c, c.Session(t)}
}

func (b *bed) exec(t testing.TB, statement string, args ...any) {
	t.Helper()
	if err := b.s.Query(statement, args...).ExecContext(t.Context()); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func (b *bed) keyspace(t testing.TB, name string) {
	t.Helper()
	b.exec(t, `CREATE KEYSPACE "`+name+`" WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1} AND durable_writes = false`)
}

// each writes n things, many at a time.
func each(t testing.TB, n int, f func(i int) error) {
	t.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && !t.Failed(); i = int(next.Add(1)) - 1 {
				if err := f(i); err != nil {
					t.Errorf("writing: %v", err)
				}
			}
		})
	}
	if wg.Wait(); t.Failed() {
		t.FailNow()
	}
}

const marks = "tx_id text, tx_state int, tx_version int, tx_prepared_at bigint, tx_committed_at bigint, before_tx_id text, before_tx_state int, before_tx_version int, " +
	"before_tx_prepared_at bigint, before_tx_committed_at bigint"

func (b *bed) coordinator(t testing.TB, keyspace string, groups bool) {
	t.Helper()
	children := ""
	if groups {
		children = ", tx_child_ids text"
	}
	b.keyspace(t, keyspace)
	b.exec(t, `CREATE TABLE "`+keyspace+`".state (tx_id text PRIMARY KEY, tx_state int, tx_created_at bigint`+children+`)`)
}

func nullable[T comparable](v T) any {
	var zero T
	if v == zero {
		return nil
	}
	return v
}

// bank writes one copy of the bank into keyspaces of the given suffix.
func (b *bed) bank(t testing.TB, s *verifytest.Store, suffix string, groups bool) {
	t.Helper()
	b.keyspace(t, s.Namespace+suffix)
	full := `"` + s.Namespace + suffix + `".accounts`
	b.exec(t, "CREATE TABLE "+full+" (id int PRIMARY KEY, balance int, before_balance int, "+marks+")")
	keys := slices.Sorted(maps.Keys(s.Rows))
	each(t, len(keys), func(i int) error {
		r := s.Rows[keys[i]]
		if r.TxID == "" {
			return b.s.Query("INSERT INTO "+full+" (id, balance) VALUES (?, ?)", keys[i], int(r.Balance)).Exec()
		}
		return b.s.Query("INSERT INTO "+full+" (id, balance, tx_id, tx_state, tx_version, tx_prepared_at, tx_committed_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
			keys[i], int(r.Balance), r.TxID, nullable(r.State), nullable(int(r.Version)), nullable(r.PreparedAt), nullable(r.CommittedAt)).Exec()
	})
	if s.Entries == nil {
		return
	}
	b.coordinator(t, "coordinator"+suffix, groups)
	ids := slices.Sorted(maps.Keys(s.Entries))
	each(t, len(ids), func(i int) error {
		e := s.Entries[ids[i]]
		if !groups {
			return b.s.Query(`INSERT INTO "coordinator`+suffix+`".state (tx_id, tx_state, tx_created_at) VALUES (?, ?, ?)`, e.TxID, e.State, e.CreatedAt).Exec()
		}
		return b.s.Query(`INSERT INTO "coordinator`+suffix+`".state (tx_id, tx_state, tx_created_at, tx_child_ids) VALUES (?, ?, ?, ?)`, e.TxID, e.State, e.CreatedAt, nullable(e.ChildIDs)).Exec()
	})
}

func (b *bed) config() *gocql.ClusterConfig {
	cfg := gocql.NewCluster(b.ContactPoints()...)
	cfg.Timeout = 20 * time.Second
	cfg.PoolConfig.HostSelectionPolicy = gocql.TokenAwareHostPolicy(gocql.RoundRobinHostPolicy())
	cfg.Logger = gocql.NewLogger(gocql.LogLevelNone)
	return cfg
}

func (b *bed) reader(t testing.TB, cfg *gocql.ClusterConfig, s reading.Settings) *reading.Reader {
	t.Helper()
	session, err := cfg.CreateSession()
	if err != nil {
		t.Fatal(err)
	}
	closed := false
	r, err := reading.New(t.Context(), reading.Over(session, func() error { closed = true; return nil }), s, testclock.New(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil || !closed {
			t.Errorf("closing: %v (%t)", err, closed)
		}
	})
	return r
}

func suffixed(suffix string, names ...string) map[string]string {
	out := map[string]string{}
	for _, n := range names {
		out[n] = n + suffix
	}
	return out
}

func TestAcceptance(t *testing.T) {
	b := startBed(t)
	t.Run("Verification", b.verification)
	t.Run("Shapes", b.shapes)
	t.Run("Violations", b.violations)
	t.Run("Resumption", b.resumption)
}

// verification: one through the reader, of keyspaces with other names, says the same as one of the plain copies, to the last sample.
func (b *bed) verification(t *testing.T) {
	passed := map[bool]int{}
	for _, seed := range []uint64{0, 1, 5, 7} {
		h := verifytest.Make(verifytest.Options{Seed: seed, Start: start, Duration: 3000, Storages: []string{"a", "b"}, Coordinator: "b", Accounts: 260, Threads: 6, Think: 20, PauseAt: start + 1500,
			Crash: 0.02 * float64(seed%3), CrashUntil: start + 1500, GroupCommit: seed%2 == 1})
		from := max(h.PauseAt, h.Drained)
		cutA, cutB := h.Cut("a", from+1), h.Cut("b", from+1)
		if seed == 7 {
			cutA = h.Cut("a", start+700) // a copy without a pause
		}
		if seed == 5 {
			for _, k := range slices.Sorted(maps.Keys(cutA.Rows)) {
				if e, ok := cutB.Entries[cutA.Rows[k].TxID]; ok && cutA.Rows[k].State == verify.StateCommitted {
					e.State = verify.StateAborted
					cutB.Entries[e.TxID] = e
					break
				}
			}
		}
		request := func(a, b verify.Storage) verify.Request {
			return verify.Request{Storages: map[string]verify.Storage{"a": a, "b": b}, Window: &verify.Window{From: time.UnixMilli(from), Until: time.UnixMilli(from + 100)}, Drain: time.Second,
				Expected: map[string]verify.Expected{"a": h.Cut("a", from+1).Expected(), "b": cutB.Expected()}}
		}
		want, err := verify.Run(t.Context(), request(cutA, cutB))
		if err != nil {
			t.Fatal(err)
		}
		suffix := fmt.Sprintf("_Clone%d", seed)
		b.bank(t, cutA, suffix, false)
		b.bank(t, cutB, suffix, seed%2 == 1)
		settings := reading.Settings{PageSize: 50, PartitionsPerRange: 40}
		inA, inB := settings, settings
		inA.Keyspaces, inA.Rename = []string{"bank_a"}, suffixed(suffix, "bank_a", "scalardb")
		inA.Layout.CoordinatorNamespace = "elsewhere"
		inB.Keyspaces, inB.Rename = []string{"bank_b"}, suffixed(suffix, "bank_b", "coordinator", "scalardb")
		got, err := verify.Run(t.Context(), request(b.reader(t, b.config(), inA), b.reader(t, b.config(), inB)))
		if err != nil {
			t.Fatal(err)
		}
		for i := range got.Tables {
			slices.Sort(got.Tables[i].Samples)
			slices.Sort(want.Tables[i].Samples)
			if len(got.Tables[i].Samples) > 4 {
				got.Tables[i].Samples, want.Tables[i].Samples = nil, nil // which of many are named differs: keys sort as text here
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("seed %d:\n%+v\n%+v", seed, got, want)
		}
		passed[got.Passed]++
	}
	if passed[true] == 0 || passed[false] == 0 {
		t.Errorf("passed %d, failed %d: the histories show nothing", passed[true], passed[false])
	}
}

// rows fills a table of partitions with clustering rows, whose commit times are start+0, start+1, ...
func (b *bed) rows(t testing.TB, full string, n int) {
	t.Helper()
	const per = 50
	each(t, (n+per-1)/per, func(p int) error {
		batch := b.s.Batch(gocql.UnloggedBatch)
		for i := p * per; i < min(n, (p+1)*per); i++ {
			batch.Query("INSERT INTO "+full+` ("accountId", "seqNo", "the Value", tx_id, tx_state, tx_version, tx_prepared_at, tx_committed_at) VALUES (?, ?, 1, ?, 3, 1, ?, ?)`,
				p, i%per, fmt.Sprintf("0123456789abcdef-%06d", i), start+int64(i)-5, start+int64(i))
		}
		return batch.Exec()
	})
}

const camel = ` ("accountId" int, "seqNo" int, "the Value" int, ` + marks + `, PRIMARY KEY ("accountId", "seqNo"))`

// shapes: tables of all forms that ScalarDB makes, with indexes, views and other keyspaces about them.
func (b *bed) shapes(t *testing.T) {
	b.keyspace(t, "scalardb")
	b.exec(t, "CREATE TABLE scalardb.namespaces (name text PRIMARY KEY)")
	for _, n := range []string{"camelCase", "coordinator", "lost"} {
		b.exec(t, "INSERT INTO scalardb.namespaces (name) VALUES (?)", n)
	}
	b.coordinator(t, "coordinator", false)
	b.keyspace(t, "camelCase")
	b.exec(t, `CREATE TABLE "camelCase"."OrderLines"`+camel)
	b.exec(t, `CREATE INDEX ON "camelCase"."OrderLines" ("the Value")`)
	b.exec(t, `CREATE TABLE "camelCase".kinds (t text, b blob, o boolean, l bigint, f float, d double, dt date, tm time, ts timestamp, v int, `+marks+
		`, PRIMARY KEY ((t, b, o, l), f, d, dt, tm, ts)) WITH CLUSTERING ORDER BY (f DESC, d ASC, dt DESC, tm ASC, ts DESC)`)
	b.exec(t, `CREATE TABLE "camelCase".plain (id text PRIMARY KEY, v int)`)
	b.exec(t, `CREATE TABLE "camelCase".static (a int, b int, s text STATIC, `+marks+`, PRIMARY KEY (a, b))`)
	const n = 50_000
	b.rows(t, `"camelCase"."OrderLines"`, n)
	at := time.Date(2026, 2, 3, 4, 5, 6, 7_000_000, time.UTC)
	b.exec(t, `INSERT INTO "camelCase".kinds (t, b, o, l, f, d, dt, tm, ts, tx_id, tx_state, tx_version, tx_prepared_at, tx_committed_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'one', 1, 1, ?, null)`,
		"a, b", []byte{0, 0xff}, true, int64(-5), float32(1.5), 0.25, at, 4*time.Hour+time.Millisecond, at, start)
	b.exec(t, `INSERT INTO "camelCase".kinds (t, b, o, l, f, d, dt, tm, ts, v) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 1)`,
		"imported", []byte{}, false, int64(math.MaxInt64), float32(0), 0.0, at, time.Duration(0), at)
	b.exec(t, `INSERT INTO "camelCase".static (a, b, tx_id, tx_state) VALUES (1, 1, 'x', 3)`)
	b.exec(t, `INSERT INTO "camelCase".static (a, s) VALUES (2, 'no row')`)
	each(t, 3000, func(i int) error {
		return b.s.Query(`INSERT INTO "camelCase".plain (id, v) VALUES (?, 1)`, fmt.Sprint(i)).Exec()
	})

	r := b.reader(t, b.config(), reading.Settings{})
	present, missing, err := r.Tables(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tables := map[string]verify.Table{}
	for _, table := range present {
		tables[table.Namespace+"."+table.Name] = table
	}
	if len(tables) != 4 || len(missing) != 1 || missing[0].Namespace != "lost" {
		t.Fatalf("%+v, missing %+v", present, missing)
	}
	if lines := tables["camelCase.OrderLines"]; !lines.Transactional || !slices.Equal(lines.Key, []string{"accountId", "seqNo"}) || tables["camelCase.plain"].Transactional {
		t.Errorf("%+v", present)
	}
	for name, want := range map[string]int64{"camelCase.OrderLines": n, "camelCase.kinds": 2, "camelCase.plain": 3000, "camelCase.static": 1} {
		if got, err := r.Count(t.Context(), tables[name]); got != want || err != nil {
			t.Errorf("%s has %d rows, %v; %d were written", name, got, err, want)
		}
	}
	tally, err := r.Tally(t.Context(), tables["camelCase.OrderLines"], verify.TallyQuery{InFlightSince: start, LateAfter: start + n - 11})
	if want := (verify.Tally{Rows: n, Late: 10, NewestCommitted: start + n - 1}); tally != want || err != nil {
		t.Errorf("%+v, %v", tally, err)
	}
	tally, err = r.Tally(t.Context(), tables["camelCase.kinds"], verify.TallyQuery{InFlightSince: start, LateAfter: math.MaxInt64})
	if want := (verify.Tally{Rows: 2, InFlight: 1, Imported: 1}); tally != want || err != nil {
		t.Errorf("%+v, %v", tally, err)
	}
	if tally, err = r.Tally(t.Context(), tables["camelCase.static"], verify.TallyQuery{}); tally.Rows != 1 || tally.Imported != 0 || err != nil {
		t.Errorf("%+v, %v", tally, err)
	}
	var keys []string
	if err := r.Records(t.Context(), tables["camelCase.kinds"], verify.RecordFilter{States: []int{verify.StatePrepared}}, func(rec verify.Record) error { keys = append(keys, rec.Key); return nil }); err != nil {
		t.Fatal(err)
	}
	if want := `t="a, b",b=0x00ff,o=true,l=-5,f=1.5,d=0.25,dt=2026-02-03,tm=04:00:00.001,ts=2026-02-03T04:05:06.007Z`; !slices.Equal(keys, []string{want}) {
		t.Errorf("%s\n%s", keys, want)
	}

	// Without the list of namespaces the keyspaces that have transactional tables are found; a list that cannot be read is an error.
	b.exec(t, "DROP TABLE scalardb.namespaces")
	r = b.reader(t, b.config(), reading.Settings{})
	if present, missing, err = r.Tables(t.Context()); err != nil || len(missing) != 0 || !slices.ContainsFunc(present, func(t verify.Table) bool { return t.Name == "OrderLines" }) {
		t.Errorf("%+v, %+v, %v", present, missing, err)
	}
	if has, err := r.HasCoordinator(t.Context()); !has || err != nil {
		t.Errorf("%t, %v", has, err)
	}
}

// violations: one of each rule is found, and named.
func (b *bed) violations(t *testing.T) {
	b.keyspace(t, "guilty")
	b.coordinator(t, "guilty_coordinator", true)
	b.exec(t, "CREATE TABLE guilty.lines"+camel)
	const n = 2000
	b.rows(t, "guilty.lines", n)
	parent := strings.Repeat("p", 24)
	window := start + 3_600_000
	each(t, n, func(i int) error {
		return b.s.Query("INSERT INTO guilty_coordinator.state (tx_id, tx_state, tx_created_at) VALUES (?, 3, ?)", fmt.Sprintf("0123456789abcdef-%06d", i), start+int64(i)).Exec()
	})
	row := func(seq int, id any, state any, prepared, committed any) {
		b.exec(t, `INSERT INTO guilty.lines ("accountId", "seqNo", tx_id, tx_state, tx_version, tx_prepared_at, tx_committed_at) VALUES (-1, ?, ?, ?, 1, ?, ?)`, seq, id, state, prepared, committed)
	}
	entry := func(id string, state int, at int64, children any) {
		b.exec(t, "INSERT INTO guilty_coordinator.state (tx_id, tx_state, tx_created_at, tx_child_ids) VALUES (?, ?, ?, ?)", id, state, at, children)
	}
	entry(parent, 3, window, "c1,c2")
	entry(parent+":lone", 4, start, nil)
	entry("aborted", 4, start, nil)
	entry("committed", 3, window-10, nil)
	entry("unmarked", 3, window-9, nil)
	// As ScalarDB writes it: a node stamps it. By the server's clock it may be of the window.
	stamped := time.Now()
	b.exec(t, "INSERT INTO guilty_coordinator.state (tx_id, tx_state, tx_created_at) VALUES ('stamped', 3, ?) IF NOT EXISTS", window)
	run := func(opened time.Time) verify.Report {
		t.Helper()
		r := b.reader(t, b.config(), reading.Settings{Keyspaces: []string{"lines"}, Rename: map[string]string{"lines": "guilty", "coordinator": "guilty_coordinator", "scalardb": "none"}, PageSize: 100})
		report, err := verify.Run(t.Context(), verify.Request{Storages: map[string]verify.Storage{"c": r}, Window: &verify.Window{From: time.UnixMilli(window), Until: time.UnixMilli(window + 100),
			Opened: map[string]time.Time{"c": opened}},
			Expected: map[string]verify.Expected{"c": {HasCoordinator: true, CoordinatorNewest: window, Tables: []verify.ExpectedTable{{Namespace: "lines", Name: "lines", Rows: n + 7}}}}, MaxSamples: 10})
		if err != nil {
			t.Fatal(err)
		}
		return report
	}
	row(1, parent+":c1", 3, window-30, window-20) // of a group
	row(2, nil, nil, nil, nil)                    // imported
	row(3, "gone", 1, start-100_000, nil)         // left over by a dead client
	row(4, "old", 3, start-100, start-90)         // of a transaction that was removed from the coordinator
	row(5, "committed", 3, window-30, window-10)
	row(20, "unmarked", 1, window-30, nil) // decided before the window: by the server's clock
	row(21, "stamped", 2, window-30, nil)  // by the node's
	if r := run(time.Now().Add(time.Second)); !r.Passed || r.Leftovers != 3 || r.Unverif != 2 {
		t.Fatalf("the innocent table: %+v", r)
	}
	if r := run(stamped.Add(-time.Second)); r.Violations != 2 || r.Leftovers != 2 || !strings.Contains(fmt.Sprint(r.Tables), "seqNo=21: DELETED since") {
		t.Errorf("an entry that was written after the window opened: %+v", r)
	}
	row(5, "flying", 1, window-3, nil)                // rule 1
	row(4, "late", 3, window-1, window+50)            // rule 2, and 3: nobody knows it
	row(3, "aborted", 3, start, start)                // rule 3
	row(6, parent+":lone", 3, start, start)           // rule 3, of a group
	row(7, parent+":c2", 1, window-30, nil)           // rules 1 and 3: half marked
	row(8, "odd", 9, start, start)                    // rule 3: no state at all
	row(9, parent+":nobody", 3, window-30, window-20) // rule 3: the group does not name it
	entry("coordinator's late", 3, window+9, nil)     // rule 2
	r := run(stamped.Add(-time.Second))
	got := map[string]int64{}
	var samples []string
	for _, table := range r.Tables {
		for rule, count := range table.ByRule {
			got[rule] += count
		}
		samples = append(samples, table.Samples...)
	}
	if want := map[string]int64{verify.RuleInFlight: 3, verify.RuleLate: 2, verify.RuleAtomic: 7, verify.RuleComplete: 2}; !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	all := strings.Join(samples, "\n")
	for _, want := range []string{"accountId=-1,seqNo=3: COMMITTED at", "accountId=-1,seqNo=5: PREPARED since", "accountId=-1,seqNo=8: state 9", "transaction late, after the window opened",
		parent + ":lone, which the coordinator says is ABORTED", parent + ":nobody, which the coordinator does not know", parent + ":c2, which the coordinator says is COMMITTED", "the backup had 2007"} {
		if !strings.Contains(all, want) {
			t.Errorf("no sample says %q:\n%s", want, all)
		}
	}
}

// dropper makes connections that end after they received so many bytes.
type dropper struct {
	after   int64
	dropped atomic.Int64
}

type dropping struct {
	net.Conn
	d    *dropper
	left int64
}

func (d *dropper) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, address)
	return &dropping{c, d, d.after}, err
}

func (c *dropping) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.left -= int64(n); c.left < 0 && err == nil {
		c.d.dropped.Add(1)
		_ = c.Close()
		return 0, net.ErrClosed
	}
	return n, err
}

// resumption: connections that drop in the middle of ranges lose no row and count none twice.
func (b *bed) resumption(t *testing.T) {
	table := verify.Table{Namespace: "camelCase", Name: "OrderLines"}
	d := &dropper{after: 300_000}
	cfg := b.config()
	cfg.Dialer = d
	cfg.ReconnectInterval = 200 * time.Millisecond
	r := b.reader(t, cfg, reading.Settings{Keyspaces: []string{"camelCase"}, PageSize: 500})
	seen := map[string]int{}
	err := r.Records(t.Context(), table, verify.RecordFilter{States: []int{verify.StateCommitted}}, func(rec verify.Record) error { seen[rec.Key]++; return nil })
	if err != nil {
		t.Fatal(err)
	}
	for k, n := range seen {
		if n != 1 {
			t.Fatalf("%s was seen %d times", k, n)
		}
	}
	if len(seen) != 50_000 || d.dropped.Load() < 3 {
		t.Errorf("%d rows, while %d connections dropped", len(seen), d.dropped.Load())
	}
	t.Logf("%d connections dropped", d.dropped.Load())
}

// BenchmarkScan measures rows a second.
func BenchmarkScan(b *testing.B) {
	bed := startBed(b)
	bed.keyspace(b, "shop")
	bed.coordinator(b, "coordinator", false)
	bed.exec(b, "CREATE TABLE shop.lines"+camel)
	bed.exec(b, "CREATE TABLE shop.accounts (id int PRIMARY KEY, balance int, "+marks+")")
	const n = 200_000
	const single = 50_000
	bed.rows(b, "shop.lines", n)
	each(b, single, func(i int) error {
		return bed.s.Query("INSERT INTO shop.accounts (id, balance, tx_id, tx_state, tx_version, tx_prepared_at, tx_committed_at) VALUES (?, 1, ?, 3, 1, ?, ?)", i, fmt.Sprintf("0123456789abcdef-%06d", i), start, start).Exec()
	})
	ids := make([]string, 10_000)
	each(b, len(ids), func(i int) error {
		ids[i] = fmt.Sprintf("0123456789abcdef-%06d", i)
		return bed.s.Query("INSERT INTO coordinator.state (tx_id, tx_state, tx_created_at) VALUES (?, 3, ?)", ids[i], start).Exec()
	})
	if _, err := bed.Nodes[0].Nodetool(b.Context(), "flush"); err != nil {
		b.Fatal(err)
	}
	rate := func(b *testing.B, rows int, f func() error) {
		b.Helper()
		for b.Loop() {
			if err := f(); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
	}
	for _, table := range []struct {
		name string
		rows int
	}{{"lines", n}, {"accounts", single}} {
		for _, parallel := range []int{1, 4, 8} {
			r := bed.reader(b, bed.config(), reading.Settings{Keyspaces: []string{"shop"}, Parallel: parallel})
			t := verify.Table{Namespace: "shop", Name: table.name}
			b.Run(fmt.Sprintf("%s/tally/%d", table.name, parallel), func(b *testing.B) {
				rate(b, table.rows, func() error { _, err := r.Tally(b.Context(), t, verify.TallyQuery{}); return err })
			})
			b.Run(fmt.Sprintf("%s/count/%d", table.name, parallel), func(b *testing.B) {
				rate(b, table.rows, func() error { _, err := r.Count(b.Context(), t); return err })
			})
		}
		// What the cluster would need to aggregate what a tally asks.
		b.Run(table.name+"/aggregate/4", func(b *testing.B) {
			pk := map[string]string{"lines": `"accountId"`, "accounts": "id"}[table.name]
			rate(b, table.rows, func() error {
				ranges := reading.Split(nil, 16, false)
				var wg sync.WaitGroup
				var failed atomic.Value
				for w := range 4 {
					wg.Go(func() {
						for i := w; i < len(ranges); i += 4 {
							var all, id, state, low, high, newest int64
							if err := bed.s.Query("SELECT count(*), count(tx_id), count(tx_state), min(tx_state), max(tx_state), max(tx_committed_at) FROM shop."+table.name+" WHERE token("+pk+") > ? AND token("+pk+") <= ?",
								ranges[i].From, ranges[i].To).PageSize(5000).Scan(&all, &id, &state, &low, &high, &newest); err != nil {
								failed.Store(err)
							}
						}
					})
				}
				wg.Wait()
				err, _ := failed.Load().(error)
				return err
			})
		})
	}
	for _, parallel := range []int{1, 2, 8} {
		r := bed.reader(b, bed.config(), reading.Settings{Keyspaces: []string{"shop"}, Parallel: parallel})
		b.Run(fmt.Sprintf("look-ups/%d", parallel), func(b *testing.B) {
			rate(b, len(ids), func() error {
				found, err := r.Coordinator(b.Context(), ids)
				if len(found) != len(ids) {
					return fmt.Errorf("%d found", len(found))
				}
				return err
			})
		})
	}
	b.Run("look-ups by IN of 100/4", func(b *testing.B) {
		rate(b, len(ids), func() error {
			var wg sync.WaitGroup
			var failed atomic.Value
			for w := range 4 {
				wg.Go(func() {
					for i := w * 100; i < len(ids); i += 400 {
						iter := bed.s.Query("SELECT tx_id, tx_state, tx_created_at FROM coordinator.state WHERE tx_id IN ?", ids[i:i+100]).Iter()
						for iter.Scan(new(string), new(int), new(int64)) {
						}
						if err := iter.Close(); err != nil {
							failed.Store(err)
						}
					}
				})
			}
			wg.Wait()
			err, _ := failed.Load().(error)
			return err
		})
	})
}
