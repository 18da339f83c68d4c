package provider

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-go/tftypes"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/procstat"
)

func TestBackupDataSources(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c := s.core()
	first := c.manage("scalardb_consistent_backup").create(backupConfig())
	second := c.manage("scalardb_consistent_backup").create(with(backupConfig(), "name", "b2"))

	v, d := c.data("scalardb_backup", object{"id": "b1"})
	wantNoErrors(t, "by id", d)
	if goValue(t, at(t, v, "status")) != "available" || goValue(t, at(t, v, "manifest_json")) != first.get("manifest_json") {
		t.Errorf("by id: %s", v)
	}
	v, d = c.data("scalardb_backup", object{"before": "2999-01-01T00:00:00Z"})
	wantNoErrors(t, "latest", d)
	if goValue(t, at(t, v, "id")) != "b2" {
		t.Errorf("latest: %v", goValue(t, at(t, v, "id")))
	}
	// A backup that is not whole is never the latest available one.
	_ = s.catalog.Delete(context.Background(), second.get("artifacts.orders.objects.0.id").(string))
	v, d = c.data("scalardb_backup", object{"before": "2999-01-01T00:00:00Z"})
	wantNoErrors(t, "latest available", d)
	if goValue(t, at(t, v, "id")) != "b1" {
		t.Errorf("latest available: %v", goValue(t, at(t, v, "id")))
	}
	v, d = c.data("scalardb_backup", object{"id": "b2"})
	if goValue(t, at(t, v, "status")) != "incomplete" || len(d.warnings()) == 0 {
		t.Errorf("incomplete: %s", v)
	}
	v, d = c.data("scalardb_backups", object{})
	wantNoErrors(t, "list", d)
	if goValue(t, at(t, v, "backups.0.id")) != "b1" || goValue(t, at(t, v, "backups.1.id")) != "b2" || goValue(t, at(t, v, "backups.0.storages.orders")) != "memory" || goValue(t, at(t, v, "backups.0.size")) != 12 {
		t.Errorf("list: %s", v)
	}
	for name, config := range map[string]object{"none": {}, "both": {"id": "b1", "before": "2026-01-01T00:00:00Z"}, "missing": {"id": "nope"}, "too early": {"before": "2001-01-01T00:00:00Z"}} {
		if _, d := c.data("scalardb_backup", config); len(d.errors()) == 0 {
			t.Errorf("%s was found", name)
		}
	}
	// An unreadable manifest may be that of the latest: no silent older one.
	_ = s.catalog.Create(context.Background(), engine.ManifestName("b3"), []byte("{"))
	if _, d := c.data("scalardb_backup", object{"before": "2999-01-01T00:00:00Z"}); len(d.errors()) == 0 {
		t.Error("a backup was found beside an unreadable manifest")
	}
	if _, d := c.data("scalardb_backups", object{}); !d.has("Unreadable manifest") {
		t.Errorf("list: %v", d.warnings())
	}
}

func TestTargetsDataSource(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c := s.core()
	v, d := c.data("scalardb_targets", object{})
	wantNoErrors(t, "targets", d)
	if goValue(t, at(t, v, "targets.0.address")) != "127.0.0.1:60051" || goValue(t, at(t, v, "paused")) != false || goValue(t, at(t, v, "targets.0.group")) != "main" {
		t.Errorf("%s", v)
	}
	s.paused = true
	v, _ = c.data("scalardb_targets", object{})
	if goValue(t, at(t, v, "paused")) != true || goValue(t, at(t, v, "targets.0.paused")) != true || s.pauses != 0 {
		t.Errorf("%s", v)
	}
}

