"""The pool of Lambda (default) functions under strain: no concurrency is lost, nobody waits for ever, and room is shared."""

import pytest
from botocore.exceptions import ClientError

from conftest import EXAMPLES, Server, wait_until
from on_demand import create, environments, invoke_at, meeting, throttled, together


def outcome(server, name, event):
    try:
        return server.invoke(name, event)[0] or "ok"
    except ClientError as error:
        return error.response["Error"]["Code"]


def test_no_concurrency_is_lost_however_an_invocation_ends(server):
    create(server, "counted", Timeout=1)
    create(server, "unstartable", {"app.py": "import nowhere\n"})
    create(server, "unrunnable", {"app.rb": ""}, runtime="ruby3.4")
    for name in ("counted", "unstartable", "unrunnable"):
        server.client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
    with meeting() as place:
        for event in ({}, {"exit": 1}, {"raise": "x"}, {"signal": 9}, {"mib": 400}, {"meet": place.at("late")}, {}):
            # A 429 would say that what came before still counts.
            assert outcome(server, "counted", event) == ("ok" if event == {} else "Unhandled"), event
    assert [outcome(server, "unstartable", {}) for _ in range(3)] == ["Unhandled"] * 3
    assert [outcome(server, "unrunnable", {}) for _ in range(3)] == ["InvalidRuntimeException"] * 3


def test_all_who_wait_for_code_that_cannot_start_are_told(server):
    create(server, "doomed-together", {"app.py": "import nowhere\n"})
    with together(5) as pool:
        answers = list(pool.map(lambda _: server.invoke("doomed-together"), range(5)))
    assert [(error, answer["errorType"]) for error, answer in answers] == [("Unhandled", "Runtime.ImportModuleError")] * 5


def test_who_ends_while_others_wait_takes_none_along(server):
    create(server, "mixed", Timeout=20)
    with together(8) as pool:
        events = [{"exit": 1} if n % 2 else {} for n in range(40)]
        outcomes = list(pool.map(lambda event: outcome(server, "mixed", event), events))
    assert outcomes == ["Unhandled" if event else "ok" for event in events]


def test_reserved_concurrency_can_be_lowered_below_what_runs(server):
    create(server, "lowered")
    with meeting() as place, together(3) as pool:
        calls = [pool.submit(invoke_at, server, "lowered", place, f"{n}") for n in range(3)]
        place.wait_for(3)
        server.client.put_function_concurrency(FunctionName="lowered", ReservedConcurrentExecutions=1)
        assert throttled(server.invoke, "lowered") == "ReservedFunctionConcurrentInvocationLimitExceeded"
        place.open.set()
        assert [call.result()[0] for call in calls] == [None] * 3
    assert server.invoke("lowered")[0] is None


def test_several_invoke_threads_share_one_pool():
    server = Server(None, "--shards", "3")
    try:
        handler, files, _ = EXAMPLES["provided.al2023"]
        create(server, "hops", files, runtime="provided.al2023", handler=handler)
        with together(6) as pool:
            answers = list(pool.map(lambda tag: server.invoke("hops", {"tag": tag, "wait_ms": 10}), range(60)))
        assert [(error, answer["tag"]) for error, answer in answers] == [(None, tag) for tag in range(60)]
        assert {answer["most_at_once"] for _, answer in answers} == {1}
        create(server, "exact")
        server.client.put_function_concurrency(FunctionName="exact", ReservedConcurrentExecutions=4)
        with meeting() as place, together(12) as pool:
            calls = [pool.submit(outcome, server, "exact", {"meet": place.at(f"{n}")}) for n in range(12)]
            place.wait_for(4)
            # Eight are refused while four are here: those answer first.
            wait_until(lambda: sum(call.done() for call in calls) == 8, "eight refusals")
            assert len(place.here) == 4
            place.open.set()
            outcomes = [call.result() for call in calls]
        assert sorted(outcomes) == ["TooManyRequestsException"] * 8 + ["ok"] * 4
    finally:
        server.remove()


def large(server):
    """(the memory of a function that takes a good part of this machine, how many are more than it holds)"""
    machine = server.status()["machine"]
    # 1769 MB are one vCPU: no more of those than there are.
    memory = min(10240, 1769 * machine["cpus"])
    return memory, machine["memoryMiB"] // memory + 1


def test_a_function_may_be_as_large_as_lambda_allows(server):
    """More vCPUs than the machine has are a limit that does not bite."""
    if server.status()["machine"]["memoryMiB"] * 0.9 < 10240:
        pytest.skip("this machine has no 10 GB")
    create(server, "largest", MemorySize=10240)
    assert server.invoke("largest")[0] is None


def test_who_finds_no_room_is_told_and_who_has_it_runs():
    """More at once than the machine's memory holds."""
    server = Server()
    try:
        memory, count = large(server)
        create(server, "large", MemorySize=memory)
        with meeting() as place, together(count) as pool:
            calls = [pool.submit(outcome, server, "large", {"meet": place.at(f"{n}")}) for n in range(count)]
            wait_until(lambda: sum(call.done() for call in calls) + len(place.here) == count, "each to run or to be told")
            here = len(place.here)
            place.open.set()
            outcomes = [call.result() for call in calls]
        assert here >= 1 and sorted(outcomes) == ["TooManyRequestsException"] * (count - here) + ["ok"] * here, outcomes
        assert server.invoke("large")[0] is None
    finally:
        server.remove()


def test_an_idle_function_makes_room_for_another():
    server = Server()
    try:
        memory, count = large(server)
        for n in range(count):
            create(server, f"large-{n}", MemorySize=memory)
        for n in range(count):
            assert outcome(server, f"large-{n}", {}) == "ok", "what is idle gives way"
        assert environments(server, f"large-{count - 1}")
    finally:
        server.remove()
