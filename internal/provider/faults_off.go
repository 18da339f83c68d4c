//go:build !faults

package provider

import (
	"context"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

// phaseHook is for builds with fault injection; a release has none.
func phaseHook(func(string) string) func(context.Context, engine.Phase) { return nil }
