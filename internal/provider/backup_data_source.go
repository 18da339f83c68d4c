package provider

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-timetypes/timetypes"
	"github.com/hashicorp/terraform-plugin-framework/datasource"
	datasourceschema "github.com/hashicorp/terraform-plugin-framework/datasource/schema"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

var (
	_ datasource.DataSourceWithConfigure      = (*backupDataSource)(nil)
	_ datasource.DataSourceWithValidateConfig = (*backupDataSource)(nil)
	_ datasource.DataSourceWithConfigure      = (*backupsDataSource)(nil)
)

type backupDataSource struct{ data *data }

type backupDataSourceModel struct {
	ID           types.String      `tfsdk:"id"`
	Before       timetypes.RFC3339 `tfsdk:"before"`
	Status       types.String      `tfsdk:"status"`
	CreatedAt    timetypes.RFC3339 `tfsdk:"created_at"`
	Window       types.Object      `tfsdk:"pause_window"`
	Artifacts    types.Map         `tfsdk:"artifacts"`
	ManifestJSON types.String      `tfsdk:"manifest_json"`
}

func (d *backupDataSource) Metadata(_ context.Context, req datasource.MetadataRequest, resp *datasource.MetadataResponse) {
	resp.TypeName = req.ProviderTypeName + "_backup"
}

func (d *backupDataSource) Schema(_ context.Context, _ datasource.SchemaRequest, resp *datasource.SchemaResponse) {
	attributes := map[string]attribute{
		"id": schema.StringAttribute{Optional: true, Computed: true, Validators: []validator.String{nameValidator()},
			MarkdownDescription: "Id of the backup. Exactly one of `id` and `before`."},
		"before": schema.StringAttribute{CustomType: timetypes.RFC3339Type{}, Optional: true,
			MarkdownDescription: "Take the latest backup whose window ended before this time (RFC 3339), among those that are complete and whose artifacts are all there. Exactly one of `id` and `before`. A fixed time gives the same answer at every plan until that backup is deleted."},
		"status":        computedString("`available`, `incomplete` or `expired`, from the artifacts themselves."),
		"created_at":    computedInstant("When the backup was recorded."),
		"pause_window":  schema.SingleNestedAttribute{Computed: true, MarkdownDescription: "The pause window.", Attributes: windowAttributes()},
		"artifacts":     artifactsAttribute(),
		"manifest_json": computedString("The manifest, for `manifest_json` of a restore."),
	}
	resp.Schema = datasourceschema.Schema{
		MarkdownDescription: "One backup from the catalog: by its id, or the latest available one before a time. This is how another workspace clones an environment.",
		Attributes:          toDataSourceSchema(attributes),
	}
}

func (d *backupDataSource) Configure(_ context.Context, req datasource.ConfigureRequest, resp *datasource.ConfigureResponse) {
	d.data = dataOf(req.ProviderData, &resp.Diagnostics)
}

func (d *backupDataSource) ValidateConfig(ctx context.Context, req datasource.ValidateConfigRequest, resp *datasource.ValidateConfigResponse) {
	var m backupDataSourceModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &m)...)
	if resp.Diagnostics.HasError() || m.ID.IsUnknown() || m.Before.IsUnknown() {
		return
	}
	if m.ID.IsNull() == m.Before.IsNull() {
		resp.Diagnostics.AddError("Which backup is not clear", "Set exactly one of id and before.")
	}
}

