package awsrdsinstance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	shared "github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/rds"
)

// DestinationSettings are the arguments of a restore. Nil and empty ones are the source's.
type DestinationSettings struct {
	Identifier, Region string
	SourceIdentifier   string
	AutomatedBackupARN string
	KMSKey             string
	SnapshotCopy       bool
	Database           string
	Shape              Shape // only what was given
	CopyTags           *bool
	Tags               map[string]string
	ManageMasterSecret bool
	MasterSecretKey    string
	SetMasterPassword  bool
	DeletionProtection *bool
	Storage            string
	Clock              engine.Clock
	Open               Open
	Login              *shared.Login
}

// String keeps secrets out of logs and errors.
func (DestinationSettings) String() string { return "(settings of a restored RDS instance)" }

// GoString is String.
func (DestinationSettings) GoString() string { return "(settings of a restored RDS instance)" }

// Destination is one instance to be made.
type Destination struct{ s DestinationSettings }

// NewDestination opens nothing yet.
func NewDestination(s DestinationSettings) *Destination { return &Destination{s} }

// Close has nothing to release.
func (d *Destination) Close() error { return nil }

// origin is what is restored from.
type origin struct {
	place      shared.Place // of the destination
	api        API          // there
	identifier string       // of the source, for messages
	resourceID string
	shape      Shape // the source's, as far as it is known and fits the place
	// By time.
	backupARN        string // of replicated automated backups; else by resourceID
	live             bool
	earliest, latest time.Time
	// From a snapshot.
	snapshot *types.DBSnapshot
	foreign  bool // of another account
	distant  bool // in another region
}

// find looks for what is to be restored from.
func (d *Destination) find(ctx context.Context, r engine.StorageBackup) (o origin, err error) {
	if o.api, o.place, err = d.s.Open(ctx, d.s.Region); err != nil {
		return o, err
	}
	record := r.Record.Extra
	if o.shape, err = recorded(record); err != nil {
		return o, err
	}
	o.identifier, o.resourceID = cmp.Or(d.s.SourceIdentifier, record[shared.ExtraIdentifier]), r.Record.SourceID
	if d.s.SourceIdentifier != "" && record[shared.ExtraIdentifier] != "" && d.s.SourceIdentifier != record[shared.ExtraIdentifier] {
		return o, fmt.Errorf("source_identifier is %s, and the backup is of DB instance %s: leave source_identifier out, or name the backup that is meant", d.s.SourceIdentifier, record[shared.ExtraIdentifier])
	}
	if r.ByTime() {
		err = d.findByTime(ctx, r, &o)
	} else {
		err = d.findSnapshot(ctx, r, &o)
	}
	return o, err
}

func (d *Destination) findByTime(ctx context.Context, r engine.StorageBackup, o *origin) error {
	if r.Record.Driver != "" && !r.Record.ByTime {
		return fmt.Errorf("storage %s was backed up by a snapshot: use scalardb_snapshot_restore for it", r.Storage)
	}
	if err := o.place.Same(r.Record.Extra); err != nil && d.s.AutomatedBackupARN == "" {
		return fmt.Errorf("looking for DB instance %s: %w", o.identifier, err)
	}
	if d.s.AutomatedBackupARN != "" {
		return d.findReplicated(ctx, o)
	}
	if region := r.Record.Extra[shared.ExtraRegion]; region != "" && region != o.place.Region {
		return fmt.Errorf("DB instance %s is in region %s, and automated backups restore in their own region only: replicate them to %s and set source_automated_backup_arn, or take the backup with method = \"snapshot\"", o.identifier, region, o.place.Region)
	}
	if o.identifier == "" && o.resourceID == "" {
		return errors.New("which DB instance was backed up is not known from a pause window alone: set source_identifier")
	}
	live, err := d.findLive(ctx, o)
	if err != nil {
		return err
	}
	in := rds.DescribeDBInstanceAutomatedBackupsInput{DbiResourceId: aws.String(o.resourceID)}
	if o.resourceID == "" {
		// DBInstanceIdentifier is documented for instances that exist only.
		in = rds.DescribeDBInstanceAutomatedBackupsInput{Filters: []types.Filter{{Name: aws.String("db-instance-id"), Values: []string{o.identifier}}}}
	}
	backups, err := automated(ctx, o.api, in)
	switch {
	case err != nil:
		return err
	case len(backups) == 0 && live != nil:
		return fmt.Errorf("RDS names no automated backups of DB instance %s: they were switched off, so nothing can be restored by time", o.identifier)
	case len(backups) == 0:
		return fmt.Errorf("DB instance %s (%s) was deleted, and no automated backups of it are retained in %s: nothing can be restored by time", cmp.Or(o.identifier, "of the backup"), o.resourceID, o.place)
	case len(backups) > 1 && o.resourceID == "":
		return fmt.Errorf("%s has automated backups of %d deleted DB instances %s: which one is meant cannot be told", o.place, len(backups), o.identifier)
	}
	o.take(backups[0])
	if live != nil {
		o.latest = aws.ToTime(live.LatestRestorableTime)
	}
	return nil
}

