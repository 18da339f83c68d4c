// Package ststest is a stand-in of AWS STS for tests, in this process. It follows the AWS STS API reference for GetCallerIdentity, AssumeRole and
// AssumeRoleWithWebIdentity, and Signature Version 4 of the IAM user guide: every signature is computed again, with the secret that belongs to the access key and over the
// session token, region and body that were sent. It refuses unknown keys, wrong signatures, roles it does not know, a wrong external id, wrong tokens, durations and
// session names that AWS refuses, and parameters that it does not know. It shows nothing of policies (they are only recorded), expiry, MFA, tags' rules and throttling.
package ststest

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// Role is one that may be assumed.
type Role struct {
	ExternalID string // that callers must name; empty: none
	Token      string // web identity token that gives the role; empty: only AssumeRole does
	By         string // ARN of who may assume it; empty: everybody
}

// Call is one call that was answered.
type Call struct {
	Action    string
	AccessKey string // empty: unsigned
	Region    string // of the signature
	Form      url.Values
}

// identity is whose an access key is.
type identity struct{ secret, token, arn string }

// Server is one stand-in. It is gone when the test ends.
type Server struct {
	URL     string
	Account string

	mu    sync.Mutex
	keys  map[string]identity
	roles map[string]Role
	calls []Call
}

// Start starts one, of an account, which knows nobody yet.
func Start(t testing.TB, account string) *Server {
	t.Helper()
	s := &Server{Account: account, keys: map[string]identity{}, roles: map[string]Role{}}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.URL = server.URL
	return s
}

// User makes an access key known.
func (s *Server) User(name, accessKey, secret string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[accessKey] = identity{secret: secret, arn: "arn:aws:iam::" + s.Account + ":user/" + name}
}

// Role makes a role known, and returns its ARN.
func (s *Server) Role(name string, r Role) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	arn := "arn:aws:iam::" + s.Account + ":role/" + name
	s.roles[arn] = r
	return arn
}

// Calls are those that were answered, in order.
func (s *Server) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

// Caller is the ARN of whose an access key is, or empty.
func (s *Server) Caller(accessKey string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys[accessKey].arn
}

type refusal struct {
	status        int
	code, message string
}

// ServeHTTP answers one call.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	result, refused := s.answer(r)
	w.Header().Set("Content-Type", "text/xml")
	if refused != nil {
		w.WriteHeader(refused.status)
		_, _ = fmt.Fprintf(w, `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error><RequestId>r</RequestId></ErrorResponse>`,
			refused.code, refused.message)
		return
	}
	action := s.calls[len(s.calls)-1].Action
	_, _ = fmt.Fprintf(w, `<%[1]sResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><%[1]sResult>%[2]s</%[1]sResult><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></%[1]sResponse>`, action, result)
}

func (s *Server) answer(r *http.Request) (string, *refusal) {
	body, err := io.ReadAll(r.Body)
	form, formErr := url.ParseQuery(string(body))
	if err != nil || formErr != nil || r.Method != http.MethodPost || r.URL.Path != "/" || form.Get("Version") != "2011-06-15" {
		return "", &refusal{http.StatusBadRequest, "MalformedInput", "a POST of Version 2011-06-15 is expected"}
	}
	call := Call{Action: form.Get("Action"), Form: form}
	var caller identity
	if call.Action != "AssumeRoleWithWebIdentity" {
		var refused *refusal
		if call.AccessKey, call.Region, refused = s.signed(r, body); refused != nil {
			return "", refused
		}
		caller = s.keys[call.AccessKey]
	}
	var result string
	var refused *refusal
	switch call.Action {
	case "GetCallerIdentity":
		if refused = known(form); refused == nil {
			result = fmt.Sprintf("<Arn>%s</Arn><UserId>AIDA</UserId><Account>%s</Account>", caller.arn, s.Account)
		}
	case "AssumeRole":
		result, refused = s.assume(form, caller)
	case "AssumeRoleWithWebIdentity":
		result, refused = s.assumeByToken(form)
	default:
		refused = &refusal{http.StatusBadRequest, "InvalidAction", "this stand-in does not know it"}
	}
	if refused == nil {
		s.calls = append(s.calls, call)
	}
	return result, refused
}

