package awsrdscluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	shared "github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/rds"
)

// defaultInstance is the key of the one instance that a restored cluster gets where none are given.
const defaultInstance = "1"

// DestinationSettings are the arguments of a restore. Nil and empty ones are the source's.
type DestinationSettings struct {
	Identifier, Region string
	SourceIdentifier   string
	KMSKey             string
	SnapshotCopy       bool
	Database           string
	Shape              Shape             // only what was given; its Writer holds for every instance
	Instances          map[string]Member // only what was given, by the suffix of the identifier
	CopyTags           *bool
	Tags               map[string]string
	ManageMasterSecret bool
	MasterSecretKey    string
	SetMasterPassword  bool
	Storage            string
	Clock              engine.Clock
	Open               Open
	Login              *shared.Login
}

// String keeps secrets out of logs and errors.
func (DestinationSettings) String() string { return "(settings of a restored Aurora cluster)" }

// GoString is String.
func (DestinationSettings) GoString() string { return "(settings of a restored Aurora cluster)" }

// keys of the instances to create, in their order.
func (s DestinationSettings) keys() []string {
	if len(s.Instances) == 0 {
		return []string{defaultInstance}
	}
	return slices.Sorted(maps.Keys(s.Instances))
}

func (s DestinationSettings) instance(key string) string { return s.Identifier + "-" + key }

// Destination is one cluster to be made.
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
	shape      Shape // the source's, as far as it is known
	// By time.
	live             bool
	earliest, latest time.Time
	// From a snapshot.
	snapshot *types.DBClusterSnapshot
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
		return o, fmt.Errorf("source_identifier is %s, and the backup is of DB cluster %s: leave source_identifier out, or name the backup that is meant", d.s.SourceIdentifier, record[shared.ExtraIdentifier])
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
	if err := o.place.Same(r.Record.Extra); err != nil {
		return fmt.Errorf("looking for DB cluster %s: %w", o.identifier, err)
	}
	if region := r.Record.Extra[shared.ExtraRegion]; region != "" && region != o.place.Region {
		return fmt.Errorf("DB cluster %s is in region %s, and Aurora restores by time in the cluster's own region only: take the backup with method = \"snapshot\" to restore it in %s", o.identifier, region, o.place.Region)
	}
	if o.identifier == "" && o.resourceID == "" {
		return errors.New("which DB cluster was backed up is not known from a pause window alone: set source_identifier")
	}
	if err := d.findLive(ctx, o); err != nil || o.live {
		return err
	}
	in := rds.DescribeDBClusterAutomatedBackupsInput{DbClusterResourceId: aws.String(o.resourceID)}
	if o.resourceID == "" {
		// DBClusterIdentifier is documented for clusters that exist only.
		in = rds.DescribeDBClusterAutomatedBackupsInput{Filters: []types.Filter{
			{Name: aws.String("status"), Values: []string{"retained"}}, {Name: aws.String("db-cluster-id"), Values: []string{o.identifier}},
		}}
	}
	backups, err := automated(ctx, o.api, in)
	switch {
	case err != nil:
		return err
	case len(backups) == 0:
		return fmt.Errorf("DB cluster %s (%s) was deleted, and no automated backups of it are retained in %s: nothing can be restored by time", cmp.Or(o.identifier, "of the backup"), o.resourceID, o.place)
	case len(backups) > 1 && o.resourceID == "":
		return fmt.Errorf("%s has automated backups of %d deleted DB clusters %s: which one is meant cannot be told", o.place, len(backups), o.identifier)
	}
	o.take(backups[0])
	return nil
}

// findLive looks for the source itself. One under its identifier that is another is left out.
func (d *Destination) findLive(ctx context.Context, o *origin) error {
	if o.identifier == "" {
		return nil
	}
	live, err := describe(ctx, o.api, o.identifier)
	if err != nil || live == nil || (o.resourceID != "" && aws.ToString(live.DbClusterResourceId) != o.resourceID) {
		return err
	}
	writer := o.shape.Writer
	if o.shape, err = shapeWith(ctx, o.api, *live, o.place); err != nil {
		return err
	}
	if o.shape.Writer.Class == "" {
		o.shape.Writer = writer // the cluster has no instances now
	}
	o.live, o.resourceID = true, aws.ToString(live.DbClusterResourceId)
	o.earliest, o.latest = aws.ToTime(live.EarliestRestorableTime), aws.ToTime(live.LatestRestorableTime)
	return nil
}

