// Package versitygw starts private versitygw servers for tests: Versity's S3 gateway, over a directory. It has what a catalog asks of S3, as AWS's API
// reference describes PutObject, CompleteMultipartUpload and object lock: conditional writes, checksums that are checked, uploads in parts, versions, retention.
// It shows nothing of KMS, of IAM's policies, of throttling, and of answers that are lost.
package versitygw

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/child"
)

// Region of all servers.
const Region = "us-east-1"

// Server is one running server. It is gone, with its data, when the test ends.
type Server struct {
	URL       string // http://127.0.0.1:PORT
	AccessKey string
	SecretKey string

	pid  int
	done <-chan struct{}
}

const startTimeout = 2 * time.Minute

// Start starts a server on a free port of the loopback interface.
func Start(t testing.TB) *Server {
	t.Helper()
	program := testbed.Cached(t, "bin", "versitygw")
	s := &Server{AccessKey: "AKIA" + rand.Text()[:16], SecretKey: rand.Text()}
	// A port that was free may be taken before the server has it: then another.
	for try := 1; ; try++ {
		err := s.run(t, program)
		if err == nil {
			return s
		}
		if try == 3 {
			t.Fatalf("starting versitygw: %v", err)
		}
	}
}

func (s *Server) run(t testing.TB, program string) error {
	dir := t.TempDir()
	data, versions := filepath.Join(dir, "data"), filepath.Join(dir, "versions")
	for _, d := range []string{data, versions} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return err
		}
	}
	address, err := freeAddress()
	if err != nil {
		return err
	}
	logFile, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return err
	}
	defer logFile.Close()
	cmd := exec.Command(program, "--port", address, "--region", Region, "--health", "/health", "--quiet", "posix", "--versioning-dir", versions, data)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, logFile, logFile
	cmd.Env = []string{"ROOT_ACCESS_KEY=" + s.AccessKey, "ROOT_SECRET_KEY=" + s.SecretKey, "PATH=" + os.Getenv("PATH"), "HOME=" + dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	done, err := child.Start(cmd)
	if err != nil {
		return err
	}
	s.URL, s.pid, s.done = "http://"+address, cmd.Process.Pid, done
	client := http.Client{Timeout: 5 * time.Second}
	for deadline := time.Now().Add(startTimeout); ; {
		resp, err := client.Get(s.URL + "/health")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				t.Cleanup(s.Stop)
				return nil
			}
			err = fmt.Errorf("its health check says %s", resp.Status)
		}
		select {
		case <-done:
			text, _ := os.ReadFile(logFile.Name())
			return fmt.Errorf("it ended at once:\n%s", text)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			s.Stop()
			text, _ := os.ReadFile(logFile.Name())
			return fmt.Errorf("no answer within %s (%w):\n%s", startTimeout, err, text)
		}
	}
}

// Stop ends the server; the test's end does so too.
func (s *Server) Stop() {
	select {
	case <-s.done:
		return
	default:
	}
	// Its data is thrown away: there is nothing to shut down in order.
	_ = syscall.Kill(s.pid, syscall.SIGKILL)
	<-s.done
}

// Client is a client of the SDK, as itself: without what the provider adds to it.
func (s *Server) Client() *s3.Client {
	return s3.New(s3.Options{
		BaseEndpoint: &s.URL, Region: Region, UsePathStyle: true,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: s.AccessKey, SecretAccessKey: s.SecretKey}, nil
		}),
	})
}

// Bucket makes a bucket with a name of its own, with object lock (and so versions) or without.
func (s *Server) Bucket(t testing.TB, lock bool) string {
	t.Helper()
	name := "b-" + strings.ToLower(rand.Text())
	in := &s3.CreateBucketInput{Bucket: &name}
	if lock {
		in.ObjectLockEnabledForBucket = aws.Bool(true)
	}
	if _, err := s.Client().CreateBucket(t.Context(), in); err != nil {
		t.Fatalf("making a bucket: %v", err)
	}
	return name
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
