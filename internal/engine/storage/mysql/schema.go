package mysql

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/dump"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
)

//go:embed description.md
var description string

// Kind is the driver "mysql".
type Kind struct{}

var _ storage.Kind = Kind{}

// Name is "mysql".
func (Kind) Name() string { return name }

// Description is description.md.
func (Kind) Description() string { return description }

// SourceAttributes are those of the server to be captured.
func (Kind) SourceAttributes() map[string]schema.Attribute {
	return attributes("Name or address of the primary server. A replica, or a name that may lead to one, is refused.")
}

// DestinationAttributes are those of the server to be restored into.
func (Kind) DestinationAttributes() map[string]schema.Attribute {
	return attributes("Name or address of the server to restore into. The backup's namespaces (databases) must not exist there, or be empty; they keep their names.")
}

func attributes(host string) map[string]schema.Attribute {
	return storage.With(map[string]schema.Attribute{
		"host": schema.StringAttribute{
			Required: true, MarkdownDescription: host,
			PlanModifiers: []planmodifier.String{storage.ReplaceString()},
		},
		"port": schema.Int64Attribute{
			Optional: true, MarkdownDescription: "TCP port of the server. The default is 3306.",
			PlanModifiers: []planmodifier.Int64{storage.ReplaceInt64()},
		},
		"tls": schema.StringAttribute{
			Optional: true, MarkdownDescription: "Protection of the connections: `disabled`; `preferred` (encrypted if the server can, nothing is verified); `required` (encrypted, nothing is verified); " +
				"`verify_identity` (encrypted, and the server's certificate must be of `ca_pem` of the provider's `credentials` and name the `host`). " +
				"The default is `verify_identity` where the credentials have a `ca_pem`, else `preferred`.",
		},
		"jobs": schema.Int64Attribute{
			Optional: true, MarkdownDescription: "How many connections a verification may use at once. The default is 8; fewer make it read one table after the other. " +
				"A dump is always one stream: connections cannot share a snapshot in MySQL and MariaDB.",
		},
	})
}

// Validate refuses what can be no host, port, or mode.
func (Kind) Validate(_ context.Context, _ storage.Side, config types.Object, at func(attribute string) storage.PathSetter) diag.Diagnostics {
	if host, ok := storage.Text(config, "host"); ok {
		switch {
		case host == "" || strings.ContainsAny(host, " \t\r\n\x00,;@'\"`\\") || strings.HasPrefix(host, "-"):
			at("host").Error("Invalid host", "The host is one name or address.")
		case strings.Contains(host, "/"):
			at("host").Error("Invalid host", "The host is a name or an address, not a URL or a socket: ScalarDB's contact point jdbc:mysql://HOST:PORT/ has the host HOST.")
		case strings.Contains(host, ":") && (strings.Count(host, ":") == 1 || strings.HasPrefix(host, "[")):
			at("host").Error("Invalid host", "The port goes into the argument port, and an IPv6 address has no brackets.")
		}
	}
	if port, ok := storage.Whole(config, "port"); ok && (port < 1 || port > 65535) {
		at("port").Error("Invalid port", "A port is a number from 1 to 65535.")
	}
	if mode, ok := storage.Text(config, "tls"); ok {
		switch mode {
		case tlsDisabled, tlsPreferred, tlsRequired, tlsVerify:
		default:
			at("tls").Error("Invalid tls", fmt.Sprintf("tls is %q, %q, %q or %q, not %q.", tlsDisabled, tlsPreferred, tlsRequired, tlsVerify, mode))
		}
	}
	if jobs, ok := storage.Whole(config, "jobs"); ok && (jobs < 1 || jobs > 64) {
		at("jobs").Error("Invalid jobs", "jobs is a number from 1 to 64.")
	}
	for _, a := range []string{"coordinator_namespace", "metadata_namespace"} {
		if ns, ok := storage.Text(config, a); ok && ns == "" {
			at(a).Error("Invalid namespace", "A namespace is not empty. Leave the argument out for the default.")
		}
	}
	return nil
}

// NewSource opens nothing yet.
func (Kind) NewSource(_ context.Context, config types.Object, env storage.Env) (engine.Source, diag.Diagnostics) {
	o, diags := options(env)
	return NewSource(decode(config), o), diags
}

// NewDestination opens nothing yet.
func (Kind) NewDestination(_ context.Context, config types.Object, env storage.Env) (engine.Destination, diag.Diagnostics) {
	o, diags := options(env)
	return NewDestination(decode(config), o), diags
}

// NewReader connects.
func (Kind) NewReader(ctx context.Context, _ storage.Side, config types.Object, env storage.Env) (verify.Storage, diag.Diagnostics) {
	o, diags := options(env)
	if diags.HasError() {
		return nil, diags
	}
	r, err := NewReader(ctx, decode(config), o)
	if err != nil {
		diags.AddError("Opening a MySQL or MariaDB server", err.Error())
		return nil, diags
	}
	return r, diags
}

// Artifacts is the catalog's.
func (Kind) Artifacts(_ types.Object, env storage.Env) engine.ArtifactStore {
	return dump.Keeper{Catalog: env.Catalog}
}

// Restores says that a dump is an artifact.
func (Kind) Restores() storage.Restores { return storage.Restores{FromArtifacts: true} }

// options takes the login from the provider's entry, then from the environment, then from ~/.my.cnf.
func options(env storage.Env) (Options, diag.Diagnostics) {
	var given Login
	if c := env.Credentials; c != nil {
		given = Login{Username: c.Username, Password: c.Password, CAPEM: c.CAPEM, CertPEM: c.CertPEM, KeyPEM: c.KeyPEM}
	}
	var diags diag.Diagnostics
	file := ""
	if home := env.Getenv("HOME"); home != "" && (given.Username == "" || given.Password == "") {
		data, err := os.ReadFile(filepath.Join(home, ".my.cnf")) //nolint:gosec // the user's own option file
		if err != nil && !os.IsNotExist(err) {
			diags.AddWarning("Reading ~/.my.cnf", err.Error())
		}
		file = string(data)
	}
	return Options{Storage: env.StorageName, Login: login(given, env.Getenv, file), Clock: env.Clock, Getenv: env.Getenv, CatalogIsDefault: env.CatalogIsDefault}, diags
}

func decode(config types.Object) Config {
	var c Config
	c.Host, _ = storage.Text(config, "host")
	c.Port, _ = storage.Whole(config, "port")
	c.TLS, _ = storage.Text(config, "tls")
	c.Jobs, _ = storage.Whole(config, "jobs")
	c.Layout = storage.Namespaces(config)
	return c
}
