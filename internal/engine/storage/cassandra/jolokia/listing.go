package jolokia

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
)

// details asks for the list of snapshots as texts, one for each tag (a depth of 1). As JSON it cannot be had: it would be an object with a key for every
// column, and the column of a snapshot that does not expire is null: Jolokia stops in the middle of its answer then.
func details(path string) request {
	return request{
		Type: "read", MBean: storageService, Attribute: "SnapshotDetails", Path: path,
		Config: map[string]string{"maxDepth": "1", "includeStackTrace": "false"},
	}
}

// Snapshots implements node.Operator. Sizes are rounded, to three digits, and -1 where they cannot be read.
func (o *Operator) Snapshots(ctx context.Context) ([]node.Snapshot, error) {
	a, err := o.do(ctx, details(""), 0)
	if err != nil {
		return nil, fmt.Errorf("listing snapshots: %w", err)
	}
	all, err := readTags(a.Value)
	if err != nil {
		return nil, fmt.Errorf("listing snapshots: %w", err)
	}
	return all, nil
}

// SnapshotsOf implements node.TagLister.
func (o *Operator) SnapshotsOf(ctx context.Context, tag string) ([]node.Snapshot, error) {
	a, err := o.do(ctx, details(strings.NewReplacer("!", "!!", "/", "!/").Replace(tag)), 0)
	if err != nil {
		return nil, fmt.Errorf("listing snapshot %s: %w", tag, err)
	}
	all, err := readTag(tag, a.Value)
	if err != nil {
		return nil, fmt.Errorf("listing snapshot %s: %w", tag, err)
	}
	return all, nil
}

func readTags(value []byte) ([]node.Snapshot, error) {
	var tags map[string]json.RawMessage
	if err := json.Unmarshal(value, &tags); err != nil {
		return nil, errUnreadable
	}
	var all []node.Snapshot
	for tag, text := range tags {
		some, err := readTag(tag, text)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

var errUnreadable = errors.New("the list is not of the form that was expected")

const rowMark = "contents={Column family name="

// readTag reads the text of one tag's table: null where there is none.
func readTag(tag string, value []byte) ([]node.Snapshot, error) {
	var text *string
	if err := json.Unmarshal(value, &text); err != nil {
		return nil, errUnreadable
	}
	if text == nil {
		return nil, nil
	}
	// The columns are in the order of their names; 4.0 has no times. A tag may be any text, so it is matched as what it is known to be.
	row, err := regexp.Compile(rowMark + `([\w.]+),(?: Creation time=[^,]*,)?(?: Ephemeral=\w+,)?(?: Expiration time=[^,]*,)?` +
		` Keyspace name=(\w+), Size on disk=([^={}]{1,40}), Snapshot name=` + regexp.QuoteMeta(tag) + `, True size=([^={}]{1,40})\}`)
	if err != nil {
		return nil, errUnreadable // a tag that is no UTF-8, or megabytes long
	}
	rows := row.FindAllStringSubmatch(*text, -1)
	if len(rows) != strings.Count(*text, rowMark) || len(rows) == 0 {
		return nil, errUnreadable
	}
	all := make([]node.Snapshot, len(rows))
	for i, columns := range rows {
		all[i] = node.Snapshot{
			Tag: tag, Keyspace: columns[2], Table: columns[1], Size: node.ParseSize(columns[3]), TrueSize: node.ParseSize(columns[4]),
		}
	}
	return all, nil
}
