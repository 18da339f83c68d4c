package awsdynamodb

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/applicationautoscaling"
	scaling "github.com/aws/aws-sdk-go-v2/service/applicationautoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

// renamed is the name that an index of ScalarDB's has on the target: it begins with the table's full name.
func renamed(name string, t task) string {
	if rest, ok := strings.CutPrefix(name, t.source+indexInfix); ok {
		return t.target + indexInfix + rest
	}
	return name
}

// keptIndexes are the indexes that the restore takes over: those whose name stays. nil means all.
func (t task) keptIndexes(onDemand bool) []types.GlobalSecondaryIndex {
	kept := []types.GlobalSecondaryIndex{}
	for _, i := range t.features.Indexes {
		if renamed(i.Name, t) != i.Name {
			continue
		}
		g := types.GlobalSecondaryIndex{IndexName: &i.Name, KeySchema: i.keys(), Projection: i.projection()}
		if !onDemand {
			g.ProvisionedThroughput = throughput(i.Read, i.Write)
		}
		kept = append(kept, g)
	}
	if len(kept) == len(t.features.Indexes) {
		return nil
	}
	return kept
}

func (i index) keys() []types.KeySchemaElement {
	keys := []types.KeySchemaElement{{AttributeName: aws.String(i.Hash), KeyType: types.KeyTypeHash}}
	if i.Range != "" {
		keys = append(keys, types.KeySchemaElement{AttributeName: aws.String(i.Range), KeyType: types.KeyTypeRange})
	}
	return keys
}

func (i index) projection() *types.Projection {
	return &types.Projection{ProjectionType: types.ProjectionType(cmp.Or(i.Projection, string(types.ProjectionTypeAll))), NonKeyAttributes: i.NonKey}
}

func throughput(read, write int64) *types.ProvisionedThroughput {
	return &types.ProvisionedThroughput{ReadCapacityUnits: aws.Int64(max(read, 1)), WriteCapacityUnits: aws.Int64(max(write, 1))}
}

func onDemandLimits(read, write int64) *types.OnDemandThroughput {
	t := &types.OnDemandThroughput{}
	if read > 0 {
		t.MaxReadRequestUnits = &read
	}
	if write > 0 {
		t.MaxWriteRequestUnits = &write
	}
	return t
}

// finisher makes of a restored table what its source was.
type finisher struct {
	d    *destination
	api  API
	r    reach
	t    task
	desc types.TableDescription
	lost []string // what could not be put back
}

// finish waits for a table, rewrites ScalarDB's metadata in it, and puts its settings back. lost says what could not be.
func (d *destination) finish(ctx context.Context, p plan, t task, q engine.StorageBackup) (lost []string, err error) {
	f := &finisher{d: d, api: p.target.api, r: p.target, t: t}
	if f.desc, err = waitActive(ctx, d.s.Clock, f.api, t.target); err != nil {
		return nil, err
	}
	// Tags first: they say whose the table is.
	if err := f.tags(ctx, q); err != nil {
		return nil, err
	}
	if err := f.indexes(ctx); err != nil {
		return nil, err
	}
	if err := d.rewrite(ctx, p, t, q.Report); err != nil {
		return nil, err
	}
	if len(t.features.Replicas) > 0 {
		f.lost = append(f.lost, "replicas in "+list(t.features.Replicas)+": the restored table is no global table")
	}
	steps := []struct {
		setting string // empty: always
		put     func(context.Context) error
	}{{"", f.billing}, {putClass, f.class}, {putTTL, f.ttl}, {putScaling, f.scaling}, {putPITR, f.pitr}, {putStreams, f.stream}, {putProtection, f.protection}}
	for _, s := range steps {
		if s.setting != "" && !d.puts(s.setting) {
			continue
		}
		err := s.put(ctx)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			f.lost = append(f.lost, err.Error())
		}
	}
	return f.lost, nil
}

func (d *destination) puts(setting string) bool {
	return d.s.PutBack == nil || slices.Contains(d.s.PutBack, setting)
}

