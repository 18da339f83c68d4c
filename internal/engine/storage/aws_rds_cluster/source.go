package awsrdscluster

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	shared "github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/rds"
)

// appearTimeout is how long something is looked for whose request had no answer.
const appearTimeout = 20 * time.Second

// Source is one cluster to be captured.
type Source struct{ s SourceSettings }

// NewSource opens nothing yet.
func NewSource(s SourceSettings) *Source { return &Source{s} }

// OpenClock looks once at the cluster.
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

// session is a Source that passed preflight.
type session struct {
	s       SourceSettings
	run     engine.Run
	api     API
	place   shared.Place
	cluster types.DBCluster // as preflight saw it
	shape   Shape
	facts   engine.Facts
	clock   *shared.Clock
	witness *shared.Witness // nil: nothing is read through SQL

	snapshot, temporary string // identifiers of what method snapshot makes
	requested           bool   // one of them may exist
	// Requests without an answer: what they ask for may come to be late.
	clusterOpen, snapshotOpen bool
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
	if x.cluster, err = find(ctx, x.api, x.place, x.s.Identifier); err != nil {
		return err
	}
	x.clock = shared.NewClock(x.s.Clock, dateOf(x.api, x.s.Identifier))
	c := x.cluster
	x.facts = engine.Facts{
		SourceID: aws.ToString(c.DbClusterResourceId), ToolVersions: map[string]string{aws.ToString(c.Engine): aws.ToString(c.EngineVersion)}, Witness: "none",
		NeedsInstant: true, Granule: granule, ByTime: !x.s.snapshots(),
	}
	errs := []error{x.checkEngine(), x.checkStatus(), x.checkBackups()}
	if x.facts.SourceID == "" {
		errs = append(errs, fmt.Errorf("DB cluster %s has no resource id yet: wait until it is available", x.s.Identifier))
	}
	if x.shape, err = shapeWith(ctx, x.api, c, x.place); err != nil {
		errs = append(errs, err)
	}
	if x.s.snapshots() {
		errs = append(errs, x.preflightSnapshot(ctx))
	} else {
		x.facts.Planned = []engine.Artifact{{Kind: pitrKind, ID: aws.ToString(c.DBClusterArn), Extra: x.extra()}}
	}
	if x.s.Login != nil {
		errs = append(errs, x.openWitness(ctx))
	}
	return errors.Join(errs...)
}

func (x *session) checkEngine() error {
	c := x.cluster
	name, mode := aws.ToString(c.Engine), aws.ToString(c.EngineMode)
	if _, ok := shared.Family(name); !ok || !aurora(name) {
		return fmt.Errorf("DB cluster %s has the engine %s: this driver knows clusters of Aurora (aurora-postgresql, aurora-mysql), no Multi-AZ DB clusters and no Neptune or DocumentDB", x.s.Identifier, name)
	}
	switch {
	case mode != "" && mode != "provisioned":
		return fmt.Errorf("DB cluster %s has the engine mode %s: this driver knows provisioned clusters only (Serverless v2 is one)", x.s.Identifier, mode)
	case aws.ToString(c.ReplicationSourceIdentifier) != "":
		return fmt.Errorf("DB cluster %s is a replica of %s, and lags behind it: name the source", x.s.Identifier, aws.ToString(c.ReplicationSourceIdentifier))
	case c.GlobalWriteForwardingStatus == types.WriteForwardingStatusEnabled || c.GlobalWriteForwardingStatus == types.WriteForwardingStatusEnabling:
		return fmt.Errorf("DB cluster %s forwards writes to the primary cluster of its global database, and lags behind it: name the primary", x.s.Identifier)
	case aws.ToString(c.GlobalClusterIdentifier) != "" && writerOf(c) == "":
		return fmt.Errorf("DB cluster %s is a secondary of the global database %s, and lags behind it: name the primary", x.s.Identifier, aws.ToString(c.GlobalClusterIdentifier))
	}
	return nil
}

func (x *session) checkStatus() error {
	switch status := aws.ToString(x.cluster.Status); {
	case shared.Broken(status):
		return fmt.Errorf("DB cluster %s is %s: %s", x.s.Identifier, status, shared.Remedy(status))
	case !shared.Usable(status):
		return fmt.Errorf("DB cluster %s is %s: wait until it is available", x.s.Identifier, status)
	}
	return nil
}

func (x *session) warn(text string) { x.facts.Warnings = append(x.facts.Warnings, text) }

