package provider

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
)

// artifactsAttribute is `artifacts` of a backup: the same for every driver, so that a new driver never changes the state's schema.
func artifactsAttribute() schema.MapNestedAttribute {
	return schema.MapNestedAttribute{Computed: true,
		MarkdownDescription: "What the backup holds, by storage.",
		NestedObject: schema.NestedAttributeObject{Attributes: map[string]attribute{
			"driver":    computedString("The driver that captured the storage."),
			"source_id": computedString("Immutable identity of what was captured (a server's system identifier, a file)."),
			"witness":   computedString("The write witness: how it was made sure that nobody wrote in the window; `none` where nothing could tell."),
			"tool_versions": schema.MapAttribute{Computed: true, ElementType: types.StringType,
				MarkdownDescription: "Versions of the server and of the client tools."},
			"objects": schema.ListNestedAttribute{Computed: true, MarkdownDescription: "The artifacts.",
				NestedObject: schema.NestedAttributeObject{Attributes: map[string]attribute{
					"kind":   computedString("Kind of artifact, for example `postgresql_dump`."),
					"id":     computedString("Name of the object in the catalog, or the cloud's id."),
					"size":   computedInt("Size in bytes, as stored. Null where it is not known."),
					"sha256": computedString("SHA-256 of the bytes as stored, in hexadecimal. Null where there are none."),
					"extra":  schema.MapAttribute{Computed: true, ElementType: types.StringType, MarkdownDescription: "What else the driver recorded."},
				}}},
		}},
	}
}

type storageArtifactsModel struct {
	Driver       types.String `tfsdk:"driver"`
	SourceID     types.String `tfsdk:"source_id"`
	Witness      types.String `tfsdk:"witness"`
	ToolVersions types.Map    `tfsdk:"tool_versions"`
	Objects      types.List   `tfsdk:"objects"`
}

type artifactModel struct {
	Kind   types.String `tfsdk:"kind"`
	ID     types.String `tfsdk:"id"`
	Size   types.Int64  `tfsdk:"size"`
	SHA256 types.String `tfsdk:"sha256"`
	Extra  types.Map    `tfsdk:"extra"`
}

func artifactType() types.ObjectType {
	objects := artifactsAttribute().NestedObject.Attributes["objects"].(schema.ListNestedAttribute) //nolint:forcetypeassert // written above
	return types.ObjectType{AttrTypes: attrTypes(objects.NestedObject.Attributes)}
}

func storageArtifactsType() types.ObjectType {
	return types.ObjectType{AttrTypes: attrTypes(artifactsAttribute().NestedObject.Attributes)}
}

// stringMap is never null: an empty map stays an empty map.
func stringMap(ctx context.Context, m map[string]string) (types.Map, diag.Diagnostics) {
	if m == nil {
		m = map[string]string{}
	}
	return types.MapValueFrom(ctx, types.StringType, m)
}

func artifactsValue(ctx context.Context, m engine.Manifest) (types.Map, diag.Diagnostics) {
	var diags, d diag.Diagnostics
	out := map[string]storageArtifactsModel{}
	for name, r := range m.Storages {
		s := storageArtifactsModel{Driver: text(r.Driver), SourceID: text(r.SourceID), Witness: text(r.Witness)}
		s.ToolVersions, d = stringMap(ctx, r.ToolVersions)
		diags.Append(d...)
		objects := []artifactModel{}
		for _, a := range r.Artifacts {
			o := artifactModel{Kind: text(a.Kind), ID: text(a.ID), SHA256: text(a.SHA256), Size: types.Int64Null()}
			if a.Size > 0 {
				o.Size = types.Int64Value(a.Size)
			}
			o.Extra, d = stringMap(ctx, a.Extra)
			diags.Append(d...)
			objects = append(objects, o)
		}
		s.Objects, d = types.ListValueFrom(ctx, artifactType(), objects)
		diags.Append(d...)
		out[name] = s
	}
	v, d := types.MapValueFrom(ctx, storageArtifactsType(), out)
	diags.Append(d...)
	return v, diags
}

// encodeManifest and decodeManifest are manifest_json.
func encodeManifest(m engine.Manifest) (types.String, error) {
	data, err := json.Marshal(m)
	if err != nil {
		return types.StringNull(), fmt.Errorf("encoding the manifest: %w", err)
	}
	return types.StringValue(string(data)), nil
}

