package jmx

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/testclock"
)

// fakeServer is a registry and a JMX server in memory. It is strict: it accepts the greeting, the calls, their object, their arguments and the
// acknowledgements as the RMI specification has them, byte for byte, and fails the test otherwise. What it answers is up to the test.
type fakeServer struct {
	t        testing.TB
	port     int           // of the server; the registry's is 7199
	stub     func() []byte // a reference as a stub has it, without the end; nil: UnicastRef
	user     []any         // the credentials that newClient has to have; nil: none
	idle     time.Duration // after which it forgets a connection that makes no calls; 0: never
	greeting []byte        // instead of the proper one
	// answer returns what to send for a call; nil: the usual. It may block.
	answer func(method string, args []any) []byte

	mu      sync.Mutex
	dialled []string
	calls   []string
	last    time.Time
}

const fakePort = 7199

var (
	serverID = objectID{0: 1, 21: 7}
	connID   = objectID{0: 2, 21: 9}
)

// fakeMethods are the methods by their number and hash, with how many arguments they have.
var fakeMethods = map[method]struct {
	name string
	args int
}{
	methodLookup: {"lookup", 1}, methodNewClient: {"newClient", 1}, methodInvoke: {"invoke", 5}, methodGetAttribute: {"getAttribute", 3}, methodGetAttributes: {"getAttributes", 3},
	methodIsRegistered: {"isRegistered", 2}, methodQueryNames: {"queryNames", 3}, methodGetDefaultDomain: {"getDefaultDomain", 1}, methodGetConnectionID: {"getConnectionId", 0},
	methodClose: {"close", 0},
}

// config leads to the server.
func (s *fakeServer) config() Config {
	return Config{Host: "fake", Port: fakePort, Clock: testclock.New(), Dial: s.dial, KeepAlive: -1}
}

func (s *fakeServer) connect() *Client {
	s.t.Helper()
	c, err := Connect(s.t.Context(), s.config())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (s *fakeServer) dial(_ context.Context, _, address string) (net.Conn, error) {
	s.mu.Lock()
	s.dialled = append(s.dialled, address)
	s.mu.Unlock()
	ours, theirs := net.Pipe()
	go s.serve(theirs)
	return ours, nil
}

// made are the calls so far, and connections where was dialled.
func (s *fakeServer) made() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

func (s *fakeServer) connections() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.dialled)
}

func (s *fakeServer) serve(conn net.Conn) {
	defer conn.Close()
	err := s.converse(bufio.NewReader(conn), conn)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe) {
		s.t.Errorf("the client: %v", err)
	}
}

func (s *fakeServer) converse(in *bufio.Reader, out io.Writer) error {
	if err := expect(in, "JRMI\x00\x02K"); err != nil {
		return err
	}
	greeting := s.greeting
	if greeting == nil {
		greeting = []byte("N\x00\x09127.0.0.1\x00\x00\x30\x39")
	}
	if _, err := out.Write(greeting); err != nil {
		return err
	}
	if s.greeting != nil {
		return nil
	}
	if err := expect(in, "\x00\x00\x00\x00\x00\x00"); err != nil {
		return err
	}
	for {
		answer, acknowledged, err := s.call(in)
		if err != nil {
			return err
		}
		if answer == nil {
			return nil // ends the connection
		}
		if _, err := out.Write(answer); err != nil {
			return err
		}
		if acknowledged {
			if err := expect(in, "T"+testUID); err != nil {
				return err
			}
		}
	}
}

const testUID = "\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e"

func expect(in *bufio.Reader, want string) error {
	b := make([]byte, len(want))
	if n, err := io.ReadFull(in, b); err != nil {
		if n > 0 {
			return fmt.Errorf("sent only %x of %x", b[:n], want)
		}
		return io.EOF
	}
	if string(b) != want {
		return fmt.Errorf("sent %x, not %x", b, want)
	}
	return nil
}

// call reads a call and says what to answer, and whether the answer has to be acknowledged.
func (s *fakeServer) call(in *bufio.Reader) (answer []byte, acknowledged bool, err error) {
	if err := expect(in, "P"); err != nil {
		return nil, false, err
	}
	r := newReader(in, answerLimits)
	if err := r.header(); err != nil {
		return nil, false, err
	}
	head, err := r.primitive(34)
	if err != nil || r.block != 0 {
		return nil, false, fmt.Errorf("a call has not 34 bytes of its own: %w", err)
	}
	m, ok := fakeMethods[method{int32(binary.BigEndian.Uint32(head[22:])), int64(binary.BigEndian.Uint64(head[26:]))}]
	if !ok {
		return nil, false, fmt.Errorf("called an unknown method: %x", head[22:])
	}
	var args []any
	for range m.args {
		v, err := r.value()
		if err != nil {
			return nil, false, fmt.Errorf("%s: %w", m.name, err)
		}
		if v, err = simplify(v); err != nil {
			return nil, false, err
		}
		args = append(args, v)
	}
	if in.Buffered() > 0 {
		return nil, false, fmt.Errorf("%s: there is more after the arguments", m.name)
	}
	if want := map[string]objectID{"lookup": {}, "newClient": serverID}[m.name]; (m.name == "lookup" || m.name == "newClient") && objectID(head[:22]) != want {
		return nil, false, fmt.Errorf("%s is called on %x", m.name, head[:22])
	} else if want == (objectID{}) && m.name != "lookup" && objectID(head[:22]) != connID {
		return nil, false, fmt.Errorf("%s is called on %x", m.name, head[:22])
	}
	s.mu.Lock()
	s.calls = append(s.calls, m.name)
	idle := s.idle != 0 && m.name != "lookup" && m.name != "newClient" && time.Since(s.last) >= s.idle
	s.last = time.Now()
	s.mu.Unlock()
	if s.answer != nil {
		if b := s.answer(m.name, args); b != nil {
			return b, false, nil
		}
	}
	if idle {
		return throws(javaException("java.rmi.NoSuchObjectException", "java.rmi.RemoteException"), "no such object in table", nil), false, nil
	}
	return s.usual(m.name, args)
}

