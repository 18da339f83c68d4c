package jmx

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
)

// limits bound what one answer may be.
type limits struct {
	bytes     int // on the wire
	values    int // objects, elements, fields, classes, pieces of block data
	nesting   int // of objects within objects
	hierarchy int // of a class and its superclasses
}

var answerLimits = limits{bytes: 8 << 20, values: 1 << 20, nesting: 256, hierarchy: 64}

// chunk is how much is read at once of what has a length: a length alone allocates no more.
const chunk = 64 << 10

var errMalformedText = errors.New("a text is not modified UTF-8")

// class is a class descriptor that was read.
type class struct {
	name    string
	flags   byte
	fields  []javaField
	super   *class
	proxy   bool
	layers  int  // the class and its superclasses
	defined bool // false while the descriptor is being read, when a reference to it makes no sense
}

// What is read, beside nil and string. Objects may refer to one another in circles.
type (
	object struct {
		class  *class
		layers []layer // those of the classes that have fields or data, superclasses first
	}
	layer struct {
		class  *class
		fields []any // as class.fields
		notes  []any // what writeObject wrote: []byte for block data, else objects
	}
	array struct {
		class    *class
		elements any // []any, or a slice of primitives as Value says
	}
	enum      struct{ class, name string }
	classItem struct{ class *class } // a java.lang.Class as a value
)

// layer returns what the object holds of one of its classes.
func (o *object) layer(name string) (layer, bool) {
	for _, l := range o.layers {
		if l.class.name == name {
			return l, true
		}
	}
	return layer{}, false
}

// field returns the most derived field of that name, and nil when there is none.
func (o *object) field(name string) any {
	for i := len(o.layers) - 1; i >= 0; i-- {
		if v, ok := o.layers[i].field(name); ok {
			return v
		}
	}
	return nil
}

func (l layer) field(name string) (any, bool) {
	if l.class == nil { // the object holds nothing of that class
		return nil, false
	}
	for i, f := range l.class.fields {
		if f.name == name && i < len(l.fields) {
			return l.fields[i], true
		}
	}
	return nil, false
}

// isA tells whether the class is of that name or extends it.
func (c *class) isA(name string) bool {
	for ; c != nil; c = c.super {
		if c.name == name {
			return true
		}
	}
	return false
}

// abortedError is an exception that the server met while it was writing the answer.
type abortedError struct{ thrown any }

func (*abortedError) Error() string { return "the server could not write its answer" }

// reader reads one serialisation stream, such as the answer to one call.
type reader struct {
	in      *bufio.Reader
	limits  limits // what is left of them
	handles []any
	block   int // what is left of the current piece of block data
	scratch [8]byte
}

func newReader(in *bufio.Reader, l limits) *reader { return &reader{in: in, limits: l} }

