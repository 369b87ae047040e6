"""Load on a function, and what becomes of its execution environments meanwhile."""

import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass

from botocore.exceptions import ClientError

from conftest import LATEST_PUBLISHED, Server, wait_until

CAUSES = {"concurrency", "cpu", "memory", "disk"}
WAITS = {"app.py": "import os, time\ndef handler(event, context):\n    time.sleep(event.get('s', 0))\n    return os.environ['AWS_LAMBDA_LOG_STREAM_NAME']\n"}


@contextmanager
def serving(*flags, **provider):
    """A server with these flags, its capacity provider `cp`, and who looks at both all the time."""
    server = Server(None, *flags)
    try:
        server.provider("cp", **provider)
        with Watch(server) as watch:
            yield server, watch
    finally:
        server.remove()


def bounds(server, name, least, most):
    config = {"MinExecutionEnvironments": least, "MaxExecutionEnvironments": most}
    server.client.put_function_scaling_config(FunctionName=name, Qualifier=LATEST_PUBLISHED, FunctionScalingConfig=config)


def once(server, name, payload):
    """("ok", answer), ("error", answer) or ("throttled", cause)"""
    try:
        error, answer = server.invoke(name, payload)
        return ("error" if error else "ok"), answer
    except ClientError as fault:
        if fault.response["Error"]["Code"] != "TooManyRequestsException":
            return "error", str(fault)
        assert fault.response["Reason"] == "ConcurrentInvocationLimitExceeded"
        cause = fault.response["ResponseMetadata"]["HTTPHeaders"]["x-ondol-throttle-cause"]
        assert cause in CAUSES
        return "throttled", cause


class Load:
    """Callers, each with one invocation after the other, who do not retry."""

    def __init__(self, server, name, payload=None):
        self.server, self.name, self.payload = server, name, payload or {}
        self.outcomes, self.callers = [], []
        self.ends = threading.Event()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self, callers, within=0):
        """So many more callers, one after the other within so many seconds."""
        for _ in range(callers):
            caller = threading.Thread(target=self.call, daemon=True)
            self.callers.append(caller)
            caller.start()
            time.sleep(within / callers)
        return self

    def stop(self):
        self.ends.set()
        for caller in self.callers:
            caller.join()

    def call(self):
        while not self.ends.is_set():
            outcome = once(self.server, self.name, self.payload)
            self.outcomes.append(outcome)
            if outcome[0] != "ok":
                # Nobody asks again at once, as no client of AWS's does.
                self.ends.wait(0.2)

    def counts(self):
        return Counter(kind for kind, _ in list(self.outcomes))

    def causes(self):
        return Counter(what for kind, what in list(self.outcomes) if kind == "throttled")

    def failed(self):
        return [outcome for outcome in list(self.outcomes) if outcome[0] != "ok"]

    def goes_well(self, count, seconds=60):
        """Waits until the last so many answers, of those from now on, were all good."""
        start = len(self.outcomes)

        def well():
            last = self.outcomes[max(start, len(self.outcomes) - count) :]
            return len(last) == count and all(kind == "ok" for kind, _ in last)

        wait_until(well, f"{count} good answers one after the other", seconds)


@dataclass
class Look:
    """A version at one moment."""

    state: str
    reason: str
    wanted: int
    why: str
    environments: list
    throttles: dict
    at: float

    @property
    def ready(self):
        return [e["id"] for e in self.environments if e["state"] == "Ready"]

    def refusing(self, cause):
        return [e["id"] for e in self.environments if e.get("refusesFor") == cause]


class Watch:
    """Looks at the status all the time, so that a test can wait for a state, and ask afterwards what there was."""

    def __init__(self, server):
        self.server = server
        self.looks, self.instances, self.decisions = {}, [], {}
        self.ends = threading.Event()
        self.thread = threading.Thread(target=self.look_on, daemon=True)

    def __enter__(self):
        self.look()
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ends.set()
        self.thread.join()

    def look_on(self):
        while not self.ends.wait(0.1):
            self.look()

    def look(self):
        page = self.server.status()
        at = time.monotonic()
        for decision in reversed(page["decisions"]):
            self.decisions.setdefault((decision["at"], decision["what"]), decision["why"])
        self.instances.append({i["id"]: i for p in page["capacityProviders"] for i in p["instances"]})
        for v in page["functionVersions"]:
            scaling = v["scaling"] or {"wanted": None, "why": ""}
            look = Look(v["state"], v["reason"], scaling["wanted"], scaling["why"], v["executionEnvironments"], v["throttles"], at)
            self.looks.setdefault(v["function"], []).append(look)

    def of(self, name, since=0):
        return self.looks.get(name, [])[since:]

    def now(self, name):
        return self.of(name)[-1]

    def fewest_ready(self, name, since=0):
        return min(len(look.ready) for look in self.of(name, since))

    def starts(self, name, since=0):
        """How long each environment took until it was ready, in seconds and sorted, as near as looks tell."""
        seen = {}
        for look in self.of(name, since):
            for environment in look.environments:
                states = seen.setdefault(environment["id"], {})
                states.setdefault(environment["state"], look.at)
        return sorted(states["Ready"] - states["Starting"] for states in seen.values() if {"Starting", "Ready"} <= states.keys())

    def zones_differ(self, name):
        """By how many environments that run or start a zone had more than another, at most."""
        zone_of = {i["id"]: i["availabilityZone"] for instances in self.instances for i in instances.values()}
        most = 0
        for look in self.of(name):
            counts = Counter(dict.fromkeys(zone_of.values(), 0))
            counts.update(zone_of[e["instance"]] for e in look.environments if e["state"] in ("Ready", "Starting"))
            most = max(most, max(counts.values()) - min(counts.values()))
        return most

    def wanted(self, name, since=0):
        """What it wanted, one number for each change."""
        numbers = [look.wanted for look in self.of(name, since) if look.wanted is not None]
        return [number for place, number in enumerate(numbers) if place == 0 or number != numbers[place - 1]]

    def until(self, name, condition, what, seconds=60):
        """Waits until a version looks so; gives how many looks there were before that."""
        wait_until(lambda: self.looks.get(name) and condition(self.now(name)), what, seconds)
        return len(self.of(name)) - 1

    def until_ready(self, name, count, seconds=60):
        return self.until(name, lambda look: len(look.ready) == count, f"{count} environments of {name}", seconds)

    def decided(self, what="", why=""):
        """Decisions with these words: (when, what, why), oldest first."""
        found = [(*key, reason) for key, reason in list(self.decisions.items()) if what in key[1] and why in reason]
        return sorted(found)
