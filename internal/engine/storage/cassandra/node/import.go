package node

import (
	"fmt"
	"path"
	"regexp"
	"strings"
)

var tableID = regexp.MustCompile(`^-[0-9a-f]{32}$`)

// CheckImport refuses directories that an Importer may not be given. Cassandra takes an SSTable's keyspace and table from the names of the directories it lies
// in, and passes over those of others without a word: an import from elsewhere succeeds, and loads nothing. So each has to be .../KEYSPACE/TABLE, or
// .../KEYSPACE/TABLE-ID, of the table that is imported into, whatever its name was where the files come from.
func CheckImport(keyspace, table string, directories []string) error {
	for _, d := range directories {
		if !path.IsAbs(d) || strings.ContainsAny(d, "\x00\n") {
			return fmt.Errorf("importing into %s.%s: %q is not an absolute path", keyspace, table, d)
		}
		d = path.Clean(d)
		rest, ok := strings.CutPrefix(path.Base(d), table)
		if !ok || rest != "" && !tableID.MatchString(rest) || path.Base(path.Dir(d)) != keyspace {
			return fmt.Errorf("importing into %s.%s: Cassandra would load nothing from %q: the directory has to be .../%s/%s", keyspace, table, d, keyspace, table)
		}
	}
	return nil
}
