package awsdynamodb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	scaling "github.com/aws/aws-sdk-go-v2/service/applicationautoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

const testRun = "0123456789abcdef"

// backup is one run of a source, phase by phase.
type backup struct {
	*world
	run     engine.Run
	session engine.Session
	window  engine.PauseWindow
}

func (w *world) preflight(s Settings) (*backup, error) {
	b := &backup{world: w}
	b.run = engine.Run{ID: testRun, BackupID: "release", Catalog: w.catalog, Prefix: "backups/release/" + testRun + "/", Report: w.report, Window: func() engine.PauseWindow { return b.window }}
	var err error
	b.session, err = NewSource(s).Preflight(w.t.Context(), b.run)
	return b, err
}

// pause is a window around now, of which the restore point is a whole second.
func (b *backup) pause(during func()) error {
	b.window.StartedAt = time.Now()
	if err := b.session.Capture(b.t.Context()); err != nil {
		return err
	}
	time.Sleep(3 * time.Second)
	b.window.RestorePoint = time.Now().UTC().Truncate(time.Second)
	time.Sleep(3 * time.Second)
	if during != nil {
		during()
	}
	b.window.EndedAt = time.Now()
	return b.session.Confirm(b.t.Context())
}

// backUp runs a whole backup.
func (w *world) backUp(s Settings) (engine.StorageRecord, *backup) {
	w.t.Helper()
	b, err := w.preflight(s)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := b.pause(nil); err != nil {
		w.t.Fatal(err)
	}
	c, err := b.session.Await(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	f := b.session.Facts()
	return engine.StorageRecord{Driver: kindName, SourceID: f.SourceID, ByTime: f.ByTime, Artifacts: c.Artifacts, Tables: c.Tables, HasCoordinator: c.HasCoordinator,
		CoordinatorNewest: c.CoordinatorNewest, Extra: c.Extra}, b
}

func TestBackupByTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.scalardb("p.", "shop.events", "shop.orders", "other.things")
		w.create("unrelated", "id", true)
		time.Sleep(time.Hour)
		s := w.settings()
		s.Prefix, s.Namespaces = "p.", []string{"shop"}
		before := w.names()
		record, b := w.backUp(s)
		if waited := time.Since(b.window.RestorePoint); waited < fakeLag {
			t.Errorf("the backup is done %s after its restore point, when no table can be restored to it yet", waited)
		}
		var kinds, tables []string
		for _, a := range record.Artifacts {
			kinds = append(kinds, a.Kind)
			tables = append(tables, a.Extra[extraTable])
			if a.Kind == kindPITR && (a.Extra[extraTableID] == "" || a.Extra[extraRestorePoint] != b.window.RestorePoint.Format(time.RFC3339)) {
				t.Errorf("artifact %+v", a)
			}
			if err := NewKeeper(s, w.catalog).Inspect(t.Context(), a); err != nil {
				t.Error(err)
			}
		}
		if want := []string{"coordinator.state", "scalardb.metadata", "scalardb.namespaces", "shop.events", "shop.orders", ""}; !slices.Equal(tables, want) {
			t.Errorf("tables %q, kinds %q", tables, kinds)
		}
		if len(record.Tables) != 2 || !record.Tables[0].Transactional || record.Tables[0].Rows != -1 || !record.HasCoordinator || record.CoordinatorNewest != -1 || record.Extra[extraPrefix] != "p." ||
			record.Extra[extraAccount] != fakeAccount || record.Extra[extraRegion] != fakeRegion || record.Extra[extraRecoveryDays] != "35" || !record.ByTime {
			t.Errorf("record %+v", record)
		}
		f := b.session.Facts()
		if f.Witness != "none" || !f.NeedsInstant || f.Granule != time.Second || len(f.Warnings) != 0 || f.SourceID == "" {
			t.Errorf("facts %+v", f)
		}
		if !slices.Equal(w.names(), before) {
			t.Errorf("the backup changed the tables: %q", w.names())
		}
		// A deletion of the backup touches no table.
		for _, a := range record.Artifacts {
			if err := NewKeeper(s, w.catalog).Delete(t.Context(), a); err != nil {
				t.Error(err)
			}
		}
		if left, _ := w.catalog.List(t.Context(), ""); len(left) != 0 || !slices.Equal(w.names(), before) {
			t.Errorf("left %v, tables %q", left, w.names())
		}
	})
}

