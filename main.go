// terraform-provider-scalardb takes and restores consistent backups of systems that run ScalarDB over several databases.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/hashicorp/terraform-plugin-framework/providerserver"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/watchdog"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/provider"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/unpause"
)

// version is set at release, by -ldflags.
var version = "dev"

// address is the provider's source address.
const address = "registry.terraform.io/scalar-labs/scalardb"

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	if len(args) > 0 {
		switch args[0] {
		case watchdog.Subcommand: // started by the provider itself, never by hand
			return provider.RunWatchdog()
		case "unpause":
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return unpause.Main(ctx, args[1:], provider.UnpauseDependencies(os.Stdout, os.Stderr))
		}
	}
	f := flag.NewFlagSet("terraform-provider-scalardb", flag.ContinueOnError)
	f.Usage = func() {
		fmt.Fprint(f.Output(), "This program is a Terraform provider: Terraform starts it. By hand:\n\n"+
			"  terraform-provider-scalardb unpause --help   unpause targets without Terraform\n"+
			"  terraform-provider-scalardb --version        print the version\n"+
			"  terraform-provider-scalardb --debug          wait for a Terraform that is told to attach\n\n")
	}
	debug := f.Bool("debug", false, "wait for a Terraform that is told to attach (TF_REATTACH_PROVIDERS)")
	printVersion := f.Bool("version", false, "print the version")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if f.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "unknown command %q\n", f.Arg(0))
		f.Usage()
		return 2
	}
	if *printVersion {
		fmt.Println("terraform-provider-scalardb " + version)
		return 0
	}
	err := providerserver.Serve(context.Background(), provider.New(provider.Production(version)), providerserver.ServeOpts{Address: address, Debug: *debug, ProtocolVersion: 6})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
