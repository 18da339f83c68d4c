package provider

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-timetypes/timetypes"
	"github.com/hashicorp/terraform-plugin-framework-validators/listvalidator"
	"github.com/hashicorp/terraform-plugin-framework-validators/mapvalidator"
	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-framework/types/basetypes"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

// Defaults of a pause.
const (
	defaultDrain            = 30 * time.Second
	defaultMin              = 5 * time.Second
	defaultMax              = 90 * time.Second
	defaultServerClockBound = time.Second
	// longPause is when ScalarDB's Java clients begin to give up (about 102 s was seen).
	longPause = 100 * time.Second
)

// GroupSettings say where one target group is and how to speak with it. Exactly one of Addresses and SRV is set.
type GroupSettings struct {
	Addresses []string
	SRV       string
	TLS       *TLSSettings // nil: plaintext
}

// TLSSettings are PEM texts; empty ones mean the system's authorities, the target's own name, and no client certificate.
type TLSSettings struct {
	CAPEM, ServerName, CertPEM, KeyPEM string
}

// String keeps the key out of messages.
func (TLSSettings) String() string { return "(TLS settings)" }

// pauseAttribute is `pause`. A resource's key_pem is write-only: it is in no state.
func pauseAttribute(text string, resource bool) attribute {
	key := schema.StringAttribute{Optional: true, Sensitive: true, MarkdownDescription: "Private key (PEM) of `cert_pem`."}
	if resource {
		key.WriteOnly = true
		key.MarkdownDescription += " Write-only: it is in no plan and in no state."
	}
	return schema.SingleNestedAttribute{
		Optional:            true,
		MarkdownDescription: text,
		Validators:          []validator.Object{pauseValidator{}},
		Attributes: map[string]attribute{
			"targets": schema.MapNestedAttribute{
				Required: true,
				MarkdownDescription: "The target groups, by a name of your own (" + nameRule + "). All groups are paused for one window. Together they must hold *every* process that writes through ScalarDB " +
					"to the storages: a process that is missing here goes on writing while the others are paused, which voids the backup.",
				Validators: []validator.Map{mapvalidator.SizeAtLeast(1), mapvalidator.KeysAre(nameValidator())},
				NestedObject: schema.NestedAttributeObject{
					Validators: []validator.Object{targetGroupValidator{}},
					Attributes: map[string]attribute{
						"addresses": schema.ListAttribute{ElementType: types.StringType, Optional: true,
							MarkdownDescription: "Addresses `host:port` of the targets' scalar-admin API. Every address record of a name counts as one target; a name of a load balancer hides targets and must not be used. Exactly one of `addresses` and `srv`.",
							Validators:          []validator.List{listvalidator.SizeAtLeast(1), listvalidator.UniqueValues(), listvalidator.ValueStringsAre(address{})}},
						"srv": schema.StringAttribute{Optional: true,
							MarkdownDescription: "Name of a DNS SRV record that lists the targets, for example `_scalardb._tcp.prod.example.internal`. It is looked up anew for every pause.",
							Validators:          []validator.String{srvName{}}},
						"tls": schema.SingleNestedAttribute{Optional: true,
							MarkdownDescription: "TLS to the targets; without it the connection is plaintext. An empty object means TLS with the system's authorities.",
							Attributes: map[string]attribute{
								"ca_pem":      schema.StringAttribute{Optional: true, MarkdownDescription: "Certificates (PEM) of the authorities that may have signed the targets' certificates. Default: the system's."},
								"server_name": schema.StringAttribute{Optional: true, MarkdownDescription: "Name that the targets' certificates must be for. Default: the host part of the target's address."},
								"cert_pem":    schema.StringAttribute{Optional: true, MarkdownDescription: "Client certificate (PEM), with `key_pem`."},
								"key_pem":     key,
							}},
					},
				},
			},
			"drain_timeout": schema.StringAttribute{CustomType: timetypes.GoDurationType{}, Optional: true,
				MarkdownDescription: "How long a target may take to finish the transactions in flight, as a duration such as `30s`. New transactions are refused meanwhile. Default `30s`.",
				Validators:          []validator.String{duration{min: time.Millisecond}}},
			"min_duration": schema.StringAttribute{CustomType: timetypes.GoDurationType{}, Optional: true,
				MarkdownDescription: "How long the pause window is at least; may be `0s`. Default `5s`, ScalarDB's own advice for clock differences.",
				Validators:          []validator.String{duration{}}},
			"max_duration": schema.StringAttribute{CustomType: timetypes.GoDurationType{}, Optional: true,
				MarkdownDescription: "When the pause is ended in any case, by the provider and by its watchdog, counted from the first pause request. Applications begin to fail when a pause takes about 100 s. Default `90s`.",
				Validators:          []validator.String{duration{min: time.Millisecond}}},
		},
	}
}

