package provider

import (
	"context"
	"strings"
	"testing"

	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/function"
	"github.com/hashicorp/terraform-plugin-framework/provider"
	"github.com/hashicorp/terraform-plugin-framework/providerserver"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-go/tfprotov6"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/all"
)

// Everything that is registered, by name: a change here is a change of the surface.
var (
	wantResources   = []string{"scalardb_consistency_check", "scalardb_consistent_backup", "scalardb_pause_window", "scalardb_pitr_restore", "scalardb_snapshot_restore"}
	wantDataSources = []string{"scalardb_backup", "scalardb_backups", "scalardb_configuration", "scalardb_targets"}
	wantFunctions   = []string{"parse_properties", "render_properties", "restore_point"}
)

// TestSchemas validates every schema with the drivers of the product, and wants every description filled.
func TestSchemas(t *testing.T) {
	ctx := context.Background()
	p := New(Dependencies{Version: "test", Kinds: all.Kinds()})()
	var ps provider.SchemaResponse
	p.Schema(ctx, provider.SchemaRequest{}, &ps)
	if d := ps.Schema.ValidateImplementation(ctx); d.HasError() {
		t.Errorf("provider: %v", d)
	}
	for _, f := range p.Resources(ctx) {
		r := f()
		var m resource.MetadataResponse
		r.Metadata(ctx, resource.MetadataRequest{ProviderTypeName: "scalardb"}, &m)
		var s resource.SchemaResponse
		r.Schema(ctx, resource.SchemaRequest{}, &s)
		if d := s.Schema.ValidateImplementation(ctx); d.HasError() {
			t.Errorf("%s: %v", m.TypeName, d)
		}
	}
	for _, f := range p.DataSources(ctx) {
		r := f()
		var m datasource.MetadataResponse
		r.Metadata(ctx, datasource.MetadataRequest{ProviderTypeName: "scalardb"}, &m)
		var s datasource.SchemaResponse
		r.Schema(ctx, datasource.SchemaRequest{}, &s)
		if d := s.Schema.ValidateImplementation(ctx); d.HasError() {
			t.Errorf("%s: %v", m.TypeName, d)
		}
	}
	for _, f := range p.(provider.ProviderWithFunctions).Functions(ctx) {
		var m function.MetadataResponse
		f().Metadata(ctx, function.MetadataRequest{}, &m)
		var d function.DefinitionResponse
		f().Definition(ctx, function.DefinitionRequest{}, &d)
		if d.Definition.Summary == "" || d.Definition.MarkdownDescription == "" {
			t.Errorf("function %s has no description", m.Name)
		}
	}

	server, err := providerserver.NewProtocol6WithError(p)()
	if err != nil {
		t.Fatal(err)
	}
	got, err := server.GetProviderSchema(ctx, &tfprotov6.GetProviderSchemaRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range got.Diagnostics {
		t.Errorf("%s: %s", d.Summary, d.Detail)
	}
	described(t, "provider", got.Provider.Block)
	if names := keysOf(got.ResourceSchemas); len(names) != len(wantResources) {
		t.Errorf("resources: %v, want %v", names, wantResources)
	}
	for _, name := range wantResources {
		if s := got.ResourceSchemas[name]; s == nil {
			t.Errorf("resource %s is missing", name)
		} else {
			described(t, name, s.Block)
		}
	}
	if names := keysOf(got.DataSourceSchemas); len(names) != len(wantDataSources) {
		t.Errorf("data sources: %v, want %v", names, wantDataSources)
	}
	for _, name := range wantDataSources {
		if s := got.DataSourceSchemas[name]; s == nil {
			t.Errorf("data source %s is missing", name)
		} else {
			described(t, name, s.Block)
		}
	}
	if names := keysOf(got.Functions); len(names) != len(wantFunctions) {
		t.Errorf("functions: %v, want %v", names, wantFunctions)
	}
	for _, name := range wantFunctions {
		if got.Functions[name] == nil {
			t.Errorf("function %s is missing", name)
		}
	}
}

func described(t *testing.T, at string, b *tfprotov6.SchemaBlock) {
	t.Helper()
	if strings.TrimSpace(b.Description) == "" {
		t.Errorf("%s has no description", at)
	}
	if len(b.BlockTypes) > 0 {
		t.Errorf("%s has blocks; it should have attributes only", at)
	}
	for _, a := range b.Attributes {
		describedAttribute(t, at+"."+a.Name, a)
	}
}

func describedAttribute(t *testing.T, at string, a *tfprotov6.SchemaAttribute) {
	t.Helper()
	if len(strings.TrimSpace(a.Description)) < 5 || a.DescriptionKind != tfprotov6.StringKindMarkdown {
		t.Errorf("%s has no Markdown description", at)
	}
	if a.NestedType == nil {
		return
	}
	for _, n := range a.NestedType.Attributes {
		describedAttribute(t, at+"."+n.Name, n)
	}
}
