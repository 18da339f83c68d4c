package sqlite_test

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/sqlite"
)

func TestRelations(t *testing.T) {
	db := openAs(t, filepath.Join(t.TempDir(), "db"), "")
	defer db.Close() //nolint:errcheck // a test
	if _, err := db.Exec(`
		CREATE TABLE "bank$accounts" ("id" INT PRIMARY KEY, "odd "" name" BLOB);
		CREATE TABLE "bank$a$b" (x INT);
		CREATE TABLE "plain" (x INT);
		CREATE TABLE "other$t" (x INT);
		CREATE TABLE "gone" (x INT);
		CREATE VIEW "bank$view" AS SELECT id AS seen FROM "bank$accounts";
		CREATE VIEW "bank$broken" AS SELECT x FROM gone;
		DROP TABLE gone`); err != nil {
		t.Fatal(err)
	}
	all, err := sqlite.Dialect{}.Relations(t.Context(), db, nil)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range all {
		names = append(names, r.Namespace+"/"+r.Name)
		if r.ID == "" || len(r.Columns) != len(r.Types) {
			t.Errorf("%+v", r)
		}
	}
	if want := []string{"bank/a$b", "bank/accounts", "bank/broken", "bank/view", "other/t"}; !slices.Equal(names, want) {
		t.Errorf("relations %q, want %q", names, want)
	}
	bank, err := sqlite.Dialect{}.Relations(t.Context(), db, []string{"bank"})
	if err != nil || len(bank) != 4 {
		t.Fatalf("%v, %v", bank, err)
	}
	if r := bank[1]; !slices.Equal(r.Columns, []string{"id", `odd " name`}) || !slices.Equal(r.Types, []string{"INT", "BLOB"}) || r.View {
		t.Errorf("accounts: %+v", r)
	}
	if r := bank[2]; len(r.Columns) != 0 || !r.View {
		t.Errorf("the broken view: %+v", r)
	}
	if r := bank[3]; !slices.Equal(r.Columns, []string{"seen"}) || !r.View {
		t.Errorf("the view: %+v", r)
	}
}

func TestDialect(t *testing.T) {
	d := sqlite.Dialect{}
	if got := d.Table("bank", `a"b`); got != `"bank$a""b"` {
		t.Errorf("table %s", got)
	}
	db := openAs(t, filepath.Join(t.TempDir(), "db"), "")
	defer db.Close() //nolint:errcheck // a test
	for value, want := range map[any]string{int64(7): "7", "text": "text", 1.5: "1.5", "\x00raw": "\x00raw"} {
		var got string
		if err := db.QueryRow("SELECT "+d.TextCast(d.Column("a"))+" FROM (SELECT "+d.Placeholder(1)+" AS a)", value).Scan(&got); err != nil || got != want {
			t.Errorf("%v is shown as %q, %v", value, got, err)
		}
	}
	var got string
	if err := db.QueryRow("SELECT "+d.TextCast("a")+" FROM (SELECT ? AS a)", []byte{0, 0xff}).Scan(&got); err != nil || got != "00FF" {
		t.Errorf("a BLOB is shown as %q, %v", got, err)
	}
}
