package awsdynamodb

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/clock"
)

// Kinds of artifacts, and what their Extra holds.
const (
	kindPITR     = "aws_dynamodb_pitr"     // ID: the table's ARN; nothing is kept but the instant
	kindBackup   = "aws_dynamodb_backup"   // ID: the backup's ARN, or "planned:" and its name
	kindSettings = "aws_dynamodb_settings" // ID: a catalog object

	extraTable        = "table"         // "namespace.table"
	extraSource       = "source_arn"    // of the source table
	extraTableID      = "table_id"      // of the source table
	extraRestorePoint = "restore_point" // RFC 3339
	extraTemporary    = "temporary"     // the table that was backed up
	extraRegion       = "region"
	extraPrefix       = "prefix"
	extraAccount      = "account"
	extraRecoveryDays = "recovery_period_days" // the shortest of all tables
	extraMethod       = "method"

	plannedPrefix = "planned:"
)

func sum(data []byte) string {
	h := sha256.Sum256(data)
	return hex.EncodeToString(h[:])
}

// Source is the tables below one prefix, or some of them.
type Source struct{ s Settings }

// NewSource opens nothing yet.
func NewSource(s Settings) *Source { return &Source{s} }

// OpenClock opens what the clock is measured by: the Date headers of DynamoDB's answers.
func (o *Source) OpenClock(ctx context.Context) (engine.ClockSession, error) {
	r, err := o.s.reach(ctx, o.s.Region)
	if err != nil {
		return nil, err
	}
	return &clockSession{dated(r, o.s.Clock)}, nil
}

func dated(r reach, c engine.Clock) clock.Dated {
	return clock.Dated{Clock: c, Sample: func(ctx context.Context) (time.Time, error) {
		out, err := r.api.ListTables(ctx, &dynamodb.ListTablesInput{Limit: aws.Int32(1)})
		if err != nil {
			return time.Time{}, fmt.Errorf("asking DynamoDB for the time: %w", err)
		}
		return dateOf(out.ResultMetadata), nil
	}}
}

type clockSession struct{ clock.Dated }

// MeasureClock measures DynamoDB's clock.
func (c *clockSession) MeasureClock(ctx context.Context) (engine.ClockBound, error) {
	return c.Measure(ctx)
}

// Close has nothing to release.
func (c *clockSession) Close() error { return nil }

// session is a Source that passed preflight.
type session struct {
	clockSession
	s      Settings
	run    engine.Run
	r      reach
	inv    inventory
	looks  []look
	looker *looker
	facts  engine.Facts
	// recheck says that the metadata's capacity allows to read it again within the pause.
	recheck bool
	stored  engine.Artifact // the settings
}

// Preflight looks at every table: that it is there, and restorable to any instant from now on.
func (o *Source) Preflight(ctx context.Context, run engine.Run) (engine.Session, error) {
	r, err := o.s.reach(ctx, o.s.Region)
	if err != nil {
		return nil, err
	}
	x := &session{clockSession: clockSession{dated(r, o.s.Clock)}, s: o.s, run: run, r: r, looker: newLooker(r, o.s.Clock)}
	if err := x.preflight(ctx); err != nil {
		return nil, fmt.Errorf("the DynamoDB tables of %s: %w", r.describe(), err)
	}
	return x, nil
}

