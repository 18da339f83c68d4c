package admin_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/admin"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/clock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/adminserver"
)

// fastClock records the timeouts that are asked for, and makes them shorter.
type fastClock struct {
	clock.System
	divisor atomic.Int64 // 0 is as 1

	mu    sync.Mutex
	asked []time.Duration
}

func (c *fastClock) WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	c.mu.Lock()
	c.asked = append(c.asked, d)
	c.mu.Unlock()
	return c.System.WithTimeout(ctx, d/time.Duration(max(1, c.divisor.Load())))
}

func startServer(t *testing.T, o adminserver.Options) *adminserver.Server {
	t.Helper()
	s, err := adminserver.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func newDialer(t *testing.T, s admin.Settings, c engine.Clock) *admin.Dialer {
	t.Helper()
	d, err := admin.NewDialer(s, c)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func dial(t *testing.T, address string, c engine.Clock) engine.AdminConn {
	t.Helper()
	conn, err := newDialer(t, admin.Settings{}, c).Dial(t.Context(), engine.Target{Address: address, Name: address})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func wantPaused(t *testing.T, c engine.AdminConn, want bool) {
	t.Helper()
	if got, err := c.CheckPaused(t.Context()); err != nil || got != want {
		t.Errorf("CheckPaused = %v, %v; want %v", got, err, want)
	}
}

func wantOutcome(t *testing.T, err error, want engine.PauseOutcome) {
	t.Helper()
	var p *engine.PauseError
	if !errors.As(err, &p) || p.Outcome != want {
		t.Errorf("got %v, want outcome %q", err, want)
	}
}

func wantText(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error; want one with %q", parts)
		return
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("%q does not say %q", err, p)
		}
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never came true: %s", what)
		}
	}
}

func TestPauseAndUnpause(t *testing.T) {
	for name, behaviour := range map[string]adminserver.Behaviour{"classic": adminserver.Classic, "modern": adminserver.Modern} {
		t.Run(name, func(t *testing.T) {
			s := startServer(t, adminserver.Options{Behaviour: behaviour})
			c := dial(t, s.Address(), clock.System{})
			wantPaused(t, c, false)
			if err := c.Pause(t.Context(), 30*time.Second); err != nil {
				t.Fatal(err)
			}
			wantPaused(t, c, true)
			if err := c.Unpause(t.Context()); err != nil {
				t.Fatal(err)
			}
			wantPaused(t, c, false)
			if p := s.Calls()[1]; p.Method != adminserver.Pause || !p.WaitOutstanding || p.MaxWaitMS == nil || *p.MaxWaitMS != 30000 {
				t.Errorf("Pause as received: %+v", p)
			}
		})
	}
}

// 0 ms would be the server's default, and a client deadline before it leaves the server paused.
func TestDrainTimeoutIsRoundedUp(t *testing.T) {
	s := startServer(t, adminserver.Options{})
	c := dial(t, s.Address(), clock.System{})
	for drain, want := range map[time.Duration]int64{1: 1, time.Millisecond: 1, time.Millisecond + 1: 2} {
		before := len(s.Calls())
		if err := c.Pause(t.Context(), drain); err != nil {
			t.Fatal(err)
		}
		if got := *s.Calls()[before].MaxWaitMS; got != want {
			t.Errorf("%s was sent as %d ms, want %d", drain, got, want)
		}
	}
	before := len(s.Calls())
	wantOutcome(t, c.Pause(t.Context(), 0), engine.PauseNotSent)
	wantOutcome(t, c.Pause(t.Context(), -1), engine.PauseNotSent)
	if len(s.Calls()) != before {
		t.Error("a Pause without a drain timeout was sent")
	}
}

func TestEveryCallHasADeadline(t *testing.T) {
	s := startServer(t, adminserver.Options{})
	clk := &fastClock{}
	c := dial(t, s.Address(), clk)
	clk.divisor.Store(100)
	thaw := s.Freeze()
	defer thaw()
	ctx := context.Background()
	began := time.Now()
	wantOutcome(t, c.Pause(ctx, 20*time.Second), engine.PauseUnknown)
	_, err := c.CheckPaused(ctx)
	wantText(t, err, "asking target "+s.Address(), "DEADLINE_EXCEEDED")
	wantText(t, c.Unpause(ctx), "unpausing target "+s.Address(), "DEADLINE_EXCEEDED")
	if took := time.Since(began); took > 20*time.Second { // 450 ms, but for a busy machine
		t.Errorf("took %s", took)
	}
	want := []time.Duration{10 * time.Second, 30 * time.Second, 5 * time.Second, 5 * time.Second}
	if !slices.Equal(clk.asked, want) {
		t.Errorf("deadlines of Dial, Pause, CheckPaused, Unpause: %v, want %v", clk.asked, want)
	}
}