// resourcePause is `pause` of a resource.
func resourcePause() attribute {
	return pauseAttribute("Replaces the provider's `pause` whole, for this resource. Changes update in place, without a pause.", true)
}

// pauseModel is `pause`.
type pauseModel struct {
	Targets types.Map            `tfsdk:"targets"`
	Drain   timetypes.GoDuration `tfsdk:"drain_timeout"`
	Min     timetypes.GoDuration `tfsdk:"min_duration"`
	Max     timetypes.GoDuration `tfsdk:"max_duration"`
}

type targetGroupModel struct {
	Addresses types.List   `tfsdk:"addresses"`
	SRV       types.String `tfsdk:"srv"`
	TLS       types.Object `tfsdk:"tls"`
}

type tlsModel struct {
	CAPEM      types.String `tfsdk:"ca_pem"`
	ServerName types.String `tfsdk:"server_name"`
	CertPEM    types.String `tfsdk:"cert_pem"`
	KeyPEM     types.String `tfsdk:"key_pem"`
}

// asOptions are for objects that may hold unknown values in types that can say so.
var asOptions = basetypes.ObjectAsOptions{}

// durationOr returns the value, or a default for null. known is false for an unknown or unreadable value.
func durationOr(v timetypes.GoDuration, def time.Duration) (d time.Duration, known bool) {
	switch {
	case v.IsUnknown():
		return 0, false
	case v.IsNull():
		return def, true
	}
	d, diags := v.ValueGoDuration()
	return d, !diags.HasError()
}

// pauseValidator compares the three durations with each other.
type pauseValidator struct{}

func (pauseValidator) Description(context.Context) string {
	return "min_duration ≤ max_duration, drain_timeout < max_duration"
}

func (v pauseValidator) MarkdownDescription(ctx context.Context) string { return v.Description(ctx) }

func (pauseValidator) ValidateObject(ctx context.Context, req validator.ObjectRequest, resp *validator.ObjectResponse) {
	if req.ConfigValue.IsNull() || req.ConfigValue.IsUnknown() {
		return
	}
	var m pauseModel
	resp.Diagnostics.Append(req.ConfigValue.As(ctx, &m, asOptions)...)
	if resp.Diagnostics.HasError() {
		return
	}
	drain, drainKnown := durationOr(m.Drain, defaultDrain)
	shortest, minKnown := durationOr(m.Min, defaultMin)
	longest, maxKnown := durationOr(m.Max, defaultMax)
	if minKnown && maxKnown && shortest > longest {
		resp.Diagnostics.AddAttributeError(req.Path.AtName("min_duration"), "Inconsistent pause durations",
			fmt.Sprintf("min_duration (%s) is longer than max_duration (%s): no window could ever be long enough. Defaults: min_duration %s, max_duration %s.", shortest, longest, defaultMin, defaultMax))
	}
	if drainKnown && maxKnown && drain >= longest {
		resp.Diagnostics.AddAttributeError(req.Path.AtName("drain_timeout"), "Inconsistent pause durations",
			fmt.Sprintf("drain_timeout (%s) must be shorter than max_duration (%s), which counts from the first pause request. Defaults: drain_timeout %s, max_duration %s.", drain, longest, defaultDrain, defaultMax))
	}
	if maxKnown && longest > longPause {
		resp.Diagnostics.AddAttributeWarning(req.Path.AtName("max_duration"), "Pauses may outlast what applications bear",
			fmt.Sprintf("max_duration is %s. ScalarDB's Java clients give up beginning a transaction when a pause takes about 100 s.", longest))
	}
}

