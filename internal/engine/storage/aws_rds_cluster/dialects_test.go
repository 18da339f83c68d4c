//go:build acceptance

package awsrdscluster

import (
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/mysql"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/postgresql"
)

var (
	postgresDialect = postgresql.Dialect{}
	mysqlDialect    = mysql.Dialect{}
)
