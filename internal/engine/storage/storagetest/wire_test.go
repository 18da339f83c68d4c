package storagetest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// Every kind of break does what it says: to the service, and to who called it.
func TestWire(t *testing.T) {
	var done atomic.Int64
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		done.Add(1)
		w.Header().Set("Date", "Thu, 01 Jan 1970 00:00:00 GMT")
		fmt.Fprint(w, "an answer")
	}))
	defer service.Close()
	w := NewWire(t, service.URL)
	call := func() string {
		r, err := http.Post(w.URL, "application/x-www-form-urlencoded", strings.NewReader("Action=CreateThing")) //nolint:noctx // at once
		if err != nil {
			return "no answer"
		}
		defer r.Body.Close() //nolint:errcheck // read only
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return "no answer"
		}
		return fmt.Sprintf("%d %s %s", r.StatusCode, r.Header.Get("Date"), body)
	}
	for _, c := range []struct {
		b    Break
		does int64
		says string
	}{
		{"", 1, "200 Thu, 01 Jan 1970 00:00:00 GMT an answer"},
		{ServerError, 0, "<Code>InternalFailure</Code>"},
		{ServerErrorAfter, 1, "<Code>InternalFailure</Code>"},
		{LostRequest, 0, "no answer"},
		{LostAnswer, 1, "no answer"},
		{Throttled, 0, "<Code>Throttling</Code>"},
		{Denied, 0, "<Code>AccessDenied</Code>"},
	} {
		w.at(moment{"CreateThing", 2}, func() Break { return c.b })
		first, before := call(), done.Load()
		if got := call(); !strings.Contains(got, c.says) || done.Load()-before != c.does || !strings.HasPrefix(first, "200 ") {
			t.Errorf("%q: first %q, then %q, and it was done %d times", c.b, first, got, done.Load()-before)
		}
		if got := w.heard(); !slices.Equal(got, []string{"CreateThing", "CreateThing"}) {
			t.Errorf("heard %q", got)
		}
	}
	w.undeletable()
	if got := call(); !strings.HasPrefix(got, "200 ") {
		t.Errorf("what deletes nothing was refused: %q", got)
	}
}

// A suite breaks and dies at calls of all kinds, and at those that change something for sure.
func TestMoments(t *testing.T) {
	calls := []string{"ListTables", "DescribeTable", "DescribeTable", "Restore", "Restore", "DescribeTable", "TagResource", "DescribeTable"}
	tr := &trial{suite: Suite{Faults: 3}}
	if got, want := fmt.Sprint(tr.deaths(calls)), "[Restore 1 Restore 2 TagResource 1]"; got != want {
		t.Errorf("deaths %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(tr.faults(calls)), "[DescribeTable 1: denied Restore 2: lost answer TagResource 1: server error after Restore 1: lost answer TagResource 1: lost answer]"; got != want {
		t.Errorf("faults %s, want %s", got, want)
	}
	tr.suite.Faults = 0
	if got := len(tr.faults(calls)); got != 8*6+2 {
		t.Errorf("%d of all faults", got)
	}
}
