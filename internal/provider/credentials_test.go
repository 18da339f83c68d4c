package provider

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/provider"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

// credentialsValue builds a value of the provider's `credentials` with one entry.
func credentialsValue(t *testing.T, entry map[string]any) types.Map {
	t.Helper()
	var resp provider.SchemaResponse
	(&scalardbProvider{}).Schema(context.Background(), provider.SchemaRequest{}, &resp)
	typ, ok := resp.Schema.Attributes["credentials"].GetType().(types.MapType)
	if !ok {
		t.Fatal("credentials is no map")
	}
	element, ok := typ.ElemType.(types.ObjectType)
	if !ok {
		t.Fatal("an entry of credentials is no object")
	}
	return types.MapValueMust(element, map[string]attr.Value{"c": objectOf(t, element, entry)})
}

func objectOf(t *testing.T, typ types.ObjectType, values map[string]any) types.Object {
	t.Helper()
	out := map[string]attr.Value{}
	for name, at := range typ.AttrTypes {
		inner, nested := at.(types.ObjectType)
		switch v := values[name].(type) {
		case string:
			out[name] = types.StringValue(v)
		case map[string]any:
			out[name] = objectOf(t, inner, v)
		default:
			if nested {
				out[name] = types.ObjectNull(inner.AttrTypes)
			} else {
				out[name] = types.StringNull()
			}
		}
	}
	return types.ObjectValueMust(typ.AttrTypes, out)
}

func TestCredentialsOfMachinesAndJMX(t *testing.T) {
	d := &data{}
	v := credentialsValue(t, map[string]any{"username": "u", "password": "p",
		"ssh": map[string]any{"username": "deploy", "private_key_pem": "KEY", "passphrase": "phrase", "password": "sshpass"},
		"jmx": map[string]any{"username": "admin", "password": "jmxpass"}})
	if diags := d.readCredentials(t.Context(), v); diags.HasError() {
		t.Fatal(diags)
	}
	c := d.credentials["c"]
	if c.Username != "u" || c.SSH == nil || c.SSH.Username != "deploy" || c.SSH.PrivateKeyPEM != "KEY" || c.SSH.Passphrase != "phrase" || c.SSH.Password != "sshpass" {
		t.Errorf("ssh was not read: %#v", c)
	}
	if c.JMX == nil || c.JMX.Username != "admin" || c.JMX.Password != "jmxpass" {
		t.Error("jmx was not read")
	}
	for _, shown := range []string{fmt.Sprint(c), fmt.Sprintf("%+v", *c), fmt.Sprintf("%#v", c), fmt.Sprintf("%v", *c.SSH), fmt.Sprintf("%#v", c.SSH), fmt.Sprintf("%+v", c.JMX), fmt.Sprintf("%#v", *c.JMX)} {
		for _, secret := range []string{"KEY", "phrase", "sshpass", "jmxpass"} {
			if strings.Contains(shown, secret) {
				t.Errorf("a secret shows in %s", shown)
			}
		}
	}

	if diags := d.readCredentials(t.Context(), credentialsValue(t, map[string]any{"username": "u"})); diags.HasError() || d.credentials["c"].SSH != nil || d.credentials["c"].JMX != nil {
		t.Errorf("without ssh and jmx: %v, %v", diags, d.credentials["c"])
	}
	diags := d.readCredentials(t.Context(), credentialsValue(t, map[string]any{"ssh": map[string]any{"passphrase": "x"}}))
	if !diags.HasError() || !strings.Contains(diags[0].Summary(), "Passphrase without a key") {
		t.Errorf("a passphrase without a key: %v", diags)
	}
}
