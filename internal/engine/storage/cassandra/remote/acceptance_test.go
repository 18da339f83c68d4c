//go:build acceptance

package remote_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	testbed "github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/cassandra"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/testclock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/remote"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/remote/filestest"
)

func settings(s *testbed.SSH) remote.Settings {
	return remote.Settings{Port: s.Port, User: s.User, KnownHosts: s.KnownHosts, PrivateKeyPEM: string(s.PrivateKeyPEM)}
}

func hosts(t *testing.T, s remote.Settings) *remote.Hosts {
	t.Helper()
	h, err := remote.New(s, remote.Options{Clock: testclock.New(), Getenv: os.Getenv})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func eventually(t *testing.T, f func() error) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// TestOpenSSH: what the cases of the in-process server show holds for a real sshd.
func TestOpenSSH(t *testing.T) {
	s := testbed.StartSSH(t, testbed.SSHOptions{Addresses: []string{"127.0.0.1", "127.0.0.2"}})
	here, there := node.Node{Address: "127.0.0.1"}, node.Node{Address: "127.0.0.2"}
	h := hosts(t, settings(s))
	filestest.Run(t, func(t *testing.T) node.Files {
		f, err := h.OpenFiles(t.Context(), here)
		if err != nil {
			t.Fatal(err)
		}
		return f
	})
	t.Run("through a bastion", func(t *testing.T) {
		bastion := testbed.StartSSH(t, testbed.SSHOptions{Addresses: []string{"127.0.0.3"}, Settings: []string{"AuthorizedKeysFile " + s.Dir + "/authorized_keys"}})
		set := settings(s)
		set.KnownHosts += bastion.KnownHosts
		set.Bastion = &remote.Bastion{Host: "127.0.0.3", Port: bastion.Port}
		host, err := hosts(t, set).Open(t.Context(), there)
		if err != nil {
			t.Fatal(err)
		}
		defer host.Close()
		if out, err := host.Run(t.Context(), "echo $SSH_CONNECTION", nil); err != nil || !strings.Contains(string(out), " 127.0.0.2 ") {
			t.Errorf("Run: %q, %v", out, err)
		}
		if !strings.Contains(bastion.Log(), "127.0.0.2") {
			t.Error("the bastion's log has no tunnel")
		}
	})
	t.Run("unknown key", func(t *testing.T) {
		set := settings(s)
		set.KnownHosts = "# none"
		_, err := hosts(t, set).Open(t.Context(), here)
		if err == nil || !strings.Contains(err.Error(), strings.TrimSpace(strings.Split(s.KnownHosts, " testbed")[0])[:40]) {
			t.Errorf("Open: %v, want an error with the line to add", err)
		}
	})
	t.Run("cut and gone", func(t *testing.T) {
		f, err := h.OpenFiles(t.Context(), here)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		started := filepath.Join(t.TempDir(), "started")
		done := make(chan error, 1)
		go func() {
			_, err := f.Run(context.Background(), "touch "+started+"; sleep 100", nil)
			done <- err
		}()
		eventually(t, func() error { _, err := os.Stat(started); return err })
		s.CutConnections(t)
		if err := <-done; err == nil || !strings.Contains(err.Error(), "may go on") {
			t.Errorf("Run of a command that was cut off: %v", err)
		}
		eventually(t, func() error { _, err := f.Stat(t.Context(), "/"); return err }) // the first may meet the end of the old connection
		s.Stop(t)
		if _, err := f.Stat(t.Context(), "/"); err == nil || !strings.Contains(err.Error(), "ssh "+s.User+"@[127.0.0.1]:") {
			t.Errorf("Stat with the server gone: %v", err)
		}
	})
}
