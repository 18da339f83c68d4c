package postgresql

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/testclock"
)

// env is a Getenv of a fixed environment.
func env(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

// noLibpq takes away what this process's environment says about PostgreSQL.
func noLibpq(t *testing.T) {
	t.Helper()
	for _, e := range os.Environ() {
		if name, _, _ := strings.Cut(e, "="); strings.HasPrefix(name, "PG") {
			t.Setenv(name, "")
		}
	}
	t.Setenv("HOME", t.TempDir())
}

func TestConfigPrecedence(t *testing.T) {
	noLibpq(t)
	passfile := filepath.Join(t.TempDir(), "pgpass")
	if err := os.WriteFile(passfile, []byte("db.internal:5432:orders:carol:from the file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name     string
		settings Settings
		want     string // user/password/port
	}{
		{"credentials before the environment", Settings{Username: "alice", Password: `a' b\"`, Port: 6000, Getenv: env("PGUSER", "bob", "PGPASSWORD", "b", "PGPORT", "7")}, `alice/a' b\"/6000`},
		{"environment", Settings{Getenv: env("PGUSER", "bob", "PGPASSWORD", "b", "PGPORT", "7")}, "bob/b/7"},
		{"password file", Settings{Getenv: env("PGUSER", "carol", "PGPASSFILE", passfile)}, "carol/from the file/5432"},
		{"user of the credentials, password of the file", Settings{Username: "carol", Getenv: env("PGPASSFILE", passfile)}, "carol/from the file/5432"},
		{"quotes", Settings{Username: `o'br\ien x=y`, Password: "p"}, `o'br\ien x=y/p/5432`},
	} {
		c.settings.Host, c.settings.Database = "db.internal", "orders"
		got, err := c.settings.config("orders")
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if s := fmt.Sprintf("%s/%s/%d", got.User, got.Password, got.Port); s != c.want || got.Host != "db.internal" || got.Database != "orders" {
			t.Errorf("%s: %s at %s/%s, want %s", c.name, s, got.Host, got.Database, c.want)
		}
	}
	if s := fmt.Sprintf("%v %+v %#v", Settings{Password: "hunter2"}, Settings{Password: "hunter2"}, Settings{Password: "hunter2"}); strings.Contains(s, "hunter2") {
		t.Errorf("settings print their password: %s", s)
	}
}

// issue makes a certificate; without a parent it signs itself.
func issue(t *testing.T, name string, parent *tls.Certificate) (certPEM, keyPEM string, pair tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour),
		IsCA: parent == nil, BasicConstraintsValid: true}
	by, signer := template, any(key)
	if parent != nil {
		by, signer = parent.Leaf, parent.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	keyPEM = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
	if pair, err = tls.X509KeyPair([]byte(certPEM), []byte(keyPEM)); err != nil {
		t.Fatal(err)
	}
	return certPEM, keyPEM, pair
}

// A TLS server that speaks just enough of PostgreSQL to be let in, or not.
func tlsServer(t *testing.T, pair tls.Certificate, client func(*tls.ConnectionState)) (port int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
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
			go func() {
				defer c.Close() //nolint:errcheck // a test's
				var request [8]byte
				if _, err := io.ReadFull(c, request[:]); err != nil || binary.BigEndian.Uint32(request[4:]) != codeSSL {
					return
				}
				if _, err := c.Write([]byte{'S'}); err != nil {
					return
				}
				s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert})
				if ok, err := greet(s); !ok || err != nil {
					return
				}
				if client != nil {
					state := s.ConnectionState()
					client(&state)
				}
				_ = send(s, &pgproto3.AuthenticationOk{}, &pgproto3.BackendKeyData{SecretKey: []byte{1, 2, 3, 4}}, &pgproto3.ReadyForQuery{TxStatus: 'I'})
				_, _ = io.Copy(io.Discard, s)
			}()
		}
	}()
	return int64(l.Addr().(*net.TCPAddr).Port) //nolint:forcetypeassert // it is
}

