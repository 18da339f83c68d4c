package awsrdsinstance

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	shared "github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/rds"
)

// Source is one instance to be captured.
type Source struct{ s SourceSettings }

// NewSource opens nothing yet.
func NewSource(s SourceSettings) *Source { return &Source{s} }

// OpenClock looks once at the instance.
func (o *Source) OpenClock(ctx context.Context) (engine.ClockSession, error) {
	api, place, err := o.s.Open(ctx, o.s.Region)
	if err != nil {
		return nil, err
	}
	if _, err := find(ctx, api, place, o.s.Identifier); err != nil {
		return nil, err
	}
	return shared.NewClock(o.s.Clock, dateOf(api, o.s.Identifier)), nil
}

// find is describe, for an instance that must be there.
func find(ctx context.Context, api API, place shared.Place, identifier string) (types.DBInstance, error) {
	i, err := describe(ctx, api, identifier)
	switch {
	case err != nil:
		return types.DBInstance{}, err
	case i == nil:
		return types.DBInstance{}, fmt.Errorf("there is no DB instance %s in %s: check identifier, region and credentials", identifier, place)
	}
	return *i, nil
}

// session is a Source that passed preflight.
type session struct {
	s        SourceSettings
	run      engine.Run
	api      API
	place    shared.Place
	instance types.DBInstance // as preflight saw it
	facts    engine.Facts
	clock    *shared.Clock
	bound    engine.ClockBound // the last measured
	witness  *shared.Witness   // nil: nothing is read through SQL

	snapshot       string // its identifier
	requested      bool   // CreateDBSnapshot was sent
	sent, answered time.Time
}

// Preflight only reads.
func (o *Source) Preflight(ctx context.Context, run engine.Run) (engine.Session, error) {
	x := &session{s: o.s, run: run}
	if err := x.preflight(ctx); err != nil {
		_ = x.Close()
		return nil, err
	}
	return x, nil
}

func (x *session) preflight(ctx context.Context) (err error) {
	if x.api, x.place, err = x.s.Open(ctx, x.s.Region); err != nil {
		return err
	}
	if x.instance, err = find(ctx, x.api, x.place, x.s.Identifier); err != nil {
		return err
	}
	x.clock = shared.NewClock(x.s.Clock, dateOf(x.api, x.s.Identifier))
	i := x.instance
	id, engineName := aws.ToString(i.DbiResourceId), aws.ToString(i.Engine)
	errs := []error{x.checkEngine(), x.checkStatus()}
	if id == "" {
		errs = append(errs, fmt.Errorf("DB instance %s has no resource id yet: wait until it is available", x.s.Identifier))
	}
	x.facts = engine.Facts{SourceID: id, ToolVersions: map[string]string{engineName: aws.ToString(i.EngineVersion)}, Witness: "none", Warnings: x.facts.Warnings}
	if x.s.snapshots() {
		errs = append(errs, x.preflightSnapshot(ctx))
	} else {
		errs = append(errs, x.preflightPITR(ctx))
	}
	if x.s.Login != nil {
		errs = append(errs, x.openWitness(ctx))
	}
	return errors.Join(errs...)
}

func (x *session) checkEngine() error {
	i := x.instance
	name := aws.ToString(i.Engine)
	family, ok := shared.Family(name)
	switch {
	case aws.ToString(i.DBClusterIdentifier) != "" || strings.HasPrefix(name, "aurora"):
		return fmt.Errorf("DB instance %s belongs to the cluster %s, which is restored as a whole: use aws_rds_cluster { identifier = %q }", x.s.Identifier, aws.ToString(i.DBClusterIdentifier), aws.ToString(i.DBClusterIdentifier))
	case !ok:
		return fmt.Errorf("DB instance %s has the engine %s, which ScalarDB does not support", x.s.Identifier, name)
	case aws.ToString(i.ReadReplicaSourceDBInstanceIdentifier) != "" || aws.ToString(i.ReadReplicaSourceDBClusterIdentifier) != "":
		return fmt.Errorf("DB instance %s is a read replica, which lags behind its source: name the source (%s%s)", x.s.Identifier,
			aws.ToString(i.ReadReplicaSourceDBInstanceIdentifier), aws.ToString(i.ReadReplicaSourceDBClusterIdentifier))
	}
	if family == shared.FamilySQLServer && !x.s.snapshots() {
		x.warn("RDS for SQL Server restores the databases of one instance to points up to a second apart, so transactions over several of them may be torn: keep ScalarDB's namespaces in one database, or use method snapshot.")
	}
	return nil
}

