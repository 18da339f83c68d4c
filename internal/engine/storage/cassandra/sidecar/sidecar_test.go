package sidecar

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/testclock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node/nodetest"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/rest"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/sidecar/sidecartest"
)

var (
	items  = node.Table{Keyspace: "app", Name: "items"}
	odd    = node.Table{Keyspace: "app", Name: "MixedCase"}
	state  = node.Table{Keyspace: "coordinator", Name: "state"}
	both   = []string{"app", "coordinator"}
	this   = node.Node{HostID: "5d2318b0-cfec-4697-8ed2-014b5f434ae8", Address: "127.0.0.1", Tokens: []string{"-1", "20", "3"}}
	second = node.Node{HostID: "5d2318b0-cfec-4697-8ed2-014b5f434ae9", Address: "127.0.0.2", Tokens: []string{"1", "2", "4"}}
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wants(t *testing.T, err error, says string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), says) {
		t.Errorf("got %v, want %q", err, says)
	}
}

func start(t *testing.T, o sidecartest.Options, tables ...node.Table) (*sidecartest.Server, *nodetest.Memory) {
	t.Helper()
	if len(tables) == 0 {
		tables = []node.Table{items, odd, state}
	}
	memory := nodetest.NewMemory(tables...)
	o.Node, o.Cluster, o.Backing = this, []node.Node{this, second}, sidecartest.Over(memory)
	return sidecartest.Start(t, o), memory
}

func open(t *testing.T, server *sidecartest.Server, memory *nodetest.Memory, n node.Node) (*Operator, error) {
	t.Helper()
	transport, err := New(rest.Settings{URL: server.URL, Timeout: 10 * time.Second, Clock: testclock.New()}, memory.Tables)
	must(t, err)
	o, err := transport.Open(t.Context(), n)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = o.Close() })
	return o.(*Operator), nil
}

func opened(t *testing.T, o sidecartest.Options, tables ...node.Table) (*sidecartest.Server, *nodetest.Memory, *Operator) {
	t.Helper()
	server, memory := start(t, o, tables...)
	operator, err := open(t, server, memory, this)
	must(t, err)
	return server, memory, operator
}

// With the Sidecar's lists, which grow old, and without.
func TestSnapshots(t *testing.T) {
	for _, noCache := range []bool{false, true} {
		server, memory, o := opened(t, sidecartest.Options{NoCache: noCache})
		memory.Fill(items, 1<<20)
		for _, tag := range []string{"t1", "t2"} {
			must(t, o.CheckRights(t.Context(), tag, both))
			if all, _ := memory.Snapshots(t.Context()); tag == "t1" && len(all) > 0 {
				t.Errorf("checking rights left %v", all)
			}
			must(t, o.TakeSnapshot(t.Context(), tag, both))
			of, err := o.SnapshotsOf(t.Context(), tag)
			if err != nil || len(of) != 3 || of[0].Size < 1<<20 || of[0].TrueSize != -1 || of[1].Table != "MixedCase" {
				t.Fatalf("%s: %+v, %v", tag, of, err)
			}
			if err := o.TakeSnapshot(t.Context(), tag, both); !errors.Is(err, node.ErrSnapshotExists) {
				t.Errorf("a second one: %v", err)
			}
		}
		all, err := o.Snapshots(t.Context())
		if err != nil || len(all) != 6 {
			t.Errorf("all: %v, %v", all, err)
		}
		for range 2 {
			must(t, o.ClearSnapshot(t.Context(), "t1", both))
		}
		if of, err := o.SnapshotsOf(t.Context(), "t1"); err != nil || len(of) != 0 {
			t.Errorf("after clearing: %v, %v", of, err)
		}
		if of, err := o.SnapshotsOf(t.Context(), "t2"); err != nil || len(of) != 3 {
			t.Errorf("the other tag's: %v, %v", of, err)
		}
		// Another run looks, with the lists as they are; and what it did not take, CheckRights sees.
		later, err := open(t, server, memory, this)
		must(t, err)
		if of, err := later.SnapshotsOf(t.Context(), "t2"); err != nil || len(of) != 3 {
			t.Errorf("seen later: %v, %v", of, err)
		}
		if of, err := later.SnapshotsOf(t.Context(), "t1"); err != nil || slices.ContainsFunc(of, func(s node.Snapshot) bool { return s.Keyspace == "app" }) {
			t.Errorf("seen later though it is cleared: %v, %v", of, err)
		}
	}
}

