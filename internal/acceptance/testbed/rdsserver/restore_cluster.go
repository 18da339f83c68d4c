package rdsserver

import (
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"
	"github.com/aws/smithy-go"
)

// clusterSource is what a point-in-time restore of a cluster goes back to.
type clusterSource struct {
	d                types.DBCluster
	earliest, latest time.Time
	retained         bool // the cluster was deleted
	cut              func() (image, error)
}

// clusterSource finds an existing cluster, or the retained backup of a deleted one, which only a resource ID names.
func (r *request) clusterSource(in *rds.RestoreDBClusterToPointInTimeInput) (clusterSource, error) {
	if (in.SourceDBClusterIdentifier == nil) == (in.SourceDbClusterResourceId == nil) {
		return clusterSource{}, invalidCombination("Exactly one of SourceDBClusterIdentifier and SourceDbClusterResourceId must be specified")
	}
	for _, c := range r.clusters {
		if c.key.account != r.account || c.key.region != r.region || (deref(in.SourceDbClusterResourceId) != *c.d.DbClusterResourceId &&
			!strings.EqualFold(deref(in.SourceDBClusterIdentifier), c.key.id) && deref(in.SourceDBClusterIdentifier) != *c.d.DBClusterArn) {
			continue
		}
		if status, _ := r.status(&c.life, r.now); status == creating || status == deleting {
			return clusterSource{}, fault(&types.InvalidDBClusterStateFault{}, "DB cluster %s is not in a valid state for a restore: %s", c.key.id, status)
		}
		return clusterSource{d: c.d, earliest: c.earliest, latest: r.latest(c.earliest, r.now), cut: func() (image, error) {
			from, _, err := c.data.cut(r.ctx)
			return from, err
		}}, nil
	}
	for _, b := range r.clusterKept {
		if b.key.account == r.account && b.key.region == r.region && deref(in.SourceDbClusterResourceId) == *b.d.DbClusterResourceId {
			return clusterSource{d: b.d, earliest: b.earliest, latest: b.latest, retained: true, cut: func() (image, error) { return b.image, nil }}, nil
		}
	}
	return clusterSource{}, fault(&types.DBClusterNotFoundFault{}, "The source cluster could not be found or cannot be accessed: %s",
		deref(or(in.SourceDBClusterIdentifier, in.SourceDbClusterResourceId)))
}

func (r *request) restoreClusterToTime(in *rds.RestoreDBClusterToPointInTimeInput) (smithy.Serializable, error) {
	var set clusterSettings
	if err := take(&set, in, "DBClusterIdentifier", "SourceDBClusterIdentifier", "SourceDbClusterResourceId", "RestoreToTime", "UseLatestRestorableTime",
		"RestoreType"); err != nil {
		return nil, err
	}
	source, err := r.clusterSource(in)
	if err != nil {
		return nil, err
	}
	kind := deref(or(in.RestoreType, new("full-copy")))
	clone := kind == "copy-on-write"
	var at time.Time
	switch {
	case kind != "full-copy" && !clone:
		return nil, invalidValue("Invalid RestoreType: %s. Valid values: full-copy, copy-on-write", kind)
	case clone && in.RestoreToTime != nil:
		return nil, invalidCombination("RestoreToTime can't be specified when RestoreType is copy-on-write")
	case clone && source.retained:
		return nil, invalidCombination("RestoreType can't be copy-on-write when the source is a retained automated backup: there is no volume to clone")
	case !clone || !deref(in.UseLatestRestorableTime):
		if at, err = r.restoreTime("cluster", in.RestoreToTime, in.UseLatestRestorableTime, source.earliest, source.latest,
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
	from, err := source.cut()
	if err != nil {
		return nil, err
	}
	if !clone { // a clone has what the source has now
		from = from.at(at)
	}
	err = r.birthCluster(c, from)
	return &rds.RestoreDBClusterToPointInTimeOutput{DBCluster: new(r.describeCluster(c))}, err
}
