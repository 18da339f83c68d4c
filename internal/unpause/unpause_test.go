package unpause

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/admin"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/clock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/adminserver"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/memcatalog"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/target"
)

const runID = "0123456789abcdef"

// world is a catalog, and what of a holder is known.
type world struct {
	t            *testing.T
	catalog      *memcatalog.Catalog
	place        Catalog // as it was opened last
	alive, known bool
}

func newWorld(t *testing.T) *world {
	return &world{t: t, catalog: memcatalog.New(time.Now), known: true}
}

// run runs the command against real gRPC servers.
func (w *world) run(args ...string) (code int, out string) {
	w.t.Helper()
	var stdout, stderr bytes.Buffer
	code = Main(context.Background(), args, Dependencies{
		Clock: clock.System{},
		OpenCatalog: func(c Catalog) (engine.Catalog, error) {
			w.place = c
			return w.catalog, nil
		},
		NewGroup: func(addresses []string, _ string, s admin.Settings) (engine.Group, error) {
			d, err := admin.NewDialer(s, clock.System{})
			return engine.Group{Dialer: d, Resolver: target.Static{Addresses: addresses, DNS: target.DNS()}}, err
		},
		Alive:  func(string) (bool, bool) { return w.alive, w.known },
		Stdout: &stdout, Stderr: &stderr,
	})
	return code, stdout.String() + stderr.String()
}

