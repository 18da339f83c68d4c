package provider

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework-validators/mapvalidator"
	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/tfsdk"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-framework/types/basetypes"
	"github.com/hashicorp/terraform-plugin-go/tftypes"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage"
)

// credentialsArgument is the argument of a driver object that names an entry of the provider's credentials.
const credentialsArgument = "credentials"

// driverAttributes are the arguments of one driver object: the driver's own, and `credentials`.
func driverAttributes(k storage.Kind, side storage.Side) map[string]attribute {
	own := k.SourceAttributes()
	if side == storage.DestinationSide {
		own = k.DestinationAttributes()
	}
	out := make(map[string]attribute, len(own)+1)
	for name, a := range own {
		out[name] = a
	}
	if _, has := out[credentialsArgument]; !has {
		out[credentialsArgument] = schema.StringAttribute{Optional: true,
			MarkdownDescription: "Key of the provider's `credentials` to use. Default: the storage's name."}
	}
	return out
}

// storagesAttribute composes `storages` from the registered drivers. replace says whether what the drivers declare replaces the resource does so here.
func storagesAttribute(kinds []storage.Kind, side storage.Side, required, replace bool, text string) attribute {
	drivers := make(map[string]attribute, len(kinds))
	for _, k := range kinds {
		attributes := driverAttributes(k, side)
		if !replace {
			attributes = withoutModifiers(attributes)
		}
		drivers[k.Name()] = schema.SingleNestedAttribute{Optional: true, MarkdownDescription: summaryOf(k), Attributes: attributes}
	}
	a := schema.MapNestedAttribute{
		Required: required, Optional: !required,
		MarkdownDescription: text,
		Validators:          []validator.Map{mapvalidator.SizeAtLeast(1), mapvalidator.KeysAre(nameValidator())},
		NestedObject:        schema.NestedAttributeObject{Attributes: drivers, Validators: []validator.Object{driverValidator{kinds: kinds, side: side}}},
	}
	if replace {
		a.PlanModifiers = []planmodifier.Map{replaceStorages{}}
	}
	return a
}

// summaryOf is the first paragraph of a driver's description. All of it is in the guide (guide_test.go).
func summaryOf(k storage.Kind) string {
	first, _, _ := strings.Cut(strings.TrimSpace(k.Description()), "\n\n")
	return strings.Join(strings.Fields(first), " ") + " Methods, privileges and limits are in the guide *Storages*."
}

// storageType is the type of one element of `storages`.
func storageType(kinds []storage.Kind, side storage.Side) types.ObjectType {
	drivers := make(map[string]attr.Type, len(kinds))
	for _, k := range kinds {
		drivers[k.Name()] = types.ObjectType{AttrTypes: attrTypes(driverAttributes(k, side))}
	}
	return types.ObjectType{AttrTypes: drivers}
}

// driverValidator wants exactly one driver object, and lets the driver look at it.
type driverValidator struct {
	kinds []storage.Kind
	side  storage.Side
}

func (v driverValidator) names() string {
	var names []string
	for _, k := range v.kinds {
		names = append(names, k.Name())
	}
	sort.Strings(names)
	return strings.Join(names, ", ")
}

func (v driverValidator) Description(context.Context) string {
	return "exactly one of " + v.names()
}

func (v driverValidator) MarkdownDescription(ctx context.Context) string { return v.Description(ctx) }

func (v driverValidator) ValidateObject(ctx context.Context, req validator.ObjectRequest, resp *validator.ObjectResponse) {
	if req.ConfigValue.IsNull() || req.ConfigValue.IsUnknown() {
		return
	}
	var set []string
	unknown := false
	for name, value := range req.ConfigValue.Attributes() {
		unknown = unknown || value.IsUnknown()
		if !value.IsNull() && !value.IsUnknown() {
			set = append(set, name)
		}
	}
	sort.Strings(set)
	switch {
	case len(set) > 1:
		resp.Diagnostics.AddAttributeError(req.Path, "Storage with several drivers",
			fmt.Sprintf("%s are set. Set exactly one of %s; a second database is a second entry of storages.", strings.Join(set, " and "), v.names()))
		return
	case len(set) == 0 && !unknown:
		resp.Diagnostics.AddAttributeError(req.Path, "Storage without a driver", fmt.Sprintf("Set exactly one of %s.", v.names()))
		return
	case len(set) == 0:
		return
	}
	for _, k := range v.kinds {
		if k.Name() != set[0] {
			continue
		}
		config, diags := kindConfig(k, v.side, req.ConfigValue.Attributes()[set[0]].(types.Object)) //nolint:forcetypeassert // every driver is an object, by the schema
		resp.Diagnostics.Append(diags...)
		if !diags.HasError() {
			resp.Diagnostics.Append(k.Validate(ctx, v.side, config, func(name string) storage.PathSetter {
				at := req.Path.AtName(k.Name())
				for _, step := range strings.Split(name, ".") { // "transport.jmx.port"
					at = at.AtName(step)
				}
				return pathSetter{at: at, diags: &resp.Diagnostics}
			})...)
		}
	}
}

