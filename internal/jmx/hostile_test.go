package jmx

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

func reading(b []byte) *bufio.Reader { return bufio.NewReader(bytes.NewReader(b)) }

// raw is a stream of these bytes as the value of an answer.
func raw(b ...byte) []byte {
	return returns(nil, func(w *writer) { w.b = append(w.b, b...) })
}

func be32(n int32) []byte { return binary.BigEndian.AppendUint32(nil, uint32(n)) }

func cat(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case int:
			b = append(b, byte(p))
		case rune:
			b = append(b, byte(p))
		case string:
			b = append(b, p...)
		case []byte:
			b = append(b, p...)
		default:
			panic(p)
		}
	}
	return b
}

// classBytesOf is a class descriptor without annotation; super follows.
func classBytesOf(name string, flags byte, fields ...javaField) []byte {
	w := writer{}
	w.u8(tcClassDesc)
	w.utf(name)
	w.u64(1)
	w.u8(flags)
	w.u16(uint16(len(fields)))
	for _, f := range fields {
		w.u8(f.signature[0])
		w.utf(f.name)
		if len(f.signature) > 1 {
			w.string(f.signature)
		}
	}
	w.u8(tcEndBlockData)
	return w.b
}

// crafted are answers that are wrong, or that want more than they are.
func crafted() map[string][]byte {
	objects := cat(tcArray, classBytesOf("[Ljava.lang.Object;", 2), tcNull)
	ref := func(n int32) []byte { return cat(tcReference, be32(baseHandle+n)) }
	list := func(size int32, capacity []byte, rest ...byte) []byte {
		return cat(tcObject, classBytesOf("java.util.ArrayList", 3, javaField{"size", "I"}), tcNull, be32(size), tcBlockData, len(capacity), capacity, rest)
	}
	layer := func(name string, flags byte, data ...any) []byte {
		return cat(append([]any{tcObject, classBytesOf(name, flags), tcNull}, data...)...)
	}
	deepClasses := func(n int) []byte {
		b := []byte{tcObject}
		for range n {
			b = append(b, classBytesOf("c", 2)...)
		}
		return append(b, tcNull)
	}
	return map[string][]byte{
		"no value":                     raw(),
		"an unknown tag":               raw(0x20),
		"the end of block data":        raw(tcEndBlockData),
		"bytes instead of an object":   raw(tcBlockData, 0),
		"a reference to nothing":       raw(ref(0)...),
		"a reference below all":        raw(cat(tcReference, be32(0))...),
		"a reference beyond all":       raw(cat(tcReference, be32(math.MaxInt32))...),
		"a negative reference":         raw(cat(tcReference, be32(-1))...),
		"text that is not UTF-8":       raw(tcString, 0, 1, 0xff),
		"half a character":             raw(tcString, 0, 1, 0xc3),
		"a long string without end":    raw(tcLongString, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
		"an array without end":         raw(cat(objects, be32(math.MaxInt32))...),
		"a negative array":             raw(cat(objects, be32(-1))...),
		"bytes without end":            raw(cat(tcArray, classBytesOf("[B", 2), tcNull, be32(math.MaxInt32))...),
		"numbers without end":          raw(cat(tcArray, classBytesOf("[J", 2), tcNull, be32(math.MaxInt32))...),
		"bytes that do not come":       raw(cat(tcArray, classBytesOf("[B", 2), tcNull, be32(7<<20))...),
		"text that does not come":      raw(cat(tcLongString, be32(0), be32(7<<20))...),
		"numbers that do not come":     raw(cat(tcArray, classBytesOf("[J", 2), tcNull, be32(7<<17))...),
		"too long in all":              raw(cat(objects, be32(9), bytes.Repeat(cat(tcLongString, be32(0), be32(1<<20), make1M()), 9))...),
		"characters without end":       raw(cat(tcArray, classBytesOf("[C", 2), tcNull, be32(8<<20))...),
		"an array of nothing":          raw(cat(tcArray, classBytesOf("[", 2), tcNull, be32(0))...),
		"an array of void":             raw(cat(tcArray, classBytesOf("[V", 2), tcNull, be32(0))...),
		"an array that is none":        raw(cat(tcArray, classBytesOf("x", 2), tcNull, be32(0))...),
		"an array without class":       raw(tcArray, tcNull),
		"an object without class":      raw(tcObject, tcNull),
		"an object of a string":        raw(cat(objects, be32(2), tcString, 0, 1, 'a', tcObject, ref(2))...),
		"its own superclass":           raw(cat(tcObject, classBytesOf("x", 2), ref(0))...),
		"a field without type":         raw(cat(tcObject, tcClassDesc, 0, 1, "x", make([]byte, 8), 2, 0, 1, 'L', 0, 1, "f", tcNull)...),
		"a field of another type":      raw(cat(tcObject, tcClassDesc, 0, 1, "x", make([]byte, 8), 2, 0, 1, 'L', 0, 1, "f", tcString, 0, 2, "[B")...),
		"a field of no type":           raw(cat(tcObject, tcClassDesc, 0, 1, "x", make([]byte, 8), 2, 0, 1, 'V', 0, 1, "f")...),
		"fields without end":           raw(cat(tcObject, tcClassDesc, 0, 1, "x", make([]byte, 8), 2, 0xff, 0xff, 'I', 0, 1, "f")...),
		"not serialisable":             raw(cat(tcObject, classBytesOf("x", 0), tcNull)...),
		"externalizable, version 1":    raw(cat(tcObject, classBytesOf("x", flagExternalizable), tcNull)...),
		"an enum that is none":         raw(cat(tcEnum, classBytesOf("x", 2), tcNull, tcString, 0, 1, "A")...),
		"an enum without name":         raw(cat(tcEnum, classBytesOf("x", flagEnum|2), tcNull, tcNull)...),
		"an enum named after itself":   raw(cat(tcEnum, classBytesOf("x", flagEnum|2), tcNull, ref(1))...),
		"interfaces without end":       raw(cat(tcObject, tcProxyClassDesc, be32(math.MaxInt32), 0, 0)...),
		"block data of negative size":  raw(cat(tcObject, classBytesOf("x", 3), tcNull, tcBlockDataLong, be32(-1))...),
		"block data without end":       raw(cat(tcObject, classBytesOf("x", 3), tcNull, tcBlockDataLong, be32(math.MaxInt32))...),
		"a class without name":         raw(tcClass, tcNull),
		"too many superclasses":        raw(deepClasses(65)...),
		"far too many superclasses":    raw(deepClasses(100_000)...),
		"nested too deep":              raw(bytes.Repeat(cat(tcArray, classBytesOf("[Ljava.lang.Object;", 2), tcNull, be32(1)), 300)...),
		"nested far too deep":          raw(bytes.Repeat(cat(tcArray, classBytesOf("[Ljava.lang.Object;", 2), tcNull, be32(1)), 100_000)...),
		"nested in annotations":        raw(bytes.Repeat(cat(tcObject, classBytesOf("x", 3), tcNull), 100_000)...),
		"nested in class annotations":  raw(bytes.Repeat(cat(tcObject, tcClassDesc, 0, 1, "x", make([]byte, 8), 3, 0, 0), 100_000)...),
		"resets without end":           raw(bytes.Repeat([]byte{tcReset}, 2<<20)...),
		"an array that holds itself":   raw(cat(objects, be32(1), ref(1))...),
		"a list that holds itself":     raw(list(1, be32(1), cat(ref(1), tcEndBlockData)...)...),
		"a list that is too short":     raw(list(2, be32(2), tcNull, tcEndBlockData)...),
		"a list of negative size":      raw(list(-1, be32(1), tcNull, tcEndBlockData)...),
		"a list of bytes":              raw(list(1, be32(1), tcBlockData, 1, 0, tcEndBlockData)...),
		"a list without anything":      raw(list(0, nil, tcEndBlockData)...),
		"a list with more block data":  raw(list(1, be32(1), tcBlockData, 0, tcNull, tcEndBlockData)...),
		"a map of negative size":       raw(layer("java.util.HashMap", 3, tcBlockData, 8, be32(1), be32(-1), tcEndBlockData)...),
		"a map that is too short":      raw(layer("java.util.HashMap", 3, tcBlockData, 8, be32(1), be32(math.MaxInt32), tcNull, tcEndBlockData)...),
		"a map without end":            raw(layer("java.util.concurrent.ConcurrentHashMap", 3, tcString, 0, 1, "a", tcEndBlockData)...),
		"a key without value":          raw(layer("java.util.concurrent.ConcurrentHashMap", 3, tcString, 0, 1, "a", tcNull, tcEndBlockData)...),
		"a number without value":       raw(layer("java.lang.Integer", 2)...),
		"a name without name":          raw(layer("javax.management.ObjectName", 3, tcEndBlockData)...),
		"a name that is a number":      raw(layer("javax.management.ObjectName", 3, tcNull, tcEndBlockData)...),
		"an attribute without name":    raw(layer("javax.management.Attribute", 2)...),
		"a date without time":          raw(layer("java.util.Date", 3, tcBlockData, 1, 0, tcEndBlockData)...),
		"items without a map":          raw(layer("javax.management.openmbean.CompositeDataSupport", 2)...),
		"a table without rows":         raw(layer("javax.management.openmbean.TabularDataSupport", 2)...),
		"a view of nothing":            raw(layer("java.util.Collections$UnmodifiableCollection", 2)...),
		"a map view of nothing":        raw(layer("java.util.Collections$UnmodifiableMap", 2)...),
		"an array view of nothing":     raw(layer("java.util.Arrays$ArrayList", 2)...),
		"a vector of nothing":          raw(layer("java.util.Vector", 2)...),
		"an exception amid the answer": raw(cat(tcException, tcNull, tcReset)...),
		"an exception that is none":    reply(returnThrown, nil, func(w *writer) { w.u8(tcNull) }),
		"a void answer":                returns(nil, nil),
		"a primitive for an object":    returns([]byte{1}, nil),
		"not an answer":                []byte("HTTP/1.1 400 Bad Request"),
		"no stream":                    []byte("Q\xca\xfe\xba\xbe"),
		"an object for the head":       cat("Q", streamHeader, tcNull),
	}
}

func TestCraftedAnswers(t *testing.T) {
	for name, b := range crafted() {
		var err error
		allocated := allocatedBy(func() { _, err = read(b, answerLimits, returnsObject) })
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		if limit := uint64(1<<20 + 64*len(b)); allocated > limit {
			t.Errorf("%s: %d bytes of answer allocated %d (%v)", name, len(b), allocated, err)
		}
	}
}

// The nesting is bounded while it is read: later would be too late for the stack.
func TestNesting(t *testing.T) {
	nested := func(n int) []byte {
		head := cat(tcArray, classBytesOf("[Ljava.lang.Object;", 2), tcNull, be32(1))
		return raw(cat(bytes.Repeat(head, n), tcNull)...)
	}
	for n, good := range map[int]bool{1: true, 250: true, 300: false, 50_000: false} {
		if _, _, err := readAnswer(reading(nested(n)), answerLimits, returnsObject); (err == nil) != good {
			t.Errorf("nested %d times: %v", n, err)
		}
	}
}

// allocatedBy is how much f allocates in all.
func allocatedBy(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestAnswersCutOff(t *testing.T) {
	security := javaException("java.lang.SecurityException", "java.lang.RuntimeException")
	for name, k := range map[string]struct {
		answer  []byte
		returns int
	}{
		"a string": {returns(nil, func(w *writer) { w.string("text") }), returnsObject},
		"a bool":   {returns([]byte{1}, nil), returnsBool},
		"nothing":  {returns(nil, nil), returnsVoid},
		"a stub": {returns(nil, func(w *writer) {
			w.stub(unicastRef2("h", 1, connID, func(w *writer) { w.object(classBoolean); w.u8(1) }))
		}), returnsObject},
		"an exception": {throws(security, "message", func(w *writer) { w.throwable(security, "cause", nil) }), returnsObject},
	} {
		for i := range k.answer {
			if _, _, err := readAnswer(reading(k.answer[:i]), answerLimits, k.returns); err == nil {
				t.Errorf("%s, cut off after %d of %d bytes: no error", name, i, len(k.answer))
			}
		}
		if _, _, err := readAnswer(reading(k.answer), answerLimits, k.returns); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An answer of 8 MiB must not become hundreds of megabytes.
func TestAmplification(t *testing.T) {
	const size = 8<<20 - 4096
	objects := cat(tcArray, classBytesOf("[Ljava.lang.Object;", 2), tcNull)
	fill := func(head []byte, element []byte) []byte {
		n := size / len(element)
		return raw(cat(head, be32(int32(n)), bytes.Repeat(element, n))...)
	}
	wide := func() []byte { // one class of 64 layers, then objects of it in 6 bytes each
		b := cat(objects, be32(size/6), tcObject)
		for range 64 {
			b = append(b, classBytesOf("c", 2)...)
		}
		b = append(b, tcNull)
		return raw(append(b, bytes.Repeat(cat(tcObject, tcReference, be32(baseHandle+2)), size/6)...)...)
	}
	doubling := func() []byte { // an array of two references to an array of two references to ...
		b := cat(tcArray, classBytesOf("[Ljava.lang.Object;", 2), tcNull, be32(41), tcNull)
		for i := range 40 {
			b = append(b, cat(tcArray, tcReference, be32(baseHandle), be32(2))...)
			for range 2 {
				b = append(b, cat(tcReference, be32(baseHandle+1+int32(i)))...)
			}
		}
		return raw(b...)
	}
	doublingBelow := func() []byte { // the same without the circle
		b := cat(tcArray, classBytesOf("[Ljava.lang.Object;", 2), tcNull, be32(41), tcArray, tcReference, be32(baseHandle), be32(0))
		for i := range 40 {
			b = append(b, cat(tcArray, tcReference, be32(baseHandle), be32(2))...)
			for range 2 {
				b = append(b, cat(tcReference, be32(baseHandle+2+int32(i)))...)
			}
		}
		return raw(b...)
	}
	text := func() []byte { // a megabyte of text, and references to it
		b := cat(tcArray, classBytesOf("[Ljava.lang.Object;", 2), tcNull, be32(500_001), tcLongString, be32(0), be32(1<<20), bytes.Repeat([]byte("x"), 1<<20))
		return raw(append(b, bytes.Repeat(cat(tcReference, be32(baseHandle+2)), 500_000)...)...)
	}
	for name, b := range map[string][]byte{
		"nulls":              fill(objects, []byte{tcNull}),
		"strings":            fill(objects, []byte{tcString, 0, 0}),
		"arrays":             fill(objects, cat(tcArray, tcReference, be32(baseHandle), be32(0))),
		"objects":            raw(cat(objects, be32(size/6), tcObject, classBytesOf("c", 3), tcNull, tcEndBlockData, bytes.Repeat(cat(tcObject, tcReference, be32(baseHandle+2), tcEndBlockData), size/7))...),
		"objects of layers":  wide(),
		"pieces of data":     raw(cat(tcObject, classBytesOf("c", 3), tcNull, bytes.Repeat([]byte{tcBlockData, 1, 0}, size/3))...),
		"characters":         raw(cat(tcArray, classBytesOf("[C", 2), tcNull, be32(size/2), make([]byte, size))...),
		"fields":             raw(cat(tcObject, bytes.Repeat(cat(tcClassDesc, 0, 0, make([]byte, 8), 2, 0xff, 0xff, bytes.Repeat([]byte("I\x00\x00"), 65535), tcEndBlockData), 40))...),
		"references doubled": doubling(),
		"doubled, no circle": doublingBelow(),
		"references to text": text(),
	} {
		var err error
		start := time.Now()
		allocated := allocatedBy(func() { _, err = read(b, answerLimits, returnsObject) })
		t.Logf("%s: %d bytes, %d MiB allocated, %s: %v", name, len(b), allocated>>20, time.Since(start), err)
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		if allocated > 256<<20 {
			t.Errorf("%s: %d MiB allocated", name, allocated>>20)
		}
	}
	// What is only long is not refused.
	if _, err := read(raw(cat(tcArray, classBytesOf("[B", 2), tcNull, be32(size), make([]byte, size))...), answerLimits, returnsObject); err != nil {
		t.Error(err)
	}
	if _, err := read(fill(objects, append([]byte{tcString, 0, 20}, make20()...)), answerLimits, returnsObject); err != nil {
		t.Error(err)
	}
}

func make1M() []byte { return bytes.Repeat([]byte("x"), 1<<20) }

func make20() []byte { return bytes.Repeat([]byte("a"), 20) }

func TestCausesInACircle(t *testing.T) {
	inner := javaException("x.Inner")
	b := throws(javaException("x.Outer"), "outer", func(w *writer) {
		outer := int32(baseHandle + w.handles - 1)
		w.throwable(inner, "inner\x1b[2J", func(w *writer) { w.u8(tcReference); w.i32(outer) })
	})
	_, err := read(b, answerLimits, returnsObject)
	var thrown *Throwable
	if !errors.As(err, &thrown) {
		t.Fatal(err)
	}
	if s := err.Error(); len(s) > 1000 || strings.ContainsRune(s, 0x1b) {
		t.Error(s)
	}
	if thrown.has("nothing") || thrown.refuses("nothing") {
		t.Error("there is nothing")
	}
}

func FuzzReadReturn(f *testing.F) {
	for _, b := range crafted() {
		if len(b) < 1000 {
			f.Add(b)
		}
	}
	for _, b := range recorded(f) {
		f.Add(append(slices.Clone(raw()), b[len(streamHeader):]...))
	}
	f.Add(throws(javaException("x.Y"), "message", nil))
	f.Add((&fakeServer{}).stubAnswer(connID))
	small := limits{bytes: 64 << 10, values: 4096, nesting: 256, hierarchy: 64}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, returns := range []int{returnsObject, returnsBool, returnsVoid} {
			a, _, err := readAnswer(reading(b), small, returns)
			if err != nil {
				continue
			}
			_, _ = referenceOf(a.value)
			s := simplifier{values: 1 << 14, text: 1 << 20}
			if v, err := s.value(a.value, 0); err == nil {
				_, _ = Strings(v)
				_, _ = StringMap(v)
			}
			if a.thrown != nil && len(a.thrown.Error()) > 8*(maxMessage+70000) {
				t.Errorf("an error of %d bytes", len(a.thrown.Error()))
			}
		}
	})
}

// What is sent can be read back, whatever the text.
func FuzzArguments(f *testing.F) {
	f.Add("text", "a\x00é€😀", int32(7), true)
	f.Fuzz(func(t *testing.T, a, b string, n int32, yes bool) {
		clean := func(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
		a, b = clean(a), clean(b)
		w := writer{b: []byte(streamHeader), rmi: true}
		if err := w.value([]any{a, map[string]string{a: b}, n, yes, Set{b}, []string{a, b}, ObjectName(a)}); err != nil {
			t.Fatal(err)
		}
		got, err := readStream(w.b, answerLimits)
		if err != nil {
			t.Fatal(err)
		}
		same(t, "arguments", got, []any{a, Map{{a, b}}, n, yes, []any{b}, []any{a, b}, ObjectName(a)})
	})
}
