package rdsserver

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/awsapi"
)

// refused checks the code of an error.
func refused(t *testing.T, what string, err error, code string, says ...string) {
	t.Helper()
	var api smithy.APIError
	if !errors.As(err, &api) {
		t.Errorf("%s: got %v, want the code %s", what, err, code)
		return
	}
	if api.ErrorCode() != code {
		t.Errorf("%s: got the code %s (%s), want %s", what, api.ErrorCode(), api.ErrorMessage(), code)
	}
	for _, s := range says {
		if !strings.Contains(api.ErrorMessage(), s) {
			t.Errorf("%s: %q does not say %q", what, api.ErrorMessage(), s)
		}
	}
}

func quick(o *rds.Options) {
	o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts, o.Backoff = 20, retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return time.Millisecond, nil })
		o.RateLimiter = unlimited{}
	})
}

func once(o *rds.Options) { o.Retryer = aws.NopRetryer{} }

type unlimited struct{}

func (unlimited) GetToken(context.Context, uint) (func() error, error) {
	return func() error { return nil }, nil
}
func (unlimited) AddTokens(uint) error { return nil }

// What is no call of this API is refused.
func TestProtocol(t *testing.T) {
	s, ctx := Start(t, Options{}), t.Context()
	_, err := s.RDS().StopDBInstance(ctx, &rds.StopDBInstanceInput{DBInstanceIdentifier: new("a")}, once)
	refused(t, "an unknown action", err, "InvalidAction")
	_, err = s.RDS().RestoreDBInstanceToPointInTime(ctx, &rds.RestoreDBInstanceToPointInTimeInput{TargetDBInstanceIdentifier: new("a"),
		SourceDBInstanceIdentifier: new("b"),
		UseLatestRestorableTime:    new(true), Domain: new("d-1")}, once)
	refused(t, "a parameter without a model", err, "InvalidParameterCombination", "Domain")
	_, err = s.RDS().DescribeDBInstances(ctx, &rds.DescribeDBInstancesInput{Filters: []types.Filter{{Name: new("colour"), Values: []string{"red"}}}}, once)
	refused(t, "an unknown filter", err, "InvalidParameterValue", "colour")
	_, err = s.RDS().DescribeDBInstances(ctx, &rds.DescribeDBInstancesInput{MaxRecords: new(int32(5))}, once)
	refused(t, "a page of five", err, "InvalidParameterValue")
	_, err = rds.NewFromConfig(s.Config("AKIAUNKNOWN", "")).DescribeDBInstances(ctx, nil, once)
	refused(t, "an unknown access key", err, "InvalidClientTokenId")

	post := func(form url.Values) string {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL, strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Authorization",
			"AWS4-HMAC-SHA256 Credential="+AccessKey+"/20260101/us-east-1/rds/aws4_request, SignedHeaders=host, Signature="+strings.Repeat("0", 64))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close() //nolint:errcheck // nothing to lose
		calls := s.Calls()
		return calls[len(calls)-1].Code
	}
	for what, c := range map[string]struct {
		form url.Values
		want string
	}{
		"an unknown parameter":  {url.Values{"Action": {"DescribeDBInstances"}, "Colour": {"red"}}, "InvalidParameterValue"},
		"a missing parameter":   {url.Values{"Action": {"DeleteDBInstance"}}, "MissingParameter"},
		"a list with a hole":    {url.Values{"Action": {"AddTagsToResource"}, "ResourceName": {"x"}, "Tags.Tag.2.Key": {"a"}}, "MalformedQueryString"},
		"a list of wrong items": {url.Values{"Action": {"AddTagsToResource"}, "ResourceName": {"x"}, "Tags.member.1.Key": {"a"}}, "MalformedQueryString"},
		"a number that is none": {url.Values{"Action": {"DescribeDBInstances"}, "MaxRecords": {"many"}}, "InvalidParameterValue"},
	} {
		c.form.Set("Version", rdsVersion)
		if got := post(c.form); got != c.want {
			t.Errorf("%s: got %q, want %s", what, got, c.want)
		}
	}
}

// An assumed role is another account's.
func TestSTS(t *testing.T) {
	s, ctx := Start(t, Options{}), t.Context()
	who, err := s.STS().GetCallerIdentity(ctx, nil)
	if err != nil || *who.Account != Account {
		t.Fatalf("asking who we are: %v, %v", who, err)
	}
	in := &sts.AssumeRoleInput{RoleArn: new("arn:aws:iam::210987654321:role/clone"), RoleSessionName: new("test")}
	_, err = s.STS().AssumeRole(ctx, in)
	refused(t, "a role that there is not", err, "AccessDenied")
	s.AddRole(*in.RoleArn)
	out, err := s.STS().AssumeRole(ctx, in)
	if err != nil {
		t.Fatal(err)
	}
	c := s.Config("", "")
	c.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: *out.Credentials.AccessKeyId, SecretAccessKey: *out.Credentials.SecretAccessKey,
			SessionToken: *out.Credentials.SessionToken}, nil
	})
	if who, err = sts.NewFromConfig(c).GetCallerIdentity(ctx, nil); err != nil || *who.Account != "210987654321" {
		t.Errorf("asking who the role is: %v, %v", who, err)
	}
}

