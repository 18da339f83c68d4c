package medusa

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/move"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/snapshot"
)

var _ move.Fetcher = Mover{}

// Fetch runs `medusa download` on a node, in the name of the captured one, and compares what came with the list.
func (m Mover) Fetch(ctx context.Context, a engine.Artifact, from snapshot.Node, list *snapshot.FileList, to move.Node, directory string) error {
	if err := m.fetch(ctx, a, from, list, to, directory); err != nil {
		return fmt.Errorf("fetching medusa's backup %s of node %s to %s of node %s: %w", a.ID, from.HostID, directory, to.Address, err)
	}
	return nil
}

func (m Mover) fetch(ctx context.Context, a engine.Artifact, from snapshot.Node, list *snapshot.FileList, to move.Node, directory string) error {
	fqdn := ""
	for pair := range strings.SplitSeq(a.Extra[extraNodes], ",") {
		if id, name, ok := strings.Cut(pair, "="); ok && id == from.HostID {
			fqdn = name
		}
	}
	if a.Kind != snapshot.KindMedusa || fqdn == "" {
		return errors.New("the artifact does not tell the node's name in medusa's storage")
	}
	t, err := m.Settings.tool(to)
	if err != nil {
		return err
	}
	var found stored
	if err := t.ask(ctx, &found, "manifest", a.ID, fqdn); err != nil {
		return err
	}
	if !found.Complete {
		return fmt.Errorf("medusa's storage does not have it: %w", engine.ErrNotFound)
	}
	// Before anything is downloaded: that these are still the files of the backup.
	if _, err := found.compare(list, known(list)); err != nil {
		return err
	}
	if _, err := t.files.Stat(ctx, directory); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(errors.New("the directory is there already"), err)
	}
	if err := t.files.MkdirAll(ctx, directory, 0o750); err != nil {
		return err
	}
	if err := t.run(ctx, fqdn, "download", "--backup-name", a.ID, "--download-destination", directory); err != nil {
		return fmt.Errorf("running medusa download: %w", err)
	}
	return landed(ctx, t.files, list, directory)
}

// landed looks whether all of the list is there.
func landed(ctx context.Context, files node.Files, list *snapshot.FileList, directory string) error {
	for _, t := range list.Tables {
		table := path.Join(directory, t.Keyspace, snapshot.TableDirectory(t.Table, t.ID))
		sizes := map[string]map[string]int64{} // by directory
		for _, f := range t.Files {
			if notStored(f.Path) {
				continue
			}
			full := path.Join(table, f.Path)
			dir := path.Dir(full)
			if sizes[dir] == nil {
				entries, err := files.ReadDir(ctx, dir)
				if err != nil {
					return err
				}
				sizes[dir] = map[string]int64{}
				for _, e := range entries {
					sizes[dir][e.Name] = e.Size
				}
			}
			size, ok := sizes[dir][path.Base(full)]
			changing := strings.HasSuffix(full, statisticsEnd) || strings.HasSuffix(full, summaryEnd)
			if !ok || size != f.Size && !changing {
				return fmt.Errorf("medusa said that it downloaded all, and %s is missing or has another size than %d bytes", full, f.Size)
			}
			if f.SHA256 != "" && strings.HasSuffix(full, digestEnd) {
				if err := sameSum(ctx, files, full, f.SHA256); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func sameSum(ctx context.Context, files node.Files, name, want string) error {
	r, err := files.Open(ctx, name, 0)
	if err != nil {
		return err
	}
	data, err := io.ReadAll(io.LimitReader(r, maxDigest))
	if err := errors.Join(err, r.Close()); err != nil {
		return err
	}
	if sum(data) != want {
		return fmt.Errorf("%s is of another SSTable", name)
	}
	return nil
}
