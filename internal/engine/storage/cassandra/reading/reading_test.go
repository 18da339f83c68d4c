package reading

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	gocql "github.com/apache/cassandra-gocql-driver/v2"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/relational"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/ddl"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify/verifytest"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).UnixMilli()

// TestVerification: a verification through the reader says the same, to the last sample, as one of the plain copies: of consistent cuts and of bad ones, with crashes, group
// commit and one-phase commit, and with records that were not marked, while every seventh request fails.
func TestVerification(t *testing.T) {
	passed := map[bool]int{}
	for seed := range uint64(24) {
		h := verifytest.Make(verifytest.Options{Seed: seed, Start: start, Duration: 3000, Storages: []string{"a", "b"}, Coordinator: "b", Accounts: 260, Threads: 6, Think: 20, PauseAt: start + 1500,
			Crash: 0.02 * float64(seed%3), CrashUntil: start + 1500, GroupCommit: seed%2 == 1, OnePhase: seed%5 == 4, Unmarked: 0.02 * float64(seed%2), Stamps: true, Ahead: 5000})
		from := max(h.PauseAt, h.Drained) + 1
		cutA, cutB := h.Cut("a", from+1), h.Cut("b", from+1)
		if seed%4 == 3 {
			cutA = h.Cut("a", start+700) // a copy without a pause
		}
		if seed%6 == 5 { // a transaction that the coordinator says is aborted, however old
			for _, k := range slices.Sorted(maps.Keys(cutA.Rows)) {
				if e, ok := cutB.Entries[cutA.Rows[k].TxID]; ok && cutA.Rows[k].State == verify.StateCommitted {
					e.State = verify.StateAborted
					cutB.Entries[e.TxID] = e
					break
				}
			}
		}
		request := func(a, b verify.Storage) verify.Request {
			return verify.Request{Storages: map[string]verify.Storage{"a": a, "b": b}, Window: &verify.Window{From: time.UnixMilli(from), Until: time.UnixMilli(from + 100),
				Opened: map[string]time.Time{"b": time.UnixMilli(from + 5000)}}, Drain: time.Second, ServerClockBound: time.Second,
				OnePhaseCommit: map[string]bool{"a": seed%5 == 4, "b": seed%5 == 4}, Expected: map[string]verify.Expected{"a": h.Cut("a", from+1).Expected(), "b": cutB.Expected()}}
		}
		want, err := verify.Run(t.Context(), request(cutA, cutB))
		if err != nil {
			t.Fatal(err)
		}
		synctest.Test(t, func(t *testing.T) {
			var readers []verify.Storage
			for i, cut := range []*verifytest.Store{cutA, cutB} {
				c := newCluster(1 + i*2)
				c.bank(cut, seed%2 == 1)
				n := 0
				var mu sync.Mutex
				c.fail = func(q Query) error {
					mu.Lock()
					defer mu.Unlock()
					if n++; n%7 == 0 && !strings.Contains(q.Statement, "system") {
						return io.ErrUnexpectedEOF
					}
					return nil
				}
				readers = append(readers, open(t, c, Settings{PageSize: 7 + int(seed), PartitionsPerRange: 50}, nil)) //nolint:gosec // small
			}
			got, err := verify.Run(t.Context(), request(readers[0], readers[1]))
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
		})
	}
	if passed[true] == 0 || passed[false] == 0 {
		t.Errorf("passed %d, failed %d: the histories show nothing", passed[true], passed[false])
	}
}

// big is a cluster with one table of n rows.
func big(nodes, n int) (*cluster, verify.Table) {
	c := newCluster(nodes)
	c.keyspace("Shop")
	full := c.table("Shop", "Orders", transactional("a partition_key int", "b clustering int")...)
	rows := make([]values, n)
	for i := range rows {
		rows[i] = values{"a": i / 3, "b": i % 3, colTxID: fmt.Sprint("t", i), colState: verify.StateCommitted, colPreparedAt: start, colCommittedAt: start + int64(i)}
	}
	c.insert(full, rows...)
	return c, verify.Table{Namespace: "Shop", Name: "Orders", Transactional: true, Key: []string{"a", "b"}}
}

