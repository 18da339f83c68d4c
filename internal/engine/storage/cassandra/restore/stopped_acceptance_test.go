//go:build acceptance

package restore_test

import (
	"context"
	"errors"
	"fmt"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gocql "github.com/apache/cassandra-gocql-driver/v2"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/catalog/directory"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/clock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/memcatalog"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/upload"
)

func (g *ground) stopped(inPlace bool) cassandra.DestinationSettings {
	at := func(name string) string { return filepath.Join(g.cluster.Dir, "{address}", name) }
	me, err := user.Current()
	ok(g.t, err)
	return cassandra.DestinationSettings{Settings: g.settings(), Upload: upload.Settings{Clock: clock.System{}}, Stopped: &cassandra.StoppedSettings{
		InPlace: inPlace, StopCommand: at("stop"), StartCommand: at("start"), Owner: me.Uid + ":" + me.Gid,
		CommitlogDirectory: at("commitlog"), HintsDirectory: at("hints"), SavedCachesDirectory: at("saved_caches"), CDCRawDirectory: at("cdc_raw"),
	}}
}

// same compares all rows with those that were captured.
func (g *ground) same(t *testing.T, b backup) {
	t.Helper()
	for name, got := range g.all(t, nil) {
		if got != b.rows[name] {
			t.Errorf("%s was\n%s\nand is\n%s", name, b.rows[name], got)
		}
	}
	if rows := g.graced(t, "bank"); rows != 0 {
		t.Errorf("%d rows that were deleted came back", rows)
	}
	var n int
	ok(t, g.session.Query("SELECT count(*) FROM bank.accounts WHERE owner = 'owner3'").Scan(&n))
	if n != 9 {
		t.Errorf("by its index the table has %d rows of owner3", n)
	}
}

func (g *ground) restoreStopped(t *testing.T, s cassandra.DestinationSettings, b backup, runID string) {
	t.Helper()
	d := cassandra.NewDestination(s)
	began := time.Now()
	made, err := d.Restore(t.Context(), b.restore(t, runID))
	ok(t, err)
	t.Logf("restored in %s", time.Since(began))
	ok(t, d.Inspect(t.Context(), made))
	for _, o := range made.Objects {
		if o.Created || o.Kind == "cassandra_nodes" {
			t.Errorf("an object that a destroy would touch: %+v", o)
		}
	}
	g.session.Close()
	g.session = g.cluster.Session(g.t) // not a subtest's, which would close it
}

const lwtRows = 20

// later are lightweight transactions after the backup, which one node has not heard of all: its state of Paxos lacks the commit.
func (g *ground) later(t *testing.T) {
	t.Helper()
	g.cluster.Nodes[2].Stop(t)
	for i := range lwtRows {
		applied, err := g.session.Query("UPDATE bank.accounts SET balance = 999 WHERE id = ? IF balance = 100", i+10).SerialConsistency(gocql.Serial).MapScanCAS(map[string]any{})
		ok(t, err)
		if !applied {
			t.Fatalf("the update of row %d was not applied", i+10)
		}
	}
	g.cluster.Nodes[2].Start(t)
	g.cluster.WaitUp(t)
}

// serial counts rows that are not the old ones by a SERIAL read and by what QUORUM reads after it.
func (g *ground) serial(t *testing.T) (changed int) {
	t.Helper()
	for i := range lwtRows {
		var balance int
		ok(t, g.session.Query("SELECT balance FROM bank.accounts WHERE id = ?", i+10).Consistency(gocql.Serial).Scan(&balance))
		if balance != 100 {
			changed++
		}
		ok(t, g.session.Query("SELECT balance FROM bank.accounts WHERE id = ?", i+10).Consistency(gocql.Quorum).Scan(&balance))
	}
	return changed
}

