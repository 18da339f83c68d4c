package watchdog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

const (
	armTimeout   = 30 * time.Second
	replyTimeout = 5 * time.Second
	// writeTimeout is how long a message may take to enter the pipe. Only a watchdog that does not read (stopped, say) makes it wait.
	writeTimeout = 2 * time.Second
)

// Client is the parent's side of one watchdog. It implements engine.Armed.
type Client struct {
	clock engine.Clock
	order order
	in    io.WriteCloser  // to the watchdog
	out   io.ReadCloser   // from it
	ended <-chan struct{} // closed when it is no more
	queue *queue
	// drained is closed when nothing more is written.
	drained chan struct{}

	gone     chan struct{} // it died or fired
	goneOnce sync.Once
	dead     chan struct{} // no answer will come any more
	deadOnce sync.Once
	reason   error // why; read after dead

	mu      sync.Mutex
	lastID  uint64
	waiting map[uint64]chan message
}

var _ engine.Armed = (*Client)(nil)

// newClient speaks to a watchdog through two pipes, and arms it. On an error it has closed them.
func newClient(ctx context.Context, clock engine.Clock, in io.WriteCloser, out io.ReadCloser, ended <-chan struct{}, o order) (*Client, error) {
	c := &Client{
		clock: clock, order: o, in: in, out: out, ended: ended, queue: newQueue(), drained: make(chan struct{}),
		gone: make(chan struct{}), dead: make(chan struct{}), waiting: map[uint64]chan message{},
	}
	go c.write()
	go c.read()
	reply, err := c.ask(ctx, armTimeout, message{Type: typeArm, Version: protocolVersion, Order: &o})
	if err == nil && reply.Type == typeRefused {
		err = errors.New(reply.Error)
	} else if err == nil && reply.Type != typeArmed {
		err = fmt.Errorf("the watchdog answered %q", reply.Type)
	}
	if err != nil {
		c.hangUp(err)
		return nil, fmt.Errorf("arming the watchdog: %w", err)
	}
	return c, nil
}

// hangUp closes the pipes. What was said last still gets into them: a watchdog that is stopped shall find it when it wakes up.
func (c *Client) hangUp(why error) {
	c.lose(why)
	c.queue.close()
	ctx, cancel := c.clock.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	select {
	case <-c.drained:
	case <-ctx.Done():
	}
	_ = c.in.Close() // also when a write hangs in it
	_ = c.out.Close()
}

// write is the only writer of the pipe.
func (c *Client) write() {
	defer close(c.drained)
	for {
		item, ok := c.queue.next()
		if !ok {
			return
		}
		if _, err := c.in.Write(item.data); err != nil {
			c.lose(fmt.Errorf("it does not listen any more: %w", err))
			c.queue.close()
			return
		}
		close(item.written)
	}
}

func (c *Client) read() {
	err := lines(c.out, func(m message) bool {
		if m.Type == typeFired {
			c.goneOnce.Do(func() { close(c.gone) })
			return true
		}
		c.mu.Lock()
		w := c.waiting[m.ID]
		delete(c.waiting, m.ID)
		c.mu.Unlock()
		if w != nil {
			w <- m // has room for it
		}
		return true
	})
	if err == nil {
		err = errors.New("it ended")
	}
	c.lose(err)
	c.queue.close() // nobody is there to read it
}

// lose says that no answer will come any more.
func (c *Client) lose(err error) {
	c.deadOnce.Do(func() {
		c.reason = err
		close(c.dead)
	})
	c.goneOnce.Do(func() { close(c.gone) })
}

// tell puts a message into the pipe, and returns when it is there: a pipe is read to its end also when its writer has died. It never waits long.
func (c *Client) tell(m message) error {
	data, err := encode(m)
	if err != nil {
		return err
	}
	item := c.queue.add(data)
	select {
	case <-item.written: // also when the rest is lost by now
		return nil
	default:
	}
	ctx, cancel := c.clock.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	select {
	case <-item.written:
		return nil
	case <-c.dead:
		return fmt.Errorf("telling the watchdog: %w", c.reason)
	case <-ctx.Done():
		err := errors.New("it does not read what it is told")
		c.lose(err)
		return fmt.Errorf("telling the watchdog: %w", err)
	}
}

