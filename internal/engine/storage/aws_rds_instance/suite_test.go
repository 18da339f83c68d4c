//go:build acceptance

package awsrdsinstance

import (
	"context"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/rds"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/rdsserver"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/awsapi"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/storagetest"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify"
)

// TestAcceptanceSuite is the conformance suite, over real databases: for method snapshot what differs, then for pitr all of it.
func TestAcceptanceSuite(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "postgres", rdsserver.Options{})
	for _, c := range []struct {
		method, instant string
		faults          int
	}{{"snapshot", "", 4}, {"pitr", pitrKind, 6}} {
		t.Run(c.method, func(t *testing.T) {
			f := b.fixture(t, c.method)
			storagetest.Suite{Driver: kindName, Service: true, CoordinatorOnly: true, Faults: c.faults, Instant: c.instant, SecondMethod: c.method == "snapshot", New: func(*testing.T) *storagetest.Fixture { return f }}.Run(t)
		})
	}
}

// fixture reaches the stand-in through a wire.
func (b *bed) fixture(t *testing.T, method string) *storagetest.Fixture {
	wire := storagetest.NewWire(t, b.s.URL)
	env := b.env
	env.AWS = func(ctx context.Context) (*awsapi.Session, error) {
		return awsapi.Open(ctx, awsapi.Settings{AccessKey: rdsserver.AccessKey, SecretKey: "anything", Region: rdsserver.Region, SkipMetadataAPICheck: true, Endpoints: map[string]string{"rds": wire.URL, "sts": b.s.URL}})
	}
	hasty := env
	hasty.Clock = storagetest.Hasty{}
	targets := 0
	return &storagetest.Fixture{
		Bank: b.bank, Wire: wire, Secrets: []string{secret}, Traces: func(*testing.T) []string { return b.identities() },
		Source: func() engine.Source {
			return openSource(t, env, map[string]any{"identifier": "orders", "method": method})
		},
		Artifacts: func(engine.Catalog) engine.ArtifactStore {
			return Kind{}.Artifacts(object(t, storage.SourceSide, nil), hasty)
		},
		Expire: func(t *testing.T) {
			if err := b.s.SetEarliest(*b.source.DbiResourceId, time.Now()); err != nil {
				t.Fatal(err)
			}
		},
		Target: func(t *testing.T) storagetest.Target {
			targets++
			id := "copy-" + strconv.Itoa(targets)
			values := func() map[string]any {
				v := map[string]any{"identifier": id}
				if method == "snapshot" {
					v["snapshot_copy"] = true // one thing more that a restore makes
				}
				return v
			}
			there := func() []string {
				return slices.DeleteFunc(b.inventory(), func(name string) bool { return name != "instance "+rdsserver.Account+" "+rdsserver.Region+" "+id })
			}
			return storagetest.Target{
				Destination: openDestination(t, hasty, values()),
				Rows: func(t *testing.T) ([]string, error) {
					i, err := b.s.WaitInstance(t.Context(), id)
					if err != nil {
						return nil, err
					}
					return b.bank.Contents(t.Context(), b.open(t, i, secret))
				},
				Reader: func(ctx context.Context) (verify.Storage, error) {
					return openReader(ctx, t, env, map[string]any{"identifier": id})
				},
				Empty: func(*testing.T) bool { return len(there()) == 0 },
				Occupy: func(t *testing.T) func(*testing.T) {
					i, err := b.s.Seed(t.Context(), &rds.CreateDBInstanceInput{DBInstanceIdentifier: aws.String(id), Engine: aws.String("postgres"), DBInstanceClass: aws.String("db.r6g.large"), AllocatedStorage: aws.Int32(20),
						MasterUsername: aws.String(master), MasterUserPassword: aws.String(secret), DBName: aws.String(database), BackupRetentionPeriod: aws.Int32(0)})
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() {
						if _, err := b.s.RDS().DeleteDBInstance(context.WithoutCancel(t.Context()), &rds.DeleteDBInstanceInput{DBInstanceIdentifier: aws.String(id), SkipFinalSnapshot: aws.Bool(true)}); err != nil {
							t.Errorf("deleting the other instance: %v", err)
						}
					})
					return func(t *testing.T) {
						if now, err := b.s.WaitInstance(t.Context(), id); err != nil || *now.DbiResourceId != *i.DbiResourceId || len(there()) != 1 {
							t.Errorf("the other instance is not as it was: %+v, %v", now, err)
						}
					}
				},
			}
		},
	}
}

// identities is the inventory with the immutable ids.
func (b *bed) identities() (names []string) {
	for _, i := range b.s.Inventory() {
		if i.Status != "deleting" {
			names = append(names, i.Kind+" "+i.Account+" "+i.Region+" "+i.Identifier+" "+i.ResourceID)
		}
	}
	slices.Sort(names)
	return names
}
