//go:build acceptance

package moto

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	dynamotypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/rds"

	shared "github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/rds"
)

// wrong is what moto 5.2.5 lacks or answers wrongly, as far as the flows meet it, with what helps them over it. Where moto has learnt it, the test says so, and the
// entry has to go.
var wrong = []struct {
	operation, why string
	stopgap        Stopgap
	// still asks moto, with nothing between, whether it is still so. Source instance and cluster are there.
	still func(t *testing.T, d direct) bool
}{
	{
		"rds.DescribeAccountAttributes", "moto has no such operation",
		Stopgap{Answer: empty("DescribeAccountAttributes", "AccountQuotas")},
		func(t *testing.T, d direct) bool {
			_, err := d.rds.DescribeAccountAttributes(t.Context(), &rds.DescribeAccountAttributesInput{})
			return err != nil
		},
	},
	{
		"rds.DescribeDBClusterAutomatedBackups", "moto has no such operation",
		Stopgap{Answer: empty("DescribeDBClusterAutomatedBackups", "DBClusterAutomatedBackups")},
		func(t *testing.T, d direct) bool {
			_, err := d.rds.DescribeDBClusterAutomatedBackups(t.Context(), &rds.DescribeDBClusterAutomatedBackupsInput{})
			return err != nil
		},
	},
	{
		"rds.DescribeDBSnapshots", "moto's snapshots have no SnapshotDatabaseTime, without which a snapshot proves nothing: that of the snapshot's creation, less a minute, is put in",
		Stopgap{Response: databaseTime},
		func(t *testing.T, d direct) bool {
			out, err := d.rds.DescribeDBSnapshots(t.Context(), &rds.DescribeDBSnapshotsInput{DBInstanceIdentifier: aws.String(sourceInstance)})
			must(t, err)
			return len(out.DBSnapshots) > 0 && out.DBSnapshots[0].SnapshotDatabaseTime == nil
		},
	},
	{
		"rds.RestoreDBInstanceToPointInTime", "moto takes no SourceDbiResourceId, and restores whichever instance is the first: the identifier is added",
		Stopgap{Request: with("SourceDbiResourceId", "SourceDBInstanceIdentifier", sourceInstance)},
		func(t *testing.T, d direct) bool {
			_, err := d.rds.RestoreDBInstanceToPointInTime(t.Context(), &rds.RestoreDBInstanceToPointInTimeInput{SourceDbiResourceId: aws.String("db-NOSUCH"), TargetDBInstanceIdentifier: aws.String("probe"),
				UseLatestRestorableTime: aws.Bool(true)})
			if err != nil {
				return !shared.Code(err, "DBInstanceNotFound") // the first one may be one that it does not restore
			}
			_, err = d.rds.ModifyDBInstance(t.Context(), &rds.ModifyDBInstanceInput{DBInstanceIdentifier: aws.String("probe"), DeletionProtection: aws.Bool(false)})
			must(t, err)
			_, err = d.rds.DeleteDBInstance(t.Context(), &rds.DeleteDBInstanceInput{DBInstanceIdentifier: aws.String("probe"), SkipFinalSnapshot: aws.Bool(true)})
			must(t, err)
			return true
		},
	},
	{
		"rds.RestoreDBClusterToPointInTime", "moto takes no SourceDbClusterResourceId, and fails without an identifier: it is added",
		Stopgap{Request: with("SourceDbClusterResourceId", "SourceDBClusterIdentifier", sourceCluster)},
		func(t *testing.T, d direct) bool {
			out, err := d.rds.DescribeDBClusters(t.Context(), &rds.DescribeDBClustersInput{DBClusterIdentifier: aws.String(sourceCluster)})
			must(t, err)
			_, err = d.rds.RestoreDBClusterToPointInTime(t.Context(), &rds.RestoreDBClusterToPointInTimeInput{SourceDbClusterResourceId: out.DBClusters[0].DbClusterResourceId, DBClusterIdentifier: aws.String("probe"),
				UseLatestRestorableTime: aws.Bool(true)})
			return err != nil
		},
	},
	{
		"dynamodb.DescribeContinuousBackups", "moto's latest restorable time stays where point-in-time recovery was enabled: now is put in",
		Stopgap{Response: latestNow},
		func(t *testing.T, d direct) bool {
			latest := func() time.Time {
				out, err := d.dynamo.DescribeContinuousBackups(t.Context(), &dynamodb.DescribeContinuousBackupsInput{TableName: aws.String(sourceEvents)})
				must(t, err)
				p := out.ContinuousBackupsDescription.PointInTimeRecoveryDescription
				return aws.ToTime(p.LatestRestorableDateTime)
			}
			return time.Since(latest()) > time.Second
		},
	},
	{
		"dynamodb.DescribeTable", "moto's tables have no TableId: one is made of name and time",
		Stopgap{Response: tableID("Table")},
		func(t *testing.T, d direct) bool {
			out, err := d.dynamo.DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: aws.String(sourceEvents)})
			must(t, err)
			return aws.ToString(out.Table.TableId) == ""
		},
	},
	{
		"dynamodb.RestoreTableToPointInTime", "as for DescribeTable; and moto restores all indexes, whatever GlobalSecondaryIndexOverride says: the flow looks for the renamed one only",
		Stopgap{Response: tableID("TableDescription")}, restoresIndexes,
	},
	{
		"dynamodb.RestoreTableFromBackup", "as for RestoreTableToPointInTime",
		Stopgap{Response: tableID("TableDescription")}, restoresIndexes,
	},
}

