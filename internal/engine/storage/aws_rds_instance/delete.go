package awsrdsinstance

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/rds"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	shared "github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/rds"
)

// open opens the API where an object lies.
func (d *Destination) open(ctx context.Context, o engine.RestoredObject) (API, error) {
	region := o.Extra[shared.ExtraRegion]
	if region == "" {
		region = d.s.Region
	}
	api, place, err := d.s.Open(ctx, region)
	if err != nil {
		return nil, err
	}
	if err := place.Same(o.Extra); err != nil {
		return nil, fmt.Errorf("looking at %s: %w", o.ID, err)
	}
	return api, nil
}

// Inspect looks for the instance by its resource id.
func (d *Destination) Inspect(ctx context.Context, r engine.Restored) error {
	for _, o := range r.Objects {
		if o.Kind != objectKind {
			continue
		}
		api, err := d.open(ctx, o)
		if err != nil {
			return err
		}
		i, err := describe(ctx, api, o.ID)
		switch {
		case err != nil:
			return err
		case i == nil:
			return fmt.Errorf("DB instance %s: %w", o.ID, engine.ErrNotFound)
		case !shared.Ours(i.DbiResourceId, i.TagList, o):
			return fmt.Errorf("DB instance %s is not the one that was restored, somebody replaced it: %w", o.ID, engine.ErrNotFound)
		}
	}
	return nil
}

// Delete removes what a restore created, and waits until it is gone, so that its identifier is free. What has the identifier now and is another's is left.
func (d *Destination) Delete(ctx context.Context, r engine.Restored) error {
	var errs []error
	for _, o := range r.Objects {
		if !o.Created {
			continue
		}
		api, err := d.open(ctx, o)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		switch o.Kind {
		case objectKind:
			errs = append(errs, d.deleteInstance(ctx, api, o))
		case copyKind:
			errs = append(errs, deleteSnapshot(ctx, shared.Waiter{Clock: d.s.Clock}, api, o.ID, o.Extra[shared.ExtraRunID], ""))
		}
	}
	return errors.Join(errs...)
}

func (d *Destination) deleteInstance(ctx context.Context, api API, o engine.RestoredObject) error {
	requested, lifting := false, false
	return shared.Waiter{Clock: d.s.Clock}.Until(ctx, "DB instance "+o.ID+" is deleted", func(ctx context.Context) (bool, string, error) {
		i, err := describe(ctx, api, o.ID)
		if err != nil || i == nil || !shared.Ours(i.DbiResourceId, i.TagList, o) {
			return err == nil, "", err
		}
		status := aws.ToString(i.DBInstanceStatus)
		if requested || status == "deleting" {
			return false, status, nil
		}
		if aws.ToBool(i.DeletionProtection) {
			if o.Extra[shared.ExtraProtected] != "true" {
				return false, "", fmt.Errorf("DB instance %s has deletion protection, which this restore did not set: switch it off if it may go", o.ID)
			}
			if lifting {
				return false, status, nil // it takes a moment
			}
			_, err := api.ModifyDBInstance(ctx, &rds.ModifyDBInstanceInput{DBInstanceIdentifier: aws.String(o.ID), DeletionProtection: aws.Bool(false), ApplyImmediately: aws.Bool(true)})
			if err != nil && !shared.Code(err, "InvalidDBInstanceState") {
				return false, "", fmt.Errorf("switching off the deletion protection of DB instance %s: %w", o.ID, shared.Explain("rds:ModifyDBInstance", err))
			}
			lifting = err == nil
			return false, status, nil
		}
		_, err = api.DeleteDBInstance(ctx, &rds.DeleteDBInstanceInput{DBInstanceIdentifier: aws.String(o.ID), SkipFinalSnapshot: aws.Bool(true), DeleteAutomatedBackups: aws.Bool(true)})
		switch {
		case shared.Code(err, "DBInstanceNotFound"):
			return true, "", nil
		case shared.Code(err, "InvalidDBInstanceState"):
			return false, status, nil // it is still being made, or changed
		case err != nil:
			return false, "", fmt.Errorf("deleting DB instance %s: %w", o.ID, shared.Explain("rds:DeleteDBInstance", err))
		}
		requested = true
		return false, "deleting", nil
	})
}
