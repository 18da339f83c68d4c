package jolokia

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/testclock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/rest"
)

var both = []string{"app", "coordinator"}

// wants fails unless the error says so, in one line and without the password.
func wants(t *testing.T, err error, says string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), says) || strings.ContainsAny(err.Error(), "\n\r") || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v, want %q", err, says)
	}
}

func TestSnapshots(t *testing.T) {
	d, o := start(t)
	for _, tag := range []string{"t1", "odd, tag={}(.*)/!"} {
		if err := o.CheckRights(t.Context(), tag, both); err != nil {
			t.Fatal(err)
		}
		if err := o.TakeSnapshot(t.Context(), tag, both); err != nil {
			t.Fatal(err)
		}
		if err := o.TakeSnapshot(t.Context(), tag, both); !errors.Is(err, node.ErrSnapshotExists) {
			t.Errorf("a second one: %v", err)
		}
		if err := o.CheckRights(t.Context(), tag, both); !errors.Is(err, node.ErrSnapshotExists) {
			t.Errorf("checking rights for what is there: %v", err)
		}
		of, err := o.SnapshotsOf(t.Context(), tag)
		want := []node.Snapshot{{Tag: tag, Keyspace: "app", Table: "items", TrueSize: 110, Size: 1536}, {Tag: tag, Keyspace: "coordinator", Table: "state", TrueSize: 110, Size: 1536}}
		if err != nil || !reflect.DeepEqual(of, want) {
			t.Errorf("%s: %v, %v", tag, of, err)
		}
	}
	all, err := o.Snapshots(t.Context())
	if err != nil || len(all) != 4 {
		t.Errorf("all: %v, %v", all, err)
	}
	if err := o.ClearSnapshot(t.Context(), "t1", []string{"app"}); err != nil {
		t.Fatal(err)
	}
	if of, err := o.SnapshotsOf(t.Context(), "t1"); err != nil || len(of) != 1 || of[0].Keyspace != "coordinator" {
		t.Errorf("after clearing one keyspace: %v, %v", of, err)
	}
	for range 2 { // what is gone is no error
		if err := o.ClearSnapshot(t.Context(), "t1", nil); err != nil {
			t.Fatal(err)
		}
	}
	if all, err := o.Snapshots(t.Context()); err != nil || len(all) != 2 {
		t.Errorf("the other tag's: %v, %v", all, err)
	}
	wants(t, o.ClearSnapshot(t.Context(), "", nil), "them all")
	wants(t, o.TakeSnapshot(t.Context(), "t9", []string{"nope"}), "does not exist")
	wants(t, o.TakeSnapshot(t.Context(), "t9", nil), "needs a tag and keyspaces")
	if slices.Contains(d.seen, "exec "+importSSTables) {
		t.Error("it imported")
	}
}

func TestRightsAreChecked(t *testing.T) {
	for _, operation := range []string{takeSnapshot, clearSnapshot} {
		d, o := start(t)
		d.policy = operation
		wants(t, o.CheckRights(t.Context(), "t1", both), "policy forbids")
		if all, _ := d.memory.Snapshots(t.Context()); len(all) > 0 {
			t.Errorf("checking rights left %v", all)
		}
	}
}

func TestIdentity(t *testing.T) {
	d, _ := start(t)
	server := httptest.NewServer(d)
	defer server.Close()
	for _, c := range []struct{ url, password, hostID, says string }{
		{server.URL + "/jolokia", "secret", "00000000-0000-0000-0000-000000000001", "leads to node " + hostID},
		{server.URL + "/jolokia", "secretly wrong", hostID, "HTTP 401"},
		{server.URL + "/other", "secret", hostID, "HTTP 400"},
		{"http://127.0.0.1:1/jolokia", "secret", hostID, "connection refused"},
	} {
		transport, err := New(rest.Settings{URL: c.url, Username: "u", Password: c.password, Clock: testclock.New()})
		if err != nil {
			t.Fatal(err)
		}
		_, err = transport.Open(t.Context(), node.Node{HostID: c.hostID, Address: "127.0.0.1"})
		wants(t, err, c.says)
	}
}

func TestWrites(t *testing.T) {
	_, o := start(t)
	counts, err := o.Writes(t.Context(), []node.Table{state})
	if err != nil || counts[state] != 17 {
		t.Errorf("%v, %v", counts, err)
	}
	_, err = o.Writes(t.Context(), []node.Table{state, {Keyspace: "app", Name: "gone"}})
	wants(t, err, "app.gone")
	_, err = o.Writes(t.Context(), []node.Table{{Keyspace: "app,type=*", Name: "x"}})
	wants(t, err, "no table's name")
}

