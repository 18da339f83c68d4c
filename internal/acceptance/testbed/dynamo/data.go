package dynamo

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// usable returns the tables that a data-plane call names, in the order of their names. Tables that are CREATING or DELETING have no items to show.
func (s *Service) usable(c Scope, names []string) ([]*table, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	tables := make([]*table, 0, len(names))
	now := s.progress()
	for _, name := range names {
		if strings.HasPrefix(name, "arn:") {
			return nil, invalidf("this stand-in knows tables of the data plane by name only: %s", name)
		}
		t := s.space(c).tables[name]
		if t == nil || t.status(now) == statusCreating || t.deleting {
			return nil, apiErrorf("ResourceNotFoundException", "Requested resource not found: Table: %s not found", name)
		}
		tables = append(tables, t)
	}
	return tables, nil
}

// named are the tables that a body of any data-plane call names.
func named(body []byte) ([]string, error) {
	type one struct{ TableName string }
	var b struct {
		TableName     string
		RequestItems  map[string]json.RawMessage
		TransactItems []struct{ Get, Put, Update, Delete, ConditionCheck *one }
	}
	if err := json.Unmarshal(body, &b); err != nil {
		return nil, apiErrorf("SerializationException", "%v", err)
	}
	var names []string
	if b.TableName != "" {
		names = append(names, b.TableName)
	}
	names = slices.AppendSeq(names, maps.Keys(b.RequestItems))
	for _, i := range b.TransactItems {
		for _, o := range []*one{i.Get, i.Put, i.Update, i.Delete, i.ConditionCheck} {
			if o != nil && o.TableName != "" {
				names = append(names, o.TableName)
			}
		}
	}
	if len(names) == 0 {
		return nil, invalidf("no table is named")
	}
	return names, nil
}

// read passes a call on that changes nothing.
func (s *Service) read(q *request) (any, error) {
	names, err := named(q.body)
	if err != nil {
		return nil, err
	}
	if _, err := s.usable(q.scope, names); err != nil {
		return nil, err
	}
	out, err := s.forward(q.scope, q.op, q.body)
	return answer(out), err
}

// change forwards a call that writes, alone on its tables, and records what it wrote. The commit time is one for all tables, between request and answer.
func (s *Service) change(q *request, body []byte, wrote func(tables map[string]*table, out []byte) (map[string][]write, error)) ([]byte, error) {
	names, err := named(q.body)
	if err != nil {
		return nil, err
	}
	tables, err := s.usable(q.scope, names)
	if err != nil {
		return nil, err
	}
	by := map[string]*table{}
	for _, t := range tables {
		t.writes.Lock()
		defer t.writes.Unlock()
		by[t.name] = t
	}
	// Once more: one may have been deleted, and made anew, while this waited.
	again, err := s.usable(q.scope, names)
	if err != nil {
		return nil, err
	}
	if !slices.Equal(tables, again) {
		return nil, apiErrorf("ResourceNotFoundException", "Requested resource not found")
	}
	out, err := s.forward(q.scope, q.op, body)
	if err != nil {
		return nil, err
	}
	writes, err := wrote(by, out)
	if err != nil {
		return nil, fmt.Errorf("recording what %s wrote: %w", q.op, err)
	}
	var at time.Time
	for _, t := range tables {
		if stamp := t.history.stamp(s.Now()); stamp.After(at) {
			at = stamp
		}
	}
	for _, t := range tables {
		if w := writes[t.name]; len(w) > 0 {
			t.history.record(at, w...)
		}
	}
	return out, nil
}

func one(t *table, attributes, item json.RawMessage) (map[string][]write, error) {
	key, err := canonicalKey(t.keys, attributes)
	if err != nil {
		return nil, err
	}
	return map[string][]write{t.name: {{key, item}}}, nil
}

func (s *Service) putItem(q *request) (any, error) {
	var b struct {
		TableName string
		Item      json.RawMessage
	}
	if err := json.Unmarshal(q.body, &b); err != nil {
		return nil, apiErrorf("SerializationException", "%v", err)
	}
	out, err := s.change(q, q.body, func(tables map[string]*table, _ []byte) (map[string][]write, error) {
		return one(tables[b.TableName], b.Item, b.Item)
	})
	return answer(out), err
}

func (s *Service) deleteItem(q *request) (any, error) {
	var b struct {
		TableName string
		Key       json.RawMessage
	}
	if err := json.Unmarshal(q.body, &b); err != nil {
		return nil, apiErrorf("SerializationException", "%v", err)
	}
	out, err := s.change(q, q.body, func(tables map[string]*table, _ []byte) (map[string][]write, error) {
		return one(tables[b.TableName], b.Key, nil)
	})
	return answer(out), err
}

