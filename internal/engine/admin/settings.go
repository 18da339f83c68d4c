package admin

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Settings say how to speak to the targets of one group. They hold key material: String and every fmt verb hide it, only
// JSON carries it, for the watchdog process that gets its own copy over a pipe.
type Settings struct {
	TLS *TLS `json:"tls,omitempty"` // nil: plaintext
}

// TLS is the transport security of one target group. The zero value trusts the system's roots and the name of the target.
type TLS struct {
	CAPEM      string `json:"ca_pem,omitempty"`      // certificates to trust instead of the system's roots
	ServerName string `json:"server_name,omitempty"` // expected in the certificate instead of the target's own name
	CertPEM    string `json:"cert_pem,omitempty"`    // client certificate, chain allowed; needs KeyPEM
	KeyPEM     string `json:"key_pem,omitempty"`     // its private key, unencrypted
}

// Validate finds everything that can be wrong without a connection.
func (s Settings) Validate() error {
	if s.TLS == nil {
		return nil
	}
	_, err := s.TLS.config()
	return err
}

// String says what is set, never its content.
func (s Settings) String() string {
	if s.TLS == nil {
		return "plaintext"
	}
	return s.TLS.String()
}

// String says what is set, never its content.
func (t TLS) String() string {
	parts := []string{"TLS"}
	if t.ServerName != "" {
		parts = append(parts, "server name "+t.ServerName)
	}
	if t.CAPEM != "" {
		parts = append(parts, "own CA")
	}
	if t.CertPEM != "" || t.KeyPEM != "" {
		parts = append(parts, "client certificate")
	}
	return strings.Join(parts, ", ")
}

// Format makes all verbs print String, also inside of Settings: %+v and %#v would spell the private key out.
func (t TLS) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, t.String()) }

// config is the TLS configuration but for the server's name.
func (t TLS) config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if strings.ContainsAny(t.ServerName, " \t\r\n/:") {
		return nil, fmt.Errorf("reading tls.server_name %q: it must be a host name or an IPv4 address, without a port", t.ServerName)
	}
	if t.CAPEM != "" {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM([]byte(t.CAPEM)) {
			return nil, errors.New("reading tls.ca_pem: it holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)")
		}
	}
	if (t.CertPEM == "") != (t.KeyPEM == "") {
		return nil, errors.New("reading tls: cert_pem and key_pem must be given together")
	}
	if t.CertPEM != "" {
		pair, err := tls.X509KeyPair([]byte(t.CertPEM), []byte(t.KeyPEM))
		if err != nil {
			return nil, fmt.Errorf("reading tls.cert_pem and tls.key_pem: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
