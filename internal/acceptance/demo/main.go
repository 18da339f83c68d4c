// Command demo shows the main job on an embedded sandbox: a backup of a busy ScalarDB system by `terraform apply`, and its verified
// restore into new databases by another. It exits with a status other than 0 if any of it is wrong.
//
// It uses the terraform or tofu in PATH, or the one that the test bed fetched.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/sandbox"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		stop()
		os.Exit(1)
	}
}

const configuration = `terraform {
  required_providers {
    scalardb = { source = "scalar-labs/scalardb", version = "1.0.0" }
  }
}

provider "scalardb" {
  pause = {
    targets       = { main = { addresses = [%s] } }
    drain_timeout = "10s"
    min_duration  = "0s" # dumps need no instant; ScalarDB's advice for point-in-time recovery is 5s
    max_duration  = "30s"
  }
  catalog = { directory = %q }
}

resource "scalardb_consistent_backup" "demo" {
  name = "demo"
  storages = {
    orders = { sqlite = { path = %q } }
    events = { sqlite = { path = %q } }
  }
}

output "window" { value = scalardb_consistent_backup.demo.pause_window }
`

const restoration = `
resource "scalardb_snapshot_restore" "clone" {
  name                = "clone"
  backup_id           = scalardb_consistent_backup.demo.id
  deletion_protection = false
  storages = {
    orders = { sqlite = { path = %q } }
    events = { sqlite = { path = %q } }
  }
  verify = {}
}

output "verification" { value = scalardb_snapshot_restore.clone.verification }
output "properties" { value = scalardb_snapshot_restore.clone.scalardb_properties }
`

func run(ctx context.Context) (err error) {
	begin := time.Now()
	root, err := output(ctx, "", "go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return err
	}
	core, err := findCore(strings.TrimSpace(root))
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "scalardb-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	say("building the provider")
	work := filepath.Join(dir, "work")
	source := filepath.Join("scalar-labs", "scalardb", "1.0.0", runtime.GOOS+"_"+runtime.GOARCH, "terraform-provider-scalardb_v1.0.0")
	binary := filepath.Join(dir, "mirror", "registry.terraform.io", source)
	if _, err := output(ctx, strings.TrimSpace(root), "go", "build", "-o", binary, "."); err != nil {
		return err
	}
	// OpenTofu has another default registry.
	other := filepath.Join(dir, "mirror", "registry.opentofu.org", source)
	if err := errors.Join(os.MkdirAll(filepath.Dir(other), 0o755), os.Link(binary, other), os.MkdirAll(work, 0o755)); err != nil {
		return err
	}
	cli := filepath.Join(dir, "cli.tfrc")
	if err := os.WriteFile(cli, fmt.Appendf(nil, "provider_installation {\n  filesystem_mirror { path = %q }\n}\n", filepath.Join(dir, "mirror")), 0o644); err != nil {
		return err
	}

	say("starting the sandbox: 2 servers, 4 writers, two SQLite databases")
	s, err := sandbox.Start(dir, sandbox.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close(), s.Err()) }()

	terraform := func(args ...string) (string, error) {
		say(filepath.Base(core) + " " + strings.Join(args, " "))
		c := exec.CommandContext(ctx, core, args...)
		c.Dir = work
		c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
		c.Env = append(os.Environ(), "TF_CLI_CONFIG_FILE="+cli, "CHECKPOINT_DISABLE=1", "TF_IN_AUTOMATION=1", "TF_INPUT=0")
		out, err := c.CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("%s %s: %w\n%s", filepath.Base(core), strings.Join(args, " "), err, out)
		}
		return string(out), nil
	}
	write := func(name, format string, args ...any) error {
		return os.WriteFile(filepath.Join(work, name), fmt.Appendf(nil, format, args...), 0o600)
	}
	addresses := `"` + strings.Join(s.Addresses(), `", "`) + `"`
	if err := write("main.tf", configuration, addresses, filepath.Join(dir, "catalog"), s.Orders, s.Events); err != nil {
		return err
	}
	for _, args := range [][]string{{"init"}, {"plan"}, {"apply", "-auto-approve"}} {
		if _, err := terraform(args...); err != nil {
			return err
		}
	}
	before := s.Commits()
	orders, events := filepath.Join(dir, "clone-orders.db"), filepath.Join(dir, "clone-events.db")
	if err := write("restore.tf", restoration, orders, events); err != nil {
		return err
	}
	if _, err := terraform("apply", "-auto-approve"); err != nil {
		return err
	}
	if _, err := terraform("plan", "-detailed-exitcode"); err != nil {
		return fmt.Errorf("a plan after the apply is not empty: %w", err)
	}
	if s.Commits() == before {
		return errors.New("the bank has not committed anything since the backup: is it still paused?")
	}
	out, err := terraform("output", "-json")
	if err != nil {
		return err
	}
	if err := report(out); err != nil {
		return err
	}
	paused := 0
	for _, server := range s.Servers {
		for _, i := range server.Intervals() {
			if i.Until.IsZero() {
				return fmt.Errorf("%s is still paused", server.Address())
			}
			paused++
			say(fmt.Sprintf("server %s refused transactions for %.1f ms", server.Address(), i.Until.Sub(i.From).Seconds()*1000))
		}
	}
	if paused != len(s.Servers) {
		return fmt.Errorf("%d pauses of %d servers: each should have been paused once", paused, len(s.Servers))
	}
	sum, expected, err := sandbox.Sum(ctx, orders, events)
	if err != nil {
		return err
	}
	say(fmt.Sprintf("the restored bank holds %d, as it must (%d)", sum, expected))
	if sum != expected {
		return fmt.Errorf("the restored bank holds %d instead of %d", sum, expected)
	}
	if _, err := terraform("destroy", "-auto-approve"); err != nil {
		return err
	}
	for _, path := range []string{orders, events} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%s is still there after destroy: %w", path, err)
		}
	}
	say(fmt.Sprintf("done in %s", time.Since(begin).Round(time.Second)))
	return nil
}

