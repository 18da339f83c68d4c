package provider

import (
	"context"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-timetypes/timetypes"
	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

func computedString(text string) attribute {
	return schema.StringAttribute{Computed: true, MarkdownDescription: text}
}

func computedInstant(text string) attribute {
	return schema.StringAttribute{CustomType: timetypes.RFC3339Type{}, Computed: true, MarkdownDescription: text + " RFC 3339, UTC."}
}

func computedInt(text string) attribute {
	return schema.Int64Attribute{Computed: true, MarkdownDescription: text}
}

// windowAttributes are those of `pause_window`, the same everywhere.
func windowAttributes() map[string]attribute {
	return map[string]attribute{
		"backup_id":     computedString("The backup (or the pause window) this window belongs to."),
		"status":        computedString("`available`: every check of the window held. `incomplete`: one did not, or the run did not end; the window proves nothing."),
		"started_at":    computedInstant("When every target was confirmed paused, by the clock of the machine that ran Terraform."),
		"ended_at":      computedInstant("The last moment before the first unpause was sent, by the same clock."),
		"restore_point": computedInstant("An instant in the safe interval, on whole seconds: the time to restore to, by point-in-time recovery. Null where nothing is restored by time."),
		"safe_from":     computedInstant("Begin of the safe interval: the window, shrunk by what every storage's clock may be off."),
		"safe_until":    computedInstant("End of the safe interval."),
		"duration_ms":   computedInt("Length of the window in milliseconds."),
		"drain_ms":      computedInt("Milliseconds from the first pause request until every target was paused. New transactions were refused for this time, too."),
		"targets": schema.MapAttribute{Computed: true, ElementType: types.ListType{ElemType: targetRecordType()},
			MarkdownDescription: "The targets that were paused, by target group: `address`, `incarnation` (changes when the target restarts), `paused_at` and `unpaused_at` (both confirmed by the target; RFC 3339, UTC; null if never)."},
		"clock_bounds": schema.MapNestedAttribute{Computed: true,
			MarkdownDescription: "How far every storage's clock may be off, by storage.",
			NestedObject: schema.NestedAttributeObject{Attributes: map[string]attribute{
				"offset_ms":      computedInt("Measured offset of the storage's clock against this machine's, in milliseconds; positive when the storage's is ahead."),
				"uncertainty_ms": computedInt("How far the offset may be wrong in either direction, in milliseconds."),
			}}},
	}
}

func targetRecordType() types.ObjectType {
	return types.ObjectType{AttrTypes: map[string]attr.Type{
		"address": types.StringType, "incarnation": types.StringType, "paused_at": timetypes.RFC3339Type{}, "unpaused_at": timetypes.RFC3339Type{},
	}}
}

type windowModel struct {
	BackupID     types.String      `tfsdk:"backup_id"`
	Status       types.String      `tfsdk:"status"`
	StartedAt    timetypes.RFC3339 `tfsdk:"started_at"`
	EndedAt      timetypes.RFC3339 `tfsdk:"ended_at"`
	RestorePoint timetypes.RFC3339 `tfsdk:"restore_point"`
	SafeFrom     timetypes.RFC3339 `tfsdk:"safe_from"`
	SafeUntil    timetypes.RFC3339 `tfsdk:"safe_until"`
	DurationMS   types.Int64       `tfsdk:"duration_ms"`
	DrainMS      types.Int64       `tfsdk:"drain_ms"`
	Targets      types.Map         `tfsdk:"targets"`
	ClockBounds  types.Map         `tfsdk:"clock_bounds"`
}

type targetRecordModel struct {
	Address     types.String      `tfsdk:"address"`
	Incarnation types.String      `tfsdk:"incarnation"`
	PausedAt    timetypes.RFC3339 `tfsdk:"paused_at"`
	UnpausedAt  timetypes.RFC3339 `tfsdk:"unpaused_at"`
}

type clockBoundModel struct {
	Offset      types.Int64 `tfsdk:"offset_ms"`
	Uncertainty types.Int64 `tfsdk:"uncertainty_ms"`
}

// instant is null for the zero time.
func instant(t time.Time) timetypes.RFC3339 {
	if t.IsZero() {
		return timetypes.NewRFC3339Null()
	}
	v, _ := timetypes.NewRFC3339Value(t.UTC().Format(time.RFC3339Nano)) // always well-formed; NewRFC3339TimeValue would drop the fraction
	return v
}

// text is null for the empty string.
func text(s string) types.String {
	if s == "" {
		return types.StringNull()
	}
	return types.StringValue(s)
}

func newWindowModel(ctx context.Context, w engine.PauseWindow) (windowModel, diag.Diagnostics) {
	m := windowModel{
		BackupID: text(w.BackupID), Status: text(w.Status), StartedAt: instant(w.StartedAt), EndedAt: instant(w.EndedAt), RestorePoint: instant(w.RestorePoint),
		SafeFrom: instant(w.SafeFrom), SafeUntil: instant(w.SafeUntil), DurationMS: types.Int64Value(w.DurationMS), DrainMS: types.Int64Value(w.DrainMS),
	}
	targets := map[string][]targetRecordModel{}
	for group, records := range w.Targets {
		targets[group] = []targetRecordModel{}
		for _, r := range records {
			targets[group] = append(targets[group], targetRecordModel{Address: text(r.Address), Incarnation: text(r.Incarnation), PausedAt: instant(r.PausedAt), UnpausedAt: instant(r.UnpausedAt)})
		}
	}
	bounds := map[string]clockBoundModel{}
	for storage, b := range w.ClockBounds {
		bounds[storage] = clockBoundModel{Offset: types.Int64Value(b.OffsetMS), Uncertainty: types.Int64Value(b.UncertaintyMS)}
	}
	var diags, d diag.Diagnostics
	m.Targets, d = types.MapValueFrom(ctx, types.ListType{ElemType: targetRecordType()}, targets)
	diags.Append(d...)
	m.ClockBounds, d = types.MapValueFrom(ctx, types.ObjectType{AttrTypes: map[string]attr.Type{"offset_ms": types.Int64Type, "uncertainty_ms": types.Int64Type}}, bounds)
	diags.Append(d...)
	return m, diags
}

// windowType is the type of `pause_window`.
func windowType() types.ObjectType { return types.ObjectType{AttrTypes: attrTypes(windowAttributes())} }

func windowValue(ctx context.Context, w engine.PauseWindow) (types.Object, diag.Diagnostics) {
	if w.BackupID == "" && w.StartedAt.IsZero() && len(w.Targets) == 0 {
		return types.ObjectNull(windowType().AttrTypes), nil
	}
	m, diags := newWindowModel(ctx, w)
	v, d := types.ObjectValueFrom(ctx, windowType().AttrTypes, m)
	diags.Append(d...)
	return v, diags
}
