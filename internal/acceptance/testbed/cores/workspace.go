package cores

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Workspace is a folder with a configuration and its state, used with one core.
type Workspace struct {
	Dir string
	// Env is added to the environment of every command: "NAME=value".
	Env  []string
	core Core
	base []string
}

// Workspace makes an empty one, whose init installs the provider from the mirror.
func (c Core) Workspace(t testing.TB, m *Mirror) *Workspace {
	t.Helper()
	w := &Workspace{Dir: t.TempDir(), core: c}
	home := t.TempDir()
	config := filepath.Join(home, "cli.tfrc")
	if err := os.WriteFile(config, []byte(m.config()), 0o600); err != nil {
		t.Fatal(err)
	}
	w.base = environment(home, config)
	return w
}

// With is the same folder used with another core or another mirror.
func (w *Workspace) With(t testing.TB, c Core, m *Mirror) *Workspace {
	t.Helper()
	other := c.Workspace(t, m)
	other.Dir, other.Env = w.Dir, w.Env
	return other
}

// Write writes a file of the configuration, with %s and the like filled in as in fmt.Sprintf.
func (w *Workspace) Write(t testing.TB, name, format string, args ...any) {
	t.Helper()
	text := format
	if len(args) > 0 {
		text = fmt.Sprintf(format, args...)
	}
	if err := os.WriteFile(filepath.Join(w.Dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Result is what a command left.
type Result struct {
	Stdout, Stderr string
	ExitCode       int // -1 when a signal ended it
}

// All is standard output and standard error, for messages and for looking for text.
func (r Result) All() string { return r.Stdout + r.Stderr }

// commandLimit is longer than any command of a test takes, and shorter than the limit of the tests.
const commandLimit = 10 * time.Minute

// Run runs a command to its end.
func (w *Workspace) Run(t testing.TB, args ...string) Result {
	t.Helper()
	return w.Start(t, args...).Wait(t, commandLimit)
}

// Must runs a command that has to succeed.
func (w *Workspace) Must(t testing.TB, args ...string) Result {
	t.Helper()
	r := w.Run(t, args...)
	if r.ExitCode != 0 {
		t.Fatalf("%s %s: exit code %d\n%s", w.core, strings.Join(args, " "), r.ExitCode, r.All())
	}
	return r
}

// Init installs the provider.
func (w *Workspace) Init(t testing.TB) { t.Helper(); w.Must(t, "init", "-no-color") }

// Apply applies without asking.
func (w *Workspace) Apply(t testing.TB, args ...string) Result {
	t.Helper()
	return w.Run(t, append([]string{"apply", "-no-color", "-auto-approve"}, args...)...)
}

// Destroy destroys without asking.
func (w *Workspace) Destroy(t testing.TB, args ...string) Result {
	t.Helper()
	return w.Run(t, append([]string{"destroy", "-no-color", "-auto-approve"}, args...)...)
}

// PlanIsEmpty fails the test when a plan finds something to do.
func (w *Workspace) PlanIsEmpty(t testing.TB, args ...string) {
	t.Helper()
	r := w.Run(t, append([]string{"plan", "-no-color", "-detailed-exitcode"}, args...)...)
	if r.ExitCode != 0 {
		t.Fatalf("%s: the plan is not empty (exit code %d)\n%s", w.core, r.ExitCode, r.All())
	}
}

// Values are the attributes of one resource in the state, by its address; nil when it isn't there.
func (w *Workspace) Values(t testing.TB, address string) map[string]any {
	t.Helper()
	var state struct {
		Values struct {
			RootModule struct {
				Resources []struct {
					Address string         `json:"address"`
					Values  map[string]any `json:"values"`
				} `json:"resources"`
			} `json:"root_module"`
		} `json:"values"`
	}
	if err := json.Unmarshal([]byte(w.Must(t, "show", "-json").Stdout), &state); err != nil {
		t.Fatalf("reading the state: %v", err)
	}
	for _, r := range state.Values.RootModule.Resources {
		if r.Address == address {
			return r.Values
		}
	}
	return nil
}

// Process is a command that runs.
type Process struct {
	cmd            *exec.Cmd
	name           string
	stdout, stderr buffer
	exited         chan struct{}
}

// Start starts a command in a process group of its own, as a shell would. Whatever is left of the group is killed when the test ends.
func (w *Workspace) Start(t testing.TB, args ...string) *Process {
	t.Helper()
	p := &Process{
		cmd:    exec.Command(w.core.Path, args...), //nolint:noctx // ended by signals: that is what is tested
		name:   w.core.String() + " " + strings.Join(args, " "),
		exited: make(chan struct{}),
	}
	p.cmd.Dir = w.Dir
	p.cmd.Env = slices.Concat(w.base, w.Env)
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// A watchdog or an orphaned provider may hold the output open long after the core is gone.
	p.cmd.WaitDelay = time.Second
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", p.name, err)
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is read from ProcessState
		close(p.exited)
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.exited
	})
	return p
}

// Wait waits for the command's end; the test fails when it takes longer than the limit.
func (p *Process) Wait(t testing.TB, limit time.Duration) Result {
	t.Helper()
	select {
	case <-p.exited:
	case <-time.After(limit):
		t.Fatalf("%s: still running after %s\n%s", p.name, limit, p.Output())
	}
	return Result{Stdout: p.stdout.String(), Stderr: p.stderr.String(), ExitCode: p.cmd.ProcessState.ExitCode()}
}

// Output is what it has written so far.
func (p *Process) Output() string { return p.stdout.String() + p.stderr.String() }

// WaitFor waits until the output has the text; the test fails when the command ends without, or the limit passes.
func (p *Process) WaitFor(t testing.TB, text string, limit time.Duration) {
	t.Helper()
	p.until(t, limit, fmt.Sprintf("no %q in its output", text), func() bool { return strings.Contains(p.Output(), text) })
}

func (p *Process) until(t testing.TB, limit time.Duration, missing string, holds func() bool) {
	t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-p.exited:
			if holds() {
				return
			}
			t.Fatalf("%s: ended, %s\n%s", p.name, missing, p.Output())
		case <-deadline:
			t.Fatalf("%s: after %s %s\n%s", p.name, limit, missing, p.Output())
		case <-tick.C:
		}
	}
}

