//go:build acceptance

package upload

import (
	"context"
	"testing"

	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/versitygw"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/catalog/s3"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/clock"
)

// TestAccS3 takes backups to a bucket and back, and deletes them.
func TestAccS3(t *testing.T) {
	server := versitygw.Start(t)
	client := server.Client()
	c, err := s3.New(s3.Settings{Bucket: server.Bucket(t, false), Prefix: "p"}, clock.System{}, func(context.Context) (*awss3.Client, error) { return client, nil })
	if err != nil {
		t.Fatal(err)
	}
	trip(t, c)
}
