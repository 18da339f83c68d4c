package postgresql

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/dump"
)

// relay stands between PostgreSQL's tools and the server: they connect to a socket in a private folder (0700), and get sessions that
// we opened and logged in. There are two reasons.
//
// A dump must survive DDL that comes after the snapshot. Our sessions hold ACCESS SHARE locks, so an ALTER TABLE waits for them; but a lock
// that is asked for later waits behind that ALTER. pg_dump's own LOCK TABLE would hang until somebody gave up, and the LOCK ... NOWAIT of
// its workers (-j) would fail the dump. A session that holds the lock already gets it again at once. So the sessions are opened before the
// pause, and lock and adopt the snapshot in the window; pg_dump finds itself in a transaction that has begun.
//
// And no password, no certificate and no key is written to a file or an environment for the tools.
type relay struct {
	folder string
	remove func()
	l      net.Listener
	next   func(context.Context) (*pgconn.HijackedConn, error)
	answer func(query string) (tag string, err error)

	mu     sync.Mutex
	closed bool
	open   map[net.Conn]bool
	wg     sync.WaitGroup
	failed error // the first reason why a tool got no session
}

// maxSocketPath is what fits into a socket's address, less than that of any system we know.
const maxSocketPath = 100

// startRelay starts one; next gives it a session per connection. answer, if not nil, is asked for every statement: a tag means that the relay
// answers with it and the server never sees the statement; an error ends the session.
func startRelay(ctx context.Context, custody engine.Custody, next func(context.Context) (*pgconn.HijackedConn, error), answer func(string) (string, error)) (*relay, error) {
	parent := os.TempDir()
	if len(parent) > maxSocketPath-50 {
		parent = "/tmp"
	}
	folder, remove, err := dump.Folder(custody, parent, "scalardb-*")
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", filepath.Join(folder, ".s.PGSQL.5432"))
	if err != nil {
		remove()
		return nil, fmt.Errorf("listening for PostgreSQL's tools: %w", err)
	}
	r := &relay{folder: folder, remove: remove, l: l, next: next, answer: answer, open: map[net.Conn]bool{}}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, r.shut)
	r.wg.Add(1)
	go func() {
		defer r.wg.Done()
		defer cancel()
		defer stop()
		for {
			client, err := l.Accept()
			if err != nil {
				return // closed
			}
			r.wg.Add(1)
			go func() {
				defer r.wg.Done()
				r.serve(ctx, client)
			}()
		}
	}()
	return r, nil
}

// handOver takes a session's connection away from pgconn. After a write that took long pgconn may have a read of its own under way, in the background,
// which would swallow what the server says to the tool. A deadline in the past ends it, and the frontend's Receive waits for its end.
func handOver(c *pgconn.PgConn) (*pgconn.HijackedConn, error) {
	h, err := c.Hijack()
	if err != nil {
		return nil, fmt.Errorf("handing a session over: %w", err)
	}
	if err := settleReads(h); err != nil {
		_ = h.Conn.Close()
		return nil, fmt.Errorf("handing a session over: %w", err)
	}
	return h, nil
}

func settleReads(h *pgconn.HijackedConn) error {
	if err := h.Conn.SetReadDeadline(time.Unix(1, 0)); err != nil {
		return err
	}
	for {
		message, err := h.Frontend.Receive()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			return err
		}
		switch message.(type) {
		case *pgproto3.ParameterStatus, *pgproto3.NoticeResponse, *pgproto3.NotificationResponse: // the server may send them at any time
		default:
			return fmt.Errorf("the server sent a %T that nobody asked for", message)
		}
	}
	if n := h.Frontend.ReadBufferLen(); n > 0 {
		return fmt.Errorf("%d bytes of a message are left", n)
	}
	return h.Conn.SetReadDeadline(time.Time{})
}

// args are the tools' options to connect.
func (r *relay) args() []string {
	return []string{"--host=" + r.folder, "--port=5432", "--username=relay", "--no-password"}
}

// err says why a tool got no session, or what it was not allowed to do.
func (r *relay) err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

func (r *relay) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed == nil && !r.closed {
		r.failed = err
	}
}

// close ends all sessions; idempotent.
func (r *relay) close() {
	r.shut()
	r.wg.Wait()
	r.remove()
}

func (r *relay) shut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	_ = r.l.Close()
	for c := range r.open {
		_ = c.Close()
	}
}

// keep registers a connection for shut, which may have happened.
func (r *relay) keep(c net.Conn) (drop func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open[c] = true
	if r.closed {
		_ = c.Close()
	}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.open, c)
		_ = c.Close()
	}
}