func TestExistingIsSeenBefore(t *testing.T) {
	_, memory, o := opened(t, sidecartest.Options{})
	must(t, memory.TakeSnapshot(t.Context(), "t1", []string{"coordinator"}))
	if err := o.CheckRights(t.Context(), "t1", both); !errors.Is(err, node.ErrSnapshotExists) {
		t.Errorf("got %v", err)
	}
	// Some have it, others were made: that is more than "exists, and nothing was done".
	if err := o.TakeSnapshot(t.Context(), "t1", both); err == nil || errors.Is(err, node.ErrSnapshotExists) || !strings.Contains(err.Error(), "coordinator.state") {
		t.Errorf("got %v", err)
	}
}

// All tables are asked for at once, no more than 16 at a time; the tables themselves were asked for before.
func TestParallel(t *testing.T) {
	var tables []node.Table
	for i := range 40 {
		tables = append(tables, node.Table{Keyspace: "app", Name: fmt.Sprintf("t%d", i)})
	}
	server, memory, o := opened(t, sidecartest.Options{}, tables...)
	must(t, o.CheckRights(t.Context(), "t1", []string{"app"}))
	o.tables = func(context.Context, []string) ([]node.Table, error) {
		return nil, errors.New("asked for tables in the window")
	}
	var mu sync.Mutex
	now, most := 0, 0
	full := make(chan struct{})
	server.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut {
			return false
		}
		mu.Lock()
		now++
		if most = max(most, now); now == parallel {
			select {
			case <-full:
			default:
				close(full)
			}
		}
		mu.Unlock()
		select {
		case <-full: // the first ones wait for one another
		case <-r.Context().Done():
		}
		mu.Lock()
		now--
		mu.Unlock()
		return false
	})
	must(t, o.TakeSnapshot(t.Context(), "t1", []string{"app"}))
	if most != parallel {
		t.Errorf("%d at a time, want %d", most, parallel)
	}
	if all, _ := memory.Snapshots(t.Context()); len(all) != len(tables) {
		t.Errorf("%d of %d tables", len(all), len(tables))
	}
}

func TestFailureEndsIt(t *testing.T) {
	var tables []node.Table
	for i := range 400 {
		tables = append(tables, node.Table{Keyspace: "app", Name: fmt.Sprintf("t%d", i)})
	}
	server, memory, o := opened(t, sidecartest.Options{}, tables...)
	must(t, o.CheckRights(t.Context(), "t1", []string{"app"}))
	failed := make(chan struct{})
	server.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut {
			return false
		}
		if !strings.Contains(r.URL.Path, "/t20/") {
			if !regexp.MustCompile(`/t1?[0-9]/`).MatchString(r.URL.Path) {
				<-failed // those that come later end later
			}
			return false
		}
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = w.Write([]byte(`{"status":"Internal Server Error","code":500,"message":"no space left"}`))
		close(failed)
		return true
	})
	err := o.TakeSnapshot(t.Context(), "t1", []string{"app"})
	wants(t, err, "app.t20: HTTP 500")
	wants(t, err, "no space left")
	all, _ := memory.Snapshots(t.Context())
	if len(all) >= len(tables)-1 { // how soon the others hear of it is the machine's matter
		t.Errorf("%d tables were taken though one had failed", len(all))
	}
	server.Intercept(nil)
	must(t, o.ClearSnapshot(t.Context(), "t1", []string{"app"}))
	if all, _ := memory.Snapshots(t.Context()); len(all) > 0 {
		t.Errorf("%d are left", len(all))
	}
}

