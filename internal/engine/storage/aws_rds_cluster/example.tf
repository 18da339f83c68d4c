resource "scalardb_consistent_backup" "release" {
  name = "before-release-42"
  storages = {
    orders = {
      aws_rds_cluster = {
        identifier          = "prod-orders"
        method              = "snapshot"
        share_with_accounts = ["210987654321"] # that of staging
      }
    }
  }
}

resource "scalardb_snapshot_restore" "staging" {
  name      = "staging"
  backup_id = scalardb_consistent_backup.release.id
  storages = {
    orders = {
      aws_rds_cluster = {
        identifier = "staging-orders"
        kms_key_id = "alias/staging"
        instances = {
          writer = { instance_class = "db.r6g.large" }
          reader = { instance_class = "db.r6g.large", promotion_tier = 2 }
        }
        set_master_password = true
        credentials         = "staging-orders"
      }
    }
  }
}