// findLive looks for the source itself. One under its identifier that is another is left out.
func (d *Destination) findLive(ctx context.Context, o *origin) (*types.DBInstance, error) {
	if o.identifier == "" {
		return nil, nil
	}
	live, err := describe(ctx, o.api, o.identifier)
	if err != nil || live == nil {
		return nil, err
	}
	if o.resourceID != "" && aws.ToString(live.DbiResourceId) != o.resourceID {
		return nil, nil
	}
	o.live, o.resourceID, o.shape = true, aws.ToString(live.DbiResourceId), shapeOf(*live, o.place)
	return live, nil
}

func (d *Destination) findReplicated(ctx context.Context, o *origin) error {
	backups, err := automated(ctx, o.api, rds.DescribeDBInstanceAutomatedBackupsInput{DBInstanceAutomatedBackupsArn: aws.String(d.s.AutomatedBackupARN)})
	switch {
	case err != nil:
		return err
	case len(backups) == 0:
		return fmt.Errorf("there are no automated backups %s in %s", d.s.AutomatedBackupARN, o.place)
	case o.resourceID != "" && aws.ToString(backups[0].DbiResourceId) != o.resourceID:
		return fmt.Errorf("the automated backups %s are of the instance %s, and the backup is of %s", d.s.AutomatedBackupARN, aws.ToString(backups[0].DbiResourceId), o.resourceID)
	}
	o.backupARN = d.s.AutomatedBackupARN
	o.take(backups[0])
	return nil
}

// take reads what automated backups say.
func (o *origin) take(b types.DBInstanceAutomatedBackup) {
	o.resourceID, o.identifier = cmp.Or(o.resourceID, aws.ToString(b.DbiResourceId)), cmp.Or(o.identifier, aws.ToString(b.DBInstanceIdentifier))
	if w := b.RestoreWindow; w != nil {
		o.earliest, o.latest = aws.ToTime(w.EarliestTime), aws.ToTime(w.LatestTime)
	}
	s := &o.shape
	s.Engine, s.EngineVersion, s.MasterUsername = cmp.Or(s.Engine, aws.ToString(b.Engine)), cmp.Or(s.EngineVersion, aws.ToString(b.EngineVersion)), cmp.Or(s.MasterUsername, aws.ToString(b.MasterUsername))
	s.StorageType, s.IOPS, s.Throughput = cmp.Or(s.StorageType, aws.ToString(b.StorageType)), cmp.Or(s.IOPS, aws.ToInt32(b.Iops)), cmp.Or(s.Throughput, aws.ToInt32(b.StorageThroughput))
	s.Allocated, s.Port, s.License = cmp.Or(s.Allocated, aws.ToInt32(b.AllocatedStorage)), cmp.Or(s.Port, aws.ToInt32(b.Port)), cmp.Or(s.License, aws.ToString(b.LicenseModel))
	s.OptionGroup, s.KMSKey = cmp.Or(s.OptionGroup, aws.ToString(b.OptionGroupName)), cmp.Or(s.KMSKey, aws.ToString(b.KmsKeyId))
	s.Encrypted = s.Encrypted || aws.ToBool(b.Encrypted)
}

