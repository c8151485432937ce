// Package retriable consumes Kafka records that must not be lost, must not block the others and must be tried again later.
//
// A [Consumer] is a member of an ordinary consumer group. It handles records in parallel, in order by key; it commits only
// what is finished without a gap; a record whose handler fails goes to a retry topic, with headers that say which attempt comes
// next and when, and the same consumer reads that topic alongside and holds what is not yet due without holding up the
// rest; what cannot be handled ends in a dead-letter topic. No copy is believed written before the broker has acked it.
//
//	c, err := retriable.New("billing", retriable.Brokers("localhost:9092"),
//		retriable.Topic("orders", retriable.JSON(charge),
//			retriable.RetryTopic("orders.retry"),
//			retriable.DeadLetterTopic("orders.dead")))
//	if err != nil {
//		log.Fatal(err)
//	}
//	if err := c.Run(ctx); err != nil {
//		log.Fatal(err)
//	}
//
// A [Producer] writes records, also those that are too large for one.
//
// Delivery is at least once. What is delivered again after which event is stated in docs/delivery.md; the design, with its
// numbered invariants (I1 to I13, which the code cites), in docs/design.md.
package retriable
