# The latest backup of another workspace that is whole, as of a fixed time.
data "scalardb_backup" "production" {
  before = "2026-11-01T00:00:00Z"
}

output "manifest" {
  value = data.scalardb_backup.production.manifest_json
}
