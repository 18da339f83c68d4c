package awsdynamodb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/applicationautoscaling"
	scaling "github.com/aws/aws-sdk-go-v2/service/applicationautoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

// The settings that a restore puts back, as restore_settings names them.
const (
	putTags       = "tags"
	putTTL        = "ttl"
	putScaling    = "autoscaling"
	putPITR       = "pitr"
	putStreams    = "streams"
	putProtection = "deletion_protection"
	putClass      = "table_class"
)

var allSettings = []string{putTags, putTTL, putScaling, putPITR, putStreams, putProtection, putClass}

// features are the settings of one table that a restore does not take over by itself, or that it has to know.
type features struct {
	Table      string            `json:"table"` // full name
	ARN        string            `json:"arn"`
	ID         string            `json:"id"`
	Billing    string            `json:"billing_mode"`
	Read       int64             `json:"read_capacity,omitempty"`
	Write      int64             `json:"write_capacity,omitempty"`
	MaxRead    int64             `json:"max_read_request_units,omitempty"`
	MaxWrite   int64             `json:"max_write_request_units,omitempty"`
	Class      string            `json:"table_class,omitempty"`
	KMSKeyARN  string            `json:"kms_key_arn,omitempty"`
	Stream     string            `json:"stream_view_type,omitempty"`
	Protection bool              `json:"deletion_protection,omitempty"`
	TTL        string            `json:"ttl_attribute,omitempty"`
	Tags       map[string]string `json:"tags,omitempty"`
	PITR       bool              `json:"pitr,omitempty"`
	PITRDays   int32             `json:"pitr_days,omitempty"`
	Replicas   []string          `json:"replicas,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"` // of keys: type by name
	Indexes    []index           `json:"indexes,omitempty"`
	Scaling    []scalable        `json:"scaling,omitempty"`
	Scheduled  []scheduled       `json:"scheduled,omitempty"`
}

// index is one global secondary index.
type index struct {
	Name       string   `json:"name"`
	Hash       string   `json:"hash"`
	Range      string   `json:"range,omitempty"`
	Projection string   `json:"projection"`
	NonKey     []string `json:"non_key,omitempty"`
	Read       int64    `json:"read_capacity,omitempty"`
	Write      int64    `json:"write_capacity,omitempty"`
	MaxRead    int64    `json:"max_read_request_units,omitempty"`
	MaxWrite   int64    `json:"max_write_request_units,omitempty"`
}

// scalable is one dimension that Application Auto Scaling scales.
type scalable struct {
	Index     string                  `json:"index,omitempty"` // empty: the table's own
	Dimension string                  `json:"dimension"`
	Min       int32                   `json:"min"`
	Max       int32                   `json:"max"`
	Suspended *scaling.SuspendedState `json:"suspended,omitempty"`
	Policies  []policy                `json:"policies,omitempty"`
}

type policy struct {
	Name   string                                            `json:"name"`
	Config *scaling.TargetTrackingScalingPolicyConfiguration `json:"config"`
}

type scheduled struct {
	Index     string                        `json:"index,omitempty"`
	Dimension string                        `json:"dimension"`
	Name      string                        `json:"name"`
	Schedule  string                        `json:"schedule"`
	Timezone  string                        `json:"timezone,omitempty"`
	Start     *time.Time                    `json:"start,omitempty"`
	End       *time.Time                    `json:"end,omitempty"`
	Action    *scaling.ScalableTargetAction `json:"action"`
}

func (f features) provisioned() bool { return f.Billing == string(types.BillingModeProvisioned) }

// resource is the id that Application Auto Scaling knows a table or an index by.
func resource(table, index string) string {
	if index == "" {
		return "table/" + table
	}
	return "table/" + table + "/index/" + index
}

