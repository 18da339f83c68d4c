package provider

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework/datasource"
	datasourceschema "github.com/hashicorp/terraform-plugin-framework/datasource/schema"
	fwpath "github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

var _ datasource.DataSource = (*configurationDataSource)(nil)

// singleStorage is the name given to the storage of a configuration that names none.
const singleStorage = "default"

// maxConfiguration bounds what is read of a file that may not be a configuration at all.
const maxConfiguration = 1 << 20

type configurationDataSource struct{}

type configurationModel struct {
	Path                 types.String `tfsdk:"path"`
	TransactionManager   types.String `tfsdk:"transaction_manager"`
	Storages             types.Map    `tfsdk:"storages"`
	CoordinatorStorage   types.String `tfsdk:"coordinator_storage"`
	CoordinatorNamespace types.String `tfsdk:"coordinator_namespace"`
	MetadataNamespace    types.String `tfsdk:"metadata_namespace"`
	GroupCommit          types.Bool   `tfsdk:"group_commit"`
	AsyncCommit          types.Bool   `tfsdk:"async_commit"`
	OnePhaseCommit       types.Bool   `tfsdk:"one_phase_commit"`
	PauseRequired        types.Bool   `tfsdk:"pause_required"`
	Reason               types.String `tfsdk:"reason"`
}

type configuredStorageModel struct {
	Storage    types.String `tfsdk:"storage"`
	Driver     types.String `tfsdk:"driver"`
	Hosts      []string     `tfsdk:"hosts"`
	Port       types.Int64  `tfsdk:"port"`
	Database   types.String `tfsdk:"database"`
	Namespaces []string     `tfsdk:"namespaces"`
}

func configuredStorageAttributes() map[string]attribute {
	return map[string]attribute{
		"storage":    computedString("ScalarDB's name of the kind of storage: `jdbc`, `cassandra`, `dynamo`, `cosmos`, …"),
		"driver":     computedString("The driver object of this provider that fits; null where there is none."),
		"hosts":      schema.ListAttribute{Computed: true, ElementType: types.StringType, MarkdownDescription: "Host names or addresses (the region, for `dynamo`); empty for a file."},
		"port":       computedInt("Port; null where the configuration names none."),
		"database":   computedString("Database name, or the path of a SQLite file; null where there is none."),
		"namespaces": schema.ListAttribute{Computed: true, ElementType: types.StringType, MarkdownDescription: "Namespaces that are mapped to the storage."},
	}
}

func (d *configurationDataSource) Metadata(_ context.Context, req datasource.MetadataRequest, resp *datasource.MetadataResponse) {
	resp.TypeName = req.ProviderTypeName + "_configuration"
}

func (d *configurationDataSource) Schema(_ context.Context, _ datasource.SchemaRequest, resp *datasource.SchemaResponse) {
	resp.Schema = datasourceschema.Schema{
		MarkdownDescription: "What a ScalarDB configuration file says of storages, and whether a consistent backup of them needs a pause. User names, passwords and whole URLs do not come out of it.",
		Attributes: toDataSourceSchema(map[string]attribute{
			"path":                schema.StringAttribute{Required: true, Validators: []validator.String{notEmpty{}}, MarkdownDescription: "Path of a ScalarDB `database.properties`, of a server rather than of a client."},
			"transaction_manager": computedString("`scalar.db.transaction_manager`; `consensus-commit` where the file does not say."),
			"storages": schema.MapNestedAttribute{Computed: true, MarkdownDescription: "The storages by name; the only one of a configuration without multi-storage is called `default`.",
				NestedObject: schema.NestedAttributeObject{Attributes: configuredStorageAttributes()}},
			"coordinator_storage":   computedString("The storage that holds the coordinator table; null where the configuration does not say."),
			"coordinator_namespace": computedString("Namespace of the coordinator table."),
			"metadata_namespace":    computedString("Namespace of ScalarDB's metadata tables."),
			"group_commit":          schema.BoolAttribute{Computed: true, MarkdownDescription: "Whether group commit is on."},
			"async_commit":          schema.BoolAttribute{Computed: true, MarkdownDescription: "Whether asynchronous commit is on: see `async_commit` of a verification."},
			"one_phase_commit":      schema.BoolAttribute{Computed: true, MarkdownDescription: "Whether one-phase commit is on: see `one_phase_commit` of a verification."},
			"pause_required":        schema.BoolAttribute{Computed: true, MarkdownDescription: "Whether a consistent backup needs a pause, as far as this file tells. Two services that share transactions (two-phase commit interface) need one in any case."},
			"reason":                computedString("Why, or why not."),
		}),
	}
}

