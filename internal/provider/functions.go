package provider

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-timetypes/timetypes"
	"github.com/hashicorp/terraform-plugin-framework/function"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

var (
	_ function.Function = restorePointFunction{}
	_ function.Function = parsePropertiesFunction{}
	_ function.Function = renderPropertiesFunction{}
)

// restorePointFunction is restore_point.
type restorePointFunction struct{}

func (restorePointFunction) Metadata(_ context.Context, _ function.MetadataRequest, resp *function.MetadataResponse) {
	resp.Name = "restore_point"
}

func (restorePointFunction) Definition(_ context.Context, _ function.DefinitionRequest, resp *function.DefinitionResponse) {
	resp.Definition = function.Definition{
		Summary: "The instant to restore to, for a pause window noted by hand",
		MarkdownDescription: "Returns the whole second nearest below the middle of a pause window, or the first one after it where that lies outside; an error when the window holds none. RFC 3339, UTC. " +
			"It knows nothing of the storages' clocks: where the provider itself held the window, use its `restore_point` attribute.",
		Parameters: []function.Parameter{
			function.StringParameter{Name: "started_at", CustomType: timetypes.RFC3339Type{}, MarkdownDescription: "Begin of the window, RFC 3339."},
			function.StringParameter{Name: "ended_at", CustomType: timetypes.RFC3339Type{}, MarkdownDescription: "End of the window, RFC 3339."},
		},
		Return: function.StringReturn{},
	}
}

func (restorePointFunction) Run(ctx context.Context, req function.RunRequest, resp *function.RunResponse) {
	var started, ended timetypes.RFC3339
	if resp.Error = req.Arguments.Get(ctx, &started, &ended); resp.Error != nil {
		return
	}
	from, diags := started.ValueRFC3339Time()
	resp.Error = function.ConcatFuncErrors(resp.Error, function.FuncErrorFromDiags(ctx, diags))
	until, diags := ended.ValueRFC3339Time()
	resp.Error = function.ConcatFuncErrors(resp.Error, function.FuncErrorFromDiags(ctx, diags))
	if resp.Error != nil {
		return
	}
	if until.Before(from) {
		resp.Error = function.NewArgumentFuncError(1, fmt.Sprintf("the window ends (%s) before it begins (%s)", ended.ValueString(), started.ValueString()))
		return
	}
	at, ok := engine.RestorePoint(from, until, time.Second)
	if !ok {
		resp.Error = function.NewFuncError(fmt.Sprintf("the window from %s to %s holds no whole second, and restores by time go to whole seconds", started.ValueString(), ended.ValueString()))
		return
	}
	resp.Error = resp.Result.Set(ctx, at.UTC().Format(time.RFC3339))
}

// parsePropertiesFunction is parse_properties.
type parsePropertiesFunction struct{}

func (parsePropertiesFunction) Metadata(_ context.Context, _ function.MetadataRequest, resp *function.MetadataResponse) {
	resp.Name = "parse_properties"
}

func (parsePropertiesFunction) Definition(_ context.Context, _ function.DefinitionRequest, resp *function.DefinitionResponse) {
	resp.Definition = function.Definition{
		Summary:             "Reads the text of a Java .properties file",
		MarkdownDescription: "Returns the properties of a text in Java's `.properties` format as a map. Everything in it comes out, passwords too: `data.scalardb_configuration` reads a ScalarDB configuration without them.",
		Parameters:          []function.Parameter{function.StringParameter{Name: "text", MarkdownDescription: "The text, for example `file(\"database.properties\")`."}},
		Return:              function.MapReturn{ElementType: types.StringType},
	}
}

func (parsePropertiesFunction) Run(ctx context.Context, req function.RunRequest, resp *function.RunResponse) {
	var text string
	if resp.Error = req.Arguments.Get(ctx, &text); resp.Error != nil {
		return
	}
	m, err := parseProperties(text)
	if err == nil {
		err = validText(m)
	}
	if err != nil {
		resp.Error = function.NewArgumentFuncError(0, "reading properties: "+err.Error())
		return
	}
	resp.Error = resp.Result.Set(ctx, m)
}

// renderPropertiesFunction is render_properties.
type renderPropertiesFunction struct{}

func (renderPropertiesFunction) Metadata(_ context.Context, _ function.MetadataRequest, resp *function.MetadataResponse) {
	resp.Name = "render_properties"
}

func (renderPropertiesFunction) Definition(_ context.Context, _ function.DefinitionRequest, resp *function.DefinitionResponse) {
	resp.Definition = function.Definition{
		Summary:             "Writes a map as the text of a Java .properties file",
		MarkdownDescription: "Returns the text of a `.properties` file that holds the map, sorted by key: for example `merge(scalardb_snapshot_restore.x.scalardb_properties, { … })`.",
		Parameters:          []function.Parameter{function.MapParameter{Name: "properties", ElementType: types.StringType, MarkdownDescription: "The properties."}},
		Return:              function.StringReturn{},
	}
}

func (renderPropertiesFunction) Run(ctx context.Context, req function.RunRequest, resp *function.RunResponse) {
	var m map[string]string
	if resp.Error = req.Arguments.Get(ctx, &m); resp.Error != nil {
		return
	}
	resp.Error = resp.Result.Set(ctx, renderProperties(m))
}
