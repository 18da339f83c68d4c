package dynamo

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// secondsInput is a time parameter; "" when it is not given.
type secondsInput string

// UnmarshalJSON takes a number only.
func (n *secondsInput) UnmarshalJSON(b []byte) error {
	if _, err := strconv.ParseFloat(string(b), 64); err != nil && string(b) != "null" {
		return apiErrorf("SerializationException", "%s is not a time in seconds", b)
	}
	if string(b) != "null" {
		*n = secondsInput(b)
	}
	return nil
}

func (n secondsInput) time() (time.Time, error) {
	if n == "" {
		return time.Time{}, nil
	}
	return timeOf(json.Number(n))
}

// ttl is the time-to-live setting of a table.
type ttl struct {
	enabled   bool
	attribute string
	until     time.Time // of ENABLING or DISABLING
	next      time.Time // when it may be changed again
}

// active finds a table of which a setting is to be changed; with the lock held.
func (s *Service) active(q *request, name string) (*table, error) {
	t, err := s.find(q, name, "ResourceNotFoundException")
	if err != nil {
		return nil, err
	}
	if status := t.status(s.progress()); status != statusActive {
		return nil, apiErrorf("ResourceInUseException", "Attempt to change a resource which is still in use: the table %s is %s", t.name, status)
	}
	return t, nil
}

