package awsdynamodb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

// restored is one restore.
type restored struct {
	restored  engine.Restored
	announced engine.Restored // the last
	announces int
	err       error
}

func (w *world) restoreIn(ctx context.Context, s Settings, record engine.StorageRecord, at time.Time) restored {
	var r restored
	var mu sync.Mutex
	q := engine.StorageBackup{Storage: "events", RunID: "fedcba9876543210", Name: "staging", Record: record, RestorePoint: at, Catalog: w.catalog, Report: w.report, Announce: func(_ context.Context, x engine.Restored) error {
		mu.Lock()
		defer mu.Unlock()
		r.announced = x
		r.announces++
		for _, o := range x.Objects {
			w.announced.Store(o.ID, true)
		}
		return nil
	}}
	d := NewDestination(s)
	if r.err = d.Preflight(ctx, q); r.err == nil {
		r.restored, r.err = d.Restore(ctx, q)
	}
	return r
}

func (w *world) restore(s Settings, record engine.StorageRecord, at time.Time) restored {
	return w.restoreIn(w.t.Context(), s, record, at)
}

func (w *world) pointOf(record engine.StorageRecord) time.Time {
	at, err := time.Parse(time.RFC3339, record.Artifacts[0].Extra[extraRestorePoint])
	if err != nil {
		w.t.Fatal(err)
	}
	return at
}

// TestClone: another prefix in the same region. The data is that of the restore point, ScalarDB's metadata and indexes have the new names, everything that
// DynamoDB leaves behind is back, and the source is as it was.
func TestClone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.scalardb("p.", "shop.events", "other.things")
		w.decorate("p.shop.events")
		w.put("p.shop.events", item{partitionAttribute: str("before")})
		time.Sleep(time.Hour)
		s := w.settings()
		s.Prefix = "p."
		record, _ := w.backUp(s)
		w.put("p.shop.events", item{partitionAttribute: str("after")})
		time.Sleep(time.Hour)
		source := w.names()
		d := w.settings()
		d.Prefix, d.HasPrefix, d.Tags = "staging.", true, map[string]string{"env": "staging"}
		r := w.restore(d, record, w.pointOf(record))
		if r.err != nil {
			t.Fatal(r.err)
		}
		want := append([]string{}, source...)
		for _, n := range source {
			want = append(want, "staging."+strings.TrimPrefix(n, "p."))
		}
		slices.Sort(want)
		if !slices.Equal(w.names(), want) {
			t.Errorf("tables %q", w.names())
		}
		if got := w.values("staging.shop.events"); !slices.Equal(got, []string{"before"}) {
			t.Errorf("data %q", got)
		}
		if got, want := w.values("staging.scalardb.metadata"), []string{"staging.coordinator.state", "staging.other.things", "staging.shop.events"}; !slices.Equal(got, want) {
			t.Errorf("metadata %q", got)
		}
		if got, want := w.values("staging.scalardb.namespaces"), []string{"staging.coordinator", "staging.other", "staging.shop"}; !slices.Equal(got, want) {
			t.Errorf("namespaces %q", got)
		}
		if got, want := w.values("p.scalardb.metadata"), []string{"p.coordinator.state", "p.other.things", "p.shop.events"}; !slices.Equal(got, want) {
			t.Errorf("the source's metadata is %q", got)
		}
		made := w.tables["staging.shop.events"]
		f := featuresOf(made.desc)
		var indexes []string
		for _, i := range f.Indexes {
			indexes = append(indexes, fmt.Sprintf("%s %d/%d", i.Name, i.Read, i.Write))
		}
		slices.Sort(indexes)
		if !slices.Equal(indexes, []string{"by-hand 5/6", "staging.shop.events.global_index.balance 5/6"}) {
			t.Errorf("indexes %q", indexes)
		}
		if made.ttl != "expires" || made.days != 20 || made.pitr.IsZero() || f.Stream != "NEW_IMAGE" || !f.Protection || f.Class != "STANDARD_INFREQUENT_ACCESS" || f.Billing != "PROVISIONED" || f.Read != 10 {
			t.Errorf("settings %+v, ttl %q, days %d", f, made.ttl, made.days)
		}
		if g := made.tags; g["team"] != "shop" || g["env"] != "staging" || g[tagRunID] != "fedcba9876543210" || g[tagRestore] != "staging" || len(g) != 4 {
			t.Errorf("tags %v", g)
		}
		if f := featuresOf(w.tables["staging.scalardb.metadata"].desc); f.Billing != "PROVISIONED" || f.Read != 10 {
			t.Errorf("the metadata table was left on-demand: %+v", f)
		}
		for _, id := range []string{"table/staging.shop.events", "table/staging.shop.events/index/staging.shop.events.global_index.balance"} {
			if _, ok := w.targets[id+" dynamodb:table:ReadCapacityUnits"]; !ok {
				t.Errorf("no scaling of %s", id)
			}
		}
		if _, ok := w.policies["table/staging.shop.events table/staging.shop.events-read"]; !ok {
			t.Errorf("policies %v", w.policies)
		}
		if p := r.restored.Properties; p["storage"] != "dynamo" || p["contact_points"] != fakeRegion || p["dynamo.namespace.prefix"] != "staging." || len(p) != 3 {
			t.Errorf("properties %v", p)
		}
		if err := NewDestination(d).Inspect(t.Context(), r.restored); err != nil {
			t.Error(err)
		}
		// Its destruction lifts the protection, ends the scaling, and leaves the source.
		if err := NewDestination(d).Delete(t.Context(), r.restored); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(w.names(), source) || len(w.targets) != 2 {
			t.Errorf("tables %q, scaling %v", w.names(), w.targets)
		}
		if err := NewDestination(d).Inspect(t.Context(), r.restored); !errors.Is(err, engine.ErrNotFound) {
			t.Error(err)
		}
	})
}

