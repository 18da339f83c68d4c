package awsdynamodb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

const (
	objectKind = "aws_dynamodb_table"

	// What an object's Extra holds, beside "table", "source_arn" and "restore_point".
	extraName       = "name"
	extraMadeID     = "table_id" // of the restored table; absent until it is known
	extraRunID      = "run_id"
	extraAnnounced  = "announced_at" // by the server's clock, RFC 3339
	extraBackup     = "source_backup_arn"
	extraNotPutBack = "not_put_back"
	extraARN        = "arn"
)

// destination restores into new tables.
type destination struct{ s Settings }

// NewDestination opens nothing yet.
func NewDestination(s Settings) engine.Destination { return &destination{s} }

// task is one table to be restored.
type task struct {
	table    table
	source   string // full name
	target   string // full name
	arn      string // of the source
	sourceID string // empty where only a pause window is known
	backup   string // ARN; empty when restored by time
	features features
}

// plan is everything that a restore will do.
type plan struct {
	tasks          []task
	source, target reach
	// sources are the settings as they would be for the source side.
	from     Settings
	selected bool // the arguments name some of the tables only
	byTime   bool
	at       time.Time
	warnings []string
}

// plan finds out what is to be restored: what the backup recorded, or, where only a pause window is known, what there is now.
func (d *destination) plan(ctx context.Context, q engine.StorageBackup) (plan, error) {
	p := plan{byTime: q.ByTime(), at: q.RestorePoint.UTC(), selected: len(d.s.Tables)+len(d.s.Namespaces) > 0}
	var err error
	if p.target, err = d.s.reach(ctx, d.s.Region); err != nil {
		return p, err
	}
	p.from = d.s
	p.from.Prefix = d.s.SourcePrefix
	recorded := len(q.Record.Artifacts) > 0
	if recorded {
		if err := p.readRecord(ctx, d, q); err != nil {
			return p, err
		}
	} else if !p.byTime {
		return p, errors.New("the backup holds no artifacts of this storage")
	} else {
		if p.source, err = d.s.reach(ctx, cmp.Or(d.s.SourceRegion, d.s.Region)); err != nil {
			return p, err
		}
		if err := p.readLive(ctx, d.s.Clock); err != nil {
			return p, err
		}
	}
	slices.SortFunc(p.tasks, func(a, b task) int { return strings.Compare(a.source, b.source) })
	for i := range p.tasks {
		p.tasks[i].target = d.s.full(p.tasks[i].table.name)
	}
	return p, nil
}

