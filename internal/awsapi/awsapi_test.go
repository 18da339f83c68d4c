package awsapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/hashicorp/terraform-plugin-log/tflogtest"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/awsapi/ststest"
)

const account = "123456789012"

// bare takes away whatever AWS settings this machine has.
func bare(t *testing.T) {
	t.Helper()
	for _, e := range os.Environ() {
		if name, _, _ := strings.Cut(e, "="); concernsAWS(name) {
			t.Setenv(name, "")
			_ = os.Unsetenv(name)
		}
	}
	t.Setenv("HOME", t.TempDir())
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("NO_PROXY", "127.0.0.1")
}

// profiles writes the shared files, and points at them by the environment.
func profiles(t *testing.T, config, credentials string) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"AWS_CONFIG_FILE": config, "AWS_SHARED_CREDENTIALS_FILE": credentials} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Setenv(name, path)
	}
}

func server(t *testing.T) *ststest.Server {
	s := ststest.Start(t, account)
	for name, key := range map[string]string{"block": "AKIABLOCK", "environment": "AKIAENV", "profile": "AKIAPROFILE", "other": "AKIAOTHER"} {
		s.User(name, key, "secret-of-"+name)
	}
	return s
}

// TestPrecedence: the block over the environment over the profile, one by one, for credentials and for the region.
func TestPrecedence(t *testing.T) {
	const config = "[default]\nregion = eu-profile-1\n[profile other]\nregion = eu-other-1\n"
	const credentials = "[default]\naws_access_key_id = AKIAPROFILE\naws_secret_access_key = secret-of-profile\n" +
		"[other]\naws_access_key_id = AKIAOTHER\naws_secret_access_key = secret-of-other\n"
	environment := map[string]string{"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": "secret-of-environment", "AWS_REGION": "eu-env-1"}
	for _, test := range []struct {
		name        string
		settings    Settings
		environment map[string]string
		who, region string
	}{
		{"all", Settings{AccessKey: "AKIABLOCK", SecretKey: "secret-of-block", Region: "eu-block-1"}, environment, "user/block", "eu-block-1"},
		{"block's keys", Settings{AccessKey: "AKIABLOCK", SecretKey: "secret-of-block"}, environment, "user/block", "eu-env-1"},
		{"block's region", Settings{Region: "eu-block-1"}, environment, "user/environment", "eu-block-1"},
		{"block's profile", Settings{Profile: "other"}, environment, "user/other", "eu-env-1"},
		{"environment", Settings{}, environment, "user/environment", "eu-env-1"},
		{"default region", Settings{}, map[string]string{"AWS_DEFAULT_REGION": "eu-default-1"}, "user/profile", "eu-default-1"},
		{"environment's profile", Settings{}, map[string]string{"AWS_PROFILE": "other"}, "user/other", "eu-other-1"},
		{"profile", Settings{}, nil, "user/profile", "eu-profile-1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			bare(t)
			profiles(t, config, credentials)
			s := server(t)
			for name, v := range test.environment {
				t.Setenv(name, v)
			}
			test.settings.Endpoints = map[string]string{"sts": s.URL}
			session, err := Open(t.Context(), test.settings)
			if err != nil {
				t.Fatal(err)
			}
			calls := s.Calls()
			last := calls[len(calls)-1]
			if who := s.Caller(last.AccessKey); !strings.HasSuffix(who, ":"+test.who) || last.Region != test.region || session.Region() != test.region {
				t.Errorf("STS was asked by %s in %s, the session is in %s; want %s in %s", who, last.Region, session.Region(), test.who, test.region)
			}
			if session.Account() != account || session.Partition() != "aws" {
				t.Errorf("the account is %s in %s", session.Account(), session.Partition())
			}
		})
	}
}

