// Package nodetest has a node without a Cassandra behind it, for tests.
package nodetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
)

// Memory is an Operator of a node that exists in memory only: its tables, and its snapshots of them. Its methods may be called concurrently.
//
// It refuses what Cassandra refuses: a tag that one of the tables has already, unknown keyspaces and tables, no tag. As in Cassandra's own interface, a
// snapshot may be of single tables, KEYSPACE.TABLE, instead of keyspaces. It shows nothing of files.
type Memory struct {
	mu        sync.Mutex
	tables    []node.Table
	snapshots []node.Snapshot
	sizes     map[node.Table]int64
}

// NewMemory makes a node with tables and no snapshots.
func NewMemory(tables ...node.Table) *Memory {
	return &Memory{tables: slices.Clone(tables), sizes: map[node.Table]int64{}}
}

// Fill gives a table data of that many bytes, for its snapshots' size. Empty ones have 110, those of the list of files.
func (m *Memory) Fill(table node.Table, bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sizes[table] = bytes
}

// Tables are those of the keyspaces; of all when none is named. An unknown keyspace is an error.
func (m *Memory) Tables(_ context.Context, keyspaces []string) ([]node.Table, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(keyspaces) == 0 {
		return slices.Clone(m.tables), nil
	}
	return m.entities(keyspaces)
}

func (m *Memory) entities(names []string) ([]node.Table, error) {
	var found []node.Table
	for _, name := range names {
		before := len(found)
		for _, table := range m.tables {
			if name == table.Keyspace || name == table.String() {
				found = append(found, table)
			}
		}
		switch {
		case len(found) > before:
		case strings.Contains(name, "."):
			return nil, fmt.Errorf("unknown keyspace/cf pair (%s)", name)
		default:
			return nil, fmt.Errorf("keyspace %s does not exist", name)
		}
	}
	return found, nil
}

func (m *Memory) has(tag string, table node.Table) bool {
	return slices.ContainsFunc(m.snapshots, func(s node.Snapshot) bool {
		return s.Tag == tag && s.Keyspace == table.Keyspace && s.Table == table.Name
	})
}

// CheckRights implements node.Operator.
func (m *Memory) CheckRights(_ context.Context, tag string, keyspaces []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	tables, err := m.entities(keyspaces)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(tables, func(t node.Table) bool { return m.has(tag, t) }) {
		return node.ErrSnapshotExists
	}
	return nil
}

// TakeSnapshot implements node.Operator.
func (m *Memory) TakeSnapshot(_ context.Context, tag string, keyspaces []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if tag == "" {
		return errors.New("you must supply a snapshot name")
	}
	tables, err := m.entities(keyspaces)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(tables, func(t node.Table) bool { return m.has(tag, t) }) {
		return fmt.Errorf("snapshot %s: %w", tag, node.ErrSnapshotExists)
	}
	for _, table := range tables {
		size := m.sizes[table] + 110
		m.snapshots = append(m.snapshots, node.Snapshot{Tag: tag, Keyspace: table.Keyspace, Table: table.Name, TrueSize: size, Size: size})
	}
	return nil
}

// Snapshots implements node.Operator.
func (m *Memory) Snapshots(context.Context) ([]node.Snapshot, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.snapshots), nil
}

// ClearSnapshot implements node.Operator. As in Cassandra, an unknown keyspace is no error.
func (m *Memory) ClearSnapshot(_ context.Context, tag string, keyspaces []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if tag == "" {
		return errors.New("no tag: that would clear all snapshots")
	}
	m.snapshots = slices.DeleteFunc(m.snapshots, func(s node.Snapshot) bool {
		return s.Tag == tag && (len(keyspaces) == 0 || slices.Contains(keyspaces, s.Keyspace))
	})
	return nil
}

// Close implements node.Operator.
func (*Memory) Close() error { return nil }
