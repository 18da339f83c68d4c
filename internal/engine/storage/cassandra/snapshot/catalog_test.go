package snapshot

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/memcatalog"
)

const (
	prefix = "backups/nightly/0123456789abcdef/orders/"
	host1  = "11111111-1111-4111-8111-111111111111"
	host2  = "22222222-2222-4222-8222-222222222222"
	table1 = "aaaaaaaa-1111-11f0-8111-111111111111"
)

func index() *Index {
	return &Index{
		Version: 1, Cluster: "prod", Partitioner: "org.apache.cassandra.dht.Murmur3Partitioner", Tag: "scalardb-nightly-0123456789abcdef", Data: DataUpload,
		CapturedAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Keyspaces: []Keyspace{{Name: "shop", Replication: map[string]string{"class": "SimpleStrategy", "replication_factor": "3"}, CQL: []string{"CREATE KEYSPACE shop"},
			Tables: []Table{{Name: "items", ID: table1, GCGraceSeconds: 864000}}}},
		Nodes: []Node{
			{HostID: host1, Address: "10.0.0.1", Datacenter: "dc1", Rack: "r1", Version: "5.0.9", Tokens: []string{"-9223372036854775808", "-5", "7"}},
			{HostID: host2, Address: "10.0.0.2", Datacenter: "dc1", Rack: "r2", Version: "5.0.9", Tokens: []string{"0"}},
		},
	}
}

func list() *FileList {
	return &FileList{Version: 1, HostID: host1, Tables: []Files{{Keyspace: "shop", Table: "items", ID: table1, Directory: "/data/shop/items-aaaaaaaa111111f08111111111111111/snapshots/t",
		Files: []File{{Path: ".idx/nb-1-big-Data.db", Size: 1}, {Path: "nb-1-big-Data.db", Size: 10, SHA256: strings.Repeat("ab", 32)}}}}}
}

func catalog() *memcatalog.Catalog { return memcatalog.New(time.Now) }

func TestIndexAndFilesComeBack(t *testing.T) {
	c, ix := catalog(), index()
	if err := WriteFiles(t.Context(), c, prefix, list(), &ix.Nodes[0]); err != nil {
		t.Fatal(err)
	}
	if n := ix.Nodes[0]; n.Files != prefix+"nodes/"+host1+".json" || n.FileCount != 2 || n.Bytes != 11 {
		t.Errorf("the index says %+v of the list", n)
	}
	a, err := WriteIndex(t.Context(), c, prefix, ix)
	if err != nil {
		t.Fatal(err)
	}
	if a.Kind != KindIndex || a.ID != prefix+IndexName || a.SHA256 == "" {
		t.Errorf("artifact %+v", a)
	}
	got, err := ReadIndex(t.Context(), c, a)
	if err != nil || !reflect.DeepEqual(got, ix) {
		t.Errorf("read %+v, %v", got, err)
	}
	files, err := ReadFiles(t.Context(), c, got.Nodes[0])
	if err != nil || !reflect.DeepEqual(files, list()) {
		t.Errorf("read %+v, %v", files, err)
	}
	if _, err := ReadFiles(t.Context(), c, got.Nodes[1]); err == nil || !strings.Contains(err.Error(), "were not listed") {
		t.Errorf("a node without a list: %v", err)
	}
	if _, err := WriteIndex(t.Context(), c, prefix, ix); !errors.Is(err, engine.ErrExists) {
		t.Errorf("a second index: %v", err)
	}
	other := a
	other.SHA256 = strings.Repeat("0", 64)
	if _, err := ReadIndex(t.Context(), c, other); !errors.Is(err, ErrDamaged) {
		t.Errorf("an index with another checksum: %v", err)
	}
	damaged := got.Nodes[0]
	damaged.FilesSHA256 = strings.Repeat("0", 64)
	if _, err := ReadFiles(t.Context(), c, damaged); !errors.Is(err, ErrDamaged) {
		t.Errorf("a list with another checksum: %v", err)
	}
	if err := c.Delete(t.Context(), a.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadIndex(t.Context(), c, a); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("an index that is gone: %v", err)
	}
}

