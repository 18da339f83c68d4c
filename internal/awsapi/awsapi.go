// Package awsapi opens AWS's APIs by the arguments, environment variables and shared files that HashiCorp's AWS provider knows, so that
// whatever credentials work there work here: static ones, profiles, SSO, assumed roles, web identity, instance and container roles.
// Retries and throttling are the SDK's, set in one place.
package awsapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/applicationautoscaling"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	awsbase "github.com/hashicorp/aws-sdk-go-base/v2"
	basediag "github.com/hashicorp/aws-sdk-go-base/v2/diag"
)

// Services are the keys of Settings.Endpoints.
var Services = []string{"applicationautoscaling", "dynamodb", "iam", "rds", "s3", "sso", "sts"}

// Settings are the provider's `aws`. They hold secrets: no verb and no JSON prints them, and Seal is for a pipe only. (Where one is an unexported field,
// it should be a pointer: package fmt looks into those without asking String.)
type Settings struct {
	Region                 string            `json:"region,omitempty"`
	Profile                string            `json:"profile,omitempty"`
	AccessKey              string            `json:"access_key,omitempty"`
	SecretKey              string            `json:"secret_key,omitempty"`
	Token                  string            `json:"token,omitempty"`
	SharedConfigFiles      []string          `json:"shared_config_files,omitempty"`
	SharedCredentialsFiles []string          `json:"shared_credentials_files,omitempty"`
	AssumeRole             []AssumeRole      `json:"assume_role,omitempty"`
	WebIdentity            *WebIdentity      `json:"assume_role_with_web_identity,omitempty"`
	AllowedAccountIDs      []string          `json:"allowed_account_ids,omitempty"`
	ForbiddenAccountIDs    []string          `json:"forbidden_account_ids,omitempty"`
	CustomCABundle         string            `json:"custom_ca_bundle,omitempty"` // path of a PEM file
	Insecure               bool              `json:"insecure,omitempty"`
	HTTPProxy              string            `json:"http_proxy,omitempty"`
	HTTPSProxy             string            `json:"https_proxy,omitempty"`
	NoProxy                string            `json:"no_proxy,omitempty"`
	MaxRetries             int               `json:"max_retries,omitempty"` // zero: AWS_MAX_ATTEMPTS, or the profile's, or defaultRetries
	RetryMode              string            `json:"retry_mode,omitempty"`  // "standard" or "adaptive"; empty: AWS_RETRY_MODE, or the profile's, or standard
	UseDualstackEndpoint   bool              `json:"use_dualstack_endpoint,omitempty"`
	UseFIPSEndpoint        bool              `json:"use_fips_endpoint,omitempty"`
	S3UsePathStyle         bool              `json:"s3_use_path_style,omitempty"`
	SkipMetadataAPICheck   bool              `json:"skip_metadata_api_check,omitempty"`
	SkipCredentialsCheck   bool              `json:"skip_credentials_validation,omitempty"`
	Endpoints              map[string]string `json:"endpoints,omitempty"` // by the names of Services
}

// AssumeRole is one role to assume, after those before it in the list.
type AssumeRole struct {
	RoleARN           string            `json:"role_arn"`
	Duration          time.Duration     `json:"duration,omitempty"`
	ExternalID        string            `json:"external_id,omitempty"`
	Policy            string            `json:"policy,omitempty"`
	PolicyARNs        []string          `json:"policy_arns,omitempty"`
	SessionName       string            `json:"session_name,omitempty"`
	SourceIdentity    string            `json:"source_identity,omitempty"`
	Tags              map[string]string `json:"tags,omitempty"`
	TransitiveTagKeys []string          `json:"transitive_tag_keys,omitempty"`
}

// WebIdentity is a role to assume by a token (OIDC), such as Terraform Cloud's dynamic credentials.
type WebIdentity struct {
	RoleARN     string        `json:"role_arn"`
	Duration    time.Duration `json:"duration,omitempty"`
	Policy      string        `json:"policy,omitempty"`
	PolicyARNs  []string      `json:"policy_arns,omitempty"`
	SessionName string        `json:"session_name,omitempty"`
	Token       string        `json:"web_identity_token,omitempty"`
	TokenFile   string        `json:"web_identity_token_file,omitempty"`
}

// Throttled calls are tried again with the SDK's exponential delays: 25 tries last about seven minutes. The AWS provider has the same number.
const (
	defaultRetries = 25
	maxBackoff     = 20 * time.Second
	// callTimeout ends one try: no API call used here streams, but S3's, which have limits of their own.
	callTimeout = time.Minute
)

// Session is one account as the settings reach it. It opens clients for any region.
type Session struct {
	config    aws.Config
	settings  *Settings
	account   string
	partition string
	region    string

	mu      sync.Mutex
	clients map[string]any // by service and region
}

