package dump

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// attributes: a group of its own, so that a Ctrl-C in the terminal reaches us and not the tool, and the tool's own children end
// with it; and SIGKILL by the kernel when we die without a word.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// run starts the child and waits for it, on one thread: Pdeathsig means the death of the *thread* that started the child, and Go
// may end a thread at any time unless a goroutine is locked to it.
func (p *Process) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := p.cmd.Start(); err != nil {
		started <- err
		return
	}
	defer close(p.done)
	pid := p.cmd.Process.Pid
	gone := func() {}
	if p.child.Custody != nil {
		// Unreadable only if it is gone already; and 0 is no process's start time, so nothing is ever killed by it.
		start, _ := startTime(pid)
		gone = p.child.Custody.Process(pid, start, p.child.Name)
	}
	started <- nil
	// Wait for the end without reaping: as long as it is a zombie its PID, and so its group's, is nobody else's, and what it left behind
	// (workers of a killed pg_dump) can be killed by the group.
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	p.mu.Lock()
	_ = syscall.Kill(-pid, syscall.SIGKILL)
	p.reaped = true
	p.mu.Unlock()
	err := p.cmd.Wait()
	p.stderr.flush()
	gone()
	p.err = p.result(err)
}

// startTime is field 22 of /proc/PID/stat: clock ticks since boot.
func startTime(pid int) (uint64, error) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	return parseStat(string(stat))
}

// parseStat counts from behind the last ")": the second field is the program's name and may hold anything.
func parseStat(stat string) (uint64, error) {
	end := strings.LastIndexByte(stat, ')')
	fields := strings.Fields(stat[end+1:])
	if end < 0 || len(fields) < 20 {
		return 0, fmt.Errorf("reading a process's start time: %q", stat)
	}
	return strconv.ParseUint(fields[19], 10, 64)
}
