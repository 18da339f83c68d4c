package ddl

import (
	"strings"
	"testing"
)

const bank = `CREATE TABLE bank.accounts (
    id int PRIMARY KEY,
    bank text, -- bank.accounts
    "Bank" text
) WITH ID = 5b1c2a30-1111-4222-8333-444455556666
    AND comment = 'bank.accounts; WITH ID = it''s'
    AND compaction = {'class': 'SizeTiered', 'id': 'x'}
    AND gc_grace_seconds = 864000;
ALTER TABLE bank.accounts DROP old USING TIMESTAMP 1700000000000000;`

func change() Change {
	return Change{From: "bank", To: "Stage", Replication: map[string]string{"class": "NetworkTopologyStrategy", "dc1": "1"},
		IDs: map[string]string{"accounts": "00000000-0000-4000-8000-000000000001"}, GCGrace: map[string]int64{"accounts": 7}}
}

func TestApply(t *testing.T) {
	got, err := change().Apply([]string{
		"CREATE KEYSPACE bank WITH replication = {'class': 'SimpleStrategy', 'replication_factor': '3'}  AND durable_writes = true;",
		bank,
		`CREATE INDEX i ON bank.accounts (bank);`,
		`CREATE CUSTOM INDEX j ON "bank".accounts ("Bank") USING 'StorageAttachedIndex';`,
		`CREATE TYPE bank.bank (a int);`,
		"/* nothing */ ;",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []Statement{
		{Keyspace, "", `CREATE KEYSPACE "Stage" WITH replication = {'class': 'NetworkTopologyStrategy', 'dc1': '1'}  AND durable_writes = true`},
		{Table, "accounts", strings.NewReplacer("TABLE bank.", `TABLE "Stage".`, "5b1c2a30-1111-4222-8333-444455556666", "00000000-0000-4000-8000-000000000001", "864000", "7").Replace(bank[:strings.Index(bank, ";\nALTER")])},
		{Alter, "accounts", `ALTER TABLE "Stage".accounts DROP old USING TIMESTAMP 1700000000000000`},
		{Index, "", `CREATE INDEX i ON "Stage".accounts (bank)`},
		{Index, "", `CREATE CUSTOM INDEX j ON "Stage".accounts ("Bank") USING 'StorageAttachedIndex'`},
		{Type, "", `CREATE TYPE "Stage".bank (a int)`},
	}
	if len(got) != len(want) {
		t.Fatalf("%d statements: %+v", len(got), got)
	}
	for i := range got {
		// Blanks that stood within what was replaced may stay.
		got[i].CQL = strings.ReplaceAll(got[i].CQL, "}   AND", "}  AND")
		if g, w := strings.Join(strings.Fields(got[i].CQL), " "), strings.Join(strings.Fields(want[i].CQL), " "); got[i].Kind != want[i].Kind || got[i].Table != want[i].Table || g != w {
			t.Errorf("%d:\n got %+v\nwant %+v", i, got[i], want[i])
		}
	}
}

func TestRefusals(t *testing.T) {
	keyspace := "CREATE KEYSPACE bank WITH replication = {'class': 'SimpleStrategy'}"
	for _, c := range []struct {
		says  string
		texts []string
	}{
		{"do not begin", []string{bank}},
		{"do not create", []string{keyspace}},
		{"created twice", []string{keyspace, bank, bank}},
		{"neither a keyspace", []string{keyspace, bank, "CREATE MATERIALIZED VIEW bank.v AS SELECT * FROM bank.accounts"}},
		{"neither a keyspace", []string{keyspace, bank, "DROP TABLE bank.accounts"}},
		{"neither a keyspace", []string{keyspace, bank, "ALTER TABLE bank.accounts WITH comment = ''"}},
		{"no id", []string{keyspace, "CREATE TABLE bank.accounts (id int PRIMARY KEY) WITH comment = 'ID = x'"}},
		{"not among", []string{keyspace, strings.ReplaceAll(bank, "accounts", "other")}},
		{"names no table", []string{keyspace, strings.ReplaceAll(bank, "bank.", "other.")}},
		{"does not create keyspace", []string{"CREATE KEYSPACE other WITH replication = {}"}},
		{"no replication", []string{"CREATE KEYSPACE bank WITH durable_writes = true"}},
		{"ends within a text", []string{"CREATE KEYSPACE bank WITH x = 'abc"}},
		{"ends within a comment", []string{"/* abc"}},
		{"ends within a name", []string{`"abc`}},
		{"empty name", []string{`""`}},
	} {
		if _, err := change().Apply(c.texts); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: %v, want %q", c.texts, err, c.says)
		}
	}
}

func FuzzApply(f *testing.F) {
	f.Add(bank)
	f.Add("CREATE KEYSPACE bank WITH replication = {'class': 'SimpleStrategy'};" + bank)
	f.Add("CREATE FUNCTION bank.f() RETURNS int LANGUAGE java AS $$ return ';'; $$")
	f.Add(`CREATE TABLE "bank"."a""b" (x int) WITH ID=1-2 -- c`)
	f.Fuzz(func(t *testing.T, cql string) {
		tokens, err := scan(cql)
		if err != nil {
			return
		}
		var all strings.Builder
		for _, token := range tokens {
			if token.text == "" {
				t.Fatal("an empty token")
			}
			all.WriteString(token.text)
		}
		if all.String() != cql {
			t.Fatalf("the tokens of %q are %q", cql, all.String())
		}
		out, err := change().Apply([]string{cql})
		if err != nil {
			return
		}
		for _, s := range out {
			again, err := scan(s.CQL)
			if err != nil {
				t.Fatalf("what came out cannot be read: %q: %v", s.CQL, err)
			}
			if len(split(again)) != 1 {
				t.Fatalf("more than one statement came out: %q", s.CQL)
			}
			for i, at := 0, significant(again); i+1 < len(at); i++ {
				if at[i].isName("bank") && at[i+1].text == "." && (i == 0 || at[i-1].text != ".") {
					t.Fatalf("the old keyspace is still named: %q", s.CQL)
				}
			}
		}
	})
}

func TestShape(t *testing.T) {
	shape := func(texts ...string) Shape {
		s, err := ShapeOf("bank", texts)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	index := `CREATE INDEX i ON bank.accounts (bank);`
	a := shape(bank, index)
	b := shape(strings.NewReplacer("864000", "5", "-- bank.accounts", "", "    id int", "id  INT", "5b1c2a30", "00000000").Replace(bank), `CREATE INDEX "i" ON "bank".accounts ( bank )`)
	if len(a.Columns) != 1 || a.Columns["accounts"] != b.Columns["accounts"] || len(a.Indexes) != 1 {
		t.Errorf("%+v\n%+v", a, b)
	}
	for k := range a.Indexes {
		if b.Indexes[k] == "" {
			t.Errorf("%+v\n%+v", a, b)
		}
	}
	for _, other := range []string{strings.Replace(bank, "bank text", "bank int", 1), strings.Replace(bank, "DROP old", "DROP older", 1), strings.Replace(bank, `"Bank"`, "bank2", 1), bank[:strings.Index(bank, "ALTER")]} {
		if shape(other).Columns["accounts"] == a.Columns["accounts"] {
			t.Errorf("other columns, and no difference: %s", other)
		}
	}
	if _, err := ShapeOf("bank", []string{"CREATE MATERIALIZED VIEW bank.v AS SELECT * FROM bank.accounts"}); err == nil {
		t.Error("a view has a shape")
	}
}
