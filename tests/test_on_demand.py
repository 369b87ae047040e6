"""Lambda (default) functions: an environment starts when an invocation needs it, and takes one request at a time."""

import signal
import subprocess

import pytest

from conftest import BIN, EXAMPLES, Server, wait_until, zip_of
from on_demand import DOES, LATEST, create, environments, invoke_at, meeting, throttled, together
from test_api import fault
from test_layers import publish_layer


EARLY = """
import os, time, urllib.request
process = os.urandom(8).hex()
def handler(event, context):
    if event.get("early"):
        api = f"http://{os.environ['AWS_LAMBDA_RUNTIME_API']}/2018-06-01/runtime/invocation/{context.aws_request_id}/response"
        urllib.request.urlopen(urllib.request.Request(api, data=b'"early"', method="POST")).read()
        if event["early"] is not True:
            urllib.request.urlopen(event["early"]).read()
        else:
            time.sleep(1000)
    return process
"""


def test_code_that_goes_on_after_its_answer_has_its_own_time_and_no_more(server):
    create(server, "overdue", {"app.py": EARLY}, Timeout=1)
    assert server.invoke("overdue", {"early": True}) == (None, "early")
    wait_until(lambda: environments(server, "overdue") == [], "the code that went on to be ended")
    create(server, "early", {"app.py": EARLY}, Timeout=60)
    # Who comes meanwhile is served by another environment, and the first one has its time.
    with meeting() as place:
        assert server.invoke("early", {"early": place.at("after")}) == (None, "early")
        place.wait_for(1)
        assert len(environments(server, "early")) == 1
        error, answer = server.invoke("early")
        assert error is None and len(answer) == 16, answer
        assert len(environments(server, "early")) == 2
        assert server.invoke("early") == (None, answer)


@pytest.mark.parametrize("runtime", EXAMPLES)
def test_created_invoked_cold_and_warm(server, runtime):
    handler, files, _ = EXAMPLES[runtime]
    name = "warm-" + runtime.replace(".", "-")
    created = create(server, name, files, runtime=runtime, handler=handler)
    assert (created["State"], created["StateReasonCode"], created["Version"]) == ("Pending", "Creating", LATEST)
    assert environments(server, name) == [], "nothing runs before somebody asks"
    answers = [server.invoke(name, {"tag": tag, "wait_ms": 0}) for tag in ("cold", "warm", "again")]
    assert [(error, answer["tag"]) for error, answer in answers] == [(None, "cold"), (None, "warm"), (None, "again")]
    assert len({answer["environment"] for _, answer in answers}) == 1
    assert len(environments(server, name)) == 1


@pytest.mark.parametrize("runtime", EXAMPLES)
def test_an_environment_never_has_two_requests(server, runtime):
    handler, files, _ = EXAMPLES[runtime]
    name = "alone-" + runtime.replace(".", "-")
    create(server, name, files, runtime=runtime, handler=handler)
    with together(6) as pool:
        answers = list(pool.map(lambda tag: server.invoke(name, {"tag": tag, "wait_ms": 20}), range(30)))
    assert [(error, answer["tag"]) for error, answer in answers] == [(None, tag) for tag in range(30)]
    assert {answer["most_at_once"] for _, answer in answers} == {1}


def test_as_many_environments_as_requests_at_once(server):
    create(server, "at-once")
    with meeting() as place, together(5) as pool:
        calls = [pool.submit(invoke_at, server, "at-once", place, f"{n}") for n in range(5)]
        place.wait_for(5)
        assert len(environments(server, "at-once")) == 5
        place.open.set()
        answers = [call.result() for call in calls]
    assert len({process for error, process in answers if error is None}) == 5, answers
    # What was started for the peak serves what comes later.
    assert server.invoke("at-once")[1] in {process for _, process in answers}


def test_reserved_concurrency_bounds_a_function_and_all_its_versions(server):
    create(server, "bounded")
    server.client.publish_version(FunctionName="bounded")
    server.client.put_function_concurrency(FunctionName="bounded", ReservedConcurrentExecutions=2)
    with meeting() as place, together(2) as pool:
        calls = [pool.submit(invoke_at, server, name, place, name) for name in ("bounded", "bounded:1")]
        place.wait_for(2)
        assert throttled(server.invoke, "bounded") == "ReservedFunctionConcurrentInvocationLimitExceeded"
        assert throttled(server.invoke, "bounded:1") == "ReservedFunctionConcurrentInvocationLimitExceeded"
        place.open.set()
        assert [call.result()[0] for call in calls] == [None, None]
    assert server.invoke("bounded")[0] is None


