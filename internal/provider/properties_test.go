package provider

import (
	"maps"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestParseProperties has what java.util.Properties was written for.
func TestParseProperties(t *testing.T) {
	for text, want := range map[string]map[string]string{
		"":                           {},
		"a=b":                        {"a": "b"},
		"  a : b \r\nc\td":           {"a": "b ", "c": "d"},
		"# no\n! no\n\na=1\ra=2":     {"a": "2"},
		"a=b\\\n   c\\\n  d\ne=f":    {"a": "bcd", "e": "f"},
		"a\\=b\\:c\\ d=e":            {"a=b:c d": "e"},
		`a=\t\n\r\f\q\\`:             {"a": "\t\n\r\fq\\"},
		`a=\u00e9\ud83d\ude00`:       {"a": "é😀"},
		"a":                          {"a": ""},
		"=x":                         {"": "x"},
		"a = = b":                    {"a": "= b"},
		"a=b\\":                      {"a": "b"},
		"a=b\\\\\nc=d":               {"a": `b\`, "c": "d"},
		"# comment \\\na=1":          {"a": "1"},
		"url=jdbc:sqlite:x?a=1&b=2 ": {"url": "jdbc:sqlite:x?a=1&b=2 "},
	} {
		got, err := parseProperties(text)
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
	}
	for _, text := range []string{`a=\u12`, `a=\uzzzz`, `\u=1`} {
		if _, err := parseProperties(text); err == nil {
			t.Errorf("%q was read", text)
		}
	}
}

func FuzzProperties(f *testing.F) {
	for _, s := range []string{"a=b", "a\\\n b=\\u0041", "#x\n!y\n:z", "\\\\=\\", "k\t v\\\r\n w"} {
		f.Add(s, "key #1", " värde\\\n")
	}
	f.Fuzz(func(t *testing.T, text, key, v string) {
		m, err := parseProperties(text)
		if err == nil && utf8.ValidString(text) && validText(m) == nil {
			again, err := parseProperties(renderProperties(m))
			if err != nil || !maps.Equal(m, again) {
				t.Fatalf("%q rendered and read: %q, %v", m, again, err)
			}
		}
		if !utf8.ValidString(key) || !utf8.ValidString(v) {
			return
		}
		want := map[string]string{key: v}
		got, err := parseProperties(renderProperties(want))
		if err != nil || !maps.Equal(got, want) {
			t.Fatalf("%q rendered as %q and read: %q, %v", want, renderProperties(want), got, err)
		}
	})
}

func TestParseConfiguration(t *testing.T) {
	multi := map[string]string{
		"scalar.db.storage": "multi-storage", "scalar.db.multi_storage.storages": "orders, events,c",
		"scalar.db.multi_storage.storages.orders.storage":        "jdbc",
		"scalar.db.multi_storage.storages.orders.contact_points": "jdbc:postgresql://u:SECRET@db1.example.com:5433,db2/shop?user=u&password=SECRET",
		"scalar.db.multi_storage.storages.orders.password":       "SECRET",
		"scalar.db.multi_storage.storages.events.storage":        "dynamo",
		"scalar.db.multi_storage.storages.events.contact_points": "eu-central-1",
		"scalar.db.multi_storage.storages.events.username":       "SECRET",
		"scalar.db.multi_storage.storages.c.contact_points":      "c1,c2",
		"scalar.db.multi_storage.storages.c.contact_port":        "9042",
		"scalar.db.multi_storage.namespace_mapping":              "shop:orders,coordinator:events,b:events,a:events",
		"scalar.db.multi_storage.default_storage":                "orders",
	}
	c, err := parseConfiguration(multi)
	if err != nil {
		t.Fatal(err)
	}
	orders, events := c.storages["orders"], c.storages["events"]
	if orders.driver != "postgresql" || strings.Join(orders.hosts, " ") != "db1.example.com db2" || orders.port != 5433 || orders.database != "shop" {
		t.Errorf("orders: %+v", orders)
	}
	if events.driver != "aws_dynamodb" || strings.Join(events.namespaces, " ") != "a b coordinator" || c.coordinatorStorage != "events" || !c.pauseRequired || c.storages["c"].port != 9042 {
		t.Errorf("%+v", c)
	}
	for name, tt := range map[string]struct {
		p        map[string]string
		required bool
		driver   string
	}{
		"one relational database": {map[string]string{"scalar.db.storage": "jdbc", "scalar.db.contact_points": "jdbc:mysql://db:3306/"}, false, "mysql"},
		"SQLite":                  {map[string]string{"scalar.db.storage": "jdbc", "scalar.db.contact_points": "jdbc:sqlite:/x/y.db?busy_timeout=10000"}, false, "sqlite"},
		"unknown database":        {map[string]string{"scalar.db.storage": "jdbc", "scalar.db.contact_points": "jdbc:oracle:thin:u/SECRET@//h:1521/s"}, false, ""},
		"Cassandra":               {map[string]string{}, true, "cassandra"},
		"Cosmos":                  {map[string]string{"scalar.db.storage": "cosmos", "scalar.db.contact_points": "https://x.documents.azure.com:443/"}, true, "azure_cosmosdb"},
	} {
		c, err := parseConfiguration(tt.p)
		if err != nil || c.pauseRequired != tt.required || c.storages[singleStorage].driver != tt.driver || c.reason == "" {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
		if tt.driver == "sqlite" && c.storages[singleStorage].database != "/x/y.db" {
			t.Errorf("%s: %+v", name, c.storages[singleStorage])
		}
	}
	client, err := parseConfiguration(map[string]string{"scalar.db.transaction_manager": "cluster", "scalar.db.contact_points": "indirect:h"})
	if err != nil || !client.pauseRequired || len(client.storages) > 0 {
		t.Errorf("client: %+v, %v", client, err)
	}
	for name, change := range map[string][2]string{"mapping": {"scalar.db.multi_storage.namespace_mapping", "x:nope"}, "default": {"scalar.db.multi_storage.default_storage", "nope"}, "none": {"scalar.db.multi_storage.storages", " "}} {
		p := maps.Clone(multi)
		p[change[0]] = change[1]
		if _, err := parseConfiguration(p); err == nil {
			t.Errorf("%s was read", name)
		}
	}
}
