"""Scaling under load: out at once, in slowly, within bounds, and no invocation lost on the way.

A quarter of an hour of the scaler's passes in seconds here (`--time-scale`); invocations last as long as they do."""

from concurrent.futures import ThreadPoolExecutor

from conftest import EXAMPLES, wait_until, zip_of
from load import WAITS, Load, bounds, once, serving

QUARTER = ("--time-scale", "120")


def test_five_calls_at_one_each_are_three_then_nine_then_three(numbers):
    with serving(*QUARTER) as (server, watch), ThreadPoolExecutor(5) as pool:
        server.deploy("five", WAITS, concurrency=1, Timeout=30)
        watch.until_ready("five", 3)
        # Connections are there, so that the five come at the same time.
        list(pool.map(lambda _: server.client.list_functions(), range(5)))
        calls = [pool.submit(once, server, "five", {"s": 4}) for _ in range(5)]
        with numbers("from 3 to 9"):
            watch.until_ready("five", 9)
        outcomes = [call.result() for call in calls]
        assert sorted(kind for kind, _ in outcomes) == ["ok"] * 3 + ["throttled"] * 2
        assert [what for kind, what in outcomes if kind == "throttled"] == ["concurrency"] * 2
        with numbers("from 9 to 3"):
            watch.until_ready("five", 3)
        assert watch.wanted("five") == [3, 9, 6, 3]
        assert watch.zones_differ("five") <= 1
        assert watch.decided("started execution environment", "2 invocations found no slot: that needs 8 by slots")
        assert watch.decided("draining", "it has needed fewer for 15 minutes")


def test_load_that_doubles_in_five_minutes_and_then_grows_by_half_at_once_is_never_throttled(numbers):
    handler, files, _ = EXAMPLES["nodejs24.x"]
    with serving(*QUARTER) as (server, watch), Load(server, "grows", {"wait_ms": 1000}) as load:
        server.deploy("grows", files, runtime="nodejs24.x", handler=handler, concurrency=8, Timeout=30)
        watch.until_ready("grows", 3)
        load.start(11).goes_well(22)
        load.start(11, within=2.5)
        watch.until_ready("grows", 6)
        load.goes_well(44)
        load.start(11)
        with numbers("half as much again"):
            watch.until_ready("grows", 9)
        before = len(watch.of("grows"))
        # Longer than the time after which fewer are wanted: some 20 minutes of the scaler's.
        load.goes_well(400, 120)
        assert watch.wanted("grows", before) == [9], "constant load is not answered by going up and down"
        assert watch.wanted("grows") == [3, 6, 9]
        assert load.failed() == []


def test_ten_times_the_load_at_once_is_throttled_with_one_cause_each_and_recovers(numbers):
    handler, files, _ = EXAMPLES["provided.al2023"]
    with serving(*QUARTER) as (server, watch), Load(server, "ten", {"wait_ms": 400}) as load:
        server.deploy("ten", files, runtime="provided.al2023", handler=handler, concurrency=4, Timeout=30)
        watch.until_ready("ten", 3)
        load.start(6).goes_well(30)
        assert load.failed() == []
        load.start(54)
        with numbers("ten times the load"):
            load.goes_well(180)
        load.stop()
        assert load.counts()["error"] == 0
        assert load.causes()["concurrency"] == load.counts()["throttled"] > 0
        assert server.version_status("ten")["throttles"] == {"concurrency": load.counts()["throttled"]}
        # Between what 60 callers take and twice what keeps them at the target; not what throttles may have looked like.
        assert 15 <= max(watch.wanted("ten")) <= 60, watch.wanted("ten")


def test_who_asks_again_at_once_is_one_caller():
    handler, files, _ = EXAMPLES["provided.al2023"]
    with serving() as (server, watch), ThreadPoolExecutor(6) as pool:
        server.deploy("again", files, runtime="provided.al2023", handler=handler, concurrency=1, Timeout=30)
        watch.until_ready("again", 3)

        def call(_):
            while (outcome := once(server, "again", {"wait_ms": 3000}))[0] == "throttled":
                pass
            return outcome[0]

        assert list(pool.map(call, range(6))) == ["ok"] * 6
        assert max(watch.wanted("again")) <= 27, watch.wanted("again")