func TestOutcomesOfPause(t *testing.T) {
	withReason := func(c codes.Code, reason, domain string) error {
		st, err := status.New(c, "no").WithDetails(&errdetails.ErrorInfo{Reason: reason, Domain: domain})
		if err != nil {
			t.Fatal(err)
		}
		return st.Err()
	}
	tests := []struct {
		name string
		err  error
		want engine.PauseOutcome
	}{
		{"race lost", withReason(codes.Aborted, "GATE_OPEN", "com.scalar.db.cluster.admin"), engine.PauseAborted},
		{"timed out", withReason(codes.FailedPrecondition, "TIMED_OUT", "com.scalar.dl.admin"), engine.PauseRefused},
		{"still paused, Cluster", withReason(codes.FailedPrecondition, "TIMED_OUT_STILL_PAUSED", "com.scalar.db.cluster.admin"), engine.PauseStillPaused},
		{"still paused, ScalarDL", withReason(codes.FailedPrecondition, "TIMED_OUT_STILL_PAUSED", "com.scalar.dl.admin"), engine.PauseStillPaused},
		{"still paused, another code", withReason(codes.Aborted, "TIMED_OUT_STILL_PAUSED", "com.scalar.dl.admin"), engine.PauseStillPaused},
		{"still paused, says somebody else", withReason(codes.FailedPrecondition, "TIMED_OUT_STILL_PAUSED", "example.com"), engine.PauseRefused},
	}
	for code, want := range map[codes.Code]engine.PauseOutcome{
		codes.Canceled:           engine.PauseUnknown,
		codes.Unknown:            engine.PauseUnknown,
		codes.InvalidArgument:    engine.PauseRefused,
		codes.DeadlineExceeded:   engine.PauseUnknown,
		codes.NotFound:           engine.PauseRefused,
		codes.AlreadyExists:      engine.PauseRefused,
		codes.PermissionDenied:   engine.PauseRefused,
		codes.ResourceExhausted:  engine.PauseUnknown,
		codes.FailedPrecondition: engine.PauseRefused,
		codes.Aborted:            engine.PauseAborted,
		codes.OutOfRange:         engine.PauseRefused,
		codes.Unimplemented:      engine.PauseRefused,
		codes.Internal:           engine.PauseUnknown,
		codes.Unavailable:        engine.PauseUnknown,
		codes.DataLoss:           engine.PauseUnknown,
		codes.Unauthenticated:    engine.PauseRefused,
		codes.Code(99):           engine.PauseUnknown,
	} {
		tests = append(tests, struct {
			name string
			err  error
			want engine.PauseOutcome
		}{code.String(), status.Error(code, "no"), want})
	}
	s := startServer(t, adminserver.Options{})
	c := dial(t, s.Address(), clock.System{})
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s.Inject(adminserver.Pause, adminserver.Fault{Error: test.err})
			err := c.Pause(t.Context(), time.Second)
			wantOutcome(t, err, test.want)
			wantText(t, err, "target "+s.Address())
			if s.Count(adminserver.Pause) != i+1 {
				t.Errorf("%d Pauses arrived, want %d: it must be sent once, whatever the error", s.Count(adminserver.Pause), i+1)
			}
		})
	}
}

func TestMessages(t *testing.T) {
	s := startServer(t, adminserver.Options{Behaviour: adminserver.Modern})
	c := dial(t, s.Address(), clock.System{})
	if _, err := s.Begin(); err != nil {
		t.Fatal(err)
	}
	wantText(t, c.Pause(t.Context(), 10*time.Millisecond), "refused", "FAILED_PRECONDITION (TIMED_OUT): ")

	other := grpc.NewServer() // some gRPC server, but no Admin service
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = other.Serve(listener) }()
	t.Cleanup(other.Stop)
	c = dial(t, listener.Addr().String(), clock.System{})
	_, err = c.CheckPaused(t.Context())
	wantText(t, err, listener.Addr().String(), "UNIMPLEMENTED", "wrong port", "scalar.db.cluster.node.admin.port")
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("status.Code(%v) = %s", err, status.Code(err))
	}
}

