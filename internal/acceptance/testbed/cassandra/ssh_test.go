//go:build acceptance

package cassandra

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// client runs OpenSSH's own client.
func client(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	return string(out), err
}

// Commands, files and tunnels go through the SSH server; it can be taken away, and it can be a bastion.
func TestSSH(t *testing.T) {
	addresses, err := freeAddresses(2)
	if err != nil {
		t.Fatal(err)
	}
	bin, files := t.TempDir(), t.TempDir()
	script := "#!/bin/bash\nread -r _ _ here _ <<<\"$SSH_CONNECTION\"\necho \"at $here: $*\"\n"
	if err := os.WriteFile(filepath.Join(bin, "nodetool"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	s := StartSSH(t, SSHOptions{Addresses: addresses, BinDir: bin})
	for _, a := range addresses {
		if out, err := client(t, "ssh", append(s.ClientArguments(), a, "nodetool status")...); err != nil || out != "at "+a+": status\n" {
			t.Errorf("a command at %s: %v: %s", a, err, out)
		}
	}

	for name, text := range map[string]string{"nb-1-big-Data.db": "data", ".by_name/nb-1-big-Data.db": "index"} {
		path := filepath.Join(files, "snapshot", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	batch := exec.CommandContext(t.Context(), "sftp", append(s.ClientArguments(), "-b", "-", addresses[1])...)
	batch.Stdin = strings.NewReader("get -r " + files + "/snapshot " + files + "/copy\n")
	if out, err := batch.CombinedOutput(); err != nil {
		t.Fatalf("fetching a folder: %v: %s", err, out)
	}
	if out, err := client(t, "diff", "-r", files+"/snapshot", files+"/copy"); err != nil {
		t.Errorf("the copy differs: %v: %s", err, out)
	}

	bastion := StartSSH(t, SSHOptions{Addresses: []string{"127.0.0.1"}})
	jump := "ProxyCommand=ssh " + strings.Join(bastion.ClientArguments(), " ") + " -W %h:%p 127.0.0.1"
	if out, err := client(t, "ssh", append(s.ClientArguments(), "-o", jump, addresses[0], "nodetool info")...); err != nil || out != "at "+addresses[0]+": info\n" {
		t.Errorf("through the bastion: %v: %s", err, out)
	}
	if tunnel := "direct-tcpip"; !strings.Contains(bastion.Log(), tunnel) || strings.Contains(s.Log(), tunnel) {
		t.Errorf("the tunnel is not in the log of the bastion alone:\n%s", bastion.Log())
	}

	// An open connection is cut as well.
	long := exec.CommandContext(t.Context(), "ssh", append(s.ClientArguments(), addresses[0], "echo here; exec sleep 600")...)
	read, err := long.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := long.Start(); err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 4)
	if _, err := read.Read(first); err != nil || string(first) != "here" {
		t.Fatalf("a command that takes long: %v: %s", err, first)
	}
	s.Stop(t)
	ended := make(chan error, 1)
	go func() { ended <- long.Wait() }()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("a command ended well, when its server was taken away")
		}
	case <-time.After(time.Minute):
		t.Error("a connection outlived its server")
	}
	if _, err := client(t, "ssh", append(s.ClientArguments(), addresses[0], "true")...); err == nil {
		t.Error("a server that was taken away answers")
	}
	s.Start(t)
	if out, err := client(t, "ssh", append(s.ClientArguments(), addresses[0], "echo again")...); err != nil || out != "again\n" {
		t.Errorf("after it came back: %v: %s", err, out)
	}

	// Without tunnels, and with another key.
	closed := StartSSH(t, SSHOptions{Addresses: []string{"127.0.0.1"}, NoForwarding: true})
	target := net.JoinHostPort(addresses[0], strconv.Itoa(s.Port))
	if out, err := client(t, "ssh", append(closed.ClientArguments(), "-W", target, "127.0.0.1")...); err == nil {
		t.Errorf("a tunnel through a server that has none: %s", out)
	}
	wrong := append(closed.ClientArguments(), "127.0.0.1", "true")
	for i, arg := range wrong {
		if strings.HasPrefix(arg, "IdentityFile=") {
			wrong[i] = "IdentityFile=" + s.PrivateKeyPath
		}
	}
	if out, err := client(t, "ssh", wrong...); err == nil || !strings.Contains(out, "Permission denied") {
		t.Errorf("with another key: %v: %s", err, out)
	}
}