func TestTLS(t *testing.T) {
	noLibpq(t)
	ca, _, authority := issue(t, "ca", nil)
	otherCA, _, _ := issue(t, "other ca", nil)
	_, _, local := issue(t, "localhost", &authority)
	_, _, elsewhere := issue(t, "elsewhere", &authority)
	clientCert, clientKey, _ := issue(t, "backup", &authority)
	for _, c := range []struct {
		name   string
		server tls.Certificate
		with   Settings
		ok     bool
	}{
		{"a CA alone means verify-full", local, Settings{CAPEM: ca}, true},
		{"another CA", local, Settings{CAPEM: otherCA}, false},
		{"another name", elsewhere, Settings{CAPEM: ca}, false},
		{"another name, verify-ca", elsewhere, Settings{CAPEM: ca, SSLMode: "verify-ca"}, true},
		{"another CA, verify-ca", local, Settings{CAPEM: otherCA, SSLMode: "verify-ca"}, false},
		{"require with another CA", local, Settings{CAPEM: otherCA, SSLMode: "require"}, false},
		{"require without a CA", local, Settings{SSLMode: "require"}, true},
		{"the environment's mode", local, Settings{CAPEM: otherCA, Getenv: env("PGSSLMODE", "verify-full")}, false},
	} {
		c.with.Host, c.with.Database, c.with.Username, c.with.Port = "localhost", "d", "u", tlsServer(t, c.server, nil)
		config, err := c.with.config("d")
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		conn, err := pgconn.ConnectConfig(t.Context(), &config.Config)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
		if err == nil {
			abandon(conn)
		}
	}

	got := make(chan string, 1)
	port := tlsServer(t, local, func(s *tls.ConnectionState) {
		if len(s.PeerCertificates) > 0 {
			got <- s.PeerCertificates[0].Subject.CommonName
		}
		close(got)
	})
	s := Settings{Host: "localhost", Port: port, Database: "d", Username: "u", CAPEM: ca, CertPEM: clientCert, KeyPEM: clientKey}
	config, err := s.config("d")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgconn.ConnectConfig(t.Context(), &config.Config)
	if err != nil {
		t.Fatal(err)
	}
	abandon(conn)
	if name := <-got; name != "backup" {
		t.Errorf("the server saw the certificate of %q", name)
	}

	for _, bad := range []Settings{{CAPEM: "no PEM"}, {CertPEM: "no PEM", KeyPEM: clientKey}, {CertPEM: clientCert, KeyPEM: "SECRET no PEM"}} {
		bad.Host, bad.SSLMode = "localhost", "require"
		if _, err := bad.config("d"); err == nil || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("a broken PEM: %v", err)
		}
	}
}

func program(t *testing.T, dir, name, version string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // a test's
		t.Fatal(err)
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho '"+name+" (PostgreSQL) "+version+"'\n"), 0o755); err != nil { //nolint:gosec // it has to run
		t.Fatal(err)
	}
	return path
}

func TestFindTool(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p12 := program(t, filepath.Join(root, "path"), "pg_dump", "12.3")
	p15 := program(t, filepath.Join(root, "lib/15/bin"), "pg_dump", "15.6 (Debian 15.6-0+deb12u1)")
	p17 := program(t, filepath.Join(root, "lib/17/bin"), "pg_dump", "17beta1")
	program(t, filepath.Join(root, "lib/18/bin"), "pg_dump", "")
	wrapper := program(t, filepath.Join(root, "share"), "pg_wrapper", "15.6")
	debian := filepath.Join(root, "debian")
	if err := errors.Join(os.Mkdir(debian, 0o755), os.Symlink(wrapper, filepath.Join(debian, "pg_dump"))); err != nil { //nolint:gosec // a test's
		t.Fatal(err)
	}
	s := Settings{Clock: testclock.New(), Getenv: env("PATH", strings.Join([]string{debian, "relative", "", filepath.Join(root, "path")}, ":")), toolDirs: []string{filepath.Join(root, "lib/*/bin")}}
	for atLeast, want := range map[int]string{11: p12, 12: p12, 13: p15, 15: p15, 16: p17, 17: p17} {
		got, err := s.findTool(t.Context(), nil, "pg_dump", atLeast)
		if err != nil || got.path != want {
			t.Errorf("at least %d: %+v, %v; want %s", atLeast, got, err, want)
		}
	}
	_, err = s.findTool(t.Context(), nil, "pg_dump", 18)
	for _, text := range []string{"12.3", "15.6", "17beta1", "postgresql-client-18"} {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("too old: the error does not say %q: %v", text, err)
		}
	}
	if _, err := s.findTool(t.Context(), nil, "pg_restore", 15); err == nil || !strings.Contains(err.Error(), "looking for pg_restore") {
		t.Errorf("missing: %v", err)
	}
	s.toolDirs, s.Getenv = []string{}, nil
	if c := s.candidates("sh"); len(c) != 0 {
		t.Errorf("without PATH: %q", c)
	}
}