// The product's own sessions open.
func TestSession(t *testing.T) {
	s := Start(t, Options{})
	session, err := awsapi.Open(t.Context(), awsapi.Settings{Region: Region, AccessKey: AccessKey, SecretKey: "anything", SkipMetadataAPICheck: true,
		Endpoints: map[string]string{"rds": s.URL, "sts": s.URL}})
	if err != nil {
		t.Fatal(err)
	}
	if session.Account() != Account {
		t.Errorf("the account is %s", session.Account())
	}
	out, err := session.RDS("").DescribeAccountAttributes(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if age := time.Since(awsapi.Date(out.ResultMetadata)); len(out.AccountQuotas) != 4 || age < 0 || age > time.Minute {
		t.Errorf("there are %d quotas, as of %s ago", len(out.AccountQuotas), age)
	}
}

// What can be ordered is asked for by engine and class.
func TestOrderable(t *testing.T) {
	s, ctx := Start(t, Options{}), t.Context()
	out, err := s.RDS().DescribeOrderableDBInstanceOptions(ctx, &rds.DescribeOrderableDBInstanceOptionsInput{Engine: new("postgres"),
		DBInstanceClass: new("db.m6g.large")})
	if err != nil || len(out.OrderableDBInstanceOptions) != 1 {
		t.Errorf("got %v (%v): want one option", out, err)
	}
	_, err = s.RDS().DescribeOrderableDBInstanceOptions(ctx, &rds.DescribeOrderableDBInstanceOptionsInput{Engine: new("none")})
	refused(t, "an engine that there is not", err, "InvalidParameterValue")
}

// The SDK's own retries get through throttling and failures; what was injected befalls exactly the calls it is for.
func TestFaults(t *testing.T) {
	s, ctx := Start(t, Options{}), t.Context()
	client := rds.NewFromConfig(s.Config("", ""), quick)
	s.SetRates(Rates{Throttle: 0.3, Error: 0.1, Lost: 0.1})
	for range 40 {
		if _, err := client.DescribeDBSubnetGroups(ctx, nil); err != nil {
			t.Fatalf("asking under faults: %v", err)
		}
	}
	codes := map[string]int{}
	for _, c := range s.Calls() {
		if c.Status == 0 {
			codes["lost"]++
		} else {
			codes[c.Code]++
		}
	}
	if codes["Throttling"] == 0 || codes["InternalFailure"] == 0 || codes["lost"] == 0 || codes[""] != 40 {
		t.Errorf("the calls were answered with %v: want 40 successes, and some of each fault", codes)
	}
	s.SetRates(Rates{PerSecond: 3})
	var limited bool
	for range 5 {
		_, err := s.RDS().DescribeDBSubnetGroups(ctx, nil, once)
		var api smithy.APIError
		limited = limited || errors.As(err, &api) && api.ErrorCode() == "RequestLimitExceeded"
	}
	if !limited {
		t.Error("five calls at once were answered, with a limit of three a second")
	}
	s.SetRates(Rates{})
	s.Inject("DescribeDBSubnetGroups", Fault{Code: "ServiceUnavailable", Status: 503}, Fault{Lost: true})
	_, err := s.RDS().DescribeDBSubnetGroups(ctx, nil, once)
	refused(t, "an injected fault", err, "ServiceUnavailable")
	if _, err = s.RDS().DescribeDBSubnetGroups(ctx, nil, once); err == nil {
		t.Error("an answer that is to be lost came")
	}
	if _, err = s.RDS().DescribeDBSubnetGroups(ctx, nil, once); err != nil {
		t.Errorf("after the faults: %v", err)
	}
	s.Deny("DescribeDBSubnetGroups")
	_, err = s.RDS().DescribeDBSubnetGroups(ctx, nil, once)
	refused(t, "what is denied", err, "AccessDenied")
}

// The Date header goes by the service's clock.
func TestDate(t *testing.T) {
	s := Start(t, Options{})
	s.SetClockOffset(-time.Hour)
	out, err := s.RDS().DescribeAccountAttributes(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	r, ok := middleware.GetRawResponse(out.ResultMetadata).(*smithyhttp.Response)
	if !ok {
		t.Fatal("there is no answer")
	}
	at, err := http.ParseTime(r.Header.Get("Date"))
	if err != nil || time.Since(at).Abs() < 59*time.Minute || time.Since(at) > 61*time.Minute {
		t.Errorf("the Date header is %q (%v): want an hour ago", r.Header.Get("Date"), err)
	}
}

// A list that is longer than a page goes on at the marker.
func TestPages(t *testing.T) {
	s := Start(t, Options{PageSize: 2})
	for _, n := range []string{"a", "b", "c", "d"} {
		s.AddSubnetGroup(n, "vpc-1")
	}
	var names []string
	p := rds.NewDescribeDBSubnetGroupsPaginator(s.RDS(), nil)
	pages := 0
	for ; p.HasMorePages(); pages++ {
		out, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range out.DBSubnetGroups {
			names = append(names, *g.DBSubnetGroupName)
		}
	}
	if got := strings.Join(names, " "); got != "a b c d default" || pages != 3 {
		t.Errorf("got %q in %d pages: want five in three", got, pages)
	}
}
