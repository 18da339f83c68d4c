package procstat

import (
	"errors"
	"math"
	"os"
	"syscall"
	"testing"
)

func TestRead(t *testing.T) {
	s, err := Read(os.Getpid())
	if err != nil || s.Ended() || s.Start == 0 || s.Group != syscall.Getpgrp() {
		t.Errorf("this process: %+v, %v", s, err)
	}
	if _, err := Read(math.MaxInt32); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no process: %v", err)
	}
}

func TestParse(t *testing.T) {
	for line, want := range map[string]Stat{
		"12 (a) b) S) R 1 77 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0":       {'R', 77, 4242},
		"12 (a b) S) R 1 12 12 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1": {'R', 12, 4242},
	} {
		if s, err := parse([]byte(line)); err != nil || s != want {
			t.Errorf("parse(%q) = %+v, %v, want %+v", line, s, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	self, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(self)
	for _, s := range []string{
		"", "1 (a) S", ")", ")))", "1 (x) S 1 x 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 y",
		"1 (a) b) S) R 1 77 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0", "12 (a b) S) R 1 12 12 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1",
		"1 (a) \x00 1 77 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0", "1 (a) 7 1 77 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parse(data)
		if err == nil && !('a' <= s.State && s.State <= 'z' || 'A' <= s.State && s.State <= 'Z') {
			t.Fatalf("parsed as %+v", s)
		}
	})
}
