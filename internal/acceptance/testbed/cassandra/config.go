package cassandra

import (
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed"
)

// setup.sh uses them too, for the archive of classes.
var (
	//go:embed jvm17.args
	jvmArguments []byte
	//go:embed logback.xml
	logback []byte
	//go:embed logback-tools.xml
	logbackTools []byte
)

// find looks for what setup.sh made.
func (c *Cluster) find(t testing.TB) {
	t.Helper()
	folder := map[string]string{Version50: "cassandra", Version41: "cassandra41", Version40: "cassandra40"}[c.Options.Version]
	if folder == "" {
		t.Fatalf("no jars of Cassandra %s: only of %s, %s and %s", c.Options.Version, Version50, Version41, Version40)
	}
	var err error
	if c.java, err = exec.LookPath("java"); err != nil {
		t.Fatalf("looking for Java: %v: %s", err, testbed.Hint)
	}
	// Not through the link: an archive is of the jars at the path that setup.sh named.
	link := testbed.Cached(t, folder, "lib")
	target, err := os.Readlink(link)
	if err != nil {
		t.Fatalf("looking for the jars of Cassandra: %v: %s", err, testbed.Hint)
	}
	c.lib = filepath.Join(filepath.Dir(link), target)
	if c.Options.Version == Version50 {
		archive := testbed.Cached(t, folder, "archive")
		c.archive, c.tools = filepath.Join(archive, "node.jsa"), filepath.Join(archive, "nodetool.jsa")
	}
	if c.Options.Jolokia {
		testbed.Cached(t, "cassandra", "jolokia.jar")
	}
}

// classPath names every jar, in the order of their names, as setup.sh does.
func (c *Cluster) classPath() (string, error) {
	jars, err := filepath.Glob(filepath.Join(c.lib, "*.jar"))
	if err != nil || len(jars) == 0 {
		return "", errors.Join(fmt.Errorf("no jars in %s", c.lib), err)
	}
	slices.Sort(jars)
	return strings.Join(jars, string(os.PathListSeparator)), nil
}

// configure writes everything that a node is started with.
func (c *Cluster) configure() error {
	if (c.Options.TLS || c.Options.JMX.TLS) && c.TLS == nil {
		var err error
		if c.TLS, err = makeTLS(filepath.Join(c.Dir, "tls"), c.ContactPoints()); err != nil {
			return err
		}
	}
	classPath, err := c.classPath()
	if err != nil {
		return err
	}
	c.BinDir = filepath.Join(c.Dir, "bin")
	conf := filepath.Join(c.Dir, "conf")
	w := writer{}
	w.file(filepath.Join(conf, "jvm17.args"), 0o600, string(jvmArguments))
	w.file(filepath.Join(conf, "logback.xml"), 0o600, string(logback))
	w.file(filepath.Join(conf, "logback-tools.xml"), 0o600, string(logbackTools))
	// Cassandra warns about a password file that others can read; the virtual machine refuses it.
	w.file(filepath.Join(conf, "jmxremote.password"), 0o600, JMXUser+" "+c.JMXPassword+"\n"+JMXReader+" "+c.JMXPassword+"\n")
	w.file(filepath.Join(conf, "jmxremote.access"), 0o600, JMXUser+" readwrite\n"+JMXReader+" readonly\n")
	w.file(filepath.Join(conf, "jmxremote.own"), 0o600, JMXUser+" "+c.JMXPassword+"\n") // for nodetool -pwf
	if c.TLS != nil {
		w.file(filepath.Join(conf, "jmxremote.ssl"), 0o600, c.TLS.jmxProperties())
	}
	w.folder(filepath.Join(c.Dir, "tmp"))
	w.file(filepath.Join(c.BinDir, "nodetool"), 0o700, c.nodetoolScript(classPath))
	for _, n := range c.Nodes {
		w.file(n.ConfigPath(), 0o600, n.yaml())
		w.file(filepath.Join(n.Dir, "conf", "cassandra-rackdc.properties"), 0o600, "dc=dc1\nrack="+n.Rack+"\n")
		w.folder(filepath.Join(n.Dir, "tmp"))
		w.file(n.StartScript(), 0o700, n.startScript(conf, classPath))
		w.file(n.StopScript(), 0o700, n.stopScript())
	}
	return w.err
}

