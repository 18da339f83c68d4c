package jmx

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"unicode/utf16"
)

// The Java Object Serialization Stream Protocol, version 2 (chapter 6 of the Java Object Serialization Specification).
const (
	streamHeader = "\xac\xed\x00\x05"

	tcNull           = 0x70
	tcReference      = 0x71
	tcClassDesc      = 0x72
	tcObject         = 0x73
	tcString         = 0x74
	tcArray          = 0x75
	tcClass          = 0x76
	tcBlockData      = 0x77
	tcEndBlockData   = 0x78
	tcReset          = 0x79
	tcBlockDataLong  = 0x7a
	tcException      = 0x7b
	tcLongString     = 0x7c
	tcProxyClassDesc = 0x7d
	tcEnum           = 0x7e

	baseHandle = 0x7e0000

	flagWriteMethod    = 0x01
	flagSerializable   = 0x02
	flagExternalizable = 0x04
	flagBlockData      = 0x08
	flagEnum           = 0x10
)

// javaClass is a class that is written. Its objects are made by writer.value.
type javaClass struct {
	name   string
	suid   uint64
	flags  byte
	fields []javaField
	super  *javaClass
}

// javaField is a field with its type in the notation of class files.
type javaField struct{ name, signature string }

// The classes of the arguments. The serialVersionUID of an array is not checked by Java; these are the right ones all the same.
var (
	classNumber  = &javaClass{name: "java.lang.Number", suid: 0x86AC951D0B94E08B, flags: flagSerializable}
	classInteger = &javaClass{"java.lang.Integer", 0x12E2A0A4F7818738, flagSerializable, []javaField{{"value", "I"}}, classNumber}
	classLong    = &javaClass{"java.lang.Long", 0x3B8BE490CC8F23DF, flagSerializable, []javaField{{"value", "J"}}, classNumber}
	classDouble  = &javaClass{"java.lang.Double", 0x80B3C24A296BFB04, flagSerializable, []javaField{{"value", "D"}}, classNumber}
	classBoolean = &javaClass{"java.lang.Boolean", 0xCD207280D59CFAEE, flagSerializable, []javaField{{"value", "Z"}}, nil}
	classStrings = &javaClass{name: "[Ljava.lang.String;", suid: 0xADD256E7E91D7B47, flags: flagSerializable}
	classObjects = &javaClass{name: "[Ljava.lang.Object;", suid: 0x90CE589F1073296C, flags: flagSerializable}
	classBytes   = &javaClass{name: "[B", suid: 0xACF317F8060854E0, flags: flagSerializable}
	classHashMap = &javaClass{"java.util.HashMap", 0x0507DAC1C31660D1, flagSerializable | flagWriteMethod, []javaField{{"loadFactor", "F"}, {"threshold", "I"}}, nil}
	classHashSet = &javaClass{name: "java.util.HashSet", suid: 0xBA44859596B8B734, flags: flagSerializable | flagWriteMethod}
	classList    = &javaClass{"java.util.ArrayList", 0x7881D21D99C7619D, flagSerializable | flagWriteMethod, []javaField{{"size", "I"}}, nil}

	classObjectName       = &javaClass{name: "javax.management.ObjectName", suid: 0x0F03A71BEB6D15CF, flags: flagSerializable | flagWriteMethod}
	classMarshalledObject = &javaClass{"java.rmi.MarshalledObject", 0x7CBD1E97ED63FC3E, flagSerializable,
		[]javaField{{"hash", "I"}, {"locBytes", "[B"}, {"objBytes", "[B"}}, nil}
)

const loadFactor = 0.75 // of HashMap and HashSet, Java's default

// marshalled is the content of a java.rmi.MarshalledObject: a stream of its own.
type marshalled []byte

// marshal makes the MarshalledObject of an Object[].
func marshal(args []any) (marshalled, error) {
	w := writer{b: []byte(streamHeader)}
	if err := w.value(args); err != nil {
		return nil, err
	}
	return w.b, nil
}

// hash is what MarshalledObject.hashCode says.
func (m marshalled) hash() int32 {
	h := int32(0)
	for _, b := range m {
		h = 31*h + int32(int8(b))
	}
	return h
}

