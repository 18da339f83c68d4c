package provider

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-timetypes/timetypes"
	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage"
)

var (
	_ resource.ResourceWithConfigure      = (*pitrRestoreResource)(nil)
	_ resource.ResourceWithModifyPlan     = (*pitrRestoreResource)(nil)
	_ resource.ResourceWithImportState    = (*pitrRestoreResource)(nil)
	_ resource.ResourceWithValidateConfig = (*pitrRestoreResource)(nil)
)

// pitrRestoreCreateTimeout leaves time for terabytes: a point-in-time recovery replays logs.
const pitrRestoreCreateTimeout = 12 * time.Hour

type pitrRestoreResource struct{ restorer }

func newPITRRestore(kinds []storage.Kind) *pitrRestoreResource {
	return &pitrRestoreResource{restorer{kinds: restoring(kinds, func(r storage.Restores) bool { return r.ByTime })}}
}

type pitrRestoreModel struct {
	restoreModel
	PauseWindow  types.Object      `tfsdk:"pause_window"`
	BackupID     types.String      `tfsdk:"backup_id"`
	RestorePoint timetypes.RFC3339 `tfsdk:"restore_point"`
}

func (r *pitrRestoreResource) Metadata(_ context.Context, req resource.MetadataRequest, resp *resource.MetadataResponse) {
	resp.TypeName = req.ProviderTypeName + "_pitr_restore"
}

func (r *pitrRestoreResource) Schema(ctx context.Context, _ resource.SchemaRequest, resp *resource.SchemaResponse) {
	attributes := restoreAttributes(ctx, r.kinds,
		"The new databases, by the storage's name in the backup. Of a backup whose manifest is in the catalog, all storages that are restored by time have to be there, since a system restored in part is not consistent. Each value sets the driver object of the storage, with its source and what the restored one is called.",
		"For restoring and verifying, and for waiting until the restore point can be restored to (minutes behind). Default `12h`.")
	attributes["pause_window"] = schema.SingleNestedAttribute{Optional: true, Attributes: settable(windowAttributes()),
		MarkdownDescription: "The pause window to restore to: `scalardb_consistent_backup.x.pause_window`, or a whole `scalardb_pause_window.x`. Exactly one of `pause_window` and `backup_id`. Another window restores anew; " +
			"with `lifecycle { ignore_changes = [pause_window] }` a clone stays until it is replaced on purpose."}
	attributes["backup_id"] = schema.StringAttribute{Optional: true, Validators: []validator.String{nameValidator()},
		MarkdownDescription: "Id of a backup whose window is read from the catalog. Exactly one of `pause_window` and `backup_id`. Another backup restores anew."}
	attributes["restore_point"] = schema.StringAttribute{CustomType: timetypes.RFC3339Type{}, Optional: true, Computed: true,
		MarkdownDescription: "The instant to restore to, RFC 3339; in the safe interval of the pause window, on whole seconds. Default: the window's restore point. Another one restores anew."}
	resp.Schema = schema.Schema{
		MarkdownDescription: "The storages of one pause window restored by point-in-time recovery into new databases, at one instant at which no transaction was half done, and proved consistent. " +
			"A restore outlives its backup: deleting the backup later changes nothing here.",
		Attributes: attributes,
	}
}

// settable turns computed attributes into optional ones, for an object that is given here.
func settable(attributes map[string]attribute) map[string]attribute {
	out := make(map[string]attribute, len(attributes))
	for name, a := range attributes {
		switch a := a.(type) {
		case schema.StringAttribute:
			a.Computed, a.Optional = false, true
			out[name] = a
		case schema.Int64Attribute:
			a.Computed, a.Optional = false, true
			out[name] = a
		case schema.MapAttribute:
			a.Computed, a.Optional = false, true
			out[name] = a
		case schema.MapNestedAttribute:
			a.Computed, a.Optional = false, true
			a.NestedObject.Attributes = settable(a.NestedObject.Attributes)
			out[name] = a
		default:
			panic(fmt.Sprintf("settable: no case for %T", a)) // at the first schema that any test asks for
		}
	}
	return out
}

