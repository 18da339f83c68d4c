// Package awsdynamodb backs up ScalarDB's tables in DynamoDB, by point-in-time recovery or by on-demand backups, and restores them into new tables.
//
// # What is captured
//
// Nothing is made in the window: what counts is an instant in it. DynamoDB keeps every change of the last days (point-in-time recovery), so the
// tables can be restored to that instant later. CreateBackup is no way to capture one: AWS promises only that a backup requested at 14:25:00
// holds what was written until 14:24:00 and nothing from 14:26:00 on. The method on_demand therefore restores every table to the instant under a
// temporary name, and backs that up, which nobody writes to.
//
// # What is restored
//
// Only new tables, never an existing one. DynamoDB leaves tags, time to live, streams, auto scaling, point-in-time recovery and deletion protection
// behind: they are put back as the source had them. ScalarDB's metadata rows are keyed by full table names, and the names of its indexes begin with
// them: for another prefix the rows are rewritten and the indexes made anew.
//
// # Whose table is it
//
// A restore cannot tag what it makes while it makes it. So the names are announced first; a table counts as ours by the immutable id that was recorded,
// or, where the process died before it could record one, because it was restored from our source to our restore point after the announcement.
package awsdynamodb

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/applicationautoscaling"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/awsapi"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/relational"
)

const kindName = "aws_dynamodb"

// Methods of capture.
const (
	MethodPITR     = "pitr"
	MethodOnDemand = "on_demand"
)

// Settings are the arguments of one driver object. Source, destination and reader share them.
type Settings struct {
	Storage string
	Clock   engine.Clock
	// Open opens the account. It is called when it is first needed.
	Open func(ctx context.Context) (Account, error)

	Region     string // of the tables of this side; empty: the account's default
	Prefix     string // scalar.db.dynamo.namespace.prefix of this side; of a destination's without one: SourcePrefix
	HasPrefix  bool   // Prefix was given
	Tables     []string
	Namespaces []string
	Layout     relational.Layout
	Method     string // of a source; empty: pitr
	// MaxRestores bounds the restores at once; 0: defaultRestores.
	MaxRestores int64
	// Settle is how long a temporary table of an on-demand backup rests before it is backed up; 0: defaultSettle. Tests whose time runs faster set it.
	Settle time.Duration
	// ReadShare is the part of a table's read capacity, in per cent, that verification uses; 0: defaultShare.
	ReadShare int64

	// Of a destination only.
	SourceRegion string // empty: as the backup recorded it, else Region
	SourcePrefix string
	// HasSourcePrefix says that SourcePrefix was given: it must be the backup's then.
	HasSourcePrefix bool
	BillingMode     string // empty: as the source had it
	KMSKeyARN       string
	Tags            map[string]string
	PutBack         []string // which settings; nil: all of allSettings
}

func (s Settings) settle() time.Duration {
	if s.Settle > 0 {
		return s.Settle
	}
	return defaultSettle
}

// Account is AWS as one set of credentials reaches it.
type Account struct {
	ID, Partition, Region string
	Dynamo                func(region string) API
	Scaling               func(region string) ScalingAPI
}

// FromSession is the account of a session.
func FromSession(s *awsapi.Session) Account {
	return Account{
		ID: s.Account(), Partition: s.Partition(), Region: s.Region(),
		Dynamo:  func(region string) API { return s.DynamoDB(region) },
		Scaling: func(region string) ScalingAPI { return s.AutoScaling(region) },
	}
}

type (
	option        = func(*dynamodb.Options)
	scalingOption = func(*applicationautoscaling.Options)
)

