package provider

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/target"
)

// namePattern is what ids, storages' names and groups' names look like: they become parts of file names, tags and catalog objects.
var namePattern = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$`)

const nameRule = "up to 64 letters, digits, `.`, `_` and `-`, not beginning with a dot"

func nameValidator() validator.String {
	return stringvalidator.RegexMatches(namePattern, "must be "+strings.ReplaceAll(nameRule, "`", "")+", and not empty")
}

// notEmpty refuses an empty string.
type notEmpty struct{}

func (notEmpty) Description(context.Context) string { return "must not be empty" }

func (v notEmpty) MarkdownDescription(ctx context.Context) string { return v.Description(ctx) }

func (notEmpty) ValidateString(_ context.Context, req validator.StringRequest, resp *validator.StringResponse) {
	if !req.ConfigValue.IsNull() && !req.ConfigValue.IsUnknown() && strings.TrimSpace(req.ConfigValue.ValueString()) == "" {
		resp.Diagnostics.AddAttributeError(req.Path, "Empty value", "The value must not be empty; leave the argument out instead.")
	}
}

// address refuses what is no "host:port".
type address struct{}

func (address) Description(context.Context) string {
	return "must be host:port, with an IPv6 address in brackets"
}

func (v address) MarkdownDescription(ctx context.Context) string { return v.Description(ctx) }

func (v address) ValidateString(_ context.Context, req validator.StringRequest, resp *validator.StringResponse) {
	if req.ConfigValue.IsNull() || req.ConfigValue.IsUnknown() {
		return
	}
	if _, err := target.ParseAddress(req.ConfigValue.ValueString()); err != nil {
		resp.Diagnostics.AddAttributeError(req.Path, "Invalid target address",
			fmt.Sprintf("%q is not an address of a target: %s. Write it as host:port, for example 10.0.1.10:60051 or [fd00::1]:60051.", req.ConfigValue.ValueString(), err))
	}
}

// duration bounds a Go duration.
type duration struct {
	min time.Duration // the smallest value allowed
}

func (v duration) Description(context.Context) string {
	return fmt.Sprintf("must be a duration such as 30s or 1m30s, at least %s", v.min)
}

func (v duration) MarkdownDescription(ctx context.Context) string { return v.Description(ctx) }

func (v duration) ValidateString(_ context.Context, req validator.StringRequest, resp *validator.StringResponse) {
	if req.ConfigValue.IsNull() || req.ConfigValue.IsUnknown() {
		return
	}
	d, err := time.ParseDuration(req.ConfigValue.ValueString())
	if err != nil {
		return // the type has said so
	}
	if d < v.min {
		resp.Diagnostics.AddAttributeError(req.Path, "Duration too short", fmt.Sprintf("%s is below the smallest value allowed, %s.", d, v.min))
	}
}

// srvName refuses what can be no name of an SRV record.
type srvName struct{}

func (srvName) Description(context.Context) string { return "must be the name of an SRV record" }

func (v srvName) MarkdownDescription(ctx context.Context) string { return v.Description(ctx) }

func (srvName) ValidateString(_ context.Context, req validator.StringRequest, resp *validator.StringResponse) {
	if req.ConfigValue.IsNull() || req.ConfigValue.IsUnknown() {
		return
	}
	if err := target.ParseSRV(req.ConfigValue.ValueString()); err != nil {
		resp.Diagnostics.AddAttributeError(req.Path, "Invalid SRV name", fmt.Sprintf("%s. Write it as _scalardb._tcp.prod.example.internal.", err))
	}
}
