//go:build linux

package dump

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/testclock"
)

func shell(script string) Child {
	return Child{Path: "/bin/sh", Name: "tool", Args: []string{"-c", script}, Clock: testclock.New()}
}

func start(t *testing.T, c Child) *Process {
	t.Helper()
	p, err := StartChild(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Kill(); _ = p.Wait() })
	return p
}

// alive lists the processes of a group that are not zombies: those wait for whoever adopted them.
func alive(t *testing.T, group int) (pids []string) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range stats {
		data, _ := os.ReadFile(f)
		fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
		if len(fields) > 2 && fields[0] != "Z" && fields[0] != "X" && fields[2] == strconv.Itoa(group) {
			pids = append(pids, f)
		}
	}
	return pids
}

// gone polls until no process of the group is left.
func gone(t *testing.T, group int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); len(alive(t, group)) > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("of the process group %d there is still %q", group, alive(t, group))
		}
	}
}

func TestChildTakesExactlyItsEnvironmentAndPassesTheRest(t *testing.T) {
	t.Setenv("SCALARDB_TEST_SECRET", "hunter2")
	var out bytes.Buffer
	var lines []string
	c := shell(`cat; env; echo one >&2; echo two >&2; printf three >&2`)
	c.Env, c.Stdin, c.Stdout = []string{"A=b"}, strings.NewReader("input\n"), &out
	c.OnStderr = func(l string) { lines = append(lines, l) }
	if err := start(t, c).Wait(); err != nil {
		t.Fatal(err)
	}
	if s := out.String(); !strings.HasPrefix(s, "input\n") || !strings.Contains(s, "A=b\n") || strings.Contains(s, "hunter2") || strings.Contains(s, "HOME=") {
		t.Errorf("output %q", s)
	}
	if !slices.Equal(lines, []string{"one", "two", "three"}) {
		t.Errorf("lines %q", lines)
	}
	out.Reset()
	c = shell("env")
	c.Stdout = &out
	if err := start(t, c).Wait(); err != nil || strings.Contains(out.String(), "hunter2") {
		t.Errorf("with an empty environment: %q, %v", out.String(), err)
	}
}

func TestChildErrors(t *testing.T) {
	err := start(t, shell(`i=0; while [ $i -lt 40 ]; do echo line $i >&2; i=$((i+1)); done; exit 3`)).Wait()
	var exit *ExitError
	if !errors.As(err, &exit) || exit.Status != 3 || !strings.Contains(err.Error(), "tool") || !strings.HasSuffix(exit.Stderr, "line 39") || strings.Contains(exit.Stderr, "line 20\n") {
		t.Errorf("exit status: %v", err)
	}
	err = start(t, shell(`head -c 1000000 /dev/zero | tr '\0' x >&2; exit 1`)).Wait()
	if !errors.As(err, &exit) || len(exit.Stderr) != maxLine {
		t.Errorf("an endless line: %d bytes, %.100v", len(exit.Stderr), err)
	}
	if err := start(t, shell(`echo "pg_dump: error: could not write: No space left on device" >&2; exit 1`)).Wait(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a full disk: %v", err)
	}
	if err := start(t, shell(`kill -9 $$`)).Wait(); err == nil || !strings.Contains(err.Error(), "was killed") {
		t.Errorf("killed by another: %v", err)
	}
	if _, err := StartChild(t.Context(), Child{Path: "/nonexistent/tool", Name: "tool"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no program: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := StartChild(ended, shell("true")); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
func (f failing) Read([]byte) (int, error)  { return 0, f.err }

func TestChildReportsWhyItsOutputCouldNotBeTaken(t *testing.T) {
	c := shell(`yes`)
	c.Stdout = failing{syscall.ENOSPC}
	if err := start(t, c).Wait(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
}

// A tool that gets half of its input must not take it for the whole.
func TestChildNeverSeesTheEndOfABrokenInput(t *testing.T) {
	mark := filepath.Join(t.TempDir(), "saw the end")
	c := shell(`cat >/dev/null; echo done >"` + mark + `"`)
	c.Stdin = io.MultiReader(strings.NewReader("half"), failing{ErrDamaged})
	if err := start(t, c).Wait(); !errors.Is(err, ErrDamaged) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("the tool saw the end of its input")
	}
	// One that ends well without having read it all did not prove it.
	c = shell(`exec 0<&-; exit 0`)
	c.Stdin = bytes.NewReader(make([]byte, 1<<20))
	if err := start(t, c).Wait(); err == nil {
		t.Error("an input that was not read counts as read")
	}
}

func TestChildGroupEnds(t *testing.T) {
	const workers = `sleep 1000 & sleep 1000 & `
	for name, end := range map[string]func(p *Process, cancel func()){
		"Kill":       func(p *Process, _ func()) { p.Kill(); p.Kill() },
		"ctx":        func(_ *Process, cancel func()) { cancel() },
		"leader":     func(p *Process, _ func()) { _ = syscall.Kill(p.cmd.Process.Pid, syscall.SIGKILL) },
		"own ending": func(*Process, func()) {},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			custody := newCustody()
			// Its output is held open by its workers: their end is awaited too.
			script := workers + `echo ready; wait`
			if name == "own ending" {
				script = workers + `echo ready`
			}
			ready := make(chan struct{}, 8)
			c := shell(script)
			c.Custody, c.Stdout = custody, notify(ready)
			p, err := StartChild(ctx, c)
			if err != nil {
				t.Fatal(err)
			}
			pid := p.cmd.Process.Pid
			custody.mu.Lock()
			if name != "own ending" && custody.procs[pid] == 0 {
				t.Errorf("custody was told %v of %d", custody.procs, pid)
			}
			custody.mu.Unlock()
			<-ready
			if n := len(alive(t, pid)); n < 3 && name != "own ending" {
				t.Fatalf("the group has %d processes: the test does not test", n)
			}
			end(p, cancel)
			if err := p.Wait(); (err == nil) != (name == "own ending") {
				t.Errorf("got %v", err)
			}
			gone(t, pid)
			if len(custody.procs) != 0 {
				t.Errorf("custody still has %v", custody.procs)
			}
			p.Kill() // after the end: the PID may be another's
		})
	}
}

type notify chan struct{}

func (n notify) Write(b []byte) (int, error) {
	n <- struct{}{}
	return len(b), nil
}

// A tool that is asked to end, and ends well, has not done its work.
func TestChildEndedByContextIsAnErrorAlsoWithStatus0(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	ready := make(chan struct{}, 8)
	c := shell(`trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done`)
	c.Stdout = notify(ready)
	p, err := StartChild(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	<-ready
	cancel(errors.New("the run was cancelled"))
	if err := p.Wait(); err == nil || !strings.Contains(err.Error(), "the run was cancelled") {
		t.Errorf("got %v", err)
	}
}

// TestChildDiesWithItsParent starts this test's binary as the parent, kills it with SIGKILL, and looks for the grandchild.
func TestChildDiesWithItsParent(t *testing.T) {
	if os.Getenv("DUMP_TEST_PARENT") != "" {
		p := start(t, shell(`echo $$; exec sleep 1000`))
		fmt.Printf("pid %d\n", p.cmd.Process.Pid)
		_ = p.Wait()
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestChildDiesWithItsParent$")
	cmd.Env = append(os.Environ(), "DUMP_TEST_PARENT=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscanf(out, "pid %d\n", &pid); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d outlived its parent", pid)
		}
	}
}
