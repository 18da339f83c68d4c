package dynamo

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// targetKey identifies a scalable target.
type targetKey struct{ Resource, Dimension string }

// scalableTarget is one capacity that is scaled. It outlives its table, as at AWS.
type scalableTarget struct {
	targetKey
	arn       string
	low, high int64
	role      string
	suspended *suspendedState
	created   time.Time
	tags      map[string]string
	policies  map[string]*scalingPolicy
	scheduled map[string]*scheduledAction
}

type suspendedState struct {
	DynamicScalingInSuspended, DynamicScalingOutSuspended, ScheduledScalingSuspended *bool `json:",omitempty"`
}

type scalingPolicy struct {
	name, arn string
	created   time.Time
	tracking  targetTracking
}

type targetTracking struct {
	TargetValue                   *float64
	DisableScaleIn                *bool `json:",omitempty"`
	ScaleInCooldown               *int  `json:",omitempty"`
	ScaleOutCooldown              *int  `json:",omitempty"`
	PredefinedMetricSpecification *struct {
		PredefinedMetricType string
		ResourceLabel        string `json:",omitempty"`
	} `json:",omitempty"`
}

const (
	readTable  = "dynamodb:table:ReadCapacityUnits"
	writeTable = "dynamodb:table:WriteCapacityUnits"
	readIndex  = "dynamodb:index:ReadCapacityUnits"
	writeIndex = "dynamodb:index:WriteCapacityUnits"
)

// scaled checks what a target names, and returns the table and the index.
func scaled(namespace, resource, dimension string) (name, index string, err error) {
	if namespace != "dynamodb" {
		return "", "", invalidf("this stand-in knows the service namespace dynamodb only, not %q", namespace)
	}
	parts := strings.Split(resource, "/")
	switch dimension {
	case readTable, writeTable:
		if len(parts) == 2 && parts[0] == "table" {
			return parts[1], "", nil
		}
	case readIndex, writeIndex:
		if len(parts) == 4 && parts[0] == "table" && parts[2] == "index" {
			return parts[1], parts[3], nil
		}
	default:
		return "", "", invalidf("Unsupported service namespace, resource type or scalable dimension: %q", dimension)
	}
	return "", "", invalidf("the resource ID %q does not fit the scalable dimension %s", resource, dimension)
}

type targetInput struct{ ServiceNamespace, ResourceID, ScalableDimension string }

func (i targetInput) key() targetKey { return targetKey{i.ResourceID, i.ScalableDimension} }

func (s *Service) registerScalableTarget(q *request) (any, error) {
	var in struct {
		targetInput
		MinCapacity, MaxCapacity *int64
		RoleARN                  string
		SuspendedState           *suspendedState
		Tags                     map[string]string
	}
	if err := decode(q.body, &in); err != nil {
		return nil, err
	}
	name, index, err := scaled(in.ServiceNamespace, in.ResourceID, in.ScalableDimension)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.space(q.scope)
	t := p.tables[name]
	if t == nil || t.deleting {
		return nil, invalidf("DynamoDB table does not exist: %s", in.ResourceID)
	}
	if err := t.hasIndex(index); err != nil {
		return nil, invalidf("DynamoDB index does not exist: %s", in.ResourceID)
	}
	target := p.targets[in.key()]
	if target == nil {
		if in.MinCapacity == nil || in.MaxCapacity == nil {
			return nil, invalidf("MinCapacity and MaxCapacity are required to register a new scalable target")
		}
		target = &scalableTarget{
			targetKey: in.key(), created: s.Now(), tags: map[string]string{}, policies: map[string]*scalingPolicy{},
			arn:  fmt.Sprintf("arn:aws:application-autoscaling:%s:%s:scalable-target/%016x", q.scope.Region, q.scope.Account, s.random.Uint64()),
			role: fmt.Sprintf("arn:aws:iam::%s:role/aws-service-role/dynamodb.application-autoscaling.amazonaws.com/AWSServiceRoleForApplicationAutoScaling_DynamoDBTable", q.scope.Account),
		}
	} else if len(in.Tags) > 0 {
		return nil, invalidf("You can't specify tags when updating an existing scalable target: use TagResource")
	}
	changed := *target
	if in.MinCapacity != nil {
		changed.low = *in.MinCapacity
	}
	if in.MaxCapacity != nil {
		changed.high = *in.MaxCapacity
	}
	if changed.low < 1 || changed.low > changed.high {
		return nil, invalidf("MinCapacity %d and MaxCapacity %d are no range of capacity", changed.low, changed.high)
	}
	if in.RoleARN != "" {
		changed.role = in.RoleARN
	}
	if in.SuspendedState != nil {
		changed.suspended = in.SuspendedState
	}
	*target = changed
	maps.Copy(target.tags, in.Tags)
	p.targets[in.key()] = target
	s.fit(t, index, target)
	return map[string]any{"ScalableTargetARN": target.arn}, nil
}