def test_nothing_reserved_is_a_switch_for_off(server):
    create(server, "off")
    server.client.put_function_concurrency(FunctionName="off", ReservedConcurrentExecutions=0)
    assert throttled(server.invoke, "off") == "ReservedFunctionConcurrentInvocationLimitExceeded"
    server.client.delete_function_concurrency(FunctionName="off")
    assert server.invoke("off")[0] is None


def test_the_account_s_concurrency_is_shared_by_what_reserves_nothing():
    server = Server(None, "--quota", "concurrent-executions=3", "--quota", "unreserved-concurrency-min=0")
    try:
        for name in ("one", "two", "reserved"):
            create(server, name)
        with meeting() as place, together(4) as pool:
            calls = [pool.submit(invoke_at, server, name, place, name) for name in ("one", "one", "two")]
            place.wait_for(3)
            for name in ("one", "two"):
                assert throttled(server.invoke, name) == "ConcurrentInvocationLimitExceeded"
            place.open.set()
            assert [call.result()[0] for call in calls] == [None] * 3
        # What one reserves is no longer there for the others.
        server.client.put_function_concurrency(FunctionName="reserved", ReservedConcurrentExecutions=2)
        with meeting() as place, together(4) as pool:
            calls = [pool.submit(invoke_at, server, name, place, name) for name in ("one", "reserved", "reserved")]
            place.wait_for(3)
            assert throttled(server.invoke, "two") == "ConcurrentInvocationLimitExceeded"
            assert throttled(server.invoke, "reserved") == "ReservedFunctionConcurrentInvocationLimitExceeded"
            place.open.set()
            assert [call.result()[0] for call in calls] == [None] * 3
    finally:
        server.remove()


def test_a_timeout_ends_the_environment(server):
    create(server, "late", Timeout=1)
    before = server.invoke("late")[1]
    with meeting() as place:
        error, answer = invoke_at(server, "late", place, "late")
        assert (error, answer["errorType"]) == ("Unhandled", "Sandbox.Timedout")
        assert answer["errorMessage"].endswith("Error: Task timed out after 1.00 seconds")
        wait_until(lambda: environments(server, "late") == [], "the environment to be gone, though its code still waits")
    error, after = server.invoke("late")
    assert error is None and after != before


@pytest.mark.parametrize(
    "event, how",
    [
        ({"exit": 0}, "Runtime exited without providing a reason"),
        ({"exit": 7}, "Runtime exited with error: exit status 7"),
        ({"signal": signal.SIGKILL}, "Runtime exited with error: signal: killed"),
        ({"signal": signal.SIGSEGV}, "Runtime exited with error: signal: segmentation fault"),
    ],
)
def test_a_runtime_that_ends_is_said_and_replaced(server, event, how):
    name = "ends-" + "-".join(f"{key}-{int(value)}" for key, value in event.items())
    create(server, name)
    before = server.invoke(name)[1]
    for _ in range(3):
        error, answer = server.invoke(name, event)
        assert (error, answer["errorType"]) == ("Unhandled", "Runtime.ExitError")
        assert answer["errorMessage"].endswith(f" Error: {how}"), answer
        error, after = server.invoke(name)
        assert error is None and after != before
        before = after


def test_the_memory_limit_bites(server):
    create(server, "memory", MemorySize=128)
    assert server.invoke("memory", {"mib": 20}) == (None, 20 << 20)
    error, answer = server.invoke("memory", {"mib": 400})
    assert error == "Unhandled" and answer["errorType"] in ("Runtime.OutOfMemory", "Runtime.ExitError"), answer
    assert answer["errorMessage"].endswith("Error: Runtime exited with error: signal: killed")
    assert server.invoke("memory", {"mib": 20}) == (None, 20 << 20)
    server.client.update_function_configuration(FunctionName="memory", MemorySize=1024)
    server.settled("memory", LATEST)
    assert server.invoke("memory", {"mib": 400}) == (None, 400 << 20)


CANNOT_START = {
    # Each runtime's client reports the error itself, and the caller gets what it reported, to the letter.
    "python3.13": ("app.handler", {"app.py": "import nowhere\n"}, "Runtime.ImportModuleError", "Unable to import module 'app': No module named 'nowhere'"),
    "nodejs24.x": ("index.handler", {"index.mjs": "throw new TypeError('not today');\n"}, "TypeError", "not today"),
}


@pytest.mark.parametrize("runtime", CANNOT_START)
def test_code_that_cannot_start_says_why_every_time(server, runtime):
    handler, files, kind, text = CANNOT_START[runtime]
    name = "broken-" + runtime.replace(".", "-")
    create(server, name, files, runtime=runtime, handler=handler)
    for _ in range(4):
        error, answer = server.invoke(name)
        assert (error, answer["errorType"], answer["errorMessage"]) == ("Unhandled", kind, text)
    wait_until(lambda: environments(server, name) == [], "what failed to be gone")


