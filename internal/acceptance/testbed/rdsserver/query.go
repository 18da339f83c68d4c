package rdsserver

import (
	"fmt"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/aws/smithy-go"
	smithytime "github.com/aws/smithy-go/time"
	"github.com/aws/smithy-go/traits"
)

// node is a request's parameters as the tree that their dotted names mean.
type node struct {
	value string
	set   bool // a parameter has exactly this name
	kids  map[string]*node
}

func tree(form url.Values) (*node, error) {
	root := &node{}
	for name, values := range form {
		if name == "Action" || name == "Version" {
			continue
		}
		if len(values) != 1 {
			return nil, errorf("MalformedQueryString", 400, "parameter %s is there %d times", name, len(values))
		}
		n := root
		for part := range strings.SplitSeq(name, ".") {
			if n.kids == nil {
				n.kids = map[string]*node{}
			}
			if n.kids[part] == nil {
				n.kids[part] = &node{}
			}
			n = n.kids[part]
		}
		n.value, n.set = values[0], true
	}
	return root, nil
}

// decode fills one of the SDK's input structs from a request, by the SDK's schema of it. Parameters that the schema does not have are errors.
func decode(form url.Values, schema *smithy.Schema, into any) error {
	root, err := tree(form)
	if err != nil {
		return err
	}
	return root.assign(schema, reflect.ValueOf(into).Elem(), "")
}

func (n *node) assign(schema *smithy.Schema, v reflect.Value, path string) error {
	switch schema.Type() {
	case smithy.ShapeTypeStructure:
		return n.structure(schema, v, path)
	case smithy.ShapeTypeList:
		return n.list(schema, v, path)
	}
	if !n.set || n.kids != nil {
		return errorf("MalformedQueryString", 400, "parameter %s is no scalar", path)
	}
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	if err := scalar(n.value, v); err != nil {
		return errorf("InvalidParameterValue", 400, "Invalid value %q for %s: %v", n.value, path, err)
	}
	return nil
}

func scalar(text string, v reflect.Value) error {
	switch v.Interface().(type) {
	case time.Time:
		t, err := smithytime.ParseDateTime(text)
		if err == nil {
			v.Set(reflect.ValueOf(t))
		}
		return err
	case bool:
		b, err := strconv.ParseBool(text)
		v.SetBool(b)
		return err
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Int32, reflect.Int64:
		i, err := strconv.ParseInt(text, 10, v.Type().Bits())
		v.SetInt(i)
		return err
	case reflect.Float64:
		f, err := strconv.ParseFloat(text, 64)
		v.SetFloat(f)
		return err
	default:
		return fmt.Errorf("it is a %s, which this server cannot read", v.Type())
	}
	return nil
}

func (n *node) structure(schema *smithy.Schema, v reflect.Value, path string) error {
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	for name, kid := range n.kids {
		member := memberOf(schema, name)
		if member == nil {
			return errorf("InvalidParameterValue", 400, "there is no parameter %s", path+name)
		}
		field := v.FieldByName(strings.ToUpper(member.MemberName()[:1]) + member.MemberName()[1:])
		if !field.IsValid() || !field.CanSet() {
			// The SDK sends where a copy goes, for its own presigned URL's sake.
			if name == "DestinationRegion" {
				continue
			}
			return errorf("InvalidParameterValue", 400, "there is no parameter %s", path+name)
		}
		if err := kid.assign(member, field, path+name); err != nil {
			return err
		}
	}
	return nil
}

func memberOf(schema *smithy.Schema, name string) *smithy.Schema {
	for _, m := range schema.Members() {
		if wireName(m) == name {
			return m
		}
	}
	return nil
}

// wireName is what a member is called in requests and answers.
func wireName(schema *smithy.Schema) string {
	if t, ok := smithy.SchemaDirectTrait[*traits.XMLName](schema); ok {
		return t.Name
	}
	return schema.MemberName()
}

func (n *node) list(schema *smithy.Schema, v reflect.Value, path string) error {
	if n.set { // "Tags=": an empty list
		if n.value != "" || n.kids != nil {
			return errorf("MalformedQueryString", 400, "parameter %s is a list", path)
		}
		v.Set(reflect.MakeSlice(v.Type(), 0, 0))
		return nil
	}
	item := wireName(schema.ListMember())
	items := n.kids[item]
	if items == nil || len(n.kids) != 1 {
		return errorf("MalformedQueryString", 400, "parameter %s is no list of %s.N", path, item)
	}
	v.Set(reflect.MakeSlice(v.Type(), len(items.kids), len(items.kids)))
	for i := range len(items.kids) {
		at := strconv.Itoa(i + 1)
		kid := items.kids[at]
		if kid == nil {
			return errorf("MalformedQueryString", 400, "parameter %s.%s.%s is missing", path, item, at)
		}
		if err := kid.assign(schema.ListMember(), v.Index(i), path+"."+item+"."+at); err != nil {
			return err
		}
	}
	return nil
}

// missing says which of the required parameters an input does not have.
func missing(in any, required []string) error {
	v := reflect.ValueOf(in).Elem()
	for _, name := range required {
		if v.FieldByName(name).IsZero() {
			return errorf("MissingParameter", 400, "The request must contain the parameter %s", name)
		}
	}
	return nil
}

// take copies the fields of an input that dst has too, in whatever case, and refuses those that are set and that neither dst nor others name: this server
// has no model of them.
func take(dst, in any, others ...string) error {
	from, to := reflect.ValueOf(in).Elem(), reflect.ValueOf(dst).Elem()
	for i := range from.NumField() {
		field := from.Type().Field(i)
		if !field.IsExported() || from.Field(i).IsZero() {
			continue
		}
		if f := to.FieldByNameFunc(func(name string) bool { return strings.EqualFold(name, field.Name) }); f.IsValid() {
			f.Set(from.Field(i))
			continue
		}
		known := false
		for _, o := range others {
			known = known || o == field.Name
		}
		if !known {
			return errorf("InvalidParameterCombination", 400, "this stand-in has no model of the parameter %s", field.Name)
		}
	}
	return nil
}
