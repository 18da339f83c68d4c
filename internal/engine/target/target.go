// Package target has the resolvers: what turns one target group into the processes to pause.
//
// A target that is missed keeps writing while a backup is taken, so a resolver returns every server or an error, never a part.
// One that asks Kubernetes for pods comes here later, as kubernetes.go: it alone knows a pod's UID and restart count, and fills
// Target.Incarnation; the resolvers of this file leave it empty, and the connection's stands for it.
package target

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

// Lookup is what the resolvers need of DNS; *net.Resolver has it. It must not return a part without an error: see DNS.
type Lookup interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
}

// DNS asks the name servers of this machine anew each time, around the C library: that may answer from a cache (nscd), and is content
// when one of the two questions, A and AAAA, is answered, so that servers which only the other one names would be missed.
func DNS() Lookup { return &net.Resolver{PreferGo: true, StrictErrors: true} }

// Address is a "host:port" as a user writes it.
type Address struct {
	Host string // a DNS name, or an IP address without brackets
	Port uint16
}

// String is what ParseAddress reads.
func (a Address) String() string { return net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port))) }

// ParseAddress reads "host:port", "10.0.1.10:60051" or "[2001:db8::1]:60051". It looks nothing up. The port is required.
func ParseAddress(s string) (Address, error) {
	wrong := func(why string) (Address, error) {
		return Address{}, fmt.Errorf("reading the address %q: %s", s, why)
	}
	if strings.Contains(s, "://") {
		return wrong("it must be host:port, without a scheme")
	}
	host, portText, err := net.SplitHostPort(s)
	if err != nil {
		if strings.Count(s, ":") > 1 && !strings.Contains(s, "[") {
			return wrong("an IPv6 address must stand in brackets, as in [2001:db8::1]:60051")
		}
		return wrong("it must be host:port")
	}
	port, err := parsePort(portText)
	if err != nil {
		return wrong(err.Error())
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if why := unusable(ip); why != "" {
			return wrong(why)
		}
		if ip.Is4() == strings.HasPrefix(s, "[") {
			return wrong("brackets are for IPv6 addresses") // SplitHostPort would take them around anything
		}
		return Address{Host: host, Port: port}, nil
	}
	if strings.HasPrefix(s, "[") {
		return wrong("there is no IPv6 address in the brackets")
	}
	if err := checkName(host); err != nil {
		return wrong(err.Error())
	}
	return Address{Host: host, Port: port}, nil
}

// ParseSRV checks the name of an SRV record, such as "_scalardb._tcp.prod.example.internal". It looks nothing up.
func ParseSRV(name string) error {
	labels := strings.SplitN(name, ".", 3)
	if len(labels) < 3 || len(labels[0]) < 2 || labels[0][0] != '_' || len(labels[1]) < 2 || labels[1][0] != '_' || labels[2] == "" {
		return fmt.Errorf("reading the SRV name %q: it must be _service._proto.domain, such as _scalardb._tcp.prod.example.internal", name)
	}
	if err := checkName(name); err != nil {
		return fmt.Errorf("reading the SRV name %q: %w", name, err)
	}
	return nil
}

func parsePort(s string) (uint16, error) {
	port, err := strconv.ParseUint(s, 10, 16)
	if err != nil || port == 0 || s[0] == '0' || s[0] == '+' {
		return 0, fmt.Errorf("the port %q must be a number from 1 to 65535", s)
	}
	return uint16(port), nil
}

// checkName accepts what DNS can hold and people use: letters, digits, "-" and "_", with or without the dot of the root.
func checkName(name string) error {
	n := strings.TrimSuffix(name, ".")
	if n == "" {
		return errors.New("the host is missing")
	}
	if len(n) > 253 {
		return errors.New("the name is longer than 253 characters")
	}
	labels := strings.Split(n, ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 {
			return fmt.Errorf("each part of the name must have 1 to 63 characters, %q has %d", l, len(l))
		}
		for _, c := range l {
			if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return fmt.Errorf("the name holds %q", c)
			}
		}
	}
	if last := labels[len(labels)-1]; strings.Trim(last, "0123456789") == "" {
		return errors.New("it looks like an IPv4 address, but is none")
	}
	return nil
}

// unusable says why no server can be at an address, or "".
func unusable(ip netip.Addr) string {
	if ip.IsUnspecified() || ip.IsMulticast() {
		return ip.String() + " is not the address of one server"
	}
	return ""
}