// TestSelection: with some of the tables, ScalarDB's metadata names those only.
func TestSelection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.scalardb("", "shop.events", "shop.orders", "other.things")
		time.Sleep(time.Hour)
		record, _ := w.backUp(w.settings())
		d := w.settings()
		d.Prefix, d.HasPrefix, d.Tables = "staging.", true, []string{"shop.events"}
		r := w.restore(d, record, w.pointOf(record))
		if r.err != nil {
			t.Fatal(r.err)
		}
		if got, want := w.values("staging.scalardb.metadata"), []string{"staging.coordinator.state", "staging.shop.events"}; !slices.Equal(got, want) {
			t.Errorf("metadata %q", got)
		}
		if got, want := w.values("staging.scalardb.namespaces"), []string{"staging.coordinator", "staging.shop"}; !slices.Equal(got, want) {
			t.Errorf("namespaces %q", got)
		}
		if len(r.restored.Objects) != 4 {
			t.Errorf("objects %+v", r.restored.Objects)
		}
		d.Tables = []string{"shop.gone"}
		if r := w.restore(d, record, w.pointOf(record)); r.err == nil || !strings.Contains(r.err.Error(), "does not hold shop.gone") {
			t.Error(r.err)
		}
	})
}

// TestRewriteOverlap: new names that are old ones too are not lost ("a." cloned to "a.a.").
func TestRewriteOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.scalardb("a-", "shop.events")
		w.put("a-scalardb.namespaces", item{attrNamespace: str("a-a-shop")}) // a namespace named a-shop
		time.Sleep(time.Hour)
		s := w.settings()
		s.Prefix = "a-"
		record, _ := w.backUp(s)
		d := w.settings()
		d.Prefix, d.HasPrefix = "a-a-", true
		if r := w.restore(d, record, w.pointOf(record)); r.err != nil {
			t.Fatal(r.err)
		}
		if got, want := w.values("a-a-scalardb.namespaces"), []string{"a-a-a-shop", "a-a-coordinator", "a-a-shop"}; !slices.Equal(got, want) {
			t.Errorf("namespaces %q", got)
		}
	})
}

