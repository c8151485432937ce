"""Sends with retriable_kafka_client's BaseProducer what it is told, a line of JSON a message, and answers each with a line. The first line says
that it has started."""

import base64
import hashlib
import json
import sys

from confluent_kafka import KafkaException
from retriable_kafka_client import BaseProducer, ProducerConfig, SendError

settings = json.loads(sys.argv[1])
producer = BaseProducer(
    ProducerConfig(
        kafka_hosts=settings["brokers"],
        username="nobody",
        password="none",
        topics=settings["topics"],
        split_messages=settings["split"],
        retries=settings["retries"],
        fallback_base=0.1,
        additional_settings={"security.protocol": "PLAINTEXT", "log_level": 3, **settings["kafka"]},
    )
)
print("{}", flush=True)
for line in sys.stdin:
    told = json.loads(line)
    if told.get("size"):
        # shake_256 makes as much filler of a seed as is asked for, here and in Go.
        body = {"id": told["id"], "blob": hashlib.shake_256(str(told["id"]).encode()).hexdigest(told["size"] // 2)}
    elif "raw" in told:
        body = base64.b64decode(told["raw"])
    else:
        body = told["body"]
    headers = {name: base64.b64decode(value) for name, value in (told.get("headers") or {}).items()}
    try:
        producer.send_sync(body, headers=headers or None)
        answer = {}
    except SendError as e:
        answer = {"error": str(e), "retriable": e.retriable}
    except (KafkaException, BufferError, TypeError, ValueError) as e:
        answer = {"error": f"{type(e).__name__}: {e}"}
    print(json.dumps(answer), flush=True)
producer.close()
