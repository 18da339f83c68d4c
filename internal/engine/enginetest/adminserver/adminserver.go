// Package adminserver is a stand-in of a ScalarDB server for tests and the sandbox: the real scalar-admin service, over real
// gRPC on the loopback, in front of a gate that transactions of the test process pass through (Begin).
//
// It is strict: it does what the real servers were seen to do, also where that is unpleasant (see Classic and Modern), and
// faults can be injected into every call.
//
// What it does not show: transactions themselves (Begin only counts them; nothing is prepared, committed or recovered); other
// processes and embedded clients on the same database, which no gate stops, and DDL, which the gate of a real server does not
// stop either; the back-off of ScalarDB's Java clients, for which a pause feels longer than it is; the times of a JVM; servers
// that hold requests back while paused instead of refusing them (ScalarDL); authentication; health and reflection; the races
// inside the servers before mid-2026, other than those that Classic names and faults imitate (NoAct with Normal is a
// server that reports a pause that is none).
package adminserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/admin/adminpb"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/clock"
)

// Options of a Server. The zero value is a plaintext Classic server on a free port.
type Options struct {
	Behaviour   Behaviour
	Listen      string        // "IP:port"; empty: a free port of 127.0.0.1
	TLS         *tls.Config   // nil: plaintext
	DefaultWait time.Duration // how long a Pause that names no time drains; 0: 30 s
	Clock       engine.Clock  // nil: the machine's
}

// Method names a call of the API.
type Method string

// The calls of the API.
const (
	Pause       Method = "Pause"
	Unpause     Method = "Unpause"
	CheckPaused Method = "CheckPaused"
)

// Reply says what becomes of an answer.
type Reply int

// Replies.
const (
	Normal  Reply = iota
	Lost          // it never comes; the connection stays
	Dropped       // the connection is closed instead
)

// Fault befalls one call. In this order: wait (Delay, Hold), act (unless Error or NoAct), wait (ReplyDelay, ReplyHold), Reply.
// A server does not notice that its client gave up: it acts, and waits, all the same.
type Fault struct {
	Delay      time.Duration   // before acting
	Hold       <-chan struct{} // before acting, until it is closed
	Error      error           // a status to answer with instead of acting
	NoAct      bool            // nothing is done; with Normal it is answered as if it had been
	ReplyDelay time.Duration   // after acting
	ReplyHold  <-chan struct{} // after acting, until it is closed
	Reply      Reply
}

// Call is the record of one call.
type Call struct {
	Method          Method
	Peer            string // of the client
	Received        time.Time
	Answered        time.Time // zero: not yet, or never
	WaitOutstanding bool
	MaxWaitMS       *int64 // nil: not set
	Code            codes.Code
	Paused          bool // the answer of CheckPaused
}

// Interval is one time during which the gate was closed.
type Interval struct {
	From    time.Time // new transactions are refused from here
	Drained time.Time // nothing is in flight from here; zero: never
	Until   time.Time // zero: it still is closed
	Ended   string    // what opened it: "unpause", "timeout" or "restart"
}

// Server is one stand-in. Its methods may be called from several goroutines.
type Server struct {
	options Options
	clock   engine.Clock
	address string

	mu        sync.Mutex
	life      *life // nil: down
	calls     []*Call
	intervals []*Interval
	faults    map[Method][]Fault
	frozen    chan struct{} // closed when thawed; nil: not frozen
	conns     map[string]net.Conn
}

// life is one life of the process: a restart forgets the gate.
type life struct {
	ctx    context.Context
	cancel context.CancelFunc
	grpc   *grpc.Server
	gate   *gate
	served chan struct{}
}

// Start starts a server. Close ends it.
func Start(o Options) (*Server, error) {
	s := &Server{options: o, clock: o.Clock, faults: map[Method][]Fault{}, conns: map[string]net.Conn{}}
	if s.clock == nil {
		s.clock = clock.System{}
	}
	if s.options.DefaultWait == 0 {
		s.options.DefaultWait = 30 * time.Second
	}
	s.address = o.Listen
	if s.address == "" {
		s.address = "127.0.0.1:0"
	}
	if err := s.Up(); err != nil {
		return nil, err
	}
	return s, nil
}

