package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
)

// Clock is where time comes from; engine.Clock is one.
type Clock interface {
	// Sleep returns ctx's error when ctx ends first.
	Sleep(ctx context.Context, d time.Duration) error
	// WithTimeout is context.WithTimeout on this clock.
	WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc)
}

// Settings say how the nodes' SSH servers are reached. When they are printed, the secrets are left out.
type Settings struct {
	Host string // may hold {address} and the like (node.Node.Expand); default "{address}"
	Port int    // default 22
	User string // required
	// KnownHosts is the text of a known_hosts file. Without it the file at KnownHostsPath is read at each connection; without both, ~/.ssh/known_hosts and
	// /etc/ssh/ssh_known_hosts, those that exist. A key that is in none of them is always refused.
	KnownHosts     string
	KnownHostsPath string
	// PrivateKeyPEM is a private key, encrypted with Passphrase or not. Without it, and without Password, the SSH agent at SSH_AUTH_SOCK is asked.
	PrivateKeyPEM string
	Passphrase    string
	Password      string
	Bastion       *Bastion // nil: direct
}

// Bastion is a host through which all nodes are reached. It is logged into with the same keys and the same known hosts.
type Bastion struct {
	Host string
	Port int    // default 22
	User string // default: that of the nodes
}

// Format implements fmt.Formatter: no verb prints a secret.
func (s Settings) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "remote.Settings("+s.User+")")
}

const defaultPort = 22

// Validate says everything that is wrong with the settings, without connecting.
func (s Settings) Validate() error {
	var errs []error
	if s.User == "" {
		errs = append(errs, errors.New("the user of SSH is missing: set ssh.user"))
	}
	if err := checkPort(s.Port); err != nil {
		errs = append(errs, fmt.Errorf("ssh.port: %w", err))
	}
	if b := s.Bastion; b != nil {
		if b.Host == "" {
			errs = append(errs, errors.New("ssh.bastion.host is missing"))
		}
		if err := checkPort(b.Port); err != nil {
			errs = append(errs, fmt.Errorf("ssh.bastion.port: %w", err))
		}
	}
	if s.KnownHosts != "" && s.KnownHostsPath != "" {
		errs = append(errs, errors.New("ssh.known_hosts and ssh.known_hosts_path exclude one another"))
	}
	if s.PrivateKeyPEM != "" {
		if _, err := s.privateKey(); err != nil {
			errs = append(errs, err)
		}
	} else if s.Passphrase != "" {
		errs = append(errs, errors.New("a passphrase of an SSH key is given, and no private_key_pem"))
	}
	return errors.Join(errs...)
}

func checkPort(port int) error {
	if port < 0 || port > 65535 {
		return fmt.Errorf("%d is not between 1 and 65535", port)
	}
	return nil
}

// privateKey never has the key's text in its error.
func (s Settings) privateKey() (ssh.Signer, error) {
	if s.Passphrase != "" {
		key, err := ssh.ParsePrivateKeyWithPassphrase([]byte(s.PrivateKeyPEM), []byte(s.Passphrase))
		if err != nil {
			return nil, fmt.Errorf("the SSH private key cannot be read with its passphrase: %w", err)
		}
		return key, nil
	}
	key, err := ssh.ParsePrivateKey([]byte(s.PrivateKeyPEM))
	var missing *ssh.PassphraseMissingError
	switch {
	case errors.As(err, &missing):
		return nil, errors.New("the SSH private key is encrypted: set credentials.ssh.passphrase")
	case err != nil:
		return nil, fmt.Errorf("the SSH private key cannot be read (it has to be in PEM, as ssh-keygen writes it): %w", err)
	}
	return key, nil
}

// target is one SSH server.
type target struct {
	host string
	port int
	user string
}

func (t target) address() string { return net.JoinHostPort(t.host, strconv.Itoa(t.port)) }

func (t target) String() string {
	return "ssh " + t.user + "@" + knownName(t.host, t.port)
}

func (s Settings) target(n node.Node) target {
	host := s.Host
	if host == "" {
		host = "{address}"
	}
	return target{host: strings.Trim(n.Expand(host), "[]"), port: orDefault(s.Port), user: s.User}
}

func (s Settings) bastion() target {
	t := target{host: strings.Trim(s.Bastion.Host, "[]"), port: orDefault(s.Bastion.Port), user: s.Bastion.User}
	if t.user == "" {
		t.user = s.User
	}
	return t
}

func orDefault(port int) int {
	if port == 0 {
		return defaultPort
	}
	return port
}
