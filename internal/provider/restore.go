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

// privateRecord is the key of private state that holds the restore's record: unlike an attribute, nothing can be wired to what it says before
// the verification passed.
const privateRecord = "record"

const restoreDeleteTimeout = 30 * time.Minute

// restorer is what scalardb_snapshot_restore and scalardb_pitr_restore have in common.
type restorer struct {
	kinds []storage.Kind // that restore in the resource's way
	data  *data
}

// restoring are the kinds that a resource can restore.
func restoring(kinds []storage.Kind, in func(storage.Restores) bool) (out []storage.Kind) {
	for _, k := range kinds {
		if in(k.Restores()) {
			out = append(out, k)
		}
	}
	return out
}

// restoreModel is what the states of both have in common.
type restoreModel struct {
	ID                 types.String   `tfsdk:"id"`
	Name               types.String   `tfsdk:"name"`
	Storages           types.Map      `tfsdk:"storages"`
	Verify             types.Object   `tfsdk:"verify"`
	DeletionProtection types.Bool     `tfsdk:"deletion_protection"`
	Timeouts           timeouts.Value `tfsdk:"timeouts"`
	Status             types.String   `tfsdk:"status"`
	Restored           types.Map      `tfsdk:"restored"`
	Verification       types.Object   `tfsdk:"verification"`
	Properties         types.Map      `tfsdk:"scalardb_properties"`
}

// restoreAttributes are the attributes of restoreModel.
func restoreAttributes(ctx context.Context, kinds []storage.Kind, storages, created string) map[string]attribute {
	keep := []planmodifier.String{stringplanmodifier.UseStateForUnknown()}
	id := computedString("The restore's id: its name.").(schema.StringAttribute)                                                                                                        //nolint:forcetypeassert // written in window.go
	status := computedString("`available`: restored, and verified unless that was switched off. `incomplete`: the run failed, or a restored storage is gone.").(schema.StringAttribute) //nolint:forcetypeassert // written in window.go
	id.PlanModifiers, status.PlanModifiers = keep, keep
	restored, verification := restoredAttribute(), verificationAttribute("The result of the verification; null where it was switched off.")
	restored.PlanModifiers = []planmodifier.Map{mapplanmodifier.UseStateForUnknown()}
	verification.PlanModifiers = []planmodifier.Object{objectplanmodifier.UseStateForUnknown()}
	return map[string]attribute{
		"id": id,
		"name": schema.StringAttribute{Required: true, MarkdownDescription: "Name and id of the restore: " + nameRule + ". Its record lies in the catalog under this name. A change restores anew.",
			Validators: []validator.String{nameValidator()}, PlanModifiers: []planmodifier.String{stringplanmodifier.RequiresReplace()}},
		"storages": storagesAttribute(kinds, storage.DestinationSide, true, true, storages),
		"verify":   restoreVerifyAttribute(),
		"deletion_protection": schema.BoolAttribute{Optional: true, Computed: true, Default: booldefault.StaticBool(true),
			MarkdownDescription: "Whether to refuse to destroy or replace the restored databases. The value in the *state* decides, so `false` has to be applied before the destroy. A restore that is not `available` can always be destroyed. Default `true`."},
		"timeouts": timeoutsAttribute(ctx, timeouts.Opts{Create: true, Delete: true, CreateDescription: created,
			DeleteDescription: "For deleting what the restore created. Default `30m`."}),
		"status":       status,
		"restored":     restored,
		"verification": verification,
		"scalardb_properties": schema.MapAttribute{Computed: true, ElementType: types.StringType, PlanModifiers: []planmodifier.Map{mapplanmodifier.UseStateForUnknown()},
			MarkdownDescription: "What a ScalarDB configuration needs to reach the restored storages, for `provider::scalardb::render_properties`. Without credentials. Null until the restore is `available`."},
	}
}

// restoreVerifyModel is `verify`.
type restoreVerifyModel struct {
	Enabled types.Bool `tfsdk:"enabled"`
	verifyModel
}

func restoreVerifyAttribute() schema.SingleNestedAttribute {
	arguments := verifyArguments()
	arguments["enabled"] = schema.BoolAttribute{Optional: true, MarkdownDescription: "Whether to verify at all. Default `true`; without `verify`, only where every storage can be read: see the provider's `credentials`."}
	return schema.SingleNestedAttribute{Optional: true, Attributes: arguments,
		MarkdownDescription: "How the restored storages are verified: every transactional table is scanned for records in flight, late records, and records that contradict the coordinator table, and compared with what the manifest recorded. " +
			"Only then do `restored` and `scalardb_properties` come out. Changes update in place, without a new verification."}
}

