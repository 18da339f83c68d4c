package jmx

import (
	"encoding/binary"
	"errors"
	"strings"
	"time"
	"unicode"
)

// simplifier makes Values of what was read. Objects that are referred to more than once become as many Values, so what comes out is a tree; the
// budgets end one that would not end.
type simplifier struct {
	values int // how many more may come
	text   int // how many more bytes of text may
}

const (
	maxSimplified = 1 << 20
	maxText       = 32 << 20
	maxDepth      = 256
)

func simplify(v any) (Value, error) {
	s := simplifier{values: maxSimplified, text: maxText}
	return s.value(v, 0)
}

func (s *simplifier) charge(text int) error {
	s.values--
	s.text -= text
	if s.values < 0 || s.text < 0 {
		return errors.New("the answer holds too much, or refers to itself")
	}
	return nil
}

func (s *simplifier) value(v any, depth int) (Value, error) {
	if depth > maxDepth {
		return nil, errors.New("the answer is nested too deep, or refers to itself")
	}
	n := 0
	switch v := v.(type) {
	case string:
		n = len(v)
	case []byte:
		n = len(v)
	}
	if err := s.charge(n); err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case *array:
		return s.array(v, depth)
	case *object:
		return s.object(v, depth)
	case enum:
		return Enum{Class: v.class, Name: v.name}, s.charge(len(v.class) + len(v.name))
	case classItem:
		if v.class == nil {
			return nil, errors.New("the answer holds a class without a name")
		}
		return v.class.name, s.charge(len(v.class.name))
	}
	return v, nil // nil, string, a primitive, []byte
}

func (s *simplifier) array(a *array, depth int) (Value, error) {
	var n int
	switch e := a.elements.(type) {
	case []any:
		return s.list(e, depth)
	case []byte:
		n = len(e)
	case []bool:
		n = len(e)
	case []string:
		n = 16 * len(e)
	case []int16:
		n = 2 * len(e)
	case []int32:
		n = 4 * len(e)
	case []float32:
		n = 4 * len(e)
	case []int64:
		n = 8 * len(e)
	case []float64:
		n = 8 * len(e)
	}
	return a.elements, s.charge(n)
}

func (s *simplifier) list(elements []any, depth int) ([]any, error) {
	result := []any{}
	for _, e := range elements {
		v, err := s.value(e, depth+1)
		if err != nil {
			return nil, err
		}
		result = append(result, v)
	}
	return result, nil
}

// classError says in an object of which class something is wrong.
type classError struct {
	class string
	err   error
}

func (e *classError) Error() string { return "a " + e.class + ": " + e.err.Error() }
func (e *classError) Unwrap() error { return e.err }

// object goes from the object's class up through its superclasses, until one is known.
func (s *simplifier) object(o *object, depth int) (Value, error) {
	if o.class.isA("java.lang.Throwable") {
		return s.throwable(o, 0)
	}
	for c := o.class; c != nil; c = c.super {
		v, known, err := s.known(c.name, o, depth)
		if err != nil {
			var within *classError
			if !errors.As(err, &within) { // the innermost is enough: there may be hundreds around it
				err = &classError{c.name, err}
			}
			return nil, err
		}
		if known {
			return v, nil
		}
	}
	return s.unknown(o, depth)
}

// known makes the Value of an object as one of the class of that name, if this is a class that Value names.
func (s *simplifier) known(name string, o *object, depth int) (Value, bool, error) {
	l, _ := o.layer(name)
	n := notes{items: l.notes}
	var v Value
	var err error
	switch name {
	case "java.lang.Boolean", "java.lang.Character", "java.lang.Byte", "java.lang.Short", "java.lang.Integer", "java.lang.Long", "java.lang.Float", "java.lang.Double":
		v, err = s.boxed(l)
	case "javax.management.ObjectName":
		v, err = s.objectName(&n)
	case "javax.management.Attribute":
		v, err = s.attribute(o, depth)
	case "java.util.Date":
		v, err = date(&n)
	case "javax.management.openmbean.CompositeDataSupport":
		v, err = s.composite(o, depth)
	case "javax.management.openmbean.TabularDataSupport":
		v, err = s.table(o, depth)
	default:
		if v, known, err := s.listLike(name, l, &n, depth); known || err != nil {
			return v, true, err
		}
		m, known, err := s.mapLike(name, o, depth)
		return m, known, err
	}
	return v, true, err
}

