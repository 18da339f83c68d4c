output "storage" {
  value = provider::scalardb::parse_properties(file("${path.module}/database.properties"))["scalar.db.storage"]
}