// validateVerify wants known names in verify.
func validateVerify(ctx context.Context, m restoreModel) (diags diag.Diagnostics) {
	v, known, diags := readVerify(ctx, m.Verify)
	if known && v != nil && !m.Storages.IsUnknown() {
		for _, problem := range unknownStorages(*v, keysOf(m.Storages.Elements())) {
			diags.AddAttributeError(path.Root("verify"), "Unknown storage", problem)
		}
	}
	return diags
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

// unreadable are the storages that cannot be verified, for want of a login that their driver needs.
func (r *restorer) unreadable(storages map[string]driverObject) (names []string) {
	for _, name := range slices.Sorted(maps.Keys(storages)) {
		s := storages[name]
		needs, ok := s.kind.(storage.LoginNeeder)
		if !ok || !needs.NeedsLogin() {
			continue
		}
		key := s.credentials
		if key == "" {
			key = name
		}
		if r.data.credentials[key] == nil {
			names = append(names, name)
		}
	}
	return names
}

// driversIn are the drivers of `storages` by name, known more often than their arguments are. known is false where even they are not.
func (r *restorer) driversIn(ctx context.Context, v types.Map) (storages map[string]driverObject, drivers map[string]string, known bool, diags diag.Diagnostics) {
	storages, storagesKnown, diags := readStorages(ctx, r.data.kinds, storage.DestinationSide, v)
	drivers = map[string]string{}
	if storagesKnown {
		for name, s := range storages {
			drivers[name] = s.kind.Name()
		}
		return storages, drivers, true, diags
	}
	for _, pair := range driversOf(v) {
		name, driver, _ := strings.Cut(pair, " ")
		if _, twice := drivers[name]; twice {
			return nil, nil, false, diags // a driver object that is unknown yet: cannot be told
		}
		drivers[name] = driver
	}
	return nil, drivers, !v.IsUnknown() && len(drivers) == len(v.Elements()), diags
}

// missingCredentials are `credentials` arguments that name no entry.
func (r *restorer) missingCredentials(ctx context.Context, storages map[string]driverObject) (diags diag.Diagnostics) {
	if !r.data.credentialsKnown {
		return diags
	}
	for name, s := range storages {
		if _, err := r.data.env(ctx, name, s.credentials); err != nil {
			diags.AddAttributeError(path.Root("storages").AtMapKey(name).AtName(s.kind.Name()).AtName(credentialsArgument), "No such credentials", err.Error()+".")
		}
	}
	return diags
}

// artifactsGone refuses a backup whose manifest says available, as of its recording, and whose artifacts are gone since.
func (r *restorer) artifactsGone(ctx context.Context, b engine.Manifest, at path.Path) (diags diag.Diagnostics) {
	if !r.data.credentialsKnown || !r.data.awsKnown {
		return diags
	}
	if status, why, _ := r.data.inspectArtifacts(ctx, b, nil); status != engine.StatusAvailable {
		diags.AddAttributeError(at, "Backup cannot be restored", fmt.Sprintf("Backup %s is %s: %s. Only one that is available can be restored.", b.BackupID, status, why))
	}
	return diags
}

// protected says that a restore must not be destroyed. Null, in an imported state, protects.
func (m restoreModel) protected() bool {
	on := m.DeletionProtection.IsNull() || m.DeletionProtection.ValueBool()
	return on && m.Status.ValueString() == engine.StatusAvailable
}

func (m restoreModel) protectedError(what string) diag.Diagnostic {
	return diag.NewAttributeErrorDiagnostic(path.Root("deletion_protection"), "Restore is protected",
		fmt.Sprintf("The restored databases of %q would be %s, and deletion_protection is true in the state. If they may go, apply deletion_protection = false first, by itself. "+
			"To keep them and forget them: terraform state rm, or a removed block with destroy = false.", m.Name.ValueString(), what))
}

// create runs one restore and fills the model. made is false when nothing was made, so that there is nothing to keep in the state.
func (r *restorer) create(ctx context.Context, m *restoreModel, q engine.RestoreRequest, timeout time.Duration, resp *resource.CreateResponse) (made bool) {
	q.Name, q.Storages = m.Name.ValueString(), map[string]engine.RestoreStorage{}
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
		env.Namespaces = namespacesOf(q.Manifest.Storages[name])
		d, dd := s.kind.NewDestination(ctx, s.config, env)
		resp.Diagnostics.Append(dd...)
		if dd.HasError() {
			continue
		}
		q.Storages[name] = engine.RestoreStorage{Driver: s.kind.Name(), Arguments: arguments, Destination: d, OpenReader: openReader(s, env)}
	}
	settings, _, diags := readVerify(ctx, m.Verify)
	resp.Diagnostics.Append(diags...)
	q.Verify = settings
	if m.Verify.IsNull() {
		if names := r.unreadable(storages); len(names) > 0 {
			q.Verify = nil
			resp.Diagnostics.AddAttributeWarning(path.Root("verify"), "The restore is not verified",
				fmt.Sprintf("The provider's credentials have no entry for %s, so what is restored cannot be read. Add one, or say verify = { enabled = false }.", strings.Join(names, ", ")))
		}
	}
	e, err := r.data.newEngine(ctx, nil)
	if err != nil {
		resp.Diagnostics.AddError("Engine could not be set up", err.Error()+". Nothing was touched.")
	}
	if resp.Diagnostics.HasError() {
		return false
	}
	ctx, cancel := r.data.deps.Clock.WithTimeout(ctx, timeout)
	defer cancel()

	record, err := e.Restore(ctx, q)
	resp.Diagnostics.Append(diagnose(err, subject{storages: keysOf(q.Storages)})...)
	if err != nil && len(record.Storages) == 0 {
		return false
	}
	resp.Diagnostics.Append(m.fill(ctx, record, q.Manifest)...)
	data, err := json.Marshal(record)
	if err != nil {
		resp.Diagnostics.AddError("Record of the restore could not be encoded", err.Error()+".")
	}
	resp.Diagnostics.Append(resp.Private.SetKey(ctx, privateRecord, data)...)
	return true
}

