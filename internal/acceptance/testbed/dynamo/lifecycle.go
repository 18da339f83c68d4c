package dynamo

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// room checks the limits of simultaneous operations; with the lock held.
func (s *Service) room(account string, restore bool) error {
	operations, restores := 0, 0
	now := s.progress()
	for c, p := range s.spaces {
		if c.Account != account {
			continue
		}
		for _, r := range p.reserved {
			operations++
			if r {
				restores++
			}
		}
		for _, t := range p.tables {
			status := t.status(now)
			if status != statusActive || now.Before(t.ttl.until) {
				operations++
			}
			if t.restore != nil && status == statusCreating {
				restores++
			}
		}
	}
	if restore && restores >= s.options.MaxRestores {
		return apiErrorf("LimitExceededException", "Subscriber limit exceeded: There is a limit of %d simultaneous restores per subscriber.", s.options.MaxRestores)
	}
	if operations >= s.options.MaxOperations {
		return apiErrorf("LimitExceededException", "Subscriber limit exceeded: Only %d online index or table operations can run simultaneously per subscriber.", s.options.MaxOperations)
	}
	return nil
}

// settings of a new table, beside its spec.
type settings struct {
	protect bool
	stream  *streamSpecification
	tags    map[string]string
	restore *restoreSummary
	takes   time.Duration // not yet scaled
}

// make makes a table, which is CREATING when it returns. taken makes the error for a name that is used.
func (s *Service) make(c Scope, name string, p spec, o settings, items []write, taken func(status string) error) (map[string]any, error) {
	s.mu.Lock()
	sp := s.space(c)
	err := s.room(c.Account, o.restore != nil)
	if t := sp.tables[name]; t != nil {
		err = taken(t.status(s.progress()))
	} else if _, reserved := sp.reserved[name]; reserved {
		err = taken(statusCreating)
	}
	if err == nil {
		sp.reserved[name] = o.restore != nil
	}
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	id := s.newID()
	_, err = s.forward(c, "CreateTable", createBody(name, p))

	s.mu.Lock()
	defer s.mu.Unlock()
	delete(sp.reserved, name)
	if err != nil {
		return nil, err
	}
	now := s.progress()
	t := &table{
		scope: c, name: name, id: id, created: s.Now(), spec: p, status0: statusCreating, until: now.Add(s.Scaled(o.takes)),
		protect: o.protect, tags: o.tags, restore: o.restore, counted: now, copying: len(items) > 0, insights: map[string]string{},
	}
	t.ready = t.until
	if t.tags == nil {
		t.tags = map[string]string{}
	}
	for _, k := range p.Keys {
		t.keys = append(t.keys, k.AttributeName)
	}
	if o.stream != nil && o.stream.StreamEnabled {
		t.stream, t.label = o.stream, s.Now().UTC().Format("2006-01-02T15:04:05.000")
	}
	sp.tables[name] = t
	if t.copying && !s.stopping {
		s.work.Go(func() { s.fill(t, items) })
	}
	return s.describe(t), nil
}

func createBody(name string, p spec) []byte {
	b := map[string]any{"TableName": name, "AttributeDefinitions": p.Attributes, "KeySchema": p.Keys, "BillingMode": p.Billing}
	if p.Billing == "PROVISIONED" {
		b["ProvisionedThroughput"] = p.Throughput
	}
	if len(p.Local) > 0 {
		b["LocalSecondaryIndexes"] = p.Local
	}
	if len(p.Global) > 0 {
		global := slices.Clone(p.Global)
		for i := range global {
			global[i].OnDemandThroughput = nil
			if p.Billing != "PROVISIONED" {
				global[i].ProvisionedThroughput = nil
			}
		}
		b["GlobalSecondaryIndexes"] = global
	}
	return mustMarshal(b)
}

// batchSize is BatchWriteItem's limit.
const batchSize = 25

// fill puts the items of a restored table, several batches at once.
func (s *Service) fill(t *table, items []write) {
	var batches sync.WaitGroup
	for batch := range slices.Chunk(items, batchSize) {
		batches.Go(func() {
			s.copies <- struct{}{}
			defer func() { <-s.copies }()
			puts := make([]map[string]any, 0, len(batch))
			for _, w := range batch {
				puts = append(puts, map[string]any{"PutRequest": map[string]any{"Item": w.item}})
			}
			if _, err := s.forward(t.scope, "BatchWriteItem", mustMarshal(map[string]any{"RequestItems": map[string]any{t.name: puts}})); err != nil {
				s.broken(fmt.Errorf("copying items to %s: %w", t.name, err))
			}
		})
	}
	batches.Wait()
	t.history.record(t.history.stamp(s.Now()), items...)
	s.mu.Lock()
	defer s.mu.Unlock()
	t.copying = false
	if now := s.progress(); now.After(t.ready) {
		t.ready = now
	}
}

