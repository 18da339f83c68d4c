package upload

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/memcatalog"
)

// process is one of the two sides in a schedule: it stops before each of its operations on the catalog, and goes on when it is told to.
type process struct {
	name    string
	at      chan string // what it is about to do; closed when it is done
	proceed chan struct{}
	next    string
	done    bool
	asleep  bool // it waits for the other
	clock   *stepClock
	failure error
}

// stepClock is a clock whose short sleeps last until the other side has done something, and whose long ones until their end is asked for.
type stepClock struct {
	p   *process
	now time.Duration
}

func (c *stepClock) Now() time.Time      { return time.Unix(1e9, 0).Add(c.now) }
func (c *stepClock) Boot() time.Duration { return c.now }
func (c *stepClock) Sleep(ctx context.Context, d time.Duration) error {
	if d >= reportEvery {
		<-ctx.Done() // renewals and reports are not part of the protocol
		return ctx.Err()
	}
	c.p.step("sleep")
	return ctx.Err()
}
func (c *stepClock) WithTimeout(ctx context.Context, _ time.Duration) (context.Context, context.CancelFunc) {
	return context.WithCancel(ctx)
}

func (p *process) step(what string) {
	p.at <- what
	<-p.proceed
}

func start(name string, f func(p *process) error) *process {
	p := &process{name: name, at: make(chan string), proceed: make(chan struct{})}
	p.clock = &stepClock{p: p}
	go func() {
		defer close(p.at)
		p.failure = f(p)
	}()
	p.arrive()
	return p
}

// arrive waits until the process is about to do something, or done.
func (p *process) arrive() {
	next, ok := <-p.at
	p.next, p.done, p.asleep = next, !ok, next == "sleep"
}

// gated is one side's view of the catalog. Without hides a prefix from its lists: the other side's sign, as if it had never been written.
type gated struct {
	*memcatalog.Catalog
	p       *process
	without string
}

func (g *gated) Create(ctx context.Context, name string, data []byte) error {
	g.p.step("create " + name)
	return g.Catalog.Create(ctx, name, data)
}

func (g *gated) Replace(ctx context.Context, name string, data []byte, v engine.Version) (engine.Version, error) {
	g.p.step("replace " + name)
	return g.Catalog.Replace(ctx, name, data, v)
}

func (g *gated) Read(ctx context.Context, name string) ([]byte, engine.Version, error) {
	g.p.step("read " + name)
	return g.Catalog.Read(ctx, name)
}

func (g *gated) List(ctx context.Context, prefix string) ([]engine.ObjectInfo, error) {
	g.p.step("list " + prefix)
	if prefix == g.without {
		return nil, nil
	}
	return g.Catalog.List(ctx, prefix)
}

func (g *gated) Delete(ctx context.Context, name string) error {
	g.p.step("delete " + name)
	return g.Catalog.Delete(ctx, name)
}

func (g *gated) NewWriter(ctx context.Context, name string) (engine.ObjectWriter, error) {
	g.p.step("write " + name)
	w, err := g.Catalog.NewWriter(ctx, name)
	if err != nil {
		return nil, err
	}
	return &gatedWriter{w, g}, nil
}

type gatedWriter struct {
	engine.ObjectWriter
	g *gated
}

func (w *gatedWriter) Commit(ctx context.Context) error {
	w.g.p.step("commit")
	return w.ObjectWriter.Commit(ctx)
}

// world is what one schedule begins with: a backup whose deletion is tried while an upload of the same content runs.
type world struct {
	deleted bool   // the backup's index is gone already: only its blobs are left, of an old deletion
	pins    string // what the collector does not see
	markers string // what the upload does not see
}