// namespacesOf are those of which the backup has tables.
func namespacesOf(r engine.StorageRecord) (names []string) {
	for _, t := range r.Tables {
		names = append(names, t.Namespace)
	}
	slices.Sort(names)
	return slices.Compact(names)
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
func (m *restoreModel) fill(ctx context.Context, record engine.RestoreRecord, b engine.Manifest) (diags diag.Diagnostics) {
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
func (r *restorer) record(ctx context.Context, name string, private []byte) (record engine.RestoreRecord, err error) {
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
func (r *restorer) destinations(ctx context.Context, v types.Map) (map[string]engine.Destination, diag.Diagnostics) {
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

// read looks whether the restored storages are still there, and sets the status. The backup they came from is not asked for: a restore
// outlives it. known is false where that cannot be told: the state stays as it is.
func (r *restorer) read(ctx context.Context, m *restoreModel, private []byte) (known bool, diags diag.Diagnostics) {
	if !r.data.catalogKnown || !r.data.credentialsKnown || !r.data.awsKnown {
		return false, diags
	}
	name := m.Name.ValueString()
	record, err := r.record(ctx, name, private)
	if err != nil {
		diags.AddWarning("Record of a restore could not be read", fmt.Sprintf("%s. The status of %q is that of the last time.", err, name))
		return false, diags
	}
	destinations, d := r.destinations(ctx, m.Storages)
	defer closeDestinations(ctx, destinations)
	for _, problem := range d {
		diags.AddWarning(problem.Summary(), problem.Detail())
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
		diags.AddWarning("Restored storages could not be looked at", fmt.Sprintf("Restore %q: %s. Its status is that of the last time (%s).", name, strings.Join(failed, "; "), m.Status.ValueString()))
		return false, diags
	}
	status := record.Status
	if len(gone) > 0 {
		status = engine.StatusIncomplete
		diags.AddWarning("Restored storages are gone", fmt.Sprintf("Restore %q: gone is %s. To restore anew, replace it (terraform apply -replace=ADDRESS).", name, strings.Join(gone, ", ")))
	}
	m.Status = types.StringValue(status)
	return true, diags
}

// keepComputed is for an update, which stores arguments that say nothing of what was restored.
func (m *restoreModel) keepComputed(state restoreModel) {
	m.ID, m.Status, m.Restored, m.Verification, m.Properties = state.ID, state.Status, state.Restored, state.Verification, state.Properties
}

// delete removes what the restore created. The protection in the state decides once more: a plan cannot see -replace or a taint.
func (r *restorer) delete(ctx context.Context, m restoreModel, private []byte) (diags diag.Diagnostics) {
	timeout, diags := m.Timeouts.Delete(ctx, restoreDeleteTimeout)
	if diags.HasError() {
		return diags
	}
	if m.protected() {
		diags.Append(m.protectedError("destroyed"))
		return diags
	}
	record, err := r.record(ctx, m.Name.ValueString(), private)
	if errors.Is(err, engine.ErrNotFound) {
		diags.AddWarning("Record of a restore is gone", fmt.Sprintf("%s. What the restore created is not known any more and was left alone.", err))
		return diags
	}
	if err != nil {
		diags.AddError(summaries[engine.PhaseDelete], err.Error()+".")
		return diags
	}
	destinations, d := r.destinations(ctx, m.Storages)
	defer closeDestinations(ctx, destinations)
	diags.Append(d...)
	e, err := r.data.newEngine(ctx, nil)
	if err != nil {
		diags.AddError("Engine could not be set up", err.Error()+". Nothing was deleted.")
	}
	if diags.HasError() {
		return diags
	}
	ctx, cancel := r.data.deps.Clock.WithTimeout(ctx, timeout)
	defer cancel()
	diags.Append(diagnose(e.DeleteRestore(ctx, record, destinations), subject{storages: keysOf(record.Storages)})...)
	return diags
}

// imported reads the record of a finished restore from the catalog, by its name. byTime says which resource asks. ok is false with an error.
func (r *restorer) imported(ctx context.Context, name string, byTime bool, resp *resource.ImportStateResponse) (m restoreModel, record engine.RestoreRecord, ok bool) {
	c, known := r.data.catalog()
	if !known {
		resp.Diagnostics.AddError("Import needs the catalog", "The provider's catalog is not known yet, so the restore's record cannot be read. Make it a value that is known at plan.")
		return m, record, false
	}
	if !namePattern.MatchString(name) {
		resp.Diagnostics.AddError("Invalid name of a restore", fmt.Sprintf("%q is no name of a restore.", name))
		return m, record, false
	}
	record, err := engine.ReadRestore(ctx, c, name)
	switch {
	case err != nil:
	case record.Status != engine.StatusAvailable:
		err = fmt.Errorf("restore %s is %s: only a finished one can be imported", name, record.Status)
	case byTime == record.RestorePoint.IsZero():
		right := map[bool]string{true: "scalardb_snapshot_restore", false: "scalardb_pitr_restore"}[byTime]
		err = fmt.Errorf("restore %s is a %s: import it into a resource of that type", name, right)
	}
	if err != nil {
		resp.Diagnostics.AddError("Restore could not be imported", err.Error()+".")
		return m, record, false
	}
	typed := map[string]typedArguments{}
	for name, arguments := range record.Arguments {
		typed[name] = typedArguments{driver: record.Drivers[name], arguments: arguments}
	}
	storages, err := importedStorages(ctx, r.kinds, storage.DestinationSide, typed)
	if err != nil {
		resp.Diagnostics.AddError("Restore could not be imported", err.Error()+".")
		return m, record, false
	}
	// The backup may be gone by now; then the namespaces are not known, and scalardb_properties has no mapping.
	b, err := engine.ReadManifest(ctx, c, record.BackupID)
	if err != nil {
		resp.Diagnostics.AddWarning("Backup of an imported restore cannot be read", err.Error()+". scalardb_properties lacks the namespace mapping.")
	}
	m = restoreModel{
		Name: types.StringValue(record.Name), Storages: storages, Verify: types.ObjectNull(attrTypes(restoreVerifyAttribute().Attributes)),
		DeletionProtection: types.BoolValue(true), Timeouts: nullTimeouts("create", "delete"),
	}
	resp.Diagnostics.Append(m.fill(ctx, record, b)...)
	data, err := json.Marshal(record)
	if err != nil {
		resp.Diagnostics.AddError("Restore could not be imported", err.Error()+".")
		return m, record, false
	}
	resp.Diagnostics.Append(resp.Private.SetKey(ctx, privateRecord, data)...)
	return m, record, true
}
