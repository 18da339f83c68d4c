package scalardb

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed"
)

//go:embed java/*.java
var sources embed.FS

// classPath is that of the classes that setup.sh compiled from exactly these sources, and of the jars.
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
	classes := testbed.Cached(t, "scalardb", "classes-"+hex.EncodeToString(hash.Sum(nil))[:16])
	return classes + string(os.PathListSeparator) + filepath.Join(testbed.Cached(t, "scalardb", "jars"), "*")
}

// process is a Java program that runs; it ends with its standard input, at the latest with the test.
type process struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	log    string // the path of its log
	exited chan struct{}
}

// java starts a program, with its output and its log in one file of dir.
func java(t testing.TB, dir, name, class string, args ...string) *process {
	t.Helper()
	return javaTo(t, nil, dir, name, class, args...)
}

// javaTo is java with its output elsewhere, if that is not nil. Who gives a pipe has to read it: a program that cannot write stands still.
func javaTo(t testing.TB, stdout *os.File, dir, name, class string, args ...string) *process {
	t.Helper()
	path, err := exec.LookPath("java")
	if err != nil {
		t.Fatalf("looking for Java: %v: %s", err, testbed.Hint)
	}
	arguments := []string{
		"-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.io.tmpdir=" + dir,
		"-cp", classPath(t), class,
	}
	p := &process{
		cmd:    exec.Command(path, append(arguments, args...)...), //nolint:noctx // ended by signals
		log:    filepath.Join(dir, name+".log"),
		exited: make(chan struct{}),
	}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close() // the child has its own
	p.cmd.Stderr = log
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout = log
	if stdout != nil {
		p.cmd.Stdout = stdout
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", class, err)
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is read from ProcessState
		close(p.exited)
	}()
	t.Cleanup(p.kill)
	return p
}

func (p *process) kill() {
	_ = p.cmd.Process.Signal(syscall.SIGCONT)
	_ = p.cmd.Process.Kill() // gone already is as good
	<-p.exited
}

// output is the end of its log, for messages.
func (p *process) output() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-8<<10):])
}

// wait waits for the end, and fails the test after the limit.
func (p *process) wait(t testing.TB, what string, limit time.Duration) {
	t.Helper()
	select {
	case <-p.exited:
	case <-time.After(limit):
		t.Fatalf("%s: not done after %s\n%s", what, limit, p.output())
	}
}