func TestStopped(t *testing.T) {
	catalog, err := directory.New(t.TempDir(), clock.System{})
	ok(t, err)
	g := newGround(t, noHints())
	g.fill()
	g.missDelete()
	g.cql(t, "CREATE KEYSPACE other WITH replication = {'class': 'NetworkTopologyStrategy', 'dc1': 3}")
	g.cql(t, "CREATE TABLE other.kept (id int PRIMARY KEY)")
	b := g.capture(t, catalog, "0000000000000001")
	g.cql(t, "INSERT INTO other.kept (id) VALUES (1)") // in the commit log and in memory only
	t.Run("refusals", func(t *testing.T) { g.refusals(t, b) })
	t.Run("paxos that stays brings writes back", func(t *testing.T) {
		g.later(t)
		s := g.stopped(true)
		s.Stopped.KeepPaxos, s.KeepGrace = true, true
		g.restoreStopped(t, s, b, "0000000000000021")
		if rows := g.graced(t, "bank"); rows == 0 {
			t.Error("no deleted row came back: the tests below do not show that gc_grace_seconds is raised")
		}
		if n := g.serial(t); n == 0 {
			t.Error("no write came back: the test below shows nothing")
		} else {
			t.Logf("%d of %d rows came back", n, lwtRows)
		}
	})
	t.Run("in place", func(t *testing.T) {
		g.cql(t, "TRUNCATE bank.notes")
		g.cql(t, "DELETE FROM bank.accounts WHERE id IN (30, 31, 32)")
		g.write(1000)
		g.restoreStopped(t, g.stopped(true), b, "0000000000000022")
		g.same(t, b)
		if n := g.serial(t); n != 0 {
			t.Errorf("%d of %d rows are not those of the backup", n, lwtRows)
		}
		g.same(t, b)
		if got := g.rows(t, "other.kept"); got != "map[id:1]" {
			t.Errorf("the table of another keyspace has %q", got)
		}
		g.write(2000) // it serves
	})
	t.Run("killed", func(t *testing.T) { g.killStopped(t, b) })
	t.Run("in place, kept on the nodes", func(t *testing.T) { g.kept(t) })
	t.Run("in place, by Cassy", func(t *testing.T) { g.byCassy(t) })
	t.Run("same topology", func(t *testing.T) {
		g.cluster.StopAll(t)
		g.cluster.WipeAll(t)
		g.cluster.StartAll(t)
		g.session = g.cluster.Session(g.t) // not a subtest's, which would close it
		g.restoreStopped(t, g.stopped(false), b, "0000000000000023")
		g.same(t, b)
		if n := g.serial(t); n != 0 {
			t.Errorf("%d of %d rows are not those of the backup", n, lwtRows)
		}
	})
}

// kept restores what stayed on the nodes.
func (g *ground) kept(t *testing.T) {
	s := g.settings()
	s.Mover = cassandra.KeepOnNodes()
	b := g.captureWith(t, s, memcatalog.New(time.Now), "0000000000000002")
	g.later(t)
	g.cql(t, "DELETE FROM bank.accounts WHERE id IN (30, 31, 32)")
	if err := cassandra.NewDestination(g.stopped(false)).Preflight(t.Context(), b.restore(t, "x")); err == nil || !strings.Contains(err.Error(), "only in_place") {
		t.Errorf("same_topology: %v", err)
	}
	g.restoreStopped(t, g.stopped(true), b, "0000000000000025")
	g.same(t, b)
	if n := g.serial(t); n != 0 {
		t.Errorf("%d of %d rows are not those of the backup", n, lwtRows)
	}
	keeper := g.settings()
	keeper.Catalog = b.catalog
	for _, a := range b.record.Artifacts {
		ok(t, cassandra.NewKeeper(keeper, true, nil).Inspect(t.Context(), a)) // the backup is still there
	}
}

// refusals are of a cluster that the backup does not fit.
func (g *ground) refusals(t *testing.T, b backup) {
	refuses := func(inPlace bool, says string) {
		t.Helper()
		if err := cassandra.NewDestination(g.stopped(inPlace)).Preflight(t.Context(), b.restore(t, "x")); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
	ok(t, cassandra.NewDestination(g.stopped(true)).Preflight(t.Context(), b.restore(t, "x")))
	refuses(false, "has data")
	g.cql(t, "CREATE TABLE bank.later (id int PRIMARY KEY)")
	refuses(true, "later is not in the backup")
	g.cql(t, "DROP TABLE bank.later")
	g.cql(t, "CREATE INDEX later ON bank.accounts (balance)")
	refuses(true, "has no such index")
	g.cql(t, "DROP INDEX bank.later")
	s := g.stopped(true)
	s.Stopped.CommitlogDirectory = "/nowhere"
	if err := cassandra.NewDestination(s).Preflight(t.Context(), b.restore(t, "x")); err == nil || !strings.Contains(err.Error(), "/nowhere") {
		t.Errorf("a directory that is not there: %v", err)
	}
}

// killStopped ends a restore in the middle. What it left is started, and the next attempt does everything again.
func (g *ground) killStopped(t *testing.T, b backup) {
	for i, at := range []string{"clean", "start"} {
		s := g.stopped(true)
		ctx, cancel := context.WithCancel(t.Context())
		s.Step = func(_ context.Context, name string) error {
			if name != at {
				return nil
			}
			cancel()
			return errKilled
		}
		r := b.restore(t, fmt.Sprintf("%016x", 200+i))
		var announced engine.Restored
		r.Announce = func(_ context.Context, made engine.Restored) error { announced = made; return nil }
		if _, err := cassandra.NewDestination(s).Restore(ctx, r); !errors.Is(err, errKilled) {
			t.Errorf("killed at %s: %v", at, err)
		}
		cancel()
		for _, n := range g.cluster.Nodes {
			if n.Running() {
				t.Errorf("killed at %s: node %s runs", at, n.Address)
			}
		}
		ok(t, cassandra.NewDestination(g.stopped(true)).Delete(t.Context(), announced))
	}
	g.restoreStopped(t, g.stopped(true), b, "0000000000000024")
	g.same(t, b)
}
