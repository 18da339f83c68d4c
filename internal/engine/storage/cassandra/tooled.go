package cassandra

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/move"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/snapshot"
)

// tooled is a tool that has the data of a backup. It either fetches the files of a node, which are then placed like those of the catalog, or restores all nodes by
// itself while they are stopped.
type tooled struct {
	mover    move.Mover
	artifact engine.Artifact
	fetcher  move.Fetcher  // exactly one of the two
	restorer move.Restorer //
}

func (a *attempt) newTool() (*tooled, error) {
	kind := map[string]string{snapshot.DataMedusa: snapshot.KindMedusa, snapshot.DataCassy: snapshot.KindCassy}[a.ix.Data]
	i := slices.IndexFunc(a.r.Record.Artifacts, func(x engine.Artifact) bool { return x.Kind == kind })
	if i < 0 {
		return nil, fmt.Errorf("the backup's record has no %s", kind)
	}
	if a.d.s.Mover == nil {
		return nil, errors.New("the restore knows no such tool")
	}
	m, err := a.d.s.Mover(kind)
	if err != nil {
		return nil, err
	}
	t := &tooled{mover: m, artifact: a.r.Record.Artifacts[i]}
	t.fetcher, _ = m.(move.Fetcher)
	if t.fetcher == nil {
		if t.restorer, _ = m.(move.Restorer); t.restorer == nil {
			return nil, errors.New("it can neither fetch nor restore")
		}
	}
	return t, nil
}

func (a *attempt) placeOfMover() move.Place {
	return move.Place{Catalog: a.r.Catalog, Report: a.report, Nodes: func(context.Context) ([]move.Node, error) {
		out := make([]move.Node, len(a.nodes))
		for i, n := range a.nodes {
			out[i] = n.forMover()
		}
		return out, nil
	}}
}

// inspect asks the tool, before anything is changed, whether it has the backup, and all of it.
func (t *tooled) inspect(ctx context.Context, a *attempt) error {
	if err := t.mover.Inspect(ctx, a.placeOfMover(), t.artifact); err != nil {
		return fmt.Errorf("the backup's files in %s's storage: %w", t.mover.Name(), err)
	}
	return nil
}

// fetched is where a tool puts the files of one captured node, below a directory of ours on a node.
func fetched(directory, hostID string) string { return path.Join(directory, "fetched", hostID) }

// fetch brings the files of captured nodes to a directory of each node, which is made and must not be there.
func (t *tooled) fetch(ctx context.Context, a *attempt, directory func(*captured) string, wanted func(n *captured, from snapshot.Node) bool) error {
	return each(ctx, a.nodes, func(ctx context.Context, n *captured) error {
		for _, from := range a.ix.Nodes {
			list := a.lists[from.HostID]
			if list == nil || !wanted(n, from) {
				continue
			}
			if err := n.files.MkdirAll(ctx, path.Join(directory(n), "fetched"), 0o750); err != nil {
				return err
			}
			a.report("fetching the files of a node", map[string]any{"node": n.Address, "captured": from.Address, "tool": t.mover.Name()})
			if err := t.fetcher.Fetch(ctx, t.artifact, from, list, n.forMover(), fetched(directory(n), from.HostID)); err != nil {
				return err
			}
		}
		return nil
	})
}

// deliver gives the fetched files of one captured node to where its tables go: as hard links, or as copies where that is another file system. A table with files in
// several data directories was fetched into one.
func deliver(ctx context.Context, n *captured, from string, list *snapshot.FileList, to func(snapshot.Files) (string, bool)) error {
	done := map[node.Table]bool{}
	for _, t := range list.Tables {
		at := node.Table{Keyspace: t.Keyspace, Name: t.Table}
		dir, ok := to(t)
		if !ok || done[at] {
			continue
		}
		done[at] = true
		if err := n.files.MkdirAll(ctx, dir, 0o750); err != nil {
			return err
		}
		words := node.Quote(path.Join(from, t.Keyspace, snapshot.TableDirectory(t.Table, t.ID))+"/.") + " " + node.Quote(dir+"/")
		if _, err := n.files.Run(ctx, "cp -Rlp "+words+" 2>/dev/null || cp -Rp "+words, nil); err != nil {
			return fmt.Errorf("placing the files of table %s: %w", at, err)
		}
	}
	return nil
}

// restore lets the tool put all files back onto the stopped nodes, and looks whether they are there: all of those that were listed, or where none was, some of each
// node's.
func (t *tooled) restore(ctx context.Context, a *attempt, p *stoppedPlan) error {
	if err := t.restorer.Restore(ctx, a.placeOfMover(), t.artifact); err != nil {
		return err
	}
	return each(ctx, a.nodes, func(ctx context.Context, n *captured) error {
		sizes := map[node.Table]map[string]int64{}
		total := 0
		for at, dirs := range p.dirs[n.HostID] {
			sizes[at] = map[string]int64{}
			for _, dir := range dirs {
				entries, err := n.files.ReadDir(ctx, dir)
				if err != nil {
					return err
				}
				for _, e := range entries {
					sizes[at][e.Name] = e.Size
					if strings.HasSuffix(e.Name, dataEnd) {
						total++
					}
				}
			}
		}
		l := a.lists[p.from[n.HostID]]
		if l == nil {
			if total == 0 {
				return fmt.Errorf("%s said that it restored all, and no table has a file", t.mover.Name())
			}
			return nil
		}
		for _, tb := range l.Tables {
			for _, f := range tb.Files {
				if strings.Contains(f.Path, "/") || !strings.HasSuffix(f.Path, dataEnd) {
					continue
				}
				if size, ok := sizes[node.Table{Keyspace: tb.Keyspace, Name: tb.Table}][f.Path]; !ok || size != f.Size {
					return fmt.Errorf("%s said that it restored all, and %s of table %s.%s is missing or has another size", t.mover.Name(), f.Path, tb.Keyspace, tb.Table)
				}
			}
		}
		return nil
	})
}

// dataEnd ends the name of the file of an SSTable that has its rows.
const dataEnd = "-Data.db"
