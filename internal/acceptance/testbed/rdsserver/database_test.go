//go:build acceptance

package rdsserver

import (
	"context"
	"database/sql"
	"net"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

var families = map[string]string{"PostgreSQL": "postgres", "MariaDB": "mariadb"}

const (
	master = "master"
	secret = `pa'ss\ w$rd`
)

// connect opens the database app as a user.
func connect(t *testing.T, engine string, port int, password string) *sql.DB {
	t.Helper()
	var db *sql.DB
	if family(engine) == familyPostgres {
		c, err := pgx.ParseConfig("sslmode=disable host=127.0.0.1 port=" + strconv.Itoa(port))
		if err != nil {
			t.Fatal(err)
		}
		c.Database, c.User, c.Password = "app", master, password
		db = stdlib.OpenDB(*c)
	} else {
		c := mysql.NewConfig()
		c.User, c.Passwd, c.Net, c.Addr, c.DBName, c.InterpolateParams = master, password, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), "app", true
		connector, err := mysql.NewConnector(c)
		if err != nil {
			t.Fatal(err)
		}
		db = sql.OpenDB(connector)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func execute(t *testing.T, db *sql.DB, statements ...string) {
	t.Helper()
	for _, q := range statements {
		if _, err := db.ExecContext(t.Context(), q); err != nil {
			t.Fatalf("running %q: %v", q, err)
		}
	}
}

// ids are the rows that a database has.
func ids(t *testing.T, db *sql.DB) []int {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), "SELECT id FROM r ORDER BY id")
	if err != nil {
		t.Fatalf("reading the rows: %v", err)
	}
	defer rows.Close()
	var all []int
	for rows.Next() {
		var id int
		if err := rows.Scan(&id); err != nil {
			t.Fatal(err)
		}
		all = append(all, id)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// writer commits one row after the other, and remembers when: before it asked for each commit, and after it was answered.
type writer struct {
	stop     chan struct{}
	done     chan struct{}
	rows     atomic.Int64
	err      error
	from, to []time.Time
}

func write(ctx context.Context, db *sql.DB, first int) *writer {
	w := &writer{stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(w.done)
		for id := first; ; id++ {
			before := time.Now()
			if _, w.err = db.ExecContext(ctx, "INSERT INTO r VALUES ("+strconv.Itoa(id)+")"); w.err != nil {
				return
			}
			w.from, w.to = append(w.from, before), append(w.to, time.Now())
			w.rows.Add(1)
			select {
			case <-w.stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	return w
}

// more waits until it has committed so many rows more.
func (w *writer) more(t *testing.T, n int64) {
	t.Helper()
	deadline := time.After(time.Minute)
	for n += w.rows.Load(); w.rows.Load() < n; {
		select {
		case <-w.done:
			t.Fatalf("writing: %v", w.err)
		case <-deadline:
			t.Fatalf("%d rows were written in a minute, want %d", w.rows.Load(), n)
		case <-time.After(poll):
		}
	}
}

func (w *writer) end(t *testing.T) {
	t.Helper()
	close(w.stop)
	<-w.done
	if w.err != nil {
		t.Fatalf("writing: %v", w.err)
	}
}

// check compares the number of a writer's rows that a restored database has with those that it may have: all whose commit was answered by then, none
// that was asked for afterwards.
func (w *writer) check(t *testing.T, got int, by time.Time) {
	t.Helper()
	least, most := 0, 0
	for i := range w.from {
		if !w.to[i].After(by) {
			least++
		}
		if !w.from[i].After(by) {
			most++
		}
	}
	if got < least || got > most {
		t.Errorf("the restored database has %d rows: want %d to %d, those committed by %s, of %d", got, least, most, by.Format(time.StampMilli), len(w.from))
	}
	if least == 0 || most == len(w.from) {
		t.Errorf("of %d rows %d are before the restore point: that shows nothing", len(w.from), least)
	}
}

func TestDatabase(t *testing.T) {
	t.Parallel()
	for name, engine := range families {
		t.Run(name, func(t *testing.T) { testDatabase(t, engine) })
	}
}

func testDatabase(t *testing.T, engine string) {
	t.Parallel()
	ctx := t.Context()
	s, err := newStore()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	start := func(from image) (database, *sql.DB) {
		t.Helper()
		began := time.Now()
		d, err := s.open(engine, from)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(d.destroy)
		if err := d.start(ctx); err != nil {
			t.Fatal(err)
		}
		t.Logf("started in %s", time.Since(began).Round(time.Millisecond))
		if from.logs == nil {
			if err := d.password(ctx, master, secret); err != nil {
				t.Fatal(err)
			}
			if err := d.create(ctx, "app", master); err != nil {
				t.Fatal(err)
			}
		}
		return d, connect(t, engine, d.port(), secret)
	}
	source, db := start(image{})
	execute(t, db, "CREATE TABLE r (id int primary key)", "INSERT INTO r VALUES (1)", "INSERT INTO r VALUES (2)")
	began := time.Now()
	two, last, err := source.cut(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("cut in %s", time.Since(began).Round(time.Millisecond))
	if age := time.Since(last); age > time.Minute || age < 0 {
		t.Errorf("the last transaction was %s ago: want a moment", age)
	}
	w := write(ctx, db, 10)
	point := time.Now().Truncate(time.Second).Add(time.Second)
	<-time.After(time.Until(point.Add(300 * time.Millisecond)))
	w.end(t)
	all, last, err := source.cut(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(w.to) - 1; last.Before(w.from[n].Truncate(time.Second)) || last.After(w.to[n]) {
		t.Errorf("the last transaction was at %s: want it from %s, of which a binary log has the whole second, to %s", last, w.from[n], w.to[n])
	}
	_, db2 := start(two)
	if got := ids(t, db2); len(got) != 2 {
		t.Errorf("the first cut has the rows %v: want 1 and 2", got)
	}
	clone, db3 := start(all.at(point))
	w.check(t, len(ids(t, db3))-2, by(engine, point))

	// A clone's own history goes on, and the source's does not get into it.
	execute(t, db, "INSERT INTO r VALUES (100000)")
	execute(t, db3, "INSERT INTO r VALUES (200000)")
	if err := clone.stop(ctx); err != nil {
		t.Fatal(err)
	}
	i, _, err := clone.cut(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_, db4 := start(i)
	got := ids(t, db4)
	if last := got[len(got)-1]; last != 200000 {
		t.Errorf("the clone's clone has %d as its last row: want 200000", last)
	}
	w.check(t, len(got)-3, by(engine, point))
}

// by is up to when the rows of a database restored to a time were committed: MariaDB's go by the second in which the statement began.
func by(engine string, point time.Time) time.Time {
	if family(engine) == familyMariaDB {
		return point.Add(-time.Nanosecond)
	}
	return point
}
