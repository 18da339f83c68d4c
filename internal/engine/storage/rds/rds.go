// Package rds is what the drivers aws_rds_instance and aws_rds_cluster share: names and tags of what they make, waiting, the service's clock,
// what a restored instance is told again after a restore, and the reading of ScalarDB's tables through SQL.
//
// # The instant
//
// Amazon RDS and Aurora restore by time to a whole second that must lie before the latest restorable time, which is about five minutes behind (RDS
// uploads its logs every five minutes). The clock that counts is AWS's; only the Date header of the API's answers shows it, so its bound never claims less
// than a second (package clock, Dated).
//
// # Whose is it
//
// Everything is made with the tags below, and its name holds the run id where the name is not the user's. Nothing is deleted unless it carries this run's id, or is
// the very object that was recorded (its immutable resource id).
package rds

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// The methods of both drivers.
const (
	MethodPITR     = "pitr"
	MethodSnapshot = "snapshot"
)

// Tags of everything that is made.
const (
	TagBackup  = "scalardb:backup"  // name of the backup
	TagRestore = "scalardb:restore" // name of the restore
	TagRunID   = "scalardb:run-id"
	TagStorage = "scalardb:storage"
	// TagDatabase is the database with ScalarDB's schemas, where it is not the first one of what was restored: a reader finds it there.
	TagDatabase = "scalardb:database"
)

// Keys of an Artifact's, a RestoredObject's and a StorageRecord's Extra.
const (
	ExtraAccount      = "account"
	ExtraRegion       = "region"
	ExtraIdentifier   = "identifier"
	ExtraARN          = "arn"
	ExtraResourceID   = "resource_id" // immutable
	ExtraRunID        = "run_id"
	ExtraRestorePoint = "restore_point"
	ExtraRequestedAt  = "requested_at"  // of a snapshot: earliest moment, by our clock
	ExtraDatabaseTime = "database_time" // of a snapshot: its last transaction
	ExtraProtected    = "deletion_protection"
	ExtraSettings     = "settings" // of the source, as JSON
	ExtraEngine       = "engine"
	ExtraDatabase     = "database"
)

// Place is where an API client acts.
type Place struct {
	Account, Partition, Region string
}

// String names the place in messages.
func (p Place) String() string { return "account " + p.Account + ", region " + p.Region }

// ARN is the name of a resource: kind is "db", "cluster", "snapshot" or "cluster-snapshot".
func (p Place) ARN(kind, name string) string {
	return "arn:" + p.Partition + ":rds:" + p.Region + ":" + p.Account + ":" + kind + ":" + name
}

// Same refuses a recorded place that is not the client's: what is not found there is not gone. Empty records match.
func (p Place) Same(extra map[string]string) error {
	if a := extra[ExtraAccount]; a != "" && a != p.Account {
		return fmt.Errorf("it lies in AWS account %s, and the credentials are of account %s: use credentials of that account", a, p.Account)
	}
	return nil
}

const (
	maxSlug = 40
	// maxIdentifier is the length of an identifier of a DB instance or cluster; that of a snapshot may be longer.
	maxIdentifier = 63
)

// Name is a legal identifier (letters, digits, single hyphens, a letter first) for what a run makes: prefix, the user's name as far as it is legal, a hash of
// all of it, the run id. It has at most 63 characters.
func Name(prefix, name, storage, runID string) string {
	sum := sha256.Sum256([]byte(name + "\x00" + storage))
	tail := "-" + hex.EncodeToString(sum[:4]) + "-" + runID
	room := min(maxSlug, maxIdentifier-len(prefix)-len(tail))
	var b strings.Builder
	for _, r := range strings.ToLower(name) {
		switch {
		case (r >= 'a' && r <= 'z') || (r >= '0' && r <= '9'):
			b.WriteRune(r)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
		if b.Len() == room-1 {
			break
		}
	}
	slug := strings.Trim(b.String(), "-")
	if slug != "" {
		slug = "-" + slug
	}
	return prefix + slug + tail
}

// CheckIdentifier says what is wrong with an identifier of a DB instance or cluster; empty when nothing is.
func CheckIdentifier(id string) string {
	legal := strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") == ""
	switch {
	case id == "" || len(id) > maxIdentifier:
		return fmt.Sprintf("An identifier has 1 to %d characters.", maxIdentifier)
	case !legal || strings.Contains(id, "--") || strings.HasSuffix(id, "-") || !isLetter(id[0]):
		return "An identifier has letters, digits and single hyphens, begins with a letter and does not end with a hyphen."
	}
	return ""
}

func isLetter(c byte) bool { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') }

// Tags are the SDK's, sorted, from a map.
func Tags(m map[string]string) []types.Tag {
	out := make([]types.Tag, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, types.Tag{Key: aws.String(k), Value: aws.String(m[k])})
	}
	return out
}

// TagsOf is the reverse of Tags.
func TagsOf(list []types.Tag) map[string]string {
	out := make(map[string]string, len(list))
	for _, t := range list {
		out[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	return out
}

// UserTags are those of a source that a restored copy may have: none of AWS's own, and none of ours, which say whose a thing is.
func UserTags(m map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range m {
		if !strings.HasPrefix(strings.ToLower(k), "aws:") && !strings.HasPrefix(k, "scalardb:") {
			out[k] = v
		}
	}
	return out
}

// Code says whether err is AWS's error of that code, with or without the suffix "Fault" that some codes have.
func Code(err error, codes ...string) bool {
	var e smithy.APIError
	if !errors.As(err, &e) {
		return false
	}
	return slices.Contains(codes, strings.TrimSuffix(e.ErrorCode(), "Fault"))
}

// Refused says whether err is AWS's definite refusal of a request: nothing was done, unless an earlier try of the same call came through.
func Refused(err error) bool {
	var e smithy.APIError
	if errors.As(err, &e) && e.ErrorFault() == smithy.FaultClient {
		return true
	}
	var r *smithyhttp.ResponseError
	return errors.As(err, &r) && r.HTTPStatusCode() >= 400 && r.HTTPStatusCode() < 500
}

// Explain adds what to do to errors that users meet. action is the IAM action, such as "rds:DescribeDBInstances".
func Explain(action string, err error) error {
	switch {
	case err == nil:
		return nil
	case Code(err, "AccessDenied", "AccessDeniedException", "UnauthorizedOperation"):
		return fmt.Errorf("%w; allow %s (the guide Storages has the whole policy)", err, action)
	case Code(err, "KMSKeyNotAccessible", "KMSKeyNotAccessibleFault"):
		return fmt.Errorf("%w; the KMS key must be enabled, and its policy must allow the credentials kms:DescribeKey and kms:CreateGrant", err)
	case Code(err, "InstanceQuotaExceeded", "StorageQuotaExceeded", "DBClusterQuotaExceeded", "SnapshotQuotaExceeded", "DBClusterSnapshotQuotaExceeded"):
		return fmt.Errorf("%w; delete what is not needed any more, or have the quota raised", err)
	}
	return err
}

// Quota says that a quota of the account (DescribeAccountAttributes) has no room for more; nil also where AWS does not name it.
func Quota(quotas []types.AccountQuota, name string, more int64, what string, place Place) error {
	for _, q := range quotas {
		if aws.ToString(q.AccountQuotaName) != name {
			continue
		}
		if used, most := aws.ToInt64(q.Used), aws.ToInt64(q.Max); used+more > most {
			return fmt.Errorf("%s has %d of %d %s: delete some that are not needed any more, or have the quota raised", place, used, most, what)
		}
	}
	return nil
}
