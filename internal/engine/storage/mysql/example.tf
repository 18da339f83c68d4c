resource "scalardb_consistent_backup" "orders" {
  name = "orders-before-migration"
  storages = {
    orders = { mysql = { host = "db.internal", tls = "verify_identity" } }
  }
}

resource "scalardb_snapshot_restore" "staging" {
  name      = "orders-staging"
  backup_id = scalardb_consistent_backup.orders.id
  storages = {
    orders = { mysql = { host = "staging-db.internal", credentials = "staging" } }
  }
}
