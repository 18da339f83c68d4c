package upload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/memcatalog"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/testclock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/snapshot"
)

// inMemory is node.Files of a node that has no sha256sum, by the files' base names.
type inMemory struct {
	node.Files
	files map[string][]byte
}

func (m *inMemory) Run(context.Context, string, io.Reader) ([]byte, error) {
	return nil, node.ErrUnsupported
}

func (m *inMemory) Open(_ context.Context, path string, offset int64) (io.ReadCloser, error) {
	data, ok := m.files[path[strings.LastIndexByte(path, '/')+1:]]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(data[offset:])), nil
}

// list gives a box its list, without files on a disk.
func list(b *box, files map[string][]byte) {
	f := snapshot.Files{Keyspace: "shop", Table: "orders", ID: tableID, Directory: b.root}
	for name, data := range files {
		f.Files = append(f.Files, snapshot.File{Path: name, Size: int64(len(data))})
	}
	b.list = &snapshot.FileList{Version: snapshot.Version, HostID: b.host, Tables: []snapshot.Files{f}}
	b.list.Sort()
}

func create(ctx context.Context, c engine.Catalog, name string, data []byte) error {
	return c.Create(ctx, name, data)
}

type life struct{ alive, known bool }

func liveness(m map[string]life) func(string) (bool, bool) {
	return func(h string) (bool, bool) { return m[h].alive, m[h].known }
}

// TestPinWaitsForCollector: for one that lives, for as long as it may take; not for a dead one, nor for one of another machine that is too old.
func TestPinWaitsForCollector(t *testing.T) {
	for name, c := range map[string]struct {
		holder string
		age    time.Duration // of the marker
		gone   time.Duration // after which it is removed; 0: never
		waits  time.Duration // at least
		want   string
	}{
		"alive, and done soon":  {holder: "alive", gone: 5 * time.Minute, waits: 5 * time.Minute},
		"alive, and never done": {holder: "alive", age: 48 * time.Hour, waits: collectorWait, want: "delete " + collectingPrefix + "x.json"},
		"dead":                  {holder: "dead"},
		"unknown and new":       {holder: "elsewhere", gone: time.Hour, waits: time.Hour},
		"unknown and old":       {holder: "elsewhere", age: markerStale + time.Second},
		"unknown, getting old":  {holder: "elsewhere", age: markerStale - time.Hour, waits: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := memcatalog.New(func() time.Time { return time.Now().Add(-7 * time.Hour) }) // its clock is another
				marker := collectingPrefix + "x.json"
				if err := m.Create(t.Context(), marker, note{Version: 1, Holder: c.holder}.encode()); err != nil {
					t.Fatal(err)
				}
				time.Sleep(c.age)
				if c.gone > 0 {
					time.AfterFunc(c.gone, func() { _ = m.Delete(context.Background(), marker) })
				}
				s := Open(m, Settings{Clock: testclock.New(), Alive: liveness(map[string]life{"alive": {true, true}, "dead": {false, true}})}, nil)
				began := time.Now()
				p, err := s.Pin(t.Context(), "0123456789abcdef")
				took := time.Since(began)
				if took < c.waits || took > c.waits+time.Minute {
					t.Errorf("it took %s, not %s", took, c.waits)
				}
				if c.want != "" {
					if err == nil || !strings.Contains(err.Error(), c.want) {
						t.Errorf("got %v, want %q", err, c.want)
					}
					if left := m.Names(); !slices.Equal(left, []string{marker}) {
						t.Errorf("left: %q", left)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if err := errors.Join(p.Check(t.Context()), p.Release(t.Context()), p.Release(t.Context())); err != nil {
					t.Error(err)
				}
				if left := m.Names(); len(left) > 0 {
					t.Errorf("left: %q", left)
				}
			})
		})
	}
}

