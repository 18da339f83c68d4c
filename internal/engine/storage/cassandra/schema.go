package cassandra

import (
	"context"
	_ "embed"
	"fmt"
	"net"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/rest"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
)

//go:embed description.md
var description string

// Kind is the driver "cassandra".
type Kind struct{}

// Name is "cassandra".
func (Kind) Name() string { return kindName }

// Description is description.md.
func (Kind) Description() string { return description }

// Restores says that a snapshot is an artifact.
func (Kind) Restores() storage.Restores { return storage.Restores{FromArtifacts: true} }

// NeedsLogin is false: a cluster may ask for no password.
func (Kind) NeedsLogin() bool { return false }

func text(doc string) schema.StringAttribute {
	return schema.StringAttribute{Optional: true, MarkdownDescription: doc}
}

func whole(doc string) schema.Int64Attribute {
	return schema.Int64Attribute{Optional: true, MarkdownDescription: doc}
}

func truth(doc string) schema.BoolAttribute {
	return schema.BoolAttribute{Optional: true, MarkdownDescription: doc}
}

func texts(doc string) schema.ListAttribute {
	return schema.ListAttribute{Optional: true, ElementType: types.StringType, MarkdownDescription: doc}
}

func object(doc string, attributes map[string]schema.Attribute) schema.SingleNestedAttribute {
	return schema.SingleNestedAttribute{Optional: true, MarkdownDescription: doc, Attributes: attributes}
}

const viaDoc = "How the files are reached: `ssh` (the default), or `local` where all nodes run on this machine."

const (
	medusaCommandDoc = "Command line of medusa on the node. The default is `medusa`."
	medusaConfigDoc  = "Its configuration file on the node. The default is `/etc/medusa/medusa.ini`."
	cassyAddressDoc  = "`HOST:PORT` of the Cassy server's gRPC API."
	cassyTLSDoc      = "`true` speaks TLS with the Cassy server. The default is `false`."
)

// SourceAttributes are those of the cluster to be captured.
func (Kind) SourceAttributes() map[string]schema.Attribute {
	a := attributes("Transport to the nodes: set exactly one. Every connection is made before the pause.")
	keyspaces := texts("Keyspaces to capture: exactly these, and ScalarDB's coordinator and metadata where they are there. The default is all of ScalarDB's namespaces.")
	keyspaces.PlanModifiers = []planmodifier.List{storage.ReplaceList()}
	a["keyspaces"] = keyspaces
	a["allow_down_nodes"] = truth("`true` goes on without nodes that are down, where every range of every captured keyspace has a quorum of replicas that are up. The copies of the nodes that are down are not in the " +
		"backup: it is restored with `load` only. The default is `false`: a node that is down is an error.")
	a["snapshot_timeout"] = text("How long one node may take for its snapshot, flush included, like `30s`, which is the default. It must fit into `pause.max_duration`.")
	a["data"] = schema.SingleNestedAttribute{
		Required: true, MarkdownDescription: "Where the data goes after the pause: set exactly one.",
		Attributes: map[string]schema.Attribute{
			"keep_on_nodes": object("The snapshot stays on the nodes, and takes their room as compaction replaces the SSTables it holds. It protects from mistakes, not from the loss of a node.", map[string]schema.Attribute{}),
			"upload": object("Every node's files go into the catalog, which must be configured. An SSTable that is there already is not sent again. The snapshot is cleared from the nodes then.", map[string]schema.Attribute{
				"via":              text(viaDoc),
				"parallel":         whole("Files that are sent at once from one node, 1 to 64. The default is 4."),
				"bandwidth_limit":  whole("MB (10^6 bytes) per second that are sent from one node. The default is 0: no limit."),
				"data_directories": texts("Data directories of the nodes, absolute. `{address}`, `{host_id}`, `{datacenter}` and `{rack}` stand for the node's. By default the nodes are asked."),
			}),
			"medusa": object("cassandra-medusa on every node uploads the snapshot, into the storage that its configuration names.", map[string]schema.Attribute{
				"command":     text(medusaCommandDoc),
				"config_file": text(medusaConfigDoc),
				"via":         text("How commands are run: `ssh` (the default) on the nodes, or `local` on this machine."),
			}),
			"cassy": object("A Cassy server takes and uploads the snapshots of all nodes. The pause lasts until all nodes have their snapshot; the upload goes on after it.", map[string]schema.Attribute{
				"address":               schema.StringAttribute{Required: true, MarkdownDescription: cassyAddressDoc},
				"cluster_id":            text("Id of the cluster in Cassy. The default is the one cluster there that has the Cassandra cluster's name."),
				"clear_other_snapshots": truth("`true` accepts that Cassy clears every snapshot of these keyspaces first, also those of others. The default is `false`: where there are any, the backup is refused."),
				"tls":                   truth(cassyTLSDoc),
			}),
		},
	}
	// They choose what is captured.
	for _, name := range []string{"coordinator_namespace", "metadata_namespace"} {
		namespace := a[name].(schema.StringAttribute) //nolint:forcetypeassert // With made it
		namespace.PlanModifiers = []planmodifier.String{storage.ReplaceString()}
		a[name] = namespace
	}
	return a
}

