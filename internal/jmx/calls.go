package jmx

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// do waits for its turn and makes a call.
func (c *Client) do(ctx context.Context, call call) (Value, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = c.clock.WithTimeout(ctx, c.callTimeout)
		defer cancel()
	}
	if err := ctx.Err(); err != nil {
		return nil, c.refused(call.what, err)
	}
	select {
	case <-c.turn:
		defer func() { c.turn <- struct{}{} }()
	case <-ctx.Done():
		return nil, c.refused(call.what, fmt.Errorf("waiting for an earlier call: %w", ctx.Err()))
	}
	v, err := c.exchange(ctx, call)
	if err != nil {
		return nil, c.refused(call.what, err)
	}
	return v, nil
}

// exchange makes a call whose turn it is.
func (c *Client) exchange(ctx context.Context, call call) (Value, error) {
	if err := c.Err(); err != nil {
		return nil, err
	}
	b, err := request(c.server.id, call.method, call.args)
	if err != nil {
		return nil, err
	}
	a, sent, err := c.conn.call(ctx, b, call.returns)
	switch {
	case err != nil && !sent && ctx.Err() != nil:
		return nil, err // it ended before anything was sent
	case err != nil:
		return nil, c.spend(err, sent)
	case c.conn.cut.Load(): // the answer was faster than the end of ctx, but the next call finds no connection
		_ = c.spend(ctx.Err(), false)
	}
	if a.thrown != nil {
		return nil, c.thrown(a.thrown)
	}
	return simplify(a.value)
}

// thrown is the error for an exception. After one of RMI's own the server may have left half a request unread, so the connection is good for nothing then.
func (c *Client) thrown(t *Throwable) error {
	if t.IsA("java.rmi.RemoteException") {
		reached := !t.has("java.rmi.NoSuchObjectException") && !t.has("java.rmi.UnmarshalException")
		return c.spend(t, reached)
	}
	if t.refuses("java.lang.SecurityException") {
		return fmt.Errorf("%w: %w", ErrAccess, t)
	}
	return t
}

// spend gives the connection up. sent says that the server may have carried out the call.
func (c *Client) spend(cause error, sent bool) error {
	c.conn.close()
	err := fmt.Errorf("%w: %w", ErrConnectionSpent, cause)
	c.mu.Lock()
	if c.spent == nil {
		c.spent = err
	}
	c.mu.Unlock()
	if sent {
		return fmt.Errorf("%w, and %w", err, ErrOutcomeUnknown)
	}
	return err
}

var errClosed = errors.New("it was closed")

func (c *Client) close() error {
	c.stopKeepAlive()
	ctx, cancel := c.clock.WithTimeout(context.Background(), CloseTimeout)
	defer cancel()
	select {
	case <-c.turn:
		if c.Err() == nil {
			if b, err := request(c.server.id, methodClose, nil); err == nil {
				_, _, _ = c.conn.call(ctx, b, returnsVoid) // the server finds out by itself if not
			}
		}
		_ = c.spend(errClosed, false)
		c.turn <- struct{}{}
	case <-ctx.Done():
		_ = c.spend(errClosed, false) // whoever has the turn fails
	}
	c.keepAlive.Wait()
	return nil
}

// startKeepAlive makes a call every interval, for as long as it makes sense.
func (c *Client) startKeepAlive(interval time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	c.stopKeepAlive = cancel
	if interval < 0 {
		return
	}
	if interval == 0 {
		interval = KeepAliveInterval
	}
	c.keepAlive.Go(func() {
		for c.clock.Sleep(ctx, interval) == nil && c.Err() == nil {
			c.touch()
		}
	})
}

// touch makes a call, unless there is one under way, which is as good. What the server throws does not matter: it heard of us.
func (c *Client) touch() {
	select {
	case <-c.turn:
		defer func() { c.turn <- struct{}{} }()
	default:
		return
	}
	// Not the context of the loop: Close waits for this call, rather than cut it off and have nothing left to say goodbye with.
	ctx, cancel := c.clock.WithTimeout(context.Background(), c.callTimeout)
	defer cancel()
	_, _ = c.exchange(ctx, defaultDomain()) // an error that spends the connection is kept in it
}
