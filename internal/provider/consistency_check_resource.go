package provider

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-timeouts/resource/timeouts"
	"github.com/hashicorp/terraform-plugin-framework-timetypes/timetypes"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/mapplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/objectplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
)

var (
	_ resource.ResourceWithConfigure      = (*consistencyCheckResource)(nil)
	_ resource.ResourceWithValidateConfig = (*consistencyCheckResource)(nil)
)

const checkCreateTimeout = 2 * time.Hour

type consistencyCheckResource struct {
	kinds []storage.Kind
	data  *data
}

type consistencyCheckModel struct {
	ID           types.String         `tfsdk:"id"`
	Storages     types.Map            `tfsdk:"storages"`
	BackupID     types.String         `tfsdk:"backup_id"`
	Window       types.Object         `tfsdk:"pause_window"`
	Drain        timetypes.GoDuration `tfsdk:"drain_timeout"`
	Triggers     types.Map            `tfsdk:"triggers"`
	Timeouts     timeouts.Value       `tfsdk:"timeouts"`
	CheckedAt    timetypes.RFC3339    `tfsdk:"checked_at"`
	Verification types.Object         `tfsdk:"verification"`
	verifyModel
}

func (r *consistencyCheckResource) Metadata(_ context.Context, req resource.MetadataRequest, resp *resource.MetadataResponse) {
	resp.TypeName = req.ProviderTypeName + "_consistency_check"
}

// checkWindowAttributes are what a check needs of a pause_window. The whole object may be given.
func checkWindowAttributes() map[string]attribute {
	out := map[string]attribute{}
	for name, a := range windowAttributes() {
		switch a := a.(type) {
		case schema.StringAttribute:
			a.Computed, a.Optional = false, true
			if name == "started_at" || name == "ended_at" {
				a.Optional, a.Required = false, true
			}
			out[name] = a
		case schema.Int64Attribute:
			a.Computed, a.Optional = false, true
			out[name] = a
		case schema.MapAttribute:
			a.Computed, a.Optional = false, true
			out[name] = a
		case schema.MapNestedAttribute:
			a.Computed, a.Optional = false, true
			nested := map[string]attribute{}
			for n, leaf := range a.NestedObject.Attributes {
				i := leaf.(schema.Int64Attribute) //nolint:forcetypeassert // written in window.go
				i.Computed, i.Optional = false, true
				nested[n] = i
			}
			a.NestedObject.Attributes = nested
			out[name] = a
		}
	}
	return out
}

func (r *consistencyCheckResource) Schema(ctx context.Context, _ resource.SchemaRequest, resp *resource.SchemaResponse) {
	attributes := verifyArguments()
	verification := verificationAttribute("The result of the check.")
	verification.PlanModifiers = []planmodifier.Object{objectplanmodifier.UseStateForUnknown()}
	attributes["id"] = schema.StringAttribute{Computed: true, MarkdownDescription: "Random id of the check.", PlanModifiers: []planmodifier.String{stringplanmodifier.UseStateForUnknown()}}
	attributes["storages"] = storagesAttribute(r.kinds, storage.SourceSide, true, false,
		"The storages to check, by name: all storages of one ScalarDB system. Each value sets exactly one driver object. They are only read.")
	attributes["backup_id"] = schema.StringAttribute{Optional: true, Validators: []validator.String{nameValidator()},
		MarkdownDescription: "Id of the backup that the storages are copies of; they are then named as in the backup. Its window and the tables it recorded are checked against. At most one of `backup_id` and `pause_window`."}
	attributes["pause_window"] = schema.SingleNestedAttribute{Optional: true, Attributes: checkWindowAttributes(),
		MarkdownDescription: "The pause window that the storages are copies of, for copies made by other means. Without it and without `backup_id` the storages are live: then only records that contradict the coordinator table are looked for."}
	attributes["drain_timeout"] = schema.StringAttribute{CustomType: timetypes.GoDurationType{}, Optional: true, Validators: []validator.String{duration{}},
		MarkdownDescription: "The drain timeout that the pause of `pause_window` was made with. Default `30s`; with `backup_id` the backup's own counts."}
	attributes["triggers"] = schema.MapAttribute{Optional: true, ElementType: types.StringType, MarkdownDescription: "Values of any meaning; a change, and nothing else, checks anew.",
		PlanModifiers: []planmodifier.Map{mapplanmodifier.RequiresReplace()}}
	attributes["timeouts"] = timeoutsAttribute(ctx, timeouts.Opts{Create: true, CreateDescription: "For the whole check. Default `2h`."})
	attributes["checked_at"] = schema.StringAttribute{CustomType: timetypes.RFC3339Type{}, Computed: true, MarkdownDescription: "When the check began. RFC 3339, UTC.", PlanModifiers: []planmodifier.String{stringplanmodifier.UseStateForUnknown()}}
	attributes["verification"] = verification
	resp.Schema = schema.Schema{
		MarkdownDescription: "One verification of given storages, recorded. Every transactional table is scanned; a violation fails the apply with counts and the first keys. " +
			"It is a resource because a data source would scan at every plan. Destroying it forgets the record.",
		Attributes: attributes,
	}
}

