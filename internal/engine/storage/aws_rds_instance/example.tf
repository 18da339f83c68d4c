resource "scalardb_consistent_backup" "release" {
  name = "before-release-42"
  storages = {
    orders = {
      aws_rds_instance = { identifier = "prod-orders" }
    }
  }
}

resource "scalardb_pitr_restore" "staging" {
  name         = "staging"
  pause_window = scalardb_consistent_backup.release.pause_window
  storages = {
    orders = {
      aws_rds_instance = {
        source_identifier      = "prod-orders"
        identifier             = "staging-orders"
        instance_class         = "db.t4g.medium"
        multi_az               = false
        db_subnet_group_name   = "staging"
        vpc_security_group_ids = ["sg-0123456789abcdef0"]
        set_master_password    = true
        credentials            = "staging-orders"
      }
    }
  }
}