// Up starts the process again, at the same address and unpaused. It is an error if it is up.
func (s *Server) Up() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life != nil {
		return errors.New("starting the admin server: it is up already")
	}
	listener, err := net.Listen("tcp", s.address)
	if err != nil {
		return fmt.Errorf("starting the admin server: %w", err)
	}
	s.address = listener.Addr().String() // a restart keeps the port
	l := &life{served: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.gate = &gate{ctx: l.ctx, clock: s.clock, open: true, changed: make(chan struct{}), record: s.recordGate}
	options := []grpc.ServerOption{grpc.UnaryInterceptor(func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		return s.intercept(ctx, l, request, info, handler)
	})}
	if s.options.TLS != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(s.options.TLS)))
	}
	l.grpc = grpc.NewServer(options...)
	adminpb.RegisterAdminServer(l.grpc, &service{gate: l.gate, behaviour: s.options.Behaviour, defaultWait: s.options.DefaultWait})
	s.life = l
	go func() {
		defer close(l.served)
		_ = l.grpc.Serve(&tracked{Listener: listener, server: s})
	}()
	return nil
}

// Down kills the process: calls get no answer, connections break, what was in flight is gone. It may be down already.
func (s *Server) Down() {
	s.mu.Lock()
	l := s.life
	s.life = nil
	conns := s.conns
	s.conns = map[string]net.Conn{}
	s.mu.Unlock()
	if l == nil {
		return
	}
	for _, c := range conns {
		_ = c.Close() // before the calls are let go: nobody gets an answer from a process that was killed
	}
	l.gate.die()
	l.cancel()
	l.grpc.Stop()
	<-l.served
}

// Restart kills the process and starts it again.
func (s *Server) Restart() error {
	s.Down()
	return s.Up()
}

// Close ends the server for good.
func (s *Server) Close() { s.Down() }

// Address is "IP:port".
func (s *Server) Address() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.address
}

// Begin begins a transaction of the workload; done ends it, and may be called again. It is refused as a real server does
// it: UNAVAILABLE, both while the gate is closed and while the process is down.
func (s *Server) Begin() (done func(), err error) {
	s.mu.Lock()
	l := s.life
	s.mu.Unlock()
	if l == nil {
		return nil, status.Error(codes.Unavailable, "connection refused")
	}
	if !l.gate.enter() {
		return nil, status.Error(codes.Unavailable, "the server is paused")
	}
	return sync.OnceFunc(l.gate.leave), nil
}

// Paused says whether the gate is closed: paused or draining. A server that is down is not paused.
func (s *Server) Paused() bool {
	s.mu.Lock()
	l := s.life
	s.mu.Unlock()
	return l != nil && l.gate.closed()
}

// InFlight is the number of transactions begun and not done.
func (s *Server) InFlight() int {
	s.mu.Lock()
	l := s.life
	s.mu.Unlock()
	if l == nil {
		return 0
	}
	return l.gate.outstanding()
}

// Inject lets faults befall the next calls of a method, one each, in this order.
func (s *Server) Inject(m Method, faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[m] = append(s.faults[m], faults...)
}

// FailNext answers the next n calls of a method with a status, without acting.
func (s *Server) FailNext(m Method, n int, code codes.Code) {
	s.Inject(m, slices.Repeat([]Fault{{Error: status.Error(code, "injected")}}, n)...)
}

// ClearFaults forgets the faults that have not befallen a call yet.
func (s *Server) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.faults)
}

// Freeze holds every call that comes, as a stopped process does: connections stay, and are accepted, but nothing is answered. Begin
// is not held. Thaw lets the calls go on; it may be called again.
func (s *Server) Freeze() (thaw func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	frozen := make(chan struct{})
	s.frozen = frozen
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		close(frozen)
		if s.frozen == frozen {
			s.frozen = nil
		}
	})
}

// DropConnections closes every connection of a client. The process goes on, paused if it was; new ones are accepted.
func (s *Server) DropConnections() {
	s.mu.Lock()
	conns := s.conns
	s.conns = map[string]net.Conn{}
	s.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
}

// Calls are the records of all calls, in the order of their arrival.
func (s *Server) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := make([]Call, len(s.calls))
	for i, c := range s.calls {
		calls[i] = *c
	}
	return calls
}