func TestLostReplies(t *testing.T) {
	t.Run("connection dropped after it was done", func(t *testing.T) {
		s := startServer(t, adminserver.Options{})
		c := dial(t, s.Address(), clock.System{})
		s.Inject(adminserver.Pause, adminserver.Fault{Reply: adminserver.Dropped})
		wantOutcome(t, c.Pause(t.Context(), time.Second), engine.PauseUnknown)
		wantPaused(t, c, true)
		if n := s.Count(adminserver.Pause); n != 1 {
			t.Errorf("%d Pauses arrived", n)
		}
	})
	t.Run("no reply", func(t *testing.T) {
		s := startServer(t, adminserver.Options{})
		clk := &fastClock{}
		c := dial(t, s.Address(), clk)
		s.Inject(adminserver.Pause, adminserver.Fault{Reply: adminserver.Lost})
		clk.divisor.Store(10) // the request still has to arrive
		wantOutcome(t, c.Pause(t.Context(), time.Second), engine.PauseUnknown)
		clk.divisor.Store(1)
		wantPaused(t, c, true)
	})
	t.Run("cancelled", func(t *testing.T) {
		s := startServer(t, adminserver.Options{})
		c := dial(t, s.Address(), clock.System{})
		done, err := s.Begin()
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error)
		go func() { result <- c.Pause(ctx, 5*time.Second) }()
		eventually(t, "the server drains", s.Paused)
		cancel()
		wantOutcome(t, <-result, engine.PauseUnknown)
		done()
		eventually(t, "the server finishes", func() bool { return !s.Calls()[0].Answered.IsZero() })
		wantPaused(t, c, true) // it landed, although its caller was told nothing
	})
	t.Run("process killed", func(t *testing.T) {
		s := startServer(t, adminserver.Options{})
		c := dial(t, s.Address(), clock.System{})
		if _, err := s.Begin(); err != nil {
			t.Fatal(err)
		}
		result := make(chan error)
		go func() { result <- c.Pause(t.Context(), 5*time.Second) }()
		eventually(t, "the server drains", s.Paused)
		s.Down()
		wantOutcome(t, <-result, engine.PauseUnknown)
	})
}

func TestNotSent(t *testing.T) {
	t.Run("server down", func(t *testing.T) {
		s := startServer(t, adminserver.Options{})
		c := dial(t, s.Address(), clock.System{})
		s.Down()
		eventually(t, "the loss is seen", func() bool { return strings.HasSuffix(c.Incarnation(), ", lost") })
		err := c.Pause(t.Context(), time.Second)
		wantOutcome(t, err, engine.PauseNotSent)
		wantText(t, err, s.Address(), "connection refused")
	})
	t.Run("cancelled before", func(t *testing.T) {
		s := startServer(t, adminserver.Options{})
		c := dial(t, s.Address(), clock.System{})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		wantOutcome(t, c.Pause(ctx, time.Second), engine.PauseNotSent)
		wantPaused(t, c, false)
		if n := s.Count(adminserver.Pause); n != 0 {
			t.Errorf("%d Pauses arrived", n)
		}
	})
	t.Run("closed before", func(t *testing.T) {
		s := startServer(t, adminserver.Options{})
		c := dial(t, s.Address(), clock.System{})
		for range 2 {
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
		}
		wantOutcome(t, c.Pause(t.Context(), time.Second), engine.PauseNotSent)
	})
}

func TestReconnectChangesIncarnation(t *testing.T) {
	s := startServer(t, adminserver.Options{})
	c := dial(t, s.Address(), clock.System{})
	first := c.Incarnation()
	if !strings.HasPrefix(first, "connection 127.0.0.1:") || !strings.HasSuffix(first, "->"+s.Address()+" #1") {
		t.Errorf("incarnation %q", first)
	}
	wantPaused(t, c, false)
	if got := c.Incarnation(); got != first {
		t.Errorf("incarnation changed by a call: %q to %q", first, got)
	}
	s.DropConnections()
	eventually(t, "the loss shows without a call", func() bool { return c.Incarnation() != first })
	wantPaused(t, c, false)
	// gRPC hands a connection to calls a moment before its state says that it is ready.
	var second string
	eventually(t, "the second connection shows", func() bool {
		second = c.Incarnation()
		return strings.HasSuffix(second, "->"+s.Address()+" #2")
	})

	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the client reconnects", func() bool {
		_, err := c.CheckPaused(t.Context())
		return err == nil
	})
	if third := c.Incarnation(); third == second || third == first {
		t.Errorf("incarnation after a restart: %q", third)
	}
}

