resource "scalardb_consistent_backup" "release" {
  name = "before-release-42"
  storages = {
    orders = {
      postgresql = {
        host     = "orders-db.internal"
        database = "orders"
        ssl_mode = "verify-full"
        jobs     = 4
      }
    }
  }
}

resource "scalardb_snapshot_restore" "staging" {
  name      = "staging"
  backup_id = scalardb_consistent_backup.release.id
  storages = {
    orders = {
      postgresql = {
        host        = "staging-db.internal"
        database    = "orders_staging" # created by the restore
        credentials = "staging"
      }
    }
  }
}
