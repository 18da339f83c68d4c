package admin_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/admin"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/clock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/adminserver"
)

// authority is a certificate authority of one test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert: cert, key: key, pem: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}
}

func (a *authority) issue(t testing.TB, names []string, ips ...net.IP) (certPEM, keyPEM string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: names, IPAddresses: ips, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
}

func TestTLS(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	serverCert, serverKey := ca.issue(t, []string{"scalardb.internal"}, net.IPv4(127, 0, 0, 1))
	clientCert, clientKey := ca.issue(t, nil)
	strangerCert, strangerKey := other.issue(t, nil)
	pair, err := tls.X509KeyPair([]byte(serverCert), []byte(serverKey))
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AddCert(ca.cert)
	oneWay := startServer(t, adminserver.Options{TLS: &tls.Config{Certificates: []tls.Certificate{pair}}})
	mutual := startServer(t, adminserver.Options{TLS: &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}})
	plain := startServer(t, adminserver.Options{})

	for name, test := range map[string]struct {
		server *adminserver.Server
		name   string // of the target; empty: its address
		tls    *admin.TLS
		want   string // in the error; empty: it works
	}{
		"the name of the target":            {oneWay, "scalardb.internal:60051", &admin.TLS{CAPEM: ca.pem}, ""},
		"the name of the target with a dot": {oneWay, "scalardb.internal.:60051", &admin.TLS{CAPEM: ca.pem}, ""},
		"the address of the target":         {oneWay, "", &admin.TLS{CAPEM: ca.pem}, ""},
		"another name, server_name is good": {oneWay, "10-0-0-1.pod:60051", &admin.TLS{CAPEM: ca.pem, ServerName: "scalardb.internal"}, ""},
		"another name":                      {oneWay, "orders.internal:60051", &admin.TLS{CAPEM: ca.pem}, "not orders.internal"},
		"server_name is wrong":              {oneWay, "scalardb.internal:60051", &admin.TLS{CAPEM: ca.pem, ServerName: "orders.internal"}, "not orders.internal"},
		"another CA":                        {oneWay, "scalardb.internal:60051", &admin.TLS{CAPEM: other.pem}, "unknown authority"},
		"the system's roots":                {oneWay, "scalardb.internal:60051", &admin.TLS{}, "unknown authority"},
		"a client certificate nobody wants": {oneWay, "scalardb.internal:60051", &admin.TLS{CAPEM: ca.pem, CertPEM: clientCert, KeyPEM: clientKey}, ""},
		"client certificate":                {mutual, "scalardb.internal:60051", &admin.TLS{CAPEM: ca.pem, CertPEM: clientCert, KeyPEM: clientKey}, ""},
		"no client certificate":             {mutual, "scalardb.internal:60051", &admin.TLS{CAPEM: ca.pem}, "wants a client certificate"},
		"client certificate of another CA":  {mutual, "scalardb.internal:60051", &admin.TLS{CAPEM: ca.pem, CertPEM: strangerCert, KeyPEM: strangerKey}, "certificate"},
		"plaintext to a TLS port":           {oneWay, "scalardb.internal:60051", nil, "whether it speaks TLS"},
		"TLS to a plaintext port":           {plain, "", &admin.TLS{CAPEM: ca.pem}, "whether it speaks TLS"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDialer(t, admin.Settings{TLS: test.tls}, clock.System{})
			c, err := d.Dial(t.Context(), engine.Target{Name: test.name, Address: test.server.Address()})
			if err != nil {
				if test.want == "" {
					t.Fatal(err)
				}
				wantText(t, err, test.want, test.server.Address())
				return
			}
			defer func() { _ = c.Close() }()
			if test.want != "" {
				t.Fatalf("connected; want an error with %q", test.want)
			}
			if err := c.Pause(t.Context(), 1e9); err != nil {
				t.Fatal(err)
			}
			wantPaused(t, c, true)
			if err := c.Unpause(t.Context()); err != nil {
				t.Fatal(err)
			}
			before := c.Incarnation()
			test.server.DropConnections()
			eventually(t, "the loss is seen", func() bool { return c.Incarnation() != before })
			wantPaused(t, c, false) // the reconnect is verified by the same name
		})
	}
}