// report prints the window and the verification, and holds them against what they must be.
func report(outputs string) error {
	var o struct {
		Window struct {
			Value struct {
				Status    string `json:"status"`
				StartedAt string `json:"started_at"`
				EndedAt   string `json:"ended_at"`
				MS        int64  `json:"duration_ms"`
				Drain     int64  `json:"drain_ms"`
			}
		}
		Verification struct{ Value map[string]any }
	}
	if err := json.Unmarshal([]byte(outputs), &o); err != nil {
		return fmt.Errorf("reading the outputs: %w", err)
	}
	w := o.Window.Value
	say(fmt.Sprintf("pause window %s to %s: %d ms, after draining for %d ms", w.StartedAt, w.EndedAt, w.MS, w.Drain))
	if w.Status != "available" {
		return fmt.Errorf("the window is %q, not available", w.Status)
	}
	v, err := json.Marshal(o.Verification.Value)
	if err != nil {
		return err
	}
	say("verification: " + string(v))
	if passed, _ := o.Verification.Value["passed"].(bool); !passed {
		return errors.New("verification did not pass")
	}
	return nil
}

// findCore looks for Terraform or OpenTofu.
func findCore(root string) (string, error) {
	for _, name := range []string{"terraform", "tofu"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	cache := os.Getenv("TESTBED_CACHE")
	if cache == "" {
		cache = filepath.Join(root, ".cache")
	}
	found, err := filepath.Glob(filepath.Join(cache, "cores", "*", "terraform"))
	if err != nil || len(found) == 0 {
		return "", errors.New("there is neither terraform nor tofu in PATH: install one, or run `make demo`, which fetches one")
	}
	return found[len(found)-1], nil
}

func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, name, args...)
	c.Dir = dir
	var stderr strings.Builder
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, stderr.String())
	}
	return string(out), nil
}

func say(text string) { fmt.Println("· " + text) }