// writer appends to a serialisation stream.
type writer struct {
	b       []byte
	rmi     bool // the stream of a call: every class has the place to load it from as an annotation, which is null
	handles int
	classes map[*javaClass]int // with their handles
}

func (w *writer) u8(v byte)    { w.b = append(w.b, v) }
func (w *writer) u16(v uint16) { w.b = binary.BigEndian.AppendUint16(w.b, v) }
func (w *writer) i32(v int32)  { w.b = binary.BigEndian.AppendUint32(w.b, uint32(v)) }
func (w *writer) u64(v uint64) { w.b = binary.BigEndian.AppendUint64(w.b, v) }

// utf is DataOutput.writeUTF. The text is one of ours and short.
func (w *writer) utf(s string) {
	b := modifiedUTF8(s)
	w.u16(uint16(len(b)))
	w.b = append(w.b, b...)
}

// string writes a new string object, also when the same was written before.
func (w *writer) string(s string) {
	w.handles++
	b := modifiedUTF8(s)
	if len(b) <= math.MaxUint16 {
		w.u8(tcString)
		w.u16(uint16(len(b)))
	} else {
		w.u8(tcLongString)
		w.u64(uint64(len(b)))
	}
	w.b = append(w.b, b...)
}

// class writes a class descriptor, or a reference to it.
func (w *writer) class(c *javaClass) {
	if c == nil {
		w.u8(tcNull)
		return
	}
	if h, ok := w.classes[c]; ok {
		w.u8(tcReference)
		w.i32(int32(baseHandle + h))
		return
	}
	if w.classes == nil {
		w.classes = make(map[*javaClass]int)
	}
	w.classes[c] = w.handles
	w.handles++
	w.u8(tcClassDesc)
	w.utf(c.name)
	w.u64(c.suid)
	w.u8(c.flags)
	w.u16(uint16(len(c.fields)))
	for _, f := range c.fields {
		w.u8(f.signature[0])
		w.utf(f.name)
		if len(f.signature) > 1 {
			w.string(f.signature)
		}
	}
	if w.rmi {
		w.u8(tcNull)
	}
	w.u8(tcEndBlockData)
	w.class(c.super)
}

// object starts an object; what it holds follows.
func (w *writer) object(c *javaClass) {
	w.u8(tcObject)
	w.class(c)
	w.handles++
}

// array starts an array; its elements follow.
func (w *writer) array(c *javaClass, n int) error {
	if n > math.MaxInt32 {
		return fmt.Errorf("%d elements are too many for an array", n)
	}
	w.u8(tcArray)
	w.class(c)
	w.handles++
	w.i32(int32(n))
	return nil
}

// block writes block data of at most 255 bytes.
func (w *writer) block(b []byte) {
	w.u8(tcBlockData)
	w.u8(byte(len(b)))
	w.b = append(w.b, b...)
}

// value writes one of the arguments that Invoke names, or what the calls themselves need: []any and marshalled.
func (w *writer) value(v any) error {
	switch v := v.(type) {
	case nil:
		w.u8(tcNull)
	case string:
		w.string(v)
	case bool:
		w.object(classBoolean)
		if v {
			w.u8(1)
		} else {
			w.u8(0)
		}
	case int32:
		w.object(classInteger)
		w.i32(v)
	case int64:
		w.object(classLong)
		w.u64(uint64(v))
	case float64:
		w.object(classDouble)
		w.u64(math.Float64bits(v))
	case ObjectName:
		w.object(classObjectName)
		w.string(string(v))
		w.u8(tcEndBlockData)
	case []string:
		if err := w.array(classStrings, len(v)); err != nil {
			return err
		}
		w.strings(v)
	case []any:
		if err := w.array(classObjects, len(v)); err != nil {
			return err
		}
		for i, e := range v {
			if err := w.value(e); err != nil {
				return fmt.Errorf("element %d: %w", i, err)
			}
		}
	case map[string]string:
		return w.hashMap(v)
	case Set:
		return w.hashSet(v)
	case List:
		return w.list(v)
	case marshalled:
		w.object(classMarshalledObject)
		w.i32(v.hash())
		w.u8(tcNull)
		if err := w.array(classBytes, len(v)); err != nil {
			return err
		}
		w.b = append(w.b, v...)
	default:
		return fmt.Errorf("an argument of the type %T cannot be sent", v)
	}
	return nil
}

