package awsdynamodb

import (
	"context"
	"fmt"
	"maps"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// rewriters is how many rows of the metadata are written at once.
const rewriters = 8

// rewritten says whether a restored table's rows have to be changed: ScalarDB's metadata, for another prefix or for some of the tables only.
func (d *destination) rewritten(p plan, t task) bool {
	return d.keyOf(t) != "" && (d.s.Prefix != p.from.Prefix || p.selected)
}

// keyOf is the key attribute of ScalarDB's metadata tables; empty for every other table.
func (d *destination) keyOf(t task) string {
	switch t.table.name {
	case d.s.metadata():
		return attrTable
	case d.s.namespaces():
		return attrNamespace
	}
	return ""
}

// rewrite gives the rows of ScalarDB's metadata the names of the restored tables, and drops those of tables that were left out.
func (d *destination) rewrite(ctx context.Context, p plan, t task, report func(string, map[string]any)) error {
	if !d.rewritten(p, t) {
		return nil
	}
	key := d.keyOf(t)
	items, _, err := readItems(ctx, p.target.api, t.target)
	if err != nil {
		return err
	}
	var put, remove []item
	for _, it := range items {
		name, ok := it[key].(*types.AttributeValueMemberS)
		if !ok {
			return fmt.Errorf("rewriting table %s: an item has no string %q", t.target, key)
		}
		rest, below := strings.CutPrefix(name.Value, p.from.Prefix)
		if !below {
			report("a row of ScalarDB's metadata is not below the source's prefix, and stays as it is", map[string]any{"table": t.target, "row": name.Value})
			continue
		}
		keep := d.keepsRow(p, key, rest)
		if renamed := d.s.Prefix + rest; keep && renamed == name.Value {
			continue
		} else if keep {
			changed := maps.Clone(it)
			changed[key] = &types.AttributeValueMemberS{Value: renamed}
			put = append(put, changed)
		}
		remove = append(remove, item{key: name})
	}
	// A new row's name may be an old one's ("a." cloned to "a.a."): what is written is not removed.
	written := map[string]bool{}
	for _, it := range put {
		written[it[key].(*types.AttributeValueMemberS).Value] = true //nolint:forcetypeassert // made above
	}
	report("rewriting ScalarDB's metadata", map[string]any{"table": t.target, "written": len(put), "removed": len(remove)})
	err = parallel(ctx, rewriters, put, true, func(ctx context.Context, it item) error {
		if _, err := p.target.api.PutItem(ctx, &dynamodb.PutItemInput{TableName: &t.target, Item: it}); err != nil {
			return fmt.Errorf("rewriting table %s: %w", t.target, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return parallel(ctx, rewriters, remove, true, func(ctx context.Context, k item) error {
		if written[k[key].(*types.AttributeValueMemberS).Value] { //nolint:forcetypeassert // made above
			return nil
		}
		if _, err := p.target.api.DeleteItem(ctx, &dynamodb.DeleteItemInput{TableName: &t.target, Key: k}); err != nil {
			return fmt.Errorf("rewriting table %s: %w", t.target, err)
		}
		return nil
	})
}

// keepsRow says whether a row's table was restored (or a namespace's row has any such table). A table that should be there and is not keeps its row:
// verification names it.
func (d *destination) keepsRow(p plan, key, name string) bool {
	if !p.selected {
		return true
	}
	if key == attrTable {
		return d.s.chosen(name)
	}
	if d.s.own(name + ".") {
		return true
	}
	for _, t := range p.tasks {
		if namespace, _, _ := splitName(t.table.name); namespace == name {
			return true
		}
	}
	return false
}