// pathSetter adds diagnostics at one attribute.
type pathSetter struct {
	at    path.Path
	diags *diag.Diagnostics
}

func (s pathSetter) Error(summary, detail string) { s.diags.AddAttributeError(s.at, summary, detail) }
func (s pathSetter) Warning(summary, detail string) {
	s.diags.AddAttributeWarning(s.at, summary, detail)
}

// kindConfig is a driver object as its driver knows it: without the `credentials` that the provider added.
func kindConfig(k storage.Kind, side storage.Side, v types.Object) (types.Object, diag.Diagnostics) {
	own := k.SourceAttributes()
	if side == storage.DestinationSide {
		own = k.DestinationAttributes()
	}
	if v.IsNull() || v.IsUnknown() {
		return v, nil
	}
	values := make(map[string]attr.Value, len(own))
	for name := range own {
		values[name] = v.Attributes()[name]
	}
	return types.ObjectValue(attrTypes(own), values)
}

// driverObject is one element of `storages`, decoded.
type driverObject struct {
	kind        storage.Kind
	side        storage.Side
	full        types.Object // with `credentials`
	config      types.Object // as the driver knows it
	credentials string       // key of the provider's credentials; empty: the storage's name
}

// readStorages decodes `storages`. known is false where a value is unknown.
func readStorages(ctx context.Context, kinds map[string]storage.Kind, side storage.Side, v types.Map) (out map[string]driverObject, known bool, diags diag.Diagnostics) {
	if v.IsNull() {
		return nil, true, diags
	}
	if !whollyKnown(ctx, v) {
		return nil, false, diags
	}
	out = map[string]driverObject{}
	for name, element := range v.Elements() {
		o, ok := element.(types.Object)
		if !ok {
			diags.AddError("Unexpected storage", fmt.Sprintf("storages[%q] is a %T. This is a bug in the provider.", name, element))
			return nil, false, diags
		}
		for driver, value := range o.Attributes() {
			full, isObject := value.(types.Object)
			k, registered := kinds[driver]
			if value.IsNull() || !isObject || !registered {
				continue
			}
			config, d := kindConfig(k, side, full)
			diags.Append(d...)
			credentials, _ := full.Attributes()[credentialsArgument].(types.String)
			out[name] = driverObject{kind: k, side: side, full: full, config: config, credentials: credentials.ValueString()}
		}
		if _, found := out[name]; !found {
			diags.AddAttributeError(path.Root("storages").AtMapKey(name), "Storage without a driver", "Set exactly one driver object.")
		}
	}
	return out, !diags.HasError(), diags
}

// arguments are the driver object's arguments as typed, for the manifest: null ones are left out.
func (o driverObject) arguments(ctx context.Context) (json.RawMessage, error) {
	return encodeObject(ctx, o.full)
}

// replaceStorages replaces the resource when storages come, go, or change their driver: no leaf that would say so is left then.
type replaceStorages struct{}

func (replaceStorages) Description(context.Context) string {
	return "A storage that is added, removed, or served by another driver replaces the resource."
}

func (m replaceStorages) MarkdownDescription(ctx context.Context) string { return m.Description(ctx) }

func (replaceStorages) PlanModifyMap(_ context.Context, req planmodifier.MapRequest, resp *planmodifier.MapResponse) {
	if req.StateValue.IsNull() || req.PlanValue.IsUnknown() || req.State.Raw.IsNull() || req.Plan.Raw.IsNull() {
		return
	}
	resp.RequiresReplace = storagesDiffer(req.StateValue, req.PlanValue)
}

// storagesDiffer says that two `storages` do not name the same storages with the same drivers.
func storagesDiffer(a, b types.Map) bool {
	return !slices.Equal(driversOf(a), driversOf(b))
}

