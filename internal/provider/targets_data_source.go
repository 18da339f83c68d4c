package provider

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/datasource"
	datasourceschema "github.com/hashicorp/terraform-plugin-framework/datasource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

var _ datasource.DataSourceWithConfigure = (*targetsDataSource)(nil)

// targetsTimeout bounds a look at all targets: a data source is read at every plan.
const targetsTimeout = 20 * time.Second

type targetsDataSource struct{ data *data }

type targetsModel struct {
	Targets types.List `tfsdk:"targets"`
	Paused  types.Bool `tfsdk:"paused"`
}

type targetModel struct {
	Group       types.String `tfsdk:"group"`
	Address     types.String `tfsdk:"address"`
	Name        types.String `tfsdk:"name"`
	Incarnation types.String `tfsdk:"incarnation"`
	Paused      types.Bool   `tfsdk:"paused"`
	Error       types.String `tfsdk:"error"`
}

func targetAttributes() map[string]attribute {
	return map[string]attribute{
		"group":       computedString("The target group."),
		"address":     computedString("Address of the target as it was resolved, `IP:port`."),
		"name":        computedString("Address of the target as it is configured, or as DNS SRV named it."),
		"incarnation": computedString("Changes when the target restarts, where the resolver can tell; else null."),
		"paused":      schema.BoolAttribute{Computed: true, MarkdownDescription: "Whether the target says that it is paused; null when it did not answer."},
		"error":       computedString("Why the target did not answer; null when it did."),
	}
}

func (d *targetsDataSource) Metadata(_ context.Context, req datasource.MetadataRequest, resp *datasource.MetadataResponse) {
	resp.TypeName = req.ProviderTypeName + "_targets"
}

func (d *targetsDataSource) Schema(_ context.Context, _ datasource.SchemaRequest, resp *datasource.SchemaResponse) {
	resp.Schema = datasourceschema.Schema{
		MarkdownDescription: "The targets that the provider's `pause` would pause, resolved now, and whether they are paused. Nothing is paused by it. A target that does not answer is no error: see its `error`.",
		Attributes: toDataSourceSchema(map[string]attribute{
			"targets": schema.ListNestedAttribute{Computed: true, MarkdownDescription: "The targets, by group and address.", NestedObject: schema.NestedAttributeObject{Attributes: targetAttributes()}},
			"paused":  schema.BoolAttribute{Computed: true, MarkdownDescription: "Whether any target says that it is paused."},
		}),
	}
}

func (d *targetsDataSource) Configure(_ context.Context, req datasource.ConfigureRequest, resp *datasource.ConfigureResponse) {
	d.data = dataOf(req.ProviderData, &resp.Diagnostics)
}

func (d *targetsDataSource) Read(ctx context.Context, _ datasource.ReadRequest, resp *datasource.ReadResponse) {
	c, known, diags := d.data.pauseFor(ctx, types.ObjectNull(pauseType().AttrTypes))
	resp.Diagnostics.Append(diags...)
	if resp.Diagnostics.HasError() {
		return
	}
	if !known {
		resp.Diagnostics.AddError("Targets are not known yet", "The provider's pause holds a value that is known only after apply, so the targets cannot be looked up at plan.")
		return
	}
	groups, diags := d.data.groups(c.groups)
	resp.Diagnostics.Append(diags...)
	if resp.Diagnostics.HasError() {
		return
	}
	ctx, cancel := d.data.deps.Clock.WithTimeout(ctx, targetsTimeout)
	defer cancel()
	list := []targetModel{}
	for name, g := range groups {
		found, err := g.Resolver.Resolve(ctx)
		if err != nil {
			resp.Diagnostics.AddError(summaries[engine.PhaseResolve], fmt.Sprintf("Target group %s: %s.", name, err))
			continue
		}
		models := make([]targetModel, len(found))
		var wg sync.WaitGroup
		for i, t := range found {
			t.Group = name
			wg.Go(func() { models[i] = look(ctx, g.Dialer, t) })
		}
		wg.Wait()
		list = append(list, models...)
	}
	if resp.Diagnostics.HasError() {
		return
	}
	slices.SortFunc(list, func(a, b targetModel) int {
		return strings.Compare(a.Group.ValueString()+"\x00"+a.Address.ValueString(), b.Group.ValueString()+"\x00"+b.Address.ValueString())
	})
	paused := slices.ContainsFunc(list, func(t targetModel) bool { return t.Paused.ValueBool() })
	v, diags := types.ListValueFrom(ctx, types.ObjectType{AttrTypes: attrTypes(targetAttributes())}, list)
	resp.Diagnostics.Append(diags...)
	resp.Diagnostics.Append(resp.State.Set(ctx, targetsModel{Targets: v, Paused: types.BoolValue(paused)})...)
}

// look asks one target whether it is paused.
func look(ctx context.Context, dialer engine.Dialer, t engine.Target) targetModel {
	m := targetModel{Group: text(t.Group), Address: text(t.Address), Name: text(t.Name), Incarnation: text(t.Incarnation), Paused: types.BoolNull(), Error: types.StringNull()}
	conn, err := dialer.Dial(ctx, t)
	if err != nil {
		m.Error = types.StringValue(err.Error())
		return m
	}
	defer func() { _ = conn.Close() }() // nothing more is asked of it
	paused, err := conn.CheckPaused(ctx)
	if err != nil {
		m.Error = types.StringValue(err.Error())
		return m
	}
	m.Paused = types.BoolValue(paused)
	return m
}