func (x *session) checkStatus() error {
	status := aws.ToString(x.instance.DBInstanceStatus)
	switch {
	case shared.Broken(status):
		return fmt.Errorf("DB instance %s is %s: %s", x.s.Identifier, status, shared.Remedy(status))
	case x.s.snapshots() && status != "available" && status != "storage-optimization":
		return fmt.Errorf("DB instance %s is %s, and a snapshot can be taken only of one that is available or storage-optimization: wait until it is", x.s.Identifier, status)
	case !shared.Usable(status):
		return fmt.Errorf("DB instance %s is %s: wait until it is available", x.s.Identifier, status)
	}
	return nil
}

func (x *session) warn(text string) { x.facts.Warnings = append(x.facts.Warnings, text) }

func (x *session) preflightPITR(ctx context.Context) error {
	i := x.instance
	x.facts.NeedsInstant, x.facts.Granule, x.facts.ByTime = true, granule, true
	x.facts.Planned = []engine.Artifact{{Kind: pitrKind, ID: aws.ToString(i.DBInstanceArn), Extra: x.extra()}}
	days := aws.ToInt32(i.BackupRetentionPeriod)
	if days == 0 {
		return fmt.Errorf("automated backups of DB instance %s are off, so it cannot be restored by time: set its backup_retention_period (which restarts it), or use method = \"snapshot\"", x.s.Identifier)
	}
	if days < shortRetention {
		x.warn(fmt.Sprintf("Automated backups of DB instance %s are kept for %d days: after that nothing restores this backup. Raise its backup_retention_period where that is too short.", x.s.Identifier, days))
	}
	if i.LatestRestorableTime == nil {
		return fmt.Errorf("DB instance %s has no restorable time: its first automated backup is not done yet; wait until the console shows a latest restore time", x.s.Identifier)
	}
	backups, err := automated(ctx, x.api, rds.DescribeDBInstanceAutomatedBackupsInput{DbiResourceId: i.DbiResourceId})
	if err != nil {
		return err
	}
	if len(backups) == 0 {
		return fmt.Errorf("RDS names no automated backups of DB instance %s, so it cannot be restored by time: wait until the first one is done", x.s.Identifier)
	}
	return nil
}

// extra says in an artifact what it is about.
func (x *session) extra() map[string]string {
	return map[string]string{
		shared.ExtraAccount: x.place.Account, shared.ExtraRegion: x.place.Region, shared.ExtraIdentifier: aws.ToString(x.instance.DBInstanceIdentifier),
		shared.ExtraARN: aws.ToString(x.instance.DBInstanceArn), shared.ExtraResourceID: aws.ToString(x.instance.DbiResourceId),
	}
}

func (x *session) openWitness(ctx context.Context) error {
	e, ok := endpointOf(x.instance, x.s.Database)
	if !ok || !e.Readable() {
		x.warn(fmt.Sprintf("Engine %s is not read through SQL: no write witness, and no verification of a restore.", aws.ToString(x.instance.Engine)))
		return nil
	}
	w, err := shared.NewWitness(ctx, e, *x.s.Login, x.s.Layout, x.s.Clock)
	if err != nil {
		return fmt.Errorf("reading ScalarDB's tables of DB instance %s (without an entry in the provider's credentials nothing is read): %w", x.s.Identifier, err)
	}
	x.witness, x.facts.Witness = w, shared.WitnessName
	for _, name := range w.Missing() {
		x.warn(fmt.Sprintf("ScalarDB's metadata names table %s, which is not in the database (or lacks columns).", name))
	}
	return nil
}

// Facts are preflight's.
func (x *session) Facts() engine.Facts { return x.facts }

// MeasureClock reads the Date header of RDS's answers.
func (x *session) MeasureClock(ctx context.Context) (engine.ClockBound, error) {
	b, err := x.clock.MeasureClock(ctx)
	if err == nil {
		x.bound = b
	}
	return b, err
}

// Capture is an instant, or the request for a snapshot.
func (x *session) Capture(ctx context.Context) error {
	if x.witness != nil {
		if err := x.witness.First(ctx); err != nil {
			return err
		}
	}
	if x.s.snapshots() {
		return x.requestSnapshot(ctx)
	}
	return nil
}

// Confirm makes sure that the instance is the one that preflight saw, and still backed up.
func (x *session) Confirm(ctx context.Context) error {
	if _, err := x.same(ctx); err != nil {
		return err
	}
	if x.witness != nil {
		return x.witness.Last(ctx)
	}
	return nil
}

