package cassandra

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/snapshot"
)

const (
	murmur3 = "org.apache.cassandra.dht.Murmur3Partitioner"
	// connecting is how many nodes are connected to at once.
	connecting = 32
	// named is how many things a message names.
	named = 5
)

// member is one node of the topology, and the connection to it.
type member struct {
	node.Node
	conn   conn
	down   error  // why it is not captured; conn is nil then
	schema string // its schema's version
}

func (m *member) String() string {
	return fmt.Sprintf("node %s (%s, %s)", m.Address, m.HostID, m.Datacenter)
}

// topology is all nodes of a cluster as they see each other.
type topology struct {
	cluster  string
	members  []*member // sorted by host id
	schema   string    // the version that all nodes up agree on
	warnings []string
}

func (t *topology) close() {
	for _, m := range t.members {
		if m.conn != nil {
			m.conn.Close()
		}
	}
}

// up are the members that answer.
func (t *topology) up() []*member {
	return slices.DeleteFunc(slices.Clone(t.members), func(m *member) bool { return m.down != nil })
}

func (t *topology) downs() []*member {
	return slices.DeleteFunc(slices.Clone(t.members), func(m *member) bool { return m.down == nil })
}

const (
	localColumns = "cluster_name, partitioner, host_id, data_center, rack, release_version, schema_version, tokens, rpc_address, bootstrapped"
	localQuery   = "SELECT " + localColumns + " FROM system.local WHERE key = 'local'"
	peersQuery   = "SELECT peer, host_id, data_center, rack, release_version, schema_version, tokens, native_address FROM system.peers_v2"
	// nearQuery and farQuery are what the end of the window compares: a node's own tokens, and whom it knows.
	nearQuery   = "SELECT host_id, schema_version, tokens FROM system.local WHERE key = 'local'"
	farQuery    = "SELECT host_id, schema_version FROM system.peers_v2"
	gossipQuery = "SELECT address, host_id, status, status_with_port FROM system_views.gossip_info"
	clockQuery  = "SELECT toTimestamp(now()) AS now FROM system.local WHERE key = 'local'"
)

// one runs a query that has one row.
func one(ctx context.Context, c conn, query string) (row, error) {
	rows, err := c.Query(ctx, query)
	if err != nil {
		return nil, err
	}
	if len(rows) != 1 {
		return nil, fmt.Errorf("%d rows for %s", len(rows), query)
	}
	return rows[0], nil
}

