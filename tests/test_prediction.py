"""What `ondol sim` predicts of a load, and what the server does with that load.

The simulator makes the production's own decisions; what it makes up is the world around them. Here the same invocations
go to real functions and to the simulator. How fast things are is shown in the table, and never asserted."""

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from conftest import wait_until
from load import WAITS, bounds, serving
from open_loop import OpenLoop, causes, errors, median_millis
from prediction import Prediction, Table

ZONES = 3
NODE = {"index.mjs": "export const handler = (event) => new Promise((done) => setTimeout(done, event.s * 1000));\n"}
NODEJS = {"runtime": "nodejs24.x", "handler": "index.handler"}
# Functions that wait: the machine's CPUs are not what is measured.
FUNCTION = """
[[function]]
name = "function"
max_concurrency = {concurrency}
timeout_seconds = 30
service = {{ cpu_share = 0.0 }}
"""


@pytest.fixture(scope="module")
def table():
    table = Table()
    yield table
    print("\n" + table.text())


def by_chance(seed, rate, seconds, mean):
    """Arrivals by chance, at a rate that may change with time, of durations by chance: the same for the same seed."""
    coins, at, arrivals = random.Random(seed), 0.0, []
    highest = max(rate(second / 10) for second in range(seconds * 10))
    while (at := at + coins.expovariate(highest)) < seconds:
        if coins.random() * highest < rate(at):
            # Never 0, never much longer than the others; to the hundredth, so that few requests are to be signed.
            arrivals.append((at, max(0.01, round(min(coins.expovariate(1 / mean), mean * 4), 2))))
    return arrivals


def evenly(begins, ends, rate, duration):
    return [(begins + number / rate, duration) for number in range(round((ends - begins) * rate))]


@contextmanager
def deployed(time_scale, *flags, files=WAITS, concurrency, **settings):
    provider = settings.pop("provider", {})
    with serving("--time-scale", str(time_scale), *flags, **provider) as (server, watch):
        server.deploy("function", files, concurrency=concurrency, Timeout=30, **settings)
        # Under load environments start more slowly than before: only those are measured that do.
        yield server, watch, watch.until_ready("function", ZONES)


def compare(table, case, prediction, outcomes, watch, since=0):
    """What is asked of every case; gives how many were throttled."""
    throttled = sum(causes(outcomes).values())
    table.starts.append((case, prediction.start_millis))
    assert errors(outcomes) == []
    assert watch.server.version_status("function")["throttles"] == causes(outcomes)
    table.add(case, "invocations", prediction.each(lambda summary: summary["arrivals"]), len(outcomes))
    table.add(case, "throttles", prediction.throttles(), throttled)
    for cause in sorted(prediction.causes() | causes(outcomes).keys()):
        table.add(case, f"throttles by {cause}", prediction.each(lambda summary: summary["throttles"][cause]), causes(outcomes).get(cause, 0))
    table.add(case, "environments wanted", prediction.paths(), watch.wanted("function", since))
    table.add(case, "environments at the end", prediction.environments("at_end"), len(watch.now("function").ready))
    table.add(case, "p50 latency, ms", [round(p50) for p50 in prediction.median_millis()], round(median_millis(outcomes)))
    if not any(prediction.throttles()):
        assert throttled == 0, "no throttle was predicted"
    return throttled


def within_a_step(prediction, path):
    """Where chance plays in: at most one environment in each zone beside what was predicted."""
    peaks = prediction.peaks()
    assert min(peaks) - ZONES <= max(path) <= max(peaks) + ZONES, (peaks, path)


def test_five_calls(table, tmp_path):
    with deployed(240, concurrency=1) as (server, watch, since):
        load = OpenLoop(server, "function", [(0.1, 4.0)] * 5).start()
        watch.until_ready("function", 9)
        outcomes = load.finish()
        watch.until_ready("function", ZONES)
        calls = FUNCTION.format(concurrency=1).replace("cpu_share = 0.0", 'mean_millis = 4000.0, spread = "fixed", cpu_share = 0.0')
        calls += 'load = { kind = "calls", count = 5, at_seconds = 0.1 }\n'
        prediction = Prediction(tmp_path, calls, 240, watch.starts("function", since), seconds=30)
        compare(table, "five calls", prediction, outcomes, watch)
        assert prediction.throttles() == [2] * 5 and causes(outcomes) == {"concurrency": 2}
        assert all(path == [3, 9, 6, 3] for path in prediction.paths()), prediction.paths()
        assert watch.wanted("function") == [3, 9, 6, 3]
        assert prediction.environments("at_end") == [3] * 5


