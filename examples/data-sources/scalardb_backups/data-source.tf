data "scalardb_backups" "all" {}

output "windows" {
  value = { for b in data.scalardb_backups.all.backups : b.id => b.duration_ms }
}
