package provider

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/procstat"
)

// thisProcess names this process, for messages and for alive: "HOST/pid PID (start START, machine ID)".
func thisProcess() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	stat, _ := procstat.Read(os.Getpid())
	return fmt.Sprintf("%s/pid %d (start %d, machine %s)", host, os.Getpid(), stat.Start, machine())
}

// machine identifies this boot of this machine and its PID namespace: only within it do process ids mean the same.
func machine() string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "unknown"
	}
	namespace, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(boot)) + "/" + strings.Trim(strings.TrimPrefix(namespace, "pid:"), "[]")
}

// alive says whether the process that a holder names still runs. known is false for one of another machine, container or boot.
func alive(holder string) (alive, known bool) {
	var pid int
	var start uint64
	var on string
	i := strings.LastIndex(holder, "/pid ")
	if i < 0 {
		return false, false
	}
	if _, err := fmt.Sscanf(strings.TrimSuffix(holder[i:], ")"), "/pid %d (start %d, machine %s", &pid, &start, &on); err != nil || pid < 1 {
		return false, false
	}
	if on == "unknown" || on != machine() {
		return false, false
	}
	now, err := procstat.Read(pid)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ESRCH):
		return false, true
	case err != nil:
		return false, false
	}
	return !now.Ended() && now.Start == start, true
}
