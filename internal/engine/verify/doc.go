// Package verify proves from its data that a system of ScalarDB storages is transactionally consistent, by four rules:
// "in flight", "late", "atomic" and "complete" (see Run). It knows no database: a Storage does the work, with aggregate queries where it can.
//
// # What it cannot prove
//
//   - A lost write that left no trace. If a storage holds the record's older version, committed by an older transaction, nothing in it says that a newer one
//     is missing. Rule 4 narrows this: the newest commit, the row counts and the newest coordinator entry of the window must all be there.
//   - That old records are right where the coordinator says nothing: one-phase commits, removed entries, imported rows ("unverifiable").
//   - Anything about tables without transaction columns beyond their row counts ("not covered"), and about the values of any column.
//   - A cut of two storages that differ by less than the transactions' own traces: with ServerClockBound b, a write stamped within b after the window opened is not
//     late. It shows by rules 1 and 3 if its transaction was cut in half, and by rule 4.
//   - What happened after the copies were taken. Verify a restored storage before ScalarDB opens it: reading through ScalarDB recovers leftovers lazily, and the
//     ABORTED entries and roll-forwards that it then writes are late by rule 2.
//
// # What it refuses although it may be right
//
// A client that crashed within Drain + 15 s + ServerClockBound before the window leaves a PREPARED record that looks like one in flight. A storage with
// asynchronous commit, undeclared, looks cut in half, and so does a record that ScalarDB failed to mark, if its transaction was decided so shortly before the window that
// no clock tells it from one that was not paused. Take the backup again, or declare the storage (Request.AsyncCommit).
//
// A report that passes says that no rule found a violation: the window and its witnesses, recorded when the backup was taken, are the other half of the proof.
package verify
