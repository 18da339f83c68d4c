package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
)

// link is one SSH connection.
type link struct {
	target target
	clock  Clock
	client *ssh.Client
	under  []io.Closer // what it runs on: the bastion's connection, the agent's

	mu    sync.Mutex
	cause error // why it ended; nil: it did not
	done  chan struct{}
}

// err is nil as long as the connection is good, as far as is known.
func (l *link) err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cause
}

// end ends it; the first cause counts.
func (l *link) end(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cause != nil {
		return
	}
	l.cause = cause
	close(l.done)
	// A connection that hangs must not hold up who closes it.
	go func() {
		_ = l.client.Close()
		for _, c := range l.under {
			_ = c.Close()
		}
	}()
}

// await makes a call that knows no context. It returns when ctx or the connection ends; a result that comes too late is undone.
func await[T any](ctx context.Context, l *link, call func() (T, error), undo func(T)) (T, error) {
	type result struct {
		value T
		err   error
	}
	var none T
	if err := context.Cause(ctx); err != nil {
		return none, err
	}
	if err := l.err(); err != nil {
		return none, err
	}
	results := make(chan result, 1)
	late := func() {
		if r := <-results; r.err == nil && undo != nil {
			undo(r.value)
		}
	}
	go func() {
		v, err := call()
		results <- result{v, err}
	}()
	select {
	case r := <-results:
		if r.err != nil {
			if cause := l.err(); cause != nil {
				return none, cause // says more than "EOF"
			}
		}
		return r.value, r.err
	case <-ctx.Done():
		go late()
		return none, context.Cause(ctx)
	case <-l.done:
		go late()
		return none, l.err()
	}
}

// connect makes a connection, through the bastion where there is one.
func (h *Hosts) connect(ctx context.Context, t target) (*link, error) {
	ctx, cancel := h.options.Clock.WithTimeout(ctx, HandshakeTimeout)
	defer cancel()
	known, err := h.settings.loadKnownHosts(h.options.Getenv)
	if err != nil {
		return nil, err
	}
	login, err := h.settings.login(ctx, h.options.Getenv)
	if err != nil {
		return nil, err
	}
	if h.settings.Bastion == nil {
		raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", t.address())
		if err != nil {
			login.close()
			return nil, fmt.Errorf("%s: %w", t, err)
		}
		l, err := h.handshake(ctx, t, raw, known, login)
		if err != nil {
			login.close()
			return nil, err
		}
		return h.keep(l, login.agent), nil
	}
	l, under, err := h.throughBastion(ctx, t, known, login)
	if err != nil {
		login.close()
		return nil, err
	}
	return h.keep(l, under, login.agent), nil
}

func (h *Hosts) throughBastion(ctx context.Context, t target, known *knownHosts, login *login) (*link, io.Closer, error) {
	select {
	case h.bastion <- struct{}{}:
		defer func() { <-h.bastion }()
	case <-ctx.Done():
		return nil, nil, fmt.Errorf("%s: %w", t, context.Cause(ctx))
	}
	b := h.settings.bastion()
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", b.address())
	if err != nil {
		return nil, nil, fmt.Errorf("the bastion %s: %w", b, err)
	}
	bastion, err := h.handshake(ctx, b, raw, known, login)
	if err != nil {
		return nil, nil, fmt.Errorf("the bastion: %w", err)
	}
	inner, err := await(ctx, bastion, func() (net.Conn, error) { return bastion.client.Dial("tcp", t.address()) }, func(c net.Conn) { _ = c.Close() })
	if err != nil {
		bastion.end(errClosed)
		return nil, nil, fmt.Errorf("%s: connecting through the bastion %s: %w", t, b, err)
	}
	l, err := h.handshake(ctx, t, inner, known, login)
	if err != nil {
		bastion.end(errClosed)
		return nil, nil, err
	}
	return l, bastion.client, nil
}

// handshake logs in. It ends with ctx, whatever the server does, and then raw is closed.
func (h *Hosts) handshake(ctx context.Context, t target, raw net.Conn, known *knownHosts, login *login) (*link, error) {
	keys, authorities := known.of(knownName(t.host, t.port))
	check := known.check(t)
	var keyErr error // the library wraps it in text only, at places
	config := &ssh.ClientConfig{
		User: t.user, Auth: login.methods, HostKeyAlgorithms: algorithms(keys, authorities),
		HostKeyCallback: func(address string, remote net.Addr, key ssh.PublicKey) error {
			keyErr = check(address, remote, key)
			return keyErr
		},
		BannerCallback: func(string) error { return nil },
	}
	type result struct {
		client *ssh.Client
		err    error
	}
	results := make(chan result, 1)
	go func() {
		conn, channels, requests, err := ssh.NewClientConn(raw, t.address(), config)
		if err != nil {
			results <- result{err: err}
			return
		}
		results <- result{client: ssh.NewClient(conn, channels, requests)}
	}()
	var r result
	select {
	case r = <-results:
	case <-ctx.Done():
		go func() {
			_ = raw.Close()
			if late := <-results; late.client != nil {
				_ = late.client.Close()
			}
		}()
		return nil, fmt.Errorf("%s: the SSH handshake did not end: %w", t, context.Cause(ctx))
	}
	if r.err == nil {
		l := &link{target: t, clock: h.options.Clock, client: r.client, done: make(chan struct{})}
		go func() {
			err := r.client.Wait()
			if err == nil {
				err = io.EOF
			}
			l.end(fmt.Errorf("the SSH connection ended: %w", err))
		}()
		return l, nil
	}
	_ = raw.Close()
	var none *ssh.AlgorithmNegotiationError
	switch {
	case keyErr != nil:
		return nil, fmt.Errorf("%s: %w", t, keyErr)
	case errors.As(r.err, &none) && len(keys) > 0 && none.What == "host key":
		return nil, fmt.Errorf("%s: %w", t, known.noCommonKey(t, none.RequestedAlgorithms))
	}
	if strings.Contains(r.err.Error(), "unable to authenticate") { // the library has no type for it
		return nil, fmt.Errorf("%s: the server does not let %s in with %s: %w", t, t.user, login.with, r.err)
	}
	return nil, fmt.Errorf("%s: %w", t, r.err)
}

// keep starts what notices that the server stopped answering.
func (h *Hosts) keep(l *link, under ...io.Closer) *link {
	for _, c := range under {
		if c != nil {
			l.under = append(l.under, c)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-l.done; cancel() }()
	go func() {
		for h.options.Clock.Sleep(ctx, KeepAliveInterval) == nil {
			asking, stop := h.options.Clock.WithTimeout(ctx, KeepAliveTimeout)
			// Any answer will do, a refusal too.
			_, err := await(asking, l, func() (bool, error) {
				ok, _, err := l.client.SendRequest("keepalive@openssh.com", true, nil)
				return ok, err
			}, nil)
			stop()
			if err != nil && ctx.Err() == nil {
				l.end(fmt.Errorf("the SSH server stopped answering: %w", err))
				return
			}
		}
	}()
	return l
}
