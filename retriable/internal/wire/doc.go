// Package wire reads and writes what the library puts on Kafka: the headers of
// retry copies and dead letters, and the chunks of messages too large for one
// record. It is pure: no client, no clock, no goroutine, and it keeps the
// memory it uses proportional to what it was given.
//
// The headers named retriable_kafka_* are those of the Python client
// retriable-kafka-client, in its encoding: unsigned integers of 8 bytes, big
// endian. What that client cannot say goes into text headers of our own,
// retriable_*, and on dead letters also into those of KIP-1191,
// __dlq.errors.*. Of several headers of one name the first counts, here and
// there.
//
// Nothing that is read is trusted (I12). A header of ours that is not exactly
// what a writer of this format writes is ignored and counted; what it may claim
// (a number of attempts, a due time, a number of chunks) is bounded here by
// what the format can say and by the caller by what its options allow.
package wire
