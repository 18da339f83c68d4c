// Package rdsserver is a stand-in of Amazon RDS and Aurora for tests: an HTTP server on the loopback that speaks the AWS Query protocol, so that an
// unmodified SDK client with a base endpoint works, and that keeps real databases. An RDS instance of the engine postgres is a real PostgreSQL whose WAL is
// archived, one of mysql or mariadb a real MariaDB with binary logs; a restore is real point-in-time recovery. A small STS (GetCallerIdentity, AssumeRole)
// answers on the same listener.
//
// It follows the RDS API reference, version 2014-10-31, as the SDK's model and doc comments have it, and the RDS and Aurora user guides' pages "Restoring
// a DB instance to a specified time", "Restoring a DB cluster to a specified time", "Restoring from a DB snapshot", "Sharing a DB snapshot", "Copying a DB
// snapshot", "Retaining automated backups", "Deleting a DB instance", "Viewing Amazon RDS DB instance status" and "Quotas and constraints for Amazon RDS";
// for STS its API reference, version 2011-06-15. It is strict: unknown actions, unknown parameters, parameters that it has no model of, missing ones and
// values out of range are errors, with the codes of the reference. Where that is silent the code is one that was seen in public reports of the real service
// (a restore time out of range: InvalidParameterValue, "The specified instance cannot be restored to a time later than …").
//
// # Time
//
// What AWS does in minutes, this server does Options.Factor times faster: how long a status lasts, and how far LatestRestorableTime lags (Lag, in steps
// of Step). Instants are not accelerated: they are those of the machine's clock, shifted by ClockOffset, in every answer, in the Date header, and in the
// restore times of requests. So at a factor of 100 the lag of five minutes is one of three real seconds. A restored database holds
//   - PostgreSQL: the transactions whose commit has a time (in microseconds, when the commit record was made) at or before the restore time;
//   - MariaDB: those whose last statement (COMMIT, or the statement itself) began in a second *before* the restore time's: binary logs have whole
//     seconds only. What is committed in the second of the restore time itself is not in it.
//
// A restore time with a fraction of a second is refused, since the service's is documented in whole seconds. The two rules agree for whatever wants to be sure:
// nothing is committed in the second before and in that of a restore point.
//
// A snapshot holds what was committed when CreateDBSnapshot was handled, or SnapshotDelay later. SnapshotDatabaseTime is the time of the last transaction in it.
//
// Where the documentation leaves a choice, the stricter one is taken: a restore time must lie *before* LatestRestorableTime; an instance that is backing-up
// can be reached, but neither changed nor snapshotted; a snapshot that is being created cannot be deleted; DescribeDBClusterAutomatedBackups filters by no
// status but retained, and finds by DBClusterIdentifier the backup of an existing cluster only: a deleted one's by DbClusterResourceId or by a filter.
//
// # What it does not show
//
//   - MySQL and Aurora themselves: engine "mysql" and "aurora-mysql" are MariaDB, and "aurora-postgresql" is PostgreSQL; a cluster's readers are its
//     writer. EngineVersion is what was asked for; SQL tells the truth.
//   - How long anything really takes, and when a maintenance window comes: what waits for one stays pending. A retention period does not run on by
//     itself (SetEarliest, Expire).
//   - Read replicas, Multi-AZ DB clusters, automated snapshots (an automated backup has none to list), DeleteDBInstanceAutomatedBackup and
//     DeleteDBClusterAutomatedBackup (Expire), tags of automated backups other than their source's, backup replication, Blue/Green, events, renaming, stop
//     and start, storage that fills up, I/O suspension, lazy loading.
//   - IAM database authentication, TLS, encryption (KMS keys are names that are checked), networks (subnet and security groups are names; every endpoint
//     is 127.0.0.1 and a free port, whatever Port asks for).
//   - The service's own transactions: RDS's heartbeats, which SnapshotDatabaseTime may count, are not imitated.
//   - Signatures: the access key must be known, and says whose account it is, but the signature is not verified; nor is policy, except by Deny.
//   - The exact words of most messages, and some codes that are nowhere documented.
package rdsserver