func (s *fakeServer) usual(name string, args []any) (answer []byte, acknowledged bool, err error) {
	switch name {
	case "lookup":
		if args[0] != "jmxrmi" {
			return nil, false, fmt.Errorf("looked up %v", args[0])
		}
		return s.stubAnswer(serverID), true, nil
	case "newClient":
		user, _ := args[0].([]any)
		if !reflect.DeepEqual(user, s.user) {
			return nil, false, fmt.Errorf("the credentials are %v, not %v", args[0], s.user)
		}
		return s.stubAnswer(connID), true, nil
	case "close":
		return returns(nil, nil), false, nil
	case "isRegistered":
		return returns([]byte{1}, nil), false, nil
	}
	return returns(nil, func(w *writer) { _ = w.value(name) }), false, nil
}

func (s *fakeServer) stubAnswer(id objectID) []byte {
	if s.stub != nil {
		return returns(nil, func(w *writer) { w.b = append(w.b, s.stub()...) })
	}
	port := s.port
	if port == 0 {
		port = fakePort
	}
	return returns(nil, func(w *writer) { w.stub(unicastRef("192.0.2.77", port, id)) })
}

// unicastRef is what a RemoteObject writes, in its older form.
func unicastRef(host string, port int, id objectID) func(*writer) {
	return func(w *writer) {
		b := writer{}
		b.utf("UnicastRef")
		b.utf(host)
		b.i32(int32(port))
		w.block(append(append(b.b, id[:]...), 0))
	}
}

// unicastRef2 is its newer form. factory writes the socket factory; nil is the format without one.
func unicastRef2(host string, port int, id objectID, factory func(*writer)) func(*writer) {
	return func(w *writer) {
		b := writer{}
		b.utf("UnicastRef2")
		if factory == nil {
			b.u8(0)
		} else {
			b.u8(1)
		}
		b.utf(host)
		b.i32(int32(port))
		if factory != nil {
			w.block(b.b)
			factory(w)
			b.b = nil
		}
		w.block(append(append(b.b, id[:]...), 0))
	}
}

var (
	classRemoteObject = &javaClass{name: "java.rmi.server.RemoteObject", suid: 0xd361b4910c61331e, flags: flagSerializable | flagWriteMethod}
	classStub         = &javaClass{name: "javax.management.remote.rmi.RMIServerImpl_Stub", suid: 2, flags: flagSerializable,
		super: &javaClass{name: "java.rmi.server.RemoteStub", suid: 0xe9fedcc98be1651a, flags: flagSerializable, super: classRemoteObject}}
)

func (w *writer) stub(ref func(*writer)) {
	w.object(classStub)
	ref(w)
	w.u8(tcEndBlockData)
}

// returns is an answer: the primitive result if there is one, then what fill writes.
func returns(primitive []byte, fill func(*writer)) []byte {
	return reply(returnNormal, primitive, fill)
}

func reply(code byte, primitive []byte, fill func(*writer)) []byte {
	w := writer{b: []byte{jrmpReturn}, rmi: true}
	w.b = append(w.b, streamHeader...)
	w.block(append(append([]byte{code}, testUID...), primitive...))
	if fill != nil {
		fill(&w)
	}
	return w.b
}

// javaException is an exception of a class that extends those named, and Throwable.
func javaException(class string, extends ...string) *javaClass {
	c := &javaClass{"java.lang.Throwable", 0xD5C635273977B8CB, flagSerializable, []javaField{{"cause", "Ljava/lang/Throwable;"}, {"detailMessage", "Ljava/lang/String;"}}, nil}
	for i := len(extends) - 1; i >= 0; i-- {
		c = &javaClass{name: extends[i], suid: 1, flags: flagSerializable, super: c}
	}
	return &javaClass{name: class, suid: 1, flags: flagSerializable, super: c}
}

// throwable writes an exception. cause writes its cause; nil: it refers to itself, as one without a cause does.
func (w *writer) throwable(class *javaClass, message string, cause func(*writer)) {
	w.object(class)
	if cause == nil {
		self := w.handles - 1
		cause = func(w *writer) {
			w.u8(tcReference)
			w.i32(int32(baseHandle + self))
		}
	}
	cause(w)
	w.string(message)
}

func throws(class *javaClass, message string, cause func(*writer)) []byte {
	return reply(returnThrown, nil, func(w *writer) { w.throwable(class, message, cause) })
}

// read reads a crafted answer.
func read(b []byte, l limits, returns int) (Value, error) {
	in := bufio.NewReader(bytes.NewReader(b))
	a, _, err := readAnswer(in, l, returns)
	if err != nil {
		return nil, err
	}
	if _, err := in.ReadByte(); err == nil {
		return nil, errors.New("there is more after the answer")
	}
	if a.thrown != nil {
		return nil, a.thrown
	}
	return simplify(a.value)
}
