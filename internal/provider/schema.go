package provider

import (
	"fmt"

	"github.com/hashicorp/terraform-plugin-framework/attr"
	datasourceschema "github.com/hashicorp/terraform-plugin-framework/datasource/schema"
	providerschema "github.com/hashicorp/terraform-plugin-framework/provider/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
)

// attribute is an attribute as a resource has it. What is the same in the provider block or in a data source is translated from that
// by the two functions below, so that it is written once.
type attribute = schema.Attribute

// attrTypes are the types of an object with these attributes.
func attrTypes(attributes map[string]attribute) map[string]attr.Type {
	out := make(map[string]attr.Type, len(attributes))
	for name, a := range attributes {
		out[name] = a.GetType()
	}
	return out
}

func toProviderSchema(in map[string]attribute) map[string]providerschema.Attribute {
	out := make(map[string]providerschema.Attribute, len(in))
	for name, a := range in {
		switch a := a.(type) {
		case schema.StringAttribute:
			out[name] = providerschema.StringAttribute{CustomType: a.CustomType, Required: a.Required, Optional: a.Optional, Sensitive: a.Sensitive,
				MarkdownDescription: a.MarkdownDescription, Validators: a.Validators}
		case schema.ListAttribute:
			out[name] = providerschema.ListAttribute{ElementType: a.ElementType, Required: a.Required, Optional: a.Optional, MarkdownDescription: a.MarkdownDescription, Validators: a.Validators}
		case schema.SingleNestedAttribute:
			out[name] = providerschema.SingleNestedAttribute{Attributes: toProviderSchema(a.Attributes), Required: a.Required, Optional: a.Optional,
				MarkdownDescription: a.MarkdownDescription, Validators: a.Validators}
		case schema.MapNestedAttribute:
			out[name] = providerschema.MapNestedAttribute{NestedObject: providerschema.NestedAttributeObject{Attributes: toProviderSchema(a.NestedObject.Attributes), Validators: a.NestedObject.Validators},
				Required: a.Required, Optional: a.Optional, MarkdownDescription: a.MarkdownDescription, Validators: a.Validators}
		default:
			panic(fmt.Sprintf("attribute %s: %T has no translation for the provider block", name, a)) // found by the schema test
		}
	}
	return out
}

func toDataSourceSchema(in map[string]attribute) map[string]datasourceschema.Attribute {
	out := make(map[string]datasourceschema.Attribute, len(in))
	for name, a := range in {
		switch a := a.(type) {
		case schema.StringAttribute:
			out[name] = datasourceschema.StringAttribute{CustomType: a.CustomType, Required: a.Required, Optional: a.Optional, Computed: a.Computed, Sensitive: a.Sensitive,
				MarkdownDescription: a.MarkdownDescription, Validators: a.Validators}
		case schema.Int64Attribute:
			out[name] = datasourceschema.Int64Attribute{Required: a.Required, Optional: a.Optional, Computed: a.Computed, MarkdownDescription: a.MarkdownDescription, Validators: a.Validators}
		case schema.BoolAttribute:
			out[name] = datasourceschema.BoolAttribute{Required: a.Required, Optional: a.Optional, Computed: a.Computed, MarkdownDescription: a.MarkdownDescription, Validators: a.Validators}
		case schema.ListAttribute:
			out[name] = datasourceschema.ListAttribute{ElementType: a.ElementType, Required: a.Required, Optional: a.Optional, Computed: a.Computed, MarkdownDescription: a.MarkdownDescription, Validators: a.Validators}
		case schema.MapAttribute:
			out[name] = datasourceschema.MapAttribute{ElementType: a.ElementType, Required: a.Required, Optional: a.Optional, Computed: a.Computed, MarkdownDescription: a.MarkdownDescription, Validators: a.Validators}
		case schema.SingleNestedAttribute:
			out[name] = datasourceschema.SingleNestedAttribute{Attributes: toDataSourceSchema(a.Attributes), Required: a.Required, Optional: a.Optional, Computed: a.Computed,
				MarkdownDescription: a.MarkdownDescription, Validators: a.Validators}
		case schema.MapNestedAttribute:
			out[name] = datasourceschema.MapNestedAttribute{NestedObject: datasourceschema.NestedAttributeObject{Attributes: toDataSourceSchema(a.NestedObject.Attributes), Validators: a.NestedObject.Validators},
				Required: a.Required, Optional: a.Optional, Computed: a.Computed, MarkdownDescription: a.MarkdownDescription, Validators: a.Validators}
		case schema.ListNestedAttribute:
			out[name] = datasourceschema.ListNestedAttribute{NestedObject: datasourceschema.NestedAttributeObject{Attributes: toDataSourceSchema(a.NestedObject.Attributes), Validators: a.NestedObject.Validators},
				Required: a.Required, Optional: a.Optional, Computed: a.Computed, MarkdownDescription: a.MarkdownDescription, Validators: a.Validators}
		default:
			panic(fmt.Sprintf("attribute %s: %T has no translation for data sources", name, a)) // found by the schema test
		}
	}
	return out
}

// withoutModifiers drops the plan modifiers of leaves: for resources that something else than these leaves replaces.
func withoutModifiers(in map[string]attribute) map[string]attribute {
	out := make(map[string]attribute, len(in))
	for name, a := range in {
		switch a := a.(type) {
		case schema.StringAttribute:
			a.PlanModifiers = nil
			out[name] = a
		case schema.Int64Attribute:
			a.PlanModifiers = nil
			out[name] = a
		case schema.BoolAttribute:
			a.PlanModifiers = nil
			out[name] = a
		case schema.ListAttribute:
			a.PlanModifiers = nil
			out[name] = a
		case schema.MapAttribute:
			a.PlanModifiers = nil
			out[name] = a
		case schema.SingleNestedAttribute:
			a.PlanModifiers = nil
			a.Attributes = withoutModifiers(a.Attributes)
			out[name] = a
		default:
			panic(fmt.Sprintf("attribute %s: %T is not expected in a driver object", name, a)) // found by the schema test
		}
	}
	return out
}