def test_bounds_act_at_once_and_nothing_in_flight_is_lost():
    with serving("--time-scale", "60") as (server, watch), Load(server, "bound", {"s": 1}) as load:
        server.deploy("bound", WAITS, concurrency=2, Timeout=10)
        bounds(server, "bound", 4, 4)
        fixed = watch.until_ready("bound", 4)
        # Five callers want five environments of two slots, six with one in each zone, and have four.
        load.start(5).goes_well(25)
        assert watch.wanted("bound", fixed) == [4] and watch.fewest_ready("bound", fixed) == 4
        watch.until("bound", lambda look: "MaxExecutionEnvironments allows no more" in look.why, "the bound to be told")
        bounds(server, "bound", 6, 8)
        watch.until("bound", lambda look: 6 <= len(look.ready) <= 8, "six at least")
        bounds(server, "bound", 2, 3)
        watch.until_ready("bound", 3)
        load.goes_well(15)
        assert load.failed() == []

        with ThreadPoolExecutor(1) as pool:
            long = pool.submit(once, server, "bound", {"s": 4})
            watch.until("bound", lambda look: sum(e["inFlight"] for e in look.environments) == 6, "all slots to be held")
            bounds(server, "bound", 0, 0)
            watch.until("bound", lambda look: look.state == "Deactivated" and not look.environments, "the end of all")
            assert long.result()[0] == "ok"
        assert all("in the following state: Deactivat" in text for _, text in load.failed()), load.failed()[:3]
        start = len(load.failed())
        bounds(server, "bound", 2, 3)
        watch.until("bound", lambda look: look.state == "Active", "the reactivation")
        load.goes_well(15)
        # Five callers find the four slots of two environments at first.
        later = [what for kind, what in load.failed()[start:] if kind != "throttled"]
        assert all("in the following state: " in text for text in later), later[:3]


def test_a_republish_under_load_takes_over_with_as_many_as_there_were(numbers):
    with serving("--time-scale", "20") as (server, watch), Load(server, "again", {"s": 0.8}) as load:
        server.deploy("again", WAITS, concurrency=2, Timeout=10)
        watch.until_ready("again", 3)
        load.start(3).start(5, within=5)
        before = watch.until_ready("again", 9)
        old = set(watch.now("again").ready)
        load.goes_well(30)
        start = len(load.outcomes)
        code = {"app.py": WAITS["app.py"].replace("return ", "return 'new:' + ")}
        server.client.update_function_code(FunctionName="again", ZipFile=zip_of(code))
        with numbers("a republish of nine"):
            server.publish("again")
            watch.until("again", lambda look: look.ready and not {e["id"] for e in look.environments} & old, "the end of the old")
        wait_until(lambda: load.outcomes[-1][1].startswith("new:"), "the new revision's answers")
        load.goes_well(30)
        load.stop()
        assert [outcome for outcome in load.outcomes[start:] if outcome[0] != "ok"] == []
        for revision in (lambda look: set(look.ready) & old, lambda look: set(look.ready) - old):
            counts = [len(revision(look)) for look in watch.of("again", before)]
            assert max(counts) == 9, counts
        # At every moment one of the two has its minimum: the old until it is over, the new from then on.
        for look in watch.of("again", before):
            assert len(set(look.ready) & old) >= 3 or len(set(look.ready) - old) == 9, look


def test_a_crash_under_load_costs_what_was_in_flight_there_and_is_made_good(numbers):
    code = """
import os, time
def handler(event, context):
    time.sleep(event["s"])
    if event.get("crash"):
        os.kill(os.getppid(), 9)
        time.sleep(1)
    return os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]
"""
    with serving("--time-scale", "60") as (server, watch), Load(server, "crash", {"s": 0.3}) as load:
        server.deploy("crash", {"app.py": code}, concurrency=4, Timeout=10)
        bounds(server, "crash", 3, 3)
        watch.until_ready("crash", 3)
        before = set(watch.now("crash").ready)
        load.start(6).goes_well(30)
        assert once(server, "crash", {"s": 0.1, "crash": True})[1]["errorType"] == "Runtime.ExitError"
        with numbers("the replacement of a crashed one"):
            watch.until("crash", lambda look: len(look.ready) == 3 and set(look.ready) != before, "the replacement")
        load.goes_well(30)
        assert len(before & set(watch.now("crash").ready)) == 2
        assert len(load.failed()) <= 3, load.failed()
        assert all(answer["errorType"] == "Runtime.ExitError" for _, answer in load.failed()), load.failed()


def test_scaling_in_waits_for_what_runs():
    with serving(*QUARTER) as (server, watch), Load(server, "in", {"s": 5}) as load, ThreadPoolExecutor(5) as pool:
        server.deploy("in", WAITS, concurrency=1, Timeout=30)
        watch.until_ready("in", 3)
        list(pool.map(lambda _: once(server, "in", {"s": 2}), range(5)))
        watch.until_ready("in", 9)
        # Two slots of nine are held all the time, by invocations that last for ten minutes of the scaler's.
        load.start(2)
        watch.until_ready("in", 6)
        load.goes_well(4)
        assert watch.decided("draining", "it has needed fewer for 15 minutes")
        assert watch.wanted("in") == [3, 9, 6]
        load.stop()
        assert load.failed() == []
