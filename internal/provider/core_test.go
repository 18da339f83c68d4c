package provider

import (
	"context"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/terraform-plugin-framework/providerserver"
	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// object is a configuration or a state as tests write it: Go values, nil for null, unknown for what is not known yet.
type object = map[string]any

type unknownValue struct{}

var unknown unknownValue

// core stands in for Terraform: it speaks the protocol to a provider in this process, and does what a core does around it.
type core struct {
	t      *testing.T
	server tfprotov6.ProviderServer
	schema *tfprotov6.GetProviderSchemaResponse
}

// newCore configures a provider. Warnings and errors of Configure are returned.
func newCore(t *testing.T, deps Dependencies, config object) (*core, []*tfprotov6.Diagnostic) {
	t.Helper()
	server, err := providerserver.NewProtocol6WithError(New(deps)())()
	if err != nil {
		t.Fatal(err)
	}
	schema, err := server.GetProviderSchema(context.Background(), &tfprotov6.GetProviderSchemaRequest{})
	if err != nil {
		t.Fatal(err)
	}
	c := &core{t: t, server: server, schema: schema}
	v := c.dynamic(schema.Provider.ValueType(), value(t, schema.Provider.ValueType(), config))
	valid, err := server.ValidateProviderConfig(context.Background(), &tfprotov6.ValidateProviderConfigRequest{Config: v})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := server.ConfigureProvider(context.Background(), &tfprotov6.ConfigureProviderRequest{TerraformVersion: "1.11.4", Config: v})
	if err != nil {
		t.Fatal(err)
	}
	return c, append(valid.Diagnostics, resp.Diagnostics...)
}

// value builds a value of a type from Go values.
func value(t *testing.T, typ tftypes.Type, v any) tftypes.Value {
	t.Helper()
	switch v := v.(type) {
	case nil:
		return tftypes.NewValue(typ, nil)
	case unknownValue:
		return tftypes.NewValue(typ, tftypes.UnknownValue)
	case tftypes.Value:
		return v
	case int:
		return tftypes.NewValue(typ, big.NewFloat(float64(v)))
	case string, bool:
		return tftypes.NewValue(typ, v)
	case []any:
		out := []tftypes.Value{}
		for _, e := range v {
			out = append(out, value(t, typ.(tftypes.List).ElementType, e))
		}
		return tftypes.NewValue(typ, out)
	case object:
		out := map[string]tftypes.Value{}
		switch typ := typ.(type) {
		case tftypes.Map:
			for name, e := range v {
				out[name] = value(t, typ.ElementType, e)
			}
		case tftypes.Object:
			for name := range v {
				if typ.AttributeTypes[name] == nil {
					t.Fatalf("there is no attribute %q in %s", name, typ)
				}
			}
			for name, at := range typ.AttributeTypes {
				out[name] = value(t, at, v[name])
			}
		}
		return tftypes.NewValue(typ, out)
	}
	t.Fatalf("value of type %T", v)
	return tftypes.Value{}
}

func (c *core) dynamic(typ tftypes.Type, v tftypes.Value) *tfprotov6.DynamicValue {
	c.t.Helper()
	d, err := tfprotov6.NewDynamicValue(typ, v)
	if err != nil {
		c.t.Fatal(err)
	}
	return &d
}

func (c *core) value(typ tftypes.Type, d *tfprotov6.DynamicValue) tftypes.Value {
	c.t.Helper()
	if d == nil {
		return tftypes.NewValue(typ, nil)
	}
	v, err := d.Unmarshal(typ)
	if err != nil {
		c.t.Fatal(err)
	}
	return v
}

// instance is one resource instance: what a state file keeps of it.
type instance struct {
	core    *core
	typ     string
	state   tftypes.Value
	private []byte
	tainted bool
}

// manage starts with a resource that does not exist.
func (c *core) manage(typ string) *instance {
	i := &instance{core: c, typ: typ}
	i.state = tftypes.NewValue(i.schemaType(), nil)
	return i
}

func (i *instance) schemaType() tftypes.Type { return i.core.schema.ResourceSchemas[i.typ].ValueType() }

// get reads an attribute of the state: "pause_window.restore_point".
func (i *instance) get(path string) any {
	i.core.t.Helper()
	return goValue(i.core.t, at(i.core.t, i.state, path))
}

func at(t *testing.T, v tftypes.Value, path string) tftypes.Value {
	t.Helper()
	for _, name := range strings.Split(path, ".") {
		if v.IsNull() {
			return v
		}
		if !v.IsKnown() {
			t.Fatalf("%s is unknown", path)
		}
		if v.Type().Is(tftypes.List{}) {
			var l []tftypes.Value
			if err := v.As(&l); err != nil {
				t.Fatal(err)
			}
			var n int
			if _, err := fmt.Sscan(name, &n); err != nil || n >= len(l) {
				t.Fatalf("no element %s in %s", name, path)
			}
			v = l[n]
			continue
		}
		var m map[string]tftypes.Value
		if err := v.As(&m); err != nil {
			t.Fatal(err)
		}
		next, ok := m[name]
		if !ok {
			t.Fatalf("no %q in %s", name, path)
		}
		v = next
	}
	return v
}

func goValue(t *testing.T, v tftypes.Value) any {
	t.Helper()
	switch {
	case v.IsNull():
		return nil
	case !v.IsKnown():
		return unknown
	case v.Type().Is(tftypes.String):
		var s string
		_ = v.As(&s)
		return s
	case v.Type().Is(tftypes.Bool):
		var b bool
		_ = v.As(&b)
		return b
	case v.Type().Is(tftypes.Number):
		var n big.Float
		_ = v.As(&n)
		i, _ := n.Int64()
		return int(i)
	}
	return v
}

// diagnostics are what a step said.
type diagnostics []*tfprotov6.Diagnostic

func (d diagnostics) errors() (out []string) { return d.of(tfprotov6.DiagnosticSeverityError) }

func (d diagnostics) warnings() (out []string) { return d.of(tfprotov6.DiagnosticSeverityWarning) }

func (d diagnostics) of(s tfprotov6.DiagnosticSeverity) (out []string) {
	for _, e := range d {
		if e.Severity == s {
			out = append(out, fmt.Sprintf("%s: %s [%s]", e.Summary, e.Detail, e.Attribute))
		}
	}
	return out
}

func (d diagnostics) has(text string) bool {
	return slices.ContainsFunc(append(d.errors(), d.warnings()...), func(s string) bool { return strings.Contains(s, text) })
}

func (i *instance) validate(config object) diagnostics {
	i.core.t.Helper()
	resp, err := i.core.server.ValidateResourceConfig(context.Background(), &tfprotov6.ValidateResourceConfigRequest{TypeName: i.typ,
		Config:             i.core.dynamic(i.schemaType(), value(i.core.t, i.schemaType(), config)),
		ClientCapabilities: &tfprotov6.ValidateResourceConfigClientCapabilities{WriteOnlyAttributesAllowed: true}})
	if err != nil {
		i.core.t.Fatal(err)
	}
	return resp.Diagnostics
}

// planned is one plan of one instance.
type planned struct {
	action  string // "no-op", "create", "update", "replace", "delete"
	value   tftypes.Value
	private []byte
	config  tftypes.Value
	diags   diagnostics
}

// plan does what core does: refresh is a step of its own. A nil config plans a destroy.
func (i *instance) plan(config object) planned {
	i.core.t.Helper()
	cfg := tftypes.NewValue(i.schemaType(), nil)
	if config != nil {
		cfg = value(i.core.t, i.schemaType(), config)
	}
	prior := i.state
	if i.tainted {
		prior = tftypes.NewValue(i.schemaType(), nil)
	}
	resp := i.planOnce(prior, cfg)
	p := planned{value: i.core.value(i.schemaType(), resp.PlannedState), private: resp.PlannedPrivate, config: cfg, diags: resp.Diagnostics}
	switch {
	case len(p.diags.errors()) > 0:
	case config == nil:
		p.action = "delete"
	case i.state.IsNull():
		p.action = "create"
	case i.tainted:
		p.action = "replace"
	case len(resp.RequiresReplace) > 0 && i.really(resp.RequiresReplace, p.value):
		p.action = "replace"
		again := i.planOnce(tftypes.NewValue(i.schemaType(), nil), cfg)
		p.value, p.private, p.diags = i.core.value(i.schemaType(), again.PlannedState), again.PlannedPrivate, append(p.diags, again.Diagnostics...)
	case p.value.Equal(i.state):
		p.action = "no-op"
	default:
		p.action = "update"
	}
	return p
}

// really says whether one of the attributes differs: core replaces only then.
func (i *instance) really(paths []*tftypes.AttributePath, plan tftypes.Value) bool {
	for _, p := range paths {
		was, _, err1 := tftypes.WalkAttributePath(i.state, p)
		is, _, err2 := tftypes.WalkAttributePath(plan, p)
		if err1 != nil || err2 != nil {
			return true
		}
		if w, ok := was.(tftypes.Value); !ok || !w.Equal(is.(tftypes.Value)) {
			return true
		}
	}
	return false
}

func (i *instance) planOnce(prior, config tftypes.Value) *tfprotov6.PlanResourceChangeResponse {
	i.core.t.Helper()
	proposed := config
	if !config.IsNull() {
		proposed = i.proposed(prior, config)
	}
	resp, err := i.core.server.PlanResourceChange(context.Background(), &tfprotov6.PlanResourceChangeRequest{TypeName: i.typ, PriorPrivate: i.private,
		PriorState: i.core.dynamic(i.schemaType(), prior), ProposedNewState: i.core.dynamic(i.schemaType(), proposed), Config: i.core.dynamic(i.schemaType(), config)})
	if err != nil {
		i.core.t.Fatal(err)
	}
	return resp
}

// proposed is the configuration, with the prior values of computed attributes that are not configured. Write-only values are dropped.
func (i *instance) proposed(prior, config tftypes.Value) tftypes.Value {
	i.core.t.Helper()
	var c, p map[string]tftypes.Value
	if err := config.As(&c); err != nil {
		i.core.t.Fatal(err)
	}
	if !prior.IsNull() {
		if err := prior.As(&p); err != nil {
			i.core.t.Fatal(err)
		}
	}
	out := map[string]tftypes.Value{}
	for _, a := range i.core.schema.ResourceSchemas[i.typ].Block.Attributes {
		out[a.Name] = c[a.Name]
		if a.Computed && c[a.Name].IsNull() && p != nil {
			out[a.Name] = p[a.Name]
		}
	}
	v, err := tftypes.Transform(tftypes.NewValue(i.schemaType(), out), func(p *tftypes.AttributePath, v tftypes.Value) (tftypes.Value, error) {
		if last, ok := p.LastStep().(tftypes.AttributeName); ok && last == "key_pem" {
			return tftypes.NewValue(v.Type(), nil), nil
		}
		return v, nil
	})
	if err != nil {
		i.core.t.Fatal(err)
	}
	return v
}

// apply applies a plan, and keeps the state and taint as core does.
func (i *instance) apply(p planned) diagnostics { return i.applyContext(context.Background(), p) }

func (i *instance) applyContext(ctx context.Context, p planned) diagnostics {
	i.core.t.Helper()
	var all diagnostics
	null := tftypes.NewValue(i.schemaType(), nil)
	if p.action == "delete" || p.action == "replace" {
		all = append(all, i.change(ctx, i.state, null, null, i.private)...)
		if len(all.errors()) > 0 || p.action == "delete" {
			return all
		}
	}
	if p.action == "no-op" {
		return nil
	}
	return append(all, i.change(ctx, i.state, p.value, p.config, p.private)...)
}

func (i *instance) change(ctx context.Context, prior, plan, config tftypes.Value, private []byte) diagnostics {
	i.core.t.Helper()
	resp, err := i.core.server.ApplyResourceChange(ctx, &tfprotov6.ApplyResourceChangeRequest{TypeName: i.typ, PlannedPrivate: private,
		PriorState: i.core.dynamic(i.schemaType(), prior), PlannedState: i.core.dynamic(i.schemaType(), plan), Config: i.core.dynamic(i.schemaType(), config)})
	if err != nil {
		i.core.t.Fatal(err)
	}
	state := i.core.value(i.schemaType(), resp.NewState)
	failed := len(diagnostics(resp.Diagnostics).errors()) > 0
	if !state.IsFullyKnown() {
		i.core.t.Errorf("%s: the state holds unknown values after apply: %s", i.typ, state)
	}
	if !failed && !plan.IsNull() {
		i.conforms(plan, state)
	}
	i.tainted = failed && prior.IsNull() && !state.IsNull()
	i.state, i.private = state, resp.Private
	return resp.Diagnostics
}

// conforms is core's rule that an apply keeps what the plan had known.
func (i *instance) conforms(plan, state tftypes.Value) {
	i.core.t.Helper()
	diffs, err := plan.Diff(state)
	if err != nil {
		i.core.t.Fatal(err)
	}
	for _, d := range diffs {
		if d.Value1 != nil && d.Value1.IsFullyKnown() && (d.Value2 == nil || !d.Value1.Equal(*d.Value2)) {
			i.core.t.Errorf("provider produced inconsistent result after apply: %s was planned as %s, is %s", d.Path, d.Value1, d.Value2)
		}
	}
}

// refresh reads the resource.
func (i *instance) refresh() diagnostics {
	i.core.t.Helper()
	resp, err := i.core.server.ReadResource(context.Background(), &tfprotov6.ReadResourceRequest{TypeName: i.typ, CurrentState: i.core.dynamic(i.schemaType(), i.state), Private: i.private})
	if err != nil {
		i.core.t.Fatal(err)
	}
	if len(diagnostics(resp.Diagnostics).errors()) == 0 {
		i.state, i.private = i.core.value(i.schemaType(), resp.NewState), resp.Private
	}
	return resp.Diagnostics
}

// create plans and applies a new resource, which must work.
func (i *instance) create(config object) *instance {
	i.core.t.Helper()
	if d := i.validate(config); len(d.errors()) > 0 {
		i.core.t.Fatalf("validate: %s", d.errors())
	}
	p := i.plan(config)
	if p.action != "create" {
		i.core.t.Fatalf("planned %q: %s", p.action, p.diags.errors())
	}
	if d := i.apply(p); len(d.errors()) > 0 {
		i.core.t.Fatalf("apply: %s", strings.Join(d.errors(), "\n"))
	}
	return i
}

// importID imports, and refreshes as core does.
func (c *core) importID(typ, id string) (*instance, diagnostics) {
	c.t.Helper()
	i := c.manage(typ)
	resp, err := c.server.ImportResourceState(context.Background(), &tfprotov6.ImportResourceStateRequest{TypeName: typ, ID: id})
	if err != nil {
		c.t.Fatal(err)
	}
	if d := diagnostics(resp.Diagnostics); len(d.errors()) > 0 {
		return i, d
	}
	i.state, i.private = c.value(i.schemaType(), resp.ImportedResources[0].State), resp.ImportedResources[0].Private
	return i, append(resp.Diagnostics, i.refresh()...)
}

// data reads a data source.
func (c *core) data(typ string, config object) (tftypes.Value, diagnostics) {
	c.t.Helper()
	s := c.schema.DataSourceSchemas[typ].ValueType()
	v := c.dynamic(s, value(c.t, s, config))
	valid, err := c.server.ValidateDataResourceConfig(context.Background(), &tfprotov6.ValidateDataResourceConfigRequest{TypeName: typ, Config: v})
	if err != nil {
		c.t.Fatal(err)
	}
	if d := diagnostics(valid.Diagnostics); len(d.errors()) > 0 {
		return tftypes.Value{}, d
	}
	resp, err := c.server.ReadDataSource(context.Background(), &tfprotov6.ReadDataSourceRequest{TypeName: typ, Config: v})
	if err != nil {
		c.t.Fatal(err)
	}
	return c.value(s, resp.State), resp.Diagnostics
}

// call calls a function.
func (c *core) call(name string, args ...tftypes.Value) (tftypes.Value, *tfprotov6.FunctionError) {
	c.t.Helper()
	var dynamic []*tfprotov6.DynamicValue
	for _, a := range args {
		dynamic = append(dynamic, c.dynamic(a.Type(), a))
	}
	resp, err := c.server.CallFunction(context.Background(), &tfprotov6.CallFunctionRequest{Name: name, Arguments: dynamic})
	if err != nil {
		c.t.Fatal(err)
	}
	if resp.Error != nil {
		return tftypes.Value{}, resp.Error
	}
	return c.value(c.schema.Functions[name].Return.Type, resp.Result), nil
}