func (r *pitrRestoreResource) Configure(_ context.Context, req resource.ConfigureRequest, resp *resource.ConfigureResponse) {
	r.data = dataOf(req.ProviderData, &resp.Diagnostics)
}

// ValidateConfig wants exactly one window, and known names in verify.
func (r *pitrRestoreResource) ValidateConfig(ctx context.Context, req resource.ValidateConfigRequest, resp *resource.ValidateConfigResponse) {
	var m pitrRestoreModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &m)...)
	if resp.Diagnostics.HasError() {
		return
	}
	switch {
	case m.BackupID.IsUnknown() || m.PauseWindow.IsUnknown():
	case m.BackupID.IsNull() && m.PauseWindow.IsNull():
		resp.Diagnostics.AddError("Restore without a pause window", "Set exactly one of pause_window and backup_id.")
	case !m.BackupID.IsNull() && !m.PauseWindow.IsNull():
		resp.Diagnostics.AddAttributeError(path.Root("backup_id"), "Restore of two windows", "pause_window and backup_id are both set. Set exactly one of them.")
	}
	if at, known := instantOf(m.RestorePoint); known && !at.IsZero() && !at.Equal(at.Truncate(time.Second)) {
		resp.Diagnostics.AddAttributeError(path.Root("restore_point"), "Invalid restore point", "Databases are restored to whole seconds, by point-in-time recovery: leave the fraction out.")
	}
	resp.Diagnostics.Append(validateVerify(ctx, m.restoreModel)...)
}

// instantOf is the zero time for null; known is false for an unknown value.
func instantOf(v timetypes.RFC3339) (at time.Time, known bool) {
	if v.IsUnknown() {
		return time.Time{}, false
	}
	if v.IsNull() {
		return time.Time{}, true
	}
	at, diags := v.ValueRFC3339Time()
	return at.UTC(), !diags.HasError()
}

// backup is what is known of the backup: its manifest, where the catalog has it, else its window alone. known is false while it cannot be known yet.
func (r *pitrRestoreResource) backup(ctx context.Context, m pitrRestoreModel) (b engine.Manifest, at path.Path, known bool, err error) {
	c, catalogKnown := r.data.catalog()
	if !m.BackupID.IsNull() {
		at = path.Root("backup_id")
		if m.BackupID.IsUnknown() || !catalogKnown {
			return b, at, false, nil
		}
		b, err = readNamedBackup(ctx, c, m.BackupID.ValueString())
		return b, at, true, err
	}
	at = path.Root("pause_window")
	if !whollyKnown(ctx, m.PauseWindow) || m.PauseWindow.IsNull() || !catalogKnown {
		return b, at, false, nil
	}
	w, err := readWindow(ctx, m.PauseWindow)
	if err != nil {
		return b, at, true, err
	}
	if w.BackupID != "" {
		b, err = engine.ReadManifest(ctx, c, w.BackupID)
		switch {
		case errors.Is(err, engine.ErrNotFound):
			// A pause window on its own, or a backup of another catalog.
		case err != nil:
			return b, at, true, err
		case b.Window.StartedAt.Equal(w.StartedAt) && b.Window.SafeFrom.Equal(w.SafeFrom) && b.Window.SafeUntil.Equal(w.SafeUntil):
			return b, at, true, nil
		default:
			return b, at, true, fmt.Errorf("the catalog has a backup %s with another pause window (it began at %s, not at %s)", w.BackupID, b.Window.StartedAt.Format(time.RFC3339Nano), w.StartedAt.Format(time.RFC3339Nano))
		}
	}
	// The drain timeout is not part of a window: the longer of the default and what was seen covers it for verification.
	drain := max(defaultDrain, time.Duration(w.DrainMS)*time.Millisecond)
	return engine.WindowManifest(w, engine.PauseSettings{Drain: drain, ServerClockBound: defaultServerClockBound}), at, true, nil
}

