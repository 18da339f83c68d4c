package rdsserver

import (
	"errors"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"
	"github.com/aws/smithy-go"
)

func wholeSecond(t time.Time) time.Time { return t.Truncate(time.Second).Add(time.Second) }

// latest is the latest time that something can be restored to that can be from earliest on; zero: none yet.
func (s *Server) latest(earliest, now time.Time) time.Time {
	if earliest.IsZero() {
		return earliest
	}
	steps := now.Add(-s.real(s.options.Lag)).Sub(earliest) / s.real(s.options.Step)
	if steps < 0 {
		return time.Time{}
	}
	return earliest.Add(steps * s.real(s.options.Step)).Truncate(time.Second)
}

// restoreSource is what a point-in-time restore of an instance goes back to.
type restoreSource struct {
	d                types.DBInstance
	earliest, latest time.Time
	cut              func() (image, error)
}

func (r *request) restoreToTime(in *rds.RestoreDBInstanceToPointInTimeInput) (smithy.Serializable, error) {
	var set settings
	if err := take(&set, in, "TargetDBInstanceIdentifier", "SourceDBInstanceIdentifier", "SourceDbiResourceId", "SourceDBInstanceAutomatedBackupsArn",
		"RestoreTime", "UseLatestRestorableTime"); err != nil {
		return nil, err
	}
	source, err := r.restoreSource(in)
	if err != nil {
		return nil, err
	}
	at, err := r.restoreTime("instance", in.RestoreTime, in.UseLatestRestorableTime, source.earliest, source.latest, *source.d.BackupRetentionPeriod)
	if err != nil {
		return nil, err
	}
	if err := r.usable(source.d.KmsKeyId); err != nil {
		return nil, err
	}
	i, err := r.build(*in.TargetDBInstanceIdentifier, &set, source.d)
	if err != nil {
		return nil, err
	}
	from, err := source.cut()
	if err != nil {
		return nil, err
	}
	err = r.birth(i, from.at(at), nil)
	return &rds.RestoreDBInstanceToPointInTimeOutput{DBInstance: new(r.describe(i))}, err
}

func (r *request) restoreSource(in *rds.RestoreDBInstanceToPointInTimeInput) (restoreSource, error) {
	given := 0
	for _, p := range []*string{in.SourceDBInstanceIdentifier, in.SourceDbiResourceId, in.SourceDBInstanceAutomatedBackupsArn} {
		if p != nil {
			given++
		}
	}
	if given != 1 {
		return restoreSource{}, invalidCombination("Exactly one of SourceDBInstanceIdentifier, SourceDbiResourceId and SourceDBInstanceAutomatedBackupsArn must be specified")
	}
	for _, i := range r.instances {
		if i.key.account != r.account || i.key.region != r.region {
			continue
		}
		if !(in.SourceDBInstanceIdentifier != nil && strings.EqualFold(i.key.id, *in.SourceDBInstanceIdentifier)) &&
			!(in.SourceDbiResourceId != nil && *in.SourceDbiResourceId == *i.d.DbiResourceId) &&
			!(in.SourceDBInstanceAutomatedBackupsArn != nil && *in.SourceDBInstanceAutomatedBackupsArn == r.backupARN(i.d)) {
			continue
		}
		status, _ := r.status(&i.life, r.now)
		switch {
		case i.cluster != nil:
			return restoreSource{}, invalidCombination("The instance %s is a member of a DB cluster: restore the cluster", i.key.id)
		case *i.d.BackupRetentionPeriod == 0:
			return restoreSource{}, fault(&types.PointInTimeRestoreNotEnabledFault{},
				"Point in time restore is not enabled for %s: its backup retention period is 0", i.key.id)
		case status == creating || status == deleting || status == "failed":
			return restoreSource{}, fault(&types.InvalidDBInstanceStateFault{}, "DB instance %s is not in a valid state for a restore: %s", i.key.id, status)
		}
		return restoreSource{d: i.d, earliest: i.earliest, latest: r.latest(i.earliest, r.now), cut: func() (image, error) {
			from, _, err := i.data.cut(r.ctx)
			return from, err
		}}, nil
	}
	for _, b := range r.backups {
		if b.key.account == r.account && b.key.region == r.region && (deref(in.SourceDbiResourceId) == *b.d.DbiResourceId ||
			deref(in.SourceDBInstanceAutomatedBackupsArn) == r.backupARN(b.d)) {
			return restoreSource{d: b.d, earliest: b.earliest, latest: b.latest, cut: func() (image, error) { return b.image, nil }}, nil
		}
	}
	if in.SourceDBInstanceAutomatedBackupsArn != nil {
		return restoreSource{}, fault(&types.DBInstanceAutomatedBackupNotFoundFault{}, "No automated backup for this DB instance was found: %s",
			*in.SourceDBInstanceAutomatedBackupsArn)
	}
	return restoreSource{}, fault(&types.DBInstanceNotFoundFault{}, "DBInstance %s not found.", deref(or(in.SourceDBInstanceIdentifier, in.SourceDbiResourceId)))
}

// restoreTime is the real time to restore to.
func (r *request) restoreTime(what string, at *time.Time, useLatest *bool, earliest, latest time.Time, days int32) (time.Time, error) {
	switch {
	case at != nil && deref(useLatest):
		return time.Time{}, invalidCombination("You can't specify both a restore time and UseLatestRestorableTime")
	case at == nil && !deref(useLatest):
		return time.Time{}, invalidCombination("You must specify either a restore time or UseLatestRestorableTime")
	case latest.IsZero():
		return time.Time{}, invalidValue("The specified %s cannot be restored: it has no restorable time yet", what)
	case at == nil:
		return latest, nil
	case at.Nanosecond() != 0:
		return time.Time{}, invalidValue("The restore time %s has a fraction of a second", at.Format(time.RFC3339Nano))
	}
	when := at.Add(-r.offset)
	if !when.Before(latest) {
		return time.Time{}, invalidValue("The specified %s cannot be restored to a time later than %s", what, r.stamp(latest).Format(time.RFC3339))
	}
	if when.Before(earliest) {
		return time.Time{}, invalidValue("The specified %s cannot be restored to a time earlier than %s because its backup retention period is set to %d days.", what, r.stamp(earliest).Format(time.RFC3339), days)
	}
	return when, nil
}

// SetEarliest moves the earliest time that a source can be restored to, as when its retention period runs on. The source is an instance, a cluster or a
// retained backup, by its immutable resource ID.
func (s *Server) SetEarliest(resourceID string, at time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := false // what is being deleted is there twice
	set := func(id *string, earliest *time.Time) {
		if *id == resourceID {
			*earliest, found = at, true
		}
	}
	for _, i := range s.instances {
		set(i.d.DbiResourceId, &i.earliest)
	}
	for _, c := range s.clusters {
		set(c.d.DbClusterResourceId, &c.earliest)
	}
	for _, b := range s.backups {
		set(b.d.DbiResourceId, &b.earliest)
	}
	for _, b := range s.clusterKept {
		set(b.d.DbClusterResourceId, &b.earliest)
	}
	if !found {
		return errors.New("there is no " + resourceID)
	}
	return nil
}

// Expire removes a retained automated backup of an instance or a cluster, as at the end of its retention period.
func (s *Server) Expire(resourceID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, b := range s.backups {
		if *b.d.DbiResourceId == resourceID {
			delete(s.backups, k)
		}
	}
	for k, b := range s.clusterKept {
		if *b.d.DbClusterResourceId == resourceID {
			delete(s.clusterKept, k)
		}
	}
}
