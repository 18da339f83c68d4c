package dynamo

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// FaultKind is what goes wrong.
type FaultKind string

// The kinds of faults. Unless it says otherwise, an unmodified SDK tries again.
const (
	// ServerError is a status 500, and nothing was done.
	ServerError FaultKind = "server error"
	// ServerErrorAfter is a status 500 though the action was done.
	ServerErrorAfter FaultKind = "server error after"
	// LostRequest is a connection that breaks before anything was done.
	LostRequest FaultKind = "lost request"
	// LostAnswer is a connection that breaks when the action was done.
	LostAnswer FaultKind = "lost answer"
	// Throttled is a ThrottlingException, or a ProvisionedThroughputExceededException of the data plane.
	Throttled FaultKind = "throttled"
	// Denied is an AccessDeniedException, as for somebody without the permission. SDKs do not try again.
	Denied FaultKind = "denied"
	// Unprocessed leaves about one half of a BatchWriteItem or a BatchGetItem undone, as DynamoDB may. It does nothing to other operations.
	Unprocessed FaultKind = "unprocessed"
)

// Fault makes calls fail.
type Fault struct {
	// Operations it is for ("CreateTable"); all of both services when empty.
	Operations []string
	// Resource is a part of the name of the table, or of the ARN; any when empty.
	Resource string
	Kind     FaultKind
	// Rate is the probability, 0 to 1. Zero is 1: every call.
	Rate float64
	// Count ends the fault after so many failures; zero never does.
	Count int

	used int
}

// Inject adds faults to those that are there. Of several that are due, the first is taken.
func (s *Service) Inject(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range faults {
		s.faults = append(s.faults, &f)
	}
}

// ClearFaults ends all faults.
func (s *Service) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// pick returns the fault of a call, or nil.
func (s *Service) pick(op, resource string) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.faults {
		if len(f.Operations) > 0 && !slices.Contains(f.Operations, op) || !strings.Contains(resource, f.Resource) || f.Count > 0 && f.used >= f.Count {
			continue
		}
		if f.Rate > 0 && s.random.Float64() >= f.Rate {
			continue
		}
		f.used++
		return &Fault{Kind: f.Kind}
	}
	return nil
}

// OnCall sets what is called before every authenticated call, with the fields that are known then. It may block: the call waits.
func (s *Service) OnCall(f func(Call)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hook = f
}

// Call is one entry of the log.
type Call struct {
	Scope     Scope
	At        time.Time // by the service's clock
	Operation string
	Resource  string // the table's name, its ARN, the backup's, or what a scaling target scales; the target of a restore
	Status    int    // HTTP
	Error     string // its type, or "lost request"; "" for what was done
	Lost      bool   // the client got no answer
	Took      time.Duration

	service string
}

// Calls is the log, in the order of the answers.
func (s *Service) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

// Count is how many calls of an operation were done, answered or not.
func (s *Service) Count(operation string) int {
	n := 0
	for _, c := range s.Calls() {
		if c.Operation == operation && c.Error == "" {
			n++
		}
	}
	return n
}

// resourceOf is what a call is about.
func resourceOf(body []byte) string {
	var b struct {
		TableName, TargetTableName, ResourceArn, ResourceARN, ResourceID, BackupArn string
		RequestItems                                                                map[string]json.RawMessage
	}
	if json.Unmarshal(body, &b) != nil {
		return "" // refused later
	}
	for _, name := range []string{b.TableName, b.TargetTableName, b.BackupArn, b.ResourceArn, b.ResourceARN, b.ResourceID} {
		if name != "" {
			return name
		}
	}
	return strings.Join(slices.Sorted(maps.Keys(b.RequestItems)), ",")
}

// bucket limits a rate: a second's worth may come at once.
type bucket struct {
	left float64
	at   time.Time
}

