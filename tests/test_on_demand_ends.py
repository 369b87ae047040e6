"""Environments of Lambda (default) functions end: idle, deleted, stopped, killed. Nothing is left, and the next request works."""

import signal
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ReadTimeoutError

from conftest import EXAMPLES, Server, wait_until
from on_demand import DOES, create, environments, groups_of, invoke_at, meeting, throttled, together
from test_api import fault
from test_restart import processes_of
from test_stop import refuses


@pytest.fixture
def lone_server():
    """A server without capacity providers, to stop, start and count the processes of."""
    server = Server()
    yield server
    server.remove()


def nothing_runs(server_id):
    """No process, and no control group but the server's own few."""
    return not processes_of(server_id)


def everything_is_gone(server, server_id):
    assert processes_of(server_id) == [] and groups_of(server_id) == []
    assert list(Path(server.folder, "run").iterdir()) == []


def test_what_is_idle_ends_and_comes_again():
    server = Server(None, "--idle-seconds", "1")
    try:
        group = server.status()["serverId"]
        create(server, "idle")
        groups = set(groups_of(group))
        before = server.invoke("idle")[1]
        assert processes_of(group)
        wait_until(lambda: environments(server, "idle") == [], "the idle environment to end")
        wait_until(lambda: nothing_runs(group), "its processes to end")
        wait_until(lambda: set(groups_of(group)) <= groups, "its control groups to be gone")
        error, after = server.invoke("idle")
        assert error is None and after != before
        # Busy is not idle, however long it takes.
        with meeting() as place, together(1) as pool:
            call = pool.submit(invoke_at, server, "idle", place, "busy")
            place.wait_for(1)
            create(server, "other")
            server.invoke("other")
            wait_until(lambda: environments(server, "other") == [], "another one to come and go meanwhile")
            assert len(environments(server, "idle")) == 1
            place.open.set()
            assert call.result()[0] is None
    finally:
        server.remove()


def test_killed_and_started_again(lone_server):
    server = lone_server
    create(server, "kept")
    server.client.publish_version(FunctionName="kept")
    server.client.create_alias(FunctionName="kept", Name="live", FunctionVersion="1")
    server.client.put_function_concurrency(FunctionName="kept", ReservedConcurrentExecutions=1)
    before = server.client.get_function(FunctionName="kept")["Configuration"]
    process = server.invoke("kept")[1]
    group = server.status()["serverId"]
    assert processes_of(group)
    server.kill()
    wait_until(lambda: nothing_runs(group), "the dead server's environments to end")
    server.start()
    assert server.client.get_function(FunctionName="kept")["Configuration"] == before
    assert environments(server, "kept") == [], "they start when somebody asks"
    error, answer = server.invoke("kept:live")
    assert error is None and answer != process
    with meeting() as place, together(1) as pool:
        call = pool.submit(invoke_at, server, "kept", place, "kept")
        place.wait_for(1)
        assert throttled(server.invoke, "kept") == "ReservedFunctionConcurrentInvocationLimitExceeded"
        place.open.set()
        assert call.result()[0] is None
    server.stop()
    assert server.process.returncode == 0
    everything_is_gone(server, group)
    server.start()
    assert server.invoke("kept")[0] is None


def test_killed_while_one_runs_and_another_starts(lone_server):
    server = lone_server
    with meeting() as place, together(2) as pool:
        slow = f"import urllib.request\nurllib.request.urlopen({place.at('start')!r}).read()\n"
        create(server, "running")
        create(server, "starting", {"app.py": slow + DOES})
        calls = [pool.submit(invoke_at, server, "running", place, "run"), pool.submit(server.invoke, "starting")]
        place.wait_for(2)
        group = server.status()["serverId"]
        server.kill()
        wait_until(lambda: nothing_runs(group), "the dead server's environments to end")
        assert all(call.exception() is not None for call in calls)
        server.start()
        place.open.set()
    assert server.invoke("running")[0] is None
    server.stop()
    everything_is_gone(server, group)


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_lets_what_is_in_flight_finish(lone_server, asked):
    server = lone_server
    create(server, "flying")
    group = server.status()["serverId"]
    with meeting() as place, together(3) as pool:
        calls = [pool.submit(invoke_at, server, "flying", place, f"{n}") for n in range(3)]
        place.wait_for(3)
        probe = server.make_client()
        server.process.send_signal(asked)
        wait_until(lambda: refuses(probe), "new requests to be refused")
        place.open.set()
        assert [call.result()[0] for call in calls] == [None] * 3
    assert server.process.wait(30) == 0
    everything_is_gone(server, group)


def test_a_stop_answers_who_waits_for_a_start(lone_server):
    server = lone_server
    group = server.status()["serverId"]
    with meeting() as place, together(1) as pool:
        slow = f"import urllib.request\nurllib.request.urlopen({place.at('start')!r}).read()\n"
        create(server, "starting", {"app.py": slow + DOES})
        call = pool.submit(fault, server.invoke, "starting")
        place.wait_for(1)
        server.process.send_signal(signal.SIGTERM)
        assert call.result()[2] >= 500
        assert server.process.wait(60) == 0
    everything_is_gone(server, group)


