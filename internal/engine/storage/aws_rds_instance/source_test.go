package awsrdsinstance

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	shared "github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/rds"
)

const (
	runID  = "00c0ffee00c0ffee"
	stored = "orders" // the storage's name in the backup
)

// flight is one run over a world, with the window that the engine would have.
type flight struct {
	w       *world
	window  engine.PauseWindow
	opened  time.Time
	session *session
	said    []string
}

func (w *world) settings(method string) SourceSettings {
	return SourceSettings{Identifier: "orders", Method: method, Storage: stored, Clock: w.clock, Open: w.open}
}

func (w *world) fly(s SourceSettings) (*flight, error) {
	f := &flight{w: w}
	x, err := NewSource(s).Preflight(w.t.Context(), engine.Run{
		ID: runID, BackupID: "before.release_42", OpenedAt: func() time.Time { return f.opened }, Window: func() engine.PauseWindow { return f.window },
		Report: func(m string, fields map[string]any) { f.said = append(f.said, m) },
	})
	if err != nil {
		return nil, err
	}
	f.session = x.(*session)
	f.session.bound = engine.ClockBound{Offset: 300 * time.Millisecond, Uncertainty: time.Second}
	return f, nil
}

// capture opens the window, captures, confirms and closes it, as the engine does.
func (f *flight) capture(ctx context.Context) error {
	f.opened = f.w.clock.Now()
	if err := f.session.Capture(ctx); err != nil {
		return err
	}
	if f.session.facts.NeedsInstant {
		_ = f.w.clock.Sleep(ctx, 7*time.Second) // the engine holds until there is a restore point
	}
	end := f.w.clock.Now()
	if err := f.session.Confirm(ctx); err != nil {
		return err
	}
	b := engine.ClockBoundMS{OffsetMS: 300, UncertaintyMS: 1001} // rounded, as the engine does
	from, until := shared.Span(f.opened, end, b, f.session.facts.Granule)
	f.window = engine.PauseWindow{StartedAt: f.opened, EndedAt: end, SafeFrom: from, SafeUntil: until, ClockBounds: map[string]engine.ClockBoundMS{stored: b}}
	if f.session.facts.NeedsInstant {
		f.window.RestorePoint, _ = engine.RestorePoint(from, until, time.Second)
	}
	return nil
}

func void(err error) bool {
	var v *engine.VoidError
	return errors.As(err, &v)
}

func TestInstant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		f, err := w.fly(w.settings(""))
		if err != nil {
			t.Fatal(err)
		}
		facts := f.session.Facts()
		if !facts.NeedsInstant || facts.Granule != time.Second || !facts.ByTime || facts.SourceID != "db-0001" || facts.ToolVersions["postgres"] != "15.8" {
			t.Errorf("facts: %+v", facts)
		}
		if err := f.capture(t.Context()); err != nil {
			t.Fatal(err)
		}
		c, err := f.session.Await(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if now := w.clock.Now(); !now.Add(-w.lag).After(f.window.RestorePoint) {
			t.Errorf("Await came back at %s, when the restore point %s could not be restored yet", now, f.window.RestorePoint)
		}
		a := c.Artifacts[0]
		if len(c.Artifacts) != 1 || a.Kind != facts.Planned[0].Kind || a.ID != facts.Planned[0].ID || a.ID != "arn:aws:rds:eu-central-1:111122223333:db:orders" {
			t.Errorf("planned %+v, made %+v", facts.Planned, c.Artifacts)
		}
		if a.Extra[shared.ExtraRestorePoint] != f.window.RestorePoint.Format(time.RFC3339) || a.Extra[shared.ExtraResourceID] != "db-0001" || c.Extra[shared.ExtraSettings] == "" {
			t.Errorf("recorded %v and %v", a.Extra, c.Extra)
		}
		k := Keeper{Clock: w.clock, Open: w.open}
		if err := k.Inspect(t.Context(), a); err != nil {
			t.Errorf("Inspect: %v", err)
		}
		before := len(w.calls)
		if err := k.Delete(t.Context(), a); err != nil || len(w.calls) != before {
			t.Errorf("deleting an instant did something: %v, %v", err, w.calls[before:])
		}
		time.Sleep(14*24*time.Hour - time.Hour) // virtual: it is the retention that has to pass
		if err := k.Inspect(t.Context(), a); err != nil {
			t.Errorf("Inspect within the retention: %v", err)
		}
		time.Sleep(2 * time.Hour)
		if err := k.Inspect(t.Context(), a); !errors.Is(err, engine.ErrNotFound) {
			t.Errorf("Inspect of a restore point that left the retention: %v", err)
		}
	})
}

func TestInspectOfWhatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		k := Keeper{Clock: w.clock, Open: w.open}
		a := engine.Artifact{Kind: pitrKind, ID: "arn:aws:rds:eu-central-1:111122223333:db:orders", Extra: map[string]string{shared.ExtraResourceID: "db-0001", shared.ExtraIdentifier: "orders", shared.ExtraAccount: "111122223333",
			shared.ExtraRestorePoint: w.clock.Now().Add(-time.Hour).UTC().Format(time.RFC3339)}}
		id := w.instances["orders"].DbiResourceId
		delete(w.instances, "orders")
		w.put("orders", "postgres") // another one of that name
		if err := k.Inspect(t.Context(), a); !errors.Is(err, engine.ErrNotFound) {
			t.Errorf("Inspect without a source: %v", err)
		}
		w.retained = []types.DBInstanceAutomatedBackup{{DbiResourceId: id, RestoreWindow: &types.RestoreWindow{EarliestTime: aws.Time(w.clock.Now().Add(-24 * time.Hour))}}}
		if err := k.Inspect(t.Context(), a); err != nil {
			t.Errorf("Inspect with retained backups: %v", err)
		}
		a.Extra[shared.ExtraAccount] = "999999999999"
		if err := k.Inspect(t.Context(), a); err == nil || errors.Is(err, engine.ErrNotFound) {
			t.Errorf("an artifact of another account was called gone, or there: %v", err)
		}
	})
}

func TestPreflightRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		method string
		change func(*world, *types.DBInstance)
		want   []string
	}{
		"no such instance": {"", func(w *world, _ *types.DBInstance) { delete(w.instances, "orders") }, []string{"no DB instance orders in account 111122223333, region eu-central-1"}},
		"Aurora": {"", func(_ *world, i *types.DBInstance) {
			i.Engine, i.DBClusterIdentifier = aws.String("aurora-postgresql"), aws.String("big")
		}, []string{`aws_rds_cluster { identifier = "big" }`}},
		"unknown engine": {"", func(_ *world, i *types.DBInstance) { i.Engine = aws.String("custom-oracle-ee") }, []string{"custom-oracle-ee"}},
		"everything at once": {"", func(_ *world, i *types.DBInstance) {
			i.ReadReplicaSourceDBInstanceIdentifier, i.BackupRetentionPeriod, i.DBInstanceStatus = aws.String("main"), aws.Int32(0), aws.String("stopped")
		}, []string{"read replica", "backup_retention_period", `method = "snapshot"`, "stopped: start it"}},
		"upgrading": {"", func(_ *world, i *types.DBInstance) { i.DBInstanceStatus = aws.String("upgrading") }, []string{"wait until it is available"}},
		"key is gone": {"", func(_ *world, i *types.DBInstance) {
			i.DBInstanceStatus = aws.String("inaccessible-encryption-credentials")
		}, []string{"KMS key"}},
		"backing up": {"snapshot", func(_ *world, i *types.DBInstance) { i.DBInstanceStatus = aws.String("backing-up") }, []string{"available or storage-optimization"}},
		"no room for snapshots": {"snapshot", func(w *world, _ *types.DBInstance) {
			w.quotas = []types.AccountQuota{{AccountQuotaName: aws.String("ManualSnapshots"), Used: aws.Int64(100), Max: aws.Int64(100)}}
		}, []string{"100 of 100 manual snapshots"}},
		"access denied": {"", func(w *world, _ *types.DBInstance) {
			w.fail = func(string) error { return fault("AccessDenied", "no") }
		}, []string{"allow rds:DescribeDBInstances"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				c.change(w, w.instances["orders"])
				_, err := w.fly(w.settings(c.method))
				if err == nil {
					t.Fatal("preflight found nothing")
				}
				for _, want := range c.want {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("%q is not in: %v", want, err)
					}
				}
			})
		})
	}
}

func TestSQLServerIsWarnedOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.instances["orders"].Engine = aws.String("sqlserver-se")
		f, err := w.fly(w.settings(""))
		if err != nil || !strings.Contains(strings.Join(f.session.Facts().Warnings, "\n"), "SQL Server") {
			t.Errorf("warnings %v, %v", f.session.Facts().Warnings, err)
		}
	})
}

func TestAnotherInstanceVoids(t *testing.T) {
	changes := map[string]func(*world){
		"deleted":             func(w *world) { delete(w.instances, "orders") },
		"replaced":            func(w *world) { w.put("orders", "postgres") },
		"backups are off":     func(w *world) { w.instances["orders"].BackupRetentionPeriod = aws.Int32(0) },
		"its storage is full": func(w *world) { w.instances["orders"].DBInstanceStatus = aws.String("storage-full") },
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				f, err := w.fly(w.settings(""))
				if err != nil {
					t.Fatal(err)
				}
				if err := f.capture(t.Context()); err != nil {
					t.Fatal(err)
				}
				change(w)
				if err := f.session.Confirm(t.Context()); !void(err) {
					t.Errorf("Confirm: %v", err)
				}
				if _, err := f.session.Await(t.Context()); !void(err) {
					t.Errorf("Await: %v", err)
				}
			})
		})
	}
}

func TestSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		s := w.settings("snapshot")
		s.ShareWith = []string{"444455556666"}
		f, err := w.fly(s)
		if err != nil {
			t.Fatal(err)
		}
		facts := f.session.Facts()
		if facts.ByTime || facts.NeedsInstant {
			t.Errorf("facts: %+v", facts)
		}
		began := w.clock.Now()
		if err := f.capture(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d := f.session.sent.Sub(began); d < 2*time.Second {
			t.Errorf("the snapshot was requested %s after the window opened, when AWS's clock may not have been in it", d)
		}
		if d := f.window.EndedAt.Sub(f.session.answered); d < 2*time.Second {
			t.Errorf("the window closed %s after the answer", d)
		}
		c, err := f.session.Await(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		a := c.Artifacts[0]
		if a.Kind != facts.Planned[0].Kind || a.ID != facts.Planned[0].ID || a.Size != 200<<30 || a.Extra[shared.ExtraDatabaseTime] == "" {
			t.Errorf("planned %+v, made %+v", facts.Planned, a)
		}
		made := w.snapshots[snapshotName(a)]
		if made == nil || shared.CheckIdentifier(snapshotName(a)) != "" || !strings.Contains(snapshotName(a), "before-release-42") {
			t.Fatalf("the snapshot's name is %s", snapshotName(a))
		}
		if tags := shared.TagsOf(made.TagList); tags[shared.TagRunID] != runID || tags[shared.TagBackup] != "before.release_42" || tags[shared.TagStorage] != stored {
			t.Errorf("tags %v", tags)
		}
		if w.count("ModifyDBSnapshotAttribute restore [444455556666]") != 1 {
			t.Errorf("it was not shared: %v", w.calls)
		}
		k := Keeper{Clock: w.clock, Open: w.open}
		if err := k.Inspect(t.Context(), a); err != nil {
			t.Errorf("Inspect: %v", err)
		}
		for range 2 {
			if err := k.Delete(t.Context(), a); err != nil {
				t.Errorf("Delete: %v", err)
			}
		}
		if err := k.Inspect(t.Context(), a); !errors.Is(err, engine.ErrNotFound) || len(w.snapshots) != 0 {
			t.Errorf("Inspect after Delete: %v", err)
		}
	})
}