func FuzzParseVersion(f *testing.F) {
	for _, s := range []string{"pg_dump (PostgreSQL) 15.6", "pg_dump (PostgreSQL) 9.6.24", "pg_dump (PostgreSQL) 18beta2", "pg_restore (PostgreSQL) 17devel", "", "psql 3"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		version, major, err := parseVersion(s)
		if err == nil && (major < 0 || major > 9999 || version == "" || !strings.Contains(s, version)) {
			t.Errorf("%q: %q, %d", s, version, major)
		}
	})
}

func TestParseVersion(t *testing.T) {
	for s, want := range map[string]int{"pg_dump (PostgreSQL) 15.6 (Debian 15.6-0+deb12u1)\n": 15, "pg_dump (PostgreSQL) 9.6.24": 9, "pg_restore (PostgreSQL) 18beta2": 18} {
		if _, major, err := parseVersion(s); err != nil || major != want {
			t.Errorf("%q: %d, %v", s, major, err)
		}
	}
	if _, _, err := parseVersion("mysqldump  Ver 10.19 Distrib 10.11.6-MariaDB"); err == nil {
		t.Error("another program's version was taken")
	}
}

func FuzzParseSnapshot(f *testing.F) {
	for _, s := range []string{"745:745:", "10:20:10,14,15", "4294967300:4294967310:4294967301", "20:10:", ":", "x:y:z", "18446744073709551615:1:"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if xmin, xmax, err := parseSnapshot(s); err == nil && xmin > xmax {
			t.Errorf("%q: %d > %d", s, xmin, xmax)
		}
	})
}

func TestSpan(t *testing.T) {
	from, until, err := span("10:20:10,14", "15:30:15")
	if from != 10 || until != 30 || err != nil {
		t.Errorf("got %d, %d, %v: an id that ran in the first snapshot may have ended since", from, until, err)
	}
	for _, c := range [][2]string{{"10:20:", "x"}, {"", "10:20:"}, {"100:200:", "10:20:"}} {
		if _, _, err := span(c[0], c[1]); err == nil {
			t.Errorf("%q: no error", c)
		}
	}
}

func TestInSnapshot(t *testing.T) {
	for query, want := range map[string]string{
		"BEGIN": "BEGIN", "begin;": "BEGIN", "SET TRANSACTION SNAPSHOT '00000003-0000000C-1'": "SET",
		"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY": "", "LOCK TABLE bank.accounts IN ACCESS SHARE MODE": "", "SELECT 'BEGIN'": "", "": "", ";": "",
		"PREPARE dumpFunc(pg_catalog.oid) AS SELECT 1": "", "SET statement_timeout = 0": "", "COPY x TO stdout": "",
	} {
		if got, err := inSnapshot(query); got != want || err != nil {
			t.Errorf("%q: %q, %v", query, got, err)
		}
	}
	for _, query := range []string{"COMMIT", "commit;", "ROLLBACK", "END", "ABORT", "PREPARE TRANSACTION 'x'"} {
		if _, err := inSnapshot(query); err == nil {
			t.Errorf("%q would end the snapshot, and passes", query)
		}
	}
}

