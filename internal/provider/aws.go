package provider

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-timetypes/timetypes"
	"github.com/hashicorp/terraform-plugin-framework-validators/int64validator"
	"github.com/hashicorp/terraform-plugin-framework-validators/listvalidator"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	providerschema "github.com/hashicorp/terraform-plugin-framework/provider/schema"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/awsapi"
)

// Limits of STS for a session's length.
const (
	minSession = 15 * time.Minute
	maxSession = 12 * time.Hour
)

// awsAttribute is the provider's `aws`: the arguments of the AWS provider's block that concern credentials and endpoints, by the same names.
func awsAttribute() providerschema.Attribute {
	str := func(text string) providerschema.StringAttribute {
		return providerschema.StringAttribute{Optional: true, MarkdownDescription: text, Validators: []validator.String{notEmpty{}}}
	}
	secret := func(text string) providerschema.StringAttribute {
		a := str(text)
		a.Sensitive = true
		return a
	}
	yes := func(text string) providerschema.BoolAttribute {
		return providerschema.BoolAttribute{Optional: true, MarkdownDescription: text}
	}
	list := func(text string, validators ...validator.List) providerschema.ListAttribute {
		return providerschema.ListAttribute{ElementType: types.StringType, Optional: true, MarkdownDescription: text,
			Validators: append([]validator.List{listvalidator.SizeAtLeast(1), listvalidator.ValueStringsAre(notEmpty{})}, validators...)}
	}
	required := func(text string) providerschema.StringAttribute {
		a := str(text)
		a.Required, a.Optional = true, false
		return a
	}
	session := providerschema.StringAttribute{CustomType: timetypes.GoDurationType{}, Optional: true, Validators: []validator.String{sessionLength{}},
		MarkdownDescription: "How long the role's credentials are valid before they are renewed, from `15m` to `12h`. Default: the role's."}
	accounts := path.MatchRelative().AtParent()
	endpoints := map[string]providerschema.Attribute{}
	for _, name := range awsapi.Services {
		endpoints[name] = str(fmt.Sprintf("URL of the %s service, instead of AWS's own. Overrides `AWS_ENDPOINT_URL` and its kin.", awsServices[name]))
	}
	return providerschema.SingleNestedAttribute{
		Optional: true,
		MarkdownDescription: "The AWS account of the `aws_…` drivers and of a catalog in S3. Names, environment variables and precedence are those of the AWS provider's block; what works there works here, " +
			"and without `aws` the environment alone decides (`AWS_PROFILE`, `AWS_ACCESS_KEY_ID`, web identity, the role of a container or an instance, …). It is only asked when something needs it.",
		Attributes: map[string]providerschema.Attribute{
			"region":                   str("Default region. Else `AWS_REGION`, `AWS_DEFAULT_REGION`, or the profile's."),
			"profile":                  str("Profile of the shared files. Else `AWS_PROFILE`, or `default`."),
			"access_key":               str("Access key id, with `secret_key`. Else `AWS_ACCESS_KEY_ID`, or what the shared files and the machine give."),
			"secret_key":               secret("Secret access key, with `access_key`. Else `AWS_SECRET_ACCESS_KEY`, or what the shared files and the machine give."),
			"token":                    secret("Session token of temporary credentials. Else `AWS_SESSION_TOKEN`."),
			"shared_config_files":      list("Paths of shared configuration files. Else `AWS_CONFIG_FILE`, or `~/.aws/config`."),
			"shared_credentials_files": list("Paths of shared credentials files. Else `AWS_SHARED_CREDENTIALS_FILE`, or `~/.aws/credentials`."),
			"assume_role": providerschema.SingleNestedAttribute{
				Optional:            true,
				MarkdownDescription: "Role to assume with the credentials that are found. Several, one after the other, are a matter of a profile with `source_profile`.",
				Attributes: map[string]providerschema.Attribute{
					"role_arn":            required("ARN of the role."),
					"duration":            session,
					"external_id":         str("External id that the role's trust policy asks for."),
					"policy":              str("IAM policy (JSON) that narrows what the role may do."),
					"policy_arns":         list("ARNs of IAM policies that narrow what the role may do."),
					"session_name":        str("Name of the session. Default: a generated one."),
					"source_identity":     str("Source identity of the session."),
					"tags":                providerschema.MapAttribute{ElementType: types.StringType, Optional: true, MarkdownDescription: "Tags of the session."},
					"transitive_tag_keys": list("Keys of `tags` that the sessions of further roles get too."),
				},
			},
			"assume_role_with_web_identity": providerschema.SingleNestedAttribute{
				Optional: true,
				MarkdownDescription: "Role to assume by a token of an identity provider (OIDC), instead of other credentials. Else `AWS_ROLE_ARN` and `AWS_WEB_IDENTITY_TOKEN_FILE`, " +
					"as Terraform Cloud's dynamic credentials and Kubernetes set them.",
				Attributes: map[string]providerschema.Attribute{
					"role_arn":     required("ARN of the role."),
					"duration":     session,
					"policy":       str("IAM policy (JSON) that narrows what the role may do."),
					"policy_arns":  list("ARNs of IAM policies that narrow what the role may do."),
					"session_name": str("Name of the session. Default: a generated one."),
					"web_identity_token": providerschema.StringAttribute{Optional: true, Sensitive: true, MarkdownDescription: "The token. Exactly one of this and `web_identity_token_file`.",
						Validators: []validator.String{notEmpty{}, stringvalidator.ExactlyOneOf(path.MatchRelative().AtParent().AtName("web_identity_token_file"))}},
					"web_identity_token_file": str("Path of a file with the token. Exactly one of this and `web_identity_token`."),
				},
			},
			"allowed_account_ids":         list("The only accounts that may be used. Not with `forbidden_account_ids`.", listvalidator.ConflictsWith(accounts.AtName("forbidden_account_ids"))),
			"forbidden_account_ids":       list("Accounts that must not be used. Not with `allowed_account_ids`."),
			"custom_ca_bundle":            str("Path of a file with certificates (PEM) of authorities to trust. Else `AWS_CA_BUNDLE`."),
			"insecure":                    yes("Does not verify the services' certificates."),
			"http_proxy":                  secret("URL of the proxy for requests without TLS. Else `HTTP_PROXY`."),
			"https_proxy":                 secret("URL of the proxy for requests with TLS. Else `HTTPS_PROXY`."),
			"no_proxy":                    str("Comma-separated hosts that are reached without a proxy. Else `NO_PROXY`."),
			"max_retries":                 providerschema.Int64Attribute{Optional: true, MarkdownDescription: "How often a call is tried. Else `AWS_MAX_ATTEMPTS`, the profile's, or 25.", Validators: []validator.Int64{int64validator.Between(1, 1000)}},
			"retry_mode":                  providerschema.StringAttribute{Optional: true, MarkdownDescription: "How tries are spaced: `standard` or `adaptive`. Else `AWS_RETRY_MODE`, the profile's, or `standard`.", Validators: []validator.String{stringvalidator.OneOf("standard", "adaptive")}},
			"use_dualstack_endpoint":      yes("Uses endpoints that IPv6 reaches too. Else `AWS_USE_DUALSTACK_ENDPOINT`."),
			"use_fips_endpoint":           yes("Uses FIPS endpoints. Else `AWS_USE_FIPS_ENDPOINT`."),
			"s3_use_path_style":           yes("Puts the bucket's name into the path instead of the host name, as some stores that are not AWS's need it."),
			"skip_metadata_api_check":     yes("Does not ask the instance's metadata service for credentials. Else `AWS_EC2_METADATA_DISABLED`."),
			"skip_credentials_validation": yes("Does not ask STS whose the credentials are, for stores and emulators without STS. The account is not known then."),
			"endpoints": providerschema.SingleNestedAttribute{Optional: true, Attributes: endpoints,
				MarkdownDescription: "URLs of services instead of AWS's own: for private endpoints, emulators, and stores that speak S3's protocol."},
		},
	}
}

