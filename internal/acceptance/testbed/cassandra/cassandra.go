// Package cassandra starts private clusters of real Apache Cassandra for tests, from the jars that setup.sh fetches, and an SSH server that stands
// for those of the nodes' machines.
//
// Each node has a loopback address of its own, and the usual ports on it, as on machines of their own. The addresses are another random block for
// each cluster, so several may be up at once. A cluster is gone, with its data, when the test ends, also when the test's process is killed.
package cassandra

import (
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// The versions that setup.sh fetches.
const (
	Version50 = "5.0.9"
	Version41 = "4.1.10"
	Version40 = "4.0.18"
)

// The ports of a node, on its own address.
const (
	storagePort = 7000
	cqlPort     = 9042
	jmxPort     = 7199
	jolokiaPort = 8778
)

// Options of a cluster; the zero value is three nodes of 5.0 without passwords, in one datacenter, each in a rack of its own.
type Options struct {
	Version       string // Version50 when empty, or Version41, or Version40
	Name          string // the cluster's name; a random one when empty
	Nodes         int    // 3 when zero
	TokensPerNode int    // 4 when zero; the tokens are the same for every cluster of that shape
	Heap          string // of each node; "256m" when empty, with which it takes about 600 MB of memory
	CommitlogSync string // "batch" when empty, as ScalarDB demands; or "group" or "periodic"
	DataDirs      int    // folders for data in each node; 1 when zero
	// Bootstrap leaves the tokens out of the configuration and lets nodes join by themselves, slowly and one after the other.
	Bootstrap bool
	// Password demands the login of Superuser over CQL. It takes some seconds more to start.
	Password bool
	// TLS encrypts CQL, with the certificates of Cluster.TLS.
	TLS     bool
	JMX     JMX
	Jolokia bool // run the Jolokia agent in each node, on Node.JolokiaPort
	// Settings are further lines of cassandra.yaml, and replace those that are there: {"auto_snapshot": "false"}. An empty value is the server's default:
	// {"initial_token": ""} for nodes that find their tokens in restored data.
	Settings map[string]string
	// JVM are further options of the nodes' virtual machines.
	JVM []string
}

// JMX says how the nodes offer JMX. The zero value is without password and TLS, with everything on Node.JMXPort.
type JMX struct {
	// Password demands a user: JMXUser may do everything, JMXReader only read. Their passwords are in Cluster.
	Password bool
	// TLS encrypts it, with the certificates of Cluster.TLS; the registry as well. ClientCert demands a certificate of the client.
	TLS, ClientCert bool
	// Local is Cassandra's packaged default: on 127.0.0.1 only, at a port of the node's own, with objects at another, random port.
	// There is neither a password nor TLS with it.
	Local bool
	// StubHost is the host that the stubs name; the node's own address when empty. A wrong one is common in production; nodetool needs a right one.
	StubHost string
}

// The users of passwords: over CQL and over JMX.
const (
	Superuser         = "cassandra"
	SuperuserPassword = "cassandra"
	JMXUser           = "jmxadmin"
	JMXReader         = "jmxreader"
)

// Cluster is a cluster whose nodes run, until they are stopped.
type Cluster struct {
	Options Options // with the defaults filled in
	Dir     string  // everything of it is in here
	Nodes   []*Node
	// JMXPassword is that of JMXUser, and of JMXReader too.
	JMXPassword string
	TLS         *TLS // nil without Options.TLS and Options.JMX.TLS
	// BinDir has an executable nodetool, and can be put on the PATH. Without -h it asks the node whose address an SSH client connected to, or the
	// one in the environment variable CASSANDRA_HOST, or the first. Options -Dname=value may be among its arguments.
	BinDir string

	lib     string // the folder of the jars
	java    string
	archive string // of classes, for a faster start; empty where there is none
	tools   string // likewise, for nodetool
	owner   *reaper
}

// Start starts a cluster and waits until every node sees every other.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	c := Prepare(t, o)
	c.StartAll(t)
	return c
}

// Prepare makes a cluster's folders and configuration, and starts nothing.
func Prepare(t testing.TB, o Options) *Cluster {
	t.Helper()
	c := &Cluster{Options: o.withDefaults(), JMXPassword: rand.Text()}
	c.find(t)
	addresses, err := freeAddresses(c.Options.Nodes)
	if err != nil {
		t.Fatal(err)
	}
	// Not t.TempDir: it would be removed before the last process is gone, and it fails the test when something is left.
	if c.Dir, err = os.MkdirTemp("", "cassandra"); err != nil {
		t.Fatalf("making a folder for Cassandra: %v", err)
	}
	if c.owner, err = startReaper(c.Dir); err != nil {
		t.Fatal(errors.Join(err, os.RemoveAll(c.Dir)))
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range c.Nodes {
				t.Logf("node %s runs: %v; the last warnings and the end of its log:\n%s\n…\n%s", n.Address, n.Running(), n.warnings(40), n.LogTail(20))
			}
		}
		if err := c.owner.end(); err != nil {
			t.Errorf("removing a Cassandra cluster: %v", err)
		}
	})
	tokens := Tokens(c.Options.Nodes, c.Options.TokensPerNode)
	for i, address := range addresses {
		n := &Node{
			Address: address, Rack: "r" + strconv.Itoa(i+1), Tokens: tokens[i],
			CQLPort: cqlPort, JMXHost: address, JMXPort: jmxPort, JolokiaPort: jolokiaPort,
			Dir: filepath.Join(c.Dir, address), cluster: c,
		}
		if c.Options.JMX.Local {
			n.JMXHost = "127.0.0.1"
			if n.JMXPort, err = freePort("127.0.0.1"); err != nil {
				t.Fatal(err)
			}
		}
		c.Nodes = append(c.Nodes, n)
	}
	if err := c.configure(); err != nil {
		t.Fatalf("configuring Cassandra: %v", err)
	}
	return c
}