// Static resolves a list of addresses. Every A and AAAA record of a name is a target.
type Static struct {
	Group     string
	Addresses []string // as ParseAddress reads them
	DNS       Lookup
}

var _ engine.Resolver = Static{}

// Resolve returns the targets in the order of their addresses, or the errors of all entries that have one.
func (s Static) Resolve(ctx context.Context) ([]engine.Target, error) {
	if len(s.Addresses) == 0 {
		return nil, errors.New("resolving the targets: there is no address")
	}
	var entries []Address
	var errs []error
	for _, text := range s.Addresses {
		a, err := ParseAddress(text)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		entries = append(entries, a)
	}
	targets, err := resolve(ctx, s.DNS, s.Group, entries)
	if err := errors.Join(append(errs, err)...); err != nil {
		return nil, err
	}
	return targets, nil
}

// SRV resolves the name of a DNS SRV record. Every address of every record is a target; priorities and weights mean nothing here.
type SRV struct {
	Group string
	Name  string // as ParseSRV checks it
	DNS   Lookup
}

var _ engine.Resolver = SRV{}

// Resolve returns the targets in the order of their addresses, or the errors of all records that have one.
func (s SRV) Resolve(ctx context.Context) ([]engine.Target, error) {
	if err := ParseSRV(s.Name); err != nil {
		return nil, err
	}
	// With an error, net.Resolver may still return the records that it likes.
	_, records, err := s.DNS.LookupSRV(ctx, "", "", s.Name)
	if err != nil {
		return nil, fmt.Errorf("resolving the SRV name %s: %w", s.Name, err)
	}
	var entries []Address
	var errs []error
	for _, r := range records {
		a := Address{Host: strings.TrimSuffix(r.Target, "."), Port: r.Port}
		switch {
		case a.Host == "":
			errs = append(errs, fmt.Errorf("resolving the SRV name %s: its record says that the service is not available", s.Name))
		case a.Port == 0:
			errs = append(errs, fmt.Errorf("resolving the SRV name %s: its record for %s names no port", s.Name, a.Host))
		default:
			entries = append(entries, a)
		}
	}
	if len(records) == 0 {
		errs = append(errs, fmt.Errorf("resolving the SRV name %s: it has no record", s.Name))
	}
	targets, err := resolve(ctx, s.DNS, s.Group, entries)
	if err != nil {
		err = fmt.Errorf("resolving the SRV name %s: %w", s.Name, err)
	}
	if err := errors.Join(append(errs, err)...); err != nil {
		return nil, err
	}
	return targets, nil
}

// resolve turns entries into targets: every address once, under the name of the first entry that led to it, sorted.
func resolve(ctx context.Context, dns Lookup, group string, entries []Address) ([]engine.Target, error) {
	ips := make([][]netip.Addr, len(entries))
	errs := make([]error, len(entries))
	var wg sync.WaitGroup
	for i, e := range entries {
		wg.Go(func() { ips[i], errs[i] = addresses(ctx, dns, e.Host) })
	}
	wg.Wait()
	names := map[netip.AddrPort]string{}
	for i, e := range entries {
		if errs[i] != nil {
			errs[i] = fmt.Errorf("resolving %s: %w", e, errs[i])
			continue
		}
		name := Address{Host: strings.TrimSuffix(e.Host, "."), Port: e.Port}.String()
		for _, ip := range ips[i] {
			if peer := netip.AddrPortFrom(ip, e.Port); names[peer] == "" {
				names[peer] = name
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	peers := make([]netip.AddrPort, 0, len(names))
	for p := range names {
		peers = append(peers, p)
	}
	slices.SortFunc(peers, netip.AddrPort.Compare)
	targets := make([]engine.Target, len(peers))
	for i, p := range peers {
		targets[i] = engine.Target{Group: group, Address: p.String(), Name: names[p]}
	}
	return targets, nil
}

// addresses is every address of a host. A and AAAA are asked for in one lookup: asked apart, a name that has only one of them would be
// searched for in the domains of resolv.conf as well, and other people's servers found there.
func addresses(ctx context.Context, dns Lookup, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip.Unmap()}, nil
	}
	ips, err := dns.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	if len(ips) == 0 {
		return nil, errors.New("it has no address")
	}
	for i, ip := range ips {
		ips[i] = ip.Unmap()
		if why := unusable(ips[i]); why != "" {
			return nil, errors.New(why)
		}
	}
	return ips, nil
}
