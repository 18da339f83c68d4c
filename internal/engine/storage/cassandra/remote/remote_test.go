package remote

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/testclock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/remote/filestest"
)

var here = node.Node{HostID: "h", Address: "127.0.0.1"}

func noEnv(string) string { return "" }

// start is a server and settings that reach it.
func start(t testing.TB, change ...func(*server, *Settings)) (*server, Settings) {
	t.Helper()
	pem, public := userKey(t, "")
	s := &server{user: "cassandra", key: public}
	settings := Settings{User: "cassandra", PrivateKeyPEM: pem}
	for _, c := range change {
		c(s, &settings)
	}
	s.start(t)
	settings.Port = s.port
	if settings.KnownHosts == "" && settings.KnownHostsPath == "" {
		settings.KnownHosts = s.line(0)
	}
	return s, settings
}

func hosts(t testing.TB, s Settings, getenv func(string) string) *Hosts {
	t.Helper()
	return hostsWith(t, s, Options{Clock: testclock.New(), Getenv: getenv})
}

func hostsWith(t testing.TB, s Settings, o Options) *Hosts {
	t.Helper()
	h, err := New(s, o)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func open(t testing.TB, h *Hosts) *Host {
	t.Helper()
	host, err := h.Open(t.Context(), here)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = host.Close() })
	return host
}

func TestFiles(t *testing.T) {
	_, settings := start(t)
	h := hosts(t, settings, noEnv)
	filestest.Run(t, func(t *testing.T) node.Files {
		f, err := h.OpenFiles(t.Context(), here)
		if err != nil {
			t.Fatal(err)
		}
		return f
	})
}

// TestCancelledAtOnce: a command is ended that was cancelled before it could say which process it is.
func TestCancelledAtOnce(t *testing.T) {
	held := make(chan struct{})
	_, settings := start(t, func(s *server, _ *Settings) { s.held = held })
	dir := t.TempDir()
	filestest.CancelRun(t, open(t, hosts(t, settings, noEnv)).Run, dir)
	close(held)
	filestest.Appears(t, filepath.Join(dir, "ended"))
}

func TestNoSFTP(t *testing.T) {
	_, settings := start(t, func(s *server, _ *Settings) { s.noSFTP = true })
	if _, err := hosts(t, settings, noEnv).OpenFiles(t.Context(), here); err == nil || !strings.Contains(err.Error(), "Subsystem sftp") {
		t.Errorf("OpenFiles: %v, want an error that says what is missing", err)
	}
}

func TestOneConnection(t *testing.T) {
	s, settings := start(t)
	h := hosts(t, settings, noEnv)
	one, two := open(t, h), open(t, h)
	files, err := h.OpenFiles(t.Context(), here)
	if err != nil {
		t.Fatal(err)
	}
	if n := s.logins.Load(); n != 1 {
		t.Errorf("%d logins, want 1", n)
	}
	for _, c := range []io.Closer{one, files, one} { // the same twice counts once
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := two.Run(t.Context(), "true", nil); err != nil {
		t.Errorf("the last user's connection is gone: %v", err)
	}
	link := two.entry.link
	_ = two.Close()
	<-link.done
	if len(h.entries) != 0 {
		t.Errorf("%d connections are kept", len(h.entries))
	}
}

// TestReconnect: a connection that was cut is made anew by the next call.
func TestReconnect(t *testing.T) {
	s, settings := start(t)
	h := hosts(t, settings, noEnv)
	files, err := h.OpenFiles(t.Context(), here)
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	first := files.(*Files).link
	s.cut()
	<-first.done
	if _, err := files.Stat(t.Context(), "/"); err != nil {
		t.Errorf("Stat: %v", err)
	}
	if _, err := files.Run(t.Context(), "true", nil); err != nil {
		t.Errorf("Run: %v", err)
	}
	if n := s.logins.Load(); n != 2 {
		t.Errorf("%d logins, want 2", n)
	}
}

// TestHangs: a server that stops answering is noticed, whatever is under way.
func TestHangs(t *testing.T) {
	s, settings := start(t)
	h := hostsWith(t, settings, Options{Clock: quick{testclock.New()}, Getenv: noEnv})
	host := open(t, h)
	link := host.entry.link
	ran := make(chan error, 1)
	go func() {
		_, err := host.Run(context.Background(), "sleep 600", nil)
		ran <- err
	}()
	for s.execs.Load() == 0 {
		<-time.After(time.Millisecond)
	}
	s.freeze()
	select {
	case <-link.done:
	case <-time.After(time.Minute):
		t.Fatal("it was not noticed")
	}
	if err := <-ran; err == nil || !strings.Contains(err.Error(), "stopped answering") || !strings.Contains(err.Error(), "may go on") {
		t.Errorf("Run: %v", err)
	}
}

// quick is a clock on which keep-alives come every 20 ms and may take two seconds.
type quick struct{ *testclock.Clock }

func (q quick) Sleep(ctx context.Context, d time.Duration) error {
	if d == KeepAliveInterval {
		d = 20 * time.Millisecond
	}
	return q.Clock.Sleep(ctx, d)
}

func (q quick) WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if d == KeepAliveTimeout {
		d = 2 * time.Second
	}
	return q.Clock.WithTimeout(ctx, d)
}

