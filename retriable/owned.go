package retriable

import (
	"reflect"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// clientFacts is what the library must know of the kgo client before there is one.
type clientFacts struct {
	rebalance  time.Duration
	heartbeat  time.Duration
	serverSide bool
	seeds      []string
	instance   string
	hooked     bool // by the user, where records are read: they may have contexts of their own
	maxWrite   int  // of a record, as the largest request can carry it
}

// requestRoom is what a produce request has at most beside the one batch: the topic's name and the client's id.
const requestRoom = 64 << 10

type ownedOption struct {
	name string
	opt  any
}

// ownedOptions are those of kgo that the library sets itself.
var ownedOptions = []ownedOption{
	{"ConsumerGroup", kgo.ConsumerGroup},
	{"ConsumeTopics", kgo.ConsumeTopics},
	{"ConsumeRegex", kgo.ConsumeRegex},
	{"ConsumeExcludeTopics", kgo.ConsumeExcludeTopics},
	{"ConsumePartitions", kgo.ConsumePartitions},
	{"ConsumeStartOffset", kgo.ConsumeStartOffset},
	{"ConsumeResetOffset", kgo.ConsumeResetOffset},
	{"DisableAutoCommit", kgo.DisableAutoCommit},
	{"AutoCommitMarks", kgo.AutoCommitMarks},
	{"AutoCommitInterval", kgo.AutoCommitInterval},
	{"AutoCommitCallback", kgo.AutoCommitCallback},
	{"GreedyAutoCommit", kgo.GreedyAutoCommit},
	{"OnPartitionsAssigned", kgo.OnPartitionsAssigned},
	{"OnPartitionsRevoked", kgo.OnPartitionsRevoked},
	{"OnPartitionsLost", kgo.OnPartitionsLost},
	{"OnPartitionsCallbackBlocked", kgo.OnPartitionsCallbackBlocked},
	{"OnOffsetsFetched", kgo.OnOffsetsFetched},
	{"AdjustFetchOffsetsFn", kgo.AdjustFetchOffsetsFn},
	{"BlockRebalanceOnPoll", kgo.BlockRebalanceOnPoll},
	{"RequiredAcks", kgo.RequiredAcks},
	{"DisableIdempotentWrite", kgo.DisableIdempotentWrite},
	{"AllowIdempotentProduceCancellation", kgo.AllowIdempotentProduceCancellation},
	{"TransactionalID", kgo.TransactionalID},
	{"RecordPartitioner", kgo.RecordPartitioner},
	{"ManualFlushing", kgo.ManualFlushing},
	{"WithPools", kgo.WithPools},
	{"ShareGroup", kgo.ShareGroup},
	{"KeepControlRecords", kgo.KeepControlRecords},
	{"DefaultProduceTopic", kgo.DefaultProduceTopic},
	{"DefaultProduceTopicAlways", kgo.DefaultProduceTopicAlways},
	{"GroupProtocol", kgo.GroupProtocol},
	{"WithContext", kgo.WithContext},
	{"ProducerBatchMaxBytes", kgo.ProducerBatchMaxBytes},
	{"ProducerBatchMaxBytesFn", kgo.ProducerBatchMaxBytesFn},
}

// checkClient refuses what the library owns and reads back what it must know. The probes have no group and no topics: they
// touch no network.
func (c *clientConfig) checkClient(ck *checker) *clientFacts {
	opts := c.kafka
	if len(c.brokers) > 0 {
		opts = append([]kgo.Opt{kgo.SeedBrokers(c.brokers...)}, opts...)
	}
	if slices.Contains(opts, nil) {
		ck.bad("Kafka: an option is nil")
		return nil
	}
	plain, err := kgo.NewClient()
	if err != nil {
		ck.bad("Kafka: %v", err)
		return nil
	}
	defer plain.Close()
	owned := map[string]bool{}
	opts = slices.DeleteFunc(slices.Clone(opts), func(o kgo.Opt) bool {
		name := ownedName(o)
		owned[name] = true
		return name != ""
	})
	probe, err := kgo.NewClient(opts...)
	for _, o := range ownedOptions {
		if owned[o.name] || err == nil && !sameOption(plain.OptValue(o.opt), probe.OptValue(o.opt)) {
			ck.bad("Kafka(kgo.%s): the library sets it itself", o.name)
		}
	}
	if err != nil {
		ck.bad("Kafka, Brokers(%q): %v", c.brokers, err)
		return nil
	}
	defer probe.Close()
	f := &clientFacts{
		rebalance:  probe.OptValue(kgo.RebalanceTimeout).(time.Duration),  //nolint:forcetypeassert // kgo's own type
		heartbeat:  probe.OptValue(kgo.HeartbeatInterval).(time.Duration), //nolint:forcetypeassert // kgo's own type
		serverSide: probe.OptValue(kgo.ServerSideBalancer) == any(true),
	}
	f.seeds, _ = probe.OptValue(kgo.SeedBrokers).([]string)
	f.hooked = seesRecords(probe.OptValue(kgo.WithHooks))
	f.instance, _ = probe.OptValue(kgo.InstanceID).(string)
	f.maxWrite = max(int(probe.OptValue(kgo.BrokerMaxWriteBytes).(int32))-requestRoom, 512) //nolint:forcetypeassert // kgo's own type
	_, given := probe.OptValue(kgo.SeedBrokers).([]string)
	seeded := len(c.brokers) > 0 || given && !reflect.DeepEqual(probe.OptValue(kgo.SeedBrokers), plain.OptValue(kgo.SeedBrokers))
	ck.want(seeded, "Brokers: none given")
	return f
}

// seesRecords reports whether one of the user's hooks of kgo is given what is read, as those that trace are and those that measure are not.
func seesRecords(hooks any) bool {
	all := reflect.ValueOf(hooks)
	for i := range all.Len() {
		switch all.Index(i).Interface().(type) {
		case kgo.HookFetchRecordBuffered, kgo.HookFetchRecordUnbuffered:
			return true
		}
	}
	return false
}

// ownedName returns the name of an option the library owns, by the function it is made of, "" if it is none of them: before there is a client,
// for one made with a group would join it, and kgo refuses many of them in its own words where there is none.
func ownedName(opt kgo.Opt) string {
	v := reflect.Indirect(reflect.ValueOf(opt))
	if v.Kind() != reflect.Struct || v.NumField() == 0 || v.Field(0).Kind() != reflect.Func {
		return ""
	}
	parts := strings.Split(runtime.FuncForPC(v.Field(0).Pointer()).Name(), ".")
	for _, o := range ownedOptions {
		if slices.Contains(parts, o.name) {
			return o.name
		}
	}
	return ""
}

// sameOption compares two values that OptValue returned: functions by being set, interfaces by their type.
func sameOption(a, b any) bool {
	va, vb := reflect.ValueOf(a), reflect.ValueOf(b)
	if !va.IsValid() || !vb.IsValid() {
		return va.IsValid() == vb.IsValid()
	}
	switch {
	case va.Type() != vb.Type():
		return false
	case va.Kind() == reflect.Func:
		return va.IsNil() == vb.IsNil()
	case va.Kind() == reflect.Pointer || va.Kind() == reflect.Struct && !va.Comparable():
		return true
	}
	return reflect.DeepEqual(a, b)
}
