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

	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/hashicorp/terraform-plugin-log/tflog"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/awsapi"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/admin"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/catalog/directory"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/catalog/s3"
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
		OpenCatalog: func(s CatalogSettings, aws func(context.Context) (*awsapi.Session, error)) (engine.Catalog, error) {
			return openCatalog(s, system, aws)
		},
		OpenAWS: awsapi.Open,
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

func openCatalog(s CatalogSettings, system engine.Clock, aws func(context.Context) (*awsapi.Session, error)) (engine.Catalog, error) {
	if s.S3 == nil {
		return directory.New(s.Directory, system)
	}
	return s3.New(*s.S3, system, func(ctx context.Context) (*awss3.Client, error) {
		session, err := aws(ctx)
		if err != nil {
			return nil, err
		}
		return session.S3(s.S3.Region), nil
	})
}

// opener opens an account once, when it is first needed.
func opener(s awsapi.Settings) func(context.Context) (*awsapi.Session, error) {
	var m memo[*awsapi.Session]
	return func(ctx context.Context) (*awsapi.Session, error) {
		return m.get(func() (*awsapi.Session, error) { return awsapi.Open(ctx, s) })
	}
}

// watchdogS3 is what a watchdog reaches a catalog in S3 by. It holds secrets: it travels through the pipe only.
type watchdogS3 struct {
	Catalog s3.Settings     `json:"catalog"`
	AWS     json.RawMessage `json:"aws"` // sealed
}

// newWatchdog hands the watchdog its own copy of everything that it needs to reach the targets and the catalog.
func newWatchdog(c CatalogSettings, groups map[string]GroupSettings, system engine.Clock) (engine.Watchdog, error) {
	spec := watchdog.Spec{Catalog: watchdog.CatalogSpec{Directory: c.Directory}, Groups: map[string]json.RawMessage{}}
	if c.S3 != nil {
		sealed, err := c.AWS.Seal(os.Environ())
		if err != nil {
			return nil, err
		}
		data, err := json.Marshal(watchdogS3{Catalog: *c.S3, AWS: sealed})
		if err != nil {
			return nil, errors.New("encoding the settings of the catalog in S3") // err could quote a secret
		}
		spec.Catalog = watchdog.CatalogSpec{S3: data}
	}
	for name, g := range groups {
		data, err := json.Marshal(adminSettings(g))
		if err != nil {
			return nil, fmt.Errorf("encoding the settings of target group %s: %w", name, err)
		}
		spec.Groups[name] = data
	}
	return watchdog.Process{Clock: system, Spec: spec}, nil
}

// openWatchdogCatalog opens the catalog in a watchdog's process, whose environment is bare but for what came by the pipe.
func openWatchdogCatalog(spec watchdog.CatalogSpec, system engine.Clock) (engine.Catalog, error) {
	if len(spec.S3) == 0 {
		return directory.New(spec.Directory, system)
	}
	var in watchdogS3
	if err := json.Unmarshal(spec.S3, &in); err != nil {
		return nil, errors.New("decoding the settings of the catalog in S3: they are none") // err could quote a secret
	}
	settings, environment, err := awsapi.Unseal(in.AWS)
	if err != nil {
		return nil, err
	}
	for name, value := range environment {
		if err := os.Setenv(name, value); err != nil {
			return nil, fmt.Errorf("setting %s for AWS: %w", name, err)
		}
	}
	return openCatalog(CatalogSettings{S3: &in.Catalog}, system, opener(settings))
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
		Catalog: func(spec watchdog.CatalogSpec) (engine.Catalog, error) { return openWatchdogCatalog(spec, system) },
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
		Clock: system,
		OpenCatalog: func(c unpause.Catalog) (engine.Catalog, error) {
			place, ok := s3.ParseURL(c.Location)
			if !ok {
				return directory.New(c.Location, system)
			}
			place.Region = c.Region
			// Whose the credentials are is not asked: there may be no STS where the bucket is, and there is no time for it.
			account := awsapi.Settings{Region: c.Region, Profile: c.Profile, S3UsePathStyle: c.PathStyle, SkipCredentialsCheck: true, Endpoints: map[string]string{"s3": c.Endpoint}}
			for _, arn := range c.Roles {
				account.AssumeRole = append(account.AssumeRole, awsapi.AssumeRole{RoleARN: arn})
			}
			return openCatalog(CatalogSettings{S3: &place}, system, opener(account))
		},
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
