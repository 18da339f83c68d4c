package cassandra

import (
	"slices"
	"sort"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/snapshot"
)

// share says how much of what a captured node has of a keyspace a target node owns.
type share int

const (
	shareNone share = iota
	sharePart       // it is loaded without a look at the tokens, and what the node does not own is cleaned up
	shareAll        // it is imported, and Cassandra proves that the node owns every token
)

// shares says which captured node's files of one keyspace go to which target node: by host ids, captured first. What is not there goes nowhere.
type shares map[string]map[string]share

// capturedRing is the ring of a backup.
func capturedRing(ix *snapshot.Index) ([]*member, ring, error) {
	t := &topology{}
	for _, n := range ix.Nodes {
		t.members = append(t.members, &member{Node: node.Node{HostID: n.HostID, Address: n.Address, Datacenter: n.Datacenter, Rack: n.Rack, Version: n.Version, Tokens: n.Tokens}})
	}
	r, err := t.ring()
	return t.members, r, err
}

// divide finds out which files go where. Files are a captured node's replica of its ranges, so every target node that owns a part of these gets them: each
// target replica then has what all captured ones had. Where target is the same ring as captured, with the same replication, each node gets the files of its
// counterpart alone. whole says that all nodes were captured: else who had which range cannot be told from those that were, and any may have any.
func divide(captured, target ring, before, after replication, whole bool) shares {
	out := shares{}
	add := func(c, t string, s share) {
		if out[c] == nil {
			out[c] = map[string]share{}
		}
		out[c][t] = s
	}
	if pairs := counterparts(captured, target); pairs != nil && whole && before.equal(after) {
		for c, t := range pairs {
			add(c, t, shareAll)
		}
		return out
	}
	had, has := captured.replicas(before), target.replicas(after)
	total, common := map[string]int{}, map[string]map[string]int{}
	// Both rings, cut at the tokens of both: within a piece the replicas are the same.
	var cuts []int64
	for _, at := range slices.Concat(captured, target) {
		cuts = append(cuts, at.token)
	}
	slices.Sort(cuts)
	all := captured.members()
	for _, end := range slices.Compact(cuts) {
		from := all
		if whole {
			from = had[captured.at(end)]
		}
		for _, c := range from {
			total[c.HostID]++
			for _, t := range has[target.at(end)] {
				if common[c.HostID] == nil {
					common[c.HostID] = map[string]int{}
				}
				common[c.HostID][t.HostID]++
			}
		}
	}
	for c, targets := range common {
		for t, n := range targets {
			if n == total[c] {
				add(c, t, shareAll)
			} else {
				add(c, t, sharePart)
			}
		}
	}
	return out
}

// at is the point whose range the token lies in.
func (r ring) at(token int64) int {
	return sort.Search(len(r), func(i int) bool { return r[i].token >= token }) % len(r)
}

// members are the nodes of the ring.
func (r ring) members() (out []*member) {
	for _, at := range r {
		if !slices.Contains(out, at.m) {
			out = append(out, at.m)
		}
	}
	return out
}

// counterparts pairs the nodes of two rings that are the same: equal tokens, datacenters and racks. It is nil where they are not.
func counterparts(a, b ring) map[string]string {
	if len(a) != len(b) || len(a) == 0 {
		return nil
	}
	pairs := map[string]string{}
	for i := range a {
		x, y := a[i].m, b[i].m
		if a[i].token != b[i].token || x.Datacenter != y.Datacenter || x.Rack != y.Rack {
			return nil
		}
		if have, ok := pairs[x.HostID]; ok && have != y.HostID {
			return nil
		}
		pairs[x.HostID] = y.HostID
	}
	back := map[string]bool{}
	for _, t := range pairs {
		if back[t] {
			return nil
		}
		back[t] = true
	}
	return pairs
}
