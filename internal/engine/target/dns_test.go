package target_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// dnsServer is a name server of a test, on UDP and TCP of one port.
type dnsServer struct {
	address string
	mu      sync.Mutex
	records map[string][]dnsmessage.ResourceBody // by name with the dot, then by the type that they have
	fail    map[question]dnsmessage.RCode
	asked   map[question]int
	tcp     int // questions over TCP
}

type question struct {
	name string
	kind dnsmessage.Type
}

func startDNS(t *testing.T) *dnsServer {
	t.Helper()
	udp, tcp := listenBoth(t)
	t.Cleanup(func() { _, _ = udp.Close(), tcp.Close() })
	s := &dnsServer{address: udp.LocalAddr().String(), records: map[string][]dnsmessage.ResourceBody{}, fail: map[question]dnsmessage.RCode{}, asked: map[question]int{}}
	go func() {
		buffer := make([]byte, 4096)
		for {
			n, peer, err := udp.ReadFrom(buffer)
			if err != nil {
				return
			}
			if answer := s.answer(buffer[:n], false); answer != nil {
				_, _ = udp.WriteTo(answer, peer)
			}
		}
	}()
	go func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				var size [2]byte
				if _, err := io.ReadFull(c, size[:]); err != nil {
					return
				}
				query := make([]byte, binary.BigEndian.Uint16(size[:]))
				if _, err := io.ReadFull(c, query); err != nil {
					return
				}
				answer := s.answer(query, true)
				_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...))
			}()
		}
	}()
	return s
}

// listenBoth finds a port that is free in both protocols.
func listenBoth(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	var err error
	for range 20 {
		var tcp net.Listener
		if tcp, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			break
		}
		var udp net.PacketConn
		if udp, err = net.ListenPacket("udp", tcp.Addr().String()); err == nil {
			return udp, tcp
		}
		_ = tcp.Close()
	}
	t.Fatal(err)
	return nil, nil
}

// resolver asks this server only, as DNS() asks those of the machine.
func (s *dnsServer) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, StrictErrors: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, s.address)
	}}
}

// a adds A and AAAA records.
func (s *dnsServer) a(name string, ips ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, text := range ips {
		if ip := netip.MustParseAddr(text); ip.Is4() {
			s.records[name] = append(s.records[name], &dnsmessage.AResource{A: ip.As4()})
		} else {
			s.records[name] = append(s.records[name], &dnsmessage.AAAAResource{AAAA: ip.As16()})
		}
	}
}

func (s *dnsServer) srv(name, host string, port, priority uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records[name] = append(s.records[name], &dnsmessage.SRVResource{Target: dnsmessage.MustNewName(host), Port: port, Priority: priority, Weight: 1})
}

func kind(b dnsmessage.ResourceBody) dnsmessage.Type {
	switch b.(type) {
	case *dnsmessage.AResource:
		return dnsmessage.TypeA
	case *dnsmessage.AAAAResource:
		return dnsmessage.TypeAAAA
	default:
		return dnsmessage.TypeSRV
	}
}

func (s *dnsServer) answer(query []byte, tcp bool) []byte {
	var m dnsmessage.Message
	if m.Unpack(query) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := question{strings.ToLower(m.Questions[0].Name.String()), m.Questions[0].Type}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked[q]++
	if tcp {
		s.tcp++
	}
	m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
	records, known := s.records[q.name]
	switch code, fails := s.fail[q]; {
	case fails:
		m.RCode = code
	case !known:
		m.RCode = dnsmessage.RCodeNameError
	}
	for _, b := range records {
		if m.RCode == dnsmessage.RCodeSuccess && kind(b) == q.kind {
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Type: q.kind, Class: dnsmessage.ClassINET}, Body: b})
		}
	}
	answer, err := m.Pack()
	if err != nil {
		panic(err)
	}
	if !tcp && len(answer) > 512 {
		m.Truncated, m.Answers = true, nil
		if answer, err = m.Pack(); err != nil {
			panic(err)
		}
	}
	return answer
}
