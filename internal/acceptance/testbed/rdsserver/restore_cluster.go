package rdsserver

import (
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"
	"github.com/aws/smithy-go"
)

func (r *request) restoreClusterToTime(in *rds.RestoreDBClusterToPointInTimeInput) (smithy.Serializable, error) {
	var set clusterSettings
	if err := take(&set, in, "DBClusterIdentifier", "SourceDBClusterIdentifier", "SourceDbClusterResourceId", "RestoreToTime", "UseLatestRestorableTime",
		"RestoreType"); err != nil {
		return nil, err
	}
	if (in.SourceDBClusterIdentifier == nil) == (in.SourceDbClusterResourceId == nil) {
		return nil, invalidCombination("Exactly one of SourceDBClusterIdentifier and SourceDbClusterResourceId must be specified")
	}
	var source *cluster
	for _, c := range r.clusters {
		if c.key.account == r.account && c.key.region == r.region && (deref(in.SourceDbClusterResourceId) == *c.d.DbClusterResourceId ||
			strings.EqualFold(deref(in.SourceDBClusterIdentifier), c.key.id) || deref(in.SourceDBClusterIdentifier) == *c.d.DBClusterArn) {
			source = c
		}
	}
	if source == nil {
		return nil, fault(&types.DBClusterNotFoundFault{}, "The source cluster could not be found or cannot be accessed: %s",
			deref(or(in.SourceDBClusterIdentifier, in.SourceDbClusterResourceId)))
	}
	if status, _ := source.life.status(r.now); status == creating || status == deleting {
		return nil, fault(&types.InvalidDBClusterStateFault{}, "DB cluster %s is not in a valid state for a restore: %s", source.key.id, status)
	}
	kind := deref(or(in.RestoreType, new("full-copy")))
	clone := kind == "copy-on-write"
	var at time.Time
	switch {
	case kind != "full-copy" && !clone:
		return nil, invalidValue("Invalid RestoreType: %s. Valid values: full-copy, copy-on-write", kind)
	case clone && in.RestoreToTime != nil:
		return nil, invalidCombination("RestoreToTime can't be specified when RestoreType is copy-on-write")
	case !clone || !deref(in.UseLatestRestorableTime):
		var err error
		if at, err = r.restoreTime("cluster", in.RestoreToTime, in.UseLatestRestorableTime, source.earliest, r.latest(source.earliest, r.now),
			*source.d.BackupRetentionPeriod); err != nil {
			return nil, err
		}
	}
	if err := r.usable(source.d.KmsKeyId); err != nil {
		return nil, err
	}
	c, err := r.buildCluster(*in.DBClusterIdentifier, &set, source.d)
	if err != nil {
		return nil, err
	}
	from, _, err := source.data.cut(r.ctx)
	if err != nil {
		return nil, err
	}
	if !clone { // a clone has what the source has now
		from = from.at(at)
	}
	err = r.birthCluster(c, from)
	return &rds.RestoreDBClusterToPointInTimeOutput{DBCluster: new(r.describeCluster(c))}, err
}
