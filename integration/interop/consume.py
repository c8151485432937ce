"""Runs retriable_kafka_client's BaseConsumer until its standard input ends, and tells what happens as lines of JSON:

raw     a record that the client polled and asks its filter about: where it lies, key and headers
call    a call of the handler begins: the message's id, which call of this process for that id it is, where the message lies (its last chunk)
done    it returns: ok or not, the message as it came (blobs by length and checksum)
assign  partitions that the client is given, before it asks for what is committed of them
commit  offsets that the client commits, and why not, if they are refused
log     what the client logs
crash   a thread of the client died
"""

import hashlib
import json
import logging
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from confluent_kafka import KafkaException
from retriable_kafka_client import BaseConsumer, ConsumerConfig, ConsumerThread, ConsumeTopicConfig

settings = json.loads(sys.argv[1])
lock = threading.Lock()
calls: dict[str, int] = {}


def tell(event, **what):
    line = json.dumps({"event": event, "at": time.time(), **what})
    with lock:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


class Teller(logging.Handler):
    def emit(self, record):
        tell("log", level=record.levelname, text=record.getMessage()[:500])


logging.getLogger("retriable_kafka_client").addHandler(Teller())
logging.getLogger("retriable_kafka_client").setLevel(settings["log"])
logging.getLogger("retriable_kafka_client").propagate = False


def passes(record):
    headers = [[name, None if value is None else value.hex()] for name, value in record.headers() or []]
    if settings["raw"]:
        tell(
            "raw",
            topic=record.topic(),
            partition=record.partition(),
            offset=record.offset(),
            key=None if record.key() is None else record.key().hex(),
            headers=headers,
        )
    want = settings["only"]  # a header's name and what its value must contain
    return not want or any(name == want[0] and want[1].encode() in bytes.fromhex(value or "") for name, value in headers)


def handle(message, place):
    key = str(message["id"]) if isinstance(message, dict) and "id" in message else json.dumps(message)
    with lock:
        n = calls[key] = calls.get(key, 0) + 1
    tell("call", id=key, n=n, **place)
    time.sleep(settings["sleep"])
    fails = settings["fail"]  # so many calls of every message
    if settings["fail_every"]:  # … of which the id is divisible by this
        fails = fails if int(key) % settings["fail_every"] == 0 else 0
    ok = n > fails
    seen = message
    if isinstance(message, dict) and "blob" in message and not settings["whole"]:
        blob = message["blob"].encode()
        seen = {**message, "blob": f"{len(blob)} {hashlib.sha256(blob).hexdigest()}"}
    tell("done", id=key, n=n, ok=ok, message=json.dumps(seen), **place)
    if not ok:
        raise ValueError(f"call {n} of {key} fails")


class Consumer(BaseConsumer):
    """Remembers where the message lies that it gives to the executor next."""

    def _process_message(self, message):
        executor.place = {"topic": message.topic(), "partition": message.partition(), "offset": message.offset()}
        return super()._process_message(message)


class Executor(ThreadPoolExecutor):
    place = None

    def submit(self, target, message):
        return super().submit(target, message, self.place)


config = ConsumerConfig(
    kafka_hosts=settings["brokers"],
    username="nobody",
    password="none",
    group_id=settings["group"],
    target=handle,
    filter_function=passes,
    cancel_future_wait_time=settings["cancel_wait"],
    max_chunk_reassembly_wait_time=timedelta(seconds=settings["chunk_wait"]),
    topics=[
        ConsumeTopicConfig(
            base_topic=settings["topic"],
            retry_topic=settings["retry"] or None,
            retries=settings["retries"],
            fallback_delay=settings["delay"],
        )
    ],
    additional_settings={
        "security.protocol": "PLAINTEXT",
        "log_level": 3,
        "session.timeout.ms": 6000,
        "heartbeat.interval.ms": 200,
        "topic.metadata.refresh.interval.ms": 1000,
        **settings["kafka"],
    },
)
executor = Executor(settings["workers"])
consumer = Consumer(config, executor, max_concurrency=settings["concurrency"])
real = consumer._consumer  # to hear of its partitions and commits


class Ear:
    def __getattr__(self, name):
        return getattr(real, name)

    def subscribe(self, topics, **callbacks):
        def assigned(_, partitions):
            tell("assign", offsets=[[p.topic, p.partition, p.offset] for p in partitions])

        real.subscribe(topics, on_assign=assigned, **callbacks)

    def commit(self, offsets, asynchronous):
        offsets = list(offsets)
        try:
            answer = real.commit(offsets=offsets, asynchronous=asynchronous)
        except KafkaException as e:
            tell("commit", offsets=[[p.topic, p.partition, p.offset] for p in offsets], error=str(e))
            raise
        refused = [str(p.error) for p in answer if p.error]
        tell("commit", offsets=[[p.topic, p.partition, p.offset] for p in offsets], error=", ".join(refused))
        return answer


consumer._BaseConsumer__consumer_object = Ear()
threading.excepthook = lambda e: tell("crash", error=f"{e.exc_type.__name__}: {e.exc_value}")
thread = ConsumerThread(consumer)
thread.start()
sys.stdin.read()
thread.stop()
executor.shutdown()
