package rds

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/relational"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/mysql"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/postgresql"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
)

// Login is who reads through SQL: an entry of the provider's credentials. It is never printed.
type Login struct {
	Username, Password, CAPEM, CertPEM, KeyPEM string
}

// String keeps secrets out of logs and errors.
func (Login) String() string { return "(login)" }

// GoString is String.
func (Login) GoString() string { return "(login)" }

// The families of engines, by how ScalarDB and this provider speak to them.
const (
	FamilyPostgreSQL = "postgresql"
	FamilyMySQL      = "mysql"
	FamilyMariaDB    = "mariadb"
	FamilyOracle     = "oracle"
	FamilySQLServer  = "sqlserver"
	FamilyDb2        = "db2"
)

// Family is the family of an engine as RDS names it; ok is false for those that ScalarDB does not support.
func Family(engineName string) (family string, ok bool) {
	switch {
	case engineName == "postgres" || engineName == "aurora-postgresql":
		return FamilyPostgreSQL, true
	case engineName == "mysql" || engineName == "aurora-mysql":
		return FamilyMySQL, true
	case engineName == "mariadb":
		return FamilyMariaDB, true
	case strings.HasPrefix(engineName, "oracle-"):
		return FamilyOracle, true
	case strings.HasPrefix(engineName, "sqlserver-"):
		return FamilySQLServer, true
	case strings.HasPrefix(engineName, "db2-"):
		return FamilyDb2, true
	}
	return "", false
}

// Endpoint is how a database is reached.
type Endpoint struct {
	Engine   string // as RDS names it
	Host     string
	Port     int64
	Database string // of PostgreSQL; empty: "postgres"
}

// Address is "HOST:PORT".
func (e Endpoint) Address() string { return net.JoinHostPort(e.Host, strconv.FormatInt(e.Port, 10)) }

// Properties is what ScalarDB's JDBC adapter needs.
func (e Endpoint) Properties() map[string]string {
	family, _ := Family(e.Engine)
	at := ""
	switch family {
	case FamilyPostgreSQL:
		at = "jdbc:postgresql://" + e.Address() + "/" + e.database()
	case FamilyMySQL:
		at = "jdbc:mysql://" + e.Address() + "/"
	case FamilyMariaDB:
		at = "jdbc:mariadb://" + e.Address() + "/"
	case FamilyOracle:
		at = "jdbc:oracle:thin:@//" + e.Address() + "/" + e.Database
	case FamilySQLServer:
		at = "jdbc:sqlserver://" + e.Address() + ";encrypt=true"
	case FamilyDb2:
		at = "jdbc:db2://" + e.Address() + "/" + e.Database
	}
	return map[string]string{"storage": "jdbc", "contact_points": at}
}

func (e Endpoint) database() string {
	if e.Database == "" {
		return "postgres"
	}
	return e.Database
}

// Readable says whether verification and the write witness can read the engine.
func (e Endpoint) Readable() bool {
	family, _ := Family(e.Engine)
	return family == FamilyPostgreSQL || family == FamilyMySQL || family == FamilyMariaDB
}

// Open connects to the database. Where the login has a CA (AWS publishes RDS's as a bundle), the server's certificate and name are verified.
func (e Endpoint) Open(ctx context.Context, l Login, clock engine.Clock) (*sql.DB, relational.Dialect, error) {
	family, _ := Family(e.Engine)
	switch family {
	case FamilyPostgreSQL:
		db, err := postgresql.Open(ctx, postgresql.Settings{Host: e.Host, Port: e.Port, Database: e.database(), Clock: clock,
			Username: l.Username, Password: l.Password, CAPEM: l.CAPEM, CertPEM: l.CertPEM, KeyPEM: l.KeyPEM})
		return db, postgresql.Dialect{}, err
	case FamilyMySQL, FamilyMariaDB:
		db, err := mysql.Open(ctx, mysql.Config{Host: e.Host, Port: e.Port}, mysql.Options{Clock: clock,
			Login: mysql.Login{Username: l.Username, Password: l.Password, CAPEM: l.CAPEM, CertPEM: l.CertPEM, KeyPEM: l.KeyPEM}})
		return db, mysql.Dialect{}, err
	}
	return nil, nil, fmt.Errorf("reading a database of engine %s: this release of the provider cannot; switch verify off for it (verify = { enabled = false })", e.Engine)
}

// Reader opens what verification reads.
func (e Endpoint) Reader(ctx context.Context, l *Login, layout relational.Layout, clock engine.Clock) (verify.Storage, error) {
	if l == nil {
		return nil, fmt.Errorf("reading the database at %s: there is no entry for it in the provider's credentials: add one, and name it with the argument credentials", e.Address())
	}
	db, d, err := e.Open(ctx, *l, clock)
	if err != nil {
		return nil, err
	}
	return relational.NewReader(db, d, layout, db.Close), nil
}
