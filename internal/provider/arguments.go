package provider

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/big"

	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// encodeObject writes an object's arguments as JSON, as typed; null ones are left out, so that a manifest does not age when a driver gains arguments.
func encodeObject(ctx context.Context, v types.Object) (json.RawMessage, error) {
	t, err := v.ToTerraformValue(ctx)
	if err != nil {
		return nil, fmt.Errorf("encoding arguments: %w", err)
	}
	plain, err := toPlain(t)
	if err != nil {
		return nil, fmt.Errorf("encoding arguments: %w", err)
	}
	data, err := json.Marshal(plain)
	if err != nil {
		return nil, fmt.Errorf("encoding arguments: %w", err)
	}
	return data, nil
}

func toPlain(v tftypes.Value) (any, error) {
	if !v.IsKnown() {
		return nil, fmt.Errorf("a value is unknown")
	}
	if v.IsNull() {
		return nil, nil
	}
	t := v.Type()
	switch {
	case t.Is(tftypes.String):
		var s string
		err := v.As(&s)
		return s, err
	case t.Is(tftypes.Bool):
		var b bool
		err := v.As(&b)
		return b, err
	case t.Is(tftypes.Number):
		n := new(big.Float)
		if err := v.As(&n); err != nil {
			return nil, err
		}
		return json.Number(n.Text('f', -1)), nil
	case t.Is(tftypes.List{}), t.Is(tftypes.Set{}), t.Is(tftypes.Tuple{}):
		var elements []tftypes.Value
		if err := v.As(&elements); err != nil {
			return nil, err
		}
		out := make([]any, 0, len(elements))
		for _, e := range elements {
			p, err := toPlain(e)
			if err != nil {
				return nil, err
			}
			out = append(out, p)
		}
		return out, nil
	case t.Is(tftypes.Map{}), t.Is(tftypes.Object{}):
		var elements map[string]tftypes.Value
		if err := v.As(&elements); err != nil {
			return nil, err
		}
		out := make(map[string]any, len(elements))
		for name, e := range elements {
			p, err := toPlain(e)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			if p != nil {
				out[name] = p
			}
		}
		return out, nil
	}
	return nil, fmt.Errorf("a value of type %s has no JSON form here", t)
}

// decodeObject reads what encodeObject wrote into an object of the given type. Arguments that are not in data are null; arguments that
// the type does not have (a later release's) are an error.
func decodeObject(ctx context.Context, data json.RawMessage, t types.ObjectType) (types.Object, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var plain any
	if err := d.Decode(&plain); err != nil {
		return types.ObjectNull(t.AttrTypes), fmt.Errorf("decoding arguments: %w", err)
	}
	v, err := fromPlain(plain, t.TerraformType(ctx))
	if err != nil {
		return types.ObjectNull(t.AttrTypes), fmt.Errorf("decoding arguments: %w", err)
	}
	var out attr.Value
	out, err = t.ValueFromTerraform(ctx, v)
	if err != nil {
		return types.ObjectNull(t.AttrTypes), fmt.Errorf("decoding arguments: %w", err)
	}
	o, ok := out.(types.Object)
	if !ok {
		return types.ObjectNull(t.AttrTypes), fmt.Errorf("decoding arguments: got a %T", out)
	}
	return o, nil
}

func fromPlain(plain any, t tftypes.Type) (tftypes.Value, error) {
	if plain == nil {
		return tftypes.NewValue(t, nil), nil
	}
	mismatch := fmt.Errorf("%T does not fit %s", plain, t)
	switch typed := t.(type) {
	case tftypes.Object:
		m, ok := plain.(map[string]any)
		if !ok {
			return tftypes.Value{}, mismatch
		}
		for name := range m {
			if _, known := typed.AttributeTypes[name]; !known {
				return tftypes.Value{}, fmt.Errorf("the argument %q is not known to this release", name)
			}
		}
		out := make(map[string]tftypes.Value, len(typed.AttributeTypes))
		for name, at := range typed.AttributeTypes {
			v, err := fromPlain(m[name], at)
			if err != nil {
				return tftypes.Value{}, fmt.Errorf("%s: %w", name, err)
			}
			out[name] = v
		}
		return tftypes.NewValue(t, out), nil
	case tftypes.Map:
		m, ok := plain.(map[string]any)
		if !ok {
			return tftypes.Value{}, mismatch
		}
		out := make(map[string]tftypes.Value, len(m))
		for name, e := range m {
			v, err := fromPlain(e, typed.ElementType)
			if err != nil {
				return tftypes.Value{}, fmt.Errorf("%s: %w", name, err)
			}
			out[name] = v
		}
		return tftypes.NewValue(t, out), nil
	case tftypes.List:
		return fromList(plain, t, typed.ElementType, mismatch)
	case tftypes.Set:
		return fromList(plain, t, typed.ElementType, mismatch)
	}
	switch {
	case t.Is(tftypes.String):
		if s, ok := plain.(string); ok {
			return tftypes.NewValue(t, s), nil
		}
	case t.Is(tftypes.Bool):
		if b, ok := plain.(bool); ok {
			return tftypes.NewValue(t, b), nil
		}
	case t.Is(tftypes.Number):
		if n, ok := plain.(json.Number); ok {
			f, _, err := big.ParseFloat(n.String(), 10, 512, big.ToNearestEven)
			if err != nil {
				return tftypes.Value{}, err
			}
			return tftypes.NewValue(t, f), nil
		}
	}
	return tftypes.Value{}, mismatch
}

func fromList(plain any, t, element tftypes.Type, mismatch error) (tftypes.Value, error) {
	l, ok := plain.([]any)
	if !ok {
		return tftypes.Value{}, mismatch
	}
	out := make([]tftypes.Value, 0, len(l))
	for _, e := range l {
		v, err := fromPlain(e, element)
		if err != nil {
			return tftypes.Value{}, err
		}
		out = append(out, v)
	}
	return tftypes.NewValue(t, out), nil
}
