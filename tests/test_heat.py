"""Execution environments that are out of CPU, memory or disk take no more, say why, and take again when they can."""

import subprocess

import pytest
from conftest import BIN, EXAMPLES, wait_until
from load import Load, bounds, once, serving

BUSY = {
    "app.py": """
import time
def handler(event, context):
    end = time.process_time() + event["cpu"]
    while time.process_time() < end:
        pass
    time.sleep(event.get("s", 0))
"""
}
NO_CPU_LEFT = "the machine has no CPU left, so that more of them would not help"
FULL = {
    "app.py": """
import os, threading, time
held = None
def hold(mib, seconds):
    global held
    held = bytearray(mib << 20)
    for place in range(0, len(held), 4096):
        held[place] = 1
    threading.Timer(seconds, let_go).start()
def let_go():
    global held
    held = None
def fill(mib, seconds):
    with open("/tmp/full", "wb") as file:
        for _ in range(mib):
            file.write(bytes(1 << 20))
    threading.Timer(seconds, os.remove, ["/tmp/full"]).start()
def handler(event, context):
    if "hold" in event:
        hold(event["hold"], event["s"])
    if "fill" in event:
        fill(event["fill"], event["s"])
    if "fill" not in event and "hold" not in event:
        time.sleep(event.get("s", 0))
    return os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]
"""
}


def environment_of(stream):
    return stream.rsplit("]", 1)[1]


def test_cpu_scales_out_to_the_target_where_the_machine_has_any_left():
    target = {"PredefinedMetricType": "LambdaCapacityProviderAverageCPUUtilization", "TargetValue": 15.0}
    scaling = {"ScalingMode": "Manual", "ScalingPolicies": [target]}
    with serving(CapacityProviderScalingConfig=scaling) as (server, watch), Load(server, "busy", {"cpu": 0.1, "s": 0.2}) as load:
        server.deploy("busy", BUSY, concurrency=8, Timeout=30)
        bounds(server, "busy", 1, 4)
        start = watch.until_ready("busy", 1)
        # A third of one CPU in one of eight slots.
        load.start(1)
        grown = lambda look: (look.wanted or 0) > 1
        watch.until("busy", lambda look: grown(look) or NO_CPU_LEFT in (look.why or ""), "more, or a machine without CPU")
        if grown(watch.now("busy")):
            assert "(target 15 %)" in watch.now("busy").why
            watch.until("busy", lambda look: len(look.ready) == look.wanted, "them")
        # As many loops as take all CPUs there are.
        load.payload = {"cpu": 1.0}
        load.start(5)
        watch.until("busy", lambda look: NO_CPU_LEFT in (look.why or ""), "a machine without CPU")
        assert all(1 <= len(look.ready) <= 4 for look in watch.of("busy", start))


def test_out_of_cpu_it_goes_on_with_what_it_had():
    with serving() as (server, watch), Load(server, "hot", {"cpu": 0.3}) as load, Load(server, "hot", {"cpu": 0.3}) as more:
        server.deploy("hot", BUSY, concurrency=8, Timeout=60)
        bounds(server, "hot", 1, 1)
        watch.until_ready("hot", 1)
        load.start(2)
        try:
            watch.until("hot", lambda look: look.refusing("cpu"), "the environment to use all of its CPU", 25)
        except AssertionError:
            if NO_CPU_LEFT in watch.now("hot").why:
                pytest.skip("others use this machine's CPUs: an environment does not get to its limit")
            raise
        more.start(4)
        wait_until(lambda: more.causes()["cpu"] > 5, "refusals")
        assert load.counts()["ok"] > 0
        assert (load.causes() + more.causes()).keys() == {"cpu"}
        assert load.counts()["error"] == more.counts()["error"] == 0
        load.stop()
        more.stop()
        watch.until("hot", lambda look: not look.refusing("cpu"), "it to cool")
        assert once(server, "hot", {"cpu": 0})[0] == "ok"
        assert set(server.version_status("hot")["throttles"]) == {"cpu"}


@pytest.mark.parametrize(("cause", "what"), [("memory", {"hold": 1970}), ("disk", {"fill": 508})])
def test_out_of_memory_or_disk_it_takes_nothing_until_it_can(cause, what):
    with serving() as (server, watch):
        server.deploy("full", FULL, concurrency=1, Timeout=30)
        bounds(server, "full", 2, 2)
        watch.until_ready("full", 2)
        fills = lambda seconds: environment_of(once(server, "full", what | {"s": seconds})[1])
        full = fills(15)
        watch.until("full", lambda look: look.refusing(cause) == [full], f"one without {cause}")
        # What it refuses goes to the other one.
        outcomes = [once(server, "full", {}) for _ in range(12)]
        assert all(kind == "ok" and environment_of(stream) != full for kind, stream in outcomes), outcomes
        other = fills(10)
        assert other != full
        watch.until("full", lambda look: len(look.refusing(cause)) == 2, f"both without {cause}")
        assert once(server, "full", {}) == ("throttled", cause)
        watch.until("full", lambda look: not look.refusing(cause), "both to have some again")
        assert [once(server, "full", {})[0] for _ in range(6)] == ["ok"] * 6
        assert server.version_status("full")["throttles"] == {cause: 1}


def test_what_takes_nothing_is_passed_over_and_made_up_for():
    with serving() as (server, watch):
        server.deploy("half", FULL, concurrency=2, Timeout=30)
        bounds(server, "half", 6, 6)
        watch.until_ready("half", 6)
        for number in (1, 2, 3):
            assert once(server, "half", {"fill": 508, "s": 40})[0] == "ok"
            watch.until("half", lambda look: len(look.refusing("disk")) == number, f"{number} with full disks")
        with Load(server, "half") as load:
            load.start(3).goes_well(300)
        assert load.failed() == []
        watch.until("half", lambda look: "beside 3 out of memory or disk" in look.why, "the word of it")
        bounds(server, "half", 6, 12)
        with Load(server, "half", {"s": 1}) as load:
            # Two thirds of the slots that are left; others have to come for those that are not.
            load.start(4)
            watch.until("half", lambda look: (look.wanted or 0) > 6, "more than six")


@pytest.mark.parametrize("function", ["answers", "computes"])
def test_a_caller_for_each_slot_is_never_refused_for_cpu(function):
    """One invocation after the other in every slot, as a benchmark does: CPU is short, and nobody is sent away."""
    handler, files, _ = EXAMPLES["provided.al2023"]
    kinds = {
        "answers": (dict(files=files, runtime="provided.al2023", handler=handler), '{"wait_ms": 0}', 4_000),
        "computes": (dict(files=BUSY), '{"cpu": 0.03}', 200),
    }
    settings, payload, requests = kinds[function]
    with serving() as (server, watch):
        server.deploy(function, concurrency=16, Timeout=60, **settings)
        bounds(server, function, 1, 1)
        watch.until_ready(function, 1)
        command = [BIN, "invoke", function, "--concurrency", "16", "--requests", str(requests), "--data", payload, "--port", str(server.port)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        found = server.version_status(function)
        assert (found["invocations"], found["throttles"]) == (requests, {}), done.stdout
