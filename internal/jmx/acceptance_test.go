//go:build acceptance

package jmx

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/testclock"
)

const service = "test:type=Service"

// TestJVM runs against the agent of a real JVM, with the ways to set it up that are in use.
func TestJVM(t *testing.T) {
	classes := compile(t)
	t.Run("open", func(t *testing.T) { testOpen(t, classes) })
	t.Run("passwords", func(t *testing.T) { testPasswords(t, classes) })
	t.Run("idle", func(t *testing.T) { testIdle(t, classes) })
	t.Run("TLS", func(t *testing.T) { testTLS(t, classes) })
}

func testOpen(t *testing.T, classes string) {
	// No rmi.port: the server is at a port chosen at random. The host that it gives is one that is nowhere.
	port := startJVM(t, classes, nil, "-Dcom.sun.management.jmxremote.authenticate=false", "-Dcom.sun.management.jmxremote.ssl=false", "-Djava.rmi.server.hostname=192.0.2.77")
	var dialled []string
	c := connect(t, Config{Host: "127.0.0.1", Port: port, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		dialled = append(dialled, address)
		return new(net.Dialer).DialContext(ctx, network, address)
	}})
	ctx := t.Context()
	if len(dialled) != 2 || dialled[0] == dialled[1] {
		t.Errorf("dialled %v, not the registry and another port", dialled)
	}
	if v, err := c.GetAttribute(ctx, service, "Version"); v != "1.2.3" || err != nil {
		t.Error(v, err)
	}
	if m, err := c.GetAttributes(ctx, service, "Version", "Count", "Nothing"); err != nil || len(m) != 2 || m["Version"] != "1.2.3" || m["Count"] != int32(0) {
		t.Error(m, err)
	}
	if s, err := c.DefaultDomain(ctx); s != "DefaultDomain" || err != nil {
		t.Error(s, err)
	}
	if s, err := c.ConnectionID(ctx); !strings.HasPrefix(s, "rmi:") || err != nil {
		t.Error(s, err)
	}
	for name, want := range map[string]bool{service: true, "test:type=Other": false} {
		if ok, err := c.IsRegistered(ctx, name); ok != want || err != nil {
			t.Error(name, ok, err)
		}
	}
	if names, err := c.QueryNames(ctx, "test:*"); fmt.Sprint(names) != "["+service+"]" || err != nil {
		t.Error(names, err)
	}
	if names, err := c.QueryNames(ctx, ""); len(names) < 20 || err != nil {
		t.Error(names, err)
	}
	if v, err := c.GetAttribute(ctx, "java.lang:type=Memory", "HeapMemoryUsage"); err != nil {
		t.Error(err)
	} else if m, ok := v.(map[string]any); !ok || m["used"] == nil {
		t.Errorf("%#v", v)
	}

	t.Run("values", func(t *testing.T) {
		for name, want := range want() {
			got, err := c.Invoke(ctx, service, "value", []any{name}, []string{"java.lang.String"})
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			same(t, name, got, want)
		}
	})
	t.Run("arguments", func(t *testing.T) {
		text := "a\x00é€😀"
		got, err := c.Invoke(ctx, service, "describe",
			[]any{text, true, false, int32(-7), int64(1 << 40), 2.5, []string{"x", "y"}, map[string]string{"k": "v", "l": "w"}, Set{"p", "q"}, List{"r"}, ObjectName("a:b=c"), nil},
			[]string{"java.lang.String", "boolean", "java.lang.Boolean", "int", "long", "double", "[Ljava.lang.String;", "java.util.Map", "java.util.Set", "java.util.List",
				"javax.management.ObjectName", "java.lang.String"})
		same(t, "describe", got, text+"|true|false|-7|1099511627776|2.5|[x, y]|{k=v, l=w}|[p, q]|[r]|a:b=c|null")
		if err != nil {
			t.Error(err)
		}
		got, err = c.Invoke(ctx, service, "importLike", []any{Set{"/d"}, true, false, true, false, true, false, true},
			[]string{"java.util.Set", "boolean", "boolean", "boolean", "boolean", "boolean", "boolean", "boolean"})
		same(t, "importLike", got, "[/d] truefalsetruefalsetruefalsetrue")
		if err != nil {
			t.Error(err)
		}
		large := make(map[string]string)
		for i := range 1000 {
			large[strconv.Itoa(i)] = "v"
		}
		if _, err := c.Invoke(ctx, service, "describe", []any{"", true, nil, int32(0), int64(0), 0.0, []string{}, large, Set{}, List{}, nil, nil},
			[]string{"java.lang.String", "boolean", "java.lang.Boolean", "int", "long", "double", "[Ljava.lang.String;", "java.util.Map", "java.util.Set", "java.util.List",
				"javax.management.ObjectName", "java.lang.String"}); err != nil {
			t.Error(err)
		}
		long := strings.Repeat("é", 50_000)
		got, err = c.Invoke(ctx, service, "big", []any{long}, []string{"java.lang.String"})
		if got != long+long || err != nil {
			t.Errorf("%.30v %v", got, err)
		}
	})
	t.Run("exceptions", func(t *testing.T) { testExceptions(t, c) })
	t.Run("together", func(t *testing.T) {
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				s := strconv.Itoa(i)
				if got, err := c.Invoke(ctx, service, "big", []any{s}, []string{"java.lang.String"}); got != s+s || err != nil {
					t.Error(got, err)
				}
			})
		}
		all.Wait()
	})
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, err := c.DefaultDomain(ctx); !errors.Is(err, ErrConnectionSpent) || errors.Is(err, ErrOutcomeUnknown) {
		t.Error("after Close:", err)
	}

	// Each of these costs a connection.
	cfg := Config{Host: "127.0.0.1", Port: port}
	t.Run("deadline", func(t *testing.T) { testDeadline(t, cfg) })
	t.Run("unreadable", func(t *testing.T) { testUnreadable(t, cfg) })
	t.Run("too long", func(t *testing.T) {
		for _, op := range []string{"bytes", "nulls"} {
			c := connect(t, cfg)
			if _, err := c.Invoke(ctx, service, op, []any{int32(9 << 20)}, []string{"int"}); !errors.Is(err, ErrConnectionSpent) || !errors.Is(err, ErrOutcomeUnknown) {
				t.Error(op, err)
			}
			c = connect(t, cfg)
			if _, err := c.Invoke(ctx, service, op, []any{int32(1_000_000)}, []string{"int"}); err != nil {
				t.Error(op, err)
			}
		}
	})
	t.Run("unserialisable", func(t *testing.T) {
		c := connect(t, cfg)
		_, err := c.Invoke(ctx, service, "unserialisable", nil, nil)
		t.Log(err)
		if !errors.Is(err, ErrConnectionSpent) || !strings.Contains(fmt.Sprint(err), "java.io.NotSerializableException: java.lang.Object") {
			t.Error(err)
		}
	})
	t.Run("host of the stub", func(t *testing.T) {
		cfg := cfg
		cfg.UseStubHost = true
		cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			host, p, _ := net.SplitHostPort(address)
			if host == "192.0.2.77" {
				host = "127.0.0.1"
			} else if p != strconv.Itoa(port) {
				t.Error("dialled", address)
			}
			return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(host, p))
		}
		connect(t, cfg)
	})
	t.Run("TLS", func(t *testing.T) {
		cfg := cfg
		cfg.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		t.Log(failing(t, cfg, ErrTLS))
		cfg.RegistryTLS = true
		t.Log(failing(t, cfg, ErrTLS))
	})
}

