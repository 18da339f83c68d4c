package cassandra

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// point is one token of the ring and the node that has it.
type point struct {
	token int64
	m     *member
}

// ring is all tokens in order.
type ring []point

func (t *topology) ring() (ring, error) {
	var r ring
	for _, m := range t.members {
		for _, text := range m.Tokens {
			v, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("%s: token %q is none of Murmur3Partitioner", m, text)
			}
			r = append(r, point{v, m})
		}
	}
	slices.SortFunc(r, func(a, b point) int {
		if a.token < b.token {
			return -1
		}
		return 1
	})
	return r, nil
}

// replication is a keyspace's replication, understood.
type replication struct {
	simple  int            // SimpleStrategy
	factors map[string]int // NetworkTopologyStrategy, by datacenter
}

// total is the number of replicas that a quorum is counted of.
func (p replication) total() int {
	n := p.simple
	for _, f := range p.factors {
		n += f
	}
	return n
}

func (p replication) quorum() int { return p.total()/2 + 1 }

// parseReplication understands what system_schema.keyspaces has.
func parseReplication(options map[string]string) (replication, error) {
	class := options["class"]
	short := class[strings.LastIndexByte(class, '.')+1:]
	number := func(key string) (int, error) {
		n, err := strconv.Atoi(options[key])
		if err != nil || n < 0 {
			return 0, fmt.Errorf("replication factor %q is not a plain number (transient replication is not known)", options[key])
		}
		return n, nil
	}
	switch short {
	case "SimpleStrategy":
		n, err := number("replication_factor")
		return replication{simple: n}, err
	case "NetworkTopologyStrategy":
		p := replication{factors: map[string]int{}}
		for _, dc := range slices.Sorted(maps.Keys(options)) {
			if dc == "class" {
				continue
			}
			n, err := number(dc)
			if err != nil {
				return replication{}, err
			}
			p.factors[dc] = n
		}
		return p, nil
	}
	return replication{}, fmt.Errorf("replication strategy %q is not known", class)
}

// replicas are, for each point of the ring, the nodes that have the range which ends there, as Cassandra places them.
func (r ring) replicas(p replication) [][]*member {
	racks := map[string]map[string]bool{} // by datacenter
	nodes := map[string]map[*member]bool{}
	for _, at := range r {
		if racks[at.m.Datacenter] == nil {
			racks[at.m.Datacenter], nodes[at.m.Datacenter] = map[string]bool{}, map[*member]bool{}
		}
		racks[at.m.Datacenter][at.m.Rack] = true
		nodes[at.m.Datacenter][at.m] = true
	}
	sets := make([][]*member, len(r))
	for i := range r {
		if p.factors == nil {
			sets[i] = r.simple(i, p.simple)
		} else {
			sets[i] = r.networked(i, p.factors, racks, nodes)
		}
	}
	return sets
}

// replicaSets are the distinct sets of nodes that have some range in common.
func (r ring) replicaSets(p replication) [][]*member {
	seen := map[string]bool{}
	var sets [][]*member
	for _, set := range r.replicas(p) {
		ids := make([]string, 0, len(set))
		for _, m := range set {
			ids = append(ids, m.HostID)
		}
		slices.Sort(ids)
		if key := strings.Join(ids, " "); !seen[key] {
			seen[key] = true
			sets = append(sets, set)
		}
	}
	return sets
}

// simple: the next nodes around the ring.
func (r ring) simple(from, factor int) (set []*member) {
	for k := 0; k < len(r) && len(set) < factor; k++ {
		if m := r[(from+k)%len(r)].m; !slices.Contains(set, m) {
			set = append(set, m)
		}
	}
	return set
}

// networked is NetworkTopologyStrategy.calculateNaturalReplicas of Cassandra 4 and 5: in each datacenter the next nodes of racks that have none yet, and as
// many of racks that have as the racks are too few.
func (r ring) networked(from int, factors map[string]int, racks map[string]map[string]bool, nodes map[string]map[*member]bool) (set []*member) {
	type place struct {
		left, repeats int
		used          map[string]bool
	}
	places := map[string]*place{}
	for dc, factor := range factors {
		if n := len(nodes[dc]); factor > 0 && n > 0 {
			places[dc] = &place{left: min(factor, n), repeats: factor - len(racks[dc]), used: map[string]bool{}}
		}
	}
	open := len(places)
	for k := 0; k < len(r) && open > 0; k++ {
		m := r[(from+k)%len(r)].m
		p := places[m.Datacenter]
		if p == nil || p.left == 0 || slices.Contains(set, m) {
			continue
		}
		if p.used[m.Rack] {
			if p.repeats <= 0 {
				continue
			}
			p.repeats--
		}
		p.used[m.Rack] = true
		set = append(set, m)
		if p.left--; p.left == 0 {
			open--
		}
	}
	return set
}

// checkQuorums proves that every range of the keyspaces has a quorum of replicas that are up. QUORUM writes reached a quorum, so the captured replicas have
// each of them between them.
func (t *topology) checkQuorums(keyspaces []keyspace) error {
	r, err := t.ring()
	if err != nil {
		return err
	}
	var errs []error
	for _, k := range keyspaces {
		p, err := parseReplication(k.replication)
		if err != nil {
			errs = append(errs, fmt.Errorf("keyspace %s: whether its ranges have a quorum without the nodes that are down cannot be told: %w", k.name, err))
			continue
		}
		for _, set := range r.replicaSets(p) {
			up := 0
			for _, m := range set {
				if m.down == nil {
					up++
				}
			}
			if up < p.quorum() {
				errs = append(errs, fmt.Errorf("keyspace %s: a range has %d of %d replicas up, and %d are needed for a quorum: bring a node up first", k.name, up, p.total(), p.quorum()))
				break
			}
		}
	}
	return errors.Join(errs...)
}

// equal says that two keyspaces are replicated alike.
func (p replication) equal(o replication) bool {
	return (p.factors == nil) == (o.factors == nil) && p.simple == o.simple && maps.Equal(p.factors, o.factors)
}
