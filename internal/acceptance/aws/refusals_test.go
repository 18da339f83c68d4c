//go:build acceptance

package aws

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/rds"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/cores"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/dynamo"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/adminserver"
)

// TestRefusals: what AWS would refuse, a plan refuses, and says what to do; nothing is made.
func TestRefusals(t *testing.T) {
	t.Parallel()
	c := startCloud(t, dynamo.Options{Factor: 300})
	c.instance(t, "prod-orders")
	c.dynamo.Seed(t, region, c.s3.AccessKey, c.s3.SecretKey, "prod.", 2)
	target, err := adminserver.Start(adminserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(target.Close)
	w := c.workspace(t, cores.Oldest(t), cores.NewMirror(t), target.Address(), nil)
	w.Init(t)
	w.Write(t, "backup.tf", "resource \"scalardb_consistent_backup\" \"release\" {\n  name = \"release\"\n  storages = {\n    orders = { aws_rds_instance = { identifier = \"prod-orders\" } }\n    events = { aws_dynamodb = { prefix = \"prod.\" } }\n  }\n}\n")
	w.Must(t, "apply", "-auto-approve", "-input=false", "-no-color")
	before := c.inventory()

	api := rds.NewFromConfig(c.rds.Config(c.s3.AccessKey, region))
	source, err := api.DescribeDBInstances(t.Context(), &rds.DescribeDBInstancesInput{DBInstanceIdentifier: new("prod-orders")})
	if err != nil {
		t.Fatal(err)
	}
	plan := func(orders, events, more string) (code int, said string) {
		t.Helper()
		w.Write(t, "restore.tf", `resource "scalardb_pitr_restore" "staging" {
  name         = "staging"
  pause_window = scalardb_consistent_backup.release.pause_window
  storages = {
    orders = { aws_rds_instance = { %s } }
    events = { aws_dynamodb = { %s } }
  }
  %s
}
`, orders, events, more)
		r := w.Run(t, "plan", "-input=false", "-no-color")
		return r.ExitCode, strings.Join(strings.Fields(strings.NewReplacer("│", " ", "╷", " ", "╵", " ").Replace(r.All())), " ")
	}
	const orders, events = `source_identifier = "prod-orders", identifier = "staging-orders"`, `source_prefix = "prod.", prefix = "staging."`
	for _, x := range []struct {
		name, orders, events, more string
		before                     func()
		want                       []string
	}{
		{name: "identifier taken", orders: `source_identifier = "prod-orders", identifier = "prod-orders"`, want: []string{"prod-orders"}},
		{name: "tables taken", events: `source_prefix = "prod.", prefix = "prod."`, want: []string{"exist already, and an existing table is never replaced", "choose another prefix"}},
		{name: "another instant", more: `restore_point = "2020-01-01T00:00:00Z"`, want: []string{"lies outside the safe interval"}},
		{name: "no such subnet group", orders: orders + `, db_subnet_group_name = "nowhere"`, want: []string{"nowhere"}},
		{name: "key of another region", events: events + `, kms_key_arn = "arn:aws:kms:eu-west-1:111111111111:key/00000000-0000-0000-0000-000000000000"`, want: []string{"a key works in its own region only"}},
		{name: "less storage", orders: orders + `, allocated_storage = 10`, want: []string{"storage can only grow"}},
		{name: "quota", before: func() { c.rds.SetQuotas(map[string]int64{"DBInstances": 1}) }, want: []string{"DB instances"}},
		{name: "outside of the retention", before: func() {
			c.rds.SetQuotas(map[string]int64{"DBInstances": 40})
			if err := c.rds.SetEarliest(*source.DBInstances[0].DbiResourceId, time.Now()); err != nil {
				t.Fatal(err)
			}
		}, want: []string{"Backup release is incomplete", "reach back to"}},
		{name: "source deleted", before: func() {
			_, err := api.DeleteDBInstance(t.Context(), &rds.DeleteDBInstanceInput{DBInstanceIdentifier: new("prod-orders"), SkipFinalSnapshot: new(true), DeleteAutomatedBackups: new(true)})
			if err != nil {
				t.Fatal(err)
			}
			until(t, "the source is still there", func() bool { return len(c.rds.Inventory()) == 0 })
		}, want: []string{"Backup release is incomplete"}},
	} {
		t.Run(x.name, func(t *testing.T) {
			if x.before != nil {
				x.before()
			}
			if x.orders == "" {
				x.orders = orders
			}
			if x.events == "" {
				x.events = events
			}
			code, said := plan(x.orders, x.events, x.more)
			if code != 1 {
				t.Fatalf("the plan's exit code is %d:\n%s", code, said)
			}
			for _, want := range x.want {
				if !strings.Contains(said, want) {
					t.Errorf("the plan does not say %q:\n%s", want, said)
				}
			}
			_, errors, _ := strings.Cut(said, "Error: ")
			t.Log("Error: " + errors)
		})
	}
	now := c.inventory()
	if got, want := len(now), len(before)-1; got != want {
		t.Errorf("there are %d things, want %d (without the deleted instance):\n%s", got, want, fmt.Sprint(now))
	}
}