func TestInspect(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(w *world)
		want   string
	}{
		{"retention passed", func(w *world) { w.tables["shop.events"].pitr = time.Now() }, "any more"},
		{"disabled", func(w *world) { w.tables["shop.events"].pitr = time.Time{} }, "disabled"},
		{"another table", func(w *world) { w.create("shop.events", partitionAttribute, false) }, "another one"},
		{"gone", func(w *world) { delete(w.tables, "shop.events") }, "not found"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.scalardb("", "shop.events")
				time.Sleep(time.Hour)
				s := w.settings()
				record, _ := w.backUp(s)
				c.change(w)
				var failed []string
				for _, a := range record.Artifacts {
					if err := NewKeeper(s, w.catalog).Inspect(t.Context(), a); err != nil {
						failed = append(failed, a.Extra[extraTable])
						if !errors.Is(err, engine.ErrNotFound) || !strings.Contains(err.Error(), c.want) {
							t.Error(err)
						}
					}
				}
				if !slices.Equal(failed, []string{"shop.events"}) {
					t.Errorf("failed: %q", failed)
				}
			})
		})
	}
}

func TestPreflightRefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(w *world, s *Settings)
		want   []string
	}{
		{"point-in-time recovery is off", func(w *world, _ *Settings) {
			w.tables["shop.events"].pitr, w.tables["scalardb.metadata"].pitr = time.Time{}, time.Time{}
		}, []string{"2 of 5 tables: scalardb.metadata, shop.events", "for t in scalardb.metadata shop.events; do aws dynamodb update-continuous-backups --region eu-west-1"}},
		{"not active", func(w *world, _ *Settings) {
			w.tables["shop.orders"].state = types.TableStatusInaccessibleEncryptionCredentials
		}, []string{"not ACTIVE: shop.orders (INACCESSIBLE_ENCRYPTION_CREDENTIALS)"}},
		{"no such table", func(_ *world, s *Settings) { s.Tables = []string{"shop.events", "shop.gone", "shop.lost"} }, []string{"there are no tables shop.gone, shop.lost in account 123456789012, region eu-west-1"}},
		{"no such namespace", func(_ *world, s *Settings) { s.Namespaces = []string{"shopp"} }, []string{"no table of the namespaces shopp"}},
		{"wrong prefix", func(_ *world, s *Settings) { s.Prefix = "prod." }, []string{`no table of ScalarDB's below the prefix "prod."`}},
		{"credentials", func(_ *world, s *Settings) {
			s.Open = func(context.Context) (Account, error) { return Account{}, errors.New("no credentials") }
		}, []string{"no credentials"}},
		{"broken metadata", func(w *world, _ *Settings) { w.put("scalardb.metadata", item{attrTable: str("shop.bad")}) }, []string{`table "shop.bad": it has no columns`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.scalardb("", "shop.events", "shop.orders")
				s := w.settings()
				c.change(w, &s)
				_, err := w.preflight(s)
				for _, want := range c.want {
					if err == nil || !strings.Contains(err.Error(), want) {
						t.Errorf("%v, want %q", err, want)
					}
				}
			})
		})
	}
}

