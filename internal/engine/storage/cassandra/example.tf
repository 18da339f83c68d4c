resource "scalardb_consistent_backup" "release" {
  name = "before-release-42"
  storages = {
    orders = {
      cassandra = {
        contact_points = ["cassandra-1.internal", "cassandra-2.internal"]
        ssh            = { user = "cassandra" }
        transport      = { jmx = { ssh = true } } # JMX listens on 127.0.0.1 of every node
        data           = { upload = { bandwidth_limit = 50 } }
      }
    }
  }
}

# A clone in a smaller cluster, under other names.
resource "scalardb_snapshot_restore" "staging" {
  name      = "staging"
  backup_id = scalardb_consistent_backup.release.id
  storages = {
    orders = {
      cassandra = {
        contact_points = ["cassandra-staging.internal"]
        credentials    = "staging"
        ssh            = { user = "cassandra" }
        transport      = { jmx = { ssh = true } }
        load = {
          keyspaces   = { shop = "shop_staging", coordinator = "coordinator_staging", scalardb = "scalardb_staging" }
          replication = { dc1 = "1" }
        }
      }
    }
  }
}
