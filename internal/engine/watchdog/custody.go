package watchdog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
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
		s, err := readStat(pid)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) || (err == nil && s.start != start) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("looking at process %d: %w", pid, err)
		}
		// A process that has ended and was not waited for still leads its group, and keeps its number from being used again.
		if s.group == pid {
			err = unix.Kill(-pid, unix.SIGKILL)
		} else if !s.ended() {
			err = killOne(pid, start)
		}
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("killing process %d: %w", pid, err)
		}
		if s.ended() {
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
	if s, err := readStat(pid); err != nil || s.start != start {
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

// stat is what we need of /proc/PID/stat.
type stat struct {
	state byte
	group int
	start uint64 // clock ticks since boot
}

func (s stat) ended() bool { return s.state == 'Z' || s.state == 'X' || s.state == 'x' }

func readStat(pid int) (stat, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return stat{}, err
	}
	return parseStat(data)
}

// parseStat reads one line of /proc/PID/stat: the number, the name in parentheses (which may hold parentheses and spaces), and then
// fields that hold none: 3 is the state, 5 the process group, 22 the start time.
func parseStat(data []byte) (stat, error) {
	bad := errors.New("reading a process's state: /proc has an unknown form")
	i := bytes.LastIndexByte(data, ')')
	if i < 0 {
		return stat{}, bad
	}
	fields := bytes.Fields(data[i+1:])
	if len(fields) < 20 || len(fields[0]) != 1 {
		return stat{}, bad
	}
	state := fields[0][0]
	if letter := state | 0x20; letter < 'a' || letter > 'z' {
		return stat{}, bad
	}
	group, err := strconv.Atoi(string(fields[5-3]))
	if err != nil {
		return stat{}, bad
	}
	start, err := strconv.ParseUint(string(fields[22-3]), 10, 64)
	if err != nil {
		return stat{}, bad
	}
	return stat{state, group, start}, nil
}