// writer writes files until the first error.
type writer struct{ err error }

func (w *writer) folder(path string) {
	if w.err == nil {
		w.err = os.MkdirAll(path, 0o700)
	}
}

func (w *writer) file(path string, mode os.FileMode, text string) {
	w.folder(filepath.Dir(path))
	if w.err == nil {
		w.err = os.WriteFile(path, []byte(text), mode)
	}
}

// yaml is its cassandra.yaml.
func (n *Node) yaml() string {
	o := n.cluster.Options
	var seeds []string
	for _, other := range n.cluster.Nodes {
		seeds = append(seeds, other.Address)
	}
	if o.Bootstrap {
		seeds = seeds[:1] // a seed does not bootstrap
	}
	settings := map[string]string{
		"cluster_name":             o.Name,
		"num_tokens":               strconv.Itoa(o.TokensPerNode),
		"partitioner":              "org.apache.cassandra.dht.Murmur3Partitioner",
		"data_file_directories":    "[" + strings.Join(n.DataDirs(), ", ") + "]",
		"commitlog_directory":      n.CommitlogDir(),
		"hints_directory":          n.HintsDir(),
		"saved_caches_directory":   n.SavedCachesDir(),
		"cdc_raw_directory":        filepath.Join(n.Dir, "cdc_raw"),
		"commitlog_sync":           o.CommitlogSync,
		"commitlog_segment_size":   "8MiB",
		"commitlog_total_space":    "256MiB",
		"seed_provider":            `[{class_name: org.apache.cassandra.locator.SimpleSeedProvider, parameters: [{seeds: "` + strings.Join(seeds, ",") + `"}]}]`,
		"listen_address":           n.Address,
		"rpc_address":              n.Address,
		"storage_port":             strconv.Itoa(storagePort),
		"native_transport_port":    strconv.Itoa(n.CQLPort),
		"endpoint_snitch":          "GossipingPropertyFileSnitch",
		"auto_bootstrap":           strconv.FormatBool(o.Bootstrap),
		"memtable_heap_space":      "64MiB",
		"memtable_offheap_space":   "64MiB",
		"file_cache_size":          "32MiB",
		"networking_cache_size":    "16MiB",
		"concurrent_reads":         "8",
		"concurrent_writes":        "8",
		"concurrent_compactors":    "1",
		"authenticator":            "AllowAllAuthenticator",
		"authorizer":               "AllowAllAuthorizer",
		"slow_query_log_timeout":   "0ms",
		"read_request_timeout":     "10s", // a small machine that is busy with other tests
		"range_request_timeout":    "20s",
		"write_request_timeout":    "10s",
		"cas_contention_timeout":   "5s",
		"truncate_request_timeout": "60s",
	}
	if !o.Bootstrap {
		settings["initial_token"] = `"` + strings.Join(n.Tokens, ",") + `"`
	}
	switch o.CommitlogSync {
	case "periodic":
		settings["commitlog_sync_period"] = "10000ms"
	case "group":
		settings["commitlog_sync_group_window"] = "10ms"
	}
	if o.Password {
		settings["authenticator"] = "PasswordAuthenticator"
		settings["authorizer"] = "CassandraAuthorizer"
	}
	if o.TLS {
		settings["client_encryption_options"] = n.cluster.TLS.clientEncryption()
	}
	maps.Copy(settings, o.Settings)
	if o.Version == Version40 {
		settings = before41(settings)
	}
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&b, "%s: %s\n", key, settings[key])
	}
	return b.String()
}

// before41 has the names of settings that 4.1 renamed: their units were in the names.
func before41(settings map[string]string) map[string]string {
	out := map[string]string{}
	for key, value := range settings {
		number, unit := strings.TrimRight(value, "MiBms"), strings.TrimLeft(value, "0123456789")
		switch unit {
		case "MiB":
			key, value = key+"_in_mb", number
		case "ms":
			key, value = key+"_in_ms", number
		case "s":
			key, value = key+"_in_ms", number+"000"
		}
		out[key] = value
	}
	return out
}

