//go:build acceptance

// Package handingover checks the examples in which hashicorp/aws takes part, against the schema that is published of it: the provider itself is not fetched, so
// they are not run. The schema is read from generated bindings, which name every argument and block with its type; they do not tell a list from a set, nor limits of values.
package handingover

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/cores"
)

func schemas(t *testing.T) func(string) *schema {
	known := map[string]*schema{}
	return func(resourceType string) *schema {
		if known[resourceType] == nil {
			known[resourceType] = read(t, resourceType)
		}
		return known[resourceType]
	}
}

// TestExamples: the examples are valid, formatted, and say that they were not run.
func TestExamples(t *testing.T) {
	dir := filepath.Join(testbed.Root(t), "examples", "handing-over")
	files, err := filepath.Glob(filepath.Join(dir, "*", "main.tf"))
	if err != nil || len(files) < 2 {
		t.Fatalf("%d examples, %v", len(files), err)
	}
	schemaOf := schemas(t)
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name, _ := filepath.Rel(dir, file)
		checked, problems := check(source, name, schemaOf)
		if checked == 0 {
			t.Errorf("%s has no resource of hashicorp/aws", name)
		}
		for _, p := range problems {
			t.Errorf("%s: %s", name, p)
		}
		if !strings.Contains(string(source), "# This example was checked against the published schema of hashicorp/aws "+provider+". It was not run.\n") {
			t.Errorf("%s does not say that it was checked against the schema of hashicorp/aws %s, and not run", name, provider)
		}
	}
	format := exec.CommandContext(t.Context(), cores.Newest(t).Path, "fmt", "-no-color", "-check", "-diff", "-recursive", dir)
	format.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "CHECKPOINT_DISABLE=1", "TF_CLI_CONFIG_FILE=" + os.DevNull}
	if out, err := format.CombinedOutput(); err != nil {
		t.Errorf("not formatted (make fmt): %v\n%s", err, out)
	}
}

// TestSchema: what is well known of the resources is read so.
func TestSchema(t *testing.T) {
	schemaOf := schemas(t)
	for _, want := range []struct {
		resource, path string
		kind           kind
		required       bool
	}{
		{"aws_db_instance", "instance_class", text, true},
		{"aws_db_instance", "allocated_storage", number, false},
		{"aws_db_instance", "multi_az", boolean, false},
		{"aws_db_instance", "vpc_security_group_ids", list, false},
		{"aws_db_instance", "tags", mapping, false},
		{"aws_db_instance", "restore_to_point_in_time", block, false},
		{"aws_db_instance", "restore_to_point_in_time.restore_time", text, false},
		{"aws_rds_cluster", "engine", text, true},
		{"aws_rds_cluster", "restore_to_point_in_time.source_cluster_identifier", text, false},
		{"aws_rds_cluster", "serverlessv2_scaling_configuration.max_capacity", number, true},
		{"aws_rds_cluster_instance", "cluster_identifier", text, true},
		{"aws_dynamodb_table", "name", text, true},
		{"aws_dynamodb_table", "attribute", blocks, false},
		{"aws_dynamodb_table", "attribute.type", text, true},
		{"aws_dynamodb_table", "point_in_time_recovery", block, false},
		{"aws_dynamodb_table", "point_in_time_recovery.enabled", boolean, true},
		{"aws_dynamodb_table", "restore_date_time", text, false},
	} {
		s, got := schemaOf(want.resource), argument{}
		for part := range strings.SplitSeq(want.path, ".") {
			if s == nil {
				break
			}
			got = s.arguments[part]
			s = got.nested
		}
		if got.kind != want.kind || got.required != want.required {
			t.Errorf("%s.%s is read as a %s (required: %v)", want.resource, want.path, got.kind, got.required)
		}
	}
	for resource := range resources {
		for _, meta := range append(metaArguments, metaBlocks...) {
			if _, ok := schemaOf(resource).arguments[meta]; ok {
				t.Errorf("%s: %s is read as an argument of its own", resource, meta)
			}
		}
		if _, ok := schemaOf(resource).arguments["arn"]; ok {
			t.Errorf("%s: what is only computed is read as an argument", resource)
		}
	}
}

// TestCheck: what the provider would refuse is found.
func TestCheck(t *testing.T) {
	const good = `
resource "scalardb_pause_window" "w" { name = "w" }
resource "aws_db_instance" "x" {
  identifier     = "x-${1}"
  instance_class = "db.t4g.micro"
  multi_az       = true
  port           = 5432
  tags           = { a = "b" }
  vpc_security_group_ids = ["sg-1"]
  restore_to_point_in_time { restore_time = scalardb_pause_window.w.restore_point }
  lifecycle { ignore_changes = all }
}
resource "aws_dynamodb_table" "y" {
  name = "y"
  attribute {
    name = "a"
    type = "S"
  }
  attribute {
    name = "b"
    type = "S"
  }
}
import {
  to = aws_dynamodb_table.y
  id = "y"
}
`
	schemaOf := schemas(t)
	if checked, problems := check([]byte(good), "good.tf", schemaOf); checked != 2 || len(problems) > 0 {
		t.Fatalf("%d resources, %q", checked, problems)
	}
	for _, c := range []struct{ old, now, want string }{
		{`instance_class =`, `instance_klass =`, "aws_db_instance has no argument instance_klass"},
		{`instance_class = "db.t4g.micro"`, ``, "aws_db_instance needs instance_class"},
		{`port           = 5432`, `port = "5432"`, "port of aws_db_instance is a number, not a string"},
		{`multi_az       = true`, `multi_az = 1`, "multi_az of aws_db_instance is a bool, not a number"},
		{`["sg-1"]`, `"sg-1"`, "vpc_security_group_ids of aws_db_instance is a list or set of strings, not a string"},
		{`["sg-1"]`, `[1]`, "an element is a number"},
		{`{ a = "b" }`, `["b"]`, "tags of aws_db_instance is a map of strings"},
		{`restore_time =`, `restore_tyme =`, "aws_db_instance.restore_to_point_in_time has no argument restore_tyme"},
		{`restore_to_point_in_time {`, `restore_to_point_in_tyme {`, "aws_db_instance has no block restore_to_point_in_tyme"},
		{`restore_to_point_in_time {`, `restore_to_point_in_time = {`, "restore_to_point_in_time of aws_db_instance is a block, not an argument"},
		{`restore_to_point_in_time { restore_time`, "restore_to_point_in_time {\n}\n restore_to_point_in_time { restore_time", "one block restore_to_point_in_time at most"},
		{`w.restore_point`, `v.restore_point`, "there is no resource scalardb_pause_window.v"},
		{`w.restore_point`, `w.restore_pointe`, "the kind of scalardb_pause_window.w.restore_pointe is not known"},
		{`tags           = {`, `tags {`, "tags of aws_db_instance is an argument"},
		{`    type = "S"`, ``, "aws_dynamodb_table.attribute needs type"},
		{`id = "y"`, `id = "z"`, "imported by another id than its name"},
		{`to = aws_dynamodb_table.y`, `to = aws_dynamodb_table.z`, "there is no resource aws_dynamodb_table.z"},
		{`identifier     = "x-${1}"`, `arn = "x"`, "aws_db_instance has no argument arn"},
	} {
		_, problems := check([]byte(strings.Replace(good, c.old, c.now, 1)), "bad.tf", schemaOf)
		if !strings.Contains(good, c.old) || !strings.Contains(strings.Join(problems, "\n"), c.want) {
			t.Errorf("%s: %q, and not %q", c.now, problems, c.want)
		}
	}
}
