package sqlite

import "github.com/scalar-labs/terraform-provider-scalardb/internal/engine"

// SetMaxRollback makes the limit of the rollback-journal modes small enough to reach.
func SetMaxRollback(s engine.Source, bytes int64) { s.(*source).maxRollback = bytes }

// Open opens a file as the storage does.
var Open = open
