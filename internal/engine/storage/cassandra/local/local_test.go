package local_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/testclock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/local"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/remote/filestest"
)

func TestFiles(t *testing.T) {
	filestest.Run(t, func(t *testing.T) node.Files {
		files, err := local.Machine{Clock: testclock.New(), Getenv: os.Getenv}.OpenFiles(t.Context(), node.Node{})
		if err != nil {
			t.Fatal(err)
		}
		return files
	})
}

// TestEnvironment: credentials of others stay here.
func TestEnvironment(t *testing.T) {
	env := map[string]string{"PATH": os.Getenv("PATH"), "AWS_SECRET_ACCESS_KEY": "s3cret", "KUBECONFIG": "/k", "TF_VAR_password": "s3cret"}
	m := local.Machine{Clock: testclock.New(), Getenv: func(k string) string { return env[k] }}
	out, err := m.Run(t.Context(), "env", nil)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(out), "\n")
	if strings.Contains(string(out), "s3cret") || !slices.Contains(lines, "KUBECONFIG=/k") {
		t.Errorf("the command sees %q", out)
	}
}

func TestExec(t *testing.T) {
	m := local.Machine{Clock: testclock.New(), Getenv: os.Getenv}
	out, err := m.Exec(t.Context(), []string{"printf", "%s|", "a b", "$HOME"}, "printf", nil)
	if err != nil || string(out) != "a b|$HOME|" {
		t.Errorf("Exec: %q, %v", out, err)
	}
	var failed *node.CommandError
	if _, err := m.Exec(t.Context(), []string{"false"}, "the name", nil); !errors.As(err, &failed) || failed.Command != "the name" || failed.Exit != 1 {
		t.Errorf("Exec of false: %v", err)
	}
	for _, argv := range [][]string{nil, {""}, {"no-such-program"}} {
		if _, err := m.Exec(t.Context(), argv, "x", nil); err == nil {
			t.Errorf("Exec(%q) succeeded", argv)
		}
	}
}