// readWindow decodes `pause_window`.
func readWindow(ctx context.Context, v types.Object) (engine.PauseWindow, error) {
	var m windowModel
	if err := errorOf(v.As(ctx, &m, asOptions)); err != nil {
		return engine.PauseWindow{}, err
	}
	w := engine.PauseWindow{BackupID: m.BackupID.ValueString(), Status: m.Status.ValueString(), DurationMS: m.DurationMS.ValueInt64(), DrainMS: m.DrainMS.ValueInt64(),
		Targets: map[string][]engine.TargetRecord{}, ClockBounds: map[string]engine.ClockBoundMS{}}
	for to, from := range map[*time.Time]timetypes.RFC3339{&w.StartedAt: m.StartedAt, &w.EndedAt: m.EndedAt, &w.RestorePoint: m.RestorePoint, &w.SafeFrom: m.SafeFrom, &w.SafeUntil: m.SafeUntil} {
		*to, _ = instantOf(from)
	}
	var targets map[string][]targetRecordModel
	var bounds map[string]clockBoundModel
	diags := m.Targets.ElementsAs(ctx, &targets, false)
	diags.Append(m.ClockBounds.ElementsAs(ctx, &bounds, false)...)
	if err := errorOf(diags); err != nil {
		return engine.PauseWindow{}, err
	}
	for group, records := range targets {
		for _, t := range records {
			paused, _ := instantOf(t.PausedAt)
			unpaused, _ := instantOf(t.UnpausedAt)
			w.Targets[group] = append(w.Targets[group], engine.TargetRecord{Address: t.Address.ValueString(), Incarnation: t.Incarnation.ValueString(), PausedAt: paused, UnpausedAt: unpaused})
		}
	}
	for name, b := range bounds {
		w.ClockBounds[name] = engine.ClockBoundMS{OffsetMS: b.Offset.ValueInt64(), UncertaintyMS: b.Uncertainty.ValueInt64()}
	}
	if w.StartedAt.IsZero() || w.EndedAt.IsZero() {
		return w, errors.New("it is no pause window: started_at and ended_at are missing")
	}
	return w, nil
}

// refusals are all reasons, known without touching anything, why the window cannot be restored to so, and the instant that it would be
// restored to. They are looked for at plan, and again before anything is made.
func (r *pitrRestoreResource) refusals(ctx context.Context, m pitrRestoreModel) (b engine.Manifest, to time.Time, known bool, diags diag.Diagnostics) {
	b, at, known, err := r.backup(ctx, m)
	if err != nil {
		diags.AddAttributeError(at, "Pause window cannot be restored to", err.Error()+".")
		return b, to, true, diags
	}
	to, toKnown := instantOf(m.RestorePoint)
	if !known || !toKnown && !m.RestorePoint.IsUnknown() {
		return b, to, known, diags
	}
	if to.IsZero() {
		to = b.Window.RestorePoint
	}
	storages, drivers, driversKnown, d := r.driversIn(ctx, m.Storages)
	diags.Append(d...)
	if !driversKnown {
		return b, to, true, diags
	}
	if err := engine.RestorableByTime(b, to, drivers); err != nil {
		diags.AddAttributeError(at, "Pause window cannot be restored to", err.Error()+".")
		return b, to, true, diags
	}
	if b.Storages != nil {
		diags.Append(r.artifactsGone(ctx, only(b, drivers), at)...)
	}
	diags.Append(r.missingCredentials(ctx, storages)...)
	return b, to, true, diags
}

// only is a manifest without the storages that are not among drivers.
func only(b engine.Manifest, drivers map[string]string) engine.Manifest {
	kept := map[string]engine.StorageRecord{}
	for name, s := range b.Storages {
		if _, ok := drivers[name]; ok {
			kept[name] = s
		}
	}
	b.Storages = kept
	return b
}

