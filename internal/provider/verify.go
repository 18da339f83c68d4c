package provider

import (
	"context"

	"github.com/hashicorp/terraform-plugin-framework-timetypes/timetypes"
	"github.com/hashicorp/terraform-plugin-framework-validators/listvalidator"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

// verifyArguments are what a user can say about a verification.
func verifyArguments() map[string]attribute {
	names := []validator.List{listvalidator.UniqueValues()}
	return map[string]attribute{
		"server_clock_bound": serverClockBoundAttribute(false),
		"one_phase_commit": schema.ListAttribute{Optional: true, ElementType: types.StringType, Validators: names,
			MarkdownDescription: "Storages whose transactions may leave no coordinator entry, because ScalarDB runs with one-phase commit (`scalar.db.consensus_commit.one_phase_commit.enabled`). Default: none."},
		"async_commit": schema.ListAttribute{Optional: true, ElementType: types.StringType, Validators: names,
			MarkdownDescription: "Storages whose records may still be prepared when the transaction is committed, because ScalarDB runs with asynchronous commit (`scalar.db.consensus_commit.async_commit.enabled`). Default: none."},
		"coordinator_storage": schema.StringAttribute{Optional: true, Validators: []validator.String{notEmpty{}},
			MarkdownDescription: "The storage that holds the coordinator table. Default: the one storage in which it is found."},
	}
}

// verifyModel is the arguments above, in a resource or in `verify`.
type verifyModel struct {
	ServerClockBound timetypes.GoDuration `tfsdk:"server_clock_bound"`
	OnePhaseCommit   types.List           `tfsdk:"one_phase_commit"`
	AsyncCommit      types.List           `tfsdk:"async_commit"`
	Coordinator      types.String         `tfsdk:"coordinator_storage"`
}

// settings is the engine's form; bound is the default of server_clock_bound.
func (m verifyModel) settings(ctx context.Context) (s engine.VerifySettings, diags diag.Diagnostics) {
	s.ServerClockBound, _ = durationOr(m.ServerClockBound, defaultServerClockBound)
	s.Coordinator = m.Coordinator.ValueString()
	s.OnePhaseCommit, s.AsyncCommit = map[string]bool{}, map[string]bool{}
	for list, set := range map[*types.List]map[string]bool{&m.OnePhaseCommit: s.OnePhaseCommit, &m.AsyncCommit: s.AsyncCommit} {
		var names []string
		diags.Append(list.ElementsAs(ctx, &names, false)...)
		for _, n := range names {
			set[n] = true
		}
	}
	return s, diags
}
