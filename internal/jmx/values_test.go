package jmx

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

// want is what the values of FakeMBean.java have to become. The acceptance test asks a JVM for them; testdata/values.txt is what "java FakeMBean dump" of
// OpenJDK 17 printed.
func want() map[string]Value {
	ab := []any{"a", "b"}
	kv := Map{{"k", "v"}}
	linked := Map{{"z", int32(1)}, {"a", nil}, {"list", ab}}
	row := map[string]any{"name": "one", "size": int64(1)}
	return map[string]Value{
		"string":                  "a\x00é€😀",
		"character":               "é",
		"boolean":                 true,
		"byte":                    int8(-3),
		"short":                   int16(-300),
		"integer":                 int32(-70000),
		"long":                    int64(-5_000_000_000),
		"float":                   float32(1.5),
		"double":                  -2.25,
		"bytes":                   []byte{1, 255},
		"booleans":                []bool{true, false},
		"chars":                   []string{"a", "é"},
		"shorts":                  []int16{-1, 2},
		"ints":                    []int32{-1, 2},
		"longs":                   []int64{-1, 2},
		"floats":                  []float32{-1, 2},
		"doubles":                 []float64{-1, 2},
		"strings":                 []any{"a", nil, "a"},
		"nested":                  []any{[]any{"a"}, []any{[]int32{1}, []int32{}}, int32(5)},
		"long-string":             strings.Repeat("x", 70000),
		"arraylist":               ab,
		"linkedlist":              ab,
		"arraydeque":              ab,
		"vector":                  ab,
		"cowlist":                 ab,
		"aslist":                  ab,
		"list-of":                 ab,
		"list-of-3":               []any{"a", "b", "c"},
		"set-of":                  []any{"a"},
		"map-of":                  Map{{"a", "b"}},
		"empty-list":              []any{},
		"empty-set":               []any{},
		"empty-map":               Map{},
		"singleton-list":          []any{"a"},
		"singleton":               []any{"a"},
		"singleton-map":           Map{{"a", int32(1)}},
		"hashset":                 ab,
		"linkedhashset":           ab,
		"treeset":                 ab,
		"linkedhashmap":           linked,
		"hashmap":                 kv,
		"hashtable":               kv,
		"properties":              kv,
		"treemap":                 Map{{"a", int32(1)}, {"b", int32(2)}},
		"concurrenthashmap":       kv,
		"skiplistmap":             kv,
		"enummap":                 Map{{Enum{"FakeMBean$Mode", "NORMAL"}, "v"}},
		"unmodifiable-list":       ab,
		"unmodifiable-set":        ab,
		"unmodifiable-map":        linked,
		"unmodifiable-sorted-map": kv,
		"synchronized-list":       ab,
		"synchronized-map":        kv,
		"checked-list":            ab,
		"map-by-list":             Map{{ab, "v"}},
		"date":                    time.UnixMilli(1_700_000_000_123).UTC(),
		"enum":                    Enum{"FakeMBean$Mode", "JOINING"},
		"enum-with-body":          Enum{"FakeMBean$Mode", "NORMAL"},
		"class":                   "java.lang.String",
		"objectname":              ObjectName("test:type=Service"),
		"attributes":              []any{Attribute{"Version", "1"}},
		"plain":                   &Object{Class: "FakeMBean$Plain", Fields: map[string]Value{"number": int32(7), "text": "seven", "self": nil}},
		"throwable": &Throwable{
			Class: "java.io.IOException", Supers: []string{"java.lang.Exception", "java.lang.Throwable"}, Message: "message",
			Cause: &Throwable{Class: "java.lang.IllegalStateException", Supers: []string{"java.lang.RuntimeException", "java.lang.Exception", "java.lang.Throwable"}, Message: "cause"},
		},
		"composite": row,
		"table":     []map[string]any{row},
		"details":   Map{{"tag", []map[string]any{row}}},
	}
}

// same is reflect.DeepEqual.
func same(t *testing.T, name string, got, want Value) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: got %#v, want %#v", name, got, want)
	}
}

// recorded are the streams of testdata/values.txt.
func recorded(t testing.TB) map[string][]byte {
	t.Helper()
	file, err := os.ReadFile("testdata/values.txt")
	if err != nil {
		t.Fatal(err)
	}
	result := map[string][]byte{}
	for line := range strings.Lines(string(file)) {
		name, digits, _ := strings.Cut(strings.TrimSpace(line), " ")
		if result[name], err = hex.DecodeString(digits); err != nil {
			t.Fatal(name, err)
		}
	}
	if len(result) < 60 {
		t.Fatalf("testdata/values.txt has %d values only", len(result))
	}
	return result
}

// readStream reads what ObjectOutputStream wrote.
func readStream(b []byte, l limits) (Value, error) {
	r := newReader(bufio.NewReader(bytes.NewReader(b)), l)
	if err := r.header(); err != nil {
		return nil, err
	}
	v, err := r.value()
	if err != nil {
		return nil, err
	}
	if _, err := r.in.ReadByte(); err == nil {
		return nil, errors.New("there is more")
	}
	return simplify(v)
}

