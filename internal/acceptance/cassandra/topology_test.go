//go:build acceptance

package cassandra

import (
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/cores"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/scalardb"
)

func same(keyspace string) string { return keyspace }

// sameTopology loses all data of all nodes, and restores them to the backup: the bank goes on with it.
func (s *shop) sameTopology(t *testing.T) {
	// Long enough for the watch to see it, also on a busy machine.
	w := s.workspace(t, cores.OpenTofu(t), s.Addr, "2s")
	s.backup(t, w, "release", "release", direct)
	s.unmarked(t)
	s.take(t, w, "before the loss", backupAddress)
	s.Bank.WaitForCommits(t, 20, limit) // what must not come back
	s.Bank.Stop(t)
	s.Stop(t)

	s.cluster.StopAll(t)
	s.cluster.WipeAll(t)
	s.cluster.StartAll(t)
	// By the servers' clocks, nothing of the last half minute would be older than the window: that of the unmarked record is known from the nodes.
	const verify = `verify = { server_clock_bound = "30s" }`
	s.ontoNodes(t, w, verify)
	w.apply(t)
	w.PlanIsEmpty(t)
	v := w.checkAvailable(t, s.Config.Rows()+1)
	if n, _ := v["leftovers"].(float64); n < 1 {
		t.Errorf("verification did not see the unmarked record: %v", v)
	}
	if rows, sum := s.read(t, w, same); rows != s.Config.Rows() || sum != s.Config.Total() {
		t.Errorf("the restored bank has %d rows with a sum of %d, want %d and %d", rows, sum, s.Config.Rows(), s.Config.Total())
	}

	// It is the bank's database again, and stays so when the restore is forgotten.
	s.Restart(s.t)
	s.Bank.StartWriters(t, 4)
	s.Bank.WaitForCommits(t, 50, limit)
	s.ontoNodes(t, w, verify+"\n  deletion_protection = false")
	w.apply(t)
	w.destroy(t)
	s.Bank.WaitForCommits(t, 20, limit)
	s.Bank.Stop(t)
	defer s.Bank.StartWriters(t, 4)
	if rows, sum := scalardb.Read(t, s.Config, s.Config.Storages...); rows != s.Config.Rows() || sum != s.Config.Total() {
		t.Errorf("the bank goes on with %d rows with a sum of %d, want %d and %d", rows, sum, s.Config.Rows(), s.Config.Total())
	}
	if left := below(t, w.catalog); len(left) > 0 {
		t.Errorf("left in the catalog: %v", left)
	}
}

// unmarked writes an account that nobody else uses, as ScalarDB leaves a record whose mark failed after the commit. Some percent of the pauses of this bank leave one too.
func (s *shop) unmarked(t *testing.T) {
	t.Helper()
	session, now := s.cluster.Session(t), time.Now().UnixMilli()
	for _, err := range []error{
		session.Query("INSERT INTO bank.accounts (id, balance, tx_id, tx_state, tx_version, tx_prepared_at) VALUES (1000, 0, 'unmarked', 1, 1, ?)", now).Exec(),
		session.Query("INSERT INTO coordinator.state (tx_id, tx_state, tx_created_at) VALUES ('unmarked', 3, ?) IF NOT EXISTS", now).Exec(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// ontoNodes writes the restore onto the nodes of the bank's own cluster.
func (s *shop) ontoNodes(t *testing.T, w *workspace, more string) {
	t.Helper()
	w.Write(t, "restore.tf", `resource "scalardb_snapshot_restore" "copy" {
  name      = "again"
  backup_id = %[1]s.id
  storages = {
    %[2]s = { cassandra = {
      contact_points = [%[3]s]
      transport      = { jmx = {} }
      same_topology = {
        stop_command           = "%[4]s/{address}/stop"
        start_command          = "%[4]s/{address}/start"
        commitlog_directory    = "%[4]s/{address}/commitlog"
        hints_directory        = "%[4]s/{address}/hints"
        saved_caches_directory = "%[4]s/{address}/saved_caches"
        cdc_raw_directory      = "%[4]s/{address}/cdc_raw"
        owner                  = %[5]q
        via                    = "local"
      }
    } }
  }
  %[6]s
}
`, backupAddress, storageName, points(s.cluster), s.cluster.Dir, owner(t), more)
}