// TestEveryRowOnce: whatever fails, at whatever page, every row is seen exactly once, and by other nodes than the one that failed.
func TestEveryRowOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, table := big(3, 3000)
		failures := map[string]int{}
		var mu sync.Mutex
		c.fail = func(q Query) error {
			if !strings.Contains(q.Statement, "token(") {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			page := fmt.Sprint(q.Args, q.State)
			if failures[page]++; failures[page] <= 2 {
				return []error{io.EOF, gocql.ErrTimeoutNoResponse, requestError(gocql.ErrCodeReadTimeout), gocql.ErrNoConnections, requestError(gocql.ErrCodeUnavailable)}[len(failures)%5]
			}
			if q.Host != "" {
				return errors.New("a failed page was asked for of the same node again")
			}
			return nil
		}
		r := open(t, c, Settings{PageSize: 64}, nil)
		seen := map[string]int{}
		if err := r.Records(t.Context(), table, verify.RecordFilter{}, func(rec verify.Record) error { seen[rec.Key]++; return nil }); err != nil {
			t.Fatal(err)
		}
		for k, n := range seen {
			if n != 1 {
				t.Fatalf("%s was seen %d times", k, n)
			}
		}
		if len(seen) != 3000 || seen["a=999,b=2"] != 1 {
			t.Errorf("%d records", len(seen))
		}
		if c.busiest > 6 || c.busiest < 2 {
			t.Errorf("%d requests at once; 3 nodes take 6", c.busiest)
		}
	})
}

// TestNodeIsDown: a node that cannot be asked is left alone for a while; the others read its ranges.
func TestNodeIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, table := big(3, 3000)
		n := 0
		var mu sync.Mutex
		c.fail = func(q Query) error {
			mu.Lock()
			defer mu.Unlock()
			if q.Host == host(1).String() && strings.Contains(q.Statement, "token(") {
				n++
				return gocql.ErrNoConnections
			}
			return nil
		}
		r := open(t, c, Settings{PageSize: 10}, nil)
		before := time.Now()
		tally, err := r.Tally(t.Context(), table, verify.TallyQuery{})
		if err != nil || tally.Rows != 3000 || n == 0 || n > cap(r.slots) || time.Since(before) > time.Second {
			t.Errorf("%+v, %v, %d requests to the node, %s", tally, err, n, time.Since(before))
		}
	})
}

// TestLookUps: ids are asked for in batches, all of them answered whatever the batch's size; where the cluster forbids batches, one by one.
func TestLookUps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(1)
		c.keyspace("coordinator")
		full := c.table("coordinator", "state", "tx_id partition_key text", "tx_state regular int", "tx_created_at regular bigint", "tx_child_ids regular text")
		parent := strings.Repeat("p", 24)
		var ids []string
		for i := range 1000 {
			id := fmt.Sprint("t", i)
			ids = append(ids, id)
			if i%3 != 0 {
				c.insert(full, values{colTxID: id, colState: 3 + i%2, colCreatedAt: int64(i)})
			}
		}
		c.insert(full, values{colTxID: parent, colState: 3, colCreatedAt: int64(7), colChildIDs: "c1,c2"}, values{colTxID: parent + ":c3", colState: 4, colCreatedAt: int64(8)})
		ids = append(ids, parent+":c1", parent+":c3", parent+":c4", "", strings.Repeat("x", maxKey+1))
		check := func(most int) {
			t.Helper()
			r := open(t, c, Settings{}, nil)
			if _, err := r.HasCoordinator(t.Context()); err != nil {
				t.Fatal(err)
			}
			before := len(c.queries)
			found, err := r.Coordinator(t.Context(), ids)
			if err != nil {
				t.Fatal(err)
			}
			if len(found) != 666+2 || found["t1"] != (verify.Entry{State: 4, CreatedAt: 1}) || found[parent+":c1"].CreatedAt != 7 || found[parent+":c3"].State != 4 {
				t.Errorf("%d found: %v", len(found), found[parent+":c1"])
			}
			if n := len(c.queries) - before; n > most {
				t.Errorf("%d requests", n)
			}
		}
		check(1003/lookupBatch + 2)
		c.fail = func(q Query) error {
			if len(q.Args) > 0 {
				if in, ok := q.Args[0].([]string); ok && len(in) > 1 {
					return requestError(gocql.ErrCodeInvalid)
				}
			}
			return nil
		}
		check(1003 + 4*cap(make(slots, MaxParallel)))
		var failed atomic.Bool         // batches are asked for several at a time
		c.fail = func(q Query) error { // the first page of a batch times out: it comes in two
			if q.State == nil && len(q.Args) > 0 && failed.CompareAndSwap(false, true) {
				return gocql.ErrTimeoutNoResponse
			}
			return nil
		}
		check(1003/lookupBatch + 6)
		c.fail = func(Query) error { return requestError(gocql.ErrCodeUnauthorized) }
		if _, err := New(t.Context(), c, Settings{}, nil, nil); err == nil {
			t.Error("a login without rights was no error")
		}
	})
}