// driversOf lists "name driver", sorted. An unknown driver object counts as set.
func driversOf(v types.Map) []string {
	var out []string
	for name, element := range v.Elements() {
		o, ok := element.(types.Object)
		if !ok {
			continue
		}
		for driver, value := range o.Attributes() {
			if !value.IsNull() {
				out = append(out, name+" "+driver)
			}
		}
	}
	sort.Strings(out)
	return out
}

// replacesStorages says whether a change of `storages` replaces the resource, by the same plan modifiers that say so to Terraform:
// a resource's ModifyPlan does not learn what its attributes decided.
func replacesStorages(ctx context.Context, kinds []storage.Kind, side storage.Side, state, plan types.Map) bool {
	if state.IsNull() {
		return false
	}
	if plan.IsUnknown() || storagesDiffer(state, plan) {
		return true
	}
	for name, was := range state.Elements() {
		is, ok := plan.Elements()[name].(types.Object)
		wasObject, wasOK := was.(types.Object)
		if !ok || !wasOK {
			return true
		}
		for _, k := range kinds {
			a, aOK := wasObject.Attributes()[k.Name()].(types.Object)
			b, bOK := is.Attributes()[k.Name()].(types.Object)
			if !aOK || !bOK || a.IsNull() || b.IsNull() {
				continue
			}
			if b.IsUnknown() || replacesObject(ctx, driverAttributes(k, side), a, b) {
				return true
			}
		}
	}
	return false
}

// replacesObject asks the plan modifiers of every changed leaf.
func replacesObject(ctx context.Context, attributes map[string]attribute, state, plan types.Object) bool {
	for name, a := range attributes {
		was, is := state.Attributes()[name], plan.Attributes()[name]
		if was == nil || is == nil || was.Equal(is) {
			continue
		}
		if replacesLeaf(ctx, a, was, is) {
			return true
		}
	}
	return false
}

func replacesLeaf(ctx context.Context, a attribute, was, is attr.Value) bool {
	// Modifiers look at State and Plan only to tell a create or a destroy from an update.
	exists := tftypes.NewValue(tftypes.Bool, true)
	state, plan := tfsdk.State{Raw: exists}, tfsdk.Plan{Raw: exists}
	switch a := a.(type) {
	case schema.StringAttribute:
		w, _ := was.(basetypes.StringValuable).ToStringValue(ctx) //nolint:forcetypeassert // by the schema
		i, _ := is.(basetypes.StringValuable).ToStringValue(ctx)  //nolint:forcetypeassert // by the schema
		for _, m := range a.PlanModifiers {
			resp := planmodifier.StringResponse{PlanValue: i}
			m.PlanModifyString(ctx, planmodifier.StringRequest{State: state, Plan: plan, StateValue: w, PlanValue: i, ConfigValue: i}, &resp)
			if resp.RequiresReplace {
				return true
			}
		}
	case schema.Int64Attribute:
		w, _ := was.(basetypes.Int64Valuable).ToInt64Value(ctx) //nolint:forcetypeassert // by the schema
		i, _ := is.(basetypes.Int64Valuable).ToInt64Value(ctx)  //nolint:forcetypeassert // by the schema
		for _, m := range a.PlanModifiers {
			resp := planmodifier.Int64Response{PlanValue: i}
			m.PlanModifyInt64(ctx, planmodifier.Int64Request{State: state, Plan: plan, StateValue: w, PlanValue: i, ConfigValue: i}, &resp)
			if resp.RequiresReplace {
				return true
			}
		}
	case schema.ListAttribute:
		w, _ := was.(basetypes.ListValuable).ToListValue(ctx) //nolint:forcetypeassert // by the schema
		i, _ := is.(basetypes.ListValuable).ToListValue(ctx)  //nolint:forcetypeassert // by the schema
		for _, m := range a.PlanModifiers {
			resp := planmodifier.ListResponse{PlanValue: i}
			m.PlanModifyList(ctx, planmodifier.ListRequest{State: state, Plan: plan, StateValue: w, PlanValue: i, ConfigValue: i}, &resp)
			if resp.RequiresReplace {
				return true
			}
		}
	case schema.SingleNestedAttribute:
		w, wOK := was.(types.Object)
		i, iOK := is.(types.Object)
		return wOK && iOK && !w.IsNull() && !i.IsNull() && replacesObject(ctx, a.Attributes, w, i)
	}
	return false
}