// TestWindowOnly: without a backup the source's tables are those of now.
func TestWindowOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.scalardb("p.", "shop.events")
		time.Sleep(time.Hour)
		at := time.Now().UTC().Truncate(time.Second)
		d := w.settings()
		d.Prefix, d.HasPrefix, d.SourcePrefix, d.HasSourcePrefix = "staging.", true, "p.", true
		r := w.restore(d, engine.StorageRecord{}, at)
		if r.err != nil || time.Since(at) < fakeLag {
			t.Fatalf("%v, after %s", r.err, time.Since(at))
		}
		if len(r.restored.Objects) != 4 || w.tables["staging.shop.events"] == nil {
			t.Errorf("%+v", r.restored)
		}
	})
}

func TestRestoreRefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(w *world, s *Settings, record *engine.StorageRecord)
		want   []string
	}{
		{"names are taken", func(w *world, s *Settings, _ *engine.StorageRecord) { s.HasPrefix, s.Prefix = true, "" }, []string{"4 of 4 tables exist already", "coordinator.state, scalardb.metadata", "choose another prefix"}},
		{"a name is too long", func(w *world, s *Settings, _ *engine.StorageRecord) { s.Prefix = strings.Repeat("x", 250) }, []string{"not legal in DynamoDB"}},
		{"another prefix was recorded", func(w *world, s *Settings, _ *engine.StorageRecord) {
			s.HasSourcePrefix, s.SourcePrefix = true, "prod."
		}, []string{`source_prefix is "prod."`}},
		{"the source is gone", func(w *world, s *Settings, _ *engine.StorageRecord) { delete(w.tables, "shop.events") }, []string{"source table shop.events is gone"}},
		{"the source is another", func(w *world, s *Settings, _ *engine.StorageRecord) {
			w.create("shop.events", partitionAttribute, false)
		}, []string{"another one of that name"}},
		{"retention", func(w *world, s *Settings, _ *engine.StorageRecord) { w.tables["shop.events"].pitr = time.Now() }, []string{"only to times from"}},
		{"another account", func(w *world, s *Settings, r *engine.StorageRecord) { r.Extra[extraAccount] = "999999999999" }, []string{"only within an account"}},
		{"a key of another region", func(w *world, s *Settings, _ *engine.StorageRecord) {
			s.KMSKeyARN = "arn:aws:kms:us-east-1:123456789012:key/x"
		}, []string{"a key of region us-east-1"}},
		{"no capacity is known", func(w *world, s *Settings, r *engine.StorageRecord) { s.BillingMode = "PROVISIONED" }, []string{"these tables are on-demand"}},
		{"encrypted, to another region", func(w *world, s *Settings, _ *engine.StorageRecord) { s.Region = "eu-central-1" }, []string{"set kms_key_arn to a key of eu-central-1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.scalardb("", "shop.events")
				w.tables["shop.events"].desc.BillingModeSummary = &types.BillingModeSummary{BillingMode: types.BillingModePayPerRequest}
				w.tables["shop.events"].desc.SSEDescription = &types.SSEDescription{SSEType: types.SSETypeKms, KMSMasterKeyArn: aws.String("arn:aws:kms:eu-west-1:123456789012:key/y")}
				time.Sleep(time.Hour)
				record, _ := w.backUp(w.settings())
				d := w.settings()
				d.Prefix, d.HasPrefix = "staging.", true
				at := w.pointOf(record)
				c.change(w, &d, &record)
				before := w.names()
				r := w.restore(d, record, at)
				for _, want := range c.want {
					if r.err == nil || !strings.Contains(r.err.Error(), want) {
						t.Errorf("%v, want %q", r.err, want)
					}
				}
				if r.announces != 0 || !slices.Equal(w.names(), before) {
					t.Errorf("something was made: %q", w.names())
				}
			})
		})
	}
}