func testExceptions(t *testing.T, c *Client) {
	ctx := t.Context()
	str := []string{"java.lang.String"}
	for _, k := range []struct {
		operation string
		args      []any
		signature []string
		class     string
		text      string
	}{
		{"snapshot", []any{"t", []string{}}, []string{"java.lang.String", "[Ljava.lang.String;"}, "javax.management.MBeanException", "java.io.IOException: Snapshot t already exists."},
		{"value", []any{"no"}, str, "javax.management.RuntimeMBeanException", "java.lang.IllegalArgumentException: no value no"},
		{"wrapped", nil, nil, "javax.management.RuntimeMBeanException", "java.lang.IllegalStateException: inside"},
		{"forbidden", nil, nil, "javax.management.RuntimeMBeanException", "java.lang.SecurityException: the MBean's own"},
		{"fail", nil, nil, "javax.management.MBeanException", "java.lang.Exception: outer, caused by java.io.IOException: inner"},
		{"no-such", nil, nil, "javax.management.ReflectionException", "java.lang.NoSuchMethodException: no-such()"},
	} {
		if k.operation == "snapshot" { // the first one is good
			if v, err := c.Invoke(ctx, service, k.operation, k.args, k.signature); v != nil || err != nil {
				t.Error(v, err)
			}
		}
		_, err := c.Invoke(ctx, service, k.operation, k.args, k.signature)
		var thrown *Throwable
		if !errors.As(err, &thrown) || errors.Is(err, ErrConnectionSpent) || errors.Is(err, ErrAccess) {
			t.Errorf("%s: %v", k.operation, err)
			continue
		}
		if thrown.Class != k.class || thrown.Error() != k.text {
			t.Errorf("%s: %s: %v", k.operation, thrown.Class, thrown)
		}
	}
	_, err := c.GetAttribute(ctx, "test:type=Other", "Version")
	var thrown *Throwable
	if !errors.As(err, &thrown) || !thrown.IsA("javax.management.InstanceNotFoundException") {
		t.Error(err)
	}
	if _, err := c.GetAttribute(ctx, service, "Version"); err != nil {
		t.Error("after the exceptions:", err)
	}
	for _, name := range []string{"", "x", "x:", "x:y", "a\nb:c=d"} {
		if _, err := c.GetAttribute(ctx, name, "Version"); err == nil || errors.Is(err, ErrConnectionSpent) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// testUnreadable has an argument that the server cannot read, which may leave the rest of the request unread.
func testUnreadable(t *testing.T, cfg Config) {
	c := connect(t, cfg)
	_, err := c.GetAttribute(t.Context(), "a:b=c,b=d", "Version")
	t.Log(err)
	if !errors.Is(err, ErrConnectionSpent) || errors.Is(err, ErrOutcomeUnknown) || !strings.Contains(fmt.Sprint(err), "MalformedObjectNameException") {
		t.Error(err)
	}
}

// testDeadline cuts a call off, which goes on in the server.
func testDeadline(t *testing.T, cfg Config) {
	c, other := connect(t, cfg), connect(t, cfg)
	number := func(attribute string) int32 {
		v, err := other.GetAttribute(t.Context(), service, attribute)
		if err != nil {
			t.Fatal(err)
		}
		n, _ := v.(int32)
		return n
	}
	started, finished := number("Count"), number("Finished")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	result := make(chan error, 1)
	go func() {
		_, err := c.Invoke(ctx, service, "sleep", []any{int64(1500)}, []string{"long"})
		result <- err
	}()
	eventually(t, func() bool { return number("Count") == started+1 })
	cancel()
	err := <-result
	t.Log(err)
	if !errors.Is(err, ErrConnectionSpent) || !errors.Is(err, ErrOutcomeUnknown) || !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if n := number("Finished"); n != finished {
		t.Error("the call was over before it was cut off")
	}
	eventually(t, func() bool { return number("Finished") == finished+1 })
	if _, err := c.DefaultDomain(t.Context()); !errors.Is(err, ErrConnectionSpent) || errors.Is(err, ErrOutcomeUnknown) {
		t.Error("after that:", err)
	}
}

func testPasswords(t *testing.T, classes string) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "access"), "reader readonly\nwriter readwrite\n")
	write(t, filepath.Join(dir, "passwords"), "reader r-secret\nwriter w-secret\n")
	port := freePort(t)
	startJVM(t, classes, &port, "-Dcom.sun.management.jmxremote.rmi.port="+strconv.Itoa(port), "-Dcom.sun.management.jmxremote.ssl=false",
		"-Dcom.sun.management.jmxremote.access.file="+filepath.Join(dir, "access"), "-Dcom.sun.management.jmxremote.password.file="+filepath.Join(dir, "passwords"))
	dials := 0
	cfg := Config{Host: "127.0.0.1", Port: port, Username: "writer", Password: "w-secret", Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		dials++
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
	c := connect(t, cfg)
	if dials != 1 {
		t.Errorf("%d connections to one port", dials)
	}
	if _, err := c.Invoke(t.Context(), service, "nothing", nil, nil); err != nil {
		t.Error(err)
	}
	if s := fmt.Sprintf("%v %+v %#v %s", c, c, c, c.Err()); strings.Contains(s, "w-secret") {
		t.Error(s)
	}
	c = connect(t, Config{Host: "127.0.0.1", Port: port, Username: "reader", Password: "r-secret"})
	_, err := c.Invoke(t.Context(), service, "nothing", nil, nil)
	t.Log(err)
	if !errors.Is(err, ErrAccess) || errors.Is(err, ErrConnectionSpent) {
		t.Error(err)
	}
	if v, err := c.GetAttribute(t.Context(), service, "Version"); v != "1.2.3" || err != nil {
		t.Error(v, err)
	}
	for _, k := range [][2]string{{"writer", "wrong-secret"}, {"nobody", "wrong-secret"}, {"writer", ""}, {"", ""}} {
		cfg.Username, cfg.Password = k[0], k[1]
		err := failing(t, cfg, ErrAuthentication)
		if strings.Contains(err.Error(), "secret") {
			t.Error(err)
		}
	}
}

