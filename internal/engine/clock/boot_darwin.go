package clock

import (
	"time"

	"golang.org/x/sys/unix"
)

// boot is CLOCK_MONOTONIC, which on macOS goes on while the machine sleeps.
func boot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic("reading the boot-time clock: " + err.Error()) // cannot fail on a kernel that Go runs on
	}
	return time.Duration(ts.Nano())
}