// Unpausing a target that comes back must not wait for gRPC's own back-off, which begins with a second and ends with two minutes.
func TestReconnectsSoon(t *testing.T) {
	s := startServer(t, adminserver.Options{})
	c := dial(t, s.Address(), clock.System{})
	s.Down()
	listener, err := net.Listen("tcp", s.Address())
	if err != nil {
		t.Fatal(err)
	}
	var attempts atomic.Int32
	go func() {
		for {
			nc, err := listener.Accept()
			if err != nil {
				return
			}
			attempts.Add(1)
			_ = nc.Close()
		}
	}()
	eventually(t, "5 attempts to reconnect", func() bool {
		if c.Unpause(t.Context()) == nil {
			t.Fatal("unpaused a server that is down")
		}
		return attempts.Load() >= 5
	})
	_ = listener.Close()
	if err := s.Up(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is unpaused", func() bool { return c.Unpause(t.Context()) == nil })
}

func TestDialErrors(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts in the kernel, answers nothing
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	web := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(web.Close)
	for name, test := range map[string]struct {
		target engine.Target
		want   []string
	}{
		"nobody listens":  {engine.Target{Name: "orders.internal:60051", Address: closed.Addr().String()}, []string{"target orders.internal:60051 (" + closed.Addr().String() + ")", "connection refused"}},
		"no answer":       {engine.Target{Address: silent.Addr().String()}, []string{silent.Addr().String(), "no connection within 10s", "the TCP port is open"}},
		"a web server":    {engine.Target{Address: web.Listener.Addr().String()}, []string{web.Listener.Addr().String(), "the TCP port is open"}},
		"not an address":  {engine.Target{Address: "orders.internal:60051"}, []string{"orders.internal:60051", "IP:port"}},
		"name sans port":  {engine.Target{Name: "orders", Address: "127.0.0.1:1"}, []string{"orders", "host:port"}},
		"nothing at all":  {engine.Target{}, []string{"IP:port"}},
		"address w/ path": {engine.Target{Address: "127.0.0.1:1/x"}, []string{"IP:port"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clk := &fastClock{}
			clk.divisor.Store(3)
			c, err := newDialer(t, admin.Settings{}, clk).Dial(t.Context(), test.target)
			if err == nil {
				_ = c.Close()
			}
			wantText(t, err, test.want...)
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := newDialer(t, admin.Settings{}, clock.System{}).Dial(ctx, engine.Target{Address: silent.Addr().String()})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

func TestAuthorityIsTheTargetsName(t *testing.T) {
	got := make(chan string, 1)
	server := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		md, _ := metadata.FromIncomingContext(stream.Context())
		got <- strings.Join(md.Get(":authority"), ",")
		return status.Error(codes.Unimplemented, "")
	}))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	address := listener.Addr().String()
	for name, want := range map[string]string{
		"":                        address,
		"orders.internal:60051":   "orders.internal:60051",
		"orders.internal.:60051":  "orders.internal:60051",
		"[2001:db8::1]:60051":     "[2001:db8::1]:60051",
		"[fe80::1]:60051":         "[fe80::1]:60051",
		"xn--bcher-kva.example:1": "xn--bcher-kva.example:1",
	} {
		c, err := newDialer(t, admin.Settings{}, clock.System{}).Dial(t.Context(), engine.Target{Name: name, Address: address})
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.CheckPaused(t.Context())
		if authority := <-got; authority != want {
			t.Errorf("target %q: authority %q, want %q", name, authority, want)
		}
		_ = c.Close()
	}
}

func TestNothingIsLeftAfterClose(t *testing.T) {
	s := startServer(t, adminserver.Options{})
	before := runtime.NumGoroutine()
	for range 5 {
		c := dial(t, s.Address(), clock.System{})
		if err := c.Pause(t.Context(), time.Second); err != nil {
			t.Fatal(err)
		}
		wantPaused(t, c, true)
		s.Inject(adminserver.Pause, adminserver.Fault{Reply: adminserver.Dropped})
		wantOutcome(t, c.Pause(t.Context(), time.Second), engine.PauseUnknown)
		wantPaused(t, c, true)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s.Down()
	if _, err := newDialer(t, admin.Settings{}, clock.System{}).Dial(t.Context(), engine.Target{Address: s.Address()}); err == nil {
		t.Fatal("connected to a server that is down")
	}
	eventually(t, "all goroutines of the connections end", func() bool { return runtime.NumGoroutine() <= before })
}

// Close must end a call that waits.
func TestCloseEndsCalls(t *testing.T) {
	s := startServer(t, adminserver.Options{})
	c := dial(t, s.Address(), clock.System{})
	thaw := s.Freeze()
	defer thaw()
	result := make(chan error)
	go func() { result <- c.Pause(context.Background(), 20*time.Second) }()
	eventually(t, "the Pause arrives", func() bool { return s.Count(adminserver.Pause) == 1 })
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	wantOutcome(t, <-result, engine.PauseUnknown)
}