def test_load_that_doubles_in_five_minutes(table, tmp_path):
    rate = lambda at: 30 + 30 * min(max((at - 3) / 5, 0), 1)
    with deployed(60, files=NODE, concurrency=16, **NODEJS) as (server, watch, since):
        outcomes = OpenLoop(server, "function", by_chance(11, rate, 12, 0.6)).start().finish()
        prediction = Prediction(tmp_path, FUNCTION.format(concurrency=16), 60, watch.starts("function", since), outcomes)
        compare(table, "doubles in five minutes", prediction, outcomes, watch)
        assert prediction.throttles() == [0] * 5
        within_a_step(prediction, watch.wanted("function"))


def test_half_as_much_again_at_once(table, tmp_path):
    with deployed(60, concurrency=8) as (server, watch, since):
        load = evenly(0, 4, 20, 0.5) + evenly(4, 9, 30, 0.5)
        outcomes = OpenLoop(server, "function", load).start().finish()
        prediction = Prediction(tmp_path, FUNCTION.format(concurrency=8), 60, watch.starts("function", since), outcomes)
        compare(table, "half as much again at once", prediction, outcomes, watch)
        assert prediction.throttles() == [0] * 5
        within_a_step(prediction, watch.wanted("function"))


def test_ten_times_as_much_at_once(table, tmp_path):
    rate = lambda at: 8 if at < 3 else 80
    with deployed(60, files=NODE, concurrency=8, **NODEJS) as (server, watch, since):
        outcomes = OpenLoop(server, "function", by_chance(10, rate, 13, 0.5)).start().finish()
        prediction = Prediction(tmp_path, FUNCTION.format(concurrency=8), 60, watch.starts("function", since), outcomes)
        throttled = compare(table, "ten times as much at once", prediction, outcomes, watch)
        assert min(prediction.throttles()) > 0 and throttled > 0
        assert prediction.causes() == causes(outcomes).keys() == {"concurrency"}
        within_a_step(prediction, watch.wanted("function"))
        # Both have recovered.
        assert max(prediction.late_throttles(3)) == 0
        assert [outcome for outcome in outcomes[-100:] if outcome.kind != "ok"] == []


AGED = """
[capacity]
instance_max_age_seconds = 600
max_vcpu_count = {vcpus}
"""


@pytest.mark.parametrize("case, vcpus, environments", [("replacement", 400, 3), ("replacement at the cap", 12, 9)])
def test_every_instance_is_replaced(table, tmp_path, case, vcpus, environments):
    cap = {"CapacityProviderScalingConfig": {"MaxVCpuCount": vcpus}}
    with deployed(100, "--instance-max-age-seconds", "600", concurrency=4, provider=cap) as (server, watch, _):
        bounds(server, "function", environments, environments)
        since = watch.until_ready("function", environments)
        first = set(watch.instances[-1])
        outcomes = OpenLoop(server, "function", by_chance(5, lambda _: 15, 9, 0.15)).start().finish()
        wait_until(lambda: not first & set(watch.instances[-1]), "the last of the first instances to end")
        fixed = FUNCTION.format(concurrency=4) + f"min_execution_environments = {environments}\nmax_execution_environments = {environments}\n"
        scenario = AGED.format(vcpus=vcpus) + fixed
        prediction = Prediction(tmp_path, scenario, 100, watch.starts("function", since), outcomes)
        compare(table, case, prediction, outcomes, watch, since)
        table.add(case, "environments ready, at least", prediction.environments("least"), watch.fewest_ready("function", since))
        ended = {instance for instances in watch.instances for instance in instances} - set(watch.instances[-1])
        table.add(case, "instances replaced", prediction.each(lambda summary: summary["instances"]["ended"]), len(ended))
        assert prediction.throttles() == [0] * 5 and len(outcomes) > 0
        assert prediction.each(lambda summary: summary["failed"]) == [0] * 5
        assert min(prediction.each(lambda summary: summary["instances"]["ended"])) >= ZONES
        assert set(watch.wanted("function", since)) == {environments} == {count for path in prediction.paths() for count in path}
        # One instance at a time: at the cap its environments are missing, else none is.
        fewest = environments - (ZONES if vcpus == 12 else 0)
        assert min(prediction.environments("least")) >= fewest and watch.fewest_ready("function", since) >= fewest
