package remote

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
	"sync"
)

// limited keeps an output that is not too long.
type limited struct {
	room int
	full func()

	mu  sync.Mutex
	buf []byte
}

func (l *limited) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.buf)+len(b) > l.room {
		l.full()
		return 0, errors.New("too much output")
	}
	l.buf = append(l.buf, b...)
	return len(b), nil
}

func (l *limited) bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf
}

// tail keeps the end of an output.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if extra := len(t.buf) - maxStderr; extra > 0 {
		t.buf = append(t.buf[:0], t.buf[extra:]...)
	}
	return len(b), nil
}

func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(strings.ToValidUTF8(string(t.buf), "\uFFFD"))
}

// processMark comes before the number of the process in the error output of a command.
const processMark = "scalardb-process-"

// processLine takes the line with the number of the process out of an error output, wherever a login shell's own lines put it.
type processLine struct {
	next *tail

	mu    sync.Mutex
	part  []byte // of the line that is not whole yet
	pid   int
	found chan struct{} // closed when the line is there
}

func newProcessLine(next *tail) *processLine {
	return &processLine{next: next, found: make(chan struct{})}
}

func (p *processLine) isFound() bool {
	select {
	case <-p.found:
		return true
	default:
		return false
	}
}

func (p *processLine) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.isFound() {
		return p.next.Write(b)
	}
	p.part = append(p.part, b...)
	for !p.isFound() {
		line, rest, whole := bytes.Cut(p.part, []byte{'\n'})
		if !whole {
			break
		}
		if number, ok := bytes.CutPrefix(line, []byte(processMark)); ok {
			p.pid, _ = strconv.Atoi(strings.TrimSpace(string(number)))
			close(p.found)
		} else {
			_, _ = p.next.Write(p.part[:len(line)+1]) // never fails
		}
		p.part = rest
	}
	if p.isFound() || len(p.part) > maxStderr {
		_, _ = p.next.Write(p.part)
		p.part = nil
	}
	return len(b), nil
}

// id is 0 as long as it is not known.
func (p *processLine) id() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pid
}
