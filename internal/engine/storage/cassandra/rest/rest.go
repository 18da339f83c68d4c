// Package rest is the HTTP client under the transports that speak to an agent of each node (Jolokia, Management API, Sidecar): one Client per node, with
// connections of its own that stay open between calls.
//
// Every call ends by a deadline, every answer is bounded, no redirect is followed (the agent that answers has to be the one that was asked), and no proxy is
// used, whatever the environment says: a proxy would stand between the pause and the nodes, and answer for them.
package rest

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
)

const (
	// MaxAnswer is the most bytes that an answer may have.
	MaxAnswer = 16 << 20
	// DefaultTimeout ends a call for which the caller set no earlier deadline.
	DefaultTimeout = 60 * time.Second
	// keepInterval is how often an idle connection is used. Java's own HTTP server, Jolokia's, closes those that are idle for 30 s.
	keepInterval = 10 * time.Second
)

// Settings say how the agents of all nodes are reached.
type Settings struct {
	// URL is where a node's agent is, http or https, with what node.Node.Expand replaces: "http://{address}:8080". A query goes along with every call.
	URL string
	// TLS has the certificate authority and the client's certificate for https; nil trusts the machine's authorities.
	TLS *tls.Config
	// Username and Password are sent with every call (basic authentication) when there is a user. Over http they are readable on the way.
	Username, Password string
	// Timeout ends a call; DefaultTimeout when zero.
	Timeout time.Duration
	Clock   engine.Clock
}

// Validate tells what is wrong with the settings.
func (s Settings) Validate() error {
	_, err := s.at(node.Node{Address: "192.0.2.1", HostID: "00000000-0000-0000-0000-000000000000", Datacenter: "dc1", Rack: "r1"})
	return err
}

// at is the URL of one node's agent.
func (s Settings) at(n node.Node) (*url.URL, error) {
	if address, err := netip.ParseAddr(n.Address); err == nil && address.Is6() {
		n.Address = "[" + n.Address + "]"
	}
	text := n.Expand(strings.ReplaceAll(s.URL, "[{address}]", "{address}"))
	u, err := url.Parse(text)
	if err != nil {
		// The error has the whole URL, which may have a password in it.
		return nil, errors.New("the url cannot be read: give one like http://{address}:8080")
	}
	switch {
	case u.User != nil:
		return nil, errors.New("the url has a user in it: give user and password in the provider's credentials")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("the url %s begins with neither http:// nor https://", text)
	case u.Hostname() == "":
		return nil, fmt.Errorf("the url %s has no host", text)
	case u.Fragment != "":
		return nil, fmt.Errorf("the url %s has a fragment (#)", text)
	case strings.ContainsAny(u.Host, "{}"), strings.ContainsAny(u.Path, "{}"):
		return nil, fmt.Errorf("the url %s has braces: only {address}, {host_id}, {datacenter} and {rack} stand for something", text)
	}
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/"), strings.TrimRight(u.RawPath, "/")
	return u, nil
}

// Client speaks to one node's agent. Its methods may be called concurrently.
type Client struct {
	settings  Settings
	base      *url.URL
	http      *http.Client
	transport *http.Transport
	stop      context.CancelFunc
	kept      sync.WaitGroup

	mu   sync.Mutex
	used time.Duration // Clock.Boot of the last answer
}