// arguments are those of its virtual machine.
func (n *Node) arguments(conf, classPath string) []string {
	c, o := n.cluster, n.cluster.Options
	file := func(name string) string { return "file://" + filepath.Join(n.Dir, "conf", name) }
	args := []string{
		"@" + filepath.Join(conf, "jvm17.args"),
		"-Xms" + o.Heap, "-Xmx" + o.Heap, "-Xss512k", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
		"-XX:MaxDirectMemorySize=256m", "-XX:MaxMetaspaceSize=192m", "-XX:+ExitOnOutOfMemoryError",
	}
	if c.archive != "" {
		args = append(args, "-XX:SharedArchiveFile="+c.archive)
	}
	if o.Version != Version50 { // 5.0 does without
		jamm, _ := filepath.Glob(filepath.Join(c.lib, "jamm-*.jar"))
		for _, jar := range jamm {
			args = append(args, "-javaagent:"+jar)
		}
	}
	if o.Jolokia {
		jar := filepath.Join(filepath.Dir(filepath.Dir(c.lib)), "cassandra", "jolokia.jar")
		args = append(args, fmt.Sprintf("-javaagent:%s=host=%s,port=%d,discoveryEnabled=false", jar, n.Address, n.JolokiaPort))
	}
	args = append(args,
		"-Dcassandra.config="+file("cassandra.yaml"), n.mark(), "-Dcassandra.logdir="+n.Dir,
		"-Dcassandra-rackdc.properties="+file("cassandra-rackdc.properties"),
		"-Dlogback.configurationFile=file://"+filepath.Join(conf, "logback.xml"),
		"-Dcassandra-foreground=yes", "-Djava.io.tmpdir="+filepath.Join(n.Dir, "tmp"),
		// No waiting for other nodes that might be slow: seconds instead of minutes. But one that takes long to join must not be taken for gone after a
		// ring delay: nodes that forget it then never get right again.
		"-Dcassandra.gossip_quarantine_delay_ms=120000",
		"-Dcassandra.ring_delay_ms=1000", "-Dcassandra.skip_wait_for_gossip_to_settle=0", "-Dcassandra.shutdown_announce_in_ms=0",
		"-Dcassandra.superuser_setup_delay_ms=500", "-Dcassandra.memtable_row_overhead_computation_step=1000",
	)
	args = append(args, n.jmxProperties(conf)...)
	args = append(args, o.JVM...)
	return append(args, "-cp", classPath, "org.apache.cassandra.service.CassandraDaemon")
}

// startScript forgets the caller: the node is in a session of its own. One start at a time, as with systemd.
func (n *Node) startScript(conf, classPath string) string {
	var command strings.Builder
	for _, arg := range append([]string{n.cluster.java}, n.arguments(conf, classPath)...) {
		command.WriteString(" \\\n\t" + quote(arg))
	}
	return `#!/bin/bash
# Starts the node ` + n.Address + `, if it does not run, and returns at once.
set -eu
dir=` + quote(n.Dir) + `
running() { grep -qsazxF -- ` + quote(n.mark()) + ` "/proc/$1/cmdline"; }
exec 9>"$dir/lock"
flock 9
if [[ -s $dir/pid ]] && running "$(<"$dir/pid")"; then exit 0; fi
cd "$dir"
setsid` + command.String() + ` >>"$dir/system.log" 2>&1 </dev/null 9>&- &
echo $! >"$dir/pid.new"
mv "$dir/pid.new" "$dir/pid"
# Until setsid has done its work: before, the node would go with the caller's process group.
for ((i = 0; i < 500; i++)); do
	read -r status 2>/dev/null <"/proc/$!/stat" || break
	read -r _ _ _ session _ <<<"${status##*) }"
	if [[ $session == "$!" ]] && running $!; then break; fi
	sleep 0.02
done
`
}

func (n *Node) stopScript() string {
	return `#!/bin/bash
# Stops the node ` + n.Address + `, if it runs, and returns when it is gone.
set -eu
dir=` + quote(n.Dir) + `
[[ -s $dir/pid ]] || exit 0
pid=$(<"$dir/pid")
running() { grep -qsazxF -- ` + quote(n.mark()) + ` "/proc/$pid/cmdline"; }
running || exit 0
kill "$pid"
for ((i = 0; i < ` + strconv.Itoa(int(stopLimit.Seconds())*20) + `; i++)); do
	running || exit 0
	sleep 0.05
done
echo "node ` + n.Address + ` does not stop" >&2
exit 1
`
}

// quote makes one word of a shell's command line.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