func TestNeverWriteWhatCannotBeRead(t *testing.T) {
	for name, spoil := range map[string]func(*Index){
		"no version":           func(i *Index) { i.Version = 0 },
		"later version":        func(i *Index) { i.Version = Version + 1 },
		"tag with a slash":     func(i *Index) { i.Tag = "a/b" },
		"unknown data":         func(i *Index) { i.Data = "tape" },
		"no time":              func(i *Index) { i.CapturedAt = time.Time{} },
		"no nodes":             func(i *Index) { i.Nodes = nil },
		"no keyspaces":         func(i *Index) { i.Keyspaces = nil },
		"nodes out of order":   func(i *Index) { i.Nodes[0], i.Nodes[1] = i.Nodes[1], i.Nodes[0] },
		"a node twice":         func(i *Index) { i.Nodes[1].HostID = host1 },
		"tokens out of order":  func(i *Index) { i.Nodes[0].Tokens = []string{"7", "-5"} },
		"no tokens":            func(i *Index) { i.Nodes[0].Tokens = nil },
		"a token that is none": func(i *Index) { i.Nodes[0].Tokens = []string{"+1"} },
		"list of another node": func(i *Index) {
			i.Nodes[0].Files, i.Nodes[0].FilesSHA256 = FilesName(prefix, host2), strings.Repeat("a", 64)
		},
		"list elsewhere": func(i *Index) {
			i.Nodes[0].Files, i.Nodes[0].FilesSHA256 = FilesName("backups/x/y/z/", host1), strings.Repeat("a", 64)
		},
		"list without a sum": func(i *Index) { i.Nodes[0].Files = FilesName(prefix, host1) },
		"no schema":          func(i *Index) { i.Keyspaces[0].CQL = nil },
		"no replication":     func(i *Index) { i.Keyspaces[0].Replication = nil },
		"a keyspace's name":  func(i *Index) { i.Keyspaces[0].Name = "a b" },
		"a table's id":       func(i *Index) { i.Keyspaces[0].Tables[0].ID = "x" },
	} {
		c, ix := catalog(), index()
		spoil(ix)
		if _, err := WriteIndex(t.Context(), c, prefix, ix); err == nil || len(c.Names()) > 0 {
			t.Errorf("%s: it was written (%v)", name, err)
		}
	}
	if _, err := WriteIndex(t.Context(), catalog(), "/etc/", index()); err == nil {
		t.Error("an index outside of the catalog's names was written")
	}
	for name, spoil := range map[string]func(*FileList){
		"another node":          func(l *FileList) { l.HostID = host2 },
		"a way out":             func(l *FileList) { l.Tables[0].Files[0].Path = "../x" },
		"a hidden way out":      func(l *FileList) { l.Tables[0].Files[0].Path = "../../etc/passwd" },
		"an absolute file":      func(l *FileList) { l.Tables[0].Files[0].Path = "/x" },
		"a deep file":           func(l *FileList) { l.Tables[0].Files[0].Path = ".a/b/c" },
		"a visible folder":      func(l *FileList) { l.Tables[0].Files[0].Path = "a/b" },
		"dots for a folder":     func(l *FileList) { l.Tables[0].Files[0].Path = "../b" },
		"a file twice":          func(l *FileList) { l.Tables[0].Files[0] = l.Tables[0].Files[1] },
		"negative size":         func(l *FileList) { l.Tables[0].Files[0].Size = -1 },
		"half a sum":            func(l *FileList) { l.Tables[0].Files[0].SHA256 = "ab" },
		"a relative directory":  func(l *FileList) { l.Tables[0].Directory = "data" },
		"an unclean directory":  func(l *FileList) { l.Tables[0].Directory = "/data/../etc" },
		"a table twice":         func(l *FileList) { l.Tables = append(l.Tables, l.Tables[0]) },
		"a table without an id": func(l *FileList) { l.Tables[0].ID = "" },
	} {
		c, l, n := catalog(), list(), index().Nodes[0]
		spoil(l)
		if err := WriteFiles(t.Context(), c, prefix, l, &n); err == nil || len(c.Names()) > 0 || n.Files != "" {
			t.Errorf("%s: it was written (%v)", name, err)
		}
	}
}

// A list of a node with very many files is larger than what Catalog.Read returns.
func TestLongLists(t *testing.T) {
	l, n, c := list(), index().Nodes[0], catalog()
	l.Tables[0].Files = nil
	for i := range 200_000 {
		l.Tables[0].Files = append(l.Tables[0].Files, File{Path: "nb-" + string([]byte{byte('a' + i/26/26/26/26%26), byte('a' + i/26/26/26%26), byte('a' + i/26/26%26), byte('a' + i/26%26), byte('a' + i%26)}) + "-big-Data.db",
			Size: 1, SHA256: strings.Repeat("ab", 32)})
	}
	if err := WriteFiles(t.Context(), c, prefix, l, &n); err != nil {
		t.Fatal(err)
	}
	if size := len(c.Peek(n.Files)); size < maxIndex {
		t.Fatalf("the list has %d bytes, too few to show anything", size)
	}
	if got, err := ReadFiles(t.Context(), c, n); err != nil || len(got.Tables[0].Files) != 200_000 {
		t.Errorf("reading it: %v", err)
	}
}

func FuzzIndex(f *testing.F) {
	data, err := json.Marshal(index())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{}`))
	f.Add(bytes.Repeat([]byte("["), 10000))
	f.Fuzz(func(t *testing.T, data []byte) {
		ix, err := parseIndex(data, prefix+IndexName)
		if err != nil {
			return
		}
		c := catalog()
		a, err := WriteIndex(t.Context(), c, prefix, ix)
		if err != nil {
			t.Fatalf("it was read and cannot be written: %v", err)
		}
		if _, err := ReadIndex(t.Context(), c, a); err != nil {
			t.Fatalf("it was written and cannot be read: %v", err)
		}
	})
}

func FuzzFiles(f *testing.F) {
	data, err := json.Marshal(list())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"version":1}{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := parseFiles(data, FilesName(prefix, host1), host1)
		if err != nil {
			return
		}
		for _, table := range l.Tables {
			for _, file := range table.Files {
				if strings.HasPrefix(file.Path, "/") || strings.Contains("/"+file.Path+"/", "/../") {
					t.Fatalf("path %q was taken", file.Path)
				}
			}
		}
		c, n := catalog(), index().Nodes[0]
		if err := WriteFiles(t.Context(), c, prefix, l, &n); err != nil {
			t.Fatalf("it was read and cannot be written: %v", err)
		}
		if _, err := ReadFiles(t.Context(), c, n); err != nil {
			t.Fatalf("it was written and cannot be read: %v", err)
		}
	})
}
