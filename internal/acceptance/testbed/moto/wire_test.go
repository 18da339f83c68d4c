//go:build acceptance

package moto

import (
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/awsapi"
	dynamo "github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/aws_dynamodb"
	cluster "github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/aws_rds_cluster"
	instance "github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/aws_rds_instance"
)

// TestWire: every operation that the product calls goes over the wire to moto, made by the product's own code, and moto's answer is read. Operations that moto lacks are in
// wrong, and nowhere else.
func TestWire(t *testing.T) {
	b := newBed(t)
	b.groups(t)
	t.Run("flows", func(t *testing.T) {
		for name, flow := range map[string]func(*testing.T){
			"credentials": b.credentialsFlow, "aws_rds_instance": b.instanceFlow, "aws_rds_cluster": b.clusterFlow, "aws_dynamodb": b.dynamoFlow, "s3": b.catalogFlow,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel() // most of their time they wait
				flow(t)
			})
		}
	})
	left := b.rdsInventory(t)
	slices.Sort(left)
	if want := []string{"cluster " + sourceCluster, "instance " + sourceCluster + "-1", "instance " + sourceInstance}; !slices.Equal(left, want) {
		t.Errorf("there are %q, and there were %q", left, want)
	}
	if t.Failed() {
		return
	}

	t.Run("coverage", func(t *testing.T) {
		product, answered, invented := operations(t), map[string]int{}, map[string]bool{}
		refusals := map[string]bool{}
		for _, c := range b.wire.Calls() {
			switch {
			case c.Invented:
				invented[c.Operation] = true
			case c.Status < http.StatusBadRequest:
				answered[c.Operation]++
			default:
				refusals[fmt.Sprintf("%s %d %s", c.Operation, c.Status, c.Code)] = true
			}
		}
		for _, o := range slices.Sorted(maps.Keys(product)) {
			if answered[o] == 0 && !invented[o] {
				t.Errorf("the product calls %s (%s), and no flow of this test does: let one, or add it to wrong if moto lacks it", o, product[o])
			}
		}
		for o := range answered {
			if product[o] == "" {
				t.Errorf("%s went over the wire, and nothing names it as a call of the product", o)
			}
		}
		for _, w := range wrong {
			if product[w.operation] == "" {
				t.Errorf("%s is in wrong, and the product does not call it", w.operation)
			}
		}
		t.Logf("answered: %v", answered)
		// What moto refused is what the flows ask for on purpose: none of it is an error of the server, nor of the shape of a request.
		if got := slices.Sorted(maps.Keys(refusals)); !slices.Equal(got, expected) {
			t.Errorf("moto refused\n%s\nand should have refused\n%s", strings.Join(got, "\n"), strings.Join(expected, "\n"))
		}
	})
	for _, w := range wrong {
		t.Run("still wrong/"+w.operation, func(t *testing.T) {
			if !w.still(t, b.direct) {
				t.Errorf("moto has learnt what was said of it (%s): remove the entry of %s from wrong, and what goes around it", w.why, w.operation)
			}
		})
	}
}

// expected are the refusals that the flows meet: of what is not there yet or any more, and of conditional writes.
var expected = []string{
	"dynamodb.DescribeBackup 400 BackupNotFoundException",
	"dynamodb.DescribeTable 400 ResourceNotFoundException",
	"rds.DescribeDBClusterSnapshots 404 DBClusterSnapshotNotFoundFault",
	"rds.DescribeDBClusters 404 DBClusterNotFoundFault",
	"rds.DescribeDBInstances 404 DBInstanceNotFound",
	"rds.DescribeDBSnapshots 404 DBSnapshotNotFound",
	"s3.CompleteMultipartUpload 412 PreconditionFailed",
	"s3.GetObject 404 NoSuchKey",
	"s3.HeadObject 404 ",
	"s3.ListParts 404 NoSuchUpload",
	"s3.PutObject 404 NoSuchKey",
	"s3.PutObject 412 PreconditionFailed",
}

