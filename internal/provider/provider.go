// Package provider is the Terraform surface: configuration and state go in, calls of the engine come out. It decides nothing about a pause.
package provider

import (
	"context"
	"fmt"

	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/function"
	"github.com/hashicorp/terraform-plugin-framework/provider"
	providerschema "github.com/hashicorp/terraform-plugin-framework/provider/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/awsapi"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage"
)

var (
	_ provider.Provider              = (*scalardbProvider)(nil)
	_ provider.ProviderWithFunctions = (*scalardbProvider)(nil)
)

// Dependencies are everything the provider gets from outside; Production makes the real ones, tests hand in fakes.
type Dependencies struct {
	Version string
	Clock   engine.Clock
	Kinds   []storage.Kind
	// OpenCatalog opens the catalog; it does no network or disk access that could block.
	OpenCatalog func(s CatalogSettings, aws func(context.Context) (*awsapi.Session, error)) (engine.Catalog, error)
	// OpenAWS opens the account of the provider's `aws`.
	OpenAWS func(context.Context, awsapi.Settings) (*awsapi.Session, error)
	// NewGroup makes a target group's resolver and dialer.
	NewGroup func(name string, s GroupSettings) (engine.Group, error)
	// NewWatchdog makes the starter of watchdogs for a pause of these groups.
	NewWatchdog func(c CatalogSettings, groups map[string]GroupSettings) (engine.Watchdog, error)
	// NewLocker makes what takes the catalog's lock.
	NewLocker func(context.Context, engine.Catalog) engine.Locker
	// Alive says whether the process that a Holder names is still there; known is false where that cannot be told.
	Alive func(holder string) (alive, known bool)
	// Orphaned says that the core that started this process is gone; nil where that cannot be told.
	Orphaned func() bool
	NewRunID func() string
	Holder   string // this process, for messages
	Getenv   func(string) string
	// Hook is called at the entry of each phase; nil but in builds for fault injection.
	Hook func(context.Context, engine.Phase)
}

type scalardbProvider struct{ deps Dependencies }

// New returns the provider's factory. Every alias gets a provider of its own.
func New(deps Dependencies) func() provider.Provider {
	return func() provider.Provider { return &scalardbProvider{deps: deps} }
}

func (p *scalardbProvider) Metadata(_ context.Context, _ provider.MetadataRequest, resp *provider.MetadataResponse) {
	resp.TypeName = "scalardb"
	resp.Version = p.deps.Version
}

func (p *scalardbProvider) Schema(_ context.Context, _ provider.SchemaRequest, resp *provider.SchemaResponse) {
	attributes := toProviderSchema(map[string]attribute{"pause": pauseAttribute(providerPauseText, false)})
	attributes["catalog"] = catalogAttribute()
	attributes["aws"] = awsAttribute()
	attributes["credentials"] = providerschema.MapNestedAttribute{
		Optional:  true,
		Sensitive: true,
		MarkdownDescription: "Credentials by storage name, or by the key that a driver object's `credentials` argument names. They are in no state; with `ephemeral = true` variables they are in no plan file either. " +
			"Without an entry the usual places are asked: environment variables, `PGPASSFILE` and `~/.pgpass`, `~/.my.cnf`.",
		NestedObject: providerschema.NestedAttributeObject{Attributes: map[string]providerschema.Attribute{
			"username": providerschema.StringAttribute{Optional: true, MarkdownDescription: "User name."},
			"password": providerschema.StringAttribute{Optional: true, Sensitive: true, MarkdownDescription: "Password."},
			"ca_pem":   providerschema.StringAttribute{Optional: true, MarkdownDescription: "Certificates (PEM) of the authorities that may have signed the database's certificate. Default: the system's."},
			"cert_pem": providerschema.StringAttribute{Optional: true, MarkdownDescription: "Client certificate (PEM), with `key_pem`."},
			"key_pem":  providerschema.StringAttribute{Optional: true, Sensitive: true, MarkdownDescription: "Private key (PEM) of `cert_pem`."},
			"ssh": providerschema.SingleNestedAttribute{
				Optional:            true,
				MarkdownDescription: "Log-in to the database's machines over SSH, for drivers that need one (`cassandra`). Without it the SSH agent and the keys in `~/.ssh` are asked.",
				Attributes: map[string]providerschema.Attribute{
					"username":        providerschema.StringAttribute{Optional: true, MarkdownDescription: "User name. Default: the one in the driver's own `ssh`."},
					"private_key_pem": providerschema.StringAttribute{Optional: true, Sensitive: true, MarkdownDescription: "Private key, in PEM or OpenSSH format."},
					"passphrase":      providerschema.StringAttribute{Optional: true, Sensitive: true, MarkdownDescription: "Passphrase of `private_key_pem`, if it has one."},
					"password":        providerschema.StringAttribute{Optional: true, Sensitive: true, MarkdownDescription: "Password, where no key is accepted."},
				},
			},
			"jmx": providerschema.SingleNestedAttribute{
				Optional:            true,
				MarkdownDescription: "Log-in to JMX, for drivers that speak it (`cassandra`).",
				Attributes: map[string]providerschema.Attribute{
					"username": providerschema.StringAttribute{Required: true, MarkdownDescription: "User name."},
					"password": providerschema.StringAttribute{Required: true, Sensitive: true, MarkdownDescription: "Password."},
				},
			},
		}},
	}
	resp.Schema = providerschema.Schema{
		MarkdownDescription: "Takes consistent backups of systems that run ScalarDB over several databases: every ScalarDB process is paused for a few seconds, " +
			"a capture of every storage is fixed in that pause window, and the processes are unpaused, whatever happens. Restores of such backups prove themselves consistent before they are handed out.",
		Attributes: attributes,
	}
}

