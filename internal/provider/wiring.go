package provider

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/hashicorp/terraform-plugin-log/tflog"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/admin"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/catalog/directory"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/clock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/lock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/all"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/target"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/watchdog"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/unpause"
)

// Production is what the product runs with: the only place that knows the engine's parts.
func Production(version string) Dependencies {
	system := clock.System{}
	holder := thisProcess()
	core := os.Getppid()
	return Dependencies{
		Version: version,
		Clock:   system,
		Kinds:   all.Kinds(),
		OpenCatalog: func(s CatalogSettings) (engine.Catalog, error) {
			return directory.New(s.Directory, system)
		},
		NewGroup: func(name string, s GroupSettings) (engine.Group, error) {
			return newGroup(name, s, system)
		},
		NewWatchdog: func(c CatalogSettings, groups map[string]GroupSettings) (engine.Watchdog, error) {
			return newWatchdog(c, groups, system)
		},
		NewLocker: func(ctx context.Context, c engine.Catalog) engine.Locker {
			return lock.Locker{Catalog: c, Clock: system, Holder: holder, Report: func(message string, fields map[string]any) { tflog.Info(ctx, message, fields) }}
		},
		Alive:    alive,
		Orphaned: func() bool { return os.Getppid() != core },
		NewRunID: newRunID,
		Holder:   holder,
		Getenv:   os.Getenv,
		Hook:     phaseHook(os.Getenv),
	}
}

func newGroup(name string, s GroupSettings, c engine.Clock) (engine.Group, error) {
	d, err := admin.NewDialer(adminSettings(s), c)
	if err != nil {
		return engine.Group{}, err
	}
	g := engine.Group{Dialer: d, Resolver: target.Static{Group: name, Addresses: s.Addresses, DNS: target.DNS()}}
	if s.SRV != "" {
		g.Resolver = target.SRV{Group: name, Name: s.SRV, DNS: target.DNS()}
	}
	return g, nil
}

func adminSettings(s GroupSettings) admin.Settings {
	if s.TLS == nil {
		return admin.Settings{}
	}
	return admin.Settings{TLS: &admin.TLS{CAPEM: s.TLS.CAPEM, ServerName: s.TLS.ServerName, CertPEM: s.TLS.CertPEM, KeyPEM: s.TLS.KeyPEM}}
}

// newWatchdog hands the watchdog its own copy of everything that it needs to reach the targets and the catalog.
func newWatchdog(c CatalogSettings, groups map[string]GroupSettings, system engine.Clock) (engine.Watchdog, error) {
	spec := watchdog.Spec{Catalog: watchdog.CatalogSpec{Directory: c.Directory}, Groups: map[string]json.RawMessage{}}
	for name, g := range groups {
		data, err := json.Marshal(adminSettings(g))
		if err != nil {
			return nil, fmt.Errorf("encoding the settings of target group %s: %w", name, err)
		}
		spec.Groups[name] = data
	}
	return watchdog.Process{Clock: system, Spec: spec}, nil
}

// RunWatchdog is the hidden subcommand: one watchdog process. It returns the exit code.
func RunWatchdog() int {
	system := clock.System{}
	return watchdog.Main(system, watchdog.Openers{
		Dialer: func(settings json.RawMessage) (engine.Dialer, error) {
			var s admin.Settings
			if err := json.Unmarshal(settings, &s); err != nil {
				return nil, errors.New("decoding the settings of a target group: they are none") // err could quote a secret
			}
			return admin.NewDialer(s, system)
		},
		Catalog: func(spec watchdog.CatalogSpec) (engine.Catalog, error) { return directory.New(spec.Directory, system) },
	})
}

// newRunID makes 16 random hex digits.
func newRunID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// UnpauseDependencies is what the `unpause` command runs with.
func UnpauseDependencies(stdout, stderr io.Writer) unpause.Dependencies {
	system := clock.System{}
	return unpause.Dependencies{
		Clock:       system,
		OpenCatalog: func(dir string) (engine.Catalog, error) { return directory.New(dir, system) },
		NewGroup: func(addresses []string, srv string, s admin.Settings) (engine.Group, error) {
			d, err := admin.NewDialer(s, system)
			g := engine.Group{Dialer: d, Resolver: target.Static{Addresses: addresses, DNS: target.DNS()}}
			if srv != "" {
				g.Resolver = target.SRV{Name: srv, DNS: target.DNS()}
			}
			return g, err
		},
		Alive:  alive,
		Stdout: stdout,
		Stderr: stderr,
	}
}
