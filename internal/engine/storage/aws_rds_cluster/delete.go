package awsrdscluster

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"

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

// Inspect looks for the cluster by its resource id. Its instances may come and go.
func (d *Destination) Inspect(ctx context.Context, r engine.Restored) error {
	for _, o := range r.Objects {
		if o.Kind != objectKind {
			continue
		}
		api, err := d.open(ctx, o)
		if err != nil {
			return err
		}
		c, err := describe(ctx, api, o.ID)
		switch {
		case err != nil:
			return err
		case c == nil:
			return fmt.Errorf("DB cluster %s: %w", o.ID, engine.ErrNotFound)
		case !shared.Ours(c.DbClusterResourceId, c.TagList, o):
			return fmt.Errorf("DB cluster %s is not the one that was restored, somebody replaced it: %w", o.ID, engine.ErrNotFound)
		}
	}
	return nil
}

// Delete removes what a restore created: instances first, since AWS deletes no cluster that has some. It waits until all is gone, so that the identifiers are free.
func (d *Destination) Delete(ctx context.Context, r engine.Restored) error {
	var errs []error
	for _, kind := range []string{copyKind, instanceKind, objectKind} {
		for _, o := range r.Objects {
			if o.Kind != kind || !o.Created {
				continue
			}
			api, err := d.open(ctx, o)
			if err == nil {
				err = d.delete(ctx, api, o)
			}
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (d *Destination) delete(ctx context.Context, api API, o engine.RestoredObject) error {
	w := shared.Waiter{Clock: d.s.Clock}
	switch o.Kind {
	case instanceKind:
		return deleteInstance(ctx, w, api, o)
	case objectKind:
		return deleteCluster(ctx, w, api, o)
	}
	return deleteSnapshot(ctx, w, api, o.ID, o.Extra[shared.ExtraRunID], "")
}

// deleteInstance requests the deletion of an instance. That it is gone shows when its cluster can be deleted.
func deleteInstance(ctx context.Context, w shared.Waiter, api API, o engine.RestoredObject) error {
	return w.Until(ctx, "DB instance "+o.ID+" can be deleted", func(ctx context.Context) (bool, string, error) {
		i, err := member(ctx, api, o.ID)
		if err != nil || i == nil || !shared.Ours(i.DbiResourceId, i.TagList, o) || aws.ToString(i.DBInstanceStatus) == "deleting" {
			return err == nil, "", err
		}
		_, err = api.DeleteDBInstance(ctx, &rds.DeleteDBInstanceInput{DBInstanceIdentifier: aws.String(o.ID), SkipFinalSnapshot: aws.Bool(true)})
		switch {
		case shared.Code(err, "DBInstanceNotFound"):
			return true, "", nil
		case shared.Code(err, "InvalidDBInstanceState"):
			return false, aws.ToString(i.DBInstanceStatus), nil // it is still being made
		case err != nil:
			return false, "", fmt.Errorf("deleting DB instance %s: %w", o.ID, shared.Explain("rds:DeleteDBInstance", err))
		}
		return true, "", nil
	})
}

func deleteCluster(ctx context.Context, w shared.Waiter, api API, o engine.RestoredObject) error {
	requested, lifting := false, false
	return w.Until(ctx, "DB cluster "+o.ID+" is deleted", func(ctx context.Context) (bool, string, error) {
		c, err := describe(ctx, api, o.ID)
		if err != nil || c == nil || !shared.Ours(c.DbClusterResourceId, c.TagList, o) {
			return err == nil, "", err
		}
		status := aws.ToString(c.Status)
		if requested || status == "deleting" {
			return false, status, nil
		}
		left, err := others(ctx, w, api, *c, o)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("DB cluster %s has instances that this restore did not make: delete %s first, if the cluster may go", o.ID, strings.Join(left, ", "))
		}
		if err != nil {
			return false, "", err
		}
		if aws.ToBool(c.DeletionProtection) {
			if o.Extra[shared.ExtraProtected] != "true" {
				return false, "", fmt.Errorf("DB cluster %s has deletion protection, which this restore did not set: switch it off if it may go", o.ID)
			}
			if lifting {
				return false, status, nil // it takes a moment
			}
			_, err := api.ModifyDBCluster(ctx, &rds.ModifyDBClusterInput{DBClusterIdentifier: aws.String(o.ID), DeletionProtection: aws.Bool(false), ApplyImmediately: aws.Bool(true)})
			if err != nil && !shared.Code(err, "InvalidDBClusterState") {
				return false, "", fmt.Errorf("switching off the deletion protection of DB cluster %s: %w", o.ID, shared.Explain("rds:ModifyDBCluster", err))
			}
			lifting = err == nil
			return false, status, nil
		}
		_, err = api.DeleteDBCluster(ctx, &rds.DeleteDBClusterInput{DBClusterIdentifier: aws.String(o.ID), SkipFinalSnapshot: aws.Bool(true), DeleteAutomatedBackups: aws.Bool(true)})
		switch {
		case shared.Code(err, "DBClusterNotFound"):
			return true, "", nil
		case shared.Code(err, "InvalidDBClusterState"):
			return false, status, nil // instances are still being deleted, or it is still being made
		case err != nil:
			return false, "", fmt.Errorf("deleting DB cluster %s: %w", o.ID, shared.Explain("rds:DeleteDBCluster", err))
		}
		requested = true
		return false, "deleting", nil
	})
}

// others names the instances of a cluster that this restore did not make. Those that carry its run id, recorded or not, are deleted.
func others(ctx context.Context, w shared.Waiter, api API, c types.DBCluster, o engine.RestoredObject) (names []string, err error) {
	run := o.Extra[shared.ExtraRunID]
	for _, m := range c.DBClusterMembers {
		id := aws.ToString(m.DBInstanceIdentifier)
		i, err := member(ctx, api, id)
		switch {
		case err != nil:
			return nil, err
		case i == nil || aws.ToString(i.DBInstanceStatus) == "deleting":
		case shared.OfRun(i.TagList, run):
			if err := deleteInstance(ctx, w, api, engine.RestoredObject{Kind: instanceKind, ID: id, Extra: map[string]string{shared.ExtraRunID: run}}); err != nil {
				return nil, err
			}
		default:
			names = append(names, id)
		}
	}
	return names, nil
}
