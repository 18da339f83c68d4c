package provider

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/terraform-plugin-log/tflogtest"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/awsapi"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/catalog/s3"
)

var errNoAccount = errors.New("there is no account in this test")

// s3Config is a provider block with a catalog in S3.
func s3Config() object {
	return with(providerConfig(), "catalog", object{"s3": object{"bucket": "the-bucket", "prefix": "p/q"}})
}

// spied are the dependencies of a system, and what they were asked for.
type spied struct {
	catalog CatalogSettings
	opens   int // of catalogs
	aws     awsapi.Settings
	opened  int
	err     error
}

func (s *system) spy(seen *spied) Dependencies {
	deps := s.deps()
	deps.OpenAWS = func(_ context.Context, a awsapi.Settings) (*awsapi.Session, error) {
		seen.aws = a
		seen.opened++
		return nil, errNoAccount
	}
	deps.OpenCatalog = func(c CatalogSettings, aws func(context.Context) (*awsapi.Session, error)) (engine.Catalog, error) {
		seen.catalog = c
		seen.opens++
		if c.S3 != nil {
			_, seen.err = aws(context.Background())
		}
		return s.catalog, nil
	}
	return deps
}

// TestAWSBlock: every argument arrives.
func TestAWSBlock(t *testing.T) {
	var seen spied
	config := with(s3Config(), "catalog.s3", object{"bucket": "the-bucket", "prefix": "p/q", "region": "eu-west-2", "kms_key_id": "alias/k", "object_lock": object{"mode": "COMPLIANCE", "retain_days": 30}})
	config["aws"] = object{
		"region": "eu-west-1", "profile": "prod", "access_key": "AKIA", "secret_key": "secret", "token": "token", "shared_config_files": []any{"a"}, "shared_credentials_files": []any{"b", "c"},
		"assume_role": object{"role_arn": "arn:2", "duration": "1h", "external_id": "x", "policy": "{}", "policy_arns": []any{"arn:p"}, "session_name": "s",
			"source_identity": "i", "tags": object{"k": "v"}, "transitive_tag_keys": []any{"k"}},
		"assume_role_with_web_identity": object{"role_arn": "arn:3", "duration": "2h", "policy": "{}", "policy_arns": []any{"arn:q"}, "session_name": "w", "web_identity_token": "jwt"},
		"allowed_account_ids":           []any{"1"}, "custom_ca_bundle": "/ca", "insecure": true, "http_proxy": "http://p", "https_proxy": "http://q", "no_proxy": "r", "max_retries": 5,
		"retry_mode": "adaptive", "use_dualstack_endpoint": true, "use_fips_endpoint": true, "s3_use_path_style": true, "skip_metadata_api_check": true, "skip_credentials_validation": true,
		"endpoints": object{"s3": "http://s3", "sts": "http://sts", "rds": "http://rds", "dynamodb": "http://ddb", "iam": "http://iam", "sso": "http://sso", "applicationautoscaling": "http://aas"},
	}
	if _, diags := newCore(t, newSystem(t).spy(&seen), config); len(diags) > 0 {
		t.Fatalf("configuring: %s: %s", diags[0].Summary, diags[0].Detail)
	}
	want := awsapi.Settings{
		Region: "eu-west-1", Profile: "prod", AccessKey: "AKIA", SecretKey: "secret", Token: "token", SharedConfigFiles: []string{"a"}, SharedCredentialsFiles: []string{"b", "c"},
		AssumeRole: []awsapi.AssumeRole{{RoleARN: "arn:2", Duration: time.Hour, ExternalID: "x", Policy: "{}", PolicyARNs: []string{"arn:p"}, SessionName: "s", SourceIdentity: "i",
			Tags: map[string]string{"k": "v"}, TransitiveTagKeys: []string{"k"}}},
		WebIdentity:       &awsapi.WebIdentity{RoleARN: "arn:3", Duration: 2 * time.Hour, Policy: "{}", PolicyARNs: []string{"arn:q"}, SessionName: "w", Token: "jwt"},
		AllowedAccountIDs: []string{"1"}, CustomCABundle: "/ca", Insecure: true, HTTPProxy: "http://p", HTTPSProxy: "http://q", NoProxy: "r", MaxRetries: 5, RetryMode: "adaptive",
		UseDualstackEndpoint: true, UseFIPSEndpoint: true, S3UsePathStyle: true, SkipMetadataAPICheck: true, SkipCredentialsCheck: true,
		Endpoints: map[string]string{"s3": "http://s3", "sts": "http://sts", "rds": "http://rds", "dynamodb": "http://ddb", "iam": "http://iam", "sso": "http://sso", "applicationautoscaling": "http://aas"},
	}
	if got, wanted := reflect.ValueOf(seen.aws), reflect.ValueOf(want); !reflect.DeepEqual(seen.aws, want) {
		for i := range got.NumField() {
			if !reflect.DeepEqual(got.Field(i).Interface(), wanted.Field(i).Interface()) {
				t.Errorf("%s is wrong", got.Type().Field(i).Name)
			}
		}
	}
	wantCatalog := s3.Settings{Bucket: "the-bucket", Prefix: "p/q", Region: "eu-west-2", KMSKeyID: "alias/k", Lock: &s3.ObjectLock{Mode: "COMPLIANCE", RetainDays: 30}}
	if seen.catalog.S3 == nil || !reflect.DeepEqual(*seen.catalog.S3, wantCatalog) || seen.catalog.Default || seen.catalog.Directory != "" {
		t.Errorf("the catalog is %+v in %+v", seen.catalog.S3, seen.catalog)
	}
	// Every field of the settings was set above, so that none is forgotten when one is added.
	for i, v := 0, reflect.ValueOf(seen.aws); i < v.NumField(); i++ {
		if name := v.Type().Field(i).Name; v.Field(i).IsZero() && name != "ForbiddenAccountIDs" {
			t.Errorf("%s has no argument, or this test does not set it", name)
		}
	}
}

