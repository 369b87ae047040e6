"""Invocations at moments that were chosen before, whatever becomes of those before them: an open loop, without retries.

Requests are signed before the load begins, and one thread sends them all, so that the callers cost the machine little."""

import asyncio
import json
import statistics
import threading
import time
from collections import Counter
from dataclasses import dataclass
from urllib.parse import urlsplit

import signed


@dataclass
class Outcome:
    """One invocation: when it was sent and how long it took, in seconds, and what came of it."""

    sent: float
    duration: float
    kind: str
    cause: str
    latency: float


class OpenLoop:
    """Sends [(second, duration)] to a function that waits for as long as its payload's `s` says."""

    def __init__(self, server, name, arrivals):
        self.url = urlsplit(server.url)
        requests = {duration: self.written(server, name, duration) for duration in {d for _, d in arrivals}}
        self.arrivals = [(at, duration, requests[duration]) for at, duration in sorted(arrivals)]
        self.outcomes, self.idle = [], []
        self.thread = threading.Thread(target=lambda: asyncio.run(self.send_all()), daemon=True)

    @staticmethod
    def written(server, name, duration):
        payload = json.dumps({"s": duration})
        request = signed.written(server.url, "lambda", "Invoke", {"FunctionName": name, "Payload": payload})
        signed.Signature(signed.ROOT, "lambda").add_auth(request)
        headers = dict(request.headers.items()) | {"Content-Length": str(len(request.data))}
        head = "".join(f"{key}: {value}\r\n" for key, value in headers.items())
        return f"POST {urlsplit(request.url).path} HTTP/1.1\r\n{head}\r\n".encode() + request.data

    def start(self):
        self.begins = time.monotonic()
        self.thread.start()
        return self

    def finish(self):
        """Waits for the last answer; gives the outcomes in the order they were sent."""
        self.thread.join(120)
        assert not self.thread.is_alive(), f"{len(self.outcomes)} of {len(self.arrivals)} invocations have ended"
        return sorted(self.outcomes, key=lambda outcome: outcome.sent)

    async def send_all(self):
        loop = asyncio.get_running_loop()
        under_way = []
        for at, duration, request in self.arrivals:
            await asyncio.sleep(max(0, self.begins + at - loop.time()))
            under_way.append(asyncio.create_task(self.send(duration, request)))
        await asyncio.gather(*under_way)
        for _, writer in self.idle:
            writer.close()

    async def send(self, duration, request):
        if self.idle:
            connection = self.idle.pop()
        else:
            connection = await asyncio.open_connection(self.url.hostname, self.url.port)
        reader, writer = connection
        sent = time.monotonic()
        writer.write(request)
        try:
            kind, cause = await answer(reader)
            self.idle.append(connection)
        except (OSError, asyncio.IncompleteReadError) as error:
            kind, cause = "error", repr(error)
        self.outcomes.append(Outcome(sent - self.begins, duration, kind, cause, time.monotonic() - sent))


async def answer(reader):
    """("ok", ""), ("throttled", its cause) or ("error", what it says)."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in head[1:] if line)
    body = await reader.readexactly(int(headers["content-length"]))
    status = int(head[0].split(" ")[1])
    if status == 429:
        return "throttled", headers["x-ondol-throttle-cause"]
    if status != 200 or "x-amz-function-error" in headers:
        return "error", body.decode(errors="replace")
    return "ok", ""


def causes(outcomes):
    return dict(Counter(outcome.cause for outcome in outcomes if outcome.kind == "throttled"))


def errors(outcomes):
    return [outcome.cause for outcome in outcomes if outcome.kind == "error"]


def median_millis(outcomes):
    return statistics.median(outcome.latency for outcome in outcomes if outcome.kind == "ok") * 1_000
