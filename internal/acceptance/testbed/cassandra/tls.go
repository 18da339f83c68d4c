package cassandra

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// TLS has the certificates of a cluster: one of all its nodes, and one of a client, both signed by the same authority.
type TLS struct {
	CAPEM                       []byte
	ClientCertPEM, ClientKeyPEM []byte
	// Java's stores (PKCS12): TrustStore has the authority, ClientStore the client's key.
	TrustStore, ClientStore, StorePassword string

	serverStore string
}

func makeTLS(dir string, addresses []string) (*TLS, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	ca, err := newKey("ca", nil, nil)
	if err != nil {
		return nil, err
	}
	var ips []net.IP
	for _, a := range append(addresses, "127.0.0.1") {
		ips = append(ips, net.ParseIP(a))
	}
	server, err := newKey("cassandra", ca, ips)
	if err != nil {
		return nil, err
	}
	client, err := newKey("client", ca, nil)
	if err != nil {
		return nil, err
	}
	c := &TLS{
		CAPEM: ca.certPEM, ClientCertPEM: client.certPEM, ClientKeyPEM: client.keyPEM, StorePassword: rand.Text(),
		TrustStore: filepath.Join(dir, "trust.p12"), ClientStore: filepath.Join(dir, "client.p12"), serverStore: filepath.Join(dir, "server.p12"),
	}
	w := writer{}
	password := filepath.Join(dir, "password")
	w.file(password, 0o600, c.StorePassword)
	w.file(filepath.Join(dir, "ca.pem"), 0o600, string(ca.certPEM))
	for path, key := range map[string]*key{c.serverStore: server, c.ClientStore: client} {
		w.file(path+".pem", 0o600, string(key.keyPEM)+string(key.certPEM)+string(ca.certPEM))
	}
	if w.err != nil {
		return nil, w.err
	}
	for _, command := range [][]string{
		{"openssl", "pkcs12", "-export", "-name", "node", "-in", c.serverStore + ".pem", "-out", c.serverStore, "-passout", "file:" + password},
		{"openssl", "pkcs12", "-export", "-name", "client", "-in", c.ClientStore + ".pem", "-out", c.ClientStore, "-passout", "file:" + password},
		// Java trusts only certificates that carry a mark of its own.
		{"keytool", "-importcert", "-noprompt", "-alias", "ca", "-file", filepath.Join(dir, "ca.pem"), "-keystore", c.TrustStore, "-storetype", "PKCS12",
			"-storepass:file", password},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput() //nolint:gosec // the commands above
		cancel()
		if err != nil {
			return nil, fmt.Errorf("making a store of keys with %s: %w: %s", command[0], err, out)
		}
	}
	return c, nil
}

// jmxProperties are the contents of the virtual machine's own file for JMX over TLS.
func (c *TLS) jmxProperties() string {
	return "javax.net.ssl.keyStore=" + c.serverStore + "\njavax.net.ssl.keyStorePassword=" + c.StorePassword +
		"\njavax.net.ssl.trustStore=" + c.TrustStore + "\njavax.net.ssl.trustStorePassword=" + c.StorePassword + "\n"
}

// clientEncryption is the setting of cassandra.yaml.
func (c *TLS) clientEncryption() string {
	return fmt.Sprintf("{enabled: true, optional: false, require_client_auth: false, store_type: PKCS12, keystore: %s, keystore_password: %s, "+
		"truststore: %s, truststore_password: %s}", c.serverStore, c.StorePassword, c.TrustStore, c.StorePassword)
}

// clientProperties are those of a Java client.
func (c *TLS) clientProperties() []string {
	return []string{
		"-Djavax.net.ssl.trustStore=" + c.TrustStore, "-Djavax.net.ssl.trustStorePassword=" + c.StorePassword,
		"-Djavax.net.ssl.keyStore=" + c.ClientStore, "-Djavax.net.ssl.keyStorePassword=" + c.StorePassword,
	}
}

type key struct {
	cert            *x509.Certificate
	private         *ecdsa.PrivateKey
	certPEM, keyPEM []byte
}

// newKey makes a key and a certificate, signed by the authority; it is one itself when there is none.
func newKey(name string, ca *key, ips []net.IP) (*key, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, IPAddresses: ips,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, signer := template, private
	if ca == nil {
		template.IsCA, template.KeyUsage, template.ExtKeyUsage = true, x509.KeyUsageCertSign, nil
	} else {
		parent, signer = ca.cert, ca.private
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &private.PublicKey, signer)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	return &key{
		cert: cert, private: private, certPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		keyPEM: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}),
	}, nil
}