// updateItem asks for the new image itself where the client asks for nothing.
func (s *Service) updateItem(q *request) (any, error) {
	var b struct {
		TableName    string
		Key          json.RawMessage
		ReturnValues string
	}
	if err := json.Unmarshal(q.body, &b); err != nil {
		return nil, apiErrorf("SerializationException", "%v", err)
	}
	body, ours := q.body, false
	if b.ReturnValues == "" || b.ReturnValues == "NONE" {
		var all map[string]json.RawMessage
		if err := json.Unmarshal(q.body, &all); err != nil {
			return nil, apiErrorf("SerializationException", "%v", err)
		}
		all["ReturnValues"] = json.RawMessage(`"ALL_NEW"`)
		body, ours = mustMarshal(all), true
	}
	out, err := s.change(q, body, func(tables map[string]*table, out []byte) (map[string][]write, error) {
		t := tables[b.TableName]
		if ours || b.ReturnValues == "ALL_NEW" {
			var r struct{ Attributes json.RawMessage }
			if err := json.Unmarshal(out, &r); err != nil {
				return nil, err
			}
			return one(t, b.Key, r.Attributes)
		}
		item, err := s.item(q.scope, t, b.Key)
		if err != nil {
			return nil, err
		}
		return one(t, b.Key, item)
	})
	if err != nil || !ours {
		return answer(out), err
	}
	var r map[string]json.RawMessage
	if err := json.Unmarshal(out, &r); err != nil {
		return nil, err
	}
	delete(r, "Attributes")
	return answer(mustMarshal(r)), nil
}

// item reads an item, all of it; nil when it isn't there.
func (s *Service) item(c Scope, t *table, key json.RawMessage) (json.RawMessage, error) {
	out, err := s.forward(c, "GetItem", mustMarshal(map[string]any{"TableName": t.name, "Key": key, "ConsistentRead": true}))
	if err != nil {
		return nil, err
	}
	var r struct{ Item json.RawMessage }
	err = json.Unmarshal(out, &r)
	return r.Item, err
}

func (s *Service) batchWriteItem(q *request) (any, error) {
	var b struct {
		RequestItems map[string][]struct {
			PutRequest    *struct{ Item json.RawMessage }
			DeleteRequest *struct{ Key json.RawMessage }
		}
	}
	if err := json.Unmarshal(q.body, &b); err != nil {
		return nil, apiErrorf("SerializationException", "%v", err)
	}
	out, err := s.change(q, q.body, func(tables map[string]*table, out []byte) (map[string][]write, error) {
		var r struct{ UnprocessedItems map[string]json.RawMessage }
		if err := json.Unmarshal(out, &r); err != nil {
			return nil, err
		}
		if len(r.UnprocessedItems) > 0 {
			return nil, fmt.Errorf("DynamoDB Local left items unprocessed, which it never does: %s", out)
		}
		all := map[string][]write{}
		for name, requests := range b.RequestItems {
			for _, r := range requests {
				var attributes, item json.RawMessage
				if r.PutRequest != nil {
					attributes, item = r.PutRequest.Item, r.PutRequest.Item
				} else {
					attributes = r.DeleteRequest.Key
				}
				w, err := one(tables[name], attributes, item)
				if err != nil {
					return nil, err
				}
				all[name] = append(all[name], w[name]...)
			}
		}
		return all, nil
	})
	return answer(out), err
}

// transactWriteItems reads the items that it wrote after it, since a repetition with the same token succeeds and writes nothing.
func (s *Service) transactWriteItems(q *request) (any, error) {
	type action struct {
		TableName string
		Item, Key json.RawMessage
	}
	var b struct {
		TransactItems []struct{ Put, Update, Delete *action }
	}
	if err := json.Unmarshal(q.body, &b); err != nil {
		return nil, apiErrorf("SerializationException", "%v", err)
	}
	out, err := s.change(q, q.body, func(tables map[string]*table, _ []byte) (map[string][]write, error) {
		all := map[string][]write{}
		for _, i := range b.TransactItems {
			for _, a := range []*action{i.Put, i.Update, i.Delete} {
				if a == nil {
					continue
				}
				t := tables[a.TableName]
				attributes := a.Key
				if i.Put != nil {
					attributes = keyOf(t.keys, a.Item)
				}
				item, err := s.item(q.scope, t, attributes)
				if err != nil {
					return nil, err
				}
				w, err := one(t, attributes, item)
				if err != nil {
					return nil, err
				}
				all[t.name] = append(all[t.name], w[t.name]...)
			}
		}
		return all, nil
	})
	return answer(out), err
}

// keyOf is the key of an item.
func keyOf(names []string, item json.RawMessage) json.RawMessage {
	var all map[string]json.RawMessage
	if json.Unmarshal(item, &all) != nil {
		return nil // never: it was written
	}
	key := map[string]json.RawMessage{}
	for _, n := range names {
		key[n] = all[n]
	}
	return mustMarshal(key)
}