// fit changes the capacity of a table that is ACTIVE and provisioned to lie in the range of a target; with the lock held.
func (s *Service) fit(t *table, index string, target *scalableTarget) {
	now := s.progress()
	if t.spec.Billing != "PROVISIONED" || t.status(now) != statusActive {
		return
	}
	p := t.spec.clone()
	c := &p.Throughput
	if index != "" {
		i := slices.IndexFunc(p.Global, func(i indexSpec) bool { return i.IndexName == index })
		copied := throughput{}
		if p.Global[i].ProvisionedThroughput != nil {
			copied = *p.Global[i].ProvisionedThroughput
		}
		c = &copied
		p.Global[i].ProvisionedThroughput = c
	}
	units := &c.ReadCapacityUnits
	if strings.HasSuffix(target.Dimension, "WriteCapacityUnits") {
		units = &c.WriteCapacityUnits
	}
	if fitting := min(max(*units, target.low), target.high); fitting != *units {
		*units = fitting
		t.spec, t.status0, t.until = p, statusUpdating, now.Add(s.Scaled(updateTakes))
	}
}

// findTarget returns a target; with the lock held.
func (s *Service) findTarget(q *request, in targetInput) (*scalableTarget, error) {
	if _, _, err := scaled(in.ServiceNamespace, in.ResourceID, in.ScalableDimension); err != nil {
		return nil, err
	}
	target := s.space(q.scope).targets[in.key()]
	if target == nil {
		return nil, apiErrorf("ObjectNotFoundException", "No scalable target found for service namespace: %s, resource ID: %s, scalable dimension: %s",
			in.ServiceNamespace, in.ResourceID, in.ScalableDimension)
	}
	return target, nil
}

func (s *Service) deregisterScalableTarget(q *request) (any, error) {
	var in targetInput
	if err := decode(q.body, &in); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.findTarget(q, in); err != nil {
		return nil, err
	}
	delete(s.space(q.scope).targets, in.key())
	return map[string]any{}, nil
}

// scalingPage is the default page of Application Auto Scaling.
const scalingPage = 50

func pageSize(n *int) (int, error) {
	if n == nil {
		return scalingPage, nil
	}
	if *n < 1 || *n > scalingPage {
		return 0, invalidf("MaxResults must be between 1 and %d", scalingPage)
	}
	return *n, nil
}

func (s *Service) sortedTargets(c Scope) []*scalableTarget {
	return slices.SortedFunc(maps.Values(s.space(c).targets), func(a, b *scalableTarget) int {
		return strings.Compare(a.Resource+" "+a.Dimension, b.Resource+" "+b.Dimension)
	})
}

