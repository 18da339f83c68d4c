//go:build acceptance

package handingover

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// metaArguments and metaBlocks are those that Terraform itself gives every resource.
var (
	metaArguments = []string{"count", "depends_on", "for_each", "provider"}
	metaBlocks    = []string{"lifecycle"}
)

// identities are the arguments whose value is the import id, as the provider's documentation of each resource has it under "Import".
var identities = map[string]string{
	"aws_db_instance": "identifier", "aws_rds_cluster": "cluster_identifier", "aws_rds_cluster_instance": "identifier", "aws_dynamodb_table": "name",
}

// references are the attributes of this provider that the examples give to others.
var references = map[string]kind{"scalardb_pause_window.restore_point": text}

// checker collects what is wrong with one file.
type checker struct {
	schema   func(resourceType string) *schema
	resource map[string]*hclsyntax.Body // by "TYPE.NAME"
	checked  int
	problems []string
}

func (c *checker) say(at hcl.Range, format string, args ...any) {
	c.problems = append(c.problems, fmt.Sprintf("line %d: ", at.Start.Line)+fmt.Sprintf(format, args...))
}

// check looks at all resources of hashicorp/aws in a file, and at the blocks that import them.
func check(source []byte, name string, schemaOf func(resourceType string) *schema) (checked int, problems []string) {
	c := &checker{schema: schemaOf, resource: map[string]*hclsyntax.Body{}}
	file, diags := hclsyntax.ParseConfig(source, name, hcl.InitialPos)
	if diags.HasErrors() {
		return 0, []string{diags.Error()}
	}
	body := file.Body.(*hclsyntax.Body)
	for _, b := range body.Blocks {
		if b.Type == "resource" && len(b.Labels) == 2 {
			c.resource[b.Labels[0]+"."+b.Labels[1]] = b.Body
		}
	}
	for _, b := range body.Blocks {
		switch {
		case b.Type == "resource" && len(b.Labels) == 2 && strings.HasPrefix(b.Labels[0], "aws_"):
			c.checked++
			c.body(b.Labels[0], b.Body, c.schema(b.Labels[0]), b.DefRange(), true)
		case b.Type == "import":
			c.imports(b)
		}
	}
	return c.checked, c.problems
}

// body checks the arguments and blocks of a resource, or of a block in one.
func (c *checker) body(path string, b *hclsyntax.Body, s *schema, at hcl.Range, top bool) {
	given := map[string]int{}
	for _, name := range slices.Sorted(maps.Keys(b.Attributes)) {
		a := b.Attributes[name]
		if top && slices.Contains(metaArguments, name) {
			continue
		}
		given[name]++
		want, ok := s.arguments[name]
		switch {
		case !ok:
			c.say(a.NameRange, "%s has no argument %s", path, name)
		case want.nested != nil:
			c.say(a.NameRange, "%s of %s is a block, not an argument", name, path)
		default:
			got, err := c.kind(a.Expr)
			if err != nil {
				c.say(a.Expr.Range(), "%s of %s: %v", name, path, err)
			} else if got != "" && got != want.kind {
				c.say(a.Expr.Range(), "%s of %s is a %s, not a %s", name, path, want.kind, got)
			}
		}
	}
	for _, n := range b.Blocks {
		if top && slices.Contains(metaBlocks, n.Type) {
			continue
		}
		given[n.Type]++
		want, ok := s.arguments[n.Type]
		switch {
		case !ok:
			c.say(n.DefRange(), "%s has no block %s", path, n.Type)
		case want.nested == nil:
			c.say(n.DefRange(), "%s of %s is an argument (%s), not a block", n.Type, path, want.kind)
		case len(n.Labels) > 0:
			c.say(n.DefRange(), "block %s of %s takes no labels", n.Type, path)
		case want.kind == block && given[n.Type] > 1:
			c.say(n.DefRange(), "%s has one block %s at most", path, n.Type)
		default:
			c.body(path+"."+n.Type, n.Body, want.nested, n.DefRange(), false)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.arguments)) {
		if s.arguments[name].required && given[name] == 0 {
			c.say(at, "%s needs %s", path, name)
		}
	}
}