// readRecord takes the tables from the backup's record, and their settings from the catalog.
func (p *plan) readRecord(ctx context.Context, d *destination, q engine.StorageBackup) error {
	if q.Record.Driver != kindName {
		return fmt.Errorf("the backup's storage %s is of %s, not of %s", q.Storage, q.Record.Driver, kindName)
	}
	extra := q.Record.Extra
	region, prefix := extra[extraRegion], extra[extraPrefix]
	if d.s.HasSourcePrefix && d.s.SourcePrefix != prefix {
		return fmt.Errorf("source_prefix is %q, but the backup is of the tables below %q", d.s.SourcePrefix, prefix)
	}
	if d.s.SourceRegion != "" && d.s.SourceRegion != region {
		return fmt.Errorf("source_region is %s, but the backup is of %s", d.s.SourceRegion, region)
	}
	if !d.s.HasPrefix && !d.s.HasSourcePrefix && prefix != "" {
		return fmt.Errorf("the backup is of the tables below the prefix %q: say by prefix what the new tables' is (the same one again is possible in another region)",
			prefix)
	}
	p.from.Prefix = prefix
	var err error
	if p.source, err = d.s.reach(ctx, region); err != nil {
		return err
	}
	if account := extra[extraAccount]; account != p.target.ID {
		return fmt.Errorf("the tables are in account %s, and the credentials are of account %s: DynamoDB restores only within an account (copy a backup with "+
			"AWS Backup for another)", account, p.target.ID)
	}
	witness := map[string]engine.TableWitness{}
	for _, t := range q.Record.Tables {
		witness[t.Namespace+"."+t.Table] = t
	}
	var stored map[string]features
	known := map[string]bool{}
	for _, a := range q.Record.Artifacts {
		if a.Kind == kindSettings {
			if stored, err = readSettings(ctx, q.Catalog, a); err != nil {
				return err
			}
			continue
		}
		t := task{table: table{name: a.Extra[extraTable], transactional: witness[a.Extra[extraTable]].Transactional}, sourceID: a.Extra[extraTableID]}
		switch {
		case a.Kind == kindPITR && p.byTime:
			t.arn = a.ID
		case a.Kind == kindBackup && p.byTime:
			t.arn = a.Extra[extraSource] // its source has point-in-time recovery too
		case a.Kind == kindBackup:
			t.arn, t.backup = a.Extra[extraSource], a.ID
		default:
			return fmt.Errorf("storage %s is restored by time, and has no backups: use scalardb_pitr_restore for it", q.Storage)
		}
		if _, _, t.source, _ = splitARN(t.arn); t.source == "" {
			return fmt.Errorf("the record of table %s names no source", t.table.name)
		}
		known[t.table.name] = true
		if d.s.chosen(t.table.name) {
			p.tasks = append(p.tasks, t)
		}
	}
	for i, t := range p.tasks {
		f, ok := stored[t.source]
		if !ok {
			return fmt.Errorf("the backup's record holds no settings of table %s", t.source)
		}
		p.tasks[i].features = f
	}
	return d.s.checkSelection(known)
}

// checkSelection refuses names that the backup does not hold.
func (s Settings) checkSelection(known map[string]bool) error {
	var absent []string
	for _, t := range s.Tables {
		if !known[t] {
			absent = append(absent, t)
		}
	}
	for _, n := range s.Namespaces {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(known)), func(t string) bool { return strings.HasPrefix(t, n+".") }) {
			absent = append(absent, n)
		}
	}
	if len(absent) > 0 {
		return fmt.Errorf("the backup does not hold %s", list(absent))
	}
	return nil
}

// readLive takes the tables and their settings from the source as it is now.
func (p *plan) readLive(ctx context.Context, clock engine.Clock) error {
	inv, err := readInventory(ctx, p.from, p.source)
	if err != nil {
		return err
	}
	if err := inv.check(p.from, p.source); err != nil {
		return err
	}
	l := newLooker(p.source, clock)
	looks, err := l.lookAll(ctx, p.from, inv.tables)
	if err != nil {
		return err
	}
	p.warnings = append(append(p.warnings, inv.warnings...), l.warnings...)
	for _, x := range looks {
		p.tasks = append(p.tasks, task{table: x.table, source: x.features.Table, arn: x.features.ARN, sourceID: x.features.ID, features: x.features})
	}
	return nil
}

// Preflight refuses everything that can be known before anything is made.
func (d *destination) Preflight(ctx context.Context, q engine.StorageBackup) error {
	p, err := d.plan(ctx, q)
	if err != nil {
		return fmt.Errorf("checking the restore of storage %s: %w", q.Storage, err)
	}
	for _, w := range p.warnings {
		q.Report(w, nil)
	}
	_, err = d.checkNames(ctx, p)
	err = errors.Join(d.checkArguments(p), err, d.checkSources(ctx, p))
	if err != nil {
		return fmt.Errorf("checking the restore of storage %s into %s: %w", q.Storage, p.target.describe(), err)
	}
	return nil
}