// DestinationAttributes are those of the cluster to be restored into.
func (Kind) DestinationAttributes() map[string]schema.Attribute {
	a := attributes("Transport to the nodes of the cluster to restore into: set exactly one.")
	keyspaces := schema.MapAttribute{Optional: true, ElementType: types.StringType, MarkdownDescription: "New names of keyspaces, by their names in the backup. The default is the same names.",
		PlanModifiers: []planmodifier.Map{storage.ReplaceMap()}}
	replication := schema.MapAttribute{Optional: true, ElementType: types.StringType, MarkdownDescription: "Replication of every restored keyspace: replicas by datacenter (`{ dc1 = 3 }`), or Cassandra's own options with `class`. " +
		"The default is that of the backup, where the cluster has its datacenters with enough nodes.", PlanModifiers: []planmodifier.Map{storage.ReplaceMap()}}
	nodes := func() map[string]schema.Attribute {
		return map[string]schema.Attribute{
			"stop_command": text("Shell command that stops Cassandra on a node and returns when it is stopped. The default is `sudo systemctl stop cassandra`."),
			"start_command": text("Shell command that starts Cassandra on a node. The default is `sudo systemctl start cassandra`. Run on this machine (`local`), it ends " +
				"with all that it leaves in its process group: start Cassandra by a service manager or with `setsid`."),
			"data_directories":       texts("Data directories of the nodes, absolute. By default the nodes are asked before they are stopped."),
			"commitlog_directory":    text("Directory of the commit log. The default is `/var/lib/cassandra/commitlog`."),
			"hints_directory":        text("Directory of the hints. The default is `/var/lib/cassandra/hints`."),
			"saved_caches_directory": text("Directory of the saved caches. The default is `/var/lib/cassandra/saved_caches`."),
			"cdc_raw_directory":      text("Directory of change data capture. The default is `/var/lib/cassandra/cdc_raw`."),
			"owner":                  text("Owner of the placed files, `USER:GROUP`. The default is `cassandra:cassandra`."),
			"via":                    text(viaDoc),
		}
	}
	a["load"] = object("Loads the backup into a running cluster of any shape: its schema is made, and every node imports the SSTables whose tokens it owns.", map[string]schema.Attribute{
		"keyspaces":   keyspaces,
		"replication": replication,
		"directory":   text("Directory on the nodes for the files before they are imported; it needs room for them. The default is `/var/lib/cassandra/scalardb-restore`."),
		"owner":       text("Owner of these files, `USER:GROUP`, where Cassandra could not read them otherwise: what brings them must be allowed to change it. By default they belong to who brings them."),
		"via":         text(viaDoc),
	})
	a["in_place"] = object("Restores onto the very nodes of the backup, and replaces the data of its tables: all nodes are drained, stopped, cleaned, filled and started. Stop ScalarDB's servers before.", nodes())
	a["same_topology"] = object("Restores onto nodes with the tokens, datacenters and racks of those of the backup, where its tables are not there yet or empty: all nodes are drained, stopped, cleaned, filled and started.", nodes())
	a["medusa"] = object("cassandra-medusa on the nodes of the cluster to restore into, for a backup whose data it has: it must reach the storage where they are. It is run where the files of `load`, `in_place` or `same_topology` are, by their `via`.",
		map[string]schema.Attribute{"command": text(medusaCommandDoc), "config_file": text(medusaConfigDoc)})
	a["cassy"] = object("The Cassy server, for a backup whose data it has. It is restored with `in_place` only.", map[string]schema.Attribute{
		"address": schema.StringAttribute{Required: true, MarkdownDescription: cassyAddressDoc}, "tls": truth(cassyTLSDoc),
	})
	return a
}

