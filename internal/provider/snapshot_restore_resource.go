package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-timeouts/resource/timeouts"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/booldefault"
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
	_ resource.ResourceWithConfigure      = (*snapshotRestoreResource)(nil)
	_ resource.ResourceWithModifyPlan     = (*snapshotRestoreResource)(nil)
	_ resource.ResourceWithImportState    = (*snapshotRestoreResource)(nil)
	_ resource.ResourceWithValidateConfig = (*snapshotRestoreResource)(nil)
)

// privateRecord is the key of private state that holds the restore's record: unlike an attribute, nothing can be wired to what it says before
// the verification passed.
const privateRecord = "record"

const (
	restoreCreateTimeout = 4 * time.Hour
	restoreDeleteTimeout = 30 * time.Minute
)

type snapshotRestoreResource struct {
	kinds []storage.Kind
	data  *data
}

type snapshotRestoreModel struct {
	ID                 types.String   `tfsdk:"id"`
	Name               types.String   `tfsdk:"name"`
	BackupID           types.String   `tfsdk:"backup_id"`
	ManifestJSON       types.String   `tfsdk:"manifest_json"`
	Storages           types.Map      `tfsdk:"storages"`
	Verify             types.Object   `tfsdk:"verify"`
	DeletionProtection types.Bool     `tfsdk:"deletion_protection"`
	Timeouts           timeouts.Value `tfsdk:"timeouts"`
	Status             types.String   `tfsdk:"status"`
	Restored           types.Map      `tfsdk:"restored"`
	Verification       types.Object   `tfsdk:"verification"`
	Properties         types.Map      `tfsdk:"scalardb_properties"`
}

// restoreVerifyModel is `verify`.
type restoreVerifyModel struct {
	Enabled types.Bool `tfsdk:"enabled"`
	verifyModel
}

func (r *snapshotRestoreResource) Metadata(_ context.Context, req resource.MetadataRequest, resp *resource.MetadataResponse) {
	resp.TypeName = req.ProviderTypeName + "_snapshot_restore"
}

func restoreVerifyAttribute() schema.SingleNestedAttribute {
	arguments := verifyArguments()
	arguments["enabled"] = schema.BoolAttribute{Optional: true, MarkdownDescription: "Whether to verify at all. Default `true`."}
	return schema.SingleNestedAttribute{Optional: true, Attributes: arguments,
		MarkdownDescription: "How the restored storages are verified: every transactional table is scanned for records in flight, late records, and records that contradict the coordinator table, and compared with what the manifest recorded. " +
			"Only then do `restored` and `scalardb_properties` come out. Changes update in place, without a new verification."}
}

func (r *snapshotRestoreResource) Schema(ctx context.Context, _ resource.SchemaRequest, resp *resource.SchemaResponse) {
	keep := []planmodifier.String{stringplanmodifier.UseStateForUnknown()}
	id := computedString("The restore's id: its name.").(schema.StringAttribute)                                                                                                        //nolint:forcetypeassert // written in window.go
	status := computedString("`available`: restored, and verified unless that was switched off. `incomplete`: the run failed, or a restored storage is gone.").(schema.StringAttribute) //nolint:forcetypeassert // written in window.go
	id.PlanModifiers, status.PlanModifiers = keep, keep
	restored, verification := restoredAttribute(), verificationAttribute("The result of the verification; null where it was switched off.")
	restored.PlanModifiers = []planmodifier.Map{mapplanmodifier.UseStateForUnknown()}
	verification.PlanModifiers = []planmodifier.Object{objectplanmodifier.UseStateForUnknown()}
	resp.Schema = schema.Schema{
		MarkdownDescription: "The artifacts of one backup restored into new or empty databases, and proved consistent. A restore outlives its backup: deleting the backup later changes nothing here.",
		Attributes: map[string]attribute{
			"id": id,
			"name": schema.StringAttribute{Required: true, MarkdownDescription: "Name and id of the restore: " + nameRule + ". Its record lies in the catalog under this name. A change restores anew.",
				Validators: []validator.String{nameValidator()}, PlanModifiers: []planmodifier.String{stringplanmodifier.RequiresReplace()}},
			"backup_id": schema.StringAttribute{Optional: true, Validators: []validator.String{nameValidator()},
				MarkdownDescription: "Id of the backup, read from the catalog. Use `scalardb_consistent_backup.x.id` for a backup of the same configuration. Exactly one of `backup_id` and `manifest_json`. Another backup restores anew."},
			"manifest_json": schema.StringAttribute{Optional: true, Validators: []validator.String{manifestValidator{}},
				MarkdownDescription: "The manifest of the backup, for example `data.scalardb_backup.x.manifest_json`. Exactly one of `backup_id` and `manifest_json`. Another backup restores anew."},
			"storages": storagesAttribute(r.kinds, storage.DestinationSide, true, true,
				"Where every storage of the backup goes, by the storage's name in the backup: all of them, since a system restored in part is not consistent. Each value sets the driver object that captured the storage, with the address of a database that is new or empty."),
			"verify": restoreVerifyAttribute(),
			"deletion_protection": schema.BoolAttribute{Optional: true, Computed: true, Default: booldefault.StaticBool(true),
				MarkdownDescription: "Whether to refuse to destroy or replace the restored databases. The value in the *state* decides, so `false` has to be applied before the destroy. A restore that is not `available` can always be destroyed. Default `true`."},
			"timeouts": timeoutsAttribute(ctx, timeouts.Opts{Create: true, Delete: true,
				CreateDescription: "For restoring and verifying. Default `4h`.",
				DeleteDescription: "For deleting what the restore created. Default `30m`."}),
			"status":       status,
			"restored":     restored,
			"verification": verification,
			"scalardb_properties": schema.MapAttribute{Computed: true, ElementType: types.StringType, PlanModifiers: []planmodifier.Map{mapplanmodifier.UseStateForUnknown()},
				MarkdownDescription: "What a ScalarDB configuration needs to reach the restored storages, for `provider::scalardb::render_properties`. Without credentials. Null until the restore is `available`."},
		},
	}
}