func (r *reader) full(b []byte) error {
	if r.limits.bytes -= len(b); r.limits.bytes < 0 {
		return errors.New("the answer is too long")
	}
	_, err := io.ReadFull(r.in, b)
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (r *reader) u8() (byte, error) {
	err := r.full(r.scratch[:1])
	return r.scratch[0], err
}

func (r *reader) u16() (uint16, error) {
	err := r.full(r.scratch[:2])
	return binary.BigEndian.Uint16(r.scratch[:]), err
}

func (r *reader) i32() (int32, error) {
	err := r.full(r.scratch[:4])
	return int32(binary.BigEndian.Uint32(r.scratch[:])), err
}

func (r *reader) u64() (uint64, error) {
	err := r.full(r.scratch[:])
	return binary.BigEndian.Uint64(r.scratch[:]), err
}

// bytes reads n bytes, piece by piece.
func (r *reader) bytes(n int) ([]byte, error) {
	if n < 0 || n > r.limits.bytes {
		return nil, errors.New("the answer is too long")
	}
	b := make([]byte, 0, min(n, chunk))
	for len(b) < n {
		k := len(b)
		b = append(b, make([]byte, min(n-k, chunk))...)
		if err := r.full(b[k:]); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (r *reader) utf() (string, error) {
	n, err := r.u16()
	if err != nil {
		return "", err
	}
	return r.text(int(n))
}

func (r *reader) text(n int) (string, error) {
	if n <= len(r.scratch) { // many are this short
		b := r.scratch[:n]
		if err := r.full(b); err != nil {
			return "", err
		}
		return fromModifiedUTF8(b)
	}
	b, err := r.bytes(n)
	if err != nil {
		return "", err
	}
	return fromModifiedUTF8(b)
}

// count takes one of the values that the answer may have.
func (r *reader) count() error {
	if r.limits.values--; r.limits.values < 0 {
		return errors.New("the answer has too many values")
	}
	return nil
}

// header reads the start of a stream.
func (r *reader) header() error {
	var b [len(streamHeader)]byte
	if err := r.full(b[:]); err != nil {
		return err
	}
	if string(b[:]) != streamHeader {
		return fmt.Errorf("not a stream of Java objects: it starts with %x", b)
	}
	return nil
}

// primitive reads n bytes of block data, of which a new piece starts where the last one ends.
func (r *reader) primitive(n int) ([]byte, error) {
	b := make([]byte, 0, n)
	for len(b) < n {
		if r.block == 0 {
			tag, err := r.u8()
			if err != nil {
				return nil, err
			}
			if err := r.count(); err != nil {
				return nil, err
			}
			if r.block, err = r.blockLength(tag); err != nil {
				return nil, err
			}
			continue
		}
		k := len(b)
		b = append(b, make([]byte, min(n-k, r.block))...)
		if err := r.full(b[k:]); err != nil {
			return nil, err
		}
		r.block -= len(b) - k
	}
	return b, nil
}

func (r *reader) blockLength(tag byte) (int, error) {
	switch tag {
	case tcBlockData:
		n, err := r.u8()
		return int(n), err
	case tcBlockDataLong:
		n, err := r.i32()
		if err == nil && n < 0 {
			err = errors.New("block data has a negative length")
		}
		return int(n), err
	}
	return 0, fmt.Errorf("block data was expected, not 0x%02x", tag)
}

// value reads an object from the stream's top.
func (r *reader) value() (any, error) {
	if r.block != 0 {
		return nil, errors.New("an object was expected, and there are bytes before it")
	}
	return r.content(0)
}

func (r *reader) content(depth int) (any, error) {
	tag, err := r.u8()
	if err != nil {
		return nil, err
	}
	for tag == tcReset {
		r.handles = nil
		if err := r.count(); err != nil {
			return nil, err
		}
		if tag, err = r.u8(); err != nil {
			return nil, err
		}
	}
	return r.tagged(tag, depth)
}

// tagged reads what tag starts.
func (r *reader) tagged(tag byte, depth int) (any, error) {
	if err := r.count(); err != nil {
		return nil, err
	}
	if depth > r.limits.nesting {
		return nil, errors.New("the answer is nested too deep")
	}
	switch tag {
	case tcNull:
		return nil, nil
	case tcReference:
		return r.reference()
	case tcString, tcLongString:
		return r.stringObject(tag)
	case tcObject:
		return r.object(depth)
	case tcArray:
		return r.array(depth)
	case tcEnum:
		return r.enum(depth)
	case tcClass:
		c, err := r.classDesc(depth + 1)
		if err != nil {
			return nil, err
		}
		item := classItem{c}
		r.handles = append(r.handles, item)
		return item, nil
	case tcClassDesc, tcProxyClassDesc:
		c, err := r.newClassDesc(tag, depth)
		return classItem{c}, err
	case tcException:
		r.handles = nil
		thrown, err := r.content(depth + 1)
		if err != nil {
			return nil, err
		}
		return nil, &abortedError{thrown}
	}
	return nil, fmt.Errorf("0x%02x starts no object", tag)
}

func (r *reader) reference() (any, error) {
	h, err := r.i32()
	if err != nil {
		return nil, err
	}
	i := int(h) - baseHandle
	if i < 0 || i >= len(r.handles) {
		return nil, fmt.Errorf("a reference to the object %#x, which there is not", h)
	}
	if c, ok := r.handles[i].(*class); ok {
		if !c.defined {
			return nil, errors.New("a class refers to itself")
		}
		return classItem{c}, nil
	}
	return r.handles[i], nil
}

func (r *reader) stringObject(tag byte) (string, error) {
	var n int
	if tag == tcString {
		short, err := r.u16()
		if err != nil {
			return "", err
		}
		n = int(short)
	} else {
		long, err := r.u64()
		if err != nil {
			return "", err
		}
		if long > uint64(r.limits.bytes) {
			return "", errors.New("the answer is too long")
		}
		n = int(long)
	}
	s, err := r.text(n)
	if err != nil {
		return "", err
	}
	r.handles = append(r.handles, s)
	return s, nil
}

// classDesc reads a class descriptor, which may be null.
func (r *reader) classDesc(depth int) (*class, error) {
	tag, err := r.u8()
	if err != nil {
		return nil, err
	}
	switch tag {
	case tcNull:
		return nil, r.count()
	case tcReference, tcClassDesc, tcProxyClassDesc:
		v, err := r.tagged(tag, depth)
		if err != nil {
			return nil, err
		}
		item, ok := v.(classItem)
		if !ok {
			return nil, errors.New("a class was expected, and something else is referred to")
		}
		return item.class, nil
	}
	return nil, fmt.Errorf("a class was expected, not 0x%02x", tag)
}

func (r *reader) newClassDesc(tag byte, depth int) (*class, error) {
	c := &class{}
	if tag == tcProxyClassDesc {
		r.handles = append(r.handles, c)
		if err := r.proxyInterfaces(c); err != nil {
			return nil, err
		}
	} else if err := r.classInfo(c, depth); err != nil {
		return nil, err
	}
	if _, err := r.notes(depth); err != nil { // where to load the class from, which nobody does
		return nil, err
	}
	super, err := r.classDesc(depth + 1)
	if err != nil {
		return nil, err
	}
	c.super, c.layers = super, 1
	if super != nil {
		c.layers += super.layers
	}
	if c.layers > r.limits.hierarchy {
		return nil, errors.New("a class has too many superclasses")
	}
	c.defined = true
	return c, nil
}

func (r *reader) proxyInterfaces(c *class) error {
	c.proxy, c.flags, c.name = true, flagSerializable, "a proxy"
	n, err := r.i32()
	if err != nil {
		return err
	}
	for range n { // none when n is negative
		if err := r.count(); err != nil {
			return err
		}
		if _, err := r.utf(); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) classInfo(c *class, depth int) error {
	var err error
	if c.name, err = r.utf(); err != nil {
		return err
	}
	if _, err = r.u64(); err != nil { // serialVersionUID
		return err
	}
	r.handles = append(r.handles, c)
	if c.flags, err = r.u8(); err != nil {
		return err
	}
	n, err := r.u16()
	if err != nil {
		return err
	}
	for range n {
		f, err := r.fieldDesc(depth)
		if err != nil {
			return err
		}
		c.fields = append(c.fields, f)
	}
	return nil
}

func (r *reader) fieldDesc(depth int) (javaField, error) {
	if err := r.count(); err != nil {
		return javaField{}, err
	}
	code, err := r.u8()
	if err != nil {
		return javaField{}, err
	}
	name, err := r.utf()
	if err != nil {
		return javaField{}, err
	}
	switch {
	case strings.IndexByte("BCDFIJSZ", code) >= 0:
		return javaField{name, string(code)}, nil
	case code == 'L' || code == '[':
		v, err := r.content(depth + 1)
		if err != nil {
			return javaField{}, err
		}
		s, ok := v.(string)
		if !ok || s == "" || s[0] != code {
			return javaField{}, fmt.Errorf("the field %q has no type", name)
		}
		return javaField{name, s}, nil
	}
	return javaField{}, fmt.Errorf("the field %q has the type 0x%02x", name, code)
}

// notes reads what a class or an object wrote of its own accord, up to its end.
func (r *reader) notes(depth int) ([]any, error) {
	var notes []any
	for {
		tag, err := r.u8()
		if err != nil {
			return nil, err
		}
		switch tag {
		case tcEndBlockData:
			return notes, r.count()
		case tcReset:
			r.handles = nil
			if err := r.count(); err != nil {
				return nil, err
			}
		case tcBlockData, tcBlockDataLong:
			if err := r.count(); err != nil {
				return nil, err
			}
			n, err := r.blockLength(tag)
			if err != nil {
				return nil, err
			}
			b, err := r.bytes(n)
			if err != nil {
				return nil, err
			}
			notes = append(notes, b)
		default:
			v, err := r.tagged(tag, depth+1)
			if err != nil {
				return nil, err
			}
			notes = append(notes, v)
		}
	}
}

func (r *reader) object(depth int) (any, error) {
	c, err := r.classDesc(depth + 1)
	if err != nil {
		return nil, err
	}
	if c == nil {
		return nil, errors.New("an object without a class")
	}
	o := &object{class: c}
	r.handles = append(r.handles, o)
	hierarchy := make([]*class, 0, c.layers)
	for k := c; k != nil; k = k.super {
		hierarchy = append(hierarchy, k)
	}
	for i := len(hierarchy) - 1; i >= 0; i-- {
		if err := r.count(); err != nil {
			return nil, err
		}
		l := layer{class: hierarchy[i]}
		if err := r.layer(&l, depth); err != nil {
			return nil, err
		}
		if len(l.fields)+len(l.notes) > 0 {
			o.layers = append(o.layers, l)
		}
	}
	return o, nil
}

func (r *reader) layer(l *layer, depth int) error {
	var err error
	switch c := l.class; {
	case c.flags&flagExternalizable != 0:
		if c.flags&flagBlockData == 0 {
			return fmt.Errorf("an object of %q is written in a way that only its class can read", c.name)
		}
		l.notes, err = r.notes(depth)
		return err
	case c.flags&flagSerializable == 0:
		return fmt.Errorf("an object of %q, which is not serialisable", c.name)
	}
	for _, f := range l.class.fields {
		v, err := r.fieldValue(f, depth)
		if err != nil {
			return err
		}
		l.fields = append(l.fields, v)
	}
	if l.class.flags&flagWriteMethod != 0 {
		l.notes, err = r.notes(depth)
	}
	return err
}

func (r *reader) fieldValue(f javaField, depth int) (any, error) {
	if size(f.signature[0]) == 0 {
		return r.content(depth + 1)
	}
	if err := r.count(); err != nil {
		return nil, err
	}
	b := r.scratch[:size(f.signature[0])]
	if err := r.full(b); err != nil {
		return nil, err
	}
	return primitiveValue(f.signature[0], b), nil
}

// size is that of a primitive type in bytes, and 0 for the others.
func size(code byte) int {
	switch code {
	case 'B', 'Z':
		return 1
	case 'C', 'S':
		return 2
	case 'I', 'F':
		return 4
	case 'J', 'D':
		return 8
	}
	return 0
}

func primitiveValue(code byte, b []byte) any {
	switch code {
	case 'B':
		return int8(b[0])
	case 'Z':
		return b[0] != 0
	case 'C':
		return string(rune(binary.BigEndian.Uint16(b)))
	case 'S':
		return int16(binary.BigEndian.Uint16(b))
	case 'I':
		return int32(binary.BigEndian.Uint32(b))
	case 'F':
		return math.Float32frombits(binary.BigEndian.Uint32(b))
	case 'J':
		return int64(binary.BigEndian.Uint64(b))
	}
	return math.Float64frombits(binary.BigEndian.Uint64(b))
}

func (r *reader) enum(depth int) (any, error) {
	c, err := r.classDesc(depth + 1)
	if err != nil {
		return nil, err
	}
	if c == nil || c.flags&flagEnum == 0 {
		return nil, errors.New("a constant of what is not an enum")
	}
	i := len(r.handles)
	r.handles = append(r.handles, nil) // the constant's handle precedes its name's
	v, err := r.content(depth + 1)
	if err != nil {
		return nil, err
	}
	name, ok := v.(string)
	if !ok {
		return nil, errors.New("a constant of an enum has no name")
	}
	e := enum{c.name, name}
	if i < len(r.handles) { // the name may have come after a reset
		r.handles[i] = e
	}
	return e, nil
}

func (r *reader) array(depth int) (any, error) {
	c, err := r.classDesc(depth + 1)
	if err != nil {
		return nil, err
	}
	if c == nil || len(c.name) < 2 || c.name[0] != '[' {
		return nil, errors.New("an array of nothing")
	}
	a := &array{class: c}
	r.handles = append(r.handles, a)
	n, err := r.i32()
	if err != nil {
		return nil, err
	}
	if n < 0 {
		return nil, errors.New("an array has a negative length")
	}
	if code := c.name[1]; size(code) != 0 {
		a.elements, err = r.primitives(code, int(n))
		return a, err
	} else if code != 'L' && code != '[' {
		return nil, fmt.Errorf("an array of 0x%02x", code)
	}
	elements := []any{}
	for range n {
		v, err := r.content(depth + 1)
		if err != nil {
			return nil, err
		}
		elements = append(elements, v)
	}
	a.elements = elements
	return a, nil
}

func (r *reader) primitives(code byte, n int) (any, error) {
	if n > r.limits.bytes { // before it is multiplied
		return nil, errors.New("the answer is too long")
	}
	if code == 'C' { // an element each, which is a string
		if r.limits.values -= n; r.limits.values < 0 {
			return nil, errors.New("the answer has too many values")
		}
	}
	b, err := r.bytes(n * size(code))
	if err != nil {
		return nil, err
	}
	switch code {
	case 'B':
		return b, nil
	case 'Z':
		return slice(code, b, false), nil
	case 'C':
		return slice(code, b, ""), nil
	case 'S':
		return slice(code, b, int16(0)), nil
	case 'I':
		return slice(code, b, int32(0)), nil
	case 'F':
		return slice(code, b, float32(0)), nil
	case 'J':
		return slice(code, b, int64(0)), nil
	}
	return slice(code, b, float64(0)), nil
}

// slice turns bytes that are there into the elements of an array.
func slice[T any](code byte, b []byte, _ T) []T {
	s := make([]T, 0, len(b)/size(code))
	for ; len(b) > 0; b = b[size(code):] {
		v, _ := primitiveValue(code, b).(T)
		s = append(s, v)
	}
	return s
}