// take reads what retained automated backups say.
func (o *origin) take(b types.DBClusterAutomatedBackup) {
	o.resourceID, o.identifier = cmp.Or(o.resourceID, aws.ToString(b.DbClusterResourceId)), cmp.Or(o.identifier, aws.ToString(b.DBClusterIdentifier))
	if w := b.RestoreWindow; w != nil {
		o.earliest, o.latest = aws.ToTime(w.EarliestTime), aws.ToTime(w.LatestTime)
	}
	s := &o.shape
	s.Account, s.Region = cmp.Or(s.Account, o.place.Account), cmp.Or(s.Region, o.place.Region)
	s.Engine, s.EngineVersion, s.MasterUsername = cmp.Or(s.Engine, aws.ToString(b.Engine)), cmp.Or(s.EngineVersion, aws.ToString(b.EngineVersion)), cmp.Or(s.MasterUsername, aws.ToString(b.MasterUsername))
	s.StorageType, s.Port, s.KMSKey = cmp.Or(s.StorageType, aws.ToString(b.StorageType)), cmp.Or(s.Port, aws.ToInt32(b.Port)), cmp.Or(s.KMSKey, aws.ToString(b.KmsKeyId))
	s.Encrypted = s.Encrypted || aws.ToBool(b.StorageEncrypted)
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
	name := nameOf(a)
	if o.foreign {
		name = a.ID // a shared one is named by its ARN
	}
	s, err := snapshot(ctx, api, name)
	switch {
	case err != nil:
		return err
	case s == nil && o.foreign:
		return fmt.Errorf("cluster snapshot %s is not shared with account %s, or gone: share it (share_with_accounts in the backup)", a.ID, o.place.Account)
	case s == nil:
		return fmt.Errorf("cluster snapshot %s is gone: %w", a.ID, engine.ErrNotFound)
	case aws.ToString(s.Status) != "available":
		return fmt.Errorf("cluster snapshot %s is %s", a.ID, aws.ToString(s.Status))
	case a.Extra[extraSnapshotSource] != "" && aws.ToString(s.DbClusterResourceId) != "" && aws.ToString(s.DbClusterResourceId) != a.Extra[extraSnapshotSource]:
		return fmt.Errorf("cluster snapshot %s is of the cluster %s, and that of the backup is of %s", a.ID, aws.ToString(s.DbClusterResourceId), a.Extra[extraSnapshotSource])
	}
	o.snapshot = s
	if !o.foreign && !o.distant {
		// The source's settings of today, where it is still there; else what the backup recorded.
		if err := d.findLive(ctx, o); err != nil {
			return err
		}
	}
	x := &o.shape
	x.Engine, x.EngineVersion, x.MasterUsername = cmp.Or(aws.ToString(s.Engine), x.Engine), cmp.Or(aws.ToString(s.EngineVersion), x.EngineVersion), cmp.Or(aws.ToString(s.MasterUsername), x.MasterUsername)
	x.Encrypted, x.KMSKey, x.StorageType, x.Port = aws.ToBool(s.StorageEncrypted), aws.ToString(s.KmsKeyId), cmp.Or(x.StorageType, aws.ToString(s.StorageType)), cmp.Or(x.Port, aws.ToInt32(s.Port))
	return nil
}

// copies says whether the snapshot has to be copied first. Another key alone needs no copy: a cluster is restored with it.
func (d *Destination) copies(o origin) bool {
	return o.snapshot != nil && (d.s.SnapshotCopy || o.distant || (o.foreign && o.shape.Encrypted))
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
		errs = append(errs, shared.Quota(q, "DBClusters", 1, "DB clusters", o.place), shared.Quota(q, "DBInstances", int64(len(d.s.keys())), "DB instances", o.place))
		if found && d.copies(o) {
			errs = append(errs, shared.Quota(q, "ManualClusterSnapshots", 1, "manual cluster snapshots, and the copy needs one", o.place))
		}
	}
	if !found {
		return errors.Join(errs...)
	}
	errs = append(errs, checkSubnets(ctx, o, d.want(o)), d.checkKey(r, o), d.checkPassword(o))
	if r.ByTime() {
		errs = append(errs, checkPoint(o, r.RestorePoint))
	}
	for _, k := range d.s.keys() {
		if d.member(o, k).Class == "" {
			errs = append(errs, fmt.Errorf("the class of the writer of DB cluster %s is not known: set instances = { %q = { instance_class = … } }", o.identifier, k))
		}
	}
	return errors.Join(errs...)
}