// TestAWSIsAskedLate: an account is opened when something needs it, and without `aws` as the environment says.
func TestAWSIsAskedLate(t *testing.T) {
	var seen spied
	newCore(t, newSystem(t).spy(&seen), providerConfig())
	if seen.opened != 0 || seen.catalog.Directory != "/catalog" || seen.catalog.S3 != nil {
		t.Errorf("a catalog in a directory: %+v, after %d accounts", seen.catalog, seen.opened)
	}
	newCore(t, newSystem(t).spy(&seen), s3Config())
	if seen.opened != 1 || !errors.Is(seen.err, errNoAccount) || !reflect.DeepEqual(seen.aws, awsapi.Settings{}) {
		t.Errorf("a catalog in S3 without aws: %d accounts, %v", seen.opened, seen.err)
	}
}

// TestUnknownAWS: values of the block that are not known yet keep nobody from planning.
func TestUnknownAWS(t *testing.T) {
	for name, config := range map[string]object{
		"aws":              with(s3Config(), "aws", unknown),
		"region":           with(s3Config(), "aws", object{"region": unknown}),
		"secret":           with(s3Config(), "aws", object{"access_key": "AKIA", "secret_key": unknown}),
		"role":             with(s3Config(), "aws", object{"assume_role": object{"role_arn": unknown}}),
		"roles":            with(s3Config(), "aws", object{"assume_role": unknown}),
		"token":            with(s3Config(), "aws", object{"assume_role_with_web_identity": object{"role_arn": "arn", "web_identity_token": unknown}}),
		"web identity":     with(s3Config(), "aws", object{"assume_role_with_web_identity": unknown}),
		"endpoint":         with(s3Config(), "aws", object{"endpoints": object{"s3": unknown}}),
		"accounts":         with(s3Config(), "aws", object{"allowed_account_ids": []any{unknown}}),
		"bucket":           with(s3Config(), "catalog.s3.bucket", unknown),
		"s3":               with(s3Config(), "catalog.s3", unknown),
		"directory and s3": with(providerConfig(), "catalog", object{"directory": unknown, "s3": object{"bucket": "the-bucket"}}),
		"retention":        with(s3Config(), "catalog.s3.object_lock", object{"mode": "GOVERNANCE", "retain_days": unknown}),
	} {
		var seen spied
		c, diags := newCore(t, newSystem(t).spy(&seen), config)
		if len(diags) > 0 || seen.opened > 0 || seen.opens > 0 {
			t.Errorf("%s: %d accounts and %d catalogs opened, %v", name, seen.opened, seen.opens, diagnostics(diags).errors())
			continue
		}
		p := c.manage("scalardb_consistent_backup").plan(backupConfig())
		wantNoErrors(t, name, p.diags)
		wantAction(t, p, "create")
	}
}

