package watchdog_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/admin"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/catalog/directory"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/clock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/adminserver"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/lock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/watchdog"
)

// The test binary is a watchdog, or a run that needs one, when it is told so.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case watchdog.Subcommand:
			os.Exit(watchdog.Main(clock.System{}, openers()))
		case "run":
			if err := run(); err != nil {
				fmt.Println("failed:", err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

func openers() watchdog.Openers {
	return watchdog.Openers{
		Dialer: func(settings json.RawMessage) (engine.Dialer, error) {
			var s admin.Settings
			if err := json.Unmarshal(settings, &s); err != nil {
				return nil, err
			}
			return admin.NewDialer(s, clock.System{})
		},
		Catalog: func(s watchdog.CatalogSpec) (engine.Catalog, error) {
			return directory.New(s.Directory, clock.System{})
		},
	}
}

const runID = "0123456789abcdef"

// plan is what the process of a test's run is told, on its standard input.
type plan struct {
	Directory string
	Addresses []string
	Max       time.Duration
	Secret    string // a file to be made
}

// run is the process of a run: it arms a watchdog, pauses, starts a child, says "paused", and then answers commands.
func run() error {
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return err
	}
	var p plan
	if err := json.Unmarshal(line, &p); err != nil {
		return err
	}
	ctx := context.Background()
	c, err := directory.New(p.Directory, clock.System{})
	if err != nil {
		return err
	}
	l, err := lock.Acquire(ctx, lock.Options{Catalog: c, Clock: clock.System{}, RunID: runID, Holder: "test", Lease: 20 * time.Second})
	if err != nil {
		return err
	}
	settings, err := json.Marshal(admin.Settings{})
	if err != nil {
		return err
	}
	o := engine.WatchdogOrder{
		RunID: runID, Pause: engine.PauseSettings{Drain: time.Second, Max: p.Max},
		Journal: engine.WatchdogLogName(runID), Lock: l.Ref(),
	}
	for _, a := range p.Addresses {
		o.Targets = append(o.Targets, engine.Target{Group: "main", Address: a, Name: a})
	}
	armed, err := watchdog.Process{
		Clock: clock.System{},
		Spec:  watchdog.Spec{Groups: map[string]json.RawMessage{"main": settings}, Catalog: watchdog.CatalogSpec{Directory: p.Directory}},
	}.Arm(ctx, o)
	if err != nil {
		return err
	}
	armed.SecretFile(p.Secret)
	if err := os.WriteFile(p.Secret, []byte("password"), 0o600); err != nil {
		return err
	}
	child := exec.Command("sleep", "1000")
	child.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := child.Start(); err != nil {
		return err
	}
	start, err := startOf(child.Process.Pid)
	if err != nil {
		return err
	}
	armed.Process(child.Process.Pid, start, "sleep")
	if err := armed.Sending(ctx); err != nil {
		return err
	}
	d, err := admin.NewDialer(admin.Settings{}, clock.System{})
	if err != nil {
		return err
	}
	for _, t := range o.Targets {
		conn, err := d.Dial(ctx, t)
		if err != nil {
			return err
		}
		if err := conn.Pause(ctx, time.Second); err != nil {
			return err
		}
		armed.Record(t, engine.Ours)
	}
	fmt.Printf("paused, child %d\n", child.Process.Pid)
	for {
		command, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		switch strings.TrimSpace(command) {
		case "fired?":
			fired, err := armed.Fired(ctx)
			gone := false
			select {
			case <-armed.Gone():
				gone = true
			default:
			}
			fmt.Printf("fired %v, error %v, gone %v\n", fired, err != nil, gone)
		case "lifted":
			fmt.Println("lifted", armed.Lifted(ctx))
		case "close":
			_ = child.Process.Kill()
			_ = child.Wait()
			fmt.Println("closed", armed.Close(ctx))
		}
	}
}

// startOf is field 22 of /proc/PID/stat; the name has no spaces here.
func startOf(pid int) (uint64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.Fields(string(data))[21], 10, 64)
}

// process is a run as the test sees it.
type process struct {
	t       *testing.T
	cmd     *exec.Cmd
	dir     string // the working directory of the run
	in      io.WriteCloser
	out     *bufio.Reader
	plan    plan
	servers []*adminserver.Server
	child   int
}

