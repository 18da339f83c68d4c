// Package remote reaches the machines of a Cassandra cluster over SSH: their files (SFTP), their shell, and through a tunnel whatever listens there.
//
// There is one connection per machine, made by the first that asks and shared by all that ask later, and it ends when the last of them is closed. A server
// that stops answering is noticed after KeepAliveInterval + KeepAliveTimeout at most. A connection that ended is made anew by the next call that needs it.
//
// A server's key has to be in known_hosts; nothing is ever added there. Every call ends with its context. What a call that was cut off asked for may still be
// carried out by the server.
package remote

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
)

const (
	// HandshakeTimeout ends the making of one connection, from the first packet to the login, when its context does not end it earlier.
	HandshakeTimeout = 30 * time.Second
	// KeepAliveInterval lies between the questions that show that a server is still there.
	KeepAliveInterval = 15 * time.Second
	// KeepAliveTimeout is how long an answer to them may take.
	KeepAliveTimeout = 15 * time.Second
	// bastionHandshakes are made at once with one bastion: sshd drops some when there are more than ten (MaxStartups).
	bastionHandshakes = 4
)

// Options of Hosts.
type Options struct {
	Clock  Clock
	Getenv func(string) string // os.Getenv, or a test's: HOME, SSH_AUTH_SOCK
}

// Hosts are the machines of a cluster.
type Hosts struct {
	settings Settings
	options  Options
	bastion  chan struct{} // a token for each handshake through the bastion

	mu      sync.Mutex
	entries map[target]*entry
}

// entry is the connection to one machine, which several share.
type entry struct {
	users int           // guarded by Hosts.mu
	turn  chan struct{} // holds one token; who has it may use link
	link  *link         // nil: not connected yet
}

// New checks the settings and connects to nothing.
func New(s Settings, o Options) (*Hosts, error) {
	if o.Clock == nil || o.Getenv == nil {
		return nil, errors.New("remote: the clock or the environment is missing")
	}
	if err := s.Validate(); err != nil {
		return nil, err
	}
	return &Hosts{settings: s, options: o, bastion: make(chan struct{}, bastionHandshakes), entries: map[target]*entry{}}, nil
}

// Host is one user's share of the connection to one machine. It is safe for concurrent use.
type Host struct {
	hosts  *Hosts
	target target
	entry  *entry
	close  sync.Once
}

// Open connects to a node's machine, or shares the connection that is there.
func (h *Hosts) Open(ctx context.Context, n node.Node) (*Host, error) {
	t := h.settings.target(n)
	h.mu.Lock()
	e := h.entries[t]
	if e == nil {
		e = &entry{turn: make(chan struct{}, 1)}
		e.turn <- struct{}{}
		h.entries[t] = e
	}
	e.users++
	h.mu.Unlock()
	host := &Host{hosts: h, target: t, entry: e}
	if _, err := host.connected(ctx); err != nil {
		_ = host.Close()
		return nil, err
	}
	return host, nil
}

// Close gives the share back. The connection ends with the last one.
func (h *Host) Close() error {
	h.close.Do(func() {
		h.hosts.mu.Lock()
		h.entry.users--
		last := h.entry.users == 0
		if last && h.hosts.entries[h.target] == h.entry {
			delete(h.hosts.entries, h.target)
		}
		h.hosts.mu.Unlock()
		if !last {
			return
		}
		<-h.entry.turn // never given back: nobody uses it any more
		if h.entry.link != nil {
			h.entry.link.end(errClosed)
		}
	})
	return nil
}

var errClosed = errors.New("the connection was closed")

// String is the machine, for messages.
func (h *Host) String() string { return h.target.String() }

// connected returns the connection, made anew if it ended.
func (h *Host) connected(ctx context.Context) (*link, error) {
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: %w", h.target, context.Cause(ctx))
	case <-h.entry.turn:
	}
	defer func() { h.entry.turn <- struct{}{} }()
	if h.entry.link != nil && h.entry.link.err() == nil {
		return h.entry.link, nil
	}
	l, err := h.hosts.connect(ctx, h.target)
	if err != nil {
		return nil, err
	}
	h.entry.link = l
	return l, nil
}

// DialContext opens a connection from the machine to an address that it can reach, "127.0.0.1:7199": what it carries goes through the tunnel.
func (h *Host) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	l, err := h.connected(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := await(ctx, l, func() (net.Conn, error) { return l.client.Dial(network, address) }, func(c net.Conn) { _ = c.Close() })
	if err != nil {
		var refused *ssh.OpenChannelError
		if errors.As(err, &refused) {
			return nil, fmt.Errorf("%s: connecting from there to %s: %s (%s); does its sshd have AllowTcpForwarding?", h.target, address, refused.Message, refused.Reason)
		}
		return nil, fmt.Errorf("%s: connecting from there to %s: %w", h.target, address, err)
	}
	return conn, nil
}
