// Package all is the registration of storages: one line each.
package all

import (
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/mysql"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/postgresql"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/sqlite"
)

// Kinds lists every driver, by name.
func Kinds() []storage.Kind {
	return []storage.Kind{
		mysql.Kind{},
		postgresql.Kind{},
		sqlite.Kind{},
	}
}
