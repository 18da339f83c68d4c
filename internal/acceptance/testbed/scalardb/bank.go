package scalardb

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Bank is a Java application that moves money between accounts; java/Bank.java has it. Its methods may be called from any goroutine.
type Bank struct {
	p     *process
	lines *bufio.Reader
	mu    sync.Mutex
}

// Stats of a bank since it was opened.
type Stats struct {
	Commits   int
	Conflicts int // transactions that lost against another: nothing is wrong
	Unknown   int // commits of which the client was not told how they ended
	Errors    int // anything else, refusals of a paused server among them
}

func openBank(t testing.TB, dir, name string, c Config, properties map[string]string) *Bank {
	t.Helper()
	args := append([]string{
		WriteProperties(t, dir, name+".properties", properties), strconv.Itoa(c.Accounts), strconv.Itoa(c.Balance),
	}, c.Tables()...)
	// A pipe of our own: exec's would be closed before everything is read.
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { read.Close() })
	p := javaTo(t, write, dir, name, "testbed.Bank", args...)
	write.Close()
	return &Bank{p: p, lines: bufio.NewReader(read)}
}

// answerLimit is beyond the about 100 s for which the Java client itself goes on trying to reach a paused server.
const answerLimit = 3 * time.Minute

// ask sends a command and returns the words of its answer.
func (b *Bank) ask(t testing.TB, format string, args ...any) []string {
	t.Helper()
	words, err := b.try(fmt.Sprintf(format, args...))
	if err != nil {
		t.Fatalf("the bank: %v\n%s", err, b.p.output())
	}
	return words
}

func (b *Bank) try(command string) ([]string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, err := fmt.Fprintln(b.p.stdin, command); err != nil {
		return nil, fmt.Errorf("asking %q: %w", command, err)
	}
	type line struct {
		text string
		err  error
	}
	read := make(chan line, 1)
	go func() {
		text, err := b.lines.ReadString('\n')
		read <- line{text, err}
	}()
	select {
	case l := <-read:
		if l.err != nil {
			return nil, fmt.Errorf("reading the answer to %q: %w", command, l.err)
		}
		words := strings.Fields(l.text)
		if len(words) == 0 || words[0] != "ok" {
			return nil, fmt.Errorf("%s: %s", command, strings.TrimSpace(l.text))
		}
		return words[1:], nil
	case <-time.After(answerLimit):
		b.p.kill() // whatever it would still say belongs to this command
		return nil, fmt.Errorf("%s: no answer within %s", command, answerLimit)
	}
}

func (b *Bank) numbers(t testing.TB, want int, format string, args ...any) []int64 {
	t.Helper()
	numbers, err := b.tryNumbers(want, fmt.Sprintf(format, args...))
	if err != nil {
		t.Fatalf("the bank: %v\n%s", err, b.p.output())
	}
	return numbers
}

func (b *Bank) tryNumbers(want int, command string) ([]int64, error) {
	words, err := b.try(command)
	if err != nil {
		return nil, err
	}
	var numbers []int64
	for _, w := range words {
		n, err := strconv.ParseInt(w, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("reading the answer to %q: %w", command, err)
		}
		numbers = append(numbers, n)
	}
	if len(numbers) != want {
		return nil, fmt.Errorf("%d numbers in the answer to %q, want %d", len(numbers), command, want)
	}
	return numbers, nil
}

// StartWriters starts threads that move money until Stop.
func (b *Bank) StartWriters(t testing.TB, threads int) { t.Helper(); b.ask(t, "start %d", threads) }

// Stop stops the writers and waits for what they have begun.
func (b *Bank) Stop(t testing.TB) { t.Helper(); b.ask(t, "stop") }

// Stats counts what happened so far.
func (b *Bank) Stats(t testing.TB) Stats {
	t.Helper()
	n := b.numbers(t, 4, "stats")
	return Stats{Commits: int(n[0]), Conflicts: int(n[1]), Unknown: int(n[2]), Errors: int(n[3])}
}

// WaitForCommits waits until that many more transactions are committed.
func (b *Bank) WaitForCommits(t testing.TB, more int, limit time.Duration) {
	t.Helper()
	want := b.Stats(t).Commits + more
	poll(t, limit, fmt.Sprintf("no %d more commits", more), func() bool { return b.Stats(t).Commits >= want })
}

// AwaitCommits is WaitForCommits for any goroutine: it fails no test, and ends with its context.
func (b *Bank) AwaitCommits(ctx context.Context, more int) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for want := int64(-1); ; {
		n, err := b.tryNumbers(4, "stats")
		switch {
		case err != nil:
			return err
		case want < 0:
			want = n[0] + int64(more)
		case n[0] >= want:
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %d more commits: %w", more, ctx.Err())
		case <-tick.C:
		}
	}
}

// Gap is the longest time without a commit between the two instants, as the application saw it.
func (b *Bank) Gap(t testing.TB, from, to time.Time) Interval {
	t.Helper()
	n := b.numbers(t, 2, "gap %d %d", from.UnixMilli(), to.UnixMilli())
	return Interval{From: time.UnixMilli(n[0]), To: time.UnixMilli(n[1])}
}

// Commits counts the commits answered between the two instants.
func (b *Bank) Commits(t testing.TB, from, to time.Time) int {
	t.Helper()
	return int(b.numbers(t, 1, "commits %d %d", from.UnixMilli(), to.UnixMilli())[0])
}

// Sum reads every account in one transaction. It is tried again for up to a minute, since records that a half copied
// transaction left behind are recovered 15 s after their preparation at the earliest.
func (b *Bank) Sum(t testing.TB) (rows int, sum int64) {
	t.Helper()
	n := b.numbers(t, 2, "sum 60000")
	return int(n[0]), n[1]
}

// Hold begins a transfer and leaves it open after its reads and writes: a transaction that a pause has to wait for. One that loses against a
// writer is tried again for up to a minute.
func (b *Bank) Hold(t testing.TB) { t.Helper(); b.ask(t, "hold 60000") }

// Release commits the transfer that Hold began.
func (b *Bank) Release(t testing.TB) error {
	t.Helper()
	_, err := b.try("release")
	return err
}

// Close ends the application, also in the middle of transactions.
func (b *Bank) Close() { b.p.kill() }

// poll waits until the condition holds.
func poll(t testing.TB, limit time.Duration, missing string, holds func() bool) {
	t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline:
			t.Fatalf("%s after %s", missing, limit)
		case <-tick.C:
		}
	}
}
