package jmx

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync/atomic"
	"syscall"
)

// The Java Remote Method Protocol (chapter 10 of the Java RMI Specification).
const (
	jrmpMagic    = "JRMI\x00\x02"
	jrmpStream   = 0x4b // of the three protocols, the one in which a connection has any number of calls
	jrmpAck      = 0x4e
	jrmpNotOK    = 0x4f
	jrmpCall     = 0x50
	jrmpReturn   = 0x51
	jrmpDGCAck   = 0x54
	returnNormal = 1
	returnThrown = 2
)

const (
	uidSize      = 14
	tlsAlert     = 0x15
	maxHostBytes = 1024 // of the address that a server says it sees
)

// endpoint is what a connection leads to.
type endpoint struct {
	host string
	port int
	tls  bool
}

func (e endpoint) address() string { return net.JoinHostPort(e.host, strconv.Itoa(e.port)) }

// connection is a TCP connection to one endpoint, with one call at a time. Any error of a call but an exception leaves it unusable.
type connection struct {
	to     endpoint
	raw    net.Conn // under TLS, so that closing it cannot block
	conn   net.Conn
	in     *bufio.Reader
	limits limits
	cut    atomic.Bool // closed because a context ended
}

// dial connects, and does what the protocol wants before the first call.
func (c Config) dial(ctx context.Context, to endpoint) (*connection, error) {
	dial := c.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	raw, err := dial(ctx, "tcp", to.address())
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	conn := &connection{to: to, raw: raw, conn: raw, limits: answerLimits}
	err = conn.during(ctx, func() error {
		if to.tls {
			if err := conn.handshake(ctx, c.TLS); err != nil {
				return err
			}
		}
		conn.in = bufio.NewReader(conn.conn)
		return conn.greet()
	})
	if err != nil {
		conn.close()
		return nil, err
	}
	return conn, nil
}

func (c *connection) close() { _ = c.raw.Close() }

// during cuts the connection off when ctx ends before f does, and says so in the error.
func (c *connection) during(ctx context.Context, f func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	cut := func() {
		c.cut.Store(true)
		c.close()
	}
	stop := context.AfterFunc(ctx, cut)
	err := f()
	if !stop() {
		cut() // it may only just have been started
		if err != nil {
			return ctx.Err() // what the cut connection said is of no interest
		}
	}
	return err
}

func (c *connection) handshake(ctx context.Context, config *tls.Config) error {
	config = config.Clone()
	if config.ServerName == "" {
		config.ServerName = c.to.host
	}
	conn := tls.Client(c.raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		var noTLS tls.RecordHeaderError
		if errors.As(err, &noTLS) {
			return fmt.Errorf("there is no TLS at this port: %w (%w)", ErrTLS, err)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) { // what a Java server does that expects something else
			return fmt.Errorf("the server ended the TLS handshake, as it does at a port without TLS: %w (%w)", ErrTLS, err)
		}
		return fmt.Errorf("TLS handshake: %w", err)
	}
	c.conn = conn
	return nil
}

// greet agrees on the protocol.
func (c *connection) greet() error {
	if _, err := c.conn.Write([]byte(jrmpMagic + string(rune(jrmpStream)))); err != nil {
		return fmt.Errorf("greeting the server: %w", err)
	}
	r := newReader(c.in, limits{bytes: maxHostBytes})
	answer, err := r.u8()
	switch {
	case err != nil && !c.to.tls:
		return fmt.Errorf("the server did not greet: %w (does this port want TLS, or is it not that of a JMX registry?)", err)
	case err != nil:
		return fmt.Errorf("the server did not greet: %w", err)
	case answer == tlsAlert && !c.to.tls:
		return fmt.Errorf("this port wants TLS: %w", ErrTLS)
	case answer == jrmpNotOK:
		return errors.New("the server does not support the protocol (JRMP's stream protocol)")
	case answer != jrmpAck:
		return fmt.Errorf("this is no RMI server: it greets with 0x%02x", answer)
	}
	if _, err := r.utf(); err != nil { // our address, as the server sees it
		return fmt.Errorf("the server's greeting: %w", err)
	}
	if _, err := r.i32(); err != nil {
		return fmt.Errorf("the server's greeting: %w", err)
	}
	// Ours, which nobody will connect to.
	if _, err := c.conn.Write(make([]byte, 6)); err != nil {
		return fmt.Errorf("greeting the server: %w", err)
	}
	return nil
}