func (r *snapshotRestoreResource) Configure(_ context.Context, req resource.ConfigureRequest, resp *resource.ConfigureResponse) {
	r.data = dataOf(req.ProviderData, &resp.Diagnostics)
}

// ValidateConfig wants exactly one name of the backup, and known names in verify.
func (r *snapshotRestoreResource) ValidateConfig(ctx context.Context, req resource.ValidateConfigRequest, resp *resource.ValidateConfigResponse) {
	var m snapshotRestoreModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &m)...)
	if resp.Diagnostics.HasError() {
		return
	}
	switch {
	case m.BackupID.IsUnknown() || m.ManifestJSON.IsUnknown():
	case m.BackupID.IsNull() && m.ManifestJSON.IsNull():
		resp.Diagnostics.AddError("Restore without a backup", "Set exactly one of backup_id and manifest_json.")
	case !m.BackupID.IsNull() && !m.ManifestJSON.IsNull():
		resp.Diagnostics.AddAttributeError(path.Root("manifest_json"), "Restore of two backups", "backup_id and manifest_json are both set. Set exactly one of them.")
	}
	v, known, diags := readVerify(ctx, m.Verify)
	resp.Diagnostics.Append(diags...)
	if known && v != nil && !m.Storages.IsUnknown() {
		for _, problem := range unknownStorages(*v, keysOf(m.Storages.Elements())) {
			resp.Diagnostics.AddAttributeError(path.Root("verify"), "Unknown storage", problem)
		}
	}
}

// unknownStorages names the storages in the settings that there are none of.
func unknownStorages(v engine.VerifySettings, storages map[string]bool) (problems []string) {
	names := keysOf(v.OnePhaseCommit)
	maps.Copy(names, v.AsyncCommit)
	if v.Coordinator != "" {
		names[v.Coordinator] = true
	}
	for _, n := range slices.Sorted(maps.Keys(names)) {
		if !storages[n] {
			problems = append(problems, fmt.Sprintf("There is no storage %q in storages.", n))
		}
	}
	return problems
}

// readVerify decodes `verify`; nil settings mean that it is switched off. known is false where a value is unknown.
func readVerify(ctx context.Context, v types.Object) (s *engine.VerifySettings, known bool, diags diag.Diagnostics) {
	if !whollyKnown(ctx, v) {
		return nil, false, diags
	}
	if v.IsNull() {
		return &engine.VerifySettings{ServerClockBound: defaultServerClockBound}, true, diags
	}
	var m restoreVerifyModel
	diags.Append(v.As(ctx, &m, asOptions)...)
	if diags.HasError() || (!m.Enabled.IsNull() && !m.Enabled.ValueBool()) {
		return nil, true, diags
	}
	settings, d := m.settings(ctx)
	diags.Append(d...)
	return &settings, true, diags
}