// enter connects to the first contact point that answers.
func (s Settings) enter(ctx context.Context) (conn, error) {
	var errs []error
	for _, point := range s.ContactPoints {
		addresses, err := s.connector().resolve(ctx, point)
		if err != nil {
			errs = append(errs, fmt.Errorf("contact point %s: %w", point, err))
			continue
		}
		for _, address := range addresses {
			c, err := s.connector().connect(ctx, address)
			if err == nil {
				return c, nil
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			errs = append(errs, fmt.Errorf("contact point %s: %w", describePoint(point, address), err))
		}
	}
	return nil, fmt.Errorf("no contact point answers over CQL (port %d): %w", s.port(), errors.Join(errs...))
}

func describePoint(point, address string) string {
	if point == address {
		return point
	}
	return point + " (" + address + ")"
}

// readTopology connects to every node. It refuses nothing yet but what makes the picture useless. The caller closes it.
func (s Settings) readTopology(ctx context.Context) (*topology, error) {
	first, err := s.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer first.Close()
	local, err := one(ctx, first, localQuery)
	if err != nil {
		return nil, fmt.Errorf("reading system.local: %w", err)
	}
	peers, err := first.Query(ctx, peersQuery)
	if err != nil {
		return nil, fmt.Errorf("reading system.peers_v2 (Cassandra 4.0 or newer is needed): %w", err)
	}
	t := &topology{cluster: local.text("cluster_name")}
	if p := local.text("partitioner"); p != murmur3 {
		return nil, fmt.Errorf("the cluster's partitioner is %s; only Murmur3Partitioner, Cassandra's default, is known", p)
	}
	for i, r := range append([]row{local}, peers...) {
		m := &member{Node: node.Node{HostID: r.text("host_id"), Address: r.text("native_address"), Datacenter: r.text("data_center"), Rack: r.text("rack"),
			Version: r.text("release_version")}}
		if i == 0 {
			m.Address = r.text("rpc_address")
		}
		if m.HostID == "" {
			// What every driver ignores: a row that is left of a node of old.
			t.warnings = append(t.warnings, fmt.Sprintf("system.peers_v2 has an entry for %s without a host id; it was ignored. If a node of that address is in the cluster, its data is not in the backup.", r.text("peer")))
			continue
		}
		if m.Tokens, err = sortTokens(r.texts("tokens")); err != nil {
			return nil, fmt.Errorf("%s: %w", m, err)
		}
		t.members = append(t.members, m)
	}
	slices.SortFunc(t.members, func(a, b *member) int { return cmp.Compare(a.HostID, b.HostID) })
	_ = each(ctx, t.members, func(ctx context.Context, m *member) error { //nolint:errcheck // each says it of its member
		m.down = s.meet(ctx, m)
		return nil
	})
	if err := ctx.Err(); err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

// meet connects to a node and makes sure that it is the one.
func (s Settings) meet(ctx context.Context, m *member) error {
	if !snapshot.ValidHostID(m.HostID) || m.Address == "" {
		return fmt.Errorf("its entry in system.peers_v2 is incomplete (address %q)", m.Address)
	}
	c, err := s.connector().connect(ctx, m.Address)
	if err != nil {
		return fmt.Errorf("it does not answer over CQL: %w", err)
	}
	r, err := one(ctx, c, localQuery)
	if err != nil {
		c.Close()
		return fmt.Errorf("reading its system.local: %w", err)
	}
	if id := r.text("host_id"); id != m.HostID {
		c.Close()
		return fmt.Errorf("at its address answers node %s", id)
	}
	m.conn, m.schema, m.Version = c, r.text("schema_version"), cmp.Or(r.text("release_version"), m.Version)
	return nil
}

// sortTokens sorts them as numbers.
func sortTokens(tokens []string) ([]string, error) {
	numbers := make([]*big.Int, 0, len(tokens))
	for _, t := range tokens {
		n, ok := new(big.Int).SetString(t, 10)
		if !ok || !n.IsInt64() {
			return nil, fmt.Errorf("its token %q is none of Murmur3Partitioner", t)
		}
		numbers = append(numbers, n)
	}
	slices.SortFunc(numbers, (*big.Int).Cmp)
	out := make([]string, 0, len(numbers))
	for _, n := range numbers {
		out = append(out, n.String())
	}
	return slices.Compact(out), nil
}

// check refuses a topology that cannot be captured as a whole. All failures are returned.
func (t *topology) check(ctx context.Context, s Settings) error {
	var errs []error
	versions := map[string]bool{}
	datacenters := map[string]bool{}
	for _, m := range t.members {
		datacenters[m.Datacenter] = true
		if m.down == nil {
			versions[m.Version] = true
			if err := checkVersion(m.Version); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", m, err))
			}
		}
		if len(m.Tokens) == 0 {
			errs = append(errs, fmt.Errorf("%s has no tokens: it is joining, or not a full member; a backup is taken of a ring that is at rest", m))
		}
		if m.down != nil && !s.AllowDownNodes {
			errs = append(errs, fmt.Errorf("%s is down: %w; bring it up, remove it from the ring, or set allow_down_nodes", m, m.down))
		}
	}
	if len(t.up()) == 0 {
		errs = append(errs, errors.New("no node is up"))
	}
	if s.Datacenter != "" && !datacenters[s.Datacenter] {
		errs = append(errs, fmt.Errorf("the cluster has no datacenter %q", s.Datacenter))
	}
	if len(versions) > 1 {
		t.warnings = append(t.warnings, fmt.Sprintf("The nodes run different releases (%s). Such a backup can be restored only where all of their SSTables can be read: finish the upgrade first if you can.", strings.Join(slices.Sorted(maps.Keys(versions)), ", ")))
	}
	if err := t.checkViews(ctx); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func checkVersion(version string) error {
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	a, err1 := strconv.Atoi(major)
	b, err2 := strconv.Atoi(strings.FieldsFunc(minor+"-", func(r rune) bool { return r < '0' || r > '9' })[0])
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("unknown release %q", version)
	}
	if a < 4 || a > 5 || a == 4 && b > 1 || a == 5 && b > 0 {
		return fmt.Errorf("its release is %s; 4.0, 4.1 and 5.0 are known", version)
	}
	return nil
}

// checkViews asks every node whom it knows, what its schema is, and whether somebody is on the move.
func (t *topology) checkViews(ctx context.Context) error {
	restless := make(chan string, 1024)
	silent := make(chan struct{}, len(t.members))
	err := each(ctx, t.up(), func(ctx context.Context, m *member) error {
		rows, err := m.conn.Query(ctx, gossipQuery)
		if err != nil {
			if !isUnauthorized(err) && !isUnknownTable(err) {
				return fmt.Errorf("reading its system_views.gossip_info: %w", err)
			}
			silent <- struct{}{}
		}
		for _, r := range rows {
			if what := movement(cmp.Or(r.text("status_with_port"), r.text("status"))); what != "" {
				select {
				case restless <- fmt.Sprintf("node %s %s", r.text("address"), what):
				default:
				}
			}
		}
		return nil
	})
	close(restless)
	seen := map[string]bool{}
	for what := range restless {
		seen[what] = true
	}
	var errs []error
	for _, what := range slices.Sorted(maps.Keys(seen)) {
		errs = append(errs, fmt.Errorf("%s: wait until it is done; a backup is taken of a ring that is at rest", what))
	}
	if len(silent) > 0 && len(silent) == len(t.up()) {
		t.warnings = append(t.warnings, "Whether a node joins, leaves or moves could not be asked (system_views.gossip_info: Cassandra 4.1 or newer, and SELECT on system_views): none may while a backup is taken.")
	}
	errs = append(errs, err, t.compare(ctx))
	return errors.Join(errs...)
}

// movement says what a gossip status means where it means that a ring is not at rest.
func movement(status string) string {
	state, _, _ := strings.Cut(status, ",")
	switch strings.ToUpper(state) {
	case "BOOT", "BOOT_REPLACE":
		return "is joining"
	case "LEAVING":
		return "is leaving"
	case "MOVING":
		return "is moving"
	case "REMOVING":
		return "is being removed"
	}
	return ""
}

// compare asks every node that is up for its schema's version, its tokens, and whom it knows: all must agree with each other and, once the topology was
// checked, with what was read then.
func (t *topology) compare(ctx context.Context) error {
	members := map[string]bool{}
	for _, m := range t.members {
		members[m.HostID] = true
	}
	up := t.up()
	schemas := make([]string, len(up))
	err := eachAt(ctx, up, func(ctx context.Context, i int, m *member) error {
		// At once: this is done in the pause as well.
		var rows []row
		var farErr error
		var far sync.WaitGroup
		far.Go(func() { rows, farErr = m.conn.Query(ctx, farQuery) })
		r, err := one(ctx, m.conn, nearQuery)
		far.Wait()
		if err != nil {
			return fmt.Errorf("reading its system.local: %w", err)
		}
		if id := r.text("host_id"); id != m.HostID {
			return fmt.Errorf("its host id is %s now", id)
		}
		tokens, err := sortTokens(r.texts("tokens"))
		if err != nil {
			return err
		}
		if !slices.Equal(tokens, m.Tokens) {
			return changedError{"its tokens are not those that the others know of it"}
		}
		if farErr != nil {
			return fmt.Errorf("reading its system.peers_v2: %w", farErr)
		}
		known := map[string]bool{m.HostID: true}
		for _, p := range rows {
			if id := p.text("host_id"); id != "" {
				known[id] = true
				if !members[id] {
					return changedError{"it knows a node that the others do not: " + id}
				}
			}
		}
		for id := range members {
			if !known[id] {
				return changedError{"it does not know node " + id}
			}
		}
		schemas[i] = r.text("schema_version")
		return nil
	})
	if err != nil {
		return err
	}
	for i, v := range schemas {
		if v == "" || v != schemas[0] {
			return changedError{fmt.Sprintf("the nodes do not agree on the schema: %s has version %q, %s has %q", up[0], schemas[0], up[i], v)}
		}
	}
	if t.schema == "" && len(schemas) > 0 {
		t.schema = schemas[0]
	}
	if len(schemas) > 0 && schemas[0] != t.schema {
		return changedError{fmt.Sprintf("the schema changed: its version was %s and is %s", t.schema, schemas[0])}
	}
	return nil
}

// changedError is a definite answer, as opposed to none.
type changedError struct{ what string }

func (e changedError) Error() string { return e.what }

// each calls f for all nodes at once, and returns all errors, each with its node's name.
func each[T fmt.Stringer](ctx context.Context, nodes []T, f func(context.Context, T) error) error {
	return eachAt(ctx, nodes, func(ctx context.Context, _ int, n T) error { return f(ctx, n) })
}

// eachAt is each for whoever puts something in the node's place.
func eachAt[T fmt.Stringer](ctx context.Context, nodes []T, f func(context.Context, int, T) error) error {
	errs := make([]error, len(nodes))
	slots := make(chan struct{}, connecting)
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				errs[i] = fmt.Errorf("%s: %w", n, ctx.Err())
				return
			}
			defer func() { <-slots }()
			if err := f(ctx, i, n); err != nil {
				errs[i] = fmt.Errorf("%s: %w", n, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// list names some of them.
func list(names []string) string {
	if len(names) <= named {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:named], ", "), len(names)-named)
}
