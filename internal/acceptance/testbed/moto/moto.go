// Package moto starts private moto servers for tests: a mock of AWS's APIs whose requests and answers are made by AWS's own models of the services (those of botocore), so
// that it shows whether each call has the shape that AWS describes.
//
// It shows nothing of what the calls do: no database is kept, restore times are ignored, states change at once, a restored DB instance has its source's resource id,
// nothing is signed, permitted, throttled or encrypted. The packages rdsserver, dynamo and versitygw are for that. What moto lacks or gets wrong is in this package's tests.
package moto

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/child"
)

// Account is the account of every access key.
const Account = "123456789012"

const startTimeout = time.Minute

// Server is one running server. It is gone, with all that it knew, when the test ends.
type Server struct {
	URL string // http://127.0.0.1:PORT

	pid  int
	done <-chan struct{}

	serial sync.Mutex // held by a Wire while moto answers
}

// Start starts a server on a free port of the loopback interface.
func Start(t testing.TB) *Server {
	t.Helper()
	python := testbed.Cached(t, "moto", "venv", "bin", "python")
	// A port that was free may be taken before the server has it: then another.
	for try := 1; ; try++ {
		s := &Server{}
		err := s.run(t, python)
		if err == nil {
			return s
		}
		if try == 3 {
			t.Fatalf("starting moto: %v", err)
		}
	}
}

func (s *Server) run(t testing.TB, python string) error {
	dir := t.TempDir()
	host, port, err := freeAddress()
	if err != nil {
		return err
	}
	logFile, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return err
	}
	defer logFile.Close()
	cmd := exec.Command(python, "-m", "moto.server", "-H", host, "-p", port)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, logFile, logFile
	// Nothing of whoever runs the tests: neither credentials nor settings of Python's or moto's.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "PYTHONDONTWRITEBYTECODE=1", "PYTHONNOUSERSITE=1"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	done, err := child.Start(cmd)
	if err != nil {
		return err
	}
	s.URL, s.pid, s.done = "http://"+net.JoinHostPort(host, port), cmd.Process.Pid, done
	client := http.Client{Timeout: 5 * time.Second}
	for deadline := time.Now().Add(startTimeout); ; {
		resp, err := client.Get(s.URL + "/moto-api/data.json")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				t.Cleanup(s.Stop)
				return nil
			}
			err = fmt.Errorf("it says %s", resp.Status)
		}
		select {
		case <-done:
			text, _ := os.ReadFile(logFile.Name())
			return fmt.Errorf("it ended at once:\n%s", text)
		case <-time.After(50 * time.Millisecond):
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
	_ = syscall.Kill(-s.pid, syscall.SIGKILL)
	<-s.done
}

func freeAddress() (host, port string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", err
	}
	defer l.Close()
	return net.SplitHostPort(l.Addr().String())
}
