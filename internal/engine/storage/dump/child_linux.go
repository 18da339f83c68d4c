package dump

import (
	"errors"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/procstat"
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
		stat, _ := procstat.Read(pid)
		gone = p.child.Custody.Process(pid, stat.Start, p.child.Name)
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