var credential = regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=([A-Z0-9]+)/([0-9]{8})/([a-z0-9-]+)/sts/aws4_request, SignedHeaders=([a-z0-9;-]+), Signature=[0-9a-f]{64}$`)

// signed computes the signature again.
func (s *Server) signed(r *http.Request, body []byte) (accessKey, region string, refused *refusal) {
	m := credential.FindStringSubmatch(r.Header.Get("Authorization"))
	if m == nil {
		return "", "", &refusal{http.StatusForbidden, "MissingAuthenticationToken", "the request is not signed for STS"}
	}
	who, ok := s.keys[m[1]]
	if !ok || who.token != r.Header.Get("X-Amz-Security-Token") {
		return "", "", &refusal{http.StatusForbidden, "InvalidClientTokenId", "The security token included in the request is invalid."}
	}
	again, err := http.NewRequest(r.Method, "http://"+r.Host+r.URL.RequestURI(), strings.NewReader(string(body)))
	if err != nil {
		return "", "", &refusal{http.StatusBadRequest, "MalformedInput", "its address"}
	}
	headers := strings.Split(m[4], ";")
	for _, h := range headers {
		if h != "host" && h != "content-length" && h != "x-amz-security-token" {
			again.Header[http.CanonicalHeaderKey(h)] = r.Header.Values(h)
		}
	}
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil || time.Until(at).Abs() > 15*time.Minute {
		return "", "", &refusal{http.StatusForbidden, "SignatureDoesNotMatch", "Signature expired"}
	}
	sum := sha256.Sum256(body)
	c := aws.Credentials{AccessKeyID: m[1], SecretAccessKey: who.secret, SessionToken: who.token}
	if err := v4.NewSigner().SignHTTP(r.Context(), c, again, hex.EncodeToString(sum[:]), "sts", m[3], at); err != nil || again.Header.Get("Authorization") != r.Header.Get("Authorization") {
		return "", "", &refusal{http.StatusForbidden, "SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided."}
	}
	return m[1], m[3], nil
}

// known refuses parameters that are not listed.
func known(form url.Values, names ...string) *refusal {
	for name := range form {
		name, _, _ = strings.Cut(name, ".") // of a list
		if name != "Action" && name != "Version" && !slices.Contains(names, name) {
			return &refusal{http.StatusBadRequest, "MalformedInput", "unknown parameter " + name}
		}
	}
	return nil
}

var (
	sessionName = regexp.MustCompile(`^[\w+=,.@-]{2,64}$`)
	externalID  = regexp.MustCompile(`^[\w+=,.@:/-]+$`)
)

// checkSession looks at what both kinds of assuming have in common.
func (s *Server) checkSession(form url.Values) (Role, *refusal) {
	role, ok := s.roles[form.Get("RoleArn")]
	switch {
	case !sessionName.MatchString(form.Get("RoleSessionName")):
		return role, &refusal{http.StatusBadRequest, "ValidationError", "RoleSessionName"}
	case !ok:
		return role, &refusal{http.StatusForbidden, "AccessDenied", "not authorized to perform: sts:AssumeRole"}
	}
	if d := form.Get("DurationSeconds"); d != "" {
		if n, err := strconv.Atoi(d); err != nil || n < 900 || n > 43200 {
			return role, &refusal{http.StatusBadRequest, "ValidationError", "DurationSeconds"}
		}
	}
	return role, nil
}

func (s *Server) assume(form url.Values, caller identity) (string, *refusal) {
	if refused := known(form, "RoleArn", "RoleSessionName", "DurationSeconds", "ExternalId", "Policy", "PolicyArns", "SourceIdentity", "Tags", "TransitiveTagKeys"); refused != nil {
		return "", refused
	}
	role, refused := s.checkSession(form)
	if refused != nil {
		return "", refused
	}
	if id := form.Get("ExternalId"); (form.Has("ExternalId") && (len(id) < 2 || len(id) > 1224 || !externalID.MatchString(id))) || (role.ExternalID != "" && id != role.ExternalID) || (role.By != "" && role.By != caller.arn) {
		return "", &refusal{http.StatusForbidden, "AccessDenied", "not authorized to perform: sts:AssumeRole"}
	}
	return s.session(form), nil
}

func (s *Server) assumeByToken(form url.Values) (string, *refusal) {
	if refused := known(form, "RoleArn", "RoleSessionName", "DurationSeconds", "Policy", "PolicyArns", "WebIdentityToken"); refused != nil {
		return "", refused
	}
	role, refused := s.checkSession(form)
	if refused != nil {
		return "", refused
	}
	if token := form.Get("WebIdentityToken"); token == "" || token != role.Token {
		return "", &refusal{http.StatusBadRequest, "InvalidIdentityToken", "the token is not valid"}
	}
	return "<SubjectFromWebIdentityToken>subject</SubjectFromWebIdentityToken>" + s.session(form), nil
}

// session gives temporary credentials.
func (s *Server) session(form url.Values) string {
	key, secret, token := "ASIA"+rand.Text()[:16], rand.Text(), rand.Text()
	arn := strings.Replace(strings.Replace(form.Get("RoleArn"), ":iam:", ":sts:", 1), ":role/", ":assumed-role/", 1) + "/" + form.Get("RoleSessionName")
	s.keys[key] = identity{secret: secret, token: token, arn: arn}
	return fmt.Sprintf("<Credentials><AccessKeyId>%s</AccessKeyId><SecretAccessKey>%s</SecretAccessKey><SessionToken>%s</SessionToken><Expiration>%s</Expiration></Credentials>"+
		"<AssumedRoleUser><Arn>%s</Arn><AssumedRoleId>AROA:%s</AssumedRoleId></AssumedRoleUser>", key, secret, token, time.Now().Add(time.Hour).UTC().Format(time.RFC3339), arn, form.Get("RoleSessionName"))
}
