package dynamo

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	statusCreating = "CREATING"
	statusUpdating = "UPDATING"
	statusDeleting = "DELETING"
	statusActive   = "ACTIVE"
)

type throughput struct {
	ReadCapacityUnits, WriteCapacityUnits int64
}

type onDemand struct {
	MaxReadRequestUnits  *int64 `json:",omitempty"`
	MaxWriteRequestUnits *int64 `json:",omitempty"`
}

type keyElement struct{ AttributeName, KeyType string }

type attributeDefinition struct{ AttributeName, AttributeType string }

type projection struct {
	ProjectionType   string
	NonKeyAttributes []string `json:",omitempty"`
}

type indexSpec struct {
	IndexName             string
	KeySchema             []keyElement
	Projection            *projection `json:",omitempty"`
	ProvisionedThroughput *throughput `json:",omitempty"`
	OnDemandThroughput    *onDemand   `json:",omitempty"`
}

type streamSpecification struct {
	StreamEnabled  bool
	StreamViewType string `json:",omitempty"`
}

type tag struct{ Key, Value string }

// spec is what a table is made of, and what a restore takes over.
type spec struct {
	Attributes []attributeDefinition
	Keys       []keyElement
	Billing    string // PROVISIONED or PAY_PER_REQUEST
	Throughput throughput
	OnDemand   *onDemand
	Global     []indexSpec
	Local      []indexSpec
	Class      string // "" is STANDARD, never set
	KMSKey     string // an ARN; "" without a customer key
	KMS        bool   // encrypted by a key of KMS, AWS's own or the customer's
}

func (p spec) clone() spec {
	p.Attributes, p.Keys, p.Global, p.Local = slices.Clone(p.Attributes), slices.Clone(p.Keys), slices.Clone(p.Global), slices.Clone(p.Local)
	return p
}

type restoreSummary struct {
	SourceTableArn, SourceBackupArn string
	At                              time.Time
}

type table struct {
	scope   Scope
	name    string
	id      string
	created time.Time
	keys    []string // names of the key attributes
	history history
	writes  sync.Mutex // held while something is written; never taken with Service.mu held

	// All below is guarded by Service.mu. Its times are the machine's, so that a step of the service's clock leaves the life of a table as it is.
	spec     spec
	status0  string    // what it is until the time below: CREATING, UPDATING or DELETING
	until    time.Time // of status0
	ready    time.Time // when it first is ACTIVE
	copying  bool      // a restore that has not put all items yet
	deleting bool
	dropped  bool // from DynamoDB Local
	restore  *restoreSummary
	protect  bool
	stream   *streamSpecification
	label    string // of the latest stream
	tags     map[string]string
	shown    map[string]string // the tags that ListTagsOfResource shows until the time below
	tagsAt   time.Time
	ttl      ttl
	pitr     pitr
	insights map[string]string // by index: ENABLED
	counted  time.Time
	count    int
	bytes    int
}

func (t *table) arn() string { return tableARN(t.scope, t.name) }

func tableARN(c Scope, name string) string {
	return fmt.Sprintf("arn:aws:dynamodb:%s:%s:table/%s", c.Region, c.Account, name)
}

func (t *table) status(now time.Time) string {
	if t.deleting {
		return statusDeleting
	}
	if t.copying {
		return statusCreating
	}
	if now.Before(t.until) {
		return t.status0
	}
	return statusActive
}

// indexStatus is that of its indexes: a restore or an update makes them with the table.
func (t *table) indexStatus(now time.Time) string {
	if s := t.status(now); s != statusUpdating {
		return s
	}
	return statusActive
}

func capacity(p throughput) map[string]any {
	return map[string]any{"ReadCapacityUnits": p.ReadCapacityUnits, "WriteCapacityUnits": p.WriteCapacityUnits, "NumberOfDecreasesToday": 0}
}

// describe is the API's TableDescription; with the lock held.
func (s *Service) describe(t *table) map[string]any {
	now := s.progress()
	if now.Sub(t.counted) >= s.Scaled(countsTake) {
		t.counted = now
		t.count, t.bytes = t.history.size()
	}
	d := map[string]any{
		"TableName": t.name, "TableArn": t.arn(), "TableId": t.id, "TableStatus": t.status(now), "CreationDateTime": seconds(t.created),
		"AttributeDefinitions": t.spec.Attributes, "KeySchema": t.spec.Keys, "ProvisionedThroughput": capacity(t.spec.Throughput),
		"ItemCount": t.count, "TableSizeBytes": t.bytes, "DeletionProtectionEnabled": t.protect,
	}
	if t.spec.Billing == "PAY_PER_REQUEST" {
		d["BillingModeSummary"] = map[string]any{"BillingMode": t.spec.Billing, "LastUpdateToPayPerRequestDateTime": seconds(t.created)}
	}
	if t.spec.OnDemand != nil {
		d["OnDemandThroughput"] = t.spec.OnDemand
	}
	if t.spec.Class != "" {
		d["TableClassSummary"] = map[string]any{"TableClass": t.spec.Class}
	}
	if sse := t.sse(); sse != nil {
		d["SSEDescription"] = sse
	}
	if t.label != "" {
		d["LatestStreamLabel"], d["LatestStreamArn"] = t.label, t.arn()+"/stream/"+t.label
	}
	if t.stream != nil {
		d["StreamSpecification"] = t.stream
	}
	if r := t.restore; r != nil {
		m := map[string]any{"RestoreDateTime": seconds(r.At), "RestoreInProgress": t.status(now) == statusCreating, "SourceTableArn": r.SourceTableArn}
		if r.SourceBackupArn != "" {
			m["SourceBackupArn"] = r.SourceBackupArn
		}
		d["RestoreSummary"] = m
	}
	var global, local []map[string]any
	for _, i := range t.spec.Global {
		m := map[string]any{
			"IndexName": i.IndexName, "KeySchema": i.KeySchema, "Projection": i.Projection, "IndexStatus": t.indexStatus(now), "IndexArn": t.arn() + "/index/" + i.IndexName,
			"ItemCount": t.count, "IndexSizeBytes": t.bytes,
		}
		var p throughput
		if i.ProvisionedThroughput != nil {
			p = *i.ProvisionedThroughput
		}
		m["ProvisionedThroughput"] = capacity(p)
		if i.OnDemandThroughput != nil {
			m["OnDemandThroughput"] = i.OnDemandThroughput
		}
		global = append(global, m)
	}
	for _, i := range t.spec.Local {
		local = append(local, map[string]any{
			"IndexName": i.IndexName, "KeySchema": i.KeySchema, "Projection": i.Projection, "IndexArn": t.arn() + "/index/" + i.IndexName,
			"ItemCount": t.count, "IndexSizeBytes": t.bytes,
		})
	}
	if global != nil {
		d["GlobalSecondaryIndexes"] = global
	}
	if local != nil {
		d["LocalSecondaryIndexes"] = local
	}
	return d
}

