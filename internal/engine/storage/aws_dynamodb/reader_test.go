package awsdynamodb

import (
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify/verifytest"
)

func nullable(n int64) types.AttributeValue {
	if n == 0 {
		return &types.AttributeValueMemberNULL{Value: true}
	}
	return num(n)
}

// accounts writes one copy of the bank below a prefix, as ScalarDB would: null columns are NULL, or absent (imported rows).
func (w *world) accounts(prefix string, s *verifytest.Store, onDemand bool) {
	w.create(prefix+"scalardb.metadata", attrTable, true)
	full := prefix + s.Namespace + ".accounts"
	w.create(full, partitionAttribute, onDemand)
	w.put(prefix+"scalardb.metadata", metadataRow(full))
	var items []item
	for k, r := range s.Rows {
		it := item{partitionAttribute: &types.AttributeValueMemberB{Value: fmt.Appendf(nil, "%08d", k)}, "id": num(int64(k)), "balance": num(r.Balance)}
		if r.TxID != "" {
			it[colTxID], it[colState], it[colVersion] = str(r.TxID), nullable(int64(r.State)), nullable(r.Version)
			it[colPreparedAt], it[colCommittedAt] = nullable(r.PreparedAt), nullable(r.CommittedAt)
		}
		items = append(items, it)
	}
	w.put(full, items...)
	if s.Entries == nil {
		return
	}
	w.create(prefix+"coordinator.state", partitionAttribute, onDemand)
	items = nil
	for id, e := range s.Entries {
		it := item{partitionAttribute: &types.AttributeValueMemberB{Value: coordinatorKey(id)}, colTxID: str(id), colState: num(int64(e.State)), colCreatedAt: num(e.CreatedAt)}
		if e.ChildIDs != "" {
			it[colChildIDs] = str(e.ChildIDs)
		}
		items = append(items, it)
	}
	w.put(prefix+"coordinator.state", items...)
}

// TestReader: a verification through DynamoDB says the same, to the last sample, as one of the plain copies: of consistent cuts and of bad ones, with
// crashes, group commit and one-phase commit.
func TestReader(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).UnixMilli()
	passed := map[bool]int{}
	for seed := range uint64(24) {
		h := verifytest.Make(verifytest.Options{Seed: seed, Start: start, Duration: 3000, Storages: []string{"a", "b"}, Coordinator: "b", Accounts: 260, Threads: 6, Think: 20, PauseAt: start + 1500,
			Crash: 0.02 * float64(seed%3), CrashUntil: start + 1500, GroupCommit: seed%2 == 1, OnePhase: seed%5 == 4})
		from := max(h.PauseAt, h.Drained)
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
			return verify.Request{Storages: map[string]verify.Storage{"a": a, "b": b}, Window: &verify.Window{From: time.UnixMilli(from), Until: time.UnixMilli(from + 100)}, Drain: time.Second,
				OnePhaseCommit: map[string]bool{"a": seed%5 == 4, "b": seed%5 == 4},
				// As a backup by time says it: that there is a coordinator table, not what its newest entry is.
				Expected: map[string]verify.Expected{"b": {HasCoordinator: true, CoordinatorNewest: -1}}}
		}
		want, err := verify.Run(t.Context(), request(cutA, cutB))
		if err != nil {
			t.Fatal(err)
		}
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.accounts("a.", cutA, seed%2 == 0)
			w.accounts("b.", cutB, true)
			var readers []verify.Storage
			for _, prefix := range []string{"a.", "b."} {
				s := w.settings()
				s.Prefix = prefix
				r, err := NewReader(t.Context(), s, nil)
				if err != nil {
					t.Fatal(err)
				}
				readers = append(readers, r)
			}
			got, err := verify.Run(t.Context(), request(readers[0], readers[1]))
			if err != nil {
				t.Fatal(err)
			}
			// Keys sort as text here.
			for i := range got.Tables {
				slices.Sort(got.Tables[i].Samples)
				slices.Sort(want.Tables[i].Samples)
				if len(got.Tables[i].Samples) > 4 {
					got.Tables[i].Samples, want.Tables[i].Samples = nil, nil // which of many are named differs
				}
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("seed %d:\n%+v\n%+v", seed, got, want)
			}
			passed[got.Passed]++
		})
	}
	if passed[true] < 5 || passed[false] < 5 {
		t.Errorf("the copies are too alike to tell: %v", passed)
	}
}