// tags are the source's, the arguments', and whose restore made the table.
func (f *finisher) tags(ctx context.Context, q engine.StorageBackup) error {
	all := map[string]string{}
	if f.d.puts(putTags) {
		maps.Copy(all, f.t.features.Tags)
	}
	maps.Copy(all, f.d.s.Tags)
	all[tagRunID], all[tagRestore] = q.RunID, q.Name
	var tags []types.Tag
	for _, k := range slices.Sorted(maps.Keys(all)) {
		tags = append(tags, types.Tag{Key: aws.String(k), Value: aws.String(all[k])})
	}
	if _, err := f.api.TagResource(ctx, &dynamodb.TagResourceInput{ResourceArn: f.desc.TableArn, Tags: tags}); err != nil {
		return fmt.Errorf("tagging table %s: %w", f.t.target, err)
	}
	return nil
}

// indexes makes those anew whose names begin with the table's: an index cannot be renamed. DynamoDB makes one at a time.
func (f *finisher) indexes(ctx context.Context) error {
	have := map[string]bool{}
	for _, g := range f.desc.GlobalSecondaryIndexes {
		have[aws.ToString(g.IndexName)] = true
	}
	for _, i := range f.t.features.Indexes {
		name := renamed(i.Name, f.t)
		if have[name] {
			continue
		}
		create := &types.CreateGlobalSecondaryIndexAction{IndexName: &name, KeySchema: i.keys(), Projection: i.projection()}
		if featuresOf(f.desc).provisioned() {
			create.ProvisionedThroughput = throughput(i.Read, i.Write)
		} else if i.MaxRead > 0 || i.MaxWrite > 0 {
			create.OnDemandThroughput = onDemandLimits(i.MaxRead, i.MaxWrite)
		}
		attributes := slices.Clone(f.desc.AttributeDefinitions)
		for _, k := range create.KeySchema {
			attribute := aws.ToString(k.AttributeName)
			if !slices.ContainsFunc(attributes, func(a types.AttributeDefinition) bool { return aws.ToString(a.AttributeName) == attribute }) {
				attributes = append(attributes, types.AttributeDefinition{AttributeName: k.AttributeName,
					AttributeType: types.ScalarAttributeType(f.t.features.Attributes[attribute])})
			}
		}
		in := &dynamodb.UpdateTableInput{AttributeDefinitions: attributes, GlobalSecondaryIndexUpdates: []types.GlobalSecondaryIndexUpdate{{Create: create}}}
		err := f.update(ctx, in, func(d types.TableDescription) bool {
			return slices.ContainsFunc(d.GlobalSecondaryIndexes, func(g types.GlobalSecondaryIndexDescription) bool { return aws.ToString(g.IndexName) == name })
		})
		if err != nil {
			return fmt.Errorf("making index %s of table %s: %w", name, f.t.target, err)
		}
	}
	return nil
}

// update changes the table and waits until it is ACTIVE. A table that is busy (or an account that changes too many at once) is waited for. done says that
// an earlier try, whose answer was lost, came through.
func (f *finisher) update(ctx context.Context, in *dynamodb.UpdateTableInput, done func(types.TableDescription) bool) error {
	in.TableName = &f.t.target
	w := waiter{clock: f.d.s.Clock}
	for {
		if done(f.desc) {
			return nil
		}
		_, err := f.api.UpdateTable(ctx, in)
		if err != nil && !isBusy(err) {
			// The SDK repeats a call whose answer was lost; its second try may have been refused because the first came through.
			d, describeErr := waitActive(ctx, f.d.s.Clock, f.api, f.t.target)
			if describeErr != nil || !done(d) {
				return err
			}
		}
		if err != nil {
			if err := w.wait(ctx); err != nil {
				return err
			}
		}
		d, waitErr := waitActive(ctx, f.d.s.Clock, f.api, f.t.target)
		if waitErr != nil {
			return waitErr
		}
		if f.desc = d; err == nil {
			return nil
		}
	}
}