func attributes(transport string) map[string]schema.Attribute {
	url := func(name, example string) schema.Attribute {
		return object(name, map[string]schema.Attribute{
			"url": text("URL of a node's agent. `{address}`, `{host_id}`, `{datacenter}` and `{rack}` stand for the node's. The default is `" + example + "`. For https the authorities and the client's certificate are `ca_pem`, `cert_pem` and `key_pem` of the credentials."),
		})
	}
	return storage.With(map[string]schema.Attribute{
		"contact_points":  schema.ListAttribute{Required: true, ElementType: types.StringType, MarkdownDescription: "Names or addresses of nodes, without ports, that are asked for all the others."},
		"port":            whole("CQL port of every node. The default is 9042."),
		"datacenter":      text("Datacenter whose nodes are asked when data is read for verification. By default any. A backup is always of all datacenters."),
		"tls":             truth("`true` speaks CQL over TLS, with `ca_pem`, `cert_pem` and `key_pem` of the credentials. The default is `false`."),
		"tls_server_name": text("Name that the nodes' certificates must have. By default each must name the address that is connected to."),
		"ssh": object("SSH to the nodes' machines, for what goes over it. Keys and passwords are in the provider's `credentials`; without them the SSH agent is asked.", map[string]schema.Attribute{
			"host":             text("Host of a node's SSH server. `{address}`, `{host_id}`, `{datacenter}` and `{rack}` stand for the node's. The default is `{address}`."),
			"port":             whole("Port of the SSH servers. The default is 22."),
			"user":             text("User to log in as. The default is `username` of `ssh` in the credentials."),
			"known_hosts_path": text("File with the servers' keys. The default is `~/.ssh/known_hosts` and `/etc/ssh/ssh_known_hosts`. A server whose key is in none of them is refused."),
			"known_hosts":      text("The servers' keys themselves, as lines of a known_hosts file, instead of `known_hosts_path`."),
			"bastion": object("Host through which all nodes are reached, with the same keys.", map[string]schema.Attribute{
				"host": schema.StringAttribute{Required: true, MarkdownDescription: "Host of the bastion's SSH server."},
				"port": whole("Its port. The default is 22."),
				"user": text("User to log in as. The default is that of the nodes."),
			}),
		}),
		"verify_read": object("How verification reads the tables: by ranges of tokens, several at a time, page by page.", map[string]schema.Attribute{
			"consistency": text("Consistency of the reads: `QUORUM` (the default), `LOCAL_QUORUM`, `ALL`, or less, which proves nothing where a node missed a write (`ONE`, `TWO`, `THREE`, `LOCAL_ONE`). `LOCAL_QUORUM` is that of `datacenter`."),
			"page_size":   whole("Rows of a page, 1 to 100000. The default is 1000. A page that times out is asked for again in smaller ones."),
			"parallel":    whole("Ranges that are read at once, 1 to 256. The default is two per node, at most 16."),
		}),
		"transport": schema.SingleNestedAttribute{
			Required: true, MarkdownDescription: transport,
			Attributes: map[string]schema.Attribute{
				"jmx": object("JMX over RMI, spoken natively: nothing is started in the pause and nothing need be installed on the nodes. User and password are `jmx` of the credentials.", map[string]schema.Attribute{
					"host":         text("Host of a node's JMX port. `{address}` and the like stand for the node's. The default is `{address}`, or `127.0.0.1` with `ssh`."),
					"port":         whole("Port of the RMI registry. The default is 7199."),
					"tls":          truth("`true`: JMX speaks TLS. The authorities and the client's certificate are those of the credentials. The default is `false`."),
					"registry_tls": truth("`true`: the RMI registry speaks TLS too. The default is `false`."),
					"ssh":          truth("`true` reaches the port through SSH, where it listens on the node's own 127.0.0.1. The default is `false`."),
				}),
				"management_api": url("The K8ssandra Management API of every node.", defaultManagementURL),
				"sidecar":        url("The Apache Cassandra Sidecar of every node.", defaultSidecarURL),
				"jolokia":        url("The Jolokia agent in every node. User and password are `jmx` of the credentials.", defaultJolokiaURL),
				"ssh": object("`nodetool` on every node, over SSH.", map[string]schema.Attribute{
					"nodetool": text("Command line of nodetool on the node. `{address}` and the like stand for the node's. The default is `nodetool`. User and password of JMX are `jmx` of the credentials; they never are arguments."),
				}),
				"exec": object("`nodetool` on this machine.", map[string]schema.Attribute{
					"nodetool": texts("Program and its first arguments. `{address}` and the like stand for the node's. The default is `[\"nodetool\", \"-h\", \"{address}\"]`."),
				}),
			},
		},
	})
}