def test_deleted_while_it_runs(server):
    create(server, "doomed")
    with meeting() as place, together(1) as pool:
        call = pool.submit(invoke_at, server, "doomed", place, "doomed")
        place.wait_for(1)
        assert server.client.delete_function(FunctionName="doomed")["ResponseMetadata"]["HTTPStatusCode"] == 204
        assert fault(server.invoke, "doomed")[0] == "ResourceNotFoundException"
        place.open.set()
        assert call.result()[0] is None, "what was asked for before the end is answered"
    wait_until(lambda: environments(server, "doomed") == [], "its environment to end")
    # Another of the same name has nothing to do with it.
    create(server, "doomed", {"app.py": "def handler(event, context):\n    return 'another'\n"})
    assert server.invoke("doomed") == (None, "another")


def test_a_caller_that_goes_away_breaks_nothing(server):
    impatient = boto3.client(
        "lambda",
        endpoint_url=server.url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"total_max_attempts": 1}, read_timeout=1),
    )
    with meeting() as place:
        slow = f"import urllib.request\nurllib.request.urlopen({place.at('start')!r}).read()\n"
        create(server, "left", {"app.py": slow + DOES})
        for _ in range(3):
            with pytest.raises(ReadTimeoutError):
                impatient.invoke(FunctionName="left")
        place.open.set()
        # What they had asked for is run, and counted, without them.
        wait_until(lambda: [e["inFlight"] for e in environments(server, "left")].count(0) >= 1, "the environments to be free")
    assert server.invoke("left")[0] is None
    server.client.put_function_concurrency(FunctionName="left", ReservedConcurrentExecutions=1)
    wait_until(lambda: succeeds(server, "left"), "all of their invocations to be over")


def succeeds(server, name):
    try:
        return server.invoke(name)[0] is None
    except server.client.exceptions.TooManyRequestsException:
        return False


def test_an_initialisation_has_its_time_too(server):
    """Ten seconds, and then what is left of it counts against the function's own timeout."""
    with meeting() as place:
        slow = f"import urllib.request\nurllib.request.urlopen({place.at('start')!r}).read()\n"
        create(server, "endless", {"app.py": slow + DOES}, Timeout=2)
        error, answer = server.invoke("endless")
        assert (error, answer["errorType"]) == ("Unhandled", "Sandbox.Timedout"), answer
        wait_until(lambda: environments(server, "endless") == [], "the environment to be gone")


def test_many_functions_each_invoked_once(lone_server):
    """More than this machine's memory holds at once: who is idle makes room."""
    server = lone_server
    _, files, _ = EXAMPLES["provided.al2023"]
    names = [f"many-{n}" for n in range(200)]
    memory = max(128, server.status()["machine"]["memoryMiB"] // 150)
    for name in names:
        create(server, name, files, runtime="provided.al2023", handler="bootstrap", MemorySize=memory)
    with together(8) as pool:
        answers = list(pool.map(lambda name: server.invoke(name, {"tag": name, "wait_ms": 0}), names))
    assert [(error, answer["tag"]) for error, answer in answers] == [(None, name) for name in names]
    group = server.status()["serverId"]
    server.stop()
    everything_is_gone(server, group)


def test_many_small_functions_stay_warm_together(lone_server):
    server = lone_server
    _, files, _ = EXAMPLES["provided.al2023"]
    names = [f"small-{n}" for n in range(100)]
    for name in names:
        create(server, name, files, runtime="provided.al2023", handler="bootstrap", MemorySize=128)
    rounds = []
    for _ in range(2):
        with together(8) as pool:
            answers = list(pool.map(lambda name: server.invoke(name, {"tag": name, "wait_ms": 0}), names))
        assert all(error is None and answer["tag"] == name for name, (error, answer) in zip(names, answers))
        rounds.append([answer["environment"] for _, answer in answers])
    assert rounds[0] == rounds[1] and len(set(rounds[0])) == 100


def test_two_servers_beside_each_other():
    one, two = Server(), Server()
    try:
        for server, word in ((one, "one"), (two, "two")):
            create(server, "same", {"app.py": DOES.replace("return process", f"return {word!r}")})
        with meeting() as place, together(2) as pool:
            calls = [pool.submit(invoke_at, server, "same", place, "same") for server in (one, two)]
            place.wait_for(2)
            groups = [server.status()["serverId"] for server in (one, two)]
            assert groups[0] != groups[1] and all(processes_of(group) for group in groups)
            place.open.set()
            assert [call.result() for call in calls] == [(None, "one"), (None, "two")]
        one.kill()
        wait_until(lambda: nothing_runs(groups[0]), "the dead one's environments to end")
        assert processes_of(groups[1]) and len(environments(two, "same")) == 1
        one.start()
        assert [server.invoke("same") for server in (one, two)] == [(None, "one"), (None, "two")]
        one.stop()
        everything_is_gone(one, groups[0])
        assert two.invoke("same") == (None, "two")
    finally:
        one.remove()
        two.remove()