// featuresOf reads what DescribeTable says.
func featuresOf(d types.TableDescription) features {
	f := features{
		Table: aws.ToString(d.TableName), ARN: aws.ToString(d.TableArn), ID: aws.ToString(d.TableId),
		Billing: string(types.BillingModeProvisioned), Protection: aws.ToBool(d.DeletionProtectionEnabled), Attributes: map[string]string{},
	}
	if d.BillingModeSummary != nil && d.BillingModeSummary.BillingMode != "" {
		f.Billing = string(d.BillingModeSummary.BillingMode)
	}
	if t := d.ProvisionedThroughput; t != nil && f.provisioned() {
		f.Read, f.Write = aws.ToInt64(t.ReadCapacityUnits), aws.ToInt64(t.WriteCapacityUnits)
	}
	f.MaxRead, f.MaxWrite = limits(d.OnDemandThroughput)
	if d.TableClassSummary != nil {
		f.Class = string(d.TableClassSummary.TableClass)
	}
	if d.SSEDescription != nil && d.SSEDescription.SSEType == types.SSETypeKms {
		f.KMSKeyARN = aws.ToString(d.SSEDescription.KMSMasterKeyArn)
	}
	if s := d.StreamSpecification; s != nil && aws.ToBool(s.StreamEnabled) {
		f.Stream = string(s.StreamViewType)
	}
	for _, r := range d.Replicas {
		f.Replicas = append(f.Replicas, aws.ToString(r.RegionName))
	}
	for _, a := range d.AttributeDefinitions {
		f.Attributes[aws.ToString(a.AttributeName)] = string(a.AttributeType)
	}
	for _, g := range d.GlobalSecondaryIndexes {
		i := index{Name: aws.ToString(g.IndexName)}
		for _, k := range g.KeySchema {
			if k.KeyType == types.KeyTypeHash {
				i.Hash = aws.ToString(k.AttributeName)
			} else {
				i.Range = aws.ToString(k.AttributeName)
			}
		}
		if g.Projection != nil {
			i.Projection, i.NonKey = string(g.Projection.ProjectionType), g.Projection.NonKeyAttributes
		}
		if t := g.ProvisionedThroughput; t != nil && f.provisioned() {
			i.Read, i.Write = aws.ToInt64(t.ReadCapacityUnits), aws.ToInt64(t.WriteCapacityUnits)
		}
		i.MaxRead, i.MaxWrite = limits(g.OnDemandThroughput)
		f.Indexes = append(f.Indexes, i)
	}
	return f
}

// limits of on-demand throughput; DynamoDB says -1 for none.
func limits(t *types.OnDemandThroughput) (read, write int64) {
	if t == nil {
		return 0, 0
	}
	return max(aws.ToInt64(t.MaxReadRequestUnits), 0), max(aws.ToInt64(t.MaxWriteRequestUnits), 0)
}

// look is what preflight finds out of one table.
type look struct {
	table    table
	status   types.TableStatus
	features features
	earliest time.Time
	latest   time.Time
}

// looker reads the settings of tables, no faster than AWS allows.
type looker struct {
	r       reach
	backups pacer
	tags    pacer

	mu       sync.Mutex
	warnings []string
}

func newLooker(r reach, clock engine.Clock) *looker {
	return &looker{r: r, backups: pacer{clock: clock}, tags: pacer{clock: clock}}
}

// continuous asks for the times that a table can be restored to; zero ones where point-in-time recovery is off.
func (l *looker) continuous(ctx context.Context, name string) (earliest, latest time.Time, days int32, err error) {
	if err := l.backups.wait(ctx); err != nil {
		return earliest, latest, 0, err
	}
	out, err := l.r.api.DescribeContinuousBackups(ctx, &dynamodb.DescribeContinuousBackupsInput{TableName: &name})
	switch {
	case isNotFound(err):
		return earliest, latest, 0, fmt.Errorf("table %s: %w", name, engine.ErrNotFound)
	case err != nil:
		return earliest, latest, 0, fmt.Errorf("asking for the point-in-time recovery of table %s: %w", name, err)
	}
	l.backups.saw(out.ResultMetadata)
	if out.ContinuousBackupsDescription == nil || out.ContinuousBackupsDescription.PointInTimeRecoveryDescription == nil {
		return earliest, latest, 0, nil
	}
	p := out.ContinuousBackupsDescription.PointInTimeRecoveryDescription
	if p.PointInTimeRecoveryStatus != types.PointInTimeRecoveryStatusEnabled {
		return earliest, latest, 0, nil
	}
	return aws.ToTime(p.EarliestRestorableDateTime), aws.ToTime(p.LatestRestorableDateTime), aws.ToInt32(p.RecoveryPeriodInDays), nil
}