func decodeManifest(s string) (engine.Manifest, error) {
	return engine.DecodeManifest([]byte(s))
}

// --- verification ----------------------------------------------------------

func verificationAttribute(text string) schema.SingleNestedAttribute {
	return schema.SingleNestedAttribute{Computed: true, MarkdownDescription: text,
		Attributes: map[string]attribute{
			"passed":       schema.BoolAttribute{Computed: true, MarkdownDescription: "Whether there is no violation."},
			"violations":   computedInt("Number of violations."),
			"leftovers":    computedInt("Records that were left unfinished before the window: by clients that crashed, or by ScalarDB itself, which does not insist on marking the records of a transaction that is decided. ScalarDB recovers them when they are read; they pass."),
			"unverifiable": computedInt("Old committed records without a coordinator entry (finished transactions removed, one-phase commit, imported rows): nothing proves or disproves them; they pass."),
			"records":      computedInt("Number of records scanned."),
			"not_covered":  schema.ListAttribute{Computed: true, ElementType: types.StringType, MarkdownDescription: "Tables without transaction columns, as `storage/namespace.table`: the rules say nothing of them."},
			"tables": schema.ListNestedAttribute{Computed: true, MarkdownDescription: "The result by table.",
				NestedObject: schema.NestedAttributeObject{Attributes: map[string]attribute{
					"storage":      computedString("The storage."),
					"table":        computedString("The table, as `namespace.table`."),
					"coordinator":  schema.BoolAttribute{Computed: true, MarkdownDescription: "Whether it is the coordinator table."},
					"rows":         computedInt("Number of rows."),
					"leftovers":    computedInt("As above, in this table."),
					"unverifiable": computedInt("As above, in this table."),
					"violations":   schema.MapAttribute{Computed: true, ElementType: types.Int64Type, MarkdownDescription: "Number of violations by rule: `in flight`, `late`, `atomic`, `complete`."},
					"samples":      schema.ListAttribute{Computed: true, ElementType: types.StringType, MarkdownDescription: "Keys of the first few violating records, with their rule."},
				}}},
		}}
}

type verificationModel struct {
	Passed       types.Bool  `tfsdk:"passed"`
	Violations   types.Int64 `tfsdk:"violations"`
	Leftovers    types.Int64 `tfsdk:"leftovers"`
	Unverifiable types.Int64 `tfsdk:"unverifiable"`
	Records      types.Int64 `tfsdk:"records"`
	NotCovered   []string    `tfsdk:"not_covered"`
	Tables       types.List  `tfsdk:"tables"`
}

type tableModel struct {
	Storage      types.String     `tfsdk:"storage"`
	Table        types.String     `tfsdk:"table"`
	Coordinator  types.Bool       `tfsdk:"coordinator"`
	Rows         types.Int64      `tfsdk:"rows"`
	Leftovers    types.Int64      `tfsdk:"leftovers"`
	Unverifiable types.Int64      `tfsdk:"unverifiable"`
	Violations   map[string]int64 `tfsdk:"violations"`
	Samples      []string         `tfsdk:"samples"`
}

func verificationType() types.ObjectType {
	return types.ObjectType{AttrTypes: attrTypes(verificationAttribute("").Attributes)}
}

func verificationValue(ctx context.Context, r *verify.Report) (types.Object, diag.Diagnostics) {
	if r == nil {
		return types.ObjectNull(verificationType().AttrTypes), nil
	}
	m := verificationModel{Passed: types.BoolValue(r.Passed), Violations: types.Int64Value(r.Violations), Leftovers: types.Int64Value(r.Leftovers),
		Unverifiable: types.Int64Value(r.Unverif), Records: types.Int64Value(r.Records), NotCovered: append([]string{}, r.NotCovered...)}
	tables := []tableModel{}
	for _, t := range r.Tables {
		v := map[string]int64{}
		for rule, n := range t.ByRule {
			v[rule] = n
		}
		tables = append(tables, tableModel{Storage: text(t.Storage), Table: text(t.Table), Coordinator: types.BoolValue(t.Coordinator), Rows: types.Int64Value(t.Rows),
			Leftovers: types.Int64Value(t.Leftovers), Unverifiable: types.Int64Value(t.Unverifiable), Violations: v, Samples: append([]string{}, t.Samples...)})
	}
	var diags, d diag.Diagnostics
	tablesAttribute := verificationAttribute("").Attributes["tables"].(schema.ListNestedAttribute) //nolint:forcetypeassert // written above
	m.Tables, d = types.ListValueFrom(ctx, types.ObjectType{AttrTypes: attrTypes(tablesAttribute.NestedObject.Attributes)}, tables)
	diags.Append(d...)
	v, d := types.ObjectValueFrom(ctx, verificationType().AttrTypes, m)
	diags.Append(d...)
	return v, diags
}

