package provider

import (
	"context"
	"errors"
	"fmt"
	"time"

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
	_ resource.ResourceWithConfigure      = (*snapshotRestoreResource)(nil)
	_ resource.ResourceWithModifyPlan     = (*snapshotRestoreResource)(nil)
	_ resource.ResourceWithImportState    = (*snapshotRestoreResource)(nil)
	_ resource.ResourceWithValidateConfig = (*snapshotRestoreResource)(nil)
)

const snapshotRestoreCreateTimeout = 4 * time.Hour

type snapshotRestoreResource struct{ restorer }

func newSnapshotRestore(kinds []storage.Kind) *snapshotRestoreResource {
	return &snapshotRestoreResource{restorer{kinds: restoring(kinds, func(r storage.Restores) bool { return r.FromArtifacts })}}
}

type snapshotRestoreModel struct {
	restoreModel
	BackupID     types.String `tfsdk:"backup_id"`
	ManifestJSON types.String `tfsdk:"manifest_json"`
}

func (r *snapshotRestoreResource) Metadata(_ context.Context, req resource.MetadataRequest, resp *resource.MetadataResponse) {
	resp.TypeName = req.ProviderTypeName + "_snapshot_restore"
}

func (r *snapshotRestoreResource) Schema(ctx context.Context, _ resource.SchemaRequest, resp *resource.SchemaResponse) {
	attributes := restoreAttributes(ctx, r.kinds,
		"Where every storage of the backup goes, by the storage's name in the backup: all that have artifacts, since a system restored in part is not consistent. Each value sets the driver object that captured the storage, with the address of a database that is new or empty.",
		"For restoring and verifying. Default `4h`.")
	attributes["backup_id"] = schema.StringAttribute{Optional: true, Validators: []validator.String{nameValidator()},
		MarkdownDescription: "Id of the backup, read from the catalog. Use `scalardb_consistent_backup.x.id` for a backup of the same configuration. Exactly one of `backup_id` and `manifest_json`. Another backup restores anew."}
	attributes["manifest_json"] = schema.StringAttribute{Optional: true, Validators: []validator.String{manifestValidator{}},
		MarkdownDescription: "The manifest of the backup, for example `data.scalardb_backup.x.manifest_json`. Exactly one of `backup_id` and `manifest_json`. Another backup restores anew."}
	resp.Schema = schema.Schema{
		MarkdownDescription: "The artifacts of one backup restored into new or empty databases, and proved consistent. A restore outlives its backup: deleting the backup later changes nothing here.",
		Attributes:          attributes,
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
	resp.Diagnostics.Append(validateVerify(ctx, m.restoreModel)...)
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
	b, err = readNamedBackup(ctx, c, m.BackupID.ValueString())
	return b, at, true, err
}

// readNamedBackup reads the manifest of a backup that a user named.
func readNamedBackup(ctx context.Context, c engine.Catalog, id string) (engine.Manifest, error) {
	b, err := engine.ReadManifest(ctx, c, id)
	if errors.Is(err, engine.ErrNotFound) {
		err = fmt.Errorf("%w. A backup that this very configuration makes is named by the id attribute of its resource, not by its name: the id is known only once the backup exists", err)
	}
	return b, err
}

// refusals are all reasons, known without touching anything, why this backup cannot be restored so. They are looked for at plan and again before anything is made.
func (r *snapshotRestoreResource) refusals(ctx context.Context, m snapshotRestoreModel) (b engine.Manifest, known bool, diags diag.Diagnostics) {
	b, at, known, err := r.backup(ctx, m)
	if err != nil {
		diags.AddAttributeError(at, "Backup cannot be restored", err.Error()+".")
		return b, true, diags
	}
	storages, drivers, driversKnown, d := r.driversIn(ctx, m.Storages)
	diags.Append(d...)
	if !known || !driversKnown {
		return b, known, diags
	}
	if err := engine.Restorable(b, drivers); err != nil {
		diags.AddAttributeError(path.Root("storages"), "Backup cannot be restored", err.Error()+".")
		return b, true, diags
	}
	diags.Append(r.artifactsGone(ctx, b, at)...)
	diags.Append(r.missingCredentials(ctx, storages)...)
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
		if exists && state.protected() {
			resp.Diagnostics.Append(state.protectedError("destroyed"))
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
		if state.protected() {
			resp.Diagnostics.Append(state.protectedError("replaced"))
			return
		}
	}
	_, _, diags := r.refusals(ctx, m)
	resp.Diagnostics.Append(diags...)
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
	timeout, diags := m.Timeouts.Create(ctx, snapshotRestoreCreateTimeout)
	resp.Diagnostics.Append(diags...)
	b, known, diags := r.refusals(ctx, m)
	resp.Diagnostics.Append(diags...)
	if !known && !diags.HasError() {
		resp.Diagnostics.AddError("Values are still unknown", "The backup or the catalog is not known at apply. This is a bug in the provider or in Terraform.")
	}
	if resp.Diagnostics.HasError() {
		return
	}
	if r.create(ctx, &m.restoreModel, engine.RestoreRequest{Manifest: b}, timeout, resp) {
		resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
	}
}

// Read looks whether the restored storages are still there.
func (r *snapshotRestoreResource) Read(ctx context.Context, req resource.ReadRequest, resp *resource.ReadResponse) {
	var m snapshotRestoreModel
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
func (r *snapshotRestoreResource) Update(ctx context.Context, req resource.UpdateRequest, resp *resource.UpdateResponse) {
	var m, state snapshotRestoreModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &m)...)
	resp.Diagnostics.Append(req.State.Get(ctx, &state)...)
	if resp.Diagnostics.HasError() {
		return
	}
	m.keepComputed(state.restoreModel)
	resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
}

// Delete removes what the restore created.
func (r *snapshotRestoreResource) Delete(ctx context.Context, req resource.DeleteRequest, resp *resource.DeleteResponse) {
	var m snapshotRestoreModel
	resp.Diagnostics.Append(req.State.Get(ctx, &m)...)
	private, diags := req.Private.GetKey(ctx, privateRecord)
	resp.Diagnostics.Append(diags...)
	if !resp.Diagnostics.HasError() {
		resp.Diagnostics.Append(r.delete(ctx, m.restoreModel, private)...)
	}
}

// ImportState reads the record of a finished restore from the catalog, by its name.
func (r *snapshotRestoreResource) ImportState(ctx context.Context, req resource.ImportStateRequest, resp *resource.ImportStateResponse) {
	m, record, ok := r.imported(ctx, req.ID, false, resp)
	if ok {
		resp.Diagnostics.Append(resp.State.Set(ctx, snapshotRestoreModel{restoreModel: m, BackupID: types.StringValue(record.BackupID), ManifestJSON: types.StringNull()})...)
	}
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
