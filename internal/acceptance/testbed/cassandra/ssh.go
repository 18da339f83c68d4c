package cassandra

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/child"
)

const sshd = "/usr/sbin/sshd"

// SSHOptions say what an SSH server is.
type SSHOptions struct {
	// Addresses that it listens on, all with the same port and host key. Each stands for a machine, though behind all of them is this one.
	Addresses []string
	// BinDir is put before the PATH of its sessions, such as that of a cluster: then `nodetool` is found, and asks the node with the address that the client
	// connected to, as on a machine of its own.
	BinDir string
	// NoForwarding refuses tunnels.
	NoForwarding bool
	// Settings are further lines of sshd_config, before all others: sshd takes the first of a name.
	Settings []string
}

// SSH is a real OpenSSH server that runs, until it is stopped. It is gone when the test ends.
type SSH struct {
	Addresses []string
	Port      int
	User      string // who runs the test
	// Dir has everything of it: id (the key of the client), known_hosts, sshd_config, log.
	Dir            string
	PrivateKeyPEM  []byte // in OpenSSH's format, without a passphrase
	PrivateKeyPath string
	AuthorizedKey  string // the public key to it, as in authorized_keys
	KnownHosts     string // the contents of a known_hosts file
	KnownHostsPath string

	done <-chan struct{}
	cmd  *exec.Cmd
}

// StartSSH starts an SSH server for the cluster's nodes, with nodetool on the PATH of its sessions.
func (c *Cluster) StartSSH(t testing.TB) *SSH {
	t.Helper()
	return StartSSH(t, SSHOptions{Addresses: c.ContactPoints(), BinDir: c.BinDir})
}

// StartSSH starts an SSH server, which a key opens; internal-sftp is its subsystem for SFTP. A second one may serve as a bastion.
func StartSSH(t testing.TB, o SSHOptions) *SSH {
	t.Helper()
	if _, err := os.Stat(sshd); err != nil {
		t.Fatalf("looking for the SSH server: %v: %s (Debian's package openssh-server)", err, testbed.Hint)
	}
	s := &SSH{Addresses: o.Addresses, Dir: t.TempDir()}
	if err := s.prepare(o); err != nil {
		t.Fatalf("preparing the SSH server: %v", err)
	}
	t.Cleanup(s.stop)
	// A port that was free may be taken before the server has it: then another.
	for try := 1; ; try++ {
		err := s.listenSomewhere()
		if err == nil {
			return s
		}
		if try == 3 {
			t.Fatalf("starting the SSH server: %v", err)
		}
	}
}

func (s *SSH) prepare(o SSHOptions) error {
	u, err := user.Current()
	if err != nil {
		return err
	}
	s.User = u.Username
	s.PrivateKeyPath, s.KnownHostsPath = filepath.Join(s.Dir, "id"), filepath.Join(s.Dir, "known_hosts")
	for _, path := range []string{s.PrivateKeyPath, filepath.Join(s.Dir, "host")} {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		out, err := exec.CommandContext(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "testbed", "-f", path).CombinedOutput()
		cancel()
		if err != nil {
			return fmt.Errorf("making a key: %w: %s", err, out)
		}
	}
	if s.PrivateKeyPEM, err = os.ReadFile(s.PrivateKeyPath); err != nil {
		return err
	}
	public, err := os.ReadFile(s.PrivateKeyPath + ".pub")
	if err != nil {
		return err
	}
	s.AuthorizedKey = string(public)
	if os.Geteuid() == 0 {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil { //nolint:gosec // sshd demands that folder as it is
			return err
		}
	}
	path := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	if o.BinDir != "" {
		path = o.BinDir + ":" + path
	}
	// HOME is the bed's: what the tester's shell does when it starts (bash reads .bashrc under sshd) is no part of a test.
	lines := append(o.Settings,
		"HostKey "+filepath.Join(s.Dir, "host"), "PidFile none", "AuthorizedKeysFile "+filepath.Join(s.Dir, "authorized_keys"),
		"PasswordAuthentication no", "KbdInteractiveAuthentication no", "UsePAM no", "StrictModes no", "PermitRootLogin prohibit-password",
		"Subsystem sftp internal-sftp", "MaxStartups 200:30:400", "MaxSessions 200", "SetEnv PATH="+path+" HOME="+s.Dir,
	)
	// All debug output would come to the sessions as well; that of tunnels does not.
	lines = append(lines, "LogLevel VERBOSE", "LogVerbose serverloop.c:*:*")
	forwarding := "yes"
	if o.NoForwarding {
		forwarding = "no"
	}
	lines = append(lines, "AllowTcpForwarding "+forwarding)
	for _, a := range s.Addresses {
		lines = append(lines, "ListenAddress "+a)
	}
	w := writer{}
	w.file(filepath.Join(s.Dir, "authorized_keys"), 0o600, s.AuthorizedKey)
	w.file(filepath.Join(s.Dir, "sshd_config"), 0o600, strings.Join(lines, "\n")+"\n")
	return w.err
}