func start(t *testing.T, targets int, limit time.Duration) *process {
	t.Helper()
	dir := t.TempDir()
	p := &process{t: t, dir: dir, plan: plan{Directory: "catalog", Max: limit, Secret: filepath.Join(dir, "secret")}}
	for range targets {
		s, err := adminserver.Start(adminserver.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		p.servers = append(p.servers, s)
		p.plan.Addresses = append(p.plan.Addresses, s.Address())
	}
	p.cmd = exec.Command(self(t), "run")
	p.cmd.Env = append(os.Environ(), "AWS_SECRET_ACCESS_KEY=not-for-the-watchdog")
	p.cmd.Dir = dir
	p.cmd.Stderr = os.Stderr
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		if p.child > 0 && alive(p.child) { // where the watchdog was killed
			_ = syscall.Kill(-p.child, syscall.SIGKILL)
		}
		eventually(t, "without a watchdog", func() bool { return len(p.watchdogs()) == 0 })
	})
	line, err := json.Marshal(p.plan)
	if err != nil {
		t.Fatal(err)
	}
	answer := p.say(string(line))
	if _, err := fmt.Sscanf(answer, "paused, child %d", &p.child); err != nil {
		t.Fatalf("the run said %q", answer)
	}
	for _, s := range p.servers {
		if !s.Paused() {
			t.Fatal("a target is not paused")
		}
	}
	return p
}

// say tells the run something and returns its answer.
func (p *process) say(text string) string {
	p.t.Helper()
	if _, err := io.WriteString(p.in, text+"\n"); err != nil {
		p.t.Fatal(err)
	}
	answer, err := p.out.ReadString('\n')
	if err != nil {
		p.t.Fatalf("after %q the run said %q, %v", text, answer, err)
	}
	return strings.TrimSpace(answer)
}

func (p *process) kill() {
	p.t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		p.t.Fatal(err)
	}
	_ = p.cmd.Wait()
}

// self is this test binary, by an absolute path.
func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// watchdogs finds the watchdogs of this test binary.
func (p *process) watchdogs() []int {
	p.t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		p.t.Fatal(err)
	}
	want := self(p.t) + "\x00" + watchdog.Subcommand + "\x00"
	var found []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		line, err := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if err == nil && string(line) == want {
			found = append(found, pid)
		}
	}
	return found
}

func (p *process) onlyWatchdog() int {
	p.t.Helper()
	found := p.watchdogs()
	if len(found) != 1 {
		p.t.Fatalf("there are the watchdogs %v, want one", found)
	}
	return found[0]
}

func alive(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Fields(string(data))[2] != "Z"
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for until := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("after a minute: not %s", what)
		}
	}
}

// wantCleanedUp says that the run left nothing.
func (p *process) wantCleanedUp() {
	p.t.Helper()
	eventually(p.t, "without the child", func() bool { return !alive(p.child) })
	eventually(p.t, "without the secret file", func() bool {
		_, err := os.Stat(p.plan.Secret)
		return errors.Is(err, os.ErrNotExist)
	})
	eventually(p.t, "without a watchdog", func() bool { return len(p.watchdogs()) == 0 })
	c, err := directory.New(filepath.Join(p.dir, p.plan.Directory), clock.System{})
	if err != nil {
		p.t.Fatal(err)
	}
	if holder, held, err := lock.HeldBy(p.t.Context(), c, lock.DefaultName); err != nil || held {
		p.t.Errorf("the lock is held by %s, %v", holder, err)
	}
	data, _, err := c.Read(p.t.Context(), engine.WatchdogLogName(runID))
	if err != nil {
		p.t.Fatal(err)
	}
	l, err := engine.DecodeWatchdogLog(data)
	if err != nil || !l.Done || len(l.Targets) != len(p.servers) {
		p.t.Errorf("the log is %s, %v", data, err)
	}
	for _, e := range l.Targets {
		if !e.Lifted || e.UnpausedAt.IsZero() {
			p.t.Errorf("the log says %+v", e)
		}
	}
}

func TestKilledRun(t *testing.T) {
	p := start(t, 2, time.Hour)
	dog := p.onlyWatchdog()
	// It is on its own, and shows no secret.
	session, _, err := sessionOf(dog)
	if err != nil || session != dog {
		t.Errorf("the watchdog %d is in the session %d, %v", dog, session, err)
	}
	if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", dog)); err != nil || cwd != "/" {
		t.Errorf("the watchdog is in %s, %v", cwd, err)
	}
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", dog))
	if err != nil || strings.Contains(string(env), "AWS") {
		t.Errorf("the watchdog's environment is %q, %v", env, err)
	}
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE} {
		if err := syscall.Kill(dog, s); err != nil {
			t.Fatal(err)
		}
	}
	if got := p.say("fired?"); got != "fired false, error false, gone false" {
		t.Errorf("after polite signals the watchdog has %s", got)
	}
	begun := time.Now()
	p.kill()
	eventually(t, "unpaused", func() bool { return !p.servers[0].Paused() && !p.servers[1].Paused() })
	t.Logf("unpaused %s after the kill", time.Since(begun))
	p.wantCleanedUp()
}