func (s *simplifier) boxed(l layer) (Value, error) {
	v, ok := l.field("value")
	switch v.(type) {
	case *object, *array, nil:
		ok = false
	}
	if !ok {
		return nil, errors.New("it has no value")
	}
	return v, nil
}

func (s *simplifier) objectName(n *notes) (Value, error) {
	v, err := n.object()
	if err != nil {
		return nil, err
	}
	name, ok := v.(string)
	if !ok {
		return nil, errors.New("it has no name")
	}
	return ObjectName(name), s.charge(len(name))
}

func (s *simplifier) attribute(o *object, depth int) (Value, error) {
	name, ok := o.field("name").(string)
	if !ok {
		return nil, errors.New("it has no name")
	}
	v, err := s.value(o.field("value"), depth+1)
	if err != nil {
		return nil, err
	}
	return Attribute{Name: name, Value: v}, s.charge(len(name))
}

func date(n *notes) (Value, error) {
	b, err := n.bytes(8)
	if err != nil {
		return nil, err
	}
	return time.UnixMilli(int64(binary.BigEndian.Uint64(b))).UTC(), nil
}

func (s *simplifier) composite(o *object, depth int) (map[string]any, error) {
	items, err := s.entries(o.field("contents"), depth)
	if err != nil {
		return nil, err
	}
	result := make(map[string]any, len(items))
	for _, e := range items {
		name, ok := e.Key.(string)
		if !ok {
			return nil, errors.New("the name of an item is not a string")
		}
		result[name] = e.Value
	}
	return result, nil
}

func (s *simplifier) table(o *object, depth int) ([]map[string]any, error) {
	rows, err := s.entries(o.field("dataMap"), depth)
	if err != nil {
		return nil, err
	}
	result := []map[string]any{}
	for _, e := range rows {
		row, ok := e.Value.(map[string]any)
		if !ok {
			return nil, errors.New("a row is not CompositeData")
		}
		result = append(result, row)
	}
	return result, nil
}

// entries are those of a value that has to be a map.
func (s *simplifier) entries(v any, depth int) (Map, error) {
	v, err := s.value(v, depth+1)
	if err != nil {
		return nil, err
	}
	m, ok := v.(Map)
	if !ok {
		return nil, errors.New("its content is not a map")
	}
	return m, nil
}

// listLike knows the lists, sets and queues.
func (s *simplifier) listLike(name string, l layer, n *notes, depth int) ([]any, bool, error) {
	var elements []any
	var err error
	switch name {
	case "java.util.ArrayList", "java.util.ArrayDeque", "java.util.LinkedList", "java.util.concurrent.CopyOnWriteArrayList":
		// A size, then the elements. The size of an ArrayList is a field, and the block data a capacity that has been equal to it since Java 8 and may be more before.
		var size int
		if size, err = n.int(); err != nil {
			return nil, true, err
		}
		if v, ok := l.field("size"); ok && name == "java.util.ArrayList" {
			i, _ := v.(int32)
			size = int(i)
		}
		elements, err = n.objects(size)
	case "java.util.HashSet":
		if _, err = n.bytes(8); err == nil { // capacity and load factor
			elements, err = n.counted()
		}
	case "java.util.TreeSet":
		if _, err = n.object(); err == nil { // the comparator
			elements, err = n.counted()
		}
	case "java.util.Vector":
		elements, err = s.vector(l)
	case "java.util.CollSer":
		tag, _ := l.field("tag")
		if i, ok := tag.(int32); !ok || i&0xFF == 3 {
			return nil, false, nil // a map
		}
		elements, err = n.counted()
	case "java.util.Collections$EmptyList", "java.util.Collections$EmptySet":
	case "java.util.Collections$SingletonList", "java.util.Collections$SingletonSet":
		v, _ := l.field("element")
		elements = []any{v}
	case "java.util.Arrays$ArrayList":
		v, _ := l.field("a")
		a, ok := v.(*array)
		if !ok {
			return nil, true, errors.New("it has no elements")
		}
		if elements, ok = a.elements.([]any); !ok {
			return nil, true, errors.New("its elements are not objects")
		}
	case "java.util.Collections$UnmodifiableCollection", "java.util.Collections$SynchronizedCollection", "java.util.Collections$CheckedCollection":
		return s.wrapped(l, depth)
	default:
		return nil, false, nil
	}
	if err != nil {
		return nil, true, err
	}
	list, err := s.list(elements, depth)
	return list, true, err
}

