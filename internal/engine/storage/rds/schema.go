package rds

import (
	"context"
	"fmt"
	"regexp"

	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-framework/types/basetypes"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage"
)

// Flag is storage.Text for booleans; nil when it is not there.
func Flag(config types.Object, attribute string) *bool {
	v, ok := config.Attributes()[attribute].(basetypes.BoolValuable)
	if !ok || v.IsNull() || v.IsUnknown() {
		return nil
	}
	b, diags := v.ToBoolValue(context.Background())
	if diags.HasError() {
		return nil
	}
	return b.ValueBoolPointer()
}

// Number is storage.Whole as the SDK has numbers; nil when it is not there.
func Number(config types.Object, attribute string) *int32 {
	n, ok := storage.Whole(config, attribute)
	if !ok {
		return nil
	}
	short := int32(n) //nolint:gosec // Validate has seen it
	return &short
}

// Words is storage.Text for lists; nil when it is not there.
func Words(config types.Object, attribute string) []string {
	v, ok := config.Attributes()[attribute].(types.List)
	if !ok || v.IsNull() || v.IsUnknown() {
		return nil
	}
	out := []string{}
	if diags := v.ElementsAs(context.Background(), &out, false); diags.HasError() {
		return nil // an element is unknown
	}
	return out
}

// Labels is storage.Text for maps; nil when it is not there.
func Labels(config types.Object, attribute string) map[string]string {
	v, ok := config.Attributes()[attribute].(types.Map)
	if !ok || v.IsNull() || v.IsUnknown() {
		return nil
	}
	out := map[string]string{}
	if diags := v.ElementsAs(context.Background(), &out, false); diags.HasError() {
		return nil
	}
	return out
}

// Fixed is a string argument that says what is captured or restored.
func Fixed(required bool, text string) schema.StringAttribute {
	return schema.StringAttribute{Required: required, Optional: !required, MarkdownDescription: text, PlanModifiers: []planmodifier.String{storage.ReplaceString()}}
}

// String is a string argument that updates in place.
func String(text string) schema.StringAttribute {
	return schema.StringAttribute{Optional: true, MarkdownDescription: text}
}

// Int is a number argument that updates in place.
func Int(text string) schema.Int64Attribute {
	return schema.Int64Attribute{Optional: true, MarkdownDescription: text}
}

// Bool is a boolean argument that updates in place.
func Bool(text string) schema.BoolAttribute {
	return schema.BoolAttribute{Optional: true, MarkdownDescription: text}
}

// Strings is a list argument that updates in place.
func Strings(text string) schema.ListAttribute {
	return schema.ListAttribute{Optional: true, ElementType: types.StringType, MarkdownDescription: text}
}

// LoginOf is the entry of the provider's credentials; nil when there is none.
func LoginOf(env storage.Env) *Login {
	c := env.Credentials
	if c == nil {
		return nil
	}
	return &Login{Username: c.Username, Password: c.Password, CAPEM: c.CAPEM, CertPEM: c.CertPEM, KeyPEM: c.KeyPEM}
}

var (
	regions  = regexp.MustCompile(`^[a-z]{2}(-[a-z0-9]+)+-[0-9]+$`)
	accounts = regexp.MustCompile(`^[0-9]{12}$`)
	keys     = regexp.MustCompile(`^(arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:(key|alias)/.+|alias/.+|(mrk-)?[0-9a-fA-F-]{32,36})$`)
)

// Validate checks the arguments that both drivers have.
func Validate(config types.Object, at func(attribute string) storage.PathSetter) {
	if r, ok := storage.Text(config, "region"); ok && !regions.MatchString(r) {
		at("region").Error("Invalid region", fmt.Sprintf("%q is no region: it is a name such as eu-central-1.", r))
	}
	if id, ok := storage.Text(config, "identifier"); ok {
		if wrong := CheckIdentifier(id); wrong != "" {
			at("identifier").Error("Invalid identifier", wrong)
		}
	}
	if k, ok := storage.Text(config, "kms_key_id"); ok && !keys.MatchString(k) {
		at("kms_key_id").Error("Invalid kms_key_id", "A KMS key is given by its ARN, its id, or its alias (alias/NAME).")
	}
	for _, a := range Words(config, "share_with_accounts") {
		if !accounts.MatchString(a) {
			at("share_with_accounts").Error("Invalid account", fmt.Sprintf("%q is no AWS account: its number has 12 digits.", a))
		}
	}
	if n := len(Words(config, "share_with_accounts")); n > 20 {
		at("share_with_accounts").Error("Too many accounts", fmt.Sprintf("A snapshot can be shared with 20 accounts, not with %d.", n))
	}
	for _, limit := range []struct {
		attribute   string
		least, most int64
		what        string
	}{
		{"port", 1150, 65535, "A port of an RDS instance is from 1150 to 65535."},
		{"backup_retention_period", 0, 35, "Automated backups are kept for 0 to 35 days."},
		{"iops", 1, 1 << 30, "It is a positive number."},
		{"storage_throughput", 1, 1 << 30, "It is a positive number of MiB per second."},
		{"allocated_storage", 1, 1 << 30, "It is a positive number of GiB."},
		{"max_allocated_storage", 1, 1 << 30, "It is a positive number of GiB."},
		{"performance_insights_retention_period", 7, 731, "It is 7, a multiple of 31, or 731 days."},
		{"monitoring_interval", 0, 60, "It is 0, 1, 5, 10, 15, 30 or 60 seconds."},
	} {
		if n, ok := storage.Whole(config, limit.attribute); ok && (n < limit.least || n > limit.most) {
			at(limit.attribute).Error("Invalid "+limit.attribute, limit.what)
		}
	}
	for _, a := range []string{"coordinator_namespace", "metadata_namespace", "database"} {
		if v, ok := storage.Text(config, a); ok && v == "" {
			at(a).Error("Invalid "+a, "It must not be empty. Leave the argument out for the default.")
		}
	}
	for k := range Labels(config, "tags") {
		if UserTags(map[string]string{k: ""})[k] == "" && len(UserTags(map[string]string{k: ""})) == 0 {
			at("tags").Error("Reserved tag", fmt.Sprintf("The tag %q is AWS's or this provider's own.", k))
		}
	}
	if m := Flag(config, "manage_master_user_password"); m != nil && *m {
		if s := Flag(config, "set_master_password"); s != nil && *s {
			at("set_master_password").Error("Two master passwords", "Either RDS manages the master user's password, or it is set: set one of manage_master_user_password and set_master_password.")
		}
	}
}

