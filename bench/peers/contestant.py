"""The Python client as a contestant. The only argument is the job, the only line of output the figures."""

import json
import logging
import os
import resource
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from retriable_kafka_client import BaseConsumer, ConsumerConfig, ConsumerThread, ConsumeTopicConfig

job = json.loads(sys.argv[1])
logging.getLogger().addHandler(logging.NullHandler())  # failures are not to be printed
lock, all_handled = threading.Lock(), threading.Event()
failed, handled = set(), set()
first, last, slept = 0.0, 0.0, 0.0


def cpu():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def rss():
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM:"))
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def handle(message):
    global first, last, slept
    begin = time.monotonic()
    if job["sleep_ms"]:
        time.sleep(job["sleep_ms"] / 1000)
    end = time.monotonic()
    number = message["id"]
    with lock:
        first = first or begin
        slept += end - begin
        if job["fail_once"] and number not in failed:
            failed.add(number)
            raise ValueError("once")
        handled.add(number)
        if len(handled) == job["records"]:
            last = time.monotonic()
            all_handled.set()


began, cpu_began = time.monotonic(), cpu()
config = ConsumerConfig(
    kafka_hosts=job["brokers"],
    username="nobody",
    password="none",
    group_id=job["group"],
    target=handle,
    topics=[ConsumeTopicConfig(base_topic=job["topic"], retry_topic=job["retry"], retries=5, fallback_delay=0)],
    additional_settings={"security.protocol": "PLAINTEXT", "log_level": 3},
)
thread = ConsumerThread(BaseConsumer(config, ThreadPoolExecutor(job["workers"]), max_concurrency=job["workers"]))
thread.daemon = True
thread.start()
if not all_handled.wait(60):
    sys.exit(f"handled {len(handled)} of {job['records']} in 60 s")
used = cpu() - cpu_began
print(
    json.dumps(
        {
            "records": job["records"],
            "seconds": last - first,
            "join": first - began,
            "cpu": used,
            "rss_mib": rss(),
            "handler": slept / job["records"],
        }
    ),
    flush=True,
)
stopping = threading.Thread(target=thread.stop, daemon=True)
stopping.start()
stopping.join(20)
os._exit(0)
