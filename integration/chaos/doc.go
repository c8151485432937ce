// Package chaos lets processes and brokers of a real Kafka misbehave at random and then accounts for every record.
//
// An [Arena] is a consumer group: its topics, a steady producer, and members that are processes of their own (this very program, started
// again; see [Worker]). Each member keeps a [Ledger], a file with one line for each handler's start and end and for each hook, which survives
// SIGKILL. A [Plan] says what goes wrong and when; it is a function of a seed alone. When all is healed and the group has committed to the end
// of its topics, [Check] judges, from the ledgers and from what lies in the topics and nothing else:
//
//   - each record is handled, or a dead letter, or dropped by a verdict, after exactly the attempts that its number foretells;
//   - whatever was delivered again, or copied twice, is explained by a fault: the member before died, lost the partition, exceeded its drain, or
//     had its last commit refused, and nothing that an accepted commit told was delivered again;
//   - no commit passed a record that had not ended, none came from a former owner, no key ran beside itself, none came early, none was changed.
//
// There is no tolerance in it. A run that did not meet what it is about, such as a death amid unfinished work, is void and fails too.
package chaos
