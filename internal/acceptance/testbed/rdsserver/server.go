package rdsserver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/rds/types"
	"github.com/aws/smithy-go"
)

// Options of a server. The zero value is what most tests want.
type Options struct {
	// Factor is how many times faster than AWS time passes for statuses and for LatestRestorableTime; 0: 100.
	Factor float64
	// Lag and Step, of AWS's time, are how far LatestRestorableTime is behind at least, and in which steps it advances; 0: 5 minutes.
	Lag, Step time.Duration
	// Durations of statuses, of AWS's time; 0: a minute each.
	Creating, BackingUp, Modifying, Deleting, Snapshotting time.Duration
	// SnapshotDelay, real, is how long after the request a snapshot is taken; 0: within the request.
	SnapshotDelay time.Duration
	// Now is the clock that statuses and instants go by; nil: time.Now. Databases have the machine's.
	Now func() time.Time
	// Accounts are the numbers of accounts by access key ID; nil: AccessKey's is Account.
	Accounts map[string]string
	// PageSize is how many objects a page has at most; 0: 100, as in AWS. MaxRecords below 20 is refused, as there.
	PageSize int
	// Seed is of Rates; 0 is one too.
	Seed uint64
}

// What the server knows if Options say nothing else.
const (
	AccessKey = "AKIAIOSFODNN7EXAMPLE"
	Account   = "123456789012"
	Region    = "us-east-1"
)

// Server is one stand-in. Its methods may be called from several goroutines.
type Server struct {
	URL string // the base endpoint of RDS and STS

	options Options
	store   *store
	http    *httptest.Server
	actions map[string]action
	ctx     context.Context //nolint:containedctx // of the databases, which outlive requests
	cancel  context.CancelFunc
	wg      sync.WaitGroup // work under way
	closed  sync.Once
	held    atomic.Pointer[time.Time] // since when, by Hold

	mu          sync.Mutex
	offset      time.Duration // of the service's clock, from ours
	accounts    map[string]identity
	instances   map[key]*instance
	clusters    map[key]*cluster
	snapshots   map[key]*snapshot
	clusterSnap map[key]*snapshot
	backups     map[key]*retained        // by resource ID
	clusterKept map[key]*retainedCluster // likewise
	network     network
	quotas      map[string]int64
	secrets     map[string]string // managed master passwords, by ARN
	roles       map[string]bool   // by ARN
	chance      chance
	calls       []Call
	problems    []error
}

// key names a resource.
type key struct{ account, region, id string }

// identity is who an access key belongs to.
type identity struct {
	account string
	arn     string
	token   string // of a session; empty: none
}

