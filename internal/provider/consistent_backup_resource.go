package provider

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-timeouts/resource/timeouts"
	"github.com/hashicorp/terraform-plugin-framework-timetypes/timetypes"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/attr"
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
)

var (
	_ resource.ResourceWithConfigure   = (*consistentBackupResource)(nil)
	_ resource.ResourceWithModifyPlan  = (*consistentBackupResource)(nil)
	_ resource.ResourceWithImportState = (*consistentBackupResource)(nil)
)

// Values of deletion_policy.
const (
	policyDelete = "delete"
	policyRetain = "retain"
)

// privateUnrecorded is the key of private state that says: the backup is complete, only its manifest is not in the catalog yet.
const privateUnrecorded = "unrecorded"

// Default timeouts. A backup's covers the copying after the window; the pause itself ends at max_duration.
const (
	backupCreateTimeout = 2 * time.Hour
	backupDeleteTimeout = 30 * time.Minute
)

type consistentBackupResource struct {
	kinds []storage.Kind
	data  *data
}

type consistentBackupModel struct {
	ID               types.String         `tfsdk:"id"`
	Name             types.String         `tfsdk:"name"`
	Pause            types.Object         `tfsdk:"pause"`
	Storages         types.Map            `tfsdk:"storages"`
	ServerClockBound timetypes.GoDuration `tfsdk:"server_clock_bound"`
	DeletionPolicy   types.String         `tfsdk:"deletion_policy"`
	Timeouts         timeouts.Value       `tfsdk:"timeouts"`
	Status           types.String         `tfsdk:"status"`
	Window           types.Object         `tfsdk:"pause_window"`
	Artifacts        types.Map            `tfsdk:"artifacts"`
	ManifestJSON     types.String         `tfsdk:"manifest_json"`
}

func (r *consistentBackupResource) Metadata(_ context.Context, req resource.MetadataRequest, resp *resource.MetadataResponse) {
	resp.TypeName = req.ProviderTypeName + "_consistent_backup"
}

// timeoutsAttribute is `timeouts` with a description, which the library's own lacks.
func timeoutsAttribute(ctx context.Context, o timeouts.Opts) attribute {
	a := timeouts.Attributes(ctx, o).(schema.SingleNestedAttribute) //nolint:forcetypeassert // the library's documented type
	a.MarkdownDescription = "How long the operations may take, as durations such as `90m`. The pause is bounded by `pause.max_duration` alone."
	for name, leaf := range a.Attributes {
		s := leaf.(schema.StringAttribute) //nolint:forcetypeassert // the library's documented type
		s.MarkdownDescription = s.Description
		a.Attributes[name] = s
	}
	return a
}

func serverClockBoundAttribute(computed bool) schema.StringAttribute {
	return schema.StringAttribute{CustomType: timetypes.GoDurationType{}, Optional: true, Computed: computed,
		MarkdownDescription: "How far the clocks of the ScalarDB servers, which stamp the records, may be off against the machine that runs Terraform. Default `1s`. Larger values let verification overlook later writes.",
		Validators:          []validator.String{duration{}}}
}

