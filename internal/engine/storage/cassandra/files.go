package cassandra

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/snapshot"
)

// maxManifest bounds the manifest.json of one table's snapshot.
const maxManifest = 64 << 20

// listFiles lists the snapshot's files on one node and compares them with the manifests that Cassandra wrote: each SSTable that a manifest names is there,
// with something in it, and every table that must be has one.
func listFiles(ctx context.Context, n *captured, tag string, tables map[node.Table]string) (*snapshot.FileList, error) {
	out := &snapshot.FileList{Version: snapshot.Version, HostID: n.HostID}
	for _, t := range sortedTables(tables) {
		id := tables[t]
		var found []snapshot.Files
		sizes := map[string]int64{}
		var named []string
		manifests := 0
		for _, data := range n.directories {
			dir := path.Join(data, t.Keyspace, snapshot.TableDirectory(t.Name, id), "snapshots", tag)
			files, err := listDirectory(ctx, n.files, dir)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("listing the snapshot of table %s: %w", t, err)
			}
			for _, f := range files {
				sizes[f.Path] = f.Size
			}
			if slices.ContainsFunc(files, func(f snapshot.File) bool { return f.Path == "manifest.json" }) {
				in, err := readManifest(ctx, n.files, path.Join(dir, "manifest.json"))
				if err != nil {
					return nil, fmt.Errorf("the snapshot of table %s: %w", t, err)
				}
				named = append(named, in...)
				manifests++
			}
			found = append(found, snapshot.Files{Keyspace: t.Keyspace, Table: t.Name, ID: id, Directory: dir, Files: files})
		}
		if manifests == 0 {
			return nil, fmt.Errorf("table %s has no snapshot %s in %s", t, tag, strings.Join(n.directories, ", "))
		}
		for _, f := range named {
			switch size, ok := sizes[f]; {
			case !ok:
				return nil, fmt.Errorf("the snapshot of table %s lacks %s, which its manifest names", t, f)
			case size == 0:
				return nil, fmt.Errorf("in the snapshot of table %s file %s is empty", t, f)
			}
		}
		out.Tables = append(out.Tables, found...)
	}
	out.Sort()
	return out, nil
}

func sortedTables(tables map[node.Table]string) []node.Table {
	out := make([]node.Table, 0, len(tables))
	for t := range tables {
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b node.Table) int { return strings.Compare(a.String(), b.String()) })
	return out
}

// listDirectory lists a snapshot's directory and those of its indexes.
func listDirectory(ctx context.Context, files node.Files, dir string) (out []snapshot.File, err error) {
	entries, err := files.ReadDir(ctx, dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		switch {
		case e.Link:
			return nil, fmt.Errorf("%s is a symbolic link", path.Join(dir, e.Name))
		case !e.Dir:
			out = append(out, snapshot.File{Path: e.Name, Size: e.Size})
		case strings.HasPrefix(e.Name, "."):
			inner, err := files.ReadDir(ctx, path.Join(dir, e.Name))
			if err != nil {
				return nil, err
			}
			for _, f := range inner {
				if f.Dir || f.Link {
					return nil, fmt.Errorf("%s is no file", path.Join(dir, e.Name, f.Name))
				}
				out = append(out, snapshot.File{Path: e.Name + "/" + f.Name, Size: f.Size})
			}
		default:
			return nil, fmt.Errorf("%s is a directory, which a snapshot has none of", path.Join(dir, e.Name))
		}
	}
	return out, nil
}

// readManifest reads which data files Cassandra put into a snapshot.
func readManifest(ctx context.Context, files node.Files, name string) (named []string, err error) {
	r, err := files.Open(ctx, name, 0)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	data, err := io.ReadAll(io.LimitReader(r, maxManifest+1))
	if err := errors.Join(err, r.Close()); err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	var m struct {
		Files *[]string `json:"files"`
	}
	if len(data) > maxManifest {
		return nil, fmt.Errorf("reading %s: it is larger than %d bytes", name, maxManifest)
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	if m.Files == nil {
		return nil, fmt.Errorf("reading %s: it names no files", name)
	}
	return *m.Files, nil
}
