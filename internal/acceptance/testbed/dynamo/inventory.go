package dynamo

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Object is one thing that an account has, and pays for.
type Object struct {
	Kind   string // table, backup, scalable target, scaling policy, scheduled action
	Scope  Scope
	Name   string // of a target: resource and dimension
	ID     string // the table's id; the ARN of the others
	Status string
	Tags   map[string]string
	// Settings are those that a restore loses, and some more: "pitr" (days), "ttl" (attribute), "stream" (view type), "protected", "billing",
	// "read", "write", "class", "kms", "insights"; of a backup "type" and "table"; of a target "min", "max"; of a policy "target value".
	Settings map[string]string
}

// String is one line, the same for the same object.
func (o Object) String() string {
	list := func(m map[string]string) string {
		var all []string
		for _, k := range slices.Sorted(maps.Keys(m)) {
			all = append(all, k+"="+m[k])
		}
		return strings.Join(all, " ")
	}
	return fmt.Sprintf("%s %s %s (%s) %s tags{%s} %s", o.Scope, o.Kind, o.Name, o.ID, o.Status, list(o.Tags), list(o.Settings))
}

// Inventory is everything there is in all accounts and regions, SYSTEM backups included, sorted.
func (s *Service) Inventory() []Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Object
	for _, c := range slices.Collect(maps.Keys(s.spaces)) {
		p := s.space(c)
		for _, t := range p.tables {
			all = append(all, Object{"table", c, t.name, t.id, t.status(s.progress()), maps.Clone(t.tags), t.settings()})
		}
		for _, b := range p.backups {
			all = append(all, Object{"backup", c, b.name, b.arn, fmt.Sprint(s.details(b)["BackupStatus"]), nil, map[string]string{"type": b.kind, "table": b.tableName}})
		}
		for _, t := range p.targets {
			name := t.Resource + " " + t.Dimension
			all = append(all, Object{"scalable target", c, name, t.arn, "", maps.Clone(t.tags), map[string]string{"min": fmt.Sprint(t.low), "max": fmt.Sprint(t.high)}})
			for _, o := range t.scheduled {
				all = append(all, Object{"scheduled action", c, name + " " + o.name, o.arn, "", nil, map[string]string{"schedule": o.schedule}})
			}
			for _, o := range t.policies {
				all = append(all, Object{"scaling policy", c, name + " " + o.name, o.arn, "", nil, map[string]string{"target value": fmt.Sprint(*o.tracking.TargetValue)}})
			}
		}
	}
	slices.SortFunc(all, func(a, b Object) int { return strings.Compare(a.String(), b.String()) })
	return all
}

// settings are those of a table; with the lock held.
func (t *table) settings() map[string]string {
	m := map[string]string{"billing": t.spec.Billing}
	set := func(key, value string, is bool) {
		if is {
			m[key] = value
		}
	}
	set("read", fmt.Sprint(t.spec.Throughput.ReadCapacityUnits), t.spec.Billing == "PROVISIONED")
	set("write", fmt.Sprint(t.spec.Throughput.WriteCapacityUnits), t.spec.Billing == "PROVISIONED")
	set("pitr", fmt.Sprint(t.pitr.days), t.pitr.enabled)
	set("ttl", t.ttl.attribute, t.ttl.enabled)
	if t.stream != nil {
		m["stream"] = t.stream.StreamViewType
	}
	set("protected", "true", t.protect)
	set("class", t.spec.Class, t.spec.Class != "")
	set("kms", t.spec.KMSKey, t.spec.KMS)
	set("insights", strings.Join(slices.Sorted(maps.Keys(t.insights)), ","), len(t.insights) > 0)
	return m
}