func (r *consistentBackupResource) Schema(ctx context.Context, _ resource.SchemaRequest, resp *resource.SchemaResponse) {
	keep := []planmodifier.String{stringplanmodifier.UseStateForUnknown()}
	id := computedString("The backup's id: its name.").(schema.StringAttribute)                                                                                                                                                    //nolint:forcetypeassert // written above
	status := computedString("`available`: complete, can be restored. `incomplete`: something is missing, see the warnings. `expired`: every artifact is gone. Refreshed from the artifacts themselves.").(schema.StringAttribute) //nolint:forcetypeassert // written above
	manifest := computedString("The backup's manifest: a versioned JSON document with window, targets, storages, artifacts, checksums and tool versions. It holds no secret. It is also in the catalog.").(schema.StringAttribute) //nolint:forcetypeassert // written above
	bound := serverClockBoundAttribute(true)
	id.PlanModifiers, status.PlanModifiers, manifest.PlanModifiers, bound.PlanModifiers = keep, keep, keep, keep
	artifacts := artifactsAttribute()
	artifacts.PlanModifiers = []planmodifier.Map{mapplanmodifier.UseStateForUnknown()}
	resp.Schema = schema.Schema{
		MarkdownDescription: "One consistent backup: every target is paused, a capture of every storage is fixed in that pause window, the targets are unpaused, and the captures are kept with a manifest. " +
			"A new `name` is a new backup; nothing else than `name` and the arguments that say *what* is captured ever causes a pause.",
		Attributes: map[string]attribute{
			"id": id,
			"name": schema.StringAttribute{Required: true, MarkdownDescription: "Name and id of the backup: " + nameRule + ". A change takes a new backup.",
				Validators: []validator.String{nameValidator()}, PlanModifiers: []planmodifier.String{stringplanmodifier.RequiresReplace()}},
			"pause": resourcePause(),
			"storages": storagesAttribute(r.kinds, storage.SourceSide, true, true,
				"The storages to capture, by name: every underlying database of the ScalarDB system, named as in its multi-storage configuration ("+nameRule+"). Each value sets exactly one driver object."),
			"server_clock_bound": bound,
			"deletion_policy": schema.StringAttribute{Optional: true,
				MarkdownDescription: "What destroy does with a complete backup: `delete` (the default) removes artifacts and manifest, `retain` keeps both. Leftovers of a failed backup are always removed.",
				Validators:          []validator.String{stringvalidator.OneOf(policyDelete, policyRetain)}},
			"timeouts": timeoutsAttribute(ctx, timeouts.Opts{Create: true, Delete: true,
				CreateDescription: "For the whole backup, waiting for the lock and the copying after the window included. Default `2h`.",
				DeleteDescription: "For deleting artifacts and manifest. Default `30m`."}),
			"status": status,
			"pause_window": schema.SingleNestedAttribute{Computed: true, MarkdownDescription: "The pause window.", Attributes: windowAttributes(),
				PlanModifiers: []planmodifier.Object{objectplanmodifier.UseStateForUnknown()}},
			"artifacts":     artifacts,
			"manifest_json": manifest,
		},
	}
}

func (r *consistentBackupResource) Configure(_ context.Context, req resource.ConfigureRequest, resp *resource.ConfigureResponse) {
	r.data = dataOf(req.ProviderData, &resp.Diagnostics)
}

// ModifyPlan refuses what is known to be impossible. It never asks a target or a database.
func (r *consistentBackupResource) ModifyPlan(ctx context.Context, req resource.ModifyPlanRequest, resp *resource.ModifyPlanResponse) {
	if r.data == nil || req.Plan.Raw.IsNull() || !req.State.Raw.IsNull() {
		return // validation, a destroy, or nothing to pause
	}
	var m consistentBackupModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &m)...)
	if resp.Diagnostics.HasError() {
		return
	}
	_, _, diags := r.data.pauseFor(ctx, m.Pause)
	resp.Diagnostics.Append(diags...)
	if storages, known, _ := readStorages(ctx, r.data.kinds, storage.SourceSide, m.Storages); known && r.data.credentialsKnown {
		for name, s := range storages {
			if _, err := r.data.env(ctx, name, s.credentials); err != nil {
				resp.Diagnostics.AddAttributeError(path.Root("storages").AtMapKey(name).AtName(s.kind.Name()).AtName(credentialsArgument), "No such credentials", err.Error()+".")
			}
		}
	}
}

func (r *consistentBackupResource) Create(ctx context.Context, req resource.CreateRequest, resp *resource.CreateResponse) {
	var m, config consistentBackupModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &m)...)
	resp.Diagnostics.Append(req.Config.Get(ctx, &config)...) // for the write-only key_pem
	if resp.Diagnostics.HasError() {
		return
	}
	timeout, diags := m.Timeouts.Create(ctx, backupCreateTimeout)
	resp.Diagnostics.Append(diags...)
	q, e, diags := r.request(ctx, m, config.Pause)
	resp.Diagnostics.Append(diags...)
	if resp.Diagnostics.HasError() {
		return
	}
	ctx, cancel := r.data.deps.Clock.WithTimeout(ctx, timeout)
	defer cancel()

	b, err := e.Backup(ctx, q)
	for _, w := range b.Warnings {
		resp.Diagnostics.AddWarning("Warning of a backup", w)
	}
	resp.Diagnostics.Append(diagnose(err, subject{storages: keysOf(q.Storages), targets: true})...)
	if err != nil && len(b.Manifest.Storages) == 0 {
		return // nothing was made, or all of it was discarded: there is nothing to clean up
	}
	resp.Diagnostics.Append(m.fill(ctx, b.Manifest)...)
	if err == nil && !b.Recorded {
		m.Status = types.StringValue(engine.StatusIncomplete)
		resp.Diagnostics.Append(resp.Private.SetKey(ctx, privateUnrecorded, []byte(`true`))...)
	}
	resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
}

