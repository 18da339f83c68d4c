package nodetool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/local"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/remote"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/dump"
)

// Login is the user of JMX. It gets to nodetool by a file that only its user can read, never by an argument. When it is printed, the password is left out.
type Login struct{ Username, Password string }

// Format implements fmt.Formatter.
func (l Login) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "nodetool.Login("+l.Username+")")
}

// Validate says what nodetool could not take: its password file has words.
func (l Login) Validate() error {
	switch {
	case l.Username == "" && l.Password == "":
		return nil
	case l.Username == "" || l.Password == "":
		return errors.New("credentials.jmx: nodetool needs both username and password")
	case strings.ContainsFunc(l.Username+l.Password, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }):
		return errors.New("credentials.jmx: nodetool cannot take a username or a password with white space or control characters: use the transport jmx")
	case strings.HasPrefix(l.Username, "-"):
		return errors.New("credentials.jmx: nodetool cannot take a username that begins with -")
	}
	return nil
}

// file is the password file.
func (l Login) file() string { return l.Username + " " + l.Password + "\n" }

// hide takes the password out of what a command said, and puts the command as the user knows it in place of the one that ran.
func (l Login) hide(out []byte, err error, command string) ([]byte, error) {
	clean := func(s string) string {
		if l.Password == "" {
			return s
		}
		return strings.ReplaceAll(s, l.Password, "***")
	}
	var exit *node.CommandError
	if errors.As(err, &exit) {
		err = &node.CommandError{Command: command, Exit: exit.Exit, Stderr: clean(exit.Stderr)}
	}
	if l.Password != "" && err != nil {
		out = []byte(clean(string(out)))
	}
	return out, err
}

func words(args []string) string {
	quoted := make([]string, len(args))
	for i, a := range args {
		quoted[i] = node.Quote(a)
	}
	return strings.Join(quoted, " ")
}

// SSH runs nodetool on the nodes.
type SSH struct {
	Hosts *remote.Hosts
	// Command is what begins the command line on the node, {address} and the like put in (node.Node.Expand), "nodetool" or "/opt/cassandra/bin/nodetool -p 7299";
	// default "nodetool".
	Command string
	Login   Login
}

// Name implements Runner.
func (s SSH) Name() string { return "ssh" }

// Open implements Runner.
func (s SSH) Open(ctx context.Context, n node.Node) (Command, error) {
	if err := s.Login.Validate(); err != nil {
		return nil, err
	}
	command := s.Command
	if command == "" {
		command = "nodetool"
	}
	host, err := s.Hosts.Open(ctx, n)
	if err != nil {
		return nil, err
	}
	return &sshCommand{shell: host, command: n.Expand(command), login: s.Login}, nil
}

// shell is a *remote.Host, or a test's.
type shell interface {
	Run(ctx context.Context, command string, stdin io.Reader) ([]byte, error)
	Close() error
}

type sshCommand struct {
	shell
	command string
	login   Login
}

// passwordFile makes a file of what comes from the standard input, readable by its user only, that is gone with the shell, also when it is ended by a signal.
const passwordFile = `umask 077; f=$(mktemp "${TMPDIR:-/tmp}/scalardb-jmx.XXXXXXXXXX") || exit 1; trap 'rm -f "$f"' EXIT; trap 'exit 143' HUP INT TERM; cat >"$f" || exit 1; `

func (c *sshCommand) Run(ctx context.Context, args []string) ([]byte, error) {
	text := c.command + " " + words(args)
	line, stdin := text+" 2>&1", io.Reader(nil)
	if c.login.Username != "" {
		line = passwordFile + c.command + " -u " + node.Quote(c.login.Username) + ` -pwf "$f" ` + words(args) + " 2>&1 </dev/null"
		stdin = strings.NewReader(c.login.file())
	}
	out, err := c.shell.Run(ctx, line, stdin)
	return c.login.hide(out, err, text)
}

// Exec runs nodetool on this machine.
type Exec struct {
	Machine local.Machine
	// Command are the program and its first arguments, {address} and the like put in: ["nodetool", "-h", "{address}"].
	Command []string
	Login   Login
}

// Name implements Runner.
func (e Exec) Name() string { return "exec" }

// Open implements Runner.
func (e Exec) Open(_ context.Context, n node.Node) (Command, error) {
	if err := e.Login.Validate(); err != nil {
		return nil, err
	}
	if len(e.Command) == 0 || e.Command[0] == "" {
		return nil, errors.New("the command of nodetool is empty")
	}
	c := &execCommand{machine: e.Machine, login: e.Login}
	for _, word := range e.Command {
		c.argv = append(c.argv, n.Expand(word))
	}
	return c, nil
}

type execCommand struct {
	machine local.Machine
	argv    []string
	login   Login
}

func (c *execCommand) Close() error { return nil }

func (c *execCommand) Run(ctx context.Context, args []string) (out []byte, err error) {
	text := words(append(append([]string{}, c.argv...), args...))
	// The shell only joins the two outputs; the words get to the program as they are.
	argv := append([]string{"/bin/sh", "-c", `exec "$@" 2>&1`, "sh"}, c.argv...)
	if c.login.Username != "" {
		file, remove, err := dump.SecretFile(c.machine.Custody, os.TempDir(), "scalardb-jmx-*", []byte(c.login.file()))
		if err != nil {
			return nil, err
		}
		defer remove()
		argv = append(argv, "-u", c.login.Username, "-pwf", file)
	}
	out, err = c.machine.Exec(ctx, append(argv, args...), text, nil)
	return c.login.hide(out, err, text)
}
