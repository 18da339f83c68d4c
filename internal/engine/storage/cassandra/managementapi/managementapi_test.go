package managementapi

import (
	"errors"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/testclock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/managementapi/managementapitest"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node/nodetest"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/rest"
)

var (
	items = node.Table{Keyspace: "app", Name: "items"}
	state = node.Table{Keyspace: "coordinator", Name: "state"}
	both  = []string{"app", "coordinator"}
	first = node.Node{HostID: "5d2318b0-cfec-4697-8ed2-014b5f434ae8", Address: "127.0.0.1", Tokens: []string{"-1"}}
	other = node.Node{HostID: "5d2318b0-cfec-4697-8ed2-014b5f434ae9", Address: "127.0.0.2", Tokens: []string{"1"}}
)

func start(t *testing.T, o managementapitest.Options) (*managementapitest.Server, *nodetest.Memory) {
	t.Helper()
	memory := nodetest.NewMemory(items, state)
	o.Node, o.Cluster, o.Backing = first, []node.Node{first, other}, memory
	return managementapitest.Start(t, o), memory
}

func open(t *testing.T, url string, n node.Node) (*Operator, error) {
	t.Helper()
	transport, err := New(rest.Settings{URL: url, Clock: testclock.New()})
	if err != nil {
		t.Fatal(err)
	}
	o, err := transport.Open(t.Context(), n)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = o.Close() })
	return o.(*Operator), nil
}

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

func TestSnapshots(t *testing.T) {
	server, memory := start(t, managementapitest.Options{})
	memory.Fill(items, 1<<20)
	o, err := open(t, server.URL, first)
	must(t, err)
	for _, tag := range []string{"t1", "odd & tag/é"} {
		must(t, o.CheckRights(t.Context(), tag, both))
		if all, _ := memory.Snapshots(t.Context()); slices.ContainsFunc(all, func(s node.Snapshot) bool { return s.Tag == tag }) {
			t.Errorf("checking rights left %v", all)
		}
		must(t, o.TakeSnapshot(t.Context(), tag, both))
		if err := o.TakeSnapshot(t.Context(), tag, both); !errors.Is(err, node.ErrSnapshotExists) {
			t.Errorf("a second one: %v", err)
		}
		if err := o.CheckRights(t.Context(), tag, both); !errors.Is(err, node.ErrSnapshotExists) {
			t.Errorf("checking rights for what is there: %v", err)
		}
		of, err := o.SnapshotsOf(t.Context(), tag)
		want := []node.Snapshot{
			{Tag: tag, Keyspace: "app", Table: "items", TrueSize: 1<<20 + 112, Size: 1<<20 + 112}, {Tag: tag, Keyspace: "coordinator", Table: "state", TrueSize: 110, Size: 110},
		}
		if err != nil || !reflect.DeepEqual(of, want) {
			t.Errorf("%s: %+v, %v", tag, of, err)
		}
	}
	must(t, o.ClearSnapshot(t.Context(), "t1", []string{"app"}))
	if of, err := o.SnapshotsOf(t.Context(), "t1"); err != nil || len(of) != 1 || of[0].Keyspace != "coordinator" {
		t.Errorf("after clearing one keyspace: %v, %v", of, err)
	}
	for range 2 {
		must(t, o.ClearSnapshot(t.Context(), "t1", nil))
	}
	if all, err := o.Snapshots(t.Context()); err != nil || len(all) != 2 {
		t.Errorf("the other tag's: %v, %v", all, err)
	}
	wants(t, o.ClearSnapshot(t.Context(), "", both), "them all")
	wants(t, o.TakeSnapshot(t.Context(), "t9", nil), "needs a tag and keyspaces")
	wants(t, o.TakeSnapshot(t.Context(), "t9", []string{"nope"}), "NodeOps.takeSnapshot): the reason is in the log")
}

