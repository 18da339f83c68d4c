package memcatalog_test

import (
	"errors"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/catalog/catalogtest"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/memcatalog"
)

func TestConformance(t *testing.T) {
	catalogtest.Suite{New: func(*testing.T) engine.Catalog { return memcatalog.New(time.Now) }}.Run(t)
}

func TestHooks(t *testing.T) {
	boom := errors.New("boom")
	c := memcatalog.New(time.Now)
	c.Fail = func(op, name string) error {
		if op == "create" && name == "a" {
			return boom
		}
		return nil
	}
	c.After = func(op, name string) error {
		if op == "create" && name == "b" {
			return boom
		}
		return nil
	}
	if err := c.Create(t.Context(), "a", nil); !errors.Is(err, boom) || len(c.Names()) != 0 {
		t.Errorf("Create(a) = %v, leaving %q", err, c.Names())
	}
	if err := c.Create(t.Context(), "b", []byte("x")); !errors.Is(err, boom) || string(c.Peek("b")) != "x" {
		t.Errorf("Create(b) = %v, leaving %q", err, c.Names())
	}
}
