package dynamo

import (
	"slices"
)

type indexUpdate struct {
	Create *indexSpec
	Update *struct {
		IndexName             string
		ProvisionedThroughput *throughput
		OnDemandThroughput    *onDemand
	}
	Delete *struct{ IndexName string }
}

type updateTableInput struct {
	TableName                   string
	AttributeDefinitions        []attributeDefinition `json:",omitempty"`
	BillingMode                 string                `json:",omitempty"`
	ProvisionedThroughput       *throughput           `json:",omitempty"`
	OnDemandThroughput          *onDemand             `json:",omitempty"`
	GlobalSecondaryIndexUpdates []indexUpdate         `json:",omitempty"`
	StreamSpecification         *streamSpecification  `json:",omitempty"`
	SSESpecification            *sseInput             `json:",omitempty"`
	TableClass                  string                `json:",omitempty"`
	DeletionProtectionEnabled   *bool                 `json:",omitempty"`
}

func (s *Service) updateTable(q *request) (any, error) {
	var in updateTableInput
	if err := decode(q.body, &in); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.find(q, in.TableName, "ResourceNotFoundException")
	if err != nil {
		return nil, err
	}
	now := s.progress()
	if t.status(now) != statusActive {
		return nil, apiErrorf("ResourceInUseException", "Attempt to change a resource which is still in use: Table is being updated: %s", t.name)
	}
	capacity := in.BillingMode != "" || in.ProvisionedThroughput != nil || in.OnDemandThroughput != nil || len(in.GlobalSecondaryIndexUpdates) > 0
	others := in.StreamSpecification != nil || in.SSESpecification != nil || in.DeletionProtectionEnabled != nil
	switch {
	case !capacity && !others && in.TableClass == "":
		return nil, invalidf("At least one of ProvisionedThroughput, BillingMode, UpdateStreamEnabled, GlobalSecondaryIndexUpdates or SSESpecification or ReplicaUpdates is required")
	case in.TableClass != "" && (capacity || others):
		return nil, invalidf("One or more parameter values were invalid: Table class cannot be changed together with other values")
	}
	if err := s.room(q.scope.Account, false); err != nil {
		return nil, err
	}
	p := t.spec.clone()
	if err := s.encrypt(&p, q.scope, in.SSESpecification); err != nil {
		return nil, err
	}
	if st := in.StreamSpecification; st != nil {
		switch {
		case st.StreamEnabled && t.stream != nil:
			return nil, invalidf("Table already has an enabled stream: TableName: %s", t.name)
		case !st.StreamEnabled && t.stream == nil:
			return nil, invalidf("Table has no stream to disable: TableName: %s", t.name)
		case st.StreamEnabled && !slices.Contains([]string{"KEYS_ONLY", "NEW_IMAGE", "OLD_IMAGE", "NEW_AND_OLD_IMAGES"}, st.StreamViewType):
			return nil, invalidf("One or more parameter values were invalid: StreamViewType is required when a stream is enabled")
		}
	}
	if capacity {
		if err := s.updateCapacity(t, in, &p); err != nil {
			return nil, err
		}
	}
	if in.TableClass != "" {
		p.Class = in.TableClass
	}
	t.spec = p
	if st := in.StreamSpecification; st != nil {
		t.stream = nil
		if st.StreamEnabled {
			t.stream, t.label = st, s.Now().UTC().Format("2006-01-02T15:04:05.000")
		}
	}
	if in.DeletionProtectionEnabled != nil {
		t.protect = *in.DeletionProtectionEnabled
	}
	t.status0, t.until = statusUpdating, now.Add(s.Scaled(updateTakes))
	return map[string]any{"TableDescription": s.describe(t)}, nil
}