var (
	keyspaceName = regexp.MustCompile(`^\w{1,48}$`)
	transports   = []string{"jmx", "management_api", "sidecar", "jolokia", "ssh", "exec"}
	places       = []string{"keep_on_nodes", "upload", "medusa", "cassy"}
	restores     = []string{"load", "in_place", "same_topology"}
)

// nested returns an object that is there and known.
func nested(config types.Object, attribute string) (types.Object, bool) {
	o, ok := config.Attributes()[attribute].(types.Object)
	return o, ok && !o.IsNull() && !o.IsUnknown()
}

func isUnknown(config types.Object, attribute string) bool {
	v := config.Attributes()[attribute]
	return v != nil && v.IsUnknown()
}

func flag(config types.Object, attribute string) bool {
	b, ok := config.Attributes()[attribute].(types.Bool)
	return ok && b.ValueBool()
}

// elements are the known elements of a list; given says that the list is there and known.
func elements(config types.Object, attribute string) (out []string, given bool) {
	l, ok := config.Attributes()[attribute].(types.List)
	if !ok || l.IsNull() || l.IsUnknown() {
		return nil, false
	}
	for _, e := range l.Elements() {
		if s, ok := e.(types.String); ok && !s.IsNull() && !s.IsUnknown() {
			out = append(out, s.ValueString())
		}
	}
	return out, true
}

func isEmpty(config types.Object, attribute string) bool {
	l, ok := config.Attributes()[attribute].(types.List)
	return ok && !l.IsNull() && !l.IsUnknown() && len(l.Elements()) == 0
}

// chosen tells which of several objects is set. known is false where that may still change.
func chosen(config types.Object, of []string) (set []string, known bool) {
	known = true
	for _, name := range of {
		if isUnknown(config, name) {
			known = false
		} else if _, ok := nested(config, name); ok {
			set = append(set, name)
		}
	}
	return set, known
}

// checks is one validation.
type checks struct {
	config types.Object
	at     func(attribute string) storage.PathSetter
}

// Validate refuses what no cluster can be reached by.
func (Kind) Validate(_ context.Context, side storage.Side, config types.Object, at func(attribute string) storage.PathSetter) diag.Diagnostics {
	c := checks{config, at}
	c.contactPoints()
	c.port("port", config, "port")
	c.keyspaces()
	c.ssh()
	c.reads()
	c.transport()
	if name, ok := storage.Text(config, "tls_server_name"); ok && name != "" && !flag(config, "tls") && !isUnknown(config, "tls") {
		at("tls_server_name").Error("Name without TLS", "tls_server_name says what certificate is expected, and tls is not true.")
	}
	if side == storage.SourceSide {
		c.data()
		if v, ok := storage.Text(config, "snapshot_timeout"); ok {
			if d, err := time.ParseDuration(v); err != nil || d < time.Second || d > time.Hour {
				at("snapshot_timeout").Error("Invalid snapshot_timeout", fmt.Sprintf("%q is no duration from 1s to 1h, like 30s.", v))
			}
		}
		return nil
	}
	c.restore()
	return nil
}

func (c checks) contactPoints() {
	points, given := elements(c.config, "contact_points")
	if isEmpty(c.config, "contact_points") {
		c.at("contact_points").Error("No contact points", "Name at least one node, better two or three.")
	}
	if !given {
		return
	}
	for _, p := range points {
		switch host, port, err := net.SplitHostPort(p); {
		case p == "" || strings.ContainsAny(p, " ,/"):
			c.at("contact_points").Error("Invalid contact point", fmt.Sprintf("%q is no name or address of one node. Each is an element of its own.", p))
		case err == nil && net.ParseIP(p) == nil:
			c.at("contact_points").Error("Contact point with a port", fmt.Sprintf("%q has a port: give %q, and port = %s for all nodes.", p, host, port))
		}
	}
}

func (c checks) port(path string, config types.Object, attribute string) {
	if n, ok := storage.Whole(config, attribute); ok && (n < 1 || n > 65535) {
		c.at(path).Error("Invalid port", fmt.Sprintf("%d is no port: it must be from 1 to 65535.", n))
	}
}