// TestKeepAlive: a server that answers, if only with a refusal, keeps its connection.
func TestKeepAlive(t *testing.T) {
	_, settings := start(t)
	h := hostsWith(t, settings, Options{Clock: quick{testclock.New()}, Getenv: noEnv})
	host := open(t, h)
	<-time.After(time.Second / 2)
	if err := host.entry.link.err(); err != nil {
		t.Errorf("the connection ended: %v", err)
	}
}

// hasty is a clock on which a handshake may take 200 ms.
type hasty struct{ *testclock.Clock }

func (h hasty) WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if d == HandshakeTimeout {
		d = 200 * time.Millisecond
	}
	return h.Clock.WithTimeout(ctx, d)
}

// TestHandshakeEnds: with a server that accepts and says nothing.
func TestHandshakeEnds(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, settings := start(t)
	settings.Port = l.Addr().(*net.TCPAddr).Port
	h := hostsWith(t, settings, Options{Clock: hasty{testclock.New()}, Getenv: noEnv})
	if _, err := h.Open(t.Context(), here); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "handshake") {
		t.Errorf("Open: %v", err)
	}
	if len(h.entries) != 0 {
		t.Error("the failed connection is kept")
	}
}

func TestHostKeys(t *testing.T) {
	rsaKey, other := newRSAKey(t), newKey(t)
	hashed := func(s *server, n int) string {
		return knownhosts.HashHostname(fmt.Sprintf("[127.0.0.1]:%d", s.port)) + " " + string(ssh.MarshalAuthorizedKey(s.keys[n].PublicKey()))
	}
	name := func(s *server) string { return fmt.Sprintf("[127.0.0.1]:%d", s.port) }
	for _, c := range []struct {
		name  string
		known func(s *server) string
		want  []string // of the error; nil: none
	}{
		{"first key", func(s *server) string { return s.line(0) }, nil},
		{"second key only", func(s *server) string { return s.line(1) }, nil},
		{"hashed", func(s *server) string { return hashed(s, 1) }, nil},
		{"among others", func(s *server) string {
			return "# comment\n\nother ssh-ed25519 AAAA broken\n" + strings.Replace(s.line(0), "[127", "a,[::1]:22,[127", 1)
		}, nil},
		{"wildcard", func(s *server) string {
			return strings.Replace(s.line(0), name(s), "[127.*]:"+strconv.Itoa(s.port), 1)
		}, nil},
		{"unknown", func(*server) string { return "# none" }, []string{"is not known", "ssh-keyscan -t ed25519 -p ", "ssh-ed25519 AAAA", "SHA256:", "ssh.known_hosts"}},
		{"other port", func(s *server) string { return strings.Replace(s.line(0), name(s), "127.0.0.1", 1) }, []string{"is not known"}},
		{"negated", func(s *server) string {
			return strings.Replace(s.line(0), name(s), "*,!"+name(s), 1)
		}, []string{"is not known"}},
		{"changed", func(s *server) string { return name(s) + " " + string(ssh.MarshalAuthorizedKey(other.PublicKey())) },
			[]string{"is not the known one", ssh.FingerprintSHA256(other.PublicKey()), "Somebody may be answering in its place"}},
		{"revoked", func(s *server) string {
			return s.line(0) + "@revoked * " + string(ssh.MarshalAuthorizedKey(s.keys[0].PublicKey()))
		}, []string{"revoked"}},
		{"no common type", func(s *server) string {
			return name(s) + " " + string(ssh.MarshalAuthorizedKey(ecdsaKey(t)))
		}, []string{"ecdsa-sha2-nistp256 only", "ssh-keyscan -p "}},
		{"an unreadable line", func(s *server) string { return name(s) + " ssh-ed25519 !!!" }, []string{"is not known", "not readable: line 1 of ssh.known_hosts"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, settings := start(t, func(s *server, _ *Settings) { s.keys = []ssh.Signer{newKey(t), rsaKey} })
			settings.KnownHosts = c.known(s)
			host, err := hosts(t, settings, noEnv).Open(t.Context(), here)
			if c.want == nil {
				if err != nil {
					t.Fatal(err)
				}
				_ = host.Close()
				return
			}
			var refused *HostKeyError
			if !errors.As(err, &refused) {
				t.Fatalf("Open: %v, want a HostKeyError", err)
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("the error lacks %q: %v", w, err)
				}
			}
			// The line that the error names is the one that helps.
			if refused.Line != "" {
				settings.KnownHosts = refused.Line
				host, err := hosts(t, settings, noEnv).Open(t.Context(), here)
				if err != nil {
					t.Fatalf("with the line that it names: %v", err)
				}
				_ = host.Close()
			}
			if s.logins.Load() > 1 {
				t.Error("it logged in all the same")
			}
		})
	}
}