// TestGivesUp: a page that never comes ends the reading, after its attempts; what is refused is not tried again.
func TestGivesUp(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
		most int
	}{
		{io.ErrUnexpectedEOF, `reading table Shop.Orders: unexpected EOF (10 attempts)`, 10 * 8},
		{requestError(gocql.ErrCodeUnavailable), `refused with code 0x1000; too few replicas are up (10 attempts)`, 10 * 8},
		{requestError(gocql.ErrCodeUnauthorized), `refused with code 0x2100; verification needs SELECT on ScalarDB's keyspaces`, 8},
		{&decodeError{errors.New("no int")}, `decoding a row: no int`, 8},
	} {
		synctest.Test(t, func(t *testing.T) {
			cl, table := big(1, 100)
			r := open(t, cl, Settings{Parallel: 2}, nil)
			n := 0
			var mu sync.Mutex
			cl.fail = func(q Query) error {
				if strings.Contains(q.Statement, "token(") {
					mu.Lock()
					defer mu.Unlock()
					n++
					return c.err
				}
				return nil
			}
			before := time.Now()
			_, err := r.Tally(t.Context(), table, verify.TallyQuery{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %s", err, c.want)
			}
			if n > c.most {
				t.Errorf("%d requests", n)
			}
			if d := time.Since(before); d > 2*time.Minute {
				t.Errorf("it took %s", d)
			}
		})
	}
}

// TestCount: a count that is too slow is made in halves, and is exact.
func TestCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, table := big(2, 5000)
		c.fail = func(q Query) error {
			if strings.Contains(q.Statement, "count(") && (Range{From: q.Args[0].(int64), To: q.Args[1].(int64)}).width() > math.MaxUint64/50 {
				return gocql.ErrTimeoutNoResponse
			}
			return nil
		}
		r := open(t, c, Settings{}, nil)
		before := time.Now()
		n, err := r.Count(t.Context(), table)
		if err != nil || n != 5000 || time.Since(before) > 10*time.Second {
			t.Errorf("%d, %v, after %s", n, err, time.Since(before))
		}
		c.fail = func(q Query) error {
			if strings.Contains(q.Statement, "count(") {
				return gocql.ErrTimeoutNoResponse
			}
			return nil
		}
		if _, err = r.Count(t.Context(), table); err == nil || !strings.Contains(err.Error(), "counting table Shop.Orders") {
			t.Errorf("a count that never comes: %v", err)
		}
	})
}

// TestLimit: two looks name the same records, the least.
func TestLimit(t *testing.T) {
	c, table := big(2, 300)
	r := open(t, c, Settings{PageSize: 10}, nil)
	var keys []string
	err := r.Records(t.Context(), table, verify.RecordFilter{CommittedAfter: start + 99, Limit: 3}, func(rec verify.Record) error { keys = append(keys, rec.Key); return nil })
	if err != nil || !slices.Equal(keys, []string{"a=33,b=1", "a=33,b=2", "a=34,b=0"}) {
		t.Errorf("%v, %v", keys, err)
	}
}

