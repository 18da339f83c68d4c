# Copies made by other means in a recorded pause window.
resource "scalardb_consistency_check" "clone" {
  pause_window = {
    started_at = scalardb_pause_window.release.started_at
    ended_at   = scalardb_pause_window.release.ended_at
  }

  storages = {
    orders = {
      postgresql = {
        host     = "clone-db.internal"
        database = "shop"
      }
    }
  }

  triggers = { window = scalardb_pause_window.release.started_at }
}
