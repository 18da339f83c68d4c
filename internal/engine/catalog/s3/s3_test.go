package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/catalog/catalogtest"
)

func TestConformance(t *testing.T) {
	catalogtest.Suite{New: func(t *testing.T) engine.Catalog {
		s := newStandIn(t)
		s.pageSize = 2
		return s.catalog(Settings{Prefix: "a/prefix"})
	}}.Run(t)
}

// hasty is a clock whose waits are short.
type hasty struct{ engine.Clock }

func (h hasty) Sleep(ctx context.Context, d time.Duration) error { return h.Clock.Sleep(ctx, d/100) }

// TestThrottledConformance: the same, while every third call is refused for the moment.
func TestThrottledConformance(t *testing.T) {
	catalogtest.Suite{New: func(t *testing.T) engine.Catalog {
		s := newStandIn(t)
		s.clock = hasty{s.clock}
		var mu sync.Mutex
		calls := 0
		s.fault = func(string, int) fault {
			mu.Lock()
			defer mu.Unlock()
			calls++
			switch calls % 6 {
			case 2:
				return fault{status: http.StatusServiceUnavailable, code: "SlowDown"}
			case 5:
				return fault{status: http.StatusInternalServerError, code: "InternalError"}
			}
			return fault{}
		}
		return s.catalog(Settings{})
	}}.Run(t)
}

// bubble runs a test on virtual time.
func bubble(t *testing.T, f func(t *testing.T, s *standIn)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, newStandIn(t)) })
}

// first lets the first call of an operation go wrong.
func first(op string, f fault) func(string, int) fault {
	return func(o string, n int) fault {
		if o == op && n == 1 {
			return f
		}
		return fault{}
	}
}

// TestLostAnswers: what got through is not taken for another's, and what another did not for ours, even with the same content.
func TestLostAnswers(t *testing.T) {
	lost := []fault{{lost: true}, {never: true}, {status: http.StatusConflict, code: "ConditionalRequestConflict"}, {status: http.StatusServiceUnavailable, code: "SlowDown"}}
	for i, f := range lost {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			bubble(t, func(t *testing.T, s *standIn) {
				ctx := t.Context()
				c := s.catalog(Settings{})
				s.fault = first("PutObject", f)
				if err := c.Create(ctx, "x/a", []byte("one")); err != nil {
					t.Fatalf("Create = %v", err)
				}
				_, v, err := c.Read(ctx, "x/a")
				if err != nil {
					t.Fatal(err)
				}
				s.calls["PutObject"] = 0
				next, err := c.Replace(ctx, "x/a", []byte("two"), v)
				if err != nil {
					t.Fatalf("Replace = %v", err)
				}
				if data, v, err := c.Read(ctx, "x/a"); err != nil || string(data) != "two" || v != next {
					t.Errorf("Read = %q %q, %v; Replace said %q", data, v, err, next)
				}
				s.fault = first("CompleteMultipartUpload", f)
				w, err := c.NewWriter(ctx, "x/stream")
				if err != nil {
					t.Fatal(err)
				}
				if _, err := w.Write(make([]byte, 9<<20)); err != nil {
					t.Fatal(err)
				}
				if err := w.Commit(ctx); err != nil {
					t.Errorf("Commit = %v", err)
				}
				if err := w.Close(); err != nil || len(s.uploads) > 0 {
					t.Errorf("Close = %v, leaving %v", err, s.uploads)
				}
			})
		})
	}
	t.Run("another's, with the same content", func(t *testing.T) {
		bubble(t, func(t *testing.T, s *standIn) {
			c, other := s.catalog(Settings{}), s.catalog(Settings{})
			s.fault = func(op string, n int) fault {
				if op == "PutObject" && n == 1 {
					return fault{never: true}
				}
				return fault{}
			}
			done := make(chan error, 1)
			go func() { done <- c.Create(t.Context(), "x/a", []byte("same")) }()
			synctest.Wait()
			if err := other.Create(t.Context(), "x/a", []byte("same")); err != nil {
				t.Fatal(err)
			}
			if err := <-done; !errors.Is(err, engine.ErrExists) {
				t.Errorf("Create of what another made meanwhile = %v, want ErrExists", err)
			}
		})
	})
	t.Run("replaced by another, with the same content", func(t *testing.T) {
		bubble(t, func(t *testing.T, s *standIn) {
			c, other := s.catalog(Settings{}), s.catalog(Settings{})
			if err := c.Create(t.Context(), "x/a", []byte("old")); err != nil {
				t.Fatal(err)
			}
			_, v, err := c.Read(t.Context(), "x/a")
			if err != nil {
				t.Fatal(err)
			}
			s.fault = func(op string, n int) fault { return fault{never: op == "PutObject" && n == 2} }
			done := make(chan error, 1)
			go func() {
				_, err := c.Replace(t.Context(), "x/a", []byte("same"), v)
				done <- err
			}()
			synctest.Wait()
			if _, err := other.Replace(t.Context(), "x/a", []byte("same"), v); err != nil {
				t.Fatal(err)
			}
			if err := <-done; !errors.Is(err, engine.ErrChanged) {
				t.Errorf("Replace of what another replaced meanwhile = %v, want ErrChanged", err)
			}
		})
	})
}

