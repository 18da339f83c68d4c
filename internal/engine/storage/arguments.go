package storage

import (
	"context"
	"maps"

	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-framework/types/basetypes"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/relational"
)

// Text returns an argument that is there and known.
func Text(config types.Object, attribute string) (string, bool) {
	v, ok := config.Attributes()[attribute].(basetypes.StringValuable)
	if !ok || v.IsNull() || v.IsUnknown() {
		return "", false
	}
	s, diags := v.ToStringValue(context.Background())
	return s.ValueString(), !diags.HasError()
}

// Whole is Text for integers.
func Whole(config types.Object, attribute string) (int64, bool) {
	v, ok := config.Attributes()[attribute].(basetypes.Int64Valuable)
	if !ok || v.IsNull() || v.IsUnknown() {
		return 0, false
	}
	n, diags := v.ToInt64Value(context.Background())
	return n.ValueInt64(), !diags.HasError()
}

// With adds the arguments that every driver has which names ScalarDB's own namespaces, and the login's, to a driver's own.
func With(own map[string]schema.Attribute) map[string]schema.Attribute {
	all := map[string]schema.Attribute{
		"credentials": schema.StringAttribute{
			Optional: true, MarkdownDescription: "Key of the entry in the provider's `credentials`. The default is the storage's name.",
		},
		"coordinator_namespace": schema.StringAttribute{
			Optional: true, MarkdownDescription: "Namespace of ScalarDB's coordinator table (`scalar.db.consensus_commit.coordinator.namespace`). The default is `coordinator`.",
		},
		"metadata_namespace": schema.StringAttribute{
			Optional: true, MarkdownDescription: "Namespace of ScalarDB's metadata tables (`scalar.db.system_namespace_name`). The default is `scalardb`.",
		},
	}
	maps.Copy(all, own)
	return all
}

// Namespaces are ScalarDB's own namespaces, as the arguments that With adds name them; empty ones stand for the defaults.
func Namespaces(config types.Object) relational.Layout {
	var l relational.Layout
	l.CoordinatorNamespace, _ = Text(config, "coordinator_namespace")
	l.MetadataNamespace, _ = Text(config, "metadata_namespace")
	return l
}
