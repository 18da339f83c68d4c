package dynamo

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// scheduledAction changes a target's range at set times. It is kept, and never carried out.
type scheduledAction struct {
	name, arn, schedule, zone string
	start, end                json.Number
	action                    scalableAction
	created                   time.Time
}

type scalableAction struct {
	MinCapacity *int64 `json:",omitempty"`
	MaxCapacity *int64 `json:",omitempty"`
}

func (s *Service) putScheduledAction(q *request) (any, error) {
	var in struct {
		targetInput
		ScheduledActionName, Schedule, Timezone string
		StartTime, EndTime                      json.Number
		ScalableTargetAction                    *scalableAction
	}
	if err := decode(q.body, &in); err != nil {
		return nil, err
	}
	kind, _, _ := strings.Cut(in.Schedule, "(")
	switch {
	case in.ScheduledActionName == "" || len(in.ScheduledActionName) > 256:
		return nil, invalidf("ScheduledActionName %q is not valid", in.ScheduledActionName)
	case in.Schedule != "" && (!slices.Contains([]string{"at", "rate", "cron"}, kind) || !strings.HasSuffix(in.Schedule, ")")):
		return nil, invalidf("Schedule %q is no at(…), rate(…) or cron(…) expression", in.Schedule)
	}
	for _, at := range []json.Number{in.StartTime, in.EndTime} {
		if _, err := timeOf(at); at != "" && err != nil {
			return nil, invalidf("%s is no time", at)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.findTarget(q, in.targetInput)
	if err != nil {
		return nil, err
	}
	a := t.scheduled[in.ScheduledActionName]
	if a == nil {
		if in.Schedule == "" || in.ScalableTargetAction == nil {
			return nil, invalidf("Schedule and ScalableTargetAction are required for a new scheduled action")
		}
		a = &scheduledAction{name: in.ScheduledActionName, created: s.Now(), arn: fmt.Sprintf("arn:aws:autoscaling:%s:%s:scheduledAction:%016x:resource/dynamodb/%s:scheduledActionName/%s",
			q.scope.Region, q.scope.Account, s.random.Uint64(), t.Resource, in.ScheduledActionName)}
		if t.scheduled == nil {
			t.scheduled = map[string]*scheduledAction{}
		}
		t.scheduled[in.ScheduledActionName] = a
	}
	if in.Schedule != "" {
		a.schedule = in.Schedule
	}
	if in.ScalableTargetAction != nil {
		a.action = *in.ScalableTargetAction
	}
	a.zone, a.start, a.end = in.Timezone, in.StartTime, in.EndTime
	return map[string]any{}, nil
}

func (s *Service) describeScheduledActions(q *request) (any, error) {
	var in struct {
		targetInput
		ScheduledActionNames []string
		NextToken            string
		MaxResults           *int
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
		for _, name := range slices.Sorted(maps.Keys(t.scheduled)) {
			if len(in.ScheduledActionNames) > 0 && !slices.Contains(in.ScheduledActionNames, name) {
				continue
			}
			a := t.scheduled[name]
			m := map[string]any{
				"ServiceNamespace": "dynamodb", "ResourceId": t.Resource, "ScalableDimension": t.Dimension, "ScheduledActionName": name, "ScheduledActionARN": a.arn,
				"Schedule": a.schedule, "ScalableTargetAction": a.action, "CreationTime": seconds(a.created),
			}
			if a.zone != "" {
				m["Timezone"] = a.zone
			}
			if a.start != "" {
				m["StartTime"] = a.start
			}
			if a.end != "" {
				m["EndTime"] = a.end
			}
			found = append(found, m)
		}
	}
	return paged("ScheduledActions", found, in.NextToken, size)
}

func (s *Service) deleteScheduledAction(q *request) (any, error) {
	var in struct {
		targetInput
		ScheduledActionName string
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
	if t.scheduled[in.ScheduledActionName] == nil {
		return nil, apiErrorf("ObjectNotFoundException", "No scheduled action found for scheduled action name: %s", in.ScheduledActionName)
	}
	delete(t.scheduled, in.ScheduledActionName)
	return map[string]any{}, nil
}