// New starts a server on a free port of the loopback interface.
func New(o Options) (*Server, error) {
	set := func(d *time.Duration, standard time.Duration) {
		if *d == 0 {
			*d = standard
		}
	}
	set(&o.Lag, 5*time.Minute)
	set(&o.Step, 5*time.Minute)
	for _, d := range []*time.Duration{&o.Creating, &o.BackingUp, &o.Modifying, &o.Deleting, &o.Snapshotting} {
		set(d, time.Minute)
	}
	if o.Factor == 0 {
		o.Factor = 100
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.PageSize == 0 {
		o.PageSize = 100
	}
	if o.Accounts == nil {
		o.Accounts = map[string]string{AccessKey: Account}
	}
	store, err := newStore()
	if err != nil {
		return nil, err
	}
	s := &Server{
		options: o, store: store, accounts: map[string]identity{}, instances: map[key]*instance{}, clusters: map[key]*cluster{}, snapshots: map[key]*snapshot{},
		clusterSnap: map[key]*snapshot{}, backups: map[key]*retained{}, clusterKept: map[key]*retainedCluster{}, secrets: map[string]string{}, roles: map[string]bool{},
		network: newNetwork(),
		// The defaults of a new account.
		quotas: map[string]int64{"DBInstances": 40, "DBClusters": 40, "ManualSnapshots": 100, "ManualClusterSnapshots": 100},
		chance: chance{queued: map[string][]Fault{}, window: map[string][]time.Time{}, random: mathrand.New(mathrand.NewPCG(o.Seed, 1))},
	}
	for id, account := range o.Accounts {
		s.accounts[id] = identity{account: account, arn: "arn:aws:iam::" + account + ":user/test"}
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.actions = s.table()
	s.http = httptest.NewServer(http.HandlerFunc(s.serve))
	s.URL = s.http.URL
	return s, nil
}

// Start is New for a test, at whose end the server and all its databases are gone. What went wrong inside fails the test.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatalf("starting the RDS stand-in: %v", err)
	}
	t.Cleanup(func() {
		for _, err := range s.Errors() {
			t.Errorf("the RDS stand-in: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("closing the RDS stand-in: %v", err)
		}
	})
	return s
}

// Close ends the server and all databases, and removes their data.
func (s *Server) Close() error {
	var err error
	s.closed.Do(func() {
		s.http.CloseClientConnections()
		s.http.Close()
		s.cancel()
		s.wg.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, i := range s.instances {
			if i.data != nil {
				i.data.destroy()
			}
		}
		for _, c := range s.clusters {
			c.data.destroy()
		}
		err = s.store.close()
	})
	return err
}

// SetClockOffset shifts the service's clock from the machine's: the Date header, all instants in answers, and the meaning of those in requests. The databases
// follow in so far only: what SQL says of the time is not shifted.
func (s *Server) SetClockOffset(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offset = d
}

// real is how long something of AWS's time lasts.
func (s *Server) real(d time.Duration) time.Duration {
	return time.Duration(float64(d) / s.options.Factor)
}

// stamp is an instant as the service's clock has it.
func (s *Server) stamp(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return new(t.Add(s.offset).UTC())
}

// request is one call.
type request struct {
	*Server
	account, region string
	caller          identity
	now             time.Time // real
}

func (r *request) key(id string) key {
	return key{account: r.account, region: r.region, id: strings.ToLower(id)}
}

func (r *request) arn(kind, id string) *string {
	return new("arn:aws:rds:" + r.region + ":" + r.account + ":" + kind + ":" + id)
}

// action is how one action is handled.
type action func(r *request, form url.Values) (smithy.Serializable, error)

// on makes an action of a function of the SDK's input.
func on[I any](schema *smithy.Schema, f func(*request, *I) (smithy.Serializable, error), required ...string) action {
	return func(r *request, form url.Values) (smithy.Serializable, error) {
		in := new(I)
		if err := decode(form, schema, in); err != nil {
			return nil, err
		}
		if err := missing(in, required); err != nil {
			return nil, err
		}
		return f(r, in)
	}
}

const (
	rdsVersion   = "2014-10-31"
	stsVersion   = "2011-06-15"
	rdsNamespace = "http://rds.amazonaws.com/doc/2014-10-31/"
	stsNamespace = "https://sts.amazonaws.com/doc/2011-06-15/"
)

func (s *Server) serve(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(io.LimitReader(req.Body, 1<<20))
	var form url.Values
	if err == nil {
		form, err = url.ParseQuery(string(body))
	}
	namespace := rdsNamespace
	if form.Get("Version") == stsVersion {
		namespace = stsNamespace
	}
	call := Call{Action: form.Get("Action"), Params: form, At: s.options.Now()}
	answer, fate, failed := s.handle(req, form, &call, err)
	wait(req.Context(), fate.ReplyDelay)
	s.mu.Lock()
	w.Header().Set("Date", s.options.Now().Add(s.offset).UTC().Format(http.TimeFormat))
	call.Status = http.StatusOK
	if failed != nil {
		call.Code, call.Status = failed.code, failed.status
	}
	if fate.Lost {
		call.Status = 0
	}
	s.calls = append(s.calls, call)
	s.mu.Unlock()
	if fate.Lost {
		panic(http.ErrAbortHandler) // the connection is closed
	}
	id := rand.Text()
	w.Header().Set("Content-Type", "text/xml")
	w.Header().Set("X-Amzn-RequestId", id)
	if failed != nil {
		w.WriteHeader(failed.status)
		_, _ = w.Write(failed.xml(namespace, id))
		return
	}
	_, _ = w.Write(success(call.Action, namespace, id, answer))
}

func wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func (s *Server) handle(req *http.Request, form url.Values, call *Call, malformed error) (smithy.Serializable, Fault, *apiError) {
	fail := func(err error) (smithy.Serializable, Fault, *apiError) {
		var known *apiError
		if errors.As(err, &known) {
			return nil, Fault{}, known
		}
		s.problem(fmt.Errorf("%s: %w", call.Action, err))
		return nil, Fault{}, errorf("InternalFailure", http.StatusInternalServerError, "%v", err)
	}
	if malformed != nil || req.Method != http.MethodPost || !strings.HasPrefix(req.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
		return fail(errorf("MalformedQueryString", http.StatusBadRequest, "the request is no POST of a form: %v", malformed))
	}
	r, err := s.authenticate(req, form)
	if err != nil {
		return fail(err)
	}
	call.Account, call.Region = r.account, r.region
	s.mu.Lock()
	fate := s.chance.fate(call.Action, r.account, r.now)
	s.mu.Unlock()
	wait(req.Context(), fate.Delay)
	if fate.Code != "" {
		status := fate.Status
		if status == 0 {
			status = http.StatusInternalServerError
		}
		message := "it was injected"
		switch fate.Code {
		case "Throttling":
			message = "Rate exceeded"
		case "AccessDenied":
			message = "User: " + r.caller.arn + " is not authorized to perform: rds:" + call.Action
		}
		return nil, fate, errorf(fate.Code, status, "%s", message)
	}
	do, ok := s.actions[form.Get("Version")+" "+call.Action]
	if !ok {
		return fail(errorf("InvalidAction", http.StatusBadRequest, "Could not find operation %s for version %s", call.Action, form.Get("Version")))
	}
	s.mu.Lock()
	r.now = s.options.Now()
	s.sweep(r.now)
	out, err := do(r, form)
	s.mu.Unlock()
	if err != nil {
		_, _, known := fail(err)
		return nil, fate, known
	}
	return out, fate, nil
}

var authorization = regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=([^/]+)/\d{8}/([^/]+)/([^/]+)/aws4_request, ?SignedHeaders=[^,]+, ?Signature=[0-9a-f]{64}$`)

// authenticate finds out whose call it is, and for which region.
func (s *Server) authenticate(req *http.Request, form url.Values) (*request, error) {
	m := authorization.FindStringSubmatch(req.Header.Get("Authorization"))
	if m == nil {
		return nil, errorf("MissingAuthenticationToken", http.StatusForbidden, "Request is missing Authentication Token")
	}
	want := "rds"
	if form.Get("Version") == stsVersion {
		want = "sts"
	}
	if m[3] != want {
		return nil, errorf("SignatureDoesNotMatch", http.StatusForbidden, "Credential should be scoped to correct service: '%s'", want)
	}
	s.mu.Lock()
	who, ok := s.accounts[m[1]]
	s.mu.Unlock()
	if !ok || who.token != req.Header.Get("X-Amz-Security-Token") {
		return nil, errorf("InvalidClientTokenId", http.StatusForbidden, "The security token included in the request is invalid.")
	}
	return &request{Server: s, account: who.account, region: m[2], caller: who, now: s.options.Now()}, nil
}

// sweep lets time pass: it removes what has ended.
func (s *Server) sweep(now time.Time) {
	for k, i := range s.instances {
		if status, _ := s.status(&i.life, now); status == gone {
			delete(s.instances, k)
		}
	}
	for k, c := range s.clusters {
		if status, _ := s.status(&c.life, now); status == gone {
			delete(s.clusters, k)
		}
	}
	for _, all := range []map[key]*snapshot{s.snapshots, s.clusterSnap} {
		for k, x := range all {
			if status, _ := s.status(&x.life, now); status == gone {
				delete(all, k)
			}
		}
	}
}

// resourceID makes an identity that no other resource ever has.
func (s *Server) resourceID(prefix string) *string { return new(prefix + rand.Text()) }

var name = regexp.MustCompile(`^[a-zA-Z](-?[a-zA-Z0-9])*$`)

func checkName(parameter, id string, most int) error {
	if len(id) > most || !name.MatchString(id) {
		return invalidValue("The parameter %s is not a valid identifier. Identifiers must begin with a letter; must contain only ASCII letters, digits, and hyphens; and must not end with a hyphen or contain two consecutive hyphens.", parameter)
	}
	return nil
}

func tagMap(tags []types.Tag) map[string]string {
	m := map[string]string{}
	for _, t := range tags {
		m[*t.Key] = deref(t.Value)
	}
	return m
}

func deref[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

// or is the first value that is set.
func or[T any](values ...*T) *T {
	for _, v := range values {
		if v != nil {
			return v
		}
	}
	return nil
}
