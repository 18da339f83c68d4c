# "2026-11-25T10:00:03Z"
output "restore_point" {
  value = provider::scalardb::restore_point("2026-11-25T10:00:00.2Z", "2026-11-25T10:00:06.8Z")
}
