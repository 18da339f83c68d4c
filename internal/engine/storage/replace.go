package storage

import (
	"context"

	"github.com/hashicorp/terraform-plugin-framework/resource/schema/int64planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/listplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/mapplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringplanmodifier"
)

const replaceText = "A change replaces the resource, unless the state holds no value (after an import)."

// ReplaceString is RequiresReplace for arguments that say what is captured; null in an imported state forces nothing.
func ReplaceString() planmodifier.String {
	return stringplanmodifier.RequiresReplaceIf(func(_ context.Context, q planmodifier.StringRequest, r *stringplanmodifier.RequiresReplaceIfFuncResponse) {
		r.RequiresReplace = !q.StateValue.IsNull()
	}, replaceText, replaceText)
}

// ReplaceInt64 is ReplaceString for numbers.
func ReplaceInt64() planmodifier.Int64 {
	return int64planmodifier.RequiresReplaceIf(func(_ context.Context, q planmodifier.Int64Request, r *int64planmodifier.RequiresReplaceIfFuncResponse) {
		r.RequiresReplace = !q.StateValue.IsNull()
	}, replaceText, replaceText)
}

// ReplaceList is ReplaceString for lists.
func ReplaceList() planmodifier.List {
	return listplanmodifier.RequiresReplaceIf(func(_ context.Context, q planmodifier.ListRequest, r *listplanmodifier.RequiresReplaceIfFuncResponse) {
		r.RequiresReplace = !q.StateValue.IsNull()
	}, replaceText, replaceText)
}

// ReplaceMap is ReplaceString for maps.
func ReplaceMap() planmodifier.Map {
	return mapplanmodifier.RequiresReplaceIf(func(_ context.Context, q planmodifier.MapRequest, r *mapplanmodifier.RequiresReplaceIfFuncResponse) {
		r.RequiresReplace = !q.StateValue.IsNull()
	}, replaceText, replaceText)
}