func (x *session) preflight(ctx context.Context) error {
	// A read that needs no table: whether the region and the credentials are right at all shows before a long list of failures does.
	if _, err := x.r.api.DescribeLimits(ctx, &dynamodb.DescribeLimitsInput{}); err != nil && !isUnknown(err) {
		return fmt.Errorf("asking for the account's limits: %w", err)
	}
	var err error
	if x.inv, err = readInventory(ctx, x.s, x.r); err != nil {
		return err
	}
	if err := x.inv.check(x.s, x.r); err != nil {
		return err
	}
	if x.looks, err = x.looker.lookAll(ctx, x.s, x.inv.tables); err != nil {
		return err
	}
	errs := []error{x.checkStates(), x.checkRecovery()}
	if x.s.method() == MethodOnDemand {
		errs = append(errs, x.checkTemporary(ctx))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	x.fillFacts()
	return nil
}

func (x *session) checkStates() error {
	var inactive []string
	for _, l := range x.looks {
		// An index under construction, or a change of capacity, does not hinder a restore.
		if l.status != types.TableStatusActive && l.status != types.TableStatusUpdating {
			inactive = append(inactive, fmt.Sprintf("%s (%s)", l.features.Table, l.status))
		}
	}
	if len(inactive) > 0 {
		return fmt.Errorf("these tables are not ACTIVE: %s", list(inactive))
	}
	return nil
}

// checkRecovery names all tables without point-in-time recovery at once, and how to enable it.
func (x *session) checkRecovery() error {
	var without []string
	for _, l := range x.looks {
		if l.earliest.IsZero() {
			without = append(without, l.features.Table)
		}
	}
	if len(without) == 0 {
		return nil
	}
	names := slices.Clone(without)
	slices.Sort(names)
	if len(names) > named {
		names = append(names[:named], "...")
	}
	return fmt.Errorf("point-in-time recovery is not enabled for %d of %d tables: %s; enable it, and wait until each has an earliest restorable time: "+
		`for t in %s; do aws dynamodb update-continuous-backups --region %s --table-name "$t" --point-in-time-recovery-specification PointInTimeRecoveryEnabled=true; done`,
		len(without), len(x.looks), list(without), strings.Join(names, " "), x.r.region)
}

func (x *session) fillFacts() {
	ids := make([]string, 0, len(x.looks))
	for _, l := range x.looks {
		ids = append(ids, l.features.ARN+" "+l.features.ID)
	}
	slices.Sort(ids)
	x.facts = engine.Facts{
		SourceID:     fmt.Sprintf("%s/%s/%s", x.r.ID, x.r.region, digest(ids...)),
		ToolVersions: map[string]string{"dynamodb_api": "2012-08-10"},
		Witness:      "none", // the newest coordinator entry would take a scan
		NeedsInstant: true, Granule: time.Second,
		ByTime: x.s.method() == MethodPITR,
	}
	x.facts.Planned = []engine.Artifact{{Kind: kindSettings, ID: x.settingsName()}}
	if x.s.method() == MethodOnDemand {
		for _, l := range x.looks {
			x.facts.Planned = append(x.facts.Planned, x.planned(l))
		}
	}
	x.facts.Warnings = append(x.facts.Warnings, x.inv.warnings...)
	x.facts.Warnings = append(x.facts.Warnings, x.looker.warnings...)
	x.checkCapacity()
}

// checkCapacity: the metadata table, which ScalarDB makes with one capacity unit, is read once more in the pause, and must not be throttled then.
func (x *session) checkCapacity() {
	x.recheck = x.inv.metadata
	for _, l := range x.looks {
		if l.table.name != x.s.metadata() || !l.features.provisioned() {
			continue
		}
		// Unused capacity of up to 300 seconds may be spent at once; two readings leave a third of it to ScalarDB.
		if x.inv.cost > 100*float64(l.features.Read) {
			x.recheck = false
			x.facts.Warnings = append(x.facts.Warnings, fmt.Sprintf("Table %s has %d read capacity units, too few to be read again within the pause (%.0f units): "+
				"a table that comes or goes in the window is noticed, a change of one's columns or indexes is not. Give it %.0f units, or make it on-demand.",
				l.features.Table, l.features.Read, x.inv.cost, math.Ceil(x.inv.cost/100)))
		}
	}
}

func (x *session) settingsName() string {
	return strings.TrimSuffix(x.run.Prefix, "/") + "/" + x.s.Storage + "/" + settingsName
}

// Facts are known since preflight.
func (x *session) Facts() engine.Facts { return x.facts }

// Capture makes nothing: the instant is all there is, and it is fixed by itself.
func (x *session) Capture(ctx context.Context) error { return ctx.Err() }

// Confirm compares the names of the tables, and ScalarDB's metadata, with preflight's: two or three calls, however many tables there are. Whether a table of
// the same name is still the same one is asked in Await.
func (x *session) Confirm(ctx context.Context) error {
	kinds := []string{"tables"}
	if x.recheck {
		kinds = append(kinds, "metadata")
	}
	return parallel(ctx, len(kinds), kinds, true, func(ctx context.Context, kind string) error {
		if kind == "tables" {
			return x.confirmTables(ctx)
		}
		items, _, err := readItems(ctx, x.r.api, x.s.full(x.s.metadata()))
		if err != nil {
			return err
		}
		if fingerprint(items) != x.inv.fingerprint {
			return &engine.VoidError{Reason: fmt.Sprintf("ScalarDB's metadata (table %s) changed: somebody changed the schema in the window", x.s.full(x.s.metadata()))}
		}
		return nil
	})
}

func (x *session) confirmTables(ctx context.Context) error {
	names, _, err := listTables(ctx, x.r.api)
	if err != nil {
		return err
	}
	now := map[string]bool{}
	for _, full := range names {
		if name, below := strings.CutPrefix(full, x.s.Prefix); below {
			now[name] = true
		}
	}
	var gone, came []string
	for _, t := range x.inv.tables {
		if !now[t.name] {
			gone = append(gone, x.s.full(t.name))
		}
	}
	for name := range now {
		// Below an empty prefix there may be tables of others: only those that ScalarDB would have made here count.
		if !x.inv.there[name] && x.s.chosen(name) && x.ours(name) {
			came = append(came, x.s.full(name))
		}
	}
	switch {
	case len(gone) > 0:
		return &engine.VoidError{Reason: "these tables were dropped in the window: " + list(gone)}
	case len(came) > 0:
		return &engine.VoidError{Reason: "these tables were created in the window: " + list(came)}
	}
	return nil
}

// ours says that a table's namespace is one that the backup has tables of.
func (x *session) ours(name string) bool {
	namespace, _, ok := splitName(name)
	return ok && slices.ContainsFunc(x.inv.tables, func(t table) bool { n, _, _ := splitName(t.name); return n == namespace })
}

// Await waits until every table can be restored to the restore point, and for on_demand makes the backups.
func (x *session) Await(ctx context.Context) (engine.Captured, error) {
	at := x.run.Window().RestorePoint
	if at.IsZero() {
		return engine.Captured{}, errors.New("the pause window has no restore point")
	}
	if err := x.awaitRestorable(ctx, at); err != nil {
		return engine.Captured{}, err
	}
	artifacts := make([]engine.Artifact, 0, len(x.looks)+1)
	if x.s.method() == MethodOnDemand {
		made, err := x.backUp(ctx, at)
		if err != nil {
			return engine.Captured{}, err
		}
		artifacts = append(artifacts, made...)
	} else {
		for _, l := range x.looks {
			artifacts = append(artifacts, engine.Artifact{Kind: kindPITR, ID: l.features.ARN, Extra: map[string]string{
				extraTable: l.table.name, extraTableID: l.features.ID, extraRestorePoint: at.UTC().Format(time.RFC3339),
			}})
		}
	}
	var err error
	if x.stored, err = writeSettings(ctx, x.run.Catalog, x.settingsName(), x.looks); err != nil {
		return engine.Captured{}, err
	}
	return x.captured(append(artifacts, x.stored)), nil
}

func (x *session) captured(artifacts []engine.Artifact) engine.Captured {
	c := engine.Captured{Artifacts: artifacts, HasCoordinator: x.inv.coordinator, Extra: map[string]string{
		extraAccount: x.r.ID, extraRegion: x.r.region, extraPrefix: x.s.Prefix, extraMethod: x.s.method(),
		"coordinator_namespace": x.s.Layout.Coordinator(), "metadata_namespace": x.s.Layout.Metadata(),
	}}
	if x.inv.coordinator {
		c.CoordinatorNewest = -1 // not read: it would take a scan
	}
	for _, t := range x.inv.tables {
		if namespace, name, ok := splitName(t.name); ok && t.inMetadata && !x.s.own(t.name) {
			c.Tables = append(c.Tables, engine.TableWitness{Namespace: namespace, Table: name, Transactional: t.transactional, Rows: -1})
		}
	}
	days := int32(0)
	for _, l := range x.looks {
		if d := l.features.PITRDays; d > 0 && (days == 0 || d < days) {
			days = d
		}
	}
	if days > 0 {
		c.Extra[extraRecoveryDays] = strconv.Itoa(int(days))
	}
	return c
}

// awaitRestorable polls until the latest restorable time of every table, which lags about five minutes, has passed the restore point.
func (x *session) awaitRestorable(ctx context.Context, at time.Time) error {
	x.run.Report("waiting until every table can be restored to the restore point (AWS: about five minutes)",
		map[string]any{"tables": len(x.looks), "restore_point": at})
	err := parallel(ctx, calls, x.looks, true, func(ctx context.Context, l look) error {
		d, err := describeTable(ctx, x.r.api, l.features.Table)
		if errors.Is(err, engine.ErrNotFound) || err == nil && aws.ToString(d.TableId) != l.features.ID {
			return &engine.VoidError{Reason: fmt.Sprintf("table %s was dropped, or created anew, since preflight", l.features.Table)}
		}
		return err
	})
	if err != nil {
		return err
	}
	return awaitLatest(ctx, x.s.Clock, x.looker, at, x.looks, func(l look) string { return l.features.Table }, x.run.Report)
}

// awaitLatest is the waiting itself; a restore does it too.
func awaitLatest[T any](ctx context.Context, c engine.Clock, l *looker, at time.Time, tables []T, name func(T) string, report func(string, map[string]any)) error {
	w := waiter{clock: c}
	left := tables
	for {
		late := make([]bool, len(left))
		indexes := make([]int, len(left))
		for i := range indexes {
			indexes[i] = i
		}
		err := parallel(ctx, calls, indexes, true, func(ctx context.Context, i int) error {
			full := name(left[i])
			earliest, latest, _, err := l.continuous(ctx, full)
			if errors.Is(err, engine.ErrNotFound) {
				return &engine.VoidError{Reason: fmt.Sprintf("table %s was dropped: DynamoDB keeps of it only what it held right before", full)}
			}
			switch {
			case err != nil:
				return err
			case earliest.IsZero():
				return &engine.VoidError{Reason: fmt.Sprintf("point-in-time recovery of table %s was disabled", full)}
			case earliest.After(at):
				return &engine.VoidError{Reason: fmt.Sprintf("table %s can be restored only to times from %s on, and the restore point is %s: its point-in-time "+
					"recovery was disabled for a while, or its recovery period has passed",
					full, earliest.UTC().Format(time.RFC3339), at.UTC().Format(time.RFC3339))}
			}
			late[i] = latest.Before(at)
			return nil
		})
		if err != nil {
			return err
		}
		var next []T
		for i, t := range left {
			if late[i] {
				next = append(next, t)
			}
		}
		if left = next; len(left) == 0 {
			return nil
		}
		report("not all tables can be restored to the restore point yet", map[string]any{"tables": len(left), "first": name(left[0])})
		if err := w.wait(ctx); err != nil {
			return fmt.Errorf("waiting until table %s (and %d more) can be restored to %s: %w", name(left[0]), len(left)-1, at.UTC().Format(time.RFC3339), err)
		}
	}
}

// Discard removes what the run made: the settings, and for on_demand temporary tables and backups.
func (x *session) Discard(ctx context.Context) error {
	k := keeper{s: x.s, catalog: x.run.Catalog}
	return parallel(ctx, calls, x.facts.Planned, false, k.Delete)
}