// In the window, after CheckRights, nothing is listed; a 500 then is not taken for a tag that exists.
func TestTakingIsOneCall(t *testing.T) {
	server, memory := start(t, managementapitest.Options{})
	o, err := open(t, server.URL, first)
	must(t, err)
	must(t, o.CheckRights(t.Context(), "t1", both))
	var calls atomic.Int32
	server.Intercept(func(http.ResponseWriter, *http.Request) bool { calls.Add(1); return false })
	must(t, o.TakeSnapshot(t.Context(), "t1", both))
	if got := calls.Load(); got != 1 {
		t.Errorf("%d calls, want 1", got)
	}
	must(t, o.CheckRights(t.Context(), "t2", both))
	must(t, memory.TakeSnapshot(t.Context(), "t2", []string{"app"})) // somebody else, since
	if err := o.TakeSnapshot(t.Context(), "t2", both); err == nil || errors.Is(err, node.ErrSnapshotExists) {
		t.Errorf("refused for a reason that is not told: %v", err)
	}
	if err := o.TakeSnapshot(t.Context(), "t2", both); !errors.Is(err, node.ErrSnapshotExists) {
		t.Errorf("looked at once more: %v", err)
	}
}

func TestIdentity(t *testing.T) {
	for _, old := range []bool{false, true} {
		server, _ := start(t, managementapitest.Options{OldRelease: old})
		_, err := open(t, server.URL, first)
		must(t, err)
		_, err = open(t, server.URL, other)
		wants(t, err, "leads to node "+first.HostID)
	}
	// Not told, and reached by an address that no node has.
	server, _ := start(t, managementapitest.Options{OldRelease: true, Listen: "127.0.0.3:0"})
	_, err := open(t, server.URL, first)
	wants(t, err, "none has the address 127.0.0.3")
	server.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
		_, _ = w.Write([]byte(`{"entity":[{"HOST_ID":"a","IS_LOCAL":"true"},{"HOST_ID":"b","IS_LOCAL":"true"}]}`))
		return true
	})
	_, err = open(t, server.URL, first)
	wants(t, err, "2 nodes are its own")
}

func TestRepair(t *testing.T) {
	for fails, says := range map[string]string{"": "", "Nothing to repair for (1,2] in app": "", "Endpoint not alive": "not alive"} {
		server, _ := start(t, managementapitest.Options{RepairFails: fails})
		o, err := open(t, server.URL, first)
		must(t, err)
		err = o.Repair(t.Context(), "app")
		if says == "" {
			must(t, err)
		} else {
			wants(t, err, says)
		}
		wants(t, o.Repair(t.Context(), ""), "HTTP 400")
	}
}

func TestFlush(t *testing.T) {
	server, _ := start(t, managementapitest.Options{RepairFails: "of repairs only"})
	o, err := open(t, server.URL, first)
	must(t, err)
	must(t, o.Flush(t.Context(), "app"))
	wants(t, o.Flush(t.Context(), ""), "HTTP 400")
}

func TestHostileAnswers(t *testing.T) {
	server, _ := start(t, managementapitest.Options{})
	o, err := open(t, server.URL, first)
	must(t, err)
	var body atomic.Value
	server.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
		_, _ = w.Write([]byte(body.Load().(string)))
		return true
	})
	for text, says := range map[string]string{
		"OK": "not the JSON", "{}": "no list", "null": "no list", `{"entity":{}}`: "form that was expected", `{"entity":[{}]}`: "without a name", `{"entity":[{"Snapshot name":1}]}`: "form",
	} {
		body.Store(text)
		_, err := o.Snapshots(t.Context())
		wants(t, err, says)
	}
	body.Store(`{"entity":null}`)
	if all, err := o.Snapshots(t.Context()); err != nil || len(all) > 0 {
		t.Errorf("none: %v, %v", all, err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"entity":[{"Snapshot name":"t","Keyspace name":"k","Column family name":"c","True size":"1.24 KiB","Size on disk":"null"}]}`))
	f.Add([]byte(`{"entity":[{"HOST_ID":"a","IS_LOCAL":"true"},{"HOST_ID":"b","NATIVE_ADDRESS_AND_PORT":"[::1]:9042"}]}`))
	f.Add([]byte(`{"status":"COMPLETED","error":null}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		a := rest.Answer{Status: 200, Body: body}
		all, err := readSnapshots(a)
		for _, s := range all {
			if err != nil || s.Tag == "" || s.Keyspace == "" || s.Table == "" || s.Size < -1 {
				t.Errorf("%q: %+v, %v", body, s, err)
			}
		}
		_, _ = local(a)
		if done, err := readJob(a); done && err != nil {
			t.Errorf("%q: done, and %v", body, err)
		}
	})
}