func TestWarnings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.scalardb("", "shop.events")
		w.create("shop.raw", partitionAttribute, true)
		w.put("scalardb.metadata", metadataRow("shop.dropped"))
		delete(w.tables, "coordinator.state")
		for i := range 1100 {
			w.put("scalardb.metadata", metadataRow(fmt.Sprintf("bulk.t%d", i)))
			w.create(fmt.Sprintf("bulk.t%d", i), partitionAttribute, true)
		}
		s := w.settings()
		s.Tables = []string{"shop.events", "shop.raw", "coordinator.state"}
		if _, err := w.preflight(s); err == nil || !strings.Contains(err.Error(), "coordinator.state") {
			t.Errorf("a table that was asked for is missing: %v", err)
		}
		s.Tables = []string{"shop.events", "shop.raw"}
		b, err := w.preflight(s)
		if err != nil {
			t.Fatal(err)
		}
		all := strings.Join(b.session.Facts().Warnings, "\n")
		for _, want := range []string{"no coordinator table coordinator.state", "does not name table shop.raw", "too few to be read again within the pause"} {
			if !strings.Contains(all, want) {
				t.Errorf("no warning %q in:\n%s", want, all)
			}
		}
		s.Tables = nil
		if b, err = w.preflight(s); err != nil {
			t.Fatal(err)
		}
		if all := strings.Join(b.session.Facts().Warnings, "\n"); !strings.Contains(all, "names table shop.dropped, which is not there") {
			t.Error(all)
		}
	})
}

// TestVoid: what happens in the window, or to the tables until they can be restored, voids the backup.
func TestVoid(t *testing.T) {
	for _, c := range []struct {
		name          string
		during, after func(w *world)
		want          string
	}{
		{"dropped", func(w *world) { delete(w.tables, "shop.events") }, nil, "dropped in the window: shop.events"},
		{"created", func(w *world) { w.create("shop.more", partitionAttribute, true) }, nil, "created in the window: shop.more"},
		{"of others", func(w *world) {
			w.create("more", "id", true)
			w.create("elsewhere.more", "id", true)
			w.create("shop.shop.events", "id", true) // below the prefix "shop."
			delete(w.tables, "unrelated")
			delete(w.tables, "prod.shop.events")
		}, nil, ""},
		{"columns changed", func(w *world) {
			row := metadataRow("shop.events")
			row[attrColumns].(*types.AttributeValueMemberM).Value["x"] = str("int")
			w.put("scalardb.metadata", row)
		}, nil, "changed the schema"},
		{"dropped and made anew", func(w *world) { w.create("shop.events", partitionAttribute, false) }, nil, "created anew"},
		{"recovery disabled and enabled", nil, func(w *world) { w.tables["shop.events"].pitr = time.Now() }, "only to times from"},
		{"recovery disabled", nil, func(w *world) { w.tables["shop.events"].pitr = time.Time{} }, "was disabled"},
		{"dropped after", nil, func(w *world) { delete(w.tables, "shop.events") }, "was dropped"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.scalardb("", "shop.events")
				w.create("unrelated", "id", true)
				w.create("prod.shop.events", partitionAttribute, true)
				time.Sleep(time.Hour)
				b, err := w.preflight(w.settings())
				if err != nil {
					t.Fatal(err)
				}
				err = b.pause(func() {
					if c.during != nil {
						c.during(w)
					}
				})
				if err == nil {
					if c.after != nil {
						time.AfterFunc(time.Minute, func() {
							w.fake.mu.Lock()
							defer w.fake.mu.Unlock()
							c.after(w)
						})
					}
					_, err = b.session.Await(t.Context())
				}
				void := new(engine.VoidError)
				if c.want == "" && err != nil || c.want != "" && (!errors.As(err, &void) || !strings.Contains(err.Error(), c.want)) {
					t.Errorf("%v, want %q", err, c.want)
				}
			})
		})
	}
}