// API is what is used of DynamoDB. *dynamodb.Client has it.
type API interface {
	ListTables(ctx context.Context, in *dynamodb.ListTablesInput, o ...option) (*dynamodb.ListTablesOutput, error)
	DescribeTable(ctx context.Context, in *dynamodb.DescribeTableInput, o ...option) (*dynamodb.DescribeTableOutput, error)
	DescribeLimits(ctx context.Context, in *dynamodb.DescribeLimitsInput, o ...option) (*dynamodb.DescribeLimitsOutput, error)
	UpdateTable(ctx context.Context, in *dynamodb.UpdateTableInput, o ...option) (*dynamodb.UpdateTableOutput, error)
	DeleteTable(ctx context.Context, in *dynamodb.DeleteTableInput, o ...option) (*dynamodb.DeleteTableOutput, error)
	DescribeContinuousBackups(ctx context.Context, in *dynamodb.DescribeContinuousBackupsInput, o ...option) (*dynamodb.DescribeContinuousBackupsOutput, error)
	UpdateContinuousBackups(ctx context.Context, in *dynamodb.UpdateContinuousBackupsInput, o ...option) (*dynamodb.UpdateContinuousBackupsOutput, error)
	DescribeTimeToLive(ctx context.Context, in *dynamodb.DescribeTimeToLiveInput, o ...option) (*dynamodb.DescribeTimeToLiveOutput, error)
	UpdateTimeToLive(ctx context.Context, in *dynamodb.UpdateTimeToLiveInput, o ...option) (*dynamodb.UpdateTimeToLiveOutput, error)
	ListTagsOfResource(ctx context.Context, in *dynamodb.ListTagsOfResourceInput, o ...option) (*dynamodb.ListTagsOfResourceOutput, error)
	TagResource(ctx context.Context, in *dynamodb.TagResourceInput, o ...option) (*dynamodb.TagResourceOutput, error)
	RestoreTableToPointInTime(ctx context.Context, in *dynamodb.RestoreTableToPointInTimeInput, o ...option) (*dynamodb.RestoreTableToPointInTimeOutput, error)
	RestoreTableFromBackup(ctx context.Context, in *dynamodb.RestoreTableFromBackupInput, o ...option) (*dynamodb.RestoreTableFromBackupOutput, error)
	CreateBackup(ctx context.Context, in *dynamodb.CreateBackupInput, o ...option) (*dynamodb.CreateBackupOutput, error)
	DescribeBackup(ctx context.Context, in *dynamodb.DescribeBackupInput, o ...option) (*dynamodb.DescribeBackupOutput, error)
	DeleteBackup(ctx context.Context, in *dynamodb.DeleteBackupInput, o ...option) (*dynamodb.DeleteBackupOutput, error)
	ListBackups(ctx context.Context, in *dynamodb.ListBackupsInput, o ...option) (*dynamodb.ListBackupsOutput, error)
	Scan(ctx context.Context, in *dynamodb.ScanInput, o ...option) (*dynamodb.ScanOutput, error)
	BatchGetItem(ctx context.Context, in *dynamodb.BatchGetItemInput, o ...option) (*dynamodb.BatchGetItemOutput, error)
	PutItem(ctx context.Context, in *dynamodb.PutItemInput, o ...option) (*dynamodb.PutItemOutput, error)
	DeleteItem(ctx context.Context, in *dynamodb.DeleteItemInput, o ...option) (*dynamodb.DeleteItemOutput, error)
}

// ScalingAPI is what is used of Application Auto Scaling. *applicationautoscaling.Client has it.
type ScalingAPI interface {
	DescribeScalableTargets(ctx context.Context, in *applicationautoscaling.DescribeScalableTargetsInput, o ...scalingOption) (
		*applicationautoscaling.DescribeScalableTargetsOutput, error)
	DescribeScalingPolicies(ctx context.Context, in *applicationautoscaling.DescribeScalingPoliciesInput, o ...scalingOption) (
		*applicationautoscaling.DescribeScalingPoliciesOutput, error)
	DescribeScheduledActions(ctx context.Context, in *applicationautoscaling.DescribeScheduledActionsInput, o ...scalingOption) (
		*applicationautoscaling.DescribeScheduledActionsOutput, error)
	RegisterScalableTarget(ctx context.Context, in *applicationautoscaling.RegisterScalableTargetInput, o ...scalingOption) (
		*applicationautoscaling.RegisterScalableTargetOutput, error)
	PutScalingPolicy(ctx context.Context, in *applicationautoscaling.PutScalingPolicyInput, o ...scalingOption) (
		*applicationautoscaling.PutScalingPolicyOutput, error)
	PutScheduledAction(ctx context.Context, in *applicationautoscaling.PutScheduledActionInput, o ...scalingOption) (
		*applicationautoscaling.PutScheduledActionOutput, error)
	DeregisterScalableTarget(ctx context.Context, in *applicationautoscaling.DeregisterScalableTargetInput, o ...scalingOption) (
		*applicationautoscaling.DeregisterScalableTargetOutput, error)
}