// request is the engine's form of a planned backup.
func (r *consistentBackupResource) request(ctx context.Context, m consistentBackupModel, pause types.Object) (q engine.BackupRequest, e *engine.Engine, diags diag.Diagnostics) {
	c, known, d := r.data.pauseFor(ctx, pause)
	diags.Append(d...)
	storages, storagesKnown, d := readStorages(ctx, r.data.kinds, storage.SourceSide, m.Storages)
	diags.Append(d...)
	if diags.HasError() {
		return q, nil, diags
	}
	if !known || !storagesKnown {
		diags.AddError("Values are still unknown", "pause or storages hold a value that is not known at apply. This is a bug in the provider or in Terraform.")
		return q, nil, diags
	}
	c.settings.ServerClockBound, _ = durationOr(m.ServerClockBound, defaultServerClockBound)
	if m.ServerClockBound.IsUnknown() {
		c.settings.ServerClockBound = defaultServerClockBound
	}
	q = engine.BackupRequest{Name: m.Name.ValueString(), Pause: c.settings, Storages: map[string]engine.StorageRequest{}}
	q.Unpauser = func(runID string) string { return r.data.unpauseCommand(runID, c.groups) }
	q.Groups, d = r.data.groups(c.groups)
	diags.Append(d...)
	q.Storages, d = r.data.sources(ctx, storages)
	diags.Append(d...)
	if diags.HasError() {
		return q, nil, diags
	}
	e, err := r.data.newEngine(ctx, c.groups)
	if err != nil {
		diags.AddError("Engine could not be set up", err.Error()+". Nothing was touched.")
	}
	return q, e, diags
}

// sources opens the source of every storage; nothing is connected yet.
func (d *data) sources(ctx context.Context, storages map[string]driverObject) (map[string]engine.StorageRequest, diag.Diagnostics) {
	var diags diag.Diagnostics
	out := map[string]engine.StorageRequest{}
	for name, s := range storages {
		at := path.Root("storages").AtMapKey(name).AtName(s.kind.Name())
		env, err := d.env(ctx, name, s.credentials)
		if err != nil {
			diags.AddAttributeError(at.AtName(credentialsArgument), "No such credentials", err.Error()+". Nothing was touched.")
			continue
		}
		arguments, err := s.arguments(ctx)
		if err != nil {
			diags.AddAttributeError(at, "Unusable driver arguments", err.Error()+".")
			continue
		}
		source, dd := s.kind.NewSource(ctx, s.config, env)
		diags.Append(dd...)
		out[name] = engine.StorageRequest{Driver: s.kind.Name(), Arguments: arguments, Source: source}
	}
	return out, diags
}

// fill sets the computed attributes from a manifest; none stays unknown.
func (m *consistentBackupModel) fill(ctx context.Context, b engine.Manifest) (diags diag.Diagnostics) {
	m.ID = types.StringValue(b.BackupID)
	m.Status = types.StringValue(b.Status)
	if m.ServerClockBound.IsUnknown() || m.ServerClockBound.IsNull() {
		m.ServerClockBound = timetypes.NewGoDurationValue(b.Pause.ServerClockBound)
	}
	var d diag.Diagnostics
	m.Window, d = windowValue(ctx, b.Window)
	diags.Append(d...)
	m.Artifacts, d = artifactsValue(ctx, b)
	diags.Append(d...)
	var err error
	m.ManifestJSON, err = encodeManifest(b)
	if err != nil {
		diags.AddError("Manifest could not be encoded", err.Error()+".")
	}
	return diags
}

