package remote

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/subtle"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

// server is an SSH server in this process: one user, one key or password, sessions with exec and SFTP, and forwarding. It refuses everything else (signals:
// sshd does not pass them on to processes of root).
// The acceptance test runs the same cases against a real sshd.
type server struct {
	port      int
	keys      []ssh.Signer // of the host
	user      string
	key       ssh.PublicKey // of the user; nil: none
	password  string        // empty: none
	noSFTP    bool
	logins    atomic.Int32
	execs     atomic.Int32
	forwarded atomic.Int32
	held      chan struct{} // error outputs wait until it is closed; nil: they do not

	listener net.Listener
	mu       sync.Mutex
	conns    []*pausable
}

// pausable is a connection on which the server may stop to read and to write, as when it hangs.
type pausable struct {
	net.Conn
	mu     sync.Mutex
	thawed *sync.Cond
	frozen bool
	closed bool
}

func (p *pausable) wait() {
	p.mu.Lock()
	for p.frozen && !p.closed {
		p.thawed.Wait()
	}
	p.mu.Unlock()
}

func (p *pausable) Read(b []byte) (int, error) {
	n, err := p.Conn.Read(b)
	p.wait()
	return n, err
}

func (p *pausable) Write(b []byte) (int, error) {
	p.wait()
	return p.Conn.Write(b)
}

func (p *pausable) set(frozen, closed bool) {
	p.mu.Lock()
	p.frozen, p.closed = frozen, closed || p.closed
	p.thawed.Broadcast()
	p.mu.Unlock()
}

func (s *server) freeze() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		c.set(true, false)
	}
}

// cut ends all connections, and leaves the server listening.
func (s *server) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		c.set(false, true)
		_ = c.Close()
	}
	s.conns = nil
}

func newKey(t testing.TB) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signerOf(t, key)
}

func newRSAKey(t testing.TB) ssh.Signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return signerOf(t, key)
}

func signerOf(t testing.TB, key any) ssh.Signer {
	t.Helper()
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// userKey is a private key in PEM, and its public half.
func userKey(t testing.TB, passphrase string) (string, ssh.PublicKey) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var block *pem.Block
	if passphrase == "" {
		block, err = ssh.MarshalPrivateKey(key, "")
	} else {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(block)), signerOf(t, key).PublicKey()
}

func (s *server) start(t testing.TB) *server {
	t.Helper()
	if s.keys == nil {
		s.keys = []ssh.Signer{newKey(t)}
	}
	config := &ssh.ServerConfig{MaxAuthTries: 10}
	if s.key != nil {
		config.PublicKeyCallback = func(c ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if c.User() != s.user || !sameKey(key, s.key) {
				return nil, errors.New("no")
			}
			return nil, nil
		}
	}
	if s.password != "" {
		config.PasswordCallback = func(c ssh.ConnMetadata, password []byte) (*ssh.Permissions, error) {
			if c.User() != s.user || subtle.ConstantTimeCompare(password, []byte(s.password)) != 1 {
				return nil, errors.New("no")
			}
			return nil, nil
		}
	}
	for _, k := range s.keys {
		config.AddHostKey(k)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.listener, s.port = l, l.Addr().(*net.TCPAddr).Port
	t.Cleanup(func() {
		_ = l.Close()
		s.cut()
	})
	go func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			p := &pausable{Conn: raw}
			p.thawed = sync.NewCond(&p.mu)
			s.mu.Lock()
			s.conns = append(s.conns, p)
			s.mu.Unlock()
			go s.serve(p, config)
		}
	}()
	return s
}

// knownHosts is the line of its n-th key.
func (s *server) line(n int) string {
	return fmt.Sprintf("[127.0.0.1]:%d %s", s.port, ssh.MarshalAuthorizedKey(s.keys[n].PublicKey()))
}

