package dynamo

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"sync"
	"time"
)

// version is an item as of one commit.
type version struct {
	seq  uint64 // the order of commits within the table
	at   time.Time
	item json.RawMessage // nil: deleted
}

// history is every version of every item of one table.
type history struct {
	mu    sync.Mutex
	items map[string][]version // by canonical key, in the order of commits
	seq   uint64
	last  time.Time
}

// write is one item to record.
type write struct {
	key  string
	item json.RawMessage // nil: deleted
}

// stamp is a commit time after all before it, also when the clock was set back.
func (h *history) stamp(now time.Time) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !now.After(h.last) {
		now = h.last.Add(time.Nanosecond)
	}
	return now
}

// record adds the writes of one commit.
func (h *history) record(at time.Time, writes ...write) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.items == nil {
		h.items = map[string][]version{}
	}
	h.last = at
	for _, w := range writes {
		h.seq++
		h.items[w.key] = append(h.items[w.key], version{h.seq, at, w.item})
	}
}

// asOf returns the items after all commits at or before t, in the order of their keys.
func (h *history) asOf(t time.Time) []write {
	return h.choose(func(v version) bool { return !v.at.After(t) })
}

// choose returns each item as its last version that is included left it. It asks in the order of the keys, and of the commits of each.
func (h *history) choose(included func(version) bool) []write {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []write
	for _, key := range slices.Sorted(maps.Keys(h.items)) {
		w := write{key: key}
		for _, v := range h.items[key] {
			if included(v) {
				w.item = v.item
			}
		}
		if w.item != nil {
			all = append(all, w)
		}
	}
	return all
}

// size is the number of items, and their approximate bytes.
func (h *history) size() (items, bytes int) {
	for _, w := range h.choose(func(version) bool { return true }) {
		items++
		bytes += len(w.item)
	}
	return items, bytes
}

// Commit is one write that a table keeps.
type Commit struct {
	At   time.Time       // by the service's clock
	Item json.RawMessage // as in the API: {"k":{"S":"…"}}; nil when the item was deleted
}

// Commits are the writes that a table of a scope has seen, in their order; none for a table that isn't there.
func (s *Service) Commits(c Scope, table string) []Commit {
	s.mu.Lock()
	t := s.space(c).tables[table]
	s.mu.Unlock()
	if t == nil {
		return nil
	}
	t.history.mu.Lock()
	defer t.history.mu.Unlock()
	var all []version
	for _, versions := range t.history.items {
		all = append(all, versions...)
	}
	slices.SortFunc(all, func(a, b version) int { return int(a.seq) - int(b.seq) })
	commits := make([]Commit, 0, len(all))
	for _, v := range all {
		commits = append(commits, Commit{v.at, v.item})
	}
	return commits
}

// canonicalKey identifies the item that has these attributes: the same for 1.0 and 1, as in DynamoDB.
func canonicalKey(names []string, attributes json.RawMessage) (string, error) {
	var item map[string]json.RawMessage
	if err := json.Unmarshal(attributes, &item); err != nil {
		return "", fmt.Errorf("reading an item: %w", err)
	}
	key := ""
	for _, name := range names {
		var value map[string]string
		if err := json.Unmarshal(item[name], &value); err != nil {
			return "", fmt.Errorf("reading the key attribute %q: %w", name, err)
		}
		if len(value) != 1 {
			return "", fmt.Errorf("reading the key attribute %q: it has %d types", name, len(value))
		}
		for kind, text := range value {
			switch kind {
			case "N":
				n, ok := new(big.Rat).SetString(text)
				if !ok {
					return "", fmt.Errorf("reading the key attribute %q: %q is not a number", name, text)
				}
				text = n.RatString()
			case "B":
				b, err := base64.StdEncoding.DecodeString(text)
				if err != nil {
					return "", fmt.Errorf("reading the key attribute %q: %w", name, err)
				}
				text = string(b)
			}
			key += fmt.Sprintf("%s%d:%s", kind, len(text), text)
		}
	}
	return key, nil
}
