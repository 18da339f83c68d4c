package watchdog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/procstat"
)

// System ends what outlived its run.
type System interface {
	// Kill ends a process, and its process group where it leads one, and returns when it is gone. start is the process's start time in clock ticks since boot:
	// a process that has the same number and another start is somebody else's, and none of ours is left.
	Kill(ctx context.Context, pid int, start uint64) error
	// Remove removes a file, or a directory with all that is in it. What is not there is no error.
	Remove(path string) error
}

// Local is the System of this machine.
type Local struct{ Clock engine.Clock }

const (
	killPoll    = 20 * time.Millisecond
	killTimeout = 10 * time.Second // a process in the middle of a disk's answer ends only after it
)

// Kill ends a process by SIGKILL. Of a group whose leader was waited for already nothing can be told: its other members are left alone.
func (l Local) Kill(ctx context.Context, pid int, start uint64) error {
	ctx, cancel := l.Clock.WithTimeout(ctx, killTimeout)
	defer cancel()
	for {
		s, err := procstat.Read(pid)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) || (err == nil && s.Start != start) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("looking at process %d: %w", pid, err)
		}
		// A process that has ended and was not waited for still leads its group, and keeps its number from being used again.
		if s.Group == pid {
			err = unix.Kill(-pid, unix.SIGKILL)
		} else if !s.Ended() {
			err = killOne(pid, start)
		}
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("killing process %d: %w", pid, err)
		}
		if s.Ended() {
			return nil
		}
		if l.Clock.Sleep(ctx, killPoll) != nil {
			return fmt.Errorf("killing process %d: it was sent SIGKILL and is still there", pid)
		}
	}
}

// killOne kills exactly the process that was looked at: a pidfd stays with it when its number is used again.
func killOne(pid int, start uint64) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		return unix.Kill(pid, unix.SIGKILL) // an old kernel, or a sandbox
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if s, err := procstat.Read(pid); err != nil || s.Start != start {
		return unix.ESRCH
	}
	return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
}

// Remove removes a file or a directory.
func (Local) Remove(path string) error {
	if err := checkPath(path); err != nil {
		return err
	}
	return os.RemoveAll(path)
}
