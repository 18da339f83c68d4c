// Package unpause is the break-glass command: it lifts pauses without Terraform, whose state a dead run may have left locked.
package unpause

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/admin"
)

// Exit codes.
const (
	exitDone        = 0 // no target is paused
	exitStillPaused = 1 // a target is paused, or it is not known whether it is
	exitUsage       = 2
)

// Dependencies are what the command works with; tests hand in fakes.
type Dependencies struct {
	Clock       engine.Clock
	OpenCatalog func(c Catalog) (engine.Catalog, error)
	// NewGroup makes the resolver and the dialer of the targets given on the command line; without targets only the dialer.
	NewGroup func(addresses []string, srv string, s admin.Settings) (engine.Group, error)
	// Alive says whether the process that a journal's holder names is still there.
	Alive          func(holder string) (alive, known bool)
	Stdout, Stderr io.Writer
}

// Catalog is where the journals are, as given on the command line. Credentials are never given there.
type Catalog struct {
	Location string // a directory, or s3://BUCKET/PREFIX
	// For S3; empty ones are what the environment and the profile say.
	Region, Profile, Endpoint string
	Roles                     []string // ARNs of roles to assume, one after the other
	PathStyle                 bool
}

const usage = `Usage:
  terraform-provider-scalardb unpause --address HOST:PORT [--address HOST:PORT ...]
  terraform-provider-scalardb unpause --srv NAME
  terraform-provider-scalardb unpause --catalog DIRECTORY [--run RUN-ID]
  terraform-provider-scalardb unpause --catalog s3://BUCKET/PREFIX [--region REGION] [--profile PROFILE] [--role-arn ARN] [--endpoint URL] [--path-style] [--run RUN-ID]

Unpauses ScalarDB processes, without Terraform. With --address or --srv every given target that is paused is unpaused, whoever paused it.
With --catalog the targets are those that runs which died left paused, by their journals; what somebody else paused is left alone. --run names
one run, also one that seems to be alive: its backup is void then. Credentials for a catalog in S3 come from where the AWS command line has
them too: the environment, the shared files, the machine. The exit code is 0 only when every target is known not to be paused.

`

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