// play runs one schedule: choices says at each point where both can go who does (false: the upload), and is made longer as needed. It returns the choices made
// and what went wrong.
func play(t *testing.T, w world, choices []bool) (made []bool, trace []string, wrong string) {
	ctx := t.Context()
	m := memcatalog.New(func() time.Time { return time.Unix(1e9, 0) })
	files := map[string][]byte{"a": noise(1, 10)}
	old, fresh := &box{disk: &disk{}, host: hostID(1), root: "/none"}, &box{disk: &disk{}, host: hostID(1), root: "/none"}
	list(old, files)
	list(fresh, files)
	old.list.Tables[0].Files[0].SHA256 = sum(sha(files["a"])).String()
	if err := create(ctx, m, sum(sha(files["a"])).blob(), files["a"]); err != nil {
		t.Fatal(err)
	}
	if !w.deleted {
		if _, err := record(ctx, m, "old", []*box{old}); err != nil {
			t.Fatal(err)
		}
	}
	up := start("upload", func(p *process) error {
		g := &gated{m, p, w.markers}
		s := Open(g, Settings{Clock: p.clock, Parallel: 1}, nil)
		pin, err := s.Pin(ctx, "0123456789abcdef")
		if err != nil {
			return err
		}
		defer pin.Release(ctx)
		src := fresh.source()
		src.Files = &inMemory{files: files}
		if _, err := pin.Upload(ctx, []Source{src}); err != nil {
			return err
		}
		if err := pin.Check(ctx); err != nil {
			return err
		}
		_, err = record(ctx, g, "new", []*box{fresh})
		return err
	})
	down := start("collector", func(p *process) error {
		s := Open(&gated{m, p, w.pins}, Settings{Clock: p.clock, Parallel: 1}, nil)
		if w.deleted {
			_, err := s.collect(ctx, map[sum]struct{}{sum(sha(files["a"])): {}})
			return err
		}
		_, err := s.Delete(ctx, prefixOf("old")+"index.json")
		return err
	})
	for len(trace) < 1000 {
		var p, other *process
		canUp, canDown := !up.done && !up.asleep, !down.done && !down.asleep
		switch {
		case canUp && canDown:
			if len(made) == len(choices) {
				choices = append(choices, false)
			}
			c := choices[len(made)]
			made = append(made, c)
			if p, other = up, down; c {
				p, other = down, up
			}
		case canUp:
			p, other = up, down
		case canDown:
			p, other = down, up
		case up.done && down.done:
			for _, p := range []*process{up, down} {
				if p.failure != nil {
					return made, trace, p.name + " failed: " + p.failure.Error()
				}
			}
			s := Open(m, Settings{Clock: up.clock}, nil)
			if err := s.Inspect(ctx, prefixOf("new")+"index.json"); err != nil {
				return made, trace, "the new backup is not whole: " + err.Error()
			}
			if !w.deleted {
				if err := s.Inspect(ctx, prefixOf("old")+"index.json"); !errors.Is(err, engine.ErrNotFound) {
					return made, trace, fmt.Sprintf("the old backup was not deleted: %v", err)
				}
			}
			return made, trace, ""
		default:
			return made, trace, "both wait"
		}
		trace = append(trace, p.name+": "+p.next)
		p.proceed <- struct{}{}
		p.arrive()
		if other.asleep {
			other.asleep = false
		}
	}
	return made, trace, "it does not end"
}

// explore plays all schedules with at most so many changes of side, and returns how many there were and the first that went wrong.
func explore(t *testing.T, w world, switches int) (played int, wrong string) {
	var choices []bool
	for {
		made, trace, bad := play(t, w, choices)
		played++
		if bad != "" {
			return played, bad + "\n  " + strings.Join(trace, "\n  ")
		}
		// The next one in order: the last choice that can be the other one is.
		choices = made
		for {
			i := len(choices) - 1
			for i >= 0 && choices[i] {
				i--
			}
			if i < 0 {
				return played, ""
			}
			choices = append(append([]bool{}, choices[:i]...), true)
			if switchesOf(choices) <= switches {
				break
			}
			// Whatever follows has as many.
			choices[i] = true
		}
	}
}

func switchesOf(choices []bool) (n int) {
	for i := 1; i < len(choices); i++ {
		if choices[i] != choices[i-1] {
			n++
		}
	}
	return n
}

// TestAllInterleavings: however an upload and a collector come between each other's operations, the upload's backup is whole. It is not where either side's sign is
// taken out.
func TestAllInterleavings(t *testing.T) {
	for _, deleted := range []bool{true, false} {
		switches := 1000
		if !deleted {
			switches = 4 // there are many more, of the deletion's own operations
		}
		n, wrong := explore(t, world{deleted: deleted}, switches)
		if wrong != "" {
			t.Errorf("schedule %d: %s", n, wrong)
		}
		t.Logf("%d schedules (deleted before: %t)", n, deleted)
		if n < 500 {
			t.Errorf("only %d schedules", n)
		}
		for what, w := range map[string]world{"without pins": {deleted: deleted, pins: pinPrefix}, "without markers": {deleted: deleted, markers: collectingPrefix}} {
			n, wrong := explore(t, w, switches)
			if !strings.Contains(wrong, "the new backup is not whole") {
				t.Errorf("%s, %d schedules did not show it: %s", what, n, wrong)
			} else {
				t.Logf("%s, schedule %d: %s", what, n, wrong)
			}
		}
	}
}
