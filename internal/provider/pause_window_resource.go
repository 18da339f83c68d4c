package provider

import (
	"context"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-timeouts/resource/timeouts"
	"github.com/hashicorp/terraform-plugin-framework-timetypes/timetypes"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/int64planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/mapplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage"
)

var (
	_ resource.ResourceWithConfigure      = (*pauseWindowResource)(nil)
	_ resource.ResourceWithModifyPlan     = (*pauseWindowResource)(nil)
	_ resource.ResourceWithValidateConfig = (*pauseWindowResource)(nil)
)

const (
	windowCreateTimeout     = 30 * time.Minute
	defaultClockUncertainty = 2 * time.Second
)

type pauseWindowResource struct {
	kinds []storage.Kind
	data  *data
}

type pauseWindowModel struct {
	ID               types.String         `tfsdk:"id"`
	Name             types.String         `tfsdk:"name"`
	Pause            types.Object         `tfsdk:"pause"`
	Storages         types.Map            `tfsdk:"storages"`
	ClockUncertainty timetypes.GoDuration `tfsdk:"clock_uncertainty"`
	Timeouts         timeouts.Value       `tfsdk:"timeouts"`
	windowModel
}

func (r *pauseWindowResource) Metadata(_ context.Context, req resource.MetadataRequest, resp *resource.MetadataResponse) {
	resp.TypeName = req.ProviderTypeName + "_pause_window"
}

func (r *pauseWindowResource) Schema(ctx context.Context, _ resource.SchemaRequest, resp *resource.SchemaResponse) {
	attributes := windowAttributes()
	for name, a := range attributes {
		switch a := a.(type) {
		case schema.StringAttribute:
			a.PlanModifiers = []planmodifier.String{stringplanmodifier.UseStateForUnknown()}
			attributes[name] = a
		case schema.Int64Attribute:
			a.PlanModifiers = []planmodifier.Int64{int64planmodifier.UseStateForUnknown()}
			attributes[name] = a
		case schema.MapAttribute:
			a.PlanModifiers = []planmodifier.Map{mapplanmodifier.UseStateForUnknown()}
			attributes[name] = a
		case schema.MapNestedAttribute:
			a.PlanModifiers = []planmodifier.Map{mapplanmodifier.UseStateForUnknown()}
			attributes[name] = a
		}
	}
	attributes["id"] = schema.StringAttribute{Computed: true, MarkdownDescription: "The window's id: its name.", PlanModifiers: []planmodifier.String{stringplanmodifier.UseStateForUnknown()}}
	attributes["name"] = schema.StringAttribute{Required: true, MarkdownDescription: "Name of the window: " + nameRule + ". A change, and nothing else, pauses anew.",
		Validators: []validator.String{nameValidator()}, PlanModifiers: []planmodifier.String{stringplanmodifier.RequiresReplace()}}
	attributes["pause"] = resourcePause()
	attributes["storages"] = storagesAttribute(r.kinds, storage.SourceSide, false, false,
		"Storages whose clocks bound the safe interval, by name. Nothing is captured. Each value sets exactly one driver object.")
	attributes["clock_uncertainty"] = schema.StringAttribute{CustomType: timetypes.GoDurationType{}, Optional: true, Validators: []validator.String{duration{}},
		MarkdownDescription: "How far the clocks of the storages may be off against this machine's, where `storages` is not set: the safe interval is the window shrunk by this on both sides. Default `2s`."}
	attributes["timeouts"] = timeoutsAttribute(ctx, timeouts.Opts{Create: true, CreateDescription: "For the whole run, waiting for the lock included. Default `30m`."})
	resp.Schema = schema.Schema{
		MarkdownDescription: "A pause of all targets, held for `min_duration` and recorded, with a restore point for point-in-time recovery by other providers: " +
			"`restore_to_point_in_time { restore_time = scalardb_pause_window.x.restore_point }`. Destroying it forgets the record and touches nothing.",
		Attributes: attributes,
	}
}

func (r *pauseWindowResource) Configure(_ context.Context, req resource.ConfigureRequest, resp *resource.ConfigureResponse) {
	r.data = dataOf(req.ProviderData, &resp.Diagnostics)
}

