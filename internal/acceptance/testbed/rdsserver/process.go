package rdsserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/child"
)

// process is one running database server.
type process struct {
	pid  int
	log  string
	done <-chan struct{} // closed when it has ended
}

// launch starts a server that writes to a log file. It dies with us, at the latest.
func launch(cmd *exec.Cmd, as *syscall.Credential, log string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close() //nolint:errcheck // the server has its own
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Credential: as}
	done, err := child.Start(cmd)
	if err != nil {
		return nil, err
	}
	return &process{pid: cmd.Process.Pid, log: log, done: done}, nil
}

// startTimeout is generous: several servers may start at once on a small machine.
const startTimeout = 120 * time.Second

// answers waits until ping succeeds.
func (p *process) answers(ctx context.Context, ping func() error) error {
	deadline := time.Now().Add(startTimeout)
	for {
		err := ping()
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("it ended: %s", p.tail())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no answer within %s (%w): %s", startTimeout, err, p.tail())
		}
	}
}

func (p *process) tail() string {
	text, _ := os.ReadFile(p.log)
	return string(text[max(0, len(text)-2000):])
}

// end sends a signal and waits; the whole group is killed when that takes too long.
func (p *process) end(signal syscall.Signal) {
	select {
	case <-p.done:
		return
	default:
	}
	_ = syscall.Kill(p.pid, signal)
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		_ = syscall.Kill(-p.pid, syscall.SIGKILL)
		<-p.done
	}
}

// run runs a tool to its end.
func run(cmd *exec.Cmd, as *syscall.Credential) error {
	runtime.LockOSThread() // Pdeathsig is about the thread
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Credential: as}
	var said strings.Builder
	cmd.Stderr = &said
	if cmd.Stdout == nil {
		cmd.Stdout = &said
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("running %s: %w: %s", cmd.Path, err, said.String())
	}
	return nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	addr, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return 0, errors.Join(errors.New("a TCP listener without a port"), l.Close())
	}
	return addr.Port, l.Close()
}
