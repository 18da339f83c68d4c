package s3

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // ETags are MD5
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/testclock"
)

// standIn is one bucket, for what a real server does not show on demand: answers that are lost, conflicts, throttling, streams that stall or break, KMS, and a
// deleted object in a bucket with versions. It follows the Amazon S3 API reference (PutObject, CompleteMultipartUpload, …) and the user guide's "Conditional
// writes": 412 PreconditionFailed, 409 ConditionalRequestConflict, 404 NoSuchKey for If-Match without an object, a delete marker that counts as no object.
// It is strict beyond S3: a write without a condition or without a SHA-256 is an error, since no catalog writes so, and so is every call that it does not know.
// It shows nothing of signatures (it only wants one), policies, versions, regions, and of how S3 itself behaves: the acceptance tests ask a real server.
type standIn struct {
	t *testing.T
	// fault, if set, is asked about each call: n counts the calls of one operation, from 1.
	fault func(op string, n int) fault

	mu       sync.Mutex
	calls    map[string]int
	objects  map[string]stored
	uploads  map[string]*upload
	pageSize int
	clock    engine.Clock
	// retention is until when every new object is locked, by the bucket's default.
	retention time.Time
	// ignores the conditions, as some stores do.
	ignores map[string]bool
}

type fault struct {
	status int           // refused so, and nothing done
	code   string        // with status
	lost   bool          // done, and the answer lost
	never  bool          // neither done nor answered
	breaks int           // the body ends after so many bytes
	stalls bool          // the body stops after breaks bytes
	other  func()        // done before
	slow   time.Duration // between any two pieces (64 KiB) of the request's body
}

type stored struct {
	data     []byte
	etag     string
	metadata http.Header
	modified time.Time
}

type upload struct {
	key      string
	metadata http.Header
	parts    map[int][]byte
}

const (
	testBucket = "the-bucket"
	dayOne     = "Mon, 02 Jan 2006 15:04:05 GMT"
)

func newStandIn(t *testing.T) *standIn {
	return &standIn{t: t, calls: map[string]int{}, objects: map[string]stored{}, uploads: map[string]*upload{}, pageSize: 1000, clock: testclock.New(), ignores: map[string]bool{}}
}

