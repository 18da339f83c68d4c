package target_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/target"
)

var addressTests = []struct {
	text string
	want target.Address
	err  string
}{
	{"10.0.1.10:60051", target.Address{Host: "10.0.1.10", Port: 60051}, ""},
	{"[2001:db8::1]:60051", target.Address{Host: "2001:db8::1", Port: 60051}, ""},
	{"[fe80::1%eth0]:60051", target.Address{Host: "fe80::1%eth0", Port: 60051}, ""},
	{"scalardb:1", target.Address{Host: "scalardb", Port: 1}, ""},
	{"scalardb.prod.internal:65535", target.Address{Host: "scalardb.prod.internal", Port: 65535}, ""},
	{"scalardb.prod.internal.:60053", target.Address{Host: "scalardb.prod.internal.", Port: 60053}, ""},
	{"scalar_db-1.internal:60053", target.Address{Host: "scalar_db-1.internal", Port: 60053}, ""},
	{"3.example:60053", target.Address{Host: "3.example", Port: 60053}, ""},
	{"", target.Address{}, "host:port"},
	{"scalardb", target.Address{}, "host:port"},
	{"10.0.1.10", target.Address{}, "host:port"},
	{":60051", target.Address{}, "host is missing"},
	{".:60051", target.Address{}, "host is missing"},
	{"2001:db8::1", target.Address{}, "[2001:db8::1]:60051"},
	{"2001:db8::1:60051", target.Address{}, "brackets"},
	{"[10.0.1.10]:60051", target.Address{}, "brackets are for IPv6"},
	{"[scalardb]:60051", target.Address{}, "no IPv6 address in the brackets"},
	{"http://scalardb:60051", target.Address{}, "without a scheme"},
	{"scalardb:60051/admin", target.Address{}, "1 to 65535"},
	{"scalardb:0", target.Address{}, "1 to 65535"},
	{"scalardb:65536", target.Address{}, "1 to 65535"},
	{"scalardb:-1", target.Address{}, "1 to 65535"},
	{"scalardb:+1", target.Address{}, "1 to 65535"},
	{"scalardb:060051", target.Address{}, "1 to 65535"},
	{"scalardb:", target.Address{}, "1 to 65535"},
	{"scalardb:grpc", target.Address{}, "1 to 65535"},
	{"scalar db:60051", target.Address{}, `holds ' '`},
	{"skalär.example:60051", target.Address{}, `holds 'ä'`},
	{"a..b:60051", target.Address{}, "1 to 63"},
	{strings.Repeat("a", 64) + ":60051", target.Address{}, "1 to 63"},
	{strings.Repeat("a.", 127) + "a:60051", target.Address{}, "253"},
	{"10.0.1.256:60051", target.Address{}, "IPv4"},
	{"10.0.1:60051", target.Address{}, "IPv4"},
	{"0.0.0.0:60051", target.Address{}, "not the address of one server"},
	{"[::]:60051", target.Address{}, "not the address of one server"},
	{"224.0.0.1:60051", target.Address{}, "not the address of one server"},
}