func (c checks) keyspaces() {
	if isEmpty(c.config, "keyspaces") {
		c.at("keyspaces").Error("No keyspaces", "The list is empty. Leave it out for all of ScalarDB's namespaces.")
	}
	names, _ := elements(c.config, "keyspaces")
	seen := map[string]bool{}
	for _, name := range names {
		switch {
		case !keyspaceName.MatchString(name):
			c.at("keyspaces").Error("Invalid keyspace", fmt.Sprintf("%q is no name of a keyspace: 1 to 48 letters, digits and underscores.", name))
		case systemKeyspace(name):
			c.at("keyspaces").Error("Keyspace of Cassandra's own", fmt.Sprintf("%s belongs to Cassandra, and is in no backup: a cluster has its own.", name))
		case seen[name]:
			c.at("keyspaces").Error("Keyspace named twice", fmt.Sprintf("%s is there twice.", name))
		}
		seen[name] = true
	}
	for _, a := range []string{"coordinator_namespace", "metadata_namespace"} {
		if v, ok := storage.Text(c.config, a); ok && !keyspaceName.MatchString(v) {
			c.at(a).Error("Invalid name", fmt.Sprintf("%q is no name of a keyspace: 1 to 48 letters, digits and underscores.", v))
		}
	}
}

func (c checks) ssh() {
	s, ok := nested(c.config, "ssh")
	if !ok {
		return
	}
	c.port("ssh.port", s, "port")
	_, text := storage.Text(s, "known_hosts")
	if _, file := storage.Text(s, "known_hosts_path"); text && file {
		c.at("ssh.known_hosts").Error("Known hosts given twice", "Set known_hosts or known_hosts_path, not both.")
	}
	for _, a := range []string{"user", "host"} {
		if v, ok := storage.Text(s, a); ok && (v == "" || strings.ContainsAny(v, " \t\n")) {
			c.at("ssh."+a).Error("Invalid "+a, fmt.Sprintf("%q is empty, or has white space in it.", v))
		}
	}
	if b, ok := nested(s, "bastion"); ok {
		c.port("ssh.bastion.port", b, "port")
		if v, ok := storage.Text(b, "host"); ok && v == "" {
			c.at("ssh.bastion.host").Error("Invalid host", "The bastion's host must not be empty.")
		}
	}
}

// consistencies that tables can be read at.
var consistencies = []string{"ALL", "LOCAL_ONE", "LOCAL_QUORUM", "ONE", "QUORUM", "THREE", "TWO"}

func (c checks) reads() {
	o, ok := nested(c.config, "verify_read")
	if !ok {
		return
	}
	if v, ok := storage.Text(o, "consistency"); ok && !slices.Contains(consistencies, v) {
		c.at("verify_read.consistency").Error("Invalid consistency", fmt.Sprintf("%q is none of %s.", v, strings.Join(consistencies, ", ")))
	}
	for name, most := range map[string]int64{"page_size": 100_000, "parallel": 256} {
		if n, ok := storage.Whole(o, name); ok && (n < 1 || n > most) {
			c.at("verify_read."+name).Error("Invalid "+name, fmt.Sprintf("%d is not from 1 to %d.", n, most))
		}
	}
}

// needSSH complains where something goes over SSH and nothing says how.
func (c checks) needSSH(attribute, what string) {
	if _, ok := nested(c.config, "ssh"); !ok && !isUnknown(c.config, "ssh") {
		c.at(attribute).Error("No SSH", what+" goes over SSH, and ssh is not set: set it, at least to ssh = { user = \"...\" }.")
	}
}

// via checks how files are reached.
func (c checks) via(at string, o types.Object) {
	v, ok := storage.Text(o, "via")
	if ok && v != "ssh" && v != "local" {
		c.at(at+".via").Error("Invalid via", fmt.Sprintf("%q is neither \"ssh\" nor \"local\".", v))
	}
	if v == "ssh" || !ok && !isUnknown(o, "via") {
		c.needSSH(at, "what "+at+" does on the nodes")
	}
}

func (c checks) absolute(at string, o types.Object, attribute string) {
	values, given := elements(o, attribute)
	if v, ok := storage.Text(o, attribute); ok {
		values, given = []string{v}, true
	}
	if given && isEmpty(o, attribute) {
		c.at(at+"."+attribute).Error("No directories", "The list is empty. Leave it out to have the nodes asked.")
	}
	for _, v := range values {
		if !path.IsAbs(v) || path.Clean(v) != v || v == "/" {
			c.at(at+"."+attribute).Error("Invalid directory", fmt.Sprintf("%q is no absolute path without \"..\" and a slash at its end.", v))
		}
	}
}