// ask waits for the answer.
func (c *Client) ask(ctx context.Context, limit time.Duration, m message) (message, error) {
	ctx, cancel := c.clock.WithTimeout(ctx, limit)
	defer cancel()
	answer := make(chan message, 1)
	c.mu.Lock()
	c.lastID++
	m.ID = c.lastID
	c.waiting[m.ID] = answer
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.waiting, m.ID)
	}()
	data, err := encode(m)
	if err != nil {
		return message{}, err
	}
	c.queue.add(data)
	select {
	case a := <-answer:
		return a, nil
	case <-ctx.Done():
		return message{}, fmt.Errorf("waiting for the watchdog's answer: %w", ctx.Err())
	case <-c.dead:
		select {
		case a := <-answer: // its last one
			return a, nil
		default:
			return message{}, fmt.Errorf("waiting for the watchdog's answer: %w", c.reason)
		}
	}
}

// Sending starts the count of max_duration. On an error no Pause may be sent: the watchdog, which may have heard of it all the same, is told that none was.
func (c *Client) Sending(ctx context.Context) error {
	a, err := c.ask(ctx, replyTimeout, message{Type: typeSending})
	switch {
	case err != nil:
	case a.Fired:
		err = errors.New("the watchdog has fired already")
	default:
		err = ctx.Err() // who was cancelled while the answer came pauses nothing
	}
	if err != nil {
		for _, t := range c.order.Targets {
			c.Record(t, engine.Unsent)
		}
	}
	return err
}

// Record tells a Pause's outcome. A watchdog that is gone needs no telling.
func (c *Client) Record(t engine.Target, o engine.Ownership) {
	a := addressOf(t)
	_ = c.tell(message{Type: typeRecord, Target: &a, Owner: string(o)}) // one that is gone has closed Gone
}

// Fired asks whether the watchdog ever fired.
func (c *Client) Fired(ctx context.Context) (bool, error) {
	a, err := c.ask(ctx, replyTimeout, message{Type: typeAsk})
	if err != nil {
		return true, err
	}
	return a.Fired, nil
}

// Gone is closed when the watchdog died or fired.
func (c *Client) Gone() <-chan struct{} { return c.gone }

// Lifted says that every target is unpaused.
func (c *Client) Lifted(ctx context.Context) error {
	_, err := c.ask(ctx, replyTimeout, message{Type: typeLifted})
	return err
}

// Process gives a child process into custody.
func (c *Client) Process(pid int, start uint64, name string) func() {
	return c.give(message{Type: typeProcess, PID: pid, Start: start, Name: name})
}

// SecretFile gives a file or directory into custody. Its path has to be absolute.
func (c *Client) SecretFile(path string) func() {
	return c.give(message{Type: typeSecret, Path: path})
}

// give returns when the message is in the pipe, and survives this process. The run goes on if it is not: Gone is closed then.
func (c *Client) give(m message) func() {
	c.mu.Lock()
	c.lastID++
	m.Key = c.lastID
	c.mu.Unlock()
	if m.check() != nil {
		return func() {} // nothing that custody could be had of; the watchdog would take it for a broken parent
	}
	_ = c.tell(m)
	var once sync.Once
	return func() {
		once.Do(func() {
			if data, err := encode(message{Type: typeDone, Key: m.Key}); err == nil {
				c.queue.add(data)
			}
		})
	}
}

// Close ends the watchdog. It returns when the watchdog has ended, or, with targets that were not lifted, when it has taken them over.
func (c *Client) Close(ctx context.Context) error {
	a, err := c.ask(ctx, armTimeout, message{Type: typeClose})
	c.hangUp(errors.New("it was closed"))
	if err != nil {
		return fmt.Errorf("ending the watchdog: %w", err)
	}
	if a.Detached {
		return nil
	}
	select {
	case <-c.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("ending the watchdog: %w", ctx.Err())
	}
}

// queue holds messages until the pipe takes them. It has no bound: a run has a handful of them for each target and child.
type queue struct {
	mu     sync.Mutex
	items  []queued
	closed bool
	wake   chan struct{}
}

type queued struct {
	data    []byte
	written chan struct{}
}

func newQueue() *queue { return &queue{wake: make(chan struct{}, 1)} }

func (q *queue) add(data []byte) queued {
	item := queued{data, make(chan struct{})}
	q.mu.Lock()
	if !q.closed {
		q.items = append(q.items, item)
	}
	q.mu.Unlock()
	q.rouse()
	return item
}

func (q *queue) rouse() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// next waits for an item; ok is false when the queue is closed and empty.
func (q *queue) next() (item queued, ok bool) {
	for {
		q.mu.Lock()
		if len(q.items) > 0 {
			item, q.items = q.items[0], q.items[1:]
			q.mu.Unlock()
			return item, true
		}
		closed := q.closed
		q.mu.Unlock()
		if closed {
			return queued{}, false
		}
		<-q.wake
	}
}

func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.rouse()
}