func (r *consistencyCheckResource) Configure(_ context.Context, req resource.ConfigureRequest, resp *resource.ConfigureResponse) {
	r.data = dataOf(req.ProviderData, &resp.Diagnostics)
}

// ValidateConfig refuses two windows, and names of storages that there are none of.
func (r *consistencyCheckResource) ValidateConfig(ctx context.Context, req resource.ValidateConfigRequest, resp *resource.ValidateConfigResponse) {
	var m consistencyCheckModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &m)...)
	if resp.Diagnostics.HasError() {
		return
	}
	if !m.BackupID.IsNull() && !m.Window.IsNull() && !m.BackupID.IsUnknown() && !m.Window.IsUnknown() {
		resp.Diagnostics.AddAttributeError(path.Root("pause_window"), "Check against two windows", "backup_id and pause_window are both set. Set at most one of them.")
	}
	if m.Storages.IsUnknown() || !whollyKnown(ctx, m.OnePhaseCommit) || !whollyKnown(ctx, m.AsyncCommit) {
		return
	}
	settings, diags := m.settings(ctx)
	resp.Diagnostics.Append(diags...)
	for _, problem := range unknownStorages(settings, keysOf(m.Storages.Elements())) {
		resp.Diagnostics.AddError("Unknown storage", problem)
	}
}

func (r *consistencyCheckResource) Create(ctx context.Context, req resource.CreateRequest, resp *resource.CreateResponse) {
	var m consistencyCheckModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &m)...)
	if resp.Diagnostics.HasError() {
		return
	}
	timeout, diags := m.Timeouts.Create(ctx, checkCreateTimeout)
	resp.Diagnostics.Append(diags...)
	storages, known, diags := readStorages(ctx, r.data.kinds, storage.SourceSide, m.Storages)
	resp.Diagnostics.Append(diags...)
	settings, diags := m.settings(ctx)
	resp.Diagnostics.Append(diags...)
	backup, live, diags := r.window(ctx, m, storages)
	resp.Diagnostics.Append(diags...)
	if !known && !diags.HasError() {
		resp.Diagnostics.AddError("Values are still unknown", "storages hold a value that is not known at apply. This is a bug in the provider or in Terraform.")
	}
	if resp.Diagnostics.HasError() {
		return
	}
	clock := r.data.deps.Clock
	ctx, cancel := clock.WithTimeout(ctx, timeout)
	defer cancel()

	readers := map[string]verify.Storage{}
	defer func() {
		for _, reader := range readers {
			_ = reader.Close() // read-only
		}
	}()
	for name, s := range storages {
		env, err := r.data.env(ctx, name, s.credentials)
		if err == nil {
			readers[name], err = openReader(s, env)(ctx)
		}
		if err != nil {
			delete(readers, name)
			resp.Diagnostics.Append(diagnose(&engine.Error{Phase: engine.PhaseVerify, Subject: name, Err: err}, subject{storages: keysOf(storages)})...)
		}
	}
	if resp.Diagnostics.HasError() {
		return
	}
	at := clock.Now()
	q := engine.VerifyRequest(backup, settings, readers, clock, func(message string, fields map[string]any) {
		logReporter{}.Report(ctx, engine.Event{At: clock.Now(), Phase: engine.PhaseVerify, Message: message, Fields: fields})
	})
	if live {
		q.Window, q.Expected = nil, nil
	}
	report, err := verify.Run(ctx, q)
	if err != nil {
		resp.Diagnostics.Append(diagnose(&engine.Error{Phase: engine.PhaseVerify, Err: err}, subject{})...)
		return
	}
	if !report.Passed {
		resp.Diagnostics.AddError("Consistency check failed", engine.Violations(report)+"\n\nThe check is not recorded: the next apply checks again.")
		return
	}
	m.ID, m.CheckedAt = types.StringValue(r.data.deps.NewRunID()), instant(at)
	m.Verification, diags = verificationValue(ctx, &report)
	resp.Diagnostics.Append(diags...)
	resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
}

