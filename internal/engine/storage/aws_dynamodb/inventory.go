package awsdynamodb

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/smithy-go/middleware"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/awsapi"
)

func dateOf(m middleware.Metadata) time.Time { return awsapi.Date(m) }

// digest is a hash of strings of which no two lists read alike.
func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// table is one DynamoDB table that belongs to a backup or a restore.
type table struct {
	name          string // "namespace.table", as ScalarDB names it
	transactional bool
	inMetadata    bool
	key           []string
}

// inventory is what ScalarDB's metadata and DynamoDB say together of the tables below one prefix.
type inventory struct {
	tables      []table         // chosen, sorted by name; ScalarDB's own are among them
	missing     []table         // in the metadata and chosen, but not there
	there       map[string]bool // every table below the prefix, without it
	fingerprint string          // of the metadata rows
	cost        float64         // read capacity units that reading them took
	coordinator bool
	metadata    bool
	warnings    []string
}

// chosen says whether the arguments name a table. ScalarDB's own tables are always chosen.
func (s Settings) chosen(name string) bool {
	namespace, _, _ := splitName(name)
	switch {
	case s.own(name):
		return true
	case len(s.Tables) > 0:
		return slices.Contains(s.Tables, name)
	case len(s.Namespaces) > 0:
		return slices.Contains(s.Namespaces, namespace)
	}
	return true
}

// own says that a table is one of ScalarDB's: it lies in the metadata's or the coordinator's namespace.
func (s Settings) own(name string) bool {
	namespace, _, _ := splitName(name)
	return namespace == s.Layout.Metadata() || namespace == s.Layout.Coordinator()
}

// readInventory reads ScalarDB's metadata and lists the tables.
func readInventory(ctx context.Context, s Settings, r reach) (inventory, error) {
	var inv inventory
	names, _, err := listTables(ctx, r.api)
	if err != nil {
		return inv, fmt.Errorf("%s: %w", r.describe(), err)
	}
	there := map[string]bool{}
	for _, full := range names {
		name, below := strings.CutPrefix(full, s.Prefix)
		if below {
			there[name] = true
		}
	}
	rows := map[string]row{}
	if inv.metadata = there[s.metadata()]; inv.metadata {
		items, cost, err := readItems(ctx, r.api, s.full(s.metadata()))
		if err != nil {
			return inv, err
		}
		inv.fingerprint, inv.cost = fingerprint(items), cost
		for _, it := range items {
			m, err := decodeRow(it)
			if err != nil {
				return inv, err
			}
			name, below := strings.CutPrefix(m.table, s.Prefix)
			if !below {
				inv.warnings = append(inv.warnings, fmt.Sprintf("ScalarDB's metadata names table %s, which is not below the prefix %q.", m.table, s.Prefix))
				continue
			}
			rows[name] = m
		}
	} else {
		inv.warnings = append(inv.warnings, fmt.Sprintf("There is no table %s: without ScalarDB's metadata nobody can read these tables through ScalarDB "+
			"(prefix and metadata_namespace say where it is).",
			s.full(s.metadata())))
	}
	inv.coordinator = there[s.coordinator()]
	universe := map[string]bool{}
	for name := range rows {
		universe[name] = true
	}
	for _, name := range s.Tables {
		universe[name] = true
	}
	for name := range there {
		if s.own(name) {
			universe[name] = true
		}
	}
	for name := range universe {
		m, known := rows[name]
		t := table{name: name, inMetadata: known, transactional: known && m.transactional(), key: m.key}
		switch {
		case !s.chosen(name):
		case there[name]:
			inv.tables = append(inv.tables, t)
		default:
			inv.missing = append(inv.missing, t)
		}
	}
	byName := func(a, b table) int { return strings.Compare(a.name, b.name) }
	slices.SortFunc(inv.tables, byName)
	slices.SortFunc(inv.missing, byName)
	inv.there = there
	return inv, nil
}

// check refuses what cannot be backed up or restored, and warns of what is not among the tables.
func (inv *inventory) check(s Settings, r reach) error {
	var gone []string
	for _, t := range inv.missing {
		if slices.Contains(s.Tables, t.name) {
			gone = append(gone, s.full(t.name))
			continue
		}
		inv.warnings = append(inv.warnings, fmt.Sprintf("ScalarDB's metadata names table %s, which is not there: it cannot be backed up.", s.full(t.name)))
	}
	if len(gone) > 0 {
		return fmt.Errorf("there are no tables %s in %s: check tables (names as in ScalarDB, without the prefix) and prefix", list(gone), r.describe())
	}
	users := 0
	for _, t := range inv.tables {
		if s.own(t.name) {
			continue
		}
		users++
		if inv.metadata && !t.inMetadata {
			inv.warnings = append(inv.warnings, fmt.Sprintf("ScalarDB's metadata does not name table %s: ScalarDB cannot read it, and verification does not cover it.",
				s.full(t.name)))
		}
	}
	switch {
	case len(s.Namespaces) > 0 && users == 0:
		return fmt.Errorf("ScalarDB's metadata in %s names no table of the namespaces %s below the prefix %q", r.describe(), list(s.Namespaces), s.Prefix)
	case len(inv.tables) == 0:
		return fmt.Errorf("there is no table of ScalarDB's below the prefix %q in %s: prefix is ScalarDB's scalar.db.dynamo.namespace.prefix", s.Prefix, r.describe())
	}
	if !inv.coordinator {
		inv.warnings = append(inv.warnings, fmt.Sprintf("There is no coordinator table %s here: one of the other storages of this backup must have it, or "+
			"coordinator_namespace is not what ScalarDB uses.",
			s.full(s.coordinator())))
	}
	return nil
}