// restoresIndexes restores a table without its indexes.
func restoresIndexes(t *testing.T, d direct) bool {
	_, err := d.dynamo.RestoreTableToPointInTime(t.Context(), &dynamodb.RestoreTableToPointInTimeInput{SourceTableName: aws.String(sourceEvents), TargetTableName: aws.String("probe"),
		UseLatestRestorableTime: aws.Bool(true), GlobalSecondaryIndexOverride: []dynamotypes.GlobalSecondaryIndex{}})
	must(t, err)
	out, err := d.dynamo.DeleteTable(t.Context(), &dynamodb.DeleteTableInput{TableName: aws.String("probe")})
	must(t, err)
	return len(out.TableDescription.GlobalSecondaryIndexes) > 0
}

// stopgaps are those of wrong.
var stopgaps = func() map[string]Stopgap {
	out := map[string]Stopgap{}
	for _, w := range wrong {
		out[w.operation] = w.stopgap
	}
	return out
}()

// empty is the answer of RDS with an empty list.
func empty(operation, list string) func([]byte) []byte {
	return func([]byte) []byte {
		return []byte(`<` + operation + `Response xmlns="http://rds.amazonaws.com/doc/2014-10-31/"><` + operation + `Result><` + list + `/></` + operation + `Result>` +
			`<ResponseMetadata><RequestId>x</RequestId></ResponseMetadata></` + operation + `Response>`)
	}
}

// with adds a parameter to a request that has another.
func with(there, name, value string) func([]byte) []byte {
	return func(body []byte) []byte {
		form, err := url.ParseQuery(string(body))
		if err != nil || !form.Has(there) {
			return body
		}
		form.Del(there)
		form.Set(name, value)
		return []byte(form.Encode())
	}
}

var created = regexp.MustCompile(`<SnapshotCreateTime>([^<]+)</SnapshotCreateTime>`)

func databaseTime(_, answer []byte) []byte {
	return created.ReplaceAllFunc(answer, func(found []byte) []byte {
		at, err := time.Parse(time.RFC3339, string(created.FindSubmatch(found)[1]))
		if err != nil {
			return found
		}
		return append(bytes.Clone(found), "<SnapshotDatabaseTime>"+at.Add(-time.Minute).Format(time.RFC3339)+"</SnapshotDatabaseTime>"...)
	})
}

// document changes a document of DynamoDB's: change gets the object under a name, and says whether it did anything.
func document(answer []byte, name string, change func(object map[string]any) bool) []byte {
	d := map[string]map[string]any{}
	if json.Unmarshal(answer, &d) != nil || !change(d[name]) {
		return answer
	}
	changed, err := json.Marshal(d)
	if err != nil {
		return answer
	}
	return changed
}

func latestNow(_, answer []byte) []byte {
	return document(answer, "ContinuousBackupsDescription", func(d map[string]any) bool {
		p, _ := d["PointInTimeRecoveryDescription"].(map[string]any)
		if p["PointInTimeRecoveryStatus"] != string(dynamotypes.PointInTimeRecoveryStatusEnabled) {
			return false
		}
		p["LatestRestorableDateTime"] = float64(time.Now().UnixMilli()) / 1000
		return true
	})
}

func tableID(name string) func(_, answer []byte) []byte {
	return func(_, answer []byte) []byte {
		return document(answer, name, func(d map[string]any) bool {
			if d == nil || d["TableId"] != nil {
				return false
			}
			d["TableId"] = uuid(fmt.Sprint(d["TableName"], d["CreationDateTime"]))
			return true
		})
	}
}

// uuid has the shape of one.
func uuid(of string) string {
	h := sha256.Sum256([]byte(of))
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

// sourceEvents is a table with point-in-time recovery.
const sourceEvents = "shop.events"
