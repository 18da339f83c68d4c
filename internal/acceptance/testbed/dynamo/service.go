package dynamo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Options of a service; the zero value is an accelerated one without throttling.
type Options struct {
	// Factor divides everything that takes time at AWS; 60 when zero.
	Factor float64
	// Accounts maps access key ids to account numbers. When nil: "AKIAONE" is 111111111111, "AKIATWO" is 222222222222.
	Accounts map[string]string
	// AccountOf is asked for access key ids that are not in Accounts, such as those of assumed roles. Empty: not valid.
	AccountOf func(accessKeyID string) string
	// Seed of all random choices.
	Seed uint64
	// RealSkew leaves CreateBackup its minute before and after, instead of a minute divided by Factor.
	RealSkew bool
	// MaxRestores is how many restores may run at once in an account; 50 when zero.
	MaxRestores int
	// MaxOperations is how many tables may be created, updated or deleted at once in an account; 500 when zero.
	MaxOperations int
	// DataRate is how many data-plane calls per second each account and region may make. Zero: as many as they like.
	DataRate float64
	// ControlRate is the same for the other calls, beside the documented rates of single operations.
	ControlRate float64
	// Rates replaces the documented rates of operations, in calls per second that are multiplied by Factor; zero is no limit.
	Rates map[string]float64
	// KMSKeys are the ARNs of the customer keys that exist. Others are refused.
	KMSKeys []string
}

// What takes time at AWS, before it is divided by the factor.
const (
	createTakes   = 10 * time.Second
	updateTakes   = 10 * time.Second
	deleteTakes   = 10 * time.Second
	enablingTakes = 20 * time.Second // from ACTIVE until continuous backups are ENABLED
	restoreTakes  = 2 * time.Minute
	backupTakes   = 90 * time.Second
	ttlTakes      = time.Minute
	ttlPause      = time.Hour // after UpdateTimeToLive
	tagsTake      = 3 * time.Second
	countsTake    = 6 * time.Hour // until ItemCount is fresh
	latestLag     = 5 * time.Minute
	backupSkew    = time.Minute
	maxDateError  = 15 * time.Minute // of a request; not accelerated
)

// documentedRates are calls per second, from the API reference.
var documentedRates = map[string]float64{ //nolint:gochecknoglobals // a constant
	"CreateBackup": 50, "DeleteBackup": 10, "DescribeBackup": 10, "ListBackups": 5, "DescribeContinuousBackups": 10,
	"RestoreTableFromBackup": 10, "TagResource": 5, "UntagResource": 5, "ListTagsOfResource": 10,
}

// Scope is an account in a region: what one client sees.
type Scope struct{ Account, Region string }

func (s Scope) String() string { return s.Account + "/" + s.Region }

// Service is one running stand-in. It is gone when the test ends.
type Service struct {
	t       testing.TB
	options Options
	local   *local
	server  *http.Server
	url     string
	offset  atomic.Int64 // of the clock, in nanoseconds
	pace    pace
	work    sync.WaitGroup
	copies  chan struct{} // bounds the calls that copy items
	ids     atomic.Uint64

	mu       sync.Mutex
	spaces   map[Scope]*space
	random   *rand.Rand
	faults   []*Fault
	hook     func(Call)
	calls    []Call
	buckets  map[string]*bucket
	stopping bool
}

// space is what a scope holds.
type space struct {
	tables   map[string]*table
	reserved map[string]bool // names of tables that are just being created; true: by a restore
	backups  []*backup
	targets  map[targetKey]*scalableTarget
}