type createTableInput struct {
	TableName                                     string
	AttributeDefinitions                          []attributeDefinition
	KeySchema                                     []keyElement
	BillingMode                                   string
	ProvisionedThroughput                         *throughput
	OnDemandThroughput                            *onDemand
	GlobalSecondaryIndexes, LocalSecondaryIndexes []indexSpec
	StreamSpecification                           *streamSpecification
	SSESpecification                              *sseInput
	TableClass                                    string
	DeletionProtectionEnabled                     bool
	Tags                                          []tag
}

type sseInput struct {
	Enabled        *bool
	SSEType        string
	KMSMasterKeyId string //nolint:revive // the API's name
}

func (s *Service) createTable(q *request) (any, error) {
	var in createTableInput
	if err := decode(q.body, &in); err != nil {
		return nil, err
	}
	name, err := nameOf(q.scope, "TableName", in.TableName)
	if err != nil {
		return nil, err
	}
	p := spec{
		Attributes: in.AttributeDefinitions, Keys: in.KeySchema, Billing: in.BillingMode, OnDemand: in.OnDemandThroughput, Global: in.GlobalSecondaryIndexes,
		Local: in.LocalSecondaryIndexes, Class: in.TableClass,
	}
	if p.Billing == "" {
		p.Billing = "PROVISIONED"
	}
	if in.ProvisionedThroughput != nil {
		if p.Billing != "PROVISIONED" {
			return nil, invalidf("One or more parameter values were invalid: Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is PAY_PER_REQUEST")
		}
		p.Throughput = *in.ProvisionedThroughput
	}
	if err := s.encrypt(&p, q.scope, in.SSESpecification); err != nil {
		return nil, err
	}
	tags, err := tagMap(in.Tags)
	if err != nil {
		return nil, err
	}
	d, err := s.make(q.scope, name, p, settings{protect: in.DeletionProtectionEnabled, stream: in.StreamSpecification, tags: tags, takes: createTakes}, nil,
		func(string) error { return apiErrorf("ResourceInUseException", "Table already exists: %s", name) })
	return map[string]any{"TableDescription": d}, err
}

// encrypt sets the key of a spec.
func (s *Service) encrypt(p *spec, c Scope, in *sseInput) error {
	if in == nil {
		return nil
	}
	if in.SSEType != "" && in.SSEType != "KMS" {
		return invalidf("One or more parameter values were invalid: SSEType %s is not supported", in.SSEType)
	}
	if in.Enabled == nil || !*in.Enabled {
		if in.KMSMasterKeyId != "" {
			return invalidf("One or more parameter values were invalid: KMSMasterKeyId can be specified only if SSE is enabled")
		}
		p.KMS, p.KMSKey = false, ""
		return nil
	}
	p.KMS, p.KMSKey = true, in.KMSMasterKeyId
	if key := in.KMSMasterKeyId; key != "" && key != "alias/aws/dynamodb" {
		if !slices.Contains(s.options.KMSKeys, key) || !strings.HasPrefix(key, "arn:aws:kms:"+c.Region+":") {
			return invalidf("KMS validation error: com.amazonaws.services.kms.model.NotFoundException: Key '%s' does not exist", key)
		}
	}
	return nil
}

func (s *Service) deleteTable(q *request) (any, error) {
	var in struct{ TableName string }
	if err := decode(q.body, &in); err != nil {
		return nil, err
	}
	s.mu.Lock()
	t, err := s.find(q, in.TableName, "ResourceNotFoundException")
	if err != nil {
		s.mu.Unlock()
		return nil, err
	}
	now := s.progress()
	switch {
	case t.deleting:
		d := s.describe(t)
		s.mu.Unlock()
		return map[string]any{"TableDescription": d}, nil
	case t.protect:
		err = invalidf("Resource cannot be deleted as it is currently protected against deletion. Disable deletion protection first.")
	case t.status(now) != statusActive:
		err = apiErrorf("ResourceInUseException", "Attempt to change a resource which is still in use: Table is being %s: %s",
			map[string]string{statusCreating: "created", statusUpdating: "updated"}[t.status(now)], t.name)
	case s.backupRuns(t):
		err = apiErrorf("ResourceInUseException", "Attempt to change a resource which is still in use: a backup of the table is being created: %s", t.name)
	default:
		err = s.room(q.scope.Account, false)
	}
	if err != nil {
		s.mu.Unlock()
		return nil, err
	}
	t.deleting, t.until = true, now.Add(s.Scaled(deleteTakes))
	d := s.describe(t)
	s.mu.Unlock()

	t.writes.Lock() // what is being written is written first
	defer t.writes.Unlock()
	if _, err := s.forward(q.scope, "DeleteTable", mustMarshal(map[string]string{"TableName": t.name})); err != nil {
		return nil, fmt.Errorf("deleting %s: %w", t.name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t.dropped = true
	if t.pitr.enabled {
		s.systemBackup(t)
	}
	return map[string]any{"TableDescription": d}, nil
}