// kind is that of an expression; empty for null. What it cannot tell is an error: an example is simple enough.
func (c *checker) kind(e hclsyntax.Expression) (kind, error) {
	if t, ok := e.(*hclsyntax.ScopeTraversalExpr); ok {
		return c.reference(t.Traversal)
	}
	if v, diags := e.Value(nil); !diags.HasErrors() {
		return kindOf(v)
	}
	if _, ok := e.(*hclsyntax.TemplateExpr); ok {
		return text, nil
	}
	return "", fmt.Errorf("what kind of expression this is, cannot be told: %T", e)
}

func kindOf(v cty.Value) (kind, error) {
	switch t := v.Type(); {
	case v.IsNull():
		return "", nil
	case t == cty.String:
		return text, nil
	case t == cty.Number:
		return number, nil
	case t == cty.Bool:
		return boolean, nil
	case t.IsTupleType(), t.IsObjectType():
		for it := v.ElementIterator(); it.Next(); {
			if _, e := it.Element(); e.Type() != cty.String {
				return "", fmt.Errorf("an element is a %s, not a string", e.Type().FriendlyName())
			}
		}
		if t.IsTupleType() {
			return list, nil
		}
		return mapping, nil
	default:
		return "", fmt.Errorf("no argument is a %s", t.FriendlyName())
	}
}

// reference is the kind of an attribute of another resource in the file.
func (c *checker) reference(t hcl.Traversal) (kind, error) {
	var parts []string
	for _, step := range t {
		switch s := step.(type) {
		case hcl.TraverseRoot:
			parts = append(parts, s.Name)
		case hcl.TraverseAttr:
			parts = append(parts, s.Name)
		}
	}
	if len(parts) != 3 || len(t) != 3 {
		return "", fmt.Errorf("a reference that is not TYPE.NAME.ATTRIBUTE: %s", strings.Join(parts, "."))
	}
	if c.resource[parts[0]+"."+parts[1]] == nil {
		return "", fmt.Errorf("there is no resource %s.%s", parts[0], parts[1])
	}
	if k, ok := references[parts[0]+"."+parts[2]]; ok {
		return k, nil
	}
	if _, ok := identities[parts[0]]; ok {
		if a, ok := c.schema(parts[0]).arguments[parts[2]]; ok && a.nested == nil {
			return a.kind, nil
		}
	}
	return "", fmt.Errorf("the kind of %s is not known here: add it to references", strings.Join(parts, "."))
}

// imports checks that a resource is imported by the id that its own arguments say.
func (c *checker) imports(b *hclsyntax.Block) {
	to, id := b.Body.Attributes["to"], b.Body.Attributes["id"]
	if to == nil || id == nil {
		c.say(b.DefRange(), "an import needs to and id")
		return
	}
	t, diags := hcl.AbsTraversalForExpr(to.Expr)
	if diags.HasErrors() || len(t) != 2 {
		c.say(to.Range(), "to is no resource of this file")
		return
	}
	resourceType, name := t.RootName(), t[1].(hcl.TraverseAttr).Name
	argument, known := identities[resourceType]
	resource := c.resource[resourceType+"."+name]
	switch {
	case !strings.HasPrefix(resourceType, "aws_"):
		return
	case !known:
		c.say(to.Range(), "which id imports a %s is not known here: add it to identities", resourceType)
	case resource == nil:
		c.say(to.Range(), "there is no resource %s.%s", resourceType, name)
	case resource.Attributes[argument] == nil:
		c.say(to.Range(), "%s.%s has no %s, by which it is imported", resourceType, name, argument)
	default:
		want, wantDiags := resource.Attributes[argument].Expr.Value(nil)
		got, gotDiags := id.Expr.Value(nil)
		if wantDiags.HasErrors() || gotDiags.HasErrors() || !got.RawEquals(want) {
			c.say(id.Range(), "%s.%s is imported by another id than its %s", resourceType, name, argument)
		}
	}
}