func TestConfigurationDataSource(t *testing.T) {
	t.Parallel()
	c := newSystem(t).core()
	file := filepath.Join(t.TempDir(), "database.properties")
	if err := os.WriteFile(file, []byte("scalar.db.storage=jdbc\nscalar.db.contact_points=jdbc:postgresql://h/d?password=HIDDEN\nscalar.db.username=HIDDEN\nscalar.db.password=HIDDEN\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	v, d := c.data("scalardb_configuration", object{"path": file})
	wantNoErrors(t, "configuration", d)
	if goValue(t, at(t, v, "pause_required")) != false || goValue(t, at(t, v, "storages.default.hosts.0")) != "h" || strings.Contains(v.String(), "HIDDEN") {
		t.Errorf("%s", v)
	}
	for _, path := range []string{file + ".nope", filepath.Dir(file), ""} {
		if _, d := c.data("scalardb_configuration", object{"path": path}); len(d.errors()) == 0 {
			t.Errorf("%q was read", path)
		}
	}
}

func TestFunctions(t *testing.T) {
	t.Parallel()
	c := newSystem(t).core()
	str := func(s string) tftypes.Value { return tftypes.NewValue(tftypes.String, s) }
	for _, tt := range [][3]string{
		{"2026-11-25T10:00:00.2Z", "2026-11-25T10:00:06.8Z", "2026-11-25T10:00:03Z"},
		{"2026-11-25T12:00:00.9+02:00", "2026-11-25T10:00:01.1Z", "2026-11-25T10:00:01Z"},
	} {
		v, err := c.call("restore_point", str(tt[0]), str(tt[1]))
		if err != nil || goValue(t, v) != tt[2] {
			t.Errorf("restore_point(%s, %s) = %v, %v", tt[0], tt[1], v, err)
		}
	}
	for _, tt := range [][2]string{{"2026-11-25T10:00:00.2Z", "2026-11-25T10:00:00.8Z"}, {"2026-11-25T10:00:05Z", "2026-11-25T10:00:00Z"}, {"yesterday", "2026-11-25T10:00:00Z"}} {
		if v, err := c.call("restore_point", str(tt[0]), str(tt[1])); err == nil {
			t.Errorf("restore_point(%s, %s) = %v", tt[0], tt[1], v)
		}
	}
	v, err := c.call("parse_properties", str("a=1\nb : 2"))
	if err != nil || goValue(t, at(t, v, "b")) != "2" {
		t.Errorf("parse_properties: %v, %v", v, err)
	}
	if v, err := c.call("parse_properties", str(`a=\u1`)); err == nil {
		t.Errorf("parse_properties: %v", v)
	}
	back, err := c.call("render_properties", v)
	if err != nil || goValue(t, back) != "a=1\nb=2\n" {
		t.Errorf("render_properties: %v, %v", back, err)
	}
}

// TestInstant: the fraction of a second counts, since a window may lie within one.
func TestInstant(t *testing.T) {
	at := time.Date(2026, 11, 25, 12, 0, 0, 123456789, time.FixedZone("", 3600))
	back, diags := instant(at).ValueRFC3339Time()
	if diags.HasError() || !back.Equal(at) || !strings.HasSuffix(instant(at).ValueString(), "Z") {
		t.Errorf("%s came back as %s", at, back)
	}
	if !instant(time.Time{}).IsNull() {
		t.Error("the zero time is not null")
	}
}

// TestArguments: what a manifest keeps of a driver object comes back as it was typed.
func TestArguments(t *testing.T) {
	ctx := context.Background()
	typ := types.ObjectType{AttrTypes: map[string]attr.Type{
		"s": types.StringType, "n": types.Int64Type, "f": types.Float64Type, "b": types.BoolType, "l": types.ListType{ElemType: types.StringType}, "null": types.StringType,
		"m": types.MapType{ElemType: types.StringType}, "o": types.ObjectType{AttrTypes: map[string]attr.Type{"x": types.StringType, "y": types.BoolType}},
	}}
	list, _ := types.ListValueFrom(ctx, types.StringType, []string{"b", "a"})
	m, _ := types.MapValueFrom(ctx, types.StringType, map[string]string{"k": "v"})
	in := types.ObjectValueMust(typ.AttrTypes, map[string]attr.Value{
		"s": types.StringValue("ü\"\n"), "n": types.Int64Value(1<<53 + 1), "f": types.Float64Value(0.25), "b": types.BoolValue(false), "l": list, "null": types.StringNull(), "m": m,
		"o": types.ObjectValueMust(map[string]attr.Type{"x": types.StringType, "y": types.BoolType}, map[string]attr.Value{"x": types.StringValue(""), "y": types.BoolNull()}),
	})
	data, err := encodeObject(ctx, in)
	if err != nil {
		t.Fatal(err)
	}
	out, err := decodeObject(ctx, data, typ)
	if err != nil || !out.Equal(in) {
		t.Errorf("%s came back as %s: %v", in, out, err)
	}
	if strings.Contains(string(data), "null") {
		t.Errorf("nulls are kept: %s", data)
	}
	for _, bad := range []string{"", "[]", `{"s":1}`, `{"n":"x"}`, `{"l":{}}`, `{"later":1}`, `{"o":{"z":1}}`, `{"n":1e400000}`} {
		if v, err := decodeObject(ctx, []byte(bad), typ); err == nil && bad != `{"n":1e400000}` {
			t.Errorf("%q was read as %s", bad, v)
		}
	}
}

func FuzzDecodeObject(f *testing.F) {
	for _, s := range []string{`{}`, `{"s":"x","l":["a"]}`, `{"n":12}`, `{"o":{"x":null}}`, `null`} {
		f.Add([]byte(s))
	}
	typ := types.ObjectType{AttrTypes: map[string]attr.Type{"s": types.StringType, "n": types.Int64Type, "l": types.ListType{ElemType: types.StringType},
		"o": types.ObjectType{AttrTypes: map[string]attr.Type{"x": types.StringType}}}}
	ctx := context.Background()
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := decodeObject(ctx, data, typ)
		if err != nil || v.IsNull() {
			return
		}
		again, err := encodeObject(ctx, v)
		if err != nil {
			t.Fatal(err)
		}
		back, err := decodeObject(ctx, again, typ)
		if err != nil || !back.Equal(v) {
			t.Fatalf("%s came back as %s: %v", v, back, err)
		}
	})
}

