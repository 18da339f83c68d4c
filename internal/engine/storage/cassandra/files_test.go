package cassandra

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/testclock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/local"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
)

const accountsID = "aaaaaaaa-1111-11f0-8111-111111111111"

// disks makes a node with two data directories, and a snapshot of one table over both.
func disks(t *testing.T) (*captured, func(path, content string)) {
	t.Helper()
	root := t.TempDir()
	write := func(path, content string) {
		t.Helper()
		full := filepath.Join(root, path)
		must(t, os.MkdirAll(filepath.Dir(full), 0o700))
		must(t, os.WriteFile(full, []byte(content), 0o600))
	}
	const first, second = "d1/bank/accounts-aaaaaaaa111111f08111111111111111/snapshots/T/", "d2/bank/accounts-aaaaaaaa111111f08111111111111111/snapshots/T/"
	write(first+"manifest.json", `{"files":["nb-1-big-Data.db",".idx/nb-1-big-Data.db","nb-2-big-Data.db"]}`)
	write(first+"schema.cql", "CREATE")
	write(first+"nb-1-big-Data.db", "one")
	write(first+".idx/nb-1-big-Data.db", "index")
	write(second+"nb-2-big-Data.db", "two")
	// Not of this snapshot.
	write("d1/bank/accounts-aaaaaaaa111111f08111111111111111/snapshots/OTHER/nb-1-big-Data.db", "x")
	write("d1/bank/accounts-bbbbbbbb111111f08111111111111111/snapshots/T/nb-1-big-Data.db", "of a table that was dropped")
	return &captured{member: &member{Node: node.Node{HostID: hostID(1)}}, files: local.Machine{Clock: testclock.New(), Getenv: os.Getenv},
		directories: []string{filepath.Join(root, "d1"), filepath.Join(root, "d2")}}, write
}

func TestListFiles(t *testing.T) {
	tables := map[node.Table]string{accounts: accountsID}
	n, _ := disks(t)
	l, err := listFiles(t.Context(), n, "T", tables)
	must(t, err)
	if files, size := l.Total(); len(l.Tables) != 2 || files != 5 || size == 0 || l.Tables[0].Files[0].Path != ".idx/nb-1-big-Data.db" || !strings.HasSuffix(l.Tables[1].Directory, "/snapshots/T") {
		t.Errorf("list %+v", l)
	}
	const first = "d1/bank/accounts-aaaaaaaa111111f08111111111111111/snapshots/T/"
	for name, c := range map[string]struct {
		spoil func(dir string, write func(string, string))
		want  string
	}{
		"a file is missing": {func(dir string, _ func(string, string)) {
			must(t, os.Remove(filepath.Join(dir, first, ".idx/nb-1-big-Data.db")))
		}, "lacks .idx/nb-1-big-Data.db"},
		"a file is empty": {func(_ string, write func(string, string)) { write(first+"nb-1-big-Data.db", "") }, "nb-1-big-Data.db is empty"},
		"no manifest": {func(dir string, _ func(string, string)) {
			must(t, os.Remove(filepath.Join(dir, first, "manifest.json")))
		}, "has no snapshot T"},
		"a manifest that is none":  {func(_ string, write func(string, string)) { write(first+"manifest.json", "{") }, "manifest.json"},
		"a manifest without files": {func(_ string, write func(string, string)) { write(first+"manifest.json", "{}") }, "names no files"},
		"a link": {func(dir string, _ func(string, string)) {
			must(t, os.Symlink("/etc/passwd", filepath.Join(dir, first, "nb-3-big-Data.db")))
		}, "symbolic link"},
		"a folder":    {func(_ string, write func(string, string)) { write(first+"folder/x", "x") }, "is a directory"},
		"no snapshot": {func(dir string, _ func(string, string)) { must(t, os.RemoveAll(filepath.Join(dir, "d1"))) }, "has no snapshot T"},
	} {
		n, write := disks(t)
		c.spoil(filepath.Dir(n.directories[0]), write)
		if _, err := listFiles(t.Context(), n, "T", tables); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "bank.accounts") {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
