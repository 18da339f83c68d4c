package dynamo

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// pitr is the setting of continuous backups of one table.
type pitr struct {
	enabled bool
	since   time.Time // what lies before cannot be restored
	days    int       // of the recovery period
}

// window returns the times to which a table can be restored.
func (s *Service) window(t *table) (earliest, latest time.Time) {
	now := s.Now()
	earliest = t.pitr.since
	if oldest := now.AddDate(0, 0, -t.pitr.days); oldest.After(earliest) {
		earliest = oldest
	}
	latest = now.Add(-s.Scaled(latestLag))
	if latest.Before(earliest) {
		latest = earliest
	}
	return earliest, latest
}

// AgePITR moves the earliest restorable time of a table, as if its recovery period had passed. An earlier time than the one it has is not possible.
func (s *Service) AgePITR(c Scope, table string, earliest time.Time) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.space(c).tables[table]
	if t == nil || !t.pitr.enabled || earliest.Before(t.pitr.since) {
		s.t.Fatalf("moving the earliest restorable time of %s to %s: there is no such table, no PITR, or it is later already", table, earliest)
	}
	t.pitr.since = earliest
}

// backupsReady tells whether continuous backups are enabled, which they are some seconds after the table is ACTIVE.
func (s *Service) backupsReady(t *table) bool {
	now := s.progress()
	return t.status(now) != statusCreating && !now.Before(t.ready.Add(s.Scaled(enablingTakes)))
}

func (s *Service) continuousBackups(t *table) map[string]any {
	p := map[string]any{"PointInTimeRecoveryStatus": "DISABLED"}
	if t.pitr.enabled {
		earliest, latest := s.window(t)
		p = map[string]any{
			"PointInTimeRecoveryStatus": "ENABLED", "RecoveryPeriodInDays": t.pitr.days,
			"EarliestRestorableDateTime": seconds(earliest), "LatestRestorableDateTime": seconds(latest),
		}
	}
	status := "DISABLED" // AWS has been seen to say so for the first seconds of a table
	if s.backupsReady(t) {
		status = "ENABLED"
	}
	return map[string]any{"ContinuousBackupsDescription": map[string]any{"ContinuousBackupsStatus": status, "PointInTimeRecoveryDescription": p}}
}

func (s *Service) describeContinuousBackups(q *request) (any, error) {
	var in struct{ TableName string }
	if err := decode(q.body, &in); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.source(q, in.TableName)
	if err != nil {
		return nil, err
	}
	return s.continuousBackups(t), nil
}

// source finds a table for a call about backups: one that is being deleted is none.
func (s *Service) source(q *request, name string) (*table, error) {
	t, err := s.find(q, name, "TableNotFoundException")
	if err == nil && t.deleting {
		return nil, apiErrorf("TableNotFoundException", "Table not found: %s", name)
	}
	return t, err
}