// checkNames refuses names that are taken, all at once, and returns the server's time.
func (d *destination) checkNames(ctx context.Context, p plan) (time.Time, error) {
	names, at, err := listTables(ctx, p.target.api)
	if err != nil {
		return at, err
	}
	there := map[string]bool{}
	for _, n := range names {
		there[n] = true
	}
	var taken, illegal []string
	for _, t := range p.tasks {
		if there[t.target] {
			taken = append(taken, t.target)
		}
		if !tableName.MatchString(t.target) {
			illegal = append(illegal, t.target)
		}
		for _, i := range t.features.Indexes {
			if n := renamed(i.Name, t); !tableName.MatchString(n) {
				illegal = append(illegal, n+" (index)")
			}
		}
	}
	if len(illegal) > 0 {
		err = fmt.Errorf("these names are not legal in DynamoDB (3 to 255 letters, digits, '_', '-', '.'): %s; choose another prefix", list(illegal))
	}
	if len(taken) > 0 {
		err = errors.Join(err, fmt.Errorf("%d of %d tables exist already, and an existing table is never replaced: %s; choose another prefix or another region",
			len(taken), len(p.tasks), list(taken)))
	}
	return serverTime(at, d.s.Clock.Now()), err
}

func (d *destination) checkArguments(p plan) error {
	var errs []error
	crossRegion := p.source.region != p.target.region
	if crossRegion && !p.byTime {
		errs = append(errs, fmt.Errorf("on-demand backups cannot leave their region %s: restore there, or by time with scalardb_pitr_restore", p.source.region))
	}
	if d.s.KMSKeyARN != "" {
		if parts := strings.SplitN(d.s.KMSKeyARN, ":", 6); len(parts) == 6 && parts[3] != p.target.region {
			errs = append(errs, fmt.Errorf("kms_key_arn is a key of region %s, and the tables are restored in %s: a key works in its own region only",
				parts[3], p.target.region))
		}
	}
	var encrypted, onDemand []string
	for _, t := range p.tasks {
		if t.features.KMSKeyARN != "" {
			encrypted = append(encrypted, t.source)
		}
		if !t.features.provisioned() {
			onDemand = append(onDemand, t.source)
		}
	}
	if crossRegion && d.s.KMSKeyARN == "" && len(encrypted) > 0 {
		errs = append(errs, fmt.Errorf("these tables are encrypted with KMS keys of region %s, which %s cannot use: %s; set kms_key_arn to a key of %s",
			p.source.region, p.target.region, list(encrypted), p.target.region))
	}
	if d.s.BillingMode == string(types.BillingModeProvisioned) && len(onDemand) > 0 {
		errs = append(errs, fmt.Errorf("billing_mode is PROVISIONED, and these tables are on-demand, so that no capacity is known for them: %s; leave "+
			"billing_mode out, and change it after the restore", list(onDemand)))
	}
	return errors.Join(errs...)
}

// checkSources asks whether every source is still the one that was backed up, and holds the restore point.
func (d *destination) checkSources(ctx context.Context, p plan) error {
	l := newLooker(p.source, d.s.Clock)
	return parallel(ctx, calls, p.tasks, false, func(ctx context.Context, t task) error {
		if t.backup != "" {
			return (keeper{s: d.s}).inspectBackup(ctx, engine.Artifact{ID: t.backup})
		}
		desc, err := describeTable(ctx, p.source.api, t.source)
		if errors.Is(err, engine.ErrNotFound) {
			return fmt.Errorf("the source table %s is gone, and DynamoDB kept only what it held right before it was deleted: %w", t.source, err)
		}
		if err != nil {
			return err
		}
		if id := aws.ToString(desc.TableId); t.sourceID != "" && id != t.sourceID {
			return fmt.Errorf("the source table %s is another one of that name by now (its id is %s, not %s): what the old one held cannot be restored",
				t.source, id, t.sourceID)
		}
		earliest, _, _, err := l.continuous(ctx, t.source)
		switch {
		case err != nil:
			return err
		case earliest.IsZero():
			return fmt.Errorf("point-in-time recovery of table %s is disabled: there is nothing to restore it from", t.source)
		case earliest.After(p.at):
			return fmt.Errorf("table %s can be restored only to times from %s on, and the restore point is %s",
				t.source, earliest.UTC().Format(time.RFC3339), p.at.Format(time.RFC3339))
		}
		return nil
	})
}