// sessionOf reads the session (field 6) of /proc/PID/stat.
func sessionOf(pid int) (session, group int, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	group, _ = strconv.Atoi(fields[2])
	session, err = strconv.Atoi(fields[3])
	return session, group, err
}

func TestStoppedRun(t *testing.T) {
	p := start(t, 1, 2*time.Second)
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "unpaused", func() bool { return !p.servers[0].Paused() })
	if err := p.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if got := p.say("fired?"); got != "fired true, error false, gone true" {
		t.Errorf("the run that woke up is told: %s", got)
	}
	if !alive(p.child) {
		t.Error("the child of a run that is alive was killed")
	}
	p.kill()
	p.wantCleanedUp()
}

func TestWatchdogDies(t *testing.T) {
	p := start(t, 1, time.Minute)
	if err := syscall.Kill(p.onlyWatchdog(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "told that the watchdog is gone", func() bool { return p.say("fired?") == "fired true, error true, gone true" })
}

func TestStoppedWatchdog(t *testing.T) {
	p := start(t, 1, time.Minute)
	dog := p.onlyWatchdog()
	if err := syscall.Kill(dog, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if got := p.say("fired?"); !strings.HasPrefix(got, "fired true, error true") {
		t.Errorf("a watchdog that does not answer has %s", got)
	}
	p.kill()
	if err := syscall.Kill(dog, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	eventually(t, "unpaused", func() bool { return !p.servers[0].Paused() })
	p.wantCleanedUp()
}

func TestTargetOutOfReach(t *testing.T) {
	p := start(t, 2, time.Minute)
	p.servers[1].Inject(adminserver.Unpause, adminserver.Fault{NoAct: true, Reply: adminserver.Dropped}, adminserver.Fault{NoAct: true, Reply: adminserver.Dropped}, adminserver.Fault{NoAct: true, Reply: adminserver.Dropped})
	p.kill()
	eventually(t, "unpaused", func() bool { return !p.servers[0].Paused() && !p.servers[1].Paused() })
	if n := p.servers[1].Count(adminserver.Unpause); n != 4 {
		t.Errorf("the target that failed three times was unpaused %d times", n)
	}
	p.wantCleanedUp()
}

func TestOrderlyRun(t *testing.T) {
	p := start(t, 1, time.Minute)
	if got := p.say("lifted"); got != "lifted <nil>" {
		t.Errorf("it said %q", got)
	}
	if got := p.say("close"); got != "closed <nil>" {
		t.Errorf("it said %q", got)
	}
	if found := p.watchdogs(); len(found) != 0 {
		t.Errorf("after Close there are the watchdogs %v", found)
	}
	if !p.servers[0].Paused() {
		t.Error("the watchdog unpaused what was not its to unpause")
	}
}

func TestArmRefuses(t *testing.T) {
	s, err := adminserver.Start(adminserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	o := engine.WatchdogOrder{
		RunID: runID, Pause: engine.PauseSettings{Drain: time.Second, Max: time.Minute},
		Targets: []engine.Target{{Group: "main", Address: s.Address(), Name: s.Address()}},
	}
	p := watchdog.Process{Clock: clock.System{}, Spec: watchdog.Spec{Groups: map[string]json.RawMessage{"main": json.RawMessage(`{}`)}}}
	for name, c := range map[string]struct {
		change func(p *watchdog.Process)
		want   string
	}{
		"no such program":      {func(p *watchdog.Process) { p.Command = []string{"/does/not/exist"} }, "starting the watchdog"},
		"a program that ends":  {func(p *watchdog.Process) { p.Command = []string{"/bin/true"} }, "arming the watchdog"},
		"a program that talks": {func(p *watchdog.Process) { p.Command = []string{"/bin/sh", "-c", "echo hello >&3"} }, "arming the watchdog"},
		"broken settings":      {func(p *watchdog.Process) { p.Spec.Groups = map[string]json.RawMessage{"main": json.RawMessage(`7`)} }, "target group main"},
	} {
		t.Run(name, func(t *testing.T) {
			p := p
			c.change(&p)
			if armed, err := p.Arm(t.Context(), o); err == nil || armed != nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Arm = %v, %v; want %q", armed, err, c.want)
			}
		})
	}
	if found := (&process{t: t}).watchdogs(); len(found) != 0 {
		t.Errorf("there are still the watchdogs %v", found)
	}
	s.Down()
	if _, err := p.Arm(t.Context(), o); err == nil || !strings.Contains(err.Error(), s.Address()) {
		t.Errorf("Arm without its target = %v", err)
	}
}
