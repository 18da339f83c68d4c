package sandbox

import (
	"context"
	"testing"
	"time"
)

// TestBankKeepsItsSum: after the writers stopped, and while they write, nothing is lost by the sandbox itself.
func TestBankKeepsItsSum(t *testing.T) {
	s, err := Start(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	for s.Commits() < 50 {
		if err := s.Err(); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			t.Fatalf("only %d commits in 30 s", s.Commits())
		}
		time.Sleep(10 * time.Millisecond) // polling
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	sum, expected, err := Sum(context.Background(), s.Orders, s.Events)
	if err != nil || sum != expected || expected != 2*20*InitialBalance {
		t.Fatalf("sum %d, expected %d: %v", sum, expected, err)
	}
}
