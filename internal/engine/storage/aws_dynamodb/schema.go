package awsdynamodb

import (
	"context"
	_ "embed"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	tftypes "github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
)

//go:embed description.md
var description string

// Kind is the driver "aws_dynamodb".
type Kind struct{}

var _ storage.Kind = Kind{}

// Name is "aws_dynamodb".
func (Kind) Name() string { return kindName }

// Description is description.md.
func (Kind) Description() string { return description }

// SourceAttributes are those of the tables to be captured.
func (Kind) SourceAttributes() map[string]schema.Attribute {
	a := attributes(map[string]schema.Attribute{
		"prefix": replacedString("Prefix of all table names: `scalar.db.dynamo.namespace.prefix` of ScalarDB's configuration. The default is none."),
		"region": replacedString("AWS region of the tables. The default is the provider's."),
		"method": replacedString("`pitr` (the default): the backup is an instant, kept by DynamoDB's point-in-time recovery. `on_demand`: every table is " +
			"restored to that instant " +
			"under a temporary name, backed up there, and the temporary table deleted."),
	})
	// They choose the tables.
	for _, name := range []string{"coordinator_namespace", "metadata_namespace"} {
		namespace := a[name].(schema.StringAttribute) //nolint:forcetypeassert // With made it
		namespace.PlanModifiers = []planmodifier.String{storage.ReplaceString()}
		a[name] = namespace
	}
	return a
}

// DestinationAttributes are those of the tables to be made.
func (Kind) DestinationAttributes() map[string]schema.Attribute {
	return attributes(map[string]schema.Attribute{
		"prefix": replacedString("Prefix of the new tables' names, and `scalar.db.dynamo.namespace.prefix` of the ScalarDB that will use them. The " +
			"default is the source's: then `region` must be another one."),
		"region": replacedString("AWS region to restore into. The default is the provider's."),
		"source_prefix": replacedString("Prefix of the source's tables. A backup has it recorded; it is needed for a restore from a pause window alone, where " +
			"the source has a prefix."),
		"source_region": replacedString("AWS region of the source's tables. A backup has it recorded; from a pause window alone the default is `region`."),
		"billing_mode": replacedString("`PAY_PER_REQUEST` makes the new tables on-demand; verification is much faster then. `PROVISIONED`, or nothing, is each " +
			"source table's own mode and capacity; " +
			"`PROVISIONED` refuses on-demand tables, for which no capacity is known."),
		"kms_key_arn": replacedString("ARN of the KMS key that encrypts the new tables, in the region that they are restored into. The default is the source's."),
		"tags": schema.MapAttribute{
			ElementType: tftypes.StringType, Optional: true, MarkdownDescription: "Tags of the new tables, beside the source's and `scalardb:run-id` and " +
				"`scalardb:restore`.",
		},
		"restore_settings": schema.ListAttribute{
			ElementType: tftypes.StringType, Optional: true,
			MarkdownDescription: "Which settings, that DynamoDB leaves behind, are put back as the source had them: of `" + strings.Join(allSettings, "`, "+
				"`") + "`. The default is all; an empty list is none.",
		},
	})
}

func replacedString(text string) schema.StringAttribute {
	return schema.StringAttribute{Optional: true, MarkdownDescription: text, PlanModifiers: []planmodifier.String{storage.ReplaceString()}}
}

func attributes(own map[string]schema.Attribute) map[string]schema.Attribute {
	names := func(text string) schema.ListAttribute {
		return schema.ListAttribute{ElementType: tftypes.StringType, Optional: true, MarkdownDescription: text,
			PlanModifiers: []planmodifier.List{storage.ReplaceList()}}
	}
	own["tables"] = names("Tables, as ScalarDB names them (`namespace.table`, without `prefix`). The metadata tables and the coordinator table are always " +
		"with them, where they are there. " +
		"Without `tables` and `namespaces`: every table below `prefix` that ScalarDB's metadata names.")
	own["namespaces"] = names("Namespaces of ScalarDB, instead of `tables`.")
	own["max_concurrent_restores"] = schema.Int64Attribute{
		Optional: true, MarkdownDescription: fmt.Sprintf("How many tables are restored at once; the default is %d. AWS allows an account 50.", defaultRestores),
	}
	own["verify_read_capacity_share"] = schema.Int64Attribute{
		Optional: true, MarkdownDescription: fmt.Sprintf("How much of each table's read capacity verification uses, in per cent; the default is %d. An "+
			"on-demand table without a limit counts as %d units a second.", defaultShare, onDemandRate),
	}
	return storage.With(own)
}

