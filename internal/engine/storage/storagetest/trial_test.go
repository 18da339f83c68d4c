package storagetest

import (
	"errors"
	"fmt"
	"testing"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

// A secret is found wherever it could show.
func TestLeaks(t *testing.T) {
	const secret = "pässword"
	for _, v := range []any{
		fmt.Errorf("connecting: %w", errors.New("user:pässword@host")),
		engine.Facts{Warnings: []string{"see pässword"}},
		engine.Captured{Artifacts: []engine.Artifact{{Extra: map[string]string{"dsn": "x pässword"}}}},
		map[string]any{"argv": []string{"--password=pässword"}},
	} {
		var s said
		s.add("nothing here", v)
		if len(s.leaks([]string{secret})) == 0 {
			t.Errorf("%v: the secret was not found", v)
		}
		if len(s.leaks([]string{"another"})) != 0 {
			t.Errorf("%v: a secret was found that is not there", v)
		}
	}
}