// TestDeadlines: a store that does not answer holds nobody for longer than callTimeout, and a caller who leaves is told so.
func TestDeadlines(t *testing.T) {
	bubble(t, func(t *testing.T, s *standIn) {
		s.fault = func(string, int) fault { return fault{never: true} }
		c := s.catalog(Settings{})
		for op, f := range map[string]func(ctx context.Context) error{
			"Create": func(ctx context.Context) error { return c.Create(ctx, "a", nil) },
			"Read":   func(ctx context.Context) error { _, _, err := c.Read(ctx, "a"); return err },
			"List":   func(ctx context.Context) error { _, err := c.List(ctx, ""); return err },
			"Stat":   func(ctx context.Context) error { _, err := c.Stat(ctx, "a"); return err },
			"Delete": func(ctx context.Context) error { return c.Delete(ctx, "a") },
			"Open":   func(ctx context.Context) error { _, err := c.Open(ctx, "a"); return err },
			"Writer": func(ctx context.Context) error { _, err := c.NewWriter(ctx, "a"); return err },
		} {
			start := time.Now()
			if err := f(t.Context()); err == nil || !strings.Contains(err.Error(), "gave up after") || time.Since(start) > callTimeout {
				t.Errorf("%s = %v, after %s", op, err, time.Since(start))
			}
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			start = time.Now()
			if err := f(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 3*time.Second {
				t.Errorf("%s with 3 s = %v, after %s", op, err, time.Since(start))
			}
			cancel()
		}
	})
}

// TestStreamsGoOn: a stream that breaks or stalls is taken up where it was, and never with other content.
func TestStreamsGoOn(t *testing.T) {
	for name, f := range map[string]fault{"breaks": {breaks: 1000}, "stalls": {breaks: 1000, stalls: true}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *standIn) {
				ctx := t.Context()
				c := s.catalog(Settings{})
				want := bytes.Repeat([]byte("0123456789"), 1000)
				if err := c.Create(ctx, "x/a", want); err != nil {
					t.Fatal(err)
				}
				s.fault = func(op string, n int) fault {
					if op == "GetObject" && n < 4 {
						return f
					}
					return fault{}
				}
				r, err := c.Open(ctx, "x/a")
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(r)
				if err != nil || !bytes.Equal(got, want) || s.count("GetObject") != 4 {
					t.Errorf("read %d bytes in %d calls, %v", len(got), s.count("GetObject"), err)
				}
				if err := r.Close(); err != nil {
					t.Error(err)
				}
				s.calls["GetObject"] = 0
				r, err = c.Open(ctx, "x/a")
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				_, v, err := s.catalog(Settings{}).Read(ctx, "x/a")
				if err != nil {
					t.Fatal(err)
				}
				if _, err := c.Replace(ctx, "x/a", bytes.Repeat([]byte("x"), len(want)), v); err != nil {
					t.Fatal(err)
				}
				if got, err := io.ReadAll(r); err == nil {
					t.Errorf("a stream whose object changed gave %d bytes and no error", len(got))
				}
			})
		})
	}
	t.Run("for ever", func(t *testing.T) {
		bubble(t, func(t *testing.T, s *standIn) {
			c := s.catalog(Settings{})
			if err := c.Create(t.Context(), "a", make([]byte, 100)); err != nil {
				t.Fatal(err)
			}
			r, err := c.Open(t.Context(), "a")
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			_, _ = io.ReadFull(r, make([]byte, 50))
			s.fault = func(op string, _ int) fault {
				if op == "GetObject" {
					return fault{stalls: true}
				}
				return fault{}
			}
			r.(*reader).drop()
			if _, err := io.ReadAll(r); err == nil || !strings.Contains(err.Error(), "it broke off 5 times at byte 50") {
				t.Errorf("ReadAll = %v", err)
			}
		})
	})
}