func TestHostCertificate(t *testing.T) {
	authority, key := newKey(t), newKey(t)
	certify := func(principal string) ssh.Signer {
		cert := &ssh.Certificate{Key: key.PublicKey(), CertType: ssh.HostCert, ValidPrincipals: []string{principal}, ValidBefore: ssh.CertTimeInfinity}
		if err := cert.SignCert(rand.Reader, authority); err != nil {
			t.Fatal(err)
		}
		signer, err := ssh.NewCertSigner(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		return signer
	}
	for principal, ok := range map[string]bool{"127.0.0.1": true, "other": false} {
		_, settings := start(t, func(s *server, set *Settings) {
			s.keys = []ssh.Signer{certify(principal)}
			set.KnownHosts = "@cert-authority * " + string(ssh.MarshalAuthorizedKey(authority.PublicKey()))
		})
		host, err := hosts(t, settings, noEnv).Open(t.Context(), here)
		if (err == nil) != ok {
			t.Errorf("a certificate for %s: %v", principal, err)
		}
		if err == nil {
			_ = host.Close()
		}
	}
}

func TestKnownHostsPath(t *testing.T) {
	s, settings := start(t)
	home := t.TempDir()
	getenv := func(k string) string { return map[string]string{"HOME": home}[k] }
	settings.KnownHosts = ""
	if _, err := hosts(t, settings, getenv).Open(t.Context(), here); err == nil || !strings.Contains(err.Error(), filepath.Join(home, ".ssh", "known_hosts")+" (which does not exist)") {
		t.Errorf("without a file: %v", err)
	}
	if _, err := os.Stat(filepath.Join(home, ".ssh")); err == nil {
		t.Error("a file was written")
	}
	if err := os.Mkdir(filepath.Join(home, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, ".ssh", "known_hosts"), []byte(s.line(0)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"", "~/.ssh/known_hosts", filepath.Join(home, ".ssh", "known_hosts")} {
		settings.KnownHostsPath = path
		open(t, hosts(t, settings, getenv))
	}
	settings.KnownHostsPath = filepath.Join(home, "missing")
	if _, err := hosts(t, settings, getenv).Open(t.Context(), here); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestLogins(t *testing.T) {
	encrypted, public := userKey(t, "pass phrase")
	wrong, _ := userKey(t, "")
	const password = "pa55word"
	socket := agentWith(t, encrypted, "pass phrase")
	env := func(k string) string { return map[string]string{"SSH_AUTH_SOCK": socket}[k] }
	for _, c := range []struct {
		name     string
		settings Settings
		env      func(string) string
		want     string // of the error
	}{
		{"key", Settings{PrivateKeyPEM: encrypted, Passphrase: "pass phrase"}, noEnv, ""},
		{"agent", Settings{}, env, ""},
		{"password", Settings{Password: password}, noEnv, ""},
		{"wrong key, right password", Settings{PrivateKeyPEM: wrong, Password: password}, noEnv, ""},
		{"wrong key", Settings{PrivateKeyPEM: wrong}, env, "does not let cassandra in with the private key SHA256:"},
		{"wrong password", Settings{Password: "wr0ng"}, env, "does not let cassandra in with the password"},
		{"nothing", Settings{}, noEnv, "SSH_AUTH_SOCK is not set"},
		{"agent gone", Settings{}, func(string) string { return "/nowhere/agent" }, "SSH agent"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, settings := start(t, func(s *server, set *Settings) {
				*set = c.settings
				set.User = "cassandra"
				s.key, s.password = public, password
			})
			host, err := hosts(t, settings, c.env).Open(t.Context(), here)
			if err == nil {
				_ = host.Close()
			}
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Fatalf("Open: %v, want %q", err, c.want)
			}
			for _, secret := range []string{"wr0ng", password, "pass phrase"} {
				if err != nil && strings.Contains(err.Error(), secret) {
					t.Errorf("the error has a secret: %v", err)
				}
			}
		})
	}
}

func agentWith(t *testing.T, pem, passphrase string) string {
	t.Helper()
	key, err := ssh.ParseRawPrivateKeyWithPassphrase([]byte(pem), []byte(passphrase))
	if err != nil {
		t.Fatal(err)
	}
	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: key}); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "agent") // a short path: sockets have a limit
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _ = agent.ServeAgent(ring, c); _ = c.Close() }()
		}
	}()
	return socket
}

