// Package child starts the servers of test beds so that none outlives its test, even one that is killed.
package child

import (
	"os/exec"
	"runtime"
)

// Start starts a command that has Pdeathsig set, and returns when it runs. done is closed when it has ended.
func Start(cmd *exec.Cmd) (done <-chan struct{}, err error) {
	started, ended := make(chan error, 1), make(chan struct{})
	go func() {
		// Pdeathsig is about the thread that starts the child: this one stays as long as the child does.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	return ended, <-started
}
