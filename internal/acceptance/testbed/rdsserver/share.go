package rdsserver

import (
	"net/url"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"
	"github.com/aws/smithy-go"
)

// copyKey is the key that a copy of a snapshot is encrypted with.
func (r *request) copyKey(x *snapshot, id, presigned *string) (*string, error) {
	if presigned != nil {
		u, err := url.Parse(*presigned)
		if err != nil || !strings.HasPrefix(u.Query().Get("Action"), "CopyDB") || u.Query().Get("DestinationRegion") != r.region {
			return nil, invalidValue("PreSignedUrl could not be authenticated")
		}
	}
	foreign, elsewhere, source := x.key.account != r.account, x.key.region != r.region, x.kmsKey()
	switch {
	case source != nil && foreign && isDefaultKey(*source):
		return nil, fault(&types.KMSKeyNotAccessibleFault{},
			"The source snapshot KMS key [%s] does not exist, is not enabled or you do not have permissions to access it.", *source)
	case source != nil && foreign && elsewhere:
		return nil, invalidCombination("An encrypted snapshot that another account shares can be copied within its region only")
	case source != nil && id == nil && foreign:
		return nil, invalidCombination("The parameter KmsKeyId must be provided and must not be blank: the snapshot is encrypted, and another account's.")
	case source != nil && id == nil && elsewhere:
		return nil, invalidCombination("The parameter KmsKeyId must be provided and must not be blank: the snapshot is encrypted, and of another region.")
	}
	if err := r.usable(source); err != nil {
		return nil, err
	}
	if id != nil {
		return r.kmsKey(*id)
	}
	return source, nil
}

func (r *request) copySnapshot(in *rds.CopyDBSnapshotInput) (smithy.Serializable, error) {
	var unused struct{}
	if err := take(&unused, in, "SourceDBSnapshotIdentifier", "TargetDBSnapshotIdentifier", "CopyTags", "KmsKeyId", "PreSignedUrl", "SourceRegion", "Tags",
		"OptionGroupName"); err != nil {
		return nil, err
	}
	from, err := r.snapshot(*in.SourceDBSnapshotIdentifier)
	if err != nil {
		return nil, err
	}
	if err := checkSnapshotName("TargetDBSnapshotIdentifier", *in.TargetDBSnapshotIdentifier); err != nil {
		return nil, err
	}
	k := r.key(*in.TargetDBSnapshotIdentifier)
	if _, ok := r.snapshots[k]; ok {
		return nil, fault(&types.DBSnapshotAlreadyExistsFault{}, "Cannot create the snapshot because a snapshot with the identifier %s already exists.", k.id)
	}
	if err := within(r, "ManualSnapshots", r.snapshots, fault(&types.SnapshotQuotaExceededFault{}, "Cannot create more than %d manual snapshots",
		r.quotas["ManualSnapshots"])); err != nil {
		return nil, err
	}
	if status, _ := r.status(&from.life, r.now); status != available {
		return nil, fault(&types.InvalidDBSnapshotStateFault{}, "The snapshot %s is not in the available state", *in.SourceDBSnapshotIdentifier)
	}
	key, err := r.copyKey(from, in.KmsKeyId, in.PreSignedUrl)
	if err != nil {
		return nil, err
	}
	x := r.copied(from, k)
	x.d = from.d
	x.d.DBSnapshotIdentifier, x.d.DBSnapshotArn, x.d.KmsKeyId, x.d.Encrypted = &k.id, r.arn("snapshot", k.id), key, new(key != nil)
	x.d.SourceDBSnapshotIdentifier, x.instance.KmsKeyId, x.d.TagList = from.d.DBSnapshotArn, key, in.Tags
	if from.key.region != r.region {
		x.d.SourceRegion = &from.key.region
	}
	if deref(in.CopyTags) && in.Tags == nil {
		x.d.TagList = from.d.TagList
	}
	r.snapshots[k] = x
	return &rds.CopyDBSnapshotOutput{DBSnapshot: new(r.describeSnapshot(x))}, nil
}

// copied is a copy of a snapshot that is under way.
func (r *request) copied(from *snapshot, k key) *snapshot {
	x := &snapshot{key: k, instance: from.instance, cluster: from.cluster, image: from.image, taken: r.now, original: from.original, lastTx: from.lastTx}
	x.life.end(r.now, available, step{status: creating, last: r.real(r.options.Snapshotting)})
	return x
}

