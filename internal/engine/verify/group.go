package verify

import "strings"

// parentIDSize is the fixed length of a group commit's parent id (ScalarDB's coordinator group commit).
const parentIDSize = 24

// SplitTxID takes the id of a group-committed transaction, "parent:child", apart; ok is false for every other id. As in ScalarDB the colon's
// place decides, not its presence: ids that an application chose may hold colons elsewhere.
func SplitTxID(txID string) (parent, child string, ok bool) {
	if len(txID) <= parentIDSize || txID[parentIDSize] != ':' {
		return "", "", false
	}
	return txID[:parentIDSize], txID[parentIDSize+1:], true
}

// ChildIDs takes a coordinator entry's tx_child_ids apart; empty parts are dropped, as ScalarDB does.
func ChildIDs(column string) []string {
	var out []string
	for part := range strings.SplitSeq(column, ",") {
		if part != "" {
			out = append(out, part)
		}
	}
	return out
}

// StoredEntry is one row of a coordinator table.
type StoredEntry struct {
	TxID     string
	ChildIDs string // tx_child_ids; empty where null or absent
	Entry
}

// LookupIDs returns the tx_ids to read from a coordinator table in order to Match the given ids of records.
func LookupIDs(txIDs []string) []string {
	seen := make(map[string]bool, 2*len(txIDs))
	var out []string
	add := func(id string) {
		if !seen[id] {
			seen[id] = true
			out = append(out, id)
		}
	}
	for _, id := range txIDs {
		add(id)
		if parent, _, ok := SplitTxID(id); ok {
			add(parent)
		}
	}
	return out
}

// Match finds each record's entry among the rows read for LookupIDs, as ScalarDB does: a group's entry counts for the children that it
// names; a child that it does not name was committed or aborted on its own, under its full id.
func Match(txIDs []string, rows []StoredEntry) map[string]Entry {
	byID := make(map[string]StoredEntry, len(rows))
	for _, r := range rows {
		byID[r.TxID] = r
	}
	out := make(map[string]Entry, len(txIDs))
	for _, id := range txIDs {
		if parent, child, ok := SplitTxID(id); ok {
			if group, ok := byID[parent]; ok && hasChild(group.ChildIDs, child) {
				out[id] = group.Entry
				continue
			}
		}
		if e, ok := byID[id]; ok {
			out[id] = e.Entry
		}
	}
	return out
}

// RecordIDs returns the ids that records of the row's transactions have: of each child of a group, else the row's own.
func (s StoredEntry) RecordIDs() []string {
	children := ChildIDs(s.ChildIDs)
	if len(children) == 0 {
		return []string{s.TxID}
	}
	for i, c := range children {
		children[i] = s.TxID + ":" + c
	}
	return children
}

func hasChild(column, child string) bool {
	for part := range strings.SplitSeq(column, ",") {
		if part == child && part != "" {
			return true
		}
	}
	return false
}