// TestSharedFiles: those of the block, instead of the environment's.
func TestSharedFiles(t *testing.T) {
	bare(t)
	profiles(t, "[default]\nregion = eu-env-1\n", "[default]\naws_access_key_id = AKIAENV\naws_secret_access_key = secret-of-environment\n")
	s := server(t)
	dir := t.TempDir()
	for name, content := range map[string]string{"config": "[profile mine]\nregion = eu-block-1\n", "credentials": "[mine]\naws_access_key_id = AKIABLOCK\naws_secret_access_key = secret-of-block\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	session, err := Open(t.Context(), Settings{Profile: "mine", SharedConfigFiles: []string{filepath.Join(dir, "config")}, SharedCredentialsFiles: []string{filepath.Join(dir, "credentials")},
		Endpoints: map[string]string{"sts": s.URL}})
	if err != nil {
		t.Fatal(err)
	}
	if who := s.Caller(s.Calls()[0].AccessKey); !strings.HasSuffix(who, ":user/block") || session.Region() != "eu-block-1" {
		t.Errorf("STS was asked by %s, the region is %s", who, session.Region())
	}
}

func credentialsOf(t *testing.T, s *Session) string {
	t.Helper()
	c, err := s.config.Credentials.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c.AccessKeyID
}

// TestAssumeRole: one role after the other, each with what it is given.
func TestAssumeRole(t *testing.T) {
	bare(t)
	s := server(t)
	first := s.Role("first", ststest.Role{ExternalID: "external-1", By: "arn:aws:iam::" + account + ":user/block"})
	second := s.Role("second", ststest.Role{By: "arn:aws:sts::" + account + ":assumed-role/first/hop"})
	settings := Settings{AccessKey: "AKIABLOCK", SecretKey: "secret-of-block", Region: "eu-west-1", Endpoints: map[string]string{"sts": s.URL},
		AssumeRole: []AssumeRole{{RoleARN: first, ExternalID: "external-1", SessionName: "hop"},
			{RoleARN: second, SessionName: "backup", Duration: time.Hour, Policy: `{"Version":"2012-10-17"}`, PolicyARNs: []string{"arn:aws:iam::aws:policy/ReadOnlyAccess"}, SourceIdentity: "me",
				Tags: map[string]string{"team": "db"}, TransitiveTagKeys: []string{"team"}}}}
	session, err := Open(t.Context(), settings)
	if err != nil {
		t.Fatal(err)
	}
	if who := s.Caller(credentialsOf(t, session)); who != "arn:aws:sts::"+account+":assumed-role/second/backup" {
		t.Errorf("the session is %s", who)
	}
	found := false
	for _, c := range s.Calls() {
		if c.Action != "AssumeRole" || c.Form.Get("RoleArn") != second {
			continue
		}
		found = true
		for name, want := range map[string]string{"DurationSeconds": "3600", "Policy": `{"Version":"2012-10-17"}`, "PolicyArns.member.1.arn": "arn:aws:iam::aws:policy/ReadOnlyAccess",
			"SourceIdentity": "me", "Tags.member.1.Key": "team", "Tags.member.1.Value": "db", "TransitiveTagKeys.member.1": "team"} {
			if got := c.Form.Get(name); got != want {
				t.Errorf("%s was %q, want %q", name, got, want)
			}
		}
	}
	if !found {
		t.Error("the second role was not assumed")
	}
	settings.AssumeRole[0].ExternalID = "another"
	if _, err := Open(t.Context(), settings); err == nil || !strings.Contains(err.Error(), first) || !strings.Contains(err.Error(), "AccessDenied") {
		t.Errorf("with a wrong external id: %v", err)
	}
}

// TestWebIdentity: a token in the block, a file in the block, and the environment's file, as Terraform Cloud's dynamic credentials give it.
func TestWebIdentity(t *testing.T) {
	const token = "a-token-of-an-identity-provider"
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, w := range map[string]*WebIdentity{"token": {Token: token}, "file": {TokenFile: file}, "environment": nil} {
		t.Run(name, func(t *testing.T) {
			bare(t)
			s := server(t)
			role := s.Role("web", ststest.Role{Token: token})
			if w == nil {
				t.Setenv("AWS_ROLE_ARN", role)
				t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", file)
			} else {
				w.RoleARN, w.SessionName = role, "web"
			}
			session, err := Open(t.Context(), Settings{Region: "eu-west-1", WebIdentity: w, Endpoints: map[string]string{"sts": s.URL}})
			if err != nil {
				t.Fatal(err)
			}
			if who := s.Caller(credentialsOf(t, session)); !strings.HasPrefix(who, "arn:aws:sts::"+account+":assumed-role/web/") {
				t.Errorf("the session is %s", who)
			}
		})
	}
}