// billing makes the capacity what the source had, or what the arguments ask for.
func (f *finisher) billing(ctx context.Context) error {
	want := f.t.features
	if f.d.s.BillingMode == string(types.BillingModePayPerRequest) {
		want.Billing = f.d.s.BillingMode
	}
	now := featuresOf(f.desc)
	in := &dynamodb.UpdateTableInput{}
	switched := want.Billing != now.Billing
	if switched {
		in.BillingMode = types.BillingMode(want.Billing)
	}
	if want.provisioned() {
		if switched || want.Read != now.Read || want.Write != now.Write {
			in.ProvisionedThroughput = throughput(want.Read, want.Write)
		}
		for _, i := range f.t.changedIndexes(want, now, switched) {
			in.GlobalSecondaryIndexUpdates = append(in.GlobalSecondaryIndexUpdates, types.GlobalSecondaryIndexUpdate{
				Update: &types.UpdateGlobalSecondaryIndexAction{IndexName: &i.Name, ProvisionedThroughput: throughput(i.Read, i.Write)},
			})
		}
	} else if want.MaxRead != now.MaxRead || want.MaxWrite != now.MaxWrite {
		in.OnDemandThroughput = onDemandLimits(want.MaxRead, want.MaxWrite)
	}
	err := f.update(ctx, in, func(d types.TableDescription) bool { return f.t.sameCapacity(want, featuresOf(d)) })
	if err != nil {
		return fmt.Errorf("billing mode %s and its capacity: %w", want.Billing, err)
	}
	return nil
}

func (t task) sameCapacity(want, have features) bool {
	switch {
	case want.Billing != have.Billing:
		return false
	case want.provisioned():
		return want.Read == have.Read && want.Write == have.Write && len(t.changedIndexes(want, have, false)) == 0
	}
	return want.MaxRead == have.MaxRead && want.MaxWrite == have.MaxWrite
}

// changedIndexes are the indexes, under their names on the target, whose capacity is not as wanted; with all every one that is there.
func (t task) changedIndexes(want, have features, all bool) (changed []index) {
	there := map[string]index{}
	for _, i := range have.Indexes {
		there[i.Name] = i
	}
	for _, i := range want.Indexes {
		i.Name = renamed(i.Name, t)
		if h, ok := there[i.Name]; ok && (all || h.Read != i.Read || h.Write != i.Write) {
			changed = append(changed, i)
		}
	}
	return changed
}

func (f *finisher) class(ctx context.Context) error {
	want := cmp.Or(f.t.features.Class, string(types.TableClassStandard))
	is := func(d types.TableDescription) bool {
		return cmp.Or(featuresOf(d).Class, string(types.TableClassStandard)) == want
	}
	if err := f.update(ctx, &dynamodb.UpdateTableInput{TableClass: types.TableClass(want)}, is); err != nil {
		return fmt.Errorf("table class %s: %w", want, err)
	}
	return nil
}

func (f *finisher) ttl(ctx context.Context) error {
	if f.t.features.TTL == "" {
		return nil
	}
	_, err := f.api.UpdateTimeToLive(ctx, &dynamodb.UpdateTimeToLiveInput{TableName: &f.t.target, TimeToLiveSpecification: &types.TimeToLiveSpecification{
		AttributeName: &f.t.features.TTL, Enabled: aws.Bool(true),
	}})
	if err == nil {
		return nil
	}
	// A repeated call is refused because it is enabled already.
	now, describeErr := f.api.DescribeTimeToLive(ctx, &dynamodb.DescribeTimeToLiveInput{TableName: &f.t.target})
	if describeErr == nil && now.TimeToLiveDescription != nil && aws.ToString(now.TimeToLiveDescription.AttributeName) == f.t.features.TTL {
		return nil
	}
	return fmt.Errorf("time to live by %s: %w", f.t.features.TTL, err)
}

