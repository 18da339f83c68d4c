package postgresql

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"strings"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/relational"
)

// The witness has two snapshots: that of the capture, and one taken at Confirm. A transaction that wrote has an id, and a snapshot says which
// ids had ended. So if both say the same, nothing that ever wrote ended between them, in the whole cluster: no row was looked at, and none has to be.
// Otherwise something ended: perhaps in another database, or an ANALYZE. Then the rows tell: see versions. That look takes as long as the tables are
// big, so it is made on the two held snapshots after the unpause. What a writer has not committed yet is in neither snapshot, but its lock shows.
//
// What was written between the opening of the window and the capture's snapshot shows only by ScalarDB's own time stamps.

const culprit = "likely by a ScalarDB server, or an application that embeds ScalarDB, that is not among the targets (pause.targets): add it or stop it, then take the backup again"

// Confirm takes the last reading, and makes the part of the look that is cheap.
func (x *session) Confirm(ctx context.Context) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	// A session that was lost since the capture took its locks with it.
	if err := x.control.PingContext(ctx); err != nil {
		return fmt.Errorf("the session that holds the snapshot is gone: %w", err)
	}
	if err := x.late.QueryRowContext(ctx, `SELECT txid_current_snapshot()::text`).Scan(&x.last); err != nil {
		return fmt.Errorf("taking the last reading of the write witness: %w", err)
	}
	now, err := relational.Fingerprint(ctx, x.late, Dialect{}, x.inventory.Namespaces)
	if err != nil {
		return err
	}
	if now != x.fingerprint {
		return &engine.VoidError{Reason: "the schema of ScalarDB's namespaces (tables, columns, ScalarDB's metadata) changed between preflight and the end of the pause window; a pause does not stop schema changes: let them finish, then take the backup again"}
	}
	return x.openWrites(ctx)
}

// openWrites asks who holds a lock that only a writer of rows takes. Locks are read as they are, not as the snapshot was.
func (x *session) openWrites(ctx context.Context) error {
	var oids []int64
	for _, r := range x.relations {
		oids = append(oids, r.oid)
	}
	var table, application string
	var pid int64
	err := x.late.QueryRowContext(ctx, `SELECT l.relation::regclass::text, COALESCE(l.pid, 0), COALESCE(a.application_name, '')
		FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
		WHERE l.locktype = 'relation' AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND l.granted
			AND l.relation::int8 = ANY($1) AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock') LIMIT 1`, oids).Scan(&table, &pid, &application)
	switch err {
	case sql.ErrNoRows:
		return nil
	case nil:
		return &engine.VoidError{Reason: fmt.Sprintf("table %s is being written at the end of the pause window, by server process %d (application %q); %s", table, pid, application, culprit)}
	}
	return fmt.Errorf("looking for open writes: %w", err)
}

// witness is the result of a look.
type witness struct {
	tables []engine.TableWitness
	newest int64
}

// look counts the capture's rows and judges the window. It returns a *engine.VoidError when something was written.
func (x *session) look(ctx context.Context) (witness, error) {
	var w witness
	reading, err := relational.TakeReadingWith(ctx, x.control, Dialect{}, x.inventory, relational.ReadingOptions{Tables: true})
	if err != nil {
		return w, err
	}
	if err := relational.Compare(reading, reading, x.run.OpenedAt(), x.run.ServerClockBound); err != nil {
		return w, err
	}
	if x.first != x.last {
		if err := x.compareVersions(ctx); err != nil {
			return w, err
		}
	}
	// Two snapshots hold the vacuum up; one is enough from here on.
	if err := exec(ctx, x.late, "ROLLBACK"); err != nil {
		return w, fmt.Errorf("ending the last reading: %w", err)
	}
	if reading.Coordinator != nil {
		w.newest = reading.Coordinator.Newest
	}
	rows, newest := map[[2]string]int64{}, map[[2]string]int64{}
	for _, t := range reading.Tables {
		rows[[2]string{t.Namespace, t.Name}] = t.Rows
		newest[[2]string{t.Namespace, t.Name}] = t.NewestCommitted
	}
	for _, t := range x.inventory.Tables {
		n, ok := rows[[2]string{t.Namespace, t.Name}]
		if !ok {
			if err := x.control.QueryRowContext(ctx, "SELECT count(*) FROM "+Dialect{}.Table(t.Data.Namespace, t.Data.Name)).Scan(&n); err != nil {
				return w, fmt.Errorf("counting the rows of table %s.%s: %w", t.Namespace, t.Name, err)
			}
		}
		w.tables = append(w.tables, engine.TableWitness{Namespace: t.Namespace, Table: t.Name, Transactional: t.Transactional, Rows: n, NewestCommitted: newest[[2]string{t.Namespace, t.Name}]})
	}
	return w, nil
}

