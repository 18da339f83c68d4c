package cassandra

import (
	"slices"
	"strings"
	"testing"

	gocql "github.com/apache/cassandra-gocql-driver/v2"
	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-go/tftypes"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/testclock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/cassy"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/medusa"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/move"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/snapshot"
)

// complaints collects where Validate complains.
type complaints struct {
	at  string
	all *[]string
}

func (c complaints) Error(string, string)   { *c.all = append(*c.all, c.at) }
func (c complaints) Warning(string, string) { *c.all = append(*c.all, c.at+" (warning)") }

type o = map[string]any

const unknown = "\x00unknown"

// value makes an argument of what is typed: nil is null.
func value(t *testing.T, typ attr.Type, v any) attr.Value {
	t.Helper()
	if v == unknown {
		u, err := typ.ValueFromTerraform(t.Context(), tftypes.NewValue(typ.TerraformType(t.Context()), tftypes.UnknownValue))
		must(t, err)
		return u
	}
	switch typ := typ.(type) {
	case types.ObjectType:
		fields, ok := v.(o)
		if !ok {
			return types.ObjectNull(typ.AttrTypes)
		}
		out := map[string]attr.Value{}
		for name, at := range typ.AttrTypes {
			out[name] = value(t, at, fields[name])
		}
		for name := range fields {
			if _, ok := typ.AttrTypes[name]; !ok {
				t.Fatalf("there is no argument %s", name)
			}
		}
		return types.ObjectValueMust(typ.AttrTypes, out)
	case types.ListType:
		l, ok := v.([]string)
		if !ok {
			return types.ListNull(typ.ElemType)
		}
		out := []attr.Value{}
		for _, s := range l {
			out = append(out, types.StringValue(s))
		}
		return types.ListValueMust(typ.ElemType, out)
	case types.MapType:
		m, ok := v.(map[string]string)
		if !ok {
			return types.MapNull(typ.ElemType)
		}
		out := map[string]attr.Value{}
		for k, s := range m {
			out[k] = types.StringValue(s)
		}
		return types.MapValueMust(typ.ElemType, out)
	}
	switch v := v.(type) {
	case string:
		return types.StringValue(v)
	case int:
		return types.Int64Value(int64(v))
	case bool:
		return types.BoolValue(v)
	}
	switch typ {
	case types.Int64Type:
		return types.Int64Null()
	case types.BoolType:
		return types.BoolNull()
	}
	return types.StringNull()
}

func configOf(t *testing.T, side storage.Side, fields o) types.Object {
	t.Helper()
	attributes := (Kind{}).SourceAttributes()
	if side == storage.DestinationSide {
		attributes = (Kind{}).DestinationAttributes()
	}
	kinds := map[string]attr.Type{}
	for name, a := range attributes {
		kinds[name] = a.GetType()
	}
	return value(t, types.ObjectType{AttrTypes: kinds}, fields).(types.Object) //nolint:forcetypeassert // it is one
}

// with replaces some arguments.
func with(base, change o) o {
	out := o{}
	for k, v := range base {
		out[k] = v
	}
	for k, v := range change {
		out[k] = v
	}
	return out
}