func (w *world) server(paused bool) *adminserver.Server {
	w.t.Helper()
	s, err := adminserver.Start(adminserver.Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(s.Close)
	if paused {
		d, err := admin.NewDialer(admin.Settings{}, clock.System{})
		if err != nil {
			w.t.Fatal(err)
		}
		c, err := d.Dial(context.Background(), engine.Target{Address: s.Address(), Name: s.Address()})
		if err != nil {
			w.t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if err := c.Pause(context.Background(), time.Second); err != nil {
			w.t.Fatal(err)
		}
	}
	return s
}

// journal writes the journal of a run.
func (w *world) journal(targets ...engine.JournalTarget) {
	w.t.Helper()
	data, err := json.Marshal(engine.Journal{Version: 1, RunID: runID, BackupID: "b1", Holder: "host/pid 1", StartedAt: time.Now().UTC(), Phase: engine.PhaseCapture,
		Pause: engine.PauseSettings{Drain: time.Second, Max: time.Minute}, Targets: targets,
		Storages: map[string]engine.JournalStorage{"orders": {Driver: "sqlite", Artifacts: []engine.Artifact{{Kind: "sqlite_file", ID: "backups/b1/x"}}}}})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.catalog.Create(context.Background(), engine.JournalName(runID), data); err != nil {
		w.t.Fatal(err)
	}
}

func journalTarget(s *adminserver.Server, o engine.Ownership) engine.JournalTarget {
	return engine.JournalTarget{Target: engine.Target{Group: "main", Address: s.Address(), Name: s.Address()}, Ownership: o}
}

func TestByAddress(t *testing.T) {
	w := newWorld(t)
	paused, open := w.server(true), w.server(false)
	code, out := w.run("--address", paused.Address(), "--address="+open.Address())
	if code != exitDone || paused.Paused() {
		t.Errorf("exit %d, paused %v:\n%s", code, paused.Paused(), out)
	}
	for _, want := range []string{paused.Address() + ": was paused, is unpaused", open.Address() + ": was not paused"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if n := open.Count(adminserver.Unpause); n > 0 {
		t.Errorf("a target that was not paused got %d unpauses", n)
	}
}

// TestOneUnreachable: the others are unpaused all the same, and the exit code tells.
func TestOneUnreachable(t *testing.T) {
	w := newWorld(t)
	paused, down := w.server(true), w.server(true)
	down.Down()
	code, out := w.run("--timeout", "2s", "--address", down.Address(), "--address", paused.Address())
	if code != exitStillPaused || paused.Paused() || !strings.Contains(out, down.Address()+": MAY STILL BE PAUSED") {
		t.Errorf("exit %d, paused %v:\n%s", code, paused.Paused(), out)
	}
	if n := strings.Count(out, "trying again"); n != 1 {
		t.Errorf("the same failure was told %d times:\n%s", n, out)
	}
}

func TestByJournal(t *testing.T) {
	w := newWorld(t)
	ours, unknown, foreign, unsent := w.server(true), w.server(true), w.server(true), w.server(true)
	w.journal(journalTarget(ours, engine.Ours), journalTarget(unknown, engine.Unknown), journalTarget(foreign, engine.Foreign), journalTarget(unsent, engine.Unsent))
	code, out := w.run("--catalog", "/catalog")
	if code != exitDone || ours.Paused() || unknown.Paused() {
		t.Errorf("exit %d, paused %v %v:\n%s", code, ours.Paused(), unknown.Paused(), out)
	}
	if !foreign.Paused() || !unsent.Paused() {
		t.Errorf("somebody else's pause was lifted:\n%s", out)
	}
	// What the run made stays in its journal; nothing is paused by it any more.
	journals, err := engine.OpenJournals(context.Background(), w.catalog)
	if err != nil || len(journals) != 1 || len(journals[0].Paused()) > 0 || len(journals[0].Storages) != 1 {
		t.Errorf("journals: %+v, %v", journals, err)
	}
	if code, out := w.run("--catalog", "/catalog"); code != exitDone || !strings.Contains(out, "nothing was left paused") {
		t.Errorf("the second time: exit %d:\n%s", code, out)
	}
}

// TestLiveRun is left alone unless it is named.
func TestLiveRun(t *testing.T) {
	w := newWorld(t)
	w.alive = true
	s := w.server(true)
	w.journal(journalTarget(s, engine.Ours))
	if code, out := w.run("--catalog", "/catalog"); code != exitStillPaused || !s.Paused() {
		t.Errorf("exit %d, paused %v:\n%s", code, s.Paused(), out)
	}
	if code, out := w.run("--catalog", "/catalog", "--run", runID); code != exitDone || s.Paused() {
		t.Errorf("exit %d, paused %v:\n%s", code, s.Paused(), out)
	}
}

func TestJournalsThatSayNothing(t *testing.T) {
	w := newWorld(t)
	if code, out := w.run("--catalog", "/catalog"); code != exitDone {
		t.Errorf("empty: exit %d:\n%s", code, out)
	}
	if code, out := w.run("--catalog", "/catalog", "--run", runID); code != exitStillPaused {
		t.Errorf("no such run: exit %d:\n%s", code, out)
	}
	if err := w.catalog.Create(context.Background(), engine.JournalName(runID), []byte("{")); err != nil {
		t.Fatal(err)
	}
	if code, out := w.run("--catalog", "/catalog"); code != exitStillPaused || !strings.Contains(out, "cannot be read") {
		t.Errorf("broken: exit %d:\n%s", code, out)
	}
}

// TestCatalogInS3: the options arrive.
func TestCatalogInS3(t *testing.T) {
	w := newWorld(t)
	code, out := w.run("--catalog", "s3://b/p", "--region", "eu-west-1", "--profile", "prod", "--role-arn", "arn:1", "--role-arn", "arn:2", "--endpoint", "http://x", "--path-style")
	want := Catalog{Location: "s3://b/p", Region: "eu-west-1", Profile: "prod", Roles: []string{"arn:1", "arn:2"}, Endpoint: "http://x", PathStyle: true}
	if code != exitDone || !reflect.DeepEqual(w.place, want) {
		t.Errorf("exit %d, opened %+v:\n%s", code, w.place, out)
	}
}

func TestUsage(t *testing.T) {
	w := newWorld(t)
	cert := filepath.Join(t.TempDir(), "cert.pem")
	if err := os.WriteFile(cert, []byte("a certificate without its key"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		nil, {"--address", "127.0.0.1:1", "--srv", "_a._tcp.x"}, {"--run", runID}, {"--catalog", "/c", "--run", "x"}, {"--nope"}, {"--address", "127.0.0.1:1", "extra"},
		{"--catalog", "/c", "--region", "eu-west-1"}, {"--catalog", "/c", "--role-arn", "arn"}, {"--address", "127.0.0.1:1", "--profile", "p"}, {"--catalog", "/c", "--path-style"},
		{"--address", "127.0.0.1:1", "--timeout", "0s"}, {"--address", "127.0.0.1:1", "--ca-file", "/nope"}, {"--address", "127.0.0.1:1", "--cert-file", cert},
	} {
		if code, out := w.run(args...); code != exitUsage || out == "" {
			t.Errorf("%q: exit %d:\n%s", args, code, out)
		}
	}
	if code, out := w.run("--help"); code != exitDone || !strings.Contains(out, "--address HOST:PORT") {
		t.Errorf("--help: exit %d:\n%s", code, out)
	}
}
