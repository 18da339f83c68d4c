package medusa

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/move"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
)

// Defaults of Settings.
const (
	DefaultCommand    = "medusa"
	DefaultConfigFile = "/etc/medusa/medusa.ini"
)

// Settings are what the user says of medusa. {address} and the like of node.Node.Expand are replaced in both texts.
type Settings struct {
	Clock engine.Clock
	// Command is medusa on the node, as words of a shell, the last one medusa itself: "medusa", "sudo -u cassandra medusa". DefaultCommand when empty.
	Command string
	// ConfigFile is its configuration on the node, an absolute path. DefaultConfigFile when empty.
	ConfigFile string
}

// askTimeout bounds what is asked of medusa's storage, besides a backup. It lists what the node has there.
const askTimeout = 10 * time.Minute

//go:embed probe.py
var probe string

// launch runs a script ($2) by the Python that the command $1 is run by, which has medusa's library.
const launch = `set -e
m=$(command -v "$1") || { echo "$1: not found" >&2; exit 127; }
p=$(sed -n '1s/^#! *//p;1q' "$m")
case $p in */sh) p=$(sed -n "2s/^'''exec' \"\{0,1\}\([^\" ]*\).*/\1/p;2q" "$m") ;; esac
case $p in *python*) ;; *) p=python3 ;; esac
shift
exec $p -c "$@"`

// tool is medusa on one node.
type tool struct {
	files   node.Files
	clock   engine.Clock
	command string
	config  string
}

func (s Settings) tool(n move.Node) (*tool, error) {
	if n.Files == nil {
		return nil, errors.New("its files cannot be reached, which data = { medusa = ... } needs")
	}
	t := &tool{files: n.Files, clock: s.Clock, command: strings.TrimSpace(n.Expand(s.Command)), config: n.Expand(s.ConfigFile)}
	if t.command == "" {
		t.command = DefaultCommand
	}
	if t.config == "" {
		t.config = DefaultConfigFile
	}
	return t, nil
}

// ask runs the script in one of its modes. fqdn is another node's name in medusa's storage; empty for the node's own.
func (t *tool) ask(ctx context.Context, into any, mode, name, fqdn string) error {
	ctx, cancel := t.clock.WithTimeout(ctx, askTimeout)
	defer cancel()
	words := strings.Fields(t.command)
	last := len(words) - 1
	args := []string{"sh", "-c", launch, "sh", words[last], probe, mode, t.config, name}
	if fqdn != "" {
		args = append(args, fqdn)
	}
	out, err := t.files.Run(ctx, strings.Join(append(words[:last:last], quoted(args)...), " "), nil)
	if err != nil {
		return t.explain(err)
	}
	if err := json.Unmarshal(out, into); err != nil {
		return fmt.Errorf("reading what medusa's library says of backup %s: %w", name, err)
	}
	return nil
}

// run runs medusa itself.
func (t *tool) run(ctx context.Context, fqdn string, args ...string) error {
	words := []string{t.command, "--config-file", node.Quote(t.config)}
	if fqdn != "" {
		words = append(words, "--fqdn", node.Quote(fqdn))
	}
	_, err := t.files.Run(ctx, strings.Join(append(words, quoted(args)...), " "), nil)
	return t.explain(err)
}

func quoted(words []string) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = node.Quote(w)
	}
	return out
}

// explain leaves out the script that a command error begins with, and says what to look at.
func (t *tool) explain(err error) error {
	var c *node.CommandError
	if !errors.As(err, &c) {
		return err
	}
	short := &node.CommandError{Command: t.command, Exit: c.Exit, Stderr: lastLines(c.Stderr)}
	return fmt.Errorf("%w (exit status %d; its configuration is %s)", short, c.Exit, t.config)
}

// lastLines are those of a traceback that say what happened.
func lastLines(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-4):], "; ")
}