// catalog opens it. In a bubble the clock is virtual.
func (s *standIn) catalog(settings Settings) *Catalog {
	s.t.Helper()
	settings.Bucket = testBucket
	client := s3.New(s3.Options{HTTPClient: s, Region: "eu-west-1", UsePathStyle: true, BaseEndpoint: aws.String("http://s3.test"),
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "AKIATEST", SecretAccessKey: "secret"}, nil
		})})
	c, err := New(settings, s.clock, func(context.Context) (*s3.Client, error) { return client, nil })
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// Do answers one request, in place of the network.
func (s *standIn) Do(r *http.Request) (*http.Response, error) {
	op := operation(r)
	s.mu.Lock()
	s.calls[op]++
	n := s.calls[op]
	s.mu.Unlock()
	var f fault
	if s.fault != nil {
		f = s.fault(op, n)
	}
	if f.other != nil {
		f.other()
	}
	if f.never {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	var body []byte
	if r.Body != nil {
		var err error
		for piece := make([]byte, 64<<10); err == nil; {
			var n int
			n, err = r.Body.Read(piece)
			body = append(body, piece[:n]...)
			if f.slow > 0 && n > 0 {
				time.Sleep(f.slow) // virtual
			}
		}
		if !errors.Is(err, io.EOF) {
			return nil, err
		}
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	a := &answer{status: http.StatusOK, header: http.Header{"Date": {dayOne}}}
	switch {
	case f.status != 0:
		a.fail(f.status, f.code)
	case !strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential=AKIATEST/"):
		a.fail(http.StatusForbidden, "AccessDenied")
	default:
		s.mu.Lock()
		s.answer(op, r, body, a)
		s.mu.Unlock()
	}
	if f.lost {
		return nil, errors.New("read tcp 192.0.2.1:443: connection reset by peer")
	}
	length := int64(len(a.body))
	if r.Method == http.MethodHead {
		length, a.body = int64(a.length), nil
	}
	a.header.Set("Content-Length", strconv.FormatInt(length, 10))
	var out io.Reader = bytes.NewReader(a.body)
	switch {
	case f.stalls:
		out = io.MultiReader(bytes.NewReader(a.body[:f.breaks]), untilDone{r.Context()})
	case f.breaks > 0:
		out = io.MultiReader(bytes.NewReader(a.body[:f.breaks]), broken{})
	}
	return &http.Response{StatusCode: a.status, Header: a.header, Body: io.NopCloser(out), ContentLength: length, Request: r}, nil
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

type untilDone struct{ ctx context.Context }

func (u untilDone) Read([]byte) (int, error) { <-u.ctx.Done(); return 0, u.ctx.Err() }

type answer struct {
	status int
	header http.Header
	body   []byte
	length int // of a HEAD
}

func (a *answer) fail(status int, code string) {
	a.status = status
	a.body = fmt.Appendf(nil, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>as asked for</Message><RequestId>1</RequestId></Error>`, code)
}

func (a *answer) xml(v any) {
	data, err := xml.Marshal(v)
	if err != nil {
		panic(err)
	}
	a.body = append([]byte(xml.Header), data...)
}

func operation(r *http.Request) string {
	q := r.URL.Query()
	has := func(name string) bool { return q.Has(name) }
	key := strings.TrimPrefix(r.URL.Path, "/"+testBucket)
	switch {
	case !strings.HasPrefix(r.URL.Path, "/"+testBucket):
	case len(key) <= 1 && r.Method == http.MethodGet && q.Get("list-type") == "2":
		return "ListObjectsV2"
	case len(key) <= 1 && r.Method == http.MethodGet && has("uploads"):
		return "ListMultipartUploads"
	case len(key) <= 1:
	case r.Method == http.MethodPost && has("uploads"):
		return "CreateMultipartUpload"
	case r.Method == http.MethodPost && has("uploadId"):
		return "CompleteMultipartUpload"
	case r.Method == http.MethodPut && has("partNumber") && has("uploadId"):
		return "UploadPart"
	case r.Method == http.MethodDelete && has("uploadId"):
		return "AbortMultipartUpload"
	case r.Method == http.MethodGet && has("uploadId"):
		return "ListParts"
	case r.Method == http.MethodPut && (len(q) == 0 || q.Get("x-id") == "PutObject"):
		return "PutObject"
	case r.Method == http.MethodGet && (len(q) == 0 || q.Get("x-id") == "GetObject"):
		return "GetObject"
	case r.Method == http.MethodHead && len(q) == 0:
		return "HeadObject"
	case r.Method == http.MethodDelete && (len(q) == 0 || q.Get("x-id") == "DeleteObject"):
		return "DeleteObject"
	}
	return r.Method + " " + r.URL.String()
}

func etagOf(data []byte) string {
	sum := md5.Sum(data) //nolint:gosec // an ETag
	return `"` + hex.EncodeToString(sum[:]) + `"`
}

// answer is called with the mutex held.
func (s *standIn) answer(op string, r *http.Request, body []byte, a *answer) {
	key := strings.TrimPrefix(r.URL.Path, "/"+testBucket+"/")
	q := r.URL.Query()
	there, exists := s.objects[key]
	sum := sha256.Sum256(body)
	checked := r.Header.Get("X-Amz-Checksum-Sha256") == base64.StdEncoding.EncodeToString(sum[:])
	switch op {
	case "PutObject":
		switch ifNone, ifMatch := r.Header.Get("If-None-Match"), r.Header.Get("If-Match"); {
		case !checked:
			a.fail(http.StatusBadRequest, "BadDigest")
		case (ifNone == "*") == (ifMatch != ""):
			a.fail(http.StatusBadRequest, "NeitherOrBothConditions")
		case ifNone == "*" && exists && !s.ignores["If-None-Match"]:
			a.fail(http.StatusPreconditionFailed, "PreconditionFailed")
		case ifMatch != "" && !exists:
			a.fail(http.StatusNotFound, "NoSuchKey")
		case ifMatch != "" && ifMatch != there.etag && !s.ignores["If-Match"]:
			a.fail(http.StatusPreconditionFailed, "PreconditionFailed")
		default:
			s.store(key, body, etagOf(body), r.Header)
			a.header.Set("Etag", etagOf(body))
		}
	case "HeadObject", "GetObject":
		if !exists {
			a.fail(http.StatusNotFound, "NoSuchKey")
			return
		}
		if m := r.Header.Get("If-Match"); m != "" && m != there.etag {
			a.fail(http.StatusPreconditionFailed, "PreconditionFailed")
			return
		}
		a.body, a.length = there.data, len(there.data)
		if from, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes="); ok {
			n, err := strconv.Atoi(strings.TrimSuffix(from, "-"))
			if err != nil || n >= len(there.data) {
				a.fail(http.StatusRequestedRangeNotSatisfiable, "InvalidRange")
				return
			}
			a.body, a.status = there.data[n:], http.StatusPartialContent
		}
		a.header.Set("Etag", there.etag)
		a.header.Set("Last-Modified", there.modified.UTC().Format(http.TimeFormat))
		for name, values := range there.metadata {
			a.header[name] = slices.Clone(values) // the SDK writes into it
		}
	case "DeleteObject":
		delete(s.objects, key)
		a.status = http.StatusNoContent
	case "ListObjectsV2":
		s.listObjects(q.Get("prefix"), q.Get("continuation-token"), a)
	case "CreateMultipartUpload":
		if r.Header.Get("X-Amz-Checksum-Algorithm") != "SHA256" {
			a.fail(http.StatusBadRequest, "NoChecksumAlgorithm")
			return
		}
		id := "upload-" + strconv.Itoa(s.calls[op])
		s.uploads[id] = &upload{key: key, metadata: kept(r.Header), parts: map[int][]byte{}}
		a.xml(struct {
			XMLName  xml.Name `xml:"InitiateMultipartUploadResult"`
			UploadId string   //nolint:revive // S3's name
		}{UploadId: id})
	case "ListMultipartUploads":
		s.listUploads(q.Get("prefix"), a)
	default:
		s.answerUpload(op, r, body, checked, a)
	}
}

func (s *standIn) answerUpload(op string, r *http.Request, body []byte, checked bool, a *answer) {
	key := strings.TrimPrefix(r.URL.Path, "/"+testBucket+"/")
	id := r.URL.Query().Get("uploadId")
	u := s.uploads[id]
	if u == nil || u.key != key {
		if id == "" {
			s.t.Errorf("a call that the stand-in does not know: %s", op)
		}
		a.fail(http.StatusNotFound, "NoSuchUpload")
		return
	}
	switch op {
	case "UploadPart":
		n, err := strconv.Atoi(r.URL.Query().Get("partNumber"))
		if err != nil || n < 1 || n > 10000 || !checked {
			a.fail(http.StatusBadRequest, "BadDigest")
			return
		}
		u.parts[n] = body
		a.header.Set("Etag", etagOf(body))
	case "CompleteMultipartUpload":
		s.complete(r, id, u, body, a)
	case "AbortMultipartUpload":
		delete(s.uploads, id)
		a.status = http.StatusNoContent
	case "ListParts":
		a.xml(struct {
			XMLName xml.Name `xml:"ListPartsResult"`
		}{})
	}
}

func (s *standIn) complete(r *http.Request, id string, u *upload, body []byte, a *answer) {
	var in struct {
		Part []struct {
			PartNumber     int
			ETag           string
			ChecksumSHA256 string
		}
	}
	if err := xml.Unmarshal(body, &in); err != nil || len(in.Part) == 0 || r.Header.Get("If-None-Match") != "*" {
		a.fail(http.StatusBadRequest, "MalformedXML")
		return
	}
	if _, exists := s.objects[u.key]; exists && !s.ignores["parts"] {
		a.fail(http.StatusPreconditionFailed, "PreconditionFailed")
		return
	}
	var data []byte
	for i, p := range in.Part {
		part, ok := u.parts[p.PartNumber]
		sum := sha256.Sum256(part)
		if !ok || p.ETag != etagOf(part) || p.ChecksumSHA256 != base64.StdEncoding.EncodeToString(sum[:]) || p.PartNumber != i+1 {
			a.fail(http.StatusBadRequest, "InvalidPart")
			return
		}
		data = append(data, part...)
	}
	s.store(u.key, data, strings.TrimSuffix(etagOf(data), `"`)+"-"+strconv.Itoa(len(in.Part))+`"`, u.metadata)
	delete(s.uploads, id)
	a.xml(struct {
		XMLName xml.Name `xml:"CompleteMultipartUploadResult"`
		ETag    string
	}{ETag: s.objects[u.key].etag})
}

// kept are the headers of a write that its object has.
func kept(h http.Header) http.Header {
	out := http.Header{}
	for name, values := range h {
		if strings.HasPrefix(name, "X-Amz-Meta-") || strings.HasPrefix(name, "X-Amz-Server-Side-Encryption") {
			out[name] = values
		}
	}
	return out
}

func (s *standIn) store(key string, data []byte, etag string, h http.Header) {
	o := stored{data: data, etag: etag, metadata: kept(h), modified: time.Now()}
	if !s.retention.IsZero() {
		o.metadata.Set("X-Amz-Object-Lock-Mode", "GOVERNANCE")
		o.metadata.Set("X-Amz-Object-Lock-Retain-Until-Date", s.retention.UTC().Format(time.RFC3339))
	}
	s.objects[key] = o
}

func (s *standIn) listObjects(prefix, after string, a *answer) {
	type content struct {
		Key, ETag    string
		Size         int
		LastModified string
	}
	out := struct {
		XMLName               xml.Name `xml:"ListBucketResult"`
		IsTruncated           bool
		NextContinuationToken string `xml:",omitempty"`
		Contents              []content
	}{}
	var keys []string
	for k := range s.objects {
		if strings.HasPrefix(k, prefix) && k > after {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	if len(keys) > s.pageSize {
		keys, out.IsTruncated = keys[:s.pageSize], true
		out.NextContinuationToken = keys[len(keys)-1]
	}
	for _, k := range keys {
		o := s.objects[k]
		out.Contents = append(out.Contents, content{k, o.etag, len(o.data), o.modified.UTC().Format(time.RFC3339)})
	}
	a.xml(out)
}

func (s *standIn) listUploads(prefix string, a *answer) {
	type one struct {
		Key, UploadId string //nolint:revive // S3's name
	}
	out := struct {
		XMLName xml.Name `xml:"ListMultipartUploadsResult"`
		Upload  []one
	}{}
	for id, u := range s.uploads {
		if strings.HasPrefix(u.key, prefix) {
			out.Upload = append(out.Upload, one{u.key, id})
		}
	}
	a.xml(out)
}

// count is how many calls of an operation there were.
func (s *standIn) count(op string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[op]
}
