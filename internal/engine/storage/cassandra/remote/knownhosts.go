package remote

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // the format of hashed known_hosts lines
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"
)

// knownHosts are the lines of known_hosts files. (The package knownhosts of x/crypto reads files only, and does not tell which kinds of keys a host has.)
type knownHosts struct {
	from  []string // where they are from, for messages
	lines []knownLine
	// bad are lines that could not be read: like OpenSSH, the rest counts all the same.
	bad []string
}

type knownLine struct {
	marker string // "", "cert-authority" or "revoked"
	hosts  []string
	key    ssh.PublicKey
}

// knownName is how known_hosts names a server: "host", or "[host]:port" for another port than 22.
func knownName(host string, port int) string {
	if port == defaultPort {
		return host
	}
	return "[" + host + "]:" + strconv.Itoa(port)
}

// loadKnownHosts reads what the settings name.
func (s Settings) loadKnownHosts(getenv func(string) string) (*knownHosts, error) {
	k := &knownHosts{}
	if s.KnownHosts != "" {
		k.add("ssh.known_hosts", s.KnownHosts)
		return k, nil
	}
	home := getenv("HOME")
	paths, given := []string{"/etc/ssh/ssh_known_hosts"}, s.KnownHostsPath != ""
	if home != "" {
		paths = slices.Insert(paths, 0, filepath.Join(home, ".ssh", "known_hosts"))
	}
	if given {
		path := s.KnownHostsPath
		if rest, ok := strings.CutPrefix(path, "~/"); ok {
			if home == "" {
				return nil, fmt.Errorf("ssh.known_hosts_path %s: the environment has no HOME", path)
			}
			path = filepath.Join(home, rest)
		}
		paths = []string{path}
	}
	for _, path := range paths {
		text, err := os.ReadFile(path) //nolint:gosec // it is the user's to say which file
		switch {
		case errors.Is(err, fs.ErrNotExist) && !given:
			k.from = append(k.from, path+" (which does not exist)")
		case err != nil:
			return nil, fmt.Errorf("reading the known hosts of SSH: %w", err)
		default:
			k.add(path, string(text))
		}
	}
	return k, nil
}

func (k *knownHosts) add(from, text string) {
	k.from = append(k.from, from)
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		marker, hosts, key, _, _, err := ssh.ParseKnownHosts([]byte(line))
		if err != nil || key == nil || (marker != "" && marker != "cert-authority" && marker != "revoked") {
			k.bad = append(k.bad, fmt.Sprintf("line %d of %s", i+1, from))
			continue
		}
		k.lines = append(k.lines, knownLine{marker: marker, hosts: hosts, key: key})
	}
}

// of are the keys of one server, and of the authorities that may certify one.
func (k *knownHosts) of(name string) (keys, authorities []ssh.PublicKey) {
	for _, l := range k.lines {
		switch {
		case l.marker == "revoked" || !l.matches(name):
		case l.marker == "cert-authority":
			authorities = append(authorities, l.key)
		default:
			keys = append(keys, l.key)
		}
	}
	return keys, authorities
}

func (k *knownHosts) revoked(key ssh.PublicKey) bool {
	return slices.ContainsFunc(k.lines, func(l knownLine) bool { return l.marker == "revoked" && sameKey(l.key, key) })
}

func sameKey(a, b ssh.PublicKey) bool { return bytes.Equal(a.Marshal(), b.Marshal()) }

func (l knownLine) matches(name string) bool {
	name = strings.ToLower(name)
	found := false
	for _, pattern := range l.hosts {
		bare, negated := strings.CutPrefix(pattern, "!")
		if !matchHost(bare, name) {
			continue
		}
		if negated {
			return false
		}
		found = true
	}
	return found
}

// matchHost matches one pattern: a hashed name, or a text with the wildcards * and ?.
func matchHost(pattern, name string) bool {
	if hashed, ok := strings.CutPrefix(pattern, "|1|"); ok {
		salt64, sum64, ok := strings.Cut(hashed, "|")
		salt, err := base64.StdEncoding.DecodeString(salt64)
		sum, err2 := base64.StdEncoding.DecodeString(sum64)
		if !ok || err != nil || err2 != nil {
			return false
		}
		mac := hmac.New(sha1.New, salt)
		_, _ = mac.Write([]byte(name)) // never fails
		return hmac.Equal(mac.Sum(nil), sum)
	}
	pattern = strings.ToLower(pattern)
	if bare, ok := strings.CutSuffix(pattern, "]:22"); ok && strings.HasPrefix(bare, "[") {
		pattern = bare[1:]
	}
	return matchWildcards(pattern, name)
}

// matchWildcards takes time in proportion to the lengths' product: it goes back to the last * only.
func matchWildcards(pattern, name string) bool {
	p, n, star, mark := 0, 0, -1, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, n
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == name[n]):
			p++
			n++
		case star >= 0:
			mark++
			p, n = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// algorithms are those of the keys that are known: a server that has keys of several types is asked for one of them. None known: all, the shortest keys first,
