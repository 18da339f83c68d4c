package provider

import (
	"context"
	"fmt"

	"github.com/hashicorp/terraform-plugin-framework-validators/int64validator"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/path"
	providerschema "github.com/hashicorp/terraform-plugin-framework/provider/schema"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/awsapi"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/catalog/s3"
)

// CatalogSettings say where the catalog is: in S3 where that is set, else in the directory.
type CatalogSettings struct {
	Directory string // absolute
	S3        *s3.Settings
	// AWS is the account for S3. A pointer, so that no verb prints it.
	AWS *awsapi.Settings
	// Default says that the user configured none.
	Default bool
}

// defaultCatalog is where the catalog is when the provider block names none.
const defaultCatalog = ".scalardb"

// pathCatalog is where problems of the catalog are shown.
func pathCatalog() path.Path { return path.Root("catalog") }

func catalogAttribute() providerschema.Attribute {
	return providerschema.SingleNestedAttribute{
		Optional: true,
		MarkdownDescription: "The place where manifests, dumps, the journal and the lock live: exactly one of `directory` and `s3`. Share one catalog between all workspaces that pause the same targets. " +
			"Default: the directory `.scalardb` in the working directory, which does not outlive a run in CI or Terraform Cloud; drivers that store data in the catalog refuse it.",
		Validators: []validator.Object{onePlace{}},
		Attributes: map[string]providerschema.Attribute{
			"directory": providerschema.StringAttribute{
				Optional:            true,
				MarkdownDescription: "Path of a directory on a local or shared file system (one that honours `fsync` and atomic `link`). It is made if it is missing.",
				Validators:          []validator.String{notEmpty{}},
			},
			"s3": providerschema.SingleNestedAttribute{
				Optional: true,
				MarkdownDescription: "A bucket of Amazon S3, or of a store with S3's conditional writes (every backup proves before its pause that the store has them). The credentials are those of `aws`, and the URL of another store is `aws.endpoints.s3`. " +
					"The guide \"A catalog in S3\" has the permissions that it needs and how the bucket should be set up.",
				Validators: []validator.Object{s3Validator{}},
				Attributes: map[string]providerschema.Attribute{
					"bucket": providerschema.StringAttribute{Required: true, MarkdownDescription: "Name of the bucket, which must exist."},
					"prefix": providerschema.StringAttribute{Optional: true, MarkdownDescription: "What every key begins with, like a path without a slash at either end. Default: none. Two catalogs in one bucket have different prefixes, neither of them a folder of the other.",
						Validators: []validator.String{notEmpty{}}},
					"region": providerschema.StringAttribute{Optional: true, MarkdownDescription: "Region of the bucket. Default: that of `aws`.", Validators: []validator.String{notEmpty{}}},
					"kms_key_id": providerschema.StringAttribute{Optional: true, MarkdownDescription: "Key of AWS KMS (id, ARN or alias) that objects are encrypted with. Default: what the bucket's own default encryption says.",
						Validators: []validator.String{notEmpty{}}},
					"object_lock": providerschema.SingleNestedAttribute{
						Optional: true,
						MarkdownDescription: "Locks the objects of a backup once it is complete, so that nobody deletes them before their time, Terraform neither: a destroy is refused until then and says when that is. " +
							"The bucket must have object lock. The journal, the lock and backups that fail are not locked.",
						Attributes: map[string]providerschema.Attribute{
							"mode": providerschema.StringAttribute{Required: true, MarkdownDescription: "`GOVERNANCE` (those with a special permission may still delete) or `COMPLIANCE` (nobody may).",
								Validators: []validator.String{stringvalidator.OneOf("GOVERNANCE", "COMPLIANCE")}},
							"retain_days": providerschema.Int64Attribute{Required: true, MarkdownDescription: "How many days a backup is locked, from 1 to 36500.", Validators: []validator.Int64{int64validator.Between(1, 36500)}},
						},
					},
				},
			},
		},
	}
}

type catalogModel struct {
	Directory types.String `tfsdk:"directory"`
	S3        *s3Model     `tfsdk:"s3"`
}

type s3Model struct {
	Bucket     types.String `tfsdk:"bucket"`
	Prefix     types.String `tfsdk:"prefix"`
	Region     types.String `tfsdk:"region"`
	KMSKeyID   types.String `tfsdk:"kms_key_id"`
	ObjectLock *struct {
		Mode       types.String `tfsdk:"mode"`
		RetainDays types.Int64  `tfsdk:"retain_days"`
	} `tfsdk:"object_lock"`
}

func (m s3Model) settings() *s3.Settings {
	s := &s3.Settings{Bucket: m.Bucket.ValueString(), Prefix: m.Prefix.ValueString(), Region: m.Region.ValueString(), KMSKeyID: m.KMSKeyID.ValueString()}
	if m.ObjectLock != nil {
		s.Lock = &s3.ObjectLock{Mode: m.ObjectLock.Mode.ValueString(), RetainDays: m.ObjectLock.RetainDays.ValueInt64()}
	}
	return s
}

// onePlace wants exactly one place for the catalog.
type onePlace struct{}

func (onePlace) Description(context.Context) string { return "exactly one of directory and s3" }

func (v onePlace) MarkdownDescription(ctx context.Context) string { return v.Description(ctx) }

func (onePlace) ValidateObject(_ context.Context, req validator.ObjectRequest, resp *validator.ObjectResponse) {
	if req.ConfigValue.IsNull() || req.ConfigValue.IsUnknown() {
		return
	}
	places := 0
	for _, v := range req.ConfigValue.Attributes() {
		if v.IsUnknown() {
			return
		}
		if !v.IsNull() {
			places++
		}
	}
	if places != 1 {
		resp.Diagnostics.AddAttributeError(req.Path, "No place for the catalog, or two", "Set exactly one of directory and s3.")
	}
}

// s3Validator refuses what can be no bucket or no prefix.
type s3Validator struct{}

func (s3Validator) Description(context.Context) string { return "a bucket's name, and a clean prefix" }

func (v s3Validator) MarkdownDescription(ctx context.Context) string { return v.Description(ctx) }

func (s3Validator) ValidateObject(ctx context.Context, req validator.ObjectRequest, resp *validator.ObjectResponse) {
	if req.ConfigValue.IsNull() || !whollyKnown(ctx, req.ConfigValue) {
		return
	}
	var m s3Model
	resp.Diagnostics.Append(req.ConfigValue.As(ctx, &m, asOptions)...)
	if resp.Diagnostics.HasError() {
		return
	}
	place := m.settings()
	place.Lock = nil // its arguments have validators of their own
	if err := place.Validate(); err != nil {
		resp.Diagnostics.AddAttributeError(req.Path, "Unusable catalog in S3", fmt.Sprintf("%s.", err))
	}
}

// unpauseOptions are those of the `unpause` command that name this catalog.
func (s CatalogSettings) unpauseOptions() string {
	if s.S3 == nil {
		return "--catalog " + shellQuote(s.Directory)
	}
	line := "--catalog " + shellQuote(s.S3.String())
	add := func(option, value string) {
		if value != "" {
			line += " --" + option + " " + shellQuote(value)
		}
	}
	region := s.S3.Region
	if region == "" {
		region = s.AWS.Region
	}
	add("region", region)
	add("profile", s.AWS.Profile)
	for _, r := range s.AWS.AssumeRole {
		add("role-arn", r.RoleARN)
	}
	add("endpoint", s.AWS.Endpoints["s3"])
	if s.AWS.S3UsePathStyle {
		line += " --path-style"
	}
	return line
}
