resource "scalardb_consistent_backup" "release" {
  name = "before-release-42"
  storages = {
    events = { aws_dynamodb = { namespaces = ["shop"] } }
  }
}

resource "scalardb_pitr_restore" "staging" {
  name         = "staging"
  pause_window = scalardb_consistent_backup.release.pause_window
  storages = {
    events = {
      aws_dynamodb = {
        prefix       = "staging."
        billing_mode = "PAY_PER_REQUEST"
        tags         = { environment = "staging" }
      }
    }
  }
}