func (s *Service) updateContinuousBackups(q *request) (any, error) {
	var in struct {
		TableName                        string
		PointInTimeRecoverySpecification *struct {
			PointInTimeRecoveryEnabled *bool
			RecoveryPeriodInDays       *int
		}
	}
	if err := decode(q.body, &in); err != nil {
		return nil, err
	}
	if in.PointInTimeRecoverySpecification == nil || in.PointInTimeRecoverySpecification.PointInTimeRecoveryEnabled == nil {
		return nil, invalidf("PointInTimeRecoverySpecification.PointInTimeRecoveryEnabled is required")
	}
	enable, days := *in.PointInTimeRecoverySpecification.PointInTimeRecoveryEnabled, 35
	if d := in.PointInTimeRecoverySpecification.RecoveryPeriodInDays; d != nil {
		if !enable {
			return nil, invalidf("RecoveryPeriodInDays cannot be given when point-in-time recovery is disabled")
		}
		if days = *d; days < 1 || days > 35 {
			return nil, invalidf("1 validation error detected: Value '%d' at 'recoveryPeriodInDays' failed to satisfy constraint: Member must have value between 1 and 35", days)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.source(q, in.TableName)
	if err != nil {
		return nil, err
	}
	if !s.backupsReady(t) {
		return nil, apiErrorf("ContinuousBackupsUnavailableException", "Backups are being enabled for the table: %s. Please retry later", t.name)
	}
	if !enable {
		t.pitr = pitr{}
		return s.continuousBackups(t), nil
	}
	if !t.pitr.enabled { // what was before is lost
		t.pitr = pitr{enabled: true, since: s.Now()}
	}
	t.pitr.days = days
	return s.continuousBackups(t), nil
}

// overrides are the parameters that both kinds of restore have.
type overrides struct {
	TargetTableName               string
	BillingModeOverride           string
	GlobalSecondaryIndexOverride  *[]indexSpec
	LocalSecondaryIndexOverride   *[]indexSpec
	ProvisionedThroughputOverride *throughput
	OnDemandThroughputOverride    *onDemand
	SSESpecificationOverride      *sseInput
}

// apply makes the spec of a restored table.
func (s *Service) apply(p spec, target Scope, o overrides) (spec, error) {
	p = p.clone()
	subset := func(indexes []indexSpec, wanted *[]indexSpec) ([]indexSpec, error) {
		if wanted == nil {
			return indexes, nil
		}
		var kept []indexSpec
		for _, w := range *wanted {
			i := slices.IndexFunc(indexes, func(i indexSpec) bool { return i.IndexName == w.IndexName && slices.Equal(i.KeySchema, w.KeySchema) })
			if i < 0 {
				return nil, invalidf("One or more parameter values were invalid: the index %s does not match an index of the source table", w.IndexName)
			}
			k := indexes[i]
			if w.ProvisionedThroughput != nil {
				k.ProvisionedThroughput = w.ProvisionedThroughput
			}
			if w.OnDemandThroughput != nil {
				k.OnDemandThroughput = w.OnDemandThroughput
			}
			kept = append(kept, k)
		}
		return kept, nil
	}
	var err error
	if p.Global, err = subset(p.Global, o.GlobalSecondaryIndexOverride); err != nil {
		return spec{}, err
	}
	if p.Local, err = subset(p.Local, o.LocalSecondaryIndexOverride); err != nil {
		return spec{}, err
	}
	if o.BillingModeOverride != "" {
		p.Billing = o.BillingModeOverride
	}
	if o.ProvisionedThroughputOverride != nil {
		p.Throughput = *o.ProvisionedThroughputOverride
	}
	switch p.Billing {
	case "PROVISIONED":
		p.OnDemand = nil
		if o.OnDemandThroughputOverride != nil {
			return spec{}, invalidf("One or more parameter values were invalid: OnDemandThroughputOverride needs the billing mode PAY_PER_REQUEST")
		}
		if p.Throughput == (throughput{}) {
			return spec{}, invalidf("One or more parameter values were invalid: ProvisionedThroughputOverride is required when the billing mode becomes PROVISIONED")
		}
	case "PAY_PER_REQUEST":
		if o.ProvisionedThroughputOverride != nil {
			return spec{}, invalidf("One or more parameter values were invalid: ProvisionedThroughputOverride needs the billing mode PROVISIONED")
		}
		p.Throughput = throughput{}
		for i := range p.Global {
			p.Global[i].ProvisionedThroughput = nil
		}
		if o.OnDemandThroughputOverride != nil {
			p.OnDemand = o.OnDemandThroughputOverride
		}
	default:
		return spec{}, invalidf("1 validation error detected: Value '%s' at 'billingModeOverride' failed to satisfy constraint: Member must satisfy enum value set: [PROVISIONED, PAY_PER_REQUEST]", p.Billing)
	}
	if err := s.encrypt(&p, target, o.SSESpecificationOverride); err != nil {
		return spec{}, err
	}
	p.Attributes = usedAttributes(p)
	return p, nil
}

// taken is what a restore to a name that is used is told.
func taken(name string) func(status string) error {
	return func(status string) error {
		if status == statusCreating || status == statusDeleting {
			return apiErrorf("TableInUseException", "Table is being %s: %s", map[string]string{statusCreating: "created", statusDeleting: "deleted"}[status], name)
		}
		return apiErrorf("TableAlreadyExistsException", "Table already exists: %s", name)
	}
}

// The embedded struct has no name of its own in the protocol.
type restoreToPointInput struct {
	overrides
	SourceTableName, SourceTableArn string
	RestoreDateTime                 secondsInput
	UseLatestRestorableTime         *bool
}

func (s *Service) restoreTableToPointInTime(q *request) (any, error) {
	var in restoreToPointInput
	if err := decode(q.body, &in); err != nil {
		return nil, err
	}
	target, err := nameOf(Scope{}, "TargetTableName", in.TargetTableName)
	if err != nil {
		return nil, err
	}
	source, name := q.scope, in.SourceTableName
	switch {
	case (in.SourceTableName == "") == (in.SourceTableArn == ""):
		return nil, invalidf("One or more parameter values were invalid: exactly one of SourceTableName and SourceTableArn must be given")
	case in.SourceTableArn != "":
		if source, name, err = parseTableARN(in.SourceTableArn); err != nil {
			return nil, err
		}
		if source.Account != q.scope.Account {
			return nil, apiErrorf("AccessDeniedException", "the account %s may not restore %s", q.scope.Account, in.SourceTableArn)
		}
	}
	latest := in.UseLatestRestorableTime != nil && *in.UseLatestRestorableTime
	if latest == (in.RestoreDateTime != "") {
		return nil, invalidf("One or more parameter values were invalid: exactly one of RestoreDateTime and UseLatestRestorableTime must be given")
	}
	s.mu.Lock()
	t, err := s.source(&request{scope: source}, name)
	var from time.Time
	var p spec
	if err == nil {
		from, err = s.restoreTime(t, in.RestoreDateTime)
	}
	if err == nil {
		p, err = s.apply(t.spec, q.scope, in.overrides)
	}
	if err == nil && p.KMSKey != "" && !strings.HasPrefix(p.KMSKey, "arn:aws:kms:"+q.scope.Region+":") {
		err = invalidf("One or more parameter values were invalid: the key %s is not in %s: SSESpecificationOverride is required", p.KMSKey, q.scope.Region)
	}
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	d, err := s.make(q.scope, target, p, settings{restore: &restoreSummary{SourceTableArn: t.arn(), At: from}, takes: restoreTakes},
		t.history.asOf(from), taken(target))
	return map[string]any{"TableDescription": d}, err
}

// restoreTime checks the time to restore a table to, the latest when none is given; with the lock held.
func (s *Service) restoreTime(t *table, wanted secondsInput) (time.Time, error) {
	if !t.pitr.enabled {
		return time.Time{}, apiErrorf("PointInTimeRecoveryUnavailableException", "Point in time recovery is not enabled for table '%s'", t.name)
	}
	earliest, latest := s.window(t)
	if wanted == "" {
		if second := latest.Truncate(time.Second); !second.Before(earliest) {
			return second, nil
		}
		return latest, nil
	}
	at, err := wanted.time()
	if err != nil {
		return time.Time{}, err
	}
	at = at.Truncate(time.Second)
	// The limits are shown in milliseconds; a restore to the second that earliest lies in is one to before it.
	if at.Before(earliest.Truncate(time.Millisecond)) || at.After(latest) {
		return time.Time{}, apiErrorf("InvalidRestoreTimeException", "RestoreDateTime %s is not between EarliestRestorableDateTime %s and LatestRestorableDateTime %s",
			at.Format(time.RFC3339), earliest.UTC().Format(time.RFC3339Nano), latest.UTC().Format(time.RFC3339Nano))
	}
	return at, nil
}

// backup is one on-demand backup.
type backup struct {
	arn, name string
	kind      string // USER or SYSTEM
	created   time.Time
	until     time.Time // of CREATING, by the machine's clock
	fixed     bool      // its items are decided
	items     []write
	number    uint64

	table     *table
	tableID   string
	tableARN  string
	tableName string
	spec      spec
	stream    *streamSpecification
	ttl       ttl
	count     int
	bytes     int
	made      time.Time // of the table
}

// newBackup makes a backup of a table; with the lock held.
func (s *Service) newBackup(t *table, name, kind string) *backup {
	now := s.Now()
	b := &backup{
		arn:  fmt.Sprintf("%s/backup/%014d-%08x", t.arn(), now.UnixMilli(), s.random.Uint32()),
		name: name, kind: kind, created: now, number: s.ids.Add(1), table: t, tableID: t.id, tableARN: t.arn(), tableName: t.name,
		spec: t.spec.clone(), stream: t.stream, ttl: t.ttl, made: t.created,
	}
	p := s.space(t.scope)
	p.backups = append(p.backups, b)
	return b
}

// systemBackup is what remains of a deleted table that had point-in-time recovery; with the lock held.
func (s *Service) systemBackup(t *table) {
	b := s.newBackup(t, t.name+"$DeletedTableBackup", "SYSTEM")
	b.fix(t.history.choose(func(version) bool { return true }))
}

func (b *backup) fix(items []write) {
	b.items, b.fixed, b.table = items, true, nil
	for _, w := range items {
		b.count++
		b.bytes += len(w.item)
	}
}

// available tells whether a backup can be restored, and decides what it holds when it can; with the lock held.
func (s *Service) available(b *backup) bool {
	if s.progress().Before(b.until) {
		return false
	}
	if !b.fixed {
		skew := backupSkew
		if !s.options.RealSkew {
			skew = s.Scaled(skew)
		}
		random := rand.New(rand.NewPCG(s.options.Seed, b.number))
		surely, never := b.created.Add(-skew), b.created.Add(skew)
		if end := b.created.Add(s.Scaled(backupTakes)); never.After(end) {
			never = end // it cannot hold what comes after it
		}
		b.fix(b.table.history.choose(func(v version) bool {
			if !v.at.After(surely) {
				return true
			}
			return v.at.Before(never) && random.IntN(2) == 0
		}))
	}
	return true
}

// backupRuns tells whether a table is being backed up; with the lock held.
func (s *Service) backupRuns(t *table) bool {
	return slices.ContainsFunc(s.space(t.scope).backups, func(b *backup) bool { return !s.available(b) && b.table == t })
}

func (s *Service) details(b *backup) map[string]any {
	status := "CREATING"
	if s.available(b) {
		status = "AVAILABLE"
	}
	d := map[string]any{
		"BackupArn": b.arn, "BackupName": b.name, "BackupStatus": status, "BackupType": b.kind, "BackupCreationDateTime": seconds(b.created), "BackupSizeBytes": b.bytes,
	}
	if b.kind == "SYSTEM" {
		d["BackupExpiryDateTime"] = seconds(b.created.AddDate(0, 0, 35))
	}
	return d
}

func (s *Service) backupDescription(b *backup) map[string]any {
	source := map[string]any{
		"TableName": b.tableName, "TableId": b.tableID, "TableArn": b.tableARN, "TableSizeBytes": b.bytes, "ItemCount": b.count, "KeySchema": b.spec.Keys,
		"TableCreationDateTime": seconds(b.made), "ProvisionedThroughput": b.spec.Throughput, "BillingMode": b.spec.Billing,
	}
	features := map[string]any{}
	if len(b.spec.Global) > 0 {
		features["GlobalSecondaryIndexes"] = b.spec.Global
	}
	if len(b.spec.Local) > 0 {
		features["LocalSecondaryIndexes"] = b.spec.Local
	}
	if b.stream != nil {
		features["StreamDescription"] = b.stream
	}
	if b.ttl.enabled {
		features["TimeToLiveDescription"] = map[string]any{"TimeToLiveStatus": "ENABLED", "AttributeName": b.ttl.attribute}
	}
	return map[string]any{"BackupDetails": s.details(b), "SourceTableDetails": source, "SourceTableFeatureDetails": features}
}

func (s *Service) createBackup(q *request) (any, error) {
	var in struct{ TableName, BackupName string }
	if err := decode(q.body, &in); err != nil {
		return nil, err
	}
	if !tableName.MatchString(in.BackupName) {
		return nil, invalidf("1 validation error detected: Value '%s' at 'backupName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+ "+
			"and have between 3 and 255 characters", in.BackupName)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.source(q, in.TableName)
	if err != nil {
		return nil, err
	}
	if !s.backupsReady(t) {
		return nil, apiErrorf("ContinuousBackupsUnavailableException", "Backups have not yet been enabled for this table: %s", t.name)
	}
	b := s.newBackup(t, in.BackupName, "USER")
	b.until = s.progress().Add(s.Scaled(backupTakes))
	return map[string]any{"BackupDetails": s.details(b)}, nil
}

// findBackup returns the backup of an ARN; with the lock held.
func (s *Service) findBackup(q *request, arn string) (*backup, error) {
	if arn == "" {
		return nil, invalidf("The parameter 'BackupArn' is required but was not present in the request")
	}
	p := s.space(q.scope)
	i := slices.IndexFunc(p.backups, func(b *backup) bool { return b.arn == arn })
	if i < 0 {
		return nil, apiErrorf("BackupNotFoundException", "Backup not found: %s", arn)
	}
	return p.backups[i], nil
}

func (s *Service) describeBackup(q *request) (any, error) {
	var in struct{ BackupArn string }
	if err := decode(q.body, &in); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b, err := s.findBackup(q, in.BackupArn)
	if err != nil {
		return nil, err
	}
	return map[string]any{"BackupDescription": s.backupDescription(b)}, nil
}

// restoring tells whether a table is just being made from a backup; with the lock held.
func (s *Service) restoring(c Scope, b *backup) bool {
	for _, t := range s.space(c).tables {
		if t.restore != nil && t.restore.SourceBackupArn == b.arn && t.status(s.progress()) == statusCreating {
			return true
		}
	}
	return false
}

func (s *Service) deleteBackup(q *request) (any, error) {
	var in struct{ BackupArn string }
	if err := decode(q.body, &in); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b, err := s.findBackup(q, in.BackupArn)
	if err != nil {
		return nil, err
	}
	if !s.available(b) || s.restoring(q.scope, b) {
		return nil, apiErrorf("BackupInUseException", "Backup is being created or restored: %s", b.arn)
	}
	p := s.space(q.scope)
	p.backups = slices.DeleteFunc(p.backups, func(o *backup) bool { return o == b })
	d := s.backupDescription(b)
	details := s.details(b)
	details["BackupStatus"] = "DELETED"
	d["BackupDetails"] = details
	return map[string]any{"BackupDescription": d}, nil
}

func (s *Service) listBackups(q *request) (any, error) {
	var in struct {
		TableName, ExclusiveStartBackupArn, BackupType string
		Limit                                          *int
		TimeRangeLowerBound, TimeRangeUpperBound       secondsInput
	}
	if err := decode(q.body, &in); err != nil {
		return nil, err
	}
	limit, err := limitOf(in.Limit)
	if err != nil {
		return nil, err
	}
	kind := in.BackupType
	switch kind {
	case "":
		kind = "USER"
	case "USER", "SYSTEM", "ALL", "AWS_BACKUP":
	default:
		return nil, invalidf("1 validation error detected: Value '%s' at 'backupType' failed to satisfy constraint: Member must satisfy enum value set", kind)
	}
	lower, err := in.TimeRangeLowerBound.time()
	if err != nil {
		return nil, err
	}
	upper, err := in.TimeRangeUpperBound.time()
	if err != nil {
		return nil, err
	}
	name := ""
	if in.TableName != "" {
		if name, err = nameOf(q.scope, "TableName", in.TableName); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	summaries := []map[string]any{}
	out := map[string]any{}
	skip := in.ExclusiveStartBackupArn != ""
	for _, b := range s.space(q.scope).backups {
		if skip {
			skip = b.arn != in.ExclusiveStartBackupArn
			continue
		}
		if name != "" && b.tableName != name || kind != "ALL" && b.kind != kind || !lower.IsZero() && b.created.Before(lower) || !upper.IsZero() && !b.created.Before(upper) {
			continue
		}
		if len(summaries) == limit {
			out["LastEvaluatedBackupArn"] = summaries[limit-1]["BackupArn"]
			break
		}
		d := s.details(b)
		d["TableName"], d["TableId"], d["TableArn"] = b.tableName, b.tableID, b.tableARN
		summaries = append(summaries, d)
	}
	if skip {
		return nil, invalidf("ExclusiveStartBackupArn is the ARN of no backup: %s", in.ExclusiveStartBackupArn)
	}
	out["BackupSummaries"] = summaries
	return out, nil
}

type restoreFromBackupInput struct {
	overrides
	BackupArn string
}

func (s *Service) restoreTableFromBackup(q *request) (any, error) {
	var in restoreFromBackupInput
	if err := decode(q.body, &in); err != nil {
		return nil, err
	}
	target, err := nameOf(Scope{}, "TargetTableName", in.TargetTableName)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	b, err := s.findBackup(q, in.BackupArn)
	var p spec
	if err == nil && !s.available(b) {
		err = apiErrorf("BackupInUseException", "Backup is being created: %s", b.arn)
	}
	if err == nil {
		p, err = s.apply(b.spec, q.scope, in.overrides)
	}
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	summary := &restoreSummary{SourceTableArn: b.tableARN, SourceBackupArn: b.arn, At: b.created}
	d, err := s.make(q.scope, target, p, settings{restore: summary, takes: restoreTakes}, b.items, taken(target))
	return map[string]any{"TableDescription": d}, err
}
