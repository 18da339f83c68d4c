resource "scalardb_snapshot_restore" "staging" {
  name      = "staging"
  backup_id = scalardb_consistent_backup.release.id

  # Every storage of the backup, under its name in the backup.
  storages = {
    orders = {
      postgresql = {
        host        = "staging-db.internal"
        database    = "shop_staging"
        credentials = "staging" # another entry of the provider's credentials
      }
    }
    events = {
      mysql = {
        host        = "staging-events-db.internal"
        credentials = "staging"
      }
    }
  }

  # The clone stays until you ask for a new one (terraform apply -replace=...).
  lifecycle {
    ignore_changes = [backup_id]
  }
}

# Null until the verification passed.
output "database_properties" {
  value = provider::scalardb::render_properties(scalardb_snapshot_restore.staging.scalardb_properties)
}
