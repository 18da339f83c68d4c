package dynamo

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed"
)

//go:embed java/*.java
var sources embed.FS

// startTimeout is generous: it takes a second and a half alone.
const startTimeout = 2 * time.Minute

// local is a DynamoDB Local process. It keeps the items of every scope apart by the access key, which is the account's number, and the region.
type local struct {
	url    string
	client *http.Client
	stdin  io.Closer
	pid    int
	done   chan struct{}
}

// classPath is that of the class that setup.sh compiled from exactly these sources, and of the jars.
func classPath(t testing.TB) string {
	t.Helper()
	entries, err := sources.ReadDir("java") // in the order of their names, as in setup.sh
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.New()
	for _, e := range entries {
		b, err := sources.ReadFile("java/" + e.Name())
		if err != nil {
			t.Fatal(err)
		}
		hash.Write(b)
	}
	classes := testbed.Cached(t, "dynamodb", "classes-"+hex.EncodeToString(hash.Sum(nil))[:16])
	return classes + string(os.PathListSeparator) + filepath.Join(testbed.Cached(t, "dynamodb", "jars"), "*")
}

func startLocal(t testing.TB) *local {
	t.Helper()
	path, err := exec.LookPath("java")
	if err != nil {
		t.Fatalf("looking for Java: %v: %s", err, testbed.Hint)
	}
	dir := t.TempDir()
	cmd := exec.Command(path, "-Xmx768m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.io.tmpdir="+dir, //nolint:noctx // ended by a signal
		"-cp", classPath(t), "testbed.LocalDynamo")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DDB_LOCAL_TELEMETRY=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	log := filepath.Join(dir, "log")
	stderr, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close() // the child has its own
	cmd.Stderr = stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	// The server closes a connection that nobody used for 30 s; a call that meets that would be a failure.
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 128, IdleConnTimeout: 5 * time.Second}}
	l := &local{stdin: stdin, done: make(chan struct{}), client: client}
	port := make(chan string, 1)
	started := make(chan error, 1)
	go func() {
		// Pdeathsig is about the thread that starts the child: this one stays as long as the child does.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(l.done)
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			if p, ok := strings.CutPrefix(lines.Text(), "port "); ok {
				port <- p
			}
		}
		_ = cmd.Wait()
	}()
	if err := <-started; err != nil {
		t.Fatalf("starting DynamoDB Local: %v", err)
	}
	l.pid = cmd.Process.Pid
	t.Cleanup(l.stop)
	select {
	case p := <-port:
		l.url = "http://127.0.0.1:" + p
	case <-l.done:
		text, _ := os.ReadFile(log)
		t.Fatalf("starting DynamoDB Local: it ended at once:\n%s", text)
	case <-time.After(startTimeout):
		text, _ := os.ReadFile(log)
		t.Fatalf("starting DynamoDB Local: no port after %s:\n%s", startTimeout, text)
	}
	return l
}

func (l *local) stop() {
	select {
	case <-l.done:
		return
	default:
	}
	_ = l.stdin.Close()
	_ = syscall.Kill(-l.pid, syscall.SIGKILL)
	<-l.done
}

// call makes one call; errors of the API are *rawError.
func (l *local) call(ctx context.Context, c Scope, op string, body []byte) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, l.url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/x-amz-json-1.0")
	r.Header.Set("X-Amz-Target", "DynamoDB_20120810."+op)
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+c.Account+"/20120810/"+c.Region+"/dynamodb/aws4_request, SignedHeaders=host, Signature=none")
	resp, err := l.client.Do(r)
	if err != nil {
		return nil, fmt.Errorf("asking DynamoDB Local for %s: %w", op, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("asking DynamoDB Local for %s: %w", op, err)
	}
	if resp.StatusCode == http.StatusOK {
		return text, nil
	}
	var e struct {
		Type    string `json:"__type"`
		Message string `json:"Message"` // or message: json does not mind
	}
	if err := json.Unmarshal(text, &e); err != nil {
		return nil, fmt.Errorf("asking DynamoDB Local for %s: status %d: %s", op, resp.StatusCode, text)
	}
	_, kind, _ := strings.Cut(e.Type, "#")
	if resp.StatusCode >= http.StatusInternalServerError {
		return nil, fmt.Errorf("asking DynamoDB Local for %s: status %d: %s", op, resp.StatusCode, text)
	}
	return nil, &rawError{apiError{resp.StatusCode, kind, e.Message}, text}
}