func TestSettingsAreValidated(t *testing.T) {
	ca := newAuthority(t)
	cert, key := ca.issue(t, nil)
	_, otherKey := ca.issue(t, nil)
	for name, test := range map[string]struct {
		tls  *admin.TLS
		want string
	}{
		"plaintext":          {nil, ""},
		"zero":               {&admin.TLS{}, ""},
		"all":                {&admin.TLS{CAPEM: ca.pem, ServerName: "scalardb.internal", CertPEM: cert, KeyPEM: key}, ""},
		"no PEM":             {&admin.TLS{CAPEM: "ca.pem"}, "tls.ca_pem"},
		"certificate only":   {&admin.TLS{CertPEM: cert}, "must be given together"},
		"key only":           {&admin.TLS{KeyPEM: key}, "must be given together"},
		"key of another":     {&admin.TLS{CertPEM: cert, KeyPEM: otherKey}, "tls.cert_pem and tls.key_pem"},
		"swapped":            {&admin.TLS{CertPEM: key, KeyPEM: cert}, "tls.cert_pem and tls.key_pem"},
		"server name: port":  {&admin.TLS{ServerName: "scalardb.internal:60051"}, "tls.server_name"},
		"server name: space": {&admin.TLS{ServerName: "scalardb internal"}, "tls.server_name"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := admin.NewDialer(admin.Settings{TLS: test.tls}, clock.System{})
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantText(t, err, test.want)
			if strings.Contains(err.Error(), "-----BEGIN PRIVATE") {
				t.Errorf("the error holds the key: %v", err)
			}
		})
	}
}

func TestSettingsTravelAsJSONOnly(t *testing.T) {
	s := admin.Settings{TLS: &admin.TLS{CAPEM: "CA-CONTENT", ServerName: "scalardb.internal", CertPEM: "CERT-CONTENT", KeyPEM: "KEY-CONTENT"}}
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var back admin.Settings
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	if *back.TLS != *s.TLS {
		t.Errorf("after a round trip: %s", data)
	}
	if data, err := json.Marshal(admin.Settings{}); err != nil || string(data) != "{}" {
		t.Errorf("plaintext as JSON: %s, %v", data, err)
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "settings", s, "tls", s.TLS)
	printed := []string{log.String(), s.String(), s.TLS.String(), fmt.Sprint(struct{ Embedded admin.Settings }{s})}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		printed = append(printed, fmt.Sprintf(verb, s), fmt.Sprintf(verb, &s), fmt.Sprintf(verb, s.TLS), fmt.Sprintf(verb, *s.TLS),
			fmt.Sprintf(verb, map[string]admin.Settings{"main": s}))
	}
	for _, text := range printed {
		if strings.Contains(text, "CONTENT") || strings.Contains(text, fmt.Sprintf("%x", "CONTENT")) {
			t.Errorf("key material is printed: %s", text)
		}
	}
}

func FuzzSettings(f *testing.F) {
	ca := newAuthority(f)
	cert, key := ca.issue(f, nil)
	f.Add(ca.pem, "scalardb.internal", cert, key)
	f.Add("", "", "", "")
	f.Add("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n", "::1", "x", "y")
	f.Fuzz(func(t *testing.T, caPEM, name, certPEM, keyPEM string) {
		s := admin.Settings{TLS: &admin.TLS{CAPEM: caPEM, ServerName: name, CertPEM: certPEM, KeyPEM: keyPEM}}
		err := s.Validate()
		if len(keyPEM) > 20 && (strings.Contains(s.String(), keyPEM) || err != nil && strings.Contains(err.Error(), keyPEM)) {
			t.Errorf("the key is printed: %s, %v", s, err)
		}
	})
}