// New makes a client for one node's agent, which may have that many calls at a time without new connections. It connects to nothing yet. Close it.
func New(s Settings, n node.Node, connections int) (*Client, error) {
	base, err := s.at(n)
	if err != nil {
		return nil, err
	}
	if s.Timeout <= 0 {
		s.Timeout = DefaultTimeout
	}
	transport := &http.Transport{
		// The second is for what keeps it open, so that a call never waits for it.
		MaxIdleConnsPerHost: connections + 1,
		IdleConnTimeout:     0, // the agent's own limit counts
		DisableCompression:  true,
		DialContext:         (&net.Dialer{Timeout: s.Timeout, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout: s.Timeout,
		TLSClientConfig:     s.TLS.Clone(),
	}
	return &Client{
		settings: s, base: base, transport: transport, stop: func() {},
		http: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}, nil
}

// Call is one request.
type Call struct {
	Method string
	Path   []string // below the URL's own, each element escaped whole
	Query  url.Values
	JSON   any           // the body; none when nil
	Limit  time.Duration // instead of Settings.Timeout
}

// Answer is what came back, whatever its status.
type Answer struct {
	Status int
	Body   []byte
	Peer   netip.Addr // who answered
}

// JSON reads the body into v.
func (a Answer) JSON(v any) error {
	if err := json.Unmarshal(a.Body, v); err != nil {
		return fmt.Errorf("its answer is not the JSON that was expected (%s): is it another service's port?", Excerpt(a.Body))
	}
	return nil
}

// OK is an error, a *StatusError, unless the status is 2xx.
func (a Answer) OK() error {
	if a.Status >= 200 && a.Status < 300 {
		return nil
	}
	return &StatusError{Status: a.Status, Text: Excerpt(a.Body)}
}

// StatusError is an answer that says that something failed.
type StatusError struct {
	Status int
	Text   string // what the agent said, shortened
}

func (e *StatusError) Error() string {
	text := fmt.Sprintf("HTTP %d %s", e.Status, http.StatusText(e.Status))
	if e.Text != "" {
		text += " (" + e.Text + ")"
	}
	switch {
	case e.Status == http.StatusUnauthorized:
		text += ": give the right user and password, or the client's certificate, in the provider's credentials"
	case e.Status == http.StatusForbidden:
		text += ": the user or certificate may not do that"
	case e.Status >= 300 && e.Status < 400:
		text += ": it redirects, which is not followed; give the place itself in the url"
	}
	return text
}

// Excerpt is the beginning of a text that somebody else wrote, fit for a message of one line.
func Excerpt(text []byte) string {
	const limit = 300
	short := strings.ToValidUTF8(string(text[:min(len(text), limit)]), "")
	short = strings.Join(strings.FieldsFunc(short, func(r rune) bool { return r <= ' ' || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029 }), " ")
	if len(text) > limit {
		short += "…"
	}
	return short
}

// Do makes one call and reads its whole answer. The error says who was asked, and never what was sent.
func (c *Client) Do(ctx context.Context, call Call) (Answer, error) {
	answer, err := c.do(ctx, call)
	if err != nil {
		return Answer{}, fmt.Errorf("asking %s: %w", c.base.Host, err)
	}
	return answer, nil
}

func (c *Client) do(ctx context.Context, call Call) (answer Answer, err error) {
	limit := c.settings.Timeout
	if call.Limit > 0 {
		limit = call.Limit
	}
	ctx, cancel := c.settings.Clock.WithTimeout(ctx, limit)
	defer cancel()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) {
		if at, err := netip.ParseAddrPort(got.Conn.RemoteAddr().String()); err == nil {
			answer.Peer = at.Addr().Unmap().WithZone("")
		}
	}})
	request, err := c.request(ctx, call)
	if err != nil {
		return Answer{}, err
	}
	response, err := c.http.Do(request)
	if err != nil {
		var full *url.Error
		if errors.As(err, &full) {
			err = full.Err // it would repeat the whole URL
		}
		return Answer{}, err
	}
	defer func() { _ = response.Body.Close() }() // what was not read of it is refused below
	answer.Status = response.StatusCode
	answer.Body, err = io.ReadAll(io.LimitReader(response.Body, MaxAnswer+1))
	if err != nil {
		return Answer{}, fmt.Errorf("reading its answer: %w", err)
	}
	if len(answer.Body) > MaxAnswer {
		return Answer{}, fmt.Errorf("its answer has more than %d MiB", MaxAnswer>>20)
	}
	c.mu.Lock()
	c.used = c.settings.Clock.Boot()
	c.mu.Unlock()
	return answer, nil
}

func (c *Client) request(ctx context.Context, call Call) (*http.Request, error) {
	u := *c.base
	path, raw := u.Path, u.EscapedPath()
	for _, element := range call.Path {
		if element == "." || element == ".." {
			return nil, fmt.Errorf("%q is no name", element)
		}
		path += "/" + element
		raw += "/" + url.PathEscape(element)
	}
	u.Path, u.RawPath = path, raw
	if len(call.Query) > 0 {
		u.RawQuery = strings.TrimPrefix(u.RawQuery+"&"+call.Query.Encode(), "&")
	}
	var body io.Reader
	if call.JSON != nil {
		text, err := json.Marshal(call.JSON)
		if err != nil {
			return nil, fmt.Errorf("internal error: encoding a request: %w", err)
		}
		body = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, call.Method, u.String(), body)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/json, text/plain;q=0.9, */*;q=0.1")
	request.Header.Set("User-Agent", "terraform-provider-scalardb")
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if c.settings.Username != "" {
		request.SetBasicAuth(c.settings.Username, c.settings.Password)
	}
	return request, nil
}

// Keep opens connections by that many calls at once, and from then on uses an idle client's every 10 s until Close, so that neither the agent nor what
// lies in between closes them. The call has to be cheap and change nothing. It fails when none of the first calls is answered; later failures don't show.
func (c *Client) Keep(ctx context.Context, connections int, call Call) error {
	ask := func(ctx context.Context) error {
		errs := make([]error, connections)
		var asking sync.WaitGroup
		for i := range connections {
			asking.Go(func() { _, errs[i] = c.Do(ctx, call) })
		}
		asking.Wait()
		for _, err := range errs {
			if err == nil {
				return nil
			}
		}
		return errs[0]
	}
	if err := ask(ctx); err != nil {
		return err
	}
	c.stop()
	c.kept.Wait()
	ctx, c.stop = context.WithCancel(context.WithoutCancel(ctx))
	c.kept.Go(func() {
		for c.settings.Clock.Sleep(ctx, keepInterval) == nil {
			c.mu.Lock()
			idle := c.settings.Clock.Boot() - c.used
			c.mu.Unlock()
			if idle >= keepInterval/2 {
				_ = ask(ctx) // the next real call tells
			}
		}
	})
	return nil
}

// Close closes the connections.
func (c *Client) Close() {
	c.stop()
	c.kept.Wait()
	c.transport.CloseIdleConnections()
}
