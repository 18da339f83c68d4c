// Package scalardb starts a real Scalar DB server over given databases, and a bank: a Java application that writes through that server,
// embeds Scalar DB to read a restored copy, or writes past the server as no application should.
package scalardb

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/admin/adminpb"
)

// System is a running server with its bank.
type System struct {
	Config Config // with its defaults filled in
	Addr   string // "127.0.0.1:PORT" of the server; the same after a restart
	Bank   *Bank  // an application of the server; its accounts exist, its writers don't run yet

	dir    string
	port   int
	server *process
}

// Limits of what starts a Java machine, which takes 2 to 7 s on an idle machine.
const (
	startLimit  = 2 * time.Minute
	schemaLimit = 3 * time.Minute
)

// Start makes the tables, starts the server on a free port of the loopback interface, and opens the accounts.
// All of it is gone when the test ends; the databases are the caller's.
func Start(t testing.TB, c Config) *System {
	t.Helper()
	s := &System{Config: c.withDefaults(), dir: t.TempDir()}
	s.loadSchema(t)
	// A port that is free now may be taken when the server gets to it.
	for attempt := 1; s.server == nil; attempt++ {
		s.port = freePort(t)
		s.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port))
		if err := s.start(t); err != nil && attempt == 3 {
			t.Fatal(err)
		}
	}
	s.Bank = openBank(t, s.dir, "bank", s.Config, map[string]string{
		"scalar.db.transaction_manager": "grpc",
		"scalar.db.contact_points":      "127.0.0.1",
		"scalar.db.contact_port":        strconv.Itoa(s.port),
	})
	s.Bank.ask(t, "load")
	return s
}

func (s *System) loadSchema(t testing.TB) {
	t.Helper()
	schema := filepath.Join(s.dir, "schema.json")
	if err := os.WriteFile(schema, s.Config.schema(t), 0o600); err != nil {
		t.Fatal(err)
	}
	config := WriteProperties(t, s.dir, "schema.properties", s.Config.embedded())
	p := java(t, s.dir, "schema", "com.scalar.db.schemaloader.SchemaLoader",
		append([]string{"--config", config, "--schema-file", schema, "--coordinator"}, s.Config.SchemaArguments...)...)
	p.wait(t, "making the tables of Scalar DB", schemaLimit)
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Fatalf("making the tables of Scalar DB: exit code %d\n%s", code, p.output())
	}
}

// start starts the server and waits until it answers.
func (s *System) start(t testing.TB) error {
	t.Helper()
	properties := s.Config.embedded()
	properties["scalar.db.server.port"] = strconv.Itoa(s.port)
	properties["scalar.db.server.prometheus_exporter_port"] = "-1" // none: it would listen on every address
	properties["scalar.db.server.decommissioning_duration_secs"] = "0"
	p := java(t, s.dir, "server", "testbed.Server",
		"--properties", WriteProperties(t, s.dir, "server.properties", properties))
	ctx, cancel := context.WithTimeout(t.Context(), startLimit)
	defer cancel()
	conn := dial(t, s.Addr)
	defer conn.Close()
	for {
		_, err := adminpb.NewAdminClient(conn).CheckPaused(ctx, &emptypb.Empty{}, grpc.WaitForReady(false))
		if err == nil {
			s.server = p
			return nil
		}
		select {
		case <-p.exited:
			return fmt.Errorf("starting the Scalar DB server: it ended\n%s", p.output())
		case <-ctx.Done():
			p.kill()
			return fmt.Errorf("starting the Scalar DB server: no answer within %s: %w\n%s", startLimit, err, p.output())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Kill ends the server with SIGKILL: a crash.
func (s *System) Kill(t testing.TB) { t.Helper(); s.server.kill() }

// Stop ends the server with SIGTERM, as an orderly shutdown does.
func (s *System) Stop(t testing.TB) {
	t.Helper()
	if err := s.server.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	s.server.wait(t, "stopping the Scalar DB server", startLimit)
}

// Restart starts the server again on its old port, after Kill or Stop.
func (s *System) Restart(t testing.TB) {
	t.Helper()
	if err := s.start(t); err != nil {
		t.Fatal(err)
	}
}

// Suspend makes the server hang (SIGSTOP) until Resume: it neither answers nor closes its connections.
func (s *System) Suspend(t testing.TB) { t.Helper(); s.signal(t, syscall.SIGSTOP) }

// Resume lets a suspended server go on.
func (s *System) Resume(t testing.TB) { t.Helper(); s.signal(t, syscall.SIGCONT) }

func (s *System) signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if err := s.server.cmd.Process.Signal(sig); err != nil {
		t.Fatalf("sending %s to the Scalar DB server: %v", sig, err)
	}
}

// ServerLog is the end of the server's log, for messages.
func (s *System) ServerLog() string { return s.server.output() }

// Admin is the server's admin API, without anything of the provider in between.
func (s *System) Admin(t testing.TB) adminpb.AdminClient {
	t.Helper()
	conn := dial(t, s.Addr)
	t.Cleanup(func() { conn.Close() })
	return adminpb.NewAdminClient(conn)
}

// Paused asks the server.
func (s *System) Paused(t testing.TB) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	r, err := s.Admin(t).CheckPaused(ctx, &emptypb.Empty{})
	if err != nil {
		t.Fatalf("asking the Scalar DB server whether it is paused: %v", err)
	}
	return r.GetPaused()
}

// Past is an application that embeds Scalar DB over the system's own databases: no pause of the server stops it.
func (s *System) Past(t testing.TB) *Bank {
	t.Helper()
	return openBank(t, t.TempDir(), "past", s.Config, s.Config.embedded())
}

// Open is an application that embeds Scalar DB over other databases that hold the same bank, such as a restored copy.
// The storages have the names and namespaces of those that they stand for.
func Open(t testing.TB, c Config, storages ...Storage) *Bank {
	t.Helper()
	c = c.withDefaults()
	c.Storages = storages
	return openBank(t, t.TempDir(), "copy", c, c.embedded())
}

// Read reads a restored copy as an application would: the number of its accounts, and their sum.
func Read(t testing.TB, c Config, storages ...Storage) (rows int, sum int64) {
	t.Helper()
	b := Open(t, c, storages...)
	defer b.Close()
	return b.Sum(t)
}

// ReadBy is Read by the properties of an application's own: such as the provider's scalardb_properties, with credentials added.
func ReadBy(t testing.TB, c Config, properties map[string]string) (rows int, sum int64) {
	t.Helper()
	all := map[string]string{}
	for name, value := range c.embedded() {
		if strings.HasPrefix(name, "scalar.db.transaction_manager") || strings.HasPrefix(name, "scalar.db.consensus_commit.") {
			all[name] = value
		}
	}
	maps.Copy(all, properties)
	b := openBank(t, t.TempDir(), "copy", c.withDefaults(), all)
	defer b.Close()
	return b.Sum(t)
}

func dial(t testing.TB, addr string) *grpc.ClientConn {
	t.Helper()
	// Passthrough and no proxy: exactly this address. A short back-off, since the server is being waited for.
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		}), grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Second}))
	if err != nil {
		t.Fatal(err)
	}
	return conn
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