// compareVersions looks at the row versions of every table in both snapshots.
func (x *session) compareVersions(ctx context.Context) error {
	from, until, err := span(x.first, x.last)
	if err != nil {
		return err
	}
	for _, r := range x.relations {
		if r.kind != "r" && r.kind != "m" {
			continue
		}
		a, err := versions(ctx, x.control, r.name, from, until)
		if err != nil {
			return err
		}
		b, err := versions(ctx, x.late, r.name, from, until)
		if err != nil {
			return err
		}
		if a != b {
			return &engine.VoidError{Reason: fmt.Sprintf("table %s was written in the pause window while every target was paused (%d rows at its start, %d at its end); %s", r.name, a.rows, b.rows, culprit)}
		}
	}
	return nil
}

// versionSum describes what one snapshot sees of one table.
type versionSum struct {
	rows, recent int64
	sum          string
}

// versions counts rows, and sums up where the versions of those rows are that a transaction with an id from the first snapshot's oldest running one up
// to the last snapshot's end wrote. An insert or an update between the snapshots puts such a version into the last one only; a delete changes
// the count. The system column has only the low 32 bits of the id, so a row of long ago may be among them too: in both sums, where it cancels out.
func versions(ctx context.Context, q relational.Querier, table string, from, until uint64) (v versionSum, err error) {
	const epoch = 1 << 32
	recent := fmt.Sprintf("((xmin::text::int8 - %d + %d) %% %d) < %d", from%epoch, uint64(epoch), uint64(epoch), until-from)
	query := fmt.Sprintf("SELECT count(*), count(*) FILTER (WHERE %s), COALESCE(sum(hashtextextended(ctid::text || ' ' || xmin::text, 0)) FILTER (WHERE %s), 0)::text FROM ONLY %s", recent, recent, table)
	if err := q.QueryRowContext(ctx, query).Scan(&v.rows, &v.recent, &v.sum); err != nil {
		return v, fmt.Errorf("looking for writes to %s: %w", table, err)
	}
	return v, nil
}

// span is the transaction ids [from, until) that can have ended between two snapshots.
func span(first, last string) (from, until uint64, err error) {
	if from, _, err = parseSnapshot(first); err != nil {
		return 0, 0, err
	}
	if _, until, err = parseSnapshot(last); err != nil {
		return 0, 0, err
	}
	if until < from {
		return 0, 0, fmt.Errorf("comparing the snapshots %q and %q: the last is before the first", first, last)
	}
	return from, until, nil
}

// parseSnapshot reads "XMIN:XMAX:IDS", with 64-bit ids.
func parseSnapshot(s string) (xmin, xmax uint64, err error) {
	parts := strings.SplitN(s, ":", 3)
	if len(parts) != 3 {
		return 0, 0, fmt.Errorf("parsing the snapshot %.40q: it is not of the form XMIN:XMAX:IDS", s)
	}
	if xmin, err = strconv.ParseUint(parts[0], 10, 63); err != nil {
		return 0, 0, fmt.Errorf("parsing the snapshot %.40q: %w", s, err)
	}
	if xmax, err = strconv.ParseUint(parts[1], 10, 63); err != nil {
		return 0, 0, fmt.Errorf("parsing the snapshot %.40q: %w", s, err)
	}
	if xmax < xmin {
		return 0, 0, fmt.Errorf("parsing the snapshot %.40q: it ends before it begins", s)
	}
	return xmin, xmax, nil
}