// TestCollectorSeesPins: it removes nothing while an upload lives, however long that takes, and takes the pins of the dead away.
func TestCollectorSeesPins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memcatalog.New(time.Now)
		alive := map[string]life{}
		collector := Open(m, Settings{Clock: testclock.New(), Alive: liveness(alive)}, nil)
		s := Open(m, Settings{Clock: testclock.New(), Holder: "up"}, nil)
		b := newBox(t, 1, map[string][]byte{"a": noise(1, 10)})
		if _, _, err := backUp(t.Context(), s, "b", b); err != nil {
			t.Fatal(err)
		}
		p, err := s.Pin(t.Context(), "0123456789abcdef")
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Delete(t.Context(), prefixOf("b")+"index.json"); err != nil {
			t.Fatal(err)
		}
		index := prefixOf("b") + "index.json"
		collect := func() Collected {
			t.Helper()
			done, err := collector.Delete(t.Context(), index)
			if err != nil {
				t.Error(err)
			}
			return done
		}
		time.Sleep(3*pinStale + 30*time.Minute) // it renews itself
		if done := collect(); !strings.Contains(done.Kept, "up (run 0123456789abcdef)") || done.Blobs != 0 {
			t.Errorf("%+v", done)
		}
		alive["up"] = life{true, true}
		if done := collect(); done.Kept == "" {
			t.Errorf("%+v", done)
		}
		// What is taken for dead cannot be renewed: the upload knows that it counts on nothing.
		alive["up"] = life{false, true}
		if done := collect(); done.Kept != "" || done.Blobs != 1 {
			t.Errorf("%+v", done)
		}
		if err := p.Check(t.Context()); !errors.Is(err, errLost) {
			t.Errorf("a pin that is gone: %v", err)
		}
		if err := p.Release(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestTakenPin: a collector that took a pin for dead is seen before it removes it, and one whose pin was renewed meanwhile removes nothing.
func TestTakenPin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memcatalog.New(time.Now)
		s := Open(m, Settings{Clock: testclock.New(), Holder: "up"}, nil)
		p, err := s.Pin(t.Context(), "0123456789abcdef")
		if err != nil {
			t.Fatal(err)
		}
		collector := Open(m, Settings{Clock: testclock.New(), Alive: func(string) (bool, bool) { return false, true }}, nil)
		m.Fail = func(op, name string) error {
			if op == "replace" && strings.HasPrefix(name, pinPrefix) {
				m.Fail = nil
				return p.Check(t.Context()) // it comes first
			}
			return nil
		}
		if done, err := collector.collect(t.Context(), nil); err != nil || done.Kept == "" || m.Fail != nil {
			m.Fail = nil
			t.Errorf("%+v, %v", done, err)
		}
		m.Fail = func(op, name string) error {
			if op == "delete" && strings.HasPrefix(name, pinPrefix) {
				m.Fail = nil
				if err := p.Check(t.Context()); !errors.Is(err, errLost) {
					t.Errorf("a taken pin was renewed: %v", err)
				}
			}
			return nil
		}
		if done, err := collector.collect(t.Context(), nil); err != nil || done.Kept != "" {
			t.Errorf("%+v, %v", done, err)
		}
		m.Fail = nil
		if err := p.Release(t.Context()); err != nil {
			t.Error(err)
		}
		// An answer that was lost is no loss of the pin.
		p, err = s.Pin(t.Context(), "0123456789abcdef")
		if err != nil {
			t.Fatal(err)
		}
		defer p.Release(t.Context())
		m.After = func(string, string) error { m.After = nil; return errors.New("connection reset") }
		if err := p.Check(t.Context()); err == nil || errors.Is(err, errLost) {
			t.Errorf("got %v", err)
		}
		if err := p.Check(t.Context()); err != nil {
			t.Errorf("after a lost answer: %v", err)
		}
	})
}

// TestSlowCollector stops by itself before uploads stop waiting for it.
func TestSlowCollector(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memcatalog.New(time.Now)
		s := Open(m, Settings{Clock: testclock.New()}, nil)
		files := map[string][]byte{}
		for i := range 100 {
			files[fmt.Sprintf("f%d", i)] = noise(uint64(i), 10)
		}
		if _, _, err := backUp(t.Context(), s, "b", newBox(t, 1, files)); err != nil {
			t.Fatal(err)
		}
		m.Fail = func(op, name string) error {
			if op == "delete" && strings.HasPrefix(name, blobPrefix) {
				time.Sleep(10 * time.Minute)
			}
			return nil
		}
		began := time.Now()
		done, err := s.Delete(t.Context(), prefixOf("b")+"index.json")
		if took := time.Since(began); err != nil || done.Kept == "" || done.Blobs == 0 || took > collectFor+10*time.Minute {
			t.Errorf("%+v, %v, after %s", done, err, took)
		}
	})
}

// TestOldPin: a pin of a process that nothing is known of holds for a day, and no longer.
func TestOldPin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memcatalog.New(func() time.Time { return time.Now().Add(3 * time.Hour) })
		s := Open(m, Settings{Clock: testclock.New()}, nil)
		if err := m.Create(t.Context(), pinPrefix+"x.json", note{Version: 1, Holder: "elsewhere"}.encode()); err != nil {
			t.Fatal(err)
		}
		for i, kept := range []bool{true, false} {
			time.Sleep(pinStale/2 + time.Second)
			done, err := s.collect(t.Context(), nil)
			if err != nil || (done.Kept != "") != kept {
				t.Errorf("look %d: %+v, %v", i, done, err)
			}
		}
		if left := m.Names(); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
	})
}