// wrapped is the list in a view of java.util.Collections.
func (s *simplifier) wrapped(l layer, depth int) ([]any, bool, error) {
	v, _ := l.field("c")
	v, err := s.value(v, depth+1)
	if err != nil {
		return nil, true, err
	}
	list, ok := v.([]any)
	if !ok {
		return nil, true, errors.New("it holds no list")
	}
	return list, true, nil
}

func (s *simplifier) vector(l layer) ([]any, error) {
	count, _ := l.field("elementCount")
	data, _ := l.field("elementData")
	n, ok := count.(int32)
	a, isArray := data.(*array)
	if !ok || !isArray {
		return nil, errors.New("it has no elements")
	}
	elements, ok := a.elements.([]any)
	if !ok || n < 0 || int(n) > len(elements) {
		return nil, errors.New("it has fewer elements than it says")
	}
	return elements[:n], nil
}

// mapLike knows the maps.
func (s *simplifier) mapLike(name string, o *object, depth int) (Map, bool, error) {
	l, _ := o.layer(name)
	n := notes{items: l.notes}
	var pairs []any
	var err error
	switch name {
	case "java.util.HashMap", "java.util.Hashtable": // LinkedHashMap and Properties extend them
		if _, err = n.bytes(4); err == nil { // buckets
			pairs, err = n.pairs()
		}
	case "java.util.TreeMap", "java.util.EnumMap", "java.util.IdentityHashMap":
		pairs, err = n.pairs()
	case "java.util.concurrent.ConcurrentHashMap":
		pairs, err = n.untilNull()
	case "java.util.concurrent.ConcurrentSkipListMap":
		pairs, err = n.untilNull()
	case "java.util.CollSer":
		var size int
		if size, err = n.int(); err == nil {
			pairs, err = n.objects(size)
		}
	case "java.util.Collections$EmptyMap":
	case "java.util.Collections$SingletonMap":
		k, _ := l.field("k")
		v, _ := l.field("v")
		pairs = []any{k, v}
	case "java.util.Collections$UnmodifiableMap", "java.util.Collections$SynchronizedMap", "java.util.Collections$CheckedMap":
		inner, _ := l.field("m")
		m, err := s.entries(inner, depth)
		return m, true, err
	default:
		return nil, false, nil
	}
	if err != nil {
		return nil, true, err
	}
	if len(pairs)%2 != 0 {
		return nil, true, errors.New("a key has no value")
	}
	m := Map{}
	for ; len(pairs) > 0; pairs = pairs[2:] {
		var e Entry
		if e.Key, err = s.value(pairs[0], depth+1); err != nil {
			return nil, true, err
		}
		if e.Value, err = s.value(pairs[1], depth+1); err != nil {
			return nil, true, err
		}
		m = append(m, e)
	}
	return m, true, nil
}

func (s *simplifier) unknown(o *object, depth int) (Value, error) {
	result := &Object{Class: o.class.name, Fields: map[string]Value{}}
	for _, l := range o.layers {
		for i, f := range l.class.fields {
			if i >= len(l.fields) { // an externalizable class writes none
				break
			}
			v, err := s.value(l.fields[i], depth+1)
			if err != nil {
				return nil, err
			}
			result.Fields[f.name] = v
			if err := s.charge(len(f.name)); err != nil {
				return nil, err
			}
		}
		for _, n := range l.notes {
			v, err := s.value(n, depth+1)
			if err != nil {
				return nil, err
			}
			result.Data = append(result.Data, v)
		}
	}
	return result, s.charge(len(result.Class))
}

