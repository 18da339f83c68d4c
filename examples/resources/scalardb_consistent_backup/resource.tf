variable "release" {
  type = string
}

# A new name is a new backup; with "retain" the old one stays in the catalog.
resource "scalardb_consistent_backup" "release" {
  name            = "before-${var.release}"
  deletion_policy = "retain"

  storages = {
    orders = {
      postgresql = {
        host     = "orders-db.internal"
        database = "shop"
        jobs     = 4
      }
    }
    events = {
      mysql = { host = "events-db.internal" }
    }
  }
}

output "pause_window" {
  value = scalardb_consistent_backup.release.pause_window
}
