//go:build acceptance

package mariadb

import (
	"net"
	"os"
	"testing"
)

// A server is gone, with its data, once the test that started it ended.
func TestStart(t *testing.T) {
	var s *Server
	t.Run("a server", func(t *testing.T) {
		s = Start(t, Options{})
		var version string
		if err := s.DB().QueryRowContext(t.Context(), "SELECT VERSION()").Scan(&version); err != nil {
			t.Fatalf("asking for the version: %v", err)
		}
		t.Log(version)
	})
	if c, err := net.Dial("tcp", s.Address()); err == nil {
		_ = c.Close()
		t.Errorf("the server still listens on %s", s.Address())
	}
	if _, err := os.Stat(s.Dir); !os.IsNotExist(err) {
		t.Errorf("its folder is still there: %v", err)
	}
}