// TestOnDemand: the backups hold the restore point, not what was written after it; the temporary tables are gone; a restore reads them.
func TestOnDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.scalardb("", "shop.events")
		w.put("shop.events", item{partitionAttribute: str("before")})
		time.Sleep(time.Hour)
		s := w.settings()
		s.Method, s.MaxRestores = MethodOnDemand, 2
		w.broken = func(op, table string, n int) (before, lost error) {
			switch {
			case n == 1:
				return nil, errors.New("connection reset") // came through
			case n == 2:
				return errors.New("connection reset"), nil // did not
			case n == 3:
				return answer(400, &types.LimitExceededException{}), nil
			}
			return nil, nil
		}
		before := w.names()
		b, err := w.preflight(s)
		if err != nil {
			t.Fatal(err)
		}
		if f := b.session.Facts(); f.ByTime || len(f.Planned) != 5 {
			t.Errorf("facts %+v", f)
		}
		if err := b.pause(nil); err != nil {
			t.Fatal(err)
		}
		w.put("shop.events", item{partitionAttribute: str("after")})
		c, err := b.session.Await(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(w.names(), before) || len(w.backups) != 4 || w.most > 2 {
			t.Errorf("tables %q, %d backups, %d restores at once", w.names(), len(w.backups), w.most)
		}
		for _, a := range c.Artifacts {
			if err := NewKeeper(s, w.catalog).Inspect(t.Context(), a); err != nil {
				t.Error(err)
			}
			if a.Extra[extraTable] == "shop.events" {
				if items := w.backups[a.ID].items; len(items) != 1 || items["before"] == nil {
					t.Errorf("the backup holds %v", items)
				}
			}
		}
		w.broken = nil
		d := s
		d.Prefix, d.HasPrefix = "copy.", true
		record := engine.StorageRecord{Driver: kindName, Artifacts: c.Artifacts, Tables: c.Tables, Extra: c.Extra}
		r := w.restore(d, record, time.Time{})
		if r.err != nil {
			t.Fatal(r.err)
		}
		if got := w.values("copy.shop.events"); !slices.Equal(got, []string{"before"}) {
			t.Errorf("restored %q", got)
		}
		if err := NewDestination(d).Delete(t.Context(), r.restored); err != nil {
			t.Fatal(err)
		}
		for _, a := range c.Artifacts {
			if err := NewKeeper(s, w.catalog).Delete(t.Context(), a); err != nil {
				t.Error(err)
			}
			if err := NewKeeper(s, w.catalog).Inspect(t.Context(), a); !errors.Is(err, engine.ErrNotFound) {
				t.Error(err)
			}
		}
		if left, _ := w.catalog.List(t.Context(), ""); !slices.Equal(w.names(), before) || len(w.backups) != 0 || len(left) != 0 {
			t.Errorf("tables %q, %d backups, objects %v", w.names(), len(w.backups), left)
		}
	})
}

// TestOnDemandDies: whatever the run was at when it ended, its plan alone is enough to remove what it made.
func TestOnDemandDies(t *testing.T) {
	for _, after := range []time.Duration{5*time.Minute + 20*time.Second, 7 * time.Minute, 8*time.Minute + 10*time.Second, 8*time.Minute + 30*time.Second} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.scalardb("", "shop.events", "shop.orders")
			time.Sleep(time.Hour)
			s := w.settings()
			s.Method = MethodOnDemand
			before := w.names()
			b, err := w.preflight(s)
			if err != nil {
				t.Fatal(err)
			}
			data, err := json.Marshal(b.session.Facts().Planned) // as the journal keeps it
			if err != nil {
				t.Fatal(err)
			}
			var planned []engine.Artifact
			if err := json.Unmarshal(data, &planned); err != nil {
				t.Fatal(err)
			}
			if err := b.pause(nil); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), after)
			defer cancel()
			if _, err := b.session.Await(ctx); err == nil {
				t.Fatalf("it was done within %s", after)
			}
			made := len(w.names()) - len(before) + len(w.backups)
			for _, a := range planned {
				if err := NewKeeper(s, w.catalog).Delete(t.Context(), a); err != nil {
					t.Error(err)
				}
			}
			if made == 0 || !slices.Equal(w.names(), before) || len(w.backups) != 0 {
				t.Errorf("after %s: %d made, tables %q, %d backups", after, made, w.names(), len(w.backups))
			}
		})
	}
}

