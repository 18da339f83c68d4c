package provider

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-log/tflog"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/awsapi"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage"
)

// data is a configured provider: what its resources and data sources work with. Values of the provider block may be unknown at plan;
// the methods then say so, and whoever asked does without until apply.
type data struct {
	deps  Dependencies
	kinds map[string]storage.Kind
	pause types.Object

	catalogSettings CatalogSettings
	catalogKnown    bool
	opened          engine.Catalog

	credentials      map[string]*storage.Credentials
	credentialsKnown bool

	awsSettings *awsapi.Settings // a pointer, so that no verb prints them
	awsKnown    bool             // false while a value of `aws` is unknown
	aws         memo[*awsapi.Session]
}

// memo opens something once, for all who ask; an error is not kept.
type memo[T any] struct {
	mu     sync.Mutex
	opened bool
	value  T
}

func (m *memo[T]) get(open func() (T, error)) (T, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.opened {
		return m.value, nil
	}
	v, err := open()
	if err == nil {
		m.value, m.opened = v, true
	}
	return v, err
}

// readCatalog opens the catalog; it asks nothing of it yet. readAWS comes before.
func (d *data) readCatalog(ctx context.Context, v types.Object) (diags diag.Diagnostics) {
	if d.catalogKnown = whollyKnown(ctx, v); !d.catalogKnown {
		return diags
	}
	d.catalogSettings, diags = d.decodeCatalog(ctx, v)
	if diags.HasError() {
		return diags
	}
	if d.catalogSettings.S3 != nil && !d.awsKnown {
		d.catalogKnown = false
		return diags
	}
	var err error
	d.opened, err = d.deps.OpenCatalog(d.catalogSettings, d.openAWS)
	if err != nil {
		diags.AddAttributeError(pathCatalog(), "Unusable catalog", fmt.Sprintf("%s. Nothing was touched.", err))
	}
	return diags
}

func (d *data) decodeCatalog(ctx context.Context, v types.Object) (s CatalogSettings, diags diag.Diagnostics) {
	s = CatalogSettings{Directory: defaultCatalog, Default: v.IsNull(), AWS: d.awsSettings}
	if !v.IsNull() {
		var m catalogModel
		diags.Append(v.As(ctx, &m, asOptions)...)
		if diags.HasError() {
			return s, diags
		}
		// Validation saw this already, unless the value was unknown then.
		if (m.Directory.ValueString() == "") == (m.S3 == nil) {
			diags.AddAttributeError(pathCatalog(), "No place for the catalog, or two", "Set exactly one of directory and s3.")
			return s, diags
		}
		s.Directory = m.Directory.ValueString()
		if m.S3 != nil {
			s.S3 = m.S3.settings()
			return s, diags
		}
	}
	// Absolute, because the watchdog and the break-glass command run elsewhere.
	abs, err := filepath.Abs(s.Directory)
	if err != nil {
		diags.AddAttributeError(pathCatalog(), "Unusable catalog", err.Error())
	}
	s.Directory = abs
	return s, diags
}

// catalog returns the open catalog; ok is false while its settings are unknown.
func (d *data) catalog() (c engine.Catalog, ok bool) {
	if d == nil || !d.catalogKnown {
		return nil, false
	}
	return d.opened, true
}

func (d *data) readCredentials(ctx context.Context, v types.Map) (diags diag.Diagnostics) {
	d.credentials = map[string]*storage.Credentials{}
	d.credentialsKnown = whollyKnown(ctx, v)
	if v.IsNull() || !d.credentialsKnown {
		return diags
	}
	var entries map[string]struct {
		Username types.String `tfsdk:"username"`
		Password types.String `tfsdk:"password"`
		CAPEM    types.String `tfsdk:"ca_pem"`
		CertPEM  types.String `tfsdk:"cert_pem"`
		KeyPEM   types.String `tfsdk:"key_pem"`
		SSH      *struct {
			Username      types.String `tfsdk:"username"`
			PrivateKeyPEM types.String `tfsdk:"private_key_pem"`
			Passphrase    types.String `tfsdk:"passphrase"`
			Password      types.String `tfsdk:"password"`
		} `tfsdk:"ssh"`
		JMX *struct {
			Username types.String `tfsdk:"username"`
			Password types.String `tfsdk:"password"`
		} `tfsdk:"jmx"`
	}
	diags.Append(v.ElementsAs(ctx, &entries, false)...)
	for name, e := range entries {
		if e.CertPEM.IsNull() != e.KeyPEM.IsNull() {
			diags.AddAttributeError(path.Root("credentials").AtMapKey(name), "Incomplete client certificate", "cert_pem and key_pem belong together: set both or none.")
		}
		c := &storage.Credentials{Username: e.Username.ValueString(), Password: e.Password.ValueString(),
			CAPEM: e.CAPEM.ValueString(), CertPEM: e.CertPEM.ValueString(), KeyPEM: e.KeyPEM.ValueString()}
		if e.SSH != nil {
			c.SSH = &storage.SSHCredentials{Username: e.SSH.Username.ValueString(), PrivateKeyPEM: e.SSH.PrivateKeyPEM.ValueString(),
				Passphrase: e.SSH.Passphrase.ValueString(), Password: e.SSH.Password.ValueString()}
			if c.SSH.Passphrase != "" && c.SSH.PrivateKeyPEM == "" {
				diags.AddAttributeError(path.Root("credentials").AtMapKey(name).AtName("ssh"), "Passphrase without a key", "passphrase belongs to private_key_pem, which is not set.")
			}
		}
		if e.JMX != nil {
			c.JMX = &storage.JMXCredentials{Username: e.JMX.Username.ValueString(), Password: e.JMX.Password.ValueString()}
		}
		d.credentials[name] = c
	}
	return diags
}

