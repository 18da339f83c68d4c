package node

import (
	"context"
	"slices"
	"strconv"
	"strings"
)

// TagLister is what an Operator also is that cannot list every tag (the Sidecar), or one tag at a much lower price.
type TagLister interface {
	// SnapshotsOf lists the node's snapshots of one tag, one entry per table; none when the node has none.
	SnapshotsOf(ctx context.Context, tag string) ([]Snapshot, error)
}

// SnapshotsOf lists one tag's snapshots of any Operator.
func SnapshotsOf(ctx context.Context, o Operator, tag string) ([]Snapshot, error) {
	if l, ok := o.(TagLister); ok {
		return l.SnapshotsOf(ctx, tag)
	}
	all, err := o.Snapshots(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(s Snapshot) bool { return s.Tag != tag }), nil
}

// ParseSize reads a size as Cassandra writes it for people ("110 bytes", "1.24 KiB"), in bytes; -1 when it is none. It is as exact as the text: three digits.
func ParseSize(text string) int64 {
	number, unit, _ := strings.Cut(strings.TrimSpace(text), " ")
	// The decimal point is that of the node's language.
	value, err := strconv.ParseFloat(strings.Replace(number, ",", ".", 1), 64)
	factor, known := map[string]float64{"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "PiB": 1 << 50}[unit]
	if bytes := value * factor; err == nil && known && bytes >= 0 && bytes < 1<<62 {
		return int64(bytes)
	}
	return -1
}