// TestAWSValidation: what can be refused is refused at the argument.
func TestAWSValidation(t *testing.T) {
	for name, test := range map[string]struct {
		config object
		want   string
	}{
		"no place":           {with(providerConfig(), "catalog", object{}), "exactly one of directory and s3"},
		"two places":         {with(s3Config(), "catalog.directory", "/c"), "exactly one of directory and s3"},
		"bucket":             {with(s3Config(), "catalog.s3.bucket", "No Bucket"), "bucket: "},
		"prefix":             {with(s3Config(), "catalog.s3.prefix", "/p"), "prefix: "},
		"empty prefix":       {with(s3Config(), "catalog.s3.prefix", ""), `"prefix"`},
		"mode":               {with(s3Config(), "catalog.s3.object_lock", object{"mode": "governance", "retain_days": 1}), `"mode"`},
		"days":               {with(s3Config(), "catalog.s3.object_lock", object{"mode": "GOVERNANCE", "retain_days": 0}), `"retain_days"`},
		"half the keys":      {with(s3Config(), "aws", object{"access_key": "AKIA"}), "belong together"},
		"empty region":       {with(s3Config(), "aws", object{"region": ""}), `"region"`},
		"short session":      {with(s3Config(), "aws", object{"assume_role": object{"role_arn": "a", "duration": "1m"}}), `"duration"`},
		"no session":         {with(s3Config(), "aws", object{"assume_role": object{"role_arn": "a", "duration": "soon"}}), `"duration"`},
		"no role":            {with(s3Config(), "aws", object{"assume_role": object{}}), `"assume_role"`},
		"no token":           {with(s3Config(), "aws", object{"assume_role_with_web_identity": object{"role_arn": "a"}}), "exactly one of web_identity_token"},
		"two tokens":         {with(s3Config(), "aws", object{"assume_role_with_web_identity": object{"role_arn": "a", "web_identity_token": "t", "web_identity_token_file": "f"}}), `"web_identity_token"`},
		"two account lists":  {with(s3Config(), "aws", object{"allowed_account_ids": []any{"1"}, "forbidden_account_ids": []any{"2"}}), `"allowed_account_ids"`},
		"retries":            {with(s3Config(), "aws", object{"max_retries": 0}), `"max_retries"`},
		"retry mode":         {with(s3Config(), "aws", object{"retry_mode": "never"}), `"retry_mode"`},
		"endpoint of spaces": {with(s3Config(), "aws", object{"endpoints": object{"s3": ""}}), `"s3"`},
	} {
		var seen spied
		_, diags := newCore(t, newSystem(t).spy(&seen), test.config)
		if d := diagnostics(diags); len(d.errors()) == 0 || !d.has(test.want) {
			t.Errorf("%s: want %s, got %v", name, test.want, d.errors())
		}
	}
}

// TestUnpauseCommandOfS3 names the bucket and how it is reached, and no secret.
func TestUnpauseCommandOfS3(t *testing.T) {
	d := &data{catalogSettings: CatalogSettings{S3: &s3.Settings{Bucket: "b", Prefix: "it's"}, AWS: &awsapi.Settings{Region: "eu-west-1", Profile: "prod", AccessKey: "AKIA", SecretKey: "HUSH", Token: "HUSH",
		AssumeRole: []awsapi.AssumeRole{{RoleARN: "arn:aws:iam::1:role/r", ExternalID: "x"}}, S3UsePathStyle: true, Endpoints: map[string]string{"s3": "http://127.0.0.1:9", "sts": "http://x"}}}}
	want := `terraform-provider-scalardb unpause --catalog 's3://b/it'\''s' --region eu-west-1 --profile prod --role-arn arn:aws:iam::1:role/r --endpoint http://127.0.0.1:9 --path-style --run 0123456789abcdef`
	if got := d.unpauseCommand("0123456789abcdef", nil); got != want {
		t.Errorf("the command is\n%s, want\n%s", got, want)
	}
	d.catalogSettings.S3.Region = "eu-west-2"
	if got := d.unpauseCommand("0123456789abcdef", nil); !strings.Contains(got, "--region eu-west-2") {
		t.Errorf("the bucket's region is not in %s", got)
	}
}

// TestAWSSecretsAreNotPrinted: not by the structures that hold them, nor in the log of a run, nor in what Configure says.
func TestAWSSecretsAreNotPrinted(t *testing.T) {
	var log bytes.Buffer
	ctx := tflogtest.RootLogger(t.Context(), &log)
	config := with(s3Config(), "aws", object{"region": "eu-west-1", "access_key": "AKIA", "secret_key": "HUSH", "token": "HUSH", "https_proxy": "http://u:HUSH@p",
		"assume_role_with_web_identity": object{"role_arn": "arn", "web_identity_token": "HUSH"}})
	var seen spied
	c, diags := newCore(t, newSystem(t).spy(&seen), config)
	texts := []string{fmt.Sprint(diagnostics(diags).errors())}
	i := c.manage("scalardb_consistent_backup")
	i.applyContext(ctx, i.plan(backupConfig()))
	d := &data{awsSettings: &seen.aws, catalogSettings: seen.catalog}
	for _, v := range []any{seen.catalog, &seen.catalog, d, seen.catalog.S3} {
		texts = append(texts, fmt.Sprintf("%v %+v %#v", v, v, v))
	}
	texts = append(texts, log.String(), d.unpauseCommand("0123456789abcdef", nil))
	if i := slices.IndexFunc(texts, func(s string) bool { return strings.Contains(s, "HUSH") }); i >= 0 {
		t.Errorf("a secret is in: %s", texts[i])
	}
	if !strings.Contains(log.String(), "phase") {
		t.Errorf("the log of the run is not here: %s", log.String())
	}
	if !strings.Contains(seen.aws.SecretKey, "HUSH") {
		t.Error("the settings did not arrive")
	}
}