func TestAlive(t *testing.T) {
	if a, known := alive(thisProcess()); !a || !known {
		t.Errorf("this process (%s) is alive %v, known %v", thisProcess(), a, known)
	}
	// A process that ended, and one whose id was taken by another since.
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	me := thisProcess()
	pid := strings.SplitN(strings.SplitN(me, "/pid ", 2)[1], " ", 2)[0]
	dead := strings.Replace(me, "/pid "+pid+" ", "/pid "+strconv.Itoa(cmd.Process.Pid)+" ", 1)
	if a, known := alive(dead); a || !known {
		t.Errorf("%s is alive %v, known %v", dead, a, known)
	}
	if a, known := alive(strings.Replace(me, "(start ", "(start 1", 1)); a || !known {
		t.Errorf("a recycled id is alive %v, known %v", a, known)
	}
	// One that ended and was not waited for still has its id.
	zombie := exec.Command("true")
	if err := zombie.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = zombie.Wait() })
	stat, err := procstat.Read(zombie.Process.Pid)
	for until := time.Now().Add(time.Minute); err == nil && !stat.Ended(); stat, err = procstat.Read(zombie.Process.Pid) {
		if time.Now().After(until) {
			t.Fatal("true did not end")
		}
		time.Sleep(time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	ended := fmt.Sprintf("host/pid %d (start %d, machine %s)", zombie.Process.Pid, stat.Start, machine())
	if a, known := alive(ended); a || !known {
		t.Errorf("a zombie, %s, is alive %v, known %v", ended, a, known)
	}
	for _, other := range []string{"", "host/pid 1", strings.Replace(me, "machine ", "machine x", 1), "x/pid -1 (start 0, machine y)"} {
		if _, known := alive(other); known {
			t.Errorf("%q is known", other)
		}
	}
}