func TestValues(t *testing.T) {
	want := want()
	for name, b := range recorded(t) {
		got, err := readStream(b, answerLimits)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		same(t, name, got, want[name])
	}
}

func TestValuesCutOff(t *testing.T) {
	for name, b := range recorded(t) {
		for i := range b {
			if v, err := readStream(b[:i], answerLimits); err == nil {
				t.Errorf("%s, cut off after %d bytes: %#v", name, i, v)
			}
		}
	}
}

func TestArguments(t *testing.T) {
	long := strings.Repeat("x", 70000)
	for name, v := range map[string]struct {
		sent any
		want Value
	}{
		"nil":        {nil, nil},
		"string":     {"a\x00é€😀", "a\x00é€😀"},
		"long":       {long, long},
		"bool":       {true, true},
		"int32":      {int32(-7), int32(-7)},
		"int64":      {int64(-5_000_000_000), int64(-5_000_000_000)},
		"float64":    {-2.25, -2.25},
		"[]string":   {[]string{"a", "b"}, []any{"a", "b"}},
		"map":        {map[string]string{"b": "2", "a": "1"}, Map{{"a", "1"}, {"b", "2"}}},
		"set":        {Set{"a", "b"}, []any{"a", "b"}},
		"list":       {List{"a", "b"}, []any{"a", "b"}},
		"ObjectName": {ObjectName("a:b=c"), ObjectName("a:b=c")},
		"several":    {[]any{"a", int32(1), int32(2), true, int64(3), Set{}}, []any{"a", int32(1), int32(2), true, int64(3), []any{}}},
	} {
		for _, rmi := range []bool{false, true} {
			w := writer{b: []byte(streamHeader), rmi: rmi}
			if err := w.value(v.sent); err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			got, err := readStream(w.b, answerLimits)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			same(t, name, got, v.want)
		}
	}
	for _, v := range []any{7, uint8(1), []int{1}, map[string]any{}, []any{[]any{struct{}{}}}} {
		if _, err := marshal([]any{v}); err == nil {
			t.Errorf("%#v can be sent", v)
		}
	}
}

// What the JDK wrote, byte for byte: the classes of our arguments are its own.
func TestArgumentsAsJavaWritesThem(t *testing.T) {
	java := recorded(t)
	for name, v := range map[string]any{
		"boolean": true, "integer": int32(-70000), "long": int64(-5_000_000_000), "double": -2.25, "string": "a\x00é€😀", "arraylist": List{"a", "b"},
		"hashset": Set{"a", "b"}, "hashmap": map[string]string{"k": "v"}, "objectname": ObjectName("test:type=Service"),
	} {
		w := writer{b: []byte(streamHeader)}
		if err := w.value(v); err != nil {
			t.Fatal(err)
		}
		if name == "hashmap" || name == "hashset" { // the capacity that Java chose depends on how it was made, and nobody reads it
			if len(w.b) != len(java[name]) {
				t.Errorf("%s: %d bytes, and Java writes %d", name, len(w.b), len(java[name]))
			}
			continue
		}
		if !bytes.Equal(w.b, java[name]) {
			t.Errorf("%s:\n%x, and Java writes\n%x", name, w.b, java[name])
		}
	}
}

func TestStrings(t *testing.T) {
	if s, err := Strings([]any{"a", ObjectName("b:c=d"), Enum{"E", "F"}}); err != nil || fmt.Sprint(s) != "[a b:c=d F]" {
		t.Error(s, err)
	}
	if s, err := Strings(nil); err != nil || len(s) != 0 {
		t.Error(s, err)
	}
	if s, err := Strings(&Object{Class: "com.google.common.collect.ImmutableList$SerializedForm", Fields: map[string]Value{"elements": []any{"COMPLETED", "b"}}}); err != nil || fmt.Sprint(s) != "[COMPLETED b]" {
		t.Error(s, err)
	}
	for _, v := range []Value{"a", []any{int32(1)}, []any{nil}, Map{}, &Object{Class: "x", Fields: map[string]Value{"elements": []any{"a"}}}} {
		if s, err := Strings(v); err == nil {
			t.Errorf("%#v: %v", v, s)
		}
	}
	if m, err := StringMap(Map{{"a", "b"}}); err != nil || m["a"] != "b" {
		t.Error(m, err)
	}
	for _, v := range []Value{"a", Map{{"a", int32(1)}}, Map{{nil, "a"}}, []any{}} {
		if m, err := StringMap(v); err == nil {
			t.Errorf("%#v: %v", v, m)
		}
	}
	if v, ok := (Map{{int32(1), "a"}, {"b", "c"}}).Get("b"); !ok || v != "c" {
		t.Error(v, ok)
	}
}