// TestCallbacksRead: what is done with rows may read, with one slot only, while other tables are read.
func TestCallbacksRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, table := big(1, 500)
		c.keyspace("coordinator")
		full := c.table("coordinator", "state", "tx_id partition_key text", "tx_state regular int", "tx_created_at regular bigint")
		c.insert(full, values{colTxID: "t5", colState: verify.StateAborted, colCreatedAt: start}, values{colTxID: "t7", colState: verify.StateCommitted, colCreatedAt: start})
		r := open(t, c, Settings{Parallel: 1, PageSize: 10}, nil)
		found := map[string]verify.Entry{}
		err := r.Records(t.Context(), table, verify.RecordFilter{}, func(rec verify.Record) error {
			e, err := r.Coordinator(t.Context(), []string{rec.TxID, "", strings.Repeat("x", maxKey+1)})
			maps.Copy(found, e)
			return err
		})
		if err != nil || len(found) != 2 || found["t5"].State != verify.StateAborted {
			t.Errorf("%v, %v", found, err)
		}
		err = r.Aborted(t.Context(), func(ids []string) error {
			records, err := r.CommittedAmong(t.Context(), table, ids)
			if len(records) != 1 || records[0].Key != "a=1,b=2" {
				t.Errorf("%+v", records)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// TestEnds: the callback's error and the caller's cancellation end a scan at once.
func TestEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, table := big(2, 4000)
		r := open(t, c, Settings{PageSize: 10}, nil)
		enough := errors.New("enough")
		n := 0
		if err := r.Records(t.Context(), table, verify.RecordFilter{}, func(verify.Record) error { n++; return enough }); !errors.Is(err, enough) || n != 1 {
			t.Errorf("%v after %d", err, n)
		}
		ctx, cancel := context.WithCancel(t.Context())
		before := len(c.queries)
		err := r.Records(ctx, table, verify.RecordFilter{}, func(verify.Record) error { cancel(); return nil })
		if !errors.Is(err, context.Canceled) || len(c.queries)-before > 20 {
			t.Errorf("%v after %d requests", err, len(c.queries)-before)
		}
		c.fail = func(Query) error { return io.EOF }
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.Count(ctx, table); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
	})
}

func names(tables []verify.Table) (out []string) {
	for _, t := range tables {
		mark := ""
		if t.Transactional {
			mark = "*"
		}
		out = append(out, t.Namespace+"."+t.Name+mark)
	}
	return out
}

func TestTables(t *testing.T) {
	with := func(list []string, keyspaces ...string) *cluster {
		c := newCluster(1)
		for _, k := range append(keyspaces, "system_traces") {
			c.keyspace(k)
		}
		for _, k := range keyspaces {
			switch {
			case strings.HasPrefix(k, "coordinator"):
				c.table(k, "state", "tx_id partition_key text", "tx_state regular int", "tx_created_at regular bigint")
			case strings.HasPrefix(k, "scalardb"):
				c.table(k, "users", "name partition_key text", "hash regular text")
				if list != nil {
					full := c.table(k, "namespaces", "name partition_key text")
					for i, n := range list {
						c.insert(full, values{"name": n, tokenColumn: int64(i)})
					}
				}
			case k == "foreign":
				c.table(k, "t", "id partition_key int", "tx_id regular text")
			default:
				c.table(k, "orders", transactional("id partition_key int")...)
				c.table(k, "plain", "id partition_key int")
			}
		}
		return c
	}
	for _, c := range []struct {
		name             string
		cluster          *cluster
		s                Settings
		present, missing []string
		none             bool // no coordinator
	}{
		{name: "listed", cluster: with([]string{"shop", "coordinator", "scalardb", "gone"}, "shop", "other", "coordinator", "scalardb"),
			present: []string{"scalardb.users", "shop.orders*", "shop.plain"}, missing: []string{"gone.*"}},
		{name: "found", cluster: with(nil, "shop", "other", "foreign", "coordinator", "scalardb"),
			present: []string{"other.orders*", "other.plain", "scalardb.users", "shop.orders*", "shop.plain"}},
		{name: "given", cluster: with([]string{"shop", "other"}, "shop", "other", "coordinator"), s: Settings{Keyspaces: []string{"shop", "lost"}},
			present: []string{"shop.orders*", "shop.plain"}, missing: []string{"lost.*"}},
		{name: "other layout", cluster: with([]string{"shop"}, "shop", "coordinator_2", "scalardb_2"), s: Settings{Layout: relational.Layout{CoordinatorNamespace: "coordinator_2", MetadataNamespace: "scalardb_2"}},
			present: []string{"scalardb_2.users", "shop.orders*", "shop.plain"}},
		{name: "no coordinator", cluster: with([]string{"shop"}, "shop", "scalardb"), present: []string{"scalardb.users", "shop.orders*", "shop.plain"}, none: true},
		{name: "a clone with its source's list, beside its source", cluster: with([]string{"shop", "coordinator"}, "shop", "shop_staging", "coordinator", "coordinator_staging", "scalardb_staging"),
			s:       Settings{Rename: map[string]string{"shop": "shop_staging", "coordinator": "coordinator_staging", "scalardb": "scalardb_staging"}},
			present: []string{"scalardb.users", "shop.orders*", "shop.plain"}},
		{name: "a clone with its own list", cluster: with([]string{"shop_staging", "coordinator_staging"}, "shop", "shop_staging", "coordinator_staging", "scalardb_staging"),
			s:       Settings{Rename: map[string]string{"shop": "shop_staging", "coordinator": "coordinator_staging", "scalardb": "scalardb_staging"}},
			present: []string{"scalardb.users", "shop.orders*", "shop.plain"}},
		{name: "a clone without a list", cluster: with(nil, "shop", "shop_staging", "coordinator_staging", "scalardb_staging"),
			s:       Settings{Rename: map[string]string{"shop": "shop_staging", "coordinator": "coordinator_staging", "scalardb": "scalardb_staging"}},
			present: []string{"scalardb.users", "shop.orders*", "shop.plain"}},
		{name: "a clone that is named", cluster: with([]string{"x"}, "shop_staging", "coordinator", "scalardb"), s: Settings{Keyspaces: []string{"shop", "b"}, Rename: map[string]string{"shop": "shop_staging"}},
			present: []string{"scalardb.users", "shop.orders*", "shop.plain"}, missing: []string{"b.*"}},
		{name: "swapped", cluster: with([]string{"a", "b"}, "a", "b", "coordinator"), s: Settings{Rename: map[string]string{"a": "b", "b": "a"}},
			present: []string{"a.orders*", "a.plain", "b.orders*", "b.plain"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := open(t, c.cluster, c.s, nil)
			present, missing, err := r.Tables(t.Context())
			if err != nil || !slices.Equal(names(present), c.present) || !slices.Equal(names(missing), c.missing) {
				t.Errorf("%v, %v, %v; want %v, %v", names(present), names(missing), err, c.present, c.missing)
			}
			if has, err := r.HasCoordinator(t.Context()); err != nil || has == c.none {
				t.Errorf("coordinator: %t, %v", has, err)
			}
			for _, table := range present {
				if _, err := r.Count(t.Context(), table); err != nil {
					t.Error(err)
				}
			}
			for _, q := range c.cluster.queries {
				for original, name := range c.s.Rename {
					if original != name && strings.Contains(q.Statement, ddl.Quote(original)+".") && !slices.Contains(slices.Collect(maps.Values(c.s.Rename)), original) {
						t.Errorf("the source was read: %s", q.Statement)
					}
				}
			}
		})
	}
}

