resource "scalardb_consistent_backup" "release" {
  name            = "before-1.4.0"
  deletion_policy = "retain"
  storages = {
    orders = { aws_rds_instance = { identifier = "prod-orders" } }
    events = { aws_dynamodb = { tables = ["coordinator.state", "shop.events", "scalardb.metadata"] } }
  }
}

resource "scalardb_pitr_restore" "staging" {
  name         = "staging"
  pause_window = scalardb_consistent_backup.release.pause_window

  storages = {
    orders = {
      aws_rds_instance = {
        source_identifier = "prod-orders"
        identifier        = "staging-orders"
      }
    }
    events = {
      aws_dynamodb = {
        tables = ["coordinator.state", "shop.events", "scalardb.metadata"]
        prefix = "staging."
      }
    }
  }

  # The clone stays until you ask for a new one (terraform apply -replace=...).
  lifecycle {
    ignore_changes = [pause_window]
  }
}

# Null until the verification passed.
output "database_properties" {
  value = provider::scalardb::render_properties(scalardb_pitr_restore.staging.scalardb_properties)
}