// Count is the number of calls of a method.
func (s *Server) Count(m Method) int {
	n := 0
	for _, c := range s.Calls() {
		if c.Method == m {
			n++
		}
	}
	return n
}

// Intervals are all times during which the gate was closed, in order.
func (s *Server) Intervals() []Interval {
	s.mu.Lock()
	defer s.mu.Unlock()
	intervals := make([]Interval, len(s.intervals))
	for i, v := range s.intervals {
		intervals[i] = *v
	}
	return intervals
}

// intercept records a call and lets its fault befall it.
func (s *Server) intercept(ctx context.Context, l *life, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	call, fault, frozen := s.received(ctx, request, info)
	dead := status.Error(codes.Unavailable, "the server is down")
	wait := func(d time.Duration, hold <-chan struct{}) bool {
		if d > 0 && s.clock.Sleep(l.ctx, d) != nil {
			return false
		}
		if hold == nil {
			return true
		}
		select {
		case <-hold:
			return true
		case <-l.ctx.Done():
			return false
		}
	}
	if !wait(0, frozen) || !wait(fault.Delay, fault.Hold) {
		return nil, dead
	}
	var answer any
	err := fault.Error
	switch {
	case err != nil:
	case fault.NoAct:
		answer = nothingDone(call.Method)
	default:
		answer, err = handler(ctx, request)
	}
	if !wait(fault.ReplyDelay, fault.ReplyHold) {
		return nil, dead
	}
	switch fault.Reply {
	case Lost:
		<-l.ctx.Done()
		return nil, dead
	case Dropped:
		s.drop(call.Peer)
		return nil, dead
	}
	s.answered(call, answer, err)
	return answer, err
}

func (s *Server) received(ctx context.Context, request any, info *grpc.UnaryServerInfo) (*Call, Fault, <-chan struct{}) {
	call := &Call{Method: method(info.FullMethod), Received: s.clock.Now()}
	if p, ok := peer.FromContext(ctx); ok {
		call.Peer = p.Addr.String()
	}
	if r, ok := request.(*adminpb.PauseRequest); ok {
		call.WaitOutstanding, call.MaxWaitMS = r.GetWaitOutstanding(), r.MaxPauseWaitTime
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, call)
	var fault Fault
	if queue := s.faults[call.Method]; len(queue) > 0 {
		fault, s.faults[call.Method] = queue[0], queue[1:]
	}
	return call, fault, s.frozen
}

func (s *Server) answered(call *Call, answer any, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	call.Answered, call.Code = s.clock.Now(), status.Code(err)
	if a, ok := answer.(*adminpb.CheckPausedResponse); ok && err == nil {
		call.Paused = a.GetPaused()
	}
}

func (s *Server) drop(client string) {
	s.mu.Lock()
	c := s.conns[client]
	delete(s.conns, client)
	s.mu.Unlock()
	if c != nil {
		_ = c.Close()
	}
}

// recordGate is told by a gate what changed, in order.
func (s *Server) recordGate(change gateChange) {
	now := s.clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if change == gateClosed {
		s.intervals = append(s.intervals, &Interval{From: now})
		return
	}
	last := s.intervals[len(s.intervals)-1]
	if change == gateDrained {
		last.Drained = now
		return
	}
	last.Until, last.Ended = now, string(change)
}

// tracked keeps account of the connections, so that they can be dropped.
type tracked struct {
	net.Listener
	server *Server
}

func (t *tracked) Accept() (net.Conn, error) {
	c, err := t.Listener.Accept()
	if err != nil {
		return nil, err
	}
	t.server.mu.Lock()
	defer t.server.mu.Unlock()
	tc := &trackedConn{Conn: c, server: t.server}
	t.server.conns[c.RemoteAddr().String()] = tc
	return tc, nil
}

type trackedConn struct {
	net.Conn
	server *Server
}

func (c *trackedConn) Close() error {
	c.server.mu.Lock()
	if client := c.RemoteAddr().String(); c.server.conns[client] == net.Conn(c) {
		delete(c.server.conns, client)
	}
	c.server.mu.Unlock()
	return c.Conn.Close()
}