// TestUploadsGoOn: parts that fail are sent again; what fails for good makes no object, and leaves no upload.
func TestUploadsGoOn(t *testing.T) {
	write := func(t *testing.T, c *Catalog, size int) error {
		c.parts = partSizes{{100, 1 << 20, 3}}
		w, err := c.NewWriter(t.Context(), "x/big")
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.Write(bytes.Repeat([]byte("x"), size))
		if err == nil {
			err = w.Commit(t.Context())
		}
		return errors.Join(err, w.Close())
	}
	for i, f := range []fault{{lost: true}, {never: true}, {status: http.StatusBadRequest, code: "BadDigest"}, {status: http.StatusServiceUnavailable, code: "SlowDown"}} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			bubble(t, func(t *testing.T, s *standIn) {
				s.fault = func(op string, n int) fault {
					if op == "UploadPart" && n%2 == 1 {
						return f
					}
					return fault{}
				}
				c := s.catalog(Settings{})
				if err := write(t, c, 5<<20); err != nil {
					t.Errorf("streaming = %v", err)
				}
				if info, err := c.Stat(t.Context(), "x/big"); err != nil || info.Size != 5<<20 || len(s.uploads) > 0 {
					t.Errorf("Stat = %+v, %v; uploads %v", info, err, s.uploads)
				}
			})
		})
	}
	for name, f := range map[string]fault{"refused": {status: http.StatusForbidden, code: "AccessDenied"}, "dead": {never: true}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *standIn) {
				s.fault = func(op string, n int) fault {
					if op == "UploadPart" && n >= 2 {
						return f
					}
					return fault{}
				}
				if err := write(t, s.catalog(Settings{}), 8<<20); err == nil || !strings.Contains(err.Error(), "uploading part") {
					t.Errorf("streaming = %v", err)
				}
				if len(s.objects) > 0 || len(s.uploads) > 0 {
					t.Errorf("left: %d objects, %d uploads", len(s.objects), len(s.uploads))
				}
			})
		})
	}
	t.Run("slow", func(t *testing.T) { // each part takes longer than a stall, and moves
		bubble(t, func(t *testing.T, s *standIn) {
			s.fault = func(op string, _ int) fault {
				if op == "UploadPart" {
					return fault{slow: stallTimeout / 4}
				}
				return fault{}
			}
			if err := write(t, s.catalog(Settings{}), 2<<20); err != nil || s.count("UploadPart") != 2 {
				t.Errorf("streaming = %v, in %d calls for 2 parts", err, s.count("UploadPart"))
			}
		})
	})
	t.Run("aborted by others", func(t *testing.T) {
		bubble(t, func(t *testing.T, s *standIn) {
			s.fault = func(op string, _ int) fault {
				if op == "CompleteMultipartUpload" {
					return fault{other: func() { clear(s.uploads) }}
				}
				return fault{}
			}
			if err := write(t, s.catalog(Settings{}), 2<<20); err == nil || !strings.Contains(err.Error(), "somebody aborted its upload") {
				t.Errorf("streaming = %v", err)
			}
		})
	})
	t.Run("a part that lands after the abort", func(t *testing.T) {
		bubble(t, func(t *testing.T, s *standIn) {
			c := s.catalog(Settings{})
			w, err := c.NewWriter(t.Context(), "x/big")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(make([]byte, 9<<20)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			late := s.uploads["upload-1"]
			s.fault = func(op string, n int) fault {
				if op == "ListParts" && n == 1 {
					return fault{other: func() { s.uploads["upload-1"] = late }}
				}
				return fault{}
			}
			if err := w.Close(); err != nil || len(s.uploads) > 0 || s.count("AbortMultipartUpload") != 2 {
				t.Errorf("Close = %v, leaving %v", err, s.uploads)
			}
		})
	})
}