func (d *backupDataSource) Read(ctx context.Context, req datasource.ReadRequest, resp *datasource.ReadResponse) {
	var m backupDataSourceModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &m)...)
	if resp.Diagnostics.HasError() {
		return
	}
	c, known := d.data.catalog()
	if !known {
		resp.Diagnostics.AddError("Catalog is not known yet", "The provider's catalog holds a value that is known only after apply, so no backup can be looked up at plan.")
		return
	}
	var b engine.Manifest
	var err error
	if m.Before.IsNull() {
		b, err = engine.ReadManifest(ctx, c, m.ID.ValueString())
	} else {
		before, diags := m.Before.ValueRFC3339Time()
		resp.Diagnostics.Append(diags...)
		if resp.Diagnostics.HasError() {
			return
		}
		b, err = d.data.latestBefore(ctx, c, before)
	}
	if err != nil {
		at := path.Root("id")
		if m.ID.IsNull() {
			at = path.Root("before")
		}
		resp.Diagnostics.AddAttributeError(at, "Backup not found", err.Error()+".")
		return
	}
	status, why, failures := d.data.statusOf(ctx, b)
	if why != "" || len(failures) > 0 {
		resp.Diagnostics.AddWarning("Backup is not available", fmt.Sprintf("Backup %s is %s: %s.", b.BackupID, status, strings.Join(append([]string{why}, failures...), "; ")))
	}
	var full consistentBackupModel
	resp.Diagnostics.Append(full.fill(ctx, b)...)
	m.ID, m.Status, m.CreatedAt, m.Window, m.Artifacts, m.ManifestJSON = full.ID, types.StringValue(status), instant(b.CreatedAt), full.Window, full.Artifacts, full.ManifestJSON
	resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
}

// statusOf is a recorded backup's status as its artifacts have it.
func (d *data) statusOf(ctx context.Context, b engine.Manifest) (status, why string, failures []string) {
	status, why, failures = d.inspectArtifacts(ctx, b, nil)
	if status == engine.StatusAvailable && b.Status != engine.StatusAvailable {
		return b.Status, "its run did not complete", failures
	}
	if status == engine.StatusAvailable && len(failures) > 0 {
		status = engine.StatusIncomplete
	}
	return status, why, failures
}

// manifests lists the backups in a catalog, oldest window first. Manifests that cannot be read are in broken.
func manifests(ctx context.Context, c engine.Catalog) (out []engine.Manifest, broken []error, err error) {
	const prefix, name = "backups/", "/manifest.json"
	objects, err := c.List(ctx, prefix)
	if err != nil {
		return nil, nil, fmt.Errorf("listing the backups in %s: %w", c.Describe(), err)
	}
	for _, o := range objects {
		id, isManifest := strings.CutSuffix(strings.TrimPrefix(o.Name, prefix), name)
		if !isManifest || o.Name != engine.ManifestName(id) || strings.Contains(id, "/") {
			continue
		}
		b, err := engine.ReadManifest(ctx, c, id)
		switch {
		case errors.Is(err, engine.ErrNotFound): // deleted meanwhile
		case err != nil:
			broken = append(broken, err)
		default:
			out = append(out, b)
		}
	}
	slices.SortFunc(out, func(a, b engine.Manifest) int {
		if c := a.Window.EndedAt.Compare(b.Window.EndedAt); c != 0 {
			return c
		}
		return strings.Compare(a.BackupID, b.BackupID)
	})
	return out, broken, nil
}

// latestBefore finds the latest available backup whose window ended before a time.
func (d *data) latestBefore(ctx context.Context, c engine.Catalog, before time.Time) (engine.Manifest, error) {
	all, broken, err := manifests(ctx, c)
	if err != nil {
		return engine.Manifest{}, err
	}
	// A manifest that cannot be read may be that of the backup asked for: taking an older one silently would be wrong.
	if len(broken) > 0 {
		return engine.Manifest{}, fmt.Errorf("looking for the latest backup: %w", errors.Join(broken...))
	}
	for _, b := range slices.Backward(all) {
		if !b.Window.EndedAt.Before(before) {
			continue
		}
		if status, _, _ := d.statusOf(ctx, b); status == engine.StatusAvailable {
			return b, nil
		}
	}
	return engine.Manifest{}, fmt.Errorf("there is no available backup in %s whose window ended before %s", c.Describe(), before.Format(time.RFC3339))
}

type backupsDataSource struct{ data *data }

type backupsModel struct {
	Backups types.List `tfsdk:"backups"`
}

