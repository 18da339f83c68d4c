# The AWS provider restores; this provider only says to which instant. Such a restore is not verified: add a scalardb_consistency_check.
#
# This example was checked against the published schema of hashicorp/aws 6.25.0. It was not run.

terraform {
  required_providers {
    aws = {
      source = "hashicorp/aws"
    }
    scalardb = {
      source = "scalar-labs/scalardb"
    }
  }
}

resource "scalardb_pause_window" "release" {
  name = "before-1.4.0"
  storages = {
    orders = { aws_rds_instance = { identifier = "prod-orders" } } # its clock bounds the safe interval
  }
}

resource "aws_db_instance" "staging" {
  identifier          = "staging-orders"
  instance_class      = "db.m6g.large"
  skip_final_snapshot = true

  restore_to_point_in_time {
    source_db_instance_identifier = "prod-orders"
    restore_time                  = scalardb_pause_window.release.restore_point
  }

  lifecycle {
    ignore_changes = [restore_to_point_in_time]
  }
}

resource "aws_dynamodb_table" "events" {
  name                   = "staging.shop.events"
  restore_source_name    = "shop.events"
  restore_date_time      = scalardb_pause_window.release.restore_point
  restore_to_latest_time = false

  lifecycle {
    ignore_changes = [restore_date_time, restore_source_name]
  }
}
