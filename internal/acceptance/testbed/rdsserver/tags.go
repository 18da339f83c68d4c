package rdsserver

import (
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"
	"github.com/aws/smithy-go"
)

// tagsOf finds the tags of a resource of this account and region by its ARN.
func (r *request) tagsOf(arn string) (*[]types.Tag, error) {
	parts := strings.SplitN(arn, ":", 7)
	if len(parts) != 7 || parts[0] != "arn" || parts[2] != "rds" {
		return nil, invalidValue("The specified resource name does not match an RDS resource in this region.")
	}
	if parts[3] != r.region || parts[4] != r.account {
		return nil, invalidValue("The specified resource name does not match an RDS resource in this region.")
	}
	switch parts[5] {
	case "db":
		i, err := r.instance(parts[6])
		if err != nil {
			return nil, err
		}
		return &i.d.TagList, nil
	case "cluster":
		c, err := r.cluster(parts[6])
		if err != nil {
			return nil, err
		}
		return &c.d.TagList, nil
	case "snapshot":
		x, err := r.snapshot(parts[6])
		if err != nil {
			return nil, err
		}
		return x.tags(), nil
	case "cluster-snapshot":
		x, err := r.clusterSnapshot(parts[6])
		if err != nil {
			return nil, err
		}
		return x.tags(), nil
	}
	return nil, invalidValue("this stand-in has no model of tags of a %s", parts[5])
}

func checkTags(tags []types.Tag) error {
	for _, t := range tags {
		if deref(t.Key) == "" || len(*t.Key) > 128 || strings.HasPrefix(*t.Key, "aws:") || len(deref(t.Value)) > 256 {
			return invalidValue("Invalid tag: %s", deref(t.Key))
		}
	}
	return nil
}

func (r *request) addTags(in *rds.AddTagsToResourceInput) (smithy.Serializable, error) {
	tags, err := r.tagsOf(*in.ResourceName)
	if err != nil {
		return nil, err
	}
	if err := checkTags(in.Tags); err != nil {
		return nil, err
	}
	all := merge(*tags, in.Tags)
	if len(all) > 50 {
		return nil, invalidValue("A resource can have up to 50 tags")
	}
	*tags = all
	return nil, nil
}

func (r *request) removeTags(in *rds.RemoveTagsFromResourceInput) (smithy.Serializable, error) {
	tags, err := r.tagsOf(*in.ResourceName)
	if err != nil {
		return nil, err
	}
	*tags = slices.DeleteFunc(slices.Clone(*tags), func(t types.Tag) bool { return slices.Contains(in.TagKeys, *t.Key) })
	return nil, nil
}

func (r *request) listTags(in *rds.ListTagsForResourceInput) (smithy.Serializable, error) {
	tags, err := r.tagsOf(*in.ResourceName)
	if err != nil {
		return nil, err
	}
	return &rds.ListTagsForResourceOutput{TagList: *tags}, nil
}

// Item is one thing that exists.
type Item struct {
	Kind            string // "instance", "cluster", "snapshot", "cluster snapshot", "retained backup" (of an instance), "retained cluster backup"
	Account, Region string
	Identifier      string
	ARN             string
	ResourceID      string // of a snapshot: its source's
	Status          string
	Tags            map[string]string
}

// Inventory is everything that exists now, in a fixed order: also what is being made or deleted. Automated backups of what exists are not in it.
func (s *Server) Inventory() []Item {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.options.Now()
	s.sweep(now)
	var all []Item
	add := func(kind string, k key, arn, id, status string, tags []types.Tag) {
		all = append(all, Item{Kind: kind, Account: k.account, Region: k.region, Identifier: k.id, ARN: arn, ResourceID: id, Status: status, Tags: tagMap(tags)})
	}
	for k, i := range s.instances {
		status, _ := s.status(&i.life, now)
		add("instance", k, *i.d.DBInstanceArn, *i.d.DbiResourceId, status, i.d.TagList)
	}
	for k, c := range s.clusters {
		status, _ := s.status(&c.life, now)
		add("cluster", k, *c.d.DBClusterArn, *c.d.DbClusterResourceId, status, c.d.TagList)
	}
	for k, x := range s.snapshots {
		status, _ := s.status(&x.life, now)
		add("snapshot", k, x.arn(), *x.d.DbiResourceId, status, x.d.TagList)
	}
	for k, x := range s.clusterSnap {
		status, _ := s.status(&x.life, now)
		add("cluster snapshot", k, x.arn(), *x.c.DbClusterResourceId, status, x.c.TagList)
	}
	for k, b := range s.backups {
		add("retained backup", k, "", *b.d.DbiResourceId, "retained", b.d.TagList)
	}
	for k, b := range s.clusterKept {
		add("retained cluster backup", k, "", *b.d.DbClusterResourceId, "retained", b.d.TagList)
	}
	slices.SortFunc(all, func(a, b Item) int {
		return strings.Compare(a.Kind+a.Account+a.Region+a.Identifier, b.Kind+b.Account+b.Region+b.Identifier)
	})
	return all
}