// scaling registers what the source had; a policy's name mostly holds the table's.
func (f *finisher) scaling(ctx context.Context) error {
	if !f.t.features.provisioned() || f.d.s.BillingMode == string(types.BillingModePayPerRequest) {
		return nil
	}
	const service = scaling.ServiceNamespaceDynamodb
	id := func(index string) *string {
		if index == "" {
			return aws.String(resource(f.t.target, ""))
		}
		return aws.String(resource(f.t.target, renamed(index, f.t)))
	}
	for _, s := range f.t.features.Scaling {
		_, err := f.r.scale.RegisterScalableTarget(ctx, &applicationautoscaling.RegisterScalableTargetInput{
			ServiceNamespace: service, ResourceId: id(s.Index), ScalableDimension: scaling.ScalableDimension(s.Dimension), MinCapacity: &s.Min, MaxCapacity: &s.Max,
			SuspendedState: s.Suspended,
		})
		if err != nil {
			return fmt.Errorf("auto scaling (%s): %w", s.Dimension, err)
		}
		for _, p := range s.Policies {
			_, err := f.r.scale.PutScalingPolicy(ctx, &applicationautoscaling.PutScalingPolicyInput{
				ServiceNamespace: service, ResourceId: id(s.Index), ScalableDimension: scaling.ScalableDimension(s.Dimension),
				PolicyType: scaling.PolicyTypeTargetTrackingScaling,
				PolicyName: aws.String(strings.ReplaceAll(p.Name, f.t.source, f.t.target)), TargetTrackingScalingPolicyConfiguration: p.Config,
			})
			if err != nil {
				return fmt.Errorf("scaling policy %s: %w", p.Name, err)
			}
		}
	}
	for _, a := range f.t.features.Scheduled {
		in := &applicationautoscaling.PutScheduledActionInput{
			ServiceNamespace: service, ResourceId: id(a.Index), ScalableDimension: scaling.ScalableDimension(a.Dimension), Schedule: &a.Schedule,
			ScalableTargetAction: a.Action,
			ScheduledActionName:  aws.String(strings.ReplaceAll(a.Name, f.t.source, f.t.target)), StartTime: a.Start, EndTime: a.End,
		}
		if a.Timezone != "" {
			in.Timezone = &a.Timezone
		}
		if _, err := f.r.scale.PutScheduledAction(ctx, in); err != nil {
			return fmt.Errorf("scheduled scaling %s: %w", a.Name, err)
		}
	}
	return nil
}

// pitr may have to wait: a new table's continuous backups come to be only some time after it.
func (f *finisher) pitr(ctx context.Context) error {
	if !f.t.features.PITR {
		return nil
	}
	spec := &types.PointInTimeRecoverySpecification{PointInTimeRecoveryEnabled: aws.Bool(true)}
	if f.t.features.PITRDays > 0 {
		spec.RecoveryPeriodInDays = &f.t.features.PITRDays
	}
	w := waiter{clock: f.d.s.Clock}
	const tries = 20
	for i := 0; ; i++ {
		_, err := f.api.UpdateContinuousBackups(ctx, &dynamodb.UpdateContinuousBackupsInput{TableName: &f.t.target, PointInTimeRecoverySpecification: spec})
		if err == nil {
			return nil
		}
		if !isBusy(err) || i == tries {
			return fmt.Errorf("point-in-time recovery: %w", err)
		}
		if err := w.wait(ctx); err != nil {
			return err
		}
	}
}

func (f *finisher) stream(ctx context.Context) error {
	if f.t.features.Stream == "" {
		return nil
	}
	view := types.StreamViewType(f.t.features.Stream)
	err := f.update(ctx, &dynamodb.UpdateTableInput{StreamSpecification: &types.StreamSpecification{StreamEnabled: aws.Bool(true), StreamViewType: view}},
		func(d types.TableDescription) bool {
			return featuresOf(d).Stream == string(view)
		})
	if err != nil {
		return fmt.Errorf("stream (%s): %w", view, err)
	}
	return nil
}

func (f *finisher) protection(ctx context.Context) error {
	if !f.t.features.Protection {
		return nil
	}
	err := f.update(ctx, &dynamodb.UpdateTableInput{DeletionProtectionEnabled: aws.Bool(true)}, func(d types.TableDescription) bool { return featuresOf(d).Protection })
	if err != nil {
		return fmt.Errorf("deletion protection: %w", err)
	}
	return nil
}
