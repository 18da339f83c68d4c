package reading

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	gocql "github.com/apache/cassandra-gocql-driver/v2"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/ddl"
)

const (
	firstPause  = 100 * time.Millisecond
	maxPause    = 15 * time.Second
	minPageSize = 10
	// maxHalvings is how often a count of one range is halved.
	maxHalvings = 24
)

// pause is how long to wait after so many attempts.
func pause(attempts int) time.Duration { return min(firstPause<<min(attempts-1, 10), maxPause) }

// page asks for one page until it comes. row sees every row once: a request that fails passes none, and a row that cannot be decoded ends it for good.
// A slot is held during the request and its decoding only, so that what is done with the rows may read in its turn. give tells errors that are not to be tried again; nil: none.
func (r *Reader) page(ctx context.Context, slots slots, q Query, give func(error) bool, row func(scan func(...any) error) error) ([]byte, error) {
	for attempt := 1; ; attempt++ {
		if !r.preferred(q.Host) {
			q.Host = ""
		}
		next, err := r.try(ctx, slots, q, row)
		switch {
		case err == nil:
			return next, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case permanent(err) || give != nil && give(err):
			return nil, hinted(err)
		case attempt >= r.s.Attempts:
			return nil, fmt.Errorf("%w (%d attempts)", hinted(err), attempt)
		}
		if q.Host != "" { // another node may do better
			r.shun(q.Host)
			q.Host = ""
			if errors.Is(err, gocql.ErrNoConnections) {
				continue
			}
		}
		if slow(err) {
			q.PageSize = max(q.PageSize/2, min(q.PageSize, minPageSize))
		}
		if err := r.clock.Sleep(ctx, pause(attempt)); err != nil {
			return nil, err
		}
	}
}

// shunned is how long a node that failed is not preferred.
const shunned = 30 * time.Second

func (r *Reader) shun(host string) {
	r.nodes.Lock()
	defer r.nodes.Unlock()
	r.avoid[host] = r.clock.Boot() + shunned
}

func (r *Reader) preferred(host string) bool {
	r.nodes.Lock()
	defer r.nodes.Unlock()
	until, ok := r.avoid[host]
	return !ok || r.clock.Boot() >= until
}

func (r *Reader) try(ctx context.Context, slots slots, q Query, row func(scan func(...any) error) error) ([]byte, error) {
	if slots != nil {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		defer func() { <-slots }()
	}
	return r.conn.Page(ctx, q, row)
}

// progress is how far the reading of one table is.
type progress struct {
	r      *Reader
	t      *table
	ranges int

	mu    sync.Mutex
	ended error // what ended the scan
	done  int
	rows  int64
	last  time.Duration
}

// add is called with mu held.
func (p *progress) add(rows int64, ranges int) {
	p.rows, p.done = p.rows+rows, p.done+ranges
	if now := p.r.clock.Boot(); now-p.last >= progressEvery {
		p.last = now
		p.r.report("reading a table", map[string]any{"table": p.t.namespace + "." + p.t.name, "ranges_done": p.done, "ranges": p.ranges, "rows": p.rows})
	}
}