// progress is what is known of the restored tables while they are made.
type progress struct {
	mu       sync.Mutex
	restored engine.Restored
	announce func(context.Context, engine.Restored) error
	saving   bool
	dirty    bool
}

// set changes one object.
func (g *progress) set(i int, change func(o *engine.RestoredObject)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	change(&g.restored.Objects[i])
}

// get copies one object.
func (g *progress) get(i int) engine.RestoredObject {
	g.mu.Lock()
	defer g.mu.Unlock()
	o := g.restored.Objects[i]
	o.Extra = maps.Clone(o.Extra)
	return o
}

// snapshot copies everything but the objects that drop names.
func (g *progress) snapshot(drop map[int]bool) engine.Restored {
	out := g.restored
	out.Properties = maps.Clone(out.Properties)
	out.Objects = nil
	for i, o := range g.restored.Objects {
		if !drop[i] {
			o.Extra = maps.Clone(o.Extra)
			out.Objects = append(out.Objects, o)
		}
	}
	return out
}

// save announces what is known. Of several callers one does it for all: with hundreds of tables each save is large.
func (g *progress) save(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dirty = true
	for g.dirty && !g.saving {
		g.saving, g.dirty = true, false
		now := g.snapshot(nil)
		g.mu.Unlock()
		err := g.announce(ctx, now)
		g.mu.Lock()
		g.saving = false
		if err != nil {
			return err
		}
	}
	return nil
}

// Restore makes every table, and puts its settings back. On an error Restored holds whatever may exist.
func (d *destination) Restore(ctx context.Context, q engine.StorageBackup) (engine.Restored, error) {
	restored, err := d.restore(ctx, q)
	if err != nil {
		return restored, fmt.Errorf("restoring storage %s: %w", q.Storage, err)
	}
	return restored, nil
}

func (d *destination) restore(ctx context.Context, q engine.StorageBackup) (engine.Restored, error) {
	p, err := d.plan(ctx, q)
	if err != nil {
		return engine.Restored{}, err
	}
	if err := d.checkArguments(p); err != nil {
		return engine.Restored{}, err
	}
	if p.byTime {
		if err := awaitLatest(ctx, d.s.Clock, newLooker(p.source, d.s.Clock), p.at, p.tasks, func(t task) string { return t.source }, q.Report); err != nil {
			return engine.Restored{}, err
		}
	}
	// Asked again right before the announcement: what is there now is not ours, whatever comes.
	at, err := d.checkNames(ctx, p)
	if err != nil {
		return engine.Restored{}, err
	}
	g := &progress{announce: q.Announce, restored: engine.Restored{Properties: d.properties(p)}}
	for _, t := range p.tasks {
		o := engine.RestoredObject{Kind: objectKind, ID: t.target, Created: true, Extra: map[string]string{
			extraName: t.target, extraTable: t.table.name, extraSource: t.arn, extraRunID: q.RunID, extraAnnounced: at.UTC().Format(time.RFC3339),
			extraARN: p.target.arn(t.target), extraRegion: p.target.region,
		}}
		if t.backup != "" {
			o.Extra[extraBackup] = t.backup
		} else {
			o.Extra[extraRestorePoint] = p.at.Format(time.RFC3339)
		}
		g.restored.Objects = append(g.restored.Objects, o)
	}
	if err := g.save(ctx); err != nil {
		return engine.Restored{}, err
	}
	// not says which objects surely do not exist as ours: no restore was sent for them, or it was refused.
	not := map[int]bool{}
	indexes := make([]int, len(p.tasks))
	for i := range indexes {
		indexes[i], not[i] = i, true
	}
	q.Report("restoring tables", map[string]any{"tables": len(p.tasks), "at_once": d.s.restores()})
	done := 0
	err = parallel(ctx, d.s.restores(), indexes, true, func(ctx context.Context, i int) error {
		t := p.tasks[i]
		g.mu.Lock()
		delete(not, i)
		g.mu.Unlock()
		desc, err := d.make(ctx, p, t, g.get(i), q.Report)
		if err != nil {
			if refused := new(refusedError); errors.As(err, &refused) {
				g.mu.Lock()
				not[i] = true
				g.mu.Unlock()
			}
			return err
		}
		g.set(i, func(o *engine.RestoredObject) { o.Extra[extraMadeID] = aws.ToString(desc.TableId) })
		if err := g.save(ctx); err != nil {
			return err
		}
		lost, err := d.finish(ctx, p, t, q)
		if err != nil {
			return err
		}
		g.set(i, func(o *engine.RestoredObject) {
			if len(lost) > 0 {
				o.Extra[extraNotPutBack] = strings.Join(lost, "; ")
			}
		})
		g.mu.Lock()
		done++
		n := done
		g.mu.Unlock()
		q.Report("table restored", map[string]any{"table": t.target, "done": n, "of": len(p.tasks)})
		for _, l := range lost {
			q.Report("a setting could not be put back", map[string]any{"table": t.target, "setting": l})
		}
		return nil
	})
	g.mu.Lock()
	defer g.mu.Unlock()
	if err == nil {
		not = nil
	}
	return g.snapshot(not), err
}

