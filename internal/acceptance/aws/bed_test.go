//go:build acceptance

// Package aws runs the provider, under real cores, against stand-ins of AWS's APIs that keep real databases (see their packages for what they do not
// show), while a bank of real ScalarDB transactions writes to them: clones of whole systems, and what becomes of those that fail.
package aws

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/rds"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/cores"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/dynamo"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/rdsserver"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/versitygw"
)

const (
	account = "111111111111"
	region  = versitygw.Region
	release = "1.0.0"

	// How the source's database is reached.
	masterUser, masterPassword, databaseName = "admin1", `pa$s'w\ord:1`, "shop"
)

// limit of what is waited for.
const limit = 2 * time.Minute

// cloud is one account with a bucket for the catalog.
type cloud struct {
	dynamo *dynamo.Service
	rds    *rdsserver.Server
	s3     *versitygw.Server
	bucket string
}

func startCloud(t *testing.T, o dynamo.Options) *cloud {
	t.Helper()
	s3 := versitygw.Start(t)
	accounts := map[string]string{s3.AccessKey: account}
	o.Accounts = accounts
	return &cloud{
		s3: s3, bucket: s3.Bucket(t, false),
		dynamo: dynamo.Start(t, o),
		rds:    rdsserver.Start(t, rdsserver.Options{Accounts: accounts, Factor: 400}),
	}
}

// instance seeds a PostgreSQL instance with backups.
func (c *cloud) instance(t *testing.T, name string) (host string, port int) {
	t.Helper()
	client := rds.NewFromConfig(c.rds.Config(c.s3.AccessKey, region))
	_, err := client.CreateDBInstance(t.Context(), &rds.CreateDBInstanceInput{
		DBInstanceIdentifier: &name, Engine: new("postgres"), DBInstanceClass: new("db.m6g.large"), AllocatedStorage: new(int32(20)),
		MasterUsername: new(masterUser), MasterUserPassword: new(masterPassword), DBName: new(databaseName), BackupRetentionPeriod: new(int32(7)),
	})
	if err != nil {
		t.Fatal(err)
	}
	var found *rds.DescribeDBInstancesOutput
	until(t, "the instance is not available", func() bool {
		if found, err = client.DescribeDBInstances(t.Context(), &rds.DescribeDBInstancesInput{DBInstanceIdentifier: &name}); err != nil {
			t.Fatal(err)
		}
		return *found.DBInstances[0].DBInstanceStatus == "available"
	})
	e := found.DBInstances[0].Endpoint
	return *e.Address, int(*e.Port)
}

func until(t testing.TB, missing string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s after %s", missing, limit)
		}
	}
}

// inventory is everything that exists in the account, without what the catalog holds.
func (c *cloud) inventory() []string {
	var all []string
	for _, i := range c.rds.Inventory() {
		all = append(all, "rds "+i.Kind+" "+i.Region+" "+i.Identifier)
	}
	for _, i := range c.dynamo.Inventory() {
		if i.Settings["type"] == "SYSTEM" {
			continue // what DynamoDB keeps of a deleted table for 35 days, and charges nothing for
		}
		all = append(all, "dynamodb "+i.String())
	}
	slices.Sort(all)
	return all
}

// unchanged fails the test when something was left, or is gone.
func (c *cloud) unchanged(t *testing.T, before []string) {
	t.Helper()
	// What is being deleted takes its time.
	var now []string
	for deadline := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		if now = c.inventory(); slices.Equal(now, before) || time.Now().After(deadline) {
			break
		}
	}
	for _, i := range now {
		if !slices.Contains(before, i) {
			t.Errorf("left in the account: %s", i)
		}
	}
	for _, i := range before {
		if !slices.Contains(now, i) {
			t.Errorf("gone from the account: %s", i)
		}
	}
}

// workspace is one with a provider block over the cloud, for a pause of one target.
func (c *cloud) workspace(t *testing.T, core cores.Core, m *cores.Mirror, target string, logins map[string][2]string) *cores.Workspace {
	t.Helper()
	w := core.Workspace(t, m)
	c.provider(t, w, release, target, logins)
	return w
}

func (c *cloud) provider(t *testing.T, w *cores.Workspace, version, target string, logins map[string][2]string) {
	t.Helper()
	var entries strings.Builder
	for _, name := range slices.Sorted(maps.Keys(logins)) {
		fmt.Fprintf(&entries, "    %s = { username = %q, password = %q }\n", name, logins[name][0], strings.NewReplacer("${", "$${").Replace(logins[name][1]))
	}
	w.Write(t, "provider.tf", `terraform {
  required_providers {
    scalardb = { source = "scalar-labs/scalardb", version = %q }
  }
}
provider "scalardb" {
  pause = {
    targets       = { main = { addresses = [%q] } }
    drain_timeout = "10s"
    min_duration  = "5s"
    max_duration  = "60s"
  }
  catalog = { s3 = { bucket = %q, prefix = "scalardb" } }
  aws = {
    region            = %q
    access_key        = %q
    secret_key        = %q
    s3_use_path_style = true
    endpoints         = { s3 = %q, rds = %q, sts = %q, dynamodb = %q, applicationautoscaling = %q }
  }
  credentials = {
%s  }
}
`, version, target, c.bucket, region, c.s3.AccessKey, c.s3.SecretKey, c.s3.URL, c.rds.URL, c.rds.URL, c.dynamo.Endpoint(), c.dynamo.Endpoint(), entries.String())
}