// same looks at the instance again. It returns a *engine.VoidError when it is another one, or not backed up any more.
func (x *session) same(ctx context.Context) (types.DBInstance, error) {
	i, err := describe(ctx, x.api, x.s.Identifier)
	if err != nil {
		return types.DBInstance{}, err
	}
	void := func(format string, args ...any) error {
		return &engine.VoidError{Reason: "DB instance " + x.s.Identifier + " " + fmt.Sprintf(format, args...)}
	}
	switch {
	case i == nil:
		return types.DBInstance{}, void("was deleted, or renamed, since preflight")
	case aws.ToString(i.DbiResourceId) != x.facts.SourceID:
		return types.DBInstance{}, void("is another one than in preflight (resource id %s, before: %s)", aws.ToString(i.DbiResourceId), x.facts.SourceID)
	case shared.Broken(aws.ToString(i.DBInstanceStatus)):
		return types.DBInstance{}, void("became %s since preflight: %s", aws.ToString(i.DBInstanceStatus), shared.Remedy(aws.ToString(i.DBInstanceStatus)))
	case !x.s.snapshots() && aws.ToInt32(i.BackupRetentionPeriod) == 0:
		return types.DBInstance{}, void("has its automated backups switched off since preflight: nothing can be restored by time")
	}
	return *i, nil
}

// Await waits until the capture can be restored.
func (x *session) Await(ctx context.Context) (out engine.Captured, err error) {
	if x.witness != nil {
		if out, err = x.witness.Judge(ctx, x.run.OpenedAt(), x.run.ServerClockBound); err != nil {
			return engine.Captured{}, err
		}
		if err := x.witness.Close(); err != nil { // its snapshots hold the vacuum up
			x.report("closing the sessions of the write witness", map[string]any{"error": err.Error()})
		}
	}
	var a engine.Artifact
	if x.s.snapshots() {
		a, err = x.awaitSnapshot(ctx)
	} else {
		a, err = x.awaitRestorable(ctx)
	}
	if err != nil {
		return engine.Captured{}, err
	}
	out.Artifacts = []engine.Artifact{a}
	settings, err := shapeOf(x.instance, x.place).encode()
	if err != nil {
		return engine.Captured{}, err
	}
	out.Extra = x.extra()
	out.Extra[shared.ExtraSettings] = settings
	out.Extra[shared.ExtraEngine] = aws.ToString(x.instance.Engine)
	if x.s.Database != "" {
		out.Extra[shared.ExtraDatabase] = x.s.Database
	}
	return out, nil
}

// awaitRestorable waits until the latest restorable time is after the restore point.
func (x *session) awaitRestorable(ctx context.Context) (engine.Artifact, error) {
	point := x.run.Window().RestorePoint
	if point.IsZero() {
		return engine.Artifact{}, errors.New("the pause window has no restore point; this is a bug in the provider")
	}
	var last types.DBInstance
	err := x.waiter().Until(ctx, fmt.Sprintf("DB instance %s can be restored to %s", x.s.Identifier, point.Format(time.RFC3339)), func(ctx context.Context) (bool, string, error) {
		var err error
		if last, err = x.same(ctx); err != nil {
			return false, "", err
		}
		latest := aws.ToTime(last.LatestRestorableTime)
		return latest.After(point), "restorable to " + latest.UTC().Format(time.RFC3339), nil
	})
	if err != nil {
		return engine.Artifact{}, err
	}
	a := x.facts.Planned[0]
	a.Extra = x.extra()
	a.Extra[shared.ExtraRestorePoint] = point.UTC().Format(time.RFC3339)
	a.Extra["retention_days"] = strconv.Itoa(int(aws.ToInt32(last.BackupRetentionPeriod)))
	return a, nil
}

func (x *session) waiter() shared.Waiter {
	return shared.Waiter{Clock: x.s.Clock, Report: x.run.Report}
}

func (x *session) report(message string, fields map[string]any) {
	if x.run.Report != nil {
		x.run.Report(message, fields)
	}
}

// Discard removes this run's snapshot.
func (x *session) Discard(ctx context.Context) error {
	if !x.requested {
		return nil
	}
	return x.discardSnapshot(ctx)
}

// Close ends the sessions of the witness.
func (x *session) Close() error {
	if x.witness == nil {
		return nil
	}
	return x.witness.Close()
}