// ValidateConfig refuses two ways to bound the clocks.
func (r *pauseWindowResource) ValidateConfig(ctx context.Context, req resource.ValidateConfigRequest, resp *resource.ValidateConfigResponse) {
	var m pauseWindowModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &m)...)
	if !resp.Diagnostics.HasError() && !m.Storages.IsNull() && !m.ClockUncertainty.IsNull() && !m.Storages.IsUnknown() && !m.ClockUncertainty.IsUnknown() {
		resp.Diagnostics.AddAttributeError(path.Root("clock_uncertainty"), "Two bounds of the clocks", "storages and clock_uncertainty are both set. Measured clocks (storages) need no assumed uncertainty: set one of them.")
	}
}

// ModifyPlan refuses a window without targets.
func (r *pauseWindowResource) ModifyPlan(ctx context.Context, req resource.ModifyPlanRequest, resp *resource.ModifyPlanResponse) {
	if r.data == nil || req.Plan.Raw.IsNull() || !req.State.Raw.IsNull() {
		return
	}
	var pause types.Object
	resp.Diagnostics.Append(req.Plan.GetAttribute(ctx, path.Root("pause"), &pause)...)
	if resp.Diagnostics.HasError() {
		return
	}
	_, _, diags := r.data.pauseFor(ctx, pause)
	resp.Diagnostics.Append(diags...)
}

func (r *pauseWindowResource) Create(ctx context.Context, req resource.CreateRequest, resp *resource.CreateResponse) {
	var m, config pauseWindowModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &m)...)
	resp.Diagnostics.Append(req.Config.Get(ctx, &config)...) // for the write-only key_pem
	if resp.Diagnostics.HasError() {
		return
	}
	timeout, diags := m.Timeouts.Create(ctx, windowCreateTimeout)
	resp.Diagnostics.Append(diags...)
	c, known, diags := r.data.pauseFor(ctx, config.Pause)
	resp.Diagnostics.Append(diags...)
	storages, storagesKnown, diags := readStorages(ctx, r.data.kinds, storage.SourceSide, m.Storages)
	resp.Diagnostics.Append(diags...)
	if resp.Diagnostics.HasError() {
		return
	}
	if !known || !storagesKnown {
		resp.Diagnostics.AddError("Values are still unknown", "pause or storages hold a value that is not known at apply. This is a bug in the provider or in Terraform.")
		return
	}
	c.settings.ServerClockBound = defaultServerClockBound
	q := engine.BackupRequest{Name: m.Name.ValueString(), Pause: c.settings, WindowOnly: true}
	q.ClockUncertainty, _ = durationOr(m.ClockUncertainty, defaultClockUncertainty)
	q.Unpauser = func(runID string) string { return r.data.unpauseCommand(runID, c.groups) }
	q.Groups, diags = r.data.groups(c.groups)
	resp.Diagnostics.Append(diags...)
	q.Storages, diags = r.data.sources(ctx, storages)
	resp.Diagnostics.Append(diags...)
	e, err := r.data.newEngine(ctx, c.groups)
	if err != nil {
		resp.Diagnostics.AddError("Engine could not be set up", err.Error()+". Nothing was touched.")
	}
	if resp.Diagnostics.HasError() {
		return
	}
	ctx, cancel := r.data.deps.Clock.WithTimeout(ctx, timeout)
	defer cancel()

	b, err := e.Backup(ctx, q)
	for _, w := range b.Warnings {
		resp.Diagnostics.AddWarning("Warning of a pause window", w)
	}
	resp.Diagnostics.Append(diagnose(err, subject{storages: keysOf(q.Storages), targets: true})...)
	if err != nil {
		return // a window that does not count leaves nothing behind
	}
	m.ID = types.StringValue(m.Name.ValueString())
	m.windowModel, diags = newWindowModel(ctx, b.Manifest.Window)
	resp.Diagnostics.Append(diags...)
	resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
}

// Read has nothing to look at: a window is over when it is recorded.
func (r *pauseWindowResource) Read(context.Context, resource.ReadRequest, *resource.ReadResponse) {}

// Update stores arguments; it never pauses.
func (r *pauseWindowResource) Update(ctx context.Context, req resource.UpdateRequest, resp *resource.UpdateResponse) {
	var m, state pauseWindowModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &m)...)
	resp.Diagnostics.Append(req.State.Get(ctx, &state)...)
	if resp.Diagnostics.HasError() {
		return
	}
	m.ID, m.windowModel = state.ID, state.windowModel
	resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
}

// Delete forgets the record.
func (r *pauseWindowResource) Delete(context.Context, resource.DeleteRequest, *resource.DeleteResponse) {
}
