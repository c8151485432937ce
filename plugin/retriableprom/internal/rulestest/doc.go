// Package rulestest holds the alert rules and the dashboard of docs/ to the metrics that the collector exports, with Prometheus' own parser. It is a
// module of its own and not part of go.work, so that nobody else needs what that depends on.
package rulestest