var (
	regionName    = regexp.MustCompile(`^[a-z]{2,4}(-[a-z]+)+-\d+$`)
	keyARN        = regexp.MustCompile(`^arn:[a-z-]+:kms:[a-z0-9-]+:\d{12}:(key|alias)/.+$`)
	prefixName    = regexp.MustCompile(`^[a-zA-Z0-9_.-]*$`)
	namespaceName = regexp.MustCompile(`^[a-zA-Z0-9_-]+$`)
	scalarTable   = regexp.MustCompile(`^[a-zA-Z0-9_-]+\.[a-zA-Z0-9_-]+$`)
)

// Validate refuses what DynamoDB or ScalarDB cannot have.
func (Kind) Validate(_ context.Context, _ storage.Side, config tftypes.Object, at func(attribute string) storage.PathSetter) diag.Diagnostics {
	pattern := func(a string, re *regexp.Regexp, what string) {
		if v, ok := storage.Text(config, a); ok && !re.MatchString(v) {
			at(a).Error("Invalid "+a, fmt.Sprintf("%q is not %s.", v, what))
		}
	}
	elements := func(a string, re *regexp.Regexp, what string) (n int) {
		for _, v := range texts(config, a) {
			n++
			if !re.MatchString(v) {
				at(a).Error("Invalid "+a, fmt.Sprintf("%q is not %s.", v, what))
				break
			}
		}
		return n
	}
	pattern("region", regionName, "a region of AWS, like eu-west-1")
	pattern("source_region", regionName, "a region of AWS, like eu-west-1")
	pattern("prefix", prefixName, "a prefix: DynamoDB's table names have letters, digits, '_', '-' and '.'")
	pattern("source_prefix", prefixName, "a prefix: DynamoDB's table names have letters, digits, '_', '-' and '.'")
	pattern("coordinator_namespace", namespaceName, "a namespace of ScalarDB")
	pattern("metadata_namespace", namespaceName, "a namespace of ScalarDB")
	pattern("kms_key_arn", keyARN, "the ARN of a KMS key, like arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab")
	tables := elements("tables", scalarTable, "a table of ScalarDB, namespace.table (without the prefix)")
	namespaces := elements("namespaces", namespaceName, "a namespace of ScalarDB")
	if tables > 0 && namespaces > 0 {
		at("namespaces").Error("Tables and namespaces", "Give tables or namespaces, not both.")
	}
	for _, a := range []string{"tables", "namespaces"} {
		if isEmptyList(config, a) {
			at(a).Error("Empty "+a, "The list is empty. Leave it out for every table below the prefix.")
		}
	}
	oneOf := func(a string, of ...string) {
		if v, ok := storage.Text(config, a); ok && !slices.Contains(of, v) {
			at(a).Error("Invalid "+a, fmt.Sprintf("%q is none of %s.", v, strings.Join(of, ", ")))
		}
	}
	oneOf("method", MethodPITR, MethodOnDemand)
	oneOf("billing_mode", string(types.BillingModePayPerRequest), string(types.BillingModeProvisioned))
	for _, v := range texts(config, "restore_settings") {
		if !slices.Contains(allSettings, v) {
			at("restore_settings").Error("Invalid restore_settings", fmt.Sprintf("%q is none of %s.", v, strings.Join(allSettings, ", ")))
			break
		}
	}
	within := func(a string, low, high int64) {
		if n, ok := storage.Whole(config, a); ok && (n < low || n > high) {
			at(a).Error("Invalid "+a, fmt.Sprintf("%d is not from %d to %d.", n, low, high))
		}
	}
	within("max_concurrent_restores", 1, maxRestores)
	within("verify_read_capacity_share", 1, 100)
	if m, ok := config.Attributes()["tags"].(tftypes.Map); ok {
		for k := range m.Elements() {
			if k == "" || len(k) > 128 || strings.HasPrefix(k, "aws:") || strings.HasPrefix(k, tagPrefix) {
				at("tags").Error("Invalid tags", fmt.Sprintf("%q cannot be a tag: a key has 1 to 128 characters, and those that begin with aws: or %s are AWS's and "+
					"the provider's own.", k, tagPrefix))
				break
			}
		}
	}
	return nil
}