// backup finds the manifest that a restore names. known is false while it cannot be known yet.
func (r *snapshotRestoreResource) backup(ctx context.Context, m snapshotRestoreModel) (b engine.Manifest, at path.Path, known bool, err error) {
	if !m.ManifestJSON.IsNull() {
		at = path.Root("manifest_json")
		if m.ManifestJSON.IsUnknown() {
			return b, at, false, nil
		}
		b, err = decodeManifest(m.ManifestJSON.ValueString())
		return b, at, true, err
	}
	at = path.Root("backup_id")
	c, catalogKnown := r.data.catalog()
	if m.BackupID.IsUnknown() || m.BackupID.IsNull() || !catalogKnown {
		return b, at, false, nil
	}
	b, err = engine.ReadManifest(ctx, c, m.BackupID.ValueString())
	if errors.Is(err, engine.ErrNotFound) {
		err = fmt.Errorf("%w. A backup that this very configuration makes is named by the id attribute of its resource, not by its name: the id is known only once the backup exists", err)
	}
	return b, at, true, err
}

// refusals are all reasons, known without touching anything, why this backup cannot be restored so. They are looked for at plan and again before anything is made.
func (r *snapshotRestoreResource) refusals(ctx context.Context, m snapshotRestoreModel) (b engine.Manifest, known bool, diags diag.Diagnostics) {
	b, at, known, err := r.backup(ctx, m)
	if err != nil {
		diags.AddAttributeError(at, "Backup cannot be restored", err.Error()+".")
		return b, true, diags
	}
	storages, storagesKnown, d := readStorages(ctx, r.data.kinds, storage.DestinationSide, m.Storages)
	diags.Append(d...)
	if !known {
		return b, false, diags
	}
	drivers := map[string]string{}
	if storagesKnown {
		for name, s := range storages {
			drivers[name] = s.kind.Name()
		}
	} else {
		// Which storages and drivers there are is known more often than their arguments.
		for _, pair := range driversOf(m.Storages) {
			name, driver, _ := strings.Cut(pair, " ")
			if _, twice := drivers[name]; twice {
				return b, true, diags // a driver object that is unknown yet: cannot be told
			}
			drivers[name] = driver
		}
		if m.Storages.IsUnknown() || len(drivers) != len(m.Storages.Elements()) {
			return b, true, diags
		}
	}
	if err := engine.Restorable(b, drivers); err != nil {
		diags.AddAttributeError(path.Root("storages"), "Backup cannot be restored", err.Error()+".")
		return b, true, diags
	}
	// The manifest says available as of its recording; its artifacts may be gone since.
	if r.data.credentialsKnown {
		if status, why, _ := r.data.inspectArtifacts(ctx, b, nil); status != engine.StatusAvailable {
			diags.AddAttributeError(at, "Backup cannot be restored", fmt.Sprintf("Backup %s is %s: %s. Only one that is available can be restored.", b.BackupID, status, why))
		}
	}
	if storagesKnown && r.data.credentialsKnown {
		for name, s := range storages {
			if _, err := r.data.env(ctx, name, s.credentials); err != nil {
				diags.AddAttributeError(path.Root("storages").AtMapKey(name).AtName(s.kind.Name()).AtName(credentialsArgument), "No such credentials", err.Error()+".")
			}
		}
	}
	return b, true, diags
}

// ModifyPlan refuses at plan what can be refused, and decides whether another backup is meant.
func (r *snapshotRestoreResource) ModifyPlan(ctx context.Context, req resource.ModifyPlanRequest, resp *resource.ModifyPlanResponse) {
	if r.data == nil {
		return
	}
	var m, state snapshotRestoreModel
	exists := !req.State.Raw.IsNull()
	if exists {
		resp.Diagnostics.Append(req.State.Get(ctx, &state)...)
	}
	if resp.Diagnostics.HasError() {
		return
	}
	if req.Plan.Raw.IsNull() {
		if exists && protected(state) {
			resp.Diagnostics.AddAttributeError(path.Root("deletion_protection"), "Restore is protected", protectedText(state, "destroyed"))
		}
		return
	}
	resp.Diagnostics.Append(req.Plan.Get(ctx, &m)...)
	if resp.Diagnostics.HasError() {
		return
	}
	if exists {
		another := anotherBackup(state, m)
		resp.RequiresReplace = append(resp.RequiresReplace, another...)
		replaced := len(another) > 0 || !m.Name.Equal(state.Name) || replacesStorages(ctx, r.kinds, storage.DestinationSide, state.Storages, m.Storages)
		if !replaced {
			return
		}
		if protected(state) {
			resp.Diagnostics.AddAttributeError(path.Root("deletion_protection"), "Restore is protected", protectedText(state, "replaced"))
			return
		}
	}
	_, _, diags := r.refusals(ctx, m)
	resp.Diagnostics.Append(diags...)
}

