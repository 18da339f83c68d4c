package mysql

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"regexp"
)

// The lines of a dump that mean something here. No user's data can look like one: the tools write text values on the line of their
// INSERT, with every line break as \n, and what comes before the first of the two is the header.
const (
	proofLine   = "-- Current Database: `"
	trailerLine = "-- Dump completed"
)

const (
	maxHead = 1 << 20 // what comes before the proof has 1 to 2 KiB
	maxTail = 512     // the last line has 40 bytes
)

var errNoDump = errors.New("its output is no dump: there is no \"-- Current Database\" line at its beginning")

// cut takes what the tool writes: it waits for the line that proves the snapshot, hands on everything, and remembers the end.
type cut struct {
	proved chan struct{} // closed when the proof has come
	// open is called after that: a slow catalog must not keep the proof.
	open func() (io.Writer, error)

	out  io.Writer // nil before the proof
	head []byte    // what came before it
	tail []byte
}

func newCut(open func() (io.Writer, error)) *cut {
	return &cut{proved: make(chan struct{}), open: open}
}

// Write is called by one goroutine.
func (c *cut) Write(p []byte) (int, error) {
	c.remember(p)
	if c.out != nil {
		return c.out.Write(p)
	}
	c.head = append(c.head, p...)
	if !bytes.HasPrefix(c.head, []byte(proofLine)) && !bytes.Contains(c.head, []byte("\n"+proofLine)) {
		if len(c.head) > maxHead {
			return 0, errNoDump
		}
		return len(p), nil
	}
	close(c.proved)
	var err error
	if c.out, err = c.open(); err != nil {
		c.out = failed{err}
		return 0, err
	}
	if _, err := c.out.Write(c.head); err != nil {
		return 0, err
	}
	c.head = nil
	return len(p), nil
}

func (c *cut) remember(p []byte) {
	if len(p) >= maxTail {
		c.tail = append(c.tail[:0], p[len(p)-maxTail:]...)
		return
	}
	if n := len(c.tail) + len(p) - maxTail; n > 0 {
		c.tail = append(c.tail[:0], c.tail[n:]...)
	}
	c.tail = append(c.tail, p...)
}

// complete says whether the last line is that of a whole dump: the tools write it only when everything before went well.
func (c *cut) complete() bool {
	last := bytes.TrimRight(c.tail, "\r\n")
	last = last[bytes.LastIndexByte(last, '\n')+1:]
	return c.out != nil && bytes.HasPrefix(last, []byte(trailerLine))
}

type failed struct{ err error }

func (f failed) Write([]byte) (int, error) { return 0, f.err }

var (
	// A view's and a trigger's definer may not exist where the dump is restored, and only a superuser may name another one.
	viewDefiner    = regexp.MustCompile("^/\\*!50013 DEFINER=`(?:[^`]|``)*`@`(?:[^`]|``)*` (SQL SECURITY (?:DEFINER|INVOKER)) \\*/(\r?\n)$")
	triggerDefiner = regexp.MustCompile("^/\\*!50003 CREATE\\*/ /\\*!50017 DEFINER=`(?:[^`]|``)*`@`(?:[^`]|``)*`\\*/ ")
	// Only the newest of MariaDB's clients understand it, and MySQL's none; the client's binary mode does the same.
	sandbox = []byte("/*M!999999")
)

// portable turns a stored dump into one that any user can restore: its views and triggers belong to who restores them.
type portable struct {
	in   *bufio.Reader
	rest []byte // of the line at hand, to be read
	long bool   // rest's line goes on
	err  error
}

// maxLine is how long a line may be to be looked at: those that matter are short, and those with rows can have a gigabyte.
const maxLine = 64 << 10

func newPortable(r io.Reader) *portable { return &portable{in: bufio.NewReaderSize(r, maxLine)} }

func (p *portable) Read(b []byte) (int, error) {
	for len(p.rest) == 0 {
		if p.err != nil {
			return 0, p.err
		}
		line, err := p.in.ReadSlice('\n')
		whole := !p.long
		p.long = errors.Is(err, bufio.ErrBufferFull)
		if err != nil && !p.long {
			p.err = err
		}
		if p.rest = line; whole && !p.long {
			p.rest = portableLine(line)
		}
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

func portableLine(line []byte) []byte {
	switch {
	case !bytes.HasPrefix(line, []byte("/*")):
		return line
	case bytes.HasPrefix(line, sandbox):
		return nil
	}
	if m := viewDefiner.FindSubmatch(line); m != nil {
		return append(append([]byte("/*!50013 "), m[1]...), append([]byte(" */"), m[2]...)...)
	}
	if m := triggerDefiner.Find(line); m != nil {
		return append([]byte("/*!50003 CREATE*/ "), line[len(m):]...)
	}
	return line
}