var (
	_ API        = (*dynamodb.Client)(nil)
	_ ScalingAPI = (*applicationautoscaling.Client)(nil)
)

const (
	// defaultRestores is below AWS's 50 concurrent restores of an account, which others may use too.
	defaultRestores = 40
	maxRestores     = 500
	defaultShare    = 50
	// calls is how many control-plane calls are made at once.
	calls = 10
	// named bounds the tables that a message names.
	named = 20
)

func (s Settings) restores() int { return int(cmp.Or(s.MaxRestores, defaultRestores)) }
func (s Settings) method() string {
	return cmp.Or(s.Method, MethodPITR)
}

// full is the name in DynamoDB of a table of ScalarDB's, "namespace.table".
func (s Settings) full(name string) string { return s.Prefix + name }

func (s Settings) coordinator() string { return s.Layout.Coordinator() + "." + coordinatorTable }
func (s Settings) metadata() string    { return s.Layout.Metadata() + "." + metadataTable }
func (s Settings) namespaces() string  { return s.Layout.Metadata() + "." + namespacesTable }

// reach is one region of the account.
type reach struct {
	Account
	region string
	api    API
	scale  ScalingAPI
}

func (s Settings) reach(ctx context.Context, region string) (reach, error) {
	a, err := s.Open(ctx)
	if err != nil {
		return reach{}, err
	}
	region = cmp.Or(region, a.Region)
	return reach{Account: a, region: region, api: a.Dynamo(region), scale: a.Scaling(region)}, nil
}

// describe names the place in messages.
func (r reach) describe() string { return fmt.Sprintf("account %s, region %s", r.ID, r.region) }

func (r reach) arn(table string) string {
	return fmt.Sprintf("arn:%s:dynamodb:%s:%s:table/%s", cmp.Or(r.Partition, "aws"), r.region, r.ID, table)
}

// splitARN takes the ARN of a table apart.
func splitARN(arn string) (region, account, table string, ok bool) {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || parts[2] != "dynamodb" {
		return "", "", "", false
	}
	table, ok = strings.CutPrefix(parts[5], "table/")
	table, _, _ = strings.Cut(table, "/")
	return parts[3], parts[4], table, ok && table != ""
}

// tableName is what DynamoDB allows as the name of a table.
var tableName = regexp.MustCompile(`^[a-zA-Z0-9_.-]{3,255}$`)

// splitName takes "namespace.table" apart. Neither part holds a dot: where there are more, the table is another system's, below a prefix of its own.
func splitName(name string) (namespace, table string, ok bool) {
	namespace, table, ok = strings.Cut(name, ".")
	if !ok || namespace == "" || table == "" || strings.Contains(table, ".") {
		return "", "", false
	}
	return namespace, table, true
}

// serverTime is a Date header's time, for comparing with times that DynamoDB reports.
func serverTime(date, fallback time.Time) time.Time {
	if date.IsZero() {
		return fallback
	}
	return date
}

// statusOf is the HTTP status of an API's error; 0 where there was no answer.
func statusOf(err error) int {
	var r interface{ HTTPStatusCode() int }
	if asError(err, &r) {
		return r.HTTPStatusCode()
	}
	return 0
}

func definite(err error) bool {
	status := statusOf(err)
	return status >= http.StatusBadRequest && status < http.StatusInternalServerError
}