// Read looks at the manifest and at every artifact. It never drops a backup: not one that exists in part, since the next plan would then pause production for a new
// one, and not one whose everything is gone, for the same reason. Such a backup is `expired` until its block is removed or gets a new name.
func (r *consistentBackupResource) Read(ctx context.Context, req resource.ReadRequest, resp *resource.ReadResponse) {
	var m consistentBackupModel
	resp.Diagnostics.Append(req.State.Get(ctx, &m)...)
	c, known := r.data.catalog()
	if resp.Diagnostics.HasError() || !known || !r.data.credentialsKnown {
		return
	}
	unrecorded, diags := req.Private.GetKey(ctx, privateUnrecorded)
	resp.Diagnostics.Append(diags...)
	name := m.Name.ValueString()

	held, heldErr := decodeManifest(m.ManifestJSON.ValueString())
	recorded, err := engine.ReadManifest(ctx, c, name)
	isRecorded := err == nil
	switch {
	case err == nil && heldErr == nil && recorded.RunID != held.RunID:
		isRecorded = false
		resp.Diagnostics.AddWarning("Another backup of this name is in the catalog",
			fmt.Sprintf("The manifest of %q in %s is that of run %s; this resource holds run %s. It goes on with its own record.", name, c.Describe(), recorded.RunID, held.RunID))
	case err == nil:
		held, heldErr = recorded, nil
	case !errors.Is(err, engine.ErrNotFound):
		resp.Diagnostics.AddWarning("Manifest could not be read", fmt.Sprintf("%s. The status of the backup is that of the last time.", err))
		return
	}
	if heldErr != nil {
		resp.Diagnostics.AddWarning("No manifest of this backup is left",
			fmt.Sprintf("There is none in %s, and the one in the state cannot be read: %s. Nothing is known of the artifacts.", c.Describe(), heldErr))
		m.Status = types.StringValue(engine.StatusExpired)
		resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
		return
	}

	status, warning, failures := r.inspect(ctx, m, held)
	if len(failures) > 0 {
		resp.Diagnostics.AddWarning("Artifacts could not be looked at",
			fmt.Sprintf("Backup %q: %s. Its status is that of the last time (%s).", name, strings.Join(failures, "; "), m.Status.ValueString()))
		return
	}
	if status == engine.StatusAvailable && !isRecorded && (held.Status == engine.StatusAvailable || string(unrecorded) == "true") {
		// The record phase of the run failed, or somebody lost the manifest: every artifact is whole, so the backup is.
		if err := (&engine.Engine{Catalog: c}).Record(ctx, held); err != nil {
			status, warning = engine.StatusIncomplete, fmt.Sprintf("every artifact is there, but the manifest is not in the catalog and cannot be written: %s. The next refresh tries again", err)
		} else {
			held.Status, held.Window.Status, isRecorded = engine.StatusAvailable, engine.StatusAvailable, true
			resp.Diagnostics.Append(resp.Private.SetKey(ctx, privateUnrecorded, []byte(`false`))...)
			if err := engine.CloseJournal(ctx, c, held.RunID); err != nil {
				resp.Diagnostics.AddWarning("Journal of a run could not be closed", err.Error()+". The next backup closes it.")
			}
			resp.Diagnostics.AddWarning("Manifest of a backup was recorded", fmt.Sprintf("Backup %q is complete; its manifest, which was missing in %s, is there now.", name, c.Describe()))
		}
	}
	if status == engine.StatusAvailable && (!isRecorded || held.Status != engine.StatusAvailable) {
		status = engine.StatusIncomplete
		if warning == "" {
			warning = "its run failed; the next apply replaces it and cleans up"
		}
	}
	if warning != "" {
		resp.Diagnostics.AddWarning("Backup is not available", fmt.Sprintf("Backup %q is %s: %s. It cannot be restored.", name, status, warning))
	}
	resp.Diagnostics.Append(m.fill(ctx, held)...)
	m.Status = types.StringValue(status)
	resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
}

// inspect asks for every artifact whether it is there and whole. failures are those that could not be asked for.
func (r *consistentBackupResource) inspect(ctx context.Context, m consistentBackupModel, held engine.Manifest) (status, warning string, failures []string) {
	return r.data.inspectArtifacts(ctx, held, credentialKeys(ctx, r.data.kinds, m.Storages))
}