const providerPauseText = "The default `pause` of every resource. A resource's own `pause` replaces it whole. Changes never cause a pause."

// providerModel is the provider block.
type providerModel struct {
	Pause       types.Object `tfsdk:"pause"`
	Catalog     types.Object `tfsdk:"catalog"`
	AWS         types.Object `tfsdk:"aws"`
	Credentials types.Map    `tfsdk:"credentials"`
}

// Configure reads the provider block. What is unknown yet stays so: whoever needs it at plan does without (Data's methods say so).
func (p *scalardbProvider) Configure(ctx context.Context, req provider.ConfigureRequest, resp *provider.ConfigureResponse) {
	var m providerModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &m)...)
	if resp.Diagnostics.HasError() {
		return
	}
	d := &data{deps: p.deps, pause: m.Pause, kinds: map[string]storage.Kind{}}
	for _, k := range p.deps.Kinds {
		d.kinds[k.Name()] = k
	}
	resp.Diagnostics.Append(d.readAWS(ctx, m.AWS)...)
	resp.Diagnostics.Append(d.readCatalog(ctx, m.Catalog)...)
	resp.Diagnostics.Append(d.readCredentials(ctx, m.Credentials)...)
	if resp.Diagnostics.HasError() {
		return
	}
	resp.Diagnostics.Append(d.warnDefaultCatalog()...)
	resp.Diagnostics.Append(d.reportDeadRuns(ctx)...)
	resp.ResourceData, resp.DataSourceData = d, d
}

// Resources lists the resources.
func (p *scalardbProvider) Resources(context.Context) []func() resource.Resource {
	return []func() resource.Resource{
		func() resource.Resource { return &pauseWindowResource{kinds: p.deps.Kinds} },
		func() resource.Resource { return &consistentBackupResource{kinds: p.deps.Kinds} },
		func() resource.Resource { return newSnapshotRestore(p.deps.Kinds) },
		func() resource.Resource { return newPITRRestore(p.deps.Kinds) },
		func() resource.Resource { return &consistencyCheckResource{kinds: p.deps.Kinds} },
	}
}

// DataSources lists the data sources.
func (p *scalardbProvider) DataSources(context.Context) []func() datasource.DataSource {
	return []func() datasource.DataSource{
		func() datasource.DataSource { return &targetsDataSource{} },
		func() datasource.DataSource { return &backupDataSource{} },
		func() datasource.DataSource { return &backupsDataSource{} },
		func() datasource.DataSource { return &configurationDataSource{} },
	}
}

// Functions lists the functions.
func (p *scalardbProvider) Functions(context.Context) []func() function.Function {
	return []func() function.Function{
		func() function.Function { return restorePointFunction{} },
		func() function.Function { return parsePropertiesFunction{} },
		func() function.Function { return renderPropertiesFunction{} },
	}
}

// dataOf is the nil-tolerant cast that every Configure makes: provider data is nil while core only validates.
func dataOf(v any, diags *diag.Diagnostics) *data {
	if v == nil {
		return nil
	}
	d, ok := v.(*data)
	if !ok {
		diags.AddError("Unexpected provider data", fmt.Sprintf("Expected %T, got %T. This is a bug in the provider.", d, v))
	}
	return d
}