// preflight lets the storages say at plan what they would say before anything is made: the restore point is outside of their retention, a name
// is taken, a quota is full. It needs every argument, and only reads.
func (r *pitrRestoreResource) preflight(ctx context.Context, m pitrRestoreModel, b engine.Manifest, to time.Time) (diags diag.Diagnostics) {
	storages, known, diags := readStorages(ctx, r.data.kinds, storage.DestinationSide, m.Storages)
	if !known || !r.data.credentialsKnown || !r.data.awsKnown || diags.HasError() {
		return diags
	}
	destinations, diags := r.destinations(ctx, m.Storages)
	defer closeDestinations(ctx, destinations)
	e, err := r.data.newEngine(ctx, nil)
	if err != nil || diags.HasError() {
		return diags // the catalog is not known: create looks again
	}
	q := engine.RestoreRequest{Name: m.Name.ValueString(), Manifest: b, RestorePoint: to, Storages: map[string]engine.RestoreStorage{}}
	for name, d := range destinations {
		q.Storages[name] = engine.RestoreStorage{Driver: storages[name].kind.Name(), Destination: d}
	}
	err = e.CheckRestore(ctx, q)
	if errors.Is(err, engine.ErrRestoreExists) {
		diags.AddAttributeWarning(path.Root("name"), "A restore of that name exists", fmt.Sprintf("The catalog has a restore %q. If this plan replaces it (it is tainted, or -replace was given), all is well, "+
			"and what can be asked of the storages will be asked at apply. If it is another one, apply will refuse: choose another name, or import it.", q.Name))
		return diags
	}
	diags.Append(diagnose(err, subject{storages: keysOf(q.Storages)})...)
	return diags
}

// ModifyPlan refuses at plan what can be refused, decides whether another instant is meant, and plans the restore point.
func (r *pitrRestoreResource) ModifyPlan(ctx context.Context, req resource.ModifyPlanRequest, resp *resource.ModifyPlanResponse) {
	if r.data == nil {
		return
	}
	var m, state, config pitrRestoreModel
	exists := !req.State.Raw.IsNull()
	if exists {
		resp.Diagnostics.Append(req.State.Get(ctx, &state)...)
	}
	if resp.Diagnostics.HasError() {
		return
	}
	if req.Plan.Raw.IsNull() {
		if exists && state.protected() {
			resp.Diagnostics.Append(state.protectedError("destroyed"))
		}
		return
	}
	resp.Diagnostics.Append(req.Plan.Get(ctx, &m)...)
	resp.Diagnostics.Append(req.Config.Get(ctx, &config)...)
	if resp.Diagnostics.HasError() {
		return
	}
	m.RestorePoint = config.RestorePoint // what the user says; the default is worked out below
	b, to, known, refusals := r.refusals(ctx, m)
	if exists {
		another := r.anotherInstant(state, m, b, to, known && !refusals.HasError())
		replaced := len(another) > 0 || !m.Name.Equal(state.Name) || replacesStorages(ctx, r.kinds, storage.DestinationSide, state.Storages, m.Storages)
		if !replaced {
			resp.Diagnostics.Append(resp.Plan.SetAttribute(ctx, path.Root("restore_point"), state.RestorePoint)...)
			return
		}
		resp.RequiresReplace = append(resp.RequiresReplace, another...)
		if state.protected() {
			resp.Diagnostics.Append(state.protectedError("replaced"))
			return
		}
	}
	resp.Diagnostics.Append(refusals...)
	if !known || to.IsZero() {
		return
	}
	resp.Diagnostics.Append(resp.Plan.SetAttribute(ctx, path.Root("restore_point"), instant(to))...)
	if !exists && !resp.Diagnostics.HasError() {
		// Not when it replaces: then what it replaces still has the names.
		resp.Diagnostics.Append(r.preflight(ctx, m, b, to)...)
	}
}

// anotherInstant returns the attributes that say that another instant is to be restored than the one in the state. The same may be said in
// another way, null in an imported state forces nothing, and a window that cannot be read any more (its backup is gone) is no other one.
func (r *pitrRestoreResource) anotherInstant(state, plan pitrRestoreModel, b engine.Manifest, to time.Time, known bool) (changed path.Paths) {
	was, _ := instantOf(state.RestorePoint)
	if known && !was.IsZero() && was.Equal(to) && sameBackup(state, b) {
		return nil
	}
	for at, pair := range map[string][2]attr.Value{
		"pause_window": {state.PauseWindow, plan.PauseWindow}, "backup_id": {state.BackupID, plan.BackupID},
	} {
		if !pair[0].IsNull() && !pair[0].Equal(pair[1]) {
			changed = append(changed, path.Root(at))
		}
	}
	if !plan.RestorePoint.IsNull() && !state.RestorePoint.IsNull() && !(known && was.Equal(to)) {
		if now, ok := instantOf(plan.RestorePoint); !ok || !now.Equal(was) {
			changed = append(changed, path.Root("restore_point"))
		}
	}
	return changed
}