func TestValidate(t *testing.T) {
	jmx, keep, ssh := o{"jmx": o{}}, o{"keep_on_nodes": o{}}, o{"user": "cassandra"}
	base := o{"contact_points": []string{"10.0.0.1", "node.example", "::1"}, "transport": jmx, "data": keep}
	into := o{"contact_points": []string{"10.0.0.1"}, "transport": jmx, "ssh": ssh}
	for _, c := range []struct {
		name   string
		side   storage.Side
		fields o
		want   string
	}{
		{"plain", storage.SourceSide, base, ""},
		{"everything", storage.SourceSide, with(base, o{"port": 9142, "datacenter": "dc1", "keyspaces": []string{"shop"}, "tls": true, "tls_server_name": "x", "allow_down_nodes": true, "snapshot_timeout": "1m", "ssh": o{"user": "u", "port": 22, "bastion": o{"host": "b"}},
			"transport": o{"jmx": o{"ssh": true, "port": 7199}}, "data": o{"upload": o{"via": "ssh", "parallel": 8, "bandwidth_limit": 100, "data_directories": []string{"/data/{address}"}}}}), ""},
		{"unknown", storage.SourceSide, o{"contact_points": unknown, "port": unknown, "keyspaces": unknown, "ssh": unknown, "transport": unknown, "data": unknown, "snapshot_timeout": unknown, "tls": unknown}, ""},
		{"unknown inside", storage.SourceSide, with(base, o{"ssh": unknown, "transport": o{"jmx": unknown}, "data": o{"upload": o{"via": unknown, "parallel": unknown}}}), ""},
		{"no points", storage.SourceSide, with(base, o{"contact_points": []string{}}), "contact_points"},
		{"a port", storage.SourceSide, with(base, o{"contact_points": []string{"10.0.0.1:9042"}}), "contact_points"},
		{"several in one", storage.SourceSide, with(base, o{"contact_points": []string{"a,b"}}), "contact_points"},
		{"port", storage.SourceSide, with(base, o{"port": 70000}), "port"},
		{"no keyspaces", storage.SourceSide, with(base, o{"keyspaces": []string{}}), "keyspaces"},
		{"system", storage.SourceSide, with(base, o{"keyspaces": []string{"system_auth"}}), "keyspaces"},
		{"twice", storage.SourceSide, with(base, o{"keyspaces": []string{"a", "a"}}), "keyspaces"},
		{"names", storage.SourceSide, with(base, o{"keyspaces": []string{"a-b"}, "coordinator_namespace": "", "metadata_namespace": "x.y"}), "coordinator_namespace keyspaces metadata_namespace"},
		{"timeout", storage.SourceSide, with(base, o{"snapshot_timeout": "soon"}), "snapshot_timeout"},
		{"short timeout", storage.SourceSide, with(base, o{"snapshot_timeout": "10ms"}), "snapshot_timeout"},
		{"a name without TLS", storage.SourceSide, with(base, o{"tls_server_name": "x"}), "tls_server_name"},
		{"no transport", storage.SourceSide, with(base, o{"transport": o{}}), "transport"},
		{"two transports", storage.SourceSide, with(base, o{"transport": o{"jmx": o{}, "jolokia": o{}}}), "transport"},
		{"no data", storage.SourceSide, with(base, o{"data": o{}}), "data"},
		{"two places", storage.SourceSide, with(base, o{"data": o{"keep_on_nodes": o{}, "cassy": o{"address": "c:1"}}}), "data"},
		{"jmx port", storage.SourceSide, with(base, o{"transport": o{"jmx": o{"port": 0}}}), "transport.jmx.port"},
		{"jmx without ssh", storage.SourceSide, with(base, o{"transport": o{"jmx": o{"ssh": true}}}), "transport.jmx.ssh"},
		{"ssh without ssh", storage.SourceSide, with(base, o{"transport": o{"ssh": o{}}}), "transport.ssh"},
		{"url", storage.SourceSide, with(base, o{"transport": o{"management_api": o{"url": "http://u:p@{address}"}}}), "transport.management_api.url"},
		{"url braces", storage.SourceSide, with(base, o{"transport": o{"sidecar": o{"url": "http://{host}:9043"}}}), "transport.sidecar.url"},
		{"no command", storage.SourceSide, with(base, o{"transport": o{"exec": o{"nodetool": []string{}}}}), "transport.exec.nodetool"},
		{"an empty word", storage.SourceSide, with(base, o{"transport": o{"exec": o{"nodetool": []string{"nodetool", ""}}}}), "transport.exec.nodetool"},
		{"upload without ssh", storage.SourceSide, with(base, o{"data": o{"upload": o{}}}), "data.upload"},
		{"upload here", storage.SourceSide, with(base, o{"data": o{"upload": o{"via": "local"}}}), ""},
		{"via", storage.SourceSide, with(base, o{"data": o{"medusa": o{"via": "carrier pigeon"}}}), "data.medusa.via"},
		{"upload", storage.SourceSide, with(base, o{"ssh": ssh, "data": o{"upload": o{"parallel": 0, "bandwidth_limit": -1, "data_directories": []string{"data"}}}}), "data.upload.bandwidth_limit data.upload.data_directories data.upload.parallel"},
		{"medusa", storage.SourceSide, with(base, o{"ssh": ssh, "data": o{"medusa": o{"command": " ", "config_file": "medusa.ini"}}}), "data.medusa.command data.medusa.config_file"},
		{"cassy", storage.SourceSide, with(base, o{"data": o{"cassy": o{"address": "cassy", "cluster_id": ""}}}), "data.cassy.address data.cassy.cluster_id"},
		{"ssh", storage.SourceSide, with(base, o{"ssh": o{"user": "a b", "port": 0, "known_hosts": "x", "known_hosts_path": "y", "bastion": o{"host": "", "port": 99999}}}), "ssh.bastion.host ssh.bastion.port ssh.known_hosts ssh.port ssh.user"},

		{"load", storage.DestinationSide, with(into, o{"load": o{"keyspaces": map[string]string{"shop": "shop_staging"}, "replication": map[string]string{"dc1": "3"}}}), ""},
		{"in place", storage.DestinationSide, with(into, o{"in_place": o{"stop_command": "stop {address}", "data_directories": []string{"/data"}}}), ""},
		{"reads", storage.DestinationSide, with(into, o{"load": o{}, "verify_read": o{"consistency": "ALL", "page_size": 1, "parallel": 256}}), ""},
		{"no such reads", storage.DestinationSide, with(into, o{"load": o{}, "verify_read": o{"consistency": "SERIAL", "page_size": 0, "parallel": 1000}}), "verify_read.consistency verify_read.page_size verify_read.parallel"},
		{"from medusa", storage.DestinationSide, with(into, o{"load": o{}, "medusa": o{"command": "sudo medusa", "config_file": "/etc/m.ini"}}), ""},
		{"from medusa, badly", storage.DestinationSide, with(into, o{"load": o{}, "medusa": o{"command": " ", "config_file": "m.ini"}}), "medusa.command medusa.config_file"},
		{"from Cassy", storage.DestinationSide, with(into, o{"in_place": o{}, "cassy": o{"address": "cassy:20051"}}), ""},
		{"from Cassy, badly", storage.DestinationSide, with(into, o{"load": o{}, "cassy": o{"address": "cassy"}}), "cassy cassy.address"},
		{"no way", storage.DestinationSide, into, "contact_points"},
		{"load with owner", storage.DestinationSide, with(into, o{"load": o{"owner": "cassandra:cassandra"}}), ""},
		{"empty owner", storage.DestinationSide, with(into, o{"load": o{"owner": " "}}), "load.owner"},
		{"two ways", storage.DestinationSide, with(into, o{"load": o{}, "in_place": o{}}), "in_place"},
		{"load without ssh", storage.DestinationSide, with(into, o{"ssh": nil, "load": o{}}), "load"},
		{"into one", storage.DestinationSide, with(into, o{"load": o{"keyspaces": map[string]string{"a": "c", "b": "c"}}}), "load.keyspaces"},
		{"into system", storage.DestinationSide, with(into, o{"load": o{"keyspaces": map[string]string{"a": "system"}}}), "load.keyspaces"},
		{"replicas", storage.DestinationSide, with(into, o{"load": o{"replication": map[string]string{"dc1": "many"}}}), "load.replication"},
		{"directories", storage.DestinationSide, with(into, o{"same_topology": o{"commitlog_directory": "/", "start_command": ""}}), "same_topology.commitlog_directory same_topology.start_command"},
	} {
		var at []string
		(Kind{}).Validate(t.Context(), c.side, configOf(t, c.side, c.fields), func(a string) storage.PathSetter { return complaints{a, &at} })
		slices.Sort(at)
		if got := strings.Join(slices.Compact(at), " "); got != c.want {
			t.Errorf("%s: complains at %q, want %q", c.name, got, c.want)
		}
	}
}