func (c checks) transport() {
	t, ok := nested(c.config, "transport")
	if !ok {
		return
	}
	set, known := chosen(t, transports)
	if len(set) > 1 || len(set) == 0 && known {
		c.at("transport").Error("Not exactly one transport", fmt.Sprintf("%d are set. Set exactly one of %s.", len(set), strings.Join(transports, ", ")))
	}
	if o, ok := nested(t, "jmx"); ok {
		c.port("transport.jmx.port", o, "port")
		if flag(o, "ssh") {
			c.needSSH("transport.jmx.ssh", "JMX")
		}
	}
	for _, name := range []string{"management_api", "sidecar", "jolokia"} {
		o, ok := nested(t, name)
		if !ok {
			continue
		}
		if v, ok := storage.Text(o, "url"); ok {
			if err := (rest.Settings{URL: v}).Validate(); err != nil {
				c.at("transport."+name+".url").Error("Invalid URL", capital(err.Error())+".")
			}
		}
	}
	if o, ok := nested(t, "ssh"); ok {
		c.needSSH("transport.ssh", "nodetool")
		if v, ok := storage.Text(o, "nodetool"); ok && strings.TrimSpace(v) == "" {
			c.at("transport.ssh.nodetool").Error("Invalid command", "The command is empty.")
		}
	}
	if o, ok := nested(t, "exec"); ok {
		words, given := elements(o, "nodetool")
		if isEmpty(o, "nodetool") || given && slices.Contains(words, "") {
			c.at("transport.exec.nodetool").Error("Invalid command", "The command, or one of its words, is empty.")
		}
	}
}

func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

func (c checks) data() {
	d, ok := nested(c.config, "data")
	if !ok {
		return
	}
	set, known := chosen(d, places)
	if len(set) > 1 || len(set) == 0 && known {
		c.at("data").Error("Not exactly one place for the data", fmt.Sprintf("%d are set. Set exactly one of %s.", len(set), strings.Join(places, ", ")))
	}
	if o, ok := nested(d, "upload"); ok {
		c.via("data.upload", o)
		c.absolute("data.upload", o, "data_directories")
		if n, ok := storage.Whole(o, "parallel"); ok && (n < 1 || n > 64) {
			c.at("data.upload.parallel").Error("Invalid parallel", fmt.Sprintf("%d is not from 1 to 64.", n))
		}
		if n, ok := storage.Whole(o, "bandwidth_limit"); ok && (n < 0 || n > 1_000_000) {
			c.at("data.upload.bandwidth_limit").Error("Invalid bandwidth_limit", fmt.Sprintf("%d is not from 0 to 1000000 MB per second.", n))
		}
	}
	if o, ok := nested(d, "medusa"); ok {
		c.via("data.medusa", o)
		c.medusa("data.medusa", o)
	}
	if o, ok := nested(d, "cassy"); ok {
		c.cassy("data.cassy", o)
		if v, ok := storage.Text(o, "cluster_id"); ok && v == "" {
			c.at("data.cassy.cluster_id").Error("Invalid cluster_id", "It is empty. Leave it out for the one cluster of that name in Cassy.")
		}
	}
}

func (c checks) medusa(at string, o types.Object) {
	if v, ok := storage.Text(o, "command"); ok && strings.TrimSpace(v) == "" {
		c.at(at+".command").Error("Invalid command", "The command is empty.")
	}
	if _, ok := storage.Text(o, "config_file"); ok {
		c.absolute(at, o, "config_file")
	}
}

func (c checks) cassy(at string, o types.Object) {
	if v, ok := storage.Text(o, "address"); ok {
		host, port, err := net.SplitHostPort(v)
		if n, convErr := strconv.Atoi(port); err != nil || host == "" || convErr != nil || n < 1 || n > 65535 {
			c.at(at+".address").Error("Invalid address", fmt.Sprintf("%q is no HOST:PORT.", v))
		}
	}
}

