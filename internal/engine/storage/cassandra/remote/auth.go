package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// login is how one connection proves who we are.
type login struct {
	methods []ssh.AuthMethod
	with    string // for messages, without secrets
	agent   io.Closer
}

func (l *login) close() {
	if l.agent != nil {
		_ = l.agent.Close()
	}
}

// login makes the authentication methods: the private key, else the agent where there is no password either, then the password.
func (s Settings) login(ctx context.Context, getenv func(string) string) (*login, error) {
	l := &login{}
	switch {
	case s.PrivateKeyPEM != "":
		key, err := s.privateKey()
		if err != nil {
			return nil, err
		}
		l.methods = append(l.methods, ssh.PublicKeys(key))
		l.with = "the private key " + ssh.FingerprintSHA256(key.PublicKey())
	case s.Password == "":
		socket := getenv("SSH_AUTH_SOCK")
		if socket == "" {
			return nil, errors.New("there is nothing to log in with over SSH: give credentials.ssh.private_key_pem, or start an SSH agent (SSH_AUTH_SOCK is not set)")
		}
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
		if err != nil {
			return nil, fmt.Errorf("connecting to the SSH agent of SSH_AUTH_SOCK: %w", err)
		}
		l.agent = conn
		client := agent.NewClient(conn)
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
		signers, err := client.Signers()
		stop()
		if err == nil && len(signers) == 0 {
			err = errors.New("it has no keys (`ssh-add -l` shows them)")
		}
		if err != nil {
			l.close()
			return nil, fmt.Errorf("asking the SSH agent of SSH_AUTH_SOCK for its keys: %w", err)
		}
		l.methods = append(l.methods, ssh.PublicKeys(signers...))
		l.with = fmt.Sprintf("the %d keys of the SSH agent", len(signers))
	}
	if s.Password != "" {
		l.methods = append(l.methods, ssh.Password(s.Password), ssh.KeyboardInteractive(func(_, _ string, questions []string, echos []bool) ([]string, error) {
			answers := make([]string, len(questions))
			for i := range questions {
				if echos[i] {
					return nil, errors.New("the server asks for more than a password")
				}
				answers[i] = s.Password
			}
			return answers, nil
		}))
		if l.with != "" {
			l.with += " and "
		}
		l.with += "the password"
	}
	return l, nil
}
