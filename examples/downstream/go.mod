module github.com/retriable-kafka/retriable-go/examples/downstream

go 1.26.0

replace (
	github.com/retriable-kafka/retriable-go => ../../
	github.com/retriable-kafka/retriable-go/plugin/breaker => ../../plugin/breaker
)

require (
	github.com/retriable-kafka/retriable-go v0.1.0
	github.com/retriable-kafka/retriable-go/plugin/breaker v0.0.0
)

require (
	github.com/klauspost/compress v1.20.3 // indirect
	github.com/pierrec/lz4/v4 v4.1.33 // indirect
	github.com/sony/gobreaker/v2 v2.4.0 // indirect
	github.com/twmb/franz-go v1.22.2 // indirect
	github.com/twmb/franz-go/pkg/kadm v1.19.0 // indirect
	github.com/twmb/franz-go/pkg/kfake v0.0.0-20260918054303-01f206a7e32c // indirect
	github.com/twmb/franz-go/pkg/kmsg v1.15.0 // indirect
	golang.org/x/time v0.16.0 // indirect
)