func FuzzGreet(f *testing.F) {
	first := func(code uint32, rest string) []byte {
		b := binary.BigEndian.AppendUint32(nil, uint32(8+len(rest))) //nolint:gosec // short
		return append(binary.BigEndian.AppendUint32(b, code), rest...)
	}
	f.Add(first(196608, "user\x00x\x00\x00"))
	f.Add(append(first(codeSSL, ""), append(first(codeGSS, ""), first(196608, "")...)...))
	f.Add(first(codeCancel, "12345678"))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		var out bytes.Buffer
		ok, err := greet(struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(data), &out})
		if ok && err != nil || out.Len() > 3 || strings.Trim(out.String(), "N") != "" {
			t.Errorf("%v, %v, answered %q", ok, err, out.String())
		}
	})
}

// relayed starts a relay whose server is the other end of a pipe, and connects a tool.
func relayed(t *testing.T, answer func(string) (string, error)) (r *relay, tool, server net.Conn) {
	t.Helper()
	t.Setenv("TMPDIR", "/tmp")
	ours, theirs := net.Pipe()
	r, err := startRelay(t.Context(), nil, func(context.Context) (*pgconn.HijackedConn, error) {
		return &pgconn.HijackedConn{Conn: ours, PID: 7, SecretKey: []byte{1, 2, 3, 4}, TxStatus: 'T', ParameterStatuses: map[string]string{"server_version": "15.6"}}, nil
	}, answer)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.close)
	tool, err = net.Dial("unix", filepath.Join(r.folder, ".s.PGSQL.5432"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tool.Close(); _ = theirs.Close() })
	if _, err := tool.Write([]byte{0, 0, 0, 8, 0, 3, 0, 0}); err != nil {
		t.Fatal(err)
	}
	return r, tool, theirs
}

// message reads one message of the protocol.
func message(r io.Reader) ([]byte, error) {
	m := make([]byte, 5)
	if _, err := io.ReadFull(r, m); err != nil {
		return nil, err
	}
	m = append(m, make([]byte, binary.BigEndian.Uint32(m[1:])-4)...)
	_, err := io.ReadFull(r, m[5:])
	return m, err
}

func messageOf(t *testing.T, r io.Reader) []byte {
	t.Helper()
	m, err := message(r)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func query(s string) []byte {
	b, err := (&pgproto3.Query{String: s}).Encode(nil)
	if err != nil {
		panic(err)
	}
	return b
}

func TestRelay(t *testing.T) {
	r, tool, server := relayed(t, inSnapshot)
	info, err := os.Stat(r.folder)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder is %v, %v", info.Mode(), err)
	}
	var kinds []byte
	for len(kinds) == 0 || kinds[len(kinds)-1] != 'Z' {
		kinds = append(kinds, messageOf(t, tool)[0])
	}
	if string(kinds) != "RSKZ" {
		t.Errorf("welcomed with %q", kinds)
	}
	// What the relay answers never reaches the server; all else does, to the byte.
	for _, step := range []struct {
		send []byte
		own  bool
	}{
		{query("BEGIN"), true}, {query("SELECT 1"), false}, {query("SET TRANSACTION SNAPSHOT 'x'"), true},
		{query(strings.Repeat("x", 3*maxStatement)), false}, {append([]byte{'d', 0, 0, 0, 9}, "BEGIN"...), false},
	} {
		written := make(chan error, 1)
		go func() { _, err := tool.Write(step.send); written <- err }()
		if step.own {
			if a, b := messageOf(t, tool)[0], messageOf(t, tool)[0]; a != 'C' || b != 'Z' {
				t.Errorf("answered %c %c", a, b)
			}
		} else {
			got := make([]byte, len(step.send))
			if _, err := io.ReadFull(server, got); err != nil || !bytes.Equal(got, step.send) {
				t.Fatalf("%.40q became %.40q (%v)", step.send, got, err)
			}
		}
		if err := <-written; err != nil {
			t.Fatal(err)
		}
	}
	go func() { _, _ = server.Write([]byte("an answer")) }()
	got := make([]byte, 9)
	if _, err := io.ReadFull(tool, got); err != nil || string(got) != "an answer" {
		t.Errorf("the tool got %q, %v", got, err)
	}
	if err := r.err(); err != nil {
		t.Error(err)
	}
	r.close()
	r.close()
	if _, err := os.Stat(r.folder); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is left: %v", err)
	}
	if _, err := tool.Read(got); err == nil {
		t.Error("the tool's session is open")
	}
}