// protected says that a restore must not be destroyed. Null, in an imported state, protects.
func protected(state snapshotRestoreModel) bool {
	on := state.DeletionProtection.IsNull() || state.DeletionProtection.ValueBool()
	return on && state.Status.ValueString() == engine.StatusAvailable
}

func protectedText(state snapshotRestoreModel, what string) string {
	return fmt.Sprintf("The restored databases of %q would be %s, and deletion_protection is true in the state. If they may go, apply deletion_protection = false first, by itself. "+
		"To keep them and forget them: terraform state rm, or a removed block with destroy = false.", state.Name.ValueString(), what)
}

// anotherBackup returns the attributes that say that another backup is to be restored than the one in the state. The same backup may be named
// in another way, and null in an imported state forces nothing.
func anotherBackup(state, plan snapshotRestoreModel) (changed path.Paths) {
	was, wasKnown := backupOf(state)
	is, isKnown := backupOf(plan)
	if wasKnown && isKnown && was == is {
		return nil
	}
	if !plan.BackupID.Equal(state.BackupID) && !state.BackupID.IsNull() {
		changed = append(changed, path.Root("backup_id"))
	}
	if !plan.ManifestJSON.Equal(state.ManifestJSON) && !state.ManifestJSON.IsNull() {
		changed = append(changed, path.Root("manifest_json"))
	}
	return changed
}

// backupOf is the id of the backup that a restore names.
func backupOf(m snapshotRestoreModel) (id string, known bool) {
	if !m.BackupID.IsNull() {
		return m.BackupID.ValueString(), !m.BackupID.IsUnknown()
	}
	if m.ManifestJSON.IsNull() || m.ManifestJSON.IsUnknown() {
		return "", false
	}
	b, err := decodeManifest(m.ManifestJSON.ValueString())
	return b.BackupID, err == nil
}

func (r *snapshotRestoreResource) Create(ctx context.Context, req resource.CreateRequest, resp *resource.CreateResponse) {
	var m snapshotRestoreModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &m)...)
	if resp.Diagnostics.HasError() {
		return
	}
	timeout, diags := m.Timeouts.Create(ctx, restoreCreateTimeout)
	resp.Diagnostics.Append(diags...)
	b, known, diags := r.refusals(ctx, m)
	resp.Diagnostics.Append(diags...)
	if !known && !diags.HasError() {
		resp.Diagnostics.AddError("Values are still unknown", "The backup or the catalog is not known at apply. This is a bug in the provider or in Terraform.")
	}
	settings, _, diags := readVerify(ctx, m.Verify)
	resp.Diagnostics.Append(diags...)
	if resp.Diagnostics.HasError() {
		return
	}
	q := engine.RestoreRequest{Name: m.Name.ValueString(), Manifest: b, Storages: map[string]engine.RestoreStorage{}, Verify: settings}
	defer func() { closeDestinations(ctx, destinationsOf(q)) }()
	storages, _, diags := readStorages(ctx, r.data.kinds, storage.DestinationSide, m.Storages)
	resp.Diagnostics.Append(diags...)
	for name, s := range storages {
		env, err := r.data.env(ctx, name, s.credentials)
		arguments, argumentsErr := s.arguments(ctx)
		if err := errors.Join(err, argumentsErr); err != nil {
			resp.Diagnostics.AddAttributeError(path.Root("storages").AtMapKey(name), "Unusable driver arguments", err.Error()+". Nothing was touched.")
			continue
		}
		d, dd := s.kind.NewDestination(ctx, s.config, env)
		resp.Diagnostics.Append(dd...)
		if dd.HasError() {
			continue
		}
		q.Storages[name] = engine.RestoreStorage{Driver: s.kind.Name(), Arguments: arguments, Destination: d, OpenReader: openReader(s, env)}
	}
	e, err := r.data.newEngine(ctx, nil)
	if err != nil {
		resp.Diagnostics.AddError("Engine could not be set up", err.Error()+". Nothing was touched.")
	}
	if resp.Diagnostics.HasError() {
		return
	}
	ctx, cancel := r.data.deps.Clock.WithTimeout(ctx, timeout)
	defer cancel()

	record, err := e.Restore(ctx, q)
	resp.Diagnostics.Append(diagnose(err, subject{storages: keysOf(q.Storages)})...)
	if err != nil && len(record.Storages) == 0 {
		return // nothing was made
	}
	resp.Diagnostics.Append(m.fill(ctx, record, b)...)
	data, err := json.Marshal(record)
	if err != nil {
		resp.Diagnostics.AddError("Record of the restore could not be encoded", err.Error()+".")
	}
	resp.Diagnostics.Append(resp.Private.SetKey(ctx, privateRecord, data)...)
	resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
}

