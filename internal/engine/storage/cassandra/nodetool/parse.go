package nodetool

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
)

var hostID = regexp.MustCompile(`(?m)^ID\s*:\s*([0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})\s*$`)

// parseHostID reads `nodetool info`.
func parseHostID(out string) (string, error) {
	found := hostID.FindStringSubmatch(out)
	if found == nil {
		return "", fmt.Errorf("nodetool info does not tell the host id; it said: %s", reason(out))
	}
	return strings.ToLower(found[1]), nil
}

// listed is a row of `nodetool listsnapshots`: columns side by side, filled up with blanks. A tag may have blanks in it, names of keyspaces and tables
// cannot. What comes after the two sizes depends on the release.
var listed = regexp.MustCompile(`^(.*\S)\s+(\S+)\s+(\S+)\s+([0-9][0-9.,]* (?:bytes|[KMGTP]iB))\s+([0-9][0-9.,]* (?:bytes|[KMGTP]iB))(?:\s|$)`)

// parseSnapshots reads `nodetool listsnapshots` of 4.0 to 5.0. An output that is neither a list nor says that there is none is an error.
func parseSnapshots(out string) ([]node.Snapshot, error) {
	var all []node.Snapshot
	header, end, none := false, false, false
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, " \r\n")
		switch {
		case line == "There are no snapshots" && !header:
			none = true
		case strings.HasPrefix(line, "Snapshot name") && strings.Contains(line, "True size"):
			header = true
		case strings.HasPrefix(line, "Total TrueDiskSpaceUsed:"):
			end = true
		case header && !end && line != "":
			m := listed.FindStringSubmatch(line)
			if m == nil {
				return nil, fmt.Errorf("a row is not one: %q", cut(line))
			}
			all = append(all, node.Snapshot{
				Tag: strings.TrimLeft(m[1], " "), Keyspace: m[2], Table: m[3], TrueSize: node.ParseSize(m[4]), Size: node.ParseSize(m[5]),
			})
		}
	}
	switch {
	case none && !header:
		return nil, nil
	case !header || !end: // cut off in the middle it must not look like a short list
		return nil, fmt.Errorf("it is not a whole list: %s", reason(out))
	}
	return all, nil
}

// parseFailedImports reads what `nodetool import` says of directories that failed.
func parseFailedImports(out string) []string {
	_, after, ok := strings.Cut(out, "Some directories failed to import, check server logs for details:")
	if !ok {
		return nil
	}
	var failed []string
	for line := range strings.Lines(after) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "/") {
			failed = append(failed, cut(line))
		}
	}
	return failed
}

// document finds the JSON object in an output: a JVM may say something before and after it.
func document(out string, v any) error {
	for line := range strings.Lines(out) {
		if start := strings.TrimLeft(line, " \t"); strings.HasPrefix(start, "{") {
			rest := out[strings.Index(out, line):]
			if err := json.NewDecoder(strings.NewReader(rest)).Decode(v); err != nil {
				return fmt.Errorf("it is no JSON: %w", err)
			}
			return nil
		}
	}
	return fmt.Errorf("there is no JSON in it: %s", reason(out))
}

// parseDataPaths reads `nodetool datapaths -F json`: the directories of every table, each two below a data directory.
func parseDataPaths(out string) ([]string, error) {
	var keyspaces map[string]map[string][]string
	if err := document(out, &keyspaces); err != nil {
		return nil, err
	}
	found := map[string]bool{}
	for keyspace, tables := range keyspaces {
		for _, dirs := range tables {
			for _, d := range dirs {
				parent := path.Dir(path.Clean(d))
				if !path.IsAbs(d) || path.Base(parent) != keyspace {
					return nil, fmt.Errorf("%q is not the directory of a table of keyspace %s", cut(d), keyspace)
				}
				found[path.Dir(parent)] = true
			}
		}
	}
	if len(found) == 0 {
		return nil, errors.New("it names no directory")
	}
	return slices.Sorted(maps.Keys(found)), nil
}