func (w *writer) strings(s []string) {
	for _, e := range s {
		w.string(e)
	}
}

// buckets is a capacity that holds n elements: a power of two, as Java's own would be.
func buckets(n int) (int32, error) {
	if n > 1<<20 {
		return 0, fmt.Errorf("%d elements are too many for an argument", n)
	}
	capacity := int32(16)
	for float64(n) > float64(capacity)*loadFactor {
		capacity *= 2
	}
	return capacity, nil
}

func (w *writer) hashMap(m map[string]string) error {
	capacity, err := buckets(len(m))
	if err != nil {
		return err
	}
	w.object(classHashMap)
	w.i32(int32(math.Float32bits(loadFactor)))
	w.i32(int32(float64(capacity) * loadFactor))
	w.block(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, uint32(capacity)), uint32(len(m))))
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		w.string(k)
		w.string(m[k])
	}
	w.u8(tcEndBlockData)
	return nil
}

func (w *writer) hashSet(s Set) error {
	capacity, err := buckets(len(s))
	if err != nil {
		return err
	}
	w.object(classHashSet)
	b := binary.BigEndian.AppendUint32(nil, uint32(capacity))
	b = binary.BigEndian.AppendUint32(b, math.Float32bits(loadFactor))
	w.block(binary.BigEndian.AppendUint32(b, uint32(len(s))))
	w.strings(s)
	w.u8(tcEndBlockData)
	return nil
}

func (w *writer) list(l List) error {
	if _, err := buckets(len(l)); err != nil {
		return err
	}
	w.object(classList)
	w.i32(int32(len(l)))
	w.block(binary.BigEndian.AppendUint32(nil, uint32(len(l))))
	w.strings(l)
	w.u8(tcEndBlockData)
	return nil
}

// modifiedUTF8 is Java's: UTF-8 of UTF-16, and a zero in two bytes.
func modifiedUTF8(s string) []byte {
	b := make([]byte, 0, len(s))
	for _, r := range s {
		switch {
		case r > 0xFFFF:
			high, low := utf16.EncodeRune(r)
			b = appendUnit(appendUnit(b, high), low)
		default:
			b = appendUnit(b, r)
		}
	}
	return b
}

func appendUnit(b []byte, u rune) []byte {
	switch {
	case u >= 1 && u <= 0x7F:
		return append(b, byte(u))
	case u <= 0x7FF:
		return append(b, 0xC0|byte(u>>6), 0x80|byte(u&0x3F))
	}
	return append(b, 0xE0|byte(u>>12), 0x80|byte(u>>6&0x3F), 0x80|byte(u&0x3F))
}

// fromModifiedUTF8 fails where Java's readUTF does. Half a surrogate pair becomes U+FFFD.
func fromModifiedUTF8(b []byte) (string, error) {
	ascii := true
	for _, c := range b {
		if c >= 0x80 {
			ascii = false
			break
		}
	}
	if ascii {
		return string(b), nil
	}
	units := make([]uint16, 0, len(b))
	for i := 0; i < len(b); {
		c := b[i]
		n := 1
		switch {
		case c < 0x80:
			units = append(units, uint16(c))
		case c>>5 == 0b110:
			n = 2
		case c>>4 == 0b1110:
			n = 3
		default:
			return "", errMalformedText
		}
		if i+n > len(b) {
			return "", errMalformedText
		}
		for _, next := range b[i+1 : i+n] {
			if next>>6 != 0b10 {
				return "", errMalformedText
			}
		}
		switch n {
		case 2:
			units = append(units, uint16(c&0x1F)<<6|uint16(b[i+1]&0x3F))
		case 3:
			units = append(units, uint16(c&0x0F)<<12|uint16(b[i+1]&0x3F)<<6|uint16(b[i+2]&0x3F))
		}
		i += n
	}
	return string(utf16.Decode(units)), nil
}
