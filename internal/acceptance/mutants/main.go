// Command mutants takes the code that keeps a promise out of the engine, one piece at a time, and demands that a test fails then. It works on a copy of
// the tree. A mutant that survives is a test that cannot fail; one whose text is not found any more has to be written anew.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// mutant is one piece of code taken out.
type mutant struct {
	promise  string // of DESIGN section 3, and what is broken
	file     string
	old, new string
	test     string // -run
	pkg      string
}

const (
	engine   = "./internal/engine/"
	watchdog = "./internal/engine/watchdog/"
	sim      = "^TestSimulation$|^TestOnePause"
)

var mutants = []mutant{
	{"1: unpausing runs on a context that a cancel reaches", "backup.go", "r.do(context.WithoutCancel(ctx), step{PhaseUnpause", "r.do(ctx, step{PhaseUnpause", "TestCancelled", engine},
	{"1: only targets that answered are unpaused", "lift.go", "case Unsent:\n\t\t\tcontinue", "case Unsent, Unknown:\n\t\t\tcontinue", sim, engine},
	{"1: an Unpause is not repeated while a Pause may still land", "lift.go", "settled := l.record.settled(l.clock.Boot(), l.options.Drain)", "settled := true", sim, engine},
	{"1: a late Pause of our own is taken for somebody else's", "lift.go", "if l.cleared {", "if settled {", sim, engine},
	{"1: an Unpause is believed without a look", "lift.go", "if err := l.conn.Unpause(ctx); err != nil {\n\t\treturn false, err\n\t}", "_ = l.conn.Unpause(ctx)\n\tl.result.Lifted = true\n\treturn true, nil", sim, engine},
	{"1: the journal does not name the targets", "backup.go", "r.journal.doc.Targets[i].Ownership = Unknown", "_ = i", sim, engine},
	{"1: the watchdog does not notice its parent's death", "watchdog/run.go", "if w.sent && !w.lifted {\n\t\tw.fire(reason)", "if false {\n\t\tw.fire(reason)", "TestParentDies", watchdog},
	{"1: the watchdog does not end the pause at max_duration", "watchdog/run.go", "case <-w.due:\n\t\t\tw.fire(", "case <-w.due:\n\t\t\t_ = fmt.Sprint(", "TestMaxDuration", watchdog},
	{"2: OK to Pause is believed without CheckPaused", "backup.go", "if err == nil && !paused {\n\t\t\terr = errors.New(\"it answered OK", "if err == nil && !paused && false {\n\t\t\terr = errors.New(\"it answered OK", "TestPauseIsConfirmed", engine},
	{"2: who appeared or disappeared is not noticed", "backup.go", "return errors.Join(changes...)", "return nil", "TestConfirm", engine},
	{"2: a run that slept keeps its window", "window.go", "if k.slept > maxGap {", "if false {", "TestConfirm", engine},
	{"2: a stepped clock keeps its window", "window.go", "if d := (k.clock.Now().Sub(k.wall) - (boot - k.boot)).Abs(); d > maxClockDisagreement {", "if d := time.Duration(0); d > maxClockDisagreement {", "TestConfirm", engine},
	{"2: a watchdog that fired does not void", "backup.go", "if fired {\n\t\treturn &Error{PhaseConfirm", "if fired && false {\n\t\treturn &Error{PhaseConfirm", "TestConfirm", engine},
	{"2: a restart is not noticed", "backup.go", "if now := incarnation(t); now != t.incarnation {\n\t\treturn &Error{PhaseConfirm", "if now := incarnation(t); false {\n\t\treturn &Error{PhaseConfirm", "TestConfirm", engine},
	{"2: the drivers' verdict is not heard", "backup.go", "if err := r.sessions[name].Confirm(ctx); err != nil {", "if err := error(nil); err != nil {", "TestConfirm", engine},
	{"3: preflight's failures are not heard", "backup.go", "if err := each(checks, func(check func() error) error { return check() }); err != nil {\n\t\treturn err\n\t}\n\treturn r.measureClocks(ctx, PhasePreflight)", "_ = each(checks, func(check func() error) error { return check() })\n\treturn r.measureClocks(ctx, PhasePreflight)", sim, engine},
	{"3: a target that somebody else paused is not refused", "backup.go", "if paused {\n\t\treturn &Error{PhasePreflight, t.Address", "if paused && false {\n\t\treturn &Error{PhasePreflight, t.Address", "TestForeignPause", engine},
	{"4: the window waits for data", "backup.go", "if wait = r.held(); wait <= 0 {", "if wait = r.held(); wait <= 0 && r.Clock.Now().Sub(r.result.StartedAt) > r.q.Pause.Min+5*time.Second {", "TestWindowIsShort", engine},
	{"5: a backup that is not available is restored", "restore.go", "if m.Status != StatusAvailable {\n\t\trefusals = append(refusals, fmt.Errorf(\"backup", "if false {\n\t\trefusals = append(refusals, fmt.Errorf(\"backup", "TestRestor", engine},
	{"5: a restore in part is not refused", "restore.go", "case !ok && needed(m.Storages[name]):", "case false:", "TestRestor", engine},
	{"6: a dead run's artifacts are not discarded", "recover.go", "if err := store.Delete(ctx, a); err != nil {", "if _ = store; err != nil {", sim, engine},
	{"6: a failed run's artifacts are not discarded", "ending.go", "if err := r.sessions[name].Discard(ctx); err != nil {", "if err := error(nil); err != nil {", sim, engine},
	{"6: the manifest of another run is deleted", "manifest.go", "case there.RunID == m.RunID:", "case there.RunID != \"\":", "TestDelete", engine},
	{"7: a restore that failed verification is called available", "restore.go", "if !report.Passed {", "if false {", "TestRestor", engine},
	{"8: a lock that was taken over does not void", "backup.go", "if err := r.lock.Check(ctx); err != nil {\n\t\t\t\treturn &Error{PhaseConfirm", "if err := error(nil); err != nil {\n\t\t\t\treturn &Error{PhaseConfirm", "TestConfirm", engine},
	{"section 6: no granule is taken off", "window.go", "g := granules[name]", "g := 0 * granules[name]", "TestSafeInterval", engine},
	{"section 6: the storages' clocks are not heeded", "window.go", "if f := start.Add(b.Offset + b.Uncertainty + g); f.After(from) {", "if f := start.Add(g); f.After(from) {", "TestSafeInterval", engine},
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(only []string) error {
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "mutants-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, part := range []string{"go.mod", "go.sum", "internal"} {
		if out, err := exec.Command("cp", "-r", filepath.Join(strings.TrimSpace(string(root)), part), dir).CombinedOutput(); err != nil {
			return fmt.Errorf("copying the tree: %w: %s", err, out)
		}
	}
	var survived []string
	var broken []error
	tried := 0
	for _, m := range mutants {
		if len(only) > 0 && !strings.Contains(m.promise, only[0]) {
			continue
		}
		tried++
		killed, err := try(dir, m)
		if err != nil {
			broken = append(broken, fmt.Errorf("%s: %w", m.promise, err))
			continue
		}
		if !killed {
			survived = append(survived, m.promise)
		}
	}
	fmt.Printf("%d mutants, %d survived\n", tried, len(survived))
	if len(survived) > 0 {
		broken = append(broken, errors.New("no test fails without the code for:\n  "+strings.Join(survived, "\n  ")))
	}
	return errors.Join(broken...)
}

