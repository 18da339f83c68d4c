package node_test

import (
	"testing"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
)

func TestCheckImport(t *testing.T) {
	for dir, ok := range map[string]bool{
		"/a/shop/t": true, "/a/shop/t/": true, "/a/b/shop/t-0123456789abcdef0123456789abcdef": true, "/shop/t": true,
		"/a/shop/tt": false, "/a/shop/t-1": false, "/a/Shop/t": false, "/a/t": false, "shop/t": false, "/a/shop/t/x": false, "/a/shop/\n/t": false,
	} {
		if err := node.CheckImport("shop", "t", []string{dir}); (err == nil) != ok {
			t.Errorf("%q: %v", dir, err)
		}
	}
}
