//go:build !linux

package dump

import "syscall"

// attributes: a group of its own. Where the kernel cannot end the child with us, only the watchdog does.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func (p *Process) run(started chan<- error) {
	if err := p.cmd.Start(); err != nil {
		started <- err
		return
	}
	defer close(p.done)
	gone := func() {}
	if p.child.Custody != nil {
		gone = p.child.Custody.Process(p.cmd.Process.Pid, 0, p.child.Name)
	}
	started <- nil
	err := p.cmd.Wait()
	p.mu.Lock()
	p.reaped = true
	p.mu.Unlock()
	p.stderr.flush()
	gone()
	p.err = p.result(err)
}