// What a method returns.
const (
	returnsObject = iota
	returnsBool
	returnsVoid
)

// request makes the bytes of a call.
func request(id objectID, m method, args []any) ([]byte, error) {
	w := writer{b: []byte{jrmpCall}, rmi: true}
	w.b = append(w.b, streamHeader...)
	h := writer{b: id[:]}
	h.i32(m.operation)
	h.u64(uint64(m.hash))
	w.block(h.b)
	for _, a := range args {
		if err := w.value(a); err != nil {
			return nil, err
		}
	}
	return w.b, nil
}

// answer is what came back for a call.
type answer struct {
	value  any        // as reader.value reads it, or a bool
	thrown *Throwable // an exception, instead of a value
}

// readAnswer reads the return of a call, and the UID with which it is acknowledged.
func readAnswer(in *bufio.Reader, l limits, returns int) (a answer, uid [uidSize]byte, err error) {
	r := newReader(in, l)
	kind, err := r.u8()
	if err != nil {
		return a, uid, err
	}
	if kind != jrmpReturn {
		return a, uid, fmt.Errorf("an answer was expected, not 0x%02x", kind)
	}
	if err := r.header(); err != nil {
		return a, uid, err
	}
	head, err := r.primitive(1 + uidSize)
	if err != nil {
		return a, uid, err
	}
	copy(uid[:], head[1:])
	switch {
	case head[0] == returnThrown:
		v, err := r.value()
		if err != nil {
			return a, uid, aborted(err)
		}
		a.thrown, err = thrown(v)
		return a, uid, err
	case head[0] != returnNormal:
		return a, uid, fmt.Errorf("an answer of the kind %d", head[0])
	case returns == returnsBool:
		b, err := r.primitive(1)
		if err != nil {
			return a, uid, err
		}
		a.value = b[0] != 0
	case returns == returnsObject:
		v, err := r.value()
		if err != nil {
			return a, uid, aborted(err)
		}
		a.value = v
	}
	if r.block != 0 {
		return a, uid, errors.New("the answer is longer than it should be")
	}
	return a, uid, nil
}

func thrown(v any) (*Throwable, error) {
	o, ok := v.(*object)
	if !ok || !o.class.isA("java.lang.Throwable") {
		return nil, errors.New("the server threw what is no exception")
	}
	s := simplifier{values: maxSimplified, text: maxText}
	return s.throwable(o, 0)
}

// aborted says what the server met when it could not write its answer.
func aborted(err error) error {
	var a *abortedError
	if errors.As(err, &a) {
		if t, err := thrown(a.thrown); err == nil {
			return fmt.Errorf("%w: %w", a, t)
		}
	}
	return err
}

// call makes one call. The error is about the connection, which is of no use then; an exception is part of the answer. Whether the request may have
// reached the server is sent.
func (c *connection) call(ctx context.Context, request []byte, returns int) (a answer, sent bool, err error) {
	if c.in.Buffered() > 0 {
		return a, false, errors.New("the server sent what nobody asked for")
	}
	err = c.during(ctx, func() error {
		sent = true
		if _, err := c.conn.Write(request); err != nil {
			return fmt.Errorf("sending the call: %w", err)
		}
		var uid [uidSize]byte
		if a, uid, err = readAnswer(c.in, c.limits, returns); err != nil {
			return fmt.Errorf("reading the answer: %w", err)
		}
		if a.value == nil || returns != returnsObject {
			return nil
		}
		if _, err := referenceOf(a.value); err != nil { // no stub
			return nil //nolint:nilerr // that is what was asked
		}
		// The server keeps an object for its receiver until this arrives.
		if _, err := c.conn.Write(append([]byte{jrmpDGCAck}, uid[:]...)); err != nil {
			return fmt.Errorf("acknowledging the answer: %w", err)
		}
		return nil
	})
	return a, sent, err
}