// look reads everything about one table but its scaling.
func (l *looker) look(ctx context.Context, t table, full string) (look, error) {
	d, err := describeTable(ctx, l.r.api, full)
	if err != nil {
		return look{}, err
	}
	x := look{table: t, status: d.TableStatus, features: featuresOf(d)}
	var days int32
	if x.earliest, x.latest, days, err = l.continuous(ctx, full); err != nil {
		return look{}, err
	}
	x.features.PITR, x.features.PITRDays = !x.earliest.IsZero(), days
	ttl, err := l.r.api.DescribeTimeToLive(ctx, &dynamodb.DescribeTimeToLiveInput{TableName: &full})
	if err != nil {
		return look{}, fmt.Errorf("asking for the time to live of table %s: %w", full, err)
	}
	if v := ttl.TimeToLiveDescription; v != nil && (v.TimeToLiveStatus == types.TimeToLiveStatusEnabled || v.TimeToLiveStatus == types.TimeToLiveStatusEnabling) {
		x.features.TTL = aws.ToString(v.AttributeName)
	}
	if x.features.Tags, err = l.readTags(ctx, x.features.ARN); err != nil {
		return look{}, err
	}
	return x, nil
}

func (l *looker) readTags(ctx context.Context, arn string) (map[string]string, error) {
	tags := map[string]string{}
	var token *string
	for {
		if err := l.tags.wait(ctx); err != nil {
			return nil, err
		}
		out, err := l.r.api.ListTagsOfResource(ctx, &dynamodb.ListTagsOfResourceInput{ResourceArn: &arn, NextToken: token})
		if err != nil {
			return nil, fmt.Errorf("reading the tags of %s: %w", arn, err)
		}
		l.tags.saw(out.ResultMetadata)
		for _, t := range out.Tags {
			// AWS's own cannot be set; another run's would make a table look like that run's.
			if k := aws.ToString(t.Key); !strings.HasPrefix(k, "aws:") && !strings.HasPrefix(k, tagPrefix) {
				tags[k] = aws.ToString(t.Value)
			}
		}
		if token = out.NextToken; aws.ToString(token) == "" {
			return tags, nil
		}
	}
}

// lookAll looks at all tables and their scaling.
func (l *looker) lookAll(ctx context.Context, s Settings, tables []table) ([]look, error) {
	found := make([]look, len(tables))
	at := make([]int, len(tables))
	for i := range at {
		at[i] = i
	}
	err := parallel(ctx, calls, at, false, func(ctx context.Context, i int) (err error) {
		found[i], err = l.look(ctx, tables[i], s.full(tables[i].name))
		return err
	})
	return found, errors.Join(err, l.readScaling(ctx, found))
}

// readScaling reads all of the region's scaling at once: table by table it would be thousands of calls.
func (l *looker) readScaling(ctx context.Context, tables []look) error {
	byResource := map[string]*look{}
	for i := range tables {
		if tables[i].features.provisioned() {
			byResource[tables[i].features.Table] = &tables[i]
		}
	}
	if len(byResource) == 0 {
		return nil
	}
	find := func(id *string) (f *features, index string) {
		rest, _ := strings.CutPrefix(aws.ToString(id), "table/")
		name, index, _ := strings.Cut(rest, "/index/")
		if x := byResource[name]; x != nil {
			return &x.features, index
		}
		return nil, ""
	}
	err := l.scalingPages(ctx, find)
	if isDenied(err) || isUnknown(err) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.warnings = append(l.warnings, fmt.Sprintf("The auto scaling of the tables cannot be read, so a restore will not put it back: %v", err))
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the auto scaling of the tables: %w", err)
	}
	return nil
}