func (r *relay) serve(ctx context.Context, client net.Conn) {
	defer r.keep(client)()
	if ok, err := greet(client); !ok || err != nil {
		return // a request to cancel, or nonsense: whoever sent it sees the end of the connection
	}
	session, err := r.next(ctx)
	if err != nil {
		r.fail(err)
		_ = send(client, &pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: "08006", Message: err.Error()})
		return
	}
	server := session.Conn
	defer r.keep(server)()
	welcome := []pgproto3.BackendMessage{&pgproto3.AuthenticationOk{}}
	for k, v := range session.ParameterStatuses {
		welcome = append(welcome, &pgproto3.ParameterStatus{Name: k, Value: v})
	}
	welcome = append(welcome, &pgproto3.BackendKeyData{ProcessID: session.PID, SecretKey: session.SecretKey}, &pgproto3.ReadyForQuery{TxStatus: session.TxStatus})
	if send(client, welcome...) != nil {
		return
	}
	r.wg.Add(1)
	go func() {
		defer r.wg.Done()
		_, _ = io.Copy(client, server)
		_ = client.Close()
	}()
	if err := r.forward(client, server); err != nil {
		r.fail(err)
	}
	_ = server.Close()
}

// Codes of the first message of a connection that is none of a session.
const (
	codeCancel = 80877102
	codeSSL    = 80877103
	codeGSS    = 80877104
	maxStartup = 10000
)

// greet reads what comes before a session. The parameters are of no use: the session is there.
func greet(client io.ReadWriter) (session bool, err error) {
	for range 3 { // one for each encryption that may be asked for
		var head [8]byte
		if _, err := io.ReadFull(client, head[:]); err != nil {
			return false, err
		}
		length, code := binary.BigEndian.Uint32(head[:4]), binary.BigEndian.Uint32(head[4:])
		if length < 8 || length > maxStartup {
			return false, fmt.Errorf("greeting a tool: a first message of %d bytes", length)
		}
		if _, err := io.CopyN(io.Discard, client, int64(length-8)); err != nil {
			return false, err
		}
		switch code {
		case codeSSL, codeGSS:
			if _, err := client.Write([]byte{'N'}); err != nil {
				return false, err
			}
		case codeCancel:
			return false, nil
		default:
			return true, nil
		}
	}
	return false, errors.New("greeting a tool: it began no session")
}

func send(w io.Writer, messages ...pgproto3.BackendMessage) error {
	var b []byte
	for _, m := range messages {
		var err error
		if b, err = m.Encode(b); err != nil {
			return err
		}
	}
	_, err := w.Write(b)
	return err
}

const maxStatement = 32 << 10 // of those that answer is asked about

// forward passes the tool's messages on. A statement that the relay answers itself never meets an answer of the server under way: a tool sends
// the next one when it is told that the server is ready.
func (r *relay) forward(client net.Conn, server io.Writer) error {
	in := bufio.NewReaderSize(client, 2*maxStatement)
	for {
		head, err := in.Peek(5)
		if err != nil {
			return nil //nolint:nilerr // the tool is gone: it knows why
		}
		size := int64(binary.BigEndian.Uint32(head[1:])) + 1
		if size < 5 {
			return fmt.Errorf("passing on a tool's message: its size is %d", size)
		}
		if head[0] == 'Q' && size <= maxStatement && r.answer != nil {
			message, err := in.Peek(int(size))
			if err != nil {
				return nil //nolint:nilerr // the tool is gone in the middle of a message: it knows why
			}
			tag, err := r.answer(strings.TrimRight(string(message[5:]), "\x00"))
			if err != nil {
				return err
			}
			if tag != "" {
				_, _ = in.Discard(int(size))
				if err := send(client, &pgproto3.CommandComplete{CommandTag: []byte(tag)}, &pgproto3.ReadyForQuery{TxStatus: 'T'}); err != nil {
					return nil //nolint:nilerr // the tool is gone: it knows why
				}
				continue
			}
		}
		if _, err := io.CopyN(server, in, size); err != nil {
			return nil //nolint:nilerr // the server is gone, or the tool: it gets the end of the connection
		}
	}
}

// inSnapshot is the answer function for pg_dump in a session that has begun and adopted the snapshot. Whatever would end that
// transaction would end the snapshot with it, and the dump would go on with another: that is an error.
func inSnapshot(query string) (tag string, err error) {
	words := strings.Fields(strings.ToUpper(strings.TrimRight(strings.TrimSpace(query), "; \n")))
	switch {
	case len(words) == 0:
	case len(words) == 1 && words[0] == "BEGIN":
		return "BEGIN", nil
	case len(words) > 3 && words[0] == "SET" && words[1] == "TRANSACTION" && words[2] == "SNAPSHOT":
		return "SET", nil
	case words[0] == "COMMIT", words[0] == "END", words[0] == "ROLLBACK", words[0] == "ABORT", words[0] == "PREPARE" && len(words) > 1 && words[1] == "TRANSACTION":
		return "", fmt.Errorf("relaying pg_dump: it sent %s, which would leave the snapshot of the pause window; this version of pg_dump is not known to this provider", words[0])
	}
	return "", nil
}