// free: nothing has the identifiers. At plan (no run id) what a restore made is no obstacle: it may be what is replaced, or what a killed attempt left, which Create
// looks at first.
func (d *Destination) free(ctx context.Context, r engine.StorageBackup, o origin) error {
	var errs []error
	taken := func(what, id string, tags []types.Tag) {
		if _, restored := shared.TagsOf(tags)[shared.TagRestore]; !restored || r.RunID != "" {
			errs = append(errs, fmt.Errorf("there is a %s %s in %s already, and a restore never overwrites: choose another identifier, or delete that one", what, id, o.place))
		}
	}
	if c, err := describe(ctx, o.api, d.s.Identifier); err != nil {
		errs = append(errs, err)
	} else if c != nil {
		taken("DB cluster", d.s.Identifier, c.TagList)
	}
	for _, k := range d.s.keys() {
		if i, err := member(ctx, o.api, d.s.instance(k)); err != nil {
			errs = append(errs, err)
		} else if i != nil {
			taken("DB instance", d.s.instance(k), i.TagList)
		}
	}
	return errors.Join(errs...)
}

// checkPoint: what time brings is waited for, the rest is refused.
func checkPoint(o origin, point time.Time) error {
	if !o.earliest.IsZero() && point.Before(o.earliest) {
		return fmt.Errorf("the restore point %s has left the automated backups of DB cluster %s, which reach back to %s: only a younger backup can be restored by time; a longer backup_retention_period keeps the next ones longer",
			point.UTC().Format(time.RFC3339), o.identifier, o.earliest.UTC().Format(time.RFC3339))
	}
	if !o.live && !o.latest.IsZero() && !point.Before(o.latest) {
		return fmt.Errorf("DB cluster %s was deleted, and its retained backups end at %s, before the restore point %s", o.identifier, o.latest.UTC().Format(time.RFC3339), point.UTC().Format(time.RFC3339))
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

// checkKey: a snapshot that is copied to another region or account needs a key of there.
func (d *Destination) checkKey(r engine.StorageBackup, o origin) error {
	switch {
	case !r.ByTime() && d.s.KMSKey == "" && o.shape.Encrypted && (o.foreign || o.distant):
		return fmt.Errorf("the snapshot is encrypted with key %s of another account or region: set kms_key_id to a key of %s that its copy is encrypted with", o.shape.KMSKey, o.place)
	case r.ByTime() && d.s.KMSKey != "" && !o.shape.Encrypted && o.live:
		return fmt.Errorf("kms_key_id is set, and DB cluster %s is not encrypted: Aurora restores it by time unencrypted only; take the backup with method = \"snapshot\", whose snapshot can be restored encrypted", o.identifier)
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

// want is how the new cluster is to be: what was given, else the source's as far as it fits the place.
func (d *Destination) want(o origin) Shape {
	g, s := d.s.Shape, o.shape.at(o.place)
	w := s
	w.StorageType, w.SubnetGroup, w.ParameterGroup, w.Port = cmp.Or(g.StorageType, s.StorageType), cmp.Or(g.SubnetGroup, s.SubnetGroup), cmp.Or(g.ParameterGroup, s.ParameterGroup), cmp.Or(g.Port, s.Port)
	w.IAMAuth, w.Protected, w.Retention = cmp.Or(g.IAMAuth, s.IAMAuth), cmp.Or(g.Protected, s.Protected), cmp.Or(g.Retention, s.Retention)
	if g.SecurityGroups != nil {
		w.SecurityGroups = g.SecurityGroups
	} else if g.SubnetGroup != "" && g.SubnetGroup != s.SubnetGroup {
		w.SecurityGroups = nil // the source's are of its own network
	}
	if g.Logs != nil {
		w.Logs = g.Logs
	}
	w.Tags = map[string]string{}
	if d.s.CopyTags == nil || *d.s.CopyTags {
		w.Tags = shared.UserTags(o.shape.Tags)
	}
	maps.Copy(w.Tags, d.s.Tags)
	return w
}

// member is how one instance is to be: its own arguments, then those for all of them, then the source's writer.
func (d *Destination) member(o origin, key string) Member {
	own, all, s := d.s.Instances[key], d.s.Shape.Writer, o.shape.at(o.place).Writer
	return Member{
		Class: cmp.Or(own.Class, all.Class, s.Class), Zone: own.Zone, Tier: own.Tier, ParameterGroup: cmp.Or(own.ParameterGroup, all.ParameterGroup, s.ParameterGroup),
		Public: cmp.Or(own.Public, all.Public, s.Public), AutoMinor: cmp.Or(all.AutoMinor, s.AutoMinor), CA: cmp.Or(all.CA, s.CA),
		Insights: cmp.Or(all.Insights, s.Insights), InsightsKey: cmp.Or(all.InsightsKey, s.InsightsKey), InsightsRetention: cmp.Or(all.InsightsRetention, s.InsightsRetention),
		MonitoringInterval: cmp.Or(all.MonitoringInterval, s.MonitoringInterval), MonitoringRole: cmp.Or(all.MonitoringRole, s.MonitoringRole),
	}
}