func (l *looker) scalingPages(ctx context.Context, find func(*string) (*features, string)) error {
	const service = scaling.ServiceNamespaceDynamodb
	var token *string
	for first := true; first || aws.ToString(token) != ""; first = false {
		out, err := l.r.scale.DescribeScalableTargets(ctx, &applicationautoscaling.DescribeScalableTargetsInput{ServiceNamespace: service, NextToken: token})
		if err != nil {
			return err
		}
		for _, t := range out.ScalableTargets {
			if f, index := find(t.ResourceId); f != nil {
				f.Scaling = append(f.Scaling, scalable{Index: index, Dimension: string(t.ScalableDimension), Min: aws.ToInt32(t.MinCapacity),
					Max: aws.ToInt32(t.MaxCapacity), Suspended: t.SuspendedState})
			}
		}
		token = out.NextToken
	}
	token = nil
	for first := true; first || aws.ToString(token) != ""; first = false {
		out, err := l.r.scale.DescribeScalingPolicies(ctx, &applicationautoscaling.DescribeScalingPoliciesInput{ServiceNamespace: service, NextToken: token})
		if err != nil {
			return err
		}
		for _, p := range out.ScalingPolicies {
			f, index := find(p.ResourceId)
			if f == nil || p.TargetTrackingScalingPolicyConfiguration == nil {
				continue // DynamoDB has target tracking only
			}
			for i := range f.Scaling {
				if f.Scaling[i].Index == index && f.Scaling[i].Dimension == string(p.ScalableDimension) {
					f.Scaling[i].Policies = append(f.Scaling[i].Policies, policy{Name: aws.ToString(p.PolicyName), Config: p.TargetTrackingScalingPolicyConfiguration})
				}
			}
		}
		token = out.NextToken
	}
	token = nil
	for first := true; first || aws.ToString(token) != ""; first = false {
		out, err := l.r.scale.DescribeScheduledActions(ctx, &applicationautoscaling.DescribeScheduledActionsInput{ServiceNamespace: service, NextToken: token})
		if err != nil {
			return err
		}
		for _, a := range out.ScheduledActions {
			if f, index := find(a.ResourceId); f != nil {
				f.Scheduled = append(f.Scheduled, scheduled{Index: index, Dimension: string(a.ScalableDimension), Name: aws.ToString(a.ScheduledActionName),
					Schedule: aws.ToString(a.Schedule),
					Timezone: aws.ToString(a.Timezone), Start: a.StartTime, End: a.EndTime, Action: a.ScalableTargetAction})
			}
		}
		token = out.NextToken
	}
	return nil
}

// settingsVersion is the version of the settings document that this code writes and reads.
const settingsVersion = 1

// settingsDocument is the catalog object with the settings of every table of a backup: a manifest would grow with them.
type settingsDocument struct {
	Version int        `json:"version"`
	Tables  []features `json:"tables"`
}

const settingsName = "settings.json"

// writeSettings puts the document into the catalog; what it returns is its artifact.
func writeSettings(ctx context.Context, c engine.Catalog, name string, tables []look) (engine.Artifact, error) {
	doc := settingsDocument{Version: settingsVersion}
	for _, t := range tables {
		doc.Tables = append(doc.Tables, t.features)
	}
	data, err := json.MarshalIndent(doc, "", " ")
	if err != nil {
		return engine.Artifact{}, fmt.Errorf("encoding the settings of the tables: %w", err)
	}
	// An answer that was lost makes the second try find its own object.
	if err := c.Create(ctx, name, data); err != nil && !errors.Is(err, engine.ErrExists) {
		return engine.Artifact{}, fmt.Errorf("writing %s into %s: %w", name, c.Describe(), err)
	}
	return engine.Artifact{Kind: kindSettings, ID: name, Size: int64(len(data)), SHA256: sum(data)}, nil
}

func readSettings(ctx context.Context, c engine.Catalog, a engine.Artifact) (map[string]features, error) {
	data, _, err := c.Read(ctx, a.ID)
	if err != nil {
		return nil, fmt.Errorf("reading %s of %s: %w", a.ID, c.Describe(), err)
	}
	if got := sum(data); got != a.SHA256 {
		return nil, fmt.Errorf("%s of %s is damaged: its SHA-256 is %s, not %s", a.ID, c.Describe(), got, a.SHA256)
	}
	return decodeSettings(data, a.ID)
}

func decodeSettings(data []byte, name string) (map[string]features, error) {
	var doc settingsDocument
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	if doc.Version != settingsVersion {
		return nil, fmt.Errorf("reading %s: its version is %d, and this release knows %d", name, doc.Version, settingsVersion)
	}
	out := make(map[string]features, len(doc.Tables))
	for _, f := range doc.Tables {
		out[f.Table] = f
	}
	return out, nil
}