// Start starts DynamoDB Local and the proxy, on free ports of the loopback interface.
func Start(t testing.TB, o Options) *Service {
	t.Helper()
	if o.Factor == 0 {
		o.Factor = 60
	}
	if o.Accounts == nil {
		o.Accounts = map[string]string{"AKIAONE": "111111111111", "AKIATWO": "222222222222"}
	}
	if o.MaxRestores == 0 {
		o.MaxRestores = 50
	}
	if o.MaxOperations == 0 {
		o.MaxOperations = 500
	}
	s := &Service{
		t: t, options: o, local: startLocal(t), copies: make(chan struct{}, 4), spaces: map[Scope]*space{},
		random: rand.New(rand.NewPCG(o.Seed, 1)), buckets: map[string]*bucket{},
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // at once
	if err != nil {
		t.Fatalf("listening for DynamoDB: %v", err)
	}
	s.url = "http://" + listener.Addr().String()
	s.server = &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
	go func() { _ = s.server.Serve(listener) }()
	t.Cleanup(func() {
		s.mu.Lock()
		s.stopping = true
		s.mu.Unlock()
		_ = s.server.Close()
		s.local.stop()
		s.work.Wait()
	})
	return s
}

// Endpoint is the URL for both services, "dynamodb" and "applicationautoscaling".
func (s *Service) Endpoint() string { return s.url }

// Factor is how much faster than AWS it is.
func (s *Service) Factor() float64 { return s.options.Factor }

// Scaled is a duration of AWS's as it is here.
func (s *Service) Scaled(d time.Duration) time.Duration {
	return time.Duration(float64(d) / s.options.Factor)
}

// Now is the service's clock.
func (s *Service) Now() time.Time { return time.Now().Add(time.Duration(s.offset.Load())).Round(0) }

// pace is the time by which what takes time at AWS comes to its end. It is the machine's, less the time for which a test held it.
type pace struct {
	mu    sync.Mutex
	since time.Time     // held since; zero when it is not held
	lost  time.Duration // held before
}

func (s *Service) progress() time.Time {
	s.pace.mu.Lock()
	defer s.pace.mu.Unlock()
	now := time.Now()
	if !s.pace.since.IsZero() {
		now = s.pace.since
	}
	return now.Add(-s.pace.lost)
}

// Hold lets nothing come to its end that takes time at AWS, until Release: what a test says of a table that is CREATING is then true however slow the
// machine is. Writes and the times to which tables can be restored go on by the service's clock.
func (s *Service) Hold() {
	s.pace.mu.Lock()
	defer s.pace.mu.Unlock()
	if !s.pace.since.IsZero() {
		s.t.Fatal("DynamoDB's stand-in is held already")
	}
	s.pace.since = time.Now()
}

// Pass lets a duration of AWS's go by at once.
func (s *Service) Pass(d time.Duration) {
	s.pace.mu.Lock()
	defer s.pace.mu.Unlock()
	s.pace.lost -= s.Scaled(d)
}

// Release ends Hold.
func (s *Service) Release() {
	s.pace.mu.Lock()
	defer s.pace.mu.Unlock()
	s.pace.lost += time.Since(s.pace.since)
	s.pace.since = time.Time{}
}

// SetClockOffset sets how far the service's clock is ahead of the machine's.
func (s *Service) SetClockOffset(d time.Duration) { s.offset.Store(int64(d)) }

// request is one call after authentication.
type request struct {
	scope Scope
	op    string
	body  []byte
}

// answer is a body that is sent as it is.
type answer []byte

type operation struct {
	data bool // of the data plane
	run  func(*Service, *request) (any, error)
}

var dynamoOperations = map[string]operation{ //nolint:gochecknoglobals // a constant
	"GetItem": {true, (*Service).read}, "BatchGetItem": {true, (*Service).read}, "Query": {true, (*Service).read}, "Scan": {true, (*Service).read},
	"TransactGetItems": {true, (*Service).read}, "PutItem": {true, (*Service).putItem}, "UpdateItem": {true, (*Service).updateItem},
	"DeleteItem": {true, (*Service).deleteItem}, "BatchWriteItem": {true, (*Service).batchWriteItem},
	"TransactWriteItems": {true, (*Service).transactWriteItems},

	"CreateTable": {false, (*Service).createTable}, "DescribeTable": {false, (*Service).describeTable}, "ListTables": {false, (*Service).listTables},
	"UpdateTable": {false, (*Service).updateTable}, "DeleteTable": {false, (*Service).deleteTable}, "DescribeLimits": {false, (*Service).describeLimits},

	"UpdateContinuousBackups":   {false, (*Service).updateContinuousBackups},
	"DescribeContinuousBackups": {false, (*Service).describeContinuousBackups},
	"RestoreTableToPointInTime": {false, (*Service).restoreTableToPointInTime},
	"CreateBackup":              {false, (*Service).createBackup}, "DescribeBackup": {false, (*Service).describeBackup},
	"ListBackups": {false, (*Service).listBackups}, "DeleteBackup": {false, (*Service).deleteBackup},
	"RestoreTableFromBackup": {false, (*Service).restoreTableFromBackup},

	"UpdateTimeToLive": {false, (*Service).updateTimeToLive}, "DescribeTimeToLive": {false, (*Service).describeTimeToLive},
	"TagResource": {false, (*Service).tagResource}, "UntagResource": {false, (*Service).untagResource},
	"ListTagsOfResource":          {false, (*Service).listTagsOfResource},
	"UpdateContributorInsights":   {false, (*Service).updateContributorInsights},
	"DescribeContributorInsights": {false, (*Service).describeContributorInsights},
}

var scalingOperations = map[string]operation{ //nolint:gochecknoglobals // a constant
	"RegisterScalableTarget": {false, (*Service).registerScalableTarget}, "DescribeScalableTargets": {false, (*Service).describeScalableTargets},
	"DeregisterScalableTarget": {false, (*Service).deregisterScalableTarget}, "PutScalingPolicy": {false, (*Service).putScalingPolicy},
	"DescribeScalingPolicies": {false, (*Service).describeScalingPolicies}, "DeleteScalingPolicy": {false, (*Service).deleteScalingPolicy},
	"PutScheduledAction": {false, (*Service).putScheduledAction}, "DescribeScheduledActions": {false, (*Service).describeScheduledActions},
	"DeleteScheduledAction": {false, (*Service).deleteScheduledAction},
	"TagResource":           {false, (*Service).tagTarget}, "UntagResource": {false, (*Service).untagTarget}, "ListTagsForResource": {false, (*Service).listTagsOfTarget},
}

// api is what differs between the two services at one address.
type api struct {
	target, service, contentType, errors, internal string
	crc                                            bool
	operations                                     map[string]operation
}

func apis() []api {
	return []api{
		{
			target: "DynamoDB_20120810.", service: "dynamodb", contentType: "application/x-amz-json-1.0",
			errors: "com.amazonaws.dynamodb.v20120810#", internal: "InternalServerError", crc: true, operations: dynamoOperations,
		},
		{
			target: "AnyScaleFrontendService.", service: "application-autoscaling", contentType: "application/x-amz-json-1.1",
			errors: "", internal: "InternalServiceException", operations: scalingOperations,
		},
	}
}

// ServeHTTP answers one call.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := s.Now()
	body, err := io.ReadAll(io.LimitReader(r.Body, 32<<20))
	if err != nil {
		return // the client is gone
	}
	target := r.Header.Get("X-Amz-Target")
	a := apis()[0]
	for _, other := range apis() {
		if strings.HasPrefix(target, other.target) {
			a = other
		}
	}
	q := &request{op: strings.TrimPrefix(target, a.target), body: body}
	call := Call{At: began, Operation: q.op, Resource: resourceOf(body), service: a.service}

	out, f, err := s.serve(r, a, q, &call)
	status, text := http.StatusOK, []byte(nil)
	if err == nil {
		text, err = marshal(out)
	}
	if err != nil {
		e := s.asAPIError(err, a)
		status, text, call.Error = e.status, e.body(a.errors), e.kind
	}
	if f != nil && f.Kind == LostRequest {
		call.Error = string(LostRequest)
	}
	call.Status = status
	call.Lost = f != nil && (f.Kind == LostAnswer || f.Kind == LostRequest)
	call.Took = s.Now().Sub(began)
	s.mu.Lock()
	s.calls = append(s.calls, call)
	s.mu.Unlock()
	if call.Lost {
		hangUp(w)
		return
	}
	h := w.Header()
	h.Set("Content-Type", a.contentType)
	h.Set("Date", s.Now().UTC().Format(http.TimeFormat))
	h.Set("X-Amzn-Requestid", fmt.Sprintf("REQUEST%045d", s.ids.Add(1)))
	if a.crc {
		h.Set("X-Amz-Crc32", strconv.FormatUint(uint64(crc32.ChecksumIEEE(text)), 10))
	}
	h.Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	_, _ = w.Write(text)
}

