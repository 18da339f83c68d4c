//go:build acceptance

package cassandra

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/cores"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/adminserver"
)

// withoutPause lets the provider pause a target that is none, while the bank goes on. The write witness sees it. Where that is blinded, and the keyspaces are
// captured one a little later than the other, whatever is wrong with a copy has to be found by verification.
func (s *shop) withoutPause(t *testing.T) {
	deaf, err := adminserver.Start(adminserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(deaf.Close)
	w := s.workspace(t, cores.Oldest(t), deaf.Address(), "0s")
	before := s.inventory(t, w)

	s.backup(t, w, "release", "release", direct)
	if r, _ := w.patiently(t); r.ExitCode == 0 || !strings.Contains(oneLine(r.All()), "was written") {
		t.Errorf("the write witness did not see a bank that never stopped:\n%s", r.All())
	}
	s.unchanged(t, w, before)

	// One is enough, and by chance it may be right.
	const most = 10
	b := blind(t, s.cluster.Nodes[0].JolokiaPort, 400*time.Millisecond)
	caught, wrong, copies := 0, 0, 0
	for i := 0; i < most && wrong == 0; i++ {
		copies++
		renamed := func(keyspace string) string { return fmt.Sprintf("%s_busy%d", keyspace, i) }
		b.forget()
		s.Bank.WaitForCommits(t, 20, limit)
		s.backup(t, w, "release", fmt.Sprintf("busy%d", i), `transport = { jolokia = { url = "`+b.url+`/{address}/jolokia" } }
      data      = { upload = { via = "local" } }`)
		s.load(t, w, fmt.Sprintf("busy%d", i), renamed, "deletion_protection = false")
		r, _ := w.patiently(t)
		bad := w.Values(t, backupAddress) != nil && s.isWrong(t, renamed)
		switch {
		case r.ExitCode != 0 && strings.Contains(oneLine(r.All()), "not transactionally consistent"):
			caught++
			if w.Values(t, restoreAddress)["scalardb_properties"] != nil {
				t.Error("what was not verified is handed out")
			}
		case r.ExitCode != 0 && strings.Contains(oneLine(r.All()), "was written"):
			// The driver reads the counters in the quickest way, which on a busy machine may be CQL: nothing is in front of that.
			t.Logf("copy %d was refused by the write witness, which was not blind", i)
		case r.ExitCode != 0:
			t.Errorf("copy %d: verification did not come to a verdict:\n%s", i, r.All())
		default:
			rows, sum := s.read(t, w, renamed)
			t.Logf("verification passed copy %d: it has %d rows with a sum of %d", i, rows, sum)
			if bad || rows != s.Config.Rows() || sum != s.Config.Total() {
				t.Errorf("verification passed copy %d, which is wrong: %d rows with a sum of %d, want %d and %d", i, rows, sum, s.Config.Rows(), s.Config.Total())
			}
		}
		if bad {
			wrong++
		}
		w.destroy(t)
		s.unchanged(t, w, before)
	}
	t.Logf("%d of %d copies without a pause were wrong, verification caught %d", wrong, copies, caught)
	if wrong == 0 {
		t.Error("no copy without a pause was wrong: the test shows nothing")
	}
}

// isWrong tells whether the accounts do not add up in a copy, once Scalar DB has recovered what was half done: a record that is prepared is rolled forward where
// the coordinator table has its transaction as committed, and back otherwise. Scalar DB itself would wait 15 s for each.
func (s *shop) isWrong(t *testing.T, renamed func(string) string) bool {
	t.Helper()
	const prepared, committed = 1, 3
	session := s.clones.Session(t)
	states := map[string]int{}
	var id string
	var state int
	rows := session.Query("SELECT tx_id, tx_state FROM " + renamed("coordinator") + ".state").Iter()
	for rows.Scan(&id, &state) {
		states[id] = state
	}
	if err := rows.Close(); err != nil {
		t.Fatal(err)
	}
	n, sum := 0, int64(0)
	for _, namespace := range s.Config.Namespaces {
		rows := session.Query("SELECT balance, before_balance, tx_id, tx_state FROM " + renamed(namespace) + ".accounts").Iter()
		var now, was int64
		for rows.Scan(&now, &was, &id, &state) {
			if state == prepared && states[id] != committed {
				now = was
			}
			n, sum = n+1, sum+now
		}
		if err := rows.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("a copy without a pause: %d accounts with a sum of %d, want %d and %d", n, sum, s.Config.Rows(), s.Config.Total())
	return n != s.Config.Rows() || sum != s.Config.Total()
}

// blinded is in front of the Jolokia agents of all nodes, at URL/ADDRESS/jolokia. The counters of writes stand still as they were when they were first read, and
// the snapshots of several keyspaces are taken one after the other, with a delay.
type blinded struct {
	url   string
	port  int // of the agents
	delay time.Duration

	mu   sync.Mutex
	seen map[string][]byte // answers about counters, by address and request
}

func blind(t *testing.T, port int, delay time.Duration) *blinded {
	t.Helper()
	b := &blinded{port: port, delay: delay, seen: map[string][]byte{}}
	server := httptest.NewServer(b)
	t.Cleanup(server.Close)
	b.url = server.URL
	return b
}

// forget lets the counters be read anew.
func (b *blinded) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seen = map[string][]byte{}
}

// ServeHTTP is the agents'.
func (b *blinded) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var answer []byte
	if err == nil {
		answer, err = b.serve(r, body)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(answer)
}

func (b *blinded) serve(r *http.Request, body []byte) ([]byte, error) {
	address, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if bytes.Contains(body, []byte("name=WriteLatency")) {
		b.mu.Lock()
		defer b.mu.Unlock()
		key := address + string(body)
		if b.seen[key] == nil {
			answer, err := b.forward(r, address, path, body)
			if err != nil {
				return nil, err
			}
			b.seen[key] = answer
		}
		return b.seen[key], nil
	}
	var call map[string]any
	if json.Unmarshal(body, &call) != nil || !strings.HasPrefix(fmt.Sprint(call["operation"]), "takeSnapshot(") {
		return b.forward(r, address, path, body)
	}
	arguments, _ := call["arguments"].([]any)
	if len(arguments) != 3 {
		return nil, errors.New("a snapshot with other arguments than expected")
	}
	keyspaces, _ := arguments[2].([]any)
	var answer []byte
	for i, k := range keyspaces {
		if i > 0 {
			select {
			case <-r.Context().Done():
				return nil, r.Context().Err()
			case <-time.After(b.delay): // the fault
			}
		}
		call["arguments"] = []any{arguments[0], arguments[1], []any{k}}
		one, err := json.Marshal(call)
		if err != nil {
			return nil, err
		}
		if answer, err = b.forward(r, address, path, one); err != nil || !bytes.Contains(answer, []byte(`"status":200`)) {
			return answer, err
		}
	}
	return answer, nil
}

func (b *blinded) forward(r *http.Request, address, path string, body []byte) ([]byte, error) {
	url := fmt.Sprintf("http://%s:%d/%s", address, b.port, path)
	request, err := http.NewRequestWithContext(r.Context(), r.Method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	return io.ReadAll(response.Body)
}