// credentialKeys are the `credentials` arguments of a backup's driver objects.
func credentialKeys(ctx context.Context, kinds map[string]storage.Kind, v types.Map) map[string]string {
	storages, _, _ := readStorages(ctx, kinds, storage.SourceSide, v) // unreadable ones have no key
	keys := map[string]string{}
	for name, s := range storages {
		keys[name] = s.credentials
	}
	return keys
}

func (d *data) inspectArtifacts(ctx context.Context, m engine.Manifest, keys map[string]string) (status, warning string, failures []string) {
	present := 0
	var gone []string
	for _, name := range slices.Sorted(maps.Keys(m.Storages)) {
		record := m.Storages[name]
		store, err := d.artifactStore(ctx, name, engine.JournalStorage{Driver: record.Driver, Arguments: record.Arguments}, keys[name])
		if err != nil {
			failures = append(failures, "storage "+name+": "+err.Error())
			continue
		}
		for _, a := range record.Artifacts {
			switch err := store.Inspect(ctx, a); {
			case err == nil:
				present++
			case errors.Is(err, engine.ErrNotFound):
				// The store says more than that it is gone: that a restore point left the retention, for one.
				gone = append(gone, fmt.Sprintf("%s of storage %s (%s)", a.ID, name, strings.TrimSuffix(err.Error(), ": "+engine.ErrNotFound.Error())))
			default:
				failures = append(failures, "storage "+name+": "+err.Error())
			}
		}
	}
	switch {
	case len(gone) == 0:
		return engine.StatusAvailable, "", failures
	case present == 0:
		return engine.StatusExpired, "every artifact is gone: " + few(gone), failures
	}
	return engine.StatusIncomplete, "gone is " + few(gone), failures
}

// few names the first of many.
func few(all []string) string {
	const most = 5
	if len(all) <= most {
		return strings.Join(all, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(all[:most], ", "), len(all)-most)
}

// Update stores arguments that say nothing of what is captured. It never pauses.
func (r *consistentBackupResource) Update(ctx context.Context, req resource.UpdateRequest, resp *resource.UpdateResponse) {
	var m, state consistentBackupModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &m)...)
	resp.Diagnostics.Append(req.State.Get(ctx, &state)...)
	if resp.Diagnostics.HasError() {
		return
	}
	m.ID, m.Status, m.Window, m.Artifacts, m.ManifestJSON = state.ID, state.Status, state.Window, state.Artifacts, state.ManifestJSON
	if m.ServerClockBound.IsUnknown() {
		m.ServerClockBound = state.ServerClockBound
	}
	resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
}

// Delete removes artifacts and manifest, unless a complete backup is to be retained. It needs no target.
func (r *consistentBackupResource) Delete(ctx context.Context, req resource.DeleteRequest, resp *resource.DeleteResponse) {
	var m consistentBackupModel
	resp.Diagnostics.Append(req.State.Get(ctx, &m)...)
	if resp.Diagnostics.HasError() {
		return
	}
	held, err := decodeManifest(m.ManifestJSON.ValueString())
	if err != nil {
		resp.Diagnostics.AddError(summaries[engine.PhaseDelete], fmt.Sprintf("The manifest in the state cannot be read: %s. To forget the backup without deleting it: terraform state rm.", err))
		return
	}
	unrecorded, diags := req.Private.GetKey(ctx, privateUnrecorded)
	resp.Diagnostics.Append(diags...)
	complete := held.Status == engine.StatusAvailable || string(unrecorded) == "true"
	timeout, diags := m.Timeouts.Delete(ctx, backupDeleteTimeout)
	resp.Diagnostics.Append(diags...)
	e, err := r.data.newEngine(ctx, nil)
	if err != nil {
		resp.Diagnostics.AddError("Engine could not be set up", err.Error()+". Nothing was deleted.")
	}
	if resp.Diagnostics.HasError() {
		return
	}
	ctx, cancel := r.data.deps.Clock.WithTimeout(ctx, timeout)
	defer cancel()
	if complete && m.DeletionPolicy.ValueString() == policyRetain {
		if string(unrecorded) == "true" {
			// Retained means found again: from here on only the catalog knows it.
			if err := e.Record(ctx, held); err != nil {
				resp.Diagnostics.AddError(summaries[engine.PhaseRecord], fmt.Sprintf("The backup is to be retained, but its manifest is not in the catalog yet: %s. Apply again, or set deletion_policy = %q.", err, policyDelete))
			}
		}
		return
	}
	keys := credentialKeys(ctx, r.data.kinds, m.Storages)
	e.Artifacts = func(ctx context.Context, name string, s engine.JournalStorage) (engine.ArtifactStore, error) {
		return r.data.artifactStore(ctx, name, s, keys[name])
	}
	resp.Diagnostics.Append(diagnose(e.Delete(ctx, held), subject{storages: keysOf(held.Storages)})...)
}

