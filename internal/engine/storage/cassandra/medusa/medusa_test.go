package medusa

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/memcatalog"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/testclock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/move"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/snapshot"
)

const (
	host1 = "11111111-1111-4111-8111-111111111111"
	host2 = "22222222-2222-4222-8222-222222222222"
	table = "aaaaaaaa-1111-11f0-8111-111111111111"
	tag   = "scalardb-nightly-0123456789abcdef"
)

// fake is a node with a medusa whose answers are set. It takes the script and the commands that the package sends, and nothing else; what the script does
// with a real medusa is shown by the acceptance test.
type fake struct {
	node.Files
	checked   checked
	conflicts int
	manifest  stored
	broken    map[string]error // by mode or command
	left      []string         // what a purge leaves
	hang      bool             // backup-node does not end
	digests   map[string]string

	mu   sync.Mutex
	runs []string
}

func (f *fake) Run(ctx context.Context, command string, stdin io.Reader) ([]byte, error) {
	if stdin != nil {
		return nil, errors.New("stdin is not passed on by every command line")
	}
	name := command
	var answer any
	if before, args, ok := strings.Cut(command, probeWord); ok {
		if !strings.HasPrefix(before, "sudo -u cassandra sh -c ") || !strings.HasSuffix(before, " sh medusa ") {
			return nil, fmt.Errorf("strange command %q", before)
		}
		name = strings.TrimSpace(args)
		answer = map[string]any{"check": f.checked, "conflicts": conflicting{Count: f.conflicts, Conflicts: []string{"x"}}, "manifest": f.manifest, "purge": purged{f.left}}[strings.Fields(name)[0]]
		if answer == nil {
			return nil, fmt.Errorf("unknown mode in %q", name)
		}
	} else if !strings.HasPrefix(command, "sudo -u cassandra medusa --config-file /etc/m.ini ") {
		return nil, fmt.Errorf("strange command %q", command)
	}
	f.mu.Lock()
	f.runs = append(f.runs, name)
	f.mu.Unlock()
	for part, err := range f.broken {
		if strings.Contains(name, part) {
			return nil, err
		}
	}
	if f.hang && strings.Contains(name, "backup-node") {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	if answer == nil {
		return nil, nil
	}
	return json.Marshal(answer)
}

var probeWord = node.Quote(probe)

func (f *fake) Open(_ context.Context, name string, _ int64) (io.ReadCloser, error) {
	text, ok := f.digests[path.Base(name)]
	if !ok {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return io.NopCloser(strings.NewReader(text)), nil
}

func newFake(name string, tokens ...string) *fake {
	return &fake{
		checked: checked{Version: "0.31.0", Provider: "local", Existing: true, FQDN: name, Tokens: tokens, Names: []string{name}},
		manifest: stored{Complete: true, FQDN: name, Differential: true, Tables: []storedTable{{Keyspace: "shop", Table: "items-" + strings.ReplaceAll(table, "-", ""), Objects: []object{
			{Path: "nb-1-big-Data.db", Size: 10, Stored: 10}, {Path: ".idx/nb-1-big-Data.db", Size: 3, Stored: 3},
			{Path: "nb-1-big-Digest.crc32", Size: 4, Stored: 4, Digest: "1234"}, {Path: "nb-1-big-Statistics.db", Size: 5, Stored: 5},
		}}}},
		broken: map[string]error{}, digests: map[string]string{"nb-1-big-Digest.crc32": "1234"},
	}
}

func list(host string) *snapshot.FileList {
	return &snapshot.FileList{Version: 1, HostID: host, Tables: []snapshot.Files{{Keyspace: "shop", Table: "items", ID: table, Directory: "/data/shop/items-x/snapshots/" + tag, Files: []snapshot.File{
		{Path: ".idx/nb-1-big-Data.db", Size: 3}, {Path: "manifest.json", Size: 99}, {Path: "nb-1-big-Data.db", Size: 10}, {Path: "nb-1-big-Digest.crc32", Size: 4},
		{Path: "nb-1-big-Statistics.db", Size: 5}, {Path: "schema.cql", Size: 98},
	}}}}
}

func mover() Mover {
	return Mover{Settings{Clock: testclock.New(), Command: "sudo -u cassandra medusa", ConfigFile: "/etc/m.ini"}}
}

func job(fakes ...*fake) move.Job {
	j := move.Job{Run: engine.Run{Report: func(string, map[string]any) {}}, Tag: tag, Prefix: "backups/nightly/1/orders/"}
	for i, f := range fakes {
		n := move.Node{Files: f}
		n.HostID, n.Address, n.Tokens = []string{host1, host2}[i], fmt.Sprint("10.0.0.", i+1), []string{fmt.Sprint(i), "7"}
		j.Nodes = append(j.Nodes, n)
	}
	return j
}

func lists() map[string]*snapshot.FileList {
	return map[string]*snapshot.FileList{host1: list(host1), host2: list(host2)}
}

func pair() (*fake, *fake) { return newFake("a", "7", "0"), newFake("b", "1", "7") }

func TestMove(t *testing.T) {
	a, b := pair()
	b.conflicts = 1
	s, err := mover().Preflight(t.Context(), job(a, b))
	if err != nil {
		t.Fatal(err)
	}
	if v := s.Facts().ToolVersions["medusa"]; v != "0.31.0" {
		t.Errorf("version %q", v)
	}
	planned := s.Planned()
	if len(planned) != 1 || planned[0].Kind != snapshot.KindMedusa || planned[0].ID != tag || planned[0].Extra[extraNodes] != host1+"=a,"+host2+"=b" {
		t.Errorf("planned %+v", planned)
	}
	l := lists()
	got, err := s.Move(t.Context(), nil, l)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0].Size != 44 || got[0].ID != tag {
		t.Errorf("artifacts %+v", got)
	}
	if f := l[host1].Tables[0].Files[3]; f.SHA256 != sum([]byte("1234")) {
		t.Errorf("the checksum file's sum is %q", f.SHA256)
	}
	for f, mode := range map[*fake]string{a: "differential", b: "full"} {
		want := "sudo -u cassandra medusa --config-file /etc/m.ini backup-node --backup-name " + tag + " --mode " + mode + " --use-existing-snapshot --keep-snapshot"
		if !slices.Contains(f.runs, want) {
			t.Errorf("no %q in %q", want, f.runs)
		}
	}
	if err := s.Discard(t.Context()); err != nil || !slices.ContainsFunc(a.runs, func(r string) bool { return strings.HasPrefix(r, "purge ") }) {
		t.Errorf("discard: %v, %q", err, a.runs)
	}
	b.left = []string{"b/x/meta/schema.cql"}
	if err := s.Discard(t.Context()); err == nil || !strings.Contains(err.Error(), "node 10.0.0.2") {
		t.Errorf("discard that leaves something: %v", err)
	}
}

// The exit status of medusa is not believed.
func TestMoveNeverBelieves(t *testing.T) {
	for want, spoil := range map[string]func(*fake){
		"not in medusa's manifest":         func(f *fake) { f.manifest.Tables[0].Objects = f.manifest.Tables[0].Objects[1:] },
		"is in the snapshot, and":          func(f *fake) { f.manifest.Tables = nil },
		"it has no manifest":               func(f *fake) { f.manifest = stored{} },
		"and not in its storage":           func(f *fake) { f.manifest.Tables[0].Objects[0].Stored = -1 },
		"9 bytes in medusa's storage":      func(f *fake) { f.manifest.Tables[0].Objects[0].Stored = 9 },
		"9 bytes in medusa's manifest":     func(f *fake) { f.manifest.Tables[0].Objects[0].Size, f.manifest.Tables[0].Objects[0].Stored = 9, 9 },
		"another SSTable of the same name": func(f *fake) { f.manifest.Tables[0].Objects[2].Digest = "1235" },
		"running medusa backup-node": func(f *fake) {
			f.broken["backup-node"] = &node.CommandError{Command: "x", Exit: 1, Stderr: "no such snapshot"}
		},
		"reading medusa's manifest": func(f *fake) { f.broken["manifest "] = errors.New("gone") },
	} {
		a, b := pair()
		s, err := mover().Preflight(t.Context(), job(a, b))
		if err != nil {
			t.Fatal(err)
		}
		spoil(b)
		if _, err := s.Move(t.Context(), nil, lists()); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "node 10.0.0.2") {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestMoveEndsWithItsContext(t *testing.T) {
	a, b := pair()
	s, err := mover().Preflight(t.Context(), job(a, b))
	if err != nil {
		t.Fatal(err)
	}
	b.hang = true
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := s.Move(ctx, nil, lists()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Move: %v", err)
	}
}

func TestPreflightRefuses(t *testing.T) {
	for want, spoil := range map[string]func(*fake){
		"--use-existing-snapshot":         func(f *fake) { f.checked.Existing = false },
		"something of a backup":           func(f *fake) { f.checked.Traces = []string{"x"} },
		"its restore would fail":          func(f *fake) { f.checked.Tokens = nil },
		"that of another node":            func(f *fake) { f.checked.Tokens = []string{"8", "9"} },
		"which cannot be":                 func(f *fake) { f.checked.FQDN = "" },
		"No such file; its configuration": nil,
	} {
		a, b := pair()
		if spoil == nil {
			want = "ModuleNotFoundError: medusa (exit status 1; its configuration is /etc/m.ini)"
			b.broken["check "] = &node.CommandError{Command: probe, Exit: 1, Stderr: "Traceback\n x\n y\nModuleNotFoundError: medusa"}
		} else {
			spoil(b)
		}
		_, err := mover().Preflight(t.Context(), job(a, b))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "node 10.0.0.2") || strings.Contains(err.Error(), "import json") {
			t.Errorf("%s: %v", want, err)
		}
	}
	j := job(newFake("a", "0", "7"))
	j.Nodes[0].Files = nil
	if _, err := mover().Preflight(t.Context(), j); err == nil {
		t.Error("a node whose files cannot be reached was taken")
	}
	purging := newFake("a", "0", "7")
	purging.checked.Purges = true
	if s, err := mover().Preflight(t.Context(), job(purging)); err != nil || len(s.Facts().Warnings) != 1 {
		t.Errorf("max_backup_age: %v", err)
	}
}

func TestInspectAndDelete(t *testing.T) {
	a, b := pair()
	j := job(a, b)
	c := memcatalog.New(time.Now)
	p := move.Place{Catalog: c, Report: func(string, map[string]any) {}, Nodes: func(context.Context) ([]move.Node, error) { return j.Nodes[:1], nil }}
	s, err := mover().Preflight(t.Context(), j)
	if err != nil {
		t.Fatal(err)
	}
	got := s.Planned()[0]
	if err := mover().Inspect(t.Context(), p, got); err != nil {
		t.Errorf("whole, without lists: %v", err)
	}
	// The second node is not in the cluster any more: the first is asked in its name.
	if last := a.runs[len(a.runs)-1]; last != "manifest /etc/m.ini "+tag+" b" {
		t.Errorf("asked for %q", last)
	}
	l := list(host1)
	l.Tables[0].Files[3].SHA256 = sum([]byte("4321"))
	n := snapshot.Node{HostID: host1}
	if err := snapshot.WriteFiles(t.Context(), c, j.Prefix, l, &n); err != nil {
		t.Fatal(err)
	}
	if err := mover().Inspect(t.Context(), p, got); err == nil || !strings.Contains(err.Error(), "another SSTable of the same name") {
		t.Errorf("files that a later backup wrote over: %v", err)
	}
	a.manifest = stored{}
	if err := mover().Inspect(t.Context(), p, got); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("gone: %v", err)
	}
	if err := mover().Delete(t.Context(), p, got); err != nil || !slices.Contains(a.runs, "purge /etc/m.ini "+tag+" b") {
		t.Errorf("delete: %v, %q", err, a.runs)
	}
	a.broken["purge "] = errors.New("no way")
	if err := mover().Delete(t.Context(), p, got); err == nil || !strings.Contains(err.Error(), "10.0.0.1") {
		t.Errorf("delete that failed: %v", err)
	}
	if err := mover().Delete(t.Context(), p, engine.Artifact{Kind: snapshot.KindUpload}); err == nil {
		t.Error("an artifact of another kind was taken")
	}
}
