// Package all is the registration of storages: one line each.
package all

import (
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage"
	awsdynamodb "github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/aws_dynamodb"
	awsrdscluster "github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/aws_rds_cluster"
	awsrdsinstance "github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/aws_rds_instance"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/mysql"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/postgresql"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/sqlite"
)

// Kinds lists every driver, by name.
func Kinds() []storage.Kind {
	return []storage.Kind{
		awsdynamodb.Kind{},
		awsrdscluster.Kind{},
		awsrdsinstance.Kind{},
		cassandra.Kind{},
		mysql.Kind{},
		postgresql.Kind{},
		sqlite.Kind{},
	}
}