// Interrupt is Ctrl-C at a terminal: the core and the provider get it.
func (p *Process) Interrupt(t testing.TB) {
	t.Helper()
	p.signal(t, -p.cmd.Process.Pid, syscall.SIGINT)
}

// SignalCore sends a signal to the core alone.
func (p *Process) SignalCore(t testing.TB, s syscall.Signal) {
	t.Helper()
	p.signal(t, p.cmd.Process.Pid, s)
}

// SignalProvider sends a signal to the provider, waiting for its start when it doesn't run yet. It returns the provider's process ids.
func (p *Process) SignalProvider(t testing.TB, s syscall.Signal, limit time.Duration) []int {
	t.Helper()
	var pids []int
	p.until(t, limit, "no provider started", func() bool {
		pids = children(p.cmd.Process.Pid, "terraform-provider-")
		return len(pids) > 0
	})
	for _, pid := range pids {
		p.signal(t, pid, s)
	}
	return pids
}

func (p *Process) signal(t testing.TB, pid int, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
		t.Fatalf("%s: sending %s to %d: %v", p.name, s, pid, err)
	}
}

// children are the child processes of parent whose program has that prefix. The provider's own watchdog is no child of the core.
func children(parent int, prefix string) []int {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	var pids []int
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // ended meanwhile
		}
		// pid (name) state ppid …; the name may hold anything.
		fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(fields) < 2 || fields[0] == "Z" || fields[1] != strconv.Itoa(parent) {
			continue
		}
		dir := filepath.Dir(path)
		if exe, err := os.Readlink(filepath.Join(dir, "exe")); err != nil || !strings.HasPrefix(filepath.Base(exe), prefix) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// buffer is a bytes.Buffer that can be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
