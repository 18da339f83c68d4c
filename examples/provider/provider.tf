terraform {
  required_providers {
    scalardb = {
      source = "scalar-labs/scalardb"
    }
  }
}

variable "orders_password" {
  type      = string
  ephemeral = true # in no state and in no plan file
}

provider "scalardb" {
  pause = {
    targets = {
      # Every process that writes through ScalarDB to these storages.
      main = {
        addresses = ["10.0.1.10:60051", "10.0.1.11:60051"]
        tls = {
          ca_pem      = file("${path.module}/ca.pem")
          server_name = "scalardb.internal"
        }
      }
    }
    drain_timeout = "30s"
    min_duration  = "5s"
    max_duration  = "90s"
  }

  # Shared by all workspaces that pause the same targets: the lock is in it. Or a directory: { directory = "/var/backups/scalardb" }
  catalog = { s3 = { bucket = "example-scalardb-backups", prefix = "prod" } }

  # For the catalog and the aws_… drivers, by the names of the AWS provider's block. What is left out comes from the environment and the profile.
  aws = {
    region      = "eu-west-1"
    assume_role = { role_arn = "arn:aws:iam::123456789012:role/scalardb-backup" }
  }

  credentials = {
    orders = { username = "backup", password = var.orders_password }
  }
}
