package rest

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/testclock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
)

// A server with an authority of its own that wants a client's certificate.
func TestTLS(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS12}
	server.Config.ErrorLog = nil
	server.StartTLS()
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	for name, c := range map[string]struct {
		config *tls.Config
		good   bool
	}{
		"neither":            {nil, false},
		"only the authority": {&tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, false},
		"both":               {&tls.Config{RootCAs: roots, Certificates: server.TLS.Certificates, MinVersion: tls.VersionTLS12}, true},
	} {
		client, err := New(Settings{URL: server.URL, TLS: c.config, Clock: testclock.New()}, node.Node{Address: "127.0.0.1"}, 1)
		if err != nil {
			t.Fatal(err)
		}
		_, err = client.Do(t.Context(), Call{Method: http.MethodGet})
		client.Close()
		if (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}