func (d *configurationDataSource) Read(ctx context.Context, req datasource.ReadRequest, resp *datasource.ReadResponse) {
	var m configurationModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &m)...)
	if resp.Diagnostics.HasError() {
		return
	}
	properties, err := readPropertiesFile(m.Path.ValueString())
	if err != nil {
		resp.Diagnostics.AddAttributeError(fwpath.Root("path"), "Configuration could not be read", err.Error()+".")
		return
	}
	c, err := parseConfiguration(properties)
	if err != nil {
		resp.Diagnostics.AddAttributeError(fwpath.Root("path"), "Configuration could not be read", m.Path.ValueString()+": "+err.Error()+".")
		return
	}
	m.TransactionManager, m.CoordinatorStorage = text(c.manager), text(c.coordinatorStorage)
	m.CoordinatorNamespace, m.MetadataNamespace = text(c.coordinatorNamespace), text(c.metadataNamespace)
	m.GroupCommit, m.AsyncCommit, m.OnePhaseCommit = types.BoolValue(c.groupCommit), types.BoolValue(c.asyncCommit), types.BoolValue(c.onePhaseCommit)
	m.PauseRequired, m.Reason = types.BoolValue(c.pauseRequired), text(c.reason)
	storages := map[string]configuredStorageModel{}
	for name, s := range c.storages {
		sm := configuredStorageModel{Storage: text(s.kind), Driver: text(s.driver), Hosts: append([]string{}, s.hosts...), Database: text(s.database), Namespaces: append([]string{}, s.namespaces...), Port: types.Int64Null()}
		if s.port != 0 {
			sm.Port = types.Int64Value(s.port)
		}
		storages[name] = sm
	}
	v, diags := types.MapValueFrom(ctx, types.ObjectType{AttrTypes: attrTypes(configuredStorageAttributes())}, storages)
	resp.Diagnostics.Append(diags...)
	m.Storages = v
	resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
}

