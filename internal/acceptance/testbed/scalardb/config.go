package scalardb

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Storage is one database behind the server.
type Storage struct {
	Name               string // as in the multi-storage configuration
	URL                string // JDBC
	Username, Password string
	// Further properties of the storage, by their names without the storage's prefix ("dynamo.endpoint_override"). With "storage" it is not a JDBC one.
	Properties map[string]string
	// Namespaces are the bank's namespaces that live here, and the coordinator's where it does. Not needed for a single storage.
	Namespaces []string
}

// SQLite is a storage in a file, in WAL mode: a pause does not have to last as long as the file is copied.
func SQLite(name, path string, namespaces ...string) Storage {
	// Without waiting for the disk: a crash of the machine is not what is tested.
	return Storage{Name: name, URL: "jdbc:sqlite:" + path + "?busy_timeout=10000&synchronous=OFF&journal_mode=WAL", Namespaces: namespaces}
}

// SQLiteRollback is a storage in a file with SQLite's rollback journal, its default: whoever writes excludes all readers.
func SQLiteRollback(name, path string, namespaces ...string) Storage {
	return Storage{Name: name, URL: "jdbc:sqlite:" + path + "?busy_timeout=10000&synchronous=OFF", Namespaces: namespaces}
}

// PostgreSQL is a storage in a PostgreSQL database.
func PostgreSQL(name, host string, port int, database, user, password string, namespaces ...string) Storage {
	return Storage{
		Name: name, URL: fmt.Sprintf("jdbc:postgresql://%s:%d/%s", host, port, database),
		Username: user, Password: password, Namespaces: namespaces,
	}
}

// MySQL is a storage in a MySQL or MariaDB server; each namespace is a database of its own.
func MySQL(name, host string, port int, user, password string, namespaces ...string) Storage {
	return Storage{
		Name: name, URL: fmt.Sprintf("jdbc:mysql://%s:%d/?sslMode=DISABLED&allowPublicKeyRetrieval=true", host, port),
		Username: user, Password: password, Namespaces: namespaces,
	}
}

// DynamoDB is a storage in DynamoDB tables, whose names begin with prefix.
func DynamoDB(name, region, endpoint, accessKey, secretKey, prefix string, namespaces ...string) Storage {
	s := Storage{Name: name, URL: region, Username: accessKey, Password: secretKey, Namespaces: namespaces,
		Properties: map[string]string{"storage": "dynamo", "dynamo.endpoint_override": endpoint}}
	if prefix != "" {
		s.Properties["dynamo.namespace.prefix"] = prefix
	}
	return s
}

// Cassandra is a storage in a Cassandra cluster, where a namespace is a keyspace. Its nodes speak CQL on the default port, without TLS.
func Cassandra(name string, contactPoints []string, user, password string, namespaces ...string) Storage {
	return Storage{
		Name: name, URL: strings.Join(contactPoints, ","), Username: user, Password: password, Namespaces: namespaces,
		Properties: map[string]string{"storage": "cassandra", "contact_port": "9042"},
	}
}

// Config says what a system is made of.
type Config struct {
	Storages []Storage
	// Namespaces of the bank, one table of accounts in each; "bank" when empty. With several storages each has to be in one's Namespaces.
	Namespaces []string
	Accounts   int // per namespace; 20 when zero
	Balance    int // of each account at the start; 1000 when zero
	// SchemaArguments are further ones of the schema loader, such as {"--replication-factor", "3"}: without it Cassandra keeps one copy of everything.
	SchemaArguments []string
	// Properties are added to Scalar DB's, on the server and in embedded clients:
	// "scalar.db.consensus_commit.coordinator.namespace", "scalar.db.system_namespace_name", group commit.
	Properties map[string]string
}

func (c Config) withDefaults() Config {
	if len(c.Namespaces) == 0 {
		c.Namespaces = []string{"bank"}
	}
	if c.Accounts == 0 {
		c.Accounts = 20
	}
	if c.Balance == 0 {
		c.Balance = 1000
	}
	return c
}

// Total is what all balances add up to, at any time.
func (c Config) Total() int64 {
	c = c.withDefaults()
	return int64(c.Rows()) * int64(c.Balance)
}

// Rows is the number of accounts in all namespaces.
func (c Config) Rows() int {
	c = c.withDefaults()
	return len(c.Namespaces) * c.Accounts
}

// Tables are the bank's, as NAMESPACE.TABLE.
func (c Config) Tables() []string {
	var tables []string
	for _, n := range c.withDefaults().Namespaces {
		tables = append(tables, n+".accounts")
	}
	return tables
}

// CoordinatorNamespace is where the coordinator table lives.
func (c Config) CoordinatorNamespace() string {
	if n := c.Properties["scalar.db.consensus_commit.coordinator.namespace"]; n != "" {
		return n
	}
	return "coordinator"
}

// embedded are the properties of whoever talks to the databases directly: the server, and clients that embed Scalar DB.
func (c Config) embedded() map[string]string {
	p := map[string]string{
		"scalar.db.transaction_manager": "consensus-commit",
		// Reading all accounts in one transaction shall give one state, also while others write.
		"scalar.db.consensus_commit.isolation_level":       "SERIALIZABLE",
		"scalar.db.consensus_commit.serializable_strategy": "EXTRA_READ",
	}
	set := func(prefix string, s Storage) {
		p[prefix+"storage"] = "jdbc"
		p[prefix+"contact_points"] = s.URL
		p[prefix+"username"] = s.Username
		p[prefix+"password"] = s.Password
		for name, value := range s.Properties {
			p[prefix+name] = value
		}
	}
	if len(c.Storages) == 1 {
		set("scalar.db.", c.Storages[0])
	} else {
		var names, mapping []string
		for _, s := range c.Storages {
			names = append(names, s.Name)
			set("scalar.db.multi_storage.storages."+s.Name+".", s)
			for _, n := range s.Namespaces {
				mapping = append(mapping, n+":"+s.Name)
			}
			if slices.Contains(s.Namespaces, c.CoordinatorNamespace()) {
				p["scalar.db.multi_storage.default_storage"] = s.Name
			}
		}
		p["scalar.db.storage"] = "multi-storage"
		p["scalar.db.multi_storage.storages"] = strings.Join(names, ",")
		p["scalar.db.multi_storage.namespace_mapping"] = strings.Join(mapping, ",")
	}
	maps.Copy(p, c.Properties)
	return p
}

func (c Config) schema(t testing.TB) []byte {
	t.Helper()
	tables := map[string]any{}
	for _, name := range c.Tables() {
		tables[name] = map[string]any{
			"transaction":   true,
			"partition-key": []string{"id"},
			"columns":       map[string]string{"id": "INT", "balance": "INT"},
		}
	}
	b, err := json.Marshal(tables)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// WriteProperties writes a Java properties file that only its owner can read, since it may hold passwords.
func WriteProperties(t testing.TB, dir, name string, properties map[string]string) string {
	t.Helper()
	escape := strings.NewReplacer(`\`, `\\`, "\n", `\n`, "=", `\=`, ":", `\:`)
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(properties)) {
		fmt.Fprintf(&b, "%s=%s\n", key, escape.Replace(properties[key]))
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatalf("writing the properties of Scalar DB: %v", err)
	}
	return path
}
