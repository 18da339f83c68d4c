// Package all is the registration of storages: one line each.
package all

import "github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage"

// Kinds lists every driver, by name.
func Kinds() []storage.Kind {
	return []storage.Kind{}
}
