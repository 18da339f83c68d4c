package relational_test

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/relational"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify/verifytest"
)

const start = 1_700_000_000_000 // ms

var d = verifytest.Dialect{}

// history has two storages, a and b; b has the coordinator table.
func history() *verifytest.History {
	return verifytest.Make(verifytest.Options{Seed: 1, Start: start, Duration: 1000, Storages: []string{"a", "b"}, Coordinator: "b", Accounts: 10, Threads: 2, Think: 20, PauseAt: start + 500})
}

func database(t *testing.T, storage string, l verifytest.Layout) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "db")+"?_pragma=synchronous(0)&_pragma=journal_mode(wal)&_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if err := history().Cut(storage, start+800).Write(t.Context(), db, verifytest.Dialect{}, l); err != nil {
		t.Fatal(err)
	}
	return db
}

func exec(t *testing.T, db *sql.DB, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func inventory(t *testing.T, db *sql.DB, l relational.Layout) relational.Inventory {
	t.Helper()
	inv, err := relational.ReadInventory(t.Context(), db, d, l)
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

func names(tables []relational.Table) (out []string) {
	for _, t := range tables {
		out = append(out, t.Namespace+"."+t.Name)
	}
	return out
}

func TestInventory(t *testing.T) {
	db := database(t, "b", verifytest.Layout{})
	exec(t, db,
		`CREATE TABLE "scalardb$namespaces" (namespace_name TEXT PRIMARY KEY)`,
		`INSERT INTO "scalardb$namespaces" VALUES ('scalardb'), ('bank_b'), ('empty')`,
		`CREATE TABLE "plain$notes" (k TEXT, v TEXT)`,
		`INSERT INTO "scalardb$metadata" VALUES ('plain.notes', 'k', 'TEXT', 'PARTITION', NULL, FALSE, 1), ('plain.notes', 'v', 'TEXT', NULL, NULL, FALSE, 2)`,
		`INSERT INTO "scalardb$metadata" VALUES ('plain.gone', 'k', 'TEXT', 'PARTITION', NULL, FALSE, 1)`,
		// In the metadata it is transactional, in the database it is not.
		`CREATE TABLE "plain$torn" (k TEXT)`,
		`INSERT INTO "scalardb$metadata" SELECT 'plain.torn', column_name, data_type, NULL, NULL, indexed, ordinal_position FROM "scalardb$metadata" WHERE full_table_name = 'bank_b.accounts' AND column_name LIKE 'tx_%'`,
		`CREATE TABLE "foreign$table" (k TEXT)`)
	inv := inventory(t, db, relational.Layout{})
	if got, want := names(inv.Tables), []string{"bank_b.accounts", "plain.notes"}; !slices.Equal(got, want) {
		t.Errorf("tables %v, want %v", got, want)
	}
	if got, want := names(inv.Missing), []string{"plain.gone", "plain.torn"}; !slices.Equal(got, want) {
		t.Errorf("missing %v, want %v", got, want)
	}
	if want := []string{"bank_b", "coordinator", "empty", "plain", "scalardb"}; !slices.Equal(inv.Namespaces, want) {
		t.Errorf("namespaces %v, want %v", inv.Namespaces, want)
	}
	if !inv.Tables[0].Transactional || inv.Tables[1].Transactional || !slices.Equal(inv.Tables[0].Key, []string{"id"}) {
		t.Errorf("%+v", inv.Tables)
	}
	if inv.Coordinator == nil || inv.Coordinator.Namespace != "coordinator" || inv.Coordinator.Name != "state" {
		t.Errorf("coordinator %+v", inv.Coordinator)
	}
	if len(inv.Metadata) != 2 || len(inv.Relations) != 6 {
		t.Errorf("%d relations of ScalarDB's own, %d in all", len(inv.Metadata), len(inv.Relations))
	}
}

func TestInventoryWithoutCoordinator(t *testing.T) {
	inv := inventory(t, database(t, "a", verifytest.Layout{}), relational.Layout{})
	if inv.Coordinator != nil || len(inv.Missing) != 0 || !slices.Equal(inv.Namespaces, []string{"bank_a", "scalardb"}) {
		t.Errorf("%+v", inv)
	}
	db := database(t, "b", verifytest.Layout{})
	exec(t, db, `DROP TABLE "coordinator$state"`)
	if inv := inventory(t, db, relational.Layout{}); inv.Coordinator != nil || !slices.Equal(names(inv.Missing), []string{"coordinator.state"}) {
		t.Errorf("a dropped coordinator table: %+v", inv)
	}
}

func TestInventoryOfOtherNames(t *testing.T) {
	l := relational.Layout{CoordinatorNamespace: "txs", MetadataNamespace: "sys"}
	db := database(t, "b", verifytest.Layout{Layout: l, Groups: true})
	inv := inventory(t, db, l)
	if inv.Coordinator == nil || inv.Coordinator.Namespace != "txs" || !slices.Equal(names(inv.Tables), []string{"bank_b.accounts"}) ||
		!slices.Equal(inv.Namespaces, []string{"bank_b", "sys", "txs"}) {
		t.Errorf("%+v", inv)
	}
	_, err := relational.ReadInventory(t.Context(), db, d, relational.Layout{})
	if err == nil || !strings.Contains(err.Error(), `"scalardb"`) || !strings.Contains(err.Error(), "metadata_namespace") {
		t.Errorf("without its metadata: %v", err)
	}
	_, err = relational.ReadInventory(t.Context(), db, d, relational.Layout{MetadataNamespace: "other"})
	if err == nil || !strings.Contains(err.Error(), `"other"`) {
		t.Errorf("with the wrong metadata: %v", err)
	}
}

func TestInventoryDecoupled(t *testing.T) {
	db := database(t, "b", verifytest.Layout{Decoupled: true})
	check := func() {
		t.Helper()
		inv := inventory(t, db, relational.Layout{})
		if len(inv.Tables) != 1 || len(inv.Missing) != 0 {
			t.Fatalf("%+v", inv)
		}
		a := inv.Tables[0]
		if a.Name != "accounts" || a.Data.Name != "accounts_data" || a.TxMetadata.Name != "accounts_tx_metadata" || !a.Transactional || !slices.Equal(a.Key, []string{"id"}) {
			t.Errorf("%+v", a)
		}
		// The dump must hold the halves and the view.
		if len(inv.Relations) != 6 {
			t.Errorf("%d relations: %+v", len(inv.Relations), inv.Relations)
		}
	}
	check()
	exec(t, db, `UPDATE "scalardb$virtual_tables" SET left_source_table_full_table_name = right_source_table_full_table_name, right_source_table_full_table_name = left_source_table_full_table_name`)
	check()
	exec(t, db, `DROP VIEW "bank_b$accounts"`)
	if inv := inventory(t, db, relational.Layout{}); !slices.Equal(names(inv.Missing), []string{"bank_b.accounts"}) {
		t.Errorf("without its view: %+v", inv)
	}
}

func TestFingerprint(t *testing.T) {
	fingerprint := func(db *sql.DB, namespaces []string) string {
		t.Helper()
		s, err := relational.Fingerprint(t.Context(), db, d, namespaces)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, c := range []struct {
		name    string
		do      []string
		differs bool
	}{
		{"nothing", nil, false},
		{"writes", []string{`UPDATE "bank_b$accounts" SET balance = 0`, `DELETE FROM "coordinator$state"`}, false},
		{"a foreign table", []string{`CREATE TABLE "foreign$t" (k TEXT)`}, false},
		{"a new table", []string{`CREATE TABLE "bank_b$t" (k TEXT)`}, true},
		{"a new column", []string{`ALTER TABLE "bank_b$accounts" ADD COLUMN x TEXT`}, true},
		{"a dropped column", []string{`ALTER TABLE "bank_b$accounts" DROP COLUMN balance`}, true},
		{"a renamed column", []string{`ALTER TABLE "bank_b$accounts" RENAME COLUMN balance TO amount`}, true},
		{"another type", []string{`DROP TABLE "coordinator$state"`, `CREATE TABLE "coordinator$state" (tx_id TEXT, tx_state BIGINT, tx_created_at BIGINT, PRIMARY KEY (tx_id))`}, true},
		{"a view", []string{`CREATE VIEW "bank_b$v" AS SELECT 1 AS one`}, true},
		{"metadata alone", []string{`INSERT INTO "scalardb$metadata" VALUES ('other.t', 'k', 'TEXT', 'PARTITION', NULL, FALSE, 1)`}, true},
		{"metadata changed", []string{`UPDATE "scalardb$metadata" SET data_type = 'TEXT' WHERE column_name = 'balance'`}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			db := database(t, "b", verifytest.Layout{})
			namespaces := inventory(t, db, relational.Layout{}).Namespaces
			before := fingerprint(db, namespaces)
			exec(t, db, c.do...)
			if after := fingerprint(db, namespaces); (after != before) != c.differs {
				t.Errorf("differs: %v, want %v", after != before, c.differs)
			}
		})
	}
	t.Run("identity", func(t *testing.T) {
		// Whatever identity a dialect knows counts.
		r := relational.Relation{Namespace: "n", Name: "t", Columns: []string{"a"}, ID: "1"}
		one, _ := relational.Fingerprint(t.Context(), nil, fixed{r}, nil)
		r.ID = "2"
		two, _ := relational.Fingerprint(t.Context(), nil, fixed{r}, nil)
		r.ID, r.Columns = "1", []string{"a", ""}
		three, _ := relational.Fingerprint(t.Context(), nil, fixed{r}, nil)
		r.Columns = []string{"", "a"}
		four, _ := relational.Fingerprint(t.Context(), nil, fixed{r}, nil)
		if one == two || one == three || three == four || one == "" {
			t.Errorf("%s, %s, %s, %s", one, two, three, four)
		}
	})
	t.Run("every namespace", func(t *testing.T) {
		db := database(t, "b", verifytest.Layout{})
		before := fingerprint(db, nil)
		exec(t, db, `CREATE TABLE "foreign$t" (k TEXT)`)
		if fingerprint(db, nil) == before {
			t.Error("a table in another namespace does not show")
		}
	})
}

// fixed is a dialect with one relation.
type fixed struct{ r relational.Relation }

func (fixed) Table(string, string) string { return "" }
func (fixed) Column(string) string        { return "" }
func (fixed) Placeholder(int) string      { return "" }
func (fixed) TextCast(string) string      { return "" }
func (f fixed) Relations(context.Context, relational.Querier, []string) ([]relational.Relation, error) {
	return []relational.Relation{f.r}, nil
}

func TestWitness(t *testing.T) {
	opened := time.UnixMilli(start + 700)
	reading := func(t *testing.T, q relational.Querier, inv relational.Inventory, o relational.ReadingOptions) relational.Reading {
		t.Helper()
		r, err := relational.TakeReadingWith(t.Context(), q, d, inv, o)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	const accounts = `"bank_a$accounts"`
	for _, c := range []struct {
		name    string
		storage string
		tables  bool
		do      string
		void    string // part of the reason; empty: none
	}{
		{"quiet", "b", false, ``, ""},
		{"quiet, no coordinator", "a", false, ``, ""},
		{"an entry, whatever its clock says", "b", false, `INSERT INTO "coordinator$state" VALUES ('x', 3, 5)`, "coordinator table"},
		{"an entry removed", "b", false, `DELETE FROM "coordinator$state" WHERE tx_id = (SELECT tx_id FROM "coordinator$state" LIMIT 1)`, "coordinator table"},
		{"one entry for another", "b", false, `UPDATE "coordinator$state" SET tx_id = 'x', tx_created_at = 1700000000900 WHERE tx_id = (SELECT tx_id FROM "coordinator$state" LIMIT 1)`, "coordinator table"},
		{"one-phase, not looked for", "b", false, `UPDATE "bank_b$accounts" SET tx_version = tx_version + 1`, ""},
		{"one-phase, looked for", "b", true, `UPDATE "bank_b$accounts" SET tx_version = tx_version + 1`, "bank_b.accounts"},
		{"an update by a slow clock", "a", false, `UPDATE ` + accounts + ` SET tx_version = tx_version + 1, tx_prepared_at = 5, tx_state = 1 WHERE id = 0`, "bank_a.accounts"},
		{"a mark", "a", false, `UPDATE ` + accounts + ` SET tx_state = 1 WHERE id = 0`, "bank_a.accounts"},
		{"an insert", "a", false, `INSERT INTO ` + accounts + ` (id, tx_version) VALUES (99, 0)`, "bank_a.accounts"},
		{"a delete", "a", false, `DELETE FROM ` + accounts + ` WHERE id = 1`, "bank_a.accounts"},
	} {
		t.Run(c.name, func(t *testing.T) {
			db := database(t, c.storage, verifytest.Layout{})
			inv := inventory(t, db, relational.Layout{})
			o := relational.ReadingOptions{Tables: c.tables}
			snapshot, err := db.BeginTx(t.Context(), &sql.TxOptions{ReadOnly: true})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = snapshot.Rollback() }()
			first := reading(t, snapshot, inv, o)
			if c.do != "" {
				exec(t, db, c.do)
			}
			// A snapshot that was opened before reads the same ever after.
			if err := relational.Compare(first, reading(t, snapshot, inv, o), opened, time.Second); err != nil {
				t.Errorf("in one snapshot: %v", err)
			}
			err = relational.Compare(first, reading(t, db, inv, o), opened, time.Second)
			var void *engine.VoidError
			switch {
			case c.void == "" && err != nil:
				t.Errorf("got %v", err)
			case c.void == "":
			case !errors.As(err, &void):
				t.Errorf("got %v, want a VoidError", err)
			case !strings.Contains(void.Reason, c.void) || !strings.Contains(void.Reason, "not among the targets"):
				t.Errorf("the reason does not say what and who: %s", void.Reason)
			}
		})
	}
	t.Run("written before the first reading", func(t *testing.T) {
		for storage, statement := range map[string]string{
			"b": `INSERT INTO "coordinator$state" VALUES ('x', 3, 1700000001701)`,
			"a": `UPDATE ` + accounts + ` SET tx_committed_at = 1700000001701 WHERE id = 0`,
		} {
			db := database(t, storage, verifytest.Layout{})
			exec(t, db, statement)
			inv := inventory(t, db, relational.Layout{})
			r := reading(t, db, inv, relational.ReadingOptions{})
			var void *engine.VoidError
			if err := relational.Compare(r, r, opened, time.Second); !errors.As(err, &void) || !strings.Contains(void.Reason, "2023-11-14T22:13:21.701Z") {
				t.Errorf("%s: got %v, want a VoidError with the time", storage, err)
			}
			if err := relational.Compare(r, r, opened, time.Second+time.Millisecond); err != nil {
				t.Errorf("%s: within the bound: %v", storage, err)
			}
		}
	})
	t.Run("since", func(t *testing.T) {
		db := database(t, "b", verifytest.Layout{})
		exec(t, db, `INSERT INTO "coordinator$state" VALUES ('old', 4, 1000), ('new', 3, 1700000000650)`)
		inv := inventory(t, db, relational.Layout{})
		o := relational.ReadingOptions{Since: time.UnixMilli(start + 600)}
		first := reading(t, db, inv, o)
		exec(t, db, `DELETE FROM "coordinator$state" WHERE tx_id = 'old'`)
		if err := relational.Compare(first, reading(t, db, inv, o), opened, 0); err != nil || first.Coordinator.Rows == 0 {
			t.Errorf("%d rows: %v", first.Coordinator.Rows, err)
		}
		exec(t, db, `DELETE FROM "coordinator$state" WHERE tx_id = 'new'`)
		if err := relational.Compare(first, reading(t, db, inv, o), opened, 0); err == nil {
			t.Error("a removed recent entry does not show")
		}
	})
	t.Run("decoupled", func(t *testing.T) {
		db := database(t, "a", verifytest.Layout{Decoupled: true})
		inv := inventory(t, db, relational.Layout{})
		first := reading(t, db, inv, relational.ReadingOptions{})
		exec(t, db, `UPDATE "bank_a$accounts_tx_metadata" SET tx_version = tx_version + 1 WHERE id = 0`)
		if err := relational.Compare(first, reading(t, db, inv, relational.ReadingOptions{}), opened, time.Second); err == nil {
			t.Error("a write does not show")
		}
	})
	t.Run("other tables", func(t *testing.T) {
		a := relational.Reading{Tables: []relational.TableReading{{Namespace: "n", Name: "t"}}}
		b := relational.Reading{Tables: []relational.TableReading{{Namespace: "n", Name: "u"}}}
		c := relational.Reading{Coordinator: &relational.CoordinatorReading{}}
		for _, pair := range [][2]relational.Reading{{a, b}, {a, {}}, {c, {}}, {{}, c}} {
			if err := relational.Compare(pair[0], pair[1], opened, time.Second); err == nil {
				t.Errorf("%+v is taken for %+v", pair[0], pair[1])
			}
		}
	})
}

// TestReaderOverOneConnection: a snapshot has one connection, on which nothing else can be asked while rows come in.
func TestReaderOverOneConnection(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	a, b := database(t, "a", verifytest.Layout{}), database(t, "b", verifytest.Layout{})
	b.SetMaxOpenConns(1)
	tx, err := a.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	closed := 0
	ra := relational.NewReader(tx, d, relational.Layout{}, func() error { closed++; return nil })
	q := verify.Request{Storages: map[string]verify.Storage{"a": ra, "b": relational.NewReader(b, d, relational.Layout{}, nil)},
		Window: &verify.Window{From: time.UnixMilli(start + 800)}}
	r, err := verify.Run(ctx, q)
	if err != nil || !r.Passed || r.Records != 20 {
		t.Errorf("%+v, %v", r, err)
	}
	// What the callbacks may do: ask the same storage.
	rb := q.Storages["b"]
	table := verify.Table{Namespace: "bank_b", Name: "accounts"}
	seen := 0
	if err := rb.Records(ctx, table, verify.RecordFilter{}, func(rec verify.Record) error {
		seen++
		_, err := rb.Coordinator(ctx, []string{rec.TxID})
		return err
	}); err != nil || seen != 10 {
		t.Errorf("%d records, %v", seen, err)
	}
	if err := rb.Aborted(ctx, func(ids []string) error { _, err := rb.CommittedAmong(ctx, table, ids); return err }); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := ra.Close(); err != nil {
			t.Error(err)
		}
	}
	if closed != 1 {
		t.Errorf("closed %d times", closed)
	}
}

func TestReaderSaysWhatIsWrong(t *testing.T) {
	db := database(t, "a", verifytest.Layout{})
	r := relational.NewReader(db, d, relational.Layout{CoordinatorNamespace: "txs"}, nil)
	if _, err := r.Coordinator(t.Context(), []string{"x"}); err == nil || !strings.Contains(err.Error(), `"txs"`) || !strings.Contains(err.Error(), "coordinator_namespace") {
		t.Errorf("no coordinator table: %v", err)
	}
	if _, err := r.Count(t.Context(), verify.Table{Namespace: "bank_a", Name: "x"}); err == nil || !strings.Contains(err.Error(), "bank_a.x") {
		t.Errorf("no such table: %v", err)
	}
}

// TestLargeLists crosses the batches of lookups.
func TestLargeLists(t *testing.T) {
	db := database(t, "b", verifytest.Layout{})
	exec(t, db, `WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 11999) INSERT INTO "coordinator$state" SELECT 'many-' || i, 3 + i % 2, 1 FROM n`)
	r := relational.NewReader(db, d, relational.Layout{}, nil)
	var aborted []string
	batches := 0
	if err := r.Aborted(t.Context(), func(ids []string) error { aborted = append(aborted, ids...); batches++; return nil }); err != nil {
		t.Fatal(err)
	}
	many := 0
	for _, id := range aborted {
		if strings.HasPrefix(id, "many-") {
			many++
		}
	}
	if many != 6000 || batches < 2 {
		t.Errorf("%d aborted ids in %d batches", many, batches)
	}
	entries, err := r.Coordinator(t.Context(), append(aborted, "none"))
	if err != nil || len(entries) != len(aborted) {
		t.Errorf("%d entries of %d: %v", len(entries), len(aborted), err)
	}
	exec(t, db, `UPDATE "bank_b$accounts" SET tx_id = 'many-11999', tx_state = 3 WHERE id = 3`)
	found, err := r.CommittedAmong(t.Context(), verify.Table{Namespace: "bank_b", Name: "accounts"}, aborted)
	if err != nil || len(found) != 1 || found[0].Key != "id=3" {
		t.Errorf("%+v, %v", found, err)
	}
	failing := errors.New("enough")
	if err := r.Aborted(t.Context(), func([]string) error { return failing }); !errors.Is(err, failing) {
		t.Errorf("the callback's error is lost: %v", err)
	}
}
