package sqlite

import (
	"context"
	_ "embed"
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

// Kind is the driver "sqlite".
type Kind struct{}

var _ storage.Kind = Kind{}

// Name is "sqlite".
func (Kind) Name() string { return name }

// Description is description.md.
func (Kind) Description() string { return description }

// SourceAttributes are those of the database to be captured.
func (Kind) SourceAttributes() map[string]schema.Attribute {
	return attributes("Path of the database file, absolute or relative to the working directory. " +
		"The provider has to run on the machine that holds it.")
}

// DestinationAttributes are those of the database to be restored.
func (Kind) DestinationAttributes() map[string]schema.Attribute {
	return attributes("Path of the file to restore into, absolute or relative to the working directory. " +
		"It must not exist, or be a database without tables (an empty file will do: it keeps its owner and mode).")
}

func attributes(path string) map[string]schema.Attribute {
	return storage.With(map[string]schema.Attribute{
		"path": schema.StringAttribute{
			Required: true, MarkdownDescription: path,
			PlanModifiers: []planmodifier.String{storage.ReplaceString()},
		},
	})
}

// Validate refuses what can be no path or no namespace.
func (Kind) Validate(_ context.Context, _ storage.Side, config types.Object, at func(attribute string) storage.PathSetter) diag.Diagnostics {
	if path, ok := storage.Text(config, "path"); ok && (path == "" || strings.HasSuffix(path, "/") || strings.ContainsRune(path, 0)) {
		at("path").Error("Invalid path of an SQLite database", "The path must name a file.")
	} else if strings.HasPrefix(path, "jdbc:") || strings.HasPrefix(path, "file:") || path == ":memory:" {
		at("path").Error("Invalid path of an SQLite database", "The path is that of a file, not a URL: ScalarDB's contact point jdbc:sqlite:FILE?... has the path FILE.")
	}
	for _, a := range []string{"coordinator_namespace", "metadata_namespace"} {
		if ns, ok := storage.Text(config, a); ok && (ns == "" || strings.Contains(ns, separator)) {
			at(a).Error("Invalid namespace", "A namespace is not empty and, in SQLite, holds no \""+separator+"\". Leave the argument out for the default.")
		}
	}
	return nil
}

// NewSource opens nothing yet.
func (Kind) NewSource(_ context.Context, config types.Object, env storage.Env) (engine.Source, diag.Diagnostics) {
	return NewSource(decode(config), env.StorageName, env.CatalogIsDefault), nil
}

// NewDestination opens nothing yet.
func (Kind) NewDestination(_ context.Context, config types.Object, _ storage.Env) (engine.Destination, diag.Diagnostics) {
	return NewDestination(decode(config)), nil
}

// NewReader opens the database read-only.
func (Kind) NewReader(ctx context.Context, _ storage.Side, config types.Object, _ storage.Env) (verify.Storage, diag.Diagnostics) {
	r, err := NewReader(ctx, decode(config))
	if err != nil {
		return nil, diag.Diagnostics{diag.NewErrorDiagnostic("Opening an SQLite database", err.Error())}
	}
	return r, nil
}

// Artifacts is the catalog's.
func (Kind) Artifacts(_ types.Object, env storage.Env) engine.ArtifactStore {
	return dump.Keeper{Catalog: env.Catalog}
}

// Restores says that a dump is an artifact.
func (Kind) Restores() storage.Restores { return storage.Restores{FromArtifacts: true} }

func decode(config types.Object) Config {
	var c Config
	c.Path, _ = storage.Text(config, "path")
	c.Layout = storage.Namespaces(config)
	return c
}
