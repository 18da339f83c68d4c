package rdsserver

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"math/big"
	"net/http"
	"reflect"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/document"
	smithytime "github.com/aws/smithy-go/time"
	"github.com/aws/smithy-go/traits"
)

// apiError is an answer other than success.
type apiError struct {
	code    string
	status  int // of HTTP
	message string
}

func (e *apiError) Error() string { return e.code + ": " + e.message }

func errorf(code string, status int, format string, args ...any) *apiError {
	return &apiError{code: code, status: status, message: fmt.Sprintf(format, args...)}
}

func invalidValue(format string, args ...any) *apiError {
	return errorf("InvalidParameterValue", http.StatusBadRequest, format, args...)
}

func invalidCombination(format string, args ...any) *apiError {
	return errorf("InvalidParameterCombination", http.StatusBadRequest, format, args...)
}

// fault is an error that the API's model has, with the code and the status that the model gives it.
func fault(f interface{ ErrorCode() string }, format string, args ...any) *apiError {
	status := http.StatusBadRequest
	if entry, ok := rds.TypeRegistry.Entries["com.amazonaws.rds#"+reflect.TypeOf(f).Elem().Name()]; ok {
		if t, ok := smithy.SchemaTrait[*traits.HTTPError](entry.Schema); ok {
			status = t.Code
		}
	}
	return errorf(f.ErrorCode(), status, format, args...)
}

func (e *apiError) xml(namespace, id string) []byte {
	var b bytes.Buffer
	kind := "Sender"
	if e.status >= 500 {
		kind = "Receiver"
	}
	fmt.Fprintf(&b, `<ErrorResponse xmlns="%s"><Error><Type>%s</Type><Code>%s</Code><Message>`, namespace, kind, e.code)
	_ = xml.EscapeText(&b, []byte(e.message))
	fmt.Fprintf(&b, `</Message></Error><RequestId>%s</RequestId></ErrorResponse>`, id)
	return b.Bytes()
}

// success is the XML of a successful answer; out is nil where the API has no result.
func success(action, namespace, id string, out smithy.Serializable) []byte {
	e := &encoder{root: action + "Result"}
	if out != nil {
		out.Serialize(e)
	}
	return fmt.Appendf(nil, `<%[1]sResponse xmlns="%[2]s">%[3]s<ResponseMetadata><RequestId>%[4]s</RequestId></ResponseMetadata></%[1]sResponse>`, action,
		namespace, e.Bytes(), id)
}

// encoder writes the SDK's output structs as the XML of the AWS Query protocol. It is a smithy.ShapeSerializer.
type encoder struct {
	buf   bytes.Buffer
	root  string
	stack []frame
}

// frame is one open element.
type frame struct {
	name string
	item string // not empty: a list, of elements with this name
}

func (e *encoder) open(schema *smithy.Schema, item string) {
	name := e.name(schema)
	e.stack = append(e.stack, frame{name: name, item: item})
	e.buf.WriteString("<" + name + ">")
}

func (e *encoder) shut() {
	top := e.stack[len(e.stack)-1]
	e.stack = e.stack[:len(e.stack)-1]
	e.buf.WriteString("</" + top.name + ">")
}

func (e *encoder) name(schema *smithy.Schema) string {
	if len(e.stack) == 0 {
		return e.root
	}
	if item := e.stack[len(e.stack)-1].item; item != "" {
		return item
	}
	return wireName(schema)
}

func (e *encoder) scalar(schema *smithy.Schema, text string) {
	name := e.name(schema)
	e.buf.WriteString("<" + name + ">")
	_ = xml.EscapeText(&e.buf, []byte(text))
	e.buf.WriteString("</" + name + ">")
}

// Bytes returns what was written.
func (e *encoder) Bytes() []byte { return e.buf.Bytes() }

func (e *encoder) WriteInt8(s *smithy.Schema, v int8)       { e.scalar(s, strconv.Itoa(int(v))) }
func (e *encoder) WriteInt16(s *smithy.Schema, v int16)     { e.scalar(s, strconv.Itoa(int(v))) }
func (e *encoder) WriteInt32(s *smithy.Schema, v int32)     { e.scalar(s, strconv.Itoa(int(v))) }
func (e *encoder) WriteInt64(s *smithy.Schema, v int64)     { e.scalar(s, strconv.FormatInt(v, 10)) }
func (e *encoder) WriteFloat32(s *smithy.Schema, v float32) { e.WriteFloat64(s, float64(v)) }
func (e *encoder) WriteFloat64(s *smithy.Schema, v float64) {
	e.scalar(s, strconv.FormatFloat(v, 'f', -1, 64))
}
func (e *encoder) WriteBool(s *smithy.Schema, v bool)     { e.scalar(s, strconv.FormatBool(v)) }
func (e *encoder) WriteString(s *smithy.Schema, v string) { e.scalar(s, v) }
func (e *encoder) WriteBlob(s *smithy.Schema, v []byte) {
	e.scalar(s, base64.StdEncoding.EncodeToString(v))
}
func (e *encoder) WriteTime(s *smithy.Schema, v time.Time) {
	e.scalar(s, smithytime.FormatDateTime(v.UTC().Truncate(time.Millisecond)))
}
func (e *encoder) WriteNil(*smithy.Schema)              {}
func (e *encoder) WriteStruct(s *smithy.Schema)         { e.open(s, "") }
func (e *encoder) CloseStruct()                         { e.shut() }
func (e *encoder) WriteList(s *smithy.Schema)           { e.open(s, wireName(s.ListMember())) }
func (e *encoder) CloseList()                           { e.shut() }
func (e *encoder) WriteMap(*smithy.Schema)              { panic("RDS's answers have no maps") }
func (e *encoder) WriteKey(*smithy.Schema, string)      { panic("RDS's answers have no maps") }
func (e *encoder) CloseMap()                            { panic("RDS's answers have no maps") }
func (e *encoder) WriteUnion(_, _ *smithy.Schema)       { panic("RDS's answers have no unions") }
func (e *encoder) CloseUnion()                          { panic("RDS's answers have no unions") }
func (e *encoder) WriteBigInt(*smithy.Schema, *big.Int) { panic("RDS's answers have no big numbers") }
func (e *encoder) WriteBigFloat(*smithy.Schema, *big.Float) {
	panic("RDS's answers have no big numbers")
}
func (e *encoder) WriteDocument(*smithy.Schema, document.Value) {
	panic("RDS's answers have no documents")
}
