// Package retriabletest tests handlers with everything around them: a Kafka in a test, the real consumer on it, and a crash in between.
//
//	func TestAnOrderIsChargedOnceThoughTheServiceCrashes(t *testing.T) {
//		retriabletest.Run(t, func(t *testing.T, k *retriabletest.Kafka) {
//			k.Topic("orders", 1)
//			service := k.Start("billing", retriable.Topic("orders", handler, retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead")))
//			k.Produce("orders", "customer-7", "coffee")
//			service.Await(retriabletest.Retried(1)) // its first attempt failed
//			service.Crash()
//			service.Restart()
//			service.Await(retriabletest.Committed()) // nothing is left to do
//			// … and now look at what the handler did.
//		})
//	}
//
// [Run] makes a bubble of testing/synctest with a broker in it, kfake, over a network of its own. Everything speaks the real protocol; only time
// is fake: it passes when all goroutines wait, so that an hour's backoff takes less than a second. time.Sleep is how a test lets time pass.
// The bubble also fails the test if a goroutine is left behind.
//
// To know:
//
//   - Make clients, tickers and the like of your own inside the bubble, and end them before it ends.
//   - What waits for something outside the bubble, a mutex or a socket stops the bubble's time. A handler that talks to a real
//     server does not work here; give it a stand-in.
//   - Consumers join KIP-848 groups (see [Kafka.Members]). In a classic group a commit may wait for a parked join on a mutex inside kgo, and then
//     the test hangs, with three members or more: such tests need to be built with -tags synctests, which gives kgo other mutexes.
//   - kfake is no Kafka: it has no disks, no replication and no load, and it does not bound a commit's metadata. Moving leaders
//     ([kfake.Cluster.MoveTopicPartition] and the like) it tells a consumer that records were lost where they were not.
//
// Nothing that is shipped should import this package: it brings a broker and package testing along.
package retriabletest