func (s *Service) describeScalableTargets(q *request) (any, error) {
	var in struct {
		ServiceNamespace, ScalableDimension, NextToken string
		ResourceIDs                                    []string `json:"ResourceIds"`
		MaxResults                                     *int
	}
	if err := decode(q.body, &in); err != nil {
		return nil, err
	}
	size, err := pageSize(in.MaxResults)
	switch {
	case err != nil:
		return nil, err
	case in.ServiceNamespace != "dynamodb":
		return nil, invalidf("this stand-in knows the service namespace dynamodb only, not %q", in.ServiceNamespace)
	case len(in.ResourceIDs) > 50:
		return nil, invalidf("ResourceIds may hold 50 at most")
	case in.ScalableDimension != "" && len(in.ResourceIDs) == 0:
		return nil, invalidf("a scalable dimension needs resource IDs")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []map[string]any
	for _, t := range s.sortedTargets(q.scope) {
		if len(in.ResourceIDs) > 0 && !slices.Contains(in.ResourceIDs, t.Resource) || in.ScalableDimension != "" && in.ScalableDimension != t.Dimension {
			continue
		}
		m := map[string]any{
			"ServiceNamespace": "dynamodb", "ResourceId": t.Resource, "ScalableDimension": t.Dimension, "MinCapacity": t.low, "MaxCapacity": t.high,
			"RoleARN": t.role, "CreationTime": seconds(t.created), "ScalableTargetARN": t.arn,
		}
		if t.suspended != nil {
			m["SuspendedState"] = t.suspended
		}
		found = append(found, m)
	}
	return paged("ScalableTargets", found, in.NextToken, size)
}

func paged(member string, all []map[string]any, token string, size int) (any, error) {
	part, next, ok := page(all, token, size)
	if !ok {
		return nil, apiErrorf("InvalidNextTokenException", "the next token is not valid: %s", token)
	}
	if part == nil {
		part = []map[string]any{}
	}
	out := map[string]any{member: part}
	if next != "" {
		out["NextToken"] = next
	}
	return out, nil
}

func (s *Service) putScalingPolicy(q *request) (any, error) {
	var in struct {
		targetInput
		PolicyName, PolicyType                   string
		TargetTrackingScalingPolicyConfiguration *targetTracking
	}
	if err := decode(q.body, &in); err != nil {
		return nil, err
	}
	c := in.TargetTrackingScalingPolicyConfiguration
	switch {
	case in.PolicyName == "" || len(in.PolicyName) > 256 || strings.ContainsAny(in.PolicyName, " |"):
		return nil, invalidf("PolicyName %q is not valid", in.PolicyName)
	case in.PolicyType != "TargetTrackingScaling":
		return nil, invalidf("DynamoDB supports the policy type TargetTrackingScaling only, not %q", in.PolicyType)
	case c == nil || c.TargetValue == nil || c.PredefinedMetricSpecification == nil:
		return nil, invalidf("TargetTrackingScalingPolicyConfiguration needs TargetValue and PredefinedMetricSpecification")
	case *c.TargetValue < 20 || *c.TargetValue > 90:
		return nil, invalidf("TargetValue must be between 20 and 90 for DynamoDB, not %v", *c.TargetValue)
	}
	metric := "DynamoDBReadCapacityUtilization"
	if strings.HasSuffix(in.ScalableDimension, "WriteCapacityUnits") {
		metric = "DynamoDBWriteCapacityUtilization"
	}
	if m := c.PredefinedMetricSpecification.PredefinedMetricType; m != metric {
		return nil, invalidf("the metric type %q does not fit the scalable dimension %s", m, in.ScalableDimension)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.findTarget(q, in.targetInput)
	if err != nil {
		return nil, err
	}
	p := t.policies[in.PolicyName]
	if p == nil {
		if len(t.policies) > 0 {
			return nil, invalidf("Only one TargetTrackingScaling policy for a given metric specification is allowed.")
		}
		p = &scalingPolicy{
			name: in.PolicyName, created: s.Now(),
			arn: fmt.Sprintf("arn:aws:autoscaling:%s:%s:scalingPolicy:%016x:resource/dynamodb/%s:policyName/%s", q.scope.Region, q.scope.Account, s.random.Uint64(), t.Resource, in.PolicyName),
		}
		t.policies[in.PolicyName] = p
	}
	p.tracking = *c
	return map[string]any{"PolicyARN": p.arn, "Alarms": alarms(q.scope, t, p)}, nil
}

// alarms are those that a policy makes.
func alarms(c Scope, t *scalableTarget, p *scalingPolicy) []map[string]string {
	var all []map[string]string
	for _, kind := range []string{"AlarmHigh", "AlarmLow"} {
		name := fmt.Sprintf("TargetTracking-%s-%s-%s", t.Resource, kind, p.name)
		all = append(all, map[string]string{"AlarmName": name, "AlarmARN": fmt.Sprintf("arn:aws:cloudwatch:%s:%s:alarm:%s", c.Region, c.Account, name)})
	}
	return all
}

func (s *Service) describeScalingPolicies(q *request) (any, error) {
	var in struct {
		targetInput
		PolicyNames []string
		NextToken   string
		MaxResults  *int
	}
	if err := decode(q.body, &in); err != nil {
		return nil, err
	}
	size, err := pageSize(in.MaxResults)
	switch {
	case err != nil:
		return nil, err
	case in.ServiceNamespace != "dynamodb":
		return nil, invalidf("this stand-in knows the service namespace dynamodb only, not %q", in.ServiceNamespace)
	case in.ScalableDimension != "" && in.ResourceID == "":
		return nil, invalidf("a scalable dimension needs a resource ID")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []map[string]any
	for _, t := range s.sortedTargets(q.scope) {
		if in.ResourceID != "" && in.ResourceID != t.Resource || in.ScalableDimension != "" && in.ScalableDimension != t.Dimension {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(t.policies)) {
			if len(in.PolicyNames) > 0 && !slices.Contains(in.PolicyNames, name) {
				continue
			}
			p := t.policies[name]
			found = append(found, map[string]any{
				"ServiceNamespace": "dynamodb", "ResourceId": t.Resource, "ScalableDimension": t.Dimension, "PolicyName": name, "PolicyARN": p.arn,
				"PolicyType": "TargetTrackingScaling", "CreationTime": seconds(p.created), "TargetTrackingScalingPolicyConfiguration": p.tracking,
				"Alarms": alarms(q.scope, t, p),
			})
		}
	}
	return paged("ScalingPolicies", found, in.NextToken, size)
}

func (s *Service) deleteScalingPolicy(q *request) (any, error) {
	var in struct {
		targetInput
		PolicyName string
	}
	if err := decode(q.body, &in); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.findTarget(q, in.targetInput)
	if err != nil {
		return nil, err
	}
	if t.policies[in.PolicyName] == nil {
		return nil, apiErrorf("ObjectNotFoundException", "No scaling policy found for policy name: %s", in.PolicyName)
	}
	delete(t.policies, in.PolicyName)
	return map[string]any{}, nil
}

// targetByARN returns a target; with the lock held.
func (s *Service) targetByARN(q *request, arn string) (*scalableTarget, error) {
	for _, t := range s.space(q.scope).targets {
		if t.arn == arn {
			return t, nil
		}
	}
	return nil, apiErrorf("ResourceNotFoundException", "The resource %s doesn't exist.", arn)
}

func (s *Service) tagTarget(q *request) (any, error) {
	var in struct {
		ResourceARN string
		Tags        map[string]string
	}
	if err := decode(q.body, &in); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.targetByARN(q, in.ResourceARN)
	if err != nil {
		return nil, err
	}
	maps.Copy(t.tags, in.Tags)
	return map[string]any{}, nil
}

func (s *Service) untagTarget(q *request) (any, error) {
	var in struct {
		ResourceARN string
		TagKeys     []string
	}
	if err := decode(q.body, &in); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.targetByARN(q, in.ResourceARN)
	if err != nil {
		return nil, err
	}
	for _, k := range in.TagKeys {
		delete(t.tags, k)
	}
	return map[string]any{}, nil
}

func (s *Service) listTagsOfTarget(q *request) (any, error) {
	var in struct{ ResourceARN string }
	if err := decode(q.body, &in); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.targetByARN(q, in.ResourceARN)
	if err != nil {
		return nil, err
	}
	return map[string]any{"Tags": maps.Clone(t.tags)}, nil
}