func (s *Service) updateTimeToLive(q *request) (any, error) {
	var in struct {
		TableName               string
		TimeToLiveSpecification *struct {
			AttributeName string
			Enabled       *bool
		}
	}
	if err := decode(q.body, &in); err != nil {
		return nil, err
	}
	p := in.TimeToLiveSpecification
	if p == nil || p.Enabled == nil || p.AttributeName == "" {
		return nil, invalidf("TimeToLiveSpecification needs AttributeName and Enabled")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.active(q, in.TableName)
	if err != nil {
		return nil, err
	}
	now := s.progress()
	switch {
	case now.Before(t.ttl.next):
		return nil, invalidf("Time to live has been modified multiple times within a fixed interval")
	case *p.Enabled && t.ttl.enabled:
		return nil, invalidf("TimeToLive is already enabled")
	case !*p.Enabled && !t.ttl.enabled:
		return nil, invalidf("TimeToLive is already disabled")
	case !*p.Enabled && p.AttributeName != t.ttl.attribute:
		return nil, invalidf("TimeToLive is active on a different AttributeName: current AttributeName is %s", t.ttl.attribute)
	}
	if err := s.room(q.scope.Account, false); err != nil {
		return nil, err
	}
	t.ttl = ttl{*p.Enabled, p.AttributeName, now.Add(s.Scaled(ttlTakes)), now.Add(s.Scaled(ttlPause))}
	return map[string]any{"TimeToLiveSpecification": p}, nil
}

func (s *Service) describeTimeToLive(q *request) (any, error) {
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
	status := "DISABLED"
	changing := s.progress().Before(t.ttl.until)
	switch {
	case t.ttl.enabled && changing:
		status = "ENABLING"
	case t.ttl.enabled:
		status = "ENABLED"
	case changing:
		status = "DISABLING"
	}
	d := map[string]any{"TimeToLiveStatus": status}
	if status != "DISABLED" {
		d["AttributeName"] = t.ttl.attribute
	}
	return map[string]any{"TimeToLiveDescription": d}, nil
}

// tagMap reads tags.
func tagMap(tags []tag) (map[string]string, error) {
	m := map[string]string{}
	for _, t := range tags {
		if t.Key == "" || len(t.Key) > 128 || len(t.Value) > 256 || strings.HasPrefix(strings.ToLower(t.Key), "aws:") {
			return nil, invalidf("One or more parameter values were invalid: the tag %q is not valid", t.Key)
		}
		if _, twice := m[t.Key]; twice {
			return nil, invalidf("One or more parameter values were invalid: the tag %q is given twice", t.Key)
		}
		m[t.Key] = t.Value
	}
	if len(m) > maxTags {
		return nil, invalidf("One or more parameter values were invalid: Too many tags: the limit is %d", maxTags)
	}
	return m, nil
}

const maxTags = 50

// byARN finds a table by the ARN that calls about tags want; with the lock held.
func (s *Service) byARN(q *request, arn string) (*table, error) {
	if !strings.HasPrefix(arn, "arn:") {
		return nil, invalidf("Invalid TableArn: %s", arn)
	}
	return s.find(q, arn, "ResourceNotFoundException")
}

// retag changes the tags of a table, which ListTagsOfResource shows later.
func (s *Service) retag(q *request, arn string, change func(tags map[string]string) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.byARN(q, arn)
	if err != nil {
		return err
	}
	now := s.progress()
	if status := t.status(now); status != statusActive {
		return apiErrorf("ResourceInUseException", "Attempt to change a resource which is still in use: the table %s is %s", t.name, status)
	}
	tags := maps.Clone(t.tags)
	if err := change(tags); err != nil {
		return err
	}
	if !now.Before(t.tagsAt) {
		t.shown = t.tags
	}
	t.tags, t.tagsAt = tags, now.Add(s.Scaled(tagsTake))
	return nil
}

func (s *Service) tagResource(q *request) (any, error) {
	var in struct {
		ResourceArn string
		Tags        []tag
	}
	if err := decode(q.body, &in); err != nil {
		return nil, err
	}
	added, err := tagMap(in.Tags)
	if err != nil {
		return nil, err
	}
	if len(added) == 0 {
		return nil, invalidf("The parameter 'Tags' is required but was not present in the request")
	}
	return nil, s.retag(q, in.ResourceArn, func(tags map[string]string) error {
		maps.Copy(tags, added)
		if len(tags) > maxTags {
			return invalidf("One or more parameter values were invalid: Too many tags: the limit is %d", maxTags)
		}
		return nil
	})
}

func (s *Service) untagResource(q *request) (any, error) {
	var in struct {
		ResourceArn string
		TagKeys     []string
	}
	if err := decode(q.body, &in); err != nil {
		return nil, err
	}
	if len(in.TagKeys) == 0 {
		return nil, invalidf("The parameter 'TagKeys' is required but was not present in the request")
	}
	return nil, s.retag(q, in.ResourceArn, func(tags map[string]string) error {
		for _, k := range in.TagKeys {
			delete(tags, k)
		}
		return nil
	})
}

// tagsPage is how many tags one answer has; the API has a page too, of which only the token is documented.
const tagsPage = 10

func (s *Service) listTagsOfResource(q *request) (any, error) {
	var in struct{ ResourceArn, NextToken string }
	if err := decode(q.body, &in); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.byARN(q, in.ResourceArn)
	if err != nil {
		return nil, err
	}
	tags := t.tags
	if s.progress().Before(t.tagsAt) {
		tags = t.shown
	}
	keys, next, ok := page(slices.Sorted(maps.Keys(tags)), in.NextToken, tagsPage)
	if !ok {
		return nil, invalidf("Invalid NextToken: %s", in.NextToken)
	}
	list := []tag{}
	for _, k := range keys {
		list = append(list, tag{k, tags[k]})
	}
	out := map[string]any{"Tags": list}
	if next != "" {
		out["NextToken"] = next
	}
	return out, nil
}

// page returns the part of a list that follows a token, and the next token.
func page[T any](all []T, token string, size int) (part []T, next string, ok bool) {
	from := 0
	if token != "" {
		n, err := strconv.Atoi(strings.TrimPrefix(token, "token-"))
		if err != nil || n <= 0 || n > len(all) {
			return nil, "", false
		}
		from = n
	}
	to := min(len(all), from+size)
	if to < len(all) {
		next = "token-" + strconv.Itoa(to)
	}
	return all[from:to], next, true
}

func (s *Service) updateContributorInsights(q *request) (any, error) {
	var in struct{ TableName, IndexName, ContributorInsightsAction string }
	if err := decode(q.body, &in); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.active(q, in.TableName)
	if err != nil {
		return nil, err
	}
	if err := t.hasIndex(in.IndexName); err != nil {
		return nil, err
	}
	switch in.ContributorInsightsAction {
	case "ENABLE":
		t.insights[in.IndexName] = "ENABLED"
	case "DISABLE":
		delete(t.insights, in.IndexName)
	default:
		return nil, invalidf("ContributorInsightsAction must be ENABLE or DISABLE, not %q", in.ContributorInsightsAction)
	}
	return t.insightsOf(in.IndexName), nil
}

func (s *Service) describeContributorInsights(q *request) (any, error) {
	var in struct{ TableName, IndexName string }
	if err := decode(q.body, &in); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.find(q, in.TableName, "ResourceNotFoundException")
	if err != nil {
		return nil, err
	}
	if err := t.hasIndex(in.IndexName); err != nil {
		return nil, err
	}
	return t.insightsOf(in.IndexName), nil
}

func (t *table) hasIndex(name string) error {
	if name != "" && !slices.ContainsFunc(t.spec.Global, func(i indexSpec) bool { return i.IndexName == name }) {
		return apiErrorf("ResourceNotFoundException", "Requested resource not found: Index: %s not found", name)
	}
	return nil
}

func (t *table) insightsOf(index string) map[string]any {
	out := map[string]any{"TableName": t.name, "ContributorInsightsStatus": "DISABLED"}
	if status := t.insights[index]; status != "" {
		out["ContributorInsightsStatus"] = status
	}
	if index != "" {
		out["IndexName"] = index
	}
	return out
}