// openReader opens a storage for verification. Diagnostics become one error.
func openReader(s driverObject, env storage.Env) func(context.Context) (verify.Storage, error) {
	return func(ctx context.Context) (verify.Storage, error) {
		reader, diags := s.kind.NewReader(ctx, s.side, s.config, env)
		return reader, errorOf(diags)
	}
}

// errorOf is the errors among diagnostics, as one.
func errorOf(diags diag.Diagnostics) error {
	var errs []error
	for _, d := range diags.Errors() {
		errs = append(errs, errors.New(strings.TrimSuffix(d.Summary()+": "+d.Detail(), ".")))
	}
	return errors.Join(errs...)
}

func destinationsOf(q engine.RestoreRequest) map[string]engine.Destination {
	out := map[string]engine.Destination{}
	for name, s := range q.Storages {
		out[name] = s.Destination
	}
	return out
}

func closeDestinations(ctx context.Context, destinations map[string]engine.Destination) {
	for name, d := range destinations {
		if err := d.Close(); err != nil {
			logReporter{}.Report(ctx, engine.Event{Phase: engine.PhaseRestore, Subject: name, Message: "closing connections", Err: err})
		}
	}
}

// fill sets the computed attributes; none stays unknown. What was restored comes out only when the restore is available.
func (m *snapshotRestoreModel) fill(ctx context.Context, record engine.RestoreRecord, b engine.Manifest) (diags diag.Diagnostics) {
	m.ID, m.Status = types.StringValue(record.Name), types.StringValue(record.Status)
	var d diag.Diagnostics
	m.Verification, d = verificationValue(ctx, record.Verification)
	diags.Append(d...)
	if record.Status != engine.StatusAvailable {
		m.Restored, m.Properties = nullMap(restoredType()), nullMap(types.StringType)
		return diags
	}
	m.Restored, d = restoredValue(ctx, record)
	diags.Append(d...)
	m.Properties, d = stringMap(ctx, scalardbProperties(record, b))
	diags.Append(d...)
	return diags
}

// scalardbProperties is a ScalarDB configuration that reaches the restored storages: of one storage by itself, of several as multi-storage.
func scalardbProperties(record engine.RestoreRecord, b engine.Manifest) map[string]string {
	out := map[string]string{}
	names := slices.Sorted(maps.Keys(record.Storages))
	if len(names) == 1 {
		for key, value := range record.Storages[names[0]].Properties {
			out["scalar.db."+key] = value
		}
		return out
	}
	out["scalar.db.storage"] = "multi-storage"
	out["scalar.db.multi_storage.storages"] = strings.Join(names, ",")
	var mapping []string
	for _, name := range names {
		for key, value := range record.Storages[name].Properties {
			out["scalar.db.multi_storage.storages."+name+"."+key] = value
		}
		namespaces := map[string]bool{}
		for _, t := range b.Storages[name].Tables {
			namespaces[t.Namespace] = true
		}
		if b.Storages[name].HasCoordinator {
			out["scalar.db.multi_storage.default_storage"] = name
		}
		for _, ns := range slices.Sorted(maps.Keys(namespaces)) {
			mapping = append(mapping, ns+":"+name)
		}
	}
	if out["scalar.db.multi_storage.default_storage"] == "" {
		out["scalar.db.multi_storage.default_storage"] = names[0]
	}
	out["scalar.db.multi_storage.namespace_mapping"] = strings.Join(mapping, ",")
	return out
}

