package cassandra

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
)

// ringOf makes nodes "dc/rack" with one token each, in order.
func ringOf(t *testing.T, places ...string) (*topology, ring) {
	t.Helper()
	top := &topology{}
	for i, p := range places {
		dc, rack, _ := strings.Cut(p, "/")
		top.members = append(top.members, &member{Node: node.Node{HostID: hostID(i), Address: fmt.Sprint(i), Datacenter: dc, Rack: rack, Tokens: []string{fmt.Sprint(i * 10)}}})
	}
	r, err := top.ring()
	if err != nil {
		t.Fatal(err)
	}
	return top, r
}

func names(sets [][]*member) (out []string) {
	for _, set := range sets {
		var ids []string
		for _, m := range set {
			ids = append(ids, m.Address)
		}
		slices.Sort(ids)
		out = append(out, strings.Join(ids, " "))
	}
	slices.Sort(out)
	return out
}

func TestReplicas(t *testing.T) {
	for name, c := range map[string]struct {
		places []string
		p      replication
		want   []string
	}{
		"simple":              {[]string{"d/a", "d/a", "d/a", "d/a"}, replication{simple: 2}, []string{"0 1", "0 3", "1 2", "2 3"}},
		"more than nodes":     {[]string{"d/a", "d/b"}, replication{simple: 3}, []string{"0 1"}},
		"a rack each":         {[]string{"d/a", "d/b", "d/c"}, replication{factors: map[string]int{"d": 3}}, []string{"0 1 2"}},
		"racks are skipped":   {[]string{"d/a", "d/a", "d/b", "d/b"}, replication{factors: map[string]int{"d": 2}}, []string{"0 2", "0 3", "1 2"}},
		"too few racks":       {[]string{"d/a", "d/a", "d/a", "d/b"}, replication{factors: map[string]int{"d": 3}}, []string{"0 1 3", "0 2 3", "1 2 3"}},
		"two datacenters":     {[]string{"d/a", "e/a", "d/b", "e/b"}, replication{factors: map[string]int{"d": 1, "e": 1}}, []string{"0 1", "0 3", "1 2", "2 3"}},
		"none in one of them": {[]string{"d/a", "e/a"}, replication{factors: map[string]int{"d": 1, "e": 0}}, []string{"0"}},
		"unknown datacenter":  {[]string{"d/a"}, replication{factors: map[string]int{"d": 1, "x": 2}}, []string{"0"}},
	} {
		_, r := ringOf(t, c.places...)
		if got := names(r.replicaSets(c.p)); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestParseReplication(t *testing.T) {
	for _, c := range []struct {
		options map[string]string
		total   int
		fails   bool
	}{
		{map[string]string{"class": "org.apache.cassandra.locator.SimpleStrategy", "replication_factor": "3"}, 3, false},
		{map[string]string{"class": "NetworkTopologyStrategy", "a": "3", "b": "2"}, 5, false},
		{map[string]string{"class": "NetworkTopologyStrategy", "a": "3/1"}, 0, true},
		{map[string]string{"class": "EverywhereStrategy"}, 0, true},
		{map[string]string{}, 0, true},
	} {
		p, err := parseReplication(c.options)
		if (err != nil) != c.fails || err == nil && p.total() != c.total {
			t.Errorf("%v: %+v, %v", c.options, p, err)
		}
	}
}

func TestQuorums(t *testing.T) {
	top, _ := ringOf(t, "d/a", "d/b", "d/c", "d/a", "d/b", "d/c")
	k := []keyspace{{name: "k", replication: map[string]string{"class": "NetworkTopologyStrategy", "d": "3"}}}
	top.members[0].down = errDown
	if err := top.checkQuorums(k); err != nil {
		t.Errorf("one of three: %v", err)
	}
	top.members[3].down = errDown // in the same rack: no range has both
	if err := top.checkQuorums(k); err != nil {
		t.Errorf("two of one rack: %v", err)
	}
	top.members[1].down = errDown
	if err := top.checkQuorums(k); err == nil {
		t.Error("two of three were enough")
	}
	k[0].replication = map[string]string{"class": "LocalStrategy"}
	if err := top.checkQuorums(k); err == nil {
		t.Error("an unknown strategy was taken")
	}
}

var errDown = fmt.Errorf("down")
