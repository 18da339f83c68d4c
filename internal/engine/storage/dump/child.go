package dump

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

// Child is one run of a tool.
type Child struct {
	Path string   // of the program
	Name string   // for messages; also what custody is told
	Args []string // without the program's own name; never a secret: every user of the machine can read them
	// Env is the whole environment: nothing is inherited, since ours may hold secrets of others.
	Env     []string
	Dir     string
	Custody engine.Custody
	// Clock measures the grace between SIGTERM and SIGKILL; without one there is none.
	Clock  engine.Clock
	Stdin  io.Reader // nil: empty
	Stdout io.Writer // nil: dropped
	// OnStderr gets every line of the error output as it comes, from one goroutine; may be nil.
	OnStderr func(line string)
}

// grace is how long a tool may take to end by itself: pg_dump uses it to cancel its queries on the server.
const grace = 2 * time.Second

// Process is a child that was started. It leads a process group of its own; the whole group ends with it, or when ctx or this process ends.
type Process struct {
	child  Child
	cmd    *exec.Cmd
	stderr *lines
	stdout *keeper // nil without Stdout
	stdin  chan error

	mu     sync.Mutex
	reaped bool  // the PID may be somebody else's from here on
	cause  error // why we ended it; nil: we did not

	done chan struct{}
	err  error // valid when done is closed
}

// StartChild starts a tool. The end of ctx ends the child.
func StartChild(ctx context.Context, c Child) (*Process, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", c.Name, err)
	}
	p := &Process{child: c, cmd: exec.Command(c.Path, c.Args...), stderr: &lines{each: c.OnStderr}, done: make(chan struct{})} //nolint:gosec // the path is one of a tool we looked up
	p.cmd.Env = append([]string{}, c.Env...)                                                                                   // not nil, which would mean ours
	p.cmd.Dir = c.Dir
	p.cmd.Stderr = p.stderr
	p.cmd.SysProcAttr = attributes()
	if c.Stdout != nil {
		p.stdout = &keeper{w: c.Stdout}
		p.cmd.Stdout = p.stdout
	}
	var input io.WriteCloser
	if c.Stdin != nil {
		var err error
		if input, err = p.cmd.StdinPipe(); err != nil {
			return nil, fmt.Errorf("starting %s: %w", c.Name, err)
		}
		p.stdin = make(chan error, 1) // before it runs: it may have ended at once
	}
	started := make(chan error)
	go p.run(started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", c.Name, err)
	}
	if input != nil {
		go p.feed(input)
	}
	stop := context.AfterFunc(ctx, func() { p.end(context.Cause(ctx)) })
	go func() { <-p.done; stop() }()
	return p, nil
}

// Wait returns when the child and its whole group are gone and its output was taken.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Kill ends the child at once, and its group; it may be called again, and after the end.
func (p *Process) Kill() {
	p.signal(syscall.SIGKILL, errors.New("it was killed by this run"))
}

// end asks first.
func (p *Process) end(cause error) {
	p.signal(syscall.SIGTERM, cause)
	if p.child.Clock != nil {
		ctx, cancel := context.WithCancel(context.Background())
		go func() { <-p.done; cancel() }()
		_ = p.child.Clock.Sleep(ctx, grace)
	}
	p.signal(syscall.SIGKILL, cause)
}

func (p *Process) signal(s syscall.Signal, cause error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaped {
		return
	}
	if p.cause == nil {
		p.cause = cause
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, s)
}

// feed copies the input. When that fails the child must not take what it got for the whole: it is killed before it sees the end.
func (p *Process) feed(input io.WriteCloser) {
	in := &source{r: p.child.Stdin}
	_, err := io.Copy(input, in)
	if in.err != nil {
		p.signal(syscall.SIGKILL, fmt.Errorf("reading its input: %w", in.err))
	}
	_ = input.Close()
	p.stdin <- err
}

// result turns the end of the child into the error of Wait.
func (p *Process) result(waited error) error {
	p.mu.Lock()
	cause := p.cause
	p.mu.Unlock()
	name := p.child.Name
	switch {
	case cause != nil: // also with status 0: a tool may end well when asked to end, and its output is cut off all the same
		return fmt.Errorf("running %s: %w", name, cause)
	case p.stdout != nil && p.stdout.err != nil:
		return fmt.Errorf("taking the output of %s: %w", name, p.stdout.err)
	case waited == nil && p.stdin != nil:
		// It ended well, but only the end of the input proves the input.
		if err := <-p.stdin; err != nil {
			return fmt.Errorf("running %s: it ended before it had read all of its input: %w", name, err)
		}
		return nil
	case waited == nil:
		return nil
	}
	tail := p.stderr.tail()
	if tail != "" {
		tail = ": " + tail
	}
	var exit *exec.ExitError
	if !errors.As(waited, &exit) {
		return fmt.Errorf("running %s: %w", name, waited)
	}
	if strings.Contains(strings.ToLower(tail), "no space left on device") {
		return fmt.Errorf("running %s: %w (exit status %d)%s", name, syscall.ENOSPC, exit.ExitCode(), tail)
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return fmt.Errorf("running %s: it was killed (%s), which this run did not do; was memory short?%s", name, status.Signal(), tail)
	}
	return &ExitError{Name: name, Status: exit.ExitCode(), Stderr: p.stderr.tail()}
}

// ExitError says that a tool ended with a status other than 0.
type ExitError struct {
	Name   string
	Status int
	Stderr string // the last lines of its error output
}

func (e *ExitError) Error() string {
	s := fmt.Sprintf("running %s: exit status %d", e.Name, e.Status)
	if e.Stderr != "" {
		s += ": " + e.Stderr
	}
	return s
}

// keeper remembers why a write failed: the child only sees a closed pipe.
type keeper struct {
	w   io.Writer
	err error
}

func (k *keeper) Write(b []byte) (int, error) {
	n, err := k.w.Write(b)
	if err != nil && k.err == nil {
		k.err = err
	}
	return n, err
}

// source remembers why a read failed, as opposed to the write that io.Copy also does.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(b []byte) (int, error) {
	n, err := s.r.Read(b)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// Bounds of what is kept of an error output.
const (
	maxLine = 2 << 10 // bytes
	maxTail = 12      // lines
)

// lines splits an error output into lines and keeps the last few.
type lines struct {
	each func(string)
	part []byte
	mu   sync.Mutex
	last []string
}

func (l *lines) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		line, rest, whole := bytes.Cut(b, []byte{'\n'})
		if room := maxLine - len(l.part); room > 0 {
			l.part = append(l.part, line[:min(room, len(line))]...)
		}
		if whole {
			l.flush()
		}
		b = rest
	}
	return n, nil
}

func (l *lines) flush() {
	line := strings.TrimRight(strings.ToValidUTF8(string(l.part), "\uFFFD"), "\r")
	l.part = l.part[:0]
	if strings.TrimSpace(line) == "" {
		return
	}
	l.mu.Lock()
	l.last = append(l.last, line)
	if len(l.last) > maxTail {
		l.last = l.last[1:]
	}
	l.mu.Unlock()
	if l.each != nil {
		l.each(line)
	}
}

func (l *lines) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.last, "\n")
}