func TestParseAddress(t *testing.T) {
	for _, test := range addressTests {
		got, err := target.ParseAddress(test.text)
		if test.err == "" {
			if err != nil || got != test.want || got.String() != test.text {
				t.Errorf("%q: %+v (%s), %v", test.text, got, got, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), test.err) || !strings.Contains(err.Error(), fmt.Sprintf("%q", test.text)) {
			t.Errorf("%q: %+v, %v; want an error that names it and says %q", test.text, got, err, test.err)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, test := range addressTests {
		f.Add(test.text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := target.ParseAddress(text)
		if err != nil {
			return
		}
		if a.String() != text {
			t.Errorf("%q reads as %+v, which is %q", text, a, a)
		}
		if host, _, err := net.SplitHostPort(text); err != nil || host != a.Host || a.Port == 0 {
			t.Errorf("%q reads as %+v; package net: %q, %v", text, a, host, err)
		}
	})
}

func TestParseSRV(t *testing.T) {
	for name, good := range map[string]bool{
		"_scalardb._tcp.prod.example.internal":  true,
		"_scalardb._tcp.prod.example.internal.": true,
		"_x._tcp.a":                             true,
		"":                                      false,
		"prod.example.internal":                 false,
		"_scalardb._tcp":                        false,
		"_scalardb._tcp.":                       false,
		"_scalardb.tcp.prod":                    false,
		"scalardb._tcp.prod":                    false,
		"_._tcp.prod":                           false,
		"_scalardb._tcp.prod:60051":             false,
		"_scalardb._tcp..prod":                  false,
	} {
		err := target.ParseSRV(name)
		if (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
		if err != nil && !strings.Contains(err.Error(), fmt.Sprintf("%q", name)) {
			t.Errorf("the error does not name %q: %v", name, err)
		}
	}
}

func FuzzParseSRV(f *testing.F) {
	f.Add("_scalardb._tcp.prod.example.internal")
	f.Add("_a._b.")
	f.Fuzz(func(t *testing.T, name string) {
		if target.ParseSRV(name) == nil && (strings.Count(name, "_") < 2 || strings.ContainsAny(name, ": \n/") || len(name) > 254) {
			t.Errorf("%q is accepted", name)
		}
	})
}

func wantTargets(t *testing.T, r engine.Resolver, want ...engine.Target) {
	t.Helper()
	for range 3 { // the same each time
		got, err := r.Resolve(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("got  %v\nwant %v", got, want)
		}
	}
}

func wantError(t *testing.T, r engine.Resolver, parts ...string) {
	t.Helper()
	got, err := r.Resolve(t.Context())
	if err == nil || got != nil {
		t.Fatalf("got %v, %v; want an error only", got, err)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("%q does not say %q", err, p)
		}
	}
}

func TestStatic(t *testing.T) {
	dns := startDNS(t)
	dns.a("both.test.", "10.0.0.9", "2001:db8::1", "10.0.0.2")
	dns.a("four.test.", "10.0.0.3")
	dns.a("six.test.", "2001:db8::2")
	dns.a("nothing.test.")
	dns.a("zero.test.", "0.0.0.0")
	static := func(addresses ...string) target.Static {
		return target.Static{Group: "main", Addresses: addresses, DNS: dns.resolver()}
	}
	t.Run("addresses are not looked up", func(t *testing.T) {
		r := static("10.0.1.11:60051", "[2001:db8::7]:60051", "10.0.1.10:60051", "[::ffff:10.0.1.12]:60051")
		r.DNS = nil
		wantTargets(t, r,
			engine.Target{Group: "main", Address: "10.0.1.10:60051", Name: "10.0.1.10:60051"},
			engine.Target{Group: "main", Address: "10.0.1.11:60051", Name: "10.0.1.11:60051"},
			engine.Target{Group: "main", Address: "10.0.1.12:60051", Name: "[::ffff:10.0.1.12]:60051"},
			engine.Target{Group: "main", Address: "[2001:db8::7]:60051", Name: "[2001:db8::7]:60051"})
	})
	t.Run("every record of a name", func(t *testing.T) {
		wantTargets(t, static("both.test:60051", "four.test.:60053", "six.test:60051"),
			engine.Target{Group: "main", Address: "10.0.0.2:60051", Name: "both.test:60051"},
			engine.Target{Group: "main", Address: "10.0.0.3:60053", Name: "four.test:60053"},
			engine.Target{Group: "main", Address: "10.0.0.9:60051", Name: "both.test:60051"},
			engine.Target{Group: "main", Address: "[2001:db8::1]:60051", Name: "both.test:60051"},
			engine.Target{Group: "main", Address: "[2001:db8::2]:60051", Name: "six.test:60051"})
	})
	t.Run("no duplicates, the first name wins", func(t *testing.T) {
		wantTargets(t, static("four.test:60051", "four.test:60051", "10.0.0.3:60051", "10.0.0.3:60052"),
			engine.Target{Group: "main", Address: "10.0.0.3:60051", Name: "four.test:60051"},
			engine.Target{Group: "main", Address: "10.0.0.3:60052", Name: "10.0.0.3:60052"})
	})
	t.Run("asked anew each time", func(t *testing.T) {
		dns.a("grows.test.", "10.0.0.1")
		r := static("grows.test:60051")
		wantTargets(t, r, engine.Target{Group: "main", Address: "10.0.0.1:60051", Name: "grows.test:60051"})
		dns.a("grows.test.", "10.0.0.2")
		wantTargets(t, r,
			engine.Target{Group: "main", Address: "10.0.0.1:60051", Name: "grows.test:60051"},
			engine.Target{Group: "main", Address: "10.0.0.2:60051", Name: "grows.test:60051"})
	})
	t.Run("all wrong entries are named", func(t *testing.T) {
		wantError(t, static("four.test:60051", "gone.test:60051", "nothing.test:60052", "scalardb", "zero.test:60053"),
			"gone.test:60051", "nothing.test:60052", `"scalardb"`, "zero.test:60053", "not the address of one server")
	})
	t.Run("no entry", func(t *testing.T) { wantError(t, static(), "no address") })
	// A name of two families must not become one of one family because a name server had a bad moment.
	for _, q := range []question{{"both.test.", dnsmessage.TypeAAAA}, {"both.test.", dnsmessage.TypeA}} {
		t.Run("half an answer, without "+q.kind.String(), func(t *testing.T) {
			dns.mu.Lock()
			dns.fail = map[question]dnsmessage.RCode{q: dnsmessage.RCodeServerFailure}
			dns.mu.Unlock()
			wantError(t, static("both.test:60051"), "both.test:60051")
			dns.mu.Lock()
			clear(dns.fail)
			dns.mu.Unlock()
		})
	}
}

func TestSRV(t *testing.T) {
	dns := startDNS(t)
	srv := func(name string) target.SRV { return target.SRV{Group: "ledger", Name: name, DNS: dns.resolver()} }
	dns.a("a.test.", "10.0.0.1", "2001:db8::1")
	dns.a("b.test.", "10.0.0.2")
	t.Run("every record, whatever its priority", func(t *testing.T) {
		dns.srv("_scalardb._tcp.prod.test.", "b.test.", 60053, 10)
		dns.srv("_scalardb._tcp.prod.test.", "a.test.", 60051, 0)
		dns.srv("_scalardb._tcp.prod.test.", "a.test.", 60052, 0)
		want := []engine.Target{
			{Group: "ledger", Address: "10.0.0.1:60051", Name: "a.test:60051"},
			{Group: "ledger", Address: "10.0.0.1:60052", Name: "a.test:60052"},
			{Group: "ledger", Address: "10.0.0.2:60053", Name: "b.test:60053"},
			{Group: "ledger", Address: "[2001:db8::1]:60051", Name: "a.test:60051"},
			{Group: "ledger", Address: "[2001:db8::1]:60052", Name: "a.test:60052"},
		}
		wantTargets(t, srv("_scalardb._tcp.prod.test"), want...)
		wantTargets(t, srv("_scalardb._tcp.prod.test."), want...)
	})
	t.Run("more records than a datagram holds", func(t *testing.T) {
		var want []engine.Target
		for i := range 60 {
			host := fmt.Sprintf("pod-%02d.big.test", i)
			ip := netip.AddrFrom4([4]byte{10, 1, 0, byte(i)})
			dns.a(host+".", ip.String())
			dns.srv("_scalardb._tcp.big.test.", host+".", 60053, 0)
			want = append(want, engine.Target{Group: "ledger", Address: netip.AddrPortFrom(ip, 60053).String(), Name: host + ":60053"})
		}
		wantTargets(t, srv("_scalardb._tcp.big.test"), want...)
		if dns.tcp == 0 {
			t.Error("TCP was not asked: the answer was not truncated, this shows nothing")
		}
	})
	t.Run("a record that leads nowhere", func(t *testing.T) {
		dns.srv("_scalardb._tcp.half.test.", "a.test.", 60051, 0)
		dns.srv("_scalardb._tcp.half.test.", "gone.test.", 60051, 0)
		wantError(t, srv("_scalardb._tcp.half.test"), "_scalardb._tcp.half.test", "gone.test:60051")
	})
	t.Run("no port", func(t *testing.T) {
		dns.srv("_scalardb._tcp.port.test.", "a.test.", 0, 0)
		wantError(t, srv("_scalardb._tcp.port.test"), "_scalardb._tcp.port.test", "a.test", "no port")
	})
	t.Run("not available", func(t *testing.T) {
		dns.srv("_scalardb._tcp.off.test.", ".", 60051, 0)
		wantError(t, srv("_scalardb._tcp.off.test"), "_scalardb._tcp.off.test", "not available")
	})
	t.Run("no such name", func(t *testing.T) { wantError(t, srv("_scalardb._tcp.gone.test"), "_scalardb._tcp.gone.test") })
	t.Run("not the name of an SRV record", func(t *testing.T) { wantError(t, srv("a.test"), `"a.test"`, "_service._proto.domain") })
	t.Run("a target that is no name", func(t *testing.T) {
		dns.srv("_scalardb._tcp.odd.test.", "a.test.", 60051, 0)
		dns.srv("_scalardb._tcp.odd.test.", "a b.test.", 60051, 0)
		wantError(t, srv("_scalardb._tcp.odd.test"), "_scalardb._tcp.odd.test", "invalid")
	})
}

func TestResolveEndsWithItsContext(t *testing.T) {
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	dns := &dnsServer{address: silent.LocalAddr().String()}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (target.Static{Addresses: []string{"a.test:1"}, DNS: dns.resolver()}).Resolve(ctx); err == nil {
		t.Error("resolved with a cancelled context")
	}
}

func TestDNSAsksStrictly(t *testing.T) {
	r, ok := target.DNS().(*net.Resolver)
	if !ok || !r.PreferGo || !r.StrictErrors {
		t.Errorf("%+v: it may answer from a cache, or half", r)
	}
}