func (x *session) checkBackups() error {
	days := aws.ToInt32(x.cluster.BackupRetentionPeriod)
	switch {
	case days == 0:
		return fmt.Errorf("automated backups of DB cluster %s are off, so it cannot be restored by time: set its backup_retention_period", x.s.Identifier)
	case x.cluster.LatestRestorableTime == nil:
		return fmt.Errorf("DB cluster %s has no restorable time yet: wait until the console shows a latest restore time", x.s.Identifier)
	case days < shortRetention && !x.s.snapshots():
		x.warn(fmt.Sprintf("Automated backups of DB cluster %s are kept for %d days: after that nothing restores this backup. Raise its backup_retention_period where that is too short, or use method = \"snapshot\".", x.s.Identifier, days))
	}
	return nil
}

func (x *session) preflightSnapshot(ctx context.Context) error {
	x.snapshot = shared.Name("scalardb", x.run.BackupID, x.s.Storage, x.run.ID)
	x.temporary = shared.Name("scalardb-temp", x.run.BackupID, x.s.Storage, x.run.ID)
	extra := func() map[string]string {
		e := x.extra()
		e[shared.ExtraRunID] = x.run.ID
		return e
	}
	x.facts.Planned = []engine.Artifact{
		{Kind: snapshotKind, ID: x.place.ARN("cluster-snapshot", x.snapshot), Extra: extra()},
		{Kind: temporaryKind, ID: x.place.ARN("cluster", x.temporary), Extra: extra()},
	}
	var errs []error
	if q, err := quotas(ctx, x.api); err != nil {
		errs = append(errs, err)
	} else {
		errs = append(errs, shared.Quota(q, "ManualClusterSnapshots", 1, "manual cluster snapshots", x.place),
			shared.Quota(q, "DBClusters", 1, "DB clusters, and the snapshot needs a temporary one", x.place))
	}
	if s, err := snapshot(ctx, x.api, x.snapshot); err != nil {
		errs = append(errs, err)
	} else if s != nil {
		errs = append(errs, fmt.Errorf("there is a cluster snapshot named %s already, which this run did not make", x.snapshot))
	}
	if c, err := describe(ctx, x.api, x.temporary); err != nil {
		errs = append(errs, err)
	} else if c != nil {
		errs = append(errs, fmt.Errorf("there is a DB cluster named %s already, which this run did not make", x.temporary))
	}
	return errors.Join(errs...)
}

// extra says in an artifact what it is about.
func (x *session) extra() map[string]string {
	return map[string]string{
		shared.ExtraAccount: x.place.Account, shared.ExtraRegion: x.place.Region, shared.ExtraIdentifier: aws.ToString(x.cluster.DBClusterIdentifier),
		shared.ExtraARN: aws.ToString(x.cluster.DBClusterArn), shared.ExtraResourceID: aws.ToString(x.cluster.DbClusterResourceId),
	}
}

