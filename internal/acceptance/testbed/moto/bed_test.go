//go:build acceptance

package moto

import (
	"context"
	"errors"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/applicationautoscaling"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/awsapi"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/clock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/memcatalog"
	shared "github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/rds"
)

const (
	region     = "eu-west-1"
	backupID   = "before.release_42"
	backupRun  = "0123456789abcdef"
	restoreRun = "fedcba9876543210"
	password   = "pass'word 1+2&3" //nolint:gosec // of a made-up database
)

// direct are clients that speak to moto as it is, over a wire of their own, for what only the test does.
type direct struct {
	rds     *rds.Client
	dynamo  *dynamodb.Client
	scaling *applicationautoscaling.Client
	s3      *s3.Client
}

func newDirect(url string) direct {
	once := func() aws.Retryer { return aws.NopRetryer{} }
	config := aws.Config{Region: region, BaseEndpoint: &url, Retryer: once, Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: "AKIATEST", SecretAccessKey: "secret"}, nil
	})}
	return direct{rds.NewFromConfig(config), dynamodb.NewFromConfig(config), applicationautoscaling.NewFromConfig(config), s3.NewFromConfig(config, func(o *s3.Options) { o.UsePathStyle = true })}
}

// bed is one moto, and the product's session with it, all of whose calls go over the wire.
type bed struct {
	server  *Server
	wire    *Wire
	direct  direct
	session *awsapi.Session
	catalog engine.Catalog
}

func newBed(t *testing.T) *bed {
	t.Helper()
	b := &bed{server: Start(t), catalog: memcatalog.New(time.Now)}
	b.wire, b.direct = NewWire(t, b.server, stopgaps), newDirect(NewWire(t, b.server, nil).URL)
	var err error
	if b.session, err = awsapi.Open(t.Context(), b.settings()); err != nil {
		t.Fatal(err)
	}
	if b.session.Account() != Account || b.session.Partition() != "aws" {
		t.Fatalf("account %s, partition %s", b.session.Account(), b.session.Partition())
	}
	return b
}

func (b *bed) settings() awsapi.Settings {
	s := awsapi.Settings{
		Region: region, AccessKey: "AKIATEST", SecretKey: "secret", SkipMetadataAPICheck: true, S3UsePathStyle: true, Endpoints: map[string]string{},
		MaxRetries: 1, // what moto does not answer at once, it never does
	}
	for _, service := range awsapi.Services {
		s.Endpoints[service] = b.wire.URL
	}
	return s
}

// rds opens the RDS API as the drivers' schemas do.
func (b *bed) rds(_ context.Context, in string) (*rds.Client, shared.Place, error) {
	if in == "" {
		in = region
	}
	return b.session.RDS(in), shared.Place{Account: b.session.Account(), Partition: b.session.Partition(), Region: in}, nil
}

func report(t *testing.T) func(string, map[string]any) {
	return func(message string, fields map[string]any) { t.Log(message, fields) }
}

