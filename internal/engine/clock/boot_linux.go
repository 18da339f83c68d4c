package clock

import (
	"time"

	"golang.org/x/sys/unix"
)

// boot is CLOCK_BOOTTIME, which goes on while the machine is suspended.
func boot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("reading the boot-time clock: " + err.Error()) // cannot fail on a kernel that Go runs on
	}
	return time.Duration(ts.Nano())
}
