// Package admin is the client of the scalar-admin API, with which a target is paused, unpaused and asked whether it is paused.
//
// A reply that was lost is the dangerous case: a Pause that nobody knows of keeps a service down, and a second Pause that times
// out cancels the first one on servers before mid-2026. So a Pause is sent once, never again by gRPC, and its error says
// what it may have done (engine.PauseError).
package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/admin/adminpb"
)

// Deadlines of the calls. They end a call also when its context has no deadline.
const (
	DialTimeout = 10 * time.Second // Dial: TCP, TLS and HTTP/2 together
	CallTimeout = 5 * time.Second  // CheckPaused and Unpause
	// PauseMargin is how far the deadline of Pause lies beyond the drain timeout. A deadline before it would leave the target
	// paused: the server goes on draining when its client gave up.
	PauseMargin = 10 * time.Second
)

// A peer that is gone without a word is noticed within unackedLimit, by TCP. gRPC's own keep-alive would get the connection
// closed: grpc-java servers accept a PING every 5 minutes unless configured otherwise.
const (
	keepAliveIdle     = 5 * time.Second
	keepAliveInterval = 2 * time.Second
	keepAliveCount    = 3
	unackedLimit      = 10 * time.Second
)

// Dialer makes connections to the targets of one group. It implements engine.Dialer.
type Dialer struct {
	settings Settings
	clock    engine.Clock
}

var _ engine.Dialer = (*Dialer)(nil)

// NewDialer returns an error if the settings are not valid.
func NewDialer(s Settings, c engine.Clock) (*Dialer, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	return &Dialer{settings: s, clock: c}, nil
}

// Dial connects to t.Address, never through a proxy, and returns when the connection is ready for calls, or at the first
// failure, or after DialTimeout. Nothing is called on it. With TLS the certificate must be good for t.Name's host (or the
// settings' server name).
func (d *Dialer) Dial(ctx context.Context, t engine.Target) (engine.AdminConn, error) {
	c := &conn{target: t, clock: d.clock}
	if _, err := netip.ParseAddrPort(t.Address); err != nil {
		return nil, fmt.Errorf("connecting to %s: the address must be IP:port: %w", c.subject(), err)
	}
	name := t.Name
	if name == "" {
		name = t.Address
	}
	host, port, err := net.SplitHostPort(name)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: the name must be host:port: %w", c.subject(), err)
	}
	authority := net.JoinHostPort(strings.TrimSuffix(host, "."), port)
	creds := insecure.NewCredentials()
	if tlsSettings := d.settings.TLS; tlsSettings != nil {
		config, err := tlsSettings.config()
		if err != nil {
			return nil, fmt.Errorf("connecting to %s: %w", c.subject(), err)
		}
		creds = credentials.NewTLS(config) // takes the name that it verifies from the authority
		if tlsSettings.ServerName != "" {
			authority = tlsSettings.ServerName
		}
	}

	// The dialer knows the address; gRPC needs none, and resolves none.
	cc, err := grpc.NewClient("passthrough:///target",
		grpc.WithTransportCredentials(creds),
		grpc.WithAuthority(authority),
		grpc.WithContextDialer(c.dialPeer),
		grpc.WithNoProxy(),
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithIdleTimeout(0),                                                  // an idle connection that gRPC closes would look like a restarted target
		grpc.WithInitialWindowSize(1<<16), grpc.WithInitialConnWindowSize(1<<16), // fixed windows: no PINGs to measure the bandwidth
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: DialTimeout,
		}),
		grpc.WithUserAgent("terraform-provider-scalardb"),
	)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", c.subject(), err)
	}
	c.cc, c.client = cc, adminpb.NewAdminClient(cc)
	if err := c.ready(ctx); err != nil {
		_ = cc.Close()
		return nil, fmt.Errorf("connecting to %s: %w", c.subject(), err)
	}
	return c, nil
}

// conn is one connection; gRPC makes a new one by itself at the first call after it was lost.
type conn struct {
	target engine.Target
	clock  engine.Clock
	cc     *grpc.ClientConn
	client adminpb.AdminClient

	mu    sync.Mutex
	count int    // TCP connections made so far
	wire  string // the newest one
}

var _ engine.AdminConn = (*conn)(nil)

// subject names the target in errors, always with its address.
func (c *conn) subject() string {
	if c.target.Name == "" || c.target.Name == c.target.Address {
		return "target " + c.target.Address
	}
	return "target " + c.target.Name + " (" + c.target.Address + ")"
}

// dialPeer makes the TCP connection. The address is pinned: a reconnect goes to the same peer, and is counted.
func (c *conn) dialPeer(ctx context.Context, _ string) (net.Conn, error) {
	d := net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: keepAliveIdle, Interval: keepAliveInterval, Count: keepAliveCount},
		Control: func(_, _ string, raw syscall.RawConn) error {
			return limitUnacked(raw, unackedLimit)
		},
	}
	nc, err := d.DialContext(ctx, "tcp", c.target.Address)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count++
	c.wire = fmt.Sprintf("connection %s->%s #%d", nc.LocalAddr(), nc.RemoteAddr(), c.count)
	return nc, nil
}