func (o Options) withDefaults() Options {
	o.Version = first(o.Version, Version50)
	o.Name = first(o.Name, "cluster_"+strings.ToLower(rand.Text()[:8]))
	o.Heap = first(o.Heap, "256m")
	o.CommitlogSync = first(o.CommitlogSync, "batch")
	o.Nodes = first(o.Nodes, 3)
	o.TokensPerNode = first(o.TokensPerNode, 4)
	o.DataDirs = first(o.DataDirs, 1)
	o.Settings = maps.Clone(o.Settings)
	return o
}

func first[T comparable](given, otherwise T) T {
	var zero T
	if given != zero {
		return given
	}
	return otherwise
}

// Reconfigure writes the configuration of all nodes anew, with changed options. They have to be stopped. Their number, their addresses and their version
// stay.
func (c *Cluster) Reconfigure(t testing.TB, change func(*Options)) {
	t.Helper()
	for _, n := range c.Nodes {
		if n.Running() {
			t.Fatalf("configuring Cassandra: node %s runs", n.Address)
		}
	}
	before := c.Options
	change(&c.Options)
	if c.Options.Nodes != before.Nodes || c.Options.Version != before.Version || c.Options.JMX.Local != before.JMX.Local {
		t.Fatal("configuring Cassandra: the number of nodes, the version and JMX.Local cannot be changed")
	}
	if err := c.configure(); err != nil {
		t.Fatalf("configuring Cassandra: %v", err)
	}
}

// ContactPoints are the addresses of all nodes.
func (c *Cluster) ContactPoints() []string {
	var all []string
	for _, n := range c.Nodes {
		all = append(all, n.Address)
	}
	return all
}

// each calls f for several nodes at once.
func each(nodes []*Node, f func(*Node) error) error {
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() { errs[i] = f(n) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// StartAll starts the nodes that don't run, all at once, and waits until every node sees every other.
func (c *Cluster) StartAll(t testing.TB) {
	t.Helper()
	if err := c.startAll(); err != nil {
		t.Fatal(err)
	}
}

func (c *Cluster) startAll() error {
	if c.Options.Bootstrap {
		for i, n := range c.Nodes {
			if err := errors.Join(n.start(), waitUp(c.Nodes[:i+1])); err != nil {
				return err
			}
		}
		return nil
	}
	if err := each(c.Nodes, (*Node).start); err != nil {
		return err
	}
	return waitUp(c.Nodes)
}

// WaitUp waits until every node answers over CQL and sees all the others.
func (c *Cluster) WaitUp(t testing.TB) {
	t.Helper()
	if err := waitUp(c.Nodes); err != nil {
		t.Fatal(err)
	}
}

// StopAll stops the nodes that run, all at once, as `systemctl stop` does.
func (c *Cluster) StopAll(t testing.TB) {
	t.Helper()
	if err := each(c.Nodes, (*Node).stop); err != nil {
		t.Fatal(err)
	}
}

// WipeAll removes the data, the commitlog, the hints and the caches of all nodes, which have to be stopped. The configuration and the logs stay.
func (c *Cluster) WipeAll(t testing.TB) {
	t.Helper()
	for _, n := range c.Nodes {
		n.Wipe(t)
	}
}

// Tokens are those of each node, evenly interleaved.
func Tokens(nodes, perNode int) [][]string {
	all := make([][]string, nodes)
	total := nodes * perNode
	lowest := new(big.Int).Neg(new(big.Int).Lsh(big.NewInt(1), 63))
	for i := range total {
		token := new(big.Int).Lsh(big.NewInt(int64(i)), 64)
		token.Div(token, big.NewInt(int64(total))).Add(token, lowest).Add(token, big.NewInt(1)) // the lowest of all is none
		all[i%nodes] = append(all[i%nodes], token.String())
	}
	return all
}

// freeAddresses are neighbours in the loopback network, on whose ports nobody listens.
func freeAddresses(n int) ([]string, error) {
	for range 20 {
		random := make([]byte, 2)
		_, _ = rand.Read(random) // never fails
		block := fmt.Sprintf("127.%d.%d.", 16+int(random[0])%224, random[1])
		var addresses []string
		free := true
		for i := range n {
			address := block + strconv.Itoa(i+1)
			for _, port := range []int{storagePort, cqlPort, jmxPort, jolokiaPort} {
				free = free && listens(address, port) == nil
			}
			addresses = append(addresses, address)
		}
		if free {
			return addresses, nil
		}
	}
	return nil, fmt.Errorf("no %d neighbouring loopback addresses with free ports", n)
}

// listens tells whether one can listen there.
func listens(address string, port int) error {
	l, err := net.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(port)))
	if err != nil {
		return err
	}
	return l.Close()
}

func freePort(address string) (int, error) {
	l, err := net.Listen("tcp", address+":0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}