// TestAccounts: another account than is allowed, and a secret that is not the key's, are refused.
func TestAccounts(t *testing.T) {
	bare(t)
	s := server(t)
	settings := Settings{AccessKey: "AKIABLOCK", SecretKey: "secret-of-block", Region: "eu-west-1", Endpoints: map[string]string{"sts": s.URL}}
	for name, change := range map[string]func(*Settings){
		"allowed":   func(s *Settings) { s.AllowedAccountIDs = []string{"210987654321"} },
		"forbidden": func(s *Settings) { s.ForbiddenAccountIDs = []string{account} },
		"secret":    func(s *Settings) { s.SecretKey = "secret-of-other" },
		"region":    func(s *Settings) { s.Region = "" },
	} {
		other := settings
		change(&other)
		if _, err := Open(t.Context(), other); err == nil || strings.Contains(err.Error(), "secret-of") {
			t.Errorf("%s: %v", name, err)
		}
	}
	settings.AllowedAccountIDs = []string{account}
	if _, err := Open(t.Context(), settings); err != nil {
		t.Error(err)
	}
	settings.AllowedAccountIDs, settings.SkipCredentialsCheck = nil, true
	before := len(s.Calls())
	if _, err := Open(t.Context(), settings); err != nil || len(s.Calls()) != before {
		t.Errorf("without the check: %v, after %d calls", err, len(s.Calls())-before)
	}
}

// TestEndpoints: the block's over the environment's, for every client.
func TestEndpoints(t *testing.T) {
	bare(t)
	for _, name := range []string{"RDS", "DYNAMODB", "S3", "STS", "APPLICATION_AUTO_SCALING"} {
		t.Setenv("AWS_ENDPOINT_URL_"+name, "http://environment.test")
	}
	settings := Settings{AccessKey: "AKIABLOCK", SecretKey: "secret-of-block", Region: "eu-west-1", SkipCredentialsCheck: true, S3UsePathStyle: true, Endpoints: map[string]string{}}
	endpoints := func() []string {
		s, err := Open(t.Context(), settings)
		if err != nil {
			t.Fatal(err)
		}
		if !s.S3("").Options().UsePathStyle {
			t.Error("s3_use_path_style has no effect")
		}
		return []string{*s.RDS("").Options().BaseEndpoint, *s.DynamoDB("").Options().BaseEndpoint, *s.AutoScaling("").Options().BaseEndpoint, *s.STS("").Options().BaseEndpoint, *s.S3("").Options().BaseEndpoint}
	}
	if got := endpoints(); slices.Contains(got, "") || len(slices.Compact(got)) != 1 || got[0] != "http://environment.test" {
		t.Errorf("by the environment: %q", got)
	}
	for _, name := range Services {
		settings.Endpoints[name] = "http://block.test"
	}
	if got := endpoints(); len(slices.Compact(got)) != 1 || got[0] != "http://block.test" {
		t.Errorf("by the block: %q", got)
	}
}

// TestRetries: the block over the environment over the default.
func TestRetries(t *testing.T) {
	bare(t)
	settings := Settings{AccessKey: "AKIABLOCK", SecretKey: "secret-of-block", Region: "eu-west-1", SkipCredentialsCheck: true}
	tries := func() int {
		s, err := Open(t.Context(), settings)
		if err != nil {
			t.Fatal(err)
		}
		return s.S3("").Options().Retryer.MaxAttempts()
	}
	adaptive := func() bool {
		s, err := Open(t.Context(), settings)
		if err != nil {
			t.Fatal(err)
		}
		_, is := s.config.Retryer().(*retry.AdaptiveMode)
		return is
	}
	if n := tries(); n != defaultRetries || adaptive() {
		t.Errorf("%d tries by default", n)
	}
	t.Setenv("AWS_RETRY_MODE", "adaptive")
	if !adaptive() {
		t.Error("AWS_RETRY_MODE has no effect")
	}
	settings.RetryMode = "standard"
	if adaptive() {
		t.Error("retry_mode does not win over AWS_RETRY_MODE")
	}
	t.Setenv("AWS_MAX_ATTEMPTS", "7")
	if n := tries(); n != 7 {
		t.Errorf("%d tries by the environment", n)
	}
	settings.MaxRetries = 3
	if n := tries(); n != 3 {
		t.Errorf("%d tries by the block", n)
	}
}