type options struct {
	addresses                             list
	srv, run                              string
	catalog                               Catalog
	tls                                   bool
	caFile, serverName, certFile, keyFile string
	timeout                               time.Duration
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("unpause", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() {
		_, _ = io.WriteString(stderr, usage)
		f.PrintDefaults()
	}
	f.Var(&o.addresses, "address", "`HOST:PORT` of a target; may be given several times")
	f.StringVar(&o.srv, "srv", "", "`NAME` of a DNS SRV record that lists the targets")
	f.StringVar(&o.catalog.Location, "catalog", "", "`PLACE` of the catalog, to unpause by the journals in it: a directory, or s3://BUCKET/PREFIX")
	f.StringVar(&o.catalog.Region, "region", "", "`REGION` of the bucket (with a catalog in S3)")
	f.StringVar(&o.catalog.Profile, "profile", "", "`PROFILE` of AWS's shared files (with a catalog in S3)")
	f.Var((*list)(&o.catalog.Roles), "role-arn", "`ARN` of a role to assume (with a catalog in S3); may be given several times, for one after the other")
	f.StringVar(&o.catalog.Endpoint, "endpoint", "", "`URL` of the S3 service, instead of AWS's own (with a catalog in S3)")
	f.BoolVar(&o.catalog.PathStyle, "path-style", false, "put the bucket's name into the path, not the host name (with a catalog in S3)")
	f.StringVar(&o.run, "run", "", "`RUN-ID` of the one run to unpause for (with --catalog)")
	f.BoolVar(&o.tls, "tls", false, "speak TLS to the targets; implied by the four options below")
	f.StringVar(&o.caFile, "ca-file", "", "`FILE` with the certificates (PEM) of the authorities to trust instead of the system's")
	f.StringVar(&o.serverName, "server-name", "", "`NAME` that the targets' certificates must be for")
	f.StringVar(&o.certFile, "cert-file", "", "`FILE` with the client certificate (PEM)")
	f.StringVar(&o.keyFile, "key-file", "", "`FILE` with the client certificate's private key (PEM)")
	f.DurationVar(&o.timeout, "timeout", time.Minute, "how long to try")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	ways := 0
	for _, given := range []bool{len(o.addresses) > 0, o.srv != "", o.catalog.Location != ""} {
		if given {
			ways++
		}
	}
	switch {
	case f.NArg() > 0:
		return o, fmt.Errorf("unknown argument %q", f.Arg(0))
	case ways != 1:
		return o, errors.New("give exactly one of --address, --srv and --catalog")
	case o.run != "" && o.catalog.Location == "":
		return o, errors.New("--run needs --catalog")
	case !strings.HasPrefix(o.catalog.Location, "s3://") && (o.catalog.Region != "" || o.catalog.Profile != "" || o.catalog.Endpoint != "" || o.catalog.PathStyle || len(o.catalog.Roles) > 0):
		return o, errors.New("--region, --profile, --role-arn, --endpoint and --path-style need a --catalog that begins with s3://")
	case o.run != "" && !engine.ValidRunID(o.run):
		return o, fmt.Errorf("%q is no run id: it has 16 hexadecimal digits", o.run)
	case o.timeout <= 0:
		return o, errors.New("--timeout must be positive")
	}
	return o, nil
}

// settings reads the TLS files. Secrets are in files only, never in arguments.
func (o options) settings() (admin.Settings, error) {
	if !o.tls && o.caFile == "" && o.serverName == "" && o.certFile == "" && o.keyFile == "" {
		return admin.Settings{}, nil
	}
	t := &admin.TLS{ServerName: o.serverName}
	for file, to := range map[*string]*string{&o.caFile: &t.CAPEM, &o.certFile: &t.CertPEM, &o.keyFile: &t.KeyPEM} {
		if *file == "" {
			continue
		}
		data, err := os.ReadFile(*file)
		if err != nil {
			return admin.Settings{}, fmt.Errorf("reading a TLS file: %w", err)
		}
		*to = string(data)
	}
	s := admin.Settings{TLS: t}
	return s, s.Validate()
}

// command is one run of the command.
type command struct {
	Dependencies
	o     options
	group engine.Group

	mu   sync.Mutex
	told map[string]string // the last failure of each target
}

// Main runs the command and returns its exit code. It asks nothing.
func Main(ctx context.Context, args []string, deps Dependencies) int {
	o, err := parse(args, deps.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return exitDone
	}
	c := &command{Dependencies: deps, o: o, told: map[string]string{}}
	if err != nil {
		return c.misused(err)
	}
	s, err := o.settings()
	if err != nil {
		return c.misused(err)
	}
	c.group, err = deps.NewGroup(o.addresses, o.srv, s)
	if err != nil {
		return c.misused(err)
	}
	ctx, cancel := deps.Clock.WithTimeout(ctx, o.timeout)
	defer cancel()
	var clean bool
	if o.catalog.Location != "" {
		clean = c.byJournals(ctx)
	} else {
		clean = c.byTargets(ctx)
	}
	if !clean {
		c.say("NOT DONE: see above what is, or may be, still paused.")
		return exitStillPaused
	}
	return exitDone
}

func (c *command) misused(err error) int {
	_, _ = fmt.Fprintf(c.Stderr, "unpause: %s\nunpause --help explains the options.\n", err)
	return exitUsage
}

func (c *command) say(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = fmt.Fprintf(c.Stdout, format+"\n", args...)
}

// byTargets unpauses every given target that is paused. All are tried, whatever happens to one.
func (c *command) byTargets(ctx context.Context) bool {
	targets, err := c.group.Resolver.Resolve(ctx)
	if err != nil {
		c.say("The targets could not be resolved: %s", err)
		return false
	}
	records := make([]*engine.PauseRecord, len(targets))
	for i, t := range targets {
		records[i] = engine.NewPauseRecord(t)
		records[i].Settle(engine.Ours) // the user says so
	}
	return c.report(engine.Lift(ctx, c.Clock, records, engine.LiftOptions{Dial: c.group.Dialer.Dial, LookFirst: true, Progress: c.progress}))
}

// progress tells every new kind of failure once.
func (c *command) progress(t engine.Target, message string, err error) {
	if err == nil {
		return // report tells
	}
	c.mu.Lock()
	repeated := c.told[t.Address] == err.Error()
	c.told[t.Address] = err.Error()
	c.mu.Unlock()
	if !repeated {
		c.say("%s: %s: %s", name(t), message, err)
	}
}

func name(t engine.Target) string {
	if t.Name == "" || t.Name == t.Address {
		return t.Address
	}
	return t.Name + " (" + t.Address + ")"
}

// report prints what became of every target, and says whether none is paused any more.
func (c *command) report(results []engine.LiftResult) bool {
	clean := true
	for _, r := range results {
		switch {
		case r.Err != nil:
			clean = false
			c.say("%s: MAY STILL BE PAUSED: %s", name(r.Target), r.Err)
		case r.Foreign:
			clean = false
			c.say("%s: PAUSED, by somebody else: left alone; --address %s lifts it", name(r.Target), r.Target.Address)
		case r.Lifted:
			c.say("%s: was paused, is unpaused", name(r.Target))
		default:
			c.say("%s: was not paused", name(r.Target))
		}
	}
	return clean
}

// byJournals unpauses what runs left paused.
func (c *command) byJournals(ctx context.Context) bool {
	catalog, err := c.OpenCatalog(c.o.catalog)
	if err != nil {
		c.say("%s", err)
		return false
	}
	journals, err := engine.OpenJournals(ctx, catalog)
	if err != nil {
		c.say("%s", err)
		return false
	}
	clean, found := true, false
	for _, j := range journals {
		if c.o.run != "" && j.RunID != c.o.run {
			continue
		}
		found = true
		clean = c.byJournal(ctx, catalog, j) && clean
	}
	switch {
	case !found && c.o.run != "":
		c.say("There is no journal of run %s in %s: it ended in good order, or was another catalog's.", c.o.run, catalog.Describe())
		return false
	case !found:
		c.say("There is no journal in %s: no run left anything paused.", catalog.Describe())
	}
	return clean
}

func (c *command) byJournal(ctx context.Context, catalog engine.Catalog, j engine.OpenJournal) bool {
	if j.Broken != nil {
		c.say("Run %s: its journal cannot be read, so its targets are not known (use --address): %s", j.RunID, j.Broken)
		return false
	}
	c.say("Run %s of %q, by %s, begun %s:", j.RunID, j.BackupID, j.Holder, j.StartedAt.UTC().Format(time.RFC3339))
	if len(j.Paused()) == 0 {
		c.say("  nothing was left paused")
		return true
	}
	if alive, known := c.Alive(j.Holder); c.o.run == "" && known && alive {
		c.say("  it is still under way, and ends its pause by itself: left alone; --run %s unpauses all the same, and voids its backup", j.RunID)
		return false
	}
	results := engine.LiftJournal(ctx, c.Clock, j, c.group.Dialer.Dial, c.progress)
	clean := c.report(results)
	if err := engine.NoteLifted(context.WithoutCancel(ctx), c.Clock, catalog, j, results); err != nil {
		c.say("  the journal could not be brought up to date, so the next plan warns of this run once more: %s", err)
	}
	return clean
}