// backUp makes the phases of a backup of one storage. The window is none that an engine would make: what counts here are the calls.
func (b *bed) backUp(t *testing.T, driver string, source engine.Source) (engine.StorageRecord, engine.PauseWindow) {
	t.Helper()
	ctx, w := t.Context(), engine.PauseWindow{ClockBounds: map[string]engine.ClockBoundMS{}}
	c, err := source.OpenClock(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.MeasureClock(ctx); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	x, err := source.Preflight(ctx, engine.Run{
		ID: backupRun, BackupID: backupID, Catalog: b.catalog, Prefix: engine.BackupPrefix(backupID) + backupRun + "/", OpenedAt: func() time.Time { return w.StartedAt },
		Window: func() engine.PauseWindow { return w }, ServerClockBound: time.Millisecond, Report: report(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	}()
	bound, err := x.MeasureClock(ctx)
	if err != nil || bound.Offset.Abs() > bound.Uncertainty+time.Second {
		t.Fatalf("clock %+v, %v", bound, err)
	}
	w.StartedAt = time.Now().Round(0)
	if err := x.Capture(ctx); err != nil {
		t.Fatal(errors.Join(err, x.Discard(ctx)))
	}
	w.EndedAt = time.Now().Round(0)
	w.ClockBounds[stored] = engine.ClockBoundMS{OffsetMS: bound.Offset.Milliseconds(), UncertaintyMS: bound.Uncertainty.Milliseconds() + 1}
	if x.Facts().NeedsInstant {
		w.RestorePoint = w.EndedAt.UTC().Truncate(time.Second).Add(time.Second)
	}
	if err := x.Confirm(ctx); err != nil {
		t.Fatal(errors.Join(err, x.Discard(ctx)))
	}
	captured, err := x.Await(ctx)
	if err != nil {
		t.Fatal(errors.Join(err, x.Discard(ctx)))
	}
	f := x.Facts()
	return engine.StorageRecord{Driver: driver, SourceID: f.SourceID, ByTime: f.ByTime, Witness: f.Witness, Artifacts: captured.Artifacts, Tables: captured.Tables,
		HasCoordinator: captured.HasCoordinator, CoordinatorNewest: captured.CoordinatorNewest, Extra: captured.Extra}, w
}

// stored is the storage's name.
const stored = "orders"

// restore restores a record, calls look with what it made, deletes that, and sees that it is gone.
func (b *bed) restore(t *testing.T, d engine.Destination, record engine.StorageRecord, at time.Time, look func(engine.Restored)) {
	t.Helper()
	announced := 0
	q := engine.StorageBackup{Storage: stored, RunID: restoreRun, Name: "staging", Record: record, RestorePoint: at, Catalog: b.catalog, Report: report(t),
		Announce: func(context.Context, engine.Restored) error { announced++; return nil }}
	if err := d.Preflight(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	made, err := d.Restore(t.Context(), q)
	if err != nil {
		t.Fatal(errors.Join(err, d.Delete(t.Context(), made)))
	}
	if announced == 0 || len(made.Objects) == 0 {
		t.Errorf("%d announcements, and then %+v", announced, made)
	}
	if err := d.Inspect(t.Context(), made); err != nil {
		t.Error(err)
	}
	if look != nil {
		look(made)
	}
	if err := d.Delete(t.Context(), made); err != nil {
		t.Fatal(err)
	}
	if err := d.Inspect(t.Context(), made); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("after the deletion: %v", err)
	}
}

// discard looks at artifacts, deletes them, and sees that those are gone that can go.
func discard(t *testing.T, store engine.ArtifactStore, record engine.StorageRecord) {
	t.Helper()
	for _, a := range record.Artifacts {
		if err := store.Inspect(t.Context(), a); err != nil {
			t.Errorf("%s: %v", a.ID, err)
		}
		if err := store.Delete(t.Context(), a); err != nil {
			t.Errorf("%s: %v", a.ID, err)
		}
		if err := store.Inspect(t.Context(), a); !strings.HasSuffix(a.Kind, "_pitr") && !errors.Is(err, engine.ErrNotFound) {
			t.Errorf("%s after its deletion: %v", a.ID, err)
		}
	}
}

// subnets are those of the default VPC, which moto makes by itself. The SDK's client for EC2 is no part of this module.
func (b *bed) subnets(t *testing.T) []string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, b.server.URL, strings.NewReader("Action=DescribeSubnets&Version=2016-11-15"))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=AKIATEST/20260101/"+region+"/ec2/aws4_request, SignedHeaders=host, Signature=none")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	found := regexp.MustCompile(`<subnetId>([^<]+)<`).FindAllStringSubmatch(string(text), -1)
	if err != nil || len(found) < 2 {
		t.Fatalf("moto has no subnets: %v\n%.500s", err, text)
	}
	return []string{found[0][1], found[1][1]}
}

var system = clock.System{}

// must fails the test when the test's own call does.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// noTime restores from artifacts.
var noTime time.Time

func same(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s is\n%s\nand should be\n%s", what, got, want)
	}
}