// sameBackup says whether the state names the backup, or the window, that the plan names.
func sameBackup(state pitrRestoreModel, b engine.Manifest) bool {
	if !state.BackupID.IsNull() {
		return state.BackupID.ValueString() == b.BackupID
	}
	if state.PauseWindow.IsNull() {
		return true // imported
	}
	id, _ := state.PauseWindow.Attributes()["backup_id"].(types.String)
	started, _ := state.PauseWindow.Attributes()["started_at"].(timetypes.RFC3339)
	at, _ := instantOf(started)
	return id.ValueString() == b.BackupID && at.Equal(b.Window.StartedAt)
}

func (r *pitrRestoreResource) Create(ctx context.Context, req resource.CreateRequest, resp *resource.CreateResponse) {
	var m pitrRestoreModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &m)...)
	if resp.Diagnostics.HasError() {
		return
	}
	timeout, diags := m.Timeouts.Create(ctx, pitrRestoreCreateTimeout)
	resp.Diagnostics.Append(diags...)
	b, to, known, diags := r.refusals(ctx, m)
	resp.Diagnostics.Append(diags...)
	if !known && !diags.HasError() {
		resp.Diagnostics.AddError("Values are still unknown", "The pause window or the catalog is not known at apply. This is a bug in the provider or in Terraform.")
	}
	if resp.Diagnostics.HasError() {
		return
	}
	m.RestorePoint = instant(to)
	if r.create(ctx, &m.restoreModel, engine.RestoreRequest{Manifest: b, RestorePoint: to}, timeout, resp) {
		resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
	}
}

// Read looks whether the restored storages are still there.
func (r *pitrRestoreResource) Read(ctx context.Context, req resource.ReadRequest, resp *resource.ReadResponse) {
	var m pitrRestoreModel
	resp.Diagnostics.Append(req.State.Get(ctx, &m)...)
	private, diags := req.Private.GetKey(ctx, privateRecord)
	resp.Diagnostics.Append(diags...)
	if resp.Diagnostics.HasError() {
		return
	}
	known, diags := r.read(ctx, &m.restoreModel, private)
	resp.Diagnostics.Append(diags...)
	if known {
		resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
	}
}

// Update stores arguments that say nothing of what was restored.
func (r *pitrRestoreResource) Update(ctx context.Context, req resource.UpdateRequest, resp *resource.UpdateResponse) {
	var m, state pitrRestoreModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &m)...)
	resp.Diagnostics.Append(req.State.Get(ctx, &state)...)
	if resp.Diagnostics.HasError() {
		return
	}
	m.keepComputed(state.restoreModel)
	resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
}

// Delete removes what the restore created.
func (r *pitrRestoreResource) Delete(ctx context.Context, req resource.DeleteRequest, resp *resource.DeleteResponse) {
	var m pitrRestoreModel
	resp.Diagnostics.Append(req.State.Get(ctx, &m)...)
	private, diags := req.Private.GetKey(ctx, privateRecord)
	resp.Diagnostics.Append(diags...)
	if !resp.Diagnostics.HasError() {
		resp.Diagnostics.Append(r.delete(ctx, m.restoreModel, private)...)
	}
}

// ImportState reads the record of a finished restore from the catalog, by its name.
func (r *pitrRestoreResource) ImportState(ctx context.Context, req resource.ImportStateRequest, resp *resource.ImportStateResponse) {
	m, record, ok := r.imported(ctx, req.ID, true, resp)
	if !ok {
		return
	}
	window, diags := windowValue(ctx, record.Window)
	resp.Diagnostics.Append(diags...)
	resp.Diagnostics.Append(resp.State.Set(ctx, pitrRestoreModel{restoreModel: m, PauseWindow: window, BackupID: types.StringNull(), RestorePoint: instant(record.RestorePoint)})...)
}