// throwable reads class, message and causes. It leaves the rest (stack traces, what was suppressed) alone.
func (s *simplifier) throwable(o *object, depth int) (*Throwable, error) {
	t := &Throwable{Class: printable(o.class.name)}
	n := len(t.Class)
	for c := o.class.super; c != nil; c = c.super {
		t.Supers = append(t.Supers, c.name)
	}
	if m, ok := o.field("detailMessage").(string); ok {
		t.Message = printable(m)
		n += len(t.Message)
	}
	if err := s.charge(n + 64*len(t.Supers)); err != nil {
		return nil, err
	}
	if cause := causeOf(o); cause != nil && depth < maxCauses {
		var err error
		if t.Cause, err = s.throwable(cause, depth+1); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// causeOf finds the cause where the class keeps it: the wrappers of JMX, RMI and reflection have had fields of their own since before Throwable had one.
func causeOf(o *object) *object {
	for _, name := range []string{"cause", "exception", "runtimeException", "error", "detail", "target", "undeclaredThrowable"} {
		cause, ok := o.field(name).(*object)
		if ok && cause != o && cause.class.isA("java.lang.Throwable") { // a Throwable without a cause refers to itself
			return cause
		}
	}
	return nil
}

// printable cuts a text off and takes out what could play tricks on a terminal or a log.
func printable(s string) string {
	if len(s) > maxMessage {
		s = strings.ToValidUTF8(s[:maxMessage], "") + "..."
	}
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, s)
}

// notes reads what a writeObject wrote.
type notes struct {
	items []any
	block []byte
}

var errNotes = errors.New("it holds less than it says")

// bytes reads n bytes of block data.
func (n *notes) bytes(k int) ([]byte, error) {
	for len(n.block) < k {
		if len(n.items) == 0 {
			return nil, errNotes
		}
		b, ok := n.items[0].([]byte)
		if !ok || len(b) == 0 {
			return nil, errNotes
		}
		if len(n.block) == 0 {
			n.block = b
		} else {
			n.block = append(append([]byte{}, n.block...), b...)
		}
		n.items = n.items[1:]
	}
	b := n.block[:k]
	n.block = n.block[k:]
	return b, nil
}

// int reads a number that is not negative.
func (n *notes) int() (int, error) {
	b, err := n.bytes(4)
	if err != nil {
		return 0, err
	}
	i := int32(binary.BigEndian.Uint32(b))
	if i < 0 {
		return 0, errNotes
	}
	return int(i), nil
}

func (n *notes) object() (any, error) {
	objects, err := n.objects(1)
	if err != nil {
		return nil, err
	}
	return objects[0], nil
}

// objects reads that many objects.
func (n *notes) objects(k int) ([]any, error) {
	if len(n.block) > 0 || k < 0 || k > len(n.items) {
		return nil, errNotes
	}
	objects := n.items[:k]
	for _, o := range objects {
		if _, ok := o.([]byte); ok {
			return nil, errNotes
		}
	}
	n.items = n.items[k:]
	return objects, nil
}

func (n *notes) counted() ([]any, error) {
	size, err := n.int()
	if err != nil {
		return nil, err
	}
	return n.objects(size)
}

func (n *notes) pairs() ([]any, error) {
	size, err := n.int()
	if err != nil {
		return nil, err
	}
	return n.objects(2 * size)
}

// untilNull reads pairs up to a key that is null, as the concurrent maps write them.
func (n *notes) untilNull() ([]any, error) {
	var pairs []any
	for {
		key, err := n.object()
		if err != nil {
			return nil, err
		}
		if key == nil {
			return pairs, nil
		}
		value, err := n.object()
		if err != nil {
			return nil, err
		}
		pairs = append(pairs, key, value)
	}
}
