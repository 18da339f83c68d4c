package rds

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

// Making keeps account of what one restore makes: everything is announced before it is made, and what surely does not exist is forgotten.
type Making struct {
	Backup engine.StorageBackup
	Clock  engine.Clock
	Made   engine.Restored // announced, and returned also with an error
}

// Report passes progress on.
func (m *Making) Report(message string, fields map[string]any) {
	if m.Backup.Report != nil {
		m.Backup.Report(message, fields)
	}
}

// Waiter waits, and reports what it waits for.
func (m *Making) Waiter() Waiter { return Waiter{Clock: m.Clock, Report: m.Backup.Report} }

// New is an object that is to be made in a place; resource is its kind in an ARN.
func (m *Making) New(kind, id string, place Place, resource string) engine.RestoredObject {
	return engine.RestoredObject{Kind: kind, ID: id, Created: true, Extra: map[string]string{
		ExtraRunID: m.Backup.RunID, ExtraRegion: place.Region, ExtraAccount: place.Account, ExtraARN: place.ARN(resource, id),
	}}
}

// Find is the place of an announced object; -1 when there is none.
func (m *Making) Find(kind, id string) int {
	return slices.IndexFunc(m.Made.Objects, func(o engine.RestoredObject) bool { return o.Kind == kind && o.ID == id })
}

// Announce records objects that are about to be made, or what became known of them.
func (m *Making) Announce(ctx context.Context, objects ...engine.RestoredObject) error {
	for _, o := range objects {
		if at := m.Find(o.Kind, o.ID); at >= 0 {
			m.Made.Objects[at] = o
		} else {
			m.Made.Objects = append(m.Made.Objects, o)
		}
	}
	if m.Backup.Announce == nil {
		return nil
	}
	announced := engine.Restored{Objects: slices.Clone(m.Made.Objects)}
	if err := m.Backup.Announce(ctx, announced); err != nil {
		return fmt.Errorf("recording what is about to be made: %w", err)
	}
	return nil
}

// Identified records the immutable id of an announced object, once.
func (m *Making) Identified(ctx context.Context, kind, id, resourceID, arn string) error {
	at := m.Find(kind, id)
	if at < 0 || resourceID == "" || m.Made.Objects[at].Extra[ExtraResourceID] != "" {
		return nil
	}
	o := m.Made.Objects[at]
	o.Extra = maps.Clone(o.Extra)
	o.Extra[ExtraResourceID], o.Extra[ExtraARN] = resourceID, cmp.Or(arn, o.Extra[ExtraARN])
	return m.Announce(ctx, o)
}

// Forget takes an object out that surely was not made, or is gone.
func (m *Making) Forget(kind, id string) {
	m.Made.Objects = slices.DeleteFunc(m.Made.Objects, func(o engine.RestoredObject) bool { return o.Kind == kind && o.ID == id })
}

// Tags are those of everything that the restore makes, and the user's. database is the argument's; empty: the backup's.
func (m *Making) Tags(database string, user map[string]string) []types.Tag {
	all := map[string]string{TagRestore: m.Backup.Name, TagRunID: m.Backup.RunID, TagStorage: m.Backup.Storage}
	if name := cmp.Or(database, m.Backup.Record.Extra[ExtraDatabase]); name != "" {
		all[TagDatabase] = name
	}
	maps.Copy(all, user)
	return Tags(all)
}

// OfRun says whether what has these tags was made by that run.
func OfRun(tags []types.Tag, runID string) bool {
	return runID != "" && TagsOf(tags)[TagRunID] == runID
}

// Ours says whether what has an object's identifier now is that object: by its immutable resource id, or, when that was not known yet, by the run id.
func Ours(resourceID *string, tags []types.Tag, o engine.RestoredObject) bool {
	if id := o.Extra[ExtraResourceID]; id != "" {
		return aws.ToString(resourceID) == id
	}
	return OfRun(tags, o.Extra[ExtraRunID])
}
