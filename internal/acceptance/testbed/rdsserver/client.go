package rdsserver

import (
	"context"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// Config is the SDK's, for this server: by an access key, in a region; empty: AccessKey and Region.
func (s *Server) Config(accessKey, region string) aws.Config {
	if accessKey == "" {
		accessKey = AccessKey
	}
	if region == "" {
		region = Region
	}
	return aws.Config{Region: region, BaseEndpoint: &s.URL, Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: accessKey, SecretAccessKey: "anything"}, nil
	})}
}

// RDS is the SDK's client of this server, by AccessKey and in Region.
func (s *Server) RDS() *rds.Client { return rds.NewFromConfig(s.Config("", "")) }

// STS is likewise.
func (s *Server) STS() *sts.Client { return sts.NewFromConfig(s.Config("", "")) }

// poll is how often Seed and Wait ask.
const poll = 10 * time.Millisecond

// Seed makes an instance, and waits until it is available, with a backup to go back to if it has a retention period.
func (s *Server) Seed(ctx context.Context, in *rds.CreateDBInstanceInput) (*types.DBInstance, error) {
	if _, err := s.RDS().CreateDBInstance(ctx, in); err != nil {
		return nil, err
	}
	return s.WaitInstance(ctx, *in.DBInstanceIdentifier)
}

// SeedCluster makes a cluster with one instance, whose name is the cluster's and "-1", and waits until both are available.
func (s *Server) SeedCluster(ctx context.Context, in *rds.CreateDBClusterInput) (*types.DBCluster, error) {
	client := s.RDS()
	if _, err := client.CreateDBCluster(ctx, in); err != nil {
		return nil, err
	}
	if _, err := s.WaitCluster(ctx, *in.DBClusterIdentifier); err != nil {
		return nil, err
	}
	member := *in.DBClusterIdentifier + "-1"
	if _, err := s.Seed(ctx, &rds.CreateDBInstanceInput{DBInstanceIdentifier: &member, DBClusterIdentifier: in.DBClusterIdentifier, Engine: in.Engine,
		DBInstanceClass: new("db.r6g.large")}); err != nil {
		return nil, err
	}
	return s.WaitCluster(ctx, *in.DBClusterIdentifier)
}

// WaitInstance waits until an instance is available.
func (s *Server) WaitInstance(ctx context.Context, id string) (*types.DBInstance, error) {
	for client := s.RDS(); ; {
		out, err := client.DescribeDBInstances(ctx, &rds.DescribeDBInstancesInput{DBInstanceIdentifier: &id})
		if err != nil {
			return nil, err
		}
		switch i := &out.DBInstances[0]; *i.DBInstanceStatus {
		case available:
			return i, nil
		case "failed":
			return nil, fmt.Errorf("the instance %s failed: %v", id, s.Errors())
		}
		if wait(ctx, poll); ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

// WaitCluster waits until a cluster is available.
func (s *Server) WaitCluster(ctx context.Context, id string) (*types.DBCluster, error) {
	for client := s.RDS(); ; {
		out, err := client.DescribeDBClusters(ctx, &rds.DescribeDBClustersInput{DBClusterIdentifier: &id})
		if err != nil {
			return nil, err
		}
		if c := &out.DBClusters[0]; *c.Status == available {
			return c, nil
		}
		if wait(ctx, poll); ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}