// testIdle has a server that ends connections after 2 s without a call, where it is 120 s by default.
func testIdle(t *testing.T, classes string) {
	port := freePort(t)
	startProgram(t, classes, nil, "idle", strconv.Itoa(port), "2000")
	cfg := Config{Host: "127.0.0.1", Port: port, KeepAlive: 500 * time.Millisecond}
	kept := connect(t, cfg)
	cfg.KeepAlive = -1
	left := connect(t, cfg)
	// One after the other: with another call the one that is left would not be idle.
	start := time.Now()
	eventually(t, func() bool { return time.Since(start) > 5*time.Second })
	_, err := left.DefaultDomain(t.Context())
	t.Log(err)
	if !errors.Is(err, ErrConnectionSpent) || errors.Is(err, ErrOutcomeUnknown) || !strings.Contains(fmt.Sprint(err), "NoSuchObjectException") {
		t.Error("without keep-alive:", err)
	}
	if _, err := kept.DefaultDomain(t.Context()); err != nil {
		t.Error("with keep-alive:", err)
	}
}

func testTLS(t *testing.T, classes string) {
	pki := newPKI(t)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "access"), "writer readwrite\n")
	write(t, filepath.Join(dir, "passwords"), "writer w-secret\n")
	store := []string{"-Djavax.net.ssl.keyStore=" + pki.keyStore, "-Djavax.net.ssl.keyStorePassword=changeit", "-Dcom.sun.management.jmxremote.ssl=true"}
	trusting := &tls.Config{RootCAs: pki.server, MinVersion: tls.VersionTLS12}

	t.Run("server", func(t *testing.T) {
		port := startJVM(t, classes, nil, append(store, "-Dcom.sun.management.jmxremote.authenticate=false")...)
		cfg := Config{Host: "127.0.0.1", Port: port, TLS: trusting}
		connected(t, cfg)
		cfg.TLS = nil
		t.Log(failing(t, cfg, ErrTLS))
		cfg.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		var unknown *tls.CertificateVerificationError
		if _, err := Connect(t.Context(), withClock(cfg)); !errors.As(err, &unknown) {
			t.Error("a certificate that nobody vouches for:", err)
		}
		cfg.TLS = &tls.Config{RootCAs: pki.server, ServerName: "elsewhere.example", MinVersion: tls.VersionTLS12}
		if _, err := Connect(t.Context(), withClock(cfg)); !errors.As(err, &unknown) {
			t.Error("a certificate of somebody else:", err)
		}
		cfg.TLS, cfg.RegistryTLS = trusting, true
		t.Log(failing(t, cfg, ErrTLS))
	})
	t.Run("registry", func(t *testing.T) {
		port := freePort(t)
		startJVM(t, classes, &port, append(store, "-Dcom.sun.management.jmxremote.registry.ssl=true", "-Dcom.sun.management.jmxremote.rmi.port="+strconv.Itoa(port),
			"-Dcom.sun.management.jmxremote.access.file="+filepath.Join(dir, "access"), "-Dcom.sun.management.jmxremote.password.file="+filepath.Join(dir, "passwords"))...)
		cfg := Config{Host: "127.0.0.1", Port: port, TLS: trusting, RegistryTLS: true, Username: "writer", Password: "w-secret"}
		connected(t, cfg)
		plain := cfg
		plain.RegistryTLS = false
		t.Log(failing(t, plain, ErrTLS))
		cfg.Password = "wrong"
		failing(t, cfg, ErrAuthentication)
	})
	t.Run("client certificate", func(t *testing.T) {
		port := startJVM(t, classes, nil, append(store, "-Dcom.sun.management.jmxremote.registry.ssl=true", "-Dcom.sun.management.jmxremote.authenticate=false",
			"-Dcom.sun.management.jmxremote.ssl.need.client.auth=true", "-Djavax.net.ssl.trustStore="+pki.trustStore, "-Djavax.net.ssl.trustStorePassword=changeit")...)
		cfg := Config{Host: "127.0.0.1", Port: port, RegistryTLS: true, TLS: &tls.Config{RootCAs: pki.server, Certificates: []tls.Certificate{pki.client}, MinVersion: tls.VersionTLS12}}
		connected(t, cfg)
		cfg.TLS = trusting
		_, err := Connect(t.Context(), withClock(cfg))
		t.Log(err)
		if err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Error("without a client certificate:", err)
		}
	})
}