// try tests one mutant. A mutant that does not compile is an error: it shows nothing.
func try(dir string, m mutant) (killed bool, err error) {
	path := filepath.Join(dir, "internal", "engine", filepath.FromSlash(m.file))
	original, err := os.ReadFile(path)
	if err != nil {
		return false, err
	}
	if n := strings.Count(string(original), m.old); n != 1 {
		return false, fmt.Errorf("its code is in %s %d times, not once", m.file, n)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(original), m.old, m.new, 1)), 0o600); err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, os.WriteFile(path, original, 0o600)) }()
	build := exec.Command("go", "build", m.pkg)
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		return false, fmt.Errorf("it does not compile: %s", out)
	}
	begin := time.Now()
	test := exec.Command("go", "test", "-count=1", "-failfast", "-timeout", "100s", "-run", m.test, m.pkg)
	test.Dir = dir
	test.Env = append(os.Environ(), "SIM_SEEDS=3000")
	out, err := test.CombinedOutput()
	verdict := "SURVIVED"
	if err != nil {
		verdict = "killed by " + first(string(out))
	}
	fmt.Printf("%-70s %s (%.0f s)\n", m.promise, verdict, time.Since(begin).Seconds())
	return err != nil, nil
}

// first is the first line of a test's complaint.
func first(out string) string {
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		if strings.Contains(line, "_test.go:") || strings.HasPrefix(line, "panic:") {
			if len(line) > 160 {
				line = line[:160] + "…"
			}
			return line
		}
	}
	return "?"
}
