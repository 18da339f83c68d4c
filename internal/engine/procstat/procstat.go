// Package procstat reads what Linux tells of a process in /proc/PID/stat (proc_pid_stat(5)): whether a process id is still that of the process it was once.
package procstat

import (
	"bytes"
	"errors"
	"os"
	"strconv"
)

// Stat is what we need of it.
type Stat struct {
	State byte // a letter
	Group int
	Start uint64 // clock ticks since boot; 0 is no process's
}

// Ended says that the process is dead: its number is taken until it is waited for.
func (s Stat) Ended() bool { return s.State == 'Z' || s.State == 'X' || s.State == 'x' }

// Read reads it of a process; the error is os.ErrNotExist, or ESRCH, when there is none.
func Read(pid int) (Stat, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return Stat{}, err
	}
	return parse(data)
}

// parse reads the line: the number, the name in parentheses (which may hold parentheses and spaces), and then fields that hold none: 3 is the state,
// 5 the process group, 22 the start time.
func parse(data []byte) (Stat, error) {
	bad := errors.New("reading a process's state: /proc has an unknown form")
	i := bytes.LastIndexByte(data, ')')
	if i < 0 {
		return Stat{}, bad
	}
	fields := bytes.Fields(data[i+1:])
	if len(fields) < 20 || len(fields[0]) != 1 {
		return Stat{}, bad
	}
	state := fields[0][0]
	if letter := state | 0x20; letter < 'a' || letter > 'z' {
		return Stat{}, bad
	}
	group, err := strconv.Atoi(string(fields[5-3]))
	if err != nil {
		return Stat{}, bad
	}
	start, err := strconv.ParseUint(string(fields[22-3]), 10, 64)
	if err != nil {
		return Stat{}, bad
	}
	return Stat{state, group, start}, nil
}
