package jolokia

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/testclock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node/nodetest"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/rest"
)

// double answers as Jolokia 2.6.0 in Cassandra 5.0.9 was seen to, over a node in memory. It refuses what it does not know.
type double struct {
	memory *nodetest.Memory
	hostID string
	policy string // an operation that the policy forbids
	old    bool   // a release that has no import of copies

	mu       sync.Mutex
	seen     []string
	cleanup  int // what a cleanup returns
	drained  bool
	flushed  []string
	imported []any
	failed   []string   // directories that an import refuses
	repairs  [][]string // what is said of the repair, one after the other
	repair   int        // its number
}

const hostID = "bd73c677-2051-43d6-be57-74ea30672123"

var items, state = node.Table{Keyspace: "app", Name: "items"}, node.Table{Keyspace: "coordinator", Name: "state"}

func start(t *testing.T) (*double, *Operator) {
	t.Helper()
	d := &double{memory: nodetest.NewMemory(items, state), hostID: hostID}
	server := httptest.NewServer(d)
	t.Cleanup(server.Close)
	transport, err := New(rest.Settings{URL: server.URL + "/jolokia", Username: "u", Password: "secret", Clock: testclock.New()})
	if err != nil {
		t.Fatal(err)
	}
	o, err := transport.Open(t.Context(), node.Node{HostID: strings.ToUpper(hostID), Address: "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Close() })
	return d, o.(*Operator)
}

func (d *double) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if user, password, _ := r.BasicAuth(); user != "u" || password != "secret" {
		w.Header().Set("Www-Authenticate", `Basic realm="jolokia"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	body, _ := io.ReadAll(r.Body)
	if r.Method != http.MethodPost || r.URL.Path != "/jolokia/" {
		http.Error(w, "400 (Bad Request)\n\nNo type given", http.StatusBadRequest)
		return
	}
	if strings.HasPrefix(string(body), "[") {
		var all []request
		if !read(w, body, &all) {
			return
		}
		answers := make([]map[string]any, len(all))
		for i, q := range all {
			answers[i], _ = d.answer(r.Context(), q)
		}
		_ = json.NewEncoder(w).Encode(answers)
		return
	}
	var q request
	if !read(w, body, &q) {
		return
	}
	a, refused := d.answer(r.Context(), q)
	if refused != "" {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, "400 (Bad Request)\n\n"+refused)
		return
	}
	if a["cut"] != nil { // Jolokia has sent a part when it fails
		_, _ = io.WriteString(w, a["cut"].(string))
		panic(http.ErrAbortHandler)
	}
	_ = json.NewEncoder(w).Encode(a)
}

func read(w http.ResponseWriter, body []byte, v any) bool {
	decoder := json.NewDecoder(strings.NewReader(string(body)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(v); err != nil {
		http.Error(w, "400 (Bad Request)\n\n"+err.Error(), http.StatusBadRequest)
		return false
	}
	return true
}

func value(v any) map[string]any {
	return map[string]any{"request": map[string]any{}, "value": v, "status": 200, "timestamp": 1795656940}
}

func fails(status int, class, text string) map[string]any {
	return map[string]any{"request": map[string]any{}, "error_type": class, ".error": true, "error": text, "status": status}
}

func (d *double) answer(ctx context.Context, q request) (answer map[string]any, refused string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen = append(d.seen, q.Type+" "+q.Operation+q.Attribute)
	if d.policy != "" && q.Operation == d.policy {
		return fails(403, "java.lang.Exception", "Operation "+q.Operation+" forbidden for MBean "+q.MBean), ""
	}
	switch {
	case q.Type == "version":
		return value(map[string]any{"agent": "2.6.0", "protocol": "8.2"}), ""
	case q.Type == "read" && strings.HasPrefix(q.MBean, "org.apache.cassandra.metrics:") && q.Attribute == "Count":
		if q.MBean == "org.apache.cassandra.metrics:type=Table,keyspace=coordinator,scope=state,name=WriteLatency" {
			return value(17), ""
		}
		return fails(404, "javax.management.InstanceNotFoundException", q.MBean), ""
	case q.Type == "read" && q.MBean == storageService && q.Attribute == "LocalHostId":
		return value(d.hostID), ""
	case q.Type == "read" && q.MBean == storageService && q.Attribute == "AllDataFileLocations":
		return value([]string{"/var/lib/cassandra/data"}), ""
	case q.Type == "read" && q.MBean == storageService && q.Attribute == "SnapshotDetails":
		return d.details(ctx, q), ""
	case q.Type == "exec" && q.MBean == storageService:
		return d.exec(ctx, q)
	case q.Type == "exec" && strings.HasPrefix(q.MBean, "org.apache.cassandra.db:type=Tables,"):
		if q.MBean != "org.apache.cassandra.db:type=Tables,keyspace=app,table=items" {
			return fails(404, "javax.management.InstanceNotFoundException", q.MBean), ""
		}
		if q.Operation != importSSTables || d.old {
			return nil, "No operation " + q.Operation + " on MBean " + q.MBean + " exists. Known signatures: (java.util.Set,boolean)"
		}
		d.imported = q.Arguments
		return value(append([]string{}, d.failed...)), ""
	}
	return nil, fmt.Sprintf("No handler for %+v", q)
}

func texts(v any) []string {
	var all []string
	for _, e := range v.([]any) {
		all = append(all, e.(string))
	}
	return all
}

func (d *double) exec(ctx context.Context, q request) (answer map[string]any, refused string) {
	switch q.Operation {
	case takeSnapshot:
		if q.Arguments[0] == "" {
			return fails(500, "java.io.IOException", "You must supply a snapshot name."), ""
		}
		if !reflect.DeepEqual(q.Arguments[1], map[string]any{"skipFlush": "false"}) {
			return nil, "the double always flushes"
		}
		tag := q.Arguments[0].(string)
		err := d.memory.TakeSnapshot(ctx, tag, texts(q.Arguments[2]))
		if errors.Is(err, node.ErrSnapshotExists) {
			return fails(500, "java.io.IOException", "Snapshot "+tag+" already exists."), ""
		}
		if err != nil {
			return fails(500, "java.lang.IllegalArgumentException", err.Error()), ""
		}
		return value(nil), ""
	case clearSnapshot:
		if err := d.memory.ClearSnapshot(ctx, q.Arguments[0].(string), texts(q.Arguments[1])); err != nil {
			return fails(500, "java.io.IOException", err.Error()), ""
		}
		return value(nil), ""
	case cleanup:
		if !reflect.DeepEqual(q.Arguments, []any{float64(0), "app", []any{}}) {
			return fails(500, "java.lang.IllegalArgumentException", fmt.Sprint(q.Arguments)), ""
		}
		return value(d.cleanup), ""
	case flush:
		if len(texts(q.Arguments[1])) > 0 {
			return fails(500, "java.lang.IllegalArgumentException", fmt.Sprint(q.Arguments)), ""
		}
		d.flushed = append(d.flushed, q.Arguments[0].(string))
		return value(nil), ""
	case "drain":
		d.drained = true
		return value(nil), ""
	case repairAsync:
		return value(d.repair), ""
	case repairStatus:
		if len(d.repairs) == 0 || q.Arguments[0] != float64(d.repair) {
			return value(nil), ""
		}
		status := d.repairs[0]
		d.repairs = d.repairs[1:]
		return value(status), ""
	}
	return nil, "No operation " + q.Operation + " on MBean " + q.MBean + " exists."
}

// details is as recorded, types left out.
func (d *double) details(ctx context.Context, q request) map[string]any {
	all, _ := d.memory.Snapshots(ctx)
	if len(all) > 0 && q.Config["maxDepth"] != "1" {
		return map[string]any{"cut": `{"request":{},"value":{"t1":{"t1":{"system_traces":{"sessions":{"110 bytes":{"110 bytes":{"2026-11-26T01:35:40.507Z":{`}
	}
	tags := map[string]any{}
	for _, s := range all {
		text, _ := tags[s.Tag].(string)
		if text == "" {
			text = "javax.management.openmbean.TabularDataSupport(tabularType=javax.management.openmbean.TabularType(name=SnapshotDetails,…),contents={"
		}
		text += fmt.Sprintf("[%[1]s, %[2]s, %[3]s, 110 bytes, 110 bytes, 2026-11-26T01:35:40.507Z, null, false]="+
			"javax.management.openmbean.CompositeDataSupport(compositeType=…,contents={Column family name=%[3]s, Creation time=2026-11-26T01:35:40.507Z, "+
			"Ephemeral=false, Expiration time=null, Keyspace name=%[2]s, Size on disk=1.5 KiB, Snapshot name=%[1]s, True size=110 bytes}), ", s.Tag, s.Keyspace, s.Table)
		tags[s.Tag] = text
	}
	if q.Path == "" {
		return value(tags)
	}
	if strings.ContainsAny(strings.NewReplacer("!/", "", "!!", "").Replace(q.Path), "/!") {
		return value(nil) // a path into what is a text
	}
	return value(tags[strings.NewReplacer("!/", "/", "!!", "!").Replace(q.Path)])
}