// ephemeral environment variables: each says that the working directory will not outlive the run.
var ephemeralRuns = []string{"TFC_RUN_ID", "CI", "GITHUB_ACTIONS", "GITLAB_CI", "TF_IN_AUTOMATION"}

func (d *data) warnDefaultCatalog() (diags diag.Diagnostics) {
	if !d.catalogKnown || !d.catalogSettings.Default {
		return diags
	}
	for _, name := range ephemeralRuns {
		if d.deps.Getenv(name) != "" {
			diags.AddAttributeWarning(pathCatalog(), "The catalog may not outlive this run",
				fmt.Sprintf("The provider block sets no catalog, so manifests and journals go to %s. The environment variable %s suggests that this directory is gone after the run: "+
					"then no later run sees these backups, nor learns what a killed run left paused. Set catalog = { directory = … } to a place that stays, or catalog = { s3 = { … } }.", d.catalogSettings.Directory, name))
			return diags
		}
	}
	return diags
}

// reportTimeout is how long a plan waits for a catalog that does not answer.
const reportTimeout = 20 * time.Second

// reportDeadRuns warns of what journals in the catalog say may still be paused. It never fails a plan.
func (d *data) reportDeadRuns(ctx context.Context) (diags diag.Diagnostics) {
	c, ok := d.catalog()
	if !ok {
		return diags
	}
	look, cancel := d.deps.Clock.WithTimeout(ctx, reportTimeout)
	defer cancel()
	journals, err := engine.OpenJournals(look, c)
	if err != nil {
		diags.AddWarning("Journals could not be read", fmt.Sprintf("%s. A run that was killed may have left targets paused; this cannot be told from here.", err))
		return diags
	}
	for _, j := range journals {
		if j.Broken != nil {
			diags.AddWarning("Unreadable journal of a run", fmt.Sprintf("The journal of run %s in %s cannot be read: %s. Look whether your targets are paused; `terraform-provider-scalardb unpause --address HOST:PORT` lifts a pause.",
				j.RunID, c.Describe(), j.Broken))
			continue
		}
		left := j.Paused()
		if len(left) == 0 {
			continue
		}
		var names []string
		for _, t := range left {
			names = append(names, t.Group+" "+t.Address)
		}
		alive := "That run may still be under way"
		if d.deps.Clock.Now().Sub(j.StartedAt) > j.Pause.Max+time.Minute {
			alive = "That run is dead"
		}
		diags.AddWarning("A run may have left targets paused",
			fmt.Sprintf("Run %s of %q (%s, started %s) sent a pause to %s, and no unpause is recorded. %s. If the targets are still paused, lift it with\n\n  %s",
				j.RunID, j.BackupID, j.Holder, j.StartedAt.UTC().Format(time.RFC3339), strings.Join(names, ", "), alive, d.unpauseCommand(j.RunID, nil)))
	}
	return diags
}

// unpauseCommand is the break-glass command line of one run.
func (d *data) unpauseCommand(runID string, groups map[string]GroupSettings) string {
	line := "terraform-provider-scalardb unpause " + d.catalogSettings.unpauseOptions() + " --run " + runID
	for _, g := range groups {
		if g.TLS != nil {
			return line + " --tls [--ca-file FILE --server-name NAME --cert-file FILE --key-file FILE]"
		}
	}
	return line
}