func TestRelayEndsASessionThatWouldLeaveTheSnapshot(t *testing.T) {
	r, tool, server := relayed(t, inSnapshot)
	go func() { _, _ = tool.Write(query("COMMIT")) }()
	rest, err := io.ReadAll(server)
	if len(rest) != 0 || err != nil {
		t.Errorf("the server got %q, %v", rest, err)
	}
	if err := r.err(); err == nil || !strings.Contains(err.Error(), "COMMIT") {
		t.Errorf("the relay says %v", err)
	}
}

func TestRelayWithoutASession(t *testing.T) {
	t.Setenv("TMPDIR", "/tmp/"+strings.Repeat("x", maxSocketPath)) // too long for a socket: another place is taken
	ctx, cancel := context.WithCancel(t.Context())
	r, err := startRelay(ctx, nil, func(context.Context) (*pgconn.HijackedConn, error) { return nil, errors.New("no more sessions") }, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	tool, err := net.Dial("unix", filepath.Join(r.folder, ".s.PGSQL.5432"))
	if err != nil {
		t.Fatal(err)
	}
	defer tool.Close() //nolint:errcheck // a test's
	if _, err := tool.Write([]byte{0, 0, 0, 8, 0, 3, 0, 0}); err != nil {
		t.Fatal(err)
	}
	if m := messageOf(t, tool); m[0] != 'E' || !bytes.Contains(m, []byte("no more sessions")) {
		t.Errorf("the tool got %q", m)
	}
	if err := r.err(); err == nil {
		t.Error("the relay does not know why")
	}
	cancel()
	r.wg.Wait() // ends by itself
}

// slow is a connection whose writes take long enough for pgconn to begin reading in the background.
type slow struct{ net.Conn }

func (s slow) Write(b []byte) (int, error) {
	time.Sleep(25 * time.Millisecond) // pgconn waits 15 ms; there is nothing to poll
	return s.Conn.Write(b)
}

// What the server says after the handover is the tool's, also when pgconn still had a read under way.
func TestHandOverLosesNothing(t *testing.T) {
	noLibpq(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // a test's
	servers := make(chan net.Conn, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if ok, err := greet(c); !ok || err != nil {
				return
			}
			_ = send(c, &pgproto3.AuthenticationOk{}, &pgproto3.BackendKeyData{SecretKey: []byte{1, 2, 3, 4}}, &pgproto3.ReadyForQuery{TxStatus: 'I'})
			if m, err := message(c); err != nil || m[0] != 'Q' {
				return
			}
			// A notice after the answer: it may meet the reader of either side.
			_ = send(c, &pgproto3.CommandComplete{CommandTag: []byte("SET")}, &pgproto3.ReadyForQuery{TxStatus: 'I'}, &pgproto3.NoticeResponse{Message: "by the way"})
			servers <- c
		}
	}()
	s := Settings{Host: "127.0.0.1", Port: int64(l.Addr().(*net.TCPAddr).Port), Username: "u", SSLMode: "disable"} //nolint:forcetypeassert // it is
	config, err := s.config("d")
	if err != nil {
		t.Fatal(err)
	}
	dial := config.DialFunc
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		return slow{c}, err
	}
	for range 5 {
		c, err := pgconn.ConnectConfig(t.Context(), &config.Config)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Exec(t.Context(), "SET x = 1").Close(); err != nil {
			t.Fatal(err)
		}
		h, err := handOver(c)
		if err != nil {
			t.Fatal(err)
		}
		server := <-servers
		if _, err := server.Write([]byte("for the tool")); err != nil {
			t.Fatal(err)
		}
		_ = server.Close()
		if got, err := io.ReadAll(h.Conn); err != nil || !strings.HasSuffix(string(got), "for the tool") {
			t.Errorf("the tool got %q, %v", got, err)
		}
		_ = h.Conn.Close()
	}
}

func TestDialectQuotes(t *testing.T) {
	got := []string{Dialect{}.Table(`a"b`, "c d"), Dialect{}.Column(`x"`), Dialect{}.Placeholder(3), literal("it's")}
	if want := []string{`"a""b"."c d"`, `"x"""`, "$3", "'it''s'"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