func (x *session) openWitness(ctx context.Context) error {
	e, ok := endpointOf(x.cluster, x.s.Database)
	if !ok || writerOf(x.cluster) == "" {
		return fmt.Errorf("DB cluster %s has no writer, so ScalarDB's tables cannot be read: without an entry in the provider's credentials nothing is read", x.s.Identifier)
	}
	w, err := shared.NewWitness(ctx, e, *x.s.Login, x.s.Layout, x.s.Clock)
	if err != nil {
		return fmt.Errorf("reading ScalarDB's tables of DB cluster %s (without an entry in the provider's credentials nothing is read): %w", x.s.Identifier, err)
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
	return x.clock.MeasureClock(ctx)
}

// Capture is an instant.
func (x *session) Capture(ctx context.Context) error {
	if x.witness != nil {
		return x.witness.First(ctx)
	}
	return ctx.Err()
}

// Confirm makes sure that the cluster is the one that preflight saw, and still backed up.
func (x *session) Confirm(ctx context.Context) error {
	if _, err := x.same(ctx); err != nil {
		return err
	}
	if x.witness != nil {
		return x.witness.Last(ctx)
	}
	return nil
}

// same looks at the cluster again. It returns a *engine.VoidError when it is another one, or not backed up any more.
func (x *session) same(ctx context.Context) (types.DBCluster, error) {
	c, err := describe(ctx, x.api, x.s.Identifier)
	if err != nil {
		return types.DBCluster{}, err
	}
	void := func(format string, args ...any) error {
		return &engine.VoidError{Reason: "DB cluster " + x.s.Identifier + " " + fmt.Sprintf(format, args...)}
	}
	switch {
	case c == nil:
		return types.DBCluster{}, void("was deleted, or renamed, since preflight")
	case aws.ToString(c.DbClusterResourceId) != x.facts.SourceID:
		return types.DBCluster{}, void("is another one than in preflight (resource id %s, before: %s)", aws.ToString(c.DbClusterResourceId), x.facts.SourceID)
	case shared.Broken(aws.ToString(c.Status)):
		return types.DBCluster{}, void("became %s since preflight: %s", aws.ToString(c.Status), shared.Remedy(aws.ToString(c.Status)))
	case aws.ToInt32(c.BackupRetentionPeriod) == 0:
		return types.DBCluster{}, void("has its automated backups switched off since preflight: nothing can be restored by time")
	}
	return *c, nil
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
	a, err := x.awaitRestorable(ctx)
	if err == nil && x.s.snapshots() {
		a, err = x.takeSnapshot(ctx)
	}
	if err != nil {
		return engine.Captured{}, err
	}
	out.Artifacts = []engine.Artifact{a}
	settings, err := x.shape.encode()
	if err != nil {
		return engine.Captured{}, err
	}
	out.Extra = x.extra()
	out.Extra[shared.ExtraSettings] = settings
	out.Extra[shared.ExtraEngine] = aws.ToString(x.cluster.Engine)
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
	var last types.DBCluster
	err := x.waiter().Until(ctx, fmt.Sprintf("DB cluster %s can be restored to %s", x.s.Identifier, point.Format(time.RFC3339)), func(ctx context.Context) (bool, string, error) {
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

func (x *session) tags() []types.Tag {
	return shared.Tags(map[string]string{shared.TagBackup: x.run.BackupID, shared.TagRunID: x.run.ID, shared.TagStorage: x.s.Storage})
}

// takeSnapshot restores the cluster to the restore point under a temporary name and takes the snapshot of that. What fails on the way is left to Discard.
func (x *session) takeSnapshot(ctx context.Context) (engine.Artifact, error) {
	point := x.run.Window().RestorePoint
	x.report("restoring a temporary cluster for the snapshot", map[string]any{"cluster": x.temporary, "restore_point": point.UTC().Format(time.RFC3339)})
	x.requested, x.clusterOpen = true, true
	_, err := x.api.RestoreDBClusterToPointInTime(ctx, &rds.RestoreDBClusterToPointInTimeInput{
		DBClusterIdentifier: aws.String(x.temporary), SourceDbClusterResourceId: aws.String(x.facts.SourceID), RestoreToTime: aws.Time(point.UTC()), RestoreType: aws.String("full-copy"),
		DBSubnetGroupName: shared.Text(x.shape.SubnetGroup), VpcSecurityGroupIds: x.shape.SecurityGroups, DBClusterParameterGroupName: shared.Text(x.shape.ParameterGroup),
		DeletionProtection: aws.Bool(false), Tags: x.tags(),
	})
	if err != nil {
		c, lookErr := describe(ctx, x.api, x.temporary)
		if lookErr != nil || c == nil || !shared.OfRun(c.TagList, x.run.ID) {
			x.clusterOpen = !shared.Refused(err)
			return engine.Artifact{}, errors.Join(fmt.Errorf("restoring the temporary DB cluster %s: %w", x.temporary, shared.Explain("rds:RestoreDBClusterToPointInTime and rds:AddTagsToResource", err)), lookErr)
		}
	}
	x.clusterOpen = false
	c, err := awaitCluster(ctx, x.waiter(), x.api, x.temporary)
	if err != nil {
		return engine.Artifact{}, err
	}
	s, err := x.snapshotTemporary(ctx)
	if err != nil {
		return engine.Artifact{}, err
	}
	if err := deleteTemporary(ctx, x.waiter(), x.api, x.temporary, x.run.ID); err != nil {
		return engine.Artifact{}, err
	}
	if err := x.share(ctx); err != nil {
		return engine.Artifact{}, err
	}
	a := x.facts.Planned[0]
	a.Size = int64(aws.ToInt32(s.AllocatedStorage)) << 30
	a.Extra = x.extra()
	a.Extra[shared.ExtraRunID] = x.run.ID
	a.Extra[shared.ExtraRestorePoint] = point.UTC().Format(time.RFC3339)
	a.Extra[extraSnapshotSource] = aws.ToString(c.DbClusterResourceId)
	return a, nil
}

func (x *session) snapshotTemporary(ctx context.Context) (types.DBClusterSnapshot, error) {
	x.snapshotOpen = true
	_, err := x.api.CreateDBClusterSnapshot(ctx, &rds.CreateDBClusterSnapshotInput{DBClusterIdentifier: aws.String(x.temporary), DBClusterSnapshotIdentifier: aws.String(x.snapshot), Tags: x.tags()})
	if err != nil {
		there, lookErr := snapshot(ctx, x.api, x.snapshot)
		if lookErr != nil || there == nil || !shared.OfRun(there.TagList, x.run.ID) {
			x.snapshotOpen = !shared.Refused(err)
			return types.DBClusterSnapshot{}, errors.Join(fmt.Errorf("taking cluster snapshot %s: %w", x.snapshot, shared.Explain("rds:CreateDBClusterSnapshot and rds:AddTagsToResource", err)), lookErr)
		}
	}
	x.snapshotOpen = false
	return awaitSnapshot(ctx, x.waiter(), x.api, x.snapshot)
}

// awaitSnapshot waits until a cluster snapshot is available.
func awaitSnapshot(ctx context.Context, w shared.Waiter, api API, name string) (s types.DBClusterSnapshot, err error) {
	err = w.Until(ctx, "cluster snapshot "+name+" is available", func(ctx context.Context) (bool, string, error) {
		there, err := snapshot(ctx, api, name)
		switch {
		case err != nil:
			return false, "", err
		case there == nil:
			return false, "", fmt.Errorf("cluster snapshot %s is gone: somebody deleted it", name)
		}
		s = *there
		status := aws.ToString(s.Status)
		if status == "failed" {
			return false, "", fmt.Errorf("cluster snapshot %s failed: the events in the RDS console say why", name)
		}
		return status == "available", fmt.Sprintf("%s, %d %%", status, aws.ToInt32(s.PercentProgress)), nil
	})
	return s, err
}

// awaitCluster waits until a cluster that was just requested is available; it may have no instances.
func awaitCluster(ctx context.Context, w shared.Waiter, api API, name string) (c types.DBCluster, err error) {
	seen := false
	err = w.Until(ctx, "DB cluster "+name+" is available", func(ctx context.Context) (bool, string, error) {
		there, err := describe(ctx, api, name)
		switch {
		case err != nil:
			return false, "", err
		case there == nil && seen:
			return false, "", fmt.Errorf("DB cluster %s is gone while it was restored: somebody deleted it", name)
		case there == nil:
			return false, "not there yet", nil
		}
		c, seen = *there, true
		status := aws.ToString(c.Status)
		if shared.Broken(status) {
			return false, "", fmt.Errorf("DB cluster %s became %s while it was restored: %s", name, status, shared.Remedy(status))
		}
		return shared.Usable(status), status, nil
	})
	return c, err
}

// share lets other accounts restore the snapshot.
func (x *session) share(ctx context.Context) error {
	if len(x.s.ShareWith) == 0 {
		return nil
	}
	_, err := x.api.ModifyDBClusterSnapshotAttribute(ctx, &rds.ModifyDBClusterSnapshotAttributeInput{
		DBClusterSnapshotIdentifier: aws.String(x.snapshot), AttributeName: aws.String("restore"), ValuesToAdd: x.s.ShareWith,
	})
	if err != nil {
		return fmt.Errorf("sharing cluster snapshot %s with other accounts (one that is encrypted with the default key of RDS cannot be shared): %w", x.snapshot, shared.Explain("rds:ModifyDBClusterSnapshotAttribute", err))
	}
	return nil
}

// Discard removes this run's snapshot and temporary cluster.
func (x *session) Discard(ctx context.Context) error {
	if !x.requested {
		return nil
	}
	// At once: each waits for AWS, and ctx has an end.
	var errs [2]error
	var wg sync.WaitGroup
	wg.Go(func() {
		x.appear(ctx, x.clusterOpen, "DB cluster "+x.temporary, func(ctx context.Context) (bool, error) {
			c, err := describe(ctx, x.api, x.temporary)
			return c != nil, err
		})
		errs[0] = deleteTemporary(ctx, x.waiter(), x.api, x.temporary, x.run.ID)
	})
	wg.Go(func() {
		x.appear(ctx, x.snapshotOpen, "cluster snapshot "+x.snapshot, func(ctx context.Context) (bool, error) {
			s, err := snapshot(ctx, x.api, x.snapshot)
			return s != nil, err
		})
		errs[1] = deleteSnapshot(ctx, x.waiter(), x.api, x.snapshot, x.run.ID, "")
	})
	wg.Wait()
	return errors.Join(errs[:]...)
}

// appear waits a while for something that was requested without an answer.
func (x *session) appear(ctx context.Context, open bool, what string, there func(context.Context) (bool, error)) {
	if !open {
		return
	}
	ctx, cancel := x.s.Clock.WithTimeout(ctx, appearTimeout)
	defer cancel()
	_ = x.waiter().Until(ctx, what+" shows", func(ctx context.Context) (bool, string, error) { // the deletion that follows says what is wrong
		ok, err := there(ctx)
		return ok, "not there", err
	})
}

// Close ends the sessions of the witness.
func (x *session) Close() error {
	if x.witness == nil {
		return nil
	}
	return x.witness.Close()
}