// TestSnapshotOutsideTheWindow: what does not prove that it shows the window is void.
func TestSnapshotOutsideTheWindow(t *testing.T) {
	for name, change := range map[string]func(*flight){
		"a transaction after the window": func(f *flight) {
			f.w.snapshots[f.session.snapshot].SnapshotDatabaseTime = aws.Time(f.window.SafeUntil.Add(time.Second))
		},
		"no database time":    func(f *flight) { f.w.snapshots[f.session.snapshot].SnapshotDatabaseTime = nil },
		"of another instance": func(f *flight) { f.w.snapshots[f.session.snapshot].DbiResourceId = aws.String("db-9999") },
		"deleted":             func(f *flight) { delete(f.w.snapshots, f.session.snapshot) },
		"requested too early": func(f *flight) { f.session.sent = f.opened },
		"answered too late":   func(f *flight) { f.session.answered = f.window.EndedAt },
		"the clock is less certain": func(f *flight) {
			f.window.ClockBounds[stored] = engine.ClockBoundMS{OffsetMS: 300, UncertaintyMS: 3000}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				f, err := w.fly(w.settings("snapshot"))
				if err == nil {
					err = f.capture(t.Context())
				}
				if err != nil {
					t.Fatal(err)
				}
				change(f)
				if _, err := f.session.Await(t.Context()); !void(err) {
					t.Errorf("Await: %v", err)
				}
				if err := f.session.Discard(t.Context()); err != nil || len(w.snapshots) != 0 {
					t.Errorf("Discard: %v, left %v", err, w.snapshots)
				}
			})
		})
	}
}

func TestSnapshotWhoseAnswerIsLost(t *testing.T) {
	lost := errors.New("connection reset")
	t.Run("it came through", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			f, err := w.fly(w.settings("snapshot"))
			if err != nil {
				t.Fatal(err)
			}
			w.lose = func(string) error { return lost }
			if err := f.capture(t.Context()); err != nil {
				t.Errorf("the request was done, and not found out: %v", err)
			}
			if n := w.count("CreateDBSnapshot"); n != 1 {
				t.Errorf("requested %d times", n)
			}
		})
	})
	t.Run("it lands late", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			f, err := w.fly(w.settings("snapshot"))
			if err != nil {
				t.Fatal(err)
			}
			w.fail = func(call string) error {
				if call != "CreateDBSnapshot" {
					return nil
				}
				w.fail = nil
				go func() {
					time.Sleep(9 * time.Second) // virtual
					_, _ = w.CreateDBSnapshot(context.Background(), late(f.session))
				}()
				return lost
			}
			if err := f.capture(t.Context()); !errors.Is(err, lost) {
				t.Fatalf("capture: %v", err)
			}
			if err := f.session.Discard(t.Context()); err != nil || len(w.snapshots) != 0 {
				t.Errorf("Discard: %v, left %d", err, len(w.snapshots))
			}
		})
	})
	t.Run("it is refused", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			f, err := w.fly(w.settings("snapshot"))
			if err != nil {
				t.Fatal(err)
			}
			w.fail = func(call string) error {
				if call == "CreateDBSnapshot" {
					return fault("SnapshotQuotaExceeded", "too many")
				}
				return nil
			}
			if err := f.capture(t.Context()); err == nil || !strings.Contains(err.Error(), "quota raised") {
				t.Errorf("capture: %v", err)
			}
			began := w.clock.Now()
			if err := f.session.Discard(t.Context()); err != nil || w.clock.Now() != began {
				t.Errorf("Discard of nothing: %v, after %s", err, w.clock.Now().Sub(began))
			}
		})
	})
}

// TestDiscardLeavesOthers: a snapshot of that name with another run's tag is not ours.
func TestDiscardLeavesOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		f, err := w.fly(w.settings("snapshot"))
		if err == nil {
			err = f.capture(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		w.snapshots[f.session.snapshot].TagList = shared.Tags(map[string]string{shared.TagRunID: "another"})
		if err := f.session.Discard(t.Context()); err == nil || len(w.snapshots) != 1 {
			t.Errorf("Discard: %v, left %d", err, len(w.snapshots))
		}
		// Somebody removed the tags: its source's resource id, and the run id in its name, are enough.
		w.snapshots[f.session.snapshot].TagList = nil
		if err := f.session.Discard(t.Context()); err != nil || len(w.snapshots) != 0 {
			t.Errorf("Discard: %v, left %d", err, len(w.snapshots))
		}
	})
}

// TestDeadRunIsCleanedUp: the journal names the snapshot before it is made, and that is enough to delete it.
func TestDeadRunIsCleanedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		f, err := w.fly(w.settings("snapshot"))
		if err == nil {
			err = f.capture(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range f.session.Facts().Planned {
			if err := (Keeper{Clock: w.clock, Open: w.open}).Delete(t.Context(), a); err != nil {
				t.Errorf("Delete: %v", err)
			}
		}
		if len(w.snapshots) != 0 {
			t.Errorf("left %v", w.snapshots)
		}
	})
}
