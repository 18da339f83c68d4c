package reading

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	gocql "github.com/apache/cassandra-gocql-driver/v2"
)

// murmur3 is the partitioner that ScalarDB's clusters have; others have other tokens.
const murmur3 = "org.apache.cassandra.dht.Murmur3Partitioner"

// Token is one token of Murmur3Partitioner's ring, and the node that has it.
type Token struct {
	Value int64
	Host  string
}

// Range is the tokens above From, up to and including To; From < To. Host is a node that has them: the first in the ring, where it is known.
type Range struct {
	From, To int64
	Host     string
}

func (r Range) width() uint64 { return uint64(r.To) - uint64(r.From) } //nolint:gosec // modulo 2^64 is what is wanted

// halves cuts a range in two; ok is false where nothing is left to cut.
func (r Range) halves() (a, b Range, ok bool) {
	w := r.width()
	if w < 2 {
		return r, r, false
	}
	middle := int64(uint64(r.From) + w/2) //nolint:gosec // between From and To
	return Range{r.From, middle, r.Host}, Range{middle, r.To, r.Host}, true
}

// maxRanges bounds the ranges of one table.
const maxRanges = 100_000

// Split covers the whole ring with ranges that don't overlap, none of them wider than the ring by pieces. They end at the nodes' tokens; with merge, neighbours
// are put together where that leaves them no wider: for tables that are smaller than the ring has tokens. No tokens at all are one node's ring.
//
// The lowest number is no key's token, though it may be a node's, so the range above it is the first, and the last ends with the highest number.
func Split(tokens []Token, pieces int, merge bool) []Range {
	pieces = min(max(pieces, 1), maxRanges)
	tokens = slices.Clone(tokens)
	slices.SortStableFunc(tokens, func(a, b Token) int {
		if a.Value != b.Value {
			return sign(a.Value < b.Value)
		}
		return strings.Compare(a.Host, b.Host)
	})
	tokens = slices.CompactFunc(tokens, func(a, b Token) bool { return a.Value == b.Value })
	first := ""
	if len(tokens) > 0 {
		first = tokens[0].Host // what is above the highest token wraps around to the lowest
	}
	from := int64(math.MinInt64)
	var base []Range
	for _, t := range tokens {
		if t.Value > from {
			base = append(base, Range{from, t.Value, t.Host})
			from = t.Value
		}
	}
	if from < math.MaxInt64 {
		base = append(base, Range{from, math.MaxInt64, first})
	}
	widest := uint64(math.MaxUint64)/uint64(pieces) + 1 //nolint:gosec // pieces is positive
	if pieces == 1 {
		widest = math.MaxUint64
	}
	var out []Range
	for _, b := range base {
		if merge && len(out) > 0 {
			last := &out[len(out)-1]
			if sum, carry := bits.Add64(last.width(), b.width(), 0); carry == 0 && sum <= widest {
				last.To, last.Host = b.To, b.Host
				continue
			}
		}
		w := b.width()
		n := (w-1)/widest + 1
		step := (w-1)/n + 1
		at := uint64(b.From) //nolint:gosec // modulo 2^64 is what is wanted
		for left := w; left > 0; {
			s := min(step, left)
			out = append(out, Range{int64(at), int64(at + s), b.Host}) //nolint:gosec // as above
			at, left = at+s, left-s
		}
	}
	return out
}

func sign(less bool) int {
	if less {
		return -1
	}
	return 1
}

// readRing asks one node for the tokens of all. A node that it does not know is no loss: any cut of the ring covers it.
func (r *Reader) readRing(ctx context.Context) error {
	var self, partitioner, datacenter string
	var own []string
	local := Query{Statement: "SELECT host_id, partitioner, data_center, tokens FROM system.local WHERE key = 'local'"}
	err := r.small(ctx, local, func(scan func(...any) error) error {
		var id gocql.UUID
		err := scan(&id, &partitioner, &datacenter, &own)
		self = id.String()
		return err
	})
	if err != nil {
		return fmt.Errorf("reading the cluster's tokens: %w", err)
	}
	if partitioner != murmur3 {
		return fmt.Errorf("reading the cluster's tokens: its partitioner is %q; only Murmur3Partitioner, which is Cassandra's default, can be read", partitioner)
	}
	type peer struct {
		host, datacenter string
		tokens           []string
	}
	peers := []peer{{self, datacenter, own}}
	err = r.small(ctx, Query{Statement: "SELECT host_id, data_center, tokens FROM system.peers", Host: self}, func(scan func(...any) error) error {
		var id *gocql.UUID
		var p peer
		if err := scan(&id, &p.datacenter, &p.tokens); err != nil {
			return err
		}
		if id != nil { // a peer that has just been heard of has no id yet
			p.host = id.String()
			peers = append(peers, p)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading the cluster's tokens: %w", err)
	}
	if r.s.Datacenter != "" && !slices.ContainsFunc(peers, func(p peer) bool { return p.datacenter == r.s.Datacenter }) {
		return fmt.Errorf("reading the cluster's tokens: there is no node in datacenter %q", r.s.Datacenter)
	}
	for _, p := range peers {
		if r.s.Datacenter != "" && p.datacenter != r.s.Datacenter {
			continue
		}
		r.hosts = append(r.hosts, p.host)
		for _, text := range p.tokens {
			v, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				return fmt.Errorf("reading the cluster's tokens: node %s has token %q, which is none of Murmur3Partitioner", p.host, text)
			}
			r.ring = append(r.ring, Token{v, p.host})
		}
	}
	return nil
}

// rangesOf are the ranges that a table is read by.
func (r *Reader) rangesOf(ctx context.Context, t *table) ([]Range, error) {
	key := t.cql()
	r.mu.Lock()
	ranges := r.ranges[key]
	r.mu.Unlock()
	if ranges != nil {
		return ranges, nil
	}
	// Every worker gets some, so that none waits for the last one for long.
	pieces := int64(4 * cap(r.slots))
	partitions, known := r.estimate(ctx, t)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if known {
		pieces = max(pieces, min(partitions/r.s.PartitionsPerRange+1, maxRanges))
	}
	ranges = Split(r.ring, int(pieces), known)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ranges[key] = ranges
	return ranges, nil
}

// estimate is about how many partitions a table has. Nodes tell of their own ranges, every few minutes anew, so a table may have no estimate yet, and a node
// may be down; what is known of a part of the ring stands for the rest.
func (r *Reader) estimate(ctx context.Context, t *table) (partitions int64, known bool) {
	var sum, covered float64
	for _, host := range r.hosts {
		_ = r.once(ctx, Query{Statement: "SELECT range_start, range_end, partitions_count FROM system.size_estimates WHERE keyspace_name = ? AND table_name = ?",
			Args: []any{t.keyspace, t.name}, Host: host}, func(scan func(...any) error) error {
			var start, end string
			var count int64
			if err := scan(&start, &end, &count); err != nil {
				return err
			}
			from, err1 := strconv.ParseInt(start, 10, 64)
			to, err2 := strconv.ParseInt(end, 10, 64)
			if err := errors.Join(err1, err2); err != nil {
				return err
			}
			sum += float64(count)
			covered += float64(Range{From: from, To: to}.width() - 1) // one that wraps, too; equal ends are the whole ring
			return nil
		}) //nolint:errcheck // an estimate is no condition
	}
	if covered < 1 {
		return 0, false
	}
	return int64(min(sum*max(math.MaxUint64/covered, 1), 1e15)), true
}