// updateCapacity changes billing, capacity and indexes: DynamoDB Local checks it, and does it.
func (s *Service) updateCapacity(t *table, in updateTableInput, p *spec) error {
	if in.BillingMode == "PROVISIONED" && t.spec.Billing != "PROVISIONED" && in.ProvisionedThroughput == nil {
		return invalidf("One or more parameter values were invalid: ProvisionedThroughput must be specified when BillingMode is PROVISIONED")
	}
	if in.BillingMode != "" {
		p.Billing = in.BillingMode
	}
	if in.ProvisionedThroughput != nil {
		p.Throughput = *in.ProvisionedThroughput
	}
	if p.Billing == "PAY_PER_REQUEST" {
		if in.ProvisionedThroughput != nil {
			return invalidf("One or more parameter values were invalid: Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is PAY_PER_REQUEST")
		}
		p.Throughput = throughput{}
	}
	if in.OnDemandThroughput != nil {
		if p.Billing != "PAY_PER_REQUEST" {
			return invalidf("One or more parameter values were invalid: OnDemandThroughput can be specified only when BillingMode is PAY_PER_REQUEST")
		}
		p.OnDemand = in.OnDemandThroughput
	}
	made := 0
	for _, u := range in.GlobalSecondaryIndexUpdates {
		at := func(name string) int {
			return slices.IndexFunc(p.Global, func(i indexSpec) bool { return i.IndexName == name })
		}
		switch {
		case u.Create != nil:
			p.Global = append(p.Global, *u.Create)
			made++
		case u.Delete != nil:
			if i := at(u.Delete.IndexName); i >= 0 {
				p.Global = slices.Delete(p.Global, i, i+1)
			}
			made++
		case u.Update != nil:
			i := at(u.Update.IndexName)
			if i < 0 {
				return invalidf("One or more parameter values were invalid: the table has no index %s", u.Update.IndexName)
			}
			if u.Update.ProvisionedThroughput != nil {
				p.Global[i].ProvisionedThroughput = u.Update.ProvisionedThroughput
			}
			if u.Update.OnDemandThroughput != nil {
				p.Global[i].OnDemandThroughput = u.Update.OnDemandThroughput
			}
		}
	}
	if made > 1 {
		return apiErrorf("LimitExceededException", "Subscriber limit exceeded: Only 1 online index can be created or deleted simultaneously per table")
	}
	if len(in.AttributeDefinitions) > 0 {
		known := map[string]bool{}
		for _, a := range p.Attributes {
			known[a.AttributeName] = true
		}
		for _, a := range in.AttributeDefinitions {
			if !known[a.AttributeName] {
				p.Attributes = append(p.Attributes, a)
			}
		}
	}
	p.Attributes = usedAttributes(*p)
	if in.BillingMode == "" && in.ProvisionedThroughput == nil && len(in.GlobalSecondaryIndexUpdates) == 0 {
		return nil // maximum units of on-demand tables, which DynamoDB Local does not know
	}
	return s.updateLocal(t, in)
}

// updateLocal passes on what DynamoDB Local knows of an update.
func (s *Service) updateLocal(t *table, in updateTableInput) error {
	body := map[string]any{"TableName": t.name}
	if in.BillingMode != "" {
		body["BillingMode"] = in.BillingMode
	}
	if in.ProvisionedThroughput != nil {
		body["ProvisionedThroughput"] = in.ProvisionedThroughput
	}
	if len(in.AttributeDefinitions) > 0 {
		body["AttributeDefinitions"] = in.AttributeDefinitions
	}
	var updates []map[string]any
	for _, u := range in.GlobalSecondaryIndexUpdates {
		switch {
		case u.Create != nil:
			c := *u.Create
			c.OnDemandThroughput = nil
			updates = append(updates, map[string]any{"Create": c})
		case u.Delete != nil:
			updates = append(updates, map[string]any{"Delete": u.Delete})
		case u.Update != nil && u.Update.ProvisionedThroughput != nil:
			updates = append(updates, map[string]any{"Update": map[string]any{"IndexName": u.Update.IndexName, "ProvisionedThroughput": u.Update.ProvisionedThroughput}})
		}
	}
	if updates != nil {
		body["GlobalSecondaryIndexUpdates"] = updates
	}
	_, err := s.forward(t.scope, "UpdateTable", mustMarshal(body))
	return err
}

// usedAttributes are the definitions that keys use: an index that is gone takes its own with it.
func usedAttributes(p spec) []attributeDefinition {
	used := map[string]bool{}
	mark := func(keys []keyElement) {
		for _, k := range keys {
			used[k.AttributeName] = true
		}
	}
	mark(p.Keys)
	for _, i := range slices.Concat(p.Global, p.Local) {
		mark(i.KeySchema)
	}
	var all []attributeDefinition
	for _, a := range p.Attributes {
		if used[a.AttributeName] {
			all = append(all, a)
		}
	}
	return all
}
