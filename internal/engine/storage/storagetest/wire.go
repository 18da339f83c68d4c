package storagetest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/clock"
)

// Break is what befalls one call to a service.
type Break string

// The kinds of breaks. Clients try again after all of them but Denied.
const (
	ServerError      Break = "server error"       // HTTP 500, and nothing was done
	ServerErrorAfter Break = "server error after" // HTTP 500 although it was done
	LostRequest      Break = "lost request"       // the connection breaks before anything was done
	LostAnswer       Break = "lost answer"        // the connection breaks when it was done
	Throttled        Break = "throttled"          // refused for now, nothing was done
	Denied           Break = "denied"             // refused for good: the permission is missing
)

// breaks has a definite failure at both ends: it is what a driver, whose client tries the others again, surely sees.
var breaks = []Break{Denied, LostAnswer, ServerErrorAfter, Throttled, LostRequest, ServerError, Denied} //nolint:gochecknoglobals // a constant

// Wire stands between a driver and a stand-in of one of AWS's services: it counts the driver's calls and breaks them. What the stand-in answers is passed on as it
// is. It speaks the protocols of RDS (query) and of DynamoDB (JSON) as far as that is needed to refuse a call.
type Wire struct {
	URL string // for the driver, in place of the service's

	upstream string
	client   *http.Client
	server   *httptest.Server

	mu    sync.Mutex
	calls []string
	watch func(n int, call string) Break
	after func(call string)
	dead  bool           // the driver is: what it still had on the way does not arrive
	under sync.WaitGroup // calls that reached the service
}

// NewWire listens on a free port of the loopback interface until the test ends.
func NewWire(t testing.TB, upstream string) *Wire {
	t.Helper()
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 32}
	w := &Wire{upstream: upstream, client: &http.Client{Transport: transport}}
	s := httptest.NewServer(w)
	w.server, w.URL = s, s.URL
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
		transport.CloseIdleConnections()
	})
	return w
}

// listen forgets the calls so far, and from now on asks f about every one, from 0 on, before it reaches the service. A nil f breaks none.
func (w *Wire) listen(f func(n int, call string) Break) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls, w.watch, w.after = nil, f, nil
}

// look forgets the calls so far, and from now on calls f when the service has done a call, before the driver hears of it.
func (w *Wire) look(f func(call string)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls, w.watch, w.after = nil, nil, f
}

// heard is the names of the calls since listen.
func (w *Wire) heard() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.calls...)
}

// settle waits until the service has done every call that reached it, drops what did not, and breaks nothing any more.
func (w *Wire) settle() {
	drop := func(yes bool) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.dead = yes
	}
	drop(true) // a cancelled call may still be on its way to us
	w.server.CloseClientConnections()
	w.under.Wait()
	w.listen(nil)
	drop(false)
}

// ServeHTTP passes one call on.
func (w *Wire) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 32<<20))
	if err != nil {
		return // the client is gone
	}
	call := callOf(r, body)
	w.mu.Lock()
	if w.dead {
		w.mu.Unlock()
		panic(http.ErrAbortHandler)
	}
	n, watch, after := len(w.calls), w.watch, w.after
	w.calls = append(w.calls, call)
	w.under.Add(1)
	w.mu.Unlock()
	defer w.under.Done()
	var b Break
	if watch != nil {
		b = watch(n, call)
	}
	switch b {
	case LostRequest:
		panic(http.ErrAbortHandler) // the connection is closed
	case ServerError, Throttled, Denied:
		refuse(rw, r, b)
		return
	}
	// What reached the service is done, whoever has gone.
	out, err := http.NewRequestWithContext(context.WithoutCancel(r.Context()), r.Method, w.upstream+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	out.Header, out.Host = r.Header.Clone(), r.Host
	in, err := w.client.Do(out)
	if err != nil {
		panic(http.ErrAbortHandler) // the service broke it
	}
	defer in.Body.Close() //nolint:errcheck // read only
	answer, err := io.ReadAll(in.Body)
	if err != nil || b == LostAnswer {
		panic(http.ErrAbortHandler)
	}
	if after != nil {
		after(call)
	}
	if b == ServerErrorAfter && in.StatusCode < http.StatusMultipleChoices {
		refuse(rw, r, b)
		return
	}
	for name, values := range in.Header { // Date is among them: the service's clock is measured by it
		rw.Header()[name] = values
	}
	rw.WriteHeader(in.StatusCode)
	_, _ = rw.Write(answer)
}

func isJSON(r *http.Request) bool { return strings.Contains(r.Header.Get("Content-Type"), "json") }

// callOf is the name of a call.
func callOf(r *http.Request, body []byte) string {
	if isJSON(r) {
		target := r.Header.Get("X-Amz-Target")
		return target[strings.LastIndexByte(target, '.')+1:]
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return ""
	}
	return form.Get("Action")
}

func refuse(rw http.ResponseWriter, r *http.Request, b Break) {
	status, query, json := http.StatusInternalServerError, "InternalFailure", "InternalServerError"
	switch b {
	case Throttled:
		status, query, json = http.StatusBadRequest, "Throttling", "ThrottlingException"
	case Denied:
		status, query, json = http.StatusForbidden, "AccessDenied", "AccessDeniedException"
		if isJSON(r) {
			status = http.StatusBadRequest
		}
	}
	// No Date header: the service did not answer.
	rw.Header()["Date"] = nil
	if isJSON(r) {
		rw.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		rw.WriteHeader(status)
		fmt.Fprintf(rw, `{"__type":%q,"message":"it was injected: %s"}`, json, b)
		return
	}
	rw.Header().Set("Content-Type", "text/xml")
	rw.WriteHeader(status)
	fmt.Fprintf(rw, `<ErrorResponse><Error><Type>Sender</Type><Code>%s</Code><Message>it was injected: %s</Message></Error><RequestId>0</RequestId></ErrorResponse>`, query, b)
}

// Hasty is the machine's clock for restores and for deleting: it sleeps a twentieth of what it is asked for, at most 50 ms, since stand-ins need no longer. No
// source may have it: when its sleep ends is part of what it proves.
type Hasty struct{ clock.System }

// Sleep implements engine.Clock.
func (h Hasty) Sleep(ctx context.Context, d time.Duration) error {
	return h.System.Sleep(ctx, min(d/20, 50*time.Millisecond))
}