@pytest.mark.parametrize("files", [{"other": "x"}, {"bootstrap": "#!/bin/sh\n"}], ids=["missing", "not-executable"])
def test_a_bootstrap_that_cannot_be_run(server, files):
    name = "entry-" + next(iter(files))
    create(server, name, files, runtime="provided.al2023")
    error, answer = server.invoke(name)
    assert (error, answer["errorType"]) == ("Unhandled", "Runtime.InvalidEntrypoint"), answer
    assert answer["errorMessage"].startswith("RequestId: ")


def test_mended_code_starts(server):
    create(server, "mended", {"app.py": "import nowhere\n"})
    assert server.invoke("mended")[0] == "Unhandled"
    server.client.update_function_code(FunctionName="mended", ZipFile=zip_of({"app.py": DOES}))
    server.settled("mended", LATEST)
    assert server.invoke("mended")[0] is None


def test_a_handler_s_error_is_the_answer_and_costs_no_environment(server):
    create(server, "raises")
    process = server.invoke("raises")[1]
    error, answer = server.invoke("raises", {"raise": "nothing there"})
    assert error == "Unhandled"
    assert (answer["errorType"], answer["errorMessage"]) == ("KeyError", "'nothing there'")
    assert any("app.py" in line for line in answer["stackTrace"])
    assert server.invoke("raises") == (None, process)


def test_the_environment_variables_of_the_classic_mode(server):
    create(server, "classic", Environment={"Variables": {"MINE": "1"}}, MemorySize=256)
    seen = server.invoke("classic", {"environment": True})[1]
    wanted = {
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_FORMAT": "Text",
        "AWS_LAMBDA_FUNCTION_NAME": "classic",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/classic",
        "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",
        "_HANDLER": "app.handler",
        "MINE": "1",
    }
    assert {name: seen.get(name) for name in wanted} == wanted
    assert "[$LATEST]" in seen["AWS_LAMBDA_LOG_STREAM_NAME"]
    for absent in ("AWS_LAMBDA_MAX_CONCURRENCY", "AWS_LAMBDA_LOG_LEVEL", "_LAMBDA_TELEMETRY_LOG_FD_PROVIDER_SOCKET"):
        assert absent not in seen
    for logging, level in (({"LogFormat": "JSON"}, "INFO"), ({"LogFormat": "JSON", "ApplicationLogLevel": "ERROR"}, "ERROR")):
        server.client.update_function_configuration(FunctionName="classic", LoggingConfig=logging)
        server.settled("classic", LATEST)
        seen = server.invoke("classic", {"environment": True})[1]
        assert (seen["AWS_LAMBDA_LOG_FORMAT"], seen["AWS_LAMBDA_LOG_LEVEL"]) == ("JSON", level)


def test_a_runtime_that_is_not_installed_names_the_command(server):
    listed = subprocess.run([BIN, "runtime", "list", "--json"], capture_output=True, text=True, check=True).stdout
    missing = next(name for name in ("ruby3.4", "ruby3.3", "java21", "dotnet8") if name not in listed)
    create(server, "absent", {"app.rb": ""}, runtime=missing)
    for _ in range(2):
        code, text, status = fault(server.invoke, "absent")
        assert (code, status) == ("InvalidRuntimeException", 502)
        assert f"ondol runtime install {missing}" in text


def test_layers_are_in_opt(server):
    one = publish_layer(server, "od-one", {"both": "first", "python/shared.py": "NAME = 'from a layer'"})["LayerVersionArn"]
    two = publish_layer(server, "od-two", {"both": "second"})["LayerVersionArn"]
    code = "from shared import NAME\ndef handler(event, context):\n    return [NAME, open('/opt/both').read()]\n"
    create(server, "layered", {"app.py": code}, Layers=[one, two])
    assert server.invoke("layered") == (None, ["from a layer", "second"])


def test_explain_knows_that_they_need_no_publish(server):
    explain = lambda name: subprocess.run([BIN, "explain", name, "--port", str(server.port)], capture_output=True, text=True, check=True).stdout
    create(server, "explained")
    create(server, "explained-broken", {"app.py": "import nowhere\n"})
    server.invoke("explained"), server.invoke("explained-broken")
    assert "publish" not in explain("explained")
    assert "Runtime.ImportModuleError" in explain("explained-broken") and "No module named 'nowhere'" in explain("explained-broken")
