package rdsserver

import (
	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"
	"github.com/aws/smithy-go"
)

// restorable refuses to restore a snapshot that is not ready, is in another region, or is encrypted and another account's.
func (r *request) restorable(x *snapshot, state func() error) error {
	if status, _ := r.status(&x.life, r.now); status != available {
		return state()
	}
	if x.key.region != r.region {
		return invalidValue("The snapshot %s is of another region: copy it first", x.arn())
	}
	if x.key.account != r.account && x.kmsKey() != nil {
		return fault(&types.KMSKeyNotAccessibleFault{}, "You can't restore from a shared snapshot that is encrypted: copy it first")
	}
	return r.usable(x.kmsKey())
}

func (r *request) restoreFromSnapshot(in *rds.RestoreDBInstanceFromDBSnapshotInput) (smithy.Serializable, error) {
	var set settings
	if err := take(&set, in, "DBInstanceIdentifier", "DBSnapshotIdentifier"); err != nil {
		return nil, err
	}
	if in.DBSnapshotIdentifier == nil {
		return nil, invalidCombination("DBSnapshotIdentifier must be specified")
	}
	x, err := r.snapshot(*in.DBSnapshotIdentifier)
	if err != nil {
		return nil, err
	}
	if err := r.restorable(x, func() error {
		return fault(&types.InvalidDBSnapshotStateFault{}, "The snapshot %s is not in the available state", x.key.id)
	}); err != nil {
		return nil, err
	}
	i, err := r.build(*in.DBInstanceIdentifier, &set, x.instance)
	if err != nil {
		return nil, err
	}
	err = r.birth(i, x.image, nil)
	return &rds.RestoreDBInstanceFromDBSnapshotOutput{DBInstance: new(r.describe(i))}, err
}

func (r *request) restoreClusterFromSnapshot(in *rds.RestoreDBClusterFromSnapshotInput) (smithy.Serializable, error) {
	var set clusterSettings
	if err := take(&set, in, "DBClusterIdentifier", "SnapshotIdentifier"); err != nil {
		return nil, err
	}
	x, err := r.clusterSnapshot(*in.SnapshotIdentifier)
	if err != nil {
		return nil, err
	}
	if err := r.restorable(x, func() error {
		return fault(&types.InvalidDBClusterSnapshotStateFault{}, "The snapshot %s is not in the available state", x.key.id)
	}); err != nil {
		return nil, err
	}
	c, err := r.buildCluster(*in.DBClusterIdentifier, &set, x.cluster)
	if err != nil {
		return nil, err
	}
	err = r.birthCluster(c, x.image)
	return &rds.RestoreDBClusterFromSnapshotOutput{DBCluster: new(r.describeCluster(c))}, err
}