type backupSummaryModel struct {
	ID           types.String      `tfsdk:"id"`
	Status       types.String      `tfsdk:"status"`
	CreatedAt    timetypes.RFC3339 `tfsdk:"created_at"`
	StartedAt    timetypes.RFC3339 `tfsdk:"started_at"`
	EndedAt      timetypes.RFC3339 `tfsdk:"ended_at"`
	RestorePoint timetypes.RFC3339 `tfsdk:"restore_point"`
	DurationMS   types.Int64       `tfsdk:"duration_ms"`
	Storages     map[string]string `tfsdk:"storages"`
	Size         types.Int64       `tfsdk:"size"`
}

func backupSummaryAttributes() map[string]attribute {
	return map[string]attribute{
		"id":            computedString("Id of the backup."),
		"status":        computedString("As recorded; the artifacts are not looked at. `data.scalardb_backup` does."),
		"created_at":    computedInstant("When the backup was recorded."),
		"started_at":    computedInstant("Begin of the window."),
		"ended_at":      computedInstant("End of the window."),
		"restore_point": computedInstant("The window's restore point, where there is one."),
		"duration_ms":   computedInt("Length of the window in milliseconds."),
		"storages":      schema.MapAttribute{Computed: true, ElementType: types.StringType, MarkdownDescription: "The driver of every storage, by storage."},
		"size":          computedInt("Bytes of all artifacts, as stored, as far as known."),
	}
}

func (d *backupsDataSource) Metadata(_ context.Context, req datasource.MetadataRequest, resp *datasource.MetadataResponse) {
	resp.TypeName = req.ProviderTypeName + "_backups"
}

func (d *backupsDataSource) Schema(_ context.Context, _ datasource.SchemaRequest, resp *datasource.SchemaResponse) {
	resp.Schema = datasourceschema.Schema{
		MarkdownDescription: "The backups in the catalog, oldest first.",
		Attributes: toDataSourceSchema(map[string]attribute{
			"backups": schema.ListNestedAttribute{Computed: true, MarkdownDescription: "The backups, by the end of their windows.",
				NestedObject: schema.NestedAttributeObject{Attributes: backupSummaryAttributes()}},
		}),
	}
}

func (d *backupsDataSource) Configure(_ context.Context, req datasource.ConfigureRequest, resp *datasource.ConfigureResponse) {
	d.data = dataOf(req.ProviderData, &resp.Diagnostics)
}

func (d *backupsDataSource) Read(ctx context.Context, _ datasource.ReadRequest, resp *datasource.ReadResponse) {
	c, known := d.data.catalog()
	if !known {
		resp.Diagnostics.AddError("Catalog is not known yet", "The provider's catalog holds a value that is known only after apply, so the backups cannot be listed at plan.")
		return
	}
	all, broken, err := manifests(ctx, c)
	if err != nil {
		resp.Diagnostics.AddError("Backups could not be listed", err.Error()+".")
		return
	}
	for _, err := range broken {
		resp.Diagnostics.AddWarning("Unreadable manifest", err.Error()+". This backup is not in the list.")
	}
	list := []backupSummaryModel{}
	for _, b := range all {
		s := backupSummaryModel{ID: types.StringValue(b.BackupID), Status: types.StringValue(b.Status), CreatedAt: instant(b.CreatedAt), StartedAt: instant(b.Window.StartedAt), EndedAt: instant(b.Window.EndedAt),
			RestorePoint: instant(b.Window.RestorePoint), DurationMS: types.Int64Value(b.Window.DurationMS), Storages: map[string]string{}}
		var size int64
		for name, r := range b.Storages {
			s.Storages[name] = r.Driver
			for _, a := range r.Artifacts {
				size += a.Size
			}
		}
		s.Size = types.Int64Value(size)
		list = append(list, s)
	}
	v, diags := types.ListValueFrom(ctx, types.ObjectType{AttrTypes: attrTypes(backupSummaryAttributes())}, list)
	resp.Diagnostics.Append(diags...)
	resp.Diagnostics.Append(resp.State.Set(ctx, backupsModel{Backups: v})...)
}