func (t *table) sse() map[string]any {
	if !t.spec.KMS {
		return nil
	}
	key := t.spec.KMSKey
	if key == "" {
		key = fmt.Sprintf("arn:aws:kms:%s:%s:key/aws-owned-alias-of-dynamodb", t.scope.Region, t.scope.Account)
	}
	return map[string]any{"Status": "ENABLED", "SSEType": "KMS", "KMSMasterKeyArn": key}
}

var tableName = regexp.MustCompile(`^[a-zA-Z0-9_.-]{3,255}$`)

// nameOf reads a table's name, or its ARN, in a parameter; other accounts' tables are refused.
func nameOf(c Scope, parameter, value string) (string, error) {
	if value == "" {
		return "", invalidf("The parameter '%s' is required but was not present in the request", parameter)
	}
	if strings.HasPrefix(value, "arn:") {
		scope, name, err := parseTableARN(value)
		if err != nil {
			return "", err
		}
		if scope.Account != c.Account {
			return "", apiErrorf("AccessDeniedException", "the account %s may not use %s", c.Account, value)
		}
		if scope.Region != c.Region {
			return "", invalidf("%s is in another region than the request, which is for %s", value, c.Region)
		}
		return name, nil
	}
	if !tableName.MatchString(value) {
		return "", invalidf("Invalid table/index name.  Table/index names must be between 3 and 255 characters long, and may contain only the characters a-z, A-Z, 0-9, '_', '-', and '.'")
	}
	return value, nil
}

var tableARNs = regexp.MustCompile(`^arn:aws:dynamodb:([a-z0-9-]+):(\d{12}):table/([a-zA-Z0-9_.-]{3,255})$`)

func parseTableARN(arn string) (Scope, string, error) {
	m := tableARNs.FindStringSubmatch(arn)
	if m == nil {
		return Scope{}, "", invalidf("Invalid TableArn: %s", arn)
	}
	return Scope{Account: m[2], Region: m[1]}, m[3], nil
}

// find returns a table by its name or ARN; with the lock held. missing is the error's type.
func (s *Service) find(q *request, value, missing string) (*table, error) {
	name, err := nameOf(q.scope, "TableName", value)
	if err != nil {
		return nil, err
	}
	t := s.space(q.scope).tables[name]
	if t == nil {
		if missing == "TableNotFoundException" {
			return nil, apiErrorf(missing, "Table not found: %s", name)
		}
		return nil, apiErrorf(missing, "Requested resource not found: Table: %s not found", name)
	}
	return t, nil
}

func (s *Service) newID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, b := s.random.Uint64(), s.random.Uint64()
	return fmt.Sprintf("%08x-%04x-4%03x-a%03x-%012x", a>>32, a>>16&0xffff, a&0xfff, b>>48&0xfff, b&0xffffffffffff)
}

func (s *Service) describeTable(q *request) (any, error) {
	var in struct{ TableName string }
	if err := decode(q.body, &in); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.find(q, in.TableName, "ResourceNotFoundException")
	if err != nil {
		return nil, err
	}
	return map[string]any{"Table": s.describe(t)}, nil
}

func (s *Service) listTables(q *request) (any, error) {
	var in struct {
		ExclusiveStartTableName string
		Limit                   *int
	}
	if err := decode(q.body, &in); err != nil {
		return nil, err
	}
	limit, err := limitOf(in.Limit)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	names := []string{}
	out := map[string]any{}
	for _, n := range slices.Sorted(maps.Keys(s.space(q.scope).tables)) {
		if n <= in.ExclusiveStartTableName {
			continue
		}
		if len(names) == limit {
			out["LastEvaluatedTableName"] = names[limit-1]
			break
		}
		names = append(names, n)
	}
	out["TableNames"] = names
	return out, nil
}

// limitOf reads a page's size, which is 1 to 100, and 100 by default.
func limitOf(n *int) (int, error) {
	if n == nil {
		return 100, nil
	}
	if *n < 1 || *n > 100 {
		return 0, invalidf("1 validation error detected: Value '%d' at 'limit' failed to satisfy constraint: Member must have value between 1 and 100", *n)
	}
	return *n, nil
}

func (s *Service) describeLimits(q *request) (any, error) {
	if err := decode(q.body, &struct{}{}); err != nil {
		return nil, err
	}
	return map[string]any{
		"AccountMaxReadCapacityUnits": 80000, "AccountMaxWriteCapacityUnits": 80000, "TableMaxReadCapacityUnits": 40000, "TableMaxWriteCapacityUnits": 40000,
	}, nil
}