// Open resolves credentials and region and asks STS whose they are.
func Open(ctx context.Context, s Settings) (*Session, error) {
	base := s.base()
	_, config, diags := awsbase.GetAwsConfig(ctx, base)
	if err := s.errorOf(diags); err != nil {
		return nil, fmt.Errorf("configuring AWS: %w", err)
	}
	if config.Region == "" {
		return nil, errors.New("configuring AWS: there is no region: set region in the provider's aws, AWS_REGION, or one in the profile")
	}
	// What the settings leave open, the environment and the profile may say. (The number of tries, clients take from the config.)
	if s.RetryMode == "" {
		s.RetryMode = string(config.RetryMode)
	}
	config.Retryer = s.retryer()
	account, partition, diags := awsbase.GetAwsAccountIDAndPartition(ctx, config, base)
	if err := s.errorOf(diags); err != nil {
		return nil, fmt.Errorf("asking AWS whose the credentials are: %w", err)
	}
	if err := base.VerifyAccountIDAllowed(account); err != nil {
		return nil, fmt.Errorf("configuring AWS: %w", err)
	}
	return &Session{config: config, settings: &s, account: account, partition: partition, region: config.Region, clients: map[string]any{}}, nil
}

func (s Settings) base() *awsbase.Config {
	c := &awsbase.Config{
		Region: s.Region, Profile: s.Profile, AccessKey: s.AccessKey, SecretKey: s.SecretKey, Token: s.Token,
		SharedConfigFiles: s.SharedConfigFiles, SharedCredentialsFiles: s.SharedCredentialsFiles,
		AllowedAccountIds: s.AllowedAccountIDs, ForbiddenAccountIds: s.ForbiddenAccountIDs,
		CustomCABundle: s.CustomCABundle, Insecure: s.Insecure, NoProxy: s.NoProxy, HTTPProxyMode: awsbase.HTTPProxyModeSeparate,
		MaxRetries: s.MaxRetries, MaxBackoff: maxBackoff, RetryMode: aws.RetryMode(s.RetryMode),
		UseDualStackEndpoint: s.UseDualstackEndpoint, UseFIPSEndpoint: s.UseFIPSEndpoint,
		StsEndpoint: s.Endpoints["sts"], IamEndpoint: s.Endpoints["iam"], SsoEndpoint: s.Endpoints["sso"],
		SkipCredsValidation: s.SkipCredentialsCheck, SkipRequestingAccountId: s.SkipCredentialsCheck,
		SuppressDebugLog: true, // requests hold passwords (ModifyDBInstance)
		CallerName:       "terraform-provider-scalardb", CallerDocumentationURL: "https://registry.terraform.io/providers/scalar-labs/scalardb/latest/docs",
	}
	if s.HTTPProxy != "" {
		c.HTTPProxy = &s.HTTPProxy
	}
	if s.HTTPSProxy != "" {
		c.HTTPSProxy = &s.HTTPSProxy
	}
	if s.SkipMetadataAPICheck {
		c.EC2MetadataServiceEnableState = imds.ClientDisabled
	}
	for _, r := range s.AssumeRole {
		c.AssumeRole = append(c.AssumeRole, awsbase.AssumeRole{RoleARN: r.RoleARN, Duration: r.Duration, ExternalID: r.ExternalID, Policy: r.Policy,
			PolicyARNs: r.PolicyARNs, SessionName: r.SessionName, SourceIdentity: r.SourceIdentity, Tags: r.Tags, TransitiveTagKeys: r.TransitiveTagKeys})
	}
	if w := s.WebIdentity; w != nil {
		c.AssumeRoleWithWebIdentity = &awsbase.AssumeRoleWithWebIdentity{RoleARN: w.RoleARN, Duration: w.Duration, Policy: w.Policy, PolicyARNs: w.PolicyARNs,
			SessionName: w.SessionName, WebIdentityToken: w.Token, WebIdentityTokenFile: w.TokenFile}
	}
	return c
}

func (s Settings) tries() int {
	if s.MaxRetries > 0 {
		return s.MaxRetries
	}
	return defaultRetries
}

// retryer tries throttled and failed calls again, without the SDK's token bucket: hundreds of tables restored at once would empty it.
func (s Settings) retryer() func() aws.Retryer {
	return func() aws.Retryer {
		standard := func(o *retry.StandardOptions) {
			o.MaxAttempts, o.MaxBackoff, o.RateLimiter = s.tries(), maxBackoff, unlimited{}
		}
		if aws.RetryMode(s.RetryMode) == aws.RetryModeAdaptive {
			return retry.NewAdaptiveMode(func(o *retry.AdaptiveModeOptions) { o.StandardOptions = append(o.StandardOptions, standard) })
		}
		return retry.NewStandard(standard)
	}
}

