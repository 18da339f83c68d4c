package remote

import (
	"context"
	"errors"
	"io"

	"github.com/pkg/sftp"
)

// chunk is what is read or written at once: the library sends it as several requests that are under way together.
const chunk = 1 << 20

// stream is an open file. It is used by one goroutine at a time.
type stream struct {
	ctx    context.Context //nolint:containedctx // of the Open that made it
	files  *Files
	link   *link
	file   *sftp.File
	name   string
	writes bool

	buf    []byte // its own: a call that was cut off may still use it
	unread []byte
	err    error // why it can be used no more
	closed bool
}

func (s *stream) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if len(s.unread) == 0 && s.err == nil {
		if s.buf == nil {
			s.buf = make([]byte, chunk)
		}
		n, err := await(s.ctx, s.link, func() (int, error) {
			n, err := s.file.Read(s.buf)
			if n > 0 && errors.Is(err, io.EOF) {
				err = nil // it comes again
			}
			return n, err
		}, nil)
		switch {
		case errors.Is(err, io.EOF):
			s.err = io.EOF
		case err != nil:
			s.err = s.files.failed("reading", s.name, err)
		default:
			s.unread = s.buf[:n]
		}
	}
	if len(s.unread) == 0 {
		return 0, s.err
	}
	n := copy(b, s.unread)
	s.unread = s.unread[n:]
	return n, nil
}

func (s *stream) Write(b []byte) (int, error) {
	if s.buf == nil {
		s.buf = make([]byte, 0, chunk)
	}
	written := 0
	for len(b) > 0 {
		if s.err != nil {
			return written, s.err
		}
		n := min(len(b), cap(s.buf)-len(s.buf))
		s.buf = append(s.buf, b[:n]...)
		b = b[n:]
		if len(s.buf) == cap(s.buf) {
			s.flush()
		}
		if s.err != nil {
			return written, s.err
		}
		written += n
	}
	return written, nil
}

func (s *stream) flush() {
	if s.err != nil || len(s.buf) == 0 {
		return
	}
	if _, err := await(s.ctx, s.link, func() (int, error) { return s.file.Write(s.buf) }, nil); err != nil {
		s.err = s.files.failed("writing", s.name, err)
		return
	}
	s.buf = s.buf[:0]
}

func (s *stream) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	if !s.writes {
		if s.err == nil {
			s.err = errors.New("it is closed")
		}
		s.unread = nil
		go func() { _ = s.file.Close() }()
		return nil
	}
	s.flush()
	if s.err != nil {
		go func() { _ = s.file.Close() }()
		return s.err
	}
	if _, err := await(s.ctx, s.link, func() (struct{}, error) { return struct{}{}, s.file.Close() }, nil); err != nil {
		s.err = s.files.failed("closing", s.name, err)
		return s.err
	}
	s.err = errors.New("it is closed")
	return nil
}
