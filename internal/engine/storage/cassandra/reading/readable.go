package reading

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	gocql "github.com/apache/cassandra-gocql-driver/v2"
)

// readable is a key column's value for messages.
func readable(info gocql.TypeInfo, data []byte) string {
	if data == nil {
		return "null"
	}
	if info == nil {
		return hexadecimal(data)
	}
	into := func(v any) bool { return gocql.Unmarshal(info, data, v) == nil }
	switch info.Type() {
	case gocql.TypeVarchar, gocql.TypeText, gocql.TypeAscii:
		return text(string(data))
	case gocql.TypeInt, gocql.TypeBigInt, gocql.TypeSmallInt, gocql.TypeTinyInt, gocql.TypeCounter:
		var n int64
		if into(&n) {
			return strconv.FormatInt(n, 10)
		}
	case gocql.TypeVarint, gocql.TypeUUID, gocql.TypeTimeUUID, gocql.TypeDate, gocql.TypeInet:
		var s string
		if into(&s) {
			return text(s)
		}
	case gocql.TypeBoolean:
		var b bool
		if into(&b) {
			return strconv.FormatBool(b)
		}
	case gocql.TypeFloat:
		var f float32
		if into(&f) {
			return strconv.FormatFloat(float64(f), 'g', -1, 32)
		}
	case gocql.TypeDouble:
		var f float64
		if into(&f) {
			return strconv.FormatFloat(f, 'g', -1, 64)
		}
	case gocql.TypeTimestamp:
		var t time.Time
		if into(&t) {
			return t.UTC().Format(time.RFC3339Nano)
		}
	case gocql.TypeTime:
		var d time.Duration
		if into(&d) {
			return time.Unix(0, int64(d)).UTC().Format("15:04:05.999999999")
		}
	}
	return hexadecimal(data)
}

func hexadecimal(data []byte) string {
	if len(data) > maxReadable/2 {
		return "0x" + hex.EncodeToString(data[:maxReadable/2]) + "..."
	}
	return "0x" + hex.EncodeToString(data)
}

// text is short, and one line: what cannot be printed, or would look like the next column, is quoted.
func text(s string) string {
	cut := ""
	if len(s) > maxReadable {
		s, cut = strings.ToValidUTF8(s[:maxReadable], ""), "..."
	}
	if s == "" || strings.ContainsFunc(s, func(r rune) bool {
		return !unicode.IsPrint(r) || r == ',' || r == '=' || r == '"' || r == unicode.ReplacementChar
	}) {
		s = fmt.Sprintf("%q", s)
	}
	return s + cut
}