func (s *SSH) listenSomewhere() error {
	var err error
	if s.Port, err = freePort(s.Addresses[0]); err != nil {
		return err
	}
	host, err := os.ReadFile(filepath.Join(s.Dir, "host.pub"))
	if err != nil {
		return err
	}
	s.KnownHosts = ""
	for _, a := range s.Addresses {
		s.KnownHosts += fmt.Sprintf("[%s]:%d %s", a, s.Port, host)
	}
	if err := os.WriteFile(s.KnownHostsPath, []byte(s.KnownHosts), 0o600); err != nil {
		return err
	}
	return s.start()
}

// Start starts it again after Stop, on the same port.
func (s *SSH) Start(t testing.TB) {
	t.Helper()
	if err := s.start(); err != nil {
		t.Fatalf("starting the SSH server: %v", err)
	}
}

func (s *SSH) start() error {
	log, err := os.OpenFile(s.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(sshd, "-D", "-e", "-f", filepath.Join(s.Dir, "sshd_config"), "-p", strconv.Itoa(s.Port)) //nolint:noctx // ended by signals
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	done, err := child.Start(cmd)
	if err != nil {
		return err
	}
	s.cmd, s.done = cmd, done
	for deadline := time.Now().Add(time.Minute); ; {
		err := s.listening()
		if err == nil {
			return nil
		}
		select {
		case <-done:
			return fmt.Errorf("it ended: %s", s.Log())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			s.stop()
			return fmt.Errorf("it does not listen: %w: %s", err, s.Log())
		}
	}
}

func (s *SSH) listening() error {
	for _, a := range s.Addresses {
		conn, err := net.DialTimeout("tcp", net.JoinHostPort(a, strconv.Itoa(s.Port)), 10*time.Second)
		if err != nil {
			return err
		}
		conn.Close()
	}
	return nil
}

// Stop takes it away: it listens no more, and its connections are cut.
func (s *SSH) Stop(t testing.TB) {
	t.Helper()
	s.stop()
	if err := s.listening(); err == nil {
		t.Fatal("stopping the SSH server: somebody still listens there")
	}
}

func (s *SSH) stop() {
	if s.done == nil {
		return
	}
	select {
	case <-s.done:
		return
	default:
	}
	// Each connection has processes of its own, with sessions of their own: they are found by their parents. The server makes none while it is stopped.
	_ = syscall.Kill(s.cmd.Process.Pid, syscall.SIGSTOP)
	for _, pid := range append(descendants(s.cmd.Process.Pid), s.cmd.Process.Pid) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	<-s.done
}

// CutConnections ends its connections, and goes on listening.
func (s *SSH) CutConnections(t testing.TB) {
	t.Helper()
	for _, pid := range descendants(s.cmd.Process.Pid) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Fatalf("cutting the connections of the SSH server: %v", err)
		}
	}
}

// descendants of a process: its children, theirs, and so on.
func descendants(pid int) []int {
	children := map[int][]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // gone by now
		}
		// PID (COMMAND) STATE PARENT ...; the command may have any characters.
		own, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:])); len(fields) > 1 {
			parent, _ := strconv.Atoi(fields[1])
			children[parent] = append(children[parent], own)
		}
	}
	var all []int
	for next := children[pid]; len(next) > 0; {
		all = append(all, next...)
		var deeper []int
		for _, p := range next {
			deeper = append(deeper, children[p]...)
		}
		next = deeper
	}
	return all
}

func (s *SSH) logPath() string { return filepath.Join(s.Dir, "log") }

// Log is its log. It says who connected, which commands were run and which tunnels were opened.
func (s *SSH) Log() string {
	text, err := os.ReadFile(s.logPath())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// ClientArguments are those of OpenSSH's ssh and sftp to reach it; the host comes after them.
func (s *SSH) ClientArguments() []string {
	return []string{
		"-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile=" + s.KnownHostsPath,
		"-o", "IdentityFile=" + s.PrivateKeyPath, "-o", "IdentitiesOnly=yes", "-o", "Port=" + strconv.Itoa(s.Port), "-o", "User=" + s.User,
	}
}