// record is what the run made: as kept in private state, else as the catalog has it.
func (r *snapshotRestoreResource) record(ctx context.Context, name string, private []byte) (record engine.RestoreRecord, err error) {
	if len(private) > 0 {
		if err := json.Unmarshal(private, &record); err != nil {
			return record, fmt.Errorf("decoding the record of restore %s: %w", name, err)
		}
		return record, nil
	}
	c, known := r.data.catalog()
	if !known {
		return record, errUnknownCatalog
	}
	return engine.ReadRestore(ctx, c, name)
}

// destinations opens the storages of a state.
func (r *snapshotRestoreResource) destinations(ctx context.Context, v types.Map) (map[string]engine.Destination, diag.Diagnostics) {
	storages, _, diags := readStorages(ctx, r.data.kinds, storage.DestinationSide, v)
	out := map[string]engine.Destination{}
	for name, s := range storages {
		env, err := r.data.env(ctx, name, s.credentials)
		if err != nil {
			diags.AddAttributeError(path.Root("storages").AtMapKey(name), "No such credentials", err.Error()+".")
			continue
		}
		d, dd := s.kind.NewDestination(ctx, s.config, env)
		diags.Append(dd...)
		if !dd.HasError() {
			out[name] = d
		}
	}
	return out, diags
}

// Read looks whether the restored storages are still there. The backup they came from is not asked for: a restore outlives it.
func (r *snapshotRestoreResource) Read(ctx context.Context, req resource.ReadRequest, resp *resource.ReadResponse) {
	var m snapshotRestoreModel
	resp.Diagnostics.Append(req.State.Get(ctx, &m)...)
	private, diags := req.Private.GetKey(ctx, privateRecord)
	resp.Diagnostics.Append(diags...)
	if resp.Diagnostics.HasError() || !r.data.catalogKnown || !r.data.credentialsKnown {
		return
	}
	name := m.Name.ValueString()
	record, err := r.record(ctx, name, private)
	if err != nil {
		resp.Diagnostics.AddWarning("Record of a restore could not be read", fmt.Sprintf("%s. The status of %q is that of the last time.", err, name))
		return
	}
	destinations, diags := r.destinations(ctx, m.Storages)
	defer closeDestinations(ctx, destinations)
	for _, d := range diags {
		resp.Diagnostics.AddWarning(d.Summary(), d.Detail())
	}
	var gone, failed []string
	for _, s := range slices.Sorted(maps.Keys(record.Storages)) {
		d, ok := destinations[s]
		if !ok {
			continue
		}
		switch err := d.Inspect(ctx, record.Storages[s]); {
		case errors.Is(err, engine.ErrNotFound):
			gone = append(gone, s)
		case err != nil:
			failed = append(failed, fmt.Sprintf("%s: %s", s, err))
		}
	}
	if len(failed) > 0 {
		resp.Diagnostics.AddWarning("Restored storages could not be looked at", fmt.Sprintf("Restore %q: %s. Its status is that of the last time (%s).", name, strings.Join(failed, "; "), m.Status.ValueString()))
		return
	}
	status := record.Status
	if len(gone) > 0 {
		status = engine.StatusIncomplete
		resp.Diagnostics.AddWarning("Restored storages are gone", fmt.Sprintf("Restore %q: gone is %s. To restore anew, replace it (terraform apply -replace=ADDRESS).", name, strings.Join(gone, ", ")))
	}
	m.Status = types.StringValue(status)
	resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
}

// Update stores arguments that say nothing of what was restored.
func (r *snapshotRestoreResource) Update(ctx context.Context, req resource.UpdateRequest, resp *resource.UpdateResponse) {
	var m, state snapshotRestoreModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &m)...)
	resp.Diagnostics.Append(req.State.Get(ctx, &state)...)
	if resp.Diagnostics.HasError() {
		return
	}
	m.ID, m.Status, m.Restored, m.Verification, m.Properties = state.ID, state.Status, state.Restored, state.Verification, state.Properties
	resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
}