// ValidateMethod checks the argument method of a source.
func ValidateMethod(config types.Object, at func(attribute string) storage.PathSetter) {
	if m, ok := storage.Text(config, "method"); ok && m != MethodPITR && m != MethodSnapshot {
		at("method").Error("Invalid method", fmt.Sprintf("%q is no method: it is %s or %s.", m, MethodPITR, MethodSnapshot))
	}
	if m, ok := storage.Text(config, "method"); len(Words(config, "share_with_accounts")) > 0 && (!ok || m == MethodPITR) && !config.Attributes()["method"].IsUnknown() {
		at("share_with_accounts").Error("Nothing to share", "Only the method snapshot makes something that can be shared with another account.")
	}
}

// DestinationAttributes are the arguments that restored instances and clusters both have. Where no default is named, it is the source's setting.
func DestinationAttributes(what string) map[string]schema.Attribute {
	return map[string]schema.Attribute{
		"identifier": Fixed(true, "Identifier of the "+what+" to create. It must be free."),
		"region":     Fixed(false, "Region to restore into. The default is the provider's. By time this needs automated backups that are replicated to it (`source_automated_backup_arn`); a snapshot is copied to it."),
		"source_identifier": Fixed(false, "Identifier of the "+what+" that was backed up. It may be left out where the backup says it. One that was deleted is restored from its retained automated "+
			"backups, one that was replaced under the same identifier is refused."),
		"kms_key_id": Fixed(false, "KMS key of the copy. The default is the source's; a copy of a snapshot in another region or account needs one of there. Copies nothing in place: the data is encrypted anew."),
		"database":   String("Database that holds ScalarDB's schemas (PostgreSQL, Oracle, Db2): for `scalardb_properties` and verification. The default is the source's first database."),
		"port":       Int("Port. The default is the source's."),

		"db_subnet_group_name":                  String("Subnet group. The default is the source's, in the same region and account; elsewhere the account's default."),
		"vpc_security_group_ids":                Strings("Security groups. The default is the source's, in the same region and account: AWS's own default would be the VPC's default group."),
		"iam_database_authentication_enabled":   Bool("Whether IAM may log users in. The default is the source's setting."),
		"deletion_protection":                   Bool("Whether AWS refuses to delete it. The default is the source's setting. What the restore itself set, it lifts when it is destroyed."),
		"backup_retention_period":               Int("Days that automated backups of the copy are kept. The default is the source's."),
		"tags":                                  schema.MapAttribute{Optional: true, ElementType: types.StringType, MarkdownDescription: "Tags, beside those that say which restore made it, and the source's."},
		"copy_tags":                             Bool("Whether the source's tags are put on the copy. The default is true."),
		"enabled_cloudwatch_logs_exports":       Strings("Logs that go to CloudWatch. The default is the source's."),
		"performance_insights_enabled":          Bool("Whether Performance Insights is on. The default is the source's setting."),
		"performance_insights_kms_key_id":       String("Its KMS key."),
		"performance_insights_retention_period": Int("Days that its data is kept. The default is the source's."),
		"monitoring_interval":                   Int("Seconds between points of enhanced monitoring, 0 for none. The default is the source's."),
		"monitoring_role_arn":                   String("Role of enhanced monitoring. The default is the source's, in the same account."),
		"ca_certificate_identifier":             String("Certificate authority of the server's certificate. The default is the source's."),
		"auto_minor_version_upgrade":            Bool("Whether minor versions are upgraded by themselves. The default is the source's setting."),
		"manage_master_user_password":           Bool("Whether RDS makes a new master password and keeps it in Secrets Manager."),
		"master_user_secret_kms_key_id":         String("KMS key of that secret."),
		"set_master_password": Bool("Whether the master user's password is set to the `password` of this storage's entry in the provider's `credentials`, whose `username` must be the master user's. " +
			"Verification reads with the same entry. Without it, and without `manage_master_user_password`, the copy has the source's password."),
		"snapshot_copy": Bool("Whether a snapshot is copied before it is restored (and the copy deleted afterwards). It is by itself, where AWS wants it so: another region, another key, or an encrypted snapshot of another account."),
	}
}