func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c, err := NewSource(w.settings()).OpenClock(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		b, err := c.MeasureClock(t.Context())
		if err != nil || b.Uncertainty < time.Second || b.Offset.Abs() > time.Second {
			t.Errorf("%+v, %v", b, err)
		}
	})
}

// TestSettings: what DynamoDB leaves behind is recorded, auto scaling too.
func TestSettings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.scalardb("", "shop.events")
		w.decorate("shop.events")
		time.Sleep(time.Hour)
		record, _ := w.backUp(w.settings())
		stored, err := readSettings(t.Context(), w.catalog, record.Artifacts[len(record.Artifacts)-1])
		if err != nil {
			t.Fatal(err)
		}
		f := stored["shop.events"]
		if f.TTL != "expires" || f.Stream != "NEW_IMAGE" || !f.Protection || f.Tags["team"] != "shop" || len(f.Tags) != 1 || !f.PITR || f.PITRDays != 20 || len(f.Indexes) != 2 || f.Read != 10 ||
			len(f.Scaling) != 2 || len(f.Scaling[0].Policies)+len(f.Scaling[1].Policies) != 1 || f.Class != "STANDARD_INFREQUENT_ACCESS" {
			t.Errorf("%+v", f)
		}
		bad := record.Artifacts[len(record.Artifacts)-1]
		bad.SHA256 = strings.Repeat("0", 64)
		if _, err := readSettings(t.Context(), w.catalog, bad); err == nil {
			t.Error("a settings object with another checksum was read")
		}
	})
}

// decorate gives a table everything that a restore loses.
func (w *world) decorate(name string) {
	t := w.tables[name]
	t.ttl, t.days, t.tags = "expires", 20, map[string]string{"team": "shop", "aws:cloudformation:stack-name": "x", tagRunID: "another"}
	t.desc.StreamSpecification = &types.StreamSpecification{StreamEnabled: aws.Bool(true), StreamViewType: types.StreamViewTypeNewImage}
	t.desc.DeletionProtectionEnabled = aws.Bool(true)
	t.desc.TableClassSummary = &types.TableClassSummary{TableClass: types.TableClassStandardInfrequentAccess}
	t.desc.AttributeDefinitions = append(t.desc.AttributeDefinitions, types.AttributeDefinition{AttributeName: aws.String("balance"), AttributeType: types.ScalarAttributeTypeN})
	for _, n := range []string{name + indexInfix + "balance", "by-hand"} {
		t.desc.GlobalSecondaryIndexes = append(t.desc.GlobalSecondaryIndexes, types.GlobalSecondaryIndexDescription{
			IndexName: aws.String(n), IndexStatus: types.IndexStatusActive, KeySchema: []types.KeySchemaElement{{AttributeName: aws.String("balance"), KeyType: types.KeyTypeHash}},
			Projection:            &types.Projection{ProjectionType: types.ProjectionTypeAll},
			ProvisionedThroughput: &types.ProvisionedThroughputDescription{ReadCapacityUnits: aws.Int64(5), WriteCapacityUnits: aws.Int64(6)},
		})
	}
	for _, id := range []string{resource(name, ""), resource(name, name+indexInfix+"balance")} {
		w.targets[id+" x"] = scaling.ScalableTarget{ServiceNamespace: scaling.ServiceNamespaceDynamodb, ResourceId: aws.String(id), ScalableDimension: scaling.ScalableDimensionDynamoDBTableReadCapacityUnits,
			MinCapacity: aws.Int32(1), MaxCapacity: aws.Int32(10)}
	}
	id := resource(name, "")
	w.policies[id] = scaling.ScalingPolicy{ResourceId: &id, PolicyName: aws.String(id + "-read"), ScalableDimension: scaling.ScalableDimensionDynamoDBTableReadCapacityUnits,
		TargetTrackingScalingPolicyConfiguration: &scaling.TargetTrackingScalingPolicyConfiguration{TargetValue: aws.Float64(70)}}
}
