// Package browser tests the page of retriable/page as a person meets it: in headless Chromium, over a consumer at work on a Kafka inside the process.
// It has no code but its tests, and a module of its own for what they depend on.
//
//	go test ./integration/browser              # wants Chromium; RETRIABLE_REQUIRE_CHROMIUM=1 fails without one
//	go test ./integration/browser -screenshot  # and writes docs/page.png
package browser
