package jmx

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Value is what a server answered with, as one of these:
//
//	nil                               null, and no result
//	string                            String, and Character
//	bool, int8, int16, int32, int64   Boolean, Byte, Short, Integer, Long
//	float32, float64                  Float, Double
//	[]byte, []bool, []int16, []int32, []int64, []float32, []float64   arrays of primitives ([]string for char[], an element each)
//	[]any                             other arrays, the usual lists, sets and queues of java.util, the views of java.util.Collections, List.of, Set.of
//	Map                               the usual maps of java.util, in the order in which the server sent them
//	time.Time                         java.util.Date, in UTC
//	ObjectName, Enum, Attribute       what they are called
//	map[string]any                    CompositeData: its items
//	[]map[string]any                  TabularData: its rows, in no order
//	*Throwable                        an exception as a value
//	*Object                           an object of any other class
//
// The elements are Values too. A value is a tree of at most 2^20 of them, and holds at most 32 MiB of text: an answer in which things refer to one
// another such that it would be more, or without end, is an error.
type Value = any

// ObjectName is the name of an MBean, or a pattern of such names.
type ObjectName string

// Set is an argument of the type java.util.HashSet.
type Set []string

// List is an argument of the type java.util.ArrayList.
type List []string

// Enum is a constant of an enum.
type Enum struct{ Class, Name string }

// Attribute is a name with its value.
type Attribute struct {
	Name  string
	Value Value
}

// Object is an object of a class that this package does not know.
type Object struct {
	Class string
	// Fields are those of the class and its superclasses; where two have one of the same name, the most derived one's.
	Fields map[string]Value
	// Data is what the class wrote of its own accord: []byte for what is not an object.
	Data []Value
}

// Map is a map in the order in which the server sent it.
type Map []Entry

// Entry is one mapping of a Map.
type Entry struct{ Key, Value Value }

// Get returns the value of a key that is a string.
func (m Map) Get(key string) (Value, bool) {
	for _, e := range m {
		if k, ok := e.Key.(string); ok && k == key {
			return e.Value, true
		}
	}
	return nil, false
}

// guavaList is what Guava's immutable lists are sent as, whatever their size.
const guavaList = "com.google.common.collect.ImmutableList$SerializedForm"

// Strings makes a []string of a list, a set or an array whose elements are all strings, ObjectNames or Enums (their names). null is an empty one.
func Strings(v Value) ([]string, error) {
	if o, ok := v.(*Object); ok && o.Class == guavaList {
		v = o.Fields["elements"]
	}
	list, ok := v.([]any)
	if !ok && v != nil {
		if s, ok := v.([]string); ok {
			return s, nil
		}
		return nil, fmt.Errorf("a list of strings was expected, not %T", v)
	}
	result := make([]string, 0, len(list))
	for _, e := range list {
		s, err := stringOf(e)
		if err != nil {
			return nil, err
		}
		result = append(result, s)
	}
	return result, nil
}

// StringMap makes a map[string]string of a Map whose keys and values are all strings, ObjectNames or Enums (their names). null is an empty one.
func StringMap(v Value) (map[string]string, error) {
	m, ok := v.(Map)
	if !ok && v != nil {
		return nil, fmt.Errorf("a map of strings was expected, not %T", v)
	}
	result := make(map[string]string, len(m))
	for _, e := range m {
		key, err := stringOf(e.Key)
		if err != nil {
			return nil, err
		}
		if result[key], err = stringOf(e.Value); err != nil {
			return nil, err
		}
	}
	return result, nil
}

func stringOf(v Value) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case ObjectName:
		return string(v), nil
	case Enum:
		return v.Name, nil
	}
	return "", fmt.Errorf("a string was expected, not %T", v)
}

func sorted(s []string) []string {
	slices.Sort(s)
	return s
}

// checkObjectName refuses what cannot be a name. The server would find out too, but an argument that it cannot read costs the connection.
func checkObjectName(name string) error {
	domain, properties, ok := strings.Cut(name, ":")
	if !ok || !strings.ContainsAny(properties, "=*") || strings.Contains(domain, "\n") || strings.Contains(properties, "\n") {
		return errors.New("not the name of an MBean, which has the form DOMAIN:KEY=VALUE")
	}
	return nil
}
