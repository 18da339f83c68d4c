package nodetool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/testclock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/local"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
)

// script is a nodetool that shows its arguments, the password file and its mode, and the file's name to whoever looks for it afterwards.
const script = `#!/bin/sh
echo "out: $*"
echo "err: $#" >&2
while [ $# -gt 0 ]; do
  if [ "$1" = -pwf ]; then
    cat "$2"; stat -c 'mode %a' "$2"; echo "$2" > "$(dirname "$0")/file"
  fi
  if [ "$1" = fail ]; then cat "$(cat "$(dirname "$0")/file")" >&2; exit 3; fi
  if [ "$1" = hang ]; then touch "$(dirname "$0")/hangs"; exec sleep 60; fi
  shift
done
`

// custody remembers what it was told.
type custody struct {
	mu    sync.Mutex
	files map[string]bool // true: still there
}

func (c *custody) Process(int, uint64, string) func() { return func() {} }

func (c *custody) SecretFile(path string) func() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.files[path] = true
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.files[path] = false
	}
}

// runners runs a case with the runner of this machine, and with that of SSH over this machine's shell.
func runners(t *testing.T, login Login, run func(t *testing.T, c Command, dir string, told *custody)) {
	for _, kind := range []string{"exec", "ssh"} {
		t.Run(kind, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "a b")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			tool := filepath.Join(dir, "nodetool")
			if err := os.WriteFile(tool, []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
			told := &custody{files: map[string]bool{}}
			machine := local.Machine{Clock: testclock.New(), Getenv: os.Getenv, Custody: told}
			var c Command = &sshCommand{shell: machine, command: node.Quote(tool) + " -h 10.0.0.1", login: login}
			if kind == "exec" {
				var err error
				c, err = Exec{Machine: machine, Command: []string{tool, "-h", "{address}"}, Login: login}.Open(t.Context(), node.Node{Address: "10.0.0.1"})
				if err != nil {
					t.Fatal(err)
				}
			}
			run(t, c, dir, told)
		})
	}
}

func TestRunners(t *testing.T) {
	runners(t, Login{}, func(t *testing.T, c Command, _ string, _ *custody) {
		out, err := c.Run(t.Context(), []string{"snapshot", "it's", "$HOME", "--"})
		if want := "out: -h 10.0.0.1 snapshot it's $HOME --\nerr: 6\n"; err != nil || string(out) != want {
			t.Errorf("Run: %q, %v; want %q", out, err, want)
		}
		var exit *node.CommandError
		if _, err := c.Run(t.Context(), []string{"fail"}); !errors.As(err, &exit) || exit.Exit != 3 || !strings.HasSuffix(exit.Command, "nodetool' -h 10.0.0.1 fail") {
			t.Errorf("Run of a command that fails: %v", err)
		}
	})
}

const password = "s3cret$x'y"

func TestPassword(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	runners(t, Login{"jmx'user", password}, func(t *testing.T, c Command, dir string, told *custody) {
		out, err := c.Run(t.Context(), []string{"info"})
		if err != nil || !strings.Contains(string(out), "\njmx'user "+password+"\nmode 600\n") || !strings.Contains(string(out), "out: -h 10.0.0.1 -u jmx'user -pwf /") {
			t.Errorf("Run: %q, %v", out, err)
		}
		gone := func() {
			t.Helper()
			name, err := os.ReadFile(filepath.Join(dir, "file"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Lstat(strings.TrimSpace(string(name))); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the password file is still there: %v", err)
			}
			for path, there := range told.files {
				if there {
					t.Errorf("custody still has %s", path)
				}
			}
		}
		gone()
		// A command that fails and prints it.
		out, err = c.Run(t.Context(), []string{"fail"})
		if err == nil || strings.Contains(fmt.Sprint(string(out), err), password) || !strings.Contains(string(out), "***") {
			t.Errorf("Run: %q, %v", out, err)
		}
		gone()
		// One that is cut off.
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan error, 1)
		go func() {
			_, err := c.Run(ctx, []string{"hang"})
			done <- err
		}()
		for _, err := os.Stat(filepath.Join(dir, "hangs")); err != nil; _, err = os.Stat(filepath.Join(dir, "hangs")) {
			select {
			case err := <-done:
				t.Fatalf("it ended: %v", err)
			default:
			}
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
		gone()
	})
}

func TestLogin(t *testing.T) {
	for _, l := range []Login{{"u", ""}, {"", "p"}, {"u", "p q"}, {"u\n", "p"}, {"-u", "p"}} {
		err := l.Validate()
		if err == nil {
			t.Errorf("%q and %q are taken", l.Username, l.Password)
		}
		if _, err := (Exec{Command: []string{"nodetool"}, Login: l}).Open(t.Context(), node.Node{}); err == nil {
			t.Errorf("Exec takes %q and %q", l.Username, l.Password)
		}
		if _, err := (SSH{Login: l}).Open(t.Context(), node.Node{}); err == nil {
			t.Errorf("SSH takes %q and %q", l.Username, l.Password)
		}
	}
	for _, verb := range []string{"%v", "%+v", "%#v"} {
		if text := fmt.Sprintf(verb, Exec{Login: Login{"u", password}}); strings.Contains(text, password) {
			t.Errorf("%s prints %s", verb, text)
		}
	}
	if _, err := (Exec{}).Open(t.Context(), node.Node{}); err == nil {
		t.Error("an empty command is taken")
	}
}