func (d *Destination) findSnapshot(ctx context.Context, r engine.StorageBackup, o *origin) error {
	if len(r.Record.Artifacts) != 1 || r.Record.Artifacts[0].Kind != snapshotKind {
		return fmt.Errorf("storage %s of the backup has no %s: it was taken by driver %q", r.Storage, snapshotKind, r.Record.Driver)
	}
	a := r.Record.Artifacts[0]
	region := cmp.Or(a.Extra[shared.ExtraRegion], o.place.Region)
	o.foreign, o.distant = a.Extra[shared.ExtraAccount] != "" && a.Extra[shared.ExtraAccount] != o.place.Account, region != o.place.Region
	api := o.api
	if o.distant {
		var err error
		if api, _, err = d.s.Open(ctx, region); err != nil {
			return err
		}
	}
	name := snapshotName(a)
	if o.foreign {
		name = a.ID // a shared one is named by its ARN
	}
	s, err := snapshot(ctx, api, name)
	switch {
	case err != nil:
		return err
	case s == nil && o.foreign:
		return fmt.Errorf("snapshot %s is not shared with account %s, or gone: share it (share_with_accounts in the backup)", a.ID, o.place.Account)
	case s == nil:
		return fmt.Errorf("snapshot %s is gone: %w", a.ID, engine.ErrNotFound)
	case aws.ToString(s.Status) != "available":
		return fmt.Errorf("snapshot %s is %s", a.ID, aws.ToString(s.Status))
	case r.Record.SourceID != "" && aws.ToString(s.DbiResourceId) != "" && aws.ToString(s.DbiResourceId) != r.Record.SourceID:
		return fmt.Errorf("snapshot %s is of the instance %s, and the backup is of %s", a.ID, aws.ToString(s.DbiResourceId), r.Record.SourceID)
	}
	o.snapshot = s
	if !o.foreign && !o.distant {
		// The source's settings of today, where it is still there; else what the backup recorded.
		if _, err := d.findLive(ctx, o); err != nil {
			return err
		}
	}
	x := &o.shape
	x.Engine, x.EngineVersion, x.MasterUsername = cmp.Or(aws.ToString(s.Engine), x.Engine), cmp.Or(aws.ToString(s.EngineVersion), x.EngineVersion), cmp.Or(aws.ToString(s.MasterUsername), x.MasterUsername)
	x.Allocated, x.Encrypted, x.KMSKey = cmp.Or(aws.ToInt32(s.AllocatedStorage), x.Allocated), aws.ToBool(s.Encrypted), aws.ToString(s.KmsKeyId)
	x.StorageType, x.OptionGroup, x.License = cmp.Or(x.StorageType, aws.ToString(s.StorageType)), cmp.Or(x.OptionGroup, aws.ToString(s.OptionGroupName)), cmp.Or(x.License, aws.ToString(s.LicenseModel))
	x.Port = cmp.Or(x.Port, aws.ToInt32(s.Port))
	return nil
}

// copies says whether the snapshot has to be copied first.
func (d *Destination) copies(o origin) bool {
	if o.snapshot == nil {
		return false
	}
	return d.s.SnapshotCopy || o.distant || (o.foreign && o.shape.Encrypted) || (d.s.KMSKey != "" && d.s.KMSKey != o.shape.KMSKey)
}

// Preflight only reads, and is cheap: a plan calls it too.
func (d *Destination) Preflight(ctx context.Context, r engine.StorageBackup) error {
	_, err := d.look(ctx, r)
	return err
}

// look finds what is to be restored from, and checks everything about it.
func (d *Destination) look(ctx context.Context, r engine.StorageBackup) (origin, error) {
	o, err := d.find(ctx, r)
	if o.api == nil {
		return o, err // no account, or no record that can be read
	}
	return o, errors.Join(err, d.check(ctx, r, o, err == nil))
}

