resource "scalardb_consistent_backup" "release" {
  name = "before-release-42"
  storages = {
    orders = { sqlite = { path = "/var/lib/scalardb/orders.db" } }
  }
}

resource "scalardb_snapshot_restore" "staging" {
  name      = "staging"
  backup_id = scalardb_consistent_backup.release.id
  storages = {
    orders = { sqlite = { path = "/var/lib/scalardb-staging/orders.db" } }
  }
}