// TestTableThatIsNone: only what Tables returned can be read.
func TestTableThatIsNone(t *testing.T) {
	c, _ := big(1, 1)
	r := open(t, c, Settings{}, nil)
	if _, err := r.Count(t.Context(), verify.Table{Namespace: "system", Name: "local"}); err == nil || !strings.Contains(err.Error(), "none of ScalarDB's tables") {
		t.Error(err)
	}
	if _, err := r.Coordinator(t.Context(), []string{"x"}); err == nil || !strings.Contains(err.Error(), `"coordinator".state`) {
		t.Error(err)
	}
	if err := r.Close(); err != nil || !c.closed {
		t.Error(err)
	}
}

// TestStaticOnly: a partition that has nothing but static columns has no row.
func TestStaticOnly(t *testing.T) {
	c := newCluster(1)
	c.keyspace("shop")
	full := c.table("shop", "t", append(transactional("a partition_key int", "b clustering int"), "s static text")...)
	c.insert(full, values{"a": 1, "b": 1, colTxID: "t1", colState: 3}, values{"a": 2, "s": "x"})
	r := open(t, c, Settings{}, nil)
	table := verify.Table{Namespace: "shop", Name: "t"}
	n, err := r.Count(t.Context(), table)
	tally, err2 := r.Tally(t.Context(), table, verify.TallyQuery{})
	if n != 1 || tally.Rows != 1 || tally.Imported != 0 || err != nil || err2 != nil {
		t.Errorf("%d, %+v, %v, %v", n, tally, err, err2)
	}
	var keys []string
	if err := r.Records(t.Context(), table, verify.RecordFilter{}, func(rec verify.Record) error { keys = append(keys, rec.Key); return nil }); err != nil || !slices.Equal(keys, []string{"a=1,b=1"}) {
		t.Errorf("%v, %v", keys, err)
	}
}

