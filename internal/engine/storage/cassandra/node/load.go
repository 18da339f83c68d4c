package node

import "context"

// Loader is what an Importer may also be: it loads SSTables of whose tokens the node owns a part only.
type Loader interface {
	// Load is Import without the proof that the node owns the tokens. What it does not own is never read, and takes room until Cleanup.
	Load(ctx context.Context, keyspace, table string, directories []string) error
}

// Cleaner is what an Operator may also be: it removes the data of a keyspace that the node does not own, as `nodetool cleanup` does, and returns when
// that is done.
type Cleaner interface {
	Cleanup(ctx context.Context, keyspace string) error
}

// Drainer is what an Operator may also be: it writes everything that the node has in memory into SSTables, and has it take no more writes, as `nodetool drain` does.
// The node serves nothing then until it is started anew.
type Drainer interface {
	Drain(ctx context.Context) error
}