// TestPartSizes: a stream of any length up to the capacity fits into 10,000 parts, and its memory is bounded.
func TestPartSizes(t *testing.T) {
	if n := defaultParts.capacity() >> 30; n < 800 {
		t.Errorf("an object may have %d GiB", n)
	}
	if _, ok := defaultParts.of(10_001); ok {
		t.Error("there is a part 10,001")
	}
	bubble(t, func(t *testing.T, s *standIn) {
		c := s.catalog(Settings{})
		c.parts = partSizes{{2, 100, 3}, {4, 300, 1}}
		for size, fits := range map[int]bool{1: true, 100: true, 101: true, 500: true, 800: true, 801: false} {
			name := fmt.Sprintf("x/%d", size)
			w, err := c.NewWriter(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			want := bytes.Repeat([]byte("0123456789"), 81)[:size]
			_, err = w.Write(want)
			if err == nil {
				err = w.Commit(t.Context())
			}
			if (err == nil) != fits {
				t.Errorf("%d bytes: %v", size, err)
			}
			if err := w.Close(); err != nil {
				t.Error(err)
			}
			if !fits {
				continue
			}
			if got := s.objects[name].data; !bytes.Equal(got, want) {
				t.Errorf("%d bytes: stored %d", size, len(got))
			}
		}
		if len(s.uploads) > 0 {
			t.Errorf("uploads are left: %v", s.uploads)
		}
	})
}

// TestMemoryIsBounded: a store that takes parts slowly slows the stream down, instead of filling the memory.
func TestMemoryIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T, s *standIn) {
		release := make(chan struct{})
		s.fault = func(op string, _ int) fault {
			if op == "UploadPart" {
				return fault{other: func() { <-release }}
			}
			return fault{}
		}
		w, err := s.catalog(Settings{}).NewWriter(t.Context(), "x/big")
		if err != nil {
			t.Fatal(err)
		}
		const size = 64 << 20
		var taken atomic.Int64
		done := make(chan error, 1)
		go func() {
			chunk := make([]byte, 1<<20)
			for range size / len(chunk) {
				n, err := w.Write(chunk)
				taken.Add(int64(n))
				if err != nil {
					done <- err
					return
				}
			}
			done <- w.Commit(t.Context())
		}()
		synctest.Wait()
		if n := taken.Load(); n < 8<<20 || n > 4*8<<20 {
			t.Errorf("%d MiB are taken while nothing is uploaded", n>>20)
		}
		close(release)
		if err := <-done; err != nil || len(s.objects["x/big"].data) != size {
			t.Errorf("streaming = %v", err)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestProbe: a store that does not keep conditions is refused.
func TestProbe(t *testing.T) {
	for what, want := range map[string]string{"": "", "If-None-Match": "(If-None-Match)", "If-Match": "(If-Match)", "parts": "an upload in parts overwrite"} {
		bubble(t, func(t *testing.T, s *standIn) {
			if what != "" {
				s.ignores[what] = true
			}
			s.store("p/.probe/forgotten", []byte("1"), `"1"`, nil)
			time.Sleep(2 * time.Hour) // virtual
			err := s.catalog(Settings{Prefix: "p"}).Probe(t.Context())
			if want == "" && (err != nil || len(s.objects) > 0) {
				t.Errorf("Probe = %v, leaving %v", err, s.objects)
			}
			if want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("Probe of a store that ignores %s = %v", what, err)
			}
			if len(s.uploads) > 0 {
				t.Errorf("uploads are left: %v", s.uploads)
			}
		})
	}
}

// TestDefaultRetention: a bucket that locks whatever is written to it cannot hold a catalog.
func TestDefaultRetention(t *testing.T) {
	bubble(t, func(t *testing.T, s *standIn) {
		s.retention = time.Now().Add(24 * time.Hour)
		if err := s.catalog(Settings{}).Probe(t.Context()); err == nil || !strings.Contains(err.Error(), "locks every new object") {
			t.Errorf("Probe = %v", err)
		}
	})
}

// TestEncryption: everything that is written names the key.
func TestEncryption(t *testing.T) {
	bubble(t, func(t *testing.T, s *standIn) {
		c := s.catalog(Settings{KMSKeyID: "alias/backups"})
		if err := c.Create(t.Context(), "x/a", []byte("1")); err != nil {
			t.Fatal(err)
		}
		w, err := c.NewWriter(t.Context(), "x/b")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(make([]byte, 9<<20)); err != nil {
			t.Fatal(err)
		}
		if err := w.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		for key, o := range s.objects {
			if o.metadata.Get("X-Amz-Server-Side-Encryption") != "aws:kms" || o.metadata.Get("X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id") != "alias/backups" {
				t.Errorf("%s is written with %v", key, o.metadata)
			}
		}
	})
}

// TestErrors say what the user can do.
func TestErrors(t *testing.T) {
	for want, f := range map[string]fault{
		"set region in the catalog's s3": {status: http.StatusMovedPermanently, code: "PermanentRedirect"},
		"there is no bucket the-bucket":  {status: http.StatusNotFound, code: "NoSuchBucket"},
		"lists the permissions":          {status: http.StatusForbidden, code: "AccessDenied"},
	} {
		bubble(t, func(t *testing.T, s *standIn) {
			s.fault = func(string, int) fault { return f }
			if _, _, err := s.catalog(Settings{}).Read(t.Context(), "a"); err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, engine.ErrNotFound) {
				t.Errorf("%s: %v", f.code, err)
			}
		})
	}
}

func TestSettings(t *testing.T) {
	for _, s := range []Settings{{}, {Bucket: "A"}, {Bucket: "a..b"}, {Bucket: "bucket", Prefix: "/a"}, {Bucket: "bucket", Prefix: "a/"}, {Bucket: "bucket", Prefix: ".a"},
		{Bucket: "bucket", Lock: &ObjectLock{Mode: "governance", RetainDays: 1}}, {Bucket: "bucket", Lock: &ObjectLock{Mode: "GOVERNANCE"}}} {
		if err := s.Validate(); err == nil {
			t.Errorf("%+v passes", s)
		}
	}
	for url, want := range map[string]Settings{"s3://b/p/q/": {Bucket: "b", Prefix: "p/q"}, "s3://b": {Bucket: "b"}} {
		if got, ok := ParseURL(url); !ok || got != want || got.String() != strings.TrimSuffix(url, "/") {
			t.Errorf("ParseURL(%q) = %+v, %v", url, got, ok)
		}
	}
	if _, ok := ParseURL("/a/directory"); ok {
		t.Error("a directory is taken for a URL")
	}
}
