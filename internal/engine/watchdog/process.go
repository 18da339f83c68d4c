package watchdog

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

// Subcommand is the hidden argument that makes the provider's binary a watchdog.
const Subcommand = "watchdog"

// answersFD is where the watchdog writes its answers; its standard output is closed off, so that nothing it prints can be taken for one.
const answersFD = 3

// Process starts watchdogs as processes of their own: this binary again, in its own session, so that neither a Ctrl-C nor the end of a terminal nor of
// its parent reaches it. It implements engine.Watchdog.
type Process struct {
	Clock engine.Clock
	Spec  Spec
	// Command is the program and its arguments; empty: this binary, with Subcommand.
	Command []string
}

var _ engine.Watchdog = Process{}

// Arm starts and arms one.
func (p Process) Arm(ctx context.Context, o engine.WatchdogOrder) (engine.Armed, error) {
	command := p.Command
	if len(command) == 0 {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("starting the watchdog: finding this program: %w", err)
		}
		command = []string{self, Subcommand}
	}
	spec := p.Spec
	if spec.Catalog.Directory != "" { // the watchdog's working directory is another
		dir, err := filepath.Abs(spec.Catalog.Directory)
		if err != nil {
			return nil, fmt.Errorf("starting the watchdog: %w", err)
		}
		spec.Catalog.Directory = dir
	}
	answers, theirEnd, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("starting the watchdog: %w", err)
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir = "/" // keeps no file system busy
	cmd.Env = environment()
	cmd.ExtraFiles = []*os.File{theirEnd}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	orders, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	_ = theirEnd.Close() // the child has its own
	if err != nil {
		_ = answers.Close()
		return nil, fmt.Errorf("starting the watchdog: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // its answers say what there is to say
		close(ended)
	}()
	c, err := newClient(ctx, p.Clock, orders, answers, ended, orderOf(o, spec))
	if err != nil {
		_ = cmd.Process.Kill() // nothing was paused: it has no duty yet
		<-ended
		return nil, err
	}
	return c, nil
}

// environment is what a watchdog inherits: nothing that could be a secret.
func environment() []string {
	var env []string
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "GODEBUG", "GOCOVERDIR"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

func orderOf(o engine.WatchdogOrder, s Spec) order {
	return order{
		RunID: o.RunID, BackupID: o.BackupID, Targets: o.Targets, Drain: o.Pause.Drain, Max: o.Pause.Max,
		Log: o.Journal, Lock: o.Lock, Spec: s,
	}
}

// Main is the watchdog process, from main's hidden subcommand. It returns the exit status.
func Main(clock engine.Clock, openers Openers) int {
	// Whoever ends the provider politely, or its terminal, must not end the one that cleans up after it.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE, syscall.SIGQUIT, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU)
	err := Run(context.Background(), Config{
		Clock: clock, In: os.Stdin, Out: os.NewFile(answersFD, "answers"), Openers: openers, System: Local{Clock: clock},
	})
	if err != nil {
		return 1
	}
	return 0
}