// window is what the storages are checked against: a manifest, of which only the window counts where there is no backup. live says that there is neither.
func (r *consistencyCheckResource) window(ctx context.Context, m consistencyCheckModel, storages map[string]driverObject) (b engine.Manifest, live bool, diags diag.Diagnostics) {
	switch {
	case !m.BackupID.IsNull():
		c, known := r.data.catalog()
		if !known {
			diags.AddError("Values are still unknown", errUnknownCatalog.Error()+". This is a bug in the provider or in Terraform.")
			return b, false, diags
		}
		b, err := engine.ReadManifest(ctx, c, m.BackupID.ValueString())
		if err == nil {
			drivers := map[string]string{}
			for name, s := range storages {
				drivers[name] = s.kind.Name()
			}
			err = engine.Restorable(b, drivers)
		}
		if err != nil {
			diags.AddAttributeError(path.Root("backup_id"), "Storages cannot be checked against this backup", err.Error()+".")
		}
		return b, false, diags
	case m.Window.IsNull():
		return b, true, diags
	}
	var w windowModel
	diags.Append(m.Window.As(ctx, &w, asOptions)...)
	if diags.HasError() {
		return b, false, diags
	}
	var d diag.Diagnostics
	b.Window.StartedAt, d = w.StartedAt.ValueRFC3339Time()
	diags.Append(d...)
	b.Window.EndedAt, d = w.EndedAt.ValueRFC3339Time()
	diags.Append(d...)
	b.Pause.Drain, _ = durationOr(m.Drain, defaultDrain)
	if b.Window.EndedAt.Before(b.Window.StartedAt) {
		diags.AddAttributeError(path.Root("pause_window"), "Window ends before it begins", fmt.Sprintf("started_at is %s, ended_at is %s.", w.StartedAt.ValueString(), w.EndedAt.ValueString()))
	}
	return b, false, diags
}

// Read has nothing to look at: a check is over when it is recorded.
func (r *consistencyCheckResource) Read(context.Context, resource.ReadRequest, *resource.ReadResponse) {
}

// Update stores arguments; it never checks anew.
func (r *consistencyCheckResource) Update(ctx context.Context, req resource.UpdateRequest, resp *resource.UpdateResponse) {
	var m, state consistencyCheckModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &m)...)
	resp.Diagnostics.Append(req.State.Get(ctx, &state)...)
	if resp.Diagnostics.HasError() {
		return
	}
	m.ID, m.CheckedAt, m.Verification = state.ID, state.CheckedAt, state.Verification
	resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
}

// Delete forgets the record.
func (r *consistencyCheckResource) Delete(context.Context, resource.DeleteRequest, *resource.DeleteResponse) {
}
