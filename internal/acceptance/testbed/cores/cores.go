// Package cores runs the provider under the Terraform and OpenTofu commands that it promises to work with.
package cores

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed"
)

// Core is one Terraform or OpenTofu command.
type Core struct {
	Name    string // "terraform" or "opentofu"
	Version string
	Path    string
}

func (c Core) String() string { return c.Name + "-" + c.Version }

// All lists the cores that the provider is tested with; the test fails when one is missing.
func All(t testing.TB) []Core {
	t.Helper()
	return []Core{Oldest(t), Newest(t), OpenTofu(t)}
}

// Oldest is the oldest Terraform that the provider supports: it has neither actions nor list resources.
func Oldest(t testing.TB) Core { t.Helper(); return find(t, "terraform", "1.11.4", "terraform") }

// Newest is a Terraform with everything: actions, list resources, resource identity.
func Newest(t testing.TB) Core { t.Helper(); return find(t, "terraform", "1.15.5", "terraform") }

// OpenTofu is OpenTofu.
func OpenTofu(t testing.TB) Core { t.Helper(); return find(t, "opentofu", "1.12.6", "tofu") }

func find(t testing.TB, name, version, command string) Core {
	t.Helper()
	return Core{Name: name, Version: version, Path: testbed.Cached(t, "cores", name+"-"+version, command)}
}

// Source is the provider's source address, without the host: every core has its own default.
const Source = "scalar-labs/scalardb"

// Mirror is a folder that a core's init installs the provider from, as it would from a registry.
type Mirror struct {
	dir      string
	versions []string
}

// NewMirror makes a mirror that holds the provider as it is in this repository, as version 1.0.0.
func NewMirror(t testing.TB) *Mirror {
	t.Helper()
	m := &Mirror{dir: t.TempDir()}
	m.Add(t, "1.0.0", Build(t, "1.0.0"))
	return m
}

// Build builds the provider's binary as the given version.
func Build(t testing.TB, version string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "terraform-provider-scalardb")
	build := exec.CommandContext(t.Context(), "go", "build", "-ldflags", "-X main.version="+version, "-o", path, ".")
	build.Dir = testbed.Root(t)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the provider: %v\n%s", err, out)
	}
	return path
}

// Add puts another version into the mirror.
func (m *Mirror) Add(t testing.TB, version, binary string) {
	t.Helper()
	for _, host := range []string{"registry.terraform.io", "registry.opentofu.org"} {
		dir := filepath.Join(m.dir, host, filepath.FromSlash(Source), version, runtime.GOOS+"_"+runtime.GOARCH)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := link(binary, filepath.Join(dir, "terraform-provider-scalardb_v"+version)); err != nil {
			t.Fatalf("putting the provider into the mirror: %v", err)
		}
	}
	m.versions = append(m.versions, version)
}

// Binary is the provider of the mirror's newest version, for what is run by hand.
func (m *Mirror) Binary() string {
	version := m.versions[len(m.versions)-1]
	return filepath.Join(m.dir, "registry.terraform.io", filepath.FromSlash(Source), version,
		runtime.GOOS+"_"+runtime.GOARCH, "terraform-provider-scalardb_v"+version)
}

// link makes a hard link, or a copy where the two are on different file systems.
func link(from, to string) error {
	if os.Link(from, to) == nil {
		return nil
	}
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755) //nolint:gosec // a program
}

// config is the core's own configuration: only this mirror, no network.
func (m *Mirror) config() string {
	return fmt.Sprintf("disable_checkpoint = true\nprovider_installation {\n  filesystem_mirror {\n    path = %q\n  }\n}\n", m.dir)
}

// environment is what a core gets: nothing that configures another one, or that reads the settings of whoever runs the tests.
func environment(home, config string) []string {
	var env []string
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if name == "HOME" || strings.HasPrefix(name, "TF_") || strings.HasPrefix(name, "PG") || strings.HasPrefix(name, "MYSQL_") {
			continue
		}
		env = append(env, v)
	}
	return append(env, "HOME="+home, "TF_CLI_CONFIG_FILE="+config, "CHECKPOINT_DISABLE=1", "TF_IN_AUTOMATION=1", "TF_INPUT=0")
}