// credentialsFlow is every way of getting credentials that calls AWS through the SDK.
func (b *bed) credentialsFlow(t *testing.T) {
	const role = "arn:aws:iam::" + Account + ":role/backup"
	assumed, web := b.settings(), b.settings()
	assumed.AssumeRole = []awsapi.AssumeRole{{RoleARN: role, SessionName: "scalardb", Duration: time.Hour, ExternalID: "x", Tags: map[string]string{"a": "b"}}}
	web.AccessKey, web.SecretKey, web.WebIdentity = "", "", &awsapi.WebIdentity{RoleARN: role, SessionName: "scalardb", Token: "header.body.signature"}
	for name, s := range map[string]awsapi.Settings{"assume_role": assumed, "assume_role_with_web_identity": web} {
		session, err := awsapi.Open(t.Context(), s)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if session.Account() != Account {
			t.Errorf("%s: account %s", name, session.Account())
		}
	}
}

// operations are those that the product calls, each with where it says so: the methods of the drivers' interfaces; for every service the inputs that its code makes; and
// what its libraries call for credentials.
func operations(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{
		"sts.GetCallerIdentity": "aws-sdk-go-base", "sts.AssumeRole": "aws-sdk-go-base", "sts.AssumeRoleWithWebIdentity": "aws-sdk-go-base",
	}
	for service, api := range map[string]reflect.Type{
		"rds aws_rds_instance": reflect.TypeFor[instance.API](), "rds aws_rds_cluster": reflect.TypeFor[cluster.API](),
		"dynamodb aws_dynamodb": reflect.TypeFor[dynamo.API](), "applicationautoscaling aws_dynamodb": reflect.TypeFor[dynamo.ScalingAPI](),
	} {
		service, where, _ := strings.Cut(service, " ")
		for m := range api.Methods() {
			found[service+"."+m.Name] = where + "'s interface"
		}
	}
	root := testbed.Root(t)
	err := filepath.WalkDir(filepath.Join(root, "internal"), func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (strings.HasSuffix(d.Name(), "test") || d.Name() == "acceptance"):
			return filepath.SkipDir // no part of the product
		case d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		calls, err := inputs(path)
		for _, c := range calls {
			found[c] = strings.TrimPrefix(path, root+"/")
		}
		return err
	})
	must(t, err)
	return found
}

const servicePath = "github.com/aws/aws-sdk-go-v2/service/"

// inputs are the operations whose inputs a source file names: "s3.PutObject" for s3.PutObjectInput.
func inputs(path string) (calls []string, err error) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	services := map[string]string{} // by the name that the file imports it as
	for _, i := range file.Imports {
		p, _ := strconv.Unquote(i.Path.Value)
		if service, ok := strings.CutPrefix(p, servicePath); ok && !strings.Contains(service, "/") {
			name := service
			if i.Name != nil {
				name = i.Name.Name
			}
			services[name] = service
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok && services[x.Name] != "" {
				if operation, ok := strings.CutSuffix(s.Sel.Name, "Input"); ok {
					calls = append(calls, services[x.Name]+"."+operation)
				}
			}
		}
		return true
	})
	return calls, nil
}

// TestOperation: requests that the SDK makes are named as the SDK names the calls; nothing else is.
func TestOperation(t *testing.T) {
	var got []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := make([]byte, max(r.ContentLength, 0))
		_, _ = r.Body.Read(body)
		got = append(got, Operation(r, body))
		w.WriteHeader(http.StatusTeapot)
	}))
	defer server.Close()
	d, ctx, bucket, key := newDirect(server.URL), context.Background(), new("bucket"), new("a/b c")
	_, _ = d.rds.DescribeDBInstances(ctx, &rds.DescribeDBInstancesInput{})
	_, _ = d.dynamo.ListTables(ctx, &dynamodb.ListTablesInput{})
	_, _ = d.s3.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: bucket})
	_, _ = d.s3.GetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: key})
	_, _ = d.s3.ListParts(ctx, &s3.ListPartsInput{Bucket: bucket, Key: key, UploadId: key})
	_, _ = d.s3.GetBucketPolicy(ctx, &s3.GetBucketPolicyInput{Bucket: bucket})
	want := []string{"rds.DescribeDBInstances", "dynamodb.ListTables", "s3.ListObjectsV2", "s3.GetObject", "s3.ListParts", "unknown GET /bucket?policy="}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