func shellQuote(s string) string {
	if strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._:=,@+-") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// pauseFor is the resource's own `pause`, or the provider's. known is false while a value is unknown; none at all is an error.
func (d *data) pauseFor(ctx context.Context, own types.Object) (c pauseConfig, known bool, diags diag.Diagnostics) {
	switch {
	case !own.IsNull():
		return readPause(ctx, own, path.Root("pause"))
	case d.pause.IsNull():
		diags.AddAttributeError(path.Root("pause"), "No targets to pause", "Neither this resource nor the provider block sets pause: without targets nothing can be paused.")
		return c, false, diags
	}
	return readPause(ctx, d.pause, path.Root("pause"))
}

// groups makes the engine's target groups.
func (d *data) groups(settings map[string]GroupSettings) (map[string]engine.Group, diag.Diagnostics) {
	var diags diag.Diagnostics
	out := map[string]engine.Group{}
	for name, s := range settings {
		g, err := d.deps.NewGroup(name, s)
		if err != nil {
			diags.AddAttributeError(path.Root("pause").AtName("targets").AtMapKey(name), "Unusable target group", fmt.Sprintf("%s. Nothing was touched.", err))
			continue
		}
		out[name] = g
	}
	return out, diags
}

// env is what a driver gets for one storage. A `credentials` key that names no entry is an error.
func (d *data) env(ctx context.Context, name, key string) (storage.Env, error) {
	e := storage.Env{
		StorageName: name, Clock: d.deps.Clock, Catalog: d.opened, CatalogIsDefault: d.catalogSettings.Default, AWS: d.openAWS, Getenv: d.deps.Getenv, Holder: d.deps.Holder, Alive: d.deps.Alive,
		Report: func(message string, fields map[string]any) { tflog.Info(ctx, name+": "+message, fields) },
	}
	if key == "" {
		e.Credentials = d.credentials[name]
		return e, nil
	}
	e.Credentials = d.credentials[key]
	if e.Credentials == nil {
		return e, fmt.Errorf("credentials = %q names no entry of the provider's credentials", key)
	}
	return e, nil
}

// artifactStore finds what reads and deletes the artifacts of one storage. key selects credentials; empty: the one in the recorded arguments.
func (d *data) artifactStore(ctx context.Context, name string, s engine.JournalStorage, key string) (engine.ArtifactStore, error) {
	k, ok := d.kinds[s.Driver]
	if !ok {
		return nil, fmt.Errorf("this release of the provider has no driver %q", s.Driver)
	}
	o := types.ObjectNull(attrTypes(driverAttributes(k, storage.SourceSide)))
	if len(s.Arguments) > 0 {
		// Arguments that only a later release knows do not keep an artifact from being found: its record says most.
		if typed, err := decodeObject(ctx, s.Arguments, types.ObjectType{AttrTypes: o.AttributeTypes(ctx)}); err == nil {
			o = typed
		}
	}
	if recorded, ok := o.Attributes()[credentialsArgument].(types.String); ok && key == "" {
		key = recorded.ValueString()
	}
	config, diags := kindConfig(k, storage.SourceSide, o)
	if err := errorOf(diags); err != nil {
		return nil, err
	}
	e, err := d.env(ctx, name, key)
	if err != nil {
		return nil, err
	}
	return k.Artifacts(config, e), nil
}

// newEngine builds an engine for a pause of these groups (none for restores).
func (d *data) newEngine(ctx context.Context, groups map[string]GroupSettings) (*engine.Engine, error) {
	c, ok := d.catalog()
	if !ok {
		return nil, errUnknownCatalog
	}
	w, err := d.deps.NewWatchdog(d.catalogSettings, groups)
	if err != nil {
		return nil, err
	}
	return &engine.Engine{
		Clock: d.deps.Clock, Catalog: c, Locker: d.deps.NewLocker(ctx, c), Watchdog: w, Reporter: logReporter{},
		Artifacts: func(ctx context.Context, name string, s engine.JournalStorage) (engine.ArtifactStore, error) {
			return d.artifactStore(ctx, name, s, "")
		},
		Alive: d.deps.Alive, Orphaned: d.deps.Orphaned, NewRunID: d.deps.NewRunID, Holder: d.deps.Holder, Version: d.deps.Version, Hook: d.deps.Hook,
	}, nil
}

var errUnknownCatalog = errors.New("the provider's catalog is not known yet")

// logReporter writes the engine's events to the provider's log (TF_LOG_PROVIDER=info).
type logReporter struct{}

func (logReporter) Report(ctx context.Context, e engine.Event) {
	fields := map[string]any{"phase": string(e.Phase)}
	for k, v := range e.Fields {
		fields[k] = v
	}
	if e.Subject != "" {
		fields["subject"] = e.Subject
	}
	if e.Err != nil {
		fields["error"] = e.Err.Error()
		tflog.Warn(ctx, e.Message, fields)
		return
	}
	tflog.Info(ctx, e.Message, fields)
}
