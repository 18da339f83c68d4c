package awsapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
)

const notPrinted = "(AWS settings)"

// String keeps secrets out of logs and errors.
func (Settings) String() string { return notPrinted }

// GoString is String.
func (Settings) GoString() string { return notPrinted }

// MarshalJSON keeps secrets out of JSON. Seal is what a pipe gets.
func (Settings) MarshalJSON() ([]byte, error) { return json.Marshal(notPrinted) }

// String keeps the token out of logs and errors.
func (WebIdentity) String() string { return notPrinted }

// GoString is String.
func (WebIdentity) GoString() string { return notPrinted }

// MarshalJSON keeps the token out of JSON.
func (WebIdentity) MarshalJSON() ([]byte, error) { return json.Marshal(notPrinted) }

// String keeps credentials out of logs and errors.
func (s *Session) String() string { return "(AWS account " + s.account + ")" }

// GoString is String.
func (s *Session) GoString() string { return s.String() }

// redact takes the secrets out of a text.
func (s Settings) redact(text string) string {
	secrets := []string{s.SecretKey, s.Token}
	if s.WebIdentity != nil {
		secrets = append(secrets, s.WebIdentity.Token)
	}
	for _, proxy := range []string{s.HTTPProxy, s.HTTPSProxy} {
		// Also of a proxy that is no URL.
		if _, userinfo, ok := strings.Cut(proxy, "//"); ok {
			if at := strings.LastIndexByte(userinfo, '@'); at > 0 {
				secrets = append(secrets, userinfo[:at])
			}
		}
		if u, err := url.Parse(proxy); err == nil && u.User != nil {
			if password, ok := u.User.Password(); ok {
				secrets = append(secrets, password)
			}
		}
	}
	for _, secret := range secrets {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "(not shown)")
		}
	}
	return text
}

// plain and plainWebIdentity are what they are without the methods that hide them.
type (
	plain            Settings
	plainWebIdentity WebIdentity
)

// sealed is what Seal writes.
type sealed struct {
	plain
	WebIdentity *plainWebIdentity `json:"assume_role_with_web_identity,omitempty"` // instead of plain's
	Environment map[string]string `json:"environment,omitempty"`
}

// Seal is everything that it takes to open the same account in another process of this program: the settings with their secrets, and those of the environment
// variables (os.Environ) that say something about AWS. It holds secrets: it is for a pipe. Relative paths are made absolute, for the other's working directory is another.
func (s Settings) Seal(environ []string) (json.RawMessage, error) {
	s, err := s.absolute()
	if err != nil {
		return nil, err
	}
	out := sealed{plain: plain(s), WebIdentity: (*plainWebIdentity)(s.WebIdentity), Environment: map[string]string{}}
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		if !concernsAWS(name) {
			continue
		}
		if pathVariables[name] {
			if value, err = absolute(value); err != nil {
				return nil, err
			}
		}
		out.Environment[name] = value
	}
	data, err := json.Marshal(out)
	if err != nil {
		return nil, errors.New("encoding the settings of AWS") // err could quote a secret
	}
	return data, nil
}

// Unseal is the other side of Seal: the settings, and the environment variables to set before Open.
func Unseal(data json.RawMessage) (Settings, map[string]string, error) {
	var in sealed
	if err := json.Unmarshal(data, &in); err != nil {
		return Settings{}, nil, errors.New("decoding the settings of AWS: they are none") // err could quote a secret
	}
	s := Settings(in.plain)
	s.WebIdentity = (*WebIdentity)(in.WebIdentity)
	return s, in.Environment, nil
}

// concernsAWS says whether the SDK may look at an environment variable.
func concernsAWS(name string) bool {
	switch strings.ToUpper(name) {
	case "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY":
		return true
	}
	return strings.HasPrefix(name, "AWS_")
}

// pathVariables hold the path of one file.
var pathVariables = map[string]bool{"AWS_CONFIG_FILE": true, "AWS_SHARED_CREDENTIALS_FILE": true, "AWS_WEB_IDENTITY_TOKEN_FILE": true, "AWS_CA_BUNDLE": true,
	"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": true}

func (s Settings) absolute() (Settings, error) {
	all := func(paths []string) (out []string, err error) {
		for _, p := range paths {
			if p, err = absolute(p); err != nil {
				return nil, err
			}
			out = append(out, p)
		}
		return out, nil
	}
	var errs [4]error
	s.SharedConfigFiles, errs[0] = all(s.SharedConfigFiles)
	s.SharedCredentialsFiles, errs[1] = all(s.SharedCredentialsFiles)
	s.CustomCABundle, errs[2] = absolute(s.CustomCABundle)
	if s.WebIdentity != nil {
		w := *s.WebIdentity
		w.TokenFile, errs[3] = absolute(w.TokenFile)
		s.WebIdentity = &w
	}
	return s, errors.Join(errs[:]...)
}

// absolute leaves alone what is empty, or begins with the home directory, which the SDK puts in.
func absolute(path string) (string, error) {
	if path == "" || strings.HasPrefix(path, "~") {
		return path, nil
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("finding the file %s: %w", path, err)
	}
	return abs, nil
}
