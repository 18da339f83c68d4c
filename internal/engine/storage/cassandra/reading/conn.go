package reading

import (
	"context"
	"errors"
	"fmt"
	"slices"

	gocql "github.com/apache/cassandra-gocql-driver/v2"
)

// Conn is what reading asks of a connection to a cluster. It is called from several goroutines.
type Conn interface {
	// Page runs a statement and passes the rows of one page to row, whose scan works as gocql's does. An error of the request passes none. next is nil after the
	// last page.
	Page(ctx context.Context, q Query, row func(scan func(dest ...any) error) error) (next []byte, err error)
	Close() error
}

// Query is one request.
type Query struct {
	Statement   string
	Args        []any
	Consistency gocql.Consistency
	PageSize    int
	State       []byte // the page to read: what the one before it returned; nil for the first
	// Host is the id of the node to ask; empty: any. A node that cannot be asked is an error.
	Host string
}

// session is Conn over gocql.
type session struct {
	s       *gocql.Session
	closers []func() error
}

// Over reads through a session of gocql. Close closes the session, then the closers. The session's Timeout is how
// long one page may take.
func Over(s *gocql.Session, closers ...func() error) Conn { return &session{s, closers} }

// Page implements Conn. The statements are prepared by the driver, once for each node. It retries nothing: that would hide from us that a node is slow.
func (c *session) Page(ctx context.Context, q Query, row func(scan func(dest ...any) error) error) ([]byte, error) {
	query := c.s.Query(q.Statement, q.Args...).Consistency(q.Consistency).Idempotent(true).RetryPolicy(nil).
		SetSpeculativeExecutionPolicy(gocql.NonSpeculativeExecution{}).PageState(q.State)
	if q.PageSize > 0 {
		query = query.PageSize(q.PageSize)
	}
	if q.Host != "" {
		query = query.SetHostID(q.Host)
	}
	iter := query.IterContext(ctx)
	// A query's error comes before any row.
	next := slices.Clone(iter.PageState())
	var failed error
	for range iter.NumRows() {
		if failed = row(func(dest ...any) error {
			if !iter.Scan(dest...) {
				return &decodeError{errors.New("its type is not what ScalarDB makes")}
			}
			return nil
		}); failed != nil {
			break
		}
	}
	if err := iter.Close(); err != nil {
		if failed != nil {
			return nil, &decodeError{err}
		}
		return nil, err
	}
	if failed != nil {
		return nil, failed
	}
	if len(next) == 0 {
		next = nil
	}
	return next, nil
}

// Close implements Conn.
func (c *session) Close() error {
	c.s.Close()
	var errs []error
	for _, f := range c.closers {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

// decodeError is a value that cannot be read: asking again changes nothing.
type decodeError struct{ err error }

func (e *decodeError) Error() string { return "decoding a row: " + e.err.Error() }
func (e *decodeError) Unwrap() error { return e.err }

// permanent tells errors that come back however often one asks.
func permanent(err error) bool {
	var decode *decodeError
	return errors.As(err, &decode) || errors.Is(err, gocql.ErrSessionClosed) || errors.Is(err, context.Canceled) ||
		HasCode(err, gocql.ErrCodeSyntax, gocql.ErrCodeUnauthorized, gocql.ErrCodeInvalid, gocql.ErrCodeConfig, gocql.ErrCodeCredentials,
			gocql.ErrCodeProtocol, gocql.ErrCodeFunctionFailure)
}

// Unanswered says that a replica did not answer in time, or the node that asked it.
func Unanswered(err error) bool {
	return errors.Is(err, gocql.ErrTimeoutNoResponse) || HasCode(err, gocql.ErrCodeReadTimeout, gocql.ErrCodeReadFailure)
}

// slow tells errors that a smaller request may not have.
func slow(err error) bool {
	return Unanswered(err) || errors.Is(err, context.DeadlineExceeded) || HasCode(err, gocql.ErrCodeOverloaded)
}

// HasCode says that a node refused a request with one of the codes.
func HasCode(err error, codes ...int) bool {
	var request gocql.RequestError
	return errors.As(err, &request) && slices.Contains(codes, request.Code())
}

// cell is a key column's value as it came; it is good until the page ends.
type cell struct {
	info gocql.TypeInfo
	data []byte
}

// UnmarshalCQL implements gocql.Unmarshaler.
func (c *cell) UnmarshalCQL(info gocql.TypeInfo, data []byte) error {
	c.info, c.data = info, data
	return nil
}

// maxReadable bounds a key's value in messages, in bytes.
const maxReadable = 100

func (c *cell) String() string { return readable(c.info, c.data) }

// hinted adds to an error what the user may do about it.
func hinted(err error) error {
	switch {
	case HasCode(err, gocql.ErrCodeUnauthorized):
		return fmt.Errorf("%w; verification needs SELECT on ScalarDB's keyspaces", err)
	case HasCode(err, gocql.ErrCodeUnavailable):
		return fmt.Errorf("%w; too few replicas are up", err)
	}
	return err
}