func withClock(cfg Config) Config {
	cfg.Clock = testclock.New()
	return cfg
}

func connect(t testing.TB, cfg Config) *Client {
	t.Helper()
	c, err := Connect(t.Context(), withClock(cfg))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// connected reads an attribute.
func connected(t *testing.T, cfg Config) {
	t.Helper()
	if v, err := connect(t, cfg).GetAttribute(t.Context(), service, "Version"); v != "1.2.3" || err != nil {
		t.Error(v, err)
	}
}

// failing expects that there is no connection.
func failing(t *testing.T, cfg Config, want error) error {
	t.Helper()
	c, err := Connect(t.Context(), withClock(cfg))
	if err == nil {
		_ = c.Close()
	}
	if !errors.Is(err, want) {
		t.Fatalf("got the error %v, want %v", err, want)
	}
	return err
}

func eventually(t *testing.T, condition func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("it does not come")
		}
	}
}

// tool finds a program of the JDK.
func tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is missing: run make testbed, which installs a JDK", name)
	}
	return path
}

func compile(t testing.TB) string {
	t.Helper()
	classes := t.TempDir()
	cmd := exec.CommandContext(t.Context(), tool(t, "javac"), "-J-XX:TieredStopAtLevel=1", "-d", classes, "testdata/FakeMBean.java")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("javac: %v\n%s", err, out)
	}
	return classes
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// startJVM starts a JVM with an agent on 127.0.0.1, and returns the port of its registry.
func startJVM(t testing.TB, classes string, port *int, flags ...string) int {
	t.Helper()
	if port == nil {
		p := freePort(t)
		port = &p
	}
	startProgram(t, classes, append([]string{"-Dcom.sun.management.jmxremote.host=127.0.0.1", "-Dcom.sun.management.jmxremote.port=" + strconv.Itoa(*port)}, flags...))
	return *port
}

