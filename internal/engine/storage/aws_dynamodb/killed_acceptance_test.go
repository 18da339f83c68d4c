//go:build acceptance

package awsdynamodb

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/dynamo"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

// death ends a process, as far as the driver can tell, when the n-th call of an operation reaches the service: the call is still done, its answer is never
// heard, and nothing is recorded any more.
type death struct {
	operation string
	n         int

	mu     sync.Mutex
	cancel context.CancelFunc
	seen   int
	dead   bool
}

func (d *death) on(c dynamo.Call) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c.Operation != d.operation {
		return
	}
	if d.seen++; d.seen == d.n {
		d.dead = true
		d.cancel()
	}
}

func (d *death) happened() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dead
}

// settled waits until the service has done every call that reached it.
func (b *bed) settled(d *death) {
	b.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); b.sleepUntil(time.Now().Add(20 * time.Millisecond)) {
		done := 0
		for _, c := range b.service.Calls() {
			if c.Operation == d.operation {
				done++
			}
		}
		d.mu.Lock()
		seen := d.seen
		d.mu.Unlock()
		if done >= seen {
			return
		}
	}
	b.t.Fatalf("the service did not finish its calls of %s", d.operation)
}

// TestAcceptanceKilled: a restore dies at each kind of call that it makes. What it announced last is enough to remove everything it made, and nothing else.
func TestAcceptanceKilled(t *testing.T) {
	t.Parallel()
	b := newBed(t, dynamo.Options{Factor: 300})
	b.scalardb("", 2)
	before := b.inventory()
	session, w := b.window(b.settings(), nil)
	record := b.record(session)
	d := b.settings()
	d.Prefix, d.HasPrefix, d.MaxRestores = "staging.", true, 3
	for _, at := range []struct {
		operation string
		n         int
	}{
		{"RestoreTableToPointInTime", 1}, {"RestoreTableToPointInTime", 4}, {"DescribeTable", 7}, {"TagResource", 1}, {"UpdateTable", 1}, {"PutItem", 2}, {"UpdateContinuousBackups", 2},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		k := &death{operation: at.operation, n: at.n, cancel: cancel}
		var last engine.Restored
		q := engine.StorageBackup{Storage: "events", RunID: "fedcba9876543210", Name: "staging", Record: record, RestorePoint: w.RestorePoint, Catalog: b.catalog,
			Report: func(string, map[string]any) {}, Announce: func(_ context.Context, x engine.Restored) error {
				if !k.happened() {
					last = x
				}
				return nil
			}}
		b.service.OnCall(k.on)
		_, err := NewDestination(d).Restore(ctx, q)
		cancel()
		b.settled(k)
		b.service.OnCall(nil)
		if err == nil || !k.happened() {
			t.Errorf("%s %d: it did not die there (%v)", at.operation, at.n, err)
		}
		if err := NewDestination(d).Delete(t.Context(), last); err != nil {
			t.Errorf("%s %d: %v", at.operation, at.n, err)
		}
		b.same(at.operation, before)
	}
}

// TestAcceptanceKilledOnDemand: a backup dies; its plan is enough to remove temporary tables and backups.
func TestAcceptanceKilledOnDemand(t *testing.T) {
	t.Parallel()
	b := newBed(t, dynamo.Options{Factor: 300})
	b.scalardb("", 1)
	before := b.inventory()
	s := b.settings()
	s.Method = MethodOnDemand
	for _, at := range []struct {
		operation string
		n         int
	}{{"RestoreTableToPointInTime", 2}, {"CreateBackup", 1}, {"DeleteTable", 1}} {
		session, _ := b.window(s, nil)
		ctx, cancel := context.WithCancel(t.Context())
		k := &death{operation: at.operation, n: at.n, cancel: cancel}
		b.service.OnCall(k.on)
		_, err := session.Await(ctx)
		cancel()
		b.settled(k)
		b.service.OnCall(nil)
		if err == nil || !k.happened() {
			t.Errorf("%s %d: it did not die there (%v)", at.operation, at.n, err)
		}
		for _, a := range session.Facts().Planned {
			if err := NewKeeper(s, b.catalog).Delete(t.Context(), a); err != nil {
				t.Errorf("%s %d: %v", at.operation, at.n, err)
			}
		}
		b.same(at.operation, before)
	}
}