// Delete removes what the restore created. The protection in the state decides once more: a plan cannot see -replace or a taint.
func (r *snapshotRestoreResource) Delete(ctx context.Context, req resource.DeleteRequest, resp *resource.DeleteResponse) {
	var m snapshotRestoreModel
	resp.Diagnostics.Append(req.State.Get(ctx, &m)...)
	private, diags := req.Private.GetKey(ctx, privateRecord)
	resp.Diagnostics.Append(diags...)
	timeout, diags := m.Timeouts.Delete(ctx, restoreDeleteTimeout)
	resp.Diagnostics.Append(diags...)
	if resp.Diagnostics.HasError() {
		return
	}
	if protected(m) {
		resp.Diagnostics.AddAttributeError(path.Root("deletion_protection"), "Restore is protected", protectedText(m, "destroyed"))
		return
	}
	record, err := r.record(ctx, m.Name.ValueString(), private)
	if errors.Is(err, engine.ErrNotFound) {
		resp.Diagnostics.AddWarning("Record of a restore is gone", fmt.Sprintf("%s. What the restore created is not known any more and was left alone.", err))
		return
	}
	if err != nil {
		resp.Diagnostics.AddError(summaries[engine.PhaseDelete], err.Error()+".")
		return
	}
	destinations, diags := r.destinations(ctx, m.Storages)
	defer closeDestinations(ctx, destinations)
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
	resp.Diagnostics.Append(diagnose(e.DeleteRestore(ctx, record, destinations), subject{storages: keysOf(record.Storages)})...)
}

// ImportState reads the record of a finished restore from the catalog, by its name.
func (r *snapshotRestoreResource) ImportState(ctx context.Context, req resource.ImportStateRequest, resp *resource.ImportStateResponse) {
	c, known := r.data.catalog()
	if !known {
		resp.Diagnostics.AddError("Import needs the catalog", "The provider's catalog is not known yet, so the restore's record cannot be read. Make it a value that is known at plan.")
		return
	}
	if !namePattern.MatchString(req.ID) {
		resp.Diagnostics.AddError("Invalid name of a restore", fmt.Sprintf("%q is no name of a restore.", req.ID))
		return
	}
	record, err := engine.ReadRestore(ctx, c, req.ID)
	if err == nil && record.Status != engine.StatusAvailable {
		err = fmt.Errorf("restore %s is %s: only a finished one can be imported", req.ID, record.Status)
	}
	if err != nil {
		resp.Diagnostics.AddError("Restore could not be imported", err.Error()+".")
		return
	}
	typed := map[string]typedArguments{}
	for name, arguments := range record.Arguments {
		typed[name] = typedArguments{driver: record.Drivers[name], arguments: arguments}
	}
	storages, err := importedStorages(ctx, r.kinds, storage.DestinationSide, typed)
	if err != nil {
		resp.Diagnostics.AddError("Restore could not be imported", err.Error()+".")
		return
	}
	// The backup may be gone by now; then the namespaces are not known, and scalardb_properties has no mapping.
	b, err := engine.ReadManifest(ctx, c, record.BackupID)
	if err != nil {
		resp.Diagnostics.AddWarning("Backup of an imported restore cannot be read", err.Error()+". scalardb_properties lacks the namespace mapping.")
	}
	m := snapshotRestoreModel{
		Name: types.StringValue(record.Name), BackupID: types.StringValue(record.BackupID), ManifestJSON: types.StringNull(), Storages: storages,
		Verify: types.ObjectNull(attrTypes(restoreVerifyAttribute().Attributes)), DeletionProtection: types.BoolValue(true), Timeouts: nullTimeouts("create", "delete"),
	}
	resp.Diagnostics.Append(m.fill(ctx, record, b)...)
	data, err := json.Marshal(record)
	if err != nil {
		resp.Diagnostics.AddError("Restore could not be imported", err.Error()+".")
		return
	}
	resp.Diagnostics.Append(resp.Private.SetKey(ctx, privateRecord, data)...)
	resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
}

// manifestValidator refuses what is no manifest.
type manifestValidator struct{}

func (manifestValidator) Description(context.Context) string { return "must be a backup's manifest" }

func (v manifestValidator) MarkdownDescription(ctx context.Context) string { return v.Description(ctx) }

func (manifestValidator) ValidateString(_ context.Context, req validator.StringRequest, resp *validator.StringResponse) {
	if req.ConfigValue.IsNull() || req.ConfigValue.IsUnknown() {
		return
	}
	if _, err := decodeManifest(req.ConfigValue.ValueString()); err != nil {
		resp.Diagnostics.AddAttributeError(req.Path, "Not a manifest", err.Error()+".")
	}
}