// startProgram starts FakeMBean, and waits until it is ready. It ends with the test, also when the test is killed.
func startProgram(t testing.TB, classes string, flags []string, args ...string) {
	t.Helper()
	java := tool(t, "java")
	flags = append([]string{"-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m", "-cp", classes}, flags...)
	cmd := exec.Command(java, append(append(flags, "FakeMBean"), args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	started, ready, done := make(chan error, 1), make(chan struct{}), make(chan struct{})
	go func() {
		// Pdeathsig is about the thread that starts the child: this one stays as long as the child does.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		if line, _ := bufio.NewReader(stdout).ReadString('\n'); line == "READY\n" {
			close(ready)
		}
		_, _ = io.Copy(io.Discard, stdout)
		_ = cmd.Wait()
		close(done)
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-done
	})
	timeout := time.NewTimer(time.Minute)
	defer timeout.Stop()
	select {
	case <-ready:
	case <-done:
		t.Fatalf("the JVM ended: %s", stderr.String())
	case <-timeout.C:
		t.Fatal("the JVM is not ready after a minute")
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil { // the JVM insists on the mode
		t.Fatal(err)
	}
}

// pki has a certificate for the server in a key store, and one for a client that the trust store trusts.
type pki struct {
	keyStore, trustStore string
	server               *x509.CertPool
	client               tls.Certificate
}

func newPKI(t *testing.T) pki {
	t.Helper()
	dir := t.TempDir()
	p := pki{keyStore: filepath.Join(dir, "server.p12"), trustStore: filepath.Join(dir, "trust.p12"), server: x509.NewCertPool()}
	keytool := func(args ...string) []byte {
		cmd := exec.CommandContext(t.Context(), tool(t, "keytool"), append([]string{"-J-XX:TieredStopAtLevel=1"}, args...)...)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("keytool %v: %v\n%s", args, err, out)
		}
		return out
	}
	keytool("-genkeypair", "-alias", "server", "-keyalg", "EC", "-groupname", "secp256r1", "-validity", "2", "-dname", "CN=server", "-ext", "san=ip:127.0.0.1",
		"-storetype", "PKCS12", "-keystore", p.keyStore, "-storepass", "changeit")
	if !p.server.AppendCertsFromPEM(keytool("-exportcert", "-rfc", "-alias", "server", "-keystore", p.keyStore, "-storepass", "changeit")) {
		t.Fatal("keytool exports no certificate")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(48 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	p.client = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	file := filepath.Join(dir, "client.pem")
	write(t, file, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	keytool("-importcert", "-noprompt", "-alias", "client", "-file", file, "-storetype", "PKCS12", "-keystore", p.trustStore, "-storepass", "changeit")
	return p
}

func BenchmarkConnect(b *testing.B) {
	port := startJVM(b, compile(b), nil, "-Dcom.sun.management.jmxremote.authenticate=false", "-Dcom.sun.management.jmxremote.ssl=false")
	for b.Loop() {
		c, err := Connect(b.Context(), withClock(Config{Host: "127.0.0.1", Port: port}))
		if err != nil {
			b.Fatal(err)
		}
		if err := c.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkInvoke(b *testing.B) {
	port := startJVM(b, compile(b), nil, "-Dcom.sun.management.jmxremote.authenticate=false", "-Dcom.sun.management.jmxremote.ssl=false")
	c := connect(b, Config{Host: "127.0.0.1", Port: port})
	for b.Loop() {
		if _, err := c.Invoke(b.Context(), service, "nothing", nil, nil); err != nil {
			b.Fatal(err)
		}
	}
}