// TestReaderRate: a provisioned table is read at its share, whatever the number of segments.
func TestReaderRate(t *testing.T) {
	for _, c := range []struct {
		capacity, share int64
		want            time.Duration // for 400 items of one unit
	}{{10, 50, 80 * time.Second}, {10, 100, 40 * time.Second}, {50, 50, 16 * time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.scalardb("", "shop.events")
			w.tables["shop.events"].desc.ProvisionedThroughput.ReadCapacityUnits = aws.Int64(c.capacity)
			var items []item
			for i := range 400 {
				items = append(items, item{partitionAttribute: str(fmt.Sprint(i)), colTxID: str("x"), colState: num(3), colCommittedAt: num(int64(i))})
			}
			w.put("shop.events", items...)
			s := w.settings()
			s.ReadShare = c.share
			r, err := NewReader(t.Context(), s, w.report)
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			tally, err := r.Tally(t.Context(), verify.Table{Namespace: "shop", Name: "events"}, verify.TallyQuery{InFlightSince: math.MaxInt64, LateAfter: math.MaxInt64})
			took := time.Since(began)
			if err != nil || tally.Rows != 400 || tally.NewestCommitted != 399 {
				t.Errorf("%+v, %v", tally, err)
			}
			if took < c.want*7/10 || took > c.want*13/10 {
				t.Errorf("capacity %d, share %d %%: %s, want about %s", c.capacity, c.share, took, c.want)
			}
			if n, err := r.Count(t.Context(), verify.Table{Namespace: "shop", Name: "events"}); n != 400 || err != nil {
				t.Errorf("%d, %v", n, err)
			}
		})
	}
}

func TestReaderTables(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.scalardb("p.", "shop.events", "other.things")
		plain := metadataRow("p.shop.plain")
		delete(plain[attrColumns].(*types.AttributeValueMemberM).Value, colTxID)
		w.put("p.scalardb.metadata", plain, metadataRow("p.shop.dropped"))
		w.create("p.shop.plain", partitionAttribute, true)
		s := w.settings()
		s.Prefix, s.Namespaces = "p.", []string{"shop"}
		r, err := NewReader(t.Context(), s, nil)
		if err != nil {
			t.Fatal(err)
		}
		present, missing, err := r.Tables(t.Context())
		want := []verify.Table{{Namespace: "shop", Name: "events", Transactional: true, Key: []string{"id"}}, {Namespace: "shop", Name: "plain", Key: []string{"id"}}}
		if err != nil || !reflect.DeepEqual(present, want) || len(missing) != 1 || missing[0].Name != "dropped" {
			t.Errorf("%+v, %+v, %v", present, missing, err)
		}
		if has, err := r.HasCoordinator(t.Context()); !has || err != nil {
			t.Errorf("%v, %v", has, err)
		}
	})
}

func TestNumber(t *testing.T) {
	for _, c := range []struct {
		v    types.AttributeValue
		want int64
		ok   bool
	}{
		{nil, 0, true}, {&types.AttributeValueMemberNULL{Value: true}, 0, true}, {num(math.MaxInt64), math.MaxInt64, true}, {num(math.MinInt64), math.MinInt64, true},
		{&types.AttributeValueMemberN{Value: "9223372036854775808"}, 0, false}, {&types.AttributeValueMemberN{Value: "1E+3"}, 0, false}, {&types.AttributeValueMemberN{Value: "1.5"}, 0, false},
		{&types.AttributeValueMemberN{Value: "00000000000000000000000000000000000001"}, 0, false}, {str("1"), 0, false},
	} {
		got, err := number(item{"x": c.v}, "x")
		if c.v == nil {
			got, err = number(item{}, "x")
		}
		if got != c.want || (err == nil) != c.ok {
			t.Errorf("%v: %d, %v", c.v, got, err)
		}
	}
	// A state that no record has is invalid, and no error.
	if rec, err := record(item{colTxID: str("x"), colState: num(math.MaxInt64)}, nil); err != nil || !rec.Invalid() {
		t.Errorf("%+v, %v", rec, err)
	}
}

// TestCoordinatorKey: what ScalarDB's own encoder makes of these ids.
func TestCoordinatorKey(t *testing.T) {
	for id, want := range map[string]string{"abc": "61626300", "é": "c3a900", "": "00"} {
		if got := fmt.Sprintf("%x", coordinatorKey(id)); got != want {
			t.Errorf("%q: %s, want %s", id, got, want)
		}
	}
}