// unlimited is a retry.RateLimiter that lets every retry happen.
type unlimited struct{}

func (unlimited) GetToken(context.Context, uint) (func() error, error) {
	return func() error { return nil }, nil
}
func (unlimited) AddTokens(uint) error { return nil }

// Account is the number of the account.
func (s *Session) Account() string { return s.account }

// Partition is "aws", "aws-cn", …
func (s *Session) Partition() string { return s.partition }

// Region is the default region.
func (s *Session) Region() string { return s.region }

// client makes one client for each service and region. build gets the settings' endpoint for the service, or nil: it must set it as an option, since the
// SDK lets AWS_ENDPOINT_URL_… win over the endpoint of a config.
func client[C any](s *Session, service, region string, build func(c aws.Config, endpoint *string) C) C {
	if region == "" {
		region = s.region
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key := service + " " + region
	if c, ok := s.clients[key].(C); ok {
		return c
	}
	config := s.config.Copy()
	config.Region = region
	var endpoint *string
	if e := s.settings.Endpoints[service]; e != "" {
		endpoint = &e
	}
	c := build(config, endpoint)
	s.clients[key] = c
	return c
}

// over is the endpoint to use: the settings', or what the SDK found.
func over(settings, found *string) *string {
	if settings != nil {
		return settings
	}
	return found
}

// bounded ends every try of a call. What is only presigned (a copy from another region) makes no try.
func bounded(stack *middleware.Stack) error {
	if _, tries := stack.Finalize.Get("Retry"); !tries {
		return nil
	}
	return stack.Finalize.Insert(middleware.FinalizeMiddlewareFunc("CallTimeout", func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		return next.HandleFinalize(ctx, in)
	}), "Retry", middleware.After)
}

// RDS is the RDS API of a region; the default region's when region is empty.
func (s *Session) RDS(region string) *rds.Client {
	return client(s, "rds", region, func(c aws.Config, e *string) *rds.Client {
		return rds.NewFromConfig(c, rds.WithAPIOptions(bounded), func(o *rds.Options) { o.BaseEndpoint = over(e, o.BaseEndpoint) })
	})
}

// DynamoDB is the DynamoDB API of a region.
func (s *Session) DynamoDB(region string) *dynamodb.Client {
	return client(s, "dynamodb", region, func(c aws.Config, e *string) *dynamodb.Client {
		return dynamodb.NewFromConfig(c, dynamodb.WithAPIOptions(bounded), func(o *dynamodb.Options) { o.BaseEndpoint = over(e, o.BaseEndpoint) })
	})
}

// AutoScaling is the Application Auto Scaling API of a region.
func (s *Session) AutoScaling(region string) *applicationautoscaling.Client {
	return client(s, "applicationautoscaling", region, func(c aws.Config, e *string) *applicationautoscaling.Client {
		return applicationautoscaling.NewFromConfig(c, applicationautoscaling.WithAPIOptions(bounded),
			func(o *applicationautoscaling.Options) { o.BaseEndpoint = over(e, o.BaseEndpoint) })
	})
}

// STS is the STS API of a region.
func (s *Session) STS(region string) *sts.Client {
	return client(s, "sts", region, func(c aws.Config, e *string) *sts.Client {
		return sts.NewFromConfig(c, sts.WithAPIOptions(bounded), func(o *sts.Options) { o.BaseEndpoint = over(e, o.BaseEndpoint) })
	})
}

// S3 is the S3 API of a region. Its calls stream: who makes them bounds them.
func (s *Session) S3(region string) *s3.Client {
	return client(s, "s3", region, func(c aws.Config, e *string) *s3.Client {
		return s3.NewFromConfig(c, func(o *s3.Options) {
			o.BaseEndpoint = over(e, o.BaseEndpoint)
			o.UsePathStyle = s.settings.S3UsePathStyle
			o.DisableLogOutputChecksumValidationSkipped = true // of uploads in parts, which have no checksum of the whole
		})
	})
}

// Date is the Date header of the answer that a call's metadata describe; zero where there is none.
func Date(m middleware.Metadata) time.Time {
	r, ok := awsmiddleware.GetRawResponse(m).(*smithyhttp.Response)
	if !ok || r == nil {
		return time.Time{}
	}
	at, err := http.ParseTime(r.Header.Get("Date"))
	if err != nil {
		return time.Time{}
	}
	return at
}

func (s Settings) errorOf(diags basediag.Diagnostics) error {
	var errs []error
	for _, d := range diags {
		if d.Severity() == basediag.SeverityError {
			errs = append(errs, errors.New(s.redact(d.Summary()+": "+d.Detail())))
		}
	}
	return errors.Join(errs...)
}
