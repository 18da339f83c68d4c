package upload

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
)

// sha256sum is what runs on a node: at low priority, for the node serves meanwhile.
const sha256sum = "nice -n 10 sha256sum"

// Bounds of one run of sha256sum.
const (
	maxCommand    = 32 << 10 // bytes of command line
	maxBatchFiles = 500
	maxBatchBytes = 8 << 30
)

// hasSums says whether the node can sum its files itself. Whatever it answers but the right sum of nothing means that it cannot.
func hasSums(ctx context.Context, files node.Files) bool {
	out, err := files.Run(ctx, sha256sum, bytes.NewReader(nil))
	if err != nil {
		return false
	}
	sums, err := parseSums(out)
	return err == nil && len(sums) == 1 && sums["-"] == sum(sha256.Sum256(nil))
}

// sumOnNode sums files, given by their absolute paths, by sha256sum on the node.
func sumOnNode(ctx context.Context, files node.Files, paths []string) (map[string]sum, error) {
	var line strings.Builder
	line.WriteString(sha256sum + " --")
	for _, p := range paths {
		line.WriteByte(' ')
		line.WriteString(node.Quote(p))
	}
	out, err := files.Run(ctx, line.String(), nil)
	if err != nil {
		var c *node.CommandError
		if errors.As(err, &c) {
			return nil, fmt.Errorf("sha256sum on the node: %w", &node.CommandError{Command: fmt.Sprintf("summing %s and %d more", paths[0], len(paths)-1), Exit: c.Exit, Stderr: c.Stderr})
		}
		return nil, broken(err)
	}
	sums, err := parseSums(out)
	if err != nil {
		return nil, fmt.Errorf("reading what sha256sum wrote: %w", err)
	}
	for _, p := range paths {
		if _, ok := sums[p]; !ok {
			return nil, &brokenError{fmt.Errorf("sha256sum ended well but gave no sum of %s", p)}
		}
	}
	return sums, nil
}

// parseSums reads the output of sha256sum: one line per file, the sum, a space, a space or an asterisk, and the name. A line that begins with a backslash has a
// name in which newlines, carriage returns and backslashes are escaped.
func parseSums(out []byte) (map[string]sum, error) {
	sums := map[string]sum{}
	for len(out) > 0 {
		line, rest, ok := bytes.Cut(out, []byte("\n"))
		if !ok {
			return nil, fmt.Errorf("its last line is cut off: %.80q", line)
		}
		out = rest
		line, escaped := bytes.CutPrefix(line, []byte(`\`))
		digits := hex.EncodedLen(sha256.Size)
		if len(line) < digits+3 || line[digits] != ' ' || (line[digits+1] != ' ' && line[digits+1] != '*') {
			return nil, fmt.Errorf("not a line of it: %.100q", line)
		}
		s, err := parseSum(string(line[:digits]))
		if err != nil {
			return nil, err
		}
		name := string(line[digits+2:])
		if escaped {
			if name, err = unescape(name); err != nil {
				return nil, err
			}
		}
		if old, ok := sums[name]; ok && old != s {
			return nil, fmt.Errorf("it has two sums of %q", name)
		}
		sums[name] = s
	}
	return sums, nil
}

func unescape(name string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if name[i] != '\\' {
			b.WriteByte(name[i])
			continue
		}
		i++
		switch {
		case i < len(name) && name[i] == '\\':
			b.WriteByte('\\')
		case i < len(name) && name[i] == 'n':
			b.WriteByte('\n')
		case i < len(name) && name[i] == 'r':
			b.WriteByte('\r')
		default:
			return "", fmt.Errorf("an escape that is not known in the name %.100q", name)
		}
	}
	return b.String(), nil
}

// item is one file to be summed.
type item struct {
	path string // absolute, on the node
	size int64
}

// batches cuts files into runs of sha256sum.
func batches(items []item) [][]item {
	var out [][]item
	var line int
	var bytes int64
	begin := 0
	for i, f := range items {
		length := len(node.Quote(f.path)) + 1
		if i > begin && (line+length > maxCommand || i-begin >= maxBatchFiles || bytes+f.size > maxBatchBytes) {
			out = append(out, items[begin:i])
			begin, line, bytes = i, 0, 0
		}
		line += length
		bytes += f.size
	}
	if begin < len(items) {
		out = append(out, items[begin:])
	}
	return out
}

// summer sums the files of one node, there where it can, else by reading them through us.
type summer struct {
	*lane
	onNode bool
}

func (l *lane) newSummer(ctx context.Context) (*summer, error) {
	s := &summer{lane: l, onNode: hasSums(ctx, l.files)}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !s.onNode {
		l.report("the node has no sha256sum: its files are read through this machine to sum them, and what is new is read twice", map[string]any{"node": l.name})
	}
	return s, nil
}

// sum sums one batch, again while that fails in a way that passes.
func (s *summer) sum(ctx context.Context, batch []item) (map[string]sum, error) {
	for failures := 1; ; failures++ {
		sums, err := s.once(ctx, batch)
		if err == nil || !isBroken(err) || !s.onNode || ctx.Err() != nil || failures == maxTries {
			return sums, err // pull has tried often enough by itself
		}
		if err := s.rest(ctx, "summing files", failures, err); err != nil {
			return nil, err
		}
	}
}

func (s *summer) once(ctx context.Context, batch []item) (map[string]sum, error) {
	if s.onNode {
		paths := make([]string, len(batch))
		for i, f := range batch {
			paths[i] = f.path
		}
		return sumOnNode(ctx, s.files, paths)
	}
	sums := make(map[string]sum, len(batch))
	for _, f := range batch {
		h := sha256.New()
		if err := s.pull(ctx, f.path, f.size, h); err != nil {
			return nil, fmt.Errorf("reading %s: %w", path.Base(f.path), err)
		}
		sums[f.path] = sum(h.Sum(nil))
	}
	return sums, nil
}