func TestBastion(t *testing.T) {
	s, settings := start(t)
	bastion, through := start(t, func(b *server, _ *Settings) { b.user, b.key = "jump", s.key })
	settings.Bastion = &Bastion{Host: "127.0.0.1", Port: bastion.port, User: "jump"}
	known := settings.KnownHosts
	for name, c := range map[string]struct{ known, want string }{
		"both known":      {known + through.KnownHosts, ""},
		"bastion unknown": {known, fmt.Sprintf("the bastion: ssh jump@[127.0.0.1]:%d: the host key", bastion.port)},
		"node unknown":    {through.KnownHosts, fmt.Sprintf("ssh cassandra@[127.0.0.1]:%d: the host key", s.port)},
	} {
		t.Run(name, func(t *testing.T) {
			settings.KnownHosts = c.known
			before := bastion.forwarded.Load()
			host, err := hosts(t, settings, noEnv).Open(t.Context(), here)
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("Open: %v, want %q", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer host.Close()
			out, err := host.Run(t.Context(), "echo hello", nil)
			if err != nil || string(out) != "hello\n" || bastion.forwarded.Load() != before+1 {
				t.Errorf("Run: %q, %v, %d connections through the bastion", out, err, bastion.forwarded.Load()-before)
			}
		})
	}
}

func TestDial(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	_, settings := start(t)
	host := open(t, hosts(t, settings, noEnv))
	c, err := host.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "echo"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "echo" {
		t.Errorf("read %q, %v", got, err)
	}
	_ = c.Close()
	_ = l.Close()
	if _, err := host.DialContext(t.Context(), "tcp", l.Addr().String()); err == nil || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("Dial of a closed port: %v", err)
	}
}

func TestValidate(t *testing.T) {
	encrypted, _ := userKey(t, "phrase")
	for want, s := range map[string]Settings{
		"the user of SSH is missing":               {},
		"ssh.port: 70000":                          {User: "u", Port: 70000},
		"ssh.bastion.host":                         {User: "u", Bastion: &Bastion{}},
		"exclude one another":                      {User: "u", KnownHosts: "x", KnownHostsPath: "y"},
		"it has to be in PEM":                      {User: "u", PrivateKeyPEM: "s3cret"},
		"set credentials.ssh.passphrase":           {User: "u", PrivateKeyPEM: encrypted},
		"cannot be read with its passphrase":       {User: "u", PrivateKeyPEM: encrypted, Passphrase: "s3cret"},
		"a passphrase of an SSH key is given, and": {User: "u", Passphrase: "s3cret"},
	} {
		err := s.Validate()
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%+v: %v, want %q", s, err, want)
		}
	}
	s := Settings{User: "u", Password: "s3cret", PrivateKeyPEM: "s3cret", Passphrase: "s3cret"}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(verb, s); strings.Contains(text, "s3cret") {
			t.Errorf("%s prints %s", verb, text)
		}
	}
}

func TestParseDF(t *testing.T) {
	for out, want := range map[string]int64{
		"Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/sda1 100 40 60 40% /\n":             60 << 10,
		"Filesystem 1024-blocks Used Available Capacity Mounted on\n//nas/a b 100 40 7 93% /mnt/with 5% x\n": 7 << 10,
		"": -1, "df: no": -1, "x 1 2 y 3% /": -1, "/dev/x 1 2 99999999999999999999 3% /": -1,
	} {
		got, err := parseDF(out)
		if want < 0 != (err != nil) || err == nil && got != want {
			t.Errorf("%q: %d, %v; want %d", out, got, err, want)
		}
	}
}

func FuzzKnownHosts(f *testing.F) {
	f.Add("[h]:22 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJGsxEMDvRGZLgTLjbqLwG7SOZSEHi2HOzFZuWxeqp2r", "h")
	f.Add("|1|AA==|AA== ssh-rsa x", "[h]:23")
	f.Add("@revoked *a*b*c* x y", "abc")
	f.Fuzz(func(_ *testing.T, text, name string) {
		k := &knownHosts{}
		k.add("x", text)
		k.of(name)
		for _, l := range k.lines {
			l.matches(name)
		}
		matchHost(text, name)
	})
}
