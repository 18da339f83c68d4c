package cassandra

import "github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/move"

// mover takes a snapshot's data off the nodes after the window, or leaves it there. See package move, whose interfaces upload, medusa and cassy implement.
type mover = move.Mover
