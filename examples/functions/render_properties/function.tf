output "properties" {
  value = provider::scalardb::render_properties({
    "scalar.db.storage"        = "jdbc"
    "scalar.db.contact_points" = "jdbc:postgresql://orders-db.internal:5432/shop"
  })
}
