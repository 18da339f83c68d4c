resource "scalardb_pause_window" "release" {
  name              = "before-1.4.0"
  clock_uncertainty = "2s" # how far the databases' clocks may be off
}

# The time that the vendors' own resources restore to:
#
#   resource "aws_db_instance" "clone" {
#     restore_to_point_in_time {
#       source_db_instance_identifier = "prod-orders"
#       restore_time                  = scalardb_pause_window.release.restore_point
#     }
#   }
output "restore_point" {
  value = scalardb_pause_window.release.restore_point
}
