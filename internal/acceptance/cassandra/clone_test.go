//go:build acceptance

package cassandra

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/cores"
)

func staging(keyspace string) string { return keyspace + "_staging" }

// clone takes backups of the busy bank, loads one into another cluster under other names, and removes everything.
func (s *shop) clone(t *testing.T) {
	// What is somebody else's stays.
	if _, err := s.cluster.Nodes[0].Nodetool(t.Context(), "snapshot", "-t", "precious", "--", "bank"); err != nil {
		t.Fatal(err)
	}
	others := s.clones.Session(t)
	for _, cql := range []string{
		"CREATE KEYSPACE others WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}", "CREATE TABLE others.notes (id int PRIMARY KEY)",
		"INSERT INTO others.notes (id) VALUES (1)",
	} {
		if err := others.Query(cql).Exec(); err != nil {
			t.Fatal(err)
		}
	}
	w := s.workspace(t, cores.Newest(t), s.Addr, "5s")
	before := s.inventory(t, w)

	s.backup(t, w, "release", "release", direct)
	s.take(t, w, "min_duration 5s", backupAddress)
	s.Bank.WaitForCommits(t, 20, limit) // what the clone must not have
	w.PlanIsEmpty(t)
	w.importAgain(t, backupAddress, "release")

	s.load(t, w, "copy", staging, "")
	w.apply(t)
	w.PlanIsEmpty(t)
	w.checkAvailable(t, s.Config.Rows())
	if rows, sum := s.read(t, w, staging); rows != s.Config.Rows() || sum != s.Config.Total() {
		t.Errorf("the clone has %d rows with a sum of %d, want %d and %d", rows, sum, s.Config.Rows(), s.Config.Total())
	}
	w.importAgain(t, restoreAddress, "copy")

	s.again(t, w)

	// Everything that was made goes with it, and nothing else.
	s.load(t, w, "copy", staging, "deletion_protection = false")
	w.apply(t)
	w.destroy(t)
	s.unchanged(t, w, before)
}

// again takes two more backups, the second one of the same data: next to nothing is sent for it.
func (s *shop) again(t *testing.T, w *workspace) {
	s.provider(t, w, s.Addr, "0s")
	s.backup(t, w, "busy", "busy", s.overSSH())
	s.take(t, w, "min_duration 0s, over SSH", "scalardb_consistent_backup.busy")

	// Nothing writes any more, and no compaction makes other files of the same data.
	s.Bank.Stop(t)
	for _, n := range s.cluster.Nodes {
		if _, err := n.Nodetool(t.Context(), "disableautocompaction"); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 2 {
		label := fmt.Sprintf("still%d", i)
		s.backup(t, w, label, label, direct)
		s.take(t, w, "without load", "scalardb_consistent_backup."+label)
		files, size := bytesIn(t, w)
		t.Logf("in the catalog: %d files of %d bytes", files, size)
	}
	if f := figures(w.manifest(t, "scalardb_consistent_backup.still1")); 10*number(t, f["bytes_sent"]) > number(t, f["bytes_reused"]) {
		t.Errorf("a backup of unchanged data: %v", f)
	}
	for _, n := range s.cluster.Nodes {
		if _, err := n.Nodetool(t.Context(), "enableautocompaction"); err != nil {
			t.Fatal(err)
		}
	}
	s.Bank.StartWriters(t, 4)
	w.PlanIsEmpty(t)
}

func number(t *testing.T, text string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil {
		t.Fatalf("the figures of an upload: %v", err)
	}
	return n
}
