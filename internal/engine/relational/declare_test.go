package relational

import (
	"database/sql"
	"slices"
	"strings"
	"testing"
)

func FuzzParseFullName(f *testing.F) {
	for _, s := range []string{"bank.accounts", "bank.a.b", ".", "bank.", ".accounts", "", "bank"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := parseFullName(s)
		if err == nil && (n.String() != s || n.namespace == "" || n.table == "" || strings.Contains(n.namespace, ".")) {
			t.Errorf("%q: %+v", s, n)
		}
		if err != nil && n != (name{}) {
			t.Errorf("%q: %+v with %v", s, n, err)
		}
	})
}

// FuzzDeclare feeds metadata as a database may hold it: lines "table column keytype ordinal", and virtual tables "table left right".
func FuzzDeclare(f *testing.F) {
	f.Add("bank.accounts id PARTITION 1\nbank.accounts tx_id - 2\ncoordinator.state tx_id PARTITION 1", "")
	f.Add("bank.t_data id PARTITION 1\nbank.t_tx_metadata id PARTITION 1\nbank.t_tx_metadata tx_id - 2", "bank.t bank.t_data bank.t_tx_metadata")
	f.Add("bank.t b CLUSTERING 2\nbank.t a PARTITION 1\nbank.t b CLUSTERING 9223372036854775807", "bank.t bank.t bank.t")
	f.Add("nodot id ODD 1", "x y z")
	f.Fuzz(func(t *testing.T, metadata, virtual string) {
		var rows []metadataRow
		for i, line := range strings.Split(metadata, "\n") {
			p := append(strings.Fields(line), "", "", "", "")
			key := p[2]
			if key == "-" {
				key = ""
			}
			rows = append(rows, metadataRow{table: p[0], column: p[1], keyType: key, ordinal: int64(len(p[3]) - i)})
		}
		var views []virtualRow
		for _, line := range strings.Split(virtual, "\n") {
			if p := strings.Fields(line); len(p) == 3 {
				views = append(views, virtualRow{p[0], p[1], p[2]})
			}
		}
		out, err := declare(rows, views, name{"coordinator", "state"})
		if err != nil {
			if out != nil {
				t.Errorf("tables with an error: %v", err)
			}
			return
		}
		if !slices.IsSortedFunc(out, func(a, b declared) int { return strings.Compare(a.name.String(), b.name.String()) }) {
			t.Error("not sorted")
		}
		// resolve must take whatever is declared, with nothing and with everything there.
		var inv Inventory
		inv.resolve(out, Layout{})
		if len(inv.Tables) != 0 || len(inv.Missing) != len(out) {
			t.Errorf("%d tables in an empty database, %d missing of %d", len(inv.Tables), len(inv.Missing), len(out))
		}
	})
}

func TestDeclareOrdersKeys(t *testing.T) {
	rows := []metadataRow{
		{table: "b.t", column: "c2", keyType: "CLUSTERING", ordinal: 3},
		{table: "b.t", column: "v", ordinal: 4},
		{table: "b.t", column: "p", keyType: "PARTITION", ordinal: 1},
		{table: "b.t", column: "c1", keyType: "CLUSTERING", ordinal: 2},
	}
	out, err := declare(rows, nil, name{"coordinator", "state"})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) != 1 || !slices.Equal(out[0].key, []string{"p", "c1", "c2"}) || out[0].transactional {
		t.Errorf("%+v", out)
	}
	if _, err := declare([]metadataRow{{table: "b.t", column: "p", keyType: "HASH"}}, nil, name{}); err == nil || !strings.Contains(err.Error(), `"HASH"`) {
		t.Errorf("an unknown key type gives %v", err)
	}
}

// TestOneConnection: over a transaction or a connection nothing is asked while rows come in.
func TestOneConnection(t *testing.T) {
	for _, q := range []Querier{&sql.Tx{}, &sql.Conn{}} {
		if NewReader(q, nil, Layout{}, nil).(*reader).one == nil {
			t.Errorf("%T is taken for a pool", q)
		}
	}
}
