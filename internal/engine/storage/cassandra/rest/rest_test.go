package rest

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/testclock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
)

func client(t *testing.T, s Settings, h http.Handler) *Client {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	if s.URL == "" {
		s.URL = server.URL
	}
	if s.Clock == nil {
		s.Clock = testclock.New()
	}
	c, err := New(s, node.Node{Address: "127.0.0.1"}, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestValidate(t *testing.T) {
	for _, good := range []string{"http://{address}:8080", "https://{host_id}.example/base/", "http://sidecar:9043?instanceId=1", "http://[{address}]:80"} {
		if err := (Settings{URL: good}).Validate(); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for bad, says := range map[string]string{
		"": "neither http", "{address}:8080": "", "ftp://x": "neither http", "http://": "no host", "http://user:secret@x": "credentials",
		"http://x#y": "fragment", "http://x/{node}": "braces", "http://x:port/secret": "cannot be read",
	} {
		err := (Settings{URL: bad}).Validate()
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestExpand(t *testing.T) {
	for _, c := range []struct{ template, address, want string }{
		{"http://{address}:8080/", "10.0.0.1", "http://10.0.0.1:8080"},
		{"http://{address}:8080/a/", "fd00::1", "http://[fd00::1]:8080/a"},
		{"http://[{address}]:8080", "fd00::1", "http://[fd00::1]:8080"},
	} {
		u, err := Settings{URL: c.template}.at(node.Node{Address: c.address})
		if err != nil || u.String() != c.want {
			t.Errorf("%s for %s: %s, %v; want %s", c.template, c.address, u, err, c.want)
		}
	}
}

// What is asked for: the path's elements whole, the URL's own query beside the call's, the user's password, the body.
func TestRequest(t *testing.T) {
	var got *http.Request
	var body []byte
	c := client(t, Settings{Username: "u", Password: "p"}, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
	}))
	c.base.RawQuery = "instanceId=1"
	call := Call{Method: http.MethodPut, Path: []string{"a", "b/c d", `"T"`}, Query: url.Values{"x": {"1 2"}}, JSON: map[string]int{"n": 1}}
	a, err := c.Do(t.Context(), call)
	if err != nil {
		t.Fatal(err)
	}
	if want := "/a/b%2Fc%20d/%22T%22?instanceId=1&x=1+2"; got.RequestURI != want {
		t.Errorf("asked for %s, want %s", got.RequestURI, want)
	}
	if user, password, _ := got.BasicAuth(); user != "u" || password != "p" {
		t.Errorf("user %q, password %q", user, password)
	}
	if string(body) != `{"n":1}` || got.Header.Get("Content-Type") != "application/json" {
		t.Errorf("body %s of type %s", body, got.Header.Get("Content-Type"))
	}
	if a.Peer.String() != "127.0.0.1" {
		t.Errorf("answered by %s", a.Peer)
	}
	if _, err := c.Do(t.Context(), Call{Path: []string{".."}}); err == nil {
		t.Error(".. was taken for a name")
	}
}

func TestRedirectIsNotFollowed(t *testing.T) {
	var elsewhere atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	c := client(t, Settings{Username: "u", Password: "secret"}, http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	a, err := c.Do(t.Context(), Call{Method: http.MethodGet})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.OK(); err == nil || !strings.Contains(err.Error(), "redirects") || elsewhere.Load() != 0 {
		t.Errorf("%v; asked %d times elsewhere", err, elsewhere.Load())
	}
}

func TestAnswerIsBounded(t *testing.T) {
	c := client(t, Settings{}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for chunk := make([]byte, 1<<20); ; {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}))
	if _, err := c.Do(t.Context(), Call{Method: http.MethodGet}); err == nil || !strings.Contains(err.Error(), "16 MiB") {
		t.Errorf("an endless answer: %v", err)
	}
}

// An agent that neither answers nor hangs up.
func TestDeadline(t *testing.T) {
	c := client(t, Settings{Timeout: 50 * time.Millisecond}, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadAll(r.Body)
		<-r.Context().Done()
	}))
	start := time.Now()
	_, err := c.Do(context.Background(), Call{Method: http.MethodGet})
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 10*time.Second {
		t.Errorf("after %s: %v", time.Since(start), err)
	}
	if !strings.Contains(err.Error(), "127.0.0.1") || strings.Contains(err.Error(), "http://") {
		t.Errorf("the error names nobody, or the whole URL: %v", err)
	}
}

func TestStatusError(t *testing.T) {
	for status, says := range map[int]string{401: "credentials", 403: "may not", 302: "redirects", 500: "first line second"} {
		err := Answer{Status: status, Body: []byte("first\x1b line\r\n\tsecond" + strings.Repeat("x", 1000))}.OK()
		if err == nil || !strings.Contains(err.Error(), says) || strings.ContainsAny(err.Error(), "\r\n\x1b") || len(err.Error()) > 500 {
			t.Errorf("%d: %v", status, err)
		}
	}
	if err := (Answer{Status: 202}).OK(); err != nil {
		t.Error(err)
	}
}

// hand is a clock whose sleeps end by hand.
type hand struct {
	*testclock.Clock
	mu    sync.Mutex
	boot  time.Duration
	wakes chan struct{}
}

func (h *hand) Boot() time.Duration { h.mu.Lock(); defer h.mu.Unlock(); return h.boot }

func (h *hand) pass(d time.Duration) {
	h.mu.Lock()
	h.boot += d
	h.mu.Unlock()
	h.wakes <- struct{}{}
}

func (h *hand) Sleep(ctx context.Context, _ time.Duration) error {
	select {
	case <-h.wakes:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A connection that is not used is, by the client itself, so that it stays; one that is used is left alone. Calls go over it.
func TestKeep(t *testing.T) {
	var asked, connections atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	clock := &hand{Clock: testclock.New(), wakes: make(chan struct{})}
	c := client(t, Settings{URL: server.URL, Clock: clock}, http.NotFoundHandler())
	if err := c.Keep(t.Context(), 1, Call{Method: http.MethodGet}); err != nil {
		t.Fatal(err)
	}
	clock.pass(keepInterval)
	clock.pass(0) // the first wake has been worked off when this one is taken
	if got := asked.Load(); got != 2 {
		t.Errorf("asked %d times after an idle interval, want 2", got)
	}
	if _, err := c.Do(t.Context(), Call{Method: http.MethodGet}); err != nil {
		t.Fatal(err)
	}
	clock.pass(1)
	clock.pass(0)
	if got := asked.Load(); got != 3 {
		t.Errorf("asked %d times though it was in use, want 3", got)
	}
	if got := connections.Load(); got != 1 {
		t.Errorf("%d connections, want 1", got)
	}
	c.Close()
	server.Close()
	if err := client(t, Settings{URL: server.URL, Clock: clock}, http.NotFoundHandler()).Keep(t.Context(), 1, Call{Method: http.MethodGet}); err == nil {
		t.Error("nobody answers, and that is no error")
	}
}
