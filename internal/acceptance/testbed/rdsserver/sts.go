package rdsserver

import (
	"crypto/rand"
	"net/http"
	"regexp"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/aws/smithy-go"
)

var roleARN = regexp.MustCompile(`^arn:aws:iam::(\d{12}):role/([\w+=,.@/-]+)$`)

// AddRole makes a role that everybody may assume.
func (s *Server) AddRole(arn string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.roles[arn] = true
}

func (r *request) callerIdentity(*sts.GetCallerIdentityInput) (smithy.Serializable, error) {
	return &sts.GetCallerIdentityOutput{Account: &r.account, Arn: &r.caller.arn, UserId: new("AIDACKCEVSQ6C2EXAMPLE")}, nil
}

func (r *request) assumeRole(in *sts.AssumeRoleInput) (smithy.Serializable, error) {
	m := roleARN.FindStringSubmatch(*in.RoleArn)
	if m == nil {
		return nil, errorf("ValidationError", http.StatusBadRequest, "%s is invalid", *in.RoleArn)
	}
	if !r.roles[*in.RoleArn] {
		return nil, errorf("AccessDenied", http.StatusForbidden, "User: %s is not authorized to perform: sts:AssumeRole on resource: %s", r.caller.arn, *in.RoleArn)
	}
	duration := time.Hour
	if d := in.DurationSeconds; d != nil {
		if *d < 900 || *d > 43200 {
			return nil, errorf("ValidationError", http.StatusBadRequest, "DurationSeconds must be between 900 and 43200")
		}
		duration = time.Duration(*d) * time.Second
	}
	id, token := "ASIA"+rand.Text()[:16], rand.Text()
	arn := "arn:aws:sts::" + m[1] + ":assumed-role/" + m[2] + "/" + *in.RoleSessionName
	r.accounts[id] = identity{account: m[1], arn: arn, token: token}
	return &sts.AssumeRoleOutput{
		AssumedRoleUser: &types.AssumedRoleUser{Arn: &arn, AssumedRoleId: new("AROA3XFRBF535PLBIFPI4:" + *in.RoleSessionName)},
		Credentials:     &types.Credentials{AccessKeyId: &id, SecretAccessKey: new(rand.Text()), SessionToken: &token, Expiration: r.stamp(r.now.Add(duration))},
	}, nil
}