// make sends the restore of one table.
func (d *destination) make(ctx context.Context, p plan, t task, o engine.RestoredObject, report func(string, map[string]any)) (types.TableDescription, error) {
	var billing types.BillingMode
	switch {
	case d.s.BillingMode == string(types.BillingModePayPerRequest), d.rewritten(p, t):
		// Rewriting hundreds of rows at ScalarDB's one capacity unit would take minutes. What the source had is put back afterwards.
		billing = types.BillingModePayPerRequest
	}
	var encryption *types.SSESpecification
	if d.s.KMSKeyARN != "" {
		encryption = &types.SSESpecification{Enabled: aws.Bool(true), SSEType: types.SSETypeKms, KMSMasterKeyId: &d.s.KMSKeyARN}
	}
	indexes := t.keptIndexes(billing == types.BillingModePayPerRequest || !t.features.provisioned())
	c := creator{clock: d.s.Clock, api: p.target.api, target: t.target, report: report, ours: func(desc types.TableDescription) bool {
		if !owned(desc, o) {
			return false
		}
		// Another's very same restore would have tagged it.
		tagged, err := runOf(ctx, p.target.api, aws.ToString(desc.TableArn))
		return err == nil && (tagged == "" || tagged == o.Extra[extraRunID])
	}}
	return c.create(ctx, func(ctx context.Context, once option) (*types.TableDescription, error) {
		if t.backup != "" {
			out, err := p.target.api.RestoreTableFromBackup(ctx, &dynamodb.RestoreTableFromBackupInput{
				BackupArn: &t.backup, TargetTableName: &t.target, BillingModeOverride: billing, SSESpecificationOverride: encryption,
				GlobalSecondaryIndexOverride: indexes,
			}, once)
			if err != nil {
				return nil, err
			}
			return out.TableDescription, nil
		}
		in := &dynamodb.RestoreTableToPointInTimeInput{
			TargetTableName: &t.target, RestoreDateTime: &p.at, BillingModeOverride: billing, SSESpecificationOverride: encryption,
			GlobalSecondaryIndexOverride: indexes,
		}
		if p.source.region == p.target.region {
			in.SourceTableName = &t.source
		} else {
			in.SourceTableArn = &t.arn
		}
		out, err := p.target.api.RestoreTableToPointInTime(ctx, in, once)
		if err != nil {
			return nil, err
		}
		return out.TableDescription, nil
	})
}