// --- restored --------------------------------------------------------------

func restoredAttribute() schema.MapNestedAttribute {
	return schema.MapNestedAttribute{Computed: true,
		MarkdownDescription: "What was restored, by storage. Null until the restore is `available`: endpoints come out only after the verification passed.",
		NestedObject: schema.NestedAttributeObject{Attributes: map[string]attribute{
			"driver":   computedString("The driver that restored the storage."),
			"endpoint": computedString("Host name, address or path of the restored database."),
			"port":     computedInt("Port of the restored database; null where there is none."),
			"objects": schema.ListNestedAttribute{Computed: true, MarkdownDescription: "What the restore made or filled.",
				NestedObject: schema.NestedAttributeObject{Attributes: map[string]attribute{
					"kind":    computedString("Kind of object, for example `postgresql_database`."),
					"id":      computedString("Its name or id."),
					"arn":     computedString("Its ARN, on AWS; else null."),
					"created": schema.BoolAttribute{Computed: true, MarkdownDescription: "Whether the restore made it, so that destroy deletes it. What existed before and was only filled is left alone by destroy."},
					"extra":   schema.MapAttribute{Computed: true, ElementType: types.StringType, MarkdownDescription: "What else the driver recorded."},
				}}},
		}},
	}
}

type restoredModel struct {
	Driver   types.String `tfsdk:"driver"`
	Endpoint types.String `tfsdk:"endpoint"`
	Port     types.Int64  `tfsdk:"port"`
	Objects  types.List   `tfsdk:"objects"`
}

type restoredObjectModel struct {
	Kind    types.String `tfsdk:"kind"`
	ID      types.String `tfsdk:"id"`
	ARN     types.String `tfsdk:"arn"`
	Created types.Bool   `tfsdk:"created"`
	Extra   types.Map    `tfsdk:"extra"`
}

func restoredType() types.ObjectType {
	return types.ObjectType{AttrTypes: attrTypes(restoredAttribute().NestedObject.Attributes)}
}

func restoredValue(ctx context.Context, r engine.RestoreRecord) (types.Map, diag.Diagnostics) {
	var diags, d diag.Diagnostics
	objectsAttribute := restoredAttribute().NestedObject.Attributes["objects"].(schema.ListNestedAttribute) //nolint:forcetypeassert // written above
	objectType := types.ObjectType{AttrTypes: attrTypes(objectsAttribute.NestedObject.Attributes)}
	out := map[string]restoredModel{}
	for name, s := range r.Storages {
		m := restoredModel{Driver: text(r.Drivers[name]), Endpoint: text(s.Endpoint), Port: types.Int64Null()}
		if s.Port != 0 {
			m.Port = types.Int64Value(s.Port)
		}
		objects := []restoredObjectModel{}
		for _, o := range s.Objects {
			om := restoredObjectModel{Kind: text(o.Kind), ID: text(o.ID), ARN: text(o.Extra["arn"]), Created: types.BoolValue(o.Created)}
			om.Extra, d = stringMap(ctx, o.Extra)
			diags.Append(d...)
			objects = append(objects, om)
		}
		m.Objects, d = types.ListValueFrom(ctx, objectType, objects)
		diags.Append(d...)
		out[name] = m
	}
	v, d := types.MapValueFrom(ctx, restoredType(), out)
	diags.Append(d...)
	return v, diags
}

// nullObject and nullMap are the nulls of the types above.
func nullObject(t types.ObjectType) types.Object { return types.ObjectNull(t.AttrTypes) }

func nullMap(element attr.Type) types.Map { return types.MapNull(element) }
