package moto

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"hash/crc32"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Call is one call that went over the wire.
type Call struct {
	Operation string // as "SERVICE.OPERATION", both as the SDK names them: "rds.CreateDBSnapshot"
	Status    int
	Code      string // of the error, where the answer is one
	Amended   bool   // request or answer were not wholly what client and moto made them
	Invented  bool   // the answer is not moto's at all
}

// Stopgap makes up for what moto lacks or gets wrong in one operation, so that a flow goes on. Each field may be nil.
type Stopgap struct {
	Answer   func(body []byte) []byte         // instead of asking moto: a complete body, of status 200
	Request  func(body []byte) []byte         // what moto is asked instead
	Response func(body, answer []byte) []byte // what is said instead of moto's answer, where that is no error; body is the request's
}

// Wire stands between clients and moto, and keeps account of the calls. It reads operations where the protocols have them: in the parameter Action
// (RDS, STS), in the header X-Amz-Target (DynamoDB, Application Auto Scaling), in method, path and query (S3). Moto gets one call at a time: it serves several in threads,
// whose data it does not guard (reading an object of S3 fails when another call replaces it).
type Wire struct {
	URL string // for the clients

	server   *Server
	stopgaps map[string]Stopgap

	mu    sync.Mutex
	calls []Call
}

// NewWire opens one. stopgaps are by operation.
func NewWire(t testing.TB, s *Server, stopgaps map[string]Stopgap) *Wire {
	t.Helper()
	w := &Wire{server: s, stopgaps: stopgaps}
	server := httptest.NewServer(w)
	t.Cleanup(server.Close)
	w.URL = server.URL
	return w
}

// Calls are all calls until now, in their order.
func (w *Wire) Calls() []Call {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.calls)
}

// ServeHTTP passes one call on.
func (w *Wire) ServeHTTP(out http.ResponseWriter, in *http.Request) {
	body, err := io.ReadAll(in.Body)
	if err != nil {
		http.Error(out, err.Error(), http.StatusBadRequest)
		return
	}
	call := Call{Operation: Operation(in, body)}
	gap := w.stopgaps[call.Operation]
	if gap.Answer != nil {
		call.Status, call.Invented = http.StatusOK, true
		w.record(call)
		_, _ = out.Write(gap.Answer(body))
		return
	}
	sent := body
	if gap.Request != nil {
		sent = gap.Request(body)
	}
	request, err := http.NewRequestWithContext(in.Context(), in.Method, w.server.URL+in.RequestURI, bytes.NewReader(sent))
	if err != nil {
		http.Error(out, err.Error(), http.StatusBadRequest)
		return
	}
	request.Header = in.Header.Clone()
	status, header, answer, err := w.ask(request)
	if err != nil {
		http.Error(out, "moto does not answer: "+err.Error(), http.StatusBadGateway)
		return
	}
	call.Status = status
	if call.Status >= http.StatusBadRequest {
		call.Code = code(header, answer)
	} else if gap.Response != nil {
		changed := gap.Response(body, answer)
		call.Amended, answer = !bytes.Equal(changed, answer), changed
	}
	call.Amended = call.Amended || !bytes.Equal(sent, body)
	w.record(call)
	maps.Copy(out.Header(), header)
	if out.Header().Get("X-Amz-Crc32") != "" { // DynamoDB's
		out.Header().Set("X-Amz-Crc32", strconv.FormatUint(uint64(crc32.ChecksumIEEE(answer)), 10))
	}
	if in.Method != http.MethodHead {
		out.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	}
	out.WriteHeader(call.Status)
	_, _ = out.Write(answer)
}

func (w *Wire) ask(r *http.Request) (status int, header http.Header, answer []byte, err error) {
	w.server.serial.Lock()
	defer w.server.serial.Unlock()
	response, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return 0, nil, nil, err
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(response.Body)
	return response.StatusCode, response.Header, answer, err
}

func (w *Wire) record(c Call) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls = append(w.calls, c)
}

// versions of the query protocol's APIs, by which a request without a service's name is told.
var versions = map[string]string{"2014-10-31": "rds", "2011-06-15": "sts"}

// targets are the prefixes of X-Amz-Target.
var targets = map[string]string{"DynamoDB_20120810": "dynamodb", "AnyScaleFrontendService": "applicationautoscaling"}

// Operation names the operation that a request is for; an unknown request is named by its method and address.
func Operation(r *http.Request, body []byte) string {
	unknown := "unknown " + r.Method + " " + r.URL.RequestURI()
	if target := r.Header.Get("X-Amz-Target"); target != "" {
		prefix, operation, _ := strings.Cut(target, ".")
		if service := targets[prefix]; service != "" {
			return service + "." + operation
		}
		return unknown + " " + target
	}
	if r.URL.Path == "/" && r.Method == http.MethodPost {
		form, err := url.ParseQuery(string(body))
		if service := versions[form.Get("Version")]; err == nil && service != "" {
			return service + "." + form.Get("Action")
		}
		return unknown
	}
	if operation := s3Operation(r); operation != "" {
		return "s3." + operation
	}
	return unknown
}

func s3Operation(r *http.Request) string {
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if bucket == "" {
		return ""
	}
	q := r.URL.Query()
	for _, o := range []struct {
		ofKey     bool
		method    string
		parameter string // that the query must have; "" matches every query
		operation string
	}{
		{false, http.MethodGet, "list-type", "ListObjectsV2"},
		{false, http.MethodGet, "uploads", "ListMultipartUploads"},
		{false, http.MethodGet, "object-lock", "GetObjectLockConfiguration"},
		{false, http.MethodPut, "", "CreateBucket"},
		{true, http.MethodPut, "partNumber", "UploadPart"},
		{true, http.MethodPut, "retention", "PutObjectRetention"},
		{true, http.MethodPut, "", "PutObject"},
		{true, http.MethodGet, "uploadId", "ListParts"},
		{true, http.MethodGet, "", "GetObject"},
		{true, http.MethodHead, "", "HeadObject"},
		{true, http.MethodDelete, "uploadId", "AbortMultipartUpload"},
		{true, http.MethodDelete, "", "DeleteObject"},
		{true, http.MethodPost, "uploads", "CreateMultipartUpload"},
		{true, http.MethodPost, "uploadId", "CompleteMultipartUpload"},
	} {
		if o.ofKey == (key != "") && o.method == r.Method && (o.parameter == "" || q.Has(o.parameter)) {
			return o.operation
		}
	}
	return ""
}

// code is the error's, by whichever of the protocols.
func code(header http.Header, answer []byte) string {
	if len(answer) == 0 {
		return "" // of HEAD
	}
	var j struct {
		Type string `json:"__type"`
	}
	if json.Unmarshal(answer, &j) == nil && j.Type != "" {
		return j.Type[strings.LastIndexByte(j.Type, '#')+1:]
	}
	var x struct {
		Code   string `xml:"Code"`
		Nested string `xml:"Error>Code"`
	}
	if xml.Unmarshal(answer, &x) == nil && x.Code+x.Nested != "" {
		return x.Code + x.Nested
	}
	return "unknown (" + header.Get("Content-Type") + ")"
}
