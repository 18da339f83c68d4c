# The clone that scalardb_pitr_restore made goes into the care of the AWS provider. Apply this with the restore, then take the restore out of the
# state without destroying anything: remove its block and add
#
#   removed {
#     from = scalardb_pitr_restore.staging
#     lifecycle { destroy = false }
#   }
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

resource "scalardb_pitr_restore" "staging" {
  name      = "staging"
  backup_id = "before-1.4.0"
  storages = {
    orders = { aws_rds_instance = { source_identifier = "prod-orders", identifier = "staging-orders" } }
    events = { aws_dynamodb = { tables = ["coordinator.state", "shop.events", "scalardb.metadata"], prefix = "staging." } }
  }
}

import {
  to = aws_db_instance.orders
  id = "staging-orders"
}

resource "aws_db_instance" "orders" {
  identifier          = "staging-orders"
  instance_class      = "db.m6g.large"
  skip_final_snapshot = true

  lifecycle {
    # What the restore set stays as it is, until you say otherwise here.
    ignore_changes = all
  }
}

import {
  to = aws_dynamodb_table.events
  id = "staging.shop.events"
}

resource "aws_dynamodb_table" "events" {
  name         = "staging.shop.events"
  billing_mode = "PAY_PER_REQUEST"
  hash_key     = "concatenatedPartitionKey"

  attribute {
    name = "concatenatedPartitionKey"
    type = "B"
  }

  lifecycle {
    ignore_changes = all
  }
}
