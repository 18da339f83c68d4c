//go:build acceptance

package handingover

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed"
)

// kind is what an argument takes.
type kind string

const (
	text    kind = "string"
	number  kind = "number"
	boolean kind = "bool"
	list    kind = "list or set of strings"
	mapping kind = "map of strings"
	block   kind = "block"  // at most one
	blocks  kind = "blocks" // any number
)

// argument is one argument or nested block of a resource.
type argument struct {
	kind     kind
	required bool
	nested   *schema // of blocks
}

// schema is the arguments of a resource, or of a block in one.
type schema struct{ arguments map[string]argument }

// provider is the version of hashicorp/aws whose schema it is.
const provider = "6.25.0"

// resources are those that setup.sh keeps, by the names of their modules.
var resources = map[string]string{
	"aws_db_instance": "db_instance", "aws_rds_cluster": "rds_cluster", "aws_rds_cluster_instance": "rds_cluster_instance", "aws_dynamodb_table": "dynamodb_table",
}

// read reads the schema of a resource type from the bindings that CDK for Terraform's generator made of the provider's schema.
func read(t *testing.T, resourceType string) *schema {
	t.Helper()
	module, ok := resources[resourceType]
	if !ok {
		t.Fatalf("no schema of %s is fetched: add it to fetch_awsschema in setup.sh, and to resources here", resourceType)
	}
	source, err := os.ReadFile(testbed.Cached(t, "awsschema", "bindings", module+".py"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := parse(string(source))
	if err != nil {
		t.Fatalf("reading the schema of %s: %v", resourceType, err)
	}
	return s
}

var (
	className = regexp.MustCompile(`(?m)^class (\w+)`)
	signature = regexp.MustCompile(`(?s)def __init__\((.*?)\) -> None:`)
	quoted    = regexp.MustCompile(`typing\.Union\["?(\w+)"?, typing\.Dict\[builtins\.str, typing\.Any\]\]`)
)

// parse finds the structs of a module: their constructors have one parameter for each argument. The one of the resource itself is called …Config.
func parse(source string) (*schema, error) {
	if !strings.Contains(source, "/hashicorp/aws/"+provider+"/docs/") {
		return nil, fmt.Errorf("it is not of hashicorp/aws %s", provider)
	}
	parameters := map[string]string{}
	config := ""
	for _, part := range strings.Split(source, "\n@jsii.data_type(")[1:] {
		name, params := className.FindStringSubmatch(part), signature.FindStringSubmatch(part)
		if name == nil || params == nil {
			return nil, fmt.Errorf("a struct without name or constructor: %.200s", part)
		}
		parameters[name[1]] = params[1]
		if strings.HasSuffix(name[1], "Config") && strings.Contains(part, "TerraformMetaArguments") {
			config = name[1]
		}
	}
	if config == "" {
		return nil, fmt.Errorf("it has no struct of the resource itself, among %d", len(parameters))
	}
	return build(parameters, config)
}

func build(parameters map[string]string, name string) (*schema, error) {
	params, ok := parameters[name]
	if !ok {
		return nil, fmt.Errorf("there is no struct %s", name)
	}
	s := &schema{map[string]argument{}}
	for _, p := range split(params) {
		name, of, ok := strings.Cut(p, ": ")
		if !ok || strings.Contains(of, "_cdktf_") && !strings.Contains(of, ".IResolvable") {
			continue // self, *, and what every resource has (count, lifecycle, …)
		}
		a, struc, err := argumentOf(of)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if struc != "" {
			if a.nested, err = build(parameters, struc); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
		s.arguments[name] = a
	}
	return s, nil
}

// argumentOf reads the type of a parameter, with the struct of a block.
func argumentOf(of string) (a argument, struc string, err error) {
	of, optional := strings.CutSuffix(of, " = None")
	a.required = !optional
	if inner, ok := strings.CutPrefix(of, "typing.Optional["); ok {
		of = strings.TrimSuffix(inner, "]")
	}
	found := quoted.FindStringSubmatch(of)
	switch {
	case found != nil && strings.Contains(of, "typing.Sequence["):
		a.kind, struc = blocks, found[1]
	case found != nil:
		a.kind, struc = block, found[1]
	case of == "builtins.str":
		a.kind = text
	case of == "jsii.Number":
		a.kind = number
	case strings.HasPrefix(of, "typing.Union[builtins.bool, "):
		a.kind = boolean
	case of == "typing.Sequence[builtins.str]":
		a.kind = list
	case of == "typing.Mapping[builtins.str, builtins.str]":
		a.kind = mapping
	default:
		err = fmt.Errorf("the type %s is not known", of)
	}
	return a, struc, err
}

// split cuts parameters at the commas that are in no brackets.
func split(params string) (out []string) {
	depth, from := 0, 0
	for i, c := range params {
		switch c {
		case '[', '(':
			depth++
		case ']', ')':
			depth--
		case ',':
			if depth == 0 {
				out, from = append(out, strings.TrimSpace(params[from:i])), i+1
			}
		}
	}
	return append(out, strings.TrimSpace(params[from:]))
}