func TestDataDirectories(t *testing.T) {
	_, o := start(t)
	if got, err := o.DataDirectories(t.Context()); err != nil || !slices.Equal(got, []string{"/var/lib/cassandra/data"}) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestImport(t *testing.T) {
	d, o := start(t)
	if err := o.Import(t.Context(), "app", "items", []string{"/a/app/items", "/b/app/items"}); err != nil {
		t.Fatal(err)
	}
	// The last is copyData: the files stay. The fourth of the booleans checks the tokens.
	if want := []any{[]any{"/a/app/items", "/b/app/items"}, true, true, true, true, true, false, true}; !reflect.DeepEqual(d.imported, want) {
		t.Errorf("imported with %v", d.imported)
	}
	d.failed = []string{"/b/app/items"}
	wants(t, o.Import(t.Context(), "app", "items", []string{"/a/app/items", "/b/app/items"}), "refused /b/app/items")
	wants(t, o.Import(t.Context(), "app", "items", []string{"/a"}), "would load nothing")
	wants(t, o.Import(t.Context(), "app", "gone", []string{"/a/app/gone"}), "no such thing")
	d.old = true
	if err := o.Import(t.Context(), "app", "items", []string{"/a/app/items"}); !errors.Is(err, node.ErrUnsupported) {
		t.Errorf("an old release: %v", err)
	}
}

func TestLoad(t *testing.T) {
	d, o := start(t)
	if err := o.Load(t.Context(), "app", "items", []string{"/a/app/items"}); err != nil {
		t.Fatal(err)
	}
	if want := []any{[]any{"/a/app/items"}, true, true, true, false, true, false, true}; !reflect.DeepEqual(d.imported, want) {
		t.Errorf("imported with %v", d.imported)
	}
	if err := o.Cleanup(t.Context(), "app"); err != nil {
		t.Error(err)
	}
	d.cleanup = 1
	wants(t, o.Cleanup(t.Context(), "app"), "says 1")
	if err := o.Flush(t.Context(), "app"); err != nil || !slices.Equal(d.flushed, []string{"app"}) {
		t.Errorf("flushed %v: %v", d.flushed, err)
	}
	if err := o.Drain(t.Context()); err != nil || !d.drained {
		t.Errorf("drained %v: %v", d.drained, err)
	}
}

func TestRepair(t *testing.T) {
	for _, c := range []struct {
		number int
		says   [][]string
		fails  string
	}{
		{0, nil, ""},
		{3, [][]string{{"IN_PROGRESS"}, {"COMPLETED", "Repair completed successfully"}}, ""},
		{3, [][]string{{"FAILED", "Nothing to repair for (1,2] in app - aborting", "Repair command #3 finished with error"}}, ""},
		{3, [][]string{{"FAILED", "Endpoint not alive: /10.0.0.2:7000"}}, "not alive"},
		{3, [][]string{{"MAYBE"}}, "unknown state"},
		{3, nil, "restarted"},
	} {
		d, o := start(t)
		d.repair, d.repairs = c.number, c.says
		err := o.Repair(t.Context(), "app")
		if c.fails == "" && err != nil {
			t.Errorf("%v: %v", c.says, err)
		}
		if c.fails != "" {
			wants(t, err, c.fails)
		}
	}
}

// Answers that are none of Jolokia's, and one that stops in the middle.
func TestHostileAnswers(t *testing.T) {
	for body, says := range map[string]string{
		"": "not the JSON", "<html>": "another service", "{}": "no status", "[]": "not the JSON", `{"status":200}`: "form that was expected", "null": "no status",
		`{"status":200,"value":{}}`: "form that was expected", `{"status":500,"error":"x\u001b[31m"}`: "x [31m", `{"status":200,"value":"` + hostID: "not the JSON",
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }))
		transport, err := New(rest.Settings{URL: server.URL, Clock: testclock.New()})
		if err != nil {
			t.Fatal(err)
		}
		_, err = transport.Open(t.Context(), node.Node{HostID: hostID, Address: "127.0.0.1"})
		wants(t, err, says)
		server.Close()
	}
}

func TestBulkAnswers(t *testing.T) {
	for body, says := range map[string]string{
		`[]`: "0 of 2", `[{"status":200,"value":1}]`: "1 of 2", `{"status":403,"error":"no bulk"}`: "policy forbids", `{"status":200,"value":1}`: "not the JSON", `x`: "not the JSON",
	} {
		_, err := decode(rest.Answer{Status: 200, Body: []byte(body)}, true, 2)
		wants(t, err, says)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"status":200,"value":{"t":"TabularDataSupport(contents={Column family name=a, Keyspace name=b, Size on disk=1 bytes, Snapshot name=t, True size=1.24 KiB})"}}`))
	f.Add([]byte(`[{"status":200,"value":1},{"status":404,"error":"x","error_type":"a.b.C"}]`))
	f.Add([]byte(`{"status":200,"value":{"t":null}}`))
	f.Add([]byte(`{"status":500,"error":"Snapshot t already exists."}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, bulk := range []bool{false, true} {
			all, err := decode(rest.Answer{Status: 200, Body: body}, bulk, 1)
			if err != nil {
				continue
			}
			for _, a := range all {
				var id string
				_ = a.into(&id)
				_, _ = readTag("t", a.Value)
				snapshots, err := readTags(a.Value)
				for _, s := range snapshots {
					if err != nil || s.Keyspace == "" || s.Table == "" || s.Size < -1 || s.TrueSize < -1 {
						t.Errorf("%q: %+v, %v", body, s, err)
					}
				}
			}
		}
	})
}