func (c checks) restore() {
	set, known := chosen(c.config, restores)
	if len(set) > 1 || len(set) == 0 && known {
		at := "contact_points"
		if len(set) > 1 {
			at = set[1]
		}
		c.at(at).Error("Not exactly one way to restore", fmt.Sprintf("%d are set. Set exactly one of %s.", len(set), strings.Join(restores, ", ")))
	}
	if o, ok := nested(c.config, "load"); ok {
		c.via("load", o)
		if _, ok := storage.Text(o, "directory"); ok {
			c.absolute("load", o, "directory")
		}
		if v, ok := storage.Text(o, "owner"); ok && strings.TrimSpace(v) == "" {
			c.at("load.owner").Error("Invalid owner", "It is empty. Leave it out for the default.")
		}
		targets := map[string]string{}
		for from, to := range mapOf(o, "keyspaces") {
			if !keyspaceName.MatchString(from) || !keyspaceName.MatchString(to) || systemKeyspace(to) {
				c.at("load.keyspaces").Error("Invalid keyspace", fmt.Sprintf("%q = %q: both must be names of keyspaces, 1 to 48 letters, digits and underscores, and none of Cassandra's own.", from, to))
			}
			if other, ok := targets[to]; ok {
				c.at("load.keyspaces").Error("Two keyspaces of one name", fmt.Sprintf("%s and %s would both be %s.", min(from, other), max(from, other), to))
			}
			targets[to] = from
		}
		if r := mapOf(o, "replication"); len(r) > 0 && r["class"] == "" {
			for dc, n := range r {
				if v, err := strconv.Atoi(n); err != nil || v < 0 || v > 100 {
					c.at("load.replication").Error("Invalid replication", fmt.Sprintf("%s = %q is no number of replicas.", dc, n))
				}
			}
		}
	}
	if o, ok := nested(c.config, "medusa"); ok {
		c.medusa("medusa", o)
	}
	if o, ok := nested(c.config, "cassy"); ok {
		c.cassy("cassy", o)
		if _, in := nested(c.config, "in_place"); !in && !isUnknown(c.config, "in_place") {
			c.at("cassy").Error("Cassy restores in place", "Cassy restores onto the nodes that the backup was taken of, and in_place is not set. Set in_place, or leave cassy out.")
		}
	}
	for _, name := range []string{"in_place", "same_topology"} {
		o, ok := nested(c.config, name)
		if !ok {
			continue
		}
		c.via(name, o)
		for _, directory := range []string{"data_directories", "commitlog_directory", "hints_directory", "saved_caches_directory", "cdc_raw_directory"} {
			c.absolute(name, o, directory)
		}
		for _, command := range []string{"stop_command", "start_command", "owner"} {
			if v, ok := storage.Text(o, command); ok && strings.TrimSpace(v) == "" {
				c.at(name+"."+command).Error("Invalid "+command, "It is empty. Leave it out for the default.")
			}
		}
	}
}

// mapOf are the known elements of a map of texts.
func mapOf(o types.Object, attribute string) map[string]string {
	m, ok := o.Attributes()[attribute].(types.Map)
	if !ok {
		return nil
	}
	out := map[string]string{}
	for k, v := range m.Elements() {
		if s, ok := v.(types.String); ok && !s.IsNull() && !s.IsUnknown() {
			out[k] = s.ValueString()
		}
	}
	return out
}

// NewSource opens nothing yet.
func (Kind) NewSource(_ context.Context, config types.Object, env storage.Env) (engine.Source, diag.Diagnostics) {
	w := decode(config, env)
	s := w.settings()
	var err error
	if s.Mover, err = w.mover(w.Data.Place); err != nil {
		return nil, diag.Diagnostics{diag.NewErrorDiagnostic("Unusable arguments of a Cassandra storage", err.Error())}
	}
	return NewSource(s), nil
}

// NewDestination opens nothing yet.
func (Kind) NewDestination(_ context.Context, config types.Object, env storage.Env) (engine.Destination, diag.Diagnostics) {
	return NewDestination(decode(config, env).destination()), nil
}

// NewReader connects to the cluster.
func (Kind) NewReader(ctx context.Context, side storage.Side, config types.Object, env storage.Env) (verify.Storage, diag.Diagnostics) {
	w := decode(config, env)
	r, err := newReader(ctx, w.settings(), w.toRead(side))
	if err != nil {
		return nil, diag.Diagnostics{diag.NewErrorDiagnostic("Opening a Cassandra cluster", err.Error())}
	}
	return r, nil
}

// Artifacts reads and deletes what lies on the nodes, in the catalog, and with tools.
func (Kind) Artifacts(config types.Object, env storage.Env) engine.ArtifactStore {
	w := decode(config, env)
	return NewKeeper(w.settings(), !config.IsNull(), w.moverOfKind)
}

