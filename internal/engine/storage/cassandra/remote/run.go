package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
)

const (
	maxOutput = 16 << 20 // bytes of a command's output
	maxStderr = 2 << 10  // bytes of the end of its error output

	processTimeout = 30 * time.Second // for a command's first line, after nobody waits for it any more
)

// Run runs a command line with /bin/sh on the machine, as node.Files.Run does. When ctx ends, the command gets SIGTERM and its session is closed. What does
// not heed that, or cannot be reached any more, goes on there; the error says so.
func (h *Host) Run(ctx context.Context, command string, stdin io.Reader) ([]byte, error) {
	l, err := h.connected(ctx)
	if err != nil {
		return nil, err
	}
	out, err := l.run(ctx, command, stdin)
	if err != nil {
		return out, fmt.Errorf("%s: %w", h.target, err)
	}
	return out, nil
}

func (l *link) run(ctx context.Context, command string, stdin io.Reader) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	session, err := await(ctx, l, l.client.NewSession, func(s *ssh.Session) { _ = s.Close() })
	if err != nil {
		return nil, fmt.Errorf("running %s: opening a session (sshd allows MaxSessions of them at once): %w", command, err)
	}
	out := &limited{room: maxOutput, full: func() { cancel(fmt.Errorf("its output is longer than %d bytes", maxOutput)) }}
	tail := &tail{}
	process := newProcessLine(tail)
	session.Stdout, session.Stderr = out, process
	var input io.WriteCloser
	if stdin != nil {
		if input, err = session.StdinPipe(); err != nil {
			return nil, fmt.Errorf("running %s: %w", command, err)
		}
	}
	if _, err := await(ctx, l, func() (struct{}, error) {
		// The login shell may be any; exec keeps the process that is named.
		return struct{}{}, session.Start("/bin/sh -c " + node.Quote("echo "+processMark+"$$ >&2; exec /bin/sh -c "+node.Quote(command)))
	}, nil); err != nil {
		if ctx.Err() == nil {
			go func() { _ = session.Close() }() // refused, or the connection is gone
		} else {
			go l.abandon(session, process)
		}
		return nil, fmt.Errorf("running %s: %w; it may go on there", command, err) // the answer is missing, not the question
	}
	if input != nil {
		// Not waited for: the command may end without reading its input.
		go func() {
			if _, err := io.Copy(input, &reader{ctx: ctx, r: stdin}); err != nil && !errors.Is(err, io.EOF) {
				cancel(fmt.Errorf("passing its input: %w", err)) // half of an input must not look like a whole one
				return
			}
			_ = input.Close()
		}()
	}
	_, err = await(ctx, l, func() (struct{}, error) { return struct{}{}, session.Wait() }, nil)
	var exit *ssh.ExitError
	var missing *ssh.ExitMissingError
	switch {
	case err == nil:
		go func() { _ = session.Close() }()
		return out.bytes(), nil
	case errors.As(err, &exit):
		go func() { _ = session.Close() }()
		if exit.Signal() != "" {
			return out.bytes(), &node.CommandError{Command: command, Exit: -1, Stderr: tail.text() + " (ended by SIG" + exit.Signal() + ")"}
		}
		return out.bytes(), &node.CommandError{Command: command, Exit: exit.ExitStatus(), Stderr: tail.text()}
	}
	if errors.As(err, &missing) {
		err = errors.New("the session ended without an exit status")
	}
	go l.abandon(session, process)
	return nil, fmt.Errorf("running %s: %w; it may go on there", command, err)
}

// abandon ends a command that nobody waits for any more. One that has only just begun may not have said yet which process it is.
func (l *link) abandon(session *ssh.Session, process *processLine) {
	ctx, cancel := l.clock.WithTimeout(context.Background(), processTimeout)
	defer cancel()
	select {
	case <-process.found:
		l.kill(process.id())
	case <-l.done:
	case <-ctx.Done():
	}
	_ = session.Close()
}

// kill sends SIGTERM to a command and to what it started, by a session of its own: sshd passes no signals on to processes of root, and old ones to none.
func (l *link) kill(pid int) {
	if pid <= 1 || l.err() != nil {
		return
	}
	session, err := l.client.NewSession()
	if err != nil {
		return
	}
	defer session.Close() //nolint:errcheck // it did what it could
	_ = session.Run(fmt.Sprintf("/bin/sh -c 'kill -TERM -- -%d 2>/dev/null || kill -TERM %d'", pid, pid))
}

// reader stops reading when ctx ends.
type reader struct {
	ctx context.Context //nolint:containedctx // it is that of the call that made it
	r   io.Reader
}

func (r *reader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(b)
}