// Every leaf says something, and names its default where it may be left out.
func TestDocs(t *testing.T) {
	var walk func(path string, attributes map[string]schema.Attribute)
	walk = func(path string, attributes map[string]schema.Attribute) {
		for name, a := range attributes {
			at := path + name
			if a.GetMarkdownDescription() == "" {
				t.Errorf("%s is not documented", at)
			}
			if n, ok := a.(schema.SingleNestedAttribute); ok {
				walk(at+".", n.Attributes)
			}
		}
	}
	walk("", (Kind{}).SourceAttributes())
	walk("", (Kind{}).DestinationAttributes())
	if len(description) == 0 {
		t.Error("there is no description")
	}
}

func TestDecode(t *testing.T) {
	config := configOf(t, storage.SourceSide, o{"contact_points": []string{"10.0.0.1"}, "port": 9142, "keyspaces": []string{"shop"}, "tls": true, "snapshot_timeout": "45s", "coordinator_namespace": "c",
		"ssh": o{"port": 2222, "known_hosts": "KEYS", "bastion": o{"host": "b", "user": "jump"}}, "transport": o{"jmx": o{"port": 7299, "ssh": true}},
		"data": o{"upload": o{"parallel": 8, "bandwidth_limit": 100, "data_directories": []string{"/d"}}}})
	env := storage.Env{StorageName: "orders", Clock: testclock.New(), Credentials: &storage.Credentials{Username: "u", Password: "p", SSH: &storage.SSHCredentials{Username: "deploy", Password: "x"}, JMX: &storage.JMXCredentials{Username: "j", Password: "k"}}}
	w := decode(config, env)
	s := w.settings()
	if s.Storage != "orders" || s.port() != 9142 || !s.TLS || s.snapshotTimeout().Seconds() != 45 || s.Layout.Coordinator() != "c" || s.Username != "u" || len(s.DataDirectories) != 1 || s.Keyspaces[0] != "shop" {
		t.Errorf("settings %+v", s)
	}
	s, err := s.reach(nil)
	must(t, err)
	if s.Transport.Name() != "jmx" || s.Files == nil {
		t.Errorf("transport %v, files %v", s.Transport, s.Files)
	}
	m, err := w.mover(w.Data.Place)
	must(t, err)
	if m.Name() != "upload" || !m.NeedsFiles() {
		t.Errorf("mover %v", m)
	}
	for _, name := range transports {
		w.Transport.Name = name
		s, err := w.settings().reach(nil)
		if err != nil || s.Transport.Name() != name {
			t.Errorf("transport %s: %v, %v", name, s.Transport, err)
		}
	}
	if src, diags := (Kind{}).NewSource(t.Context(), config, env); src == nil || diags.HasError() {
		t.Errorf("source %v, %v", src, diags)
	}
}