// TestManyTables: hundreds of tables within the limit, with throttled calls and lost answers: each is made once, none is orphaned.
func TestManyTables(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var names []string
		for i := range 300 {
			names = append(names, fmt.Sprintf("shop.t%03d", i))
		}
		w.scalardb("", names...)
		time.Sleep(time.Hour)
		record, _ := w.backUp(w.settings())
		source := w.names()
		w.limit = 25 // others restore too
		w.broken = func(_, table string, n int) (before, lost error) {
			if _, ok := w.announced.Load(table); !ok {
				t.Errorf("table %s was made before it was announced", table)
			}
			switch n % 20 {
			case 3:
				return answer(400, &types.LimitExceededException{}), nil
			case 7:
				return answer(500, errors.New("internal")), nil
			case 11:
				return nil, errors.New("connection reset")
			case 15:
				return nil, answer(503, errors.New("unavailable"))
			}
			return nil, nil
		}
		d := w.settings()
		d.Prefix, d.HasPrefix = "staging.", true
		r := w.restore(d, record, w.pointOf(record))
		if r.err != nil {
			t.Fatal(r.err)
		}
		var made []string
		for _, o := range r.restored.Objects {
			made = append(made, o.ID)
			if id := aws.ToString(w.tables[o.ID].desc.TableId); id != o.Extra[extraMadeID] || !o.Created || o.Extra[extraNotPutBack] != "" {
				t.Errorf("%+v, id %s", o, id)
			}
		}
		if len(made) != 303 || w.most > 25 || w.most < 20 {
			t.Errorf("%d tables, %d at once", len(made), w.most)
		}
		all := append(slices.Clone(source), made...)
		slices.Sort(all)
		if !slices.Equal(w.names(), all) {
			t.Error("tables exist that the restore does not know")
		}
		if got := w.values("staging.scalardb.metadata"); len(got) != 301 || !strings.HasPrefix(got[0], "staging.") {
			t.Errorf("%d rows, %q", len(got), got[0])
		}
		w.broken = nil
		if err := NewDestination(d).Delete(t.Context(), r.restored); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(w.names(), source) {
			t.Errorf("left: %q", w.names())
		}
	})
}

// TestKilled: at whatever moment the process dies, what it announced last is enough to remove what it made, and nothing else.
func TestKilled(t *testing.T) {
	for _, after := range []time.Duration{2 * time.Second, time.Minute, fakeRestore + 5*time.Second, fakeRestore + 20*time.Second} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.scalardb("", "shop.events", "shop.orders", "shop.carts")
			w.decorate("shop.events")
			time.Sleep(time.Hour)
			record, _ := w.backUp(w.settings())
			time.Sleep(time.Hour)
			source := w.names()
			d := w.settings()
			d.Prefix, d.HasPrefix, d.MaxRestores = "staging.", true, 2
			ctx, cancel := context.WithTimeout(t.Context(), after)
			defer cancel()
			// Answers that come after the death were never heard: the ids are not recorded.
			var last engine.Restored
			q := engine.StorageBackup{Storage: "events", RunID: "fedcba9876543210", Name: "staging", Record: record, RestorePoint: w.pointOf(record), Catalog: w.catalog, Report: w.report,
				Announce: func(_ context.Context, x engine.Restored) error { last = x; return nil }}
			r, err := NewDestination(d).Restore(ctx, q)
			if err == nil {
				t.Fatal("it was done in time")
			}
			if len(w.names()) == len(source) {
				t.Fatal("nothing was made")
			}
			if after == 2*time.Second {
				for i := range last.Objects {
					delete(last.Objects[i].Extra, extraMadeID) // killed before it was recorded
				}
			}
			// Another's tables of announced names, made since: restored from another source, or tagged by another run.
			w.mu.Lock()
			if w.tables["staging.shop.orders"] == nil {
				w.create("staging.shop.orders", partitionAttribute, true)
			}
			foreign := []string{}
			foreigner := func(source, run string, made time.Time) {
				n := "staging." + source
				if w.tables[n] == nil {
					x := w.create(n, partitionAttribute, true)
					arn := w.tables[source].desc.TableArn
					if run == "of another source" {
						arn = aws.String("arn:aws:dynamodb:eu-west-1:123456789012:table/elsewhere")
					}
					x.desc.RestoreSummary = &types.RestoreSummary{SourceTableArn: arn, RestoreDateTime: aws.Time(w.pointOf(record))}
					x.desc.CreationDateTime = &made
					if run == "another" {
						x.tags[tagRunID] = run
					}
					foreign = append(foreign, n)
				}
			}
			foreigner("shop.events", "another", time.Now())
			foreigner("shop.carts", "of another source", time.Now())
			foreigner("scalardb.namespaces", "", time.Now().Add(-time.Hour)) // before the announcement
			if x := w.tables["staging.shop.orders"]; x != nil && x.desc.RestoreSummary == nil {
				foreign = append(foreign, "staging.shop.orders")
			}
			w.mu.Unlock()
			if len(r.Objects) == 0 || len(r.Objects) >= len(last.Objects) && after < fakeRestore {
				t.Errorf("%d objects of %d may exist", len(r.Objects), len(last.Objects))
			}
			if err := NewDestination(d).Delete(t.Context(), last); err != nil {
				t.Fatal(err)
			}
			want := append(slices.Clone(source), foreign...)
			slices.Sort(want)
			if !slices.Equal(w.names(), want) {
				t.Errorf("after %s: %q, want %q", after, w.names(), want)
			}
		})
	}
}