func (d *Destination) check(ctx context.Context, r engine.StorageBackup, o origin, found bool) error {
	errs := []error{d.free(ctx, r, o)}
	if q, err := quotas(ctx, o.api); err != nil {
		errs = append(errs, err)
	} else {
		errs = append(errs, shared.Quota(q, "DBInstances", 1, "DB instances", o.place))
		if found && d.copies(o) {
			errs = append(errs, shared.Quota(q, "ManualSnapshots", 1, "manual snapshots, and the copy needs one", o.place))
		}
	}
	if !found {
		return errors.Join(errs...)
	}
	want := d.want(o)
	errs = append(errs, checkSubnets(ctx, o, want), d.checkKey(r, o), d.checkPassword(o))
	if r.ByTime() {
		errs = append(errs, checkPoint(o, r.RestorePoint))
	}
	if want.Allocated != 0 && want.Allocated < o.shape.Allocated {
		errs = append(errs, fmt.Errorf("allocated_storage is %d GiB, and the source has %d GiB: storage can only grow", want.Allocated, o.shape.Allocated))
	}
	if want.Class == "" {
		errs = append(errs, fmt.Errorf("the class of DB instance %s is not known any more: set instance_class", o.identifier))
	}
	if want.MultiAZ != nil && *want.MultiAZ && want.Zone != "" {
		errs = append(errs, errors.New("availability_zone cannot be chosen for a Multi-AZ instance: set multi_az = false too, or leave availability_zone out"))
	}
	return errors.Join(errs...)
}

// free: nothing has the identifier. At plan (no run id) one that a restore made is no obstacle: it may be what is replaced, or what a killed attempt left, which Create
// looks at first.
func (d *Destination) free(ctx context.Context, r engine.StorageBackup, o origin) error {
	there, err := describe(ctx, o.api, d.s.Identifier)
	if err != nil || there == nil {
		return err
	}
	if _, restored := shared.TagsOf(there.TagList)[shared.TagRestore]; restored && r.RunID == "" {
		return nil
	}
	return fmt.Errorf("there is a DB instance %s in %s already, and a restore never overwrites: choose another identifier, or delete that one", d.s.Identifier, o.place)
}

// checkPoint: what time brings is waited for, the rest is refused.
func checkPoint(o origin, point time.Time) error {
	if !o.earliest.IsZero() && point.Before(o.earliest) {
		return fmt.Errorf("the restore point %s has left the automated backups of DB instance %s, which reach back to %s: only a younger backup can be restored by time; a longer backup_retention_period keeps the next ones longer",
			point.UTC().Format(time.RFC3339), o.identifier, o.earliest.UTC().Format(time.RFC3339))
	}
	if !o.live && o.backupARN == "" && !o.latest.IsZero() && !point.Before(o.latest) {
		return fmt.Errorf("DB instance %s was deleted, and its retained backups end at %s, before the restore point %s", o.identifier, o.latest.UTC().Format(time.RFC3339), point.UTC().Format(time.RFC3339))
	}
	return nil
}

func checkSubnets(ctx context.Context, o origin, want Shape) error {
	if want.SubnetGroup == "" {
		return nil
	}
	out, err := o.api.DescribeDBSubnetGroups(ctx, &rds.DescribeDBSubnetGroupsInput{DBSubnetGroupName: aws.String(want.SubnetGroup)})
	if shared.Code(err, "DBSubnetGroupNotFound") || (err == nil && len(out.DBSubnetGroups) == 0) {
		return fmt.Errorf("there is no subnet group %s in %s: set db_subnet_group_name", want.SubnetGroup, o.place)
	}
	if err != nil {
		return fmt.Errorf("asking for subnet group %s: %w", want.SubnetGroup, shared.Explain("rds:DescribeDBSubnetGroups", err))
	}
	return nil
}

// checkKey: RDS restores an instance with the key of what it restores from; only a copy of a snapshot gets another.
func (d *Destination) checkKey(r engine.StorageBackup, o origin) error {
	switch {
	case r.ByTime() && d.s.KMSKey != "" && d.s.KMSKey != o.shape.KMSKey && o.backupARN == "":
		return fmt.Errorf("kms_key_id is %s, and RDS restores an instance by time with the source's key only (%s): leave kms_key_id out, or take the backup with method = \"snapshot\", which is copied with another key", d.s.KMSKey, cmp.Or(o.shape.KMSKey, "it is not encrypted"))
	case r.ByTime() && d.s.KMSKey != "" && o.backupARN != "":
		return errors.New("kms_key_id cannot be chosen here: replicated automated backups are restored with the key that they were replicated with")
	case !r.ByTime() && d.s.KMSKey == "" && o.shape.Encrypted && (o.foreign || o.distant):
		return fmt.Errorf("the snapshot is encrypted with key %s of another account or region: set kms_key_id to a key of %s that its copy is encrypted with", o.shape.KMSKey, o.place)
	}
	return nil
}

