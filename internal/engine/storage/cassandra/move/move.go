// Package move says what takes a snapshot's data off the nodes after the window, or leaves it there: one Mover per key of `data`. Package cassandra
// calls it; upload, medusa and cassy implement it. It is a package of its own so that they need not import the driver.
//
// The order of calls in a run: Tag, Preflight, then on the Session Planned and Facts, TakeSnapshots in the window (only of a Snapshotter), Move in
// await, Discard instead of or after any of them, Close always and last. Inspect and Delete come in other processes, long after.
package move

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/snapshot"
)

// Mover is one way that data leaves the nodes. It is made from settings alone and opens nothing by itself.
type Mover interface {
	// Name is its key in HCL: snapshot.DataNodes, snapshot.DataUpload, ...
	Name() string
	// NeedsFiles says that Node.Files must be open on every node.
	NeedsFiles() bool
	// Tag is the snapshot's tag that the mover needs, made of the legal slug of the backup and the run (at most 100 of a-z, A-Z, 0-9, "_" and "-"). Medusa
	// wants "medusa-" and the name of its backup. It returns slug itself where it does not mind.
	Tag(slug string) string
	// Preflight makes every check that can be made before the pause, changes nothing, and returns all failures joined, each naming its node. On an error it
	// has released what it opened. It does not close the nodes of the job.
	Preflight(ctx context.Context, job Job) (Session, error)
	// Inspect returns engine.ErrNotFound when an artifact of the mover's kinds is gone, nil when it is there and whole.
	Inspect(ctx context.Context, p Place, a engine.Artifact) error
	// Delete removes such an artifact, also one that was only planned or half made, and nothing that another backup needs. What is gone is no error. The driver
	// deletes the artifacts of a backup in the order that Move or Planned gave, the mover's before its own (KindNodes, KindIndex): so the index and the file
	// lists are still there as a rule, but after a first try that was cut off they may not be.
	Delete(ctx context.Context, p Place, a engine.Artifact) error
}

// Job is what one run asks of a mover.
type Job struct {
	Run       engine.Run
	Storage   string // its name in the backup
	Prefix    string // of the storage's objects in the catalog: Run.Prefix + Storage + "/". The driver writes index.json and nodes/HOSTID.json there.
	Cluster   string // the Cassandra cluster's name
	Tag       string // as Mover.Tag gave it
	Keyspaces []string
	Nodes     []Node // every node that is captured, sorted by host id; opened by the driver, and closed by it after the Session
}

// IndexName is the name of the index in the catalog.
func (j Job) IndexName() string { return j.Prefix + snapshot.IndexName }

// Node is one node with what is open to it.
type Node struct {
	node.Node
	Operator node.Operator // one goroutine at a time; the driver does not use it while it waits for a mover
	Files    node.Files    // nil where Mover.NeedsFiles says no and the driver has no other need of them
	// Bytes is about how much live data the captured keyspaces have on the node; -1 when unknown.
	Bytes int64
}

// Place is where an artifact lies, for calls outside of a run.
type Place struct {
	Catalog engine.Catalog
	Report  func(message string, fields map[string]any) // never nil
	// Nodes opens every node of the cluster as it is now, with Files where NeedsFiles says so, once: a second call returns the same. An error says
	// which node could not be reached; a mover that needs no node does not call it. The driver closes them after the call.
	Nodes func(ctx context.Context) ([]Node, error)
}

// Facts are what a mover's preflight found.
type Facts struct {
	ToolVersions map[string]string // for the manifest, like "medusa": "0.31.0"
	Warnings     []string          // for the user, none of them a reason to refuse
}

// Session is a Mover that passed preflight.
type Session interface {
	// Planned names every artifact of the mover that may come to be, for the journal, before the first pause. The driver adds KindNodes and KindIndex.
	Planned() []engine.Artifact
	Facts() Facts
	// Move brings the data to where it stays, after the window: index is complete but for Node.Files, FilesSHA256, FileCount and Bytes, which the driver
	// fills in afterwards; files has the FileList of each node by host id, complete where Node.Files was open (else empty). Both are the driver's,
	// which has compared them with what must be there. Move may fill in File.SHA256 (the hash of the content as it lies on the node), and nothing else.
	// The driver writes lists and index after it. It returns when all of the data is safe, proved by looking at it and not by a tool's word, and
	// returns the artifacts to record.
	Move(ctx context.Context, index *snapshot.Index, files map[string]*snapshot.FileList) ([]engine.Artifact, error)
	// Discard removes whatever the Session made, also half of it; idempotent. Its ctx outlives a cancel. The snapshots on the nodes are the driver's to clear.
	Discard(ctx context.Context) error
	// Close releases what Preflight opened; idempotent.
	Close() error
}

// Snapshotter is what a Session may also be: it takes the snapshot of all nodes itself, in the window, in place of the nodes' Operators (Cassy).
type Snapshotter interface {
	// TakeSnapshots takes a snapshot of the job's keyspaces on all nodes and returns when it is fixed on all of them: later writes can no longer change
	// what it holds. It returns the tag that the snapshot has on the nodes, also together with an error as soon as it is known; the driver lists and
	// clears that tag. It is Job.Tag where the tool lets one choose.
	TakeSnapshots(ctx context.Context) (tag string, err error)
}

// KeepsSnapshot is what a Session may also be. Where it says yes the nodes' snapshot is the backup, and stays; else the driver clears it after Move.
type KeepsSnapshot interface {
	KeepsSnapshot() bool
}

// Fetcher is what a Mover may also be: it brings what Move took off the nodes back to a node, for a restore.
type Fetcher interface {
	// Fetch brings the files of one captured node to a directory of a node, which it makes and which must not be there: as
	// DIRECTORY/KEYSPACE/TABLE-ID/PATH, with the table's id without dashes and snapshot.File.Path. It returns when all of the list is there, which it has
	// looked at; only manifest.json and schema.cql may be missing. What it leaves on an error the caller removes with the directory.
	Fetch(ctx context.Context, a engine.Artifact, from snapshot.Node, list *snapshot.FileList, to Node, directory string) error
}

// Restorer is what a Mover may also be that has a tool of its own for a restore: it puts all files of a backup back where they were, on the same nodes. Who calls
// it has stopped them and removed their data, commit log, hints, caches and system.paxos, and starts them afterwards.
type Restorer interface {
	// Restore returns when the tool says that it is done on every node. Whether the files are there is for the caller to see.
	Restore(ctx context.Context, p Place, a engine.Artifact) error
}

// Each calls f for all nodes at once, and names the node in its errors.
func Each(nodes []Node, f func(i int, n Node) error) error {
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			if err := f(i, n); err != nil {
				errs[i] = fmt.Errorf("node %s: %w", n.Address, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
