package awsrdsinstance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	shared "github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/rds"
)

// appearTimeout is how long a snapshot is looked for whose request had no answer.
const appearTimeout = 20 * time.Second

// slack covers that the recorded bound is in whole milliseconds.
const slack = 20 * time.Millisecond

func (x *session) preflightSnapshot(ctx context.Context) error {
	x.snapshot = shared.Name("scalardb", x.run.BackupID, x.s.Storage, x.run.ID)
	a := engine.Artifact{Kind: snapshotKind, ID: x.place.ARN("snapshot", x.snapshot), Extra: x.extra()}
	a.Extra[shared.ExtraRunID] = x.run.ID
	x.facts.Planned = []engine.Artifact{a}
	var errs []error
	if q, err := quotas(ctx, x.api); err != nil {
		errs = append(errs, err)
	} else {
		errs = append(errs, shared.Quota(q, "ManualSnapshots", 1, "manual snapshots", x.place))
	}
	there, err := snapshot(ctx, x.api, x.snapshot)
	if err == nil && there != nil {
		err = fmt.Errorf("there is a snapshot named %s already, which this run did not make", x.snapshot)
	}
	return errors.Join(append(errs, err)...)
}

// requestSnapshot requests the snapshot inside the safe interval, by this storage's own clock bound: once at its beginning, and it returns when the moment of
// the answer lies surely inside too. The engine closes the window after that.
func (x *session) requestSnapshot(ctx context.Context) error {
	// opened + offset + uncertainty by AWS's clock is reached for sure when ours shows opened + 2 · uncertainty.
	if err := x.sleepUntil(ctx, x.run.OpenedAt().Add(2*x.bound.Uncertainty+slack)); err != nil {
		return err
	}
	x.requested = true
	x.sent = x.s.Clock.Now()
	_, err := x.api.CreateDBSnapshot(ctx, &rds.CreateDBSnapshotInput{
		DBInstanceIdentifier: aws.String(x.s.Identifier), DBSnapshotIdentifier: aws.String(x.snapshot),
		Tags: shared.Tags(map[string]string{shared.TagBackup: x.run.BackupID, shared.TagRunID: x.run.ID, shared.TagStorage: x.s.Storage}),
	})
	if err != nil {
		if err = x.settle(ctx, err); err != nil {
			return err
		}
	}
	x.answered = x.s.Clock.Now()
	return x.sleepUntil(ctx, x.answered.Add(2*x.bound.Uncertainty+slack))
}

// settle finds out what a request did whose answer is an error: an earlier try may have come through.
func (x *session) settle(ctx context.Context, cause error) error {
	there, err := snapshot(ctx, x.api, x.snapshot)
	if err == nil && there != nil && shared.OfRun(there.TagList, x.run.ID) {
		return nil
	}
	if err == nil && there == nil && shared.Refused(cause) {
		x.requested = false
	}
	return errors.Join(fmt.Errorf("requesting snapshot %s of DB instance %s: %w", x.snapshot, x.s.Identifier, shared.Explain("rds:CreateDBSnapshot and rds:AddTagsToResource", cause)), err)
}

func (x *session) sleepUntil(ctx context.Context, at time.Time) error {
	if d := at.Sub(x.s.Clock.Now()); d > 0 {
		return x.s.Clock.Sleep(ctx, d)
	}
	return ctx.Err()
}

// awaitSnapshot waits until the snapshot is available, and proves that it shows the window.
func (x *session) awaitSnapshot(ctx context.Context) (engine.Artifact, error) {
	w := x.run.Window()
	from, until := shared.Span(w.StartedAt, w.EndedAt, w.ClockBounds[x.s.Storage], 0)
	// By AWS's clock the request was received in [sent + offset − uncertainty, answered + offset + uncertainty].
	b := w.ClockBounds[x.s.Storage].Bound()
	if x.sent.Add(b.Offset-b.Uncertainty).Before(from) || x.answered.Add(b.Offset+b.Uncertainty).After(until) {
		return engine.Artifact{}, &engine.VoidError{Reason: fmt.Sprintf("the snapshot of DB instance %s was not surely requested inside the pause window, as AWS's clock is known now (±%s): take the backup again", x.s.Identifier, b.Uncertainty)}
	}
	if !w.SafeUntil.IsZero() && w.SafeUntil.Before(until) {
		until = w.SafeUntil
	}
	var s types.DBSnapshot
	err := x.waiter().Until(ctx, "snapshot "+x.snapshot+" is available", func(ctx context.Context) (bool, string, error) {
		there, err := snapshot(ctx, x.api, x.snapshot)
		switch {
		case err != nil:
			return false, "", err
		case there == nil:
			return false, "", &engine.VoidError{Reason: "snapshot " + x.snapshot + " is gone: somebody deleted it"}
		}
		s = *there
		status := aws.ToString(s.Status)
		if status == "failed" {
			return false, "", fmt.Errorf("snapshot %s failed: the events of DB instance %s in the RDS console say why", x.snapshot, x.s.Identifier)
		}
		return status == "available", fmt.Sprintf("%s, %d %%", status, aws.ToInt32(s.PercentProgress)), nil
	})
	if err != nil {
		return engine.Artifact{}, err
	}
	if err := x.proves(s, until); err != nil {
		return engine.Artifact{}, err
	}
	if err := x.share(ctx); err != nil {
		return engine.Artifact{}, err
	}
	a := x.facts.Planned[0]
	a.Size = int64(aws.ToInt32(s.AllocatedStorage)) << 30
	a.Extra = x.extra()
	a.Extra[shared.ExtraRunID] = x.run.ID
	a.Extra[shared.ExtraRequestedAt] = x.sent.UTC().Format(time.RFC3339Nano)
	a.Extra[shared.ExtraDatabaseTime] = s.SnapshotDatabaseTime.UTC().Format(time.RFC3339Nano)
	return a, nil
}