// as OpenSSH asks.
func algorithms(keys, authorities []ssh.PublicKey) []string {
	var all []string
	add := func(names ...string) {
		for _, n := range names {
			if !slices.Contains(all, n) {
				all = append(all, n)
			}
		}
	}
	if len(keys)+len(authorities) == 0 {
		add(ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
	}
	if len(authorities) > 0 {
		add(ssh.CertAlgoED25519v01, ssh.CertAlgoECDSA256v01, ssh.CertAlgoECDSA384v01, ssh.CertAlgoECDSA521v01, ssh.CertAlgoRSASHA512v01, ssh.CertAlgoRSASHA256v01)
	}
	for _, k := range keys {
		if k.Type() == ssh.KeyAlgoRSA {
			add(ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256) // never ssh-rsa, whose signatures are SHA-1
			continue
		}
		add(k.Type())
	}
	return all
}

// HostKeyError says that a server's key is not one of those in known_hosts. It is never accepted by itself.
type HostKeyError struct {
	Host        string // as known_hosts names it, "host" or "[host]:port"
	Fingerprint string // of the key that the server has, "SHA256:..."
	Line        string // the line that known_hosts would have to have for it; empty where the server did not show a key
	Reason      string
	hint        string
}

func (e *HostKeyError) Error() string { return e.Reason + e.hint }

// keyscan is the command that prints a server's keys.
func keyscan(host string, port int, kind string) string {
	command := "ssh-keyscan"
	if kind != "" {
		command += " -t " + kind
	}
	if port != defaultPort {
		command += " -p " + strconv.Itoa(port)
	}
	return command + " " + host
}

// short is the name that ssh-keyscan and ssh-keygen have for a type of keys.
func short(keyType string) string {
	switch {
	case strings.HasPrefix(keyType, "ecdsa-"), strings.HasPrefix(keyType, "rsa-"):
		return keyType[:strings.IndexByte(keyType, '-')]
	}
	return strings.TrimPrefix(keyType, "ssh-")
}

// check is the HostKeyCallback for one server.
func (k *knownHosts) check(t target) ssh.HostKeyCallback {
	name := knownName(t.host, t.port)
	return func(address string, remote net.Addr, key ssh.PublicKey) error {
		keys, authorities := k.of(name)
		if cert, ok := key.(*ssh.Certificate); ok && len(authorities) > 0 {
			checker := &ssh.CertChecker{
				IsHostAuthority: func(auth ssh.PublicKey, _ string) bool {
					return slices.ContainsFunc(authorities, func(a ssh.PublicKey) bool { return sameKey(a, auth) })
				},
				IsRevoked: func(c *ssh.Certificate) bool { return k.revoked(c.Key) || k.revoked(c.SignatureKey) },
			}
			if err := checker.CheckHostKey(address, remote, cert); err != nil {
				return &HostKeyError{Host: name, Fingerprint: ssh.FingerprintSHA256(cert.Key),
					Reason: fmt.Sprintf("the certificate of %s is not accepted: %s", name, err), hint: "; known hosts: " + strings.Join(k.from, ", ")}
			}
			return nil
		}
		e := &HostKeyError{Host: name, Fingerprint: ssh.FingerprintSHA256(key), Line: name + " " + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))}
		scan := keyscan(t.host, t.port, short(key.Type()))
		switch {
		case k.revoked(key):
			e.Line = ""
			e.Reason = fmt.Sprintf("the host key of %s, %s %s, is marked as revoked in the known hosts (%s)", name, key.Type(), e.Fingerprint, strings.Join(k.from, ", "))
			return e
		case slices.ContainsFunc(keys, func(known ssh.PublicKey) bool { return sameKey(known, key) }):
			return nil
		case len(keys) == 0:
			e.Reason = fmt.Sprintf("the host key of %s is not known: the server has %s %s, and nothing is said of it in %s%s",
				name, key.Type(), e.Fingerprint, strings.Join(k.from, ", "), k.unreadable())
			e.hint = fmt.Sprintf(". If that is the server's own (`ssh-keygen -lf /etc/ssh/ssh_host_%s_key.pub` on it says), add this line, which `%s` prints as well: %s",
				short(key.Type()), scan, e.Line)
		default:
			var old []string
			for _, known := range keys {
				old = append(old, known.Type()+" "+ssh.FingerprintSHA256(known))
			}
			e.Reason = fmt.Sprintf("the host key of %s is not the known one: the server has %s %s, the known hosts (%s) have %s%s",
				name, key.Type(), e.Fingerprint, strings.Join(k.from, ", "), strings.Join(old, ", "), k.unreadable())
			e.hint = fmt.Sprintf(". Somebody may be answering in its place. Only if the machine was set up anew (`ssh-keygen -lf /etc/ssh/ssh_host_%s_key.pub` on it says), "+
				"replace its line by the one that `%s` prints: %s", short(key.Type()), scan, e.Line)
		}
		return e
	}
}

func (k *knownHosts) unreadable() string {
	if len(k.bad) == 0 {
		return ""
	}
	return " (not readable: " + strings.Join(k.bad[:min(3, len(k.bad))], ", ") + ")"
}

// noCommonKey explains a handshake that failed because the server has no key of a known type.
func (k *knownHosts) noCommonKey(t target, offered []string) error {
	keys, _ := k.of(knownName(t.host, t.port))
	var types []string
	for _, key := range keys {
		types = append(types, key.Type())
	}
	name := knownName(t.host, t.port)
	return &HostKeyError{Host: name,
		Reason: fmt.Sprintf("the known hosts (%s) have keys of %s of the types %s only, and the server has %s", strings.Join(k.from, ", "), name,
			strings.Join(types, ", "), strings.Join(offered, ", ")),
		hint: fmt.Sprintf(". Compare what `%s` prints with the keys on the server, and add it", keyscan(t.host, t.port, ""))}
}
