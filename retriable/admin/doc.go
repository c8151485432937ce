// Package admin looks at consumers, waiting retries and dead letters from outside, without the process that consumes, and sends dead letters
// back. The command line and the page are thin faces on it.
//
// Dead letters: [Client.List] reads them, [Client.Summary] counts them by reason, [Client.Replay] sends them back into a retry topic for
// one group, each of them once, and [Client.Purge] deletes them. Groups: [Client.Status] tells where a group stands, [Client.Waiting] what
// waits in its retry topics and until when, [Client.CheckTopics] whether its topics can hold what they must, and [Client.Skip] moves
// a stopped group past what cannot be read.
//
// Nothing that is read is trusted: headers, chunks and commit metadata that are not as they should be are at worst ignored.
package admin
