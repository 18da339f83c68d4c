package cassandra

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Node is one node of a cluster.
type Node struct {
	Address     string // for CQL and for the other nodes; also of JMX, unless Options.JMX.Local
	Rack        string
	Tokens      []string // those that it gets by its configuration; none with Options.Bootstrap
	CQLPort     int
	JMXHost     string
	JMXPort     int
	JolokiaPort int    // with Options.Jolokia
	Dir         string // everything of it is in here

	cluster *Cluster
}

// ConfigPath is its cassandra.yaml.
func (n *Node) ConfigPath() string { return filepath.Join(n.Dir, "conf", "cassandra.yaml") }

// DataDir is the first folder of its data, with a folder KEYSPACE/TABLE-ID for each table; DataDirs are all of them.
func (n *Node) DataDir() string { return n.DataDirs()[0] }

// DataDirs are the folders of its data.
func (n *Node) DataDirs() []string {
	dirs := []string{filepath.Join(n.Dir, "data")}
	for i := 2; i <= n.cluster.Options.DataDirs; i++ {
		dirs = append(dirs, filepath.Join(n.Dir, "data"+strconv.Itoa(i)))
	}
	return dirs
}

// SSTables are the data files of a table, in its first data directory.
func (n *Node) SSTables(t testing.TB, keyspace, table string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(n.DataDir(), keyspace, table+"-*", "*-Data.db"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// CommitlogDir is the folder of its commitlog.
func (n *Node) CommitlogDir() string { return filepath.Join(n.Dir, "commitlog") }

// HintsDir is the folder of the hints for other nodes.
func (n *Node) HintsDir() string { return filepath.Join(n.Dir, "hints") }

// SavedCachesDir is the folder of its caches.
func (n *Node) SavedCachesDir() string { return filepath.Join(n.Dir, "saved_caches") }

// LogPath is its log, of all starts one after the other.
func (n *Node) LogPath() string { return filepath.Join(n.Dir, "system.log") }

// StartScript is a command that starts the node, if it doesn't run, and returns at once. The node stays when the caller goes, and is gone when the test
// ends all the same. It needs no arguments and may be run over SSH.
func (n *Node) StartScript() string { return filepath.Join(n.Dir, "start") }

// StopScript is a command that stops the node and returns when it is gone.
func (n *Node) StopScript() string { return filepath.Join(n.Dir, "stop") }

// PIDFile has the process of the last start.
func (n *Node) PIDFile() string { return filepath.Join(n.Dir, "pid") }

// stopLimit is how long a node may take to end by itself.
const stopLimit = 60 * time.Second

// PID is its process; 0 when it doesn't run.
func (n *Node) PID() int {
	text, err := os.ReadFile(n.PIDFile())
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || !runs(pid, n.mark()) {
		return 0
	}
	return pid
}

// mark is in the arguments of its process, and of no other.
func (n *Node) mark() string { return "-Dcassandra.storagedir=" + n.Dir }

// Running tells whether its process is there.
func (n *Node) Running() bool { return n.PID() != 0 }

// Start starts it, by its StartScript, and waits until it answers over CQL. Cluster.WaitUp waits until the others see it.
func (n *Node) Start(t testing.TB) {
	t.Helper()
	if err := n.start(); err != nil {
		t.Fatal(err)
	}
	n.WaitUp(t)
}

func (n *Node) start() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, n.StartScript()).CombinedOutput(); err != nil {
		return fmt.Errorf("starting node %s: %w: %s", n.Address, err, out)
	}
	return nil
}

// WaitUp waits until it answers over CQL.
func (n *Node) WaitUp(t testing.TB) {
	t.Helper()
	if err := n.answers(time.Now().Add(startLimit)); err != nil {
		t.Fatal(err)
	}
}

// Stop ends it as `systemctl stop` does, and waits until it is gone.
func (n *Node) Stop(t testing.TB) {
	t.Helper()
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
}

func (n *Node) stop() error {
	if err := n.end(syscall.SIGTERM, stopLimit); err != nil {
		return fmt.Errorf("stopping node %s: %w\n%s", n.Address, err, n.LogTail(40))
	}
	return nil
}

// Kill ends it at once (SIGKILL).
func (n *Node) Kill(t testing.TB) {
	t.Helper()
	if err := n.end(syscall.SIGKILL, time.Minute); err != nil {
		t.Fatalf("killing node %s: %v", n.Address, err)
	}
}

func (n *Node) end(signal syscall.Signal, limit time.Duration) error {
	pid := n.PID()
	if pid == 0 {
		return nil
	}
	if err := syscall.Kill(pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	for deadline := time.Now().Add(limit); runs(pid, n.mark()); {
		if time.Now().After(deadline) {
			return fmt.Errorf("process %d still runs %s after %s", pid, limit, signal)
		}
		<-time.After(20 * time.Millisecond)
	}
	return nil
}

// Suspend makes it hang (SIGSTOP) until Resume: it neither answers nor closes its connections.
func (n *Node) Suspend(t testing.TB) { t.Helper(); n.signal(t, syscall.SIGSTOP) }

// Resume lets a suspended node go on.
func (n *Node) Resume(t testing.TB) { t.Helper(); n.signal(t, syscall.SIGCONT) }

func (n *Node) signal(t testing.TB, signal syscall.Signal) {
	t.Helper()
	pid := n.PID()
	if pid == 0 {
		t.Fatalf("sending %s to node %s: it does not run", signal, n.Address)
	}
	if err := syscall.Kill(pid, signal); err != nil {
		t.Fatalf("sending %s to node %s: %v", signal, n.Address, err)
	}
}

// Wipe removes its data, commitlog, hints and caches; it has to be stopped.
func (n *Node) Wipe(t testing.TB) {
	t.Helper()
	if n.Running() {
		t.Fatalf("wiping node %s: it runs", n.Address)
	}
	for _, dir := range append(n.DataDirs(), n.CommitlogDir(), n.HintsDir(), n.SavedCachesDir(), filepath.Join(n.Dir, "cdc_raw")) {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatalf("wiping node %s: %v", n.Address, err)
		}
	}
}

// warnings are the last lines of its log that tell of errors and warnings, with what follows them: where an exception came from.
func (n *Node) warnings(lines int) string {
	text, err := os.ReadFile(n.LogPath())
	if err != nil {
		return err.Error()
	}
	var found []string
	within := false
	for line := range strings.SplitSeq(string(text), "\n") {
		level, _, _ := strings.Cut(line, " ")
		switch level {
		case "ERROR", "WARN":
			within = true
		case "INFO", "DEBUG":
			within = false
		}
		if within {
			found = append(found, line)
		}
	}
	return strings.Join(found[max(0, len(found)-lines):], "\n")
}

// LogTail is the end of its log, for messages.
func (n *Node) LogTail(lines int) string {
	text, err := os.ReadFile(n.LogPath())
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// Nodetool runs nodetool against it, as the user who may do everything, and returns what it printed. The error has what it said otherwise.
func (n *Node) Nodetool(ctx context.Context, args ...string) (string, error) {
	return n.cluster.nodetool(ctx, append(n.jmxArguments(), args...))
}