// serve runs the operation, with what throttles it or breaks it.
func (s *Service) serve(r *http.Request, a api, q *request, call *Call) (any, *Fault, error) {
	if r.Method != http.MethodPost || r.URL.Path != "/" {
		return nil, nil, apiErrorf("UnknownOperationException", "%s %s is no call of this API", r.Method, r.URL.Path)
	}
	op, known := a.operations[q.op]
	if !known {
		return nil, nil, &apiError{http.StatusBadRequest, "UnknownOperationException", "this stand-in does not know the operation " + r.Header.Get("X-Amz-Target")}
	}
	if c := r.Header.Get("Content-Type"); c != a.contentType {
		return nil, nil, apiErrorf("SerializationException", "the content type is %q and not %q", c, a.contentType)
	}
	var err error
	if q.scope, err = s.authenticate(r, a.service); err != nil {
		return nil, nil, err
	}
	call.Scope = q.scope
	s.mu.Lock()
	hook := s.hook
	s.mu.Unlock()
	if hook != nil {
		hook(*call)
	}
	if err := s.throttle(a, q, op.data); err != nil {
		return nil, nil, err
	}
	f := s.pick(q.op, call.Resource)
	if f != nil {
		switch f.Kind {
		case LostRequest:
			return answer("{}"), f, nil
		case ServerError:
			return nil, f, &apiError{http.StatusInternalServerError, a.internal, "an injected failure, before anything was done"}
		case Throttled:
			return nil, f, throttled(op.data)
		case Denied:
			return nil, f, apiErrorf("AccessDeniedException", "User: arn:aws:iam::%s:user/test is not authorized to perform: %s:%s on resource: %s "+
				"because no identity-based policy allows the action", q.scope.Account, a.service, q.op, call.Resource)
		case Unprocessed:
			if q.op == "BatchWriteItem" || q.op == "BatchGetItem" {
				out, err := s.half(q, op)
				return out, f, err
			}
		}
	}
	out, err := op.run(s, q)
	if f != nil && f.Kind == ServerErrorAfter && err == nil {
		err = &apiError{http.StatusInternalServerError, a.internal, "an injected failure, after it was done"}
	}
	return out, f, err
}