// awsServices are the names of awsapi.Services in words.
var awsServices = map[string]string{"applicationautoscaling": "Application Auto Scaling", "dynamodb": "DynamoDB", "iam": "IAM", "rds": "RDS", "s3": "S3", "sso": "IAM Identity Center (SSO)", "sts": "STS"}

// sessionLength refuses what STS would.
type sessionLength struct{}

func (sessionLength) Description(context.Context) string {
	return fmt.Sprintf("must be from %s to %s", minSession, maxSession)
}

func (v sessionLength) MarkdownDescription(ctx context.Context) string { return v.Description(ctx) }

func (v sessionLength) ValidateString(ctx context.Context, req validator.StringRequest, resp *validator.StringResponse) {
	if req.ConfigValue.IsNull() || req.ConfigValue.IsUnknown() {
		return
	}
	d, err := time.ParseDuration(req.ConfigValue.ValueString())
	if err == nil && (d < minSession || d > maxSession) { // else the type has said so
		resp.Diagnostics.AddAttributeError(req.Path, "Invalid session length", fmt.Sprintf("%s %s.", d, v.Description(ctx)))
	}
}

type awsModel struct {
	Region                 types.String `tfsdk:"region"`
	Profile                types.String `tfsdk:"profile"`
	AccessKey              types.String `tfsdk:"access_key"`
	SecretKey              types.String `tfsdk:"secret_key"`
	Token                  types.String `tfsdk:"token"`
	SharedConfigFiles      []string     `tfsdk:"shared_config_files"`
	SharedCredentialsFiles []string     `tfsdk:"shared_credentials_files"`
	AssumeRole             *struct {
		RoleARN           types.String         `tfsdk:"role_arn"`
		Duration          timetypes.GoDuration `tfsdk:"duration"`
		ExternalID        types.String         `tfsdk:"external_id"`
		Policy            types.String         `tfsdk:"policy"`
		PolicyARNs        []string             `tfsdk:"policy_arns"`
		SessionName       types.String         `tfsdk:"session_name"`
		SourceIdentity    types.String         `tfsdk:"source_identity"`
		Tags              map[string]string    `tfsdk:"tags"`
		TransitiveTagKeys []string             `tfsdk:"transitive_tag_keys"`
	} `tfsdk:"assume_role"`
	WebIdentity *struct {
		RoleARN     types.String         `tfsdk:"role_arn"`
		Duration    timetypes.GoDuration `tfsdk:"duration"`
		Policy      types.String         `tfsdk:"policy"`
		PolicyARNs  []string             `tfsdk:"policy_arns"`
		SessionName types.String         `tfsdk:"session_name"`
		Token       types.String         `tfsdk:"web_identity_token"`
		TokenFile   types.String         `tfsdk:"web_identity_token_file"`
	} `tfsdk:"assume_role_with_web_identity"`
	AllowedAccountIDs    []string     `tfsdk:"allowed_account_ids"`
	ForbiddenAccountIDs  []string     `tfsdk:"forbidden_account_ids"`
	CustomCABundle       types.String `tfsdk:"custom_ca_bundle"`
	Insecure             types.Bool   `tfsdk:"insecure"`
	HTTPProxy            types.String `tfsdk:"http_proxy"`
	HTTPSProxy           types.String `tfsdk:"https_proxy"`
	NoProxy              types.String `tfsdk:"no_proxy"`
	MaxRetries           types.Int64  `tfsdk:"max_retries"`
	RetryMode            types.String `tfsdk:"retry_mode"`
	UseDualstackEndpoint types.Bool   `tfsdk:"use_dualstack_endpoint"`
	UseFIPSEndpoint      types.Bool   `tfsdk:"use_fips_endpoint"`
	S3UsePathStyle       types.Bool   `tfsdk:"s3_use_path_style"`
	SkipMetadataAPICheck types.Bool   `tfsdk:"skip_metadata_api_check"`
	SkipCredentialsCheck types.Bool   `tfsdk:"skip_credentials_validation"`
	EndpointsObject      types.Object `tfsdk:"endpoints"`
}

