// Package storage says what a storage's folder must provide. A storage is one folder below this one plus one line in all/all.go.
// In its folder only schema.go may import the plugin framework.
package storage

import (
	"context"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/awsapi"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
)

// Kind is one driver. Its schemas have no defaults; what says *what* is captured or restored carries Replace (see replace.go), the rest updates in place.
// The provider calls the New functions only when all arguments are known, and Validate also with unknown ones.
type Kind interface {
	// Name is the driver object in HCL, the folder's name, and StorageRecord.Driver.
	Name() string
	// Description is Markdown for the docs: methods, limits, permissions.
	Description() string
	// SourceAttributes are the arguments of the driver object in a backup; every leaf is Optional or Required.
	SourceAttributes() map[string]schema.Attribute
	// DestinationAttributes are those in a restore.
	DestinationAttributes() map[string]schema.Attribute
	// Validate checks what can be known at validate time; diagnostics carry paths relative to the driver object
	// made absolute by at ("transport.jmx.port" is an attribute of nested objects). config may hold unknown values.
	Validate(ctx context.Context, side Side, config types.Object, at func(attribute string) PathSetter) diag.Diagnostics
	NewSource(ctx context.Context, config types.Object, env Env) (engine.Source, diag.Diagnostics)
	NewDestination(ctx context.Context, config types.Object, env Env) (engine.Destination, diag.Diagnostics)
	// NewReader opens what verification reads: side says which of the two argument sets config is (a live storage is read with the source's).
	NewReader(ctx context.Context, side Side, config types.Object, env Env) (verify.Storage, diag.Diagnostics)
	// Artifacts reads and deletes artifacts by their record. config are the source's arguments, null where they are not known.
	Artifacts(config types.Object, env Env) engine.ArtifactStore
	// Restores says what restores the driver's storages.
	Restores() Restores
}

// Restores says which resources restore a driver's storages.
type Restores struct {
	FromArtifacts bool // scalardb_snapshot_restore
	ByTime        bool // scalardb_pitr_restore
}

// Side tells the two argument sets of a driver apart.
type Side int

// The two sides.
const (
	SourceSide Side = iota
	DestinationSide
)

// PathSetter adds a diagnostic at one attribute.
type PathSetter interface {
	Error(summary, detail string)
	Warning(summary, detail string)
}

// Env is what a driver gets from the provider.
type Env struct {
	StorageName string
	Clock       engine.Clock
	Catalog     engine.Catalog
	// CatalogIsDefault says that the user configured no catalog: a driver that would put data there refuses.
	CatalogIsDefault bool
	// Credentials is the entry of the provider's `credentials` for this storage (or for the driver object's `credentials` key); nil when there is none: then the usual places are asked.
	Credentials *Credentials
	// AWS opens the account of the provider's `aws`, or of the environment: once, however many storages ask.
	AWS func(ctx context.Context) (*awsapi.Session, error)
	// Namespaces are those that the backup has of the storage, by their names there; empty where there is no backup to tell. What is read of a restored storage is read
	// of these: others in the same server need not be of the restore.
	Namespaces []string
	// Holder names this process in the catalog, and Alive says whether the process that a Holder names is still there; known is false where that cannot be
	// told from here (another machine).
	Holder string
	Alive  func(holder string) (alive, known bool)
	// Getenv is os.Getenv, or a test's.
	Getenv func(string) string
	Report func(message string, fields map[string]any)
}

// Credentials is one entry of the provider's `credentials`. It is never printed: String hides it.
type Credentials struct {
	Username string
	Password string
	CAPEM    string
	CertPEM  string
	KeyPEM   string
	SSH      *SSHCredentials // nil without an entry: then the usual places are asked
	JMX      *JMXCredentials // nil without an entry
}

// SSHCredentials log in to the machines of a storage.
type SSHCredentials struct {
	Username      string // empty: the driver's own argument, or its default
	PrivateKeyPEM string
	Passphrase    string // of the key; empty where it has none
	Password      string
}

// JMXCredentials log in to a Java process's JMX.
type JMXCredentials struct {
	Username string
	Password string
}

// String keeps secrets out of logs and errors.
func (SSHCredentials) String() string { return "(credentials)" }

// GoString is String.
func (SSHCredentials) GoString() string { return "(credentials)" }

// String keeps secrets out of logs and errors.
func (JMXCredentials) String() string { return "(credentials)" }

// GoString is String.
func (JMXCredentials) GoString() string { return "(credentials)" }

// String keeps secrets out of logs and errors.
func (Credentials) String() string { return "(credentials)" }

// GoString is String.
func (Credentials) GoString() string { return "(credentials)" }

// LoginNeeder is what a Kind may also be: verification reads its storages with a login of the provider's `credentials` (or the usual places,
// where there are such). Without an entry a restore by time is not verified unless `verify` says so.
type LoginNeeder interface {
	NeedsLogin() bool
}
