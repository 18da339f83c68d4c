package reading

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// covers checks that every token that a key can have is in exactly one range: each begins where the one before it ended.
func covers(t *testing.T, ranges []Range, pieces int) {
	t.Helper()
	at := int64(math.MinInt64)
	for i, g := range ranges {
		if g.From != at || g.To <= g.From {
			t.Fatalf("range %d is %+v, after %d", i, g, at)
		}
		if pieces > 1 && g.width() > math.MaxUint64/uint64(pieces)+1 {
			t.Fatalf("range %d of %d pieces is %d wide", i, pieces, g.width())
		}
		at = g.To
	}
	if at != math.MaxInt64 {
		t.Fatalf("the last range ends at %d", at)
	}
}

func random(r *rand.Rand) []Token {
	tokens := make([]Token, r.IntN(40))
	for i := range tokens {
		v := int64(r.Uint64()) //nolint:gosec // any
		switch r.IntN(8) {
		case 0:
			v = math.MinInt64 + int64(r.IntN(3))
		case 1:
			v = math.MaxInt64 - int64(r.IntN(3))
		case 2:
			v = int64(r.IntN(5)) - 2
		}
		tokens[i] = Token{v, string(rune('a' + r.IntN(3)))}
	}
	return tokens
}

func TestSplit(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		tokens, pieces, merge := random(r), 1+r.IntN(300), r.IntN(2) == 0
		before := slices.Clone(tokens)
		ranges := Split(tokens, pieces, merge)
		if !slices.Equal(tokens, before) {
			t.Fatal("the tokens were changed")
		}
		covers(t, ranges, pieces)
		// Without merging every token ends a range, of the node that has it; what is above the highest is the lowest's.
		owners := map[int64]string{}
		for _, tok := range tokens {
			if have, ok := owners[tok.Value]; !ok || tok.Host < have {
				owners[tok.Value] = tok.Host
			}
		}
		ends := map[int64]string{}
		for _, g := range ranges {
			ends[g.To] = g.Host
		}
		if len(tokens) > 0 && !merge {
			lowest := slices.MinFunc(tokens, func(a, b Token) int { return sign(a.Value < b.Value) })
			owners[math.MaxInt64] = owners[lowest.Value]
			if i := slices.IndexFunc(tokens, func(tok Token) bool { return tok.Value == math.MaxInt64 }); i >= 0 {
				owners[math.MaxInt64] = tokens[i].Host
				for _, tok := range tokens {
					if tok.Value == math.MaxInt64 {
						owners[math.MaxInt64] = min(owners[math.MaxInt64], tok.Host)
					}
				}
			}
			delete(owners, math.MinInt64)
			for v, h := range owners {
				if got, ok := ends[v]; !ok || got != h {
					t.Fatalf("token %d of node %s ends a range of %q (%t)", v, h, got, ok)
				}
			}
		}
		if merge && len(ranges) > 2*pieces+1 {
			t.Fatalf("%d ranges for %d pieces", len(ranges), pieces)
		}
	}
	if got := Split(nil, 1, false); len(got) != 1 || got[0] != (Range{From: math.MinInt64, To: math.MaxInt64}) {
		t.Errorf("one piece of no tokens: %+v", got)
	}
	if got := len(Split([]Token{{0, "a"}}, 1<<30, false)); got > maxRanges+2 {
		t.Errorf("%d ranges", got)
	}
}

func FuzzSplit(f *testing.F) {
	f.Add([]byte{0x80, 0, 0, 0, 0, 0, 0, 0, 0x7f, 255, 255, 255, 255, 255, 255, 255}, uint16(3), true)
	f.Fuzz(func(t *testing.T, data []byte, pieces uint16, merge bool) {
		var tokens []Token
		for len(data) >= 8 && len(tokens) < 1000 {
			tokens = append(tokens, Token{int64(binary.BigEndian.Uint64(data)), string(data[7:8])}) //nolint:gosec // any
			data = data[8:]
		}
		covers(t, Split(tokens, int(pieces), merge), int(pieces))
	})
}

func TestHalves(t *testing.T) {
	for _, g := range []Range{{math.MinInt64, math.MaxInt64, "a"}, {-3, -1, ""}, {5, 8, ""}, {math.MaxInt64 - 2, math.MaxInt64, ""}} {
		a, b, ok := g.halves()
		if !ok || a.From != g.From || a.To != b.From || b.To != g.To || a.To <= a.From || b.To <= b.From {
			t.Errorf("%+v: %+v %+v %t", g, a, b, ok)
		}
	}
	if _, _, ok := (Range{4, 5, ""}).halves(); ok {
		t.Error("one token was halved")
	}
}

func TestStride(t *testing.T) {
	for n := range 40 {
		for _, width := range []int{1, 3, 7, 64} {
			order := stride(n, width)
			var all []int
			for i := range n {
				all = append(all, order(i))
			}
			slices.Sort(all)
			for i, at := range all {
				if i != at {
					t.Fatalf("%d by %d: %v", n, width, all)
				}
			}
		}
	}
}
