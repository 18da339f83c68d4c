package sidecar

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/rest"
)

// settings are those of the node that the Sidecar speaks for.
type settings struct {
	Address string   `json:"rpcAddress"`
	Tokens  []string `json:"tokens"` // absent in old releases
}

// gossip is what that node knows of all, by address ("/10.0.0.1:7000").
type gossip map[string]struct {
	HostID        string `json:"hostId"`
	RPCAddress    string `json:"rpcAddress"`
	NativeAddress string `json:"nativeAddressAndPort"`
}

// prove compares tokens, for the Sidecar does not tell its node's host id: of all the cluster's nodes only that one has them. Where it doesn't tell tokens, the
// address for CQL is that which the node with the host id has in gossip.
func (o *Operator) prove(ctx context.Context, n node.Node) error {
	a, err := o.do(ctx, cassandra("settings"))
	if err != nil {
		return fmt.Errorf("reading the node's settings: %w", err)
	}
	var s settings
	if err := a.JSON(&s); err != nil {
		return fmt.Errorf("reading the node's settings: %w", err)
	}
	proved := false
	if len(s.Tokens) > 0 && len(n.Tokens) > 0 {
		if !slices.Equal(slices.Sorted(slices.Values(s.Tokens)), slices.Sorted(slices.Values(n.Tokens))) {
			return fmt.Errorf("the url leads to the Sidecar of another node (%s; its tokens are not those of %s, %s): put {address} into it, "+
				"or what else tells the nodes apart", rest.Excerpt([]byte(s.Address)), n.HostID, n.Address)
		}
		proved = true
	}
	a, err = o.do(ctx, cassandra("gossip"))
	switch {
	case is(err, http.StatusForbidden) && proved:
	case err != nil:
		return fmt.Errorf("reading the cluster's host ids: %w", err)
	default:
		var all gossip
		if err := a.JSON(&all); err != nil {
			return fmt.Errorf("reading the cluster's host ids: %w", err)
		}
		if err := s.match(all, n, proved); err != nil {
			return err
		}
	}
	return o.client.Keep(ctx, parallel, rest.Call{Method: http.MethodGet, Path: []string{"api", "v1", "__health"}})
}

// match finds the node by its host id, and, unless it is proved already, compares the address for CQL.
func (s settings) match(all gossip, n node.Node, proved bool) error {
	for _, state := range all {
		if !strings.EqualFold(state.HostID, n.HostID) {
			continue
		}
		if proved || same(s.Address, state.NativeAddress) || same(s.Address, state.RPCAddress) {
			return nil
		}
		return fmt.Errorf("the url leads to the Sidecar of the node with the address %s, not to that of %s (%s): put {address} into it, "+
			"or what else tells the nodes apart", rest.Excerpt([]byte(s.Address)), n.HostID, n.Address)
	}
	return fmt.Errorf("the url leads to a Sidecar whose cluster has no node %s (%s)", n.HostID, n.Address)
}

// same compares addresses, the second one perhaps with a port.
func same(a, b string) bool {
	if host, _, err := net.SplitHostPort(b); err == nil {
		b = host
	}
	left, err := netip.ParseAddr(strings.TrimPrefix(a, "/"))
	if err != nil {
		return false
	}
	right, err := netip.ParseAddr(strings.TrimPrefix(b, "/"))
	return err == nil && !left.IsUnspecified() && left.Unmap() == right.Unmap()
}
