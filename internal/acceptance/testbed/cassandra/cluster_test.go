//go:build acceptance

package cassandra

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	gocql "github.com/apache/cassandra-gocql-driver/v2"
)

// timed logs how long something took.
func timed(t *testing.T, what string, f func()) {
	t.Helper()
	start := time.Now()
	f()
	t.Logf("%s: %.1f s", what, time.Since(start).Seconds())
}

func rows(t *testing.T, s *gocql.Session, consistency gocql.Consistency) int {
	t.Helper()
	var n int
	if err := s.Query("SELECT count(*) FROM bed.items").Consistency(consistency).Scan(&n); err != nil {
		t.Fatalf("counting with consistency %s: %v", consistency, err)
	}
	return n
}

func cql(t *testing.T, s *gocql.Session, statement string, values ...any) {
	t.Helper()
	if err := s.Query(statement, values...).Exec(); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// The bed itself: three nodes replicate, one may be killed, suspended and started again, all may be stopped, wiped and started.
func TestCluster(t *testing.T) {
	var c *Cluster
	timed(t, "starting three nodes", func() { c = Start(t, Options{}) })
	s := c.Session(t)
	cql(t, s, "CREATE KEYSPACE bed WITH replication = {'class': 'NetworkTopologyStrategy', 'dc1': 3}")
	cql(t, s, "CREATE TABLE bed.items (id int PRIMARY KEY, v text)")
	const many = 300
	timed(t, fmt.Sprintf("writing %d rows one by one with consistency ALL", many), func() {
		for i := range many {
			if err := s.Query("INSERT INTO bed.items (id, v) VALUES (?, ?)", i, "x").Consistency(gocql.All).Exec(); err != nil {
				t.Fatal(err)
			}
		}
	})

	timed(t, "nodetool snapshot", func() {
		if _, err := c.Nodes[1].Nodetool(t.Context(), "snapshot", "-t", "first", "--", "bed"); err != nil {
			t.Fatal(err)
		}
	})
	tables, _ := filepath.Glob(filepath.Join(c.Nodes[1].DataDir(), "bed", "items-*", "snapshots", "first", "*-Data.db"))
	if len(tables) == 0 {
		t.Error("no data in the snapshot")
	}
	if _, err := c.Nodes[1].Nodetool(t.Context(), "snapshot", "-t", "first", "--", "bed"); err == nil || !strings.Contains(err.Error(), "already exists") {
		t.Errorf("the second snapshot of that name: %v", err)
	}
	if out, err := c.Nodes[2].Nodetool(t.Context(), "status"); err != nil || strings.Count(out, "\nUN ") != 3 {
		t.Errorf("status: %v\n%s", err, out)
	}

	// As by somebody who administers the nodes: by commands over SSH.
	ssh := c.StartSSH(t)
	if out, err := client(t, "ssh", append(ssh.ClientArguments(), c.Nodes[0].Address, "nodetool info")...); err != nil || !strings.Contains(out, ": "+c.Nodes[0].Rack+"\n") {
		t.Errorf("nodetool over SSH: %v: %s", err, out)
	}
	c.Nodes[2].Kill(t)
	if c.Nodes[2].Running() {
		t.Error("a killed node runs")
	}
	cql(t, s, "INSERT INTO bed.items (id, v) VALUES (?, ?)", many, "while one was down")
	timed(t, "starting the killed node over SSH", func() {
		if out, err := client(t, "ssh", append(ssh.ClientArguments(), c.Nodes[2].Address, c.Nodes[2].StartScript())...); err != nil || out != "" {
			t.Errorf("starting: %v: %s", err, out)
		}
	})
	timed(t, "until it answers", func() { c.Nodes[2].WaitUp(t) })
	timed(t, "until all see it", func() { c.WaitUp(t) })
	if n := rows(t, s, gocql.All); n != many+1 {
		t.Errorf("%d rows, want %d", n, many+1)
	}

	c.Nodes[0].Suspend(t)
	one := c.Nodes[1].Session(t)
	// By two of three; a write asks all of them at once.
	if err := one.Query("INSERT INTO bed.items (id, v) VALUES (?, ?)", many+1, "while one hung").Consistency(gocql.Quorum).Exec(); err != nil {
		t.Errorf("writing beside a suspended node: %v", err)
	}
	if err := one.Query("INSERT INTO bed.items (id, v) VALUES (?, ?)", many+1, "while one hung").Consistency(gocql.All).Exec(); err == nil {
		t.Error("a suspended node wrote")
	}
	c.Nodes[0].Resume(t)
	timed(t, "until all see a resumed node", func() { c.WaitUp(t) })

	before := map[*Node]int{}
	for _, n := range c.Nodes {
		before[n] = n.PID()
	}
	s.Close()
	if out, err := client(t, "ssh", append(ssh.ClientArguments(), c.Nodes[2].Address, c.Nodes[2].StopScript())...); err != nil || out != "" || c.Nodes[2].Running() {
		t.Errorf("stopping over SSH: %v: %s", err, out)
	}
	timed(t, "stopping the other two nodes", func() { c.StopAll(t) })
	c.WipeAll(t)
	timed(t, "starting three empty nodes", func() { c.StartAll(t) })
	for _, n := range c.Nodes {
		if n.PID() == before[n] {
			t.Errorf("node %s is the old process", n.Address)
		}
	}
	var keyspaces int
	if err := c.Session(t).Query("SELECT count(*) FROM system_schema.keyspaces WHERE keyspace_name = 'bed'").Scan(&keyspaces); err != nil || keyspaces != 0 {
		t.Errorf("%d keyspaces of that name after all was wiped: %v", keyspaces, err)
	}
}

// A node is detached when its StartScript returns, however slow the machine is: it stays when whoever ran that ends all that is left of it.
func TestStartedNodeIsDetached(t *testing.T) {
	n := Prepare(t, Options{Nodes: 1}).Nodes[0]
	setsid, err := exec.LookPath("setsid")
	if err != nil {
		t.Fatal(err)
	}
	slow := t.TempDir()
	if err := os.WriteFile(filepath.Join(slow, "setsid"), []byte("#!/bin/bash\nsleep 1\nexec "+setsid+" \"$@\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	start := exec.CommandContext(t.Context(), n.StartScript())
	start.Env = []string{"PATH=" + slow + ":" + os.Getenv("PATH")}
	start.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if out, err := start.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := syscall.Kill(-start.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		t.Fatal(err)
	}
	n.WaitUp(t)
}

// A node that cannot start says why, at once.
func TestFailedStart(t *testing.T) {
	c := Prepare(t, Options{Nodes: 1, Settings: map[string]string{"commitlog_sync": "never"}})
	start := time.Now()
	err := c.startAll()
	if err == nil || !strings.Contains(err.Error(), "has ended") || !strings.Contains(err.Error(), "commitlog_sync") {
		t.Errorf("starting a node with a bad configuration: %v", err)
	}
	if took := time.Since(start); took > time.Minute {
		t.Errorf("it took %s to notice", took)
	}
}

// A test that is killed leaves neither nodes nor files behind, whoever started them. The test runs itself, for somebody to kill.
func TestKilled(t *testing.T) {
	if os.Getenv("TESTBED_CASSANDRA_VICTIM") != "" {
		c := Prepare(t, Options{Nodes: 1})
		if err := c.Nodes[0].start(); err != nil {
			t.Fatal(err)
		}
		c.Nodes[0].Suspend(t) // so that it does not end by itself, when its files are gone
		fmt.Printf("%d %s\n", c.Nodes[0].PID(), c.Dir)
		select {}
	}
	victim := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilled$")
	victim.Env = append(os.Environ(), "TESTBED_CASSANDRA_VICTIM=1")
	out, err := victim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	var dir string
	_, err = fmt.Fscan(out, &pid, &dir)
	_ = victim.Process.Kill()
	if err != nil || pid == 0 {
		t.Fatalf("process %d in %s: %v", pid, dir, err)
	}
	_ = victim.Wait()
	for deadline := time.Now().Add(time.Minute); ; <-time.After(20 * time.Millisecond) {
		_, err := os.Stat(dir)
		if os.IsNotExist(err) && !isThere(pid) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d or %s is still there", pid, dir)
		}
	}
}

// isThere tells whether a process is there, other than as a zombie.
func isThere(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && len(text) > 0
}

// Every kind of login and encryption, over CQL and JMX, on 5.0.
func TestSecured(t *testing.T) {
	var c *Cluster
	timed(t, "starting one node with passwords and TLS", func() {
		c = Start(t, Options{Nodes: 1, Password: true, TLS: true, JMX: JMX{Password: true, TLS: true, ClientCert: true}, Jolokia: true, DataDirs: 2})
	})
	n := c.Nodes[0]
	var name string
	if err := c.Session(t).Query("SELECT cluster_name FROM system.local").Scan(&name); err != nil || name != c.Options.Name {
		t.Errorf("the cluster is %q: %v", name, err)
	}
	open := *c
	open.Options.Password = false
	if s, err := open.config(n.Address).CreateSession(); err == nil {
		s.Close()
		t.Error("CQL without a password")
	}
	open = *c
	open.Options.TLS = false
	if s, err := open.config(n.Address).CreateSession(); err == nil {
		s.Close()
		t.Error("CQL without TLS")
	}
	if out, err := n.Nodetool(t.Context(), "info"); err != nil || !strings.Contains(out, "Native Transport active: true") {
		t.Errorf("nodetool: %v: %s", err, out)
	}
	at := []string{"-h", n.JMXHost, "-p", fmt.Sprint(n.JMXPort), "info"}
	password := filepath.Join(c.Dir, "conf", "jmxremote.own")
	trust := c.TLS.clientProperties()[:2]
	for what, args := range map[string][]string{
		"without TLS":           append([]string{"-u", JMXUser, "-pwf", password}, at...),
		"without a certificate": append(append([]string{"--ssl", "-u", JMXUser, "-pwf", password}, trust...), at...),
		"without a password":    append(append([]string{"--ssl"}, c.TLS.clientProperties()...), at...),
	} {
		if out, err := c.nodetool(t.Context(), args); err == nil {
			t.Errorf("nodetool %s: %s", what, out)
		}
	}
	reader := append(append([]string{"--ssl", "-u", JMXReader, "-pw", c.JMXPassword}, c.TLS.clientProperties()...), at[:4]...)
	if _, err := c.nodetool(t.Context(), append(reader, "snapshot")); err == nil || !strings.Contains(err.Error(), "Access denied") {
		t.Errorf("a snapshot by who may only read: %v", err)
	}
	response, err := http.Get(fmt.Sprintf("http://%s:%d/jolokia/version", n.Address, n.JolokiaPort)) //nolint:noctx // on this machine
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("Jolokia: %s", response.Status)
	}
	for _, dir := range n.DataDirs() {
		if tables, err := os.ReadDir(dir); err != nil || len(tables) == 0 {
			t.Errorf("%d folders in %s: %v", len(tables), dir, err)
		}
	}
	c.StopAll(t)
	c.Reconfigure(t, func(o *Options) { o.Password, o.TLS, o.JMX = false, false, JMX{} })
	c.StartAll(t)
	if _, err := n.Nodetool(t.Context(), "status"); err != nil {
		t.Errorf("without all of it: %v", err)
	}
}

// The same with 4.1, and with JMX as the packages have it: for local clients, with a second, random port.
func Test41(t *testing.T) {
	var c *Cluster
	timed(t, "starting one node of 4.1", func() { c = Start(t, Options{Version: Version41, Nodes: 1, JMX: JMX{Local: true}}) })
	n := c.Nodes[0]
	var version string
	if err := n.Session(t).Query("SELECT release_version FROM system.local").Scan(&version); err != nil || version != Version41 {
		t.Errorf("version %s: %v", version, err)
	}
	timed(t, "nodetool snapshot", func() {
		if _, err := n.Nodetool(t.Context(), "snapshot", "-t", "old"); err != nil {
			t.Error(err)
		}
	})
	if listens("127.0.0.1", n.JMXPort) == nil || listens(n.Address, jmxPort) != nil {
		t.Error("JMX is not on 127.0.0.1 alone")
	}
}