// targetGroupValidator wants exactly one way to find the targets, and client certificates whole.
type targetGroupValidator struct{}

func (targetGroupValidator) Description(context.Context) string {
	return "exactly one of addresses and srv"
}

func (v targetGroupValidator) MarkdownDescription(ctx context.Context) string {
	return v.Description(ctx)
}

func (targetGroupValidator) ValidateObject(ctx context.Context, req validator.ObjectRequest, resp *validator.ObjectResponse) {
	if req.ConfigValue.IsNull() || req.ConfigValue.IsUnknown() {
		return
	}
	var m targetGroupModel
	resp.Diagnostics.Append(req.ConfigValue.As(ctx, &m, asOptions)...)
	if resp.Diagnostics.HasError() {
		return
	}
	switch {
	case m.Addresses.IsUnknown() || m.SRV.IsUnknown():
	case m.Addresses.IsNull() && m.SRV.IsNull():
		resp.Diagnostics.AddAttributeError(req.Path, "Target group without targets", "Set exactly one of addresses and srv.")
	case !m.Addresses.IsNull() && !m.SRV.IsNull():
		resp.Diagnostics.AddAttributeError(req.Path, "Target group with two lists of targets", "addresses and srv are both set. Set exactly one of them.")
	}
	if m.TLS.IsNull() || m.TLS.IsUnknown() {
		return
	}
	cert, key := m.TLS.Attributes()["cert_pem"], m.TLS.Attributes()["key_pem"]
	if cert != nil && key != nil && !cert.IsUnknown() && !key.IsUnknown() && cert.IsNull() != key.IsNull() {
		resp.Diagnostics.AddAttributeError(req.Path.AtName("tls"), "Incomplete client certificate", "cert_pem and key_pem belong together: set both or none.")
	}
}

// pauseConfig is a `pause` whose values are all known.
type pauseConfig struct {
	groups   map[string]GroupSettings
	settings engine.PauseSettings
}

// readPause decodes a `pause`; known is false where a value is unknown, or where v is null.
func readPause(ctx context.Context, v types.Object, at path.Path) (c pauseConfig, known bool, diags diag.Diagnostics) {
	if v.IsNull() || !whollyKnown(ctx, v) {
		return c, false, diags
	}
	var m pauseModel
	diags.Append(v.As(ctx, &m, asOptions)...)
	var groups map[string]targetGroupModel
	diags.Append(m.Targets.ElementsAs(ctx, &groups, false)...)
	if diags.HasError() {
		return c, false, diags
	}
	c.groups = map[string]GroupSettings{}
	for name, g := range groups {
		s := GroupSettings{SRV: g.SRV.ValueString()}
		if !g.Addresses.IsNull() {
			diags.Append(g.Addresses.ElementsAs(ctx, &s.Addresses, false)...)
		}
		if !g.TLS.IsNull() {
			var t tlsModel
			diags.Append(g.TLS.As(ctx, &t, asOptions)...)
			s.TLS = &TLSSettings{CAPEM: t.CAPEM.ValueString(), ServerName: t.ServerName.ValueString(), CertPEM: t.CertPEM.ValueString(), KeyPEM: t.KeyPEM.ValueString()}
		}
		// Validation saw this already, unless the value was unknown then.
		if (len(s.Addresses) == 0) == (s.SRV == "") {
			diags.AddAttributeError(at.AtName("targets").AtMapKey(name), "Target group without targets", "Set exactly one of addresses and srv, and not to an empty value.")
		}
		c.groups[name] = s
	}
	c.settings.Drain, _ = durationOr(m.Drain, defaultDrain)
	c.settings.Min, _ = durationOr(m.Min, defaultMin)
	c.settings.Max, _ = durationOr(m.Max, defaultMax)
	if c.settings.Min > c.settings.Max || c.settings.Drain >= c.settings.Max {
		diags.AddAttributeError(at, "Inconsistent pause durations", "min_duration must not be longer than max_duration, and drain_timeout must be shorter than it.")
	}
	return c, !diags.HasError(), diags
}

// whollyKnown says that no value in v is unknown.
func whollyKnown(ctx context.Context, v attr.Value) bool {
	t, err := v.ToTerraformValue(ctx)
	return err == nil && t.IsFullyKnown()
}
