package cassandra

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
)

// randomRing has nodes in up to two datacenters.
func randomRing(t *testing.T, rnd *rand.Rand, prefix string, nodes int) ring {
	t.Helper()
	top := &topology{}
	seen := map[int64]bool{}
	for i := range nodes {
		m := &member{Node: node.Node{HostID: fmt.Sprint(prefix, i), Datacenter: "dc" + strconv.Itoa(1+i%2), Rack: "r" + strconv.Itoa(rnd.IntN(3))}}
		for range 1 + rnd.IntN(4) {
			token := int64(rnd.IntN(60))
			if !seen[token] {
				seen[token] = true
				m.Tokens = append(m.Tokens, strconv.FormatInt(token, 10))
			}
		}
		top.members = append(top.members, m)
	}
	r, err := top.ring()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func randomReplication(rnd *rand.Rand) replication {
	if rnd.IntN(2) == 0 {
		return replication{simple: 1 + rnd.IntN(3)}
	}
	return replication{factors: map[string]int{"dc1": 1 + rnd.IntN(3), "dc2": rnd.IntN(3)}}
}

// Whatever the two clusters are like: a captured replica's copy of every token comes to every target replica of that token, and what is imported with a proof is
// owned as a whole.
func TestDivide(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	seen := map[share]int{}
	for range 2000 {
		a, b := randomRing(t, rnd, "a", 1+rnd.IntN(5)), randomRing(t, rnd, "b", 1+rnd.IntN(5))
		if len(a) == 0 || len(b) == 0 {
			continue
		}
		p, q, whole := randomReplication(rnd), randomReplication(rnd), rnd.IntN(4) > 0
		got := divide(a, b, p, q, whole)
		had, has := a.replicas(p), b.replicas(q)
		for token := int64(-1); token <= 61; token++ {
			from := had[a.at(token)]
			if !whole {
				from = a.members()
			}
			for _, c := range from {
				for _, target := range has[b.at(token)] {
					if got[c.HostID][target.HostID] == shareNone {
						t.Fatalf("token %d: what %s had does not come to %s\n%v\n%v", token, c.HostID, target.HostID, a, b)
					}
				}
				for target, s := range got[c.HostID] {
					seen[s]++
					if s == shareAll && !slices.ContainsFunc(has[b.at(token)], func(m *member) bool { return m.HostID == target }) {
						t.Fatalf("token %d: %s has it, and %s, which does not own it, would import it as a whole", token, c.HostID, target)
					}
				}
			}
		}
	}
	if seen[sharePart] == 0 || seen[shareAll] == 0 {
		t.Errorf("the rings were not various: %v", seen)
	}
}

// The same ring again: each node gets its own files, whatever its host id is now.
func TestDivideSameRing(t *testing.T) {
	same := func(prefix string) ring {
		top := &topology{}
		for i := range 5 {
			top.members = append(top.members, &member{Node: node.Node{HostID: fmt.Sprint(prefix, (i*3)%5), Datacenter: "dc1", Rack: "r1", Tokens: []string{strconv.Itoa(i), strconv.Itoa(i + 100)}}})
		}
		r, err := top.ring()
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	p := replication{factors: map[string]int{"dc1": 3}}
	got := divide(same("a"), same("b"), p, p, true)
	for i := range 5 {
		c, want := fmt.Sprint("a", i), fmt.Sprint("b", i)
		if len(got[c]) != 1 || got[c][want] != shareAll {
			t.Errorf("%s: %v", c, got[c])
		}
	}
	// With a node that was not captured, or another replication, one counterpart is not enough.
	for _, got := range []shares{divide(same("a"), same("b"), p, p, false), divide(same("a"), same("b"), p, replication{factors: map[string]int{"dc1": 5}}, true)} {
		for i := range 5 {
			if c := fmt.Sprint("a", i); len(got[c]) != 5 {
				t.Errorf("%s: %v", c, got[c])
			}
		}
	}
}