// ImportState reads the manifest of a backup from the catalog, by its id.
func (r *consistentBackupResource) ImportState(ctx context.Context, req resource.ImportStateRequest, resp *resource.ImportStateResponse) {
	c, known := r.data.catalog()
	if !known {
		resp.Diagnostics.AddError("Import needs the catalog", "The provider's catalog is not known yet, so the backup's manifest cannot be read. Make it a value that is known at plan.")
		return
	}
	if !namePattern.MatchString(req.ID) {
		resp.Diagnostics.AddError("Invalid backup id", fmt.Sprintf("%q is no id of a backup: it is the backup's name.", req.ID))
		return
	}
	held, err := engine.ReadManifest(ctx, c, req.ID)
	if err != nil {
		resp.Diagnostics.AddError("Backup could not be imported", err.Error()+".")
		return
	}
	storages, err := importedStorages(ctx, r.kinds, storage.SourceSide, argumentsOf(held))
	if err != nil {
		resp.Diagnostics.AddError("Backup could not be imported", err.Error()+".")
		return
	}
	m := consistentBackupModel{Name: types.StringValue(held.BackupID), Storages: storages, DeletionPolicy: types.StringNull(), Pause: nullObject(pauseType()), Timeouts: nullTimeouts("create", "delete")}
	resp.Diagnostics.Append(m.fill(ctx, held)...)
	resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
}

// typedArguments are a driver object as it was typed.
type typedArguments struct {
	driver    string
	arguments []byte
}

func argumentsOf(m engine.Manifest) map[string]typedArguments {
	out := map[string]typedArguments{}
	for name, s := range m.Storages {
		out[name] = typedArguments{driver: s.Driver, arguments: s.Arguments}
	}
	return out
}

// importedStorages builds `storages` from recorded arguments.
func importedStorages(ctx context.Context, kinds []storage.Kind, side storage.Side, recorded map[string]typedArguments) (types.Map, error) {
	element := storageType(kinds, side)
	out := map[string]attr.Value{}
	for name, a := range recorded {
		t, known := element.AttrTypes[a.driver].(types.ObjectType)
		if !known {
			return types.MapNull(element), fmt.Errorf("storage %s: this release of the provider has no driver %q", name, a.driver)
		}
		typed, err := decodeObject(ctx, a.arguments, t)
		if err != nil {
			return types.MapNull(element), fmt.Errorf("storage %s: %w", name, err)
		}
		drivers := map[string]attr.Value{}
		for driver, dt := range element.AttrTypes {
			drivers[driver] = types.ObjectNull(dt.(types.ObjectType).AttrTypes) //nolint:forcetypeassert // built by storageType
		}
		drivers[a.driver] = typed
		o, diags := types.ObjectValue(element.AttrTypes, drivers)
		if diags.HasError() {
			return types.MapNull(element), fmt.Errorf("storage %s: %s", name, diags[0].Detail())
		}
		out[name] = o
	}
	v, diags := types.MapValue(element, out)
	if diags.HasError() {
		return types.MapNull(element), errors.New(diags[0].Detail())
	}
	return v, nil
}

// pauseType is the type of a resource's `pause`.
func pauseType() types.ObjectType {
	return types.ObjectType{AttrTypes: attrTypes(resourcePause().(schema.SingleNestedAttribute).Attributes)} //nolint:forcetypeassert // written in pause.go
}

// nullTimeouts is `timeouts` of an imported resource.
func nullTimeouts(operations ...string) timeouts.Value {
	t := map[string]attr.Type{}
	for _, o := range operations {
		t[o] = types.StringType
	}
	return timeouts.Value{Object: types.ObjectNull(t)}
}

func keysOf[V any](m map[string]V) map[string]bool {
	out := map[string]bool{}
	for k := range m {
		out[k] = true
	}
	return out
}