// eachRange calls f for every range of a table, as many at a time as may be read. The first error ends the rest.
func (r *Reader) eachRange(ctx context.Context, t *table, f func(context.Context, *progress, Range) error) error {
	ranges, err := r.rangesOf(ctx, t)
	if err != nil {
		return err
	}
	p := &progress{r: r, t: t, ranges: len(ranges), last: r.clock.Boot()}
	// Neighbours are often the same node's: what is read at once lies apart.
	return parallel(ctx, cap(r.slots), len(ranges), stride(len(ranges), cap(r.slots)), func(ctx context.Context, i int) error {
		if err := f(ctx, p, ranges[i]); err != nil {
			return err
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.add(0, 1)
		return nil
	})
}

// stride is a permutation of 0..n-1 in which width neighbours are far from each other.
func stride(n, width int) func(int) int {
	width = min(max(width, 1), max(n, 1))
	starts := make([]int, width+1)
	for i := range starts {
		starts[i] = i * n / width
	}
	order := make([]int, 0, n)
	for step := 0; len(order) < n; step++ {
		for w := range width {
			if at := starts[w] + step; at < starts[w+1] {
				order = append(order, at)
			}
		}
	}
	return func(i int) int { return order[i] }
}

// parallel calls f for order(0), order(1), ..., so many at a time; the first error ends the rest.
func parallel(ctx context.Context, width, n int, order func(int) int, f func(context.Context, int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex
	next := 0
	take := func() (int, bool) {
		mu.Lock()
		defer mu.Unlock()
		next++
		return next - 1, next <= n && ctx.Err() == nil
	}
	var wg sync.WaitGroup
	for range min(width, n) {
		wg.Go(func() {
			for i, ok := take(); ok; i, ok = take() {
				if err := f(ctx, order(i)); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// scan reads columns of all rows of a table. decode makes a T of a row, or leaves it out; it is called at once for several pages. each gets a page's; it
// is never called twice at once, and may read itself.
func scan[T any](ctx context.Context, r *Reader, t *table, columns []string, decode func(scan func(...any) error) (T, bool, error),
	each func([]T) error,
) error {
	partition := quoted(t.key[:t.partition])
	statement := fmt.Sprintf("SELECT %s FROM %s WHERE token(%s) > ? AND token(%s) <= ?", quoted(columns), t.cql(), partition, partition)
	err := r.eachRange(ctx, t, func(ctx context.Context, p *progress, g Range) error {
		q := Query{Statement: statement, Args: []any{g.From, g.To}, Consistency: r.s.Consistency, PageSize: r.s.PageSize, Host: g.Host}
		for {
			var kept []T
			var rows int64
			next, err := r.page(ctx, r.slots, q, nil, func(scan func(...any) error) error {
				v, keep, err := decode(scan)
				if keep && err == nil {
					kept = append(kept, v)
				}
				rows++
				return err
			})
			if err != nil {
				return err
			}
			p.mu.Lock()
			// An error of each's ends the others by ctx, which they hear of later than the next of them comes here.
			if err = cmp.Or(p.ended, ctx.Err()); err == nil && len(kept) > 0 {
				err = each(kept)
				p.ended = err
			}
			p.add(rows, 0)
			p.mu.Unlock()
			if err != nil || next == nil {
				return err
			}
			q.State = next
		}
	})
	if err != nil {
		return fmt.Errorf("reading table %s: %w", t, err)
	}
	return nil
}

// count counts a table's rows without fetching them.
func (r *Reader) count(ctx context.Context, t *table) (total int64, err error) {
	what := "*"
	if c := t.lonely(); c != "" {
		what = ddl.Quote(c)
	}
	partition := quoted(t.key[:t.partition])
	statement := fmt.Sprintf("SELECT count(%s) FROM %s WHERE token(%s) > ? AND token(%s) <= ?", what, t.cql(), partition, partition)
	var of func(ctx context.Context, g Range, halvings int) (int64, error)
	of = func(ctx context.Context, g Range, halvings int) (n int64, err error) {
		a, b, ok := g.halves()
		give := slow
		if !ok || halvings >= maxHalvings {
			give = nil
		}
		q := Query{Statement: statement, Args: []any{g.From, g.To}, Consistency: r.s.Consistency, PageSize: countPageSize(r.s.PageSize), Host: g.Host}
		_, err = r.page(ctx, r.slots, q, give, func(scan func(...any) error) error { return scan(&n) })
		if err == nil || give == nil || !slow(err) || ctx.Err() != nil {
			return n, err
		}
		a.Host, b.Host = "", ""
		if err := r.clock.Sleep(ctx, pause(halvings+1)); err != nil {
			return 0, err
		}
		left, err := of(ctx, a, halvings+1)
		if err != nil {
			return 0, err
		}
		right, err := of(ctx, b, halvings+1)
		return left + right, err
	}
	err = r.eachRange(ctx, t, func(ctx context.Context, p *progress, g Range) error {
		n, err := of(ctx, g, 0)
		if err != nil {
			return err
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		total += n
		p.add(n, 0)
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("counting table %s: %w", t, err)
	}
	return total, nil
}

// countPageSize is how many rows the cluster reads at a time for a count: they don't travel to us, so there may be more of them.
func countPageSize(n int) int { return min(5*n, 5000) }