func readPropertiesFile(name string) (map[string]string, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxConfiguration {
		return nil, fmt.Errorf("reading the configuration %s: it is no file of at most %d bytes", name, maxConfiguration)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	m, err := parseProperties(string(data))
	if err == nil {
		err = validText(m)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the configuration %s: %w", name, err)
	}
	return m, nil
}

// configuration is what is read of a ScalarDB configuration: nothing secret.
type configuration struct {
	manager                                                     string
	storages                                                    map[string]configuredStorage
	coordinatorStorage, coordinatorNamespace, metadataNamespace string
	groupCommit, asyncCommit, onePhaseCommit                    bool
	pauseRequired                                               bool
	reason                                                      string
}

type configuredStorage struct {
	kind, driver string
	hosts        []string
	port         int64
	database     string
	namespaces   []string
}

func parseConfiguration(p map[string]string) (c configuration, err error) {
	get := func(key, def string) string {
		if v := strings.TrimSpace(p[key]); v != "" {
			return v
		}
		return def
	}
	const commit = "scalar.db.consensus_commit."
	c = configuration{
		manager: get("scalar.db.transaction_manager", "consensus-commit"), storages: map[string]configuredStorage{},
		coordinatorNamespace: get(commit+"coordinator.namespace", "coordinator"), metadataNamespace: get("scalar.db.system_namespace_name", "scalardb"),
		groupCommit: get(commit+"coordinator.group_commit.enabled", "") == "true", asyncCommit: get(commit+"async_commit.enabled", "") == "true",
		onePhaseCommit: get(commit+"one_phase_commit.enabled", "") == "true",
	}
	kind := get("scalar.db.storage", "cassandra")
	switch {
	case c.manager == "grpc" || c.manager == "cluster":
		c.pauseRequired = true
		c.reason = "This is the configuration of a client (transaction manager " + c.manager + "). The storages are in the configuration of the servers: read that one."
		return c, nil
	case kind != "multi-storage":
		s := parseStorage(kind, get("scalar.db.contact_points", ""), get("scalar.db.contact_port", ""))
		c.storages[singleStorage], c.coordinatorStorage = s, singleStorage
	default:
		if err := c.parseMultiStorage(get); err != nil {
			return configuration{}, err
		}
	}
	c.decidePause()
	return c, nil
}

func (c *configuration) parseMultiStorage(get func(key, def string) string) error {
	const prefix = "scalar.db.multi_storage."
	for _, name := range splitList(get(prefix+"storages", "")) {
		at := prefix + "storages." + name + "."
		c.storages[name] = parseStorage(get(at+"storage", "cassandra"), get(at+"contact_points", ""), get(at+"contact_port", ""))
	}
	if len(c.storages) == 0 {
		return fmt.Errorf("it is a multi-storage configuration whose %sstorages names none", prefix)
	}
	mapped := map[string]string{}
	for _, pair := range splitList(get(prefix+"namespace_mapping", "")) {
		namespace, name, ok := strings.Cut(pair, ":")
		s, known := c.storages[name]
		if !ok || !known {
			return fmt.Errorf("%snamespace_mapping maps %q to no storage of %sstorages", prefix, namespace, prefix)
		}
		mapped[namespace] = name
		s.namespaces = append(s.namespaces, namespace)
		slices.Sort(s.namespaces)
		c.storages[name] = s
	}
	def := get(prefix+"default_storage", "")
	if _, known := c.storages[def]; !known && def != "" {
		return fmt.Errorf("%sdefault_storage %q is not among %sstorages", prefix, def, prefix)
	}
	c.coordinatorStorage = def
	if name, ok := mapped[c.coordinatorNamespace]; ok {
		c.coordinatorStorage = name
	}
	return nil
}

// decidePause follows ScalarDB's own documentation: one database that has transactions can be dumped in one of them; everything else is consistent only in a pause.
func (c *configuration) decidePause() {
	names := slices.Sorted(maps.Keys(c.storages))
	c.pauseRequired = true
	if len(names) > 1 {
		c.reason = fmt.Sprintf("There are %d storages (%s): no transaction of one of them covers the others, so all have to be captured in one pause.", len(names), strings.Join(names, ", "))
		return
	}
	if s := c.storages[names[0]]; s.kind != "jdbc" {
		c.reason = fmt.Sprintf("The storage is %s, which cannot be captured in one transaction.", s.kind)
		return
	}
	c.pauseRequired = false
	c.reason = "All tables are in one relational database: a dump in one transaction of all of them, or point-in-time recovery, is consistent without a pause."
}

func splitList(s string) (out []string) {
	for _, part := range strings.Split(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}

// parseStorage reads where a storage is. Of a JDBC URL only host, port and database are kept: the rest may hold a password.
func parseStorage(kind, contactPoints, contactPort string) configuredStorage {
	s := configuredStorage{kind: kind}
	if port, err := strconv.ParseUint(contactPort, 10, 16); err == nil {
		s.port = int64(port)
	}
	switch kind {
	case "jdbc":
		s.parseJDBC(contactPoints)
	case "cassandra":
		s.driver = "cassandra"
		s.hosts = withoutUsers(splitList(contactPoints))
	case "dynamo":
		s.driver = "aws_dynamodb"
		s.hosts = withoutUsers(splitList(contactPoints))
	case "cosmos":
		s.driver = "azure_cosmosdb"
		if u, err := url.Parse(contactPoints); err == nil && u.Hostname() != "" {
			s.hosts = []string{u.Hostname()}
		}
	}
	return s
}

// parseJDBC knows the URLs jdbc:KIND://HOST[:PORT][,…]/DATABASE?… and jdbc:sqlite:FILE?….
func (s *configuredStorage) parseJDBC(raw string) {
	scheme, rest, ok := strings.Cut(strings.TrimPrefix(raw, "jdbc:"), ":")
	if !ok || !strings.HasPrefix(raw, "jdbc:") {
		return
	}
	rest, _, _ = strings.Cut(rest, "?")
	switch scheme {
	case "sqlite":
		s.driver, s.database = "sqlite", rest
		return
	case "postgresql":
		s.driver = "postgresql"
	case "mysql", "mariadb":
		s.driver = "mysql"
	default:
		return
	}
	authority, database, _ := strings.Cut(strings.TrimPrefix(rest, "//"), "/")
	s.database = path.Base("/" + database)
	if s.database == "/" {
		s.database = ""
	}
	for _, host := range withoutUsers(splitList(authority)) {
		if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
			if port, err := strconv.ParseUint(host[i+1:], 10, 16); err == nil {
				s.port, host = int64(port), host[:i]
			}
		}
		s.hosts = append(s.hosts, strings.Trim(host, "[]"))
	}
}

// withoutUsers drops what stands before an @.
func withoutUsers(hosts []string) (out []string) {
	for _, h := range hosts {
		out = append(out, h[strings.LastIndexByte(h, '@')+1:])
	}
	return out
}