func TestRights(t *testing.T) {
	for _, right := range []string{sidecartest.RightCreate, sidecartest.RightRead, sidecartest.RightDelete} {
		_, memory, o := opened(t, sidecartest.Options{Without: []string{right}, Tables: []node.Table{state}})
		wants(t, o.CheckRights(t.Context(), "t1", both), "HTTP 403")
		if all, _ := memory.Snapshots(t.Context()); len(all) > 0 {
			t.Errorf("it left %v", all)
		}
	}
	// Without the right to read files, a list is believed.
	_, memory, o := opened(t, sidecartest.Options{Without: []string{sidecartest.RightStream}})
	memory.Fill(items, 1000)
	must(t, o.CheckRights(t.Context(), "t1", both))
	must(t, o.TakeSnapshot(t.Context(), "t1", both))
	if of, err := o.SnapshotsOf(t.Context(), "t1"); err != nil || len(of) != 3 {
		t.Errorf("%v, %v", of, err)
	}
	_, _, o = opened(t, sidecartest.Options{Joining: true})
	wants(t, o.TakeSnapshot(t.Context(), "t1", both), "HTTP 503")
}

func TestIdentity(t *testing.T) {
	for name, c := range map[string]struct {
		options sidecartest.Options
		node    node.Node
		says    string
	}{
		"tokens":              {sidecartest.Options{}, this, ""},
		"tokens, no gossip":   {sidecartest.Options{Without: []string{sidecartest.RightGossip}}, this, ""},
		"another's tokens":    {sidecartest.Options{}, second, "of another node"},
		"another cluster's":   {sidecartest.Options{}, node.Node{HostID: second.HostID[:35] + "0", Address: "127.0.0.1", Tokens: this.Tokens}, "has no node"},
		"address":             {sidecartest.Options{OldRelease: true}, this, ""},
		"another's address":   {sidecartest.Options{OldRelease: true}, second, "with the address 127.0.0.1"},
		"nothing to prove by": {sidecartest.Options{OldRelease: true, Without: []string{sidecartest.RightGossip}}, this, "HTTP 403"},
		"unknown host":        {sidecartest.Options{Host: "cassandra-1"}, this, "knows no node of the host"},
	} {
		server, memory := start(t, c.options)
		_, err := open(t, server, memory, c.node)
		if c.says == "" && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if c.says != "" {
			wants(t, err, c.says)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"snapshotFilesInfo":[{"size":1,"host":"h","port":9043,"dataDirIndex":0,"snapshotName":"t","keySpaceName":"k","tableName":"c-1","fileName":"nb-1-big-TOC.txt"}]}`), 200)
	f.Add([]byte(`{"status":"Conflict","code":409,"message":"Snapshot t already exists."}`), 409)
	f.Add([]byte(`{"/10.0.0.1:7000":{"hostId":"x","nativeAddressAndPort":"10.0.0.1:9042"}}`), 200)
	f.Fuzz(func(t *testing.T, body []byte, status int) {
		a := rest.Answer{Status: status, Body: body}
		if err := failure(a); err != nil && (len(err.Error()) > 1000 || strings.ContainsAny(err.Error(), "\r\n")) {
			t.Errorf("%q: %v", body, err)
		}
		files, err := readFiles(a, "t")
		for _, f := range files {
			if err != nil || f.Tag != "t" || f.Name == "" || f.Size < 0 {
				t.Errorf("%q: %+v, %v", body, f, err)
			}
		}
		var all gossip
		if a.JSON(&all) == nil {
			_ = settings{Address: "10.0.0.1"}.match(all, node.Node{HostID: "x"}, false)
		}
	})
}
