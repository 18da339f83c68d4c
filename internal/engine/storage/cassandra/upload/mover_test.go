package upload

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/memcatalog"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/testclock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/move"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/snapshot"
)

func jobOf(c engine.Catalog, backup string, boxes ...*box) move.Job {
	j := move.Job{
		Run:     engine.Run{ID: "0123456789abcdef", BackupID: backup, Catalog: c, Prefix: "backups/" + backup + "/0123456789abcdef/", Report: func(string, map[string]any) {}},
		Storage: "orders", Prefix: prefixOf(backup), Cluster: "test", Tag: "tag", Keyspaces: []string{"shop"},
	}
	for _, b := range boxes {
		j.Nodes = append(j.Nodes, move.Node{Node: node.Node{HostID: b.host, Address: b.host}, Files: b.disk, Bytes: 100})
	}
	return j
}

func lists(boxes ...*box) map[string]*snapshot.FileList {
	m := map[string]*snapshot.FileList{}
	for _, b := range boxes {
		m[b.host] = b.list
	}
	return m
}

// TestMover goes the way of the driver: a backup that stays, and others that are discarded at each step.
func TestMover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, c := t.Context(), memcatalog.New(time.Now)
		m := Mover{Settings{Clock: testclock.New()}}
		a, b := newBox(t, 1, someFiles(1)), newBox(t, 2, someFiles(50))
		s, err := m.Preflight(ctx, jobOf(c, "first", a, b))
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Names(); len(got) > 0 {
			t.Errorf("preflight wrote %q", got)
		}
		ix := indexOf([]*box{a, b})
		artifacts, err := s.Move(ctx, ix, lists(a, b))
		if err != nil || len(artifacts) != 1 || artifacts[0].ID != s.Planned()[0].ID || artifacts[0].Kind != snapshot.KindUpload || artifacts[0].Size != 2*(700<<10+5000+100)+11 {
			t.Fatalf("%+v, %v", artifacts, err)
		}
		if pins := names(t, c, pinPrefix); len(pins) != 1 {
			t.Errorf("pins after Move: %q", pins)
		}
		if _, err := record(ctx, c, "first", []*box{a, b}); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.Close(), s.Close()); err != nil {
			t.Error(err)
		}
		place := move.Place{Catalog: c, Report: func(string, map[string]any) {}}
		if err := m.Inspect(ctx, place, artifacts[0]); err != nil {
			t.Error(err)
		}
		before := c.Names()
		if len(names(t, c, pinPrefix)) > 0 {
			t.Errorf("pins after Close: %q", before)
		}

		b.fill(t, someFiles(90))
		for step := range 4 { // discarded after preflight, a failed Move, Move, and the index
			s, err := m.Preflight(ctx, jobOf(c, "second", a, b))
			if err != nil {
				t.Fatal(err)
			}
			if step == 1 {
				b.set("nb-1-big-Index.db", "garble", 0, 1000)
			}
			if step >= 1 {
				if _, err := s.Move(ctx, ix, lists(a, b)); (err == nil) == (step == 1) {
					t.Errorf("step %d: %v", step, err)
				}
			}
			b.faults = nil
			if step >= 3 {
				if _, err := record(ctx, c, "second", []*box{a, b}); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(s.Discard(ctx), s.Discard(ctx), s.Close()); err != nil {
				t.Error(err)
			}
			if got := c.Names(); !slices.Equal(got, before) {
				t.Errorf("step %d: the catalog holds %q, before it held %q", step, got, before)
			}
		}
		if err := m.Delete(ctx, place, artifacts[0]); err != nil {
			t.Error(err)
		}
		if got := c.Names(); len(got) > 0 {
			t.Errorf("left: %q", got)
		}
		if err := errors.Join(m.Inspect(ctx, place, artifacts[0])); !errors.Is(err, engine.ErrNotFound) {
			t.Errorf("got %v", err)
		}
		for _, err := range []error{m.Inspect(ctx, place, engine.Artifact{Kind: "x"}), m.Delete(ctx, place, engine.Artifact{Kind: "x", ID: artifacts[0].ID})} {
			if err == nil {
				t.Error("took an artifact of another kind")
			}
		}
	})
}

type small struct {
	*memcatalog.Catalog
	free int64
}

func (s small) Free(context.Context) (int64, error) { return s.free, nil }

// TestMoverPreflight refuses what cannot work, before the pause.
func TestMoverPreflight(t *testing.T) {
	c := memcatalog.New(time.Now)
	m := Mover{Settings{Clock: testclock.New()}}
	a := newBox(t, 1, nil)
	a.noSums = true
	for free, want := range map[int64]string{1: "make room", 60: "only if most of it was uploaded", 1000: ""} {
		_ = c.Delete(t.Context(), sum{}.blob())
		if free == 60 {
			if err := c.Create(t.Context(), sum{}.blob(), make([]byte, 50)); err != nil {
				t.Fatal(err)
			}
		}
		s, err := m.Preflight(t.Context(), jobOf(small{c, free}, "b", a))
		var text string
		if err != nil {
			text = err.Error()
		} else {
			text = strings.Join(s.Facts().Warnings, "\n")
			if !strings.Contains(text, "cannot run sha256sum") {
				t.Errorf("warnings: %q", text)
			}
		}
		if (err != nil) != (free == 1) || !strings.Contains(text, want) {
			t.Errorf("with %d bytes free: %v, %q", free, err, text)
		}
	}
	j := jobOf(c, "b", a)
	j.Nodes[0].Files = nil
	if _, err := m.Preflight(t.Context(), j); err == nil || !strings.Contains(err.Error(), a.host) {
		t.Errorf("without files: %v", err)
	}
}
