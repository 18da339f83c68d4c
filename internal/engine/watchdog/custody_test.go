package watchdog

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/clock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/procstat"
)

// spawn starts a child that lives for long.
func spawn(t *testing.T, leader bool, command ...string) (*exec.Cmd, procstat.Stat) {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: leader}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	s, err := procstat.Read(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return cmd, s
}

func running(pid int) bool {
	s, err := procstat.Read(pid)
	return err == nil && !s.Ended()
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for until := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("after a minute: not %s", what)
		}
	}
}

func TestKill(t *testing.T) {
	l := Local{Clock: clock.System{}}
	t.Run("one process", func(t *testing.T) {
		cmd, s := spawn(t, false, "sleep", "1000")
		if err := l.Kill(t.Context(), cmd.Process.Pid, s.Start); err != nil {
			t.Fatal(err)
		}
		if running(cmd.Process.Pid) {
			t.Error("it still runs")
		}
		for range 2 { // as a zombie, and when it is gone
			if err := l.Kill(t.Context(), cmd.Process.Pid, s.Start); err != nil {
				t.Error(err)
			}
			_ = cmd.Wait()
		}
	})
	t.Run("a stopped process", func(t *testing.T) {
		cmd, s := spawn(t, false, "sleep", "1000")
		if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		if err := l.Kill(t.Context(), cmd.Process.Pid, s.Start); err != nil || running(cmd.Process.Pid) {
			t.Errorf("Kill = %v, running = %v", err, running(cmd.Process.Pid))
		}
	})
	t.Run("a group", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "pid")
		cmd, s := spawn(t, true, "sh", "-c", "sleep 1000 & echo $! > "+file+".new; mv "+file+".new "+file+"; wait")
		var member int
		eventually(t, "started", func() bool {
			data, err := os.ReadFile(file)
			if err == nil {
				member, err = strconv.Atoi(strings.TrimSpace(string(data)))
			}
			return err == nil
		})
		if err := l.Kill(t.Context(), cmd.Process.Pid, s.Start); err != nil {
			t.Fatal(err)
		}
		eventually(t, "dead, both", func() bool { return !running(cmd.Process.Pid) && !running(member) })
	})
	t.Run("somebody else's process", func(t *testing.T) {
		cmd, s := spawn(t, false, "sleep", "1000")
		if err := l.Kill(t.Context(), cmd.Process.Pid, s.Start+1); err != nil {
			t.Error(err)
		}
		if !running(cmd.Process.Pid) {
			t.Error("a process that only has the number of ours was killed")
		}
		if err := killOne(cmd.Process.Pid, s.Start+1); !errors.Is(err, syscall.ESRCH) || !running(cmd.Process.Pid) {
			t.Errorf("killOne = %v", err)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		cmd, s := spawn(t, false, "sleep", "1000")
		_ = l.Kill(ctx, cmd.Process.Pid, s.Start) // it sends the signal, and need not wait
		eventually(t, "dead", func() bool { return !running(cmd.Process.Pid) })
	})
}

func TestRemove(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "spool")
	if err := os.MkdirAll(filepath.Join(dir, "a"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a", "password"), []byte("x"), 0o400); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := (Local{}).Remove(dir); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	for _, path := range []string{"", "/", "/etc", "relative/path", "/a/../b", "/a/b/", "//a"} {
		if err := (Local{}).Remove(path); err == nil {
			t.Errorf("Remove(%q) = nil, want a refusal", path)
		}
	}
}