// pathAWS is where problems of the AWS settings are shown.
func pathAWS() path.Path { return path.Root("aws") }

var errUnknownAWS = errors.New("the provider's aws holds a value that is not known yet")

// readAWS decodes `aws`. Without one the environment alone decides.
func (d *data) readAWS(ctx context.Context, v types.Object) (diags diag.Diagnostics) {
	d.awsKnown = whollyKnown(ctx, v)
	d.awsSettings = &awsapi.Settings{}
	if v.IsNull() || !d.awsKnown {
		return diags
	}
	var m awsModel
	diags.Append(v.As(ctx, &m, asOptions)...)
	if diags.HasError() {
		return diags
	}
	s := awsapi.Settings{
		Region: m.Region.ValueString(), Profile: m.Profile.ValueString(), AccessKey: m.AccessKey.ValueString(), SecretKey: m.SecretKey.ValueString(), Token: m.Token.ValueString(),
		SharedConfigFiles: m.SharedConfigFiles, SharedCredentialsFiles: m.SharedCredentialsFiles, AllowedAccountIDs: m.AllowedAccountIDs, ForbiddenAccountIDs: m.ForbiddenAccountIDs,
		CustomCABundle: m.CustomCABundle.ValueString(), Insecure: m.Insecure.ValueBool(), HTTPProxy: m.HTTPProxy.ValueString(), HTTPSProxy: m.HTTPSProxy.ValueString(), NoProxy: m.NoProxy.ValueString(),
		MaxRetries: int(m.MaxRetries.ValueInt64()), RetryMode: m.RetryMode.ValueString(), UseDualstackEndpoint: m.UseDualstackEndpoint.ValueBool(), UseFIPSEndpoint: m.UseFIPSEndpoint.ValueBool(),
		S3UsePathStyle: m.S3UsePathStyle.ValueBool(), SkipMetadataAPICheck: m.SkipMetadataAPICheck.ValueBool(), SkipCredentialsCheck: m.SkipCredentialsCheck.ValueBool(), Endpoints: map[string]string{},
	}
	if r := m.AssumeRole; r != nil {
		length, _ := durationOr(r.Duration, 0) // validated
		s.AssumeRole = append(s.AssumeRole, awsapi.AssumeRole{RoleARN: r.RoleARN.ValueString(), Duration: length, ExternalID: r.ExternalID.ValueString(), Policy: r.Policy.ValueString(),
			PolicyARNs: r.PolicyARNs, SessionName: r.SessionName.ValueString(), SourceIdentity: r.SourceIdentity.ValueString(), Tags: r.Tags, TransitiveTagKeys: r.TransitiveTagKeys})
	}
	if w := m.WebIdentity; w != nil {
		length, _ := durationOr(w.Duration, 0) // validated
		s.WebIdentity = &awsapi.WebIdentity{RoleARN: w.RoleARN.ValueString(), Duration: length, Policy: w.Policy.ValueString(), PolicyARNs: w.PolicyARNs,
			SessionName: w.SessionName.ValueString(), Token: w.Token.ValueString(), TokenFile: w.TokenFile.ValueString()}
	}
	for name, e := range m.EndpointsObject.Attributes() {
		if e, ok := e.(types.String); ok && !e.IsNull() {
			s.Endpoints[name] = e.ValueString()
		}
	}
	// Validation saw these already, unless the values were unknown then.
	if (s.AccessKey == "") != (s.SecretKey == "") {
		diags.AddAttributeError(pathAWS(), "Incomplete AWS credentials", "access_key and secret_key belong together: set both or none.")
	}
	if w := s.WebIdentity; w != nil && (w.Token == "") == (w.TokenFile == "") {
		diags.AddAttributeError(pathAWS().AtName("assume_role_with_web_identity"), "No token, or two", "Set exactly one of web_identity_token and web_identity_token_file.")
	}
	if len(s.AllowedAccountIDs) > 0 && len(s.ForbiddenAccountIDs) > 0 {
		diags.AddAttributeError(pathAWS().AtName("allowed_account_ids"), "Two lists of accounts", "Set only one of allowed_account_ids and forbidden_account_ids.")
	}
	d.awsSettings = &s
	return diags
}

// openAWS opens the account of the provider's `aws`, once for all who ask.
func (d *data) openAWS(ctx context.Context) (*awsapi.Session, error) {
	if !d.awsKnown {
		return nil, errUnknownAWS
	}
	return d.aws.get(func() (*awsapi.Session, error) { return d.deps.OpenAWS(ctx, *d.awsSettings) })
}