// decode reads the arguments of either side.
func decode(config types.Object, env storage.Env) wiring {
	w := wiring{Env: env, Layout: storage.Namespaces(config)}
	w.ContactPoints, _ = elements(config, "contact_points")
	w.Port = number(config, "port")
	w.Datacenter, _ = storage.Text(config, "datacenter")
	w.Keyspaces, _ = elements(config, "keyspaces")
	w.AllowDownNodes = flag(config, "allow_down_nodes")
	w.TLS = flag(config, "tls")
	w.TLSServerName, _ = storage.Text(config, "tls_server_name")
	if v, ok := storage.Text(config, "snapshot_timeout"); ok {
		w.SnapshotTimeout, _ = time.ParseDuration(v) //nolint:errcheck // Validate has refused it
	}
	if o, ok := nested(config, "verify_read"); ok {
		w.Read.Consistency, _ = storage.Text(o, "consistency")
		w.Read.PageSize, w.Read.Parallel = number(o, "page_size"), number(o, "parallel")
	}
	if o, ok := nested(config, "ssh"); ok {
		w.SSH = &wiredSSH{Port: number(o, "port")}
		w.SSH.Host, _ = storage.Text(o, "host")
		w.SSH.User, _ = storage.Text(o, "user")
		w.SSH.KnownHosts, _ = storage.Text(o, "known_hosts")
		w.SSH.KnownHostsPath, _ = storage.Text(o, "known_hosts_path")
		if b, ok := nested(o, "bastion"); ok {
			w.SSH.Bastion = &wiredBastion{Port: number(b, "port")}
			w.SSH.Bastion.Host, _ = storage.Text(b, "host")
			w.SSH.Bastion.User, _ = storage.Text(b, "user")
		}
	}
	if t, ok := nested(config, "transport"); ok {
		if set, _ := chosen(t, transports); len(set) == 1 {
			o, _ := nested(t, set[0])
			w.Transport = wiredTransport{Name: set[0], Port: number(o, "port"), TLS: flag(o, "tls"), RegistryTLS: flag(o, "registry_tls"), SSH: flag(o, "ssh")}
			w.Transport.Host, _ = storage.Text(o, "host")
			w.Transport.URL, _ = storage.Text(o, "url")
			w.Transport.Command, _ = storage.Text(o, "nodetool")
			w.Transport.Words, _ = elements(o, "nodetool")
		}
	}
	if d, ok := nested(config, "data"); ok {
		if set, _ := chosen(d, places); len(set) == 1 {
			o, _ := nested(d, set[0])
			w.Data = wiredData{Place: set[0], Parallel: number(o, "parallel"), BandwidthLimit: number(o, "bandwidth_limit"),
				ClearOtherSnapshots: flag(o, "clear_other_snapshots"), TLS: flag(o, "tls")}
			w.Data.Via, _ = storage.Text(o, "via")
			w.Data.Directories, _ = elements(o, "data_directories")
			w.Data.Command, _ = storage.Text(o, "command")
			w.Data.ConfigFile, _ = storage.Text(o, "config_file")
			w.Data.Address, _ = storage.Text(o, "address")
			w.Data.ClusterID, _ = storage.Text(o, "cluster_id")
		}
	}
	// Those of the destination stand by themselves.
	if o, ok := nested(config, "medusa"); ok {
		w.Data.Command, _ = storage.Text(o, "command")
		w.Data.ConfigFile, _ = storage.Text(o, "config_file")
	}
	if o, ok := nested(config, "cassy"); ok {
		w.Data.Address, _ = storage.Text(o, "address")
		w.Data.TLS = flag(o, "tls")
	}
	if o, ok := nested(config, "load"); ok {
		w.Load = wiredLoad{Given: true, Keyspaces: mapOf(o, "keyspaces"), Replication: mapOf(o, "replication")}
		w.Load.Directory, _ = storage.Text(o, "directory")
		w.Load.Owner, _ = storage.Text(o, "owner")
		w.Load.Via, _ = storage.Text(o, "via")
	}
	for name, into := range map[string]*wiredNodes{"in_place": &w.InPlace, "same_topology": &w.SameTopology} {
		if o, ok := nested(config, name); ok {
			into.Given = true
			into.StopCommand, _ = storage.Text(o, "stop_command")
			into.StartCommand, _ = storage.Text(o, "start_command")
			into.DataDirectories, _ = elements(o, "data_directories")
			into.CommitlogDirectory, _ = storage.Text(o, "commitlog_directory")
			into.HintsDirectory, _ = storage.Text(o, "hints_directory")
			into.SavedCachesDirectory, _ = storage.Text(o, "saved_caches_directory")
			into.CDCRawDirectory, _ = storage.Text(o, "cdc_raw_directory")
			into.Owner, _ = storage.Text(o, "owner")
			into.Via, _ = storage.Text(o, "via")
		}
	}
	return w
}

func number(config types.Object, attribute string) int {
	n, _ := storage.Whole(config, attribute)
	return int(n)
}
