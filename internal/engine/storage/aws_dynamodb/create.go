package awsdynamodb

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

// once lets a call be tried once only: who makes it has to know whether an earlier try may have come through.
func once(o *dynamodb.Options) { o.Retryer = aws.NopRetryer{} }

// creator makes one table by a restore, exactly once.
type creator struct {
	clock  engine.Clock
	api    API
	target string
	// ours says whether a table of the target's name is the one that a try whose answer was lost made.
	ours   func(types.TableDescription) bool
	report func(string, map[string]any)
}

var errTaken = errors.New("somebody made a table of that name meanwhile: an existing table is never replaced")

// create tries until the restore is accepted or refused. Too many restores at once, or calls, are waited for as long as ctx allows.
func (c creator) create(ctx context.Context, try func(context.Context, option) (*types.TableDescription, error)) (types.TableDescription, error) {
	w := waiter{clock: c.clock}
	uncertain := false
	for {
		d, err := try(ctx, once)
		switch {
		case err == nil && d != nil:
			return *d, nil
		case err == nil:
			return describeTable(ctx, c.api, c.target)
		case isTaken(err):
			if uncertain {
				d, err := describeTable(ctx, c.api, c.target)
				if err != nil && !errors.Is(err, engine.ErrNotFound) {
					return types.TableDescription{}, err
				}
				if err == nil && c.ours(d) {
					return d, nil
				}
			}
			return types.TableDescription{}, &refusedError{fmt.Errorf("table %s: %w", c.target, errTaken)}
		case isThrottled(err):
			c.report("AWS allows no more restores at the moment; waiting", map[string]any{"table": c.target, "answer": err.Error()})
		case definite(err):
			return types.TableDescription{}, c.failed(uncertain, fmt.Errorf("restoring table %s: %w", c.target, err))
		default:
			uncertain = true
			c.report("the answer to a restore was lost; asking again", map[string]any{"table": c.target, "answer": err.Error()})
		}
		if waitErr := w.wait(ctx); waitErr != nil {
			return types.TableDescription{}, c.failed(uncertain, fmt.Errorf("restoring table %s: %w", c.target, errors.Join(waitErr, err)))
		}
	}
}

// failed says whether a failure made nothing for sure.
func (creator) failed(uncertain bool, err error) error {
	if uncertain {
		return err
	}
	return &refusedError{err}
}

// refusedError is a restore that surely made nothing.
type refusedError struct{ err error }

func (e *refusedError) Error() string { return e.err.Error() }
func (e *refusedError) Unwrap() error { return e.err }

// deleteTable deletes the table of that name and id, and waits until it is gone, together with its scaling, which would outlive it. Of another id, or
// gone, it is no concern of ours.
func deleteTable(ctx context.Context, clock engine.Clock, r reach, name, id string) error {
	w := waiter{clock: clock}
	for asked := false; ; {
		d, err := describeTable(ctx, r.api, name)
		switch {
		case errors.Is(err, engine.ErrNotFound), err == nil && aws.ToString(d.TableId) != id:
			return nil
		case err != nil:
			return err
		}
		if d.TableStatus != types.TableStatusDeleting {
			asked = false
		}
		if !asked && (d.TableStatus == types.TableStatusActive || d.TableStatus == types.TableStatusInaccessibleEncryptionCredentials) {
			if aws.ToBool(d.DeletionProtectionEnabled) {
				_, err := r.api.UpdateTable(ctx, &dynamodb.UpdateTableInput{TableName: &name, DeletionProtectionEnabled: aws.Bool(false)})
				if err != nil && !isBusy(err) {
					return fmt.Errorf("lifting the deletion protection of table %s: %w", name, err)
				}
			} else if err := deregister(ctx, r, d); err != nil {
				return err
			} else if _, err := r.api.DeleteTable(ctx, &dynamodb.DeleteTableInput{TableName: &name}); err != nil && !isBusy(err) && !isNotFound(err) {
				return fmt.Errorf("deleting table %s: %w", name, err)
			} else {
				asked = err == nil
			}
		}
		if err := w.wait(ctx); err != nil {
			return fmt.Errorf("deleting table %s, which is %s: %w", name, d.TableStatus, err)
		}
	}
}
