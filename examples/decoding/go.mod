module github.com/retriable-kafka/retriable-go/examples/decoding

go 1.26.0

replace github.com/retriable-kafka/retriable-go => ../../

require (
	github.com/retriable-kafka/retriable-go v0.0.0
	github.com/twmb/franz-go v1.22.2
	github.com/twmb/franz-go/pkg/sr v1.8.0
	google.golang.org/protobuf v1.36.12
)

require (
	github.com/klauspost/compress v1.20.3 // indirect
	github.com/pierrec/lz4/v4 v4.1.33 // indirect
	github.com/twmb/franz-go/pkg/kadm v1.19.0 // indirect
	github.com/twmb/franz-go/pkg/kmsg v1.15.0 // indirect
	golang.org/x/time v0.16.0 // indirect
)