// ready connects and waits until calls can be made.
func (c *conn) ready(ctx context.Context) error {
	ctx, cancel := c.clock.WithTimeout(ctx, DialTimeout)
	defer cancel()
	c.cc.Connect()
	for state := c.cc.GetState(); state != connectivity.Ready; state = c.cc.GetState() {
		if state == connectivity.TransientFailure {
			// gRPC tells why it cannot connect only to a call; this one fails without being sent.
			if _, err := c.client.CheckPaused(ctx, &emptypb.Empty{}); err != nil {
				return c.withHint(explain(err))
			}
			// Connected meanwhile. A call can be answered a moment before the state says so, and Incarnation goes by the state.
		}
		if !c.cc.WaitForStateChange(ctx, state) {
			return c.withHint(fmt.Errorf("no connection within %s: %w", DialTimeout, ctx.Err()))
		}
	}
	return nil
}

// withHint tells a port that is closed from one that answers something else.
func (c *conn) withHint(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count == 0 {
		return err
	}
	return fmt.Errorf("%w (the TCP port is open: check that it is the scalar-admin port, whether it speaks TLS, and whether it wants a client certificate)", err)
}

// Pause sends one Pause. See engine.AdminConn and outcomeOf.
func (c *conn) Pause(ctx context.Context, drain time.Duration) error {
	if drain <= 0 {
		return &engine.PauseError{Outcome: engine.PauseNotSent, Err: fmt.Errorf("%s: the drain timeout is %s, it must be positive", c.subject(), drain)}
	}
	ctx, cancel := c.clock.WithTimeout(ctx, drain+PauseMargin)
	defer cancel()
	ms := int64((drain + time.Millisecond - 1) / time.Millisecond) // rounded up: 0 means the server's default
	sent, err := c.pauseOnce(ctx, &adminpb.PauseRequest{WaitOutstanding: true, MaxPauseWaitTime: &ms})
	if err == nil {
		return nil
	}
	outcome := engine.PauseNotSent
	if sent {
		outcome = outcomeOf(err)
	}
	return &engine.PauseError{Outcome: outcome, Err: fmt.Errorf("%s: %w", c.subject(), explain(err))}
}

// pauseOnce makes the call such that its request leaves this process at most once, and says whether it may have left.
//
// Without a retry policy gRPC still repeats a call "transparently": when its stream could not be made (nothing was sent,
// harmless), and when the peer says that it did not process the stream (RST_STREAM with REFUSED_STREAM, or a GOAWAY below the stream's
// number). The latter trusts every proxy on the way, and after a GOAWAY reaches another process, so it must not happen. The
// generated method cannot prevent it; a stream made by hand can. An error of NewStream means that no stream came to be, so not even its
// header was sent. Then Context commits the call to this one stream (grpc.ClientStream: "subsequent client-side retries are
// disabled") before the request is sent.
func (c *conn) pauseOnce(ctx context.Context, request *adminpb.PauseRequest) (sent bool, err error) {
	stream, err := c.cc.NewStream(ctx, &grpc.StreamDesc{}, adminpb.Admin_Pause_FullMethodName)
	if err != nil {
		return false, err
	}
	_ = stream.Context()
	if err := stream.SendMsg(request); err != nil && !errors.Is(err, io.EOF) { // after io.EOF, RecvMsg has the true error
		return true, err
	}
	return true, stream.RecvMsg(&emptypb.Empty{})
}

// CheckPaused asks whether the target is paused, by whomever.
func (c *conn) CheckPaused(ctx context.Context) (bool, error) {
	ctx, cancel := c.clock.WithTimeout(ctx, CallTimeout)
	defer cancel()
	answer, err := c.client.CheckPaused(ctx, &emptypb.Empty{})
	if err != nil {
		return false, fmt.Errorf("asking %s whether it is paused: %w", c.subject(), explain(err))
	}
	return answer.GetPaused(), nil
}

// Unpause lifts the target's pause, whoever's it is.
func (c *conn) Unpause(ctx context.Context) error {
	ctx, cancel := c.clock.WithTimeout(ctx, CallTimeout)
	defer cancel()
	if _, err := c.client.Unpause(ctx, &emptypb.Empty{}); err != nil {
		return fmt.Errorf("unpausing %s: %w", c.subject(), explain(err))
	}
	return nil
}

// Incarnation names the newest TCP connection, "connection LOCAL->PEER #N", with ", lost" while it is not usable: a target that
// went away must show before the next call makes a new connection.
func (c *conn) Incarnation() string {
	state := c.cc.GetState()
	c.mu.Lock()
	defer c.mu.Unlock()
	if state != connectivity.Ready {
		return c.wire + ", lost"
	}
	return c.wire
}

// Close ends the connection and the calls on it. It may be called again.
func (c *conn) Close() error {
	_ = c.cc.Close() // its only error says that it was closed before
	return nil
}