// proves: nothing in the snapshot is later than the window.
func (x *session) proves(s types.DBSnapshot, until time.Time) error {
	switch {
	case aws.ToString(s.DbiResourceId) != "" && aws.ToString(s.DbiResourceId) != x.facts.SourceID:
		return &engine.VoidError{Reason: fmt.Sprintf("snapshot %s is of another instance (resource id %s, in preflight: %s)", x.snapshot, aws.ToString(s.DbiResourceId), x.facts.SourceID)}
	case s.SnapshotDatabaseTime == nil:
		return &engine.VoidError{Reason: fmt.Sprintf("AWS does not say which is the last transaction in snapshot %s, so it proves nothing: use method = \"pitr\"", x.snapshot)}
	case s.SnapshotDatabaseTime.After(until):
		return &engine.VoidError{Reason: fmt.Sprintf("snapshot %s holds a transaction of %s, and the safe interval ended at %s: it was taken after the window; use method = \"pitr\", or raise min_duration",
			x.snapshot, s.SnapshotDatabaseTime.UTC().Format(time.RFC3339Nano), until.UTC().Format(time.RFC3339Nano))}
	}
	return nil
}

// share lets other accounts restore the snapshot.
func (x *session) share(ctx context.Context) error {
	if len(x.s.ShareWith) == 0 {
		return nil
	}
	_, err := x.api.ModifyDBSnapshotAttribute(ctx, &rds.ModifyDBSnapshotAttributeInput{
		DBSnapshotIdentifier: aws.String(x.snapshot), AttributeName: aws.String("restore"), ValuesToAdd: x.s.ShareWith,
	})
	if err != nil {
		return fmt.Errorf("sharing snapshot %s with other accounts (one that is encrypted with the default key of RDS cannot be shared): %w", x.snapshot, shared.Explain("rds:ModifyDBSnapshotAttribute", err))
	}
	return nil
}

// discardSnapshot removes the snapshot, which may still be on its way: a request without an answer may land late.
func (x *session) discardSnapshot(ctx context.Context) error {
	if x.answered.IsZero() {
		wait, cancel := x.s.Clock.WithTimeout(ctx, appearTimeout)
		defer cancel()
		err := x.waiter().Until(wait, "snapshot "+x.snapshot+" shows", func(ctx context.Context) (bool, string, error) {
			there, err := snapshot(ctx, x.api, x.snapshot)
			return there != nil, "not there", err
		})
		if err != nil && wait.Err() == nil {
			return err
		}
	}
	return deleteSnapshot(ctx, x.waiter(), x.api, x.snapshot, x.run.ID, x.facts.SourceID)
}

// deleteSnapshot deletes a snapshot that carries the run's id, or whose tags were removed and which is of the recorded source; its name holds the run id. One
// that is still being made is waited for: AWS deletes no other.
func deleteSnapshot(ctx context.Context, w shared.Waiter, api API, name, runID, sourceID string) error {
	return w.Until(ctx, "snapshot "+name+" can be deleted", func(ctx context.Context) (bool, string, error) {
		there, err := snapshot(ctx, api, name)
		if err != nil || there == nil {
			return err == nil, "", err
		}
		tag, tagged := shared.TagsOf(there.TagList)[shared.TagRunID]
		if runID == "" || (tagged && tag != runID) || (!tagged && (sourceID == "" || aws.ToString(there.DbiResourceId) != sourceID)) {
			return false, "", fmt.Errorf("snapshot %s was not made by this run (its tag %s is %q, not %q), so it is left: delete it by hand if it may go", name, shared.TagRunID, tag, runID)
		}
		status := aws.ToString(there.Status)
		if status == "deleting" {
			return true, "", nil
		}
		_, err = api.DeleteDBSnapshot(ctx, &rds.DeleteDBSnapshotInput{DBSnapshotIdentifier: aws.String(name)})
		switch {
		case shared.Code(err, "DBSnapshotNotFound"):
			return true, "", nil
		case shared.Code(err, "InvalidDBSnapshotState"):
			return false, status, nil
		case err != nil:
			return false, "", fmt.Errorf("deleting snapshot %s: %w", name, shared.Explain("rds:DeleteDBSnapshot", err))
		}
		return true, "", nil
	})
}