var credential = regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=([A-Za-z0-9]+)/(\d{8})/([a-z0-9-]+)/([a-z-]+)/aws4_request,\s*SignedHeaders=[a-z0-9;-]+,\s*Signature=[0-9a-f]{64}$`)

// authenticate reads the scope from the signature, which is not verified.
func (s *Service) authenticate(r *http.Request, service string) (Scope, error) {
	header := r.Header.Get("Authorization")
	if header == "" {
		return Scope{}, apiErrorf("MissingAuthenticationTokenException", "Request is missing Authentication Token")
	}
	m := credential.FindStringSubmatch(header)
	if m == nil {
		return Scope{}, apiErrorf("IncompleteSignatureException", "the Authorization header is none of signature version 4")
	}
	date, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil {
		return Scope{}, apiErrorf("IncompleteSignatureException", "the X-Amz-Date header is not a time: %q", r.Header.Get("X-Amz-Date"))
	}
	if d := s.Now().Sub(date).Abs(); d > maxDateError || m[2] != date.Format("20060102") {
		return Scope{}, apiErrorf("InvalidSignatureException", "Signature expired or not yet current: %s is %s from the service's time", date.Format(time.RFC3339), d)
	}
	if m[4] != service {
		return Scope{}, apiErrorf("InvalidSignatureException", "Credential should be scoped to correct service: '%s'.", service)
	}
	account := s.options.Accounts[m[1]]
	if account == "" && s.options.AccountOf != nil {
		account = s.options.AccountOf(m[1])
	}
	if account == "" {
		return Scope{}, apiErrorf("UnrecognizedClientException", "The security token included in the request is invalid.")
	}
	return Scope{Account: account, Region: m[3]}, nil
}

// space is that of a scope; with the lock held.
func (s *Service) space(c Scope) *space {
	p := s.spaces[c]
	if p == nil {
		p = &space{tables: map[string]*table{}, reserved: map[string]bool{}, targets: map[targetKey]*scalableTarget{}}
		s.spaces[c] = p
	}
	now := s.progress()
	for name, t := range p.tables {
		if t.deleting && t.dropped && !now.Before(t.until) {
			delete(p.tables, name)
		}
	}
	return p
}

// decode reads a body into a struct that names all parameters that are known.
func decode(body []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return apiErrorf("SerializationException", "%v", err)
	}
	return nil
}

func marshal(v any) ([]byte, error) {
	if b, ok := v.(answer); ok {
		return b, nil
	}
	if v == nil {
		return nil, nil // operations without output have an empty body
	}
	return json.Marshal(v)
}

// seconds is a time as the protocol has it.
func seconds(t time.Time) json.Number {
	return json.Number(strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64))
}

// timeOf reads a time of the protocol.
func timeOf(n json.Number) (time.Time, error) {
	f, err := n.Float64()
	if err != nil {
		return time.Time{}, apiErrorf("SerializationException", "%q is not a time in seconds", n)
	}
	return time.UnixMilli(int64(f * 1000)).UTC(), nil
}

func hangUp(w http.ResponseWriter) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		_ = c.Close()
	}
}

// forward sends a call to DynamoDB Local.
func (s *Service) forward(c Scope, op string, body []byte) ([]byte, error) {
	// Not the client's context: an action that began is done and recorded, whoever has gone.
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		out, err := s.local.call(context.Background(), c, op, body)
		// DynamoDB Local sometimes fails to make a table whose name one had that was just deleted.
		if err == nil || op != "CreateTable" || !strings.Contains(err.Error(), "InternalFailure") || time.Now().After(deadline) {
			return out, err
		}
		s.t.Logf("DynamoDB Local failed to make a table; trying again: %v", err)
	}
}
