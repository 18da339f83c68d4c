data "scalardb_targets" "now" {}

check "nothing_is_paused" {
  assert {
    condition     = !data.scalardb_targets.now.paused
    error_message = "A target is paused: see terraform-provider-scalardb unpause --help."
  }
}