// owned says whether a table is one that a restore made, as far as its object tells: by the id that was recorded, else because it was restored
// from the same source to the same instant after the restore announced it, and is not tagged (or named) by another.
func owned(desc types.TableDescription, o engine.RestoredObject) bool {
	if id := o.Extra[extraMadeID]; id != "" {
		return aws.ToString(desc.TableId) == id
	}
	sum := desc.RestoreSummary
	announced, err := time.Parse(time.RFC3339, o.Extra[extraAnnounced])
	if sum == nil || err != nil || desc.CreationDateTime == nil || desc.CreationDateTime.Before(announced.Add(-2*time.Second)) {
		return false // the header's second, and the step between two machines of the service
	}
	if backup := o.Extra[extraBackup]; backup != "" {
		return aws.ToString(sum.SourceBackupArn) == backup
	}
	at, err := time.Parse(time.RFC3339, o.Extra[extraRestorePoint])
	return err == nil && aws.ToString(sum.SourceTableArn) == o.Extra[extraSource] && sum.RestoreDateTime != nil && sum.RestoreDateTime.Truncate(time.Second).Equal(at)
}

// properties is what ScalarDB's configuration needs beside credentials.
func (d *destination) properties(p plan) map[string]string {
	out := map[string]string{"storage": "dynamo", "contact_points": p.target.region}
	if d.s.Prefix != "" {
		out["dynamo.namespace.prefix"] = d.s.Prefix
	}
	if d.s.Layout.MetadataNamespace != "" && d.s.Layout.Metadata() != "scalardb" {
		out["dynamo.table_metadata.namespace"] = d.s.Layout.Metadata()
	}
	return out
}

// Inspect returns ErrNotFound when one of the tables is gone, or another has its name.
func (d *destination) Inspect(ctx context.Context, r engine.Restored) error {
	return parallel(ctx, calls, r.Objects, false, func(ctx context.Context, o engine.RestoredObject) error {
		at, err := d.s.reach(ctx, cmp.Or(o.Extra[extraRegion], d.s.Region))
		if err != nil {
			return err
		}
		desc, err := describeTable(ctx, at.api, o.ID)
		if err != nil {
			return err
		}
		if !owned(desc, o) {
			return fmt.Errorf("the restored table %s, whose name another has by now: %w", o.ID, engine.ErrNotFound)
		}
		return nil
	})
}

// Delete removes the tables that the restore made, and no other.
func (d *destination) Delete(ctx context.Context, r engine.Restored) error {
	return parallel(ctx, d.s.restores(), r.Objects, false, func(ctx context.Context, o engine.RestoredObject) error {
		if o.Kind != objectKind || !o.Created {
			return nil
		}
		at, err := d.s.reach(ctx, cmp.Or(o.Extra[extraRegion], d.s.Region))
		if err != nil {
			return err
		}
		desc, err := describeTable(ctx, at.api, o.ID)
		switch {
		case errors.Is(err, engine.ErrNotFound):
			return nil
		case err != nil:
			return err
		case !owned(desc, o):
			return nil // ours is gone, or never was
		}
		if o.Extra[extraMadeID] == "" {
			// Two attempts may look alike; the tag, where it was set, tells them apart.
			tagged, err := runOf(ctx, at.api, aws.ToString(desc.TableArn))
			if err != nil {
				return err
			}
			if tagged != "" && tagged != o.Extra[extraRunID] {
				return nil
			}
		}
		return deleteTable(ctx, d.s.Clock, at, o.ID, aws.ToString(desc.TableId))
	})
}

// runOf is the run id that a table is tagged with; empty where there is none.
func runOf(ctx context.Context, api API, arn string) (string, error) {
	var token *string
	for {
		out, err := api.ListTagsOfResource(ctx, &dynamodb.ListTagsOfResourceInput{ResourceArn: &arn, NextToken: token})
		if err != nil {
			return "", fmt.Errorf("reading the tags of %s: %w", arn, err)
		}
		for _, t := range out.Tags {
			if aws.ToString(t.Key) == tagRunID {
				return aws.ToString(t.Value), nil
			}
		}
		if token = out.NextToken; aws.ToString(token) == "" {
			return "", nil
		}
	}
}

// Close has nothing to release.
func (d *destination) Close() error { return nil }
