"""Waits, and tells how many requests were in this execution environment at the same moment.

Each request of one environment runs in a process of its own, so they meet in a file in /tmp, which is
private to the environment. The lock file is what makes the count right.
"""

import fcntl
import json
import logging
import os
import time

logger = logging.getLogger()
COUNTER = "/tmp/in-flight"


def _count(step):
    with open(COUNTER, "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        now, most = json.loads(file.read() or "[0, 0]")
        now += step
        most = max(most, now)
        file.seek(0)
        file.truncate()
        file.write(json.dumps([now, most]))
        return most


def handler(event, context):
    _count(1)
    logger.info("working on %s", event.get("tag"))
    time.sleep(event.get("wait_ms", 200) / 1000)
    most = _count(-1)
    return {
        "tag": event.get("tag"),
        "environment": os.environ["AWS_LAMBDA_LOG_STREAM_NAME"],
        "most_at_once": most,
        "request_id": context.aws_request_id,
    }
