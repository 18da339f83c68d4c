package cassandra

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
)

// A node may be started by a command that a test runs somewhere, so it is nobody's child. The reaper is a process that waits until the test's process is
// gone or tells it to end, then kills the virtual machines that name the cluster's folder, and removes that.
const reaperScript = `
cat >/dev/null
for ((i = 0; i < 100; i++)); do
	found=
	for process in $(grep -lsaz -- "^-Dcassandra.storagedir=$1/" /proc/[0-9]*/cmdline); do
		process=${process#/proc/}
		kill -9 "${process%/cmdline}" 2>/dev/null && found=1
	done
	[[ $found ]] || break
	sleep 0.05
done
rm -rf -- "$1"
`

type reaper struct {
	cmd   *exec.Cmd
	stdin io.Closer
	said  *bytes.Buffer
	dir   string
	once  sync.Once
	err   error
}

func startReaper(dir string) (*reaper, error) {
	r := &reaper{cmd: exec.Command("bash", "-c", reaperScript, "reaper", dir), said: &bytes.Buffer{}, dir: dir} //nolint:noctx // it ends with its input
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}                                                      // an interrupt at the terminal is not for it
	r.cmd.Stderr = r.said
	var err error
	if r.stdin, err = r.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := r.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting what ends the nodes: %w", err)
	}
	return r, nil
}

// end may be called again.
func (r *reaper) end() error {
	r.once.Do(func() { r.err = r.finish() })
	return r.err
}

func (r *reaper) finish() error {
	err := errors.Join(r.stdin.Close(), r.cmd.Wait())
	if _, still := os.Stat(r.dir); still == nil {
		err = errors.Join(err, fmt.Errorf("%s is still there", r.dir))
	}
	if err != nil {
		return fmt.Errorf("%w: %s", err, r.said)
	}
	return nil
}

// runs tells whether a process is there, and has that argument: its number may be another's by now.
func runs(pid int, argument string) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err != nil {
		return false
	}
	for arg := range bytes.SplitSeq(text, []byte{0}) {
		if string(arg) == argument {
			return true
		}
	}
	return false
}