var _ storage.Kind = Kind{}

func TestToRead(t *testing.T) {
	env := storage.Env{StorageName: "orders", Namespaces: []string{"bank"}}
	w := decode(configOf(t, storage.SourceSide, with(o{"contact_points": []string{"10.0.0.1"}, "transport": o{"jmx": o{}}, "data": o{"keep_on_nodes": o{}}}, o{"keyspaces": []string{"shop"}, "verify_read": o{"consistency": "LOCAL_QUORUM", "page_size": 50, "parallel": 3}})), env)
	if r := w.toRead(storage.SourceSide); len(r.Keyspaces) != 1 || r.Keyspaces[0] != "shop" || r.Consistency != gocql.LocalQuorum || r.PageSize != 50 || r.Parallel != 3 {
		t.Errorf("of the source %+v", r)
	}
	if r := w.toRead(storage.DestinationSide); len(r.Keyspaces) != 1 || r.Keyspaces[0] != "bank" {
		t.Errorf("of a clone %+v", r)
	}
	for _, c := range consistencies {
		w.Read.Consistency = c
		if got := w.toRead(storage.SourceSide).Consistency.String(); got != c {
			t.Errorf("%s is read at %s", c, got)
		}
	}
}

func TestDecodeDestination(t *testing.T) {
	base := o{"contact_points": []string{"10.0.0.1"}, "transport": o{"jmx": o{}}}
	of := func(more o) DestinationSettings {
		return decode(configOf(t, storage.DestinationSide, with(base, more)), storage.Env{StorageName: "orders", Clock: testclock.New()}).destination()
	}
	s := of(o{"load": o{"keyspaces": map[string]string{"a": "b"}, "replication": map[string]string{"dc1": "3"}, "directory": "/d", "owner": "u:g", "via": "local"}})
	if s.Stopped != nil || s.Load == nil || s.Load.Keyspaces["a"] != "b" || s.Load.Replication["dc1"] != "3" || s.Load.Directory != "/d" || s.Load.Owner != "u:g" {
		t.Errorf("load %+v", s.Load)
	}
	if r, err := s.reach(nil); err != nil || r.Files == nil {
		t.Errorf("files %v, %v", r.Files, err)
	}
	s = of(o{"in_place": o{"via": "local"}})
	if s.Load != nil || s.Stopped == nil || !s.Stopped.InPlace || s.Stopped.StopCommand != "sudo systemctl stop cassandra" || s.Stopped.StartCommand != "sudo systemctl start cassandra" || s.Stopped.Owner != "cassandra:cassandra" {
		t.Errorf("in_place %+v", s.Stopped)
	}
	s = of(o{"same_topology": o{"stop_command": "a", "start_command": "b", "owner": "c:d", "data_directories": []string{"/e"}, "commitlog_directory": "/f", "hints_directory": "/g", "saved_caches_directory": "/h", "cdc_raw_directory": "/i"}})
	if want := (StoppedSettings{StopCommand: "a", StartCommand: "b", Owner: "c:d", CommitlogDirectory: "/f", HintsDirectory: "/g", SavedCachesDirectory: "/h", CDCRawDirectory: "/i"}); *s.Stopped != want || s.DataDirectories[0] != "/e" {
		t.Errorf("same_topology %+v", s.Stopped)
	}
	s = of(o{"in_place": o{"via": "local"}, "medusa": o{"command": "m", "config_file": "/m.ini"}, "cassy": o{"address": "cassy:20051"}})
	for kind, want := range map[string]move.Mover{
		snapshot.KindMedusa: medusa.Mover{Settings: medusa.Settings{Clock: s.Clock, Command: "m", ConfigFile: "/m.ini"}},
		snapshot.KindCassy:  cassy.Mover{Settings: cassy.Settings{Clock: s.Clock, Address: "cassy:20051"}},
	} {
		if m, err := s.Mover(kind); err != nil || m != want {
			t.Errorf("%s: %+v, %v", kind, m, err)
		}
	}
	if _, err := of(o{"in_place": o{"via": "local"}}).Mover(snapshot.KindCassy); err == nil || !strings.Contains(err.Error(), "set cassy") {
		t.Errorf("Cassy without an address: %v", err)
	}
	if d, diags := (Kind{}).NewDestination(t.Context(), configOf(t, storage.DestinationSide, with(base, o{"load": o{}})), storage.Env{Clock: testclock.New()}); d == nil || diags.HasError() {
		t.Errorf("destination %v, %v", d, diags)
	}
}