// TestTakenMeanwhile: a table that came to be after the announcement is neither replaced, nor claimed, nor deleted, even if it is of the very same restore.
func TestTakenMeanwhile(t *testing.T) {
	for _, alike := range []bool{false, true} {
		testTakenMeanwhile(t, alike)
	}
}

func testTakenMeanwhile(t *testing.T, alike bool) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.scalardb("", "shop.events")
		time.Sleep(time.Hour)
		record, _ := w.backUp(w.settings())
		w.broken = func(_, table string, _ int) (before, lost error) {
			if table == "staging.shop.events" && w.tables[table] == nil {
				x := w.create(table, partitionAttribute, true)
				if alike {
					x.desc.RestoreSummary = &types.RestoreSummary{SourceTableArn: w.tables["shop.events"].desc.TableArn, RestoreDateTime: aws.Time(w.pointOf(record))}
				}
			}
			return nil, nil
		}
		d := w.settings()
		d.Prefix, d.HasPrefix = "staging.", true
		source := w.names()
		r := w.restore(d, record, w.pointOf(record))
		if !errors.Is(r.err, errTaken) {
			t.Fatal(r.err)
		}
		for _, o := range r.restored.Objects {
			if o.ID == "staging.shop.events" {
				t.Error("another's table was claimed")
			}
		}
		if err := NewDestination(d).Delete(t.Context(), r.restored); err != nil {
			t.Fatal(err)
		}
		if want := append(slices.Clone(source), "staging.shop.events"); !slices.Equal(w.names(), want) {
			t.Errorf("%q", w.names())
		}
	})
}

// TestInspectRestored: a table that another took the place of is not ours, and is not deleted.
func TestInspectRestored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.scalardb("", "shop.events")
		time.Sleep(time.Hour)
		record, _ := w.backUp(w.settings())
		d := w.settings()
		d.Prefix, d.HasPrefix, d.BillingMode, d.PutBack = "staging.", true, "PAY_PER_REQUEST", []string{}
		r := w.restore(d, record, w.pointOf(record))
		if r.err != nil {
			t.Fatal(r.err)
		}
		made := w.tables["staging.shop.events"]
		if f := featuresOf(made.desc); f.Billing != "PAY_PER_REQUEST" || !made.pitr.IsZero() || len(made.tags) != 2 {
			t.Errorf("%+v, %v", f, made.tags)
		}
		w.create("staging.shop.events", partitionAttribute, true)
		if err := NewDestination(d).Inspect(t.Context(), r.restored); !errors.Is(err, engine.ErrNotFound) {
			t.Error(err)
		}
		if err := NewDestination(d).Delete(t.Context(), r.restored); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(w.names(), "staging.shop.events") {
			t.Error("another's table was deleted")
		}
	})
}
