package postgresql

import (
	"context"
	_ "embed"
	"fmt"
	"slices"
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

// Kind is the driver "postgresql".
type Kind struct{}

var _ storage.Kind = Kind{}

// Name is "postgresql".
func (Kind) Name() string { return kindName }

// Description is description.md.
func (Kind) Description() string { return description }

// SourceAttributes are those of the database to be captured.
func (Kind) SourceAttributes() map[string]schema.Attribute {
	a := attributes("Host name or address of the primary, reached directly: no pooler in transaction mode, no standby. A path (`/var/run/postgresql`) is that of a Unix socket's folder.",
		"Name of the database that holds ScalarDB's schemas.",
		"How many tables are dumped at once; the default is 4. The server must allow `jobs` + 3 connections.")
	// They choose the schemas that are dumped.
	for _, name := range []string{"coordinator_namespace", "metadata_namespace"} {
		namespace := a[name].(schema.StringAttribute) //nolint:forcetypeassert // With made it
		namespace.PlanModifiers = []planmodifier.String{storage.ReplaceString()}
		a[name] = namespace
	}
	return a
}

// DestinationAttributes are those of the database to be restored into.
func (Kind) DestinationAttributes() map[string]schema.Attribute {
	a := attributes("Host name or address of the primary of the server to restore into.",
		"Name of the database to restore into. If there is none of that name it is created; else it must have no tables.",
		"How many tables are restored at once; the default is 4. The server must allow `jobs` + 1 connections.")
	a["maintenance_database"] = schema.StringAttribute{
		Optional: true, MarkdownDescription: "Database to connect to for `CREATE DATABASE`. The default is `postgres`.",
	}
	return a
}

func attributes(host, database, jobs string) map[string]schema.Attribute {
	return storage.With(map[string]schema.Attribute{
		"host": schema.StringAttribute{
			Required: true, MarkdownDescription: host,
			PlanModifiers: []planmodifier.String{storage.ReplaceString()},
		},
		"port": schema.Int64Attribute{
			Optional: true, MarkdownDescription: "Port. Without it `PGPORT`, or 5432.",
			PlanModifiers: []planmodifier.Int64{storage.ReplaceInt64()},
		},
		"database": schema.StringAttribute{
			Required: true, MarkdownDescription: database,
			PlanModifiers: []planmodifier.String{storage.ReplaceString()},
		},
		"ssl_mode": schema.StringAttribute{
			Optional: true, MarkdownDescription: "`disable`, `allow`, `prefer`, `require`, `verify-ca` or `verify-full`, as in libpq. Without it `PGSSLMODE`, or `prefer`; `verify-full` when the credentials have a `ca_pem`.",
		},
		"jobs": schema.Int64Attribute{Optional: true, MarkdownDescription: jobs},
	})
}

const maxJobs = 64

var sslModes = []string{"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}

// Validate refuses what no server can be reached by.
func (Kind) Validate(_ context.Context, _ storage.Side, config types.Object, at func(attribute string) storage.PathSetter) diag.Diagnostics {
	if host, ok := storage.Text(config, "host"); ok {
		switch {
		case host == "":
			at("host").Error("Invalid host of a PostgreSQL storage", "The host must not be empty.")
		case strings.Contains(host, ","):
			at("host").Error("Invalid host of a PostgreSQL storage", "A backup is of one server: give the primary only.")
		case strings.Contains(host, "://"):
			at("host").Error("Invalid host of a PostgreSQL storage", "The host is a name or an address, not a URL: ScalarDB's contact point jdbc:postgresql://HOST:PORT/DATABASE has the three arguments host, port and database.")
		}
	}
	if port, ok := storage.Whole(config, "port"); ok && (port < 1 || port > 65535) {
		at("port").Error("Invalid port", fmt.Sprintf("%d is no port: it must be from 1 to 65535.", port))
	}
	if jobs, ok := storage.Whole(config, "jobs"); ok && (jobs < 1 || jobs > maxJobs) {
		at("jobs").Error("Invalid number of jobs", fmt.Sprintf("%d is not from 1 to %d.", jobs, maxJobs))
	}
	if mode, ok := storage.Text(config, "ssl_mode"); ok && !slices.Contains(sslModes, mode) {
		at("ssl_mode").Error("Invalid ssl_mode", fmt.Sprintf("%q is none of %s.", mode, strings.Join(sslModes, ", ")))
	}
	for _, a := range []string{"database", "maintenance_database", "coordinator_namespace", "metadata_namespace"} {
		if v, ok := storage.Text(config, a); ok && (v == "" || strings.ContainsRune(v, 0) || len(v) > 63) {
			at(a).Error("Invalid name", "A name of PostgreSQL has 1 to 63 bytes.")
		}
	}
	return nil
}

// NewSource opens nothing yet.
func (Kind) NewSource(_ context.Context, config types.Object, env storage.Env) (engine.Source, diag.Diagnostics) {
	return NewSource(decode(config, env)), nil
}

// NewDestination opens nothing yet.
func (Kind) NewDestination(_ context.Context, config types.Object, env storage.Env) (engine.Destination, diag.Diagnostics) {
	return NewDestination(decode(config, env)), nil
}

// NewReader connects to the database.
func (Kind) NewReader(ctx context.Context, _ storage.Side, config types.Object, env storage.Env) (verify.Storage, diag.Diagnostics) {
	r, err := NewReader(ctx, decode(config, env))
	if err != nil {
		return nil, diag.Diagnostics{diag.NewErrorDiagnostic("Opening a PostgreSQL database", err.Error())}
	}
	return r, nil
}

// Artifacts is the catalog's.
func (Kind) Artifacts(_ types.Object, env storage.Env) engine.ArtifactStore {
	return dump.Keeper{Catalog: env.Catalog}
}

// Restores says that a dump is an artifact.
func (Kind) Restores() storage.Restores { return storage.Restores{FromArtifacts: true} }

func decode(config types.Object, env storage.Env) Settings {
	s := Settings{Storage: env.StorageName, Clock: env.Clock, CatalogIsDefault: env.CatalogIsDefault, Getenv: env.Getenv}
	s.Host, _ = storage.Text(config, "host")
	s.Port, _ = storage.Whole(config, "port")
	s.Database, _ = storage.Text(config, "database")
	s.SSLMode, _ = storage.Text(config, "ssl_mode")
	s.Jobs, _ = storage.Whole(config, "jobs")
	s.Maintenance, _ = storage.Text(config, "maintenance_database")
	s.Layout = storage.Namespaces(config)
	if c := env.Credentials; c != nil {
		s.Username, s.Password, s.CAPEM, s.CertPEM, s.KeyPEM = c.Username, c.Password, c.CAPEM, c.CertPEM, c.KeyPEM
	}
	return s
}