// checkPassword: the new password comes from the provider's credentials, and they must be the master user's.
func (d *Destination) checkPassword(o origin) error {
	if !d.s.SetMasterPassword {
		return nil
	}
	switch {
	case d.s.Login == nil || d.s.Login.Password == "":
		return errors.New("set_master_password needs an entry with a password in the provider's credentials: add one, and name it with the argument credentials")
	case o.shape.MasterUsername != "" && d.s.Login.Username != o.shape.MasterUsername:
		return fmt.Errorf("set_master_password sets the password of the master user %s, and the entry in the provider's credentials is of %s: name another entry with the argument credentials", o.shape.MasterUsername, d.s.Login.Username)
	case len(d.s.Login.Password) < 8:
		return errors.New("set_master_password: RDS wants at least 8 characters, and the password in the provider's credentials has fewer")
	}
	return nil
}

// want is how the new instance is to be: what was given, else the source's as far as it fits the place.
func (d *Destination) want(o origin) Shape {
	g, s := d.s.Shape, o.shape.at(o.place)
	w := s
	w.Class, w.StorageType, w.Zone = cmp.Or(g.Class, s.Class), cmp.Or(g.StorageType, s.StorageType), g.Zone
	w.Allocated, w.MaxAllocated = cmp.Or(g.Allocated, s.Allocated), cmp.Or(g.MaxAllocated, s.MaxAllocated)
	w.IOPS, w.Throughput = provisioned(g, s, w)
	w.SubnetGroup, w.ParameterGroup, w.OptionGroup = cmp.Or(g.SubnetGroup, s.SubnetGroup), cmp.Or(g.ParameterGroup, s.ParameterGroup), cmp.Or(g.OptionGroup, s.OptionGroup)
	w.Port, w.CA, w.MonitoringRole = cmp.Or(g.Port, s.Port), cmp.Or(g.CA, s.CA), cmp.Or(g.MonitoringRole, s.MonitoringRole)
	w.InsightsKey, w.InsightsRetention = cmp.Or(g.InsightsKey, s.InsightsKey), cmp.Or(g.InsightsRetention, s.InsightsRetention)
	w.MultiAZ, w.Public, w.IAMAuth, w.AutoMinor, w.Insights = cmp.Or(g.MultiAZ, s.MultiAZ), cmp.Or(g.Public, s.Public), cmp.Or(g.IAMAuth, s.IAMAuth), cmp.Or(g.AutoMinor, s.AutoMinor), cmp.Or(g.Insights, s.Insights)
	w.Protected, w.Retention, w.MonitoringInterval = cmp.Or(d.s.DeletionProtection, s.Protected), cmp.Or(g.Retention, s.Retention), cmp.Or(g.MonitoringInterval, s.MonitoringInterval)
	if g.SecurityGroups != nil {
		w.SecurityGroups = g.SecurityGroups
	} else if g.SubnetGroup != "" && g.SubnetGroup != s.SubnetGroup {
		w.SecurityGroups = nil // the source's are of its own network
	}
	if g.Logs != nil {
		w.Logs = g.Logs
	}
	if g.Zone != "" && g.MultiAZ == nil {
		w.MultiAZ = aws.Bool(false)
	}
	w.Tags = map[string]string{}
	if d.s.CopyTags == nil || *d.s.CopyTags {
		w.Tags = shared.UserTags(o.shape.Tags)
	}
	for k, v := range d.s.Tags {
		w.Tags[k] = v
	}
	return w
}

// provisioned are IOPS and throughput. gp3 volumes below a size have fixed ones, which RDS shows and refuses to be told.
func provisioned(given, source, want Shape) (iops, throughput int32) {
	iops, throughput = given.IOPS, given.Throughput
	large := int32(400)
	if strings.HasPrefix(want.Engine, "oracle-") {
		large = 200
	}
	inherits := want.StorageType == source.StorageType && (want.StorageType == "io1" || want.StorageType == "io2" || (want.StorageType == "gp3" && want.Allocated >= large))
	if inherits && iops == 0 {
		iops = source.IOPS
	}
	if inherits && want.StorageType == "gp3" && throughput == 0 {
		throughput = source.Throughput
	}
	return iops, throughput
}