func (r *request) copyClusterSnapshot(in *rds.CopyDBClusterSnapshotInput) (smithy.Serializable, error) {
	var unused struct{}
	if err := take(&unused, in, "SourceDBClusterSnapshotIdentifier", "TargetDBClusterSnapshotIdentifier", "CopyTags", "KmsKeyId", "PreSignedUrl",
		"SourceRegion", "Tags"); err != nil {
		return nil, err
	}
	from, err := r.clusterSnapshot(*in.SourceDBClusterSnapshotIdentifier)
	if err != nil {
		return nil, err
	}
	if err := checkSnapshotName("TargetDBClusterSnapshotIdentifier", *in.TargetDBClusterSnapshotIdentifier); err != nil {
		return nil, err
	}
	k := r.key(*in.TargetDBClusterSnapshotIdentifier)
	if _, ok := r.clusterSnap[k]; ok {
		return nil, fault(&types.DBClusterSnapshotAlreadyExistsFault{}, "Cannot create the snapshot because a snapshot with the identifier %s already exists.", k.id)
	}
	if err := within(r, "ManualClusterSnapshots", r.clusterSnap, fault(&types.SnapshotQuotaExceededFault{},
		"Cannot create more than %d manual cluster snapshots", r.quotas["ManualClusterSnapshots"])); err != nil {
		return nil, err
	}
	if status, _ := r.status(&from.life, r.now); status != available {
		return nil, fault(&types.InvalidDBClusterSnapshotStateFault{}, "The snapshot %s is not in the available state", *in.SourceDBClusterSnapshotIdentifier)
	}
	if in.KmsKeyId != nil && from.c.KmsKeyId == nil {
		return nil, invalidCombination("KmsKeyId cannot be specified for a copy of a DB cluster snapshot that is not encrypted")
	}
	key, err := r.copyKey(from, in.KmsKeyId, in.PreSignedUrl)
	if err != nil {
		return nil, err
	}
	x := r.copied(from, k)
	x.c = from.c
	x.c.DBClusterSnapshotIdentifier, x.c.DBClusterSnapshotArn, x.c.KmsKeyId, x.c.StorageEncrypted = &k.id, r.arn("cluster-snapshot", k.id), key, new(key != nil)
	x.c.SourceDBClusterSnapshotArn, x.cluster.KmsKeyId, x.c.TagList = from.c.DBClusterSnapshotArn, key, in.Tags
	if deref(in.CopyTags) && in.Tags == nil {
		x.c.TagList = from.c.TagList
	}
	r.clusterSnap[k] = x
	return &rds.CopyDBClusterSnapshotOutput{DBClusterSnapshot: new(r.describeClusterSnapshot(x))}, nil
}

// share changes who may restore a snapshot.
func (r *request) share(x *snapshot, attribute string, add, remove []string) error {
	if attribute != "restore" {
		return invalidValue("Invalid snapshot attribute: %s", attribute)
	}
	if len(add) > 0 && x.kmsKey() != nil {
		if isDefaultKey(*x.kmsKey()) {
			return invalidValue("Sharing snapshots encrypted with the default service key for RDS is currently not supported")
		}
		if slices.Contains(add, "all") {
			return invalidValue("Encrypted snapshots can't be made public")
		}
	}
	for _, a := range add {
		if a != "all" && (len(a) != 12 || strings.Trim(a, "0123456789") != "") {
			return invalidValue("Invalid account: %s", a)
		}
	}
	next := slices.DeleteFunc(append(slices.Clone(x.restorers), add...), func(a string) bool { return slices.Contains(remove, a) })
	slices.Sort(next)
	next = slices.Compact(next)
	if len(next) > 20 {
		return fault(&types.SharedSnapshotQuotaExceededFault{}, "You can't share a manual DB snapshot with more than 20 accounts")
	}
	x.restorers = next
	return nil
}

func (r *request) modifySnapshotAttribute(in *rds.ModifyDBSnapshotAttributeInput) (smithy.Serializable, error) {
	x, err := r.snapshot(*in.DBSnapshotIdentifier)
	if x, err = r.own(x, err, func() error {
		return fault(&types.DBSnapshotNotFoundFault{}, "DBSnapshot not found: %s", *in.DBSnapshotIdentifier)
	}); err != nil {
		return nil, err
	}
	if status, _ := r.status(&x.life, r.now); status != available {
		return nil, fault(&types.InvalidDBSnapshotStateFault{}, "The snapshot is not in the available state")
	}
	if err := r.share(x, *in.AttributeName, in.ValuesToAdd, in.ValuesToRemove); err != nil {
		return nil, err
	}
	return &rds.ModifyDBSnapshotAttributeOutput{DBSnapshotAttributesResult: attributes(x)}, nil
}

func attributes(x *snapshot) *types.DBSnapshotAttributesResult {
	return &types.DBSnapshotAttributesResult{DBSnapshotIdentifier: &x.key.id,
		DBSnapshotAttributes: []types.DBSnapshotAttribute{{AttributeName: new("restore"), AttributeValues: x.restorers}}}
}

func (r *request) describeSnapshotAttributes(in *rds.DescribeDBSnapshotAttributesInput) (smithy.Serializable, error) {
	x, err := r.snapshot(*in.DBSnapshotIdentifier)
	if x, err = r.own(x, err, func() error {
		return fault(&types.DBSnapshotNotFoundFault{}, "DBSnapshot not found: %s", *in.DBSnapshotIdentifier)
	}); err != nil {
		return nil, err
	}
	return &rds.DescribeDBSnapshotAttributesOutput{DBSnapshotAttributesResult: attributes(x)}, nil
}

func (r *request) modifyClusterSnapshotAttribute(in *rds.ModifyDBClusterSnapshotAttributeInput) (smithy.Serializable, error) {
	x, err := r.clusterSnapshot(*in.DBClusterSnapshotIdentifier)
	if x, err = r.own(x, err, func() error {
		return fault(&types.DBClusterSnapshotNotFoundFault{}, "DBClusterSnapshot not found: %s", *in.DBClusterSnapshotIdentifier)
	}); err != nil {
		return nil, err
	}
	if status, _ := r.status(&x.life, r.now); status != available {
		return nil, fault(&types.InvalidDBClusterSnapshotStateFault{}, "The snapshot is not in the available state")
	}
	if err := r.share(x, *in.AttributeName, in.ValuesToAdd, in.ValuesToRemove); err != nil {
		return nil, err
	}
	return &rds.ModifyDBClusterSnapshotAttributeOutput{DBClusterSnapshotAttributesResult: &types.DBClusterSnapshotAttributesResult{DBClusterSnapshotIdentifier: &x.key.id,
		DBClusterSnapshotAttributes: []types.DBClusterSnapshotAttribute{{AttributeName: new("restore"), AttributeValues: x.restorers}}}}, nil
}
