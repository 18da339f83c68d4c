// Package dynamo is a stand-in for Amazon DynamoDB and for Application Auto Scaling of its tables: DynamoDB Local keeps the items, and a strict
// proxy before it adds what that lacks: continuous backups with real restore times, on-demand backups, the life cycle of tables, the settings that
// a restore loses, accounts, regions, limits, and faults on demand. Unmodified SDKs speak to it, with the endpoint overridden.
//
// It follows the Amazon DynamoDB API Reference (version 2012-08-10), the developer guide's chapters "Point-in-time recovery", "Using on-demand
// backup and restore", "Time to Live", "DynamoDB auto scaling" and "Quotas", and the Application Auto Scaling API Reference (2016-02-06), as quoted
// in the doc comments of aws-sdk-go-v2. Parameters that it does not know are refused, never ignored; unknown operations are
// UnknownOperationException.
//
// # Time
//
// The service's clock is the machine's plus an offset (SetClockOffset); it stamps commits, backups and the Date header. What takes time at AWS takes it
// here too, divided by Options.Factor: a table is CREATING for some seconds, LatestRestorableDateTime is five minutes behind, TagResource is allowed five
// times a second. Documented rates are multiplied by the factor. Only recovery periods, in days, are not accelerated: see AgePITR.
//
// # Point-in-time recovery
//
// Every write is forwarded under its table's lock and then stamped, so a commit time lies between the request and its answer, and the writes of one
// transaction have one commit time. A restore to T holds exactly what was committed at or before T, where T is cut to a whole second, as DynamoDB restores "to
// the state based on the selected date and time (day:hour:minute:second)".
//
// # On-demand backups
//
// CreateBackup at t surely holds what was committed by t minus a minute, surely nothing from t plus a minute on, and of each write between holds it or not by
// a seeded random choice: also one half of a transaction. The minute is accelerated by the factor unless Options.RealSkew. What the backup holds is
// decided when it becomes AVAILABLE.
//
// # What it does not show
//
// Signatures are not verified (the scope and the date are); nor are IAM permissions, resource policies, global tables, exports, imports, Kinesis, vector
// indexes, PartiQL (its writes would bypass the history) and reads of streams. TTL is a setting only: nothing is deleted by it. Reads are
// always consistent. Capacity is not consumed; throttling comes from Options and faults. The texts of messages are AWS's where they are known, else
// ours. Error precedence among several wrong parameters is not AWS's. Which calls a table refuses while it is CREATING or UPDATING is taken
// strictly: only what is documented to work does. Items are kept in the memory of the test, once per version.
package dynamo
