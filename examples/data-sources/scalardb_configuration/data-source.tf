data "scalardb_configuration" "server" {
  path = "${path.module}/database.properties"
}

output "pause_required" {
  value = "${data.scalardb_configuration.server.pause_required}: ${data.scalardb_configuration.server.reason}"
}