var secretive = Settings{AccessKey: "AKIABLOCK", SecretKey: "HUSH-secret-key", Token: "HUSH-token", Region: "eu-west-1", HTTPProxy: "http://user:HUSH-proxy@127.0.0.1:1",
	HTTPSProxy: "http://user:HUSH-proxy@127.0.0.1:1", WebIdentity: &WebIdentity{Token: "HUSH-web-token", RoleARN: "arn:aws:iam::123456789012:role/x"}}

// TestSecretsAreNotPrinted by any verb, as JSON, in errors, or in a log at its loudest.
func TestSecretsAreNotPrinted(t *testing.T) {
	bare(t)
	var log bytes.Buffer
	ctx := tflogtest.RootLogger(t.Context(), &log)
	session := &Session{settings: &secretive}
	values := []any{secretive, &secretive, session, *secretive.WebIdentity, secretive.WebIdentity, struct{ S Settings }{secretive}, struct{ s *Settings }{&secretive}, struct{ s *Session }{session}}
	var texts []string
	for _, v := range values {
		texts = append(texts, fmt.Sprintf("%v %+v %#v", v, v, v))
		data, err := json.Marshal(v)
		if err != nil {
			t.Errorf("%T: %v", v, err)
		}
		texts = append(texts, string(data))
	}
	bad := secretive
	bad.WebIdentity, bad.HTTPProxy = nil, "http://user:HUSH-proxy@bad host"
	for _, s := range []Settings{secretive, bad, {AccessKey: "AKIA", SecretKey: "HUSH-secret-key", Region: "eu-west-1", Endpoints: map[string]string{"sts": ststest.Start(t, account).URL}}} {
		s.MaxRetries = 1
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		_, err := Open(ctx, s)
		cancel()
		if err == nil {
			t.Error("settings that cannot work opened")
		}
		texts = append(texts, fmt.Sprint(err))
	}
	texts = append(texts, log.String())
	for _, text := range texts {
		if strings.Contains(text, "HUSH") {
			t.Errorf("a secret is in: %s", text)
		}
	}
}

// TestSeal: what is sealed comes out as it was, with what the environment says, and with paths that hold elsewhere.
func TestSeal(t *testing.T) {
	in := secretive
	in.AssumeRole = []AssumeRole{{RoleARN: "arn", Duration: time.Hour}}
	in.SharedConfigFiles, in.CustomCABundle = []string{"~/config", "/etc/config"}, "/etc/ca.pem"
	data, err := in.Seal([]string{"AWS_ROLE_ARN=x=y", "AWS_CONFIG_FILE=config", "HTTPS_PROXY=p", "https_proxy=q", "PGPASSWORD=not-of-aws", "PATH=/bin"})
	if err != nil {
		t.Fatal(err)
	}
	out, environment, err := Unseal(data)
	if err != nil || !reflect.DeepEqual(in, out) {
		t.Errorf("unsealed: %v", err)
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"AWS_ROLE_ARN": "x=y", "AWS_CONFIG_FILE": filepath.Join(dir, "config"), "HTTPS_PROXY": "p", "https_proxy": "q"}
	if !reflect.DeepEqual(environment, want) {
		t.Errorf("environment: %v", environment)
	}
	relative := Settings{SharedCredentialsFiles: []string{"c"}, CustomCABundle: "ca", WebIdentity: &WebIdentity{TokenFile: "t"}}
	if data, err = relative.Seal(nil); err != nil {
		t.Fatal(err)
	}
	if out, _, err = Unseal(data); err != nil || out.SharedCredentialsFiles[0] != filepath.Join(dir, "c") || out.CustomCABundle != filepath.Join(dir, "ca") || out.WebIdentity.TokenFile != filepath.Join(dir, "t") {
		t.Errorf("relative paths: %v", err)
	}
	if relative.WebIdentity.TokenFile != "t" {
		t.Error("Seal changed what it sealed")
	}
	if _, _, err := Unseal([]byte(`{"secret_key": HUSH}`)); err == nil || strings.Contains(err.Error(), "HUSH") {
		t.Errorf("Unseal of garbage: %v", err)
	}
}