// texts are the known elements of a list of strings.
func texts(config tftypes.Object, attribute string) (out []string) {
	l, ok := config.Attributes()[attribute].(tftypes.List)
	if !ok {
		return nil
	}
	for _, e := range l.Elements() {
		if s, ok := e.(tftypes.String); ok && !s.IsNull() && !s.IsUnknown() {
			out = append(out, s.ValueString())
		}
	}
	return out
}

func isEmptyList(config tftypes.Object, attribute string) bool {
	l, ok := config.Attributes()[attribute].(tftypes.List)
	return ok && !l.IsNull() && !l.IsUnknown() && len(l.Elements()) == 0
}

// NewSource opens nothing yet.
func (Kind) NewSource(_ context.Context, config tftypes.Object, env storage.Env) (engine.Source, diag.Diagnostics) {
	return NewSource(decode(config, env)), nil
}

// NewDestination opens nothing yet.
func (Kind) NewDestination(_ context.Context, config tftypes.Object, env storage.Env) (engine.Destination, diag.Diagnostics) {
	return NewDestination(decode(config, env)), nil
}

// NewReader opens the account.
func (Kind) NewReader(ctx context.Context, _ storage.Side, config tftypes.Object, env storage.Env) (verify.Storage, diag.Diagnostics) {
	r, err := NewReader(ctx, decode(config, env), env.Report)
	if err != nil {
		return nil, diag.Diagnostics{diag.NewErrorDiagnostic("Opening DynamoDB", err.Error())}
	}
	return r, nil
}

// Artifacts reads and deletes artifacts in the region that they name.
func (Kind) Artifacts(config tftypes.Object, env storage.Env) engine.ArtifactStore {
	return NewKeeper(decode(config, env), env.Catalog)
}

// Restores says: by time, or from on-demand backups.
func (Kind) Restores() storage.Restores { return storage.Restores{FromArtifacts: true, ByTime: true} }

func decode(config tftypes.Object, env storage.Env) Settings {
	s := Settings{Storage: env.StorageName, Clock: env.Clock, Open: func(ctx context.Context) (Account, error) {
		session, err := env.AWS(ctx)
		if err != nil {
			return Account{}, err
		}
		return FromSession(session), nil
	}}
	s.Region, _ = storage.Text(config, "region")
	s.Method, _ = storage.Text(config, "method")
	s.Tables, s.Namespaces = texts(config, "tables"), texts(config, "namespaces")
	s.Layout = storage.Namespaces(config)
	s.MaxRestores, _ = storage.Whole(config, "max_concurrent_restores")
	s.ReadShare, _ = storage.Whole(config, "verify_read_capacity_share")
	s.SourceRegion, _ = storage.Text(config, "source_region")
	s.SourcePrefix, s.HasSourcePrefix = storage.Text(config, "source_prefix")
	if s.Prefix, s.HasPrefix = storage.Text(config, "prefix"); !s.HasPrefix {
		s.Prefix = s.SourcePrefix
	}
	s.BillingMode, _ = storage.Text(config, "billing_mode")
	s.KMSKeyARN, _ = storage.Text(config, "kms_key_arn")
	if m, ok := config.Attributes()["tags"].(tftypes.Map); ok {
		s.Tags = map[string]string{}
		for k, v := range m.Elements() {
			if t, ok := v.(tftypes.String); ok {
				s.Tags[k] = t.ValueString()
			}
		}
	}
	if l, ok := config.Attributes()["restore_settings"].(tftypes.List); ok && !l.IsNull() {
		s.PutBack = append([]string{}, texts(config, "restore_settings")...)
	}
	return s
}