func (b *bucket) take(now time.Time, rate float64) bool {
	b.left = min(max(rate, 1), b.left+rate*now.Sub(b.at).Seconds())
	b.at = now
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

func throttled(data bool) error {
	if data {
		return apiErrorf("ProvisionedThroughputExceededException", "The level of configured provisioned throughput for the table was exceeded. "+
			"Consider increasing your provisioning level with the UpdateTable API.")
	}
	return apiErrorf("ThrottlingException", "Rate exceeded")
}

func (s *Service) throttle(a api, q *request, data bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now() // not the service's clock, which may jump
	taken := func(what string, rate float64) bool {
		if rate == 0 {
			return true
		}
		key := q.scope.String() + " " + what
		b := s.buckets[key]
		if b == nil {
			b = &bucket{left: max(rate, 1), at: now}
			s.buckets[key] = b
		}
		return b.take(now, rate)
	}
	if data {
		if !taken("data", s.options.DataRate) {
			return throttled(true)
		}
		return nil
	}
	rates := s.options.Rates
	if rates == nil {
		rates = documentedRates
	}
	if a.service == "dynamodb" && !taken(q.op, rates[q.op]*s.options.Factor) || !taken("control", s.options.ControlRate) {
		return throttled(false)
	}
	return nil
}

// half does the first half of a batch, and returns the other as unprocessed.
func (s *Service) half(q *request, op operation) (any, error) {
	var body map[string]json.RawMessage
	if err := json.Unmarshal(q.body, &body); err != nil {
		return nil, apiErrorf("SerializationException", "%v", err)
	}
	var items map[string]json.RawMessage
	if err := json.Unmarshal(body["RequestItems"], &items); err != nil {
		return nil, apiErrorf("SerializationException", "%v", err)
	}
	done, left := map[string]json.RawMessage{}, map[string]json.RawMessage{}
	for _, name := range slices.Sorted(maps.Keys(items)) {
		first, rest, err := split(q.op, items[name])
		if err != nil {
			return nil, err
		}
		if first != nil {
			done[name] = first
		}
		if rest != nil {
			left[name] = rest
		}
	}
	body["RequestItems"] = mustMarshal(done)
	part := *q
	part.body = mustMarshal(body)
	out, err := op.run(s, &part)
	if err != nil {
		return nil, err
	}
	text, ok := out.(answer)
	if !ok {
		return nil, &apiError{http.StatusInternalServerError, "InternalServerError", "no answer"} // never
	}
	var result map[string]json.RawMessage
	if err := json.Unmarshal(text, &result); err != nil {
		return nil, err
	}
	member := "UnprocessedItems"
	if q.op == "BatchGetItem" {
		member = "UnprocessedKeys"
	}
	result[member] = mustMarshal(left)
	return answer(mustMarshal(result)), nil
}

// split halves what a batch asks for one table; the first half has at least one element.
func split(op string, list json.RawMessage) (first, rest json.RawMessage, err error) {
	if op == "BatchWriteItem" {
		var all []json.RawMessage
		if err := json.Unmarshal(list, &all); err != nil {
			return nil, nil, apiErrorf("SerializationException", "%v", err)
		}
		n := (len(all) + 1) / 2
		first = mustMarshal(all[:n])
		if n < len(all) {
			rest = mustMarshal(all[n:])
		}
		return first, rest, nil
	}
	var all map[string]json.RawMessage
	var keys []json.RawMessage
	if err := json.Unmarshal(list, &all); err != nil {
		return nil, nil, apiErrorf("SerializationException", "%v", err)
	}
	if err := json.Unmarshal(all["Keys"], &keys); err != nil {
		return nil, nil, apiErrorf("SerializationException", "%v", err)
	}
	n := (len(keys) + 1) / 2
	with := func(keys []json.RawMessage) json.RawMessage {
		c := maps.Clone(all)
		c["Keys"] = mustMarshal(keys)
		return mustMarshal(c)
	}
	first = with(keys[:n])
	if n < len(keys) {
		rest = with(keys[n:])
	}
	return first, rest, nil
}

// mustMarshal is for what was unmarshalled before, and for plain data.
func mustMarshal(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
