package cassandra

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// jmxProperties say how its virtual machine offers JMX.
func (n *Node) jmxProperties(conf string) []string {
	jmx := n.cluster.Options.JMX
	host := first(jmx.StubHost, n.JMXHost)
	if jmx.Local {
		return []string{"-Dcassandra.jmx.local.port=" + strconv.Itoa(n.JMXPort), "-Djava.rmi.server.hostname=" + host}
	}
	const remote = "-Dcom.sun.management.jmxremote."
	port := strconv.Itoa(n.JMXPort)
	args := []string{
		remote + "host=" + n.JMXHost, remote + "port=" + port, remote + "rmi.port=" + port, "-Djava.rmi.server.hostname=" + host,
		remote + "authenticate=" + strconv.FormatBool(jmx.Password), remote + "ssl=" + strconv.FormatBool(jmx.TLS),
	}
	if jmx.Password {
		args = append(args, remote+"password.file="+filepath.Join(conf, "jmxremote.password"), remote+"access.file="+filepath.Join(conf, "jmxremote.access"))
	}
	if jmx.TLS {
		args = append(args, remote+"registry.ssl=true", remote+"ssl.config.file="+filepath.Join(conf, "jmxremote.ssl"),
			remote+"ssl.need.client.auth="+strconv.FormatBool(jmx.ClientCert))
	}
	return args
}

// jmxArguments are nodetool's to reach it as the user who may do everything.
func (n *Node) jmxArguments() []string {
	c := n.cluster
	var args []string
	if c.Options.JMX.TLS {
		args = append(args, c.TLS.clientProperties()...)
		args = append(args, "--ssl")
	}
	if c.Options.JMX.Password {
		args = append(args, "-u", JMXUser, "-pwf", filepath.Join(c.Dir, "conf", "jmxremote.own"))
	}
	return append(args, "-h", n.JMXHost, "-p", strconv.Itoa(n.JMXPort))
}

// NodetoolPath is the executable in BinDir.
func (c *Cluster) NodetoolPath() string { return filepath.Join(c.BinDir, "nodetool") }

// nodetoolLimit is how long nodetool may take.
const nodetoolLimit = 5 * time.Minute

func (c *Cluster) nodetool(ctx context.Context, args []string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, nodetoolLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.NodetoolPath(), args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("running nodetool %s: %w: %s%s", strings.Join(args, " "), err, &out, &said)
	}
	return out.String(), nil
}

// ShippedNodetool writes an executable nodetool as Cassandra ships it, as far as its time goes: the jars of Maven have no scripts. It is for measurements: that in BinDir
// starts faster here, so that tests take less time. What the shipped one (5.0: bin/nodetool, bin/cassandra.in.sh, conf/jvm17-clients.options) does of
// this: it asks Java for its version first, which starts a virtual machine more, and then starts one with jamm's agent and assertions, 128 MB, both compilers,
// no archive of classes of its own, and the collector that Java chooses. Not done is what its shell scripts compute with some ten small programs, so this is a
// little faster than the shipped one.
func (c *Cluster) ShippedNodetool(t testing.TB) (path string) {
	t.Helper()
	classPath, err := c.classPath()
	if err != nil {
		t.Fatal(err)
	}
	agent, err := filepath.Glob(filepath.Join(c.lib, "jamm-*.jar"))
	if err != nil || len(agent) != 1 {
		t.Fatalf("looking for the one jar of jamm in %s: there are %d (%v)", c.lib, len(agent), err)
	}
	script := c.nodetoolWith(quote(c.java)+" -version >/dev/null 2>&1\nexec "+quote(c.java)+" "+quote("-javaagent:"+agent[0])+" -ea -Xmx128m -XX:ParallelGCThreads=1", classPath)
	path = filepath.Join(c.BinDir, "nodetool-as-shipped")
	w := writer{}
	if w.file(path, 0o700, script); w.err != nil {
		t.Fatal(w.err)
	}
	return path
}

// nodetoolScript takes options of the virtual machine among the arguments, as the packaged nodetool does.
func (c *Cluster) nodetoolScript(classPath string) string {
	archive := ""
	if c.tools != "" {
		archive = quote("-XX:SharedArchiveFile=" + c.tools)
	}
	return c.nodetoolWith("exec "+quote(c.java)+" "+archive+" -Xmx64m -XX:+UseSerialGC -XX:TieredStopAtLevel=1", classPath)
}

// nodetoolWith is a script that starts Java in that way.
func (c *Cluster) nodetoolWith(start, classPath string) string {
	conf := filepath.Join(c.Dir, "conf")
	var nodes strings.Builder
	for i, n := range c.Nodes {
		pattern := n.Address
		if i == 0 {
			pattern += " | ''"
		}
		fmt.Fprintf(&nodes, "\t%s) set -- -h %s -p %d \"${args[@]}\" ;;\n", pattern, n.JMXHost, n.JMXPort)
	}
	return `#!/bin/bash
# nodetool [-Dname=value]... [--ssl] [-h HOST -p PORT] [-u USER -pw PASSWORD] COMMAND...
set -eu
jvm=() args=() host=
for arg in "$@"; do
	case $arg in
	-D*) jvm+=("$arg") ;;
	--ssl) jvm+=(-Dssl.enable=true) ;;
	*) args+=("$arg") ;;
	esac
	case $arg in -h | --host | --host=*) host=given ;; esac
done
# On a node's own machine it asks that node.
read -r _ _ here _ <<<"${SSH_CONNECTION:-}"
[[ $host ]] || host=${CASSANDRA_HOST:-$here}
case $host in
given) set -- "${args[@]}" ;;
` + nodes.String() + `	*) echo "nodetool: no node has the address $host: name one with -h" >&2; exit 1 ;;
esac
` + start + " " + quote("@"+filepath.Join(conf, "jvm17.args")) + ` \
	` + quote("-Dlogback.configurationFile=file://"+filepath.Join(conf, "logback-tools.xml")) + " " + quote("-Dcassandra.storagedir="+filepath.Join(c.Dir, "tmp")) + ` \
	` + quote("-Djava.io.tmpdir="+filepath.Join(c.Dir, "tmp")) + ` "${jvm[@]}" -cp ` + quote(classPath) + ` org.apache.cassandra.tools.NodeTool "$@"
`
}