func (s *server) serve(raw net.Conn, config *ssh.ServerConfig) {
	conn, channels, requests, err := ssh.NewServerConn(raw, config)
	if err != nil {
		_ = raw.Close()
		return
	}
	s.logins.Add(1)
	go func() {
		for r := range requests {
			_ = r.Reply(false, nil) // keep-alives too, as sshd does
		}
	}()
	for c := range channels {
		switch c.ChannelType() {
		case "session":
			go s.session(c)
		case "direct-tcpip":
			go s.forward(c)
		default:
			_ = c.Reject(ssh.UnknownChannelType, "no")
		}
	}
	_ = conn.Close()
}

func (s *server) forward(c ssh.NewChannel) {
	var to struct {
		Host   string
		Port   uint32
		Origin string
		From   uint32
	}
	if err := ssh.Unmarshal(c.ExtraData(), &to); err != nil {
		_ = c.Reject(ssh.Prohibited, "no")
		return
	}
	out, err := net.Dial("tcp", net.JoinHostPort(to.Host, strconv.Itoa(int(to.Port))))
	if err != nil {
		_ = c.Reject(ssh.ConnectionFailed, "Connection refused")
		return
	}
	s.forwarded.Add(1)
	channel, requests, err := c.Accept()
	if err != nil {
		_ = out.Close()
		return
	}
	go ssh.DiscardRequests(requests)
	go func() {
		_, _ = io.Copy(out, channel)
		_ = out.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(channel, out)
	_ = channel.Close()
	_ = out.Close()
}

type heldWriter struct {
	io.Writer
	held chan struct{}
}

func (w heldWriter) Write(b []byte) (int, error) {
	if w.held != nil {
		<-w.held
	}
	return w.Writer.Write(b)
}

func (s *server) session(c ssh.NewChannel) {
	channel, requests, err := c.Accept()
	if err != nil {
		return
	}
	defer channel.Close()
	var cmd *exec.Cmd
	done := make(chan struct{})
	for {
		var r *ssh.Request
		var ok bool
		select {
		case r, ok = <-requests:
			if !ok {
				return
			}
		case <-done:
			return
		}
		switch r.Type {
		case "exec":
			var payload struct{ Command string }
			if cmd != nil || ssh.Unmarshal(r.Payload, &payload) != nil {
				_ = r.Reply(false, nil)
				continue
			}
			s.execs.Add(1)
			cmd = exec.Command("/bin/sh", "-c", payload.Command)
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			cmd.Stdout, cmd.Stderr = channel, heldWriter{channel.Stderr(), s.held}
			cmd.WaitDelay = time.Second
			in, err := cmd.StdinPipe()
			if err == nil {
				err = cmd.Start()
			}
			_ = r.Reply(err == nil, nil)
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(in, channel)
				_ = in.Close()
			}()
			go func() {
				defer close(done)
				_ = cmd.Wait()
				status := cmd.ProcessState.Sys().(syscall.WaitStatus)
				if status.Signaled() {
					_, _ = channel.SendRequest("exit-signal", false, ssh.Marshal(struct {
						Signal       string
						Core         bool
						Message, Tag string
					}{Signal: map[syscall.Signal]string{syscall.SIGKILL: "KILL", syscall.SIGTERM: "TERM"}[status.Signal()]}))
					return
				}
				_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{uint32(status.ExitStatus())})) //nolint:gosec // 0 to 255
			}()
		case "subsystem":
			var payload struct{ Name string }
			if s.noSFTP || ssh.Unmarshal(r.Payload, &payload) != nil || payload.Name != "sftp" {
				_ = r.Reply(false, nil)
				continue
			}
			_ = r.Reply(true, nil)
			go ssh.DiscardRequests(requests)
			files, err := sftp.NewServer(channel)
			if err != nil {
				fmt.Fprintln(os.Stderr, "the SFTP server of a test:", err)
				return
			}
			_ = files.Serve()
			return
		default:
			_ = r.Reply(false, nil)
		}
	}
}

func ecdsaKey(t testing.TB) ssh.PublicKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signerOf(t, key).PublicKey()
}