func TestSettings(t *testing.T) {
	for _, c := range []struct {
		s    Settings
		want string
	}{
		{Settings{Consistency: gocql.EachQuorum}, "cannot be read at consistency EACH_QUORUM"},
		{Settings{Consistency: gocql.Serial}, "cannot be read at consistency SERIAL"},
		{Settings{PageSize: -1}, "cannot be negative"},
		{Settings{Rename: map[string]string{"a": "x", "b": "x"}}, `"a" and "b" are both renamed to "x"`},
		{Settings{Keyspaces: []string{"a", "b"}, Rename: map[string]string{"a": "b"}}, `would both be "b"`},
		{Settings{Datacenter: "dc9"}, `no node in datacenter "dc9"`},
	} {
		cl := newCluster(1)
		if _, err := New(t.Context(), cl, c.s, nil, nil); err == nil || !strings.Contains(err.Error(), c.want) || !cl.closed {
			t.Errorf("%+v: %v (closed: %t)", c.s, err, cl.closed)
		}
	}
	cl := newCluster(1)
	cl.tables["system.local"][0]["partitioner"] = "org.apache.cassandra.dht.RandomPartitioner"
	if _, err := New(t.Context(), cl, Settings{}, nil, nil); err == nil || !strings.Contains(err.Error(), "only Murmur3Partitioner") {
		t.Error(err)
	}
	for nodes, want := range map[int]int{1: 2, 5: 10, 12: MaxParallel} {
		c, table := big(nodes, 10)
		r := open(t, c, Settings{}, nil)
		if cap(r.slots) != want {
			t.Errorf("%d nodes: %d at once", nodes, cap(r.slots))
		}
		if _, err := r.Tally(t.Context(), table, verify.TallyQuery{}); err != nil {
			t.Error(err)
		}
		for _, q := range c.queries {
			if strings.Contains(q.Statement, "token(") && (q.Consistency != gocql.Quorum || q.PageSize != DefaultPageSize) {
				t.Errorf("%+v", q)
			}
		}
	}
}

// TestRanges: estimates of any part of the ring make ranges of the wanted size.
func TestRanges(t *testing.T) {
	c, _ := big(2, 1)
	r := open(t, c, Settings{PartitionsPerRange: 100}, nil)
	sc, err := r.load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	table := sc.tables[0]
	ranges, err := r.rangesOf(t.Context(), table)
	if err != nil || len(ranges) < 16 || len(ranges) > 21 {
		t.Errorf("without estimates: %d ranges, %v", len(ranges), err)
	}
	c.tables["system.size_estimates"] = []values{{"keyspace_name": "Shop", "table_name": "Orders", "range_start": "0", "range_end": "4611686018427387904", "partitions_count": int64(25_000)}}
	c.fail = func(q Query) error {
		if q.Host == host(0).String() {
			return io.EOF // a node is down
		}
		return nil
	}
	r.ranges = map[string][]Range{}
	if ranges, err = r.rangesOf(t.Context(), table); err != nil || len(ranges) < 950 || len(ranges) > 1100 {
		t.Errorf("100000 partitions by the estimate of a quarter: %d ranges, %v", len(ranges), err)
	}
	covers(t, ranges, 900)
}

func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, table := big(1, 2000)
		c.fail = func(Query) error { time.Sleep(3 * time.Second); return nil } // the bubble's clock
		var last map[string]any
		n := 0
		r := open(t, c, Settings{PageSize: 100}, func(message string, fields map[string]any) { n++; last = fields })
		if _, err := r.Tally(t.Context(), table, verify.TallyQuery{}); err != nil {
			t.Fatal(err)
		}
		if n < 3 || last["table"] != "Shop.Orders" || last["ranges"].(int) < 8 || last["rows"].(int64) < 1000 || last["ranges_done"].(int) < 2 {
			t.Errorf("%d reports, the last %v", n, last)
		}
	})
}

func TestReadable(t *testing.T) {
	for want, in := range map[string]string{`plain text`: "plain text", `""`: "", `"a,b=c"`: "a,b=c", `"line\nbreak"`: "line\nbreak", `é`: "é",
		strings.Repeat("x", 100) + "...": strings.Repeat("x", 300)} {
		if got := text(in); got != want {
			t.Errorf("%q: %s", in, got)
		}
	}
	if got := readable(nil, []byte{1, 0xab}); got != "0x01ab" {
		t.Error(got)
	}
	if got := readable(nil, nil); got != "null" {
		t.Error(got)
	}
	if got := readable(nil, make([]byte, 200)); len(got) > 110 || !strings.HasSuffix(got, "...") {
		t.Error(got)
	}
}
